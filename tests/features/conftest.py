"""Feature builders on each backend, and streams of events to feed them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ami_engine.features import FeatureBuilder, FeatureConfig, available_backends

Make = Callable[..., FeatureBuilder]


@pytest.fixture(params=["native", "numba", "reference"])
def backend(request: pytest.FixtureRequest) -> str:
    reason = available_backends()[request.param]
    if reason:
        pytest.skip(f"backend {request.param}: {reason}")
    return str(request.param)


@pytest.fixture
def make(backend: str) -> Make:
    """Make a builder on the backend under test from keyword parameters of FeatureConfig."""

    def build(**parameters: Any) -> FeatureBuilder:
        return FeatureBuilder(FeatureConfig(**parameters), backend)

    return build


@pytest.fixture
def mixed_stream() -> dict[str, np.ndarray[Any, Any]]:
    """A table of 600 events: quotes, trades, one-sided books, levels and every kind of bad row."""
    rng = np.random.default_rng(5)
    n = 600
    ts = np.cumsum(rng.integers(0, 3_000_000, n)) + 1
    bid = np.round(60_000 + np.cumsum(rng.integers(-2, 3, n)) * 0.1, 1)
    ask = np.round(bid + 0.1 * rng.integers(0, 4, n), 1)
    levels = 3
    bids = np.full((n, levels, 2), np.nan)
    asks = np.full((n, levels, 2), np.nan)
    for i in np.flatnonzero(rng.random(n) < 0.3):
        depth = int(rng.integers(1, levels + 1))
        steps = np.arange(depth) * 0.1
        bids[i, :depth] = np.column_stack([bid[i] - steps, rng.exponential(2.0, depth)])
        asks[i, :depth] = np.column_stack([ask[i] + steps, rng.exponential(2.0, depth)])
    table = {
        "recv_ts_ns": ts,
        "bid": bid,
        "ask": ask,
        "bid_depth": rng.exponential(5.0, n),
        "ask_depth": rng.exponential(5.0, n),
        "bids": bids,
        "asks": asks,
        "kind": (rng.random(n) < 0.25).astype(np.int64),
        "price": np.round(bid + 0.1 * rng.integers(-1, 3, n), 1),
        "size": rng.exponential(1.0, n),
        "aggressor": rng.integers(-1, 2, n),
        "now_ns": np.where(rng.random(n) < 0.2, ts + rng.integers(0, 9_000_000, n), 0),
    }
    quotes = np.flatnonzero((table["kind"] == 0) & np.isnan(bids[:, 0, 0]))
    for i, (column, value) in zip(
        quotes[5::7],
        [
            ("bid", np.nan),
            ("ask", np.inf),
            ("bid", -1.0),
            ("ask_depth", -2.0),
            ("recv_ts_ns", 0),
            ("recv_ts_ns", 1),
            ("now_ns", -5),
            ("kind", 7),
            ("bid", 0.0),
            ("ask", 0.0),
            ("bid", 1e9),
        ],
        strict=False,
    ):
        table[column][i] = value
    both = quotes[4]
    table["bid"][both] = table["ask"][both] = 0.0
    with_levels = np.flatnonzero((table["kind"] == 0) & (np.isfinite(asks[:, 1, 0])))
    table["asks"][with_levels[2], 1, 0] = 1.0
    table["bid"][with_levels[4]] += 5.0
    table["bids"][with_levels[6], 0, 1] = 0.0
    trades = np.flatnonzero(table["kind"] == 1)
    table["size"][trades[3]] = np.nan
    table["price"][trades[5]] = 0.0
    table["aggressor"][trades[7]] = 4
    return table
