"""The engine inside an asyncio program: a bot whose venue is spoken to in coroutines.

`run_loop` blocks, so it runs in a thread. Books come to it through a queue. Its orders go the other way: the broker
hands a coroutine to the program's event loop and waits for the answer, for a limited time. The event loop stays free
for everything else that the program does.

Run it: `python docs/examples/asyncio_bot.py`
"""

from __future__ import annotations

import asyncio
import queue
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any

import numpy as np

from ami_engine.adapters import Broker, MarketDataSource
from ami_engine.clock import WallClock
from ami_engine.dmc import RiskPolicy
from ami_engine.errors import VenueUnavailable
from ami_engine.events import BookSnapshot, Fill, MarketEvent, OrderAck, OrderReport, OrderStatus, Side, SubmitOrder
from ami_engine.events import TimeInForce as Tif
from ami_engine.loop.run_loop import run_loop
from ami_engine.mdm.decision_engine import DecisionEngine
from ami_engine.units import Instrument
from decision_schema.types import Action, Proposal

MARKET = Instrument("ACME", tick_size=0.01, lot_size=1.0)
POLICY = RiskPolicy(
    max_per_market_usd=100.0,
    max_total_exposure_usd=1_000.0,
    max_abs_inventory=40.0,
    daily_loss_stop_usd=50.0,
    cancel_rate_limit=500,
    adv15_max_ticks=50.0,
    adv60_max_ticks=50.0,
    sigma_spike_z_max=20.0,
)
NETWORK_S = 0.002


class AsyncVenue:
    """Stands for your venue's client: its feed is an async iterator, and its calls are coroutines.

    Parameters
    ----------
    seed : int
        Of the market's walk.
    """

    def __init__(self, seed: int) -> None:
        self.resting: dict[str, SubmitOrder] = {}
        self.fills: deque[Fill] = deque()
        self.position = 0.0
        self._bid_ticks = 2_000
        self._trades = 0
        self._acks: dict[str, OrderAck] = {}
        self._sent: dict[str, SubmitOrder] = {}
        self._trades_made: list[Fill] = []
        self._random = np.random.Generator(np.random.PCG64(seed))

    async def books(self, count: int) -> AsyncIterator[BookSnapshot]:
        """Yield books as they come in, 5 ms apart."""
        for _ in range(count):
            await asyncio.sleep(0.005)
            self._bid_ticks += int(self._random.integers(-1, 2))
            bid, ask = self._prices()
            for order in list(self.resting.values()):
                if (order.side is Side.BUY and order.price >= ask) or (order.side is Side.SELL and order.price <= bid):
                    del self.resting[order.client_order_id]
                    self._fill(order, order.price)
            now_ns = WallClock().now_ns()
            yield BookSnapshot(now_ns, now_ns, MARKET.symbol, bid=bid, ask=ask, bid_depth=60.0, ask_depth=60.0)

    async def place(self, order: SubmitOrder) -> OrderAck:
        """Place an order; a repeat of one that is known places nothing."""
        await asyncio.sleep(NETWORK_S)
        if order.client_order_id in self._acks:
            return self._acks[order.client_order_id]
        self._sent[order.client_order_id] = order
        bid, ask = self._prices()
        if order.tif is Tif.IOC:
            self._fill(order, ask if order.side is Side.BUY else bid)
        else:
            self.resting[order.client_order_id] = order
        return self._acks.setdefault(order.client_order_id, OrderAck(client_order_id=order.client_order_id))

    async def cancel(self, order_id: str) -> bool:
        """Cancel one order; False when there is nothing to cancel."""
        await asyncio.sleep(NETWORK_S)
        return self.resting.pop(order_id, None) is not None

    async def cancel_all(self) -> int:
        """Cancel every order and return how many."""
        await asyncio.sleep(NETWORK_S)
        count = len(self.resting)
        self.resting.clear()
        return count

    async def look_up(self, order_id: str) -> OrderReport | None:
        """Return what became of an order, None of one that was never here."""
        await asyncio.sleep(NETWORK_S)
        return self._report(order_id) if order_id in self._sent else None

    async def open_orders(self) -> list[OrderReport]:
        """Return the orders that rest."""
        await asyncio.sleep(NETWORK_S)
        return [self._report(order_id) for order_id in self.resting]

    async def trades(self, since_ns: int) -> list[Fill]:
        """Return what was traded since a time."""
        await asyncio.sleep(NETWORK_S)
        return [fill for fill in self._trades_made if fill.ts_ns >= since_ns]

    async def balances(self) -> dict[str, float]:
        """Return what the account holds of each asset."""
        await asyncio.sleep(NETWORK_S)
        return {
            "ACME": self.position,
            "USD": -sum(fill.signed_qty * fill.price for fill in self._trades_made),
        }

    def _report(self, order_id: str) -> OrderReport:
        order = self._sent[order_id]
        filled = sum(fill.qty for fill in self._trades_made if fill.client_order_id == order_id)
        if order_id in self.resting:
            status = OrderStatus.NEW
        else:
            status = OrderStatus.FILLED if filled else OrderStatus.CANCELED
        return OrderReport(
            client_order_id=order_id,
            market_id=order.market_id,
            side=order.side,
            price=order.price,
            qty=order.qty,
            filled_qty=filled,
            status=status,
        )

    def _prices(self) -> tuple[float, float]:
        return MARKET.price_from_ticks(self._bid_ticks), MARKET.price_from_ticks(self._bid_ticks + 2)

    def _fill(self, order: SubmitOrder, price: float) -> None:
        self._trades += 1
        fill = Fill(
            trade_id=f"t{self._trades}",
            client_order_id=order.client_order_id,
            market_id=order.market_id,
            side=order.side,
            price=price,
            qty=order.qty,
            ts_ns=WallClock().now_ns(),
        )
        self.position += fill.signed_qty
        self.fills.append(fill)
        self._trades_made.append(fill)


class QueueSource(MarketDataSource):
    """Live source: coroutines put events in, the loop's reading thread takes them out."""

    is_live = True
    snapshots_only = True

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[MarketEvent | None] = queue.SimpleQueue()

    def put(self, event: MarketEvent | None) -> None:
        """Hand an event over; None ends the run. Never blocks."""
        self._events.put(event)

    def next_event(self) -> MarketEvent | None:
        return self._events.get()

    def instruments(self) -> Mapping[str, Instrument]:
        return {MARKET.symbol: MARKET}

    def close(self) -> None:
        self._events.put(None)


class AsyncBroker(Broker):
    """Carries the engine's calls from its thread over to the event loop, and waits for the answers there.

    Parameters
    ----------
    venue : AsyncVenue
        Spoken to in the event loop only.
    loop : asyncio.AbstractEventLoop
        The program's.
    timeout_s : float
        How long to wait for an answer. After that nobody knows what became of the order: it is in doubt.
    """

    def __init__(self, venue: AsyncVenue, loop: asyncio.AbstractEventLoop, timeout_s: float = 5.0) -> None:
        self._venue = venue
        self._loop = loop
        self._timeout_s = timeout_s

    def submit_order(self, order: SubmitOrder) -> OrderAck:
        return self._wait_for(self._venue.place(order))

    def cancel_order(self, order_id: str) -> bool:
        return self._wait_for(self._venue.cancel(order_id))

    def cancel_all(self, market_id: str | None = None) -> int:
        return self._wait_for(self._venue.cancel_all())

    def process_fills(self, now_ms: int) -> Sequence[Fill]:
        fills = self._venue.fills
        return [fills.popleft() for _ in range(len(fills))]  # a deque may be read here and written in the event loop

    def fetch_order(self, client_order_id: str) -> OrderReport | None:
        return self._wait_for(self._venue.look_up(client_order_id))

    def fetch_open_orders(self, market_id: str | None = None) -> Sequence[OrderReport]:
        return self._wait_for(self._venue.open_orders())

    def fetch_fills(self, since_ns: int) -> Sequence[Fill]:
        return self._wait_for(self._venue.trades(since_ns))

    def fetch_balances(self) -> Mapping[str, float]:
        return self._wait_for(self._venue.balances())

    def _wait_for(self, call: Coroutine[Any, Any, Any]) -> Any:
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result(self._timeout_s)
        except TimeoutError as error:
            future.cancel()
            raise VenueUnavailable(f"no answer within {self._timeout_s} s") from error


def join_the_touch(features: Any, **_: Any) -> Proposal:
    """Quote at the best prices of both sides."""
    quotes = {"bid_quote": features["bid"], "ask_quote": features["ask"], "size_usd": 60.0}
    return Proposal(Action.ACT, 0.6, ["join_the_touch"], quotes)


async def feed(venue: AsyncVenue, source: QueueSource, books: int) -> None:
    """Hand the venue's books to the engine, and end the run after the last, whatever happens."""
    try:
        async for book in venue.books(books):
            source.put(book)
    finally:
        source.put(None)


async def heartbeat(beats: list[int]) -> None:
    """Stand for the rest of the program: it must go on while the engine decides."""
    while True:
        await asyncio.sleep(0.01)
        beats.append(len(beats))


async def main(books: int = 400) -> dict[str, Any]:
    """Run the bot over some books and return the run's summary, with what the venue says."""
    venue, source, beats = AsyncVenue(seed=2), QueueSource(), list[int]()
    broker = AsyncBroker(venue, asyncio.get_running_loop())
    engine = DecisionEngine(model=join_the_touch)
    beating = asyncio.create_task(heartbeat(beats))
    feeding = asyncio.create_task(feed(venue, source, books))
    try:
        summary = await asyncio.to_thread(
            run_loop, source=source, broker=broker, decision_engine=engine, risk_policy=POLICY, trace=False
        )
        await feeding
    finally:
        beating.cancel()
        feeding.cancel()
    summary["beats"] = len(beats)
    summary["venue_position"] = venue.position
    summary["venue_resting"] = len(venue.resting)
    return summary


def report(summary: Mapping[str, Any]) -> None:
    """Say in plain words what the bot did."""
    print(f"{summary['steps']} books decided on; {summary['orders_submitted']} orders sent,", end=" ")
    print(f"{summary['fills_count']} fills, {summary['orders_in_doubt']} orders in doubt")
    print(f"position: {summary['positions'].get(MARKET.symbol, 0.0):g} here,", end=" ")
    print(f"{summary['venue_position']:g} at the venue; {summary['venue_resting']} orders left there")
    print(f"meanwhile the rest of the program ran {summary['beats']} times")


if __name__ == "__main__":
    report(asyncio.run(main()))
