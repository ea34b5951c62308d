"""What the guards are told: a struct of plain values, with None for what is not known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, cast

import msgspec

__all__ = [
    "FLAG_KEYS",
    "NAN_KEYS",
    "NUMBER_KEYS",
    "GuardContext",
    "context_from",
    "every_number_is_known",
    "is_any_missing",
]


class GuardContext(msgspec.Struct):
    """Every key that a guard reads. The loop owns one for each market and refills it at every step.

    Times are ms since the Unix epoch. None means that nothing is known, and the guard that needs the key passes, unless
    the policy lists the key under `required_context`. Guards run fastest when every number is known.

    Attributes
    ----------
    now_ms, last_event_ts_ms : float
        The decision clock, and the receive time of the market's last book event.
    mid, spread_bps, depth : float
        Features of the book. `spread_bps` is NaN when a side is missing.
    depth_p10_5m, sigma_5m, spread_med_5m, sigma_spike_z : float
        Rolling features.
    tp_ticks, cost_ticks : float
        Profit aimed at and cost of a round trip; the policy's when not known.
    current_total_exposure_usd, abs_inventory, open_orders, active_markets : float
        Gross notional over all markets, size of this market's position, live orders, and markets with a position or an
        order.
    daily_pnl, daily_realized_pnl_usd, drawdown_usd, equity_usd : float
        Money. The realized part is read only when `daily_pnl` is not known.
    cancels_in_window, quotes_in_window, recent_failures, rate_limits_in_window, ws_reconnects_in_window : float
        Counts within the policy's windows: cancels, ACT decisions, failures, 429 answers, reconnects.
    steps_in_window, errors_in_window, consecutive_losses : float
        Counts of steps, of those that failed, and of losing positions in a row.
    adverse_15_ticks, adverse_60_ticks : float
        Adverse selection 15 s and 60 s after our fills.
    throttle_refresh_until_ms, cooldown_until_ms, ops_cooldown_until_ms : float
        When a refresh throttle, the pause after a fill and the pause after a 429 or a reconnect end.
    adverse_15_cooldown_until_ms, adverse_60_cooldown_until_ms, streak_cooldown_until_ms, quote_budget_until_ms : float
        When the holds that guards 14, 17 and 20 began end.
    ops_deny_actions, kill_switch : bool
        The operator denies actions, or pulled the kill switch.
    latched : collection of str
        Flags of the guards that latched and were not released.
    extra : dict
        Keys of the user's own, which no guard reads; `required_context` may name them.

    Examples
    --------
    >>> GuardContext(now_ms=1_000, depth=5.0).depth
    5.0
    """

    now_ms: float | None = None
    last_event_ts_ms: float | None = None
    mid: float | None = None
    spread_bps: float | None = None
    depth: float | None = None
    depth_p10_5m: float | None = None
    sigma_5m: float | None = None
    spread_med_5m: float | None = None
    sigma_spike_z: float | None = None
    tp_ticks: float | None = None
    cost_ticks: float | None = None
    current_total_exposure_usd: float | None = None
    abs_inventory: float | None = None
    open_orders: float | None = None
    active_markets: float | None = None
    daily_pnl: float | None = None
    daily_realized_pnl_usd: float | None = None
    drawdown_usd: float | None = None
    equity_usd: float | None = None
    cancels_in_window: float | None = None
    quotes_in_window: float | None = None
    recent_failures: float | None = None
    rate_limits_in_window: float | None = None
    ws_reconnects_in_window: float | None = None
    steps_in_window: float | None = None
    errors_in_window: float | None = None
    consecutive_losses: float | None = None
    adverse_15_ticks: float | None = None
    adverse_60_ticks: float | None = None
    throttle_refresh_until_ms: float | None = None
    cooldown_until_ms: float | None = None
    ops_cooldown_until_ms: float | None = None
    adverse_15_cooldown_until_ms: float | None = None
    adverse_60_cooldown_until_ms: float | None = None
    streak_cooldown_until_ms: float | None = None
    quote_budget_until_ms: float | None = None
    ops_deny_actions: bool | None = None
    kill_switch: bool | None = None
    latched: tuple[str, ...] | None = None
    extra: dict[str, Any] | None = None


FLAG_KEYS = ("ops_deny_actions", "kill_switch")
NUMBER_KEYS = tuple(key for key in GuardContext.__struct_fields__ if key not in (*FLAG_KEYS, "latched", "extra"))

# A book with one side missing has no spread, and a window without a whole book has none either. Guards 5 and 6 answer
# for these keys; under any other key NaN is an error.
NAN_KEYS = frozenset({"spread_bps", "spread_med_5m", "sigma_5m", "depth_p10_5m"})


# True when every number key holds a finite number, in one pass over the struct: one infinity or NaN anywhere makes the
# sum infinite or NaN, and only a finite number minus itself is 0. None and text cannot be added: TypeError says, as
# False does, that the keys must be looked at one by one; so does a sum that is no float, of complex numbers or arrays.
# Built from the keys, so that a new one cannot be left out.
every_number_is_known: Callable[[GuardContext], bool] = eval(
    f"lambda c: isinstance(total := {' + '.join(f'c.{key}' for key in NUMBER_KEYS)}, float) and total - total == 0.0"
)


def context_from(
    given: object, required: tuple[str, ...], beside_numbers: tuple[str, ...]
) -> tuple[GuardContext, list[str]]:
    """Return a context that guards can read, and the codes of what is wrong with the given one.

    A key that is wrong or missing is None in the context. `given` is a `GuardContext` or a mapping, and is not changed.
    `beside_numbers` are the required keys that are no numbers.
    """
    if isinstance(given, GuardContext):
        if _is_sound(given) and not is_any_missing(given, beside_numbers):
            return given, []
        values = {key: value for key in _KEYS if (value := getattr(given, key)) is not None}
        others: Mapping[str, Any] = given.extra or {}
    elif isinstance(given, Mapping):
        values = {key: given[key] for key in _KEYS if key in given}
        others = given
    else:
        return GuardContext(), ["context_invalid:context"]
    # In a mapping a bool under a number's key is a mix-up; the struct is typed, and there a bool counts as its number.
    refused = bool if others is given else None
    invalid = [key for key, value in values.items() if not _is_valid(key, value, refused)]
    codes = [f"context_invalid:{key}" for key in invalid]
    codes += [f"context_missing:{key}" for key in required if key not in values and others.get(key) is None]
    for key in invalid:
        del values[key]
    return GuardContext(**values), codes


def is_any_missing(context: GuardContext, keys: tuple[str, ...]) -> bool:
    """Return True when nothing is known under one of `keys`, the user's own in `extra` included."""
    for key in keys:
        if getattr(context, key, None) is None and (context.extra is None or context.extra.get(key) is None):
            return True
    return False


_KEYS = tuple(key for key in GuardContext.__struct_fields__ if key != "extra")
_OTHER_KEYS = (*FLAG_KEYS, "latched")


def _is_sound(context: GuardContext) -> bool:
    """Return True when every number is known and every flag is one; False when a closer look is needed."""
    try:
        known = every_number_is_known(context)
    except Exception:
        return False
    return known and all((value := getattr(context, key)) is None or _is_valid(key, value, None) for key in _OTHER_KEYS)


def _is_valid(key: str, value: object, refused: type | None) -> bool:
    if key in FLAG_KEYS:
        return isinstance(value, bool)
    if key == "latched":
        return isinstance(value, tuple | list | set | frozenset) and all(isinstance(flag, str) for flag in value)
    kind = type(value)
    # The two usual types first: asking whether a type is registered as a real number costs five times as much.
    if kind is refused or not (kind is float or kind is int or isinstance(value, Real)):
        return False
    number = cast(float, value)
    try:
        return math.isfinite(number) or (key in NAN_KEYS and math.isnan(number))
    except OverflowError:  # a whole number beyond every float
        return False
