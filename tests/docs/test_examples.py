"""The examples run as a reader would run them, and do what their pages say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ami_engine.adapters.instruments import instrument_from_toml
from ami_engine.dmc import RiskPolicy

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


def run(example: str, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / example), *arguments],
        cwd=folder,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_trading_over_a_recording_trades_and_explains_itself(tmp_path: Path) -> None:
    output = run("trading_recorded_feed.py", tmp_path)
    assert int(re.search(r"fills_count: (\d+)", output).group(1)) > 20  # type: ignore[union-attr]
    assert "trace clean: True" in output
    assert "ACT because of usual_spread" in output
    assert "EXIT because of" in output


def test_trading_over_a_captured_feed(tmp_path: Path, data_dir: Path) -> None:
    output = run(
        "trading_recorded_feed.py",
        tmp_path,
        str(data_dir / "binance-spot-btcusdt-20240808.feed.gz"),
        "binance",
        str(EXAMPLES / "feeds" / "binance-spot.instrument.toml"),
    )
    assert "trace clean: True" in output


def test_moderation_removes_with_evidence_and_stops_when_the_classifier_drifts(tmp_path: Path) -> None:
    output = run("content_moderation.py", tmp_path, "run")
    assert "needs_a_person" in output
    assert "automation_stopped: True" in output
    assert int(re.search(r"removed: (\d+)", output).group(1)) > 50  # type: ignore[union-attr]
    assert (tmp_path / "run" / "traces.jsonl").stat().st_size > 0


@pytest.mark.parametrize("path", sorted((EXAMPLES / "feeds").glob("*.toml")), ids=lambda path: path.name)
def test_every_shipped_settings_file_loads(path: Path) -> None:
    if path.name.endswith(".policy.toml"):
        assert RiskPolicy.from_toml(path) != RiskPolicy()
    else:
        assert instrument_from_toml(path)


def test_the_broker_to_test_breaks_no_clause(tmp_path: Path) -> None:
    lines = run("broker_to_test.py", tmp_path).splitlines()
    assert len([line for line in lines if line.startswith("kept")]) >= 35
    assert not [line for line in lines if line.startswith("broken")]
