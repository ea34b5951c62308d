"""An event as a struct or a mapping, read into plain numbers: cpp/bindings/event_reader.cpp for the other backends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ami_engine.errors import EventError
from ami_engine.events import Bar, BookDelta, BookSnapshot, BookTicker, FeedGap, GenericEvent, TimerEvent, Trade
from ami_engine.events.level_types import LEVEL_SEQUENCES
from ami_engine.units import NS_PER_MS

__all__ = ["TIME_KEYS", "EventView", "read_event", "read_levels", "read_time"]

TIME_KEYS = ("recv_ts_ns", "exch_ts_ns", "ts_ns", "ts_ms", "timestamp_ms")

_INT64_MAX = 2**63 - 1
_BOOK_KEYS = ("bid", "ask", "bids", "asks", "mid")
_UNREAD = (BookDelta, FeedGap, GenericEvent, TimerEvent)
_UNREAD_TAGS = frozenset({"book_delta", "feed_gap", "timer", "generic"})
_NO_LEVELS = np.empty((0, 2))


class EventView(NamedTuple):
    """What an event says. `kind` is "quote", "levels" or "trade"; `ts_ns` is None for an event without a time.

    With levels, `bid` and `ask` are what the event states besides, 0 when it states nothing.
    """

    kind: str
    ts_ns: int | None
    bid: float = 0.0
    ask: float = 0.0
    bid_depth: float = 0.0
    ask_depth: float = 0.0
    bids: npt.NDArray[np.float64] = _NO_LEVELS
    asks: npt.NDArray[np.float64] = _NO_LEVELS
    price: float = 0.0
    size: float = 0.0
    aggressor: int = 0


def read_event(event: Any, levels: int) -> EventView:
    """Return what `event` says, of each side at most its best `levels`.

    Raises
    ------
    EventError
        The event is not one that makes a feature row, or a field is missing or no number.

    Examples
    --------
    >>> view = read_event({"ts_ms": 5, "bid": 99.0, "ask": 101.0, "bid_depth": 3}, levels=10)
    >>> view.kind, view.ts_ns, view.bid_depth, view.ask_depth
    ('quote', 5000000, 3.0, 0.0)
    """
    if isinstance(event, (BookSnapshot, Trade, Bar, BookTicker)):
        return _read_struct(event, levels)
    if isinstance(event, _UNREAD):
        name = type(event).__name__
        raise EventError(f"a feature row needs a book event, a bar or a trade, was {name}", reason="unknown_kind")
    if isinstance(event, Mapping):
        return _read_mapping(event, levels)
    raise EventError(
        f"an event must be a struct of ami_engine.events or a mapping, was {type(event).__name__}", reason="wrong_type"
    )


def read_time(event: Mapping[str, Any]) -> int | None:
    """Return the time that orders a mapping's event, ns; None when it has none.

    >>> read_time({"recv_ts_ns": 0, "exch_ts_ns": 7}), read_time({"timestamp_ms": 1.5}), read_time({})
    (7, 1500000, None)
    """
    if "recv_ts_ns" in event or "exch_ts_ns" in event:
        ts_ns = _integer("recv_ts_ns", event["recv_ts_ns"]) if "recv_ts_ns" in event else 0
        if ts_ns == 0 and "exch_ts_ns" in event:
            ts_ns = _integer("exch_ts_ns", event["exch_ts_ns"])
        return ts_ns
    if "ts_ns" in event:
        return _integer("ts_ns", event["ts_ns"])
    for name in ("ts_ms", "timestamp_ms"):
        if name in event:
            return _ns_from_ms(name, event[name])
    return None


def read_levels(field: str, levels: Any, most: int) -> npt.NDArray[np.float64]:
    """Return at most the best `most` levels of a side as an (n, 2) array."""
    if levels is None:
        raise _refusal(field, "must be levels, was None", "malformed")
    if isinstance(levels, LEVEL_SEQUENCES):
        pairs = [_pair(field, pair) for pair in levels[:most]]
        return np.array(pairs, dtype=np.float64).reshape(len(pairs), 2)
    if isinstance(levels, np.ndarray):
        if len(levels) == 0:
            return _NO_LEVELS
        if levels.dtype.kind in "fiu" and levels.ndim == 2 and levels.shape[1] == 2:
            return np.ascontiguousarray(levels[:most], dtype=np.float64)
    raise _refusal(field, f"must be pairs of price and size or an n x 2 array, was {_described(levels)}", "wrong_type")


def _refusal(field: str, rule: str, reason: str) -> EventError:
    return EventError(f"`{field}` {rule}", reason=reason, field=field)


def _described(value: object) -> str:
    text = repr(value)
    return type(value).__name__ if len(text) > 60 else text


def _number(field: str, value: Any) -> float:
    if type(value) is float:
        return value
    if value is None:
        raise _refusal(field, "must be a number, was None", "malformed")
    if isinstance(value, (bool, str, bytes, bytearray)):
        raise _refusal(field, f"must be a number, was {_described(value)}", "wrong_type")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise _refusal(field, f"must be a number, was {_described(value)}", "wrong_type") from None


def _integer(field: str, value: Any) -> int:
    if value is None:
        raise _refusal(field, "must be an integer, was None", "malformed")
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise _refusal(field, f"must be an integer, was {_described(value)}", "wrong_type")
    number = int(value.__index__())
    if not -_INT64_MAX - 1 <= number <= _INT64_MAX:
        raise _refusal(field, f"must fit into 64 signed bits, was {_described(value)}", "malformed")
    return number


def _ns_from_ms(field: str, value: Any) -> int:
    if not isinstance(value, float):
        ms = _integer(field, value)
        if ms > _INT64_MAX // NS_PER_MS:
            raise _refusal(field, f"must be a time of this epoch, was {_described(value)}", "malformed")
        return ms * NS_PER_MS if ms > 0 else ms
    ns = value * 1e6
    if not math.isfinite(ns):
        raise _refusal(field, f"must be finite, was {_described(value)}", "not_finite")
    if not abs(ns) < 9.2e18:
        raise _refusal(field, f"must be a time of this epoch, was {_described(value)}", "malformed")
    return round(ns)


def _pair(field: str, pair: Any) -> tuple[float, float]:
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        raise _refusal(field, f"must hold pairs of price and size, was {_described(pair)}", "wrong_type")
    return _number(field, pair[0]), _number(field, pair[1])


def _read_struct(event: BookSnapshot | Trade | Bar | BookTicker, levels: int) -> EventView:
    ts_ns = _integer("recv_ts_ns", event.recv_ts_ns) or _integer("exch_ts_ns", event.exch_ts_ns)
    if isinstance(event, Trade):
        price, size = _number("price", event.price), _number("size", event.size)
        return EventView("trade", ts_ns, price=price, size=size, aggressor=_integer("aggressor", event.aggressor))
    if isinstance(event, Bar):
        close = _number("close", event.close)
        return EventView("quote", ts_ns, close, close)
    bid, ask = _number("bid", event.bid), _number("ask", event.ask)
    if isinstance(event, BookTicker):
        sizes = _number("bid_size", event.bid_size), _number("ask_size", event.ask_size)
        return EventView("quote", ts_ns, bid, ask, *sizes)
    bids, asks = read_levels("bids", event.bids, levels), read_levels("asks", event.asks, levels)
    if len(bids) or len(asks):
        return EventView("levels", ts_ns, bid, ask, bids=bids, asks=asks)
    return EventView(
        "quote", ts_ns, bid, ask, _number("bid_depth", event.bid_depth), _number("ask_depth", event.ask_depth)
    )


def _tagged_kind(event: Mapping[str, Any]) -> str:
    # A mapping that was made from a struct carries its tag; a table's row may carry its kind.
    tag = event.get("type")
    if tag == "trade":
        return "trade"
    if isinstance(tag, str) and tag in _UNREAD_TAGS:
        raise _refusal("type", f"must be a book event, a bar or a trade, was {tag}", "unknown_kind")
    kind = event.get("kind")
    if type(kind) is int:
        if kind not in (0, 1):
            raise _refusal("kind", f"must be 0 (book) or 1 (trade), was {kind}", "unknown_kind")
        return "trade" if kind == 1 else "book"
    return ""


def _read_mapping(event: Mapping[str, Any], levels: int) -> EventView:
    kind = _tagged_kind(event)
    ts_ns = read_time(event)
    has_book = any(name in event for name in _BOOK_KEYS)
    if kind == "trade" or (not kind and not has_book and "price" in event):
        for name in ("price", "size"):
            if name not in event:
                raise _refusal(name, "is missing from a trade", "missing_field")
        price, size = _number("price", event["price"]), _number("size", event["size"])
        return EventView(
            "trade", ts_ns, price=price, size=size, aggressor=_integer("aggressor", event.get("aggressor", 0))
        )
    if has_book:
        return _read_mapping_book(event, ts_ns, levels)
    if "close" not in event:
        raise _refusal("bid", "is missing, and so are `ask`, `mid`, `bids` and `asks`", "missing_field")
    close = _number("close", event["close"])
    return EventView("quote", ts_ns, close, close)


def _read_mapping_book(event: Mapping[str, Any], ts_ns: int | None, levels: int) -> EventView:
    bids = read_levels("bids", event.get("bids", ()), levels)
    asks = read_levels("asks", event.get("asks", ()), levels)
    bid, ask = _number("bid", event.get("bid", 0.0)), _number("ask", event.get("ask", 0.0))
    if len(bids) or len(asks):
        return EventView("levels", ts_ns, bid, ask, bids=bids, asks=asks)
    if "bid" not in event and "ask" not in event:
        bid = ask = _number("mid", event.get("mid", 0.0))
    bid_depth = _number("bid_depth", event.get("bid_depth", event.get("bid_size", 0.0)))
    ask_depth = _number("ask_depth", event.get("ask_depth", event.get("ask_size", 0.0)))
    return EventView("quote", ts_ns, bid, ask, bid_depth, ask_depth)
