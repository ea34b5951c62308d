"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A loaded machine is slow, which is no fault of a test; the gate tries the same examples every time.
settings.register_profile(
    "ami", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("ami")

_DEFAULT_DATA_DIR = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of recorded market data: AMI_DATA_DIR, else ../shared/data beside the checkout."""
    folder = Path(os.environ.get("AMI_DATA_DIR", _DEFAULT_DATA_DIR))
    if not (folder / "PROVENANCE.md").is_file():
        pytest.skip(f"needs recorded market data: {folder} is absent (set AMI_DATA_DIR)")
    return folder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With AMI_REQUIRE_DATA set, a test that needs the recorded data may not be skipped."""
    report = yield
    if report.skipped and os.environ.get("AMI_REQUIRE_DATA") and "data_dir" in getattr(item, "fixturenames", ()):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} needs recorded data, which is there, and was skipped all the same"
    return report
