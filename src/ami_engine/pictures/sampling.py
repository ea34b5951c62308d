"""Points of a line of any length in bounded memory, without losing its extremes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["Extremes", "Spell", "Spells", "Thinned"]

T = TypeVar("T")
_INF = float("inf")


class _Bucket:
    """Neighbouring points of a line: its ends, its lowest and its highest."""

    __slots__ = ("count", "first_x", "first_y", "high_x", "high_y", "last_x", "last_y", "low_x", "low_y")

    def __init__(self, x: float, y: float) -> None:
        self.first_x = self.last_x = self.low_x = self.high_x = x
        self.first_y = self.last_y = y
        # A gap (NaN) is neither the lowest nor the highest.
        self.low_y, self.high_y = (y, y) if y == y else (_INF, -_INF)
        self.count = 1

    def add(self, x: float, y: float) -> None:
        if y < self.low_y:
            self.low_x, self.low_y = x, y
        if y > self.high_y:
            self.high_x, self.high_y = x, y
        self.last_x, self.last_y = x, y
        self.count += 1

    def absorb(self, other: _Bucket) -> None:
        if other.low_y < self.low_y:
            self.low_x, self.low_y = other.low_x, other.low_y
        if other.high_y > self.high_y:
            self.high_x, self.high_y = other.high_x, other.high_y
        self.last_x, self.last_y = other.last_x, other.last_y
        self.count += other.count

    def points(self) -> list[tuple[float, float]]:
        kept = [(self.first_x, self.first_y)]
        extremes = [(self.low_x, self.low_y), (self.high_x, self.high_y)] if self.low_y <= self.high_y else []
        for point in sorted(extremes):
            if point != kept[-1]:
                kept.append(point)
        last = (self.last_x, self.last_y)
        if self.count > 1 and last != kept[-1]:
            kept.append(last)
        return kept


class Extremes:
    """A line of steps: each value holds until the next one. At most `limit` buckets are kept, each with its first,
    lowest, highest and last point.

    While the line is short every bucket is one point. When the buckets are used up, neighbours are joined and hold
    twice as many points from then on. So no peak and no trough is ever lost, and memory does not grow. A value that
    repeats the one before it adds no point, as it moves nothing. A NaN is a gap.

    Parameters
    ----------
    limit : int
        Most buckets, at least 2 and even.

    Examples
    --------
    >>> line = Extremes(4)
    >>> for x in range(1_000):
    ...     line.add(x, 99.0 if x == 777 else 0.0)
    >>> (777, 99.0) in line.points(), len(line.points()) <= 16, line.count
    (True, True, 1000)
    """

    __slots__ = ("_buckets", "_last", "_limit", "_room", "_stride", "count")

    def __init__(self, limit: int) -> None:
        if limit < 2 or limit % 2:
            raise ValueError(f"`limit` must be even and at least 2, was {limit}")
        self.count = 0
        self._limit = limit
        self._last: float | None = None
        self._stride = 1
        self._room = 0  # points that the last bucket still takes
        self._buckets: list[_Bucket] = []

    @property
    def stride(self) -> int:
        """How many moves of the line one bucket holds; 1 while nothing was left out."""
        return self._stride

    def add(self, x: float, y: float) -> None:
        """Add the next point; `x` must not decrease. `count` counts it in any case."""
        self.count += 1
        last = self._last
        if y == last or (y != y and last is not None and last != last):
            return
        self._last = y
        if self._room:
            self._buckets[-1].add(x, y)
            self._room -= 1
            return
        if len(self._buckets) == self._limit:
            self._halve()
        self._buckets.append(_Bucket(x, y))
        self._room = self._stride - 1

    def _halve(self) -> None:
        buckets = self._buckets
        for left, right in zip(buckets[::2], buckets[1::2], strict=True):
            left.absorb(right)
        self._buckets = buckets[::2]
        self._stride *= 2

    def points(self) -> list[tuple[float, float]]:
        """Return what is kept, in the order of the line."""
        return [point for bucket in self._buckets for point in bucket.points()]


class Thinned(Generic[T]):
    """The first `cap` of a row of things; of a longer row every second, every fourth … evenly over its whole length.

    >>> row = Thinned(4)
    >>> for number in range(10):
    ...     row.add(number)
    >>> list(row), row.count
    ([0, 4, 8], 10)
    """

    __slots__ = ("_cap", "_kept", "_stride", "count")

    def __init__(self, cap: int) -> None:
        self.count = 0
        self._cap = cap
        self._stride = 1
        self._kept: list[T] = []

    def add(self, item: T) -> None:
        """Add the next one."""
        if self.count % self._stride == 0:
            if len(self._kept) == self._cap:
                self._kept = self._kept[::2]
                self._stride *= 2
            if self.count % self._stride == 0:
                self._kept.append(item)
        self.count += 1

    def __iter__(self) -> Iterator[T]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)


class Spell:
    """Time from `start` to `end`, decisions `first_step` to `step`, in `count` of which something was so."""

    __slots__ = ("count", "end", "first_step", "start", "step")

    def __init__(self, step: int, x: float) -> None:
        self.first_step = self.step = step
        self.start, self.end, self.count = x, x, 1


class Spells:
    """When something was so: decisions that follow one another are one spell, and at most `limit` spells are kept.

    When there are more, neighbours are joined, the time between them included; `count` stays exact.

    >>> spells = Spells(10)
    >>> for step in (1, 2, 3, 7):
    ...     spells.add(step, step * 10.0)
    >>> [(spell.start, spell.end, spell.count) for spell in spells], spells.count
    ([(10.0, 30.0, 3), (70.0, 70.0, 1)], 4)
    """

    __slots__ = ("_kept", "_limit", "_reach", "count")

    def __init__(self, limit: int) -> None:
        self.count = 0
        self._limit = limit
        self._reach = 1  # how many decisions later still belongs to the spell
        self._kept: list[Spell] = []

    @property
    def are_joined(self) -> bool:
        """Whether spells were joined over decisions in which it was not so."""
        return self._reach > 1

    def add(self, step: int, x: float) -> None:
        """Say that it was so in decision `step`, at `x`."""
        self.count += 1
        last = self._kept[-1] if self._kept else None
        if last is not None and step - last.step <= self._reach:
            last.step, last.end = step, x
            last.count += 1
            return
        if len(self._kept) == self._limit:
            self._join()
        self._kept.append(Spell(step, x))

    def _join(self) -> None:
        """Double the reach until half of the spells are gone."""
        while len(self._kept) > self._limit // 2:
            self._reach *= 2
            joined: list[Spell] = []
            for spell in self._kept:
                last = joined[-1] if joined else None
                if last is not None and spell.first_step - last.step <= self._reach:
                    last.step, last.end = spell.step, spell.end
                    last.count += spell.count
                else:
                    joined.append(spell)
            self._kept = joined

    def __iter__(self) -> Iterator[Spell]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)
