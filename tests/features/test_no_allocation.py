"""Once its windows are full, the compiled core asks for no memory: a program that counts its allocations says so."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STREAMS = [
    *("by_count", "by_count_trending", "long_by_count", "wild_by_count", "long_wild_by_count"),
    *("by_time", "by_time_trending", "wild_by_time", "by_both"),
]


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, int]]:
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    folder = tmp_path_factory.mktemp("allocations")
    (folder / "ami").mkdir()
    schema = ROOT / "src" / "ami_engine" / "features" / "schema.py"
    codegen = ROOT / "cpp" / "codegen" / "feature_ids.py"
    subprocess.run([sys.executable, codegen, schema, folder / "ami" / "feature_ids.hpp"], check=True)
    program = folder / "count_allocations"
    source = Path(__file__).with_name("count_allocations.cpp")
    flags = ["-std=c++17", "-O1", "-ffp-contract=off", f"-I{ROOT / 'cpp' / 'include'}", f"-I{folder}"]
    subprocess.run([compiler, *flags, source, "-o", program], check=True)
    lines = subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()
    words = [line.split() for line in lines]
    return {name: (int(before), int(after)) for name, before, after in words}


@pytest.mark.parametrize("stream", STREAMS)
def test_a_warm_builder_allocates_nothing(counts: dict[str, tuple[int, int]], stream: str) -> None:
    assert counts[stream][1] == 0


def test_the_program_counts_at_all(counts: dict[str, tuple[int, int]]) -> None:
    # Windows by time do not know their size beforehand: they grow while they fill.
    assert sorted(counts) == sorted(STREAMS)
    assert counts["by_time"][0] > 0
