"""The order books: compiled where the core is there, else the same in plain Python.

>>> from ami_engine.book import OrderBook
>>> book = OrderBook(tick_size=0.01)
>>> book.apply_snapshot([(99.99, 5.0)], [(100.01, 7.0)], seq=1)
>>> book.best()
(99.99, 5.0, 100.01, 7.0)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ami_engine.book.plain_book import BookApply, PlainOrderBook

__all__ = ["BookApply", "OrderBook", "PlainOrderBook"]

if TYPE_CHECKING:
    OrderBook = PlainOrderBook
else:
    try:
        from ami_engine._core import OrderBook
    except ImportError:
        OrderBook = PlainOrderBook
