"""Two runs of one source, natively and in Python, and everything that has to be the same in both."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ami_engine.adapters.base import MarketDataSource
from ami_engine.events import BookSnapshot
from ami_engine.loop.assemble import assemble
from ami_engine.loop.feed import FeedEnd
from ami_engine.loop.native_run import STEP_VARIABLE
from ami_engine.loop.shutdown import StopSignal
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.units import Instrument

INSTRUMENT = Instrument("X", tick_size=0.01)
MS = 1_000_000
# What tells of wall time.
NOT_COMPARED = {"latency_us", "events_per_s"}
STEPS = 160


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
        self.summary = {k: v for k, v in self.run.finish(reason).items() if k not in NOT_COMPARED}
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
    pytest.importorskip("ami_engine._core", reason="needs the compiled core")
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


def listed_books(count: int, symbol: str = "X", start_ms: int = 1_000) -> list[Any]:
    return [
        BookSnapshot(0, (start_ms + 20 * i) * MS, symbol, i + 1, 0.49, 0.51, 60.0 + i % 3, 20.0) for i in range(count)
    ]
