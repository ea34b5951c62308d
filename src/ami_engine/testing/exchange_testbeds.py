"""Broker factories for the conformance kit: the mock exchange in process, and the same through sockets.

The second is the one to copy for an adapter of a real venue's test network::

    pytest --pyargs ami_engine.testing --ami-broker ami_engine.testing.exchange_testbeds:over_http
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ami_engine.adapters.base import Broker
from ami_engine.clock import ManualClock, WallClock, sleep
from ami_engine.events import BookTicker, Fill, MarketEvent, Trade
from ami_engine.sim.faults import FaultPlan
from ami_engine.sim.mock_broker import MockExchangeBroker
from ami_engine.sim.mock_exchange import MockExchange
from ami_engine.sim.mock_venue import MockMarket
from ami_engine.testing.testbed import DEFAULT_INSTRUMENT, BrokerTestbed
from ami_engine.units import NS_PER_MS, Instrument

__all__ = ["ExchangeTestbed", "HttpTestbed", "in_process", "over_http"]

_T = TypeVar("_T")
_CASH = 1_000_000.0
# How the exchange calls the kit's faults.
_PLANS = {
    "timeout_after_accept": "timeout_after@submit:1",
    "timeout_before_accept": "timeout_before@submit:1",
    "garbage_reply": "garbage@submit:1",
    "rate_limit": "rate_limit_storm@submit:1=1",
    "disconnect": "outage@submit:1=20",
    "cancel_timeout": "timeout_after@cancel:1",
    "query_timeout": "timeout_before@query:1",
    "duplicate_fill": "duplicate_fill@fill:1",
}
# A stream tells of a fill within this, on a slow machine too.
_PATIENCE_MS = 5_000
_LOOK_MS = 5


class ExchangeTestbed(BrokerTestbed):
    """A connection to a mock exchange in this process; its market stands where the kit puts it."""

    faults = frozenset(_PLANS)

    def __init__(self, exchange: MockExchange, instrument: Instrument, clock: Any) -> None:
        super().__init__(MockExchangeBroker(exchange), instrument, clock)
        self.exchange = exchange

    def look(self, act: Callable[[MockExchange], _T]) -> _T:
        """Return what `act` makes of the exchange itself."""
        return act(self.exchange)

    def show(self, event: MarketEvent, bid: float, ask: float, bid_size: float, ask_size: float) -> None:
        """Put the exchange's best prices where the kit wants them, or let a trade print."""
        name, ticks = self.market_id, self.instrument.ticks
        if isinstance(event, BookTicker):
            self.look(lambda exchange: _move(exchange, name, ticks(bid), ticks(ask)))
        elif isinstance(event, Trade):
            lots = round(event.size / self.instrument.lot_size)
            price, is_sell = ticks(event.price), event.aggressor < 0
            self.look(lambda exchange: _print(exchange, name, price, lots, is_sell=is_sell))

    def inject(self, fault: str) -> None:
        """Let the exchange's next plan be this one fault."""
        self.look(lambda exchange: exchange.begin(FaultPlan.parse(_PLANS[fault])))

    def advance(self, ms: int) -> None:
        """Let time pass, and happen what is due."""
        super().advance(ms)
        self.look(lambda exchange: exchange.advance())

    def reconnect(self) -> Broker:
        """Connect anew, as a restarted process would."""
        self.close()
        return MockExchangeBroker(self.exchange)

    def close(self) -> None:
        """End the connection."""
        self.broker.close()  # type: ignore[attr-defined]


class HttpTestbed(ExchangeTestbed):
    """The same exchange behind HTTP and WebSocket on loopback, in real time."""

    def __init__(self, exchange: MockExchange, instrument: Instrument) -> None:
        from ami_engine.sim.exchange_server import ExchangeServer

        self._server = ExchangeServer(exchange, every_ms=0)
        BrokerTestbed.__init__(self, self._connect(exchange.recv_window_ms), instrument, WallClock())
        self.exchange = exchange
        self._heard: set[str] = set()

    def _connect(self, recv_window_ms: int | None) -> Broker:
        from ami_engine.adapters.http_broker import HttpBroker

        return HttpBroker(self._server.url, timeout_ms=500, recv_window_ms=recv_window_ms)

    def look(self, act: Callable[[MockExchange], _T]) -> _T:
        """Return what `act` makes of the exchange, on the server's thread."""
        return self._server.call(act)

    def advance(self, ms: int) -> None:
        """Let time pass: here it has to."""
        sleep(ms / 1_000)

    def fills(self) -> list[Fill]:
        """Collect the fills that are due: the stream needs a moment to tell of them."""
        wanted = self.look(lambda exchange: {fill.trade_id for fill in exchange.venue.fills})
        found = super().fills()
        for _ in range(_PATIENCE_MS // _LOOK_MS):
            self._heard.update(fill.trade_id for fill in found)
            if wanted <= self._heard:
                break
            self.advance(_LOOK_MS)
            found += super().fills()
        return found

    def reconnect(self) -> Broker:
        """Connect anew, as a restarted process would."""
        self.broker.close()  # type: ignore[attr-defined]
        return self._connect(self.exchange.recv_window_ms)

    def close(self) -> None:
        """End the connection, and the server."""
        super().close()
        self._server.close()


def in_process(clock: Any = None, instrument: Instrument | None = None, seed: int = 0) -> ExchangeTestbed:
    """Return a testbed around a mock exchange of its own."""
    clock, instrument = clock or ManualClock(NS_PER_MS), instrument or DEFAULT_INSTRUMENT
    return ExchangeTestbed(MockExchange(clock, instrument, seed, cash=_CASH), instrument, clock)


def over_http(clock: Any = None, instrument: Instrument | None = None, seed: int = 0) -> HttpTestbed:
    """Return a testbed around a mock exchange on loopback; it runs in real time, whatever `clock` says."""
    del clock
    instrument = instrument or DEFAULT_INSTRUMENT
    return HttpTestbed(MockExchange(WallClock(), instrument, seed, cash=_CASH), instrument)


def _move(exchange: MockExchange, name: str, bid: int, ask: int) -> None:
    market = exchange.venue.markets[name]
    market.bid, market.ask = bid, ask
    _fill_through(exchange, market)


def _fill_through(exchange: MockExchange, market: MockMarket) -> None:
    for order in list(market.resting):
        if (order.ticks >= market.ask) if order.is_buy else (order.ticks <= market.bid):
            exchange.venue.fill(order, order.leaves)


def _print(exchange: MockExchange, name: str, price: int, lots: int, *, is_sell: bool) -> None:
    for order in list(exchange.venue.markets[name].resting):
        is_met = order.is_buy and is_sell and price <= order.ticks
        is_met = is_met or (not order.is_buy and not is_sell and price >= order.ticks)
        if is_met and lots > 0:
            taken = min(lots, order.leaves)
            exchange.venue.fill(order, taken)
            lots -= taken
