"""TOML files: what cannot be read, and what a table of one may not hold, in the words of somebody who wrote it."""

from __future__ import annotations

import difflib
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_args

import msgspec

from ami_engine.errors import ConfigError

__all__ = ["load_toml", "struct_of_toml"]

_T = TypeVar("_T")
_WORDS: dict[Any, str] = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
_FAULT = re.compile(
    r"(missing required field `(?P<missing>[^`]*)`)|(unknown field `(?P<unknown>[^`]*)`)|(?=Expected|Invalid)"
)
_PATH = re.compile(r"at `\$\.?([^`]*)`")


def load_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file; ConfigError names it, and the line, when it cannot be read."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}") from None


def struct_of_toml(table: Any, kind: type[_T], where: str) -> _T:
    """Return the struct that a TOML table describes.

    Raises
    ------
    ConfigError
        Beginning with `where`, and naming the key: one that is unknown, is missing, or holds what it cannot.

    Examples
    --------
    >>> from ami_engine.units import Instrument
    >>> struct_of_toml({"symbol": "X", "tick_size": "1 cent"}, Instrument, "x.toml")
    Traceback (most recent call last):
    ...
    ami_engine.errors.ConfigError: x.toml: `tick_size` must be a number, was '1 cent'
    """
    try:
        return msgspec.convert(table, kind)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {_in_words(str(error), table, kind)}") from None


def _in_words(message: str, table: Any, kind: type) -> str:
    """Return what msgspec says of a table in the words of somebody who wrote it."""
    fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
    path, found = _PATH.search(message), _FAULT.search(message)
    key = path[1] if path is not None else ""
    if found is None or (key and key not in fields):  # inside a table of the table
        return message
    if found["missing"]:
        return f"`{found['missing']}` is missing: what is it?"
    if found["unknown"]:
        near = difflib.get_close_matches(found["unknown"], fields, n=1)
        meant = f" (did you mean `{near[0]}`?)" if near else ""
        return f"there is no key `{found['unknown']}`{meant}; its keys are {', '.join(fields)}"
    if not key:
        return message
    choices = [str(choice) for choice in get_args(fields[key]) if isinstance(choice, str) and choice]
    rule = f"one of {', '.join(choices)}" if choices else _WORDS.get(fields[key], "")
    return f"`{key}` must be {rule}, was {table[key]!r}" if rule else message
