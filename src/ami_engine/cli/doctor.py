"""`ami doctor`: what this machine gives the engine, and what is missing and why."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

import ami_engine
import decision_schema
from ami_engine.cli.output import print_json, print_rows
from ami_engine.clock import WallClock, perf_ns
from ami_engine.features import available_backends
from ami_engine.features.schema import SCHEMA_HASH
from ami_engine.ops.machine import processor

__all__ = ["diagnose", "doctor"]

_PACKAGES = ("numpy", "msgspec", "typer", "rich", "numba", "pyarrow", "polars", "databento-dbn", "plotly", "matplotlib")
_SYNC_ROUNDS = 5


def doctor(json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False) -> None:
    """Say what this machine gives the engine: versions, backends and why, build flags, clock, disk.

    Exit code 1 when the engine would run, but not as it should.

    Example: `ami doctor`
    """
    report = diagnose()
    if json:
        print_json(report)
    else:
        _print(report)
    raise typer.Exit(1 if report["problems"] else 0)


def diagnose() -> dict[str, Any]:
    """Return everything that `ami doctor` reports, as plain values."""
    backends = dict(available_backends())
    problems = []
    if backends.get("native"):
        problems.append(f"the native core is absent ({backends['native']}): features are computed by a slower backend")
    forced = os.environ.get("AMI_BACKEND", "")
    if forced and backends.get(forced, "it is no backend"):
        reason = backends.get(forced, f"it must be one of {', '.join(backends)}")
        problems.append(f"AMI_BACKEND asks for {forced!r}, which cannot be used: {reason}")
    owners = sorted(set(importlib.metadata.packages_distributions().get("decision_schema", [])))
    if len(owners) > 1:
        problems.append(f"several distributions own the package decision_schema: {', '.join(owners)}")
    return {
        "engine": ami_engine.__version__,
        "decision_schema": {
            "version": decision_schema.__version__,
            "file": str(Path(decision_schema.__file__ or "").parent),
            "distributions": owners,
        },
        "python": {"version": platform.python_version(), "implementation": platform.python_implementation()},
        "machine": {"system": platform.platform(), "cpu": processor(), "cores": os.cpu_count()},
        "packages": {name: _version(name) for name in _PACKAGES},
        "backends": {name: reason or "available" for name, reason in backends.items()},
        "backend_forced_by_AMI_BACKEND": forced,
        "feature_schema": SCHEMA_HASH,
        "build": _build(),
        "clock": _clock(),
        "disk": _disk(),
        "problems": problems,
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _build() -> dict[str, str]:
    try:
        core: Any = importlib.import_module("ami_engine._core")
    except ImportError as error:
        return {"core": f"absent: {error}"}
    return {str(key): str(value) for key, value in core.build_info().items()}


def _clock() -> dict[str, Any]:
    smallest = min(_tick() for _ in range(100))
    return {"now_ns": WallClock().now_ns(), "smallest_measurable_ns": smallest}


def _tick() -> int:
    start = perf_ns()
    while (elapsed := perf_ns() - start) == 0:
        pass
    return elapsed


def _disk() -> dict[str, Any]:
    usage = shutil.disk_usage(".")
    times = []
    with tempfile.NamedTemporaryFile(dir=".") if os.access(".", os.W_OK) else tempfile.NamedTemporaryFile() as file:
        for _ in range(_SYNC_ROUNDS):
            file.write(b"x" * 1024)
            file.flush()
            start = perf_ns()
            os.fsync(file.fileno())
            times.append(perf_ns() - start)
    return {
        "free_gib": round(usage.free / 2**30, 1),
        "is_writable": os.access(".", os.W_OK),
        "fsync_us": round(sorted(times)[_SYNC_ROUNDS // 2] / 1_000, 1),
    }


def _print(report: dict[str, Any]) -> None:
    rows = []
    for key, value in report.items():
        if key != "problems":
            text = ", ".join(f"{k} {_text(v)}" for k, v in value.items()) if isinstance(value, dict) else str(value)
            if text:
                rows.append((key, text))
    rows += [("problem", problem) for problem in report["problems"]]
    print_rows(rows if report["problems"] else [*rows, ("verdict", "everything is in order")])


def _text(value: Any) -> str:
    return " and ".join(map(str, value)) if isinstance(value, list) else str(value)
