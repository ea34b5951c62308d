"""Orders as the engine sends them, and what a venue reports about them."""

from __future__ import annotations

from typing import Any

import msgspec

from ami_engine.events.enums import Liquidity, OrderStatus, Side, TimeInForce

__all__ = ["Fill", "OrderAck", "OrderReport", "SubmitOrder"]


class SubmitOrder(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A request to place one order. `qty` is authoritative; `size_usd` is its value, derived.

    `expires_ns` > 0 is the venue expiry: a venue that takes one (`Broker.recv_window_ms`) must refuse the request when
    it arrives later, ns since the Unix epoch. 0 is none.
    """

    client_order_id: str
    market_id: str
    side: Side
    price: float
    qty: float
    size_usd: float = 0.0
    post_only: bool = False
    reduce_only: bool = False
    tif: TimeInForce = TimeInForce.GTC
    expires_ns: int = 0


class OrderAck(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The venue took an order. `venue_order_id` is empty where it gives none."""

    client_order_id: str
    venue_order_id: str = ""


class Fill(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One execution. `fee` > 0 is paid, < 0 is a rebate, in `fee_currency`. `ts_ns` is the venue's time."""

    trade_id: str
    client_order_id: str
    market_id: str
    side: Side
    price: float
    qty: float
    fee: float = 0.0
    fee_currency: str = ""
    liquidity: Liquidity = Liquidity.MAKER
    ts_ns: int = 0

    @property
    def signed_qty(self) -> float:
        """`qty`, negative for a sell."""
        return self.qty if self.side is Side.BUY else -self.qty

    def to_dict(self) -> dict[str, Any]:
        """Return the plain dict that `Broker.process_fills` lists."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]


class OrderReport(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a venue says of one order when it is asked."""

    client_order_id: str
    market_id: str
    side: Side
    price: float
    qty: float
    filled_qty: float = 0.0
    status: OrderStatus = OrderStatus.NEW
    venue_order_id: str = ""
