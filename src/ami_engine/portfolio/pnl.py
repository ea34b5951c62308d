"""Profit and equity, marked to market at every step with floats only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ami_engine.errors import ConfigError
from ami_engine.events import Fill
from ami_engine.portfolio.positions import FillResult, Positions
from ami_engine.units import Instrument

__all__ = ["Account"]

# What an account counts beside its positions.
_FIGURES = ("start", "equity", "unrealized", "peak", "max_drawdown", "open_count", "close_count")


class Account:
    """The money of a run: equity, drawdown, exposure, and how often positions were opened and closed.

    Equity = start + realized + unrealized − fees. For linear instruments that is cash + position × multiplier × mark;
    for inverse ones it is in coin.

    Parameters
    ----------
    instruments : mapping or None
        Instruments by market.
    instrument : Instrument or None
        The instrument of every market that `instruments` does not name.
    cash : float
        Equity at the start, settlement currency.

    Attributes
    ----------
    positions : Positions
        What is held: read it, fold fills through `apply`.
    equity, unrealized : float
        At the last marks, settlement currency.
    peak, max_drawdown : float
        Highest equity so far, and the deepest fall below the peak before it (>= 0).
    open_count, close_count : int
        Positions opened from flat, and closed to flat; a flip is one of each.

    Examples
    --------
    >>> from ami_engine.events import Side
    >>> account = Account(instrument=Instrument("X", multiplier=50.0), cash=1_000.0)
    >>> buy = Fill(trade_id="1", client_order_id="a", market_id="X", side=Side.BUY, price=10.0, qty=2.0, fee=1.0)
    >>> account.apply(buy).opened
    True
    >>> account.mark("X", 10.25), account.unrealized, account.mark("X", 9.75), account.max_drawdown
    (1024.0, 25.0, 974.0, 50.0)
    """

    __slots__ = (
        "_exposure",
        "_marks",
        "_settled",
        "_terms",
        "_unrealized",
        "close_count",
        "equity",
        "max_drawdown",
        "open_count",
        "peak",
        "positions",
        "start",
        "unrealized",
    )

    def __init__(
        self,
        instruments: Mapping[str, Instrument] | None = None,
        *,
        instrument: Instrument | None = None,
        cash: float = 0.0,
    ) -> None:
        self.positions = Positions(instruments, instrument=instrument, cash=cash)
        self.start = self.equity = self.peak = float(cash)
        self.unrealized = self.max_drawdown = 0.0
        self.open_count = self.close_count = 0
        self._settled = float(cash)  # start + realized − fees: moves only with fills
        self._marks: dict[str, float] = {}
        # Of the markets that are not flat: (qty × multiplier, average price, is inverse), and what a mark makes of it.
        self._terms: dict[str, tuple[float, float, bool]] = {}
        self._unrealized: dict[str, float] = {}
        self._exposure: dict[str, float] = {}

    @property
    def drawdown(self) -> float:
        """How far equity lies below its peak now, >= 0."""
        return self.peak - self.equity

    @property
    def realized(self) -> float:
        """Profit realized so far, before fees."""
        return self.positions.realized

    @property
    def fees(self) -> float:
        """Fees paid so far, in the settlement currency."""
        return self.positions.fees

    @property
    def cash(self) -> float:
        """Cash, fees already taken."""
        return self.positions.cash

    def apply(self, fill: Fill) -> FillResult:
        """Fold one fill, at the last mark of its market, or its own price where there is none yet.

        Raises
        ------
        VenueProtocolError
            When the fill cannot be booked (`Positions.apply`).
        """
        result = self.positions.apply(fill)
        self.open_count += result.opened
        self.close_count += result.closed
        positions, market_id = self.positions, fill.market_id
        self._settled = self.start + positions.realized - positions.fees
        if positions.position(market_id) == 0.0:
            self._terms.pop(market_id, None)
            self._unrealized.pop(market_id, None)
            self._exposure.pop(market_id, None)
        else:
            self._set_terms(market_id)
        self.mark(market_id, self._marks.get(market_id, fill.price))
        return result

    def mark(self, market_id: str, price: float) -> float:
        """Mark a market to `price` (> 0; anything else, such as NaN, leaves the last mark) and return the equity."""
        if not price > 0.0:
            return self.equity
        self._marks[market_id] = price
        terms = self._terms.get(market_id)
        if terms is not None:
            size, avg_price, is_inverse = terms
            if is_inverse:
                self._unrealized[market_id] = size * (price - avg_price) / (avg_price * price)
                self._exposure[market_id] = abs(size)
            else:
                self._unrealized[market_id] = size * (price - avg_price)
                self._exposure[market_id] = abs(size) * price
        # Summed anew, not adjusted: a running sum would drift over millions of steps.
        self.unrealized = sum(self._unrealized.values())
        self.equity = equity = self._settled + self.unrealized
        if equity > self.peak:
            self.peak = equity
        elif self.peak - equity > self.max_drawdown:
            self.max_drawdown = self.peak - equity
        return equity

    def _set_terms(self, market_id: str) -> None:
        instrument = self.positions.instrument(market_id)
        size = self.positions.position(market_id) * instrument.multiplier
        self._terms[market_id] = (size, self.positions.avg_price(market_id), instrument.is_inverse)

    def snapshot(self) -> dict[str, Any]:
        """Return everything as plain values for `restore`; JSON and msgpack hold it."""
        return {
            "positions": self.positions.snapshot(),
            **{name: getattr(self, name) for name in _FIGURES},
            "marks": dict(self._marks),
            "held": list(self._unrealized),  # sums of floats depend on their order
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a snapshot of an account with the same instruments: to the bit, and so is what follows.

        Raises
        ------
        ConfigError
            When it is none, or of another currency; nothing is changed.
        """
        fresh = Account.__new__(Account)
        fresh.positions = self.positions.emptied()
        fresh.positions.restore(state.get("positions", {}))
        try:
            for name in _FIGURES:
                setattr(fresh, name, type(getattr(self, name))(state[name]))
            fresh._settled = fresh.start + fresh.positions.realized - fresh.positions.fees
            fresh._marks = {str(market_id): float(mark) for market_id, mark in state["marks"].items()}
            fresh._terms, fresh._unrealized, fresh._exposure = {}, {}, {}
            for market_id in state["held"]:
                fresh._set_terms(market_id)
                fresh.mark(market_id, fresh._marks[market_id])
            for name in _FIGURES:  # what marking one market after the other has moved
                setattr(fresh, name, type(getattr(self, name))(state[name]))
        except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
            raise ConfigError(f"this is no account: {type(error).__name__}") from error
        for name in Account.__slots__:
            setattr(self, name, getattr(fresh, name))

    def unrealized_of(self, market_id: str) -> float:
        """Return the profit of a market's position at its last mark, settlement currency."""
        return self._unrealized.get(market_id, 0.0)

    def exposure_usd(self, market_id: str | None = None) -> float:
        """Return the gross notional held at the last marks, USD; over all markets when none is named."""
        if market_id is None:
            return sum(self._exposure.values())
        return self._exposure.get(market_id, 0.0)

    def held_markets(self) -> tuple[str, ...]:
        """Return the markets that are not flat."""
        return tuple(self._terms)

    def mark_of(self, market_id: str) -> float:
        """Return a market's last mark, 0.0 when it had none."""
        return self._marks.get(market_id, 0.0)
