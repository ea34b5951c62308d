"""The one-shot form: one decision, one set of calls."""

from __future__ import annotations

from contextlib import suppress
from random import Random
from typing import Any

import pytest

from ami_engine.adapters.base import Broker
from ami_engine.clock import ManualClock
from ami_engine.errors import ConfigError, VenueRejected, VenueUnavailable
from ami_engine.events import Fill, Side, SubmitOrder, TimeInForce
from ami_engine.execution.executor import Executor, execute
from ami_engine.sim.faults import FaultPlan
from ami_engine.sim.mock_broker import MockExchangeBroker, MockExchangeSource
from ami_engine.sim.mock_exchange import MockExchange
from ami_engine.units import NS_PER_MS, Instrument
from decision_schema.types import Action, FinalDecision, MismatchInfo

M = "m"
NOTHING = {"submitted": 0, "canceled": 0, "rejected": 0, "in_doubt": 0, "errors": [], "halt": False}


def act(**params: Any) -> FinalDecision:
    return FinalDecision(Action.ACT, params={"bid_quote": 0.49, "ask_quote": 0.51, "size_usd": 1.0} | params)


class Minimal(Broker):
    """The least that a user writes."""

    def __init__(self) -> None:
        self.orders: list[SubmitOrder] = []

    def submit_order(self, order: SubmitOrder) -> None:
        self.orders.append(order)


def test_an_act_submits_a_bid_and_an_ask() -> None:
    broker = Minimal()
    assert execute(broker, act(), M, mid=0.5) == NOTHING | {"submitted": 2}
    bid, ask = broker.orders
    assert (bid.side, bid.price, bid.qty, bid.tif) == (Side.BUY, 0.49, 1.0 / 0.49, TimeInForce.GTC)
    assert (ask.side, ask.price, ask.size_usd) == (Side.SELL, 0.51, pytest.approx(1.0))
    assert bid.post_only
    assert not execute(broker, act(post_only=False), M)["errors"]
    assert not broker.orders[-1].post_only


def test_the_instrument_puts_prices_and_sizes_on_its_grid() -> None:
    broker = Minimal()
    coarse = Instrument(M, tick_size=0.05, lot_size=0.5, min_notional=0.9)
    Executor(broker, instrument=coarse).run(act(), M)
    assert [(o.price, o.qty) for o in broker.orders] == [(0.45, 2.0)]  # the ask, 1.5 at 0.55, is too small


def test_an_act_replaces_what_rests_and_withdraws_a_side_without_a_quote(listing_venue: Any) -> None:
    executor = Executor(listing_venue, run_id="r")
    executor.run(act(), M)
    executor.run(act(), "other")
    assert executor.run(act(ask_quote=None), M) == NOTHING | {"submitted": 1, "canceled": 2}
    assert [o.side for o in listing_venue.resting.values() if o.market_id == M] == [Side.BUY]
    assert sum(o.market_id == "other" for o in listing_venue.resting.values()) == 2


def test_no_quote_is_put_beside_one_that_could_not_be_cancelled(listing_venue: Any) -> None:
    executor = Executor(listing_venue, run_id="r")
    executor.run(act(), M)
    listing_venue.cancel_plan = [TimeoutError(), None]
    result = executor.run(act(bid_quote=0.48), M)
    assert (result["submitted"], result["canceled"], result["in_doubt"]) == (1, 1, 1)
    assert sum(o.side is Side.BUY for o in listing_venue.resting.values()) == 1


def test_refusals_and_doubts_are_counted(venue: Any) -> None:
    venue.submit_plan = [VenueRejected("no"), TimeoutError("slow")]
    result = execute(venue, act(), M)
    expected = {"submitted": 2, "rejected": 1, "in_doubt": 1, "errors": ["VenueRejected: no", "TimeoutError: slow"]}
    assert result == NOTHING | expected


@pytest.mark.parametrize("change", [{"bid_quote": float("nan")}, {"size_usd": -1}, {"ask_quote": "1"}])
def test_unusable_quotes_become_no_order(change: dict[str, Any]) -> None:
    broker = Minimal()
    result = execute(broker, act(**change), M)
    assert broker.orders == []
    assert len(result["errors"]) == 1
    assert not result["halt"]


def test_a_hold_does_nothing(listing_venue: Any) -> None:
    execute(listing_venue, act(), M)
    assert execute(listing_venue, FinalDecision(Action.HOLD), M) == NOTHING
    assert len(listing_venue.resting) == 2


def held_by_guard(quotes: str) -> FinalDecision:
    return FinalDecision(Action.HOLD, allowed=False, mismatch=MismatchInfo(["spread"], metadata={"quotes": quotes}))


def test_a_hold_of_a_guard_takes_quotes_off_where_the_guard_wants_it(listing_venue: Any) -> None:
    execute(listing_venue, act(), M)
    assert execute(listing_venue, held_by_guard("leave"), M) == NOTHING
    assert execute(listing_venue, held_by_guard("pull"), M) == NOTHING | {"canceled": 2}


def test_a_broker_that_cannot_cancel_halts_on_a_pull_only_once_it_has_quotes() -> None:
    executor = Executor(Minimal())
    assert executor.run(held_by_guard("pull"), M) == NOTHING
    executor.run(act(), M)
    assert executor.run(held_by_guard("pull"), M)["halt"]


def test_a_cancel_takes_off_the_market_and_a_stop_everything(listing_venue: Any) -> None:
    class Sweeping(type(listing_venue)):  # type: ignore[misc]
        def cancel_all(self, market_id: str | None = None) -> int:
            gone = [i for i, o in self.resting.items() if market_id in (None, o.market_id)]
            return len([self.resting.pop(order_id) for order_id in gone])

    for broker in (Sweeping(), listing_venue):
        for market in (M, "other"):
            execute(broker, act(), market)
        assert execute(broker, FinalDecision(Action.CANCEL), M) == NOTHING | {"canceled": 2}
        assert {order.market_id for order in broker.resting.values()} == {"other"}
        assert execute(broker, FinalDecision(Action.CANCEL), M) == NOTHING
        assert execute(broker, FinalDecision(Action.STOP), M) == NOTHING | {"canceled": 2}
        assert broker.resting == {}


@pytest.mark.parametrize("position", [3.0, -3.0])
def test_an_exit_closes_the_whole_position_with_one_immediate_reduce_only_order(
    listing_venue: Any, position: float
) -> None:
    execute(listing_venue, act(), M)
    listing_venue.positions[M] = position
    listing_venue.take_log()
    result = execute(listing_venue, FinalDecision(Action.EXIT), M, mid=0.5)
    assert result == NOTHING | {"submitted": 1, "canceled": 2}
    assert [kind for kind, _ in listing_venue.log] == ["cancel", "cancel", "submit"]
    (order,) = listing_venue.submitted()
    assert order.side is (Side.SELL if position > 0 else Side.BUY)
    assert (order.qty, order.tif, order.reduce_only, order.post_only) == (3.0, TimeInForce.IOC, True, False)
    assert order.price == pytest.approx(0.475 if position > 0 else 0.525)


def test_an_exit_from_flat_sends_nothing(listing_venue: Any) -> None:
    assert execute(listing_venue, FinalDecision(Action.EXIT), M, mid=0.5) == NOTHING


def test_an_exit_sends_only_what_closing_orders_in_flight_leave(listing_venue: Any) -> None:
    class Closing(type(listing_venue)):  # type: ignore[misc]
        def get_state(self) -> dict[str, Any]:
            flying = {
                "client_order_id": "c",
                "market_id": M,
                "side": "SELL",
                "price": 0.4,
                "qty": 2.0,
                "filled_qty": 0.5,
            }
            return {"positions": {M: 3.0}, "open_orders": [flying | {"reduce_only": True}]}

    broker = Closing()
    assert execute(broker, FinalDecision(Action.EXIT), M, mid=0.5)["submitted"] == 1
    assert broker.submitted()[0].qty == 1.5


@pytest.mark.parametrize("outcome", [False, TimeoutError("slow")])
def test_an_exit_waits_for_cancels(listing_venue: Any, outcome: Any) -> None:
    execute(listing_venue, act(ask_quote=None), M)
    listing_venue.positions[M] = 3.0
    listing_venue.cancel_plan = [outcome]
    result = execute(listing_venue, FinalDecision(Action.EXIT), M, mid=0.5)
    assert result["submitted"] == 0
    assert execute(listing_venue, FinalDecision(Action.EXIT), M, mid=0.5)["submitted"] == 1


@pytest.mark.parametrize("mid", [None, float("nan"), 0.0])
def test_an_exit_without_a_price_says_so(listing_venue: Any, mid: float | None) -> None:
    listing_venue.positions[M] = 3.0
    result = execute(listing_venue, FinalDecision(Action.EXIT), M, mid)
    assert (result["submitted"], result["halt"]) == (0, False)
    assert "`mid`" in result["errors"][0]


def test_an_exit_keeps_to_the_grid_and_still_trades(listing_venue: Any) -> None:
    listing_venue.positions[M] = 3.3
    executor = Executor(listing_venue, instrument=Instrument(M, tick_size=0.02, lot_size=0.5))
    executor.run(FinalDecision(Action.EXIT), M, mid=0.5)
    (order,) = listing_venue.submitted()
    assert (order.price, order.qty) == (0.46, 3.0)


@pytest.mark.parametrize("action", [Action.EXIT, Action.CANCEL, Action.STOP])
def test_a_broker_that_cannot_do_it_makes_the_run_halt(action: Action) -> None:
    broker = Minimal()
    result = execute(broker, FinalDecision(action), M, mid=0.5)
    assert result["halt"]
    assert "Minimal cannot do what the decision needs" in result["errors"][0]
    assert broker.orders == []


def test_a_broker_that_does_not_say_what_it_holds_cannot_exit(venue: Any) -> None:
    class Blind(type(venue)):  # type: ignore[misc]
        def cancel_all(self, market_id: str | None = None) -> int:
            return 0

    result = execute(Blind(), FinalDecision(Action.EXIT), M, mid=0.5)
    assert result["halt"]
    assert "positions" in result["errors"][0]


@pytest.mark.parametrize("state", [{"positions": {M: "x"}, "open_orders": []}, {"positions": [1], "open_orders": []}])
def test_a_position_that_cannot_be_read_halts_and_sends_nothing(listing_venue: Any, state: dict[str, Any]) -> None:
    class Garbled(type(listing_venue)):  # type: ignore[misc]
        def get_state(self) -> dict[str, Any]:
            return state

    broker = Garbled()
    result = execute(broker, FinalDecision(Action.EXIT), M, mid=0.5)
    assert (result["submitted"], result["halt"]) == (0, True)


def test_ids_never_repeat_within_a_run_nor_over_restarts() -> None:
    def ids(**how: Any) -> list[str]:
        broker = Unsaid()
        executor = Executor(broker, **how)
        for _ in range(5):
            executor.run(act(), M)
        return [order.client_order_id for order in broker.orders]

    assert len(set(ids(run_id="r"))) == 10
    assert ids(run_id="r") == ids(run_id="r")
    assert not set(ids(clock=ManualClock(1))) & set(ids(clock=ManualClock(2)))
    broker = Minimal()
    for _ in range(3):
        execute(broker, act(), M)
    assert len({order.client_order_id for order in broker.orders}) == 6


def test_run_can_be_overridden(venue: Any) -> None:
    class Careful(Executor):
        def run(self, final_decision: Any, market_id: str, mid: float | None = None) -> dict[str, Any]:
            if mid is None:
                return super().run(FinalDecision(Action.HOLD), market_id)
            return super().run(final_decision, market_id, mid)

    assert Careful(venue).run(act(), M) == NOTHING
    assert Careful(venue).run(act(), M, 0.5)["submitted"] == 2


# A broker that does not say what rests. ---------------------------------------------------------------------------


class Unsaid(Minimal):
    """Says nothing in get_state, and cancels by id."""

    def __init__(self, **how: Any) -> None:
        super().__init__()
        self.live: set[str] = set()
        self.most = 0
        self.how = how

    def submit_order(self, order: SubmitOrder) -> None:
        super().submit_order(order)
        self.live.add(order.client_order_id)
        self.most = max(self.most, len(self.live))

    def cancel_order(self, order_id: str) -> bool:
        if self.how.get("is_deaf") or order_id not in self.live:
            return False
        self.live.discard(order_id)
        return True


class Sweeping(Unsaid):
    cancel_order = Broker.cancel_order  # type: ignore[assignment]

    def cancel_all(self, market_id: str | None = None) -> int:
        count = len(self.live)
        self.live.clear()
        return count


@pytest.mark.parametrize("kind", [Unsaid, Sweeping])
def test_quotes_are_not_put_on_quotes_where_the_broker_does_not_say_what_rests(kind: type[Unsaid]) -> None:
    broker = kind()
    executor = Executor(broker, run_id="r")
    results = [executor.run(act(), M) for _ in range(50)]
    assert broker.most == len(broker.live) == len(executor.open_orders()) == 2
    assert sum(result["canceled"] for result in results) == 98
    assert not any(result["errors"] for result in results)
    assert executor.run(act(ask_quote=None), M) == NOTHING | {"submitted": 1, "canceled": 2}
    assert executor.run(FinalDecision(Action.CANCEL), M)["canceled"] == 1
    assert broker.live == set()
    assert executor.open_orders() == []


def test_a_quote_that_cannot_be_withdrawn_halts_and_no_other_is_sent() -> None:
    broker = Unsaid(is_deaf=True)
    executor = Executor(broker, run_id="r")
    executor.run(act(), M)
    result = executor.run(act(), M)
    assert (result["submitted"], result["halt"], len(broker.orders)) == (0, True, 2)
    assert "cannot be withdrawn" in result["errors"][0]
    assert len(executor.open_orders()) == 2


def test_a_quote_that_was_filled_or_that_the_venue_knows_as_ended_needs_no_cancel() -> None:
    broker = Unsaid()
    executor = Executor(broker, run_id="r")
    executor.run(act(), M)
    bid = broker.orders[0]
    terms = {"client_order_id": bid.client_order_id, "market_id": M, "side": bid.side, "price": bid.price}
    executor.on_fill(Fill(trade_id="1", qty=bid.qty / 4, **terms))
    assert len(executor.open_orders()) == 2
    executor.on_fill(Fill(trade_id="2", qty=bid.qty * 3 / 4, **terms))
    broker.live.discard(bid.client_order_id)
    assert executor.run(act(), M) == NOTHING | {"submitted": 2, "canceled": 1}

    class Answers(Unsaid):
        def fetch_order(self, client_order_id: str) -> None:
            return None

    asked = Answers()
    executor = Executor(asked, run_id="r")
    executor.run(act(), M)
    asked.live.clear()
    assert executor.run(act(), M) == NOTHING | {"submitted": 2}


# A quote whose answer was lost. -----------------------------------------------------------------------------------

WINDOW_MS, SETTLE_MS = 1_000, 5_000


def at(clock: ManualClock, ms: float) -> None:
    clock.advance_to(round(ms * NS_PER_MS))


def lost_bid(broker: Any, **how: Any) -> tuple[Executor, ManualClock, SubmitOrder]:
    """An executor whose bid got no answer, its clock, and the bid."""
    clock = ManualClock(0)
    executor = Executor(broker, run_id="r", clock=clock, **how)
    broker.submit_plan = [TimeoutError("slow")]
    assert executor.run(act(), M)["in_doubt"] == 1
    bid = broker.submitted()[0]
    assert bid.side is Side.BUY
    return executor, clock, bid


def that_sweeps(venue: Any) -> Any:
    """A venue of the same kind that can cancel everything in one call."""

    def cancel_all(self: Any, market_id: str | None = None) -> int:
        count = len(self.resting)
        self.resting.clear()
        return count

    return type("Sweeps", (type(venue),), {"cancel_all": cancel_all})()


def bids(broker: Any) -> int:
    return sum(order.side is Side.BUY for order in broker.submitted())


def test_no_quote_is_sent_beside_one_in_doubt_that_is_not_listed_yet(listing_venue: Any) -> None:
    listing_venue.recv_window_ms = WINDOW_MS
    executor, clock, bid = lost_bid(listing_venue)
    assert bid.expires_ns == WINDOW_MS * NS_PER_MS
    at(clock, 500)
    result = executor.run(act(), M)
    assert (result["submitted"], result["halt"], bids(listing_venue)) == (1, False, 1)
    assert f"no other is put beside them: {bid.client_order_id} of {M!r}" in result["errors"][-1]
    assert (bid.client_order_id, M) in executor.open_orders()
    listing_venue.resting[bid.client_order_id] = bid  # now it arrives
    assert executor.run(act(), M) == NOTHING | {"submitted": 2, "canceled": 2}
    assert [order.side for order in listing_venue.resting.values()] == [Side.BUY, Side.SELL]


def test_a_quote_in_doubt_is_given_up_when_it_is_denied_twice_after_it_can_arrive(listing_venue: Any) -> None:
    listing_venue.recv_window_ms = WINDOW_MS
    executor, clock, _ = lost_bid(listing_venue)
    at(clock, WINDOW_MS + SETTLE_MS - 1)
    for _ in range(3):
        executor.run(act(), M)
    at(clock, WINDOW_MS + SETTLE_MS)
    executor.run(act(), M)
    assert bids(listing_venue) == 1
    executor.run(act(), M)
    assert bids(listing_venue) == 2


def test_a_quote_in_doubt_keeps_its_side_where_requests_do_not_expire(listing_venue: Any) -> None:
    executor, clock, bid = lost_bid(listing_venue)
    assert bid.expires_ns == 0
    for day in range(3):
        at(clock, day * 86_400_000.0)
        result = executor.run(act(), M)
    assert (bids(listing_venue), result["submitted"], result["halt"]) == (1, 1, False)
    executor.on_fill(
        Fill(
            trade_id="1", client_order_id=bid.client_order_id, market_id=M, side=Side.BUY, price=bid.price, qty=bid.qty
        )
    )
    assert executor.run(act(), M)["submitted"] == 2


def test_a_quote_in_doubt_that_arrived_is_found_by_its_cancel(venue: Any) -> None:
    venue.lost_takes_effect = True
    executor, _, bid = lost_bid(venue)
    assert bid.client_order_id in venue.resting
    assert executor.run(act(), M) == NOTHING | {"submitted": 2, "canceled": 2}
    assert len(venue.resting) == 2


def test_what_the_venue_says_of_a_quote_in_doubt_decides(lookup_venue: Any) -> None:
    lookup_venue.recv_window_ms = WINDOW_MS
    executor, clock, bid = lost_bid(lookup_venue, settle_ms=100.0)
    result = executor.run(act(), M)
    assert (bids(lookup_venue), result["halt"]) == (1, False)
    assert "no other is put beside them" in result["errors"][-1]
    lookup_venue.orders[bid.client_order_id] = bid  # arrived, and ended at once
    assert executor.run(act(), M)["submitted"] == 2

    lookup_venue.log.clear()
    lookup_venue.submit_plan = [TimeoutError("slow")]
    executor.run(act(), M)
    at(clock, WINDOW_MS + 100.0)
    executor.run(act(), M)
    assert bids(lookup_venue) == 1
    executor.run(act(), M)
    assert bids(lookup_venue) == 2


def test_a_sweep_that_finds_nothing_is_believed_only_once_nothing_can_arrive() -> None:
    class Losing(Sweeping):
        recv_window_ms = WINDOW_MS
        is_losing = True

        def submit_order(self, order: SubmitOrder) -> None:
            if self.is_losing and order.side is Side.BUY:
                self.orders.append(order)
                raise TimeoutError("slow")
            super().submit_order(order)

    broker, clock = Losing(), ManualClock(0)
    executor = Executor(broker, run_id="r", clock=clock)
    executor.run(act(), M)
    broker.is_losing = False
    result = executor.run(act(), M)
    assert (result["submitted"], result["canceled"], result["halt"]) == (1, 1, False)
    at(clock, WINDOW_MS + SETTLE_MS)
    assert [executor.run(act(), M)["submitted"] for _ in range(3)] == [1, 2, 2]
    assert broker.most == 2


def test_a_quote_in_doubt_of_which_nobody_can_say_anything_halts(venue: Any) -> None:
    executor, _, bid = lost_bid(venue)
    result = executor.run(act(), M)
    assert (result["halt"], bids(venue)) == (True, 1)
    assert bid.client_order_id in result["errors"][-1]


@pytest.mark.parametrize("settle_ms", [0.0, -1.0, float("nan"), float("inf")])
def test_a_settling_time_out_of_range_is_refused(settle_ms: float) -> None:
    with pytest.raises(ConfigError, match="`settle_ms` must be finite and > 0"):
        Executor(Minimal(), settle_ms=settle_ms)


def test_a_list_that_is_older_than_a_quote_does_not_hide_it(listing_venue: Any) -> None:
    executor = Executor(listing_venue, run_id="r")
    executor.run(act(), M)
    first = dict(listing_venue.resting)
    stale = listing_venue.get_state
    listing_venue.get_state = lambda: stale() | {"open_orders": []}
    assert executor.run(act(), M) == NOTHING | {"submitted": 2, "canceled": 2}
    assert len(listing_venue.resting) == 2
    assert not first.keys() & listing_venue.resting.keys()
    assert executor.run(FinalDecision(Action.CANCEL), M) == NOTHING | {"canceled": 2}
    assert listing_venue.resting == {}
    assert executor.open_orders() == []


def test_a_sweep_and_a_list_together_say_what_is_gone(listing_venue: Any) -> None:
    broker = that_sweeps(listing_venue)
    executor = Executor(broker, run_id="r")
    executor.run(act(), M)
    broker.resting.popitem()  # filled, and nobody told the executor
    assert executor.run(FinalDecision(Action.CANCEL), M) == NOTHING | {"canceled": 1}
    assert executor.open_orders() == []


def test_an_exit_is_not_held_up_by_a_quote_in_doubt(listing_venue: Any) -> None:
    executor, _, bid = lost_bid(listing_venue)
    listing_venue.positions[M] = 3.0
    result = executor.run(FinalDecision(Action.EXIT), M, mid=0.5)
    assert (result["submitted"], result["halt"]) == (1, False)
    assert listing_venue.submitted()[-1].reduce_only
    assert bid.client_order_id in result["errors"][-1]


def test_a_sweep_that_took_another_order_says_nothing_of_one_under_way(venue: Any) -> None:
    broker = that_sweeps(venue)
    executor, _, bid = lost_bid(broker)
    broker.cancel_plan = [None, TimeoutError("slow")]
    result = executor.run(act(), M)
    assert (result["submitted"], result["canceled"], bids(broker)) == (1, 1, 1)
    broker.resting[bid.client_order_id] = bid
    executor.run(act(), M)
    assert sum(order.side is Side.BUY for order in broker.resting.values()) == 1


def test_a_cancel_that_worked_and_lost_its_answer_does_not_halt(venue: Any) -> None:
    class Both(type(venue)):  # type: ignore[misc]
        def cancel_all(self, market_id: str | None = None) -> int:
            return 0

    broker = Both()
    executor = Executor(broker, run_id="r")
    executor.run(act(), M)
    broker.lost_takes_effect = True
    broker.cancel_plan = [TimeoutError("slow"), None]
    assert executor.run(act(), M)["submitted"] == 1
    assert executor.run(act(), M) == NOTHING | {"submitted": 2, "canceled": 1}


def test_an_unknown_order_may_be_refused_instead_of_denied(lookup_venue: Any) -> None:
    executor = Executor(lookup_venue, run_id="r")
    executor.run(act(), M)
    filled = lookup_venue.submitted()[0].client_order_id
    del lookup_venue.resting[filled]
    lookup_venue.cancel_plan = [VenueRejected("unknown order"), None]
    result = executor.run(act(), M)
    assert (result["submitted"], result["halt"]) == (2, False)


def test_a_look_up_that_fails_is_asked_again_and_does_not_halt(lookup_venue: Any, monkeypatch: Any) -> None:
    executor = Executor(lookup_venue, run_id="r")
    executor.run(act(), M)
    lookup_venue.resting.clear()
    with monkeypatch.context() as patched:
        patched.setattr(
            type(lookup_venue), "fetch_order", lambda self, name: (_ for _ in ()).throw(TimeoutError("slow"))
        )
        result = executor.run(act(), M)
    assert (result["submitted"], result["halt"], result["errors"][0]) == (0, False, "TimeoutError: slow")
    assert executor.run(act(), M) == NOTHING | {"submitted": 2}


def test_a_refused_cancel_and_an_old_list_are_no_proof_together(listing_venue: Any) -> None:
    clock = ManualClock(0)
    executor = Executor(listing_venue, run_id="r", clock=clock)
    executor.run(act(ask_quote=None), M)
    listed = listing_venue.get_state
    listing_venue.get_state = lambda: listed() | {"open_orders": []}
    for ms in (0, 1, SETTLE_MS):
        at(clock, ms)
        listing_venue.cancel_plan = [VenueRejected("busy")]
        assert executor.run(act(ask_quote=None), M)["submitted"] == 0
    listing_venue.get_state = listed
    assert executor.run(act(ask_quote=None), M) == NOTHING | {"submitted": 1, "canceled": 1}
    assert len(listing_venue.resting) == 1


def test_a_cancel_without_an_answer_and_an_old_list_are_no_proof_together(listing_venue: Any) -> None:
    executor = Executor(listing_venue, run_id="r")
    executor.run(act(ask_quote=None), M)
    listing_venue.positions[M] = 1.0
    listed = listing_venue.get_state
    listing_venue.get_state = lambda: listed() | {"open_orders": []}
    for decision in (act(ask_quote=None), FinalDecision(Action.EXIT)):
        listing_venue.cancel_plan = [TimeoutError("slow")]
        result = executor.run(decision, M, mid=0.5)
        assert (result["submitted"], result["in_doubt"], result["halt"]) == (0, 1, False)
    assert len(listing_venue.resting) == len(executor.open_orders()) == 1


def test_quotes_of_a_broker_that_lists_and_sweeps_are_swept() -> None:
    class Lists(Sweeping):
        def get_state(self) -> dict[str, Any]:
            return {"open_orders": [order for order in self.orders if order.client_order_id in self.live]}

    broker = Lists()
    for _ in range(3):  # each knows only what the list says
        assert not Executor(broker).run(act(), M)["errors"]
    executor = Executor(broker, run_id="r")
    for _ in range(3):
        assert executor.run(act(), M) == NOTHING | {"submitted": 2, "canceled": 2}
    broker.get_state = lambda: {"open_orders": []}  # type: ignore[method-assign]
    assert executor.run(act(), M)["submitted"] == 2
    assert broker.most == 2


@pytest.mark.parametrize("action", [Action.ACT, Action.EXIT])
def test_nothing_is_sent_while_the_broker_cannot_say_what_rests(listing_venue: Any, action: Action) -> None:
    execute(listing_venue, act(), M)
    listing_venue.positions[M] = 1.0

    def fails() -> dict[str, Any]:
        raise TimeoutError("slow")

    listing_venue.get_state = fails
    result = execute(listing_venue, FinalDecision(action, params=act().params), M, mid=0.5)
    assert result == NOTHING | {"errors": ["TimeoutError: slow"]}


def test_a_stop_names_the_market_of_what_it_leaves_in_doubt(listing_venue: Any) -> None:
    executor, _, bid = lost_bid(listing_venue)
    (error,) = executor.run(FinalDecision(Action.STOP), "other")["errors"]
    assert f"{bid.client_order_id} of {M!r}" in error


class Unreliable(Minimal):
    """Loses requests and answers until it is `quiet`, fills now and then, and forgets nothing."""

    recv_window_ms = WINDOW_MS

    def __init__(self, seed: int, clock: ManualClock) -> None:
        super().__init__()
        self.random, self.clock = Random(seed), clock
        self.live: dict[str, SubmitOrder] = {}
        self.arrived: set[str] = set()
        self.under_way: list[tuple[int, SubmitOrder]] = []
        self.quiet = False

    def arrive(self, order: SubmitOrder) -> None:
        self.live[order.client_order_id] = order
        self.arrived.add(order.client_order_id)

    def lose(self, share: float) -> bool:
        return not self.quiet and self.random.random() < share

    def submit_order(self, order: SubmitOrder) -> None:
        super().submit_order(order)
        if not self.lose(0.3):
            return self.arrive(order)
        fate = self.random.randrange(3)
        if fate == 0:
            self.arrive(order)
        elif fate == 1:
            self.under_way.append((self.clock.now_ns() + self.random.randrange(WINDOW_MS) * NS_PER_MS, order))
        raise TimeoutError("slow")

    def live_on(self) -> None:
        for arrival in [each for each in self.under_way if each[0] <= self.clock.now_ns()]:
            self.under_way.remove(arrival)
            self.arrive(arrival[1])
        for name in [name for name in self.live if self.random.random() < 0.1]:
            del self.live[name]


def _cancel_order(self: Unreliable, order_id: str) -> bool:
    if self.lose(0.2):
        if self.random.random() < 0.5:
            self.live.pop(order_id, None)
        raise TimeoutError("slow")
    return self.live.pop(order_id, None) is not None


def _refusing_cancel(self: Unreliable, order_id: str) -> bool:
    if not _cancel_order(self, order_id):
        raise VenueRejected("unknown order")
    return True


def _cancel_all(self: Unreliable, market_id: str | None = None) -> int:
    if self.lose(0.2):
        raise TimeoutError("slow")
    count = len(self.live)
    self.live.clear()
    return count


def _get_state(self: Unreliable) -> dict[str, Any]:
    if self.lose(0.1):
        raise TimeoutError("slow")
    return {"open_orders": list(self.live.values())}


def _fetch_order(self: Unreliable, client_order_id: str) -> dict[str, Any] | None:
    if self.lose(0.2):
        raise TimeoutError("slow")
    if client_order_id not in self.arrived:
        return None
    status = "NEW" if client_order_id in self.live else "FILLED"
    order = next(each for each in self.orders if each.client_order_id == client_order_id)
    terms = {"client_order_id": client_order_id, "market_id": M, "side": order.side, "price": order.price}
    return terms | {"qty": order.qty, "status": status.lower()}


_CAN = {"C": ("cancel_order", _cancel_order), "R": ("cancel_order", _refusing_cancel), "S": ("cancel_all", _cancel_all),
        "L": ("get_state", _get_state), "F": ("fetch_order", _fetch_order)}  # fmt: skip


@pytest.mark.parametrize(
    "can", ["CL", "RL", "CLF", "CSL", "RSLF", "SL", "SLF", "CS", "RS", "S", "CSF", "SF", "CF", "RF"]
)
def test_whatever_a_broker_can_do_no_side_has_two_quotes_and_none_stays_blocked(can: str) -> None:
    kind = type(can, (Unreliable,), dict(_CAN[letter] for letter in can))
    lost = 0
    for seed in range(30):
        clock = ManualClock(NS_PER_MS)
        broker = kind(seed, clock)
        executor = Executor(broker, run_id=f"s{seed}", clock=clock)
        for step in range(120):
            clock.advance_to(clock.now_ns() + broker.random.randrange(50, 600) * NS_PER_MS)
            broker.quiet = step >= 60
            broker.live_on()
            one_sided = broker.random.randrange(5) == 0
            result = executor.run(act(bid_quote=None) if one_sided else act(), M)
            sides = [order.side for order in broker.live.values()]
            assert max(map(sides.count, Side)) <= 1, f"seed {seed}, step {step}"
            assert not result["halt"], f"seed {seed}, step {step}: {result['errors']}"
            lost += result["in_doubt"]
        for _ in range(3):
            clock.advance_to(clock.now_ns() + 2 * SETTLE_MS * NS_PER_MS)
            executor.run(act(), M)
        assert len(broker.live) == len(executor.open_orders()) == 2, f"seed {seed}"
    assert lost > 100


@pytest.mark.parametrize("recv_window_ms", [1_000, None])
@pytest.mark.parametrize("first_seed", range(0, 200, 50))
def test_no_side_ever_has_two_quotes_whatever_goes_wrong(first_seed: int, recv_window_ms: int | None) -> None:
    lost = two_sided = 0
    for seed in range(first_seed, first_seed + 50):
        faults = FaultPlan.from_seed(seed)
        exchange = MockExchange(seed=seed, faults=faults, recv_window_ms=recv_window_ms)
        broker = MockExchangeBroker(exchange)
        executor = Executor(broker, instrument=next(iter(broker.exchange.venue.markets.values())).instrument,
                            run_id=f"s{seed}", clock=exchange.clock)  # fmt: skip
        source = MockExchangeSource(exchange, num_events=120)
        for step in range(120):
            event = source.next_event()
            assert event is not None
            with suppress(VenueUnavailable):
                for fill in broker.process_fills(0):
                    executor.on_fill(fill)
            if step == 60:
                exchange.quiet()
            quotes = {"bid_quote": event.bid - 0.5, "ask_quote": event.ask + 0.5, "size_usd": 100.0}
            result = executor.run(FinalDecision(Action.ACT, params=quotes), event.symbol)
            lost += result["in_doubt"]
            live = [order.request.side for order in exchange.venue.open_orders()]
            assert live.count(Side.BUY) <= 1, f"seed {seed}, step {step}"
            assert live.count(Side.SELL) <= 1, f"seed {seed}, step {step}"
        two_sided += len(live) == 2
    assert lost > 50
    assert two_sided >= (50 if recv_window_ms else 20)
