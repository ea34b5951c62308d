"""Modulation: a proposal, a policy and a context in; a decision and what departed from the proposal out.

Pure: same input, same output, no clock, no I/O, no hidden state. What needs memory is folded by `RiskState`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any, NamedTuple, cast

import msgspec

from ami_engine.dmc.context import GuardContext, context_from, every_number_is_known, is_any_missing
from ami_engine.dmc.guards import (
    ACT,
    CLAMP,
    GUARDS,
    HOLD,
    LEAVE,
    LOWERS_EXIT,
    PULL,
    SEVERITY,
    STOP,
    Finding,
    Findings,
    Guard,
    all_quiet,
)
from ami_engine.dmc.risk_policy import RiskPolicy
from decision_schema.types import Action, FinalDecision, MismatchInfo, Proposal

__all__ = ["LadderRow", "guard_ladder", "modulate"]

# A flag, what was found, and what becomes of quotes when the result is HOLD.
_Fired = tuple[str, Findings, str]

UNKNOWN_ACTION = "proposal_invalid:action"

# The keys of a mismatch's metadata, and of a finding in it, in the order in which they are told.
FINDING_KEYS = ("guards", "quotes", "code", "value", "limit", "action", "also")

# What a 0.1 proposal carries as fields of its own.
_QUOTE_FIELDS = ("bid_quote", "ask_quote", "size_usd", "post_only")


class LadderRow(msgspec.Struct, frozen=True):
    """What one guard said: a finding for each of its conditions that holds, and what it looked at.

    `number` is the guard's place in the table; 0 stands for errors in the proposal or the context, before the table.
    """

    number: int
    flag: str
    fired: bool
    findings: tuple[Finding, ...]
    quotes: str
    values: dict[str, Any]
    limits: dict[str, float]


def modulate(
    proposal: Proposal, policy: RiskPolicy, context: GuardContext | Mapping[str, Any]
) -> tuple[FinalDecision, MismatchInfo]:
    """Run every guard over a proposal and return what is to be done.

    Parameters
    ----------
    proposal : Proposal
        Or any object with its public attributes, of this `decision_schema` or another one.
    policy : RiskPolicy
        The limits.
    context : GuardContext or mapping
        What is known. Neither it nor the proposal is changed.

    Returns
    -------
    FinalDecision
        `allowed` is False when the action is not the proposed one. A clamped size stands in ``params["size_usd"]``.
    MismatchInfo
        Empty when nothing fired. Otherwise the flags and codes of every guard that did, in table order;
        ``metadata["guards"]`` gives code, value, limit and action by flag (further findings of one guard under
        ``also``), and ``metadata["quotes"]`` is "pull" when the market's resting quotes are to be cancelled, else
        "leave".

    Notes
    -----
    Never raises. What cannot be judged is held (a proposal or a context that is malformed) or stopped (a guard that
    raised).

    Examples
    --------
    >>> from decision_schema.types import Action, Proposal
    >>> final, mismatch = modulate(Proposal(Action.ACT, 0.9), RiskPolicy(), {"spread_bps": 900.0, "depth": 50.0})
    >>> final.action, final.allowed, mismatch.flags, mismatch.reason_codes
    (<Action.HOLD: 'HOLD'>, False, ['spread'], ['spread_too_wide'])
    >>> mismatch.metadata["guards"]["spread"]["limit"], mismatch.metadata["quotes"]
    (500.0, 'pull')
    """
    try:
        if isinstance(context, GuardContext) and type(proposal) is Proposal:
            action, params = proposal.action, proposal.params
            size = params.get("size_usd") if params else None
            if (
                every_number_is_known(context)
                and all_quiet(context, policy, action, size)
                and not (policy.required_beside_numbers and is_any_missing(context, policy.required_beside_numbers))
            ):
                return FinalDecision(action=action, reasons=proposal.reasons, params=params), MismatchInfo()
    except Exception:
        # Something is unknown, malformed, or foreign in a way that the quick check cannot judge: the ladder can.
        pass
    return modulate_in_full(proposal, policy, context)


def modulate_in_full(
    proposal: object, policy: RiskPolicy, context: object, trouble: str | None = None
) -> tuple[FinalDecision, MismatchInfo]:
    """Ask every guard. `trouble` is a code of the caller's own that asks for HOLD, before the table."""
    try:
        order = _read_order(proposal)
        c, codes = context_from(context, policy.required_context, policy.required_beside_numbers)
        fired = _fired(order, policy, c)
        if codes:
            fired.insert(0, ("context", _held(codes), PULL))
        if order.faults:
            fired.insert(0, ("proposal", _held(order.faults), PULL))
        if trouble is not None:
            fired.insert(0, ("policy_override", _held([trouble]), PULL))
        if not fired:
            return FinalDecision(action=order.action, reasons=order.reasons, params=order.params), MismatchInfo()
        return _resolve(order, fired)
    except Exception:
        # Objects that fail when they are merely looked at: nothing can be known, so nothing may be done.
        codes = ["modulator_error"]
        mismatch = MismatchInfo(flags=["context"], reason_codes=codes, metadata={"guards": {}, "quotes": PULL})
        return FinalDecision(action=STOP, allowed=False, reasons=codes, mismatch=mismatch), mismatch


def guard_ladder(proposal: object, policy: RiskPolicy, context: object) -> tuple[LadderRow, ...]:
    """Return what every guard says, in table order, those that pass included.

    Rows numbered 0 come first, and only where the proposal or the context is malformed. The arguments are `modulate`'s.

    Examples
    --------
    >>> from decision_schema.types import Action, Proposal
    >>> rows = guard_ladder(Proposal(Action.ACT, 0.9), RiskPolicy(), {"depth": 0.5})
    >>> [(row.number, row.flag, row.values["depth"], row.limits["min_depth"]) for row in rows if row.fired]
    [(4, 'liquidity', 0.5, 1.0)]
    """
    order = _read_order(proposal)
    c, codes = context_from(context, policy.required_context, policy.required_beside_numbers)
    rows = [
        LadderRow(0, flag, True, _held(wrong), PULL, {}, {})
        for flag, wrong in (("proposal", order.faults), ("context", codes))
        if wrong
    ]
    for guard in GUARDS:
        findings = _ask(guard, order, policy, c)
        values = {key: getattr(c, key) for key in guard.reads}
        limits = {key: getattr(policy, key) for key in guard.limits}
        rows.append(LadderRow(guard.number, guard.flag, bool(findings), findings, guard.quotes, values, limits))
    return tuple(rows)


class _Order(NamedTuple):
    """A proposal as the guards need it, whichever `decision_schema` it came from."""

    action: Action
    size_usd: float | None
    params: dict[str, Any] | None
    reasons: list[str]
    faults: list[str]


def _read_order(proposal: Any) -> _Order:
    faults = []
    action = _known_action(getattr(proposal, "action", None))
    if action is None:
        action = HOLD
        faults.append(UNKNOWN_ACTION)
    params = getattr(proposal, "params", None)
    if type(params) is not dict and not (params is None and type(proposal) is Proposal):
        params = _foreign_params(proposal, params)
        if params is not None and not isinstance(params, dict):
            faults.append("proposal_invalid:params")
            params = None
    size = params.get("size_usd") if params else None
    if action is ACT and size is not None and not _is_size(size):
        faults.append("proposal_invalid:size_usd")
        size = None
    return _Order(action, size, params, [str(reason) for reason in getattr(proposal, "reasons", None) or ()], faults)


def _is_size(given: Any) -> bool:
    return isinstance(given, float | int | Real) and 0.0 <= cast(float, given) < math.inf


def _foreign_params(proposal: Any, params: Any) -> Any:
    """Return params as a dict, from the quote fields of a 0.1 proposal where it has no params."""
    if isinstance(params, Mapping):
        return dict(params)
    quotes = {name: value for name in _QUOTE_FIELDS if (value := getattr(proposal, name, None)) is not None}
    return quotes if params is None and quotes.keys() - {"post_only"} else params


def _known_action(given: Any) -> Action | None:
    if type(given) is Action:
        return given
    try:
        return Action(getattr(given, "value", given))
    except ValueError:
        return None


def _fired(order: _Order, policy: RiskPolicy, c: GuardContext) -> list[_Fired]:
    action, size = order.action, order.size_usd
    try:
        return [(g.flag, found, g.quotes) for g in GUARDS if (found := g.function(c, policy, action, size))]
    except Exception:
        # One raised: ask each by itself, so that the others are heard too.
        return [(g.flag, found, g.quotes) for g in GUARDS if (found := _ask(g, order, policy, c))]


def _ask(guard: Guard, order: _Order, policy: RiskPolicy, c: GuardContext) -> Findings:
    try:
        return guard.function(c, policy, order.action, order.size_usd)
    except Exception:
        return (Finding(f"guard_error:{guard.flag}", None, None, STOP),)


def _held(codes: list[str]) -> Findings:
    return tuple(Finding(code, None, None, HOLD) for code in codes)


def _resolve(order: _Order, fired: list[_Fired]) -> tuple[FinalDecision, MismatchInfo]:
    """Apply the precedence law to what fired."""
    proposed, params, reasons = order.action, order.params, order.reasons
    flags, told, pull = [], {}, False
    codes: dict[str, str] = {}
    action, rank = proposed, SEVERITY[proposed]
    left, throttle_ms, cooldown_ms = math.inf, 0, 0
    if fired[-1][1][0].code == LOWERS_EXIT:
        action, rank = HOLD, SEVERITY[HOLD]
    for flag, findings, quotes in fired:
        flags.append(flag)
        told[flag] = _told(findings)
        pull = pull or quotes == PULL
        for finding in findings:
            asked = finding.action
            codes.setdefault(finding.code, asked)
            if asked == CLAMP:
                left = min(left, cast(float, finding.size_usd))
            elif SEVERITY[asked] > rank:
                action, rank = Action(asked), SEVERITY[asked]
            throttle_ms = max(throttle_ms, finding.throttle_ms)
            cooldown_ms = max(cooldown_ms, finding.cooldown_ms)
    allowed = action is proposed and UNKNOWN_ACTION not in codes
    if not allowed:
        params, reasons = None, [code for code, asked in codes.items() if asked == action]
    elif action is ACT:
        params, reasons = {**(params or {}), "size_usd": left}, [*reasons, *codes]
    quotes = LEAVE if action is ACT or (action is HOLD and not pull) else PULL
    mismatch = MismatchInfo(
        flags=flags,
        reason_codes=list(codes),
        throttle_refresh_ms=throttle_ms or None,
        metadata={"guards": told, "quotes": quotes},
    )
    decision = FinalDecision(
        action=action,
        allowed=allowed,
        reasons=reasons,
        mismatch=mismatch,
        throttle_ms=throttle_ms or None,
        cooldown_ms=cooldown_ms or None,
        params=params,
    )
    return decision, mismatch


def _told(findings: Findings) -> dict[str, Any]:
    """Return a guard's strongest finding as plain values, and the others under `also`."""
    if len(findings) == 1:
        return _plain(findings[0])
    lead = max(findings, key=lambda finding: SEVERITY[finding.action])
    return {**_plain(lead), "also": [_plain(finding) for finding in findings if finding is not lead]}


def _plain(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "value": finding.value,
        "limit": finding.limit,
        "action": str(finding.action),
    }
