"""Ranges, TOML and hash of a policy."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ami_engine.dmc import RiskPolicy
from ami_engine.dmc.context import GuardContext
from ami_engine.dmc.guards import GUARDS
from ami_engine.dmc.risk_policy import policy_ranges
from ami_engine.errors import ConfigError

DOCUMENTED_DEFAULTS = {
    "ops_window_ms": 60_000,
    "max_429_per_window": 0,
    "max_ws_reconnects_per_window": 0,
    "ops_cooldown_ms": 0,
    "staleness_ms": 1_000,
    "min_depth": 1.0,
    "min_depth_p10_market": 0.0,
    "max_spread_bps": 500.0,
    "sigma_5m_max": 0.02,
    "spread_med_5m_max_bps": 500.0,
    "depth_p10_5m_min": 0.0,
    "max_total_exposure_usd": 10.0,
    "exposure_headroom_frac": 0.9,
    "max_per_market_usd": 5.0,
    "max_abs_inventory": 10.0,
    "max_inventory_skew_ticks": 4.0,
    "cancel_rate_limit": 20,
    "cancel_window_ms": 10_000,
    "throttle_refresh_ms": 1_500,
    "daily_loss_stop_usd": 2.5,
    "error_rate_max": 0.1,
    "error_window_steps": 100,
    "circuit_breaker_failures": 5,
    "circuit_breaker_window_ms": 60_000,
    "adv15_max_ticks": 1.0,
    "adv60_max_ticks": 2.0,
    "adverse_window_ms": 600_000,
    "adverse_cooldown_ms": 0,
    "sigma_spike_z_max": 2.5,
    "tp_ticks": 1.0,
    "cost_ticks": 1.0,
    "min_profit_ticks": 0.0,
    "max_consecutive_losses": 0,
    "streak_cooldown_ms": 120_000,
    "max_drawdown_stop_usd": 0.0,
    "equity_floor_usd": 0.0,
    "quote_window_ms": 60_000,
    "quote_cap_per_window": 0,
    "quote_budget_cooldown_ms": 10_000,
    "max_open_orders": 0,
    "max_active_markets": 0,
    "min_order_usd": 0.0,
    "required_context": (),
}
ABOVE_ZERO = {
    "daily_loss_stop_usd",
    "cancel_rate_limit",
    "circuit_breaker_failures",
    "max_abs_inventory",
    "max_total_exposure_usd",
    "ops_window_ms",
    "cancel_window_ms",
    "circuit_breaker_window_ms",
    "adverse_window_ms",
    "quote_window_ms",
}
FRACTIONS = {"error_rate_max", "exposure_headroom_frac"}
KEYS = list(policy_ranges())


def test_the_defaults_are_the_documented_ones() -> None:
    assert msgspec.structs.asdict(RiskPolicy()) == DOCUMENTED_DEFAULTS


def test_every_key_but_the_list_has_a_range() -> None:
    assert {*KEYS} == {*DOCUMENTED_DEFAULTS} - {"required_context"}
    assert all(allowed.ge is not None or allowed.gt is not None for allowed in policy_ranges().values())


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", [-1, -1e-9, math.nan, math.inf, -math.inf, "1", None, True, [1], 10**400])
def test_a_value_out_of_range_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^`{key}` must be a .*number >=? ") as caught:
        RiskPolicy(**{key: value})
    assert str(caught.value).endswith(f"was {value!r}")
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("key", KEYS)
def test_zero_is_refused_where_it_would_fire_at_once_or_empty_a_window(key: str) -> None:
    if key in ABOVE_ZERO or key == "error_window_steps":
        with pytest.raises(ConfigError, match=key):
            RiskPolicy(**{key: 0})
    else:
        assert getattr(RiskPolicy(**{key: 0}), key) == 0


@pytest.mark.parametrize("key", KEYS)
def test_fractions_end_at_one_and_nothing_else_does(key: str) -> None:
    if key in FRACTIONS:
        assert getattr(RiskPolicy(**{key: 1}), key) == 1.0
        with pytest.raises(ConfigError, match=r">= 0 and <= 1, was 1\.5"):
            RiskPolicy(**{key: 1.5})
    else:
        assert getattr(RiskPolicy(**{key: 10**9}), key) == 10**9


@pytest.mark.parametrize("key", [key for key in KEYS if policy_ranges()[key].is_whole])
def test_counts_and_times_are_whole(key: str) -> None:
    with pytest.raises(ConfigError, match="whole number"):
        RiskPolicy(**{key: 50.5})
    assert type(getattr(RiskPolicy(**{key: 50.0}), key)) is int


def test_an_error_window_shorter_than_the_guard_needs_is_refused() -> None:
    with pytest.raises(ConfigError, match="`error_window_steps` must be a whole number >= 10, was 9"):
        RiskPolicy(error_window_steps=9)


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        RiskPolicy().min_depth = 0.0  # type: ignore[misc]


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(TypeError, match="max_spread"):
        RiskPolicy(max_spread=3)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"^x\.toml: `max_spread_bp` .* did you mean `max_spread_bps`\?$"):
        RiskPolicy.from_dict({"max_spread_bp": 3}, source="x.toml")
    with pytest.raises(ConfigError, match=r"^`zzz` is no key of a risk policy$"):
        RiskPolicy.from_dict({"zzz": 3})


@pytest.mark.parametrize("keys", ["now_ms", 5, None, [1], {"now_ms": 1}, [""], ["nowMs"], ["harness.now_ms"], ["a b"]])
def test_required_context_is_a_list_of_keys(keys: Any) -> None:
    with pytest.raises(ConfigError, match="required_context"):
        RiskPolicy(required_context=keys)


# -- TOML ------------------------------------------------------------------------------------------------------------


def _values(key: str) -> st.SearchStrategy[Any]:
    allowed = policy_ranges()[key]
    low = allowed.ge if allowed.ge is not None else 1e-9
    if allowed.is_whole:
        return st.integers(max(1, math.ceil(low)), 10**9)
    return st.floats(low, allowed.le if allowed.le is not None else 1e12)


policies = st.fixed_dictionaries(
    {},
    optional={key: _values(key) for key in KEYS}
    | {"required_context": st.lists(st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True))},
)


@given(policies)
def test_toml_gives_the_policy_back(tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]) -> None:
    policy = RiskPolicy(**values)
    path = tmp_path_factory.mktemp("policy") / "policy.toml"
    path.write_text(policy.to_toml(), encoding="utf-8")
    again = RiskPolicy.from_toml(path)
    assert again == policy
    assert again.policy_hash == policy.policy_hash


def test_a_file_names_what_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "tight.toml"
    path.write_text('# tight\nmax_spread_bps = 20\nrequired_context = ["now_ms"]\n', encoding="utf-8")
    assert RiskPolicy.from_toml(str(path)) == RiskPolicy(max_spread_bps=20.0, required_context=("now_ms",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_sprd_bps = 1", "`max_sprd_bps` is no key of a risk policy; did you mean `max_spread_bps`?"),
        ("[limits]\nmax_spread_bps = 1", "`limits` is no key of a risk policy; the keys are flat, without tables"),
        ("cancel_rate_limit = 0", "`cancel_rate_limit` must be a whole number > 0, was 0"),
        ("min_depth = '1'", "`min_depth` must be a number >= 0, was '1'"),
        ("min_depth = nan", "`min_depth` must be a number >= 0, was nan"),
        ("min_depth = ", "is no TOML"),
    ],
)
def test_errors_name_the_file_and_the_key(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        RiskPolicy.from_toml(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_file_that_is_not_there_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read"):
        RiskPolicy.from_toml(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        RiskPolicy.from_toml(tmp_path / "binary.toml")


# -- hash ------------------------------------------------------------------------------------------------------------


@given(policies, policies)
def test_equal_policies_have_equal_hashes_and_others_do_not(one: dict[str, Any], other: dict[str, Any]) -> None:
    a, b = RiskPolicy(**one), RiskPolicy(**other)
    assert (a.policy_hash == b.policy_hash) is (a == b)
    assert RiskPolicy(**dict(reversed(one.items()))).policy_hash == a.policy_hash


@pytest.mark.parametrize("key", [*KEYS, "required_context"])
def test_every_key_is_in_the_hash(key: str) -> None:
    changed = ("x",) if key == "required_context" else 0.5 if key in FRACTIONS else 12_345
    assert RiskPolicy(**{key: changed}).policy_hash != RiskPolicy().policy_hash


def test_how_a_number_was_written_is_not_in_the_hash() -> None:
    hashes = {RiskPolicy(min_depth=v).policy_hash for v in (3, 3.0, np.float64(3), np.int64(3), np.float32(3))}
    assert len(hashes) == 1
    assert len(hashes.pop()) == 16


def test_the_hash_is_the_same_in_another_process() -> None:
    code = (
        "from ami_engine.dmc import RiskPolicy; print(RiskPolicy(min_depth=3, required_context=['b', 'a']).policy_hash)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.strip() == RiskPolicy(min_depth=3, required_context=("b", "a")).policy_hash


def test_copies_and_pickles_keep_policy_and_hash() -> None:
    policy = RiskPolicy(min_depth=7)
    before = policy.policy_hash
    assert pickle.loads(pickle.dumps(policy)).policy_hash == before
    assert msgspec.structs.replace(policy, min_depth=8.0).policy_hash == RiskPolicy(min_depth=8).policy_hash != before


def test_every_key_is_a_limit_a_window_or_a_time() -> None:
    limits = {key for guard in GUARDS for key in guard.limits}
    beside = {
        "ops_window_ms",
        "ops_cooldown_ms",
        "cancel_window_ms",
        "throttle_refresh_ms",
        "error_window_steps",
        "circuit_breaker_window_ms",
        "adverse_window_ms",
        "adverse_cooldown_ms",
        "streak_cooldown_ms",
        "quote_window_ms",
        "quote_budget_cooldown_ms",
        "max_inventory_skew_ticks",
        "tp_ticks",
        "cost_ticks",
    }
    assert limits | beside == {*KEYS}
    assert not limits & beside
    assert not limits & {*GuardContext.__struct_fields__}
