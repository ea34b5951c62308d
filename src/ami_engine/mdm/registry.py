"""Models by name: the engine's own, and those that installed distributions offer as entry points.

A distribution offers a model with a line in its `pyproject.toml` that leads to a `ModelSpec`::

    [project.entry-points."ami_engine.models"]
    acme-maker = "acme_models.maker:SPEC"

Nothing of a distribution is imported before its model is asked for.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import math
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, Literal

import msgspec

from ami_engine.errors import ConfigError
from ami_engine.features.schema import ALIASES, FEATURE_NAMES
from ami_engine.mdm.reference_model import ReferenceModel

__all__ = ["GROUP", "REFERENCE", "ModelEntry", "ModelParam", "ModelRegistry", "ModelSpec"]

GROUP = "ami_engine.models"

_WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
_TRUTHS = {"true": True, "false": False}


class ModelParam(msgspec.Struct, frozen=True):
    """One setting of a model. The kind of its default is the kind that it takes: float, int, bool or str.

    Parameters
    ----------
    default : float, int, bool or str
        What it is when nobody says.
    meaning : str
        One line, for `ami models NAME`.
    unit : str
        Unit of a number; empty for one that has none.
    low, high : float
        Range of a number, both ends allowed.

    Examples
    --------
    >>> ModelParam("size_usd", 1.0, "size of a quote", "USD", low=0.0).parse("2.5")
    2.5
    """

    name: str
    default: float | int | bool | str
    meaning: str
    unit: str = ""
    low: float = -math.inf
    high: float = math.inf

    @property
    def kind(self) -> type:
        """Its type."""
        return type(self.default)

    @property
    def range_text(self) -> str:
        """Its range in words; empty without one.

        >>> ModelParam("x", 1.0, "", low=0.0, high=1.0).range_text, ModelParam("x", 1, "", low=1).range_text
        ('in [0, 1]', '>= 1')
        """
        if self.low == -math.inf and self.high == math.inf:
            return ""
        if self.high == math.inf:
            return f">= {self.low:g}"
        return f"<= {self.high:g}" if self.low == -math.inf else f"in [{self.low:g}, {self.high:g}]"

    def parse(self, text: str) -> Any:
        """Return the value that a text says; ConfigError when it says none."""
        kind = self.kind
        try:
            value = _TRUTHS[text.lower()] if kind is bool else kind(text)
        except (KeyError, ValueError):
            raise self._refused(text) from None
        return self.check(value)

    def check(self, value: Any) -> Any:
        """Return the value, a whole number as float where one is taken; ConfigError when it is not allowed."""
        kind: type[Any] = self.kind
        if kind is float and type(value) is int:
            value = float(value)
        is_number = kind in (int, float)
        if type(value) is not kind or (is_number and not (math.isfinite(value) and self.low <= value <= self.high)):
            raise self._refused(value)
        return value

    def _refused(self, value: Any) -> ConfigError:
        unit = f" ({self.unit})" if self.unit else ""
        rule = " ".join(part for part in (_WORDS[self.kind], self.range_text) if part)
        return ConfigError(f"{self.name} must be {rule}{unit}, was {value!r}")


class ModelSpec(msgspec.Struct, frozen=True):
    """What a model is, and how one is made.

    Parameters
    ----------
    factory : callable
        Takes the parameters as keywords and returns ``model(features, **kwargs) -> Proposal``.
    description : str
        One line.
    params : tuple of ModelParam
        What the factory takes.
    features : tuple of str
        What the model reads of a row; each must be in the schema. Empty for events without a price.
    step : {"python", "compiled"}
        ``compiled`` when what the factory returns is asked by the compiled step itself (`CompiledModel` is).

    Raises
    ------
    ConfigError
        When a feature is not in the schema, a parameter is named twice, or its default is outside its range.

    Examples
    --------
    >>> spec = ModelSpec(lambda size: lambda features: size, "says a number", (ModelParam("size", 1.0, "the number"),))
    >>> spec.make(spec.parse({"size": "3"}))({})
    3.0
    """

    factory: Callable[..., Any]
    description: str
    params: tuple[ModelParam, ...] = ()
    features: tuple[str, ...] = ()
    step: Literal["python", "compiled"] = "python"

    def __post_init__(self) -> None:
        for name in self.features:
            if name not in FEATURE_NAMES and name not in ALIASES:
                raise ConfigError(
                    f"reads the feature {name!r}, which this version does not have{_near(name, FEATURE_NAMES)}"
                )
        names = [param.name for param in self.params]
        for param in self.params:
            if names.count(param.name) > 1:
                raise ConfigError(f"has two parameters {param.name!r}")
            if param.kind not in _WORDS:
                raise ConfigError(f"the default of {param.name} must be float, int, bool or str, was {param.default!r}")
            param.check(param.default)
        if self.step not in ("python", "compiled"):
            raise ConfigError(f"`step` must be python or compiled, was {self.step!r}")

    def parse(self, texts: Mapping[str, str]) -> dict[str, Any]:
        """Return the parameters that texts say, as `--model-arg` gives them; ConfigError names what is wrong."""
        return {name: self._param(name).parse(text) for name, text in texts.items()}

    def make(self, given: Mapping[str, Any] | None = None) -> Callable[..., Any]:
        """Return a model with the parameters that are given, and defaults for the others.

        Raises
        ------
        ConfigError
            When a parameter is unknown or not allowed, the factory fails, or what it returns is no model.
        """
        values = {param.name: param.default for param in self.params}
        values |= {name: self._param(name).check(value) for name, value in (given or {}).items()}
        try:
            model = self.factory(**values)
        except Exception as error:  # somebody's code
            raise ConfigError(f"cannot be made: {type(error).__name__}: {error}") from error
        if not callable(model):
            raise ConfigError(f"must be callable, as model(features), was {model!r}")
        if self.step == "compiled" and not _is_compiled(model):
            raise ConfigError("is said to run in the compiled step, and has no compiled function")
        return model  # type: ignore[no-any-return]

    def _param(self, name: str) -> ModelParam:
        known = {param.name: param for param in self.params}
        if name not in known:
            raise ConfigError(
                f"{name!r} is no argument of the model{_near(name, known)}; it takes {', '.join(known) or 'none'}"
            )
        return known[name]


class ModelEntry(msgspec.Struct, frozen=True):
    """One row of a list of models: whose it is, and what is known of it so far.

    Parameters
    ----------
    distribution, version : str
        Who offers it.
    place : str
        Where its `ModelSpec` is, ``module:attribute``.
    spec : ModelSpec or None
        What it is; None while it is not loaded.
    fault : str
        Why it cannot be used; empty when nothing is known against it.
    """

    name: str
    distribution: str
    version: str
    place: str
    spec: ModelSpec | None = None
    fault: str = ""

    @property
    def label(self) -> str:
        """Name and version, for a run's record: `reference`, or `acme-maker (acme-models 1.2)`."""
        return f"{self.name} ({self.distribution} {self.version})" if self.distribution else self.name


REFERENCE = ModelSpec(
    factory=ReferenceModel,
    description="a plain market maker: quotes around the mid while the book is deep, tight and leaning to one side",
    params=(
        ModelParam("confidence_threshold", 0.5, "what the confidence must reach to act", low=0.0, high=1.0),
        ModelParam("imbalance_threshold", 0.1, "what the size of the imbalance must reach to act", low=0.0, high=1.0),
        ModelParam("max_size_usd", 1.0, "size of a quote at most", "USD", low=0.0),
    ),
    features=("mid", "spread", "spread_bps", "depth", "imbalance"),
    step="compiled",
)


class ModelRegistry:
    """The models that there are by name.

    Parameters
    ----------
    entry_points : iterable of importlib.metadata.EntryPoint, optional
        What is offered; the entry points of the group `GROUP` of everything installed when not given.

    Notes
    -----
    A name that two distributions offer belongs to neither: which of them is found first says nothing about which was
    meant. A name of the engine's own cannot be taken.

    Examples
    --------
    >>> registry = ModelRegistry(entry_points=())
    >>> registry.names()
    ['reference']
    >>> registry.get("referense")
    Traceback (most recent call last):
    ...
    ami_engine.errors.ConfigError: there is no model 'referense' (did you mean 'reference'?); there are reference
    """

    def __init__(self, entry_points: Iterable[importlib.metadata.EntryPoint] | None = None) -> None:
        self._own = {"reference": ModelEntry("reference", "", "", f"{__name__}:REFERENCE", REFERENCE)}
        self._points = entry_points

    @cached_property
    def _offered(self) -> dict[str, list[importlib.metadata.EntryPoint]]:
        """What distributions offer, by name; looked for once, and not at all for a model of the engine's own."""
        found = importlib.metadata.entry_points(group=GROUP) if self._points is None else self._points
        offered: dict[str, list[importlib.metadata.EntryPoint]] = {}
        for point in sorted(found, key=lambda point: (point.name, _distribution(point), point.value)):
            offered.setdefault(point.name, []).append(point)
        return offered

    def register(self, name: str, spec: ModelSpec) -> None:
        """Add a model of this program's own; ConfigError when the name is taken."""
        if name in self._own or name in self._offered:
            raise ConfigError(f"there is a model {name!r} already: choose another name")
        self._own[name] = ModelEntry(name, "", "", "", spec)

    def names(self) -> list[str]:
        """Return the names, sorted, the engine's own first."""
        return [*self._own, *(name for name in self._offered if name not in self._own)]

    def entries(self, *, load: bool = False) -> list[ModelEntry]:
        """Return every model, those that cannot be used as well, with their fault.

        Parameters
        ----------
        load : bool
            Import what was not imported yet, to know what it is and whether it works.
        """
        offered = [self._entry(point, load=load) for points in self._offered.values() for point in points]
        return [*self._own.values(), *offered]

    def get(self, name: str) -> ModelEntry:
        """Return a model by its name, loaded.

        Raises
        ------
        ConfigError
            When there is none of that name, two distributions offer it, or it cannot be used.
        """
        if name in self._own:
            return self._own[name]
        points = self._offered.get(name)
        if points is None:
            known = self.names()
            raise ConfigError(f"there is no model {name!r}{_near(name, known)}; there are {', '.join(known)}")
        entry = self._entry(points[0], load=True)
        if entry.fault:
            raise ConfigError(f"the model {name!r} of {entry.distribution} cannot be used: {entry.fault}")
        return entry

    def _entry(self, point: importlib.metadata.EntryPoint, *, load: bool) -> ModelEntry:
        distribution, version = _distribution(point), point.dist.version if point.dist is not None else ""
        fault, spec = self._clash(point), None
        if not fault and load:
            spec, fault = _load(point)
        return ModelEntry(point.name, distribution, version, point.value, spec, fault)

    def _clash(self, point: importlib.metadata.EntryPoint) -> str:
        if point.name in self._own:
            return "the name is the engine's own"
        owners = [_distribution(other) for other in self._offered[point.name]]
        if len(owners) == 1:
            return ""
        return f"{' and '.join(owners)} offer a model of this name: uninstall all but one"


def _load(point: importlib.metadata.EntryPoint) -> tuple[ModelSpec | None, str]:
    """Return what an entry point leads to, or why it leads nowhere."""
    try:
        spec = point.load()
    except (Exception, SystemExit) as error:  # importing runs somebody's code
        return None, " ".join(f"{type(error).__name__}: {error}".split())
    if not isinstance(spec, ModelSpec):
        return None, f"{point.value} must be a ModelSpec, was {type(spec).__name__}"
    return spec, ""


def _distribution(point: importlib.metadata.EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an unknown distribution"


def _is_compiled(model: Any) -> bool:
    return type(model) is ReferenceModel or getattr(model, "compiled_address", None) is not None


def _near(name: str, known: Iterable[str]) -> str:
    """Return what was probably meant, in brackets."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
