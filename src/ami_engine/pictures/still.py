"""The still: the same panels as one PNG, drawn without a browser and without a screen."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from ami_engine.errors import ConfigError
from ami_engine.pictures.collect import Picture
from ami_engine.pictures.panels import HALF_ROW, LEAST_HALF, Bars, Panel, figure_texts, latency_bars, panels_of

__all__ = ["draw_still"]

_DPI = 100
_WIDTH_PX = 1_500
_GAP_PX = 44
_LEFT_PX, _RIGHT_PX, _LINE_PX = 210, 30, 19
_LATENCY_PX = 240


def draw_still(picture: Picture, path: Path) -> None:
    """Draw a picture into a PNG file.

    Raises
    ------
    ConfigError
        When matplotlib is not installed.
    OSError
        When the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("drawing a PNG needs matplotlib: pip install 'mdm-engine[viz]'") from None
    panels, bars = panels_of(picture), latency_bars(picture)
    words = _words(picture)
    head_px = 30 + _LINE_PX * (len(words) + 1)
    heights = [panel.height for panel in panels] + ([_LATENCY_PX] if bars else [])
    total = head_px + sum(heights) + _GAP_PX * (len(heights) + 1)
    figure = Figure(figsize=(_WIDTH_PX / _DPI, total / _DPI), dpi=_DPI)
    figure.text(0.02, 1 - 10 / total, _plain(picture.title), fontsize=13, weight="bold", va="top", parse_math=False)
    for number, words_line in enumerate(words):
        y = 1 - (34 + _LINE_PX * number) / total
        figure.text(0.02, y, words_line, fontsize=9, va="top", parse_math=False)
    top, shared = total - head_px - 14, None
    for panel in panels:
        axes = _axes(figure, top, panel.height, total, shared)
        shared = shared or axes
        _draw_panel(axes, panel, has_legend=panel is panels[0])
        axes.tick_params(labelbottom=panel is panels[-1])
        top -= panel.height + _GAP_PX
    if bars:
        _draw_bars(_axes(figure, top - 20, _LATENCY_PX - 40, total, None), bars)
    figure.savefig(path, format="png")


def _words(picture: Picture) -> list[str]:
    texts = [_plain(f"{label}: {text}") for label, text in figure_texts(picture)]
    texts += [_plain(f"note: {note}") for note in picture.notes]
    return [line for text in texts for line in textwrap.wrap(text, 175)]


def _plain(text: str) -> str:
    """Return `text` in characters that every font has."""
    return text.replace("µ", "u").encode("ascii", "backslashreplace").decode()


def _axes(figure: Any, top: float, height: float, total: float, shared: Any) -> Any:
    width = (_WIDTH_PX - _LEFT_PX - _RIGHT_PX) / _WIDTH_PX
    axes = figure.add_axes((_LEFT_PX / _WIDTH_PX, (top - height) / total, width, height / total), sharex=shared)
    axes.grid(color="#e5e8ec", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return axes


def _times(xs: list[float]) -> np.ndarray[Any, Any]:
    return (np.array(xs) * 1e3).astype(np.int64).astype("datetime64[us]")


def _draw_panel(axes: Any, panel: Panel, *, has_legend: bool) -> None:
    axes.set_title(_plain(panel.title), loc="left", fontsize=9, weight="bold", parse_math=False)
    for line in panel.lines:
        width = 0.7 if line.is_thin else 1.0
        axes.step(_times(line.xs), line.ys, where="post", color=line.color, linewidth=width, label=line.name)
    for marks in panel.marks:
        face = marks.color if marks.is_filled else "none"
        axes.scatter(
            _times(marks.xs),
            marks.ys,
            marker="^" if marks.is_up else "v",
            s=20 if len(marks.xs) < 200 else 7,
            facecolors=face,
            edgecolors=marks.color,
            linewidths=0.8,
            label=marks.name,
            zorder=3,
        )
    if has_legend and len(panel.lines) + len(panel.marks) > 1:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=8, fontsize=8, frameon=False)
    for place, row in enumerate(panel.rows):
        starts, ends = _times([bar.start for bar in row.bars]), _times([bar.end for bar in row.bars])
        for bar, start, end in zip(row.bars, starts, ends, strict=True):
            half = max(LEAST_HALF, HALF_ROW * bar.share)
            low, high = place - half, place + half
            axes.fill_between([start, end], low, high, color=row.color, linewidth=0.8)
    if panel.rows:
        axes.set_yticks(range(len(panel.rows)), [_plain(row.name) for row in panel.rows], fontsize=8, parse_math=False)
        axes.set_ylim(len(panel.rows) - 0.4, -0.6)
    axes.tick_params(labelsize=8)
    if not panel.rows:
        axes.ticklabel_format(axis="y", useOffset=False)


def _draw_bars(axes: Any, bars: list[Bars]) -> None:
    whole = bars[0]
    axes.set_title("how long a step took, us", loc="left", fontsize=9, weight="bold")
    axes.stairs(whole.counts, whole.edges_us, fill=True, color="#7fb2ea", label=_plain(whole.name))
    axes.set_xscale("log")
    axes.tick_params(labelsize=8)
