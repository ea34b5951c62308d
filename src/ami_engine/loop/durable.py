"""What a run keeps in its journal beside the orders: what the guards count, and the way back after a restart.

Start-up and recovery are one way: open the journal, read what it holds, put it back, go on. A new one holds nothing.
"""

from __future__ import annotations

from collections.abc import Collection
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
    """

    def __init__(self, journal: Journal, *, closes_store: bool) -> None:
        self.journal = journal
        self._closes_store = closes_store
        self.ledger = Ledger(journal.posting)
        self._fills: dict[str, list[Fill]] = {}
        self._joined: list[MarketParts] = []

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
        self._joined.append(parts)

    def keep(self, now_ns: int) -> None:
        """Write what the step changed, in one transaction, and what the guards count with it."""
        for parts in self._joined:
            self.journal.checkpoint(_RISK + parts.market_id, parts.risk.snapshot(), now_ns)
        for parts in self._joined[:1]:
            self.journal.checkpoint(_ACCOUNT, parts.risk.account_snapshot(), now_ns)
        self.journal.commit()

    def finish(self) -> str:
        """Write what is left and close; return what went wrong, empty when nothing did."""
        try:
            if not self.journal.store.failure:
                self.journal.commit()
        except StateError as error:
            return str(error)
        finally:
            if self._closes_store:
                self.journal.store.close()
        return self.journal.store.failure


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
