"""Cases: how long a fresh interpreter takes to import the package, and NumPy."""

from __future__ import annotations

import subprocess
import sys

from ami_engine.bench.case import Case, Group, Prepared, Ratio, Scale, require

__all__ = ["GROUP"]

# Timed inside the new process, so that its own start does not count; the clock module is not what is measured.
_CODE = "import time; start = time.perf_counter_ns(); {statement}; print(time.perf_counter_ns() - start)"


def _prepare(statement: str, module: str) -> Prepared:
    def run() -> float:
        command = [sys.executable, "-c", _CODE.format(statement=statement)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stdout) / 1e6

    def check() -> None:
        code = f"{statement}; import sys; print({module!r} in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        require(done.stdout.strip() == "True", f"`{statement}` did not import {module}")

    return Prepared(run, check, 0)


def _package(_: Scale) -> Prepared:
    return _prepare("import ami_engine", "ami_engine")


def _numpy(_: Scale) -> Prepared:
    return _prepare("import numpy", "numpy")


def _loop(_: Scale) -> Prepared:
    return _prepare("from ami_engine.loop.run_loop import run_loop", "ami_engine.loop.run_loop")


GROUP = Group(
    "import",
    (
        Case("import.ami_engine", "`import ami_engine` in a fresh interpreter", _package, "ms"),
        Case("import.run_loop", "`from ami_engine.loop.run_loop import run_loop` (loads NumPy too)", _loop, "ms"),
        Case("import.numpy", "`import numpy`", _numpy, "ms"),
    ),
    (
        Ratio("import / numpy", "import of `ami_engine` against import of numpy",
              "import.ami_engine", "import.numpy", reach=1.3, aim=1.15),
        Ratio("import of the loop / numpy", "import of the whole loop, NumPy included, against import of numpy",
              "import.run_loop", "import.numpy"),
    ),
)  # fmt: skip
