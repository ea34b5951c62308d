"""Turns decisions into orders, step by step: what rests is compared with what is wanted, and the difference is sent."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from math import ceil, floor, inf, isfinite
from typing import Any

from ami_engine.adapters.base import Broker
from ami_engine.errors import ConfigError, QuoteError
from ami_engine.events import Fill, OrderStatus, RequestState, Side, SubmitOrder, TimeInForce
from ami_engine.execution.actions import NOTHING_DONE, Actions, AuditSink, Tally
from ami_engine.execution.broker_edge import supports
from ami_engine.execution.idempotency import OrderIdFormat, client_order_id
from ami_engine.execution.journal import Intent, Journal
from ami_engine.execution.order_state import Order
from ami_engine.execution.order_table import DEFAULT_SETTLE_MS, OrderTable, Place, Working
from ami_engine.execution.quotes import Quotes, decode_quotes
from ami_engine.execution.reconcile import Reconciliation
from ami_engine.execution.reconciler import Reconciler
from ami_engine.units import Instrument, whole_ms
from decision_schema.types import Action

__all__ = ["NOTHING_DONE", "Actions", "OrderManager"]

_ACT, _EXIT, _HOLD, _CANCEL, _STOP = Action.ACT, Action.EXIT, Action.HOLD, Action.CANCEL, Action.STOP

_MINUTE_MS = 60_000
# Twice the tolerance within which units.py takes a price to be on the grid.
_EDGE_TICKS = 2e-6


class _Market:
    """The places of a market, its limits, and the bounds within which quotes need no change."""

    def __init__(self, name: str, instrument: Instrument, max_replacements: int) -> None:
        self.name = name
        self.instrument = instrument
        self.bid = Place(name, Side.BUY)
        self.ask = Place(name, Side.SELL)
        self.exit = Place(name, Side.BUY, is_closing=True)
        self.others: list[Place] = []  # of orders that a journal brought beside those
        self.replaced_ms: deque[int] = deque(maxlen=max(1, max_replacements))
        self.last_sent: dict[Side, tuple[int, int]] = {}  # step and attempt
        self.buys_usd = self.sells_usd = 0.0
        # Until this time an ACT with the same sides, whose prices stay in the bounds below, changes nothing.
        self.calm_until_ms = -inf
        self.is_bid_off = self.is_ask_off = True
        self.bid_low = self.bid_high = self.bid_price = 0.0
        self.ask_low = self.ask_high = self.ask_price = 0.0
        self.post_only = True

    def add_up_exposure(self) -> None:
        self.buys_usd = self.sells_usd = 0.0
        for place in (self.bid, self.ask, self.exit, *self.others):
            if place.working is not None:
                order = place.working.order
                value_usd = self.instrument.notional(order.price, order.exposed_qty)
                if order.side is Side.BUY:
                    self.buys_usd += value_usd
                else:
                    self.sells_usd += value_usd

    def new_order_id(self, run_id: str, step: int, side: Side, id_format: OrderIdFormat | None) -> tuple[str, str]:
        """Return the id of the next order of a step and side, and the key that tells it from others of them."""
        last_step, last_attempt = self.last_sent.get(side, (-1, 0))
        attempt = last_attempt + 1 if last_step == step else 0
        self.last_sent[side] = (step, attempt)
        key = str(attempt)
        if id_format is None:
            return client_order_id(run_id, self.name, step, side, attempt), key
        return id_format.id_of(run_id, self.name, step, side, key), key


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
    halts_on_strangers : bool
        A fill of an order that was not sent from here is booked and halts the run. False only books it: for a run whose
        orders are sent by an `Executor`.
    journal : Journal or None
        Keeps every order before it is sent and after each change; what it held at the start is taken over. Its run id
        is used instead of `run_id`.
    settle_ms : float
        How long a request may be on its way: see `OrderTable`.
    reconcile_every_ms : float
        With a journal, how often everything is compared with the venue, beside at the start and after a reconnect; 0 is
        never on a timer.
    id_format : OrderIdFormat or None
        What client order ids look like; None is 32 letters and digits.

    Attributes
    ----------
    gate : callable or None
        Asked about every order before it leaves: takes the `SubmitOrder`, returns why it must not leave, "" when it
        may. Cancels are never asked about.

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
        halts_on_strangers: bool = True,
        journal: Journal | None = None,
        settle_ms: float = DEFAULT_SETTLE_MS,
        reconcile_every_ms: float = 0,
        id_format: OrderIdFormat | None = None,
    ) -> None:
        for name, value in (
            ("reconcile_every_ms", reconcile_every_ms),
            ("settle_ms", settle_ms),
            ("refresh_ms", refresh_ms),
            ("min_requote_ticks", min_requote_ticks),
            ("order_ttl_ms", order_ttl_ms),
            ("post_fill_cooldown_ms", post_fill_cooldown_ms),
            ("max_replacements_per_min", max_replacements_per_min),
        ):
            if not (isfinite(value) and value >= 0):
                raise ConfigError(f"`{name}` must be finite and >= 0, was {value!r}")
        self._refresh_ms = refresh_ms
        # Two grid points differ by a whole tick at least.
        self._min_requote_ticks = max(1.0, min_requote_ticks)
        self._ttl_ms = order_ttl_ms
        self._cooldown_ms = post_fill_cooldown_ms
        self._max_replacements = max_replacements_per_min
        self._default_instrument = instrument or Instrument("", tick_size=tick_size)
        self._instruments = dict(instruments or {})
        self._run_id = run_id if journal is None else journal.id_seed
        self._id_format = id_format
        self._markets: dict[str, _Market] = {}
        self._table = OrderTable(
            broker,
            retry_ms=refresh_ms,
            audit=audit,
            halts_on_strangers=halts_on_strangers,
            on_change=self._on_change,
            journal=journal,
            settle_ms=settle_ms,
        )
        self._is_stopped = False
        # Asked about every order before it leaves: returns why it must not, "" when it may.
        self.gate: Callable[[SubmitOrder], str] | None = None
        self._unverified = False  # everything was cancelled, and the venue has not said yet that it is
        self._verify_ms = -inf
        self._reconciler: Reconciler | None = None
        if journal is not None:
            self._take_over(journal)
            self._reconciler = Reconciler(
                self._table,
                journal,
                every_ms=reconcile_every_ms,
                settle_ms=settle_ms,
                id_format=id_format or OrderIdFormat(),
            )
            self._reconciler.trade_in(self._instruments)
            self._table.on_reconnect = self.on_reconnect

    def _take_over(self, journal: Journal) -> None:
        """Put the journal's orders back in their places; those that may be live are looked up at once."""
        for kept in (*journal.state.closed, *journal.state.orders):
            order = kept.order
            market = self._markets.get(order.market_id) or self._open_market(order.market_id)
            if kept.intent.is_closing:
                place = market.exit
                place.side = order.side
            else:
                place = market.bid if order.side is Side.BUY else market.ask
            if not order.is_open or place.working is not None:
                place = Place(order.market_id, order.side, is_closing=kept.intent.is_closing)
                if order.is_open:
                    market.others.append(place)
            self._table.adopt(kept, place)
            market.add_up_exposure()

    # What the loop asks. ------------------------------------------------------------------------------------------

    @property
    def run_id(self) -> str:
        """What the client order ids are made of."""
        return self._run_id

    def instrument_of(self, market_id: str) -> Instrument:
        """Return the instrument by which a market's orders are made."""
        return self._instruments.get(market_id, self._default_instrument)

    @property
    def halt_reason(self) -> str:
        """Why nothing is submitted any more; empty while all is well."""
        return self._table.halt_reason

    @property
    def is_unverified(self) -> bool:
        """True after `cancel_all`, until the venue has said that nothing of ours is live; never without a journal."""
        return self._unverified

    @property
    def strays(self) -> tuple[str, ...]:
        """Orders of an earlier run that the venue listed at the start and the journal does not know."""
        return () if self._reconciler is None else tuple(self._reconciler.strays)

    def trade_in(self, market_id: str) -> None:
        """Note that a market is traded: with a journal, what an earlier run left there is cancelled first."""
        if self._reconciler is not None:
            self._reconciler.trade_in((market_id,))

    @property
    def duplicate_fills(self) -> int:
        """Number of fills that were dropped because their trade id was known."""
        return self._table.duplicate_fills

    @property
    def open_count(self) -> int:
        """Number of orders that may be live, over all markets."""
        return len(self._table.live)

    def markets_touched(self) -> set[str]:
        """Return the markets whose number of live orders changed since the last call."""
        touched, self._table.touched = self._table.touched, set()
        return touched

    def has_open(self, market_id: str) -> bool:
        """Return True when the market has an order that may be live."""
        return market_id in self._table.live_in

    def open_orders(self, market_id: str | None = None) -> list[Order]:
        """Return the orders that may be live, oldest first; those of one market when it is named."""
        live = self._table.live.values()
        return [w.order for w in live if market_id is None or w.order.market_id == market_id]

    def unbooked_qty(self, market_id: str) -> float:
        """Return the signed quantity of fills that were read and that `poll` has not handed over yet."""
        fills = self._table.fills
        return sum(fill.signed_qty for fill in fills if fill.market_id == market_id) if fills else 0.0

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
        if self._table.news is None:
            if action is _ACT:
                market = self._markets.get(market_id)
                params = final.params
                if market is not None and now_ms < market.calm_until_ms and params is not None:
                    # Invariant: these bounds lie inside those of `_clear_way`, so that leaving here changes nothing.
                    get = params.get
                    bid_quote, ask_quote, size_usd = get("bid_quote"), get("ask_quote"), get("size_usd")
                    if (
                        type(size_usd) is float
                        and 0.0 <= size_usd < inf
                        and get("post_only", True) is market.post_only
                        and (
                            bid_quote is None
                            if market.is_bid_off
                            else type(bid_quote) is float
                            and market.bid_low <= bid_quote < market.bid_high
                            and market.bid_price < ask
                        )
                        and (
                            ask_quote is None
                            if market.is_ask_off
                            else type(ask_quote) is float
                            and market.ask_low < ask_quote <= market.ask_high
                            and market.ask_price > bid
                        )
                    ):
                        return NOTHING_DONE
            elif action is _HOLD and not pull:
                return NOTHING_DONE
        tally = self._begin(now_ms)
        if action.__class__ is not Action:
            action = Action(getattr(action, "value", action))
        market = self._markets.get(market_id) or self._open_market(market_id)
        if action is not _STOP and action is not _HOLD:
            self._is_stopped = self._unverified = False
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
        tally = self._begin(now_ms)
        self._table.record("cancel_all", reason=reason, open_orders=self.open_count)
        self._is_stopped = False
        self._cancel_everything(tally)
        self._unverified = self._reconciler is not None
        self._verify_ms = -inf
        self._table.compare_ms = whole_ms(-inf)
        return self._told(tally)

    def verify_canceled(self, now_ms: int) -> tuple[str, ...]:
        """After `cancel_all`, with a journal: ask the venue what is left, and cancel that again.

        Returns
        -------
        tuple of str
            The orders of ours that may be live; empty once the venue has said that there are none.
        """
        table = self._table
        table.now_ms = now_ms
        tally = table.news = table.news or Tally()
        self._verify_ms = now_ms + self._refresh_ms
        still_open = table.still_open(tally)
        if still_open or tally.errors:
            self._is_stopped = False
            self._cancel_everything(tally)
            table.record("cancel_all_unverified", still_open=list(still_open))
        else:
            self._unverified = False
            table.record("cancel_all_verified")
        return still_open

    def unconfirmed(self, now_ms: int) -> tuple[str, ...]:
        """After `cancel_all`: ask the venue about what is not confirmed as closed; return what still is not.

        With a journal as `verify_canceled`, which also finds what was said to be cancelled and is not.
        """
        if self._unverified:
            return self.verify_canceled(now_ms)
        self._table.now_ms = now_ms
        self._table.look_up_now()
        return tuple(self._table.live)

    def poll(self, now_ms: int) -> list[Fill]:
        """Collect fills and resolve doubts. Call it at the start of every step.

        With a journal it also compares with the venue, at first before anything new is placed.

        Returns
        -------
        list of Fill
            The new fills, checked, oldest first, repeats dropped. All of them are to be booked, also those that the
            order table refuses: such a fill sets `halt_reason`.
        """
        table = self._table
        table.now_ms = now_ms
        if now_ms >= table.compare_ms:
            self._compare(now_ms)
        table.collect()
        if now_ms >= table.next_lookup_ms:
            table.settle()
        if not table.fills:
            return []
        fills, table.fills = table.fills, []
        return fills

    def _compare(self, now_ms: int) -> None:
        """Compare with the venue what is due, and note when the next of it is."""
        reconciler = self._reconciler
        if reconciler is not None and now_ms >= reconciler.due_ms:
            reconciler.look()
        if self._unverified and now_ms >= self._verify_ms:
            self.verify_canceled(now_ms)
        due_ms = inf if reconciler is None else reconciler.due_ms
        self._table.compare_ms = whole_ms(min(due_ms, self._verify_ms) if self._unverified else due_ms)

    def on_reconnect(self) -> None:
        """Note that a connection was lost and is back: with a journal, the next poll compares all with the venue."""
        if self._reconciler is not None:
            self._reconciler.ask("reconnect")

    def reconcile(self, now_ms: int, reason: str = "asked") -> Reconciliation | None:
        """Compare all with the venue now; None without a journal, or when the venue could not be read."""
        if self._reconciler is None:
            return None
        self._table.now_ms = now_ms
        self._reconciler.ask(reason)
        return self._reconciler.look()

    def on_fill(self, fill: Fill) -> Order | None:
        """Fold one fill that came another way than `poll`; return its order, None for a repeat or an unknown order.

        The fill is booked by whoever calls. One of an unknown order, or one that the table refuses, sets `halt_reason`.
        """
        working = self._table.find(fill.client_order_id)
        is_new = self._table.fold(fill)
        return working.order if working is not None and is_new else None

    def clear_halt(self) -> None:
        """Allow submissions again, after an operator looked."""
        self._table.record("halt_cleared", reason=self.halt_reason)
        self._table.halt_reason = ""

    @property
    def _is_suspicious(self) -> bool:
        """True while the venue contradicts us, or was not compared with yet, and it is not known what it means."""
        reconciler = self._reconciler
        return reconciler is not None and (bool(reconciler.suspicion) or not reconciler.is_started)

    # ACT. ---------------------------------------------------------------------------------------------------------

    def _act(
        self,
        market: _Market,
        params: Mapping[str, Any] | None,
        bid: float,
        ask: float,
        throttled: bool,
        step: int,
        tally: Tally,
    ) -> None:
        try:
            quotes = decode_quotes(params)
            bid_ticks, ask_ticks = _grid_quotes(market.instrument, quotes, bid, ask)
        except QuoteError as error:
            tally.errors.append(str(error))
            self._table.record("quotes_refused", market_id=market.name, error=str(error))
            return
        may_send = not throttled and not self.halt_reason and market.exit.working is None and not self._is_suspicious
        sides = ((market.bid, bid_ticks), (market.ask, ask_ticks))
        # Cancels go first, on both sides: a new bid must not meet our own old ask.
        to_send = [(place, ticks) for place, ticks in sides if self._clear_way(market, place, ticks, may_send, tally)]
        orders = []
        for place, ticks in to_send:
            if ticks is not None and not self.halt_reason and not _meets_own(market, place, ticks):
                intent = self._quote(market, place, ticks, quotes, step, tally)
                if intent is not None:
                    orders.append((place, intent))
        if orders:
            self._table.send(orders, tally)
        self._note_calm(market, quotes)

    def _clear_way(self, market: _Market, place: Place, ticks: int | None, may_send: bool, tally: Tally) -> bool:
        """Take off the side's quote if it has to go; return True when a new one is to be placed now."""
        working, now_ms = place.working, self._table.now_ms
        if ticks is None:
            if working is not None:
                self._table.cancel(working, tally)
            return False
        if not may_send or now_ms < place.blocked_until_ms:
            return False
        if working is None:
            return True
        if working.order.in_doubt:
            # A cancel is safe to repeat, and its answer ends the doubt; a submit waits for a lookup or a fill.
            return working.order.request is RequestState.CANCEL and self._table.cancel(working, tally)
        age_ms = now_ms - working.placed_ms
        has_moved = abs(ticks - working.ticks) >= self._min_requote_ticks and age_ms >= self._refresh_ms
        is_old = 0 < self._ttl_ms < age_ms
        if not (has_moved or is_old) or not self._may_replace(market) or not self._table.cancel(working, tally):
            return False
        market.replaced_ms.append(now_ms)
        return True

    def _may_replace(self, market: _Market) -> bool:
        times, limit = market.replaced_ms, self._max_replacements
        return limit == 0 or len(times) < limit or self._table.now_ms - times[0] >= _MINUTE_MS

    def _quote(
        self, market: _Market, place: Place, ticks: int, quotes: Quotes, step: int, tally: Tally
    ) -> Intent | None:
        instrument = market.instrument
        price = instrument.price_from_ticks(ticks)
        qty = instrument.qty_from_usd(quotes.size_usd, price)
        if instrument.is_below_minimum(price, qty):
            tally.skipped += 1
            return None
        order_id, key = market.new_order_id(self._run_id, step, place.side, self._id_format)
        request = SubmitOrder(
            client_order_id=order_id,
            market_id=market.name,
            side=place.side,
            price=price,
            qty=qty,
            size_usd=instrument.notional(price, qty),
            post_only=quotes.post_only,
        )
        return Intent(request, step, key, ticks) if self._may_leave(place, request, tally) else None

    def _may_leave(self, place: Place, request: SubmitOrder, tally: Tally) -> bool:
        """Ask the gate about an order; one that is kept back is not tried again at once."""
        refusal = "" if self.gate is None else self.gate(request)
        if not refusal:
            return True
        tally.withheld += 1
        place.blocked_until_ms = self._table.now_ms + self._refresh_ms
        self._table.record("order_withheld", order=request, reason=refusal)
        return False

    def _note_calm(self, market: _Market, quotes: Quotes) -> None:
        """Work out within which bounds, and until when, an ACT changes nothing."""
        bid, ask = market.bid.working, market.ask.working
        market.calm_until_ms = -inf  # bounds of an earlier ACT say nothing of these sides
        market.is_bid_off, market.is_ask_off = quotes.bid_quote is None, quotes.ask_quote is None
        # A side that waits (for a cooldown, for an answer) may have to be acted on at the next step.
        if market.is_bid_off is not (bid is None) or market.is_ask_off is not (ask is None):
            return
        resting = [working for working in (bid, ask) if working is not None]
        if any(working.order.in_doubt for working in resting):
            return
        reach = self._min_requote_ticks
        price_of, edge = market.instrument.price_from_ticks, _EDGE_TICKS * market.instrument.tick_size
        # Ticks t with |t - working| < reach; a bid rounds down into [t, t + 1), an ask up into (t - 1, t].
        if bid is not None:
            market.bid_price = bid.order.price
            market.bid_low = price_of(floor(bid.ticks - reach) + 1)
            market.bid_high = price_of(ceil(bid.ticks + reach)) - edge
        if ask is not None:
            market.ask_price = ask.order.price
            market.ask_low = price_of(floor(ask.ticks - reach)) + edge
            market.ask_high = price_of(ceil(ask.ticks + reach) - 1)
        market.post_only = quotes.post_only
        market.calm_until_ms = min((w.placed_ms for w in resting), default=inf) + self._ttl_ms if self._ttl_ms else inf

    # EXIT, CANCEL, STOP. ------------------------------------------------------------------------------------------

    def _exit(self, market: _Market, bid: float, ask: float, position: float, step: int, tally: Tally) -> None:
        self._cancel_quotes(market, tally)
        place, table = market.exit, self._table
        # A quote may have been filled while its cancel was under way: know it before sizing the closing order.
        table.collect()
        if market.bid.working or market.ask.working or place.working or any(p.working for p in market.others):
            return  # not confirmed yet, or closing already: the next step goes on
        position += self.unbooked_qty(market.name)
        instrument = market.instrument
        qty = instrument.round_qty(abs(position))
        side, price = (Side.SELL, bid) if position > 0.0 else (Side.BUY, ask)
        if qty <= 0.0 or self.halt_reason or table.now_ms < place.blocked_until_ms or not 0.0 < price < inf:
            return
        # A quote rounds outward; what has to trade rounds the other way.
        ticks = instrument.crossing_ticks(price, is_buy=side is Side.BUY)
        price = instrument.price_from_ticks(ticks)
        order_id, key = market.new_order_id(self._run_id, step, side, self._id_format)
        request = SubmitOrder(
            client_order_id=order_id,
            market_id=market.name,
            side=side,
            price=price,
            qty=qty,
            size_usd=instrument.notional(price, qty),
            reduce_only=True,
            tif=TimeInForce.IOC,
        )
        if self._may_leave(place, request, tally):
            place.side = side
            table.send([(place, Intent(request, step, key, ticks, is_closing=True))], tally)

    def _cancel_quotes(self, market: _Market, tally: Tally) -> None:
        for place in (market.bid, market.ask, *market.others):
            if place.working is not None:
                self._table.cancel(place.working, tally)

    def _cancel_everything(self, tally: Tally) -> None:
        table = self._table
        quotes = [w for w in table.live.values() if not w.place.is_closing]
        if self._is_stopped and not quotes:
            return
        can_cancel, can_sweep = supports(table.broker, "cancel_order"), supports(table.broker, "cancel_all")
        if can_cancel or not can_sweep:
            for working in quotes:
                table.cancel(working, tally)
        if can_sweep and not self._is_stopped:
            # Also what we do not know of: an order of an earlier run, one placed by hand.
            count = table.sweep(tally)
            if not can_cancel and count >= len(quotes):
                for working in quotes:
                    table.take_as_canceled(working)
        self._is_stopped = True

    # Bookkeeping. -------------------------------------------------------------------------------------------------

    def _open_market(self, market_id: str) -> _Market:
        instrument = self.instrument_of(market_id)
        market = self._markets[market_id] = _Market(market_id, instrument, self._max_replacements)
        return market

    def _on_change(self, working: Working, is_fill: bool) -> None:
        order, place, now_ms = working.order, working.place, self._table.now_ms
        market = self._markets[place.market_id]
        market.calm_until_ms = -inf
        market.add_up_exposure()
        if order.status is OrderStatus.REJECTED or (place.is_closing and not order.is_open and not order.filled_qty):
            # Refused, or nothing there to trade with: the same order a moment later would fare no better.
            place.blocked_until_ms = now_ms + self._refresh_ms
        elif is_fill and not place.is_closing and self._cooldown_ms:
            place.blocked_until_ms = now_ms + self._cooldown_ms

    def _begin(self, now_ms: int) -> Tally:
        self._table.now_ms = now_ms
        return Tally()

    def _told(self, tally: Tally) -> Actions:
        news, self._table.news = self._table.news, None
        if news is not None:
            tally.failures += news.failures
            tally.rate_limits += news.rate_limits
            tally.reconnects += news.reconnects
            tally.errors.extend(news.errors)
            tally.halt = news.halt
        return tally.total()


def _grid_quotes(instrument: Instrument, quotes: Quotes, bid: float, ask: float) -> tuple[int | None, int | None]:
    """Put quotes on the grid, outward; post-only ones stay a tick off the best price of the other side."""
    bid_ticks = ask_ticks = None
    # A quote that may take is rounded all the same, but not kept off the book: 0 is no price.
    best_bid, best_ask = (bid, ask) if quotes.post_only else (0.0, 0.0)
    if quotes.bid_quote is not None:
        bid_ticks = instrument.passive_ticks(quotes.bid_quote, is_buy=True, opposite=best_ask)
        if bid_ticks < 1:
            raise QuoteError(
                f"`bid_quote` must be a tick or more on the grid, was {quotes.bid_quote!r} with ask {ask!r}"
            )
    if quotes.ask_quote is not None:
        ask_ticks = instrument.passive_ticks(quotes.ask_quote, is_buy=False, opposite=best_bid)
    if bid_ticks is not None and ask_ticks is not None and bid_ticks >= ask_ticks:
        raise QuoteError(f"`bid_quote` must be below `ask_quote` on the grid, was {bid_ticks} with {ask_ticks} ticks")
    return bid_ticks, ask_ticks


def _meets_own(market: _Market, place: Place, ticks: int) -> bool:
    """True when an order at `ticks` would trade with our own quote on the other side."""
    if place is market.bid:
        return market.ask.working is not None and ticks >= market.ask.working.ticks
    return market.bid.working is not None and ticks <= market.bid.working.ticks
