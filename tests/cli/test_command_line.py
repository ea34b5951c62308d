"""What all commands have in common: help with an example, exit codes, one-line errors, pipes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ami_engine

from .conftest import Ami, anywhere

COMMANDS = ("run", "features", "verify", "doctor")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_and_every_option_is_explained(ami: Ami, command: str) -> None:
    said = ami(command, "--help")
    assert (said.code, said.err) == (0, "")
    assert f"Example: ami {command}" in said.out
    assert "--json" in said.out
    assert re.search(rf"Usage: .*ami {command}\b", said.out)


def test_help_lists_the_commands(ami: Ami) -> None:
    said = ami("--help")
    assert said.code == 0
    assert all(re.search(rf"\b{command}\b", said.out) for command in COMMANDS)


def test_version(ami: Ami) -> None:
    assert ami("--version") == (0, f"ami {ami_engine.__version__}\n", "")


def test_no_command_prints_the_help_and_is_a_usage_error(ami: Ami) -> None:
    said = ami()
    assert (said.code, said.err) == (2, "")
    assert "Usage: " in said.out


# Every way to be wrong before anything starts: exit code 2, one line, and what it must name. `{dir}` is the folder.
WRONG = {
    "unknown command": (["nonsense"], ["'nonsense'"]),
    "unknown option": (["run", "--nonsense"], ["--nonsense"]),
    "missing argument": (["verify"], ["run_dir", "ami verify --help"]),
    "missing option": (["features", "--source", "synthetic"], ["--out"]),
    "steps no number": (["run", "--steps", "x"], ["--steps", "integer"]),
    "steps negative": (["run", "--steps", "-1"], ["--steps", "0"]),
    "queue unknown": (["run", "--queue", "middle"], ["--queue", "back", "front", "prob"]),
    "bad event policy": (["run", "--on-bad-event", "ignore"], ["--on-bad-event", "skip", "stop", "'ignore'"]),
    "missing file": (["run", "--source", "none.jsonl"], ["none.jsonl", "No such file"]),
    "missing file of features": (["features", "--source", "none.jsonl", "--out", "x.csv"], ["none.jsonl"]),
    "unknown format": (["run", "--source", "quotes.jsonl", "--format", "tape"], ["format", "'tape'", "jsonl", "dbn"]),
    "no such file": (["data", "check", "nofile"], ["nofile", "No such file"]),
    "an option of a command in a group": (
        ["data", "check", "quotes.jsonl", "--format", "xml"],
        ["`--format`", "xml"],
    ),
    "usage of a command in a group": (["data", "check", "--bogus"], ["--bogus", "ami data check --help"]),
    "a trace as a source": (["run", "--source", "trace.jsonl"], ["trace.jsonl", "ami verify"]),
    "out exists": (["features", "--source", "quotes.jsonl", "--out", "book.csv"], ["book.csv", "--overwrite"]),
    "format not said": (["run", "--source", "feed"], ["feed", "format"]),
    "wrong format": (["run", "--source", "quotes.jsonl", "--format", "dbn"], ["quotes.jsonl", "DBN"]),
    "lobster without date": (["run", "--source", "book.csv,messages.csv"], ["date", "YYYY-MM-DD"]),
    "lobster bad date": (["run", "--source", "book.csv,messages.csv", "--date", "21.6.2012"], ["date", "21.6.2012"]),
    "tick size": (["run", "--source", "quotes.jsonl", "--tick-size", "0"], ["--tick-size", "> 0", "0.0"]),
    "missing policy": (["run", "--policy", "none.toml"], ["none.toml"]),
    "policy key": (["run", "--policy", "key.toml"], ["key.toml", "`min_dept`", "`min_depth`"]),
    "policy value": (["run", "--policy", "value.toml"], ["value.toml", "`min_depth`", "'deep'"]),
    "policy syntax": (["run", "--policy", "syntax.toml"], ["syntax.toml", "TOML", "line 1"]),
    "instrument": (["run", "--source", "quotes.jsonl", "--instrument", "key.toml"], ["key.toml", "min_dept"]),
    "column map": (["run", "--source", "book.csv", "--columns", "key.toml"], ["key.toml", "min_dept"]),
    "model without attribute": (["run", "--model", "math"], ["--model", "module:attribute", "'math'"]),
    "model unknown": (["run", "--model", "math:decide"], ["math:decide", "decide"]),
    "model of no module": (["run", "--model", "no_such_module:decide"], ["no_such_module"]),
    "model argument": (["run", "--model-arg", "size"], ["--model-arg", "k=v", "'size'"]),
    "model argument unknown": (["run", "--model-arg", "max_size=1"], ["'max_size'", "max_size_usd"]),
    "timer": (["run", "--timer-ms", "-1"], ["--timer-ms", "-1"]),
    "latency": (["run", "--latency-ms", "-1"], ["--latency-ms"]),
    "resume and overwrite": (["run", "--resume", "--overwrite"], ["resume", "overwrite"]),
    "run dir a file": (["run", "--run-dir", "key.toml"], ["--run-dir", "key.toml"]),
    "run dir taken": (["run", "--run-dir", "taken"], ["taken", "resume", "overwrite"]),
    "out ending": (["features", "--source", "synthetic", "--out", "x.txt"], ["out", ".parquet", ".csv", "x.txt"]),
    "out folder": (["features", "--source", "synthetic", "--out", "none/x.csv"], ["none/x.csv"]),
    "levels": (["features", "--source", "synthetic", "--out", "x.csv", "--levels", "0"], ["--levels"]),
    "trace missing": (["verify", "none"], ["none", "No such file"]),
    "trace unreadable": (["verify", "unreadable"], ["unreadable", "directory"]),
}


@pytest.mark.parametrize(("arguments", "named"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_with_the_input_is_one_line_and_exit_code_2(
    ami: Ami, tmp_path: Path, quotes: Path, arguments: list[str], named: list[str]
) -> None:
    (tmp_path / "key.toml").write_text("min_dept = 1.0\n")
    (tmp_path / "value.toml").write_text('min_depth = "deep"\n')
    (tmp_path / "syntax.toml").write_text("min_depth 1\n")
    (tmp_path / "book.csv").write_text("5859400,200,5853300,18\n")
    (tmp_path / "messages.csv").write_text("34200.1,1,16113575,18,5853300,1\n")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    (tmp_path / "unreadable" / "traces.jsonl").mkdir(parents=True)
    (tmp_path / "feed").write_text("x")
    (tmp_path / "trace.jsonl").write_text('{"schema_version":"0.2.2","run_id":"r","step":0}\n')
    before = sorted(tmp_path.rglob("*"))
    said = ami(*arguments)
    assert said.code == 2
    assert said.out == ""
    assert [name for name in named if name not in said.error] == []
    assert sorted(tmp_path.rglob("*")) == before


def test_piped_output_is_plain_text_without_progress(ami_process: Ami, quotes: Path) -> None:
    said = ami_process("run", "--source", quotes, "--tick-size", "0.01")
    assert (said.code, said.err) == (0, "")
    assert "\x1b" not in said.out
    assert "\r" not in said.out
    assert "deciding" not in said.out
    assert re.search(r"^steps +200\b", said.out, re.MULTILINE)


def test_progress_is_shown_on_a_terminal_on_standard_error_alone(ami_process: Ami, tmp_path: Path) -> None:
    """A pseudo-terminal as standard error, a file as standard output."""
    pty = pytest.importorskip("pty")
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "ami_engine", "run", "--steps", "3000", "--no-trace", "--json"]
    shown = {}
    for json_flag in (True, False):
        arguments = command if json_flag else command[:-1]
        done = subprocess.run(
            arguments, cwd=tmp_path, env=anywhere(), stdout=subprocess.PIPE, stderr=follower, text=True, check=True
        )
        os.write(follower, b"|end|")
        text = b""
        while not text.endswith(b"|end|"):
            text += os.read(leader, 65_536)
        shown[json_flag] = text
        assert "deciding" not in done.stdout
        assert "\x1b" not in done.stdout
    os.close(leader)
    os.close(follower)
    assert b"deciding" in shown[False]
    assert b"3000/3000" in shown[False]
    assert shown[True] == b"|end|"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_process_of_its_own_behaves_the_same(ami_process: Ami, command: str, quotes: Path, tmp_path: Path) -> None:
    arguments: dict[str, list[object]] = {
        "run": ["--source", quotes, "--json", "--no-trace"],
        "features": ["--source", quotes, "--out", tmp_path / "x.csv", "--json"],
        "verify": [tmp_path / "none"],
        "doctor": ["--json"],
    }
    said = ami_process(command, *arguments[command])
    if command == "verify":
        assert (said.code, said.error) == (2, f"{tmp_path}/none: No such file or directory")
    else:
        is_in_order = command != "doctor" or not said.document["problems"]  # a pure wheel has no core, and it says so
        assert (said.code, said.err) == (0 if is_in_order else 1, "")
        assert said.document
