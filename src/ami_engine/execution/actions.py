"""What the order layer reports of one call."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from ami_engine.execution.broker_edge import RateLimited

__all__ = ["NOTHING_DONE", "Actions", "AuditSink", "Tally"]


class AuditSink(Protocol):
    """Anything that keeps audit lines."""

    def record(self, kind: str, /, **fields: Any) -> Any:
        """Keep one line."""
        ...


class Actions(msgspec.Struct, frozen=True, gc=False):
    """What one call did.

    Parameters
    ----------
    submitted : int
        Orders sent, whatever became of them.
    canceled : int
        Orders that the venue confirmed as cancelled.
    rejected : int
        Orders that the venue refused.
    failures : int
        Requests in which the venue failed: for the circuit breaker.
    in_doubt : int
        Requests whose outcome is unknown.
    skipped : int
        Quotes not sent because they are below the instrument's smallest order.
    withheld : int
        Orders that the engine's own gate kept back: nothing of them was sent.
    errors : tuple of str
        What went wrong, a line each; a decision without usable quotes is one of them. A refusal is not.
    halt : str
        Why the run must stop, empty when it need not. Said once; `OrderManager.halt_reason` keeps it.
    rate_limits : int
        Requests of which the venue said that they are too many.
    reconnects : int
        How often the broker could be read again after it could not.

    Examples
    --------
    >>> Actions() == NOTHING_DONE
    True
    """

    submitted: int = 0
    canceled: int = 0
    rejected: int = 0
    failures: int = 0
    in_doubt: int = 0
    skipped: int = 0
    errors: tuple[str, ...] = ()
    halt: str = ""
    withheld: int = 0
    rate_limits: int = 0
    reconnects: int = 0


NOTHING_DONE = Actions()


class Tally:
    """`Actions` while they are being counted."""

    __slots__ = (
        *("canceled", "errors", "failures", "halt", "in_doubt", "rate_limits", "reconnects", "rejected", "skipped"),
        *("submitted", "withheld"),
    )

    def __init__(self) -> None:
        self.submitted = self.canceled = self.rejected = self.failures = self.in_doubt = self.skipped = 0
        self.withheld = self.rate_limits = self.reconnects = 0
        self.errors: list[str] = []
        self.halt = ""

    def fail(self, error: str) -> None:
        """Count a failure of the venue."""
        self.failures += 1
        self.rate_limits += isinstance(error, RateLimited)
        self.errors.append(str(error))

    def total(self) -> Actions:
        """Return the counts; `NOTHING_DONE` itself when there are none."""
        actions = Actions(
            self.submitted,
            self.canceled,
            self.rejected,
            self.failures,
            self.in_doubt,
            self.skipped,
            tuple(dict.fromkeys(self.errors)),
            self.halt,
            self.withheld,
            self.rate_limits,
            self.reconnects,
        )
        return NOTHING_DONE if actions == NOTHING_DONE else actions
