"""Every finding of a data check, each on a recording in which it was planted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from ami_engine.adapters.base import DataSource
from ami_engine.adapters.open_source import open_source
from ami_engine.errors import ConfigError, EventError
from ami_engine.events import Bar, BookDelta, BookSnapshot, BookTicker, FeedGap, Trade
from ami_engine.loop.data_check import FINDINGS, DataReport, check_data
from ami_engine.units import NS_PER_MS, Instrument

T0 = 1_700_000_000_000_000_000
GRID = Instrument("X", tick_size=0.5)


class Recording(DataSource):
    """Events from a list; an exception in it is raised."""

    unique_seq = frozenset({"trade"})

    def __init__(self, events: Sequence[Any]) -> None:
        self._events = list(events)
        self._position = 0

    def next_event(self) -> Any:
        if self._position == len(self._events):
            return None
        self._position += 1
        event = self._events[self._position - 1]
        if isinstance(event, Exception):
            raise event
        return event

    def place(self) -> tuple[str, int]:
        return "planted", self._position


def quote(ms: int, bid: float = 99.0, ask: float = 101.0, late_ms: int = 1) -> BookSnapshot:
    ts_ns = T0 + ms * NS_PER_MS
    return BookSnapshot(ts_ns - late_ms * NS_PER_MS, ts_ns, "X", 0, bid, ask, 1.0, 1.0)


def image(ms: int) -> BookSnapshot:
    ts_ns = T0 + ms * NS_PER_MS
    return BookSnapshot(ts_ns, ts_ns, "X", 5, 99.0, 101.0, 1.0, 1.0, [(99.0, 1.0)], [(101.0, 1.0)])


def delta(ms: int, bids: list[tuple[float, float]], seq: int, prev_seq: int) -> BookDelta:
    return BookDelta(T0 + ms * NS_PER_MS, T0 + ms * NS_PER_MS, "X", seq, seq, prev_seq, bids, [])


def trade(ms: int, seq: int, price: float = 100.0) -> Trade:
    return Trade(T0 + ms * NS_PER_MS, T0 + ms * NS_PER_MS, "X", seq, price, 1.0, 1)


def bar(minute: int) -> Bar:
    ts_ns = T0 + minute * 60_000 * NS_PER_MS
    return Bar(ts_ns, ts_ns, "X", 0, 100.0, 101.0, 99.0, 100.5, 3.0)


CLEAN = [quote(0), quote(10, 98.5), trade(11, 1), quote(20, 98.0), trade(21, 2)]

PLANTED: dict[str, tuple[list[Any], int, float]] = {
    "unreadable": ([quote(0), EventError("`bid` must be a number", field="bid"), quote(10)], 1, 0.0),
    "backwards_time": ([quote(0), quote(40), quote(15), quote(50)], 1, 25.0),
    "duplicate_seq": ([trade(0, 7), trade(1, 8), trade(2, 8), trade(3, 9)], 1, 0.0),
    "early_time": ([structs.replace(quote(0), recv_ts_ns=T0 // 1_000, exch_ts_ns=0)], 1, 0.0),
    "gap": ([quote(0), FeedGap(T0, T0 + NS_PER_MS, "X", 0, 0, "reconnect"), quote(10)], 1, 0.0),
    "silence": ([quote(0), quote(10), quote(30_010), quote(30_020)], 1, 30_000.0),
    "crossed": ([quote(0), quote(10, 103.0), quote(20)], 1, 2.0),
    "locked": ([quote(0), quote(10, 101.0), quote(20)], 1, 0.0),
    "off_grid": ([quote(0), quote(10, 98.75), quote(20)], 1, 0.0),
    "repeat": ([quote(0), quote(10), quote(10), quote(20)], 1, 0.0),
    "clock_skew": ([quote(0), quote(10, late_ms=-3), quote(20)], 1, 3.0),
    "refused": ([quote(0), quote(10, bid=-4.0), quote(20)], 1, 0.0),
}


def check(events: Sequence[Any], **options: Any) -> DataReport:
    return check_data(Recording(events), instrument=GRID, **options)[0]


def test_a_clean_recording_has_nothing() -> None:
    report = check(CLEAN)
    assert (report.is_clean, report.events, report.kinds) == (True, 5, {"book_snapshot": 3, "trade": 2})
    assert report.symbols == {"X": 5}
    assert (report.first_ts_ns, report.last_ts_ns) == (T0, T0 + 21 * NS_PER_MS)
    assert report.latency_ms == {"min": 0.0, "median": 1.0, "max": 1.0}
    assert report.ended == "source_exhausted"


def test_every_finding_has_a_planted_recording() -> None:
    assert set(PLANTED) == set(FINDINGS)


@pytest.mark.parametrize("kind", PLANTED)
def test_what_was_planted_is_found_and_nothing_else(kind: str) -> None:
    events, count, worst = PLANTED[kind]
    report = check(events)
    assert [(found.kind, found.count, found.worst) for found in report.findings] == [(kind, count, worst)]
    assert report.findings[0].places[0].startswith("planted:")
    assert report.findings[0].meaning == FINDINGS[kind]


def test_gaps_of_a_sequence_and_of_bars_are_found() -> None:
    lost = [image(0), delta(1, [(98.0, 1.0)], 6, 5), delta(2, [(97.0, 1.0)], 9, 8)]
    assert [(found.kind, found.reasons) for found in check(lost).findings] == [("gap", {"sequence_gap": 1})]
    bars = [bar(0), bar(1), bar(2), bar(5), bar(6)]
    (gap,) = check(bars).findings
    assert (gap.kind, gap.count, gap.worst, gap.reasons) == ("gap", 1, 180_000.0, {"missing_bars": 1})


def test_a_book_that_deltas_cross_or_lock_is_found() -> None:
    crossing = [image(0), delta(1, [(102.0, 1.0)], 6, 5)]
    assert [(found.kind, found.count) for found in check(crossing).findings] == [("crossed", 1)]
    locking = [image(0), delta(1, [(101.0, 1.0)], 6, 5)]
    assert [(found.kind, found.count) for found in check(locking).findings] == [("locked", 1)]
    ticker = [image(0), BookTicker(T0, T0 + NS_PER_MS, "X", 6, 101.0, 101.0, 1.0, 1.0)]
    assert {found.kind for found in check(ticker).findings} == {"locked"}


def test_trades_off_the_grid_and_alike_are_counted_and_no_fault() -> None:
    report = check([quote(0), trade(1, 0, 100.25), trade(1, 0, 100.25)])
    assert (report.is_clean, report.trades_off_grid, report.trades_alike) == (True, 2, 1)


def test_the_grid_is_not_judged_where_nobody_declared_it() -> None:
    assert check_data(Recording([quote(0, 98.123)]))[0].is_clean


@pytest.mark.parametrize("scale", [1e-7, 1.0, 1.5e8])
def test_books_of_any_scale_are_rebuilt_where_no_tick_is_known(scale: float) -> None:
    book = [image(0), delta(1, [(98.25, 1.0)], 6, 5), delta(2, [(97.123, 1.0)], 7, 6)]

    def moved(price: float) -> float:
        return float(f"{price * scale:.12g}")  # a decimal, as feeds have them

    scaled = [
        structs.replace(
            event,
            bids=[(moved(price), size) for price, size in event.bids],
            asks=[(moved(price), size) for price, size in event.asks],
            **({"bid": moved(event.bid), "ask": moved(event.ask)} if isinstance(event, BookSnapshot) else {}),
        )
        for event in book
    ]
    assert check_data(Recording(scaled))[0].is_clean


def test_a_symbol_whose_tick_is_not_declared_is_not_judged_by_the_tick_of_another() -> None:
    other = structs.replace(quote(1, 98.123), symbol="Y")
    source = Recording([quote(0), other, quote(2, 98.75)])
    source.instruments = lambda: {"X": GRID}  # type: ignore[method-assign]
    assert [(found.kind, found.count) for found in check_data(source)[0].findings] == [("off_grid", 1)]


def test_places_are_bounded_and_counts_are_not() -> None:
    report, timeline = check_data(Recording([quote(ms, 103.0) for ms in range(500)]), instrument=GRID)
    (crossed,) = report.findings
    marks = timeline.marks["crossed"]
    assert (crossed.count, len(crossed.places)) == (500, 3)
    assert 200 <= len(marks) <= 400
    assert {after - before for before, after in pairwise(marks)} == {2_000_000}  # every second, to the end
    assert marks[-1] - marks[0] > 490_000_000


def test_a_long_recording_keeps_its_extremes_in_bounded_memory() -> None:
    events = [quote(100 * ms, 99.0 + (5.0 if ms == 7_000 else 0.5 * (ms % 3)), 105.0) for ms in range(20_000)]
    report, timeline = check_data(Recording(events), instrument=GRID)
    assert report.is_clean
    assert len(timeline.lows) == len(timeline.highs) <= 1_024
    finite = [high for high in timeline.highs if high > 0]
    assert (max(finite), min(low for low in timeline.lows if low > 0)) == (104.5, 102.0)


def test_steps_bound_the_check_and_a_live_source_is_refused() -> None:
    report = check(CLEAN, steps=2)
    assert (report.events, report.ended) == (2, "steps")
    source = Recording(CLEAN)
    source.is_live = True
    with pytest.raises(ConfigError, match="`source` must be recorded"):
        check_data(source)
    with pytest.raises(ConfigError, match="`silence_ms` must be >= 0, was -1"):
        check(CLEAN, silence_ms=-1)


RECORDED: list[tuple[str, dict[str, Any], set[str]]] = [
    (
        "lobster-aapl-20120621-book10.csv,lobster-aapl-20120621-msg10.csv",
        {"date": "2012-06-21", "tick_size": 0.01},
        {"repeat"},
    ),
    ("binance-usdm-btcusdt-20240808.feed.gz", {"format": "binance", "tick_size": 0.1}, {"clock_skew"}),
    ("binance-spot-btcusdt-20240808.feed.gz", {"format": "binance", "tick_size": 0.01}, {"clock_skew"}),
    ("binance-coinm-btcusd_perp-20240808.feed.gz", {"format": "binance", "tick_size": 0.1}, {"clock_skew"}),
    ("nautilus-esh4-20231225.mbo.dbn.zst", {"tick_size": 0.25}, {"crossed", "repeat", "silence"}),
    ("nautilus-esu4-20240701.mbp-1.dbn.zst", {"tick_size": 0.25}, set()),
    ("nautilus-esu4-20240701.trades.dbn.zst", {"tick_size": 0.25}, {"silence"}),
    ("tardis-binance-futures-btcusdt-20200901-snapshot5.csv", {"format": "tardis", "tick_size": 0.01}, set()),
    ("tardis-binance-futures-btcusdt-20200901-snapshot25.csv", {"format": "tardis", "tick_size": 0.01}, set()),
    ("tardis-bitmex-xbtusd-20200301-trades.csv", {"format": "tardis", "tick_size": 0.5}, set()),
    ("tardis-deribit-btc-perpetual-20200401-l2.csv", {"format": "tardis", "tick_size": 0.5}, set()),
    ("tardis-huobi-btc-usd-20200501-quotes.csv", {"format": "tardis", "tick_size": 0.1}, set()),
]


@pytest.mark.parametrize(("name", "options", "expected"), RECORDED, ids=[name for name, _, _ in RECORDED])
def test_recorded_feeds_have_what_is_known_of_them(
    data_dir: Path, name: str, options: dict[str, Any], expected: set[str]
) -> None:
    if "dbn" in name:
        pytest.importorskip("databento_dbn")
    path = ",".join(str(data_dir / part) for part in name.split(","))
    source = open_source(path, **options)
    try:
        report, _ = check_data(source)
    finally:
        source.close()
    assert report.events > 0
    assert {found.kind for found in report.findings} == expected


def test_the_crossed_books_of_an_auction_are_all_counted(data_dir: Path) -> None:
    pytest.importorskip("databento_dbn")
    source = open_source(data_dir / "nautilus-esh4-20231225.mbo.dbn.zst", tick_size=0.25)
    report, _ = check_data(source)
    source.close()
    assert {found.kind: found.count for found in report.findings}["crossed"] == 891
