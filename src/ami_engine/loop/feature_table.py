"""Feature rows of a whole source into a Parquet or CSV file, a bounded block of rows at a time."""

from __future__ import annotations

import csv
import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from ami_engine import clock
from ami_engine.adapters.base import DataSource
from ami_engine.errors import BackendError, ConfigError, EventError
from ami_engine.events import GenericEvent
from ami_engine.features.feature_config import FeatureConfig
from ami_engine.loop.feed import FeedEnd, RecordedFeed, RetryPolicy, SourceReader, Timers
from ami_engine.loop.market import Market
from ami_engine.loop.summary import RunCounters
from ami_engine.units import Instrument

__all__ = ["KEY_COLUMNS", "write_feature_table"]

KEY_COLUMNS = ("recv_ts_ns", "exch_ts_ns", "symbol", "kind")
_BLOCK = 65_536
_PROGRESS_EVERY = 1_000


class _Sink(Protocol):
    def write(self, keys: list[tuple[Any, ...]], rows: np.ndarray[Any, Any]) -> None: ...
    def __enter__(self) -> _Sink: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class _CsvSink:
    def __init__(self, path: Path, names: tuple[str, ...]) -> None:
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self._writer.writerow((*KEY_COLUMNS, *names))

    def __enter__(self) -> _CsvSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, keys: list[tuple[Any, ...]], rows: np.ndarray[Any, Any]) -> None:
        # repr of a float is the shortest text that reads back as the same bits.
        self._writer.writerows((*key, *map(repr, row)) for key, row in zip(keys, rows.tolist(), strict=True))


class _ParquetSink:
    def __init__(self, path: Path, names: tuple[str, ...]) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise BackendError(
                "writing Parquet needs pyarrow: pip install 'mdm-engine[data]', or name a .csv file"
            ) from error
        self._pa = pa
        self._schema = pa.schema(
            [
                ("recv_ts_ns", pa.int64()),
                ("exch_ts_ns", pa.int64()),
                ("symbol", pa.string()),
                ("kind", pa.string()),
                *((name, pa.float64()) for name in names),
            ]
        )
        self._writer = pq.ParquetWriter(path, self._schema)

    def __enter__(self) -> _ParquetSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.close()

    def write(self, keys: list[tuple[Any, ...]], rows: np.ndarray[Any, Any]) -> None:
        columns = [list(column) for column in zip(*keys, strict=True)] if keys else [[] for _ in KEY_COLUMNS]
        arrays = [self._pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=False)]
        arrays += [self._pa.array(np.ascontiguousarray(rows[:, i])) for i in range(rows.shape[1])]
        self._writer.write_table(self._pa.Table.from_arrays(arrays, schema=self._schema))


def write_feature_table(
    source: DataSource,
    out: Path,
    *,
    steps: int | None = None,
    levels: int = 10,
    signals: bool = True,
    on_bad_event: str = "skip",
    overwrite: bool = False,
    backend: str = "auto",
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Write one feature row per accepted event of `source` to `out`, and return what was written.

    The file appears when it is whole.

    Raises
    ------
    ConfigError
        When `out` is neither .parquet nor .csv, or exists and is not to be overwritten, or `on_bad_event` is neither
        "skip" nor "stop".
    BackendError
        When Parquet is wanted and pyarrow is absent.
    """
    if out.suffix not in (".parquet", ".csv"):
        raise ConfigError(f"`out` must end in .parquet or .csv, was {str(out)!r}")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out}: exists already; pass `--overwrite` to replace it")
    if on_bad_event not in ("skip", "stop"):
        raise ConfigError(f"`on_bad_event` must be 'skip' or 'stop', was {on_bad_event!r}")
    config = FeatureConfig(levels=levels, signals=signals)
    instruments = dict(source.instruments())
    tick_size = next(iter(instruments.values())).tick_size if instruments else 0.01
    market = Market(
        instruments,
        default_instrument=instruments.pop("", Instrument("", tick_size=tick_size)),
        config=config,
        backend=backend,
        unique_seq=source.unique_seq,
        snapshots_only=source.snapshots_only,
    )
    feed = RecordedFeed(SourceReader(source, RetryPolicy(clock.sleep)), market, Timers(0.0))
    counters = RunCounters()
    reason = "steps"
    if not out.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(out))
    part = out.with_name(out.name + ".part")
    sink: _Sink = (_ParquetSink if out.suffix == ".parquet" else _CsvSink)(part, config.feature_names)
    keys: list[tuple[Any, ...]] = []
    rows = np.empty((_BLOCK, len(config.feature_names)))
    try:
        with sink:
            try:
                for event, state in feed.items() if steps != 0 else ():
                    try:
                        if state is None:
                            raise event
                        if isinstance(event, GenericEvent):
                            raise EventError(
                                "an event without a price has no market features", reason="wrong_type", field="price"
                            )
                        state.observe(event)
                    except EventError as error:
                        placed = error.at(*source.place())
                        counters.reject(placed)
                        if on_bad_event == "stop":
                            reason = f"bad_event: {placed}"
                            break
                        continue
                    rows[len(keys)] = state.row
                    keys.append((event.recv_ts_ns, event.exch_ts_ns, event.symbol, type(event).__struct_config__.tag))
                    counters.steps += 1
                    if len(keys) == _BLOCK:
                        sink.write(keys, rows)
                        keys.clear()
                    if progress is not None and counters.steps % _PROGRESS_EVERY == 0:
                        progress(counters.steps)
                    if counters.steps == steps:
                        break
            except FeedEnd as end:
                reason = end.reason
            sink.write(keys, rows[: len(keys)])
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)
    return {
        "rows": counters.steps,
        "columns": [*KEY_COLUMNS, *config.feature_names],
        "rejected_events": counters.rejected_events,
        "rejected_places": counters.bad_places,
        "stopped_reason": reason,
        "out": str(out),
    }
