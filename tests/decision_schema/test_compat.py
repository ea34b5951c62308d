"""Versions of the contract."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import decision_schema
from decision_schema import version
from decision_schema.compat import get_current_version, is_compatible, parse_version

_NUMBERS = st.integers(min_value=0, max_value=10**6)


def test_there_is_one_version() -> None:
    assert decision_schema.__version__ == version.__version__ == get_current_version() == "0.2.2"


@given(_NUMBERS, _NUMBERS, _NUMBERS)
def test_parsing_undoes_writing(major: int, minor: int, patch: int) -> None:
    assert parse_version(f"{major}.{minor}.{patch}") == (major, minor, patch)
    assert parse_version(f"{major}.{minor}") == (major, minor, 0)


@pytest.mark.parametrize(
    "text", ["", "1", "a.b", "1.2.3.4", "1.2.", " 1.2", "1.2\n", "1.-2", "v1.2", "1.2.3rc1", "١.٢"]
)
def test_malformed_versions_are_errors_and_compatible_with_nothing(text: str) -> None:
    with pytest.raises(ValueError, match="`version` must look like"):
        parse_version(text)
    assert is_compatible(text, 1) is False


@pytest.mark.parametrize("thing", [None, 0.2, (0, 2)])
def test_what_is_no_text_is_no_version(thing: object) -> None:
    assert is_compatible(thing, 0) is False  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "bounds", "expected"),
    [
        ("0.2.2", {}, True),
        ("1.2.2", {}, False),
        ("0.2.2", {"min_minor": 2, "max_minor": 2}, True),
        ("0.1.9", {"min_minor": 2}, False),
        ("0.3.0", {"max_minor": 2}, False),
        ("0.0.1", {"min_minor": 0}, True),
    ],
)
def test_minor_bounds_are_inclusive(text: str, bounds: dict[str, int], expected: bool) -> None:
    assert is_compatible(text, 0, **bounds) is expected


def test_the_contract_imports_nothing_of_the_engine() -> None:
    code = (
        "import pkgutil, sys, importlib, decision_schema\n"
        "for module in pkgutil.walk_packages(decision_schema.__path__, 'decision_schema.'):\n"
        "    importlib.import_module(module.name)\n"
        "assert len([name for name in sys.modules if name.startswith('decision_schema.')]) >= 5\n"
        "sys.exit(any(name.partition('.')[0] in ('ami_engine', 'numpy') for name in sys.modules))"
    )
    source = str(Path(decision_schema.__file__).parents[1])
    run = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": source}, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
