"""Prices and sizes on their grids: sizes never up, quotes never inward, post-only quotes never through the book."""

from __future__ import annotations

from decimal import Decimal
from math import inf, nan

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ami_engine.errors import ConfigError
from ami_engine.units import Instrument

TICKS = st.sampled_from([0.01, 0.1, 0.25, 0.5, 1.0, 5.0, 1e-8, 0.00005, 2.5, 1 / 32])
LOTS = st.sampled_from([0.0, 0.001, 0.01, 0.1, 1.0, 5.0, 100.0, 1e-8])
PRICES = st.floats(1e-3, 1e6)
SIZES = st.floats(1e-6, 1e6)


def exact(number: float) -> Decimal:
    return Decimal(repr(number))


def is_on_grid(number: float, step: float) -> bool:
    steps = exact(number) / exact(step)
    return abs(steps - round(steps)) <= Decimal("1e-6")


@given(TICKS, PRICES, st.booleans())
def test_a_quote_is_rounded_outward_by_less_than_a_tick(tick: float, price: float, is_buy: bool) -> None:
    instrument = Instrument("X", tick_size=tick)
    rounded = instrument.price_from_ticks(instrument.quote_ticks(price, is_buy=is_buy))
    assert is_on_grid(rounded, tick)
    slack = tick * 2e-6 + abs(price) * 1e-15  # a price this close to the grid is on it
    outward = price - rounded if is_buy else rounded - price
    assert -slack <= outward < tick + slack


@given(TICKS, st.integers(1, 10**7), st.booleans())
def test_what_is_on_the_grid_stays_where_it_is(tick: float, ticks: int, is_buy: bool) -> None:
    instrument = Instrument("X", tick_size=tick)
    price = instrument.price_from_ticks(ticks)
    assert instrument.quote_ticks(price, is_buy=is_buy) == instrument.crossing_ticks(price, is_buy=is_buy) == ticks


@given(TICKS, PRICES, PRICES, st.booleans())
def test_a_passive_quote_never_reaches_the_other_side(tick: float, price: float, best: float, is_buy: bool) -> None:
    instrument = Instrument("X", tick_size=tick)
    assume(best / tick < 1e12)
    quoted = instrument.price_from_ticks(instrument.passive_ticks(price, is_buy=is_buy, opposite=best))
    assert quoted < best if is_buy else quoted > best
    assert (quoted <= price + 2e-6 * tick) if is_buy else (quoted >= price - 2e-6 * tick)


@given(TICKS, PRICES, st.booleans(), st.sampled_from([0.0, -1.0, nan, inf]))
def test_without_another_side_a_passive_quote_is_only_rounded(
    tick: float, price: float, is_buy: bool, opposite: float
) -> None:
    instrument = Instrument("X", tick_size=tick)
    assert instrument.passive_ticks(price, is_buy=is_buy, opposite=opposite) == instrument.quote_ticks(
        price, is_buy=is_buy
    )


@given(TICKS, PRICES, st.booleans())
def test_an_order_that_has_to_trade_is_rounded_inward(tick: float, price: float, is_buy: bool) -> None:
    instrument = Instrument("X", tick_size=tick)
    ticks = instrument.crossing_ticks(price, is_buy=is_buy)
    assert ticks >= 1
    rounded, slack = instrument.price_from_ticks(ticks), 2e-6 * tick
    assert rounded >= price - slack if is_buy else (rounded <= price + slack or ticks == 1)


@given(LOTS, SIZES)
def test_a_size_is_never_rounded_up(lot: float, qty: float) -> None:
    instrument = Instrument("X", lot_size=lot)
    rounded = instrument.round_qty(qty)
    # Up only by what the binary size lacks to the lot that it means.
    assert rounded <= qty * (1.0 + 2e-9)
    assert rounded >= 0.0
    if lot:
        assert is_on_grid(rounded, lot)
        assert qty - rounded < lot * (1.0 + 1e-6)
        assert instrument.round_qty(rounded) == rounded


@given(LOTS, SIZES, PRICES, st.sampled_from(["linear", "inverse"]))
def test_an_order_is_never_worth_more_than_was_asked_for(lot: float, usd: float, price: float, kind: str) -> None:
    instrument = Instrument("X", lot_size=lot, kind=kind)  # type: ignore[arg-type]
    qty = instrument.qty_from_usd(usd, price)
    assert instrument.notional(price, qty) <= usd * (1.0 + 2e-9)


@pytest.mark.parametrize("step", [0.1, 0.001, 1e-8])
def test_a_size_that_is_a_lot_in_decimal_is_kept(step: float) -> None:
    instrument = Instrument("X", lot_size=step)
    for count in range(1, 2_000, 7):
        qty = float(exact(step) * count)
        assert instrument.round_qty(qty) == qty


def test_a_size_in_lots_needs_a_lot() -> None:
    assert Instrument("X", lot_size=0.1).qty_from_lots(3) == 0.3
    with pytest.raises(ConfigError, match=r"of instrument 'X' needs a `lot_size` > 0, was 0"):
        Instrument("X").qty_from_lots(3)
