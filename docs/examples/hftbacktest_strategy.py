"""The engine in an hftbacktest backtest: its latencies, queue and orders; our features, model, account and guards.

At each change of the book the strategy asks the engine what should rest, and brings hftbacktest's orders to it. The
market is made here, as an event array of hftbacktest.

Needs hftbacktest (`pip install hftbacktest`). Run it: `python docs/examples/hftbacktest_strategy.py`
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from embedded_decider import MARKET, Decider, Wanted, made_market, report

from ami_engine.events import Fill, Liquidity, Side

try:
    import hftbacktest
except ImportError:
    hftbacktest = None

if hftbacktest is not None:
    from hftbacktest.order import FILLED, GTX, IOC, LIMIT, NEW, NONE
    from hftbacktest.types import (
        BUY_EVENT,
        DEPTH_CLEAR_EVENT,
        DEPTH_SNAPSHOT_EVENT,
        EXCH_EVENT,
        LOCAL_EVENT,
        SELL_EVENT,
        event_dtype,
    )

ASSET = 0  # the backtest's only one
FEED_LATENCY_NS = 1_000_000
ORDER_LATENCY_NS = 2_000_000  # to the exchange, and back
MAKER_FEE, TAKER_FEE = 0.0001, 0.0005  # of the value
TIMEOUT_NS = 60_000_000_000
END, FEED, ANSWER = 1, 2, 3  # what `wait_next_feed` returns


class Sent(msgspec.Struct):
    """An order of ours that hftbacktest has not done with."""

    side: Side
    price_ticks: int
    qty: float
    liquidity: Liquidity
    is_leaving: bool = False


class GuardedMaker:
    """Brings hftbacktest's orders to what the engine wants.

    Parameters
    ----------
    backtest : HashMapMarketDepthBacktest
        The backtest, at its beginning.
    decider : Decider
        The engine.
    """

    def __init__(self, backtest: Any, decider: Decider) -> None:
        self._backtest = backtest
        self._decider = decider
        self._sent: dict[int, Sent] = {}
        self._last_id = 0

    def run(self) -> None:
        """Go through the whole backtest."""
        while (told := self._backtest.wait_next_feed(True, TIMEOUT_NS)) != END:
            if told not in (0, FEED, ANSWER):
                raise RuntimeError(f"hftbacktest failed: wait_next_feed returned {told}")
            self._take_answers()
            if told == FEED:
                self._on_book()

    def _take_answers(self) -> None:
        """Book what was filled, and forget what is done."""
        orders, now_ns = self._backtest.orders(ASSET), self._backtest.current_timestamp
        for order_id, sent in list(self._sent.items()):
            order = orders.get(order_id)
            if order.req != NONE or order.status == NEW:
                continue
            del self._sent[order_id]
            if order.status == FILLED:
                price = MARKET.price_from_ticks(order.exec_price_tick)
                rate = MAKER_FEE if sent.liquidity is Liquidity.MAKER else TAKER_FEE
                self._decider.on_fill(
                    Fill(
                        trade_id=str(order_id),
                        client_order_id=str(order_id),
                        market_id=MARKET.symbol,
                        side=sent.side,
                        price=price,
                        qty=sent.qty,
                        fee=rate * price * sent.qty,
                        liquidity=sent.liquidity,
                        ts_ns=now_ns,
                    )
                )
        self._backtest.clear_inactive_orders(ASSET)

    def _on_book(self) -> None:
        depth, now_ns = self._backtest.depth(ASSET), self._backtest.current_timestamp
        # From ticks: hftbacktest's own product of ticks and tick size is off the grid by a bit.
        bid, ask = MARKET.price_from_ticks(depth.best_bid_tick), MARKET.price_from_ticks(depth.best_ask_tick)
        sizes = depth.best_bid_qty, depth.best_ask_qty
        wanted = self._decider.on_quote(now_ns, bid, ask, *sizes, open_orders=len(self._sent))
        if not wanted.keeps:
            self._bring_to(wanted, (bid + ask) / 2.0, now_ns)

    def _bring_to(self, wanted: Wanted, mid: float, now_ns: int) -> None:
        orders = self._backtest.orders(ASSET)
        busy = {sent.side for sent in self._sent.values()}
        for order_id, sent in self._sent.items():
            quote = wanted.quotes.get(sent.side)
            is_right = quote is not None and MARKET.ticks(quote[0]) == sent.price_ticks
            # One whose answer is still on its way cannot be cancelled; the next book asks again.
            if not is_right and not sent.is_leaving and orders.get(order_id).cancellable:
                sent.is_leaving = self._backtest.cancel(ASSET, order_id, False) == 0
                self._decider.on_cancels(now_ns, 1)
        # A side whose old order is not gone yet gets its new one at a later book: two at once may both be filled.
        for side, (price, qty) in wanted.quotes.items():
            if side not in busy and qty > 0.0:
                self._send(Sent(side, MARKET.ticks(price), qty, Liquidity.MAKER))
        position = self._decider.position
        if wanted.closes and not self._sent and position:
            side = Side.SELL if position > 0.0 else Side.BUY
            # The limit bounds the worst price only.
            self._send(Sent(side, MARKET.ticks(mid * (1.0 + 0.05 * side.sign)), abs(position), Liquidity.TAKER))

    def _send(self, order: Sent) -> None:
        self._last_id += 1
        is_buy = order.side is Side.BUY
        submit = self._backtest.submit_buy_order if is_buy else self._backtest.submit_sell_order
        force = GTX if order.liquidity is Liquidity.MAKER else IOC
        price = MARKET.price_from_ticks(order.price_ticks)
        if submit(ASSET, self._last_id, price, order.qty, force, LIMIT, False) == 0:
            self._sent[self._last_id] = order


def made_events() -> Any:
    """Return the market as an event array of hftbacktest: each book is a snapshot of both sides.

    A backtest ends at its last event without telling it, so the last book stands twice.
    """
    books = list(made_market())
    ts_ns, bid_ticks, size = books[-1]
    books.append((ts_ns + 1_000_000_000, bid_ticks, size))
    return np.array([row for book in books for row in _snapshot(*book)], dtype=event_dtype)


def _snapshot(ts_ns: int, bid_ticks: int, size: float) -> Iterator[tuple[int, int, int, float, float, int, int, float]]:
    for kind, qty in ((DEPTH_CLEAR_EVENT, 0.0), (DEPTH_SNAPSHOT_EVENT, size)):
        for side, ticks in ((BUY_EVENT, bid_ticks), (SELL_EVENT, bid_ticks + 2)):
            flags = EXCH_EVENT | LOCAL_EVENT | kind | side
            yield flags, ts_ns, ts_ns + FEED_LATENCY_NS, MARKET.price_from_ticks(ticks), qty, 0, 0, 0.0


def main(*, guarded: bool = True) -> tuple[Decider, float, float]:
    """Run the backtest; return the engine's part, and the position and the equity that hftbacktest has."""
    events = made_events()  # hftbacktest reads it where it is: it must live as long as the backtest
    asset = (
        hftbacktest.BacktestAsset()
        .data(events)
        .linear_asset(1.0)
        .constant_order_latency(ORDER_LATENCY_NS, ORDER_LATENCY_NS)
        .risk_adverse_queue_model()
        .no_partial_fill_exchange()
        .trading_value_fee_model(MAKER_FEE, TAKER_FEE)
        .tick_size(MARKET.tick_size)
        .lot_size(MARKET.lot_size)
    )
    backtest = hftbacktest.HashMapMarketDepthBacktest([asset])
    decider = Decider(is_guarded=guarded)
    GuardedMaker(backtest, decider).run()
    told, depth = backtest.state_values(ASSET), backtest.depth(ASSET)
    mid = (depth.best_bid + depth.best_ask) / 2.0
    position, equity = told.position, told.balance + told.position * mid - told.fee
    backtest.close()
    return decider, position, equity


if __name__ == "__main__":
    if hftbacktest is None:
        sys.exit("this example needs hftbacktest: pip install hftbacktest")
    for title, guarded in (("with guards", True), ("the same model without guards", False)):
        decider, position, equity = main(guarded=guarded)
        report(title, "hftbacktest", decider, position)
        print(f"  hftbacktest's own account of it: {equity:+.2f} USD")
