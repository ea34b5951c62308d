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
    it" proves something, infinite where the venue cannot expire requests. `denials`: how often that was said since.
    """

    client_order_id: str
    market_id: str
    side: Side
    leaves_qty: float
    is_closing: bool
    believed_ns: float = 0.0
    denials: int = 0

    @property
    def is_in_doubt(self) -> bool:
        return self.believed_ns > 0.0


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

    def deny(self, order: Resting) -> bool:
        """The venue knows nothing of an order: return True when that ends it.

        For an order in doubt it does when it is said for the second time after the request can no longer arrive.
        """
        if order.is_in_doubt:
            if self._clock.now_ns() < order.believed_ns:
                return False
            if not order.denials:
                self._orders[order.client_order_id] = order._replace(denials=1)
                return False
        self.end(order.client_order_id)
        return True

    def hear_listing(self, live: AbstractSet[str]) -> None:
        """The venue listed these: they are in doubt no more."""
        for name in live & self._orders.keys():
            self._orders[name] = self._orders[name]._replace(believed_ns=0.0, denials=0)

    def hear_sweep(self, swept: list[Resting], count: int) -> list[Resting]:
        """The venue cancelled `count` orders where these were thought to be; return those not accounted for."""
        known = [order for order in swept if not order.is_in_doubt]
        if count < len(known):
            return swept
        for order in known if count < len(swept) else swept:
            self.end(order.client_order_id)
        return [] if count >= len(swept) else [o for o in swept if o.is_in_doubt and not self.deny(o)]

    def fill(self, fill: Fill) -> None:
        """Hear of a fill."""
        order = self._orders.get(fill.client_order_id)
        if order is None:
            return
        left = order.leaves_qty - fill.qty
        if left > _REL_TOL * fill.qty:
            self._orders[fill.client_order_id] = order._replace(leaves_qty=left, believed_ns=0.0, denials=0)
        else:
            self.end(fill.client_order_id)
