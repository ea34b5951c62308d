"""Cases: a decision, and the whole loop around it, untraced and traced."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from ami_engine.adapters.base import MarketDataSource
from ami_engine.bench.case import Case, Group, Prepared, Ratio, Scale, require
from ami_engine.bench.inputs import CONFIG, MOVING, market, quote_events
from ami_engine.bench.rows import BOTTLENECK_ROW
from ami_engine.dmc import RiskPolicy, modulate
from ami_engine.dmc.risk_state import RiskState
from ami_engine.events import BookSnapshot
from ami_engine.loop.native_run import STEP_VARIABLE
from ami_engine.loop.run_loop import run_loop
from ami_engine.loop.step import AccountView, MarketParts, decide
from ami_engine.loop.symbol_state import SymbolState
from ami_engine.mdm.decision_engine import DecisionEngine
from ami_engine.mdm.position_manager import PositionManager
from ami_engine.sim.microstructure_sim import MicrostructureSim
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.sim.synthetic_source import SyntheticSource
from ami_engine.trace.reader import verify
from ami_engine.trace.trace_logger import TraceLogger
from ami_engine.units import Instrument
from decision_schema.types import Action, Proposal

__all__ = [
    "DECIDE_GROUP",
    "INSTRUMENT",
    "LOOP_GROUP",
    "SYMBOL",
    "TRACE_GROUP",
    "WAYS_GROUP",
    "WIDE_POLICY",
    "ReplaySource",
    "drive",
    "replay",
]

SYMBOL = "BTCUSDT"
INSTRUMENT = Instrument(SYMBOL, tick_size=CONFIG.tick_size, lot_size=0.000001, maker_fee_bps=1.0, taker_fee_bps=4.0)
# Wide enough that a steady stream of fills does not stop the run: it is the step that is timed, not a latched STOP.
WIDE_POLICY = RiskPolicy(
    max_total_exposure_usd=1e6, max_per_market_usd=1e6, daily_loss_stop_usd=1e9, cancel_rate_limit=10**6, min_depth=0.0
)


class ReplaySource(MarketDataSource):
    """Gives out events that lie ready: reading costs as good as nothing."""

    snapshots_only = True
    identity = "bench"

    def __init__(self, events: list[BookSnapshot]) -> None:
        self._next = iter(events).__next__

    def next_event(self) -> BookSnapshot | None:
        """Return the next event, None when there is none."""
        try:
            return self._next()
        except StopIteration:
            return None

    def instruments(self) -> Mapping[str, Instrument]:
        """Return the one instrument."""
        return {SYMBOL: INSTRUMENT}


def _events(count: int) -> list[BookSnapshot]:
    """One-level books whose price mostly stands still, as a real one does: else every step trades."""
    return quote_events(market(count, moving=MOVING), SYMBOL)


def drive(source: MarketDataSource, **options: Any) -> dict[str, Any]:
    """Run the loop over `source` with a PaperBroker and every guard; return its summary."""
    broker = PaperBroker(instruments=source.instruments(), cash=1e6)
    return run_loop(
        source=source,
        broker=broker,
        feature_config=CONFIG,
        risk_policy=WIDE_POLICY,
        start_cash=1e6,
        timer_ms=0.0,
        **options,
    )


def replay(events: list[BookSnapshot], *, looks: bool = False, **options: Any) -> dict[str, Any]:
    """Run the loop over events that lie ready; `looks`: the broker's books are asked for at the end."""
    broker = PaperBroker(instruments={SYMBOL: INSTRUMENT}, cash=1e6)
    source = ReplaySource(events)
    summary = run_loop(
        source=source,
        broker=broker,
        feature_config=CONFIG,
        risk_policy=WIDE_POLICY,
        start_cash=1e6,
        timer_ms=0.0,
        **options,
    )
    if looks:
        require(broker.get_state()["positions"] == summary["positions"], "the broker holds something else than the run")
    return summary


def _check_summary(summary: dict[str, Any], steps: int) -> None:
    """A run that holds all the time, or was stopped, would be fast for the wrong reason."""
    require(summary["steps"] == steps, f"the loop made {summary['steps']} steps of {steps}")
    require(summary["stopped_reason"] == "source_exhausted", f"the loop ended by {summary['stopped_reason']}")
    require(summary["action_counts"].get("ACT", 0) > steps // 4, f"decided too little: {summary['action_counts']}")
    require(summary["orders_submitted"] > 0 and summary["fills_count"] > 0, "no order was sent, or none was filled")
    require(summary["error_count"] == 0 and not summary["rejected_events"], "the loop met errors")


def _untraced(scale: Scale) -> Prepared:
    events = _events(scale.steps)

    def run() -> dict[str, Any]:
        return replay(events, trace=False)

    return Prepared(run, lambda: _check_summary(run(), len(events)), len(events))


def _looking(scale: Scale) -> Prepared:
    events = _events(scale.steps)

    def run() -> dict[str, Any]:
        return replay(events, looks=True, trace=False)

    return Prepared(run, lambda: _check_summary(run(), len(events)), len(events))


def _in_python(scale: Scale) -> Prepared:
    """The same run without the compiled step."""
    events = _events(scale.steps)

    def run() -> dict[str, Any]:
        before = os.environ.get(STEP_VARIABLE)
        os.environ[STEP_VARIABLE] = "python"
        try:
            return replay(events, trace=False)
        finally:
            if before is None:
                del os.environ[STEP_VARIABLE]
            else:
                os.environ[STEP_VARIABLE] = before

    return Prepared(run, lambda: _check_summary(run(), len(events)), len(events))


def _draining(scale: Scale) -> Prepared:
    events = _events(scale.steps)

    def run() -> int:
        read = ReplaySource(events).next_event
        count = 0
        while read() is not None:
            count += 1
        return count

    return Prepared(run, lambda: require(run() == len(events), "the source lost an event"), len(events))


def _simulated(scale: Scale) -> Prepared:
    def run() -> dict[str, Any]:
        sim = MicrostructureSim(seed=42)
        source = SyntheticSource(sim, num_events=scale.steps)
        return run_loop(source=source, broker=PaperBroker(instruments=source.instruments()), trace=False)

    def check() -> None:
        require(run()["steps"] == scale.steps, "the loop did not take every event")

    return Prepared(run, check, scale.steps)


class _Folder:
    """A directory for one run after another."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="ami-bench-"))

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def _logged(scale: Scale, *, trace: bool | str) -> Prepared:
    """A run with its audit log, so that the trace is all that two of them differ by."""
    events = _events(scale.steps)
    folder = _Folder()

    def run() -> dict[str, Any]:
        return replay(events, trace=trace, run_dir=folder.path, overwrite=True)

    def check() -> None:
        summary = run()
        _check_summary(summary, len(events))
        if trace:
            report = verify(folder.path)
            require(report.ok and report.packets == len(events), "the trace does not verify")

    return Prepared(run, check, len(events), close=folder.close)


class _PacketKeeper(TraceLogger):
    """Keeps a copy of each packet, beside writing it."""

    def __init__(self, folder: Path) -> None:
        super().__init__("bench", run_dir=folder, overwrite=True)
        self.kept: list[Any] = []

    def log_packet(self, packet: Any, latency_ns: Mapping[str, int] | None = None) -> None:
        """Write the packet; the context in it is live and has to be copied to be kept."""
        context = copy.copy(packet.input.context)
        self.kept.append(copy.copy(packet))
        self.kept[-1].input = msgspec.structs.replace(packet.input, context=context)
        super().log_packet(packet, latency_ns)


def _encoding(scale: Scale) -> Prepared:
    """The least that a chained trace can do: encode each packet, and hash it with the hash before it."""
    folder = _Folder()
    events = _events(scale.steps)
    keeper = _PacketKeeper(folder.path)
    replay(events, trace=keeper, overwrite=True)
    packets = keeper.kept
    encode_into = msgspec.json.Encoder().encode_into

    def run() -> bytes:
        buffer = bytearray()
        head = b""
        for packet in packets:
            encode_into(packet, buffer)
            head = sha256(buffer + head).digest()
        return head

    def check() -> None:
        require(len(packets) == len(events), "a packet is missing")
        first = msgspec.json.decode(msgspec.json.encode(packets[-1]))
        require(first["input"]["features"]["mid"] == (events[-1].bid + events[-1].ask) / 2.0, "not the last packet")
        require(run() == run(), "hashing the same packets twice gave two hashes")

    return Prepared(run, check, len(packets), close=folder.close)


def _deciding(scale: Scale) -> Prepared:
    """Decide again and again on one market that stands still: the model, the context and the guards are timed."""
    events = _events(1_000)
    state = SymbolState(SYMBOL, INSTRUMENT, CONFIG, snapshots_only=True)
    parts = MarketParts(
        state,
        SYMBOL,
        engine=DecisionEngine(),
        modulate=modulate,
        policy=WIDE_POLICY,
        risk=RiskState(WIDE_POLICY, CONFIG.tick_size),
        positions=PositionManager(tick_size=CONFIG.tick_size),
    )
    for event in events:
        state.observe(event)
        parts.risk.on_event(event.recv_ts_ns)
        parts.risk.on_book(event.recv_ts_ns, state.mid)
    account = AccountView(equity=1e6)
    event, now_ns = events[-1], events[-1].recv_ts_ns

    def run() -> None:
        for _ in range(scale.calls):
            decide(parts, event, account, now_ns)

    def check() -> None:
        decision = decide(parts, event, account, now_ns)
        again = decide(parts, event, account, now_ns)
        require(decision.final == again.final, "one state gave two decisions")
        require(decision.final.action in (Action.ACT, Action.HOLD), f"decided {decision.final.action}")
        require(not decision.mismatch.flags, f"guards fired on a quiet market: {decision.mismatch.reason_codes}")

    return Prepared(run, check, scale.calls)


def _modulating(scale: Scale) -> Prepared:
    proposal = Proposal(Action.ACT, 0.9, ["bench"], {"bid_quote": 59_999.9, "ask_quote": 60_000.1, "size_usd": 1.0})
    context = {"now_ms": 1_000, "last_event_ts_ms": 1_000, "mid": 60_000.0, "depth": 50.0, "spread_bps": 0.02}

    def run() -> None:
        for _ in range(scale.calls):
            modulate(proposal, WIDE_POLICY, context)

    def check() -> None:
        final, mismatch = modulate(proposal, WIDE_POLICY, context)
        require(final.action is Action.ACT and not mismatch.flags, "a proposal within every limit was refused")

    return Prepared(run, check, scale.calls)


DECIDE_GROUP = Group(
    "decide",
    (
        Case("decide.step", "`decide`: reference model, context, every guard", _deciding, "ns/decision"),
        Case("decide.modulate", "`modulate` with a context of five keys as a dict", _modulating, "ns/decision"),
    ),
)

LOOP_GROUP = Group(
    "loop",
    (
        Case("loop.untraced",
             "`run_loop`, untraced, PaperBroker, every guard, one-level books; orders in a tenth of the steps",
             _untraced, "ns/step"),
        Case("loop.source", "the source of it alone", _draining, "ns/step"),
        Case("loop.synthetic", "`run_loop`, untraced, synthetic source: ten-level books and trades, made on the way",
             _simulated, "ns/step", rounds=3),
        BOTTLENECK_ROW,
    ),
    (
        Ratio("loop / bottleneck row", "`run_loop` untraced, less the source's own cost, against one bottleneck row",
              "loop.untraced", "row.bottleneck", "loop.source", reach=25.0, aim=15.0),
    ),
)  # fmt: skip

# What `loop.untraced` leaves out: the books of the broker, and the step in Python that everything else takes.
WAYS_GROUP = Group(
    "loop ways",
    (
        Case("loop.looked", "`loop.untraced`, and the broker's books brought at the end, every order named",
             _looking, "ns/step"),
        Case("loop.python", "`loop.untraced` without the compiled step", _in_python, "ns/step", rounds=3),
        Case("trace.binary", "`trace.traced` in the compact form", lambda s: _logged(s, trace="binary"), "ns/step"),
    ),
)  # fmt: skip

TRACE_GROUP = Group(
    "trace",
    (
        Case("trace.traced", "`run_loop` with trace and audit log", lambda s: _logged(s, trace=True), "ns/step"),
        Case("trace.untraced", "`run_loop` with the audit log alone", lambda s: _logged(s, trace=False), "ns/step"),
        Case("trace.encode_and_hash", "msgspec-encoding and SHA-256-hashing the same packets", _encoding, "ns/packet"),
    ),
    (
        Ratio("trace / encode and hash", "traced less untraced, against encoding and hashing the same packets",
              "trace.traced", "trace.encode_and_hash", "trace.untraced", reach=1.7, aim=1.4),
    ),
)  # fmt: skip
