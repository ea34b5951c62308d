"""Recorded data that is there may not be skipped, in one process or in several."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]
_SKIPPING = """
import pytest

@pytest.mark.parametrize("number", range(4))
def test_reads(data_dir, number):
    pytest.skip("for want of will")

def test_reads_nothing():
    pytest.skip("for another reason")
"""


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "in two processes"])
@pytest.mark.parametrize("is_required", [True, False])
def test_a_skipped_test_of_recorded_data_fails_where_the_data_is(
    tmp_path: Path, workers: tuple[str, ...], is_required: bool
) -> None:
    if workers:
        pytest.importorskip("xdist")
    (tmp_path / "PROVENANCE.md").touch()
    (tmp_path / "test_skipping.py").write_text(_SKIPPING)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    given = {key: value for key, value in os.environ.items() if key != "PYTEST_ADDOPTS"}
    environment = given | {"AMI_DATA_DIR": str(tmp_path), "AMI_REQUIRE_DATA": "1" if is_required else ""}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", *workers, str(tmp_path)],
        cwd=_ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (1 if is_required else 0), done.stdout
    assert ("4 failed, 1 skipped" if is_required else "5 skipped") in done.stdout
