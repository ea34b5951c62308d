"""Every guard at, just below and just above its limit, from one table; and the table itself."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ami_engine.dmc import GuardContext, RiskPolicy, guard_ladder, modulate
from ami_engine.dmc.context import NUMBER_KEYS
from ami_engine.dmc.guards import GUARDS, all_quiet
from ami_engine.dmc.risk_policy import policy_ranges
from decision_schema.types import Action, Proposal

ACT, HOLD, CANCEL, EXIT, STOP = Action.ACT, Action.HOLD, Action.CANCEL, Action.EXIT, Action.STOP
NOW = 1_723_161_255_000


@dataclass(frozen=True)
class Case:
    """One condition of one guard: `key` takes each of `values`, and the guard fires where the bool says so."""

    flag: str
    code: str
    result: Action
    key: str
    values: tuple[tuple[Any, bool], ...]
    policy: dict[str, Any] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)
    proposed: Action = ACT
    size_usd: float | None = 1.0
    throttle_ms: int | None = None
    cooldown_ms: int | None = None
    left_usd: float | None = None


def at_least(limit: float) -> tuple[tuple[Any, bool], ...]:
    """Fires from the limit on."""
    below, above = (limit - 1, limit + 1) if isinstance(limit, int) else _neighbours(limit)
    return (below, False), (limit, True), (above, True)


def more_than(limit: float) -> tuple[tuple[Any, bool], ...]:
    """Fires beyond the limit."""
    below, above = (limit - 1, limit + 1) if isinstance(limit, int) else _neighbours(limit)
    return (below, False), (limit, False), (above, True)


def less_than(limit: float) -> tuple[tuple[Any, bool], ...]:
    """Fires below the limit."""
    below, above = (limit - 1, limit + 1) if isinstance(limit, int) else _neighbours(limit)
    return (below, True), (limit, False), (above, False)


def at_most(limit: float) -> tuple[tuple[Any, bool], ...]:
    """Fires at the limit and below."""
    below, above = _neighbours(limit)
    return (below, True), (limit, True), (above, False)


def _neighbours(limit: float) -> tuple[float, float]:
    return math.nextafter(limit, -math.inf), math.nextafter(limit, math.inf)


COOL = {"adverse_cooldown_ms": 30_000}
SWITCH = ((False, False), (True, True))

CASES = (
    Case("ops_health", "ops_denied", STOP, "ops_deny_actions", SWITCH),
    Case("ops_health", "ops_cooldown", HOLD, "ops_cooldown_until_ms", more_than(NOW)),
    Case("ops_health", "rate_limit_429", HOLD, "rate_limits_in_window", at_least(3), {"max_429_per_window": 3}),
    Case(
        "ops_health",
        "ws_reconnect_limit",
        HOLD,
        "ws_reconnects_in_window",
        at_least(3),
        {"max_ws_reconnects_per_window": 3},
    ),
    Case("kill_switch", "kill_switch", STOP, "kill_switch", SWITCH),
    Case("kill_switch", "kill_switch", STOP, "latched", (((), False), (("kill_switch",), True), (("halted",), True))),
    Case("staleness", "staleness_exceeded", HOLD, "last_event_ts_ms", less_than(NOW - 1_000)),
    Case("staleness", "staleness_exceeded", HOLD, "now_ms", more_than(NOW), context={"last_event_ts_ms": NOW - 1_000}),
    Case("liquidity", "insufficient_depth", HOLD, "depth", less_than(1.0)),
    Case("liquidity", "insufficient_depth", HOLD, "depth_p10_5m", less_than(30.0), {"min_depth_p10_market": 30}),
    Case("spread", "spread_too_wide", HOLD, "spread_bps", more_than(500.0)),
    Case("spread", "one_sided_book", HOLD, "spread_bps", ((5.0, False), (math.nan, True))),
    Case("regime", "regime_volatile", HOLD, "sigma_5m", (*more_than(0.02), (math.nan, True))),
    Case("regime", "regime_wide", HOLD, "spread_med_5m", (*more_than(5.0), (math.nan, True))),
    Case("regime", "regime_wide", HOLD, "mid", less_than(100.0), context={"spread_med_5m": 5.0}),
    Case("regime", "regime_thin", HOLD, "depth_p10_5m", (*less_than(7.0), (math.nan, True)), {"depth_p10_5m_min": 7}),
    Case("exposure", "total_exposure_exceeded", EXIT, "current_total_exposure_usd", at_least(10.0), proposed=HOLD),
    Case("exposure", "exposure_limit", HOLD, "current_total_exposure_usd", at_least(9.0), size_usd=None),
    Case(
        "exposure", "exposure_limit", ACT, "size_usd", more_than(2.0), {}, {"current_total_exposure_usd": 7}, left_usd=2
    ),
    Case("market_size", "size_clamped", ACT, "size_usd", more_than(5.0), left_usd=5.0),
    Case("market_size", "size_clamped", HOLD, "size_usd", more_than(0.0)[1:], {"max_per_market_usd": 0}),
    Case("inventory", "inventory_limit", EXIT, "abs_inventory", at_least(10.0)),
    Case("cancel_rate", "cancel_rate_exceeded", HOLD, "cancels_in_window", at_least(20), throttle_ms=1_500),
    Case("daily_loss", "daily_loss_stop", STOP, "daily_pnl", at_most(-2.5)),
    Case("daily_loss", "daily_loss_stop", STOP, "daily_realized_pnl_usd", at_most(-2.5), context={"daily_pnl": ...}),
    Case("daily_loss", "daily_loss_stop", STOP, "latched", (((), False), (("daily_loss",), True))),
    Case("error_rate", "error_rate_exceeded", HOLD, "errors_in_window", more_than(10)),
    Case(
        "error_rate",
        "error_rate_exceeded",
        HOLD,
        "steps_in_window",
        ((9, False), (10, True), (11, True), (100, False)),
        context={"errors_in_window": 5},
    ),
    Case("circuit_breaker", "circuit_breaker", STOP, "recent_failures", at_least(5)),
    Case("circuit_breaker", "circuit_breaker", STOP, "latched", (((), False), (("circuit_breaker",), True))),
    Case("adverse_selection", "adverse_selection_15", HOLD, "adverse_15_ticks", more_than(1.0)),
    Case("adverse_selection", "adverse_selection_60", HOLD, "adverse_60_ticks", more_than(2.0)),
    Case(
        "adverse_selection",
        "adverse_selection_15",
        CANCEL,
        "adverse_15_ticks",
        more_than(1.0),
        COOL,
        cooldown_ms=30_000,
    ),
    Case("adverse_selection", "adverse_selection_15", HOLD, "adverse_15_cooldown_until_ms", more_than(NOW), COOL),
    Case("adverse_selection", "adverse_selection_60", HOLD, "adverse_60_cooldown_until_ms", more_than(NOW), COOL),
    Case("sigma_spike", "sigma_spike", HOLD, "sigma_spike_z", more_than(2.5)),
    Case("cost", "insufficient_profit_potential", HOLD, "tp_ticks", less_than(1.0)),
    Case("cost", "insufficient_profit_potential", HOLD, "cost_ticks", more_than(2.0)),
    Case(
        "cost",
        "insufficient_profit_potential",
        HOLD,
        "cost_ticks",
        ((1.25, False), (1.5, False), (1.75, True)),
        {"min_profit_ticks": 0.5},
    ),
    Case(
        "loss_streak",
        "loss_streak",
        CANCEL,
        "consecutive_losses",
        at_least(3),
        {"max_consecutive_losses": 3},
        cooldown_ms=120_000,
    ),
    Case(
        "loss_streak",
        "loss_streak",
        HOLD,
        "streak_cooldown_until_ms",
        more_than(NOW),
        {"max_consecutive_losses": 3},
    ),
    Case("drawdown", "drawdown_stop", STOP, "drawdown_usd", at_least(20.0), {"max_drawdown_stop_usd": 20}),
    Case("drawdown", "equity_floor", STOP, "equity_usd", at_most(80.0), {"equity_floor_usd": 80}),
    Case("drawdown", "drawdown_stop", STOP, "latched", (((), False), (("drawdown",), True))),
    Case("throttle", "throttle_active", HOLD, "throttle_refresh_until_ms", more_than(NOW)),
    Case("throttle", "post_fill_cooldown", HOLD, "cooldown_until_ms", more_than(NOW)),
    Case(
        "quote_budget",
        "quote_budget",
        HOLD,
        "quotes_in_window",
        at_least(30),
        {"quote_cap_per_window": 30},
        cooldown_ms=10_000,
    ),
    Case("quote_budget", "quote_budget", HOLD, "quote_budget_until_ms", more_than(NOW)),
    Case("order_limits", "max_open_orders", HOLD, "open_orders", at_least(4), {"max_open_orders": 4}),
    Case("order_limits", "max_active_markets", HOLD, "active_markets", at_least(2), {"max_active_markets": 2}),
    Case("order_limits", "below_min_order", HOLD, "size_usd", less_than(0.5), {"min_order_usd": 0.5}),
    Case(
        "exit_no_position",
        "no_inventory_to_exit",
        HOLD,
        "abs_inventory",
        ((0, True), (0.0, True), (5e-324, False)),
        proposed=EXIT,
    ),
)


def _inputs(case: Case, value: Any, calm: Any) -> tuple[Proposal, RiskPolicy, dict[str, Any]]:
    size = value if case.key == "size_usd" else case.size_usd
    context = calm(**case.context)
    if case.key != "size_usd":
        context[case.key] = value
    params = None if size is None else {"size_usd": size}
    return Proposal(case.proposed, 0.9, ["model"], params), RiskPolicy(**case.policy), context


ROWS = [pytest.param(c, v, f, id=f"{c.code}-{c.key}-{v}") for c in CASES for v, f in c.values]


@pytest.mark.parametrize(("case", "value", "fires"), ROWS)
def test_guard_fires_exactly_from_its_limit_on(case: Case, value: Any, fires: bool, calm: Any) -> None:
    proposal, policy, context = _inputs(case, value, calm)
    final, mismatch = modulate(proposal, policy, context)
    if not fires:
        assert (final.action, final.allowed, final.reasons) == (case.proposed, True, ["model"])
        assert (mismatch.flags, mismatch.reason_codes, mismatch.metadata) == ([], [], None)
        return
    guard = next(guard for guard in GUARDS if guard.flag == case.flag)
    assert (mismatch.flags, mismatch.reason_codes) == ([case.flag], [case.code])
    assert (final.action, final.allowed) == (case.result, case.result is case.proposed)
    assert (final.throttle_ms, mismatch.throttle_refresh_ms, final.cooldown_ms) == (
        case.throttle_ms,
        case.throttle_ms,
        case.cooldown_ms,
    )
    told = mismatch.metadata["guards"][case.flag]
    assert told["code"] == case.code
    assert told["action"] == ("clamp" if case.left_usd is not None else case.result)
    assert {"value", "limit"} < told.keys()
    assert mismatch.metadata["quotes"] == (
        guard.quotes if case.result is HOLD else "leave" if case.result is ACT else "pull"
    )
    if case.left_usd is not None:
        assert final.params == {"size_usd": case.left_usd}
        assert final.reasons == ["model", case.code]
    elif not final.allowed:
        assert (final.params, final.reasons) == (None, [case.code])


@pytest.mark.parametrize(("case", "value", "fires"), ROWS)
def test_struct_and_mapping_give_one_verdict(case: Case, value: Any, fires: bool, calm: Any) -> None:
    proposal, policy, context = _inputs(case, value, calm)
    # The texts, because NaN is not equal to itself.
    assert repr(modulate(proposal, policy, GuardContext(**context))) == repr(modulate(proposal, policy, context))


@pytest.mark.parametrize(("case", "value", "fires"), [row for row in ROWS if row.values[2]])
def test_ladder_tells_the_value_and_the_limit_of_what_fired(case: Case, value: Any, fires: bool, calm: Any) -> None:
    rows = guard_ladder(*_inputs(case, value, calm))
    assert [row.flag for row in rows] == [guard.flag for guard in GUARDS]
    (fired,) = (row for row in rows if row.fired)
    assert (fired.flag, [finding.code for finding in fired.findings]) == (case.flag, [case.code])
    assert fired.limits.keys() <= policy_ranges().keys()


def test_every_code_of_every_guard_has_a_case() -> None:
    for guard in GUARDS:
        assert {case.code for case in CASES if case.flag == guard.flag} == set(guard.codes), guard.flag


def test_every_action_of_every_guard_has_a_case() -> None:
    for guard in GUARDS:
        asked = {
            "clamp" if case.left_usd is not None else case.result.value for case in CASES if case.flag == guard.flag
        }
        assert asked == set(guard.action), guard.flag


DOCUMENTED_ORDER = """
    ops_health kill_switch staleness liquidity spread regime exposure market_size inventory cancel_rate daily_loss
    error_rate circuit_breaker adverse_selection sigma_spike cost loss_streak drawdown throttle quote_budget
    order_limits exit_no_position
"""


def test_the_order_of_the_table_is_the_documented_one() -> None:
    assert [guard.flag for guard in GUARDS] == DOCUMENTED_ORDER.split()
    assert [guard.number for guard in GUARDS] == list(range(1, 23))


def test_quotes_are_pulled_where_the_book_or_the_feed_is_not_to_be_trusted() -> None:
    pulled = [guard.flag for guard in GUARDS if guard.quotes == "pull"]
    assert pulled == ["ops_health", "staleness", "liquidity", "spread", "regime", "adverse_selection", "sigma_spike"]
    for guard in GUARDS:
        assert bool(guard.quotes) == (HOLD in guard.action), guard.flag


def test_every_number_of_the_context_is_read_by_a_guard() -> None:
    read = {key for guard in GUARDS for key in guard.reads}
    # Guard 11 reads the realized part only where the whole is not known.
    assert read | {"daily_realized_pnl_usd"} == {*NUMBER_KEYS, "ops_deny_actions", "kill_switch", "latched"}


@pytest.mark.parametrize("flag", [guard.flag for guard in GUARDS])
def test_a_guard_says_nothing_when_nothing_is_known(flag: str) -> None:
    for action in (ACT, HOLD, CANCEL, EXIT, STOP):
        rows = guard_ladder(Proposal(action, 0.9), RiskPolicy(), {})
        assert not next(row for row in rows if row.flag == flag).fired


OFF = {
    "max_429_per_window": ("rate_limits_in_window", 10**6),
    "max_ws_reconnects_per_window": ("ws_reconnects_in_window", 10**6),
    "min_depth_p10_market": ("depth_p10_5m", 0.0),
    "depth_p10_5m_min": ("depth_p10_5m", 0.0),
    "sigma_5m_max": ("sigma_5m", 1e9),
    "spread_med_5m_max_bps": ("spread_med_5m", 1e9),
    "max_consecutive_losses": ("consecutive_losses", 10**6),
    "max_drawdown_stop_usd": ("drawdown_usd", 1e9),
    "equity_floor_usd": ("equity_usd", -1e9),
    "quote_cap_per_window": ("quotes_in_window", 10**6),
    "max_open_orders": ("open_orders", 10**6),
    "max_active_markets": ("active_markets", 10**6),
}


@pytest.mark.parametrize(("limit", "key", "value"), [(limit, *extreme) for limit, extreme in OFF.items()])
def test_a_limit_of_zero_is_off(limit: str, key: str, value: float, calm: Any) -> None:
    final, _ = modulate(Proposal(ACT, 0.9), RiskPolicy(**{limit: 0}), calm(**{key: value}))
    assert final.action is ACT


def test_the_smaller_clamp_wins_and_the_smallest_order_is_judged_after_it(calm: Any) -> None:
    proposal = Proposal(ACT, 0.9, [], {"size_usd": 8.0, "bid_quote": 1.0})
    final, mismatch = modulate(proposal, RiskPolicy(), calm(current_total_exposure_usd=7.0))
    assert mismatch.flags == ["exposure", "market_size"]
    assert final.params == {"size_usd": 2.0, "bid_quote": 1.0}
    assert proposal.params == {"size_usd": 8.0, "bid_quote": 1.0}
    held, mismatch = modulate(proposal, RiskPolicy(min_order_usd=2.5), calm(current_total_exposure_usd=7.0))
    assert (held.action, held.reasons) == (HOLD, ["below_min_order"])
    assert mismatch.flags == ["exposure", "market_size", "order_limits"]


def test_several_findings_of_one_guard_are_all_told(calm: Any) -> None:
    context = calm(adverse_15_ticks=3.0, adverse_60_ticks=4.0)
    _, mismatch = modulate(Proposal(ACT, 0.9), RiskPolicy(), context)
    assert mismatch.flags == ["adverse_selection"]
    assert mismatch.reason_codes == ["adverse_selection_15", "adverse_selection_60"]
    told = mismatch.metadata["guards"]["adverse_selection"]
    assert (told["value"], told["limit"], told["also"][0]["value"]) == (3.0, 1.0, 4.0)


def test_cost_falls_back_on_the_policy(calm: Any) -> None:
    context = calm(tp_ticks=..., cost_ticks=...)
    assert modulate(Proposal(ACT, 0.9), RiskPolicy(), context)[0].action is ACT
    assert modulate(Proposal(ACT, 0.9), RiskPolicy(tp_ticks=0.9), context)[0].reasons == [
        "insufficient_profit_potential"
    ]
    assert modulate(Proposal(ACT, 0.9), RiskPolicy(cost_ticks=1.1), context)[0].reasons == [
        "insufficient_profit_potential"
    ]


def test_cost_and_size_are_asked_of_an_act_only(calm: Any) -> None:
    policy = RiskPolicy(min_order_usd=2)
    for size in (0.1, 100.0):
        final, mismatch = modulate(Proposal(EXIT, 0.9, [], {"size_usd": size}), policy, calm(tp_ticks=0.0))
        assert (final.action, mismatch.flags) == (EXIT, [])


# Values around every limit of POLICY below, so that draws often fall on one.
POLICY = RiskPolicy(
    max_429_per_window=2,
    max_ws_reconnects_per_window=2,
    min_depth_p10_market=1,
    depth_p10_5m_min=2,
    max_consecutive_losses=2,
    max_drawdown_stop_usd=2,
    equity_floor_usd=1,
    quote_cap_per_window=2,
    max_open_orders=2,
    max_active_markets=2,
    min_order_usd=1,
    cancel_rate_limit=2,
    circuit_breaker_failures=2,
    staleness_ms=2,
    max_total_exposure_usd=4,
    exposure_headroom_frac=0.75,
    max_per_market_usd=2,
    max_abs_inventory=3,
    max_spread_bps=3,
    sigma_5m_max=2,
    spread_med_5m_max_bps=10_000,
    error_rate_max=0.5,
)
numbers = st.sampled_from([-3.0, -1, 0, 0.5, 1, 1.0, 1.5, 2, 2.5, 3.0, 4, 5.5, 10, 20.0])
known = st.fixed_dictionaries(
    dict.fromkeys(NUMBER_KEYS, numbers),
    optional={"kill_switch": st.just(False), "ops_deny_actions": st.just(False), "latched": st.just(())},
)
mostly_calm = known.flatmap(
    lambda drawn: st.lists(st.sampled_from(NUMBER_KEYS), max_size=6).map(
        lambda keys: {**_QUIET_NUMBERS, **{key: drawn[key] for key in keys}}
    )
)
_QUIET_NUMBERS = {
    **dict.fromkeys(NUMBER_KEYS, 0.0),
    "mid": 1.0,
    "depth": 2.0,
    "depth_p10_5m": 2.0,
    "equity_usd": 2.0,
    "tp_ticks": 1.0,
    "abs_inventory": 1.0,
}


@settings(max_examples=400, deadline=None)
@given(st.one_of(known, mostly_calm), st.sampled_from(list(Action)), st.sampled_from([None, 0.0, 0.5, 1.0, 2.0, 2.5]))
def test_the_one_pass_check_says_what_the_functions_say(
    values: dict[str, Any], action: Action, size: float | None
) -> None:
    context = GuardContext(**values)
    findings = [finding for guard in GUARDS for finding in guard.function(context, POLICY, action, size)]
    assert all_quiet(context, POLICY, action, size) is (not findings)


@settings(max_examples=200, deadline=None)
@given(mostly_calm, st.sampled_from(list(Action)), st.sampled_from([None, 0.5, 1.0, 2.0, 2.5]))
def test_each_expression_says_what_its_function_says(
    values: dict[str, Any], action: Action, size: float | None
) -> None:
    context = GuardContext(**values)
    names = {"ACT": ACT, "EXIT": EXIT, "c": context, "p": POLICY, "action": action, "size": size}
    for guard in GUARDS:
        if guard.flag == "order_limits":  # judges the clamped size, which only the joined check implies
            continue
        assert eval(guard.quiet, names) is (not guard.function(context, POLICY, action, size)), guard.flag
