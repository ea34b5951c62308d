"""The tree's total is the sum of what its places hold, however they came to hold it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from ami_engine.portfolio.sum_tree import SumTree


@pytest.mark.parametrize("places", [1, 2, 31, 32, 33, 64, 1_023, 1_024, 1_025, 3_000])
def test_the_total_is_the_sum_of_the_places(places: int) -> None:
    draw = np.random.Generator(np.random.PCG64(places))
    tree, held = SumTree(), []
    for value in draw.normal(0.0, 1e6, places).tolist():
        place = tree.add_place()
        assert place == len(held)
        tree.put(place, value)
        held.append(value)
    for _ in range(50):
        place, value = int(draw.integers(places)), float(draw.normal(0.0, 1e6))
        tree.put(place, value)
        held[place] = value
        assert tree[place] == value
        assert tree.total == pytest.approx(float(sum(map(Fraction, held))), rel=1e-12, abs=1e-6)
    assert len(tree) == places


def test_the_total_depends_on_the_places_alone() -> None:
    draw = np.random.Generator(np.random.PCG64(3))
    values = draw.normal(0.0, 1e9, 2_000).tolist()
    straight, roundabout = SumTree(), SumTree()
    for value in values:
        straight.put(straight.add_place(), value)
    for _ in values:
        roundabout.add_place()
    for place in draw.permutation(2_000).tolist():
        roundabout.put(place, 1e17 * float(draw.normal()))
    for place in draw.permutation(2_000).tolist():
        roundabout.put(place, values[place])
    assert roundabout.total == straight.total


def test_up_to_32_places_are_summed_in_their_order() -> None:
    tree, held = SumTree(), [1e16, 1.0, -1e16, 0.1] * 8
    for value in held:
        tree.put(tree.add_place(), value)
    assert tree.total == sum(held)


def test_nothing_is_left_of_places_that_hold_nothing() -> None:
    tree = SumTree()
    for number in range(500):
        tree.put(tree.add_place(), 0.1 * number)
    for place in range(500):
        tree.put(place, 0.0)
    assert tree.total == 0.0
