"""One door to every recorded format: `open_source` chooses the reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date as Date
from pathlib import Path
from typing import TypeAlias

import msgspec

from ami_engine.adapters.base import MarketDataSource
from ami_engine.adapters.binance import BinanceReader
from ami_engine.adapters.byte_stream import open_for_reading
from ami_engine.adapters.column_map import BarTimes, ColumnMap, bar_length_ms
from ami_engine.adapters.csv_reader import CsvReader
from ami_engine.adapters.databento_dbn import DbnReader
from ami_engine.adapters.feed_reader import declared_instruments
from ami_engine.adapters.instruments import instrument_from_toml
from ami_engine.adapters.jsonl_reader import JsonlReader
from ami_engine.adapters.klines import KlineReader
from ami_engine.adapters.lobster import LobsterReader
from ami_engine.adapters.numpy_files import open_numpy
from ami_engine.adapters.parquet_reader import ParquetReader
from ami_engine.adapters.tardis import TardisReader
from ami_engine.errors import ConfigError
from ami_engine.units import Instrument

__all__ = ["FORMATS", "guess_format", "open_source"]

FORMATS = ("jsonl", "csv", "parquet", "lobster", "binance", "tardis", "klines", "dbn", "numpy")

# Formats whose columns may be anything.
_MAPPED = ("csv", "parquet", "numpy")
_ENDINGS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".npy": "numpy",
    ".npz": "numpy",
    ".dbn": "dbn",
    ".dbn.zst": "dbn",
    ".jsonl.gz": "jsonl",
    ".ndjson.gz": "jsonl",
    ".csv.gz": "csv",
}

PathOrPair: TypeAlias = str | Path | tuple[str | Path, str | Path]


def guess_format(path: str | Path) -> str:
    """Return the format that a file's name says without doubt.

    >>> guess_format("quotes.csv.gz")
    'csv'

    Raises
    ------
    ConfigError
        When the name leaves it open.
    """
    name = Path(path).name.lower()
    for ending, format in _ENDINGS.items():
        if name.endswith(ending):
            return format
    raise ConfigError(f"{path}: the name does not say the format: pass `format`, one of {', '.join(FORMATS)}")


def open_source(
    path_or_pair: PathOrPair,
    *,
    format: str | None = None,
    symbol: str | None = None,
    tick_size: float | None = None,
    instrument: Instrument | Mapping[str, Instrument] | str | Path | None = None,
    date: str | Date | None = None,
    columns: ColumnMap | str | Path | None = None,
    levels: int = 10,
    bar_time: str | None = None,
    interval_ms: float | None = None,
    utc_offset: str | None = None,
) -> MarketDataSource:
    """Open a recorded file as a source of events.

    Parameters
    ----------
    path_or_pair : path, or pair of paths
        The file; for LOBSTER the pair (book, messages), or one string with a comma between them.
    format : str, optional
        One of `FORMATS`; needed where the file's name does not say it.
    symbol : str, optional
        Where the feed names its symbols, read only this one; where it names none, the name of what it holds.
    tick_size : float, optional
        Price step of `symbol`, or of every symbol where none is given.
    instrument : Instrument, mapping of them by symbol, or path of a TOML file, optional
        What is traded. A single one also gives `symbol` its default, where the feed names none.
    date : str or datetime.date, optional
        Day of a LOBSTER recording.
    columns : ColumnMap or path of a TOML file, optional
        What the columns of a CSV or Parquet file are.
    levels : int
        Levels of the snapshots made of DBN market-by-order records.
    bar_time : {"close", "open"}, optional
        Which end of a bar its stamp is; must be said for the bars of CSV and Parquet files, here or in the map.
    interval_ms : float, optional
        Length of a bar, needed where `bar_time` is "open".
    utc_offset : str, optional
        Zone of bars whose stamps carry none, such as ``+01:00``.

    Raises
    ------
    ConfigError
        When the file, or what must be said of it, is missing or wrong.
    BackendError
        When the format needs an extra that is not installed.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "quotes.jsonl")
    ...     _ = path.write_text('{"bid": 0.49, "ask": 0.51, "ts_ms": 7}\\n')
    ...     source = open_source(path, symbol="X", tick_size=0.01)
    ...     source.next_event().symbol, source.instruments()["X"].tick_size
    ...     source.close()
    ('X', 0.01)
    """
    paths = _split_pair(path_or_pair)
    if format is None:
        if len(paths) == 1 and not Path(paths[0]).exists():
            open_for_reading(paths[0])  # says so: the format of what is not there is no question
        format = "lobster" if len(paths) == 2 else guess_format(paths[0])
    if format not in FORMATS:
        raise ConfigError(f"`format` must be one of {', '.join(FORMATS)}, was {format!r}")
    if (format == "lobster") != (len(paths) == 2):
        raise ConfigError(f"format {format!r} takes {'BOOK,MESSAGES' if format == 'lobster' else 'one file'}")
    if isinstance(instrument, (str, Path)):
        instrument = instrument_from_toml(instrument)
    instruments = declared_instruments(symbol, tick_size, instrument)
    if columns is not None and format not in _MAPPED:
        raise ConfigError(
            f"`columns` says what the columns of csv and parquet files are (and of numpy); {format!r} has its own"
        )
    if bar_time is not None and interval_ms is None and columns is not None:
        interval_ms = bar_length_ms(columns)
    bars = _bar_times(format, bar_time, interval_ms, utc_offset)
    if isinstance(columns, (str, Path)):
        columns = ColumnMap.from_toml(columns, bars=bars)
    if bars is not None and columns is not None:
        columns = _with_bars(columns, bars)
    is_unnamed = columns is not None and not columns.symbol and "symbol" not in columns.columns
    if (is_unnamed or format in ("lobster", "klines")) and symbol is None and len(instruments) == 1:
        # What is in the file can only be the one instrument that was declared.
        symbol = next(iter(instruments)) or None
    readers: dict[str, Callable[[], MarketDataSource]] = {
        "jsonl": lambda: JsonlReader(paths[0], symbol=symbol, instruments=instruments),
        "csv": lambda: CsvReader(paths[0], columns=columns, bars=bars, symbol=symbol, instruments=instruments),
        "parquet": lambda: ParquetReader(paths[0], columns=columns, bars=bars, symbol=symbol, instruments=instruments),
        "lobster": lambda: LobsterReader(paths[0], paths[1], date=date, symbol=symbol, instruments=instruments),
        "binance": lambda: BinanceReader(paths[0], symbol=symbol, instruments=instruments),
        "tardis": lambda: TardisReader(paths[0], symbol=symbol, instruments=instruments),
        "klines": lambda: KlineReader(paths[0], symbol=symbol, instruments=instruments),
        "numpy": lambda: open_numpy(paths[0], columns=columns, bars=bars, symbol=symbol, instruments=instruments),
        "dbn": lambda: DbnReader(paths[0], symbol=symbol, instruments=instruments, levels=levels),
    }
    return readers[format]()


def _bar_times(format: str, bar_time: str | None, interval_ms: float | None, utc_offset: str | None) -> BarTimes | None:
    """Return what was declared of the stamps of bars."""
    if bar_time is None:
        if interval_ms is not None or utc_offset is not None:
            raise ConfigError("`interval_ms` and `utc_offset` describe bars: declare `bar_time` as well")
        return None
    if format not in _MAPPED:
        raise ConfigError(f"`bar_time` is for {', '.join(_MAPPED)}; bars of {format!r} are stamped as it says")
    return BarTimes(bar_time, interval_ms or 0.0, utc_offset or "")


def _with_bars(columns: ColumnMap, bars: BarTimes) -> ColumnMap:
    """Return the map with what was declared beside it in place of its own."""
    if columns.kind != "bar":
        raise ConfigError(f'`bar_time` is of bars; the column map is of kind "{columns.kind}"')
    changes = {"bar_time": bars.bar_time, "utc_offset": bars.utc_offset or columns.utc_offset}
    length_ms = bars.interval_ms or columns.length_ms
    return msgspec.structs.replace(columns, **changes, interval_ms=length_ms, bar_seconds=0.0)


def _split_pair(path_or_pair: PathOrPair) -> tuple[str | Path, ...]:
    if isinstance(path_or_pair, Path):
        return (path_or_pair,)
    if isinstance(path_or_pair, str):
        if path_or_pair.count(",") == 1 and not Path(path_or_pair).exists():
            return tuple(path_or_pair.split(","))
        return (path_or_pair,)
    paths = tuple(path_or_pair)
    if len(paths) not in (1, 2):
        raise ConfigError(f"a source is one file or the pair BOOK,MESSAGES, was {len(paths)} paths")
    return paths
