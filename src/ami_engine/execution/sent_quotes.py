"""What a one-shot executor sent and does not know to have ended, and until when a denial proves nothing."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from math import inf
from typing import NamedTuple

from ami_engine.clock import Clock
from ami_engine.events import Fill, Side, SubmitOrder

__all__ = ["Resting", "SentQuotes"]

# Sums of binary sizes: this share of what is compared is rounding.
_REL_TOL = 1e-9


class Resting(NamedTuple):
    """An order that is live, or may be.

    `believed_ns`: 0 for an order that the venue answered for; for one in doubt, the time from which "I know nothing of
    it" proves something, infinite where the venue cannot expire requests. `denied`: the decision in which that was said
    first since, 0 before.
    """

    client_order_id: str
    market_id: str
    side: Side
    leaves_qty: float
    is_closing: bool
    believed_ns: float = 0.0
    denied: int = 0

    @property
    def is_in_doubt(self) -> bool:
        return self.believed_ns > 0.0

    @property
    def expires(self) -> bool:
        """Whether the venue takes it no more some day."""
        return self.believed_ns < inf


class SentQuotes:
    """Quotes that were sent and are not known to have ended.

    Parameters
    ----------
    clock : Clock
        Read only where an order is in doubt.
    settle_ns : int
        How long after its venue expiry a request may still be on its way.
    """

    def __init__(self, clock: Clock, settle_ns: int) -> None:
        self._clock = clock
        self._settle_ns = settle_ns
        self._orders: dict[str, Resting] = {}
        self._decision = 0

    def all(self, market_id: str | None = None) -> list[Resting]:
        """Return the quotes of a market, or of all."""
        return [o for o in self._orders.values() if market_id in (None, o.market_id)]

    def add(self, order: SubmitOrder, *, in_doubt: bool) -> None:
        """Remember a quote that was sent; `in_doubt`: the answer was lost, and it may arrive until it expires."""
        believed_ns = (order.expires_ns + self._settle_ns if order.expires_ns else inf) if in_doubt else 0.0
        resting = Resting(order.client_order_id, order.market_id, order.side, order.qty, False, believed_ns)
        self._orders[order.client_order_id] = resting

    def end(self, client_order_id: str) -> None:
        """The order is over."""
        self._orders.pop(client_order_id, None)

    def begin(self) -> None:
        """A decision begins: what it hears twice counts once."""
        self._decision += 1

    def may_arrive(self, order: Resting) -> bool:
        """Return whether the request of an order in doubt may still be on its way."""
        return self._clock.now_ns() < order.believed_ns

    def doubt(self, order: Resting) -> None:
        """What the venue says of an order does not fit together: denials prove nothing before this is settled."""
        if order.client_order_id in self._orders:
            believed_ns = float(self._clock.now_ns() + self._settle_ns)
            self._orders[order.client_order_id] = order._replace(believed_ns=believed_ns, denied=0)

    def deny(self, order: Resting) -> bool:
        """The venue knows nothing of an order: return True when that ends it.

        For an order in doubt it does when it is said again in a later decision, after the request can no longer arrive.
        """
        if order.is_in_doubt:
            if self.may_arrive(order):
                return False
            first = self._orders.get(order.client_order_id, order).denied
            if first in (0, self._decision):
                self._orders[order.client_order_id] = order._replace(denied=self._decision)
                return False
        self.end(order.client_order_id)
        return True

    def hear_listing(self, live: AbstractSet[str]) -> None:
        """The venue listed these: they are in doubt no more."""
        for name in live & self._orders.keys():
            self._orders[name] = self._orders[name]._replace(believed_ns=0.0, denied=0)

    def fill(self, fill: Fill) -> None:
        """Hear of a fill."""
        order = self._orders.get(fill.client_order_id)
        if order is None:
            return
        left = order.leaves_qty - fill.qty
        if left > _REL_TOL * fill.qty:
            self._orders[fill.client_order_id] = order._replace(leaves_qty=left, believed_ns=0.0, denied=0)
        else:
            self.end(fill.client_order_id)
