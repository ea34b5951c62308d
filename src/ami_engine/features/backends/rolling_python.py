"""Rolling primitives in plain Python: what `_core` offers natively, for installations without the compiled core."""

from __future__ import annotations

import math
from collections import deque
from typing import TypeVar

import msgspec

from ami_engine.errors import ConfigError

__all__ = ["RollingExtrema", "RollingMoments"]

_State = TypeVar("_State")

# A partial aggregate: how many values, their mean, and the sum of their squared distances from it.
_Moments = tuple[int, float, float]


def _merge(older: _Moments, newer: _Moments) -> _Moments:
    """Pairwise update of Chan, Golub & LeVeque (1979): exact moments of two runs laid end to end."""
    count_a, mean_a, m2_a = older
    count_b, mean_b, m2_b = newer
    if count_a == 0:
        return newer
    if count_b == 0:
        return older
    count = count_a + count_b
    delta = mean_b - mean_a
    share = count_b / count
    return count, mean_a + delta * share, m2_a + m2_b + delta * delta * (count_a * share)


def _checked_window(window: int) -> int:
    if window < 0:
        raise ConfigError(f"`window` must be at least 0, was {window}")
    return window


class _MomentsState(msgspec.Struct, array_like=True):
    older: list[_Moments]
    newer_values: list[float]
    newer: _Moments


class _ExtremaState(msgspec.Struct, array_like=True):
    first: int
    end: int
    rising: list[tuple[int, float]]
    falling: list[tuple[int, float]]


def _decoded(state: bytes, kind: type[_State]) -> _State:
    try:
        return msgspec.msgpack.decode(state, type=kind)
    except msgspec.MsgspecError as error:
        raise ValueError(f"the snapshot is damaged: {error}") from error


class RollingMoments:
    """Mean and population standard deviation of the last `window` values, without drift.

    The window is a queue of two stacks: the newer values are kept with one running aggregate, the older ones with the
    aggregate of each suffix, so that dropping the oldest value subtracts nothing. Values must be finite.

    Parameters
    ----------
    window : int
        How many of the latest values count; 0 keeps all until they are dropped. ConfigError when negative.

    Examples
    --------
    >>> moments = RollingMoments(2)
    >>> for value in (1.0e9, 3.0, 5.0):
    ...     moments.push(value)
    >>> moments.mean, moments.std, moments.count
    (4.0, 1.0, 2)
    """

    __slots__ = ("_newer", "_newer_values", "_older", "_window")

    def __init__(self, window: int) -> None:
        self._window = _checked_window(window)
        self._older: list[_Moments] = []  # aggregate of each suffix of the older values, oldest last
        self._newer_values: list[float] = []
        self._newer: _Moments = (0, 0.0, 0.0)

    def push(self, x: float) -> None:
        """Add a value; the oldest one leaves when the window is full. O(1) on average."""
        if 0 < self._window == self.count:
            self.drop_oldest()
        self._newer_values.append(x)
        self._newer = _merge(self._newer, (1, x, 0.0))

    def drop_oldest(self) -> None:
        """Take the oldest value out; ValueError when there is none. O(1) on average."""
        if not self.count:
            raise ValueError("the window is empty")
        if not self._older:
            self._turn_over()
        self._older.pop()

    def snapshot(self) -> bytes:
        """Return the state."""
        return msgspec.msgpack.encode(_MomentsState(self._older, self._newer_values, self._newer))

    def restore(self, state: bytes) -> None:
        """Take a state back; ValueError when it is damaged."""
        read = _decoded(state, _MomentsState)
        self._older, self._newer_values, self._newer = read.older, read.newer_values, read.newer

    def _turn_over(self) -> None:
        suffix: _Moments = (0, 0.0, 0.0)
        for value in reversed(self._newer_values):
            suffix = _merge((1, value, 0.0), suffix)
            self._older.append(suffix)
        self._newer_values.clear()
        self._newer = (0, 0.0, 0.0)

    def _total(self) -> _Moments:
        return _merge(self._older[-1], self._newer) if self._older else self._newer

    @property
    def count(self) -> int:
        """Number of values in the window."""
        return len(self._older) + len(self._newer_values)

    @property
    def mean(self) -> float:
        """Mean of the window; NaN while it is empty."""
        count, mean, _ = self._total()
        return mean if count else math.nan

    @property
    def std(self) -> float:
        """Population standard deviation (ddof = 0) of the window; NaN while it is empty."""
        count, _, m2 = self._total()
        return math.sqrt(m2 / count) if count else math.nan


class RollingExtrema:
    """Minimum and maximum of the last `window` values, by two monotonic queues.

    Parameters
    ----------
    window : int
        How many of the latest values count; 0 keeps all until they are dropped. ConfigError when negative.

    Examples
    --------
    >>> extrema = RollingExtrema(2)
    >>> for value in (9.0, 3.0, 5.0):
    ...     extrema.push(value)
    >>> extrema.min, extrema.max
    (3.0, 5.0)
    """

    __slots__ = ("_end", "_falling", "_first", "_rising", "_window")

    def __init__(self, window: int) -> None:
        self._window = _checked_window(window)
        self._first = 0  # number of the oldest value in the window
        self._end = 0  # number of the next one
        self._rising: deque[tuple[int, float]] = deque()  # minimum first
        self._falling: deque[tuple[int, float]] = deque()  # maximum first

    def push(self, x: float) -> None:
        """Add a value; the oldest one leaves when the window is full. O(1) on average."""
        rising, falling = self._rising, self._falling
        while rising and rising[-1][1] >= x:
            rising.pop()
        while falling and falling[-1][1] <= x:
            falling.pop()
        rising.append((self._end, x))
        falling.append((self._end, x))
        self._end += 1
        if 0 < self._window < self.count:
            self.drop_oldest()

    def drop_oldest(self) -> None:
        """Take the oldest value out; ValueError when there is none."""
        if not self.count:
            raise ValueError("the window is empty")
        for queue in (self._rising, self._falling):
            if queue[0][0] == self._first:
                queue.popleft()
        self._first += 1

    def snapshot(self) -> bytes:
        """Return the state."""
        return msgspec.msgpack.encode(_ExtremaState(self._first, self._end, [*self._rising], [*self._falling]))

    def restore(self, state: bytes) -> None:
        """Take a state back; ValueError when it is damaged."""
        read = _decoded(state, _ExtremaState)
        self._first, self._end = read.first, read.end
        self._rising, self._falling = deque(read.rising), deque(read.falling)

    @property
    def count(self) -> int:
        """Number of values in the window."""
        return self._end - self._first

    @property
    def min(self) -> float:
        """Smallest value in the window; NaN while it is empty."""
        return self._rising[0][1] if self._rising else math.nan

    @property
    def max(self) -> float:
        """Largest value in the window; NaN while it is empty."""
        return self._falling[0][1] if self._falling else math.nan
