"""The generated parts of FEATURES.md, FORMULAS.md and GUARDS.md say what the code says."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["FEATURES.md", "GUARDS.md", "FORMULAS.md"])
def test_a_page_is_generated_from_the_code_of_today(generate: ModuleType, page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert generate.render(page, text) == text, f"docs/{page} is stale: run docs/generate.py"


def test_every_feature_guard_and_policy_key_stands_in_its_table(generate: ModuleType) -> None:
    features, guards, formulas = ((DOCS / page).read_text(encoding="utf-8") for page in generate.PARTS)
    for feature in generate.FEATURES:
        assert f"| `{feature.name}` |" in features
        assert f"| `{feature.name}` |" in formulas
    for guard in generate.GUARDS:
        assert f"| {guard.number} | `{guard.flag}` |" in guards
        assert f"| {guard.number} | `{guard.flag}` |" in formulas
    why = (DOCS / "WHY_GUARDS.md").read_text(encoding="utf-8")
    assert [guard.flag for guard in generate.GUARDS if f"`{guard.flag}`" not in why] == []
    for key in generate.RiskPolicy.__struct_fields__:
        assert f"| `{key}` |" in guards


def test_check_fails_on_a_stale_page_and_passes_once_it_is_written(tmp_path: Path) -> None:
    for name in ("generate.py", "FEATURES.md", "GUARDS.md", "FORMULAS.md"):
        shutil.copy(DOCS / name, tmp_path)
    page = tmp_path / "GUARDS.md"
    fresh = page.read_text(encoding="utf-8")
    page.write_text(fresh.replace("| `max_spread_bps` | 500.0 |", "| `max_spread_bps` | 5.0 |"), encoding="utf-8")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(tmp_path / "generate.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    check = run("--check")
    assert check.returncode == 1
    assert "GUARDS.md" in check.stderr
    assert run().returncode == 0
    assert page.read_text(encoding="utf-8") == fresh
    assert run("--check").returncode == 0
