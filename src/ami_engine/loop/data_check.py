"""What is wrong with a recording, found before it is trusted: one pass, bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from ami_engine import clock
from ami_engine.adapters.base import DataSource
from ami_engine.book.grid import is_off_grid
from ami_engine.errors import ConfigError, EventError
from ami_engine.events import Bar, BookDelta, BookSnapshot, BookTicker, FeedGap, Trade
from ami_engine.features.feature_config import FeatureConfig
from ami_engine.loop.feed import FeedEnd, RetryPolicy, SourceReader
from ami_engine.loop.summary import EARLIEST_NS
from ami_engine.loop.symbol_state import SymbolState
from ami_engine.units import NS_PER_MS, Instrument

__all__ = ["FINDINGS", "DataReport", "Finding", "Timeline", "check_data"]

# Every finding there is, and what it says.
FINDINGS: Mapping[str, str] = {
    "unreadable": "records that could not be read",
    "early_time": "events of the 1970s: they have no time, or one in another unit than its name says",
    "backwards_time": "events received earlier than the one before them",
    "duplicate_seq": "sequence numbers that came again or went back, where they must rise",
    "gap": "places where the feed lost something, or bars are missing",
    "silence": "times without an event that are longer than `silence_ms`",
    "crossed": "books with the bid above the ask",
    "locked": "books with the bid at the ask",
    "off_grid": "book prices that are no multiple of the tick size",
    "repeat": "events that say, to the nanosecond, what the one before them said",
    "clock_skew": "events that were received before the venue says that they happened",
    "refused": "events that the engine would refuse for another reason",
}

_MARKS = 400
_PLACES_KEPT = 3
_SAMPLES = 4_096
_BUCKETS = 1_024
_PROGRESS_EVERY = 1_000
_KIND_OF: Mapping[type, str] = {
    BookSnapshot: "book",
    BookDelta: "delta",
    BookTicker: "ticker",
    Trade: "trade",
    Bar: "bar",
}
# What the engine refuses an event for, and under which finding it is told.
_FINDING_OF_REASON: Mapping[str, str] = {
    "time_backwards": "backwards_time",
    "duplicate_seq": "duplicate_seq",
    "sequence_gap": "gap",
    "crossed_book": "crossed",
    "off_grid": "off_grid",
}


class Finding(msgspec.Struct):
    """One kind of fault: how often, how bad at worst, and where first.

    `worst` is in ms for times and in price for books; 0 where there is no measure. `places` are the first few.
    """

    kind: str
    meaning: str
    count: int = 0
    worst: float = 0.0
    unit: str = ""
    places: list[str] = []
    reasons: dict[str, int] = {}


class Timeline(msgspec.Struct):
    """The mid price in buckets of equal width, each with its lowest and highest: what a picture shows.

    `marks` are the times of each kind of finding, ns; of many every second, every fourth … evenly.
    """

    start_ns: int = 0
    bucket_ns: int = 0
    lows: list[float] = []
    highs: list[float] = []
    marks: dict[str, list[int]] = {}


class DataReport(msgspec.Struct):
    """What a recording holds, and what is wrong with it.

    Two things are counted and are no fault: `trades_off_grid`, because trades may print between ticks, and
    `trades_alike`, prints that follow their like and carry no `seq` that could tell a repeat from two fills.
    """

    source: str
    events: int = 0
    kinds: dict[str, int] = {}
    symbols: dict[str, int] = {}
    first_ts_ns: int = 0
    last_ts_ns: int = 0
    latency_ms: dict[str, float] = {}
    trades_off_grid: int = 0
    trades_alike: int = 0
    findings: list[Finding] = []
    ended: str = "source_exhausted"

    @property
    def is_clean(self) -> bool:
        """True when nothing was found."""
        return not self.findings


class _Sample:
    """Numbers thinned evenly to a bounded number, with exact ends: their median is near that of all."""

    def __init__(self) -> None:
        self.least, self.most, self.count = float("inf"), float("-inf"), 0
        self._kept: list[float] = []
        self._stride = 1

    def add(self, value: float) -> None:
        self.least, self.most = min(self.least, value), max(self.most, value)
        if self.count % self._stride == 0:
            self._kept.append(value)
            if len(self._kept) == _SAMPLES:
                self._kept = self._kept[::2]
                self._stride *= 2
        self.count += 1

    def summary(self) -> dict[str, float]:
        if not self.count:
            return {}
        return {"min": self.least, "median": sorted(self._kept)[len(self._kept) // 2], "max": self.most}


class _Buckets:
    """Lowest and highest mid by time; when time outgrows the buckets, two become one."""

    def __init__(self) -> None:
        self.start_ns = 0
        self.width_ns = NS_PER_MS
        self.lows: list[float] = []
        self.highs: list[float] = []

    def add(self, ts_ns: int, mid: float) -> None:
        if not self.start_ns:
            self.start_ns = ts_ns
        place = max(0, ts_ns - self.start_ns) // self.width_ns
        while place >= _BUCKETS:
            self._halve()
            place = (ts_ns - self.start_ns) // self.width_ns
        if place >= len(self.lows):
            missing = place + 1 - len(self.lows)
            self.lows += [float("inf")] * missing
            self.highs += [float("-inf")] * missing
        self.lows[place] = min(self.lows[place], mid)
        self.highs[place] = max(self.highs[place], mid)

    def _halve(self) -> None:
        self.lows = [min(self.lows[at : at + 2]) for at in range(0, len(self.lows), 2)]
        self.highs = [max(self.highs[at : at + 2]) for at in range(0, len(self.highs), 2)]
        self.width_ns *= 2


class _Seen(msgspec.Struct):
    """What is remembered of a symbol."""

    last_ts_ns: int = 0
    last_bar_ns: int = 0
    bar_step_ns: int = 0
    bars: int = 0
    last: dict[type, Any] = {}
    last_seq: dict[str, int] = {}


class _States:
    """The engine's state of each symbol, and whether its grid is known.

    A symbol whose tick nobody declared gets one so fine that no recorded price is between two.
    """

    def __init__(self, source: DataSource, instrument: Instrument | None) -> None:
        self._source = source
        self._instruments = dict(source.instruments()) if instrument is None else {}
        self._default = instrument or self._instruments.pop("", None)
        self._states: dict[str, SymbolState] = {}
        self.with_grid: set[str] = set()

    def of(self, event: Any) -> SymbolState:
        symbol = event.symbol
        state = self._states.get(symbol)
        if state is None:
            known = self._instruments.get(symbol, self._default)
            if known is not None:
                self.with_grid.add(symbol)
            tick_size = known.tick_size if known is not None else _finest_tick(event)
            state = self._states[symbol] = SymbolState(
                symbol,
                Instrument(symbol, tick_size=tick_size),
                FeatureConfig(tick_size=tick_size),
                unique_seq=self._source.unique_seq,
                snapshots_only=self._source.snapshots_only,
            )
        return state


class _Checker:
    def __init__(self, source: DataSource, silence_ms: float, with_grid: Collection[str]) -> None:
        self.report = DataReport(source.identity.partition(":")[0] or type(source).__name__)
        self.buckets = _Buckets()
        self.marks: dict[str, list[int]] = {}
        self._strides: dict[str, int] = {}
        self._source = source
        self._silence_ns = round(silence_ms * NS_PER_MS)
        self._with_grid = with_grid
        self._unique_seq = source.unique_seq
        self._seen: dict[str, _Seen] = {}
        self._latency = _Sample()
        self._found: dict[str, Finding] = {}

    def find(self, kind: str, ts_ns: int = 0, *, worst: float = 0.0, unit: str = "", reason: str = "") -> None:
        """Count a fault of `kind` at the event last read."""
        finding = self._found.get(kind)
        if finding is None:
            finding = self._found[kind] = Finding(kind, FINDINGS[kind], unit=unit)
        finding.count += 1
        finding.worst = max(finding.worst, worst)
        if reason:
            finding.reasons[reason] = finding.reasons.get(reason, 0) + 1
        if len(finding.places) < _PLACES_KEPT:
            name, position = self._source.place()
            finding.places.append(f"{name}:{position}" if name else str(self.report.events))
        if ts_ns and (finding.count - 1) % self._strides.setdefault(kind, 1) == 0:
            marks = self.marks.setdefault(kind, [])
            marks.append(ts_ns)
            if len(marks) > _MARKS:
                del marks[1::2]
                self._strides[kind] *= 2

    def see(self, event: Any, state: SymbolState) -> None:
        """Look at one event, and let the engine fold it."""
        report = self.report
        report.events += 1
        name = type(event).__struct_config__.tag
        report.kinds[name] = report.kinds.get(name, 0) + 1
        report.symbols[event.symbol] = report.symbols.get(event.symbol, 0) + 1
        seen = self._seen.setdefault(event.symbol, _Seen())
        ts_ns = event.recv_ts_ns or event.exch_ts_ns
        already = self._look_at_times(event, ts_ns, seen)
        self._look_at_repeats(event, ts_ns, seen)
        already |= self._look_at_book(event, ts_ns, state)
        if type(event) is FeedGap:
            self.find("gap", ts_ns, reason=event.reason or "feed_gap")
        try:
            state.observe(event)
        except EventError as error:
            kind = _FINDING_OF_REASON.get(error.reason, "refused")
            if kind not in already:
                self.find(kind, ts_ns, reason=error.reason)
            return
        if state.changed and not isinstance(event, Trade) and state.mid:
            self.buckets.add(ts_ns, state.mid)
            if isinstance(event, (BookDelta, BookTicker)) and state.bid and state.bid == state.ask:
                self.find("locked", ts_ns)

    def _look_at_times(self, event: Any, ts_ns: int, seen: _Seen) -> set[str]:
        """Compare the event's times and sequence number with those before it; return what was found."""
        found: set[str] = set()
        if ts_ns <= 0:
            return found
        report = self.report
        report.first_ts_ns = min(report.first_ts_ns or ts_ns, ts_ns)
        report.last_ts_ns = max(report.last_ts_ns, ts_ns)
        if ts_ns < EARLIEST_NS:
            self.find("early_time", ts_ns)
        if seen.last_ts_ns and ts_ns < seen.last_ts_ns:
            self.find("backwards_time", ts_ns, worst=(seen.last_ts_ns - ts_ns) / NS_PER_MS, unit="ms")
            found.add("backwards_time")
        elif seen.last_ts_ns and self._silence_ns and type(event) is not Bar:
            silence_ns = ts_ns - seen.last_ts_ns
            if silence_ns > self._silence_ns:
                self.find("silence", ts_ns, worst=silence_ns / NS_PER_MS, unit="ms")
        seen.last_ts_ns = max(seen.last_ts_ns, ts_ns)
        if type(event) is Bar:
            self._look_at_bar(ts_ns, seen)
        elif event.recv_ts_ns and event.exch_ts_ns:
            latency_ms = (event.recv_ts_ns - event.exch_ts_ns) / NS_PER_MS
            self._latency.add(latency_ms)
            if latency_ms < 0.0:
                self.find("clock_skew", ts_ns, worst=-latency_ms, unit="ms")
        kind = _KIND_OF.get(type(event), "")
        if event.seq and kind in self._unique_seq:
            if event.seq <= seen.last_seq.get(kind, 0):
                self.find("duplicate_seq", ts_ns)
                found.add("duplicate_seq")
            else:
                seen.last_seq[kind] = event.seq
        return found

    def _look_at_bar(self, ts_ns: int, seen: _Seen) -> None:
        """Find missing bars: the shortest step so far is taken for the length of a bar."""
        step_ns = ts_ns - seen.last_bar_ns
        if seen.bars and step_ns > 0:
            seen.bar_step_ns = min(seen.bar_step_ns or step_ns, step_ns)
            if 2 * step_ns > 3 * seen.bar_step_ns:
                self.find("gap", ts_ns, worst=step_ns / NS_PER_MS, unit="ms", reason="missing_bars")
        seen.bars += 1
        seen.last_bar_ns = max(seen.last_bar_ns, ts_ns)

    def _look_at_repeats(self, event: Any, ts_ns: int, seen: _Seen) -> None:
        last = seen.last.get(type(event))
        # The cheap fields tell nearly all events apart; levels may be arrays, which are compared as lists.
        if (
            last is not None
            and (last.recv_ts_ns, last.exch_ts_ns, last.seq) == (event.recv_ts_ns, event.exch_ts_ns, event.seq)
            and _plain(last) == _plain(event)
        ):
            if type(event) is Trade and not event.seq:
                self.report.trades_alike += 1
            else:
                self.find("repeat", ts_ns)
        seen.last[type(event)] = event

    def _look_at_book(self, event: Any, ts_ns: int, state: SymbolState) -> set[str]:
        """Look at the prices that the event itself states; return what was found."""
        found: set[str] = set()
        if isinstance(event, (BookSnapshot, BookTicker)) and event.bid > 0.0 and event.ask > 0.0:
            if event.bid > event.ask:
                self.find("crossed", ts_ns, worst=event.bid - event.ask, unit="price")
                found.add("crossed")
            elif event.bid == event.ask:
                self.find("locked", ts_ns)
        if event.symbol not in self._with_grid:
            return found
        tick = state.instrument.tick_size
        if _has_book(event):
            if any(is_off_grid(price, tick) for price in _prices(event)):
                self.find("off_grid", ts_ns)
                found.add("off_grid")
        elif isinstance(event, Trade) and is_off_grid(event.price, tick):
            self.report.trades_off_grid += 1
        return found

    def finish(self, ended: str) -> tuple[DataReport, Timeline]:
        self.report.ended = ended
        self.report.latency_ms = self._latency.summary()
        self.report.findings = [self._found[kind] for kind in FINDINGS if kind in self._found]
        buckets = self.buckets
        return self.report, Timeline(buckets.start_ns, buckets.width_ns, buckets.lows, buckets.highs, self.marks)


def check_data(
    source: DataSource,
    *,
    silence_ms: float = 10_000.0,
    instrument: Instrument | None = None,
    steps: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[DataReport, Timeline]:
    """Read a recorded source to its end and report what is wrong with it.

    Parameters
    ----------
    source : DataSource
        Recorded. It is not closed.
    silence_ms : float
        A symbol that says nothing for longer than this is found; 0 is off. Bars are judged by their own step.
    instrument : Instrument, optional
        Gives the grid; default: what the source says. Without either the grid is not judged.
    steps : int, optional
        Look at no more than so many events.
    progress : callable, optional
        Is told the number of events now and then.

    Raises
    ------
    ConfigError
        When the source is live, or `silence_ms` is negative.

    Examples
    --------
    >>> from ami_engine.adapters.table import TableSource
    >>> start = 1_700_000_000_000
    >>> table = {"ts_ms": [start + 5, start + 6, start + 4], "bid": [99.0, 102.0, 99.0], "ask": [101.0, 101.0, 101.0]}
    >>> report, _ = check_data(TableSource(table))
    >>> [(finding.kind, finding.count) for finding in report.findings]
    [('backwards_time', 1), ('crossed', 1)]
    """
    if source.is_live:
        raise ConfigError("`source` must be recorded, was live")
    if not silence_ms >= 0.0:
        raise ConfigError(f"`silence_ms` must be >= 0, was {silence_ms!r}")
    states = _States(source, instrument)
    checker = _Checker(source, silence_ms, states.with_grid)
    reader = SourceReader(source, RetryPolicy(clock.sleep))
    ended = "source_exhausted"
    while steps is None or checker.report.events < steps:
        try:
            event = reader.read()
        except EventError as error:
            checker.find("unreadable", reason=error.reason)
            continue
        except FeedEnd as end:
            ended = end.reason
            break
        if event is None:
            break
        checker.see(event, states.of(event))
        if progress is not None and checker.report.events % _PROGRESS_EVERY == 0:
            progress(checker.report.events)
    else:
        ended = "steps"
    return checker.finish(ended)


def _finest_tick(event: Any) -> float:
    """Return 1e-12 of the size of the event's first price: as fine as a book of doubles can be."""
    prices = [event.price] if isinstance(event, Trade) else _prices(event) if _has_book(event) else []
    price = next((price for price in prices if math.isfinite(price) and price > 0.0), 1.0)
    # Below 1e-14 a book no longer gives back the decimal that it was given.
    return float(10.0 ** max(math.floor(math.log10(price)) - 12, -14))


def _has_book(event: Any) -> bool:
    return isinstance(event, (BookSnapshot, BookTicker, BookDelta))


def _plain(event: Any) -> Any:
    return msgspec.to_builtins(event, enc_hook=lambda levels: levels.tolist())


def _prices(event: Any) -> list[float]:
    """Return the prices of a book event: the best, and those of its levels."""
    levels = [] if isinstance(event, BookTicker) else [level[0] for side in (event.bids, event.asks) for level in side]
    best = [] if isinstance(event, BookDelta) else [event.bid, event.ask]
    return [*best, *levels]
