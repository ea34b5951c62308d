"""Every error of the engine, and what the loop does about it when nobody else handles it.

Errors are split by whose fault they are: `OrderError` is our own misuse, `VenueError` is the venue's. Each class
carries `response`, the action that the loop takes when the error reaches it. A refused trade is a verdict, never an
exception.

Messages name the parameter, the rule, the value and the place: "`vol_window` must be at least 2, was 1".
"""

from __future__ import annotations

from typing import ClassVar

from decision_schema.types import Action

__all__ = [
    "AmiError",
    "BackendError",
    "ChainBroken",
    "ConfigError",
    "DuplicateOrderId",
    "EventError",
    "InvalidTransition",
    "OrderError",
    "QuoteError",
    "ReplayMismatch",
    "SecretMissing",
    "SecurityError",
    "SignatureInvalid",
    "StateError",
    "TraceError",
    "VenueError",
    "VenueProtocolError",
    "VenueRejected",
    "VenueUnavailable",
]


class AmiError(Exception):
    """Base of every error that the engine raises on purpose."""

    response: ClassVar[Action] = Action.STOP


class ConfigError(AmiError, ValueError):
    """A setting is wrong: refuse to start. The message names file, key, rule and value."""


class EventError(AmiError, ValueError):
    """An event is malformed, crossed, out of order or otherwise refused, before it touched any state.

    Parameters
    ----------
    message : str
        What is wrong, in one line.
    reason : str
        Stable snake_case code that is counted in the summary, such as ``crossed_book``.
    field : str
        The event field at fault, empty when the whole event is.
    source : str
        File or feed name, empty when unknown.
    position : int
        Line or record number in the source, counted from 1; 0 when unknown.

    Examples
    --------
    >>> error = EventError("`bid` must be finite, was nan", reason="not_finite", field="bid")
    >>> str(error.at("book.csv", 7))
    'book.csv:7: `bid` must be finite, was nan'
    >>> error.at("book.csv", 7).reason
    'not_finite'
    """

    response: ClassVar[Action] = Action.HOLD

    def __init__(
        self, message: str, *, reason: str = "malformed", field: str = "", source: str = "", position: int = 0
    ) -> None:
        self.message = message
        self.reason = reason
        self.field = field
        self.source = source
        self.position = position
        place = f"{source}:{position}: " if source and position else (f"{source}: " if source else "")
        super().__init__(place + message)

    def at(self, source: str, position: int) -> EventError:
        """Return the same error with the place where the event was read; a place already known is kept."""
        if self.source:
            return self
        return type(self)(self.message, reason=self.reason, field=self.field, source=source, position=position)


class OrderError(AmiError):
    """Our own misuse of an order."""


class InvalidTransition(OrderError):
    """We asked an order to do what its state does not allow."""


class DuplicateOrderId(OrderError):
    """Two different orders were given one client order id."""


class QuoteError(OrderError):
    """A decision's quotes are ones that no order can be made of: the engine holds."""

    response: ClassVar[Action] = Action.HOLD


class VenueError(AmiError):
    """The venue failed or answered what it must not."""

    response: ClassVar[Action] = Action.CANCEL


class VenueRejected(VenueError):
    """The venue refused a request, definitely: nothing of it is live."""

    response: ClassVar[Action] = Action.HOLD


class VenueUnavailable(VenueError):
    """The venue could not be reached or did not answer.

    `outcome_known` is True only when the request certainly never took effect (it may be retried); otherwise the order
    is in doubt and must be reconciled. `is_rate_limit` is True when the venue said that we ask too often (429).
    """

    response: ClassVar[Action] = Action.HOLD

    def __init__(self, message: str, *, outcome_known: bool = False, is_rate_limit: bool = False) -> None:
        self.outcome_known = outcome_known
        self.is_rate_limit = is_rate_limit
        super().__init__(message)


class VenueProtocolError(VenueError):
    """The venue sent what the order lifecycle does not allow, or what cannot be read."""

    response: ClassVar[Action] = Action.STOP


class StateError(AmiError):
    """The state store cannot be opened, read or written: what is durable is then not known, and nothing is sent."""


class TraceError(AmiError):
    """A trace could not be written or read."""


class ChainBroken(TraceError):
    """A trace's hash chain does not hold: a line was changed, removed or added."""


class ReplayMismatch(TraceError):
    """Replaying a trace gave another decision than the one recorded."""


class SecurityError(AmiError):
    """A secret, a signature or a permission is not in order."""


class SecretMissing(SecurityError):
    """A secret that is needed was not provided."""


class SignatureInvalid(SecurityError):
    """A signature does not match what it signs."""


class BackendError(AmiError, ImportError):
    """A feature backend is absent, or was built from another feature schema."""
