"""What the core writes of guards that fire is what the Python step writes, to the byte: every code and value."""

from __future__ import annotations

import collections
import random
from pathlib import Path
from typing import Any

import pytest

from ami_engine.backtest import CompiledModel
from ami_engine.backtest.core import compiled_core
from ami_engine.config import ExitConfig, QuotingConfig
from ami_engine.dmc import RiskPolicy, modulate
from ami_engine.dmc.context import NUMBER_KEYS
from ami_engine.features.schema import SCHEMA_HASH
from ami_engine.loop.native_log import NativeLog
from ami_engine.loop.native_values import policy_values
from ami_engine.mdm.decision_engine import DecisionEngine
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.trace import read_packets
from ami_engine.units import Instrument
from decision_schema.types import Action
from tests.backtest.conftest import ListedSource, rough_market
from tests.backtest.test_compiled import a_judgement, restless

from .recorded import FORMS, Recorded, assert_same, pair

_core = pytest.importorskip("ami_engine._core")

_MS = 1_000_000
_INSTRUMENT = Instrument("X", tick_size=0.01, lot_size=0.001, maker_fee_bps=1.0, taker_fee_bps=5.0)
# Nothing fires under these limits but what the market itself brings: one-sided books, silence.
_WIDE: dict[str, Any] = {
    "min_depth": 0.0,
    "max_per_market_usd": 1e6,
    "max_total_exposure_usd": 1e7,
    "max_abs_inventory": 1e9,
    "max_spread_bps": 1e6,
    "sigma_5m_max": 0.0,
    "daily_loss_stop_usd": 1e9,
    "adv15_max_ticks": 1e6,
    "adv60_max_ticks": 1e6,
    "sigma_spike_z_max": 1e6,
    "cancel_rate_limit": 10**6,
    "staleness_ms": 10**9,
    "error_rate_max": 1.0,
}
# A code, and the limits under which it is given.
_TIGHT: dict[str, dict[str, Any]] = {
    "staleness_exceeded": {"staleness_ms": 100},
    "insufficient_depth": {"min_depth": 5.0, "min_depth_p10_market": 4.0},
    "spread_too_wide": {"max_spread_bps": 20.0},
    "one_sided_book": {},
    "regime_volatile": {"sigma_5m_max": 1e-4},
    "regime_wide": {"spread_med_5m_max_bps": 30.0},
    "regime_thin": {"depth_p10_5m_min": 30.0},
    "total_exposure_exceeded": {"max_total_exposure_usd": 30.0, "exposure_headroom_frac": 1.0},
    "exposure_limit": {"max_total_exposure_usd": 60.0},
    "size_clamped": {"max_per_market_usd": 10.0},
    "inventory_limit": {"max_abs_inventory": 0.5},
    "cancel_rate_exceeded": {"cancel_rate_limit": 2, "cancel_window_ms": 500, "throttle_refresh_ms": 70},
    "daily_loss_stop": {"daily_loss_stop_usd": 0.01},
    "error_rate_exceeded": {"error_rate_max": 0.0, "error_window_steps": 30},
    "adverse_selection_15": {"adv15_max_ticks": 0.0, "adverse_cooldown_ms": 2_000},
    "adverse_selection_60": {"adv60_max_ticks": 0.0, "adverse_window_ms": 100_000},
    "sigma_spike": {"sigma_spike_z_max": 0.5},
    "insufficient_profit_potential": {"min_profit_ticks": 0.5},
    "loss_streak": {"max_consecutive_losses": 1, "streak_cooldown_ms": 3_000},
    "drawdown_stop": {"max_drawdown_stop_usd": 0.2},
    "equity_floor": {"equity_floor_usd": 49.9},
    "throttle_active": {"cancel_rate_limit": 2, "cancel_window_ms": 500, "throttle_refresh_ms": 2_000},
    "post_fill_cooldown": {},
    "quote_budget": {"quote_cap_per_window": 3, "quote_budget_cooldown_ms": 900},
    "max_open_orders": {"max_open_orders": 1},
    "max_active_markets": {"max_active_markets": 1},
    "below_min_order": {"min_order_usd": 15.0, "max_per_market_usd": 14.0},
    "no_inventory_to_exit": {},
    "kill_switch": {},
}


@pytest.fixture
def left_to_python(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    made: set[int] = set()
    whole = NativeLog.log_step

    def counted(self: NativeLog, event: Any, *, is_timer: bool) -> None:
        made.add(self._stepper.sequence - 1)
        whole(self, event, is_timer=is_timer)

    monkeypatch.setattr(NativeLog, "log_step", counted)
    return made


def _both(folder: Path, events: list[Any], form: str, **options: Any) -> tuple[Recorded, Recorded]:
    return pair(
        folder,
        lambda: ListedSource(events, _INSTRUMENT),
        lambda: PaperBroker(_INSTRUMENT, cash=50.0),
        trace=form,
        start_cash=50.0,
        timer_ms=100.0,
        **options,
    )


def _fired(native: Recorded, left: set[int]) -> collections.Counter[str]:
    """The codes of the packets that the core wrote."""
    codes: collections.Counter[str] = collections.Counter()
    for packet in read_packets(native.folder):
        if packet.step not in left and packet.mismatch is not None:
            codes.update(packet.mismatch["reason_codes"])
    return codes


def test_every_finding_is_told_as_its_definition_tells_it() -> None:
    core = compiled_core()
    draw = random.Random(8)
    seen: collections.Counter[str] = collections.Counter()
    for _ in range(6_000):
        policy, context, proposal, size = a_judgement(draw)
        final, mismatch = modulate(proposal, policy, context)
        values = {key: getattr(context, key) for key in NUMBER_KEYS} | {"has_market": True, "latched": context.latched}
        *_, (found, throttle_ms, cooldown_ms) = core.judge(
            policy_values(policy), list(Action).index(proposal.action), size is not None, size or 0.0, values
        )
        told: dict[str, list[dict[str, Any]]] = {}
        for flag, code, value, limit, action in found:
            seen[code] += 1
            told.setdefault(flag, []).append({"code": code, "value": value, "limit": limit, "action": action})
        theirs = {} if mismatch.metadata is None else mismatch.metadata["guards"]
        assert list(told) == list(theirs)
        for flag, ours in told.items():
            lead, others = {k: v for k, v in theirs[flag].items() if k != "also"}, theirs[flag].get("also", [])
            # As text: NaN is not equal to itself, and 5 is not to be 5.0.
            assert sorted(map(repr, ours)) == sorted(map(repr, [lead, *others]))
        assert (throttle_ms or None, cooldown_ms or None) == (final.throttle_ms, final.cooldown_ms)
    # An operator's denial is no part of a run that the core steps.
    assert set(core.REASON_CODES) - set(seen) == {"ops_denied"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("code", _TIGHT)
def test_the_core_writes_every_guard_as_python_does(
    tmp_path: Path, code: str, form: str, left_to_python: set[int]
) -> None:
    seen = 0
    for seed in range(1, 9):
        left_to_python.clear()
        native, python = _both(
            tmp_path / str(seed),
            rough_market(seed, _INSTRUMENT, 300),
            form,
            decision_engine=DecisionEngine(model=CompiledModel(restless(0.01), schema_hash=SCHEMA_HASH, params=[30.0])),
            risk_policy=RiskPolicy(**{**_WIDE, **_TIGHT[code]}),
            quoting=QuotingConfig(post_fill_cooldown_ms=700 if code == "post_fill_cooldown" else 0),
            exits=ExitConfig(tp_ticks=3.0, sl_ticks=3.0),
        )
        assert_same(native, python)
        seen += _fired(native, left_to_python)[code]
        if seen:
            return
    pytest.fail(f"the core wrote no packet with {code}")
