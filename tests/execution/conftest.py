"""A small venue of its own, as a user would write one: orders rest, fills are made by the test, replies can be lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ami_engine.adapters.base import Broker
from ami_engine.errors import VenueRejected
from ami_engine.events import Fill, OrderReport, OrderStatus, SubmitOrder, TimeInForce


class Venue(Broker):
    """A venue that does what it is told, unless told to misbehave.

    `submit_plan` and `cancel_plan` hold, for each next request, an exception to raise (after it took effect when
    `lost_takes_effect`), or None for a plain reply.
    """

    def __init__(self) -> None:
        self.orders: dict[str, SubmitOrder] = {}
        self.log: list[tuple[str, Any]] = []
        self.resting: dict[str, SubmitOrder] = {}
        self.fills: list[Any] = []
        self.submit_plan: list[Exception | None] = []
        self.cancel_plan: list[Exception | bool | None] = []
        self.lost_takes_effect = False
        self.positions: dict[str, float] = {}
        self.trades = 0
        self.left: dict[str, float] = {}

    def submit_order(self, order: SubmitOrder) -> str | None:
        self.log.append(("submit", order))
        outcome = self.submit_plan.pop(0) if self.submit_plan else None
        if outcome is None or (self.lost_takes_effect and not isinstance(outcome, VenueRejected)):
            self.orders[order.client_order_id] = order
            if order.tif is TimeInForce.GTC:
                self.resting[order.client_order_id] = order
        if outcome is not None:
            raise outcome
        return f"v-{len(self.orders)}"

    def cancel_order(self, order_id: str) -> bool:
        self.log.append(("cancel", order_id))
        outcome = self.cancel_plan.pop(0) if self.cancel_plan else None
        if isinstance(outcome, bool):
            return outcome
        if outcome is None or self.lost_takes_effect:
            found = self.resting.pop(order_id, None) is not None
        if outcome is not None:
            raise outcome
        return found

    def process_fills(self, now_ms: int) -> list[Any]:
        fills, self.fills = self.fills, []
        return fills

    # What the tests use. -----------------------------------------------------------------------------------------

    def fill(self, order: SubmitOrder, qty: float | None = None, price: float | None = None) -> Fill:
        """Fill a resting or immediate order, all that is left of it when no quantity is named."""
        self.trades += 1
        left = self.left.get(order.client_order_id, order.qty)
        done = left if qty is None else qty
        self.left[order.client_order_id] = left - done
        fill = Fill(
            trade_id=f"t{self.trades}",
            client_order_id=order.client_order_id,
            market_id=order.market_id,
            side=order.side,
            price=order.price if price is None else price,
            qty=done,
        )
        self.fills.append(fill)
        if qty is None:
            self.resting.pop(order.client_order_id, None)
        return fill

    def take_log(self) -> list[tuple[str, Any]]:
        log, self.log = self.log, []
        return log

    def submitted(self) -> list[SubmitOrder]:
        return [entry for kind, entry in self.log if kind == "submit"]


class LookupVenue(Venue):
    """A venue that can also be asked about an order."""

    def __init__(self) -> None:
        super().__init__()
        self.reports: dict[str, OrderReport] = {}

    def fetch_order(self, client_order_id: str) -> OrderReport | None:
        self.log.append(("fetch", client_order_id))
        if client_order_id in self.reports:
            return self.reports[client_order_id]
        order = self.orders.get(client_order_id)
        if order is None:
            return None
        status = OrderStatus.NEW if client_order_id in self.resting else OrderStatus.CANCELED
        return OrderReport(
            client_order_id=client_order_id,
            market_id=order.market_id,
            side=order.side,
            price=order.price,
            qty=order.qty,
            status=status,
        )


class ListingVenue(Venue):
    """A venue that says what it holds and what rests."""

    def get_state(self) -> dict[str, Any]:
        return {"positions": dict(self.positions), "open_orders": list(self.resting.values()), "cash": 0.0}


@pytest.fixture
def venue() -> Venue:
    return Venue()


@pytest.fixture
def lookup_venue() -> LookupVenue:
    return LookupVenue()


@pytest.fixture
def listing_venue() -> ListingVenue:
    return ListingVenue()


@pytest.fixture(scope="session")
def new_venue() -> Callable[[], Venue]:
    return Venue
