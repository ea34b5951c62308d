"""Packets as a run makes them, of structs, with everything in them that a trace must bring back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ami_engine.loop.packets import FeatureRow, PacketInput, TracedContext, feature_row
from decision_schema.packet_v2 import PacketV2
from decision_schema.types import Action, FinalDecision, MismatchInfo, Proposal

CANARY = "cAnArY9f3b"
WIDTH = len(FeatureRow.__struct_fields__)


def run_packet(step: int = 0, **changes: Any) -> PacketV2:
    """A packet as the loop makes it; `sigma` is NaN in the first three."""

    row = np.arange(WIDTH, dtype=np.float64) / 7.0 + step
    if step < 3:
        row[17] = math.nan
    context = TracedContext(now_ms=1_000 + step, mid=0.5 + step / 8, depth=12.5, cancels_in_window=step)
    mismatch = MismatchInfo(["spread"], ["spread_too_wide"], None, {"guards": {"spread": {"value": 3.5 + step}}})
    fired = step % 2 == 1
    fields: dict[str, Any] = {
        "input": PacketInput("trade", "X", step + 1, step + 1, "ab12", 0, step, feature_row(row), context),
        "external": {"exec.attempt_count": 2} if fired else {},
        "mdm": Proposal(Action.ACT, 0.8, ["tight_spread"], {"bid_quote": 0.49, "post_only": True}),
        "final_action": FinalDecision(Action.HOLD, not fired, ["spread_too_wide"]),
        "latency_ms": 0.25,
        "mismatch": mismatch if fired else None,
    }
    return PacketV2("run_1", step, **{**fields, **changes})


@pytest.fixture
def make_run_packet() -> Callable[..., PacketV2]:
    return run_packet
