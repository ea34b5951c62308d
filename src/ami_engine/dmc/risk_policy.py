"""The limits of the guards: one frozen struct, with a written range for every key."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
import tomllib
from collections.abc import Mapping
from functools import cache, cached_property
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ami_engine.dmc.context import NUMBER_KEYS
from ami_engine.errors import ConfigError

__all__ = ["MIN_STEPS_FOR_ERROR_RATE", "PolicyRange", "RiskPolicy", "policy_ranges"]

# Fewer steps than this say nothing about a rate of errors: one error in the first step would be 100 %.
MIN_STEPS_FOR_ERROR_RATE = 10

# That of `decision_schema.trace_registry`, which another distribution of it may not have.
_CONTEXT_KEY = re.compile(r"[a-z0-9_]+")

# The ranges. A limit whose zero would fire at once is `Above0...`; one whose zero is "off", or "at any", is `From0...`.
Above0 = Annotated[float, Meta(gt=0)]
From0 = Annotated[float, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Above0Whole = Annotated[int, Meta(gt=0)]
From0Whole = Annotated[int, Meta(ge=0)]
ErrorWindow = Annotated[int, Meta(ge=MIN_STEPS_FOR_ERROR_RATE)]


class RiskPolicy(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """What the guards allow. Every key, its default and its guard stand in docs/GUARDS.md.

    Whole numbers are asked for counts and for times in ms; amounts may be any finite number in their range. For keys
    that GUARDS.md marks so, 0 is off. `required_context` lists the context keys without which nothing may be done.

    Raises
    ------
    ConfigError
        (a ValueError) when a value is outside its range: names key, range and value.
    TypeError
        When a keyword is no key of the policy; `from_dict` and `from_toml` raise ConfigError and suggest the nearest
        key.

    Examples
    --------
    >>> RiskPolicy(max_spread_bps=20).max_spread_bps
    20.0
    >>> RiskPolicy(error_rate_max=2)
    Traceback (most recent call last):
    ami_engine.errors.ConfigError: `error_rate_max` must be a number >= 0 and <= 1, was 2
    """

    ops_window_ms: Above0Whole = 60_000
    max_429_per_window: From0Whole = 0
    max_ws_reconnects_per_window: From0Whole = 0
    ops_cooldown_ms: From0Whole = 0
    staleness_ms: From0Whole = 1_000
    min_depth: From0 = 1.0
    min_depth_p10_market: From0 = 0.0
    max_spread_bps: From0 = 500.0
    sigma_5m_max: From0 = 0.02
    spread_med_5m_max_bps: From0 = 500.0
    depth_p10_5m_min: From0 = 0.0
    max_total_exposure_usd: Above0 = 10.0
    exposure_headroom_frac: Fraction = 0.9
    max_per_market_usd: From0 = 5.0
    max_abs_inventory: Above0 = 10.0
    max_inventory_skew_ticks: From0 = 4.0
    cancel_rate_limit: Above0Whole = 20
    cancel_window_ms: Above0Whole = 10_000
    throttle_refresh_ms: From0Whole = 1_500
    daily_loss_stop_usd: Above0 = 2.5
    error_rate_max: Fraction = 0.1
    error_window_steps: ErrorWindow = 100
    circuit_breaker_failures: Above0Whole = 5
    circuit_breaker_window_ms: Above0Whole = 60_000
    adv15_max_ticks: From0 = 1.0
    adv60_max_ticks: From0 = 2.0
    adverse_window_ms: Above0Whole = 600_000
    adverse_cooldown_ms: From0Whole = 0
    sigma_spike_z_max: From0 = 2.5
    tp_ticks: From0 = 1.0
    cost_ticks: From0 = 1.0
    min_profit_ticks: From0 = 0.0
    max_consecutive_losses: From0Whole = 0
    streak_cooldown_ms: From0Whole = 120_000
    max_drawdown_stop_usd: From0 = 0.0
    equity_floor_usd: From0 = 0.0
    quote_window_ms: Above0Whole = 60_000
    quote_cap_per_window: From0Whole = 0
    quote_budget_cooldown_ms: From0Whole = 10_000
    max_open_orders: From0Whole = 0
    max_active_markets: From0Whole = 0
    min_order_usd: From0 = 0.0
    required_context: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, allowed in policy_ranges().items():
            value = getattr(self, name)
            canonical = allowed.canonical(name, value)
            # 5 and 5.0 are one policy, and must have one hash.
            if canonical is not value:
                msgspec.structs.force_setattr(self, name, canonical)
        keys: object = self.required_context
        if not isinstance(keys, list | tuple) or not all(map(_is_key, keys)):
            raise ConfigError(f"`required_context` must be a list of context keys in snake_case, was {keys!r}")
        msgspec.structs.force_setattr(self, "required_context", tuple(keys))

    @cached_property
    def policy_hash(self) -> str:
        """Return 16 hex digits that name this policy: equal policies have equal ones, wherever they were made.

        >>> RiskPolicy().policy_hash == RiskPolicy(min_depth=1).policy_hash != RiskPolicy(min_depth=2).policy_hash
        True
        """
        text = json.dumps(msgspec.structs.asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def required_beside_numbers(self) -> tuple[str, ...]:
        """The required keys that the one-pass check of the numbers does not cover."""
        return tuple(key for key in self.required_context if key not in NUMBER_KEYS)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, source: str = "") -> RiskPolicy:
        """Return the policy of a flat mapping; keys that are left out keep their defaults.

        `source` is what an error names, such as the file the values were read from.

        >>> RiskPolicy.from_dict({"min_dept": 20}, source="p.toml")
        Traceback (most recent call last):
        ami_engine.errors.ConfigError: p.toml: `min_dept` is no key of a risk policy; did you mean `min_depth`?
        """
        place = f"{source}: " if source else ""
        for name, value in values.items():
            if name not in cls.__struct_fields__:
                raise ConfigError(f"{place}`{name}` is no key of a risk policy{_suggestion(name, value)}")
        try:
            return cls(**values)
        except ConfigError as error:
            raise ConfigError(f"{place}{error}") from None

    @classmethod
    def from_toml(cls, path: str | Path) -> RiskPolicy:
        """Read a policy from a TOML file with flat keys.

        Raises
        ------
        ConfigError
            When the file cannot be read, is no TOML, or has an unknown key or a value out of range: names file and key.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: cannot be read: it is no UTF-8 text") from error
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path}: is no TOML: {error}") from error
        return cls.from_dict(values, source=str(path))

    def to_toml(self) -> str:
        """Return every key as TOML text that `from_toml` reads back to an equal policy."""
        # JSON's numbers and lists of strings are TOML's as well.
        values = msgspec.structs.asdict(self)
        return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())


class PolicyRange(msgspec.Struct, frozen=True):
    """The written range of one policy key."""

    is_whole: bool
    ge: float | None
    gt: float | None
    le: float | None

    def __str__(self) -> str:
        bounds = [
            f"{sign} {limit:g}"
            for sign, limit in ((">", self.gt), (">=", self.ge), ("<=", self.le))
            if limit is not None
        ]
        return f"{'whole' if self.is_whole else 'a'} number {' and '.join(bounds)}"

    def canonical(self, name: str, value: object) -> int | float:
        """Return `value` as the key's own type; ConfigError when it is none or out of range."""
        number = _as_number(value)
        if (
            number is None
            or (self.is_whole and number != int(number))
            or (self.ge is not None and number < self.ge)
            or (self.gt is not None and number <= self.gt)
            or (self.le is not None and number > self.le)
        ):
            article = "a " if self.is_whole else ""
            raise ConfigError(f"`{name}` must be {article}{self}, was {value!r}")
        wanted = int if self.is_whole else float
        return number if type(number) is wanted else wanted(number)


@cache
def policy_ranges() -> dict[str, PolicyRange]:
    """Return the range of every key of `RiskPolicy` that is a number, in the order of the keys."""
    ranges = {}
    struct = msgspec.inspect.type_info(RiskPolicy)
    assert isinstance(struct, msgspec.inspect.StructType)
    for field in struct.fields:
        kind = field.type
        if isinstance(kind, msgspec.inspect.IntType | msgspec.inspect.FloatType):
            whole = isinstance(kind, msgspec.inspect.IntType)
            ranges[field.name] = PolicyRange(whole, kind.ge, kind.gt, kind.le)
    return ranges


def _as_number(value: object) -> int | float | None:
    """Return a finite real number as int or float, None when `value` is none; bool is no number here."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    number = int(value) if isinstance(value, Integral) else float(value)
    try:
        return number if math.isfinite(number) else None
    except OverflowError:  # a whole number beyond every float
        return None


def _is_key(value: object) -> bool:
    return isinstance(value, str) and _CONTEXT_KEY.fullmatch(value) is not None


def _suggestion(name: str, value: object) -> str:
    if isinstance(value, Mapping):
        return "; the keys are flat, without tables"
    near = difflib.get_close_matches(name, RiskPolicy.__struct_fields__, n=1)
    return f"; did you mean `{near[0]}`?" if near else ""
