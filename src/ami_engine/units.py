"""Instruments, and the one place where a price or a size is put on its grid.

Prices are int64 ticks inside, floats at the edge. A size is never rounded up; a quote's price is rounded outward (a buy
down, a sell up), so that it is never pushed through the book; a marketable order's price is rounded inward.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from ami_engine.errors import ConfigError

__all__ = ["NS_PER_DAY", "NS_PER_MS", "NS_PER_S", "Instrument", "ms_from_ns", "ns_from_ms", "whole_ms"]

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
NS_PER_DAY = 86_400_000_000_000

_NEVER_MS = 1 << 62

# Where there is no lot, a size has so many digits, and no more behind the point: sums of sizes are then exact doubles,
# and a position can be closed to zero. What is executed of an order is rounded to fewer digits of its size: finer than
# that, an order that is filled could not be told from one that is not.
_SIZE_DIGITS = 12
_FILL_DIGITS = 9

# A price this close to a grid point (in ticks) is on it: 61800.3 / 0.1 is 618002.9999999999 in binary.
_ON_GRID_TICKS = 1e-6


def ns_from_ms(ms: float) -> int:
    """Convert milliseconds to whole nanoseconds; integers exactly.

    >>> ns_from_ms(1_723_161_255_030)
    1723161255030000000
    """
    return ms * NS_PER_MS if isinstance(ms, int) else round(ms * NS_PER_MS)


def ms_from_ns(ns: int) -> int:
    """Convert nanoseconds to whole milliseconds, rounded down.

    >>> ms_from_ns(1_999_999)
    1
    """
    return ns // NS_PER_MS


def whole_ms(due_ms: float) -> int:
    """Return the first whole millisecond at or after a time, for whoever compares it with whole ones at every step.

    CPython compares a large integer with another in a few ns, with a float in some fifty more. ±inf is later, or
    earlier, than all.

    >>> whole_ms(1_723_161_255_030.2), whole_ms(-math.inf) < 0 < 1 << 60 < whole_ms(math.inf)
    (1723161255031, True)
    """
    if math.isfinite(due_ms):
        return math.ceil(due_ms)
    return _NEVER_MS if due_ms > 0.0 else -_NEVER_MS


class Instrument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a venue trades, and the grid its prices and sizes live on.

    Parameters
    ----------
    symbol : str
        The market's name, as the events carry it.
    tick_size : float
        Price step, quote currency, > 0.
    lot_size : float
        Size step, base units or contracts; 0 means that sizes are not rounded.
    min_qty, min_notional : float
        Smallest order by size and by value; 0 is off.
    multiplier : float
        Value of one point for one unit (linear), or USD of one contract (inverse). > 0.
    kind : {"linear", "inverse"}
        An inverse contract is quoted in USD and settled in coin.
    currency : str
        Settlement currency: what cash, fees and profit are counted in.
    maker_fee_bps, taker_fee_bps : float
        Fees in basis points of the notional; negative is a rebate.

    Raises
    ------
    ConfigError
        When a value is outside its range.

    Examples
    --------
    >>> es = Instrument("ESH4", tick_size=0.25, lot_size=1, multiplier=50)
    >>> es.price_from_ticks(es.ticks(4810.25))
    4810.25
    >>> es.notional(4810.0, 2)
    481000.0
    >>> perp = Instrument("BTCUSD_PERP", tick_size=0.1, lot_size=1, multiplier=100, kind="inverse", currency="BTC")
    >>> perp.qty_from_usd(1050, price=60_000.0)
    10.0
    """

    symbol: str
    tick_size: float = 0.01
    lot_size: float = 0.0
    min_qty: float = 0.0
    min_notional: float = 0.0
    multiplier: float = 1.0
    kind: Literal["linear", "inverse"] = "linear"
    currency: str = "USD"
    maker_fee_bps: float = 0.0
    taker_fee_bps: float = 0.0

    def __post_init__(self) -> None:
        for name in ("tick_size", "multiplier"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"`{name}`{self._whose} must be finite and > 0, was {value!r}")
        for name in ("lot_size", "min_qty", "min_notional"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"`{name}`{self._whose} must be finite and >= 0, was {value!r}")
        for name in ("maker_fee_bps", "taker_fee_bps"):
            value = getattr(self, name)
            if not math.isfinite(value):
                raise ConfigError(f"`{name}`{self._whose} must be finite, was {value!r}")
        if self.kind not in ("linear", "inverse"):
            raise ConfigError(f"`kind`{self._whose} must be 'linear' or 'inverse', was {self.kind!r}")

    @property
    def _whose(self) -> str:
        return f" of instrument {self.symbol!r}" if self.symbol else ""

    @property
    def is_inverse(self) -> bool:
        """True for a contract that is quoted in USD and settled in coin."""
        return self.kind == "inverse"

    def ticks(self, price: float) -> int:
        """Return the grid point nearest to `price`, in ticks."""
        return round(price / self.tick_size)

    def price_from_ticks(self, ticks: int) -> float:
        """Return the price of a grid point: the shortest decimal that the tick size can express.

        >>> Instrument("X", tick_size=0.1).price_from_ticks(618003)
        61800.3
        """
        inverse = round(1.0 / self.tick_size)
        # Division by a whole number gives the correctly rounded decimal; multiplication by 0.1 does not.
        if inverse >= 1 and abs(inverse * self.tick_size - 1.0) < 1e-12:
            return ticks / inverse
        return ticks * self.tick_size

    def floor_ticks(self, price: float) -> int:
        """Return the highest grid point at or below `price`, in ticks."""
        raw = price / self.tick_size
        nearest = round(raw)
        return nearest if abs(raw - nearest) < _ON_GRID_TICKS else math.floor(raw)

    def ceil_ticks(self, price: float) -> int:
        """Return the lowest grid point at or above `price`, in ticks."""
        raw = price / self.tick_size
        nearest = round(raw)
        return nearest if abs(raw - nearest) < _ON_GRID_TICKS else math.ceil(raw)

    def quote_ticks(self, price: float, *, is_buy: bool) -> int:
        """Round a quote outward: a buy down, a sell up, so that rounding never crosses the spread."""
        return self.floor_ticks(price) if is_buy else self.ceil_ticks(price)

    def passive_ticks(self, price: float, *, is_buy: bool, opposite: float) -> int:
        """Round a post-only quote outward, and keep it a tick off the best price of the other side.

        `opposite` is that price; 0, NaN or infinite where there is none.

        >>> Instrument("X", tick_size=0.5).passive_ticks(10.7, is_buy=True, opposite=10.5)
        20
        """
        ticks = self.quote_ticks(price, is_buy=is_buy)
        if not 0.0 < opposite < math.inf:
            return ticks
        if is_buy:
            return min(ticks, self.ceil_ticks(opposite) - 1)
        return max(ticks, self.floor_ticks(opposite) + 1)

    def crossing_ticks(self, price: float, *, is_buy: bool) -> int:
        """Round the price of an order that has to trade: inward, a buy up, a sell down, and at least one tick.

        >>> Instrument("X", tick_size=0.5).crossing_ticks(10.7, is_buy=True)
        22
        """
        return max(1, self.quote_ticks(price, is_buy=not is_buy))

    def fill_exponent(self, qty: float) -> int:
        """Return the power of ten of which executed sizes of an order of `qty` are multiples, where there is no lot.

        What fills the rest of an order is that rest. Displayed sizes are binary, and differences of them would leave
        crumbs of 1e-18 in a position, which then never is flat.

        >>> Instrument("X").fill_exponent(0.25), Instrument("X").fill_exponent(1e-6)
        (-9, -12)
        """
        return max(-_SIZE_DIGITS, int(f"{qty:.{_SIZE_DIGITS - 1}e}".partition("e")[2]) - _FILL_DIGITS + 1)

    def round_qty(self, qty: float) -> float:
        """Round a size down to the lot; never up.

        >>> Instrument("X", lot_size=0.001).round_qty(0.0129999)
        0.012
        """
        if self.lot_size == 0.0:
            return qty
        raw = qty / self.lot_size
        nearest = round(raw)
        return self.qty_from_lots(nearest if abs(raw - nearest) < 1e-9 * max(1.0, abs(raw)) else math.floor(raw))

    def qty_from_lots(self, lots: int) -> float:
        """Return the size of so many lots: the shortest decimal that the lot size can express.

        Raises
        ------
        ConfigError
            When the instrument has no lot size.

        >>> Instrument("X", lot_size=0.001).qty_from_lots(3)
        0.003
        """
        if self.lot_size == 0.0:
            raise ConfigError(f"a size in lots{self._whose} needs a `lot_size` > 0, was 0")
        inverse = round(1.0 / self.lot_size)
        if inverse >= 1 and abs(inverse * self.lot_size - 1.0) < 1e-12:
            return lots / inverse
        return lots * self.lot_size

    def qty_from_usd(self, size_usd: float, price: float) -> float:
        """Return the size, rounded down to the lot, that is worth `size_usd` at `price`.

        Without a lot it has at most 12 digits, and at most 12 behind the point.

        >>> Instrument("X").qty_from_usd(1.0, price=0.3), Instrument("X").qty_from_usd(1.0, price=60_000.0)
        (3.33333333333, 1.6666666e-05)
        """
        per_unit = self.multiplier if self.is_inverse else price * self.multiplier
        qty = size_usd / per_unit
        if self.lot_size:
            return self.round_qty(qty)
        if qty < 1.0:
            rounded = float(f"{qty:.{_SIZE_DIGITS}f}")
            return rounded if rounded <= qty else float(f"{qty - 1e-12:.{_SIZE_DIGITS}f}")
        rounded = float(f"{qty:.{_SIZE_DIGITS}g}")
        return rounded if rounded <= qty else float(f"{qty * (1.0 - 1e-11):.{_SIZE_DIGITS}g}")

    def is_below_minimum(self, price: float, qty: float) -> bool:
        """Return True when the venue takes no order this small: nothing, under `min_qty`, or under `min_notional`.

        >>> Instrument("X", min_notional=5.0).is_below_minimum(0.49, 5.0 / 0.49)
        False
        """
        # What rounding to binary takes off a value that was asked for exactly must not count.
        return qty <= 0.0 or qty < self.min_qty or self.notional(price, qty) < self.min_notional * (1.0 - 1e-9)

    def notional(self, price: float, qty: float) -> float:
        """Return the value of `qty` at `price`, in USD (quote currency) for both kinds."""
        return abs(qty) * self.multiplier * (1.0 if self.is_inverse else price)
