"""Event arrays of hftbacktest (version 2): rows of flags, two times in ns, a price and a quantity.

The low byte of `ev` is the kind of the event; four high bits say whether the venue's side or the local side sees it,
and whose side it is (hftbacktest documentation, "Data"). What the local side sees, in its order, is what is read here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ami_engine.adapters.feed_reader import FeedReader
from ami_engine.adapters.npy_stream import NpyStream
from ami_engine.errors import ConfigError, EventError
from ami_engine.events import BookDelta, BookSnapshot, BookTicker, FeedGap, MarketEvent, Trade
from ami_engine.units import Instrument

__all__ = ["HFT_FIELDS", "HftEventReader"]

HFT_FIELDS = frozenset({"ev", "exch_ts", "local_ts", "px", "qty"})

_DEPTH, _TRADE, _CLEAR, _SNAPSHOT, _BBO = 1, 2, 3, 4, 5
_KIND_MASK = 0xFF
_LOCAL, _BUY, _SELL = 1 << 30, 1 << 29, 1 << 28
_BLOCK_ROWS = 8_192
# An earlier time in ns would be of 1973: the array is in another unit.
_EARLIEST_NS = 10**17

_Row = tuple[int, int, int, float, float]


class HftEventReader(FeedReader):
    """Read an event array of hftbacktest: depth, trades, snapshots and best prices; market-by-order rows are refused.

    Rows of one kind that share their times are one event. A snapshot that clears both sides is a `BookSnapshot`; one
    that clears neither adds to the book; one that clears only one side is a `FeedGap`, because no event of ours says
    so. `recv_ts_ns` is `local_ts`.

    Parameters
    ----------
    path : Path
        The file, for its name and identity.
    stream : NpyStream
        Its array.
    symbol : str, optional
        The market's name: the array has none.
    instruments : Mapping, optional
        What is declared of the instruments.

    Raises
    ------
    ConfigError
        When the array is of another form, or its times are not ns.
    """

    def __init__(
        self,
        path: Path,
        stream: NpyStream,
        *,
        symbol: str | None = None,
        instruments: Mapping[str, Instrument] | None = None,
    ) -> None:
        super().__init__(path, symbol=symbol, instruments=instruments)
        if not self.symbol and len(self._instruments) == 1:
            self.symbol = next(iter(self._instruments))  # what is in the array can only be that
        if not set(stream.dtype.names or ()) >= HFT_FIELDS:
            raise ConfigError(f"{path}: the array must have the fields {', '.join(sorted(HFT_FIELDS))}")
        self._stream = stream
        self._position = 0  # of the row last taken
        self._place = 0
        self._is_done = False
        self._has_book = False
        self._block: Iterator[_Row] = iter(())
        self._held: _Row | None = None
        self._makers: dict[int, Callable[[list[_Row]], MarketEvent]] = {
            _DEPTH: self._depth,
            _TRADE: self._trade,
            _CLEAR: self._image,
            _BBO: self._best,
        }
        self._damage: EventError | None = None  # is told after what was whole before it
        first = self._following()
        if first is not None and 0 < first[2] < _EARLIEST_NS:
            raise ConfigError(f"{path}: `local_ts` must be ns since the epoch, was {first[2]}")
        self._held = first

    def next_event(self) -> MarketEvent | None:
        """Return the next event; None at the end. EventError names file, row and field."""
        row, self._held = self._held or self._following(), None
        if row is None:
            if self._damage is not None:
                error, self._damage = self._damage, None
                raise error
            return None
        self._place = self._position
        kind = _kind(row)
        maker = self._makers.get(kind)
        if maker is None:
            raise EventError(
                f"`ev` must be a depth, trade, snapshot or best-price event, was of kind {kind}",
                reason="unknown_kind",
                field="ev",
                source=self.source_name,
                position=self._position,
            )
        rows = [row]
        if kind != _TRADE:
            while (following := self._following()) is not None:
                if _kind(following) != kind or following[1:3] != row[1:3]:
                    break
                rows.append(following)
                self._place = self._position
            self._held = following
        return maker(rows)

    def place(self) -> tuple[str, int]:
        """Return the file's base name and the row of the event last read, from 1."""
        return self.source_name, self._place

    def close(self) -> None:
        """Close the file."""
        self._is_done = True
        self._held = None
        self._block = iter(())
        self._stream.close()

    def _following(self) -> _Row | None:
        """Return the next row; None at the end, or where the file is damaged."""
        try:
            return self._next_row()
        except EventError as error:
            self._damage = error
            return None

    def _next_row(self) -> _Row | None:
        """Return the next row that the local side sees."""
        while True:
            for row in self._block:
                self._position += 1
                if row[0] & _LOCAL:
                    return row
            if self._is_done:
                return None
            self._block = self._read_block()

    def _read_block(self) -> Iterator[_Row]:
        try:
            part = self._stream.read(_BLOCK_ROWS)
        except ConfigError as error:
            self._is_done = True
            raise EventError(
                f"cannot be decoded from here on: {error}",
                reason="truncated",
                source=self.source_name,
                position=self._position + 1,
            ) from None
        self._is_done = not len(part)
        names = ("ev", "exch_ts", "local_ts", "px", "qty")
        return zip(*(part[name].tolist() for name in names), strict=True)

    def _depth(self, rows: list[_Row]) -> BookDelta:
        _, exch, recv, _, _ = rows[0]
        bids, asks = _sides(rows)
        return BookDelta(exch, recv, self.symbol, 0, 0, 0, bids, asks)

    def _trade(self, rows: list[_Row]) -> Trade:
        flags, exch, recv, price, size = rows[0]
        aggressor = 1 if flags & _BUY else (-1 if flags & _SELL else 0)
        return Trade(exch, recv, self.symbol, 0, price, size, aggressor)

    def _image(self, rows: list[_Row]) -> MarketEvent:
        """Make what a snapshot's rows mean, by the sides that they clear first."""
        _, exch, recv, _, _ = rows[0]
        cleared = {side for row in rows if row[0] & _KIND_MASK == _CLEAR for side in _cleared(row)}
        bids, asks = _sides([row for row in rows if row[0] & _KIND_MASK == _SNAPSHOT])
        if len(cleared) == 1:
            return FeedGap(exch, recv, self.symbol, 0, 0, "one_side_cleared")
        if not cleared and self._has_book:
            return BookDelta(exch, recv, self.symbol, 0, 0, 0, bids, asks)
        self._has_book = True
        bids = sorted((level for level in bids if level[1] > 0.0), reverse=True)
        asks = sorted(level for level in asks if level[1] > 0.0)
        bid, bid_depth = bids[0] if bids else (0.0, 0.0)
        ask, ask_depth = asks[0] if asks else (0.0, 0.0)
        return BookSnapshot(exch, recv, self.symbol, 0, bid, ask, bid_depth, ask_depth, bids, asks)

    def _best(self, rows: list[_Row]) -> BookTicker:
        _, exch, recv, _, _ = rows[0]
        bids, asks = _sides(rows)
        bid, bid_size = bids[-1] if bids else (0.0, 0.0)
        ask, ask_size = asks[-1] if asks else (0.0, 0.0)
        return BookTicker(exch, recv, self.symbol, 0, bid, ask, bid_size, ask_size)


def _kind(row: _Row) -> int:
    """Return the kind of a row; a snapshot and the clearing before it are one."""
    kind = row[0] & _KIND_MASK
    return _CLEAR if kind == _SNAPSHOT else kind


def _cleared(row: _Row) -> str:
    """Return the sides that a row clears: both where it names none."""
    sides = ("b" if row[0] & _BUY else "") + ("a" if row[0] & _SELL else "")
    return sides or "ba"


def _sides(rows: list[_Row]) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    bids = [(row[3], row[4]) for row in rows if row[0] & _BUY]
    asks = [(row[3], row[4]) for row in rows if row[0] & _SELL]
    return bids, asks
