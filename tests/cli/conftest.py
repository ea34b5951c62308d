"""The command line as a user calls it: in this process for speed, in one of its own where pipes matter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import ami_engine
from ami_engine.cli import main


class Said(NamedTuple):
    """What a command returned and printed."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """Standard output, which must be one JSON object and nothing else."""
        value, end = json.JSONDecoder().raw_decode(self.out)
        assert self.out[end:] == "\n"
        assert isinstance(value, dict)
        return value

    @property
    def error(self) -> str:
        """The one line on standard error, without the program's name."""
        assert self.err.startswith("ami: ")
        assert self.err.endswith("\n")
        assert self.err.count("\n") == 1
        assert "Traceback" not in self.err
        return self.err.removeprefix("ami: ").rstrip("\n")


Ami = Callable[..., Said]


@pytest.fixture
def ami(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Ami:
    """Call `ami` with arguments, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["ami", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        code = ended.value.code
        assert code is None or isinstance(code, int)
        return Said(code or 0, out, err)

    return call


def anywhere(**more: str) -> dict[str, str]:
    """The environment in which the package is found from any folder."""
    source = str(Path(ami_engine.__file__).resolve().parents[1])
    return {**os.environ, "PYTHONPATH": source, **more}


@pytest.fixture
def ami_process(tmp_path: Path) -> Ami:
    """Call `python -m ami_engine` with arguments in a process and a folder of its own, its outputs piped."""

    def call(*arguments: object, **environment: str) -> Said:
        command = [sys.executable, "-W", "error", "-m", "ami_engine", *map(str, arguments)]
        done = subprocess.run(
            command, cwd=tmp_path, env=anywhere(**environment), capture_output=True, text=True, check=False
        )
        return Said(done.returncode, done.stdout, done.stderr)

    return call


def quote_line(number: int, **changes: Any) -> str:
    """A quote that the reference model acts on, 10 ms after the one before it."""
    quote = {"ts_ms": 1_700_000_000_000 + 10 * number, "symbol": "X", "bid": 0.49, "ask": 0.51, "bid_depth": 90.0}
    return json.dumps({**quote, "ask_depth": 30.0 + number % 7, **changes})


@pytest.fixture
def quotes(tmp_path: Path) -> Path:
    """A JSONL file of 200 quotes."""
    path = tmp_path / "quotes.jsonl"
    path.write_text("".join(quote_line(number) + "\n" for number in range(200)))
    return path


@pytest.fixture
def bad_quotes(tmp_path: Path) -> Path:
    """The same, with a crossed quote in line 101 and a cut one in line 151."""
    lines = [quote_line(number) for number in range(200)]
    lines.insert(100, quote_line(100, bid=0.52))
    lines.insert(150, quote_line(148)[:-20])
    path = tmp_path / "bad.jsonl"
    path.write_text("".join(line + "\n" for line in lines))
    return path
