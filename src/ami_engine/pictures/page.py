"""The page: one HTML file with everything in it, plotly.js included. It loads nothing, from nowhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import msgspec

from ami_engine.errors import ConfigError
from ami_engine.pictures.collect import Picture
from ami_engine.pictures.panels import (
    HALF_ROW,
    LEAST_HALF,
    Bars,
    Line,
    Marks,
    Panel,
    Row,
    figure_texts,
    latency_bars,
    panels_of,
)

__all__ = ["page_of", "page_of_panels"]

_GAP_PX = 34
_LATENCY_PX = 300
_WIDE_CHARS = 60
_MANY_FILLS = 200
_MARGIN = {"l": 150, "r": 20, "t": 30, "b": 40}
_GRID = "#e5e8ec"
# A price is not 61.8k, and a position not 50µ.
_PLAIN_NUMBERS = {"exponentformat": "none", "separatethousands": True, "hoverformat": ",.10~g"}
_FONT = {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12, "color": "#24292f"}
# No address may be loaded, whatever the data say.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
_STYLE = """
body{font:14px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;color:#24292f;margin:0 auto;max-width:1500px;
padding:16px 24px;background:#fff}
h1{font-size:20px;margin:0 0 12px;overflow-wrap:anywhere}
h2{font-size:15px;margin:20px 0 0}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:8px 28px;margin:0 0 12px}
.wide{grid-column:1/-1}dt{color:#57606a;font-size:12px}dd{margin:0;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
ul{margin:0 0 8px;padding:8px 12px 8px 28px;background:#fff8e1;border-left:3px solid #d4a72c;overflow-wrap:anywhere}
p{color:#57606a;margin:4px 0}
"""
# On a telephone the names are above the figure and the buttons, which would lie over them, are gone: fingers zoom.
_NARROW_PX = 700
_DRAW = """
function fit(layout) {
  const more = 60;
  layout.height += more;
  layout.margin = {...layout.margin, l: 10, r: 10, t: layout.margin.t + more};
  layout.legend = {y: 1.02, yanchor: "bottom", x: 0, ...layout.legend, orientation: "h"};
  layout.xaxis = {...layout.xaxis, tickangle: 0};
  if (layout.xaxis.dtick) layout.xaxis.dtick = 2; else layout.xaxis.nticks = 4;
}
const shown = %s;
const buttons = [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "autoScale2d", "resetScale2d"]];
const narrow = window.innerWidth < %d;
const config = {responsive: true, displaylogo: false, modeBarButtons: buttons, displayModeBar: !narrow};
for (const [id, figure] of Object.entries(shown)) {
  const place = document.getElementById(id);
  if (narrow) fit(figure.layout);
  Plotly.newPlot(place, figure.data, figure.layout, config).then(() => { place.dataset.drawn = "yes"; });
}
"""


def page_of(picture: Picture) -> str:
    """Return a picture as one HTML page. Every text that comes from the run is escaped.

    Raises
    ------
    ConfigError
        When plotly is not installed.
    """
    bars = latency_bars(picture)
    more = {"latency": _histogram(bars)} if bars else {}
    return page_of_panels(picture.title, figure_texts(picture), picture.notes, panels_of(picture), more)


def page_of_panels(
    title: str,
    texts: Sequence[tuple[str, str]],
    notes: Sequence[str],
    panels: list[Panel],
    more: Mapping[str, dict[str, Any]] | None = None,
) -> str:
    """Return panels over time as one HTML page, with pairs of label and text above them.

    Raises
    ------
    ConfigError
        When plotly is not installed.
    """
    library = _plotly_js()
    shown = ({"run": _over_time(panels)} if panels else {}) | dict(more or {})
    title = escape(title)
    figures = "".join(_figure(label, text) for label, text in texts)
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    places = "".join(f"{_heading(name)}<div id={name!r}></div>" for name in shown)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><link rel="icon" href="data:,">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>\n'
        f"<body><h1>{title}</h1><dl>{figures}</dl>{f'<ul>{listed}</ul>' if listed else ''}{places}\n"
        f"<script>{library}</script>\n<script>{_DRAW % (_json(shown), _NARROW_PX)}</script></body></html>\n"
    )


def _figure(label: str, text: str) -> str:
    kind = ' class="wide"' if len(text) > _WIDE_CHARS else ""
    return f"<div{kind}><dt>{escape(label)}</dt><dd>{escape(text)}</dd></div>"


def _heading(name: str) -> str:
    if name == "run":
        return (
            "<p>Drag to zoom: all panels share one time. Double-click to see everything. Click a name to hide it.</p>"
        )
    return "<h2>How long a step took</h2><p>Decisions by duration, from the event until its orders were sent.</p>"


def _plotly_js() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise ConfigError("drawing a page needs plotly: pip install 'mdm-engine[viz]'") from None
    # The library is one script of ours: a closing tag in one of its strings would end it.
    return str(get_plotlyjs()).replace("</script", "<\\/script")


def _json(value: Any) -> str:
    """Return `value` as JSON that may stand inside a script element."""
    text = msgspec.json.encode(value).decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _text(text: str) -> str:
    """Return `text` so that plotly shows it as it is: its labels know a few tags, entities, and formulas in dollars."""
    return escape(text, quote=False).replace("$", "&#36;")


def _over_time(panels: list[Panel]) -> dict[str, Any]:
    """Return all panels as one figure with one time axis, which is what links their zoom."""
    inner = sum(panel.height for panel in panels) + _GAP_PX * (len(panels) - 1)
    layout: dict[str, Any] = {
        "height": inner + _MARGIN["t"] + _MARGIN["b"] + 30,
        "margin": {**_MARGIN, "t": _MARGIN["t"] + 30},
        "font": _FONT,
        "hovermode": "closest",
        "dragmode": "zoom",
        "paper_bgcolor": "#fff",
        "plot_bgcolor": "#fff",
        "legend": {"orientation": "h", "y": 1 + 18 / inner, "yanchor": "bottom", "yref": "paper", "x": 0},
        "xaxis": {"type": "date", "anchor": "free", "position": 0, "gridcolor": _GRID, "hoverformat": "%H:%M:%S.%L"},
        "annotations": [],
    }
    data: list[dict[str, Any]] = []
    named: set[str] = set()  # a name stands in the legend once, for the lines and marks of every market
    top = inner
    for number, panel in enumerate(panels, 1):
        axis = "y" if number == 1 else f"y{number}"
        domain = [max(0.0, (top - panel.height) / inner), top / inner]
        layout["yaxis" if number == 1 else f"yaxis{number}"] = _y_axis(panel, domain)
        layout["annotations"].append(_title(panel.title, domain[1]))
        has_names = len(panel.lines) + len(panel.marks) > 1
        for drawn in [_line(line, axis) for line in panel.lines] + [_marks(marks, axis) for marks in panel.marks]:
            drawn["legendgroup"] = drawn["name"]
            drawn["showlegend"] = has_names and drawn["name"] not in named
            named.add(drawn["name"])
            data.append(drawn)
        data += [_row(row, place, axis) for place, row in enumerate(panel.rows)]
        top -= panel.height + _GAP_PX
    return {"data": data, "layout": layout}


def _y_axis(panel: Panel, domain: list[float]) -> dict[str, Any]:
    axis: dict[str, Any] = {"domain": domain, "gridcolor": _GRID, "zerolinecolor": "#c3c9d1", "automargin": True}
    axis |= _PLAIN_NUMBERS
    if panel.rows:
        names = [_text(row.name) for row in panel.rows]
        axis |= {"tickvals": list(range(len(names))), "ticktext": names, "zeroline": False, "fixedrange": True}
        axis["range"] = [len(names) - 0.4, -0.6]
    return axis


def _title(text: str, y: float) -> dict[str, Any]:
    place = {"xref": "paper", "yref": "paper", "x": 0, "xanchor": "left", "y": y, "yanchor": "bottom"}
    return {**place, "showarrow": False, "text": f"<b>{_text(text)}</b>"}


def _line(line: Line, axis: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": _text(line.name),
        "x": _times(line.xs),
        "y": line.ys,
        "yaxis": axis,
        "line": {"color": line.color, "width": 1 if line.is_thin else 1.4, "shape": "hv"},
    }


def _marks(marks: Marks, axis: str) -> dict[str, Any]:
    size = 9 if len(marks.xs) < _MANY_FILLS else 5  # so that many do not hide the price
    symbol = f"triangle-{'up' if marks.is_up else 'down'}{'' if marks.is_filled else '-open'}"
    return {
        "type": "scatter",
        "mode": "markers",
        "name": _text(marks.name),
        "x": _times(marks.xs),
        "y": marks.ys,
        "yaxis": axis,
        "text": [_text(text) for text in marks.texts],
        "hovertemplate": "%{text}<br>%{x|%H:%M:%S.%L}<extra></extra>",
        "marker": {"symbol": symbol, "size": size, "color": marks.color, "line": {"color": marks.color, "width": 1}},
    }


def _row(row: Row, place: int, axis: str) -> dict[str, Any]:
    """Return the bars of a row as one outline of rectangles: a bar without a width is still a line."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    texts: list[str | None] = []
    for bar in row.bars:
        half = max(LEAST_HALF, HALF_ROW * bar.share)
        said = f"{_text(row.name)}: {bar.count:,} decision{'s' if bar.count > 1 else ''}"
        said += f" of {bar.decisions:,.0f}" if bar.share < 1.0 else ""
        xs += [bar.start, bar.start, bar.end, bar.end, bar.start, None]
        ys += [place - half, place + half, place + half, place - half, place - half, None]
        texts += [said] * 5 + [None]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": _text(row.name),
        "x": _times(xs),
        "y": ys,
        "yaxis": axis,
        "showlegend": False,
        "text": texts,
        "hovertemplate": "%{text}<br>%{x|%H:%M:%S.%L}<extra></extra>",
        "hoveron": "points",
        "fill": "toself",
        "fillcolor": row.color,
        "line": {"color": row.color, "width": 1},
    }


def _times(xs: list[float] | list[float | None]) -> list[float | None]:
    """Return times in ms, to the microsecond: a double holds no more of them anyway."""
    return [None if x is None else round(x, 3) for x in xs]


def _histogram(bars: list[Bars]) -> dict[str, Any]:
    data = []
    for number, each in enumerate(bars):
        edges = each.edges_us
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": _text(each.name),
                "x": edges,
                "y": [*each.counts, 0],
                "line": {"shape": "hv", "width": 1.2},
                "fill": "tozeroy" if number == 0 else "none",
                "visible": True if number == 0 else "legendonly",
                "hovertemplate": "from %{x:.4~g} µs: %{y:,}",
            }
        )
    layout = {
        "height": _LATENCY_PX,
        "margin": _MARGIN,
        "font": _FONT,
        "showlegend": True,
        "paper_bgcolor": "#fff",
        "plot_bgcolor": "#fff",
        "xaxis": {"type": "log", "title": {"text": "µs"}, "gridcolor": _GRID, "dtick": 1, **_PLAIN_NUMBERS},
        "yaxis": {
            "title": {"text": "decisions"},
            "gridcolor": _GRID,
            "rangemode": "tozero",
            "automargin": True,
            **_PLAIN_NUMBERS,
        },
    }
    return {"data": data, "layout": layout}
