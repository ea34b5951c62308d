"""How the suite measures: order, ratios, what it leaves out, and what it says of a wrong answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from itertools import chain, count, repeat
from pathlib import Path

import pytest

from ami_engine.bench.case import Case, Group, Prepared, Ratio, Scale, require
from ami_engine.bench.host import HostWatch
from ami_engine.bench.results import RatioResult, Results, add_group
from ami_engine.bench.suite import GROUPS, chosen, why_skipped
from ami_engine.bench.worker import CaseReport, measure
from ami_engine.errors import ConfigError

KINDS = ("std", "mean", "median", "max")


def case_of(name: str, figure: float, calls: list[str], **options: object) -> Case:
    """A case that gives `figure` each time and notes when it ran."""

    def prepare(scale: Scale) -> Prepared:
        def run() -> float:
            calls.append(name)
            return figure

        return Prepared(run, lambda: calls.append(f"check {name}"), 0)

    return Case(name, "a test", prepare, "ms", **options)  # type: ignore[arg-type]


def hears(spins: Iterable[float], patience_s: float = 1.0) -> HostWatch:
    """A watch whose loop takes these times; a second goes by with each look at the clock."""
    rest, clock = iter(spins), count(0, 10**9)
    return HostWatch(patience_s=patience_s, spin=lambda: next(rest), now_ns=lambda: next(clock), sleep=lambda _: None)


def counting(name: str, rounds: int = 0) -> Case:
    """A case whose figure is how often it has run."""
    numbers = count(0)
    prepared = Prepared(lambda: next(numbers), lambda: None, 0)
    return Case(name, "a test", lambda _: prepared, "ms", rounds=rounds)


def results_of(group: Group, reports: dict[str, CaseReport], **skipped: str) -> Results:
    results = Results("test", "tiny", {})
    add_group(results, group, reports, skipped)
    return results


def test_every_answer_is_checked_before_anything_is_timed() -> None:
    calls: list[str] = []
    measure([case_of("a", 1.0, calls), case_of("b", 2.0, calls)], "tiny")
    assert calls == ["check a", "check b", "a", "b", "a", "b"]  # warm-up, and the one round


def test_rounds_interleave_and_begin_with_another_case_each_time() -> None:
    calls: list[str] = []
    cases = [case_of("a", 1.0, calls), case_of("b", 2.0, calls), case_of("c", 3.0, calls, rounds=3)]
    reports = measure(cases, "quick", watch=hears([100.0] * 100)).cases
    rounds = calls[6:]  # after three checks and the warm-up
    assert rounds[:9] == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert [len(reports[name].samples) for name in "abc"] == [7, 7, 3]


def test_a_loud_sample_is_taken_again_whatever_its_figure_was() -> None:
    spins = [100.0] * 28  # two looks a sample, two samples a round
    spins[7] = 150.0  # after the second sample of the second round, which "b" begins: that of "a"
    # Then the wait: loud once, quiet; and the sample anew.
    watch = hears([*spins, 130.0, 100.0, 101.0, 100.0], 9.0)
    report = measure([counting("a"), counting("b")], "quick", watch=watch)
    assert report.cases["a"].samples == [1, 8, 3, 4, 5, 6, 7]  # 0 was the warm-up
    assert report.cases["b"].samples == [1, 2, 3, 4, 5, 6, 7]
    assert (report.timed, report.loud, report.again, report.least_ns) == (14, 0, 1, 100.0)


def test_what_was_taken_for_quiet_is_loud_once_the_host_was_quieter() -> None:
    spins = [130.0] * 6 + [100.0] * 8
    report = measure([counting("a")], "quick", watch=hears([*spins, *[100.0] * 9], 9.0))
    assert sorted(report.cases["a"].samples[:3]) == [8, 9, 10]
    assert report.cases["a"].samples[3:] == [4, 5, 6, 7]
    assert (report.loud, report.again) == (0, 3)


@pytest.mark.parametrize(("anew", "kept"), [(170.0, 2), (140.0, 8)])
def test_the_quieter_of_two_loud_samples_is_kept_and_told(anew: float, kept: int) -> None:
    spins = [100.0, 100.0, 150.0, *[100.0] * 11]
    report = measure([counting("a")], "quick", watch=hears([*spins, 100.0, 100.0, anew], 2.0))
    assert report.cases["a"].samples == [1, kept, 3, 4, 5, 6, 7]
    assert (report.loud, report.again) == (1, 1)


def test_a_host_that_stays_loud_is_waited_for_no_longer_than_patience_lasts() -> None:
    spins = [100.0, *[150.0] * 13]
    report = measure([counting("a")], "quick", watch=hears(chain(spins, repeat(150.0)), 20.0))
    assert report.cases["a"].samples == [1, 2, 3, 4, 5, 6, 7]
    assert (report.loud, report.again) == (7, 0)


def test_figures_that_are_no_times_are_not_taken_again() -> None:
    case = counting("a")._replace(unit="KiB")
    report = measure([case], "quick", watch=hears([100.0, *[150.0] * 13], 20.0))
    assert report.cases["a"].samples == [1, 2, 3, 4, 5, 6, 7]
    assert (report.timed, report.loud, report.again) == (0, 0, 0)


def test_a_case_of_fewer_rounds_keeps_its_place_when_it_is_taken_again() -> None:
    spins = [100.0] * 18
    spins[3] = 150.0  # after the first sample of "b"
    watch = hears([*spins, *[100.0] * 9], 9.0)
    report = measure([counting("a"), counting("b", rounds=2)], "quick", watch=watch)
    assert report.cases["a"].samples == [1, 2, 3, 4, 5, 6, 7]
    assert report.cases["b"].samples == [3, 2]


def test_a_wrong_answer_is_told_and_not_timed() -> None:
    def prepare(scale: Scale) -> Prepared:
        return Prepared(lambda: pytest.fail("was timed"), lambda: require(False, "2 + 2 was 5"), 1)

    case = Case("wrong", "a test", prepare)
    report = measure([case], "tiny").cases["wrong"]
    assert (report.wrong, report.samples) == ("2 + 2 was 5", [])
    assert results_of(Group("g", (case,)), {"wrong": report}).wrong_answers == ["wrong"]


def test_a_case_that_cannot_start_does_not_stop_the_others() -> None:
    def prepare(scale: Scale) -> Prepared:
        raise OSError("no such library")

    reports = measure([Case("broken", "a test", prepare), case_of("fine", 1.0, [])], "tiny").cases
    assert reports["broken"].failed == "OSError: no such library"
    assert reports["fine"].samples == [1.0]


def test_a_ratio_is_taken_round_by_round_less_what_is_not_its_own() -> None:
    cases = tuple(case_of(name, 0.0, []) for name in ("loop", "call", "peer"))
    group = Group("g", cases, (Ratio("r", "a claim", "call", "peer", "loop", reach=2.0, aim=1.0),))
    reports = {
        "loop": CaseReport([1.0, 1.0, 1.0]),
        "call": CaseReport([4.0, 5.0, 31.0]),
        "peer": CaseReport([2.0, 2.0, 10.0]),
    }
    ratio = results_of(group, reports).ratios["r"]
    assert ratio.value == 2.0  # of 1.5, 2 and 3
    assert (ratio.low, ratio.high) == (1.75, 2.5)
    assert ratio.verdict == "reached"


def test_a_ratio_without_a_figure_is_not_measured() -> None:
    cases = (case_of("call", 0.0, []), case_of("peer", 0.0, [], is_peer=True))
    group = Group("g", cases, (Ratio("r", "a claim", "call", "peer", reach=2.0, aim=1.0),))
    results = results_of(group, {"call": CaseReport([1.0])}, peer="is not installed")
    assert results.ratios["r"].verdict == "not measured"
    assert results.cases["peer"].skipped == "is not installed"


@pytest.mark.parametrize(
    ("value", "verdict"), [(1.0, "past the aim"), (1.5, "past the aim"), (2.0, "reached"), (2.01, "missed")]
)
def test_a_verdict_is_of_the_two_bounds(value: float, verdict: str) -> None:
    assert RatioResult("", "a", "b", reach=2.0, aim=1.5, value=value).verdict == verdict


def test_peers_run_only_when_asked_for() -> None:
    peers = [case for group in GROUPS for case in group.cases if case.is_peer]
    assert {case.needs[0] for case in peers} == {"bottleneck", "polars", "pandas", "river", "screamer"}
    assert all(why_skipped(case, peers=False) for case in peers)


def test_only_takes_groups_cases_and_ratios() -> None:
    assert [group.name for group, _ in chosen(None)] == [group.name for group in GROUPS if not group.is_opt_in]
    assert [group.name for group, _ in chosen("instructions")] == ["instructions"]
    assert [case.name for _, cases in chosen("numba / native") for case in cases] == ["batch.native", "batch.numba"]
    assert [case.name for _, cases in chosen("kernels.p10*native") for case in cases] == ["kernels.p10_depth.native"]
    with pytest.raises(ConfigError, match="must match a group, a case or a ratio, was 'nonsense'"):
        chosen("nonsense")


def ami_bench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ami_engine", "bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def test_the_command_prints_json_and_nothing_else() -> None:
    done = ami_bench("--quick", "--json", "--only", "import*")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results["command"] == "ami bench --quick --only 'import*'"
    assert {"processor", "compiler", "numpy"} <= results["machine"].keys()
    assert results["cases"]["import.numpy"]["median"] > 0.0
    assert results["ratios"]["import / numpy"]["reach"] == 1.3


def test_the_command_prints_cases_and_ratios_as_a_table() -> None:
    done = ami_bench("--quick", "--only", "updates.loop")
    assert done.returncode == 0, done.stderr
    assert "updates.loop" in done.stdout
    assert "ns/event" in done.stdout


def test_a_wrong_use_is_one_line_and_exit_code_2() -> None:
    done = ami_bench("--only", "nonsense")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("ami: `--only` must match")
    done = ami_bench("--only", "tail", "--write-docs", ".")
    assert done.returncode == 2
    assert "takes a whole run" in done.stderr


def test_a_wrong_answer_is_exit_code_1(tmp_path: Path) -> None:
    functions = "".join(f"def move_{name}(x, window, min_count): return 0.0 * x\n" for name in KINDS)
    (tmp_path / "bottleneck.py").write_text(functions, encoding="utf-8")
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = ami_bench("--quick", "--peers", "--only", "batch / bottleneck", PYTHONPATH=os.pathsep.join(paths))
    assert done.returncode == 1
    assert "ami: row.bottleneck: column sigma differs from the engine's" in done.stderr
    assert "not measured" in done.stdout
