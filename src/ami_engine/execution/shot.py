"""One decision under way at a broker: the calls that it makes, what they prove, and the result they add up to."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import Any, NamedTuple

from ami_engine.adapters.base import Broker
from ami_engine.errors import VenueProtocolError
from ami_engine.events import SubmitOrder, TimeInForce
from ami_engine.execution import broker_edge
from ami_engine.execution.broker_edge import Answer, Reply
from ami_engine.execution.order_state import OPEN_STATUSES
from ami_engine.execution.sent_quotes import Resting, SentQuotes

__all__ = ["Shot", "View"]


class View(NamedTuple):
    """What the broker says of one market. `position` is None where it does not say."""

    orders: list[Resting]
    position: float | None
    is_listed: bool  # whether it says what rests
    is_unreadable: bool  # whether it could not be asked


class Shot:
    """One decision under way.

    Parameters
    ----------
    broker : Broker
        Where calls go.
    market_id : str
        The market of the decision.
    own : SentQuotes
        What earlier decisions sent.

    Attributes
    ----------
    result : dict
        As `Executor.run` returns it.
    """

    def __init__(self, broker: Broker, market_id: str, own: SentQuotes) -> None:
        self.broker = broker
        self.market_id = market_id
        self.own = own
        self.result: dict[str, Any] = {
            "submitted": 0,
            "canceled": 0,
            "rejected": 0,
            "in_doubt": 0,
            "errors": [],
            "halt": False,
        }
        self._can_cancel = broker_edge.supports(broker, "cancel_order")
        self._can_sweep = broker_edge.supports(broker, "cancel_all")
        self._can_ask = broker_edge.supports(broker, "fetch_order")
        own.begin()

    def fail(self, error: str, *, halt: bool = False) -> None:
        """Add an error; with `halt` the run has to stop."""
        self.result["errors"].append(error)
        self.result["halt"] = self.result["halt"] or halt

    def submit(self, order: SubmitOrder) -> None:
        """Send an order, and remember it where it may rest."""
        self.result["submitted"] += 1
        reply = broker_edge.submit(self.broker, order)
        if reply.answer is not Answer.REFUSED and order.tif is TimeInForce.GTC:
            self.own.add(order, in_doubt=reply.answer is Answer.LOST)
        if reply.answer is Answer.REFUSED:
            self.result["rejected"] += 1
        self._hear(reply)

    # Taking quotes off. ---------------------------------------------------------------------------------------------

    def clear(self, view: View) -> list[Resting]:
        """Take off what rests in the market; return what may still be live there, or arrive."""
        live = {order.client_order_id for order in view.orders} if view.is_listed else None
        return self._withdraw([*view.orders, *self._unlisted(live, self.market_id)], live, self.market_id)

    def cancel_all(self, market_id: str | None) -> bool:
        """Cancel the orders of a market, or of all: in one call where the broker has it, else one by one.

        Returns whether all that were known to rest are off. One in doubt is told, and holds nothing up.
        """
        listed: list[Resting] | None = None
        if not self._can_sweep:
            state, is_unreadable = self._state()
            if is_unreadable:
                return False
            listed = self._listed(state)
        if self._can_sweep or (listed is None and not self.own.all(market_id)):
            return self._sweep_all(market_id)
        live = None if listed is None else {order.client_order_id for order in listed}
        wanted = [o for o in listed or () if market_id in (None, o.market_id) and not o.is_closing]
        left = self._withdraw([*wanted, *self._unlisted(live, market_id)], live, market_id)
        return all(order.is_in_doubt for order in left)

    def _sweep_all(self, market_id: str | None) -> bool:
        count, error = broker_edge.sweep(self.broker, market_id)
        self.result["canceled"] += count
        if error:
            self.result["in_doubt"] += self._can_sweep
            self.fail(error, halt=not self._can_sweep)
            return False
        self._say_what_is_left([o for o in self.own.all(market_id) if not self._is_over(o, None, None, is_swept=True)])
        return True

    def _unlisted(self, live: set[str] | None, market_id: str | None) -> list[Resting]:
        if live is not None:
            self.own.hear_listing(live)
        return [order for order in self.own.all(market_id) if live is None or order.client_order_id not in live]

    def _withdraw(self, orders: list[Resting], live: set[str] | None, market_id: str | None) -> list[Resting]:
        """Cancel orders, one by one where the broker can; return those of which it is not known that they are over.

        Where nothing that the broker can do would ever tell it, quotes would be put on quotes without end: it halts.
        """
        replies: dict[str, Reply] = {}
        if self._can_cancel or not self._can_sweep:
            for order in orders:
                replies[order.client_order_id] = self._cancel(order)
        open_ = [o for o in orders if not _is(replies.get(o.client_order_id), Answer.DONE)]
        is_swept = False
        # An answer that is on its way, or that comes when asked again, is waited for.
        if self._can_sweep and any(_is_told(replies.get(order.client_order_id)) for order in open_):
            count, error = broker_edge.sweep(self.broker, market_id)
            self.result["canceled"] += count
            if error:
                self.fail(error)
            is_swept = not error
        left = [o for o in open_ if not self._is_over(o, replies.get(o.client_order_id), live, is_swept=is_swept)]
        stuck = [o for o in left if live is None and self._is_stuck(o, replies.get(o.client_order_id))]
        self._say_what_is_left([order for order in left if order not in stuck])
        if stuck:
            self.fail(f"quotes cannot be withdrawn, and may be live: {_named(stuck)}", halt=True)
        return left

    def _is_over(self, order: Resting, reply: Reply | None, live: set[str] | None, *, is_swept: bool) -> bool:
        """Return whether an order that was not cancelled just now is known to be over."""
        if is_swept and not order.is_in_doubt:  # whatever was at the venue is gone
            self.own.end(order.client_order_id)
            return True
        if live is not None and order.client_order_id in live:
            return False
        if not is_swept and reply is not None and not _is_told(reply):
            return False
        if self._can_ask:
            return self._is_said_over(order)
        if is_swept:
            return self.own.deny(order)
        if live is None:
            # That there is nothing to cancel: it was filled, or is still on its way here.
            return order.is_in_doubt and order.expires and _is_plain_no(reply) and self.own.deny(order)
        if reply is not None and not _is_plain_no(reply) and not order.is_in_doubt:
            # Refused for a reason of the venue's own, and a list may be older than the order.
            self.own.doubt(order)
            return False
        return self.own.deny(order)

    def _is_said_over(self, order: Resting) -> bool:
        report, error = broker_edge.fetch_report(self.broker, order.client_order_id)
        if error:
            self.fail(error)
            return False
        if report is None:
            return self.own.deny(order)
        if report.status in OPEN_STATUSES:
            return False
        self.own.end(order.client_order_id)
        return True

    def _is_stuck(self, order: Resting, reply: Reply | None) -> bool:
        """Return whether, where no list does, nothing will ever tell what became of an order."""
        if self._can_ask or self._can_sweep:
            return False
        if order.is_in_doubt and (self.own.may_arrive(order) or _is_plain_no(reply)) and order.expires:
            return False
        return _is_told(reply)

    def _say_what_is_left(self, orders: list[Resting]) -> None:
        if orders:
            self.fail(f"quotes may still be live, or arrive, and no other is put beside them: {_named(orders)}")

    def _cancel(self, order: Resting) -> Reply:
        reply = broker_edge.cancel(self.broker, order.client_order_id)
        if reply.answer is Answer.DONE:
            self.result["canceled"] += 1
            self.own.end(order.client_order_id)
        self._hear(reply)
        return reply

    def _hear(self, reply: Reply) -> None:
        if reply.answer is Answer.LOST:
            self.result["in_doubt"] += 1
        if reply.error:
            self.fail(reply.error, halt=reply.is_fatal)

    # What the broker says. ------------------------------------------------------------------------------------------

    def can_know(self) -> bool:
        """True when the broker itself can find out what rests; one that cannot has nothing to pull before a quote."""
        return self._can_sweep or self._state()[0].get("open_orders") is not None

    def read_view(self) -> View:
        """Ask the broker what it holds of the market, and what rests there."""
        state, is_unreadable = self._state()
        listed = self._listed(state)
        orders = [order for order in listed or () if order.market_id == self.market_id]
        position = None if is_unreadable else self._position(state)
        return View(orders, position, listed is not None, is_unreadable)

    def _state(self) -> tuple[dict[str, Any], bool]:
        state, error = broker_edge.read_state(self.broker)
        if error:
            self.fail(error)
        return state, bool(error)

    def _listed(self, state: dict[str, Any]) -> list[Resting] | None:
        entries: Iterable[object] | None = state.get("open_orders")
        if entries is None:
            return None
        orders = []
        for entry in entries:
            try:
                report = broker_edge.open_order_of(entry)
            except VenueProtocolError as broken:
                self.fail(str(broken), halt=True)
                continue
            leaves_qty, closes = report.qty - report.filled_qty, broker_edge.is_closing(entry)
            orders.append(Resting(report.client_order_id, report.market_id, report.side, leaves_qty, closes))
        return orders

    def _position(self, state: dict[str, Any]) -> float | None:
        positions = state.get("positions")
        if positions is None:
            return None
        try:
            position = float(positions.get(self.market_id, 0.0))
        except (AttributeError, TypeError, ValueError):
            position = float("nan")
        if isfinite(position):
            return position
        self.fail(f"the position of {self.market_id!r} must be a finite number, state was {positions!r}", halt=True)
        return 0.0


def _is(reply: Reply | None, answer: Answer) -> bool:
    return reply is not None and reply.answer is answer


def _is_told(reply: Reply | None) -> bool:
    """Return whether the venue answered that it did not cancel, or was not asked; a failure is no answer."""
    return reply is None or (reply.answer is Answer.REFUSED and not reply.is_failure)


def _is_plain_no(reply: Reply | None) -> bool:
    """Return whether the venue said that there is nothing to cancel."""
    return reply is not None and reply.answer is Answer.REFUSED and not reply.error


def _named(orders: list[Resting]) -> str:
    return ", ".join(f"{order.client_order_id} of {order.market_id!r}" for order in orders)
