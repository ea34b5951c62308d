"""Cases: instructions per event, counted by callgrind in the compiled core alone. Counts do not depend on the load."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ami_engine.bench.case import Case, Group, Prepared, Ratio, Scale, require
from ami_engine.bench.inputs import CONFIG
from ami_engine.bench.updates import core_parameters

__all__ = ["GROUP", "compiler_key", "count_instructions", "instructions_per_event", "why_not"]

# Stretches that are compared begin at one phase of the market: 14 periods lie between event 10 000 and event 990 000.
PERIOD = 70_000
_EARLY = (10_000, 20_000)
_LATE = (990_000, 1_000_000)

# No site packages, no NumPy: what starts beside the core is small, and the same in every run.
_CODE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("_core", sys.argv[1])
core = importlib.util.module_from_spec(spec)
spec.loader.exec_module(core)
core.bench_stream(*{parameters}, events=int(sys.argv[2]), period={period})
"""


def why_not() -> str:
    """Return why instructions cannot be counted here; "" when they can."""
    if shutil.which("valgrind") is None:
        return "valgrind is not installed"
    if not sys.platform.startswith("linux"):
        return "valgrind runs the interpreter on Linux only"
    if find_spec("ami_engine._core") is None:
        return "the compiled core is not in this installation"
    return ""


def compiler_key() -> str:
    """Return compiler and target of the core: other ones give other counts.

    >>> " on " in compiler_key()
    True
    """
    core: Any = import_module("ami_engine._core")
    return f"{core.build_info()['compiler']} on {platform.machine()}"


def count_instructions(events: int) -> int:
    """Return how many instructions an interpreter executes that pushes `events` quotes and ends."""
    spec = find_spec("ami_engine._core")
    assert spec is not None
    assert spec.origin is not None
    code = _CODE.format(parameters=core_parameters(CONFIG), period=PERIOD)
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command += [sys.executable, "-I", "-S", "-c", code, spec.origin, str(events)]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or found is None:
        raise RuntimeError(f"callgrind failed: {done.stderr[-500:]}")
    return int(found[1])


def instructions_per_event(start: int, stop: int) -> float:
    """Return the instructions of one event between two run lengths; what both runs do cancels."""
    return (count_instructions(stop) - count_instructions(start)) / (stop - start)


def _prepare(stretch: tuple[int, int]) -> Prepared:
    def check() -> None:
        core: Any = import_module("ami_engine._core")
        parameters = core_parameters(CONFIG)
        once = core.bench_stream(*parameters, events=1_000, period=PERIOD)
        require(once == core.bench_stream(*parameters, events=1_000, period=PERIOD), "the stream is not deterministic")
        require(once[0] > 50_000.0, f"the stream left its prices: mid {once[0]!r}")

    return Prepared(lambda: instructions_per_event(*stretch), check, 0)


def _early(_: Scale) -> Prepared:
    return _prepare(_EARLY)


def _late(_: Scale) -> Prepared:
    return _prepare(_LATE)


GROUP = Group(
    "instructions",
    (
        Case("instructions.early", "instructions per event, events 10 001 – 20 000", _early, "instructions",
             needs=("ami_engine._core", "valgrind"), rounds=1),
        Case("instructions.late", "instructions per event, events 990 001 – 1 000 000", _late, "instructions",
             needs=("ami_engine._core", "valgrind"), rounds=1),
    ),
    (
        Ratio("instructions late / early", "instructions of events 990 001 – 1 000 000 against events 10 001 – 20 000",
              "instructions.late", "instructions.early", reach=1.02, aim=1.005),
    ),
    is_opt_in=True,
)  # fmt: skip
