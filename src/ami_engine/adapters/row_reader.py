"""Turns the cells of a row into an event, as a column map says; CSV gives strings, Parquet gives numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn

from ami_engine.adapters.column_map import ColumnMap, Positions, utc_offset_ns
from ami_engine.errors import EventError
from ami_engine.events import Bar, BookSnapshot, MarketEvent, Trade
from ami_engine.units import NS_PER_MS, NS_PER_S

__all__ = ["RowReader"]

Cells = Sequence[Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DIGITS = {"s": 9, "ms": 6, "us": 3, "ns": 0}
_FRACTION = re.compile(r"[.,](\d+)")


class RowReader:
    """Reads rows.

    Parameters
    ----------
    columns : ColumnMap
        What the columns are.
    positions : Positions
        Where they stand.
    symbol : str
        Name of the market where no column holds it.
    in_ns : collection of str
        Time fields whose cells are whole nanoseconds already, whatever the map's unit.

    Raises
    ------
    EventError
        By `read`, naming the field.
    """

    def __init__(
        self, columns: ColumnMap, positions: Positions, *, symbol: str = "", in_ns: Collection[str] = ()
    ) -> None:
        fields = positions.fields
        self._map = columns
        self._at = fields
        self._width = positions.width
        self._last = max([*fields.values(), *(place for places in positions.levels.values() for place in places)])
        self._default_symbol = symbol or columns.symbol
        self._symbol_at = fields.get("symbol")
        self._seq_at = fields.get("seq")
        self._missing = frozenset(columns.missing)
        self._price = _scaler(columns.price_scale)
        self._size = _scaler(columns.size_scale)
        self._times = {
            field: _time_parser("ns" if field in in_ns else columns.time_unit, field, columns.utc_offset)
            for field in ("ts", "recv_ts", "exch_ts")
            if field in fields
        }
        self._shift_ns = round(columns.length_ms * NS_PER_MS) if columns.bar_time == "open" else 0
        levels = positions.levels
        self._sides = (
            tuple(zip(levels["bid_price"], levels["bid_size"], strict=True)) if levels else (),
            tuple(zip(levels["ask_price"], levels["ask_size"], strict=True)) if levels else (),
        )
        makers: dict[str, Callable[[Cells, int, int, str, int], MarketEvent]] = {
            "quote": self._quote,
            "levels": self._book,
            "trade": self._trade,
            "bar": self._bar,
        }
        self._make = makers[columns.kind]

    def read(self, cells: Cells) -> MarketEvent:
        """Return the event of one row."""
        count = len(cells)
        if count != self._width if self._width is not None else count <= self._last:
            wanted = self._width if self._width is not None else f"more than {self._last}"
            raise EventError(f"a row must have {wanted} columns, had {count}", reason="bad_columns")
        exch_ts_ns, recv_ts_ns = self._stamps(cells)
        symbol = self._default_symbol if self._symbol_at is None else cells[self._symbol_at]
        if type(symbol) is not str:
            _refuse("symbol", "a string", symbol)
        seq = 0 if self._seq_at is None else _whole("seq", cells[self._seq_at])
        return self._make(cells, exch_ts_ns, recv_ts_ns, symbol, seq)

    def _stamps(self, cells: Cells) -> tuple[int, int]:
        both = exch = recv = 0
        for field, parse in self._times.items():
            ts_ns = parse(cells[self._at[field]]) + self._shift_ns
            if field == "ts":
                both = ts_ns
            elif field == "recv_ts":
                recv = ts_ns
            else:
                exch = ts_ns
        return exch or both, recv or both

    def _quote(self, cells: Cells, exch: int, recv: int, symbol: str, seq: int) -> BookSnapshot:
        bid, ask = self._side_price(cells, "bid"), self._side_price(cells, "ask")
        bid_depth = self._side_size(cells, "bid_depth") if bid else 0.0
        ask_depth = self._side_size(cells, "ask_depth") if ask else 0.0
        return BookSnapshot(exch, recv, symbol, seq, bid, ask, bid_depth, ask_depth)

    def _book(self, cells: Cells, exch: int, recv: int, symbol: str, seq: int) -> BookSnapshot:
        bids, asks = self._levels(cells, 0, "bid"), self._levels(cells, 1, "ask")
        bid, bid_depth = bids[0] if bids else (0.0, 0.0)
        ask, ask_depth = asks[0] if asks else (0.0, 0.0)
        return BookSnapshot(exch, recv, symbol, seq, bid, ask, bid_depth, ask_depth, bids, asks)

    def _levels(self, cells: Cells, side: int, name: str) -> list[tuple[float, float]]:
        missing, levels = self._missing, []
        for place, (price_at, size_at) in enumerate(self._sides[side]):
            cell = cells[price_at]
            if cell is None or cell in missing:
                continue
            price = self._price(_number(f"{name}_price_{place}", cell))
            if price != 0.0:
                levels.append((price, self._size(_number(f"{name}_size_{place}", cells[size_at]))))
        return levels

    def _trade(self, cells: Cells, exch: int, recv: int, symbol: str, seq: int) -> Trade:
        at = self._at
        price = self._price(_number("price", cells[at["price"]]))
        size = self._size(_number("size", cells[at["size"]]))
        aggressor = 0
        if "aggressor" in at:
            cell = cells[at["aggressor"]]
            taken = self._map.aggressor.get(cell if isinstance(cell, str) else str(cell))
            if taken is None:
                _refuse("aggressor", f"one of {sorted(self._map.aggressor)}", cell)
            aggressor = taken
        return Trade(exch, recv, symbol, seq, price, size, aggressor)

    def _bar(self, cells: Cells, exch: int, recv: int, symbol: str, seq: int) -> Bar:
        at, price = self._at, self._price
        open_, high, low, close = (price(_number(key, cells[at[key]])) for key in ("open", "high", "low", "close"))
        volume = self._size(_number("volume", cells[at["volume"]])) if "volume" in at else 0.0
        return Bar(exch, recv, symbol, seq, open_, high, low, close, volume)

    def _side_price(self, cells: Cells, field: str) -> float:
        cell = cells[self._at[field]]
        return 0.0 if cell is None or cell in self._missing else self._price(_number(field, cell))

    def _side_size(self, cells: Cells, field: str) -> float:
        place = self._at.get(field)
        if place is None:
            return 0.0
        cell = cells[place]
        return 0.0 if cell is None or cell in self._missing else self._size(_number(field, cell))


def _scaler(scale: float) -> Callable[[float], float]:
    """Return what brings a number of the file to its unit; see `Instrument.price_from_ticks` for the division."""
    if scale == 1.0:
        return _same
    inverse = round(1.0 / scale)
    if inverse >= 1 and abs(inverse * scale - 1.0) < 1e-12:
        return lambda value: value / inverse
    return lambda value: value * scale


def _same(value: float) -> float:
    return value


def _time_parser(unit: str, field: str, utc_offset: str) -> Callable[[Any], int]:
    """Return what reads a time cell as ns since the epoch: decimals exactly, since a float loses the last digits."""
    if unit == "iso":
        return lambda cell: _iso_ns(field, cell, utc_offset)
    digits = _DIGITS[unit]
    factor: int = 10**digits
    offset_ns = utc_offset_ns(utc_offset)

    def parse(cell: Any) -> int:
        if type(cell) is int:
            return cell * factor - offset_ns
        if isinstance(cell, float) and cell - cell == 0.0:
            return round(cell * factor) - offset_ns
        if not isinstance(cell, str):
            _refuse(field, "a time", cell)
        whole, _, fraction = cell.strip().partition(".")
        if not whole.isdecimal() or (fraction and not fraction.isdecimal()):
            _refuse(field, f"a time in {unit}", cell)
        parts = int(fraction[:digits].ljust(digits, "0") or "0") if fraction else 0
        return int(whole) * factor + parts - offset_ns

    return parse


def _iso_ns(field: str, cell: Any, utc_offset: str) -> int:
    """Read an ISO 8601 stamp with its offset, or the declared one; nine decimals are kept, where datetime keeps six."""
    if not isinstance(cell, str):
        _refuse(field, "an ISO 8601 stamp", cell)
    fraction = _FRACTION.search(cell)
    try:
        stamp = datetime.fromisoformat(cell if fraction is None else cell[: fraction.start()] + cell[fraction.end() :])
    except ValueError:
        _refuse(field, "an ISO 8601 stamp", cell)
    nanoseconds = int(fraction.group(1)[:9].ljust(9, "0")) if fraction is not None else 0
    if stamp.tzinfo is None:
        if not utc_offset:
            raise EventError(
                f"`{field}` must carry its offset from UTC, was {cell!r}; a bar's may be declared as `utc_offset`",
                reason="malformed",
                field=field,
            )
        stamp = stamp.replace(tzinfo=UTC)
        nanoseconds -= utc_offset_ns(utc_offset)
    elapsed = stamp - _EPOCH
    return (elapsed.days * 86_400 + elapsed.seconds) * NS_PER_S + nanoseconds


def _number(field: str, cell: Any) -> float:
    try:
        value = float(cell)
    except (TypeError, ValueError):
        _refuse(field, "a number", cell)
    if type(cell) is str and "_" in cell:
        _refuse(field, "a number", cell)
    if value - value != 0.0:
        raise EventError(f"`{field}` must be finite, was {value!r}", reason="not_finite", field=field)
    return value


def _whole(field: str, cell: Any) -> int:
    try:
        return int(cell)
    except (TypeError, ValueError):
        _refuse(field, "a whole number", cell)


def _refuse(field: str, wanted: str, cell: Any) -> NoReturn:
    shown = repr(cell) if len(repr(cell)) <= 60 else repr(cell)[:57] + "..."
    reason = "malformed" if cell is None or cell == "" else "wrong_type"
    raise EventError(f"`{field}` must be {wanted}, was {shown}", reason=reason, field=field)
