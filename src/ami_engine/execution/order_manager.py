"""Turns decisions into orders, a step at a time: quotes are compared with what rests, and only the difference is sent.

Invariant: a side of a market has at most one quote that may be live. A quote whose submit or cancel is in doubt keeps its
place until the doubt is resolved, so that no decision can put a second one beside it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from math import ceil, floor, inf, isfinite
from typing import Any, Protocol

import msgspec

from ami_engine.adapters.base import Broker
from ami_engine.errors import ConfigError, DuplicateOrderId, QuoteError, VenueProtocolError
from ami_engine.events import Fill, OrderReport, OrderStatus, RequestState, Side, SubmitOrder, TimeInForce
from ami_engine.execution import broker_edge
from ami_engine.execution.broker_edge import Answer
from ami_engine.execution.idempotency import client_order_id
from ami_engine.execution.order_state import Order, Trigger
from ami_engine.execution.quotes import Quotes, decode_quotes
from ami_engine.units import Instrument
from decision_schema.types import Action

__all__ = ["NOTHING_DONE", "Actions", "AuditSink", "OrderManager"]

_ACT, _EXIT, _HOLD, _CANCEL, _STOP = Action.ACT, Action.EXIT, Action.HOLD, Action.CANCEL, Action.STOP

# A request may be on its way this long: only then does "the venue knows nothing of it" prove anything.
_SETTLE_MS = 5_000
# Looking an order up blocks the loop for a round trip: never more often than this.
_MIN_LOOKUP_MS = 100
# Closed orders whose late fills and repeats are still recognised.
_CLOSED_KEPT = 1_024
_MINUTE_MS = 60_000
# Half of it is the tolerance within which units.py takes a price to be on the grid.
_EDGE_TICKS = 2e-6


class AuditSink(Protocol):
    """Anything that keeps audit lines."""

    def record(self, kind: str, /, **fields: Any) -> Any:
        """Keep one line."""
        ...


class Actions(msgspec.Struct, frozen=True, gc=False):
    """What one call did.

    Parameters
    ----------
    submitted : int
        Orders sent, whatever became of them.
    canceled : int
        Orders that the venue confirmed as cancelled.
    rejected : int
        Orders that the venue refused.
    failures : int
        Requests in which the venue failed: for the circuit breaker.
    in_doubt : int
        Requests whose outcome is unknown.
    skipped : int
        Quotes not sent because they are below the instrument's smallest order.
    errors : tuple of str
        What went wrong, a line each; a decision without usable quotes is one of them.
    halt : str
        Why the run must stop, empty when it need not. Said once; `OrderManager.halt_reason` keeps it.
    """

    submitted: int = 0
    canceled: int = 0
    rejected: int = 0
    failures: int = 0
    in_doubt: int = 0
    skipped: int = 0
    errors: tuple[str, ...] = ()
    halt: str = ""


NOTHING_DONE = Actions()


class _Tally:
    """`Actions` while they are being counted."""

    __slots__ = ("canceled", "errors", "failures", "halt", "in_doubt", "rejected", "skipped", "submitted")

    def __init__(self) -> None:
        self.submitted = self.canceled = self.rejected = self.failures = self.in_doubt = self.skipped = 0
        self.errors: list[str] = []
        self.halt = ""

    def total(self) -> Actions:
        actions = Actions(
            self.submitted,
            self.canceled,
            self.rejected,
            self.failures,
            self.in_doubt,
            self.skipped,
            tuple(self.errors),
            self.halt,
        )
        return NOTHING_DONE if actions == NOTHING_DONE else actions


class _Working:
    """An order that may be live, and what the manager remembers of it; kept for a while after it closed."""

    __slots__ = ("asked_ms", "is_said_gone", "lookup_ms", "market", "order", "placed_ms", "slot", "ticks", "trade_ids")

    def __init__(self, order: Order, market: _Market, slot: _Slot | None, ticks: int, now_ms: int) -> None:
        self.order = order
        self.market = market
        self.slot = slot  # None: the order closes a position
        self.ticks = ticks
        self.placed_ms = now_ms
        self.asked_ms = -inf  # when a cancel was last asked
        self.lookup_ms: float = now_ms  # no lookup before
        self.is_said_gone = False  # the venue answered a cancel with "nothing to cancel"
        self.trade_ids: set[str] = set()


class _Slot:
    """One side of a market."""

    __slots__ = ("attempt", "blocked_until_ms", "side", "step", "working")

    def __init__(self, side: Side) -> None:
        self.side = side
        self.working: _Working | None = None
        self.blocked_until_ms = -inf  # after a fill or a rejection
        self.step = -1
        self.attempt = 0


class _Market:
    """The two sides of a market, its closing order, and the window in which quotes need no change."""

    __slots__ = (
        "ask",
        "ask_high",
        "ask_low",
        "ask_price",
        "bid",
        "bid_high",
        "bid_low",
        "bid_price",
        "buys_usd",
        "calm_until_ms",
        "exit",
        "exit_retry_ms",
        "instrument",
        "name",
        "post_only",
        "replaced_ms",
        "sells_usd",
    )

    def __init__(self, name: str, instrument: Instrument, max_replacements: int) -> None:
        self.name = name
        self.instrument = instrument
        self.bid = _Slot(Side.BUY)
        self.ask = _Slot(Side.SELL)
        self.exit: _Working | None = None
        self.exit_retry_ms = -inf
        self.replaced_ms: deque[int] = deque(maxlen=max(1, max_replacements))
        self.buys_usd = self.sells_usd = 0.0
        # Until this time a two-sided ACT whose prices stay in the bounds below changes nothing.
        self.calm_until_ms = -inf
        self.bid_low = self.bid_high = self.bid_price = 0.0
        self.ask_low = self.ask_high = self.ask_price = 0.0
        self.post_only = True


class OrderManager:
    """Quotes through a broker.

    Parameters
    ----------
    broker : Broker
        Where orders go.
    refresh_ms : float
        A quote that moved is replaced at the earliest so long after it was placed, >= 0.
    min_requote_ticks : float
        It is replaced when it moved by at least so many ticks, >= 0.
    tick_size : float
        Price step of markets for which no instrument is given.
    order_ttl_ms : float
        A quote older than this is replaced even where it stands; 0 is off.
    post_fill_cooldown_ms : float
        A side that was filled is not quoted anew for so long; 0 is off.
    max_replacements_per_min : int
        Replacements in any minute, a market; 0 is off.
    instrument : Instrument or None
        The instrument of every market that `instruments` does not name.
    instruments : mapping
        Instruments by market.
    run_id : str
        Goes into the client order ids: two runs that may meet at one venue must differ in it.
    audit : AuditSink or None
        Gets a line for every request, refusal, doubt and protocol error.

    Attributes
    ----------
    halt_reason : str
        Why nothing is submitted any more; empty while all is well.
    duplicate_fills : int
        Fills that were dropped because their trade id was known.

    Raises
    ------
    ConfigError
        When a setting is negative or not finite.
    """

    def __init__(
        self,
        broker: Broker,
        refresh_ms: float = 500,
        min_requote_ticks: float = 1.0,
        tick_size: float = 0.01,
        order_ttl_ms: float = 0,
        post_fill_cooldown_ms: float = 0,
        max_replacements_per_min: int = 0,
        *,
        instrument: Instrument | None = None,
        instruments: Mapping[str, Instrument] | None = None,
        run_id: str = "",
        audit: AuditSink | None = None,
    ) -> None:
        for name, value in (
            ("refresh_ms", refresh_ms),
            ("min_requote_ticks", min_requote_ticks),
            ("order_ttl_ms", order_ttl_ms),
            ("post_fill_cooldown_ms", post_fill_cooldown_ms),
            ("max_replacements_per_min", max_replacements_per_min),
        ):
            if not (isfinite(value) and value >= 0):
                raise ConfigError(f"`{name}` must be finite and >= 0, was {value!r}")
        self.halt_reason = ""
        self.duplicate_fills = 0
        self._broker = broker
        self._refresh_ms = refresh_ms
        # Two grid points differ by a whole tick at least.
        self._min_requote_ticks = max(1.0, min_requote_ticks)
        self._ttl_ms = order_ttl_ms
        self._cooldown_ms = post_fill_cooldown_ms
        self._max_replacements = max_replacements_per_min
        self._default_instrument = instrument or Instrument("", tick_size=tick_size)
        self._instruments = dict(instruments or {})
        self._run_id = run_id
        self._audit = audit
        self._markets: dict[str, _Market] = {}
        self._orders: dict[str, _Working] = {}
        self._closed: OrderedDict[str, _Working] = OrderedDict()
        self._unsettled: dict[str, _Working] = {}
        self._unknown_trades: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._pending: list[Fill] = []
        self._news: _Tally | None = None  # what happened outside `apply`, to be told by the next one
        self._is_stopped = False
        self._now_ms = 0

    # What the loop asks. ------------------------------------------------------------------------------------------

    @property
    def open_count(self) -> int:
        """Number of orders that may be live, over all markets."""
        return len(self._orders)

    def open_orders(self, market_id: str | None = None) -> list[Order]:
        """Return the orders that may be live, oldest first; those of one market when it is named."""
        found = self._orders.values()
        return [w.order for w in found if market_id is None or w.order.market_id == market_id]

    def worst_case_exposure_usd(self, market_id: str, position_usd: float = 0.0) -> float:
        """Return the largest gross notional that fills of the live orders can lead to, USD.

        Orders in doubt count with their whole quantity. `position_usd` is the signed notional held now.
        """
        market = self._markets.get(market_id)
        if market is None:
            return abs(position_usd)
        return max(abs(position_usd + market.buys_usd), abs(position_usd - market.sells_usd))

    def apply(
        self,
        final: Any,
        market_id: str,
        now_ms: int,
        *,
        bid: float,
        ask: float,
        position: float,
        throttled: bool = False,
        pull: bool = False,
        step: int = 0,
    ) -> Actions:
        """Do what a decision says.

        Parameters
        ----------
        final : FinalDecision
            Read: `action` and `params`.
        market_id : str
            The market that it is about.
        now_ms : int
            Decision time, ms.
        bid, ask : float
            The best prices; 0 or NaN where a side is missing.
        position : float
            Signed quantity held, every fill that `poll` returned included.
        throttled : bool
            Nothing is placed or replaced; quotes may be withdrawn.
        pull : bool
            A HOLD takes the market's quotes off.
        step : int
            Number of the step, part of the client order ids.

        Returns
        -------
        Actions
            `NOTHING_DONE` itself when nothing was.
        """
        action = final.action
        if self._news is None:
            if action is _ACT:
                market = self._markets.get(market_id)
                params = final.params
                if market is not None and now_ms < market.calm_until_ms and params is not None:
                    # Invariant: these bounds lie inside those of `_clear_way`, so that leaving here changes nothing.
                    get = params.get
                    bid_quote, ask_quote, size_usd = get("bid_quote"), get("ask_quote"), get("size_usd")
                    if (
                        type(bid_quote) is float
                        and type(ask_quote) is float
                        and type(size_usd) is float
                        and market.bid_low <= bid_quote < market.bid_high
                        and market.ask_low < ask_quote <= market.ask_high
                        and market.bid_price < ask
                        and market.ask_price > bid
                        and 0.0 <= size_usd < inf
                        and get("post_only", True) is market.post_only
                    ):
                        return NOTHING_DONE
            elif action is _HOLD and not pull:
                return NOTHING_DONE
        tally, self._news = self._news or _Tally(), None
        self._now_ms = now_ms
        if action.__class__ is not Action:
            action = Action(getattr(action, "value", action))
        market = self._markets.get(market_id) or self._open_market(market_id)
        if action is not _STOP and action is not _HOLD:
            self._is_stopped = False
        if action is _ACT:
            self._act(market, final.params, bid, ask, throttled, step, tally)
        elif action is _EXIT:
            self._exit(market, bid, ask, position, step, tally)
        elif action is _STOP:
            self._cancel_everything(tally)
        elif action is _CANCEL or pull:
            self._cancel_quotes(market, tally)
        return self._told(tally)

    def cancel_all(self, reason: str, now_ms: int) -> Actions:
        """Cancel every order of every market, for a kill switch or the end of a run.

        Parameters
        ----------
        reason : str
            Goes into the audit log.
        now_ms : int
            Decision time, ms.
        """
        tally, self._news = self._news or _Tally(), None
        self._now_ms = now_ms
        self._is_stopped = False
        self._record("cancel_all", reason=reason, open_orders=len(self._orders))
        self._cancel_everything(tally)
        return self._told(tally)

    def poll(self, now_ms: int) -> list[Fill]:
        """Collect fills and resolve doubts. Call it at the start of every step.

        Returns
        -------
        list of Fill
            The new fills, checked, oldest first, repeats dropped. All of them are to be booked, also those that the order
            table refuses: such a fill sets `halt_reason`.
        """
        self._now_ms = now_ms
        self._collect()
        if self._unsettled:
            self._settle()
        if not self._pending:
            return []
        fills, self._pending = self._pending, []
        return fills

    def on_fill(self, fill: Fill) -> Order | None:
        """Fold one fill that came another way than `poll`; return its order, None for a repeat or an unknown order.

        The fill is booked by whoever calls. One of an unknown order, or one that the table refuses, sets `halt_reason`.
        """
        working = self._orders.get(fill.client_order_id) or self._closed.get(fill.client_order_id)
        is_new = self._fold(fill)
        return working.order if working is not None and is_new else None

    def clear_halt(self) -> None:
        """Allow submissions again, after an operator looked."""
        self._record("halt_cleared", reason=self.halt_reason)
        self.halt_reason = ""

    # ACT. ---------------------------------------------------------------------------------------------------------

    def _act(
        self,
        market: _Market,
        params: Mapping[str, Any] | None,
        bid: float,
        ask: float,
        throttled: bool,
        step: int,
        tally: _Tally,
    ) -> None:
        try:
            quotes = decode_quotes(params)
            bid_ticks = _bid_ticks(market.instrument, quotes, ask)
            ask_ticks = _ask_ticks(market.instrument, quotes, bid)
            if bid_ticks is not None and ask_ticks is not None and bid_ticks >= ask_ticks:
                raise QuoteError(
                    f"`bid_quote` must be below `ask_quote` on the grid, was {bid_ticks} and {ask_ticks} ticks"
                )
        except QuoteError as error:
            tally.errors.append(str(error))
            self._record("quotes_refused", market_id=market.name, error=str(error))
            return
        may_send = not throttled and not self.halt_reason and market.exit is None
        sides = ((market.bid, bid_ticks), (market.ask, ask_ticks))
        # Cancels go first, on both sides: a new bid must not meet our own old ask.
        to_send = [(slot, ticks) for slot, ticks in sides if self._clear_way(market, slot, ticks, may_send, tally)]
        for slot, ticks in to_send:
            if ticks is not None and not self.halt_reason and not _meets_own(market, slot, ticks):
                self._quote(market, slot, ticks, quotes, step, tally)
        self._note_calm(market, quotes)

    def _clear_way(self, market: _Market, slot: _Slot, ticks: int | None, may_send: bool, tally: _Tally) -> bool:
        """Take off the side's quote if it has to go; return True when a new one is to be placed now."""
        working, now_ms = slot.working, self._now_ms
        if ticks is None:
            if working is not None:
                self._cancel(working, tally)
            return False
        if not may_send or now_ms < slot.blocked_until_ms:
            return False
        if working is None:
            return True
        if working.order.request is not RequestState.NONE:
            return False
        age_ms = now_ms - working.placed_ms
        has_moved = abs(ticks - working.ticks) >= self._min_requote_ticks and age_ms >= self._refresh_ms
        is_old = 0 < self._ttl_ms < age_ms
        if not (has_moved or is_old) or not self._may_replace(market):
            return False
        if not self._cancel(working, tally):
            return False
        market.replaced_ms.append(now_ms)
        return True

    def _may_replace(self, market: _Market) -> bool:
        times = market.replaced_ms
        limit = self._max_replacements
        return limit == 0 or len(times) < limit or self._now_ms - times[0] >= _MINUTE_MS

    def _quote(self, market: _Market, slot: _Slot, ticks: int, quotes: Quotes, step: int, tally: _Tally) -> None:
        instrument = market.instrument
        price = instrument.price_from_ticks(ticks)
        qty = instrument.qty_from_usd(quotes.size_usd, price)
        if instrument.is_below_minimum(price, qty):
            tally.skipped += 1
            return
        working = self._send(market, slot, ticks, qty, step, tally, post_only=quotes.post_only)
        if working.order.status is OrderStatus.REJECTED:
            # A post-only quote that the venue refuses would be refused again by the next event's book.
            slot.blocked_until_ms = self._now_ms + self._refresh_ms

    def _note_calm(self, market: _Market, quotes: Quotes) -> None:
        """Work out within which bounds, and until when, an ACT changes nothing."""
        bid, ask = market.bid.working, market.ask.working
        market.calm_until_ms = -inf
        if bid is None or ask is None or bid.order.in_doubt or ask.order.in_doubt:
            return
        reach = self._min_requote_ticks
        price_of, edge = market.instrument.price_from_ticks, _EDGE_TICKS * market.instrument.tick_size
        # Ticks t with |t - working| < reach; a bid rounds down into [t, t + 1), an ask up into (t - 1, t].
        market.bid_price, market.ask_price = bid.order.price, ask.order.price
        market.bid_low = price_of(floor(bid.ticks - reach) + 1)
        market.bid_high = price_of(ceil(bid.ticks + reach)) - edge
        market.ask_low = price_of(floor(ask.ticks - reach)) + edge
        market.ask_high = price_of(ceil(ask.ticks + reach) - 1)
        market.post_only = quotes.post_only
        market.calm_until_ms = min(bid.placed_ms, ask.placed_ms) + self._ttl_ms if self._ttl_ms else inf

    # EXIT, CANCEL, STOP. ------------------------------------------------------------------------------------------

    def _exit(self, market: _Market, bid: float, ask: float, position: float, step: int, tally: _Tally) -> None:
        self._cancel_quotes(market, tally)
        if market.bid.working or market.ask.working or market.exit or self.halt_reason:
            return  # not confirmed yet, or already closing: the next step goes on
        # A quote may have been filled while its cancel was under way: know it before sizing the closing order.
        self._collect()
        position += sum(fill.signed_qty for fill in self._pending if fill.market_id == market.name)
        instrument = market.instrument
        slot, price = (market.ask, bid) if position > 0.0 else (market.bid, ask)
        qty = instrument.round_qty(abs(position))
        if qty <= 0.0 or self._now_ms < market.exit_retry_ms or self.halt_reason or not 0.0 < price < inf:
            return
        ticks = instrument.floor_ticks(price) if slot is market.ask else instrument.ceil_ticks(price)
        self._send(market, slot, max(1, ticks), qty, step, tally, closing=True)

    def _cancel_quotes(self, market: _Market, tally: _Tally) -> None:
        for slot in (market.bid, market.ask):
            if slot.working is not None:
                self._cancel(slot.working, tally)

    def _cancel_everything(self, tally: _Tally) -> None:
        quotes = [w for w in self._orders.values() if w.slot is not None]
        if self._is_stopped and not quotes:
            return
        can_cancel = broker_edge.supports(self._broker, "cancel_order")
        can_sweep = broker_edge.supports(self._broker, "cancel_all")
        if can_cancel or not can_sweep:
            for working in quotes:
                self._cancel(working, tally)
        if self._is_stopped or not can_sweep:
            return
        self._is_stopped = True
        # Also what we do not know of: an order of an earlier run, one placed by hand.
        count, error = broker_edge.sweep(self._broker, None)
        self._record("orders_swept", count=count, error=error)
        if error:
            self._fail(tally, error)
        tally.canceled += count
        if not can_cancel and count >= len(quotes):
            for working in quotes:
                self._advance(working, Trigger.CANCELED)

    # One order. ---------------------------------------------------------------------------------------------------

    def _send(
        self,
        market: _Market,
        slot: _Slot,
        ticks: int,
        qty: float,
        step: int,
        tally: _Tally,
        *,
        post_only: bool = False,
        closing: bool = False,
    ) -> _Working:
        slot.attempt = slot.attempt + 1 if slot.step == step else 0
        slot.step = step
        order_id = client_order_id(self._run_id, market.name, step, slot.side, slot.attempt)
        if order_id in self._orders or order_id in self._closed:
            raise DuplicateOrderId(
                f"client order id {order_id} was used before: `step` {step} of {market.name!r} came twice"
            )
        price = market.instrument.price_from_ticks(ticks)
        request = SubmitOrder(
            client_order_id=order_id,
            market_id=market.name,
            side=slot.side,
            price=price,
            qty=qty,
            size_usd=market.instrument.notional(price, qty),
            post_only=post_only,
            reduce_only=closing,
            tif=TimeInForce.IOC if closing else TimeInForce.GTC,
        )
        order = Order.from_submit(request).after(Trigger.SUBMIT_SENT)
        working = _Working(order, market, None if closing else slot, ticks, self._now_ms)
        self._orders[order_id] = working
        if closing:
            market.exit = working
        else:
            slot.working = working
        tally.submitted += 1
        self._record("order_submitted", order=request)
        self._hear_submit(working, broker_edge.submit(self._broker, request), tally)
        return working

    def _hear_submit(self, working: _Working, reply: broker_edge.Reply, tally: _Tally) -> None:
        if reply.answer is Answer.DONE:
            self._advance(working, Trigger.ACCEPTED, venue_order_id=reply.venue_order_id)
            if working.slot is None:
                self._watch(working)  # nobody tells when an IOC ended without a fill
            return
        tally.failures += reply.is_failure
        if reply.is_failure:
            tally.errors.append(reply.error)
        if reply.answer is Answer.REFUSED:
            tally.rejected += 1
            self._advance(working, Trigger.REJECTED)
            self._record("order_rejected", client_order_id=working.order.client_order_id, error=reply.error)
        else:
            self._lose(working, reply.error, tally)
        if reply.is_fatal:
            self._halt(reply.error)

    def _cancel(self, working: _Working, tally: _Tally) -> bool:
        """Ask for a cancel, not more often than every `refresh_ms`; return True when it is confirmed."""
        order_id = working.order.client_order_id
        if self._now_ms - working.asked_ms < self._refresh_ms:
            return False
        working.asked_ms = self._now_ms
        self._advance(working, Trigger.CANCEL_SENT)
        reply = broker_edge.cancel(self._broker, order_id)
        if reply.answer is Answer.DONE:
            tally.canceled += 1
            self._advance(working, Trigger.CANCELED)
            self._record("order_canceled", client_order_id=order_id)
            return True
        tally.failures += reply.is_failure
        if reply.is_failure:
            tally.errors.append(reply.error)
        if reply.answer is Answer.REFUSED:
            # Filled, most likely, and the fill is on its way: `poll` will tell, or a lookup.
            working.is_said_gone = not reply.error
            self._advance(working, Trigger.CANCEL_REFUSED)
            self._record("cancel_refused", client_order_id=order_id, error=reply.error)
            self._watch(working)
        else:
            self._lose(working, reply.error, tally)
        if reply.is_fatal:
            self._halt(reply.error)
        return False

    def _lose(self, working: _Working, error: str, tally: _Tally) -> None:
        tally.in_doubt += 1
        self._advance(working, Trigger.REPLY_LOST)
        self._record("order_in_doubt", client_order_id=working.order.client_order_id, error=error)
        self._watch(working)

    def _advance(self, working: _Working, trigger: Trigger, venue_order_id: str = "") -> None:
        working.order = working.order.after(trigger, venue_order_id=venue_order_id)
        self._changed(working)

    def _changed(self, working: _Working) -> None:
        market, order = working.market, working.order
        market.calm_until_ms = -inf
        if not order.is_open and order.client_order_id in self._orders:
            self._close(working)
        live = [w.order for w in (market.bid.working, market.ask.working, market.exit) if w is not None]
        value = market.instrument.notional
        market.buys_usd = sum(value(o.price, o.exposed_qty) for o in live if o.side is Side.BUY)
        market.sells_usd = sum(value(o.price, o.exposed_qty) for o in live if o.side is Side.SELL)

    def _close(self, working: _Working) -> None:
        order_id = working.order.client_order_id
        del self._orders[order_id]
        self._unsettled.pop(order_id, None)
        if working.slot is not None:
            working.slot.working = None
        else:
            working.market.exit = None
            if working.order.filled_qty == 0.0:
                # Nothing rests at that price: the same order a moment later would fare no better.
                working.market.exit_retry_ms = self._now_ms + self._refresh_ms
        self._closed[order_id] = working
        if len(self._closed) > _CLOSED_KEPT:
            self._closed.popitem(last=False)

    # Fills. -------------------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        found, error = broker_edge.read_fills(self._broker, self._now_ms)
        if error:
            self._news = self._news or _Tally()
            self._fail(self._news, error)
            self._record("fills_unavailable", error=error)
        for raw in found:
            try:
                fill = broker_edge.decode_fill(raw)
            except VenueProtocolError as broken:
                self._record("fill_unreadable", error=str(broken), fill=repr(raw))
                self._halt(str(broken))
                continue
            if self._fold(fill):
                self._pending.append(fill)

    def _fold(self, fill: Fill) -> bool:
        """Bring a fill to its order; return False for a repeat."""
        working = self._orders.get(fill.client_order_id) or self._closed.get(fill.client_order_id)
        if working is None:
            return self._fold_unknown(fill)
        if fill.trade_id in working.trade_ids:
            self.duplicate_fills += 1
            return False
        working.trade_ids.add(fill.trade_id)
        order = working.order
        try:
            if fill.side is not order.side or fill.market_id != order.market_id:
                raise VenueProtocolError(
                    f"trade {fill.trade_id} is a {fill.side.value} of {fill.market_id!r}, but its order"
                    f" {order.client_order_id} is a {order.side.value} of {order.market_id!r}"
                )
            working.order = order.filled(price=fill.price, qty=fill.qty)
        except VenueProtocolError as error:
            self._record("fill_refused", error=str(error), fill=fill)
            self._halt(str(error))
            return True
        if working.slot is not None and self._cooldown_ms:
            working.slot.blocked_until_ms = max(working.slot.blocked_until_ms, self._now_ms + self._cooldown_ms)
        self._changed(working)
        return True

    def _fold_unknown(self, fill: Fill) -> bool:
        key = (fill.client_order_id, fill.trade_id)
        if key in self._unknown_trades:
            self.duplicate_fills += 1
            return False
        self._unknown_trades[key] = None
        if len(self._unknown_trades) > _CLOSED_KEPT:
            self._unknown_trades.popitem(last=False)
        self._record("fill_of_unknown_order", fill=fill)
        self._halt(f"trade {fill.trade_id} belongs to order {fill.client_order_id!r}, which is not ours")
        return True

    # Doubts. ------------------------------------------------------------------------------------------------------

    def _watch(self, working: _Working) -> None:
        if working.order.is_open:
            working.lookup_ms = self._now_ms + self._lookup_every_ms
            self._unsettled[working.order.client_order_id] = working

    @property
    def _lookup_every_ms(self) -> float:
        return max(self._refresh_ms, _MIN_LOOKUP_MS)

    def _settle(self) -> None:
        due = [w for w in self._unsettled.values() if self._now_ms >= w.lookup_ms]
        if not due:
            return
        if broker_edge.supports(self._broker, "fetch_order"):
            for working in due:
                report, error = broker_edge.fetch_report(self._broker, working.order.client_order_id)
                if error:
                    self._record("lookup_failed", client_order_id=working.order.client_order_id, error=error)
                    working.lookup_ms = self._now_ms + self._lookup_every_ms
                else:
                    self._hear_report(working, report, is_answer=True)
            return
        listed = self._listed_orders()
        for working in due:
            report = None if listed is None else listed.get(working.order.client_order_id)
            self._hear_report(working, report, is_answer=listed is not None)

    def _listed_orders(self) -> dict[str, OrderReport] | None:
        """Return the live orders that the broker's state lists, None when it does not say."""
        state, error = broker_edge.read_state(self._broker)
        found: dict[str, OrderReport] | None = {} if "open_orders" in state else None
        for entry in state.get("open_orders") or ():
            try:
                report = broker_edge.open_order_of(entry)
            except VenueProtocolError as broken:
                error = str(broken)
                continue
            if found is not None:
                found[report.client_order_id] = report
        if error:
            self._record("lookup_failed", error=error)
            return None
        return found

    def _hear_report(self, working: _Working, report: OrderReport | None, *, is_answer: bool) -> None:
        """Bring the venue's word to an order that is not settled. `is_answer`: None means that it knows no such order."""
        try:
            if report is None:
                self._hear_nothing(working, is_answer)
            else:
                self._hear_known(working, report)
        except VenueProtocolError as error:
            self._record("report_refused", error=str(error), report=report)
            self._halt(str(error))
        if working.order.client_order_id in self._unsettled:
            working.lookup_ms = self._now_ms + self._lookup_every_ms

    def _hear_nothing(self, working: _Working, is_answer: bool) -> None:
        order = working.order
        if self._now_ms - max(working.placed_ms, working.asked_ms) < _SETTLE_MS:
            return
        if order.status is OrderStatus.INITIALIZED:
            if is_answer:
                self._advance(working, Trigger.REJECTED)
        elif working.slot is None:
            self._advance(working, Trigger.EXPIRED)  # an IOC does not live this long
        elif is_answer or working.is_said_gone:
            self._advance(working, Trigger.CANCELED)

    def _hear_known(self, working: _Working, report: OrderReport) -> None:
        if working.order.status is OrderStatus.INITIALIZED and report.status is not OrderStatus.REJECTED:
            self._advance(working, Trigger.ACCEPTED, venue_order_id=report.venue_order_id)
        order = working.order
        # Invariant: an order is not closed while fills of it are still to come, or an EXIT would be sized without them.
        if report.status is OrderStatus.FILLED or order.is_behind(report.filled_qty):
            return
        closing = _CLOSING_TRIGGERS.get(report.status)
        if closing is not None:
            self._advance(working, closing)
            return
        if order.request is RequestState.CANCEL:
            self._advance(working, Trigger.CANCEL_REFUSED)  # still live: to be asked again
        working.is_said_gone = False
        if working.slot is not None:
            self._unsettled.pop(order.client_order_id, None)

    # Bookkeeping. -------------------------------------------------------------------------------------------------

    def _open_market(self, market_id: str) -> _Market:
        instrument = self._instruments.get(market_id, self._default_instrument)
        market = _Market(market_id, instrument, self._max_replacements)
        self._markets[market_id] = market
        return market

    def _halt(self, reason: str) -> None:
        self._news = self._news or _Tally()
        if not self.halt_reason:
            self.halt_reason = self._news.halt = reason
            for market in self._markets.values():
                market.calm_until_ms = -inf
        self._news.errors.append(reason)
        self._record("halt", reason=reason)

    def _fail(self, tally: _Tally, error: str) -> None:
        tally.failures += 1
        tally.errors.append(error)

    def _told(self, tally: _Tally) -> Actions:
        news, self._news = self._news, None
        if news is not None:
            tally.failures += news.failures
            tally.errors.extend(e for e in news.errors if e not in tally.errors)
            tally.halt = tally.halt or news.halt
        return tally.total()

    def _record(self, kind: str, **fields: Any) -> None:
        if self._audit is not None:
            self._audit.record(kind, **fields)


_CLOSING_TRIGGERS = {
    OrderStatus.CANCELED: Trigger.CANCELED,
    OrderStatus.EXPIRED: Trigger.EXPIRED,
    OrderStatus.REJECTED: Trigger.REJECTED,
}


def _bid_ticks(instrument: Instrument, quotes: Quotes, ask: float) -> int | None:
    if quotes.bid_quote is None:
        return None
    ticks = instrument.floor_ticks(quotes.bid_quote)
    if quotes.post_only and 0.0 < ask < inf:
        ticks = min(ticks, instrument.ceil_ticks(ask) - 1)
    if ticks < 1:
        raise QuoteError(
            f"`bid_quote` must be at least one tick on the grid, was {quotes.bid_quote!r} with ask {ask!r}"
        )
    return ticks


def _ask_ticks(instrument: Instrument, quotes: Quotes, bid: float) -> int | None:
    if quotes.ask_quote is None:
        return None
    ticks = instrument.ceil_ticks(quotes.ask_quote)
    if quotes.post_only and 0.0 < bid < inf:
        ticks = max(ticks, instrument.floor_ticks(bid) + 1)
    return ticks


def _meets_own(market: _Market, slot: _Slot, ticks: int) -> bool:
    """True when an order at `ticks` would trade with our own quote on the other side."""
    if slot is market.bid:
        return market.ask.working is not None and ticks >= market.ask.working.ticks
    return market.bid.working is not None and ticks <= market.bid.working.ticks
