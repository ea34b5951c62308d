"""Runs the cases of one group, interleaved, in a process of its own: ``python -m ami_engine.bench.worker``.

Standard input is a `Task`, standard output a `Report`, both JSON.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any, NamedTuple

import msgspec

from ami_engine.bench.case import SCALES, Case, Prepared
from ami_engine.bench.host import HostWatch
from ami_engine.bench.suite import GROUPS

__all__ = ["CaseReport", "Report", "Task", "measure"]


class Task(msgspec.Struct):
    """Which cases to measure, at which scale; `long_steps` stands in for the scale's, 0 leaves it.

    `least_ns` is what the loop of `HostWatch` took at best in the groups before; 0 where there are none.
    """

    cases: list[str]
    scale: str
    long_steps: int = 0
    least_ns: float = 0.0


class CaseReport(msgspec.Struct):
    """The figure of each round, or why there is none: `wrong` when the answer was, else `failed`."""

    samples: list[float] = msgspec.field(default_factory=list)
    wrong: str = ""
    failed: str = ""


class Report(msgspec.Struct):
    """What came of a task, and the processor that it was pinned to (−1: none).

    Of `timed` samples `loud` were taken beside a busy neighbour, for want of quiet moments; `again` were measured in
    the place of ones that were.
    """

    cases: dict[str, CaseReport]
    cpu: int = -1
    timed: int = 0
    loud: int = 0
    again: int = 0
    least_ns: float = 0.0


def pin() -> int:
    """Stay on one processor, the last of those allowed, where the system lets us; return it, or −1."""
    if not hasattr(os, "sched_setaffinity"):
        return -1
    cpu = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpu})
    return cpu


class _Sample(NamedTuple):
    """What a case gave in one round, and the longer that the watch's loop took before and after it."""

    figure: float
    spin_ns: float


def measure(cases: list[Case], scale_name: str, long_steps: int = 0, watch: HostWatch | None = None) -> Report:
    """Check every answer, warm everything up, then run the cases round by round, each round from another one on.

    Times beside which `watch` found the host loud are taken again while its patience lasts, and the quieter of the two
    is kept.
    """
    scale = SCALES[scale_name]
    if long_steps:
        scale = scale._replace(long_steps=long_steps)
    if watch is None:
        watch = HostWatch(patience_s=scale.patience_s)
    report = Report({case.name: CaseReport() for case in cases})
    ready: list[tuple[Case, Prepared]] = []
    try:
        for case in cases:
            prepared = _prepared(case, report.cases[case.name], scale)
            if prepared is not None:
                ready.append((case, prepared))
        for case, prepared in ready:
            if case.rounds != 1:
                prepared.sample()
        taken: list[list[_Sample]] = [[] for _ in ready]
        turns = list(zip(ready, taken, strict=True))
        for number in range(scale.rounds):
            first = number % max(1, len(ready))
            for (case, prepared), samples in turns[first:] + turns[:first]:
                if not case.rounds or number < case.rounds:
                    samples.append(_sample(prepared, watch))
        timed = [(prepared, samples) for (case, prepared), samples in turns if case.is_timed]
        report.again = _measure_again(timed, watch)
    finally:
        for _, prepared in ready:
            prepared.close()
    for (case, _), samples in turns:
        report.cases[case.name].samples = [sample.figure for sample in samples]
    spins = [sample.spin_ns for _, samples in timed for sample in samples]
    report.timed, report.loud, report.least_ns = len(spins), sum(map(watch.is_loud, spins)), watch.least_ns
    return report


def _sample(prepared: Prepared, watch: HostWatch) -> _Sample:
    before = watch.look()
    figure = prepared.sample()
    return _Sample(figure, max(before, watch.look()))


def _measure_again(timed: list[tuple[Prepared, list[_Sample]]], watch: HostWatch) -> int:
    """Put quieter samples in the place of loud ones, the loudest first; return how many were taken for that."""
    again = 0
    while True:
        loudest = max(
            (
                (samples[number].spin_ns, case, number)
                for case, (_, samples) in enumerate(timed)
                for number in range(len(samples))
            ),
            default=(0.0, 0, 0),
        )
        if not watch.is_loud(loudest[0]) or not watch.wait():
            return again
        again += 1
        _, case, number = loudest
        prepared, samples = timed[case]
        samples[number] = min(samples[number], _sample(prepared, watch), key=lambda each: each.spin_ns)


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
    watch = HostWatch(task.least_ns, SCALES[task.scale].patience_s)
    report = measure([known[name] for name in task.cases], task.scale, task.long_steps, watch)
    report.cpu = cpu
    sys.stdout.buffer.write(msgspec.json.encode(report))


if __name__ == "__main__":
    main()
