"""An order service compares itself with the venue: at first, by a timer, on doubt, after a reconnect, when asked."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.execution.test_order_service import BUY, Exchange

from ami_engine.clock import ManualClock
from ami_engine.errors import ConfigError, OrderError
from ami_engine.events import Fill, Side
from ami_engine.execution.journal import Journal
from ami_engine.execution.order_service import OrderIntent, OrderService
from ami_engine.state_store import StateStore
from ami_engine.units import NS_PER_MS

MS = NS_PER_MS


class Truthful(Exchange):
    """The exchange, which can also be asked about fills and positions."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.fills: list[Fill] = []
        self.moved = 0.0  # what somebody else traded on the account
        self.asked = 0

    def fill(self, order_id: str, qty: float) -> Fill:
        self.fills.append(super().fill(order_id, qty))
        return self.fills[-1]

    def lose(self) -> None:
        """What was to be told is not."""
        self.told.clear()

    def fetch_fills(self, since_ns: int) -> list[Fill]:
        self.asked += 1
        return [fill for fill in self.fills if fill.ts_ns >= since_ns]

    def get_state(self) -> dict[str, Any]:
        return {"positions": {"X": self.moved + sum(fill.signed_qty for fill in self.fills)}}


class Desk:
    def __init__(self, path: Path) -> None:
        self.clock = ManualClock(1_000_000 * MS)
        self.venue = Truthful(self.clock)
        self.path = path
        self.start()

    def start(self) -> OrderService:
        self.store = StateStore(self.path, durability="off")
        journal = Journal(self.store, run_id="r1", begun_ns=1)
        self.service = OrderService(self.venue, journal, self.clock, settle_ms=500, reconcile_every_ms=10_000)
        return self.service

    def restart(self) -> OrderService:
        self.store.close()
        return self.start()

    def wait(self, ms: int) -> None:
        self.clock.advance_to(self.clock.now_ns() + ms * MS)

    def calm(self) -> None:
        """Look until what the market held at first is known."""
        for _ in range(3):
            self.wait(10_000)
            self.service.poll()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "orders.sqlite")
    yield desk
    desk.store.close()


def buy(desk: Desk, key: str = "k") -> str:
    result = desk.service.submit(BUY, key)
    assert result.outcome == "accepted"
    return result.client_order_id


def test_a_start_finds_what_happened_while_nobody_listened(desk: Desk) -> None:
    order_id = buy(desk)
    desk.calm()
    desk.venue.fill(order_id, 2.0)
    desk.venue.lose()
    service = desk.restart()
    assert service.position("X") == 0
    (fill,) = service.poll()
    assert (fill.client_order_id, service.position("X"), service.open_orders()) == (order_id, 2, [])
    assert service.poll() == []


def test_the_first_order_of_a_start_waits_for_the_comparison(desk: Desk) -> None:
    order_id = buy(desk)
    desk.calm()
    desk.venue.fill(order_id, 0.5)
    desk.venue.lose()
    service, asked = desk.restart(), desk.venue.asked
    service.submit(OrderIntent(market_id="X", side=Side.SELL, price=9.8, qty=1.0, step=4), "k")
    assert desk.venue.asked == asked + 1
    assert float(service.position("X")) == 0.5
    service.submit(OrderIntent(market_id="X", side=Side.SELL, price=9.9, qty=1.0, step=5), "k")
    assert desk.venue.asked == asked + 1


def test_a_lost_fill_is_found_by_the_timer_and_not_before(desk: Desk) -> None:
    order_id = buy(desk)
    desk.calm()
    desk.venue.fill(order_id, 2.0)
    desk.venue.lose()
    desk.wait(5_000)
    assert desk.service.poll() == []
    desk.wait(6_000)
    assert [fill.qty for fill in desk.service.poll()] == [2.0]
    assert desk.service.order(order_id).status.value == "FILLED"  # type: ignore[union-attr]


def test_a_reconnect_makes_the_next_poll_compare(desk: Desk) -> None:
    order_id = buy(desk)
    desk.calm()
    desk.venue.fill(order_id, 2.0)
    desk.venue.lose()
    desk.service.on_reconnect()
    assert [fill.qty for fill in desk.service.poll()] == [2.0]


def test_a_broker_that_can_be_read_again_is_a_reconnect(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    order_id = buy(desk)
    desk.calm()

    def down(now_ms: int) -> list[Fill]:
        raise TimeoutError

    with monkeypatch.context() as cut:
        cut.setattr(desk.venue, "process_fills", down)
        desk.service.poll()
        desk.venue.fill(order_id, 2.0)
    desk.venue.lose()
    found = [*desk.service.poll(), *desk.service.poll()]
    assert [fill.qty for fill in found] == [2.0]


def test_a_doubt_is_compared_once_it_can_be_told(desk: Desk) -> None:
    desk.calm()
    desk.venue.plan = ["lost after"]
    doubted = desk.service.submit(BUY, "k")
    assert doubted.outcome == "in_doubt"
    asked = desk.venue.asked
    desk.service.poll()
    assert desk.venue.asked == asked
    desk.wait(500)
    desk.service.poll()
    assert desk.venue.asked == asked + 1
    assert desk.service.submit(BUY, "k").outcome == "accepted"


def test_a_comparison_on_demand_says_what_it_found(desk: Desk) -> None:
    order_id = buy(desk)
    desk.calm()
    desk.venue.fill(order_id, 1.0)
    desk.venue.lose()
    found = desk.service.reconcile()
    assert found is not None
    assert [each.reason for each in found.corrections]
    assert [fill.qty for fill in desk.service.poll()] == [1.0]
    again = desk.service.reconcile()
    assert again is not None
    assert again.is_clean
    desk.venue.is_down = True
    assert desk.service.reconcile() is None


def test_a_contradiction_stops_orders_and_halts_when_it_stays(desk: Desk) -> None:
    buy(desk)
    desk.calm()
    desk.venue.moved = 7.0
    found = desk.service.reconcile()
    assert found is not None
    assert found.contradictions
    sent = len(desk.venue.sent)
    with pytest.raises(OrderError, match=r"nothing is sent: the venue contradicts us: .*X"):
        desk.service.submit(BUY, "more")
    assert desk.service.halt_reason == ""
    desk.wait(600)
    desk.service.poll()
    assert desk.service.halt_reason.startswith("the venue contradicts us")
    service = desk.restart()
    assert service.halt_reason.startswith("kill_switch is latched")
    with pytest.raises(OrderError):
        service.submit(BUY, "more")
    assert len(desk.venue.sent) == sent


def test_a_contradiction_of_a_moment_is_forgiven(desk: Desk) -> None:
    buy(desk)
    desk.calm()
    desk.venue.moved = 7.0
    found = desk.service.reconcile()
    assert found is not None
    assert found.contradictions
    desk.venue.moved = 0.0
    desk.wait(600)
    desk.service.poll()
    assert desk.service.submit(BUY, "more").outcome == "accepted"


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_period_that_is_none_is_refused(desk: Desk, value: float) -> None:
    with pytest.raises(ConfigError, match="`reconcile_every_ms` must be finite and >= 0"):
        OrderService(desk.venue, desk.service.journal, desk.clock, reconcile_every_ms=value)


def test_nothing_is_sent_before_the_venue_could_be_compared_with(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    order_id = buy(desk)
    desk.calm()
    desk.venue.fill(order_id, 0.5)
    desk.venue.lose()
    service = desk.restart()

    def down(*_: Any) -> Any:
        raise ConnectionError("down")

    sell = OrderIntent(market_id="X", side=Side.SELL, price=9.9, qty=1.0, step=5)
    with monkeypatch.context() as broken:
        broken.setattr(desk.venue, "fetch_fills", down)
        with pytest.raises(OrderError, match="could not be compared"):
            service.submit(sell, "k")
    desk.calm()
    assert service.submit(sell, "k").outcome == "accepted"
    assert service.position("X") == Decimal("0.5")


def test_an_order_that_a_lost_journal_knew_is_cancelled_before_the_first_is_sent(desk: Desk, tmp_path: Path) -> None:
    old = buy(desk)
    desk.store.close()
    desk.store = StateStore(tmp_path / "new.sqlite", durability="off")
    desk.service = OrderService(desk.venue, Journal(desk.store, run_id="r2", begun_ns=1), desk.clock, settle_ms=500)
    assert desk.service.submit(BUY, "k2").outcome == "accepted"
    assert desk.service.strays == (old,)
    assert set(desk.venue.live) == {desk.service.id_of(BUY, "k2")}
