"""The treasury: what a day's result becomes. Costs first, then the principal, then the reserve, then transfers.

Pure and deterministic, in exact decimals: the same policy and the same days give the same decisions. Nothing is moved
here: every day gives one record of what was decided and why, and the transactions for the ledger that carry it out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import date
from decimal import Context, Decimal, localcontext

import msgspec

from ami_engine.errors import ConfigError
from ami_engine.portfolio.ledger import Posting, Transaction

__all__ = ["DayFigures", "Treasury", "TreasuryDay", "TreasuryPolicy"]

_ZERO, _ONE = Decimal(0), Decimal(1)
# More digits than sums of money have: a share is rounded to the quantum, nothing else is.
_EXACT = Context(prec=200)


class TreasuryPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the treasury may decide. Amounts are in the settlement currency.

    Parameters
    ----------
    principal : Decimal
        What must never be paid out: cash below it is refilled from the reserve, and nothing is transferred, >= 0.
    operating_cost_per_day : Decimal
        Set aside every day, profit or not, >= 0.
    reserve_frac : Decimal
        Share of a positive surplus that goes to the reserve, in [0, 1].
    reserve_target : Decimal
        Where the reserve stops growing, >= 0.
    surplus_days : int
        Length of the rolling window, days, 1 … 366.
    transfer_frac : Decimal
        Share of what the window's surplus leaves that may be transferred out, in [0, 1]; 0 is never.
    transfer_min, transfer_max : Decimal
        Smallest and largest transfer, > 0 and >= transfer_min.
    transfer_every_days : int
        Days between transfers, at least 1.
    quantum : Decimal
        Transfers and shares are rounded down to whole multiples of it, > 0.
    currency, target : str
        Currency of everything, and where transfers go: ``outside:<target>``.

    Raises
    ------
    ConfigError
        When a value is outside its range: names key, rule and value.

    Examples
    --------
    >>> TreasuryPolicy(reserve_frac=Decimal("1.5"))
    Traceback (most recent call last):
    ami_engine.errors.ConfigError: `reserve_frac` of a treasury policy must be in [0, 1], was 1.5
    """

    principal: Decimal = _ZERO
    operating_cost_per_day: Decimal = _ZERO
    reserve_frac: Decimal = Decimal("0.2")
    reserve_target: Decimal = _ZERO
    surplus_days: int = 30
    transfer_frac: Decimal = _ZERO
    transfer_min: Decimal = _ONE
    transfer_max: Decimal = Decimal("1e9")
    transfer_every_days: int = 7
    quantum: Decimal = Decimal("0.01")
    currency: str = "USD"
    target: str = "bank"

    def __post_init__(self) -> None:
        for name in ("principal", "operating_cost_per_day", "reserve_target"):
            self._require(name, "finite and >= 0", lambda value: value >= 0)
        for name in ("reserve_frac", "transfer_frac"):
            self._require(name, "in [0, 1]", lambda value: 0 <= value <= 1)
        for name in ("transfer_min", "transfer_max", "quantum"):
            self._require(name, "finite and > 0", lambda value: value > 0)
        self._require("transfer_max", "at least transfer_min", lambda value: value >= self.transfer_min)
        for name, most in (("surplus_days", 366), ("transfer_every_days", 366)):
            days = getattr(self, name)
            if type(days) is not int or not 1 <= days <= most:
                raise ConfigError(f"`{name}` of a treasury policy must be a whole number in [1, {most}], was {days!r}")
        for name in ("currency", "target"):
            text = getattr(self, name)
            if not text or not text.isprintable() or " " in text or ":" in text:
                raise ConfigError(f"`{name}` of a treasury policy must be a word, was {text!r}")

    def _require(self, name: str, rule: str, holds: object) -> None:
        value = getattr(self, name)
        if not (isinstance(value, Decimal) and value.is_finite() and callable(holds) and holds(value)):
            raise ConfigError(f"`{name}` of a treasury policy must be {rule}, was {value}")


class DayFigures(msgspec.Struct, frozen=True):
    """A day as the books have it at its end.

    `result` is what trading made: realized after fees, plus funding; `cash` what is there before the treasury decides.
    Open positions count in neither: unrealized profit is not paid out.
    """

    day: str
    result: Decimal
    cash: Decimal


class TreasuryDay(msgspec.Struct, frozen=True):
    """The record of one day: what was decided, and why.

    Parameters
    ----------
    day : str
        Its date, ISO.
    result, operating_cost, surplus : Decimal
        What trading made, what the day cost, and the difference.
    rolling_surplus : Decimal
        Sum of the surplus over the policy's window, this day included.
    from_reserve, to_reserve : Decimal
        What the principal took out of the reserve, and what the reserve got.
    transfer : Decimal
        What leaves.
    reserve, cash : Decimal
        What is left after all of it.
    is_principal_short : bool
        True when cash is below the principal even so.
    reasons : tuple of str
        A code for everything that was done or kept from being done.
    """

    day: str
    result: Decimal
    operating_cost: Decimal
    surplus: Decimal
    rolling_surplus: Decimal
    from_reserve: Decimal
    to_reserve: Decimal
    transfer: Decimal
    reserve: Decimal
    cash: Decimal
    is_principal_short: bool
    reasons: tuple[str, ...]


class Treasury:
    """Closes one day after the other.

    Parameters
    ----------
    policy : TreasuryPolicy
        What may be decided.
    days : iterable of TreasuryDay
        The records of earlier days, oldest first: after a restart the treasury goes on where it was.

    Examples
    --------
    >>> policy = TreasuryPolicy(
    ...     principal=Decimal(1000), operating_cost_per_day=Decimal(10), reserve_frac=Decimal("0.5"),
    ...     reserve_target=Decimal(500), transfer_frac=Decimal(1), transfer_every_days=1)
    >>> day = Treasury(policy).close_day(DayFigures("2024-05-06", result=Decimal(110), cash=Decimal(1110)))
    >>> str(day.surplus), str(day.to_reserve), str(day.transfer), str(day.cash)
    ('100', '50.00', '50.00', '1000.00')
    """

    def __init__(self, policy: TreasuryPolicy, days: Iterable[TreasuryDay] = ()) -> None:
        self.policy = policy
        self._window: deque[TreasuryDay] = deque(maxlen=max(policy.surplus_days, policy.transfer_every_days))
        self._last: TreasuryDay | None = None
        self._last_transfer = ""
        for day in days:
            self._remember(day)

    def close_day(self, figures: DayFigures) -> TreasuryDay:
        """Return the day's decisions. Closing the last day again, with the same figures, returns its record.

        Raises
        ------
        ConfigError
            When a figure is not finite, the date is none, or the day is before the last one or was closed with other
            figures.
        """
        self._check(figures)
        with localcontext(_EXACT):
            return self._close(figures)

    def _close(self, figures: DayFigures) -> TreasuryDay:
        if self._last is not None and figures.day == self._last.day:
            if figures.result != self._last.result:
                raise ConfigError(f"`day` {figures.day} is closed, with a result of {self._last.result}")
            return self._last
        policy, reasons = self.policy, []
        reserve = _ZERO if self._last is None else self._last.reserve
        cost = policy.operating_cost_per_day
        surplus = figures.result - cost
        cash = figures.cash - cost
        rolling = surplus + sum((d.surplus for d in self._since(figures.day, policy.surplus_days)), _ZERO)
        from_reserve = min(max(policy.principal - cash, _ZERO), reserve)
        if from_reserve:
            reasons.append("principal_refilled")
        cash, reserve = cash + from_reserve, reserve - from_reserve
        to_reserve = self._accrual(surplus, cash, reserve)
        if to_reserve:
            reasons.append("reserve_accrued")
        cash, reserve = cash - to_reserve, reserve + to_reserve
        transfer, why = self._transfer(figures.day, rolling - to_reserve, cash)
        reasons.append(why)
        cash -= transfer
        if cash < policy.principal:
            reasons.append("principal_short")
        record = TreasuryDay(
            day=figures.day,
            result=figures.result,
            operating_cost=cost,
            surplus=surplus,
            rolling_surplus=rolling,
            from_reserve=from_reserve,
            to_reserve=to_reserve,
            transfer=transfer,
            reserve=reserve,
            cash=cash,
            is_principal_short=cash < policy.principal,
            reasons=tuple(reasons),
        )
        self._remember(record)
        return record

    def transactions(self, day: TreasuryDay, *, now_ns: int = 0) -> list[Transaction]:
        """Return what carries a day's decisions out in the ledger; posting them twice changes nothing."""
        currency = self.policy.currency
        cash, reserve = f"cash:{currency}", f"reserve:{currency}"
        moves = (
            ("cost", cash, f"operating:{currency}", day.operating_cost),
            ("refill", reserve, cash, day.from_reserve),
            ("accrual", cash, reserve, day.to_reserve),
            ("transfer", cash, f"outside:{self.policy.target}", day.transfer),
        )
        return [
            Transaction(
                f"treasury:{day.day}:{name}",
                (Posting(target, currency, amount), Posting(source, currency, amount.copy_negate())),
                "treasury",
                now_ns,
            )
            for name, source, target, amount in moves
            if amount
        ]

    def _accrual(self, surplus: Decimal, cash: Decimal, reserve: Decimal) -> Decimal:
        policy = self.policy
        share = min(surplus * policy.reserve_frac, policy.reserve_target - reserve, cash - policy.principal)
        return self._rounded(share)

    def _transfer(self, day: str, surplus: Decimal, cash: Decimal) -> tuple[Decimal, str]:
        """Return what may leave of the window's surplus, and why it is that."""
        policy = self.policy
        if not policy.transfer_frac:
            return _ZERO, "transfers_off"
        if self._last_transfer and _days_between(self._last_transfer, day) < policy.transfer_every_days:
            return _ZERO, "transfer_not_due"
        # What left before, and what went to the reserve, was taken from the same surplus.
        window = self._since(day, policy.surplus_days)
        left = surplus - sum((d.transfer + d.to_reserve for d in window), _ZERO)
        amount = self._rounded(min(left * policy.transfer_frac, cash - policy.principal, policy.transfer_max))
        if amount < policy.transfer_min:
            return _ZERO, "principal_protected" if left * policy.transfer_frac >= policy.transfer_min else "no_surplus"
        return amount, "transferred"

    def _rounded(self, amount: Decimal) -> Decimal:
        """Round down to the quantum; what is below zero is nothing."""
        if amount <= 0:
            return _ZERO
        quantum = self.policy.quantum
        return (amount // quantum) * quantum

    def _since(self, day: str, days: int) -> list[TreasuryDay]:
        """Return the records of the window that ends with `day`, without `day` itself."""
        return [each for each in self._window if _days_between(each.day, day) < days]

    def _remember(self, day: TreasuryDay) -> None:
        if self._last is not None and day.day <= self._last.day:
            raise ConfigError(f"`day` {day.day} comes after {self._last.day}, not before it")
        self._window.append(day)
        self._last = day
        if day.transfer:
            self._last_transfer = day.day

    def _check(self, figures: DayFigures) -> None:
        try:
            is_date = date.fromisoformat(figures.day).isoformat() == figures.day
        except (TypeError, ValueError):
            is_date = False
        if not is_date:
            raise ConfigError(f"`day` must be an ISO date, was {figures.day!r}")
        for name in ("result", "cash"):
            value = getattr(figures, name)
            if not isinstance(value, Decimal) or not value.is_finite():
                raise ConfigError(f"`{name}` of {figures.day} must be a finite decimal, was {value!r}")
        if self._last is not None and figures.day < self._last.day:
            raise ConfigError(f"`day` must not be before the last one closed, {self._last.day}, was {figures.day}")


def _days_between(earlier: str, later: str) -> int:
    return (date.fromisoformat(later) - date.fromisoformat(earlier)).days
