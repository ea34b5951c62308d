"""The rolling primitives, compiled and plain, against exact arithmetic over the window they should hold."""

from __future__ import annotations

import math
from collections import deque
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ami_engine.features.backends import rolling_python


def _implementations() -> list[Any]:
    core = pytest.importorskip("ami_engine._core", reason="needs the compiled core")
    return [core, rolling_python]


@pytest.fixture(params=["compiled", "plain"])
def rolling(request: pytest.FixtureRequest) -> Any:
    if request.param == "plain":
        return rolling_python
    return pytest.importorskip("ami_engine._core", reason="needs the compiled core")


def exact_moments(values: list[float]) -> tuple[float, float]:
    fractions = [Fraction(value) for value in values]
    mean = sum(fractions, Fraction(0)) / len(fractions)
    variance = sum(((x - mean) ** 2 for x in fractions), Fraction(0)) / len(fractions)
    return float(mean), math.sqrt(float(variance))


# Pushes of a number, and drops (None), in any order: every way in which a queue of two ends can be walked.
# Numbers whose squares underflow have no variance in doubles at all: below 1e-100 there is only zero.
numbers = st.floats(-1e6, 1e6, allow_nan=False).filter(lambda x: x == 0.0 or abs(x) > 1e-100)
operations = st.lists(st.one_of(st.none(), numbers), max_size=120)


@given(operations)
@settings(max_examples=150, deadline=None)
def test_moments_are_those_of_the_values_held(ops: list[float | None]) -> None:
    for implementation in _implementations():
        moments = implementation.RollingMoments(0)
        held: deque[float] = deque()
        for value in ops:
            if value is not None:
                moments.push(value)
                held.append(value)
            elif held:
                moments.drop_oldest()
                held.popleft()
            assert moments.count == len(held)
            if held:
                mean, std = exact_moments(list(held))
                scale = max(map(abs, held))
                assert moments.mean == pytest.approx(mean, rel=1e-13, abs=1e-15 * scale)
                assert moments.std == pytest.approx(std, rel=1e-12, abs=1e-15 * scale)


@given(operations)
@settings(max_examples=150, deadline=None)
def test_extrema_are_those_of_the_values_held(ops: list[float | None]) -> None:
    for implementation in _implementations():
        extrema = implementation.RollingExtrema(0)
        held: deque[float] = deque()
        for value in ops:
            if value is not None:
                extrema.push(value)
                held.append(value)
            elif held:
                extrema.drop_oldest()
                held.popleft()
            if held:
                assert (extrema.min, extrema.max) == (min(held), max(held))


def test_a_window_by_count_lets_the_oldest_go(rolling: Any) -> None:
    moments, extrema = rolling.RollingMoments(3), rolling.RollingExtrema(3)
    for value in (100.0, 1.0, 2.0, 3.0):
        moments.push(value)
        extrema.push(value)
    assert (moments.count, moments.mean) == (3, 2.0)
    assert (extrema.count, extrema.min, extrema.max) == (3, 1.0, 3.0)


def test_a_huge_value_leaves_no_trace(rolling: Any) -> None:
    moments = rolling.RollingMoments(50)
    values = [1e-4 * math.sin(i) for i in range(200)]
    for i, value in enumerate(values):
        moments.push(1e12 if i == 20 else value)
    _, std = exact_moments(values[-50:])
    assert moments.std == pytest.approx(std, rel=1e-14)


def test_equal_values_have_a_deviation_of_exactly_zero(rolling: Any) -> None:
    moments = rolling.RollingMoments(7)
    for _ in range(40):
        moments.push(0.1)
        assert moments.std == 0.0


def test_an_empty_window_has_no_statistics(rolling: Any) -> None:
    moments, extrema = rolling.RollingMoments(2), rolling.RollingExtrema(2)
    assert math.isnan(moments.mean)
    assert math.isnan(moments.std)
    assert math.isnan(extrema.min)
    for window in (moments, extrema):
        with pytest.raises(ValueError, match="empty"):
            window.drop_oldest()


def test_a_restored_window_goes_on_bit_for_bit(rolling: Any) -> None:
    values = [math.sin(i * i) for i in range(90)]
    for kind, names in (("RollingMoments", ("mean", "std")), ("RollingExtrema", ("min", "max"))):
        window = getattr(rolling, kind)(20)
        for value in values[:45]:
            window.push(value)
        twin = getattr(rolling, kind)(20)
        twin.restore(window.snapshot())
        for value in values[45:]:
            window.push(value)
            twin.push(value)
            assert [getattr(window, name) for name in names] == [getattr(twin, name) for name in names]


def test_damaged_states_are_refused(rolling: Any) -> None:
    for kind in ("RollingMoments", "RollingExtrema"):
        window = getattr(rolling, kind)(4)
        window.push(1.0)
        for damaged in (b"", window.snapshot()[:-1], window.snapshot() + b"\0"):
            with pytest.raises(ValueError):
                window.restore(damaged)
        assert window.count == 1


def test_the_compiled_window_refuses_what_is_not_finite() -> None:
    core = pytest.importorskip("ami_engine._core", reason="needs the compiled core")
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="finite"):
            core.RollingMoments(2).push(value)
