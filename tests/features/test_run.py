"""`run` over tables of every kind: the same bits as one update an event, and no copy of what already fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ami_engine.errors import EventError
from ami_engine.features import FEATURE_NAMES, FeatureBuilder
from ami_engine.features.columns import read_table

Make = Callable[..., FeatureBuilder]
Table = dict[str, npt.NDArray[Any]]


def as_event(table: Table, i: int, levels: int) -> tuple[dict[str, Any], int]:
    """Row `i` as a dict event, and its now_ns."""
    event: dict[str, Any] = {
        name: column[i].item() for name, column in table.items() if name not in ("bids", "asks", "now_ns")
    }
    for side in ("bids", "asks"):
        pairs = [pair for pair in table[side][i].tolist() if pair[0] == pair[0] or pair[1] == pair[1]]
        event[side] = pairs[:levels]
    return event, int(table["now_ns"][i])


def streamed(builder: FeatureBuilder, table: Table) -> tuple[npt.NDArray[np.float64], dict[str, int], dict[str, int]]:
    rows = np.full((len(table["kind"]), len(FEATURE_NAMES)), np.nan)
    rejected: dict[str, int] = {}
    first: dict[str, int] = {}
    for i in range(len(rows)):
        event, now_ns = as_event(table, i, builder.config.levels)
        try:
            rows[i] = np.asarray(builder.update(event, now_ns))
        except EventError as error:
            rejected[error.reason] = rejected.get(error.reason, 0) + 1
            first.setdefault(error.reason, i)
    return rows, rejected, first


WINDOWS = [
    {"window_5m_steps": 40},
    {"window_5m_steps": None, "window_5m_ms": 60},
    {"window_5m_steps": 40, "window_5m_ms": 50.5},
]


@pytest.mark.parametrize("window", WINDOWS)
def test_a_batch_gives_the_bits_of_the_stream(make: Make, mixed_stream: Table, window: dict[str, Any]) -> None:
    parameters = dict(tick_size=0.1, vol_window=20, sigma_short_steps=5, sigma_long_steps=30, **window)
    builder, stream = make(**parameters), make(**parameters)
    rows = builder.run(mixed_stream)
    expected, rejected, first = streamed(stream, mixed_stream)
    assert np.array_equal(rows, expected, equal_nan=True)
    assert builder.last_report is not None
    assert dict(builder.last_report.rejected) == rejected
    assert dict(builder.last_report.first) == first
    assert builder.last_report.rows == len(rows)
    assert builder.last_report.accepted == len(rows) - sum(rejected.values())
    # The stream has all of them, so that this test compares what it says it does.
    assert rejected.keys() == {
        "malformed",
        "not_finite",
        "negative_price",
        "negative_size",
        "non_positive_time",
        "time_backwards",
        "levels_unsorted",
        "price_mismatch",
        "empty_book",
        "crossed_book",
        "unknown_kind",
    }


def test_a_batch_in_pieces_is_the_batch(make: Make, mixed_stream: Table) -> None:
    whole, pieces = make(window_5m_steps=30), make(window_5m_steps=30)
    expected = whole.run(mixed_stream)
    out = np.empty_like(expected)
    for start in range(0, 600, 130):
        part = slice(start, start + 130)
        assert pieces.run({name: column[part] for name, column in mixed_stream.items()}, out[part]) is not None
    assert np.array_equal(out, expected, equal_nan=True)
    assert pieces.snapshot() == whole.snapshot()


def flat(table: Table) -> Table:
    """The table without its levels: what a frame of scalars can hold."""
    return {name: column for name, column in table.items() if name not in ("bids", "asks")}


def structured(table: Table) -> npt.NDArray[Any]:
    array = np.empty(600, [(name, column.dtype) for name, column in table.items()])
    for name, column in table.items():
        array[name] = column
    return array


def arrow(table: Table) -> Any:
    return pytest.importorskip("pyarrow").table(table)


def polars(table: Table) -> Any:
    return pytest.importorskip("polars").DataFrame(table)


def pandas(table: Table) -> Any:
    return pytest.importorskip("pandas").DataFrame(table)


@pytest.mark.parametrize("as_table", [structured, arrow, polars, pandas])
def test_every_kind_of_table_gives_the_same_rows(
    make: Make, mixed_stream: Table, as_table: Callable[[Table], Any]
) -> None:
    table = flat(mixed_stream)
    assert np.array_equal(make().run(as_table(table)), make().run(table), equal_nan=True)


def test_levels_come_as_fixed_or_ragged_lists(mixed_stream: Table) -> None:
    pa = pytest.importorskip("pyarrow")
    pl = pytest.importorskip("polars")
    pd = pytest.importorskip("pandas")
    expected = mixed_stream["bids"]
    ragged = [[pair for pair in row if pair[0] == pair[0]] for row in expected.tolist()]
    fixed = pa.FixedSizeListArray.from_arrays(pa.FixedSizeListArray.from_arrays(pa.array(expected.ravel()), 2), 3)
    for column in (fixed, pa.chunked_array([fixed[:100], fixed[100:]]), pa.array(ragged)):
        assert np.array_equal(_bids(pa.table({"bids": column})), expected, equal_nan=True)
    for frame in (
        pl.DataFrame({"bids": pl.Series(expected.tolist(), dtype=pl.Array(pl.Float64, (3, 2)))}),
        pl.DataFrame({"bids": ragged}),
        pd.DataFrame({"bids": ragged}),
    ):
        assert np.array_equal(_bids(frame), expected, equal_nan=True)


def _bids(table: Any) -> Any:
    return read_table(table).bids


def test_columns_that_fit_are_not_copied(mixed_stream: Table) -> None:
    pl = pytest.importorskip("polars")
    pa = pytest.importorskip("pyarrow")
    table = flat(mixed_stream)
    frame = pl.DataFrame(table)
    arrow_table = pa.table(table)
    for given, column_of in (
        (mixed_stream, lambda name: mixed_stream[name]),
        (frame, lambda name: frame.get_column(name).to_numpy()),
        (arrow_table, lambda name: arrow_table.column(name).chunk(0).to_numpy()),
    ):
        columns = read_table(given)._asdict()
        columns["recv_ts_ns"] = columns["ts"]
        for name in table:
            assert np.shares_memory(columns[name], column_of(name)), name
    assert np.shares_memory(read_table(mixed_stream).bids, mixed_stream["bids"])


def test_rows_are_written_where_the_caller_says(make: Make) -> None:
    table = {"ts_ns": np.array([1, 2]), "bid": np.array([99.0, 98.0]), "ask": np.array([101.0, 99.0])}
    out = np.zeros((2, len(FEATURE_NAMES)))
    assert make().run(table, out) is out
    assert out[:, 0].tolist() == [100.0, 98.5]
    read_only = np.zeros((2, len(FEATURE_NAMES)))
    read_only.flags.writeable = False
    for wrong in (np.zeros((3, 30)), np.zeros((2, 30), np.float32), np.zeros((30, 2)).T, read_only):
        with pytest.raises(ValueError, match="`out` must be"):
            make().run(table, wrong)


@pytest.mark.parametrize(
    "times",
    [
        {"ts_ms": np.array([1, 2])},
        {"ts_ms": np.array([1.0, 2.0])},
        {"timestamp_ms": np.array([1, 2], np.int32)},
        {"ts_ns": np.array([1_000_000, 2_000_000], np.uint64)},
        {"recv_ts_ns": np.array([0, 2_000_000]), "exch_ts_ns": np.array([1_000_000, 7])},
        {"ts_ns": np.array([1_000_000, 2_000_000]).view("datetime64[ns]")},
        {"ts_ms": np.array([1_000, 2_000]).view("datetime64[us]")},
        {},
    ],
)
def test_times_come_under_every_name_and_unit(make: Make, times: Table) -> None:
    builder = make(window_5m_steps=None, window_5m_ms=1)
    mid = {"mid": np.array([1.0, 2.0])}
    builder.run(mid | times)
    assert builder.last_report is not None
    assert builder.last_report.accepted == 2
    assert builder.last_ts_ns == 2_000_000


def test_a_time_out_of_range_is_a_bad_row(make: Make) -> None:
    builder = make()
    rows = builder.run({"ts_ms": np.array([2**62, -1, 5]), "mid": np.ones(3)})
    assert builder.last_report is not None
    assert builder.last_report.rejected == {"malformed": 1, "non_positive_time": 1}
    assert rows[2, 0] == 1.0


def test_a_table_of_trades_or_bars_needs_no_quotes(make: Make) -> None:
    builder = make()
    builder.run({"ts_ns": np.array([1]), "close": np.array([100.0])})
    builder.run({"ts_ns": np.array([2, 3]), "price": np.array([99.0, 101.0]), "size": np.array([1.0, 1.0])})
    assert builder.view[FEATURE_NAMES.index("vwap_5m")] == 100.0


def test_an_empty_table_has_no_rows(make: Make) -> None:
    builder = make()
    assert builder.run({"bid": np.empty(0), "ask": np.empty(0)}).shape == (0, 30)
    assert builder.last_report is not None
    assert builder.last_report.rows == 0


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ({"symbol": np.array(["a"])}, "bid"),
        ({"bid": np.array(["1.0"]), "ask": np.array([2.0])}, "bid"),
        ({"bid": np.array([[1.0]]), "ask": np.array([2.0])}, "bid"),
        ({"bid": np.array([1.0]), "ask": np.array([2.0, 3.0])}, "ask"),
        ({"bid": np.array([1.0]), "ask": np.array([2.0]), "ts_ns": np.array([1.5])}, "ts_ns"),
        ({"bid": np.array([1.0]), "ask": np.array([2.0]), "ts_ns": np.array([2**63], np.uint64)}, "ts_ns"),
        ({"bid": np.array([1.0]), "ask": np.array([2.0]), "kind": np.array([1])}, "price"),
        ({"bids": np.ones((1, 2)), "asks": np.ones((1, 2, 2))}, "bids"),
        ({"bids": [[[1.0, 2.0, 3.0]]]}, "bids"),
        ({"bids": [["ab"]]}, "bids"),
        (np.zeros(3), ""),
        (7, ""),
    ],
)
def test_a_table_that_cannot_be_read_names_its_column(make: Make, table: Any, field: str) -> None:
    with pytest.raises(EventError) as caught:
        make().run(table)
    assert (caught.value.reason, caught.value.field) == ("bad_columns", field)


def test_whole_floats_serve_as_kinds(make: Make) -> None:
    builder = make()
    builder.run(
        {
            "ts_ns": np.array([1, 2, 3, 4]),
            "mid": np.array([100.0, np.nan, np.nan, np.nan]),
            "price": np.array([np.nan, 99.0, 98.0, 98.0]),
            "size": np.ones(4),
            "kind": np.array([np.nan, 1.0, 1.5, 1.0]),
            "aggressor": np.array([np.nan, 1.0, 1.0, np.inf]),
        }
    )
    assert builder.last_report is not None
    assert builder.last_report.rejected == {"unknown_kind": 1}
    assert builder.view[FEATURE_NAMES.index("vwap_5m")] == 98.5


@pytest.mark.parametrize("wrong", ["Ask", "ASK", "Ask_", " ask"])
def test_a_column_that_is_misspelt_is_no_absent_one(make: Make, wrong: str) -> None:
    table = {"ts_ns": np.array([1, 2]), "bid": np.array([9.0, 9.0]), wrong: np.array([11.0, 11.0])}
    with pytest.raises(EventError, match="the name is `ask`") as told:
        make().run(table)
    assert (told.value.reason, told.value.field) == ("bad_columns", "ask")
    assert make().run(table | {"ask": np.array([11.0, 11.0])}).shape[0] == 2  # beside the right one it is another's


def test_what_is_no_array_is_no_place_to_write(make: Make) -> None:
    with pytest.raises(ValueError, match="`out` must be a float64 array"):
        make().run({"bid": np.array([9.0]), "ask": np.array([11.0])}, out=[1])


@pytest.mark.parametrize(
    ("ts_ns", "error"), [(float("nan"), TypeError), (1.5, TypeError), (2**63, (OverflowError, TypeError))]
)
def test_a_time_that_is_no_64_bit_whole_number_touches_nothing(make: Make, ts_ns: object, error: Any) -> None:
    builder = make()
    builder.update(1, 9.0, 11.0, 1.0, 1.0)
    with pytest.raises(error):
        builder.update(ts_ns, 9.0, 11.0, 1.0, 1.0)
    assert builder.update(2, 9.0, 11.0, 1.0, 1.0).mid == 10.0
