"""Whether others on the same host take of this processor: a fixed loop is timed beside every sample."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from ami_engine.clock import perf_ns

__all__ = ["HostWatch", "spin_ns"]

_SPINS = 3_000
_TRIES = 3
_PAUSE_S = 0.05


def spin_ns() -> float:
    """Return how long a fixed loop of the interpreter takes, ns: the least of three tries, a third of a ms each.

    >>> spin_ns() > 0.0
    True
    """
    keys = {number: number for number in range(64)}
    least = math.inf
    for _ in range(_TRIES):
        total = 0
        start = perf_ns()
        for number in range(_SPINS):
            total += keys[number & 63]
        least = min(least, perf_ns() - start)
    return least


class HostWatch:
    """Tells loud moments from quiet ones by a fixed loop, and waits for quiet ones while its patience lasts.

    A moment is loud when the loop takes `LOUD` times as long as it ever took. That says nothing of the cases: what is
    measured again does not depend on its figures. A neighbour on the same core shows so, which a guest of a
    shared machine cannot see otherwise. `least_ns` is what the loop took at best before, 0 where that is not known;
    `patience_s` how long to wait and measure again in all.

    Source: that disturbances only ever add time is what J. Chen and J. Revels, "Robust benchmarking in noisy
    environments" (arXiv:1608.04295), build on.

    >>> times = iter([100.0, 130.0, 90.0])
    >>> watch = HostWatch(spin=lambda: next(times))
    >>> [watch.look() for _ in range(3)], watch.is_loud(130.0), watch.is_loud(100.0)
    ([100.0, 130.0, 90.0], True, False)
    """

    LOUD = 1.2

    def __init__(
        self,
        least_ns: float = 0.0,
        patience_s: float = 0.0,
        *,
        spin: Callable[[], float] = spin_ns,
        now_ns: Callable[[], int] = perf_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.least_ns = least_ns or math.inf
        self._spin, self._now_ns, self._sleep = spin, now_ns, sleep
        self._patience_ns = patience_s * 1e9
        self._until_ns = math.inf

    def look(self) -> float:
        """Time the loop, ns."""
        taken = self._spin()
        self.least_ns = min(self.least_ns, taken)
        return taken

    def is_loud(self, taken_ns: float) -> bool:
        """Whether a loop that took so long was disturbed, after all that is known by now."""
        return taken_ns > self.LOUD * self.least_ns

    def wait(self) -> bool:
        """Wait for a quiet moment; False when the patience is at its end. It begins to run at the first call."""
        if self._until_ns == math.inf:
            self._until_ns = self._now_ns() + self._patience_ns
        while self._now_ns() < self._until_ns:
            if not self.is_loud(self.look()):
                return True
            self._sleep(_PAUSE_S)
        return False
