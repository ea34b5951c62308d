"""Binance klines: the CSV files of its public archive, and JSON lines of its REST rows or of its kline stream.

Both times of a kline are in it: it is open from `open time` up to and including `close time`, in ms, or in µs in spot
files of 2025 and later. It is known one unit after its close time, and not a moment earlier.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ami_engine.adapters.byte_stream import LineStream
from ami_engine.adapters.feed_reader import FeedReader
from ami_engine.errors import ConfigError, EventError
from ami_engine.events import Bar
from ami_engine.units import Instrument

__all__ = ["KlineReader"]

_LEAST_CELLS = 7
# Stamps of this many digits are of this unit from 2001 to 2286.
_NS_PER_UNIT = {13: 1_000_000, 16: 1_000}
_STREAM_KEYS = ("t", "o", "h", "l", "c", "v", "T")
_FIELDS = ("open_time", "open", "high", "low", "close", "volume", "close_time")


class KlineReader(FeedReader):
    """Read klines, one bar a line, plain or gzip; `recv_ts_ns` and `exch_ts_ns` are the first instant after the bar.

    Of the kline stream only closed bars (``"x": true``) are events.

    Parameters
    ----------
    path : str or Path
        The file.
    symbol : str, optional
        The market's name, where the lines have none; else only this symbol is read.
    instruments : Mapping, optional
        What is declared of the instruments.

    Raises
    ------
    ConfigError
        When the file cannot be read, or its first line is no kline.
    """

    snapshots_only = True

    def __init__(
        self, path: str | Path, *, symbol: str | None = None, instruments: Mapping[str, Instrument] | None = None
    ) -> None:
        self._stream = LineStream(path)
        super().__init__(self._stream.path, symbol=symbol, instruments=instruments)
        head = self._stream.peek_lines(2)
        if head and head[0].startswith(b"open_time,"):
            self._stream.next_line()
            head = head[1:]
        try:
            if head:
                self._read(head[0])
        except EventError as error:
            self._stream.close()
            raise ConfigError(f"{self._stream.path}: the first line is no kline: {error.message}") from None

    def next_event(self) -> Bar | None:
        """Return the next bar; None at the end. EventError names file, line and field."""
        while True:
            line = self._stream.next_line()
            if line is None:
                self._check_symbol_was_seen(self._stream.position)
                return None
            if not line or line.isspace():
                continue
            try:
                bar = self._read(line)
            except EventError as error:
                raise error.at(self.source_name, self._stream.position) from None
            if bar is not None and not self._is_other_symbol(bar.symbol):
                return bar

    def place(self) -> tuple[str, int]:
        """Return the file's base name and the line last read."""
        return self.source_name, self._stream.position

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _read(self, line: bytes) -> Bar | None:
        """Return the bar of a line; None for one that is not closed yet."""
        symbol = self.symbol
        if line[:1] in (b"[", b"{"):
            try:
                cells = msgspec.json.decode(line)
            except msgspec.DecodeError as error:
                raise EventError(f"not valid JSON: {error}") from None
            if isinstance(cells, dict):
                kline = cells.get("data", cells).get("k")
                if not isinstance(kline, dict):
                    raise EventError("`k` must be a kline, was absent", reason="missing_field", field="k")
                if kline.get("x") is not True:
                    return None
                symbol = kline.get("s", symbol)
                cells = [kline.get(key) for key in _STREAM_KEYS]
        else:
            cells = line.split(b",")
        if len(cells) < _LEAST_CELLS:
            raise EventError(f"a kline must have at least 7 columns, had {len(cells)}", reason="bad_columns")
        open_ns, _ = _time("open_time", cells[0])
        close_ns, unit_ns = _time("close_time", cells[6])
        if close_ns <= open_ns:
            raise EventError(
                f"`close_time` must be after `open_time`, was {cells[6]!r}", reason="malformed", field="close_time"
            )
        known_ns = close_ns + unit_ns
        prices = (_number(name, cell) for name, cell in zip(_FIELDS[1:6], cells[1:6], strict=True))
        return Bar(known_ns, known_ns, symbol, 0, *prices)


def _time(field: str, cell: Any) -> tuple[int, int]:
    """Return a stamp and its unit, ns; the number of digits says which unit it is."""
    text = cell.decode("latin-1") if isinstance(cell, bytes) else str(cell)
    unit_ns = _NS_PER_UNIT.get(len(text)) if text.isascii() and text.isdecimal() else None
    if unit_ns is None:
        raise EventError(
            f"`{field}` must be ms (13 digits) or µs (16 digits), was {text[:40]!r}", reason="wrong_type", field=field
        )
    return int(text) * unit_ns, unit_ns


def _number(field: str, cell: Any) -> float:
    try:
        value = float(cell)
    except (TypeError, ValueError):
        raise EventError(f"`{field}` must be a number, was {cell!r}"[:120], reason="wrong_type", field=field) from None
    if value - value != 0.0:
        raise EventError(f"`{field}` must be finite, was {value!r}", reason="not_finite", field=field)
    return value
