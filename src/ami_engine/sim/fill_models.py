"""Queue models: how much is ahead of an order of ours at its price, when only the total size there is seen.

All three agree on what trades do: a trade at the price first takes what is ahead, and only what is left of it fills us.
They differ in what they assume when an order joins, and when the displayed size shrinks without a trade.
"""

from __future__ import annotations

from typing import Literal, Protocol

from ami_engine.errors import ConfigError
from ami_engine.sim.uniform_stream import UniformStream

__all__ = ["BackQueue", "FrontQueue", "ProbQueue", "QueueModel", "QueueName", "queue_model"]

QueueName = Literal["back", "front", "prob"]


class QueueModel(Protocol):
    """What a broker asks of a queue model. Sizes are in the units of the book."""

    def join(self, displayed: float) -> float:
        """Return the size ahead of an order that joins a price where `displayed` rests; infinite is unknown."""
        ...

    def advance(self, ahead: float, before: float, displayed: float, traded: float) -> float:
        """Return the size ahead after the displayed size went from `before` to `displayed`.

        `before` is negative when it was not seen. `traded` is what trades took meanwhile; it left `ahead` already.
        """
        ...


class FrontQueue:
    """First in the queue: every trade at the price fills us. An upper bound of what is possible.

    Source: with price-time priority no order of the same size and price can do better; see the discussion of the value
    of queue position in C. Moallemi and K. Yuan, "A model for queue position valuation in a limit order book" (2016).

    >>> FrontQueue().join(25.0)
    0.0
    """

    __slots__ = ()

    def join(self, displayed: float) -> float:
        """Return 0."""
        return 0.0

    def advance(self, ahead: float, before: float, displayed: float, traded: float) -> float:
        """Return 0."""
        return 0.0


class BackQueue:
    """Last in the queue; whatever is cancelled was behind us, until less is displayed than we think is ahead.

    The cautious bound, and the default. Source: the "risk-averse" queue model of hftbacktest's documentation ("Order
    Fill"): the position advances by trades at the price alone.

    >>> model = BackQueue()
    >>> model.join(25.0), model.advance(25.0, 25.0, 30.0, 0.0), model.advance(25.0, 30.0, 10.0, 0.0)
    (25.0, 25.0, 10.0)
    """

    __slots__ = ()

    def join(self, displayed: float) -> float:
        """Return everything that is displayed."""
        return displayed

    def advance(self, ahead: float, before: float, displayed: float, traded: float) -> float:
        """Return `ahead`, at most what is displayed."""
        return ahead if ahead < displayed else displayed


class ProbQueue:
    """Last in the queue; a cancellation lies ahead of us with the probability that our place suggests. Seeded.

    What vanished without a trade is one cancellation, ahead with probability ahead / before, as if each resting unit
    were as likely to leave as any other. Source: E. Rigtorp, "Estimating order queue position" (2013), with the
    identity as the weighting function; trades are taken out of the decrease first, so that they do not count twice.

    Parameters
    ----------
    stream : UniformStream
        Where the draws come from.

    Examples
    --------
    >>> model = ProbQueue(UniformStream(1))
    >>> model.advance(25.0, 25.0, 10.0, 15.0)
    10.0
    >>> model.advance(10.0, 100.0, 95.0, 0.0) in (5.0, 10.0)
    True
    """

    __slots__ = ("_stream",)

    def __init__(self, stream: UniformStream) -> None:
        self._stream = stream

    @property
    def stream(self) -> UniformStream:
        """Where its numbers come from."""
        return self._stream

    def join(self, displayed: float) -> float:
        """Return everything that is displayed."""
        return displayed

    def advance(self, ahead: float, before: float, displayed: float, traded: float) -> float:
        """Return `ahead` less the cancellation if it is drawn to be ahead, at most what is displayed."""
        canceled = before - traded - displayed
        # Invariant: nothing is drawn for an unknown place (infinite) nor for a level that was not seen (negative).
        if canceled > 0.0 and 0.0 < ahead <= before and self._stream.draw() * (before - traded) < ahead:
            ahead = max(0.0, ahead - canceled)
        return ahead if ahead < displayed else displayed


def queue_model(name: str, seed: int) -> QueueModel:
    """Return the queue model of a name.

    Raises
    ------
    ConfigError
        When there is none of that name.

    Examples
    --------
    >>> type(queue_model("back", seed=0)).__name__
    'BackQueue'
    """
    if name == "back":
        return BackQueue()
    if name == "front":
        return FrontQueue()
    if name == "prob":
        return ProbQueue(UniformStream(seed, stream=2))
    raise ConfigError(f"`queue` must be 'back', 'front' or 'prob', was {name!r}")
