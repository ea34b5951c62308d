"""The comparison with the venue as the order layer runs it: what it takes down, and what it waits for."""

from __future__ import annotations

from decimal import Decimal

from ami_engine.adapters.base import Broker
from ami_engine.clock import ManualClock
from ami_engine.events import Fill, OrderReport, Side, SubmitOrder
from ami_engine.execution.idempotency import client_order_id
from ami_engine.execution.journal import Journal
from ami_engine.execution.order_manager import OrderManager
from ami_engine.sim.faults import FaultPlan
from ami_engine.sim.mock_broker import MockExchangeBroker
from ami_engine.sim.mock_exchange import MockExchange
from ami_engine.state_store import StateStore
from decision_schema.types import Action, FinalDecision

MS = 1_000_000
SETTLE_MS = 1_000


class Desk:
    """An order manager with a journal at a mock exchange; time passes by the millisecond."""

    def __init__(self, plan: str = "") -> None:
        self.clock = ManualClock(1_700_000_000_000 * MS)
        self.exchange = MockExchange(self.clock, recv_window_ms=500)
        self.journal = Journal(StateStore(":memory:"), run_id="desk")
        self.manager = OrderManager(
            MockExchangeBroker(self.exchange),
            refresh_ms=100,
            instrument=self.exchange.venue.markets["MOCK"].instrument,
            journal=self.journal,
            settle_ms=SETTLE_MS,
            reconcile_every_ms=100,
        )
        self.exchange.begin(FaultPlan.parse(plan))

    @property
    def now_ms(self) -> int:
        return self.clock.now_ns() // MS

    def sleep(self, ms: int) -> None:
        self.clock.advance_to(self.clock.now_ns() + ms * MS)
        self.exchange.advance()

    def wait(self, ms: int) -> None:
        self.sleep(ms)
        self.manager.poll(self.now_ms)

    def bid(self) -> None:
        self._do(FinalDecision(Action.ACT, True, ["test"], params={"bid_quote": 99.0, "size_usd": 99.0}))

    def cancel(self) -> None:
        self._do(FinalDecision(Action.CANCEL, True, ["test"]))

    def _do(self, final: FinalDecision) -> None:
        self.manager.apply(final, "MOCK", self.now_ms, bid=99.99, ask=100.01, position=0.0, step=self.now_ms)

    def trade(self, lots: int) -> None:
        (order,) = self.exchange.venue.open_orders()
        self.exchange.venue.fill(order, lots)


def test_an_account_that_lags_behind_its_fills_is_not_taken_for_an_opening_position() -> None:
    desk = Desk()
    desk.wait(1)
    desk.bid()
    # The connection goes and comes back with an account as it was before the fill that the stream then tells.
    desk.exchange.begin(FaultPlan.parse("stale_snapshot@poll:1=300"))
    desk.wait(1)
    desk.sleep(310)
    desk.trade(400)
    for _ in range(20):
        desk.wait(250)
    assert desk.journal.position("MOCK") == Decimal("0.4")
    assert not desk.manager.halt_reason


def test_what_was_held_before_is_taken_down_once_two_looks_agree() -> None:
    desk = Desk()
    desk.exchange.venue.markets["MOCK"].position = 250
    desk.wait(1)
    desk.bid()
    for _ in range(12):
        desk.wait(250)
    assert desk.journal.position("MOCK") == Decimal("0.25")
    desk.trade(100)
    desk.wait(1)
    assert desk.journal.position("MOCK") == Decimal("0.35")


def test_a_cancel_asked_again_and_again_does_not_put_off_what_the_venue_says() -> None:
    desk = Desk("timeout_before@submit:1")
    desk.wait(1)
    desk.bid()
    (order,) = desk.manager.open_orders()
    assert order.in_doubt
    assert order.side is Side.BUY
    # Window and settling are over after 1.5 s; two queries more, a tenth of a second apart.
    for _ in range(25):
        desk.cancel()
        desk.wait(100)
    assert desk.manager.open_orders() == []


class _Slow(Broker):
    """Accepts cancels at once and lists what was cancelled a while longer, once it lags."""

    def __init__(self) -> None:
        self.listed: dict[str, OrderReport] = {}
        self.lags = False

    def submit_order(self, order: SubmitOrder) -> None:
        raise AssertionError("nothing is to be sent")

    def cancel_order(self, order_id: str) -> bool:
        if not self.lags:
            del self.listed[order_id]
        return True

    def fetch_order(self, client_order_id: str) -> OrderReport | None:
        return self.listed.get(client_order_id)

    def fetch_open_orders(self, market_id: str | None = None) -> list[OrderReport]:
        return list(self.listed.values())

    def fetch_fills(self, since_ns: int) -> list[Fill]:
        return []

    def leave(self, market_id: str) -> None:
        order_id = client_order_id("an earlier run", market_id, 1, Side.BUY)
        self.listed[order_id] = OrderReport(
            client_order_id=order_id, market_id=market_id, side=Side.BUY, price=1.0, qty=1.0
        )


def test_each_markets_strays_have_their_own_time_to_go() -> None:
    venue = _Slow()
    journal = Journal(StateStore(":memory:"), run_id="r", begun_ns=1)
    manager = OrderManager(venue, journal=journal, settle_ms=SETTLE_MS, reconcile_every_ms=100)
    venue.leave("A")
    manager.trade_in("A")
    manager.poll(1)
    assert len(manager.strays) == 1
    venue.lags = True
    venue.leave("B")
    manager.trade_in("B")
    manager.poll(60_000)
    assert not manager.halt_reason
    manager.poll(60_000 + 2 * SETTLE_MS)
    assert "cannot be cancelled" in manager.halt_reason
