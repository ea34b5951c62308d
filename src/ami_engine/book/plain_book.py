"""L2 book in plain Python: what runs without a compiler, and the independent check of the core's."""

from __future__ import annotations

import math
import struct
from bisect import bisect_left
from enum import IntEnum
from typing import Any, Final

from ami_engine.book.checkpoint import DAMAGED, seal, unseal
from ami_engine.book.grid import check_not_negative, check_price, check_size, iter_pairs, refuse_off_grid
from ami_engine.book.view import ASK, BID, BookView, Quote
from ami_engine.errors import EventError

__all__ = ["BookApply", "PlainOrderBook"]

_MAGIC: Final = b"AMIBOOK\x01"
_HEADER: Final = struct.Struct("<8sdqqQQQqqdqd")


class BookApply(IntEnum):
    """What a book did with a message that it did not refuse."""

    APPLIED = 0
    STALE = 1


class _Side:
    """Levels of one side: keys ascending, the best last. A key is the ticks of a bid, minus the ticks of an ask."""

    __slots__ = ("keys", "sizes")

    def __init__(self, sizes: dict[int, float]) -> None:
        self.sizes = sizes
        self.keys = sorted(sizes)

    def put(self, key: int, size: float) -> float:
        """Set the size of a level, 0 to delete it; return the size before, 0 when there was no level."""
        old = self.sizes.get(key, 0.0)
        if size == 0.0:
            if old != 0.0:
                del self.sizes[key]
                del self.keys[bisect_left(self.keys, key)]
        else:
            if old == 0.0:
                self.keys.insert(bisect_left(self.keys, key), key)
            self.sizes[key] = size
        return old


class PlainOrderBook(BookView):
    """The L2 book of one symbol, rebuilt from a snapshot and deltas, with the venue's own best prices over it.

    The same calls, answers and refusals as the compiled `OrderBook`; tests/book holds them to it.

    Parameters
    ----------
    tick_size : float
        Price step, quote currency, > 0. Prices off this grid are refused.
    levels : int
        How many levels `top()` returns unless told otherwise, at least 1.

    Raises
    ------
    ConfigError
        When a parameter is outside its range.
    EventError
        By the `apply_` methods; `reason` is one of wrong_type, not_finite, negative_price, negative_size, off_grid,
        crossed_book, empty_book, malformed, no_snapshot, sequence_gap. No level has changed then.

    Notes
    -----
    Sequence rules are Binance's ("How to manage a local order book correctly", spot and futures API documentation). The
    book holds every level that the venue told of, so it grows with the number of prices at which orders rest: a bound
    that venues set themselves by their price filters, about 5000 levels a side for BTC. It is not a bound of ours.

    Examples
    --------
    >>> book = PlainOrderBook(0.1, levels=2)
    >>> book.apply_snapshot([(100.0, 1.0), (99.9, 2.0)], [(100.2, 3.0)], seq=10)
    >>> book.apply_delta([(100.1, 5.0)], [], seq=12, first_seq=9, prev_seq=0)
    <BookApply.APPLIED: 0>
    >>> book.best()
    (100.1, 5.0, 100.2, 3.0)
    >>> book.apply_ticker(100.0, 4.0, 100.2, 1.0, seq=13)
    <BookApply.APPLIED: 0>
    >>> book.top()[0].tolist()
    [[100.0, 4.0], [99.9, 2.0]]
    """

    def __init__(self, tick_size: float, levels: int = 10) -> None:
        super().__init__(tick_size, levels)
        self._sides = (_Side({}), _Side({}))
        self._seq = 0
        self._has_snapshot = False
        self._is_fresh = False  # no delta was applied since the snapshot
        self._has_gap = False
        self._has_ticker = False
        self._ticker_seq = 0
        self._ticker: tuple[tuple[int, float], tuple[int, float]] = ((0, 0.0), (0, 0.0))
        self._deltas_applied = 0
        self._unknown_deletes = 0

    def apply_snapshot(self, bids: Any, asks: Any, seq: int = 0) -> None:
        """Replace everything; of a repeated price the last counts. A refused snapshot changes nothing."""
        read = iter_pairs(bids, "bids"), iter_pairs(asks, "asks")
        check_not_negative(seq, "seq")
        bid_changes = self._read_changes(BID, read[BID])
        ask_changes = self._read_changes(ASK, read[ASK])
        sides = tuple(
            _Side({key: size for key, size in dict(changes).items() if size > 0.0})
            for changes in (bid_changes, ask_changes)
        )
        if _is_crossed(sides[BID], sides[ASK]):
            raise EventError("the snapshot has its best bid above its best ask", reason="crossed_book")
        self._sides = (sides[BID], sides[ASK])
        self._seq = seq
        self._has_snapshot = True
        self._is_fresh = True
        self._has_gap = False
        self._has_ticker = False

    def apply_delta(self, bids: Any, asks: Any, seq: int = 0, first_seq: int = 0, prev_seq: int = 0) -> BookApply:
        """Change levels, size 0 deletes; a `seq` of 0 is not checked. A refused delta leaves a gap behind."""
        if not self._has_snapshot:
            raise EventError("a delta came before any snapshot", reason="no_snapshot")
        if self._has_gap:
            message = "the book has missed a message and waits for a snapshot"
            raise EventError(message, reason="sequence_gap", field="seq")
        try:
            if self._is_stale(seq, first_seq, prev_seq):
                return BookApply.STALE
            self._apply_admitted(bids, asks, seq)
        except EventError:
            self.mark_gap()
            raise
        return BookApply.APPLIED

    def apply_ticker(self, bid: float, bid_size: float, ask: float, ask_size: float, seq: int = 0) -> BookApply:
        """Override the best level until a delta of the same or a later `seq`; a price of 0 says the side is empty."""
        check_not_negative(seq, "seq")
        ticker = self._read_best(bid, bid_size, "bid"), self._read_best(ask, ask_size, "ask")
        if ticker[BID][0] == 0 and ticker[ASK][0] == 0:
            raise EventError("a ticker must have a bid or an ask", reason="empty_book")
        if ticker[BID][0] > ticker[ASK][0] and ticker[ASK][0] != 0:
            raise EventError(f"`bid` {bid:.12g} is above `ask` {ask:.12g}", reason="crossed_book", field="bid")
        is_older = seq < self._seq or (self._has_ticker and seq < self._ticker_seq)
        if seq != 0 and is_older:
            return BookApply.STALE
        self._ticker = ticker
        self._ticker_seq = seq
        self._has_ticker = True
        return BookApply.APPLIED

    def mark_gap(self) -> None:
        """Say that the feed lost something: nothing is shown until a snapshot, or one level from the next ticker."""
        self._has_gap = True
        self._has_ticker = False

    def depth_best(self) -> Quote:
        """Return `best()` of the rebuilt depth alone: without a ticker, and also after a gap."""
        quote: list[float] = []
        for side, levels in enumerate(self._sides):
            if levels.keys:
                key = levels.keys[-1]
                quote += (self._price(side, key), levels.sizes[key])
            else:
                quote += (0.0, 0.0)
        return quote[0], quote[1], quote[2], quote[3]

    @property
    def is_ready(self) -> bool:
        """True when the depth is whole: there was a snapshot, and no gap since."""
        return self._has_snapshot and not self._has_gap

    @property
    def has_ticker(self) -> bool:
        """True while a ticker overrides the best level."""
        return self._has_ticker

    @property
    def seq(self) -> int:
        """Update id of the last message applied to the depth; 0 when unknown."""
        return self._seq

    @property
    def level_counts(self) -> tuple[int, int]:
        """How many levels the depth holds: bids, asks."""
        return len(self._sides[BID].keys), len(self._sides[ASK].keys)

    @property
    def deltas_applied(self) -> int:
        """How many deltas have changed the book since it was made."""
        return self._deltas_applied

    @property
    def unknown_deletes(self) -> int:
        """How many deletes met no level: usual where the snapshot is shallower than the venue's book."""
        return self._unknown_deletes

    def to_bytes(self) -> bytes:
        """Return a checkpoint, versioned and checksummed; the compiled book reads it too."""
        flags = self._has_snapshot | self._is_fresh << 1 | self._has_gap << 2 | self._has_ticker << 3
        parts = [
            _HEADER.pack(
                _MAGIC,
                self._grid.tick_size,
                self._levels,
                self._seq,
                flags,
                self._deltas_applied,
                self._unknown_deletes,
                self._ticker_seq,
                *self._ticker[BID],
                *self._ticker[ASK],
            )
        ]
        for side in self._sides:
            parts.append(struct.pack("<Q", len(side.keys)))
            parts.extend(struct.pack("<qd", key, side.sizes[key]) for key in side.keys)
        return seal(b"".join(parts))

    @classmethod
    def from_bytes(cls, data: bytes) -> PlainOrderBook:
        """Return the book of a checkpoint; ValueError when it is damaged or of another version."""
        body = unseal(data, _MAGIC)
        try:
            _, tick_size, levels, seq, flags, applied, unknown, ticker_seq, *best = _HEADER.unpack_from(body)
            at = _HEADER.size
            sides = []
            for _ in range(2):
                (count,) = struct.unpack_from("<Q", body, at)
                at += 8
                flat = struct.unpack_from(f"<{'qd' * count}", body, at)
                at += 16 * count
                sides.append(_Side(dict(zip(flat[::2], flat[1::2], strict=True))))
        except struct.error as error:
            raise ValueError(DAMAGED) from error
        book = cls(tick_size, levels)
        book._sides = (sides[BID], sides[ASK])
        book._seq = seq
        book._has_snapshot, book._is_fresh = bool(flags & 1), bool(flags & 2)
        book._has_gap, book._has_ticker = bool(flags & 4), bool(flags & 8)
        book._deltas_applied, book._unknown_deletes = applied, unknown
        book._ticker_seq, book._ticker = ticker_seq, ((best[0], best[1]), (best[2], best[3]))
        return book

    def __reduce__(self) -> tuple[Any, tuple[bytes]]:
        return type(self).from_bytes, (self.to_bytes(),)

    def _is_stale(self, seq: int, first_seq: int, prev_seq: int) -> bool:
        """Say whether a message is old; EventError when it is not the next one."""
        for name, value in (("seq", seq), ("first_seq", first_seq), ("prev_seq", prev_seq)):
            check_not_negative(value, name)
        if seq == 0:
            return False
        if first_seq > seq:
            message = f"`first_seq` must be <= `seq` {seq}, was {first_seq}"
            raise EventError(message, reason="malformed", field="first_seq")
        if prev_seq >= seq:
            message = f"`prev_seq` must be < `seq` {seq}, was {prev_seq}"
            raise EventError(message, reason="malformed", field="prev_seq")
        if seq <= self._seq:
            return True
        if self._seq != 0 and not self._follows(first_seq, prev_seq):
            message = f"the book stands at {self._seq}, the message begins at {first_seq} after {prev_seq}"
            raise EventError(message, reason="sequence_gap", field="seq")
        return False

    def _follows(self, first_seq: int, prev_seq: int) -> bool:
        # The first message after a snapshot straddles it: it began before the snapshot ended, or next to it (Binance:
        # spot U <= lastUpdateId + 1, futures U <= lastUpdateId; pu <= lastUpdateId says the same where ids are not
        # dense).
        starts_in_time = first_seq <= self._seq + 1
        if prev_seq == 0:
            return starts_in_time
        return (starts_in_time or prev_seq <= self._seq) if self._is_fresh else prev_seq == self._seq

    def _apply_admitted(self, bids: Any, asks: Any, seq: int) -> None:
        read = iter_pairs(bids, "bids"), iter_pairs(asks, "asks")
        changes = self._read_changes(BID, read[BID]), self._read_changes(ASK, read[ASK])
        undo: list[tuple[_Side, int, float]] = []
        unknown = 0
        for side, side_changes in zip(self._sides, changes, strict=True):
            for key, size in side_changes:
                old = side.put(key, size)
                undo.append((side, key, old))
                unknown += old == 0.0 and size == 0.0
        if _is_crossed(*self._sides):
            for side, key, old in reversed(undo):
                side.put(key, old)
            message = "the message would leave the best bid above the best ask"
            raise EventError(message, reason="crossed_book")
        self._unknown_deletes += unknown
        self._deltas_applied += 1
        self._is_fresh = False
        if seq == 0 or seq >= self._ticker_seq:
            self._has_ticker = False
        if seq != 0:
            self._seq = seq

    def _read_changes(self, side: int, pairs: list[tuple[float, float]]) -> list[tuple[int, float]]:
        """Return levels by key, refusing what no book can hold."""
        changes: list[tuple[int, float]] = []
        field = "asks" if side else "bids"
        for i, (price, size) in enumerate(pairs):
            ticks = self._grid.ticks(price) if price > 0.0 else 0
            if ticks == 0 or not 0.0 <= size < math.inf:
                what = f"`{field}[{i}]`"
                check_price(price, what, field)
                check_size(size, what, field)
                raise refuse_off_grid(price, self._grid.tick_size, what, field)
            changes.append((-ticks if side else ticks, size))
        return changes

    def _read_best(self, price: float, size: float, field: str) -> tuple[int, float]:
        check_size(size, f"`{field}_size`", f"{field}_size")
        if price == 0.0:
            return 0, 0.0
        check_price(price, f"`{field}`", field)
        ticks = self._grid.ticks(price)
        if ticks == 0:
            raise refuse_off_grid(price, self._grid.tick_size, f"`{field}`", field)
        return ticks, float(size)

    def _view(self, side: int, n: int) -> list[tuple[float, float]]:
        """Return the best `n` levels with the ticker over the depth."""
        levels = self._sides[side]
        end = len(levels.keys) if self.is_ready else 0
        view: list[tuple[float, float]] = []
        if self._has_ticker and n > 0:
            ticks, size = self._ticker[side]
            if ticks == 0:
                return view
            view.append((self._grid.price(ticks), size))
            end = min(end, bisect_left(levels.keys, -ticks if side else ticks))
        start = max(0, end - (n - len(view)))
        view.extend((self._price(side, key), levels.sizes[key]) for key in reversed(levels.keys[start:end]))
        return view


def _is_crossed(bids: _Side, asks: _Side) -> bool:
    return bool(bids.keys) and bool(asks.keys) and bids.keys[-1] > -asks.keys[-1]
