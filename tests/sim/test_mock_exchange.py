"""The mock exchange and its faults, one by one: in process, and the same through sockets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from ami_engine.adapters.base import Broker
from ami_engine.adapters.http_broker import HttpBroker
from ami_engine.clock import ManualClock, WallClock
from ami_engine.errors import ConfigError, VenueRejected, VenueUnavailable
from ami_engine.events import Fill, OrderAck, OrderReport, OrderStatus, Side, SubmitOrder, TimeInForce
from ami_engine.sim.exchange_server import ExchangeServer
from ami_engine.sim.faults import FAULTS, Fault, FaultKind, FaultPlan, Occasion
from ami_engine.sim.mock_broker import MockExchangeBroker, MockExchangeSource
from ami_engine.sim.mock_exchange import MockExchange
from ami_engine.units import Instrument

T = TypeVar("T")
MS = 1_000_000


class World:
    """An exchange, a broker to it, and who looks on; nothing trades unless the test says so."""

    def __init__(self, way: str, plan: str, **settings: Any) -> None:
        self._is_remote = way == "over HTTP"
        clock = WallClock() if self._is_remote else ManualClock(1_700_000_000_000 * MS)
        self.clock = clock
        self._exchange = exchange = MockExchange(clock, **settings)
        self.broker: Broker
        if self._is_remote:
            self._server = ExchangeServer(exchange, every_ms=0)
            self.broker = HttpBroker(self._server.url, timeout_ms=400, recv_window_ms=exchange.recv_window_ms)
            self.wait(50)  # for the stream
            self.broker.process_fills(0)  # what was executed before it was there
        else:
            self.broker = MockExchangeBroker(exchange)
        self.look(lambda exchange: exchange.begin(FaultPlan.parse(plan)))

    def close(self) -> None:
        self.broker.close()  # type: ignore[attr-defined]
        if self._is_remote:
            self._server.close()

    def look(self, act: Callable[[MockExchange], T]) -> T:
        return self._server.call(act) if self._is_remote else act(self._exchange)

    def wait(self, ms: int) -> None:
        if self._is_remote:
            time.sleep(ms / 1_000)
        else:
            assert isinstance(self.clock, ManualClock)
            self.clock.advance_to(self.clock.now_ns() + ms * MS)
            self._exchange.advance()

    def buy(self, name: str, price: float = 99.0, qty: float = 1.0, **terms: Any) -> OrderAck | str | None:
        return self.broker.submit_order(
            SubmitOrder(client_order_id=name, market_id="MOCK", side=Side.BUY, price=price, qty=qty, **terms)
        )

    def sell(self, name: str, price: float = 101.0, qty: float = 1.0, **terms: Any) -> OrderAck | str | None:
        return self.broker.submit_order(
            SubmitOrder(client_order_id=name, market_id="MOCK", side=Side.SELL, price=price, qty=qty, **terms)
        )

    def trade(self, name: str, lots: int) -> None:
        """Somebody trades with the order."""
        self.look(lambda exchange: exchange.venue.fill(exchange.venue.orders[name], lots))

    def fills(self, expected: int = 0, *, after_ms: int = 60) -> list[tuple[str, float]]:
        """Return order and size of the new fills; a slow machine gets some seconds for those that are expected."""
        self.wait(after_ms)
        found = list(self.broker.process_fills(0))
        tries = 100 if self._is_remote else 0
        while len(found) < expected and tries:
            tries -= 1
            self.wait(50)
            found.extend(self.broker.process_fills(0))
        assert all(isinstance(fill, Fill) for fill in found)
        return [(fill.client_order_id, fill.qty) for fill in found if isinstance(fill, Fill)]

    def status(self, name: str) -> OrderStatus | None:
        report = self.broker.fetch_order(name)
        return None if report is None else report.status

    def open_ids(self) -> list[str]:
        return [report.client_order_id for report in self.broker.fetch_open_orders()]

    def true_status(self, name: str) -> OrderStatus | None:
        def status(exchange: MockExchange) -> OrderStatus | None:
            order = exchange.venue.orders.get(name)
            return None if order is None else order.status

        return self.look(status)


@pytest.fixture(params=["in process", "over HTTP"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def world(way: str) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(plan: str = "", **settings: Any) -> World:
        made.append(World(way, plan, **settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


Make = Callable[..., World]


# Without faults. ------------------------------------------------------------------------------------------------------


def test_an_order_rests_fills_and_is_told_of(world: Make) -> None:
    venue = world()
    ack = venue.buy("a1", qty=2.0)
    assert isinstance(ack, OrderAck)
    assert (ack.client_order_id, ack.venue_order_id) == ("a1", "V1")
    assert venue.open_ids() == ["a1"]
    venue.trade("a1", 500)
    assert venue.fills(1) == [("a1", 0.5)]
    assert venue.fills() == []
    report = venue.broker.fetch_order("a1")
    assert isinstance(report, OrderReport)
    assert (report.filled_qty, report.status) == (0.5, OrderStatus.PARTIALLY_FILLED)
    state = venue.broker.get_state()
    assert state["positions"] == {"MOCK": 0.5}
    # Half a unit at 99, and a rebate of half a basis point.
    assert state["cash"] == pytest.approx(-49.5 + 49.5 * 0.5e-4)
    assert venue.broker.fetch_balances() == {"USD": state["cash"]}


def test_a_cancel_is_done_once(world: Make) -> None:
    venue = world()
    venue.buy("a1")
    assert venue.broker.cancel_order("a1") is True
    assert venue.broker.cancel_order("a1") is False
    assert venue.broker.cancel_order("never") is False
    assert venue.status("a1") is OrderStatus.CANCELED


def test_all_orders_are_cancelled_at_once(world: Make) -> None:
    venue = world()
    venue.buy("a1")
    venue.sell("a2")
    assert venue.broker.cancel_all("MOCK") == 2
    assert venue.broker.cancel_all() == 0
    assert venue.open_ids() == []


def test_an_unknown_order_is_unknown(world: Make) -> None:
    assert world().broker.fetch_order("never") is None


def test_fills_are_listed_from_a_time_on(world: Make) -> None:
    venue = world()
    venue.buy("a1")
    venue.trade("a1", 100)
    venue.wait(20)
    later = venue.look(lambda exchange: exchange.now_ns())
    venue.trade("a1", 200)
    assert [fill.qty for fill in venue.broker.fetch_fills(0)] == [0.1, 0.2]
    assert [fill.qty for fill in venue.broker.fetch_fills(later)] == [0.2]


def test_a_known_id_is_acknowledged_again_and_placed_once(world: Make) -> None:
    venue = world()
    first = venue.buy("a1")
    venue.broker.cancel_order("a1")
    assert venue.buy("a1") == first
    assert venue.look(lambda exchange: dict(exchange.venue.placements)) == {"a1": 1}
    assert venue.status("a1") is OrderStatus.CANCELED


def test_a_venue_that_knows_open_orders_only_places_an_ended_id_anew(world: Make) -> None:
    venue = world(dedupe="open")
    first = venue.buy("a1")
    assert venue.buy("a1") == first
    venue.broker.cancel_order("a1")
    assert venue.buy("a1") != first
    assert venue.look(lambda exchange: dict(exchange.venue.placements)) == {"a1": 2}


def test_two_quotes_on_a_side_are_counted(world: Make) -> None:
    venue = world()
    venue.buy("a1")
    venue.sell("a2")
    assert venue.look(lambda exchange: exchange.venue.most_on_a_side) == 1
    venue.buy("a3")
    assert venue.look(lambda exchange: exchange.venue.most_on_a_side) == 2


@pytest.mark.parametrize(
    ("terms", "rule"),
    [
        ({"price": 99.005}, "price"),
        ({"qty": 0.0005}, "qty"),
        ({"price": 100.5, "post_only": True}, "post_only"),
        ({"reduce_only": True}, "reduce_only"),
        ({"expires_ns": 1}, "receive window"),
    ],
)
def test_orders_that_break_a_rule_are_refused(world: Make, terms: dict[str, Any], rule: str) -> None:
    venue = world()
    with pytest.raises(VenueRejected, match=rule):
        venue.buy("a1", **terms)
    assert venue.open_ids() == []


def test_our_own_orders_do_not_meet(world: Make) -> None:
    venue = world()
    venue.sell("a1", price=100.5)
    with pytest.raises(VenueRejected, match="self-trade"):
        venue.buy("a2", price=100.6)


def test_an_ioc_takes_what_is_there_and_expires(world: Make) -> None:
    venue = world()
    venue.buy("a1", price=50.0, tif=TimeInForce.IOC)
    assert venue.status("a1") is OrderStatus.EXPIRED
    venue.buy("a2", price=100.5, qty=1.0, tif=TimeInForce.IOC)
    (fill,) = venue.broker.fetch_fills(0)
    # At the best price, not at the limit, and for a fee.
    assert (fill.price, fill.liquidity.value) == (100.01, "TAKER")
    assert fill.fee > 0.0
    assert venue.status("a2") in (OrderStatus.FILLED, OrderStatus.EXPIRED)


def test_reducing_only_never_flips(world: Make) -> None:
    venue = world()
    venue.buy("a1")
    venue.trade("a1", 300)
    venue.sell("a2", qty=1.0, reduce_only=True)
    venue.trade("a2", 1_000)
    assert venue.broker.get_state()["positions"] == {"MOCK": 0.0}


def test_requests_are_limited(world: Make) -> None:
    venue = world(max_requests_per_s=5)
    refused = []
    for _ in range(12):
        try:
            venue.broker.fetch_balances()
        except VenueUnavailable as error:
            refused.append((error.is_rate_limit, error.outcome_known))
    assert set(refused) == {(True, True)}


# Faults, one by one. --------------------------------------------------------------------------------------------------


def refuse(act: Callable[[], Any]) -> VenueUnavailable:
    with pytest.raises(VenueUnavailable) as caught:
        act()
    return caught.value


def test_timeout_after_accept(world: Make) -> None:
    venue = world("timeout_after@submit:1,timeout_after@cancel:1")
    assert not refuse(lambda: venue.buy("a1")).outcome_known
    assert venue.status("a1") is OrderStatus.NEW
    assert not refuse(lambda: venue.broker.cancel_order("a1")).outcome_known
    assert venue.status("a1") is OrderStatus.CANCELED


def test_timeout_before_accept(world: Make) -> None:
    venue = world("timeout_before@submit:1,timeout_before@cancel:1,timeout_before@query:1")
    assert not refuse(lambda: venue.buy("a1")).outcome_known
    refuse(lambda: venue.broker.fetch_order("a1"))
    assert venue.broker.fetch_order("a1") is None
    venue.buy("a2")
    assert not refuse(lambda: venue.broker.cancel_order("a2")).outcome_known
    assert venue.status("a2") is OrderStatus.NEW


def test_a_request_lands_after_a_query_said_unknown(world: Make) -> None:
    venue = world("late_arrival@submit:1=1200")
    refuse(lambda: venue.buy("a1"))
    assert venue.broker.fetch_order("a1") is None
    venue.wait(1_300)
    assert venue.status("a1") is OrderStatus.NEW


def test_a_request_that_lands_after_its_window_is_not_taken(world: Make) -> None:
    venue = world("late_arrival@submit:1=1200")
    refuse(lambda: venue.buy("a1", expires_ns=venue.clock.now_ns() + 200 * MS))
    venue.wait(1_400)
    assert venue.true_status("a1") in (None, OrderStatus.REJECTED)
    assert venue.open_ids() == []


def test_a_venue_without_a_window_takes_what_comes_late(world: Make) -> None:
    venue = world("late_arrival@submit:1=1200", recv_window_ms=None)
    refuse(lambda: venue.buy("a1", expires_ns=venue.clock.now_ns() + 200 * MS))
    venue.wait(1_400)
    assert venue.status("a1") is OrderStatus.NEW


def test_a_cancel_lands_late(world: Make) -> None:
    venue = world("late_arrival@cancel:1=1200")
    venue.buy("a1")
    refuse(lambda: venue.broker.cancel_order("a1"))
    assert venue.status("a1") is OrderStatus.NEW
    venue.wait(1_300)
    assert venue.status("a1") is OrderStatus.CANCELED


def test_a_duplicate_ack_places_nothing_twice(world: Make) -> None:
    venue = world("duplicate_ack@submit:1")
    ack = venue.buy("a1")
    assert isinstance(ack, OrderAck)
    assert ack.venue_order_id == "V1"
    assert venue.look(lambda exchange: dict(exchange.venue.placements)) == {"a1": 1}
    assert venue.fills() == []


def test_garbage(world: Make) -> None:
    venue = world("garbage@submit:1,garbage@query:1,garbage@cancel:1")
    error = refuse(lambda: venue.buy("a1"))
    assert "cannot be read" in str(error)
    assert not error.outcome_known
    refuse(lambda: venue.broker.fetch_order("a1"))
    assert venue.status("a1") is OrderStatus.NEW
    refuse(lambda: venue.broker.cancel_order("a1"))
    assert venue.status("a1") is OrderStatus.CANCELED


def test_a_slow_reply_is_a_reply(world: Make) -> None:
    venue = world("slow_reply@submit:1=80")
    started_ns = venue.clock.now_ns()
    venue.buy("a1")
    assert venue.clock.now_ns() - started_ns >= 80 * MS
    assert venue.status("a1") is OrderStatus.NEW


def test_a_storm_of_rate_limits(world: Make) -> None:
    venue = world("rate_limit_storm@submit:1=3")
    for act in (lambda: venue.buy("a1"), lambda: venue.status("a1"), lambda: venue.broker.cancel_all()):
        error = refuse(act)
        assert error.is_rate_limit
        assert error.outcome_known
    assert venue.status("a1") is None


def test_a_partial_outage_leaves_the_other_requests(world: Make) -> None:
    venue = world("outage@cancel:1=300")
    venue.buy("a1")
    assert not refuse(lambda: venue.broker.cancel_order("a1")).outcome_known
    assert venue.status("a1") is OrderStatus.NEW
    venue.wait(400)
    assert venue.broker.cancel_order("a1") is True


def test_a_disconnect_during_a_replace(world: Make, way: str) -> None:
    venue = world("disconnect@cancel:1=600")
    venue.buy("a1")
    assert not refuse(lambda: venue.broker.cancel_order("a1")).outcome_known
    error = refuse(lambda: venue.buy("a2"))
    # Where the connection is known to be down, it is known that nothing was sent; a cut socket cannot tell.
    assert error.outcome_known is (way == "in process")
    venue.wait(700)
    assert venue.true_status("a1") in (OrderStatus.NEW, OrderStatus.CANCELED)
    assert venue.true_status("a2") is None
    venue.buy("a2", price=98.0)


def test_what_the_stream_missed_is_found_by_a_query(world: Make, way: str) -> None:
    venue = world("disconnect@cancel:1=600")
    venue.buy("a1")
    refuse(lambda: venue.broker.cancel_order("never"))
    venue.trade("a1", 100)
    venue.wait(700)
    assert [fill.qty for fill in venue.broker.fetch_fills(0)] == [0.1]
    # The adapter asks for what it missed; the bare connection leaves that to whoever reconciles.
    assert venue.fills(int(way != "in process")) == ([] if way == "in process" else [("a1", 0.1)])


def test_a_stale_snapshot_after_a_reconnect(world: Make) -> None:
    venue = world("stale_snapshot@cancel:1=600")
    venue.buy("a1")
    refuse(lambda: venue.broker.cancel_order("never"))
    venue.wait(620)
    venue.buy("a2", price=98.0)
    assert venue.broker.fetch_order("a2") is None
    assert venue.open_ids() == ["a1"]
    venue.wait(700)
    assert venue.open_ids() == ["a1", "a2"]


def test_the_venues_clock_steps(world: Make) -> None:
    venue = world("clock_step@submit:1=300")
    with pytest.raises(VenueRejected, match="receive window"):
        venue.buy("a1", expires_ns=venue.clock.now_ns() + 200 * MS)
    venue.buy("a2", expires_ns=venue.clock.now_ns() + 2_000 * MS)


def test_a_duplicate_fill_has_the_same_trade_id(world: Make, way: str) -> None:
    venue = world("duplicate_fill@fill:1=80")
    venue.buy("a1")
    venue.trade("a1", 100)
    told = venue.fills(1) + venue.fills(after_ms=150)
    # The adapter over HTTP drops the repeat; the bare connection hands on what it was told.
    assert told == [("a1", 0.1)] * (2 if way == "in process" else 1)
    assert len(list(venue.broker.fetch_fills(0))) == 1


def test_a_fill_comes_before_its_ack(world: Make) -> None:
    venue = world("fill_before_ack@submit:1")
    refuse(lambda: venue.buy("a1"))
    ((name, qty),) = venue.fills(1)
    assert name == "a1"
    assert 0.0 < qty <= 1.0


def test_a_fill_comes_after_the_cancel_was_confirmed(world: Make) -> None:
    venue = world("late_fill@fill:1=8000")
    venue.buy("a1")
    venue.trade("a1", 100)
    assert venue.fills() == []
    assert venue.broker.cancel_order("a1") is True
    assert venue.fills(1) == [("a1", 0.1)]
    assert venue.fills(after_ms=100) == []


def test_a_partial_fill_races_a_cancel(world: Make) -> None:
    venue = world("fill_races_cancel@cancel:1")
    venue.buy("a1")
    canceled = venue.broker.cancel_order("a1")
    ((_, qty),) = venue.fills(1)
    assert canceled is (qty < 1.0)
    assert venue.status("a1") is (OrderStatus.CANCELED if canceled else OrderStatus.FILLED)


def test_a_lost_fill_is_found_by_a_query_only(world: Make) -> None:
    venue = world("lost_fill@fill:1")
    venue.fills()
    venue.buy("a1")
    venue.trade("a1", 100)
    assert venue.fills() == []
    assert [fill.qty for fill in venue.broker.fetch_fills(0)] == [0.1]


def test_fills_come_out_of_order(world: Make) -> None:
    venue = world("out_of_order_fills@fill:1=8000")
    venue.buy("a1")
    venue.trade("a1", 100)
    assert venue.fills() == []
    venue.trade("a1", 200)
    assert venue.fills(2) == [("a1", 0.2), ("a1", 0.1)]


def test_an_overfill_is_more_than_was_ordered(world: Make) -> None:
    venue = world("overfill@fill:1=2")
    venue.buy("a1")
    venue.trade("a1", 100)
    assert venue.fills(1) == [("a1", 1.002)]
    assert venue.broker.get_state()["positions"] == {"MOCK": 1.002}


def test_quiet_ends_all_trouble(world: Make) -> None:
    venue = world("disconnect@submit:1=60000,outage@query:1=60000,rate_limit_storm@cancel:1=99,clock_step@submit:2=300")
    refuse(lambda: venue.buy("a1"))
    venue.look(lambda exchange: exchange.quiet())
    venue.buy("a2", expires_ns=venue.clock.now_ns() + 200 * MS)
    assert venue.status("a2") is OrderStatus.NEW
    assert venue.broker.cancel_order("a2") is True


def test_every_fault_has_a_test_of_its_own() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    assert [kind for kind in FaultKind if f"{kind}@" not in here] == []


# Plans. ---------------------------------------------------------------------------------------------------------------


def test_a_plan_is_a_function_of_its_seed() -> None:
    plans = [str(FaultPlan.from_seed(seed)) for seed in range(200)]
    assert plans == [str(FaultPlan.from_seed(seed)) for seed in range(200)]
    assert len(set(plans)) > 150
    assert {fault.kind for text in plans for fault in FaultPlan.parse(text).faults} == set(FaultKind)


def test_a_plan_is_written_and_read_back() -> None:
    plan = FaultPlan.from_seed(11, most=30)
    assert FaultPlan.parse(str(plan)).faults == plan.faults
    assert FaultPlan.parse("").faults == ()


@pytest.mark.parametrize("text", ["flood@submit:1", "garbage@fill:1", "garbage@submit:0", "garbage", "garbage@query:x"])
def test_a_fault_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        FaultPlan.parse(text)


def test_two_faults_at_one_occasion_strike_one_after_the_other() -> None:
    plan = FaultPlan.parse("garbage@query:2,timeout_before@query:2")
    struck = [plan.take(Occasion.QUERY) for _ in range(4)]
    assert struck[0] is None
    assert {fault.kind for fault in struck[1:3] if fault} == {FaultKind.GARBAGE, FaultKind.TIMEOUT_BEFORE}
    assert struck[3] is None


def test_every_kind_says_when_it_may_strike() -> None:
    assert set(FAULTS) == set(FaultKind)
    for kind, form in FAULTS.items():
        for occasion in form.occasions:
            assert Fault(kind, occasion, 1).kind is kind


# The same from the same seed. -----------------------------------------------------------------------------------------


def history(seed: int) -> list[Any]:
    exchange = MockExchange(seed=seed, faults=FaultPlan.from_seed(seed, horizon=10))
    broker, source = MockExchangeBroker(exchange), MockExchangeSource(exchange, 100)
    told: list[Any] = []
    for number in range(100):
        event = source.next_event()
        assert event is not None
        price = event.bid if number % 2 else event.bid - 0.02
        try:
            told.append(
                broker.submit_order(
                    SubmitOrder(client_order_id=f"a{number}", market_id="MOCK", side=Side.BUY, price=price, qty=0.05)
                )
            )
            told.extend(broker.process_fills(0))
            told.append(broker.cancel_order(f"a{number - 1}"))
        except (VenueRejected, VenueUnavailable) as error:
            told.append(str(error))
    return [*told, broker.exchange.venue.fills, broker.exchange.venue.placements]


def test_everything_is_a_function_of_the_seed() -> None:
    assert history(5) == history(5)
    assert history(5) != history(6)


def test_positions_and_cash_are_the_sum_of_the_fills() -> None:
    for seed in range(20):
        exchange = MockExchange(seed=seed)
        broker, source = MockExchangeBroker(exchange), MockExchangeSource(exchange, 60)
        while (event := source.next_event()) is not None:
            for side, price in ((Side.BUY, event.bid), (Side.SELL, event.ask)):
                name = f"{side.value}{event.recv_ts_ns}"
                broker.cancel_all()
                broker.submit_order(
                    SubmitOrder(client_order_id=name, market_id="MOCK", side=side, price=price, qty=0.05)
                )
        fills = exchange.venue.fills
        assert fills
        assert broker.get_state()["positions"]["MOCK"] == pytest.approx(sum(fill.signed_qty for fill in fills))
        cash = sum(-fill.signed_qty * fill.price - fill.fee for fill in fills)
        assert broker.fetch_balances()["USD"] == pytest.approx(cash)
        assert [fill.trade_id for fill in broker.process_fills(0)] == [fill.trade_id for fill in fills]


# What is refused. -----------------------------------------------------------------------------------------------------


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="lot_size"):
        MockExchange(instrument=Instrument("X"))
    with pytest.raises(ConfigError, match="recv_window_ms"):
        MockExchange(recv_window_ms=0)
    with pytest.raises(ConfigError, match="max_requests_per_s"):
        MockExchange(max_requests_per_s=-1)


def test_the_port_must_be_free() -> None:
    with (
        ExchangeServer(MockExchange(WallClock())) as server,
        pytest.raises(ConfigError, match="cannot listen"),
    ):
        ExchangeServer(MockExchange(WallClock()), int(server.url.rpartition(":")[2]))
