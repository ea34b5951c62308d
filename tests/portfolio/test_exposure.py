"""The worst case is an upper bound of everything that can happen, and the gate keeps it under its limit."""

from __future__ import annotations

from math import inf, nan

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ami_engine.errors import ConfigError
from ami_engine.events import Side
from ami_engine.portfolio.exposure import ExposureLimits, MarketExposure, exposures_of, refusal, worst_case_usd
from ami_engine.units import Instrument

LINEAR = Instrument("X", multiplier=5.0)
INVERSE = Instrument("X", multiplier=100.0, kind="inverse", currency="BTC")


class Resting(msgspec.Struct):
    market_id: str
    side: Side
    price: float
    exposed_qty: float


PRICES = st.floats(1.0, 1_000.0)
SIZES = st.integers(1, 20).map(float)
ORDERS = st.builds(Resting, st.sampled_from(["X", "Y"]), st.sampled_from(Side), PRICES, SIZES)
KINDS = st.sampled_from([LINEAR, INVERSE])


@given(st.integers(-20, 20), st.lists(ORDERS, max_size=6), PRICES, KINDS, st.data())
def test_no_mix_of_fills_exceeds_the_worst_case(
    position: int, orders: list[Resting], mark: float, instrument: Instrument, data: st.DataObject
) -> None:
    orders = [msgspec.structs.replace(order, market_id="X") for order in orders]
    market = exposures_of({"X": float(position)}, orders, {"X": instrument}, {"X": mark}).get("X")
    filled = float(position)
    for order in orders:
        filled += order.side.sign * data.draw(st.integers(0, int(order.exposed_qty)))
    if market is None:
        assert filled == 0.0
        return
    assert abs(filled) <= market.worst_qty
    assert instrument.notional(mark, filled) <= market.worst_usd * (1.0 + 1e-9)


@given(st.integers(-20, 20), st.lists(ORDERS, max_size=6), PRICES, KINDS, ORDERS)
def test_one_more_order_never_makes_the_worst_case_smaller(
    position: int, orders: list[Resting], mark: float, instrument: Instrument, extra: Resting
) -> None:
    before = exposures_of({"X": float(position)}, orders, {"X": instrument}, {"X": mark, "Y": mark})
    after = exposures_of({"X": float(position)}, [*orders, extra], {"X": instrument}, {"X": mark, "Y": mark})
    assert worst_case_usd(after.values()) >= worst_case_usd(before.values())


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["submit", "fill", "gone", "doubt"]), ORDERS, st.integers(0, 50)), max_size=40
)


@given(ACTIONS, KINDS)
def test_limits_hold_under_any_interleaving_when_every_order_is_asked_about(
    actions: list[tuple[str, Resting, int]], instrument: Instrument
) -> None:
    # Whatever is accepted, filled, lost or cancelled in whichever order: the position never leaves its limits. At one
    # constant mark, since a price that moves changes what a position is worth without any order.
    mark, positions, live = 1_000.0, {"X": 0.0, "Y": 0.0}, []
    instruments = {"X": instrument, "Y": instrument}
    limits = ExposureLimits(total_usd=instrument.notional(mark, 25.0), market_qty=15.0)
    for verb, order, pick in actions:
        if verb == "submit":
            found = exposures_of(positions, live, instruments, {"X": mark, "Y": mark})
            market = found.pop(order.market_id, None) or MarketExposure(instrument, 0.0, mark)
            others_usd = worst_case_usd(found.values())
            if not refusal(order.side, order.price, order.exposed_qty, market, others_usd, limits):
                live.append(msgspec.structs.replace(order))
        elif live:
            order = live[pick % len(live)]
            if verb == "fill":
                qty = min(order.exposed_qty, float(1 + pick % 5))
                positions[order.market_id] += order.side.sign * qty
                order.exposed_qty -= qty
            elif verb == "gone":
                live.remove(order)
        # "doubt" changes nothing: an order nobody hears of goes on counting.
        assert all(abs(position) <= limits.market_qty for position in positions.values())
        held = sum(instrument.notional(mark, position) for position in positions.values())
        assert held <= limits.total_usd * (1.0 + 1e-9)


@given(st.integers(-20, 20), st.lists(ORDERS, max_size=5), st.sampled_from(Side), SIZES, st.data())
def test_an_order_that_shrinks_never_grows_or_flips_the_position(
    position: int, orders: list[Resting], side: Side, qty: float, data: st.DataObject
) -> None:
    orders = [msgspec.structs.replace(order, market_id="X") for order in orders if order.side is side]
    market = exposures_of({"X": float(position)}, orders, {}, {"X": 10.0}).get("X")
    if market is None or not market.shrinks(side, qty):
        return
    filled = position + side.sign * data.draw(st.integers(0, int(qty)))
    filled += sum(side.sign * data.draw(st.integers(0, int(order.exposed_qty))) for order in orders)
    assert abs(filled) <= abs(position)
    assert filled * position >= 0


def test_getting_out_is_allowed_over_the_limit() -> None:
    held = MarketExposure(LINEAR, position=10.0, mark=100.0)
    limits = ExposureLimits(total_usd=1_000.0, market_qty=5.0)
    assert refusal(Side.SELL, 99.0, 10.0, held, 0.0, limits) == ""
    assert refusal(Side.SELL, 99.0, 30.0, held, 0.0, limits).startswith("worst_case_inventory")
    assert refusal(Side.BUY, 99.0, 1.0, held, 0.0, limits).startswith("worst_case_inventory")


@pytest.mark.parametrize(
    ("position", "mark", "price", "qty"),
    [
        (nan, 100.0, 100.0, 1.0),
        (1.0, nan, 100.0, 1.0),
        (1.0, 0.0, 100.0, 1.0),
        (0.0, 1.0, nan, 1.0),
        (0.0, 1.0, 1.0, nan),
    ],
)
def test_what_cannot_be_valued_is_refused(position: float, mark: float, price: float, qty: float) -> None:
    market = MarketExposure(LINEAR, position=position, mark=mark)
    assert refusal(Side.BUY, price, qty, market, 0.0, ExposureLimits(total_usd=1e12)) != ""
    assert market.plus(Side.BUY, price, qty).worst_usd == inf


def test_a_position_that_cannot_be_valued_can_be_left() -> None:
    held = MarketExposure(LINEAR, position=2.0, mark=nan)
    assert refusal(Side.SELL, 99.0, 2.0, held, inf, ExposureLimits(total_usd=1.0)) == ""
    assert refusal(Side.SELL, 99.0, 3.0, held, inf, ExposureLimits(total_usd=1.0)) != ""


def test_an_inverse_contract_needs_no_mark() -> None:
    assert MarketExposure(INVERSE, position=-3.0).plus(Side.BUY, 60_000.0, 1.0).worst_usd == 300.0


def test_a_limit_must_be_above_zero() -> None:
    with pytest.raises(ConfigError, match="`total_usd` must be > 0"):
        ExposureLimits(total_usd=0.0)


def test_a_doubt_on_one_side_is_no_room_for_the_other() -> None:
    # 75 of an order of 100 are filled, and its cancel is in doubt: its whole size counts beside what is held.
    market = MarketExposure(Instrument("X"), position=-75.0, mark=1.0, sell_qty=100.0, sell_usd=100.0)
    limits = ExposureLimits(total_usd=300.0)
    assert refusal(Side.BUY, 1.0, 195.0, market, 199.0, limits) == "worst_case_exposure: 319 would be over 300 USD"
    assert refusal(Side.BUY, 1.0, 175.0, market, 199.0, limits) == ""
