"""A run in progress: what one step does, in order, and how a run ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ami_engine.adapters.base import Broker
from ami_engine.clock import Clock, perf_ns
from ami_engine.errors import AmiError, EventError, TraceError
from ami_engine.events import Bar, Fill, Side, TimeInForce, TimerEvent
from ami_engine.execution.executor import Executor
from ami_engine.execution.order_manager import NOTHING_DONE, Actions, OrderManager
from ami_engine.loop.audit_edge import AuditEdge
from ami_engine.loop.feed import LiveFeed, RecordedFeed, Timers
from ami_engine.loop.latches import Latches
from ami_engine.loop.market import Market
from ami_engine.loop.packets import PacketInput, feature_row, traced_decision
from ami_engine.loop.step import AccountView, Decision, MarketParts, decide
from ami_engine.loop.summary import RunCounters
from ami_engine.loop.symbol_state import SymbolState
from ami_engine.mdm.decision_engine import REASON as HOOK_ERROR
from ami_engine.ops.activity import NO_QUOTES, ActivityLog
from ami_engine.portfolio.pnl import Account
from ami_engine.security.redaction import redact_text
from ami_engine.trace.trace_logger import TraceLogger
from ami_engine.units import NS_PER_MS
from decision_schema.packet_v2 import PacketV2
from decision_schema.types import Action, FinalDecision

__all__ = ["Run"]

_PROGRESS_EVERY = 1_000
_PULL = "pull"


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
        facts: dict[str, Any],
    ) -> None:
        self.run_id = run_id
        self.feed = feed
        self.counters = counters
        self.stop_reason = ""
        self._market = market
        self._parts: dict[str, MarketParts] = {}
        self._parts_by_market: dict[str, MarketParts] = {}
        self._parts_for = parts_for
        self._broker = broker
        self._sees_market = type(broker).on_market_data is not Broker.on_market_data
        self._orders = orders
        self._executor = executor
        self._account = account
        self._view = AccountView()
        self._account_version = 0  # moves with every mark and every fill
        self._timers = timers
        self._clock = clock
        self._trace = trace
        self._audit = audit
        self._activity = activity
        self._has_moved = False  # quotes, since the activity log was last told
        self._stop_on_bad_event = stop_on_bad_event
        self._is_dry = is_dry
        self._staleness_ms = staleness_ms
        self._progress = progress
        self._latches = latches
        self._facts = facts
        self._times_bars = facts["times_bars"]
        # A resumed trace goes on counting: client order ids are made of the number, and must not repeat.
        self._sequence = trace.next_step if trace is not None else 0
        self._now_ns = 0

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
                    self._market.forget(state.symbol)  # a symbol of which nothing good was ever heard
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
                self._timers.arm(state, min(state.last_ts_ns, now_ns))
        parts = self._parts.get(state.symbol) or self._add_parts(state)
        observed = perf_ns()
        self._book_fills(event, state, parts, now_ns, is_timer=is_timer)
        booked = perf_ns()
        decision = decide(parts, event, self._view, now_ns)
        decided = perf_ns()
        actions = NOTHING_DONE if self._is_dry else self._act(decision, state, parts, now_ns)
        self._fold_verdict(decision, actions, state, parts, now_ns, is_timer=is_timer)
        if self._activity is not None and (self._has_moved or actions is not NOTHING_DONE):
            self._note_quotes(self._activity, now_ns)
        acted = perf_ns()
        if self._trace is not None:
            stages = {
                "observe": observed - started,
                "fills": booked - observed,
                "decide": decided - booked,
                "orders": acted - decided,
            }
            self._log(event, state, decision, actions, now_ns, stages, acted - started, is_timer=is_timer)
        ended = perf_ns()
        self._count(decision, actions, (started, observed, booked, decided, acted, ended), is_timer=is_timer)
        if self._audit is not None and self._audit.failure:
            raise TraceError(self._audit.failure)

    def reject(self, error: EventError) -> None:
        """Count a bad event, and end the run when that was asked for."""
        placed = error.at(*self._facts["source"].place())
        self.counters.reject(placed)
        if self._stop_on_bad_event:
            self.stop_reason = f"bad_event: {placed}"

    def _add_parts(self, state: SymbolState) -> MarketParts:
        parts = self._parts[state.symbol] = self._parts_for(state)
        self._parts_by_market[parts.market_id] = parts
        self._latches.join(parts.risk)
        return parts

    def _book_fills(self, event: Any, state: SymbolState, parts: MarketParts, now_ns: int, *, is_timer: bool) -> None:
        if self._sees_market and state.changed and not is_timer:
            self._show_market(event, state, parts, now_ns)
        for fill in self._orders.poll(now_ns // NS_PER_MS):
            self._book(fill, now_ns)
            self._account_version += 1
        mid = state.mid
        if mid > 0.0 and mid != parts.marked_mid:
            parts.marked_mid = mid
            self._account.mark(parts.market_id, mid)
            parts.risk.on_book(now_ns, mid)
            self._account_version += 1
        view = self._view
        view.position = self._account.positions.position(parts.market_id)
        view.open_orders = self._orders.open_count
        view.active_markets = self._active_markets()
        if parts.account_version != self._account_version:
            parts.account_version = self._account_version
            self._tell_account(state, parts, now_ns)

    def _tell_account(self, state: SymbolState, parts: MarketParts, now_ns: int) -> None:
        """Bring the account's money to the view and to the market's risk state: it moves with marks and fills only."""
        account, view, mid = self._account, self._view, state.mid
        # Limits are in USD; an inverse market's money is in coin.
        parts.usd_rate = mid if state.instrument.is_inverse and mid > 0.0 else 1.0
        view.exposure_usd = account.exposure_usd()
        view.equity = account.equity
        view.drawdown = account.drawdown
        realized = account.realized - account.fees
        parts.risk.on_account(now_ns, realized, account.unrealized, account.equity, parts.usd_rate)

    def _show_market(self, event: Any, state: SymbolState, parts: MarketParts, now_ns: int) -> None:
        try:
            self._broker.on_market_data(event, state.bid, state.ask, state.bid_size, state.ask_size)
        except AmiError:
            raise
        except Exception as error:  # a simulated venue of the user's own is foreign code
            self._halt(f"on_market_data failed: {type(error).__name__}", parts, now_ns)

    def _active_markets(self) -> int:
        """Markets with a position or an order."""
        if len(self._parts) == 1:
            return int(self._view.position != 0.0 or self._orders.open_count > 0)
        held = set(self._account.held_markets())
        held.update(order.market_id for order in self._orders.open_orders())
        return len(held)

    def _book(self, fill: Fill, now_ns: int) -> None:
        """Book one fill everywhere that counts fills."""
        market_id = fill.market_id
        self.counters.fills += 1
        result = self._account.apply(fill)
        parts = self._parts_by_market.get(market_id)
        if self._activity is not None:
            self._has_moved = True
            self._activity.fill(
                self._sequence,
                now_ns,
                market_id if parts is None else parts.state.symbol,
                fill,
                position=self._account.positions.position(market_id),
                equity=self._account.equity,
            )
        if parts is None:
            return
        is_settled_fee = fill.fee_currency in ("", parts.state.instrument.currency)
        realized = result.realized - (fill.fee if is_settled_fee else 0.0)
        parts.risk.on_fill(now_ns, fill, parts.state.mid or fill.price, realized)
        position = self._account.positions.position(market_id)
        if result.closed:
            parts.positions.on_position_closed(market_id)
            parts.risk.on_position_closed(now_ns, result.trip_pnl)
        if position != 0.0:
            # After a flip only what is left is a position, opened by this fill.
            qty = position if result.closed else fill.signed_qty
            parts.positions.register_fill(market_id, fill.price, qty, now_ns // NS_PER_MS)

    def _act(self, decision: Decision, state: SymbolState, parts: MarketParts, now_ns: int) -> Actions:
        final, mismatch = decision.final, decision.mismatch
        if self._executor is not None:
            return self._run_executor(final, state, parts)
        metadata = mismatch.metadata
        pull = metadata is not None and metadata.get("quotes") == _PULL
        return self._orders.apply(
            final,
            parts.market_id,
            now_ns // NS_PER_MS,
            bid=state.bid,
            ask=state.ask,
            position=self._view.position,
            pull=pull,
            step=self._sequence,
        )

    def _run_executor(self, final: FinalDecision, state: SymbolState, parts: MarketParts) -> Actions:
        assert self._executor is not None
        try:
            return actions_of(self._executor.run(final, parts.market_id, mid=state.mid or None))
        except AmiError:
            raise
        except Exception as error:  # an executor of the user's own is foreign code
            return Actions(failures=1, errors=(f"executor: {type(error).__name__}",))

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
            self._latches.learn(risk, now_ns, f"{parts.market_id}: {', '.join(decision.final.reasons)}")
        is_throttled = decision.mismatch.throttle_refresh_ms is not None
        if is_throttled != parts.is_throttled:
            parts.is_throttled = is_throttled
            if is_throttled:
                self._record(
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
            has_error = has_error or bool(actions.errors)
            if actions.halt:
                self._halt(actions.halt, parts, now_ns)
        if not is_timer:
            risk.on_step(now_ns, has_error)
        elif now_ns // NS_PER_MS - state.last_book_ts_ns // NS_PER_MS > self._staleness_ms:
            # The guard's own arithmetic, to the millisecond: this timer has found the symbol stale, the next would too.
            self._timers.disarm(state)
        else:
            state.timer_due_ns = now_ns
            self._timers.arm(state, now_ns)

    def _halt(self, reason: str, parts: MarketParts, now_ns: int) -> None:
        """The broker cannot do, or did, what it must not: every market stops until an operator releases it."""
        self.counters.last_error = redact_text(reason)
        self._record("halt", reason=reason, market_id=parts.market_id)
        self._latches.latch("kill_switch", now_ns, redact_text(reason))
        self._has_moved = True
        self.counters.add_actions(self._orders.cancel_all(f"halt: {reason}", now_ns // NS_PER_MS))

    def _note_quotes(self, activity: ActivityLog, now_ns: int) -> None:
        """Tell the activity log the best own prices that rest in each market."""
        self._has_moved = False
        best: dict[str, tuple[float | None, float | None]] = {}
        for order in self._orders.open_orders():
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

    def _log(
        self,
        event: Any,
        state: SymbolState,
        decision: Decision,
        actions: Actions,
        now_ns: int,
        stages: dict[str, int],
        total_ns: int,
        *,
        is_timer: bool,
    ) -> None:
        assert self._trace is not None
        kind = type(event).__struct_config__.tag
        features: Any = None
        if not is_timer:
            features = state.generic.view if kind == "generic" and state.generic is not None else feature_row(state.row)
        packet = PacketV2(
            self.run_id,
            self._sequence,
            PacketInput(
                kind,
                state.symbol,
                event.recv_ts_ns,
                now_ns,
                decision.policy_hash,
                0 if is_timer else event.exch_ts_ns,
                0 if is_timer else event.seq,
                features,
                decision.context,
            ),
            _NO_EXTERNAL if actions is NOTHING_DONE else _external(actions),
            decision.proposal,
            traced_decision(decision.final, decision.mismatch) if decision.mismatch.flags else decision.final,
            total_ns / 1e6,
            decision.mismatch if decision.mismatch.flags else None,
        )
        self._trace.log_packet(packet, stages)

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
            if self._progress is not None and counters.steps % _PROGRESS_EVERY == 0:
                self._progress(counters.steps)
        counters.timed(times)

    # The end. -----------------------------------------------------------------------------------------------------

    def finish(self, reason: str) -> dict[str, Any]:
        """Cancel every order, book the last fills, close the trace, and return the summary; no venue makes it raise."""
        now_ms = self._now_ns // NS_PER_MS
        if not self._is_dry and self._executor is None:
            self.counters.add_actions(self._orders.cancel_all(f"end of run: {reason}", now_ms))
        elif not self._is_dry:
            self._withdraw(reason)
        for fill in self._orders.poll(now_ms):
            self._book(fill, self._now_ns)
        if self._activity is not None:
            self._note_quotes(self._activity, self._now_ns)
            self._activity.close()
        self._close_feed()
        summary = {"run_id": self.run_id, "stopped_reason": reason, **self.counters.to_dict()}
        account = self._account
        summary["position_open_count"] = account.open_count
        summary["position_close_count"] = account.close_count
        summary["realized_pnl"] = account.realized
        summary["unrealized_pnl"] = account.unrealized
        summary["fees"] = account.fees
        summary["final_equity"] = account.equity
        summary["max_drawdown"] = account.max_drawdown
        summary["positions"] = {name: account.positions.position(name) for name in account.positions.markets}
        self._record("run_end", reason=reason)
        summary.update(self._close_logs())
        notes = list(self._facts["notes"])
        if self._facts["reader"].has_assumed_time:
            notes.append("events without a time were dated 1 ms apart, from 1 ms on")
        summary["error_count"] += self._facts["reader"].failures
        if self.counters.orders_skipped:
            notes.append(
                f"{self.counters.orders_skipped} quotes were below the instrument's smallest order: raise size_usd"
            )
        if self._activity is not None and self._activity.failure:
            notes.append(f"the activity log is not whole: {self._activity.failure}")
        if self._latches.names:
            notes.append(f"latched until an operator releases it: {', '.join(self._latches.names)}")
        summary["notes"] = notes
        summary["backend"] = next((state.builder.backend for state in self._market.states.values()), None)
        summary["policy_hash"] = self._facts["policy_hash"]
        return summary

    def _close_feed(self) -> None:
        try:
            self.feed.close()
        except Exception as error:  # the source is foreign code, and its orders are gone by now
            self.counters.error_count += 1
            self.counters.last_error = f"the source could not be closed: {type(error).__name__}"

    def _withdraw(self, reason: str) -> None:
        """The end of a run with an executor: it is told to cancel in every market."""
        decision = FinalDecision(Action.CANCEL, True, [f"end of run: {reason}"])
        for parts in self._parts.values():
            self.counters.add_actions(self._run_executor(decision, parts.state, parts))

    def _close_logs(self) -> dict[str, Any]:
        paths: dict[str, Any] = {"trace_path": None, "chain_head": None, "audit_path": None}
        if self._trace is not None:
            paths["trace_path"] = str(self._trace.path)
            try:
                self._trace.close()
            except TraceError as error:
                self.counters.last_error = str(error)
            paths["chain_head"] = self._trace.chain_head
            paths["trace_queued_max"] = self._trace.queued_max
            paths["trace_dropped"] = self._trace.dropped
            paths["trace_blocked_ns"] = self._trace.blocked_ns
        if self._audit is not None:
            paths["audit_path"] = str(self._audit.path)
            self._audit.close()
        return paths

    def _record(self, kind: str, **fields: Any) -> None:
        if self._audit is not None:
            self._audit.record(kind, **fields)


_HOOK_ERROR = [HOOK_ERROR]
_NO_EXTERNAL: dict[str, Any] = {}


def _external(actions: Actions) -> dict[str, Any]:
    """What became of the step's orders, under the registered `exec.` keys."""
    return {
        "exec.attempt_count": actions.submitted,
        "exec.success_count": actions.submitted - actions.rejected - actions.in_doubt,
        "exec.failed_count": actions.failures,
        "exec.denied_count": actions.rejected,
        "exec.skipped_count": actions.skipped,
    }


def actions_of(result: Any) -> Actions:
    """Return what a one-shot executor's result says, as `Actions`."""
    if not isinstance(result, dict):
        return NOTHING_DONE
    errors = tuple(str(error) for error in result.get("errors") or ())
    count = {name: int(result.get(name) or 0) for name in ("submitted", "canceled", "rejected", "in_doubt")}
    if min(count.values()) < 0:
        raise ValueError(f"an executor's counts must be at least 0, were {count}")
    return Actions(
        **count,
        failures=count["in_doubt"],
        errors=errors,
        halt=(errors[-1] if errors else "the executor asked to halt") if result.get("halt") else "",
    )
