"""Many symbols in one table: each symbol's rows through a builder of its own, the rows' order kept."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ami_engine.errors import ConfigError, EventError
from ami_engine.features.columns import EventColumns, RunReport, read_keys, read_table
from ami_engine.features.feature_builder import FeatureBuilder, checked_out
from ami_engine.features.feature_config import FeatureConfig

__all__ = ["ManyRun", "run_many"]

FloatArray = npt.NDArray[np.float64]
# Pieces of work a thread: so many that the last ones to finish are not waited for long.
_PIECES = 8


class ManyRun(NamedTuple):
    """What `run_many` returns: the features, a row an event, and what became of the events."""

    rows: FloatArray
    report: RunReport


def run_many(
    table: Any,
    by: str = "symbol",
    config: FeatureConfig | Mapping[Any, FeatureConfig] | None = None,
    *,
    backend: str = "auto",
    builders: MutableMapping[Any, FeatureBuilder] | None = None,
    workers: int = 1,
    out: FloatArray | None = None,
) -> ManyRun:
    """Return the features of a table that holds the events of many symbols, in any order.

    Each symbol's events pass through a `FeatureBuilder` of its own, in the order of the table; row `i` of the answer
    belongs to row `i` of the table. The bytes are those of one `FeatureBuilder.run` a symbol, whatever `workers` is.

    Parameters
    ----------
    table : structured array, Arrow table, polars or pandas frame, or mapping of arrays
        As `FeatureBuilder.run` takes it, with the column `by`. A table whose symbols lie one after another is read
        where it is; of any other each symbol's rows are gathered first.
    by : str
        Column that names the symbol: text, or whole numbers.
    config : FeatureConfig, or mapping of them by symbol, optional
        Windows, levels, tick size; one for all, or one for each.
    backend : {"auto", "native", "numba", "reference"}
        As of `FeatureBuilder`.
    builders : mutable mapping, optional
        Builders by symbol: those that are there go on from where they stand, new symbols' are added. So tables of a
        long recording can come one after another, and live events after them. Without it the state is dropped.
    workers : int
        Threads, at least 1. The native backend releases the interpreter's lock, so that they run at the same time.
    out : numpy.ndarray, optional
        float64[n, F], C-contiguous, to write into.

    Raises
    ------
    EventError
        `bad_columns` when the table cannot be read, or a row names no symbol.
    ConfigError
        When `config` lacks a symbol, or `workers` is less than 1.
    RuntimeError
        When another thread is using one of `builders`. Builders of other symbols may have gone on then.

    Examples
    --------
    >>> table = {
    ...     "symbol": np.array(["A", "B", "A"]),
    ...     "ts_ns": np.array([1_000_000, 1_000_000, 2_000_000]),
    ...     "bid": np.array([0.49, 9.0, 0.5]),
    ...     "ask": np.array([0.51, 9.5, 0.52]),
    ... }
    >>> builders = {}
    >>> rows, report = run_many(table, builders=builders)
    >>> rows[:, 0].tolist(), report.accepted, sorted(builders)
    ([0.5, 9.25, 0.51], 3, ['A', 'B'])
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ConfigError(f"`workers` must be a whole number of at least 1, was {workers!r}")
    columns = read_table(table)
    codes, keys = read_keys(table, by)
    if len(codes) != columns.rows:
        raise EventError(
            f"column `{by}` must have {columns.rows} rows like the others, had {len(codes)}",
            reason="bad_columns",
            field=by,
        )
    kept: MutableMapping[Any, FeatureBuilder] = {} if builders is None else builders
    out = checked_out(out, columns.rows, _row_width(config, keys, kept))
    work = _Work(columns, codes, len(keys), out)

    def run(number: int) -> RunReport:
        key = keys[number]
        builder = kept.get(key)
        if builder is None:
            builder = FeatureBuilder(_config_of(config, key), backend)
            if builders is not None:
                builders[key] = builder
        return work.run(builder, number)

    if isinstance(config, Mapping):
        for key in keys:
            _config_of(config, key)
    if workers == 1 or len(keys) < 2:
        reports = list(map(run, range(len(keys))))
    else:
        from concurrent.futures import ThreadPoolExecutor  # the loop, which imports this package, needs no threads

        pieces = np.array_split(np.arange(len(keys)), min(len(keys), _PIECES * workers))
        with ThreadPoolExecutor(workers) as pool:
            done = pool.map(lambda piece: [run(number) for number in piece.tolist()], pieces)
            reports = [report for piece in done for report in piece]
    return ManyRun(out, _total(reports, columns.rows))


def _config_of(config: FeatureConfig | Mapping[Any, FeatureConfig] | None, key: Any) -> FeatureConfig | None:
    if not isinstance(config, Mapping):
        return config
    known = config.get(key)
    if known is None:
        raise ConfigError(f"`config` must have every symbol of the table, has none for {key!r}")
    return known


def _row_width(
    config: FeatureConfig | Mapping[Any, FeatureConfig] | None,
    keys: Sequence[Any],
    kept: Mapping[Any, FeatureBuilder],
) -> int:
    """Return how many features a row holds; ConfigError when that is not the same for all symbols."""
    configs = (_config_of(config, key) if key not in kept else kept[key].config for key in keys)
    widths = {len((each or FeatureConfig()).feature_names) for each in configs}
    if len(widths) > 1:
        raise ConfigError("`config` must have the same `signals` for every symbol: their rows share one table")
    return widths.pop() if widths else len(FeatureConfig().feature_names)


class _Work:
    """The rows of each symbol: where they lie, and how they get to a builder and back."""

    def __init__(self, columns: EventColumns, codes: npt.NDArray[np.int64], count: int, out: FloatArray) -> None:
        self._columns = columns
        self._out = out
        self._ends = np.cumsum(np.bincount(codes, minlength=count))
        # Symbols are numbered in the order in which they appear: ascending numbers are symbols one after another.
        is_grouped = bool((codes[1:] >= codes[:-1]).all())
        self._order = None if is_grouped else np.argsort(codes, kind="stable")

    def run(self, builder: FeatureBuilder, number: int) -> RunReport:
        """Let the builder take the symbol's rows; return its report, in rows of the table."""
        start, end = (int(self._ends[number - 1]) if number else 0), int(self._ends[number])
        if self._order is None:
            builder.run(_part(self._columns, slice(start, end), end - start), self._out[start:end])
            return _placed(builder.last_report, np.arange(start, end))
        at = self._order[start:end]
        self._out[at] = builder.run(_part(self._columns, at, end - start))
        return _placed(builder.last_report, at)


def _part(columns: EventColumns, at: Any, rows: int) -> EventColumns:
    taken = {name: value[at] for name, value in columns._asdict().items() if isinstance(value, np.ndarray)}
    return columns._replace(rows=rows, **taken)


def _placed(report: RunReport | None, at: npt.NDArray[Any]) -> RunReport:
    assert report is not None
    return report._replace(first={reason: int(at[row]) for reason, row in report.first.items()})


def _total(reports: list[RunReport], rows: int) -> RunReport:
    rejected: dict[str, int] = {}
    first: dict[str, int] = {}
    for report in reports:
        for reason, count in report.rejected.items():
            rejected[reason] = rejected.get(reason, 0) + count
            first[reason] = min(first.get(reason, rows), report.first[reason])
    return RunReport(rows, sum(report.accepted for report in reports), rejected, first)
