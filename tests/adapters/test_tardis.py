"""Tardis CSV files: each kind, messages put together, faults named."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ami_engine.adapters.open_source import open_source
from ami_engine.adapters.tardis import TardisReader
from ami_engine.errors import ConfigError
from ami_engine.events import BookDelta, BookSnapshot, Trade

L2 = "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount"
TRADES = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount"
QUOTES = "exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount"
US = 1_585_699_200_000_000


def write(folder: Path, *lines: str) -> Path:
    path = folder / "tardis.csv"
    path.write_text("".join(line + "\n" for line in lines))
    return path


def row(local: int, is_snapshot: bool, side: str, price: float, amount: float, symbol: str = "X") -> str:
    return f"deribit,{symbol},{US},{US + local},{str(is_snapshot).lower()},{side},{price},{amount}"


def test_rows_of_one_message_are_one_event(tmp_path: Path, drain: Callable[..., Any]) -> None:
    path = write(
        tmp_path,
        L2,
        row(1, False, "bid", 90.0, 1.0),  # before the first snapshot: nobody has the book that it changes
        row(2, True, "ask", 102.0, 4.0),
        row(2, True, "ask", 101.0, 3.0),
        row(2, True, "bid", 98.0, 2.0),
        row(2, True, "bid", 99.0, 1.0),
        row(3, False, "bid", 99.0, 0.0),
        row(3, False, "ask", 101.0, 5.0),
        row(4, False, "bid", 99.5, 6.0),
    )
    reader = TardisReader(path)
    assert not reader.snapshots_only
    events, errors = drain(reader)
    bids, asks = [(99.0, 1.0), (98.0, 2.0)], [(101.0, 3.0), (102.0, 4.0)]
    assert errors == []
    assert events == [
        BookSnapshot(US * 1_000, (US + 2) * 1_000, "X", 0, 99.0, 101.0, 1.0, 3.0, bids, asks),
        BookDelta(US * 1_000, (US + 3) * 1_000, "X", 0, 0, 0, [(99.0, 0.0)], [(101.0, 5.0)]),
        BookDelta(US * 1_000, (US + 4) * 1_000, "X", 0, 0, 0, [(99.5, 6.0)], []),
    ]


def test_a_snapshot_of_several_messages_adds_to_its_beginning(tmp_path: Path, drain: Callable[..., Any]) -> None:
    lines = [row(1, True, "bid", 99.0, 1.0), row(2, True, "ask", 101.0, 1.0), row(3, False, "bid", 98.0, 1.0)]
    events, _ = drain(TardisReader(write(tmp_path, L2, *lines, row(4, True, "bid", 97.0, 1.0))))
    assert [type(event) for event in events] == [BookSnapshot, BookDelta, BookDelta, BookSnapshot]


def test_messages_of_several_symbols_are_kept_apart(tmp_path: Path, drain: Callable[..., Any]) -> None:
    lines = [row(1, True, "bid", 99.0, 1.0), row(1, True, "bid", 9.0, 1.0, "Y"), row(2, False, "bid", 8.0, 1.0, "Y")]
    path = write(tmp_path, L2, *lines)
    events, _ = drain(TardisReader(path))
    assert [event.symbol for event in events] == ["X", "Y", "Y"]
    events, _ = drain(TardisReader(path, symbol="Y"))
    assert [event.symbol for event in events] == ["Y", "Y"]
    _, errors = drain(TardisReader(path, symbol="Z"))
    assert [error.reason for error in errors] == ["unknown_symbol"]


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("deribit,X,1,2,maybe,bid,1,1", "is_snapshot"),
        ("deribit,X,1,2,true,up,1,1", "side"),
        ("deribit,X,1,2,true,bid,,1", "price"),
        ("deribit,X,1,2,true,bid,1_0,1", "price"),
        ("deribit,X,1,2,true,bid,1,inf", "amount"),
        ("deribit,X,1.5,2,true,bid,1,1", "timestamp"),
        ("deribit,X,1", ""),
    ],
)
def test_a_bad_row_is_named_and_what_stands_around_it_is_read(
    tmp_path: Path, drain: Callable[..., Any], line: str, field: str
) -> None:
    path = write(tmp_path, L2, row(1, True, "bid", 99.0, 1.0), line, row(2, False, "bid", 98.0, 1.0))
    events, errors = drain(TardisReader(path))
    assert [type(event) for event in events] == [BookSnapshot, BookDelta]
    assert [(error.field, error.position) for error in errors] == [(field, 3)]


def test_trades_and_quotes_of_a_gzip_file(tmp_path: Path, drain: Callable[..., Any]) -> None:
    path = tmp_path / "trades.csv.gz"
    rows = [f"bitmex,X,{US},{US + 1},id-1,sell,8531.5,2152", f"bitmex,X,{US},{US + 1},,unknown,8531.5,1"]
    path.write_bytes(gzip.compress("\n".join([TRADES, *rows]).encode()))
    events, errors = drain(open_source(path, format="tardis", tick_size=0.5))
    assert errors == []
    assert events == [
        Trade(US * 1_000, (US + 1) * 1_000, "X", 0, 8531.5, 2152.0, -1),
        Trade(US * 1_000, (US + 1) * 1_000, "X", 0, 8531.5, 1.0, 0),
    ]
    quotes = write(tmp_path, QUOTES, f"huobi,X,{US},{US + 1},5494,8629.3,8629.2,806", f"huobi,X,{US},{US + 2},,,8629,1")
    events, errors = drain(TardisReader(quotes))
    assert errors == []
    assert events == [
        BookSnapshot(US * 1_000, (US + 1) * 1_000, "X", 0, 8629.2, 8629.3, 806.0, 5494.0),
        BookSnapshot(US * 1_000, (US + 2) * 1_000, "X", 0, 8629.0, 0.0, 1.0, 0.0),
    ]


@pytest.mark.parametrize("first", ["", "exchange,symbol,timestamp,local_timestamp,funding_rate", "\xff"])
def test_another_header_is_refused(tmp_path: Path, first: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(first, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"x\.csv: (the header is not|has no header)"):
        TardisReader(path)


@pytest.mark.parametrize(
    ("name", "kind", "count", "levels"),
    [
        ("tardis-binance-futures-btcusdt-20200901-snapshot5.csv", BookSnapshot, 10, 5),
        ("tardis-binance-futures-btcusdt-20200901-snapshot25.csv", BookSnapshot, 10, 25),
        ("tardis-bitmex-xbtusd-20200301-trades.csv", Trade, 10, 0),
        ("tardis-huobi-btc-usd-20200501-quotes.csv", BookSnapshot, 10, 0),
        ("tardis-deribit-btc-perpetual-20200401-l2.csv", BookSnapshot, 1, 15),
    ],
)
def test_recorded_files_are_read(
    data_dir: Path, drain: Callable[..., Any], name: str, kind: type, count: int, levels: int
) -> None:
    events, errors = drain(open_source(data_dir / name, format="tardis"))
    assert errors == []
    assert [type(event) for event in events] == [kind] * count
    assert all(len(getattr(event, "asks", ())) == levels for event in events)
    assert all(event.recv_ts_ns > event.exch_ts_ns > 1_500_000_000_000_000_000 for event in events)
    if levels:
        assert all(event.asks == sorted(event.asks) and event.asks[0][0] == event.ask for event in events)
