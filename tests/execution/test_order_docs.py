"""docs/orders.md says what the tables say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_is_drawn_from_the_tables_of_today() -> None:
    spec = importlib.util.spec_from_file_location("draw_orders", DOCS / "draw_orders.py")
    assert spec is not None
    assert spec.loader is not None
    drawing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawing)
    page = (DOCS / "orders.md").read_text(encoding="utf-8")
    assert page == drawing.render(), "docs/orders.md is stale: run docs/draw_orders.py"
