"""What must outlive a crash, in the state store: intents before they are sent, orders, fills, latches, checkpoints.

A tick collects what changed and writes it in one transaction at its end; a tick that changed nothing opens none. Only
an intent does not wait: it is written, with all that was collected before it, and on the disk before anything is sent.
Answers of the venue that a power cut takes away are no loss, because the order is then in doubt and the venue is asked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from decimal import Context, Decimal
from typing import Any

import msgspec

from ami_engine.errors import ConfigError, StateError
from ami_engine.events import Fill, Liquidity, OrderStatus, RequestState, Side, SubmitOrder, TimeInForce
from ami_engine.execution.order_state import Order
from ami_engine.state_store import StateStore

__all__ = ["Intent", "Journal", "JournalState", "JournaledOrder"]

_ORDER_COLUMNS = (
    *("client_order_id", "market_id", "side", "price", "qty", "size_usd", "post_only", "reduce_only", "tif"),
    *("expires_ns", "step", "idem_key", "ticks", "is_closing", "incarnation", "intended_ns"),
    *("status", "request", "is_ambiguous", "filled_qty", "avg_price", "venue_order_id", "is_open", "updated_ns"),
)
_INSERT_ORDER = f"INSERT INTO orders VALUES ({', '.join('?' * len(_ORDER_COLUMNS))})"
_SELECT_ORDER = f"SELECT {', '.join(_ORDER_COLUMNS)} FROM orders"
_CHANGE = """status = ?, request = ?, is_ambiguous = ?, filled_qty = ?, avg_price = ?, venue_order_id = ?,
    updated_ns = ? WHERE client_order_id = ?"""
# Not `is_open = 1`: it is in an index, which puts anew what is set, also where it is as it was. An end is for good.
_UPDATE_OPEN = f"UPDATE orders SET {_CHANGE}"
_UPDATE_CLOSED = f"UPDATE orders SET is_open = 0, {_CHANGE}"
_INSERT_EVENT = "INSERT INTO order_events (client_order_id, kind, detail, ts_ns) VALUES (?, ?, ?, ?)"
_FILL_COLUMNS = (
    "market_id, trade_id, client_order_id, side, price, qty, fee, fee_currency, liquidity, ts_ns, heard_ns, is_refused"
)
_INSERT_FILL = f"INSERT OR IGNORE INTO fills ({_FILL_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_UPSERT_POSITION = """INSERT INTO positions VALUES (?, ?, ?)
    ON CONFLICT (market_id) DO UPDATE SET qty = excluded.qty, opening_qty = excluded.opening_qty"""
_UPSERT_META = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
_UPSERT_CHECKPOINT = """INSERT INTO checkpoints VALUES (?, ?, ?, ?)
    ON CONFLICT (name) DO UPDATE SET step = excluded.step, ts_ns = excluded.ts_ns, data = excluded.data"""
_INSERT_POSTING = """INSERT INTO postings (tx, account, currency, amount, kind, ts_ns) VALUES (?, ?, ?, ?, ?, ?)"""
_SEND_AGAIN = "UPDATE orders SET expires_ns = ?, intended_ns = ? WHERE client_order_id = ?"
_INSERT_LATCH = "INSERT INTO latches VALUES (?, ?, ?)"
_SELECT_FILL = "SELECT 1 FROM fills WHERE market_id = ? AND trade_id = ? AND client_order_id = ?"

# The members by what is written of them, which is a fifth of a call of the class.
_SIDES = {each.value: each for each in Side}
_LIQUIDITIES = {each.value: each for each in Liquidity}
_TIFS = {each.value: each for each in TimeInForce}
_STATUSES = {each.value: each for each in OrderStatus}
_REQUESTS = {each.value: each for each in RequestState}

# Closed orders that a start reads back, to know late fills and repeats by.
_CLOSED_READ = 1_024
# How far we are, in `meta`.
_PLACE = ("next_step", "confirmed_ns")
# The last fills, known by heart: a venue lists those of the last minutes at every look.
_FILLS_KNOWN = 1_024

_Row = tuple[Any, ...]
_FillKey = tuple[str, str, str]


class Intent(msgspec.Struct, frozen=True, gc=False):
    """An order that is about to be sent: what the venue will be asked for, and why.

    `step` and `idem_key` went into its client order id. `ticks` and `is_closing` are the engine's: where the order
    stands on the grid, and whether it is the one that closes a position.
    """

    request: SubmitOrder
    step: int = 0
    idem_key: str = ""
    ticks: int = 0
    is_closing: bool = False


class JournaledOrder(msgspec.Struct, frozen=True):
    """An order as the journal has it."""

    intent: Intent
    order: Order
    intended_ns: int
    updated_ns: int
    incarnation: int
    trade_ids: tuple[str, ...] = ()


class JournalState(msgspec.Struct, frozen=True):
    """What a journal held when it was opened.

    `orders` are those that may be live, oldest first, and `closed` the last ones that are not. `fills` is every fill
    in the order in which they were heard; `positions` the signed quantities that they add up to.
    """

    run_id: str
    next_step: int
    incarnation: int
    orders: tuple[JournaledOrder, ...] = ()
    closed: tuple[JournaledOrder, ...] = ()
    fills: tuple[Fill, ...] = ()
    positions: dict[str, Decimal] = msgspec.field(default_factory=dict)
    opening_positions: dict[str, Decimal] = msgspec.field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """True for a journal in which nothing was ever written."""
        return not (self.orders or self.closed or self.fills or self.next_step)


class Journal:
    """The journal of one run, over all its starts.

    Parameters
    ----------
    store : StateStore
        Where it is kept.
    run_id : str
        The run that it is the journal of; "" takes the journal's word.
    new_run_id : str
        Names the run when the journal is new and `run_id` is empty.
    salt : str
        Goes into the client order ids of a new journal: two journals of one run's name, at one venue, must not make the
        same ids. A journal keeps its own.

    Attributes
    ----------
    state : JournalState
        What the journal held when it was opened.
    run_id : str
        The run's name.
    id_seed : str
        What client order ids are made of: the same at every start.
    incarnation : int
        How often the journal was opened, this time included.
    begun_ns : int
        When the journal began, 0 when nobody said.
    step_now : callable
        Tells which step it is, set by the loop: `next_step` continues from the last one that wrote something.
    is_dirty : bool
        True while something waits to be written.
    on_dirty : callable
        Called when the first thing of a transaction begins to wait, set by the loop.
    confirmed_ns : int
        Until when every fill of the venue is known to be here: set by who compared, written with the next commit.

    Raises
    ------
    ConfigError
        When it is the journal of another run, or new and without a name.
    StateError
        When its tables contradict each other: positions that are not the sum of the fills.

    Examples
    --------
    >>> journal = Journal(StateStore(":memory:"), run_id="r1")
    >>> request = SubmitOrder(client_order_id="a", market_id="X", side=Side.BUY, price=9.0, qty=1.0)
    >>> journal.intend([Intent(request, step=4)], now_ns=1)
    >>> again = Journal(journal.store)
    >>> again.run_id, again.next_step, [kept.order.request.value for kept in again.state.orders]
    ('r1', 5, ['SUBMIT'])
    """

    def __init__(
        self, store: StateStore, *, run_id: str = "", new_run_id: str = "", salt: str = "", begun_ns: int = 0
    ) -> None:
        self.store = store
        # What waits to be written, by statement; of what is written over, the last.
        self._pending: dict[str, list[_Row]] = {}
        self._orders: dict[str, tuple[Order, int]] = {}
        self._moved: set[str] = set()  # markets whose position changed
        self._checkpoints: dict[str, _Row] = {}
        self._needs_sync = False
        self._positions: dict[str, Decimal] = {}
        self._openings: dict[str, Decimal] = {}
        self._new_fills: dict[_FillKey, Fill] = {}
        self._last_fills: OrderedDict[_FillKey, Fill] = OrderedDict()  # of those in the store
        self._has_older_fills = False
        self.step_now: Callable[[], int] = _no_step
        self.on_dirty: Callable[[], None] = _nothing
        self.is_dirty = False
        meta = {"begun_ns": str(begun_ns)} | self._meta(run_id, new_run_id, salt)
        self.state = self._read(meta)
        self._know_fills(self.state.fills)
        self.run_id = meta["run_id"]
        self.id_seed = self.run_id + meta["salt"]
        self.incarnation = self.state.incarnation
        self.next_step = self.state.next_step
        self.begun_ns = int(meta["begun_ns"])
        self.confirmed_ns = int(meta.get("confirmed_ns", "0"))
        self._place = (-1, -1)  # as it was written last
        self.unopened: set[str] = set()  # markets of which it is not known what they held at first
        self._positions.update(self.state.positions)
        self._openings.update(self.state.opening_positions)
        for kept in (*self.state.closed, *self.state.orders):
            self.trade_in(kept.order.market_id)
        with store.transaction():
            for key in ("run_id", "salt", "begun_ns"):
                store.execute(_UPSERT_META, (key, meta[key]))
            store.execute(_UPSERT_META, ("incarnation", str(self.incarnation)))

    @property
    def markets(self) -> tuple[str, ...]:
        """Every market in which something was sent or filled, and whose first position is known."""
        return tuple(self._openings)

    def trade_in(self, market_id: str) -> None:
        """Note that a market is traded: what it held at first is to be learned."""
        if market_id not in self._openings:
            self.unopened.add(market_id)

    # Writing. -----------------------------------------------------------------------------------------------------

    def intend(self, intents: Sequence[Intent], now_ns: int) -> None:
        """Write intents, with all that waits, and force them to the disk. Only then may they be sent.

        Raises
        ------
        StateError
            When they could not be written: then nothing may be sent.
        """
        for intent in intents:
            self._add(_INSERT_ORDER, self._order_row(intent, now_ns))
            self._add(_INSERT_EVENT, (intent.request.client_order_id, "intent", "", now_ns))
            self.next_step = max(self.next_step, intent.step + 1)
            self.trade_in(intent.request.market_id)
        self._needs_sync = True
        self.commit()

    def intend_again(self, request: SubmitOrder, now_ns: int) -> None:
        """Write that an order is about to be sent again, under its id, and force that to the disk.

        Raises
        ------
        StateError
            When it could not be written: then nothing may be sent.
        """
        self._add(_SEND_AGAIN, (request.expires_ns, now_ns, request.client_order_id))
        self._add(_INSERT_EVENT, (request.client_order_id, "intent_again", "", now_ns))
        self._needs_sync = True
        self.commit()

    def note(self, order: Order, kind: str, now_ns: int, detail: str = "") -> None:
        """Remember what became of an order, for the next commit."""
        self._orders[order.client_order_id] = (order, now_ns)
        self._add(_INSERT_EVENT, (order.client_order_id, kind, detail, now_ns))

    def has_fill(self, fill: Fill) -> bool:
        """Return True when the fill is in the journal, or waits to be."""
        key = (fill.market_id, fill.trade_id, fill.client_order_id)
        if key in self._last_fills or key in self._new_fills:
            return True
        return self._has_older_fills and bool(self.store.query(_SELECT_FILL, key))

    def _know_fills(self, fills: Iterable[Fill]) -> None:
        last = self._last_fills
        for fill in fills:
            last[fill.market_id, fill.trade_id, fill.client_order_id] = fill
        while len(last) > _FILLS_KNOWN:
            last.popitem(last=False)
            self._has_older_fills = True

    def fill(self, fill: Fill, now_ns: int, *, is_refused: bool = False) -> None:
        """Take a fill that `has_fill` does not know, for the next commit. `is_refused`: the order table refused it."""
        self._new_fills[fill.market_id, fill.trade_id, fill.client_order_id] = fill
        self._add(
            _INSERT_FILL,
            (
                *(fill.market_id, fill.trade_id, fill.client_order_id, fill.side.value, fill.price, fill.qty),
                *(fill.fee, fill.fee_currency, fill.liquidity.value, fill.ts_ns, now_ns, int(is_refused)),
            ),
        )
        held = _EXACT.add(self._positions.get(fill.market_id, _ZERO), _signed(fill))
        self._positions[fill.market_id] = held
        self.trade_in(fill.market_id)
        self._moved.add(fill.market_id)
        self._needs_sync = True

    def fills_between(self, since_ns: int, until_ns: int) -> list[Fill]:
        """Return the fills of a stretch of the venue's time, ns, oldest first; those that wait to be written not."""
        if not self._has_older_fills:
            return [fill for fill in self._last_fills.values() if since_ns <= fill.ts_ns <= until_ns]
        statement = f"SELECT {_FILL_COLUMNS} FROM fills WHERE ts_ns BETWEEN ? AND ? ORDER BY seq"
        return [_fill_of(row) for row in self.store.query(statement, (since_ns, until_ns))]

    def position(self, market_id: str) -> Decimal:
        """Return the sum of a market's fills, and what was held before the first of them."""
        return _EXACT.add(self._positions.get(market_id, _ZERO), self._openings.get(market_id, _ZERO))

    def open_position(self, market_id: str, qty: Decimal) -> None:
        """Take what a market held before this journal knew of any fill."""
        self._openings[market_id] = qty
        self.unopened.discard(market_id)
        self._moved.add(market_id)
        self._needs_sync = True
        self._wait()

    def _position_row(self, market_id: str) -> _Row:
        opening = self._openings.get(market_id)
        return market_id, str(self._positions.get(market_id, _ZERO)), None if opening is None else str(opening)

    def posting(self, tx: str, account: str, currency: str, amount: Decimal, *, kind: str, now_ns: int) -> None:
        """Take one line of a ledger transaction, for the next commit; a transaction's lines are given together."""
        self._add(_INSERT_POSTING, (tx, account, currency, str(amount), kind, now_ns))
        self._needs_sync = True

    def keep_latches(self, latches: Sequence[tuple[str, int, str]]) -> None:
        """Write what is latched (name, since when, ns, and why), at once and with all that waits: it must hold.

        Raises
        ------
        StateError
            When it could not be written.
        """
        self._add("DELETE FROM latches", ())
        for latch in latches:
            self._add(_INSERT_LATCH, latch)
        self._needs_sync = True
        self.commit()

    def checkpoint(self, name: str, data: bytes, now_ns: int, *, sync: bool = False) -> None:
        """Keep a part's state under its name, for the next commit; it asks for a sync only where told to."""
        self._needs_sync = self._needs_sync or sync
        self._checkpoints[name] = (name, self.step_now(), now_ns, data)
        self._wait()

    def commit(self) -> None:
        """Write what waits, in one transaction; without anything that waits, only fold a log that has grown long.

        Raises
        ------
        StateError
            When it could not be written; it still waits then.
        """
        if not self.is_dirty:
            if not self.store.is_log_long:
                return
            # The log begins anew with the next transaction, which then syncs twice: here, and not before a send.
            self.store.fold_log()
        self.next_step = max(self.next_step, self.step_now() + 1)
        place = (self.next_step, self.confirmed_ns)
        moved = [(name, str(now)) for name, now, was in zip(_PLACE, place, self._place, strict=True) if now != was]
        with self.store.transaction(sync=self._needs_sync):
            self._write()
            self.store.execute_many(_UPSERT_META, moved)
        self._place = place
        self._know_fills(self._new_fills.values())
        for waiting in (self._pending, self._orders, self._moved, self._checkpoints, self._new_fills):
            waiting.clear()
        self._needs_sync = self.is_dirty = False

    def _write(self) -> None:
        write = self.store.execute_many
        for statement, rows in self._pending.items():
            write(statement, rows)
        for is_open, statement in ((True, _UPDATE_OPEN), (False, _UPDATE_CLOSED)):
            rows = [_order_state(*each) for each in self._orders.values() if each[0].is_open is is_open]
            if rows:
                write(statement, rows)
        if self._moved:
            write(_UPSERT_POSITION, [self._position_row(market_id) for market_id in sorted(self._moved)])
        if self._checkpoints:
            write(_UPSERT_CHECKPOINT, list(self._checkpoints.values()))

    def _add(self, statement: str, row: _Row) -> None:
        rows = self._pending.get(statement)
        if rows is None:
            rows = self._pending[statement] = []
        rows.append(row)
        self._wait()

    def _wait(self) -> None:
        if not self.is_dirty:
            self.is_dirty = True
            self.on_dirty()

    def _order_row(self, intent: Intent, now_ns: int) -> tuple[Any, ...]:
        request = intent.request
        return (
            *(request.client_order_id, request.market_id, request.side.value, request.price, request.qty),
            *(request.size_usd, int(request.post_only), int(request.reduce_only), request.tif.value),
            *(request.expires_ns, intent.step, intent.idem_key, intent.ticks, int(intent.is_closing)),
            *(self.incarnation, now_ns, OrderStatus.INITIALIZED.value, RequestState.SUBMIT.value, 0, 0.0, 0.0, ""),
            *(1, now_ns),
        )

    # Reading. -----------------------------------------------------------------------------------------------------

    def find(self, client_order_id: str) -> JournaledOrder | None:
        """Return an order as it was last written, None when the journal has none of that id."""
        rows = self.store.query(f"{_SELECT_ORDER} WHERE client_order_id = ?", (client_order_id,))
        if not rows:
            return None
        trades = self.store.query(
            "SELECT trade_id FROM fills WHERE client_order_id = ? ORDER BY seq", (client_order_id,)
        )
        return _order_of(rows[0], [trade_id for (trade_id,) in trades])

    def events(self, client_order_id: str) -> list[tuple[str, str, int]]:
        """Return what happened to an order, oldest first: kind, detail, and when, ns."""
        statement = "SELECT kind, detail, ts_ns FROM order_events WHERE client_order_id = ? ORDER BY seq"
        return self.store.query(statement, (client_order_id,))

    def latches(self) -> list[tuple[str, int, str]]:
        """Return what is latched: name, since when, ns, and why."""
        return self.store.query("SELECT name, since_ns, reason FROM latches ORDER BY since_ns, name")

    def checkpoint_of(self, name: str) -> bytes | None:
        """Return the data last kept under a name."""
        rows = self.store.query("SELECT data FROM checkpoints WHERE name = ?", (name,))
        return rows[0][0] if rows else None

    def postings(self) -> list[tuple[str, str, str, Decimal, str, int]]:
        """Return the ledger: transaction, account, currency, amount, kind, and when, ns; oldest first."""
        rows = self.store.query("SELECT tx, account, currency, amount, kind, ts_ns FROM postings ORDER BY seq")
        return [(tx, account, currency, Decimal(amount), kind, ts) for tx, account, currency, amount, kind, ts in rows]

    def close(self) -> None:
        """Write what waits and close the store."""
        try:
            if not self.store.failure:
                self.commit()
        finally:
            self.store.close()

    def _meta(self, run_id: str, new_run_id: str, salt: str) -> dict[str, str]:
        meta = dict(self.store.query("SELECT key, value FROM meta"))
        known = meta.get("run_id", "")
        if known and run_id not in ("", known):
            raise ConfigError(f"{self.store.path}: is the journal of run {known!r}, not of {run_id!r}")
        name = known or run_id or new_run_id
        if not name:
            raise ConfigError(f"{self.store.path}: a new journal needs a `run_id`")
        return {"salt": salt} | meta | {"run_id": name}

    def _read(self, meta: dict[str, str]) -> JournalState:
        fills = tuple(_fill_of(row) for row in self.store.query(f"SELECT {_FILL_COLUMNS} FROM fills ORDER BY seq"))
        trades: dict[str, list[str]] = {}
        for fill in fills:
            trades.setdefault(fill.client_order_id, []).append(fill.trade_id)
        statement = f"{_SELECT_ORDER} WHERE is_open = 1 ORDER BY intended_ns, client_order_id"
        orders = tuple(_order_of(row, trades.get(row[0], ())) for row in self.store.query(statement))
        statement = f"{_SELECT_ORDER} WHERE is_open = 0 ORDER BY intended_ns DESC LIMIT {_CLOSED_READ}"
        closed = tuple(_order_of(row, trades.get(row[0], ())) for row in reversed(self.store.query(statement)))
        rows = self.store.query("SELECT market_id, qty, opening_qty FROM positions")
        state = JournalState(
            run_id=meta["run_id"],
            next_step=int(meta.get("next_step", "0")),
            incarnation=int(meta.get("incarnation", "0")) + 1,
            orders=orders,
            closed=closed,
            fills=fills,
            positions={market: Decimal(qty) for market, qty, _ in rows},
            opening_positions={market: Decimal(opening) for market, _, opening in rows if opening is not None},
        )
        self._check(state)
        return state

    def _check(self, state: JournalState) -> None:
        sums: dict[str, Decimal] = {}
        for fill in state.fills:
            sums[fill.market_id] = _EXACT.add(sums.get(fill.market_id, _ZERO), _signed(fill))
        for market in sums.keys() | state.positions.keys():
            held, summed = state.positions.get(market, _ZERO), sums.get(market, _ZERO)
            if held != summed:
                raise StateError(
                    f"{self.store.path}: contradicts itself: the position of {market!r} is {held}, its fills sum to"
                    f" {summed}"
                )


def _nothing() -> None:
    """Nobody listens."""


def _no_step() -> int:
    """Nobody counts steps."""
    return 0


_ZERO = Decimal(0)
# Sizes have 17 digits at most and lie within 1e±12 of each other: their sums are exact in this many.
_EXACT = Context(prec=60)


def _signed(fill: Fill) -> Decimal:
    qty = Decimal(repr(fill.qty))
    return qty if fill.side is Side.BUY else qty.copy_negate()


def _order_state(order: Order, now_ns: int) -> _Row:
    return (
        *(order.status._value_, order.request._value_, int(order.is_ambiguous), order.filled_qty, order.avg_price),
        *(order.venue_order_id, now_ns, order.client_order_id),
    )


def _order_of(row: _Row, trade_ids: Sequence[str]) -> JournaledOrder:
    at = dict(zip(_ORDER_COLUMNS, row, strict=True))
    request = SubmitOrder(
        client_order_id=at["client_order_id"],
        market_id=at["market_id"],
        side=_SIDES[at["side"]],
        price=at["price"],
        qty=at["qty"],
        size_usd=at["size_usd"],
        post_only=bool(at["post_only"]),
        reduce_only=bool(at["reduce_only"]),
        tif=_TIFS[at["tif"]],
        expires_ns=at["expires_ns"],
    )
    order = msgspec.structs.replace(
        Order.from_submit(request),
        status=_STATUSES[at["status"]],
        request=_REQUESTS[at["request"]],
        is_ambiguous=bool(at["is_ambiguous"]),
        filled_qty=at["filled_qty"],
        avg_price=at["avg_price"],
        venue_order_id=at["venue_order_id"],
    )
    return JournaledOrder(
        intent=Intent(request, at["step"], at["idem_key"], at["ticks"], bool(at["is_closing"])),
        order=order,
        intended_ns=at["intended_ns"],
        updated_ns=at["updated_ns"],
        incarnation=at["incarnation"],
        trade_ids=tuple(trade_ids),
    )


def _fill_of(row: _Row) -> Fill:
    market_id, trade_id, client_order_id, side, price, qty, fee, fee_currency, liquidity, ts_ns = row[:10]
    return Fill(
        trade_id=trade_id,
        client_order_id=client_order_id,
        market_id=market_id,
        side=_SIDES[side],
        price=price,
        qty=qty,
        fee=fee,
        fee_currency=fee_currency,
        liquidity=_LIQUIDITIES[liquidity],
        ts_ns=ts_ns,
    )
