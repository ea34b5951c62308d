""".npy and .npz files: our own events, event arrays of hftbacktest, and tables of any columns."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ami_engine.adapters.byte_stream import file_identity, open_for_reading
from ami_engine.adapters.column_map import BarTimes, ColumnMap
from ami_engine.adapters.feed_reader import FeedReader
from ami_engine.adapters.hft_events import HFT_FIELDS, HftEventReader
from ami_engine.adapters.npy_stream import NpyStream, first_line, members
from ami_engine.adapters.npz_events import ABOUT, NpzEventReader
from ami_engine.adapters.table import TableSource
from ami_engine.errors import ConfigError
from ami_engine.units import Instrument

__all__ = ["open_numpy"]


def open_numpy(
    path: str | Path,
    *,
    columns: ColumnMap | None = None,
    bars: BarTimes | None = None,
    symbol: str | None = None,
    instruments: Mapping[str, Instrument] | None = None,
) -> FeedReader:
    """Open a .npy or .npz file as what it holds.

    An .npz that `ami convert` wrote, and an event array of hftbacktest (alone, or as the array ``data``), are read in
    parts; a structured array of other fields, and an .npz of one array a column, are read whole, as `TableSource` reads
    them. Arrays of Python objects are refused.

    Raises
    ------
    ConfigError
        When the file cannot be read, or holds no events.
    """
    path = open_for_reading(path)
    with path.open("rb") as beginning:
        is_archive = beginning.read(2) == b"PK"
    try:
        if is_archive:
            return _open_archive(path, columns, bars, symbol, instruments)
        file = path.open("rb")
        try:
            stream = NpyStream(file, path.name)
        except ConfigError:
            file.close()
            raise
        return _open_array(path, stream, columns, bars, symbol, instruments)
    except zipfile.BadZipFile as error:
        raise ConfigError(f"{path}: is not a whole .npz file: {first_line(error)}") from None
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if text.startswith(str(path)) else f"{path}: {text}") from None


def _open_archive(
    path: Path,
    columns: ColumnMap | None,
    bars: BarTimes | None,
    symbol: str | None,
    instruments: Mapping[str, Instrument] | None,
) -> FeedReader:
    with zipfile.ZipFile(path) as archive:
        names = members(archive)
    if ABOUT in names:
        if columns is not None:
            raise ConfigError("`columns` was given, and the file says itself what it holds")
        return NpzEventReader(path, symbol=symbol, instruments=instruments)
    if len(names) == 1 or "data" in names:
        archive = zipfile.ZipFile(path)
        try:
            stream = NpyStream.of_member(archive, "data" if "data" in names else names[0], closes=True)
        except ConfigError:
            archive.close()
            raise
        return _open_array(path, stream, columns, bars, symbol, instruments)
    with zipfile.ZipFile(path) as archive:
        table = {name: NpyStream.of_member(archive, name).read_all() for name in names}
    return _table(path, table, columns, bars, symbol, instruments)


def _open_array(
    path: Path,
    stream: NpyStream,
    columns: ColumnMap | None,
    bars: BarTimes | None,
    symbol: str | None,
    instruments: Mapping[str, Instrument] | None,
) -> FeedReader:
    try:
        if columns is None and set(stream.dtype.names or ()) >= HFT_FIELDS:
            return HftEventReader(path, stream, symbol=symbol, instruments=instruments)
        table = stream.read_all()
    except ConfigError:
        stream.close()
        raise
    stream.close()
    return _table(path, table, columns, bars, symbol, instruments)


def _table(
    path: Path,
    table: Any,
    columns: ColumnMap | None,
    bars: BarTimes | None,
    symbol: str | None,
    instruments: Mapping[str, Instrument] | None,
) -> FeedReader:
    source = TableSource(table, columns=columns, bars=bars, symbol=symbol, instruments=instruments, name=path.name)
    source.identity = file_identity(path)
    return source
