"""The private policy hook: the user's own `override_policy(policy, context)`, applied before modulation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from ami_engine.dmc.context import GuardContext
from ami_engine.dmc.modulator import modulate, modulate_in_full
from ami_engine.dmc.risk_policy import RiskPolicy
from ami_engine.private_hook import load_hook
from decision_schema.types import FinalDecision, MismatchInfo, Proposal

__all__ = ["Audit", "OverridingModulator", "PolicyOverride", "assemble_modulator", "load_policy_override"]

HOOK_MODULE = "ami_engine.dmc._private.policy"
HOOK_NAME = "override_policy"
REASON = "policy_override_error"

Context = GuardContext | Mapping[str, Any]
PolicyOverride = Callable[[RiskPolicy, Context], RiskPolicy]


class Audit(Protocol):
    """Where hook failures are written."""

    def record(self, kind: str, /, **fields: Any) -> Any:
        """Write one line."""
        ...


def load_policy_override() -> PolicyOverride | None:
    """Return the private hook, None when there is no such file.

    A hook file that exists and cannot be imported raises whatever it raises: that is not absence.
    """
    override: PolicyOverride | None = load_hook(HOOK_MODULE, HOOK_NAME)
    return override


class OverridingModulator:
    """`modulate` under the policy that the private hook makes of the given one.

    When the hook raises or returns no `RiskPolicy`, the guards run under the given policy and the result is at least
    HOLD with reason ``policy_override_error``; the audit line carries the exception's type, never its text.

    Parameters
    ----------
    override : callable or None
        ``override(policy, context) -> RiskPolicy``; None for a hook that could not be loaded.
    audit : Audit or None
        Where failures are written.

    Attributes
    ----------
    effective : RiskPolicy or None
        The policy of the last decision: its hash is the one that belongs into the packet.

    Examples
    --------
    >>> from decision_schema.types import Action, Proposal
    >>> strict = OverridingModulator(lambda policy, context: RiskPolicy(min_depth=100))
    >>> final, mismatch = strict(Proposal(Action.ACT, 0.9), RiskPolicy(), {"depth": 50.0})
    >>> mismatch.reason_codes, strict.effective.min_depth
    (['insufficient_depth'], 100.0)
    """

    def __init__(self, override: PolicyOverride | None, audit: Audit | None = None) -> None:
        self._override = override
        self._audit = audit
        self.effective: RiskPolicy | None = None

    def __call__(self, proposal: Proposal, policy: RiskPolicy, context: Context) -> tuple[FinalDecision, MismatchInfo]:
        """Return what `modulate` returns under the effective policy. Never raises."""
        self.effective = policy
        if self._override is None:
            return self._refuse(proposal, policy, context)
        try:
            effective = self._override(policy, context)
        except Exception as error:
            self._report(type(error).__name__)
            return self._refuse(proposal, policy, context)
        if not isinstance(cast(object, effective), RiskPolicy):
            self._report("not a RiskPolicy")
            return self._refuse(proposal, policy, context)
        self.effective = effective
        return modulate(proposal, effective, context)

    def _refuse(self, proposal: Proposal, policy: RiskPolicy, context: Context) -> tuple[FinalDecision, MismatchInfo]:
        return modulate_in_full(proposal, policy, context, REASON)

    def _report(self, error: str) -> None:
        if self._audit is not None:
            self._audit.record(REASON, hook=HOOK_MODULE, stage="call", error=error)


def assemble_modulator(
    audit: Audit | None = None,
) -> Callable[[Proposal, RiskPolicy, Context], tuple[FinalDecision, MismatchInfo]]:
    """Return `modulate` itself when there is no private hook, else the modulator that applies it.

    The hook is looked up here, once. One that cannot be imported is written to the audit and holds every decision.

    >>> callable(assemble_modulator())
    True
    """
    try:
        override = load_policy_override()
    except Exception as error:
        if audit is not None:
            audit.record(REASON, hook=HOOK_MODULE, stage="import", error=type(error).__name__)
        return OverridingModulator(None, audit)
    return modulate if override is None else OverridingModulator(override, audit)
