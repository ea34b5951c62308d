"""Why a line of JSON could not be read: the slow path that names the field at fault."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import msgspec

from ami_engine.errors import EventError

__all__ = ["non_finite_path", "read_object", "refusal"]

_PATH = re.compile(r"at `\$\.?([^`]*)`")
_MISSING = re.compile(r"missing required field `([^`]*)`")


def read_object(line: bytes) -> dict[str, Any]:
    """Decode one JSON object, or raise the `EventError` that says what is wrong with it.

    >>> read_object(b'{"bid": 1.5}')
    {'bid': 1.5}
    >>> read_object(b'{"bid": NaN}')
    Traceback (most recent call last):
    ami_engine.errors.EventError: `bid` must be finite, was nan
    """
    try:
        value = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise _syntax_error(line, error) from None
    if type(value) is not dict:
        raise EventError(f"a line must hold a JSON object, was {type(value).__name__}", reason="wrong_type")
    return value


def refusal(line: bytes, error: msgspec.DecodeError) -> EventError:
    """Return what to raise for a line that a typed decoder refused with `error`, its field named."""
    if not isinstance(error, msgspec.ValidationError):
        return _syntax_error(line, error)
    message = str(error)
    missing = _MISSING.search(message)
    path = _PATH.search(message)
    if missing is not None:
        field = missing.group(1)
        return EventError(f"`{field}` is absent", reason="missing_field", field=field)
    field = path.group(1) if path is not None else ""
    what = message.partition(" - at ")[0]
    what = what[:1].lower() + what[1:]
    reason = "not_finite" if "out of range" in what else "wrong_type"
    return EventError(f"`{field}`: {what}" if field else what, reason=reason, field=field)


def non_finite_path(value: Any, path: str = "") -> tuple[str, float] | None:
    """Return the path of the first NaN or infinity in decoded JSON, and its value; None when all is finite."""
    if isinstance(value, float):
        return None if math.isfinite(value) else (path, value)
    if isinstance(value, dict):
        children = [(f"{path}.{key}" if path else str(key), child) for key, child in value.items()]
    elif isinstance(value, list):
        children = [(f"{path}[{place}]", child) for place, child in enumerate(value)]
    else:
        return None
    for name, child in children:
        found = non_finite_path(child, name)
        if found is not None:
            return found
    return None


def _syntax_error(line: bytes, error: msgspec.DecodeError) -> EventError:
    """Tell a NaN or Infinity token, which JSON has not but many writers emit, from a line that is broken."""
    try:
        found = non_finite_path(json.loads(line))
    except (ValueError, RecursionError):
        found = None
    if found is not None:
        field, value = found
        return EventError(f"`{field}` must be finite, was {value!r}", reason="not_finite", field=field)
    return EventError(f"not valid JSON: {error}", reason="bad_json")
