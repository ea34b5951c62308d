"""The hard gate as a service: may this order leave, given what is known? One answer, with every code that speaks.

It has no limits of its own. The guards of `dmc.guards`, under one `RiskPolicy`, say what they say in a run; the worst
case is `portfolio.exposure`'s; state and kill switch are the operator's.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isfinite
from typing import Any, Protocol

import msgspec

from ami_engine.dmc.context import GuardContext
from ami_engine.dmc.guards import GUARDS, Guard
from ami_engine.dmc.modulator import modulate
from ami_engine.dmc.risk_policy import RiskPolicy
from ami_engine.dmc.risk_state import RiskState
from ami_engine.dmc.trading_state import TradingState
from ami_engine.events import Side
from ami_engine.portfolio.exposure import ExposureLimits, MarketExposure, refusal
from ami_engine.portfolio.trading_day import TradingDay
from ami_engine.units import Instrument
from decision_schema.types import Action, Proposal

__all__ = ["Intent", "LossGuard", "RiskDecision", "RiskPolicyService", "RiskView", "limits_of"]

_SIDES = tuple(Side)
_LOSS_FLAGS = ("daily_loss", "loss_streak", "drawdown")
_LOSS_GUARDS: tuple[Guard, ...] = tuple(guard for guard in GUARDS if guard.flag in _LOSS_FLAGS)


class Intent(Protocol):
    """An order that somebody wants to send; `SubmitOrder` is one."""

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
        """Limit price, quote currency."""
        ...

    @property
    def qty(self) -> float:
        """Size, base units or contracts."""
        ...

    @property
    def reduce_only(self) -> bool:
        """True for an order that may only close."""
        ...


class RiskDecision(msgspec.Struct, frozen=True):
    """The answer to one intent.

    Parameters
    ----------
    allowed : bool
        True when the order may leave as it is.
    codes : tuple of str
        Every reason code that spoke, in the order: intent, operator, guards, worst case. A guard that would only clamp
        speaks too, and then the order as it stands may not leave.
    reasons : tuple of str
        The same, in words with the numbers.
    action : str
        The most severe action that was asked for: ACT or EXIT (as proposed), HOLD, CANCEL, EXIT, STOP.
    size_usd : float or None
        What the guards leave of the size where they clamp it, USD.
    """

    allowed: bool
    codes: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    action: str = "ACT"
    size_usd: float | None = None


class RiskView(msgspec.Struct, frozen=True, kw_only=True):
    """What is known when an intent is judged.

    Parameters
    ----------
    context : GuardContext or mapping
        What the guards read.
    exposures : mapping of str to MarketExposure
        Every market with a position or an order that may fill, without the order in question.
    instruments : mapping of str to Instrument
        By market; a market without one is linear with a multiplier of 1.
    marks : mapping of str to float
        Prices of markets that are not in `exposures`.
    state : TradingState
        The operator's.
    is_killed : bool
        True while the kill switch is tripped.
    """

    context: GuardContext | Mapping[str, Any] = msgspec.field(default_factory=GuardContext)
    exposures: Mapping[str, MarketExposure] = msgspec.field(default_factory=dict)
    instruments: Mapping[str, Instrument] = msgspec.field(default_factory=dict)
    marks: Mapping[str, float] = msgspec.field(default_factory=dict)
    state: TradingState = TradingState.ACTIVE
    is_killed: bool = False


def limits_of(policy: RiskPolicy) -> ExposureLimits:
    """Return the worst-case limits that a policy's keys stand for.

    >>> limits_of(RiskPolicy(max_total_exposure_usd=50.0))
    ExposureLimits(total_usd=50.0, market_qty=10.0)
    """
    return ExposureLimits(total_usd=policy.max_total_exposure_usd, market_qty=policy.max_abs_inventory)


class RiskPolicyService:
    """Judges intents under one policy. Pure: it remembers nothing and reads no clock.

    Parameters
    ----------
    policy : RiskPolicy
        The limits.

    Examples
    --------
    >>> from ami_engine.events import SubmitOrder
    >>> service = RiskPolicyService(RiskPolicy(max_total_exposure_usd=100.0, max_per_market_usd=80.0))
    >>> def buy(qty):
    ...     return SubmitOrder(client_order_id="a", market_id="X", side=Side.BUY, price=10.0, qty=qty)
    >>> held = {"X": MarketExposure(Instrument("X"), position=2.0, mark=10.0, buy_qty=4.0, buy_usd=40.0)}
    >>> service.validate_intent(buy(1.0), RiskView(exposures=held)).allowed
    True
    >>> refused = service.validate_intent(buy(5.0), RiskView(exposures=held, state=TradingState.REDUCING))
    >>> refused.allowed, refused.codes
    (False, ('trading_reducing', 'worst_case_inventory', 'worst_case_exposure'))
    """

    def __init__(self, policy: RiskPolicy) -> None:
        self.policy = policy
        self._limits = limits_of(policy)

    def validate_intent(self, intent: Intent, view: RiskView) -> RiskDecision:
        """Return whether the order may leave, and everything that speaks against it.

        A reduce-only order is judged as an EXIT, any other as an ACT: guards that hold new risk let a position be left.
        """
        told = _Told()
        if not (_is_positive(intent.price) and _is_positive(intent.qty)):
            told.add("intent_invalid", f"price and size must be finite and > 0, were {intent.price!r}, {intent.qty!r}")
            return told.decision(Action.HOLD, None)
        if intent.side not in _SIDES:
            told.add("intent_invalid", f"`side` must be BUY or SELL, was {intent.side!r}")
            return told.decision(Action.HOLD, None)
        market = view.exposures.get(intent.market_id)
        if market is None:
            instrument = view.instruments.get(intent.market_id) or Instrument(intent.market_id)
            market = MarketExposure(instrument, 0.0, view.marks.get(intent.market_id, 0.0))
        action, size_usd = self._ask_guards(intent, view, market, told)
        for limits in (ExposureLimits(market_qty=self._limits.market_qty), ExposureLimits(self._limits.total_usd)):
            others_usd = sum(each.worst_usd for name, each in view.exposures.items() if name != intent.market_id)
            text = refusal(intent.side, intent.price, intent.qty, market, others_usd, limits)
            if text:
                told.add(text.partition(":")[0], text)
        return told.decision(action, size_usd)

    def _ask_guards(
        self, intent: Intent, view: RiskView, market: MarketExposure, told: _Told
    ) -> tuple[Action, float | None]:
        proposed = Action.EXIT if intent.reduce_only else Action.ACT
        action = proposed
        if view.is_killed:
            told.add("kill_switch", "the kill switch is tripped")
            action = Action.STOP
        state = view.state
        if state != TradingState.ACTIVE and state != TradingState.REDUCING:
            is_known = state == TradingState.HALTED
            told.add("trading_halted", "trading is halted" if is_known else f"`state` is no TradingState: {state!r}")
            action = Action.STOP
        elif state == TradingState.REDUCING and not market.shrinks(intent.side, intent.qty):
            told.add("trading_reducing", f"{intent.qty:.12g} would not only shrink {market.position:.12g}")
            action = Action.HOLD if action is proposed else action
        notional = market.instrument.notional(intent.price, intent.qty)
        final, mismatch = modulate(Proposal(proposed, 1.0, params={"size_usd": notional}), self.policy, view.context)
        if mismatch.metadata is not None:
            for found in mismatch.metadata["guards"].values():
                for each in (found, *found.get("also", ())):
                    told.add(each["code"], f"{each['code']}: {each['value']} with a limit of {each['limit']}")
        size_usd = None
        if final.action is Action.ACT and final.params is not None and final.params["size_usd"] < notional:
            size_usd = float(final.params["size_usd"])
        return (final.action if action is proposed else action), size_usd


class LossGuard:
    """Daily loss, losing streak, drawdown and equity floor of an account: the guards of those names, with a memory.

    Parameters
    ----------
    policy : RiskPolicy
        `daily_loss_stop_usd`, `max_drawdown_stop_usd`, `equity_floor_usd`, `max_consecutive_losses`.
    day : TradingDay or None
        When a day begins; midnight UTC when None.

    Notes
    -----
    What stops latches, as it does in a run, until `release`. A figure that is not finite is refused with
    ``context_invalid``, because every comparison with it would pass.

    Examples
    --------
    >>> guard = LossGuard(RiskPolicy(daily_loss_stop_usd=100.0, max_drawdown_stop_usd=500.0))
    >>> guard.on_account(0, realized=50.0, unrealized=-20.0, equity=1_030.0).allowed
    True
    >>> guard.on_account(1, realized=-80.0, unrealized=-20.0, equity=900.0).codes
    ('daily_loss_stop',)
    >>> guard.on_account(2, realized=80.0, unrealized=0.0, equity=1_080.0).codes  # a stop is not undone by a rally
    ('daily_loss_stop',)
    """

    def __init__(self, policy: RiskPolicy, *, day: TradingDay | None = None) -> None:
        self._policy = policy
        self._state = RiskState(policy, 1.0, trading_day=day)
        self._context = GuardContext()

    def on_account(self, now_ns: int, *, realized: float, unrealized: float, equity: float) -> RiskDecision:
        """Take the account's figures (after fees, settlement currency worth one USD), and judge."""
        told = _Told()
        for name, number in (("realized", realized), ("unrealized", unrealized), ("equity", equity)):
            if not isfinite(number):
                told.add("context_invalid", f"`{name}` must be finite, was {number!r}")
        if told.codes:
            return told.decision(Action.HOLD, None)
        self._state.on_account(now_ns, realized, unrealized, equity)
        return self._judge(now_ns)

    def on_position_closed(self, now_ns: int, realized: float) -> RiskDecision:
        """Take what a position made after fees, for the losing streak, and judge."""
        self._state.on_position_closed(now_ns, realized)
        return self._judge(now_ns)

    def release(self, name: str, operator: str, reason: str) -> None:
        """Release what latched; raises ConfigError when nothing of that name did, or nobody says who and why."""
        self._state.release(name, operator, reason)

    def _judge(self, now_ns: int) -> RiskDecision:
        self._state.fill_context(self._context, now_ns)
        told, action = _Told(), Action.ACT
        for guard in _LOSS_GUARDS:
            for found in guard.function(self._context, self._policy, Action.ACT, None):
                told.add(found.code, f"{found.code}: {found.value} with a limit of {found.limit}")
                if found.action == Action.STOP:
                    action = Action.STOP
                    self._state.latch(guard.flag, now_ns, found.code)
                elif action is Action.ACT:
                    action = Action(found.action)
        return told.decision(action, None)


class _Told:
    """Codes and reasons while they are being gathered; a code is said once."""

    def __init__(self) -> None:
        self.codes: dict[str, str] = {}

    def add(self, code: str, reason: str) -> None:
        self.codes.setdefault(code, reason)

    def decision(self, action: Action, size_usd: float | None) -> RiskDecision:
        if self.codes and action in (Action.ACT, Action.EXIT) and size_usd is None:
            action = Action.HOLD
        return RiskDecision(not self.codes, tuple(self.codes), tuple(self.codes.values()), action.value, size_usd)


def _is_positive(number: float) -> bool:
    return 0.0 < number < inf
