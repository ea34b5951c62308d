"""What the compiled core reads and tells: settings as plain numbers, counts as names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ami_engine.config import ExitConfig, QuotingConfig
from ami_engine.dmc.guards import GUARDS
from ami_engine.dmc.risk_policy import RiskPolicy, policy_ranges
from ami_engine.execution.order_manager import OrderManager
from ami_engine.features.feature_config import FeatureConfig
from ami_engine.features.schema import SCHEMA_HASH
from ami_engine.loop.summary import RunCounters
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.units import Instrument
from decision_schema.types import Action, FinalDecision

__all__ = [
    "ACTIONS",
    "MAX_WHOLE",
    "MISSING_BIT",
    "QUEUES",
    "code_names",
    "core_difference",
    "count_into",
    "feature_values",
    "instrument_values",
    "loop_values",
    "policy_values",
    "quote_error",
]

ACTIONS = tuple(Action)
QUEUES = {"back": 0, "front": 1, "prob": 2}
# Times beyond these would not fit into 64 bits of nanoseconds.
MAX_WHOLE = 10**12
MISSING_BIT = 63

# What the guards cannot be told before the first book; the loop requires all of it.
_MARKET_KEYS = (
    "last_event_ts_ms",
    "mid",
    "spread_bps",
    "depth",
    "depth_p10_5m",
    "sigma_5m",
    "spread_med_5m",
    "sigma_spike_z",
    "cost_ticks",
)


def core_difference(core: Any) -> str:
    """Return in what a compiled core differs from this package, "" when it fits.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> core_difference(SimpleNamespace(SCHEMA_HASH="0"))
    'feature schema'
    """
    for name, what, known in (
        ("SCHEMA_HASH", "feature schema", SCHEMA_HASH),
        ("ACTIONS", "actions", tuple(map(str, Action))),
        ("POLICY_KEYS", "policy keys", tuple(policy_ranges())),
        ("GUARD_FLAGS", "guards", tuple(guard.flag for guard in GUARDS)),
        ("REASON_CODES", "reason codes", tuple(code for guard in GUARDS for code in guard.codes)),
    ):
        if getattr(core, name, None) != known:
            return what
    return ""


def policy_values(policy: RiskPolicy) -> list[float]:
    """Return the policy's numbers in the order of its keys, as the core reads them."""
    return [float(getattr(policy, key)) for key in policy_ranges()]


def instrument_values(instrument: Instrument) -> list[float]:
    """Return the numbers of an instrument in the core's order."""
    return [
        instrument.tick_size,
        instrument.lot_size,
        instrument.min_qty,
        instrument.min_notional,
        instrument.multiplier,
        float(instrument.is_inverse),
        instrument.maker_fee_bps,
        instrument.taker_fee_bps,
    ]


def feature_values(config: FeatureConfig) -> dict[str, Any]:
    """Return a feature config as the core reads it."""
    return {
        "tick_size": config.tick_size,
        "cost_ticks": config.cost_ticks,
        "level_weights": list(config.level_weights()),
        "vol_window": config.vol_window,
        "window_steps": config.window_steps,
        "window_ns": config.window_ns,
        "sigma_short_steps": config.sigma_short_steps,
        "sigma_long_steps": config.sigma_long_steps,
        "signal_steps": list(config.signal_steps),
    }


def loop_values(
    policy: RiskPolicy,
    instrument: Instrument,
    venue_instrument: Instrument,
    quoting: QuotingConfig,
    exits: ExitConfig,
    model_params: Mapping[str, float],
    *,
    venue_grid: bool,
) -> dict[str, Any]:
    """Return the settings of a loop's parts as the core reads them."""
    return {
        "policy": policy_values(policy),
        "instrument": instrument_values(instrument),
        "venue_instrument": instrument_values(venue_instrument),
        "is_venue_on_grid": venue_grid,
        **msgspec.structs.asdict(quoting),
        "min_requote_ticks": float(quoting.min_requote_ticks),
        "tp_ticks": float(exits.tp_ticks),
        "sl_ticks": float(exits.sl_ticks),
        "T_max_ms": float(exits.T_max_ms),
        **model_params,
    }


def code_names(core: Any) -> tuple[tuple[str, ...], ...]:
    """Return the reason codes of each bit."""
    names: list[tuple[str, ...]] = [(name,) for name in core.REASON_CODES]
    names += [()] * (MISSING_BIT - len(names))
    return (*names, tuple(f"context_missing:{key}" for key in _MARKET_KEYS))


def count_into(counters: RunCounters, told: Mapping[str, Any], core: Any) -> None:
    """Add what the core counted to fresh counters; last error, rejected events and latencies are the caller's."""
    counters.steps, counters.timers, counters.fills = told["steps"], told["timers"], told["fill_count"]
    counters.orders_submitted, counters.orders_canceled = told["submitted"], told["canceled"]
    counters.orders_rejected, counters.orders_skipped = told["rejected"], told["skipped"]
    counters.error_count += told["errors"]
    codes = code_names(core)
    actions = [(str(action),) for action in ACTIONS]
    counters.action_counts = _named(told["actions"], actions)
    counters.proposal_counts = _named(told["proposals"], actions)
    reasons = [(name,) for name in core.MODEL_REASONS]
    counters.hold_reasons = _named(told["held_codes"], codes) | _named(told["held_reasons"], reasons)
    for name, count in told.get("held_by_name", {}).items():  # of a model in Python
        counters.hold_reasons[name] = counters.hold_reasons.get(name, 0) + count
    counters.mismatch_reasons = _named(told["codes"], codes)


def _named(counts: Sequence[int], names: Sequence[Sequence[str]]) -> dict[str, int]:
    return {name: count for count, known in zip(counts, names, strict=True) if count for name in known}


def quote_error(fault: tuple[Any, ...], instrument: Instrument) -> str:
    """Return what the order manager says of quotes that no order can be made of."""
    bid_quote, ask_quote, size_usd, post_only, bid, ask = fault
    quotes = {"bid_quote": bid_quote or None, "ask_quote": ask_quote or None}
    final = FinalDecision(Action.ACT, params={**quotes, "size_usd": size_usd, "post_only": post_only})
    manager = OrderManager(PaperBroker(), instrument=instrument)
    return manager.apply(final, "", 0, bid=bid, ask=ask, position=0.0).errors[-1]
