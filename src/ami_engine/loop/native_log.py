"""What a run that the compiled core steps writes down: packets of steps that hold more than numbers, and audit lines.

The core writes the packet of a step by itself, unless the step failed, latched a STOP, or says something for the first
time. What it leaves is made here from its numbers: the guards are asked again, in Python, with the context that the
core's guards saw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ami_engine.dmc.guards import CLAMP, LEAVE, PULL
from ami_engine.dmc.modulator import FINDING_KEYS, modulate, modulate_in_full
from ami_engine.dmc.trading_state import TradingState
from ami_engine.errors import TraceError
from ami_engine.events import SubmitOrder, TimerEvent
from ami_engine.execution.order_manager import NOTHING_DONE, Actions
from ami_engine.execution.order_restore import OrderTold
from ami_engine.loop.native_values import ACTIONS, quote_error
from ami_engine.loop.packets import STATE_KEY, TracedDecision
from ami_engine.loop.step import Decision, MarketParts
from ami_engine.sim.paper_broker import form_refusal, own_order_refusal, reduce_only_refusal, taking_refusal
from ami_engine.trace.trace_logger import TraceLogger
from decision_schema.types import Action, FinalDecision, MismatchInfo, Proposal

if TYPE_CHECKING:
    from ami_engine.loop.run import Run

__all__ = ["NativeLog"]

# In the order of the core's `Exit`, without its first: none.
_EXITS = ("take_profit", "stop_loss", "time_stop")
_PARAMS = ("bid_quote", "ask_quote", "size_usd", "post_only")
_SUBMITTED, _REJECTED, _CANCELED, _SWEPT = range(4)
_MALFORMED, _NOTHING_TO_REDUCE, _OWN_ORDER, _WOULD_TAKE = range(4)


class NativeLog:
    """Trace and audit log of a run's one market, as far as they are not written by the core itself.

    Parameters
    ----------
    run : Run
        Whose logs are written.
    core : module
        The compiled core.
    stepper : Stepper
        The core's step.
    parts : MarketParts
        The market.
    external_keys : tuple of str
        The keys of what became of a step's orders.
    trace : TraceLogger or None
        The trace, ready to log steps.
    request, order_id : callable
        Make the request of an order that the core tells of, and the client order id of what a step placed on a side.
    """

    def __init__(
        self,
        run: Run,
        core: Any,
        stepper: Any,
        parts: MarketParts,
        *,
        external_keys: tuple[str, ...],
        trace: TraceLogger | None,
        request: Callable[[OrderTold], SubmitOrder],
        order_id: Callable[[int, bool], str],
    ) -> None:
        self._run = run
        self._core = core
        self._stepper = stepper
        self._parts = parts
        self._trace = trace
        self._request = request
        self._order_id = order_id
        stepper.keep_notes()
        if trace is not None:
            words = self._words(external_keys)
            self._expect(trace, words)
            stepper.trace_into(trace.step_writer, words)

    def _words(self, external_keys: tuple[str, ...]) -> dict[str, Any]:
        context = type(self._parts.context)
        return {
            "context_type": context,
            "context_keys": context.__struct_fields__,
            "proposal_type": Proposal,
            "final_type": FinalDecision,
            "policy_hash": self._parts.policy_hash,
            "timer": TimerEvent.__struct_config__.tag,
            "reasons": self._core.MODEL_REASONS,
            "exits": _EXITS,
            "actions": ACTIONS,
            "params": _PARAMS,
            "external": external_keys,
            "traced_type": TracedDecision,
            "mismatch_type": MismatchInfo,
            "flags": self._core.GUARD_FLAGS,
            "codes": self._core.REASON_CODES,
            "asked": (*map(str, ACTIONS), CLAMP),
            "finding_keys": FINDING_KEYS,
            "quotes": (PULL, LEAVE),
            "state_key": STATE_KEY,
        }

    def _expect(self, trace: TraceLogger, words: Mapping[str, Any]) -> None:
        """Have all of a packet's words looked at: what stands beside a NaN would never be learned from a packet."""
        state = self._parts.state
        texts = [state.symbol, words["policy_hash"], words["timer"], *(status.value for status in TradingState)]
        for name in ("reasons", "exits", "flags", "codes", "asked", "quotes"):
            texts += words[name]
        keys = [words["state_key"], *words["params"], *words["external"], *words["flags"], *words["finding_keys"]]
        trace.expect([kind for name, kind in words.items() if name.endswith("_type")], texts, keys)

    def hear_orders(self) -> None:
        """Write the audit lines of what became of the step's orders."""
        if self._stepper.done()[-1] and not self._stepper.is_last_error_the_models:
            self._run.record("quotes_refused", market_id=self._parts.market_id, error=self._quote_error())
        self._tell_notes()

    def hear_last_orders(self) -> None:
        """Write the audit lines of the orders that the end of the run took off."""
        self._tell_notes()
        self._tell_sweep()

    def _tell_sweep(self) -> None:
        self._run.record("orders_swept", count=0, error="")

    def _tell_notes(self) -> None:
        record = self._run.record
        for what, told, refusal in self._stepper.take_notes():
            order = OrderTold(*told)
            if what == _SWEPT:
                self._tell_sweep()
            elif what == _SUBMITTED:
                record("order_submitted", order=self._request(order))
            elif what == _CANCELED:
                record("order_canceled", client_order_id=self._order_id(order.step, order.is_buy))
            else:
                order_id = self._order_id(order.step, order.is_buy)
                record("order_rejected", client_order_id=order_id, error=self._refusal(order, *refusal))

    def hear_throttle(self) -> None:
        """Write the audit line of a throttle that came; one that went is not worth one."""
        parts = self._parts
        parts.is_throttled = self._stepper.is_throttled
        if parts.is_throttled:
            self._run.record(
                "throttle", market_id=parts.market_id, throttle_refresh_ms=parts.policy.throttle_refresh_ms
            )

    def check(self) -> None:
        """Raise when an audit line could not be written.

        Raises
        ------
        TraceError
            Then.
        """
        failure = self._run.audit_failure
        if failure:
            raise TraceError(failure)

    def flush(self) -> None:
        """Hand on the trace's packets."""
        assert self._trace is not None
        self._trace.flush_when_due()

    def log_step(self, event: Any, *, is_timer: bool) -> None:
        """Make the packet of the step that the core has just made."""
        stepper, parts = self._stepper, self._parts
        now_ns, proposed, _, codes, reasons, exit_reason = stepper.decision()
        context = type(parts.context)(*stepper.context())
        proposal = stepper.given
        if proposal is None:
            proposal = self._proposal(ACTIONS[proposed], reasons, exit_reason)
        if codes:
            final, mismatch = modulate_in_full(proposal, parts.policy, context)
        else:
            final, mismatch = modulate(proposal, parts.policy, context)
        decision = Decision(proposal, final, mismatch, context, parts.policy_hash)
        assert self._run.step_log is not None
        self._run.step_log.log(
            TimerEvent(now_ns, parts.state.symbol) if is_timer else event,
            parts.state,
            decision,
            self._actions(),
            stepper.sequence - 1,
            now_ns,
            stepper.last_times(),
            is_timer=is_timer,
        )
        # A latch, which changes it, is one of the things that the core leaves to be logged here.
        stepper.say_state(self._run.restraint)

    def _proposal(self, action: Action, reasons: int, exit_reason: int) -> Proposal:
        confidence, bid_quote, ask_quote, size_usd, post_only, has_params = self._stepper.proposal()
        if exit_reason:
            return Proposal(action, confidence, [_EXITS[exit_reason - 1]])
        named = [name for place, name in enumerate(self._core.MODEL_REASONS) if reasons >> place & 1]
        if not has_params:
            return Proposal(action, confidence, named)
        quotes = {"bid_quote": bid_quote, "ask_quote": ask_quote}
        params: dict[str, Any] = {name: price for name, price in quotes.items() if price}
        return Proposal(action, confidence, named, params | {"size_usd": size_usd, "post_only": post_only})

    def _actions(self) -> Actions:
        submitted, canceled, rejected, skipped, failed = self._stepper.done()
        errors: tuple[str, ...] = ()
        if failed and not self._stepper.is_last_error_the_models:
            errors = (self._quote_error(),)
        actions = Actions(submitted=submitted, canceled=canceled, rejected=rejected, skipped=skipped, errors=errors)
        return NOTHING_DONE if actions == NOTHING_DONE else actions

    def _quote_error(self) -> str:
        return quote_error(self._stepper.quote_fault(), self._parts.state.instrument)

    def _refusal(
        self, order: OrderTold, why: int, held: float, own_price: float, own_step: int, own_is_buy: bool, best: float
    ) -> str:
        if why == _MALFORMED:
            symbol, market_id = self._parts.state.symbol, self._parts.market_id
            text = form_refusal(self._request(order), self._run.broker.instrument_of(symbol, market_id))  # type: ignore[attr-defined]
        elif why == _NOTHING_TO_REDUCE:
            text = reduce_only_refusal(order.side, self._parts.state.symbol, held)
        elif why == _OWN_ORDER:
            text = own_order_refusal(order.price, self._order_id(own_step, own_is_buy), own_price)
        else:
            text = taking_refusal(order.price, best)
        return f"VenueRejected: {' '.join(text.split())}"
