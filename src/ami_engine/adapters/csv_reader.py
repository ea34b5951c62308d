"""CSV files, with a column map, or with the contract's own names in the header."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from ami_engine.adapters.byte_stream import LineStream
from ami_engine.adapters.column_map import BarTimes, ColumnMap
from ami_engine.adapters.event_file import CSV_PREFIX, decode_event_file
from ami_engine.adapters.feed_reader import FeedReader
from ami_engine.adapters.named_rows import NamedRows
from ami_engine.adapters.row_reader import RowReader
from ami_engine.errors import ConfigError, EventError
from ami_engine.events import MarketEvent
from ami_engine.units import Instrument

__all__ = ["CsvReader"]

_BOM = b"\xef\xbb\xbf"


class CsvReader(FeedReader):
    """Read a CSV file, plain or gzip, one event a line.

    With a `ColumnMap` the file may have any columns. Without one, its header must use the names of the dict event
    (``ts_ms``, ``bid``, ``ask`` …), and an empty cell is an absent key. A quoted cell may hold the delimiter but no
    line end. A file that we wrote says in its first line what it is.

    Parameters
    ----------
    path : str or Path
        The file.
    columns : ColumnMap, optional
        What the columns are.
    bars : BarTimes, optional
        What the stamps of bars are, where there is no map to say it.
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
        bars: BarTimes | None = None,
        symbol: str | None = None,
        instruments: Mapping[str, Instrument] | None = None,
    ) -> None:
        self._stream = LineStream(path)
        super().__init__(self._stream.path, symbol=symbol, instruments=instruments)
        self._delimiter = columns.delimiter if columns is not None else ","
        self._rows: RowReader | NamedRows
        try:
            self._read_description()
            self._names = self._read_header() if columns is None or columns.header else []
            if columns is None:
                self._rows = NamedRows(self._names, symbol=self.symbol, bars=bars)
            else:
                positions = columns.resolve(self._names if columns.header else None)
                self._rows = RowReader(columns, positions, symbol=self.symbol)
                self._check_bar_zone(columns)
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
                event = self._rows.read(self._split(line))
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

    def _read_description(self) -> None:
        """Take the first line where it is what we write of ourselves."""
        first = self._stream.peek_lines(1)
        if first and first[0].startswith(CSV_PREFIX):
            self._stream.next_line()
            self._take(decode_event_file(first[0].removeprefix(CSV_PREFIX)))

    def _check_bar_zone(self, columns: ColumnMap) -> None:
        """Refuse bars whose first stamp tells its zone no more than the map does, before all of them are refused."""
        first = self._stream.peek_lines(1)
        if columns.kind != "bar" or columns.time_unit != "iso" or columns.utc_offset or not first:
            return
        try:
            self._rows.read(self._split(first[0]))
        except EventError as error:
            if "utc_offset" in error.message:
                raise ConfigError(error.message) from None

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
