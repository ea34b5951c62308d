"""Says at a packet's speed that there is nothing to redact in it, or that it must be walked through."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from types import CodeType
from typing import Any

import msgspec

from ami_engine.security.jsonl import JsonScrubber
from ami_engine.security.redaction import is_secret_key, redact_text
from decision_schema.types import Action

__all__ = ["OWN_KEYS", "CleanCheck", "fields_of"]

# The chain's own keys. A packet that brings them was read from another trace, and loses them first.
OWN_KEYS = ("ops.seq", "ops.prev_sha256", "ops.crc32", "ops.latency_ns")

_Check = Callable[[Any], bool]

# Caches are emptied when full: ids that are seen once cannot grow them.
_CACHE_ENTRIES = 4096
_CACHED_CHARS = 256
_CACHED_ITEMS = 128
# So many numbers in a row are added up faster as a tuple than by name.
_MANY = 8
_SUMMED = (float, float | None, int, bool, bool | None)


class CleanCheck:
    """Looks at every value of a packet once, and answers True only when all of it is known to be clean.

    Clean are finite numbers, None, strings and keys that were cleaned before and came out the same, and lists, dicts
    and structs of these. Anything else (bytes, arrays, types of the user's own, the chain's own keys) makes the answer
    False, which asks for the walk that `scrubber` does. Cost is kept low by adding up a struct's numbers in one
    expression: NaN, infinities, None and text all show in the sum.

    Parameters
    ----------
    scrubber : JsonScrubber
        Decides about strings that were not seen before.

    Attributes
    ----------
    texts, keys : dict
        The JSON of every string that was found clean, as a value and as a key (with its colon).
    structs : list of type
        Struct types without a secret field, in the order in which they were met.

    Examples
    --------
    >>> is_clean = CleanCheck(JsonScrubber())
    >>> is_clean({"mid": 0.5, "reasons": ["tight_spread"]})
    True
    >>> is_clean({"mid": float("nan")}), is_clean({"note": "token=abc"}), is_clean({"api_key": 1}), is_clean(b"x")
    (False, False, False, False)
    """

    def __init__(self, scrubber: JsonScrubber) -> None:
        self._scrubber = scrubber
        self.texts: dict[str, bytes] = {}
        self.keys: dict[str, bytes] = {}
        self.structs: list[type[msgspec.Struct]] = []
        # Reasons and reason codes, and the keys of dicts, come in few combinations.
        self._lists: set[tuple[Any, ...]] = set()
        self._key_lists: set[tuple[Any, ...]] = set()
        self._checks: dict[type, _Check] = {
            type(None): _yes,
            bool: _yes,
            int: _yes,
            Action: _yes,
            float: _is_finite,
            str: self._is_clean_text,
            list: self._are_clean,
            tuple: self._are_clean,
            dict: self._is_clean_dict,
        }

    def __call__(self, value: Any) -> bool:
        """Return True when `value` is certain to be clean. It must not contain itself: encode it first."""
        check = self._checks.get(type(value))
        return check(value) if check is not None else self._resolve(type(value))(value)

    def expect(self, types: Iterable[type], texts: Iterable[str], keys: Iterable[str]) -> None:
        """Look at struct types, texts and keys before a value holds them: those that are clean are known then.

        >>> is_clean = CleanCheck(JsonScrubber())
        >>> is_clean.expect([], ["tight_spread", "token=abc"], ["mid"])
        >>> list(is_clean.texts), list(is_clean.keys)
        (['tight_spread'], ['mid'])
        """
        for kind in types:
            if kind not in self._checks:
                self._resolve(kind)
        for text in texts:
            self(text)
        for key in keys:
            self({key: None})

    def _resolve(self, kind: type) -> _Check:
        check: _Check = _no
        if issubclass(kind, msgspec.Struct):
            names = (*kind.__struct_fields__, *kind.__struct_encode_fields__)
            if names and not any(is_secret_key(name) for name in names):
                check = self._struct_check(kind)
                self.structs.append(kind)
        self._checks[kind] = check
        return check

    def _struct_check(self, kind: type[msgspec.Struct]) -> _Check:
        names = kind.__struct_fields__

        def look_closer(value: Any) -> bool:
            return all(self(getattr(value, name)) for name in names)

        names_of_code: dict[str, Any] = {
            "look_closer": look_closer,
            "look": self,
            "checks": self._checks,
            "strings": self.texts,
            "lists": self._lists,
            "astuple": msgspec.structs.astuple,
        }
        exec(_code_of(kind), names_of_code)
        return names_of_code["check"]  # type: ignore[no-any-return]

    def _is_clean_text(self, text: str) -> bool:
        if text in self.texts:
            return True
        if self._scrubber.clean(text) is not text:
            return False
        if len(text) <= _CACHED_CHARS:
            self._make_room()
            self.texts[text] = _encode(text)
        return True

    def _are_clean(self, values: list[Any] | tuple[Any, ...]) -> bool:
        if not values:
            return True
        if type(values[0]) is not str:
            return all(map(self, values))
        texts = tuple(values)
        try:
            if texts in self._lists:
                return True
        except TypeError:
            # Text and lists in one list.
            return all(map(self, values))
        if not all(map(self, texts)):
            return False
        if len(texts) <= _CACHED_ITEMS and all(type(text) is str for text in texts):
            self._lists.add(texts)
        return True

    def _is_clean_dict(self, value: dict[Any, Any]) -> bool:
        if not value:
            return True
        keys = tuple(value)
        if keys not in self._key_lists and not self._are_clean_keys(keys):
            return False
        checks = self._checks
        for item in value.values():
            kind = type(item)
            if kind is float:
                if item - item != 0.0:
                    return False
            elif kind is not bool and kind is not int and not checks.get(kind, self)(item):
                return False
        return True

    def _are_clean_keys(self, keys: tuple[Any, ...]) -> bool:
        for key in keys:
            if type(key) is not str or key in OWN_KEYS or is_secret_key(key) or redact_text(key) is not key:
                return False
        if len(keys) <= _CACHED_ITEMS:
            self._make_room()
            self._key_lists.add(keys)
            self.keys.update((key, _encode(key) + b":") for key in keys)
        return True

    def _make_room(self) -> None:
        """Empty the caches when one is full: all together, so that what one knows, the others know."""
        caches = (self.texts, self.keys, self._lists, self._key_lists)
        if any(len(cache) >= _CACHE_ENTRIES for cache in caches):
            for cache in caches:
                cache.clear()


_encode = msgspec.json.Encoder().encode


# Types are asked for their fields at the start of every run, and by every encoder.
fields_of = lru_cache(maxsize=256)(msgspec.structs.fields)


@lru_cache(maxsize=256)
def _code_of(kind: type[msgspec.Struct]) -> CodeType:
    """Return the code that defines a struct type's `check`."""
    fields = fields_of(kind)
    terms = _sum_terms(fields)
    for field in fields:
        name = f"v.{field.name}"
        if field.type is str:
            terms.append(f"{name} in strings")
        elif field.type == list[str]:
            terms.append(f"(not {name} or tuple({name}) in lists)")
        elif field.type not in _SUMMED:
            terms.append(f"(not {name} or checks.get(type({name}), look)({name}))")
    # Generated, because a loop over the fields costs several times as much at every packet. What fails here is
    # looked at closer: a None among the numbers, text that is new, or what is no number at all.
    text = f"""def check(v):
    try:
        if {" and ".join(terms)}:
            return True
    except (TypeError, ValueError, ArithmeticError):
        pass
    return look_closer(v)
"""
    return compile(text, f"<check of {kind.__qualname__}>", "exec")


def _sum_terms(fields: tuple[msgspec.structs.FieldInfo, ...]) -> list[str]:
    """Return the source of what finds out whether the number fields of `v` are finite numbers."""
    places = [place for place, field in enumerate(fields) if field.type in _SUMMED]
    if not places:
        return []
    first, after = places[0], places[-1] + 1
    if len(places) >= _MANY and after - first == len(places):
        whole = "astuple(v)" if len(places) == len(fields) else f"astuple(v)[{first}:{after}]"
        total = f"sum({whole}, 0.0)"
    else:
        total = " + ".join(("0", *(f"v.{fields[place].name}" for place in places)))
    return [f"(type(total := {total}) is float or type(total) is int) and total - total == 0"]


def _yes(value: Any) -> bool:
    return True


def _no(value: Any) -> bool:
    return False


def _is_finite(number: float) -> bool:
    return number - number == 0.0
