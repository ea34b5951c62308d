"""The latency histogram agrees with sorting, to the width of its buckets, and does not grow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ami_engine.ops.latency import LatencyHistogram


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=300), st.sampled_from([0.5, 0.9, 0.99, 0.999]))
def test_percentiles_are_right_to_four_percent(values: list[int], fraction: float) -> None:
    histogram = LatencyHistogram()
    for value in values:
        histogram.add(value)
    ranked = sorted(values)
    exact = ranked[max(0, -(-int(fraction * len(values) * 1000) // 1000) - 1)]
    neighbours = [exact, *(v for v in ranked if v >= exact)][:2]
    found = histogram.percentile_ns(fraction)
    assert any(abs(found - value) <= max(1.0, 0.04 * value) for value in neighbours)


def test_the_largest_value_is_exact_and_a_negative_one_counts_as_zero() -> None:
    histogram = LatencyHistogram()
    for ns in (-5, 17, 123_456_789):
        histogram.add(ns)
    assert histogram.summary_us()["max"] == pytest.approx(123_456.789)
    assert histogram.percentile_ns(0.01) == 0.0
    assert histogram.count == 3


def test_size_is_bounded_by_the_range_not_by_the_number_of_values() -> None:
    histogram = LatencyHistogram()
    histogram.add_many(np.arange(200_000))
    assert len(histogram._counts) < 32 * 20


def test_an_empty_histogram_is_all_zero() -> None:
    assert LatencyHistogram().summary_us() == {"p50": 0.0, "p90": 0.0, "p99": 0.0, "p999": 0.0, "max": 0.0}
