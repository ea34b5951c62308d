"""The trace's packet of a step, and what it says of the step's orders."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from ami_engine.dmc.trading_state import TradingGate, TradingState
from ami_engine.execution.order_manager import NOTHING_DONE, Actions
from ami_engine.loop.packets import STATE_KEY, PacketInput, TracedDecision, feature_row, row_type, traced_decision
from ami_engine.loop.step import Decision
from ami_engine.loop.symbol_state import SymbolState
from ami_engine.trace.packet_writer import StepTypes
from ami_engine.trace.trace_logger import TraceLogger
from decision_schema.packet_v2 import PacketV2

__all__ = ["EXTERNAL_KEYS", "StepLog"]

_NO_EXTERNAL: dict[str, Any] = {}
EXTERNAL_KEYS = (
    "exec.attempt_count",
    "exec.success_count",
    "exec.failed_count",
    "exec.denied_count",
    "exec.skipped_count",
)
_FLUSH_IS_DUE = 2
_STAGES = ("observe", "fills", "decide", "orders")


class StepLog:
    """Writes the packets of a run's steps.

    Parameters
    ----------
    trace : TraceLogger
        Where they go.
    run_id : str
        The run.
    gate : TradingGate
        Knows the trading state, which a packet tells when it is not the plain one.
    feature_names : tuple of str
        The columns of a row.
    """

    def __init__(self, trace: TraceLogger, run_id: str, gate: TradingGate, feature_names: tuple[str, ...]) -> None:
        self._trace = trace
        self._run_id = run_id
        self._gate = gate
        self._write = trace.begin_steps(
            StepTypes(Decision, PacketInput, row_type(feature_names), TracedDecision), run_id
        )

    def log(
        self,
        event: Any,
        state: SymbolState,
        decision: Decision,
        actions: Actions,
        sequence: int,
        now_ns: int,
        times: tuple[int, ...],
        *,
        is_timer: bool,
    ) -> None:
        """Write the packet of the step of that number; `times` are its beginning and the end of each stage, ns."""
        kind = type(event).__struct_config__.tag
        external = _NO_EXTERNAL if actions is NOTHING_DONE else _external(actions)
        if self._gate.state is not TradingState.ACTIVE:
            external = {**external, STATE_KEY: self._gate.state.value}
        if self._write is not None and kind != "generic":
            row = None if is_timer else state.row
            outcome = self._write(sequence, event, state.symbol, now_ns, row, decision, external, times)
            if outcome:
                if outcome == _FLUSH_IS_DUE:
                    self._trace.flush_when_due()
                return
        features: Any = None
        if not is_timer:
            features = state.generic.view if kind == "generic" and state.generic is not None else feature_row(state.row)
        packet = PacketV2(
            self._run_id,
            sequence,
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
            external,
            decision.proposal,
            traced_decision(decision.final, decision.mismatch) if decision.mismatch.flags else decision.final,
            (times[-1] - times[0]) / 1e6,
            decision.mismatch if decision.mismatch.flags else None,
        )
        self._trace.log_packet(
            packet, {name: end - start for name, (start, end) in zip(_STAGES, pairwise(times), strict=True)}
        )


def _external(actions: Actions) -> dict[str, Any]:
    """What became of the step's orders, under the registered `exec.` keys."""
    counts = (
        actions.submitted,
        actions.submitted - actions.rejected - actions.in_doubt,
        actions.failures,
        actions.rejected + actions.withheld,
        actions.skipped,
    )
    return dict(zip(EXTERNAL_KEYS, counts, strict=True))
