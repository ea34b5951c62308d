"""The tutorial, followed literally: every file saved, every command typed, every line of output that it shows there.

By default the new environment finds the engine where this process finds it. With `AMI_WHEEL`, the path of a built
wheel, the environment is made and the wheel installed as the page says.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "TUTORIAL.md"
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```', re.MULTILINE | re.DOTALL)
MAKE_ENVIRONMENT = "python3 -m venv .venv"
INSTALL = "pip install ./mdm-engine"
MARK = "--- block"


class Block(NamedTuple):
    """A block of the page; `name` is the file to save it under."""

    language: str
    name: str
    text: str


def page_blocks() -> list[Block]:
    return [Block(*found) for found in BLOCK.findall(PAGE.read_text(encoding="utf-8"))]


def script_of(blocks: list[Block], instead: dict[str, list[str]]) -> str:
    """What a reader does, as one shell script; after each block of commands stands a mark."""
    lines = ["set -e", "exec 2>&1"]
    for number, block in enumerate(blocks):
        if block.name:
            lines.append(f"printf %s {shlex.quote(block.text)} > {block.name}")
        elif block.language == "console":
            commands = [line.removeprefix("$ ") for line in block.text.splitlines()]
            lines += [line for command in commands for line in instead.get(command, [command])]
            lines.append(f"echo '{MARK} {number}'")
    return "\n".join(lines) + "\n"


def as_pattern(shown: str) -> re.Pattern[str]:
    """A shown line, in which … stands for anything and any number of spaces for any other."""
    words = [re.escape(word).replace("…", ".*") for word in shown.split()]
    return re.compile(r"^\s*" + r"\s+".join(words) + r"\s*$", re.MULTILINE)


def follow(folder: Path, instead: dict[str, list[str]]) -> None:
    blocks = page_blocks()
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        ["bash", "-c", script_of(blocks, instead)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    said = ""
    rest = done.stdout
    for number, block in enumerate(blocks):
        if block.language == "console":
            said, _, rest = rest.partition(f"{MARK} {number}\n")
        elif block.language == "text":
            for shown in block.text.splitlines():
                assert as_pattern(shown).search(said), f"the page shows {shown!r}; it was\n{said}"


def test_the_tutorial_holds_when_it_is_followed_literally(tmp_path: Path) -> None:
    found = [entry for entry in sys.path if entry and Path(entry).is_dir()]
    launcher = "from ami_engine.cli import main; main()"
    follow(
        tmp_path,
        {
            MAKE_ENVIRONMENT: [f"{shlex.quote(sys.executable)} -m venv --without-pip .venv"],
            INSTALL: [
                *(
                    f"echo {shlex.quote(entry)} >> .venv/lib/python3.{sys.version_info[1]}/site-packages/engine.pth"
                    for entry in found
                ),
                f'printf \'#!/bin/sh\\nexec python -c "{launcher}" "$@"\\n\' > .venv/bin/ami && chmod +x .venv/bin/ami',
            ],
        },
    )


@pytest.mark.slow
@pytest.mark.skipif("AMI_WHEEL" not in os.environ, reason="needs a built wheel: set AMI_WHEEL to its path")
def test_the_tutorial_holds_in_a_fresh_environment_with_the_wheel(tmp_path: Path) -> None:
    wheel = Path(os.environ["AMI_WHEEL"]).resolve(strict=True)
    follow(
        tmp_path,
        {
            MAKE_ENVIRONMENT: [f"{shlex.quote(sys.executable)} -m venv .venv"],
            INSTALL: [f"pip --quiet --disable-pip-version-check install {shlex.quote(str(wheel))}"],
        },
    )


def test_the_page_has_what_the_test_replaces() -> None:
    commands = [line for block in page_blocks() if block.language == "console" for line in block.text.splitlines()]
    assert all(line.startswith("$ ") for line in commands)
    assert f"$ {MAKE_ENVIRONMENT}" in commands
    assert f"$ {INSTALL}" in commands
    assert sum(block.language == "text" for block in page_blocks()) >= 8
