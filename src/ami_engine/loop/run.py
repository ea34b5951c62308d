"""A run in progress: what one step does, in order, and how a run ends."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ami_engine.adapters.base import Broker
from ami_engine.clock import Clock, perf_ns
from ami_engine.dmc.trading_state import TradingState
from ami_engine.errors import AmiError, EventError, TraceError
from ami_engine.events import Bar, Fill, Side, TimeInForce, TimerEvent
from ami_engine.execution.executor import Executor
from ami_engine.execution.order_manager import NOTHING_DONE, Actions, OrderManager
from ami_engine.loop.audit_edge import AuditEdge
from ami_engine.loop.durable import Durable
from ami_engine.loop.feed import Item, LiveFeed, RecordedFeed, Timers
from ami_engine.loop.latches import Latches
from ami_engine.loop.market import Market
from ami_engine.loop.native_log import NativeLog
from ami_engine.loop.native_run import NativeRun, NativeSettings
from ami_engine.loop.one_shot import OneShot
from ami_engine.loop.shutdown import StopSignal
from ami_engine.loop.step import AccountView, Decision, MarketParts, decide, judge
from ami_engine.loop.step_log import EXTERNAL_KEYS, StepLog
from ami_engine.loop.summary import RunCounters, grid_note, time_notes
from ami_engine.loop.symbol_state import SymbolState
from ami_engine.loop.trading import Trading
from ami_engine.mdm.decision_engine import REASON as HOOK_ERROR
from ami_engine.ops.activity import NO_QUOTES, ActivityLog
from ami_engine.ops.control_socket import ControlServer
from ami_engine.ops.controls import Controls
from ami_engine.portfolio.pnl import Account
from ami_engine.security.redaction import redact_text
from ami_engine.trace.trace_logger import TraceLogger
from ami_engine.units import NS_PER_MS
from decision_schema.types import Action, FinalDecision

__all__ = ["Run"]

_NEVER = 1 << 63
_PROGRESS_EVERY = 1_000
_NOTED_MARKETS = 5  # of very many, a few tell the same
_PULL = "pull"
# Commands after which no quote may rest.
_TAKE_OFF = ("pause", "kill", "reduce")


class Run:
    """Everything that a run holds. `loop.assemble` makes it; `run_loop` drives it."""

    def __init__(
        self,
        *,
        run_id: str,
        feed: RecordedFeed | LiveFeed,
        market: Market,
        parts_for: Callable[[SymbolState], MarketParts],
        broker: Broker,
        orders: OrderManager,
        executor: Executor | None,
        account: Account,
        timers: Timers,
        clock: Clock | None,
        trace: TraceLogger | None,
        audit: AuditEdge | None,
        activity: ActivityLog | None,
        counters: RunCounters,
        stop_on_bad_event: bool,
        is_dry: bool,
        staleness_ms: int,
        progress: Callable[[int], None] | None,
        latches: Latches,
        trading: Trading,
        controls: Controls,
        control_server: ControlServer | None,
        durable: Durable | None,
        facts: dict[str, Any],
        native: NativeSettings | None = None,
    ) -> None:
        self.run_id = run_id
        self.feed = feed
        self.counters = counters
        self.stop_reason = ""
        self.market = market
        self.parts: dict[str, MarketParts] = {}
        self._parts_by_market: dict[str, MarketParts] = {}
        self.parts_for = parts_for
        self.broker = broker
        self._sees_market = type(broker).on_market_data is not Broker.on_market_data
        self.orders = orders
        self._executor = None if executor is None else OneShot(executor, trading, counters.fail)
        self.account = account
        self._view = AccountView()
        self._account_version = 0  # moves with every mark and every fill
        self._active: set[str] = set()  # markets with a position or an order, as of the last count
        self._filled_markets: set[str] = set()  # since then
        self.timers = timers
        self._clock = clock
        self._trace = trace
        self.step_log = None if trace is None else StepLog(trace, run_id, trading.gate, market.feature_names)
        self._audit = audit
        self._activity = activity
        self._has_moved = False  # quotes, since the activity log was last told
        self._stop_on_bad_event = stop_on_bad_event
        self._is_dry = is_dry
        self._staleness_ms = staleness_ms
        self.progress = progress
        self.latches = latches
        self.controls = controls
        self._trading = trading
        self._gate = trading.gate
        self._control_server = control_server
        orders.gate = trading.gate
        trading.on_budget = self._apply_budget
        self._view.is_denied = trading.is_denied
        self._facts = facts
        self._times_bars = facts["times_bars"]
        self._reader = facts["reader"]
        self._reconnects = 0
        # A resumed trace goes on counting: client order ids are made of the number, and must not repeat.
        self._sequence = trace.next_step if trace is not None else 0
        self._durable = durable
        self._keep_ns = _NEVER  # the first step that has something for the journal: the quiet ones pass by
        if durable is not None:
            self._keep_ns = 0
            durable.journal.on_dirty = self._keep_soon
            self._sequence = max(self._sequence, durable.journal.next_step)
            durable.journal.step_now = lambda: self._sequence
            durable.restore(account)
        self._now_ns = 0
        is_written = trace is None or (trace.step_writer is not None and not self._sequence)
        self._native = NativeRun(self, facts["reader"], native) if native is not None and is_written else None

    def drive(self, steps: int | None, stop: StopSignal) -> str:
        """Step until the source is exhausted, which raises `FeedEnd`, or something else ends the run: return what."""
        if steps == 0:
            return "steps"
        if self._native is None:
            return self._drive(self.feed.items(), steps, stop)
        reason, first = self._native.drive(steps, stop)
        assert isinstance(self.feed, RecordedFeed)
        return reason or self._drive(self.feed.items(first), steps, stop)

    def _drive(self, items: Iterator[Item], steps: int | None, stop: StopSignal) -> str:
        controls = self.controls
        for event, state in items:
            if controls.pending:
                self.obey()
            if state is None:
                self.reject(event)
            else:
                self.step(event, state)
            if self.stop_reason or stop.reason:
                return self.stop_reason or stop.reason
            if self.counters.steps == steps:
                return "steps"
        return stop.reason

    def take_over(self, parts: MarketParts, sequence: int, now_ns: int) -> None:
        """Go on from where the compiled step left a market."""
        self._add_parts(parts.state, parts)
        self._filled_markets.add(parts.market_id)
        self._sequence, self._now_ns = sequence, now_ns
        self._has_moved = True  # a fill may be booked already of the step that goes on here

    def native_log(self, core: Any, stepper: Any, parts: MarketParts, **makers: Any) -> NativeLog | None:
        """Return what writes a market's log for the compiled step, None when nothing is to be written."""
        if self._audit is None:
            return None
        return NativeLog(self, core, stepper, parts, external_keys=EXTERNAL_KEYS, trace=self._trace, **makers)

    @property
    def keeps_activity(self) -> bool:
        """True when fills and quotes are to be written for a picture."""
        return self._activity is not None

    def log_activity(self, state: SymbolState, marks: Sequence[tuple[Any, ...]]) -> None:
        """Write what the compiled step noted of fills and quotes."""
        if self._activity is not None:
            self._activity.take(state.symbol, marks)

    @property
    def audit_failure(self) -> str:
        """Why an audit line could not be written; empty while all is well."""
        return "" if self._audit is None else self._audit.failure

    @property
    def restraint(self) -> str:
        """What the operator, or a latch, lets leave, as packets say it; empty while it is everything."""
        state = self._gate.state
        return "" if state is TradingState.ACTIVE else state.value

    def is_unrestrained(self, parts: MarketParts) -> bool:
        """Return True while no operator's word holds: every order may leave, and limits are the policy's own."""
        self._trading.put_under_budget(parts)
        return self._gate.state is TradingState.ACTIVE and parts.policy is parts.base_policy

    # One step. ----------------------------------------------------------------------------------------------------

    def step(self, event: Any, state: SymbolState) -> None:
        """Fold the event, book the fills, decide, act, trace."""
        started = perf_ns()
        is_timer = type(event) is TimerEvent
        if not is_timer:
            try:
                state.observe(event)
            except EventError as error:
                if not state.last_ts_ns:
                    self.market.forget(state.symbol)  # a symbol of which nothing good was ever heard
                self.reject(error)
                return
        now_ns = self._now_ns = (
            self._clock.now_ns() if self._clock is not None else event.recv_ts_ns or event.exch_ts_ns
        )
        if not is_timer:
            # A venue's clock may run ahead of ours: what we have just heard is as old as now, not younger.
            state.last_book_ts_ns = min(state.last_book_ts_ns, now_ns)
            # Bars are far apart by nature: silence after one says nothing, unless timers were asked for.
            if self._times_bars or type(event) is not Bar:
                self.timers.arm(state, min(state.last_ts_ns, now_ns))
        parts = self.parts.get(state.symbol) or self._add_parts(state)
        if self._reader.reconnects != self._reconnects:
            self._hear_reconnects(parts, now_ns)
        observed = perf_ns()
        if self._sees_market and state.changed and not is_timer:
            self._show_market(event, state, parts, now_ns)
        self._decide_on(event, state, parts, (started, observed), is_timer=is_timer)

    def go_on(self, event: Any, state: SymbolState, now_ns: int) -> None:
        """Finish a step whose event was folded, and shown to the broker, by the compiled step."""
        started = perf_ns()
        self._now_ns = now_ns
        is_timer = type(event) is TimerEvent
        self._decide_on(event, state, self.parts[state.symbol], (started, started), is_timer=is_timer)

    def settle_again(self, state: SymbolState, now_ns: int) -> None:
        """Bring the account to the view, in the middle of a step whose fills the compiled step has booked."""
        self._book_fills(state, self.parts[state.symbol], now_ns)

    def go_on_with(self, proposal: Any, event: Any, state: SymbolState) -> None:
        """Finish a step of which the compiled step did all up to the model's proposal."""
        parts, started = self.parts[state.symbol], perf_ns()
        decision = judge(parts, proposal, self._view, self._now_ns)
        is_timer = type(event) is TimerEvent
        self._act_on(event, state, parts, decision, (started, started, started), is_timer=is_timer)

    def _decide_on(
        self, event: Any, state: SymbolState, parts: MarketParts, times: tuple[int, int], *, is_timer: bool
    ) -> None:
        """Book the fills, decide, act and trace."""
        now_ns = self._now_ns
        self._book_fills(state, parts, now_ns)
        booked = perf_ns()
        decision = decide(parts, event, self._view, now_ns)
        self._act_on(event, state, parts, decision, (*times, booked), is_timer=is_timer)

    def _act_on(
        self,
        event: Any,
        state: SymbolState,
        parts: MarketParts,
        decision: Decision,
        times: tuple[int, int, int],
        *,
        is_timer: bool,
    ) -> None:
        """Act and trace."""
        started, observed, booked = times
        now_ns, decided = self._now_ns, perf_ns()
        actions = NOTHING_DONE if self._is_dry else self._act(decision, state, parts, now_ns)
        self._fold_verdict(decision, actions, state, parts, now_ns, is_timer=is_timer)
        if now_ns >= self._keep_ns:
            self._keep(parts, now_ns)
        if self._activity is not None and (self._has_moved or actions is not NOTHING_DONE):
            self._note_quotes(self._activity, now_ns)
        acted = perf_ns()
        if self.step_log is not None:
            stages = (started, observed, booked, decided, acted)
            self.step_log.log(event, state, decision, actions, self._sequence, now_ns, stages, is_timer=is_timer)
        ended = perf_ns()
        self._count(decision, actions, (started, observed, booked, decided, acted, ended), is_timer=is_timer)
        if self._audit is not None and self._audit.failure:
            raise TraceError(self._audit.failure)

    def _keep_soon(self) -> None:
        self._keep_ns = 0

    def _keep(self, parts: MarketParts, now_ns: int) -> None:
        durable = self._durable
        if durable is None:
            return
        journal = durable.journal
        if journal.is_dirty or now_ns >= durable.due_ns:
            durable.keep(parts, now_ns)
        self._keep_ns = 0 if journal.is_dirty else durable.due_ns

    def obey(self) -> None:
        """Carry out what the operator commanded since the last step, the kill first."""
        while (ticket := self.controls.take()) is not None:
            now_ns = self._now_ns = self._clock.now_ns() if self._clock is not None else self._now_ns
            command = ticket.command
            try:
                reply = self._trading.obey(command, now_ns)
                if reply.ok and command.verb in _TAKE_OFF:
                    self._take_off(f"{command.verb} by {command.operator}")
                if self._durable is not None and self._durable.journal.is_dirty:
                    self._durable.journal.commit()
            except Exception as error:
                # Answered before anything else can fail, and closed: a command half carried out is not carried out.
                ticket.answer(self._trading.fail_closed(error, now_ns))
                raise
            ticket.answer(reply)
            self._view.is_denied = self._trading.is_denied

    def _take_off(self, reason: str) -> None:
        if self._is_dry:
            return
        if self._executor is None:
            self.counters.add_actions(self.orders.cancel_all(reason, self._now_ns // NS_PER_MS))
        else:
            self._withdraw(reason)

    def _apply_budget(self) -> None:
        for parts in self.parts.values():
            self._trading.put_under_budget(parts)
            # A packet names its policy by the hash: this line says which policy that is.
            self.record(
                "policy",
                market_id=parts.market_id,
                policy_hash=parts.policy_hash,
                max_total_exposure_usd=parts.policy.max_total_exposure_usd,
            )

    def reject(self, error: EventError) -> None:
        """Count a bad event, and end the run when that was asked for."""
        placed = error.at(*self._facts["source"].place())
        self.counters.reject(placed)
        if self._stop_on_bad_event:
            self.stop_reason = f"bad_event: {placed}"

    def _hear_reconnects(self, parts: MarketParts, now_ns: int) -> None:
        """The source could be read again after it could not: what was said meanwhile was not heard."""
        for _ in range(self._reader.reconnects - self._reconnects):
            parts.risk.on_reconnect(now_ns)
        self._reconnects = self._reader.reconnects
        self.record("source_reconnected", market_id=parts.market_id)
        self.orders.on_reconnect()

    def _add_parts(self, state: SymbolState, made: MarketParts | None = None) -> MarketParts:
        parts = self.parts[state.symbol] = made or self.parts_for(state)
        self._parts_by_market[parts.market_id] = parts
        if self._durable is not None:
            self._durable.join(parts, self._tell_position, self.latches.names)
            self.orders.trade_in(parts.market_id)
        self.latches.join(parts.risk)
        self._trading.put_under_budget(parts)
        return parts

    def _book_fills(self, state: SymbolState, parts: MarketParts, now_ns: int) -> None:
        for fill in self.orders.poll(now_ns // NS_PER_MS):
            self._book(fill, now_ns)
            self._account_version += 1
        mid = state.mid
        if mid > 0.0 and mid != parts.marked_mid:
            parts.marked_mid = mid
            self.account.mark(parts.market_id, mid)
            parts.risk.on_book(now_ns, mid)
            self._account_version += 1
        view = self._view
        view.position = self.account.positions.position(parts.market_id)
        view.open_orders = self.orders.open_count
        view.active_markets = self._active_markets()
        if self._executor is not None:
            own = self._executor.open_orders()
            view.open_orders += len(own)
            quoted = {market_id for _, market_id in own}
            # The order manager does not know them: a market with a position was counted, one with orders alone not.
            view.active_markets += sum(self.account.positions.position(market_id) == 0.0 for market_id in quoted)
        if parts.account_version != self._account_version:
            parts.account_version = self._account_version
            self._tell_account(state, parts, now_ns)

    def _tell_account(self, state: SymbolState, parts: MarketParts, now_ns: int) -> None:
        """Bring the account's money to the view and to the market's risk state: it moves with marks and fills only."""
        account, view, mid = self.account, self._view, state.mid
        # Limits are in USD; an inverse market's money is in coin.
        parts.usd_rate = mid if state.instrument.is_inverse and mid > 0.0 else 1.0
        view.exposure_usd = account.exposure_usd()
        view.equity = account.equity
        view.drawdown = account.drawdown
        realized = account.realized - account.fees
        parts.risk.on_account(now_ns, realized, account.unrealized, account.equity, parts.usd_rate)

    def _show_market(self, event: Any, state: SymbolState, parts: MarketParts, now_ns: int) -> None:
        try:
            self.broker.on_market_data(event, state.bid, state.ask, state.bid_size, state.ask_size)
        except AmiError:
            raise
        except Exception as error:  # a simulated venue of the user's own is foreign code
            self._halt(f"on_market_data failed: {type(error).__name__}", parts, now_ns)

    def _active_markets(self) -> int:
        """Markets with a position or an order, counted by what changed: there may be thousands of them."""
        if len(self.parts) == 1:
            return int(self._view.position != 0.0 or self.orders.open_count > 0)
        touched = self.orders.markets_touched()
        if self._filled_markets:
            touched |= self._filled_markets
            self._filled_markets.clear()
        for market_id in touched:
            if self.orders.has_open(market_id) or self.account.positions.position(market_id) != 0.0:
                self._active.add(market_id)
            else:
                self._active.discard(market_id)
        return len(self._active)

    def _book(self, fill: Fill, now_ns: int) -> None:
        """Book one fill everywhere that counts fills."""
        market_id = fill.market_id
        self.counters.fills += 1
        if self._executor is not None:
            self._executor.on_fill(fill)
        result = self.account.apply(fill)
        self._filled_markets.add(market_id)
        if self._durable is not None:
            self._durable.post(fill, self.account.positions)
        parts = self._parts_by_market.get(market_id)
        if self._activity is not None:
            self._has_moved = True
            self._activity.fill(
                self._sequence,
                now_ns,
                market_id if parts is None else parts.state.symbol,
                fill,
                position=self.account.positions.position(market_id),
                equity=self.account.equity,
            )
        if parts is None:
            return
        is_settled_fee = fill.fee_currency in ("", parts.state.instrument.currency)
        realized = result.realized - (fill.fee if is_settled_fee else 0.0)
        parts.risk.on_fill(now_ns, fill, parts.state.mid or fill.price, realized)
        if result.closed:
            parts.risk.on_position_closed(now_ns, result.trip_pnl)
        position = self.account.positions.position(market_id)
        self._tell_position(parts, fill, now_ns, position=position, is_closed=result.closed)

    def _tell_position(self, parts: MarketParts, fill: Fill, now_ns: int, *, position: float, is_closed: bool) -> None:
        market_id = parts.market_id
        if is_closed:
            parts.positions.on_position_closed(market_id)
        if position != 0.0:
            # After a flip only what is left is a position, opened by this fill.
            qty = position if is_closed else fill.signed_qty
            parts.positions.register_fill(market_id, fill.price, qty, now_ns // NS_PER_MS)

    def _act(self, decision: Decision, state: SymbolState, parts: MarketParts, now_ns: int) -> Actions:
        final, mismatch = decision.final, decision.mismatch
        if self._executor is not None:
            return self._executor.run(final, state, parts.market_id)
        metadata = mismatch.metadata
        pull = metadata is not None and metadata.get("quotes") == _PULL
        return self.orders.apply(
            final,
            parts.market_id,
            now_ns // NS_PER_MS,
            bid=state.bid,
            ask=state.ask,
            position=self._view.position,
            pull=pull,
            step=self._sequence,
        )

    def _fold_verdict(
        self,
        decision: Decision,
        actions: Actions,
        state: SymbolState,
        parts: MarketParts,
        now_ns: int,
        *,
        is_timer: bool,
    ) -> None:
        """Let the risk state remember the verdict and what became of it; quiet the timer of a stale symbol."""
        risk = parts.risk
        risk.on_verdict(now_ns, decision.proposal, decision.final, decision.mismatch)
        if decision.final.action is Action.STOP:
            self.latches.learn(risk, now_ns, f"{parts.market_id}: {', '.join(decision.final.reasons)}")
        is_throttled = decision.mismatch.throttle_refresh_ms is not None
        if is_throttled != parts.is_throttled:
            parts.is_throttled = is_throttled
            if is_throttled:
                self.record(
                    "throttle", market_id=parts.market_id, throttle_refresh_ms=decision.mismatch.throttle_refresh_ms
                )
        has_error = False
        if decision.proposal.reasons == _HOOK_ERROR:
            has_error = True
            self.counters.error_count += 1
            self.counters.last_error = "the model failed: see private_hook_error in the audit log"
        if actions is not NOTHING_DONE:
            if actions.canceled:
                risk.on_cancels(now_ns, actions.canceled)
            for _ in range(actions.failures):
                risk.on_failure(now_ns)
            for _ in range(actions.rate_limits):
                risk.on_rate_limit(now_ns)
            for _ in range(actions.reconnects):
                risk.on_reconnect(now_ns)
            has_error = has_error or bool(actions.errors)
            if actions.halt:
                self._halt(actions.halt, parts, now_ns)
        if not is_timer:
            risk.on_step(now_ns, has_error)
        elif now_ns // NS_PER_MS - state.last_book_ts_ns // NS_PER_MS > self._staleness_ms:
            # The guard's own arithmetic, to the millisecond: this timer has found the symbol stale, the next would too.
            self.timers.disarm(state)
        else:
            state.timer_due_ns = now_ns
            self.timers.arm(state, now_ns)

    def _halt(self, reason: str, parts: MarketParts, now_ns: int) -> None:
        """The broker cannot do, or did, what it must not: every market stops until an operator releases it."""
        self.counters.last_error = redact_text(reason)
        self.record("halt", reason=reason, market_id=parts.market_id)
        self.latches.latch("kill_switch", now_ns, redact_text(reason))
        self._has_moved = True
        self._take_off(f"halt: {reason}")

    def _note_quotes(self, activity: ActivityLog, now_ns: int) -> None:
        """Tell the activity log the best own prices that rest in each market."""
        self._has_moved = False
        best: dict[str, tuple[float | None, float | None]] = {}
        for order in self.orders.open_orders():
            if order.tif is not TimeInForce.GTC:
                continue
            parts = self._parts_by_market.get(order.market_id)
            symbol = order.market_id if parts is None else parts.state.symbol
            bid, ask = best.get(symbol, NO_QUOTES)
            if order.side is Side.BUY:
                best[symbol] = (order.price if bid is None else max(bid, order.price), ask)
            else:
                best[symbol] = (bid, order.price if ask is None else min(ask, order.price))
        activity.quotes(self._sequence, now_ns, best)

    def _count(self, decision: Decision, actions: Actions, times: tuple[int, ...], *, is_timer: bool) -> None:
        counters = self.counters
        self._sequence += 1
        if actions is not NOTHING_DONE:
            counters.add_actions(actions)
        if decision.mismatch.reason_codes:
            counters.guarded(decision.mismatch.reason_codes)
        if is_timer:
            counters.timers += 1
        else:
            counters.steps += 1
            counters.decided(decision.proposal.action, decision.final.action, decision.final.reasons)
            if self.progress is not None and counters.steps % _PROGRESS_EVERY == 0:
                self.progress(counters.steps)
        counters.timed(times)

    # The end. -----------------------------------------------------------------------------------------------------

    def finish(self, reason: str) -> dict[str, Any]:
        """Cancel every order, book the last fills, close the trace, and return the summary; no venue makes it raise."""
        now_ms = self._now_ns // NS_PER_MS
        self.counters.ended(reason)
        self.controls.close(reason)
        if self._control_server is not None:
            self._control_server.close()
        why = f"end of run: {reason}"
        if self._native is not None and self._native.finish(why):
            return self._summary(reason)
        if not self._is_dry and self._executor is None:
            self.counters.add_actions(self.orders.cancel_all(why, now_ms))
        elif not self._is_dry:
            self._withdraw(why)
        for fill in self.orders.poll(now_ms):
            self._book(fill, self._now_ns)
        own = () if self._executor is None else self._executor.open_orders()
        still_open = (*self.orders.unconfirmed(now_ms), *(order_id for order_id, _ in own))
        if still_open:
            # Why the venue did not close them is the better word, where one was said; the notes name them anyhow.
            last_error = self.counters.last_error
            self.counters.fail(
                last_error or f"{len(still_open)} orders are not confirmed as closed at the end of the run"
            )
        return self._summary(reason, still_open)

    def _summary(self, reason: str, still_open: Sequence[str] = ()) -> dict[str, Any]:
        if self._activity is not None:
            self._note_quotes(self._activity, self._now_ns)
            self._activity.close()
        self._close_feed()
        summary = {"run_id": self.run_id, "stopped_reason": reason, **self.counters.to_dict()}
        account = self.account
        summary["position_open_count"] = account.open_count
        summary["position_close_count"] = account.close_count
        summary["realized_pnl"] = account.realized
        summary["unrealized_pnl"] = account.unrealized
        summary["fees"] = account.fees
        summary["final_equity"] = account.equity
        summary["max_drawdown"] = account.max_drawdown
        summary["positions"] = {name: account.positions.position(name) for name in account.positions.markets}
        summary["trading_state"] = self._trading.state.value
        summary["controls_obeyed"] = self._trading.commands
        summary["controls_refused"] = 0 if self._control_server is None else self._control_server.refused
        if self._durable is not None:
            failure = self._durable.finish(self._now_ns)
            summary["journal_path"] = self._durable.journal.store.path
            self._fail_at_end(failure)
        summary.update(self._close_logs(reason))
        notes = list(self._facts["notes"])
        last_ns = self._now_ns if self.market.is_priced else 0
        notes += time_notes(last_ns, has_assumed_time=self._facts["reader"].has_assumed_time)
        for state in itertools.islice(self.market.states.values(), _NOTED_MARKETS):
            if state.generic is None:
                notes += grid_note(state.symbol, state.bid, state.ask, state.instrument.tick_size)
        if undescribed := self.market.undescribed():
            names, given = ", ".join(undescribed[:5]), ", ".join(list(self.market.described)[:5])
            notes.append(f"no instrument is given for {names}, which has the default one; given: {given}")
        summary["error_count"] = self.counters.error_count + self._facts["reader"].failures
        summary["last_error"] = self.counters.last_error
        if self.counters.orders_skipped:
            notes.append(
                f"{self.counters.orders_skipped} quotes were below the instrument's smallest order: raise size_usd"
            )
        if self.orders.strays:
            notes.append(
                "orders of an earlier run, which the journal does not know, were live at the start and had to be"
                f" cancelled: {', '.join(self.orders.strays)}"
            )
        if still_open:
            notes.append(f"may still be live at the venue: {', '.join(still_open)}")
        if self.latches.names:
            notes.append(f"latched until an operator releases it: {', '.join(self.latches.names)}")
        if self._activity is not None and self._activity.failure:
            notes.append(f"the activity log is not whole: {self._activity.failure}")
        summary["notes"] = notes
        summary["backend"] = next((state.builder.backend for state in self.market.states.values()), None)
        summary["policy_hash"] = self._facts["policy_hash"]
        return summary

    def _fail_at_end(self, error: str) -> None:
        """Count what failed while the run was closed, unless it is what ended it."""
        if error not in self.counters.last_error:
            self.counters.fail(error)

    def _close_feed(self) -> None:
        try:
            self.feed.close()
        except Exception as error:  # the source is foreign code, and its orders are gone by now
            self.counters.fail(f"the source could not be closed: {type(error).__name__}")

    def _withdraw(self, reason: str) -> None:
        """Tell an executor to cancel in every market."""
        assert self._executor is not None
        decision = FinalDecision(Action.CANCEL, True, [reason])
        for parts in self.parts.values():
            self.counters.add_actions(self._executor.run(decision, parts.state, parts.market_id))

    def _close_logs(self, reason: str) -> dict[str, Any]:
        """Close the trace, and the audit log with the word of how far the trace goes: `verify` asks it."""
        paths: dict[str, Any] = {"trace_path": None, "chain_head": None, "audit_path": None}
        end: dict[str, Any] = {}
        if self._trace is not None:
            paths["trace_path"] = str(self._trace.path)
            try:
                self._trace.close()
                end = {"trace_packets": self._trace.packets, "chain_head": self._trace.chain_head}
            except TraceError as error:
                self._fail_at_end(str(error))
            paths["chain_head"] = self._trace.chain_head
            paths["trace_queued_max"] = self._trace.queued_max
            paths["trace_dropped"] = self._trace.dropped
            paths["trace_blocked_ns"] = self._trace.blocked_ns
        self.record("run_end", reason=reason, **end)
        if self._audit is not None:
            paths["audit_path"] = str(self._audit.path)
            self._audit.close()
        return paths

    def record(self, kind: str, **fields: Any) -> None:
        """Write an audit line, where there is an audit log."""
        if self._audit is not None:
            self._audit.record(kind, **fields)


_HOOK_ERROR = [HOOK_ERROR]
