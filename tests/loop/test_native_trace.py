"""What the compiled step writes down is what the Python step would have written, to the byte."""

from __future__ import annotations

import contextlib
import random
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ami_engine.backtest import CompiledModel
from ami_engine.dmc import RiskPolicy
from ami_engine.errors import TraceError
from ami_engine.events import BookSnapshot, Trade
from ami_engine.features import FeatureConfig
from ami_engine.features.schema import SCHEMA_HASH
from ami_engine.loop.assemble import assemble
from ami_engine.loop.feed import FeedEnd
from ami_engine.loop.native_log import NativeLog
from ami_engine.loop.native_run import STEP_VARIABLE
from ami_engine.loop.run_loop import run_loop
from ami_engine.loop.shutdown import StopSignal
from ami_engine.mdm.decision_engine import DecisionEngine
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.trace import TraceLogger, read_packets, verify
from ami_engine.units import Instrument
from decision_schema.types import Action, Proposal
from tests.backtest.conftest import ListedSource, rough_market
from tests.backtest.test_compiled import limits, restless
from tests.feeds.conftest import FEEDS, SHIPPED, Feed, open_feed

from .python_models import ODD, PLAIN, Moody
from .recorded import FORMS, NOT_COMPARED, Recorded, assert_same, pair

_core = pytest.importorskip("ami_engine._core")

CANARY = "canary-3b90aa"
_INSTRUMENT = Instrument("X", tick_size=0.01)
_MS = 1_000_000


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("signals", [True, False])
def test_a_trace_holds_the_features_that_the_run_has(tmp_path: Path, form: str, signals: bool) -> None:
    events, config = rough_market(3, _INSTRUMENT, 150), FeatureConfig(signals=signals)
    native, python = pair(
        tmp_path,
        lambda: ListedSource(events, _INSTRUMENT),
        lambda: PaperBroker(_INSTRUMENT),
        trace=form,
        feature_config=config,
    )
    assert_same(native, python)
    assert native.was_native_to_the_end
    rows = [packet.input["features"] for packet in read_packets(native.folder) if packet.input.get("features")]
    assert len(rows) > 50
    assert all(tuple(row) == config.feature_names for row in rows)


@pytest.mark.parametrize("form", FORMS)
def test_a_run_may_be_handed_over_at_every_step(tmp_path: Path, form: str) -> None:
    instrument = Instrument("X", tick_size=0.01, lot_size=0.001, maker_fee_bps=1.0, taker_fee_bps=5.0)
    events = rough_market(11, instrument, 120)
    model = CompiledModel(restless(0.01), schema_hash=SCHEMA_HASH, params=[30.0])
    policy = RiskPolicy(min_depth=0.0, max_per_market_usd=1e6, max_total_exposure_usd=1e6, max_spread_bps=1e5)
    options = {"decision_engine": DecisionEngine(model=model), "risk_policy": policy, "start_cash": 50.0}
    for at in (None, *range(1 if form == "jsonl" else 4, len(events), 6)):
        native, python = pair(
            tmp_path / str(at),
            lambda: ListedSource(events, instrument),
            lambda: PaperBroker(instrument, queue="prob", seed=5, cash=50.0),
            at,
            trace=form,
            activity=True,
            **options,
        )
        assert_same(native, python)
        assert native.activity.count(b'"fill"') == native.summary["fills_count"]
        assert native.was_native_to_the_end is (at is None)
    assert native.summary["fills_count"] > 10


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**9))
def test_rough_markets_under_any_limits_are_recorded_the_same(seed: int) -> None:
    draw = random.Random(seed)
    instrument = Instrument(
        "X",
        tick_size=draw.choice([0.01, 0.1, 0.25, 0.3, 0.005, 0.07, 1.0]),
        lot_size=draw.choice([0, 0.001, 1.0, 0.3, 1e-5]),
        min_qty=draw.choice([0, 0, 0.001]),
        min_notional=draw.choice([0, 0, 5.0]),
        multiplier=draw.choice([1.0, 50.0, 0.1]),
        maker_fee_bps=draw.choice([0, -0.5, 2.0]),
        taker_fee_bps=draw.choice([0, 5.0, 4.35]),
    )
    events = rough_market(seed, instrument, draw.choice([60, 300]))
    scale = draw.choice([1.0, 30.0, 1_000.0])
    policy, quoting, exits = limits(draw, scale)
    address = restless(instrument.tick_size)
    model = CompiledModel(address, schema_hash=SCHEMA_HASH, params=[3.0 * scale]) if draw.random() < 0.6 else None
    queue, grid, with_book = draw.choice(["back", "front", "prob"]), draw.random() < 0.8, draw.random() < 0.3

    def source() -> Any:
        listed = ListedSource(events, instrument)
        listed.snapshots_only = not with_book
        return listed

    with tempfile.TemporaryDirectory() as folder:
        native, python = pair(
            Path(folder),
            source,
            lambda: PaperBroker(instrument if grid else None, queue=queue, seed=7),
            draw.choice([None, None, draw.randrange(1, len(events))]),
            trace=draw.choice([*FORMS, False]) or False,
            activity=draw.random() < 0.5,
            decision_engine=DecisionEngine(confidence_threshold=0.2, model=model),
            risk_policy=policy,
            quoting=quoting,
            exits=exits,
            feature_config=FeatureConfig(tick_size=instrument.tick_size, window_5m_ms=draw.choice([5_000.0, 60_000.0])),
            start_cash=draw.choice([0.0, 60.0]),
            timer_ms=draw.choice([0.0, 100.0, 37.0]),
            market_id=draw.choice([None, "ours"]),
        )
        if native.summary["chain_head"] is None:
            assert native.audit == python.audit
            assert native.activity == python.activity
            assert (native.summary, native.venue) == (python.summary, python.venue)
        else:
            assert_same(native, python)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("at", [None, 900])
@pytest.mark.parametrize("feed", FEEDS.values(), ids=FEEDS.keys())
def test_a_recorded_feed_is_recorded_the_same(
    feed: Feed, data_dir: Path, at: int | None, form: str, tmp_path: Path
) -> None:
    policy = RiskPolicy.from_toml(SHIPPED / f"{feed.policy}.policy.toml")
    with contextlib.closing(open_feed(data_dir, feed)) as described:
        instruments = described.instruments()
    native, python = pair(
        tmp_path,
        lambda: open_feed(data_dir, feed),
        lambda: PaperBroker(instruments=instruments),
        at,
        steps=1_500,
        trace=form,
        activity=True,
        risk_policy=policy,
    )
    assert_same(native, python)


# Models in Python. ----------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**9))
def test_what_a_model_in_python_proposes_is_recorded_the_same(seed: int) -> None:
    draw = random.Random(seed)
    instrument = Instrument("X", tick_size=draw.choice([0.01, 0.25, 0.3]), lot_size=draw.choice([0, 0.001]))
    events = rough_market(seed, instrument, draw.choice([60, 240]))
    policy, quoting, exits = limits(draw, draw.choice([1.0, 30.0, 1_000.0]))
    policy = msgspec.structs.replace(policy, error_rate_max=draw.choice([policy.error_rate_max, 1.0, 1.0]))
    kinds = [*PLAIN, *PLAIN, *PLAIN, draw.choice(ODD)] if draw.random() < 0.4 else PLAIN
    looks_at = draw.choice([None, draw.randrange(1, 120)])
    with tempfile.TemporaryDirectory() as folder:
        native, python = pair(
            Path(folder),
            lambda: ListedSource(events, instrument),
            lambda: PaperBroker(instrument, queue="prob", seed=7),
            draw.choice([None, None, draw.randrange(1, len(events))]),
            engine=lambda broker: DecisionEngine(
                model=Moody(seed, instrument.tick_size, kinds, broker=broker, at=looks_at)
            ),
            trace=draw.choice(FORMS),
            activity=True,
            risk_policy=policy,
            quoting=quoting,
            exits=exits,
            timer_ms=draw.choice([0.0, 100.0]),
        )
        assert_same(native, python)
        for file in native.folder.iterdir():
            assert CANARY.encode() not in file.read_bytes()


@pytest.mark.parametrize("form", FORMS)
def test_a_run_may_be_handed_over_while_the_model_is_asked(tmp_path: Path, form: str) -> None:
    instrument = Instrument("X", tick_size=0.01, lot_size=0.001, maker_fee_bps=1.0, taker_fee_bps=5.0)
    events = rough_market(11, instrument, 100)
    policy = RiskPolicy(
        min_depth=0.0, max_per_market_usd=1e6, max_total_exposure_usd=1e6, max_spread_bps=1e5, error_rate_max=1.0
    )
    for at in (None, *range(1, 100, 7)):
        native, python = pair(
            tmp_path / str(at),
            lambda: ListedSource(events, instrument),
            lambda: PaperBroker(instrument, queue="prob", seed=5, cash=50.0),
            engine=lambda broker, at=at: DecisionEngine(model=Moody(3, 0.01, PLAIN, broker=broker, at=at)),  # type: ignore[misc]
            trace=form,
            activity=True,
            risk_policy=policy,
        )
        assert_same(native, python)
        assert native.was_native_to_the_end is (at is None)
    assert native.summary["fills_count"] > 5
    kinds = [line["kind"] for line in native.audit]
    assert kinds.count("private_hook_error") > 3


@pytest.mark.parametrize("form", FORMS)
def test_the_core_writes_what_a_model_in_python_proposes(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stands in it besides the quotes, once its words were seen."""

    def model(features: Any) -> Proposal:
        params = {"bid_quote": 0.48, "ask_quote": 0.52, "size_usd": 1, "edge": features.mid, "note": "naïve"}
        return Proposal(Action.ACT, 0.5, ["a reason, with blanks"], params, features_summary={"mid": features.mid})

    made = []
    whole = NativeLog.log_step

    def counted(self: NativeLog, event: Any, *, is_timer: bool) -> None:
        made.append(event)
        whole(self, event, is_timer=is_timer)

    monkeypatch.setattr(NativeLog, "log_step", counted)
    native, python = _run(tmp_path, _books(600), trace=form, engine=lambda _: DecisionEngine(model=model))
    assert_same(native, python)
    assert native.was_native_to_the_end
    assert len(native.packets) == 600
    assert len(made) < 100


# What a step may hold besides numbers. --------------------------------------------------------------------------------


def _books(count: int, symbol: str = "X") -> list[Any]:
    return [
        BookSnapshot(0, (1_000 + 20 * i) * _MS, symbol, i + 1, 0.49, 0.51, 60.0 + i % 3, 20.0) for i in range(count)
    ]


def _run(folder: Path, events: list[Any], symbol: str = "X", **options: Any) -> tuple[Recorded, Recorded]:
    instrument = Instrument(symbol, tick_size=0.01)
    return pair(folder, lambda: ListedSource(events, instrument), lambda: PaperBroker(instrument), **options)


@pytest.mark.parametrize("form", FORMS)
def test_the_core_writes_the_plain_steps_by_itself(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    whole = NativeLog.log_step

    def counted(self: NativeLog, event: Any, *, is_timer: bool) -> None:
        made.append(event)
        whole(self, event, is_timer=is_timer)

    monkeypatch.setattr(NativeLog, "log_step", counted)
    native, python = _run(tmp_path, _books(600), trace=form)
    assert_same(native, python)
    assert len(native.packets) == 600
    assert len(made) < 100


@pytest.mark.parametrize("form", FORMS)
def test_a_market_that_looks_like_a_secret_is_hidden_as_ever(tmp_path: Path, form: str) -> None:
    symbol = f"token={CANARY}"
    native, python = _run(tmp_path, _books(80, symbol), symbol, trace=form)
    assert_same(native, python)
    for file in native.folder.iterdir():
        if file.name != "run_config.json":
            assert CANARY.encode() not in file.read_bytes()


def test_a_stop_latches_and_is_told_in_its_place(tmp_path: Path) -> None:
    events = _books(40)
    for i in range(40, 80):
        price = 0.49 - 0.004 * (i - 40)
        events.append(Trade(0, (1_000 + 20 * i) * _MS, "X", i, price, 500.0, -1))
        events.append(BookSnapshot(0, (1_010 + 20 * i) * _MS, "X", i, price - 0.01, price + 0.01, 60.0, 20.0))
    policy = RiskPolicy(max_drawdown_stop_usd=0.001, min_depth=0.0, max_spread_bps=1e6)
    native, python = _run(tmp_path, events, risk_policy=policy)
    assert_same(native, python)
    kinds = [line["kind"] for line in native.audit]
    assert "latch" in kinds
    assert kinds.index("orders_swept") < kinds.index("latch")
    assert any("ops.trading_state" in text for text in native.packets)


def test_a_throttle_is_told_when_it_comes(tmp_path: Path) -> None:
    policy = RiskPolicy(cancel_rate_limit=2, throttle_refresh_ms=200, cancel_window_ms=500, min_depth=0.0)
    events = [
        msgspec.structs.replace(event, bid=event.bid + 0.02 * (i // 7 % 2), ask=event.ask + 0.02 * (i // 7 % 2))
        for i, event in enumerate(_books(400))
    ]
    native, python = _run(tmp_path, events, risk_policy=policy)
    assert_same(native, python)
    assert sum(line["kind"] == "throttle" for line in native.audit) > 1


@pytest.mark.parametrize("options", [{"trace_queue": "block"}, {"trace_max_bytes": 100_000}, {"flush": "every"}])
def test_however_it_is_written_the_chain_is_the_same(tmp_path: Path, options: dict[str, Any]) -> None:
    heads = set()
    for name, more in (("plain", {}), ("other", options)):
        broker = PaperBroker(_INSTRUMENT)
        source = ListedSource(_books(300), _INSTRUMENT)
        heads.add(run_loop(source=source, broker=broker, run_id="r", run_dir=tmp_path / name, **more)["chain_head"])
        assert verify(tmp_path / name).ok
    assert len(heads) == 1


def test_a_run_that_is_resumed_goes_on_in_python(tmp_path: Path) -> None:
    for events, more in ((_books(30), {}), (_books(60)[30:], {"resume": True})):
        broker = PaperBroker(_INSTRUMENT)
        source = ListedSource(events, _INSTRUMENT)
        run = assemble(source, broker, should_stop=lambda: False, run_id="r", run_dir=tmp_path / "r", **more)
        assert (run._native is None) is bool(more)
        with contextlib.suppress(FeedEnd):
            run.drive(None, StopSignal())
        run.finish("done")
    report = verify(tmp_path / "r")
    assert (report.ok, report.packets) == (True, 60)


def test_a_logger_of_the_users_own_gets_every_packet(tmp_path: Path) -> None:
    seen = []

    class Listening(TraceLogger):
        def log_packet(self, packet: Any, latency_ns: Any = None) -> None:
            seen.append(packet.step)
            super().log_packet(packet, latency_ns)

    logger = Listening("r", run_dir=tmp_path / "r")
    run_loop(source=ListedSource(_books(50), _INSTRUMENT), broker=PaperBroker(_INSTRUMENT), trace=logger, run_id="r")
    assert seen == list(range(50))


def test_a_disk_that_fails_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for mode in ("auto", "python"):
        monkeypatch.setenv(STEP_VARIABLE, mode)
        source, broker = ListedSource(_books(300), _INSTRUMENT), PaperBroker(_INSTRUMENT)
        run = assemble(source, broker, should_stop=lambda: False, run_id="r", run_dir=tmp_path / mode)
        assert run._audit is not None
        monkeypatch.setattr(run._audit, "failure", "the disk is full")
        with pytest.raises(TraceError, match="the disk is full"):
            run.drive(None, StopSignal())
        ends.append({k: v for k, v in run.finish("done").items() if k not in NOT_COMPARED})
    assert ends[0]["orders_submitted"] == ends[1]["orders_submitted"] > 0
