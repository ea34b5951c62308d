"""The life of an order: what may follow what. Every rule about an order's state is in this file and in no other.

Theory
------
An order has two small axes instead of one large one.

``status`` is the venue's last word (the names of FIX tag 39). ``request`` is what we asked and have not heard about:
NONE, SUBMIT or CANCEL. A refused cancel therefore needs no memory: ``request`` clears and ``status`` never moved.

A reply that is lost or cannot be read (timeout, disconnect) leaves ``request`` outstanding and marks it ambiguous: the
order is *in doubt*. That is a cue to ask the venue, never a rejection. A submit in doubt may be cancelled; its request
stays SUBMIT until the venue has said a word about the order, because "nothing to cancel" does not prove that nothing is
on its way.

Venues report fills after they confirmed a cancel: such a late fill is taken, and the order stays closed. Filled
quantity never falls and a closed order never reopens.

What the tables do not list is an error, split by who caused it: what the venue reports raises `VenueProtocolError`,
what we ask raises `InvalidTransition`. A fill is classed as partial or whole before the lookup, and a trade id that was
already seen is dropped before that, by whoever reads the venue.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from ami_engine.errors import InvalidTransition, VenueProtocolError
from ami_engine.events import OrderStatus, RequestState, Side, SubmitOrder, TimeInForce

__all__ = ["OPEN_STATUSES", "REQUESTS", "TRANSITIONS", "VENUE_TRIGGERS", "Order", "Trigger"]


class Trigger(StrEnum):
    """What can happen to an order: first the venue's reports, then our requests and what became of them."""

    ACCEPTED = "accepted"
    PARTIAL_FILL = "partial_fill"
    FILL = "fill"
    CANCELED = "canceled"
    EXPIRED = "expired"
    REJECTED = "rejected"

    SUBMIT_SENT = "submit_sent"
    CANCEL_SENT = "cancel_sent"
    CANCEL_REFUSED = "cancel_refused"
    REPLY_LOST = "reply_lost"


_S, _R, _T = OrderStatus, RequestState, Trigger

VENUE_TRIGGERS = (_T.ACCEPTED, _T.PARTIAL_FILL, _T.FILL, _T.CANCELED, _T.EXPIRED, _T.REJECTED)

# The tables. ------------------------------------------------------------------------------------------------------

TRANSITIONS: dict[OrderStatus, dict[Trigger, OrderStatus]] = {
    _S.INITIALIZED: {
        _T.ACCEPTED: _S.NEW,
        _T.PARTIAL_FILL: _S.PARTIALLY_FILLED,  # a fill may overtake its ack
        _T.FILL: _S.FILLED,
        _T.CANCELED: _S.CANCELED,
        _T.EXPIRED: _S.EXPIRED,
        _T.REJECTED: _S.REJECTED,
    },
    _S.NEW: {
        _T.PARTIAL_FILL: _S.PARTIALLY_FILLED,
        _T.FILL: _S.FILLED,
        _T.CANCELED: _S.CANCELED,
        _T.EXPIRED: _S.EXPIRED,
    },
    _S.PARTIALLY_FILLED: {
        _T.ACCEPTED: _S.PARTIALLY_FILLED,  # late ack
        _T.PARTIAL_FILL: _S.PARTIALLY_FILLED,
        _T.FILL: _S.FILLED,
        _T.CANCELED: _S.CANCELED,
        _T.EXPIRED: _S.EXPIRED,
    },
    _S.CANCELED: {
        _T.PARTIAL_FILL: _S.CANCELED,  # late fill: it crossed the cancel on the wire
        _T.FILL: _S.FILLED,
    },
    _S.EXPIRED: {
        _T.PARTIAL_FILL: _S.EXPIRED,  # late fill
        _T.FILL: _S.FILLED,
    },
    _S.FILLED: {
        _T.ACCEPTED: _S.FILLED,  # late ack
    },
    _S.REJECTED: {},
}
"""The venue's axis: status × venue trigger → status. An absent entry is the venue's error."""

REQUESTS: dict[RequestState, dict[Trigger, RequestState]] = {
    _R.NONE: {
        _T.SUBMIT_SENT: _R.SUBMIT,
        _T.CANCEL_SENT: _R.CANCEL,
        _T.CANCEL_REFUSED: _R.NONE,  # the order closed first
        _T.REPLY_LOST: _R.NONE,  # what was asked is known from elsewhere by now
        **dict.fromkeys(VENUE_TRIGGERS, _R.NONE),
    },
    _R.SUBMIT: {
        _T.CANCEL_SENT: _R.SUBMIT,  # a cancel does not answer the submit
        _T.CANCEL_REFUSED: _R.SUBMIT,
        _T.REPLY_LOST: _R.SUBMIT,
        **dict.fromkeys(VENUE_TRIGGERS, _R.NONE),
    },
    _R.CANCEL: {
        _T.CANCEL_SENT: _R.CANCEL,  # asked again: cancels are safe to repeat
        _T.CANCEL_REFUSED: _R.NONE,
        _T.REPLY_LOST: _R.CANCEL,
        _T.ACCEPTED: _R.CANCEL,  # late ack of the submit
        _T.PARTIAL_FILL: _R.CANCEL,
        _T.FILL: _R.NONE,
        _T.CANCELED: _R.NONE,
        _T.EXPIRED: _R.NONE,
        _T.REJECTED: _R.NONE,
    },
}
"""Our axis: request × trigger → request. An absent entry is our error."""

OPEN_STATUSES = frozenset({_S.INITIALIZED, _S.NEW, _S.PARTIALLY_FILLED})

_MAY_ASK: dict[Trigger, frozenset[OrderStatus]] = {
    _T.SUBMIT_SENT: frozenset({_S.INITIALIZED}),
    _T.CANCEL_SENT: OPEN_STATUSES,
}
_ALL_STATUSES = frozenset(OrderStatus)

# The code. --------------------------------------------------------------------------------------------------------

# Venues add up fills in decimal, we in binary: this share of the order's size is rounding, not an overfill.
_QTY_REL_TOL = 1e-9


class Order(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One order as it is known now. Immutable: `after` returns the next one.

    Parameters
    ----------
    client_order_id, market_id : str
        Our name for the order, and its market.
    side : Side
        BUY or SELL.
    price : float
        Limit price, quote currency.
    qty : float
        Size, base units or contracts, > 0.
    post_only, reduce_only : bool
        As in `SubmitOrder`.
    tif : TimeInForce
        GTC rests, IOC lives for one instant.
    status : OrderStatus
        The venue's last word.
    request : RequestState
        What we asked and have not heard about.
    is_ambiguous : bool
        True when the reply to the outstanding request was lost.
    filled_qty : float
        Sum of the fills, never falling.
    avg_price : float
        Mean price of the fills, 0 when there are none.
    venue_order_id : str
        The venue's name for the order, empty while unknown.

    Examples
    --------
    >>> order = Order(client_order_id="a1", market_id="X", side=Side.BUY, price=99.0, qty=2.0)
    >>> order = order.after(Trigger.SUBMIT_SENT).after(Trigger.REPLY_LOST)
    >>> order.in_doubt, order.status.value
    (True, 'INITIALIZED')
    >>> order = order.after(Trigger.ACCEPTED).filled(price=99.0, qty=0.5)
    >>> order.status.value, order.leaves_qty, order.in_doubt
    ('PARTIALLY_FILLED', 1.5, False)
    """

    client_order_id: str
    market_id: str
    side: Side
    price: float
    qty: float
    post_only: bool = False
    reduce_only: bool = False
    tif: TimeInForce = TimeInForce.GTC
    status: OrderStatus = OrderStatus.INITIALIZED
    request: RequestState = RequestState.NONE
    is_ambiguous: bool = False
    filled_qty: float = 0.0
    avg_price: float = 0.0
    venue_order_id: str = ""

    @classmethod
    def from_submit(cls, submit: SubmitOrder) -> Order:
        """Return the order that `submit` asks for, before it is sent."""
        return cls(
            client_order_id=submit.client_order_id,
            market_id=submit.market_id,
            side=submit.side,
            price=submit.price,
            qty=submit.qty,
            post_only=submit.post_only,
            reduce_only=submit.reduce_only,
            tif=submit.tif,
        )

    def to_submit(self, expires_ns: int = 0) -> SubmitOrder:
        """Return the request that asks for this order, for a second sending."""
        return SubmitOrder(
            client_order_id=self.client_order_id,
            market_id=self.market_id,
            side=self.side,
            price=self.price,
            qty=self.qty,
            post_only=self.post_only,
            reduce_only=self.reduce_only,
            tif=self.tif,
            expires_ns=expires_ns,
        )

    @property
    def is_open(self) -> bool:
        """True while the order may be live at the venue, as far as is known."""
        return self.status in OPEN_STATUSES

    @property
    def in_doubt(self) -> bool:
        """True while the outcome of an outstanding request is unknown."""
        return self.is_ambiguous and self.request is not _R.NONE

    @property
    def leaves_qty(self) -> float:
        """Size that may still fill: 0 once the order is closed."""
        return self.qty - self.filled_qty if self.status in OPEN_STATUSES else 0.0

    @property
    def exposed_qty(self) -> float:
        """Size that counts toward worst-case exposure: all of an order in doubt, else what is left of it."""
        return self.qty if self.in_doubt else self.leaves_qty

    def is_behind(self, filled_qty: float) -> bool:
        """True when the venue says that more was filled than the fills that are known."""
        return filled_qty - self.filled_qty > _QTY_REL_TOL * self.qty

    def fill_trigger(self, qty: float) -> Trigger:
        """Class a fill of `qty` as partial or whole.

        Raises
        ------
        VenueProtocolError
            When it would fill more than was ordered, or `qty` is not above 0.
        """
        if not qty > 0.0:
            raise VenueProtocolError(f"`qty` of a fill of order {self.client_order_id} must be > 0, was {qty!r}")
        excess = self.filled_qty + qty - self.qty
        tolerance = _QTY_REL_TOL * self.qty
        if excess > tolerance:
            raise VenueProtocolError(
                f"overfill of order {self.client_order_id}: {self.qty!r} ordered,"
                f" {self.filled_qty!r} filled, then {qty!r}"
            )
        return _T.FILL if excess >= -tolerance else _T.PARTIAL_FILL

    def filled(self, *, price: float, qty: float) -> Order:
        """Return the order after a fill of `qty` at `price`, classed as partial or whole.

        Raises
        ------
        VenueProtocolError
            When the fill is more than was ordered, or the order's status allows none.
        """
        return self.after(self.fill_trigger(qty), fill_price=price, fill_qty=qty)

    def after(
        self, trigger: Trigger, *, fill_price: float = 0.0, fill_qty: float = 0.0, venue_order_id: str = ""
    ) -> Order:
        """Return the order after `trigger`.

        Parameters
        ----------
        trigger : Trigger
            What happened.
        fill_price, fill_qty : float
            The fill, for PARTIAL_FILL and FILL.
        venue_order_id : str
            The venue's name for the order, where this event brings it.

        Raises
        ------
        VenueProtocolError
            When the venue reports what the status does not allow.
        InvalidTransition
            When we ask what the status does not allow, or class a fill wrongly.
        """
        status = self._status_after(trigger)
        request = self._request_after(trigger)
        filled_qty, avg_price = self.filled_qty, self.avg_price
        if trigger is _T.PARTIAL_FILL or trigger is _T.FILL:
            if self.fill_trigger(fill_qty) is not trigger:
                raise InvalidTransition(
                    f"order {self.client_order_id}: a fill of {fill_qty!r} is not a {trigger.value}"
                )
            filled_qty = self.qty if trigger is _T.FILL else filled_qty + fill_qty
            avg_price += (fill_price - avg_price) * (fill_qty / (self.filled_qty + fill_qty))
        return msgspec.structs.replace(
            self,
            status=status,
            request=request,
            is_ambiguous=request is not _R.NONE and (self.is_ambiguous or trigger is _T.REPLY_LOST),
            filled_qty=filled_qty,
            avg_price=avg_price,
            venue_order_id=venue_order_id or self.venue_order_id,
        )

    def _status_after(self, trigger: Trigger) -> OrderStatus:
        if trigger in VENUE_TRIGGERS:
            status = TRANSITIONS[self.status].get(trigger)
            if status is None:
                raise VenueProtocolError(
                    f"order {self.client_order_id} is {self.status.value}: the venue must not report {trigger.value!r}"
                )
            return status
        if self.status not in _MAY_ASK.get(trigger, _ALL_STATUSES):
            raise InvalidTransition(
                f"order {self.client_order_id} is {self.status.value}: {trigger.value!r} is not allowed"
            )
        return self.status

    def _request_after(self, trigger: Trigger) -> RequestState:
        request = REQUESTS[self.request].get(trigger)
        if request is None:
            raise InvalidTransition(
                f"order {self.client_order_id} awaits {self.request.value}: {trigger.value!r} is not allowed"
            )
        return request
