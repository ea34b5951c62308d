"""The notebooks run from top to bottom: as scripts, and as notebooks where Jupyter's parts are installed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "docs" / "notebooks").glob("*.py"))

# What each must show, beside not failing.
SHOWN = {
    "a_run_under_the_lens": ["clean: True", "said the same chain head: True", "ACT → ACT", "of the limit"],
    "features_of_a_table": ["(6000, 30)", "bit for bit: True", "refused: {'crossed_book': 1}"],
}

EXECUTE = """
import json, sys
import jupytext, nbclient
notebook = jupytext.read(sys.argv[1])
nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
outputs = [each for cell in notebook.cells for each in cell.get("outputs", [])]
print(json.dumps([[each["output_type"], each.get("text", "")] for each in outputs]))
"""


def test_every_notebook_is_named_here() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(SHOWN)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_as_a_script(path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [shown for shown in SHOWN[path.stem] if shown not in done.stdout] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_as_a_notebook(path: Path, tmp_path: Path) -> None:
    missing = [name for name in ("jupytext", "nbclient", "ipykernel") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}, of the extra `docs`")
    command = [sys.executable, "-c", EXECUTE, str(path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outputs = json.loads(done.stdout.splitlines()[-1])
    assert {kind for kind, _ in outputs} == {"stream"}
    text = "".join(text for _, text in outputs)
    assert [shown for shown in SHOWN[path.stem] if shown not in text] == []
