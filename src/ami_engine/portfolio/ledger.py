"""Double-entry bookkeeping in exact decimals: nothing appears or vanishes, in any currency.

A transaction is a list of postings whose amounts sum to zero in every currency; one that does not cannot be made. An
account is a kind and, after a colon, what it is of: ``cash:USD``, ``position:BTCUSDT``, ``fees:USD``. Amounts are what
the account gets: cash that comes in is positive on ``cash:USD`` and negative where it came from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Context, Decimal, Inexact
from typing import Protocol

import msgspec

from ami_engine.errors import ConfigError, OrderError
from ami_engine.events import Fill
from ami_engine.units import Instrument

__all__ = ["ACCOUNT_KINDS", "Ledger", "LedgerError", "Posting", "Transaction"]

# What an account may be of: assets first, then where money comes from and goes to.
ACCOUNT_KINDS = ("cash", "position", "reserve", "operating", "principal", "pnl", "fees", "funding", "outside")

_ACCOUNT = re.compile(rf"(?:{'|'.join(ACCOUNT_KINDS)}):[^\s:]+(?::[^\s:]+)*\Z")
_ZERO = Decimal(0)
# Sums of decimals are exact as long as nothing is rounded: rounding is an error here, not an approximation.
_EXACT = Context(prec=400, traps=[Inexact])


class Keeper(Protocol):
    """Keeps one posting; `Journal.posting` is one."""

    def __call__(self, tx: str, account: str, currency: str, amount: Decimal, *, kind: str, now_ns: int) -> None:
        """Keep it."""
        ...


class LedgerError(OrderError):
    """A transaction that does not balance, names no account, or was posted before."""


class Posting(msgspec.Struct, frozen=True):
    """One account gets one amount of one currency."""

    account: str
    currency: str
    amount: Decimal


class Transaction(msgspec.Struct, frozen=True):
    """Postings that belong together, checked when they are made: the amounts sum to zero in every currency.

    Parameters
    ----------
    tx : str
        Its name, unique in a ledger: the same one posted again changes nothing.
    postings : tuple of Posting
        At least two.
    kind : str
        What it is of: "fill", "fee", "funding", "transfer" …
    now_ns : int
        When.

    Raises
    ------
    LedgerError
        When it does not balance, or an account is none.

    Examples
    --------
    >>> Transaction("t1", (Posting("cash:USD", "USD", Decimal(5)), Posting("pnl:X", "USD", Decimal(-4))))
    Traceback (most recent call last):
    ami_engine.portfolio.ledger.LedgerError: transaction 't1' is off by 1 USD
    """

    tx: str
    postings: tuple[Posting, ...]
    kind: str = "transfer"
    now_ns: int = 0

    def __post_init__(self) -> None:
        if not self.tx:
            raise LedgerError("a transaction needs a name")
        sums: dict[str, Decimal] = {}
        for posting in self.postings:
            if not _ACCOUNT.match(posting.account):
                raise LedgerError(f"transaction {self.tx!r}: {posting.account!r} is no account")
            if not posting.currency or not posting.amount.is_finite():
                raise LedgerError(f"transaction {self.tx!r}: {posting.amount} {posting.currency!r} is no amount")
            sums[posting.currency] = _EXACT.add(sums.get(posting.currency, _ZERO), posting.amount)
        for currency, total in sums.items():
            if total:
                raise LedgerError(f"transaction {self.tx!r} is off by {total.normalize()} {currency}")


class Ledger:
    """Balances of accounts, moved by balanced transactions only.

    Parameters
    ----------
    keep : callable or None
        Called with every posting as it is taken: a journal keeps them in its own transaction. When it raises, nothing
        of the ledger has changed.

    Examples
    --------
    >>> from ami_engine.events import Side
    >>> ledger = Ledger()
    >>> _ = ledger.transfer("t0", "outside:bank", "cash:USD", "USD", Decimal(1000))
    >>> fill = Fill(trade_id="7", client_order_id="a", market_id="X", side=Side.BUY, price=10.0, qty=3.0, fee=0.1)
    >>> _ = ledger.post_fill(fill, Instrument("X"), realized=Decimal(0))
    >>> ledger.balance("cash:USD", "USD"), ledger.balance("position:X", "USD"), ledger.balance("fees:X", "USD")
    (Decimal('969.900'), Decimal('30.000'), Decimal('0.1'))
    >>> ledger.trial_balance()
    {'USD': Decimal('0')}
    """

    def __init__(self, keep: Keeper | None = None) -> None:
        self._keep = keep
        self._balances: dict[tuple[str, str], Decimal] = {}
        self._taken: set[str] = set()

    def post(self, transaction: Transaction) -> bool:
        """Take a transaction; return False, with nothing changed, when one of that name was taken before."""
        if transaction.tx in self._taken:
            return False
        after: dict[tuple[str, str], Decimal] = {}
        for each in transaction.postings:
            key = (each.account, each.currency)
            after[key] = _EXACT.add(after.get(key, self._balances.get(key, _ZERO)), each.amount)
        if self._keep is not None:
            for each in transaction.postings:
                self._keep(
                    transaction.tx,
                    each.account,
                    each.currency,
                    each.amount,
                    kind=transaction.kind,
                    now_ns=transaction.now_ns,
                )
        self._balances.update(after)
        self._taken.add(transaction.tx)
        return True

    def transfer(
        self,
        tx: str,
        source: str,
        target: str,
        currency: str,
        amount: Decimal,
        *,
        kind: str = "transfer",
        now_ns: int = 0,
    ) -> bool:
        """Move `amount` from one account to another."""
        postings = (Posting(target, currency, amount), Posting(source, currency, amount.copy_negate()))
        return self.post(Transaction(tx, postings, kind, now_ns))

    def post_fill(self, fill: Fill, instrument: Instrument, *, realized: Decimal) -> bool:
        """Take a fill and its fee.

        A linear contract is carried at cost: what is paid goes from cash to the position, and what the fill realizes
        comes back with it. An inverse one moves coin only by what it realizes. A fee in another currency is paid from
        the cash of that currency; a rebate is a fee below zero.

        Parameters
        ----------
        fill : Fill
            Named by market, order and trade id: a repeat changes nothing.
        instrument : Instrument
            The market's.
        realized : Decimal
            What it realized before its fee, settlement currency: `Positions.last_realized`, just after it was applied.
        """
        market_id, currency = fill.market_id, instrument.currency
        tx = f"fill:{market_id}:{fill.client_order_id}:{fill.trade_id}"
        postings = []
        if not instrument.is_inverse:
            paid = _EXACT.multiply(_EXACT.multiply(_exact(fill.price), _exact(fill.qty)), _exact(instrument.multiplier))
            paid = paid if fill.signed_qty > 0.0 else paid.copy_negate()
            postings.append(Posting(f"cash:{currency}", currency, paid.copy_negate()))
            postings.append(Posting(f"position:{market_id}", currency, _EXACT.add(paid, realized)))
        elif realized:
            postings.append(Posting(f"cash:{currency}", currency, realized))
        if realized:
            postings.append(Posting(f"pnl:{market_id}", currency, realized.copy_negate()))
        if fill.fee:
            paid_in = fill.fee_currency or currency
            postings.append(Posting(f"cash:{paid_in}", paid_in, _exact(fill.fee).copy_negate()))
            postings.append(Posting(f"fees:{market_id}", paid_in, _exact(fill.fee)))
        return self.post(Transaction(tx, tuple(postings), "fill", fill.ts_ns))

    def post_funding(self, tx: str, market_id: str, currency: str, received: Decimal, *, now_ns: int = 0) -> bool:
        """Take a funding payment: `received` > 0 comes in, < 0 is paid."""
        return self.transfer(
            tx, f"funding:{market_id}", f"cash:{currency}", currency, received, kind="funding", now_ns=now_ns
        )

    def balance(self, account: str, currency: str) -> Decimal:
        """Return what an account holds of a currency, 0 when it never had any."""
        return self._balances.get((account, currency), _ZERO)

    def total(self, kind: str, currency: str) -> Decimal:
        """Return what all accounts of a kind hold of a currency together.

        Raises
        ------
        ConfigError
            When there is no such kind.
        """
        if kind not in ACCOUNT_KINDS:
            raise ConfigError(f"`kind` of an account must be one of {', '.join(ACCOUNT_KINDS)}, was {kind!r}")
        total = _ZERO
        for (account, each), amount in self._balances.items():
            if each == currency and account.startswith(f"{kind}:"):
                total = _EXACT.add(total, amount)
        return total

    def balances(self) -> dict[tuple[str, str], Decimal]:
        """Return every balance by account and currency; a copy."""
        return dict(self._balances)

    def trial_balance(self) -> dict[str, Decimal]:
        """Return the sum of all accounts by currency: zero each, or something other than this class wrote here."""
        sums: dict[str, Decimal] = {}
        for (_, currency), amount in self._balances.items():
            sums[currency] = _EXACT.add(sums.get(currency, _ZERO), amount)
        return {currency: total.normalize() if total else _ZERO for currency, total in sums.items()}

    def restore(self, postings: Iterable[tuple[str, str, str, Decimal, str, int]]) -> None:
        """Take over kept postings, into a ledger that is empty; they are not kept again.

        Raises
        ------
        LedgerError
            When the ledger is not empty, or a transaction does not balance; nothing is changed.
        """
        if self._taken:
            raise LedgerError("postings can be restored into an empty ledger only")
        grouped: dict[str, list[Posting]] = {}
        about: dict[str, tuple[str, int]] = {}
        for tx, account, currency, amount, kind, now_ns in postings:
            grouped.setdefault(tx, []).append(Posting(account, currency, amount))
            about[tx] = (kind, now_ns)
        fresh = Ledger()
        for tx, parts in grouped.items():
            fresh.post(Transaction(tx, tuple(parts), *about[tx]))
        self._balances, self._taken = fresh._balances, fresh._taken


def _exact(number: float) -> Decimal:
    """Return the decimal that `number` prints as."""
    return Decimal(repr(float(number)))
