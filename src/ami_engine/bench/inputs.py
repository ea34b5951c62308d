"""The suite's input, made from seeds: the same on every run and machine with one NumPy."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ami_engine.events import BookSnapshot
from ami_engine.features import FeatureConfig

__all__ = [
    "CONFIG",
    "MOVING",
    "Market",
    "SIGNALS_CONFIG",
    "START_NS",
    "levels_of",
    "market",
    "quote_events",
    "quote_rows",
    "returns",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

START_NS = 1_700_000_000_000_000_000
TICKS_PER_UNIT = 10
# The claims were made of a row of 26 features, before there were signals: it is what is compared. The whole row has
# cases of its own.
CONFIG = FeatureConfig(tick_size=0.1, signals=False)
SIGNALS_CONFIG = FeatureConfig(tick_size=0.1)
# Share of the events in which the price moves, where orders hang on it: about what a liquid market's best quotes do.
MOVING = 0.05


class Market(NamedTuple):
    """Quotes of one symbol near 60 000: a tick of 0.1, spreads of one to five ticks, depths that rarely repeat.

    `now_ns` is up to 5 ms after `ts_ns`, so that staleness is a number like the others.
    """

    ts_ns: IntArray
    now_ns: IntArray
    bid: FloatArray
    ask: FloatArray
    bid_depth: FloatArray
    ask_depth: FloatArray

    @property
    def mid(self) -> FloatArray:
        """Mid prices."""
        mid: FloatArray = (self.bid + self.ask) / 2.0
        return mid

    @property
    def table(self) -> dict[str, Any]:
        """The columns, as `FeatureBuilder.run` takes them."""
        return self._asdict()

    def part(self, start: int, stop: int | None = None) -> Market:
        """Return the rows from `start` to `stop`."""
        rows = slice(start, stop)
        return Market(
            self.ts_ns[rows],
            self.now_ns[rows],
            self.bid[rows],
            self.ask[rows],
            self.bid_depth[rows],
            self.ask_depth[rows],
        )


def market(rows: int, seed: int = 1, moving: float = 1.0) -> Market:
    """Return `rows` quotes; in a share `moving` of them the price takes a step, of up to two ticks.

    >>> quotes = market(1_000)
    >>> bool((quotes.ask > quotes.bid).all()), bool((np.diff(quotes.ts_ns) > 0).all())
    (True, True)
    """
    draw = np.random.Generator(np.random.PCG64(seed))
    bid_ticks = 600_000 + np.cumsum(draw.integers(-2, 3, rows))
    if moving < 1.0:
        has_moved = np.flatnonzero(draw.random(rows) < moving)
        bid_ticks = bid_ticks[np.searchsorted(has_moved, np.arange(rows))]
    spread = draw.choice(np.array([1, 2, 3, 5]), size=rows, p=[0.7, 0.2, 0.07, 0.03])
    ts_ns = START_NS + np.cumsum(draw.integers(1_000_000, 40_000_000, rows))
    depths = np.round(draw.lognormal(3.6, 0.8, (2, rows)), 3) + 0.001
    return Market(
        ts_ns,
        ts_ns + draw.integers(0, 5_000_000, rows),
        bid_ticks / TICKS_PER_UNIT,
        (bid_ticks + spread) / TICKS_PER_UNIT,
        np.ascontiguousarray(depths[0]),
        np.ascontiguousarray(depths[1]),
    )


def returns(quotes: Market) -> FloatArray:
    """Return the log returns of the mids, 0 for the first."""
    mid = quotes.mid
    changes = np.zeros(len(mid))
    changes[1:] = np.log1p(np.diff(mid) / mid[:-1])
    return changes


def levels_of(quotes: Market, levels: int = 10, seed: int = 3) -> tuple[FloatArray, FloatArray]:
    """Return bids and asks of each row, (rows, levels, 2), best first, a tick apart, with the row's best prices."""
    draw = np.random.Generator(np.random.PCG64(seed))
    steps = np.arange(levels)
    shape = (len(quotes.bid), levels, 2)
    bids, asks = np.empty(shape), np.empty(shape)
    bid_ticks = np.rint(quotes.bid * TICKS_PER_UNIT)[:, None]
    ask_ticks = np.rint(quotes.ask * TICKS_PER_UNIT)[:, None]
    bids[:, :, 0] = (bid_ticks - steps) / TICKS_PER_UNIT
    asks[:, :, 0] = (ask_ticks + steps) / TICKS_PER_UNIT
    for side in (bids, asks):
        side[:, :, 1] = np.round(draw.lognormal(0.0, 1.0, shape[:2]), 3) + 0.001
    return bids, asks


def quote_rows(quotes: Market) -> list[tuple[int, float, float, float, float]]:
    """Return (ts_ns, bid, ask, bid_depth, ask_depth) of each row, as plain numbers."""
    columns = (quotes.ts_ns, quotes.bid, quotes.ask, quotes.bid_depth, quotes.ask_depth)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def quote_events(quotes: Market, symbol: str = "BTCUSDT") -> list[BookSnapshot]:
    """Return each row as a book event of one level."""
    return [
        BookSnapshot(ts_ns, ts_ns, symbol, 0, bid, ask, bid_depth, ask_depth)
        for ts_ns, bid, ask, bid_depth, ask_depth in quote_rows(quotes)
    ]
