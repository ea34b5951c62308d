"""Compiled decisions are the Python loop's, to the bit: over recorded feeds, rough markets and every guard."""

from __future__ import annotations

import ctypes
import random
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ami_engine.backtest import CompiledModel, EventTable, run_compiled, table_from_source
from ami_engine.backtest.core import compiled_core
from ami_engine.config import ExitConfig, QuotingConfig
from ami_engine.dmc import RiskPolicy, modulate
from ami_engine.dmc.context import NUMBER_KEYS, GuardContext
from ami_engine.dmc.guards import GUARDS
from ami_engine.errors import BackendError, ConfigError
from ami_engine.events import BookSnapshot, Trade
from ami_engine.features import FeatureBuilder, FeatureConfig
from ami_engine.features.schema import FEATURE_INDEX, SCHEMA_HASH
from ami_engine.loop import native_values as core_module
from ami_engine.loop.assemble import PROVIDED_CONTEXT
from ami_engine.loop.native_values import policy_values
from ami_engine.mdm.decision_engine import DecisionEngine
from ami_engine.mdm.reference_model import compute_proposal_reference
from ami_engine.sim.microstructure_sim import MicrostructureSim
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.sim.synthetic_source import SyntheticSource
from ami_engine.units import Instrument
from decision_schema.types import Action, Proposal
from tests.feeds.conftest import FEEDS, SHIPPED, Feed, open_feed

from .conftest import ListedSource, assert_equal_ends, assert_same, rough_market, run_recorded, told, watch

# Of the longest feed this is half, and more than until its daily loss stop.
_MOST_STEPS = 45_000
_SIGNATURE = ctypes.CFUNCTYPE(
    ctypes.c_int32,
    ctypes.POINTER(ctypes.c_double),
    ctypes.c_int64,
    ctypes.POINTER(ctypes.c_double),
    ctypes.POINTER(ctypes.c_double),
)


def synthetic(events: int = 3_000, seed: int = 42) -> SyntheticSource:
    return SyntheticSource(MicrostructureSim(mid=0.5, spread=0.01, seed=seed), num_events=events)


# The Python loop. -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("feed", FEEDS.values(), ids=FEEDS.keys())
def test_a_recorded_feed_gives_the_same_decisions_fills_and_money(feed: Feed, data_dir: Path) -> None:
    policy = RiskPolicy.from_toml(SHIPPED / f"{feed.policy}.policy.toml")

    def model(features: Any) -> Proposal:
        return compute_proposal_reference(features, max_size_usd=feed.max_size_usd)

    source = open_feed(data_dir, feed)
    broker = PaperBroker(instruments=source.instruments())
    engine = DecisionEngine(model=model)
    python = watch(source, broker, decision_engine=engine, risk_policy=policy, steps=_MOST_STEPS)
    table = table_from_source(open_feed(data_dir, feed), steps=_MOST_STEPS)
    params = {"max_size_usd": feed.max_size_usd}
    result = run_recorded(table, policy=policy, model_params=params, steps=_MOST_STEPS)
    assert_same(result, python)
    assert python.summary["steps"] == min(feed.steps, _MOST_STEPS)
    assert python.summary["fills_count"] > 0


@pytest.mark.parametrize("venue_grid", [True, False])
@pytest.mark.parametrize("queue", ["back", "front", "prob"])
def test_a_simulated_market_gives_the_same(queue: Any, venue_grid: bool) -> None:
    table = table_from_source(synthetic())
    instrument = table.instrument if venue_grid else None
    python = watch(synthetic(), PaperBroker(instrument, queue=queue, seed=5))
    assert_same(run_recorded(table, queue=queue, seed=5, venue_grid=venue_grid), python)
    assert python.summary["fills_count"] > 100
    assert python.summary["timer_count"] > 100


@pytest.mark.parametrize("options", [{"steps": 0}, {"steps": 700}, {"dry_run": True}, {"timer_ms": 0.0}])
def test_the_options_of_a_run_mean_the_same(options: dict[str, Any]) -> None:
    table = table_from_source(synthetic(1_000))
    python = watch(synthetic(1_000), PaperBroker(table.instrument), start_cash=7.0, **options)
    assert_same(run_recorded(table, start_cash=7.0, **options), python)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**9))
def test_rough_markets_under_any_limits_give_the_same(seed: int) -> None:
    draw = random.Random(seed)
    instrument = Instrument(
        "X",
        tick_size=draw.choice([0.01, 0.1, 0.25, 0.3, 0.005, 0.07, 1.0]),
        lot_size=draw.choice([0, 0.001, 1.0, 0.3, 1e-5]),
        min_qty=draw.choice([0, 0, 0.001]),
        min_notional=draw.choice([0, 0, 5.0]),
        multiplier=draw.choice([1.0, 50.0, 0.1]),
        kind=draw.choice(["linear", "linear", "inverse"]),
        maker_fee_bps=draw.choice([0, -0.5, 2.0]),
        taker_fee_bps=draw.choice([0, 5.0, 4.35]),
    )
    events = rough_market(seed, instrument, draw.choice([200, 600]))
    scale = draw.choice([1.0, 30.0, 1_000.0])
    policy, quoting, exits = limits(draw, scale)
    config = FeatureConfig(
        tick_size=instrument.tick_size,
        levels=draw.choice([3, 10]),
        window_5m_steps=draw.choice([20, 300, None]),
        window_5m_ms=draw.choice([5_000.0, 60_000.0]),
    )
    queue, grid = draw.choice(["back", "front", "prob"]), draw.random() < 0.8
    options: dict[str, Any] = {"start_cash": draw.choice([0.0, 60.0]), "timer_ms": draw.choice([0.0, 100.0, 37.0])}
    if draw.random() < 0.5:
        model = CompiledModel(restless(instrument.tick_size), schema_hash=SCHEMA_HASH, params=[3.0 * scale])
        engine, chosen = DecisionEngine(model=model), {"model": model}
    else:
        params = {"imbalance_threshold": 0.0, "max_size_usd": 8.0 * scale, "confidence_threshold": 0.2}
        engine = DecisionEngine(model=lambda features: compute_proposal_reference(features, **params))
        chosen = {"model_params": params}
    python = watch(
        ListedSource(events, instrument),
        PaperBroker(instrument if grid else None, queue=queue, seed=7),
        decision_engine=engine,
        risk_policy=policy,
        quoting=quoting,
        exits=exits,
        feature_config=config,
        **options,
    )
    table = table_from_source(ListedSource(events, instrument), levels=12)
    result = run_recorded(
        table,
        config=config,
        policy=policy,
        quoting=quoting,
        exits=exits,
        queue=queue,
        seed=7,
        venue_grid=grid,
        **chosen,
        **options,
    )
    assert_same(result, python)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**9))
def test_a_table_of_quotes_alone_gives_the_same(seed: int) -> None:
    """Such a table has a way of its own, which leaves out places in queues, and money while it stands still."""
    draw = random.Random(seed)
    instrument = Instrument(
        "X",
        tick_size=draw.choice([0.01, 0.1, 0.25, 0.07]),
        lot_size=draw.choice([0, 0.001, 1.0]),
        multiplier=draw.choice([1.0, 50.0]),
        kind=draw.choice(["linear", "linear", "inverse"]),
        maker_fee_bps=draw.choice([0, -0.5, 2.0]),
        taker_fee_bps=draw.choice([0, 4.35]),
    )
    quotes = wandering_quotes(draw, instrument, draw.choice([400, 2_000]))
    scale = draw.choice([1.0, 30.0, 1_000.0])
    policy, quoting, exits = limits(draw, scale)
    options = {
        "config": FeatureConfig(tick_size=instrument.tick_size, window_5m_steps=50, window_5m_ms=None),
        "policy": policy,
        "quoting": quoting,
        "exits": exits,
        "instrument": instrument,
        "queue": draw.choice(["back", "front", "prob"]),
        "start_cash": draw.choice([0.0, 60.0, 1e6]),
        "timer_ms": draw.choice([0.0, 100.0]),
        "market_id": "X",
        "model_params": {"imbalance_threshold": 0.0, "max_size_usd": 8.0 * scale, "confidence_threshold": 0.2},
    }
    any_event = run_recorded(quotes | {"kind": np.zeros(len(quotes["bid"]), dtype=np.int64)}, **options)
    result = run_recorded(quotes, **options)
    assert_equal_ends(result, any_event)
    assert told(result) == told(any_event)


def wandering_quotes(draw: random.Random, instrument: Instrument, rows: int) -> dict[str, Any]:
    """Quotes that wander, jump, stand still and cross midnight; some are refused."""
    ts_ns = draw.choice([1_700_000_000_000_000_000, 19_001 * 86_400_000_000_000 - 20_000_000_000])
    ticks, columns = (
        draw.choice([1_000, 60_000]),
        {name: [] for name in ("ts_ns", "bid", "ask", "bid_depth", "ask_depth")},
    )
    for _ in range(rows):
        ts_ns += draw.choice([0, 1_000_000, 50_000_000, 50_000_000, 400_000_000])
        ticks += draw.choice([-40, -2, -1, -1, 0, 0, 0, 0, 1, 1, 2, 40] if draw.random() < 0.3 else [0, 0, 1, -1])
        width = draw.choice([1, 1, 1, 2, 5])
        bid = instrument.price_from_ticks(ticks)
        bad_ts_ns = ts_ns
        if draw.random() < 0.02:  # more than one thing may be wrong with a row
            bid = draw.choice([instrument.price_from_ticks(ticks + 3 * width), float("nan"), -bid])
            bad_ts_ns = draw.choice([ts_ns, 0, ts_ns - 10**9])
        columns["ts_ns"].append(bad_ts_ns)
        columns["bid"].append(bid)
        columns["ask"].append(instrument.price_from_ticks(ticks + width))
        columns["bid_depth"].append(draw.choice([1.0, 7.5, 60.0, 250.0]))
        columns["ask_depth"].append(draw.choice([1.0, 7.5, 60.0, 250.0]))
    return {name: np.array(values) for name, values in columns.items()}


def limits(draw: random.Random, scale: float) -> tuple[RiskPolicy, QuotingConfig, ExitConfig]:
    """Draw limits, of which each guard's is tight now and then."""

    def some(choices: dict[str, list[Any]]) -> dict[str, Any]:
        return {name: draw.choice(values) for name, values in choices.items() if draw.random() < 0.12}

    wide = {
        "max_per_market_usd": 50.0 * scale,
        "max_total_exposure_usd": 200.0 * scale,
        "max_abs_inventory": 1e9,
        "daily_loss_stop_usd": 1e6,
        "adv15_max_ticks": 50.0,
        "adv60_max_ticks": 50.0,
        "min_depth": 0.0,
        "sigma_5m_max": 0.5,
    }
    tight = {
        "staleness_ms": [100, 30_000],
        "min_depth": [5, 60],
        "min_depth_p10_market": [2.0, 20.0],
        "max_spread_bps": [20.0],
        "sigma_5m_max": [1e-4],
        "spread_med_5m_max_bps": [0, 30.0],
        "depth_p10_5m_min": [4.0, 30.0],
        "max_total_exposure_usd": [3.0 * scale, 50.0 * scale],
        "max_per_market_usd": [0.0, 0.5 * scale],
        "max_abs_inventory": [0.5, 3.0],
        "cancel_rate_limit": [2, 5],
        "cancel_window_ms": [500, 60_000],
        "daily_loss_stop_usd": [0.05, 1.0],
        "error_rate_max": [0.0, 0.01],
        "error_window_steps": [10, 30],
        "adv15_max_ticks": [0.0, 0.5],
        "adv60_max_ticks": [0.0, 0.5],
        "adverse_window_ms": [20_000, 100_000],
        "adverse_cooldown_ms": [2_000],
        "sigma_spike_z_max": [0.5, 100.0],
        "min_profit_ticks": [0.5],
        "max_consecutive_losses": [1, 2],
        "streak_cooldown_ms": [0, 3_000],
        "max_drawdown_stop_usd": [0.2, 5.0],
        "equity_floor_usd": [59.0],
        "quote_cap_per_window": [3, 20],
        "quote_budget_cooldown_ms": [0, 900],
        "max_open_orders": [1, 2, 3],
        "max_active_markets": [1],
        "min_order_usd": [0.5 * scale],
    }
    quoting = {
        "refresh_ms": [0, 50, 2_000],
        "min_requote_ticks": [0.0, 1.5, 3.0],
        "order_ttl_ms": [100, 1_000],
        "post_fill_cooldown_ms": [200, 2_000],
        "max_replacements_per_min": [1, 5],
    }
    exits = {"tp_ticks": [2.0, float("inf")], "sl_ticks": [1.0, 20.0], "T_max_ms": [500, 5_000]}
    return RiskPolicy(**wide | some(tight)), QuotingConfig(**some(quoting)), ExitConfig(**some(exits))


def restless(tick_size: float) -> Any:
    """A model that gives every kind of answer: good and bad quotes, one side, taking, NaN, exits, nonsense."""

    @_SIGNATURE
    def model(row: Any, count: int, params: Any, out: Any) -> int:
        mid, imbalance = row[FEATURE_INDEX["mid"]], row[FEATURE_INDEX["imbalance"]]
        mood = int(abs(mid / tick_size * 7) + abs(imbalance * 100) + row[FEATURE_INDEX["depth"]]) % 97
        if mood < 12:
            out[0] = float("nan") if mood == 4 else 1.0
            return (0, 0, 0, 1, 1, 9, 2, 2, 2, 3, 3, 4 if imbalance > 0.99 else 3)[mood]
        out[3] = params[0] * (1 + mood % 5) / 3
        offset = (mood % 7 - 2) * tick_size
        out[1] = max(0.0, mid - offset) if mood % 11 else 0.0
        out[2] = mid + offset + (tick_size * 0.4 if mood % 2 else 0.0) if mood % 13 else 0.0
        if mood % 17 == 0:
            out[1], out[2] = out[2], out[1]
        out[4] = float(mood % 3 != 0)
        return 1

    return model


# The guards. ----------------------------------------------------------------------------------------------------------


def test_every_guard_judges_as_its_definition_does() -> None:
    core = compiled_core()
    draw = random.Random(3)
    seen: set[str] = set()
    for _ in range(6_000):
        policy, context, proposal, size = a_judgement(draw)
        final, mismatch = modulate(proposal, policy, context)
        values = {key: getattr(context, key) for key in NUMBER_KEYS} | {"has_market": True, "latched": context.latched}
        action, codes, held, pulls, left, _ = core.judge(
            policy_values(policy), list(Action).index(proposal.action), size is not None, size or 0.0, values
        )
        names = {name for place, name in enumerate(core.REASON_CODES) if codes >> place & 1}
        assert names == set(mismatch.reason_codes)
        assert list(Action)[action] is final.action
        if final.action is Action.HOLD:
            assert pulls is (mismatch.metadata is not None and mismatch.metadata["quotes"] == "pull")
            if proposal.action is not Action.HOLD:
                holding = {name for place, name in enumerate(core.REASON_CODES) if held >> place & 1}
                assert holding == set(final.reasons)
        if final.action is Action.ACT and size is not None:
            assert left == final.params["size_usd"]
        seen |= names
    assert seen == set(core.REASON_CODES) - {"ops_denied"}  # only an operator denies actions, and a table has none


def a_judgement(draw: random.Random) -> tuple[RiskPolicy, GuardContext, Proposal, float | None]:
    """A proposal, limits, and a context in which few numbers, or many, are at or beyond their limits."""
    strictness = draw.choice([0.02, 0.15])

    def at(*choices: Any) -> Any:
        return draw.choice(choices[1:]) if draw.random() < strictness else choices[0]

    policy = RiskPolicy(
        max_429_per_window=at(0, 2),
        max_ws_reconnects_per_window=at(0, 2),
        min_depth_p10_market=at(0.0, 5.0),
        depth_p10_5m_min=at(0.0, 5.0),
        max_per_market_usd=at(5.0, 0.0),
        adverse_cooldown_ms=at(0, 500),
        max_consecutive_losses=at(0, 2),
        max_drawdown_stop_usd=at(0.0, 3.0),
        equity_floor_usd=at(0.0, 50.0),
        quote_cap_per_window=at(0, 7),
        max_open_orders=at(0, 3),
        max_active_markets=at(0, 1),
        min_order_usd=at(0.0, 2.0),
    )
    context = GuardContext(
        now_ms=10_000,
        last_event_ts_ms=at(9_500, 9_000, 8_999),
        mid=at(100.0, 0.5),
        spread_bps=at(10.0, 500.0, 501.0, float("nan")),
        depth=at(50.0, 1.0, 0.5),
        depth_p10_5m=at(20.0, 5.0, 4.0, float("nan")),
        sigma_5m=at(0.001, 0.02, 0.03, float("nan")),
        spread_med_5m=at(0.01, 5.0, 6.0, float("nan")),
        sigma_spike_z=at(0.0, 2.5, 2.6),
        tp_ticks=at(1.0, 0.5),
        cost_ticks=at(1.0, 1.5),
        current_total_exposure_usd=at(1.0, 5.0, 8.999, 9.0, 9.5, 10.0),
        abs_inventory=at(1.0, 0.0, 10.0),
        open_orders=at(0, 3),
        active_markets=at(0, 1),
        daily_pnl=at(0.0, -2.4, -2.5),
        daily_realized_pnl_usd=0.0,
        drawdown_usd=at(0.0, 3.0),
        equity_usd=at(100.0, 50.0),
        cancels_in_window=at(0, 19, 20),
        quotes_in_window=at(0, 7),
        recent_failures=at(0, 5),
        rate_limits_in_window=at(0, 2),
        ws_reconnects_in_window=at(0, 2),
        steps_in_window=at(50, 9, 10),
        errors_in_window=at(0, 5, 6, 9),
        consecutive_losses=at(0, 2),
        adverse_15_ticks=at(0.0, 1.0, 1.1),
        adverse_60_ticks=at(0.0, 2.0, 2.1),
        throttle_refresh_until_ms=at(0, 10_000, 10_001),
        cooldown_until_ms=at(0, 10_000, 10_001),
        ops_cooldown_until_ms=at(0, 10_000, 10_001),
        adverse_15_cooldown_until_ms=at(0, 10_000, 10_001),
        adverse_60_cooldown_until_ms=at(0, 10_000, 10_001),
        streak_cooldown_until_ms=at(0, 10_000, 10_001),
        quote_budget_until_ms=at(0, 10_000, 10_001),
        ops_deny_actions=False,
        kill_switch=False,
        latched=at((), ("daily_loss",), ("circuit_breaker", "drawdown"), ("kill_switch",)),
    )
    context.kill_switch = "kill_switch" in (context.latched or ())
    action = draw.choice([Action.ACT, Action.ACT, *Action])
    size = draw.choice([None, 0.5, 2.0, 4.0, 5.0, 5.5, 9.0]) if action is Action.ACT else None
    params = None if size is None else {"size_usd": size}
    return policy, context, Proposal(action, 0.9, ["model"], params), size


@pytest.mark.parametrize("name", ["actions", "policy keys", "guards", "reason codes", "feature schema"])
def test_a_core_built_from_other_tables_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "actions":
        monkeypatch.setattr(core_module, "Action", [Action.ACT, Action.HOLD])
    elif name == "policy keys":
        monkeypatch.setattr(core_module, "policy_ranges", lambda: {"min_depth": None})
    elif name == "feature schema":
        monkeypatch.setattr(core_module, "SCHEMA_HASH", "another")
    else:
        codes = ("staleness", "other") if name == "reason codes" else GUARDS[2].codes
        flag = GUARDS[2].flag if name == "reason codes" else "other"
        changed = msgspec.structs.replace(GUARDS[2], flag=flag, codes=codes)
        monkeypatch.setattr(core_module, "GUARDS", (*GUARDS[:2], changed, *GUARDS[3:]))
    with pytest.raises(BackendError, match=f"other {name}"):
        compiled_core()


def test_a_decision_before_the_first_book_names_what_is_missing() -> None:
    instrument = Instrument("X")
    events = [Trade(0, 1_000_000, "X", 0, 10.0, 1.0, 1), BookSnapshot(0, 2_000_000, "X", 0, 9.99, 10.01, 5.0, 5.0)]
    python = watch(ListedSource(events, instrument), PaperBroker(instrument))
    result = run_recorded(table_from_source(ListedSource(events, instrument)))
    assert_same(result, python)
    assert result.decisions is not None
    missing = result.reason_codes(result.decisions["codes"][0])
    assert set(missing) < {f"context_missing:{key}" for key in PROVIDED_CONTEXT}


# Models of the user's own. --------------------------------------------------------------------------------------------


def test_a_numba_function_decides_in_both_loops_alike() -> None:
    numba = pytest.importorskip("numba")
    imbalance, mid, spread = (FEATURE_INDEX[name] for name in ("imbalance", "mid", "spread"))

    def lean(row: Any, count: int, params: Any, out: Any) -> int:
        if row[imbalance] < params[0] and row[imbalance] > -params[0]:
            return 0
        out[1] = row[mid] - row[spread] / 4.0
        out[2] = row[mid] + row[spread] / 4.0
        out[3] = params[1]
        return 1

    pointer = numba.types.CPointer(numba.types.float64)
    compiled = numba.cfunc(numba.types.int32(pointer, numba.types.int64, pointer, pointer))(lean)
    model = CompiledModel(compiled, schema_hash=SCHEMA_HASH, params=[0.2, 1.0])
    table = table_from_source(synthetic())
    python = watch(synthetic(), PaperBroker(table.instrument), decision_engine=DecisionEngine(model=model))
    assert_same(run_recorded(table, model=model), python)
    assert python.summary["fills_count"] > 0


def test_a_function_of_a_c_library_decides_in_both_loops_alike(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("needs a C compiler: cc, gcc and clang are absent")
    source = tmp_path / "model.c"
    source.write_text(
        "#include <stdint.h>\n"
        "int32_t f(const double* row, int64_t n, const double* params, double* out) {\n"
        f"    if (n != {len(FEATURE_INDEX)}) return 0;\n"
        f"    out[1] = row[{FEATURE_INDEX['bid']}];\n"
        f"    out[2] = row[{FEATURE_INDEX['ask']}];\n"
        "    out[3] = params[0];\n"
        "    return 1;\n"
        "}\n"
    )
    library = tmp_path / "model.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", str(source), "-o", str(library)], check=True)
    model = CompiledModel(ctypes.CDLL(str(library)).f, schema_hash=SCHEMA_HASH, params=[2.0])
    table = table_from_source(synthetic())
    python = watch(synthetic(), PaperBroker(table.instrument), decision_engine=DecisionEngine(model=model))
    assert_same(run_recorded(table, model=model), python)
    assert python.summary["orders_submitted"] > 0


@pytest.mark.parametrize("place", range(5))
def test_an_answer_of_nan_is_hold(place: int) -> None:
    @_SIGNATURE
    def model(row: Any, count: int, params: Any, out: Any) -> int:
        out[1], out[2], out[3] = 0.4, 0.6, 1.0
        out[place] = float("nan")
        return 1

    result = run_compiled(table_from_source(synthetic(200)), model=CompiledModel(model, schema_hash=SCHEMA_HASH))
    assert result.summary["proposal_counts"] == {"HOLD": 200}
    assert result.summary["hold_reason_counts"]["model_nan"] > 100
    assert result.summary["orders_submitted"] == 0


@pytest.mark.parametrize(
    ("action", "out"),
    [(5, {}), (-1, {}), (1, {0: 1.5}), (1, {1: -1.0}), (1, {3: float("inf")})],
)
def test_an_answer_outside_the_contract_is_hold(action: int, out: dict[int, float]) -> None:
    @_SIGNATURE
    def answer(row: Any, count: int, params: Any, written: Any) -> int:
        for place, value in out.items():
            written[place] = value
        return action

    model = CompiledModel(answer, schema_hash=SCHEMA_HASH)
    assert model(dict.fromkeys(FEATURE_INDEX, 1.0)).reasons == ["private_hook_error"]
    result = run_compiled(table_from_source(synthetic(50)), model=model)
    assert result.summary["hold_reason_counts"]["private_hook_error"] > 0


def test_a_model_written_for_other_features_is_refused() -> None:
    with pytest.raises(BackendError, match="written for feature schema 0123"):
        CompiledModel(1, schema_hash="0123")


@pytest.mark.parametrize("config", [FeatureConfig(), FeatureConfig(signals=False)], ids=["with", "without"])
def test_a_model_sees_rows_of_the_length_that_it_was_registered_with(config: FeatureConfig) -> None:
    seen: list[tuple[int, float]] = []

    @_SIGNATURE
    def quote(row: Any, count: int, params: Any, out: Any) -> int:
        seen.append((count, row[count - 1]))
        out[0], out[1], out[2], out[3] = 1.0, row[1], row[2], 10.0
        return 1

    model = CompiledModel(quote, schema_hash=config.schema_hash)
    table = table_from_source(synthetic(300))
    compiled = run_compiled(table, model=model, config=config, decisions=True)
    in_core, seen[:] = list(seen), []
    python = watch(
        synthetic(300),
        PaperBroker(table.instrument),
        decision_engine=DecisionEngine(model=model),
        feature_config=config,
    )
    assert_same(compiled, python)
    assert {count for count, _ in in_core} == {len(config.feature_names)}
    assert np.array_equal(np.array(in_core), np.array(seen), equal_nan=True)


@pytest.mark.parametrize("signals", [True, False])
def test_a_model_written_for_rows_of_the_other_length_is_refused(signals: bool) -> None:
    config, other = FeatureConfig(signals=signals), FeatureConfig(signals=not signals)
    model = CompiledModel(1, schema_hash=config.schema_hash)
    with pytest.raises(BackendError, match="the model was written for rows with"):
        run_compiled(table_from_source(synthetic(10)), model=model, config=other)
    with pytest.raises(BackendError, match="set `signals` of the FeatureConfig to match"):
        watch(synthetic(10), PaperBroker(), decision_engine=DecisionEngine(model=model), feature_config=other)
    with pytest.raises(BackendError, match=f"reads rows of {len(config.feature_names)} features"):
        model(np.zeros(len(other.feature_names)))


@pytest.mark.parametrize("function", [0, -5, True, "f", None])
def test_what_is_no_function_is_no_model(function: Any) -> None:
    with pytest.raises(ConfigError, match="`function`"):
        CompiledModel(function, schema_hash=SCHEMA_HASH)


# Tables. --------------------------------------------------------------------------------------------------------------


def test_a_plain_table_is_read_as_the_feature_builder_reads_it() -> None:
    table = quote_table(400)
    table["bid"][7] = 2.0  # crossed
    table["ts_ns"][9] = table["ts_ns"][8] - 1
    instrument = Instrument("X", tick_size=0.01)
    builder = FeatureBuilder(FeatureConfig(tick_size=0.01))
    builder.run(table)
    report = builder.last_report
    assert report is not None
    result = run_recorded(table, instrument=instrument)
    assert result.summary["steps"] == report.accepted
    assert result.summary["rejected_events"] == {"crossed_book": 1, "time_backwards": 1} == dict(report.rejected)
    events = [
        BookSnapshot(0, int(ts), "X", 0, bid, ask, bid_size, ask_size)
        for ts, bid, ask, bid_size, ask_size in zip(
            *(table[name].tolist() for name in ("ts_ns", "bid", "ask", "bid_depth", "ask_depth")), strict=True
        )
    ]
    python = watch(ListedSource(events, instrument), PaperBroker(instrument))
    places = python.summary.pop("rejected_places")
    assert len(places) == 2
    assert result.summary.pop("rejected_places") == []  # a row has no file and no line
    python = python._replace(fills=[msgspec.structs.replace(fill, market_id="default") for fill in python.fills])
    python.summary["positions"]["default"] = python.summary["positions"].pop("X")
    assert_same(result, python)


def test_rows_without_a_time_are_dated_a_millisecond_apart() -> None:
    table = quote_table(50)
    del table["ts_ns"]
    result = run_recorded(table)
    assert result.decisions is not None
    assert result.decisions["ts_ns"].tolist() == [1_000_000 * (row + 1) for row in range(50)]
    assert result.summary["notes"] == ["events without a time were dated 1 ms apart, from 1 ms on"]


@pytest.mark.parametrize("name", ["ts_ms", "recv_ts_ns"])
def test_times_come_in_every_form_that_the_features_know(name: str) -> None:
    table = quote_table(50)
    in_ns = run_recorded(table)
    ts_ns = table.pop("ts_ns")
    table[name] = ts_ns // 1_000_000 if name == "ts_ms" else np.where(np.arange(50) % 2 == 0, 0, ts_ns)
    table |= {} if name == "ts_ms" else {"exch_ts_ns": ts_ns}
    assert told(run_recorded(table)) == told(in_ns)


def quote_table(rows: int) -> dict[str, Any]:
    draw = np.random.default_rng(1)
    mid = 1.0 + np.cumsum(draw.integers(-1, 2, rows)) * 0.001
    bid = np.round(mid - 0.01, 2)
    return {
        "ts_ns": 1_000_000_000_000 + np.arange(rows, dtype=np.int64) * 50_000_000,
        "bid": bid,
        "ask": bid + 0.02,
        "bid_depth": draw.integers(1, 200, rows).astype(float),
        "ask_depth": draw.integers(1, 200, rows).astype(float),
    }


def test_bars_of_a_plain_table_fill_as_the_paper_broker_fills_them() -> None:
    instrument = Instrument("X", tick_size=0.01)
    draw = np.random.default_rng(2)
    close = 1.0 + np.cumsum(draw.integers(-2, 3, 300)) * 0.01
    table = {
        "ts_ns": 1_000_000_000_000 + np.arange(300, dtype=np.int64) * 60_000_000_000,
        "kind": np.full(300, 2),
        "open": close,
        "high": close + 0.05,
        "low": close - 0.05,
        "close": close,
        "volume": np.full(300, 10.0),
    }

    @_SIGNATURE
    def model(row: Any, count: int, params: Any, out: Any) -> int:
        mid = row[FEATURE_INDEX["mid"]]
        out[1], out[2], out[3] = mid - 0.02, mid + 0.02, 1.0
        return 1

    policy = RiskPolicy(min_depth=0, sigma_5m_max=0, spread_med_5m_max_bps=0)
    result = run_compiled(
        table, instrument=instrument, policy=policy, model=CompiledModel(model, schema_hash=SCHEMA_HASH), timer_ms=0
    )
    assert result.summary["fills_count"] > 50
    with pytest.raises(ConfigError, match="needs `volume`"):
        run_compiled({name: column for name, column in table.items() if name != "volume"}, instrument=instrument)


def test_a_table_of_several_symbols_is_refused() -> None:
    with pytest.raises(ConfigError, match="several symbols"):
        run_compiled(quote_table(2) | {"symbol": np.array(["A", "B"])})
    books = [BookSnapshot(0, 1_000, name, 0, 9.0, 10.0) for name in "AB"]
    with pytest.raises(ConfigError, match="'A', 'B'"):
        table_from_source(ListedSource(books, Instrument("A")))


def test_a_table_with_fewer_levels_than_the_features_look_at_is_refused() -> None:
    table = table_from_source(synthetic(10), levels=3)
    assert table.columns["bids"].shape == (10, 3, 2)
    with pytest.raises(ConfigError, match="keeps 3 levels, the features look at 10"):
        run_compiled(table)


def test_an_order_beyond_the_kept_levels_is_refused_and_not_guessed_at() -> None:
    @_SIGNATURE
    def far(row: Any, count: int, params: Any, out: Any) -> int:
        out[1], out[3] = row[FEATURE_INDEX["bid"]] - 0.03, 1.0
        return 1

    instrument = Instrument("X", tick_size=0.01)
    bids = [(1.0 - 0.01 * place, 50.0) for place in range(6)]
    books = [BookSnapshot(0, 1_000_000, "X", 0, 1.0, 1.01, 0.0, 0.0, bids, [(1.01, 50.0)])]
    config = FeatureConfig(tick_size=0.01, levels=2)
    model = CompiledModel(far, schema_hash=SCHEMA_HASH)
    cut = table_from_source(ListedSource(books, instrument), levels=2)
    with pytest.raises(ConfigError, match="beyond the levels that the table holds"):
        run_compiled(cut, config=config, model=model)
    whole = table_from_source(ListedSource(books, instrument), levels=6)
    assert run_compiled(whole, config=config, model=model).summary["orders_submitted"] == 1


def test_a_live_source_makes_no_table() -> None:
    class Live(ListedSource):
        is_live = True

    with pytest.raises(ConfigError, match="must be recorded"):
        table_from_source(Live([], Instrument("X")))


def test_a_source_that_fails_for_good_ends_the_table_and_the_run_says_so() -> None:
    class Failing(ListedSource):
        def next_event(self) -> Any:
            event = super().next_event()
            if event is None:
                raise OSError("gone")
            return event

    books = [BookSnapshot(0, 1_000_000, "X", 0, 1.0, 1.01, 5.0, 5.0)]
    instrument = Instrument("X")
    table = table_from_source(Failing(books, instrument))
    python = watch(Failing(books, instrument), PaperBroker(instrument), source_backoff_ms=0.0)
    result = run_recorded(table)
    assert_same(result, python)
    assert result.summary["stopped_reason"] == "source_error: OSError 5 times in a row"


# What is not covered. -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"latency_ms": 5.0}, "`latency_ms`: compiled decisions do not cover requests that travel"),
        ({"modulator": None}, "`modulator`"),
        ({"decision_engine": DecisionEngine()}, "pass a CompiledModel"),
        ({"position_manager": None}, "`position_manager`"),
        ({"trace": True}, "`trace`"),
        ({"polcy": None}, "did you mean `policy`"),
        ({"queue": "middle"}, "`queue`"),
        ({"steps": -1}, "`steps`"),
        ({"start_cash": float("nan")}, "`start_cash` must be finite"),
        ({"model": "momentum"}, "`model`"),
        ({"model_params": {"size": 1.0}}, "`model_params`"),
        ({"exits": ExitConfig(sl_ticks=0)}, "`sl_ticks`"),
        ({"quoting": QuotingConfig(refresh_ms=-1)}, "`refresh_ms`"),
        ({"policy": RiskPolicy(required_context=("phase_of_moon",))}, "phase_of_moon"),
        ({"policy": RiskPolicy(cancel_window_ms=10**15)}, "`cancel_window_ms`"),
    ],
)
def test_what_is_not_covered_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        run_compiled(quote_table(3), **options)


@pytest.mark.parametrize(
    ("name", "attribute"),
    [
        ("ami_engine.mdm._private.model", "compute_proposal_private"),
        ("ami_engine.dmc._private.policy", "override_policy"),
    ],
)
def test_a_private_hook_is_refused_and_not_passed_over(
    name: str, attribute: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = types.ModuleType(name)
    setattr(hook, attribute, lambda *_, **__: None)
    monkeypatch.setitem(sys.modules, name, hook)
    with pytest.raises(ConfigError, match="do not cover the private"):
        run_compiled(quote_table(3))


def test_what_the_guards_are_told_may_be_required() -> None:
    policy = RiskPolicy(required_context=("daily_pnl", "mid"))
    table = table_from_source(synthetic(300))
    python = watch(synthetic(300), PaperBroker(table.instrument), risk_policy=policy)
    assert_same(run_recorded(table, policy=policy), python)


def test_the_table_of_a_feed_knows_its_refused_rows() -> None:
    instrument = Instrument("X", tick_size=0.01)
    table = table_from_source(ListedSource(rough_market(5, instrument, 400), instrument))
    assert isinstance(table, EventTable)
    assert table.refusals
    assert all(table.columns["kind"][row] == 4 for row, _ in table.refusals)


# Prices beyond 64-bit ticks. ------------------------------------------------------------------------------------------


def rising_table(price: float, row: int, *, depth: float = 60.0) -> dict[str, Any]:
    """Steady quotes, from a row on at another price."""
    bid = np.full(60, 1.0)
    bid[row:] = price
    return {
        "ts_ns": 1_000_000_000_000 + np.arange(60, dtype=np.int64) * 100_000_000,
        "bid": bid,
        "ask": bid * 1.01,
        "bid_depth": np.full(60, depth),
        "ask_depth": np.full(60, depth / 3.0),
    }


def as_events(table: dict[str, Any]) -> list[BookSnapshot]:
    columns = (table[name].tolist() for name in ("ts_ns", "bid", "ask", "bid_depth", "ask_depth"))
    return [BookSnapshot(0, ts_ns, "X", 0, *numbers) for ts_ns, *numbers in zip(*columns, strict=True)]


@pytest.mark.parametrize("price", [4.7e16, 1e17, 1e30, 1e140])
def test_an_order_at_a_price_beyond_64_bit_ticks_is_refused_by_row_and_field(price: float) -> None:
    decisions = run_recorded(rising_table(100.0, 0), instrument=Instrument("X")).decisions
    assert decisions is not None
    first = decisions["action"].tolist().index(list(Action).index(Action.ACT))
    named = rf"row {first}: `(bid|ask)` must be at most 2\^62 ticks of 0.01 to make an order of it, was \d[\d.e+]+$"
    with pytest.raises(ConfigError, match=named):
        run_compiled(rising_table(price, 0), instrument=Instrument("X"))


@pytest.mark.parametrize("price", [3e16, 4.5e16])
def test_a_price_of_very_many_ticks_is_decided_on_as_in_the_loop(price: float) -> None:
    table, instrument = rising_table(price, 40), Instrument("X")
    python = watch(ListedSource(as_events(table), instrument), PaperBroker(instrument))
    assert_same(run_recorded(table, instrument=instrument, market_id="X", timer_ms=100.0), python)


@pytest.mark.parametrize("options", [{"dry_run": True}, {"policy": RiskPolicy(min_depth=1e9)}])
def test_a_price_beyond_64_bit_ticks_that_no_order_is_made_of_is_decided_on(options: dict[str, Any]) -> None:
    table, instrument = rising_table(1e30, 40), Instrument("X")
    result = run_recorded(table, instrument=instrument, market_id="X", timer_ms=100.0, **options)
    if "policy" in options:
        options = {"risk_policy": options["policy"]}
    python = watch(ListedSource(as_events(table), instrument), PaperBroker(instrument), **options)
    assert_same(result, python)


def test_a_quote_beyond_64_bit_ticks_is_refused_by_row_and_field() -> None:
    def model(row: Any, count: int, params: Any, out: Any) -> int:
        out[0], out[1], out[2], out[3], out[4] = 1.0, 0.5, 1e17, 1.0, 1.0
        return 1

    function = _SIGNATURE(model)
    with pytest.raises(ConfigError, match="row 0: `ask_quote` must be at most 2"):
        run_compiled(
            rising_table(1.0, 0), instrument=Instrument("X"), model=CompiledModel(function, schema_hash=SCHEMA_HASH)
        )
