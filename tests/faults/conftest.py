"""A library that is preloaded under a process: it counts its writes and syncs, and makes them fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs Linux and a C compiler: the disk is made to fail by a preloaded library")
    built = tmp_path_factory.mktemp("shim") / "fail_write.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(built), str(HERE / "fail_write.c"), "-ldl"]
    subprocess.run(command, check=True)
    return built


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory where there is one: what fails here is not the disk, and syncs of a real one take long."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)
