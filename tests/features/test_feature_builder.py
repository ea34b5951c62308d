"""What each feature says of events small enough to be reckoned by hand."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from ami_engine.book import OrderBook, PlainOrderBook
from ami_engine.errors import BackendError, ConfigError, EventError
from ami_engine.events import Bar, BookDelta, BookSnapshot, BookTicker, TimerEvent, Trade
from ami_engine.features import FEATURE_NAMES, FeatureBuilder, FeatureConfig, FeatureVector, available_backends
from ami_engine.features.schema import FEATURE_INDEX, log_return

MS = 1_000_000
Make = Callable[..., FeatureBuilder]


def quote(
    builder: FeatureBuilder, ms: float, bid: float, ask: float, bid_depth: float = 1.0, ask_depth: float = 1.0
) -> Any:
    return builder.update(round(ms * MS), bid, ask, bid_depth, ask_depth)


def test_book_features_of_one_event_with_levels(make: Make) -> None:
    builder = make(tick_size=0.5, levels=2, imbalance_lambda=math.log(2.0), fee_ticks=0.25)
    # The third levels lie beyond `levels` and are not read.
    v = builder.update({"ts_ns": 5, "bids": [[99, 4], [98, 2], [97, 100]], "asks": [[101, 1], [103, 1], [104, 9]]})
    expected = {
        "mid": 100.0,
        "bid": 99.0,
        "ask": 101.0,
        "spread": 2.0,
        "spread_bps": 200.0,
        "depth": 8.0,
        "bid_depth": 6.0,
        "ask_depth": 2.0,
        "imbalance": 0.5,
        "imbalance_w": (5.0 - 1.5) / 6.5,
        "microprice": (101 * 4 + 99 * 1) / 5,
        "microprice_alpha_ticks": 1.2,
        "vwap_bid": 592 / 6,
        "vwap_ask": 102.0,
        "pressure_ticks": ((100 - 592 / 6) - 2.0) / 0.5,
        "cost_ticks": 1.25,
        "staleness_ms": 0.0,
    }
    assert {name: v[name] for name in expected} == pytest.approx(expected, rel=1e-14, abs=1e-12)


def test_rolling_features_of_the_first_event(make: Make) -> None:
    v = quote(make(), 1, 99.0, 101.0, 3.0, 4.0)
    assert [v[name] for name in FEATURE_NAMES[17:]] == [
        0.0,
        0.0,
        0.0,
        2.0,
        7.0,
        0.0,
        100.0,
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
        1.0,
    ]


def test_a_row_is_nan_before_the_first_event(make: Make) -> None:
    assert np.isnan(make().view).all()


def test_no_level_of_a_locked_book_is_refused(make: Make) -> None:
    v = quote(make(), 1, 100.0, 100.0)
    assert (v.spread, v.spread_bps, v.mid) == (0.0, 0.0, 100.0)


@pytest.mark.parametrize(
    ("event", "price"),
    [
        ({"ts_ns": 5, "bid": 0, "ask": 101.0, "ask_depth": 2.0, "bid_depth": 7.0}, 101.0),
        ({"ts_ns": 5, "ask": 101.0, "ask_depth": 2.0, "mid": 55.0}, 101.0),
        ({"ts_ns": 5, "bids": [[99.0, 0.0], [98.0, 5.0]], "asks": [[101.0, 2.0]]}, 101.0),
        ({"ts_ns": 5, "bids": [], "asks": [[101.0, 2.0]]}, 101.0),
        ({"ts_ns": 5, "bid": 99.0, "bid_depth": 2.0}, 99.0),
    ],
)
def test_a_one_sided_book_has_a_mid_and_enters_no_window(make: Make, event: dict[str, Any], price: float) -> None:
    builder = make()
    alone = builder.update(event)
    assert (alone.mid, alone.microprice, alone.depth) == (price, price, 2.0)
    assert math.isnan(alone.spread)
    assert math.isnan(alone.spread_bps)
    assert math.isnan(alone.spread_med_5m)
    assert (alone.sigma, alone.ofi_5m, alone.vwap_5m) == (0.0, 0.0, price)
    first = quote(builder, 1, 99.0, 101.0)
    builder.update({**event, "ts_ns": 2 * MS})
    second = quote(builder, 3, 99.0, 103.0)
    assert first.spread_med_5m == 2.0
    assert second.spread_med_5m == 3.0
    assert second.sigma == 0.0  # one return


@pytest.mark.parametrize(
    ("event", "reason", "field"),
    [
        ({"bid": None, "ask": 1.0}, "malformed", "bid"),
        ({"bid": math.nan, "ask": 1.0}, "not_finite", "bid"),
        ({"bid": 1.0, "ask": math.inf}, "not_finite", "ask"),
        ({"bid": 1.0, "ask": 1e200}, "not_finite", "ask"),
        ({"bid": "1", "ask": 2.0}, "wrong_type", "bid"),
        ({"bid": True, "ask": 2.0}, "wrong_type", "bid"),
        ({"bid": -1.0, "ask": 2.0}, "negative_price", "bid"),
        ({"bid": 1.0, "ask": 2.0, "ask_depth": -1e-9}, "negative_size", "ask_depth"),
        ({"bid": 3.0, "ask": 2.0}, "crossed_book", "bid"),
        ({"bid": 0.0, "ask": 0}, "empty_book", ""),
        ({"bids": [[0, 0]], "asks": [[2.0, 0.0]]}, "empty_book", ""),
        ({"mid": 0.0}, "empty_book", ""),
        ({"mid": math.nan}, "not_finite", "bid"),
        ({"bid": 1.0, "ask": 2.0, "ts_ns": 0}, "non_positive_time", "ts_ns"),
        ({"bid": 1.0, "ask": 2.0, "ts_ns": -4}, "non_positive_time", "ts_ns"),
        ({"bid": 1.0, "ask": 2.0, "ts_ns": 9}, "time_backwards", "ts_ns"),
        ({"bid": 1.0, "ask": 2.0, "ts_ns": 1.5}, "wrong_type", "ts_ns"),
        ({"bid": 1.0, "ask": 2.0, "ts_ns": None}, "malformed", "ts_ns"),
        ({"bid": 1.0, "ask": 2.0, "ts_ns": 2**70}, "malformed", "ts_ns"),
        ({"bid": 1.0, "ask": 2.0, "ts_ms": math.nan}, "not_finite", "ts_ms"),
        ({"bid": 1.0, "ask": 2.0, "ts_ms": 10**18}, "malformed", "ts_ms"),
        ({"bid": 1.5, "bids": [[1.0, 1.0]], "asks": [[2.0, 1.0]]}, "price_mismatch", "bid"),
        ({"bid": 1.5, "asks": [[2.0, 1.0]]}, "price_mismatch", "bid"),
        ({"bids": [[1.0, 1.0], [1.0, 2.0]], "asks": [[2.0, 1.0]]}, "levels_unsorted", "bids"),
        ({"bids": [[1.0, 1.0]], "asks": [[2.0, 1.0], [1.9, 1.0]]}, "levels_unsorted", "asks"),
        ({"bids": [[1.0, 1.0]], "asks": [[2.0, math.nan]]}, "not_finite", "asks"),
        ({"bids": [[1.0, 1.0]], "asks": [[2.0, -1.0]]}, "negative_size", "asks"),
        ({"bids": [[1.0, 1.0]], "asks": [[2.0]]}, "wrong_type", "asks"),
        ({"bids": [[1.0, None]], "asks": [[2.0, 1.0]]}, "malformed", "bids"),
        ({"bids": None, "asks": [[2.0, 1.0]]}, "malformed", "bids"),
        ({"bids": 5, "asks": [[2.0, 1.0]]}, "wrong_type", "bids"),
        ({"bids": np.ones((1, 3)), "asks": [[2.0, 1.0]]}, "wrong_type", "bids"),
        ({"price": 0.0, "size": 1.0}, "negative_price", "price"),
        ({"price": 1.0, "size": -1.0}, "negative_size", "size"),
        ({"price": 1.0, "size": math.nan}, "not_finite", "size"),
        ({"price": 1.0, "size": 1.0, "aggressor": 2}, "malformed", "aggressor"),
        ({"price": 1.0}, "missing_field", "size"),
        ({"symbol": "X"}, "missing_field", "bid"),
        ({"type": "book_delta", "bids": [[1.0, 1.0]], "asks": []}, "unknown_kind", "type"),
        ({"kind": 3, "bid": 1.0, "ask": 2.0}, "unknown_kind", "kind"),
        (BookDelta(0, 10**9, "X"), "unknown_kind", ""),
        (TimerEvent(10**9, "X"), "unknown_kind", ""),
        (BookSnapshot(bid=1.0, ask=2.0), "non_positive_time", "ts_ns"),
        ("bid", "wrong_type", ""),
        (17, "wrong_type", ""),
    ],
)
def test_a_bad_event_is_refused_and_leaves_no_trace(make: Make, event: Any, reason: str, field: str) -> None:
    builder = make(window_5m_steps=4, vol_window=2)
    for i in range(6):
        quote(builder, 10 + i, 99.0 + i, 101.0 + i)
    builder.push_trade(16 * MS, 100.0, 1.0, 1)
    before = builder.snapshot()
    row = builder.view.copy()
    for call in (builder.push, builder.update):
        with pytest.raises(EventError) as caught:
            call(event)
        assert (caught.value.reason, caught.value.field) == (reason, field)
    assert builder.snapshot() == before
    assert np.array_equal(builder.view, row)


def test_a_bad_event_has_one_wording_on_every_backend() -> None:
    messages = set()
    for name, absent in available_backends().items():
        if not absent:
            with pytest.raises(EventError) as caught:
                FeatureBuilder(backend=name).update(1, 101.0, 99.5, 1.0, 1.0)
            messages.add(str(caught.value))
    assert messages == {"`bid` must not be above `ask`, was 101 above 99.5"}


def test_events_are_read_from_structs_and_dicts_alike(make: Make) -> None:
    as_struct, as_dict = make(), make()
    array = np.array([[99.0, 1.0], [98.0, 2.0]])
    pairs: list[tuple[Any, Any]] = [
        (
            BookSnapshot(7, 10, "X", 1, 99.0, 101.0, 5.0, 6.0),
            {"ts_ns": 10, "bid": 99, "ask": 101, "bid_depth": 5, "ask_depth": 6},
        ),
        (
            BookSnapshot(11, 0, "X", 2, bids=array, asks=[(101.0, 3.0)]),
            {"exch_ts_ns": 11, "bids": array.tolist(), "asks": [[101, 3]]},
        ),
        (
            Trade(1, 12, "X", 3, 100.0, 2.0, 1),
            {"recv_ts_ns": 12, "exch_ts_ns": 1, "price": 100, "size": 2, "aggressor": 1},
        ),
        (Bar(1, 2_000_000, "X", 4, 1.0, 2.0, 3.0, 100.5, 9.0), {"ts_ms": 2, "close": 100.5}),
        (
            BookTicker(1, 2_500_000, "X", 5, 99.0, 101.0, 2.0, 3.0),
            {"timestamp_ms": 2.5, "bid": 99, "ask": 101, "bid_size": 2, "ask_size": 3},
        ),
        (
            Trade(1, 2_600_000, "X", 3, 100.0, 2.0, -1),
            {"type": "trade", "ts_ns": 2_600_000, "price": 100, "size": 2, "aggressor": -1, "bid": 1},
        ),
        (BookSnapshot(1, 2_700_000, "X", 1, 100.0, 100.0), {"ts_ns": 2_700_000, "mid": 100.0}),
    ]
    for struct, mapping in pairs:
        assert np.array_equal(np.asarray(as_struct.update(struct)), np.asarray(as_dict.update(mapping)), equal_nan=True)


def test_arrays_of_any_layout_are_levels(make: Make) -> None:
    pairs = [[99.0, 1.0], [98.0, 2.0]]
    expected = make().update({"ts_ns": 1, "bids": pairs, "asks": [[101, 1]]}).as_dict()
    for levels in (np.array(pairs), np.array(pairs, order="F"), np.array(pairs, np.float32), np.array(pairs, np.int64)):
        assert make().update({"ts_ns": 1, "bids": levels, "asks": np.array([[101, 1]])}).as_dict() == pytest.approx(
            expected
        )


def test_events_without_a_time_are_a_millisecond_apart(make: Make) -> None:
    builder = make()
    builder.push({"mid": 0.5, "bid": 0.49, "ask": 0.51})
    assert builder.last_ts_ns == MS
    builder.push({"mid": 0.5, "bid": 0.49, "ask": 0.51})
    assert builder.last_ts_ns == 2 * MS


def test_sigma_is_the_deviation_of_the_last_returns(make: Make) -> None:
    builder = make(vol_window=3, window_5m_steps=3)
    mids = [100.0, 101.0, 99.0, 104.0, 103.0]
    for i, mid in enumerate(mids):
        v = quote(builder, i + 1, mid, mid)
    returns = [log_return(b, a) for a, b in pairwise(mids)]
    assert v.sigma == pytest.approx(np.std(returns[-3:]), rel=1e-13)
    assert v.sigma_5m == pytest.approx(np.std(returns[-2:]), rel=1e-13)  # three mids are two returns


def test_sigma_spike_z_waits_for_its_window(make: Make) -> None:
    builder = make(sigma_short_steps=3, sigma_long_steps=5)
    rng = np.random.default_rng(3)
    mids = np.exp(np.cumsum(rng.normal(0, 1e-3, 12))) * 100
    values = [quote(builder, i + 1, mid, mid).sigma_spike_z for i, mid in enumerate(mids.tolist())]
    assert values[:6] == [0.0] * 6  # the seventh mid is the first with max(short, long) + 2
    returns = np.diff(np.log(mids))
    for i in range(6, 12):
        last = returns[i - 6 : i]
        s = np.array([np.std(last[j : j + 3]) for j in range(4)])
        assert values[i] == pytest.approx((s[-1] - s.mean()) / s.std(), rel=1e-6)


def test_a_frozen_price_has_no_spike(make: Make) -> None:
    builder = make(sigma_short_steps=3, sigma_long_steps=5)
    for i in range(12):
        v = quote(builder, i + 1, 60_000.1, 60_000.2)
    assert (v.sigma, v.sigma_5m, v.sigma_spike_z) == (0.0, 0.0, 0.0)


def test_order_flow_of_each_kind_of_move(make: Make) -> None:
    builder = make()
    steps = [
        # bid, its size, ask, its size, e_n
        (100.0, 5.0, 101.0, 7.0, 0.0),
        (100.0, 8.0, 101.0, 6.0, 3.0 + 1.0),  # same prices: what was added, less what was added to the asks
        (100.5, 2.0, 101.0, 6.0, 2.0),  # a better bid is all new
        (100.0, 4.0, 101.0, 6.0, -2.0),  # a worse one took the old away
        (100.0, 4.0, 100.5, 3.0, -3.0),  # a better ask is all new supply
        (100.0, 4.0, 101.0, 9.0, 3.0),  # a worse one took the old away
    ]
    total = 0.0
    for i, (bid, bid_size, ask, ask_size, flow) in enumerate(steps):
        total += flow
        assert quote(builder, i + 1, bid, ask, bid_size, ask_size).ofi_5m == total


def test_a_count_window_forgets_the_oldest_pair_and_sample(make: Make) -> None:
    builder = make(window_5m_steps=2)
    quote(builder, 1, 100.0, 110.0, 50.0, 50.0)
    quote(builder, 2, 101.0, 103.0, 1.0, 1.0)
    v = quote(builder, 3, 101.0, 105.0, 4.0, 1.0)
    assert v.spread_med_5m == 3.0
    assert v.depth_p10_5m == pytest.approx(2.0 + 0.1 * 3.0)
    assert v.ofi_5m == 3.0 + 1.0
    assert v.sigma_5m == 0.0


@pytest.mark.parametrize("n", [1, 2, 5, 6, 10, 11, 31, 300])
def test_median_and_percentile_are_numpys(make: Make, n: int) -> None:
    builder = make(window_5m_steps=n)
    rng = np.random.default_rng(n)
    spreads, depths = [], []
    for i in range(2 * n + 3):
        half, size = rng.integers(0, 8) * 0.01, float(np.round(rng.exponential(3.0), rng.integers(0, 6)))
        v = quote(builder, i + 1, 100 - half, 100 + half, size, 0.0)
        spreads.append(v.spread)
        depths.append(v.depth)
        assert v.spread_med_5m == np.median(spreads[-n:])
        assert v.depth_p10_5m == np.percentile(depths[-n:], 10)


def test_a_time_window_holds_what_is_strictly_later_than_its_start(make: Make) -> None:
    builder = make(window_5m_steps=None, window_5m_ms=10)
    quote(builder, 1, 100.0, 101.0)
    quote(builder, 5, 100.0, 103.0)
    assert quote(builder, 10.999999, 100.0, 105.0).spread_med_5m == 3.0
    assert quote(builder, 11, 100.0, 107.0).spread_med_5m == 5.0  # the first left at exactly now - window


def test_a_time_window_needs_both_mids_of_a_return(make: Make) -> None:
    builder = make(window_5m_steps=None, window_5m_ms=10)
    for ms, mid in ((1, 100.0), (4, 110.0), (8, 90.0)):
        quote(builder, ms, mid, mid)
    v = quote(builder, 12, 95.0, 95.0)
    expected = [log_return(90.0, 110.0), log_return(95.0, 90.0)]
    assert v.sigma_5m == pytest.approx(np.std(expected), rel=1e-13)


def test_a_window_that_time_emptied_keeps_its_last_sample(make: Make) -> None:
    builder = make(window_5m_steps=None, window_5m_ms=10)
    quote(builder, 1, 100.0, 101.0, 2.0, 2.0)
    quote(builder, 2, 100.0, 103.0, 5.0, 2.0)
    builder.push_trade(3 * MS, 100.0, 1.0, 1)
    v = builder.update({"ts_ms": 900, "price": 102.0, "size": 3.0})
    assert (v.spread_med_5m, v.depth_p10_5m, v.ofi_5m, v.sigma_5m) == (3.0, 7.0, 0.0, 0.0)
    assert (v.vwap_5m, v.trade_imbalance_5m) == (102.0, 0.0)  # trades have left wholly
    alone = builder.update({"ts_ms": 2000, "bid": 100.0, "bid_depth": 1.0})
    assert (alone.spread_med_5m, alone.vwap_5m) == (3.0, 100.0)
    assert quote(builder, 2001, 100.0, 109.0).spread_med_5m == 9.0


def test_with_both_limits_the_tighter_one_counts(make: Make) -> None:
    builder = make(window_5m_steps=3, window_5m_ms=10)
    for ms, spread in ((1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)):
        v = quote(builder, ms, 100.0, 100.0 + spread)
    assert v.spread_med_5m == 3.0
    v = quote(builder, 13.5, 100.0, 105.0)
    assert v.spread_med_5m == 4.5


def test_trades_by_count_are_those_after_the_oldest_mid(make: Make) -> None:
    builder = make(window_5m_steps=2)
    early = builder.update({"ts_ns": 1, "price": 50.0, "size": 1.0, "aggressor": 1})
    assert math.isnan(early.mid)
    assert math.isnan(early.vwap_5m)  # before the first mid there is no window for it
    assert (early.trade_imbalance_5m, early.sigma, early.ofi_5m) == (0.0, 0.0, 0.0)
    quote(builder, 1, 99.0, 101.0)
    v = builder.update({"ts_ms": 2, "price": 100.0, "size": 1.0, "aggressor": 1})
    assert (v.vwap_5m, v.trade_imbalance_5m) == (100.0, 1.0)
    v = builder.update({"ts_ms": 2, "price": 103.0, "size": 2.0, "aggressor": -1})
    assert (v.vwap_5m, v.trade_imbalance_5m) == (102.0, pytest.approx(-1 / 3))
    quote(builder, 3, 99.0, 101.0)
    v = builder.update({"ts_ms": 4, "price": 90.0, "size": 1.0})
    assert (v.vwap_5m, v.trade_imbalance_5m) == (99.0, -0.25)
    v = quote(builder, 5, 99.0, 101.0)
    assert (v.vwap_5m, v.trade_imbalance_5m) == (90.0, 0.0)
    v = quote(builder, 6, 99.0, 101.0)
    assert (v.vwap_5m, v.trade_imbalance_5m) == (100.0, 0.0)


def test_trades_by_time_leave_one_by_one(make: Make) -> None:
    builder = make(window_5m_steps=None, window_5m_ms=10)
    first = builder.update({"ts_ms": 1, "price": 50.0, "size": 1.0, "aggressor": -1})
    assert (first.vwap_5m, first.trade_imbalance_5m) == (50.0, -1.0)
    quote(builder, 2, 99.0, 101.0)
    v = builder.update({"ts_ms": 8, "price": 100.0, "size": 1.0, "aggressor": 1})
    assert (v.vwap_5m, v.trade_imbalance_5m) == (75.0, 0.0)
    v = builder.update({"ts_ms": 11, "price": 100.0, "size": 1.0, "aggressor": 1})
    assert (v.vwap_5m, v.trade_imbalance_5m) == (100.0, 1.0)


def test_trades_with_both_limits_satisfy_both(make: Make) -> None:
    builder = make(window_5m_steps=1, window_5m_ms=10)
    builder.push({"ts_ms": 1, "price": 10.0, "size": 1.0})
    quote(builder, 2, 99.0, 101.0)
    builder.push({"ts_ms": 3, "price": 20.0, "size": 1.0})
    assert builder.update({"ts_ms": 14, "price": 30.0, "size": 1.0}).vwap_5m == 30.0  # the time limit
    assert quote(builder, 15, 99.0, 101.0).vwap_5m == 100.0  # the count limit


def test_a_trade_repeats_the_book_and_moves_time(make: Make) -> None:
    builder = make()
    book = quote(builder, 5, 99.0, 101.0)
    v = builder.update({"ts_ms": 8, "price": 100.0, "size": 1.0})
    assert {name: v[name] for name in FEATURE_NAMES[:16]} == {name: book[name] for name in FEATURE_NAMES[:16]}
    assert v.staleness_ms == 3.0
    assert v.staleness_max_5m == 0.0  # trades are no samples of it
    with pytest.raises(EventError, match="before the last accepted event"):
        quote(builder, 7, 99.0, 101.0)


def test_sums_are_right_after_a_huge_trade_has_left(make: Make) -> None:
    builder = make(window_5m_steps=2)
    quote(builder, 1, 99.0, 101.0)
    builder.push_trade(1 * MS, 1e140, 1e140, 1)
    for i in range(2, 5):
        quote(builder, i, 99.0, 101.0)
        builder.push_trade(i * MS, 100.0, 0.1, -1)
    assert builder.view[FEATURE_INDEX["vwap_5m"]] == pytest.approx(100.0, rel=1e-15)
    assert builder.view[FEATURE_INDEX["trade_imbalance_5m"]] == -1.0


def test_flows_that_cancel_leave_what_is_left(make: Make) -> None:
    builder = make()
    sizes = [0.1, 1e9 + 0.3, 0.7, 1e9 + 0.3, 0.2]
    for i, size in enumerate(sizes):
        v = quote(builder, i + 1, 100.0, 101.0, size, 1.0)
    assert v.ofi_5m == pytest.approx(0.1, rel=1e-6)  # the flows of 1e9 are rounded at 1e-7 each, the sum is not
    exact = math.fsum(b - a for a, b in pairwise(sizes))
    assert v.ofi_5m == exact


def test_staleness_is_told_at_now_and_has_its_maximum(make: Make) -> None:
    builder = make(window_5m_steps=2)
    assert builder.update(10 * MS, 99.0, 101.0, 1.0, 1.0, 25 * MS).staleness_ms == 15.0
    assert builder.update(20 * MS, 99.0, 101.0, 1.0, 1.0, now_ns=22 * MS).staleness_max_5m == 15.0
    v = builder.update({"ts_ms": 30, "bid": 99.0, "ask": 101.0}, now_ns=29 * MS)
    assert (v.staleness_ms, v.staleness_max_5m) == (0.0, 2.0)  # a clock behind the feed's is no negative age
    with pytest.raises(EventError, match="now_ns"):
        builder.update(31 * MS, 99.0, 101.0, 1.0, 1.0, -1)


def test_extreme_prices_keep_every_window_finite(make: Make) -> None:
    builder = make(vol_window=4)
    for i, price in enumerate([1e-300, 1e150, 5e-324, 1.0, 1e-150, 3.0]):
        v = quote(builder, i + 1, price, price)
        assert math.isfinite(v.sigma)
        assert math.isfinite(v.sigma_5m)


@pytest.mark.parametrize("book_type", [OrderBook, PlainOrderBook])
def test_a_book_is_an_event_of_its_best_levels(make: Make, book_type: Any) -> None:
    book = book_type(0.5, 10)
    book.apply_snapshot([(99.0, 1.0), (98.5, 2.0), (98.0, 9.0)], [(100.0, 3.0), (101.0, 4.0)], 1)
    builder, twin = make(levels=2), make(levels=2)
    builder.push_from_book(book, 7 * MS, 9 * MS)
    bids, asks = book.top(2)
    twin.push_book(7 * MS, bids, asks, 9 * MS)
    assert np.array_equal(builder.view, twin.view)
    assert builder.view[FEATURE_INDEX["depth"]] == 10.0
    with pytest.raises(EventError, match="both were missing"):
        builder.push_from_book(book_type(0.5, 10), 8 * MS)


def test_update_returns_a_vector_of_its_own(make: Make) -> None:
    builder = make()
    first = quote(builder, 1, 99.0, 101.0)
    quote(builder, 2, 50.0, 51.0)
    assert first.mid == 100.0
    assert isinstance(first, FeatureVector)


def test_the_view_is_live_and_read_only(make: Make) -> None:
    builder = make()
    view = builder.view
    quote(builder, 1, 99.0, 101.0)
    assert view[FEATURE_INDEX["mid"]] == 100.0
    assert builder.push(2 * MS, 50.0, 52.0, 1.0, 1.0) is None
    assert view[FEATURE_INDEX["mid"]] == 51.0
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1.0


def test_names_are_the_schemas(make: Make) -> None:
    assert make().names == FEATURE_NAMES


def test_concurrent_use_is_told_not_made_to_wait(backend: str) -> None:
    builder = FeatureBuilder(backend=backend)
    n = 400_000 if backend == "native" else 20_000
    table = {"ts_ns": np.arange(1, n + 1), "bid": np.full(n, 99.0), "ask": np.full(n, 101.0)}
    builder.run({name: column[:1] for name, column in table.items()})
    errors: list[BaseException] = []
    stop = threading.Event()

    def interfere() -> None:
        while not stop.is_set():
            try:
                builder.snapshot()
            except RuntimeError as error:
                errors.append(error)
                return

    thread = threading.Thread(target=interfere)
    thread.start()
    try:
        for _ in range(200):
            table["ts_ns"] += n
            try:
                builder.run(table)
            except RuntimeError as error:
                errors.append(error)
            if errors:
                break
    finally:
        stop.set()
        thread.join()
    assert errors
    assert "one owner" in str(errors[0])


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be one of auto, native, numba, reference, was 'gpu'"):
        FeatureBuilder(backend="gpu")


def test_the_environment_overrides_auto_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMI_BACKEND", "reference")
    assert FeatureBuilder().backend == "reference"
    if not available_backends()["native"]:
        assert FeatureBuilder(backend="native").backend == "native"
    monkeypatch.setenv("AMI_BACKEND", "abacus")
    with pytest.raises(ConfigError, match="AMI_BACKEND"):
        FeatureBuilder()


def test_an_absent_backend_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    from ami_engine.features import feature_builder

    monkeypatch.setattr(feature_builder, "find_spec", lambda name: None)
    assert "not installed" in available_backends()["numba"]
    with pytest.raises(BackendError, match="numba is not available: the package `numba` is not installed"):
        FeatureBuilder(backend="numba")


def test_auto_warns_once_when_only_the_reference_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    from ami_engine.features import feature_builder

    monkeypatch.delenv("AMI_BACKEND", raising=False)
    monkeypatch.setattr(feature_builder, "_warned", set())
    monkeypatch.setattr(feature_builder, "_why_not_native", lambda: "not built")
    monkeypatch.setattr(
        feature_builder, "available_backends", lambda: {"native": "not built", "numba": "not there", "reference": ""}
    )
    with pytest.warns(RuntimeWarning, match="slow reference backend: native: not built; numba: not there"):
        assert FeatureBuilder().backend == "reference"
    assert FeatureBuilder(FeatureConfig()).backend == "reference"
