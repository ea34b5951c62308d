"""Models in Python that the compiled step asks: the same as in Python, whatever they do."""

from __future__ import annotations

import gc
import random
import weakref
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ami_engine.dmc import RiskPolicy
from ami_engine.loop.assemble import assemble
from ami_engine.loop.feed import FeedEnd
from ami_engine.loop.native_run import STEP_VARIABLE
from ami_engine.loop.run_loop import run_loop
from ami_engine.loop.shutdown import StopSignal
from ami_engine.mdm.decision_engine import DecisionEngine
from ami_engine.ops.controls import Controls
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.units import Instrument
from decision_schema.types import Action, Proposal
from tests.backtest.conftest import ListedSource, rough_market
from tests.backtest.test_compiled import limits

from .native_pairs import (
    INSTRUMENT,
    NOT_COMPARED,
    assert_same,
    listed_books,
    pair,
)
from .python_models import ODD, PLAIN, Moody


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**9))
def test_a_model_in_python_is_asked_by_the_core(seed: int) -> None:
    draw = random.Random(seed)
    instrument = Instrument("X", tick_size=draw.choice([0.01, 0.25, 0.3]), lot_size=draw.choice([0, 0.001]))
    events = rough_market(seed, instrument, draw.choice([60, 300]))
    policy, quoting, exits = limits(draw, draw.choice([1.0, 30.0, 1_000.0]))
    policy = msgspec.structs.replace(policy, error_rate_max=draw.choice([policy.error_rate_max, 1.0, 1.0]))
    is_odd, looks_at = draw.random() < 0.4, draw.choice([None, draw.randrange(1, 120)])
    kinds = [*PLAIN, *PLAIN, *PLAIN, draw.choice(ODD)] if is_odd else PLAIN
    models = []

    def engine(broker: PaperBroker) -> DecisionEngine:
        models.append(Moody(seed, instrument.tick_size, kinds, broker=broker, at=looks_at))
        return DecisionEngine(model=models[-1])

    queue = draw.choice(["back", "front", "prob"])
    with pytest.MonkeyPatch.context() as patch:
        native, python = pair(
            patch,
            lambda: ListedSource(events, instrument),
            lambda: PaperBroker(instrument, queue=queue, seed=7),
            draw.choice([None, None, draw.randrange(1, len(events))]),
            engine=engine,
            risk_policy=policy,
            quoting=quoting,
            exits=exits,
            timer_ms=draw.choice([0.0, 100.0, 37.0]),
            market_id=draw.choice([None, "ours"]),
        )
    assert_same(native, python)
    assert models[0].calls == models[1].calls
    for model in models:
        model.check_rows()


@pytest.mark.parametrize("kind", [None, *ODD])
def test_a_run_may_be_handed_over_while_the_model_is_asked(monkeypatch: pytest.MonkeyPatch, kind: str | None) -> None:
    """At every one of its calls in turn: it looks at the broker then, or proposes what is odd."""
    instrument = Instrument("X", tick_size=0.01, lot_size=0.001, maker_fee_bps=1.0, taker_fee_bps=5.0)
    events = rough_market(11, instrument, 100)
    wide = {"max_per_market_usd": 1e6, "max_total_exposure_usd": 1e6, "max_spread_bps": 1e5, "error_rate_max": 1.0}
    policy = RiskPolicy(min_depth=0.0, daily_loss_stop_usd=1e9, **wide)

    class Once(Moody):
        def __call__(self, features: Any) -> Any:
            if kind is not None and self.calls + 1 == self._at:
                self.calls += 1
                return getattr(self, f"_{kind}")(features, self._draw)
            return super().__call__(features)

    for at in (None, *range(1, 100, 1 if kind is None else 7)):
        native, python = pair(
            monkeypatch,
            lambda: ListedSource(events, instrument),
            lambda: PaperBroker(instrument, queue="prob", seed=5, cash=50.0),
            None,
            engine=lambda broker, at=at: DecisionEngine(model=Once(3, 0.01, PLAIN, broker=broker, at=at)),  # type: ignore[misc]
            risk_policy=policy,
        )
        assert_same(native, python)
        if at is None:
            assert native.parts is None  # no hand-over
    assert native.summary["fills_count"] > 10
    assert native.summary["timer_count"] > 10


def test_an_engine_of_the_users_own_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(DecisionEngine):
        def propose(self, features: Any, **kwargs: Any) -> Any:
            return Proposal(Action.HOLD, 0.5, ["mine"])

    engines = [lambda: Mine(), lambda: Foreign(), lambda: DecisionEngine(model=CompiledModelInPython())]

    class Foreign:
        def propose(self, features: Any) -> Any:
            return Proposal(Action.HOLD, 0.5, ["foreign"])

    class CompiledModelInPython:
        def __call__(self, features: Any) -> Any:
            return Proposal(Action.HOLD, 0.5, ["called"])

    for make, reason in zip(engines, ("mine", "foreign", "called"), strict=True):
        native, python = pair(
            monkeypatch,
            lambda: ListedSource(listed_books(60), INSTRUMENT),
            lambda: PaperBroker(INSTRUMENT),
            None,
            engine=lambda _, make=make: make(),  # type: ignore[misc]
        )
        assert_same(native, python)
        assert native.summary["hold_reason_counts"] == {reason: 60}
        assert native.parts is None


@pytest.mark.parametrize("stops", [False, True], ids=["pauses", "stops"])
def test_a_model_may_command_and_stop_the_run(monkeypatch: pytest.MonkeyPatch, stops: bool) -> None:
    """At a timer as well, and before the next one then."""
    ends = []
    for mode in ("auto", "python"):
        monkeypatch.setenv(STEP_VARIABLE, mode)
        controls, stop = Controls(), StopSignal()
        calls = 0

        def model(features: Any, controls: Controls = controls, stop: StopSignal = stop) -> Proposal:
            nonlocal calls
            calls += 1
            if calls == 33:  # in the silence
                if stops:
                    stop.reason = "interrupted"
                else:
                    controls.pause("model", "enough")
            return Proposal(Action.HOLD, 0.5, ["waiting"])

        run = assemble(
            ListedSource([*listed_books(30), *listed_books(5, start_ms=3_000)], INSTRUMENT),
            PaperBroker(INSTRUMENT),
            should_stop=lambda: False,
            trace=False,
            run_id="r",
            controls=controls,
            decision_engine=DecisionEngine(model=model),
        )
        try:
            reason = run.drive(None, stop)
        except FeedEnd as end:
            reason = end.reason
        ends.append({k: v for k, v in run.finish(reason).items() if k not in NOT_COMPARED} | {"calls": calls})
    assert ends[0] == ends[1]
    assert ends[0]["controls_obeyed"] == (0 if stops else 1)
    assert ends[0]["timer_count"] >= 3


@pytest.mark.parametrize("at", [None, 20])
def test_a_model_does_not_outlive_its_run(monkeypatch: pytest.MonkeyPatch, at: int | None) -> None:
    monkeypatch.setenv(STEP_VARIABLE, "auto")
    broker = PaperBroker(INSTRUMENT)
    model = Moody(3, 0.01, PLAIN, broker=broker, at=at)
    kept = weakref.ref(model)
    engine = DecisionEngine(model=model)
    run_loop(source=ListedSource(listed_books(60), INSTRUMENT), broker=broker, trace=False, decision_engine=engine)
    assert model.calls == 60
    del model, broker, engine
    gc.collect()
    assert kept() is None


def test_a_run_that_never_ends_is_let_go_with_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STEP_VARIABLE, "auto")
    model = Moody(3, 0.01, PLAIN)
    kept = weakref.ref(model)
    source = ListedSource(listed_books(60), INSTRUMENT)
    run = assemble(
        source,
        PaperBroker(INSTRUMENT),
        should_stop=lambda: False,
        trace=False,
        decision_engine=DecisionEngine(model=model),
    )
    run.drive(10, StopSignal())
    del model, run
    gc.collect()
    assert kept() is None


class _Looking:
    """Looks at the broker when it is let go, or compared with a key of the parameters."""

    def __init__(self, broker: PaperBroker) -> None:
        self.broker = broker

    def __del__(self) -> None:
        self.broker.get_state()

    def __hash__(self) -> int:
        return hash("bid_quote")

    def __eq__(self, other: object) -> bool:
        self.broker.get_state()
        return False


@pytest.mark.parametrize("place", ["key", "value"])
def test_what_a_proposal_holds_may_look_at_the_broker(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    ends = []
    for mode in ("auto", "python"):
        monkeypatch.setenv(STEP_VARIABLE, mode)
        broker = PaperBroker(INSTRUMENT)
        calls = [0]

        def model(features: Any, broker: PaperBroker = broker, calls: list[int] = calls) -> Proposal:
            calls[0] += 1
            params: dict[Any, Any] = {"bid_quote": 0.48, "ask_quote": 0.52, "size_usd": 3.0}
            if calls[0] == 20:
                looking = _Looking(broker)
                params = {looking: 1, **params} if place == "key" else {**params, "mine": looking}
            return Proposal(Action.ACT, 1.0, ["r"], params)

        source = ListedSource(listed_books(60), INSTRUMENT)
        summary = run_loop(source=source, broker=broker, trace=False, decision_engine=DecisionEngine(model=model))
        ends.append({k: v for k, v in summary.items() if k not in NOT_COMPARED} | {"state": broker.get_state()})
    assert ends[0] == ends[1]
    assert ends[0]["steps"] == 60


def test_what_a_model_throws_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(features: Any) -> Any:
        raise KeyboardInterrupt

    for mode in ("auto", "python"):
        monkeypatch.setenv(STEP_VARIABLE, mode)
        run = assemble(
            ListedSource(listed_books(30), INSTRUMENT),
            PaperBroker(INSTRUMENT),
            should_stop=lambda: False,
            trace=False,
            decision_engine=DecisionEngine(model=interrupted),
        )
        with pytest.raises(KeyboardInterrupt):
            run.drive(None, StopSignal())
        assert run.finish("interrupted")["steps"] == 0
