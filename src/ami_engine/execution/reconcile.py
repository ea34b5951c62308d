"""What we believe against what the venue says: differences, what corrects them, and what nothing explains.

Pure: two views in, findings out. Every correction is an event for the one state machine, with its reason. A lost reply,
a lost fill, a request that is still under way explain most differences; what they do not explain is a contradiction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from decimal import Decimal
from enum import StrEnum
from math import inf, isfinite

import msgspec

from ami_engine.errors import VenueProtocolError
from ami_engine.events import Fill, OrderReport, OrderStatus, RequestState
from ami_engine.execution.order_state import Order, Trigger

__all__ = [
    "DENIALS_BELIEVED",
    "Correction",
    "Finding",
    "FindingKind",
    "LocalOrder",
    "LocalView",
    "Reconciliation",
    "VenueView",
    "reconcile",
    "trigger_of_silence",
    "triggers_of_report",
]

# So often must the venue say that it knows nothing: a replica that lags behind may say so once.
DENIALS_BELIEVED = 2
# Venues add up in decimal, we compare in binary.
_REL_TOL = 1e-9

_CLOSING = {
    OrderStatus.CANCELED: Trigger.CANCELED,
    OrderStatus.EXPIRED: Trigger.EXPIRED,
    OrderStatus.REJECTED: Trigger.REJECTED,
}


class FindingKind(StrEnum):
    """What was found. The first are differences that something lost explains, the others contradictions."""

    MISSED_FILL = "missed_fill"
    MISSED_REPORT = "missed_report"
    ABSENT = "absent"
    FILLS_BEHIND = "fills_behind"
    STRANGER = "stranger"

    FILL_DENIED = "fill_denied"
    FILLED_SHRANK = "filled_shrank"
    OTHER_ORDER = "other_order"
    LIVE_AFTER_END = "live_after_end"
    UNJOURNALED = "unjournaled"
    POSITION = "position"
    IMPOSSIBLE_FILL = "impossible_fill"


class LocalOrder(msgspec.Struct, frozen=True, gc=False):
    """An order that may be live, and since when it is unsure.

    `asked_ms` is since when it is unsure: sent, or first asked about; `expires_ms` until when the venue may take its
    submit (infinity: for ever); `denials` how often in a row the venue has said, this time included, that it knows
    nothing of it. `is_said_gone`: the venue answered a cancel with "nothing to cancel".
    """

    order: Order
    asked_ms: float
    expires_ms: float = inf
    is_closing: bool = False
    is_said_gone: bool = False
    denials: int = 0


class LocalView(msgspec.Struct, frozen=True):
    """What we believe.

    Parameters
    ----------
    now_ms, settle_ms : float
        Decision time, and how long requests may be under way and parts of the venue differ.
    orders : tuple of LocalOrder
        Those that may be live.
    closed : mapping of str to Order
        The last ones that are not, by client id.
    fills : tuple of Fill
        Those whose time lies in the window that the venue was asked for.
    has_fill : callable
        Tells whether a fill is known, however old.
    positions : mapping of str to Decimal
        Signed quantity by market, of all markets that were ever traded here.
    markets : set of str
        Those, and the ones that are to be traded.
    begun_ns : int
        When the journal begins: what the venue did before is not ours.
    is_ours : callable
        Tells by its form whether a client order id is one of ours.
    """

    now_ms: float
    settle_ms: float
    orders: tuple[LocalOrder, ...] = ()
    closed: Mapping[str, Order] = msgspec.field(default_factory=dict)
    fills: tuple[Fill, ...] = ()
    has_fill: Callable[[Fill], bool] = lambda fill: False
    positions: Mapping[str, Decimal] = msgspec.field(default_factory=dict)
    markets: Set[str] = frozenset()
    begun_ns: int = 0
    is_ours: Callable[[str], bool] = lambda client_order_id: False

    def is_stray(self, order_id: str, report: OrderReport) -> bool:
        """True for an order that is ours by its form, in a market of ours: its intent would be in the journal."""
        return self.is_ours(order_id) and (report.market_id in self.markets or report.market_id in self.positions)


class VenueView(msgspec.Struct, frozen=True):
    """What the venue says; None wherever it does not say.

    `reports` has the answers to questions about single orders: None is "I know nothing of it". `fills` are complete
    from `fills_since_ns` on.
    """

    open_orders: Mapping[str, OrderReport] | None = None
    reports: Mapping[str, OrderReport | None] = msgspec.field(default_factory=dict)
    fills: tuple[Fill, ...] | None = None
    fills_since_ns: int = 0
    positions: Mapping[str, float] | None = None


class Finding(msgspec.Struct, frozen=True):
    """One thing that was found. `subject` is the order's or trade's id, or the market."""

    kind: FindingKind
    subject: str
    text: str


class Correction(msgspec.Struct, frozen=True):
    """An event for the state machine: a fill that was missed, or a trigger; and why."""

    client_order_id: str
    reason: str
    fill: Fill | None = None
    trigger: Trigger | None = None
    venue_order_id: str = ""


class Reconciliation(msgspec.Struct, frozen=True):
    """What a comparison found, in the order in which the corrections are to be applied.

    `denied` names the orders of which the venue said that it knows nothing.
    """

    differences: tuple[Finding, ...] = ()
    corrections: tuple[Correction, ...] = ()
    contradictions: tuple[Finding, ...] = ()
    denied: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """True when both sides agree."""
        return not (self.differences or self.contradictions)


# What one answer means. -------------------------------------------------------------------------------------------


def triggers_of_report(order: Order, report: OrderReport) -> tuple[Trigger, ...]:
    """Return what the venue's word about an order makes of it, in order; nothing while fills are still to come.

    Examples
    --------
    >>> from ami_engine.events import Side
    >>> order = Order(client_order_id="a", market_id="X", side=Side.BUY, price=9.0, qty=1.0)
    >>> order = order.after(Trigger.SUBMIT_SENT).after(Trigger.REPLY_LOST)
    >>> report = OrderReport(client_order_id="a", market_id="X", side=Side.BUY, price=9.0, qty=1.0)
    >>> [trigger.value for trigger in triggers_of_report(order, report)]
    ['accepted']
    """
    triggers: list[Trigger] = []
    is_unheard = order.status is OrderStatus.INITIALIZED
    if is_unheard and report.status is not OrderStatus.REJECTED:
        triggers.append(Trigger.ACCEPTED)
        is_unheard = False
    # Invariant: an order is not closed while fills of it are still to come, or an EXIT would be sized without them.
    if report.status is OrderStatus.FILLED or order.is_behind(report.filled_qty):
        return tuple(triggers)
    closing = _CLOSING.get(report.status)
    if closing is not None:
        # Acknowledged by a gateway and refused by the market behind it: what was accepted can only end.
        is_late_refusal = closing is Trigger.REJECTED and not is_unheard
        triggers.append(Trigger.EXPIRED if is_late_refusal else closing)
    elif order.request is RequestState.CANCEL:
        triggers.append(Trigger.CANCEL_REFUSED)  # still live: to be asked again
    return tuple(triggers)


def trigger_of_silence(local: LocalOrder, now_ms: float, settle_ms: float, *, is_answer: bool) -> Trigger | None:
    """Return what it makes of an order that the venue knows nothing of it; None while that proves nothing.

    Parameters
    ----------
    local : LocalOrder
        The order.
    now_ms, settle_ms : float
        As in `LocalView`.
    is_answer : bool
        True when the venue was asked and denied it, False when it cannot be asked.
    """
    if now_ms - local.asked_ms < settle_ms:
        return None
    if local.order.status is OrderStatus.INITIALIZED:
        # Invariant: a request that may still arrive is not taken for lost. Without an expiry it always may.
        is_over = now_ms > local.expires_ms + settle_ms
        return Trigger.REJECTED if is_answer and is_over and local.denials >= DENIALS_BELIEVED else None
    if local.is_closing:
        return Trigger.EXPIRED  # an IOC does not live this long
    # That it was gone already when a cancel came is the venue's word too, and the only one where it knows no other.
    words = local.denials + local.is_said_gone
    return Trigger.CANCELED if words >= (DENIALS_BELIEVED if is_answer else 1) else None


# The whole comparison. --------------------------------------------------------------------------------------------


def reconcile(local: LocalView, venue: VenueView) -> Reconciliation:
    """Compare what we believe with what the venue says.

    A contradiction of one look may be two parts of the venue that differ for a moment: whoever halts on it looks twice.

    Examples
    --------
    >>> from ami_engine.events import Side
    >>> order = Order(client_order_id="a", market_id="X", side=Side.BUY, price=9.0, qty=1.0)
    >>> order = order.after(Trigger.SUBMIT_SENT).after(Trigger.ACCEPTED)
    >>> fill = Fill(trade_id="7", client_order_id="a", market_id="X", side=Side.BUY, price=9.0, qty=1.0)
    >>> local = LocalView(now_ms=10_000, settle_ms=5_000, orders=(LocalOrder(order, asked_ms=0),))
    >>> found = reconcile(local, VenueView(open_orders={}, fills=(fill,), positions={"X": 1.0}))
    >>> [correction.reason for correction in found.corrections], found.contradictions
    (['the venue lists trade 7, which was not heard of'], ())
    """
    findings = _Findings(local)
    if venue.fills is not None:
        findings.compare_fills(venue.fills, venue.fills_since_ns)
    for each in local.orders:
        findings.compare_order(each, venue)
    if venue.open_orders is not None:
        findings.compare_open(venue.open_orders)
    if venue.positions is not None:
        findings.compare_positions(venue.positions)
    return Reconciliation(
        tuple(findings.differences),
        tuple(findings.corrections),
        tuple(findings.contradictions),
        tuple(findings.denied),
    )


class _Findings:
    """A comparison under way."""

    def __init__(self, local: LocalView) -> None:
        self.differences: list[Finding] = []
        self.corrections: list[Correction] = []
        self.contradictions: list[Finding] = []
        self.denied: list[str] = []
        self._local = local
        # Orders and positions as they are once the fills that were missed are booked.
        self._orders = {each.order.client_order_id: each.order for each in local.orders}
        self._positions = dict(local.positions)

    def _differ(self, kind: FindingKind, subject: str, text: str) -> None:
        self.differences.append(Finding(kind, subject, text))

    def _contradict(self, kind: FindingKind, subject: str, text: str) -> None:
        self.contradictions.append(Finding(kind, subject, text))

    def compare_fills(self, fills: tuple[Fill, ...], since_ns: int) -> None:
        local = self._local
        listed = {_key(fill) for fill in fills}
        seen = set()
        for fill in fills:
            # A venue may list a fill twice.
            if fill.ts_ns < local.begun_ns or _key(fill) in seen or local.has_fill(fill):
                continue
            seen.add(_key(fill))
            text = f"the venue lists trade {fill.trade_id}, which was not heard of"
            self._differ(FindingKind.MISSED_FILL, fill.trade_id, text)
            self.corrections.append(Correction(fill.client_order_id, text, fill=fill))
            self._book(fill)
        for fill in local.fills:
            if fill.ts_ns >= since_ns and _key(fill) not in listed:
                text = f"the venue does not list trade {fill.trade_id} of order {fill.client_order_id}"
                self._contradict(FindingKind.FILL_DENIED, fill.trade_id, text)

    def _book(self, fill: Fill) -> None:
        held = self._positions.get(fill.market_id, Decimal(0))
        self._positions[fill.market_id] = held + Decimal(repr(fill.signed_qty))
        order_id = fill.client_order_id
        order = self._orders.get(order_id) or self._local.closed.get(order_id)
        if order is None:
            self._contradict(FindingKind.IMPOSSIBLE_FILL, fill.trade_id, f"order {order_id!r} is not ours")
            return
        try:
            filled = order.filled(price=fill.price, qty=fill.qty)
        except VenueProtocolError as error:
            self._contradict(FindingKind.IMPOSSIBLE_FILL, fill.trade_id, str(error))
            return
        if order_id in self._orders:
            self._orders[order_id] = filled

    def compare_order(self, each: LocalOrder, venue: VenueView) -> None:
        order_id = each.order.client_order_id
        order = self._orders[order_id]
        if not order.is_open:
            return  # the fills that were missed have closed it
        report = venue.reports.get(order_id)
        if report is None and venue.open_orders is not None:
            report = venue.open_orders.get(order_id)
        if report is None:
            if order_id in venue.reports or venue.open_orders is not None:
                self._compare_absent(each, order)
            return
        if report.side is not order.side or report.market_id != order.market_id or not _same(report.qty, order.qty):
            text = (
                f"order {order_id} is a {order.side.value} of {order.qty!r} {order.market_id!r} here,"
                f" a {report.side.value} of {report.qty!r} {report.market_id!r} there"
            )
            self._contradict(FindingKind.OTHER_ORDER, order_id, text)
            return
        if order.filled_qty - report.filled_qty > _REL_TOL * order.qty:
            text = f"order {order_id} has filled {order.filled_qty!r} here, {report.filled_qty!r} there"
            self._contradict(FindingKind.FILLED_SHRANK, order_id, text)
            return
        if order.is_behind(report.filled_qty):
            text = f"order {order_id} has filled {report.filled_qty!r} there, {order.filled_qty!r} here"
            self._differ(FindingKind.FILLS_BEHIND, order_id, text)
        for trigger in triggers_of_report(order, report):
            text = f"the venue says {report.status.value} of order {order_id}"
            self._differ(FindingKind.MISSED_REPORT, order_id, text)
            self.corrections.append(Correction(order_id, text, trigger=trigger, venue_order_id=report.venue_order_id))

    def _compare_absent(self, each: LocalOrder, order: Order) -> None:
        local, order_id = self._local, order.client_order_id
        now_ms, settle_ms = local.now_ms, local.settle_ms
        if now_ms - each.asked_ms < settle_ms:
            return  # too new to be missed
        if each.order.status is OrderStatus.INITIALIZED and order.status is not each.order.status:
            return  # this look's fill is the first word of it: what was said before it arrived is no word on its end
        self.denied.append(order_id)
        self._differ(FindingKind.ABSENT, order_id, f"the venue knows nothing of order {order_id}")
        asked = msgspec.structs.replace(each, order=order, denials=each.denials + 1)
        trigger = trigger_of_silence(asked, now_ms, settle_ms, is_answer=True)
        if trigger is not None:
            text = f"the venue said {asked.denials} times that it knows nothing of order {order_id}"
            self.corrections.append(Correction(order_id, text, trigger=trigger))

    def compare_open(self, open_orders: Mapping[str, OrderReport]) -> None:
        local = self._local
        for order_id, report in open_orders.items():
            ended = local.closed.get(order_id)
            if ended is not None:
                text = f"order {order_id} is {ended.status.value} here and live there"
                self._contradict(FindingKind.LIVE_AFTER_END, order_id, text)
            elif order_id not in self._orders:
                text = f"order {order_id} of {report.market_id!r} is live there and not known here"
                if local.is_stray(order_id, report):
                    self._contradict(FindingKind.UNJOURNALED, order_id, text)
                else:
                    self._differ(FindingKind.STRANGER, order_id, text)

    def compare_positions(self, positions: Mapping[str, float]) -> None:
        for market_id, held in self._positions.items():
            there = positions.get(market_id, 0.0)
            if not isfinite(there) or not _same(there, float(held)):
                text = f"the position of {market_id!r} is {held} by its fills, {there!r} at the venue"
                self._contradict(FindingKind.POSITION, market_id, text)


def _key(fill: Fill) -> tuple[str, str, str]:
    return fill.market_id, fill.trade_id, fill.client_order_id


def _same(one: float, other: float) -> bool:
    return abs(one - other) <= _REL_TOL * max(1e-3, abs(one), abs(other))
