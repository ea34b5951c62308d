"""Signals: their definitions in exact fractions, from when on they are there, and what moves them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ami_engine.errors import ConfigError
from ami_engine.features import FEATURE_NAMES, FeatureBuilder, FeatureConfig, build_features, run_many
from ami_engine.features.schema import BASE_FEATURE_COUNT, FEATURE_INDEX

Make = Callable[..., FeatureBuilder]
Floats = npt.NDArray[np.float64]

MOMENTUM, TREND = FEATURE_INDEX["momentum"], FEATURE_INDEX["trend_strength"]
REVERSION, PERCENTILE = FEATURE_INDEX["mean_reversion"], FEATURE_INDEX["spread_percentile"]
K, M, LAG = 4, 7, 3
STEPS: dict[str, Any] = {"momentum_steps": K, "ma_steps": M, "trend_lag_steps": LAG}


def exact_signals(mids: list[float]) -> tuple[Fraction, Fraction, Fraction]:
    """Momentum, trend and reversion after the last of the mids, without any rounding."""
    exact = [Fraction(mid) for mid in mids]
    now = exact[-1]
    momentum = trend = reversion = Fraction(0)
    if len(exact) > K:
        momentum = now / exact[-1 - K] - 1
    if len(exact) >= M:
        average = sum(exact[-M:], Fraction(0)) / M
        reversion = (average - now) / now
        if len(exact) >= M + LAG:
            trend = abs(average - sum(exact[-M - LAG : -LAG], Fraction(0)) / M) / LAG / now
    return momentum, trend, reversion


def average_rank(spreads: Floats) -> float:
    """Rank of the last spread among all, ties at their mean, as a share of their number."""
    order = np.sort(spreads)
    first, last = np.searchsorted(order, spreads[-1], "left"), np.searchsorted(order, spreads[-1], "right")
    return float(np.mean(np.arange(first + 1, last + 1)) / len(spreads))


def one_tick_moves_at_60_000(rng: np.random.Generator, n: int) -> Floats:
    return np.round(60_000 + np.cumsum(rng.integers(-1, 2, n)) * 0.1, 1)


def after_a_gap(rng: np.random.Generator, n: int) -> Floats:
    mids = one_tick_moves_at_60_000(rng, n)
    mids[n // 2 :] *= 0.5
    return mids


def bad_prints(rng: np.random.Generator, n: int) -> Floats:
    mids = one_tick_moves_at_60_000(rng, n)
    mids[[n // 5, n // 3, n // 2, n // 2 + 2]] = (6.0, 6e9, 1e-3, 7e15)
    return mids


def frozen(rng: np.random.Generator, n: int) -> Floats:
    return np.r_[bad_prints(rng, n - 2 * M), np.full(2 * M, 12_345.67)]


def any_magnitude(rng: np.random.Generator, n: int) -> Floats:
    return np.r_[10.0 ** rng.uniform(-100, 100, n - 3 * M), one_tick_moves_at_60_000(rng, 3 * M)]


@pytest.mark.parametrize("regime", [one_tick_moves_at_60_000, after_a_gap, bad_prints, frozen, any_magnitude])
def test_signals_of_mids_are_exact_in_every_regime(make: Make, regime: Callable[..., Floats]) -> None:
    mids = regime(np.random.default_rng(3), 160)
    rows = make(**STEPS).run({"bid": mids, "ask": mids})
    for i in range(len(mids)):
        told = rows[i, [MOMENTUM, TREND, REVERSION]].tolist()
        for value, exact in zip(told, exact_signals(mids[: i + 1].tolist()), strict=True):
            assert abs(Fraction(value) - exact) <= abs(exact) * Fraction(2, 10**15)


def test_the_default_steps_are_those_of_the_definitions(make: Make) -> None:
    mids = one_tick_moves_at_60_000(np.random.default_rng(1), 60)
    row = make().run({"bid": mids, "ask": mids})[-1]
    assert row[MOMENTUM] == pytest.approx(mids[-1] / mids[-11] - 1, abs=3e-16)
    means = float(np.mean(mids[-20:])), float(np.mean(mids[-25:-5]))
    assert row[TREND] == pytest.approx(abs(means[0] - means[1]) / 5 / mids[-1], abs=1e-15)
    assert row[REVERSION] == pytest.approx((means[0] - mids[-1]) / mids[-1], abs=1e-15)


@pytest.mark.parametrize(
    "steps",
    [
        {},
        STEPS,
        {"momentum_steps": 1, "ma_steps": 1, "trend_lag_steps": 1},
        {"momentum_steps": 40, "ma_steps": 3, "trend_lag_steps": 31},
    ],
)
def test_each_signal_is_0_until_its_mids_were_seen_and_no_longer(make: Make, steps: dict[str, int]) -> None:
    config = FeatureConfig(**steps)
    mids = 100.0 * 1.001 ** np.arange(80)
    rows = make(**steps).run({"bid": mids, "ask": mids * 1.001})
    firsts = {
        MOMENTUM: config.momentum_steps + 1,
        TREND: config.ma_steps + config.trend_lag_steps,
        # The average of one mid is the mid.
        REVERSION: config.ma_steps if config.ma_steps > 1 else 81,
        PERCENTILE: 1,
    }
    for column, first in firsts.items():
        assert (rows[: first - 1, column] == 0.0).all()
        assert (rows[first - 1 :, column] != 0.0).all()


def test_before_the_first_mid_all_are_0(make: Make) -> None:
    builder = make()
    builder.push_trade(1, 100.0, 1.0, 1)
    assert builder.view[BASE_FEATURE_COUNT:].tolist() == [0.0] * 4
    builder.push(2, 100.0, 0.0, 1.0, 0.0)
    assert builder.view[BASE_FEATURE_COUNT:].tolist() == [0.0] * 4


def test_trades_and_one_sided_books_repeat_them_and_enter_nothing(make: Make) -> None:
    mids = one_tick_moves_at_60_000(np.random.default_rng(5), 40)
    plain, mixed = make(**STEPS), make(**STEPS)
    for i, mid in enumerate(mids.tolist()):
        ts = 10 * (i + 1)
        plain.push(ts, mid, mid + 0.1 * (i % 3), 1.0, 1.0)
        mixed.push(ts, mid, mid + 0.1 * (i % 3), 1.0, 1.0)
        expected = plain.view[BASE_FEATURE_COUNT:].tolist()
        mixed.push_trade(ts + 1, 2.0 * mid, 1.0, 1)
        assert mixed.view[BASE_FEATURE_COUNT:].tolist() == expected
        mixed.push(ts + 2, mid - 5.0, 0.0, 1.0, 0.0)
        assert mixed.view[BASE_FEATURE_COUNT:].tolist() == expected


def test_time_takes_spreads_out_of_the_window_but_not_the_last(make: Make) -> None:
    builder = make(window_5m_steps=None, window_5m_ms=10.0)
    for ms, spread in ((1, 5.0), (2, 1.0), (3, 3.0)):
        builder.push(ms * 1_000_000, 100.0, 100.0 + spread, 1.0, 1.0)
    assert builder.view[PERCENTILE] == 2 / 3
    builder.push_trade(11_000_000, 100.0, 1.0, 1)  # the first spread leaves, which was wider
    assert builder.view[PERCENTILE] == 1.0
    builder.push(500_000_000, 100.0, 0.0, 1.0, 0.0)
    assert builder.view[PERCENTILE] == 1.0


SPREADS: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "five values": lambda rng, n: rng.integers(1, 6, n) * 0.5,
    "all distinct": lambda rng, n: rng.permutation(n) / 4096 + 1 / 8192,
    "rising": lambda rng, n: 1.0 + np.arange(n) / 1024,
    "falling": lambda rng, n: 9.0 - np.arange(n) / 1024,
    "a grid among others": lambda rng, n: np.where(
        rng.random(n) < 0.5, rng.integers(0, 6, n) * 0.125, rng.permutation(n) / 8192
    ),
    "few, then many, then few": lambda rng, n: np.r_[
        np.full(n // 3, 0.25), rng.permutation(n // 3) / 4096, np.full(n - 2 * (n // 3), 0.5)
    ],
}


@pytest.mark.parametrize("name", SPREADS)
@pytest.mark.parametrize("window", [1, 2, 37, 300, 1_500])
def test_the_percentile_is_the_average_rank(make: Make, backend: str, name: str, window: int) -> None:
    n = 400 if backend == "reference" else 4_000
    spreads = SPREADS[name](np.random.default_rng(window), n)
    bid = np.full(n, 32.0)
    ask = bid + spreads
    rows = make(window_5m_steps=window).run({"bid": bid, "ask": ask})
    seen = ask - bid
    for i in (*range(0, n, 61), n - 1):
        assert rows[i, PERCENTILE] == pytest.approx(average_rank(seen[max(0, i - window + 1) : i + 1]), rel=1e-15)


def test_the_percentile_holds_in_a_long_window_by_time(make: Make, backend: str) -> None:
    rng = np.random.default_rng(7)
    n, window_ms = (600, 200) if backend == "reference" else (20_000, 9_000)
    ts = np.cumsum(rng.choice([0, 1, 2, 400], n, p=[0.3, 0.4, 0.2999, 0.0001])) * 1_000_000 + 1_000_000
    bid = np.full(n, 32.0)
    ask = bid + rng.permutation(n) / 4096
    rows = make(window_5m_steps=None, window_5m_ms=window_ms).run({"ts_ns": ts, "bid": bid, "ask": ask})
    spreads = ask - bid
    for i in (*range(0, n, 499), n - 1):
        in_window = spreads[: i + 1][ts[: i + 1] > ts[i] - window_ms * 1_000_000]
        assert rows[i, PERCENTILE] == pytest.approx(average_rank(in_window), rel=1e-15)


@settings(max_examples=60, deadline=None)
@given(
    window=st.sampled_from([1, 2, 5, 60, 600]),
    by_time=st.booleans(),
    draws=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 3), st.booleans()), min_size=1, max_size=1_200),
)
def test_native_ranks_any_sequence_of_spreads(window: int, by_time: bool, draws: list[tuple[int, int, bool]]) -> None:
    builder = FeatureBuilder(
        FeatureConfig(window_5m_steps=None if by_time else window, window_5m_ms=window if by_time else None)
    )
    spreads = np.array([(value % 5 if is_coarse else value) / 64 for value, _, is_coarse in draws])
    ts = np.cumsum([step for _, step, _ in draws]) * 1_000_000 + 1_000_000
    bid = np.full(len(draws), 8.0)
    rows = builder.run({"ts_ns": ts, "bid": bid, "ask": bid + spreads})
    for i in range(0, len(draws), 7):
        seen = spreads[: i + 1]
        in_window = seen[ts[: i + 1] > ts[i] - window * 1_000_000] if by_time else seen[-window:]
        assert rows[i, PERCENTILE] == pytest.approx(average_rank(in_window), rel=1e-15)


# Rows with and without. ----------------------------------------------------------------------------------------------


def test_without_signals_the_row_ends_before_them(make: Make, mixed_stream: dict[str, Any]) -> None:
    whole, short = make(), make(signals=False)
    rows, short_rows = whole.run(mixed_stream), short.run(mixed_stream)
    assert short.names == FEATURE_NAMES[:BASE_FEATURE_COUNT]
    assert short_rows.shape == (len(rows), BASE_FEATURE_COUNT)
    assert np.array_equal(short_rows, rows[:, :BASE_FEATURE_COUNT], equal_nan=True)
    assert short.view.shape == (BASE_FEATURE_COUNT,)
    vector = short.vector()
    assert len(vector) == BASE_FEATURE_COUNT == len(vector.as_dict()) == len(list(vector))
    assert "momentum" not in vector
    assert vector.get("momentum", "none") == "none"
    assert not hasattr(vector, "momentum")
    with pytest.raises(KeyError):
        vector["momentum"]
    assert np.asarray(vector).shape == (BASE_FEATURE_COUNT,)
    assert pickle.loads(pickle.dumps(vector)).as_dict() == pytest.approx(vector.as_dict(), nan_ok=True)
    with pytest.raises(ValueError, match="must be a writable"):
        short.run(mixed_stream, np.empty_like(rows))


@pytest.mark.parametrize("signals", [True, False])
def test_a_restored_builder_goes_on_and_another_row_is_refused(
    make: Make, mixed_stream: dict[str, Any], signals: bool
) -> None:
    windows = {"window_5m_ms": 200.0, "window_5m_steps": 90, "signals": signals, **STEPS}
    whole = make(**windows)
    rows = whole.run(mixed_stream)
    half = {name: column[:300] for name, column in mixed_stream.items()}
    rest = {name: column[300:] for name, column in mixed_stream.items()}
    first = make(**windows)
    first.run(half)
    second = pickle.loads(pickle.dumps(first))
    assert np.array_equal(second.run(rest), rows[300:], equal_nan=True)
    assert second.snapshot() == whole.snapshot()
    with pytest.raises(ValueError, match="another FeatureConfig"):
        make(**{**windows, "signals": not signals}).restore(whole.snapshot())


def test_one_table_of_many_symbols_has_rows_of_one_length() -> None:
    table = {"symbol": np.array(["A", "B"]), "bid": np.array([1.0, 2.0]), "ask": np.array([1.5, 2.5])}
    short = FeatureConfig(signals=False)
    assert run_many(table, config=short).rows.shape == (2, BASE_FEATURE_COUNT)
    kept = {"A": FeatureBuilder(short), "B": FeatureBuilder(short)}
    assert run_many(table, builders=kept).rows.shape == (2, BASE_FEATURE_COUNT)
    with pytest.raises(ConfigError, match="same `signals` for every symbol"):
        run_many(table, config={"A": short, "B": FeatureConfig()})


@pytest.mark.parametrize("name", ["momentum_steps", "ma_steps", "trend_lag_steps"])
def test_steps_of_signals_must_be_at_least_1(name: str) -> None:
    for value in (0, -1, 1.5, True):
        with pytest.raises(ConfigError, match=f"`{name}` must be an integer from 1"):
            FeatureConfig(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="`signals` must be True or False"):
        FeatureConfig(signals=1)  # type: ignore[arg-type]


def test_histories_give_the_signals_of_a_stream() -> None:
    rng = np.random.default_rng(2)
    mids = one_tick_moves_at_60_000(rng, 40)
    spreads = rng.integers(1, 5, 40) * 0.5
    builder = FeatureBuilder(FeatureConfig(window_5m_steps=30))
    for mid, spread in zip(mids.tolist(), spreads.tolist(), strict=True):
        vector = builder.update({"bid": mid - spread / 2, "ask": mid + spread / 2})
    event = {"bid": mids[-1] - spreads[-1] / 2, "ask": mids[-1] + spreads[-1] / 2}
    told = build_features(
        event, mid_history=mids[:-1], spread_history=spreads[:-1], config=FeatureConfig(window_5m_steps=30)
    )
    for name in FEATURE_NAMES[BASE_FEATURE_COUNT:]:
        assert told[name] == pytest.approx(vector[name], rel=1e-12)
        assert told[name] != 0.0
    short = build_features(event, mid_history=mids, spread_history=spreads, config=FeatureConfig(signals=False))
    assert list(short) == list(FEATURE_NAMES[:BASE_FEATURE_COUNT])
