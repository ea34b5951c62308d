"""The engine in a NautilusTrader strategy: its clock, orders and simulated exchange; our features, account and guards.

At each quote the strategy asks the engine what should rest, and brings NautilusTrader's orders to it. The market is
made here, and runs through NautilusTrader's backtest engine.

Needs nautilus_trader (`pip install nautilus_trader`). Run it: `python docs/examples/nautilus_strategy.py`
"""

from __future__ import annotations

import sys
from typing import Any

from embedded_decider import MARKET, Decider, Wanted, made_market, report

from ami_engine.events import Fill, Liquidity, Side

try:
    import nautilus_trader
except ImportError:
    nautilus_trader = None

if nautilus_trader is not None:
    from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
    from nautilus_trader.config import LoggingConfig
    from nautilus_trader.model.currencies import USD
    from nautilus_trader.model.data import QuoteTick
    from nautilus_trader.model.enums import AccountType, LiquiditySide, OmsType, OrderSide, TimeInForce
    from nautilus_trader.model.identifiers import InstrumentId, Symbol, Venue
    from nautilus_trader.model.instruments import Equity
    from nautilus_trader.model.objects import Money, Price, Quantity
    from nautilus_trader.trading.strategy import Strategy

    VENUE = Venue("SIM")
    ACME = Equity(
        instrument_id=InstrumentId(Symbol(MARKET.symbol), VENUE),
        raw_symbol=Symbol(MARKET.symbol),
        currency=USD,
        price_precision=2,
        price_increment=Price.from_str("0.01"),
        lot_size=Quantity.from_int(1),
        ts_event=0,
        ts_init=0,
    )

    class GuardedMaker(Strategy):
        """Brings NautilusTrader's orders to what the engine wants."""

        def __init__(self, decider: Decider) -> None:
            super().__init__()
            self._decider = decider

        def on_start(self) -> None:
            self.subscribe_quote_ticks(ACME.id)

        def on_quote_tick(self, tick: QuoteTick) -> None:
            live = self.cache.orders_open(instrument_id=ACME.id) + self.cache.orders_inflight(instrument_id=ACME.id)
            prices = float(tick.bid_price), float(tick.ask_price), float(tick.bid_size), float(tick.ask_size)
            wanted = self._decider.on_quote(tick.ts_event, *prices, open_orders=len(live))
            if not wanted.keeps:
                self._bring_to(wanted, live, (prices[0] + prices[1]) / 2)

        def on_order_filled(self, event: Any) -> None:
            is_maker = event.liquidity_side == LiquiditySide.MAKER
            self._decider.on_fill(
                Fill(
                    trade_id=str(event.trade_id),
                    client_order_id=str(event.client_order_id),
                    market_id=MARKET.symbol,
                    side=Side.BUY if event.order_side == OrderSide.BUY else Side.SELL,
                    price=float(event.last_px),
                    qty=float(event.last_qty),
                    fee=float(event.commission),
                    liquidity=Liquidity.MAKER if is_maker else Liquidity.TAKER,
                    ts_ns=event.ts_event,
                )
            )

        def on_stop(self) -> None:
            self.cancel_all_orders(ACME.id)

        def _bring_to(self, wanted: Wanted, live: list[Any], mid: float) -> None:
            busy = set()
            for order in live:
                side = Side.BUY if order.side == OrderSide.BUY else Side.SELL
                busy.add(side)
                quote = wanted.quotes.get(side)
                is_right = quote is not None and MARKET.ticks(quote[0]) == MARKET.ticks(float(order.price))
                if not is_right and not order.is_pending_cancel:
                    self.cancel_order(order)
                    self._decider.on_cancels(self.clock.timestamp_ns(), 1)
            # A side whose old order is not gone yet gets its new one at a later quote: two at once may both be filled.
            for side, (price, qty) in wanted.quotes.items():
                if side not in busy and qty > 0.0:
                    self._send(side, price, qty, is_closing=False)
            position = self._decider.position
            if wanted.closes and not live and position:
                side = Side.SELL if position > 0.0 else Side.BUY
                # The limit bounds the worst price only.
                self._send(side, mid * (1.0 + 0.05 * side.sign), abs(position), is_closing=True)

        def _send(self, side: Side, price: float, qty: float, *, is_closing: bool) -> None:
            order = self.order_factory.limit(
                instrument_id=ACME.id,
                order_side=OrderSide.BUY if side is Side.BUY else OrderSide.SELL,
                quantity=ACME.make_qty(qty),
                price=ACME.make_price(price),
                time_in_force=TimeInForce.IOC if is_closing else TimeInForce.GTC,
                post_only=not is_closing,
                reduce_only=is_closing,
            )
            self.submit_order(order)


def made_ticks() -> list[Any]:
    """Return the market as NautilusTrader's quotes."""
    return [
        QuoteTick(
            instrument_id=ACME.id,
            bid_price=ACME.make_price(MARKET.price_from_ticks(bid_ticks)),
            ask_price=ACME.make_price(MARKET.price_from_ticks(bid_ticks + 2)),
            bid_size=ACME.make_qty(size),
            ask_size=ACME.make_qty(size),
            ts_event=ts_ns,
            ts_init=ts_ns,
        )
        for ts_ns, bid_ticks, size in made_market()
    ]


def main(*, guarded: bool = True) -> tuple[Decider, float]:
    """Run the backtest; return the engine's part and the position that NautilusTrader has."""
    decider = Decider(is_guarded=guarded)
    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True), run_analysis=False))
    engine.add_venue(
        venue=VENUE,
        oms_type=OmsType.NETTING,
        account_type=AccountType.MARGIN,
        base_currency=USD,
        starting_balances=[Money(1_000_000, USD)],
    )
    engine.add_instrument(ACME)
    engine.add_data(made_ticks())
    engine.add_strategy(GuardedMaker(decider))
    engine.run()
    position = float(engine.portfolio.net_position(ACME.id))
    engine.dispose()
    return decider, position


if __name__ == "__main__":
    if nautilus_trader is None:
        sys.exit("this example needs nautilus_trader: pip install nautilus_trader")
    report("with guards", "NautilusTrader", *main())
    report("the same model without guards", "NautilusTrader", *main(guarded=False))
