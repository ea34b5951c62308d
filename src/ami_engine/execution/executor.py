"""The one-shot form: carry out one decision at a broker, without memory of earlier ones.

What rests and what is held comes from `Broker.get_state`; where that does not say what rests, the executor goes by what
it sent. The loop, which remembers more, quotes through `OrderManager`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isfinite
from typing import Any

from ami_engine.adapters.base import Broker
from ami_engine.clock import Clock, WallClock
from ami_engine.errors import ConfigError, QuoteError
from ami_engine.events import Fill, Side, SubmitOrder, TimeInForce
from ami_engine.execution.idempotency import client_order_id
from ami_engine.execution.order_table import DEFAULT_SETTLE_MS
from ami_engine.execution.quotes import decode_quotes
from ami_engine.execution.sent_quotes import SentQuotes
from ami_engine.execution.shot import Shot
from ami_engine.units import NS_PER_MS, Instrument
from decision_schema.types import Action

__all__ = ["Executor", "execute"]

# How far through `mid` the limit of a closing order goes: the band within which Binance takes prices on most perpetuals
# (PERCENT_PRICE, 5 %). The order fills at the book's prices; the limit only bounds the worst of them.
_COLLAR_FRAC = 0.05


def execute(broker: Broker, final_decision: Any, market_id: str, mid: float | None = None) -> dict[str, Any]:
    """Carry out one decision: `Executor(broker).run(final_decision, market_id, mid)`.

    Examples
    --------
    >>> from decision_schema.types import Action, FinalDecision
    >>> from ami_engine.adapters import Broker
    >>> class Paper(Broker):
    ...     def submit_order(self, order):
    ...         print(order.side.value, order.qty, "at", order.price)
    >>> quotes = {"bid_quote": 0.25, "ask_quote": 0.5, "size_usd": 1.0}
    >>> execute(Paper(), FinalDecision(Action.ACT, params=quotes), "m")["submitted"]
    BUY 4.0 at 0.25
    SELL 2.0 at 0.5
    2
    """
    return Executor(broker).run(final_decision, market_id, mid)


class Executor:
    """Carries out decisions one by one. Override `run` to execute in another way.

    Parameters
    ----------
    broker : Broker
        Where orders go. An ACT that finds quotes resting needs its `cancel_order` or `cancel_all`, an EXIT its
        `get_state`.
    instrument : Instrument or None
        Puts prices and sizes on their grids; without it they go as they are.
    run_id : str
        Goes into the client order ids. Empty: the time at which this object was made, so that a restarted process
        cannot repeat the ids of the one before, which a venue would take for a repeat and not place.
    clock : Clock or None
        The wall clock when None. Read when `run_id` is empty, for a submit to a venue that can expire it
        (`Broker.recv_window_ms`), and while an order is in doubt.
    settle_ms : float
        How long after its expiry a request may still be on its way, ms, finite and > 0. A quote whose answer was lost
        keeps its side of the market until a fill, a cancel or a look-up says what became of it, or until the venue has
        said twice after that time that it knows nothing of it; for ever, where the venue cannot expire requests.

    Raises
    ------
    ConfigError
        When `settle_ms` is out of range.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        instrument: Instrument | None = None,
        run_id: str = "",
        clock: Clock | None = None,
        settle_ms: float = DEFAULT_SETTLE_MS,
    ) -> None:
        if not 0.0 < settle_ms < inf:
            raise ConfigError(f"`settle_ms` must be finite and > 0, was {settle_ms!r}")
        self.broker = broker
        self.instrument = instrument
        self._clock = clock or WallClock()
        self.run_id = run_id or f"once-{self._clock.now_ns()}"
        self._calls = 0
        self._quoted: set[str] = set()  # markets where a quote of ours may rest
        self._own = SentQuotes(self._clock, round(settle_ms * NS_PER_MS))

    def open_orders(self) -> list[tuple[str, str]]:
        """Return id and market of the quotes that were sent and are not known to have ended."""
        return [(order.client_order_id, order.market_id) for order in self._own.all()]

    def on_fill(self, fill: Fill) -> None:
        """Hear of a fill: what is filled needs no cancel. The loop calls it; whoever calls `run` himself may."""
        self._own.fill(fill)

    def run(self, final_decision: Any, market_id: str, mid: float | None = None) -> dict[str, Any]:
        """Carry out `final_decision` in one market.

        ACT replaces the quotes of each side by the decision's, and withdraws a side that has none. EXIT cancels the
        market's orders and, once none is left, sends one marketable IOC, reduce-only, for the position less the closing
        orders in flight. CANCEL cancels the market's orders, STOP those of every market. HOLD leaves quotes, unless the
        guard that made it wants them off (``mismatch.metadata["quotes"]`` is "pull").

        Parameters
        ----------
        final_decision : FinalDecision
            Read: `action`, `params`, and for a HOLD `mismatch`.
        market_id : str
            The market.
        mid : float or None
            The market's mid price; EXIT needs it.

        Returns
        -------
        dict
            ``submitted``, ``canceled``, ``rejected``, ``in_doubt`` (numbers of orders), ``errors`` (texts), and
            ``halt``: True when the broker cannot do what the decision needs, or broke the protocol, and the run has to
            stop.
        """
        shot = Shot(self.broker, market_id, self._own)
        action = final_decision.action
        if action.__class__ is not Action:
            action = Action(getattr(action, "value", action))
        self._calls += 1
        if action is Action.ACT:
            self._act(shot, final_decision.params)
        elif action is Action.EXIT:
            self._exit(shot, mid)
        elif action is Action.CANCEL:
            shot.cancel_all(market_id)
        elif action is Action.STOP:
            shot.cancel_all(None)
        elif _is_pulled(final_decision) and (market_id in self._quoted or shot.can_know()):
            shot.cancel_all(market_id)
        return shot.result

    def _act(self, shot: Shot, params: dict[str, Any] | None) -> None:
        try:
            quotes = decode_quotes(params)
        except QuoteError as error:
            shot.fail(str(error))
            return
        view = shot.read_view()
        if view.is_unreadable:  # what rests there is not known
            return
        left = shot.clear(view)
        for side, quote in ((Side.BUY, quotes.bid_quote), (Side.SELL, quotes.ask_quote)):
            if quote is None or shot.result["halt"] or any(order.side is side for order in left):
                continue
            price = self._quote_price(quote, side)
            qty = self._quote_qty(quotes.size_usd, price)
            if qty > 0.0:
                self._quoted.add(shot.market_id)
                self._send(shot, side, price, qty, post_only=quotes.post_only)

    def _quote_price(self, quote: float, side: Side) -> float:
        if self.instrument is None:
            return quote
        return self.instrument.price_from_ticks(self.instrument.quote_ticks(quote, is_buy=side is Side.BUY))

    def _quote_qty(self, size_usd: float, price: float) -> float:
        """Return the size of a quote, 0 when none can be sent."""
        if price <= 0.0:
            return 0.0
        if self.instrument is None:
            return size_usd / price
        qty = self.instrument.qty_from_usd(size_usd, price)
        return 0.0 if self.instrument.is_below_minimum(price, qty) else qty

    def _exit(self, shot: Shot, mid: float | None) -> None:
        if mid is None or not (isfinite(mid) and mid > 0.0):
            shot.fail(f"EXIT needs `mid`, finite and > 0, was {mid!r}")
            return
        if not shot.cancel_all(shot.market_id):
            return
        view = shot.read_view()
        if view.is_unreadable:
            return
        if view.position is None:
            shot.fail(
                f'{type(self.broker).__name__} must say {{"positions": ...}} in get_state() for an EXIT', halt=True
            )
            return
        uncanceled = sum(not o.is_closing for o in view.orders)
        if uncanceled:
            shot.fail(f"EXIT waits: {uncanceled} orders of {shot.market_id!r} are not confirmed as cancelled")
            return
        side = Side.SELL if view.position > 0.0 else Side.BUY
        qty = abs(view.position) - sum(o.leaves_qty for o in view.orders if o.side is side)
        if self.instrument is not None:
            qty = self.instrument.round_qty(qty)
        if qty > 0.0:
            self._send(shot, side, self._limit_price(mid, side), qty, reduce_only=True)

    def _limit_price(self, mid: float, side: Side) -> float:
        limit = mid * (1.0 + side.sign * _COLLAR_FRAC)
        if self.instrument is None:
            return limit
        return self.instrument.price_from_ticks(self.instrument.crossing_ticks(limit, is_buy=side is Side.BUY))

    def _send(
        self, shot: Shot, side: Side, price: float, qty: float, *, post_only: bool = False, reduce_only: bool = False
    ) -> None:
        window_ms = getattr(self.broker, "recv_window_ms", None)
        shot.submit(
            SubmitOrder(
                client_order_id=client_order_id(self.run_id, shot.market_id, self._calls, side),
                market_id=shot.market_id,
                side=side,
                price=price,
                qty=qty,
                size_usd=self.instrument.notional(price, qty) if self.instrument else price * qty,
                post_only=post_only,
                reduce_only=reduce_only,
                tif=TimeInForce.IOC if reduce_only else TimeInForce.GTC,
                expires_ns=self._clock.now_ns() + window_ms * NS_PER_MS if window_ms else 0,
            )
        )


def _is_pulled(final_decision: Any) -> bool:
    """True for a HOLD of a guard that wants resting quotes off."""
    metadata = getattr(getattr(final_decision, "mismatch", None), "metadata", None)
    return isinstance(metadata, Mapping) and metadata.get("quotes") == "pull"
