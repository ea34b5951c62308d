"""JSON lines: one event a line, as the contract's dict or as one of our own tagged structs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import msgspec

from ami_engine.adapters.byte_stream import LineStream
from ami_engine.adapters.dict_event import event_from_dict
from ami_engine.adapters.event_file import decode_event_file
from ami_engine.adapters.feed_reader import FeedReader
from ami_engine.adapters.json_faults import read_object
from ami_engine.errors import ConfigError, EventError
from ami_engine.events import BookSnapshot, MarketEvent, Trade
from ami_engine.units import NS_PER_MS, Instrument

__all__ = ["JsonlReader"]

_NAN = math.nan  # JSON cannot say NaN, so a typed field that is NaN is one that was absent
_Pairs: TypeAlias = list[tuple[float, float]]
_LINES_PEEKED = 10
# How the first line of a file that we wrote begins.
_DESCRIPTION, _DESCRIPTION_WITHIN = b'"type":"ami_events"', 24
_MAX_TIME_MS = (2**63 - 1) // NS_PER_MS


class _Times(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    symbol: str = ""
    seq: int = 0
    ts_ns: int = 0
    ts_ms: int = 0
    timestamp_ms: int = 0
    exch_ts_ns: int = 0
    recv_ts_ns: int = 0
    type: str = ""


class _Quote(_Times, gc=False):
    bid: float = _NAN
    ask: float = _NAN
    bid_depth: float = _NAN
    ask_depth: float = _NAN
    bids: _Pairs = []
    asks: _Pairs = []


class _Print(_Times, gc=False):
    price: float = _NAN
    size: float = _NAN
    aggressor: int = 0


_decode_quote = msgspec.json.Decoder(_Quote).decode
_decode_print = msgspec.json.Decoder(_Print).decode


class JsonlReader(FeedReader):
    """Read events from JSON lines (plain or gzip).

    A line without any time gets 1 ms for the first event and one more for each next. A file that we wrote says in its
    first line what it is.

    Parameters
    ----------
    path : str or Path
        The file.
    symbol : str, optional
        Only this symbol is read; lines without a symbol get this one.
    instruments : Mapping, optional
        What is declared of the instruments.

    Raises
    ------
    ConfigError
        When the file cannot be read or holds no JSON objects.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "quotes.jsonl")
    ...     _ = path.write_text('{"bid": 0.49, "ask": 0.51, "ts_ms": 7}\\n')
    ...     reader = JsonlReader(path, symbol="X")
    ...     reader.next_event().recv_ts_ns
    ...     reader.close()
    7000000
    """

    def __init__(
        self, path: str | Path, *, symbol: str | None = None, instruments: Mapping[str, Instrument] | None = None
    ) -> None:
        self._stream = LineStream(path)
        super().__init__(self._stream.path, symbol=symbol, instruments=instruments)
        head = [line for line in self._stream.peek_lines(_LINES_PEEKED) if line.strip()]
        if head and not any(line.lstrip()[:1] == b"{" for line in head):
            self._stream.close()
            is_list = head[0].lstrip()[:1] == b"["
            hint = "; it is a list: write each of its objects on a line of its own" if is_list else ""
            raise ConfigError(f"{self._stream.path}: is not JSON lines: none of its first lines is an object{hint}")
        if head and _DESCRIPTION in head[0][:_DESCRIPTION_WITHIN]:
            self._stream.next_line()
            try:
                self._take(decode_event_file(head[0]))
            except ConfigError as error:
                self._stream.close()
                raise ConfigError(f"{self._stream.path}: {error}") from None
        self._events_read = 0

    def next_event(self) -> MarketEvent | None:
        """Return the next event; None at the end. EventError names file, line and field."""
        stream = self._stream
        while True:
            line = stream.next_line()
            if line is None:
                self._check_symbol_was_seen(stream.position)
                return None
            if not line or line.isspace():
                continue
            try:
                event = self._read_line(line)
            except EventError as error:
                raise error.at(self.source_name, stream.position) from None
            if self.symbol and self._is_other_symbol(event.symbol):
                continue
            self._events_read += 1
            return event

    def _read_line(self, line: bytes) -> MarketEvent:
        event: MarketEvent | None = _read_quote(line) if b'"price"' not in line else _read_print(line)
        if event is None:
            fallback = (self._events_read + 1) * NS_PER_MS
            return event_from_dict(read_object(line), fallback_ts_ns=fallback, symbol=self.symbol)
        if self.symbol and not event.symbol:
            return msgspec.structs.replace(event, symbol=self.symbol)
        return event

    def place(self) -> tuple[str, int]:
        """Return the file's base name and the line last read."""
        return self.source_name, self._stream.position

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def _read_quote(line: bytes) -> BookSnapshot | None:
    """Decode the common form of a book in one go; None leaves the line to the dict path, which also names faults."""
    try:
        quote = _decode_quote(line)
    except msgspec.DecodeError:
        return None
    times = _times(quote)
    if times is None or (quote.type and quote.type != "book_snapshot"):
        return None
    bid, ask, bid_depth, ask_depth = quote.bid, quote.ask, quote.bid_depth, quote.ask_depth
    bids, asks = quote.bids, quote.asks
    if bids or asks:
        best_bid, best_ask = bids[0] if bids else (bid, bid_depth), asks[0] if asks else (ask, ask_depth)
        bid, ask = best_bid[0] if bid != bid else bid, best_ask[0] if ask != ask else ask
        if (bids and bid != best_bid[0]) or (asks and ask != best_ask[0]):
            return None
        bid_depth = best_bid[1] if bid_depth != bid_depth else bid_depth
        ask_depth = best_ask[1] if ask_depth != ask_depth else ask_depth
    elif bid != bid and ask != ask:
        return None
    return BookSnapshot(
        times[0],
        times[1],
        quote.symbol,
        quote.seq,
        bid if bid == bid else 0.0,
        ask if ask == ask else 0.0,
        bid_depth if bid_depth == bid_depth else 0.0,
        ask_depth if ask_depth == ask_depth else 0.0,
        bids or (),
        asks or (),
    )


def _read_print(line: bytes) -> Trade | None:
    """Decode the common form of a trade in one go; None leaves the line to the dict path."""
    try:
        trade = _decode_print(line)
    except msgspec.DecodeError:
        return None
    times = _times(trade)
    if times is None or not -1 <= trade.aggressor <= 1 or (trade.type and trade.type != "trade"):
        return None
    if trade.price != trade.price or trade.size != trade.size:
        return None
    return Trade(times[0], times[1], trade.symbol, trade.seq, trade.price, trade.size, trade.aggressor)


def _times(wire: _Times) -> tuple[int, int] | None:
    """Return (exch_ts_ns, recv_ts_ns), None when they want the dict path's care."""
    exch, recv = wire.exch_ts_ns, wire.recv_ts_ns
    ts_ns, ts_ms = wire.ts_ns, wire.ts_ms or wire.timestamp_ms
    if exch < 0 or recv < 0 or ts_ns < 0 or not 0 <= ts_ms <= _MAX_TIME_MS:
        return None
    both = ts_ns or ts_ms * NS_PER_MS
    if both:
        return exch or both, recv or both
    return (exch, recv) if exch or recv else None
