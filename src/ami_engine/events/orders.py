"""Orders as the engine sends them, and what a venue reports about them."""

from __future__ import annotations

from typing import Any

import msgspec

from ami_engine.errors import AmiError, OrderError, VenueProtocolError
from ami_engine.events.enums import Liquidity, OrderStatus, Side, TimeInForce, member_of

__all__ = ["Fill", "OrderAck", "OrderReport", "SubmitOrder"]

_WORDS = {"side": Side, "tif": TimeInForce, "liquidity": Liquidity, "status": OrderStatus}


def _normalize(struct: msgspec.Struct, what: str, error: type[AmiError], *fields: str) -> None:
    """Make members of what texts name: everything after this tells them apart by identity, and nothing is guessed."""
    for field in fields:
        try:
            found = member_of(_WORDS[field], getattr(struct, field), f"`{field}` of {what}")
        except ValueError as wrong:
            raise error(str(wrong)) from None
        msgspec.structs.force_setattr(struct, field, found)


class SubmitOrder(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A request to place one order. `qty` is authoritative; `size_usd` is its value, derived.

    `expires_ns` > 0 is the venue expiry: a venue that takes one (`Broker.recv_window_ms`) must refuse the request when
    it arrives later, ns since the Unix epoch. 0 is none. The text of a side or a time in force becomes the member that
    it names; one that names none raises `OrderError`.
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

    def __post_init__(self) -> None:
        if type(self.side) is not Side or type(self.tif) is not TimeInForce:
            _normalize(self, "an order", OrderError, "side", "tif")


class OrderAck(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The venue took an order. `venue_order_id` is empty where it gives none."""

    client_order_id: str
    venue_order_id: str = ""


class Fill(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One execution. `fee` > 0 is paid, < 0 is a rebate, in `fee_currency`. `ts_ns` is the venue's time.

    The text of a side or of a liquidity becomes the member that it names; one that names none raises
    `VenueProtocolError`.

    Examples
    --------
    >>> Fill(trade_id="7", client_order_id="a", market_id="X", side="buy", price=9.0, qty=2.0).signed_qty
    2.0
    """

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

    def __post_init__(self) -> None:
        if type(self.side) is not Side or type(self.liquidity) is not Liquidity:
            _normalize(self, "a fill", VenueProtocolError, "side", "liquidity")

    @property
    def signed_qty(self) -> float:
        """`qty`, negative for a sell."""
        return self.qty if self.side is Side.BUY else -self.qty

    def to_dict(self) -> dict[str, Any]:
        """Return the plain dict that `Broker.process_fills` lists."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]


class OrderReport(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a venue says of one order when it is asked. Texts become members as in `Fill`."""

    client_order_id: str
    market_id: str
    side: Side
    price: float
    qty: float
    filled_qty: float = 0.0
    status: OrderStatus = OrderStatus.NEW
    venue_order_id: str = ""

    def __post_init__(self) -> None:
        if type(self.side) is not Side or type(self.status) is not OrderStatus:
            _normalize(self, "an order's report", VenueProtocolError, "side", "status")
