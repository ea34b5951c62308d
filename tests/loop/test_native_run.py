"""The compiled step is the Python step, to the bit, wherever it hands over."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ami_engine.backtest import CompiledModel
from ami_engine.dmc import RiskPolicy
from ami_engine.dmc.risk_state import RiskState
from ami_engine.errors import ConfigError, EventError
from ami_engine.events import Bar, BookDelta, BookSnapshot, BookTicker, FeedGap, GenericEvent, Trade
from ami_engine.execution.order_manager import OrderManager
from ami_engine.features import FeatureConfig
from ami_engine.features.schema import FEATURE_INDEX, SCHEMA_HASH
from ami_engine.loop.assemble import assemble
from ami_engine.loop.feed import FeedEnd
from ami_engine.loop.native_run import STEP_VARIABLE
from ami_engine.loop.run_loop import run_loop
from ami_engine.loop.shutdown import StopSignal
from ami_engine.mdm.decision_engine import DecisionEngine
from ami_engine.mdm.position_manager import PositionManager
from ami_engine.portfolio.pnl import Account
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.units import Instrument
from tests.backtest.conftest import ListedSource, rough_market
from tests.backtest.test_compiled import limits, restless
from tests.feeds.conftest import FEEDS, SHIPPED, Feed, open_feed

from .native_pairs import (
    INSTRUMENT,
    MS,
    NOT_COMPARED,
    assert_same,
    listed_books,
    pair,
)

# Hand-over. -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queue", ["back", "prob"])
def test_a_run_may_be_handed_over_at_every_step(monkeypatch: pytest.MonkeyPatch, queue: Any) -> None:
    instrument = Instrument("X", tick_size=0.01, lot_size=0.001, maker_fee_bps=1.0, taker_fee_bps=5.0)
    events = rough_market(11, instrument, 160)
    model = CompiledModel(restless(0.01), schema_hash=SCHEMA_HASH, params=[30.0])
    policy = RiskPolicy(min_depth=0.0, max_per_market_usd=1e6, max_total_exposure_usd=1e6, max_spread_bps=1e5)
    options = {"decision_engine": DecisionEngine(model=model), "risk_policy": policy, "start_cash": 50.0}
    for at in (None, *range(1, len(events))):
        native, python = pair(
            monkeypatch,
            lambda: ListedSource(events, instrument),
            lambda: PaperBroker(instrument, queue=queue, seed=5, cash=50.0),
            at,
            **options,
        )
        assert_same(native, python)
    assert native.summary["fills_count"] > 10
    assert native.summary["rejected_events"]
    assert native.summary["timer_count"] > 10


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**9))
def test_rough_markets_under_any_limits_go_on_the_same_from_any_step(seed: int) -> None:
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
    config = FeatureConfig(
        tick_size=instrument.tick_size,
        levels=draw.choice([3, 10]),
        window_5m_steps=draw.choice([20, 300, None]),
        window_5m_ms=draw.choice([5_000.0, 60_000.0]),
    )
    queue, grid = draw.choice(["back", "front", "prob"]), draw.random() < 0.8
    options: dict[str, Any] = {
        "start_cash": draw.choice([0.0, 60.0]),
        "timer_ms": draw.choice([0.0, 100.0, 37.0]),
        "market_id": draw.choice([None, "ours"]),
    }
    address = restless(instrument.tick_size)
    model = CompiledModel(address, schema_hash=SCHEMA_HASH, params=[3.0 * scale]) if draw.random() < 0.6 else None
    with_book = draw.random() < 0.3
    with pytest.MonkeyPatch.context() as patch:

        def source() -> Any:
            listed = ListedSource(events, instrument)
            listed.snapshots_only = not with_book
            return listed

        native, python = pair(
            patch,
            source,
            lambda: PaperBroker(instrument if grid else None, queue=queue, seed=7),
            draw.choice([None, draw.randrange(1, len(events))]),
            decision_engine=DecisionEngine(confidence_threshold=0.2, model=model),
            risk_policy=policy,
            quoting=quoting,
            exits=exits,
            feature_config=config,
            **options,
        )
    assert_same(native, python)


@pytest.mark.parametrize("at", [None, 1, 900, 2_500])
@pytest.mark.parametrize("feed", FEEDS.values(), ids=FEEDS.keys())
def test_a_recorded_feed_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, feed: Feed, data_dir: Path, at: int | None
) -> None:
    policy = RiskPolicy.from_toml(SHIPPED / f"{feed.policy}.policy.toml")
    with contextlib.closing(open_feed(data_dir, feed)) as described:
        instruments = described.instruments()
    native, python = pair(
        monkeypatch,
        lambda: open_feed(data_dir, feed),
        lambda: PaperBroker(instruments=instruments),
        at,
        steps=3_000,
        risk_policy=policy,
    )
    assert_same(native, python)


# What is not covered, event by event. ---------------------------------------------------------------------------------


def _events_with(special: Any, at: int = 20) -> list[Any]:
    events = listed_books(60)
    events[at:at] = special if isinstance(special, list) else [special]
    return events


_AT_NS = (1_000 + 20 * 20 - 10) * MS
# Made anew for each run: an exception that is raised keeps the frames that it went through.
_SPECIAL: dict[str, Callable[[], Any]] = {
    "a second symbol": lambda: BookSnapshot(0, _AT_NS, "Y", 1, 5.0, 5.02, 60.0, 20.0),
    "an event without a price": lambda: GenericEvent(0, _AT_NS, "X", 1, {"value": 1.0}),
    "a dict": lambda: {"ts_ns": _AT_NS, "symbol": "X", "bid": 0.48, "ask": 0.5, "bid_depth": 60.0, "ask_depth": 10.0},
    "a dict that is no event": lambda: {"ts_ns": "soon"},
    "a number": lambda: 7,
    "a ticker": lambda: BookTicker(0, _AT_NS, "X", 1, 0.48, 10.0, 0.52, 10.0),
    "a delta without a book": lambda: BookDelta(0, _AT_NS, "X", 1, 1, 0, [(0.48, 1.0)], []),
    "a gap": lambda: FeedGap(0, _AT_NS, "X"),
    "a time that is no number": lambda: BookSnapshot(0, None, "X", 1, 0.48, 0.5, 60.0, 20.0),  # type: ignore[arg-type]
    "a price that is no number": lambda: Trade(0, _AT_NS, "X", 1, "high", 1.0, 1),  # type: ignore[arg-type]
    "a crossed book": lambda: BookSnapshot(0, _AT_NS, "X", 1, 0.6, 0.5, 60.0, 20.0),
    "a bad record": lambda: EventError("unreadable", reason="malformed"),
    "a record that cannot be read twice": lambda: [RuntimeError("no connection"), RuntimeError("no connection")],
    "a time that no timer can be added to": lambda: [
        BookSnapshot(0, 2**63 - 1 - late, "X", 1, 0.49, 0.51, 60.0, 20.0) for late in (50 * MS, 0)
    ],
    "a gap at a time of more than 64 bits": lambda: FeedGap(0, 2**70, "X"),
    "a gap at a time that is not whole": lambda: FeedGap(0, float(_AT_NS), "X"),  # type: ignore[arg-type]
    "a bar that opens nowhere": lambda: Bar(0, _AT_NS, "X", 1, None, 0.52, 0.48, 0.5, 1.0),  # type: ignore[arg-type]
    "a bar of infinite volume": lambda: Bar(0, _AT_NS, "X", 1, 0.5, 0.52, 0.48, 0.5, math.inf),
    "a price of very many ticks": lambda: BookSnapshot(0, _AT_NS, "X", 1, 1e30, 1.1e30, 60.0, 20.0),
    "an event after a long silence that is refused": lambda: BookSnapshot(0, 10**18, "X", 1, 0.6, 0.5, 60.0, 20.0),
}


class Scripted(ListedSource):
    """A `ListedSource` that may raise anything, with books of its own or without."""

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, Exception):
            raise event
        return event


@pytest.mark.parametrize("first", [False, True], ids=["later", "first"])
@pytest.mark.parametrize("with_books", [False, True], ids=["snapshots", "books"])
@pytest.mark.parametrize("special", _SPECIAL.values(), ids=_SPECIAL.keys())
def test_what_is_not_covered_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, special: Callable[[], Any], with_books: bool, first: bool
) -> None:
    def source() -> Any:
        listed = Scripted(_events_with(special(), 0 if first else 20), INSTRUMENT)
        listed.snapshots_only = not with_books
        return listed

    for bad in ("skip", "stop"):
        native, python = pair(
            monkeypatch, source, lambda: PaperBroker(INSTRUMENT), None, on_bad_event=bad, source_backoff_ms=0.0
        )
        assert_same(native, python)


@pytest.mark.parametrize("start_ms", [1, 400, 1_700_000_000_000])
def test_after_a_gap_nothing_is_quoted_whatever_the_time(monkeypatch: pytest.MonkeyPatch, start_ms: int) -> None:
    def book(at_ms: int) -> BookSnapshot:
        return BookSnapshot(0, (start_ms + at_ms) * MS, "X", 0, 0.49, 0.51, 60.0, 20.0)

    gap = FeedGap(0, (start_ms + 10) * MS, "X")
    trade = Trade(0, (start_ms + 20) * MS, "X", 0, 0.5, 1.0, 1)
    native, python = pair(
        monkeypatch,
        lambda: ListedSource([book(0), gap, trade, book(30)], INSTRUMENT),
        lambda: PaperBroker(INSTRUMENT),
        None,
    )
    assert_same(native, python)
    assert native.summary["mismatch_reason_counts"]["staleness_exceeded"] == 2
    assert native.summary["hold_reason_counts"]["staleness_exceeded"] == 2


def test_deltas_and_tickers_are_folded_in_python_and_decided_in_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    book = BookSnapshot(0, MS, "X", 10, 0.49, 0.51, 0.0, 0.0, [(0.49, 60.0)], [(0.51, 20.0), (0.52, 5.0)])
    events: list[Any] = [book]
    for i in range(200):
        ts_ns = (2 + 30 * i + 400 * (i % 7 == 0)) * MS + 450 * MS * (i // 7)
        if i % 5 == 4:
            events.append(BookTicker(0, ts_ns, "X", 11 + i, 0.49, 50.0 + i, 0.51, 7.0))
        elif i % 50 == 7:
            events.append(BookDelta(0, ts_ns, "X", 500 + i, 400 + i, 0, [(0.49, 1.0)], []))  # something was lost
            events.append(msgspec.structs.replace(book, recv_ts_ns=ts_ns, seq=11 + i))
        else:
            events.append(BookDelta(0, ts_ns, "X", 11 + i, 11 + i, 0, [(0.48, 3.0 + i % 4)], [(0.52, 1.0 + i % 3)]))

    def source() -> Any:
        listed = ListedSource(events, INSTRUMENT)
        listed.snapshots_only = False
        return listed

    for at in (None, 50, 120):
        native, python = pair(monkeypatch, source, lambda: PaperBroker(INSTRUMENT), at)
        assert_same(native, python)
        assert native.summary["timer_count"] > 10
        assert native.summary["rejected_events"]


def test_sequence_numbers_are_checked_where_the_source_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    events = listed_books(30)
    events.insert(12, events[11])
    events.insert(20, msgspec.structs.replace(events[18], seq=0))

    def source() -> Any:
        listed = ListedSource(events, INSTRUMENT)
        listed.unique_seq = frozenset({"book"})
        return listed

    for at in (None, 5, 12, 13):
        native, python = pair(monkeypatch, source, lambda: PaperBroker(INSTRUMENT), at)
        assert_same(native, python)
        assert native.summary["rejected_events"] == {"duplicate_seq": 1, "time_backwards": 1}


@pytest.mark.parametrize("seq", [2**64, 150.0])
@pytest.mark.parametrize("first", [False, True])
def test_a_sequence_number_that_the_core_cannot_hold_is_left_to_python(
    monkeypatch: pytest.MonkeyPatch, seq: Any, first: bool
) -> None:
    def source() -> Any:
        listed = ListedSource(_events_with(BookSnapshot(0, MS, "X", seq, 0.49, 0.51, 60.0, 20.0), 0), INSTRUMENT)
        if not first:
            events = [msgspec.structs.replace(event, seq=i + 1) for i, event in enumerate(_events_with([]))]
            events[20] = msgspec.structs.replace(events[20], seq=seq)
            listed = ListedSource(events, INSTRUMENT)
        listed.unique_seq = frozenset({"book"})
        return listed

    native, python = pair(monkeypatch, source, lambda: PaperBroker(INSTRUMENT), None)
    assert_same(native, python)
    assert native.summary["rejected_events"]["duplicate_seq"] >= 39


@pytest.mark.parametrize("special", ["quotes", "timers"])
def test_a_quote_of_very_many_ticks_gives_the_same(monkeypatch: pytest.MonkeyPatch, special: str) -> None:
    events = listed_books(30) if special == "quotes" else [*listed_books(30), *listed_books(30, start_ms=5_000)]
    for bid in (3e16, 1e17, 1e30):
        native, python = pair(
            monkeypatch,
            lambda: ListedSource(events, INSTRUMENT),
            lambda: PaperBroker(INSTRUMENT),
            None,
            decision_engine=DecisionEngine(model=_quoting(bid, 0.48)),
        )
        assert_same(native, python)
        is_handed_over = native.parts is not None
        assert is_handed_over == (bid > 0.01 * 2**62)


def test_a_timer_of_centuries_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    events = listed_books(30, start_ms=1_700_000_000_000)
    native, python = pair(
        monkeypatch, lambda: ListedSource(events, INSTRUMENT), lambda: PaperBroker(INSTRUMENT), None, timer_ms=9e12
    )
    assert_same(native, python)


def test_a_stop_during_a_long_silence_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silence has a timer every millisecond here until it is stale: half a million of them."""

    class Stopping(ListedSource):
        stop = StopSignal()

        def next_event(self) -> Any:
            event = super().next_event()
            if event.recv_ts_ns >= 500_000 * MS:
                self.stop.reason = "interrupted"
            return event

    monkeypatch.setenv(STEP_VARIABLE, "auto")
    source = Stopping([*listed_books(5), *listed_books(5, start_ms=500_000)], INSTRUMENT)
    run = assemble(
        source,
        PaperBroker(INSTRUMENT),
        should_stop=lambda: False,
        trace=False,
        timer_ms=1.0,
        risk_policy=RiskPolicy(staleness_ms=10**9),
    )
    assert run.drive(None, source.stop) == "interrupted"
    summary = run.finish("interrupted")
    assert 0 < summary["timer_count"] < 10_000
    assert summary["steps"] == 5


@pytest.mark.parametrize("cash", [math.nan, math.inf])
def test_cash_that_is_no_number_is_refused(cash: float) -> None:
    """Guards pass what they compare with NaN."""
    with pytest.raises(ConfigError, match="`start_cash` must be finite"):
        run_loop(source=ListedSource([], INSTRUMENT), broker=PaperBroker(), trace=False, start_cash=cash)


def test_a_side_that_was_once_too_small_is_quoted_when_it_no_longer_is(monkeypatch: pytest.MonkeyPatch) -> None:
    @ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.POINTER(ctypes.c_double), ctypes.c_int64] * 2)
    def by_depth(row: Any, n: int, params: Any, out: int) -> int:
        answer, depth = ctypes.cast(out, ctypes.POINTER(ctypes.c_double)), row[FEATURE_INDEX["bid_depth"]]
        answer[1], answer[2], answer[3] = 0.0 if depth == 61.0 else 0.49, 0.51, 1e-6 if depth == 62.0 else 1.0
        return 1

    instrument = Instrument("X", tick_size=0.01, min_qty=0.001)
    depths = [60.0] * 3 + [61.0] * 3 + [62.0] * 3 + [60.0] * 60
    events = [
        msgspec.structs.replace(event, bid_depth=depth)
        for event, depth in zip(listed_books(len(depths)), depths, strict=True)
    ]
    native, python = pair(
        monkeypatch,
        lambda: ListedSource(events, instrument),
        lambda: PaperBroker(instrument),
        None,
        decision_engine=DecisionEngine(model=CompiledModel(by_depth, schema_hash=SCHEMA_HASH)),
    )
    assert_same(native, python)
    assert native.summary["orders_skipped"] == 3
    assert native.summary["orders_submitted"] == 3


def _quoting(bid: float, size_usd: float) -> CompiledModel:
    @ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.POINTER(ctypes.c_double), ctypes.c_int64] * 2)
    def quote(row: Any, n: int, params: Any, out: int) -> int:
        answer = ctypes.cast(out, ctypes.POINTER(ctypes.c_double))
        answer[1], answer[2], answer[3] = bid, 0.0, size_usd
        return 1

    return CompiledModel(quote, schema_hash=SCHEMA_HASH)


@pytest.mark.parametrize("crumb", [1e-10, 1e-7])
def test_a_fill_that_leaves_a_crumb_at_the_venue_gives_the_same(monkeypatch: pytest.MonkeyPatch, crumb: float) -> None:
    events = _events_with(Trade(0, _AT_NS, "X", 1, 0.47, 1.0 - crumb, -1))
    events.append(Trade(0, events[-1].recv_ts_ns + MS, "X", 2, 0.47, 5.0, -1))
    events += listed_books(10, start_ms=3_000)
    native, python = pair(
        monkeypatch,
        lambda: ListedSource(events, INSTRUMENT),
        PaperBroker,
        None,
        decision_engine=DecisionEngine(model=_quoting(0.48, 0.48)),
    )
    assert_same(native, python)
    assert native.summary["fills_count"] > 0
    assert native.run._native._is_over


@pytest.mark.parametrize("steps", [0, 1, 7, 60, 61])
def test_a_bound_on_the_steps_holds(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    events = listed_books(60)
    results = []
    for mode in ("auto", "python"):
        monkeypatch.setenv(STEP_VARIABLE, mode)
        source, broker = ListedSource(events, INSTRUMENT), PaperBroker(INSTRUMENT)
        summary = run_loop(source=source, broker=broker, steps=steps, trace=False)
        results.append({key: value for key, value in summary.items() if key not in NOT_COMPARED})
        left = len(list(iter(source.next_event, None)))
        assert left == max(0, 60 - steps)
    assert results[0] == results[1]


def test_progress_is_told_and_may_look_at_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    events = listed_books(2_500)
    seen: dict[str, list[Any]] = {}
    for mode in ("auto", "python"):
        monkeypatch.setenv(STEP_VARIABLE, mode)
        broker = PaperBroker(INSTRUMENT)
        told = seen.setdefault(mode, [])
        run_loop(
            source=ListedSource(events, INSTRUMENT),
            broker=broker,
            trace=False,
            run_id="r",
            progress=lambda steps, broker=broker, told=told: told.append((steps, broker.get_state())),  # type: ignore[misc]
        )
    assert [steps for steps, _ in seen["auto"]] == [1_000, 2_000]
    assert seen["auto"] == seen["python"]


def test_latencies_are_counted_for_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STEP_VARIABLE, "auto")
    run = assemble(
        ListedSource(listed_books(5_000), INSTRUMENT), PaperBroker(INSTRUMENT), should_stop=lambda: False, trace=False
    )
    with pytest.raises(FeedEnd):
        run.drive(None, StopSignal())
    summary = run.finish("done")
    assert run.counters.total.count == summary["steps"] + summary["timer_count"] == 5_000
    stages = summary["latency_us"]["stages"]
    assert all(0.0 < stages[name]["p50"] <= summary["latency_us"]["max"] for name in stages)


def test_what_a_subclass_changes_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STEP_VARIABLE, "auto")

    class Counting(PaperBroker):
        orders = 0

        def submit_order(self, order: Any) -> Any:
            self.orders += 1
            return super().submit_order(order)

    broker = Counting(INSTRUMENT)
    summary = run_loop(source=ListedSource(listed_books(60), INSTRUMENT), broker=broker, trace=False)
    assert broker.orders == summary["orders_submitted"] > 0


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        (PaperBroker, "submit_order"),
        (DecisionEngine, "propose"),
        (OrderManager, "apply"),
        (RiskState, "on_step"),
        (PositionManager, "should_flatten"),
        (Account, "mark"),
    ],
    ids=lambda each: each if isinstance(each, str) else each.__name__,
)
def test_what_is_put_into_a_class_is_honoured(monkeypatch: pytest.MonkeyPatch, kind: type, method: str) -> None:
    """As a test does that counts calls."""
    monkeypatch.setenv(STEP_VARIABLE, "auto")
    calls = []
    written = getattr(kind, method)

    def counting(self: Any, *args: Any, **named: Any) -> Any:
        calls.append(method)
        return written(self, *args, **named)

    monkeypatch.setattr(kind, method, counting)
    events = _events_with(Trade(0, _AT_NS, "X", 1, 0.47, 30.0, -1))
    run_loop(source=ListedSource(events, INSTRUMENT), broker=PaperBroker(INSTRUMENT), trace=False)
    assert calls


def test_a_broker_may_be_copied_after_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STEP_VARIABLE, "auto")
    broker = PaperBroker(INSTRUMENT)
    run_loop(source=ListedSource(listed_books(60), INSTRUMENT), broker=broker, trace=False)
    copied = copy.deepcopy(broker)
    assert copied.get_state() == broker.get_state()
    assert vars(copied)["_orders_seen"] > 0


def test_numbers_of_numpy_are_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Any] = []
    for i in range(80):
        ts_ns = (1_000 + 20 * i) * MS
        if i % 4 == 3:
            events.append(Trade(0, ts_ns, "X", i, np.float64(0.49), np.float64(30.0), np.int8(-1)))  # type: ignore[arg-type]
            continue
        bids, asks = np.array([[0.49, 60.0], [0.48, 7.0]]), np.array([[0.51, 20.0 + i % 3], [0.52, 9.0]])
        events.append(BookSnapshot(0, ts_ns, "X", i, np.float64(0.49), 0.51, 0.0, 0.0, bids, asks))  # type: ignore[arg-type]
    native, python = pair(monkeypatch, lambda: ListedSource(events, INSTRUMENT), lambda: PaperBroker(INSTRUMENT), None)
    assert_same(native, python)
    assert native.summary["fills_count"] > 0
    assert native.parts is None  # no hand-over
