"""Rows of a table, block by block: what the readers of tables in files and in memory share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ami_engine.adapters.column_map import ColumnMap
from ami_engine.adapters.feed_reader import FeedReader
from ami_engine.adapters.named_rows import NamedRows
from ami_engine.adapters.row_reader import RowReader
from ami_engine.errors import EventError
from ami_engine.events import MarketEvent

__all__ = ["BlockReader", "bind_columns"]

_TIME_FIELDS = ("ts", "recv_ts", "exch_ts")


class BlockReader(FeedReader):
    """One event a row. A subclass sets `_rows`, which reads a row's cells, and brings the next block's into `_row`."""

    _rows: RowReader | NamedRows
    _row: Iterator[Any] = iter(())
    _position = 0

    def next_event(self) -> MarketEvent | None:
        """Return the next event; None at the end. EventError names file or table, row and field."""
        while True:
            cells = next(self._row, None)
            if cells is None:
                if not self._read_block():
                    self._check_symbol_was_seen(self._position)
                    return None
                continue
            self._position += 1
            try:
                event = self._rows.read(cells)
            except EventError as error:
                raise error.at(self.source_name, self._position) from None
            if self.symbol and self._is_other_symbol(event.symbol):
                continue
            return event

    def place(self) -> tuple[str, int]:
        """Return the name of the file or table, and the row last read, from 1."""
        return self.source_name, self._position

    @abstractmethod
    def _read_block(self) -> bool:
        """Let `_row` give the next rows; False when there are none."""


def bind_columns(
    columns: ColumnMap, names: Sequence[str], is_stamp: Callable[[int], bool], symbol: str
) -> tuple[list[str], RowReader]:
    """Return the columns that a map wants, in the table's order, and what reads rows of these.

    Parameters
    ----------
    columns : ColumnMap
        What the columns are.
    names : sequence of str
        The table's columns.
    is_stamp : callable
        Takes a column's place; True when it holds stamps, which are read as ns.
    symbol : str
        As `FeedReader.symbol`.
    """
    positions = columns.resolve(names)
    used = [*positions.fields.values(), *(place for places in positions.levels.values() for place in places)]
    wanted = sorted(set(used))
    moved = {place: at for at, place in enumerate(wanted)}
    narrow = type(positions)(
        {field: moved[place] for field, place in positions.fields.items()},
        {field: tuple(moved[place] for place in places) for field, places in positions.levels.items()},
        len(wanted),
    )
    in_ns = {field for field in _TIME_FIELDS if field in positions.fields and is_stamp(positions.fields[field])}
    return [names[place] for place in wanted], RowReader(columns, narrow, symbol=symbol, in_ns=in_ns)
