"""The orders that may be live, and all that is heard of them: replies, fills, and answers to what was in doubt.

Invariant: a place holds at most one order that may be live. An order whose submit or cancel is in doubt keeps its place
until the doubt is resolved, so that nothing can put a second one beside it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from math import inf
from typing import Any

from ami_engine.adapters.base import Broker
from ami_engine.errors import DuplicateOrderId, InvalidTransition, VenueProtocolError
from ami_engine.events import Fill, OrderReport, OrderStatus, RequestState, Side, SubmitOrder
from ami_engine.execution import broker_edge
from ami_engine.execution.actions import AuditSink, Tally
from ami_engine.execution.broker_edge import Answer
from ami_engine.execution.order_state import Order, Trigger

__all__ = ["OrderTable", "Place", "Working"]

# A request may be on its way this long: only then does "the venue knows nothing of it" prove anything.
_SETTLE_MS = 5_000
# Looking an order up blocks the loop for a round trip: never more often than this.
_MIN_LOOKUP_MS = 100
# Closed orders whose late fills and repeats are still recognised.
_CLOSED_KEPT = 1_024

_CLOSING_TRIGGERS = {
    OrderStatus.CANCELED: Trigger.CANCELED,
    OrderStatus.EXPIRED: Trigger.EXPIRED,
    OrderStatus.REJECTED: Trigger.REJECTED,
}


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

    __slots__ = ("asked_ms", "is_said_gone", "lookup_ms", "order", "place", "placed_ms", "ticks", "trade_ids")

    def __init__(self, order: Order, place: Place, ticks: int, now_ms: int) -> None:
        self.order = order
        self.place = place
        self.ticks = ticks
        self.placed_ms = now_ms
        self.asked_ms = -inf  # when a cancel was last asked
        self.lookup_ms: float = now_ms  # no lookup before
        self.is_said_gone = False  # the venue answered a cancel with "nothing to cancel"
        self.trade_ids: set[str] = set()


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
    """

    def __init__(
        self,
        broker: Broker,
        *,
        retry_ms: float,
        audit: AuditSink | None,
        halts_on_strangers: bool,
        on_change: Callable[[Working, bool], None],
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
        self._retry_ms = retry_ms
        self._lookup_every_ms = max(retry_ms, _MIN_LOOKUP_MS)
        self._audit = audit
        self._halts_on_strangers = halts_on_strangers
        self._on_change = on_change
        self._closed: OrderedDict[str, Working] = OrderedDict()
        self._unsettled: dict[str, Working] = {}
        self._next_lookup_ms = inf  # no unsettled order is looked up before
        self._unknown_trades: OrderedDict[tuple[str, str], None] = OrderedDict()

    # Requests. ----------------------------------------------------------------------------------------------------

    def send(self, place: Place, request: SubmitOrder, ticks: int, tally: Tally) -> None:
        """Place an order.

        Raises
        ------
        DuplicateOrderId
            When its id was used before.
        InvalidTransition
            When the place is taken.
        """
        order_id = request.client_order_id
        if order_id in self.live or order_id in self._closed:
            raise DuplicateOrderId(
                f"client order id {order_id} was used before: a step of {request.market_id!r} came twice"
            )
        if place.working is not None:
            raise InvalidTransition(f"{place.side.value} of {place.market_id!r} is taken by {place.working.order}")
        order = Order.from_submit(request).after(Trigger.SUBMIT_SENT)
        working = place.working = self.live[order_id] = Working(order, place, ticks, self.now_ms)
        self._count_live(place.market_id, 1)
        tally.submitted += 1
        self.record("order_submitted", order=request)
        reply = broker_edge.submit(self.broker, request)
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
        self._replace(working, working.order.after(trigger, venue_order_id=venue_order_id))

    def _replace(self, working: Working, order: Order, *, is_fill: bool = False) -> None:
        working.order = order
        order_id = order.client_order_id
        if not order.is_open and self.live.pop(order_id, None) is not None:
            working.place.working = None
            self._count_live(working.place.market_id, -1)
            self._unsettled.pop(order_id, None)
            self._closed[order_id] = working
            if len(self._closed) > _CLOSED_KEPT:
                self._closed.popitem(last=False)
        self._on_change(working, is_fill)

    def _count_live(self, market_id: str, change: int) -> None:
        count = self.live_in.get(market_id, 0) + change
        if count:
            self.live_in[market_id] = count
        else:
            del self.live_in[market_id]
        self.touched.add(market_id)

    # Fills. -------------------------------------------------------------------------------------------------------

    def collect(self) -> None:
        """Read the broker's fills and fold them; new ones wait in `fills`."""
        found, error = broker_edge.read_fills(self.broker, self.now_ms)
        if error:
            self.news = self.news or Tally()
            self.news.fail(error)
            self.record("fills_unavailable", error=error)
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
            self.halt(str(error))
            return True
        self._replace(working, filled, is_fill=True)
        return True

    def _fold_unknown(self, fill: Fill) -> bool:
        key = (fill.client_order_id, fill.trade_id)
        if key in self._unknown_trades:
            self.duplicate_fills += 1
            return False
        self._unknown_trades[key] = None
        if len(self._unknown_trades) > _CLOSED_KEPT:
            self._unknown_trades.popitem(last=False)
        if self._halts_on_strangers:
            self.record("fill_of_unknown_order", fill=fill)
            self.halt(f"trade {fill.trade_id} belongs to order {fill.client_order_id!r}, which is not ours")
        return True

    # Doubts. ------------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Ask the venue about the orders whose state is not sure, each now and then."""
        if self.now_ms < self._next_lookup_ms:
            return
        due = [w for w in self._unsettled.values() if self.now_ms >= w.lookup_ms]
        for working in due:
            working.lookup_ms = self.now_ms + self._lookup_every_ms
        self._next_lookup_ms = min((w.lookup_ms for w in self._unsettled.values()), default=inf)
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

    def _watch(self, working: Working) -> None:
        working.lookup_ms = self.now_ms + self._lookup_every_ms
        self._next_lookup_ms = min(self._next_lookup_ms, working.lookup_ms)
        self._unsettled[working.order.client_order_id] = working

    def _listed_orders(self) -> dict[str, OrderReport] | None:
        """Return the live orders that the broker's state lists, None when it does not say."""
        state, error = broker_edge.read_state(self.broker)
        found: dict[str, OrderReport] = {}
        for entry in state.get("open_orders") or ():
            try:
                report = broker_edge.open_order_of(entry)
            except VenueProtocolError as broken:
                error = str(broken)
            else:
                found[report.client_order_id] = report
        if error:
            self.record("lookup_failed", error=error)
        return None if error or state.get("open_orders") is None else found

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
        if self.now_ms - max(working.placed_ms, working.asked_ms) < _SETTLE_MS:
            return
        if working.order.status is OrderStatus.INITIALIZED:
            if is_answer:
                self._advance(working, Trigger.REJECTED)
        elif working.place.is_closing:
            self._advance(working, Trigger.EXPIRED)  # an IOC does not live this long
        elif is_answer or working.is_said_gone:
            self._advance(working, Trigger.CANCELED)

    def _hear_known(self, working: Working, report: OrderReport) -> None:
        if working.order.status is OrderStatus.INITIALIZED and report.status is not OrderStatus.REJECTED:
            self._advance(working, Trigger.ACCEPTED, report.venue_order_id)
        order = working.order
        # Invariant: an order is not closed while fills of it are still to come, or an EXIT would be sized without them.
        if report.status is OrderStatus.FILLED or order.is_behind(report.filled_qty):
            return
        closing = _CLOSING_TRIGGERS.get(report.status)
        if closing is not None:
            self._advance(working, closing)
            return
        if order.request is RequestState.CANCEL:
            self._advance(working, Trigger.CANCEL_REFUSED)  # still live: to be asked again
        if not working.place.is_closing:
            self._unsettled.pop(order.client_order_id, None)

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
