"""The reference model: a plain market maker that shows what a proposal looks like."""

from __future__ import annotations

import math
from typing import Any, Protocol

import msgspec

from decision_schema.types import Action, Proposal

__all__ = ["Features", "ReferenceModel", "compute_proposal_reference"]

_KEYWORDS = ("imbalance_threshold", "max_size_usd")


class Features(Protocol):
    """What a model reads: a `FeatureVector`, or any mapping."""

    def get(self, name: str, /) -> Any:
        """Return the feature of that name, None when there is none."""
        ...


def compute_proposal_reference(
    features: Features,
    confidence_threshold: float = 0.5,
    imbalance_threshold: float = 0.1,
    max_size_usd: float = 1.0,
) -> Proposal:
    """Propose quotes around the mid when the book is deep, tight and leaning to one side.

    With d = min(1, depth / 100), s = |imbalance|, w = clip(1 − spread_bps / 1000, 0, 1) and
    raw = 0.4 d + 0.4 s + 0.2 w, the confidence is 1 / (1 + exp(−5 (raw − 0.5))). ACT when the confidence reaches its
    threshold and s its own.

    Parameters
    ----------
    features : FeatureVector or mapping
        Read are ``mid``, ``spread``, ``spread_bps``, ``depth`` and ``imbalance``; one that is missing counts as 0.
    confidence_threshold, imbalance_threshold : float
        What confidence and |imbalance| must reach, in [0, 1].
    max_size_usd : float
        Size of a quote at most, USD.

    Returns
    -------
    Proposal
        ACT with ``bid_quote`` and ``ask_quote`` at mid ± spread / 4 (the order layer rounds them to the grid, outward),
        ``size_usd`` = min(max_size_usd, 2 d max_size_usd) and ``post_only``; else HOLD. Without a mid there is nothing
        to quote around: the ACT then carries a size and no quotes. A feature that is NaN or infinite, such as the
        spread of a one-sided book, gives HOLD with confidence 0 and reason ``low_confidence``.

    Examples
    --------
    >>> book = {"mid": 100.0, "spread": 0.04, "spread_bps": 4.0, "depth": 80.0, "imbalance": 0.5}
    >>> proposal = compute_proposal_reference(book)
    >>> proposal.action.value, round(proposal.confidence, 3), proposal.reasons
    ('ACT', 0.75, ['sufficient_depth', 'imbalance', 'tight_spread'])
    >>> proposal.params
    {'bid_quote': 99.99, 'ask_quote': 100.01, 'size_usd': 1.0, 'post_only': True}
    """
    get = features.get
    mid = get("mid") or 0.0
    spread = get("spread") or 0.0
    spread_bps = get("spread_bps") or 0.0
    depth = get("depth") or 0.0
    imbalance = get("imbalance") or 0.0
    if not math.isfinite(mid + spread + spread_bps + depth + imbalance):
        return Proposal(action=Action.HOLD, confidence=0.0, reasons=["low_confidence"])

    d = min(1.0, depth / 100.0)
    s = abs(imbalance)
    w = min(1.0, max(0.0, 1.0 - spread_bps / 1000.0))
    raw = 0.4 * d + 0.4 * s + 0.2 * w
    confidence = 1.0 / (1.0 + math.exp(-5.0 * (raw - 0.5)))

    reasons = []
    if d > 0.5:
        reasons.append("sufficient_depth")
    if s > imbalance_threshold:
        reasons.append("imbalance")
    if w > 0.7:
        reasons.append("tight_spread")
    if not reasons:
        reasons.append("low_confidence")
    if confidence < confidence_threshold or s < imbalance_threshold:
        return Proposal(action=Action.HOLD, confidence=confidence, reasons=reasons)

    params: dict[str, Any] = {"size_usd": min(max_size_usd, 2.0 * d * max_size_usd), "post_only": True}
    if mid > 0.0:
        params = {"bid_quote": mid - spread / 4.0, "ask_quote": mid + spread / 4.0, **params}
    return Proposal(action=Action.ACT, confidence=confidence, reasons=reasons, params=params)


class ReferenceModel(msgspec.Struct, frozen=True):
    """`compute_proposal_reference` with its parameters: a model, which the compiled step knows by its type.

    A call takes ``imbalance_threshold`` and ``max_size_usd`` as keywords too, and lets others be.

    Examples
    --------
    >>> book = {"mid": 100.0, "spread": 0.04, "spread_bps": 4.0, "depth": 80.0, "imbalance": 0.5}
    >>> ReferenceModel(max_size_usd=20.0)(book).params["size_usd"]
    20.0
    """

    confidence_threshold: float = 0.5
    imbalance_threshold: float = 0.1
    max_size_usd: float = 1.0

    def __call__(self, features: Features, **kwargs: Any) -> Proposal:
        """Return the proposal for the features."""
        if not kwargs:
            return compute_proposal_reference(
                features, self.confidence_threshold, self.imbalance_threshold, self.max_size_usd
            )
        taken = {name: kwargs.get(name, getattr(self, name)) for name in _KEYWORDS}
        return compute_proposal_reference(features, self.confidence_threshold, **taken)
