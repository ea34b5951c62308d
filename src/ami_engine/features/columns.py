"""Tables of events as the columns that `run` reads, whatever kind of table they come in.

A column that already is contiguous float64 (prices, sizes) or int64 (times, kinds) is passed on as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ami_engine.errors import EventError

__all__ = ["EventColumns", "RunReport", "read_keys", "read_table"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_INT64_MAX = 2**63 - 1
_KNOWN = {
    *("ts_ns", "exch_ts_ns", "recv_ts_ns", "ts_ms", "timestamp_ms", "now_ns", "kind", "mid", "close"),
    *("bid", "ask", "bid_depth", "ask_depth", "bids", "asks", "price", "size", "aggressor"),
}


class EventColumns(NamedTuple):
    """One row an event, C-contiguous; None is an absent column.

    The time of a row is `ts`, or `ts_fallback` where `ts` is 0, times `ns_per_ts`; without `ts` each row is 1 ms after
    the last accepted event. `bids` and `asks` are (rows, N, 2), padded with NaN: a row whose first pair is NaN on both
    sides carries no levels, and `bid`, `ask`, `bid_depth` and `ask_depth` (0 where absent) are the event.
    """

    rows: int
    ts: IntArray | None = None
    ts_fallback: IntArray | None = None
    ns_per_ts: int = 1
    bid: FloatArray | None = None
    ask: FloatArray | None = None
    bid_depth: FloatArray | None = None
    ask_depth: FloatArray | None = None
    bids: FloatArray | None = None
    asks: FloatArray | None = None
    kind: IntArray | None = None
    price: FloatArray | None = None
    size: FloatArray | None = None
    aggressor: IntArray | None = None
    now_ns: IntArray | None = None


class RunReport(NamedTuple):
    """What became of the rows of one `run`.

    `rejected` counts the refused rows by reason; `first` is the row (from 0) of each reason's first.
    """

    rows: int
    accepted: int
    rejected: Mapping[str, int]
    first: Mapping[str, int]


def read_table(table: Any) -> EventColumns:
    """Return the event columns of `table`.

    Parameters
    ----------
    table : structured array, Arrow table, polars or pandas frame, or mapping of arrays
        Columns named like the fields of the events; others are ignored. `EventColumns` are returned as they are.

    Raises
    ------
    EventError
        `bad_columns`, naming the column: missing, of another type, of another length.

    Examples
    --------
    >>> columns = read_table({"ts_ns": np.array([1, 2]), "bid": np.array([9.0, 9.0]), "ask": np.array([11.0, 11.0])})
    >>> columns.rows, columns.ts
    (2, array([1, 2]))
    """
    if isinstance(table, EventColumns):
        return table
    names, get = _accessor(table)
    _refuse_misspelt(names)
    # Read once each: making an array of a frame's column is the costly part.
    floats: dict[str, Any] = {
        name: _floats(name, get(name))
        for name in ("bid", "ask", "bid_depth", "ask_depth", "price", "size")
        if name in names
    }
    for stand_in in ("mid", "close"):
        if stand_in in names and not ({"bid", "ask", "bids", "asks"} & names):
            floats["bid"] = floats["ask"] = _floats(stand_in, get(stand_in))
            break
    ints: dict[str, Any] = {name: _ints(name, get(name)) for name in ("kind", "aggressor", "now_ns") if name in names}
    levels: dict[str, Any] = {name: _levels(name, get(name)) for name in ("bids", "asks") if name in names}
    has_book = bool(levels) or "bid" in floats or "ask" in floats
    has_trades = {"price", "size"} <= floats.keys()
    if not has_book and not has_trades:
        raise _bad(
            "a table of events needs `bid` and `ask`, `bids` and `asks`, `mid`, `close`, or `price` and `size`", "bid"
        )
    if "kind" in ints and not has_trades and bool((ints["kind"] == 1).any()):
        raise _bad("a table with trades (`kind` 1) needs `price` and `size`", "price")
    times = _times(names, get)
    arrays: dict[str, Any] = {**floats, **ints, **levels, **{k: v for k, v in times.items() if k != "ns_per_ts"}}
    rows = _common_length(arrays)
    if not has_book and "kind" not in ints:
        ints["kind"] = np.ones(rows, np.int64)
    return EventColumns(rows, **{**arrays, **ints, **times})


def read_keys(table: Any, name: str) -> tuple[IntArray, list[Any]]:
    """Return the column `name` as numbers from 0 on, and the values they stand for, in the order of their appearance.

    Raises
    ------
    EventError
        `bad_columns`: the column is missing, is neither text nor whole numbers, or has a row without a value.

    Examples
    --------
    >>> codes, keys = read_keys({"symbol": np.array(["B", "A", "B"])}, "symbol")
    >>> codes.tolist(), keys
    ([0, 1, 0], ['B', 'A'])
    """
    names, get = _accessor(table)
    if name not in names:
        raise _bad(f"the table has no column `{name}`, which is to name the symbol of each row", name)
    column = get(name)
    array = _array(column)
    if array.ndim != 1:
        raise _bad(f"column `{name}` must have one dimension, had {array.ndim}", name)
    if array.dtype.kind in "iuUS":
        values, first, codes = np.unique(array, return_index=True, return_inverse=True)
        by_appearance = np.argsort(first)
        place = np.empty(len(values), np.int64)
        place[by_appearance] = np.arange(len(values))
        return place[codes], values[by_appearance].tolist()
    if array.dtype.kind not in "OT":
        raise _bad(f"column `{name}` must hold text or whole numbers, was of type {array.dtype}", name)
    numbers: dict[Any, int] = {}
    listed = [numbers.setdefault(value, len(numbers)) for value in array.tolist()]
    for value in numbers:
        if not isinstance(value, str | int):
            raise _bad(
                f"column `{name}` must name a symbol in every row, row {listed.index(numbers[value])} has {value!r}",
                name,
            )
    return np.array(listed, np.int64), list(numbers)


def _refuse_misspelt(names: set[str]) -> None:
    """Refuse a column that is a known one but for capitals, blanks or underscores: without it the book is another."""
    meant = {name.replace("_", ""): name for name in _KNOWN}
    for name in sorted(names - _KNOWN, key=str):
        known = meant.get(str(name).lower().replace("_", "").replace(" ", ""))
        if known is not None and known not in names:
            raise _bad(f"column `{name}` is not read: the name is `{known}`", known)


def _bad(message: str, field: str) -> EventError:
    return EventError(message, reason="bad_columns", field=field)


def _accessor(table: Any) -> tuple[set[str], Callable[[str], Any]]:
    if isinstance(table, Mapping):
        return set(table), table.__getitem__
    if isinstance(table, np.ndarray):
        if table.dtype.names is None:
            raise _bad(f"an array of events must have named fields, was of dtype {table.dtype}", "")
        return set(table.dtype.names), table.__getitem__
    if hasattr(table, "column_names"):  # Arrow
        return set(table.column_names), table.column
    if hasattr(table, "collect_schema") and hasattr(table, "get_column"):  # polars
        return set(table.columns), table.get_column
    if hasattr(table, "columns") and hasattr(table, "iloc"):  # pandas
        return {str(name) for name in table.columns}, table.__getitem__
    raise _bad(
        "a table must be a structured array, an Arrow table, a polars or pandas frame, or a mapping of arrays, "
        f"was {type(table).__name__}",
        "",
    )


def _array(column: Any) -> npt.NDArray[Any]:
    if isinstance(column, np.ndarray):
        return column
    if hasattr(column, "combine_chunks"):  # an Arrow column of one chunk is viewed, of several is joined
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if hasattr(column, "to_numpy"):
        # An Arrow array refuses to copy unless it is told that it may; it still views where it can.
        arrow = hasattr(column, "null_count") and hasattr(column, "buffers")
        return np.asarray(column.to_numpy(zero_copy_only=False) if arrow else column.to_numpy())
    return np.asarray(column)


def _floats(name: str, column: Any) -> FloatArray:
    array = _array(column)
    if array.dtype.kind not in "fiu":
        raise _bad(f"column `{name}` must hold numbers, was of type {array.dtype}", name)
    if array.ndim != 1:
        raise _bad(f"column `{name}` must have one dimension, had {array.ndim}", name)
    return np.ascontiguousarray(array, dtype=np.float64)


def _ints(name: str, column: Any, *, nullable: bool = True) -> IntArray:
    array = _array(column)
    if array.ndim != 1:
        raise _bad(f"column `{name}` must have one dimension, had {array.ndim}", name)
    if array.dtype.kind == "M":
        return np.ascontiguousarray(array.astype("datetime64[ns]", copy=False).view(np.int64))
    # Small vocabularies with nulls arrive as floats from some tables; a time as a float has lost digits already.
    if array.dtype.kind == "f" and nullable:
        array = np.nan_to_num(array, nan=0.0, posinf=-1.0, neginf=-1.0)
        array = np.where(array == np.trunc(array), np.clip(array, -1e18, 1e18), -1.0)
    elif array.dtype.kind == "u":
        if array.size and int(array.max()) > _INT64_MAX:
            raise _bad(f"column `{name}` must fit into 64 signed bits, was {int(array.max())}", name)
    elif array.dtype.kind != "i":
        raise _bad(f"column `{name}` must hold integers, was of type {array.dtype}", name)
    return np.ascontiguousarray(array, dtype=np.int64)


def _times(names: set[str], get: Callable[[str], Any]) -> dict[str, Any]:
    """Return `ts`, `ts_fallback` and `ns_per_ts`; nothing when the table carries no time."""
    known = [name for name in ("recv_ts_ns", "exch_ts_ns") if name in names]
    if known:
        columns = [_ints(name, get(name), nullable=False) for name in known]
        return {"ts": columns[0], "ts_fallback": columns[1] if len(columns) > 1 else None}
    if "ts_ns" in names:
        return {"ts": _ints("ts_ns", get("ts_ns"), nullable=False)}
    for name in ("ts_ms", "timestamp_ms"):
        if name in names:
            array = _array(get(name))
            if array.dtype.kind == "f":
                with np.errstate(invalid="ignore"):
                    in_range = np.abs(array) < _INT64_MAX / 1e6
                return {"ts": np.rint(np.where(in_range, array, -1.0) * 1e6).astype(np.int64)}
            ns_per_ts = 1 if array.dtype.kind == "M" else 1_000_000
            return {"ts": _ints(name, array), "ns_per_ts": ns_per_ts}
    return {}


def _levels(name: str, column: Any) -> FloatArray:
    array = _fixed_levels(column)
    if array is None:
        array = _padded(name, column.to_pylist() if hasattr(column, "to_pylist") else column)
    if array.ndim != 3 or array.shape[2] != 2:
        raise _bad(f"column `{name}` must have shape (rows, levels, 2), was {array.shape}", name)
    return np.ascontiguousarray(array, dtype=np.float64)


def _fixed_levels(column: Any) -> npt.NDArray[Any] | None:
    """Return the levels of a column whose rows all have as many; None for any other, which is read pair by pair."""
    shape: list[int] = []
    if hasattr(column, "combine_chunks"):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    while hasattr(column, "flatten") and hasattr(getattr(column, "type", None), "list_size") and not column.null_count:
        shape.append(column.type.list_size)
        column = column.flatten()
    if shape:
        return _array(column).reshape(-1, *shape)
    array = column.to_numpy() if hasattr(column, "to_numpy") and hasattr(column, "dtype") else column
    return array if isinstance(array, np.ndarray) and array.dtype.kind in "fiu" else None


def _padded(name: str, nested: Any) -> FloatArray:
    rows = [list(row) if row is not None else [] for row in nested]
    array = np.full((len(rows), max(map(len, rows), default=0), 2), np.nan)
    for i, row in enumerate(rows):
        for j, pair in enumerate(row):
            try:
                price, size = pair
                array[i, j] = price, size
            except (TypeError, ValueError):
                raise _bad(
                    f"column `{name}` must hold pairs of numbers, row {i} level {j} was {pair!r}", name
                ) from None
    return array


def _common_length(arrays: Mapping[str, Any]) -> int:
    lengths = {name: len(array) for name, array in arrays.items() if array is not None}
    rows = next(iter(lengths.values()))
    for name, length in lengths.items():
        if length != rows:
            raise _bad(f"column `{name}` must have {rows} rows like the others, had {length}", name)
    return rows
