"""CSV files, with a column map, or with the contract's own names in the header."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from ami_engine.adapters.byte_stream import LineStream
from ami_engine.adapters.column_map import ColumnMap
from ami_engine.adapters.dict_event import event_from_dict
from ami_engine.adapters.feed_reader import FeedReader
from ami_engine.adapters.row_reader import RowReader
from ami_engine.errors import ConfigError, EventError
from ami_engine.events import MarketEvent
from ami_engine.units import Instrument

__all__ = ["TIME_COLUMNS", "CsvReader"]

# Names that say their unit: without a map, a file must have one of them.
TIME_COLUMNS = frozenset({"ts_ns", "ts_ms", "timestamp_ms", "recv_ts_ns", "exch_ts_ns"})
_BOM = b"\xef\xbb\xbf"


class CsvReader(FeedReader):
    """Read a CSV file, plain or gzip, one event a line.

    With a `ColumnMap` the file may have any columns. Without one, its header must use the names of the dict event
    (``ts_ms``, ``bid``, ``ask`` …), and an empty cell is an absent key. A quoted cell may hold the delimiter but no
    line end.

    Parameters
    ----------
    path : str or Path
        The file.
    columns : ColumnMap, optional
        What the columns are.
    symbol : str, optional
        Only this symbol is read, where a column names it; else the name of the market.
    instruments : Mapping, optional
        What is declared of the instruments.

    Raises
    ------
    ConfigError
        When the file cannot be read, has no header, or lacks a column.
    """

    snapshots_only = True

    def __init__(
        self,
        path: str | Path,
        *,
        columns: ColumnMap | None = None,
        symbol: str | None = None,
        instruments: Mapping[str, Instrument] | None = None,
    ) -> None:
        self._stream = LineStream(path)
        super().__init__(self._stream.path, symbol=symbol, instruments=instruments)
        self._delimiter = columns.delimiter if columns is not None else ","
        try:
            self._names = self._read_header() if columns is None or columns.header else []
            if columns is None:
                _check_names(self._names)
                self._rows = None
            else:
                positions = columns.resolve(self._names if columns.header else None)
                self._rows = RowReader(columns, positions, symbol=self.symbol)
        except ConfigError as error:
            self._stream.close()
            raise ConfigError(f"{self._stream.path}: {error}") from None

    def next_event(self) -> MarketEvent | None:
        """Return the next event; None at the end. EventError names file, line and field."""
        stream = self._stream
        while True:
            line = stream.next_line()
            if line is None:
                self._check_symbol_was_seen(stream.position)
                return None
            if not line or line.isspace():
                continue
            try:
                cells = self._split(line)
                event = self._rows.read(cells) if self._rows is not None else self._read_named(cells)
            except EventError as error:
                raise error.at(self.source_name, stream.position) from None
            if self.symbol and self._is_other_symbol(event.symbol):
                continue
            return event

    def place(self) -> tuple[str, int]:
        """Return the file's base name and the line last read."""
        return self.source_name, self._stream.position

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _read_header(self) -> list[str]:
        try:
            line = self._stream.next_line()
            names = [name.strip() for name in self._split((line or b"").removeprefix(_BOM))]
        except EventError as error:
            raise ConfigError(f"has no header that can be read: {error.message}") from None
        if line is None:
            raise ConfigError("is empty, a header was expected")
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise ConfigError(f"column names must be unique, repeated: {', '.join(sorted(repeated))}")
        return names

    def _split(self, line: bytes) -> list[str]:
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise EventError(f"not UTF-8: {error.reason}", reason="malformed") from None
        if '"' not in text:
            return text.split(self._delimiter)
        try:
            return next(csv.reader([text], delimiter=self._delimiter, strict=True))
        except csv.Error as error:
            raise EventError(f"not valid CSV: {error}", reason="bad_columns") from None

    def _read_named(self, cells: list[str]) -> MarketEvent:
        names = self._names
        if len(cells) != len(names):
            raise EventError(f"a row must have {len(names)} columns, had {len(cells)}", reason="bad_columns")
        mapping = {name: cell for name, cell in zip(names, cells, strict=True) if cell}
        if TIME_COLUMNS.isdisjoint(mapping):
            name = self._time_name()
            raise EventError(f"`{name}` must be given, the row has no time", reason="missing_field", field=name)
        return event_from_dict(mapping, fallback_ts_ns=0, symbol=self.symbol)

    def _time_name(self) -> str:
        return next(name for name in self._names if name in TIME_COLUMNS)


def _check_names(names: list[str]) -> None:
    if TIME_COLUMNS.isdisjoint(names):
        raise ConfigError(
            f"no column is named {', '.join(sorted(TIME_COLUMNS))}; "
            f"pass a column map (`columns`) that says what is what: there are {', '.join(names)}"
        )
