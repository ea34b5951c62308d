"""Every code block in README and docs runs, every link leads somewhere, every doctest holds."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ami_engine
import decision_schema

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
# Its blocks belong together, commands and files: tests/docs/test_tutorial.py follows it.
RUN_BLOCK_BY_BLOCK = [page for page in PAGES if page.name != "TUTORIAL.md"]
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
# Set-up that the gate itself performs; anything else in a console block is run here.
SET_UP = ("git clone", "cd ", "make ", "pip install", "python3 -m venv", "AMI_PURE=1 pip", ". .venv")


def blocks(page: Path, language: str) -> list[str]:
    return [code for kind, code in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", RUN_BLOCK_BY_BLOCK, ids=page_id)
def test_python_blocks_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = blocks(page, "python")
    if not found:
        return
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "page.py"
    script.write_text("\n".join(found), encoding="utf-8")
    done = subprocess.run([sys.executable, "-W", "error", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", RUN_BLOCK_BY_BLOCK, ids=page_id)
def test_console_blocks_run(page: Path, tmp_path: Path) -> None:
    lines = [line for block in blocks(page, "console") for line in block.splitlines()]
    commands = [line[2:] for line in lines if line.startswith("$ ") and not line[2:].startswith(SET_UP)]
    data = Path(os.environ.get("AMI_DATA_DIR", ROOT.parent / "shared" / "data"))
    bin_dir = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{bin_dir}{os.pathsep}{os.environ['PATH']}", "AMI_DATA_DIR": str(data)}
    if any("docs/" in command or "docs." in command for command in commands):
        shutil.copytree(ROOT / "docs", tmp_path / "docs")
    for command in commands:
        if "AMI_DATA_DIR" in command and not data.is_dir():
            continue
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page_id(page)} links to {target}, which is not there"


def module_names() -> list[str]:
    names = []
    for package in (ami_engine, decision_schema):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if "._private" not in module.name and not module.name.endswith(("__main__", "._core")):
                names.append(module.name)
    return names


@pytest.mark.parametrize("name", module_names())
def test_doctests_of_every_module(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL)
    assert failed == 0
