"""The compiled reader of depth messages says what msgspec says, or says nothing."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ami_engine.adapters.binance import _decode_depth
from ami_engine.adapters.byte_stream import LineStream
from ami_engine.book import OrderBook, PlainOrderBook
from ami_engine.events import BookDelta

core = pytest.importorskip("ami_engine._core")

FEEDS = (
    "binance-spot-btcusdt-20240808.feed.gz",
    "binance-usdm-btcusdt-20240808.feed.gz",
    "binance-coinm-btcusd_perp-20240808.feed.gz",
)
USUAL = (
    b'{"stream":"btcusdt@depth@0ms","data":{"e":"depthUpdate","E":11,"T":10,"s":"BTCUSDT","U":2,"u":4,"pu":1,'
    b'"b":[["58710.20","0.123"],["58710.10","0.000"]],"a":[]}}'
)


def by_msgspec(payload: bytes) -> tuple[Any, ...]:
    depth = _decode_depth(payload).data
    return depth.s, depth.U, depth.u, depth.pu, bool(depth.ps), depth.T or depth.E, depth.b, depth.a


def message(price: str = "58710.20", size: str = "0.123", seq: str = "4") -> bytes:
    return (
        USUAL.replace(b"58710.20", price.encode())
        .replace(b"0.123", size.encode())
        .replace(b'"u":4', b'"u":%b' % seq.encode())
    )


def test_a_usual_message_is_read() -> None:
    assert core.DepthReader().read(USUAL) == by_msgspec(USUAL)


@pytest.mark.parametrize("name", FEEDS)
def test_every_recorded_message_is_read_as_msgspec_reads_it(data_dir: Path, name: str) -> None:
    stream, read, count = LineStream(data_dir / name), core.DepthReader().read, 0
    while (line := stream.next_line()) is not None:
        payload = line[line.find(b" ") + 1 :]
        if b"@depth" in payload[:96]:
            assert read(payload) == by_msgspec(payload)
            count += 1
    assert count > 50


_number = st.one_of(
    st.decimals(0, 10**9, places=8).map(lambda value: f"{value:f}"),
    st.from_regex(r"[0-9]{1,18}(\.[0-9]{1,12})?", fullmatch=True),
    st.floats().map(repr),
    st.text("0123456789.eE+-nN ", max_size=8),
)


@given(
    price=_number,
    size=_number,
    seq=st.one_of(st.integers().map(str), st.from_regex(r"[0-9.eE-]{1,21}", fullmatch=True)),
)
def test_a_number_is_the_nearest_double_or_is_left_to_msgspec(price: str, size: str, seq: str) -> None:
    payload = message(price, size, seq)
    found = core.DepthReader().read(payload)
    if found is not None:
        assert repr(found) == repr(by_msgspec(payload))
        assert next(iter(found[6])) == (float(price), float(size))


@given(st.data())
def test_a_damaged_message_is_never_read_as_something_else(data: st.DataObject) -> None:
    damaged = bytearray(USUAL)
    for _ in range(data.draw(st.integers(1, 3))):
        if not damaged:  # nothing is left to damage
            break
        at = data.draw(st.integers(0, len(damaged) - 1))
        kind = data.draw(st.sampled_from(("replace", "insert", "cut", "drop")))
        if kind == "replace":
            damaged[at] = data.draw(st.one_of(st.integers(0, 255), st.sampled_from(USUAL)))
        elif kind == "insert":
            damaged.insert(at, data.draw(st.sampled_from(USUAL)))
        elif kind == "cut":
            del damaged[at + 1 :]
        else:
            del damaged[at]
    found = core.DepthReader().read(bytes(damaged))
    if found is not None:
        assert repr(found) == repr(by_msgspec(bytes(damaged)))


@pytest.mark.parametrize(
    "unusual",
    [
        USUAL.replace(b'"u":4', b'"u": 4'),
        USUAL.replace(b'"s":"BTCUSDT"', b'"s":"\\u0042TC"'),
        USUAL.replace(b'"58710.20"', b"58710.20"),
        USUAL.replace(b'"E":11', b'"E":11,"x":[1]'),
        USUAL.replace(b'"E":11', b'"E":11,"E":12'),
        USUAL.replace(b'"u":4,', b""),
        USUAL.replace(b"0.123", b"12345678901234567890.5"),
        USUAL.replace(b"0.123", b"00.5"),
        USUAL.replace(b"0.123", b"-0.5"),
        USUAL + b"\0",
        USUAL + b" ",
        USUAL[:-1],
        b"",
    ],
)
def test_another_spelling_is_left_to_msgspec(unusual: bytes) -> None:
    assert core.DepthReader().read(unusual) is None


def test_level_lists_are_sequences_of_pairs() -> None:
    pairs = [(1.5, 2.0), (1.25, 0.0)]
    levels = core.LevelList(pairs)
    assert len(levels) == 2
    assert list(levels) == pairs == levels
    assert levels == core.LevelList(pairs)
    assert levels[0] == levels[-2] == pairs[0]
    assert levels[1:] == pairs[1:]
    assert repr(levels) == repr(pairs)
    assert levels != pairs[:1]
    assert levels != 3
    assert levels != core.LevelList(pairs[:1])
    assert pickle.loads(pickle.dumps(levels)) == levels
    assert np.asarray(levels).tolist() == [[1.5, 2.0], [1.25, 0.0]]
    assert np.asarray(levels, dtype=np.float32).dtype == np.float32
    assert not bool(core.LevelList([]))
    with pytest.raises(IndexError):
        levels[2]
    with pytest.raises(ValueError, match="pair"):
        core.LevelList([(1.0, 2.0, 3.0)])


def test_books_take_level_lists_as_they_take_pairs() -> None:
    bids, asks = [(99.0, 1.0), (98.0, 2.0)], [(101.0, 1.0)]
    for book in (OrderBook(1.0), PlainOrderBook(1.0)):
        book.apply_snapshot(core.LevelList(bids), core.LevelList(asks), 1)
        book.apply_delta(core.LevelList([(99.0, 0.0)]), core.LevelList([]), 2, 2, 1)
        assert book.best() == (98.0, 2.0, 101.0, 1.0)


def test_an_event_with_level_lists_is_encoded_with_a_hook() -> None:
    pairs = [(1.5, 2.0), (1.25, 0.0)]
    event = BookDelta(bids=core.LevelList(pairs), asks=core.LevelList([]))
    assert msgspec.json.encode(event, enc_hook=list) == msgspec.json.encode(BookDelta(bids=pairs, asks=[]))


def test_msgspec_reads_what_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        by_msgspec(message(price="1,5"))
