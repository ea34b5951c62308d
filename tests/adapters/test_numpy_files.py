""".npy and .npz files: event arrays of hftbacktest, and tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ami_engine.adapters.column_map import ColumnMap
from ami_engine.adapters.open_source import open_source
from ami_engine.errors import ConfigError
from ami_engine.events import BookDelta, BookSnapshot, BookTicker, FeedGap, Trade
from ami_engine.units import Instrument

T0 = 1_723_161_255_000_000_000
EVENT = np.dtype(
    [
        *(("ev", "<u8"), ("exch_ts", "<i8"), ("local_ts", "<i8"), ("px", "<f8"), ("qty", "<f8")),
        *(("order_id", "<u8"), ("ival", "<i8"), ("fval", "<f8")),
    ],
    align=True,
)
EXCH, LOCAL, BUY, SELL = 1 << 31, 1 << 30, 1 << 29, 1 << 28
DEPTH, TRADE, CLEAR, SNAPSHOT, BBO, ADD = 1, 2, 3, 4, 5, 10
BOTH = EXCH | LOCAL


def rows(*wanted: tuple[int, int, float, float]) -> np.ndarray[Any, Any]:
    """Rows of (ev, ms, price, quantity), received 1 ms after they happened."""
    table = np.zeros(len(wanted), EVENT)
    for place, (flags, ms, price, size) in enumerate(wanted):
        recv = T0 + ms * 1_000_000
        table[place] = (flags, recv - 1_000_000, recv, price, size, 0, 0, 0.0)
    return table


def at(ms: int) -> tuple[int, int]:
    return T0 + (ms - 1) * 1_000_000, T0 + ms * 1_000_000


DAY = rows(
    (BOTH | CLEAR | BUY, 0, 98.0, 0.0),
    (BOTH | SNAPSHOT | BUY, 0, 98.0, 2.0),
    (BOTH | SNAPSHOT | BUY, 0, 99.0, 1.0),
    (BOTH | CLEAR | SELL, 0, 101.0, 0.0),
    (BOTH | SNAPSHOT | SELL, 0, 101.0, 3.0),
    (BOTH | DEPTH | BUY, 1, 99.0, 0.0),
    (EXCH | DEPTH | BUY, 1, 97.0, 9.0),  # seen by the venue's side only
    (BOTH | DEPTH | SELL, 1, 100.5, 4.0),
    (BOTH | TRADE | SELL, 1, 98.0, 0.5),
    (BOTH | TRADE | BUY, 1, 100.5, 0.25),
    (BOTH | DEPTH | BUY, 2, 98.5, 5.0),
    (BOTH | BBO | BUY, 3, 98.5, 5.0),
    (BOTH | BBO | SELL, 3, 100.5, 4.0),
)
EXPECTED = [
    BookSnapshot(*at(0), "X", 0, 99.0, 101.0, 1.0, 3.0, [(99.0, 1.0), (98.0, 2.0)], [(101.0, 3.0)]),
    BookDelta(*at(1), "X", 0, 0, 0, [(99.0, 0.0)], [(100.5, 4.0)]),
    Trade(*at(1), "X", 0, 98.0, 0.5, -1),
    Trade(*at(1), "X", 0, 100.5, 0.25, 1),
    BookDelta(*at(2), "X", 0, 0, 0, [(98.5, 5.0)], []),
    BookTicker(*at(3), "X", 0, 98.5, 100.5, 5.0, 4.0),
]


@pytest.mark.parametrize("form", ["npy", "npz", "compressed"])
def test_an_event_array_is_read_as_the_local_side_sees_it(tmp_path: Path, drain: Callable[..., Any], form: str) -> None:
    path = tmp_path / f"day.{'npy' if form == 'npy' else 'npz'}"
    if form == "npy":
        np.save(path, DAY)
    elif form == "npz":
        np.savez(path, data=DAY)
    else:
        np.savez_compressed(path, data=DAY)
    source = open_source(path, symbol="X", tick_size=0.5)
    assert not source.snapshots_only
    assert drain(source) == (EXPECTED, [])
    named, _ = drain(open_source(path, instrument=Instrument("X", tick_size=0.5)))
    assert named == EXPECTED


def test_events_are_whole_across_blocks(tmp_path: Path, drain: Callable[..., Any]) -> None:
    count = 20_001
    table = rows((BOTH | CLEAR, 0, 0.0, 0.0), (BOTH | SNAPSHOT | BUY, 0, 5.0, 1.0))
    many = np.tile(rows((BOTH | DEPTH | BUY, 1, 5.0, 2.0)), count)
    np.save(tmp_path / "many.npy", np.concatenate([table, many]))
    events, errors = drain(open_source(tmp_path / "many.npy"))
    assert (errors, [len(event.bids) for event in events]) == ([], [1, count])


def test_snapshots_that_do_not_clear_both_sides(tmp_path: Path, drain: Callable[..., Any]) -> None:
    table = rows(
        (BOTH | SNAPSHOT | BUY, 0, 99.0, 1.0),
        (BOTH | SNAPSHOT | BUY, 1, 98.0, 1.0),
        (BOTH | CLEAR | SELL, 2, 101.0, 0.0),
        (BOTH | CLEAR, 3, 0.0, 0.0),
    )
    np.save(tmp_path / "x.npy", table)
    events, _ = drain(open_source(tmp_path / "x.npy"))
    assert [type(event) for event in events] == [BookSnapshot, BookDelta, FeedGap, BookSnapshot]
    assert events[2].reason == "one_side_cleared"
    assert (events[3].bid, events[3].bids) == (0.0, [])


def test_market_by_order_rows_are_refused_by_number(tmp_path: Path, drain: Callable[..., Any]) -> None:
    np.save(tmp_path / "x.npy", rows((BOTH | ADD | BUY, 0, 99.0, 1.0), (BOTH | TRADE | BUY, 1, 99.0, 1.0)))
    events, errors = drain(open_source(tmp_path / "x.npy"))
    assert [(error.reason, error.field, error.position) for error in errors] == [("unknown_kind", "ev", 1)]
    assert [type(event) for event in events] == [Trade]


def test_times_in_another_unit_are_refused(tmp_path: Path) -> None:
    table = DAY.copy()
    table["local_ts"] //= 1_000
    np.save(tmp_path / "x.npy", table)
    with pytest.raises(ConfigError, match=r"x\.npy: `local_ts` must be ns since the epoch, was 1723161255000000"):
        open_source(tmp_path / "x.npy")


def test_a_cut_array_gives_an_error_where_it_ends(tmp_path: Path, drain: Callable[..., Any]) -> None:
    np.save(tmp_path / "x.npy", DAY)
    data = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(data[:-8])
    events, errors = drain(open_source(tmp_path / "x.npy"))
    assert (events, [error.reason for error in errors]) == ([], ["truncated"])
    assert "is cut: 8 bytes are missing" in str(errors[0])


def test_a_structured_array_is_a_table(tmp_path: Path, drain: Callable[..., Any]) -> None:
    table = np.array([(5, 99.0, 101.0), (6, 98.0, 100.0)], dtype=[("ts_ms", "i8"), ("bid", "f8"), ("ask", "f8")])
    np.save(tmp_path / "x.npy", table)
    np.savez(tmp_path / "x.npz", **{name: table[name] for name in table.dtype.names or ()})
    for name in ("x.npy", "x.npz"):
        source = open_source(tmp_path / name, symbol="X")
        assert source.identity.startswith(f"{name}:")
        events, errors = drain(source)
        assert errors == []
        assert [(event.bid, event.ask, event.symbol) for event in events] == [(99.0, 101.0, "X"), (98.0, 100.0, "X")]


def test_a_table_may_have_a_map_and_bars_must_be_declared(tmp_path: Path, drain: Callable[..., Any]) -> None:
    np.savez(tmp_path / "t.npz", when=np.array([7]), px=np.array([12.5]), n=np.array([3]))
    columns = ColumnMap(
        kind="trade", time_unit="s", price_scale=1, columns={"ts": "when", "price": "px", "size": "n"}, symbol="X"
    )
    events, _ = drain(open_source(tmp_path / "t.npz", columns=columns))
    assert events == [Trade(7_000_000_000, 7_000_000_000, "X", 0, 12.5, 3.0, 0)]
    one = np.ones(1)
    np.savez(tmp_path / "b.npz", ts_ms=np.array([60_000]), open=one, high=one, low=one, close=one)
    with pytest.raises(ConfigError, match=r"b\.npz: there are bars, .* declare `bar_time`"):
        open_source(tmp_path / "b.npz")
    events, _ = drain(open_source(tmp_path / "b.npz", bar_time="open", interval_ms=60_000))
    assert events[0].recv_ts_ns == 120_000_000_000


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_what_is_no_array_of_events_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK nothing" if name == "x.npz" else b"nothing at all")
    with pytest.raises(ConfigError, match=f"{name}: "):
        open_source(tmp_path / name)
    objects = np.array([{"a": 1}], dtype=object)
    if name == "x.npz":
        np.savez(tmp_path / name, data=objects)
    else:
        np.save(tmp_path / name, objects)
    with pytest.raises(ConfigError, match="holds Python objects, which are not read"):
        open_source(tmp_path / name)
