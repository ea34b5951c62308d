"""`ami run --trace`, `ami verify` and `ami convert`, as typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ami_engine.cli import app


def ami(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def run(folder: Path, *options: object) -> dict[str, Any]:
    code, out, _ = ami("run", "--source", "synthetic", "--steps", 200, "--run-dir", folder, "--json", *options)
    assert code == 0
    summary: dict[str, Any] = json.loads(out)
    return summary


def test_a_binary_trace_is_verified_and_converted(tmp_path: Path) -> None:
    lines, binary = run(tmp_path / "a"), run(tmp_path / "b", "--trace", "binary", "--trace-max-bytes", 20_000)
    assert binary["trace_path"] == str(tmp_path / "b" / "traces.bin")
    code, out, _ = ami("verify", tmp_path / "b", "--json")
    report = json.loads(out)
    assert (code, report["ok"], report["chain_head"]) == (0, True, binary["chain_head"])
    assert list(report) == ["ok", "packets", "chain_head", "first_damage"]
    code, out, _ = ami("convert", tmp_path / "b", tmp_path / "out.jsonl", "--json")
    assert code == 0
    assert json.loads(out) == {
        "packets": report["packets"],
        "source_chain_head": binary["chain_head"],
        "chain_head": lines["chain_head"],
    }
    code, out, _ = ami("verify", tmp_path / "out.jsonl")
    assert code == 0
    assert lines["chain_head"] in out


def test_a_damaged_trace_is_named_and_not_converted(tmp_path: Path) -> None:
    run(tmp_path / "a", "--trace", "binary", "--trace-max-bytes", 20_000)
    path = tmp_path / "a" / "traces.1.bin"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    code, _, error = ami("verify", tmp_path / "a")
    assert code == 1
    assert " of traces.1.bin: " in error
    assert "damaged at line" in error
    code, _, error = ami("convert", tmp_path / "a", tmp_path / "out.jsonl")
    assert code == 1
    assert "traces.1.bin" in error
    assert not (tmp_path / "out.jsonl").exists()


def test_files_that_were_rotated_away_are_allowed_when_asked(tmp_path: Path) -> None:
    run(tmp_path / "a", "--trace-max-bytes", 50_000, "--trace-max-files", 2)
    assert len(list((tmp_path / "a").glob("traces*.jsonl"))) == 2
    assert ami("verify", tmp_path / "a")[0] == 1
    code, out, _ = ami("verify", tmp_path / "a", "--tail", "--json")
    report = json.loads(out)
    assert (code, report["ok"]) == (0, True)
    assert report["first_seq"] > 0


@pytest.mark.parametrize("option", [("--trace", "xml"), ("--trace-queue", "wait"), ("--trace-max-bytes", "-1")])
def test_wrong_options_are_usage_errors(tmp_path: Path, option: tuple[str, str]) -> None:
    assert ami("run", "--source", "synthetic", "--run-dir", tmp_path, *option)[0] == 2
