"""Orders for a program of its own: one key, one order, whatever is lost, repeated or restarted in between.

The engine's own quoting goes through the same order table and the same journal; this is their face for a caller who
decides for himself what to send.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from math import isfinite
from typing import Any, Literal

import msgspec

from ami_engine.adapters.base import Broker
from ami_engine.clock import Clock
from ami_engine.errors import ConfigError, DuplicateOrderId, OrderError, StateError
from ami_engine.events import Fill, OrderStatus, RequestState, Side, SubmitOrder, TimeInForce
from ami_engine.events.enums import member_of
from ami_engine.execution import broker_edge
from ami_engine.execution.actions import AuditSink, Tally
from ami_engine.execution.idempotency import OrderIdFormat
from ami_engine.execution.journal import Intent, Journal
from ami_engine.execution.order_state import Order
from ami_engine.execution.order_table import DEFAULT_SETTLE_MS, OrderTable, Place, Working
from ami_engine.execution.reconcile import Reconciliation
from ami_engine.execution.reconciler import DEFAULT_RECONCILE_MS, Reconciler
from ami_engine.security.redaction import redact_text
from ami_engine.units import NS_PER_MS, Instrument

__all__ = ["CancelAllResult", "OrderIntent", "OrderService", "Outcome", "SubmitResult"]

Outcome = Literal["accepted", "rejected", "in_doubt"]

# As the runs call it: a journal that a run left latched holds a service too, and the other way round.
_KILL_SWITCH = "kill_switch"


class OrderIntent(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller wants placed. `step` numbers the decision that it comes from, and is part of the order's id."""

    market_id: str
    side: Side
    price: float
    qty: float
    step: int = 0
    post_only: bool = False
    reduce_only: bool = False
    tif: TimeInForce = TimeInForce.GTC

    def __post_init__(self) -> None:
        for name, value in (("price", self.price), ("qty", self.qty)):
            if not (isfinite(value) and value > 0.0):
                raise OrderError(f"`{name}` of an order must be finite and > 0, was {value!r}")
        for name, kind in (("side", Side), ("tif", TimeInForce)):
            try:
                member = member_of(kind, getattr(self, name), f"`{name}` of an order")
            except ValueError as wrong:
                raise OrderError(str(wrong)) from None
            msgspec.structs.force_setattr(self, name, member)
        if self.step < 0:
            raise OrderError(f"`step` of an order must be at least 0, was {self.step!r}")


class SubmitResult(msgspec.Struct, frozen=True):
    """What became of a submit.

    `outcome` is "accepted" once the venue has the order, whatever happened to it since; "rejected" when certainly
    nothing of it is live and nothing was filled; "in_doubt" while nobody knows. `order` is the order as it is known
    now. `is_repeat`: the key was used before, and nothing was sent.
    """

    client_order_id: str
    outcome: Outcome
    order: Order
    error: str = ""
    is_repeat: bool = False


class CancelAllResult(msgspec.Struct, frozen=True):
    """What became of cancelling everything.

    `is_done` only when the venue, asked afterwards, lists no order of ours and none is in doubt. Otherwise
    `still_open` names what may be live, and the call is to be repeated.
    """

    is_done: bool
    canceled: int = 0
    still_open: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


class OrderService:
    """Places, cancels and looks after orders, each at most once.

    Parameters
    ----------
    broker : Broker
        Where orders go. Its `fetch_order` resolves doubts, its `fetch_open_orders` verifies cancels.
    journal : Journal
        Keeps every intent before it is sent; what it holds is taken over.
    clock : Clock
        Tells the decision time.
    settle_ms : float
        How long a request may be on its way, and parts of the venue may differ, ms.
    id_format : OrderIdFormat
        What client order ids look like.
    retry_ms : float
        A cancel is asked again, and a doubt looked up again, at the earliest after so long.
    audit : AuditSink or None
        Gets a line for every request, refusal, doubt and protocol error.
    gate : callable or None
        Asked about every order before it leaves, such as a `TradingGate`: takes the `SubmitOrder`, returns why it must
        not leave, "" when it may. Also before an order is sent again, which still counts then. Cancels pass no gate.
    instruments : mapping of str to Instrument or None
        By market, for an order's `size_usd`; a market without one is taken as linear with a multiplier of 1.
    reconcile_every_ms : float
        How often `poll` compares everything with the venue, >= 0; 0 is never on a timer.

    Raises
    ------
    ConfigError
        When `reconcile_every_ms` is negative or not finite.

    Notes
    -----
    What halts is latched in the journal and holds after a restart, until `release`. Orders, fills and positions are
    compared with the venue (`reconcile`) before the first order is sent, and in `poll`: on the timer, `settle_ms` after
    an order came to be in doubt, and once the broker can be read again after it could not. What the venue contradicts
    stops new orders at once, and halts when it still does `settle_ms` later. So `poll` is to be called regularly.

    Examples
    --------
    >>> from ami_engine.clock import ManualClock
    >>> from ami_engine.state_store import StateStore
    >>> class Venue(Broker):
    ...     def submit_order(self, order):
    ...         print("sent", order.side.value, order.qty)
    >>> service = OrderService(Venue(), Journal(StateStore(":memory:"), run_id="r1"), ManualClock(1))
    >>> intent = OrderIntent(market_id="X", side=Side.BUY, price=9.5, qty=2.0)
    >>> service.submit(intent, "open").outcome
    sent BUY 2.0
    'accepted'
    >>> service.submit(intent, "open").is_repeat
    True
    """

    def __init__(
        self,
        broker: Broker,
        journal: Journal,
        clock: Clock,
        *,
        settle_ms: float = DEFAULT_SETTLE_MS,
        id_format: OrderIdFormat | None = None,
        retry_ms: float = 500,
        audit: AuditSink | None = None,
        gate: Callable[[SubmitOrder], str] | None = None,
        reconcile_every_ms: float = DEFAULT_RECONCILE_MS,
        instruments: Mapping[str, Instrument] | None = None,
    ) -> None:
        if not (isfinite(reconcile_every_ms) and reconcile_every_ms >= 0):
            raise ConfigError(f"`reconcile_every_ms` must be finite and >= 0, was {reconcile_every_ms!r}")
        self.journal = journal
        self._instruments = dict(instruments or {})
        self._gate = gate
        self._broker = broker
        self._clock = clock
        self._id_format = id_format or OrderIdFormat()
        self._table = OrderTable(
            broker,
            retry_ms=retry_ms,
            audit=audit,
            halts_on_strangers=True,
            on_change=_unheard,
            journal=journal,
            settle_ms=settle_ms,
        )
        self._table.keeps_denied = True
        for kept in (*journal.state.closed, *journal.state.orders):
            self._table.adopt(kept, Place(kept.order.market_id, kept.order.side, is_closing=kept.intent.is_closing))
        self._reconciler = Reconciler(
            self._table, journal, every_ms=reconcile_every_ms, settle_ms=settle_ms, id_format=self._id_format
        )
        self._table.on_reconnect = self.on_reconnect
        self._settle_ms = settle_ms
        self._is_latched = False
        self._hold()

    @property
    def halt_reason(self) -> str:
        """Why nothing is sent any more; empty while all is well."""
        return self._table.halt_reason

    def open_orders(self) -> list[Order]:
        """Return the orders that may be live, oldest first."""
        return [working.order for working in self._table.live.values()]

    def order(self, client_order_id: str) -> Order | None:
        """Return an order as it is known now, None when it is not ours."""
        working = self._table.find(client_order_id)
        if working is not None:
            return working.order
        kept = self.journal.find(client_order_id)
        return None if kept is None else kept.order

    def position(self, market_id: str) -> Decimal:
        """Return the signed quantity that a market's fills add up to, with what was held before the first of them."""
        return self.journal.position(market_id)

    def id_of(self, intent: OrderIntent, idem_key: str) -> str:
        """Return the client order id of an intent and key: the same in every start of the run."""
        return self._id_format.id_of(self.journal.id_seed, intent.market_id, intent.step, intent.side, idem_key)

    @property
    def strays(self) -> tuple[str, ...]:
        """Orders of an earlier run of which the journal knows nothing, which a first look found and cancelled."""
        return tuple(self._reconciler.strays)

    def _instrument(self, market_id: str) -> Instrument:
        return self._instruments.get(market_id) or Instrument(market_id)

    def submit(self, intent: OrderIntent, idem_key: str) -> SubmitResult:
        """Place an order, unless one of this key was placed before: then say what became of that.

        The intent is in the journal, and forced to the disk, before anything is sent.

        Parameters
        ----------
        intent : OrderIntent
            What is wanted.
        idem_key : str
            Tells this order from others of its market, step and side. The same key always means the same order.

        Returns
        -------
        SubmitResult

        Raises
        ------
        DuplicateOrderId
            When the key was used for another price, size or kind of order.
        StateError
            When the intent could not be written: nothing was sent.
        OrderError
            When trading is halted, the venue contradicts us, or the gate keeps the order back: nothing was sent, and
            the key is free.
        """
        order_id = self.id_of(intent, idem_key)
        known = self.order(order_id)
        if known is not None:
            _check_same(intent, idem_key, known)
            return _result(known, is_repeat=True)
        table, tally = self._begin()
        self._reconciler.trade_in((intent.market_id,))
        self._look_first()
        if self._why_not:
            raise OrderError(f"nothing is sent: {self._why_not}")
        place = Place(intent.market_id, intent.side, is_closing=intent.tif is TimeInForce.IOC)
        request = SubmitOrder(
            client_order_id=order_id,
            market_id=intent.market_id,
            side=intent.side,
            price=intent.price,
            qty=intent.qty,
            size_usd=self._instrument(intent.market_id).notional(intent.price, intent.qty),
            post_only=intent.post_only,
            reduce_only=intent.reduce_only,
            tif=intent.tif,
        )
        refusal = "" if self._gate is None else self._gate(request)
        if refusal:
            table.record("order_withheld", order=request, reason=refusal)
            raise OrderError(f"nothing is sent: {refusal}")
        table.send([(place, Intent(request, intent.step, idem_key, is_closing=place.is_closing))], tally)
        working = table.find(order_id)
        if working is None:
            raise StateError(self.halt_reason)
        if working.order.in_doubt:
            self._reconciler.ask("doubt", after_ms=self._settle_ms)
        self._keep()
        return _result(working.order, error=tally.errors[-1] if tally.errors else "")

    def cancel(self, client_order_id: str) -> bool:
        """Ask for the cancel of an order; True once the venue confirmed it, or the order had ended already.

        Raises
        ------
        OrderError
            When no order of that id is known.
        """
        table, tally = self._begin()
        working = table.find(client_order_id)
        if working is None:
            if self.order(client_order_id) is not None:
                return True  # ended long ago
            raise OrderError(f"no order {client_order_id!r} is known")
        if working.order.is_open:
            table.cancel(working, tally)
        self._keep()
        return not working.order.is_open

    def cancel_all(self, reason: str) -> CancelAllResult:
        """Cancel everything, and ask the venue whether it is done. Safe to repeat; a repeat asks for what is left.

        Parameters
        ----------
        reason : str
            Goes into the audit log.
        """
        table, tally = self._begin()
        table.record("cancel_all", reason=reason, open_orders=len(table.live))
        still_open = table.cancel_all(tally)
        self._keep()
        errors = tuple(dict.fromkeys(tally.errors))
        return CancelAllResult(not still_open and not errors, tally.canceled, still_open, errors)

    def poll(self) -> list[Fill]:
        """Read the venue's fills, after comparing everything with it where that is due.

        Returns
        -------
        list of Fill
            The new ones, oldest first, also those that only a comparison found. They are in the journal.

        Raises
        ------
        StateError
            When they could not be written.
        """
        table, _ = self._begin()
        self._look()
        table.collect()
        self._write()
        fills, table.fills = table.fills, []
        return fills

    def reconcile(self, reason: str = "asked") -> Reconciliation | None:
        """Compare orders, fills and positions with the venue now, and correct what lost messages explain.

        Parameters
        ----------
        reason : str
            Goes into the audit log.

        Returns
        -------
        Reconciliation or None
            What was found; None when the venue could not be read. Fills that were missed come with the next `poll`.

        Raises
        ------
        StateError
            When what was found could not be written.
        """
        self._begin()
        self._reconciler.ask(reason)
        found = self._reconciler.look()
        self._write()
        return found

    def on_reconnect(self) -> None:
        """Note that a connection to the venue was lost and is back: the next `poll` compares everything with it."""
        self._reconciler.ask("reconnect")

    def on_fill(self, fill: Fill) -> bool:
        """Book a fill that came another way than `poll`; False for a repeat.

        One that the order's life does not allow (an overfill, one of an unknown order) is booked too, and halts.
        """
        table, _ = self._begin()
        is_new = table.fold(broker_edge.decode_fill(fill))
        self._write()
        return is_new

    def resolve_doubts(self, *, resend: bool = False) -> list[SubmitResult]:
        """Ask the venue about every order in doubt whose next look is due; return those whose doubt ended.

        An order of which the venue knows nothing ends as rejected only when its submit can no longer arrive (the
        venue's receive window and `settle_ms` are over) and the venue was asked twice. With `resend` it is then sent
        again under the same id. Where the venue cannot expire requests it stays in doubt.
        """
        table, tally = self._begin()
        if resend:
            self._look_first()
        before = [working for working in table.live.values() if working.order.in_doubt]
        table.settle()
        for working in before:
            if table.is_denied(working):
                if resend and not self._why_not and self._may_leave_again(working.order):
                    table.send_again(working, tally)
                else:
                    table.give_up(working)
        self._keep()
        return [_result(working.order) for working in before if not working.order.in_doubt]

    def release(self, operator: str, reason: str, *, name: str = _KILL_SWITCH) -> None:
        """Let go of a latch, and of the halt with it once nothing else is latched.

        Parameters
        ----------
        operator, reason : str
            Who says so, and why.
        name : str
            What is latched: "kill_switch" is what halts a service.

        Raises
        ------
        ConfigError
            When nothing of that name is latched, or operator or reason is empty.
        StateError
            When it could not be written: it still holds.
        """
        if not operator.strip() or not reason.strip():
            raise ConfigError(f"a latch is released by an operator with a reason, were {operator!r}, {reason!r}")
        held = self.journal.latches()
        kept = [latch for latch in held if latch[0] != name]
        if len(kept) == len(held):
            raise ConfigError(f"`name` must be what is latched ({[each[0] for each in held]}), was {name!r}")
        self.journal.keep_latches(kept)
        self._table.record("operator", action="release", name=name, operator=operator, reason=reason)
        self._table.halt_reason, self._is_latched = "", False
        self._hold()

    @property
    def _why_not(self) -> str:
        """Why nothing is sent; empty while all is well."""
        if self.halt_reason:
            return self.halt_reason
        if suspicion := self._reconciler.suspicion:
            return f"the venue contradicts us: {suspicion}"
        return "" if self._reconciler.is_started else "the venue could not be compared with yet"

    def _look_first(self) -> None:
        """Find what an earlier start left at the venue, before anything is put beside it."""
        if not self._reconciler.is_started:
            self._look()
            self._keep()

    def _look(self) -> None:
        """Compare with the venue, if it is time to."""
        if self._table.now_ms >= self._reconciler.due_ms:
            self._reconciler.look()

    def _hold(self) -> None:
        """Halt while the journal has a latch."""
        for name, _, reason in self.journal.latches()[:1]:
            self._is_latched = True
            self._table.halt(f"{name} is latched: {reason}")

    def _write(self) -> None:
        """Write what is new, and latch what has halted."""
        journal = self.journal
        if self.halt_reason and not self._is_latched and not journal.store.failure:
            latch = (_KILL_SWITCH, self._table.now_ns, redact_text(self.halt_reason))
            journal.keep_latches([*(each for each in journal.latches() if each[0] != _KILL_SWITCH), latch])
            self._is_latched = True
        journal.commit()

    def _may_leave_again(self, order: Order) -> bool:
        refusal = "" if self._gate is None else self._gate(order.to_submit())
        if refusal:
            self._table.record("order_withheld", client_order_id=order.client_order_id, reason=refusal)
        return not refusal

    def _keep(self) -> None:
        """Write what the venue answered. A disk that fails now undoes nothing: it halts, and the next start asks."""
        try:
            self._write()
        except StateError as error:
            self._table.halt(str(error))

    def _begin(self) -> tuple[OrderTable, Tally]:
        self._table.now_ms = self._clock.now_ns() // NS_PER_MS
        self._table.news = None  # the table tells a loop; a caller has his answer
        return self._table, Tally()


def _unheard(working: Working, is_fill: bool) -> None:
    """The table tells of every change; a caller of the service asks instead."""
    del working, is_fill


def _check_same(intent: OrderIntent, idem_key: str, known: Order) -> None:
    for name in ("price", "qty", "post_only", "reduce_only", "tif"):
        wanted: Any = getattr(intent, name)
        sent: Any = getattr(known, name)
        if wanted != sent:
            raise DuplicateOrderId(f"key {idem_key!r} was used for an order of {name} {sent!r}, now it is {wanted!r}")


def _result(order: Order, *, error: str = "", is_repeat: bool = False) -> SubmitResult:
    outcome: Outcome
    if order.request is RequestState.SUBMIT:
        outcome = "in_doubt"
    elif order.status is OrderStatus.REJECTED:
        outcome = "rejected"
    else:
        outcome = "accepted"
    return SubmitResult(order.client_order_id, outcome, order, error, is_repeat)
