"""Events into files of our own: JSON lines, CSV, Parquet or npz, a bounded block of events at a time."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from ami_engine.adapters.base import DataSource
from ami_engine.adapters.dict_event import event_from_dict
from ami_engine.adapters.event_file import CSV_PREFIX, PARQUET_KEY, EventFile, encode_event_file
from ami_engine.adapters.npz_events import NpzWriter
from ami_engine.errors import BackendError, ConfigError, EventError
from ami_engine.events import MarketEvent

__all__ = ["ConvertedEvents", "EventWriter", "convert_events", "open_writer"]

_BLOCK_EVENTS = 8_192
_PROGRESS_EVERY = 1_000
_PLACES_KEPT = 3
_WHOLE = ("exch_ts_ns", "recv_ts_ns", "seq", "first_seq", "prev_seq", "expected_seq", "aggressor")
_NUMBERS = (
    *("bid", "ask", "bid_depth", "ask_depth", "bid_size", "ask_size", "price", "size"),
    *("open", "high", "low", "close", "volume"),
)
_LEVELS = ("bids", "asks")
# The columns are the fields of all events together, and the tag that says which of them a row has.
_COLUMNS = ("type", "symbol", *_WHOLE, *_NUMBERS, *_LEVELS, "reason", "fields")


class EventWriter(Protocol):
    """Takes events, in order, and `close`s the file."""

    def write(self, event: MarketEvent) -> bool:
        """Add one event; False when the format cannot hold it, and it was dropped."""

    def close(self) -> None:
        """Write what is left, and close the file."""


class ConvertedEvents(msgspec.Struct, frozen=True):
    """What a conversion did.

    `unreadable` are records that the source could not read, by reason, and `places` the first of them; `dropped` are
    events that the format cannot hold, by kind.
    """

    events: int
    kinds: dict[str, int]
    unreadable: dict[str, int]
    places: list[str]
    dropped: dict[str, int]
    out: str


class _JsonlWriter:
    """One tagged event a line, after a line that describes the file."""

    def __init__(self, path: Path, about: EventFile) -> None:
        self._file = path.open("wb")
        self._encoder = msgspec.json.Encoder(enc_hook=_plain)
        self._file.write(encode_event_file(about) + b"\n")

    def write(self, event: MarketEvent) -> bool:
        self._file.write(self._encoder.encode(event) + b"\n")
        return True

    def close(self) -> None:
        self._file.close()


class _CsvWriter:
    """One event a line; the levels of a book, and the fields of other domains, are JSON in a cell."""

    def __init__(self, path: Path, about: EventFile) -> None:
        self._file = path.open("w", newline="", encoding="utf-8")
        self._file.write((CSV_PREFIX + encode_event_file(about)).decode() + "\n")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow(_COLUMNS)

    def write(self, event: MarketEvent) -> bool:
        row = _row(event)
        for name in (*_LEVELS, "fields"):
            if name in row:
                row[name] = msgspec.json.encode(row[name]).decode()
        # A float is written as the shortest text that reads back as the same bits.
        self._writer.writerow([row.get(name, "") for name in _COLUMNS])
        return True

    def close(self) -> None:
        self._file.close()


class _ParquetWriter:
    """One event a row; what an event does not have is null."""

    def __init__(self, path: Path, about: EventFile) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise BackendError("writing Parquet files needs pyarrow: pip install 'mdm-engine[data]'") from None
        level = pyarrow.list_(pyarrow.list_(pyarrow.float64()))
        types = {name: pyarrow.int64() for name in _WHOLE} | {name: pyarrow.float64() for name in _NUMBERS}
        types |= dict.fromkeys(_LEVELS, level)
        schema = pyarrow.schema([(name, types.get(name, pyarrow.string())) for name in _COLUMNS])
        self._arrow = pyarrow
        self._schema = schema.with_metadata({PARQUET_KEY: encode_event_file(about)})
        self._writer = pyarrow.parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def write(self, event: MarketEvent) -> bool:
        row = _row(event)
        if "fields" in row:
            row["fields"] = msgspec.json.encode(row["fields"]).decode()
        self._rows.append(row)
        if len(self._rows) == _BLOCK_EVENTS:
            self._flush()
        return True

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._arrow.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []


_WRITERS: Mapping[str, Callable[[Path, EventFile], EventWriter]] = {
    ".jsonl": _JsonlWriter,
    ".csv": _CsvWriter,
    ".parquet": _ParquetWriter,
    ".npz": NpzWriter,
}


def open_writer(path: Path, about: EventFile, *, ending: str | None = None) -> EventWriter:
    """Open a file for events; its ending says the format: .jsonl, .csv, .parquet or .npz.

    What is written reads back as the same events, with the same description, and needs no column map. All but npz hold
    every kind of event; npz has no place for a `GenericEvent`.

    Raises
    ------
    ConfigError
        When the ending is of no format that is written.
    BackendError
        When Parquet is wanted and pyarrow is absent.
    OSError
        When the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from ami_engine.events import Trade
    >>> from ami_engine.adapters.csv_reader import CsvReader
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "trades.csv")
    ...     writer = open_writer(path, EventFile())
    ...     _ = writer.write(Trade(4, 5, "X", 1, 99.5, 2.0, 1))
    ...     writer.close()
    ...     source = CsvReader(path)
    ...     source.next_event()
    ...     source.close()
    Trade(exch_ts_ns=4, recv_ts_ns=5, symbol='X', seq=1, price=99.5, size=2.0, aggressor=1)
    """
    ending = path.suffix if ending is None else ending
    if ending not in _WRITERS:
        raise ConfigError(f"`out` must end in {', '.join(_WRITERS)}, was {str(path)!r}")
    return _WRITERS[ending](path, about)


def convert_events(
    source: DataSource, out: Path, *, overwrite: bool = False, progress: Callable[[int], None] | None = None
) -> ConvertedEvents:
    """Write every event of `source` to `out`, in bounded memory; the file appears when it is whole.

    Raises
    ------
    ConfigError
        When `out` exists and is not to be overwritten, or its ending is of no format that is written.
    """
    if out.exists() and not overwrite:
        raise ConfigError(f"{out}: exists already; pass `--overwrite` to replace it")
    if out.suffix not in _WRITERS:
        raise ConfigError(f"`out` must end in {', '.join(_WRITERS)}, was {str(out)!r}")
    part = out.with_name(out.name + ".part")
    kinds: dict[str, int] = {}
    unreadable: dict[str, int] = {}
    dropped: dict[str, int] = {}
    places: list[str] = []
    count = 0
    try:
        writer = open_writer(part, EventFile.of(source), ending=out.suffix)
        try:
            while True:
                try:
                    event = source.next_event()
                except EventError as error:
                    unreadable[error.reason] = unreadable.get(error.reason, 0) + 1
                    if len(places) < _PLACES_KEPT:
                        places.append(str(error.at(*source.place())))
                    continue
                if event is None:
                    break
                if isinstance(event, Mapping):
                    event = event_from_dict(event, fallback_ts_ns=0)
                kind = str(type(event).__struct_config__.tag)
                told = kinds if writer.write(event) else dropped
                told[kind] = told.get(kind, 0) + 1
                count += told is kinds
                if progress is not None and count % _PROGRESS_EVERY == 0:
                    progress(count)
        finally:
            writer.close()
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)
    return ConvertedEvents(count, kinds, unreadable, places, dropped, str(out))


def _row(event: MarketEvent) -> dict[str, Any]:
    """Return what an event has, by column; empty levels are left out."""
    row: dict[str, Any] = {"type": type(event).__struct_config__.tag}
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if name in _LEVELS:
            if len(value):
                row[name] = value.tolist() if isinstance(value, np.ndarray) else [list(level) for level in value]
        else:
            row[name] = value
    return row


def _plain(value: Any) -> Any:
    """Return what JSON has no name for: arrays of levels, and numbers of NumPy."""
    return value.tolist()
