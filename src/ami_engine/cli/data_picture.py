"""A recording's mid price and its faults as one page that needs nothing beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ami_engine.loop.data_check import DataReport, Timeline
from ami_engine.pictures.page import page_of_panels
from ami_engine.pictures.panels import Line, Panel, Row, RowBar

__all__ = ["write_picture"]

_LOW, _HIGH, _FOUND = "#0b62c4", "#d1550a", "#a12b3c"
_NOTE = "A mark is one finding; of more than 400 of a kind every second, every fourth … is drawn. Counts are exact."


def write_picture(path: Path, report: DataReport, timeline: Timeline, texts: Sequence[tuple[str, str]]) -> None:
    """Write the page: the mid's lowest and highest over time, and when each kind of fault was found.

    Raises
    ------
    ConfigError
        When plotly is not installed.
    """
    low, high = Line("lowest mid", [], [], _LOW), Line("highest mid", [], [], _HIGH)
    for place, (lowest, highest) in enumerate(zip(timeline.lows, timeline.highs, strict=True)):
        if math.isfinite(lowest):  # in a bucket in which nothing happened the last price stands
            at_ms = (timeline.start_ns + place * timeline.bucket_ns) / 1e6
            for line, price in ((low, lowest), (high, highest)):
                line.xs.append(at_ms)
                line.ys.append(price)
    panels = [Panel("mid price", 340, [high, low])] if low.xs else []
    rows = [
        Row(f"{finding.kind} {finding.count:,}", [RowBar(ns / 1e6, ns / 1e6, 1, 1) for ns in at_ns], _FOUND)
        for finding in report.findings
        if (at_ns := timeline.marks.get(finding.kind))
    ]
    if rows:
        panels.append(Panel("found", 30 + 22 * len(rows), rows=rows))
    page = page_of_panels(f"{report.source}: {report.events:,} events", texts, [_NOTE] if rows else [], panels)
    path.write_text(page, encoding="utf-8")
