"""Modulation: a proposal, a policy and a context in; a decision and what departed from the proposal out.

Pure: same input, same output, no clock, no I/O, no hidden state. What needs memory is folded by `RiskState`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import msgspec

from ami_engine.dmc import guards
from ami_engine.dmc.context import GuardContext, context_from, every_number_is_known
from ami_engine.dmc.guards import ACT, CLAMP, HOLD, LOWERS_EXIT, PULL, SEVERITY, STOP, Finding, all_quiet
from ami_engine.dmc.risk_policy import RiskPolicy
from decision_schema.types import Action, FinalDecision, MismatchInfo, Proposal

__all__ = ["LadderRow", "guard_ladder", "modulate"]

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
        if type(context) is GuardContext and type(proposal) is Proposal:
            action, params = proposal.action, proposal.params
            size = params.get("size_usd") if params else None
            if (
                every_number_is_known(context)
                and all_quiet(context, policy, action, size)
                and not (policy.required_beside_numbers and _is_any_missing(context, policy.required_beside_numbers))
            ):
                return FinalDecision(action, True, proposal.reasons, None, None, None, params), MismatchInfo()
    except Exception:
        # Something is unknown, malformed, or foreign in a way that the quick check cannot judge: the ladder can.
        pass
    return modulate_in_full(proposal, policy, context)


def modulate_in_full(
    proposal: object, policy: RiskPolicy, context: object, trouble: tuple[str, str] | None = None
) -> tuple[FinalDecision, MismatchInfo]:
    """Go down the whole ladder. `trouble` is a (flag, code) that asks for HOLD before the table, where there is one."""
    try:
        action, params, reasons = read_proposal(proposal)
        rows = guard_ladder(proposal, policy, context)
        if trouble is not None:
            rows = (_trouble_row(trouble[0], [trouble[1]]), *rows)
        fired = [row for row in rows if row.fired]
        if not fired:
            return FinalDecision(action, True, reasons, None, None, None, params), MismatchInfo()
        return _resolve(action, params, reasons, fired)
    except Exception:
        # Objects that fail when they are merely looked at: nothing can be known, so nothing may be done.
        mismatch = MismatchInfo(["context"], ["modulator_error"], None, {"guards": {}, "quotes": PULL})
        return FinalDecision(STOP, False, ["modulator_error"], mismatch), mismatch


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
    action, size, faults = _read_order(proposal)
    c, codes = context_from(context, policy.required_context)
    rows = []
    if faults:
        rows.append(_trouble_row("proposal", faults))
    if codes:
        rows.append(_trouble_row("context", codes))
    for guard in guards.GUARDS:
        try:
            findings = guard.function(c, policy, action, size)
        except Exception:
            findings = (Finding(f"guard_error:{guard.flag}", None, None, STOP),)
        rows.append(
            LadderRow(
                guard.number,
                guard.flag,
                bool(findings),
                findings,
                guard.quotes,
                {key: getattr(c, key) for key in guard.reads},
                {key: getattr(policy, key) for key in guard.limits},
            )
        )
    return tuple(rows)


def read_proposal(proposal: Any) -> tuple[Action, dict[str, Any] | None, list[str]]:
    """Return action, params and reasons of a proposal of any `decision_schema`; an action nobody knows is HOLD."""
    action = _known_action(getattr(proposal, "action", None)) or HOLD
    params = getattr(proposal, "params", None)
    if params is None:
        fields = {name: getattr(proposal, name, None) for name in _QUOTE_FIELDS}
        if any(fields[name] is not None for name in _QUOTE_FIELDS[:3]):
            params = {name: value for name, value in fields.items() if value is not None}
    if params is not None and type(params) is not dict:
        params = dict(params) if isinstance(params, Mapping) else None
    return action, params, [str(reason) for reason in getattr(proposal, "reasons", None) or ()]


def _read_order(proposal: Any) -> tuple[Action, float | None, list[str]]:
    """Return action and size as guards need them, and the codes of what is wrong with the proposal."""
    faults = []
    if _known_action(getattr(proposal, "action", None)) is None:
        faults.append("proposal_invalid:action")
    given = getattr(proposal, "params", None)
    if given is not None and not isinstance(given, Mapping):
        faults.append("proposal_invalid:params")
    action, params, _ = read_proposal(proposal)
    size = params.get("size_usd") if params else None
    if action is ACT and size is not None and not (isinstance(size, Real) and 0.0 <= float(size) < math.inf):
        faults.append("proposal_invalid:size_usd")
        size = None
    return action, size, faults


def _known_action(given: Any) -> Action | None:
    if type(given) is Action:
        return given
    try:
        return Action(getattr(given, "value", given))
    except ValueError:
        return None


def _is_any_missing(context: GuardContext, keys: tuple[str, ...]) -> bool:
    extra = context.extra or {}
    return any(getattr(context, key, None) is None and extra.get(key) is None for key in keys)


def _trouble_row(flag: str, codes: list[str]) -> LadderRow:
    findings = tuple(Finding(code, None, None, HOLD) for code in codes)
    return LadderRow(0, flag, True, findings, PULL, {}, {})


def _resolve(
    proposed: Action, params: dict[str, Any] | None, reasons: list[str], fired: list[LadderRow]
) -> tuple[FinalDecision, MismatchInfo]:
    """Apply the precedence law to what fired."""
    findings = [finding for row in fired for finding in row.findings]
    base = HOLD if any(finding.code == LOWERS_EXIT for finding in findings) else proposed
    strongest = max(findings, key=lambda finding: SEVERITY[finding.action]).action
    action = Action(strongest) if SEVERITY[strongest] > SEVERITY[base] and strongest != CLAMP else base
    asked = CLAMP if action is ACT else action
    deciding = list(dict.fromkeys(finding.code for finding in findings if finding.action == asked))
    if action is not proposed:
        params, reasons = None, deciding
    elif action is ACT:
        left = min(finding.size_usd for finding in findings if finding.size_usd is not None)
        params, reasons = {**(params or {}), "size_usd": left}, [*reasons, *deciding]
    mismatch = MismatchInfo(
        [row.flag for row in fired],
        list(dict.fromkeys(finding.code for finding in findings)),
        max((finding.throttle_ms for finding in findings), default=0) or None,
        {"guards": {row.flag: _metadata(row.findings) for row in fired}, "quotes": _quotes(action, fired)},
    )
    cooldown = max(finding.cooldown_ms for finding in findings) or None
    decision = FinalDecision(
        action, action is proposed, reasons, mismatch, mismatch.throttle_refresh_ms, cooldown, params
    )
    return decision, mismatch


def _metadata(findings: tuple[Finding, ...]) -> dict[str, Any]:
    """Return the guard's strongest finding as plain values, and the others under `also`."""
    lead = max(findings, key=lambda finding: SEVERITY[finding.action])
    told = [
        {"code": f.code, "value": f.value, "limit": f.limit, "action": str(f.action)}
        for f in (lead, *(f for f in findings if f is not lead))
    ]
    return told[0] if len(told) == 1 else {**told[0], "also": told[1:]}


def _quotes(action: Action, fired: list[LadderRow]) -> str:
    if action is ACT:
        return guards.LEAVE
    if action is not HOLD:
        return PULL
    return PULL if any(row.quotes == PULL for row in fired) else guards.LEAVE
