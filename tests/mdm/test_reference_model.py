"""The reference model against its formula."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ami_engine.mdm import compute_proposal_reference
from decision_schema.types import Action

NAMES = ("mid", "spread", "spread_bps", "depth", "imbalance")
GOOD = {"mid": 100.0, "spread": 0.04, "spread_bps": 4.0, "depth": 80.0, "imbalance": 0.5}


@given(st.floats(0, 500), st.floats(-1, 1), st.floats(0, 5_000), st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 100))
def test_it_is_the_documented_formula(
    depth: float, imbalance: float, spread_bps: float, threshold: float, lean: float, largest: float
) -> None:
    spread = 100.0 * spread_bps / 1e4
    book = {"mid": 100.0, "spread": spread, "spread_bps": spread_bps, "depth": depth, "imbalance": imbalance}
    proposal = compute_proposal_reference(book, threshold, lean, largest)
    d, s, w = min(1, depth / 100), abs(imbalance), max(0, 1 - spread_bps / 1000)
    confidence = 1 / (1 + math.exp(-5 * (0.4 * d + 0.4 * s + 0.2 * w - 0.5)))
    assert proposal.confidence == pytest.approx(confidence, rel=1e-12)
    reasons = [
        name
        for name, holds in (("sufficient_depth", d > 0.5), ("imbalance", s > lean), ("tight_spread", w > 0.7))
        if holds
    ]
    assert proposal.reasons == (reasons or ["low_confidence"])
    if proposal.confidence >= threshold and s >= lean:
        assert proposal.action is Action.ACT
        assert proposal.params == {
            "bid_quote": 100.0 - spread / 4,
            "ask_quote": 100.0 + spread / 4,
            "size_usd": pytest.approx(min(largest, 2 * d * largest)),
            "post_only": True,
        }
    else:
        assert (proposal.action, proposal.params) == (Action.HOLD, None)


def test_thresholds_are_reached_at_exactly_their_value() -> None:
    confidence = compute_proposal_reference(GOOD).confidence
    assert compute_proposal_reference(GOOD, confidence, 0.5).action is Action.ACT
    assert compute_proposal_reference(GOOD, math.nextafter(confidence, 2), 0.5).action is Action.HOLD
    assert compute_proposal_reference(GOOD, confidence, math.nextafter(0.5, 1)).action is Action.HOLD


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_feature_that_is_no_number_holds_without_confidence(name: str, value: float) -> None:
    proposal = compute_proposal_reference({**GOOD, name: value}, confidence_threshold=0.0, imbalance_threshold=0.0)
    assert (proposal.action, proposal.confidence, proposal.reasons) == (Action.HOLD, 0.0, ["low_confidence"])
    assert proposal.params is None


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_feature_counts_as_zero(name: str) -> None:
    zero: dict[str, Any] = {**GOOD, name: 0.0}
    missing = {key: value for key, value in GOOD.items() if key != name}
    assert compute_proposal_reference(missing) == compute_proposal_reference(zero)
    assert compute_proposal_reference({**GOOD, name: None}) == compute_proposal_reference(zero)


def test_nothing_known_is_a_hold_of_low_confidence_but_for_the_spread() -> None:
    proposal = compute_proposal_reference({})
    assert (proposal.action, proposal.reasons) == (Action.HOLD, ["tight_spread"])
    assert compute_proposal_reference({"spread_bps": 900.0}).reasons == ["low_confidence"]


def test_without_a_mid_there_is_nothing_to_quote_around() -> None:
    proposal = compute_proposal_reference({**GOOD, "mid": 0.0})
    assert proposal.action is Action.ACT
    assert proposal.params == {"size_usd": 1.0, "post_only": True}
