"""The order's state machine, cell by cell, and over random lives."""

from __future__ import annotations

from itertools import product

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ami_engine.errors import InvalidTransition, VenueProtocolError
from ami_engine.events import OrderStatus, RequestState, Side, SubmitOrder
from ami_engine.execution.order_state import OPEN_STATUSES, VENUE_TRIGGERS, Order, Trigger

# The specification, copied cell by cell; `same` and `–` as it writes them.
SPECIFIED = """
status           | accepted | partial_fill     | fill   | canceled | expired | rejected
INITIALIZED      | NEW      | PARTIALLY_FILLED | FILLED | CANCELED | EXPIRED | REJECTED
NEW              | –        | PARTIALLY_FILLED | FILLED | CANCELED | EXPIRED | –
PARTIALLY_FILLED | same     | same             | FILLED | CANCELED | EXPIRED | –
CANCELED         | –        | same             | FILLED | –        | –       | –
EXPIRED          | –        | same             | FILLED | –        | –       | –
FILLED           | same     | –                | –      | –        | –       | –
REJECTED         | –        | –                | –      | –        | –       | –
"""


def specified() -> dict[tuple[OrderStatus, Trigger], OrderStatus | None]:
    head, *rows = ([cell.strip() for cell in line.split("|")] for line in SPECIFIED.strip().splitlines())
    return {
        (OrderStatus(row[0]), Trigger(name)): None
        if cell == "–"
        else OrderStatus(row[0])
        if cell == "same"
        else OrderStatus(cell)
        for row in rows
        for name, cell in zip(head[1:], row[1:], strict=True)
    }


def order_in(status: OrderStatus, request: RequestState = RequestState.NONE, filled_qty: float = 0.25) -> Order:
    filled = 1.0 if status is OrderStatus.FILLED else filled_qty
    return Order(
        client_order_id="a1",
        market_id="X",
        side=Side.BUY,
        price=99.0,
        qty=1.0,
        status=status,
        request=request,
        filled_qty=filled,
        avg_price=99.0,
    )


def happen(order: Order, trigger: Trigger) -> Order:
    qty = {Trigger.PARTIAL_FILL: 0.25, Trigger.FILL: 0.75}.get(trigger, 0.0)
    return order.after(trigger, fill_price=99.0, fill_qty=qty)


@pytest.mark.parametrize(("status", "trigger"), list(product(OrderStatus, VENUE_TRIGGERS)))
def test_each_cell_is_as_specified(status: OrderStatus, trigger: Trigger) -> None:
    expected = specified()[status, trigger]
    order = order_in(status)
    if expected is None:
        with pytest.raises(VenueProtocolError):
            happen(order, trigger)
    else:
        assert happen(order, trigger).status is expected
        assert order.status is status  # the order itself did not change


@pytest.mark.parametrize("status", OrderStatus)
def test_a_cancel_may_be_asked_only_of_an_open_order(status: OrderStatus) -> None:
    if status in OPEN_STATUSES:
        assert order_in(status).after(Trigger.CANCEL_SENT).request is RequestState.CANCEL
    else:
        with pytest.raises(InvalidTransition, match="a1"):
            order_in(status).after(Trigger.CANCEL_SENT)


@pytest.mark.parametrize("status", OrderStatus)
def test_an_order_is_submitted_once_and_before_anything_else(status: OrderStatus) -> None:
    if status is OrderStatus.INITIALIZED:
        sent = order_in(status).after(Trigger.SUBMIT_SENT)
        assert sent.request is RequestState.SUBMIT
        with pytest.raises(InvalidTransition):
            sent.after(Trigger.SUBMIT_SENT)
    else:
        with pytest.raises(InvalidTransition):
            order_in(status).after(Trigger.SUBMIT_SENT)


@pytest.mark.parametrize("status", sorted(OPEN_STATUSES))
def test_a_refused_cancel_leaves_no_trace(status: OrderStatus) -> None:
    order = order_in(status)
    assert order.after(Trigger.CANCEL_SENT).after(Trigger.CANCEL_REFUSED) == order


@pytest.mark.parametrize("trigger", VENUE_TRIGGERS)
def test_whatever_the_venue_says_answers_a_submit(trigger: Trigger) -> None:
    order = order_in(OrderStatus.INITIALIZED, RequestState.SUBMIT)
    assert happen(order, trigger).request is RequestState.NONE


@pytest.mark.parametrize("trigger", VENUE_TRIGGERS)
def test_a_cancel_is_answered_only_by_the_end_of_the_order(trigger: Trigger) -> None:
    after = happen(order_in(OrderStatus.INITIALIZED, RequestState.CANCEL), trigger)
    assert after.request is (RequestState.CANCEL if after.is_open else RequestState.NONE)


def test_a_lost_reply_puts_the_order_in_doubt_with_its_whole_quantity() -> None:
    order = order_in(OrderStatus.PARTIALLY_FILLED).after(Trigger.CANCEL_SENT)
    assert (order.in_doubt, order.exposed_qty) == (False, 0.75)
    lost = order.after(Trigger.REPLY_LOST)
    assert (lost.in_doubt, lost.exposed_qty, lost.status) == (True, 1.0, OrderStatus.PARTIALLY_FILLED)
    assert not lost.after(Trigger.CANCEL_REFUSED).in_doubt
    assert not lost.after(Trigger.CANCELED).in_doubt


def test_a_refused_cancel_does_not_settle_a_submit_in_doubt() -> None:
    order = order_in(OrderStatus.INITIALIZED).after(Trigger.SUBMIT_SENT).after(Trigger.REPLY_LOST)
    refused = order.after(Trigger.CANCEL_SENT).after(Trigger.CANCEL_REFUSED)
    assert refused.in_doubt
    assert refused.request is RequestState.SUBMIT
    assert not refused.after(Trigger.ACCEPTED).in_doubt


@pytest.mark.parametrize("status", [s for s in OrderStatus if s is not OrderStatus.FILLED])
def test_an_overfill_is_the_venues_error(status: OrderStatus) -> None:
    with pytest.raises(VenueProtocolError, match="overfill"):
        order_in(status).filled(price=99.0, qty=0.7501)


def test_a_fill_is_whole_when_only_binary_rounding_is_left() -> None:
    order = order_in(OrderStatus.NEW, filled_qty=0.0)
    for _ in range(9):
        order = order.filled(price=99.0, qty=0.1)
        assert order.status is OrderStatus.PARTIALLY_FILLED
    order = order.filled(price=99.0, qty=0.1)
    assert (order.status, order.filled_qty, order.leaves_qty) == (OrderStatus.FILLED, 1.0, 0.0)


def test_a_fill_that_is_classed_wrongly_is_our_error() -> None:
    with pytest.raises(InvalidTransition):
        order_in(OrderStatus.NEW).after(Trigger.FILL, fill_price=99.0, fill_qty=0.1)
    with pytest.raises(VenueProtocolError, match="> 0"):
        order_in(OrderStatus.NEW).after(Trigger.PARTIAL_FILL)


def test_the_average_price_is_that_of_the_fills() -> None:
    order = order_in(OrderStatus.NEW, filled_qty=0.0).filled(price=100.0, qty=0.25).filled(price=98.0, qty=0.75)
    assert order.avg_price == pytest.approx(98.5, rel=1e-15)


def test_an_order_takes_everything_from_its_request() -> None:
    submit = SubmitOrder(client_order_id="a1", market_id="X", side=Side.SELL, price=9.0, qty=2.0, post_only=True)
    order = Order.from_submit(submit)
    assert all(getattr(order, n) == getattr(submit, n) for n in submit.__struct_fields__ if hasattr(order, n))
    assert set(submit.__struct_fields__) - set(order.__struct_fields__) == {"size_usd", "expires_ns"}
    assert order.to_submit() == msgspec.structs.replace(submit, size_usd=0.0)
    assert (order.status, order.request) == (OrderStatus.INITIALIZED, RequestState.NONE)


@given(
    st.lists(
        st.tuples(st.sampled_from(list(Trigger)), st.floats(min_value=1e-3, max_value=0.6)),
        max_size=30,
    )
)
def test_a_life_never_unfills_never_reopens_and_never_overfills(life: list[tuple[Trigger, float]]) -> None:
    order = order_in(OrderStatus.INITIALIZED, filled_qty=0.0)
    for trigger, qty in life:
        before = order
        try:
            if trigger in (Trigger.PARTIAL_FILL, Trigger.FILL):
                order = order.filled(price=99.0, qty=qty)
            else:
                order = order.after(trigger)
        except VenueProtocolError:
            assert trigger in VENUE_TRIGGERS
        except InvalidTransition:
            assert trigger not in VENUE_TRIGGERS
        assert before.filled_qty <= order.filled_qty <= order.qty
        assert before.is_open or not order.is_open
        assert order.exposed_qty >= order.leaves_qty >= 0.0
        assert order.is_open or order.request is RequestState.NONE
        assert order.status is not OrderStatus.REJECTED or order.filled_qty == 0.0
        assert (order.status is OrderStatus.FILLED) == (order.filled_qty == order.qty)
        assert order.in_doubt == (order.is_ambiguous and order.request is not RequestState.NONE)
