"""A user's dict as a market event, with every fault named by its field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn

import msgspec
import numpy as np

from ami_engine.errors import EventError
from ami_engine.events import (
    Bar,
    BookDelta,
    BookSnapshot,
    BookTicker,
    FeedGap,
    GenericEvent,
    MarketEvent,
    Trade,
)
from ami_engine.units import NS_PER_MS, ns_from_ms

__all__ = ["AGGRESSORS", "event_from_dict", "has_time"]

AGGRESSORS: dict[Any, int] = {1: 1, -1: -1, 0: 0, "BUY": 1, "SELL": -1, "buy": 1, "sell": -1, "1": 1, "-1": -1, "0": 0}

_MAX_NS = 2**63 - 1
_TIME_KEYS = (("ts_ns", 1), ("ts_ms", NS_PER_MS), ("timestamp_ms", NS_PER_MS))
_LEVELS = list[tuple[float, float]]
_BAR_KEYS = ("open", "high", "low", "close", "volume")
_ABSENT: Any = msgspec.UNSET
# Our own structs as dicts, by their tags; quotes, trades and bars are told by their keys and need none.
_TAGGED: dict[str, type[BookDelta] | type[BookTicker] | type[FeedGap] | type[GenericEvent]] = {
    "book_delta": BookDelta,
    "book_ticker": BookTicker,
    "feed_gap": FeedGap,
    "generic": GenericEvent,
}


def event_from_dict(mapping: Mapping[str, Any], *, fallback_ts_ns: int, symbol: str = "") -> MarketEvent:
    """Convert a user's dict event to an event struct.

    A dict with ``bid``, ``ask``, ``bids``, ``asks`` or ``mid`` is a book (`mid` is read only when no side is given);
    one with ``price`` and ``size`` is a trade; one with ``open``, ``high``, ``low`` and ``close`` is a bar; one without
    any price is a `GenericEvent` that keeps the whole dict in `fields`. A dict form of one of our own structs (``type``
    is its tag) gives that struct.

    Only the form is checked: what is absent is 0, what is there must be a finite number. Whether a book is crossed or a
    size negative is for the core to say.

    Parameters
    ----------
    mapping : Mapping
        The event. Prices and sizes may be numbers or decimal strings; ``bids`` and ``asks`` are [price, size] pairs,
        best first, or an n×2 array (kept as it is, not copied).
    fallback_ts_ns : int
        Time given to an event without any time, ns since the epoch.
    symbol : str
        Symbol given to an event without one.

    Raises
    ------
    EventError
        `field` names the key at fault; `reason` is ``malformed``, ``wrong_type``, ``not_finite``, ``missing_field``,
        ``price_mismatch`` or ``non_positive_time``.

    Examples
    --------
    >>> event_from_dict({"mid": 0.5, "bid": 0.49, "ask": 0.51}, fallback_ts_ns=1_000_000).recv_ts_ns
    1000000
    >>> event_from_dict({"price": "61800.3", "size": 2, "aggressor": "BUY", "ts_ms": 5}, fallback_ts_ns=1)
    Trade(exch_ts_ns=5000000, recv_ts_ns=5000000, symbol='', seq=0, price=61800.3, size=2.0, aggressor=1)
    >>> event_from_dict({"bid": None, "ask": 0.51}, fallback_ts_ns=1)
    Traceback (most recent call last):
    ami_engine.errors.EventError: `bid` must be a number, was None
    """
    if not isinstance(mapping, Mapping):
        _refuse("event", "an event struct or a mapping", mapping)
    get = mapping.get
    exch_ts_ns, recv_ts_ns = _times(mapping, fallback_ts_ns)
    name = get("symbol", symbol)
    if type(name) is not str:
        name = _text("symbol", name)
    seq = get("seq", 0)
    if type(seq) is not int:
        seq = _whole("seq", seq)
    tag = get("type")
    if tag is not None and type(tag) is str and tag in _TAGGED:
        return _tagged(_TAGGED[tag], mapping, exch_ts_ns, recv_ts_ns, name, seq)
    bid, ask = get("bid", _ABSENT), get("ask", _ABSENT)
    bids, asks = get("bids", _ABSENT), get("asks", _ABSENT)
    if bid is _ABSENT and ask is _ABSENT and bids is _ABSENT and asks is _ABSENT:
        return _without_book(mapping, exch_ts_ns, recv_ts_ns, name, seq)
    bids = () if bids is _ABSENT else _levels("bids", bids)
    asks = () if asks is _ABSENT else _levels("asks", asks)
    bid, bid_depth = _best("bid", bid, get("bid_depth", _ABSENT), bids)
    ask, ask_depth = _best("ask", ask, get("ask_depth", _ABSENT), asks)
    return BookSnapshot(exch_ts_ns, recv_ts_ns, name, seq, bid, ask, bid_depth, ask_depth, bids, asks)


def has_time(mapping: object) -> bool:
    """Say whether a dict event carries a time of its own, so that `event_from_dict` needs no fallback.

    >>> has_time({"mid": 0.5}), has_time({"mid": 0.5, "ts_ms": 1}), has_time({"mid": 0.5, "recv_ts_ns": 0})
    (False, True, False)
    """
    if not isinstance(mapping, Mapping):
        return False
    if any(key in mapping for key, _ in _TIME_KEYS):
        return True
    return bool(mapping.get("recv_ts_ns", 0) != 0 or mapping.get("exch_ts_ns", 0) != 0)


def _without_book(mapping: Mapping[str, Any], exch: int, recv: int, symbol: str, seq: int) -> MarketEvent:
    """Make what is no quote: a lone mid, a trade, a bar, or an event of another domain."""
    if "mid" in mapping:
        mid = _number("mid", mapping["mid"])
        bid_depth = _optional("bid_depth", mapping.get("bid_depth", _ABSENT))
        ask_depth = _optional("ask_depth", mapping.get("ask_depth", _ABSENT))
        return BookSnapshot(exch, recv, symbol, seq, mid, mid, bid_depth, ask_depth)
    if "price" in mapping:
        if "size" not in mapping:
            raise EventError("a trade needs `size`, which is absent", reason="missing_field", field="size")
        aggressor = _aggressor(mapping.get("aggressor", 0))
        price, size = _number("price", mapping["price"]), _number("size", mapping["size"])
        return Trade(exch, recv, symbol, seq, price, size, aggressor)
    if "close" in mapping and "open" in mapping:
        absent = [key for key in _BAR_KEYS[:4] if key not in mapping]
        if absent:
            raise EventError(f"a bar needs `{absent[0]}`, which is absent", reason="missing_field", field=absent[0])
        return Bar(exch, recv, symbol, seq, *(_number(key, mapping.get(key, 0.0)) for key in _BAR_KEYS))
    return GenericEvent(exch, recv, symbol, seq, dict(mapping))


def _tagged(
    kind: type[BookDelta] | type[BookTicker] | type[FeedGap] | type[GenericEvent],
    mapping: Mapping[str, Any],
    exch: int,
    recv: int,
    symbol: str,
    seq: int,
) -> MarketEvent:
    """Make the struct that the dict says it is."""
    get = mapping.get
    if kind is BookDelta:
        first_seq, prev_seq = _whole("first_seq", get("first_seq", 0)), _whole("prev_seq", get("prev_seq", 0))
        bids, asks = _levels("bids", get("bids", ())), _levels("asks", get("asks", ()))
        return BookDelta(exch, recv, symbol, seq, first_seq, prev_seq, bids, asks)
    if kind is BookTicker:
        prices = (_optional(key, get(key, _ABSENT)) for key in ("bid", "ask", "bid_size", "ask_size"))
        return BookTicker(exch, recv, symbol, seq, *prices)
    if kind is FeedGap:
        expected = _whole("expected_seq", get("expected_seq", 0))
        return FeedGap(exch, recv, symbol, seq, expected, _text("reason", get("reason", "")))
    fields = get("fields", {})
    if not isinstance(fields, Mapping):
        _refuse("fields", "a mapping", fields)
    return GenericEvent(exch, recv, symbol, seq, dict(fields))


def _times(mapping: Mapping[str, Any], fallback_ts_ns: int) -> tuple[int, int]:
    """Return (exch_ts_ns, recv_ts_ns); a time of the event's own sets both, the explicit names override it."""
    both = 0
    for key, factor in _TIME_KEYS:
        value = mapping.get(key, _ABSENT)
        if value is not _ABSENT:
            both = _time(key, value, factor)
            if both <= 0:
                raise EventError(f"`{key}` must be > 0, was {value!r}", reason="non_positive_time", field=key)
            break
    exch, recv = mapping.get("exch_ts_ns", 0), mapping.get("recv_ts_ns", 0)
    exch = _unsigned_time("exch_ts_ns", exch) if exch != 0 else both
    recv = _unsigned_time("recv_ts_ns", recv) if recv != 0 else both
    if not exch and not recv:
        return fallback_ts_ns, fallback_ts_ns
    return exch, recv


def _unsigned_time(key: str, value: Any) -> int:
    time_ns = _time(key, value, 1)
    if time_ns < 0:
        raise EventError(f"`{key}` must be >= 0, was {value!r}", reason="non_positive_time", field=key)
    return time_ns


def _time(key: str, value: Any, factor: int) -> int:
    """Return a time in ns; whole numbers exactly, fractions of a millisecond rounded."""
    if type(value) is int:
        time_ns = value * factor
    elif factor == 1:
        time_ns = _whole(key, value)
    else:
        number = _number(key, value)
        time_ns = ns_from_ms(int(number) if number.is_integer() else number)
    if time_ns > _MAX_NS:
        raise EventError(f"`{key}` is beyond the year 2262, was {value!r}: is its unit right?", field=key)
    return time_ns


def _best(key: str, price: Any, size: Any, levels: Any) -> tuple[float, float]:
    """Return the best price and size of a side, from its own keys or from its levels; they must agree."""
    has_levels = len(levels) > 0
    if price is _ABSENT:
        best = float(levels[0][0]) if has_levels else 0.0
    else:
        best = _number(key, price)
        if has_levels and best != levels[0][0]:
            raise EventError(
                f"`{key}` must equal the price of `{key}s[0]`, {levels[0][0]!r}, was {best!r}",
                reason="price_mismatch",
                field=key,
            )
    if size is _ABSENT:
        return best, float(levels[0][1]) if has_levels else 0.0
    return best, _number(key + "_depth", size)


def _levels(key: str, value: Any) -> Any:
    """Return levels as pairs of floats, or the n×2 float64 array that they are."""
    if isinstance(value, np.ndarray):
        return _level_array(key, value)
    if not isinstance(value, (list, tuple)):
        _refuse(key, "[price, size] pairs or an n×2 array", value)
    if not value:
        return ()
    try:
        return msgspec.convert(value, _LEVELS, strict=False)
    except msgspec.ValidationError:
        return [_pair(f"{key}[{place}]", pair) for place, pair in enumerate(value)]


def _level_array(key: str, value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if value.ndim != 2 or value.shape[1] != 2:
        if value.size == 0:
            return np.empty((0, 2))
        raise EventError(f"`{key}` must have shape (n, 2), was {value.shape}", reason="wrong_type", field=key)
    if value.dtype == np.float64:
        return value
    if value.dtype.kind not in "iuf":
        raise EventError(f"`{key}` must hold numbers, was of dtype {value.dtype}", reason="wrong_type", field=key)
    return value.astype(np.float64)


def _pair(key: str, pair: Any) -> tuple[float, float]:
    if not isinstance(pair, (list, tuple, np.ndarray)) or len(pair) != 2:
        _refuse(key, "a [price, size] pair", pair)
    return _number(key + "[0]", pair[0]), _number(key + "[1]", pair[1])


def _optional(key: str, value: Any) -> float:
    return 0.0 if value is _ABSENT else _number(key, value)


def _number(key: str, value: Any) -> float:
    """Return a finite float; a decimal string is read, a bool and None are not numbers."""
    if type(value) is float:
        number = value
    elif isinstance(value, str):
        try:
            # Python reads "1_0" as ten; no feed means that.
            number = float(value) if "_" not in value else _refuse(key, "a number", value)
        except ValueError:
            _refuse(key, "a number", value)
    elif isinstance(value, (bool, np.bool_)) or not hasattr(value, "__float__"):
        _refuse(key, "a number", value)
    else:
        try:
            number = float(value)
        except (TypeError, ValueError):
            _refuse(key, "a number", value)
        except OverflowError:
            number = math.inf
    if not math.isfinite(number):
        raise EventError(f"`{key}` must be finite, was {number!r}", reason="not_finite", field=key)
    return number


def _whole(key: str, value: Any) -> int:
    """Return an integer exactly: nanoseconds since the epoch do not fit a float."""
    if type(value) is int:
        return value
    if isinstance(value, str):
        try:
            return int(value) if "_" not in value else _refuse(key, "a whole number", value)
        except ValueError:
            _refuse(key, "a whole number", value)
    number = _number(key, value)
    if not number.is_integer():
        _refuse(key, "a whole number", value)
    return int(value)


def _text(key: str, value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    _refuse(key, "a string", value)


def _aggressor(value: Any) -> int:
    try:
        return AGGRESSORS[value]
    except (KeyError, TypeError):
        _refuse("aggressor", '+1, -1, 0, "BUY" or "SELL"', value)


def _refuse(key: str, wanted: str, value: Any) -> NoReturn:
    reason = "malformed" if value is None else "wrong_type"
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    raise EventError(f"`{key}` must be {wanted}, was {shown}", reason=reason, field=key.partition("[")[0])
