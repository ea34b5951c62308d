"""A run over many symbols: what is counted over all of them is what counting them all anew would give."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from ami_engine.adapters import MarketDataSource
from ami_engine.dmc import RiskPolicy, modulate
from ami_engine.events import BookSnapshot
from ami_engine.features import FeatureConfig, available_backends
from ami_engine.loop.run_loop import run_loop
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.units import Instrument

POLICY = RiskPolicy(
    max_total_exposure_usd=1e9, max_per_market_usd=1e6, daily_loss_stop_usd=1e9, cancel_rate_limit=10**6, min_depth=0.0
)
CONFIG = FeatureConfig(tick_size=0.1, vol_window=5, window_5m_steps=20, sigma_short_steps=3, sigma_long_steps=9)


class Quotes(MarketDataSource):
    """Quotes of many symbols in turn, each of them a walk of its own; in a third of them a symbol is left out."""

    snapshots_only = True
    identity = "many"

    def __init__(self, symbols: int, events: int) -> None:
        draw = np.random.Generator(np.random.PCG64(symbols))
        self._names = [f"S{number}" for number in range(symbols)]
        self._bid = (1_000 + draw.integers(-100, 100, symbols)).tolist()
        self._moves = draw.integers(-2, 3, events).tolist()
        self._skips = (draw.random(events) < 0.3).tolist()
        self._depths = draw.exponential(40.0, (events, 2)).tolist()
        self._at = 0

    def next_event(self) -> BookSnapshot | None:
        while self._at < len(self._moves) and self._skips[self._at]:
            self._at += 1
        if self._at == len(self._moves):
            return None
        at, self._at = self._at, self._at + 1
        symbol = at % len(self._names)
        self._bid[symbol] += self._moves[at]
        bid, ts_ns = self._bid[symbol] / 10.0, 10**18 + at * 1_000_000
        return BookSnapshot(ts_ns, ts_ns, self._names[symbol], 0, bid, round(bid + 0.1, 1), *self._depths[at])

    def instruments(self) -> Mapping[str, Instrument]:
        return {name: Instrument(name, tick_size=0.1, lot_size=0.001, maker_fee_bps=1.0) for name in self._names}


@pytest.mark.parametrize("symbols", [1, 2, 40])
def test_active_markets_and_exposure_are_those_of_the_venue(symbols: int) -> None:
    source = Quotes(symbols, 3_000)
    broker = PaperBroker(instruments=source.instruments(), cash=1e9)
    mids: dict[str, float] = {}
    seen: list[tuple[int, int, float, float]] = []

    def judge(proposal: Any, policy: RiskPolicy, context: Any) -> Any:
        state = broker.get_state()
        held = {name: qty for name, qty in state["positions"].items() if qty != 0.0}
        active = held.keys() | {order["market_id"] for order in state["open_orders"]}
        exposure = math.fsum(abs(qty) * mids[name] for name, qty in held.items())
        seen.append((context.active_markets, len(active), context.current_total_exposure_usd, exposure))
        return modulate(proposal, policy, context)

    class Watched(Quotes):
        def next_event(self) -> BookSnapshot | None:
            event = super().next_event()
            if event is not None:
                mids[event.symbol] = (event.bid + event.ask) / 2.0
            return event

    options: dict[str, Any] = {"risk_policy": POLICY, "feature_config": CONFIG, "start_cash": 1e9, "trace": False}
    summary = run_loop(source=Watched(symbols, 3_000), broker=broker, modulator=judge, timer_ms=0.0, **options)
    assert summary["fills_count"] > 20
    assert max(active for active, *_ in seen) > 0.9 * symbols
    assert {active == counted for active, counted, _, _ in seen} == {True}
    assert [exposure for _, _, exposure, _ in seen] == pytest.approx([sum_ for *_, sum_ in seen], rel=1e-12)


def test_timers_of_many_symbols_come_in_their_order_and_as_often_as_for_one() -> None:
    """Each silent symbol gets its timers until it is stale, in the order of time, whatever the others do."""
    ages: list[int] = []
    times: list[int] = []

    def judge(proposal: Any, policy: RiskPolicy, context: Any) -> Any:
        times.append(context.now_ms)
        ages.append(context.now_ms - context.last_event_ts_ms)
        return modulate(proposal, policy, context)

    source = Quotes(50, 2_000)
    broker = PaperBroker(instruments=source.instruments(), cash=1e9)
    options: dict[str, Any] = {"risk_policy": POLICY, "feature_config": CONFIG, "trace": False}
    summary = run_loop(source=source, broker=broker, modulator=judge, timer_ms=20.0, **options)
    assert times == sorted(times)
    # An event every 50 ms or later a symbol: two timers at least in between, at 20 and 40 ms of silence.
    assert len(times) - summary["steps"] >= 2 * (summary["steps"] - 50)
    assert {age % 20 for age in ages} == {0}


@pytest.mark.slow
def test_ten_thousand_symbols_in_one_run() -> None:
    if available_backends()["native"]:
        pytest.skip("10 000 symbols take minutes without the compiled core")
    source = Quotes(10_000, 20_000)
    broker = PaperBroker(instruments=source.instruments(), cash=1e9)
    options: dict[str, Any] = {"risk_policy": POLICY, "feature_config": CONFIG, "trace": False}
    summary = run_loop(source=source, broker=broker, timer_ms=0.0, **options)
    assert summary["stopped_reason"] == "source_exhausted"
    assert summary["error_count"] == 0
    assert summary["steps"] > 13_000
    assert summary["orders_submitted"] > 1_000
    assert len(broker.fetch_open_orders()) == 0
