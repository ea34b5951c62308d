"""Median, percentile and maximum are NumPy's to the last bit, whatever the values, their order and the window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ami_engine.features import FeatureBuilder, available_backends
from ami_engine.features.schema import FEATURE_INDEX

Make = Callable[..., FeatureBuilder]
Floats = npt.NDArray[np.float64]

MEDIAN = FEATURE_INDEX["spread_med_5m"]
PERCENTILE = FEATURE_INDEX["depth_p10_5m"]
MAXIMUM = FEATURE_INDEX["staleness_max_5m"]
ROWS = 3_400


@pytest.fixture(params=["native", "numba"])
def backend(request: pytest.FixtureRequest) -> str:
    # The reference backend takes NumPy's answer itself.
    reason = available_backends()[request.param]
    if reason:
        pytest.skip(f"backend {request.param}: {reason}")
    return str(request.param)


def on_a_grid(rng: np.random.Generator, n: int) -> Floats:
    return rng.integers(1, 6, n).astype(float)


def continuous(rng: np.random.Generator, n: int) -> Floats:
    return rng.lognormal(size=n)


def rising(rng: np.random.Generator, n: int) -> Floats:
    return 1.0 + np.arange(n) / 64


def falling(rng: np.random.Generator, n: int) -> Floats:
    return rising(rng, n)[::-1].copy()


def saw(rng: np.random.Generator, n: int) -> Floats:
    return 1.0 + (np.arange(n) % 331) / 8


def jumping_levels(rng: np.random.Generator, n: int) -> Floats:
    return np.repeat(rng.uniform(1, 1e6, n // 50 + 1), 50)[:n] + rng.uniform(size=n)


def grid_among_wild_values(rng: np.random.Generator, n: int) -> Floats:
    return np.where(rng.uniform(size=n) < 0.6, on_a_grid(rng, n), continuous(rng, n))


def grid_then_continuous_then_grid(rng: np.random.Generator, n: int) -> Floats:
    return np.concatenate([on_a_grid(rng, n // 3), continuous(rng, n // 3), on_a_grid(rng, n - 2 * (n // 3))])


def frozen(rng: np.random.Generator, n: int) -> Floats:
    return np.full(n, 0.75)


SERIES = [
    on_a_grid,
    continuous,
    rising,
    falling,
    saw,
    jumping_levels,
    grid_among_wild_values,
    grid_then_continuous_then_grid,
    frozen,
]


def quotes(values: Floats, ts_ms: npt.NDArray[np.int64] | None = None) -> dict[str, npt.NDArray[Any]]:
    # Bid and ask are chosen so that the spread is exactly the value, and so is the depth; staleness is as many µs.
    n = len(values)
    times = 1 + np.arange(n, dtype=np.int64) if ts_ms is None else ts_ms
    spread = np.round(values * 1024) / 1024
    bid = np.full(n, 1024.0)
    now_ns = times * 1_000_000 + np.round(values * 1_000).astype(np.int64)
    return {
        "ts_ms": times,
        "bid": bid,
        "ask": bid + spread,
        "bid_depth": values,
        "ask_depth": np.zeros(n),
        "now_ns": now_ns,
    }


def assert_rows_are_numpys(table: dict[str, npt.NDArray[Any]], out: Floats, first: npt.NDArray[np.int64]) -> None:
    spread, depth = table["ask"] - table["bid"], table["bid_depth"]
    staleness = (table["now_ns"] - table["ts_ms"] * 1_000_000) / 1e6
    n = len(depth)
    for i in [*range(0, n, 53), *range(n // 3, n // 3 + 70), n - 1]:
        assert out[i, MEDIAN] == np.median(spread[first[i] : i + 1]), i
        assert out[i, PERCENTILE] == np.percentile(depth[first[i] : i + 1], 10), i
        assert out[i, MAXIMUM] == staleness[first[i] : i + 1].max(), i


@pytest.mark.parametrize("series", SERIES)
@pytest.mark.parametrize("window", [2, 15, 16, 17, 63, 64, 300, 1_024, 1_500])
def test_by_count(make: Make, series: Callable[..., Floats], window: int) -> None:
    table = quotes(series(np.random.default_rng(3), ROWS))
    out = make(window_5m_steps=window).run(table)
    assert_rows_are_numpys(table, out, np.maximum(0, np.arange(ROWS) - window + 1))


@pytest.mark.parametrize("series", SERIES)
def test_by_time_while_the_window_swells_and_shrinks(make: Make, series: Callable[..., Floats]) -> None:
    # 1 ms apart, then 20 ms, then 1 ms: a window of 1.6 s holds 1 600 samples, 80, 1 600, and one after a long pause.
    steps = np.ones(ROWS, dtype=np.int64)
    steps[1_650:1_750] = 20
    steps[-20] = 60_000
    ts_ms = np.cumsum(steps)
    table = quotes(series(np.random.default_rng(4), ROWS), ts_ms)
    out = make(window_5m_steps=None, window_5m_ms=1_600).run(table)
    assert_rows_are_numpys(table, out, np.searchsorted(ts_ms, ts_ms - 1_600, side="right"))


@pytest.mark.parametrize("series", SERIES)
@pytest.mark.parametrize(("window", "at"), [(9, 401), (17, 64), (300, 700), (1_500, 900), (1_500, 1_700)])
def test_a_restored_builder_goes_on(make: Make, series: Callable[..., Floats], window: int, at: int) -> None:
    table = quotes(series(np.random.default_rng(5), ROWS))
    builder, twin = make(window_5m_steps=window), make(window_5m_steps=window)
    builder.run({name: column[:at] for name, column in table.items()})
    twin.run({name: column[:50] for name, column in table.items()})
    twin.restore(builder.snapshot())
    rest = {name: column[at:] for name, column in table.items()}
    assert np.array_equal(twin.run(rest), builder.run(rest), equal_nan=True)
    assert twin.snapshot() == builder.snapshot()


def test_a_trend_that_ends(make: Make) -> None:
    # Long enough for whatever serves a trend to give way again to what serves a market that stays where it is.
    rng = np.random.default_rng(6)
    n = 75_000
    values = np.concatenate([1.0 + np.arange(9_000) / 64, continuous(rng, n - 9_000)])
    table = quotes(values)
    out = make(window_5m_steps=120).run(table)
    for i in [*range(0, n, 1_999), n - 1]:
        first = max(0, i - 119)
        assert out[i, MEDIAN] == np.median((table["ask"] - table["bid"])[first : i + 1]), i
        assert out[i, PERCENTILE] == np.percentile(values[first : i + 1], 10), i
