"""Fills folded into positions, exactly."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ami_engine.errors import ConfigError, VenueProtocolError
from ami_engine.events import Fill, Side
from ami_engine.portfolio import FillResult, Positions
from ami_engine.units import Instrument

INVERSE = Instrument("I", tick_size=0.1, lot_size=1, multiplier=100, kind="inverse", currency="BTC")


def fill(signed_qty: float, price: float, *, market: str = "X", fee: float = 0.0, currency: str = "") -> Fill:
    return Fill(
        trade_id="t",
        client_order_id="c",
        market_id=market,
        side=Side.BUY if signed_qty > 0 else Side.SELL,
        price=price,
        qty=abs(signed_qty),
        fee=fee,
        fee_currency=currency,
    )


def test_a_new_book_is_flat() -> None:
    book = Positions(cash=5.0)
    assert (book.position("X"), book.avg_price("X"), book.cash, book.realized, book.fees) == (0.0, 0.0, 5.0, 0.0, 0.0)
    assert book.markets == ()


def test_adding_averages_and_reducing_realizes() -> None:
    book = Positions()
    assert book.apply(fill(2, 10.0)) == FillResult(opened=True)
    assert book.apply(fill(2, 11.0)) == FillResult()
    assert (book.position("X"), book.avg_price("X")) == (4.0, 10.5)
    assert book.apply(fill(-1, 12.0)) == FillResult(realized=1.5, closed_qty=1.0)
    assert (book.position("X"), book.avg_price("X"), book.cash) == (3.0, 10.5, -30.0)
    assert book.apply(fill(-3, 10.0)) == FillResult(realized=-1.5, closed_qty=3.0, closed=True, trip_pnl=0.0)
    assert (book.position("X"), book.avg_price("X"), book.cash, book.realized) == (0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_flip_closes_at_the_old_cost_and_opens_at_the_new_price(sign: int) -> None:
    book = Positions()
    book.apply(fill(sign * 2, 10.0))
    result = book.apply(fill(-sign * 5, 11.0, fee=0.5))
    assert (result.realized, result.closed_qty, result.opened, result.closed) == (sign * 2.0, 2.0, True, True)
    assert result.trip_pnl == pytest.approx(sign * 2.0 - 0.2)  # the closing part of the fee
    assert (book.position("X"), book.avg_price("X")) == (-sign * 3.0, 11.0)
    assert book.apply(fill(sign * 3, 11.0)).trip_pnl == pytest.approx(-0.3)  # and the opening part


def test_tenths_add_up() -> None:
    book = Positions()
    for _ in range(10):
        book.apply(fill(0.1, 0.1))
    assert (book.position("X"), book.avg_price("X"), book.cash) == (1.0, 0.1, -0.1)
    assert book.apply(fill(-1.0, 0.3)).realized == 0.2
    assert (book.position("X"), book.cash) == (0.0, 0.2)


def test_long_numbers_leave_no_dust() -> None:
    book = Positions()
    # In this order the products differ in their last digits, the 29th and on, before they cancel.
    for part in range(1, 50):
        book.apply(fill(part * 1e-15 + 0.125, 61_234.56789012345))
        book.apply(fill(-0.125, 61_234.56789012345))
    book.apply(fill(-1225e-15, 61_234.56789012345))
    assert (book.position("X"), book.cash, book.realized) == (0.0, 0.0, 0.0)


def test_the_multiplier_scales_money_and_not_prices() -> None:
    book = Positions(instrument=Instrument("ES", tick_size=0.25, multiplier=50))
    book.apply(fill(2, 4_800.25))
    assert (book.avg_price("X"), book.cash) == (4_800.25, -480_025.0)
    assert book.apply(fill(-2, 4_801.25)).realized == 100.0


def test_an_inverse_contract_earns_coin() -> None:
    book = Positions(instrument=INVERSE, cash=1.0)
    book.apply(fill(100, 50_000.0))  # 10 000 USD: 0.2 BTC
    book.apply(fill(100, 40_000.0))  # 0.25 BTC
    assert book.avg_price("X") == pytest.approx(20_000 / 0.45)
    assert book.cash == 1.0
    result = book.apply(fill(-200, 50_000.0))
    assert result.realized == pytest.approx(0.05)
    assert book.cash == pytest.approx(1.05)
    book.apply(fill(-100, 50_000.0))
    assert book.apply(fill(100, 40_000.0)).realized == pytest.approx(0.05)  # a short gains when the price falls


def test_fees_leave_cash_and_rebates_enter_it() -> None:
    book = Positions(cash=100.0)
    book.apply(fill(1, 10.0, fee=0.25))
    book.apply(fill(-1, 10.0, fee=-0.5, currency="USD"))
    assert (book.cash, book.fees, book.realized, book.fees_of("X")) == (100.25, -0.25, 0.0, -0.25)


def test_a_fee_in_another_currency_is_kept_apart() -> None:
    book = Positions(cash=100.0)
    book.apply(fill(1, 10.0, fee=0.1, currency="BNB"))
    book.apply(fill(-1, 10.0, fee=0.2, currency="BNB"))
    assert (book.cash, book.fees, book.other_fees) == (100.0, 0.0, {"BNB": 0.3})


def test_markets_are_apart_and_sums_are_over_all() -> None:
    book = Positions({"A": Instrument("A", multiplier=2)}, instrument=Instrument("B"))
    book.apply(fill(1, 10.0, market="A"))
    book.apply(fill(-1, 10.0, market="B", fee=0.5))
    book.apply(fill(-1, 11.0, market="A"))
    book.apply(fill(1, 11.0, market="B"))
    assert (book.realized_of("A"), book.realized_of("B"), book.realized) == (2.0, -1.0, 1.0)
    assert (book.fees_of("A"), book.fees_of("B"), book.cash) == (0.0, 0.5, 0.5)
    assert book.markets == ("A", "B")


def test_one_book_settles_in_one_currency() -> None:
    with pytest.raises(ConfigError, match="BTC, USD"):
        Positions({"I": INVERSE}, instrument=Instrument("X"))
    assert Positions({"I": INVERSE}).instrument("other").currency == "BTC"


@pytest.mark.parametrize(
    "change",
    [{"price": float("nan")}, {"price": 0.0}, {"qty": -1.0}, {"qty": float("inf")}, {"fee": float("nan")}],
    ids=repr,
)
def test_a_fill_that_is_no_fill_changes_nothing(change: dict[str, Any]) -> None:
    book = Positions()
    good = fill(1, 10.0)
    bad = Fill(**{name: getattr(good, name) for name in good.__struct_fields__} | change)
    with pytest.raises(VenueProtocolError):
        book.apply(bad)
    assert (book.markets, book.cash) == ((), 0.0)


def test_numbers_of_numpy_are_numbers() -> None:
    book = Positions()
    book.apply(fill(np.float64(0.1), np.float64(0.2)))
    assert book.cash == -0.02


# The same book, written in the plainest way: fractions, and one formula for the cost. ---------------------------------

quantities = st.integers(min_value=-500, max_value=500).filter(bool).map(lambda n: n / 100)
fills = st.lists(
    st.tuples(quantities, st.integers(min_value=1, max_value=10**7), st.integers(min_value=-50, max_value=50)),
    max_size=40,
)


def exact(number: float) -> Fraction:
    return Fraction(Decimal(repr(number)))


@given(fills, st.booleans())
def test_it_agrees_with_fractions(trades: list[tuple[float, int, int]], is_inverse: bool) -> None:
    instrument = INVERSE if is_inverse else Instrument("X", multiplier=3)
    book = Positions(instrument=instrument, cash=7.0)
    size = exact(instrument.multiplier)
    qty = cost = realized = fees = Fraction(0)

    def value(signed: Fraction, price: Fraction) -> Fraction:
        return -signed * size / price if is_inverse else signed * size * price

    for signed, cents, fee in trades:
        book.apply(fill(signed, cents / 100, fee=fee / 1000))
        price, change = exact(cents / 100), exact(signed)
        closing = Fraction(0) if qty * change >= 0 else -qty if abs(change) > abs(qty) else change
        if closing:
            removed = cost * -closing / qty
            realized += -value(closing, price) - removed
            cost -= removed
        cost += value(change - closing, price)
        qty += change
        fees += exact(fee / 1000)
        assert book.position("X") == float(qty)
        assert book.realized == pytest.approx(float(realized), rel=1e-15, abs=1e-30)
        assert book.fees == float(fees)
        cash = 7 + realized - fees - (0 if is_inverse else cost)
        assert book.cash == pytest.approx(float(cash), rel=1e-15, abs=1e-30)
        if qty:
            average = -qty * size / cost if is_inverse else cost / (qty * size)
            assert book.avg_price("X") == pytest.approx(float(average), rel=1e-15)
