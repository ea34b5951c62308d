"""Features of events without a price: names, windows, limits, state."""

from __future__ import annotations

import math
import pickle
import sys
from typing import Any

import numpy as np
import pytest

from ami_engine.errors import EventError
from ami_engine.events import GenericEvent, TimerEvent
from ami_engine.features import FeatureConfig
from ami_engine.features.generic import GenericFeatureBuilder, is_generic


@pytest.fixture(params=["compiled", "plain"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The primitives under the builder: compiled, or the plain ones that stand in for an absent core."""
    if request.param == "plain":
        monkeypatch.setitem(sys.modules, "ami_engine._core", None)
    else:
        pytest.importorskip("ami_engine._core", reason="needs the compiled core")
    return str(request.param)


def make(**parameters: Any) -> GenericFeatureBuilder:
    return GenericFeatureBuilder(FeatureConfig(**parameters))


@pytest.mark.usefixtures("kind")
def test_every_finite_number_is_a_feature_at_its_path() -> None:
    fields = {
        "value": 0.5,
        "count": 3,
        "flag": True,
        "numpy": np.float32(0.25),
        "deep": {"er": {"x": -1}},
        1: 7.0,
        "text": "0.5",
        "none": None,
        "nan": math.nan,
        "infinite": math.inf,
        "huge": 10**400,
        "list": [1.0, 2.0],
        "complex": 1j,
    }
    f = make().update(GenericEvent(0, 5_000_000, "s", 0, fields))
    plain = {
        name: value for name, value in f.items() if not name.endswith((".mean", ".std", ".min", ".max", ".z", "_s"))
    }
    expected = {"value": 0.5, "count": 3.0, "flag": 1.0, "numpy": 0.25, "deep.er.x": -1.0, "1": 7.0}
    assert plain == {"ts_ms": 5.0, "event_count": 1.0, **expected}
    for name, value in expected.items():
        statistics = [f[f"{name}.{each}"] for each in ("mean", "std", "min", "max", "z", "rate_per_s")]
        assert statistics == [value, 0.0, value, value, 0.0, 0.0]
    assert len(f) == 2 + 7 * len(expected)


@pytest.mark.usefixtures("kind")
def test_statistics_are_those_of_the_window() -> None:
    builder = make(window_5m_steps=3)
    for ms, value in ((1_000, 50.0), (2_000, 1.0), (2_500, 2.0), (4_000, 6.0)):
        f = builder.update({"ts_ms": ms, "x": value})
    assert (f["x.mean"], f["x.min"], f["x.max"], f["x.rate_per_s"]) == (3.0, 1.0, 6.0, 2.5)
    assert f["x.std"] == pytest.approx(np.std([1.0, 2.0, 6.0]), rel=1e-14)
    assert f["x.z"] == pytest.approx(3.0 / np.std([1.0, 2.0, 6.0]), rel=1e-14)
    assert (f["ts_ms"], f["event_count"]) == (4_000.0, 4.0)


@pytest.mark.usefixtures("kind")
def test_time_empties_a_window_down_to_its_last_sample() -> None:
    builder = make(window_5m_steps=None, window_5m_ms=10)
    builder.push({"ts_ms": 1, "x": 1.0})
    builder.push({"ts_ms": 2, "x": 3.0})
    assert builder.update({"ts_ms": 11, "y": 1.0})["x.mean"] == 3.0
    f = builder.update({"ts_ms": 500, "y": 1.0})
    assert f["x.mean"] == 3.0  # known from its last sample, but not said by this event
    assert "x" not in f


@pytest.mark.usefixtures("kind")
def test_with_both_limits_the_tighter_one_counts() -> None:
    builder = make(window_5m_steps=2, window_5m_ms=10)
    for ms in (1, 2, 3):
        f = builder.update({"ts_ms": ms, "x": float(ms)})
    assert f["x.min"] == 2.0
    assert builder.update({"ts_ms": 13, "x": 13.0})["x.min"] == 13.0


@pytest.mark.usefixtures("kind")
def test_what_is_not_finite_enters_no_window() -> None:
    builder = make()
    builder.push({"x": 1.0})
    for value in (math.nan, math.inf, None, "2", 1e200):
        builder.push({"x": value})
    f = builder.update({"x": 3.0})
    assert (f["x.mean"], f["x.max"]) == (2.0, 3.0)


def test_the_257th_name_is_refused_by_name() -> None:
    builder = make()
    builder.push({f"field_{i}": i for i in range(256)})
    before = builder.snapshot()
    with pytest.raises(EventError, match="`extra` is one more") as caught:
        builder.push({"field_0": 5.0, "extra": 1.0})
    assert (caught.value.reason, caught.value.field) == ("too_many_names", "extra")
    assert builder.snapshot() == before
    builder.push({"field_0": 5.0, "text": "not a number"})


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"ts_ms": 0, "x": 1.0}, "non_positive_time"),
        ({"ts_ms": 4, "x": 1.0}, "time_backwards"),
        ({"ts_ms": None, "x": 1.0}, "malformed"),
        (GenericEvent(0, 0, "s", 0, {"x": 1.0}), "non_positive_time"),
        (7, "wrong_type"),
        (TimerEvent(10**9, "s"), "wrong_type"),
    ],
)
def test_a_bad_event_is_refused_and_leaves_no_trace(event: Any, reason: str) -> None:
    builder = make()
    builder.push({"ts_ms": 5, "x": 1.0})
    before = builder.snapshot()
    with pytest.raises(EventError) as caught:
        builder.push(event)
    assert caught.value.reason == reason
    assert builder.snapshot() == before


def test_an_event_nested_without_end_is_refused() -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    with pytest.raises(EventError, match="at most 32 deep"):
        make().push(endless)


def test_times_of_a_mapping_are_features_without_statistics() -> None:
    f = make().update({"timestamp_ms": 1_000, "seq": 4, "x": 1.0})
    assert (f["timestamp_ms"], f["seq"], f["ts_ms"]) == (1_000.0, 4.0, 1_000.0)
    assert "timestamp_ms.mean" not in f
    assert "seq.mean" not in f


def test_events_without_a_time_are_a_millisecond_apart() -> None:
    builder = make()
    builder.push({"x": 1.0})
    assert builder.update({"x": 2.0})["ts_ms"] == 2.0


def test_a_dict_that_was_a_struct_reads_like_it() -> None:
    struct = make().update(GenericEvent(0, 7_000_000, "s", 3, {"x": 1.0}))
    mapping = make().update({"type": "generic", "recv_ts_ns": 7_000_000, "symbol": "s", "seq": 3, "fields": {"x": 1.0}})
    assert mapping == struct


def test_a_view_is_left_alone_by_later_events() -> None:
    builder = make()
    builder.push({"x": 1.0})
    view = builder.view
    builder.push({"x": 5.0})
    assert view["x"] == 1.0
    assert builder.view["x"] == 5.0
    assert builder.names == tuple(builder.view)


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("window", [{"window_5m_steps": 13}, {"window_5m_steps": None, "window_5m_ms": 9}])
def test_a_restored_builder_goes_on_bit_for_bit(window: dict[str, Any]) -> None:
    rng = np.random.default_rng(6)
    events = [
        {"a": x, "b": {"c": y}} if z else {"a": x}
        for x, y, z in zip(rng.normal(size=90), rng.normal(size=90), rng.integers(0, 2, 90), strict=True)
    ]
    builder = make(**window)
    for event in events[:40]:
        builder.push(event)
    restored = make(**window)
    restored.restore(builder.snapshot())
    pickled = pickle.loads(pickle.dumps(builder))
    assert restored.view == builder.view
    for event in events[40:]:
        expected = builder.update(event)
        assert restored.update(event) == expected
        assert pickled.update(event) == expected


@pytest.mark.usefixtures("kind")
def test_a_damaged_snapshot_is_refused_and_changes_nothing() -> None:
    builder = make()
    builder.push({"x": 1.0})
    state = builder.snapshot()
    for damaged in (b"", state[:-1], state[:-1] + bytes([state[-1] ^ 1]), make(levels=2).snapshot()):
        with pytest.raises(ValueError, match="snapshot"):
            builder.restore(damaged)
        assert builder.snapshot() == state


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"value": 1.0}, True),
        ({"price": 1.0}, True),
        ({"price": 1.0, "size": 1.0}, False),
        ({"mid": 1.0}, False),
        ({"bids": []}, False),
        ({"close": 1.0}, False),
        (GenericEvent(), True),
        (TimerEvent(), False),
    ],
)
def test_an_event_without_a_price_is_generic(event: Any, expected: bool) -> None:
    assert is_generic(event) is expected
