"""Sources and brokers that loop tests share: plain users' code, as the contract shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from ami_engine.adapters import Broker, MarketDataSource
from ami_engine.events import BookSnapshot, Fill, OrderReport, OrderStatus, SubmitOrder, Trade
from ami_engine.units import Instrument

MS = 1_000_000
START_NS = 1_700_000_000_000_000_000


class ListSource(MarketDataSource):
    """Gives out what it was given; an exception in the list is raised."""

    def __init__(self, events: Iterable[Any], tick_size: float = 0.01) -> None:
        self._events = iter(list(events))
        self._tick_size = tick_size
        self.closed = False

    def next_event(self) -> Any:
        event = next(self._events, None)
        if isinstance(event, BaseException):
            raise event
        return event

    def instruments(self) -> dict[str, Instrument]:
        return {"X": Instrument("X", tick_size=self._tick_size)}

    def close(self) -> None:
        self.closed = True


class RecordingBroker(Broker):
    """Accepts everything, fills nothing, remembers all."""

    def __init__(self) -> None:
        self.submitted: list[SubmitOrder] = []
        self.cancelled: list[str] = []
        self.cancel_alls = 0

    def submit_order(self, order: SubmitOrder) -> None:
        self.submitted.append(order)

    def cancel_order(self, order_id: str) -> bool:
        self.cancelled.append(order_id)
        return True

    def cancel_all(self, market_id: str | None = None) -> int:
        self.cancel_alls += 1
        return 0


class LiveBroker(RecordingBroker):
    """A `RecordingBroker` that can be asked what a live run asks."""

    def fetch_order(self, client_order_id: str) -> OrderReport | None:
        return next((report for report in self._reports() if report.client_order_id == client_order_id), None)

    def fetch_open_orders(self, market_id: str | None = None) -> list[OrderReport]:
        return [report for report in self._reports() if report.status is OrderStatus.NEW]

    def fetch_fills(self, since_ns: int) -> list[Fill]:
        return []

    def fetch_balances(self) -> dict[str, float]:
        return {}

    def _reports(self) -> list[OrderReport]:
        return [
            OrderReport(
                client_order_id=order.client_order_id,
                market_id=order.market_id,
                side=order.side,
                price=order.price,
                qty=order.qty,
                status=OrderStatus.CANCELED if order.client_order_id in self.cancelled else OrderStatus.NEW,
            )
            for order in self.submitted
        ]


def book(at_ms: int, bid: float = 0.49, ask: float = 0.51, bid_depth: float = 90.0, ask_depth: float = 30.0) -> Any:
    """A one-level book that the reference model acts on."""
    return BookSnapshot(0, START_NS + at_ms * MS, "X", 0, bid, ask, bid_depth, ask_depth)


def trade(at_ms: int, price: float, size: float, aggressor: int) -> Any:
    return Trade(0, START_NS + at_ms * MS, "X", 0, price, size, aggressor)


@pytest.fixture
def books() -> Callable[[int], list[Any]]:
    """So many books, 10 ms apart."""
    return lambda n: [book(10 * i) for i in range(n)]
