"""LOBSTER pairs: the book after each message, and the message, row by row (lobsterdata.com, "Output structure")."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date as Date
from datetime import datetime
from pathlib import Path
from typing import NoReturn
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ami_engine.adapters.byte_stream import LineStream
from ami_engine.adapters.feed_reader import FeedReader
from ami_engine.errors import ConfigError, EventError
from ami_engine.events import BookSnapshot, FeedGap, MarketEvent, Trade
from ami_engine.units import NS_PER_S, Instrument

__all__ = ["LobsterReader", "new_york_midnight_ns"]

_TIME_ZONE = "America/New_York"
_PRICE_PER_USD = 10_000
_EMPTY_PRICE = 9_999_999_999
_MESSAGE_COLUMNS = 6
_CROSS, _HALT = b"6", b"7"
_EXECUTIONS = (b"4", b"5", _CROSS)
_KNOWN_TYPES = frozenset(b"1234567"[place : place + 1] for place in range(7))
# The aggressor by the direction of the resting order that was executed: a sell limit order (-1) is hit by a buyer.
_AGGRESSORS = {b"1": -1, b"-1": 1}
# Prices of a type 7 message: trading halts, quoting resumes, trading resumes.
_HALTED, _QUOTING, _TRADING = b"-1", b"0", b"1"


def new_york_midnight_ns(day: str | Date) -> int:
    """Return the start of a New York day, ns since the epoch; daylight saving is right.

    >>> new_york_midnight_ns("2012-06-21")
    1340251200000000000

    Raises
    ------
    ConfigError
        When `day` is not YYYY-MM-DD, or the machine has no time zone database.
    """
    if not isinstance(day, Date):
        try:
            day = Date.fromisoformat(day)
        except ValueError:
            raise ConfigError(f"`date` must be YYYY-MM-DD, was {day!r}") from None
    try:
        zone = ZoneInfo(_TIME_ZONE)
    except ZoneInfoNotFoundError:
        raise ConfigError(f"the time zone {_TIME_ZONE} is not known here: pip install tzdata") from None
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * NS_PER_S


class LobsterReader(FeedReader):
    """Read a LOBSTER pair. Every row is a `BookSnapshot`, even where the book did not change.

    An execution (type 4, hidden 5, cross 6) is a `Trade` before its row's snapshot. From a trading halt (type 7) until
    trading resumes, rows are `FeedGap` events with reason ``halt``: the book of a halt is not to be quoted on. Both
    times of an event are the message's, since the files hold no time of reception.

    Parameters
    ----------
    book_path, message_path : str or Path
        The order book and the message file, plain or gzip, without a header.
    date : str or datetime.date
        The day of the recording: stamps are seconds after midnight in New York.
    symbol : str, optional
        The market's name; the files hold none.
    instruments : Mapping, optional
        What is declared of the instruments.

    Raises
    ------
    ConfigError
        When a file cannot be read or is not of its kind, or the date is missing or wrong.
    """

    snapshots_only = True

    def __init__(
        self,
        book_path: str | Path,
        message_path: str | Path,
        *,
        date: str | Date | None,
        symbol: str | None = None,
        instruments: Mapping[str, Instrument] | None = None,
    ) -> None:
        if date is None:
            raise ConfigError("LOBSTER stamps are seconds after midnight in New York: pass `date` (YYYY-MM-DD)")
        self._midnight_ns = new_york_midnight_ns(date)
        self._books = LineStream(book_path)
        self._messages = LineStream(message_path)
        try:
            self._columns = _check_book(self._books)
            _check_messages(self._messages)
        except ConfigError:
            self.close()
            raise
        super().__init__(self._books.path, self._messages.path, symbol=symbol, instruments=instruments)
        self.message_source_name = self._messages.name
        self._after_trade: MarketEvent | None = None
        self._is_halted = False
        self._is_exhausted = False

    def next_event(self) -> MarketEvent | None:
        """Return the next event; None at the end. EventError names file, row and field."""
        if self._after_trade is not None:
            event, self._after_trade = self._after_trade, None
            return event
        if self._is_exhausted:
            return None
        rows = self._next_rows()
        if rows is None:
            return None
        book, message = rows
        ts_ns, kind, price, direction, size = self._message(message)
        if kind == _HALT:
            self._is_halted = price != _TRADING
        snapshot = self._after(ts_ns, book)
        if kind in _EXECUTIONS:
            self._after_trade = snapshot
            return self._trade(ts_ns, kind, price, direction, size)
        return snapshot

    def place(self) -> tuple[str, int]:
        """Return the book file's base name and the row last read."""
        return self.source_name, self._books.position

    def close(self) -> None:
        """Close both files."""
        self._books.close()
        self._messages.close()

    def _next_rows(self) -> tuple[bytes, bytes] | None:
        """Return a row of each file, None at the end of both; a cut ends both, since rows pair by number."""
        book = message = b""
        while not book and not message:  # a blank line in both is no row
            try:
                next_book, next_message = self._books.next_line(), self._messages.next_line()
            except EventError:
                self._is_exhausted = True
                raise
            if next_book is None or next_message is None:
                self._is_exhausted = True
                if next_book is not None or next_message is not None:
                    self._refuse_unequal_length(self._books if next_book is None else self._messages)
                return None
            book, message = next_book, next_message
        return book, message

    def _refuse_unequal_length(self, short: LineStream) -> NoReturn:
        long = self._messages if short is self._books else self._books
        raise EventError(
            f"the file ends after row {short.position}, but {long.name} goes on: the pair is not whole",
            reason="truncated",
            source=short.name,
            position=short.position,
        )

    def _message(self, line: bytes) -> tuple[int, bytes, bytes, bytes, bytes]:
        """Return time, type, price, direction and size of a message row, the numbers as they stand there."""
        cells = line.split(b",")
        if len(cells) != _MESSAGE_COLUMNS:
            self._refuse_message(f"a message must have 6 columns, had {len(cells)}", "bad_columns", "")
        stamp, kind, _, size, price, direction = cells
        if kind not in _KNOWN_TYPES:
            self._refuse_message(
                f"`type` must be 1 to 7, was {kind.decode('ascii', 'replace')!r}", "unknown_kind", "type"
            )
        if direction not in _AGGRESSORS and kind != _HALT:
            self._refuse_message(
                f"`direction` must be 1 or -1, was {direction.decode('ascii', 'replace')!r}", "wrong_type", "direction"
            )
        return self._time(stamp), kind, price, direction, size

    def _time(self, stamp: bytes) -> int:
        """Read decimal seconds exactly: a float would lose the last nanoseconds."""
        seconds, _, fraction = stamp.partition(b".")
        if not seconds.isdigit() or (fraction and not fraction.isdigit()) or len(fraction) > 9:
            self._refuse_message(
                f"`time` must be seconds with at most 9 decimals, was {stamp.decode('ascii', 'replace')!r}",
                "not_finite" if stamp.lower().lstrip(b"+-") in (b"nan", b"inf", b"infinity") else "wrong_type",
                "time",
            )
        nanoseconds = int(fraction.ljust(9, b"0")) if fraction else 0
        return self._midnight_ns + int(seconds) * NS_PER_S + nanoseconds

    def _trade(self, ts_ns: int, kind: bytes, price: bytes, direction: bytes, size: bytes) -> Trade:
        aggressor = 0 if kind == _CROSS else _AGGRESSORS[direction]
        try:
            return Trade(ts_ns, ts_ns, self.symbol, 0, int(price) / _PRICE_PER_USD, float(int(size)), aggressor)
        except ValueError:
            field, cell = ("price", price) if not _is_whole(price) else ("size", size)
            self._after_trade = None
            self._refuse_message(
                f"`{field}` must be a whole number, was {cell.decode('ascii', 'replace')!r}", "wrong_type", field
            )

    def _after(self, ts_ns: int, line: bytes) -> BookSnapshot | FeedGap:
        """Return the book after the message: asks first, price and size of each level; ±9999999999 is no level."""
        cells = line.split(b",")
        if len(cells) != self._columns:
            self._refuse_book(f"a row must have {self._columns} columns, had {len(cells)}", "bad_columns", "")
        try:
            numbers = [int(cell) for cell in cells]
        except ValueError:
            self._refuse_book_cell(cells)
        if self._is_halted:
            return FeedGap(ts_ns, ts_ns, self.symbol, 0, 0, "halt")
        asks = [
            (price / _PRICE_PER_USD, float(size))
            for price, size in zip(numbers[0::4], numbers[1::4], strict=True)
            if price < _EMPTY_PRICE
        ]
        bids = [
            (price / _PRICE_PER_USD, float(size))
            for price, size in zip(numbers[2::4], numbers[3::4], strict=True)
            if price > -_EMPTY_PRICE
        ]
        bid, bid_depth = bids[0] if bids else (0.0, 0.0)
        ask, ask_depth = asks[0] if asks else (0.0, 0.0)
        return BookSnapshot(ts_ns, ts_ns, self.symbol, 0, bid, ask, bid_depth, ask_depth, bids, asks)

    def _refuse_book_cell(self, cells: list[bytes]) -> NoReturn:
        names = ("ask_price", "ask_size", "bid_price", "bid_size")
        place = next(place for place, cell in enumerate(cells) if not _is_whole(cell))
        field = f"{names[place % 4]}_{place // 4 + 1}"
        shown = cells[place].decode("ascii", "replace")
        reason = "not_finite" if _is_not_finite(cells[place]) else "wrong_type"
        self._refuse_book(f"`{field}` must be a whole number, was {shown!r}", reason, field)

    def _refuse_book(self, message: str, reason: str, field: str) -> NoReturn:
        raise EventError(message, reason=reason, field=field, source=self._books.name, position=self._books.position)

    def _refuse_message(self, message: str, reason: str, field: str) -> NoReturn:
        raise EventError(
            message, reason=reason, field=field, source=self._messages.name, position=self._messages.position
        )


def _check_book(stream: LineStream) -> int:
    """Return the number of columns of a book file: four a level."""
    head = stream.peek_lines(1)
    columns = head[0].count(b",") + 1 if head else 0
    if columns == _MESSAGE_COLUMNS:
        raise ConfigError(f"{stream.path}: has 6 columns, as a message file: give the pair as BOOK,MESSAGES")
    if columns == 0 or columns % 4:
        raise ConfigError(f"{stream.path}: is no LOBSTER book: columns must be a multiple of 4, there are {columns}")
    return columns


def _check_messages(stream: LineStream) -> None:
    head = stream.peek_lines(1)
    columns = head[0].count(b",") + 1 if head else 0
    if columns != _MESSAGE_COLUMNS:
        raise ConfigError(f"{stream.path}: is no LOBSTER message file: columns must be 6, there are {columns}")


def _is_whole(cell: bytes) -> bool:
    try:
        int(cell)
    except ValueError:
        return False
    return True


def _is_not_finite(cell: bytes) -> bool:
    try:
        return not math.isfinite(float(cell))
    except ValueError:
        return False
