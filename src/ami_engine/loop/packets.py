"""What a trace packet says of one decision: enough to recompute it, and nothing twice."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from ami_engine.dmc.context import GuardContext
from ami_engine.features.schema import BASE_FEATURE_COUNT, FEATURE_COUNT, FEATURE_NAMES
from decision_schema.packet_v2 import PacketV2
from decision_schema.types import Action, FinalDecision, MismatchInfo

__all__ = [
    "OMITTED_KEYS",
    "STATE_KEY",
    "BaseFeatureRow",
    "FeatureRow",
    "PacketInput",
    "TracedContext",
    "TracedDecision",
    "context_of",
    "feature_row",
    "row_type",
    "traced_decision",
]

# Where a packet says what the operator, or a latch, lets leave.
STATE_KEY = "ops.trading_state"


def _row_of(name: str, names: tuple[str, ...]) -> Any:
    # One struct with a field per feature: cheaper to make and to encode than a dict of the same names.
    return msgspec.defstruct(name, [(feature, float) for feature in names], frozen=True, gc=False)


FeatureRow: Any = _row_of("FeatureRow", FEATURE_NAMES)
BaseFeatureRow: Any = _row_of("BaseFeatureRow", FEATURE_NAMES[:BASE_FEATURE_COUNT])
_ROW_TYPES = {FEATURE_COUNT: FeatureRow, BASE_FEATURE_COUNT: BaseFeatureRow}


def row_type(names: tuple[str, ...]) -> Any:
    """Return the struct that a row of these features is traced as."""
    return _ROW_TYPES[len(names)]


def feature_row(row: np.ndarray[Any, np.dtype[np.float64]]) -> Any:
    """Return a detached copy of a live feature row, by name."""
    return _ROW_TYPES[len(row)](*row.tolist())


class TracedContext(GuardContext, omit_defaults=True):
    """The loop's context, which leaves out of the trace what is not known and what is at rest.

    At rest is a time that was never set (0), a flag that is not up, an empty count of 429 answers, reconnects and
    errors, and no latch: no guard can fire on one of these, whatever the policy, nor is one quoted in a verdict.
    `context_of` puts them back. All numbers come first, as in `GuardContext`.
    """

    rate_limits_in_window: float | None = 0
    ws_reconnects_in_window: float | None = 0
    errors_in_window: float | None = 0
    throttle_refresh_until_ms: float | None = 0
    cooldown_until_ms: float | None = 0
    ops_cooldown_until_ms: float | None = 0
    adverse_15_cooldown_until_ms: float | None = 0
    adverse_60_cooldown_until_ms: float | None = 0
    streak_cooldown_until_ms: float | None = 0
    quote_budget_until_ms: float | None = 0
    ops_deny_actions: bool | None = False
    kill_switch: bool | None = False
    latched: tuple[str, ...] | None = ()
    extra: dict[str, Any] | None = None


_AT_REST = {field.name: field.default for field in msgspec.structs.fields(TracedContext) if field.default is not None}
OMITTED_KEYS = frozenset(_AT_REST)


def context_of(packet: PacketV2) -> dict[str, Any]:
    """Return what modulation was told when `packet` was made, what the trace leaves out included.

    With the packet's proposal and the policy of its `policy_hash`, `modulate` gives the whole guard ladder again.

    Examples
    --------
    >>> packet = PacketV2("r", 0, {"context": {"mid": 0.5}}, {}, {}, {}, 0.1)
    >>> context_of(packet)["mid"], context_of(packet)["kill_switch"]
    (0.5, False)
    """
    return {**_AT_REST, **packet.input["context"]}


class TracedDecision(msgspec.Struct, frozen=True, gc=False):
    """A decision without its mismatch, which a packet has a place of its own for."""

    action: Action
    allowed: bool
    reasons: list[str]
    throttle_ms: int | None
    cooldown_ms: int | None
    params: dict[str, Any] | None


def traced_decision(final: FinalDecision, mismatch: MismatchInfo) -> FinalDecision | TracedDecision:
    """Return what `final_action` is to say of `final`, when `mismatch` is traced beside it."""
    if final.mismatch is not mismatch:
        return final
    return TracedDecision(
        final.action, final.allowed, final.reasons, final.throttle_ms, final.cooldown_ms, final.params
    )


class PacketInput(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What a decision was made from.

    `ts_ns` is the event's receive time, `now_ns` the decision clock. `features` is None for a timer, which has no row.
    `context` is what modulation saw: with the policy of `policy_hash` it gives the whole guard ladder again.
    """

    kind: str
    symbol: str
    ts_ns: int
    now_ns: int
    policy_hash: str = ""
    exch_ts_ns: int = 0
    seq: int = 0
    features: Any = None
    context: GuardContext | None = None
