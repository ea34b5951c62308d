"""The order service: one key, one order; doubts end with the venue's word; cancels are verified."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ami_engine.adapters.base import Broker
from ami_engine.clock import ManualClock
from ami_engine.errors import (
    ConfigError,
    DuplicateOrderId,
    OrderError,
    StateError,
    VenueRejected,
    VenueUnavailable,
)
from ami_engine.events import Fill, OrderReport, OrderStatus, Side, SubmitOrder, TimeInForce
from ami_engine.execution.idempotency import OrderIdFormat
from ami_engine.execution.journal import Journal
from ami_engine.execution.order_service import OrderIntent, OrderService
from ami_engine.state_store import StateStore
from ami_engine.units import NS_PER_MS, Instrument

MS = NS_PER_MS
BUY = OrderIntent(market_id="X", side=Side.BUY, price=9.5, qty=2.0, step=3)


class Exchange(Broker):
    """A venue with its own truth. `plan` says of each next submit whether it arrives and whether its answer does."""

    recv_window_ms: int | None = 1_000

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.sent: list[SubmitOrder] = []
        self.orders: dict[str, SubmitOrder] = {}
        self.status: dict[str, OrderStatus] = {}
        self.filled: dict[str, float] = {}
        self.late: list[SubmitOrder] = []
        self.told: list[Fill] = []
        self.plan: list[str] = []
        self.cancel_plan: list[str] = []
        self.is_down = False

    def submit_order(self, order: SubmitOrder) -> str:
        self.sent.append(order)
        plan = self.plan.pop(0) if self.plan else ""
        if plan == "refuse":
            raise VenueRejected("no")
        if plan == "unsent":
            raise VenueUnavailable("no route", outcome_known=True)
        if plan == "lost before":
            raise TimeoutError
        if plan == "late":
            self.late.append(order)
            raise TimeoutError
        self.take(order)
        if plan == "lost after":
            raise TimeoutError
        return f"v{len(self.orders)}"

    def take(self, order: SubmitOrder) -> None:
        is_over = order.expires_ns and self.clock.now_ns() > order.expires_ns
        if not is_over and order.client_order_id not in self.orders:
            self.orders[order.client_order_id] = order
            self.status[order.client_order_id] = OrderStatus.NEW
            self.filled[order.client_order_id] = 0.0

    def arrive(self) -> None:
        late, self.late = self.late, []
        for order in late:
            self.take(order)

    def fill(self, order_id: str, qty: float) -> Fill:
        order = self.orders[order_id]
        self.filled[order_id] += qty
        is_whole = self.filled[order_id] >= order.qty
        self.status[order_id] = OrderStatus.FILLED if is_whole else OrderStatus.PARTIALLY_FILLED
        fill = Fill(
            trade_id=f"t{order_id[-3:]}{self.filled[order_id]}",
            client_order_id=order_id,
            market_id=order.market_id,
            side=order.side,
            price=order.price,
            qty=qty,
            ts_ns=self.clock.now_ns(),
        )
        self.told.append(fill)
        return fill

    @property
    def live(self) -> list[str]:
        closed = (OrderStatus.CANCELED, OrderStatus.FILLED)
        return [order_id for order_id, status in self.status.items() if status not in closed]

    def cancel_order(self, order_id: str) -> bool:
        plan = self.cancel_plan.pop(0) if self.cancel_plan else ""
        if plan == "lost before":
            raise TimeoutError
        was_live = order_id in self.live and plan != "lie"
        if was_live:
            self.status[order_id] = OrderStatus.CANCELED
        if plan == "lost after":
            raise TimeoutError
        return was_live or plan == "lie"

    def process_fills(self, now_ms: int) -> list[Fill]:
        told, self.told = self.told, []
        return told

    def fetch_order(self, client_order_id: str) -> OrderReport | None:
        if self.is_down:
            raise TimeoutError
        order = self.orders.get(client_order_id)
        if order is None:
            return None
        return OrderReport(
            client_order_id=client_order_id,
            market_id=order.market_id,
            side=order.side,
            price=order.price,
            qty=order.qty,
            filled_qty=self.filled[client_order_id],
            status=self.status[client_order_id],
        )

    def fetch_open_orders(self, market_id: str | None = None) -> list[OrderReport]:
        if self.is_down:
            raise TimeoutError
        reports = [self.fetch_order(order_id) for order_id in self.live]
        return [report for report in reports if report is not None]


class Desk:
    """A service with its clock, venue and store, that can be killed and started again."""

    def __init__(self, path: Path | None = None) -> None:
        self.clock = ManualClock(1_000_000 * MS)
        self.venue = Exchange(self.clock)
        self.path = ":memory:" if path is None else path
        self.id_format: OrderIdFormat | None = None
        self.start()

    def start(self) -> OrderService:
        self.store = StateStore(self.path, durability="off")
        journal = Journal(self.store, run_id="r1", begun_ns=1)
        self.service = OrderService(self.venue, journal, self.clock, settle_ms=500, id_format=self.id_format)
        return self.service

    def restart(self) -> OrderService:
        self.store.close()
        return self.start()

    def wait(self, ms: int) -> None:
        self.clock.advance_to(self.clock.now_ns() + ms * MS)

    def resolve(self, **options: Any) -> list[Any]:
        """Look until nothing more can be learned."""
        found = []
        for _ in range(6):
            self.wait(600)
            found.extend(self.service.resolve_doubts(**options))
        return found


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "orders.sqlite")
    yield desk
    desk.store.close()


# The four invariants. ---------------------------------------------------------------------------------------------

PLANS = ("", "refuse", "unsent", "lost before", "lost after", "late")


@settings(max_examples=60, deadline=None)
@given(
    plan=st.lists(st.sampled_from(PLANS), min_size=1, max_size=4),
    acts=st.lists(st.sampled_from(("submit", "restart", "resolve", "arrive", "wait")), max_size=12),
)
def test_a_repeated_submit_with_one_key_never_makes_a_second_live_order(plan: list[str], acts: list[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        desk = Desk(Path(folder) / "orders.sqlite")
        desk.venue.plan = plan
        first = desk.service.submit(BUY, "k")
        for act in acts:
            if act == "submit":
                again = desk.service.submit(BUY, "k")
                assert (again.client_order_id, again.is_repeat) == (first.client_order_id, True)
            elif act == "restart":
                desk.restart()
            elif act == "resolve":
                desk.resolve()
            elif act == "arrive":
                desk.venue.arrive()
            else:
                desk.wait(700)
        assert len(desk.venue.sent) == 1
        assert len(desk.venue.orders) <= 1
        desk.store.close()


@settings(max_examples=60, deadline=None)
@given(
    plan=st.lists(st.sampled_from(PLANS), min_size=1, max_size=4),
    acts=st.lists(st.sampled_from(("resolve", "arrive", "restart", "wait")), max_size=12),
)
def test_a_retry_after_a_timeout_is_at_most_once(plan: list[str], acts: list[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        desk = Desk(Path(folder) / "orders.sqlite")
        desk.venue.plan = plan
        desk.service.submit(BUY, "k")
        for act in acts:
            before = len(desk.venue.sent)
            if act == "resolve":
                desk.service.resolve_doubts(resend=True)
            elif act == "arrive":
                desk.venue.arrive()
            elif act == "restart":
                desk.restart()
            desk.wait(700)
            # Sent again only when the one before can arrive no more, and under its own id.
            if len(desk.venue.sent) > before:
                assert desk.venue.sent[-2].expires_ns < desk.venue.sent[-1].expires_ns - 1_000 * MS
                assert not desk.venue.live or desk.venue.live == [desk.venue.sent[-1].client_order_id]
        assert len({order.client_order_id for order in desk.venue.sent}) == 1
        assert len(desk.venue.orders) <= 1
        desk.store.close()


@pytest.mark.parametrize("plan", ["lost before", "lost after"])
@pytest.mark.parametrize("dies", [False, True])
def test_reconciliation_resolves_an_uncertain_submission_to_the_venues_truth(
    desk: Desk, plan: str, *, dies: bool
) -> None:
    desk.venue.plan = [plan]
    first = desk.service.submit(BUY, "k")
    assert (first.outcome, first.order.in_doubt) == ("in_doubt", True)
    if dies:
        desk.restart()
        assert desk.service.submit(BUY, "k").outcome == "in_doubt"
    (resolved,) = desk.resolve()
    assert resolved.outcome == ("accepted" if plan == "lost after" else "rejected")
    assert (resolved.order.status is OrderStatus.NEW) == bool(desk.venue.live)
    assert desk.service.submit(BUY, "k").outcome == resolved.outcome


def test_the_kill_path_is_safe_under_repetition(desk: Desk) -> None:
    desk.venue.plan = ["", "lost after", "lost before"]
    for key in ("a", "b", "c"):
        desk.service.submit(BUY, key)
    desk.venue.cancel_plan = ["lost after", "lost before", "lie"]
    first = desk.service.cancel_all("kill")
    assert not first.is_done
    results = []
    for number in range(12):
        if number == 4:
            desk.restart()
        desk.wait(600)
        desk.service.resolve_doubts()
        results.append(desk.service.cancel_all("kill"))
    assert results[-1].is_done
    assert results[-1].still_open == ()
    assert desk.venue.live == []
    assert len(desk.venue.sent) == 3
    last = desk.service.cancel_all("kill")
    assert (last.is_done, last.canceled) == (True, 0)


# Keys and ids. ----------------------------------------------------------------------------------------------------


def test_a_restart_makes_the_same_ids(desk: Desk) -> None:
    first = desk.service.id_of(BUY, "k")
    assert desk.restart().id_of(BUY, "k") == first
    assert first.isalnum()
    assert len(first) == 32
    assert desk.service.id_of(BUY, "l") != first


def test_a_key_means_one_order(desk: Desk) -> None:
    desk.service.submit(BUY, "k")
    other = OrderIntent(market_id="X", side=Side.BUY, price=9.5, qty=3.0, step=3)
    with pytest.raises(DuplicateOrderId, match=r"key 'k' was used for an order of qty 2\.0, now it is 3\.0"):
        desk.service.submit(other, "k")
    desk.restart()
    with pytest.raises(DuplicateOrderId):
        desk.service.submit(other, "k")


def test_ids_have_the_venues_format(desk: Desk) -> None:
    desk.id_format = OrderIdFormat(prefix="7", length=22, alphabet="0123456789")
    order_id = desk.restart().submit(BUY, "k").client_order_id
    assert (len(order_id), order_id[0], order_id.isdigit()) == (22, "7", True)


@pytest.mark.parametrize(("name", "value"), [("price", 0.0), ("qty", float("nan")), ("step", -1)])
def test_an_intent_that_no_order_can_be_made_of_is_refused(name: str, value: Any) -> None:
    fields: dict[str, Any] = {"market_id": "X", "side": Side.BUY, "price": 9.5, "qty": 2.0} | {name: value}
    with pytest.raises(OrderError, match=f"`{name}`"):
        OrderIntent(**fields)


# Before the send. -------------------------------------------------------------------------------------------------


def test_the_intent_is_durable_before_the_order_leaves(desk: Desk) -> None:
    seen = []

    def look(order: SubmitOrder) -> str:
        kept = desk.service.journal.find(order.client_order_id)
        assert kept is not None
        seen.append((kept.order.status, kept.intent.idem_key, kept.intent.step, desk.store.transactions))
        return "v"

    desk.venue.submit_order = look  # type: ignore[method-assign]
    before = desk.store.transactions
    desk.service.submit(BUY, "k")
    assert seen == [(OrderStatus.INITIALIZED, "k", 3, before + 1)]


def test_what_cannot_be_journaled_is_not_sent(desk: Desk) -> None:
    pages = desk.store.query("PRAGMA page_count")[0][0]
    desk.store._run(f"PRAGMA max_page_count={pages + 4}")
    accepted = 0
    with pytest.raises((OrderError, StateError), match="the disk is full"):  # noqa: PT012
        for number in range(1_000):
            desk.service.submit(BUY, f"key-{number}-" + "x" * 200)
            accepted += 1
    assert len(desk.venue.sent) == accepted
    assert all(desk.service.journal.find(order.client_order_id) for order in desk.venue.sent)
    with pytest.raises(OrderError, match=r"nothing is sent.*the disk is full"):
        desk.service.submit(BUY, "one more")
    assert len(desk.venue.sent) == accepted
    assert desk.service.cancel_all("the disk is full").is_done
    assert desk.venue.live == []


@pytest.mark.parametrize("point", ["store.commit.before", "store.commit.after"])
def test_a_crash_around_the_intent_never_doubles_the_order(desk: Desk, point: str) -> None:
    class Crash(BaseException):
        pass

    def crash(name: str) -> None:
        if name == point:
            raise Crash

    desk.store.fault = crash
    with pytest.raises(Crash):
        desk.service.submit(BUY, "k")
    assert desk.venue.sent == []
    desk.restart()
    again = desk.service.submit(BUY, "k")
    if point == "store.commit.before":
        assert (again.outcome, again.is_repeat) == ("accepted", False)
    else:
        assert (again.outcome, again.is_repeat) == ("in_doubt", True)
        (resolved,) = desk.resolve(resend=True)
        assert resolved.outcome == "accepted"
    assert len(desk.venue.sent) == 1


# Doubts. ----------------------------------------------------------------------------------------------------------


def test_a_request_that_lands_after_a_query_said_unknown_is_found(desk: Desk) -> None:
    desk.venue.plan = ["late"]
    desk.service.submit(BUY, "k")
    desk.wait(600)
    assert desk.service.resolve_doubts() == []
    desk.venue.arrive()
    desk.wait(600)
    (found,) = desk.service.resolve_doubts(resend=True)
    assert (found.outcome, len(desk.venue.sent)) == ("accepted", 1)


def test_where_requests_cannot_expire_the_order_stays_in_doubt(desk: Desk) -> None:
    desk.venue.recv_window_ms = None
    desk.restart()
    desk.venue.plan = ["late"]
    desk.service.submit(BUY, "k")
    for _ in range(50):
        desk.wait(3_600_000)
        assert desk.service.resolve_doubts(resend=True) == []
    desk.venue.arrive()
    desk.wait(600)
    assert [found.outcome for found in desk.service.resolve_doubts()] == ["accepted"]
    assert len(desk.venue.sent) == 1


def test_a_venue_that_is_down_proves_nothing(desk: Desk) -> None:
    desk.venue.plan = ["lost before"]
    desk.service.submit(BUY, "k")
    desk.venue.is_down = True
    assert desk.resolve() == []
    desk.venue.is_down = False
    assert [found.outcome for found in desk.resolve()] == ["rejected"]


def test_refusals_and_known_failures_are_rejections(desk: Desk) -> None:
    desk.venue.plan = ["refuse", "unsent"]
    results = [desk.service.submit(BUY, key) for key in ("a", "b")]
    assert [result.outcome for result in results] == ["rejected", "rejected"]
    assert results[1].error == "VenueUnavailable: no route"
    assert desk.service.open_orders() == []


# Fills and cancels. -----------------------------------------------------------------------------------------------


def test_fills_are_booked_once_over_repeats_and_restarts(desk: Desk) -> None:
    order_id = desk.service.submit(BUY, "k").client_order_id
    fill = desk.venue.fill(order_id, 0.5)
    assert desk.service.poll() == [fill]
    assert not desk.service.on_fill(fill)
    desk.restart()
    assert not desk.service.on_fill(fill)
    desk.venue.told.append(fill)
    assert desk.service.poll() == []
    assert desk.service.position("X") == Decimal("0.5")
    order = desk.service.order(order_id)
    assert order is not None
    assert (order.filled_qty, order.status) == (0.5, OrderStatus.PARTIALLY_FILLED)


def test_an_overfill_is_booked_and_halts(desk: Desk) -> None:
    order_id = desk.service.submit(BUY, "k").client_order_id
    desk.venue.fill(order_id, 3.0)
    assert len(desk.service.poll()) == 1
    assert "overfill" in desk.service.halt_reason
    assert desk.service.position("X") == Decimal(3)
    with pytest.raises(OrderError, match="nothing is sent: overfill"):
        desk.service.submit(BUY, "l")


def test_a_late_fill_of_an_order_long_forgotten_finds_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ami_engine.execution.order_table._CLOSED_KEPT", 2)
    ids = [desk.service.submit(BUY, str(number)).client_order_id for number in range(5)]
    for order_id in ids:
        assert desk.service.cancel(order_id)
    late = Fill(trade_id="late", client_order_id=ids[0], market_id="X", side=Side.BUY, price=9.5, qty=1.0)
    assert desk.service.on_fill(late)
    assert desk.service.halt_reason == ""
    order = desk.service.order(ids[0])
    assert order is not None
    assert (order.status, order.filled_qty) == (OrderStatus.CANCELED, 1.0)
    assert desk.service.cancel(ids[1])


def test_a_cancel_is_done_once_the_venue_said_so(desk: Desk) -> None:
    order_id = desk.service.submit(BUY, "k").client_order_id
    desk.venue.cancel_plan = ["lost after"]
    assert not desk.service.cancel(order_id)
    desk.wait(600)
    desk.service.resolve_doubts()
    assert desk.service.cancel(order_id)
    with pytest.raises(OrderError, match="no order 'nobody' is known"):
        desk.service.cancel("nobody")


def test_a_cancel_that_the_venue_only_claims_is_found_out(desk: Desk) -> None:
    order_id = desk.service.submit(BUY, "k").client_order_id
    desk.venue.cancel_plan = ["lie"]
    first = desk.service.cancel_all("end")
    assert (first.is_done, first.still_open) == (False, (order_id,))
    assert desk.service.cancel_all("end").is_done
    assert desk.venue.live == []


def test_what_cannot_be_verified_is_not_done(desk: Desk) -> None:
    desk.service.submit(BUY, "k")
    desk.venue.is_down = True
    found = desk.service.cancel_all("end")
    assert not found.is_done
    assert "not verified" in found.errors[-1]


def test_an_immediate_order_that_ended_unheard_is_closed(desk: Desk) -> None:
    closing = OrderIntent(market_id="X", side=Side.SELL, price=9.0, qty=1.0, tif=TimeInForce.IOC, reduce_only=True)
    order_id = desk.service.submit(closing, "x").client_order_id
    desk.venue.status[order_id] = OrderStatus.CANCELED
    desk.wait(600)
    desk.service.resolve_doubts()
    assert desk.service.open_orders() == []


def test_an_old_order_that_the_venue_still_lists_is_not_taken_for_a_strangers(desk: Desk) -> None:
    """It was said to be cancelled, over a thousand orders ago: only the journal knows that it is ours."""
    desk.venue.cancel_plan = ["lie"]
    old = desk.service.submit(BUY, "old").client_order_id
    assert desk.service.cancel(old)
    desk.venue.plan = ["refuse"] * 1_100
    for number in range(1_100):
        desk.service.submit(BUY, str(number))
    first = desk.service.cancel_all("kill")
    assert (first.is_done, first.still_open) == (False, (old,))
    assert desk.venue.live == []
    assert desk.service.cancel_all("kill").is_done


# Gates and latches. -----------------------------------------------------------------------------------------------


def test_what_the_gate_keeps_back_is_not_sent_and_its_key_stays_free(desk: Desk) -> None:
    words = ["worst_case_exposure: too much"]
    service = OrderService(desk.venue, desk.service.journal, desk.clock, gate=lambda order: words[0])
    with pytest.raises(OrderError, match="worst_case_exposure"):
        service.submit(BUY, "k")
    assert (desk.venue.sent, service.order(service.id_of(BUY, "k"))) == ([], None)
    words[0] = ""
    assert service.submit(BUY, "k").outcome == "accepted"


def test_an_order_is_not_sent_again_past_the_gate(desk: Desk) -> None:
    words = [""]
    desk.service = OrderService(
        desk.venue, desk.service.journal, desk.clock, settle_ms=500, gate=lambda order: words[0]
    )
    desk.venue.plan = ["lost before"]
    desk.service.submit(BUY, "k")
    words[0] = "trading_halted: nothing leaves"
    assert [each.outcome for each in desk.resolve(resend=True)] == ["rejected"]
    assert len(desk.venue.sent) == 1


def test_a_halt_holds_after_a_restart_until_an_operator_releases_it(desk: Desk) -> None:
    order_id = desk.service.submit(BUY, "k").client_order_id
    desk.venue.fill(order_id, 5.0)  # more than was ordered
    desk.service.poll()
    assert "overfill" in desk.service.halt_reason
    assert [each[:2] for each in desk.service.journal.latches()] == [("kill_switch", desk.clock.now_ns())]
    service = desk.restart()
    with pytest.raises(OrderError, match="overfill"):
        service.submit(BUY, "another")
    with pytest.raises(ConfigError, match="operator"):
        service.release("", "seen")
    service.release("ann", "the venue corrected it")
    assert service.halt_reason == ""
    assert desk.restart().submit(BUY, "another").outcome == "accepted"
    with pytest.raises(ConfigError, match="latched"):
        desk.service.release("ann", "again")


# An order that arrives after all. ---------------------------------------------------------------------------------


def test_what_was_said_of_an_order_before_it_arrived_does_not_end_it(desk: Desk, monkeypatch: Any) -> None:
    """A cancel found nothing, then the submit arrived and traded, and one stale answer leaves it out."""
    monkeypatch.setattr(desk.venue, "recv_window_ms", None)
    service = desk.restart()
    desk.venue.plan = ["late"]
    order_id = service.submit(BUY, "k").client_order_id
    assert not service.cancel(order_id)
    desk.wait(10_000)
    desk.venue.arrive()
    desk.venue.fill(order_id, 0.5)
    assert len(service.poll()) == 1
    with monkeypatch.context() as stale:
        stale.setattr(desk.venue, "fetch_order", lambda client_order_id: None)
        service.resolve_doubts()
    order = service.order(order_id)
    assert order is not None
    assert order.is_open
    assert service.cancel(order_id)
    assert desk.venue.live == []


def test_an_intent_knows_its_words_and_refuses_others() -> None:
    intent = OrderIntent(market_id="X", side="BUY", price=9.5, qty=2.0, tif="ioc")  # type: ignore[arg-type]
    assert (intent.side, intent.tif) == (Side.BUY, TimeInForce.IOC)
    for change in ({"side": "long"}, {"side": None}, {"tif": "FOK"}):
        with pytest.raises(OrderError, match=f"`{next(iter(change))}` of an order must be .*, was "):
            OrderIntent(**{"market_id": "X", "side": Side.BUY, "price": 9.5, "qty": 2.0} | change)


def test_the_value_of_an_order_is_that_of_its_instrument() -> None:
    clock = ManualClock(1)
    venue = Exchange(clock)
    known = {
        "X": Instrument("X", multiplier=10.0),
        "I": Instrument("I", tick_size=0.5, kind="inverse", multiplier=100.0, currency="BTC"),
    }
    service = OrderService(venue, Journal(StateStore(":memory:"), run_id="r1"), clock, instruments=known)
    for market_id in ("X", "I", "other"):
        service.submit(OrderIntent(market_id=market_id, side=Side.BUY, price=9.5, qty=2.0), "k")
    assert [order.size_usd for order in venue.sent] == [190.0, 200.0, 19.0]
