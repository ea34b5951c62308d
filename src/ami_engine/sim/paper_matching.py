"""What fills which of our resting orders: by trades, by the best prices, by bars."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal

from ami_engine.events import Bar, Liquidity, Trade
from ami_engine.sim.fill_models import ProbQueue, QueueModel
from ami_engine.sim.paper_ledger import EXACT, exact
from ami_engine.sim.paper_market import PaperMarket, PaperOrder
from ami_engine.sim.uniform_stream import UniformStream

__all__ = ["Execute", "PaperMatcher"]

# A bar without a volume fills any size: more than any order.
_ANY_SIZE = Decimal("1e100")

# Executes up to a size of an order at a price, and returns what was executed.
Execute = Callable[[PaperMarket, PaperOrder, Decimal, float, Liquidity], Decimal]


class PaperMatcher:
    """Matches our orders with what the market shows. The rules are `PaperBroker`'s; the books are not kept here.

    Parameters
    ----------
    queue : QueueModel
        How much is ahead of an order.
    execute : callable
        Who books a fill: it may execute less than asked, and takes an order that is done out of the market.
    """

    __slots__ = ("_execute", "_queue")

    def __init__(self, queue: QueueModel, execute: Execute) -> None:
        self._queue = queue
        self._execute = execute

    @property
    def draws(self) -> UniformStream | None:
        """The random numbers of the queue model, None when it draws none."""
        return self._queue.stream if isinstance(self._queue, ProbQueue) else None

    def rest(self, market: PaperMarket, order: PaperOrder) -> None:
        """Put an order into the market, behind what is displayed at its price."""
        displayed = market.displayed(order)
        order.ahead = self._queue.join(displayed)
        order.shown = displayed if displayed < math.inf else -1.0
        market.insert(order)

    def match_best(self, market: PaperMarket) -> None:
        """Keep the queue positions, and fill orders that the opposite best reached."""
        bid, ask = market.bid, market.ask
        is_reached = False
        for order in market.buys:
            if 0.0 < ask <= order.high:
                is_reached = True
                continue
            order.takes = False
            if bid < order.low:
                order.ahead = 0.0
            elif bid <= order.high:
                self._keep_place(order, market.bid_size)
        for order in market.sells:
            if bid >= order.low:
                is_reached = True
                continue
            order.takes = False
            if ask > order.high or ask == 0.0:
                order.ahead = 0.0
            elif ask >= order.low:
                self._keep_place(order, market.ask_size)
        if is_reached:
            for order in [*market.buys, *market.sells]:
                if market.reaches(order):
                    self._meet(market, order)

    def _keep_place(self, order: PaperOrder, displayed: float) -> None:
        """Move an order on in the queue of the best price, after a new look at it."""
        if displayed != order.shown:
            order.ahead = self._queue.advance(order.ahead, order.shown, displayed, order.traded)
            order.shown = displayed
            order.traded = 0.0

    def _meet(self, market: PaperMarket, order: PaperOrder) -> None:
        """Fill an order that the opposite best reached."""
        order.ahead = 0.0
        if order.takes:
            self.take_best(market, order)
            return
        is_through = market.ask < order.low if order.is_buy else market.bid > order.high
        if is_through:
            self._execute(market, order, order.leaves, order.price, Liquidity.MAKER)
        else:
            qty = market.available(order)
            if qty:
                market.take(order, self._execute(market, order, qty, order.price, Liquidity.MAKER))

    def take_best(self, market: PaperMarket, order: PaperOrder) -> None:
        """Trade with the opposite best, up to what is displayed and not taken."""
        qty = market.available(order)
        if qty:
            price = market.ask if order.is_buy else market.bid
            market.take(order, self._execute(market, order, qty, price, Liquidity.TAKER))

    def match_trade(self, market: PaperMarket, trade: Trade) -> None:
        """Share a print's size among the orders that it reached."""
        price, aggressor = trade.price, trade.aggressor
        buys, sells = market.buys, market.sells
        if buys and price <= buys[0].high:
            left = exact(trade.size)
            for order in buys.copy():
                if price < order.low:
                    left = self._fill_from(market, order, left)
                elif price <= order.high and aggressor <= 0:
                    left = self._fill_at_price(market, order, left)
        elif sells and price >= sells[0].low:
            left = exact(trade.size)
            for order in sells.copy():
                if price > order.high:
                    left = self._fill_from(market, order, left)
                elif price >= order.low and aggressor >= 0:
                    left = self._fill_at_price(market, order, left)

    def _fill_at_price(self, market: PaperMarket, order: PaperOrder, left: Decimal) -> Decimal:
        """Let a print at the order's price take what is ahead, then fill; return what it leaves to other orders.

        What is ahead of one order of ours is not taken off for the next one: it is ahead of that one too.
        """
        size = float(left)
        order.traded += size
        if order.ahead >= size:
            order.ahead -= size
            return left
        behind = EXACT.subtract(left, exact(order.ahead))
        order.ahead = 0.0
        return EXACT.subtract(left, EXACT.subtract(behind, self._fill_from(market, order, behind)))

    def _fill_from(self, market: PaperMarket, order: PaperOrder, left: Decimal) -> Decimal:
        """Fill an order from a traded size, at its own price; return what is left of the size."""
        qty = market.executable(order, min(left, order.leaves))
        return EXACT.subtract(left, self._execute(market, order, qty, order.price, Liquidity.MAKER))

    def match_bar(self, market: PaperMarket, bar: Bar) -> None:
        """Fill what lies inside the bar's range, low or high first as the bar suggests."""
        left = exact(bar.volume) if bar.volume > 0.0 else _ANY_SIZE
        is_low_first = bar.close >= bar.open
        for order in [*market.buys, *market.sells] if is_low_first else [*market.sells, *market.buys]:
            extreme = bar.low if order.is_buy else bar.high
            is_through = extreme < order.low if order.is_buy else extreme > order.high
            is_touched = order.low <= extreme <= order.high and order.ahead == 0.0
            if is_through or is_touched:
                left = self._fill_from(market, order, left)
