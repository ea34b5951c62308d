"""Runs the suite: one fresh process a group, on one thread, and folds what it says into results."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import msgspec

from ami_engine.bench.case import Case, Group
from ami_engine.bench.results import Results, add_group, machine_facts
from ami_engine.bench.suite import chosen, why_skipped
from ami_engine.bench.worker import CaseReport, Report, Task

__all__ = ["run_suite"]

_LONG_STEPS = 10_000_000

# Read by these libraries when they are imported: one core is what is compared.
_ONE_THREAD = {
    "POLARS_MAX_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


def run_suite(
    *,
    scale: str = "full",
    peers: bool = False,
    only: str | None = None,
    is_long: bool = False,
    with_instructions: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Results:
    """Measure and return the results; `progress` is told each group's name, its number and how many there are.

    Raises
    ------
    ConfigError
        When `only` matches nothing.
    """
    wanted = chosen(only, with_opt_in=with_instructions)
    flags = {"--peers": peers, "--quick": scale == "quick", "--long": is_long, "--instructions": with_instructions}
    words = ["ami bench", *(flag for flag, is_set in flags.items() if is_set), *([f"--only '{only}'"] if only else [])]
    results = Results(" ".join(words), scale, machine_facts())
    least_ns, timed, loud, again = 0.0, 0, 0, 0
    for number, (group, cases) in enumerate(wanted):
        if progress is not None:
            progress(group.name, number, len(wanted))
        skipped = {case.name: reason for case in cases if (reason := why_skipped(case, peers=peers))}
        runnable = [case for case in cases if case.name not in skipped]
        reports: dict[str, CaseReport] = {}
        if runnable:
            report = _run_group(group, runnable, scale, is_long, least_ns)
            reports = report.cases
            results.machine["pinned to"] = f"core {report.cpu}" if report.cpu >= 0 else "no core"
            least_ns = report.least_ns or least_ns
            timed, loud, again = timed + report.timed, loud + report.loud, again + report.again
            results.machine["quiet samples"] = f"{timed - loud} of {timed}; {again} taken again"
        add_group(results, group, reports, skipped)
    return results


def _run_group(group: Group, cases: list[Case], scale: str, is_long: bool, least_ns: float) -> Report:
    task = Task([case.name for case in cases], scale, _LONG_STEPS if is_long else 0, least_ns)
    command = [sys.executable, "-m", "ami_engine.bench.worker"]
    environment = {**os.environ, **_ONE_THREAD}
    # A backend that the user forces is not what the cases name.
    environment.pop("AMI_BACKEND", None)
    done = subprocess.run(command, input=msgspec.json.encode(task), capture_output=True, check=False, env=environment)
    if done.returncode != 0:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        reason = f"the process of group {group.name} ended with {done.returncode}: {last}"
        return Report({case.name: CaseReport(failed=reason) for case in cases})
    return msgspec.json.decode(done.stdout, type=Report)
