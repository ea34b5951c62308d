"""Files that we write read back as what was written, without being told anything."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ami_engine.adapters.base import DataSource
from ami_engine.adapters.event_file import EventFile
from ami_engine.adapters.event_writer import convert_events, open_writer
from ami_engine.adapters.open_source import open_source
from ami_engine.errors import ConfigError, EventError
from ami_engine.events import (
    Bar,
    BookDelta,
    BookSnapshot,
    BookTicker,
    FeedGap,
    GenericEvent,
    MarketEvent,
    Trade,
)
from ami_engine.units import Instrument

ENDINGS = (".jsonl", ".csv", ".parquet", ".npz")
T0 = 1_723_161_255_030_314_667
LEVELS = np.array([[99.1, 1.5], [99.0, 0.1 + 0.2]])
EVENTS: list[MarketEvent] = [
    BookSnapshot(T0 - 5, T0, "X", 7, 99.1, 101.0, 1.5, 2.0, LEVELS, [(101.0, 2.0)]),
    BookSnapshot(0, T0 + 1, "X", 0, 99.0, 0.0, 3.0, 0.0),
    BookDelta(T0, T0 + 2, "X", 9, 8, 7, [(99.1, 0.0), (98.0, 4.0)], []),
    BookTicker(T0, T0 + 2, "Y", 10, 9.0, 11.0, 1.0, 1e-8),
    Trade(T0, T0 + 3, "X", 2**53 + 1, 100.0, 1 / 3, -1),
    Bar(T0, T0 + 4, 'Z, quoted "so"', 0, 1.0, 2.0, 0.5, 1.5, 1e22),
    FeedGap(T0, T0 + 5, "X", 3, 2, "reconnect"),
    Trade(T0, 0, "X", 0, 5e-324, 1.0, 0),
]
GENERIC = GenericEvent(T0, T0 + 6, "sensor", 0, {"value": 0.1, "deep": {"list": [1, 2.5, "a\nb"]}})


class Recording(DataSource):
    """Events from a list; an exception in it is raised."""

    unique_seq = frozenset({"trade"})

    def __init__(self, events: Sequence[Any]) -> None:
        self._events = iter(events)

    def next_event(self) -> Any:
        event = next(self._events, None)
        if isinstance(event, Exception):
            raise event
        return event

    def instruments(self) -> dict[str, Instrument]:
        return {"X": Instrument("X", tick_size=0.1, kind="inverse", currency="BTC")}


def plain(events: Sequence[Any]) -> list[Any]:
    """Events as values that compare, whatever holds their levels."""
    return [msgspec.json.decode(msgspec.json.encode(event, enc_hook=lambda value: value.tolist())) for event in events]


def there_and_back(folder: Path, ending: str, events: Sequence[Any], drain: Callable[..., Any]) -> list[Any]:
    out = folder / f"events{ending}"
    convert_events(Recording(events), out, overwrite=True)
    read, errors = drain(open_source(out))
    assert errors == []
    return list(read)


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_kind_comes_back_bit_for_bit(tmp_path: Path, drain: Callable[..., Any], ending: str) -> None:
    events = EVENTS if ending == ".npz" else [*EVENTS, GENERIC]
    assert plain(there_and_back(tmp_path, ending, events, drain)) == plain(events)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_says_what_its_source_said(tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"events{ending}"
    done = convert_events(Recording(EVENTS), out)
    assert (done.events, done.dropped, done.unreadable) == (len(EVENTS), {}, {})
    source = open_source(out)
    assert (source.unique_seq, source.snapshots_only) == (frozenset({"trade"}), False)
    assert source.instruments() == Recording([]).instruments()
    assert source.identity.startswith(f"events{ending}:")
    source.close()
    source = open_source(out, symbol="X", tick_size=0.5)
    assert source.instruments()["X"].tick_size == 0.5
    source.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"events{ending}"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_one_symbol_of_a_file_is_read(tmp_path: Path, drain: Callable[..., Any], ending: str) -> None:
    out = tmp_path / f"events{ending}"
    convert_events(Recording(EVENTS), out)
    read, _ = drain(open_source(out, symbol="Y"))
    assert plain(read) == plain(EVENTS[3:4])
    _, errors = drain(open_source(out, symbol="none"))
    assert [error.reason for error in errors] == ["unknown_symbol"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_events_are_a_file_too(tmp_path: Path, drain: Callable[..., Any], ending: str) -> None:
    assert there_and_back(tmp_path, ending, [], drain) == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_more_events_than_a_block(tmp_path: Path, drain: Callable[..., Any], ending: str) -> None:
    events = [
        BookDelta(0, T0 + n, f"S{n % 3}", n, 0, 0, [(1.0 + n, 2.0)] * (n % 4), [(2.0 + n, 1.0)] * (n % 2))
        for n in range(17_000)
    ]
    assert plain(there_and_back(tmp_path, ending, events, drain)) == plain(events)


finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.integers(1, 2**62)
levels = st.lists(st.tuples(finite, finite), max_size=3)


@pytest.mark.parametrize("ending", ENDINGS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    events=st.lists(
        st.one_of(
            st.builds(Trade, positive, positive, st.text("ab \",'#", max_size=3), positive, finite, finite),
            st.builds(BookDelta, positive, positive, st.just("X"), positive, positive, positive, levels, levels),
            st.builds(BookTicker, positive, positive, st.just("X"), positive, finite, finite, finite, finite),
            st.builds(Bar, positive, positive, st.just("X"), positive, *[finite] * 5),
        ),
        max_size=5,
    )
)
def test_whatever_is_finite_comes_back(
    tmp_path: Path, drain: Callable[..., Any], ending: str, events: list[Any]
) -> None:
    assert plain(there_and_back(tmp_path, ending, events, drain)) == plain(events)


def test_what_npz_cannot_hold_is_dropped_and_told(tmp_path: Path, drain: Callable[..., Any]) -> None:
    out = tmp_path / "events.npz"
    done = convert_events(Recording([EVENTS[4], GENERIC, EVENTS[7]]), out)
    assert (done.events, done.kinds, done.dropped) == (2, {"trade": 2}, {"generic": 1})
    assert len(drain(open_source(out))[0]) == 2


def test_records_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    bad = EventError("`bid` must be a number", reason="wrong_type", source="feed", position=7)
    done = convert_events(Recording([EVENTS[4], bad, EVENTS[4]]), tmp_path / "x.csv")
    assert (done.events, done.unreadable, done.places) == (2, {"wrong_type": 1}, ["feed:7: `bid` must be a number"])


def test_a_file_that_is_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    out = tmp_path / "x.jsonl"
    out.write_text("precious")
    with pytest.raises(ConfigError, match=r"x\.jsonl: exists already; pass `--overwrite`"):
        convert_events(Recording(EVENTS), out)
    assert out.read_text() == "precious"
    convert_events(Recording(EVENTS), out, overwrite=True)
    assert out.read_text().startswith('{"type":"ami_events"')


def test_a_source_that_fails_leaves_no_half_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        convert_events(Recording([EVENTS[4], RuntimeError("broken")]), tmp_path / "x.npz")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`out` must end in \.jsonl, \.csv, \.parquet, \.npz"):
        convert_events(Recording(EVENTS), tmp_path / "x.txt")
    with pytest.raises(ConfigError, match=r"`out` must end in"):
        open_writer(tmp_path / "x.txt", EventFile())


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_a_later_version_is_refused(tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"x{ending}"
    convert_events(Recording(EVENTS), out)
    out.write_text(out.read_text().replace('"version":1', '"version":2'))
    with pytest.raises(ConfigError, match="version 2 of `ami_events`; version 1 is read here"):
        open_source(out)


def test_a_cut_or_changed_npz_says_so(tmp_path: Path, drain: Callable[..., Any]) -> None:
    out = tmp_path / "x.npz"
    convert_events(Recording(EVENTS), out)
    (tmp_path / "cut.npz").write_bytes(out.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=r"cut\.npz: is not a whole \.npz file"):
        open_source(tmp_path / "cut.npz")
    with np.load(out) as arrays:
        columns = dict(arrays)
    for name, value in (("kind", 9), ("symbol", -1), ("bids_end", 10**9)):
        np.savez(tmp_path / "changed.npz", **{**columns, name: np.full_like(columns[name], value)})
        read, errors = drain(open_source(tmp_path / "changed.npz"))
        assert (read, [f"`{name}` points at" in str(error) for error in errors]) == ([], [True])
    columns.pop("price")
    np.savez(tmp_path / "less.npz", **columns)
    with pytest.raises(ConfigError, match=r"less\.npz: array `price` is not there"):
        open_source(tmp_path / "less.npz")


def test_our_npz_is_plain_numpy(tmp_path: Path) -> None:
    out = tmp_path / "x.npz"
    convert_events(Recording(EVENTS), out)
    assert zipfile.ZipFile(out).testzip() is None
    with np.load(out, allow_pickle=False) as arrays:
        assert arrays["recv_ts_ns"].tolist() == [event.recv_ts_ns for event in EVENTS]
        assert arrays["bids"][: arrays["bids_end"][0]].tolist() == LEVELS.tolist()
        assert math.isclose(arrays["volume"][5], 1e22)
