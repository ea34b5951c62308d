"""Actions, proposals and decisions."""

from __future__ import annotations

import copy
import pickle

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision_schema.types import (
    Action,
    FinalAction,
    FinalDecision,
    MismatchInfo,
    Proposal,
    TradeProposal,
    clamp_confidence,
    ensure_non_empty_reasons,
)


def test_actions_are_their_own_strings() -> None:
    assert [str(action) for action in Action] == ["HOLD", "ACT", "EXIT", "CANCEL", "STOP"]
    assert Action.ACT == "ACT"
    assert {"ACT": 1}[Action.ACT] == 1


@pytest.mark.parametrize(("alias", "name"), [("QUOTE", "ACT"), ("FLATTEN", "EXIT"), ("CANCEL_ALL", "CANCEL")])
def test_trading_names_are_aliases(alias: str, name: str) -> None:
    assert Action[alias] is Action[name]
    assert Action(alias) is Action(name)
    assert Proposal(alias, 0.5).action is Action[name]  # type: ignore[arg-type]
    assert FinalDecision(alias).action is Action[name]  # type: ignore[arg-type]


def test_an_unknown_action_is_refused() -> None:
    for make in (lambda: Proposal("BUY", 0.5), lambda: FinalDecision("BUY"), lambda: FinalDecision(None)):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="is not a valid Action"):
            make()


@pytest.mark.parametrize("confidence", [-0.001, 1.001, float("nan"), float("inf"), float("-inf")])
def test_a_confidence_outside_0_to_1_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match=r"`confidence` must be in \[0, 1\], was"):
        Proposal(Action.ACT, confidence)


@pytest.mark.parametrize("confidence", [0, 0.0, 1, 1.0, 5e-324])
def test_the_ends_of_the_range_are_confidences(confidence: float) -> None:
    assert Proposal(Action.ACT, confidence).confidence == confidence


def test_positional_order_is_the_contracts() -> None:
    proposal = Proposal(Action.ACT, 0.5, ["r"], {"p": 1}, "run", {"f": 2})
    assert (proposal.reasons, proposal.params, proposal.run_id, proposal.features_summary) == (
        ["r"],
        {"p": 1},
        "run",
        {"f": 2},
    )
    mismatch = MismatchInfo(["f"], ["c"], 1500, {"m": 1})
    assert (mismatch.flags, mismatch.reason_codes, mismatch.throttle_refresh_ms, mismatch.metadata) == (
        ["f"],
        ["c"],
        1500,
        {"m": 1},
    )
    final = FinalDecision(Action.HOLD, False, ["r"], mismatch, 1, 2, {"p": 1})
    assert (final.allowed, final.reasons, final.mismatch, final.throttle_ms, final.cooldown_ms, final.params) == (
        False,
        ["r"],
        mismatch,
        1,
        2,
        {"p": 1},
    )


def test_defaults_are_not_shared() -> None:
    first, second = Proposal(Action.ACT, 0.5), Proposal(Action.ACT, 0.5)
    first.reasons.append("x")
    first.features_summary["x"] = 1
    assert (second.reasons, second.features_summary) == ([], {})
    one, other = MismatchInfo(), MismatchInfo()
    one.flags.append("x")
    one.reason_codes.append("x")
    assert (other.flags, other.reason_codes) == ([], [])
    decision = FinalDecision(Action.HOLD)
    decision.reasons.append("x")
    assert FinalDecision(Action.HOLD).reasons == []


@pytest.mark.parametrize("thing", [Proposal(Action.ACT, 0.5), FinalDecision(Action.ACT)])
def test_proposals_and_decisions_are_frozen(thing: Proposal | FinalDecision) -> None:
    for name in ("action", "params", "bid_quote", "post_only"):
        with pytest.raises(AttributeError):
            setattr(thing, name, None)


def test_to_params_is_a_copy_down_to_its_containers() -> None:
    proposal = Proposal(Action.ACT, 0.5, params={"levels": [1, {"x": 2}], "size_usd": 1.0})
    params = proposal.to_params()
    params["levels"][1]["x"] = 3
    params["size_usd"] = 9.0
    assert proposal.params == {"levels": [1, {"x": 2}], "size_usd": 1.0}
    assert Proposal(Action.HOLD, 0.5).to_params() == {}


@pytest.mark.parametrize(
    "make", [lambda p: Proposal(Action.ACT, 0.5, params=p), lambda p: FinalDecision("ACT", params=p)]
)
def test_quote_fields_are_views_of_params(make: object) -> None:
    thing = make({"bid_quote": 0.49, "ask_quote": 0.51, "size_usd": 1.0, "post_only": False})  # type: ignore[operator]
    assert (thing.bid_quote, thing.ask_quote, thing.size_usd, thing.post_only) == (0.49, 0.51, 1.0, False)
    for params in (None, {}):
        empty = make(params)  # type: ignore[operator]
        assert (empty.bid_quote, empty.ask_quote, empty.size_usd, empty.post_only) == (None, None, None, True)


def test_old_names_are_the_same_classes() -> None:
    assert TradeProposal is Proposal
    assert FinalAction is FinalDecision


def test_structs_survive_pickling_copying_and_json() -> None:
    decision = FinalDecision("HOLD", False, ["spread"], MismatchInfo(["spread"], ["spread_too_wide"]), params={"a": 1})  # type: ignore[arg-type]
    assert pickle.loads(pickle.dumps(decision)) == decision
    assert copy.deepcopy(decision) == decision
    assert msgspec.json.decode(msgspec.json.encode(decision), type=FinalDecision) == decision


@given(st.floats())
def test_a_clamped_confidence_is_always_a_confidence(value: float) -> None:
    clamped = clamp_confidence(value)
    assert 0.0 <= clamped <= 1.0
    if 0.0 <= value <= 1.0:
        assert clamped == value


def test_reasons_are_never_empty() -> None:
    assert ensure_non_empty_reasons([]) == ["unknown"]
    assert ensure_non_empty_reasons(None, default="model") == ["model"]
    reasons = ["a", "", "b"]
    assert ensure_non_empty_reasons(reasons) == ["a", "b"]
    assert reasons == ["a", "", "b"]
