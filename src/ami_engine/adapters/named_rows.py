"""Rows whose columns carry the names of the dict event: `ts_ms`, `bid`, `ask`, `price`, `open` …"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ami_engine.adapters.column_map import BarTimes
from ami_engine.adapters.dict_event import event_from_dict
from ami_engine.errors import ConfigError, EventError
from ami_engine.events import Bar, MarketEvent

__all__ = ["TIME_COLUMNS", "NamedRows"]

# Names that say their unit: without a map, a file must have one of them.
TIME_COLUMNS = frozenset({"ts_ns", "ts_ms", "timestamp_ms", "recv_ts_ns", "exch_ts_ns"})

_BAR_COLUMNS = ("open", "high", "low", "close")
_BOOK_KEYS = ("bid", "ask", "bid_depth", "ask_depth", "bids", "asks", "mid")
_TRADE_KEYS = ("price", "size", "aggressor")
# What a `kind` of the tables of `FeatureBuilder.run` leaves of a row that has the columns of both.
_LEFT_OUT = {0: frozenset((*_TRADE_KEYS, "kind")), 1: frozenset((*_BOOK_KEYS, "kind"))}
# What has more than one value to a cell is JSON where a cell can only be text.
_JSON_COLUMNS = ("bids", "asks", "fields")
_decode_json = msgspec.json.decode


class NamedRows:
    """Reads rows.

    A cell that is None or empty text is an absent key. A `type` column holds the tags of our own structs; a `kind`
    column says 0 (book) or 1 (trade) where a table has the columns of both.

    Parameters
    ----------
    names : sequence of str
        Names of the columns, in the order of the cells.
    symbol : str
        Name of the market where no column holds it.
    bars : BarTimes, optional
        What the stamps of bars are; needed where there are bars and no `type` column.

    Raises
    ------
    ConfigError
        When no column is a time, or bars do not say what their stamps are.
    EventError
        By `read`, naming the field.

    Examples
    --------
    >>> rows = NamedRows(["ts_ms", "bid", "ask", "price", "size"])
    >>> rows.read([5, 99.0, 101.0, None, None]).ask
    101.0
    >>> rows.read([6, None, None, 100.0, 2.0]).price
    100.0
    """

    def __init__(self, names: Sequence[str], *, symbol: str = "", bars: BarTimes | None = None) -> None:
        if TIME_COLUMNS.isdisjoint(names):
            raise ConfigError(
                f"no column is named {', '.join(sorted(TIME_COLUMNS))}; pass a column map (`columns`) "
                f"that says what is what: there are {', '.join(names)}"
            )
        if bars is None and "type" not in names and all(name in names for name in _BAR_COLUMNS):
            raise ConfigError(
                'there are bars, which must say what their stamps are: declare `bar_time` as "close", or as "open" '
                "with `interval_ms`; and `utc_offset` where the stamps are not UTC"
            )
        self._names = tuple(names)
        self._time_name = next(name for name in names if name in TIME_COLUMNS)
        self._symbol = symbol
        self._has_kind = "kind" in names
        self._json = tuple(name for name in _JSON_COLUMNS if name in names)
        self._shift_ns = bars.shift_ns if bars is not None else 0

    def read(self, cells: Sequence[Any]) -> MarketEvent:
        """Return the event of one row."""
        names = self._names
        if len(cells) != len(names):
            raise EventError(f"a row must have {len(names)} columns, had {len(cells)}", reason="bad_columns")
        mapping = {
            name: cell
            for name, cell in zip(names, cells, strict=True)
            if cell is not None and not (type(cell) is str and cell == "")
        }
        if TIME_COLUMNS.isdisjoint(mapping):
            name = self._time_name
            raise EventError(f"`{name}` must be given, the row has no time", reason="missing_field", field=name)
        if self._has_kind:
            mapping = _of_kind(mapping)
        for name in self._json:
            cell = mapping.get(name)
            if type(cell) is str:
                mapping[name] = _from_json(name, cell)
        event = event_from_dict(mapping, fallback_ts_ns=0, symbol=self._symbol)
        if self._shift_ns and type(event) is Bar:
            return _shifted(event, self._shift_ns)
        return event


def _of_kind(mapping: dict[str, Any]) -> dict[str, Any]:
    """Leave out what the row's kind does not have."""
    left_out = _LEFT_OUT.get(mapping.get("kind"))  # type: ignore[arg-type]
    if left_out is None:
        return mapping
    return {name: cell for name, cell in mapping.items() if name not in left_out}


def _from_json(name: str, cell: str) -> Any:
    try:
        return _decode_json(cell)
    except msgspec.DecodeError as error:
        raise EventError(f"`{name}` must be JSON: {error}", reason="malformed", field=name) from None


def _shifted(bar: Bar, shift_ns: int) -> Bar:
    """Return the bar stamped at its close: a time that is unknown stays so."""
    exch, recv = bar.exch_ts_ns, bar.recv_ts_ns
    return msgspec.structs.replace(
        bar, exch_ts_ns=exch + shift_ns if exch else 0, recv_ts_ns=recv + shift_ns if recv else 0
    )
