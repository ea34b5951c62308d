"""What must hold when something else breaks: the disk, the source, a second process, a user's own part."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from ami_engine.adapters import Broker, DataSource
from ami_engine.clock import ManualClock
from ami_engine.dmc import RiskPolicy, modulate
from ami_engine.errors import ConfigError, TraceError, VenueUnavailable
from ami_engine.events import BookSnapshot
from ami_engine.loop.run_loop import run_loop
from ami_engine.loop.symbol_state import SymbolState
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.trace.reader import verify
from ami_engine.trace.trace_logger import TraceLogger
from ami_engine.units import Instrument
from decision_schema.types import MismatchInfo

from .conftest import MS, START_NS, ListSource, LiveBroker, RecordingBroker, book


class QuietAfterOne(DataSource):
    """Live: one book, then silence for `silent_s`, then the end."""

    is_live = True

    def __init__(self, silent_s: float, ahead_ns: int = 0) -> None:
        self._silent_s = silent_s
        self._ahead_ns = ahead_ns
        self._count = 0

    def next_event(self) -> Any:
        self._count += 1
        if self._count == 1:
            stamp = time.time_ns() + self._ahead_ns
            return BookSnapshot(0, stamp, "X", 0, 0.49, 0.51, 90.0, 30.0)
        time.sleep(self._silent_s)
        return None


# Silence. -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sub_ms_ns", [0, 1, 400_000, 999_999])
def test_the_last_timer_is_the_one_on_which_the_guard_fires(sub_ms_ns: int, tmp_path: Path) -> None:
    events = [book(0), book(100)]
    events[0] = BookSnapshot(0, START_NS + sub_ms_ns, "X", 0, 0.49, 0.51, 90.0, 30.0)
    events[1] = BookSnapshot(0, START_NS + 60_000 * MS, "X", 0, 0.49, 0.51, 90.0, 30.0)
    for timer_ms in (100, 33.3, 0.7):
        policy = RiskPolicy(staleness_ms=100)
        broker = RecordingBroker()
        summary = run_loop(source=ListSource(events), broker=broker, trace=False, risk_policy=policy, timer_ms=timer_ms)
        assert summary["mismatch_reason_counts"]["staleness_exceeded"] == 1


@pytest.mark.parametrize("ahead_ns", [0, 3_600_000_000_000])
def test_a_silent_live_feed_is_found_stale_whatever_the_venues_clock_says(ahead_ns: int) -> None:
    broker = LiveBroker()
    summary = run_loop(
        source=QuietAfterOne(0.5, ahead_ns),
        broker=broker,
        trace=False,
        risk_policy=RiskPolicy(staleness_ms=100),
        timer_ms=100,
    )
    assert summary["mismatch_reason_counts"]["staleness_exceeded"] >= 1
    assert len(broker.cancelled) == len(broker.submitted) == 2


def test_events_without_a_price_do_not_make_a_dead_book_fresh() -> None:
    events = [book(0), *[{"symbol": "X", "value": 1.0, "ts_ns": START_NS + 100 * i * MS} for i in range(1, 60)]]
    summary = run_loop(source=ListSource(events), broker=RecordingBroker(), trace=False)
    assert summary["mismatch_reason_counts"]["staleness_exceeded"] >= 45


def test_a_live_dict_without_a_time_is_dated_now() -> None:
    class Undated(QuietAfterOne):
        def next_event(self) -> Any:
            event = super().next_event()
            return event and {"bid": 0.49, "ask": 0.51, "bid_depth": 90.0, "ask_depth": 30.0, "symbol": "X"}

    summary = run_loop(source=Undated(0.0), broker=LiveBroker(), trace=False)
    assert summary["action_counts"] == {"ACT": 1}
    assert summary["notes"] == ["no journal: after a crash the next start knows none of this run's orders"]


# Ends. --------------------------------------------------------------------------------------------------------------


def test_a_full_disk_under_the_audit_log_cancels_orders_and_is_the_reason(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import json, resource, signal, sys
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        from ami_engine.loop.run_loop import run_loop
        from ami_engine.sim.microstructure_sim import MicrostructureSim
        from ami_engine.sim.paper_broker import PaperBroker
        from ami_engine.sim.synthetic_source import SyntheticSource
        results = []
        for limit in range(12_000, 40_000, 3_500):
            broker = PaperBroker()
            source = SyntheticSource(MicrostructureSim(seed=1), num_events=3000)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            summary = run_loop(source=source, broker=broker, trace=False, run_dir=f"{sys.argv[1]}/{limit}")
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            results.append([summary["stopped_reason"], len(broker.get_state()["open_orders"])])
        print(json.dumps(results))
        """
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = msgspec.json.decode(done.stdout)
    assert len(results) == 8
    for reason, open_orders in results:
        assert reason.startswith("trace_error: ")
        assert open_orders == 0


def test_a_source_that_cannot_be_closed_leaves_no_order_behind() -> None:
    class Stuck(ListSource):
        def close(self) -> None:
            raise OSError("token=canary-1")

    broker = RecordingBroker()
    summary = run_loop(source=Stuck([book(0)]), broker=broker, trace=False)
    assert len(broker.cancelled) == len(broker.submitted) == 2
    assert summary["error_count"] == 1
    assert "canary" not in str(summary)


def test_a_reader_thread_that_dies_ends_the_run() -> None:
    class Dies(DataSource):
        is_live = True

        def next_event(self) -> Any:
            raise asyncio.CancelledError

    summary = run_loop(source=Dies(), broker=LiveBroker(), trace=False)
    assert summary["stopped_reason"] == "source_error: CancelledError"


def test_an_unreachable_venue_of_the_sources_is_tried_again() -> None:
    source = ListSource([book(0), VenueUnavailable("gone"), book(10)])
    summary = run_loop(source=source, broker=RecordingBroker(), trace=False, source_backoff_ms=0.1)
    assert summary["steps"] == 2
    assert summary["error_count"] == 1


# Two processes, and restarts. ---------------------------------------------------------------------------------------


def test_a_second_run_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    run_loop(source=ListSource([book(0)]), broker=RecordingBroker(), run_dir=tmp_path)
    with TraceLogger("one", run_dir=tmp_path, resume=True):
        for how in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(TraceError, match="in use by another run"):
                run_loop(source=ListSource([book(10)]), broker=RecordingBroker(), run_dir=tmp_path, **how)
    assert verify(tmp_path).ok


def test_a_killed_run_that_is_resumed_repeats_no_order_id(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import os, sys
        from ami_engine.adapters import Broker, MarketDataSource
        from ami_engine.events import BookSnapshot
        from ami_engine.loop.run_loop import run_loop
        class Source(MarketDataSource):
            count = 0
            def next_event(self):
                self.count += 1
                mid = 5.0 + 0.02 * (self.count % 3)
                return BookSnapshot(0, 10**18 + self.count * 10**9, "X", 0, mid - 0.01, mid + 0.01, 90.0, 30.0)
        class Venue(Broker):
            def submit_order(self, order):
                print(order.client_order_id, flush=True)
                if os.environ.get("DIE") and source.count >= 8:
                    os._exit(9)
            def cancel_order(self, order_id):
                return True
            def cancel_all(self, market_id=None):
                return 0
        source = Source()
        run_loop(source=source, broker=Venue(), run_dir=sys.argv[1], resume="r" in sys.argv[2], steps=40, run_id="same")
        """
    )
    ids: list[str] = []
    for how, environment in (("n", {"DIE": "1"}), ("r", {"DIE": "1"}), ("r", {})):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path), how],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == (9 if environment else 0), done.stderr
        ids += done.stdout.split()
    assert len(ids) > 40
    assert len(ids) == len(set(ids))
    assert verify(tmp_path).ok


# A user's own parts. ------------------------------------------------------------------------------------------------


def test_a_modulator_that_raises_stops_and_latches(tmp_path: Path) -> None:
    def broken(proposal: Any, policy: Any, context: Any) -> Any:
        raise ZeroDivisionError

    broker = RecordingBroker()
    source = ListSource([book(10 * i) for i in range(5)])
    summary = run_loop(source=source, broker=broker, modulator=broken, run_dir=tmp_path)
    assert summary["action_counts"] == {"STOP": 5}
    assert summary["mismatch_reason_counts"] == {"guard_error:modulator": 5}
    assert broker.submitted == []
    assert any("latched" in note for note in summary["notes"])


def test_a_verdict_of_another_package_is_read_by_its_attributes(tmp_path: Path) -> None:
    def foreign(proposal: Any, policy: Any, context: Any) -> Any:
        return SimpleNamespace(action="STOP", allowed=False, reasons=["theirs"], params=None), MismatchInfo()

    summary = run_loop(source=ListSource([book(0)]), broker=RecordingBroker(), modulator=foreign, run_dir=tmp_path)
    assert summary["action_counts"] == {"STOP": 1}
    assert b"kill_switch" in (tmp_path / "latches.json").read_bytes()


def test_a_simulated_venue_that_fails_halts_the_run(tmp_path: Path) -> None:
    class Broken(PaperBroker):
        def on_market_data(self, event: Any, bid: float, ask: float, bid_size: float, ask_size: float) -> None:
            raise KeyError("x")

    summary = run_loop(source=ListSource([book(0), book(10)]), broker=Broken(), run_dir=tmp_path)
    assert summary["action_counts"] == {"STOP": 2}
    assert "on_market_data failed: KeyError" in summary["last_error"]


@pytest.mark.parametrize("answer", [{"errors": None}, {"submitted": "x"}, {"submitted": -3}, 7])
def test_an_executors_garbage_is_an_error_not_a_crash(answer: Any) -> None:
    executor = SimpleNamespace(run=lambda final, market_id, mid=None: answer)
    summary = run_loop(source=ListSource([book(0)]), broker=RecordingBroker(), executor=executor, trace=False)
    assert summary["steps"] == 1
    assert summary["orders_submitted"] == 0


def test_a_struct_that_is_no_event_is_refused() -> None:
    source = ListSource([book(0), Instrument("X"), book(10)])
    summary = run_loop(source=source, broker=RecordingBroker(), trace=False)
    assert summary["rejected_events"] == {"wrong_type": 1}
    assert summary["steps"] == 2


def test_symbols_of_which_nothing_good_was_heard_leave_nothing_behind() -> None:
    crossed = [BookSnapshot(0, START_NS + i, f"S{i}", 0, 0.6, 0.5, 1.0, 1.0) for i in range(300)]
    seen: list[int] = []

    class Watching(RecordingBroker):
        def process_fills(self, now_ms: int) -> Any:
            gc.collect()
            seen.append(sum(type(each) is SymbolState for each in gc.get_objects()))
            return ()

    run_loop(source=ListSource([*crossed, book(1_000)]), broker=Watching(), trace=False)
    assert max(seen) < 10


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("risk_policy", {}),
        ("instrument", "X"),
        ("feature_config", {}),
        ("executor", 5),
        ("position_manager", 5),
        ("decision_engine", "x"),
        ("clock", 5),
        ("trace", "yes"),
        ("timer_ms", "x"),
        ("timer_ms", -1),
        ("source_attempts", 0),
        ("steps", -3),
        ("steps", "5"),
        ("modulator", 5),
        ("on_bad_event", "ignore"),
        ("seed", 1.5),
    ],
)
def test_a_wrong_option_is_named_before_anything_starts(option: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"`{option}`"):
        run_loop(source=ListSource([book(0)]), broker=RecordingBroker(), **{"trace": False, option: value})


# Money. -------------------------------------------------------------------------------------------------------------


def test_the_days_profit_of_an_inverse_market_does_not_move_with_the_price_while_flat() -> None:
    instrument = Instrument("X", tick_size=0.5, lot_size=1, multiplier=100, kind="inverse", currency="BTC")
    seen: list[float] = []

    class Losing(Broker):
        """Fills one round trip at a loss, then nothing."""

        def __init__(self) -> None:
            self.fills = [("BUY", 50_000.0), ("SELL", 49_000.0)]

        def submit_order(self, order: Any) -> None: ...

        def process_fills(self, now_ms: int) -> list[dict[str, Any]]:
            if not self.fills:
                return []
            side, price = self.fills.pop(0)
            return [
                {"trade_id": side, "client_order_id": "c", "market_id": "X", "side": side, "price": price, "qty": 10.0}
            ]

    def watching(proposal: Any, policy: Any, context: Any) -> Any:
        seen.append(context.daily_pnl)
        return modulate(proposal, policy, context)

    day_ms = 86_400_000
    prices = [50_000.0, 49_000.0, 49_000.0, 60_000.0, 80_000.0]
    events = [
        BookSnapshot(0, START_NS + (i // 3 * day_ms + i * 1_000) * MS, "X", 0, price - 0.5, price + 0.5, 9.0, 9.0)
        for i, price in enumerate(prices)
    ]
    executor = SimpleNamespace(run=lambda final, market_id, mid=None: {})
    run_loop(
        source=ListSource(events), broker=Losing(), modulator=watching, executor=executor, instrument=instrument,
        trace=False, timer_ms=0, clock=None,
    )  # fmt: skip
    assert seen[2] == pytest.approx(10 * 100 * (1 / 50_000 - 1 / 49_000) * 49_000)
    assert seen[3] == seen[4] == 0.0


def test_a_manual_clock_can_be_the_decision_clock() -> None:
    clock = ManualClock(START_NS + 10_000 * MS)
    summary = run_loop(source=ListSource([book(0)]), broker=RecordingBroker(), trace=False, clock=clock)
    assert summary["mismatch_reason_counts"]["staleness_exceeded"] == 1
