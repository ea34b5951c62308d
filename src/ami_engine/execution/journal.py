"""What must outlive a crash, in the state store: intents before they are sent, orders, fills, latches, checkpoints.

A tick collects what changed and writes it in one transaction at its end; a tick that changed nothing opens none. Only
an intent does not wait: it is written, with all that was collected before it, and on the disk before anything is sent.
Answers of the venue that a power cut takes away are no loss, because the order is then in doubt and the venue is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
_UPDATE_ORDER = """UPDATE orders SET status = ?, request = ?, is_ambiguous = ?, filled_qty = ?, avg_price = ?,
    venue_order_id = ?, is_open = ?, updated_ns = ? WHERE client_order_id = ?"""
_INSERT_EVENT = "INSERT INTO order_events (client_order_id, kind, detail, ts_ns) VALUES (?, ?, ?, ?)"
_FILL_COLUMNS = (
    "market_id, trade_id, client_order_id, side, price, qty, fee, fee_currency, liquidity, ts_ns, heard_ns, is_refused"
)
_INSERT_FILL = f"INSERT OR IGNORE INTO fills ({_FILL_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_UPSERT_POSITION = """INSERT INTO positions VALUES (?, ?, ?)
    ON CONFLICT (market_id) DO UPDATE SET qty = excluded.qty, opening_qty = excluded.opening_qty"""
_UPSERT_META = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
_UPSERT_PLACE = "INSERT INTO meta VALUES (?, ?), (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
_UPSERT_CHECKPOINT = """INSERT INTO checkpoints VALUES (?, ?, ?, ?)
    ON CONFLICT (name) DO UPDATE SET step = excluded.step, ts_ns = excluded.ts_ns, data = excluded.data"""
_INSERT_POSTING = """INSERT INTO postings (tx, account, currency, amount, kind, ts_ns) VALUES (?, ?, ?, ?, ?, ?)"""
_INSERT_LATCH = "INSERT INTO latches VALUES (?, ?, ?)"

# Closed orders that a start reads back, to know late fills and repeats by.
_CLOSED_READ = 1_024


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
        self._pending: list[tuple[str, tuple[Any, ...]]] = []
        self._orders: dict[str, tuple[Order, int]] = {}
        self._needs_sync = False
        self._positions: dict[str, Decimal] = {}
        self._openings: dict[str, Decimal] = {}
        self._new_fills: set[tuple[str, str, str]] = set()
        self.step_now: Callable[[], int] = _no_step
        self.is_dirty = False
        meta = {"begun_ns": str(begun_ns)} | self._meta(run_id, new_run_id, salt)
        self.state = self._read(meta)
        self.run_id = meta["run_id"]
        self.id_seed = self.run_id + meta["salt"]
        self.incarnation = self.state.incarnation
        self.next_step = self.state.next_step
        self.begun_ns = int(meta["begun_ns"])
        self.confirmed_ns = int(meta.get("confirmed_ns", "0"))
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
            self._add((_INSERT_ORDER, self._order_row(intent, now_ns)))
            self._add((_INSERT_EVENT, (intent.request.client_order_id, "intent", "", now_ns)))
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
        statement = "UPDATE orders SET expires_ns = ?, intended_ns = ? WHERE client_order_id = ?"
        self._add((statement, (request.expires_ns, now_ns, request.client_order_id)))
        self._add((_INSERT_EVENT, (request.client_order_id, "intent_again", "", now_ns)))
        self._needs_sync = True
        self.commit()

    def note(self, order: Order, kind: str, now_ns: int, detail: str = "") -> None:
        """Remember what became of an order, for the next commit."""
        self._orders[order.client_order_id] = (order, now_ns)
        self.is_dirty = True
        self._add((_INSERT_EVENT, (order.client_order_id, kind, detail, now_ns)))

    def has_fill(self, fill: Fill) -> bool:
        """Return True when the fill is in the journal, or waits to be."""
        key = (fill.market_id, fill.trade_id, fill.client_order_id)
        if key in self._new_fills:
            return True
        statement = "SELECT 1 FROM fills WHERE market_id = ? AND trade_id = ? AND client_order_id = ?"
        return bool(self.store.query(statement, key))

    def fill(self, fill: Fill, now_ns: int, *, is_refused: bool = False) -> None:
        """Take a fill that `has_fill` does not know, for the next commit. `is_refused`: the order table refused it."""
        self._new_fills.add((fill.market_id, fill.trade_id, fill.client_order_id))
        self._add(
            (
                _INSERT_FILL,
                (
                    *(fill.market_id, fill.trade_id, fill.client_order_id, fill.side.value, fill.price, fill.qty),
                    *(fill.fee, fill.fee_currency, fill.liquidity.value, fill.ts_ns, now_ns, int(is_refused)),
                ),
            )
        )
        held = _EXACT.add(self._positions.get(fill.market_id, _ZERO), _signed(fill))
        self._positions[fill.market_id] = held
        self.trade_in(fill.market_id)
        self._put_position(fill.market_id)
        self._needs_sync = True

    def fills_between(self, since_ns: int, until_ns: int) -> list[Fill]:
        """Return the fills of a stretch of the venue's time, ns, oldest first; those that wait to be written not."""
        statement = f"SELECT {_FILL_COLUMNS} FROM fills WHERE ts_ns BETWEEN ? AND ? ORDER BY seq"
        return [_fill_of(row) for row in self.store.query(statement, (since_ns, until_ns))]

    def position(self, market_id: str) -> Decimal:
        """Return the sum of a market's fills, and what was held before the first of them."""
        return _EXACT.add(self._positions.get(market_id, _ZERO), self._openings.get(market_id, _ZERO))

    def open_position(self, market_id: str, qty: Decimal) -> None:
        """Take what a market held before this journal knew of any fill."""
        self._openings[market_id] = qty
        self.unopened.discard(market_id)
        self._put_position(market_id)
        self._needs_sync = True

    def _put_position(self, market_id: str) -> None:
        opening = self._openings.get(market_id)
        row = (market_id, str(self._positions.get(market_id, _ZERO)), None if opening is None else str(opening))
        self._add((_UPSERT_POSITION, row))

    def posting(self, tx: str, account: str, currency: str, amount: Decimal, *, kind: str, now_ns: int) -> None:
        """Take one line of a ledger transaction, for the next commit; a transaction's lines are given together."""
        self._add((_INSERT_POSTING, (tx, account, currency, str(amount), kind, now_ns)))
        self._needs_sync = True

    def keep_latches(self, latches: Sequence[tuple[str, int, str]]) -> None:
        """Write what is latched (name, since when, ns, and why), at once and with all that waits: it must hold.

        Raises
        ------
        StateError
            When it could not be written.
        """
        self._add(("DELETE FROM latches", ()))
        for latch in latches:
            self._add((_INSERT_LATCH, latch))
        self._needs_sync = True
        self.commit()

    def checkpoint(self, name: str, data: bytes, now_ns: int, *, sync: bool = False) -> None:
        """Keep a part's state under its name, for the next commit; it asks for a sync only where told to."""
        self._needs_sync = self._needs_sync or sync
        self._add((_UPSERT_CHECKPOINT, (name, self.step_now(), now_ns, data)))

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
        store = self.store
        with store.transaction(sync=self._needs_sync):
            for statement, parameters in self._pending:
                store.execute(statement, parameters)
            for order, now_ns in self._orders.values():
                store.execute(_UPDATE_ORDER, _order_state(order, now_ns))
            store.execute(_UPSERT_PLACE, ("next_step", str(self.next_step), "confirmed_ns", str(self.confirmed_ns)))
        self._pending.clear()
        self._orders.clear()
        self._new_fills.clear()
        self._needs_sync = self.is_dirty = False

    def _add(self, write: tuple[str, tuple[Any, ...]]) -> None:
        self._pending.append(write)
        self.is_dirty = True

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
        return self._order_of(rows[0]) if rows else None

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
        statement = f"{_SELECT_ORDER} WHERE is_open = 1 ORDER BY intended_ns, client_order_id"
        orders = tuple(self._order_of(row) for row in self.store.query(statement))
        statement = f"{_SELECT_ORDER} WHERE is_open = 0 ORDER BY intended_ns DESC LIMIT {_CLOSED_READ}"
        closed = tuple(self._order_of(row) for row in reversed(self.store.query(statement)))
        fills = tuple(_fill_of(row) for row in self.store.query(f"SELECT {_FILL_COLUMNS} FROM fills ORDER BY seq"))
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

    def _order_of(self, row: tuple[Any, ...]) -> JournaledOrder:
        at = dict(zip(_ORDER_COLUMNS, row, strict=True))
        request = SubmitOrder(
            client_order_id=at["client_order_id"],
            market_id=at["market_id"],
            side=Side(at["side"]),
            price=at["price"],
            qty=at["qty"],
            size_usd=at["size_usd"],
            post_only=bool(at["post_only"]),
            reduce_only=bool(at["reduce_only"]),
            tif=TimeInForce(at["tif"]),
            expires_ns=at["expires_ns"],
        )
        order = msgspec.structs.replace(
            Order.from_submit(request),
            status=OrderStatus(at["status"]),
            request=RequestState(at["request"]),
            is_ambiguous=bool(at["is_ambiguous"]),
            filled_qty=at["filled_qty"],
            avg_price=at["avg_price"],
            venue_order_id=at["venue_order_id"],
        )
        trades = self.store.query("SELECT trade_id FROM fills WHERE client_order_id = ?", (at["client_order_id"],))
        return JournaledOrder(
            intent=Intent(request, at["step"], at["idem_key"], at["ticks"], bool(at["is_closing"])),
            order=order,
            intended_ns=at["intended_ns"],
            updated_ns=at["updated_ns"],
            incarnation=at["incarnation"],
            trade_ids=tuple(trade for (trade,) in trades),
        )


def _no_step() -> int:
    """Nobody counts steps."""
    return 0


_ZERO = Decimal(0)
# Sizes have 17 digits at most and lie within 1e±12 of each other: their sums are exact in this many.
_EXACT = Context(prec=60)


def _signed(fill: Fill) -> Decimal:
    qty = Decimal(repr(fill.qty))
    return qty if fill.side is Side.BUY else qty.copy_negate()


def _order_state(order: Order, now_ns: int) -> tuple[Any, ...]:
    return (
        *(order.status.value, order.request.value, int(order.is_ambiguous), order.filled_qty, order.avg_price),
        *(order.venue_order_id, int(order.is_open), now_ns, order.client_order_id),
    )


def _fill_of(row: tuple[Any, ...]) -> Fill:
    market_id, trade_id, client_order_id, side, price, qty, fee, fee_currency, liquidity, ts_ns = row[:10]
    return Fill(
        trade_id=trade_id,
        client_order_id=client_order_id,
        market_id=market_id,
        side=Side(side),
        price=price,
        qty=qty,
        fee=fee,
        fee_currency=fee_currency,
        liquidity=Liquidity(liquidity),
        ts_ns=ts_ns,
    )
