"""Deviations stay right where incremental formulas lose them: gaps, bad prints, frozen prices, large prices."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ami_engine.features import FeatureBuilder
from ami_engine.features.schema import FEATURE_INDEX, log_return

Make = Callable[..., FeatureBuilder]
SIGMA, SIGMA_5M, SPIKE = FEATURE_INDEX["sigma"], FEATURE_INDEX["sigma_5m"], FEATURE_INDEX["sigma_spike_z"]


def exact_std(values: list[float]) -> float:
    if not values:
        return 0.0
    fractions = [Fraction(value) for value in values]
    mean = sum(fractions, Fraction(0)) / len(fractions)
    return math.sqrt(sum(((x - mean) ** 2 for x in fractions), Fraction(0)) / len(fractions))


def ordinary(rng: np.random.Generator, n: int) -> npt.NDArray[np.float64]:
    return 100.0 * np.exp(np.cumsum(rng.normal(0, 1e-4, n)))


def gap(rng: np.random.Generator, n: int) -> npt.NDArray[np.float64]:
    mids = ordinary(rng, n)
    mids[n // 3 :] *= 1.5
    return mids


def bad_print(rng: np.random.Generator, n: int) -> npt.NDArray[np.float64]:
    mids = ordinary(rng, n)
    mids[n // 3] = 1e-6
    return mids


def frozen_then_moving(rng: np.random.Generator, n: int) -> npt.NDArray[np.float64]:
    mids = ordinary(rng, n)
    mids[n // 4 : n // 2] = mids[n // 4]
    return mids


def one_tick_moves_at_1e5(rng: np.random.Generator, n: int) -> npt.NDArray[np.float64]:
    return np.round(1e5 + np.cumsum(rng.integers(-1, 2, n)) * 0.01, 2)


@pytest.mark.parametrize("regime", [ordinary, gap, bad_print, frozen_then_moving, one_tick_moves_at_1e5])
def test_deviations_are_those_of_the_returns_to_the_last_digits(make: Make, regime: Callable[..., Any]) -> None:
    n, vol_window, steps = 260, 30, 70
    mids = regime(np.random.default_rng(11), n)
    builder = make(vol_window=vol_window, window_5m_steps=steps)
    rows = builder.run({"bid": mids, "ask": mids})
    returns = [log_return(b, a) for a, b in zip(mids.tolist(), mids[1:].tolist(), strict=False)]
    for i in range(n):
        assert rows[i, SIGMA] == pytest.approx(exact_std(returns[max(0, i - vol_window) : i]), rel=2e-14, abs=1e-19)
        assert rows[i, SIGMA_5M] == pytest.approx(exact_std(returns[max(0, i - steps + 1) : i]), rel=2e-14, abs=1e-19)


def test_a_frozen_price_is_exactly_still_once_the_last_move_has_left(make: Make) -> None:
    mids = np.r_[bad_print(np.random.default_rng(2), 40), np.full(60, 123.45)]
    rows = make(vol_window=20, window_5m_steps=20).run({"bid": mids, "ask": mids})
    assert (rows[-30:, [SIGMA, SIGMA_5M]] == 0.0).all()


def test_the_log_return_is_right_to_the_last_digits() -> None:
    import decimal

    rng = np.random.default_rng(8)
    with decimal.localcontext(prec=40):
        for _ in range(2_000):
            previous = 10 ** rng.uniform(-9, 9)
            mid = previous * 10 ** rng.uniform(-1, 1) ** 7
            x = (mid - previous) / previous
            exact = (1 + decimal.Decimal(x)).ln()
            assert abs(decimal.Decimal(log_return(mid, previous)) - exact) <= abs(exact) * decimal.Decimal("1e-15")


def test_the_log_return_is_finite_for_any_two_prices() -> None:
    for mid, previous in [(5e-324, 1e150), (1e150, 5e-324), (1.0, 1e-300), (1e-300, 1.0)]:
        expected = math.log(mid) - math.log(previous)
        assert log_return(mid, previous) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("window", [{"window_5m_steps": 50}, {"window_5m_steps": None, "window_5m_ms": 50}])
def test_no_drift_is_left_after_a_long_stream(make: Make, backend: str, window: dict[str, Any]) -> None:
    n = 2_000 if backend == "reference" else 100_000
    rng = np.random.default_rng(4)
    bid = np.round(60_000 + np.cumsum(rng.integers(-3, 4, n)) * 0.1, 1)
    table = {
        "bid": bid,
        "ask": np.round(bid + 0.1, 1),
        "bid_depth": rng.exponential(1.0, n) * 10.0 ** rng.integers(-6, 9, n),
        "ask_depth": rng.exponential(1.0, n) * 10.0 ** rng.integers(-6, 9, n),
    }
    long, short = make(**window), make(**window)
    row = long.run(table)[-1]
    # Whoever starts late enough to fill every window has the same sums, to the last digits.
    recent = short.run({name: column[-120:] for name, column in table.items()})[-1]
    names = ["sigma", "sigma_5m", "ofi_5m", "spread_med_5m", "depth_p10_5m"]
    for index in (FEATURE_INDEX[name] for name in names):
        assert row[index] == pytest.approx(recent[index], rel=1e-13, abs=0.0)


def test_the_greatest_moves_there_are_leave_no_trace(make: Make) -> None:
    mids = np.r_[np.tile([1e-300, 1e150, 1.0, 1e-12], 12), 100.0 + np.arange(90) % 3]
    rows = make(vol_window=20, window_5m_steps=40).run({"bid": mids, "ask": mids})
    returns = [log_return(b, a) for a, b in zip(mids.tolist(), mids[1:].tolist(), strict=False)]
    for i in range(1, len(mids)):
        assert rows[i, SIGMA] == pytest.approx(exact_std(returns[max(0, i - 20) : i]), rel=2e-14, abs=1e-19)
        assert rows[i, SIGMA_5M] == pytest.approx(exact_std(returns[max(0, i - 39) : i]), rel=2e-14, abs=1e-19)


@pytest.mark.parametrize("window", [{"window_5m_steps": 30}, {"window_5m_steps": None, "window_5m_ms": 30}])
def test_order_flow_is_the_sum_of_its_window_however_far_apart_the_sizes_are(
    make: Make, window: dict[str, Any]
) -> None:
    # More digits than three doubles hold, and then sizes of one order of magnitude again.
    rng = np.random.default_rng(6)
    n = 200
    size = rng.uniform(1.0, 2.0, n) * np.where(np.arange(n) < 100, 10.0 ** rng.integers(-60, 60, n), 1.0)
    bid = 100.0 + np.cumsum(rng.integers(-1, 2, n))
    rows = make(**window).run({"bid": bid, "ask": bid + 1.0, "bid_depth": size, "ask_depth": np.ones(n)})
    up, down = (np.diff(bid) >= 0).astype(float), (np.diff(bid) <= 0).astype(float)
    # Prices of the ask move with the bid's. The flow of one event is a double; what is exact is the sum of them.
    flows = [Fraction(x) for x in (((up * size[1:] - down * size[:-1]) - down) + up).tolist()]
    for i in range(1, n):
        terms = flows[max(0, i - 29) : i]
        exact = float(sum(terms, Fraction(0)))
        scale = float(max(map(abs, terms)))
        assert rows[i, FEATURE_INDEX["ofi_5m"]] == pytest.approx(exact, rel=1e-13, abs=1e-30 * scale)
