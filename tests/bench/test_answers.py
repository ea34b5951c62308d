"""Every case of the suite gives the right answer; its times are no business of a test."""

from __future__ import annotations

import pytest

from ami_engine.bench.case import SCALES
from ami_engine.bench.results import Results
from ami_engine.bench.run import run_suite
from ami_engine.bench.suite import GROUPS


@pytest.fixture(scope="module")
def tiny_run() -> Results:
    """The whole suite as a user runs it, a process a group, at the smallest scale."""
    return run_suite(scale="tiny", peers=True)


@pytest.mark.parametrize("name", [case.name for group in GROUPS if not group.is_opt_in for case in group.cases])
def test_a_case_gives_the_right_answer_and_then_a_figure(name: str, tiny_run: Results) -> None:
    case = tiny_run.cases[name]
    if case.skipped:
        pytest.skip(case.skipped)
    assert (case.wrong, case.failed) == ("", "")
    assert case.rounds == 1
    assert case.median is not None


def test_the_suite_names_nothing_twice_in_a_group_and_every_ratio_has_its_cases() -> None:
    for group in GROUPS:
        names = [case.name for case in group.cases]
        assert len(set(names)) == len(names), group.name
        for ratio in group.ratios:
            assert set(ratio.cases) <= set(names), ratio.name
            assert 0.0 <= ratio.aim <= ratio.reach


def test_every_scale_fills_the_windows() -> None:
    # The row checks compare whole windows of 300 samples, and the spike's 101 returns.
    for scale in SCALES.values():
        assert min(scale.rows, scale.calls, scale.steps) > 401
