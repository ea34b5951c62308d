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
from ami_engine.book.plain_mbo_book import PlainMboBook

__all__ = ["BookApply", "MboBook", "OrderBook", "PlainMboBook", "PlainOrderBook"]

if TYPE_CHECKING:
    MboBook = PlainMboBook
    OrderBook = PlainOrderBook
else:
    try:
        from ami_engine._core import MboBook, OrderBook
    except ImportError:
        MboBook = PlainMboBook
        OrderBook = PlainOrderBook
