"""The schema is the only place where a feature is defined, and everything derived from it agrees."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from ami_engine.errors import ConfigError
from ami_engine.features import FeatureConfig
from ami_engine.features import schema as schema_module
from ami_engine.features.schema import (
    ALIASES,
    BOOK_FEATURE_COUNT,
    FEATURE_COUNT,
    FEATURE_INDEX,
    FEATURE_NAMES,
    FEATURES,
    LOG_SERIES,
    SCHEMA_HASH,
)

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = Path(schema_module.__file__)


def test_features_are_complete_and_named_once() -> None:
    assert FEATURE_COUNT == len(set(FEATURE_NAMES)) == 30
    assert FEATURE_NAMES[BOOK_FEATURE_COUNT - 1] == "staleness_ms"
    assert FEATURE_NAMES[BOOK_FEATURE_COUNT] == "sigma"
    assert [FEATURE_INDEX[name] for name in FEATURE_NAMES] == list(range(30))
    assert all(feature.unit and feature.formula and feature.meaning for feature in FEATURES)
    assert set(ALIASES.values()) <= set(FEATURE_NAMES)
    assert not set(ALIASES) & set(FEATURE_NAMES)


def test_the_generated_header_says_what_the_schema_says(tmp_path: Path) -> None:
    generator = ROOT / "cpp" / "codegen" / "feature_ids.py"
    if not generator.is_file():
        pytest.skip(f"needs the C++ sources: {generator} is absent")
    out = tmp_path / "ami" / "feature_ids.hpp"
    subprocess.run([sys.executable, str(generator), str(SCHEMA), str(out)], check=True)
    text = out.read_text()
    assert re.findall(r"^    (\w+) = (\d+),$", text, re.M) == [(n, str(i)) for i, n in enumerate(FEATURE_NAMES)]
    assert re.findall(r'^    "(\w+)",$', text, re.M) == list(FEATURE_NAMES)
    assert f'kSchemaHash = "{SCHEMA_HASH}"' in text
    written = re.search(r"kLogSeries\[11\] = \{(.*?)\}", text, re.S)
    assert written is not None
    assert tuple(map(float.fromhex, written[1].replace(",", " ").split())) == LOG_SERIES
    before = out.stat().st_mtime_ns
    subprocess.run([sys.executable, str(generator), str(SCHEMA), str(out)], check=True)
    assert out.stat().st_mtime_ns == before  # an unchanged schema rebuilds nothing


def test_the_compiled_core_is_of_this_schema() -> None:
    core = pytest.importorskip("ami_engine._core", reason="needs the compiled core")
    assert core.SCHEMA_HASH == SCHEMA_HASH


def test_a_core_of_another_schema_is_refused() -> None:
    pytest.importorskip("ami_engine._core", reason="needs the compiled core")
    program = (
        "from ami_engine import _core; _core.SCHEMA_HASH = 'other'\n"
        "from ami_engine.errors import BackendError\n"
        "from ami_engine.features import FeatureBuilder, available_backends\n"
        "assert 'schema other' in available_backends()['native']\n"
        "try:\n    FeatureBuilder(backend='native')\n"
        "except BackendError as error:\n    assert 'build it again' in str(error)\n"
        "else:\n    raise SystemExit('a core of another schema was taken')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_schema_runs_by_its_path_on_the_standard_library_alone() -> None:
    assert runpy.run_path(str(SCHEMA))["SCHEMA_HASH"] == SCHEMA_HASH
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(SCHEMA.read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert imported <= sys.stdlib_module_names


def test_importing_the_features_imports_nothing_heavy() -> None:
    program = (
        "import sys, ami_engine.features, ami_engine.features.generic\n"
        "ami_engine.features.available_backends()\n"
        "heavy = {'numba', 'pyarrow', 'polars', 'pandas', 'scipy'} & set(sys.modules)\n"
        "raise SystemExit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"vol_window": 1}, "`vol_window` must be an integer from 2 to 10000000, was 1"),
        ({"vol_window": 2.5}, "`vol_window` must be an integer"),
        ({"levels": 0}, "`levels` must be an integer from 1 to 1000, was 0"),
        ({"levels": True}, "`levels` must be an integer"),
        ({"tick_size": 0.0}, "`tick_size` must be > 0, was 0.0"),
        ({"tick_size": float("nan")}, "`tick_size` must be a finite number, was nan"),
        ({"tick_size": "0.01"}, "`tick_size` must be a finite number, was '0.01'"),
        ({"window_5m_steps": None}, "one of `window_5m_steps` and `window_5m_ms` must be given"),
        ({"window_5m_steps": 0}, "`window_5m_steps` must be an integer from 1"),
        ({"window_5m_ms": 0}, "`window_5m_ms` must be > 0"),
        ({"window_5m_ms": 1e-9}, "`window_5m_ms` must be > 0"),
        ({"window_5m_ms": 1e14}, "`window_5m_ms` must be > 0 and at most"),
        ({"sigma_short_steps": 1}, "`sigma_short_steps` must be an integer from 2"),
        ({"sigma_short_steps": 101}, "`sigma_short_steps` must be at most `sigma_long_steps` (100), was 101"),
        ({"imbalance_lambda": -0.1}, "`imbalance_lambda` must be at least 0, was -0.1"),
        ({"fee_ticks": float("inf")}, "`fee_ticks` must be a finite number, was inf"),
    ],
)
def test_a_parameter_out_of_its_range_is_named(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        FeatureConfig(**parameters)  # type: ignore[arg-type]


def test_windows_are_told_in_ns_and_mids() -> None:
    config = FeatureConfig(window_5m_ms=1.5)
    assert (config.window_ns, config.window_steps) == (1_500_000, 300)
    assert (FeatureConfig().window_ns, FeatureConfig(window_5m_steps=None, window_5m_ms=1).window_steps) == (0, 0)
    assert FeatureConfig(fee_ticks=0.25).cost_ticks == 1.25
