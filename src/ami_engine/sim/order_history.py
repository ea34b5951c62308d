"""What a simulated venue remembers of orders that ended: the last so many, a few dozen bytes each."""

from __future__ import annotations

import struct
from array import array
from hashlib import blake2b

from ami_engine.events import OrderReport, OrderStatus, Side

__all__ = ["OrderHistory"]

# Digest of the client order id, then price, size, filled size, number at the venue, market, side, status.
_RECORD = struct.Struct("<16sdddQIBB")
# So many records of a bucket are looked through at most, on average.
_PER_BUCKET = 16
_STATUSES = tuple(OrderStatus)
_STATUS_INDEX = {status: index for index, status in enumerate(_STATUSES)}


class OrderHistory:
    """Reports of ended orders by client order id; the one that ended longest ago is forgotten first.

    A dict of reports takes about 400 bytes an order, which a long run pays for each of them. Here an order is a record
    in one of many byte strings, found by 128 bits of a hash of its id: no two ids that anybody will ever make share
    them, so that what is remembered is told as it was.

    Parameters
    ----------
    limit : int
        How many orders are remembered, at least 1.

    Examples
    --------
    >>> history = OrderHistory(limit=1)
    >>> report = OrderReport(
    ...     client_order_id="a1", market_id="X", side=Side.BUY, price=0.5, qty=2.0, venue_order_id="P7"
    ... )
    >>> history.add(report)
    >>> history.get("a1") == report, history.get("a2")
    (True, None)
    """

    __slots__ = ("_buckets", "_market_index", "_markets", "_mask", "_oldest", "_order", "limit")

    def __init__(self, limit: int) -> None:
        count = 1
        while count * _PER_BUCKET < limit:
            count *= 2
        self.limit = limit
        self._mask = count - 1
        self._buckets: dict[int, bytearray] = {}
        self._markets: list[str] = []
        self._market_index: dict[str, int] = {}
        # The bucket of each order in the order of their ends, a ring once it is full. A bucket's oldest is its first.
        self._order = array("I")
        self._oldest = 0

    def __len__(self) -> int:
        return len(self._order)

    def add(self, report: OrderReport) -> None:
        """Remember an order; its `venue_order_id` is "P" and a number."""
        digest = _digest(report.client_order_id)
        market = self._market_index.get(report.market_id)
        if market is None:
            market = self._market_index[report.market_id] = len(self._markets)
            self._markets.append(report.market_id)
        record = _RECORD.pack(
            digest,
            report.price,
            report.qty,
            report.filled_qty,
            int(report.venue_order_id[1:]),
            market,
            report.side is Side.BUY,
            _STATUS_INDEX[report.status],
        )
        index = int.from_bytes(digest[:4], "little") & self._mask
        if len(self._order) < self.limit:
            self._order.append(index)
        else:
            self._forget(self._order[self._oldest])
            self._order[self._oldest] = index
            self._oldest = (self._oldest + 1) % self.limit
        bucket = self._buckets.get(index)
        if bucket is None:
            bucket = self._buckets[index] = bytearray()
        bucket += record

    def get(self, client_order_id: str) -> OrderReport | None:
        """Return what was remembered of an order, None when nothing is."""
        digest = _digest(client_order_id)
        bucket = self._buckets.get(int.from_bytes(digest[:4], "little") & self._mask)
        at = -1 if bucket is None else bucket.find(digest)
        while bucket is not None and at > 0 and at % _RECORD.size:
            at = bucket.find(digest, at + 1)
        if bucket is None or at < 0:
            return None
        _, price, qty, filled, number, market, is_buy, status = _RECORD.unpack_from(bucket, at)
        return OrderReport(
            client_order_id=client_order_id,
            market_id=self._markets[market],
            side=Side.BUY if is_buy else Side.SELL,
            price=price,
            qty=qty,
            filled_qty=filled,
            status=_STATUSES[status],
            venue_order_id=f"P{number}",
        )

    def _forget(self, index: int) -> None:
        bucket = self._buckets[index]
        del bucket[: _RECORD.size]
        if not bucket:
            del self._buckets[index]


def _digest(client_order_id: str) -> bytes:
    return blake2b(client_order_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
