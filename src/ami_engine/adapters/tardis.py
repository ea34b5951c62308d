"""Tardis CSV files: book snapshots, incremental level-2 books, trades and quotes, plain or gzip.

Columns are told by the header; both times are microseconds since the epoch, and rows that came in one message share
their `local_timestamp` (docs.tardis.dev, "Downloadable CSV files").
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ami_engine.adapters.byte_stream import LineStream
from ami_engine.adapters.column_map import ColumnMap, LevelColumns
from ami_engine.adapters.feed_reader import FeedReader
from ami_engine.adapters.row_reader import RowReader
from ami_engine.errors import ConfigError, EventError
from ami_engine.events import BookDelta, BookSnapshot, MarketEvent
from ami_engine.units import Instrument

__all__ = ["TardisReader"]

_COMMON = ("exchange", "symbol", "timestamp", "local_timestamp")
_TIMES = {"exch_ts": "timestamp", "recv_ts": "local_timestamp", "symbol": "symbol"}
_AGGRESSORS = {"buy": 1, "sell": -1, "unknown": 0, "": 0}
_L2_COLUMNS = (*_COMMON, "is_snapshot", "side", "price", "amount")
_TRADE_COLUMNS = (*_COMMON, "id", "side", "price", "amount")
_QUOTE_COLUMNS = (*_COMMON, "ask_amount", "ask_price", "bid_price", "bid_amount")
_IS_SNAPSHOT = {"true": True, "false": False}
_SIDES = ("bid", "ask")


class _Message(NamedTuple):
    """What the rows of one message share."""

    symbol: str
    recv_ts_ns: int
    exch_ts_ns: int
    is_snapshot: bool


class TardisReader(FeedReader):
    """Read a Tardis CSV file: `book_snapshot_5` and `_25`, `incremental_book_L2`, `trades` or `quotes`.

    Of `incremental_book_L2` the rows of one message are one event: a `BookSnapshot` where a snapshot begins, else a
    `BookDelta`; rows before a symbol's first snapshot are left out, as the format wants. `recv_ts_ns` is
    `local_timestamp`.

    Parameters
    ----------
    path : str or Path
        The file.
    symbol : str, optional
        Only this symbol is read.
    instruments : Mapping, optional
        What is declared of the instruments.

    Raises
    ------
    ConfigError
        When the file cannot be read, or its header is of none of these kinds.
    """

    def __init__(
        self, path: str | Path, *, symbol: str | None = None, instruments: Mapping[str, Instrument] | None = None
    ) -> None:
        self._stream = LineStream(path)
        super().__init__(self._stream.path, symbol=symbol, instruments=instruments)
        try:
            names = _header(self._stream)
            columns = None if names == list(_L2_COLUMNS) else _map_of(names)
            # An id is no sequence number, and the level-2 rows have none at all.
            self._rows = None if columns is None else RowReader(columns, columns.resolve(names))
        except ConfigError as error:
            self._stream.close()
            raise ConfigError(f"{self._stream.path}: {error}") from None
        self.snapshots_only = columns is not None
        self._message: _Message | None = None
        self._sides: dict[str, list[tuple[float, float]]] = {side: [] for side in _SIDES}
        self._last_row = self._place = 0
        self._was_snapshot: dict[str, bool] = {}
        self._row_error: EventError | None = None

    def next_event(self) -> MarketEvent | None:
        """Return the next event; None at the end. EventError names file, line and field."""
        while True:
            event = self._next_row_event() if self._rows is not None else self._next_message()
            if event is None:
                self._check_symbol_was_seen(self._stream.position)
                return None
            if not self._is_other_symbol(event.symbol):
                return event

    def place(self) -> tuple[str, int]:
        """Return the file's base name and the line of the event last read; of a message, its last line."""
        return self.source_name, self._place

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
        self._message = None

    def _next_cells(self) -> list[str] | None:
        while True:
            line = self._stream.next_line()
            if line is None:
                return None
            if line:
                try:
                    return line.decode().split(",")
                except UnicodeDecodeError as error:
                    raise self._at(EventError(f"not UTF-8: {error.reason}")) from None

    def _at(self, error: EventError) -> EventError:
        return error.at(self.source_name, self._stream.position)

    def _next_row_event(self) -> MarketEvent | None:
        cells = self._next_cells()
        self._place = self._stream.position
        if cells is None or self._rows is None:
            return None
        try:
            return self._rows.read(cells)
        except EventError as error:
            raise self._at(error) from None

    def _next_message(self) -> MarketEvent | None:
        """Gather the rows of one message; the row that begins the next one is kept for it.

        A row that cannot be read ends its message: what was whole of it is an event, the error comes after it.
        """
        if self._row_error is not None:
            error, self._row_error = self._row_error, None
            raise error
        while True:
            row = None
            try:
                cells = self._next_cells()
                row = None if cells is None else _level_row(cells)
            except EventError as found:
                error = self._at(found)
                event = self._finish()
                if event is None:
                    raise error from None
                self._row_error = error
                return event
            message: _Message | None = None if row is None else row[0]
            event = None
            if message != self._message:
                event = self._finish()
                self._message = message
            if row is not None:
                self._sides[row[1]].append((row[2], row[3]))
                self._last_row = self._stream.position
            if event is not None or row is None:
                return event

    def _finish(self) -> BookSnapshot | BookDelta | None:
        """Make an event of the rows that were gathered; None where there are none, or none that count yet."""
        message, self._message = self._message, None
        bids, asks = self._sides["bid"], self._sides["ask"]
        self._sides = {side: [] for side in _SIDES}
        if message is None:
            return None
        self._place = self._last_row
        symbol, recv, exch, is_snapshot = message
        was_snapshot = self._was_snapshot.get(symbol)
        if was_snapshot is None and not is_snapshot:
            return None  # what a venue sent before its first snapshot changes a book that nobody has
        self._was_snapshot[symbol] = is_snapshot
        if is_snapshot and not was_snapshot:
            bids, asks = _book_side(bids, -1.0), _book_side(asks, 1.0)
            best_bid, best_ask = bids[0] if bids else (0.0, 0.0), asks[0] if asks else (0.0, 0.0)
            return BookSnapshot(exch, recv, symbol, 0, best_bid[0], best_ask[0], best_bid[1], best_ask[1], bids, asks)
        return BookDelta(exch, recv, symbol, 0, 0, 0, bids, asks)


def _header(stream: LineStream) -> list[str]:
    try:
        line = stream.next_line()
        return (line or b"").decode().removeprefix("\ufeff").split(",")
    except (EventError, UnicodeDecodeError):
        raise ConfigError("has no header that can be read") from None


def _map_of(names: list[str]) -> ColumnMap:
    """Return what the columns of a file with one event a row are."""
    if names == list(_TRADE_COLUMNS):
        fields = {**_TIMES, "price": "price", "size": "amount", "aggressor": "side"}
        return ColumnMap(kind="trade", time_unit="us", price_scale=1, columns={**fields}, aggressor=_AGGRESSORS)
    if names == list(_QUOTE_COLUMNS):
        fields = {**_TIMES, "bid": "bid_price", "ask": "ask_price"}
        fields |= {"bid_depth": "bid_amount", "ask_depth": "ask_amount"}
        return ColumnMap(kind="quote", time_unit="us", price_scale=1, columns={**fields})
    if names[:4] == list(_COMMON) and "asks[0].price" in names:
        levels = LevelColumns(
            "bids[{i}].price",
            "bids[{i}].amount",
            "asks[{i}].price",
            "asks[{i}].amount",
            count=sum(name.startswith("asks[") and name.endswith(".price") for name in names),
        )
        return ColumnMap(kind="levels", time_unit="us", price_scale=1, columns={**_TIMES}, levels=levels)
    raise ConfigError(
        "the header is not that of a Tardis book_snapshot, incremental_book_L2, trades or quotes file, was "
        + ",".join(names)[:100]
    )


def _level_row(cells: list[str]) -> tuple[_Message, str, float, float]:
    """Read one row of `incremental_book_L2`."""
    if len(cells) != len(_L2_COLUMNS):
        raise EventError(f"a row must have {len(_L2_COLUMNS)} columns, had {len(cells)}", reason="bad_columns")
    _, symbol, exch, recv, is_snapshot, side, price, amount = cells
    if is_snapshot not in _IS_SNAPSHOT:
        raise EventError(
            f"`is_snapshot` must be true or false, was {is_snapshot!r}", reason="wrong_type", field="is_snapshot"
        )
    if side not in _SIDES:
        raise EventError(f"`side` must be bid or ask, was {side!r}", reason="wrong_type", field="side")
    message = _Message(symbol, _time("local_timestamp", recv), _time("timestamp", exch), _IS_SNAPSHOT[is_snapshot])
    return message, side, _number("price", price), _number("amount", amount)


def _time(field: str, cell: str) -> int:
    if not (cell.isascii() and cell.isdecimal()):
        raise EventError(f"`{field}` must be whole microseconds, was {cell!r}", reason="wrong_type", field=field)
    return int(cell) * 1_000


def _number(field: str, cell: str) -> float:
    try:
        value = float(cell) if "_" not in cell else None
    except ValueError:
        value = None
    if value is None:
        reason = "wrong_type" if cell else "malformed"
        raise EventError(f"`{field}` must be a number, was {cell!r}", reason=reason, field=field)
    if value - value != 0.0:
        raise EventError(f"`{field}` must be finite, was {value!r}", reason="not_finite", field=field)
    return value


def _book_side(levels: list[tuple[float, float]], direction: float) -> list[tuple[float, float]]:
    """Return levels best first; a price that is given twice has its last size, and a size of 0 is no level."""
    held = {price: (price, size) for price, size in levels}
    return sorted((level for level in held.values() if level[1] > 0.0), key=lambda level: direction * level[0])
