"""A venue with one market, driven in a line or two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ami_engine.events import Bar, BookTicker, Fill, OrderAck, Side, SubmitOrder, TimeInForce, Trade
from ami_engine.sim.paper_broker import PaperBroker

MS = 1_000_000


class Venue:
    """A `PaperBroker`, the best prices that it saw last, and a clock in milliseconds."""

    def __init__(self, **settings: Any) -> None:
        self.broker = PaperBroker(**settings)
        self.now_ms = 1_000
        self.best = (0.0, 0.0, 0.0, 0.0)

    def book(self, bid: float, ask: float, bid_size: float = 10.0, ask_size: float = 10.0, *, at: int = 0) -> None:
        self.best = (bid, ask, bid_size, ask_size)
        self.show(BookTicker(0, self.tick(at), "X", 0, bid, ask, bid_size, ask_size))

    def trade(self, price: float, size: float, aggressor: int = 0, *, at: int = 0) -> None:
        self.show(Trade(0, self.tick(at), "X", 0, price, size, aggressor))

    def bar(self, open_: float, high: float, low: float, close: float, volume: float = 0.0) -> None:
        self.best = (close, close, 0.0, 0.0)
        self.show(Bar(0, self.tick(0), "X", 0, open_, high, low, close, volume))

    def show(self, event: Any) -> None:
        self.broker.on_market_data(event, *self.best)

    def tick(self, at: int) -> int:
        self.now_ms = at or self.now_ms + 1
        return self.now_ms * MS

    def buy(self, name: str, price: float, qty: float, **terms: Any) -> OrderAck:
        return self.order(name, Side.BUY, price, qty, **terms)

    def sell(self, name: str, price: float, qty: float, **terms: Any) -> OrderAck:
        return self.order(name, Side.SELL, price, qty, **terms)

    def order(self, name: str, side: Side, price: float, qty: float, *, ioc: bool = False, **terms: Any) -> OrderAck:
        tif = TimeInForce.IOC if ioc else TimeInForce.GTC
        return self.broker.submit_order(
            SubmitOrder(client_order_id=name, market_id="X", side=side, price=price, qty=qty, tif=tif, **terms)
        )

    def fills(self) -> list[Fill]:
        return self.broker.process_fills(0)

    def filled(self) -> list[tuple[str, float, float]]:
        """Return (order, price, qty) of the new fills."""
        return [(fill.client_order_id, fill.price, fill.qty) for fill in self.fills()]

    def status(self, name: str) -> str:
        report = self.broker.fetch_order(name)
        return "unknown" if report is None else report.status.value

    @property
    def position(self) -> float:
        return float(self.broker.get_state()["positions"].get("X", 0.0))

    @property
    def cash(self) -> float:
        return float(self.broker.get_state()["cash"])


@pytest.fixture
def make_venue() -> Callable[..., Venue]:
    """Make a venue; the arguments are `PaperBroker`'s."""
    return Venue
