"""What stands in which panel, and the figures above them: the same for the page and for the still."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from ami_engine.ops.activity import FillMark
from ami_engine.ops.latency import LatencyHistogram
from ami_engine.pictures.collect import ROW_BARS, Market, Picture
from ami_engine.pictures.sampling import Spells

__all__ = [
    "HALF_ROW",
    "LEAST_HALF",
    "Bars",
    "Line",
    "Marks",
    "Panel",
    "Row",
    "RowBar",
    "figure_texts",
    "latency_bars",
    "panels_of",
]

# Told apart by people who do not see red and green alike: blue buys, orange sells.
_BUY, _SELL, _OWN_BID, _OWN_ASK = "#0b62c4", "#d1550a", "#7fb2ea", "#f0ad7a"
_MID, _EQUITY, _DRAWDOWN, _GUARD = "#40464f", "#23703c", "#a12b3c", "#8a3ffc"
_ACTION_COLORS = {"ACT": "#0b62c4", "EXIT": "#d1550a", "HOLD": "#8b949e", "CANCEL": "#b08800", "STOP": "#a12b3c"}
_BINS_PER_DECADE = 20
# Half the height of a row's bar, in rows: of one that was so all the time, and the least that is seen.
HALF_ROW, LEAST_HALF = 0.36, 0.04


class Line(msgspec.Struct, frozen=True):
    """A line of steps: each value holds until the next one. NaN is a gap; times are ms since the Unix epoch."""

    name: str
    xs: list[float]
    ys: list[float]
    color: str
    is_thin: bool = False


class Marks(msgspec.Struct, frozen=True):
    """Fills of one kind: up for buys, down for sells, filled for a maker's and open for a taker's."""

    name: str
    xs: list[float]
    ys: list[float]
    texts: list[str]
    color: str
    is_up: bool
    is_filled: bool


class RowBar(msgspec.Struct, frozen=True):
    """Time from `start` to `end` with `decisions`, in `count` of which something was so."""

    start: float
    end: float
    count: int
    decisions: float

    @property
    def share(self) -> float:
        """How much of it, in (0, 1]; what is drawn as its height."""
        return min(1.0, self.count / self.decisions)


class Row(msgspec.Struct, frozen=True):
    """When something was so."""

    name: str
    bars: list[RowBar]
    color: str


class Panel(msgspec.Struct, frozen=True):
    """One panel over time: lines and marks, or rows. `height` is in pixels of the page."""

    title: str
    height: int
    lines: list[Line] = []
    marks: list[Marks] = []
    rows: list[Row] = []


class Bars(msgspec.Struct, frozen=True):
    """A histogram with logarithmic bins: their edges in µs, one more than there are counts."""

    name: str
    edges_us: list[float]
    counts: list[int]


def panels_of(picture: Picture) -> list[Panel]:
    """Return the panels of a picture from top to bottom."""
    first, last = picture.figures["first_ns"] / 1e6, picture.figures["last_ns"] / 1e6
    panels = [_price_panel(market, last) for market in picture.markets]
    for market in picture.markets:
        panels.append(_position_panel(picture, market, first, last))
    if picture.equity.count:
        equity = _line("equity", picture.equity.points(), _EQUITY, last)
        panels.append(Panel("equity, USD", 150, [equity]))
        drawdown = _line("drawdown", picture.drawdown.points(), _DRAWDOWN, last)
        panels.append(Panel("below the peak, USD", 110, [drawdown]))
    decisions = picture.figures["packets"]
    if picture.actions:
        rows = [row_of(name, spells, _ACTION_COLORS[name], decisions) for name, spells in picture.actions.items()]
        panels.append(Panel("decided", 30 + 22 * len(rows), rows=rows))
    if picture.guards:
        rows = [row_of(name, spells, _GUARD, decisions) for name, spells in picture.guards.items()]
        panels.append(Panel("guards fired", 30 + 22 * len(rows), rows=rows))
    return panels


def _price_panel(market: Market, last: float) -> Panel:
    lines = [
        _line("own bid", market.bid.points(), _OWN_BID, last, is_thin=True),
        _line("own ask", market.ask.points(), _OWN_ASK, last, is_thin=True),
        _line("mid", market.mid.points(), _MID, last),
    ]
    marks = []
    for side, color in (("BUY", _BUY), ("SELL", _SELL)):
        for liquidity in ("MAKER", "TAKER"):
            fills = [fill for fill in market.fills if (fill.side, fill.liquidity) == (side, liquidity)]
            if fills:
                marks.append(_marks(f"{side.lower()}, {liquidity.lower()}", fills, color))
    return Panel(f"price {market.name}", 340, [line for line in lines if line.xs], marks)


def _marks(name: str, fills: Sequence[FillMark], color: str) -> Marks:
    texts = [
        f"{fill.side} {fill.qty:g} at {fill.price:.10g}, {fill.liquidity.lower()}, fee {fill.fee:g}, "
        f"position then {fill.position:g}, decision {fill.step}"
        for fill in fills
    ]
    xs, ys = [fill.now_ns / 1e6 for fill in fills], [fill.price for fill in fills]
    return Marks(name, xs, ys, texts, color, fills[0].side == "BUY", fills[0].liquidity == "MAKER")


def _position_panel(picture: Picture, market: Market, first: float, last: float) -> Panel:
    points = market.position.points()
    is_signed = picture.figures["fills"] is not None
    if is_signed and picture.figures["first_step"] == 0:
        points = [
            (first, 0.0),
            *points,
        ]  # a run begins flat; what a trace without its beginning began with is not known
    title = f"position {market.name}" if is_signed else f"size of position {market.name}"
    return Panel(title, 120, [_line("position", points, _MID, last)])


def _line(name: str, points: list[tuple[float, float]], color: str, last: float, *, is_thin: bool = False) -> Line:
    xs: list[float] = []
    ys: list[float] = []
    for x, y in points:
        if y != y and ys:  # the value before a gap holds until the gap begins
            xs.append(x)
            ys.append(ys[-1])
        xs.append(x)
        ys.append(y)
    if xs and xs[-1] < last:
        xs.append(last)
        ys.append(ys[-1])
    return Line(name, xs, ys, color, is_thin)


def row_of(name: str, spells: Spells, color: str, decisions: int) -> Row:
    """Return the spells as bars: each its own while there are few, else a stretch of the run with the share in it.

    Many spells would touch each other on the screen, and one decision in thirty would look like every one.
    """
    least = decisions / ROW_BARS if len(spells) > ROW_BARS else 0.0
    bars: list[RowBar] = []
    first = -math.inf
    for spell in spells:
        start, count = spell.start, spell.count
        if spell.first_step - first < least:
            joined = bars.pop()
            start, count = joined.start, joined.count + count
        else:
            first = spell.first_step
        bars.append(RowBar(start, spell.end, count, max(least, spell.step - first + 1)))
    return Row(name, bars, color)


def latency_bars(picture: Picture) -> list[Bars]:
    """Return the histograms of the whole step and of its stages, all over the same bins."""
    found = {name: histogram for name, histogram in picture.latency.items() if histogram.count}
    bins = {name: _bins(histogram) for name, histogram in found.items()}
    if not bins:
        return []
    low, high = min(min(counts) for counts in bins.values()), max(max(counts) for counts in bins.values())
    edges = [round(10 ** (key / _BINS_PER_DECADE) / 1e3, 6) for key in range(low, high + 2)]
    return [Bars(name, edges, [counts.get(key, 0) for key in range(low, high + 1)]) for name, counts in bins.items()]


def _bins(histogram: LatencyHistogram) -> dict[int, int]:
    bins: dict[int, int] = {}
    for ns, count in histogram.counts_ns():
        key = math.floor(math.log10(max(ns, 1.0)) * _BINS_PER_DECADE)
        bins[key] = bins.get(key, 0) + count
    return bins


def figure_texts(picture: Picture) -> list[tuple[str, str]]:
    """Return label and text of what stands above the panels."""
    figures = picture.figures
    texts = [
        ("decisions", f"{figures['packets']:,} ({figures['events']:,} events, {figures['timers']:,} timers)"),
        ("time, UTC", f"{_utc(figures['first_ns'])} to {_utc(figures['last_ns'])}"),
        ("decided", ", ".join(f"{name} {count:,}" for name, count in figures["actions"].items()) or "nothing"),
        ("guards fired in", f"{figures['guarded']:,} decisions"),
    ]
    if figures["fills"] is not None:
        fills, buys, makers = figures["fills"], figures["buys"], figures["makers"]
        texts.append(("fills", f"{fills:,} ({buys:,} buys, {fills - buys:,} sells; {makers:,} as maker)"))
    if figures["equity_last"] is not None:
        change = figures["equity_last"] - figures["equity_first"]
        texts.append(("equity, USD", f"{figures['equity_last']:,.6g} ({change:+,.6g})"))
        texts.append(("largest drawdown, USD", f"{figures['max_drawdown']:,.6g}"))
    latency = figures["latency_us"]
    texts.append(
        ("step without trace, µs", f"p50 {latency['p50']:g}, p99 {latency['p99']:g}, longest {latency['max']:g}")
    )
    return texts + picture.about


def _utc(ns: int) -> str:
    return str(np.datetime64(ns, "ns").astype("datetime64[ms]")).replace("T", " ")
