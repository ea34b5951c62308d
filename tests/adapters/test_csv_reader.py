"""CSV files, mapped and by the contract's names."""

from __future__ import annotations

import gzip
import itertools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ami_engine.adapters.column_map import ColumnMap, LevelColumns
from ami_engine.adapters.csv_reader import CsvReader
from ami_engine.errors import ConfigError
from ami_engine.events import Bar, BookSnapshot, GenericEvent, Trade

S, MS, US = 1_000_000_000, 1_000_000, 1_000
QUOTES = ColumnMap(
    kind="quote",
    time_unit="us",
    price_scale=1e-4,
    columns={"recv_ts": "local", "exch_ts": "exch", "bid": "b", "ask": "a", "bid_depth": "bs", "ask_depth": "as"},
    symbol="X",
)
HEADER = "local,exch,b,bs,a,as"
ROW = "1000002,1000001,995000,5,1005000,7"


def write(folder: Path, *lines: str, name: str = "x.csv") -> Path:
    path = folder / name
    path.write_text("".join(line + "\n" for line in lines))
    return path


def test_quotes_by_name_with_declared_units(tmp_path: Path, drain: Callable[..., Any]) -> None:
    events, errors = drain(CsvReader(write(tmp_path, HEADER, ROW), columns=QUOTES))
    assert errors == []
    assert events == [BookSnapshot(1_000_001 * US, 1_000_002 * US, "X", 0, 99.5, 100.5, 5.0, 7.0)]


def test_trades_by_position_without_a_header(tmp_path: Path, drain: Callable[..., Any]) -> None:
    columns = ColumnMap(
        kind="trade",
        time_unit="s",
        price_scale=1,
        size_scale=0.001,
        header=False,
        delimiter=";",
        columns={"ts": 0, "price": 2, "size": 1, "aggressor": 3, "seq": 4, "symbol": 5},
        aggressor={"bid": -1, "ask": 1, "": 0},
    )
    rows = ["34200.004241176;1500;10.5;ask;7;X", "34201;2000;10.25;bid;8;Y", "34202;1;10;;9;X"]
    events, errors = drain(CsvReader(write(tmp_path, *rows), columns=columns))
    assert errors == []
    assert events == [
        Trade(34200_004241176, 34200_004241176, "X", 7, 10.5, 1.5, 1),
        Trade(34201 * S, 34201 * S, "Y", 8, 10.25, 2.0, -1),
        Trade(34202 * S, 34202 * S, "X", 9, 10.0, 0.001, 0),
    ]


@pytest.mark.parametrize(
    ("unit", "cell", "ns"),
    [
        ("s", "1598918403.810979123", 1598918403_810979123),
        ("s", "5", 5 * S),
        ("ms", "1598918403810", 1598918403_810 * MS),
        ("ms", "1598918403810.5", 1598918403_810500_000),
        ("us", "1598918403810979", 1598918403_810979_000),
        ("ns", "1598918403810979123", 1598918403_810979123),
        ("iso", "2020-09-01T00:00:03.810979123Z", 1598918403_810979123),
        ("iso", "2020-09-01 02:00:03.5+02:00", 1598918403_500000000),
        ("iso", "2020-08-31T20:00:03-04:00", 1598918403 * S),
    ],
)
def test_stamps_are_exact_in_every_unit(
    tmp_path: Path, drain: Callable[..., Any], unit: Any, cell: str, ns: int
) -> None:
    columns = ColumnMap(kind="quote", time_unit=unit, price_scale=1, columns={"ts": "t", "bid": "b", "ask": "a"})
    events, errors = drain(CsvReader(write(tmp_path, "t,b,a", f"{cell},1,2"), columns=columns))
    assert errors == []
    assert (events[0].exch_ts_ns, events[0].recv_ts_ns) == (ns, ns)


def test_one_sided_rows_are_one_sided_books(tmp_path: Path, drain: Callable[..., Any]) -> None:
    rows = ["1,1,995000,5,,", "1,1,0,0,1005000,7", "1,1,,9,,"]
    events, errors = drain(CsvReader(write(tmp_path, HEADER, *rows), columns=QUOTES))
    assert errors == []
    assert [(e.bid, e.bid_depth, e.ask, e.ask_depth) for e in events] == [
        (99.5, 5.0, 0.0, 0.0),
        (0.0, 0.0, 100.5, 7.0),
        (0.0, 0.0, 0.0, 0.0),
    ]


def test_a_declared_missing_cell_is_missing(tmp_path: Path, drain: Callable[..., Any]) -> None:
    columns = ColumnMap(
        kind="quote", time_unit="s", price_scale=1, columns={"ts": "t", "bid": "b", "ask": "a"}, missing=["NaN", "-"]
    )
    events, errors = drain(CsvReader(write(tmp_path, "t,b,a", "1,NaN,2", "1,1,-", "1,1,"), columns=columns))
    assert [(event.bid, event.ask) for event in events] == [(0.0, 2.0), (1.0, 0.0)]
    assert [(error.reason, error.field) for error in errors] == [("malformed", "ask")]


def test_levels_drop_what_is_missing(tmp_path: Path, drain: Callable[..., Any]) -> None:
    columns = ColumnMap(
        kind="levels",
        time_unit="ns",
        price_scale=1e-4,
        header=False,
        columns={"ts": 0},
        levels=LevelColumns(ask_price=[1, 5], ask_size=[2, 6], bid_price=[3, 7], bid_size=[4, 8]),
    )
    events, errors = drain(
        CsvReader(
            write(tmp_path, "9,5859400,200,5853300,18,5859800,100,5853000,150", "9,5859400,200,,,0,0,,"),
            columns=columns,
        )
    )
    assert errors == []
    assert [(e.bids, e.asks) for e in events] == [
        ([(585.33, 18.0), (585.30, 150.0)], [(585.94, 200.0), (585.98, 100.0)]),
        ([], [(585.94, 200.0)]),
    ]
    assert (events[0].bid, events[0].ask_depth, events[1].bid, events[1].ask) == (585.33, 200.0, 0.0, 585.94)


def test_bars_stamped_at_their_open_are_known_at_their_close(tmp_path: Path, drain: Callable[..., Any]) -> None:
    names = {"ts": "t", "open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}
    columns = ColumnMap(kind="bar", time_unit="s", price_scale=1, columns=names, bar_time="open", bar_seconds=60)
    events, _ = drain(CsvReader(write(tmp_path, "t,o,h,l,c,v", "60,1,3,0.5,2,9"), columns=columns))
    assert events == [Bar(120 * S, 120 * S, "", 0, 1.0, 3.0, 0.5, 2.0, 9.0)]


@pytest.mark.parametrize(
    ("row", "reason", "field"),
    [
        (ROW.replace("995000", "NaN"), "not_finite", "bid"),
        (ROW.replace("995000", "inf"), "not_finite", "bid"),
        (ROW.replace("995000", "abc"), "wrong_type", "bid"),
        (ROW.replace("995000", "9_9"), "wrong_type", "bid"),
        (ROW.replace(",7", ",seven"), "wrong_type", "ask_depth"),
        (ROW.replace("1000002", "noon"), "wrong_type", "recv_ts"),
        (ROW.replace("1000002", ""), "malformed", "recv_ts"),
        (ROW.replace("1000002", "-5"), "wrong_type", "recv_ts"),
        (ROW + ",1", "bad_columns", ""),
        (ROW[: ROW.rindex(",")], "bad_columns", ""),
        ('1,1,"99', "bad_columns", ""),
    ],
)
def test_a_bad_row_is_an_error_with_its_place_and_the_next_row_is_read(
    tmp_path: Path, drain: Callable[..., Any], row: str, reason: str, field: str
) -> None:
    events, errors = drain(CsvReader(write(tmp_path, HEADER, ROW, row, "", ROW), columns=QUOTES))
    assert len(events) == 2
    assert [(error.source, error.position, error.reason, error.field) for error in errors] == [
        ("x.csv", 3, reason, field)
    ]


def test_bytes_that_are_no_text_are_a_bad_row(tmp_path: Path, drain: Callable[..., Any]) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(HEADER.encode() + b"\n\xff\xfe,1,1,1,1,1\n" + ROW.encode())
    events, errors = drain(CsvReader(path, columns=QUOTES))
    assert (len(events), [error.reason for error in errors]) == (1, ["malformed"])


def test_negative_and_crossed_prices_are_for_the_core_to_judge(tmp_path: Path, drain: Callable[..., Any]) -> None:
    events, errors = drain(CsvReader(write(tmp_path, HEADER, "1,1,-995000,5,-1005000,7"), columns=QUOTES))
    assert (events[0].bid, events[0].ask, errors) == (-99.5, -100.5, [])


def test_quoted_cells_a_byte_order_mark_and_gzip(tmp_path: Path, drain: Callable[..., Any]) -> None:
    path = tmp_path / "x.csv.gz"
    path.write_bytes(
        gzip.compress(b"\xef\xbb\xbf" + HEADER.encode() + b'\r\n"1000002",1000001,"995000",5,1005000,7\r\n')
    )
    assert drain(CsvReader(path, columns=QUOTES))[0][0].bid == 99.5


def test_a_cut_gzip_is_reported(tmp_path: Path, drain: Callable[..., Any]) -> None:
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(f"{HEADER}\n{ROW}\n".encode())[:-4])
    events, errors = drain(CsvReader(path, columns=QUOTES))
    assert (len(events), [error.reason for error in errors]) == (1, ["truncated"])


def test_the_contracts_own_names_need_no_map(tmp_path: Path, drain: Callable[..., Any]) -> None:
    rows = [
        "ts_ns,symbol,bid,ask,bid_depth,price,size,value",
        "5,X,0.49,0.51,3,,,",
        "6,X,,,,0.5,2,",
        "7,X,,,,,,4.5",
        "8,X,zero,1,,,,",
        ",X,1,2,,,,",
    ]
    events, errors = drain(CsvReader(write(tmp_path, *rows)))
    assert events == [
        BookSnapshot(5, 5, "X", 0, 0.49, 0.51, 3.0, 0.0),
        Trade(6, 6, "X", 0, 0.5, 2.0, 0),
        GenericEvent(7, 7, "X", 0, {"ts_ns": "7", "symbol": "X", "value": "4.5"}),
    ]
    assert [(error.position, error.field) for error in errors] == [(5, "bid"), (6, "ts_ns")]


def test_refuses_a_file_it_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"x\.csv: no column is named .*; pass a column map"):
        CsvReader(write(tmp_path, "time,open,close", "1,2,3"))
    with pytest.raises(ConfigError, match=r"x\.csv: column 'local' of `recv_ts` is not there; there are a, b"):
        CsvReader(write(tmp_path, "a,b"), columns=QUOTES)
    with pytest.raises(ConfigError, match=r"x\.csv: is empty, a header was expected"):
        CsvReader(write(tmp_path), columns=QUOTES)
    with pytest.raises(ConfigError, match=r"x\.csv: column names must be unique, repeated: a"):
        CsvReader(write(tmp_path, "a,a"), columns=QUOTES)


def test_reality_9_binance_bars_are_stamped_at_their_close_in_a_changing_zone(
    data_dir: Path, drain: Callable[..., Any]
) -> None:
    names = {key: key for key in ("open", "high", "low", "close", "volume")}
    columns = ColumnMap(
        kind="bar", time_unit="iso", price_scale=1, columns={**names, "ts": "close_datetime"}, bar_time="close"
    )
    events, errors = drain(CsvReader(data_dir / "binance-spot-btcusdt-15m-2024.csv.gz", columns=columns))
    assert errors == []
    assert len(events) == 34_945
    steps = {b.recv_ts_ns - a.recv_ts_ns for a, b in itertools.pairwise(events)}
    assert steps == {900 * S}
    assert events[0].recv_ts_ns == 1704064499_999 * MS
    assert (min(event.low for event in events), max(event.high for event in events)) == (38_555.0, 108_353.0)


def test_reality_10_tardis_is_ask_first_in_microseconds(data_dir: Path, drain: Callable[..., Any]) -> None:
    sides = {
        f"{side}_{what}": f"{side}s[{{i}}].{name}"
        for side in ("bid", "ask")
        for what, name in (("price", "price"), ("size", "amount"))
    }
    columns = ColumnMap(
        kind="levels",
        time_unit="us",
        price_scale=1,
        columns={"exch_ts": "timestamp", "recv_ts": "local_timestamp", "symbol": "symbol"},
        levels=LevelColumns(**sides, count=25),
    )
    path = data_dir / "tardis-binance-futures-btcusdt-20200901-snapshot25.csv"
    events, errors = drain(CsvReader(path, columns=columns))
    assert errors == []
    assert len(events) == 10
    first = events[0]
    assert (first.symbol, first.bid, first.ask, first.bid_depth, first.ask_depth) == (
        "BTCUSDT",
        11657.07,
        11657.08,
        10.896,
        1.714,
    )
    assert (len(first.bids), len(first.asks)) == (25, 25)
    assert (first.exch_ts_ns, first.recv_ts_ns) == (1598918403696000 * US, 1598918403810979 * US)


def test_reality_6_us_quotes_have_one_side_a_row(data_dir: Path, tmp_path: Path, drain: Callable[..., Any]) -> None:
    with zipfile.ZipFile(data_dir / "lean-ibm-20131010-quote-tick.zip") as archive:
        path = tmp_path / "ibm.csv"
        path.write_bytes(archive.read(archive.namelist()[0]))
    columns = ColumnMap(
        kind="quote",
        time_unit="ms",
        price_scale=1e-4,
        header=False,
        columns={"ts": 0, "bid": 1, "bid_depth": 2, "ask": 3, "ask_depth": 4},
    )
    events, errors = drain(CsvReader(path, columns=columns, symbol="IBM"))
    assert errors == []
    assert len(events) == 105_428
    assert all((event.bid > 0) != (event.ask > 0) for event in events)
    assert (max(e.bid for e in events), min(e.bid for e in events if e.bid)) == (184.71, 179.51)
