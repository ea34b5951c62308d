"""The small vocabularies of events: sides, liquidity, time in force, order status."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import TypeVar

__all__ = ["Aggressor", "Liquidity", "OrderStatus", "RequestState", "Side", "TimeInForce", "member_of"]

_Word = TypeVar("_Word", bound=StrEnum)


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


def member_of(kind: type[_Word], value: object, what: str) -> _Word:
    """Return the member that `value` names: a member, its text in any case, or another enum's member of that text.

    Raises
    ------
    ValueError
        When it names none. `what` begins the message: the field, and of what.

    Examples
    --------
    >>> member_of(Side, "buy", "`side` of an order")
    <Side.BUY: 'BUY'>
    >>> member_of(Side, "long", "`side` of an order")
    Traceback (most recent call last):
    ValueError: `side` of an order must be BUY or SELL, was 'long'
    """
    text = getattr(value, "value", value)
    try:
        return kind(str(text).upper())
    except ValueError:
        *names, last = kind
        raise ValueError(f"{what} must be {', '.join(names)} or {last}, was {value!r}") from None
