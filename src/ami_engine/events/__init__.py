"""Immutable facts: what markets, venues and the engine itself report."""

from ami_engine.events.enums import Aggressor, Liquidity, OrderStatus, RequestState, Side, TimeInForce
from ami_engine.events.market import (
    Bar,
    BookDelta,
    BookSnapshot,
    BookTicker,
    FeedGap,
    GenericEvent,
    MarketEvent,
    Trade,
)
from ami_engine.events.orders import Fill, OrderAck, OrderReport, SubmitOrder
from ami_engine.events.system import TimerEvent

__all__ = [
    "Aggressor",
    "Bar",
    "BookDelta",
    "BookSnapshot",
    "BookTicker",
    "FeedGap",
    "Fill",
    "GenericEvent",
    "Liquidity",
    "MarketEvent",
    "OrderAck",
    "OrderReport",
    "OrderStatus",
    "RequestState",
    "Side",
    "SubmitOrder",
    "TimeInForce",
    "TimerEvent",
    "Trade",
]
