"""The compiled step: decides event by event on one market, and hands everything over to the Python parts when asked.

An accelerator and nothing else. Whatever it does not cover (a second symbol, an event without a price, somebody who
looks at the broker) brings the whole state to the Python parts at a step's boundary, and the run goes on in them with
the results that it would have had without.
"""

from __future__ import annotations

import copy
import os
import weakref
from collections.abc import Callable, Iterator
from importlib import import_module
from operator import index
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ami_engine.adapters.base import Broker
from ami_engine.clock import perf_ns
from ami_engine.config import ExitConfig, QuotingConfig
from ami_engine.dmc.context import GuardContext
from ami_engine.dmc.modulator import modulate
from ami_engine.dmc.risk_policy import RiskPolicy, policy_ranges
from ami_engine.dmc.risk_state import Latch, RiskState
from ami_engine.errors import EventError
from ami_engine.events import Bar, BookDelta, BookSnapshot, BookTicker, FeedGap, Side, SubmitOrder, TimerEvent, Trade
from ami_engine.execution.idempotency import client_order_id
from ami_engine.execution.order_manager import OrderManager
from ami_engine.execution.order_restore import OrderTold, restore_orders
from ami_engine.loop.feed import FeedEnd, SourceReader, is_event
from ami_engine.loop.native_log import NativeLog
from ami_engine.loop.native_values import (
    ACTIONS,
    MAX_WHOLE,
    QUEUES,
    core_difference,
    count_into,
    instrument_values,
    loop_values,
    quote_error,
)
from ami_engine.loop.shutdown import StopSignal
from ami_engine.loop.step import MarketParts
from ami_engine.loop.symbol_state import SymbolState
from ami_engine.mdm.decision_engine import REASON as HOOK_ERROR
from ami_engine.mdm.decision_engine import DecisionEngine
from ami_engine.mdm.position_manager import PositionManager
from ami_engine.mdm.reference_model import ReferenceModel
from ami_engine.portfolio.pnl import Account
from ami_engine.security.redaction import redact_text
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.units import NS_PER_MS, Instrument
from decision_schema.types import Action, Proposal

if TYPE_CHECKING:
    from ami_engine.loop.run import Run

__all__ = ["NativeRun", "NativeSettings", "compiled_step"]

STEP_VARIABLE = "AMI_STEP"

# What the core folds itself, and what Python folds for it.
_NATIVE = frozenset({BookSnapshot, Trade, Bar, FeedGap})
_FOLDED = frozenset({BookDelta, BookTicker})
_SEQ_KINDS = ("book", "trade", "bar")
_DRAWS = 4096
_ENDED_AT_ONCE = 1024
_TIMES = 6
# Codes that ask for STOP, in the order of the guards.
_STOP_CODES = ("kill_switch", "daily_loss_stop", "circuit_breaker", "equity_floor", "drawdown_stop")


class NativeSettings(msgspec.Struct, frozen=True):
    """What a run was made of, as far as the compiled step has to know it."""

    core: Any
    policy: RiskPolicy
    quoting: QuotingConfig
    exits: ExitConfig
    start_cash: float
    times_bars: bool
    is_dry: bool


def compiled_step() -> Any:
    """Return the compiled core when it can step a run of this package.

    None where it is absent or was built from other tables, and when the environment's AMI_STEP says "python".
    """
    if os.environ.get(STEP_VARIABLE, "auto") == "python":
        return None
    try:
        core = import_module("ami_engine._core")
    except ImportError:
        return None
    return core if hasattr(core, "Stepper") and not core_difference(core) else None


def _methods() -> list[tuple[type, str, Any]]:
    """Return what the classes that the core stands in for are made of."""
    return [(kind, name, value) for kind in _STOOD_IN_FOR for name, value in vars(kind).items() if callable(value)]


_STOOD_IN_FOR = (Broker, PaperBroker, DecisionEngine, ReferenceModel, PositionManager, OrderManager, RiskState, Account)
_AS_WRITTEN = _methods()


def _is_as_written() -> bool:
    """Return True while nobody, a test that counts calls perhaps, put a method of its own into one of the classes."""
    return all(vars(kind).get(name) is value for kind, name, value in _AS_WRITTEN)


def _model_params(engine: object) -> tuple[dict[str, Any], bool]:
    """Return what the core needs of a model, and whether it is one that only Python can ask."""
    unread = msgspec.structs.asdict(ReferenceModel()) | {"model": 0, "params": ()}
    if type(engine) is not DecisionEngine or "propose" in vars(engine):
        return unread, True
    if engine.is_reference:
        return unread | msgspec.structs.asdict(engine.model), False  # type: ignore[arg-type]
    address = getattr(engine.model, "compiled_address", None)
    if address is None:
        return unread, True
    return unread | {"model": address, "params": engine.model.params}, False  # type: ignore[union-attr]


def _is_untouched(broker: Broker) -> bool:
    """Return True for a `PaperBroker` of which nothing was overridden or used, and whose requests do not travel."""
    return (
        type(broker) is PaperBroker
        and broker.is_fresh
        and not broker.is_remote
        and not any(callable(getattr(PaperBroker, name, None)) for name in vars(broker))
    )


class NativeRun:
    """The compiled step of one run.

    Parameters
    ----------
    run : Run
        Whose parts it stands in for.
    reader : SourceReader
        Where the events come from.
    settings : NativeSettings
        What the run was made of.
    """

    def __init__(self, run: Run, reader: SourceReader, settings: NativeSettings) -> None:
        self._run = run
        self._broker: Any = run.broker
        self._reader = reader
        self._settings = settings
        self._core = settings.core
        self._stepper: Any = None
        self._step: Callable[[Any], int] = self._begin
        self._state: Any = None
        self._parts: Any = None
        self._is_over = False
        self._latches: list[Latch] = []
        self._draws: Any = None
        self._log: NativeLog | None = None
        self._given: Any = None  # by a model in Python

    # Driving. -----------------------------------------------------------------------------------------------------

    def drive(self, steps: int | None, stop: StopSignal) -> tuple[str, Any]:
        """Step events until the run ends, or something comes that is not covered.

        Returns
        -------
        str
            Why the run ends; empty when it goes on in Python.
        event
            The one that Python begins with; None when that is the source's next one.

        Raises
        ------
        FeedEnd
            The source is exhausted, or failed too often.
        """
        run, left = self._run, -1 if steps is None else steps
        next_event, controls = self._reader.source.next_event, run.controls
        while True:
            try:
                event: Any = next_event()
            except Exception as error:  # the source is foreign code
                event = self._read_after(error)
            if event is _REFUSED:
                is_step = False
            elif controls.pending or self._reader.reconnects or self._is_over:
                # The operator commands, the source was cut off for a while, or it has looked at the broker.
                self.hand_over()
                return "", event
            else:
                told = self._step(event)
                is_step = True
                if told:
                    is_step, rest = self._hear(event, told, stop)
                    if rest is not None:
                        return run.stop_reason or stop.reason, rest
            if is_step:
                left -= 1
            if run.stop_reason or stop.reason:
                return run.stop_reason or stop.reason, None
            if left == 0:
                return "steps", None
            if self._is_over:
                return "", None

    def _read_after(self, error: Exception) -> Any:
        try:
            event = self._reader.read(error)
        except EventError as refused:
            self._run.reject(refused)
            return _REFUSED
        if event is None:
            raise FeedEnd("source_exhausted")
        return event

    def _hear(self, event: Any, told: int, stop: StopSignal) -> tuple[bool, Any]:
        """Do what the core asks for; return whether a step was made, and the event that only Python can take."""
        core = self._core
        while told < 0 or told & core.STEP_AGAIN:
            try:
                if told > 0:
                    self._hear_step(None, told)
                    if stop.reason or self._run.controls.pending:
                        # A long silence has many timers: who stops the run must not wait for the last of them.
                        self.hand_over()
                        return False, event
                    told = self._step(event)
                elif told == core.STEP_CRUMB:
                    return self._go_on(event)
                elif told == core.STEP_PROPOSED:
                    return self._go_on(event, is_proposed=True)
                elif _fits(event) and (
                    told == core.STEP_FOLD or (type(event) in _FOLDED and event.symbol == self._symbol())
                ):
                    told = self._fold(event)
                elif event is None:
                    raise FeedEnd("source_exhausted")
                elif not is_event(event):
                    event = self._reader.accept(event)
                    told = self._step(event)
                else:
                    self.hand_over()
                    self._is_over = True
                    return False, event
            except EventError as error:
                self._run.reject(error)
                return False, None
        if told:
            self._hear_step(event, told)
        return True, None

    def _hear_step(self, event: Any, told: int) -> None:
        """Do what a step leaves to Python; `event` is None after a timer's."""
        core, stepper, run = self._core, self._stepper, self._run
        if told & core.STEP_TIMES_FULL:
            self._take_times()
        if told & core.STEP_ACTIVITY:
            self._take_activity()
        if told & core.STEP_FAILED:
            self._note_error()
        if told & core.STEP_NOTES and self._log is not None:
            self._log.hear_orders()
        if told & core.STEP_LATCHED:
            self._note_latches()
        if self._log is not None:
            self._hear_log(self._log, event, told)
        if told & core.STEP_MORE_DRAWS:
            stepper.use_draws([self._draws.draw() for _ in range(_DRAWS)])
        if told & core.STEP_PROGRESS and run.progress is not None:
            run.progress(stepper.steps)

    def _hear_log(self, log: NativeLog, event: Any, told: int) -> None:
        """Write what the core leaves of the step's packet and its audit lines."""
        core = self._core
        if told & core.STEP_THROTTLED:
            log.hear_throttle()
        if told & core.STEP_PACKET:
            log.log_step(event, is_timer=event is None)
        elif told & core.STEP_FLUSH:
            log.flush()
        log.check()

    def _take_times(self) -> None:
        times = np.frombuffer(self._stepper.take_times(), dtype=np.int64).reshape(-1, _TIMES)
        self._run.counters.timed_many(times)

    def _take_activity(self) -> None:
        self._run.log_activity(self._state, self._stepper.take_activity())

    def _note_error(self) -> None:
        if self._stepper.is_last_error_the_models:
            error = "the model failed: see private_hook_error in the audit log"
        else:
            error = redact_text(quote_error(self._stepper.quote_fault(), self._state.instrument))
        self._run.counters.last_error = error

    def _note_latches(self) -> None:
        """Name what a STOP latched, and let every market hear of it."""
        now_ns, proposed, _, codes, reasons, _ = self._stepper.decision()
        is_proposed = ACTIONS[proposed] is Action.STOP
        known = {latch.name for latch in self._latches}
        for name in self._stepper.risk()["latches"]:
            if name not in known:
                # Only a model's own STOP latches the kill switch here: nobody else throws it in a run of this kind.
                self._latches.append(Latch(name, now_ns, "proposed by the model" if name == "kill_switch" else name))
        names = self._core.REASON_CODES
        found = [name for name in _STOP_CODES if codes >> names.index(name) & 1]
        if is_proposed:
            found = self._proposed_reasons(reasons)
        for latch in self._latches:
            if latch.name not in known:
                self._run.latches.latch(latch.name, now_ns, f"{self._parts.market_id}: {', '.join(found)}")

    def _proposed_reasons(self, reasons: int) -> list[str]:
        """Return why the model proposed what it did; `reasons` are the core's bits."""
        given = self._stepper.given
        if given is not None:
            return list(given.reasons)
        return [name for place, name in enumerate(self._core.MODEL_REASONS) if reasons >> place & 1]

    # Events that Python folds. ------------------------------------------------------------------------------------

    def _fold(self, event: Any) -> int:
        """Fold an event in Python, or find out what is wrong with it; the core does the rest of the step."""
        stepper, state = self._stepper, self._state
        self._tell_state()
        ts_ns = event.recv_ts_ns or event.exch_ts_ns
        # An event that will be refused says nothing of the time: it must not make timers up to its own.
        if stepper.is_timer_due(ts_ns) and state.would_accept(event):
            told: int = stepper.run_timers(ts_ns)
            if told:
                return told if told < 0 else told | self._core.STEP_AGAIN
        started_ns = perf_ns()
        try:
            state.observe(event)
        except EventError:
            self._hear_state()
            if not state.last_ts_ns:
                self._forget()  # a symbol of which nothing good was ever heard
            raise
        self._hear_state()
        return int(stepper.step_folded(event, ts_ns, started_ns))

    def _tell_state(self) -> None:
        """Bring the core's view of the symbol to its state."""
        state = self._state
        bid, ask, mid, bid_size, ask_size, changed, has_gap, last_ns, book_ns, due_ns, entry_ns, seqs = (
            self._stepper.market()
        )
        state.bid, state.ask, state.mid, state.bid_size, state.ask_size = bid, ask, mid, bid_size, ask_size
        state.changed, state.has_gap, state.last_ts_ns, state.last_book_ts_ns = changed, has_gap, last_ns, book_ns
        state.last_seq.update((kind, seq) for kind, seq in zip(_SEQ_KINDS, seqs, strict=True) if seq)
        self._run.timers.load(state, due_ns, entry_ns)

    def _hear_state(self) -> None:
        state = self._state
        self._stepper.set_market(
            state.bid,
            state.ask,
            state.mid,
            state.bid_size,
            state.ask_size,
            state.changed,
            state.has_gap,
            state.last_book_ts_ns,
            [state.last_seq.get(kind, 0) for kind in _SEQ_KINDS],
        )

    # Beginning. ---------------------------------------------------------------------------------------------------

    def _symbol(self) -> str | None:
        return None if self._state is None else self._state.symbol

    def _begin(self, event: Any) -> int:
        """Take the first event: its symbol is the run's market."""
        if type(event) in _NATIVE or type(event) in _FOLDED:
            self._make(event.symbol)
            if self._stepper is not None:
                self._step = self._stepper.step
                return self._step(event)
        return int(self._core.STEP_FOREIGN)

    def _make(self, symbol: str) -> None:
        run, settings = self._run, self._settings
        state = run.market.state(symbol)
        parts = run.parts_for(state)
        if not self._are_covered(state, parts):
            return
        model, is_asked = _model_params(parts.engine)
        broker = self._broker
        venue_instrument = broker.instrument_of(symbol, parts.market_id)
        self._draws = copy.deepcopy(broker.draws)
        address, params = model.pop("model"), model.pop("params")
        values = loop_values(
            settings.policy,
            state.instrument,
            venue_instrument or Instrument(""),
            settings.quoting,
            settings.exits,
            model,
            venue_grid=venue_instrument is not None,
        )
        values |= {
            "queue": QUEUES[broker.queue],
            "model": address,
            "start_cash": settings.start_cash,
            "timer_ns": run.timers.period_ns,
            "times_bars": settings.times_bars,
            "is_table_checked": True,
            "is_dry": settings.is_dry,
        }
        try:
            self._stepper = self._core.Stepper(
                state.builder.engine,
                symbol,
                values,
                [] if self._draws is None else [self._draws.draw() for _ in range(_DRAWS)],
                list(params),
                state.keeps_book,
                [kind in state.unique_seq for kind in _SEQ_KINDS],
                broker.history,
            )
        except (TypeError, RuntimeError):
            return  # a setting that is no whole number of milliseconds
        self._state, self._parts = state, parts
        if run.keeps_activity:
            self._stepper.keep_activity()
        if is_asked:
            run_of = weakref.ref(self)  # nobody collects a cycle that goes through the core

            def ask() -> Any:
                native = run_of()
                assert native is not None
                return native._ask()

            self._stepper.ask_model(ask, Proposal, ACTIONS, HOOK_ERROR)
        self._log = run.native_log(self._core, self._stepper, parts, request=self._request, order_id=self._order_id)
        broker.lend(self._recall)

    def _are_covered(self, state: SymbolState, parts: MarketParts) -> bool:
        """Return True when the compiled parts mean the same as this market's."""
        run, policy = self._run, self._settings.policy
        if state.builder.backend != "native" or not _is_untouched(self._broker):
            return False
        currency = run.account.positions.currency
        venue = self._broker.instrument_of(state.symbol, parts.market_id)
        known = (run.orders.instrument_of(parts.market_id), run.account.positions.instrument(parts.market_id))
        same = instrument_values(state.instrument)
        return (
            parts.modulate is modulate
            and _is_as_written()
            and run.timers.period_ns <= MAX_WHOLE * NS_PER_MS
            and run.is_unrestrained(parts)
            and not run.latches.names
            and not (state.instrument.is_inverse or (venue is not None and venue.is_inverse))
            and all(instrument_values(other) == same for other in known)
            and {state.instrument.currency, self._broker.currency if venue is None else venue.currency} == {currency}
            and all(key in GuardContext.__struct_fields__ and key != "extra" for key in policy.required_context)
            and all(getattr(policy, key) <= MAX_WHOLE for key, allowed in policy_ranges().items() if allowed.is_whole)
        )

    def _forget(self) -> None:
        self._run.market.forget(self._state.symbol)
        self._broker.lend(None)
        self._stepper = self._state = self._parts = self._log = None
        self._step = self._begin

    # Handing over. ------------------------------------------------------------------------------------------------

    def hand_over(self) -> None:
        """Bring the whole state to the Python parts; the run goes on in them."""
        if self._is_over:
            return
        self._is_over = True
        if self._stepper is None:
            return
        if not self._stepper.now_ns:
            self._forget()  # nothing happened yet: the Python step decides whether the first event makes a market
            return
        run, stepper, parts = self._run, self._stepper, self._parts
        stepper.release()
        self._bring_books()
        parts.risk.load(self._risk())
        held = stepper.held()
        if held is not None:
            parts.positions.load(parts.market_id, *held)
        told = stepper.orders()
        trades: dict[tuple[int, bool], set[str]] = {}
        for number, _, is_buy, _, _, _, _, ts_ns, step in stepper.venue()["fills"]:
            trades.setdefault((step, is_buy), set()).add(f"{ts_ns}-{number}")
        restore_orders(
            run.orders,
            parts.market_id,
            told,
            order_id=self._order_id,
            trade_ids=trades,
            now_ms=stepper.now_ns // NS_PER_MS,
        )
        _, _, _, codes, _, _ = stepper.decision()
        throttle = self._core.REASON_CODES.index("cancel_rate_exceeded")
        parts.is_throttled = bool(codes >> throttle & 1) and self._settings.policy.throttle_refresh_ms > 0
        run.take_over(parts, stepper.sequence, stepper.now_ns)
        self._bring_venue()
        if stepper.is_asking:
            # Before the model does anything else: what it orders itself is filled in the next step.
            run.settle_again(parts.state, stepper.now_ns)

    def finish(self, why: str) -> bool:
        """End a run that the core stepped to its end: True when it did, and Python only has to tell of it."""
        if self._is_over or self._stepper is None:
            return False
        self._is_over = True
        is_told = self._log is not None and not self._settings.is_dry
        if is_told:
            self._run.record("cancel_all", reason=why, open_orders=self._stepper.open_orders)
        self._stepper.release()
        self._stepper.finish()
        if is_told:
            assert self._log is not None
            self._log.hear_last_orders()
        self._bring_books()
        self._run.take_over(self._parts, self._stepper.sequence, self._stepper.now_ns)
        # Whoever looks at the broker gets its books then: to name every order takes longer than to place it.
        self._broker.lend(self._bring_venue)
        return True

    def _bring_books(self) -> None:
        """Bring what the summary tells of: counts, times, money; and the symbol's state."""
        run, stepper = self._run, self._stepper
        self._tell_state()
        self._take_times()
        self._take_activity()
        count_into(run.counters, stepper.counts(), self._core)
        run.account.load(self._parts.market_id, stepper.account())

    def _recall(self) -> None:
        """Somebody looks at the broker while the run goes on."""
        self._broker.lend(None)
        self.hand_over()

    def _bring_venue(self) -> None:
        self._broker.load(
            self._state.symbol,
            self._parts.market_id,
            self._stepper.venue(),
            ended=self._ended(),
            request=self._request,
            order_id=self._order_id,
        )

    def _ended(self) -> Iterator[tuple[Any, ...]]:
        """Yield the orders that ended at the venue. There may be very many: the core forgets them as they are told."""
        while told := self._stepper.take_ended(_ENDED_AT_ONCE):
            yield from told

    def _request(self, order: OrderTold) -> SubmitOrder:
        size_usd = self._state.instrument.notional(order.price, order.qty)
        return order.request(self._order_id(order.step, order.is_buy), self._parts.market_id, size_usd)

    def _order_id(self, step: int, is_buy: bool) -> str:
        side = Side.BUY if is_buy else Side.SELL
        return client_order_id(self._run.orders.run_id, self._parts.market_id, step, side)

    def _risk(self) -> dict[str, Any]:
        """Return what the guards remember, as `RiskState.load` reads it."""
        told = self._stepper.risk()
        money = ("day", "realized", "total", "day_start_realized", "day_start_total", "equity", "peak_equity")
        timers = ("throttle", "post_fill", "ops", "adverse_15", "adverse_60", "streak", "quote_budget")
        windows: dict[str, list[int]] = {"failures": [], "rate_limits": [], "reconnects": []}
        return {
            "windows": windows | {name: told[name] for name in ("cancels", "quotes")},
            "markouts": told["markouts"],
            "steps": told["steps"],
            "last_event_ns": None,
            "losses": told["losses"],
            "money": {name: told[name] for name in money},
            "timers": dict(zip(timers, told["timers"], strict=True)),
            "latches": self._latches,
        }

    def _ask(self) -> Any:
        """Return what the model proposes. It is foreign code, and may look at the broker: see `_recall`.

        What it gave last is let go here and nowhere else, because that is foreign code, too.
        """
        self._given = None
        self._given = self._parts.engine.propose(self._state.features())
        return self._given

    def _go_on(self, event: Any, *, is_proposed: bool = False) -> tuple[bool, Any]:
        """Finish in Python a step that the core cannot decide on: the venue has seen the event."""
        run, stepper, state = self._run, self._stepper, self._state
        timer_ns = stepper.pending_timer_ns
        self.hand_over()
        stepped = TimerEvent(timer_ns, state.symbol) if timer_ns else event
        if is_proposed:
            run.go_on_with(stepper.given, stepped, state)
        else:
            run.go_on(stepped, state, timer_ns or state.last_ts_ns)
        return (False, event) if timer_ns else (True, None)


def _fits(event: Any) -> bool:
    """Return True for a market event whose time and number are whole, and small enough for the core to reckon with."""
    if not is_event(event):
        return False
    try:
        ts_ns, seq = index(event.recv_ts_ns or event.exch_ts_ns), index(event.seq)
    except TypeError:
        return False
    return -_LAST <= ts_ns <= _LAST and -_LAST <= seq <= _LAST


# The core's `kLastNs`.
_LAST = 1 << 62

# In the place of an event that was refused already.
_REFUSED = object()
