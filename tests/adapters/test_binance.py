"""Raw Binance captures: three markets, one reader, and the venue's procedure for seeding a book."""

from __future__ import annotations

import gzip
import itertools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ami_engine.adapters import binance
from ami_engine.adapters.binance import BinanceReader
from ami_engine.book import OrderBook
from ami_engine.errors import ConfigError
from ami_engine.events import BookDelta, BookSnapshot, BookTicker, FeedGap, Trade

MS = 1_000_000
# Counts of PROVENANCE.md: lines of each kind, and deltas that are older than the snapshot.
CAPTURES = {
    "usdm-btcusdt": {
        "ticker": 66_089,
        "trade": 21_313,
        "depth": 6_551,
        "applied": 6_547,
        "inside": 11_719,
        "tick": 0.1,
    },
    "spot-btcusdt": {"ticker": 28_040, "trade": 9_757, "depth": 3_451, "applied": 3_449, "inside": 4_938, "tick": 0.01},
    "coinm-btcusd_perp": {
        "ticker": 19_136,
        "trade": 2_286,
        "depth": 26_847,
        "applied": 26_824,
        "inside": None,
        "tick": 0.1,
    },
}


def capture(folder: Path, name: str) -> Path:
    return folder / f"binance-{name}-20240808.feed.gz"


def stream(name: str, data: dict[str, Any], at: int) -> str:
    return f"{at} " + json.dumps({"stream": name, "data": data}, separators=(",", ":"))


def spot_depth(first: int, last: int, at: int, symbol: str = "BTCUSDT") -> str:
    data = {"e": "depthUpdate", "E": 5, "s": symbol, "U": first, "u": last, "b": [["99.5", "1.5"]], "a": []}
    return stream("btcusdt@depth@100ms", data, at)


def futures_depth(first: int, last: int, before: int, at: int) -> str:
    data = {"e": "depthUpdate", "E": 6, "T": 5, "s": "BTCUSDT", "U": first, "u": last, "pu": before}
    return stream("btcusdt@depth@0ms", {**data, "b": [["99.5", "1.5"]], "a": [["101", "0"]]}, at)


def snapshot(last: int, at: int, **more: Any) -> str:
    levels = {"bids": [["99.5", "2"], ["99.0", "3"]], "asks": [["100.5", "4"]]}
    return f"{at} " + json.dumps({"lastUpdateId": last, **more, **levels}, separators=(",", ":"))


def ticker(update: int, at: int) -> str:
    data = {"u": update, "s": "BTCUSDT", "b": "99.5", "B": "1", "a": "100.5", "A": "2"}
    return stream("btcusdt@bookTicker", data, at)


def trade(number: int, at: int, *, buyer_is_maker: bool = False) -> str:
    data = {"e": "trade", "E": 8, "T": 7, "s": "BTCUSDT", "t": number, "p": "99.75", "q": "0.5", "m": buyer_is_maker}
    return stream("btcusdt@trade", data, at)


def write(folder: Path, *lines: str) -> Path:
    path = folder / "capture.log"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module", params=CAPTURES)
def read_capture(request: pytest.FixtureRequest, data_dir: Path, drain: Callable[..., Any]) -> Any:
    reader = BinanceReader(capture(data_dir, request.param))
    events, errors = drain(reader)
    assert errors == []
    return reader, events, CAPTURES[request.param]


def test_counts_of_the_recorded_captures(read_capture: Any) -> None:
    reader, events, facts = read_capture
    counts = Counter(type(event) for event in events)
    assert counts == {BookTicker: facts["ticker"], Trade: facts["trade"], BookDelta: facts["applied"], BookSnapshot: 1}
    assert reader.dropped_deltas == facts["depth"] - facts["applied"]


def test_reality_4_deltas_from_before_the_snapshot_follow_it_and_time_never_goes_back(read_capture: Any) -> None:
    _, events, _ = read_capture
    times = [event.recv_ts_ns for event in events]
    assert times == sorted(times)
    place = next(place for place, event in enumerate(events) if isinstance(event, BookSnapshot))
    assert not any(isinstance(event, BookDelta) for event in events[:place])
    assert isinstance(events[place + 1], BookDelta)
    assert events[place + 1].recv_ts_ns == events[place].recv_ts_ns
    assert (len(events[place].bids), len(events[place].asks)) == (1_000, 1_000)


def test_the_chain_of_update_ids_is_unbroken(read_capture: Any) -> None:
    _, events, _ = read_capture
    book = next(event for event in events if isinstance(event, BookSnapshot))
    deltas = [event for event in events if isinstance(event, BookDelta)]
    assert deltas[0].first_seq <= book.seq + 1
    assert deltas[0].seq >= book.seq
    assert all(later.prev_seq == earlier.seq for earlier, later in itertools.pairwise(deltas))


def test_the_book_applies_every_delta_and_is_never_crossed(read_capture: Any) -> None:
    _, events, facts = read_capture
    book = OrderBook(facts["tick"])
    for event in events:
        if isinstance(event, BookSnapshot):
            book.apply_snapshot(event.bids, event.asks, event.seq)
        elif isinstance(event, BookDelta):
            book.apply_delta(event.bids, event.asks, event.seq, event.first_seq, event.prev_seq)
            assert not book.is_crossed
    assert book.is_ready


def test_reality_1_exchange_time_is_ahead_of_local_time(read_capture: Any) -> None:
    _, events, _ = read_capture
    latencies = [event.recv_ts_ns - event.exch_ts_ns for event in events if isinstance(event, Trade)]
    assert -1_280 * MS < min(latencies) <= max(latencies) < -1_000 * MS


def test_reality_2_many_events_share_one_timestamp(read_capture: Any) -> None:
    _, events, _ = read_capture
    trades = [event for event in events if isinstance(event, Trade)]
    repeats = sum(a.exch_ts_ns == b.exch_ts_ns for a, b in itertools.pairwise(trades))
    assert repeats > len(trades) / 2
    assert len({event.seq for event in trades}) == len(trades)


def test_reality_3_trades_print_outside_the_latest_quote_and_are_passed_on(read_capture: Any) -> None:
    _, events, facts = read_capture
    bid, ask, inside = 0.0, float("inf"), 0
    for event in events:
        if isinstance(event, BookTicker):
            bid, ask = event.bid, event.ask
        elif isinstance(event, Trade):
            inside += bid <= event.price <= ask
    assert inside == (facts["inside"] or inside) < facts["trade"]


def test_reality_5_spot_tickers_have_no_exchange_time(data_dir: Path) -> None:
    for name, has_time in (("spot-btcusdt", False), ("usdm-btcusdt", True), ("coinm-btcusd_perp", True)):
        reader = BinanceReader(capture(data_dir, name))
        event = next(event for event in iter(reader.next_event, None) if isinstance(event, BookTicker))
        reader.close()
        assert (event.exch_ts_ns > 0) == has_time


def test_markets_are_told_apart_by_content_and_not_by_name(
    data_dir: Path, tmp_path: Path, drain: Callable[..., Any]
) -> None:
    found = {}
    for name in CAPTURES:
        lines = gzip.decompress(capture(data_dir, name).read_bytes()).splitlines(keepends=True)[:100]
        path = tmp_path / "capture"
        path.write_bytes(b"".join(lines))
        reader = BinanceReader(path)
        drain(reader)
        found[name] = reader.venues
    assert found == {
        "usdm-btcusdt": {"BTCUSDT": "usdm"},
        "spot-btcusdt": {"BTCUSDT": "spot"},
        "coinm-btcusd_perp": {"BTCUSD_PERP": "coinm"},
    }


def test_a_message_of_each_kind(tmp_path: Path, drain: Callable[..., Any]) -> None:
    path = write(
        tmp_path,
        ticker(9, 1),
        trade(77, 2),
        trade(78, 3, buyer_is_maker=True),
        snapshot(10, 4, T=2, E=3),
        futures_depth(9, 12, 8, 5),
    )
    events, errors = drain(BinanceReader(path))
    assert errors == []
    assert events == [
        BookTicker(0, 1, "BTCUSDT", 9, 99.5, 100.5, 1.0, 2.0),
        Trade(7 * MS, 2, "BTCUSDT", 77, 99.75, 0.5, 1),
        Trade(7 * MS, 3, "BTCUSDT", 78, 99.75, 0.5, -1),
        BookSnapshot(2 * MS, 4, "BTCUSDT", 10, 99.5, 100.5, 2.0, 4.0, [(99.5, 2.0), (99.0, 3.0)], [(100.5, 4.0)]),
        BookDelta(5 * MS, 5, "BTCUSDT", 12, 9, 8, [(99.5, 1.5)], [(101.0, 0.0)]),
    ]


def test_messages_of_single_streams_have_no_envelope(tmp_path: Path, drain: Callable[..., Any]) -> None:
    combined = [ticker(9, 1), trade(77, 2), snapshot(10, 4), spot_depth(11, 12, 5)]
    bare = [
        line if '"data":' not in line else line.split(" ")[0] + " " + line.split('"data":')[1][:-1] for line in combined
    ]
    expected = drain(BinanceReader(write(tmp_path, *combined)))
    assert drain(BinanceReader(write(tmp_path, '0 {"result":null,"id":1}', *bare))) == expected
    assert len(expected[0]) == 4


def test_spot_drops_deltas_up_to_the_snapshot(tmp_path: Path, drain: Callable[..., Any]) -> None:
    path = write(
        tmp_path, spot_depth(1, 9, 1), spot_depth(10, 10, 2), spot_depth(11, 13, 3), ticker(9, 4), snapshot(10, 5)
    )
    reader = BinanceReader(path)
    events, _ = drain(reader)
    assert [(type(event), event.seq, event.recv_ts_ns) for event in events] == [
        (BookTicker, 9, 4),
        (BookSnapshot, 10, 5),
        (BookDelta, 13, 5),
    ]
    assert (events[2].first_seq, events[2].prev_seq, reader.dropped_deltas) == (11, 10, 2)


def test_futures_keep_the_delta_that_ends_at_the_snapshot(tmp_path: Path, drain: Callable[..., Any]) -> None:
    path = write(
        tmp_path, futures_depth(1, 9, 0, 1), futures_depth(10, 10, 9, 2), futures_depth(11, 13, 10, 3), snapshot(10, 5)
    )
    reader = BinanceReader(path)
    events, _ = drain(reader)
    assert [event.seq for event in events] == [10, 10, 13]
    assert reader.dropped_deltas == 1


def test_a_second_snapshot_is_a_resync(tmp_path: Path, drain: Callable[..., Any]) -> None:
    path = write(tmp_path, snapshot(10, 1), spot_depth(11, 12, 2), snapshot(20, 3), spot_depth(21, 22, 4))
    events, errors = drain(BinanceReader(path, symbol="BTCUSDT"))
    assert [(type(event), event.seq) for event in events] == [
        (BookSnapshot, 10),
        (BookDelta, 12),
        (BookSnapshot, 20),
        (BookDelta, 22),
    ]
    assert errors == []


def test_reality_5_a_capture_without_a_snapshot_emits_no_deltas_and_says_so_at_the_end(
    tmp_path: Path, drain: Callable[..., Any]
) -> None:
    events, errors = drain(BinanceReader(write(tmp_path, spot_depth(1, 2, 1), trade(1, 2), spot_depth(3, 4, 3))))
    assert [type(event) for event in events] == [Trade]
    assert [(error.reason, error.position) for error in errors] == [("no_snapshot", 3)]
    assert "2 of BTCUSDT" in str(errors[0])


def test_held_deltas_are_bounded_and_the_overflow_is_a_gap(
    tmp_path: Path, drain: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binance, "MAX_HELD_DELTAS", 3)
    deltas = [spot_depth(number, number, number) for number in range(1, 8)]
    events, errors = drain(BinanceReader(write(tmp_path, *deltas, snapshot(5, 9))))
    assert errors == []
    assert [(type(event), event.seq) for event in events] == [
        (FeedGap, 4),
        (BookSnapshot, 5),
        (BookDelta, 6),
        (BookDelta, 7),
    ]


@pytest.mark.parametrize(
    ("line", "reason", "field"),
    [
        (ticker(9, 1)[:-20], "bad_json", ""),
        (ticker(9, 1).replace('"99.5"', "NaN"), "not_finite", "data.b"),
        (ticker(9, 1).replace('"99.5"', '"NaN"'), "not_finite", "b"),
        (trade(9, 1).replace('"0.5"', '"inf"'), "not_finite", "q"),
        (ticker(9, 1).replace('"99.5"', '"abc"'), "wrong_type", "data.b"),
        (ticker(9, 1).replace('"b":"99.5",', ""), "missing_field", "b"),
        (trade(9, 1).replace('"m":false', '"m":3'), "wrong_type", "data.m"),
        (spot_depth(1, 2, 1).replace('"1.5"', '"x"'), "wrong_type", "data.b[0][1]"),
        (spot_depth(1, 2, 1).replace(',"1.5"', ""), "wrong_type", "data.b[0]"),
        (snapshot(1, 2).replace('"3"', "null"), "wrong_type", "bids[1][1]"),
        ("x" + ticker(9, 1), "bad_columns", "recv_ts_ns"),
        (ticker(9, 1).split(" ")[1], "bad_columns", "recv_ts_ns"),
        (stream("btcusdt@markPrice", {"p": "1"}, 1), "unknown_kind", "stream"),
        (stream("btcusdt@ticker", {"p": "1"}, 1), "unknown_kind", "stream"),
        ('1 {"e":"kline"}', "unknown_kind", "e"),
        ("1 nonsense", "bad_json", ""),
        ("1 [1]", "wrong_type", ""),
    ],
)
def test_a_bad_line_is_an_error_with_its_place_and_the_next_line_is_read(
    tmp_path: Path, drain: Callable[..., Any], line: str, reason: str, field: str
) -> None:
    events, errors = drain(BinanceReader(write(tmp_path, trade(1, 1), line, trade(2, 3))))
    assert [event.seq for event in events] == [1, 2]
    assert [(error.reason, error.field, error.source, error.position) for error in errors] == [
        (reason, field, "capture.log", 2)
    ]


def test_a_cut_capture_ends_with_one_error(data_dir: Path, tmp_path: Path, drain: Callable[..., Any]) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(capture(data_dir, "spot-btcusdt").read_bytes()[:300_000])
    events, errors = drain(BinanceReader(path))
    assert len(events) > 5_000
    assert [(error.reason, error.source) for error in errors] == [("truncated", "cut.gz")]


def test_several_symbols_have_a_seed_each(tmp_path: Path, drain: Callable[..., Any]) -> None:
    lines = [spot_depth(1, 2, 1), spot_depth(5, 6, 2, "ETHUSDT"), snapshot(5, 3, symbol="ETHUSDT"), spot_depth(3, 4, 4)]
    events, errors = drain(BinanceReader(write(tmp_path, *lines)))
    assert [(event.symbol, event.seq) for event in events] == [("ETHUSDT", 5), ("ETHUSDT", 6)]
    assert [error.reason for error in errors] == ["no_snapshot"]


def test_a_snapshot_without_a_name_is_refused_where_it_could_be_anyones(
    tmp_path: Path, drain: Callable[..., Any]
) -> None:
    path = write(tmp_path, spot_depth(1, 2, 1), spot_depth(5, 6, 2, "ETHUSDT"), snapshot(2, 3))
    _, errors = drain(BinanceReader(path))
    assert [(error.reason, error.field) for error in errors] == [
        ("missing_field", "symbol"),
        ("no_snapshot", "lastUpdateId"),
    ]
    events, errors = drain(BinanceReader(path, symbol="BTCUSDT"))
    assert [(event.symbol, event.seq) for event in events] == [("BTCUSDT", 2)]
    assert errors == []


@pytest.mark.parametrize("text", [b"hello\nworld\n", b'{"bid":1}\n', b"1,2,3\n"])
def test_refuses_what_is_no_capture(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=r"x\.log: is not a raw Binance capture"):
        BinanceReader(path)


def test_ids_of_tickers_and_trades_are_unique(tmp_path: Path) -> None:
    reader = BinanceReader(write(tmp_path, ticker(1, 1)))
    assert reader.unique_seq == {"ticker", "trade"}
    reader.close()
