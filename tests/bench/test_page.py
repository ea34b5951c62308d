"""docs/PERFORMANCE.md says what the results file says, and the results file is of the suite of today."""

from __future__ import annotations

import copy
from pathlib import Path

from ami_engine.bench.page import render_page
from ami_engine.bench.results import Results, read_results, write_results
from ami_engine.bench.suite import GROUPS

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results.json"
PAGE = ROOT / "docs" / "PERFORMANCE.md"


def stored() -> Results:
    return read_results(RESULTS)


def test_the_page_is_made_from_the_results_file() -> None:
    assert render_page(stored()) == PAGE.read_text(encoding="utf-8"), (
        "docs/PERFORMANCE.md is stale: run benchmarks/write_page.py, or `ami bench --peers --write-docs .`"
    )


def test_the_results_are_of_the_cases_and_ratios_of_today() -> None:
    results = stored()
    measured = {name.partition(" (")[0]: case for name, case in results.cases.items()}
    for group in GROUPS:
        if group.is_opt_in:
            continue
        for case in group.cases:
            assert case.name in measured, f"benchmarks/results.json lacks {case.name}: measure again"
            assert (measured[case.name].measures, measured[case.name].unit) == (case.measures, case.unit)
        for ratio in group.ratios:
            entry = results.ratios[ratio.name]
            claim = (ratio.claim, ratio.numerator, ratio.denominator, ratio.less, ratio.reach, ratio.aim)
            assert (entry.claim, entry.numerator, entry.denominator, entry.less, entry.reach, entry.aim) == claim
    assert not results.wrong_answers


def test_the_page_begins_with_reasons_to_distrust_it_and_states_machine_and_command() -> None:
    results = stored()
    page = render_page(results)
    headings = [line for line in page.splitlines() if line.startswith("## ")]
    assert headings[0] == "## Reasons to distrust it"
    assert f"Command: `{results.command}`" in page
    for name, value in results.machine.items():
        assert f"| {name} | {value} |" in page


def test_a_missed_ratio_and_a_slower_native_kernel_show() -> None:
    results = copy.deepcopy(stored())
    ratio = results.ratios["batch / bottleneck"]
    ratio.value, ratio.low, ratio.high = 1.234, 1.2, 1.3
    kernel = results.ratios["kernel std_50: native / numba"]
    kernel.value, kernel.low, kernel.high = 1.5, 1.4, 1.6
    page = render_page(results)
    assert "| 1.23 | 1.2 … 1.3 | 0.9 | 0.6 | missed |" in page
    row = next(line for line in page.splitlines() if line.startswith("| std of returns, 50 |"))
    assert row.endswith("| 1.5 | numba |")


def test_results_survive_their_file(tmp_path: Path) -> None:
    results = stored()
    write_results(results, tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == results
    assert (tmp_path / "results.json").read_bytes() == RESULTS.read_bytes()
