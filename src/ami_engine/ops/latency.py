"""Latency percentiles in bounded memory.

A histogram with logarithmic buckets, each power of two cut into 32 equal parts, so that a percentile is right to about
3 % whatever the range (the idea of HdrHistogram, Gil Tene). Its size does not depend on how many values it saw.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["LatencyHistogram"]

_SUB_BITS = 5
_SUB = 1 << _SUB_BITS
# Keys of buckets wider than 1 ns start here: (shift << 8) + mantissa + this.
_WIDE = 1 << 20


class LatencyHistogram:
    """Counts of durations in nanoseconds.

    Examples
    --------
    >>> histogram = LatencyHistogram()
    >>> for ns in range(1, 1001):
    ...     histogram.add(ns * 1_000)
    >>> summary = histogram.summary_us()
    >>> 480 <= summary["p50"] <= 520, summary["max"]
    (True, 1000.0)
    """

    __slots__ = ("_counts", "_max", "_total")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._max = 0
        self._total = 0

    def add(self, ns: int) -> None:
        """Count one duration; a negative one (a clock that stepped) counts as 0."""
        self.add_many(np.array([ns], dtype=np.int64))

    def add_many(self, durations_ns: npt.NDArray[np.int64]) -> None:
        """Count many durations at once, which costs a hundredth of counting them one by one."""
        if not durations_ns.size:
            return
        ns = np.maximum(durations_ns, 0)
        # The exponent of a float64 is the bit length, right for every duration below 2**53 ns (104 days).
        shift = np.maximum(np.frexp(ns.astype(np.float64))[1].astype(np.int64) - _SUB_BITS - 1, 0)
        keys = np.where(ns < _SUB, ns, (shift << 8) + (ns >> shift) + _WIDE)
        counts = self._counts
        for key, count in zip(*(part.tolist() for part in np.unique(keys, return_counts=True)), strict=True):
            counts[key] = counts.get(key, 0) + count
        self._max = max(self._max, int(ns.max()))
        self._total += int(ns.size)

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return self._total

    def percentile_ns(self, fraction: float) -> float:
        """Return the duration that `fraction` of the values do not exceed, ns; 0 when nothing was counted."""
        if not self._total:
            return 0.0
        wanted = fraction * self._total
        seen = 0
        for key in sorted(self._counts):
            seen += self._counts[key]
            if seen >= wanted:
                return min(_bucket_middle(key), float(self._max))
        return float(self._max)

    def counts_ns(self) -> list[tuple[float, int]]:
        """Return the middle of every bucket that holds something, ns, and how many values it holds; shortest first."""
        return [(_bucket_middle(key), self._counts[key]) for key in sorted(self._counts)]

    def summary_us(self) -> dict[str, float]:
        """Return p50, p90, p99, p999 and max in microseconds."""
        summary = {
            name: round(self.percentile_ns(fraction) / 1_000, 3)
            for name, fraction in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999))
        }
        summary["max"] = round(self._max / 1_000, 3)
        return summary


def _bucket_middle(key: int) -> float:
    if key < _WIDE:
        return float(key)
    key -= _WIDE
    shift = (key - _SUB) >> 8
    mantissa = key - (shift << 8)
    return (mantissa + 0.5) * float(1 << shift)
