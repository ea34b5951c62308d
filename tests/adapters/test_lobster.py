"""LOBSTER pairs: ask first, prices × 10000, seconds after midnight in New York."""

from __future__ import annotations

import gzip
import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ami_engine.adapters.lobster import LobsterReader, new_york_midnight_ns
from ami_engine.errors import ConfigError
from ami_engine.events import BookSnapshot, FeedGap, Trade

S = 1_000_000_000
MIDNIGHT = 1340251200 * S  # 2012-06-21 00:00 EDT
BOOK = "5859400,200,5853300,18,5859800,100,5853000,150"
SUBMIT = "34200.004241176,1,16113575,18,5853300,1"


def write(folder: Path, books: list[str], messages: list[str]) -> tuple[Path, Path]:
    paths = folder / "book.csv", folder / "messages.csv"
    for path, lines in zip(paths, (books, messages), strict=True):
        path.write_text("".join(line + "\n" for line in lines))
    return paths


def open_pair(folder: Path, books: list[str], messages: list[str]) -> LobsterReader:
    return LobsterReader(*write(folder, books, messages), date="2012-06-21", symbol="AAPL")


@pytest.fixture(scope="module")
def recorded(data_dir: Path, drain: Callable[..., Any]) -> list[Any]:
    names = data_dir / "lobster-aapl-20120621-book10.csv", data_dir / "lobster-aapl-20120621-msg10.csv"
    events, errors = drain(LobsterReader(*names, date="2012-06-21", symbol="AAPL"))
    assert errors == []
    return events  # type: ignore[no-any-return]


def test_counts_of_the_recorded_pair(recorded: list[Any]) -> None:
    assert Counter(type(event) for event in recorded) == {BookSnapshot: 999, Trade: 98 + 61}


def test_reality_10_the_first_row_is_ask_first_in_ten_thousandths(recorded: list[Any]) -> None:
    first = recorded[0]
    assert (first.bid, first.bid_depth, first.ask, first.ask_depth) == (585.33, 18.0, 585.94, 200.0)
    assert first.bids[:3] == [(585.33, 18.0), (585.30, 150.0), (585.10, 5.0)]
    assert first.asks[:3] == [(585.94, 200.0), (585.98, 200.0), (586.10, 200.0)]
    assert (len(first.bids), len(first.asks), first.symbol) == (10, 10, "AAPL")


def test_stamps_are_exact_nanoseconds_of_the_new_york_day(recorded: list[Any]) -> None:
    books = [event for event in recorded if isinstance(event, BookSnapshot)]
    assert books[0].recv_ts_ns == books[0].exch_ts_ns == MIDNIGHT + 34200_004241176
    assert books[1].recv_ts_ns == MIDNIGHT + 34200_004260640
    assert books[-1].recv_ts_ns == MIDNIGHT + 34249_086375027


def test_reality_2_rows_share_timestamps(recorded: list[Any]) -> None:
    times = [event.recv_ts_ns for event in recorded if isinstance(event, BookSnapshot)]
    assert times == sorted(times)
    assert sum(a == b for a, b in itertools.pairwise(times)) == 109


def test_reality_8_rows_whose_book_does_not_change_are_still_events(recorded: list[Any]) -> None:
    books = [(event.bids, event.asks) for event in recorded if isinstance(event, BookSnapshot)]
    assert sum(a == b for a, b in itertools.pairwise(books)) == 61
    spreads = [round((event.ask - event.bid) * 100) for event in recorded if isinstance(event, BookSnapshot)]
    assert (min(spreads), max(spreads)) == (1, 61)


def test_a_trade_stands_before_the_book_after_it(recorded: list[Any]) -> None:
    for place, event in enumerate(recorded):
        if isinstance(event, Trade):
            assert isinstance(recorded[place + 1], BookSnapshot)
            assert recorded[place + 1].recv_ts_ns == event.recv_ts_ns


@pytest.mark.parametrize(
    ("date", "utc_hour"), [("2012-06-21", 4), ("2012-01-10", 5), ("2024-03-11", 4), ("2024-11-04", 5)]
)
def test_midnight_in_new_york_knows_daylight_saving(date: str, utc_hour: int) -> None:
    assert new_york_midnight_ns(date) // S % 86_400 == utc_hour * 3_600


@pytest.mark.parametrize(
    ("message", "aggressor"),
    [
        ("34200.5,4,7,30,5859400,-1", 1),
        ("34200.5,4,7,30,5853300,1", -1),
        ("34200.5,5,0,30,5855000,-1", 1),
        ("34200.5,6,-1,30,5855000,-1", 0),
    ],
)
def test_executions_are_trades_by_the_side_that_was_hit(
    tmp_path: Path, drain: Callable[..., Any], message: str, aggressor: int
) -> None:
    (trade, book), errors = drain(open_pair(tmp_path, [BOOK], [message]))
    at = MIDNIGHT + 34200_500000000
    assert errors == []
    assert trade == Trade(at, at, "AAPL", 0, int(message.split(",")[4]) / 10_000, 30.0, aggressor)
    assert book == BookSnapshot(
        at,
        at,
        "AAPL",
        0,
        585.33,
        585.94,
        18.0,
        200.0,
        [(585.33, 18.0), (585.30, 150.0)],
        [(585.94, 200.0), (585.98, 100.0)],
    )


def test_reality_7_empty_levels_are_missing(tmp_path: Path, drain: Callable[..., Any]) -> None:
    rows = [
        "5859400,200,5853300,18,9999999999,0,-9999999999,0",
        "9999999999,0,5853300,18,9999999999,0,5853000,150",
        "5859400,200,-9999999999,0,5859800,100,-9999999999,0",
    ]
    events, _ = drain(open_pair(tmp_path, rows, [SUBMIT] * 3))
    assert [(event.bid, event.ask, len(event.bids), len(event.asks)) for event in events] == [
        (585.33, 585.94, 1, 1),
        (585.33, 0.0, 2, 0),
        (0.0, 585.94, 0, 2),
    ]


def test_a_halt_is_a_gap_until_trading_resumes(tmp_path: Path, drain: Callable[..., Any]) -> None:
    messages = [
        SUBMIT,
        "34201,7,0,0,-1,-1",
        "34202,7,0,0,0,-1",
        "34203,1,9,5,5853300,1",
        "34204,7,0,0,1,-1",
        "34205,3,9,5,5853300,1",
    ]
    events, errors = drain(open_pair(tmp_path, [BOOK] * 6, messages))
    assert errors == []
    assert [type(event) for event in events] == [BookSnapshot, FeedGap, FeedGap, FeedGap, BookSnapshot, BookSnapshot]
    assert {event.reason for event in events[1:4]} == {"halt"}


@pytest.mark.parametrize(
    ("book", "message", "source", "reason", "field"),
    [
        (BOOK + ",1", SUBMIT, "book.csv", "bad_columns", ""),
        (BOOK[:-4], SUBMIT.replace("1,161", "1,1,161"), "messages.csv", "bad_columns", ""),
        (BOOK.replace("5859800", "abc"), SUBMIT, "book.csv", "wrong_type", "ask_price_2"),
        (BOOK.replace("150", "NaN"), SUBMIT, "book.csv", "not_finite", "bid_size_2"),
        (BOOK, SUBMIT.replace("34200.004241176", "nan"), "messages.csv", "not_finite", "time"),
        (BOOK, SUBMIT.replace("34200", "-34200"), "messages.csv", "wrong_type", "time"),
        (BOOK, SUBMIT.replace(",1,161", ",9,161"), "messages.csv", "unknown_kind", "type"),
        (BOOK, SUBMIT[:-1] + "2", "messages.csv", "wrong_type", "direction"),
        (BOOK, "34200.5,4,7,x,5859400,-1", "messages.csv", "wrong_type", "size"),
        (BOOK, "34200.5,4,7,30,nan,-1", "messages.csv", "wrong_type", "price"),
        ("", SUBMIT, "book.csv", "bad_columns", ""),
    ],
)
def test_a_bad_row_is_an_error_with_its_place_and_the_next_row_is_read(
    tmp_path: Path, drain: Callable[..., Any], book: str, message: str, source: str, reason: str, field: str
) -> None:
    events, errors = drain(open_pair(tmp_path, [BOOK, book, BOOK], [SUBMIT, message, SUBMIT]))
    assert len(events) == 2
    assert [(error.source, error.position, error.reason, error.field) for error in errors] == [
        (source, 2, reason, field)
    ]


@pytest.mark.parametrize(("books", "messages", "short"), [(2, 3, "book.csv"), (3, 2, "messages.csv")])
def test_a_pair_of_unequal_length_is_truncated(
    tmp_path: Path, drain: Callable[..., Any], books: int, messages: int, short: str
) -> None:
    events, errors = drain(open_pair(tmp_path, [BOOK] * books, [SUBMIT] * messages))
    assert len(events) == 2
    assert [(error.reason, error.source) for error in errors] == [("truncated", short)]


def test_reads_gzip_and_reports_a_cut(tmp_path: Path, drain: Callable[..., Any]) -> None:
    book, messages = tmp_path / "book.csv.gz", tmp_path / "messages.csv"
    messages.write_text((SUBMIT + "\n") * 3)
    whole = gzip.compress(((BOOK + "\n") * 3).encode())
    book.write_bytes(whole)
    assert len(drain(LobsterReader(book, messages, date="2012-06-21"))[0]) == 3
    book.write_bytes(whole[:-1])
    events, errors = drain(LobsterReader(book, messages, date="2012-06-21"))
    assert len(events) == 3
    assert [error.reason for error in errors] == ["truncated"]


def test_refuses_a_pair_it_cannot_read(tmp_path: Path) -> None:
    book, messages = write(tmp_path, [BOOK], [SUBMIT])
    with pytest.raises(ConfigError, match="pass `date`"):
        LobsterReader(book, messages, date=None)
    with pytest.raises(ConfigError, match="`date` must be YYYY-MM-DD"):
        LobsterReader(book, messages, date="21.6.2012")
    with pytest.raises(
        ConfigError, match=r"messages\.csv: has 6 columns, as a message file: give the pair as BOOK,MESS"
    ):
        LobsterReader(messages, book, date="2012-06-21")
    with pytest.raises(ConfigError, match=r"book\.csv: is no LOBSTER message file"):
        LobsterReader(book, book, date="2012-06-21")
    messages.write_text("nothing of the kind\n")
    with pytest.raises(ConfigError, match=r"messages\.csv: is no LOBSTER book: columns must be a multiple of 4"):
        LobsterReader(messages, book, date="2012-06-21")
