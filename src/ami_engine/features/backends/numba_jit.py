"""The numba backend: the native algorithms, compiled once and cached, for machines without the compiled core."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from operator import index
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NoReturn, cast

import numpy as np
import numpy.typing as npt

from ami_engine.errors import BackendError

try:
    from numba import njit, types
except ImportError as error:
    raise BackendError(f"the package `numba` cannot be imported: {error}") from error

from ami_engine.features import schema
from ami_engine.features.backends import (
    event_checks,
    numba_batch,
    numba_book,
    numba_kernels,
    numba_layout,
    numba_moments,
    numba_order,
    numba_rank,
    numba_rolling,
    numba_signals,
    numba_wide,
)
from ami_engine.features.backends.event_checks import (
    REASONS,
    BookSide,
    check_levels_match,
    check_quote,
    check_sides,
    check_time,
    check_trade,
    one_level,
    read_side,
    unless_taken,
)
from ami_engine.features.backends.numba_batch import push_rows
from ami_engine.features.backends.numba_kernels import GROW_MIDS, push_book, push_quote, push_trade
from ami_engine.features.backends.numba_layout import LAST_TS
from ami_engine.features.backends.numba_rolling import COMPILE_OPTIONS
from ami_engine.features.backends.numba_state import State, first_state, grown, pack, unpack
from ami_engine.features.backends.state_bytes import seal, unseal
from ami_engine.features.columns import EventColumns, RunReport
from ami_engine.features.feature_config import FeatureConfig

__all__ = ["NumbaEngine"]

FloatArray = npt.NDArray[np.float64]


def _read_only(element: Any, dimensions: int) -> Any:
    return types.Array(element, dimensions, "C", readonly=True)


# What a compiled function takes. Columns are read-only there, so that those of an Arrow table need no copy.
_FLOAT: Final = types.float64
_INT: Final = types.int64
_STATE: Final = (types.float64[::1], types.int64[::1], types.float64[::1])
_SIDE: Final = _read_only(_FLOAT, 2)
_INTS: Final = _read_only(_INT, 1)
_FLOATS: Final = _read_only(_FLOAT, 1)
_LEVELS: Final = _read_only(_FLOAT, 3)
_COLUMNS: Final = types.Tuple(
    (_INTS, _INTS, _FLOATS, _FLOATS, _FLOATS, _FLOATS, _LEVELS, _LEVELS, _INTS, _FLOATS, _FLOATS, _INTS, _INTS)
)

_NO_FLOATS: Final = np.empty(0)
_NO_INTS: Final = np.empty(0, np.int64)
_NO_LEVELS: Final = np.empty((0, 0, 2))


def _digest(modules: tuple[ModuleType, ...]) -> str:
    """Return a digest of the modules' sources; empty where they cannot be read."""
    digest = hashlib.sha256()
    try:
        for module in modules:
            digest.update(Path(str(module.__file__)).read_bytes())
    except OSError:
        return ""
    return digest.hexdigest()


def _compile(signature: Any, function: Callable[..., Any], *, nogil: bool = False) -> Callable[..., Any]:
    """Compile, through the cache where there is a place for one: beside this file, or NUMBA_CACHE_DIR."""
    compiler: Any
    try:
        compiler = njit(signature, nogil=nogil, cache=True, **COMPILE_OPTIONS)
        return cast(Callable[..., Any], compiler(function))
    except (RuntimeError, OSError):
        compiler = njit(signature, nogil=nogil, **COMPILE_OPTIONS)
        return cast(Callable[..., Any], compiler(function))


class _EntryPoints:
    """What Python calls, each compiled when it is first asked for.

    Each function closes over `sources`, and numba keys its cache by what a function closes over. By itself it would not
    see a change in the modules that are compiled into the function. The test itself is never true.
    """

    def __init__(self, sources: str) -> None:
        self._sources = sources

    @cached_property
    def push_quote(self) -> Callable[..., int]:
        sources: str | None = self._sources

        def enter_quote(
            f: Any,
            i: Any,
            row: Any,
            ts_ns: int,
            bid: float,
            ask: float,
            bid_depth: float,
            ask_depth: float,
            now_ns: int,
        ) -> int:
            if sources is None:
                return 0
            return push_quote(f, i, row, ts_ns, bid, ask, bid_depth, ask_depth, now_ns)

        return _compile(_INT(*_STATE, _INT, _FLOAT, _FLOAT, _FLOAT, _FLOAT, _INT), enter_quote)

    @cached_property
    def push_book(self) -> Callable[..., int]:
        sources: str | None = self._sources

        def enter_book(
            f: Any,
            i: Any,
            row: Any,
            ts_ns: int,
            bids: Any,
            asks: Any,
            now_ns: int,
            bid: float,
            ask: float,
            padded: bool,
        ) -> int:
            if sources is None:
                return 0
            return push_book(f, i, row, ts_ns, bids, asks, now_ns, bid, ask, padded)

        return _compile(_INT(*_STATE, _INT, _SIDE, _SIDE, _INT, _FLOAT, _FLOAT, types.boolean), enter_book)

    @cached_property
    def push_trade(self) -> Callable[..., int]:
        sources: str | None = self._sources

        def enter_trade(
            f: Any, i: Any, row: Any, ts_ns: int, price: float, size: float, aggressor: int, now_ns: int
        ) -> int:
            if sources is None:
                return 0
            return push_trade(f, i, row, ts_ns, price, size, aggressor, now_ns)

        return _compile(_INT(*_STATE, _INT, _FLOAT, _FLOAT, _INT, _INT), enter_trade)

    @cached_property
    def push_rows(self) -> Callable[..., tuple[int, int]]:
        sources: str | None = self._sources

        def enter_rows(
            f: Any, i: Any, row: Any, columns: Any, ns_per_ts: int, start: int, out: Any, counts: Any, firsts: Any
        ) -> tuple[int, int]:
            if sources is None:
                return 0, 0
            return push_rows(f, i, row, columns, ns_per_ts, start, out, counts, firsts)

        report = (types.float64[:, ::1], types.int64[::1], types.int64[::1])
        signature = types.UniTuple(_INT, 2)(*_STATE, _COLUMNS, _INT, _INT, *report)
        return _compile(signature, enter_rows, nogil=True)


_COMPILED_FROM: Final = (
    schema, event_checks, numba_layout, numba_rolling, numba_wide, numba_moments, numba_order, numba_rank,
    numba_signals, numba_book, numba_kernels, numba_batch,
)  # fmt: skip
_ENTRY_POINTS: Final = _EntryPoints(_digest(_COMPILED_FROM))


class NumbaEngine:
    """Features of one symbol's events in compiled Python.

    Parameters
    ----------
    config : FeatureConfig
        Every parameter of the features.

    Attributes
    ----------
    row : numpy.ndarray
        float64[F] in the order of the schema, rewritten in place by each accepted event; NaN before the first.

    Examples
    --------
    >>> engine = NumbaEngine(FeatureConfig(tick_size=0.01))
    >>> engine.push_quote(1_000_000, 0.49, 0.51, 3.0, 1.0)
    >>> [float(x) for x in engine.row[:4].round(4)]
    [0.5, 0.49, 0.51, 0.02]
    """

    def __init__(self, config: FeatureConfig) -> None:
        self.config = config
        self.row: FloatArray = np.full(len(config.feature_names), np.nan)
        self._weights = config.level_weights()
        self._compiled = _ENTRY_POINTS
        self._set_state(first_state(config))

    def _set_state(self, state: State) -> None:
        self._state = state
        self._f, self._i = state.f, state.i

    @property
    def last_ts_ns(self) -> int:
        """Time of the last accepted event, ns; 0 before the first."""
        return int(self._i[LAST_TS])

    def push_quote(
        self, ts_ns: int, bid: float, ask: float, bid_depth: float, ask_depth: float, now_ns: int = 0
    ) -> None:
        """Fold a book event without levels; EventError, and nothing changes, when it is refused."""
        ts_ns, now_ns = index(ts_ns), index(now_ns)
        while code := self._compiled.push_quote(
            self._f, self._i, self.row, ts_ns, bid, ask, bid_depth, ask_depth, now_ns
        ):
            if code > 0:
                check_quote(bid, ask, bid_depth, ask_depth)
                self._refuse_book(code, ts_ns, one_level(bid, bid_depth), one_level(ask, ask_depth), now_ns)
            self._grow(code)

    def push_book(
        self,
        ts_ns: int,
        bids: FloatArray,
        asks: FloatArray,
        now_ns: int = 0,
        *,
        bid: float = 0.0,
        ask: float = 0.0,
        is_padded: bool = False,
    ) -> None:
        """Fold a book event with levels, (n, 2) prices and sizes, best first.

        A stated `bid` or `ask` other than 0 must be the best level's. `is_padded` lets a pair of NaN end a side.
        """
        ts_ns, now_ns = index(ts_ns), index(now_ns)
        while code := self._compiled.push_book(
            self._f, self._i, self.row, ts_ns, bids, asks, now_ns, bid, ask, is_padded
        ):
            if code > 0:
                check_quote(bid, ask, 0.0, 0.0)
                bid_side = read_side(bids, self._weights, "bids", is_padded=is_padded)
                ask_side = read_side(asks, self._weights, "asks", is_padded=is_padded)
                check_levels_match(bid, ask, bid_side, ask_side)
                self._refuse_book(code, ts_ns, unless_taken(bid_side), unless_taken(ask_side), now_ns)
            self._grow(code)

    def push_trade(self, ts_ns: int, price: float, size: float, aggressor: int, now_ns: int = 0) -> None:
        """Fold a trade; EventError, and nothing changes, when it is refused."""
        ts_ns, now_ns, aggressor = index(ts_ns), index(now_ns), index(aggressor)
        while code := self._compiled.push_trade(self._f, self._i, self.row, ts_ns, price, size, aggressor, now_ns):
            if code > 0:
                check_trade(price, size, aggressor)
                check_time(ts_ns, now_ns, self.last_ts_ns)
                self._disagree(code)
            self._grow(code)

    def run(self, columns: EventColumns, out: FloatArray) -> RunReport:
        """Push every row of a batch and write its features to `out`, NaN where the row was refused."""
        _check_shapes(columns, out, len(self.row))
        counts = np.zeros(len(REASONS), np.int64)
        firsts = np.zeros(len(REASONS), np.int64)
        arrays = _arrays(columns)
        at, code = 0, -1
        while code:
            at, code = self._compiled.push_rows(
                self._f, self._i, self.row, arrays, columns.ns_per_ts, at, out, counts, firsts
            )
            if code:
                self._grow(code)
        rejected = {REASONS[n]: int(counts[n]) for n in np.flatnonzero(counts)}
        first = {REASONS[n]: int(firsts[n]) for n in np.flatnonzero(counts)}
        return RunReport(columns.rows, columns.rows - int(counts.sum()), rejected, first)

    def snapshot(self) -> bytes:
        """Return the whole state, versioned and checksummed."""
        return seal("numba", self.config, pack(self.config, self._state, self.row))

    def restore(self, data: bytes) -> None:
        """Take the state of a snapshot; ValueError, and nothing changes, when it is damaged or not of this config."""
        state, row = unpack(self.config, unseal("numba", self.config, data))
        self._set_state(state)
        self.row[:] = row

    def _grow(self, code: int) -> None:
        is_mids = code == GROW_MIDS
        self._set_state(grown(self.config, self._state, mids=is_mids, trades=not is_mids))

    def _refuse_book(self, code: int, ts_ns: int, bid: BookSide, ask: BookSide, now_ns: int) -> NoReturn:
        """Raise what the compiled check found: the Python check finds it again, and has the words for it."""
        check_time(ts_ns, now_ns, self.last_ts_ns)
        check_sides(bid, ask)
        self._disagree(code)

    def _disagree(self, code: int) -> NoReturn:
        raise BackendError(f"the compiled check found {REASONS[code]!r}, which the Python check did not")


def _check_shapes(columns: EventColumns, out: FloatArray, width: int) -> None:
    """Refuse what compiled code, which checks no bounds, would read or write past its end."""
    arrays = [column for column in columns if isinstance(column, np.ndarray)]
    if out.shape != (columns.rows, width) or any(len(column) != columns.rows for column in arrays):
        raise ValueError(f"every column and `out` must have {columns.rows} rows")
    has_prices = columns.price is not None and columns.size is not None
    if columns.kind is not None and not has_prices and bool((columns.kind == 1).any()):
        raise ValueError("trades need `price` and `size`")
    if columns.ns_per_ts < 1:
        raise ValueError(f"`ns_per_ts` must be at least 1, was {columns.ns_per_ts}")


def _arrays(columns: EventColumns) -> tuple[npt.NDArray[Any], ...]:
    """Return the columns as compiled code takes them: aligned, and an absent one is empty."""

    def present(column: npt.NDArray[Any] | None, absent: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if column is None:
            return absent
        return column if column.flags.aligned else column.copy()

    c = columns
    return (
        *(present(column, _NO_INTS) for column in (c.ts, c.ts_fallback)),
        *(present(column, _NO_FLOATS) for column in (c.bid, c.ask, c.bid_depth, c.ask_depth)),
        *(present(column, _NO_LEVELS) for column in (c.bids, c.asks)),
        present(c.kind, _NO_INTS),
        *(present(column, _NO_FLOATS) for column in (c.price, c.size)),
        *(present(column, _NO_INTS) for column in (c.aggressor, c.now_ns)),
    )
