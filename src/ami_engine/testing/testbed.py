"""What the conformance kit needs of a broker under test beside the broker: a market that it can move, and faults."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from math import ceil
from typing import Any

from ami_engine.adapters.base import Broker
from ami_engine.clock import ManualClock
from ami_engine.errors import ConfigError
from ami_engine.events import BookTicker, Fill, MarketEvent, Side, SubmitOrder, TimeInForce, Trade
from ami_engine.execution.broker_edge import decode_fill
from ami_engine.testing.clause import NotTried
from ami_engine.units import NS_PER_MS, Instrument

__all__ = ["DEFAULT_INSTRUMENT", "FAULTS", "BrokerTestbed", "broker_testbeds"]

DEFAULT_INSTRUMENT = Instrument(
    "KITUSD",
    tick_size=0.01,
    lot_size=0.001,
    min_qty=0.001,
    min_notional=1.0,
    maker_fee_bps=1.0,
    taker_fee_bps=5.0,
)
_START_NS = 1_700_000_000_000_000_000

FAULTS = {
    "timeout_after_accept": "the next submit reaches the venue and is accepted, and its answer is lost",
    "timeout_before_accept": "the next submit is lost on its way",
    "garbage_reply": "the next submit is accepted, and its answer cannot be read",
    "rate_limit": "the next submit is refused by a rate limit before it is looked at",
    "disconnect": "the next submit finds no connection",
    "cancel_timeout": "the next cancel reaches the venue, and its answer is lost",
    "query_timeout": "the answer to the next look-up is lost",
    "duplicate_fill": "the next fill is reported twice",
}


class BrokerTestbed:
    """A broker under test, and what surrounds it. Subclass it where the kit cannot do something by itself.

    A factory may return a plain `Broker`: the kit then wraps it in this class, moves the market through the broker's
    `on_market_data` where it has one, and tries no faults.

    Parameters
    ----------
    broker : Broker
        The adapter.
    instrument : Instrument
        What is traded; its symbol is the market.
    clock : ManualClock
        The clock that the factory was given.

    Attributes
    ----------
    faults : frozenset of str
        Names of `FAULTS` that `inject` can cause.
    reference_price : float
        Orders and quotes of the kit are made around this price.
    paper_only : bool
        True for a broker that is never to trade live: then it may lack what a live run needs.
    """

    faults: frozenset[str] = frozenset()
    reference_price: float = 100.0
    paper_only: bool = False

    def __init__(self, broker: Broker, instrument: Instrument = DEFAULT_INSTRUMENT, clock: Any = None) -> None:
        self.broker = broker
        self.instrument = instrument
        self.clock = ManualClock(_START_NS) if clock is None else clock
        self._ids = 0
        self._best = (0.0, 0.0, 0.0, 0.0)

    # What a subclass may replace. ---------------------------------------------------------------------------------

    def show(self, event: MarketEvent, bid: float, ask: float, bid_size: float, ask_size: float) -> None:
        """Let the venue see a market event, and the best prices after it."""
        if type(self.broker).on_market_data is Broker.on_market_data:
            raise NotTried("the kit cannot move this venue's market: return a BrokerTestbed with a `show` of its own")
        self.broker.on_market_data(event, bid, ask, bid_size, ask_size)

    def inject(self, fault: str) -> None:
        """Cause one of `faults`, once, at the next request that it concerns."""
        raise NotImplementedError(f"{type(self).__name__} lists {fault!r} among its faults and does not write inject()")

    def reconnect(self) -> Broker:
        """Return a new adapter for the same venue, as a restarted process would make one."""
        raise NotTried("the kit cannot make a second adapter for this venue: return a BrokerTestbed with `reconnect`")

    def advance(self, ms: int) -> None:
        """Let time pass at the venue."""
        self.clock.advance_to(self.clock.now_ns() + ms * NS_PER_MS)

    def close(self) -> None:
        """Release what the factory opened."""

    # What the clauses use. ----------------------------------------------------------------------------------------

    @property
    def market_id(self) -> str:
        """The market's name."""
        return self.instrument.symbol

    def need(self, fault: str) -> None:
        """Cause a fault, or say that it cannot be caused."""
        if fault not in self.faults:
            raise NotTried(f"the factory's testbed cannot inject {fault!r} ({FAULTS[fault]})")
        self.inject(fault)

    def need_method(self, name: str) -> Callable[..., Any]:
        """Return a method of the broker that is required before live; `NotTried` where it was not written."""
        if getattr(type(self.broker), name, None) is getattr(Broker, name):
            raise NotTried(f"`{name}` is not written; it is required before live")
        return getattr(self.broker, name)  # type: ignore[no-any-return]

    def price(self, ticks: int) -> float:
        """Return the price so many ticks from the reference."""
        instrument = self.instrument
        return instrument.price_from_ticks(instrument.ticks(self.reference_price) + ticks)

    def quote(self, bid_ticks: int = -5, ask_ticks: int = 5, size: float | None = None) -> None:
        """Move the best prices, in ticks from the reference; time passes by a millisecond."""
        size = 100 * self.qty() if size is None else size
        self.advance(1)
        best = self._best = (self.price(bid_ticks), self.price(ask_ticks), size, size)
        now_ns = self.clock.now_ns()
        self.show(BookTicker(now_ns, now_ns, self.market_id, 0, best[0], best[1], size, size), *best)

    def trade(self, ticks: int, size: float, aggressor: int) -> None:
        """Let a trade print."""
        self.advance(1)
        now_ns = self.clock.now_ns()
        self.show(Trade(now_ns, now_ns, self.market_id, 0, self.price(ticks), size, aggressor), *self._best)

    def qty(self, orders: int = 4) -> float:
        """Return so many times the smallest order that the instrument allows."""
        instrument = self.instrument
        lot = instrument.lot_size or 1.0
        least = max(instrument.min_qty, lot)
        per_unit = instrument.notional(self.price(-200), 1.0)
        if instrument.min_notional and per_unit > 0.0:
            least = max(least, instrument.min_notional / per_unit)
        return instrument.round_qty(ceil(least / lot) * lot * orders + lot / 2)

    def order(self, side: Side = Side.BUY, ticks: int = -20, qty: float | None = None, **fields: Any) -> SubmitOrder:
        """Make an order with an id of its own."""
        self._ids += 1
        price, qty = self.price(ticks), self.qty() if qty is None else qty
        given: dict[str, Any] = {
            "client_order_id": f"amikit{self._ids:026d}",
            "market_id": self.market_id,
            "side": side,
            "price": price,
            "qty": qty,
            "size_usd": self.instrument.notional(price, qty),
            "tif": TimeInForce.GTC,
        }
        return SubmitOrder(**(given | fields))

    def fills(self) -> list[Fill]:
        """Collect the fills that are due, each checked to be readable."""
        self.advance(1)
        told: Sequence[Any] = self.broker.process_fills(self.clock.now_ns() // NS_PER_MS)
        return [decode_fill(raw) for raw in told]


def broker_testbeds(factory: Callable[..., Any], *, seed: int = 0) -> Callable[[], BrokerTestbed]:
    """Return a function that makes a fresh testbed of what a factory returns.

    Parameters
    ----------
    factory : callable
        Called as ``factory(clock=…, instrument=…, seed=…)``; each must have a default. Returns a `Broker` or a
        `BrokerTestbed`.
    seed : int
        Handed to the factory.

    Raises
    ------
    ConfigError
        When a parameter has no default, or what comes back is neither.
    """
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        parameters = {}  # type: ignore[assignment]
    for name in parameters:
        kind = parameters[name].kind
        if kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            continue
        if parameters[name].default is inspect.Parameter.empty:
            raise ConfigError(f"parameter `{name}` of the broker factory must have a default")

    def make() -> BrokerTestbed:
        clock = ManualClock(_START_NS)
        made = factory(clock=clock, instrument=DEFAULT_INSTRUMENT, seed=seed)
        if isinstance(made, BrokerTestbed):
            return made
        if not callable(getattr(made, "submit_order", None)):
            raise ConfigError(f"the broker factory must return a Broker or a BrokerTestbed, was {type(made).__name__}")
        return BrokerTestbed(made, DEFAULT_INSTRUMENT, clock)

    return make
