"""Removal of secrets from whatever is about to be written or shown.

A key is split into words at everything that is neither letter nor digit, and at camelCase. It is secret when

* any word is secret, password, passphrase, authorization, credential(s), cookie or signature (or a plural of these),
* its last word is token or headers, or
* it holds one of the pairs api key, access key, secret key, private key, signing key, raw payload (or a plural of
  these), also when written as one word (``X-MBX-APIKEY``).

Inside any string, bearer tokens, PEM blocks, passwords of URLs and the values of ``key=value`` and ``key: value`` with
a secret key are replaced. Order ids and hashes have no such shape and are left alone.
"""

from __future__ import annotations

import dataclasses
import re
import threading
from collections.abc import Callable, Collection, Mapping, Set
from copy import copy
from enum import Enum
from itertools import pairwise
from operator import attrgetter
from typing import Any, TypeAlias, TypeVar

import msgspec

__all__ = ["SENTINEL", "TRIGGERS", "TRUNCATED", "Redactor", "is_secret_key", "redact_secrets", "redact_text"]

SENTINEL = "***REDACTED***"
TRUNCATED = "***TRUNCATED***"

T = TypeVar("T")
Handler: TypeAlias = Callable[[Any, int], Any]
_Assign: TypeAlias = Callable[[Any, str, Any], None]

_SECRET_WORDS = frozenset(
    {
        *("secret", "secrets", "password", "passwords", "passphrase", "passphrases", "authorization"),
        *("credential", "credentials", "cookie", "cookies", "signature", "signatures"),
    }
)
_SECRET_LAST_WORDS = frozenset({"token", "headers"})
_SINGULAR_PAIRS = (
    ("api", "key"),
    ("access", "key"),
    ("secret", "key"),
    ("private", "key"),
    ("signing", "key"),
    ("raw", "payload"),
)
_SECRET_PAIRS = frozenset((first, last + ending) for first, last in _SINGULAR_PAIRS for ending in ("", "s"))
_JOINED_PAIRS = tuple("".join(pair) for pair in _SINGULAR_PAIRS)

# No text is redacted that holds none of these, whatever its case: what a writer may test encoded packets for.
TRIGGERS: tuple[str, ...] = (
    *("secret", "password", "passphrase", "authorization", "credential", "cookie", "signature", "token", "headers"),
    *("key", "payload", "bearer", "begin ", "@"),
)

_CHUNK_RE = re.compile(r"[A-Za-z0-9]+")
# An acronym ends before the capital that begins the next word: APIKey is API, Key.
_WORD_RE = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[0-9]+")

# Caches are emptied when full: what is asked for again and again comes back at once, and ids that are seen once
# cannot grow them.
_CACHE_ENTRIES = 4096
_CACHED_CHARS = 256
_CACHED_KEYS = 128
_MAX_DEPTH = 64
# Containers above this depth are not tracked: a packet's own layout is never part of a cycle, and tracking costs more
# than the check itself.
_TRACKED_DEPTH = 3
_MANY = 8

_key_verdicts: dict[str, bool] = {}


def is_secret_key(key: object) -> bool:
    """Return whether a mapping's key, or a field's name, says that its value is secret.

    >>> [is_secret_key(k) for k in ("client_secret", "accessToken", "EXCHANGE_API_SECRET", b"APIKey")]
    [True, True, True, True]
    >>> [is_secret_key(k) for k in ("tokens_left", "keyboard", "author", "idempotency_key", 7)]
    [False, False, False, False, False]
    """
    if isinstance(key, bytes):
        key = key.decode("latin-1")
    if not isinstance(key, str):
        return False
    verdict = _key_verdicts.get(key)
    if verdict is None:
        verdict = _classify(key)
        if len(key) <= _CACHED_CHARS:
            if len(_key_verdicts) >= _CACHE_ENTRIES:
                _key_verdicts.clear()
            _key_verdicts[key] = verdict
    return verdict


def _classify(key: str) -> bool:
    chunks = _CHUNK_RE.findall(key)
    words = [word.lower() for chunk in chunks for word in _WORD_RE.findall(chunk)]
    if not words:
        return False
    if words[-1] in _SECRET_LAST_WORDS or not _SECRET_WORDS.isdisjoint(words):
        return True
    if any(pair in _SECRET_PAIRS for pair in pairwise(words)):
        return True
    # A chunk is looked at whole, too: its capitals may not mark its words (APIKEY, APIkey, passWord).
    whole = [chunk.lower() for chunk in chunks]
    return not _SECRET_WORDS.isdisjoint(whole) or any(pair in chunk for chunk in whole for pair in _JOINED_PAIRS)


# --- strings ---------------------------------------------------------------------------------------------------------

_PEM_RE = re.compile(r"-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]+-----|\Z)", re.DOTALL)
_BEARER_RE = re.compile(r"\b(bearer)([ \t]+|%20|\+)[A-Za-z0-9\-._~+/]+=*", re.IGNORECASE)
_URL_PASSWORD_RE = re.compile(r"(://[^\s/:@]*):[^\s/@]+@")
# %3D and %3A: a URL within a URL, or within a message that was quoted for one.
_SEPARATOR_RE = re.compile(r"(?:[=:]|%3[AaDd])+>?(?!//)[ \t]*")
# What stands before a separator, read backwards so that a long text costs no more than its length: a key, and the word
# before it, because `api key` is a key of two words.
_KEY_BACKWARDS_RE = re.compile(r"([A-Za-z0-9_.\-]+)(?:[ \t]+([A-Za-z0-9]+))?")
_KEY_CHARS = 128
_QUOTE_RE = re.compile(r"[rbu]?(\\*[\"'])")
_BARE = r"[^\s&,;\"'<>)\]}\\]"
# A value may hold a delimiter: it ends at one that a blank, the text's end or another key follows.
_UNTIL_BLANK_RE = re.compile(rf"(?:{_BARE}+|[&,;)](?={_BARE})(?![A-Za-z0-9_.\-]{{1,{_KEY_CHARS}}}(?:[:=]|%3)))*")
# After a colon words go on until a line's end, a delimiter or the next key.
_WORDS_RE = re.compile(rf"{_BARE}*(?:[ \t]+(?![A-Za-z0-9_.\-]{{1,{_KEY_CHARS}}}[\"']?[ \t]*[:=]){_BARE}+)*")
_LINE_RE = re.compile(r"[^\r\n\"'\\]*")
_CLOSING = {"{": "}", "[": "]", "(": ")"}
# Header values hold delimiters of their own: `Cookie: a=1; b=2`.
_HEADER_WORDS = ("cookie", "authorization", "headers")


def redact_text(text: str) -> str:
    """Return `text` without the secrets that its shape gives away; the same object when there are none.

    Examples
    --------
    >>> redact_text("GET /order?symbol=X&signature=abc123&recvWindow=5")
    'GET /order?symbol=X&signature=***REDACTED***&recvWindow=5'
    >>> redact_text("Authorization: Bearer abc.def")
    'Authorization: ***REDACTED***'
    >>> redact_text("order 8f3a9c0e was refused: price=0.5")
    'order 8f3a9c0e was refused: price=0.5'
    """
    result = text
    if "-----BEGIN" in result:
        result = _PEM_RE.sub(SENTINEL, result)
    if "=" in result or ":" in result or "%3" in result:
        result = _redact_pairs(result)
        if "://" in result and "@" in result:
            result = _URL_PASSWORD_RE.sub(rf"\1:{SENTINEL}@", result)
    if "bearer" in result.lower():
        result = _BEARER_RE.sub(rf"\1\2{SENTINEL}", result)
    return text if result == text else result


def _redact_pairs(text: str) -> str:
    pieces: list[str] = []
    copied = position = 0
    while (separator := _SEPARATOR_RE.search(text, position)) is not None:
        position = separator.end()
        key = _secret_key_before(text, separator.start())
        if key:
            start, end = _value_span(text, position, key, is_assigned=":" not in separator.group())
            pieces += text[copied:start], SENTINEL if end > start else ""
            copied = end
            position = max(end, position)
    if not pieces:
        return text
    pieces.append(text[copied:])
    return "".join(pieces)


def _secret_key_before(text: str, end: int) -> str:
    """Return the secret key that ends before `end`, quoted or not; empty when what stands there is none."""
    # The quotes may be escaped, as in the repr of a JSON text; a bracket closes `params["secret"]`.
    before = text[max(0, end - _KEY_CHARS) : end].rstrip(" \t\"'\\]")
    match = _KEY_BACKWARDS_RE.match(before[::-1])
    if match is None:
        return ""
    key, first = match[1][::-1], (match[2] or "")[::-1]
    if before[: len(before) - len(key)].endswith("%"):
        key = key[2:]  # the digits of what is quoted before it: %26api_key
    if is_secret_key(key):
        return key
    # Joined, two words are a key only when they are one of the pairs: `secret missing: x` gives nothing away.
    return first + key if first and is_secret_key(first + key) else ""


def _value_span(text: str, start: int, key: str, *, is_assigned: bool) -> tuple[int, int]:
    """Return where the value at `start` begins and ends, without its quotes; an open end is the text's end."""
    quote = _QUOTE_RE.match(text, start)
    if quote is not None:
        return quote.end(), _closing_quote(text, quote.group(1), quote.end())
    if text[start : start + 1] in _CLOSING:
        return start, _closing_bracket(text, start)
    if is_assigned:
        pattern = _UNTIL_BLANK_RE
    elif any(word in key.lower() for word in _HEADER_WORDS):
        pattern = _LINE_RE
    else:
        pattern = _WORDS_RE
    value = pattern.match(text, start)
    return start, value.end() if value is not None else start


def _closing_quote(text: str, quote: str, start: int) -> int:
    end = text.find(quote, start)
    while len(quote) == 1 and end > start and text[end - 1] == "\\":
        end = text.find(quote, end + 1)
    return end if end >= 0 else len(text)


def _closing_bracket(text: str, start: int) -> int:
    """Return the index after the bracket that closes the one at `start`."""
    opening, closing, depth = text[start], _CLOSING[text[start]], 0
    for index in range(start, len(text)):
        if text[index] == opening:
            depth += 1
        elif text[index] == closing:
            depth -= 1
            if depth == 0:
                return index + 1
    return len(text)


# --- containers ------------------------------------------------------------------------------------------------------


class _KeyPlan(msgspec.Struct, frozen=True):
    """What is to be done about a set of keys: whose values are secret, and which keys have the shape of a secret."""

    secret: frozenset[Any]
    renamed: dict[Any, str]


# Stands for a type that was not met before; None stands for one that holds nothing to look at.
_UNRESOLVED: Any = object()
_INERT = (int, float, complex, type(None), type)


class Redactor:
    """One pass over a value: the same object comes back when there is nothing to remove, else a changed copy.

    What kind of value a type is gets decided once per type, whether keys are secret once per set of keys.

    Examples
    --------
    >>> packet = {"mid": 0.5, "venue": {"api_key": "k"}}
    >>> Redactor().clean(packet)
    {'mid': 0.5, 'venue': {'api_key': '***REDACTED***'}}
    >>> packet["venue"]
    {'api_key': 'k'}
    """

    def __init__(self) -> None:
        self._handlers: dict[type, Handler | None] = {str: self._clean_str, dict: self._clean_dict}
        self._key_plans: dict[tuple[Any, ...], _KeyPlan] = {}
        self._clean_strings: set[str] = set()
        self._path: set[int] = set()

    def clean(self, value: T) -> T:
        """Return `value` without secrets. It is never changed itself."""
        try:
            return self._clean(value, 0)  # type: ignore[no-any-return]
        finally:
            if self._path:
                self._path.clear()

    def _clean(self, value: Any, depth: int) -> Any:
        handler = self._handlers.get(type(value), _UNRESOLVED)
        if handler is None:
            return value
        if handler is _UNRESOLVED:
            handler = self._resolve(type(value))
            if handler is None:
                return value
        return handler(value, depth)

    def _resolve(self, kind: type) -> Handler | None:
        handler = self._handlers[kind] = self._handler_for(kind)
        return handler

    def _handler_for(self, kind: type) -> Handler | None:
        if issubclass(kind, _INERT):
            return None
        if issubclass(kind, Enum):
            return None if all(redact_secrets(member.value) is member.value for member in kind) else self._clean_member
        if issubclass(kind, msgspec.Struct):
            return self._record_handler(kind.__struct_fields__, msgspec.structs.force_setattr)
        if dataclasses.is_dataclass(kind):
            return self._record_handler(tuple(f.name for f in dataclasses.fields(kind)), object.__setattr__)
        attributes = getattr(kind, "__attrs_attrs__", None)  # a class of attrs: msgspec writes its fields
        if attributes is not None:
            return self._record_handler(tuple(a.name for a in attributes), object.__setattr__)
        if issubclass(kind, tuple) and hasattr(kind, "_fields"):
            return self._record_handler(kind._fields, None)
        for base, handler in (
            (str, self._clean_str),
            (dict, self._clean_dict),
            (list, self._clean_sequence),
            (tuple, self._clean_sequence),
            ((bytes, bytearray), self._clean_bytes),
            (memoryview, self._clean_view),
            (Mapping, self._clean_mapping),
            (Set, self._clean_set),
        ):
            if issubclass(kind, base):
                return handler
        return None

    def _clean_str(self, text: str, depth: int) -> str:
        # Ids, hashes, codes and names are letters, digits and underscores: a secret's shape needs more than these.
        if text in self._clean_strings or text.isalnum() or text.isidentifier():
            return text
        result = redact_text(text)
        if result is text and len(text) <= _CACHED_CHARS:
            if len(self._clean_strings) >= _CACHE_ENTRIES:
                self._clean_strings.clear()
            self._clean_strings.add(text)
        return result

    def _clean_bytes(self, data: bytes | bytearray, depth: int) -> bytes | bytearray:
        text = data.decode("latin-1")
        result = redact_text(text)
        return data if result is text else type(data)(result.encode("latin-1"))

    def _clean_view(self, view: memoryview, depth: int) -> memoryview | bytes:
        data = view.tobytes()
        result = self._clean_bytes(data, depth)
        return view if result is data else bytes(result)

    def _clean_member(self, member: Enum, depth: int) -> Any:
        """What is written of a member is its value; the member itself cannot be changed."""
        return member if (clean := self._clean(member.value, depth)) is member.value else clean

    def _clean_dict(self, value: dict[Any, Any], depth: int) -> Any:
        keys = tuple(value)
        plan = self._key_plans.get(keys)
        if plan is None:
            plan = self._plan_keys(keys)
        if depth >= _TRACKED_DEPTH and not self._enter(value, depth):
            return TRUNCATED
        secret = plan.secret
        out: dict[Any, Any] | None = None
        if secret:
            out = dict(value)
            out.update(dict.fromkeys(secret, SENTINEL))
        handlers = self._handlers
        for key, item in () if _are_finite(value.values()) else value.items():
            kind = type(item)
            # A finite float is by far the most frequent value.
            if kind is float and item - item == 0.0:
                continue
            handler = handlers.get(kind, _UNRESOLVED)
            if handler is None or key in secret:
                continue
            new = handler(item, depth + 1) if handler is not _UNRESOLVED else self._clean(item, depth + 1)
            if new is not item:
                if out is None:
                    out = dict(value)
                out[key] = new
        if depth >= _TRACKED_DEPTH:
            self._path.discard(id(value))
        if plan.renamed:
            return {plan.renamed.get(key, key): item for key, item in (out or value).items()}
        return value if out is None else out

    def _plan_keys(self, keys: tuple[Any, ...]) -> _KeyPlan:
        texts = ((key, redact_text(key)) for key in keys if type(key) is str)
        plan = _KeyPlan(
            secret=frozenset(key for key in keys if is_secret_key(key)),
            renamed={key: text for key, text in texts if text is not key},
        )
        if len(keys) <= _CACHED_KEYS:
            if len(self._key_plans) >= _CACHE_ENTRIES:
                self._key_plans.clear()
            self._key_plans[keys] = plan
        return plan

    def _clean_mapping(self, value: Mapping[Any, Any], depth: int) -> Any:
        plain = dict(value)
        result = self._clean_dict(plain, depth)
        return value if result is plain else result

    def _clean_sequence(self, value: list[Any] | tuple[Any, ...], depth: int) -> Any:
        if depth >= _TRACKED_DEPTH and not self._enter(value, depth):
            return TRUNCATED
        items = self._clean_items(value, depth)
        if depth >= _TRACKED_DEPTH:
            self._path.discard(id(value))
        if items is None:
            return value
        return tuple(items) if isinstance(value, tuple) else items

    def _clean_items(self, values: list[Any] | tuple[Any, ...], depth: int) -> list[Any] | None:
        """Return the cleaned items, None when every one of them is clean."""
        if _are_finite(values):
            return None
        out: list[Any] | None = None
        handlers = self._handlers
        for index, item in enumerate(values):
            kind = type(item)
            if kind is float and item - item == 0.0:
                continue
            handler = handlers.get(kind, _UNRESOLVED)
            if handler is None:
                continue
            new = handler(item, depth + 1) if handler is not _UNRESOLVED else self._clean(item, depth + 1)
            if new is not item:
                if out is None:
                    out = list(values)
                out[index] = new
        return out

    def _clean_set(self, value: Set[Any], depth: int) -> Any:
        items = list(value)
        result = self._clean_items(items, depth)
        if result is None:
            return value
        return frozenset(result) if isinstance(value, frozenset) else set(result)

    def _record_handler(self, fields: tuple[str, ...], assign: _Assign | None) -> Handler | None:
        """Return the handler of a struct, dataclass or named tuple: its secret fields are known from their names, once.

        `assign` sets a field of a copy without running the type's checks: what is redacted need not be valid.
        """
        if not fields:
            return None
        secret = frozenset(name for name in fields if is_secret_key(name))
        get_values = _getter(fields)

        def clean_record(record: Any, depth: int) -> Any:
            if depth >= _TRACKED_DEPTH and not self._enter(record, depth):
                return TRUNCATED
            values = get_values(record)
            items = self._clean_items(values, depth)
            if depth >= _TRACKED_DEPTH:
                self._path.discard(id(record))
            if items is None and not secret:
                return record
            named = zip(fields, items or values, strict=True)
            shown = {name: SENTINEL if name in secret else item for name, item in named}
            if assign is None:
                return type(record)._make(shown.values())
            changed = copy(record)
            for name, item in shown.items():
                assign(changed, name, item)
            return changed

        return clean_record

    def _enter(self, container: Any, depth: int) -> bool:
        """Note that `container` is being cleaned; False when it already is (a cycle), or lies too deep."""
        if depth > _MAX_DEPTH or id(container) in self._path:
            return False
        self._path.add(id(container))
        return True


def _are_finite(values: Collection[Any]) -> bool:
    """Return True when many values are certain to be finite numbers; False says nothing.

    One sum is several times faster than a look at each: anything but a number raises, NaN and infinity stay in it.
    """
    if len(values) < _MANY:
        return False
    try:
        total = sum(values)
    except (TypeError, ValueError, ArithmeticError):
        return False
    return type(total) is float and total - total == 0.0


def _getter(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    return lambda record: tuple(getattr(record, name) for name in names)


class _PerThread(threading.local):
    """A redactor for each thread: what it tracks during a pass is its own."""

    def __init__(self) -> None:
        self.clean = Redactor().clean


_per_thread = _PerThread()


def redact_secrets(value: T) -> T:
    """Return `value` without secrets: nested dicts, lists, tuples, structs, dataclasses, strings and bytes.

    Parameters
    ----------
    value : object
        Anything; it is never changed.

    Returns
    -------
    object
        The same object when there was nothing to remove, else a changed copy of the same kind. A cycle, or what lies
        more than 64 levels deep, becomes ``***TRUNCATED***``.

    Examples
    --------
    >>> redact_secrets({"api_key": "secret123", "mid": 0.5})
    {'api_key': '***REDACTED***', 'mid': 0.5}
    >>> redact_secrets(["token=abc", ("ok", {b"client_secret": b"x"})])
    ['token=***REDACTED***', ('ok', {b'client_secret': '***REDACTED***'})]
    """
    return _per_thread.clean(value)
