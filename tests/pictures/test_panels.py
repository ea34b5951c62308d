"""Rows of the pictures: what a bar's height says."""

from __future__ import annotations

import pytest

from ami_engine.pictures.collect import ROW_BARS
from ami_engine.pictures.panels import row_of
from ami_engine.pictures.sampling import Spells


def spells_of(steps: list[int], limit: int = 1_000) -> Spells:
    spells = Spells(limit)
    for step in steps:
        spells.add(step, step * 10.0)
    return spells


def test_a_few_spells_are_bars_of_full_height_from_their_first_to_their_last_decision() -> None:
    bars = row_of("EXIT", spells_of([3, 4, 5, 90]), "#000", 100).bars
    assert [(bar.start, bar.end, bar.count, bar.share) for bar in bars] == [
        (30.0, 50.0, 3, 1.0),
        (900.0, 900.0, 1, 1.0),
    ]


@pytest.mark.parametrize("limit", [1_000, 100_000])
@pytest.mark.parametrize("every", [2, 30, 70])
def test_of_many_spells_the_height_is_the_share_of_decisions(every: int, limit: int) -> None:
    decisions = 60_000
    row = row_of("EXIT", spells_of(list(range(0, decisions, every)), limit), "#000", decisions)
    assert len(row.bars) <= ROW_BARS
    assert sum(bar.count for bar in row.bars) == len(range(0, decisions, every))
    assert [bar.share for bar in row.bars[:-1]] == pytest.approx([1 / every] * (len(row.bars) - 1), rel=0.25)


def test_a_dense_part_of_a_crowded_row_is_higher_than_a_sparse_one() -> None:
    steps = [*range(0, 20_000, 40), *(step for step in range(20_000, 40_000) if step % 10)]
    bars = row_of("ACT", spells_of(steps, 100_000), "#000", 40_000).bars
    sparse = [bar.share for bar in bars if bar.end < 195_000.0]
    dense = [bar.share for bar in bars if bar.start > 205_000.0]
    assert max(sparse) < 0.05
    assert min(dense) > 0.8
