"""Klines are known one unit after their close time; bars of plain files must say what their stamps are."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ami_engine.adapters.column_map import ColumnMap
from ami_engine.adapters.open_source import open_source
from ami_engine.errors import ConfigError
from ami_engine.events import Bar

MS = 1_000_000
OPEN, CLOSE = 1_735_689_600_000, 1_735_689_659_999
KNOWN = (CLOSE + 1) * MS
ROW = f"{OPEN},4.15,4.16,4.14,4.155,539.23,{CLOSE},2240.4,13,401.8,1669.9,0"
BAR = Bar(KNOWN, KNOWN, "X", 0, 4.15, 4.16, 4.14, 4.155, 539.23)
HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
)


def write(folder: Path, *lines: str, name: str = "klines.csv") -> Path:
    path = folder / name
    path.write_text("".join(line + "\n" for line in lines))
    return path


@pytest.mark.parametrize(
    "lines",
    [
        (ROW,),
        (HEADER, ROW),
        (ROW.replace(str(OPEN), f"{OPEN}000").replace(str(CLOSE), f"{CLOSE}999"),),
        (json.dumps([OPEN, "4.15", "4.16", "4.14", "4.155", "539.23", CLOSE, "2240.4", 13]),),
    ],
    ids=["spot", "futures", "microseconds", "rest"],
)
def test_a_bar_is_known_one_unit_after_its_close_time(
    tmp_path: Path, drain: Callable[..., Any], lines: tuple[str, ...]
) -> None:
    assert drain(open_source(write(tmp_path, *lines), format="klines", symbol="X")) == ([BAR], [])


def test_of_the_kline_stream_only_closed_bars_are_read(tmp_path: Path, drain: Callable[..., Any]) -> None:
    kline = {"t": OPEN, "T": CLOSE, "s": "X", "o": "4.15", "c": "4.155", "h": "4.16", "l": "4.14", "v": "539.23"}
    lines = [json.dumps({"e": "kline", "s": "X", "k": {**kline, "x": closed}}) for closed in (False, True)]
    lines.append(json.dumps({"stream": "x@kline_1m", "data": {"e": "kline", "k": {**kline, "x": True}}}))
    path = tmp_path / "klines.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    assert drain(open_source(path, format="klines")) == ([BAR, BAR], [])


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (ROW.replace("4.16", "much"), "high"),
        (ROW.replace("4.16", "nan"), "high"),
        (ROW.replace(str(CLOSE), "2025-01-01"), "close_time"),
        (ROW.replace(str(CLOSE), str(OPEN)), "close_time"),
        ("1,2,3", ""),
        ("[1,", ""),
        ('{"e": "trade"}', "k"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, drain: Callable[..., Any], line: str, field: str) -> None:
    events, errors = drain(open_source(write(tmp_path, ROW, line, ROW), format="klines", symbol="X"))
    assert events == [BAR, BAR]
    assert [(error.field, error.position) for error in errors] == [(field, 2)]


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"klines\.csv: the first line is no kline"):
        open_source(write(tmp_path, "time,price"), format="klines")


PLAIN = ("ts_ms,open,high,low,close,volume", "60000,1,2,0.5,1.5,7")


@pytest.mark.parametrize(
    ("options", "known_s"),
    [
        ({"bar_time": "close"}, 60),
        ({"bar_time": "open", "interval_ms": 60_000}, 120),
        ({"bar_time": "close", "utc_offset": "-00:01"}, 120),
        ({"bar_time": "close", "utc_offset": "Z"}, 60),
    ],
)
def test_plain_bars_say_what_their_stamps_are(
    tmp_path: Path, drain: Callable[..., Any], options: dict[str, Any], known_s: int
) -> None:
    events, errors = drain(open_source(write(tmp_path, *PLAIN), **options))
    assert errors == []
    assert events == [Bar(known_s * 10**9, known_s * 10**9, "", 0, 1.0, 2.0, 0.5, 1.5, 7.0)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "there are bars, which must say what their stamps are: declare `bar_time`"),
        ({"bar_time": "open"}, '`interval_ms` must be > 0 where `bar_time` is "open"'),
        ({"bar_time": "middle"}, '`bar_time` must be "close" or "open", was \'middle\''),
        ({"interval_ms": 60_000}, "describe bars: declare `bar_time` as well"),
        ({"bar_time": "close", "utc_offset": "CET"}, "`utc_offset` must be such as .*, was 'CET'"),
    ],
)
def test_bars_that_do_not_say_it_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_source(write(tmp_path, *PLAIN), **options)


def iso_map(**changes: Any) -> ColumnMap:
    columns: dict[str, str | int] = {"ts": "t", "open": "o", "high": "h", "low": "l", "close": "c"}
    return ColumnMap(kind="bar", time_unit="iso", price_scale=1, columns=columns, bar_time="close", **changes)


def test_stamps_without_a_zone_need_a_declared_one(tmp_path: Path, drain: Callable[..., Any]) -> None:
    path = write(tmp_path, "t,o,h,l,c", "2024-12-01T00:00:59.999,1,2,0.5,1.5")
    with pytest.raises(ConfigError, match=r"must carry its offset from UTC, .* declared as `utc_offset`"):
        open_source(path, columns=iso_map())
    for source in (
        open_source(path, columns=iso_map(utc_offset="+01:00")),
        open_source(path, columns=iso_map(), bar_time="close", utc_offset="+01:00"),
    ):
        events, errors = drain(source)
        assert (events[0].recv_ts_ns, errors) == (1_733_007_659_999_000_000, [])


def test_recorded_klines_of_a_changing_zone(data_dir: Path, drain: Callable[..., Any]) -> None:
    names: dict[str, str | int] = {name: name for name in ("open", "high", "low", "close", "volume")}
    columns = ColumnMap(
        kind="bar", time_unit="iso", price_scale=1, columns={**names, "ts": "close_datetime"}, bar_time="close"
    )
    events, errors = drain(open_source(data_dir / "binance-spot-btcusdt-1m-202412.csv.gz", columns=columns))
    assert (len(events), errors) == (41_761, [])
    assert {after.recv_ts_ns - before.recv_ts_ns for before, after in itertools.pairwise(events)} == {60 * 10**9}
