"""Positions, cash and fees: every fill folded exactly.

Floats add up to something else in another order, and a ledger that is a cent off is wrong; so fills are folded in
decimal, each float taken as the number it prints as, and the float that a step reads is rounded once, when a fill
arrives.

One formula serves both kinds of contract. The value of ``qty`` at ``price`` is ``qty × multiplier × price`` for a
linear one and ``−qty × multiplier / price``, in coin, for an inverse one; profit is the change of value in either case.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Context, Decimal, localcontext
from math import isfinite
from typing import Any

import msgspec

from ami_engine.errors import ConfigError, VenueProtocolError
from ami_engine.events import Fill, Side
from ami_engine.units import Instrument

__all__ = ["FillResult", "Positions"]

# Products of two floats have at most 34 digits. Only divisions (a share of the cost; an inverse value) are rounded, at
# 50 digits, and what the share rounds is moved between cost and profit, never lost.
_EXACT = Context(prec=50)
_ZERO = Decimal(0)
_HOLDING_SUMS = ("qty", "cost", "realized", "fees", "trip_pnl")


class FillResult(msgspec.Struct, frozen=True, gc=False):
    """What one fill did to its market.

    Parameters
    ----------
    realized : float
        Profit taken, before fees, settlement currency.
    closed_qty : float
        Size closed, >= 0.
    opened, closed : bool
        True when a position was opened from flat, or closed to flat. A fill that flips a position does both.
    trip_pnl : float
        When `closed`: profit after fees from the opening to this close; 0 otherwise.
    """

    realized: float = 0.0
    closed_qty: float = 0.0
    opened: bool = False
    closed: bool = False
    trip_pnl: float = 0.0


class _Holding:
    """One market: exact sums, and the floats that were rounded from them."""

    __slots__ = (
        "avg_price",
        "cost",
        "fees",
        "instrument",
        "qty",
        "qty_view",
        "realized",
        "trip_pnl",
    )

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.qty = self.cost = self.realized = self.fees = _ZERO
        self.trip_pnl = _ZERO  # after fees, since the position was opened
        self.qty_view = self.avg_price = 0.0

    def value(self, qty: Decimal, price: Decimal) -> Decimal:
        size = qty * _decimal(self.instrument.multiplier)
        return -size / price if self.instrument.is_inverse else size * price

    def cash_flow(self, signed: Decimal, price: Decimal, realized: Decimal) -> Decimal:
        """Return what a fill does to cash, before its fee."""
        return realized if self.instrument.is_inverse else -self.value(signed, price)

    def fold(self, signed: Decimal, price: Decimal, fee: Decimal) -> tuple[Decimal, FillResult]:
        """Fold a signed quantity; return the profit that it realized, exactly, and the result."""
        before = self.qty
        closing = _ZERO
        if before and (before > 0) != (signed > 0):
            closing = max(signed, -before) if signed < 0 else min(signed, -before)
        opening = signed - closing
        realized = fee_closing = _ZERO
        if closing:
            # Invariant: cost taken out and cost left add up to the cost before: rounding the share loses nothing.
            left = self.cost * (before + closing) / before if before + closing else _ZERO
            realized = -self.value(closing, price) - (self.cost - left)
            fee_closing = fee * closing / signed
            self.cost, self.qty = left, before + closing
        is_closed, is_opened = bool(closing) and not self.qty, bool(opening) and not self.qty
        trip_pnl = self.trip_pnl + realized - fee_closing
        self.trip_pnl = (_ZERO if is_closed else trip_pnl) - (fee - fee_closing)
        if opening:
            self.cost += self.value(opening, price)
            self.qty += opening
        self.realized += realized
        self.fees += fee
        self.qty_view, self.avg_price = float(self.qty), self._avg_price()
        result = FillResult(
            float(realized), float(abs(closing)), is_opened, is_closed, float(trip_pnl) if is_closed else 0.0
        )
        return realized, result

    def load(self, sums: Mapping[str, Decimal]) -> None:
        """Take over sums of a snapshot."""
        for name, value in sums.items():
            setattr(self, name, value)
        with localcontext(_EXACT):
            self.qty_view, self.avg_price = float(self.qty), self._avg_price()

    def _avg_price(self) -> float:
        if not self.qty:
            return 0.0
        size = self.qty * _decimal(self.instrument.multiplier)
        return float(-size / self.cost if self.instrument.is_inverse else self.cost / size)


class Positions:
    """What is held in each market, at which average cost, and the cash that it took.

    Parameters
    ----------
    instruments : mapping or None
        Instruments by market.
    instrument : Instrument or None
        The instrument of every market that `instruments` does not name; None: `Instrument(market)`, linear in USD.
    cash : float
        Cash at the start, settlement currency.

    Attributes
    ----------
    cash : float
        Cash, fees already taken: for linear instruments the start less what was bought plus what was sold; for inverse
        ones, in coin, the start plus what was realized.
    realized, fees : float
        Sums over all markets; fees > 0 are paid. Realized profit is before fees.
    last_realized : Decimal
        What the last fill realized before its fee, exactly.
    other_fees : dict
        Fees in currencies other than the settlement currency, by currency. They are in neither `fees` nor `cash`: what
        they are worth is not known here.

    Raises
    ------
    ConfigError
        When the instruments settle in different currencies: sums over them would mean nothing.

    Examples
    --------
    >>> book = Positions(instrument=Instrument("X"), cash=100.0)
    >>> def fill(side, price, qty):
    ...     return Fill(trade_id="", client_order_id="", market_id="X", side=side, price=price, qty=qty, fee=0.01)
    >>> book.apply(fill(Side.BUY, 10.0, 2.0)).opened
    True
    >>> flipped = book.apply(fill(Side.SELL, 10.5, 3.0))
    >>> flipped.realized, flipped.closed, flipped.opened, book.position("X"), book.avg_price("X")
    (1.0, True, True, -1.0, 10.5)
    >>> book.cash, book.fees
    (111.48, 0.02)
    """

    __slots__ = (
        "_cash",
        "_currency",
        "_default",
        "_fees",
        "_holdings",
        "_instruments",
        "_realized",
        "cash",
        "fees",
        "last_realized",
        "other_fees",
        "realized",
    )

    def __init__(
        self,
        instruments: Mapping[str, Instrument] | None = None,
        *,
        instrument: Instrument | None = None,
        cash: float = 0.0,
    ) -> None:
        self._instruments = dict(instruments or {})
        self._default = instrument
        self._currency = self._settlement_currency()
        self._holdings: dict[str, _Holding] = {}
        self._cash = _decimal(cash)
        self._realized = self._fees = self.last_realized = _ZERO
        self.cash = float(cash)
        self.realized = 0.0
        self.fees = 0.0
        self.other_fees: dict[str, float] = {}

    @property
    def currency(self) -> str:
        """The settlement currency: what cash, fees and profit are counted in."""
        return self._currency

    @property
    def markets(self) -> tuple[str, ...]:
        """The markets that had a fill, in the order of their first one."""
        return tuple(self._holdings)

    def instrument(self, market_id: str) -> Instrument:
        """Return the instrument of a market."""
        known = self._instruments.get(market_id) or self._default
        return known if known is not None else Instrument(market_id, currency=self._currency)

    def position(self, market_id: str) -> float:
        """Return the signed quantity held, 0.0 when flat."""
        holding = self._holdings.get(market_id)
        return 0.0 if holding is None else holding.qty_view

    def avg_price(self, market_id: str) -> float:
        """Return the average price paid for what is held, 0.0 when flat."""
        holding = self._holdings.get(market_id)
        return 0.0 if holding is None else holding.avg_price

    def realized_of(self, market_id: str) -> float:
        """Return the profit realized in a market, before fees."""
        holding = self._holdings.get(market_id)
        return 0.0 if holding is None else float(holding.realized)

    def fees_of(self, market_id: str) -> float:
        """Return the fees paid in a market, in the settlement currency."""
        holding = self._holdings.get(market_id)
        return 0.0 if holding is None else float(holding.fees)

    def apply(self, fill: Fill) -> FillResult:
        """Fold one fill.

        Raises
        ------
        VenueProtocolError
            When its price or size is not finite and above 0, or its fee is not finite. Nothing is changed then.
        """
        for name, number in (("price", fill.price), ("qty", fill.qty)):
            if not (isfinite(number) and number > 0.0):
                raise VenueProtocolError(f"`{name}` of trade {fill.trade_id!r} must be finite and > 0, was {number!r}")
        if not isfinite(fill.fee):
            raise VenueProtocolError(f"`fee` of trade {fill.trade_id!r} must be finite, was {fill.fee!r}")
        holding = self._holdings.get(fill.market_id)
        if holding is None:
            holding = self._holdings[fill.market_id] = _Holding(self.instrument(fill.market_id))
        # Every operator of decimals rounds to the current context, a mere minus sign too.
        with localcontext(_EXACT):
            signed = _decimal(fill.qty) if fill.side is Side.BUY else -_decimal(fill.qty)
            price, fee = _decimal(fill.price), self._settled_fee(fill)
            realized, result = holding.fold(signed, price, fee)
            self._cash += holding.cash_flow(signed, price, realized) - fee
            self._realized += realized
            self.last_realized = realized
            self._fees += fee
        self.cash, self.realized, self.fees = float(self._cash), float(self._realized), float(self._fees)
        return result

    def emptied(self) -> Positions:
        """Return positions of the same instruments that hold nothing."""
        return Positions(self._instruments, instrument=self._default)

    def snapshot(self) -> dict[str, Any]:
        """Return everything as plain values, decimals as exact text, for `restore`: JSON and msgpack hold it."""
        return {
            "currency": self._currency,
            "cash": str(self._cash),
            "realized": str(self._realized),
            "fees": str(self._fees),
            "other_fees": dict(self.other_fees),
            "holdings": {
                market_id: {name: str(getattr(holding, name)) for name in _HOLDING_SUMS}
                for market_id, holding in self._holdings.items()
            },
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a snapshot of positions with the same instruments: every number is the same afterwards.

        Raises
        ------
        ConfigError
            When it is none, or settles in another currency; nothing is changed.
        """
        try:
            if state["currency"] != self._currency:
                raise ConfigError(f"the positions settle in {state['currency']!r}, these in {self._currency!r}")
            holdings = {}
            for market_id, sums in state["holdings"].items():
                holding = holdings[market_id] = _Holding(self.instrument(market_id))
                holding.load({name: _sum_from(sums[name]) for name in _HOLDING_SUMS})
            cash, realized, fees = (_sum_from(state[name]) for name in ("cash", "realized", "fees"))
            other_fees = {str(currency): float(paid) for currency, paid in state["other_fees"].items()}
        except (KeyError, TypeError, AttributeError, ArithmeticError) as error:
            raise ConfigError(f"the bytes are no positions: {type(error).__name__}") from error
        self._holdings, self.other_fees = holdings, other_fees
        self._cash, self._realized, self._fees = cash, realized, fees
        self.cash, self.realized, self.fees = float(cash), float(realized), float(fees)

    def _settled_fee(self, fill: Fill) -> Decimal:
        if fill.fee_currency in ("", self._currency):
            return _decimal(fill.fee)
        paid = _decimal(self.other_fees.get(fill.fee_currency, 0.0))
        self.other_fees[fill.fee_currency] = float(paid + _decimal(fill.fee))
        return _ZERO

    def _settlement_currency(self) -> str:
        known = [*self._instruments.values(), *([self._default] if self._default else [])]
        currencies = sorted({instrument.currency for instrument in known})
        if len(currencies) > 1:
            raise ConfigError(f"`instruments` must settle in one currency, were {', '.join(currencies)}")
        return currencies[0] if currencies else "USD"


def _sum_from(text: str) -> Decimal:
    """Return a sum of a snapshot; one that is not finite is none."""
    value = Decimal(text)
    if not value.is_finite():
        raise ArithmeticError(text)
    return value


def _decimal(number: float) -> Decimal:
    """Return the decimal that `number` prints as: 0.1 is a tenth."""
    return Decimal(repr(float(number)))
