"""Market events: immutable facts, with two times each.

`recv_ts_ns` is when we learned of it: order, windows and staleness use it. `exch_ts_ns` is the venue's own stamp, kept
for latency only, because real venues' clocks run ahead of ours by seconds. Both are ns since the Unix epoch; 0 is
unknown.
A missing side of a book has price 0 and size 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

__all__ = [
    "Bar",
    "BookDelta",
    "BookSnapshot",
    "BookTicker",
    "FeedGap",
    "GenericEvent",
    "Levels",
    "MarketEvent",
    "Trade",
]

# Best first: a sequence of (price, size) pairs, or a float64 array of shape (n, 2). The compiled readers of venues'
# messages give a sequence of their own, which `msgspec.json.encode` takes with `enc_hook=list`.
Levels = Sequence[Any]


class BookSnapshot(msgspec.Struct, frozen=True, tag="book_snapshot", gc=False):
    """The whole visible book, or its best levels.

    `bids` and `asks` are best first: pairs of (price, size) or an n×2 array; empty means that only the best prices are
    known, and then `bid_depth` and `ask_depth` are the sizes.

    >>> BookSnapshot(0, 1_000, "X", 0, 99.0, 101.0, 5.0, 7.0).ask
    101.0
    """

    exch_ts_ns: int = 0
    recv_ts_ns: int = 0
    symbol: str = ""
    seq: int = 0
    bid: float = 0.0
    ask: float = 0.0
    bid_depth: float = 0.0
    ask_depth: float = 0.0
    bids: Any = ()
    asks: Any = ()


class BookDelta(msgspec.Struct, frozen=True, tag="book_delta", gc=False):
    """Changed levels of an L2 book: (price, new size) pairs, size 0 deletes.

    `seq` is the last update id in the message, `first_seq` the first. `prev_seq` is the `seq` of the message before it,
    0 where the venue does not say: a book that does not stand at `prev_seq` has missed something.
    """

    exch_ts_ns: int = 0
    recv_ts_ns: int = 0
    symbol: str = ""
    seq: int = 0
    first_seq: int = 0
    prev_seq: int = 0
    bids: Any = ()
    asks: Any = ()


class BookTicker(msgspec.Struct, frozen=True, tag="book_ticker", gc=False):
    """The best bid and ask of a venue's own top-of-book stream; deeper levels come from the rebuilt book.

    `seq` is comparable with the `seq` of the symbol's deltas: a ticker older than the book changes nothing.
    """

    exch_ts_ns: int = 0
    recv_ts_ns: int = 0
    symbol: str = ""
    seq: int = 0
    bid: float = 0.0
    ask: float = 0.0
    bid_size: float = 0.0
    ask_size: float = 0.0


class Trade(msgspec.Struct, frozen=True, tag="trade", gc=False):
    """One trade print. `aggressor` is +1 when the buyer took, −1 when the seller did, 0 when unknown."""

    exch_ts_ns: int = 0
    recv_ts_ns: int = 0
    symbol: str = ""
    seq: int = 0
    price: float = 0.0
    size: float = 0.0
    aggressor: int = 0


class Bar(msgspec.Struct, frozen=True, tag="bar", gc=False):
    """One bar, stamped at its close: `recv_ts_ns` is the first instant at which the bar is known."""

    exch_ts_ns: int = 0
    recv_ts_ns: int = 0
    symbol: str = ""
    seq: int = 0
    open: float = 0.0
    high: float = 0.0
    low: float = 0.0
    close: float = 0.0
    volume: float = 0.0


class FeedGap(msgspec.Struct, frozen=True, tag="feed_gap", gc=False):
    """The feed lost something: the symbol's book is not to be trusted until its next snapshot."""

    exch_ts_ns: int = 0
    recv_ts_ns: int = 0
    symbol: str = ""
    seq: int = 0
    expected_seq: int = 0
    reason: str = ""


class GenericEvent(msgspec.Struct, frozen=True, tag="generic"):
    """An event without a price, of any domain: the numbers in `fields` become features at dotted paths."""

    exch_ts_ns: int = 0
    recv_ts_ns: int = 0
    symbol: str = ""
    seq: int = 0
    fields: dict[str, Any] = msgspec.field(default_factory=dict)


MarketEvent = BookSnapshot | BookDelta | BookTicker | Trade | Bar | FeedGap | GenericEvent
