"""The service says what the guards say, adds the worst case and the operator, and knows no limit but the policy's."""

from __future__ import annotations

from math import inf, nan
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ami_engine.dmc import RiskPolicy, modulate
from ami_engine.dmc.context import GuardContext
from ami_engine.dmc.guards import GUARDS
from ami_engine.dmc.risk_service import LossGuard, RiskPolicyService, RiskView
from ami_engine.dmc.trading_state import STATE_TRANSITIONS, TradingGate, TradingState
from ami_engine.errors import ConfigError
from ami_engine.events import Side, SubmitOrder
from ami_engine.portfolio.exposure import ExposureLimits, MarketExposure
from ami_engine.portfolio.trading_day import TradingDay
from ami_engine.units import Instrument
from decision_schema.types import Action, Proposal

WIDE = RiskPolicy(max_total_exposure_usd=1_000.0, max_per_market_usd=500.0, max_abs_inventory=100.0)
DAY_NS = 86_400 * 10**9


def order(qty: float, price: float = 10.0, side: Side = Side.BUY, *, closes: bool = False) -> SubmitOrder:
    return SubmitOrder(client_order_id="a", market_id="X", side=side, price=price, qty=qty, reduce_only=closes)


def test_an_order_within_every_limit_is_allowed() -> None:
    decision = RiskPolicyService(WIDE).validate_intent(order(1.0), RiskView())
    assert (decision.allowed, decision.codes, decision.action) == (True, (), "ACT")


CONTEXTS = st.fixed_dictionaries(
    {},
    optional={
        "depth": st.sampled_from([0.1, 50.0]),
        "spread_bps": st.sampled_from([1.0, 900.0, nan]),
        "daily_pnl": st.sampled_from([-5.0, 0.0]),
        "recent_failures": st.sampled_from([0, 9]),
        "abs_inventory": st.sampled_from([0.0, 200.0]),
        "current_total_exposure_usd": st.sampled_from([0.0, 850.0, 2_000.0]),
        "cancels_in_window": st.sampled_from([0, 30]),
        "ops_deny_actions": st.booleans(),
        "latched": st.sampled_from([(), ("drawdown",)]),
        "equity_usd": st.sampled_from([1.0, nan]),
    },
)


@given(CONTEXTS, st.floats(0.01, 60.0), st.booleans())
def test_it_refuses_exactly_what_the_guards_refuse(context: dict[str, Any], qty: float, closes: bool) -> None:
    proposal = Proposal(Action.EXIT if closes else Action.ACT, 1.0, params={"size_usd": 10.0 * qty})
    _, mismatch = modulate(proposal, WIDE, context)
    # Held is what keeps the worst case itself out of the question.
    exposures = {"X": MarketExposure(Instrument("X"), position=-99.0, mark=1.0)}
    decision = RiskPolicyService(WIDE).validate_intent(
        order(qty, closes=closes), RiskView(context=context, exposures=exposures)
    )
    assert set(mismatch.reason_codes) <= set(decision.codes)
    assert decision.allowed is (not mismatch.reason_codes)
    assert len(decision.reasons) == len(decision.codes)


def test_every_code_of_the_guards_can_come_through() -> None:
    service = RiskPolicyService(WIDE)
    assert service.validate_intent(order(1.0), RiskView(context={"depth": 0.5})).codes == ("insufficient_depth",)
    clamped = service.validate_intent(order(60.0), RiskView())
    assert (clamped.codes, clamped.size_usd, clamped.action) == (("size_clamped",), 500.0, "ACT")
    assert "kill_switch" in {code for guard in GUARDS for code in guard.codes}
    assert service.validate_intent(order(1.0), RiskView(context=GuardContext(kill_switch=True))).action == "STOP"


def test_orders_in_flight_count_over_all_markets() -> None:
    service = RiskPolicyService(WIDE)
    view = RiskView(
        exposures={
            "X": MarketExposure(Instrument("X"), position=30.0, mark=10.0, buy_qty=20.0, buy_usd=200.0),
            "Y": MarketExposure(Instrument("Y"), mark=5.0, sell_qty=80.0, sell_usd=400.0),
        }
    )
    assert service.validate_intent(order(10.0), view).allowed
    assert service.validate_intent(order(11.0), view).codes == ("worst_case_exposure",)
    assert service.validate_intent(order(30.0, side=Side.SELL), view).allowed
    both = ("worst_case_inventory", "worst_case_exposure")
    assert service.validate_intent(order(51.0, price=0.1), view).codes == both  # valued at the mark, which is higher


@pytest.mark.parametrize("state", list(TradingState))
@pytest.mark.parametrize("side", list(Side))
def test_states_let_through_what_they_say(state: TradingState, side: Side) -> None:
    held = {"X": MarketExposure(Instrument("X"), position=5.0, mark=10.0)}
    decision = RiskPolicyService(WIDE).validate_intent(order(5.0, side=side), RiskView(exposures=held, state=state))
    assert decision.allowed is (state is TradingState.ACTIVE or (state is TradingState.REDUCING and side is Side.SELL))


def bare_order(side: Any, qty: float) -> Any:
    """An order of somebody's own making, whose side nobody has looked at."""
    return SimpleNamespace(market_id="X", side=side, price=10.0, qty=qty, reduce_only=False)


@pytest.mark.parametrize("state", ["HALTED", "halted", None, "", 0])
def test_a_state_that_is_none_lets_nothing_through(state: Any) -> None:
    gate = TradingGate(lambda market_id: MarketExposure(Instrument(market_id)))
    gate.state = state
    assert gate(order(1.0)).startswith("trading_halted")
    assert RiskPolicyService(WIDE).validate_intent(order(1.0), RiskView(state=state)).codes == ("trading_halted",)


@pytest.mark.parametrize("state", ["REDUCING", TradingState.REDUCING])
def test_the_text_of_a_state_is_that_state(state: Any) -> None:
    held = {"X": MarketExposure(Instrument("X"), position=5.0, mark=10.0)}
    gate = TradingGate(held.__getitem__)
    gate.state = state
    assert gate(order(1.0)).startswith("trading_reducing")
    assert gate(order(1.0, side=Side.SELL)) == ""
    gate.state = "ACTIVE"  # type: ignore[assignment]
    assert gate(order(1.0)) == ""
    assert RiskPolicyService(WIDE).validate_intent(order(1.0), RiskView(exposures=held, state=state)).codes == (
        "trading_reducing",
    )


@pytest.mark.parametrize("side", ["BUY", Side.BUY])
def test_the_text_of_a_side_is_under_the_limits_of_that_side(side: Any) -> None:
    held = {"X": MarketExposure(Instrument("X"), position=5.0, mark=10.0)}
    service = RiskPolicyService(msgspec.structs.replace(WIDE, max_abs_inventory=5.0))
    assert service.validate_intent(bare_order(side, 1.0), RiskView(exposures=held)).codes == ("worst_case_inventory",)
    gate = TradingGate(held.__getitem__, limits=ExposureLimits(market_qty=5.0))
    assert gate(bare_order(side, 1.0)).startswith("worst_case_inventory")


@pytest.mark.parametrize("side", ["long", None, 1])
def test_a_side_that_is_none_is_refused(side: Any) -> None:
    assert RiskPolicyService(WIDE).validate_intent(bare_order(side, 1.0), RiskView()).codes == ("intent_invalid",)
    gate = TradingGate(lambda market_id: MarketExposure(Instrument(market_id)), limits=ExposureLimits(market_qty=5.0))
    assert gate(bare_order(side, 1.0)).startswith("gate_error")


def test_a_tripped_switch_stops_even_what_closes() -> None:
    held = {"X": MarketExposure(Instrument("X"), position=5.0, mark=10.0)}
    decision = RiskPolicyService(WIDE).validate_intent(
        order(5.0, side=Side.SELL, closes=True), RiskView(exposures=held, is_killed=True)
    )
    assert (decision.allowed, decision.codes, decision.action) == (False, ("kill_switch",), "STOP")


@pytest.mark.parametrize(("qty", "price"), [(nan, 1.0), (0.0, 1.0), (-1.0, 1.0), (1.0, nan), (1.0, inf), (1.0, 0.0)])
def test_an_intent_that_is_none_is_refused(qty: float, price: float) -> None:
    assert RiskPolicyService(WIDE).validate_intent(order(qty, price), RiskView()).codes == ("intent_invalid",)


def test_a_context_that_is_malformed_is_refused() -> None:
    decision = RiskPolicyService(WIDE).validate_intent(order(1.0), RiskView(context={"equity_usd": nan}))
    assert (decision.allowed, decision.codes) == (False, ("context_invalid:equity_usd",))


def test_every_state_knows_every_command() -> None:
    assert {frozenset(row) for row in STATE_TRANSITIONS.values()} == {frozenset({"pause", "kill", "reduce", "resume"})}
    assert set(STATE_TRANSITIONS) == set(TradingState)
    assert all(row["kill"] is row["pause"] is TradingState.HALTED for row in STATE_TRANSITIONS.values())


# Losses. ------------------------------------------------------------------------------------------------------------


def test_a_days_loss_is_counted_from_the_start_of_the_day() -> None:
    day = TradingDay("America/Chicago", "17:00")
    guard = LossGuard(RiskPolicy(daily_loss_stop_usd=100.0), day=day)
    _, end_ns = day.bounds(1_715_000_000 * 10**9)
    assert guard.on_account(end_ns - 1, realized=-90.0, unrealized=0.0, equity=910.0).allowed
    assert guard.on_account(end_ns, realized=-180.0, unrealized=0.0, equity=820.0).allowed
    assert not guard.on_account(end_ns + 1, realized=-195.0, unrealized=0.0, equity=805.0).allowed
    assert not guard.on_account(end_ns + 2 * DAY_NS, realized=0.0, unrealized=0.0, equity=1_000.0).allowed
    guard.release("daily_loss", "ann", "limits reviewed")
    assert guard.on_account(end_ns + 2 * DAY_NS, realized=0.0, unrealized=0.0, equity=1_000.0).allowed


def test_a_drawdown_and_a_floor_stop_and_latch() -> None:
    guard = LossGuard(RiskPolicy(daily_loss_stop_usd=1e9, max_drawdown_stop_usd=50.0, equity_floor_usd=900.0))
    assert guard.on_account(0, realized=0.0, unrealized=0.0, equity=1_000.0).allowed
    fallen = guard.on_account(1, realized=0.0, unrealized=-120.0, equity=880.0)
    assert fallen.codes == ("drawdown_stop", "equity_floor")
    assert guard.on_account(2, realized=0.0, unrealized=0.0, equity=1_000.0).codes == ("drawdown_stop",)
    with pytest.raises(ConfigError, match="operator"):
        guard.release("drawdown", "", "")


def test_losses_in_a_row_pause() -> None:
    guard = LossGuard(RiskPolicy(max_consecutive_losses=2))
    assert guard.on_position_closed(0, -1.0).allowed
    decision = guard.on_position_closed(1, -1.0)
    assert (decision.codes, decision.action) == (("loss_streak",), "CANCEL")
    assert guard.on_position_closed(2, 1.0).allowed


@pytest.mark.parametrize("name", ["realized", "unrealized", "equity"])
def test_a_figure_that_is_no_number_is_refused(name: str) -> None:
    figures = {"realized": 0.0, "unrealized": 0.0, "equity": 1.0, name: nan}
    assert LossGuard(RiskPolicy()).on_account(0, **figures).codes == ("context_invalid",)
