"""A source of events that a `MicrostructureSim` generates."""

from __future__ import annotations

from collections.abc import Mapping

from ami_engine.adapters.base import MarketDataSource
from ami_engine.errors import ConfigError
from ami_engine.events import BookSnapshot, Trade
from ami_engine.sim.microstructure_sim import MicrostructureSim
from ami_engine.units import Instrument

__all__ = ["SyntheticSource"]


class SyntheticSource(MarketDataSource):
    """Events of a simulated market: `BookSnapshot` with all levels, and `Trade`.

    Parameters
    ----------
    sim : MicrostructureSim, optional
        The market; one with default parameters when not given. The source advances it and owns it.
    num_events : int or None
        How many events there are; None is without end.
    symbol : str
        The market's name in the events.

    Raises
    ------
    ConfigError
        When `num_events` is negative or `symbol` is empty.

    Examples
    --------
    >>> source = SyntheticSource(MicrostructureSim(mid=0.5, spread=0.01, seed=42), num_events=2)
    >>> [type(source.next_event()).__name__ for _ in range(3)][-1]
    'NoneType'
    >>> source.instruments()["SYNTH"].tick_size
    0.005
    """

    is_live = False
    unique_seq = frozenset({"book", "trade"})
    snapshots_only = True

    def __init__(
        self, sim: MicrostructureSim | None = None, num_events: int | None = 100, symbol: str = "SYNTH"
    ) -> None:
        if num_events is not None and num_events < 0:
            raise ConfigError(f"`num_events` must be at least 0, or None for no end, was {num_events!r}")
        if not symbol:
            raise ConfigError("`symbol` must not be empty")
        self._sim = MicrostructureSim() if sim is None else sim
        self._left = -1 if num_events is None else num_events
        self._symbol = symbol
        self.identity = f"synthetic:{self._sim.identity},symbol={symbol!r},num_events={num_events!r}"

    def next_event(self) -> BookSnapshot | Trade | None:
        """Return the next event, None when `num_events` were given out."""
        if not self._left:
            return None
        # Without an end the count only goes further below zero.
        self._left -= 1
        return self._sim.next_event(self._symbol)

    def instruments(self) -> Mapping[str, Instrument]:
        """Return the one instrument: its tick is the simulation's."""
        return {self._symbol: self._sim.instrument(self._symbol)}
