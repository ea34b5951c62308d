"""The compiled step is the Python step, to the bit, wherever it hands over."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import gc
import math
import random
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ami_engine.adapters.base import MarketDataSource
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
from ami_engine.ops.controls import Controls
from ami_engine.portfolio.pnl import Account
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.units import Instrument
from decision_schema.types import Action, Proposal
from tests.backtest.conftest import ListedSource, rough_market
from tests.backtest.test_compiled import limits, restless
from tests.feeds.conftest import FEEDS, SHIPPED, Feed, open_feed

from .python_models import ODD, PLAIN, Moody

# What tells of wall time.
_NOT_COMPARED = {"latency_us", "events_per_s"}
_STEPS = 160


class Looking(MarketDataSource):
    """Looks at the broker before its n-th event: whoever keeps the books then has to bring them."""

    def __init__(self, source: Any, broker: PaperBroker, at: int) -> None:
        self._source = source
        self._broker = broker
        self._left = at
        self.snapshots_only, self.unique_seq = source.snapshots_only, source.unique_seq
        self.identity = source.identity
        self.instruments = source.instruments

    def close(self) -> None:
        self._source.close()

    def next_event(self) -> Any:
        if self._left == 0:
            self._broker.get_state()
        self._left -= 1
        return self._source.next_event()


class Played:
    """A run: what it returned, what its broker tells, and what its parts remember before it was ended."""

    def __init__(self, make: Callable[[PaperBroker], Any], broker: PaperBroker, steps: int | None, **options: Any):
        engine = options.pop("engine", None)
        if engine is not None:
            options["decision_engine"] = engine(broker)
        self.run = assemble(make(broker), broker, should_stop=lambda: False, trace=False, run_id="r", **options)
        reason = self._reason(steps)
        self.parts = remembered(self.run) if self.run.parts else None
        self.summary = {k: v for k, v in self.run.finish(reason).items() if k not in _NOT_COMPARED}
        self.venue = told_by(broker)

    def _reason(self, steps: int | None) -> str:
        try:
            return self.run.drive(steps, StopSignal())
        except FeedEnd as end:
            return end.reason


def told_by(broker: PaperBroker) -> dict[str, Any]:
    state = broker.get_state()
    values = vars(broker)
    return {
        "state": state,
        "fills": list(broker.fetch_fills(0)),
        "balances": broker.fetch_balances(),
        "ended": (values["_ended"]._buckets, values["_ended"]._order, values["_ended"]._markets),
        "open": [_order(order) for order in values["_open"].values()],
        "unreported": values["_unreported"],
        "now": (values["_now_ns"], values["_orders_seen"], values["_fills_made"]),
        "markets": {name: _venue_market(market) for name, market in values["_markets"].items()},
        "feeds": {name: _venue_market(market) for name, market in values["_feeds"].items()},
        "ledger": (values["_ledger"].cash, values["_ledger"].positions),
        "draw": None if broker.draws is None else broker.draws.draw(),
    }


def _order(order: Any) -> tuple[Any, ...]:
    names = ("request", "venue_order_id", "low", "high", "leaves", "ahead", "shown", "traded", "takes", "cancel_sent")
    return tuple(getattr(order, name) for name in names)


def _venue_market(market: Any) -> tuple[Any, ...]:
    names = ("bid", "ask", "bid_size", "ask_size", "bid_taken", "ask_taken", "symbol", "instrument", "on_grid", "lot")
    orders = [[order.venue_order_id for order in side] for side in (market.buys, market.sells)]
    return (*(getattr(market, name) for name in names), repr(market.book), orders)


def vars_of(sums: Any) -> tuple[Any, ...]:
    return sums._leaves, sums._levels, sums.total


def _working(working: Any) -> Any:
    if working is None:
        return None
    names = ("order", "ticks", "placed_ms", "trade_ids")
    return tuple(getattr(working, name) for name in names)


def remembered(run: Any) -> dict[str, Any]:
    """Everything that decides how a run goes on, but for the venue."""
    return {symbol: _of_market(run, parts) for symbol, parts in run.parts.items()}


def _of_market(run: Any, parts: Any) -> dict[str, Any]:
    state, table = parts.state, run.orders._table
    plain = ("bid", "ask", "mid", "bid_size", "ask_size", "changed", "has_gap", "last_ts_ns", "last_book_ts_ns")
    timers = ("timer_due_ns", "timer_is_queued", "last_seq")
    market = run.orders._markets.get(parts.market_id)
    account = run.account
    places = [] if market is None else [market.bid, market.ask, market.exit]
    calm = (
        None
        if market is None
        else (market.calm_until_ms, market.is_bid_off, market.is_ask_off, market.buys_usd, market.sells_usd)
    )
    return {
        "state": {name: getattr(state, name) for name in (*plain, *timers)},
        "row": state.row.tobytes(),
        "rolling": state.builder.snapshot(),
        "queue": [(due, silent.symbol) for due, _, silent in run.timers._heap],
        "risk": parts.risk.snapshot(),
        "held": {name: msgspec.structs.astuple(each) for name, each in parts.positions._open.items()},
        "throttled": parts.is_throttled,
        "places": [(_working(place.working), place.blocked_until_ms, place.side) for place in places],
        "sent": {} if market is None else market.last_sent,
        "replaced": [] if market is None or not run.orders._max_replacements else list(market.replaced_ms),
        "calm": calm if calm is None or calm[0] > -math.inf else calm[3:],
        "stopped": run.orders._is_stopped,
        "live": list(table.live),
        "closed": [(name, _working(each)) for name, each in table._closed.items()],
        "unsettled": [(name, each.lookup_ms) for name, each in table._unsettled.items()],
        "money": [getattr(account, name) for name in ("equity", "peak", "unrealized", "max_drawdown", "cash")],
        "counts": (account.open_count, account.close_count, account._settled),
        "marks": (
            account._marks,
            account._terms,
            account._places,
            vars_of(account._unrealized),
            vars_of(account._exposure),
        ),
        "holdings": {
            name: (each.qty, each.cost, each.realized, each.fees, each.trip_pnl, each.avg_price)
            for name, each in account.positions._holdings.items()
        },
        "sequence": (run._sequence, run._now_ns),
    }


def assert_same(native: Played, python: Played) -> None:
    assert native.summary == python.summary
    assert native.venue == python.venue
    if native.parts is not None and python.parts is not None:
        assert native.parts == python.parts


def pair(
    monkeypatch: pytest.MonkeyPatch,
    source: Callable[[], Any],
    broker: Callable[[], PaperBroker],
    at: int | None,
    *,
    steps: int | None = None,
    engine: Callable[[PaperBroker], Any] | None = None,
    **options: Any,
) -> tuple[Played, Played]:
    """Run natively up to the `at`-th event (None: throughout), and in Python. `engine` makes one for each run."""
    monkeypatch.setenv(STEP_VARIABLE, "auto")

    def make(venue: PaperBroker) -> Any:
        return source() if at is None else Looking(source(), venue, at)

    native = Played(make, broker(), steps, engine=engine, **options)
    monkeypatch.setenv(STEP_VARIABLE, "python")
    python = Played(make, broker(), steps, engine=engine, **options)
    monkeypatch.delenv(STEP_VARIABLE)
    assert native.run._native is not None
    assert python.run._native is None
    return native, python


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


# Models in Python. ----------------------------------------------------------------------------------------------------


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
            lambda: ListedSource(_books(60), _INSTRUMENT),
            lambda: PaperBroker(_INSTRUMENT),
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
            ListedSource([*_books(30), *_books(5, start_ms=3_000)], _INSTRUMENT),
            PaperBroker(_INSTRUMENT),
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
        ends.append({k: v for k, v in run.finish(reason).items() if k not in _NOT_COMPARED} | {"calls": calls})
    assert ends[0] == ends[1]
    assert ends[0]["controls_obeyed"] == (0 if stops else 1)
    assert ends[0]["timer_count"] >= 3


@pytest.mark.parametrize("at", [None, 20])
def test_a_model_does_not_outlive_its_run(monkeypatch: pytest.MonkeyPatch, at: int | None) -> None:
    monkeypatch.setenv(STEP_VARIABLE, "auto")
    broker = PaperBroker(_INSTRUMENT)
    model = Moody(3, 0.01, PLAIN, broker=broker, at=at)
    kept = weakref.ref(model)
    engine = DecisionEngine(model=model)
    run_loop(source=ListedSource(_books(60), _INSTRUMENT), broker=broker, trace=False, decision_engine=engine)
    assert model.calls == 60
    del model, broker, engine
    gc.collect()
    assert kept() is None


def test_a_run_that_never_ends_is_let_go_with_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STEP_VARIABLE, "auto")
    model = Moody(3, 0.01, PLAIN)
    kept = weakref.ref(model)
    source = ListedSource(_books(60), _INSTRUMENT)
    run = assemble(
        source,
        PaperBroker(_INSTRUMENT),
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
        broker = PaperBroker(_INSTRUMENT)
        calls = [0]

        def model(features: Any, broker: PaperBroker = broker, calls: list[int] = calls) -> Proposal:
            calls[0] += 1
            params: dict[Any, Any] = {"bid_quote": 0.48, "ask_quote": 0.52, "size_usd": 3.0}
            if calls[0] == 20:
                looking = _Looking(broker)
                params = {looking: 1, **params} if place == "key" else {**params, "mine": looking}
            return Proposal(Action.ACT, 1.0, ["r"], params)

        source = ListedSource(_books(60), _INSTRUMENT)
        summary = run_loop(source=source, broker=broker, trace=False, decision_engine=DecisionEngine(model=model))
        ends.append({k: v for k, v in summary.items() if k not in _NOT_COMPARED} | {"state": broker.get_state()})
    assert ends[0] == ends[1]
    assert ends[0]["steps"] == 60


def test_what_a_model_throws_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(features: Any) -> Any:
        raise KeyboardInterrupt

    for mode in ("auto", "python"):
        monkeypatch.setenv(STEP_VARIABLE, mode)
        run = assemble(
            ListedSource(_books(30), _INSTRUMENT),
            PaperBroker(_INSTRUMENT),
            should_stop=lambda: False,
            trace=False,
            decision_engine=DecisionEngine(model=interrupted),
        )
        with pytest.raises(KeyboardInterrupt):
            run.drive(None, StopSignal())
        assert run.finish("interrupted")["steps"] == 0


# What is not covered, event by event. ---------------------------------------------------------------------------------

_INSTRUMENT = Instrument("X", tick_size=0.01)
_MS = 1_000_000


def _books(count: int, symbol: str = "X", start_ms: int = 1_000) -> list[Any]:
    return [
        BookSnapshot(0, (start_ms + 20 * i) * _MS, symbol, i + 1, 0.49, 0.51, 60.0 + i % 3, 20.0) for i in range(count)
    ]


def _events_with(special: Any, at: int = 20) -> list[Any]:
    events = _books(60)
    events[at:at] = special if isinstance(special, list) else [special]
    return events


_AT_NS = (1_000 + 20 * 20 - 10) * _MS
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
        BookSnapshot(0, 2**63 - 1 - late, "X", 1, 0.49, 0.51, 60.0, 20.0) for late in (50 * _MS, 0)
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
        listed = Scripted(_events_with(special(), 0 if first else 20), _INSTRUMENT)
        listed.snapshots_only = not with_books
        return listed

    for bad in ("skip", "stop"):
        native, python = pair(
            monkeypatch, source, lambda: PaperBroker(_INSTRUMENT), None, on_bad_event=bad, source_backoff_ms=0.0
        )
        assert_same(native, python)


@pytest.mark.parametrize("start_ms", [1, 400, 1_700_000_000_000])
def test_after_a_gap_nothing_is_quoted_whatever_the_time(monkeypatch: pytest.MonkeyPatch, start_ms: int) -> None:
    def book(at_ms: int) -> BookSnapshot:
        return BookSnapshot(0, (start_ms + at_ms) * _MS, "X", 0, 0.49, 0.51, 60.0, 20.0)

    gap = FeedGap(0, (start_ms + 10) * _MS, "X")
    trade = Trade(0, (start_ms + 20) * _MS, "X", 0, 0.5, 1.0, 1)
    native, python = pair(
        monkeypatch,
        lambda: ListedSource([book(0), gap, trade, book(30)], _INSTRUMENT),
        lambda: PaperBroker(_INSTRUMENT),
        None,
    )
    assert_same(native, python)
    assert native.summary["mismatch_reason_counts"]["staleness_exceeded"] == 2
    assert native.summary["hold_reason_counts"]["staleness_exceeded"] == 2


def test_deltas_and_tickers_are_folded_in_python_and_decided_in_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    book = BookSnapshot(0, _MS, "X", 10, 0.49, 0.51, 0.0, 0.0, [(0.49, 60.0)], [(0.51, 20.0), (0.52, 5.0)])
    events: list[Any] = [book]
    for i in range(200):
        ts_ns = (2 + 30 * i + 400 * (i % 7 == 0)) * _MS + 450 * _MS * (i // 7)
        if i % 5 == 4:
            events.append(BookTicker(0, ts_ns, "X", 11 + i, 0.49, 50.0 + i, 0.51, 7.0))
        elif i % 50 == 7:
            events.append(BookDelta(0, ts_ns, "X", 500 + i, 400 + i, 0, [(0.49, 1.0)], []))  # something was lost
            events.append(msgspec.structs.replace(book, recv_ts_ns=ts_ns, seq=11 + i))
        else:
            events.append(BookDelta(0, ts_ns, "X", 11 + i, 11 + i, 0, [(0.48, 3.0 + i % 4)], [(0.52, 1.0 + i % 3)]))

    def source() -> Any:
        listed = ListedSource(events, _INSTRUMENT)
        listed.snapshots_only = False
        return listed

    for at in (None, 50, 120):
        native, python = pair(monkeypatch, source, lambda: PaperBroker(_INSTRUMENT), at)
        assert_same(native, python)
        assert native.summary["timer_count"] > 10
        assert native.summary["rejected_events"]


def test_sequence_numbers_are_checked_where_the_source_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    events = _books(30)
    events.insert(12, events[11])
    events.insert(20, msgspec.structs.replace(events[18], seq=0))

    def source() -> Any:
        listed = ListedSource(events, _INSTRUMENT)
        listed.unique_seq = frozenset({"book"})
        return listed

    for at in (None, 5, 12, 13):
        native, python = pair(monkeypatch, source, lambda: PaperBroker(_INSTRUMENT), at)
        assert_same(native, python)
        assert native.summary["rejected_events"] == {"duplicate_seq": 1, "time_backwards": 1}


@pytest.mark.parametrize("seq", [2**64, 150.0])
@pytest.mark.parametrize("first", [False, True])
def test_a_sequence_number_that_the_core_cannot_hold_is_left_to_python(
    monkeypatch: pytest.MonkeyPatch, seq: Any, first: bool
) -> None:
    def source() -> Any:
        listed = ListedSource(_events_with(BookSnapshot(0, _MS, "X", seq, 0.49, 0.51, 60.0, 20.0), 0), _INSTRUMENT)
        if not first:
            events = [msgspec.structs.replace(event, seq=i + 1) for i, event in enumerate(_events_with([]))]
            events[20] = msgspec.structs.replace(events[20], seq=seq)
            listed = ListedSource(events, _INSTRUMENT)
        listed.unique_seq = frozenset({"book"})
        return listed

    native, python = pair(monkeypatch, source, lambda: PaperBroker(_INSTRUMENT), None)
    assert_same(native, python)
    assert native.summary["rejected_events"]["duplicate_seq"] >= 39


@pytest.mark.parametrize("special", ["quotes", "timers"])
def test_a_quote_of_very_many_ticks_gives_the_same(monkeypatch: pytest.MonkeyPatch, special: str) -> None:
    events = _books(30) if special == "quotes" else [*_books(30), *_books(30, start_ms=5_000)]
    for bid in (3e16, 1e17, 1e30):
        native, python = pair(
            monkeypatch,
            lambda: ListedSource(events, _INSTRUMENT),
            lambda: PaperBroker(_INSTRUMENT),
            None,
            decision_engine=DecisionEngine(model=_quoting(bid, 0.48)),
        )
        assert_same(native, python)
        is_handed_over = native.parts is not None
        assert is_handed_over == (bid > 0.01 * 2**62)


def test_a_timer_of_centuries_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    events = _books(30, start_ms=1_700_000_000_000)
    native, python = pair(
        monkeypatch, lambda: ListedSource(events, _INSTRUMENT), lambda: PaperBroker(_INSTRUMENT), None, timer_ms=9e12
    )
    assert_same(native, python)


def test_a_stop_during_a_long_silence_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silence has a timer every millisecond here until it is stale: half a million of them."""

    class Stopping(ListedSource):
        stop = StopSignal()

        def next_event(self) -> Any:
            event = super().next_event()
            if event.recv_ts_ns >= 500_000 * _MS:
                self.stop.reason = "interrupted"
            return event

    monkeypatch.setenv(STEP_VARIABLE, "auto")
    source = Stopping([*_books(5), *_books(5, start_ms=500_000)], _INSTRUMENT)
    run = assemble(
        source,
        PaperBroker(_INSTRUMENT),
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
        run_loop(source=ListedSource([], _INSTRUMENT), broker=PaperBroker(), trace=False, start_cash=cash)


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
        for event, depth in zip(_books(len(depths)), depths, strict=True)
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
    events.append(Trade(0, events[-1].recv_ts_ns + _MS, "X", 2, 0.47, 5.0, -1))
    events += _books(10, start_ms=3_000)
    native, python = pair(
        monkeypatch,
        lambda: ListedSource(events, _INSTRUMENT),
        PaperBroker,
        None,
        decision_engine=DecisionEngine(model=_quoting(0.48, 0.48)),
    )
    assert_same(native, python)
    assert native.summary["fills_count"] > 0
    assert native.run._native._is_over


@pytest.mark.parametrize("steps", [0, 1, 7, 60, 61])
def test_a_bound_on_the_steps_holds(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    events = _books(60)
    results = []
    for mode in ("auto", "python"):
        monkeypatch.setenv(STEP_VARIABLE, mode)
        source, broker = ListedSource(events, _INSTRUMENT), PaperBroker(_INSTRUMENT)
        summary = run_loop(source=source, broker=broker, steps=steps, trace=False)
        results.append({key: value for key, value in summary.items() if key not in _NOT_COMPARED})
        left = len(list(iter(source.next_event, None)))
        assert left == max(0, 60 - steps)
    assert results[0] == results[1]


def test_progress_is_told_and_may_look_at_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    events = _books(2_500)
    seen: dict[str, list[Any]] = {}
    for mode in ("auto", "python"):
        monkeypatch.setenv(STEP_VARIABLE, mode)
        broker = PaperBroker(_INSTRUMENT)
        told = seen.setdefault(mode, [])
        run_loop(
            source=ListedSource(events, _INSTRUMENT),
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
        ListedSource(_books(5_000), _INSTRUMENT), PaperBroker(_INSTRUMENT), should_stop=lambda: False, trace=False
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

    broker = Counting(_INSTRUMENT)
    summary = run_loop(source=ListedSource(_books(60), _INSTRUMENT), broker=broker, trace=False)
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
    run_loop(source=ListedSource(events, _INSTRUMENT), broker=PaperBroker(_INSTRUMENT), trace=False)
    assert calls


def test_a_broker_may_be_copied_after_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STEP_VARIABLE, "auto")
    broker = PaperBroker(_INSTRUMENT)
    run_loop(source=ListedSource(_books(60), _INSTRUMENT), broker=broker, trace=False)
    copied = copy.deepcopy(broker)
    assert copied.get_state() == broker.get_state()
    assert vars(copied)["_orders_seen"] > 0


def test_numbers_of_numpy_are_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Any] = []
    for i in range(80):
        ts_ns = (1_000 + 20 * i) * _MS
        if i % 4 == 3:
            events.append(Trade(0, ts_ns, "X", i, np.float64(0.49), np.float64(30.0), np.int8(-1)))  # type: ignore[arg-type]
            continue
        bids, asks = np.array([[0.49, 60.0], [0.48, 7.0]]), np.array([[0.51, 20.0 + i % 3], [0.52, 9.0]])
        events.append(BookSnapshot(0, ts_ns, "X", i, np.float64(0.49), 0.51, 0.0, 0.0, bids, asks))  # type: ignore[arg-type]
    native, python = pair(
        monkeypatch, lambda: ListedSource(events, _INSTRUMENT), lambda: PaperBroker(_INSTRUMENT), None
    )
    assert_same(native, python)
    assert native.summary["fills_count"] > 0
    assert native.parts is None  # no hand-over
