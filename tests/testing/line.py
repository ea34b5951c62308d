"""A paper venue behind a line that fails on demand: what a careful adapter looks like to the kit."""

from __future__ import annotations

from typing import Any

from ami_engine.adapters.base import Broker
from ami_engine.clock import ManualClock
from ami_engine.errors import VenueRejected, VenueUnavailable
from ami_engine.events import OrderAck, OrderReport, SubmitOrder
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.testing import FAULTS, BrokerTestbed
from ami_engine.testing.testbed import DEFAULT_INSTRUMENT


class LineBroker(Broker):
    """An adapter of a remote paper venue. Subclasses in the tests each break one clause."""

    recv_window_ms = 5_000

    def __init__(self, venue: PaperBroker, clock: Any) -> None:
        self.venue = venue
        self.clock = clock
        self.pending: list[str] = []
        self.api_key = "canary-key-1234"

    def _takes(self, fault: str) -> bool:
        if fault in self.pending:
            self.pending.remove(fault)
            return True
        return False

    def submit_order(self, order: SubmitOrder) -> OrderAck | str | None:
        if self._takes("disconnect"):
            raise VenueUnavailable("no connection", outcome_known=True)
        if self._takes("rate_limit"):
            raise VenueUnavailable("too many requests", outcome_known=True)
        if self._takes("timeout_before_accept"):
            raise VenueUnavailable("no answer within 1 s")
        if getattr(order, "expires_ns", 0) and order.expires_ns < self.clock.now_ns():
            raise VenueRejected("the request came after its receive window")
        ack = self.venue.submit_order(order)
        if self._takes("timeout_after_accept"):
            raise VenueUnavailable("no answer within 1 s")
        if self._takes("garbage_reply"):
            raise ValueError("the answer is no JSON")
        return ack

    def cancel_order(self, order_id: str) -> bool:
        done = self.venue.cancel_order(order_id)
        if self._takes("cancel_timeout"):
            raise VenueUnavailable("no answer within 1 s")
        return done

    def cancel_all(self, market_id: str | None = None) -> int:
        return self.venue.cancel_all(market_id)

    def process_fills(self, now_ms: int) -> list[Any]:
        fills = self.venue.process_fills(now_ms)
        if fills and self._takes("duplicate_fill"):
            fills = [*fills, fills[-1]]
        return fills

    def get_state(self) -> dict[str, Any]:
        return self.venue.get_state()

    def on_market_data(self, event: Any, bid: float, ask: float, bid_size: float, ask_size: float) -> None:
        self.venue.on_market_data(event, bid, ask, bid_size, ask_size)

    def fetch_order(self, client_order_id: str) -> OrderReport | None:
        if self._takes("query_timeout"):
            raise VenueUnavailable("no answer within 1 s")
        return self.venue.fetch_order(client_order_id)

    def fetch_open_orders(self, market_id: str | None = None) -> Any:
        return self.venue.fetch_open_orders(market_id)

    def fetch_fills(self, since_ns: int) -> Any:
        return self.venue.fetch_fills(since_ns)

    def fetch_balances(self) -> Any:
        return self.venue.fetch_balances()


class LineTestbed(BrokerTestbed):
    """Causes every fault of the kit, and makes a second adapter for the same venue."""

    faults = frozenset(FAULTS)

    def inject(self, fault: str) -> None:
        self.broker.pending.append(fault)  # type: ignore[attr-defined]

    def reconnect(self) -> Broker:
        return type(self.broker)(self.broker.venue, self.clock)  # type: ignore[attr-defined, call-arg]


def factory_of(kind: type[LineBroker] = LineBroker) -> Any:
    """Return a factory of testbeds around a kind of adapter."""

    def make(clock: Any = None, instrument: Any = None, seed: int = 0) -> LineTestbed:
        clock = clock or ManualClock(1)
        instrument = instrument or DEFAULT_INSTRUMENT
        return LineTestbed(kind(PaperBroker(instrument=instrument, cash=1e6, seed=seed), clock), instrument, clock)

    return make


make_line = factory_of()


class DoublingBroker(LineBroker):
    """Sends every order twice, the second time under an id of its own."""

    def submit_order(self, order: SubmitOrder) -> OrderAck | str | None:
        from msgspec.structs import replace

        ack = super().submit_order(order)
        super().submit_order(replace(order, client_order_id=order.client_order_id[:-1] + "x"))
        return ack


make_doubling = factory_of(DoublingBroker)
