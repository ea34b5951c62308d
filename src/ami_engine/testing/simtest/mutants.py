"""Planted bugs, each the replacement of one method of the engine: a simulation that does not find them proves nothing.

They live here and not as switches in the engine, which has none. Each is a mistake that trading systems really made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from ami_engine.errors import ConfigError
from ami_engine.events import Fill, OrderReport, OrderStatus, RequestState, SubmitOrder
from ami_engine.execution import broker_edge
from ami_engine.execution.broker_edge import Answer, Reply
from ami_engine.execution.journal import Journal
from ami_engine.execution.order_manager import OrderManager
from ami_engine.execution.order_state import Trigger
from ami_engine.execution.order_table import OrderTable
from ami_engine.execution.reconciler import Reconciler
from ami_engine.loop.durable import Durable
from ami_engine.loop.trading import Trading
from ami_engine.portfolio.ledger import Ledger

__all__ = ["MUTANTS", "Mutant", "planted"]

_Made = Callable[..., Any]


class Mutant(msgspec.Struct, frozen=True):
    """A planted bug: what it is, whose attribute it replaces, and what makes the replacement of the original."""

    bug: str
    owner: Any
    attribute: str
    make: Callable[[_Made], _Made]


MUTANTS: dict[str, Mutant] = {}
"""The planted bugs by name."""


def _plant(name: str, bug: str, owner: Any, attribute: str) -> Callable[[Callable[[_Made], _Made]], None]:
    def keep(make: Callable[[_Made], _Made]) -> None:
        MUTANTS[name] = Mutant(bug, owner, attribute, make)

    return keep


@contextlib.contextmanager
def planted(name: str) -> Iterator[None]:
    """Run with a planted bug; with none when `name` is empty.

    Raises
    ------
    ConfigError
        When there is no such bug.

    Examples
    --------
    >>> with planted("commit_skipped"):
    ...     Journal.commit.__qualname__.startswith("Journal")
    False
    """
    if not name:
        yield
        return
    if name not in MUTANTS:
        raise ConfigError(f"there is no planted bug {name!r}; there are {', '.join(MUTANTS)}")
    mutant = MUTANTS[name]
    original = mutant.owner.__dict__[mutant.attribute]
    setattr(mutant.owner, mutant.attribute, mutant.make(original))
    try:
        yield
    finally:
        setattr(mutant.owner, mutant.attribute, original)


# What was sent. -------------------------------------------------------------------------------------------------------


@_plant("timeout_is_rejection", "a submit without an answer is taken for refused", broker_edge, "submit")
def _(original: _Made) -> _Made:
    def submit(broker: Any, order: SubmitOrder) -> Reply:
        reply: Reply = original(broker, order)
        return Reply(Answer.REFUSED, reply.error) if reply.answer is Answer.LOST else reply

    return submit


@_plant("resend_without_query", "a submit without an answer is sent again at once", broker_edge, "submit")
def _(original: _Made) -> _Made:
    def submit(broker: Any, order: SubmitOrder) -> Reply:
        reply: Reply = original(broker, order)
        return original(broker, order) if reply.answer is Answer.LOST else reply

    return submit


@_plant("new_id_on_retry", "a submit without an answer is sent again under a new id", broker_edge, "submit")
def _(original: _Made) -> _Made:
    def submit(broker: Any, order: SubmitOrder) -> Reply:
        reply: Reply = original(broker, order)
        if reply.answer is not Answer.LOST:
            return reply
        again = msgspec.structs.replace(order, client_order_id=order.client_order_id[:-1] + "r")
        retried: Reply = original(broker, again)
        return reply if retried.answer is Answer.LOST else Reply(retried.answer, retried.error, retried.venue_order_id)

    return submit


@_plant("expiry_not_sent", "submits carry no expiry, and are given up as if they did", broker_edge, "submit")
def _(original: _Made) -> _Made:
    def submit(broker: Any, order: SubmitOrder) -> Reply:
        reply: Reply = original(broker, msgspec.structs.replace(order, expires_ns=0))
        return reply

    return submit


@_plant("expiry_assumed", "a venue that cannot expire requests is treated as one that does", OrderTable, "_send")
def _(original: _Made) -> _Made:
    def _send(self: OrderTable, place: Any, intent: Any, tally: Any) -> None:
        original(self, place, intent, tally)
        working = self.find(intent.request.client_order_id)
        if working is not None:
            working.expires_ms = min(working.expires_ms, self.now_ms)

    return _send


@_plant(
    "unknown_believed_at_once", "an order that the venue does not know is given up at once", OrderTable, "_hear_nothing"
)
def _(original: _Made) -> _Made:
    def _hear_nothing(self: OrderTable, working: Any, is_answer: bool) -> None:
        if working.order.status is OrderStatus.INITIALIZED:
            self.give_up(working)
        else:
            original(self, working, is_answer)

    return _hear_nothing


# What was cancelled. --------------------------------------------------------------------------------------------------


@_plant("cancel_assumed", "a cancel without an answer is taken for done", broker_edge, "cancel")
def _(original: _Made) -> _Made:
    def cancel(broker: Any, client_order_id: str) -> Reply:
        reply: Reply = original(broker, client_order_id)
        return Reply(Answer.DONE) if reply.answer is Answer.LOST else reply

    return cancel


@_plant("refused_cancel_assumed", "a cancel that was not taken is taken for done", broker_edge, "cancel")
def _(original: _Made) -> _Made:
    def cancel(broker: Any, client_order_id: str) -> Reply:
        reply: Reply = original(broker, client_order_id)
        return Reply(Answer.DONE) if reply.answer is Answer.REFUSED else reply

    return cancel


# What was filled. -----------------------------------------------------------------------------------------------------


@_plant("fill_dedupe_off", "a fill that is told twice is booked twice", OrderTable, "fold")
def _(original: _Made) -> _Made:
    def fold(self: OrderTable, fill: Fill) -> bool:
        working = self.find(fill.client_order_id)
        if working is not None and fill.trade_id in working.trade_ids:
            return original(self, msgspec.structs.replace(fill, trade_id=fill.trade_id + "-again"))  # type: ignore[no-any-return]
        return original(self, fill)  # type: ignore[no-any-return]

    return fold


@_plant("late_fill_dropped", "a fill of an order that has ended is not booked", OrderTable, "fold")
def _(original: _Made) -> _Made:
    def fold(self: OrderTable, fill: Fill) -> bool:
        working = self.find(fill.client_order_id)
        if working is not None and not working.order.is_open:
            return False
        return original(self, fill)  # type: ignore[no-any-return]

    return fold


@_plant("overfill_dropped", "a fill that the order table refuses is not booked", OrderTable, "_keep_fill")
def _(original: _Made) -> _Made:
    def _keep_fill(self: OrderTable, fill: Fill, *, is_refused: bool = False) -> None:
        if not is_refused:
            original(self, fill)

    return _keep_fill


@_plant("position_from_acks", "an order is booked as filled when it is acknowledged", broker_edge, "submit")
def _(original: _Made) -> _Made:
    def submit(broker: Any, order: SubmitOrder) -> Reply:
        reply: Reply = original(broker, order)
        if reply.answer is Answer.DONE and reply.venue_order_id.endswith("7"):
            broker._session.events.append(
                Fill(
                    trade_id=f"ack-{order.client_order_id}",
                    client_order_id=order.client_order_id,
                    market_id=order.market_id,
                    side=order.side,
                    price=order.price,
                    qty=order.qty,
                )
            )
        return reply

    return submit


# What was written. ----------------------------------------------------------------------------------------------------


@_plant("journal_after_send", "an order is sent before its intent is written", Journal, "intend")
def _(original: _Made) -> _Made:
    def intend(self: Journal, intents: Any, now_ns: int) -> None:
        commit = self.commit
        try:
            self.commit = lambda: None  # type: ignore[method-assign]
            original(self, intents, now_ns)
        finally:
            self.commit = commit  # type: ignore[method-assign]

    return intend


@_plant("commit_skipped", "what a step changed is not written at its end", Journal, "commit")
def _(original: _Made) -> _Made:
    def commit(self: Journal) -> None:
        if any("INSERT INTO orders" in statement for statement in self._pending):
            original(self)
        else:
            for waiting in (self._pending, self._orders, self._moved, self._checkpoints, self._new_fills):
                waiting.clear()

    return commit


@_plant("fill_not_written", "fills are booked and not written", Journal, "fill")
def _(original: _Made) -> _Made:
    def fill(self: Journal, fill: Fill, now_ns: int, *, is_refused: bool = False) -> None:
        del fill, now_ns, is_refused

    return fill


@_plant("step_counter_reset", "a restart counts steps from 0 again, so that ids repeat", Journal, "_read")
def _(original: _Made) -> _Made:
    def _read(self: Journal, meta: Any) -> Any:
        return msgspec.structs.replace(original(self, meta), next_step=0)

    return _read


# What a restart makes of it. ------------------------------------------------------------------------------------------


@_plant("forgets_in_doubt", "a restart forgets the orders whose requests were not answered", Journal, "_read")
def _(original: _Made) -> _Made:
    def _read(self: Journal, meta: Any) -> Any:
        state = original(self, meta)
        known = tuple(each for each in state.orders if each.order.request is RequestState.NONE)
        return msgspec.structs.replace(state, orders=known)

    return _read


@_plant("forgets_open_orders", "a restart forgets the orders that were working", Journal, "_read")
def _(original: _Made) -> _Made:
    def _read(self: Journal, meta: Any) -> Any:
        return msgspec.structs.replace(original(self, meta), orders=())

    return _read


@_plant("doubts_believed_dead", "a restart takes unanswered submits for refused", OrderTable, "adopt")
def _(original: _Made) -> _Made:
    def adopt(self: OrderTable, kept: Any, place: Any) -> Any:
        working = original(self, kept, place)
        if working.order.status is OrderStatus.INITIALIZED:
            self.give_up(working)
        return working

    return adopt


@_plant("fills_booked_twice", "a restart books the last fill of the journal twice", Durable, "restore")
def _(original: _Made) -> _Made:
    def restore(self: Durable, account: Any) -> None:
        original(self, account)
        for fill in self.journal.state.fills[-1:]:
            account.apply(fill)

    return restore


@_plant("no_look_at_start", "neither a start nor a timer compares with the venue", Reconciler, "look")
def _(original: _Made) -> _Made:
    def look(self: Reconciler) -> None:
        self.is_started = True  # else nothing would ever be sent, and nothing go wrong
        self.due_ms = float("inf")

    return look


# What reconciliation makes of it. -------------------------------------------------------------------------------------


@_plant("fills_invented", "what the venue says was filled is booked as a fill of its own", OrderTable, "_hear_known")
def _(original: _Made) -> _Made:
    def _hear_known(self: OrderTable, working: Any, report: OrderReport) -> None:
        order = working.order
        if order.is_behind(report.filled_qty) and order.status is not OrderStatus.INITIALIZED:
            missing = Fill(
                trade_id=f"made-{order.client_order_id}-{report.filled_qty}",
                client_order_id=order.client_order_id,
                market_id=order.market_id,
                side=order.side,
                price=order.price,
                qty=report.filled_qty - order.filled_qty,
            )
            if self.fold(missing):
                self.fills.append(missing)
        original(self, working, report)

    return _hear_known


@_plant(
    "open_orders_dropped", "an order that one list does not name is taken for cancelled", OrderTable, "count_denial"
)
def _(original: _Made) -> _Made:
    def count_denial(self: OrderTable, working: Any) -> None:
        if working.order.is_open:
            self._advance(working, Trigger.CANCELED)

    return count_denial


@_plant("missed_fills_ignored", "reconciliation does not ask for fills", Reconciler, "_venue_fills")
def _(original: _Made) -> _Made:
    def _venue_fills(self: Reconciler) -> tuple[None, int, str]:
        return None, 0, ""

    return _venue_fills


# The kill switch. -----------------------------------------------------------------------------------------------------


@_plant("latch_not_written", "a kill is not written, and a restart trades on", Journal, "keep_latches")
def _(original: _Made) -> _Made:
    def keep_latches(self: Journal, latches: Any) -> None:
        del latches

    return keep_latches


@_plant("switch_fails_open", "a restart that cannot read its latches takes them for none", Journal, "latches")
def _(original: _Made) -> _Made:
    def latches(self: Journal) -> list[Any]:
        return []

    return latches


@_plant("kill_cancels_nothing", "a kill leaves the working orders at the venue", OrderManager, "_cancel_everything")
def _(original: _Made) -> _Made:
    def _cancel_everything(self: OrderManager, tally: Any) -> None:
        del tally
        self._is_stopped = True

    return _cancel_everything


@_plant("ledger_one_sided", "a ledger transaction is written without its last line", Ledger, "post")
def _(original: _Made) -> _Made:
    def post(self: Ledger, transaction: Any) -> bool:
        keep, lines = self._keep, len(transaction.postings) - 1

        def keep_but_last(*line: Any, **terms: Any) -> None:
            nonlocal lines
            if keep is not None and lines > 0:
                keep(*line, **terms)
            lines -= 1

        self._keep = keep_but_last
        try:
            return original(self, transaction)  # type: ignore[no-any-return]
        finally:
            self._keep = keep

    return post


# Exposure. ------------------------------------------------------------------------------------------------------------


@_plant("exposure_unchecked", "orders leave without a look at the worst case", Trading, "bound_worst_case")
def _(original: _Made) -> _Made:
    def bound_worst_case(self: Trading) -> None:
        del self

    return bound_worst_case


@_plant("doubts_not_counted", "the worst case leaves out orders in doubt", OrderManager, "open_orders")
def _(original: _Made) -> _Made:
    def open_orders(self: OrderManager, market_id: str | None = None) -> list[Any]:
        return [order for order in original(self, market_id) if not order.in_doubt]

    return open_orders


@_plant("open_orders_not_counted", "the worst case counts what is held only", Trading, "_exposure_of")
def _(original: _Made) -> _Made:
    def _exposure_of(self: Trading, market_id: str) -> Any:
        return msgspec.structs.replace(original(self, market_id), buy_qty=0.0, sell_qty=0.0, buy_usd=0.0, sell_usd=0.0)

    return _exposure_of
