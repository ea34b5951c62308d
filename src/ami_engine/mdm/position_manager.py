"""When to leave a position: take profit, stop loss, time."""

from __future__ import annotations

import math
import sys

import msgspec

from ami_engine.errors import ConfigError

__all__ = ["PositionManager"]

# Distances are compared in ticks. Prices carry binary rounding: 0.03 - 0.02 is a hair less than 0.01.
_TOLERANCE_TICKS = 1e-9

# What is left of a position after fills that cancel, from rounding alone, is no position.
_FLAT_FRACTION = 1e-9


class _Open(msgspec.Struct, gc=False):
    qty: float
    avg_price: float
    opened_ms: float
    largest_qty: float


class PositionManager:
    """Open positions by market, and when each is to be left.

    Parameters
    ----------
    tp_ticks, sl_ticks : float
        Profit at which to take it and loss at which to stop, ticks, > 0; infinity is off.
    tick_size : float
        Price step, > 0.
    T_max_ms : float
        Longest time to hold a position, ms, > 0; infinity is off.

    Raises
    ------
    ConfigError
        When a value is outside its range.

    Notes
    -----
    Sizes are signed, negative when short. The price of a position is its average cost: adding to it moves the average,
    reducing it does not, and a fill that flips it opens a new position, with its own time, at the fill's price. Memory
    is one entry for each market with a position.

    Examples
    --------
    >>> manager = PositionManager(tp_ticks=2, sl_ticks=3, tick_size=0.01)
    >>> manager.register_fill("X", price=0.50, signed_qty=10, ts_ms=0)
    >>> manager.should_flatten("X", current_mid=0.52, now_ms=1_000)
    (True, 'take_profit')
    >>> manager.should_flatten("X", current_mid=0.51, now_ms=1_000)
    (False, '')
    """

    def __init__(
        self, tp_ticks: float = 1, sl_ticks: float = 3, tick_size: float = 0.01, T_max_ms: float = 120_000
    ) -> None:
        for name, value in (("tp_ticks", tp_ticks), ("sl_ticks", sl_ticks), ("T_max_ms", T_max_ms)):
            if not value > 0:
                raise ConfigError(f"`{name}` must be > 0, was {value!r}")
        if not 0 < tick_size < math.inf:
            raise ConfigError(f"`tick_size` must be finite and > 0, was {tick_size!r}")
        self.tp_ticks = tp_ticks
        self.sl_ticks = sl_ticks
        self.tick_size = tick_size
        self.T_max_ms = T_max_ms
        self._open: dict[str, _Open] = {}

    def register_fill(self, market_id: str, price: float, signed_qty: float, ts_ms: float) -> None:
        """Fold one fill into the market's position.

        Parameters
        ----------
        market_id : str
            The market.
        price : float
            Price of the fill, finite and > 0.
        signed_qty : float
            Size, positive when bought, negative when sold; 0 changes nothing.
        ts_ms : float
            Time of the fill, ms since the Unix epoch.

        Raises
        ------
        ValueError
            When a number is not finite, or the price not > 0; the position stays as it was.
        """
        if not 0.0 < price < math.inf:
            raise ValueError(f"`price` must be finite and > 0, was {price!r}")
        if not (math.isfinite(signed_qty) and math.isfinite(ts_ms)):
            raise ValueError(f"`signed_qty` and `ts_ms` must be finite, were {signed_qty!r} and {ts_ms!r}")
        if signed_qty == 0.0:
            return
        held = self._open.get(market_id)
        if held is None:
            self._open[market_id] = _Open(signed_qty, price, ts_ms, abs(signed_qty))
            return
        after = held.qty + signed_qty
        largest = max(held.largest_qty, abs(signed_qty))
        if abs(after) <= _FLAT_FRACTION * largest:
            del self._open[market_id]
        elif held.qty * signed_qty > 0.0:
            held.avg_price += (price - held.avg_price) * (signed_qty / after)
            held.qty = after
            held.largest_qty = max(largest, abs(after))
        elif after * held.qty > 0.0:
            held.qty = after
        else:
            self._open[market_id] = _Open(after, price, ts_ms, abs(after))

    def load(self, market_id: str, qty: float, avg_price: float, opened_ms: float, largest_qty: float) -> None:
        """Take over a position as it was kept elsewhere: signed size, average cost, time (ms) and largest size."""
        self._open[market_id] = _Open(qty, avg_price, opened_ms, largest_qty)

    def should_flatten(self, market_id: str, current_mid: float, now_ms: float) -> tuple[bool, str]:
        """Return whether to leave the position, and why.

        The reason is ``take_profit``, ``stop_loss``, ``time_stop`` (at `T_max_ms` or later) or, when there is none, "".
        A limit counts as reached at exactly its distance. A mid that is not finite says nothing of profit: then only
        time is looked at.
        """
        held = self._open.get(market_id)
        if held is None:
            return False, ""
        ticks = (current_mid - held.avg_price) / self.tick_size
        if held.qty < 0.0:
            ticks = -ticks
        if math.isfinite(ticks):
            # At 1e6 and a tick of 0.01 a price's own last bit is 1e-8 ticks.
            rounding = 4.0 * sys.float_info.epsilon * abs(current_mid) / self.tick_size
            tolerance = max(_TOLERANCE_TICKS, rounding)
            if ticks >= self.tp_ticks - tolerance:
                return True, "take_profit"
            if ticks <= tolerance - self.sl_ticks:
                return True, "stop_loss"
        if now_ms - held.opened_ms >= self.T_max_ms:
            return True, "time_stop"
        return False, ""

    def on_position_closed(self, market_id: str) -> None:
        """Forget the market's position; nothing happens when there is none."""
        self._open.pop(market_id, None)

    def unrealized_pnl(self, market_id: str, mid: float) -> float:
        """Return what the position would make at `mid`, price times size; 0 without a position, NaN for a NaN mid."""
        held = self._open.get(market_id)
        return 0.0 if held is None else held.qty * (mid - held.avg_price)
