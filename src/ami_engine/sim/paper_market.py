"""One market of a simulated venue: its best prices, and our orders that rest there."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

from ami_engine.events import BookSnapshot, OrderReport, OrderStatus, Side, SubmitOrder
from ami_engine.sim.paper_ledger import EXACT, ZERO, exact
from ami_engine.units import Instrument

__all__ = ["PaperMarket", "PaperOrder"]

# Two prices nearer than this share of a tick are one price; without a grid, than this share of the price.
_SAME_TICKS = 1e-6
_SAME_FRAC = 1e-12
_ONE = Decimal(1)


class PaperOrder:
    """One order at the venue, or on its way there.

    Prices are compared with floats: `low` and `high` bound what counts as the order's own price. `ahead` is the size
    before us at the price, infinite while it is unknown; `shown` the size last displayed there, negative when not seen;
    `traded` what trades took since.
    """

    __slots__ = (
        "ahead",
        "cancel_sent",
        "high",
        "is_buy",
        "leaves",
        "low",
        "market",
        "price",
        "request",
        "shown",
        "takes",
        "traded",
        "venue_order_id",
    )

    def __init__(self, request: SubmitOrder, market: PaperMarket, venue_order_id: str) -> None:
        price = float(request.price)
        margin = market.same_price(price)
        self.request = request
        self.market = market
        self.venue_order_id = venue_order_id
        self.is_buy = request.side == Side.BUY
        self.price = price
        self.low = price - margin
        self.high = price + margin
        self.leaves = exact(request.qty)
        self.ahead = math.inf
        self.shown = -1.0
        self.traded = 0.0
        self.takes = False
        self.cancel_sent = False

    def report(self, status: OrderStatus | None = None) -> OrderReport:
        """Return what the venue says of the order; an open one's status follows from what is filled."""
        request = self.request
        filled = float(EXACT.subtract(exact(request.qty), self.leaves))
        if status is None:
            status = OrderStatus.PARTIALLY_FILLED if filled else OrderStatus.NEW
        return OrderReport(
            client_order_id=request.client_order_id,
            market_id=request.market_id,
            side=Side.BUY if self.is_buy else Side.SELL,
            price=self.price,
            qty=request.qty,
            filled_qty=filled,
            status=status,
            venue_order_id=self.venue_order_id,
        )


class PaperMarket:
    """Best prices, what of them we already took, and our resting orders: best price first, then oldest first."""

    __slots__ = (
        "ask",
        "ask_size",
        "ask_taken",
        "bid",
        "bid_size",
        "bid_taken",
        "book",
        "buys",
        "instrument",
        "lot",
        "on_grid",
        "sells",
        "symbol",
    )

    def __init__(self, symbol: str, instrument: Instrument, *, on_grid: bool) -> None:
        self.name(symbol, instrument, on_grid=on_grid)
        self.bid = self.ask = 0.0
        self.bid_size = self.ask_size = 0.0
        self.bid_taken = self.ask_taken = ZERO
        self.book: Any = None
        self.buys: list[PaperOrder] = []
        self.sells: list[PaperOrder] = []

    def name(self, symbol: str, instrument: Instrument, *, on_grid: bool) -> None:
        """Say what the market is called and what is traded there; while no order was placed, this may be said again."""
        self.symbol = symbol
        self.instrument = instrument
        self.on_grid = on_grid
        self.lot = exact(instrument.lot_size) if on_grid and instrument.lot_size > 0.0 else ZERO

    def same_price(self, price: float) -> float:
        """Return how far apart two numbers may be that are both `price`."""
        return self.instrument.tick_size * _SAME_TICKS if self.on_grid else abs(price) * _SAME_FRAC

    def executable(self, order: PaperOrder, qty: Decimal) -> Decimal:
        """Round what is executed of an order down to the lot; where there is none, leave no crumb of it."""
        if self.lot:
            return EXACT.multiply(EXACT.divide_int(qty, self.lot), self.lot)
        if qty >= order.leaves:
            return order.leaves
        unit = _ONE.scaleb(self.instrument.fill_exponent(order.request.qty), EXACT)
        whole = EXACT.multiply(EXACT.divide_int(qty, unit), unit)
        if EXACT.subtract(order.leaves, whole) < unit:
            whole = EXACT.subtract(whole, unit)
        return max(ZERO, whole)

    def reaches(self, order: PaperOrder) -> bool:
        """Return True when the order's price is at or through the opposite best price."""
        return 0.0 < self.ask <= order.high if order.is_buy else self.bid >= order.low and self.bid > 0.0

    def first_to_meet(self, order: PaperOrder) -> PaperOrder | None:
        """Return our own resting order that `order` would trade with; None when there is none."""
        if order.is_buy:
            return self.sells[0] if self.sells and self.sells[0].low <= order.high else None
        return self.buys[0] if self.buys and self.buys[0].high >= order.low else None

    def insert(self, order: PaperOrder) -> None:
        """Put an order behind those of its price and before worse ones."""
        queue = self.buys if order.is_buy else self.sells
        at = len(queue)
        while at and (queue[at - 1].price < order.price if order.is_buy else queue[at - 1].price > order.price):
            at -= 1
        queue.insert(at, order)

    def remove(self, order: PaperOrder) -> None:
        """Take an order out, if it rests here."""
        queue = self.buys if order.is_buy else self.sells
        if order in queue:
            queue.remove(order)

    def displayed(self, order: PaperOrder) -> float:
        """Return the size that others display at the order's price; infinite when nobody says."""
        best, size = (self.bid, self.bid_size) if order.is_buy else (self.ask, self.ask_size)
        if order.low <= best <= order.high:
            return size
        if best == 0.0 or (best < order.low if order.is_buy else best > order.high):
            return 0.0
        if not isinstance(self.book, BookSnapshot):
            return math.inf
        levels = self.book.bids if order.is_buy else self.book.asks
        for price, size in levels:
            if order.low <= price <= order.high:
                return float(size)
        # Between two displayed levels nobody rests; below the last one nobody knows.
        return 0.0 if len(levels) and _is_before(order, levels[-1][0]) else math.inf

    def renew_taken(self, bid: float, ask: float, bid_size: float, ask_size: float) -> None:
        """Give back displayed size that we took, before the best prices become the ones given.

        Another price is another level. At the same price what was added is new, and what left may be what we took: so a
        change of either kind gives back as much, and an unchanged display nothing.
        """
        if self.ask_taken:
            self.ask_taken = _left_of(self.ask_taken, self.ask_size, ask_size) if ask == self.ask else ZERO
        if self.bid_taken:
            self.bid_taken = _left_of(self.bid_taken, self.bid_size, bid_size) if bid == self.bid else ZERO

    def available(self, order: PaperOrder) -> Decimal:
        """Return how much of `order` the opposite best can fill: displayed and not yet taken.

        A price that comes without a size (a bar's close, a feed of prices alone) takes any size.
        """
        size, taken = (self.ask_size, self.ask_taken) if order.is_buy else (self.bid_size, self.bid_taken)
        if size == 0.0:
            return order.leaves
        return self.executable(order, max(ZERO, min(order.leaves, EXACT.subtract(exact(size), taken))))

    def take(self, order: PaperOrder, qty: Decimal) -> None:
        """Remember that `qty` of the opposite best is ours."""
        if order.is_buy:
            self.ask_taken = EXACT.add(self.ask_taken, qty)
        else:
            self.bid_taken = EXACT.add(self.bid_taken, qty)


def _is_before(order: PaperOrder, price: float) -> bool:
    return bool(order.price > price if order.is_buy else order.price < price)


def _left_of(taken: Decimal, before: float, now: float) -> Decimal:
    """Return what is still taken of a displayed size that went from `before` to `now`."""
    changed = EXACT.subtract(exact(now), exact(before)).copy_abs()
    return max(ZERO, EXACT.subtract(taken, changed))
