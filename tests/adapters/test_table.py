"""Tables of every library read as the same events; what cannot be read says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ami_engine.adapters.column_map import BarTimes, ColumnMap, LevelColumns
from ami_engine.adapters.table import TableSource
from ami_engine.errors import ConfigError
from ami_engine.events import Bar, BookDelta, BookSnapshot, Trade

T0 = 1_700_000_000_000_000_001
QUOTES: dict[str, list[Any]] = {
    "recv_ts_ns": [T0, T0 + 5, T0 + 9],
    "exch_ts_ns": [T0 - 2, T0 + 3, T0 + 4],
    "symbol": ["X", "Y", "X"],
    "bid": [99.0, 98.5, 99.5],
    "ask": [101.0, 100.5, 101.5],
    "bid_depth": [1.0, 2.0, 3.0],
    "ask_depth": [4.0, 5.0, 6.0],
}
EXPECTED = [
    BookSnapshot(T0 - 2, T0, "X", 0, 99.0, 101.0, 1.0, 4.0),
    BookSnapshot(T0 + 3, T0 + 5, "Y", 0, 98.5, 100.5, 2.0, 5.0),
    BookSnapshot(T0 + 4, T0 + 9, "X", 0, 99.5, 101.5, 3.0, 6.0),
]


def structured(columns: dict[str, list[Any]]) -> np.ndarray[Any, Any]:
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    table = np.zeros(len(next(iter(arrays.values()))), [(name, values.dtype) for name, values in arrays.items()])
    for name, values in arrays.items():
        table[name] = values
    return table


def made(library: str, columns: dict[str, list[Any]]) -> Any:
    if library == "numpy":
        return structured(columns)
    if library == "mapping":
        return columns
    if library == "pyarrow":
        return pytest.importorskip("pyarrow").table(columns)
    return pytest.importorskip(library).DataFrame(columns)


LIBRARIES = ("mapping", "numpy", "pandas", "polars", "pyarrow")


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_library_gives_the_same_events(library: str, drain: Callable[..., Any]) -> None:
    source = TableSource(made(library, QUOTES))
    assert source.snapshots_only
    assert drain(source) == (EXPECTED, [])
    assert drain(TableSource(made(library, QUOTES), symbol="X"))[0] == [EXPECTED[0], EXPECTED[2]]


@pytest.mark.parametrize("library", LIBRARIES)
def test_one_table_has_one_identity_and_another_another(library: str) -> None:
    changed = {**QUOTES, "bid": [99.0, 98.5, 99.25]}
    identities = [TableSource(made(library, columns)).identity for columns in (QUOTES, QUOTES, changed)]
    assert identities[0] == identities[1] != identities[2]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_column_map_names_the_columns(library: str, drain: Callable[..., Any]) -> None:
    columns = ColumnMap(
        kind="trade",
        time_unit="us",
        price_scale=1e-4,
        columns={"recv_ts": "local", "exch_ts": "venue", "price": "px", "size": "qty", "aggressor": "side"},
        symbol="X",
    )
    table = made(
        library, {"local": [7, 8], "venue": [5, 6], "px": [5_851_600, 5_851_700], "qty": [1, 2], "side": ["buy", "0"]}
    )
    events, errors = drain(TableSource(table, columns=columns))
    assert errors == []
    assert events == [Trade(5_000, 7_000, "X", 0, 585.16, 1.0, 1), Trade(6_000, 8_000, "X", 0, 585.17, 2.0, 0)]


@pytest.mark.parametrize("library", ["numpy", "pandas", "polars", "pyarrow"])
def test_stamps_bring_their_own_unit(library: str, drain: Callable[..., Any]) -> None:
    stamps = np.array(["2024-08-08T23:54:15.030314667", "2024-08-08T23:54:16"], dtype="datetime64[ns]")
    table = made(library, {"ts_ms": stamps, "bid": [99.0, 98.0], "ask": [101.0, 101.0]})
    events, errors = drain(TableSource(table))
    assert errors == []
    assert [event.recv_ts_ns for event in events] == [1_723_161_255_030_314_667, 1_723_161_256_000_000_000]
    columns = ColumnMap(
        kind="quote", time_unit="s", price_scale=1, columns={"ts": "ts_ms", "bid": "bid", "ask": "ask"}, symbol="X"
    )
    mapped, errors = drain(TableSource(table, columns=columns))
    assert errors == []
    assert [event.recv_ts_ns for event in mapped] == [event.recv_ts_ns for event in events]


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_stamps_of_a_zone_are_brought_to_utc(library: str, drain: Callable[..., Any]) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"ts_ns": pandas.to_datetime(["2024-12-01T00:00:59.999+01:00"]), "mid": [5.0]})
    if library == "polars":
        frame = pytest.importorskip("polars").from_pandas(frame)
    elif library == "pyarrow":
        frame = pytest.importorskip("pyarrow").Table.from_pandas(frame, preserve_index=False)
    events, errors = drain(TableSource(frame))
    assert (events[0].recv_ts_ns, errors) == (1_733_007_659_999_000_000, [])


def test_levels_of_an_array_lose_their_padding(drain: Callable[..., Any]) -> None:
    table = np.zeros(2, [("ts_ns", "i8"), ("bids", "f8", (3, 2)), ("asks", "f8", (3, 2))])
    table["ts_ns"] = [1, 2]
    table["bids"] = table["asks"] = np.nan
    table["bids"][0, :2] = [[99.0, 1.0], [98.0, 2.0]]
    table["asks"][:, 0] = [101.0, 3.0]
    events, errors = drain(TableSource(table))
    assert errors == []
    assert [event.bids.tolist() for event in events] == [[[99.0, 1.0], [98.0, 2.0]], []]
    assert (events[0].bid, events[0].ask_depth, events[1].bid) == (99.0, 3.0, 0.0)


@pytest.mark.parametrize("library", ["mapping", "pandas", "polars", "pyarrow"])
def test_ragged_levels_and_deltas_are_read_by_their_type(library: str, drain: Callable[..., Any]) -> None:
    table = made(
        library,
        {
            "type": ["book_snapshot", "book_delta"],
            "ts_ns": [1, 2],
            "bids": [[[99.0, 1.0], [98.0, 2.0]], [[99.0, 0.0]]],
            "asks": [[[101.0, 3.0]], []],
        },
    )
    source = TableSource(table)
    assert not source.snapshots_only
    events, errors = drain(source)
    assert errors == []
    assert isinstance(events[1], BookDelta)
    assert [[list(level) for level in event.bids] for event in events] == [[[99.0, 1.0], [98.0, 2.0]], [[99.0, 0.0]]]


def test_a_map_takes_levels_from_columns(drain: Callable[..., Any]) -> None:
    columns = ColumnMap(
        kind="levels",
        time_unit="ns",
        price_scale=1,
        columns={"ts": "t"},
        levels=LevelColumns("b{i}", "bs{i}", "a{i}", "as{i}", count=2),
    )
    nan = float("nan")
    table = {"t": [1], "b0": [99.0], "bs0": [1.0], "b1": [98.0], "bs1": [2.0]}
    table |= {"a0": [101.0], "as0": [3.0], "a1": np.array([nan]), "as1": np.array([nan])}
    events, errors = drain(TableSource(table, columns=columns))
    assert errors == []
    assert (events[0].bids, events[0].asks) == ([(99.0, 1.0), (98.0, 2.0)], [(101.0, 3.0)])


def test_kind_says_which_columns_a_row_has(drain: Callable[..., Any]) -> None:
    table = structured({"ts_ns": [1, 2], "kind": [0, 1], "bid": [9.0, 0.0], "ask": [11.0, 0.0], "price": [0.0, 10.0]})
    sizes = np.array([0.0, 2.0])
    columns = {name: table[name] for name in table.dtype.names or ()} | {"size": sizes}
    events, errors = drain(TableSource(columns))
    assert (events, errors) == ([BookSnapshot(1, 1, "", 0, 9.0, 11.0), Trade(2, 2, "", 0, 10.0, 2.0, 0)], [])


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_bad_row_is_named_and_the_next_one_read(library: str, drain: Callable[..., Any]) -> None:
    table = made(library, {"ts_ns": [1, 2, 3], "price": [9.0, float("inf"), 10.0], "size": [1.0, 1.0, 1.0]})
    events, errors = drain(TableSource(table, name="prints"))
    assert [event.price for event in events] == [9.0, 10.0]
    assert [str(error) for error in errors] == ["prints:2: `price` must be finite, was inf"]


@pytest.mark.parametrize("library", ["numpy", "pandas"])
def test_nan_is_a_missing_cell_where_there_is_no_other(library: str, drain: Callable[..., Any]) -> None:
    table = made(library, {"ts_ns": [1, 2], "price": [9.0, float("nan")], "size": [1.0, 1.0]})
    events, errors = drain(TableSource(table, columns=_prints()))
    assert (len(events), [error.field for error in errors]) == (1, ["price"])


def _prints() -> ColumnMap:
    names = {"ts": "ts_ns", "price": "price", "size": "size"}
    return ColumnMap(kind="trade", time_unit="ns", price_scale=1, columns=names)


def test_more_rows_than_a_block_are_all_read(drain: Callable[..., Any]) -> None:
    count = 10_000
    table = {"ts_ns": np.arange(1, count + 1), "mid": np.linspace(1.0, 2.0, count)}
    events, errors = drain(TableSource(table))
    assert (len(events), errors, events[-1].bid, events[-1].recv_ts_ns) == (count, [], 2.0, count)


def test_bars_must_say_what_their_stamps_are(drain: Callable[..., Any]) -> None:
    table = {"ts_ms": [60_000], "open": [1.0], "high": [2.0], "low": [0.5], "close": [1.5]}
    with pytest.raises(ConfigError, match='declare `bar_time` as "close", or as "open" with `interval_ms`'):
        TableSource(table)
    events, _ = drain(TableSource(table, bars=BarTimes("open", interval_ms=60_000, utc_offset="+01:00")))
    known = (60 + 60 - 3_600) * 1_000_000_000
    assert events == [Bar(known, known, "", 0, 1.0, 2.0, 0.5, 1.5, 0.0)]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([1, 2], "`table` must be a pandas or polars DataFrame, .* was list"),
        (np.zeros((2, 3)), "`table` must be a structured array"),
        ({"ts_ns": [1], "bid": [1.0, 2.0]}, "the columns must be of one length"),
        ({"when": [1], "bid": [1.0]}, r"no column is named .*; pass a column map"),
    ],
)
def test_what_is_no_table_of_events_is_refused(table: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TableSource(table)


def test_a_lazy_frame_must_be_collected() -> None:
    with pytest.raises(ConfigError, match="was LazyFrame: collect it first"):
        TableSource(pytest.importorskip("polars").LazyFrame(QUOTES))
