"""What a run keeps in its journal beside the orders: what the guards count, and the way back after a restart.

Start-up and recovery are one way: open the journal, read what it holds, put it back, go on. A new one holds nothing.
"""

from __future__ import annotations

from typing import Protocol

from ami_engine.errors import StateError
from ami_engine.events import Fill
from ami_engine.execution.journal import Journal
from ami_engine.loop.step import MarketParts
from ami_engine.portfolio.pnl import Account
from ami_engine.portfolio.positions import Positions

__all__ = ["Durable"]


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
        self._fills: dict[str, list[Fill]] = {}

    def restore(self, account: Account) -> None:
        """Fold the fills of earlier starts into an account that has none."""
        for fill in self.journal.state.fills:
            account.apply(fill)
            self._fills.setdefault(fill.market_id, []).append(fill)

    def join(self, parts: MarketParts, tell_position: TellPosition) -> None:
        """Give a market, when it is first seen, what its guards had counted and its position manager had seen."""
        held = Positions(instrument=parts.state.instrument)
        for fill in self._fills.pop(parts.market_id, ()):
            is_closed = held.apply(fill).closed
            tell_position(parts, fill, fill.ts_ns, position=held.position(fill.market_id), is_closed=is_closed)
        kept = self.journal.checkpoint_of(_RISK + parts.market_id)
        if kept is not None:
            parts.risk.restore(kept)

    def keep(self, parts: MarketParts, now_ns: int) -> None:
        """Write what the step changed, in one transaction, and what the market's guards count with it."""
        self.journal.checkpoint(_RISK + parts.market_id, parts.risk.snapshot(), now_ns)
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
