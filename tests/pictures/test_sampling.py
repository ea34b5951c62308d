"""What is left out of a long line, and what never is."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ami_engine.pictures.sampling import Extremes, Spells, Thinned

VALUES = st.lists(st.one_of(st.integers(-50, 50).map(float), st.just(float("nan"))), max_size=400)


@given(VALUES, st.sampled_from([2, 4, 10, 64]))
def test_no_extreme_is_ever_lost(values: list[float], limit: int) -> None:
    line = Extremes(limit)
    for x, y in enumerate(values):
        line.add(float(x), y)
    points = line.points()
    kept = [y for _, y in points if y == y]
    there = [y for y in values if y == y]
    assert bool(kept) == bool(there)
    if there:
        assert (min(kept), max(kept)) == (min(there), max(there))
    assert len(points) <= 4 * limit
    assert line.count == len(values)


@given(VALUES, st.sampled_from([2, 4, 10, 64]))
def test_every_point_that_is_kept_was_there_and_in_its_order(values: list[float], limit: int) -> None:
    line = Extremes(limit)
    for x, y in enumerate(values):
        line.add(float(x), y)
    points = line.points()
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert all(same(values[int(x)], y) for x, y in points)


@given(VALUES)
def test_a_short_line_is_the_line(values: list[float]) -> None:
    line = Extremes(400)
    for x, y in enumerate(values):
        line.add(float(x), y)
    assert line.stride == 1
    kept = dict(line.points())
    held = float("nan")
    for x, y in enumerate(values):
        held = kept.get(float(x), held)
        assert same(held, y), "each value holds until the next point"


def same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def test_each_stretch_keeps_its_own_extremes() -> None:
    line = Extremes(10)
    spikes = {x: 100.0 + x for x in range(50, 1_000, 200)}
    for x in range(1_000):
        line.add(x, spikes.get(x, float(x % 2)))
    kept = set(line.points())
    assert all(point in kept for point in spikes.items())


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_a_limit_that_cannot_be_halved_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match=f"`limit` must be even and at least 2, was {limit}"):
        Extremes(limit)


@given(st.integers(0, 500), st.integers(2, 50))
def test_a_row_is_thinned_evenly_and_only_beyond_its_cap(count: int, cap: int) -> None:
    row: Thinned[int] = Thinned(cap)
    for number in range(count):
        row.add(number)
    kept = list(row)
    assert row.count == count
    assert len(kept) == len(row) <= cap
    if count <= cap:
        assert kept == list(range(count))
    else:
        assert len({later - one for one, later in pairwise(kept)}) <= 1
        assert len(kept) >= cap // 2


@given(st.sets(st.integers(0, 2_000), max_size=300), st.sampled_from([2, 5, 40]))
def test_spells_cover_every_decision_and_count_it_once(steps: set[int], limit: int) -> None:
    spells = Spells(limit)
    for step in sorted(steps):
        spells.add(step, step * 10.0)
    kept = list(spells)
    assert spells.count == len(steps) == sum(spell.count for spell in kept)
    assert len(kept) == len(spells) <= limit
    for step in steps:
        assert sum(spell.start <= step * 10.0 <= spell.end for spell in kept) == 1
    if not spells.are_joined:
        assert all(spell.count == spell.step - spell.first_step + 1 for spell in kept)
