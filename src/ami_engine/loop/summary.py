"""Counts a run and puts them into the summary that `run_loop` returns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ami_engine.book.grid import is_off_grid
from ami_engine.clock import perf_ns
from ami_engine.errors import EventError
from ami_engine.execution.order_manager import Actions
from ami_engine.ops.latency import LatencyHistogram
from ami_engine.security.redaction import redact_text

__all__ = ["EARLIEST_NS", "STAGES", "RunCounters", "grid_note", "time_notes"]

# A market's time before this (1973) was given in another unit, or not at all.
EARLIEST_NS = 10**17

STAGES = ("observe", "fills", "decide", "orders", "trace")
_MAX_PLACES = 20
# Steps whose times wait to be counted together.
_TIMES_KEPT = 4_096

# Kinds of ends that nobody asked for.
_FAILED_ENDS = frozenset({"trace_error", "event_error", "state_error", "source_error", "error"})


class RunCounters:
    """Everything that a run counts; its size does not grow with the run's length."""

    __slots__ = (
        "action_counts",
        "bad_places",
        "error_count",
        "fills",
        "hold_reasons",
        "last_error",
        "mismatch_reasons",
        "orders_canceled",
        "orders_in_doubt",
        "orders_rejected",
        "orders_skipped",
        "orders_submitted",
        "orders_withheld",
        "proposal_counts",
        "rejected_events",
        "stages",
        "started_ns",
        "steps",
        "timers",
        "total",
        "_pending_times",
    )

    def __init__(self) -> None:
        self.steps = self.timers = self.fills = self.error_count = 0
        self.orders_submitted = self.orders_canceled = self.orders_rejected = self.orders_in_doubt = (
            self.orders_skipped
        ) = self.orders_withheld = 0
        self.action_counts: dict[str, int] = {}
        self.proposal_counts: dict[str, int] = {}
        self.hold_reasons: dict[str, int] = {}
        self.mismatch_reasons: dict[str, int] = {}
        self.rejected_events: dict[str, int] = {}
        self.bad_places: list[str] = []
        self.last_error = ""
        self.total = LatencyHistogram()
        self.stages = {name: LatencyHistogram() for name in STAGES}
        self._pending_times: list[tuple[int, ...]] = []
        self.started_ns = perf_ns()

    def reject(self, error: EventError) -> None:
        """Count a bad event; the first places are kept."""
        self.rejected_events[error.reason] = self.rejected_events.get(error.reason, 0) + 1
        if len(self.bad_places) < _MAX_PLACES:
            self.bad_places.append(redact_text(str(error)))

    def decided(self, proposed: str, final: str, reasons: list[str]) -> None:
        """Count one step's proposal and verdict."""
        counts = self.proposal_counts
        counts[proposed] = counts.get(proposed, 0) + 1
        counts = self.action_counts
        counts[final] = counts.get(final, 0) + 1
        if final == "HOLD":
            holds = self.hold_reasons
            for reason in reasons:
                holds[reason] = holds.get(reason, 0) + 1

    def guarded(self, codes: list[str]) -> None:
        """Count the reason codes of the guards that fired, at steps and at timers."""
        mismatches = self.mismatch_reasons
        for code in codes:
            mismatches[code] = mismatches.get(code, 0) + 1

    def add_actions(self, actions: Actions) -> None:
        """Count what became of a step's orders."""
        self.orders_submitted += actions.submitted
        self.orders_canceled += actions.canceled
        self.orders_rejected += actions.rejected
        self.orders_in_doubt += actions.in_doubt
        self.orders_skipped += actions.skipped
        self.orders_withheld += actions.withheld
        if actions.errors:
            self.error_count += len(actions.errors)
            # What a broker says of an error may quote the request, credentials and all.
            self.last_error = redact_text(actions.errors[-1])

    def fail(self, error: str) -> None:
        """Count one error and remember it, without what must not be told."""
        self.error_count += 1
        self.last_error = redact_text(error)

    def ended(self, reason: str) -> None:
        """Count the end of the run as an error when nobody asked for it."""
        if reason.partition(":")[0] in _FAILED_ENDS:
            self.fail(reason)

    def timed(self, times: tuple[int, ...]) -> None:
        """Count a step's latencies: when it began, and when each of `STAGES` ended, ns."""
        pending = self._pending_times
        pending.append(times)
        if len(pending) == _TIMES_KEPT:
            self._count_times()

    def _count_times(self) -> None:
        if self._pending_times:
            times = np.array(self._pending_times, dtype=np.int64)
            self._pending_times.clear()
            self.timed_many(times)

    def timed_many(self, times: npt.NDArray[np.int64]) -> None:
        """Count the latencies of many steps, a row each."""
        for histogram, durations in zip(self.stages.values(), np.diff(times).T, strict=True):
            histogram.add_many(durations)
        self.total.add_many(times[:, -1] - times[:, 0])

    def to_dict(self) -> dict[str, Any]:
        """Return the counted part of the summary."""
        self._count_times()
        elapsed_s = max(perf_ns() - self.started_ns, 1) / 1e9
        latency: dict[str, Any] = dict(self.total.summary_us())
        latency["stages"] = {name: histogram.summary_us() for name, histogram in self.stages.items()}
        return {
            "steps": self.steps,
            "timer_count": self.timers,
            "action_counts": {str(action): count for action, count in self.action_counts.items()},
            "proposal_counts": {str(action): count for action, count in self.proposal_counts.items()},
            "hold_reason_counts": self.hold_reasons,
            "mismatch_reason_counts": self.mismatch_reasons,
            "orders_submitted": self.orders_submitted,
            "orders_canceled": self.orders_canceled,
            "orders_rejected": self.orders_rejected,
            "orders_in_doubt": self.orders_in_doubt,
            "orders_skipped": self.orders_skipped,
            "orders_withheld": self.orders_withheld,
            "fills_count": self.fills,
            "rejected_events": self.rejected_events,
            "rejected_places": self.bad_places,
            "error_count": self.error_count,
            "last_error": self.last_error,
            "latency_us": latency,
            "events_per_s": round((self.steps + self.timers) / elapsed_s, 1),
        }


def grid_note(symbol: str, bid: float, ask: float, tick_size: float) -> list[str]:
    """Say that a market's last prices do not fit its tick size, as when the two are in different units.

    >>> grid_note("X", 0.49, 0.51, 1.0)
    ['the last prices of X, 0.49 and 0.51, are no multiples of its tick size 1.0: are both right?']
    >>> grid_note("X", 0.49, 0.51, 0.01)
    []
    """
    if not all(0.0 < price < math.inf and is_off_grid(price, tick_size) for price in (bid, ask)):
        return []
    told = f"the last prices of {symbol}, {bid!r} and {ask!r}, are no multiples of its tick size {tick_size!r}"
    return [f"{told}: are both right?"]


def time_notes(last_ns: int, *, has_assumed_time: bool) -> list[str]:
    """Say what is odd about the times of a market's events, of which the last is `last_ns`.

    >>> time_notes(1_700_000_000_000_000_000, has_assumed_time=False)
    []
    """
    if has_assumed_time:
        return ["events without a time were dated 1 ms apart, from 1 ms on"]
    if 0 < last_ns < EARLIEST_NS:
        return ["the events are of the 1970s: they have no time, or one in another unit than its name says"]
    return []
