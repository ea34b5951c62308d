"""The Python loop, watched decision by decision, and made-up markets in which every guard has something to do."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, NamedTuple

from ami_engine.adapters.base import MarketDataSource
from ami_engine.backtest import CompiledResult, run_compiled
from ami_engine.dmc import modulate
from ami_engine.errors import EventError
from ami_engine.events import Bar, BookSnapshot, FeedGap, Fill, TimerEvent, Trade
from ami_engine.loop.assemble import assemble
from ami_engine.loop.feed import FeedEnd
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.units import Instrument
from decision_schema.types import Action

ACTIONS = list(Action)
# What a compiled run has no share in: wall time, and files.
NOT_COMPARED = {"latency_us", "events_per_s", "run_id", "backend"}


class Watched(NamedTuple):
    """A run of the Python loop: its summary, what it decided, and the fills that it booked."""

    summary: dict[str, Any]
    decisions: list[tuple[Any, ...]]
    fills: list[Fill]


def watch(source: Any, broker: PaperBroker, *, steps: int | None = None, **options: Any) -> Watched:
    """Run the Python loop and note every decision: time, codes, position, equity, proposed and final action, timer."""
    decisions: list[tuple[Any, ...]] = []
    fills: list[Fill] = []
    is_timer = False

    def judge(proposal: Any, policy: Any, context: Any) -> Any:
        final, mismatch = modulate(proposal, policy, context)
        seen = (run._view.position, run.account.equity)
        actions = (ACTIONS.index(proposal.action), ACTIONS.index(final.action))
        decisions.append((run._now_ns, frozenset(mismatch.reason_codes), *seen, *actions, is_timer))
        return final, mismatch

    run = assemble(source, broker, should_stop=lambda: False, trace=False, modulator=judge, **options)
    book = run._book

    def note(fill: Fill, now_ns: int) -> None:
        fills.append(fill)
        book(fill, now_ns)

    run._book = note  # type: ignore[method-assign]
    reason = "steps"
    try:
        if steps is None or steps > 0:
            for event, state in run.feed.items():
                is_timer = type(event) is TimerEvent
                if state is None:
                    run.reject(event)
                else:
                    run.step(event, state)
                if run.counters.steps == steps:
                    break
    except FeedEnd as end:
        reason = end.reason
    return Watched(run.finish(reason), decisions, fills)


def told(result: CompiledResult) -> list[tuple[Any, ...]]:
    """The decisions of a compiled run as `watch` notes them."""
    assert result.decisions is not None
    return [
        (ts_ns, frozenset(result.reason_codes(codes)), position, equity, proposed, action, is_timer)
        for ts_ns, codes, position, equity, proposed, action, is_timer in result.decisions.tolist()
    ]


def plain(fills: Iterable[Fill]) -> list[tuple[Any, ...]]:
    """Fills without the order's id, which names the run."""
    return [
        (f.trade_id, f.market_id, f.side, f.price, f.qty, f.fee, f.fee_currency, f.liquidity, f.ts_ns) for f in fills
    ]


def run_recorded(table: Any, **options: Any) -> CompiledResult:
    """Run with every decision on record, and once without: then money may lag behind, and the end must be the same."""
    result = run_compiled(table, decisions=True, **options)
    assert_equal_ends(run_compiled(table, **options), result)
    return result


def assert_equal_ends(mine: CompiledResult, theirs: CompiledResult) -> None:
    """Hold two compiled runs against each other: every fill and every number, to the bit."""
    assert plain(mine.fills) == plain(theirs.fills)
    assert mine.summary.keys() == theirs.summary.keys()
    assert {
        key: (mine.summary[key], value)
        for key, value in theirs.summary.items()
        if key not in NOT_COMPARED and mine.summary[key] != value
    } == {}


def assert_same(result: CompiledResult, python: Watched) -> None:
    """Hold a compiled run against one of the Python loop: every decision, every fill, every number, to the bit."""
    decisions = told(result)
    for number, (mine, theirs) in enumerate(zip(decisions, python.decisions, strict=False)):
        assert mine == theirs, f"decision {number}"
    assert len(decisions) == len(python.decisions)
    assert plain(result.fills) == plain(python.fills)
    assert result.summary.keys() == python.summary.keys()
    differing = {
        key: (result.summary[key], value)
        for key, value in python.summary.items()
        if key not in NOT_COMPARED and result.summary[key] != value
    }
    assert differing == {}


class ListedSource(MarketDataSource):
    """Events of a list; an `EventError` in it is a record that cannot be read."""

    snapshots_only = True
    identity = "listed"

    def __init__(self, events: Iterable[Any], instrument: Instrument) -> None:
        self._events = iter(list(events))
        self._instrument = instrument

    def next_event(self) -> Any:
        event = next(self._events, None)
        if isinstance(event, EventError):
            raise event
        return event

    def instruments(self) -> dict[str, Instrument]:
        return {"X": self._instrument}


def rough_market(seed: int, instrument: Instrument, count: int) -> list[Any]:
    """Events of a market with everything that is hard: gaps, silence, one-sided and crossed books, bars, bad times."""
    draw = random.Random(seed)
    ts_ns = draw.choice([1_700_000_000_000_000_000, 19_001 * 86_400_000_000_000 - 1_000_000_000])
    mid = draw.choice([1_000, 60_000])
    has_levels, has_bars = draw.random() < 0.6, draw.random() < 0.2
    price = instrument.price_from_ticks
    events: list[Any] = []

    def size() -> float:
        return (
            round(draw.choice([0.5, 1, 3, 10, 50, 120]) * draw.choice([1, 1, 1.1, 0.37]), draw.choice([0, 1, 3])) or 1.0
        )

    for _ in range(count):
        ts_ns += draw.choice([0, 1_000_000, 5_000_000, 20_000_000, 100_000_000, 300_000_000])
        if draw.random() < 0.01:
            ts_ns += draw.choice([3, 20, 70]) * 1_000_000_000
        mid += draw.choice([-2, -1, -1, 0, 0, 0, 1, 1, 2])
        bid, ask = mid - draw.choice([0, 1, 1, 2, 4]), mid + draw.choice([0, 1, 1, 2, 4])
        kind = draw.random()
        if kind < 0.3:
            at = price(draw.choice([bid, ask, mid, bid - 1, ask + 1]))
            events.append(Trade(0, ts_ns, "X", 0, at, size(), draw.choice([-1, 0, 1])))
        elif kind < 0.31:
            events.append(FeedGap(0, ts_ns, "X"))
        elif kind < 0.32:
            events.append(BookSnapshot(0, ts_ns, "X", 0, price(ask + 3), price(bid)))
        elif kind < 0.325:
            events.append(BookSnapshot(0, ts_ns - 5_000_000_000, "X", 0, price(bid), price(ask), 1.0, 1.0))
        elif kind < 0.33:
            events.append(EventError("a record that cannot be read", reason="malformed"))
        elif has_bars:
            start, volume = mid + draw.choice([-2, 0, 2]), draw.choice([0.0, size()])
            high, low = max(start, mid) + draw.choice([0, 1, 5]), min(start, mid) - draw.choice([0, 1, 5])
            events.append(Bar(0, ts_ns, "X", 0, price(start), price(high), price(low), price(mid), volume))
        elif has_levels:
            depth, missing = draw.choice([1, 3, 10, 12]), draw.random()
            bids = [] if missing < 0.02 else [(price(bid - place), size()) for place in range(depth)]
            asks = [] if missing > 0.98 else [(price(ask + place), size()) for place in range(depth)]
            best = (bids[0][0] if bids else 0.0, asks[0][0] if asks else 0.0)
            events.append(BookSnapshot(0, ts_ns, "X", 0, *best, 0.0, 0.0, bids, asks))
        else:
            missing = draw.random()
            best = (price(bid) if missing > 0.02 else 0.0, price(ask) if missing < 0.98 else 0.0)
            events.append(BookSnapshot(0, ts_ns, "X", 0, *best, size() if missing > 0.1 else 0.0, size()))
    return events
