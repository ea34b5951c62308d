"""Actions, proposals and decisions: what decision cores, guards and executors say to one another."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from enum import StrEnum
from typing import Any

import msgspec

__all__ = [
    "Action",
    "FinalAction",
    "FinalDecision",
    "MismatchInfo",
    "Proposal",
    "TradeProposal",
    "clamp_confidence",
    "ensure_non_empty_reasons",
]


class Action(StrEnum):
    """What to do. The trading names QUOTE, FLATTEN and CANCEL_ALL are aliases of ACT, EXIT and CANCEL.

    Examples
    --------
    >>> Action.ACT == "ACT", Action.QUOTE is Action.ACT, Action("CANCEL_ALL") is Action.CANCEL
    (True, True, True)
    """

    HOLD = "HOLD"
    ACT = "ACT"
    EXIT = "EXIT"
    CANCEL = "CANCEL"
    STOP = "STOP"

    QUOTE = "ACT"
    FLATTEN = "EXIT"
    CANCEL_ALL = "CANCEL"

    @classmethod
    def _missing_(cls, value: object) -> Action | None:
        return cls.__members__.get(value) if isinstance(value, str) else None


class _WithParams(msgspec.Struct, frozen=True, gc=False):
    """What a proposal and a decision share: parameters, and the quote fields of contract 0.1 as views of them."""

    def to_params(self) -> dict[str, Any]:
        """Return a copy of the parameters, containers included; {} when there are none."""
        params: dict[str, Any] | None = self.params  # type: ignore[attr-defined]
        if not params:
            return {}
        return {k: deepcopy(v) if isinstance(v, (dict, list, set)) else v for k, v in params.items()}

    def _param(self, name: str) -> Any:
        params: dict[str, Any] | None = self.params  # type: ignore[attr-defined]
        return params.get(name) if params else None

    @property
    def bid_quote(self) -> float | None:
        """Price of the bid to quote, None when there is none."""
        return self._param("bid_quote")  # type: ignore[no-any-return]

    @property
    def ask_quote(self) -> float | None:
        """Price of the ask to quote, None when there is none."""
        return self._param("ask_quote")  # type: ignore[no-any-return]

    @property
    def size_usd(self) -> float | None:
        """Size of each quote, USD, None when it is not given."""
        return self._param("size_usd")  # type: ignore[no-any-return]

    @property
    def post_only(self) -> bool:
        """True unless the parameters say otherwise: a quote rests, it does not take."""
        value = self._param("post_only")
        return True if value is None else bool(value)


class Proposal(_WithParams, frozen=True, gc=False):
    """What a model wants to do. Guards may make it safer, never bolder.

    Parameters
    ----------
    action : Action or str
        What is proposed.
    confidence : float
        In [0, 1].
    reasons : list of str
        Why, in stable snake_case codes.
    params : dict or None
        What the action needs, such as ``bid_quote``, ``ask_quote``, ``size_usd``, ``post_only``.
    run_id : str or None
        The run that the proposal belongs to.
    features_summary : dict
        The features that mattered, for the trace.

    Raises
    ------
    ValueError
        When `confidence` is outside [0, 1] or NaN, or `action` is none of `Action`.

    Examples
    --------
    >>> proposal = Proposal("QUOTE", 0.8, ["tight_spread"], {"bid_quote": 0.49})
    >>> proposal.action is Action.ACT, proposal.bid_quote, proposal.ask_quote
    (True, 0.49, None)
    >>> Proposal(Action.ACT, confidence=1.5)
    Traceback (most recent call last):
    ValueError: `confidence` must be in [0, 1], was 1.5
    """

    action: Action
    confidence: float
    reasons: list[str] = []
    params: dict[str, Any] | None = None
    run_id: str | None = None
    features_summary: dict[str, Any] = {}

    def __post_init__(self) -> None:
        # Written so that NaN, for which every comparison is False, is refused too.
        if not 0.0 <= self.confidence <= 1.0:
            raise ValueError(f"`confidence` must be in [0, 1], was {self.confidence!r}")
        if self.action.__class__ is not Action:
            msgspec.structs.force_setattr(self, "action", Action(self.action))


class MismatchInfo(msgspec.Struct, gc=False):
    """Where a decision departed from its proposal: the guards that fired, in table order, and their reason codes.

    Examples
    --------
    >>> MismatchInfo(["spread"], ["spread_too_wide"]).reason_codes
    ['spread_too_wide']
    """

    flags: list[str] = []
    reason_codes: list[str] = []
    throttle_refresh_ms: int | None = None
    metadata: dict[str, Any] | None = None


class FinalDecision(_WithParams, frozen=True, gc=False):
    """What is done, after the guards. `allowed` is False when a guard changed the action.

    Parameters
    ----------
    action : Action or str
        What is done.
    allowed : bool
        False when a guard changed the action.
    reasons : list of str
        Why, in stable snake_case codes.
    mismatch : MismatchInfo or None
        The guards that fired.
    throttle_ms, cooldown_ms : int or None
        How long to leave quotes as they are, or to stay out, ms.
    params : dict or None
        What the action needs, as in `Proposal`.

    Examples
    --------
    >>> decision = FinalDecision(Action.HOLD, allowed=False, reasons=["spread_too_wide"])
    >>> decision.action == "HOLD", decision.to_params()
    (True, {})
    """

    action: Action
    allowed: bool = True
    reasons: list[str] = []
    mismatch: MismatchInfo | None = None
    throttle_ms: int | None = None
    cooldown_ms: int | None = None
    params: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.action.__class__ is not Action:
            msgspec.structs.force_setattr(self, "action", Action(self.action))


TradeProposal = Proposal
FinalAction = FinalDecision


def clamp_confidence(value: float) -> float:
    """Return `value` brought into [0, 1]; NaN, which says nothing, becomes 0.

    >>> clamp_confidence(1.2), clamp_confidence(-0.1), clamp_confidence(float("nan"))
    (1.0, 0.0, 0.0)
    """
    if value >= 1.0:
        return 1.0
    return float(value) if value > 0.0 else 0.0


def ensure_non_empty_reasons(reasons: Iterable[str] | None, default: str = "unknown") -> list[str]:
    """Return the reasons as a list without empty ones, or ``[default]`` when nothing is left.

    >>> ensure_non_empty_reasons(None), ensure_non_empty_reasons(["", "tight_spread"])
    (['unknown'], ['tight_spread'])
    """
    return [reason for reason in reasons or () if reason] or [default]
