"""Reconciliation: what explains a difference, what corrects it, and what nothing explains."""

from __future__ import annotations

from decimal import Decimal
from math import inf
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ami_engine.events import Fill, OrderReport, OrderStatus, RequestState, Side
from ami_engine.execution.order_state import OPEN_STATUSES, Order, Trigger
from ami_engine.execution.reconcile import (
    FindingKind,
    LocalOrder,
    LocalView,
    Reconciliation,
    VenueView,
    reconcile,
)

SENT = Order(client_order_id="a", market_id="X", side=Side.BUY, price=9.0, qty=2.0).after(Trigger.SUBMIT_SENT)
DOUBT = SENT.after(Trigger.REPLY_LOST)
NEW = SENT.after(Trigger.ACCEPTED)


def report(status: OrderStatus = OrderStatus.NEW, **changes: Any) -> OrderReport:
    plain = OrderReport(client_order_id="a", market_id="X", side=Side.BUY, price=9.0, qty=2.0, status=status)
    return msgspec.structs.replace(plain, **changes)


def fill(trade_id: str = "t1", qty: float = 1.0, **changes: Any) -> Fill:
    plain = Fill(trade_id=trade_id, client_order_id="a", market_id="X", side=Side.BUY, price=9.0, qty=qty, ts_ns=100)
    return msgspec.structs.replace(plain, **changes)


def local(order: Order | None = NEW, **changes: Any) -> LocalView:
    orders = () if order is None else (LocalOrder(order, asked_ms=0, expires_ms=changes.pop("expires_ms", inf)),)
    return msgspec.structs.replace(LocalView(now_ms=60_000, settle_ms=500, orders=orders), **changes)


def venue(*reports: OrderReport, **changes: Any) -> VenueView:
    return msgspec.structs.replace(VenueView(open_orders={r.client_order_id: r for r in reports}), **changes)


def triggers(found: Reconciliation) -> list[Trigger | None]:
    return [correction.trigger for correction in found.corrections]


def kinds(found: Reconciliation) -> list[FindingKind]:
    return [finding.kind for finding in (*found.differences, *found.contradictions)]


def test_two_sides_that_agree_have_nothing_to_say() -> None:
    found = reconcile(local(positions={"X": Decimal(0)}), venue(report(), fills=(), positions={}))
    assert (found.is_clean, found.corrections) == (True, ())


@pytest.mark.parametrize(
    ("order", "status", "expected"),
    [
        (DOUBT, OrderStatus.NEW, [Trigger.ACCEPTED]),
        (DOUBT, OrderStatus.CANCELED, [Trigger.ACCEPTED, Trigger.CANCELED]),
        (DOUBT, OrderStatus.REJECTED, [Trigger.REJECTED]),
        (NEW, OrderStatus.EXPIRED, [Trigger.EXPIRED]),
        (NEW, OrderStatus.REJECTED, [Trigger.EXPIRED]),
        (NEW.after(Trigger.CANCEL_SENT), OrderStatus.NEW, [Trigger.CANCEL_REFUSED]),
        (NEW.after(Trigger.CANCEL_SENT).after(Trigger.REPLY_LOST), OrderStatus.CANCELED, [Trigger.CANCELED]),
    ],
)
def test_the_venues_word_corrects_an_order(order: Order, status: OrderStatus, expected: list[Trigger]) -> None:
    found = reconcile(local(order), VenueView(open_orders={}, reports={"a": report(status)}))
    assert triggers(found) == expected
    assert found.contradictions == ()


def test_an_order_is_not_closed_before_its_fills_came() -> None:
    word = report(OrderStatus.CANCELED, filled_qty=1.0)
    behind = reconcile(local(), VenueView(open_orders={}, reports={"a": word}))
    assert (triggers(behind), kinds(behind)) == ([], [FindingKind.FILLS_BEHIND])
    found = reconcile(local(), VenueView(open_orders={}, reports={"a": word}, fills=(fill(),)))
    assert triggers(found) == [None, Trigger.CANCELED]
    assert found.contradictions == ()


def test_a_missed_fill_is_booked_once_and_explains_the_position() -> None:
    word = venue(report(OrderStatus.PARTIALLY_FILLED, filled_qty=1.0), fills=(fill(), fill()), positions={"X": 1.0})
    found = reconcile(local(positions={"X": Decimal(0)}), word)
    assert [correction.fill for correction in found.corrections] == [fill()]
    assert found.contradictions == ()


def test_fills_of_before_the_journal_are_not_ours() -> None:
    word = venue(report(), fills=(fill(client_order_id="old", ts_ns=5),), positions={"X": 0.0})
    assert reconcile(local(begun_ns=50, positions={"X": Decimal(0)}), word).is_clean


def test_a_submit_is_believed_lost_after_its_expiry_and_the_second_denial() -> None:
    for expires_ms, denials, expected in (
        (inf, 9, []),
        (59_600.0, 1, []),  # expired, not settled
        (59_000.0, 0, []),
        (59_000.0, 1, [Trigger.REJECTED]),
    ):
        order = LocalOrder(DOUBT, asked_ms=0, expires_ms=expires_ms, denials=denials)
        found = reconcile(local(None, orders=(order,)), VenueView(open_orders={}, reports={"a": None}))
        assert (triggers(found), found.denied) == (expected, ("a",))


def test_an_order_too_new_to_be_listed_is_not_missed() -> None:
    found = reconcile(local(NEW, now_ms=400), VenueView(open_orders={}))
    assert found.is_clean


@pytest.mark.parametrize(
    ("ours", "theirs", "kind"),
    [
        (local(fills=(fill(),)), venue(report(), fills=()), FindingKind.FILL_DENIED),
        (local(NEW.filled(price=9.0, qty=1.0)), venue(report()), FindingKind.FILLED_SHRANK),
        (local(), venue(report(side=Side.SELL)), FindingKind.OTHER_ORDER),
        (local(), venue(report(qty=3.0)), FindingKind.OTHER_ORDER),
        (local(None, closed={"a": NEW.after(Trigger.CANCELED)}), venue(report()), FindingKind.LIVE_AFTER_END),
        (
            local(None, is_ours=lambda _: True, positions={"X": Decimal(0)}),
            venue(report()),
            FindingKind.UNJOURNALED,
        ),
        (local(None, positions={"X": Decimal(1)}), venue(positions={"X": 2.0}), FindingKind.POSITION),
        (local(None, positions={"X": Decimal(1)}), venue(positions={"X": float("nan")}), FindingKind.POSITION),
        (local(), venue(report(), fills=(fill(qty=3.0),)), FindingKind.IMPOSSIBLE_FILL),
        (local(None), venue(fills=(fill(),)), FindingKind.IMPOSSIBLE_FILL),
    ],
)
def test_what_no_lost_message_explains_is_a_contradiction(ours: LocalView, theirs: VenueView, kind: Any) -> None:
    assert kind in [finding.kind for finding in reconcile(ours, theirs).contradictions]


def test_an_order_of_somebody_else_is_only_a_difference() -> None:
    found = reconcile(local(None), venue(report()))
    assert (kinds(found), found.contradictions) == ([FindingKind.STRANGER], ())


def test_what_the_venue_does_not_say_is_not_compared() -> None:
    assert reconcile(local(DOUBT, fills=(fill(),), positions={"X": Decimal(1)}), VenueView()).is_clean


# The same, over the whole of what can be lost. --------------------------------------------------------------------

_EVENTS = st.lists(st.sampled_from(["ack", "fill", "cancel", "expire"]), max_size=5)


@settings(max_examples=300, deadline=None)
@given(_EVENTS, st.sets(st.integers(0, 4)))
def test_whatever_words_are_lost_one_look_brings_the_order_to_the_venues_truth(
    events: list[str], lost: set[int]
) -> None:
    ours, theirs, fills, heard = DOUBT, SENT, [], set()
    for number, event in enumerate(events):
        if not theirs.is_open:
            break
        if event == "fill":
            if theirs.status is OrderStatus.INITIALIZED:
                theirs = theirs.after(Trigger.ACCEPTED)
            made = fill(f"t{number}", 0.5)
            fills.append(made)
            theirs = theirs.filled(price=9.0, qty=0.5)
            if number not in lost and ours.is_open:
                ours, heard = ours.filled(price=9.0, qty=0.5), heard | {made.trade_id}
            continue
        trigger = {"ack": Trigger.ACCEPTED, "cancel": Trigger.CANCELED, "expire": Trigger.EXPIRED}[event]
        if trigger is Trigger.ACCEPTED and theirs.status is not OrderStatus.INITIALIZED:
            continue
        theirs = theirs.after(trigger)
        behind = ours.filled_qty < theirs.filled_qty
        if (
            number not in lost
            and not behind
            and (trigger is not Trigger.ACCEPTED or ours.request is not RequestState.NONE)
        ):
            ours = ours.after(trigger)
    if theirs.status is OrderStatus.INITIALIZED:
        return  # nothing of it is at the venue: a matter of expiry
    word = report(theirs.status, filled_qty=theirs.filled_qty)
    open_orders = {"a": word} if theirs.status in OPEN_STATUSES else {}
    view = local(
        ours if ours.is_open else None,
        has_fill=lambda known: known.trade_id in heard,
        positions={"X": Decimal(repr(ours.filled_qty))},
    )
    found = reconcile(
        view,
        VenueView(open_orders=open_orders, reports={"a": word}, fills=tuple(fills), positions={"X": theirs.filled_qty}),
    )
    assert found.contradictions == ()
    for correction in found.corrections:
        if correction.fill is not None:
            ours = ours.filled(price=correction.fill.price, qty=correction.fill.qty)
        elif correction.trigger is not None:
            ours = ours.after(correction.trigger)
    assert (ours.status, ours.filled_qty) == (theirs.status, theirs.filled_qty)


def test_a_first_fill_outweighs_what_was_said_before_the_order_arrived() -> None:
    """A cancel found nothing to cancel while the submit was under way; open orders and look-up are a moment old."""
    asked = LocalOrder(DOUBT, asked_ms=0, is_said_gone=True, denials=1)
    found = reconcile(local(None, orders=(asked,)), venue(reports={"a": None}, fills=(fill(),)))
    assert [correction.fill for correction in found.corrections] == [fill()]
    assert found.denied == ()
