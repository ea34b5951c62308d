"""Parquet files, mapped and by the contract's names."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ami_engine.adapters.column_map import ColumnMap, LevelColumns
from ami_engine.adapters.parquet_reader import ParquetReader
from ami_engine.errors import BackendError, ConfigError
from ami_engine.events import BookSnapshot, Trade

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

QUOTES = ColumnMap(
    kind="quote", time_unit="us", price_scale=1e-4, columns={"ts": "t", "bid": "b", "ask": "a", "symbol": "s"}
)


def write(folder: Path, **columns: Any) -> Path:
    path = folder / "x.parquet"
    parquet.write_table(pa.table(columns), path)
    return path


def test_quotes_with_declared_units_and_columns_nobody_asked_for(tmp_path: Path, drain: Callable[..., Any]) -> None:
    path = write(tmp_path, x=["-"] * 2, a=[1005000, 1006000], t=[7, 8], s=["X", "Y"], b=[995000, None])
    events, errors = drain(ParquetReader(path, columns=QUOTES))
    assert errors == []
    assert events == [
        BookSnapshot(7_000, 7_000, "X", 0, 99.5, 100.5),
        BookSnapshot(8_000, 8_000, "Y", 0, 0.0, 100.6),
    ]
    assert [event.symbol for event in drain(ParquetReader(path, columns=QUOTES, symbol="Y"))[0]] == ["Y"]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_a_timestamp_column_brings_its_own_unit(
    tmp_path: Path, drain: Callable[..., Any], unit: str, zone: str | None
) -> None:
    stamp = dt.datetime(2020, 9, 1, 0, 0, 3, tzinfo=dt.UTC)
    stamps = pa.array([stamp if zone else stamp.replace(tzinfo=None)], pa.timestamp(unit, tz=zone))
    path = write(tmp_path, t=stamps, b=[1], a=[2], s=["X"])
    events, errors = drain(ParquetReader(path, columns=QUOTES))
    assert errors == []
    assert events[0].recv_ts_ns == 1598918403_000000000


def test_levels_of_a_wide_table(tmp_path: Path, drain: Callable[..., Any]) -> None:
    columns = ColumnMap(
        kind="levels",
        time_unit="ns",
        price_scale=1,
        columns={"ts": "t"},
        levels=LevelColumns(bid_price="bp{i}", bid_size="bs{i}", ask_price="ap{i}", ask_size="as{i}", count=2),
    )
    sides = {
        f"{name}{i}": [float(price - i)]
        for name, price in (("bp", 99), ("bs", 5), ("ap", 101), ("as", 7))
        for i in (0, 1)
    }
    sides["ap1"] = [None]
    events, _ = drain(ParquetReader(write(tmp_path, t=[5], **sides), columns=columns))
    assert (events[0].bids, events[0].asks) == ([(99.0, 5.0), (98.0, 4.0)], [(101.0, 7.0)])


def test_a_bad_row_is_an_error_with_its_place_and_the_next_row_is_read(
    tmp_path: Path, drain: Callable[..., Any]
) -> None:
    path = write(tmp_path, t=[7, None, 8, 9], b=[1.0, 1.0, float("nan"), 2.0], a=[2.0] * 4, s=["X"] * 4)
    events, errors = drain(ParquetReader(path, columns=QUOTES))
    assert len(events) == 2
    assert [(error.source, error.position, error.reason, error.field) for error in errors] == [
        ("x.parquet", 2, "malformed", "ts"),
        ("x.parquet", 3, "not_finite", "bid"),
    ]


def test_the_contracts_own_names_need_no_map(tmp_path: Path, drain: Callable[..., Any]) -> None:
    path = write(
        tmp_path,
        ts_ns=[5, 6, None],
        bids=[[[99.0, 5.0], [98.0, 1.0]], None, None],
        asks=[[[101.0, 7.0]], None, None],
        price=[None, 100.0, 1.0],
        size=[None, 2.0, 1.0],
    )
    events, errors = drain(ParquetReader(path))
    assert events == [
        BookSnapshot(5, 5, "", 0, 99.0, 101.0, 5.0, 7.0, [(99.0, 5.0), (98.0, 1.0)], [(101.0, 7.0)]),
        Trade(6, 6, "", 0, 100.0, 2.0, 0),
    ]
    assert [(error.reason, error.position) for error in errors] == [("missing_field", 3)]


def test_a_file_of_many_batches_is_read_in_order(tmp_path: Path, drain: Callable[..., Any]) -> None:
    count = 10_000
    path = write(tmp_path, ts_ns=list(range(1, count + 1)), bid=[1.0] * count, ask=[2.0] * count)
    events, _ = drain(ParquetReader(path))
    assert [event.recv_ts_ns for event in events] == list(range(1, count + 1))


def test_refuses_a_file_it_cannot_read(tmp_path: Path) -> None:
    whole = write(tmp_path, t=[1], b=[1.0], a=[2.0])
    with pytest.raises(ConfigError, match=r"x\.parquet: column 's' of `symbol` is not there; there are t, b, a"):
        ParquetReader(whole, columns=QUOTES)
    with pytest.raises(ConfigError, match=r"x\.parquet: no column is named .*; pass a column map"):
        ParquetReader(whole)
    whole.write_bytes(whole.read_bytes()[:-10])
    with pytest.raises(ConfigError, match=r"x\.parquet: is not a whole Parquet file"):
        ParquetReader(whole)
    whole.write_bytes(b"ts_ns,bid\n")
    with pytest.raises(ConfigError, match=r"x\.parquet: is not a whole Parquet file"):
        ParquetReader(whole)


def test_damage_inside_ends_the_file_with_an_error(tmp_path: Path, drain: Callable[..., Any]) -> None:
    count = 20_000
    path = tmp_path / "x.parquet"
    table = pa.table(
        {"ts_ns": list(range(1, count + 1)), "bid": [float(n) for n in range(count)], "ask": [2.0] * count}
    )
    parquet.write_table(table, path, row_group_size=5_000, compression="gzip")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    path.write_bytes(data)
    events, errors = drain(ParquetReader(path))
    assert len(events) < count
    assert [(error.reason, error.source) for error in errors] == [("malformed", "x.parquet")]


def test_says_what_to_install_when_pyarrow_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, ts_ns=[1])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BackendError, match=r"pip install 'mdm-engine\[data\]'"):
        ParquetReader(path)
