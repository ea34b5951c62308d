"""The truth of a mock exchange: orders, fills, positions and balances, and a little market that trades with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from ami_engine.errors import ConfigError, VenueRejected
from ami_engine.events import Fill, Liquidity, OrderAck, OrderReport, OrderStatus, Side, SubmitOrder, TimeInForce
from ami_engine.sim.paper_ledger import PaperLedger, exact
from ami_engine.sim.splitmix import SplitMix
from ami_engine.units import Instrument

__all__ = ["DEFAULT_INSTRUMENT", "MockMarket", "MockVenue", "VenueOrder"]

DEFAULT_INSTRUMENT = Instrument("MOCK", tick_size=0.01, lot_size=0.001, maker_fee_bps=-0.5, taker_fee_bps=4.0)
_START_TICKS = 10_000
_SIZE_LOTS = 50_000
# Per mille of the moments at which somebody trades with a resting order of ours.
_TRADES_PER_MILLE = 350
_OPEN = (OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED)


class VenueOrder:
    """An order at the venue; sizes in lots."""

    __slots__ = ("filled", "is_buy", "lots", "market", "request", "status", "ticks", "venue_order_id")

    def __init__(self, request: SubmitOrder, market: MockMarket, venue_order_id: str, ticks: int, lots: int) -> None:
        self.request = request
        self.market = market
        self.venue_order_id = venue_order_id
        self.is_buy = request.side == Side.BUY
        self.ticks = ticks
        self.lots = lots
        self.filled = 0
        self.status = OrderStatus.NEW

    @property
    def leaves(self) -> int:
        """Lots that may still fill."""
        return self.lots - self.filled if self.status in _OPEN else 0

    def report(self) -> OrderReport:
        """Return the order as a query tells it."""
        request = self.request
        return OrderReport(
            client_order_id=request.client_order_id,
            market_id=request.market_id,
            side=request.side,
            price=request.price,
            qty=request.qty,
            filled_qty=self.market.qty(self.filled),
            status=self.status,
            venue_order_id=self.venue_order_id,
        )


class MockMarket:
    """One market: best prices that wander by ticks, and our resting orders in it."""

    __slots__ = ("ask", "bid", "instrument", "position", "resting")

    def __init__(self, instrument: Instrument) -> None:
        if instrument.lot_size <= 0.0:
            raise ConfigError(f"`lot_size` of {instrument.symbol!r} must be > 0 at a mock exchange, was 0")
        self.instrument = instrument
        self.bid = _START_TICKS - 1
        self.ask = _START_TICKS + 1
        self.position = 0  # lots, signed
        self.resting: list[VenueOrder] = []  # oldest first

    def qty(self, lots: int) -> float:
        """Return a size in lots as the shortest decimal."""
        return self.instrument.qty_from_lots(lots)

    @property
    def best(self) -> tuple[float, float, float, float]:
        """Best bid and ask with their sizes, in money and units."""
        price, size = self.instrument.price_from_ticks, self.qty(_SIZE_LOTS)
        return price(self.bid), size, price(self.ask), size

    def wander(self, draw: SplitMix) -> None:
        """Move the best prices by up to two ticks, 1 to 3 ticks apart."""
        word = draw.word()
        self.bid = max(100, self.bid + (word >> 8) % 5 - 2)
        self.ask = self.bid + 1 + (word >> 16) % 3


class MockVenue:
    """Orders, fills, positions and balances; exact, and without anything that goes wrong.

    Parameters
    ----------
    instruments : list of Instrument
        One market each, named by its symbol; each needs a lot size.
    seed : int
        Of the market's wandering and of who trades with us.
    now_ns : callable
        The venue's clock.
    emit : callable
        Gets every `Fill` and every `OrderReport` of a changed order, as a stream would tell them.
    excess : callable
        Asked at every execution: how many lots are filled beyond what was ordered, which no venue should.
    recv_window_ms : int or None
        Requests that carry `expires_ns` are refused after it. None: this venue cannot expire requests.
    dedupe : {"all", "open"}
        Which client order ids are known again: all, or only those of open orders, as at venues that let an id be used
        again once its order has ended.
    cash : float
        Balance at the start.
    """

    def __init__(
        self,
        instruments: list[Instrument],
        *,
        seed: int,
        now_ns: Callable[[], int],
        emit: Callable[[Any], None],
        excess: Callable[[], int],
        recv_window_ms: int | None,
        dedupe: Literal["all", "open"],
        cash: float,
    ) -> None:
        self.markets = {each.symbol: MockMarket(each) for each in instruments}
        self.recv_window_ms = recv_window_ms
        self.orders: dict[str, VenueOrder] = {}  # the last of each client order id
        self.placements: dict[str, int] = {}  # how often an order of that id went live
        self.placed = 0  # orders that ever went live
        self.most_of_an_id = 0  # placements of one id
        self.most_on_a_side = 0  # quotes of ours that were ever live together on one side of a market
        self.fills: list[Fill] = []
        self.ledger = PaperLedger(cash, instruments[0].currency)
        self.draw = SplitMix(seed, stream=2)
        self._dedupe = dedupe
        self._now_ns = now_ns
        self._emit = emit
        self._excess = excess
        self._numbered = 0

    # Requests. ----------------------------------------------------------------------------------------------------

    def submit(self, request: SubmitOrder) -> OrderAck:
        """Take an order in, trade it, rest it or expire it.

        Raises
        ------
        VenueRejected
            When a rule of the venue refuses it.
        """
        known = self.orders.get(request.client_order_id)
        if known is not None and (self._dedupe == "all" or known.status in _OPEN):
            if known.status is OrderStatus.REJECTED:
                raise VenueRejected(f"client order id {request.client_order_id!r} was rejected before")
            return OrderAck(client_order_id=request.client_order_id, venue_order_id=known.venue_order_id)
        order = self._checked(request)
        refusal = self._refusal(order)
        if refusal:
            if self._dedupe == "all":
                order.status = OrderStatus.REJECTED
                self.orders[request.client_order_id] = order
            raise VenueRejected(refusal)
        self._place(order)
        return OrderAck(client_order_id=request.client_order_id, venue_order_id=order.venue_order_id)

    def _checked(self, request: SubmitOrder) -> VenueOrder:
        if self.recv_window_ms is not None and 0 < request.expires_ns < self._now_ns():
            raise VenueRejected(f"the request came after its receive window, which ended at {request.expires_ns} ns")
        market = self.markets.get(request.market_id)
        if market is None:
            raise VenueRejected(f"market {request.market_id!r} is unknown")
        instrument = market.instrument
        if not (request.price > 0.0 and request.qty > 0.0 and max(request.price, request.qty) < 1e15):
            raise VenueRejected(f"`price` and `qty` must be above 0, were {request.price!r} and {request.qty!r}")
        ticks, lots = instrument.ticks(request.price), round(request.qty / instrument.lot_size)
        if instrument.price_from_ticks(ticks) != request.price:
            raise VenueRejected(f"`price` must be a multiple of {instrument.tick_size}, was {request.price!r}")
        if market.qty(lots) != request.qty:
            raise VenueRejected(f"`qty` must be a multiple of {instrument.lot_size}, was {request.qty!r}")
        if not request.reduce_only and instrument.is_below_minimum(request.price, request.qty):
            raise VenueRejected(f"the order is below the smallest, was {request.qty!r} at {request.price!r}")
        self._numbered += 1
        return VenueOrder(request, market, f"V{self._numbered}", ticks, lots)

    def _refusal(self, order: VenueOrder) -> str:
        market, request = order.market, order.request
        if request.reduce_only and not self._reducible(order):
            return f"`reduce_only` must reduce the position, which is {market.position} lots"
        if request.post_only and self._reaches(order):
            return f"`post_only` order at {request.price!r} would take"
        if any(mine.is_buy != order.is_buy and _meet(mine, order) for mine in market.resting):
            return f"self-trade prevention: the order at {request.price!r} would trade with our own"
        return ""

    def _place(self, order: VenueOrder) -> None:
        request, market = order.request, order.market
        self.orders[request.client_order_id] = order
        self.placed += 1
        count = self.placements[request.client_order_id] = self.placements.get(request.client_order_id, 0) + 1
        self.most_of_an_id = max(self.most_of_an_id, count)
        market.resting.append(order)
        self._emit(order.report())
        if request.tif is TimeInForce.GTC:
            same_side = sum(each.is_buy == order.is_buy for each in market.resting)
            self.most_on_a_side = max(self.most_on_a_side, same_side)
        if self._reaches(order):
            self.fill(order, 1 + self.draw.below(2 * order.lots), takes=True)
        if request.tif is TimeInForce.IOC and order.status in _OPEN:
            self._end(order, OrderStatus.EXPIRED)

    def cancel(self, client_order_id: str) -> bool:
        """Cancel one order; False when no such order is open."""
        order = self.orders.get(client_order_id)
        if order is None or order.status not in _OPEN:
            return False
        self._end(order, OrderStatus.CANCELED)
        return True

    def cancel_all(self, market_id: str | None) -> int:
        """Cancel every open order, or those of one market; return how many."""
        return sum(self.cancel(order.request.client_order_id) for order in self.open_orders(market_id))

    def open_orders(self, market_id: str | None = None) -> list[VenueOrder]:
        """Return the open orders, market by market, oldest first."""
        markets = self.markets.values() if market_id is None else filter(None, [self.markets.get(market_id)])
        return [order for market in markets for order in market.resting]

    # The market. --------------------------------------------------------------------------------------------------

    def move(self, market: MockMarket) -> None:
        """Let a moment pass: prices wander through resting orders, and somebody may trade with one."""
        market.wander(self.draw)
        for order in list(market.resting):
            if (order.ticks >= market.ask) if order.is_buy else (order.ticks <= market.bid):
                self.fill(order, order.leaves)
        if market.resting and self.draw.chance(_TRADES_PER_MILLE):
            order = market.resting[self.draw.below(len(market.resting))]
            self.fill(order, 1 + self.draw.below(order.leaves))

    def fill(self, order: VenueOrder, lots: int, *, takes: bool = False) -> None:
        """Execute up to `lots` of an order, cut to what it may."""
        market, request = order.market, order.request
        lots = min(lots, order.leaves)
        if request.reduce_only:
            lots = min(lots, self._reducible(order))
        if lots <= 0:
            return
        excess = self._excess()
        if excess:
            lots = order.leaves
        order.filled += lots
        order.status = OrderStatus.FILLED if order.filled == order.lots else OrderStatus.PARTIALLY_FILLED
        lots += excess
        market.position += lots if order.is_buy else -lots
        instrument = market.instrument
        # A taker trades at the best price, a maker at its own.
        ticks = (market.ask if order.is_buy else market.bid) if takes else order.ticks
        price, qty = instrument.price_from_ticks(ticks), market.qty(lots)
        bps = instrument.taker_fee_bps if takes else instrument.maker_fee_bps
        fee = self.ledger.book(
            instrument.symbol,
            instrument,
            is_buy=order.is_buy,
            price=exact(price),
            qty=exact(qty),
            fee_bps=exact(bps),
        )
        made = Fill(
            trade_id=f"T{len(self.fills) + 1}",
            client_order_id=request.client_order_id,
            market_id=instrument.symbol,
            side=request.side,
            price=price,
            qty=qty,
            fee=float(fee),
            fee_currency=instrument.currency,
            liquidity=Liquidity.TAKER if takes else Liquidity.MAKER,
            ts_ns=self._now_ns(),
        )
        self.fills.append(made)
        if order.status is OrderStatus.FILLED:
            market.resting.remove(order)
        self._emit(made)

    def _end(self, order: VenueOrder, status: OrderStatus) -> None:
        order.status = status
        order.market.resting.remove(order)
        self._emit(order.report())

    def _reaches(self, order: VenueOrder) -> bool:
        market = order.market
        return order.ticks >= market.ask if order.is_buy else order.ticks <= market.bid

    def _reducible(self, order: VenueOrder) -> int:
        held = order.market.position
        return abs(held) if (held < 0) is order.is_buy else 0


def _meet(one: VenueOrder, other: VenueOrder) -> bool:
    buy, sell = (one, other) if one.is_buy else (other, one)
    return buy.ticks >= sell.ticks
