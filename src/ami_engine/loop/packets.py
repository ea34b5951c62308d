"""What a trace packet says of one decision: enough to recompute it, and nothing twice."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from ami_engine.dmc.context import GuardContext
from ami_engine.features.schema import FEATURE_NAMES

__all__ = ["FeatureRow", "PacketInput", "feature_row"]

# One struct with a field per feature: cheaper to make and to encode than a dict of the same names.
FeatureRow: Any = msgspec.defstruct("FeatureRow", [(name, float) for name in FEATURE_NAMES], frozen=True, gc=False)


def feature_row(row: np.ndarray[Any, np.dtype[np.float64]]) -> Any:
    """Return a detached copy of a live feature row, by name."""
    return FeatureRow(*row.tolist())


class PacketInput(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What a decision was made from.

    `ts_ns` is the event's receive time, `now_ns` the decision clock. `features` is None for a timer, which has no row.
    `context` is what modulation saw: with the policy of `policy_hash` it gives the whole guard ladder again.
    """

    kind: str
    symbol: str
    ts_ns: int
    now_ns: int
    policy_hash: str = ""
    exch_ts_ns: int = 0
    seq: int = 0
    features: Any = None
    context: GuardContext | None = None
