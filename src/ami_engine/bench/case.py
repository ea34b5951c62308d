"""What a benchmark is made of: cases, the ratios between them, and the group that is measured together."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, NamedTuple

from ami_engine.clock import perf_ns

__all__ = ["SCALES", "AnswerError", "Case", "Group", "Prepared", "Ratio", "Scale", "require"]


_TIMES = ("ns", "µs", "ms", "s")


class AnswerError(AssertionError):
    """A case computed something else than it must: its time means nothing."""


def require(holds: Any, message: str) -> None:
    """Raise `AnswerError` with `message` unless `holds`.

    >>> require(1 + 1 == 2, "arithmetic is broken")
    """
    if not holds:
        raise AnswerError(message)


class Scale(NamedTuple):
    """How much work a case does: rows of a batch, calls from Python, steps of a loop, rounds of everything.

    `patience_s` is how long a group may wait for a quiet host, and measure again for it.
    """

    rows: int
    calls: int
    steps: int
    symbols: int
    long_steps: int
    rounds: int
    patience_s: float


SCALES = {
    "full": Scale(
        rows=200_000, calls=50_000, steps=20_000, symbols=1_000, long_steps=500_000, rounds=15, patience_s=60.0
    ),
    "quick": Scale(rows=50_000, calls=10_000, steps=4_000, symbols=400, long_steps=40_000, rounds=7, patience_s=3.0),
    # What the tests run: enough to fill every window.
    "tiny": Scale(rows=1_500, calls=600, steps=500, symbols=20, long_steps=2_000, rounds=1, patience_s=0.0),
}


def _nothing() -> None:
    return None


class Prepared(NamedTuple):
    """A case with its input made: `check` its answer once, then time `run`.

    `events` is what a time is divided by; 0 says that `run` returns the figure itself. `reset` is called before each
    `run`, untimed; `close` at the end.
    """

    run: Callable[[], Any]
    check: Callable[[], None]
    events: int
    reset: Callable[[], Any] = _nothing
    close: Callable[[], Any] = _nothing

    def sample(self) -> float:
        """Run once and return the figure: time per event in ns, or what `run` measured itself."""
        self.reset()
        gc.collect()
        gc.disable()
        try:
            start = perf_ns()
            figure = self.run()
            elapsed = perf_ns() - start
        finally:
            gc.enable()
        return elapsed / self.events if self.events else float(figure)


class Case(NamedTuple):
    """One thing that is measured.

    `needs` names the packages without which it cannot run; `is_peer` marks other people's software, run on demand;
    `rounds` bounds how often a slow one runs, 0 for as often as the others.
    """

    name: str
    measures: str
    prepare: Callable[[Scale], Prepared]
    unit: str = "ns/event"
    needs: tuple[str, ...] = ()
    is_peer: bool = False
    rounds: int = 0

    @property
    def is_timed(self) -> bool:
        """Whether its figure is a time, which a loud host lengthens."""
        return self.unit.partition("/")[0] in _TIMES


class Ratio(NamedTuple):
    """A claim: (numerator − less) / denominator, round by round, and the median of that.

    Without a denominator the figure itself is the claim. `reach` and `aim` are upper bounds; 0 where nothing is
    claimed.
    """

    name: str
    claim: str
    numerator: str
    denominator: str = ""
    less: str = ""
    reach: float = 0.0
    aim: float = 0.0

    @property
    def cases(self) -> tuple[str, ...]:
        """Names of the cases it is made of."""
        return tuple(name for name in (self.numerator, self.denominator, self.less) if name)


class Group(NamedTuple):
    """Cases that run interleaved in one process of their own, and the ratios between them.

    An `is_opt_in` group runs only when its name is asked for.
    """

    name: str
    cases: tuple[Case, ...]
    ratios: tuple[Ratio, ...] = ()
    is_opt_in: bool = False
