"""JSON lines: events, faults and where they were read."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ami_engine.adapters.dict_event import event_from_dict
from ami_engine.adapters.jsonl_reader import JsonlReader
from ami_engine.errors import ConfigError, EventError
from ami_engine.events import BookDelta, BookSnapshot, FeedGap, GenericEvent, Trade

MS = 1_000_000
QUOTE = '{"bid":0.49,"ask":0.51,"ts_ms":5}'


def write(folder: Path, *lines: str) -> Path:
    path = folder / "events.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_reads_quotes_trades_and_events_of_other_domains(tmp_path: Path, drain: Callable[..., Any]) -> None:
    path = write(
        tmp_path,
        '{"bid":0.49,"ask":0.51,"bid_depth":5,"ask_depth":7,"symbol":"X","seq":1,"ts_ms":5}',
        '{"bids":[[0.49,5],[0.48,9]],"asks":[[0.51,7]],"symbol":"X","exch_ts_ns":3,"recv_ts_ns":4}',
        '{"price":0.5,"size":2,"aggressor":"SELL","symbol":"X","ts_ns":9}',
        '{"price":0.5,"size":2,"aggressor":1,"symbol":"X","ts_ns":9}',
        '{"value":1,"timestamp_ms":10}',
        "",
        '{"ask":0.51,"ts_ns":11}',
    )
    events, errors = drain(JsonlReader(path))
    assert errors == []
    assert events == [
        BookSnapshot(5 * MS, 5 * MS, "X", 1, 0.49, 0.51, 5.0, 7.0),
        BookSnapshot(3, 4, "X", 0, 0.49, 0.51, 5.0, 7.0, [(0.49, 5.0), (0.48, 9.0)], [(0.51, 7.0)]),
        Trade(9, 9, "X", 0, 0.5, 2.0, -1),
        Trade(9, 9, "X", 0, 0.5, 2.0, 1),
        GenericEvent(10 * MS, 10 * MS, "", 0, {"value": 1, "timestamp_ms": 10}),
        BookSnapshot(11, 11, "", 0, 0.0, 0.51),
    ]


def test_reads_our_own_structs_back(tmp_path: Path, drain: Callable[..., Any]) -> None:
    events = [
        BookSnapshot(1, 2, "X", 3, 99.0, 101.0, 5.0, 7.0, [(99.0, 5.0)], [(101.0, 7.0)]),
        BookDelta(1, 2, "X", 9, 7, 6, [(99.0, 0.0)], [(101.0, 7.0)]),
        Trade(1, 2, "X", 3, 99.0, 1.0, -1),
        FeedGap(1, 2, "X", 3, 2, "halt"),
    ]
    path = write(tmp_path, *(msgspec.json.encode(event).decode() for event in events))
    assert drain(JsonlReader(path)) == (events, [])


def test_reads_gzip(tmp_path: Path, drain: Callable[..., Any]) -> None:
    path = tmp_path / "events.jsonl.gz"
    path.write_bytes(gzip.compress(QUOTE.encode() + b"\n"))
    assert drain(JsonlReader(path))[0] == [BookSnapshot(5 * MS, 5 * MS, "", 0, 0.49, 0.51)]


def test_events_without_time_are_one_ms_apart(tmp_path: Path, drain: Callable[..., Any]) -> None:
    events, _ = drain(JsonlReader(write(tmp_path, *['{"mid":0.5,"bid":0.49,"ask":0.51}'] * 3)))
    assert [event.recv_ts_ns for event in events] == [MS, 2 * MS, 3 * MS]


@pytest.mark.parametrize(
    ("line", "reason", "field"),
    [
        ('{"bid":NaN,"ask":0.51}', "not_finite", "bid"),
        ('{"bid":0.49,"ask":-Infinity}', "not_finite", "ask"),
        ('{"bids":[[0.49,5],[0.48,NaN]],"ask":1}', "not_finite", "bids[1][1]"),
        ('{"value":{"a":[1,Infinity]},"ts_ms":5}', "not_finite", "value.a[1]"),
        ('{"bid":"abc","ask":0.51}', "wrong_type", "bid"),
        ('{"bid":null,"ask":0.51}', "malformed", "bid"),
        ('{"bid":0.49,"bids":[[0.5,1]]}', "price_mismatch", "bid"),
        ('{"price":0.5}', "missing_field", "size"),
        ('{"bid":0.49,"as', "bad_json", ""),
        ("not json", "bad_json", ""),
        ("[1,2]", "wrong_type", ""),
        ('{"bid":0.49,"ask":0.51} {"bid":0.49}', "bad_json", ""),
        ('{"bid":1e999,"ask":0.51}', "not_finite", "bid"),
    ],
)
def test_a_bad_line_is_an_error_with_its_place_and_the_next_line_is_read(
    tmp_path: Path, drain: Callable[..., Any], line: str, reason: str, field: str
) -> None:
    events, errors = drain(JsonlReader(write(tmp_path, QUOTE, line, QUOTE)))
    assert len(events) == 2
    assert [(error.reason, error.field, error.source, error.position) for error in errors] == [
        (reason, field, "events.jsonl", 2)
    ]
    assert str(errors[0]).startswith("events.jsonl:2: ")


def test_a_cut_gzip_is_reported_after_the_lines_before_it(tmp_path: Path, drain: Callable[..., Any]) -> None:
    path = tmp_path / "events.jsonl.gz"
    lines = "".join(f'{{"bid":0.49,"ask":0.51,"ts_ms":{number}}}\n' for number in range(1, 20_001))
    whole = gzip.compress(lines.encode())
    path.write_bytes(whole[: len(whole) // 2])
    events, errors = drain(JsonlReader(path))
    assert len(events) > 1_000
    assert [error.reason for error in errors] == ["truncated"]
    assert errors[0].position == len(events) + 1


def test_only_the_symbol_asked_for_is_read(tmp_path: Path, drain: Callable[..., Any]) -> None:
    lines = [f'{{"bid":{price},"ask":9,"symbol":"{symbol}"}}' for price, symbol in ((1, "X"), (2, "Y"), (3, "X"))]
    events, errors = drain(JsonlReader(write(tmp_path, *lines), symbol="X"))
    assert [event.bid for event in events] == [1.0, 3.0]
    assert errors == []


def test_a_symbol_that_is_not_there_is_not_an_empty_feed(tmp_path: Path, drain: Callable[..., Any]) -> None:
    events, errors = drain(JsonlReader(write(tmp_path, '{"bid":1,"ask":2,"symbol":"X"}'), symbol="Y"))
    assert events == []
    assert [(error.reason, "file holds X" in str(error)) for error in errors] == [("unknown_symbol", True)]


def test_a_line_without_a_symbol_gets_the_one_asked_for(tmp_path: Path, drain: Callable[..., Any]) -> None:
    events, _ = drain(JsonlReader(write(tmp_path, QUOTE, '{"price":1,"size":1}', '{"value":1}'), symbol="X"))
    assert [event.symbol for event in events] == ["X", "X", "X"]


@pytest.mark.parametrize("text", [b"PAR1\x00\x01", b"bid,ask\n1,2\n", b"1723161255030314667 {}\n"])
def test_refuses_a_file_that_holds_no_objects(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=r"events\.jsonl: is not JSON lines"):
        JsonlReader(path)


def test_an_empty_file_is_an_exhausted_source(tmp_path: Path, drain: Callable[..., Any]) -> None:
    path = tmp_path / "events.jsonl"
    path.touch()
    assert drain(JsonlReader(path)) == ([], [])


def test_place_is_the_line_last_read(tmp_path: Path) -> None:
    reader = JsonlReader(write(tmp_path, QUOTE, "", QUOTE))
    reader.next_event()
    assert reader.place() == ("events.jsonl", 1)
    reader.next_event()
    assert reader.place() == ("events.jsonl", 3)
    reader.close()


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    with path.open("w") as file:
        for number in range(1, 200_001):
            file.write(f'{{"bid":0.49,"ask":0.51,"ts_ms":{number}}}\n')
    reader = JsonlReader(path)
    tracemalloc.start()
    count = 0
    while reader.next_event() is not None:
        count += 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 200_000
    assert peak < 2 << 20


NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**60), 2**60)
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS).map(list), max_size=3)
TIMES = st.integers(1, 10**12)
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("bid", "ask", "bid_depth", "ask_depth", "price", "size", "mid"), NUMBERS | st.just("1.5")),
        **dict.fromkeys(("bids", "asks"), PAIRS),
        **dict.fromkeys(("ts_ns", "ts_ms", "timestamp_ms", "exch_ts_ns", "recv_ts_ns"), TIMES),
        "aggressor": st.sampled_from([1, -1, 0, 2, "BUY"]),
        "seq": st.integers(0, 2**62),
        "symbol": st.text(max_size=4),
        "type": st.sampled_from(["book_snapshot", "trade", "bar", "book_delta", "sensor"]),
        "value": NUMBERS,
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(st.lists(EVENTS, min_size=1, max_size=5))
def test_the_fast_path_and_the_dict_path_agree(tmp_path: Path, mappings: list[dict[str, Any]]) -> None:
    reader = JsonlReader(write(tmp_path, *(json.dumps(mapping) for mapping in mappings)))
    accepted = 0
    for mapping in mappings:
        expected = outcome(lambda m=mapping, n=accepted: event_from_dict(m, fallback_ts_ns=(n + 1) * MS))  # type: ignore[misc]
        assert outcome(reader.next_event) == expected
        accepted += not isinstance(expected, tuple)
    assert reader.next_event() is None


def outcome(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except EventError as error:
        return error.reason, error.field
