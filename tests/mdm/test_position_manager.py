"""Exits of positions: long and short, folding, rounding at the limits."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ami_engine.errors import ConfigError
from ami_engine.mdm import PositionManager


def manager(tp: float = 1, sl: float = 3, tick: float = 0.01, longest: float = 120_000) -> PositionManager:
    return PositionManager(tp_ticks=tp, sl_ticks=sl, tick_size=tick, T_max_ms=longest)


@pytest.mark.parametrize(
    ("sign", "ticks", "reason"),
    [
        (1, 1, "take_profit"),
        (1, 2, "take_profit"),
        (1, 0.99, ""),
        (1, 0, ""),
        (1, -2.99, ""),
        (1, -3, "stop_loss"),
        (1, -9, "stop_loss"),
        (-1, -1, "take_profit"),
        (-1, 1, ""),
        (-1, 2.99, ""),
        (-1, 3, "stop_loss"),
    ],
)
def test_profit_is_taken_and_loss_stopped_for_long_and_short(sign: int, ticks: float, reason: str) -> None:
    positions = manager()
    positions.register_fill("X", 0.5, sign * 10.0, 0)
    assert positions.should_flatten("X", 0.5 + 0.01 * ticks, 1_000) == (bool(reason), reason)


@given(
    st.sampled_from([(1, 0.01), (1, 0.1), (25, 0.01), (5, 1.0), (1, 1e-8)]), st.integers(4, 50_000_000), st.booleans()
)
def test_a_limit_counts_at_exactly_its_distance(grid: tuple[int, float], ticks: int, is_long: bool) -> None:
    """Prices on the grid, one tick apart, at any height: binary rounding never hides or invents a tick."""
    steps, unit = grid
    tick = steps * unit
    price = [(ticks + i) * steps / round(1 / unit) for i in range(-3, 4)]
    sign = 1 if is_long else -1
    positions = manager(tick=tick)
    positions.register_fill("X", price[3], float(sign), 0)
    for i in range(-3, 4):
        won = i * sign
        expected = "take_profit" if won >= 1 else "stop_loss" if won <= -3 else ""
        assert positions.should_flatten("X", price[3 + i], 0)[1] == expected


def test_time_stops_at_the_longest_time_or_later() -> None:
    positions = manager()
    positions.register_fill("X", 0.5, 1.0, 1_000)
    assert positions.should_flatten("X", 0.5, 120_999) == (False, "")
    assert positions.should_flatten("X", 0.5, 121_000) == (True, "time_stop")
    assert positions.should_flatten("X", 0.51, 999_000) == (True, "take_profit")


@pytest.mark.parametrize("mid", [math.nan, math.inf, -math.inf])
def test_without_a_mid_only_time_counts(mid: float) -> None:
    positions = manager()
    positions.register_fill("X", 0.5, 1.0, 0)
    assert positions.should_flatten("X", mid, 1) == (False, "")
    assert positions.should_flatten("X", mid, 120_000) == (True, "time_stop")


def test_a_market_without_a_position_has_nothing_to_flatten() -> None:
    positions = manager()
    assert positions.should_flatten("X", 0.5, 10**9) == (False, "")
    assert positions.unrealized_pnl("X", 0.5) == 0.0
    positions.on_position_closed("X")


def test_adding_moves_the_average_and_keeps_the_time() -> None:
    positions = manager(tp=1, tick=1.0)
    positions.register_fill("X", 100.0, 1.0, 0)
    positions.register_fill("X", 104.0, 3.0, 100_000)
    assert positions.unrealized_pnl("X", 103.0) == 0.0
    assert positions.should_flatten("X", 103.0, 120_000) == (True, "time_stop")


def test_reducing_keeps_the_average() -> None:
    positions = manager(tick=1.0)
    positions.register_fill("X", 100.0, -4.0, 0)
    positions.register_fill("X", 90.0, 3.0, 1)
    assert positions.unrealized_pnl("X", 98.0) == 2.0


def test_a_flip_opens_a_new_position_at_its_own_price_and_time() -> None:
    positions = manager(tick=1.0)
    positions.register_fill("X", 100.0, 2.0, 0)
    positions.register_fill("X", 110.0, -5.0, 60_000)
    assert positions.unrealized_pnl("X", 108.0) == 6.0
    assert positions.should_flatten("X", 110.0, 179_999) == (False, "")
    assert positions.should_flatten("X", 110.0, 180_000) == (True, "time_stop")


def test_fills_that_cancel_leave_nothing() -> None:
    positions = manager()
    for qty in (0.1, 0.2, -0.3):
        positions.register_fill("X", 0.5, qty, 0)
    assert positions.should_flatten("X", 0.9, 10**9) == (False, "")
    positions.register_fill("X", 0.7, -1.0, 0)
    assert positions.should_flatten("X", 0.69, 1) == (True, "take_profit")


def test_a_small_rest_of_a_position_is_a_position() -> None:
    positions = manager(tick=1.0)
    positions.register_fill("X", 100.0, 1_000.0, 0)
    positions.register_fill("X", 100.0, -999.999, 0)
    assert positions.should_flatten("X", 101.0, 0) == (True, "take_profit")


def test_markets_do_not_know_each_other_and_a_closed_one_is_forgotten() -> None:
    positions = manager()
    positions.register_fill("X", 0.5, 1.0, 0)
    positions.register_fill("Y", 0.9, -1.0, 0)
    assert positions.should_flatten("X", 0.51, 0) == (True, "take_profit")
    assert positions.should_flatten("Y", 0.9, 0) == (False, "")
    positions.on_position_closed("X")
    assert positions.should_flatten("X", 0.51, 0) == (False, "")
    assert positions.should_flatten("Y", 0.89, 0) == (True, "take_profit")


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(-8, 8)), max_size=40), st.integers(1, 400))
def test_folding_agrees_with_exact_arithmetic(fills: list[tuple[int, int]], mid: int) -> None:
    positions = manager(tick=0.25)
    qty, average = Fraction(0), Fraction(0)
    for ticks, lots in fills:
        price, size = Fraction(ticks, 4), Fraction(lots, 10)
        positions.register_fill("X", float(price), float(size), 0)
        after = qty + size
        if after == 0:
            average = Fraction(0)
        elif qty * size >= 0:
            average = (qty * average + size * price) / after
        elif after * qty < 0:
            average = price
        qty = after
    exact = float(qty * (Fraction(mid, 4) - average))
    assert positions.unrealized_pnl("X", mid / 4) == pytest.approx(exact, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("price", "qty", "ts"),
    [(0.0, 1.0, 0), (-1.0, 1.0, 0), (math.nan, 1.0, 0), (math.inf, 1.0, 0), (1.0, math.nan, 0), (1.0, 1.0, math.inf)],
)
def test_a_fill_that_is_no_fill_is_refused_and_changes_nothing(price: float, qty: float, ts: float) -> None:
    positions = manager()
    positions.register_fill("X", 0.5, 1.0, 0)
    with pytest.raises(ValueError, match="must be finite"):
        positions.register_fill("X", price, qty, ts)
    assert positions.unrealized_pnl("X", 0.75) == 0.25


@pytest.mark.parametrize("name", ["tp_ticks", "sl_ticks", "tick_size", "T_max_ms"])
@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_a_limit_that_would_fire_at_once_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"`{name}` must be .*> 0"):
        PositionManager(**{name: value})


def test_infinity_is_off() -> None:
    positions = manager(tp=math.inf, sl=math.inf, longest=math.inf)
    positions.register_fill("X", 0.5, 1.0, 0)
    for mid in (0.01, 99.0):
        assert positions.should_flatten("X", mid, 10**15) == (False, "")
