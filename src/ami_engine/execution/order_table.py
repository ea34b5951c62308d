"""The orders that may be live, and all that is heard of them: replies, fills, and answers to what was in doubt.

Invariant: a place holds at most one order that may be live. An order whose submit or cancel is in doubt keeps its place
until the doubt is resolved, so that nothing can put a second one beside it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import inf
from typing import Any

import msgspec

from ami_engine.adapters.base import Broker
from ami_engine.errors import DuplicateOrderId, InvalidTransition, StateError, VenueProtocolError
from ami_engine.events import Fill, OrderReport, OrderStatus, RequestState, Side, SubmitOrder
from ami_engine.execution import broker_edge
from ami_engine.execution.actions import AuditSink, Tally
from ami_engine.execution.broker_edge import Answer
from ami_engine.execution.journal import Intent, Journal, JournaledOrder
from ami_engine.execution.order_state import Order, Trigger
from ami_engine.execution.reconcile import (
    Correction,
    LocalOrder,
    trigger_of_silence,
    triggers_of_report,
)
from ami_engine.units import NS_PER_MS, whole_ms

__all__ = ["DEFAULT_SETTLE_MS", "OrderTable", "Place", "Working"]

# A request may be on its way this long: only then does "the venue knows nothing of it" prove anything.
DEFAULT_SETTLE_MS = 5_000
# Looking an order up blocks the loop for a round trip: never more often than this.
_MIN_LOOKUP_MS = 100
# Closed orders whose late fills and repeats are still recognised.
_CLOSED_KEPT = 1_024


class Place:
    """Where one order of a market may be: its bid, its ask, or the order that closes its position."""

    __slots__ = ("blocked_until_ms", "is_closing", "market_id", "side", "working")

    def __init__(self, market_id: str, side: Side, *, is_closing: bool = False) -> None:
        self.market_id = market_id
        self.side = side
        self.is_closing = is_closing
        self.working: Working | None = None
        self.blocked_until_ms = -inf  # nothing is put here before


class Working:
    """An order, and what is remembered of it while it may be live and for a while after."""

    __slots__ = (
        "asked_ms",
        "denials",
        "expires_ms",
        "is_said_gone",
        "lookup_ms",
        "order",
        "place",
        "placed_ms",
        "ticks",
        "trade_ids",
        "unsure_ms",
    )

    def __init__(self, order: Order, place: Place, ticks: int, now_ms: float, expires_ns: int = 0) -> None:
        self.order = order
        self.place = place
        self.ticks = ticks
        self.placed_ms = now_ms
        self.asked_ms = -inf  # when a cancel was last asked
        self.lookup_ms: float = now_ms  # no lookup before
        # After this the venue takes the submit no more; never, where it cannot expire requests.
        self.expires_ms = expires_ns / NS_PER_MS if expires_ns else inf
        self.denials = 0  # how often in a row the venue said that it knows nothing of the order
        self.unsure_ms = -inf  # since when its state is looked up
        self.is_said_gone = False  # the venue answered a cancel with "nothing to cancel"
        self.trade_ids: set[str] = set()

    @property
    def doubted_ms(self) -> float:
        """Since when it is unsure; not since the last cancel: one asked again and again would put off every answer."""
        return max(self.placed_ms, self.unsure_ms)

    def as_local(self) -> LocalOrder:
        """Return what `reconcile` compares."""
        return LocalOrder(
            self.order, self.doubted_ms, self.expires_ms, self.place.is_closing, self.is_said_gone, self.denials
        )


class OrderTable:
    """Sends requests to a broker and keeps what is known of every order.

    Parameters
    ----------
    broker : Broker
        Where requests go.
    retry_ms : float
        A cancel that was not confirmed is asked again, and a doubt looked up again, at the earliest after so long.
    audit : AuditSink or None
        Gets a line for every request, refusal, doubt and protocol error.
    halts_on_strangers : bool
        A fill of an order that was not sent from here halts; False where others trade through the same broker.
    on_change : callable
        Called with the order after each change of it, and True when a fill made the change.
    journal : Journal or None
        Gets every intent before it is sent, and every change of an order.
    settle_ms : float
        A request may be on its way this long after it was sent, and a venue's parts differ this long: only after it
        does "nothing known of it" prove anything.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        retry_ms: float,
        audit: AuditSink | None,
        halts_on_strangers: bool,
        on_change: Callable[[Working, bool], None],
        journal: Journal | None = None,
        settle_ms: float = DEFAULT_SETTLE_MS,
    ) -> None:
        self.broker = broker
        self.now_ms = 0
        self.live: dict[str, Working] = {}
        self.live_in: dict[str, int] = {}  # how many of them in each market that has any
        self.touched: set[str] = set()  # markets where that changed since somebody last looked
        self.fills: list[Fill] = []  # new ones that nobody took yet
        self.news: Tally | None = None  # what happened while nobody counted
        self.halt_reason = ""
        self.duplicate_fills = 0
        self.keeps_denied = False  # True for whoever decides himself whether an order is sent again
        self._retry_ms = retry_ms
        self._lookup_every_ms = max(retry_ms, _MIN_LOOKUP_MS)
        self._audit = audit
        self._halts_on_strangers = halts_on_strangers
        self._on_change = on_change
        self.on_reconnect: Callable[[], None] = _nothing  # told when the broker can be read again after it could not
        self._is_cut_off = False
        self._journal = journal
        self._settle_ms = settle_ms
        window_ms = getattr(broker, "recv_window_ms", None)
        self._window_ns = None if window_ms is None else round(window_ms * NS_PER_MS)
        self._closed: OrderedDict[str, Working] = OrderedDict()
        self._unsettled: dict[str, Working] = {}
        self.next_lookup_ms = inf  # no unsettled order is looked up before: `settle` does nothing
        self.compare_ms = whole_ms(inf)  # nothing is compared with the venue before, by whoever does
        self._unknown_trades: OrderedDict[tuple[str, str], None] = OrderedDict()

    # Requests. ----------------------------------------------------------------------------------------------------

    @property
    def now_ns(self) -> int:
        """The decision time, ns."""
        return int(self.now_ms * NS_PER_MS)

    def send(self, orders: Sequence[tuple[Place, Intent]], tally: Tally) -> None:
        """Place orders. With a journal their intents are on the disk before the first of them is sent.

        Raises
        ------
        DuplicateOrderId
            When an id was used before.
        InvalidTransition
            When a place is taken.
        """
        for place, intent in orders:
            order_id = intent.request.client_order_id
            if order_id in self.live or order_id in self._closed:
                raise DuplicateOrderId(
                    f"client order id {order_id} was used before: a step of {place.market_id!r} came twice"
                )
            if place.working is not None:
                raise InvalidTransition(f"{place.side.value} of {place.market_id!r} is taken by {place.working.order}")
        if self._window_ns is not None:
            expires_ns = self.now_ns + self._window_ns
            orders = [
                (place, msgspec.structs.replace(intent, request=_expiring(intent.request, expires_ns)))
                for place, intent in orders
            ]
        if self._journal is not None and orders:
            try:
                self._journal.intend([intent for _, intent in orders], self.now_ns)
            except StateError as error:
                # Invariant: what is not in the journal is not sent.
                self.halt(str(error))
                return
        for place, intent in orders:
            if self.halt_reason:
                self._withdraw(intent)
            else:
                self._send(place, intent, tally)

    def _withdraw(self, intent: Intent) -> None:
        """Note that an intent was not sent, because the one before it halted."""
        if self._journal is not None:
            order = Order.from_submit(intent.request).after(Trigger.SUBMIT_SENT).after(Trigger.REJECTED)
            self._journal.note(order, "withdrawn", self.now_ns, self.halt_reason)

    def _send(self, place: Place, intent: Intent, tally: Tally) -> None:
        request = intent.request
        order_id = request.client_order_id
        order = Order.from_submit(request).after(Trigger.SUBMIT_SENT)
        working = Working(order, place, intent.ticks, self.now_ms, request.expires_ns)
        place.working = self.live[order_id] = working
        self._count_live(place.market_id, 1)
        tally.submitted += 1
        self.record("order_submitted", order=request)
        self._hear_submitted(working, broker_edge.submit(self.broker, request), tally)

    def send_again(self, working: Working, tally: Tally) -> None:
        """Send an order again, under its id, of which the venue knows nothing and whose submit it takes no more."""
        order = working.order
        if not self.is_denied(working):
            raise InvalidTransition(f"order {order.client_order_id} may still arrive: it must not be sent again")
        working.placed_ms, working.denials = self.now_ms, 0
        expires_ns = self.now_ns + (self._window_ns or 0)
        working.expires_ms = expires_ns / NS_PER_MS
        request = order.to_submit(expires_ns)
        if self._journal is not None:
            try:
                self._journal.intend_again(request, self.now_ns)
            except StateError as error:
                self.halt(str(error))
                return
        tally.submitted += 1
        self.record("order_submitted_again", order=request)
        self._hear_submitted(working, broker_edge.submit(self.broker, request), tally)

    def _hear_submitted(self, working: Working, reply: broker_edge.Reply, tally: Tally) -> None:
        order_id, place = working.order.client_order_id, working.place
        if reply.answer is Answer.DONE:
            self._advance(working, Trigger.ACCEPTED, reply.venue_order_id)
            if place.is_closing:
                self._watch(working)  # nobody tells when an IOC ended without a fill
        elif reply.answer is Answer.REFUSED:
            tally.rejected += 1
            self._advance(working, Trigger.REJECTED)
            self.record("order_rejected", client_order_id=order_id, error=reply.error)
        self._hear_trouble(working, reply, tally)

    def cancel(self, working: Working, tally: Tally) -> bool:
        """Ask for a cancel, unless one was asked a moment ago; return True when it is confirmed."""
        order_id = working.order.client_order_id
        if self.now_ms - working.asked_ms < self._retry_ms:
            return False
        working.asked_ms = self.now_ms
        working.is_said_gone = False
        self._advance(working, Trigger.CANCEL_SENT)
        reply = broker_edge.cancel(self.broker, order_id)
        if reply.answer is Answer.DONE:
            tally.canceled += 1
            self._advance(working, Trigger.CANCELED)
            self.record("order_canceled", client_order_id=order_id)
        elif reply.answer is Answer.REFUSED:
            # Filled, most likely, and the fill is on its way: `collect` will tell, or a lookup.
            working.is_said_gone = not reply.error
            self._advance(working, Trigger.CANCEL_REFUSED)
            self.record("cancel_refused", client_order_id=order_id, error=reply.error)
            self._watch(working)
        self._hear_trouble(working, reply, tally)
        return reply.answer is Answer.DONE

    def sweep(self, tally: Tally) -> int:
        """Cancel everything at the venue in one call, also what we do not know of; return how many."""
        count, error = broker_edge.sweep(self.broker, None)
        self.record("orders_swept", count=count, error=error)
        if error:
            tally.fail(error)
        tally.canceled += count
        return count

    def cancel_all(self, tally: Tally) -> tuple[str, ...]:
        """Cancel every order, known to us or not, then ask the venue; return the ids of ours that may still be live."""
        can_cancel = broker_edge.supports(self.broker, "cancel_order")
        working = list(self.live.values())
        if can_cancel:
            for each in working:
                self.cancel(each, tally)
        if broker_edge.supports(self.broker, "cancel_all"):
            count = self.sweep(tally)
            if not can_cancel and count >= len(working):
                for each in working:
                    self.take_as_canceled(each)
        return self.still_open(tally)

    def still_open(self, tally: Tally) -> tuple[str, ...]:
        """Ask the venue which orders of ours are live, cancel those that ended here, return all that may live."""
        listed = self._listed_orders()
        if listed is None:
            tally.fail("the venue's open orders cannot be read: that everything is cancelled is not verified")
            return tuple(self.live)
        ours = [order_id for order_id in listed if order_id in self.live or self._was_ours(order_id)]
        for order_id in ours:
            if order_id not in self.live:  # it was said to be cancelled, and is not
                reply = broker_edge.cancel(self.broker, order_id)
                self.record("cancel_repeated", client_order_id=order_id, answer=reply.answer.value, error=reply.error)
                if reply.is_failure:
                    tally.fail(reply.error)
        return tuple(dict.fromkeys((*self.live, *ours)))

    def _was_ours(self, order_id: str) -> bool:
        """True for an order that ended here, also one so long ago that only the journal remembers it."""
        return order_id in self._closed or (self._journal is not None and self._journal.find(order_id) is not None)

    def take_as_canceled(self, working: Working) -> None:
        """Note that a sweep took the order away."""
        self._advance(working, Trigger.CANCELED)

    def _hear_trouble(self, working: Working, reply: broker_edge.Reply, tally: Tally) -> None:
        if reply.is_failure:
            tally.fail(reply.error)
        if reply.answer is Answer.LOST:
            tally.in_doubt += 1
            self._advance(working, Trigger.REPLY_LOST)
            self.record("order_in_doubt", client_order_id=working.order.client_order_id, error=reply.error)
            self._watch(working)
        if reply.is_fatal:
            self.halt(reply.error)

    def _advance(self, working: Working, trigger: Trigger, venue_order_id: str = "") -> None:
        self._replace(working, working.order.after(trigger, venue_order_id=venue_order_id), trigger.value)

    def _replace(self, working: Working, order: Order, kind: str, *, is_fill: bool = False) -> None:
        if (
            working.order.status is OrderStatus.INITIALIZED
            and order.is_open
            and order.status is not working.order.status
        ):
            # Heard of for the first time: what the venue did not know before its submit arrived is no word on its end.
            working.denials, working.is_said_gone, working.unsure_ms = 0, False, self.now_ms
        working.order = order
        order_id = order.client_order_id
        if self._journal is not None:
            self._journal.note(order, kind, self.now_ns)
        if not order.is_open and self.live.pop(order_id, None) is not None:
            working.place.working = None
            self._count_live(working.place.market_id, -1)
            self._unsettled.pop(order_id, None)
            self._keep_closed(working)
        self._on_change(working, is_fill)

    def _count_live(self, market_id: str, change: int) -> None:
        count = self.live_in.get(market_id, 0) + change
        if count:
            self.live_in[market_id] = count
        else:
            del self.live_in[market_id]
        self.touched.add(market_id)

    def _keep_closed(self, working: Working) -> None:
        self._closed[working.order.client_order_id] = working
        if len(self._closed) > _CLOSED_KEPT:
            self._closed.popitem(last=False)

    # A start. -----------------------------------------------------------------------------------------------------

    def adopt(self, kept: JournaledOrder, place: Place) -> Working:
        """Take over an order of the journal: one whose request was not answered before the end is in doubt."""
        order = kept.order
        if order.request is not RequestState.NONE:
            order = order.after(Trigger.REPLY_LOST)
        intended_ms = kept.intended_ns / NS_PER_MS
        working = Working(order, place, kept.intent.ticks, intended_ms, kept.intent.request.expires_ns)
        working.trade_ids.update(kept.trade_ids)
        working.lookup_ms = -inf
        if order.is_open:
            place.working = self.live[order.client_order_id] = working
            self._count_live(place.market_id, 1)
            self._unsettled[order.client_order_id] = working
            self.next_lookup_ms = -inf
        else:
            self._keep_closed(working)
        return working

    # Fills. -------------------------------------------------------------------------------------------------------

    def collect(self) -> None:
        """Read the broker's fills and fold them; new ones wait in `fills`."""
        found, error = broker_edge.read_fills(self.broker, self.now_ms)
        if error:
            self._is_cut_off = True
            self.news = self.news or Tally()
            self.news.fail(error)
            self.record("fills_unavailable", error=error)
            if isinstance(error, broker_edge.Unreadable):
                self.halt(str(error))
        elif self._is_cut_off:
            self._is_cut_off = False
            self.news = self.news or Tally()
            self.news.reconnects += 1
            self.record("broker_reconnected")
            self.on_reconnect()
        for raw in found:
            try:
                fill = broker_edge.decode_fill(raw)
            except VenueProtocolError as broken:
                self.record("fill_unreadable", error=str(broken), fill=repr(raw))
                self.halt(str(broken))
                continue
            if self.fold(fill):
                self.fills.append(fill)

    def find(self, order_id: str) -> Working | None:
        """Return an order that is live or closed not long ago."""
        return self.live.get(order_id) or self._closed.get(order_id)

    def fold(self, fill: Fill) -> bool:
        """Bring a fill to its order; return False for a repeat, which must not be booked."""
        working = self.find(fill.client_order_id)
        if self._journal is not None:
            if self._journal.has_fill(fill):
                self.duplicate_fills += 1
                return False
            kept = self._journal.find(fill.client_order_id) if working is None else None
            if kept is not None:  # closed so long ago that it was forgotten here
                working = self.adopt(kept, Place(fill.market_id, fill.side))
        if working is None:
            return self._fold_unknown(fill)
        if fill.trade_id in working.trade_ids:
            self.duplicate_fills += 1
            return False
        working.trade_ids.add(fill.trade_id)
        order = working.order
        try:
            if fill.side is not order.side or fill.market_id != order.market_id:
                raise VenueProtocolError(
                    f"trade {fill.trade_id} is a {fill.side.value} of {fill.market_id!r}, but its order"
                    f" {order.client_order_id} is a {order.side.value} of {order.market_id!r}"
                )
            filled = order.filled(price=fill.price, qty=fill.qty)
        except VenueProtocolError as error:
            self.record("fill_refused", error=str(error), fill=fill)
            self._keep_fill(fill, is_refused=True)
            self.halt(str(error))
            return True
        self._keep_fill(fill)
        self._replace(working, filled, "fill", is_fill=True)
        return True

    def _keep_fill(self, fill: Fill, *, is_refused: bool = False) -> None:
        if self._journal is not None:
            self._journal.fill(fill, self.now_ns, is_refused=is_refused)

    def _fold_unknown(self, fill: Fill) -> bool:
        key = (fill.client_order_id, fill.trade_id)
        if key in self._unknown_trades:
            self.duplicate_fills += 1
            return False
        self._unknown_trades[key] = None
        if len(self._unknown_trades) > _CLOSED_KEPT:
            self._unknown_trades.popitem(last=False)
        self._keep_fill(fill, is_refused=True)
        if self._halts_on_strangers:
            self.record("fill_of_unknown_order", fill=fill)
            self.halt(f"trade {fill.trade_id} belongs to order {fill.client_order_id!r}, which is not ours")
        return True

    # Doubts. ------------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Ask the venue about the orders whose state is not sure, each now and then."""
        if self.now_ms < self.next_lookup_ms:
            return
        due = [w for w in self._unsettled.values() if self.now_ms >= w.lookup_ms]
        for working in due:
            working.lookup_ms = self.now_ms + self._lookup_every_ms
        self.next_lookup_ms = min((w.lookup_ms for w in self._unsettled.values()), default=inf)
        if not due:
            return
        if broker_edge.supports(self.broker, "fetch_order"):
            for working in due:
                report, error = broker_edge.fetch_report(self.broker, working.order.client_order_id)
                if error:
                    self.record("lookup_failed", client_order_id=working.order.client_order_id, error=error)
                else:
                    self._hear_report(working, report, is_answer=True)
            return
        listed = self._listed_orders()
        for working in due:
            report = None if listed is None else listed.get(working.order.client_order_id)
            self._hear_report(working, report, is_answer=listed is not None)

    def look_up_now(self) -> None:
        """Ask about every order whose state is not sure, also those that were asked about a moment ago."""
        for working in self._unsettled.values():
            working.lookup_ms = -inf
        self.next_lookup_ms = -inf
        self.settle()

    def _watch(self, working: Working) -> None:
        working.lookup_ms = self.now_ms + self._lookup_every_ms
        self.next_lookup_ms = min(self.next_lookup_ms, working.lookup_ms)
        if working.order.client_order_id not in self._unsettled:
            working.unsure_ms = self.now_ms
        self._unsettled[working.order.client_order_id] = working

    def _listed_orders(self) -> dict[str, OrderReport] | None:
        """Return the live orders that the venue lists, None when it does not say."""
        found, error = broker_edge.read_open_orders(self.broker)
        if error:
            self.record("lookup_failed", error=error)
        return found

    def _hear_report(self, working: Working, report: OrderReport | None, *, is_answer: bool) -> None:
        """Bring the venue's word to an order. `is_answer`: no report means that the venue knows no such order."""
        try:
            if report is None:
                self._hear_nothing(working, is_answer)
            else:
                self._hear_known(working, report)
        except VenueProtocolError as error:
            self.record("report_refused", error=str(error), report=report)
            self.halt(str(error))

    def _hear_nothing(self, working: Working, is_answer: bool) -> None:
        if is_answer:
            self.count_denial(working)
        trigger = trigger_of_silence(working.as_local(), self.now_ms, self._settle_ms, is_answer=is_answer)
        if trigger is None:
            return
        if trigger is not Trigger.REJECTED:
            self._advance(working, trigger)
        elif not self.keeps_denied:
            self.give_up(working)

    def count_denial(self, working: Working) -> None:
        """Note that the venue knows nothing of an order; said while a request may be under way it proves nothing."""
        is_early = self.now_ms - working.doubted_ms < self._settle_ms
        is_unheard = working.order.status is OrderStatus.INITIALIZED
        if not (is_early or (is_unheard and self.now_ms <= working.expires_ms + self._settle_ms)):
            working.denials += 1

    def is_denied(self, working: Working) -> bool:
        """True when the venue takes the submit no more, and has said often enough that it knows nothing of it."""
        trigger = trigger_of_silence(working.as_local(), self.now_ms, self._settle_ms, is_answer=True)
        return trigger is Trigger.REJECTED

    def give_up(self, working: Working) -> None:
        """Close an order that `is_denied`: nothing of it is live, or will be."""
        self._advance(working, Trigger.REJECTED)
        self.record("order_never_arrived", client_order_id=working.order.client_order_id)

    def _hear_known(self, working: Working, report: OrderReport) -> None:
        working.denials = 0
        for trigger in triggers_of_report(working.order, report):
            self._advance(working, trigger, report.venue_order_id)
        order = working.order
        is_behind = report.status is OrderStatus.FILLED or order.is_behind(report.filled_qty)
        if order.is_open and not is_behind and not working.place.is_closing:
            self._unsettled.pop(order.client_order_id, None)

    # Reconciliation. ----------------------------------------------------------------------------------------------

    @property
    def closed(self) -> dict[str, Order]:
        """The last orders that ended, by client id."""
        return {order_id: working.order for order_id, working in self._closed.items()}

    def correct(self, correction: Correction) -> None:
        """Apply what a comparison with the venue found, through the state machine."""
        order_id = correction.client_order_id
        self.record("correction", client_order_id=order_id, reason=correction.reason, trigger=correction.trigger)
        if correction.fill is not None:
            if self.fold(correction.fill):
                self.fills.append(correction.fill)
            return
        working = self.live.get(order_id)
        if working is None or correction.trigger is None:
            return
        if (
            correction.trigger is Trigger.REJECTED
            and working.order.request is RequestState.SUBMIT
            and self.keeps_denied
        ):
            return  # whoever sends again decides
        try:
            self._advance(working, correction.trigger, correction.venue_order_id)
        except VenueProtocolError as error:
            self.record("correction_refused", client_order_id=order_id, error=str(error))
            self.halt(str(error))

    # Trouble. -----------------------------------------------------------------------------------------------------

    def halt(self, reason: str) -> None:
        """Stop submitting; the next call that counts says so."""
        self.news = self.news or Tally()
        self.news.errors.append(reason)
        if not self.halt_reason:
            self.halt_reason = self.news.halt = reason
        self.record("halt", reason=reason)

    def record(self, kind: str, **fields: Any) -> None:
        """Write an audit line, where there is an audit log."""
        if self._audit is not None:
            self._audit.record(kind, **fields)


def _expiring(request: SubmitOrder, expires_ns: int) -> SubmitOrder:
    return msgspec.structs.replace(request, expires_ns=expires_ns)


def _nothing() -> None:
    """Nobody listens."""
