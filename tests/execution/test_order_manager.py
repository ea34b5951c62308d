"""How the manager quotes: what it sends, what it leaves, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ami_engine.adapters.base import Broker
from ami_engine.errors import ConfigError, VenueProtocolError, VenueRejected, VenueUnavailable
from ami_engine.events import Fill, OrderReport, OrderStatus, Side, SubmitOrder, TimeInForce
from ami_engine.execution.executor import Executor
from ami_engine.execution.order_manager import NOTHING_DONE, Actions, OrderManager
from ami_engine.units import Instrument
from decision_schema.types import Action, FinalDecision

M = "m"


def act(bid: float | None = 0.49, ask: float | None = 0.51, size: float = 1.0, **more: Any) -> FinalDecision:
    return FinalDecision(Action.ACT, params={"bid_quote": bid, "ask_quote": ask, "size_usd": size, **more})


def do(manager: OrderManager, final: FinalDecision | Action, now_ms: int = 0, **more: Any) -> Actions:
    decision = final if isinstance(final, FinalDecision) else FinalDecision(final)
    setting = {"bid": 0.49, "ask": 0.51, "position": 0.0, "step": now_ms} | more
    return manager.apply(decision, M, now_ms, **setting)


def prices(manager: OrderManager) -> dict[str, float]:
    return {order.side.value: order.price for order in manager.open_orders(M)}


class Audit:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def record(self, kind: str, /, **fields: Any) -> None:
        self.lines.append((kind, fields))

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.lines]


# Quoting. -------------------------------------------------------------------------------------------------------------


def test_an_act_places_both_sides_on_the_grid_outward(venue: Any) -> None:
    manager = OrderManager(venue)
    assert do(manager, act(0.4951, 0.5049, post_only=True), bid=0.49, ask=0.51).submitted == 2
    bid, ask = venue.submitted()
    assert (bid.side, bid.price, bid.tif, bid.post_only, bid.reduce_only) == (
        Side.BUY,
        0.49,
        TimeInForce.GTC,
        True,
        False,
    )
    assert (ask.side, ask.price) == (Side.SELL, 0.51)
    assert bid.qty == pytest.approx(1.0 / 0.49)
    assert bid.size_usd == pytest.approx(1.0)
    assert [order.status for order in manager.open_orders(M)] == [OrderStatus.NEW] * 2


def test_the_same_quotes_again_do_nothing_at_all(venue: Any) -> None:
    manager = OrderManager(venue)
    do(manager, act())
    venue.take_log()
    assert do(manager, act(), 10_000) is NOTHING_DONE
    assert do(manager, act(0.499, 0.501), 10_000) is NOTHING_DONE  # same grid points
    assert venue.log == []


def test_a_side_that_was_once_too_small_is_quoted_when_it_no_longer_is(venue: Any) -> None:
    manager = OrderManager(venue, instrument=Instrument(M, tick_size=0.01, min_qty=1.0))
    assert do(manager, act(size=5.0)).submitted == 2
    assert do(manager, act(None, size=5.0), 1_000).canceled == 1
    assert do(manager, act(size=0.1), 2_000).skipped == 1
    assert do(manager, act(size=5.0), 3_000).submitted == 1
    assert prices(manager) == {"BUY": 0.49, "SELL": 0.51}


def test_a_post_only_quote_stays_a_tick_off_the_other_side(venue: Any) -> None:
    manager = OrderManager(venue)
    do(manager, act(0.53, 0.54), bid=0.49, ask=0.51)
    assert prices(manager) == {"BUY": 0.50, "SELL": 0.54}
    other = OrderManager(venue, run_id="2")
    do(other, act(0.40, 0.45), bid=0.49, ask=0.51)
    assert prices(other) == {"BUY": 0.40, "SELL": 0.50}


def test_a_quote_that_may_take_is_left_where_it_is(venue: Any) -> None:
    manager = OrderManager(venue)
    do(manager, act(0.53, 0.54, post_only=False), bid=0.49, ask=0.51)
    assert prices(manager) == {"BUY": 0.53, "SELL": 0.54}


def test_an_act_without_a_side_withdraws_it(venue: Any) -> None:
    manager = OrderManager(venue)
    do(manager, act())
    assert do(manager, act(ask=None), 1) == Actions(canceled=1)
    assert prices(manager) == {"BUY": 0.49}
    assert do(manager, act(ask=None), 2) is NOTHING_DONE
    assert do(manager, FinalDecision(Action.ACT, params={"value": 3}), 3) == Actions(canceled=1)
    assert prices(manager) == {}


def test_one_side_alone_can_be_quoted_and_joined_later(venue: Any) -> None:
    manager = OrderManager(venue)
    assert do(manager, act(bid=None)).submitted == 1
    assert do(manager, act(bid=None), 1) is NOTHING_DONE
    assert do(manager, act(), 2).submitted == 1
    assert prices(manager) == {"BUY": 0.49, "SELL": 0.51}


def test_a_quote_below_the_smallest_order_is_not_sent_but_counted(venue: Any) -> None:
    least = Instrument(M, tick_size=0.01, min_notional=5.0, lot_size=0.1, min_qty=1.0)
    manager = OrderManager(venue, instrument=least)
    assert do(manager, act(size=4.9)) == Actions(skipped=2)
    assert do(manager, act(size=0.0), 1) == Actions(skipped=2)
    assert do(manager, act(size=5.2), 2).submitted == 2
    assert all(order.qty * 10 == pytest.approx(round(order.qty * 10)) for order in venue.submitted())


def test_each_market_has_its_own_instrument(venue: Any) -> None:
    grids = {"a": Instrument("a", tick_size=0.5), "b": Instrument("b", tick_size=0.1)}
    manager = OrderManager(venue, instruments=grids)
    for market in ("a", "b"):
        manager.apply(act(10.26, 12.26), market, 0, bid=10.0, ask=13.0, position=0.0)
    assert [order.price for order in venue.submitted()] == [10.0, 12.5, 10.2, 12.3]
    assert [order.market_id for order in manager.open_orders("b")] == ["b", "b"]


# When a quote is replaced. --------------------------------------------------------------------------------------------


def test_a_quote_is_replaced_when_it_moved_and_the_refresh_time_passed(venue: Any) -> None:
    manager = OrderManager(venue, refresh_ms=500)
    do(manager, act(), 1_000)
    assert do(manager, act(bid=0.48), 1_499) is NOTHING_DONE
    assert do(manager, act(bid=0.48), 1_500) == Actions(submitted=1, canceled=1)
    assert prices(manager) == {"BUY": 0.48, "SELL": 0.51}
    kinds = [kind for kind, _ in venue.log[2:]]
    assert kinds == ["cancel", "submit"]


def test_each_replacement_starts_the_refresh_time_anew(venue: Any) -> None:
    manager = OrderManager(venue, refresh_ms=500)
    for now_ms in range(0, 2_001, 100):
        do(manager, act(bid=0.40 + (now_ms % 200) / 10_000), now_ms)
    bids = [order for order in venue.submitted() if order.side is Side.BUY]
    assert len(bids) == 5  # at 0, 500, 1000, 1500, 2000


@pytest.mark.parametrize(("moved", "replaced"), [(0.48, False), (0.4701, False), (0.4699, True), (0.46, True)])
def test_a_small_move_is_not_worth_a_place_in_the_queue(venue: Any, moved: float, replaced: bool) -> None:
    manager = OrderManager(venue, min_requote_ticks=3.0)
    do(manager, act())
    assert (do(manager, act(bid=moved), 10_000).submitted == 1) is replaced


@pytest.mark.parametrize(("moved", "replaced"), [(0.52, False), (0.5201, True), (0.4901, False), (0.49, True)])
def test_the_same_holds_for_an_ask(venue: Any, moved: float, replaced: bool) -> None:
    manager = OrderManager(venue, min_requote_ticks=2.0)
    do(manager, act(0.4, 0.51), bid=0.40)
    assert (do(manager, act(0.4, moved), 10_000, bid=0.40).submitted == 1) is replaced


def test_a_quote_that_the_market_came_through_moves_back_although_the_model_does_not(venue: Any) -> None:
    manager = OrderManager(venue)
    do(manager, act())
    assert do(manager, act(), 10_000, bid=0.46, ask=0.48) == Actions(submitted=1, canceled=1)
    assert prices(manager) == {"BUY": 0.47, "SELL": 0.51}
    do(manager, act(), 20_000)
    assert prices(manager) == {"BUY": 0.49, "SELL": 0.51}
    assert do(manager, act(), 30_000, bid=0.52, ask=0.54) == Actions(submitted=1, canceled=1)
    assert prices(manager) == {"BUY": 0.49, "SELL": 0.53}


def test_an_old_quote_is_replaced_where_it_stands(venue: Any) -> None:
    manager = OrderManager(venue, order_ttl_ms=2_000)
    do(manager, act(), 0)
    assert do(manager, act(), 2_000) is NOTHING_DONE
    assert do(manager, act(), 2_001) == Actions(submitted=2, canceled=2)
    assert do(manager, act(), 4_001) is NOTHING_DONE
    assert do(manager, act(), 4_002).canceled == 2


def test_nothing_is_placed_or_replaced_while_throttled(venue: Any) -> None:
    manager = OrderManager(venue, order_ttl_ms=1_000)
    assert do(manager, act(), 0, throttled=True) is NOTHING_DONE
    do(manager, act(), 1)
    assert do(manager, act(bid=0.45), 9_000, throttled=True) is NOTHING_DONE
    assert do(manager, act(bid=None), 9_001, throttled=True) == Actions(canceled=1)  # withdrawing is always safe
    assert do(manager, act(bid=0.45), 9_002).submitted == 2


def test_replacements_in_a_minute_are_limited(venue: Any) -> None:
    manager = OrderManager(venue, refresh_ms=0, max_replacements_per_min=3)
    for now_ms in range(0, 59_000, 1_000):
        do(manager, act(bid=0.40 + (now_ms // 1_000 % 2) / 100, ask=None), now_ms)
    assert len(venue.submitted()) == 1 + 3  # placed once, replaced at 1, 2 and 3 s
    assert do(manager, act(bid=0.30, ask=None), 60_999) is NOTHING_DONE
    assert do(manager, act(bid=0.30, ask=None), 61_000).submitted == 1


def test_a_filled_side_waits_for_its_cooldown_and_the_other_does_not(venue: Any) -> None:
    manager = OrderManager(venue, post_fill_cooldown_ms=2_000, refresh_ms=0)
    do(manager, act(), 0)
    venue.fill(venue.submitted()[0])
    assert [fill.qty for fill in manager.poll(1_000)] == [venue.submitted()[0].qty]
    assert do(manager, act(ask=0.52), 1_000) == Actions(submitted=1, canceled=1)
    assert do(manager, act(ask=0.52), 2_999) is NOTHING_DONE
    assert do(manager, act(ask=0.52), 3_000) == Actions(submitted=1)
    assert prices(manager) == {"BUY": 0.49, "SELL": 0.52}


def test_what_is_left_of_a_partly_filled_quote_stays(venue: Any) -> None:
    manager = OrderManager(venue)
    do(manager, act())
    venue.fill(venue.submitted()[0], qty=0.5)
    manager.poll(1)
    assert do(manager, act(), 10_000) is NOTHING_DONE
    order = manager.open_orders(M)[0]
    assert (order.status, order.filled_qty) == (OrderStatus.PARTIALLY_FILLED, 0.5)
    assert order.leaves_qty == pytest.approx(1.0 / 0.49 - 0.5)


def test_a_new_quote_never_meets_our_own_old_one(venue: Any) -> None:
    manager = OrderManager(venue, refresh_ms=500)
    do(manager, act(0.49, 0.51), 0)
    do(manager, act(0.49, None), 400)  # the ask goes …
    do(manager, act(0.49, 0.50), 401)  # … and comes back younger than the bid
    venue.take_log()
    do(manager, act(0.52, 0.55), 500, bid=0.51, ask=0.55)  # only the bid may move yet, through our ask at 0.50
    assert venue.submitted() == []
    do(manager, act(0.52, 0.55), 901, bid=0.51, ask=0.55)
    assert prices(manager) == {"BUY": 0.52, "SELL": 0.55}


# Decisions other than ACT. --------------------------------------------------------------------------------------------


def test_a_hold_leaves_quotes_and_a_pulling_hold_takes_them_off(venue: Any) -> None:
    manager = OrderManager(venue)
    do(manager, act())
    assert do(manager, Action.HOLD, 1) is NOTHING_DONE
    assert manager.open_count == 2
    assert do(manager, Action.HOLD, 2, pull=True) == Actions(canceled=2)
    assert do(manager, Action.HOLD, 3, pull=True) is NOTHING_DONE
    assert do(manager, act(), 4).submitted == 2


def test_a_cancel_takes_off_the_quotes_of_its_market_only(venue: Any) -> None:
    manager = OrderManager(venue)
    do(manager, act())
    manager.apply(act(), "other", 0, bid=0.49, ask=0.51, position=0.0)
    assert do(manager, Action.CANCEL, 1) == Actions(canceled=2)
    assert [order.market_id for order in manager.open_orders()] == ["other", "other"]


def test_a_stop_cancels_everything_once_and_keeps_positions(venue: Any) -> None:
    manager = OrderManager(venue)
    do(manager, act())
    manager.apply(act(), "other", 0, bid=0.49, ask=0.51, position=0.0)
    assert do(manager, Action.STOP, 1, position=5.0) == Actions(canceled=4)
    venue.take_log()
    assert do(manager, Action.STOP, 2, position=5.0) is NOTHING_DONE
    assert venue.log == []
    assert manager.open_count == 0


def test_an_exit_cancels_and_then_closes_with_one_immediate_reduce_only_order(venue: Any) -> None:
    manager = OrderManager(venue)
    do(manager, act())
    done = do(manager, Action.EXIT, 1, position=3.0)
    assert done == Actions(submitted=1, canceled=2)
    order = venue.submitted()[-1]
    assert (order.side, order.qty, order.price) == (Side.SELL, 3.0, 0.49)
    assert (order.tif, order.reduce_only, order.post_only) == (TimeInForce.IOC, True, False)
    assert do(manager, Action.EXIT, 2, position=3.0) is NOTHING_DONE  # one is on its way
    venue.fill(order)
    manager.poll(3)
    assert do(manager, Action.EXIT, 3, position=0.0) is NOTHING_DONE


def test_a_short_is_bought_back_at_the_ask(venue: Any) -> None:
    manager = OrderManager(venue)
    do(manager, Action.EXIT, 1, position=-2.0, bid=0.4951, ask=0.5051)
    assert [(o.side, o.qty, o.price) for o in venue.submitted()] == [(Side.BUY, 2.0, 0.51)]


def test_a_long_is_sold_at_a_price_that_trades_off_the_grid_too(venue: Any) -> None:
    manager = OrderManager(venue)
    do(manager, Action.EXIT, 1, position=2.0, bid=0.4951, ask=0.5051)
    assert [(o.side, o.price) for o in venue.submitted()] == [(Side.SELL, 0.49)]


def test_an_exit_counts_a_fill_that_raced_the_cancel(venue: Any) -> None:
    manager = OrderManager(venue)
    do(manager, act())
    ask = venue.submitted()[1]
    venue.fill(ask, qty=1.5)  # the loop has not heard of it
    do(manager, Action.EXIT, 1, position=2.0)
    assert venue.submitted()[-1].qty == 0.5
    assert [fill.qty for fill in manager.poll(2)] == [1.5]


def test_an_exit_waits_for_cancels_to_be_confirmed(venue: Any) -> None:
    manager = OrderManager(venue, refresh_ms=100)
    do(manager, act())
    venue.cancel_plan = [None, TimeoutError("slow")]
    assert do(manager, Action.EXIT, 1, position=2.0) == Actions(
        canceled=1, failures=1, in_doubt=1, errors=("TimeoutError: slow",)
    )
    assert len(venue.submitted()) == 2
    assert do(manager, Action.EXIT, 50, position=2.0) is NOTHING_DONE  # asked a moment ago
    assert do(manager, Action.EXIT, 101, position=2.0) == Actions(submitted=1, canceled=1)


def test_an_exit_waits_for_a_price(venue: Any) -> None:
    manager = OrderManager(venue)
    for price in (0.0, float("nan")):
        assert do(manager, Action.EXIT, 1, position=2.0, bid=price) is NOTHING_DONE
    assert do(manager, Action.EXIT, 2, position=2.0).submitted == 1


def test_an_exit_that_found_nobody_is_tried_again_after_a_while(lookup_venue: Any) -> None:
    manager = OrderManager(lookup_venue, refresh_ms=200)
    do(manager, Action.EXIT, 0, position=2.0)
    manager.poll(100)
    assert do(manager, Action.EXIT, 100, position=2.0) is NOTHING_DONE
    manager.poll(200)  # the venue says that it is over
    assert manager.open_count == 0
    assert do(manager, Action.EXIT, 200, position=2.0) is NOTHING_DONE
    assert do(manager, Action.EXIT, 400, position=2.0).submitted == 1


def test_an_exit_at_a_venue_that_says_nothing_is_over_after_some_seconds(venue: Any) -> None:
    manager = OrderManager(venue)
    do(manager, Action.EXIT, 0, position=2.0)
    manager.poll(4_900)
    assert manager.open_count == 1
    manager.poll(5_600)
    assert manager.open_count == 0
    venue.fill(venue.submitted()[0])  # and yet it traded
    assert len(manager.poll(5_700)) == 1
    assert manager.halt_reason == ""


def test_no_quote_is_placed_beside_a_closing_order(venue: Any) -> None:
    manager = OrderManager(venue)
    do(manager, Action.EXIT, 0, position=2.0)
    assert do(manager, act(), 1) is NOTHING_DONE
    venue.fill(venue.submitted()[0])
    manager.poll(2)
    assert do(manager, act(), 2).submitted == 2


# What brokers do. -----------------------------------------------------------------------------------------------------


def test_a_rejected_quote_is_counted_and_tried_again_after_the_refresh_time(venue: Any) -> None:
    manager = OrderManager(venue, refresh_ms=500)
    venue.submit_plan = [VenueRejected("post-only would take")]
    assert do(manager, act(), 0) == Actions(submitted=2, rejected=1)
    assert do(manager, act(), 499) is NOTHING_DONE
    assert do(manager, act(), 500) == Actions(submitted=1)


def test_a_request_that_certainly_never_arrived_is_no_doubt(venue: Any) -> None:
    manager = OrderManager(venue)
    venue.submit_plan = [VenueUnavailable("no route", outcome_known=True)]
    done = do(manager, act(ask=None))
    assert (done.rejected, done.failures, done.in_doubt, done.errors) == (1, 1, 0, ("VenueUnavailable: no route",))
    assert manager.open_count == 0


@pytest.mark.parametrize(
    "error", [TimeoutError(), ConnectionError("reset"), ValueError("not json"), VenueUnavailable("?")]
)
def test_any_other_failure_leaves_the_order_in_doubt_and_the_side_blocked(venue: Any, error: Exception) -> None:
    manager = OrderManager(venue, refresh_ms=0, order_ttl_ms=10)
    venue.submit_plan = [error]
    done = do(manager, act())
    assert (done.submitted, done.in_doubt, done.failures) == (2, 1, 1)
    for now_ms in range(1, 20_000, 997):
        manager.poll(now_ms)
        do(manager, act(bid=0.40 + now_ms % 7 / 100), now_ms)
    assert sum(order.side is Side.BUY for order in venue.submitted()) == 1
    assert ("cancel", venue.submitted()[0].client_order_id) not in venue.log
    assert manager.open_orders(M)[0].in_doubt


def test_an_order_in_doubt_counts_with_its_whole_quantity(venue: Any) -> None:
    manager = OrderManager(venue)
    assert manager.worst_case_exposure_usd(M) == 0.0
    venue.submit_plan = [TimeoutError()]
    do(manager, act(size=3.0))
    assert manager.worst_case_exposure_usd(M) == pytest.approx(3.0)
    assert manager.worst_case_exposure_usd(M, position_usd=2.0) == pytest.approx(5.0)
    assert manager.worst_case_exposure_usd(M, position_usd=-4.0) == pytest.approx(7.0)
    do(manager, Action.HOLD, 1, pull=True)  # the ask goes; the bid is cancelled, too: "nothing to cancel"
    assert manager.worst_case_exposure_usd(M) == pytest.approx(3.0)


def test_a_fill_resolves_a_submit_in_doubt(venue: Any) -> None:
    manager = OrderManager(venue)
    venue.submit_plan, venue.lost_takes_effect = [TimeoutError()], True
    do(manager, act(ask=None))
    venue.fill(venue.submitted()[0], qty=0.5)
    manager.poll(1)
    order = manager.open_orders(M)[0]
    assert (order.in_doubt, order.status) == (False, OrderStatus.PARTIALLY_FILLED)


def test_a_lookup_resolves_a_submit_that_arrived(lookup_venue: Any) -> None:
    manager = OrderManager(lookup_venue)
    lookup_venue.submit_plan, lookup_venue.lost_takes_effect = [TimeoutError()], True
    do(manager, act(ask=None))
    manager.poll(499)
    assert manager.open_orders(M)[0].in_doubt
    manager.poll(500)
    order = manager.open_orders(M)[0]
    assert (order.in_doubt, order.status) == (False, OrderStatus.NEW)
    assert do(manager, act(bid=0.40, ask=None), 600) == Actions(submitted=1, canceled=1)


def test_a_submit_of_which_nothing_is_known_is_over_only_after_its_expiry_and_a_second_look(lookup_venue: Any) -> None:
    lookup_venue.recv_window_ms = 2_000
    manager = OrderManager(lookup_venue, settle_ms=5_000)
    lookup_venue.submit_plan = [TimeoutError()]
    do(manager, act(ask=None))
    assert lookup_venue.submitted()[0].expires_ns == 2_000_000_000
    for now_ms in (4_999, 7_000, 7_600):  # on its way; the receive window is open, or just closed; the first look
        manager.poll(now_ms)
        assert manager.open_orders(M)[0].in_doubt
        assert do(manager, act(ask=None), now_ms) is NOTHING_DONE
    manager.poll(8_200)
    assert manager.open_count == 0
    assert do(manager, act(ask=None), 8_800).submitted == 1


def test_a_submit_that_cannot_expire_stays_in_doubt_and_counts_at_its_worst(lookup_venue: Any) -> None:
    manager = OrderManager(lookup_venue)
    lookup_venue.submit_plan = [TimeoutError()]
    do(manager, act(ask=None))
    for now_ms in range(1_000, 3_600_000, 60_000):
        manager.poll(now_ms)
        assert do(manager, act(ask=None), now_ms) is NOTHING_DONE
    assert manager.open_orders(M)[0].in_doubt
    assert manager.worst_case_exposure_usd(M) == pytest.approx(1.0)


def test_a_look_that_finds_the_order_forgets_the_one_that_did_not(lookup_venue: Any) -> None:
    lookup_venue.recv_window_ms = 1
    manager = OrderManager(lookup_venue)
    lookup_venue.submit_plan = [TimeoutError()]
    do(manager, act(ask=None))
    manager.poll(6_000)  # nothing known: a replica that lags behind
    order = lookup_venue.submitted()[0]
    lookup_venue.orders[order.client_order_id] = lookup_venue.resting[order.client_order_id] = order
    manager.poll(6_600)
    assert [(order.in_doubt, order.status) for order in manager.open_orders(M)] == [(False, OrderStatus.NEW)]


def test_the_state_resolves_a_doubt_where_there_is_no_lookup(listing_venue: Any) -> None:
    listing_venue.recv_window_ms = 1
    manager = OrderManager(listing_venue)
    listing_venue.submit_plan, listing_venue.lost_takes_effect = [TimeoutError(), TimeoutError()], True
    do(manager, act())
    listing_venue.resting.popitem()  # the ask got lost at the venue
    manager.poll(600)
    assert [order.in_doubt for order in manager.open_orders(M)] == [False, True]
    manager.poll(6_000)
    manager.poll(7_000)
    assert prices(manager) == {"BUY": 0.49}


def test_a_cancel_in_doubt_blocks_the_side_until_it_is_confirmed(venue: Any) -> None:
    manager = OrderManager(venue, refresh_ms=500)
    do(manager, act(ask=None), 0)
    venue.cancel_plan, venue.lost_takes_effect = [TimeoutError()], True
    assert do(manager, act(bid=0.45, ask=None), 500).in_doubt == 1
    assert manager.worst_case_exposure_usd(M) == pytest.approx(1.0)
    assert do(manager, act(bid=0.45, ask=None), 999) is NOTHING_DONE
    venue.cancel_plan = [TimeoutError()]
    assert do(manager, act(bid=0.45, ask=None), 1_000).in_doubt == 1  # asked again, and lost again
    assert do(manager, act(bid=0.45, ask=None), 1_500) is NOTHING_DONE  # "nothing to cancel"
    assert len(venue.submitted()) == 1
    manager.poll(6_600)
    assert do(manager, act(bid=0.45, ask=None), 6_600).submitted == 1


def test_a_lost_cancel_is_repeated_and_its_quote_replaced_at_once_even_where_it_stands(venue: Any) -> None:
    manager = OrderManager(venue, refresh_ms=500)
    do(manager, act(), 0)
    venue.cancel_plan = [TimeoutError()]
    do(manager, act(bid=0.45), 500)
    assert do(manager, act(), 1_000) == Actions(submitted=1, canceled=1)
    assert prices(manager) == {"BUY": 0.49, "SELL": 0.51}


def test_a_cancel_refused_because_the_order_filled_waits_for_the_fill(venue: Any) -> None:
    manager = OrderManager(venue)
    do(manager, act(ask=None), 0)
    order = venue.submitted()[0]
    venue.resting.clear()  # filled, and not told yet
    assert do(manager, act(bid=0.45, ask=None), 500) is NOTHING_DONE
    venue.fill(order)
    manager.poll(501)
    assert do(manager, act(bid=0.45, ask=None), 501).submitted == 1


def test_an_order_that_the_venue_does_not_have_any_more_is_gone_after_some_seconds(venue: Any) -> None:
    manager = OrderManager(venue)
    do(manager, act(ask=None), 0)
    venue.resting.clear()
    do(manager, Action.CANCEL, 500)
    manager.poll(5_000)
    assert manager.open_count == 1
    manager.poll(5_600)
    assert manager.open_count == 0


def test_a_later_doubt_takes_back_what_an_earlier_answer_said(venue: Any) -> None:
    manager = OrderManager(venue)
    do(manager, act(ask=None), 0)
    venue.cancel_plan = [False, TimeoutError()]
    do(manager, Action.CANCEL, 500)
    do(manager, Action.CANCEL, 1_000)
    manager.poll(9_000)
    assert manager.open_orders(M)[0].in_doubt


def test_an_order_that_the_venue_lists_is_live_whatever_it_said_of_the_cancel(listing_venue: Any) -> None:
    manager = OrderManager(listing_venue)
    do(manager, act(ask=None), 0)
    listing_venue.cancel_plan = [False]
    do(manager, Action.CANCEL, 500)
    for now_ms in range(1_000, 20_000, 1_000):
        manager.poll(now_ms)
    assert manager.open_count == 1
    assert do(manager, Action.CANCEL, 20_000) == Actions(canceled=1)


def test_a_late_fill_is_booked_and_reopens_nothing(venue: Any) -> None:
    manager = OrderManager(venue)
    do(manager, act(ask=None))
    order = venue.submitted()[0]
    do(manager, Action.CANCEL, 1)
    venue.fill(order, qty=0.5)
    assert [fill.qty for fill in manager.poll(2)] == [0.5]
    assert manager.open_count == 0
    assert manager.halt_reason == ""


def test_a_repeated_trade_is_dropped_while_open_and_after(venue: Any) -> None:
    manager = OrderManager(venue)
    do(manager, act(ask=None))
    fill = venue.fill(venue.submitted()[0])
    venue.fills.append(fill)
    assert manager.poll(1) == [fill]
    venue.fills.append(fill.to_dict())
    assert manager.poll(2) == []
    assert manager.duplicate_fills == 2


def test_a_fill_of_an_unknown_order_is_returned_once_and_halts(venue: Any) -> None:
    audit = Audit()
    manager = OrderManager(venue, audit=audit)
    do(manager, act(ask=None))
    stranger = Fill(trade_id="t", client_order_id="zz", market_id=M, side=Side.BUY, price=0.5, qty=1.0)
    venue.fills += [stranger, stranger]
    assert manager.poll(1) == [stranger]
    assert "zz" in manager.halt_reason
    done = do(manager, act(bid=0.40), 10_000)
    assert done.halt == manager.halt_reason
    assert done.submitted == 0
    assert do(manager, act(bid=0.40), 10_001).halt == ""  # said once, remembered
    assert "fill_of_unknown_order" in audit.kinds
    manager.clear_halt()
    assert do(manager, act(bid=0.40), 10_002).submitted == 2


def test_fills_of_orders_that_an_executor_sent_are_only_passed_on(venue: Any) -> None:
    manager = OrderManager(venue, halts_on_strangers=False)
    Executor(venue, run_id="r").run(act(), M)
    fill = venue.fill(venue.submitted()[0])
    venue.fills.append(fill)
    assert manager.poll(1) == [fill]
    assert manager.halt_reason == ""


@pytest.mark.parametrize(
    "change",
    [
        {"qty": float("nan")},
        {"qty": -1.0},
        {"price": 0.0},
        {"side": "UP"},
        {"trade_id": ""},
        {"fee": "x"},
        {"ts_ns": "z"},
    ],
)
def test_an_unreadable_fill_halts_and_does_not_hide_the_others(venue: Any, change: dict[str, Any]) -> None:
    audit = Audit()
    manager = OrderManager(venue, audit=audit)
    do(manager, act())
    first, second = venue.submitted()
    good = venue.fill(second).to_dict()
    venue.fills = [venue.fill(first).to_dict() | change, good]
    assert [fill.client_order_id for fill in manager.poll(1)] == [second.client_order_id]
    assert do(manager, Action.HOLD, 1).halt != ""
    assert "fill_unreadable" in audit.kinds


@pytest.mark.parametrize(
    ("how", "reason"), [("overfill", "overfill"), ("side", "is a SELL of 'm', but"), ("market", "'elsewhere'")]
)
def test_a_fill_that_the_order_refuses_is_booked_and_halts(venue: Any, how: str, reason: str) -> None:
    manager = OrderManager(venue)
    do(manager, act(ask=None))
    fill = venue.fill(venue.submitted()[0])
    changes = {"overfill": {"qty": 99.0}, "side": {"side": "SELL"}, "market": {"market_id": "elsewhere"}}
    venue.fills = [fill.to_dict() | changes[how]]
    assert len(manager.poll(1)) == 1
    assert reason in manager.halt_reason


def test_fills_that_cannot_be_read_are_a_failure_that_is_told(venue: Any) -> None:
    class Breaks(type(venue)):  # type: ignore[misc]
        def process_fills(self, now_ms: int) -> Any:
            yield from super().process_fills(now_ms)
            raise ConnectionError("closed")

    broken = Breaks()
    manager = OrderManager(broken)
    do(manager, act())
    broken.fill(broken.submitted()[0])
    assert len(manager.poll(1)) == 1
    done = do(manager, Action.HOLD, 1)
    assert (done.failures, done.errors) == (1, ("ConnectionError: closed",))


def test_a_fill_that_breaks_the_brokers_own_reading_halts(venue: Any) -> None:
    class Misreads(type(venue)):  # type: ignore[misc]
        def process_fills(self, now_ms: int) -> Any:
            return [Fill(trade_id="t", client_order_id="a", market_id="m", side="UP", price=1.0, qty=1.0)]  # type: ignore[arg-type]

    manager = OrderManager(Misreads())
    assert manager.poll(1) == []
    assert "`side` of a fill must be BUY or SELL, was 'UP'" in manager.halt_reason


def test_a_broker_that_cannot_cancel_halts_when_a_cancel_is_needed() -> None:
    class Minimal(Broker):
        def submit_order(self, order: SubmitOrder) -> None:
            return None

    manager = OrderManager(Minimal())
    assert do(manager, act()).submitted == 2
    assert do(manager, Action.HOLD, 1) is NOTHING_DONE
    done = do(manager, Action.CANCEL, 2)
    assert "Minimal cannot" in done.halt
    assert "cancel_order" in done.halt
    assert manager.open_count == 2
    assert do(manager, act(bid=0.40), 9_000).submitted == 0


def test_a_broker_that_can_only_cancel_all_can_be_stopped() -> None:
    class Sweeper(Broker):
        def submit_order(self, order: SubmitOrder) -> None:
            return None

        def cancel_all(self, market_id: str | None = None) -> int:
            return 2

    manager = OrderManager(Sweeper())
    do(manager, act())
    assert do(manager, Action.STOP, 1) == Actions(canceled=2)
    assert manager.open_count == 0


@pytest.mark.parametrize("answer", [{"id": 1}, True, 1.5, object()])
def test_an_unreadable_ack_is_a_doubt(answer: Any) -> None:
    class Odd(Broker):
        def submit_order(self, order: SubmitOrder) -> Any:
            return answer

    done = do(OrderManager(Odd()), act(ask=None))
    assert (done.in_doubt, done.rejected) == (1, 0)
    assert "`submit_order` must return" in done.errors[0]


def test_a_broken_protocol_halts(venue: Any) -> None:
    venue.submit_plan = [VenueProtocolError("ack of another order")]
    manager = OrderManager(venue)
    done = do(manager, act())
    assert (done.submitted, done.in_doubt, done.halt) == (1, 1, "VenueProtocolError: ack of another order")


def test_a_refusal_after_the_ack_ends_the_order_without_a_halt(lookup_venue: Any) -> None:
    manager = OrderManager(lookup_venue)
    do(manager, act(ask=None))
    order = lookup_venue.submitted()[0]
    lookup_venue.resting.clear()
    do(manager, Action.CANCEL, 1)
    lookup_venue.reports[order.client_order_id] = OrderReport(
        client_order_id=order.client_order_id,
        market_id=M,
        side=Side.BUY,
        price=order.price,
        qty=order.qty,
        status=OrderStatus.REJECTED,
    )
    manager.poll(1_000)
    assert (manager.halt_reason, manager.open_count) == ("", 0)


def test_an_order_is_not_closed_while_fills_of_it_are_still_to_come(lookup_venue: Any) -> None:
    manager = OrderManager(lookup_venue)
    do(manager, Action.EXIT, 0, position=2.0)
    order = lookup_venue.submitted()[0]
    lookup_venue.reports[order.client_order_id] = OrderReport(
        client_order_id=order.client_order_id,
        market_id=M,
        side=Side.SELL,
        price=order.price,
        qty=2.0,
        filled_qty=1.5,
        status=OrderStatus.EXPIRED,
    )
    manager.poll(600)
    assert manager.open_count == 1
    assert do(manager, Action.EXIT, 601, position=2.0) is NOTHING_DONE
    lookup_venue.fill(order, qty=1.5)
    assert len(manager.poll(1_200)) == 1
    assert manager.open_count == 0
    assert do(manager, Action.EXIT, 1_201, position=0.5).submitted == 1


# Decisions that cannot be carried out. --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "final",
    [
        act(bid=float("nan")),
        act(bid=-0.49),
        act(size=float("nan")),
        act(bid="0.49"),
        act(0.505, 0.505, post_only=False, size=-1.0),
        act(0.001, None),
        act(0.50, 0.50, post_only=False),
    ],
    ids=lambda final: str(final.params),
)
def test_unusable_quotes_hold_and_never_become_orders(venue: Any, final: FinalDecision) -> None:
    audit = Audit()
    manager = OrderManager(venue, audit=audit)
    do(manager, act())
    venue.take_log()
    done = do(manager, final, 10_000)
    assert (len(done.errors), done.failures, done.halt) == (1, 0, "")
    assert venue.log == []
    assert manager.open_count == 2
    assert audit.kinds[-1] == "quotes_refused"


@pytest.mark.parametrize(
    "setting",
    [{"refresh_ms": -1}, {"min_requote_ticks": float("nan")}, {"order_ttl_ms": float("inf")}, {"tick_size": 0.0}],
)
def test_settings_out_of_range_are_refused(venue: Any, setting: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        OrderManager(venue, **setting)


# Bookkeeping. ---------------------------------------------------------------------------------------------------------


def test_ids_are_stable_over_runs_and_unique_within_one(new_venue: Any) -> None:
    def ids(run_id: str) -> list[str]:
        venue = new_venue()
        manager = OrderManager(venue, refresh_ms=0, run_id=run_id)
        for now_ms in range(50):
            # Two decisions in one step: a timer repeats the number of the step before it.
            do(manager, act(bid=0.40 + now_ms % 5 / 100), now_ms, step=now_ms // 2)
        return [order.client_order_id for order in venue.submitted()]

    assert ids("r") == ids("r")
    assert len(set(ids("r"))) == len(ids("r")) > 40
    assert not set(ids("r")) & set(ids("q"))


def test_memory_of_closed_orders_is_bounded(venue: Any) -> None:
    manager = OrderManager(venue, refresh_ms=0)
    for now_ms in range(3_000):
        do(manager, act(bid=0.40 + now_ms % 2 / 100, ask=None), now_ms)
    assert manager.open_count == 1
    newest = venue.submitted()[-2]
    oldest = venue.submitted()[0]
    venue.fills = [venue.fill(newest, qty=0.1)]
    manager.poll(3_001)
    assert manager.halt_reason == ""
    venue.fills = [venue.fill(oldest, qty=0.1)]
    assert len(manager.poll(3_002)) == 1  # booked, although forgotten
    assert manager.halt_reason != ""


def test_a_fill_can_come_another_way(venue: Any) -> None:
    manager = OrderManager(venue)
    do(manager, act(ask=None))
    fill = venue.fill(venue.submitted()[0], qty=0.5)
    order = manager.on_fill(fill)
    assert order is not None
    assert order.filled_qty == 0.5
    assert manager.on_fill(fill) is None
    assert manager.poll(1) == []  # the venue repeats it here


def test_requests_and_troubles_are_audited(venue: Any) -> None:
    audit = Audit()
    manager = OrderManager(venue, audit=audit)
    venue.submit_plan = [None, TimeoutError()]
    do(manager, act())
    venue.cancel_plan = [None, False]
    manager.cancel_all("operator", 1)
    assert audit.kinds == [
        "order_submitted",
        "order_submitted",
        "order_in_doubt",
        "cancel_all",
        "order_canceled",
        "cancel_refused",
    ]


# Anything at all. -----------------------------------------------------------------------------------------------------

moves = st.tuples(
    st.sampled_from(["act", "act", "act", "hold", "pull", "cancel", "exit", "stop", "fill", "poll", "repeat"]),
    st.integers(min_value=0, max_value=700),  # ms until then
    st.integers(min_value=40, max_value=60),  # bid, ticks
    st.integers(min_value=1, max_value=10),  # spread, ticks
    st.sampled_from([None, None, None, "reject", "lose", "lose_done"]),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(moves, max_size=60))
def test_whatever_happens_a_side_has_one_quote_and_an_exit_never_flips(new_venue: Any, life: list[Any]) -> None:
    venue = new_venue()
    manager = OrderManager(venue, refresh_ms=300, order_ttl_ms=1_500, max_replacements_per_min=20)
    now_ms, fills = 0, []
    for step, (kind, wait_ms, bid, spread, trouble) in enumerate(life):
        now_ms += wait_ms
        outcome = {"reject": VenueRejected("no"), "lose": TimeoutError(), "lose_done": TimeoutError()}.get(trouble)
        venue.submit_plan, venue.cancel_plan = [outcome], [outcome]
        venue.lost_takes_effect = trouble == "lose_done"
        fills += manager.poll(now_ms)
        position = sum(fill.signed_qty for fill in fills)
        sent_before = len(venue.submitted())
        final = {
            "hold": Action.HOLD,
            "pull": Action.HOLD,
            "cancel": Action.CANCEL,
            "exit": Action.EXIT,
            "stop": Action.STOP,
        }
        decision = FinalDecision(final[kind]) if kind in final else act(bid / 100, (bid + spread) / 100)
        if kind in ("fill", "repeat") and venue.resting:
            order = next(iter(venue.resting.values()))
            fill = venue.fill(order, qty=None if kind == "fill" else order.qty / 64)
            if kind == "repeat":
                venue.fills.append(fill)
        elif kind not in ("poll", "fill", "repeat"):
            do(manager, decision, now_ms, position=position, pull=kind == "pull", step=step, bid=0.5, ask=0.51)
        if kind == "exit":
            sent = venue.submitted()[sent_before:]
            fills += manager.poll(now_ms)  # those that raced the cancels, which the exit has to know
            held = sum(fill.signed_qty for fill in fills)
            assert len(sent) <= 1
            assert all(o.reduce_only and o.qty <= abs(held) and o.side.sign * held < 0 for o in sent)
        live = [order.side for order in manager.open_orders(M) if not order.reduce_only]
        assert len(live) == len(set(live))
        resting_sides = [order.side for order in venue.resting.values()]
        assert len(resting_sides) == len(set(resting_sides))  # at the venue itself
        assert {o.client_order_id for o in manager.open_orders()} >= set(venue.resting)
    assert manager.halt_reason == ""
    assert len({(f.client_order_id, f.trade_id) for f in fills}) == len(fills)
