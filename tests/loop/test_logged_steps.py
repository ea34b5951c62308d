"""Packets that the core writes from a step's parts are those that are made and encoded one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ami_engine.dmc import RiskPolicy, modulate
from ami_engine.dmc.context import NUMBER_KEYS, GuardContext
from ami_engine.errors import TraceError
from ami_engine.events import BookSnapshot, TimerEvent, Trade
from ami_engine.features.schema import FEATURE_NAMES
from ami_engine.loop.packets import FeatureRow, PacketInput, TracedContext, TracedDecision, feature_row, traced_decision
from ami_engine.loop.run_loop import run_loop
from ami_engine.loop.step import Decision
from ami_engine.mdm.decision_engine import DecisionEngine
from ami_engine.sim.microstructure_sim import MicrostructureSim
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.sim.synthetic_source import SyntheticSource
from ami_engine.trace import TraceLogger, read_packets, verify
from ami_engine.trace.packet_writer import StepTypes
from decision_schema.packet_v2 import PacketV2
from decision_schema.types import Action, FinalDecision, MismatchInfo, Proposal
from tests.feeds.conftest import FEEDS, SHIPPED, Feed, open_feed

from .conftest import ListSource, book, trade

_core = pytest.importorskip("ami_engine._core")

CANARY = "canary-77d1fe"
FORMS = ("jsonl", "binary")
TYPES = StepTypes(Decision, PacketInput, FeatureRow, TracedDecision)
STAGES = ("observe", "fills", "decide", "orders")
Form = Literal["jsonl", "binary"]


class PlainLogger(TraceLogger):
    """Has a `log_packet` of its own, and so is given every packet."""

    def log_packet(self, packet: Any, latency_ns: Any = None) -> None:
        super().log_packet(packet, latency_ns)


class CountingLogger(TraceLogger):
    """Counts what the core wrote and what it left to the plain encoder."""

    def begin_steps(self, types: StepTypes, run_id: str) -> Any:
        self.outcomes = {0: 0, 1: 0, 2: 0}
        log = super().begin_steps(types, run_id)

        def counted(*parts: Any) -> int:
            assert log is not None
            outcome = log(*parts)
            self.outcomes[outcome] += 1
            return outcome

        return counted

    @property
    def written(self) -> int:
        return self.outcomes[1] + self.outcomes[2]


def both(tmp_path: Path, form: Form, make_source: Callable[[], Any], **options: Any) -> CountingLogger:
    """Run twice, by the core and by the plain encoder, and hold the packets against one another."""
    heads, counting = [], None
    for kind in (CountingLogger, PlainLogger):
        folder = tmp_path / f"{kind.__name__}-{form}"
        source = make_source()
        logger = kind("run_1", run_dir=folder, format=form)
        counting = counting or logger
        broker = PaperBroker(instruments=source.instruments())
        heads.append(run_loop(source=source, broker=broker, trace=logger, run_id="run_1", **options)["chain_head"])
        report = verify(folder)
        assert (report.ok, report.chain_head) == (True, heads[-1])
    for fast, plain in zip(*(packets(folder) for folder in sorted(tmp_path.glob(f"*-{form}"))), strict=True):
        assert fast == plain
    assert heads[0] == heads[1]
    assert isinstance(counting, CountingLogger)
    return counting


def packets(folder: Path) -> Iterator[str]:
    """What a trace holds, but for the time that everything took; as text, since NaN is not equal to itself."""
    for packet in read_packets(folder):
        latency = packet.external.pop("ops.latency_ns")
        assert tuple(latency) == STAGES
        assert sum(latency.values()) / 1e6 == packet.latency_ms
        packet.latency_ms = 0.0
        yield repr(packet.to_dict())


@pytest.mark.parametrize("form", FORMS)
def test_a_simulated_market_has_one_chain_either_way(tmp_path: Path, form: Form) -> None:
    logger = both(tmp_path, form, lambda: SyntheticSource(MicrostructureSim(seed=42), num_events=1_500))
    assert logger.outcomes[2] > 0
    assert logger.outcomes[0] < 60 < logger.written // 10


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("feed", FEEDS.values(), ids=FEEDS.keys())
def test_a_recorded_feed_has_one_chain_either_way(feed: Feed, form: Form, data_dir: Path, tmp_path: Path) -> None:
    policy = RiskPolicy.from_toml(SHIPPED / f"{feed.policy}.policy.toml")
    logger = both(tmp_path, form, lambda: open_feed(data_dir, feed), risk_policy=policy, steps=250)
    assert logger.written > 100


@pytest.mark.parametrize("form", FORMS)
def test_timers_gaps_and_a_one_sided_book_are_written_alike(tmp_path: Path, form: Form) -> None:
    def events() -> list[Any]:
        made = [book(at) for at in range(0, 2_000, 50)] + [trade(2_000, 0.5, 1.0, 1)]
        one_sided = msgspec.structs.replace(book(7_000), exch_ts_ns=1, ask=0.0, ask_depth=0.0)
        return [*made, one_sided, *(book(at) for at in range(9_000, 10_000, 50))]

    logger = both(tmp_path, form, lambda: ListSource(events()), timer_ms=500.0)
    assert logger.written > 30
    assert any("timer" in text for text in packets(tmp_path / f"CountingLogger-{form}"))


# One step at a time. --------------------------------------------------------------------------------------------------

FINITE = st.floats(allow_nan=False, allow_infinity=False)
NUMBERS = (
    FINITE
    | FINITE
    | st.integers(-(2**63), 2**63 - 1)
    | st.sampled_from([0, 0.0, -0.0, 1e15, 123.456, 1e-5, 1e22] * 3 + [math.nan, math.inf, -math.inf])
)
CLEAN = ["tight_spread", 'quo"te', "né\u2028", "", "x" * 40, "y" * 200]
TEXTS = st.sampled_from([*CLEAN, *CLEAN, *CLEAN, "NaN", f"token={CANARY}"])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
PARAMS = st.none() | st.dictionaries(
    st.sampled_from(["bid_quote", "size_usd", "note", "post_only", "api_key"]), VALUES, max_size=3
)
REASONS = st.lists(TEXTS, max_size=3)
CONTEXTS = st.builds(
    lambda kind, values, latched, flags: kind(latched=latched, **flags, **values),
    st.sampled_from([TracedContext, GuardContext]),
    st.dictionaries(st.sampled_from(NUMBER_KEYS), NUMBERS | st.none(), max_size=40),
    st.none() | st.lists(st.sampled_from(["kill_switch", "drawdown"]), unique=True).map(tuple),
    st.fixed_dictionaries({}, optional={"kill_switch": st.booleans(), "ops_deny_actions": st.booleans()}),
)
PROPOSALS = st.builds(Proposal, st.sampled_from(Action), st.floats(0.0, 1.0), REASONS, PARAMS, st.none() | TEXTS)
MISMATCHES = st.builds(MismatchInfo, REASONS, REASONS, st.none() | st.integers(0, 10**6), PARAMS)


@st.composite
def decisions(draw: Any) -> Decision:
    """What the loop may have come to, foreign modulators included."""
    context, proposal = draw(st.none() | CONTEXTS), draw(PROPOSALS)
    if draw(st.booleans()) and context is not None:
        return Decision(proposal, *modulate(proposal, RiskPolicy(), context), context, "ab12")
    mismatch = draw(MISMATCHES)
    own = draw(st.sampled_from([mismatch, None, MismatchInfo(["other"])]))
    final = FinalDecision(draw(st.sampled_from(Action)), draw(st.booleans()), draw(REASONS), own, params=draw(PARAMS))
    return Decision(proposal, final, mismatch, context, draw(st.sampled_from(["", "ab12"])))


@st.composite
def steps(draw: Any) -> tuple[Any, ...]:
    """An event, its row, and what became of it."""
    at = draw(st.integers(0, 2**62))
    kind = draw(st.sampled_from([BookSnapshot, Trade, TimerEvent]))
    if kind is TimerEvent:
        event: Any = TimerEvent(at, "X")
    elif kind is Trade:
        event = Trade(draw(st.integers(0, 2**62)), at, "X", draw(st.sampled_from([0, 7, 2**60])), 1.5, 2.0, 1)
    else:
        event = BookSnapshot(0, at, "X", 3, 1.0, 2.0, 3.0, 4.0)
    row = np.array(draw(st.lists(FINITE, min_size=len(FEATURE_NAMES), max_size=len(FEATURE_NAMES))))
    if draw(st.booleans()):
        row[draw(st.integers(0, len(row) - 1))] = draw(st.sampled_from([math.nan, math.inf, -math.inf]))
    external = draw(st.sampled_from([{}, {"exec.attempt_count": 2, "exec.failed_count": 0}]))
    symbol = draw(st.sampled_from(["X", "BTC-PERP", "X", f"token={CANARY}"]))
    return event, symbol, None if kind is TimerEvent else row, draw(decisions()), external


def plain_packet(number: int, now_ns: int, step: tuple[Any, ...], times: tuple[int, ...]) -> PacketV2:
    event, symbol, row, d, external = step
    is_timer = row is None
    source = PacketInput(
        type(event).__struct_config__.tag,
        symbol,
        event.recv_ts_ns,
        now_ns,
        d.policy_hash,
        0 if is_timer else event.exch_ts_ns,
        0 if is_timer else event.seq,
        None if is_timer else feature_row(row),
        d.context,
    )
    final = traced_decision(d.final, d.mismatch) if d.mismatch.flags else d.final
    total_ms = (times[-1] - times[0]) / 1e6
    return PacketV2(
        "run_1", number, source, external, d.proposal, final, total_ms, d.mismatch if d.mismatch.flags else None
    )


def clean_steps() -> list[tuple[Any, ...]]:
    """Of each kind one that is clean, so that the core learns everything there is to learn."""
    row = np.arange(len(FEATURE_NAMES)) / 7.0
    params = {"bid_quote": 1.0, "size_usd": 1.0, "note": dict.fromkeys(CLEAN, 1), "post_only": True}
    final, context = FinalDecision(Action.HOLD), TracedContext(now_ms=1, latched=("kill_switch", "drawdown"))
    quiet = Decision(Proposal(Action.HOLD, 0.5, CLEAN, params), final, MismatchInfo(), context, "ab12")
    whole = msgspec.structs.replace(quiet, context=GuardContext(now_ms=1))
    mismatch = MismatchInfo(["spread"], ["spread_too_wide"])
    fired = msgspec.structs.replace(quiet, final=FinalDecision(Action.HOLD, False, [], mismatch), mismatch=mismatch)
    event = BookSnapshot(0, 1, "X", 3, 1.0, 2.0, 3.0, 4.0)
    return [(event, "X", row, decision, {}) for decision in (quiet, whole, fired)]


@pytest.mark.parametrize("form", FORMS)
def test_any_step_is_written_as_its_packet_would_be(form: Form, tmp_path_factory: pytest.TempPathFactory) -> None:
    written = 0

    @settings(max_examples=150, deadline=None)
    @given(st.lists(steps(), min_size=1, max_size=4))
    def compare(made: list[tuple[Any, ...]]) -> None:
        nonlocal written
        folder = tmp_path_factory.mktemp("steps")
        heads = []
        with TraceLogger("a", folder, format=form) as fast, TraceLogger("b", folder, format=form) as plain:
            log = fast.begin_steps(TYPES, "run_1")
            assert log is not None
            for number, step in enumerate([*clean_steps(), *(step for step in made for _ in range(2))]):
                event, symbol, row, decision, external = step
                times, now_ns = (10, 20, 35, 40, 100), event.recv_ts_ns + 5
                packet = plain_packet(number, now_ns, step, times)
                stages = dict(zip(STAGES, (10, 15, 5, 60), strict=True))
                outcome = log(number, event, symbol, now_ns, row, decision, external, times)
                written += outcome > 0
                outcomes = []
                for logger, is_done in ((fast, outcome > 0), (plain, False)):
                    try:
                        if not is_done:
                            logger.log_packet(packet, stages)
                        outcomes.append(logger.chain_head)
                    except TraceError as error:
                        outcomes.append(str(error))
                assert outcomes[0] == outcomes[1]
        for name in ("a", "b"):
            (path,) = (folder / name).iterdir()
            heads.append(path.read_bytes())
        assert heads[0] == heads[1]
        assert CANARY.encode() not in heads[0]

    compare()
    assert written > 10


@pytest.mark.parametrize("form", FORMS)
def test_what_no_loop_would_hand_over_is_left_to_the_plain_encoder(form: Form, tmp_path: Path) -> None:
    with TraceLogger("run_1", tmp_path, format=form) as logger:
        log = logger.begin_steps(TYPES, "run_1")
        assert log is not None
        for number, step in enumerate(clean_steps()):
            logger.log_packet(plain_packet(number, 1, step, (0, 1, 2, 3, 4)), None)
        event, symbol, row, decision, external = clean_steps()[0]
        good: tuple[Any, ...] = (7, event, symbol, 1, row, decision, external, (0, 1, 2, 3, 4))
        wrong: dict[int, list[Any]] = {
            0: ["7", 2**70],
            2: [7, "unheard"],
            3: [1.0],
            4: [row[:-1], row.astype(np.float32), np.arange(52.0)[::2], "row"],
            5: [FinalDecision(Action.HOLD), msgspec.structs.replace(decision, context={"now_ms": 1})],
            6: [{"unheard": 1}, {1: 1}],
            7: [(0, 1, 2, 3), [0, 1, 2, 3, 4], (0, 1, 2, 3, 4.0)],
        }
        for place, values in wrong.items():
            for value in values:
                assert log(*good[:place], value, *good[place + 1 :]) == 0
        assert logger.packets == 3
        assert log(*good) == 1
        assert logger.packets == 4
    assert log(*good) == 0
    assert verify(logger.path).ok


# Secrets. -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_secret_that_comes_after_many_clean_steps_is_not_written(tmp_path: Path, form: Form) -> None:
    calls = 0

    def model(features: Any, **_: Any) -> Proposal:
        nonlocal calls
        calls += 1
        if calls < 40:
            return Proposal(Action.HOLD, 0.5, ["quiet"], {"note": "nothing"})
        hidden = [
            Proposal(Action.HOLD, 0.5, ["quiet", f"Bearer {CANARY}"]),
            Proposal(Action.HOLD, 0.5, ["quiet"], {"note": f"token={CANARY}"}),
            Proposal(Action.HOLD, 0.5, ["quiet"], {"client_secret": CANARY}),
            Proposal(Action.HOLD, 0.5, ["quiet"], {"note": [{"a": f"https://u:{CANARY}@x"}]}),
            Proposal(Action.HOLD, 0.5, ["quiet"], None, f"api_key: {CANARY}"),
            Proposal(Action.HOLD, 0.5, ["quiet"], None, None, {"password": CANARY}),
        ]
        return hidden[calls % len(hidden)]

    logger = CountingLogger("run_1", run_dir=tmp_path, format=form)
    source = SyntheticSource(MicrostructureSim(seed=42), num_events=120)
    run_loop(source=source, broker=PaperBroker(), trace=logger, decision_engine=DecisionEngine(model=model))
    assert calls > 60
    assert logger.written > 20
    assert CANARY.encode() not in logger.path.read_bytes()
    assert verify(tmp_path).ok


@pytest.mark.parametrize("form", FORMS)
def test_a_secret_in_a_symbol_or_a_run_is_not_written(tmp_path: Path, form: Form) -> None:
    folder = tmp_path / "run"
    logger = CountingLogger("run_1", run_dir=folder, format=form)
    secret = f"token={CANARY}"

    def events() -> list[Any]:
        made = [msgspec.structs.replace(book(at), symbol=("X", secret)[at // 50 % 2]) for at in range(0, 2_000, 50)]
        return made

    run_loop(source=ListSource(events()), broker=PaperBroker(), trace=logger, run_id=secret, market_id=None)
    assert logger.written == 0
    assert CANARY.encode() not in logger.path.read_bytes()


# When packets reach the disk. -----------------------------------------------------------------------------------------


def log_many(logger: TraceLogger, count: int) -> None:
    log = logger.begin_steps(TYPES, "run_1")
    assert log is not None
    event, symbol, row, decision, external = clean_steps()[0]
    for number in range(count):
        outcome = log(number, event, symbol, 1, row, decision, external, (0, 1, 2, 3, 4))
        if outcome == 0:
            logger.log_packet(plain_packet(number, 1, clean_steps()[0], (0, 1, 2, 3, 4)), dict.fromkeys(STAGES, 1))
        elif outcome == 2:
            logger.flush_when_due()


class Ticking:
    """A clock that goes on by one at each reading."""

    def __init__(self) -> None:
        self.now = 0

    def now_ns(self) -> int:
        self.now += 1
        return self.now


@pytest.mark.parametrize("form", FORMS)
def test_steps_are_flushed_as_packets_are(form: Form, tmp_path: Path) -> None:
    def size(name: str, count: int, **options: Any) -> int:
        logger = TraceLogger(name, tmp_path, format=form, **options)
        log_many(logger, count)
        found = logger.path.stat().st_size
        logger.close()
        assert verify(logger.path).packets == count
        return found

    assert size("none", 20, flush="none") == 0
    assert size("block", 500, flush="none") > 100_000
    assert size("count", 20, flush_packets=10) > 0
    assert size("count-not-yet", 9, flush_packets=10) == 0
    assert size("every", 3, flush="every") > 0
    assert size("clock", 20, clock=Ticking(), flush_ns=5) > 0
    assert size("clock-not-yet", 3, clock=Ticking(), flush_ns=500) == 0


@pytest.mark.parametrize("policy", ["block", "drop"])
@pytest.mark.parametrize("form", FORMS)
def test_a_queue_counts_steps_as_it_counts_packets(form: Form, policy: Any, tmp_path: Path) -> None:
    logger = TraceLogger("run_1", tmp_path, format=form, queue=policy, queue_packets=4)
    log_many(logger, 200)
    logger.close()
    report = verify(logger.path)
    assert report.ok
    assert report.packets + logger.dropped == 200
    assert 1 <= logger.queued_max <= 4


@pytest.mark.parametrize("form", FORMS)
def test_a_resumed_trace_goes_on_by_steps(form: Form, tmp_path: Path) -> None:
    whole = TraceLogger("whole", tmp_path, format=form)
    log_many(whole, 30)
    whole.close()
    first = TraceLogger("parts", tmp_path, format=form)
    log_many(first, 20)
    first.close()
    second = TraceLogger("parts", tmp_path, format=form, resume=True)
    event, symbol, row, decision, external = clean_steps()[0]
    log = second.begin_steps(TYPES, "run_1")
    assert log is not None
    for number in range(20, 30):
        if not log(number, event, symbol, 1, row, decision, external, (0, 1, 2, 3, 4)):
            second.log_packet(plain_packet(number, 1, clean_steps()[0], (0, 1, 2, 3, 4)), dict.fromkeys(STAGES, 1))
    second.close()
    assert second.chain_head == whole.chain_head


def test_a_logger_without_a_core_is_given_packets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ami_engine.trace.packet_writer as module

    monkeypatch.setattr(module, "_core", None)
    for form in get_args(Form):
        with TraceLogger(f"run-{form}", tmp_path, format=form) as logger:
            assert logger.begin_steps(TYPES, "run_1") is None
            logger.log_packet(plain_packet(0, 1, clean_steps()[0], (0, 1, 2, 3, 4)), None)
        assert verify(logger.path).ok
