"""What can go wrong between an engine and a venue: kinds of faults, and seeded plans of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import StrEnum

import msgspec

from ami_engine.errors import ConfigError
from ami_engine.sim.splitmix import SplitMix

__all__ = ["FAULTS", "Fault", "FaultKind", "FaultPlan", "Occasion"]


class Occasion(StrEnum):
    """What is counted, so that a fault can say when it strikes."""

    SUBMIT = "submit"
    CANCEL = "cancel"  # of one order or of all
    QUERY = "query"  # of one order, of the open orders, of fills or balances
    POLL = "poll"  # a look at the stream
    FILL = "fill"  # an execution at the venue


class FaultKind(StrEnum):
    """The faults. `FAULTS` says when each may strike and what its value means."""

    TIMEOUT_AFTER = "timeout_after"  # done at the venue, the reply lost
    TIMEOUT_BEFORE = "timeout_before"  # lost on the way there
    LATE_ARRIVAL = "late_arrival"  # taken for lost, and arrives `value` ms later
    DUPLICATE_ACK = "duplicate_ack"  # the request reaches the venue twice, and the stream repeats its word
    GARBAGE = "garbage"  # done at the venue, the reply unreadable
    SLOW_REPLY = "slow_reply"  # done, and answered `value` ms later
    RATE_LIMIT_STORM = "rate_limit_storm"  # the next `value` requests are refused, this one first
    OUTAGE = "outage"  # requests of this occasion fail for `value` ms, the others work
    DISCONNECT = "disconnect"  # done, the reply lost with the connection, which is down for `value` ms
    STALE_SNAPSHOT = "stale_snapshot"  # a disconnect; for as long again, queries answer as it was before
    CLOCK_STEP = "clock_step"  # the venue's clock steps by `value` ms
    FILL_BEFORE_ACK = "fill_before_ack"  # the order trades at once and the stream says so; the ack is lost
    FILL_RACES_CANCEL = "fill_races_cancel"  # a part fills while the cancel is under way
    DUPLICATE_FILL = "duplicate_fill"  # the stream tells a fill twice, the second time `value` ms later
    LATE_FILL = "late_fill"  # told only after its order was cancelled, or `value` ms later
    LOST_FILL = "lost_fill"  # the stream never tells it; a query does
    OUT_OF_ORDER_FILLS = "out_of_order_fills"  # told after the fill that follows it, or `value` ms later
    OVERFILL = "overfill"  # fills `value` lots more than was ordered


class _Form(msgspec.Struct, frozen=True):
    occasions: tuple[Occasion, ...]
    low: int = 0
    high: int = 0


_SUBMIT, _CANCEL, _QUERY, _FILL = Occasion.SUBMIT, Occasion.CANCEL, Occasion.QUERY, Occasion.FILL
_K = FaultKind

FAULTS: dict[FaultKind, _Form] = {
    _K.TIMEOUT_AFTER: _Form((_SUBMIT, _CANCEL)),
    _K.TIMEOUT_BEFORE: _Form((_SUBMIT, _CANCEL, _QUERY)),
    _K.LATE_ARRIVAL: _Form((_SUBMIT, _CANCEL), 50, 5_000),
    _K.DUPLICATE_ACK: _Form((_SUBMIT, _CANCEL)),
    _K.GARBAGE: _Form((_SUBMIT, _CANCEL, _QUERY)),
    _K.SLOW_REPLY: _Form((_SUBMIT, _CANCEL, _QUERY), 50, 400),
    _K.RATE_LIMIT_STORM: _Form((_SUBMIT, _CANCEL, _QUERY), 1, 12),
    _K.OUTAGE: _Form((_SUBMIT, _CANCEL, _QUERY, Occasion.POLL), 100, 3_000),
    _K.DISCONNECT: _Form((_SUBMIT, _CANCEL, Occasion.POLL), 50, 2_000),
    _K.STALE_SNAPSHOT: _Form((_SUBMIT, _CANCEL, Occasion.POLL), 50, 400),
    _K.CLOCK_STEP: _Form((_SUBMIT, _CANCEL), -300, 300),
    _K.FILL_BEFORE_ACK: _Form((_SUBMIT,)),
    _K.FILL_RACES_CANCEL: _Form((_CANCEL,)),
    _K.DUPLICATE_FILL: _Form((_FILL,), 0, 1_500),
    _K.LATE_FILL: _Form((_FILL,), 100, 1_500),
    _K.LOST_FILL: _Form((_FILL,)),
    _K.OUT_OF_ORDER_FILLS: _Form((_FILL,), 100, 1_000),
    _K.OVERFILL: _Form((_FILL,), 1, 3),
}
"""For each kind: the occasions at which it may strike, and the range from which seeded plans draw its value."""


class Fault(msgspec.Struct, frozen=True, order=True, gc=False):
    """One fault: what, at the how manieth occasion (counted from 1), and how much.

    Raises
    ------
    ConfigError
        When the kind cannot strike at that occasion, or `nth` is below 1.

    Examples
    --------
    >>> str(Fault(FaultKind.LATE_ARRIVAL, Occasion.SUBMIT, 3, 800))
    'late_arrival@submit:3=800'
    >>> Fault.parse("late_arrival@submit:3=800").value
    800
    """

    kind: FaultKind
    occasion: Occasion
    nth: int
    value: int = 0

    def __post_init__(self) -> None:
        allowed = FAULTS[self.kind].occasions
        if self.occasion not in allowed:
            raise ConfigError(f"`{self.kind}` strikes at {' or '.join(allowed)}, was {self.occasion}")
        if self.nth < 1:
            raise ConfigError(f"`nth` of a fault must be at least 1, was {self.nth!r}")

    def __str__(self) -> str:
        value = f"={self.value}" if self.value else ""
        return f"{self.kind}@{self.occasion}:{self.nth}{value}"

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read what `str` wrote.

        Raises
        ------
        ConfigError
            When `text` names no fault.
        """
        try:
            kind, _, rest = text.strip().partition("@")
            place, _, value = rest.partition("=")
            occasion, _, nth = place.partition(":")
            return cls(FaultKind(kind), Occasion(occasion), int(nth), int(value or 0))
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(f"a fault is written kind@occasion:nth=value, was {text!r}: {error}") from error


class FaultPlan:
    """Faults, each at its occasion; two at one occasion strike at this one and the next.

    Parameters
    ----------
    faults : iterable of Fault
        In any order.

    Examples
    --------
    >>> plan = FaultPlan.from_seed(7)
    >>> str(plan) == str(FaultPlan.parse(str(plan))) == str(FaultPlan.from_seed(7))
    True
    >>> FaultPlan.parse("garbage@query:1").take(Occasion.QUERY).kind.value
    'garbage'
    """

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self.faults = tuple(sorted(faults))
        self._due: dict[Occasion, list[Fault]] = {}
        self._count: dict[Occasion, int] = {}
        for fault in sorted(self.faults, key=lambda each: each.nth, reverse=True):
            self._due.setdefault(fault.occasion, []).append(fault)

    def take(self, occasion: Occasion) -> Fault | None:
        """Count one occasion and return the fault that strikes at it, or None."""
        due = self._due.get(occasion)
        if not due:
            return None
        count = self._count[occasion] = self._count.get(occasion, 0) + 1
        return due.pop() if due[-1].nth <= count else None

    def clear(self) -> None:
        """Let nothing more go wrong."""
        self._due.clear()

    def __str__(self) -> str:
        return ",".join(map(str, self.faults))

    @classmethod
    def parse(cls, text: str) -> FaultPlan:
        """Read what `str` wrote: faults with commas between them.

        Raises
        ------
        ConfigError
            When a part names no fault.
        """
        return cls(Fault.parse(part) for part in text.split(",") if part.strip())

    @classmethod
    def from_seed(
        cls, seed: int, *, most: int = 8, kinds: Collection[FaultKind] | None = None, horizon: int = 40
    ) -> FaultPlan:
        """Return the plan of a seed.

        Parameters
        ----------
        seed : int
            At least 0; the same seed gives the same plan everywhere.
        most : int
            The plan has up to so many faults, sometimes none.
        kinds : collection of FaultKind or None
            Which; None is all.
        horizon : int
            Faults strike at one of the first `horizon` occasions; at one of four times as many of polls.
        """
        draw = SplitMix(seed, stream=1)
        chosen = sorted(FaultKind if kinds is None else kinds)
        faults = []
        for _ in range(draw.below(most + 1)):
            kind = chosen[draw.below(len(chosen))]
            form = FAULTS[kind]
            occasion = form.occasions[draw.below(len(form.occasions))]
            reach = 4 * horizon if occasion is Occasion.POLL else horizon
            faults.append(Fault(kind, occasion, draw.between(1, reach), draw.between(form.low, form.high)))
        return cls(faults)
