"""What a run keeps in its journal beside the orders: what the guards count, and the way back after a restart.

Start-up and recovery are one way: open the journal, read what it holds, put it back, go on. A new one holds nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import Protocol

from ami_engine.dmc.kill_switch import LatchFile
from ami_engine.dmc.risk_state import Latch
from ami_engine.errors import StateError
from ami_engine.events import Fill
from ami_engine.execution.journal import Journal
from ami_engine.loop.step import MarketParts
from ami_engine.portfolio.ledger import Ledger
from ami_engine.portfolio.pnl import Account
from ami_engine.portfolio.positions import Positions
from ami_engine.units import NS_PER_MS

__all__ = ["Durable", "JournaledLatches"]


class TellPosition(Protocol):
    """Shows a market's position manager a fill, and the position after it."""

    def __call__(self, parts: MarketParts, fill: Fill, now_ns: int, *, position: float, is_closed: bool) -> None:
        """Show it."""
        ...


class Durable:
    """The journal of a run, as the loop uses it.

    Parameters
    ----------
    journal : Journal
        Open.
    closes_store : bool
        True when the run opened the store, and closes it.

    Attributes
    ----------
    due_ns : int
        When what the guards count is to be kept even where nothing else changed, decision clock, ns.
    """

    def __init__(self, journal: Journal, *, closes_store: bool) -> None:
        self.journal = journal
        self._closes_store = closes_store
        self.ledger = Ledger(journal.posting)
        self.due_ns = 0
        self._fills: dict[str, list[Fill]] = {}
        self._joined: dict[str, MarketParts] = {}
        self._turn: Iterator[MarketParts] = iter(())
        self._filled: set[str] = set()  # markets, since what the guards count was kept
        self._kept: dict[str, tuple[object, ...]] = {}  # what they counted then
        self._account: tuple[object, ...] = ()
        self._kept_account = b""

    def restore(self, account: Account) -> None:
        """Fold the fills of earlier starts into an account that has none, and read the ledger.

        A fill may have been written without its postings, when a crash came between: it is posted now.
        """
        self.ledger.restore(self.journal.postings())
        for fill in self.journal.state.fills:
            account.apply(fill)
            self.post(fill, account.positions)
            self._fills.setdefault(fill.market_id, []).append(fill)

    def post(self, fill: Fill, positions: Positions) -> None:
        """Post a fill that `positions` has just applied."""
        self._filled.add(fill.market_id)
        self.ledger.post_fill(fill, positions.instrument(fill.market_id), realized=positions.last_realized)

    def join(self, parts: MarketParts, tell_position: TellPosition, held: Collection[str]) -> None:
        """Give a market, when it is first seen, what its guards had counted and its position manager had seen.

        `held` names what is latched now: what was released since the last end does not come back.
        """
        book = Positions(instrument=parts.state.instrument)
        for fill in self._fills.pop(parts.market_id, ()):
            is_closed = book.apply(fill).closed
            tell_position(parts, fill, fill.ts_ns, position=book.position(fill.market_id), is_closed=is_closed)
        kept = self.journal.checkpoint_of(_RISK + parts.market_id)
        if kept is not None:
            parts.risk.restore(kept)
            for name in set(parts.risk.latches()) - set(held):
                parts.risk.release(name, "restart", "released since the snapshot was made")
        if not self._joined:
            # The account is one for all markets, and the newest word of it may be another market's.
            account = self.journal.checkpoint_of(_ACCOUNT)
            if account is not None:
                parts.risk.restore_account(account)
        self._joined[parts.market_id] = parts
        self._kept[parts.market_id] = parts.risk.counts()

    def keep(self, parts: MarketParts, now_ns: int) -> None:
        """Write what a step of a market changed, in one transaction, and what the guards count with it.

        Steps that change nothing else change what the guards count too: the quotes in a window, the peak of equity.
        That is written now and then (`due_ns`), so that they open no transaction each, and a crash takes little of it.
        So is what a position is worth: the first price after a restart says it anew.
        """
        journal = self.journal
        if not journal.is_dirty and (not self.due_ns or journal.store.is_log_long):
            self.due_ns = now_ns + _KEEP_EVERY_NS
            journal.commit()  # which folds a long log
            return
        batch = {name: self._joined[name] for name in self._filled if name in self._joined}
        batch[parts.market_id] = parts
        is_due = now_ns >= self.due_ns
        if is_due:
            turn = self._next_batch()
            self.due_ns = now_ns + _KEEP_EVERY_NS * len(turn) // len(self._joined)
            batch.update((each.market_id, each) for each in turn)
        self._keep_counts(batch.values(), now_ns, is_due=is_due)
        journal.commit()
        if journal.store.is_log_long:
            self.due_ns = now_ns  # to be folded in the first step that has nothing to write

    def _next_batch(self) -> list[MarketParts]:
        """Return the markets whose turn it is: there may be thousands, and no step is to wait for all of them."""
        batch = list(islice(self._turn, _KEPT_AT_ONCE))
        if not batch:
            self._turn = iter(list(self._joined.values()))
            batch = list(islice(self._turn, _KEPT_AT_ONCE))
        return batch

    def _keep_counts(self, batch: Iterable[MarketParts], now_ns: int, *, is_due: bool) -> None:
        self._filled.clear()
        risk = None
        for parts in batch:
            risk = parts.risk
            counts = risk.counts()
            if self._kept[parts.market_id] != counts:
                self._kept[parts.market_id] = counts
                self.journal.checkpoint(_RISK + parts.market_id, risk.snapshot(), now_ns)
        if risk is None:
            return
        account = risk.account_counts()  # one for all markets
        if not is_due and account == self._account:
            return
        self._account, data = account, risk.account_snapshot()
        if data != self._kept_account:
            self._kept_account = data
            self.journal.checkpoint(_ACCOUNT, data, now_ns)

    def finish(self, now_ns: int) -> str:
        """Write what is left and close; return what went wrong, empty when nothing did."""
        try:
            if not self.journal.store.failure:
                self._keep_counts(self._joined.values(), now_ns, is_due=True)
                self.journal.commit()
        except StateError as error:
            return str(error)
        finally:
            if self._closes_store:
                self.journal.store.close()
        return self.journal.store.failure


# How often what only the guards count is written.
_KEEP_EVERY_NS = 5_000 * NS_PER_MS
_KEPT_AT_ONCE = 16
_RISK = "risk:"
_ACCOUNT = "account"


class JournaledLatches:
    """Latches in the journal, and in the file of the run's folder where there is one: either alone is enough to hold.

    Parameters
    ----------
    journal : Journal
        Open.
    file : LatchFile or None
        The file beside the trace.
    """

    def __init__(self, journal: Journal, file: LatchFile | None) -> None:
        self._journal = journal
        self._file = file

    def load(self) -> list[Latch]:
        """Return what either holds, oldest first."""
        found = {latch.name: latch for latch in self._file.load()} if self._file is not None else {}
        for name, since_ns, reason in self._journal.latches():
            found.setdefault(name, Latch(name, since_ns, reason))
        return sorted(found.values(), key=lambda latch: (latch.since_ns, latch.name))

    def save(self, latches: list[Latch]) -> None:
        """Keep these and no others. The file first: a journal that fails is itself a reason to halt."""
        if self._file is not None:
            self._file.save(latches)
        self._journal.keep_latches([(latch.name, latch.since_ns, latch.reason) for latch in latches])
