"""Runs the cases of one group, interleaved, in a process of its own: ``python -m ami_engine.bench.worker``.

Standard input is a `Task`, standard output a `Report`, both JSON.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

import msgspec

from ami_engine.bench.case import SCALES, Case, Prepared
from ami_engine.bench.suite import GROUPS

__all__ = ["CaseReport", "Report", "Task", "measure"]


class Task(msgspec.Struct):
    """Which cases to measure, at which scale; `long_steps` stands in for the scale's, 0 leaves it."""

    cases: list[str]
    scale: str
    long_steps: int = 0


class CaseReport(msgspec.Struct):
    """The figure of each round, or why there is none: `wrong` when the answer was, else `failed`."""

    samples: list[float] = msgspec.field(default_factory=list)
    wrong: str = ""
    failed: str = ""


class Report(msgspec.Struct):
    """What came of a task, and the processor that it was pinned to (−1: none)."""

    cases: dict[str, CaseReport]
    cpu: int = -1


def pin() -> int:
    """Stay on one processor, the last of those allowed, where the system lets us; return it, or −1."""
    if not hasattr(os, "sched_setaffinity"):
        return -1
    cpu = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpu})
    return cpu


def measure(cases: list[Case], scale_name: str, long_steps: int = 0) -> dict[str, CaseReport]:
    """Check every answer, warm everything up, then run the cases round by round, each round from another one on."""
    scale = SCALES[scale_name]
    if long_steps:
        scale = scale._replace(long_steps=long_steps)
    reports = {case.name: CaseReport() for case in cases}
    ready: list[tuple[Case, Prepared]] = []
    try:
        for case in cases:
            prepared = _prepared(case, reports[case.name], scale)
            if prepared is not None:
                ready.append((case, prepared))
        for case, prepared in ready:
            if case.rounds != 1:
                prepared.sample()
        for number in range(scale.rounds):
            first = number % max(1, len(ready))
            for case, prepared in ready[first:] + ready[:first]:
                if not case.rounds or number < case.rounds:
                    reports[case.name].samples.append(prepared.sample())
    finally:
        for _, prepared in ready:
            prepared.close()
    return reports


def _prepared(case: Case, report: CaseReport, scale: Any) -> Prepared | None:
    try:
        prepared = case.prepare(scale)
    except Exception as error:  # a peer's library is foreign code
        report.failed = _what(error)
        return None
    try:
        prepared.check()
    except AssertionError as error:
        report.wrong = str(error) or "an assertion failed"
    except Exception as error:
        report.failed = _what(error)
    else:
        return prepared
    prepared.close()
    return None


def _what(error: Exception) -> str:
    return traceback.format_exception_only(error)[-1].strip()


def main() -> None:
    """Do the task on standard input."""
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    known = {case.name: case for group in GROUPS for case in group.cases}
    cpu = pin()
    cases = measure([known[name] for name in task.cases], task.scale, task.long_steps)
    sys.stdout.buffer.write(msgspec.json.encode(Report(cases, cpu)))


if __name__ == "__main__":
    main()
