"""Tables in memory as a source of events: pandas, polars, Arrow, NumPy, or plain columns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ami_engine.adapters.block_reader import BlockReader, bind_columns
from ami_engine.adapters.column_map import BarTimes, ColumnMap
from ami_engine.adapters.named_rows import NamedRows
from ami_engine.errors import ConfigError
from ami_engine.units import Instrument

__all__ = ["TableSource"]

_BLOCK_ROWS = 4096
_STAMPS_IN_MS = ("ts_ms", "timestamp_ms")

Block = Callable[[str, int, int], list[Any]]


class _Frame(NamedTuple):
    """What is asked of a table of any library: names, length, the columns of stamps, and a part of a column."""

    names: list[str]
    rows: int
    stamps: frozenset[str]
    block: Block


class TableSource(BlockReader):
    """Read the rows of a table, one event a row.

    With a `ColumnMap` the table may have any columns. Without one its columns must have the names of the dict event
    (``ts_ns``, ``bid``, ``bids`` …; a ``type`` of our own structs, or the ``kind`` of `FeatureBuilder.run`). Columns of
    stamps (datetime64, Datetime, timestamp) bring their own unit, and are UTC where they have no zone. A null is a
    missing cell; so is NaN in pandas and NumPy, which have no other.

    Parameters
    ----------
    table : pandas.DataFrame, polars.DataFrame, pyarrow.Table, structured numpy.ndarray, or mapping of columns
        Rows in the order in which they were received. It is not copied, and must not be changed while it is read.
    columns : ColumnMap, optional
        What the columns are.
    bars : BarTimes, optional
        What the stamps of bars are, where there is no map to say it.
    symbol : str, optional
        Only this symbol is read, where a column names it; else the name of the market.
    instruments : Mapping, optional
        What is declared of the instruments.
    name : str
        What stands in errors.

    Raises
    ------
    ConfigError
        When the table is of no kind that can be read, or lacks a column.

    Examples
    --------
    >>> source = TableSource({"ts_ms": [5, 6], "bid": [99.0, 98.0], "ask": [101.0, 101.5]}, symbol="X")
    >>> source.next_event().bid, source.next_event().ask, source.next_event()
    (99.0, 101.5, None)
    """

    snapshots_only = True

    def __init__(
        self,
        table: Any,
        *,
        columns: ColumnMap | None = None,
        bars: BarTimes | None = None,
        symbol: str | None = None,
        instruments: Mapping[str, Instrument] | None = None,
        name: str = "table",
    ) -> None:
        self._frame = frame = _frame(table)
        super().__init__(symbol=symbol, instruments=instruments, name=name, identity=_identity(frame))
        if columns is None:
            self._names = frame.names
            # A column of stamps is read as ns, whatever its name says.
            said = ["ts_ns" if name in _STAMPS_IN_MS and name in frame.stamps else name for name in frame.names]
            self._rows = NamedRows(said, symbol=self.symbol, bars=bars)
        else:
            self._names, self._rows = bind_columns(
                columns, frame.names, lambda place: frame.names[place] in frame.stamps, self.symbol
            )
        self.snapshots_only = "type" not in frame.names
        self._next_block = 0

    def close(self) -> None:
        """Let go of the table."""
        self._next_block = self._frame.rows
        self._row = iter(())

    def _read_block(self) -> bool:
        start, stop = self._next_block, min(self._next_block + _BLOCK_ROWS, self._frame.rows)
        if start >= stop:
            return False
        self._next_block = stop
        self._row = zip(*(self._frame.block(name, start, stop) for name in self._names), strict=True)
        return True


def _frame(table: Any) -> _Frame:
    """Find out what `table` is by its library's name: none is imported that its owner has not imported."""
    library = type(table).__module__.partition(".")[0]
    if isinstance(table, np.ndarray):
        return _numpy_frame(table)
    if isinstance(table, Mapping):
        return _mapping_frame(table)
    if library == "pandas" and hasattr(table, "columns"):
        return _pandas_frame(table)
    if library == "polars" and hasattr(table, "height"):
        return _polars_frame(table)
    if library == "pyarrow" and hasattr(table, "schema"):
        return _arrow_frame(table)
    hint = ": collect it first" if type(table).__name__ == "LazyFrame" else ""
    raise ConfigError(
        "`table` must be a pandas or polars DataFrame, an Arrow table, a structured NumPy array or a mapping of "
        f"columns, was {type(table).__name__}{hint}"
    )


def _numpy_frame(table: npt.NDArray[Any]) -> _Frame:
    if table.dtype.names is None or table.ndim != 1:
        raise ConfigError(f"`table` must be a structured array of one dimension, was of dtype {table.dtype}")
    columns = {name: table[name] for name in table.dtype.names}
    return _array_frame(columns, len(table))


def _mapping_frame(table: Mapping[str, Any]) -> _Frame:
    columns = {str(name): _as_column(values) for name, values in table.items()}
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ConfigError(f"the columns must be of one length, were {lengths}")
    return _array_frame(columns, next(iter(lengths.values()), 0))


def _as_column(values: Any) -> Any:
    """Keep arrays and lists; a list of levels may be ragged, which no array can be."""
    return values if isinstance(values, (np.ndarray, list, tuple)) else list(values)


def _array_frame(columns: Mapping[str, Any], rows: int) -> _Frame:
    def block(name: str, start: int, stop: int) -> list[Any]:
        part = columns[name][start:stop]
        return _from_array(part) if isinstance(part, np.ndarray) else list(part)

    stamps = {name for name, values in columns.items() if isinstance(values, np.ndarray) and values.dtype.kind == "M"}
    return _Frame(list(columns), rows, frozenset(stamps), block)


def _pandas_frame(table: Any) -> _Frame:
    names = [str(name) for name in table.columns]
    at = {name: place for place, name in enumerate(names)}
    kinds = {name: getattr(table.dtypes.iloc[place], "kind", "O") for name, place in at.items()}

    def block(name: str, start: int, stop: int) -> list[Any]:
        part = table.iloc[start:stop, at[name]]
        if kinds[name] == "M":
            zone = getattr(part.dt, "tz", None)
            part = part.dt.tz_convert("UTC").dt.tz_localize(None) if zone is not None else part
            return _from_array(part.to_numpy())
        missing = part.isna().to_numpy()
        cells = part.tolist()
        return [None if is_missing else cell for cell, is_missing in zip(cells, missing, strict=True)]

    return _Frame(names, len(table), frozenset(name for name in names if kinds[name] == "M"), block)


def _polars_frame(table: Any) -> _Frame:
    names = list(table.columns)
    stamps = frozenset(name for name in names if str(table.schema[name]).startswith("Datetime"))

    def block(name: str, start: int, stop: int) -> list[Any]:
        part = table.get_column(name).slice(start, stop - start)
        return (part.dt.epoch("ns") if name in stamps else part).to_list()  # type: ignore[no-any-return]

    return _Frame(names, table.height, stamps, block)


def _arrow_frame(table: Any) -> _Frame:
    import pyarrow

    names = list(table.schema.names)
    stamps = frozenset(name for name in names if pyarrow.types.is_timestamp(table.schema.field(name).type))

    def block(name: str, start: int, stop: int) -> list[Any]:
        part = table.column(names.index(name)).slice(start, stop - start)
        if name in stamps:
            part = part.cast(pyarrow.timestamp("ns", tz=part.type.tz)).cast(pyarrow.int64())
        return part.to_pylist()  # type: ignore[no-any-return]

    return _Frame(names, table.num_rows, stamps, block)


def _from_array(part: npt.NDArray[Any]) -> list[Any]:
    """Return cells of an array: stamps as ns, levels without their padding, NaN and NaT as missing."""
    if part.dtype.kind == "M":
        numbers = part.astype("datetime64[ns]").astype(np.int64).tolist()
        return [None if absent else number for number, absent in zip(numbers, np.isnat(part), strict=True)]
    if part.ndim == 3:
        return [row[~np.isnan(row[:, 0])] for row in part.astype(np.float64)]
    if part.dtype.kind == "S":
        return [cell.decode() for cell in part.tolist()]
    cells: list[Any] = part.tolist()
    if part.dtype.kind == "f" and part.ndim == 1:
        return [None if cell != cell else cell for cell in cells]
    return cells


def _identity(frame: _Frame) -> str:
    """Name the content for a run id: its size, its columns and a hash of its first and its last rows."""
    digest = hashlib.sha256(repr(frame.names).encode())
    for start in sorted({0, max(0, frame.rows - _BLOCK_ROWS)}):
        for name in frame.names:
            digest.update(_text(frame.block(name, start, min(start + _BLOCK_ROWS, frame.rows))))
    return f"table:{frame.rows}:{digest.hexdigest()}"


def _text(cells: Sequence[Any]) -> bytes:
    return repr([cell.tolist() if isinstance(cell, np.ndarray) else cell for cell in cells]).encode()
