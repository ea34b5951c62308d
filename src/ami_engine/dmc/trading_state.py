"""Trading states: what may leave for the venue, and which command leads from which state to which."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from ami_engine.events import SubmitOrder
from ami_engine.portfolio.exposure import ExposureLimits, MarketExposure, refusal

__all__ = ["STATE_TRANSITIONS", "TradingGate", "TradingState"]


class TradingState(StrEnum):
    """What may leave: everything, only what shrinks a position, or nothing."""

    ACTIVE = "ACTIVE"
    REDUCING = "REDUCING"
    HALTED = "HALTED"


_S = TradingState

STATE_TRANSITIONS: dict[TradingState, dict[str, TradingState]] = {
    _S.ACTIVE: {"pause": _S.HALTED, "kill": _S.HALTED, "reduce": _S.REDUCING, "resume": _S.ACTIVE},
    _S.REDUCING: {"pause": _S.HALTED, "kill": _S.HALTED, "reduce": _S.REDUCING, "resume": _S.ACTIVE},
    # An operator may let a halted run shrink its positions; what is latched is asked before this table is.
    _S.HALTED: {"pause": _S.HALTED, "kill": _S.HALTED, "reduce": _S.REDUCING, "resume": _S.ACTIVE},
}
"""State × command → state. While something is latched only `pause` and `kill` are obeyed, and the state is HALTED."""


class TradingGate:
    """The last question before an order leaves: may it, in this state, and within the worst case?

    Parameters
    ----------
    exposure : callable
        Takes a market's name; returns its `MarketExposure` without the order in question.
    others_usd : callable or None
        Takes a market's name; returns the worst case of all other markets together, USD. Asked only under `limits`.

    Attributes
    ----------
    state : TradingState
        Set by whoever commands. What is none lets nothing leave.
    limits : ExposureLimits or None
        What the worst case may be; None asks nothing of it.

    Notes
    -----
    An error while the question is answered is a refusal: an order that cannot be judged does not leave.

    Examples
    --------
    >>> from ami_engine.events import Side
    >>> from ami_engine.units import Instrument
    >>> gate = TradingGate(lambda market_id: MarketExposure(Instrument("X"), position=2.0, mark=10.0))
    >>> sell = SubmitOrder(client_order_id="a", market_id="X", side=Side.SELL, price=10.0, qty=3.0)
    >>> gate(sell)
    ''
    >>> gate.state = TradingState.REDUCING
    >>> gate(sell)
    'trading_reducing: SELL 3 would not only shrink the position of 2'
    """

    __slots__ = ("_exposure", "_others_usd", "limits", "state")

    def __init__(
        self,
        exposure: Callable[[str], MarketExposure],
        others_usd: Callable[[str], float] | None = None,
        *,
        limits: ExposureLimits | None = None,
    ) -> None:
        self.state = TradingState.ACTIVE
        self.limits = limits
        self._exposure = exposure
        self._others_usd = others_usd

    def __call__(self, order: SubmitOrder) -> str:
        """Return why `order` must not leave, "" when it may."""
        state = self.state
        if state != _S.ACTIVE and state != _S.REDUCING:
            return f"trading_halted: nothing leaves{'' if state == _S.HALTED else f', the state is {state!r}'}"
        if state == _S.ACTIVE and self.limits is None:
            return ""
        try:
            market = self._exposure(order.market_id)
            if state == _S.REDUCING and not market.shrinks(order.side, order.qty):
                return (
                    f"trading_reducing: {order.side} {order.qty:.12g} would not only shrink"
                    f" the position of {market.position:.12g}"
                )
            if self.limits is None:
                return ""
            others_usd = self._others_usd(order.market_id) if self._others_usd is not None else 0.0
            return refusal(order.side, order.price, order.qty, market, others_usd, self.limits)
        except Exception as error:  # what exposure reads is the account's and the order layer's: fail closed
            return f"gate_error: {type(error).__name__}"
