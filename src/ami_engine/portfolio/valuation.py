"""What an account is worth at given prices: at the mid, at what leaving would fetch, or at the venue's mark."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Literal

import msgspec

from ami_engine.errors import ConfigError
from ami_engine.portfolio.positions import Positions

__all__ = ["Basis", "MarketValue", "Prices", "Valuation", "value_positions"]

# "book": a long position at the bid, a short one at the ask, as if it were left now.
Basis = Literal["mid", "book", "mark"]


class Prices(msgspec.Struct, frozen=True):
    """Prices of a market; 0 where there is none."""

    bid: float = 0.0
    ask: float = 0.0
    mark: float = 0.0

    def at(self, basis: Basis, position: float) -> float:
        """Return the price at which `position` is valued, 0.0 when there is none.

        >>> [Prices(bid=9.0, ask=11.0).at(basis, -1.0) for basis in ("mid", "book", "mark")]
        [10.0, 11.0, 0.0]
        """
        has_bid, has_ask = 0.0 < self.bid < float("inf"), 0.0 < self.ask < float("inf")
        if basis == "mark":
            return self.mark if 0.0 < self.mark < float("inf") else 0.0
        if basis == "mid":
            return (self.bid + self.ask) / 2.0 if has_bid and has_ask else 0.0
        if position > 0.0:
            return self.bid if has_bid else 0.0
        return self.ask if has_ask else 0.0


class MarketValue(msgspec.Struct, frozen=True):
    """One market: what is held at which price, money in the settlement currency, notional in USD."""

    position: float
    price: float
    unrealized: float
    realized: float
    fees: float
    exposure_usd: float


class Valuation(msgspec.Struct, frozen=True):
    """An account at given prices.

    Parameters
    ----------
    equity : float
        Start + realized − fees + unrealized, fees in other currencies converted.
    realized, unrealized, fees : float
        Over all markets, settlement currency.
    exposure_usd : float
        Gross notional, USD.
    markets : dict of str to MarketValue
        Every market that had a fill.
    unpriced : tuple of str
        Markets that are held and have no price, and currencies of fees without a rate: the sums do not count them, and
        mean less for it.
    """

    equity: float
    realized: float
    unrealized: float
    fees: float
    exposure_usd: float
    markets: dict[str, MarketValue]
    unpriced: tuple[str, ...]


def value_positions(
    positions: Positions,
    prices: Mapping[str, Prices],
    *,
    start: float = 0.0,
    basis: Basis = "mid",
    rates: Mapping[str, float] | None = None,
) -> Valuation:
    """Value what is held.

    Parameters
    ----------
    positions : Positions
        What is held, and what it made so far.
    prices : mapping of str to Prices
        By market.
    start : float
        Equity at the start, settlement currency.
    basis : {"mid", "book", "mark"}
        At which price; "book" is the value of leaving now, without fees and without what a large position would move.
    rates : mapping of str to float
        What one unit of another currency, in which fees were paid, is worth in the settlement currency.

    Raises
    ------
    ConfigError
        When the basis is none of these.

    Examples
    --------
    >>> from ami_engine.events import Fill, Side
    >>> held = Positions(cash=100.0)
    >>> buy = Fill(trade_id="1", client_order_id="a", market_id="X", side=Side.BUY, price=10.0, qty=2.0, fee=0.5)
    >>> _ = held.apply(buy)
    >>> quote = {"X": Prices(bid=11.0, ask=12.0, mark=11.75)}
    >>> [value_positions(held, quote, start=100.0, basis=basis).equity for basis in ("mid", "book", "mark")]
    [102.5, 101.5, 103.0]
    """
    if basis not in ("mid", "book", "mark"):
        raise ConfigError(f"`basis` must be 'mid', 'book' or 'mark', was {basis!r}")
    markets, unpriced = {}, []
    for market_id in positions.markets:
        markets[market_id] = value = _value(positions, market_id, prices.get(market_id, Prices()), basis)
        if value.position != 0.0 and value.price == 0.0:
            unpriced.append(market_id)
    fees = positions.fees
    for currency, paid in positions.other_fees.items():
        rate = (rates or {}).get(currency, 0.0)
        if isfinite(rate) and rate > 0.0:
            fees += paid * rate
        elif paid:
            unpriced.append(currency)
    unrealized = sum(value.unrealized for value in markets.values())
    return Valuation(
        equity=start + positions.realized - fees + unrealized,
        realized=positions.realized,
        unrealized=unrealized,
        fees=fees,
        exposure_usd=sum(value.exposure_usd for value in markets.values()),
        markets=markets,
        unpriced=tuple(unpriced),
    )


def _value(positions: Positions, market_id: str, quote: Prices, basis: Basis) -> MarketValue:
    instrument, held = positions.instrument(market_id), positions.position(market_id)
    price, unrealized, exposure_usd = quote.at(basis, held), 0.0, 0.0
    if held != 0.0 and price > 0.0:
        size, paid = held * instrument.multiplier, positions.avg_price(market_id)
        unrealized = size * (price - paid) / (paid * price) if instrument.is_inverse else size * (price - paid)
        exposure_usd = instrument.notional(price, held)
    return MarketValue(
        position=held,
        price=price,
        unrealized=unrealized,
        realized=positions.realized_of(market_id),
        fees=positions.fees_of(market_id),
        exposure_usd=exposure_usd,
    )
