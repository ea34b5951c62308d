"""A broker that fills orders from market data as a venue would."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

import msgspec

from ami_engine.adapters.base import Broker
from ami_engine.errors import ConfigError, VenueRejected
from ami_engine.events import (
    Bar,
    FeedGap,
    Fill,
    GenericEvent,
    Liquidity,
    MarketEvent,
    OrderAck,
    OrderReport,
    OrderStatus,
    Side,
    SubmitOrder,
    TimeInForce,
    TimerEvent,
    Trade,
)
from ami_engine.execution.order_restore import ENDS, OrderTold
from ami_engine.sim.fill_models import queue_model
from ami_engine.sim.order_history import OrderHistory
from ami_engine.sim.paper_ledger import EXACT, ZERO, PaperLedger, exact
from ami_engine.sim.paper_market import PaperMarket, PaperOrder
from ami_engine.sim.paper_matching import PaperMatcher
from ami_engine.sim.uniform_stream import UniformStream
from ami_engine.units import NS_PER_MS, Instrument, ns_from_ms

__all__ = ["PaperBroker"]

# These say nothing about prices; time passes with them all the same.
_WITHOUT_PRICES = frozenset({TimerEvent, FeedGap, GenericEvent})
# Fills that `fetch_fills` can still tell of.
_FILLS_KEPT = 10_000


class PaperBroker(Broker):
    """A simulated venue. It holds orders, fills them from the market data it is shown, and keeps exact books.

    Time is that of the events: `recv_ts_ns`, or `exch_ts_ns` where it is 0. A market is the events of one symbol and
    the orders whose `market_id` is that symbol. While only one symbol was seen, the first order may call its market
    anything (a feed need not name it): it keeps that name.

    **Resting orders** fill

    - when a trade prints through their price (below a buy), up to the printed size, whoever was the aggressor;
    - when a trade prints at their price, not by an aggressor of their own side, with what is left of it behind the size
      that the queue model holds to be ahead (`fill_models`). An order that improves the best price has nothing ahead.
      One that joins a displayed level has the displayed size ahead. One whose level is not seen is not filled at its
      price until the level becomes the best, and joins behind it then;
    - when the opposite best moves through their price, wholly: who moved it would have met them first;
    - when the opposite best comes to their price, up to the size displayed there.

    They fill at their own price as maker; the best price first, then the oldest first. One print's volume fills one
    unit of ours once, and so does displayed size (it is renewed as the display changes). Executed sizes are rounded
    down to the lot.

    **Bars** fill resting buys above the low and sells below the high, up to the bar's volume (any size when it has
    none); an order exactly at the extreme only when nothing is ahead of it. Both sides may fill in one bar: the way
    between the extremes is taken as low first in a bar that closes at or above its open, high first otherwise.

    **Marketable orders** take the best opposite price alone, up to the size displayed there (any size when none is),
    and pay the taker fee. What is left of an IOC expires; what is left of a GTC order rests and goes on taking the best
    price as new size is displayed.

    **Refused** with `VenueRejected`, by rule and value: a price off the tick, a size off the lot, less than min_qty or
    min_notional (not for reduce-only orders, which must be able to close what is left), a post-only order at or through
    the opposite best, a reduce-only order that would not reduce, an order that would trade with a resting order of
    ours (self-trade prevention cancels the newest), and one that arrives after its `expires_ns`. A reduce-only order is
    cut to the position and never flips it; one that finds no position when it would fill expires.

    **Latency.** With `latency_ms` or `latency_jitter_ms`, submits and cancels travel in one queue and arrive before the
    first event stamped at or after their arrival; until then nothing of them is known at the venue, and fills in the
    meantime are real. `submit_order` returns its ack and `cancel_order` True when the request is sent; an order that is
    refused on arrival is EXPIRED in `fetch_order`, because it was acknowledged. Without latency a request is done when
    the call returns.

    **Memory** is bounded: ended orders are remembered for `history` orders, 64 bytes each, so that an id is refused or
    acknowledged again as it was; after that it would be taken for new. `fetch_fills` knows the last 10 000 fills.

    There is no margin: cash may become negative.

    Parameters
    ----------
    instrument : Instrument, optional
        Grid, minima, fees and multiplier of every market that `instruments` does not name. Without it such a market has
        no grid, no minima and no fees: any finite price and size above 0 is taken.
    instruments : mapping of str to Instrument, optional
        The same by market.
    cash : float
        Balance at the start, in the currency of `instrument` (else of the first of `instruments`, else USD).
    queue : {"back", "front", "prob"}
        Queue model.
    latency_ms, latency_jitter_ms : float
        A request travels for latency_ms plus a uniform share of latency_jitter_ms, ms.
    seed : int
        Seed of the jitter and of the "prob" queue.
    history : int
        How many ended orders are remembered, at least 1.

    Raises
    ------
    ConfigError
        When a parameter is outside its range.

    Examples
    --------
    >>> from ami_engine.events import BookTicker
    >>> broker = PaperBroker(cash=100.0)
    >>> broker.on_market_data(BookTicker(0, 1_000, "X"), 0.49, 0.51, 5.0, 5.0)
    >>> order = SubmitOrder(client_order_id="a1", market_id="X", side=Side.BUY, price=0.5, qty=2.0)
    >>> broker.submit_order(order).client_order_id
    'a1'
    >>> broker.on_market_data(Trade(0, 2_000, "X", 0, 0.5, 1.5, -1), 0.49, 0.51, 5.0, 5.0)
    >>> [(fill.qty, fill.price, fill.liquidity.value) for fill in broker.process_fills(0)]
    [(1.5, 0.5, 'MAKER')]
    >>> broker.get_state()["positions"], broker.get_state()["cash"]
    ({'X': 1.5}, 99.25)
    """

    def __init__(
        self,
        instrument: Instrument | None = None,
        *,
        instruments: Mapping[str, Instrument] | None = None,
        cash: float = 0.0,
        queue: Literal["back", "front", "prob"] = "back",
        latency_ms: float = 0.0,
        latency_jitter_ms: float = 0.0,
        seed: int = 0,
        history: int = 100_000,
    ) -> None:
        for name, value in (("latency_ms", latency_ms), ("latency_jitter_ms", latency_jitter_ms)):
            if not (math.isfinite(value) and value >= 0.0):
                raise ConfigError(f"`{name}` must be finite and >= 0, was {value!r}")
        if not math.isfinite(cash):
            raise ConfigError(f"`cash` must be finite, was {cash!r}")
        if history < 1:
            raise ConfigError(f"`history` must be at least 1, was {history!r}")
        self._default = instrument
        self._instruments = dict(instruments or {})
        known = instrument or next(iter(self._instruments.values()), None)
        self._currency = known.currency if known is not None else "USD"
        self._matcher = PaperMatcher(queue_model(queue, seed), self._fill)
        self._latency_ns = ns_from_ms(latency_ms)
        self._jitter_ns = latency_jitter_ms * NS_PER_MS
        self._is_remote = latency_ms > 0.0 or latency_jitter_ms > 0.0
        self._stream = UniformStream(seed, stream=1)
        self._queue = queue
        self._ledger = PaperLedger(cash, self._currency)
        self._positions: dict[str, float] = {}
        self._feeds: dict[str, PaperMarket] = {}
        self._markets: dict[str, PaperMarket] = {}
        self._open: dict[str, PaperOrder] = {}
        self._ended = OrderHistory(history)
        self._misformed: dict[str, str] = {}
        self._in_flight: deque[tuple[int, PaperOrder, bool]] = deque()
        self._unreported: list[Fill] = []
        self._fills: deque[Fill] = deque(maxlen=_FILLS_KEPT)
        self._now_ns = 0
        self._orders_seen = 0
        self._fills_made = 0
        self._recall: Callable[[], None] | None = None

    # What another keeps for a while.

    @property
    def is_fresh(self) -> bool:
        """True while nothing was ever shown to the venue or asked of it."""
        return not (self._now_ns or self._orders_seen or self._feeds or self._markets or self._recall)

    @property
    def is_remote(self) -> bool:
        """True when requests travel."""
        return self._is_remote

    @property
    def queue(self) -> str:
        """Name of the queue model."""
        return self._queue

    @property
    def history(self) -> int:
        """How many ended orders are remembered."""
        return self._ended.limit

    @property
    def currency(self) -> str:
        """Currency of the account."""
        return self._currency

    def instrument_of(self, symbol: str, market_id: str) -> Instrument | None:
        """Return the instrument of the market that a symbol's events and orders of a name meet in; None: no grid."""
        return self._instruments.get(market_id) or self._instruments.get(symbol, self._default)

    @property
    def draws(self) -> UniformStream | None:
        """The random numbers of the "prob" queue, None for the other models."""
        return self._matcher.draws

    def lend(self, recall: Callable[[], None] | None) -> None:
        """Let another keep the books until they are asked for: then `recall` has to `load` them. None: no longer."""
        self._recall = recall

    def load(
        self,
        symbol: str,
        market_id: str,
        told: Mapping[str, Any],
        *,
        ended: Iterable[tuple[Any, ...]],
        request: Callable[[OrderTold], SubmitOrder],
        order_id: Callable[[int, bool], str],
    ) -> None:
        """Take over the books of one linear market from who kept them.

        Parameters
        ----------
        symbol, market_id : str
            As the events and as the orders name it.
        told : mapping
            What the core's `Stepper.venue` returns.
        ended : iterable of tuple
            What its `take_ended` does: the orders that ended, oldest first.
        request : callable
            Makes the `SubmitOrder` of an `OrderTold`.
        order_id : callable
            Client order id of the order that a step placed on a side (True: a buy).
        """
        self._recall = None
        self._now_ns, self._orders_seen = told["now_ns"], told["orders_seen"]
        if not self._now_ns:
            return
        market = self._open_feed(symbol)
        if told["has_orders"]:
            market = self._market(market_id)
        market.book = told["book"]
        market.bid, market.ask, market.bid_size, market.ask_size = told["view"]
        market.bid_taken, market.ask_taken = Decimal(told["bid_taken"]), Decimal(told["ask_taken"])
        if self.draws is not None:
            self.draws.skip(told["draws_used"])
        for number, order, *state in sorted(told["open"]):
            placed = PaperOrder(request(OrderTold(*order)), market, f"P{number}")
            leaves, placed.ahead, placed.shown, placed.traded, placed.takes = state
            placed.leaves = Decimal(leaves)
            market.insert(placed)
            self._open[placed.request.client_order_id] = placed
        for is_buy, end, price, qty, filled_qty, step, number in ended:
            self._ended.add(
                OrderReport(
                    client_order_id=order_id(step, is_buy),
                    market_id=market_id,
                    side=Side.BUY if is_buy else Side.SELL,
                    price=price,
                    qty=qty,
                    filled_qty=filled_qty,
                    status=ENDS[end],
                    venue_order_id=f"P{number}",
                )
            )
        self._load_money(market, told, order_id)

    def _load_money(self, market: PaperMarket, told: Mapping[str, Any], order_id: Callable[[int, bool], str]) -> None:
        currency = market.instrument.currency

        def fills(listed: Iterable[tuple[Any, ...]]) -> list[Fill]:
            return [
                Fill(
                    trade_id=f"{ts_ns}-{number}",
                    client_order_id=order_id(step, is_buy),
                    market_id=market.symbol,
                    side=Side.BUY if is_buy else Side.SELL,
                    price=price,
                    qty=qty,
                    fee=fee,
                    fee_currency=currency,
                    liquidity=Liquidity.MAKER if is_maker else Liquidity.TAKER,
                    ts_ns=ts_ns,
                )
                for number, _, is_buy, is_maker, price, qty, fee, ts_ns, step in listed
            ]

        self._unreported = fills(told["unreported"])
        self._fills.extend(fills(told["fills"]))
        self._fills.extend(self._unreported)
        if not self._fills:
            return
        self._fills_made = told["fills_made"]
        ledger = self._ledger
        ledger.cash[currency] = EXACT.add(ledger.cash.get(currency, ZERO), Decimal(told["cash_flow"]))
        ledger.positions[market.symbol] = Decimal(told["position"])
        self._positions[market.symbol] = float(ledger.positions[market.symbol])

    def _take_back(self) -> None:
        """Have the books brought by who keeps them, before anyone looks."""
        if self._recall is not None:
            self._recall()

    def __getstate__(self) -> dict[str, Any]:
        self._take_back()
        return self.__dict__

    # What the market says.

    def on_market_data(self, event: MarketEvent, bid: float, ask: float, bid_size: float, ask_size: float) -> None:
        """See an event and the best prices after it, 0 where a side is missing; fill what it fills."""
        if self._recall is not None:
            self._take_back()
        now_ns = event.recv_ts_ns or event.exch_ts_ns
        in_flight = self._in_flight
        if in_flight and in_flight[0][0] <= now_ns:
            self._deliver(now_ns)
        if now_ns > self._now_ns:
            self._now_ns = now_ns
        kind = type(event)
        if kind in _WITHOUT_PRICES:
            return
        market = self._feeds.get(event.symbol)
        if market is None:
            market = self._open_feed(event.symbol)
        if market.ask_taken or market.bid_taken:
            market.renew_taken(bid, ask, bid_size, ask_size)
        market.bid = bid
        market.ask = ask
        market.bid_size = bid_size
        market.ask_size = ask_size
        if kind is not Trade:
            market.book = event
        if market.buys or market.sells:
            if kind is Bar:
                self._matcher.match_bar(market, event)  # type: ignore[arg-type]
                return
            if kind is Trade:
                self._matcher.match_trade(market, event)  # type: ignore[arg-type]
            self._matcher.match_best(market)

    # What an order goes through.

    def submit_order(self, order: SubmitOrder) -> OrderAck:
        """Place an order; a client order id that is known already gets its first answer again, and nothing more.

        Raises
        ------
        VenueRejected
            When the order breaks a rule of the venue; the message names the rule and the value.
        """
        known = self.fetch_order(order.client_order_id)
        if known is not None:
            if known.status is OrderStatus.REJECTED:
                raise VenueRejected(f"client order id {order.client_order_id!r} was rejected before")
            return OrderAck(client_order_id=known.client_order_id, venue_order_id=known.venue_order_id)
        if order.client_order_id in self._misformed:
            raise VenueRejected(self._misformed[order.client_order_id])
        market = self._market(order.market_id)
        try:
            _check_form(order, market)
        except VenueRejected as refused:
            self._remember_misformed(order.client_order_id, str(refused))
            raise
        self._orders_seen += 1
        placed = PaperOrder(order, market, f"P{self._orders_seen}")
        ack = OrderAck(client_order_id=order.client_order_id, venue_order_id=placed.venue_order_id)
        self._open[order.client_order_id] = placed
        if self._is_remote:
            self._send(placed, is_cancel=False)
        else:
            self._arrive(placed)
        return ack

    def _remember_misformed(self, client_order_id: str, refusal: str) -> None:
        """Keep the answer to an order that never became one here: it has no number and no report, as in the core."""
        self._misformed[client_order_id] = refusal
        if len(self._misformed) > self._ended.limit:
            del self._misformed[next(iter(self._misformed))]

    def _arrive(self, order: PaperOrder) -> None:
        """Check an order against the market as it is now, then trade, rest or expire it."""
        market = order.market
        refusal = self._refusal(order, market)
        if refusal:
            # An order that was acknowledged cannot be rejected any more: venues report such a one as expired.
            self._end(order, OrderStatus.EXPIRED if self._is_remote else OrderStatus.REJECTED)
            raise VenueRejected(refusal)
        if market.reaches(order):
            order.takes = True
            self._matcher.take_best(market, order)
        if order.request.client_order_id not in self._open:
            return
        if order.request.tif == TimeInForce.IOC:
            self._end(order, OrderStatus.EXPIRED)
            return
        self._matcher.rest(market, order)

    def _refusal(self, order: PaperOrder, market: PaperMarket) -> str:
        """Return why the market refuses an order now; empty when it does not."""
        request = order.request
        if request.expires_ns and self._now_ns > request.expires_ns:
            return f"`expires_ns` is {request.expires_ns}, the request arrived at {self._now_ns}"
        if request.reduce_only and not self._reducible(order):
            return reduce_only_refusal(request.side, market.symbol, self._positions.get(market.symbol, 0.0))
        ours = market.first_to_meet(order)
        if ours is not None:
            return own_order_refusal(order.price, ours.request.client_order_id, ours.price)
        if request.post_only and market.reaches(order):
            return taking_refusal(order.price, market.ask if order.is_buy else market.bid)
        return ""

    def _reducible(self, order: PaperOrder) -> Decimal:
        """Return how much of the position an order can close."""
        held = self._ledger.position(order.market.symbol)
        return held.copy_abs() if (held < 0) == order.is_buy else ZERO

    def _fill(
        self, market: PaperMarket, order: PaperOrder, qty: Decimal, price: float, liquidity: Liquidity
    ) -> Decimal:
        """Execute up to `qty` of an order, book it and queue the report; return what was executed."""
        request = order.request
        if request.reduce_only:
            qty = min(qty, self._reducible(order))
            if not self._reducible(order):
                self._end(order, OrderStatus.EXPIRED)
        if qty <= ZERO:
            return ZERO
        instrument = market.instrument
        fee_bps = instrument.maker_fee_bps if liquidity is Liquidity.MAKER else instrument.taker_fee_bps
        fee = self._ledger.book(
            market.symbol, instrument, is_buy=order.is_buy, price=exact(price), qty=qty, fee_bps=exact(fee_bps)
        )
        self._positions[market.symbol] = float(self._ledger.position(market.symbol))
        order.leaves = EXACT.subtract(order.leaves, qty)
        self._fills_made += 1
        fill = Fill(
            # The time makes ids differ between a run and the one that resumes it.
            trade_id=f"{self._now_ns}-{self._fills_made}",
            client_order_id=request.client_order_id,
            market_id=market.symbol,
            side=Side.BUY if order.is_buy else Side.SELL,
            price=price,
            qty=float(qty),
            fee=float(fee),
            fee_currency=instrument.currency,
            liquidity=liquidity,
            ts_ns=self._now_ns,
        )
        self._unreported.append(fill)
        self._fills.append(fill)
        if not order.leaves:
            self._end(order, OrderStatus.FILLED)
        elif request.reduce_only and not self._reducible(order):
            self._end(order, OrderStatus.EXPIRED)
        return qty

    def _end(self, order: PaperOrder, status: OrderStatus) -> None:
        """Close an order, and forget the one that ended longest ago."""
        client_order_id = order.request.client_order_id
        order.market.remove(order)
        del self._open[client_order_id]
        self._ended.add(order.report(status))

    # Requests on their way.

    def _send(self, order: PaperOrder, *, is_cancel: bool) -> None:
        """Put a request on the way; one connection carries them all, so none overtakes another."""
        arrives_ns = self._now_ns + self._latency_ns
        if self._jitter_ns:
            arrives_ns += int(self._jitter_ns * self._stream.draw())
        if self._in_flight:
            arrives_ns = max(arrives_ns, self._in_flight[-1][0])
        self._in_flight.append((arrives_ns, order, is_cancel))

    def _deliver(self, now_ns: int) -> None:
        """Let the requests arrive that do so until `now_ns`, at their own times and before the event."""
        in_flight = self._in_flight
        while in_flight and in_flight[0][0] <= now_ns:
            arrived_ns, order, is_cancel = in_flight.popleft()
            self._now_ns = max(self._now_ns, arrived_ns)
            if is_cancel:
                if order.request.client_order_id in self._open:
                    self._end(order, OrderStatus.CANCELED)
                continue
            try:
                self._arrive(order)
            except VenueRejected:
                # Nobody waits for the answer any more: `fetch_order` tells.
                continue

    def cancel_order(self, order_id: str) -> bool:
        """Cancel by client order id; False when no such order is open. With latency, True says that it is sent."""
        self._take_back()
        order = self._open.get(order_id)
        if order is None:
            return False
        if not self._is_remote:
            self._end(order, OrderStatus.CANCELED)
        elif not order.cancel_sent:
            order.cancel_sent = True
            self._send(order, is_cancel=True)
        return True

    def cancel_all(self, market_id: str | None = None) -> int:
        """Cancel every open order, or those of one market; return how many there were."""
        self._take_back()
        ids = [key for key, order in self._open.items() if market_id is None or order.market.symbol == market_id]
        return sum(self.cancel_order(client_order_id) for client_order_id in ids)

    # What the venue tells.

    def process_fills(self, now_ms: int) -> list[Fill]:
        """Return the fills since the last call, oldest first, each once. Time is the events': `now_ms` is not read."""
        self._take_back()
        fills = self._unreported
        if fills:
            self._unreported = []
        return fills

    def get_state(self) -> dict[str, Any]:
        """Return positions by market, open orders (as dicts, those on their way included) and cash.

        Cash is in the broker's own currency: what changed hands in linear markets, realized profit in inverse ones,
        both after fees.
        """
        self._take_back()
        return {
            "positions": dict(self._positions),
            "open_orders": [msgspec.to_builtins(order.report()) for order in self._open.values()],
            "cash": float(self._ledger.cash[self._currency]),
        }

    def fetch_order(self, client_order_id: str) -> OrderReport | None:
        """Return what is known of an order, ended ones included; None when it is not known or forgotten."""
        self._take_back()
        order = self._open.get(client_order_id)
        return order.report() if order is not None else self._ended.get(client_order_id)

    def fetch_open_orders(self, market_id: str | None = None) -> Sequence[OrderReport]:
        """Return the open orders, oldest first, those on their way included."""
        self._take_back()
        return [
            order.report() for order in self._open.values() if market_id is None or order.market.symbol == market_id
        ]

    def fetch_fills(self, since_ns: int) -> Iterable[Fill]:
        """Return the fills at or after `since_ns`, oldest first, of the last 10 000; reported ones too."""
        self._take_back()
        return [fill for fill in self._fills if fill.ts_ns >= since_ns]

    def fetch_balances(self) -> Mapping[str, float]:
        """Return the cash of each currency."""
        self._take_back()
        return {currency: float(amount) for currency, amount in self._ledger.cash.items()}

    # Markets: `_feeds` has them by the symbol of their events, `_markets` by the name that orders use.

    def _open_feed(self, symbol: str) -> PaperMarket:
        """Return the market of a symbol whose first event this is."""
        market = self._markets.get(symbol)
        if market is None:
            market = self._new_market(symbol)
        elif market in self._feeds.values():
            fed_by = next(known for known, fed in self._feeds.items() if fed is market)
            raise ConfigError(f"market {symbol!r} was traded on the prices of {fed_by!r}: order after its first event")
        self._feeds[symbol] = market
        return market

    def _market(self, market_id: str) -> PaperMarket:
        """Return the market that an order names: its symbol's, else the only one, else one without prices."""
        market = self._markets.get(market_id)
        if market is None:
            market = self._feeds.get(market_id)
            if market is None and len(self._feeds) == 1:
                (only,) = self._feeds.values()
                if only.symbol not in self._markets:
                    known = self._instruments.get(market_id, only.instrument)
                    only.name(market_id, known, on_grid=only.on_grid or market_id in self._instruments)
                    market = only
            if market is None:
                market = self._new_market(market_id)
            self._markets[market_id] = market
        return market

    def _new_market(self, name: str) -> PaperMarket:
        known = self._instruments.get(name, self._default)
        instrument = known if known is not None else Instrument(name, currency=self._currency)
        return PaperMarket(name, instrument, on_grid=known is not None)


def reduce_only_refusal(side: Side, symbol: str, held: float) -> str:
    """Return why an order that was to reduce a position is refused."""
    return f"`reduce_only` {side} does not reduce the position of {symbol!r}, which is {held}"


def own_order_refusal(price: float, own_id: str, own_price: float) -> str:
    """Return why an order is refused that would trade with one of our own."""
    return f"self-trade prevention: the order at {price} would trade with our own order {own_id!r} at {own_price}"


def taking_refusal(price: float, best: float) -> str:
    """Return why a `post_only` order is refused that would take."""
    return f"`post_only` order at {price} would take: the best opposite price is {best}"


def form_refusal(order: SubmitOrder, instrument: Instrument | None) -> str:
    """Return why an order is refused that no state of the market could accept; empty when one could."""
    try:
        _check_form(order, PaperMarket(order.market_id, instrument or Instrument(""), on_grid=instrument is not None))
    except VenueRejected as refused:
        return str(refused)
    return ""


def _check_form(order: SubmitOrder, market: PaperMarket) -> None:
    """Refuse an order that no state of the market could accept."""
    # Whoever calls a venue directly may bring an order of his own making.
    for word, known in ((order.side, Side), (order.tif, TimeInForce)):
        if word not in tuple(known):
            field = "side" if known is Side else "tif"
            raise VenueRejected(f"`{field}` must be {' or '.join(known)}, was {word!r}")
    price, qty = order.price, order.qty
    for name, value in (("price", price), ("qty", qty)):
        if not (math.isfinite(value) and value > 0.0):
            raise VenueRejected(f"`{name}` must be finite and > 0, was {value!r}")
    if not market.on_grid:
        return
    instrument = market.instrument
    nearest = instrument.price_from_ticks(instrument.ticks(price))
    if abs(price - nearest) > market.same_price(price):
        raise VenueRejected(f"`price` must be a multiple of tick_size {instrument.tick_size}, was {price!r}")
    if instrument.lot_size and abs(instrument.round_qty(qty) - qty) > 1e-9 * qty:
        raise VenueRejected(f"`qty` must be a multiple of lot_size {instrument.lot_size}, was {qty!r}")
    if order.reduce_only:
        return
    if qty < instrument.min_qty:
        raise VenueRejected(f"`qty` must be at least min_qty {instrument.min_qty}, was {qty!r}")
    notional = instrument.notional(price, qty)
    if notional < instrument.min_notional:
        raise VenueRejected(f"notional must be at least min_notional {instrument.min_notional}, was {notional!r}")
