"""The feature builder: one symbol's events in, one row of features out, on the fastest backend that is there."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from ami_engine.errors import BackendError, ConfigError, EventError
from ami_engine.features.backends.reference import mid_signals, spike_z, spread_percentile, std
from ami_engine.features.columns import RunReport, read_table
from ami_engine.features.event_reader import TIME_KEYS, read_event, read_levels
from ami_engine.features.feature_config import FeatureConfig
from ami_engine.features.feature_vector import FeatureVector
from ami_engine.features.generic import GenericFeatureBuilder, is_generic
from ami_engine.features.schema import log_return
from ami_engine.units import NS_PER_MS, ns_from_ms

__all__ = ["FeatureBuilder", "available_backends", "build_features", "checked_out"]

# In the order in which "auto" takes them: module and class of each engine.
_ENGINES = {
    "native": ("ami_engine.features.backends.native", "NativeEngine"),
    "numba": ("ami_engine.features.backends.numba_jit", "NumbaEngine"),
    "reference": ("ami_engine.features.backends.reference", "ReferenceEngine"),
}

_warned: set[str] = set()


def available_backends() -> dict[str, str]:
    """Return each backend's name, and why it is absent: "" where it is there.

    Nothing heavy is imported to find out.

    >>> available_backends()["reference"]
    ''
    """
    reasons = {"native": _why_not_native(), "numba": "", "reference": ""}
    if find_spec("numba") is None:
        reasons["numba"] = "the package `numba` is not installed: pip install 'mdm-engine[numba]'"
    return reasons


def _why_not_native() -> str:
    try:
        import_module(_ENGINES["native"][0])
    except ImportError as error:
        return str(error)
    return ""


def _resolve(backend: str) -> tuple[str, type[Any]]:
    """Return the name and the engine class of a backend; AMI_BACKEND stands in for "auto"."""
    origin = "`backend`"
    if backend == "auto" and os.environ.get("AMI_BACKEND"):
        backend, origin = os.environ["AMI_BACKEND"], "AMI_BACKEND"
    if backend != "auto" and backend not in _ENGINES:
        raise ConfigError(f"{origin} must be one of auto, {', '.join(_ENGINES)}, was {backend!r}")
    if backend in ("auto", "native") and not _why_not_native():
        # Looking for the other backends on the disk takes longer than making the builder.
        module, name = _ENGINES["native"]
        return "native", getattr(import_module(module), name)
    reasons = available_backends()
    if backend == "auto":
        backend = next(name for name, reason in reasons.items() if not reason)
        if backend == "reference" and "reference" not in _warned:
            _warned.add("reference")
            warnings.warn(
                "features run on the slow reference backend: "
                + "; ".join(f"{name}: {reason}" for name, reason in reasons.items() if reason),
                RuntimeWarning,
                stacklevel=3,
            )
    elif reasons[backend]:
        raise BackendError(f"{origin} {backend} is not available: {reasons[backend]}")
    module, name = _ENGINES[backend]
    return backend, getattr(import_module(module), name)


def checked_out(out: npt.NDArray[np.float64] | None, rows: int, width: int) -> npt.NDArray[np.float64]:
    """Return `out`, or a new array where it is None; ValueError unless `rows` rows of `width` features fit into it."""
    if out is None:
        return np.empty((rows, width))
    if not isinstance(out, np.ndarray):
        raise ValueError(f"`out` must be a float64 array of shape ({rows}, {width}), was {type(out).__name__}")
    if out.shape != (rows, width) or out.dtype != np.float64 or not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError(
            f"`out` must be a writable, C-contiguous float64 array of shape ({rows}, {width}), "
            f"was {out.dtype} of shape {out.shape}"
        )
    return out


class _PythonCalls:
    """The builder's calls for an engine that has only the typed ones; one thread at a time."""

    def __init__(self, engine: Any, levels: int) -> None:
        self._engine = engine
        self._levels = levels
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise RuntimeError("this feature builder is in use by another thread: a builder has one owner")

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def push(self, *args: Any, **kwargs: Any) -> None:
        with self:
            self._push(*args, **kwargs)

    def update(self, *args: Any, **kwargs: Any) -> FeatureVector:
        with self:
            self._push(*args, **kwargs)
            return FeatureVector(self._engine.row)

    def push_quote(
        self, ts_ns: int, bid: float, ask: float, bid_depth: float, ask_depth: float, now_ns: int = 0
    ) -> None:
        with self:
            self._engine.push_quote(ts_ns, bid, ask, bid_depth, ask_depth, now_ns)

    def push_book(self, ts_ns: int, bids: Any, asks: Any, now_ns: int = 0) -> None:
        with self:
            bid_levels = read_levels("bids", bids, self._levels)
            ask_levels = read_levels("asks", asks, self._levels)
            self._engine.push_book(ts_ns, bid_levels, ask_levels, now_ns)

    def push_trade(self, ts_ns: int, price: float, size: float, aggressor: int, now_ns: int = 0) -> None:
        with self:
            self._engine.push_trade(ts_ns, price, size, aggressor, now_ns)

    def vector(self) -> FeatureVector:
        with self:
            return FeatureVector(self._engine.row)

    def push_from_book(self, book: Any, ts_ns: int, now_ns: int = 0) -> None:
        bids, asks = book.top(self._levels)
        self.push_book(ts_ns, bids, asks, now_ns)

    def _push(self, *args: Any, **kwargs: Any) -> None:
        if len(args) > 2 or "ts_ns" in kwargs:
            self._engine.push_quote(*args, **kwargs)
        else:
            self._push_event(*args, **kwargs)

    def _push_event(self, event: Any, now_ns: int = 0) -> None:
        view = read_event(event, self._levels)
        ts_ns = view.ts_ns
        if ts_ns is None:
            ts_ns = self._engine.last_ts_ns + NS_PER_MS
        if view.kind == "quote":
            self._engine.push_quote(ts_ns, view.bid, view.ask, view.bid_depth, view.ask_depth, now_ns)
        elif view.kind == "trade":
            self._engine.push_trade(ts_ns, view.price, view.size, view.aggressor, now_ns)
        else:
            self._engine.push_book(ts_ns, view.bids, view.asks, now_ns, bid=view.bid, ask=view.ask)


class FeatureBuilder:
    """Rolling features of one symbol's events.

    Parameters
    ----------
    config : FeatureConfig, optional
        Windows, levels, tick size.
    backend : {"auto", "native", "numba", "reference"}
        "auto" takes the first of them that is there; the environment's AMI_BACKEND overrides it.

    Attributes
    ----------
    config : FeatureConfig
    backend : str
        The backend in use.
    names : tuple of str
        Feature names in the order of a row.
    view : numpy.ndarray
        The live row, float64[F], read-only: the next event overwrites it. NaN before the first event.
    last_report : RunReport or None
        What became of the rows of the last `run`.
    push, update : callable
        Take one event: ``push(event, now_ns=0)``, a struct of `ami_engine.events` or a mapping, or
        ``push(ts_ns, bid, ask, bid_depth, ask_depth, now_ns=0)``, times in ns; a price of 0 is a missing side. `now_ns`
        is the time at which staleness is told, 0 for the event's own. `update` returns the row as a `FeatureVector` of
        its own; `push` returns nothing. EventError refuses an event and leaves the state as if it had never come.
    vector : callable
        Returns the row as it stands as a `FeatureVector` of its own.
    push_quote, push_book, push_trade, push_from_book : callable
        The same for one kind of event each: ``push_quote(ts_ns, bid, ask, bid_depth, ask_depth, now_ns=0)``;
        ``push_book(ts_ns, bids, asks, now_ns=0)`` with levels best first, pairs or (n, 2) arrays;
        ``push_trade(ts_ns, price, size, aggressor, now_ns=0)``, aggressor +1 buyer, −1 seller, 0 unknown;
        ``push_from_book(book, ts_ns, now_ns=0)``, the best levels of an `ami_engine.book.OrderBook`.

    Raises
    ------
    ConfigError
        When `backend` is no backend's name.
    BackendError
        When the backend is not there.

    Notes
    -----
    A builder has one owner: a call while another thread is in one raises RuntimeError.

    Examples
    --------
    >>> builder = FeatureBuilder(FeatureConfig(tick_size=0.01))
    >>> v = builder.update(1_000_000, 0.49, 0.51, 3.0, 1.0)
    >>> v.mid, v["depth"], v.imbalance
    (0.5, 4.0, 0.5)
    >>> bid, ask = np.array([0.5, 0.9]), np.array([0.52, 0.8])
    >>> rows = builder.run({"ts_ns": np.array([2_000_000, 3_000_000]), "bid": bid, "ask": ask})
    >>> rows.shape, builder.last_report.rejected
    ((2, 30), {'crossed_book': 1})
    """

    def __init__(self, config: FeatureConfig | None = None, backend: str = "auto") -> None:
        self.config = FeatureConfig() if config is None else config
        self.backend, engine = _resolve(backend)
        self.names = self.config.feature_names
        self.last_report: RunReport | None = None
        self._bind(engine(self.config))

    def _bind(self, engine: Any) -> None:
        self._engine = engine
        view: npt.NDArray[np.float64] = engine.row.view()
        view.flags.writeable = False
        self.view = view
        self._calls = _PythonCalls(engine, self.config.levels)
        calls: Any = engine if hasattr(engine, "update") else self._calls
        self.push: Callable[..., None] = calls.push
        self.update: Callable[..., FeatureVector] = calls.update
        self.vector: Callable[[], FeatureVector] = calls.vector
        self.push_quote: Callable[..., None] = calls.push_quote
        self.push_book: Callable[..., None] = calls.push_book
        self.push_trade: Callable[..., None] = calls.push_trade
        self.push_from_book: Callable[..., None] = calls.push_from_book

    @property
    def engine(self) -> Any:
        """The backend's own object, for who steps whole decisions on it."""
        return self._engine.core if self.backend == "native" else self._engine

    @property
    def last_ts_ns(self) -> int:
        """Time of the last accepted event, ns; 0 before the first."""
        return int(self._engine.last_ts_ns)

    def run(self, table: Any, out: npt.NDArray[np.float64] | None = None) -> npt.NDArray[np.float64]:
        """Take a table of events: the same rows, to the bit, as one `update` an event.

        Parameters
        ----------
        table : structured array, Arrow table, polars or pandas frame, or mapping of arrays
            Columns named like the events' fields; optional `kind` (0 book, 1 trade) with `price`, `size` and
            `aggressor`; `bids` and `asks` of shape (n, N, 2), padded with NaN; `now_ns`. Contiguous float64 and int64
            columns are read where they are.
        out : numpy.ndarray, optional
            float64[n, F], C-contiguous, to write into.

        Returns
        -------
        numpy.ndarray
            float64[n, F]; a refused row is NaN, and `last_report` says how many there were, why and where first.

        Raises
        ------
        EventError
            `bad_columns` when the table cannot be read.
        ValueError
            When `out` does not fit.
        """
        columns = read_table(table)
        out = checked_out(out, columns.rows, len(self.names))
        with self._calls:
            self.last_report = self._engine.run(columns, out)
        return out

    def snapshot(self) -> bytes:
        """Return the whole state: versioned, checksummed, bound to the backend and the config."""
        with self._calls:
            return bytes(self._engine.snapshot())

    def restore(self, state: bytes) -> None:
        """Take a state back and go on from it bit for bit.

        Raises
        ------
        ValueError
            The snapshot is damaged, or of another version, backend or config; nothing has changed then.
        """
        with self._calls:
            self._engine.restore(state)

    def __reduce__(self) -> tuple[Callable[..., FeatureBuilder], tuple[FeatureConfig, str, bytes]]:
        return _restored, (self.config, self.backend, self.snapshot())

    def __repr__(self) -> str:
        return f"FeatureBuilder({self.config!r}, backend={self.backend!r})"


def _restored(config: FeatureConfig, backend: str, state: bytes) -> FeatureBuilder:
    builder = FeatureBuilder(config, backend)
    builder.restore(state)
    return builder


def build_features(
    event: Any,
    mid_history: Sequence[float] | None = None,
    spread_history: Sequence[float] | None = None,
    depth_history: Sequence[float] | None = None,
    staleness_history: Sequence[float] | None = None,
    now_ms: float | None = None,
    history: Iterable[Any] | None = None,
    *,
    config: FeatureConfig | None = None,
) -> dict[str, float]:
    """Return the features of one event, without keeping anything: histories in, dict out.

    Parameters
    ----------
    event : event struct or mapping
        A market event, or any other: then its numbers are the features, see `GenericFeatureBuilder`.
    mid_history, spread_history, depth_history, staleness_history : sequence of float, optional
        What came before, oldest first; this event is always appended. Each gives its own rolling features: mids give
        sigma, sigma_spike_z, sigma_5m, momentum, trend_strength and mean_reversion, spreads give spread_med_5m and
        spread_percentile. The windows are by count; None of `window_5m_steps` takes all of it.
    now_ms : float, optional
        When staleness is told, ms. An event without a time is taken to happen then.
    history : iterable of events, optional
        Earlier events, oldest first: they enter every window.
    config : FeatureConfig, optional
        Windows, levels, tick size.

    Raises
    ------
    EventError
        The event or a history is malformed.

    Examples
    --------
    >>> event = {"mid": 0.5, "bid": 0.49, "ask": 0.51}
    >>> f = build_features(event=event, mid_history=[0.49, 0.50, 0.51], now_ms=1234567890)
    >>> f["mid"], round(f["spread_bps"], 6), f["depth"]
    (0.5, 400.0, 0.0)
    >>> build_features({"value": 0.5, "timestamp_ms": 1000, "metadata": {"source": "sensor_1"}}, history=[])["value"]
    0.5
    """
    config = FeatureConfig() if config is None else config
    now_ns = 0 if now_ms is None else _ns_of(now_ms)
    if is_generic(event):
        generic = GenericFeatureBuilder(config)
        for earlier in history or ():
            generic.push(earlier)
        return generic.update(_timed(event, now_ns))
    builder = FeatureBuilder(config)
    for earlier in history or ():
        builder.push(earlier)
    features = builder.update(_timed(event, now_ns), now_ns=now_ns).as_dict()
    histories = {
        "mid": mid_history,
        "spread": spread_history,
        "depth": depth_history,
        "staleness_ms": staleness_history,
    }
    # A book with one side, or a trade, is no sample: then the histories are all there is.
    is_sample = features["spread"] == features["spread"] and read_event(event, 1).kind != "trade"
    for name, past in histories.items():
        if past is not None:
            samples = _samples(f"{name.removesuffix('_ms')}_history", past, positive=name == "mid")
            features |= _rolled(name, [*samples, features[name]] if is_sample else samples, config)
    return features


def _ns_of(now_ms: Any) -> int:
    if not isinstance(now_ms, Real) or not np.isfinite(float(now_ms)):
        raise EventError(f"`now_ms` must be a finite number, was {now_ms!r}", reason="not_finite", field="now_ms")
    return ns_from_ms(now_ms)  # type: ignore[arg-type]


def _timed(event: Any, now_ns: int) -> Any:
    if now_ns > 0 and isinstance(event, Mapping) and not any(key in event for key in TIME_KEYS):
        return {**event, "ts_ns": now_ns}
    return event


def _samples(field: str, history: Sequence[float], *, positive: bool) -> list[float]:
    try:
        samples = [float(value) for value in history]
    except (TypeError, ValueError) as error:
        raise EventError(f"`{field}` must hold numbers: {error}", reason="wrong_type", field=field) from None
    for i, value in enumerate(samples):
        if not np.isfinite(value):
            raise EventError(f"`{field}[{i}]` must be finite, was {value}", reason="not_finite", field=field)
        if value < 0.0 or (positive and value == 0.0):
            rule = "> 0" if positive else "at least 0"
            raise EventError(f"`{field}[{i}]` must be {rule}, was {value}", reason="malformed", field=field)
    return samples


def _rolled(name: str, samples: Sequence[float], config: FeatureConfig) -> dict[str, float]:
    """Return the rolling features that the history of one quantity gives."""
    regime = samples[-config.window_steps :]  # 0, which is off, takes all
    if name == "mid":
        returns = [log_return(mid, previous) for previous, mid in pairwise(samples)]
        long = config.sigma_long_steps + 1
        return {
            "sigma": std(returns[-config.vol_window :]),
            "sigma_spike_z": spike_z(returns[-long:], config.sigma_short_steps) if len(returns) >= long else 0.0,
            "sigma_5m": std(returns[1 - len(regime) :]) if len(regime) > 1 else 0.0,
            **(mid_signals(samples, config) if config.signals else {}),
        }
    if not regime:
        return {}
    if name == "spread":
        percentile = {"spread_percentile": spread_percentile(regime)} if config.signals else {}
        return {"spread_med_5m": float(np.median(regime)), **percentile}
    if name == "depth":
        return {"depth_p10_5m": float(np.percentile(regime, 10))}
    return {"staleness_max_5m": max(regime)}
