"""The small vocabularies of events: sides, liquidity, time in force, order status."""

from __future__ import annotations

from enum import IntEnum, StrEnum

__all__ = ["Aggressor", "Liquidity", "OrderStatus", "RequestState", "Side", "TimeInForce"]


class Side(StrEnum):
    """Direction of an order or a fill."""

    BUY = "BUY"
    SELL = "SELL"

    @property
    def sign(self) -> int:
        """+1 for a buy, −1 for a sell."""
        return 1 if self is Side.BUY else -1

    @property
    def opposite(self) -> Side:
        """The other side."""
        return Side.SELL if self is Side.BUY else Side.BUY


class Aggressor(IntEnum):
    """Side of the order that took liquidity in a trade; events carry the plain integer."""

    SELL = -1
    UNKNOWN = 0
    BUY = 1


class Liquidity(StrEnum):
    """Whether a fill provided or took liquidity."""

    MAKER = "MAKER"
    TAKER = "TAKER"


class TimeInForce(StrEnum):
    """How long an order stays: until cancelled, or for one instant."""

    GTC = "GTC"
    IOC = "IOC"


class OrderStatus(StrEnum):
    """The venue's last word about an order (names of FIX tag 39)."""

    INITIALIZED = "INITIALIZED"
    NEW = "NEW"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"


class RequestState(StrEnum):
    """What we asked of the venue and have not heard about."""

    NONE = "NONE"
    SUBMIT = "SUBMIT"
    CANCEL = "CANCEL"
