"""L2 book in plain Python: what runs without a compiler, and the independent check of the core's."""

from __future__ import annotations

import math
import struct
import zlib
from bisect import bisect_left
from enum import IntEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ami_engine.book.grid import (
    TickGrid,
    check_not_negative,
    check_price,
    check_size,
    iter_pairs,
    refuse_off_grid,
)
from ami_engine.errors import ConfigError, EventError

__all__ = ["BookApply", "PlainOrderBook"]

_MAGIC: Final = b"AMIBOOK\x01"
_HEADER: Final = struct.Struct("<8sdqqQQQqqdqd")
_BID: Final = 0
_ASK: Final = 1


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


class PlainOrderBook:
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
        self._grid = TickGrid(tick_size)
        if levels < 1:
            raise ConfigError(f"`levels` must be at least 1, was {levels}")
        self._levels = levels
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
        check_not_negative(seq, "seq")
        read = iter_pairs(bids, "bids"), iter_pairs(asks, "asks")
        bid_changes = self._read_changes(_BID, read[_BID])
        ask_changes = self._read_changes(_ASK, read[_ASK])
        sides = tuple(
            _Side({key: size for key, size in dict(changes).items() if size > 0.0})
            for changes in (bid_changes, ask_changes)
        )
        if _is_crossed(sides[_BID], sides[_ASK]):
            raise EventError("the snapshot has its best bid above its best ask", reason="crossed_book")
        self._sides = (sides[_BID], sides[_ASK])
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
        if ticker[_BID][0] == 0 and ticker[_ASK][0] == 0:
            raise EventError("a ticker must have a bid or an ask", reason="empty_book")
        if ticker[_BID][0] > ticker[_ASK][0] and ticker[_ASK][0] != 0:
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

    def top(self, n: int | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the best `n` bids and asks as new (k, 2) arrays of price and size, best first."""
        count = self._count(n)
        return self._array(_BID, count), self._array(_ASK, count)

    def top_into(self, bids: NDArray[np.float64], asks: NDArray[np.float64]) -> tuple[int, int]:
        """Write the best levels into two (n, 2) arrays; return how many rows of each were written."""
        counts = []
        for side, out in ((_BID, bids), (_ASK, asks)):
            if out.dtype != np.float64 or out.ndim != 2 or out.shape[1] != 2 or not out.flags.c_contiguous:
                raise TypeError("`top_into` needs two C-contiguous float64 arrays of shape (n, 2)")
            view = self._view(side, out.shape[0])
            for row, level in enumerate(view):
                out[row] = level
            counts.append(len(view))
        return counts[_BID], counts[_ASK]

    def best(self) -> tuple[float, float, float, float]:
        """Return (bid, bid_size, ask, ask_size) with the ticker over the depth; 0.0 where missing."""
        bid, ask = self._view(_BID, 1), self._view(_ASK, 1)
        return (*(bid[0] if bid else (0.0, 0.0)), *(ask[0] if ask else (0.0, 0.0)))

    def depth_best(self) -> tuple[float, float, float, float]:
        """Return the same from the rebuilt depth alone: without a ticker, and also after a gap."""
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
    def is_crossed(self) -> bool:
        """True when the best bid is above the best ask. The book refuses what would make it so."""
        bid, _, ask, _ = self.best()
        return bid > 0.0 and ask > 0.0 and bid > ask

    @property
    def is_locked(self) -> bool:
        """True when the best bid is the best ask."""
        bid, _, ask, _ = self.best()
        return bid > 0.0 and bid == ask

    @property
    def is_one_sided(self) -> bool:
        """True when exactly one side has a level."""
        bid, _, ask, _ = self.best()
        return (bid > 0.0) != (ask > 0.0)

    @property
    def is_empty(self) -> bool:
        """True when no side has a level to show."""
        bid, _, ask, _ = self.best()
        return bid == 0.0 and ask == 0.0

    @property
    def seq(self) -> int:
        """Update id of the last message applied to the depth; 0 when unknown."""
        return self._seq

    @property
    def tick_size(self) -> float:
        """Price step, quote currency."""
        return self._grid.tick_size

    @property
    def levels(self) -> int:
        """How many levels `top()` returns unless told otherwise."""
        return self._levels

    @property
    def level_counts(self) -> tuple[int, int]:
        """How many levels the depth holds: bids, asks."""
        return len(self._sides[_BID].keys), len(self._sides[_ASK].keys)

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
                *self._ticker[_BID],
                *self._ticker[_ASK],
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
            raise ValueError("checkpoint of the book is damaged") from error
        book = cls(tick_size, levels)
        book._sides = (sides[_BID], sides[_ASK])
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
        changes = self._read_changes(_BID, read[_BID]), self._read_changes(_ASK, read[_ASK])
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

    def _price(self, side: int, key: int) -> float:
        return self._grid.price(-key if side else key)

    def _count(self, n: int | None) -> int:
        if n is None:
            return self._levels
        if n < 0:
            raise ValueError(f"`n` must be at least 0, was {n}")
        return n

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

    def _array(self, side: int, n: int) -> NDArray[np.float64]:
        return np.array(self._view(side, n), dtype=np.float64).reshape(-1, 2)


def _is_crossed(bids: _Side, asks: _Side) -> bool:
    return bool(bids.keys) and bool(asks.keys) and bids.keys[-1] > -asks.keys[-1]


def seal(body: bytes) -> bytes:
    """Return a checkpoint's bytes with their checksum."""
    return body + struct.pack("<Q", zlib.crc32(body))


def unseal(data: bytes, magic: bytes) -> bytes:
    """Return the checked bytes of a checkpoint, without the checksum; ValueError when they are not whole."""
    if len(data) < 16 or data[:8] != magic:
        raise ValueError("checkpoint is not one of this kind of book, or of another version")
    body = data[:-8]
    if struct.unpack("<Q", data[-8:])[0] != zlib.crc32(body):
        raise ValueError("checkpoint of the book is damaged")
    return body
