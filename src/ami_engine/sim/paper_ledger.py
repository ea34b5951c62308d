"""The books of a simulated venue: positions and cash in exact decimals."""

from __future__ import annotations

from decimal import Context, Decimal, Inexact

from ami_engine.units import Instrument

__all__ = ["COIN_UNIT", "EXACT", "ZERO", "PaperLedger", "exact"]

ZERO = Decimal(0)
# A coin amount is a quotient, so it is rounded, half to even, to this unit: the smallest that any settlement coin has.
COIN_UNIT = Decimal("1e-18")
# Products and sums are exact: 300 digits hold those of any market numbers, and the trap would say so. Operators are not
# used, because they round to the context of the calling thread.
EXACT = Context(prec=300, traps=[Inexact])
_ROUNDED = Context(prec=300)
_BPS = Decimal("0.0001")


def exact(value: float) -> Decimal:
    """Return the shortest decimal that names `value`: what a person would have written.

    >>> exact(0.1)
    Decimal('0.1')
    """
    return Decimal(repr(float(value)))


class PaperLedger:
    """Positions by market and cash by currency, folded from fills; they balance to the last unit.

    Linear markets book the cash that changes hands, so that equity is cash + position · multiplier · mark. Inverse
    markets book realized profit in coin: the coin value at entry of the open position is kept beside the cash, and the
    part of it that a closing fill releases is proportional (average cost). Fees are taken from cash. There is no
    margin: cash may become negative.

    Parameters
    ----------
    cash : float
        Balance at the start.
    currency : str
        Its currency.

    Examples
    --------
    >>> ledger = PaperLedger(100.0, "USD")
    >>> spot = Instrument("X", taker_fee_bps=10.0)
    >>> ledger.book("X", spot, is_buy=True, price=exact(0.5), qty=exact(3.0), fee_bps=exact(10.0))
    Decimal('0.00150000')
    >>> float(ledger.cash["USD"]), float(ledger.positions["X"])
    (98.4985, 3.0)
    """

    __slots__ = ("cash", "entry_coin", "positions")

    def __init__(self, cash: float, currency: str) -> None:
        self.cash: dict[str, Decimal] = {currency: exact(cash)}
        self.positions: dict[str, Decimal] = {}
        self.entry_coin: dict[str, Decimal] = {}

    def position(self, market_id: str) -> Decimal:
        """Return the signed position, 0 when there never was one."""
        return self.positions.get(market_id, ZERO)

    def book(
        self, market_id: str, instrument: Instrument, *, is_buy: bool, price: Decimal, qty: Decimal, fee_bps: Decimal
    ) -> Decimal:
        """Fold one fill in; return its fee in the settlement currency (negative is a rebate)."""
        size = EXACT.multiply(qty, exact(instrument.multiplier))
        if instrument.is_inverse:
            value = _coins(_ROUNDED.divide(size, price))
            gained = self._settle_coins(market_id, value, qty, is_buy=is_buy)
            fee = _coins(_ROUNDED.multiply(_ROUNDED.multiply(value, fee_bps), _BPS))
        else:
            value = EXACT.multiply(size, price)
            gained = value.copy_negate() if is_buy else value
            fee = EXACT.multiply(EXACT.multiply(value, fee_bps), _BPS)
        currency = instrument.currency
        self.cash[currency] = EXACT.add(self.cash.get(currency, ZERO), EXACT.subtract(gained, fee))
        self.positions[market_id] = EXACT.add(self.position(market_id), qty if is_buy else qty.copy_negate())
        return fee

    def _settle_coins(self, market_id: str, value: Decimal, qty: Decimal, *, is_buy: bool) -> Decimal:
        """Return the profit in coin that the fill realizes, and keep the open position's value at entry."""
        held = self.position(market_id)
        size = held.copy_abs()
        entry = self.entry_coin.get(market_id, ZERO)
        closed = min(qty, size) if is_buy == (held < 0) else ZERO
        closed_value = _coins(_ROUNDED.divide(_ROUNDED.multiply(value, closed), qty))
        # Invariant: a position that is closed wholly releases all of its entry value; rounding leaves nothing behind.
        released = entry if closed == size else _coins(_ROUNDED.divide(_ROUNDED.multiply(entry, closed), size))
        opened_value = EXACT.subtract(value, closed_value)
        if not is_buy:
            closed_value, opened_value = closed_value.copy_negate(), opened_value.copy_negate()
        self.entry_coin[market_id] = EXACT.add(EXACT.subtract(entry, released), opened_value)
        return EXACT.add(released, closed_value)


def _coins(amount: Decimal) -> Decimal:
    """Round an amount to the coin's smallest unit."""
    return amount.quantize(COIN_UNIT, context=_ROUNDED)
