"""The guards: one table of small pure functions. Its order is the order of the flags.

A guard is `function(c, p, action, size_usd)`: the context, the policy, the proposed action and its size. It returns a
`Finding` for each of its conditions that holds, and nothing when all is well or when what it needs is not known. Beside
the function each row has the same condition turned round, `quiet`, as one expression for a context whose every number
is known: joined, these make the single check that a step without findings passes through.

A guard may make a decision safer, never bolder: it asks for a more severe action or a smaller size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import msgspec

from ami_engine.dmc.context import GuardContext
from ami_engine.dmc.risk_policy import MIN_STEPS_FOR_ERROR_RATE, RiskPolicy
from decision_schema.types import Action

__all__ = ["CLAMP", "GUARDS", "LATCHING_FLAGS", "LOWERS_EXIT", "SEVERITY", "Finding", "Guard", "all_quiet"]

CLAMP = "clamp"
PULL, LEAVE = "pull", "leave"
ACT, HOLD, CANCEL, EXIT, STOP = Action.ACT, Action.HOLD, Action.CANCEL, Action.EXIT, Action.STOP

# The precedence law. A proposed ACT is as severe as a guard that passes.
SEVERITY: dict[str, int] = {ACT: 0, CLAMP: 1, HOLD: 2, CANCEL: 3, EXIT: 4, STOP: 5}

# Guards whose STOP goes on until an operator releases it.
LATCHING_FLAGS = ("kill_switch", "daily_loss", "circuit_breaker", "drawdown")

# The one code that lowers a proposal: there is nothing to exit from.
LOWERS_EXIT = "no_inventory_to_exit"

BPS = 1e4


class Finding(msgspec.Struct, frozen=True, gc=False):
    """One condition of one guard that holds.

    `action` is an `Action` or "clamp", and then `size_usd` is the size that is left. `throttle_ms` and `cooldown_ms`
    begin with this finding.
    """

    code: str
    value: float | bool | None
    limit: float | bool | None
    action: str
    size_usd: float | None = None
    throttle_ms: int = 0
    cooldown_ms: int = 0


Findings = tuple[Finding, ...]
GuardFunction = Callable[[GuardContext, RiskPolicy, Action, float | None], Findings]


def _before(now: float | None, until: float | None) -> bool:
    return now is not None and until is not None and now < until


def _is_latched(c: GuardContext, flag: str) -> bool:
    return c.latched is not None and flag in c.latched


def ops_health(c: GuardContext, p: RiskPolicy, action: Action, size_usd: float | None) -> Findings:
    """Operations: actions denied, a pause under way, too many 429 answers or reconnects."""
    found: Findings = ()
    if c.ops_deny_actions:
        found += (Finding("ops_denied", True, False, STOP),)
    if _before(c.now_ms, c.ops_cooldown_until_ms):
        found += (Finding("ops_cooldown", c.now_ms, c.ops_cooldown_until_ms, HOLD),)
    count, limit = c.rate_limits_in_window, p.max_429_per_window
    if limit and count is not None and count >= limit:
        found += (Finding("rate_limit_429", count, limit, HOLD),)
    count, limit = c.ws_reconnects_in_window, p.max_ws_reconnects_per_window
    if limit and count is not None and count >= limit:
        found += (Finding("ws_reconnect_limit", count, limit, HOLD),)
    return found


def kill_switch(c: GuardContext, p: RiskPolicy, action: Action, size_usd: float | None) -> Findings:
    """The kill switch is latched, or something that no other guard answers for."""
    # A latch of an unknown name stops too: something halted the run, and only an operator may say that it may go on.
    if c.kill_switch or (c.latched and not {*c.latched} <= {*LATCHING_FLAGS[1:]}):
        return (Finding("kill_switch", True, False, STOP),)
    return ()


def staleness(c: GuardContext, p: RiskPolicy, action: Action, size_usd: float | None) -> Findings:
    """The last book event is too old."""
    if c.now_ms is None or c.last_event_ts_ms is None:
        return ()
    age_ms = c.now_ms - c.last_event_ts_ms
    return (Finding("staleness_exceeded", age_ms, p.staleness_ms, HOLD),) if age_ms > p.staleness_ms else ()


def liquidity(c: GuardContext, p: RiskPolicy, action: Action, size_usd: float | None) -> Findings:
    """The book is too thin, now or in the window."""
    found: Findings = ()
    if c.depth is not None and c.depth < p.min_depth:
        found += (Finding("insufficient_depth", c.depth, p.min_depth, HOLD),)
    limit = p.min_depth_p10_market
    if limit and c.depth_p10_5m is not None and c.depth_p10_5m < limit:
        found += (Finding("insufficient_depth", c.depth_p10_5m, limit, HOLD),)
    return found


def spread(c: GuardContext, p: RiskPolicy, action: Action, size_usd: float | None) -> Findings:
    """The spread is too wide, or there is none because a side is missing."""
    if c.spread_bps is None or c.spread_bps <= p.max_spread_bps:
        return ()
    code = "one_sided_book" if math.isnan(c.spread_bps) else "spread_too_wide"
    return (Finding(code, c.spread_bps, p.max_spread_bps, HOLD),)


def regime(c: GuardContext, p: RiskPolicy, action: Action, size_usd: float | None) -> Findings:
    """The window is volatile, wide or thin. NaN (no whole book in it) fires even where the limit is off."""
    found: Findings = ()
    sigma, limit = c.sigma_5m, p.sigma_5m_max
    if sigma is not None and (math.isnan(sigma) or (limit and sigma > limit)):
        found += (Finding("regime_volatile", sigma, limit, HOLD),)
    limit = p.spread_med_5m_max_bps
    if c.spread_med_5m is not None and (c.mid is not None or math.isnan(c.spread_med_5m)):
        wide_bps = BPS * c.spread_med_5m / c.mid if c.mid is not None and c.mid > 0.0 else math.inf
        if math.isnan(wide_bps) or math.isnan(c.spread_med_5m) or (limit and wide_bps > limit):
            found += (Finding("regime_wide", wide_bps, limit, HOLD),)
    thin, limit = c.depth_p10_5m, p.depth_p10_5m_min
    if thin is not None and (math.isnan(thin) or (limit and thin < limit)):
        found += (Finding("regime_thin", thin, limit, HOLD),)
    return found


def exposure(c: GuardContext, p: RiskPolicy, action: Action, size_usd: float | None) -> Findings:
    """Gross notional at its limit is left; an order may not take it past the headroom below the limit."""
    total, limit = c.current_total_exposure_usd, p.max_total_exposure_usd
    if total is None:
        return ()
    if total >= limit:
        return (Finding("total_exposure_exceeded", total, limit, EXIT),)
    room = p.exposure_headroom_frac * limit - total
    # An order whose size nobody said cannot be clamped: it passes while there is room at all.
    if action is not ACT or (room > 0.0 and (size_usd is None or size_usd <= room)):
        return ()
    after = total if size_usd is None else total + size_usd
    if room <= 0.0:
        return (Finding("exposure_limit", after, p.exposure_headroom_frac * limit, HOLD),)
    return (Finding("exposure_limit", after, p.exposure_headroom_frac * limit, CLAMP, size_usd=room),)


def market_size(c: GuardContext, p: RiskPolicy, action: Action, size_usd: float | None) -> Findings:
    """The order is too large for one market; where the market's limit is 0 nothing is left of it."""
    limit = p.max_per_market_usd
    if action is not ACT or size_usd is None or size_usd <= limit:
        return ()
    if limit == 0.0:
        return (Finding("size_clamped", size_usd, limit, HOLD),)
    return (Finding("size_clamped", size_usd, limit, CLAMP, size_usd=limit),)


def inventory(c: GuardContext, p: RiskPolicy, action: Action, size_usd: float | None) -> Findings:
    """The position is at its limit."""
    if c.abs_inventory is None or abs(c.abs_inventory) < p.max_abs_inventory:
        return ()
    return (Finding("inventory_limit", c.abs_inventory, p.max_abs_inventory, EXIT),)


def cancel_rate(c: GuardContext, p: RiskPolicy, action: Action, size_usd: float | None) -> Findings:
    """Too many cancels: quotes stay as they are for a while."""
    count, limit = c.cancels_in_window, p.cancel_rate_limit
    if count is None or count < limit:
        return ()
    return (Finding("cancel_rate_exceeded", count, limit, HOLD, throttle_ms=p.throttle_refresh_ms),)


def daily_loss(c: GuardContext, p: RiskPolicy, action: Action, size_usd: float | None) -> Findings:
    """The day's loss is at its limit."""
    pnl = c.daily_pnl if c.daily_pnl is not None else c.daily_realized_pnl_usd
    if _is_latched(c, "daily_loss") or (pnl is not None and pnl <= -p.daily_loss_stop_usd):
        return (Finding("daily_loss_stop", pnl, -p.daily_loss_stop_usd, STOP),)
    return ()


def error_rate(c: GuardContext, p: RiskPolicy, action: Action, size_usd: float | None) -> Findings:
    """Too many of the last steps failed."""
    steps, errors = c.steps_in_window, c.errors_in_window
    if steps is None or errors is None or steps < MIN_STEPS_FOR_ERROR_RATE or errors / steps <= p.error_rate_max:
        return ()
    return (Finding("error_rate_exceeded", errors / steps, p.error_rate_max, HOLD),)


def circuit_breaker(c: GuardContext, p: RiskPolicy, action: Action, size_usd: float | None) -> Findings:
    """Too many failures in a short time."""
    count, limit = c.recent_failures, p.circuit_breaker_failures
    if _is_latched(c, "circuit_breaker") or (count is not None and count >= limit):
        return (Finding("circuit_breaker", count, limit, STOP),)
    return ()


def adverse_selection(c: GuardContext, p: RiskPolicy, action: Action, size_usd: float | None) -> Findings:
    """The market moves against our fills. With a cooldown: cancel once, then do nothing for a while."""
    return _adverse(
        "adverse_selection_15", c.now_ms, c.adverse_15_ticks, p.adv15_max_ticks, c.adverse_15_cooldown_until_ms, p
    ) + _adverse(
        "adverse_selection_60", c.now_ms, c.adverse_60_ticks, p.adv60_max_ticks, c.adverse_60_cooldown_until_ms, p
    )


def _adverse(
    code: str, now: float | None, ticks: float | None, limit: float, until: float | None, p: RiskPolicy
) -> Findings:
    if _before(now, until):
        return (Finding(code, ticks, limit, HOLD),)
    if ticks is None or ticks <= limit:
        return ()
    if p.adverse_cooldown_ms:
        return (Finding(code, ticks, limit, CANCEL, cooldown_ms=p.adverse_cooldown_ms),)
    return (Finding(code, ticks, limit, HOLD),)


def sigma_spike(c: GuardContext, p: RiskPolicy, action: Action, size_usd: float | None) -> Findings:
    """Volatility jumped."""
    z, limit = c.sigma_spike_z, p.sigma_spike_z_max
    return () if z is None or z <= limit else (Finding("sigma_spike", z, limit, HOLD),)


def cost(c: GuardContext, p: RiskPolicy, action: Action, size_usd: float | None) -> Findings:
    """What could be gained does not pay for the round trip."""
    gain = c.tp_ticks if c.tp_ticks is not None else p.tp_ticks
    needed = (c.cost_ticks if c.cost_ticks is not None else p.cost_ticks) + p.min_profit_ticks
    if action is not ACT or gain >= needed:
        return ()
    return (Finding("insufficient_profit_potential", gain, needed, HOLD),)


def loss_streak(c: GuardContext, p: RiskPolicy, action: Action, size_usd: float | None) -> Findings:
    """Too many losses in a row: quotes are cancelled once, then nothing is done for a while."""
    count, limit = c.consecutive_losses, p.max_consecutive_losses
    if _before(c.now_ms, c.streak_cooldown_until_ms):
        return (Finding("loss_streak", count, limit, HOLD),)
    if not limit or count is None or count < limit:
        return ()
    return (Finding("loss_streak", count, limit, CANCEL, cooldown_ms=p.streak_cooldown_ms),)


def drawdown(c: GuardContext, p: RiskPolicy, action: Action, size_usd: float | None) -> Findings:
    """Equity fell too far from its peak, or below its floor."""
    found: Findings = ()
    loss, limit = c.drawdown_usd, p.max_drawdown_stop_usd
    if limit and loss is not None and loss >= limit:
        found += (Finding("drawdown_stop", loss, limit, STOP),)
    floor = p.equity_floor_usd
    if floor and c.equity_usd is not None and c.equity_usd <= floor:
        found += (Finding("equity_floor", c.equity_usd, floor, STOP),)
    if not found and _is_latched(c, "drawdown"):
        found = (Finding("drawdown_stop", loss, limit, STOP),)
    return found


def throttle(c: GuardContext, p: RiskPolicy, action: Action, size_usd: float | None) -> Findings:
    """A throttle, or the pause after a fill, is under way."""
    found: Findings = ()
    if _before(c.now_ms, c.throttle_refresh_until_ms):
        found += (Finding("throttle_active", c.now_ms, c.throttle_refresh_until_ms, HOLD),)
    if _before(c.now_ms, c.cooldown_until_ms):
        found += (Finding("post_fill_cooldown", c.now_ms, c.cooldown_until_ms, HOLD),)
    return found


def quote_budget(c: GuardContext, p: RiskPolicy, action: Action, size_usd: float | None) -> Findings:
    """Too many ACT decisions: nothing is done for a while."""
    count, limit = c.quotes_in_window, p.quote_cap_per_window
    if _before(c.now_ms, c.quote_budget_until_ms):
        return (Finding("quote_budget", count, limit, HOLD),)
    if not limit or count is None or count < limit:
        return ()
    return (Finding("quote_budget", count, limit, HOLD, cooldown_ms=p.quote_budget_cooldown_ms),)


def order_limits(c: GuardContext, p: RiskPolicy, action: Action, size_usd: float | None) -> Findings:
    """Too many open orders or active markets, or an order too small once guards 7 and 8 have clamped it."""
    found: Findings = ()
    count, limit = c.open_orders, p.max_open_orders
    if limit and count is not None and count >= limit:
        found += (Finding("max_open_orders", count, limit, HOLD),)
    count, limit = c.active_markets, p.max_active_markets
    if limit and count is not None and count >= limit:
        found += (Finding("max_active_markets", count, limit, HOLD),)
    if p.min_order_usd and action is ACT and size_usd is not None:
        clamps = exposure(c, p, action, size_usd) + market_size(c, p, action, size_usd)
        left = min([size_usd, *(clamp.size_usd for clamp in clamps if clamp.size_usd is not None)])
        if left < p.min_order_usd:
            found += (Finding("below_min_order", left, p.min_order_usd, HOLD),)
    return found


def exit_no_position(c: GuardContext, p: RiskPolicy, action: Action, size_usd: float | None) -> Findings:
    """An EXIT is proposed and there is nothing to exit from."""
    if action is not EXIT or c.abs_inventory is None or c.abs_inventory != 0.0:
        return ()
    return (Finding(LOWERS_EXIT, c.abs_inventory, 0.0, HOLD),)


class Guard(msgspec.Struct, frozen=True):
    """One row of the table.

    Attributes
    ----------
    number : int
        Place in the table, from 1.
    flag : str
        Name that `MismatchInfo.flags` lists.
    function : callable
        The guard.
    codes : tuple of str
        Every reason code that it may give.
    action : tuple of str
        Every action that it may ask for.
    quotes : {"pull", "leave", ""}
        What becomes of resting quotes when the result is HOLD and this guard fired; empty when it never asks for HOLD.
    doc : str
        What it is for, in one line.
    reads, limits : tuple of str
        The context keys and the policy keys in its condition.
    quiet : str
        True when the guard would find nothing, given that every number in the context is known and finite; False at the
        least doubt. An expression in `c` (context), `p` (policy), `action` and `size` (a number or None).
    """

    number: int
    flag: str
    function: GuardFunction
    codes: tuple[str, ...]
    action: tuple[str, ...]
    quotes: str
    quiet: str
    doc: str
    reads: tuple[str, ...]
    limits: tuple[str, ...]


def _guard(
    number: int,
    flag: str,
    function: GuardFunction,
    codes: tuple[str, ...],
    action: tuple[str, ...],
    quotes: str,
    quiet: str,
) -> Guard:
    reads, limits = (tuple(dict.fromkeys(re.findall(rf"\b{name}\.(\w+)", quiet))) for name in "cp")
    return Guard(number, flag, function, codes, action, quotes, quiet, function.__doc__ or "", reads, limits)


GUARDS: tuple[Guard, ...] = tuple(
    _guard(number, *row)
    for number, row in enumerate(
        (
            (
                "ops_health",
                ops_health,
                ("ops_denied", "ops_cooldown", "rate_limit_429", "ws_reconnect_limit"),
                (STOP, HOLD),
                PULL,
                "(c.ops_deny_actions is False or c.ops_deny_actions is None)"
                " and c.now_ms >= c.ops_cooldown_until_ms"
                " and (not p.max_429_per_window or c.rate_limits_in_window < p.max_429_per_window)"
                " and (not p.max_ws_reconnects_per_window"
                " or c.ws_reconnects_in_window < p.max_ws_reconnects_per_window)",
            ),
            (
                "kill_switch",
                kill_switch,
                ("kill_switch",),
                (STOP,),
                "",
                "(c.kill_switch is False or c.kill_switch is None) and (c.latched == () or c.latched is None)",
            ),
            (
                "staleness",
                staleness,
                ("staleness_exceeded",),
                (HOLD,),
                PULL,
                "c.now_ms - c.last_event_ts_ms <= p.staleness_ms",
            ),
            (
                "liquidity",
                liquidity,
                ("insufficient_depth",),
                (HOLD,),
                PULL,
                "c.depth >= p.min_depth and (not p.min_depth_p10_market or c.depth_p10_5m >= p.min_depth_p10_market)",
            ),
            (
                "spread",
                spread,
                ("spread_too_wide", "one_sided_book"),
                (HOLD,),
                PULL,
                "c.spread_bps <= p.max_spread_bps",
            ),
            (
                "regime",
                regime,
                ("regime_volatile", "regime_wide", "regime_thin"),
                (HOLD,),
                PULL,
                "(not p.sigma_5m_max or c.sigma_5m <= p.sigma_5m_max)"
                " and (not p.spread_med_5m_max_bps"
                " or (c.mid > 0.0 and 1e4 * c.spread_med_5m / c.mid <= p.spread_med_5m_max_bps))"
                " and (not p.depth_p10_5m_min or c.depth_p10_5m >= p.depth_p10_5m_min)",
            ),
            (
                "exposure",
                exposure,
                ("total_exposure_exceeded", "exposure_limit"),
                (EXIT, HOLD, CLAMP),
                LEAVE,
                "c.current_total_exposure_usd < p.max_total_exposure_usd"
                " and (action is not ACT"
                " or (room := p.exposure_headroom_frac * p.max_total_exposure_usd - c.current_total_exposure_usd) > 0.0"
                " and (size is None or size <= room))",
            ),
            (
                "market_size",
                market_size,
                ("size_clamped",),
                (HOLD, CLAMP),
                LEAVE,
                "(action is not ACT or size is None or 0.0 <= size <= p.max_per_market_usd)",
            ),
            (
                "inventory",
                inventory,
                ("inventory_limit",),
                (EXIT,),
                "",
                "-p.max_abs_inventory < c.abs_inventory < p.max_abs_inventory",
            ),
            (
                "cancel_rate",
                cancel_rate,
                ("cancel_rate_exceeded",),
                (HOLD,),
                LEAVE,
                "c.cancels_in_window < p.cancel_rate_limit",
            ),
            (
                "daily_loss",
                daily_loss,
                ("daily_loss_stop",),
                (STOP,),
                "",
                "c.daily_pnl > -p.daily_loss_stop_usd",
            ),
            (
                "error_rate",
                error_rate,
                ("error_rate_exceeded",),
                (HOLD,),
                LEAVE,
                f"(c.steps_in_window < {MIN_STEPS_FOR_ERROR_RATE}"
                " or c.errors_in_window / c.steps_in_window <= p.error_rate_max)",
            ),
            (
                "circuit_breaker",
                circuit_breaker,
                ("circuit_breaker",),
                (STOP,),
                "",
                "c.recent_failures < p.circuit_breaker_failures",
            ),
            (
                "adverse_selection",
                adverse_selection,
                ("adverse_selection_15", "adverse_selection_60"),
                (CANCEL, HOLD),
                PULL,
                "c.adverse_15_ticks <= p.adv15_max_ticks and c.adverse_60_ticks <= p.adv60_max_ticks"
                " and c.now_ms >= c.adverse_15_cooldown_until_ms and c.now_ms >= c.adverse_60_cooldown_until_ms",
            ),
            (
                "sigma_spike",
                sigma_spike,
                ("sigma_spike",),
                (HOLD,),
                PULL,
                "c.sigma_spike_z <= p.sigma_spike_z_max",
            ),
            (
                "cost",
                cost,
                ("insufficient_profit_potential",),
                (HOLD,),
                LEAVE,
                "(action is not ACT or c.tp_ticks >= c.cost_ticks + p.min_profit_ticks)",
            ),
            (
                "loss_streak",
                loss_streak,
                ("loss_streak",),
                (CANCEL, HOLD),
                LEAVE,
                "c.now_ms >= c.streak_cooldown_until_ms"
                " and (not p.max_consecutive_losses or c.consecutive_losses < p.max_consecutive_losses)",
            ),
            (
                "drawdown",
                drawdown,
                ("drawdown_stop", "equity_floor"),
                (STOP,),
                "",
                "(not p.max_drawdown_stop_usd or c.drawdown_usd < p.max_drawdown_stop_usd)"
                " and (not p.equity_floor_usd or c.equity_usd > p.equity_floor_usd)",
            ),
            (
                "throttle",
                throttle,
                ("throttle_active", "post_fill_cooldown"),
                (HOLD,),
                LEAVE,
                "c.now_ms >= c.throttle_refresh_until_ms and c.now_ms >= c.cooldown_until_ms",
            ),
            (
                "quote_budget",
                quote_budget,
                ("quote_budget",),
                (HOLD,),
                LEAVE,
                "c.now_ms >= c.quote_budget_until_ms"
                " and (not p.quote_cap_per_window or c.quotes_in_window < p.quote_cap_per_window)",
            ),
            (
                "order_limits",
                order_limits,
                ("max_open_orders", "max_active_markets", "below_min_order"),
                (HOLD,),
                LEAVE,
                "(not p.max_open_orders or c.open_orders < p.max_open_orders)"
                " and (not p.max_active_markets or c.active_markets < p.max_active_markets)"
                " and (not p.min_order_usd or action is not ACT or size is None or size >= p.min_order_usd)",
            ),
            (
                "exit_no_position",
                exit_no_position,
                (LOWERS_EXIT,),
                (HOLD,),
                LEAVE,
                "(action is not EXIT or c.abs_inventory != 0.0)",
            ),
        ),
        start=1,
    )
)

# The whole table as one check, for a context whose every number is known: calling 22 functions costs twice as much, and
# this runs at every step. A test holds each expression against its function.
all_quiet: Callable[[GuardContext, RiskPolicy, Action, float | None], bool] = eval(
    f"lambda c, p, action, size: {' and '.join(guard.quiet for guard in GUARDS)}", {"ACT": ACT, "EXIT": EXIT}
)
