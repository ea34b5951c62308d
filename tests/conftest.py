"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_DEFAULT_DATA_DIR = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of recorded market data: AMI_DATA_DIR, else ../shared/data beside the checkout."""
    folder = Path(os.environ.get("AMI_DATA_DIR", _DEFAULT_DATA_DIR))
    if not (folder / "PROVENANCE.md").is_file():
        pytest.skip(f"needs recorded market data: {folder} is absent (set AMI_DATA_DIR)")
    return folder
