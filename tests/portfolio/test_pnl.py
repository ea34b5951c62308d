"""Equity, marked at every step, against the identity that defines it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ami_engine.events import Fill, Side
from ami_engine.portfolio import Account
from ami_engine.units import Instrument

INVERSE = Instrument("I", tick_size=0.1, lot_size=1, multiplier=100, kind="inverse", currency="BTC")


def fill(signed_qty: float, price: float, market: str = "X", fee: float = 0.0) -> Fill:
    side = Side.BUY if signed_qty > 0 else Side.SELL
    return Fill(
        trade_id="t", client_order_id="c", market_id=market, side=side, price=price, qty=abs(signed_qty), fee=fee
    )


def test_equity_moves_with_the_mark_only_while_something_is_held() -> None:
    account = Account(cash=100.0)
    assert account.mark("X", 10.0) == 100.0
    account.apply(fill(2, 10.5))
    assert account.equity == 99.0  # at the mark, not at the fill's price
    assert account.mark("X", 12.0) == 103.0
    assert account.unrealized == 3.0
    account.apply(fill(-2, 12.0, fee=0.5))
    assert (account.equity, account.unrealized, account.realized, account.fees, account.cash) == (
        102.5,
        0.0,
        3.0,
        0.5,
        102.5,
    )
    assert account.mark("X", 50.0) == 102.5


def test_a_market_without_a_mark_is_marked_at_its_fill() -> None:
    account = Account()
    account.apply(fill(2, 10.0))
    assert (account.equity, account.mark_of("X"), account.exposure_usd("X")) == (0.0, 10.0, 20.0)


@pytest.mark.parametrize("price", [float("nan"), 0.0, -1.0])
def test_a_mark_that_is_no_price_leaves_the_last_one(price: float) -> None:
    account = Account()
    account.apply(fill(2, 10.0))
    account.mark("X", 11.0)
    assert account.mark("X", price) == 2.0
    assert account.mark_of("X") == 11.0


def test_drawdown_is_the_deepest_fall_from_a_peak() -> None:
    account = Account(cash=10.0)
    account.apply(fill(1, 10.0))
    for price in (12.0, 9.0, 11.0, 15.0, 13.0):
        account.mark("X", price)
    assert (account.peak, account.max_drawdown, account.drawdown) == (15.0, 3.0, 2.0)


def test_a_first_loss_is_a_drawdown_from_the_start() -> None:
    account = Account(cash=10.0)
    account.apply(fill(1, 10.0, fee=1.0))
    assert (account.max_drawdown, account.peak) == (1.0, 10.0)


def test_positions_opened_and_closed_are_counted_and_a_flip_is_both() -> None:
    account = Account()
    for signed_qty in (1, 1, -1, -1, -2, 3, -1):
        account.apply(fill(signed_qty, 10.0))
    assert (account.open_count, account.close_count) == (3, 3)


def test_exposure_is_gross_over_markets() -> None:
    account = Account({"A": Instrument("A", multiplier=2)}, instrument=Instrument("B"))
    account.apply(fill(3, 10.0, "A"))
    account.apply(fill(-4, 5.0, "B"))
    assert (account.exposure_usd("A"), account.exposure_usd("B"), account.exposure_usd()) == (60.0, 20.0, 80.0)
    account.mark("B", 6.0)
    assert account.exposure_usd() == 84.0
    assert (account.unrealized_of("B"), account.unrealized_of("none")) == (-4.0, 0.0)
    account.apply(fill(4, 6.0, "B"))
    assert account.exposure_usd() == 60.0
    assert account.held_markets() == ("A",)


def test_an_inverse_position_is_worth_coin_and_exposed_in_usd() -> None:
    account = Account(instrument=INVERSE, cash=1.0)
    account.apply(fill(100, 50_000.0, fee=0.0001))
    assert account.mark("X", 40_000.0) == pytest.approx(1.0 - 0.0001 + 0.2 - 0.25, rel=1e-14)
    assert account.exposure_usd() == 10_000.0


def test_equity_is_cash_plus_position_at_every_step_of_a_long_run() -> None:
    generator = random.Random(11)
    markets = {"A": Instrument("A", tick_size=0.1), "B": Instrument("B", tick_size=0.25, multiplier=50)}
    account = Account(markets, cash=1_000_000.0)
    marks = {"A": 60_000.0, "B": 4_800.0}
    for _ in range(4_000):
        market = generator.choice("AB")
        step = markets[market].tick_size
        marks[market] += generator.choice((-3, -1, 0, 1, 3)) * step
        if generator.random() < 0.7:
            signed_qty = (
                generator.choice((-0.037, -0.01, 0.013, 0.05)) if market == "A" else generator.choice((-2, -1, 1, 3))
            )
            account.apply(fill(signed_qty, marks[market] + step, market, fee=generator.uniform(-0.01, 0.05)))
        equity = account.mark(market, marks[market])
        held = sum(account.positions.position(m) * i.multiplier * account.mark_of(m) for m, i in markets.items())
        scale = max(1.0, abs(account.cash), abs(held))
        assert abs(equity - (account.cash + held)) <= 1e-9 * scale
        parts = account.start + account.realized + account.unrealized - account.fees
        assert abs(equity - parts) <= 1e-9


steps = st.lists(
    st.tuples(
        st.sampled_from(["X", "Y"]),
        st.integers(min_value=-300, max_value=300).map(lambda n: n / 100),
        st.integers(min_value=50, max_value=20_000).map(lambda n: n / 100),
        st.integers(min_value=-9, max_value=9).map(lambda n: n / 1_000),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(steps, st.booleans())
def test_the_identities_hold_for_any_fills(moves: list[tuple[str, float, float, float]], is_inverse: bool) -> None:
    instrument = INVERSE if is_inverse else Instrument("X", multiplier=5)
    account = Account(instrument=instrument, cash=50.0)
    peak, deepest = 50.0, 0.0
    for market, signed_qty, price, fee in moves:
        equities = []
        if signed_qty:
            account.apply(fill(signed_qty, price, market, fee))
            equities.append(account.equity)
        equities.append(account.mark(market, price * 1.01))
        for equity in equities:
            peak = max(peak, equity)
            deepest = max(deepest, peak - equity)
        assert account.max_drawdown == deepest
        assert account.peak == peak
        held = 0.0
        for name in account.positions.markets:
            qty, mark = account.positions.position(name), account.mark_of(name)
            if is_inverse and qty:
                held += qty * 100 * (1 / account.positions.avg_price(name) - 1 / mark)
            elif not is_inverse:
                held += qty * 5 * mark
        assert account.equity == pytest.approx(account.cash + held, rel=1e-9, abs=1e-9)
        assert account.equity == pytest.approx(
            account.start + account.realized + account.unrealized - account.fees, rel=1e-12, abs=1e-9
        )
        assert 0 <= account.open_count - account.close_count <= 2
