"""How an error reads on the command line: options by the names they have there, and what is to be done."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["changed_settings", "kept_settings", "usage_text", "with_option_names"]

_NAME = re.compile(r"`([a-z][a-z0-9_]*)`")
_KEPT = "run.json"


def with_option_names(message: str, options: Mapping[str, str]) -> str:
    """Return `message` with parameters under the names that they have as options.

    The engine speaks of its parameters, as a program knows them; on the command line the same thing has another name.
    What is said of a TOML file is left alone: there the keys are the names.

    >>> with_option_names("`run_dir` 'x' is not empty", {"run_dir": "--run-dir"})
    "`--run-dir` 'x' is not empty"
    >>> with_option_names("es.toml: `tick_size` must be > 0", {"tick_size": "--tick-size"})
    'es.toml: `tick_size` must be > 0'
    """
    if ".toml: " in message:
        return message
    return _NAME.sub(lambda found: f"`{options.get(found[1], found[1])}`", message)


def usage_text(error: Any, *, takes_source: bool) -> str:
    """Return what a usage error of the command line says, with the value that was wrong and what was probably meant.

    Parameters
    ----------
    error : Exception
        Has ``format_message()``.
    takes_source : bool
        Whether the command reads what its `--source` names, and no argument.
    """
    text = str(error.format_message()).replace("Value error, ", "").rstrip(".").split(", unable to parse")[0]
    details = getattr(error.__cause__, "errors", None)
    if details is not None and " is not " not in text:
        text += f", was {details()[0]['input']!r}"
    if takes_source and "unexpected extra argument" in text:
        text += ": a file is named with `--source`"
    return text


def kept_settings(run_dir: Path | None) -> dict[str, Any]:
    """Return what `run.json` in a run's directory says the run was made of, under dotted names; nothing without one.

    >>> kept_settings(None)
    {}
    """
    if run_dir is None:
        return {}
    try:
        kept = json.loads((run_dir / _KEPT).read_bytes())
    except (OSError, ValueError):  # none is there, or nothing that can be compared
        return {}
    return dict(_flat({name: kept.get(name) for name in ("source", "config")}))


def changed_settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Say how a resumed run's settings differ from those that it goes on from; empty when they do not.

    >>> changed_settings({"config.seed": 1, "source": "x"}, {"config.seed": 2, "source": "x"})
    'resumed under other settings than before (seed: 1, now 2): choose another --run-dir to keep runs apart'
    """
    names = [name for name in after if before and before.get(name) != after[name]]
    if not names:
        return ""
    told = [f"{name.removeprefix('config.')}: {before.get(name)}, now {after[name]}" for name in names[:3]]
    more = [f"and {len(names) - 3} more"] if len(names) > 3 else []
    return (
        f"resumed under other settings than before ({', '.join(told + more)}): "
        "choose another --run-dir to keep runs apart"
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Sequence[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            flat.extend(_flat(value, f"{prefix}{name}."))
        else:
            flat.append((prefix + name, value))
    return flat
