"""The loop as a user meets it: the contract's calls, clean ends, bad events, timers, determinism, bookkeeping."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ami_engine.adapters import Broker, DataSource, MarketDataSource
from ami_engine.dmc import RiskPolicy, modulate
from ami_engine.errors import ConfigError, EventError, TraceError
from ami_engine.events import Bar, BookDelta, BookSnapshot, FeedGap, OrderReport, OrderStatus
from ami_engine.execution.executor import Executor
from ami_engine.loop.latches import Release
from ami_engine.loop.run_loop import run_loop
from ami_engine.mdm.decision_engine import DecisionEngine
from ami_engine.sim.microstructure_sim import MicrostructureSim
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.sim.synthetic_source import SyntheticSource
from ami_engine.trace.reader import read_packets, verify
from ami_engine.units import Instrument
from decision_schema.types import Action, FinalDecision, MismatchInfo, Proposal

from .conftest import MS, START_NS, ListSource, LiveBroker, RecordingBroker, book


def synthetic(n: int = 1_000, seed: int = 42) -> SyntheticSource:
    return SyntheticSource(MicrostructureSim(seed=seed), num_events=n)


# The contract's own example. ----------------------------------------------------------------------------------------


def test_the_contracts_example_runs_as_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    class MySource(MarketDataSource):
        def next_event(self) -> dict[str, float]:
            return {"mid": 0.5, "bid": 0.49, "ask": 0.51}

    class MyBroker(Broker):
        def submit_order(self, order: Any) -> None: ...

    summary = run_loop(source=MySource(), broker=MyBroker(), steps=100, dry_run=False)
    assert summary["steps"] == 100
    assert summary["stopped_reason"] == "steps"
    assert summary["mismatch_reason_counts"]["insufficient_depth"] == 100
    assert any("1 ms apart" in note for note in summary["notes"])
    assert Path(summary["trace_path"]).parent.parent == Path("runs")


def test_run_directories_are_numbered_and_a_taken_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = run_loop(source=synthetic(5), broker=PaperBroker())
    second = run_loop(source=synthetic(5), broker=PaperBroker())
    assert first["run_id"] == second["run_id"]
    assert Path(second["trace_path"]).parent.name == first["run_id"] + "-2"
    folder = Path(first["trace_path"]).parent
    with pytest.raises(ConfigError, match="is not empty"):
        run_loop(source=synthetic(5), broker=PaperBroker(), run_dir=folder)
    run_loop(source=synthetic(5), broker=PaperBroker(), run_dir=folder, overwrite=True)
    assert verify(folder).ok


def test_a_resumed_trace_goes_on_with_its_chain(tmp_path: Path) -> None:
    first = run_loop(source=synthetic(50), broker=PaperBroker(), run_dir=tmp_path)
    run_loop(source=synthetic(50), broker=PaperBroker(), run_dir=tmp_path, resume=True)
    report = verify(tmp_path)
    assert report.ok
    assert report.packets == 2 * (first["steps"] + first["timer_count"])


def test_an_unknown_option_is_named_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="did you mean `risk_policy`"):
        run_loop(source=synthetic(5), broker=PaperBroker(), risk_polcy=RiskPolicy())


# The demo trades and its money adds up. -----------------------------------------------------------------------------


def test_the_default_demo_quotes_fills_closes_and_reports(tmp_path: Path) -> None:
    broker = PaperBroker()
    summary = run_loop(source=synthetic(5_000), broker=broker, run_dir=tmp_path)
    assert summary["action_counts"]["ACT"] > 1_000
    assert summary["fills_count"] > 100
    assert summary["position_close_count"] > 20
    assert summary["realized_pnl"] != 0.0
    assert broker.get_state()["open_orders"] == []
    assert summary["error_count"] == 0


def test_equity_is_cash_plus_position_at_mark_on_every_step(tmp_path: Path) -> None:
    seen: list[tuple[float, float, float, float]] = []

    class Watched(PaperBroker):
        mid = 0.0

        def on_market_data(self, event: Any, bid: float, ask: float, bid_size: float, ask_size: float) -> None:
            super().on_market_data(event, bid, ask, bid_size, ask_size)
            self.mid = (bid + ask) / 2

    broker = Watched()

    def watching(proposal: Any, policy: Any, context: Any) -> tuple[FinalDecision, MismatchInfo]:
        state = broker.get_state()
        position = state["positions"].get("SYNTH", 0.0)
        seen.append((context.equity_usd, state["cash"], position, broker.mid))
        return modulate(proposal, policy, context)

    summary = run_loop(source=synthetic(3_000), broker=broker, modulator=watching, trace=False)
    assert summary["fills_count"] > 50
    assert any(position != 0.0 for _, _, position, _ in seen)
    for equity, cash, position, mid in seen:
        assert equity == pytest.approx(cash + position * mid, abs=1e-9)
    expected = summary["realized_pnl"] + summary["unrealized_pnl"] - summary["fees"]
    assert summary["final_equity"] == pytest.approx(expected, abs=1e-9)


# Determinism. -------------------------------------------------------------------------------------------------------


def test_one_seed_gives_one_chain_head_and_another_seed_another(tmp_path: Path) -> None:
    heads = [
        run_loop(source=synthetic(800, seed), broker=PaperBroker(seed=seed), seed=seed, run_dir=tmp_path / str(i))[
            "chain_head"
        ]
        for i, seed in enumerate((7, 7, 8))
    ]
    assert heads[0] == heads[1] != heads[2]


def test_the_run_directory_and_the_clock_do_not_enter_the_chain(tmp_path: Path) -> None:
    one = run_loop(source=synthetic(200), broker=PaperBroker(), run_dir=tmp_path / "a")
    code = textwrap.dedent(
        f"""
        from ami_engine.loop.run_loop import run_loop
        from ami_engine.sim.microstructure_sim import MicrostructureSim
        from ami_engine.sim.paper_broker import PaperBroker
        from ami_engine.sim.synthetic_source import SyntheticSource
        source = SyntheticSource(MicrostructureSim(seed=42), num_events=200)
        print(run_loop(source=source, broker=PaperBroker(), run_dir={str(tmp_path / "b")!r})["chain_head"])
        """
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == one["chain_head"]


# The trace holds what the guards saw. -------------------------------------------------------------------------------


def test_every_verdict_can_be_computed_again_from_its_packet(tmp_path: Path) -> None:
    policy = RiskPolicy()
    summary = run_loop(source=synthetic(1_500), broker=PaperBroker(), risk_policy=policy, run_dir=tmp_path)
    checked = fired = 0
    for packet in read_packets(tmp_path):
        proposal = msgspec.convert(packet.mdm, Proposal)
        context = {key: value for key, value in packet.input["context"].items() if value is not None}
        final, mismatch = modulate(proposal, policy, context)
        assert final.action == packet.final_action["action"]
        assert list(final.reasons) == packet.final_action["reasons"]
        codes = packet.mismatch["reason_codes"] if packet.mismatch else []
        assert mismatch.reason_codes == codes
        checked += 1
        fired += bool(codes)
    assert checked == summary["steps"] + summary["timer_count"]
    assert fired > 0


def test_a_packet_names_event_features_policy_and_stages(tmp_path: Path) -> None:
    summary = run_loop(source=synthetic(20), broker=PaperBroker(), run_dir=tmp_path)
    packets = list(read_packets(tmp_path))
    first = packets[0]
    assert first.input["kind"] == "book_snapshot"
    assert first.input["features"]["bid"] == 0.495
    assert first.input["policy_hash"] == summary["policy_hash"]
    assert set(first.external["ops.latency_ns"]) == {"observe", "fills", "decide", "orders"}
    timers = [packet for packet in packets if packet.input["kind"] == "timer"]
    assert timers
    assert all(packet.input.get("features") is None for packet in timers)


# Bad events. --------------------------------------------------------------------------------------------------------


def bad_books() -> list[tuple[Any, str]]:
    return [
        (book(15, bid=float("nan")), "not_finite"),
        (book(15, bid_depth=-1.0), "negative_size"),
        (book(15, bid=0.6, ask=0.5), "crossed_book"),
        (book(3), "time_backwards"),
        (BookDelta(0, START_NS + 15 * MS, "X", 5), "no_snapshot"),
        ({"bid": None, "ask": 0.51, "symbol": "X", "ts_ns": START_NS + 15 * MS}, "malformed"),
        (EventError("cut", reason="bad_json", source="f", position=3), "bad_json"),
    ]


@pytest.mark.parametrize(("bad", "reason"), bad_books(), ids=[reason for _, reason in bad_books()])
def test_a_bad_event_is_counted_and_leaves_everything_as_if_it_had_never_come(
    bad: Any, reason: str, tmp_path: Path
) -> None:
    good = [book(10 * i, bid=0.49 + 0.01 * (i % 3), ask=0.52 + 0.01 * (i % 2)) for i in range(40)]
    clean = run_loop(source=ListSource(good), broker=PaperBroker(), run_dir=tmp_path / "clean", run_id="one")
    dirty_events = [*good[:2], bad, *good[2:]]
    dirty = run_loop(source=ListSource(dirty_events), broker=PaperBroker(), run_dir=tmp_path / "dirty", run_id="one")
    assert dirty["rejected_events"] == {reason: 1}
    assert dirty["rejected_places"]
    assert dirty["steps"] == clean["steps"] == 40
    assert dirty["chain_head"] == clean["chain_head"]


def test_on_bad_event_stop_ends_the_run_with_the_reason(tmp_path: Path) -> None:
    source = ListSource([book(0), book(10), book(20, bid=0.6, ask=0.5), book(30)])
    summary = run_loop(source=source, broker=PaperBroker(), run_dir=tmp_path, on_bad_event="stop")
    assert summary["steps"] == 2
    assert summary["stopped_reason"].startswith("bad_event: ")
    assert "`bid` must not be above `ask`" in summary["stopped_reason"]
    assert source.closed


def test_what_an_executor_has_resting_counts_for_the_guards_and_is_named_when_it_stays() -> None:
    class Deaf(RecordingBroker):
        is_deaf = False
        cancel_all = Broker.cancel_all  # so that nothing else could tell what became of a quote

        def cancel_order(self, order_id: str) -> bool:
            return not self.is_deaf and super().cancel_order(order_id)

    seen: list[tuple[Any, Any]] = []

    def watch(proposal: Any, policy: Any, context: Any) -> Any:
        seen.append((context.open_orders, context.active_markets))
        broker.is_deaf = len(seen) == 4
        return modulate(proposal, policy, context)

    broker = Deaf()
    summary = run_loop(
        source=ListSource([book(10 * i) for i in range(4)]),
        broker=broker,
        executor=Executor(broker, run_id="r"),
        modulator=watch,
        trace=False,
    )
    assert seen == [(0, 0), (2, 1), (2, 1), (2, 1)]
    assert len(broker.submitted) == 6
    left = [order.client_order_id for order in broker.submitted[-2:]]
    assert f"may still be live at the venue: {', '.join(left)}" in summary["notes"]
    assert summary["trading_state"] == "HALTED"


def test_orders_that_cannot_be_confirmed_as_closed_are_named_at_the_end() -> None:
    class Deaf(RecordingBroker):
        def cancel_order(self, order_id: str) -> bool:
            return False

    broker = Deaf()
    summary = run_loop(source=ListSource([book(0), book(10)]), broker=broker, trace=False)
    live = [order.client_order_id for order in broker.submitted]
    assert len(live) == 2
    assert summary["notes"] == [f"may still be live at the venue: {', '.join(live)}"]
    assert summary["error_count"] == 1
    assert summary["last_error"] == "2 orders are not confirmed as closed at the end of the run"


def test_an_order_of_which_the_venue_says_at_the_end_that_it_is_closed_is_not_named() -> None:
    class Answers(RecordingBroker):
        def cancel_order(self, order_id: str) -> bool:
            return False

        def fetch_order(self, client_order_id: str) -> OrderReport:
            order = next(each for each in self.submitted if each.client_order_id == client_order_id)
            names = ("client_order_id", "market_id", "side", "price", "qty")
            terms = {name: getattr(order, name) for name in names}
            return OrderReport(**terms, status=OrderStatus.CANCELED)

    summary = run_loop(source=ListSource([book(0)]), broker=Answers(), trace=False)
    assert (summary["orders_submitted"], summary["notes"], summary["error_count"]) == (2, [], 0)


# Sources that fail. -------------------------------------------------------------------------------------------------


def test_a_source_that_recovers_goes_on(books: Callable[[int], list[Any]]) -> None:
    events = [*books(5), OSError("gone"), OSError("gone"), book(100)]
    summary = run_loop(source=ListSource(events), broker=PaperBroker(), trace=False, source_backoff_ms=0.1)
    assert summary["steps"] == 6
    assert summary["error_count"] == 2
    assert summary["stopped_reason"] == "source_exhausted"


def test_an_end_that_nobody_asked_for_is_an_error_and_is_told_without_secrets() -> None:
    events = [book(0), ConfigError("feed refused https://feed/?api_secret=canary-51c0")]
    summary = run_loop(source=ListSource(events), broker=PaperBroker(), trace=False)
    assert summary["stopped_reason"].startswith("source_error: ")
    assert summary["error_count"] == 1
    assert summary["last_error"].startswith("source_error: feed refused")
    assert "canary" not in summary["last_error"]


def test_a_source_that_does_not_recover_ends_the_run_and_its_text_is_not_repeated() -> None:
    broker = RecordingBroker()
    canary = "token=canary-7f3a"
    source = ListSource([book(0), *[OSError(canary)] * 9])
    summary = run_loop(source=source, broker=broker, trace=False, source_attempts=3, source_backoff_ms=0.1)
    assert summary["stopped_reason"] == "source_error: OSError 3 times in a row"
    assert (summary["error_count"], summary["last_error"]) == (4, summary["stopped_reason"])
    assert canary not in str(summary)
    assert len(broker.cancelled) == len(broker.submitted) > 0


# Orders. ------------------------------------------------------------------------------------------------------------


def test_a_dry_run_decides_and_traces_and_sends_nothing(tmp_path: Path) -> None:
    broker = RecordingBroker()
    source = ListSource([book(10 * i) for i in range(30)])
    summary = run_loop(source=source, broker=broker, dry_run=True, run_dir=tmp_path)
    assert summary["action_counts"]["ACT"] == 30
    assert broker.submitted == []
    assert broker.cancelled == []
    assert verify(tmp_path).packets == 30


def test_orders_are_cancelled_at_the_end_of_every_run() -> None:
    broker = RecordingBroker()
    run_loop(source=ListSource([book(0), book(10)]), broker=broker, trace=False)
    assert {order.side for order in broker.submitted} == {"BUY", "SELL"}
    assert sorted(broker.cancelled) == sorted(order.client_order_id for order in broker.submitted)


def test_a_broker_that_cannot_cancel_halts_the_run_with_a_clear_audit_line(tmp_path: Path) -> None:
    class SubmitOnly(Broker):
        def submit_order(self, order: Any) -> None: ...

    events = [book(0), book(700, bid=0.45, ask=0.47), *[book(800 + 10 * i) for i in range(20)]]
    summary = run_loop(source=ListSource(events), broker=SubmitOnly(), run_dir=tmp_path)
    assert summary["action_counts"]["STOP"] >= 19
    assert "cancel_order" in summary["last_error"]
    assert '"kind":"halt"' in (tmp_path / "security_audit.jsonl").read_text()


def test_a_stop_latches_cancels_once_and_goes_on_deciding(tmp_path: Path) -> None:
    broker = RecordingBroker()

    def failing(order: Any) -> None:
        raise ConnectionError("no")

    broker.submit_order = failing  # type: ignore[method-assign]
    events = [book(1_000 * i, bid=0.49 + 0.01 * (i % 2), ask=0.51 + 0.01 * (i % 2)) for i in range(60)]
    summary = run_loop(
        source=ListSource(events), broker=broker, run_dir=tmp_path, risk_policy=RiskPolicy(circuit_breaker_failures=2)
    )
    assert summary["mismatch_reason_counts"]["circuit_breaker"] > 10
    assert summary["steps"] == 60
    assert summary["orders_submitted"] <= 4


def test_without_a_modulator_proposals_run_unguarded_and_the_summary_says_so() -> None:
    source = ListSource([book(0, bid=0.1, ask=0.9)])
    summary = run_loop(source=source, broker=RecordingBroker(), modulator=None, trace=False)
    assert summary["policy_hash"] is None
    assert any("unguarded" in note for note in summary["notes"])


def test_a_model_that_raises_holds_and_its_text_stays_out_of_the_trace(tmp_path: Path) -> None:
    def model(features: Any, **_: Any) -> Proposal:
        raise RuntimeError("api_key=canary-51c9")

    engine = DecisionEngine(model=model)
    summary = run_loop(source=ListSource([book(0)]), broker=RecordingBroker(), decision_engine=engine, run_dir=tmp_path)
    assert summary["hold_reason_counts"] == {"private_hook_error": 1}
    for file in tmp_path.iterdir():
        assert "canary" not in file.read_text()


def test_an_executor_of_the_users_own_gets_every_decision() -> None:
    seen: list[tuple[str, float | None]] = []

    class MyExecutor:
        def run(self, final_decision: Any, market_id: str, mid: float | None = None) -> dict[str, Any]:
            seen.append((final_decision.action, mid))
            return {"submitted": 1} if final_decision.action == Action.ACT else {}

    source = ListSource([book(10 * i) for i in range(5)])
    summary = run_loop(source=source, broker=RecordingBroker(), executor=MyExecutor(), trace=False)
    assert seen == [("ACT", 0.5)] * 5 + [("CANCEL", 0.5)]
    assert summary["orders_submitted"] == 5


def test_fills_of_an_executors_orders_are_booked_once() -> None:
    class Filled(RecordingBroker):
        def process_fills(self, now_ms: int) -> list[dict[str, Any]]:
            order = {"trade_id": "t1", "client_order_id": "mine", "market_id": "X", "side": "BUY"}
            return [{**order, "price": 0.5, "qty": 2.0, "fee": 0.01, "fee_currency": "USD", "liquidity": "TAKER"}]

    class Quiet:
        def run(self, final_decision: Any, market_id: str, mid: float | None = None) -> dict[str, Any]:
            return {}

    source = ListSource([book(10 * i) for i in range(5)])
    summary = run_loop(source=source, broker=Filled(), executor=Quiet(), trace=False)
    assert summary["fills_count"] == 1
    assert summary["positions"] == {"X": 2.0}
    assert summary["final_equity"] == pytest.approx(-0.01)


# Time. --------------------------------------------------------------------------------------------------------------


def test_a_silent_feed_pulls_quotes_within_staleness_plus_timer(tmp_path: Path) -> None:
    broker = RecordingBroker()
    pulled_at: list[int] = []
    original = broker.cancel_order
    now: list[int] = [0]

    def cancel(order_id: str) -> bool:
        pulled_at.append(now[0])
        return original(order_id)

    def watching(proposal: Any, policy: Any, context: Any) -> tuple[FinalDecision, MismatchInfo]:
        now[0] = context.now_ms
        return modulate(proposal, policy, context)

    broker.cancel_order = cancel  # type: ignore[method-assign]
    source = ListSource([book(0), book(10), book(60_000)])
    summary = run_loop(source=source, broker=broker, modulator=watching, run_dir=tmp_path, risk_policy=RiskPolicy())
    assert pulled_at[0] - (START_NS // MS + 10) <= 1_000 + 100
    assert summary["timer_count"] == 11
    assert summary["mismatch_reason_counts"]["staleness_exceeded"] >= 1


def test_bars_make_no_timers_unless_they_are_asked_for() -> None:
    bars = [Bar(0, START_NS + 60_000 * MS * i, "X", 0, 1.0, 1.2, 0.9, 1.1, 5.0) for i in range(3)]
    assert run_loop(source=ListSource(bars), broker=RecordingBroker(), trace=False)["timer_count"] == 0
    timed = run_loop(source=ListSource(bars), broker=RecordingBroker(), trace=False, timer_ms=500)
    assert timed["timer_count"] == 2 * 3


def test_a_silent_live_feed_pulls_quotes(tmp_path: Path) -> None:
    class Live(DataSource):
        is_live = True

        def __init__(self) -> None:
            self.count = 0

        def next_event(self) -> Any:
            self.count += 1
            if self.count == 1:
                return {"bid": 0.49, "ask": 0.51, "bid_depth": 90.0, "ask_depth": 30.0, "ts_ns": time.time_ns()}
            time.sleep(0.6)
            return None

    broker = LiveBroker()
    policy = RiskPolicy(staleness_ms=150)
    summary = run_loop(source=Live(), broker=broker, run_dir=tmp_path, risk_policy=policy, timer_ms=50)
    assert len(broker.submitted) == 2
    assert len(broker.cancelled) == 2
    assert 3 <= summary["timer_count"] <= 6
    assert summary["steps"] == 1


def test_a_gap_holds_until_the_next_snapshot(tmp_path: Path) -> None:
    def levels(price: float, side: int) -> list[tuple[float, float]]:
        return [(round(price + side * 0.01 * i, 2), 9.0 if side < 0 else 3.0) for i in range(3)]

    def image(at_ms: int, seq: int) -> BookSnapshot:
        return BookSnapshot(
            0, START_NS + at_ms * MS, "X", seq, bids=levels(0.49, -1), asks=levels(0.51, 1), bid=0.49, ask=0.51
        )

    def delta(at_ms: int, seq: int, prev: int) -> BookDelta:
        return BookDelta(0, START_NS + at_ms * MS, "X", seq, seq, prev, [(0.49, 8.0)], [])

    events = [image(0, 10), delta(10, 11, 10), delta(20, 13, 12), delta(30, 14, 13), image(40, 20), delta(50, 21, 20)]
    summary = run_loop(source=ListSource(events), broker=RecordingBroker(), run_dir=tmp_path)
    assert summary["rejected_events"] == {"sequence_gap": 2}
    assert summary["steps"] == 4
    gap = run_loop(
        source=ListSource([image(0, 10), FeedGap(0, START_NS + 10 * MS, "X"), image(20, 20)]),
        broker=RecordingBroker(),
        run_dir=tmp_path / "gap",
    )
    assert gap["mismatch_reason_counts"] == {"staleness_exceeded": 1}


def test_several_symbols_keep_their_own_state_and_order(tmp_path: Path) -> None:
    events = []
    for i in range(30):
        for symbol, mid in (("A", 0.5), ("B", 0.7)):
            stamp = START_NS + (10 * i + (symbol == "B")) * MS
            events.append(BookSnapshot(0, stamp, symbol, 0, mid - 0.01, mid + 0.01, 90.0, 30.0))
    broker = RecordingBroker()
    summary = run_loop(source=ListSource(events), broker=broker, run_dir=tmp_path)
    assert summary["steps"] == 60
    assert {order.market_id for order in broker.submitted} == {"A", "B"}
    symbols = [packet.input["symbol"] for packet in read_packets(tmp_path)]
    assert symbols == ["A", "B"] * 30
    mids = {packet.input["symbol"]: packet.input["features"]["mid"] for packet in read_packets(tmp_path)}
    assert mids == {"A": pytest.approx(0.5), "B": pytest.approx(0.7)}


# Ends. --------------------------------------------------------------------------------------------------------------

ENDLESS = """
import json, sys, time
from ami_engine.loop.run_loop import run_loop
from ami_engine.sim.microstructure_sim import MicrostructureSim
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.sim.synthetic_source import SyntheticSource
class Slow(SyntheticSource):
    def next_event(self):
        time.sleep(0.002)
        return super().next_event()
print("started", flush=True)
broker = PaperBroker()
summary = run_loop(source=Slow(MicrostructureSim(seed=1), num_events=None), broker=broker, run_dir=sys.argv[1])
print(json.dumps({"reason": summary["stopped_reason"], "open": len(broker.get_state()["open_orders"])}))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_cleanly(number: int, tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ENDLESS, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    time.sleep(0.5)
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert f'"reason": "signal:{signal.Signals(number).name}"' in output
    assert '"open": 0' in output
    assert verify(tmp_path).ok


def test_a_full_disk_stops_the_run_cancels_orders_and_leaves_a_readable_trace(tmp_path: Path) -> None:
    code = textwrap.dedent(
        f"""
        import json, resource, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
        from ami_engine.loop.run_loop import run_loop
        from ami_engine.sim.microstructure_sim import MicrostructureSim
        from ami_engine.sim.paper_broker import PaperBroker
        from ami_engine.sim.synthetic_source import SyntheticSource
        broker = PaperBroker()
        source = SyntheticSource(MicrostructureSim(seed=1), num_events=5000)
        summary = run_loop(source=source, broker=broker, run_dir={str(tmp_path)!r})
        print(json.dumps([summary["stopped_reason"], summary["steps"], len(broker.get_state()["open_orders"])]))
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reason, steps, open_orders = msgspec.json.decode(done.stdout)
    assert reason.startswith("trace_error: ")
    assert steps < 5_000
    assert open_orders == 0
    assert sum(1 for _ in read_packets(tmp_path)) > 10


def test_off_the_main_thread_it_runs_without_signals() -> None:
    result: list[dict[str, Any]] = []
    thread = threading.Thread(
        target=lambda: result.append(run_loop(source=synthetic(50), broker=PaperBroker(), trace=False))
    )
    thread.start()
    thread.join()
    assert result[0]["steps"] == 50


def test_a_brokers_error_text_is_redacted_everywhere(tmp_path: Path) -> None:
    class Leaky(RecordingBroker):
        def submit_order(self, order: Any) -> None:
            raise ConnectionError("POST /order?api_secret=canary-9d21 failed")

    summary = run_loop(source=ListSource([book(0), book(10)]), broker=Leaky(), run_dir=tmp_path)
    assert summary["error_count"] > 0
    assert "canary" not in str(summary)
    for file in tmp_path.iterdir():
        assert "canary" not in file.read_text()


def test_a_resumed_run_repeats_no_client_order_id(tmp_path: Path) -> None:
    first, second = RecordingBroker(), RecordingBroker()
    run_loop(source=ListSource([book(0), book(10)]), broker=first, run_dir=tmp_path)
    run_loop(source=ListSource([book(0), book(10)]), broker=second, run_dir=tmp_path, resume=True)
    ids = [order.client_order_id for broker in (first, second) for order in broker.submitted]
    assert len(ids) == len(set(ids)) == 4


# Latches. -----------------------------------------------------------------------------------------------------------


def two_symbols(n: int, first: str = "A", second: str = "B", second_from: int = 20) -> list[Any]:
    events = []
    for i in range(n):
        for symbol in (first, second) if i >= second_from else (first,):
            stamp = START_NS + (10 * i + (symbol == second)) * MS
            events.append(BookSnapshot(0, stamp, symbol, 0, 0.49, 0.51, 90.0, 30.0))
    return events


def stopping_at(step: int) -> Callable[..., Proposal]:
    count = [0]

    def model(features: Any, **_: Any) -> Proposal:
        count[0] += 1
        params = {"bid_quote": 0.49, "ask_quote": 0.51, "size_usd": 1.0}
        return Proposal(Action.STOP if count[0] == step else Action.ACT, 0.9, ["test"], params)

    return model


def test_a_stop_in_one_market_stops_one_that_is_seen_later(tmp_path: Path) -> None:
    broker = RecordingBroker()
    engine = DecisionEngine(model=stopping_at(10))
    summary = run_loop(source=ListSource(two_symbols(40)), broker=broker, decision_engine=engine, run_dir=tmp_path)
    assert {order.market_id for order in broker.submitted} == {"A"}
    assert summary["action_counts"]["STOP"] == 60 - 9


def test_a_latch_survives_a_restart_and_only_an_operator_releases_it(tmp_path: Path) -> None:
    engine = DecisionEngine(model=stopping_at(3))
    run_loop(source=ListSource([book(10 * i) for i in range(5)]), broker=RecordingBroker(), decision_engine=engine,
             run_dir=tmp_path)  # fmt: skip
    again = RecordingBroker()
    events = [book(1_000 + 10 * i) for i in range(5)]
    held = run_loop(source=ListSource(events), broker=again, run_dir=tmp_path, resume=True)
    assert held["action_counts"] == {"STOP": 5}
    assert again.submitted == []
    assert any("latched" in note for note in held["notes"])
    release = Release("kill_switch", "ann", "checked the book by hand")
    freed = run_loop(source=ListSource(events), broker=again, run_dir=tmp_path, resume=True, release=(release,))
    assert freed["action_counts"] == {"ACT": 5}
    assert '"operator":"ann"' in (tmp_path / "security_audit.jsonl").read_text()
    with pytest.raises(ConfigError, match="must name what is latched"):
        run_loop(source=ListSource(events), broker=again, run_dir=tmp_path, resume=True, release=(release,))


def test_a_run_that_replaces_a_latched_one_needs_the_operators_release_too(tmp_path: Path) -> None:
    engine = DecisionEngine(model=stopping_at(3))
    run_loop(source=ListSource([book(10 * i) for i in range(5)]), broker=RecordingBroker(), decision_engine=engine,
             run_dir=tmp_path)  # fmt: skip
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    again = RecordingBroker()
    with pytest.raises(ConfigError, match=r"would forget what is latched \(kill_switch: "):
        run_loop(source=ListSource([book(0)]), broker=again, run_dir=tmp_path, overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    release = Release("kill_switch", "ann", "checked the book by hand")
    freed = run_loop(source=ListSource([book(0)]), broker=again, run_dir=tmp_path, overwrite=True, release=(release,))
    assert freed["action_counts"] == {"ACT": 1}
    assert '"operator":"ann"' in (tmp_path / "security_audit.jsonl").read_text()
    assert run_loop(source=ListSource([book(0)]), broker=again, run_dir=tmp_path, overwrite=True)["steps"] == 1


def test_a_damaged_latch_file_refuses_to_start(tmp_path: Path) -> None:
    run_loop(source=ListSource([book(0)]), broker=RecordingBroker(), run_dir=tmp_path)
    (tmp_path / "latches.json").write_bytes(b"[{")
    for _ in range(2):  # a start that failed holds no file
        with pytest.raises(TraceError, match="what is latched is not known"):
            run_loop(source=ListSource([book(10)]), broker=RecordingBroker(), run_dir=tmp_path, resume=True)
    (tmp_path / "latches.json").write_bytes(b"[]")
    summary = run_loop(source=ListSource([book(10)]), broker=RecordingBroker(), run_dir=tmp_path, resume=True)
    assert summary["stopped_reason"] == "source_exhausted"


# Names and records. -------------------------------------------------------------------------------------------------


def test_the_run_id_names_the_model_and_its_labels() -> None:
    def one(features: Any, **_: Any) -> Proposal:
        return Proposal(Action.HOLD, 0.0)

    def two(features: Any, **_: Any) -> Proposal:
        return Proposal(Action.HOLD, 0.0)

    ids = [
        run_loop(source=synthetic(5), broker=PaperBroker(), trace=False, **options)["run_id"]
        for options in (
            {},
            {"decision_engine": DecisionEngine(model=one)},
            {"decision_engine": DecisionEngine(model=two)},
            {"decision_engine": DecisionEngine(confidence_threshold=0.7)},
            {"labels": {"queue": "front"}},
            {"seed": 1},
        )
    ]
    assert len(set(ids)) == len(ids)


def test_a_models_failures_count_as_errors_and_reach_the_runs_audit(tmp_path: Path) -> None:
    engine = DecisionEngine(model=lambda features: 1 / 0)
    source = ListSource([book(10 * i) for i in range(30)])
    summary = run_loop(source=source, broker=RecordingBroker(), decision_engine=engine, run_dir=tmp_path)
    assert summary["error_count"] == 30
    assert summary["mismatch_reason_counts"]["error_rate_exceeded"] > 0
    assert "private_hook_error" in (tmp_path / "security_audit.jsonl").read_text()


def test_quotes_below_the_smallest_order_are_counted_and_said() -> None:
    source = ListSource([book(0)])
    instrument = Instrument("X", tick_size=0.01, lot_size=1.0, min_qty=100.0)
    summary = run_loop(source=source, broker=RecordingBroker(), instrument=instrument, trace=False)
    assert summary["orders_submitted"] == 0
    assert summary["orders_skipped"] == 2
    assert any("below the instrument's smallest order" in note for note in summary["notes"])


def test_the_run_directory_holds_what_the_run_was_made_of(tmp_path: Path) -> None:
    policy = RiskPolicy(min_depth=2.0)
    run_loop(source=ListSource([book(0)]), broker=RecordingBroker(), risk_policy=policy, run_dir=tmp_path)
    record = msgspec.json.decode((tmp_path / "run.json").read_bytes())
    assert RiskPolicy.from_dict(record["config"]["policy"]) == policy
    for packet in read_packets(tmp_path):
        stored = RiskPolicy.from_dict(record["policies"][packet.input["policy_hash"]])
        assert stored.policy_hash == packet.input["policy_hash"]
        assert stored.min_depth == 2.0


def test_what_an_executor_says_besides_is_foreign_code_too() -> None:
    class Odd:
        def run(self, final: Any, market_id: str, mid: float | None = None) -> dict[str, Any]:
            return {}

        def open_orders(self) -> list[str]:
            return ["order-1"]

    source = ListSource([book(10 * i) for i in range(5)])
    summary = run_loop(source=source, broker=RecordingBroker(), executor=Odd(), trace=False)
    assert (summary["steps"], source.closed) == (5, True)
    assert summary["last_error"].startswith("executor.open_orders: ")
    assert summary["error_count"] >= 1


@pytest.mark.parametrize(
    ("source", "broker", "named"), [(None, "b", "`source`"), ("s", None, "`broker`"), ("s", object(), "`broker`")]
)
def test_what_is_no_source_or_broker_is_refused_by_name(source: object, broker: object, named: str) -> None:
    source = ListSource([]) if source == "s" else source
    broker = RecordingBroker() if broker == "b" else broker
    with pytest.raises(ConfigError, match=f"{named} must be a subclass of ami_engine.adapters"):
        run_loop(source=source, broker=broker, trace=False)


def test_what_a_source_says_at_its_end_is_shown_without_secrets() -> None:
    summary = run_loop(source=ListSource([ConfigError("token=cAnArY")]), broker=RecordingBroker(), trace=False)
    assert "source_error" in summary["stopped_reason"]
    assert "cAnArY" not in repr(summary)
    bad = EventError("refused: password=cAnArY", reason="malformed")
    summary = run_loop(source=ListSource([bad]), broker=RecordingBroker(), trace=False)
    assert summary["rejected_events"] == {"malformed": 1}
    assert "cAnArY" not in repr(summary)


def test_a_resumed_run_keeps_the_policies_of_earlier_packets(tmp_path: Path) -> None:
    for at, depth in enumerate((2.0, 3.0)):
        run_loop(
            source=ListSource([book(10 * at)]),
            broker=RecordingBroker(),
            risk_policy=RiskPolicy(min_depth=depth),
            run_dir=tmp_path,
            resume=at > 0,
        )
    record = msgspec.json.decode((tmp_path / "run.json").read_bytes())
    stored = [record["policies"][packet.input["policy_hash"]]["min_depth"] for packet in read_packets(tmp_path)]
    assert stored == [2.0, 3.0]
    (tmp_path / "run.json").write_bytes(b"{")
    with pytest.raises(TraceError, match="policies of earlier packets"):
        run_loop(source=ListSource([book(20)]), broker=RecordingBroker(), run_dir=tmp_path, resume=True)
