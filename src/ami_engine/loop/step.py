"""One decision: what replay reruns.

`decide(parts, event, account)` reads what the market's state has folded (the shell folds the event first), asks the
model for a proposal, fills the context and lets the guards judge. It does no I/O and reads no clock: the same state,
event and account give the same decision. The verdict is folded into the risk state by the shell, afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ami_engine.dmc.context import GuardContext
from ami_engine.dmc.risk_policy import RiskPolicy
from ami_engine.dmc.risk_state import RiskState
from ami_engine.events import GenericEvent, TimerEvent
from ami_engine.features.schema import FEATURE_INDEX
from ami_engine.loop.packets import OMITTED_KEYS, TracedContext
from ami_engine.loop.symbol_state import SymbolState
from ami_engine.mdm.decision_engine import DecisionEngine
from ami_engine.mdm.position_manager import PositionManager
from ami_engine.units import NS_PER_MS
from decision_schema.types import Action, FinalDecision, MismatchInfo, Proposal

__all__ = ["AccountView", "Decision", "MarketParts", "Modulate", "decide", "judge"]

Modulate = Callable[[Any, RiskPolicy, Any], tuple[FinalDecision, MismatchInfo]]

# Older than any policy allows, whatever the clock shows: a recording may begin at 0. Exact as a double.
BEFORE_ALL_MS = -(2**53)
NO_BOOK = Proposal(Action.HOLD, 0.0, ["no_book_yet"])
_UNGUARDED = MismatchInfo()

_DEPTH = FEATURE_INDEX["depth"]
_SPREAD_BPS = FEATURE_INDEX["spread_bps"]
_COST_TICKS = FEATURE_INDEX["cost_ticks"]
_SIGMA_5M = FEATURE_INDEX["sigma_5m"]
_SPREAD_MED_5M = FEATURE_INDEX["spread_med_5m"]
_DEPTH_P10_5M = FEATURE_INDEX["depth_p10_5m"]
_SIGMA_SPIKE_Z = FEATURE_INDEX["sigma_spike_z"]


class AccountView(msgspec.Struct):
    """What a decision may know of the account: plain numbers, refreshed by the shell before each decision.

    `position` is this market's signed quantity; `exposure_usd` is the gross notional over all markets; `equity` and
    `drawdown` are in the settlement currency. `is_denied` is True while the operator denies all actions.
    """

    position: float = 0.0
    exposure_usd: float = 0.0
    equity: float = 0.0
    drawdown: float = 0.0
    open_orders: int = 0
    active_markets: int = 0
    is_denied: bool = False


class Decision(msgspec.Struct, frozen=True, gc=False):
    """A proposal, the verdict on it, and the context that the guards saw (the market's live struct)."""

    proposal: Proposal
    final: FinalDecision
    mismatch: MismatchInfo
    context: GuardContext | None
    policy_hash: str


class MarketParts:
    """What decides for one market: its state, risk state, model, policy and guards. Made once, by `assemble`."""

    __slots__ = (
        "account_version",
        "base_policy",
        "context",
        "engine",
        "is_throttled",
        "market_id",
        "marked_mid",
        "modulate",
        "policy",
        "policy_hash",
        "positions",
        "risk",
        "state",
        "tp_ticks",
        "usd_rate",
    )

    def __init__(
        self,
        state: SymbolState,
        market_id: str,
        *,
        engine: DecisionEngine,
        modulate: Modulate | None,
        policy: RiskPolicy,
        risk: RiskState,
        positions: PositionManager,
    ) -> None:
        self.state = state
        self.market_id = market_id
        self.engine = engine
        self.modulate = modulate
        self.policy = self.base_policy = policy  # the operator's budget may stand between them
        self.policy_hash = policy.policy_hash
        self.risk = risk
        self.positions = positions
        # A policy may ask for keys that the trace would leave out: then it leaves out nothing.
        self.context = TracedContext() if OMITTED_KEYS.isdisjoint(policy.required_context) else GuardContext()
        self.is_throttled = False
        self.marked_mid = 0.0  # what the account was last marked to
        self.usd_rate = 1.0  # what one unit of the settlement currency is worth
        self.account_version = -1  # of the account that the risk state was last told
        self.tp_ticks = float(policy.tp_ticks)


def decide(parts: MarketParts, event: Any, account: AccountView, now_ns: int) -> Decision:
    """Return the decision on `event`, which `parts.state` has already folded.

    Parameters
    ----------
    parts : MarketParts
        The market's state and what decides on it.
    event : a market event or a TimerEvent
        What happened.
    account : AccountView
        The account after every fill that is known.
    now_ns : int
        The decision clock, ns: event time in a recorded run, wall time in a live one.
    """
    is_generic = _is_generic(parts, event)
    proposal = _propose(parts, account, now_ns // NS_PER_MS, is_generic=is_generic)
    return judge(parts, proposal, account, now_ns, is_generic=is_generic)


def _is_generic(parts: MarketParts, event: Any) -> bool:
    # A symbol that ever had a book stays a market: events without a price do not make it fresh.
    state = parts.state
    is_generic = type(event) is GenericEvent or (type(event) is TimerEvent and not state.last_book_ts_ns)
    return is_generic and state.generic is not None


def judge(
    parts: MarketParts, proposal: Proposal, account: AccountView, now_ns: int, *, is_generic: bool = False
) -> Decision:
    """Return the decision on what was proposed: the second half of `decide`.

    Parameters
    ----------
    parts, account, now_ns
        Those of `decide`.
    proposal : Proposal
        What the model, or an exit, asks for.
    is_generic : bool
        The event has no price.
    """
    if parts.modulate is None:
        final = FinalDecision(proposal.action, True, proposal.reasons, params=proposal.params)
        return Decision(proposal, final, _UNGUARDED, None, "")
    context = parts.context
    parts.risk.fill_context(context, now_ns)
    _fill_market(context, parts, is_generic=is_generic)
    context.current_total_exposure_usd = account.exposure_usd
    context.abs_inventory = abs(account.position)
    context.open_orders = account.open_orders
    context.active_markets = account.active_markets
    context.ops_deny_actions = account.is_denied
    context.equity_usd = account.equity * parts.usd_rate
    context.drawdown_usd = account.drawdown * parts.usd_rate
    try:
        final, mismatch = _read_verdict(*parts.modulate(proposal, parts.policy, context))
    except Exception as error:  # a modulator of the user's own is foreign code, and guards fail closed
        mismatch = MismatchInfo(["modulator"], ["guard_error:modulator"], None, {"error": type(error).__name__})
        final = FinalDecision(Action.STOP, False, ["guard_error:modulator"], mismatch)
    # A private override decides under a policy of its own making: it is that one's hash which belongs to the decision.
    effective = getattr(parts.modulate, "effective", None)
    return Decision(
        proposal, final, mismatch, context, parts.policy_hash if effective is None else effective.policy_hash
    )


def _read_verdict(final: Any, mismatch: Any) -> tuple[FinalDecision, MismatchInfo]:
    """Return a verdict of any `decision_schema` as our own, read by its public attributes."""
    if type(final) is not FinalDecision:
        names = ("throttle_ms", "cooldown_ms", "params")
        rest = {name: getattr(final, name, None) for name in names}
        action = Action(getattr(final.action, "value", final.action))
        reasons = [str(reason) for reason in getattr(final, "reasons", None) or ()]
        final = FinalDecision(action, bool(getattr(final, "allowed", True)), reasons, **rest)
    if type(mismatch) is not MismatchInfo:
        mismatch = MismatchInfo(
            list(getattr(mismatch, "flags", None) or ()),
            list(getattr(mismatch, "reason_codes", None) or ()),
            getattr(mismatch, "throttle_refresh_ms", None),
            getattr(mismatch, "metadata", None),
        )
    return final, mismatch


def _propose(parts: MarketParts, account: AccountView, now_ms: int, *, is_generic: bool) -> Proposal:
    state = parts.state
    if is_generic:
        assert state.generic is not None
        return parts.engine.propose(state.generic.view)
    if not state.last_book_ts_ns:
        return NO_BOOK
    if account.position != 0.0:
        # In a one-sided book the mid is the side that is there.
        must_flatten, reason = parts.positions.should_flatten(parts.market_id, state.mid, now_ms)
        if must_flatten:
            return Proposal(Action.EXIT, 1.0, [reason])
    return parts.engine.propose(state.features())


def _fill_market(context: GuardContext, parts: MarketParts, *, is_generic: bool) -> None:
    state = parts.state
    context.tp_ticks = parts.tp_ticks
    if not state.last_book_ts_ns:
        context.last_event_ts_ms = state.last_ts_ns // NS_PER_MS if is_generic else None
        return
    row = state.row
    # After a gap the book is as old as can be: the staleness guard holds and pulls until the next snapshot.
    context.last_event_ts_ms = BEFORE_ALL_MS if state.has_gap else state.last_book_ts_ns // NS_PER_MS
    context.mid = state.mid
    context.depth = row.item(_DEPTH)
    context.spread_bps = row.item(_SPREAD_BPS)
    context.cost_ticks = row.item(_COST_TICKS)
    context.sigma_5m = row.item(_SIGMA_5M)
    context.spread_med_5m = row.item(_SPREAD_MED_5M)
    context.depth_p10_5m = row.item(_DEPTH_P10_5M)
    context.sigma_spike_z = row.item(_SIGMA_SPIKE_Z)
