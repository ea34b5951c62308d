"""The venue's books, against numbers worked out by hand and against exact fractions."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from ami_engine.sim.paper_ledger import COIN_UNIT, PaperLedger, exact
from ami_engine.units import Instrument

PERP = Instrument("P", tick_size=0.1, lot_size=1.0, multiplier=100.0, kind="inverse", currency="BTC")
FUTURE = Instrument("F", tick_size=0.25, lot_size=1.0, multiplier=50.0)

FILLS = st.lists(
    st.tuples(
        st.booleans(),
        st.integers(1, 10**9).map(lambda ticks: ticks / 1000),
        st.integers(1, 10**6).map(lambda lots: lots / 1000),
        st.sampled_from([-0.25, 0.0, 2.0, 7.5]),
    ),
    max_size=30,
)


def fold(ledger: PaperLedger, instrument: Instrument, fills: list[tuple[bool, float, float, float]]) -> Decimal:
    fees = Decimal(0)
    for is_buy, price, qty, bps in fills:
        fees += ledger.book("M", instrument, is_buy=is_buy, price=exact(price), qty=exact(qty), fee_bps=exact(bps))
    return fees


def test_a_linear_round_trip_by_hand() -> None:
    ledger = PaperLedger(10_000.0, "USD")
    # Buy 2 at 4810.25 and sell 2 at 4812.00: 1.75 points · 2 · 50 = 175, fees 1 bps of 481 025 and of 481 200.
    fees = fold(ledger, FUTURE, [(True, 4810.25, 2.0, 1.0), (False, 4812.0, 2.0, 1.0)])
    assert fees == Decimal("48.1025") + Decimal("48.12")
    assert ledger.cash["USD"] == Decimal("10175") - fees
    assert ledger.position("M") == 0


def test_an_inverse_round_trip_by_hand() -> None:
    ledger = PaperLedger(1.0, "BTC")
    # 10 contracts of 100 USD from 50 000 to 62 500: 1000 · (1/50 000 − 1/62 500) = 0.02 − 0.016 = 0.004 BTC.
    fold(ledger, PERP, [(True, 50_000.0, 10.0, 0.0), (False, 62_500.0, 10.0, 0.0)])
    assert ledger.cash == {"BTC": Decimal("1.004")}
    # Short 10 on the same way loses as much, and fees of 5 bps are 0.00001 and 0.000008.
    fees = fold(ledger, PERP, [(False, 50_000.0, 10.0, 5.0), (True, 62_500.0, 10.0, 5.0)])
    assert fees == Decimal("0.000018")
    assert ledger.cash == {"BTC": Decimal("0.999982")}


def test_an_inverse_position_releases_its_entry_value_in_proportion() -> None:
    ledger = PaperLedger(0.0, "BTC")
    # Entry value 0.02 + 0.016 BTC for 20 contracts; 5 closed at 40 000 (0.0125) release a quarter of it, 0.009.
    fold(ledger, PERP, [(True, 50_000.0, 10.0, 0.0), (True, 62_500.0, 10.0, 0.0), (False, 40_000.0, 5.0, 0.0)])
    assert ledger.cash["BTC"] == Decimal("-0.0035")
    assert ledger.entry_coin["M"] == Decimal("0.027")


def test_an_inverse_flip_closes_first_and_opens_the_rest() -> None:
    ledger = PaperLedger(0.0, "BTC")
    fold(ledger, PERP, [(True, 50_000.0, 10.0, 0.0), (False, 62_500.0, 15.0, 0.0)])
    assert ledger.cash["BTC"] == Decimal("0.004")
    assert ledger.entry_coin["M"] == Decimal("-0.008")
    assert ledger.position("M") == -5


@given(fills=FILLS, cash=st.integers(-(10**9), 10**9).map(lambda cents: cents / 100))
def test_linear_books_balance_to_the_last_unit(fills: list[tuple[bool, float, float, float]], cash: float) -> None:
    ledger = PaperLedger(cash, "USD")
    fold(ledger, FUTURE, fills)
    expected, position = Fraction(exact(cash)), Fraction(0)
    for is_buy, price, qty, bps in fills:
        value = Fraction(exact(price)) * Fraction(exact(qty)) * 50
        expected -= (value if is_buy else -value) + value * Fraction(exact(bps)) / 10_000
        position += Fraction(exact(qty)) * (1 if is_buy else -1)
    assert Fraction(ledger.cash["USD"]) == expected
    assert Fraction(ledger.position("M")) == position


@given(fills=FILLS)
def test_inverse_books_balance_to_the_last_unit(fills: list[tuple[bool, float, float, float]]) -> None:
    ledger = PaperLedger(0.0, "BTC")
    fees = fold(ledger, PERP, fills)
    paid = Decimal(0)
    with localcontext(prec=300):
        for is_buy, price, qty, _ in fills:
            value = (exact(qty) * 100 / exact(price)).quantize(COIN_UNIT)
            paid += value if is_buy else -value
        # Realized profit and what the open position still holds are what was paid in and out, coin for coin.
        assert ledger.cash["BTC"] + fees + ledger.entry_coin.get("M", Decimal(0)) == paid
    if not ledger.position("M"):
        assert ledger.entry_coin.get("M", Decimal(0)) == 0


def test_the_decimal_context_of_the_caller_does_not_matter() -> None:
    with localcontext(prec=2):
        ledger = PaperLedger(0.0, "USD")
        fold(ledger, FUTURE, [(True, 4810.25, 2.0, 1.0), (False, 4812.0, 1.0, 1.0)])
        coins = PaperLedger(0.0, "BTC")
        fold(coins, PERP, [(True, 50_000.0, 10.0, 0.0), (False, 62_500.0, 15.0, 0.0)])
    assert ledger.cash["USD"] == Decimal("-240425") - Decimal("72.1625")
    assert coins.cash["BTC"] == Decimal("0.004")
