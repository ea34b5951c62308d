"""The stateless form: histories in, dict out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ami_engine.errors import EventError
from ami_engine.events import GenericEvent
from ami_engine.features import FEATURE_NAMES, FeatureBuilder, FeatureConfig, build_features

QUOTE = {"mid": 0.5, "bid": 0.49, "ask": 0.51}


def test_the_documented_call() -> None:
    f = build_features(event=QUOTE, mid_history=[0.49, 0.50, 0.51], now_ms=1234567890)
    assert list(f) == list(FEATURE_NAMES)
    assert f["mid"] == 0.5
    assert f["spread_bps"] == pytest.approx(400.0, rel=1e-12)
    assert f["depth"] == 0.0
    assert f["staleness_ms"] == 0.0
    assert f["sigma"] == pytest.approx(np.std(np.diff(np.log([0.49, 0.50, 0.51, 0.5]))), rel=1e-12)


def test_the_documented_generic_call() -> None:
    f = build_features({"value": 0.5, "timestamp_ms": 1000, "metadata": {"source": "sensor_1"}}, history=[])
    assert f["value"] == 0.5
    assert f["ts_ms"] == 1000.0


def test_a_generic_history_fills_the_windows() -> None:
    f = build_features(GenericEvent(0, 2_000_000, "s", 0, {"value": 3.0}), history=[{"ts_ms": 1, "value": 1.0}])
    assert (f["value"], f["value.mean"], f["event_count"]) == (3.0, 2.0, 2.0)


def test_each_history_gives_its_own_features_with_this_event_appended() -> None:
    event = {"bid": 99.0, "ask": 101.0, "bid_depth": 4.0, "ask_depth": 6.0, "ts_ms": 100}
    config = FeatureConfig(window_5m_steps=3)
    f = build_features(
        event,
        spread_history=[9.0, 5.0, 1.0],
        depth_history=[100.0, 20.0, 30.0],
        staleness_history=[77.0, 3.0, 1.0],
        now_ms=102,
        config=config,
    )
    assert f["spread_med_5m"] == np.median([5.0, 1.0, 2.0])
    assert f["depth_p10_5m"] == np.percentile([20.0, 30.0, 10.0], 10)
    assert f["staleness_max_5m"] == 3.0
    assert f["staleness_ms"] == 2.0
    assert (f["sigma"], f["sigma_5m"]) == (0.0, 0.0)


def test_a_mid_history_rolls_like_the_builder() -> None:
    config = FeatureConfig(vol_window=10, window_5m_steps=20, sigma_short_steps=4, sigma_long_steps=12)
    mids = (100 * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 1e-3, 40)))).tolist()
    builder = FeatureBuilder(config)
    for mid in mids:
        row = builder.update({"mid": mid}).as_dict()
    f = build_features({"mid": mids[-1]}, mid_history=mids[:-1], config=config)
    for name in ("sigma", "sigma_5m", "sigma_spike_z"):
        assert f[name] == pytest.approx(row[name], rel=1e-7)


def test_a_history_of_events_enters_every_window() -> None:
    events = [{"bid": 99.0 - i, "ask": 101.0, "bid_depth": 1.0 + i, "ask_depth": 1.0} for i in range(5)]
    builder = FeatureBuilder()
    for event in events:
        row = builder.update(event).as_dict()
    assert build_features(events[-1], history=events[:-1]) == row


def test_without_a_count_the_whole_history_counts() -> None:
    config = FeatureConfig(window_5m_steps=None, window_5m_ms=1)
    f = build_features(QUOTE, spread_history=[5.0] * 9, mid_history=[0.4, 0.6], config=config)
    assert f["spread_med_5m"] == 5.0
    assert f["sigma_5m"] > 0.0


def test_a_one_sided_book_is_no_sample() -> None:
    f = build_features({"ask": 101.0}, mid_history=[100.0, 101.0, 99.0], spread_history=[2.0], depth_history=[])
    assert f["mid"] == 101.0
    assert f["spread_med_5m"] == 2.0
    assert f["sigma"] == pytest.approx(np.std(np.diff(np.log([100.0, 101.0, 99.0]))), rel=1e-12)
    assert math.isnan(f["depth_p10_5m"])


@pytest.mark.parametrize(
    ("histories", "field"),
    [
        ({"mid_history": [1.0, math.nan]}, "mid_history"),
        ({"mid_history": [0.0]}, "mid_history"),
        ({"spread_history": [-1.0]}, "spread_history"),
        ({"staleness_history": [math.inf]}, "staleness_history"),
    ],
)
def test_a_bad_history_is_refused_by_name(histories: dict[str, Any], field: str) -> None:
    with pytest.raises(EventError, match=field) as caught:
        build_features(QUOTE, **histories)
    assert caught.value.field == field


def test_a_bad_event_is_refused() -> None:
    with pytest.raises(EventError, match="above"):
        build_features({"bid": 2.0, "ask": 1.0})


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"now_ms": float("nan")}, "now_ms"),
        ({"now_ms": "soon"}, "now_ms"),
        ({"mid_history": "abc"}, "mid_history"),
        ({"depth_history": [None]}, "depth_history"),
    ],
)
def test_what_is_no_number_is_told_by_its_name(options: dict[str, Any], field: str) -> None:
    with pytest.raises(EventError, match=f"`{field}") as told:
        build_features({"bid": 0.49, "ask": 0.51}, **options)
    assert told.value.field == field
