"""Value at mid, at what leaving fetches, at the mark; and snapshots that bring an account back to the bit."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ami_engine.errors import ConfigError
from ami_engine.events import Fill, Side
from ami_engine.portfolio.pnl import Account
from ami_engine.portfolio.positions import Positions
from ami_engine.portfolio.valuation import Prices, value_positions
from ami_engine.units import Instrument

BTC = Instrument("", multiplier=100.0, kind="inverse", currency="BTC")


def fill(number: int, market: str, side: Side, price: float, qty: float, fee: float = 0.0, paid_in: str = "") -> Fill:
    return Fill(
        trade_id=str(number), client_order_id="a", market_id=market, side=side, price=price, qty=qty, fee=fee,
        fee_currency=paid_in,
    )  # fmt: skip


def test_leaving_is_never_worth_more_than_the_mid() -> None:
    held = Positions()
    held.apply(fill(1, "X", Side.BUY, 10.0, 2.0))
    held.apply(fill(2, "Y", Side.SELL, 20.0, 1.0))
    prices = {"X": Prices(9.0, 11.0, 10.5), "Y": Prices(19.0, 21.0, 20.5)}
    at = {basis: value_positions(held, prices, basis=basis) for basis in ("mid", "book", "mark")}  # type: ignore[arg-type]
    assert (at["mid"].unrealized, at["book"].unrealized, at["mark"].unrealized) == (0.0, -3.0, 0.5)
    assert at["book"].markets["Y"].price == 21.0
    assert at["mid"].exposure_usd == 40.0


def test_an_inverse_position_is_worth_coin() -> None:
    held = Positions(instrument=BTC)
    held.apply(fill(1, "X", Side.BUY, 50_000.0, 10.0))
    value = value_positions(held, {"X": Prices(bid=60_000.0, ask=60_010.0)}, basis="book")
    assert value.unrealized == pytest.approx(1_000 * (1 / 50_000 - 1 / 60_000))
    assert value.exposure_usd == 1_000.0


def test_what_has_no_price_is_named_and_not_guessed() -> None:
    held = Positions(cash=5.0)
    held.apply(fill(1, "X", Side.BUY, 10.0, 2.0, fee=0.1, paid_in="BNB"))
    held.apply(fill(2, "Y", Side.BUY, 1.0, 1.0))
    held.apply(fill(3, "Y", Side.SELL, 1.0, 1.0))
    value = value_positions(held, {"X": Prices(bid=9.0)}, start=5.0)
    assert (value.equity, value.unpriced) == (5.0, ("X", "BNB"))
    converted = value_positions(held, {"X": Prices(bid=9.0)}, start=5.0, basis="book", rates={"BNB": 10.0})
    assert (converted.equity, converted.fees, converted.unpriced) == (2.0, 1.0, ())
    with pytest.raises(ConfigError, match="`basis`"):
        value_positions(held, {}, basis="last")  # type: ignore[arg-type]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["X", "Y", "Z"]), st.sampled_from(Side), st.floats(0.5, 500.0), st.floats(0.001, 50.0),
        st.floats(-1.0, 1.0), st.sampled_from(["", "BNB"]), st.booleans(),
    ),
    max_size=20,
)  # fmt: skip


def play(account: Account, steps: list[Any], first: int) -> None:
    for number, (market, side, price, qty, fee, paid_in, is_mark) in enumerate(steps, first):
        if is_mark:
            account.mark(market, price)
        else:
            account.apply(fill(number, market, side, price, qty, fee, paid_in))


@pytest.mark.parametrize("instrument", [None, BTC])
@given(before=STEPS, after=STEPS)
def test_a_restored_account_goes_on_to_the_bit(instrument: Instrument | None, before: Any, after: Any) -> None:
    one = Account(instrument=instrument, cash=100.0)
    play(one, before, 0)
    other = Account(instrument=instrument)
    other.restore(msgspec.json.decode(msgspec.json.encode(one.snapshot())))
    assert other.snapshot() == one.snapshot()
    for account in (one, other):
        play(account, after, len(before))
    assert other.snapshot() == one.snapshot()
    assert (other.cash, other.exposure_usd(), other.drawdown) == (one.cash, one.exposure_usd(), one.drawdown)


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.pop("positions"),
        lambda state: state.pop("peak"),
        lambda state: state["held"].append("nowhere"),
        lambda state: state["positions"].update(currency="EUR"),
        lambda state: state["positions"].update(cash="NaN"),
        lambda state: state["positions"]["holdings"]["X"].pop("cost"),
        lambda state: state["positions"]["holdings"]["X"].update(qty="much"),
        lambda state: state.update(marks=None),
    ],
)
def test_a_damaged_snapshot_changes_nothing(damage: Any) -> None:
    account = Account()
    account.apply(fill(1, "X", Side.BUY, 10.0, 2.0))
    state = account.snapshot()
    damaged = msgspec.json.decode(msgspec.json.encode(state))
    damage(damaged)
    with pytest.raises(ConfigError):
        account.restore(damaged)
    assert account.snapshot() == state
