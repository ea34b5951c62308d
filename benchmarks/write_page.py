"""Writes docs/PERFORMANCE.md anew from benchmarks/results.json, without measuring, when the page's text changed."""

from __future__ import annotations

from pathlib import Path

from ami_engine.bench.page import render_page
from ami_engine.bench.results import read_results

ROOT = Path(__file__).resolve().parents[1]

if __name__ == "__main__":
    page = render_page(read_results(ROOT / "benchmarks" / "results.json"))
    (ROOT / "docs" / "PERFORMANCE.md").write_text(page, encoding="utf-8")
