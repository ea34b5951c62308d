"""What both plain books answer alike: best levels as arrays, and predicates of the best quote."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ami_engine.book.grid import TickGrid
from ami_engine.errors import ConfigError

__all__ = ["ASK", "BID", "BookView", "Quote"]

BID = 0
ASK = 1

Quote: TypeAlias = tuple[float, float, float, float]


class BookView(ABC):
    """Base of the plain books. A book says how it sees its best levels; the rest follows."""

    def __init__(self, tick_size: float, levels: int) -> None:
        self._grid = TickGrid(tick_size)
        if levels < 1:
            raise ConfigError(f"`levels` must be at least 1, was {levels}")
        self._levels = levels

    @abstractmethod
    def _view(self, side: int, n: int) -> list[tuple[float, float]]:
        """Return the best `n` levels of a side as (price, size), best first."""

    def top(self, n: int | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the best `n` bids and asks (default: `levels`) as new (k, 2) arrays of price and size, best first."""
        count = self._levels if n is None else n
        if count < 0:
            raise ValueError(f"`n` must be at least 0, was {count}")
        return self._array(BID, count), self._array(ASK, count)

    def top_into(self, bids: NDArray[np.float64], asks: NDArray[np.float64]) -> tuple[int, int]:
        """Write the best levels into two (n, 2) arrays; return how many rows of each were written."""
        counts = []
        for out in (bids, asks):
            if out.dtype != np.float64 or out.ndim != 2 or out.shape[1] != 2 or not out.flags.c_contiguous:
                raise TypeError("`top_into` needs two C-contiguous float64 arrays of shape (n, 2)")
        for side, out in ((BID, bids), (ASK, asks)):
            view = self._view(side, out.shape[0])
            out[: len(view)] = np.array(view, dtype=np.float64).reshape(-1, 2)
            counts.append(len(view))
        return counts[BID], counts[ASK]

    def best(self) -> Quote:
        """Return (bid, bid_size, ask, ask_size); 0.0 where missing."""
        bid, ask = self._view(BID, 1), self._view(ASK, 1)
        return (*(bid[0] if bid else (0.0, 0.0)), *(ask[0] if ask else (0.0, 0.0)))

    @property
    def is_crossed(self) -> bool:
        """True when the best bid is above the best ask."""
        bid, _, ask, _ = self.best()
        return bid > 0.0 and ask > 0.0 and bid > ask

    @property
    def is_locked(self) -> bool:
        """True when the best bid is the best ask."""
        bid, _, ask, _ = self.best()
        return bid > 0.0 and bid == ask

    @property
    def is_one_sided(self) -> bool:
        """True when exactly one side has a level."""
        bid, _, ask, _ = self.best()
        return (bid > 0.0) != (ask > 0.0)

    @property
    def is_empty(self) -> bool:
        """True when no side has a level to show."""
        bid, _, ask, _ = self.best()
        return bid == 0.0 and ask == 0.0

    @property
    def tick_size(self) -> float:
        """Price step, quote currency."""
        return self._grid.tick_size

    @property
    def levels(self) -> int:
        """How many levels `top()` returns unless told otherwise."""
        return self._levels

    def _price(self, side: int, key: int) -> float:
        return self._grid.price(-key if side else key)

    def _array(self, side: int, n: int) -> NDArray[np.float64]:
        return np.array(self._view(side, n), dtype=np.float64).reshape(-1, 2)
