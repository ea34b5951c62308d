"""Orders of a run that was stepped by the compiled core, brought into an `OrderManager` that goes on from there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Any, NamedTuple

from ami_engine.events import OrderStatus, Side, SubmitOrder, TimeInForce
from ami_engine.execution.order_manager import OrderManager
from ami_engine.execution.order_state import Order
from ami_engine.execution.order_table import Place, Working

__all__ = ["ENDS", "OrderTold", "restore_orders"]

# The core's `OrderEnd`s; an open order's status follows from what is filled of it.
ENDS = (OrderStatus.NEW, OrderStatus.FILLED, OrderStatus.CANCELED, OrderStatus.EXPIRED, OrderStatus.REJECTED)
_EXIT_PLACE = 2


class OrderTold(NamedTuple):
    """An order as the core tells of it; `venue_number` is 0 where the venue gave none."""

    place: int
    is_buy: bool
    post_only: bool
    end: int
    price: float
    qty: float
    filled_qty: float
    avg_price: float
    ticks: int
    placed_ms: int
    step: int
    venue_number: int

    @property
    def side(self) -> Side:
        """BUY or SELL."""
        return Side.BUY if self.is_buy else Side.SELL

    @property
    def is_closing(self) -> bool:
        """True for the order that closes the position."""
        return self.place == _EXIT_PLACE

    def request(self, client_order_id: str, market_id: str, size_usd: float) -> SubmitOrder:
        """Return the request that placed it."""
        return SubmitOrder(
            client_order_id=client_order_id,
            market_id=market_id,
            side=self.side,
            price=self.price,
            qty=self.qty,
            size_usd=size_usd,
            post_only=self.post_only,
            reduce_only=self.is_closing,
            tif=TimeInForce.IOC if self.is_closing else TimeInForce.GTC,
        )


def restore_orders(
    manager: OrderManager,
    market_id: str,
    told: Mapping[str, Any],
    *,
    order_id: Callable[[int, bool], str],
    trade_ids: Mapping[tuple[int, bool], set[str]],
    now_ms: int,
) -> None:
    """Bring the orders of one market into a manager that has none yet.

    Parameters
    ----------
    manager : OrderManager
        Fresh: nothing was ever sent through it.
    market_id : str
        The market.
    told : mapping
        What the core's `Stepper.orders` returns.
    order_id : callable
        Client order id of the order that a step placed on a side (True: a buy).
    trade_ids : mapping
        Trades by step and side of the order that they filled.
    now_ms : int
        Time of the last decision, ms.
    """
    market, table = manager._open_market(market_id), manager._table
    table.now_ms = now_ms
    manager._is_stopped = told["is_stopped"]
    if manager._max_replacements:
        market.replaced_ms.extend(told["replaced_ms"])
    for side, step in zip((Side.BUY, Side.SELL), told["last_sent"], strict=True):
        if step >= 0:
            market.last_sent[side] = (step, 0)

    def working_of(given: OrderTold, place: Place) -> Working:
        request = given.request(order_id(given.step, given.is_buy), market_id, 0.0)
        status = ENDS[given.end]
        if status is OrderStatus.NEW and given.filled_qty:
            status = OrderStatus.PARTIALLY_FILLED
        values = {name: getattr(request, name) for name in _COPIED}
        order = Order(
            **values,
            status=status,
            filled_qty=given.filled_qty,
            avg_price=given.avg_price,
            venue_order_id=f"P{given.venue_number}" if given.venue_number else "",
        )
        working = Working(order, place, given.ticks, given.placed_ms)
        working.trade_ids = set(trade_ids.get((given.step, given.is_buy), ()))
        return working

    places = (market.bid, market.ask, market.exit)
    for values in told["closed"]:
        given = OrderTold(*values)
        closed = working_of(given, places[given.place])
        table._closed[closed.order.client_order_id] = closed
        if given.is_closing:
            market.exit.side = given.side
    live = []
    for place, (is_live, values, lookup_ms, blocked_until_ms) in zip(places, told["places"], strict=True):
        place.blocked_until_ms = blocked_until_ms
        if is_live:
            place.working = working_of(OrderTold(*values), place)
            place.side = place.working.order.side
            live.append((OrderTold(*values).venue_number, place.working))
            if place.is_closing:
                # Nobody tells when an IOC ended without a fill.
                place.working.lookup_ms = lookup_ms
                table._unsettled[place.working.order.client_order_id] = place.working
                table.next_lookup_ms = min(table.next_lookup_ms, lookup_ms)
    for _, working in sorted(live, key=lambda each: each[0]):
        table.live[working.order.client_order_id] = working
        table._count_live(market_id, 1)
    market.add_up_exposure()
    _restore_calm(market, told["calm"])


_COPIED = ("client_order_id", "market_id", "side", "price", "qty", "post_only", "reduce_only", "tif")


def _restore_calm(market: Any, calm: tuple[Any, ...]) -> None:
    """Bring in the bounds within which quotes need no change."""
    until_ms, market.is_bid_off, market.is_ask_off, market.post_only, *bounds = calm
    market.bid_low, market.bid_high, market.ask_low, market.ask_high = bounds
    market.calm_until_ms = until_ms
    if until_ms > -inf:
        market.bid_price = market.bid.working.order.price if market.bid.working else 0.0
        market.ask_price = market.ask.working.order.price if market.ask.working else 0.0
