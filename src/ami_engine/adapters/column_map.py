"""What the columns of a CSV or Parquet file are: declared in TOML, never guessed.

A map for quotes with bid and ask by name, microsecond stamps and prices in ten-thousandths::

    kind = "quote"           # quote, levels, trade or bar
    time_unit = "us"         # s, ms, us, ns, or iso (ISO 8601 with an offset)
    price_scale = 1e-4       # price in the file × price_scale = price

    [columns]                # by name, or by position from 0 where header = false
    recv_ts = "local_timestamp"
    exch_ts = "timestamp"    # `ts` alone sets both
    bid = "bid_price"
    ask = "ask_price"
    bid_depth = "bid_amount"
    ask_depth = "ask_amount"
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from ami_engine.adapters.dict_event import AGGRESSORS
from ami_engine.adapters.toml_file import load_toml, struct_of_toml
from ami_engine.errors import ConfigError
from ami_engine.units import NS_PER_MS, NS_PER_S

__all__ = ["BarTimes", "ColumnMap", "LevelColumns", "Positions", "bar_length_ms", "utc_offset_ns"]

Column = str | int
Columns = list[str | int] | str

_TIME_COLUMNS = ("ts", "recv_ts", "exch_ts")
_COMMON = {*_TIME_COLUMNS, "symbol", "seq"}
_KNOWN = {
    "quote": _COMMON | {"bid", "ask", "bid_depth", "ask_depth"},
    "levels": _COMMON,
    "trade": _COMMON | {"price", "size", "aggressor"},
    "bar": _COMMON | {"open", "high", "low", "close", "volume"},
}
_NEEDED = {
    "quote": ("bid", "ask"),
    "levels": (),
    "trade": ("price", "size"),
    "bar": ("open", "high", "low", "close"),
}
_LEVEL_FIELDS = ("bid_price", "bid_size", "ask_price", "ask_size")
_UTC_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)")


class BarTimes(msgspec.Struct, frozen=True):
    """What the stamps of bars are, so that a bar is known no earlier than it was.

    Parameters
    ----------
    bar_time : {"close", "open"}
        Which end of the bar its stamp is.
    interval_ms : float
        Length of a bar, > 0; needed where `bar_time` is "open", because a bar is known at its close.
    utc_offset : str
        Offset of the stamps' zone from UTC, ``+01:00``, ``-0500`` or ``Z``; empty: they are UTC, or carry their own.

    Raises
    ------
    ConfigError
        Naming the key.

    Examples
    --------
    >>> BarTimes("open", interval_ms=60_000).shift_ns
    60000000000
    >>> BarTimes("close", utc_offset="+01:00").shift_ns
    -3600000000000
    """

    bar_time: str
    interval_ms: float = 0.0
    utc_offset: str = ""

    def __post_init__(self) -> None:
        if self.bar_time not in ("close", "open"):
            raise ConfigError(f'`bar_time` must be "close" or "open", was {self.bar_time!r}')
        if self.bar_time == "open" and not (math.isfinite(self.interval_ms) and self.interval_ms > 0):
            raise ConfigError(f'`interval_ms` must be > 0 where `bar_time` is "open", was {self.interval_ms!r}')
        utc_offset_ns(self.utc_offset)

    @property
    def shift_ns(self) -> int:
        """What is added to a stamp, ns, to make it the close of the bar in UTC."""
        length_ns = round(self.interval_ms * NS_PER_MS) if self.bar_time == "open" else 0
        return length_ns - utc_offset_ns(self.utc_offset)


def bar_length_ms(columns: ColumnMap | str | Path) -> float | None:
    """Return how long the bars of a map are, ms; None where it does not say. Of a file nothing else is read.

    Raises
    ------
    ConfigError
        When what the file says is no length.

    >>> bar_length_ms(ColumnMap(kind="bar", time_unit="iso", price_scale=1, bar_time="close", bar_seconds=60,
    ...     columns={"ts": "t", "open": "o", "high": "h", "low": "l", "close": "c"}))
    60000.0
    """
    if isinstance(columns, ColumnMap):
        return columns.length_ms or None
    table = load_toml(columns)
    for key, in_ms in (("interval_ms", 1.0), ("bar_seconds", 1_000.0)):
        length = table.get(key)
        if length is None:
            continue
        if type(length) not in (int, float) or not 0.0 < length < math.inf:
            raise ConfigError(f"{columns}: `{key}` must be finite and > 0, was {length!r}")
        return float(length) * in_ms
    return None


def utc_offset_ns(text: str) -> int:
    """Return the offset that ``+01:00``, ``-0500``, ``Z`` or nothing at all stand for, ns.

    >>> utc_offset_ns("-05:30"), utc_offset_ns("Z")
    (-19800000000000, 0)
    """
    if text in ("", "Z"):
        return 0
    found = _UTC_OFFSET.fullmatch(text)
    if found is None or int(found[2]) > 14 or int(found[3]) > 59:
        raise ConfigError(f"`utc_offset` must be such as +01:00, -0500 or Z, was {text!r}")
    seconds = int(found[2]) * 3_600 + int(found[3]) * 60
    return (-seconds if found[1] == "-" else seconds) * NS_PER_S


class LevelColumns(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the levels of a book stand, best first: a list of columns, or a pattern with ``{i}`` and a count.

    Parameters
    ----------
    bid_price, bid_size, ask_price, ask_size : list of (str or int), or str
        Columns of each level; a string such as ``"asks[{i}].price"`` stands for `count` of them.
    count : int
        Levels a pattern stands for.
    first : int
        What ``{i}`` is for the best level.
    """

    bid_price: Columns
    bid_size: Columns
    ask_price: Columns
    ask_size: Columns
    count: int = 0
    first: int = 0

    def __post_init__(self) -> None:
        lengths = {field: len(self.columns(field)) for field in _LEVEL_FIELDS}
        if len(set(lengths.values())) != 1 or not lengths["bid_price"]:
            raise ConfigError(f"`levels` must name as many columns, at least 1, for each of {lengths}")

    def columns(self, field: str) -> list[Column]:
        """Return the columns of one of the four fields, best level first."""
        declared: Columns = getattr(self, field)
        if not isinstance(declared, str):
            return list(declared)
        if "{i}" not in declared:
            raise ConfigError(f"`levels.{field}` must be a list of columns or hold {{i}}, was {declared!r}")
        if self.count < 1:
            raise ConfigError(f"`levels.count` must be at least 1 where a pattern is used, was {self.count}")
        return [declared.replace("{i}", str(place)) for place in range(self.first, self.first + self.count)]


class Positions(msgspec.Struct, frozen=True):
    """A map resolved to the places of the columns in a row."""

    fields: dict[str, int]
    levels: dict[str, tuple[int, ...]]
    width: int | None


class ColumnMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which column is what, and in which units.

    Parameters
    ----------
    kind : {"quote", "levels", "trade", "bar"}
        What a row is.
    time_unit : {"s", "ms", "us", "ns", "iso"}
        Unit of all time columns. A Parquet timestamp column brings its own.
    price_scale : float
        What a price in the file is multiplied with, > 0; 1e-4 divides by 10000, so that the result is the nearest
        double to the decimal.
    columns : dict
        Column of each field: ``ts`` or ``recv_ts`` and ``exch_ts``; ``symbol``, ``seq``; those of the kind.
    levels : LevelColumns, optional
        For kind "levels".
    size_scale : float
        What a size is multiplied with, > 0.
    header : bool
        False: the file has no header line, and columns are positions counted from 0.
    delimiter : str
        One character.
    symbol : str
        The market's name, where no column holds it.
    missing : list of str
        Cells that say that there is no value, which leaves a side of the book empty. A price of 0 does so too.
    aggressor : dict
        What the cells of the aggressor column mean: +1 buyer, −1 seller, 0 unknown.
    bar_time : {"close", "open"}, optional
        Which end of a bar its stamp is; must be said for kind "bar".
    interval_ms, bar_seconds : float
        Length of a bar, in either unit; one is needed where `bar_time` is "open": a bar is known at its close.
    utc_offset : str
        Zone of the stamps that carry none, such as ``+01:00``; for kind "bar".

    Raises
    ------
    ConfigError
        Naming the key.

    Examples
    --------
    >>> bars = ColumnMap(kind="bar", time_unit="iso", price_scale=1, bar_time="close",
    ...     columns={"ts": "t", "open": "o", "high": "h", "low": "l", "close": "c"})
    >>> bars.resolve(["t", "o", "h", "l", "c", "v"]).fields["close"]
    4
    """

    kind: Literal["quote", "levels", "trade", "bar"]
    time_unit: Literal["s", "ms", "us", "ns", "iso"]
    price_scale: float
    columns: dict[str, Column]
    levels: LevelColumns | None = None
    size_scale: float = 1.0
    header: bool = True
    delimiter: str = ","
    symbol: str = ""
    missing: list[str] = msgspec.field(default_factory=lambda: [""])
    aggressor: dict[str, int] = msgspec.field(
        default_factory=lambda: {key: value for key, value in AGGRESSORS.items() if isinstance(key, str)}
    )
    bar_time: Literal["close", "open", ""] = ""
    bar_seconds: float = 0.0
    interval_ms: float = 0.0
    utc_offset: str = ""

    def __post_init__(self) -> None:
        for key in ("price_scale", "size_scale"):
            value = getattr(self, key)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"`{key}` must be finite and > 0, was {value!r}")
        if len(self.delimiter) != 1:
            raise ConfigError(f"`delimiter` must be one character, was {self.delimiter!r}")
        for cell, sign in self.aggressor.items():
            if sign not in (-1, 0, 1):
                raise ConfigError(f"`aggressor.{cell}` must be 1, -1 or 0, was {sign!r}")
        self._check_columns()
        if self.kind == "bar":
            if not self.bar_time:
                raise ConfigError('`bar_time` must be "close" or "open" for bars')
            if self.bar_seconds and self.interval_ms:
                raise ConfigError("`bar_seconds` and `interval_ms` say the same: give one of them")
            if self.bar_time == "open" and not (math.isfinite(self.length_ms) and self.length_ms > 0):
                raise ConfigError(
                    f'`bar_seconds` must be > 0 where `bar_time` is "open" (or `interval_ms`), was {self.bar_seconds!r}'
                )
        elif self.utc_offset:
            raise ConfigError(f'`utc_offset` is of kind "bar", was given for {self.kind!r}')
        utc_offset_ns(self.utc_offset)

    @property
    def length_ms(self) -> float:
        """Length of a bar, ms; 0 where it was not said."""
        return self.interval_ms or self.bar_seconds * 1_000.0

    @classmethod
    def from_toml(cls, path: str | Path, *, bars: BarTimes | None = None) -> ColumnMap:
        """Read a map from a TOML file; of bars, `bars` says what the file leaves open.

        Raises
        ------
        ConfigError
            Naming file and key.
        """
        table = load_toml(path)
        if bars is not None and table.get("kind") == "bar":
            open_ms = {} if "bar_seconds" in table or not bars.interval_ms else {"interval_ms": bars.interval_ms}
            table = {"bar_time": bars.bar_time} | open_ms | table
        return struct_of_toml(table, cls, str(path))

    def resolve(self, names: Sequence[str] | None) -> Positions:
        """Return where the columns stand, by the file's column names, or by position where there are none.

        Raises
        ------
        ConfigError
            Naming the column that the file does not have.
        """
        places: Mapping[Column, int] = {name: place for place, name in enumerate(names)} if names is not None else {}

        def place_of(field: str, column: Column) -> int:
            if isinstance(column, int):
                if column < 0 or (names is not None and column >= len(names)):
                    raise ConfigError(f"column {column} of `{field}` is not there: columns are counted from 0")
                return column
            if names is None:
                raise ConfigError(f"column {column!r} of `{field}` must be a position: the file has no header")
            if column not in places:
                raise ConfigError(f"column {column!r} of `{field}` is not there; there are {', '.join(names)}")
            return places[column]

        fields = {field: place_of(field, column) for field, column in self.columns.items()}
        levels: dict[str, tuple[int, ...]] = {}
        if self.levels is not None:
            for field in _LEVEL_FIELDS:
                columns = self.levels.columns(field)
                levels[field] = tuple(place_of(f"levels.{field}", column) for column in columns)
        return Positions(fields, levels, len(names) if names is not None else None)

    def _check_columns(self) -> None:
        known = _KNOWN[self.kind]
        for field in self.columns:
            if field not in known:
                raise ConfigError(f"unknown key `columns.{field}` for kind {self.kind!r}; known: {sorted(known)}")
        for field in _NEEDED[self.kind]:
            if field not in self.columns:
                raise ConfigError(f"`columns.{field}` is needed for kind {self.kind!r}")
        if not any(field in self.columns for field in _TIME_COLUMNS):
            raise ConfigError("`columns` must name a time: `ts`, or `recv_ts` and `exch_ts`")
        if (self.kind == "levels") != (self.levels is not None):
            raise ConfigError('`levels` must be given for kind "levels", and for no other')
