"""Market-by-order book in plain Python: what runs without a compiler, and the independent check of the core's."""

from __future__ import annotations

import struct
from bisect import bisect_left
from typing import Any, Final

from ami_engine.book.checkpoint import DAMAGED, seal, unseal
from ami_engine.book.grid import check_price, check_size, refuse_off_grid
from ami_engine.book.view import ASK, BID, BookView
from ami_engine.errors import EventError

__all__ = ["PlainMboBook"]

_MAGIC: Final = b"AMIMBOB\x01"
_HEADER: Final = struct.Struct("<8sdqQQQ")
_SIDES: Final = {"B": BID, "A": ASK}


class _Level:
    __slots__ = ("count", "size")

    def __init__(self, size: float, count: int) -> None:
        self.size = size
        self.count = count


class PlainMboBook(BookView):
    """Orders of one symbol by id, and the price levels they add up to, by Databento's MBO actions.

    A adds an order, C cancels a size of it, M modifies its price and size (an order that is not known joins the book),
    R clears; T, F and N change nothing: the cancel that follows a fill does. The book may be crossed: auctions are.

    Parameters
    ----------
    tick_size : float
        Price step, quote currency, > 0. Prices off this grid are refused.
    levels : int
        How many levels `top()` returns unless told otherwise, at least 1.

    Raises
    ------
    ConfigError
        When a parameter is outside its range.
    EventError
        By `apply`; `reason` is one of unknown_kind, malformed (side), not_finite, negative_price, negative_size,
        off_grid. Nothing has changed then.

    Notes
    -----
    Semantics: Databento, "Market by order" schema and its limit order book example. Sizes of a level are sums: exact
    for whole sizes, to the last digits for fractions.

    Examples
    --------
    >>> book = PlainMboBook(0.25)
    >>> book.apply("A", "B", order_id=1, price=4810.0, size=22)
    True
    >>> book.apply("A", "B", order_id=2, price=4810.0, size=3)
    True
    >>> book.apply("C", "B", order_id=1, price=4810.0, size=20)
    True
    >>> book.best(), book.order(1)
    ((4810.0, 5.0, 0.0, 0.0), ('B', 4810.0, 2.0))
    """

    def __init__(self, tick_size: float, levels: int = 10) -> None:
        super().__init__(tick_size, levels)
        self._orders: dict[int, tuple[int, int, float]] = {}  # side, key, size
        self._keys: tuple[list[int], list[int]] = ([], [])
        self._at: tuple[dict[int, _Level], dict[int, _Level]] = ({}, {})
        self._unknown_cancels = 0
        self._unknown_modifies = 0
        self._repeated_adds = 0

    def apply(self, action: str, side: str = "N", order_id: int = 0, price: float = 0.0, size: float = 0.0) -> bool:
        """Apply one message; return whether the book changed. `side` and `price` are read by A and M only."""
        if action in ("A", "M"):
            order = self._read_order(side, price, size)
            is_known = order_id in self._orders
            if action == "A":
                self._repeated_adds += is_known
            else:
                self._unknown_modifies += not is_known
            if is_known:
                self._remove(order_id)
            return self._rest(order_id, *order) or is_known
        if action == "C":
            check_size(size, "`size`", "size")
            return self._cancel(order_id, size)
        if action == "R":
            self.clear()
            return True
        if action in ("T", "F", "N"):
            return False
        message = f"`action` must be one of A, C, M, R, T, F, N, was {_letter(action)}"
        raise EventError(message, reason="unknown_kind", field="action")

    def clear(self) -> None:
        """Remove every order."""
        self._orders.clear()
        for side in (BID, ASK):
            self._keys[side].clear()
            self._at[side].clear()

    def order(self, order_id: int) -> tuple[str, float, float] | None:
        """Return (side, price, size) of a resting order, None when it does not rest."""
        held = self._orders.get(order_id)
        if held is None:
            return None
        side, key, size = held
        return "A" if side else "B", self._price(side, key), size

    @property
    def level_counts(self) -> tuple[int, int]:
        """How many levels the book holds: bids, asks."""
        return len(self._keys[BID]), len(self._keys[ASK])

    @property
    def order_count(self) -> int:
        """How many orders rest."""
        return len(self._orders)

    @property
    def unknown_cancels(self) -> int:
        """How many cancels met no order."""
        return self._unknown_cancels

    @property
    def unknown_modifies(self) -> int:
        """How many modifies met no order and added it."""
        return self._unknown_modifies

    @property
    def repeated_adds(self) -> int:
        """How many adds replaced an order of the same id."""
        return self._repeated_adds

    def to_bytes(self) -> bytes:
        """Return a checkpoint, versioned and checksummed; the compiled book reads it too."""
        counters = (self._unknown_cancels, self._unknown_modifies, self._repeated_adds)
        parts = [_HEADER.pack(_MAGIC, self._grid.tick_size, self._levels, *counters)]
        for keys, at in zip(self._keys, self._at, strict=True):
            parts.append(struct.pack("<Q", len(keys)))
            parts.extend(struct.pack("<qdq", key, at[key].size, at[key].count) for key in keys)
        parts.append(struct.pack("<Q", len(self._orders)))
        parts.extend(
            struct.pack("<Qqd", order_id, key, size) for order_id, (_, key, size) in sorted(self._orders.items())
        )
        return seal(b"".join(parts))

    @classmethod
    def from_bytes(cls, data: bytes) -> PlainMboBook:
        """Return the book of a checkpoint; ValueError when it is damaged or of another version."""
        body = unseal(data, _MAGIC)
        try:
            _, tick_size, levels, *counters = _HEADER.unpack_from(body)
            book = cls(tick_size, levels)
            book._unknown_cancels, book._unknown_modifies, book._repeated_adds = counters
            at = _HEADER.size
            for side in (BID, ASK):
                (count,) = struct.unpack_from("<Q", body, at)
                rows = list(struct.iter_unpack("<qdq", body[at + 8 : at + 8 + 24 * count]))
                at += 8 + 24 * count
                book._keys[side].extend(key for key, _, _ in rows)
                book._at[side].update((key, _Level(size, orders)) for key, size, orders in rows)
            (count,) = struct.unpack_from("<Q", body, at)
            for order_id, key, size in struct.iter_unpack("<Qqd", body[at + 8 : at + 8 + 24 * count]):
                book._orders[order_id] = (BID if key > 0 else ASK, key, size)
        except struct.error as error:
            raise ValueError(DAMAGED) from error
        return book

    def __reduce__(self) -> tuple[Any, tuple[bytes]]:
        return type(self).from_bytes, (self.to_bytes(),)

    def _read_order(self, side: str, price: float, size: float) -> tuple[int, int, float]:
        which = _SIDES.get(side)
        if which is None:
            raise EventError(f"`side` must be A or B, was {_letter(side)}", reason="malformed", field="side")
        check_price(price, "`price`", "price")
        check_size(size, "`size`", "size")
        ticks = self._grid.ticks(price)
        if ticks == 0:
            raise refuse_off_grid(price, self._grid.tick_size, "`price`", "price")
        return which, -ticks if which else ticks, float(size)

    def _cancel(self, order_id: int, size: float) -> bool:
        held = self._orders.get(order_id)
        if held is None:
            self._unknown_cancels += 1
            return False
        side, key, left = held
        if size >= left:
            self._remove(order_id)
        else:
            self._orders[order_id] = (side, key, left - size)
            self._at[side][key].size -= size
        return True

    def _rest(self, order_id: int, side: int, key: int, size: float) -> bool:
        if size == 0.0:
            return False
        level = self._at[side].get(key)
        if level is None:
            self._keys[side].insert(bisect_left(self._keys[side], key), key)
            self._at[side][key] = _Level(size, 1)
        else:
            level.size += size
            level.count += 1
        self._orders[order_id] = (side, key, size)
        return True

    def _remove(self, order_id: int) -> None:
        side, key, size = self._orders.pop(order_id)
        level = self._at[side][key]
        level.count -= 1
        level.size -= size
        if level.count == 0:
            del self._at[side][key]
            del self._keys[side][bisect_left(self._keys[side], key)]

    def _view(self, side: int, n: int) -> list[tuple[float, float]]:
        keys = self._keys[side]
        best = reversed(keys[max(0, len(keys) - n) :])
        return [(self._price(side, key), self._at[side][key].size) for key in best]


def _letter(text: str) -> str:
    return text if len(text) == 1 else "?"
