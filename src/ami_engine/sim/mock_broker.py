"""A mock exchange as a broker and as a source of its prices, in one process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ami_engine.adapters.base import Broker, MarketDataSource
from ami_engine.clock import Clock, ManualClock, sleep
from ami_engine.errors import VenueRejected, VenueUnavailable
from ami_engine.events import BookSnapshot, Fill, OrderAck, OrderReport, SubmitOrder
from ami_engine.sim.mock_exchange import MockExchange, Reply, Wire
from ami_engine.units import NS_PER_MS, Instrument

__all__ = ["MockExchangeBroker", "MockExchangeSource"]

# Nothing was done where the request was refused at the door or never sent; else nobody knows.
_OUTCOME_KNOWN = frozenset({Wire.LIMITED, Wire.DOWN})


class MockExchangeBroker(Broker):
    """One connection to a `MockExchange`.

    What is lost on the way is lost: a fill that the stream did not tell is found by `fetch_fills` only. A wait (a
    timeout, a slow reply) moves the exchange's clock when that is a `ManualClock`, and is slept through otherwise.

    Parameters
    ----------
    exchange : MockExchange or None
        Where to; None makes one of the other parameters.
    clock, instrument, seed
        As in `MockExchange`.
    timeout_ms : int
        How long an answer is waited for.

    Examples
    --------
    >>> from ami_engine.events import Side
    >>> broker = MockExchangeBroker(seed=1)
    >>> order = SubmitOrder(client_order_id="a1", market_id="MOCK", side=Side.BUY, price=99.0, qty=0.5)
    >>> broker.submit_order(order).venue_order_id, broker.cancel_order("a1"), broker.cancel_order("a1")
    ('V1', True, False)
    """

    def __init__(
        self,
        exchange: MockExchange | None = None,
        *,
        clock: Clock | None = None,
        instrument: Instrument | Sequence[Instrument] | None = None,
        seed: int = 0,
        timeout_ms: int = 100,
    ) -> None:
        self.exchange = MockExchange(clock, instrument, seed) if exchange is None else exchange
        self.recv_window_ms = self.exchange.recv_window_ms
        self._timeout_ms = timeout_ms
        self._session = self.exchange.connect()

    def close(self) -> None:
        """End the connection."""
        self.exchange.disconnect(self._session)

    def submit_order(self, order: SubmitOrder) -> OrderAck:
        """Place an order.

        Raises
        ------
        VenueRejected
            The venue refused it.
        VenueUnavailable
            Nobody knows, or, with `outcome_known`, nothing was done.
        """
        ack: OrderAck = self._read(self.exchange.submit(order))
        return ack

    def cancel_order(self, order_id: str) -> bool:
        """Cancel by client order id; raises as `submit_order`."""
        return bool(self._read(self.exchange.cancel(order_id)))

    def cancel_all(self, market_id: str | None = None) -> int:
        """Cancel every order, or those of one market; raises as `submit_order`."""
        return int(self._read(self.exchange.cancel_all(market_id)))

    def process_fills(self, now_ms: int) -> list[Fill]:
        """Return the fills that the stream told since the last call; raises `VenueUnavailable` when it is down."""
        return [event for event in self._read(self.exchange.poll(self._session)) if type(event) is Fill]

    def get_state(self) -> dict[str, Any]:
        """Return positions, open orders and cash; raises `VenueUnavailable`."""
        state = self._read(self.exchange.fetch_state())
        return {**state, "cash": next(iter(state["balances"].values()))}

    def fetch_order(self, client_order_id: str) -> OrderReport | None:
        """Return what the venue says of one order; raises `VenueUnavailable`."""
        report: OrderReport | None = self._read(self.exchange.fetch_order(client_order_id))
        return report

    def fetch_open_orders(self, market_id: str | None = None) -> Sequence[OrderReport]:
        """Return the open orders; raises `VenueUnavailable`."""
        reports: list[OrderReport] = self._read(self.exchange.fetch_open_orders(market_id))
        return reports

    def fetch_fills(self, since_ns: int) -> Iterable[Fill]:
        """Return the fills since `since_ns`, oldest first; raises `VenueUnavailable`."""
        fills: list[Fill] = self._read(self.exchange.fetch_fills(since_ns))
        return fills

    def fetch_balances(self) -> Mapping[str, float]:
        """Return the cash of each currency; raises `VenueUnavailable`."""
        balances: dict[str, float] = self._read(self.exchange.fetch_state())["balances"]
        return balances

    def _read(self, reply: Reply) -> Any:
        wire = reply.wire
        if reply.delay_ms:
            self._wait(reply.delay_ms)
        if wire is Wire.OK:
            return reply.value
        if wire is Wire.REFUSED:
            raise VenueRejected(reply.error)
        if wire is Wire.LOST:
            self._wait(self._timeout_ms)
        raise VenueUnavailable(reply.error, outcome_known=wire in _OUTCOME_KNOWN, is_rate_limit=wire is Wire.LIMITED)

    def _wait(self, ms: int) -> None:
        clock = self.exchange.clock
        if isinstance(clock, ManualClock):
            clock.advance_to(clock.now_ns() + ms * NS_PER_MS)
        else:
            sleep(ms / 1_000)


class MockExchangeSource(MarketDataSource):
    """The best prices of a `MockExchange` on a `ManualClock`: each event lets it live on for a moment.

    Parameters
    ----------
    exchange : MockExchange
        Where prices come from; the source moves its clock and its market.
    num_events : int
        How many events there are.
    every_ms : int
        How far apart they are.

    Examples
    --------
    >>> source = MockExchangeSource(MockExchange(seed=3), num_events=2)
    >>> [source.next_event().symbol, source.next_event().symbol, source.next_event()]
    ['MOCK', 'MOCK', None]
    """

    is_live = False
    snapshots_only = True

    def __init__(self, exchange: MockExchange, num_events: int, every_ms: int = 100) -> None:
        self._exchange = exchange
        self._left = num_events
        self._every_ns = every_ms * NS_PER_MS
        self._names = list(exchange.venue.markets)
        self._turn = 0
        self.identity = f"mock_exchange:{','.join(self._names)}"

    def next_event(self) -> BookSnapshot | None:
        """Move time and the next market, and return its best prices; None when `num_events` were given out."""
        if self._left <= 0:
            return None
        self._left -= 1
        exchange = self._exchange
        clock = exchange.clock
        if isinstance(clock, ManualClock):
            clock.advance_to(clock.now_ns() + self._every_ns)
        name = self._names[self._turn % len(self._names)]
        self._turn += 1
        exchange.move(name)
        now_ns = clock.now_ns()
        bid, bid_size, ask, ask_size = exchange.venue.markets[name].best
        return BookSnapshot(now_ns, now_ns, name, 0, bid, ask, bid_size, ask_size)

    def instruments(self) -> Mapping[str, Instrument]:
        """Return the instrument of every market."""
        return {name: market.instrument for name, market in self._exchange.venue.markets.items()}
