"""What an operator may tell a running engine, from any thread: pause, resume, kill, reduce, budget.

A command is queued and obeyed by the loop between two steps; the loop reads one flag, `Controls.pending`, and takes no
lock while nothing is queued. Who gave a command gets a `Ticket` that the loop answers.
"""

from __future__ import annotations

import threading
from collections import deque
from math import isfinite

import msgspec

from ami_engine.errors import ConfigError

__all__ = ["VERBS", "Command", "ControlReply", "Controls", "Ticket"]

VERBS = ("pause", "resume", "kill", "reduce", "budget", "status")
# More than any operator types, and a bound on what a broken script can queue.
_MOST_QUEUED = 64
_MOST_LETTERS = 500


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One command of an operator.

    Parameters
    ----------
    verb : {"pause", "resume", "kill", "reduce", "budget", "status"}
        What to do; "status" only asks.
    operator, reason : str
        Who says so, and why: never empty, except for "status".
    usd : float or None
        For "budget": the gross notional over all markets that is allowed from now on, USD, > 0 and at most the
        policy's `max_total_exposure_usd`.
    release : tuple of str
        For "resume": the latches that are released with it.

    Raises
    ------
    ConfigError
        When something of it is missing or does not belong to its verb.

    Examples
    --------
    >>> Command("kill", "ann", "")
    Traceback (most recent call last):
    ami_engine.errors.ConfigError: `reason` of kill must not be empty: who says so, and why
    """

    verb: str
    operator: str = ""
    reason: str = ""
    usd: float | None = None
    release: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.verb not in VERBS:
            raise ConfigError(f"`verb` must be one of {', '.join(VERBS)}, was {self.verb!r}")
        for name in ("operator", "reason"):
            text = getattr(self, name)
            if self.verb != "status" and not text.strip():
                raise ConfigError(f"`{name}` of {self.verb} must not be empty: who says so, and why")
            if len(text) > _MOST_LETTERS or not text.isprintable():
                raise ConfigError(f"`{name}` must be one line of at most {_MOST_LETTERS} letters")
        if (self.usd is not None) is not (self.verb == "budget"):
            raise ConfigError(f"`usd` belongs to budget, and to it alone; {self.verb} was given {self.usd!r}")
        if self.usd is not None and not (isfinite(self.usd) and self.usd > 0.0):
            raise ConfigError(f"`usd` of budget must be finite and > 0, was {self.usd!r}")
        if self.release and self.verb != "resume":
            raise ConfigError(f"`release` belongs to resume, not to {self.verb}")


class ControlReply(msgspec.Struct, frozen=True):
    """What became of a command.

    `ok` is False when it was refused, and `message` says why; `state` and `latched` are those after it, `budget_usd`
    the exposure that is allowed now.
    """

    ok: bool
    message: str
    state: str = ""
    latched: tuple[str, ...] = ()
    budget_usd: float | None = None


class Ticket:
    """A command that was given, and its answer once the loop has obeyed it."""

    __slots__ = ("_answered", "_reply", "command")

    def __init__(self, command: Command) -> None:
        self.command = command
        self._answered = threading.Event()
        self._reply: ControlReply | None = None

    def answer(self, reply: ControlReply) -> None:
        """Give the answer, from the loop."""
        self._reply = reply
        self._answered.set()

    def wait(self, timeout_s: float) -> ControlReply | None:
        """Return the answer, None when there is none after `timeout_s`: the command then still waits for the loop."""
        self._answered.wait(timeout_s)
        return self._reply


class Controls:
    """The operator's hand on a run: `run_loop(..., controls=controls)`.

    Attributes
    ----------
    pending : bool
        True while a command waits. The loop reads it before every step, and several times a second while a live feed
        is silent.

    Notes
    -----
    Methods may be called from any thread, also from the loop's own (from a model, a broker): they queue and return.
    ``wait`` on the ticket only from another thread.

    Examples
    --------
    >>> controls = Controls()
    >>> ticket = controls.pause("ann", "venue maintenance")
    >>> controls.pending, ticket.command.verb
    (True, 'pause')
    """

    def __init__(self) -> None:
        self.pending = False
        self._lock = threading.Lock()
        self._queue: deque[Ticket] = deque()
        self._closed = ""

    def pause(self, operator: str, reason: str) -> Ticket:
        """Cancel every order and send none until `resume`."""
        return self.give(Command("pause", operator, reason))

    def resume(self, operator: str, reason: str, *, release: tuple[str, ...] = ()) -> Ticket:
        """Trade again. What is latched is released only where `release` names it; else the command is refused."""
        return self.give(Command("resume", operator, reason, release=release))

    def kill(self, operator: str, reason: str) -> Ticket:
        """Latch the kill switch: cancel every order, send none, also after a restart, until it is released."""
        return self.give(Command("kill", operator, reason))

    def reduce(self, operator: str, reason: str) -> Ticket:
        """Cancel every quote; from now on only orders leave that shrink a position."""
        return self.give(Command("reduce", operator, reason))

    def budget(self, operator: str, reason: str, usd: float) -> Ticket:
        """Allow `usd` of gross notional over all markets, at most what the policy allows."""
        return self.give(Command("budget", operator, reason, usd=usd))

    def status(self) -> Ticket:
        """Ask for state, latches and budget."""
        return self.give(Command("status"))

    def give(self, command: Command) -> Ticket:
        """Queue a command. A kill goes before everything that waits."""
        ticket = Ticket(command)
        with self._lock:
            if self._closed:
                ticket.answer(ControlReply(False, self._closed))
            elif command.verb == "kill":
                self._queue.appendleft(ticket)
                self.pending = True
            elif len(self._queue) >= _MOST_QUEUED:
                ticket.answer(ControlReply(False, f"{_MOST_QUEUED} commands wait already"))
            else:
                self._queue.append(ticket)
                self.pending = True
        return ticket

    def take(self) -> Ticket | None:
        """Return the next command for the loop to obey, None when there is none."""
        with self._lock:
            ticket = self._queue.popleft() if self._queue else None
            self.pending = bool(self._queue)
        return ticket

    def close(self, reason: str) -> None:
        """Refuse what waits and what is still to come: the run is over."""
        with self._lock:
            self._closed = f"the run is over: {reason}"
            waiting, self._queue = list(self._queue), deque()
            self.pending = False
        for ticket in waiting:
            ticket.answer(ControlReply(False, self._closed))
