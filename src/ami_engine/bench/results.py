"""Results of a run of the suite: medians of each case, ratios with their claims, and the machine they hold for."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ami_engine.bench.case import Group, Ratio
from ami_engine.bench.worker import CaseReport
from ami_engine.ops.machine import processor

__all__ = ["CaseResult", "RatioResult", "Results", "add_group", "machine_facts", "read_results", "write_results"]

_PACKAGES = ("numpy", "msgspec", "numba", "bottleneck", "polars", "pandas", "river", "screamer")


class CaseResult(msgspec.Struct, omit_defaults=True):
    """One case: the median of its rounds and their quartiles, or why there is no figure."""

    group: str
    measures: str
    unit: str
    median: float | None = None
    low: float | None = None
    high: float | None = None
    rounds: int = 0
    skipped: str = ""
    failed: str = ""
    wrong: str = ""


class RatioResult(msgspec.Struct, omit_defaults=True):
    """One ratio: its claim, the median over the rounds and their quartiles; no value when a case has no figure."""

    claim: str
    numerator: str
    denominator: str = ""
    less: str = ""
    reach: float = 0.0
    aim: float = 0.0
    value: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def verdict(self) -> str:
        """What became of the claim.

        >>> RatioResult("", "a", "b", reach=2.0, aim=1.5, value=1.7).verdict
        'reached'
        """
        if self.value is None:
            return "not measured"
        if not self.reach:
            return "no claim"
        if self.value <= self.aim:
            return "past the aim"
        return "reached" if self.value <= self.reach else "missed"


class Results(msgspec.Struct):
    """Everything that one run of the suite gave. Cases and ratios are in the suite's order."""

    command: str
    scale: str
    machine: dict[str, str]
    cases: dict[str, CaseResult] = msgspec.field(default_factory=dict)
    ratios: dict[str, RatioResult] = msgspec.field(default_factory=dict)

    @property
    def wrong_answers(self) -> list[str]:
        """The cases whose answer was wrong, or that failed."""
        return [name for name, case in self.cases.items() if case.wrong or case.failed]


def machine_facts(cpu: int = -1) -> dict[str, str]:
    """Return what the figures depend on: processor, system, compiler, versions.

    >>> "numpy" in machine_facts()
    True
    """
    facts = {
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "pinned to": f"core {cpu}" if cpu >= 0 else "no core",
        "system": f"{platform.system()} {platform.release()}",
        "compiler": _compiler(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "mdm-engine": str(import_module("ami_engine").__version__),
    }
    for name in _PACKAGES:
        try:
            facts[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            facts[name] = "absent"
    return facts


def _compiler() -> str:
    try:
        core: Any = import_module("ami_engine._core")
    except ImportError:
        return "no compiled core"
    return str(core.build_info()["compiler"])


def add_group(results: Results, group: Group, reports: Mapping[str, CaseReport], skipped: Mapping[str, str]) -> None:
    """Fold a group's reports into the results; a case that several groups share is named with the later group."""
    for case in group.cases:
        report = reports.get(case.name)
        if report is None and case.name not in skipped:
            continue
        name = case.name if case.name not in results.cases else f"{case.name} ({group.name})"
        entry = CaseResult(group.name, case.measures, case.unit, skipped=skipped.get(case.name, ""))
        if report is not None:
            entry.failed, entry.wrong, entry.rounds = report.failed, report.wrong, len(report.samples)
            if report.samples:
                entry.low, entry.median, entry.high = _quartiles(report.samples)
        results.cases[name] = entry
    measured = reports.keys() | skipped.keys()
    for ratio in group.ratios:
        if measured >= set(ratio.cases):
            results.ratios[ratio.name] = _ratio(ratio, reports)


def _ratio(ratio: Ratio, reports: Mapping[str, CaseReport]) -> RatioResult:
    result = RatioResult(ratio.claim, ratio.numerator, ratio.denominator, ratio.less, ratio.reach, ratio.aim)
    samples = [reports[name].samples if name in reports else [] for name in ratio.cases]
    if all(samples):
        top = np.array(samples[0][: min(map(len, samples))])
        if ratio.less:
            top = top - np.array(samples[-1][: len(top)])
        if ratio.denominator:
            top = top / np.array(samples[1][: len(top)])
        result.low, result.value, result.high = _quartiles(top.tolist())
    return result


def _quartiles(samples: Sequence[float]) -> tuple[float, float, float]:
    low, median, high = (float(f"{value:.6g}") for value in np.percentile(samples, [25, 50, 75]))
    return low, median, high


def read_results(path: Path) -> Results:
    """Return the results that `write_results` wrote."""
    return msgspec.json.decode(path.read_bytes(), type=Results)


def write_results(results: Results, path: Path) -> None:
    """Write results as JSON that shows its changes line by line."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
