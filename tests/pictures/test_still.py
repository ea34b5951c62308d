"""The still is a picture with something on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ami_engine.pictures.draw import draw_run

image = pytest.importorskip("matplotlib.image", reason="needs matplotlib, of the extra viz")


def has_color(pixels: np.ndarray[Any, Any], color: str) -> bool:
    wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return bool((np.abs(pixels[..., :3] - wanted).max(axis=-1) < 0.02).any())


def test_price_fills_equity_drawdown_and_guards_are_on_it(
    plain_run: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    draw_run(plain_run[0], tmp_path / "run.png")
    pixels = image.imread(tmp_path / "run.png")
    assert pixels.shape[1] == 1_500
    assert pixels.shape[0] > 1_000
    for color in ("#0b62c4", "#d1550a", "#23703c", "#a12b3c", "#8a3ffc"):
        assert has_color(pixels, color), color
    assert not has_color(pixels, "#00ff00")


def test_names_that_are_formulas_or_in_other_scripts_are_drawn_as_text(nasty_run: Path, tmp_path: Path) -> None:
    draw_run(nasty_run, tmp_path / "run.PNG")
    assert (tmp_path / "run.PNG").read_bytes().startswith(b"\x89PNG")
