"""`ami models`: which models there are by name; and what `--model` and `--model-arg` of a run mean."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import typer

from ami_engine.cli.output import print_json, print_rows
from ami_engine.errors import ConfigError
from ami_engine.mdm.registry import ModelEntry, ModelParam, ModelRegistry
from ami_engine.private_hook import load_object

__all__ = ["ChosenModel", "load_model", "models"]


class ChosenModel(NamedTuple):
    """The model of a run, None for the engine's own choice; how the run's record names it; the features it reads."""

    model: Callable[..., Any] | None
    label: str
    reads: tuple[str, ...] = ()


def models(
    name: Annotated[str | None, typer.Argument(help="Show this model's parameters and what it reads.")] = None,
    load: Annotated[
        bool, typer.Option("--load", help="Import every model, to show what it is and whether it works.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """List the models that `ami run --model NAME` knows: the engine's own, and those of installed packages.

    Packages are not imported to be listed; `--load` imports them, and exits with 1 when one does not work.

    Example: `ami models reference`
    """
    registry = ModelRegistry()
    entries = registry.entries(load=load) if name is None else [registry.get(name)]
    if json:
        rows = [_document(entry) for entry in entries]
        print_json({"models": rows} if name is None else rows[0])
    elif name is None:
        print_rows([(entry.name, _summary(entry)) for entry in entries])
    else:
        _print_one(entries[0])
    raise typer.Exit(1 if load and any(entry.fault for entry in entries) else 0)


def load_model(name: str, arguments: Sequence[str]) -> ChosenModel:
    """Return the model that ``--model`` names, with the arguments that ``--model-arg`` gives.

    ``reference`` without arguments is the engine's own choice: the private hook where there is one.

    Raises
    ------
    ConfigError
        When there is no such model, it cannot be used, or an argument is not ``k=v``, not the model's, or not allowed.
    """
    texts: dict[str, str] = {}
    for key, text in map(_split, arguments):
        if key in texts:
            raise ConfigError(f"`--model-arg` {key} is given twice")
        texts[key] = text
    if ":" in name:
        return ChosenModel(_load_callable(name, texts), name)
    try:
        entry = ModelRegistry().get(name)
    except ConfigError as error:
        raise ConfigError(f"`--model`: {error}; `module:attribute` names one of your own") from None
    if name == "reference" and not texts:
        return ChosenModel(None, name)
    assert entry.spec is not None
    try:
        given = entry.spec.parse(texts)
    except ConfigError as error:
        raise ConfigError(f"`--model-arg` {error}; see `ami models {name}`") from None
    try:
        return ChosenModel(entry.spec.make(given), entry.label, entry.spec.features)
    except ConfigError as error:
        raise ConfigError(f"`--model` {name!r} {error}") from error


def _load_callable(name: str, texts: Mapping[str, str]) -> Callable[..., Any]:
    function = load_object(name, "--model")
    if not callable(function):
        raise ConfigError(f"`--model` {name!r} must be callable, as model(features), was {function!r}")
    keywords = {key: _guess(key, text) for key, text in texts.items()}
    _check_keywords(name, function, keywords)
    if not keywords:
        return function  # type: ignore[no-any-return]
    return lambda features, **extra: function(features, **{**keywords, **extra})


def _check_keywords(name: str, function: Any, keywords: Mapping[str, Any]) -> None:
    """Refuse an argument that the model does not take: it would fail, and hold, at every step."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # some compiled callables do not say
        return
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    known = [*parameters][1:]  # the first one takes the features
    for key in keywords:
        if key not in known:
            raise ConfigError(f"`--model-arg` {key!r} is no argument of {name}; known: {', '.join(known) or 'none'}")


def _split(argument: str) -> tuple[str, str]:
    key, equals, text = argument.partition("=")
    if not equals or not key:
        raise ConfigError(f"`--model-arg` must be k=v, was {argument!r}")
    return key, text


def _guess(key: str, text: str) -> Any:
    """Return a number or a truth where the text is one: a function does not say what it takes."""
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if value != value:
            raise ConfigError(f"`--model-arg` {key} must be a number that compares, was {text!r}")
        return value
    return {"true": True, "false": False}.get(text.lower(), text)


def _owner(entry: ModelEntry) -> str:
    return f"{entry.distribution} {entry.version}".strip() or "built in"


def _summary(entry: ModelEntry) -> str:
    if entry.fault:
        return f"{_owner(entry)}: cannot be used: {entry.fault}"
    return f"{_owner(entry)}: {entry.spec.description if entry.spec else entry.place}"


def _print_one(entry: ModelEntry) -> None:
    spec = entry.spec
    assert spec is not None
    rows = [("model", entry.name), ("from", _owner(entry)), ("what it is", spec.description)]
    rows += [("parameter", _parameter(param)) for param in spec.params]
    rows += [("reads", ", ".join(spec.features) or "events without a price"), ("step", spec.step)]
    print_rows(rows)


def _parameter(param: ModelParam) -> str:
    parts = [param.kind.__name__, param.range_text, param.unit]
    return f"{param.name}={param.default}  {param.meaning} ({', '.join(part for part in parts if part)})"


def _document(entry: ModelEntry) -> dict[str, Any]:
    spec = entry.spec
    known = {"name": entry.name, "distribution": entry.distribution, "version": entry.version, "place": entry.place}
    if spec is None:
        return known | {"fault": entry.fault, "is_loaded": False}
    parameters = [
        {
            "name": param.name,
            "type": param.kind.__name__,
            "default": param.default,
            "unit": param.unit,
            "range": param.range_text,
            "meaning": param.meaning,
        }
        for param in spec.params
    ]
    return known | {
        "fault": entry.fault,
        "is_loaded": True,
        "description": spec.description,
        "parameters": parameters,
        "features": list(spec.features),
        "step": spec.step,
    }
