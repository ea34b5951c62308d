"""A venue in a file of its own: its truth outlives the process that trades on it, as a real venue's does."""

from __future__ import annotations

import sqlite3
from typing import Any

from ami_engine.adapters import Broker
from ami_engine.errors import VenueRejected
from ami_engine.events import Fill, OrderReport, OrderStatus, Side, SubmitOrder, TimeInForce

_SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (
    id TEXT PRIMARY KEY, market TEXT, side TEXT, price REAL, qty REAL, filled REAL, status TEXT, sent INTEGER
);
CREATE TABLE IF NOT EXISTS fills (
    seq INTEGER PRIMARY KEY, id TEXT, market TEXT, side TEXT, price REAL, qty REAL, ts_ns INTEGER, told INTEGER
);
"""


class FileVenue(Broker):
    """Fills a resting order when the price comes to it; every request is a transaction of the venue's own file."""

    recv_window_ms = 300

    def __init__(self, path: str) -> None:
        self._file = sqlite3.connect(path, isolation_level=None)
        self._file.execute("PRAGMA journal_mode=WAL")
        self._file.execute("PRAGMA synchronous=OFF")
        self._file.executescript(_SCHEMA)
        self._now_ns = 0

    def submit_order(self, order: SubmitOrder) -> None:
        row = self._file.execute("SELECT id FROM orders WHERE id = ?", (order.client_order_id,)).fetchone()
        if row is not None:
            self._file.execute("UPDATE orders SET sent = sent + 1 WHERE id = ?", (order.client_order_id,))
            return
        if order.expires_ns and self._now_ns > order.expires_ns:
            raise VenueRejected("expired")
        status = "EXPIRED" if order.tif is TimeInForce.IOC else "NEW"
        given = (order.client_order_id, order.market_id, order.side.value, order.price, order.qty, 0.0, status, 1)
        self._file.execute("INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, ?, ?)", given)
        if order.tif is TimeInForce.IOC:
            self._fill(order.client_order_id, order.market_id, order.side.value, order.price, order.qty)

    def cancel_order(self, order_id: str) -> bool:
        statement = "UPDATE orders SET status = 'CANCELED' WHERE id = ? AND status IN ('NEW', 'PARTIALLY_FILLED')"
        return self._file.execute(statement, (order_id,)).rowcount == 1

    def cancel_all(self, market_id: str | None = None) -> int:
        statement = "UPDATE orders SET status = 'CANCELED' WHERE status IN ('NEW', 'PARTIALLY_FILLED')"
        return self._file.execute(statement).rowcount

    def on_market_data(self, event: Any, bid: float, ask: float, bid_size: float, ask_size: float) -> None:
        self._now_ns = max(self._now_ns, event.recv_ts_ns)
        statement = (
            "SELECT id, market, side, price, qty - filled FROM orders WHERE status IN ('NEW', 'PARTIALLY_FILLED')"
        )
        for order_id, market, side, price, left in self._file.execute(statement).fetchall():
            if ask <= price if side == "BUY" else bid >= price:
                self._fill(order_id, market, side, price, left)

    def _fill(self, order_id: str, market: str, side: str, price: float, qty: float) -> None:
        self._file.execute("BEGIN")
        given = (order_id, market, side, price, qty, self._now_ns)
        self._file.execute(
            "INSERT INTO fills (id, market, side, price, qty, ts_ns, told) VALUES (?, ?, ?, ?, ?, ?, 0)", given
        )
        self._file.execute("UPDATE orders SET filled = filled + ?, status = 'FILLED' WHERE id = ?", (qty, order_id))
        self._file.execute("COMMIT")

    def process_fills(self, now_ms: int) -> list[Fill]:
        rows = self._file.execute(
            "UPDATE fills SET told = 1 WHERE told = 0 RETURNING seq, id, market, side, price, qty, ts_ns"
        ).fetchall()
        return [_fill_of(row) for row in sorted(rows)]

    def fetch_fills(self, since_ns: int) -> list[Fill]:
        statement = "SELECT seq, id, market, side, price, qty, ts_ns FROM fills WHERE ts_ns >= ? ORDER BY seq"
        return [_fill_of(row) for row in self._file.execute(statement, (since_ns,))]

    def fetch_order(self, client_order_id: str) -> OrderReport | None:
        found = self._reports("WHERE id = ?", (client_order_id,))
        return found[0] if found else None

    def fetch_open_orders(self, market_id: str | None = None) -> list[OrderReport]:
        return self._reports("WHERE status IN ('NEW', 'PARTIALLY_FILLED')", ())

    def get_state(self) -> dict[str, Any]:
        rows = self._file.execute(
            "SELECT market, sum(CASE side WHEN 'BUY' THEN qty ELSE -qty END) FROM fills GROUP BY market"
        ).fetchall()
        return {"positions": dict(rows)}

    def fetch_balances(self) -> dict[str, float]:
        return {}

    def doubled(self) -> list[str]:
        """Return the orders that were sent more than once."""
        return [order_id for (order_id,) in self._file.execute("SELECT id FROM orders WHERE sent > 1")]

    def _reports(self, where: str, given: tuple[Any, ...]) -> list[OrderReport]:
        rows = self._file.execute(f"SELECT id, market, side, price, qty, filled, status FROM orders {where}", given)
        return [
            OrderReport(
                client_order_id=order_id,
                market_id=market,
                side=Side(side),
                price=price,
                qty=qty,
                filled_qty=filled,
                status=OrderStatus(status),
            )
            for order_id, market, side, price, qty, filled, status in rows
        ]


def _fill_of(row: tuple[Any, ...]) -> Fill:
    seq, order_id, market, side, price, qty, ts_ns = row
    return Fill(
        trade_id=str(seq),
        client_order_id=order_id,
        market_id=market,
        side=Side(side),
        price=price,
        qty=qty,
        ts_ns=ts_ns,
    )
