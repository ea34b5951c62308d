"""Exposure in the worst case: what is held, and what every order that may still fill could make of it.

Pure. An order counts with its whole outstanding size while it is open, in flight, in doubt, or while its cancel is not
confirmed. Fills may come in any order and to any extent, so a market's position can end anywhere between all sells
filled and all buys filled; the larger end counts. What cannot be valued counts as infinite: unknown is never small.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf, isfinite
from typing import Protocol

import msgspec

from ami_engine.errors import ConfigError, OrderError
from ami_engine.events import Side
from ami_engine.units import Instrument

__all__ = [
    "WORST_CASE_EXPOSURE",
    "WORST_CASE_INVENTORY",
    "Committed",
    "ExposureLimits",
    "MarketExposure",
    "exposures_of",
    "refusal",
    "worst_case_usd",
]

WORST_CASE_EXPOSURE = "worst_case_exposure"
WORST_CASE_INVENTORY = "worst_case_inventory"

# Sums of binary sizes: this share of what is compared is rounding.
_REL_TOL = 1e-9


class Committed(Protocol):
    """An order that may still fill. `execution.Order` is one; `exposed_qty` counts a doubt whole."""

    @property
    def market_id(self) -> str:
        """Its market."""
        ...

    @property
    def side(self) -> Side:
        """BUY or SELL."""
        ...

    @property
    def price(self) -> float:
        """Its limit price."""
        ...

    @property
    def exposed_qty(self) -> float:
        """The size that may still fill."""
        ...


class MarketExposure(msgspec.Struct, frozen=True, gc=False):
    """One market: what is held and what may be added to either side.

    Parameters
    ----------
    instrument : Instrument
        Gives value to sizes; linear or inverse.
    position : float
        Signed quantity held, every known fill counted.
    mark : float
        Price at which the position is valued; 0 or NaN when there is none.
    buy_qty, sell_qty : float
        Sizes that may still be bought and sold, >= 0.
    buy_usd, sell_usd : float
        Their values, each at its limit price or the mark, whichever is worth more.

    Examples
    --------
    >>> flat = MarketExposure(Instrument("X"), mark=100.0)
    >>> quoted = flat.plus(Side.BUY, 99.0, 2.0).plus(Side.SELL, 101.0, 1.0)
    >>> quoted.worst_qty, quoted.worst_usd
    (2.0, 200.0)
    >>> long = MarketExposure(Instrument("X"), position=3.0, mark=100.0, sell_qty=2.0)
    >>> long.shrinks(Side.SELL, 1.0), long.shrinks(Side.SELL, 2.0), long.shrinks(Side.BUY, 1.0)
    (True, False, False)
    """

    instrument: Instrument
    position: float = 0.0
    mark: float = 0.0
    buy_qty: float = 0.0
    sell_qty: float = 0.0
    buy_usd: float = 0.0
    sell_usd: float = 0.0

    def plus(self, side: Side, price: float, qty: float) -> MarketExposure:
        """Return the exposure with one more order that may fill."""
        value = inf
        if isfinite(qty) and qty >= 0.0 and isfinite(price):
            value = self.instrument.notional(max(price, self.mark if self.mark > 0.0 else 0.0), qty)
        else:
            qty = inf
        if _is_buy(side):
            return msgspec.structs.replace(self, buy_qty=self.buy_qty + qty, buy_usd=self.buy_usd + value)
        return msgspec.structs.replace(self, sell_qty=self.sell_qty + qty, sell_usd=self.sell_usd + value)

    @property
    def held_usd(self) -> float:
        """Signed notional held now, USD; infinite when the position cannot be valued."""
        if self.position == 0.0:
            return 0.0
        if not isfinite(self.position):
            return inf
        if not self.instrument.is_inverse and not 0.0 < self.mark < inf:
            return inf if self.position > 0.0 else -inf
        value = self.instrument.notional(self.mark, self.position)
        return value if self.position > 0.0 else -value

    @property
    def worst_qty(self) -> float:
        """Largest absolute position that fills can lead to."""
        return max(self.end_qty(Side.BUY), self.end_qty(Side.SELL))

    @property
    def worst_usd(self) -> float:
        """Largest gross notional that fills can lead to, USD."""
        return max(self.end_usd(Side.BUY), self.end_usd(Side.SELL))

    def end_qty(self, side: Side) -> float:
        """Size of the position when all orders of one side fill and none of the other."""
        return _end(self.position, self.buy_qty, self.sell_qty, side)

    def end_usd(self, side: Side) -> float:
        """Its gross notional, USD."""
        return _end(self.held_usd, self.buy_usd, self.sell_usd, side)

    def shrinks(self, side: Side, qty: float) -> bool:
        """Return True when one more order of `qty` can only shrink the position, whatever else fills: never a flip."""
        held, others = (-self.position, self.buy_qty) if _is_buy(side) else (self.position, self.sell_qty)
        # NaN anywhere compares false: what is not known does not shrink.
        return qty > 0.0 and held > 0.0 and others + qty <= held * (1.0 + _REL_TOL)


class ExposureLimits(msgspec.Struct, frozen=True):
    """What the worst case may be: gross notional over all markets, USD, and size of a market's position.

    `RiskPolicy.max_total_exposure_usd` and `RiskPolicy.max_abs_inventory` are these limits; infinity is none.
    """

    total_usd: float = inf
    market_qty: float = inf

    def __post_init__(self) -> None:
        for name in ("total_usd", "market_qty"):
            if not getattr(self, name) > 0.0:
                raise ConfigError(f"`{name}` must be > 0, was {getattr(self, name)!r}")


def exposures_of(
    positions: Mapping[str, float],
    orders: Iterable[Committed],
    instruments: Mapping[str, Instrument],
    marks: Mapping[str, float],
) -> dict[str, MarketExposure]:
    """Return the exposure of every market with a position or an order.

    Parameters
    ----------
    positions : mapping of str to float
        Signed quantity by market.
    orders : iterable
        Every order that may still fill.
    instruments : mapping of str to Instrument
        By market; a market without one is taken as linear with a multiplier of 1.
    marks : mapping of str to float
        Price by market, at which positions are valued.

    Examples
    --------
    >>> found = exposures_of({"X": -2.0}, [], {}, {"X": 10.0})
    >>> found["X"].worst_usd, worst_case_usd(found.values())
    (20.0, 20.0)
    """
    found = {
        market_id: MarketExposure(_instrument(instruments, market_id), position, marks.get(market_id, 0.0))
        for market_id, position in positions.items()
        if position != 0.0
    }
    for order in orders:
        market_id = order.market_id
        market = found.get(market_id)
        if market is None:
            market = MarketExposure(_instrument(instruments, market_id), 0.0, marks.get(market_id, 0.0))
        found[market_id] = market.plus(order.side, order.price, order.exposed_qty)
    return found


def worst_case_usd(markets: Iterable[MarketExposure]) -> float:
    """Return the largest gross notional over all markets: each can be at its own worst at once."""
    return sum(market.worst_usd for market in markets)


def refusal(
    side: Side, price: float, qty: float, market: MarketExposure, others_usd: float, limits: ExposureLimits
) -> str:
    """Return why an order must not leave, "" when it may.

    An order that shrinks the position, or does not make its own side's end worse, may always leave: being over a limit,
    or not knowing what a position is worth, must not keep anyone from getting out. It is judged by the end of its own
    side, the only one that it moves: an order in doubt counts with its whole size beside what it has filled, and the
    worst case that it makes on the other side must be no room for this one.

    Parameters
    ----------
    side, price, qty
        The order.
    market : MarketExposure
        Its market as it is without the order.
    others_usd : float
        Worst case of all other markets together, USD.
    limits : ExposureLimits
        What is allowed.

    Examples
    --------
    >>> held = MarketExposure(Instrument("X"), position=1.0, mark=10.0)
    >>> refusal(Side.BUY, 10.0, 1.0, held, 0.0, ExposureLimits(total_usd=15.0))
    'worst_case_exposure: 20 would be over 15 USD'
    >>> refusal(Side.SELL, 10.0, 1.0, held, 90.0, ExposureLimits(total_usd=15.0))
    ''
    """
    if isfinite(price) and market.shrinks(side, qty):
        return ""
    after = market.plus(side, price, qty)
    end_qty = after.end_qty(side)
    if _is_over(end_qty, market.end_qty(side), limits.market_qty):
        return f"{WORST_CASE_INVENTORY}: {end_qty:.12g} would be over {limits.market_qty:.12g}"
    total_usd = after.end_usd(side) + others_usd
    if _is_over(total_usd, market.end_usd(side) + others_usd, limits.total_usd):
        return f"{WORST_CASE_EXPOSURE}: {total_usd:.12g} would be over {limits.total_usd:.12g} USD"
    return ""


def _is_over(after: float, before: float, limit: float) -> bool:
    # Written so that NaN is over; infinity before and after is not known to be no worse.
    return not (after <= limit * (1.0 + _REL_TOL) or (after <= before and isfinite(after)))


def _end(held: float, buys: float, sells: float, side: Side) -> float:
    end = abs(held + buys) if _is_buy(side) else abs(held - sells)
    return end if end == end else inf


def _is_buy(side: Side) -> bool:
    # By value: whoever asks may have an order of his own making, and a side that is none must not pass for the other.
    if side == Side.BUY:
        return True
    if side == Side.SELL:
        return False
    raise OrderError(f"`side` of an order must be BUY or SELL, was {side!r}")


def _instrument(instruments: Mapping[str, Instrument], market_id: str) -> Instrument:
    return instruments.get(market_id) or Instrument(market_id)
