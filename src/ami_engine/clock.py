"""The only place that reads time. Everything else is handed a `Clock`.

A recorded run is driven by a `ManualClock` that follows event time, so that it gives the same result whenever and
wherever it runs; a live run uses the `WallClock`.
"""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "ManualClock", "WallClock", "cpu_ns", "monotonic_ns", "perf_ns", "sleep"]

# Latency is measured with the monotonic performance counter: a step of the wall clock must not show as a latency.
perf_ns = time.perf_counter_ns
# Of this thread alone: what others do on a busy machine does not show in it, nor does any wait.
cpu_ns = time.thread_time_ns
monotonic_ns = time.monotonic_ns
sleep = time.sleep


class Clock(Protocol):
    """Anything that tells the time in nanoseconds since the Unix epoch."""

    def now_ns(self) -> int:
        """Return the time, ns since the Unix epoch."""
        ...


class WallClock:
    """The machine's wall clock.

    Examples
    --------
    >>> WallClock().now_ns() > 1_600_000_000_000_000_000
    True
    """

    __slots__ = ()

    def now_ns(self) -> int:
        """Return the wall time, ns since the Unix epoch."""
        return time.time_ns()


class ManualClock:
    """A clock that stands still until it is moved. It never goes backwards.

    Examples
    --------
    >>> clock = ManualClock(1_000)
    >>> clock.advance_to(2_000)
    >>> clock.advance_to(1_500)
    >>> clock.now_ns()
    2000
    """

    __slots__ = ("_now_ns",)

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns

    def now_ns(self) -> int:
        """Return the time that was last set, ns."""
        return self._now_ns

    def advance_to(self, now_ns: int) -> None:
        """Move the clock to `now_ns`; an earlier time leaves it where it is."""
        if now_ns > self._now_ns:
            self._now_ns = now_ns
