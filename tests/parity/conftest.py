"""Event streams that feature backends are held against each other on, and what each backend makes of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from ami_engine.features import FEATURE_NAMES, FeatureConfig, available_backends
from ami_engine.features.columns import EventColumns, RunReport
from ami_engine.features.schema import FEATURES, FeatureDef

FloatArray = npt.NDArray[np.float64]

ENGINES = {
    "native": ("ami_engine.features.backends.native", "NativeEngine"),
    "numba": ("ami_engine.features.backends.numba_jit", "NumbaEngine"),
    "reference": ("ami_engine.features.backends.reference", "ReferenceEngine"),
}

# Small, so that every window fills and turns over many times within a stream.
SMALL = {"vol_window": 20, "sigma_short_steps": 5, "sigma_long_steps": 30}
WINDOWS: dict[str, dict[str, Any]] = {
    "count": {"window_5m_steps": 40},
    "time": {"window_5m_steps": None, "window_5m_ms": 60},
    "both": {"window_5m_steps": 40, "window_5m_ms": 50.5},
}

EVENTS = 500
START_NS = 1_723_161_255_000_000_000


class Case(NamedTuple):
    config: FeatureConfig
    columns: EventColumns


class Outcome(NamedTuple):
    rows: FloatArray
    report: RunReport

    """The rows that a backend made of a batch, and its report."""

    def of(self, name: str) -> FloatArray:
        return self.rows[:, FEATURE_NAMES.index(name)]


def disagreement(feature: FeatureDef, rel_tol: float, ours: Outcome, theirs: Outcome, tick_size: float) -> str:
    """Say where two backends differ on a feature by more than the schema allows; "" when nowhere."""
    a, b, mid = ours.of(feature.name), theirs.of(feature.name), theirs.of("mid")
    allowed = np.maximum(
        rel_tol * np.abs(b), feature.abs_tol + feature.abs_tol_price_per_tick * np.nan_to_num(mid) / tick_size
    )
    with np.errstate(invalid="ignore"):
        is_wrong = ~((np.abs(a - b) <= allowed) | (np.isnan(a) & np.isnan(b)))
    if not is_wrong.any():
        return ""
    row = int(np.flatnonzero(is_wrong)[0])
    return f"{feature.name}, row {row}: {a[row]!r} and {b[row]!r} differ by more than {allowed[row]!r}"


def head(columns: EventColumns, rows: int) -> EventColumns:
    """The first rows of a batch."""
    cut = {k: v[:rows] for k, v in columns._asdict().items() if isinstance(v, np.ndarray)}
    return columns._replace(rows=min(rows, columns.rows), **cut)


def make_stream(name: str) -> dict[str, Any]:
    """Columns of a synthetic stream: a walk near 60 000 in ticks of 0.1 with trades, made special by its name."""
    rng = np.random.default_rng(sorted(STREAMS).index(name) + 1)
    n = EVENTS
    bid = np.round(60_000 + np.cumsum(rng.integers(-2, 3, n)) * 0.1, 1)
    stream: dict[str, Any] = {
        "ts": START_NS + np.cumsum(rng.integers(1, 3_000_000, n)),
        "bid": bid,
        "ask": np.round(bid + 0.1 * rng.integers(1, 4, n), 1),
        "bid_depth": np.round(rng.exponential(5.0, n), 3),
        "ask_depth": np.round(rng.exponential(5.0, n), 3),
        "kind": (rng.random(n) < 0.25).astype(np.int64),
        "price": np.round(bid + 0.1 * rng.integers(-1, 3, n), 1),
        "size": np.round(rng.exponential(1.0, n), 3),
        "aggressor": rng.integers(-1, 2, n),
    }
    STREAMS[name](stream, rng)
    return stream


def _walk(stream: dict[str, Any], rng: np.random.Generator) -> None:
    pass


def _flat(stream: dict[str, Any], rng: np.random.Generator) -> None:
    stream.update(bid=np.full(EVENTS, 100.0), ask=np.full(EVENTS, 100.1))
    stream.update(bid_depth=np.full(EVENTS, 3.0), ask_depth=np.full(EVENTS, 3.0))


def _one_sided(stream: dict[str, Any], rng: np.random.Generator) -> None:
    stream["bid"][rng.random(EVENTS) < 0.3] = 0.0
    stream["ask"][rng.random(EVENTS) < 0.3] = 0.0  # and so about a tenth has neither side
    stream["kind"][:3] = 1  # trades before the first book
    stream["ask"][3], stream["kind"][3:5] = 0.0, (0, 1)


def _locked(stream: dict[str, Any], rng: np.random.Generator) -> None:
    locked = rng.random(EVENTS) < 0.4
    stream["ask"][locked] = stream["bid"][locked]
    stream["bid_depth"][rng.random(EVENTS) < 0.2] = 0.0
    stream["ask_depth"][rng.random(EVENTS) < 0.2] = 0.0


def _gaps(stream: dict[str, Any], rng: np.random.Generator) -> None:
    # Longer than every window by time: some end in a book event, some in a trade, some in a one-sided book.
    steps = rng.integers(1, 3_000_000, EVENTS)
    gaps = np.flatnonzero(rng.random(EVENTS) < 0.05)
    steps[gaps] += 400_000_000
    stream["ts"] = START_NS + np.cumsum(steps)
    stream["kind"][gaps[::2]] = 1
    stream["bid"][gaps[1::4]] = 0.0


def _bad_print(stream: dict[str, Any], rng: np.random.Generator) -> None:
    # A misplaced decimal point: far beyond what a return of one event is, and gone at the next.
    stream["bid"][200] /= 10.0
    stream["ask"][200] /= 10.0
    stream["bid"][330], stream["ask"][330] = 2e9, 2.1e9
    stream["bid_depth"][200] = 1e12
    stream["size"][210] = 1e12


def _one_tick_at_1e5(stream: dict[str, Any], rng: np.random.Generator) -> None:
    stream["bid"] = np.round(100_000 + np.cumsum(rng.integers(-1, 2, EVENTS)) * 0.01, 2)
    stream["ask"] = np.round(stream["bid"] + 0.01, 2)


def _repeated_stamps(stream: dict[str, Any], rng: np.random.Generator) -> None:
    stream["ts"] = START_NS + np.cumsum(np.where(rng.random(EVENTS) < 0.7, 0, rng.integers(1, 20_000_000, EVENTS)))


def _late_looks(stream: dict[str, Any], rng: np.random.Generator) -> None:
    # `now` sometimes before the event: a feed's clock may run ahead of ours.
    stream["now_ns"] = np.where(
        rng.random(EVENTS) < 0.5, stream["ts"] + rng.integers(-5_000_000, 90_000_000, EVENTS), 0
    )


def _far_apart(stream: dict[str, Any], rng: np.random.Generator) -> None:
    # Consecutive mids whose ratio is anything, in and beyond the range where log1p is right by itself.
    stream["bid"] = 10.0 ** rng.uniform(-9, 9, EVENTS)
    stream["bid"][100:103] = (1e-140, 1e140, 3e-140)
    stream["ask"] = stream["bid"] * (1 + rng.exponential(0.1, EVENTS))


def _levels(stream: dict[str, Any], rng: np.random.Generator) -> None:
    # Of 0 to 12 levels, where 10 are read; one side alone; best levels of size 0; stated best prices.
    depth = 12
    bids, asks = np.full((2, EVENTS, depth, 2), np.nan)
    for i in range(EVENTS):
        counts = rng.integers(0, depth + 1, 2) if rng.random() < 0.9 else (0, 0)
        for side, count, step, best in ((bids, counts[0], -0.1, "bid"), (asks, counts[1], 0.1, "ask")):
            prices = np.round(stream[best][i] + step * np.cumsum(rng.integers(1, 4, count)), 1)
            side[i, :count] = np.column_stack([prices, np.round(rng.exponential(2.0, count), 3)])
        stream["bid"][i] = bids[i, 0, 0] if counts[0] and rng.random() < 0.5 else 0.0
        stream["ask"][i] = asks[i, 0, 0] if counts[1] and rng.random() < 0.5 else 0.0
    bids[rng.random(EVENTS) < 0.03, 0, 1] = 0.0
    for row in (40, 50, 60, 70):
        bids[row, :3] = [[stream["price"][row], 1.0], [stream["price"][row] - 0.1, 1.0], [np.nan, np.nan]]
        asks[row] = np.nan
        stream["kind"][row] = 0
        stream["bid"][row] = stream["ask"][row] = 0.0
    bids[40, 1, 0] = 0.0  # a price of 0 ends the side
    bids[50, 1, 0] = bids[50, 0, 0]
    stream["bid"][60] = 1.0  # not the best level's
    asks[70, 0] = bids[70, 1]
    stream.update(bids=bids, asks=asks)


def _bad_rows(stream: dict[str, Any], rng: np.random.Generator) -> None:
    places = iter(rng.permutation(EVENTS))
    for column, values in (
        ("bid", (np.nan, -1.0, 1e9, 1e151)),
        ("ask", (np.inf, -np.inf, -1.0)),
        ("bid_depth", (np.nan, -1.0)),
        ("ask_depth", (np.inf, -2.0)),
        ("ts", (0, -5, 1, START_NS)),
        ("kind", (7, -1)),
        ("price", (np.nan, 0.0, -3.0)),
        ("size", (np.inf, -1.0)),
        ("aggressor", (4, -2)),
    ):
        for value in values:
            place = next(places)
            stream[column][place] = value
            if column in ("price", "size", "aggressor"):
                stream["kind"][place] = 1


STREAMS: dict[str, Callable[[dict[str, Any], np.random.Generator], None]] = {
    "walk": _walk,
    "flat": _flat,
    "one_sided": _one_sided,
    "locked": _locked,
    "gaps": _gaps,
    "bad_print": _bad_print,
    "one_tick_at_1e5": _one_tick_at_1e5,
    "repeated_stamps": _repeated_stamps,
    "late_looks": _late_looks,
    "far_apart": _far_apart,
    "levels": _levels,
    "bad_rows": _bad_rows,
}


class Lab:
    """Cases, and what the backends make of them, each computed once."""

    disagreement = staticmethod(disagreement)
    head = staticmethod(head)
    features = FEATURES

    def __init__(self) -> None:
        self._outcomes: dict[tuple[str, str], Outcome] = {}

    @staticmethod
    def engine(backend: str, config: FeatureConfig) -> Any:
        """Make an engine; skip the test, saying why, where that backend is absent."""
        reason = available_backends()[backend]
        if reason:
            pytest.skip(f"backend {backend}: {reason}")
        module, name = ENGINES[backend]
        return getattr(import_module(module), name)(config)

    @staticmethod
    @cache
    def case(name: str) -> Case:
        """The case `stream-window`; the window "default" is that of a FeatureConfig that nobody touched."""
        stream, _, window = name.partition("-")
        parameters = {} if window == "default" else SMALL | WINDOWS[window]
        return Case(FeatureConfig(tick_size=0.1, **parameters), EventColumns(EVENTS, **make_stream(stream)))

    def run(self, backend: str, case: Case) -> Outcome:
        """Return what a fresh engine makes of a case."""
        out = np.empty((case.columns.rows, len(FEATURE_NAMES)))
        report = self.engine(backend, case.config).run(case.columns, out)
        return Outcome(out, report)

    def outcome(self, name: str, backend: str) -> Outcome:
        """Return what a fresh engine makes of the case of that name."""
        key = (name, backend)
        if key not in self._outcomes:
            self._outcomes[key] = self.run(backend, self.case(name))
        return self._outcomes[key]


@pytest.fixture(scope="session")
def lab() -> Lab:
    return Lab()


@pytest.fixture(params=[f"{stream}-{window}" for stream in STREAMS for window in WINDOWS] + ["walk-default"])
def case_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=list(ENGINES))
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)
