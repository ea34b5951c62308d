"""The quick look says "clean" of nothing that the slow walk would change."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ami_engine.loop.packets import TracedContext
from ami_engine.security.jsonl import JsonScrubber
from ami_engine.trace.clean_check import CleanCheck
from decision_schema.packet_v2 import PacketV2
from decision_schema.types import Action, FinalDecision, MismatchInfo, Proposal

CANARY = "cAnArY9f3b"
_SECRETS = [f"token={CANARY}", f"Bearer {CANARY}", f"https://u:{CANARY}@host/", "NaN", "~Infinity"]
_TEXTS = st.sampled_from([*_SECRETS, "tight_spread", "ok", "", "BTCUSDT"])
_KEYS = st.sampled_from(["mid", "api_key", "clientSecret", "ops.seq", f"token={CANARY}", "x"])
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | _TEXTS
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=12,
)
_is_clean = CleanCheck(JsonScrubber())


@given(_VALUES)
def test_what_is_called_clean_is_left_alone_by_the_walk(value: Any) -> None:
    if _is_clean(value):
        assert JsonScrubber().clean(value) is value


@given(st.lists(_TEXTS, max_size=3), st.none() | st.dictionaries(_KEYS, _LEAVES, max_size=3), _LEAVES)
def test_so_is_a_proposal_whatever_a_model_puts_into_it(reasons: list[str], params: Any, other: Any) -> None:
    for record in (
        Proposal(Action.ACT, 0.5, reasons, params, None, {"x": other}),
        FinalDecision(Action.HOLD, True, reasons, MismatchInfo(reasons, reasons, None, params), other, None, params),
        TracedContext(now_ms=1, mid=other, extra=params, latched=tuple(reasons)),
    ):
        if _is_clean(record):
            assert JsonScrubber().clean(record) is record


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["now_ms", "mid", "sigma_5m", "quote_budget_until_ms"])
def test_one_bad_number_among_the_many_of_a_struct_is_seen(name: str, number: float) -> None:
    numbers = dict.fromkeys(TracedContext.__struct_fields__[:-3], 1.0)
    assert _is_clean(TracedContext(**numbers))
    assert not _is_clean(TracedContext(**{**numbers, name: number}))


def test_two_infinities_do_not_cancel_and_a_huge_sum_is_no_reason_to_doubt() -> None:
    assert not _is_clean(TracedContext(now_ms=math.inf, mid=-math.inf))
    assert _is_clean(TracedContext(**dict.fromkeys(TracedContext.__struct_fields__[:-3], 1e308)))


@pytest.mark.parametrize("value", [b"x", {1}, Decimal(1), np.float64(1.0), np.zeros(3), object(), {1: 2}, {(1,): 2}])
def test_what_it_does_not_know_is_left_to_the_walk(value: Any) -> None:
    assert not _is_clean(value)
    assert not _is_clean([value])
    assert not _is_clean({"x": value})
    assert not _is_clean(Proposal(Action.ACT, 0.5, [], {"x": value}))


def test_a_struct_with_a_secret_field_is_never_clean() -> None:
    class Credentials(msgspec.Struct):
        api_key: str = ""

    class Renamed(msgspec.Struct, rename={"key_text": "api_key"}):
        key_text: str = ""

    assert not _is_clean(Credentials())
    assert not _is_clean(Renamed())


def test_a_list_that_begins_like_text_is_looked_at_to_its_end() -> None:
    for bad in (math.nan, f"token={CANARY}", [math.nan], {"api_key": 1}):
        assert _is_clean(["tight_spread", "imbalance"])
        assert not _is_clean(["tight_spread", bad])
        assert not _is_clean(Proposal(Action.ACT, 0.5, ["tight_spread", bad]))  # type: ignore[list-item]


def test_a_runs_packet_is_clean_until_something_is_put_into_it(make_run_packet: Callable[..., PacketV2]) -> None:
    is_clean = CleanCheck(JsonScrubber())
    assert is_clean(make_run_packet(4)) is True
    assert is_clean(make_run_packet(5)) is True
    assert is_clean(make_run_packet(1)) is False  # NaN among its features
    for place in ("input", "external", "mdm", "final_action", "mismatch"):
        assert is_clean(make_run_packet(4, **{place: {"note": f"token={CANARY}"}})) is False
