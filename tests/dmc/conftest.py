"""A context in which every key is known and no guard has anything to say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ami_engine.dmc.context import NUMBER_KEYS, GuardContext

NOW_MS = 1_723_161_255_000

CALM: dict[str, Any] = {
    **dict.fromkeys(NUMBER_KEYS, 0),
    "now_ms": NOW_MS,
    "last_event_ts_ms": NOW_MS - 100,
    "mid": 100.0,
    "spread_bps": 5.0,
    "depth": 50.0,
    "depth_p10_5m": 40.0,
    "sigma_5m": 0.001,
    "spread_med_5m": 0.05,
    "sigma_spike_z": 0.5,
    "tp_ticks": 2.0,
    "cost_ticks": 1.0,
    "current_total_exposure_usd": 1.0,
    "abs_inventory": 1.0,
    "open_orders": 2,
    "active_markets": 1,
    "daily_pnl": 0.5,
    "daily_realized_pnl_usd": 0.25,
    "equity_usd": 100.0,
    "steps_in_window": 100,
    "ops_deny_actions": False,
    "kill_switch": False,
    "latched": (),
}


@pytest.fixture(scope="session")
def now_ms() -> int:
    """The decision clock of `calm`, ms."""
    return NOW_MS


@pytest.fixture(scope="session")
def calm() -> Callable[..., dict[str, Any]]:
    """Return the calm context as a dict, with some keys changed; a key set to ... is left out."""

    def make(**changed: Any) -> dict[str, Any]:
        return {key: value for key, value in {**CALM, **changed}.items() if value is not ...}

    return make


@pytest.fixture(scope="session")
def calm_struct() -> Callable[..., GuardContext]:
    """Return the calm context as a struct, with some keys changed."""

    def make(**changed: Any) -> GuardContext:
        return GuardContext(**{**CALM, **changed})

    return make
