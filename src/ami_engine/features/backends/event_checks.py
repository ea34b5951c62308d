"""What the Python backends refuse, and in which words: the spelling of cpp/include/ami/event_fault.hpp in Python.

Each check raises before anything was changed. `REASONS` gives the number of each reason in a batch report.
"""

from __future__ import annotations

import math
from operator import index
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ami_engine.errors import EventError
from ami_engine.features.schema import MAX_MAGNITUDE

__all__ = [
    "REASONS",
    "BookSide",
    "check_kind",
    "check_levels_match",
    "check_quote",
    "check_sides",
    "check_time",
    "check_trade",
    "one_level",
    "read_side",
    "scaled_time",
    "unless_taken",
]

REASONS: Final[tuple[str, ...]] = (
    "",
    "malformed",
    "not_finite",
    "negative_price",
    "negative_size",
    "non_positive_time",
    "time_backwards",
    "levels_unsorted",
    "price_mismatch",
    "empty_book",
    "crossed_book",
    "unknown_kind",
)

_INT64_MAX: Final = 2**63 - 1

_MESSAGES: Final[dict[str, str]] = {
    "malformed": "`{field}` is out of its range, was {value}",
    "not_finite": "`{field}` must be finite and at most 1e150, was {value}",
    "negative_price": "`{field}` must not be negative, was {value}",
    "negative_size": "`{field}` must not be negative, was {value}",
    "non_positive_time": "`{field}` must be > 0, was {value}",
    "time_backwards": "`{field}` must not be before the last accepted event, was {value} ns before it",
    "levels_unsorted": "`{field}` must be sorted best first, was {value} after {other}",
    "price_mismatch": "`{field}` must be the best level's price {other}, was {value}",
    "empty_book": "a book event must have a bid or an ask, both were missing",
    "crossed_book": "`bid` must not be above `ask`, was {value} above {other}",
    "unknown_kind": "`{field}` must be 0 (book) or 1 (trade), was {value}",
}


class BookSide(NamedTuple):
    """One side of a book, summed up over its top levels. A missing side is all zeros."""

    price: float = 0.0  # best
    size: float = 0.0  # at the best price
    depth: float = 0.0  # Σ q
    weighted: float = 0.0  # Σ w q
    value: float = 0.0  # Σ p q


MISSING: Final = BookSide()


def _fault(reason: str, field: str = "", value: float = 0.0, other: float = 0.0) -> EventError:
    message = _MESSAGES[reason]
    if reason == "negative_price" and value == 0.0:
        message = "`{field}` must be > 0, was {value}"
    text = message.format(field=field, value=f"{value:.15g}", other=f"{other:.15g}")
    return EventError(text, reason=reason, field=field)


def _is_finite(value: float) -> bool:
    return abs(value) <= MAX_MAGNITUDE


def check_quote(bid: float, ask: float, bid_depth: float, ask_depth: float) -> None:
    """Refuse a quote whose numbers cannot be prices and sizes."""
    for field, value in (("bid", bid), ("ask", ask), ("bid_depth", bid_depth), ("ask_depth", ask_depth)):
        if not _is_finite(value):
            raise _fault("not_finite", field, value)
    for field, value in (("bid", bid), ("ask", ask)):
        if value < 0.0:
            raise _fault("negative_price", field, value)
    for field, value in (("bid_depth", bid_depth), ("ask_depth", ask_depth)):
        if value < 0.0:
            raise _fault("negative_size", field, value)


def check_trade(price: float, size: float, aggressor: int) -> None:
    """Refuse a trade whose numbers cannot be a price, a size and a side."""
    if not _is_finite(price):
        raise _fault("not_finite", "price", price)
    if not _is_finite(size):
        raise _fault("not_finite", "size", size)
    if not price > 0.0:
        raise _fault("negative_price", "price", price)
    if size < 0.0:
        raise _fault("negative_size", "size", size)
    if aggressor not in (-1, 0, 1):
        raise _fault("malformed", "aggressor", float(aggressor))


def check_time(ts_ns: int, now_ns: int, last_ts_ns: int) -> None:
    """Refuse a time that is none, or before the last accepted event's; TypeError for what is no whole number."""
    if index(ts_ns) > _INT64_MAX or index(now_ns) > _INT64_MAX:
        raise OverflowError(f"`ts_ns` and `now_ns` must fit into 64 bits, were {ts_ns} and {now_ns}")
    if ts_ns <= 0:
        raise _fault("non_positive_time", "ts_ns", float(ts_ns))
    if now_ns < 0:
        raise _fault("non_positive_time", "now_ns", float(now_ns))
    if ts_ns < last_ts_ns:
        raise _fault("time_backwards", "ts_ns", float(last_ts_ns - ts_ns))


def scaled_time(ts: int, ns_per_ts: int) -> int:
    """Return the time in ns; refused where that does not fit into 64 bits."""
    if ts > _INT64_MAX // ns_per_ts:
        raise _fault("malformed", "ts_ms", float(ts))
    return ts * ns_per_ts if ts > 0 else ts


def check_kind(kind: int) -> None:
    """Refuse a row of a batch that is neither book nor trade."""
    if kind not in (0, 1):
        raise _fault("unknown_kind", "kind", float(kind))


def one_level(price: float, size: float) -> BookSide:
    """Return the side of an event that carries no levels."""
    return MISSING if price == 0.0 else BookSide(price, size, size, size, price * size)


def read_side(
    levels: npt.NDArray[np.float64], weights: tuple[float, ...], field: str, *, is_padded: bool = False
) -> BookSide:
    """Sum up the best levels, as many as there are weights; a price of 0, or padding, ends the side."""
    best = MISSING
    previous = depth = weighted = value = 0.0
    for number, (weight, (price, size)) in enumerate(zip(weights, levels.tolist(), strict=False)):
        if is_padded and math.isnan(price) and math.isnan(size):
            break
        if not _is_finite(price):
            raise _fault("not_finite", field, price)
        if price < 0.0:
            raise _fault("negative_price", field, price)
        if not _is_finite(size):
            raise _fault("not_finite", field, size)
        if size < 0.0:
            raise _fault("negative_size", field, size)
        if price == 0.0:
            break
        if number == 0:
            best = BookSide(price, size)
        elif price >= previous if field == "bids" else price <= previous:
            raise _fault("levels_unsorted", field, price, previous)
        previous = price
        depth += size
        weighted += weight * size
        value += price * size
    return best._replace(depth=depth, weighted=weighted, value=value)


def check_levels_match(bid: float, ask: float, bids: BookSide, asks: BookSide) -> None:
    """Refuse stated best prices that are not those of the levels; 0 is not stated."""
    if bid not in (0.0, bids.price):
        raise _fault("price_mismatch", "bid", bid, bids.price)
    if ask not in (0.0, asks.price):
        raise _fault("price_mismatch", "ask", ask, asks.price)


def unless_taken(side: BookSide) -> BookSide:
    """Return the side, missing when its best level has size 0: some venues send one for a price just taken."""
    return MISSING if side.size == 0.0 else side


def check_sides(bid: BookSide, ask: BookSide) -> None:
    """Refuse an empty and a crossed book; a locked one is fine."""
    if bid.price == 0.0 and ask.price == 0.0:
        raise _fault("empty_book")
    if ask.price != 0.0 and bid.price > ask.price:
        raise _fault("crossed_book", "bid", bid.price, ask.price)
