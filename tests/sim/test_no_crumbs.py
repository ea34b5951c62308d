"""Where sizes have no lot, the paper venue fills no crumbs: a position that was closed is flat."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ami_engine.events import BookSnapshot, OrderStatus, Side, SubmitOrder, TimeInForce, Trade
from ami_engine.portfolio.positions import Positions
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.units import Instrument

INSTRUMENT = Instrument("X", tick_size=0.1)
MS = 1_000_000
# Sums and differences of decimals, as feeds and queues of floats hold them.
BINARY = st.tuples(st.integers(1, 400), st.integers(1, 400)).map(lambda pair: pair[0] / 100 + pair[1] / 1000)


class Market:
    """A venue, and the clock of what it is shown."""

    def __init__(self) -> None:
        self.broker = PaperBroker(INSTRUMENT)
        self.now_ns = 1_000 * MS
        self.book(1.1, 1.3)

    def book(self, bid_size: float, ask_size: float) -> None:
        self.now_ns += MS
        event = BookSnapshot(0, self.now_ns, "X", 0, 60_000.0, 60_000.1, bid_size, ask_size)
        self.broker.on_market_data(event, 60_000.0, 60_000.1, bid_size, ask_size)

    def trade(self, price: float, size: float, aggressor: int) -> None:
        self.now_ns += MS
        event = Trade(0, self.now_ns, "X", 0, price, size, aggressor)
        self.broker.on_market_data(event, 60_000.0, 60_000.1, 1.1, 1.3)


@settings(max_examples=200, deadline=None)
@given(st.floats(0.5, 90_000.0), st.lists(BINARY, min_size=1, max_size=12))
def test_a_quote_is_filled_in_whole_units_and_leaves_no_crumb(size_usd: float, sizes: list[float]) -> None:
    market = Market()
    qty = INSTRUMENT.qty_from_usd(size_usd, 60_000.0)
    market.broker.submit_order(
        SubmitOrder(client_order_id="a", market_id="X", side=Side.BUY, price=60_000.0, qty=qty, post_only=True)
    )
    left = Decimal(repr(qty))
    unit = Decimal(1).scaleb(INSTRUMENT.fill_exponent(qty))
    for number, size in enumerate(sizes):
        market.book(0.1 * (number + 1), 0.3)
        market.trade(60_000.0, size, -1)
        for fill in market.broker.process_fills(market.now_ns // MS):
            filled = Decimal(repr(fill.qty))
            assert filled == left or filled % unit == 0
            left -= filled
            assert left == 0 or left >= unit
            assert left == 0 or float(left) > 1e-9 * qty
    report = market.broker.fetch_order("a")
    assert report is not None
    assert (report.status is OrderStatus.FILLED) == (left == 0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0.5, 50_000.0), BINARY, st.booleans()), min_size=1, max_size=10))
def test_what_was_closed_is_flat(trades: list[tuple[float, float, bool]]) -> None:
    market, positions = Market(), Positions(instrument=INSTRUMENT)
    for number, (size_usd, size, is_buy) in enumerate(trades):
        side = Side.BUY if is_buy else Side.SELL
        price = 60_000.0 if is_buy else 60_000.1
        qty = INSTRUMENT.qty_from_usd(size_usd, price)
        market.broker.submit_order(
            SubmitOrder(client_order_id=f"q{number}", market_id="X", side=side, price=price, qty=qty, post_only=True)
        )
        market.trade(price, size, -1 if is_buy else 1)
        market.trade(price, size / 3, -1 if is_buy else 1)
        market.broker.cancel_order(f"q{number}")
    for fill in market.broker.process_fills(market.now_ns // MS):
        positions.apply(fill)
    held = positions.position("X")
    if held:
        side, price = (Side.SELL, 60_000.0) if held > 0 else (Side.BUY, 60_000.1)
        market.book(1e9, 1e9)
        market.broker.submit_order(
            SubmitOrder(
                client_order_id="exit",
                market_id="X",
                side=side,
                price=price,
                qty=INSTRUMENT.round_qty(abs(held)),
                reduce_only=True,
                tif=TimeInForce.IOC,
            )
        )
        for fill in market.broker.process_fills(market.now_ns // MS):
            positions.apply(fill)
    assert positions.position("X") == 0.0
    assert market.broker.get_state()["positions"].get("X", 0.0) == 0.0


@pytest.mark.parametrize(
    ("qty", "exponent"), [(1.0, -8), (9.99, -8), (10.0, -7), (0.999999999999999, -8), (1e-3, -11), (1e-5, -12)]
)
def test_the_unit_of_fills_follows_the_size(qty: float, exponent: int) -> None:
    assert INSTRUMENT.fill_exponent(qty) == exponent
