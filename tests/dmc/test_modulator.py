"""The laws of modulation: precedence, context errors, foreign proposals, and never raising."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable
from enum import Enum
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ami_engine.dmc import GuardContext, RiskPolicy, modulate
from ami_engine.dmc.context import FLAG_KEYS, NAN_KEYS, NUMBER_KEYS
from ami_engine.dmc.guards import GUARDS, SEVERITY
from decision_schema.types import Action, FinalDecision, MismatchInfo, Proposal

ACT, HOLD, CANCEL, EXIT, STOP = Action.ACT, Action.HOLD, Action.CANCEL, Action.EXIT, Action.STOP
NOW = 1_723_161_255_000
Calm = Callable[..., dict[str, Any]]
Struct = Callable[..., GuardContext]

POLICY = RiskPolicy(
    max_429_per_window=3,
    max_consecutive_losses=3,
    max_drawdown_stop_usd=5,
    adverse_cooldown_ms=1_000,
    min_order_usd=0.5,
    max_open_orders=4,
    quote_cap_per_window=20,
)

# For each key a value that is calm and some that are not.
VALUES: dict[str, list[Any]] = {
    "now_ms": [NOW],
    "last_event_ts_ms": [NOW - 100, NOW - 2_000],
    "mid": [100.0, 0.0],
    "spread_bps": [5.0, 900.0, math.nan],
    "depth": [50.0, 0.5],
    "sigma_5m": [0.001, 0.5],
    "spread_med_5m": [0.05, 10.0],
    "sigma_spike_z": [0.5, 9.0],
    "cost_ticks": [1.0, 5.0],
    "tp_ticks": [2.0],
    "current_total_exposure_usd": [1.0, 8.0, 9.5, 20.0],
    "abs_inventory": [1.0, 0.0, 50.0],
    "open_orders": [2, 4],
    "daily_pnl": [0.5, -3.0],
    "drawdown_usd": [0.0, 6.0],
    "cancels_in_window": [0, 25],
    "quotes_in_window": [0, 20],
    "recent_failures": [0, 6],
    "rate_limits_in_window": [0, 3],
    "steps_in_window": [100],
    "errors_in_window": [0, 50],
    "consecutive_losses": [0, 3],
    "adverse_15_ticks": [0.0, 3.0],
    "throttle_refresh_until_ms": [0, NOW + 5],
    "streak_cooldown_until_ms": [0, NOW + 5],
    "kill_switch": [False, True],
    "ops_deny_actions": [False, True],
    "latched": [(), ("daily_loss",)],
}
# Calm values are drawn more often, so that every number of findings occurs.
contexts = st.fixed_dictionaries(
    {}, optional={key: st.one_of(*[st.just(calm[0])] * 8, st.sampled_from(calm)) for key, calm in VALUES.items()}
)
sizes = st.one_of(st.none(), st.floats(0.0, 20.0))
proposals = st.builds(
    lambda action, size: Proposal(action, 0.9, ["model"], None if size is None else {"size_usd": size}),
    st.sampled_from([ACT, HOLD, CANCEL, EXIT, STOP]),
    sizes,
)
LAWS = settings(max_examples=300, deadline=None)


@LAWS
@given(proposals, contexts)
def test_guards_only_make_a_decision_safer(proposal: Proposal, context: dict[str, Any]) -> None:
    final, mismatch = modulate(proposal, POLICY, context)
    if "no_inventory_to_exit" in mismatch.reason_codes:
        assert proposal.action is EXIT
        assert SEVERITY[final.action] >= SEVERITY[HOLD]
    else:
        assert SEVERITY[final.action] >= SEVERITY[proposal.action]
    assert final.allowed is (final.action is proposal.action)
    if final.params is not None and proposal.size_usd is not None:
        assert final.size_usd <= proposal.size_usd
    if final.action is ACT and final.size_usd is not None:
        assert final.size_usd <= POLICY.max_per_market_usd


@LAWS
@given(proposals, contexts)
def test_the_most_severe_action_wins(proposal: Proposal, context: dict[str, Any]) -> None:
    final, mismatch = modulate(proposal, POLICY, context)
    told = (mismatch.metadata or {"guards": {}})["guards"].values()
    asked = [entry["action"] for guard in told for entry in (guard, *guard.get("also", ()))]
    base = HOLD if "no_inventory_to_exit" in mismatch.reason_codes else proposal.action
    assert SEVERITY[final.action] == max((SEVERITY[a] for a in [*asked, base] if a != "clamp"), default=SEVERITY[base])


@LAWS
@given(proposals, contexts)
def test_flags_stand_in_table_order_and_agree_with_the_metadata(proposal: Proposal, context: dict[str, Any]) -> None:
    final, mismatch = modulate(proposal, POLICY, context)
    numbers = {guard.flag: guard.number for guard in GUARDS}
    assert [numbers[flag] for flag in mismatch.flags] == sorted(numbers[flag] for flag in mismatch.flags)
    codes = [code for guard in GUARDS if guard.flag in mismatch.flags for code in guard.codes]
    assert [code for code in codes if code in mismatch.reason_codes] == mismatch.reason_codes
    if not mismatch.flags:
        assert (mismatch, final.mismatch) == (MismatchInfo(), None)
        return
    assert list(mismatch.metadata["guards"]) == mismatch.flags
    assert final.mismatch == mismatch or any(value != value for value in context.values())
    quotes = {guard.flag: guard.quotes for guard in GUARDS}
    pulled = any(quotes[flag] == "pull" for flag in mismatch.flags) if final.action is HOLD else final.action is not ACT
    assert mismatch.metadata["quotes"] == ("pull" if pulled else "leave")


@LAWS
@given(proposals, contexts, st.randoms(use_true_random=False))
def test_the_order_of_the_keys_does_not_matter(
    proposal: Proposal, context: dict[str, Any], shuffle: random.Random
) -> None:
    keys = list(context)
    shuffle.shuffle(keys)
    shuffled = {key: context[key] for key in keys}
    assert repr(modulate(proposal, POLICY, shuffled)) == repr(modulate(proposal, POLICY, context))


@LAWS
@given(proposals, contexts)
def test_the_same_input_gives_the_same_output_and_stays_as_it_was(proposal: Proposal, context: dict[str, Any]) -> None:
    before = repr((proposal, context))
    struct = GuardContext(**context)
    first = repr(modulate(proposal, POLICY, struct))
    assert first == repr(modulate(proposal, POLICY, struct)) == repr(modulate(proposal, POLICY, context))
    assert repr((proposal, context)) == before
    assert repr(struct) == repr(GuardContext(**context))


@pytest.mark.parametrize("proposed", [ACT, HOLD, CANCEL, EXIT, STOP])
def test_no_guard_but_the_last_lowers_a_proposed_exit(proposed: Action, calm: Calm) -> None:
    final, mismatch = modulate(Proposal(proposed, 0.9), RiskPolicy(), calm(abs_inventory=0.0))
    assert (final.action, mismatch.flags) == ((HOLD, ["exit_no_position"]) if proposed is EXIT else (proposed, []))
    final, _ = modulate(Proposal(proposed, 0.9), RiskPolicy(), calm(spread_bps=900.0))
    assert final.action is (HOLD if proposed is ACT else proposed)


def test_an_exit_without_a_position_still_yields_to_a_stop(calm: Calm) -> None:
    final, mismatch = modulate(Proposal(EXIT, 0.9), RiskPolicy(), calm(abs_inventory=0.0, kill_switch=True))
    assert (final.action, mismatch.flags) == (STOP, ["kill_switch", "exit_no_position"])


def test_denied_actions_stop_whatever_else_fires(calm: Calm) -> None:
    context = calm(ops_deny_actions=True, spread_bps=900.0, abs_inventory=99.0)
    final, mismatch = modulate(Proposal(ACT, 0.9), RiskPolicy(), context)
    assert (final.action, final.reasons) == (STOP, ["ops_denied"])
    assert mismatch.flags == ["ops_health", "spread", "inventory"]


def test_a_proposal_that_passes_is_handed_on_as_it_is(calm_struct: Struct) -> None:
    params = {"bid_quote": 99.0, "ask_quote": 101.0, "size_usd": 1.0}
    final, mismatch = modulate(Proposal(ACT, 0.9, ["model"], params), RiskPolicy(), calm_struct())
    assert final == FinalDecision(ACT, True, ["model"], None, None, None, params)
    assert mismatch == MismatchInfo()


def test_passing_decisions_share_no_lists(calm_struct: Struct) -> None:
    _, first = modulate(Proposal(ACT, 0.9), RiskPolicy(), calm_struct())
    first.flags.append("mine")
    assert modulate(Proposal(ACT, 0.9), RiskPolicy(), calm_struct())[1].flags == []


# -- what is wrong with a context ------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", NUMBER_KEYS)
@pytest.mark.parametrize("value", [math.inf, -math.inf, 10**400, "1", [1.0], object(), 1j, np.ones(1)])
def test_a_number_that_is_none_holds_and_names_its_key(key: str, value: Any, calm: Calm, calm_struct: Struct) -> None:
    for context in (calm(**{key: value}), calm_struct(**{key: value})):
        final, mismatch = modulate(Proposal(ACT, 0.9), RiskPolicy(), context)
        assert (final.action, final.reasons) == (HOLD, [f"context_invalid:{key}"])
        assert (mismatch.flags, mismatch.reason_codes) == (["context"], [f"context_invalid:{key}"])
        assert mismatch.metadata["quotes"] == "pull"


@pytest.mark.parametrize("key", NUMBER_KEYS)
def test_nan_holds_and_only_guards_5_and_6_answer_for_it(key: str, calm: Calm, calm_struct: Struct) -> None:
    for context in (calm(**{key: math.nan}), calm_struct(**{key: math.nan})):
        final, mismatch = modulate(Proposal(ACT, 0.9), RiskPolicy(), context)
        assert final.action is HOLD
        assert mismatch.flags == ([("spread" if key == "spread_bps" else "regime")] if key in NAN_KEYS else ["context"])


@pytest.mark.parametrize("key", [*NUMBER_KEYS, "latched", *FLAG_KEYS])
def test_none_in_a_mapping_is_no_value_and_in_a_struct_nothing_known(key: str, calm: Calm, calm_struct: Struct) -> None:
    _, mismatch = modulate(Proposal(ACT, 0.9), RiskPolicy(), calm(**{key: None}))
    assert mismatch.reason_codes == [f"context_invalid:{key}"]
    assert modulate(Proposal(ACT, 0.9), RiskPolicy(), calm_struct(**{key: None}))[0].action is ACT


@pytest.mark.parametrize("key", NUMBER_KEYS)
def test_a_bool_is_no_number_in_a_mapping(key: str, calm: Calm) -> None:
    assert modulate(Proposal(ACT, 0.9), RiskPolicy(), calm(**{key: True}))[0].reasons == [f"context_invalid:{key}"]


@pytest.mark.parametrize("key", FLAG_KEYS)
@pytest.mark.parametrize("value", [0, 1, "no", "", math.nan, 0.0, []])
def test_a_flag_that_is_no_bool_holds(key: str, value: Any, calm: Calm, calm_struct: Struct) -> None:
    for context in (calm(**{key: value}), calm_struct(**{key: value})):
        assert modulate(Proposal(ACT, 0.9), RiskPolicy(), context)[0].reasons == [f"context_invalid:{key}"]


@pytest.mark.parametrize("value", ["daily_loss", "", 0, 1.0, math.nan, [1], {"daily_loss": True}])
def test_latched_must_be_a_collection_of_flags(value: Any, calm: Calm, calm_struct: Struct) -> None:
    for context in (calm(latched=value), calm_struct(latched=value)):
        assert modulate(Proposal(ACT, 0.9), RiskPolicy(), context)[0].reasons == ["context_invalid:latched"]


@pytest.mark.parametrize("value", [["daily_loss"], {"daily_loss"}, frozenset({"daily_loss"})])
def test_latched_may_be_any_collection(value: Any, calm: Calm, calm_struct: Struct) -> None:
    for context in (calm(latched=value), calm_struct(latched=value)):
        assert modulate(Proposal(ACT, 0.9), RiskPolicy(), context)[0].reasons == ["daily_loss_stop"]


def test_every_wrong_key_is_named_in_one_order(calm: Calm) -> None:
    context = dict(reversed(calm(depth="x", mid=math.inf, spread_bps="y").items()))
    _, mismatch = modulate(Proposal(ACT, 0.9), RiskPolicy(), context)
    assert mismatch.reason_codes == ["context_invalid:mid", "context_invalid:spread_bps", "context_invalid:depth"]
    assert mismatch.flags == ["context"]


def test_context_errors_stand_before_the_table_and_do_not_soften_it(calm: Calm) -> None:
    final, mismatch = modulate(Proposal(ACT, 0.9), RiskPolicy(), calm(depth="x", kill_switch=True))
    assert (final.action, mismatch.flags) == (STOP, ["context", "kill_switch"])
    assert modulate(Proposal(EXIT, 0.9), RiskPolicy(), calm(depth="x"))[0].action is EXIT


def test_numbers_of_other_libraries_are_numbers(calm: Calm) -> None:
    context = calm(depth=np.float32(50.0), open_orders=np.int64(2), spread_bps=np.float64(5.0))
    assert modulate(Proposal(ACT, 0.9), RiskPolicy(), context)[0].action is ACT


def test_keys_that_no_guard_reads_are_let_be(calm: Calm) -> None:
    context = calm(my_note="anything", another=math.nan)
    assert modulate(Proposal(ACT, 0.9), RiskPolicy(), context)[0].action is ACT
    assert modulate(Proposal(ACT, 0.9), RiskPolicy(), MappingProxyType(context))[0].action is ACT


@pytest.mark.parametrize("context", [None, 5, "text", [("depth", 5.0)]])
def test_a_context_that_is_none_holds(context: Any) -> None:
    final, _ = modulate(Proposal(ACT, 0.9), RiskPolicy(), context)
    assert (final.action, final.reasons) == (HOLD, ["context_invalid:context"])


@pytest.mark.parametrize("key", [*NUMBER_KEYS, *FLAG_KEYS, "latched"])
def test_a_required_key_that_is_missing_holds(key: str, calm: Calm, calm_struct: Struct) -> None:
    policy = RiskPolicy(required_context=(*NUMBER_KEYS, *FLAG_KEYS, "latched"))
    assert modulate(Proposal(ACT, 0.9), policy, calm())[0].action is ACT
    assert modulate(Proposal(ACT, 0.9), policy, calm_struct())[0].action is ACT
    for context in (calm(**{key: ...}), calm_struct(**{key: None})):
        final, mismatch = modulate(Proposal(ACT, 0.9), policy, context)
        assert (final.action, final.reasons) == (HOLD, [f"context_missing:{key}"])
        assert (mismatch.flags, mismatch.metadata["quotes"]) == (["context"], "pull")


def test_a_required_key_of_the_users_own(calm: Calm, calm_struct: Struct) -> None:
    policy = RiskPolicy(required_context=["model_age_s"])
    for context in (calm(), calm_struct(), calm_struct(extra={"other": 1})):
        assert modulate(Proposal(ACT, 0.9), policy, context)[0].reasons == ["context_missing:model_age_s"]
    for context in (calm(model_age_s=3), calm_struct(extra={"model_age_s": 3})):
        assert modulate(Proposal(ACT, 0.9), policy, context)[0].action is ACT


# -- what is wrong with a proposal -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [math.nan, math.inf, -1.0, "5", [5]])
def test_a_size_that_is_none_holds(size: Any, calm: Calm, calm_struct: Struct) -> None:
    for context in (calm(), calm_struct()):
        final, mismatch = modulate(Proposal(ACT, 0.9, [], {"size_usd": size}), RiskPolicy(), context)
        assert (final.action, final.reasons) == (HOLD, ["proposal_invalid:size_usd"])
        assert mismatch.flags == ["proposal"]


@pytest.mark.parametrize("action", ["BUY", None, 3, object()])
def test_an_action_that_nobody_knows_holds(action: Any, calm: Calm) -> None:
    final, mismatch = modulate(SimpleNamespace(action=action), RiskPolicy(), calm())
    assert (final.action, final.allowed, final.reasons) == (HOLD, False, ["proposal_invalid:action"])
    assert (mismatch.flags, mismatch.reason_codes) == (["proposal"], ["proposal_invalid:action"])


class ForeignAction(Enum):
    """The actions of another decision_schema, under their 0.1 names."""

    QUOTE = "QUOTE"
    FLATTEN = "FLATTEN"
    HOLD = "HOLD"
    CANCEL_ALL = "CANCEL_ALL"
    STOP = "STOP"


@dataclasses.dataclass
class ForeignProposal:
    """A proposal of contract 0.1: quotes are fields."""

    action: ForeignAction
    confidence: float = 0.9
    reasons: list[str] = dataclasses.field(default_factory=lambda: ["foreign"])
    bid_quote: float | None = None
    ask_quote: float | None = None
    size_usd: float | None = None
    post_only: bool = True


@pytest.mark.parametrize(
    ("foreign", "ours"), [("QUOTE", ACT), ("FLATTEN", EXIT), ("HOLD", HOLD), ("CANCEL_ALL", CANCEL), ("STOP", STOP)]
)
def test_foreign_actions_are_understood(foreign: str, ours: Action, calm: Calm) -> None:
    final, _ = modulate(ForeignProposal(ForeignAction(foreign)), RiskPolicy(), calm())
    assert type(final) is FinalDecision
    assert (final.action, final.allowed, final.reasons, final.params) == (ours, True, ["foreign"], None)


def test_foreign_quotes_are_clamped_too(calm: Calm, calm_struct: Struct) -> None:
    for context in (calm(), calm_struct()):
        proposal = ForeignProposal(ForeignAction.QUOTE, bid_quote=99.0, ask_quote=101.0, size_usd=7.0)
        final, mismatch = modulate(proposal, RiskPolicy(), context)
        assert mismatch.reason_codes == ["size_clamped"]
        assert final.params == {"bid_quote": 99.0, "ask_quote": 101.0, "size_usd": 5.0, "post_only": True}


def test_params_may_be_any_mapping_and_nothing_else(calm: Calm) -> None:
    good = SimpleNamespace(action="ACT", reasons=(), params=MappingProxyType({"size_usd": 9.0}))
    assert modulate(good, RiskPolicy(), calm())[0].params == {"size_usd": 5.0}
    bad = SimpleNamespace(action="ACT", reasons=(), params=[1])
    assert modulate(bad, RiskPolicy(), calm())[0].reasons == ["proposal_invalid:params"]


# -- never raising ---------------------------------------------------------------------------------------------------


class BadNumber(float):
    """A number that passes every check and then cannot be compared."""

    def __lt__(self, other: object) -> bool:
        raise RuntimeError("secret")

    __le__ = __gt__ = __ge__ = __lt__


@pytest.mark.parametrize(
    ("key", "flag"),
    [
        ("depth", "liquidity"),
        ("spread_bps", "spread"),
        ("cancels_in_window", "cancel_rate"),
        ("sigma_spike_z", "sigma_spike"),
        ("recent_failures", "circuit_breaker"),
    ],
)
def test_a_guard_that_raises_stops_and_the_others_are_heard(
    key: str, flag: str, calm: Calm, calm_struct: Struct
) -> None:
    changed = {key: BadNumber(1.0), "abs_inventory": 99.0}
    for context in (calm(**changed), calm_struct(**changed)):
        final, mismatch = modulate(Proposal(ACT, 0.9), RiskPolicy(), context)
        assert (final.action, final.reasons) == (STOP, [f"guard_error:{flag}"])
        assert set(mismatch.flags) == {flag, "inventory"}
        assert "secret" not in repr(mismatch)


class Thorny:
    """An object that fails when it is looked at."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


@pytest.mark.parametrize("arguments", [(0, Thorny()), (1, Thorny()), (1, None), (0, None), (0, 5), (2, Thorny())])
def test_modulate_never_raises(arguments: tuple[int, Any], calm: Calm) -> None:
    given: list[Any] = [Proposal(ACT, 0.9), RiskPolicy(), calm()]
    given[arguments[0]] = arguments[1]
    final, mismatch = modulate(*given)
    assert final.action in (HOLD, STOP)
    assert final.allowed is False or mismatch.reason_codes


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*NUMBER_KEYS, *FLAG_KEYS, "latched", "other"]),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.lists(st.integers())),
        max_size=8,
    ),
    st.one_of(st.none(), st.floats(), st.text(max_size=2)),
)
def test_any_rubbish_gives_a_verdict(context: dict[str, Any], size: Any) -> None:
    final, mismatch = modulate(Proposal(ACT, 0.9, [], {"size_usd": size}), RiskPolicy(), context)
    assert type(final) is FinalDecision
    assert "modulator_error" not in mismatch.reason_codes
    assert not any(code.startswith("guard_error") for code in mismatch.reason_codes)
    if final.action is ACT and final.size_usd is not None:
        assert 0.0 <= final.size_usd <= 5.0
