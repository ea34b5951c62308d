"""When to compare ourselves with the venue, and what to do about it: collects both views, applies what follows.

At the start, after a reconnect, on a timer, and when asked. A contradiction of one look stops new orders; when the next
look, `settle_ms` later, finds the same one, it halts.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from math import inf, isfinite

from ami_engine.events import Fill, OrderReport
from ami_engine.execution import broker_edge
from ami_engine.execution.idempotency import OrderIdFormat
from ami_engine.execution.journal import Journal
from ami_engine.execution.order_table import OrderTable
from ami_engine.execution.reconcile import Finding, LocalView, Reconciliation, VenueView, reconcile
from ami_engine.units import NS_PER_MS, whole_ms

__all__ = ["DEFAULT_RECONCILE_MS", "Reconciler"]

DEFAULT_RECONCILE_MS = 30_000.0

_START = "start"

# The venue's clock and ours differ, and fills are listed late: so much of the past is asked for again.
_OVERLAP_NS = 60_000 * NS_PER_MS
_CLOCK_SKEW_NS = 5_000 * NS_PER_MS


class Reconciler:
    """Compares an order table with its venue.

    Parameters
    ----------
    table : OrderTable
        Its orders are corrected, its halt is set.
    journal : Journal
        Tells of fills and positions.
    every_ms : float
        Period of the timer; 0 is no timer.
    settle_ms : float
        As in `OrderTable`.
    id_format : OrderIdFormat
        Tells our ids from others'.

    Attributes
    ----------
    due_ms : float
        When the next look is due: at once, in a new one. The table's `compare_ms` is never later.
    suspicion : str
        What the last look could not explain; nothing new is sent until the next look clears or confirms it.
    looks : int
        How often both sides were compared.
    is_started : bool
        False until the first look of a start is done, and the venue lists no order of an earlier run: nothing new is
        sent before.
    strays : list of str
        Orders of that kind, which the first look found and cancelled, or could not.
    """

    def __init__(
        self, table: OrderTable, journal: Journal, *, every_ms: float, settle_ms: float, id_format: OrderIdFormat
    ) -> None:
        self.suspicion = ""
        self.looks = 0
        self._table = table
        self.due_ms = -inf
        self._journal = journal
        self._every_ms = every_ms
        self._settle_ms = settle_ms
        self._id_format = id_format
        self._suspected: dict[Finding, float] = {}  # since when
        self._openings_seen: dict[str, tuple[Decimal, float]] = {}  # by market: what it was, and since when
        self._reason = _START
        self.is_started = False
        self.strays: list[str] = []
        self._strays_since_ms = inf
        self._markets: set[str] = set()

    @property
    def due_ms(self) -> float:
        """When the next look is due."""
        return self._due_ms

    @due_ms.setter
    def due_ms(self, due_ms: float) -> None:
        self._due_ms = due_ms
        self._table.compare_ms = min(self._table.compare_ms, whole_ms(due_ms))

    def trade_in(self, market_ids: Iterable[str]) -> None:
        """Note that markets are to be traded; one that is new has to be looked at as at the start."""
        new = set(market_ids) - self._markets
        self._markets |= new
        if new and self.is_started:
            self.is_started = False
            self.ask(_START)

    def ask(self, reason: str, *, after_ms: float = 0.0) -> None:
        """Make the next look due at once, or so much later, ms, when none is before that."""
        due_ms = self._table.now_ms + after_ms if after_ms else -inf
        if due_ms <= self.due_ms:
            self._reason, self.due_ms = reason, due_ms

    def look(self) -> Reconciliation | None:
        """Compare, correct and, where it must be, halt. None when the venue could not be read: it is tried again.

        Fills that were missed wait in the table's `fills`, as those that were heard.
        """
        table, reason = self._table, self._reason
        table.collect()  # what was told meanwhile is no difference
        now_ms = table.now_ms
        venue, error = self._venue_view()
        if venue is not None and not self.is_started:
            venue, error = self._withdraw_strays(venue)
        self.due_ms = now_ms + (self._every_ms or inf)
        if venue is None:
            self.due_ms = now_ms + self._settle_ms
            table.record("reconcile_failed", reason=reason, error=error)
            return None
        self.looks += 1
        self.is_started = True
        if venue.fills is not None:
            self._journal.confirmed_ns = table.now_ns
        self._reason = "timer"
        self._take_openings(venue)
        found = reconcile(self._local_view(venue.fills_since_ns), venue)
        for order_id in found.denied:
            table.count_denial(table.live[order_id])
        for correction in found.corrections:
            table.correct(correction)
        self._judge(found)
        if not found.is_clean or reason != "timer":
            table.record(
                "reconciled",
                reason=reason,
                differences=[str(each.text) for each in found.differences],
                contradictions=[str(each.text) for each in found.contradictions],
            )
        return found

    def _withdraw_strays(self, venue: VenueView) -> tuple[VenueView | None, str]:
        """Cancel what an earlier run left of which this journal knows nothing; return what the venue says afterwards.

        None, and why, while it still lists such an order; when it does so for `settle_ms`, that halts.
        """
        table, local = self._table, self._local_view(0)
        strays = [each for each in venue.open_orders or () if self._is_stray(local, each, venue)]
        if not strays:
            self._strays_since_ms = inf
            return venue, ""
        self._strays_since_ms = min(self._strays_since_ms, table.now_ms)
        for order_id in strays:
            reply = broker_edge.cancel(table.broker, order_id)
            table.record("stray_canceled", client_order_id=order_id, answer=reply.answer.value, error=reply.error)
            if order_id not in self.strays:
                self.strays.append(order_id)
        again, error = self._venue_view()
        if again is None:
            return None, error
        left = [each for each in again.open_orders or () if self._is_stray(local, each, again)]
        if not left:
            self._strays_since_ms = inf
            return again, ""
        text = f"orders of an earlier run, which this journal does not know, cannot be cancelled: {', '.join(left)}"
        if table.now_ms - self._strays_since_ms >= self._settle_ms:
            table.halt(text)
        return None, text

    def _is_stray(self, local: LocalView, order_id: str, venue: VenueView) -> bool:
        table = self._table
        is_known = order_id in table.live or order_id in table.closed or self._journal.find(order_id) is not None
        return not is_known and local.is_stray(order_id, (venue.open_orders or {})[order_id])

    def _judge(self, found: Reconciliation) -> None:
        """Halt on what was contradicted twice; look again, and send nothing till then, on what is new."""
        # A look that a reconnect brought forward may still see the same moment of a venue that lags behind.
        now_ms = self._table.now_ms
        self._suspected = {each: self._suspected.get(each, now_ms) for each in found.contradictions}
        twice = [each for each, since_ms in self._suspected.items() if now_ms - since_ms >= self._settle_ms]
        self.suspicion = found.contradictions[0].text if found.contradictions else ""
        if twice:
            self._table.halt(f"the venue contradicts us: {twice[0].text}")
        elif found.contradictions:
            self._reason = "suspicion"
            self.due_ms = self._table.now_ms + self._settle_ms

    # Views. -------------------------------------------------------------------------------------------------------

    def _local_view(self, since_ns: int) -> LocalView:
        table, journal = self._table, self._journal
        # A fill at the edge of the window may be dated a little differently there; one of just now may not be listed.
        until_ns = table.now_ns - round(self._settle_ms * NS_PER_MS)
        return LocalView(
            now_ms=table.now_ms,
            settle_ms=self._settle_ms,
            orders=tuple(working.as_local() for working in table.live.values()),
            closed=table.closed,
            fills=tuple(journal.fills_between(since_ns + _CLOCK_SKEW_NS, until_ns)) if since_ns else (),
            has_fill=journal.has_fill,
            positions={market_id: journal.position(market_id) for market_id in journal.markets},
            markets=self._markets,
            begun_ns=_begun_ns(journal),
            is_ours=self._id_format.is_ours,
        )

    def _venue_view(self) -> tuple[VenueView | None, str]:
        """Ask the venue for orders first, then fills, then positions: a fill in between shows in what comes later."""
        table = self._table
        broker = table.broker
        open_orders, error = broker_edge.read_open_orders(broker)
        if error:
            return None, error
        reports: dict[str, OrderReport | None] = {}
        if broker_edge.supports(broker, "fetch_order"):
            for order_id in table.live:
                if open_orders is None or order_id not in open_orders:
                    reports[order_id], error = broker_edge.fetch_report(broker, order_id)
                    if error:
                        return None, error
        fills, since_ns, error = self._venue_fills()
        if error:
            return None, error
        positions, error = self._venue_positions()
        if error:
            return None, error
        return VenueView(open_orders, reports, fills, since_ns, positions), ""

    def _venue_fills(self) -> tuple[tuple[Fill, ...] | None, int, str]:
        broker, journal = self._table.broker, self._journal
        if not broker_edge.supports(broker, "fetch_fills"):
            return None, 0, ""
        # Invariant: every fill before the last whole look is known. What came in late since then lies in the overlap.
        since_ns = max(0, (journal.confirmed_ns or journal.begun_ns) - _OVERLAP_NS)
        found, error = broker_edge.fetch_fills(broker, since_ns)
        return found, since_ns, error

    def _venue_positions(self) -> tuple[dict[str, float] | None, str]:
        state, error = broker_edge.read_state(self._table.broker)
        positions = state.get("positions")
        if error or positions is None:
            return None, error
        try:
            return {str(market): float(qty) for market, qty in positions.items()}, ""
        except (AttributeError, TypeError, ValueError):
            return None, f"`positions` of the broker's state must be numbers by market, was {positions!r}"

    def _take_openings(self, venue: VenueView) -> None:
        """What a market held before the journal began is no difference: it is taken down at the start.

        Two looks, `settle_ms` apart, must agree on it: an account's state that lags behind its fills would be taken for
        an opening position for ever.
        """
        positions, journal, now_ms = venue.positions, self._journal, self._table.now_ms
        if positions is None:
            return
        begun_ns = _begun_ns(journal)
        for market_id in sorted(journal.unopened):
            there = positions.get(market_id, 0.0)
            if not isfinite(there):
                continue
            missed = sum(
                (
                    Decimal(repr(fill.signed_qty))
                    for fill in venue.fills or ()
                    if fill.market_id == market_id and fill.ts_ns >= begun_ns and not journal.has_fill(fill)
                ),
                Decimal(0),
            )
            opening = Decimal(repr(there)) - journal.position(market_id) - missed
            seen, since_ms = self._openings_seen.get(market_id, (None, now_ms))
            if seen != opening:
                self._openings_seen[market_id] = (opening, now_ms)
            elif now_ms - since_ms >= self._settle_ms:
                journal.open_position(market_id, opening)
                continue
            self.due_ms = min(self.due_ms, now_ms + self._settle_ms)


def _begun_ns(journal: Journal) -> int:
    """Return the venue's time from which on its fills may be ours."""
    return max(0, journal.begun_ns - _CLOCK_SKEW_NS)
