"""Reads a run's folder once, packet by packet, and keeps what a picture of it needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ami_engine.errors import ConfigError, TraceError
from ami_engine.ops.activity import FillMark, QuoteMark, read_activity
from ami_engine.ops.latency import LatencyHistogram
from ami_engine.pictures.sampling import Extremes, Spells, Thinned
from ami_engine.trace.reader import read_packets
from decision_schema.packet_v2 import PacketV2

__all__ = ["MAX_FILLS", "MAX_MARKETS", "Market", "Picture", "collect_picture"]

MAX_FILLS = 5_000
MAX_MARKETS = 4
_MAX_ROWS = 40
_BUCKETS = 1_500
_SPELLS = 1_000
# A row of more spells is drawn as so many bars at most, each as high as the share of its decisions.
ROW_BARS = 200
_RUN_FILE_NAME = "run.json"
_NAN = float("nan")
_TIMES_KEPT = 4_096
_ACTIONS = ("ACT", "EXIT", "HOLD", "CANCEL", "STOP")


class Market:
    """What is drawn of one market. Times are ms since the Unix epoch, prices in the quote currency."""

    __slots__ = ("ask", "bid", "fills", "mid", "name", "position")

    def __init__(self, name: str) -> None:
        self.name = name
        self.mid, self.bid, self.ask, self.position = (Extremes(_BUCKETS) for _ in range(4))
        self.fills: Thinned[FillMark] = Thinned(MAX_FILLS)

    @property
    def is_drawn(self) -> bool:
        """Whether there is a price to draw: a symbol of other events than a market's has none."""
        return bool(self.fills) or any(y == y for _, y in self.mid.points())


class _Stages:
    """Latency histograms by stage, filled in blocks."""

    __slots__ = ("_waiting", "histograms")

    def __init__(self) -> None:
        self.histograms: dict[str, LatencyHistogram] = {}
        self._waiting: dict[str, list[int]] = {}

    def add(self, name: str, ns: float) -> None:
        waiting = self._waiting.get(name)
        if waiting is None:
            if len(self._waiting) >= _MAX_ROWS:
                return
            waiting = self._waiting[name] = []
            self.histograms[name] = LatencyHistogram()
        waiting.append(int(ns))
        if len(waiting) == _TIMES_KEPT:
            self._count(name, waiting)

    def _count(self, name: str, waiting: list[int]) -> None:
        self.histograms[name].add_many(np.array(waiting, dtype=np.int64))
        waiting.clear()

    def finish(self) -> None:
        for name, waiting in self._waiting.items():
            self._count(name, waiting)


class Picture:
    """What a page shows of a run; its size does not grow with the run's length.

    Attributes
    ----------
    title : str
        The run's name.
    about : list of (str, str)
        What the run was made of: source, model, policy.
    figures : dict of str
        Figures of the whole run, exact whatever was left out of the lines: see `collect_picture`.
    markets : list of Market
        At most `MAX_MARKETS`, in the order in which they were first seen.
    equity, drawdown : Extremes
        As the guards saw them, USD.
    actions, guards : dict of Spells
        When each action was decided, and when each guard fired, by its reason code.
    latency : dict of LatencyHistogram
        Of the whole step up to its orders (``step``), and of its stages.
    notes : list of str
        What is not shown, or not known, and why.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.about: list[tuple[str, str]] = []
        self.figures: dict[str, Any] = {}
        self.markets: list[Market] = []
        self.equity, self.drawdown = Extremes(_BUCKETS), Extremes(_BUCKETS)
        self.actions: dict[str, Spells] = {}
        self.guards: dict[str, Spells] = {}
        self.latency: dict[str, LatencyHistogram] = {}
        self.notes: list[str] = []

    @property
    def is_whole(self) -> bool:
        """Whether every point of every line is drawn."""
        lines = [self.equity, self.drawdown]
        for market in self.markets:
            lines += [market.mid, market.bid, market.ask, market.position]
        return all(line.stride == 1 for line in lines)


def collect_picture(run_dir: str | Path) -> Picture:
    """Read a run's trace and activity, each once from its beginning to its end, in memory that does not grow with them.

    The chain is not checked; `ami verify` does that. Packets in front of a damaged one are shown, and a note says so.

    Parameters
    ----------
    run_dir : str or Path
        A run's folder, or its first trace file.

    Returns
    -------
    Picture
        Its `figures` are ``packets``, ``events``, ``timers``, ``first_step``, ``first_ns``, ``last_ns``, ``actions``,
        ``guarded`` (decisions in which a guard fired), ``fills``, ``buys``, ``makers``, ``equity_first``,
        ``equity_last``, ``max_drawdown`` (USD) and ``latency_us``.

    Raises
    ------
    ConfigError
        When there is no trace, or not one packet in it.
    TraceError
        When not even the first packet can be read, or the activity file is none.
    """
    folder = Path(run_dir)
    folder = folder if folder.is_dir() else folder.parent
    collector = _Collector(Picture(folder.name))
    try:
        for packet in read_packets(run_dir):
            collector.add_packet(packet)
    except FileNotFoundError:
        raise ConfigError(
            f"{run_dir} holds no trace to draw: name the folder of a run that wrote one (no --no-trace)"
        ) from None
    except TraceError as error:
        if not collector.packets:
            raise
        collector.picture.notes.append(f"The trace is damaged; what stands before the damage is shown. {error}")
    if not collector.packets:
        raise ConfigError(f"{run_dir}: the trace holds no decision, there is nothing to draw")
    has_activity = False
    for mark in read_activity(folder):
        has_activity = True
        collector.add_mark(mark)
    collector.finish(_read_run_file(folder), has_activity=has_activity)
    return collector.picture


class _Collector:
    """Folds packets, then marks, into a picture."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.packets = 0
        self._markets: dict[str, Market] = {}
        self._beyond: set[str] = set()  # a few of the markets that are not drawn
        self._sizes: dict[str, Extremes] = {}
        self._stages = _Stages()
        self._policies: dict[str, None] = {}  # an ordered set
        self._first_step = self._next_step = -1
        self._gaps = self._timers = self._guarded = self._untimed = self._set_back = self._rows_left_out = 0
        self._fills = self._buys = self._makers = 0
        self._first_ns = self._last_ns = self._mark_ns = 0
        self._first_equity = self._equity = _NAN
        self._max_drawdown = 0.0

    # Packets. -----------------------------------------------------------------------------------------------------

    def add_packet(self, packet: PacketV2) -> None:
        step, given = packet.step, packet.input
        if self._next_step >= 0:
            self._gaps += max(0, step - self._next_step)
        else:
            self._first_step = step
            self.picture.title = packet.run_id
        self._next_step = step + 1
        self.packets += 1
        self._timers += given.get("kind") == "timer"
        self._add_latency(packet)
        now_ns = given.get("now_ns")
        if type(now_ns) is not int:
            self._untimed += 1
            return
        self._first_ns = self._first_ns or now_ns
        if now_ns < self._last_ns:
            self._set_back += 1
        else:
            self._last_ns = now_ns
        if len(self._policies) < _MAX_ROWS and given.get("policy_hash"):
            self._policies[str(given["policy_hash"])] = None
        x = self._last_ns / 1e6
        action = packet.final_action.get("action")
        if action in _ACTIONS:
            self._spells(self.picture.actions, action).add(step, x)
        if packet.mismatch is not None:
            self._add_guards(packet.mismatch, step, x)
        self._add_state(given, x)

    def _add_state(self, given: Mapping[str, Any], x: float) -> None:
        context, features = given.get("context"), given.get("features")
        seen: Mapping[str, Any] = context if context else features or {}
        market = self._market(str(given.get("symbol", "")))
        if market is not None:
            mid = _number(seen.get("mid"))
            market.mid.add(x, mid if mid > 0.0 else _NAN)
            if context:
                self._sizes[market.name].add(x, _number(context.get("abs_inventory")))
        if not context:
            return
        equity, drawdown = _number(context.get("equity_usd")), _number(context.get("drawdown_usd"))
        if equity == equity:
            self.picture.equity.add(x, equity)
            self._equity = equity
            if self._first_equity != self._first_equity:
                self._first_equity = equity
        if drawdown == drawdown:
            self.picture.drawdown.add(x, -drawdown)
            self._max_drawdown = max(self._max_drawdown, drawdown)

    def _add_guards(self, mismatch: Mapping[str, Any], step: int, x: float) -> None:
        codes = mismatch.get("reason_codes") or ()
        self._guarded += bool(codes)
        for code in codes:
            code = str(code)
            if code not in self.picture.guards and len(self.picture.guards) >= _MAX_ROWS:
                self._rows_left_out += 1
                continue
            self._spells(self.picture.guards, code).add(step, x)

    def _add_latency(self, packet: PacketV2) -> None:
        self._stages.add("step", _number(packet.latency_ms, 0.0) * 1e6)
        stages = packet.external.get("ops.latency_ns")
        if isinstance(stages, dict):
            for name, ns in stages.items():
                self._stages.add(str(name), _number(ns, 0.0))

    @staticmethod
    def _spells(rows: dict[str, Spells], name: str) -> Spells:
        spells = rows.get(name)
        if spells is None:
            spells = rows[name] = Spells(_SPELLS)
        return spells

    def _market(self, name: str) -> Market | None:
        market = self._markets.get(name)
        if market is None:
            if len(self._markets) >= MAX_MARKETS:
                if len(self._beyond) < 1_000:
                    self._beyond.add(name)
                return None
            market = self._markets[name] = Market(name)
            self._sizes[name] = Extremes(_BUCKETS)
        return market

    # Marks. -------------------------------------------------------------------------------------------------------

    def add_mark(self, mark: FillMark | QuoteMark) -> None:
        if mark.step < self._first_step:
            return  # of a part of the trace that was rotated away
        self._mark_ns = max(self._mark_ns, mark.now_ns)
        x = self._mark_ns / 1e6
        market = self._market(mark.symbol)
        if isinstance(mark, FillMark):
            self._fills += 1
            self._buys += mark.side == "BUY"
            self._makers += mark.liquidity == "MAKER"
            if market is not None:
                market.fills.add(mark)
                market.position.add(x, mark.position)
        elif market is not None:
            market.bid.add(x, _NAN if mark.bid is None else mark.bid)
            market.ask.add(x, _NAN if mark.ask is None else mark.ask)

    # The end. -----------------------------------------------------------------------------------------------------

    def finish(self, run_file: Mapping[str, Any], *, has_activity: bool) -> None:
        picture = self.picture
        self._stages.finish()
        picture.latency = self._stages.histograms
        picture.markets = [market for market in self._markets.values() if market.is_drawn]
        for market in picture.markets:
            if not has_activity:
                market.position = self._sizes[market.name]
        picture.about = [*_about(run_file), ("policy", ", ".join(self._policies) or "unguarded")]
        picture.actions = {name: picture.actions[name] for name in _ACTIONS if name in picture.actions}
        picture.guards = dict(sorted(picture.guards.items(), key=lambda row: -row[1].count))
        picture.figures = {
            "packets": self.packets,
            "events": self.packets - self._timers,
            "timers": self._timers,
            "first_step": self._first_step,
            "first_ns": self._first_ns,
            "last_ns": self._last_ns,
            "actions": {name: spells.count for name, spells in picture.actions.items()},
            "guarded": self._guarded,
            "fills": self._fills if has_activity else None,
            "buys": self._buys if has_activity else None,
            "makers": self._makers if has_activity else None,
            "equity_first": _or_none(self._first_equity),
            "equity_last": _or_none(self._equity),
            "max_drawdown": self._max_drawdown,
            "latency_us": picture.latency["step"].summary_us(),
        }
        self._add_notes(has_activity=has_activity)

    def _add_notes(self, *, has_activity: bool) -> None:
        picture, notes = self.picture, self.picture.notes
        if not has_activity and picture.markets:
            notes.append(
                "This run kept no activity file: no fills and no quotes are shown, and the position has no sign. "
                "`ami run` keeps one, and so does run_loop(activity=True)."
            )
        if not picture.is_whole:
            notes.append(
                f"Long lines are drawn with the first, lowest, highest and last point of at most {_BUCKETS:,} "
                "stretches: every extreme is there, not every point."
            )
        for market in picture.markets:
            if len(market.fills) < market.fills.count:
                notes.append(
                    f"{market.name}: {len(market.fills):,} of {market.fills.count:,} fills are drawn, evenly chosen "
                    f"(at most {MAX_FILLS:,}); the figures count all."
                )
        rows = [*picture.actions.values(), *picture.guards.values()]
        if any(len(spells) > ROW_BARS for spells in rows):
            notes.append(
                f"Rows with more than {ROW_BARS} spells are drawn as stretches: the height is the share of their "
                "decisions in which it was so. Counts are exact."
            )
        if self._beyond:
            more = " or more" if len(self._beyond) == 1_000 else ""
            notes.append(
                f"The first {MAX_MARKETS} markets are drawn, {len(self._beyond):,}{more} are not; "
                "equity, guards and figures are of all."
            )
        if self._rows_left_out:
            notes.append(
                f"{self._rows_left_out:,} firings are of guards beyond the first {_MAX_ROWS} codes, not shown."
            )
        if self._first_step > 0:
            notes.append(f"The trace begins with decision {self._first_step:,}: older files were rotated away.")
        if self._gaps:
            notes.append(f"{self._gaps:,} decisions are missing from the trace: they were dropped when it was written.")
        if self._set_back:
            notes.append(
                f"{self._set_back:,} decisions have an earlier time than one before them; "
                "their lines are drawn at the latest time until then."
            )
        if self._untimed:
            notes.append(f"{self._untimed:,} packets have no decision time and are only counted.")


def _number(value: Any, default: float = _NAN) -> float:
    return float(value) if isinstance(value, int | float) and abs(value) < 1e300 else default


def _or_none(number: float) -> float | None:
    return number if number == number else None


def _read_run_file(folder: Path) -> Mapping[str, Any]:
    try:
        value = msgspec.json.decode((folder / _RUN_FILE_NAME).read_bytes())
    except (OSError, ValueError):
        return {}  # a trace alone can be drawn as well
    return value if isinstance(value, dict) else {}


def _about(run_file: Mapping[str, Any]) -> list[tuple[str, str]]:
    config = run_file.get("config")
    config = config if isinstance(config, dict) else {}
    about = [("source", run_file.get("source")), ("model", config.get("model"))]
    return [(label, str(value)) for label, value in about if value]
