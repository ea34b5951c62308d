"""What the guards count: windows, markouts, streaks, cooldowns, latches, and their snapshot."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ami_engine.dmc import GuardContext, RiskPolicy, RiskState, modulate
from ami_engine.dmc.context import NUMBER_KEYS
from ami_engine.errors import ConfigError
from ami_engine.events import Fill, Side
from decision_schema.types import Action, FinalDecision, MismatchInfo, Proposal

MS = 1_000_000
S = 1_000 * MS
DAY = 86_400 * S
# An hour after midnight UTC of a day.
T0 = 19_944 * DAY + 3_600 * S
PROPOSED = Proposal(Action.ACT, 0.9, ["model"])


def fill(side: Side = Side.BUY, qty: float = 1.0, price: float = 100.0) -> Fill:
    return Fill(trade_id="t", client_order_id="c", market_id="X", side=side, price=price, qty=qty)


def told(state: RiskState, now_ns: int) -> GuardContext:
    context = GuardContext()
    state.fill_context(context, now_ns)
    return context


def stepped(state: RiskState, policy: RiskPolicy, now_ns: int, **changed: Any) -> FinalDecision:
    """Decide as the loop does: the state's keys, the verdict, and the verdict back into the state."""
    context = told(state, now_ns)
    for key, value in changed.items():
        setattr(context, key, value)
    final, mismatch = modulate(PROPOSED, policy, context)
    state.on_verdict(now_ns, PROPOSED, final, mismatch)
    return final


def test_a_new_state_lets_everything_pass() -> None:
    state = RiskState(RiskPolicy(), 0.01)
    state.on_event(T0)
    state.on_account(T0, 0.0, 0.0, 100.0)
    assert stepped(state, RiskPolicy(), T0).action is Action.ACT


def test_every_number_that_the_state_owns_is_written() -> None:
    state = RiskState(RiskPolicy(), 0.01)
    state.on_event(T0)
    state.on_account(T0, 0.0, 0.0, 100.0)
    context = told(state, T0 + 5 * MS)
    of_features = "mid spread_bps depth depth_p10_5m sigma_5m spread_med_5m sigma_spike_z cost_ticks"
    of_the_loop = "tp_ticks current_total_exposure_usd abs_inventory open_orders active_markets"
    unknown = {key for key in NUMBER_KEYS if getattr(context, key) is None}
    assert unknown == {*of_features.split(), *of_the_loop.split()}
    assert (context.now_ms, context.last_event_ts_ms) == (T0 // MS + 5, T0 // MS)
    assert (context.kill_switch, context.latched) == (False, ())


COUNTERS: list[tuple[str, str, int]] = [
    ("on_cancels", "cancels_in_window", 10_000),
    ("on_failure", "recent_failures", 60_000),
    ("on_rate_limit", "rate_limits_in_window", 60_000),
    ("on_reconnect", "ws_reconnects_in_window", 60_000),
]


@pytest.mark.parametrize(("method", "key", "window_ms"), COUNTERS)
def test_an_event_counts_for_its_window_and_no_longer(method: str, key: str, window_ms: int) -> None:
    state = RiskState(RiskPolicy(), 0.01)
    call: Callable[..., None] = getattr(state, method)
    more = (2,) if method == "on_cancels" else ()
    call(T0, *more)
    call(T0 + 5 * MS, *more)
    each = 2 if more else 1
    assert getattr(told(state, T0 + 5 * MS), key) == 2 * each
    assert getattr(told(state, T0 + window_ms * MS - 1), key) == 2 * each
    assert getattr(told(state, T0 + window_ms * MS), key) == each
    assert getattr(told(state, T0 + (window_ms + 5) * MS), key) == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4_000), st.integers(0, 5)), max_size=80))
def test_counts_are_those_of_a_rescan(steps: list[tuple[int, int]]) -> None:
    state = RiskState(RiskPolicy(), 0.01)
    now, seen = T0, []
    for delta_ms, n in steps:
        now += delta_ms * MS
        state.on_cancels(now, n)
        seen += [now] * n
        assert told(state, now).cancels_in_window == sum(t > now - 10_000 * MS for t in seen)


def test_a_flood_is_counted_up_to_a_bound_beyond_the_limit() -> None:
    policy = RiskPolicy(cancel_rate_limit=5_000)
    state = RiskState(policy, 0.01)
    state.on_cancels(T0, 10**9)
    for _ in range(3_000):
        state.on_failure(T0)
    context = told(state, T0)
    assert context.cancels_in_window == 5_000
    assert policy.circuit_breaker_failures < context.recent_failures <= 1_024
    assert len(state.snapshot()) < 100_000


def test_errors_are_counted_over_the_last_steps() -> None:
    state = RiskState(RiskPolicy(error_window_steps=10), 0.01)
    for i in range(25):
        state.on_step(T0, i in (14, 15, 16))
        context = told(state, T0)
        assert context.steps_in_window == min(i + 1, 10)
        assert context.errors_in_window == sum(j in (14, 15, 16) for j in range(max(0, i - 9), i + 1))


def test_only_acts_use_the_quote_budget_and_the_hold_is_not_prolonged() -> None:
    policy = RiskPolicy(quote_cap_per_window=3)
    state = RiskState(policy, 0.01)
    for i in range(3):
        assert stepped(state, policy, T0 + i).action is Action.ACT
    held = stepped(state, policy, T0 + 3)
    assert (held.reasons, held.cooldown_ms) == (["quote_budget"], 10_000)
    later = stepped(state, policy, T0 + 9_999 * MS)
    assert (later.reasons, later.cooldown_ms) == (["quote_budget"], None)
    assert told(state, T0 + 9_999 * MS).quotes_in_window == 3
    # The hold is over at 10 s, and the window still full: another begins. At 60 s the window is empty.
    assert stepped(state, policy, T0 + 10_001 * MS).cooldown_ms == 10_000
    assert stepped(state, policy, T0 + 61_000 * MS).action is Action.ACT


def test_the_cancel_rate_throttles() -> None:
    policy = RiskPolicy()
    state = RiskState(policy, 0.01)
    state.on_cancels(T0, 20)
    assert stepped(state, policy, T0).throttle_ms == 1_500
    assert told(state, T0).throttle_refresh_until_ms == T0 // MS + 1_500
    # The cancels have left their window 10 s later, and with them the throttle.
    assert stepped(state, policy, T0 + 9_999 * MS).reasons == ["cancel_rate_exceeded"]
    assert stepped(state, policy, T0 + 10_000 * MS).reasons == ["throttle_active"]
    assert stepped(state, policy, T0 + 11_499 * MS).action is Action.ACT


def test_a_fill_begins_the_pause_after_a_fill() -> None:
    state = RiskState(RiskPolicy(), 0.01, post_fill_cooldown_ms=500)
    state.on_fill(T0, fill(), 100.0)
    assert stepped(state, RiskPolicy(), T0 + 499 * MS).reasons == ["post_fill_cooldown"]
    assert stepped(state, RiskPolicy(), T0 + 500 * MS).action is Action.ACT


@pytest.mark.parametrize("method", ["on_rate_limit", "on_reconnect"])
def test_operations_pause_after_a_429_and_a_reconnect(method: str) -> None:
    policy = RiskPolicy(ops_cooldown_ms=2_000)
    state = RiskState(policy, 0.01)
    getattr(state, method)(T0)
    assert stepped(state, policy, T0 + 1_999 * MS).reasons == ["ops_cooldown"]
    assert stepped(state, policy, T0 + 2_000 * MS).action is Action.ACT


# -- adverse selection -----------------------------------------------------------------------------------------------


def test_a_buy_before_a_fall_is_adverse_once_the_horizon_has_passed() -> None:
    state = RiskState(RiskPolicy(), 0.5)
    state.on_book(T0, 100.0)
    state.on_fill(T0, fill(Side.BUY), 100.0)
    state.on_book(T0 + 14 * S, 98.0)
    assert told(state, T0 + 15 * S - 1).adverse_15_ticks == 0.0
    context = told(state, T0 + 15 * S)
    assert (context.adverse_15_ticks, context.adverse_60_ticks) == (4.0, 0.0)
    state.on_book(T0 + 60 * S, 99.0)
    context = told(state, T0 + 60 * S)
    assert (context.adverse_15_ticks, context.adverse_60_ticks) == (4.0, 2.0)


def test_a_sell_is_adverse_when_the_market_rises_and_a_gain_is_not() -> None:
    for side, mid, adverse in ((Side.SELL, 101.0, 2.0), (Side.SELL, 99.0, 0.0), (Side.BUY, 101.0, 0.0)):
        state = RiskState(RiskPolicy(), 0.5)
        state.on_fill(T0, fill(side), 100.0)
        state.on_book(T0 + S, mid)
        assert told(state, T0 + 15 * S).adverse_15_ticks == adverse


def test_the_mid_is_the_last_one_at_or_before_the_horizon() -> None:
    state = RiskState(RiskPolicy(), 1.0)
    state.on_fill(T0, fill(), 100.0)
    state.on_book(T0 + 15 * S - 1, 97.0)
    state.on_book(T0 + 15 * S + 1, 50.0)
    assert told(state, T0 + 16 * S).adverse_15_ticks == 3.0
    state = RiskState(RiskPolicy(), 1.0)
    state.on_fill(T0, fill(), 100.0)
    state.on_book(T0 + 15 * S - 1, 97.0)
    state.on_book(T0 + 15 * S, 95.0)
    state.on_book(T0 + 15 * S + 1, 50.0)
    assert told(state, T0 + 16 * S).adverse_15_ticks == 5.0


def test_fills_weigh_by_their_size() -> None:
    state = RiskState(RiskPolicy(), 1.0)
    state.on_fill(T0, fill(Side.BUY, 3.0), 100.0)
    state.on_fill(T0, fill(Side.SELL, 1.0), 100.0)
    state.on_book(T0 + S, 98.0)
    assert told(state, T0 + 15 * S).adverse_15_ticks == pytest.approx((3 * 2 - 1 * 2) / 4)


def test_the_guard_releases_when_fills_leave_the_window() -> None:
    state = RiskState(RiskPolicy(), 1.0)
    state.on_fill(T0, fill(), 100.0)
    state.on_book(T0 + S, 90.0)
    assert told(state, T0 + 600 * S - 1).adverse_15_ticks == 10.0
    context = told(state, T0 + 600 * S)
    assert (context.adverse_15_ticks, context.adverse_60_ticks) == (0.0, 0.0)


def test_at_most_256_fills_are_remembered() -> None:
    state = RiskState(RiskPolicy(), 1.0)
    for _ in range(256):
        state.on_fill(T0, fill(), 100.0)
    state.on_book(T0 + S, 90.0)
    assert told(state, T0 + 15 * S).adverse_15_ticks == 10.0
    for i in range(256):
        state.on_fill(T0 + 16 * S + i, fill(), 90.0)
    assert told(state, T0 + 17 * S).adverse_15_ticks == 0.0
    size = len(state.snapshot())
    for i in range(1_000):
        state.on_fill(T0 + 18 * S + i, fill(), 90.0)
    assert len(state.snapshot()) <= size


@pytest.mark.parametrize("mid", [math.nan, math.inf, 0.0, -1.0])
def test_a_mid_that_is_none_changes_nothing(mid: float) -> None:
    state = RiskState(RiskPolicy(), 1.0)
    state.on_fill(T0, fill(), 100.0)
    state.on_book(T0 + S, 98.0)
    state.on_book(T0 + 2 * S, mid)
    state.on_fill(T0 + 2 * S, fill(), mid)
    assert told(state, T0 + 30 * S).adverse_15_ticks == 2.0


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 20_000), st.sampled_from(["book", "buy", "sell", "look"]), st.integers(90, 110)),
        max_size=60,
    )
)
def test_adverse_selection_is_that_of_a_rescan(steps: list[tuple[int, str, int]]) -> None:
    state = RiskState(RiskPolicy(adverse_window_ms=120_000), 0.5)
    now, mids, fills = T0, [], []
    for delta_ms, kind, number in steps:
        now += (delta_ms + 1) * MS
        if kind == "book":
            mids.append((now, float(number)))
            state.on_book(now, float(number))
        elif kind in ("buy", "sell") and mids:
            fills.append((now, 1 if kind == "buy" else -1, number - 80.0, mids[-1][1]))
            state.on_fill(now, fill(Side.BUY if kind == "buy" else Side.SELL, number - 80.0), mids[-1][1])
        context = told(state, now)
        for seconds, seen in ((15, context.adverse_15_ticks), (60, context.adverse_60_ticks)):
            marked = [
                (qty, sign * (at_fill - [mid for t, mid in mids if t <= ts + seconds * S][-1]) / 0.5)
                for ts, sign, qty, at_fill in fills
                if ts > now - 120 * S and ts + seconds * S <= now
            ]
            mean = sum(q * m for q, m in marked) / sum(q for q, _ in marked) if marked else 0.0
            assert seen == pytest.approx(max(0.0, mean), abs=1e-12)


def test_the_adverse_cooldown_cancels_once_then_holds_then_asks_again() -> None:
    policy = RiskPolicy(adverse_cooldown_ms=5_000)
    state = RiskState(policy, 1.0)
    state.on_fill(T0, fill(), 100.0)
    state.on_book(T0 + S, 90.0)
    start = T0 + 15 * S
    assert stepped(state, policy, start).action is Action.CANCEL
    held = stepped(state, policy, start + 1)
    assert (held.action, held.reasons) == (Action.HOLD, ["adverse_selection_15"])
    assert stepped(state, policy, start + 4_999 * MS).action is Action.HOLD
    assert stepped(state, policy, start + 5_000 * MS).action is Action.CANCEL


# -- losses ----------------------------------------------------------------------------------------------------------


def test_a_streak_cancels_once_holds_and_is_forgotten_when_its_cooldown_ends() -> None:
    policy = RiskPolicy(max_consecutive_losses=2)
    state = RiskState(policy, 0.01)
    state.on_position_closed(T0, -1.0)
    assert stepped(state, policy, T0).action is Action.ACT
    state.on_position_closed(T0, -0.1)
    assert stepped(state, policy, T0).action is Action.CANCEL
    assert stepped(state, policy, T0 + 1).action is Action.HOLD
    assert stepped(state, policy, T0 + 119_999 * MS).reasons == ["loss_streak"]
    assert stepped(state, policy, T0 + 120_000 * MS).action is Action.ACT
    assert told(state, T0 + 120_000 * MS).consecutive_losses == 0


@pytest.mark.parametrize("realized", [0.0, 1.0])
def test_a_position_that_is_no_loss_ends_the_streak(realized: float) -> None:
    state = RiskState(RiskPolicy(), 0.01)
    for amount in (-1.0, -1.0, realized):
        state.on_position_closed(T0, amount)
    assert told(state, T0).consecutive_losses == 0


def test_the_days_profit_begins_anew_at_midnight_utc() -> None:
    state = RiskState(RiskPolicy(), 0.01)
    midnight = T0 - T0 % DAY + DAY
    state.on_account(T0, -1.0, -0.5, 98.5)
    assert told(state, T0).daily_pnl == -1.5
    assert told(state, midnight - 1).daily_pnl == -1.5
    context = told(state, midnight)
    assert (context.daily_pnl, context.daily_realized_pnl_usd) == (0.0, 0.0)
    state.on_account(midnight + 1, -1.0, -2.0, 97.0)
    assert told(state, midnight + 1).daily_pnl == -1.5
    # A wall clock that steps back over midnight does not begin the day before anew.
    state.on_account(midnight - 5, -1.0, -2.5, 96.5)
    assert told(state, midnight - 5).daily_pnl == -2.0


def test_a_fill_counts_as_realized_at_once_and_the_account_has_the_last_word() -> None:
    state = RiskState(RiskPolicy(), 0.01)
    state.on_account(T0, 0.0, -2.0, 98.0)
    state.on_fill(T0, fill(), 100.0, -2.0)
    context = told(state, T0)
    # The loss was counted as unrealized: it is not counted twice.
    assert (context.daily_realized_pnl_usd, context.daily_pnl) == (-2.0, -2.0)
    state.on_account(T0, -2.0, 0.0, 98.0)
    context = told(state, T0)
    assert (context.daily_realized_pnl_usd, context.daily_pnl) == (-2.0, -2.0)


def test_drawdown_is_from_the_highest_equity() -> None:
    state = RiskState(RiskPolicy(), 0.01)
    assert told(state, T0).drawdown_usd == 0.0
    for equity, drawdown in ((100.0, 0.0), (90.0, 10.0), (110.0, 0.0), (95.0, 15.0)):
        state.on_account(T0, 0.0, 0.0, equity)
        context = told(state, T0)
        assert (context.drawdown_usd, context.equity_usd) == (drawdown, equity)


# -- latches ---------------------------------------------------------------------------------------------------------


def test_a_daily_loss_latches_over_the_change_of_day_and_a_restart() -> None:
    policy = RiskPolicy()
    state = RiskState(policy, 0.01)
    state.on_account(T0, -2.5, 0.0, 97.5)
    assert stepped(state, policy, T0).reasons == ["daily_loss_stop"]
    tomorrow = T0 + DAY
    state.on_account(tomorrow, -2.5, 0.0, 97.5)
    assert told(state, tomorrow).daily_pnl == 0.0
    again = RiskState(policy, 0.01)
    again.restore(state.snapshot())
    for one in (state, again):
        assert one.latches() == ("daily_loss",)
        assert stepped(one, policy, tomorrow).reasons == ["daily_loss_stop"]
        latch = one.release("daily_loss", "ann", "looked into it")
        assert (latch.name, latch.since_ns) == ("daily_loss", T0)
        assert stepped(one, policy, tomorrow).action is Action.ACT


TRIPS: list[tuple[str, str, Callable[[RiskState], Any]]] = [
    ("circuit_breaker", "circuit_breaker", lambda state: [state.on_failure(T0) for _ in range(5)]),
    ("daily_loss", "daily_loss_stop", lambda state: state.on_account(T0, -9.0, 0.0, 100.0)),
    (
        "drawdown",
        "drawdown_stop",
        lambda state: [state.on_account(T0, 0.0, 0.0, equity) for equity in (100.0, 92.0)],
    ),
    ("kill_switch", "kill_switch", lambda state: state.latch("kill_switch", T0, "operator")),
]


@pytest.mark.parametrize(("name", "code", "trip"), TRIPS)
def test_a_latch_goes_on_until_it_is_released_and_counts_anew_then(
    name: str, code: str, trip: Callable[[RiskState], Any]
) -> None:
    policy = RiskPolicy(max_drawdown_stop_usd=8)
    state = RiskState(policy, 0.01)
    trip(state)
    assert stepped(state, policy, T0).reasons == [code]
    assert state.latches() == (name,)
    later = T0 + 300 * S
    assert stepped(state, policy, later).reasons == [code]
    state.release(name, "ann", "checked")
    assert state.latches() == ()
    assert stepped(state, policy, later).action is Action.ACT
    trip(state)
    # The day's loss is counted from the release: the same figures are no further loss.
    assert stepped(state, policy, T0).reasons == (["model"] if name == "daily_loss" else [code])


def test_denied_actions_do_not_latch() -> None:
    state = RiskState(RiskPolicy(), 0.01)
    assert stepped(state, RiskPolicy(), T0, ops_deny_actions=True).action is Action.STOP
    assert state.latches() == ()
    assert stepped(state, RiskPolicy(), T0).action is Action.ACT


@pytest.mark.parametrize(
    ("proposed", "mismatch"),
    [
        (Action.STOP, MismatchInfo()),
        (Action.STOP, MismatchInfo(["ops_health"], ["ops_denied"])),
        (Action.ACT, MismatchInfo(["spread"], ["guard_error:spread"])),
        (Action.ACT, MismatchInfo(["daily_loss"], ["guard_error:daily_loss"])),
        (Action.ACT, MismatchInfo(["mine"], ["mine"])),
    ],
)
def test_any_other_stop_latches_the_kill_switch(proposed: Action, mismatch: MismatchInfo) -> None:
    state = RiskState(RiskPolicy(), 0.01)
    state.on_verdict(T0, Proposal(proposed, 0.9), FinalDecision(Action.STOP), mismatch)
    assert state.latches() == ("kill_switch",)
    assert stepped(state, RiskPolicy(), T0).reasons == ["kill_switch"]


def test_releasing_needs_a_latch_an_operator_and_a_reason() -> None:
    state = RiskState(RiskPolicy(), 0.01)
    with pytest.raises(ConfigError, match="'kill_switch' is not latched; latched: nothing"):
        state.release("kill_switch", "ann", "why")
    state.latch("kill_switch", T0, "operator")
    state.latch("kill_switch", T0 + 1, "again")
    for operator, reason in (("", "why"), ("ann", " ")):
        with pytest.raises(ConfigError, match="operator and a reason"):
            state.release("kill_switch", operator, reason)
    assert state.latches() == ("kill_switch",)
    assert state.release("kill_switch", "ann", "why").reason == "operator"
    with pytest.raises(ConfigError, match="must be one of kill_switch, daily_loss"):
        state.latch("nonsense", T0, "x")


# -- snapshot --------------------------------------------------------------------------------------------------------

operations = st.lists(
    st.tuples(
        st.integers(0, 40_000),
        st.sampled_from(
            ["book", "buy", "sell", "cancels", "failure", "limit", "reconnect", "error", "closed", "account", "decide"]
        ),
        st.integers(-5, 5),
    ),
    max_size=60,
)


def _apply(state: RiskState, policy: RiskPolicy, now: int, kind: str, number: int) -> str:
    if kind == "book":
        state.on_event(now)
        state.on_book(now, 100.0 + number)
    elif kind in ("buy", "sell"):
        state.on_fill(now, fill(Side.BUY if kind == "buy" else Side.SELL, 1.0 + abs(number)), 100.0, number / 10)
    elif kind == "cancels":
        state.on_cancels(now, number)
    elif kind == "failure":
        state.on_failure(now)
    elif kind == "limit":
        state.on_rate_limit(now)
    elif kind == "reconnect":
        state.on_reconnect(now)
    elif kind == "error":
        state.on_step(now, number > 0)
    elif kind == "closed":
        state.on_position_closed(now, float(number))
    elif kind == "account":
        state.on_account(now, number / 4, number / 3, 100.0 + number)
    else:
        return repr(stepped(state, policy, now))
    return repr(told(state, now))


@settings(max_examples=150, deadline=None)
@given(operations, st.integers(0, 60))
def test_a_restored_state_goes_on_as_if_it_had_never_stopped(steps: list[tuple[int, str, int]], cut: int) -> None:
    policy = RiskPolicy(
        max_consecutive_losses=2,
        adverse_cooldown_ms=20_000,
        quote_cap_per_window=5,
        cancel_rate_limit=6,
        ops_cooldown_ms=3_000,
        max_drawdown_stop_usd=8,
        adverse_window_ms=100_000,
        error_window_steps=12,
    )
    one = RiskState(policy, 0.5, post_fill_cooldown_ms=700)
    now = T0
    other = one
    for i, (delta_ms, kind, number) in enumerate(steps):
        now += delta_ms * MS
        if i == cut:
            other = RiskState(policy, 0.5, post_fill_cooldown_ms=700)
            other.restore(one.snapshot())
            assert other.snapshot() == one.snapshot()
        seen = _apply(one, policy, now, kind, number)
        if other is not one:
            assert _apply(other, policy, now, kind, number) == seen
    assert other.snapshot() == one.snapshot()


def test_a_snapshot_that_is_damaged_is_refused_and_changes_nothing() -> None:
    state = RiskState(RiskPolicy(), 0.01)
    state.on_failure(T0)
    good = state.snapshot()
    state.on_failure(T0)
    before = state.snapshot()
    for bad in (
        b"",
        good[:-1],
        good + b"x",
        b"X" + good[1:],
        good[:7] + b"\x09" + good[8:],
        good[:-3] + b"abc",
        good[:9],
    ):
        with pytest.raises(ValueError, match="risk state"):
            state.restore(bad)
    assert state.snapshot() == before
    state.restore(good)
    assert state.snapshot() == good


def test_a_snapshot_of_another_tick_size_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"of tick size 0\.01, this market's is 0\.5"):
        RiskState(RiskPolicy(), 0.5).restore(RiskState(RiskPolicy(), 0.01).snapshot())


@pytest.mark.parametrize("tick_size", [0.0, -1.0, math.nan, math.inf])
def test_the_tick_size_must_be_positive(tick_size: float) -> None:
    with pytest.raises(ConfigError, match="tick_size"):
        RiskState(RiskPolicy(), tick_size)


def test_the_pause_after_a_fill_must_not_be_negative() -> None:
    with pytest.raises(ConfigError, match="post_fill_cooldown_ms"):
        RiskState(RiskPolicy(), 0.01, post_fill_cooldown_ms=-1)


# One account. -------------------------------------------------------------------------------------------------------


def test_markets_of_one_account_share_the_day_and_the_drawdown() -> None:
    one = RiskState(RiskPolicy(), 0.01)
    two = RiskState(RiskPolicy(), 0.5, account=one)
    one.on_account(1, 10.0, 0.0, 110.0)
    one.on_account(DAY + 1, 4.0, 0.0, 104.0)
    for state in (one, two):
        context = GuardContext()
        state.fill_context(context, DAY + 2)
        assert (context.daily_pnl, context.drawdown_usd) == (-6.0, 6.0)


def test_an_older_state_of_another_market_does_not_turn_the_account_back() -> None:
    one = RiskState(RiskPolicy(), 0.01)
    two = RiskState(RiskPolicy(), 0.01, account=one)
    one.on_account(1, 10.0, 0.0, 110.0)
    old = two.snapshot()
    one.on_account(DAY + 1, 4.0, 0.0, 104.0)
    newest = one.account_snapshot()
    two.restore(old)
    context = GuardContext()
    two.fill_context(context, DAY + 2)
    assert context.daily_pnl == -6.0
    fresh = RiskState(RiskPolicy(), 0.01)
    fresh.restore_account(newest)
    fresh.fill_context(context, DAY + 2)
    assert (context.daily_pnl, context.drawdown_usd) == (-6.0, 6.0)
    with pytest.raises(ConfigError, match="cannot be read"):
        fresh.restore_account(b"\xc1")
