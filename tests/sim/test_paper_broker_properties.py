"""Laws that hold whatever is ordered and whatever the market does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ami_engine.errors import VenueRejected
from ami_engine.events import Fill, Side
from ami_engine.sim.paper_ledger import exact
from ami_engine.units import Instrument

LINEAR = Instrument("X", tick_size=0.1, lot_size=0.01, multiplier=5.0, maker_fee_bps=-0.5, taker_fee_bps=4.0)

PRICES = st.integers(995, 1_005).map(lambda ticks: ticks / 10)
SIZES = st.integers(1, 500).map(lambda lots: lots / 100)
BOOKS = st.tuples(st.just("book"), st.integers(995, 1_005), st.integers(0, 4), SIZES, SIZES)
TRADES = st.tuples(st.just("trade"), PRICES, SIZES, st.sampled_from([-1, 0, 1]))
ORDERS = st.tuples(
    st.just("order"),
    st.sampled_from([Side.BUY, Side.SELL]),
    PRICES,
    SIZES,
    st.sampled_from(["", "post", "reduce", "ioc"]),
)
CANCELS = st.tuples(st.just("cancel"), st.integers(0, 30))
SCRIPTS = st.lists(st.one_of(BOOKS, TRADES, ORDERS, ORDERS, CANCELS), max_size=60)
VENUES = st.fixed_dictionaries(
    {
        "queue": st.sampled_from(["back", "front", "prob"]),
        "latency_ms": st.sampled_from([0.0, 0.0, 2.0]),
        "latency_jitter_ms": st.sampled_from([0.0, 0.0, 3.0]),
        "seed": st.integers(0, 5),
    }
)
SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def play(venue: Any, script: list[Any], after: Callable[[Any, list[Fill]], None] | None = None) -> list[Fill]:
    """Run a script; return all fills."""
    fills: list[Fill] = []
    for number, (kind, *what) in enumerate(script):
        if kind == "book":
            bid, spread, bid_size, ask_size = what
            venue.book(bid / 10, (bid + spread) / 10, bid_size, ask_size)
        elif kind == "trade":
            venue.trade(*what)
        elif kind == "cancel":
            venue.broker.cancel_order(f"o{what[0]}")
        else:
            side, price, qty, terms = what
            try:
                venue.order(
                    f"o{number}", side, price, qty,
                    ioc=terms == "ioc", post_only=terms == "post", reduce_only=terms == "reduce",
                )  # fmt: skip
            except VenueRejected:
                assert venue.status(f"o{number}") == "REJECTED"
        new = venue.fills()
        fills += new
        if after is not None:
            after((kind, *what), new)
    return fills


@SETTINGS
@given(script=SCRIPTS, settings=VENUES)
def test_cash_and_positions_are_what_the_fills_say(
    make_venue: Callable[..., Any], script: list[Any], settings: dict[str, Any]
) -> None:
    venue = make_venue(instrument=LINEAR, cash=250.0, **settings)
    fills = play(venue, script)
    cash, position = Fraction(250), Fraction(0)
    for fill in fills:
        value = Fraction(exact(fill.price)) * Fraction(exact(fill.qty)) * 5
        bps = Fraction(-1, 2) if fill.liquidity == "MAKER" else Fraction(4)
        assert fill.fee == float(value * bps / 10_000)
        cash -= value * (1 if fill.side == Side.BUY else -1) + value * bps / 10_000
        position += Fraction(exact(fill.signed_qty))
    assert venue.cash == float(cash)
    assert venue.position == float(position)


@SETTINGS
@given(script=SCRIPTS, settings=VENUES)
def test_orders_are_filled_within_their_price_and_size(
    make_venue: Callable[..., Any], script: list[Any], settings: dict[str, Any]
) -> None:
    venue = make_venue(instrument=LINEAR, **settings)
    filled: defaultdict[str, Fraction] = defaultdict(Fraction)
    fills = play(venue, script)
    for fill in fills:
        number = int(fill.client_order_id[1:])
        _, side, price, qty, terms = script[number]
        filled[fill.client_order_id] += Fraction(exact(fill.qty))
        assert fill.side == side
        assert fill.price <= price if side == Side.BUY else fill.price >= price
        assert filled[fill.client_order_id] <= Fraction(exact(qty))
        assert not (terms == "post" and fill.liquidity == "TAKER")
        assert not (terms == "ioc" and fill.liquidity == "MAKER")
        assert fill.qty > 0
        assert fill.qty == LINEAR.round_qty(fill.qty)
    for client_order_id, qty in filled.items():
        report = venue.broker.fetch_order(client_order_id)
        assert report.filled_qty == float(qty)
        assert (report.status == "FILLED") == (report.filled_qty == report.qty)
    assert len({fill.trade_id for fill in fills}) == len(fills)
    assert [fill.ts_ns for fill in fills] == sorted(fill.ts_ns for fill in fills)


@SETTINGS
@given(script=SCRIPTS, settings=VENUES)
def test_reduce_only_never_enlarges_nor_flips_and_our_orders_never_cross(
    make_venue: Callable[..., Any], script: list[Any], settings: dict[str, Any]
) -> None:
    venue = make_venue(instrument=LINEAR, **settings)
    position = Fraction(0)
    remote = settings["latency_ms"] or settings["latency_jitter_ms"]

    def check(_: Any, fills: list[Fill]) -> None:
        nonlocal position
        for fill in fills:
            after = position + Fraction(exact(fill.signed_qty))
            if script[int(fill.client_order_id[1:])][4] == "reduce":
                assert abs(after) < abs(position)
                assert after * position >= 0
            position = after
        if not remote:
            resting = venue.broker.fetch_open_orders()
            buys = [report.price for report in resting if report.side == Side.BUY]
            sells = [report.price for report in resting if report.side == Side.SELL]
            assert not buys or not sells or max(buys) < min(sells)

    play(venue, script, check)


@SETTINGS
@given(
    prices=st.lists(st.tuples(st.sampled_from([Side.BUY, Side.SELL]), PRICES, SIZES), max_size=12),
    trades=st.lists(TRADES),
)
def test_a_print_fills_at_most_its_size(make_venue: Callable[..., Any], prices: list[Any], trades: list[Any]) -> None:
    # The best prices stay far away, so that prints alone fill.
    venue = make_venue(instrument=LINEAR, queue="front")
    venue.book(10.0, 1_000.0)
    play(venue, [("order", side, price, size, "post") for side, price, size in prices])

    def check(event: Any, fills: list[Fill]) -> None:
        assert sum((Fraction(exact(fill.qty)) for fill in fills), Fraction(0)) <= Fraction(exact(event[2]))

    play(venue, trades, check)


@SETTINGS
@given(script=SCRIPTS, settings=VENUES)
def test_the_same_script_and_seed_give_the_same_fills(
    make_venue: Callable[..., Any], script: list[Any], settings: dict[str, Any]
) -> None:
    first = make_venue(instrument=LINEAR, **settings)
    second = make_venue(instrument=LINEAR, **settings)
    assert play(first, script) == play(second, script)
    assert first.broker.get_state() == second.broker.get_state()


def test_memory_stays_bounded_over_many_orders(make_venue: Callable[..., Any]) -> None:
    venue = make_venue(instrument=LINEAR, history=50)
    venue.book(99.0, 101.0, ask_size=1e9)
    for number in range(12_000):
        venue.buy(f"o{number}", 101.0, 0.01)
        venue.fills()
    assert venue.status("o11949") == "unknown"
    assert venue.status("o11950") == "FILLED"
    assert len(list(venue.broker.fetch_fills(0))) == 10_000
    assert venue.position == 120.0
