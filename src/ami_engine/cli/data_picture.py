"""A recording's mid price and its faults as one page that needs nothing beside it."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ami_engine.errors import BackendError
from ami_engine.loop.data_check import DataReport, Timeline
from ami_engine.units import NS_PER_S

__all__ = ["write_picture"]


def write_picture(path: Path, report: DataReport, timeline: Timeline) -> None:
    """Write the page: the mid's lowest and highest over time, and where each kind of fault was first found.

    Raises
    ------
    BackendError
        When plotly is not installed.
    """
    try:
        from plotly import graph_objects
    except ImportError:
        raise BackendError("a picture needs plotly: pip install 'mdm-engine[viz]'") from None
    # Buckets in which nothing happened are no points: a line over a silence is drawn through it.
    shown = [
        (_when(timeline.start_ns + place * timeline.bucket_ns), low, high)
        for place, (low, high) in enumerate(zip(timeline.lows, timeline.highs, strict=True))
        if math.isfinite(low)
    ]
    times = [when for when, _, _ in shown]
    figure: Any = graph_objects.Figure()
    figure.add_scatter(x=times, y=[low for _, low, _ in shown], name="lowest mid", mode="lines")
    figure.add_scatter(x=times, y=[high for _, _, high in shown], name="highest mid", mode="lines", fill="tonexty")
    floor = min((low for _, low, _ in shown), default=0.0)
    for finding in report.findings:
        at = [_when(ts_ns) for kind, ts_ns in timeline.marks if kind == finding.kind]
        figure.add_scatter(
            x=at,
            y=[floor] * len(at),
            mode="markers",
            name=f"{finding.kind}: {finding.count}",
            hovertext=[finding.meaning] * len(at),
        )
    figure.update_layout(title=f"{report.source}: {report.events} events", xaxis_title="UTC", yaxis_title="price")
    figure.write_html(path, include_plotlyjs=True)


def _when(ts_ns: int) -> datetime:
    return datetime.fromtimestamp(ts_ns / NS_PER_S, UTC)
