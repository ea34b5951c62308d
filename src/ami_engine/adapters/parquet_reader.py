"""Parquet files, with a column map, or with the contract's own names as column names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ami_engine.adapters.block_reader import BlockReader, bind_columns
from ami_engine.adapters.byte_stream import open_for_reading
from ami_engine.adapters.column_map import BarTimes, ColumnMap
from ami_engine.adapters.event_file import PARQUET_KEY, decode_event_file
from ami_engine.adapters.named_rows import NamedRows
from ami_engine.adapters.row_reader import RowReader
from ami_engine.errors import BackendError, ConfigError, EventError
from ami_engine.units import Instrument

__all__ = ["ParquetReader"]

_BATCH_ROWS = 4096


class ParquetReader(BlockReader):
    """Read a Parquet file batch by batch, one event a row.

    With a `ColumnMap` the file may have any columns. Without one, its columns must have the names of the dict event
    (``ts_ns``, ``bid``, ``bids`` …), and a null is an absent key. A timestamp column brings its own unit; one without a
    time zone is UTC. A file that we wrote says in its metadata what it is.

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
        When the file cannot be read, is no Parquet, or lacks a column.
    BackendError
        When `pyarrow` is not installed.
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
        arrow, parquet = _import_arrow()
        path = open_for_reading(path)
        super().__init__(path, symbol=symbol, instruments=instruments)
        try:
            self._file = parquet.ParquetFile(path)
        except (arrow.ArrowException, OSError) as error:
            raise ConfigError(f"{path}: is not a whole Parquet file: {_first_line(error)}") from None
        self._arrow = arrow
        try:
            metadata = self._file.schema_arrow.metadata or {}
            if PARQUET_KEY in metadata:
                self._take(decode_event_file(metadata[PARQUET_KEY]))
            self._names, self._rows = self._bind(columns, bars)
        except ConfigError as error:
            self.close()
            raise ConfigError(f"{path}: {error}") from None
        self._batches = self._file.iter_batches(batch_size=_BATCH_ROWS, columns=self._names)
        self._is_done = False

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._is_done = True
        self._row = iter(())

    def _bind(self, columns: ColumnMap | None, bars: BarTimes | None) -> tuple[list[str], RowReader | NamedRows]:
        """Return the columns to read and what reads their rows."""
        schema = self._file.schema_arrow
        if columns is None:
            return list(schema.names), NamedRows(schema.names, symbol=self.symbol, bars=bars)
        types = schema.types
        return bind_columns(
            columns, schema.names, lambda place: self._arrow.types.is_timestamp(types[place]), self.symbol
        )

    def _read_block(self) -> bool:
        if self._is_done:
            return False
        try:
            batch = next(self._batches, None)
        except (self._arrow.ArrowException, OSError) as error:
            self._is_done = True
            raise EventError(
                f"cannot be decoded from here on: {_first_line(error)}",
                reason="malformed",
                source=self.source_name,
                position=self._position + 1,
            ) from None
        if batch is None:
            self._is_done = True
            return False
        self._row = zip(*(self._values(column) for column in batch.columns), strict=True)
        return True

    def _values(self, column: Any) -> list[Any]:
        """Return a column as Python values; timestamps as whole ns, which a datetime could not hold."""
        if self._arrow.types.is_timestamp(column.type):
            column = column.cast(self._arrow.timestamp("ns", tz=column.type.tz)).cast(self._arrow.int64())
        return column.to_pylist()  # type: ignore[no-any-return]


def _import_arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise BackendError("reading Parquet files needs pyarrow: pip install 'mdm-engine[data]'") from None
    return pyarrow, pyarrow.parquet


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
