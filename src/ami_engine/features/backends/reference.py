"""The meaning of every feature: slow, plain, recomputed from its definition at each event.

This backend is the definition that `native` and `numba` are tested against. It keeps the windows as lists of samples and
nothing else: no running sum, no cached statistic. The formulas are those of `features.schema`.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

EPS = 1e-9  # a zero test only, never added to a denominator


@dataclass(slots=True)
class BookFacts:
    """What one book event says, before any history."""

    ts_ns: int
    bid: float  # 0.0 where the side is missing
    ask: float
    bid_size: float  # at the best price
    ask_size: float
    bid_depth: float  # over the top N levels
    ask_depth: float
    bid_weighted: float  # the same with the level weights
    ask_weighted: float
    bid_value: float  # sum of price times size over the top N levels
    ask_value: float

    @property
    def is_two_sided(self) -> bool:
        return self.bid > 0.0 and self.ask > 0.0


@dataclass(slots=True)
class Sample:
    """One mid of the regime window, and what came with it."""

    number: int  # counted from 1 over the life of the engine
    ts_ns: int
    mid: float
    spread: float
    depth: float
    staleness_ms: float
    log_return: float | None  # from the mid before; None for the first of all
    order_flow: float | None  # likewise


@dataclass(slots=True)
class Print:
    """One trade of the regime window."""

    ts_ns: int
    after_mid: int  # number of the latest mid when it arrived
    price: float
    size: float
    aggressor: int


def log_return(previous: float, mid: float) -> float:
    """log(mid / previous), right to the last digits where prices are large and moves small."""
    return math.log1p((mid - previous) / previous)


def order_flow(before: BookFacts, now: BookFacts) -> float:
    """Contribution e_n of one book event to the order-flow imbalance (Cont, Kukanov & Stoikov 2014, section 2.1)."""
    flow = 0.0
    if now.bid >= before.bid:
        flow += now.bid_size
    if now.bid <= before.bid:
        flow -= before.bid_size
    if now.ask <= before.ask:
        flow -= now.ask_size
    if now.ask >= before.ask:
        flow += before.ask_size
    return flow


def spike_z(returns: npt.NDArray[np.float64], short: int) -> float:
    """How far the newest short-run volatility stands from the others: (s_last − mean(s)) / std(s)."""
    if len(returns) < short:
        return 0.0
    runs = np.lib.stride_tricks.sliding_window_view(returns, short)
    s = np.std(runs, axis=1)
    scale = float(np.std(s))
    return 0.0 if scale < EPS else float(s[-1] - np.mean(s)) / scale
