"""The price grid of the plain books: the same arithmetic as the core's, so that both refuse the same prices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ami_engine.errors import ConfigError, EventError
from ami_engine.events.level_types import LEVEL_SEQUENCES

__all__ = [
    "TickGrid",
    "check_not_negative",
    "check_price",
    "check_size",
    "is_off_grid",
    "iter_pairs",
    "refuse_off_grid",
]

# Above this a double no longer tells a grid point from the middle between two.
_MAX_TICKS = 1e14
_ON_GRID_TICKS = 1e-6


class TickGrid:
    """Prices as whole ticks, and back as the shortest decimal.

    >>> grid = TickGrid(0.1)
    >>> grid.ticks(61800.3), grid.ticks(61800.35)
    (618003, 0)
    >>> grid.price(618003)
    61800.3
    """

    __slots__ = ("inverse", "tick_size")

    def __init__(self, tick_size: float) -> None:
        self.tick_size = float(tick_size)
        if not (math.isfinite(self.tick_size) and self.tick_size > 0.0):
            raise ConfigError("`tick_size` must be finite and > 0")
        inverse = round(min(1.0 / self.tick_size, _MAX_TICKS))
        is_whole = inverse >= 1 and abs(inverse * self.tick_size - 1.0) < 1e-12
        self.inverse = float(inverse) if is_whole else 0.0

    def ticks(self, price: float) -> int:
        """Return the grid point of a positive, finite price; 0 when the price is between two of them."""
        raw = price * self.inverse if self.inverse else price / self.tick_size
        if not raw < _MAX_TICKS:
            return 0
        nearest = int(raw + 0.5)
        # Two roundings can be off by 2^-52 of the number, which passes 1e-6 ticks from 1e9 ticks on.
        tolerance = 1e-6 if raw < 1e9 else raw * 1e-15
        return nearest if abs(raw - nearest) < tolerance else 0

    def price(self, ticks: int) -> float:
        """Return the price of a grid point; see `Instrument.price_from_ticks`."""
        return ticks / self.inverse if self.inverse else ticks * self.tick_size


def check_price(price: float, what: str, field: str) -> None:
    """Refuse a price that is not a finite number above 0."""
    if not math.isfinite(price):
        raise EventError(f"{what} price must be finite, was {price:.12g}", reason="not_finite", field=field)
    if not price > 0.0:
        raise EventError(f"{what} price must be > 0, was {price:.12g}", reason="negative_price", field=field)


def check_size(size: float, what: str, field: str) -> None:
    """Refuse a size that is not a finite number of 0 or more."""
    if not math.isfinite(size):
        raise EventError(f"{what} size must be finite, was {size:.12g}", reason="not_finite", field=field)
    if size < 0.0:
        raise EventError(f"{what} size must be >= 0, was {size:.12g}", reason="negative_size", field=field)


def is_off_grid(price: float, tick_size: float) -> bool:
    """Whether a price is no multiple of the tick size, by more than a recording's rounding.

    >>> is_off_grid(0.3, 0.1), is_off_grid(0.35, 0.1)
    (False, True)
    """
    ticks = price / tick_size
    # A price of many digits is farther from its multiple in binary.
    return abs(ticks - round(ticks)) > max(_ON_GRID_TICKS, 1e-12 * abs(ticks))


def refuse_off_grid(price: float, tick_size: float, what: str, field: str) -> EventError:
    """Return the error for a price between two grid points."""
    message = f"{what} price {price:.12g} is not a multiple of `tick_size` {tick_size:.12g}"
    return EventError(message, reason="off_grid", field=field)


def check_not_negative(value: int, field: str) -> None:
    """Refuse a negative sequence number."""
    if value < 0:
        raise EventError(f"`{field}` must be >= 0, was {value}", reason="malformed", field=field)


def iter_pairs(levels: Any, field: str) -> list[tuple[float, float]]:
    """Return levels as pairs of floats, whether they came as pairs or as an n×2 array; EventError when as neither."""
    if isinstance(levels, np.ndarray):
        if levels.ndim != 2 or levels.shape[1] != 2 or levels.dtype.kind not in "fiu":
            raise _wrong_type(field)
        return [(price, size) for price, size in levels.astype(np.float64).tolist()]
    if not isinstance(levels, LEVEL_SEQUENCES):
        raise _wrong_type(field)
    pairs: list[tuple[float, float]] = []
    for i, pair in enumerate(levels):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise EventError(f"`{field}[{i}]` must be a pair (price, size)", reason="wrong_type", field=field)
        pairs.append((_number(pair[0], field, i), _number(pair[1], field, i)))
    return pairs


def _number(value: Any, field: str, i: int) -> float:
    if type(value) is float:
        return value
    if not isinstance(value, str | bytes | bytearray):
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError):
            pass
    raise EventError(f"`{field}[{i}]` must hold two numbers", reason="wrong_type", field=field)


def _wrong_type(field: str) -> EventError:
    message = f"`{field}` must be a list of (price, size) pairs or an n×2 array"
    return EventError(message, reason="wrong_type", field=field)
