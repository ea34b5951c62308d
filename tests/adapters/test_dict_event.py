"""A user's dict becomes the event that it says it is, or an error that names the field."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ami_engine.adapters.dict_event import event_from_dict, has_time
from ami_engine.errors import EventError
from ami_engine.events import Bar, BookDelta, BookSnapshot, BookTicker, FeedGap, GenericEvent, Side, Trade

MS = 1_000_000


def read(mapping: Any) -> Any:
    return event_from_dict(mapping, fallback_ts_ns=7)


def refused(mapping: Any) -> tuple[str, str]:
    with pytest.raises(EventError) as caught:
        read(mapping)
    return caught.value.reason, caught.value.field


def test_a_quote_without_levels_is_one_level() -> None:
    event = read({"bid": 0.49, "ask": 0.51, "bid_depth": 5, "ask_depth": 7.5, "symbol": "X", "seq": 3, "ts_ns": 11})
    assert event == BookSnapshot(11, 11, "X", 3, 0.49, 0.51, 5.0, 7.5)


def test_mid_bid_ask_alone_is_valid_and_gets_the_fallback_time() -> None:
    assert read({"mid": 0.5, "bid": 0.49, "ask": 0.51}) == BookSnapshot(7, 7, "", 0, 0.49, 0.51)


def test_mid_is_read_only_when_bid_and_ask_are_both_absent() -> None:
    assert read({"mid": 0.5}) == BookSnapshot(7, 7, "", 0, 0.5, 0.5)
    assert read({"mid": 0.7, "bid": 0.49}) == BookSnapshot(7, 7, "", 0, 0.49, 0.0)
    assert read({"mid": None, "bid": 0.49, "ask": 0.51}).ask == 0.51


@pytest.mark.parametrize("levels", [[[99.0, 5.0], [98.0, 6.0]], ((99.0, 5.0), (98, "6"))])
def test_levels_give_the_best_prices_and_sizes(levels: Any) -> None:
    event = read({"bids": levels, "asks": [], "ts_ms": 2})
    assert (event.bid, event.bid_depth, event.ask, event.ask_depth) == (99.0, 5.0, 0.0, 0.0)
    assert event.bids == [(99.0, 5.0), (98.0, 6.0)]
    assert event.asks == ()


def test_an_array_of_levels_is_kept_without_a_copy() -> None:
    bids = np.array([[99.0, 5.0], [98.0, 6.0]])
    event = read({"bids": bids, "asks": np.array([[101, 3]])})
    assert event.bids is bids
    assert (event.bid, event.ask, event.ask_depth) == (99.0, 101.0, 3.0)
    assert event.asks.dtype == np.float64


def test_numpy_and_decimal_numbers_are_numbers() -> None:
    event = read(
        {"bid": np.float32(0.5), "ask": Decimal("0.75"), "bid_depth": np.int64(3), "ts_ns": np.int64(2**60 + 1)}
    )
    assert (event.bid, event.ask, event.bid_depth, event.recv_ts_ns) == (0.5, 0.75, 3.0, 2**60 + 1)
    assert read({"bids": [[np.float64(1.5), np.int64(2)]]}).bids == [(1.5, 2.0)]


def test_decimal_strings_are_numbers() -> None:
    assert read({"bid": "61800.20", "ask": "61800.3", "ts_ns": "1723161255088169167"}) == BookSnapshot(
        1723161255088169167, 1723161255088169167, "", 0, 61800.2, 61800.3
    )


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({"ts_ns": 5}, (5, 5)),
        ({"ts_ms": 5}, (5 * MS, 5 * MS)),
        ({"timestamp_ms": 5}, (5 * MS, 5 * MS)),
        ({"ts_ms": 5.25}, (5_250_000, 5_250_000)),
        ({"exch_ts_ns": 5}, (5, 0)),
        ({"recv_ts_ns": 5}, (0, 5)),
        ({"exch_ts_ns": 4, "recv_ts_ns": 5}, (4, 5)),
        ({"ts_ns": 6, "exch_ts_ns": 4}, (4, 6)),
        ({"exch_ts_ns": 0, "recv_ts_ns": 0}, (7, 7)),
        ({"ts_ms": 1_723_161_255_030}, (1_723_161_255_030 * MS, 1_723_161_255_030 * MS)),
    ],
)
def test_times(times: dict[str, Any], expected: tuple[int, int]) -> None:
    event = read({"bid": 1.0, "ask": 2.0, **times})
    assert (event.exch_ts_ns, event.recv_ts_ns) == expected
    assert has_time(times) == (expected != (7, 7))


@pytest.mark.parametrize(
    ("said", "meant"),
    [(1, 1), (-1, -1), (0, 0), ("BUY", 1), ("SELL", -1), ("buy", 1), ("sell", -1), (Side.SELL, -1), (1.0, 1)],
)
def test_price_and_size_are_a_trade(said: Any, meant: int) -> None:
    assert read({"price": 2, "size": 3, "aggressor": said, "ts_ns": 9}) == Trade(9, 9, "", 0, 2.0, 3.0, meant)


def test_a_trade_without_an_aggressor_is_of_unknown_side() -> None:
    assert read({"price": 2, "size": 3}).aggressor == 0


def test_open_high_low_close_is_a_bar() -> None:
    assert read({"open": 1, "high": 3, "low": 0.5, "close": 2, "volume": 9, "ts_ns": 4}) == Bar(
        4, 4, "", 0, 1.0, 3.0, 0.5, 2.0, 9.0
    )


def test_an_event_without_a_price_keeps_the_whole_dict() -> None:
    mapping = {"value": 0.5, "timestamp_ms": 1000, "metadata": {"source": "sensor_1"}}
    event = read(mapping)
    assert event == GenericEvent(1000 * MS, 1000 * MS, "", 0, mapping)
    mapping["value"] = 9.0
    assert event.fields["value"] == 0.5


@pytest.mark.parametrize(
    "event",
    [
        BookSnapshot(1, 2, "X", 3, 99.0, 101.0, 5.0, 7.0, [(99.0, 5.0)], [(101.0, 7.0)]),
        BookSnapshot(1, 2, "X", 3, 99.0, 101.0, 5.0, 7.0),
        BookDelta(1, 2, "X", 9, 7, 6, [(99.0, 0.0)], [(101.0, 7.0)]),
        BookTicker(1, 2, "X", 3, 99.0, 101.0, 5.0, 7.0),
        Trade(1, 2, "X", 3, 99.0, 1.0, -1),
        Bar(1, 2, "X", 3, 1.0, 2.0, 0.5, 1.5, 10.0),
        FeedGap(1, 2, "X", 3, 2, "halt"),
        GenericEvent(1, 2, "X", 3, {"value": 1}),
    ],
    ids=lambda event: type(event).__name__,
)
def test_our_own_structs_survive_the_way_through_json(event: Any) -> None:
    assert read(msgspec.json.decode(msgspec.json.encode(event))) == event


@pytest.mark.parametrize(
    ("mapping", "reason", "field"),
    [
        ({"bid": None, "ask": 1.0}, "malformed", "bid"),
        ({"bid": 1.0, "ask": math.nan}, "not_finite", "ask"),
        ({"bid": "NaN", "ask": 1.0}, "not_finite", "bid"),
        ({"bid": 1.0, "ask": math.inf}, "not_finite", "ask"),
        ({"bid": 10**400, "ask": 1.0}, "not_finite", "bid"),
        ({"mid": None}, "malformed", "mid"),
        ({"bid": "abc", "ask": 1.0}, "wrong_type", "bid"),
        ({"bid": "1_0", "ask": 1.0}, "wrong_type", "bid"),
        ({"bid": True, "ask": 1.0}, "wrong_type", "bid"),
        ({"bid": [1.0], "ask": 1.0}, "wrong_type", "bid"),
        ({"bid": np.array([1.0, 2.0]), "ask": 1.0}, "wrong_type", "bid"),
        ({"bid": 1.0, "bid_depth": None}, "malformed", "bid_depth"),
        ({"bid": 1.0, "ask_depth": math.nan}, "not_finite", "ask_depth"),
        ({"bids": None}, "malformed", "bids"),
        ({"bids": "ab"}, "wrong_type", "bids"),
        ({"bids": [[1.0, None]]}, "malformed", "bids"),
        ({"bids": [[1.0, 2.0], [0.5]]}, "wrong_type", "bids"),
        ({"asks": [[1.0, 2.0, 3.0]]}, "wrong_type", "asks"),
        ({"asks": np.ones((3, 3))}, "wrong_type", "asks"),
        ({"asks": np.array([["a", "b"]])}, "wrong_type", "asks"),
        ({"bid": 1.0, "bids": [[1.5, 2.0]]}, "price_mismatch", "bid"),
        ({"ask": 1.0, "asks": np.array([[1.5, 2.0]])}, "price_mismatch", "ask"),
        ({"price": 1.0}, "missing_field", "size"),
        ({"price": None, "size": 1.0}, "malformed", "price"),
        ({"price": 1.0, "size": math.nan}, "not_finite", "size"),
        ({"price": 1.0, "size": 1.0, "aggressor": "long"}, "wrong_type", "aggressor"),
        ({"price": 1.0, "size": 1.0, "aggressor": None}, "malformed", "aggressor"),
        ({"price": 1.0, "size": 1.0, "aggressor": []}, "wrong_type", "aggressor"),
        ({"open": 1.0, "close": 1.0, "low": 1.0}, "missing_field", "high"),
        ({"bid": 1.0, "ts_ms": 0}, "non_positive_time", "ts_ms"),
        ({"bid": 1.0, "ts_ns": -5}, "non_positive_time", "ts_ns"),
        ({"bid": 1.0, "recv_ts_ns": -5}, "non_positive_time", "recv_ts_ns"),
        ({"bid": 1.0, "ts_ns": None}, "malformed", "ts_ns"),
        ({"bid": 1.0, "ts_ms": math.nan}, "not_finite", "ts_ms"),
        ({"bid": 1.0, "ts_ns": 1.5}, "wrong_type", "ts_ns"),
        ({"bid": 1.0, "ts_ms": 1_723_161_255_088_169_167}, "malformed", "ts_ms"),
        ({"bid": 1.0, "seq": None}, "malformed", "seq"),
        ({"bid": 1.0, "seq": 1.5}, "wrong_type", "seq"),
        ({"bid": 1.0, "symbol": 5}, "wrong_type", "symbol"),
        ({"value": 1.0, "timestamp_ms": "noon"}, "wrong_type", "timestamp_ms"),
        ({"type": "book_delta", "bids": [[1.0]]}, "wrong_type", "bids"),
        ({"type": "generic", "fields": 3}, "wrong_type", "fields"),
        (None, "malformed", "event"),
        ([1, 2], "wrong_type", "event"),
    ],
)
def test_a_fault_is_an_error_that_names_its_field(mapping: Any, reason: str, field: str) -> None:
    assert refused(mapping) == (reason, field)


def test_what_a_core_must_judge_is_passed_on() -> None:
    assert read({"bid": -1.0, "ask": 1.0}).bid == -1.0
    assert read({"bid": 2.0, "ask": 1.0}).bid == 2.0
    assert read({"price": 1.0, "size": -1.0}).size == -1.0


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)
KEYS = st.sampled_from(
    [
        "bid",
        "ask",
        "bid_depth",
        "bids",
        "asks",
        "mid",
        "price",
        "size",
        "aggressor",
        "seq",
        "symbol",
        "type",
        "ts_ns",
        "ts_ms",
        "timestamp_ms",
        "exch_ts_ns",
        "recv_ts_ns",
        "open",
        "high",
        "low",
        "close",
        "fields",
        "value",
    ]
)


@given(st.dictionaries(KEYS, JSON_VALUES, max_size=6))
def test_any_dict_gives_an_event_or_an_event_error(mapping: dict[str, Any]) -> None:
    try:
        event = read(mapping)
    except EventError as error:
        event = error
    assert event.reason if isinstance(event, EventError) else event.recv_ts_ns > 0 or event.exch_ts_ns > 0
