"""Databento DBN files: market by order and by price, trades and bars, versions 1 to 3, zstd or plain.

Decoded by `databento_dbn.DBNDecoder` in chunks; the fields are then read from the record's bytes, whose layout the DBN
specification fixes and all versions share for these records: one unpack in place of ten attribute look-ups.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from datetime import date as Date
from pathlib import Path
from typing import Any

from ami_engine.adapters.byte_stream import open_for_reading
from ami_engine.adapters.feed_reader import FeedReader
from ami_engine.adapters.zstd_frame import ZstdFrameWalker
from ami_engine.book import MboBook
from ami_engine.errors import BackendError, ConfigError, EventError
from ami_engine.events import Bar, BookSnapshot, MarketEvent, Trade
from ami_engine.units import NS_PER_S, Instrument

__all__ = ["SCHEMAS", "DbnReader"]

SCHEMAS = ("mbo", "mbp-1", "mbp-10", "tbbo", "trades", "ohlcv-1s", "ohlcv-1m", "ohlcv-1h", "ohlcv-1d")

_DBN_MAGIC = b"DBN"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_CHUNK_BYTES = 1 << 14
_METADATA_BYTES = 1 << 24
_PRICE_SCALE = 1_000_000_000
_UNDEFINED_PRICE = 2**63 - 1
_F_LAST = 128
_NO_CHANGE = (b"F", b"N")
_PRICED = (b"A", b"M")
_AGGRESSORS = {b"B": 1, b"A": -1, b"N": 0}
_RTYPE_TRADE, _RTYPE_MBP_1, _RTYPE_MBP_10, _RTYPE_MBO = 0x00, 0x01, 0x0A, 0xA0
# A bar is stamped at its open, and known when it is over.
_BAR_NS = {0x20: NS_PER_S, 0x21: 60 * NS_PER_S, 0x22: 3_600 * NS_PER_S, 0x23: 86_400 * NS_PER_S}
_RTYPE_SYMBOL, _RTYPE_SYSTEM = 0x16, 0x17

# Times are read as signed, so that an undefined one (all bits set) is -1 and not a year in the far future.
# length, rtype, publisher, instrument, ts_event | order, price, size, flags, channel, action, side, ts_recv, delta, seq
_MBO = struct.Struct("<BBHIqQqIBBccqiI")
# ... | price, size, action, side, flags, depth, ts_recv, ts_in_delta, sequence
_TRADE = struct.Struct("<BBHIqqIccBBqiI")
_LEVEL = "qqIIII"  # bid price, ask price, bid size, ask size, bid count, ask count
_MBP_1 = struct.Struct("<BBHIqqIccBBqiI" + _LEVEL)
_MBP_10 = struct.Struct("<BBHIqqIccBBqiI" + _LEVEL * 10)
_FIRST_LEVEL = 14
# length, rtype, publisher, instrument, ts_event | open, high, low, close, volume
_OHLCV = struct.Struct("<BBHIqqqqqQ")

# The order book counts in units of 1e-8: exact for every tick in use, and below the book's 1e14 up to a price of 1e6.
_FIXED_PER_BOOK_UNIT = 10
_BOOK_SCALE = 100_000_000


class DbnReader(FeedReader):
    """Read a Databento DBN file.

    `mbp-1` and `mbp-10` records are `BookSnapshot` events, with a `Trade` before those of action T; `tbbo` records are
    a `BookSnapshot` of the best prices just before a trade, and that `Trade`; `trades` records are `Trade` events;
    `ohlcv` records are `Bar` events, known when they are over (``ts_event`` is their beginning); `mbo` records go into
    an order book of their instrument, which is a `BookSnapshot` of its best `levels` at the end of each packet (flag
    F_LAST), and those of action T are `Trade` events. Undefined prices and zero sizes are missing levels, never prices.
    `recv_ts_ns` is ``ts_recv``, `exch_ts_ns` is ``ts_event``.

    Parameters
    ----------
    path : str or Path
        The file, zstd or plain.
    symbol : str, optional
        Only this symbol is read.
    instruments : Mapping, optional
        What is declared of the instruments; the files do not say their tick sizes.
    levels : int
        Levels of a snapshot made of market-by-order records, >= 1.

    Raises
    ------
    ConfigError
        When the file cannot be read, is no DBN, or holds another schema.
    BackendError
        When `databento_dbn` is not installed.
    """

    snapshots_only = True

    def __init__(
        self,
        path: str | Path,
        *,
        symbol: str | None = None,
        instruments: Mapping[str, Instrument] | None = None,
        levels: int = 10,
    ) -> None:
        if levels < 1:
            raise ConfigError(f"`levels` must be at least 1, was {levels}")
        super().__init__(open_for_reading(path), symbol=symbol, instruments=instruments)
        self._chunks = _DbnChunks(Path(path))
        self.metadata = self._chunks.metadata
        schema = self.metadata.schema  # None in live captures, which may hold several
        if schema is not None and str(schema) not in SCHEMAS:
            self.close()
            raise ConfigError(f"{path}: holds schema {str(schema)!r}; what can be read is {', '.join(SCHEMAS)}")
        self._levels = levels
        self._symbols = _SymbolTable(self.metadata)
        self._known_symbols = self._symbols.known()
        self._books: dict[int, Any] = {}
        self._records: list[Any] = []
        self._at = 0
        self._position = 0
        self._ready: deque[MarketEvent] = deque()
        self._readers: dict[int, Callable[[bytes], MarketEvent | None]] = {
            _RTYPE_MBO: self._read_mbo,
            _RTYPE_MBP_1: self._read_mbp_1,
            _RTYPE_MBP_10: self._read_mbp_10,
            _RTYPE_TRADE: self._read_trade,
            **dict.fromkeys(_BAR_NS, self._read_bar),
        }
        # In `tbbo` the best prices are those before the trade, in `mbp-1` those after it.
        self._book_is_before = schema is not None and str(schema) == "tbbo"

    def next_event(self) -> MarketEvent | None:
        """Return the next event; None at the end. EventError names file, record and field."""
        if self._ready:
            return self._ready.popleft()
        while True:
            if self._at == len(self._records):
                self._at = 0
                try:
                    self._records = self._chunks.next_records()
                except EventError as error:
                    self._records = []
                    raise error.at(self.source_name, self._position + 1) from None
                if not self._records:
                    self._check_symbol_was_seen(self._position)
                    return None
            record = self._records[self._at]
            self._at += 1
            self._position += 1
            try:
                event = self._read(record)
            except EventError as error:
                raise error.at(self.source_name, self._position) from None
            if event is not None:
                return event

    def place(self) -> tuple[str, int]:
        """Return the file's base name and the record last read."""
        return self.source_name, self._position

    def close(self) -> None:
        """Close the file."""
        self._chunks.close()

    def _read(self, record: Any) -> MarketEvent | None:
        data = bytes(record)
        read = self._readers.get(data[1])
        if read is not None:
            return read(data)
        if data[1] == _RTYPE_SYMBOL:
            self._symbols.add_live(record)
            return None
        if data[1] == _RTYPE_SYSTEM:  # heartbeats of a live session
            return None
        raise EventError(
            f"record type {type(record).__name__} is neither book nor trade", reason="unknown_kind", field="rtype"
        )

    def _read_trade(self, data: bytes) -> Trade | None:
        _, _, _, instrument, event_ns, price, size, _, side, _, _, recv_ns, _, seq = _TRADE.unpack_from(data)
        symbol = self._symbols.name(instrument, recv_ns)
        if self.symbol and self._is_other_symbol(symbol):
            return None
        return _trade(event_ns, recv_ns, symbol, seq, price, size, side)

    def _read_mbp_1(self, data: bytes) -> MarketEvent | None:
        fields = _MBP_1.unpack_from(data)
        _, _, _, instrument, event_ns, price, size, action, side, _, _, recv_ns, _, seq = fields[:_FIRST_LEVEL]
        symbol = self._symbols.name(instrument, recv_ns)
        if self.symbol and self._is_other_symbol(symbol):
            return None
        bid, ask, bid_size, ask_size = fields[_FIRST_LEVEL : _FIRST_LEVEL + 4]
        if bid == _UNDEFINED_PRICE or bid_size == 0:
            bid = bid_size = 0
        if ask == _UNDEFINED_PRICE or ask_size == 0:
            ask = ask_size = 0
        snapshot = BookSnapshot(
            max(event_ns, 0),
            recv_ns,
            symbol,
            seq,
            bid / _PRICE_SCALE,
            ask / _PRICE_SCALE,
            float(bid_size),
            float(ask_size),
        )
        if action != b"T":
            return snapshot
        # The book goes out even where the trade cannot be read.
        self._ready.append(snapshot)
        trade = _trade(event_ns, recv_ns, symbol, seq, price, size, side)
        if not self._book_is_before:
            return trade
        self._ready.append(trade)
        return self._ready.popleft()

    def _read_bar(self, data: bytes) -> Bar | None:
        _, rtype, _, instrument, begin_ns, *prices, volume = _OHLCV.unpack_from(data)
        symbol = self._symbols.name(instrument, begin_ns)
        if self.symbol and self._is_other_symbol(symbol):
            return None
        if _UNDEFINED_PRICE in prices:
            raise EventError("a price of a bar is undefined", reason="missing_field", field="close")
        known_ns = begin_ns + _BAR_NS[rtype]
        open_, high, low, close = (price / _PRICE_SCALE for price in prices)
        return Bar(known_ns, known_ns, symbol, 0, open_, high, low, close, float(volume))

    def _read_mbp_10(self, data: bytes) -> MarketEvent | None:
        fields = _MBP_10.unpack_from(data)
        _, _, _, instrument, event_ns, price, size, action, side, _, _, recv_ns, _, seq = fields[:_FIRST_LEVEL]
        symbol = self._symbols.name(instrument, recv_ns)
        if self.symbol and self._is_other_symbol(symbol):
            return None
        bids = _levels(fields[_FIRST_LEVEL::6], fields[_FIRST_LEVEL + 2 :: 6])
        asks = _levels(fields[_FIRST_LEVEL + 1 :: 6], fields[_FIRST_LEVEL + 3 :: 6])
        bid, bid_depth = bids[0] if bids else (0.0, 0.0)
        ask, ask_depth = asks[0] if asks else (0.0, 0.0)
        snapshot = BookSnapshot(max(event_ns, 0), recv_ns, symbol, seq, bid, ask, bid_depth, ask_depth, bids, asks)
        if action != b"T":
            return snapshot
        self._ready.append(snapshot)
        return _trade(event_ns, recv_ns, symbol, seq, price, size, side)

    def _read_mbo(self, data: bytes) -> MarketEvent | None:
        _, _, _, instrument, event_ns, order, price, size, flags, _, action, side, recv_ns, _, seq = _MBO.unpack_from(
            data
        )
        symbol = self._symbols.name(instrument, recv_ns)
        if self.symbol and self._is_other_symbol(symbol):
            return None
        book = self._books.get(instrument)
        if book is None:
            book = self._books[instrument] = MboBook(1.0, self._levels)
        trade = None
        if action == b"T":
            trade = _trade(event_ns, recv_ns, symbol, seq, price, size, side)
        elif action not in _NO_CHANGE:
            self._apply(book, action, side, order, price, size, flags, (event_ns, recv_ns, symbol, seq))
        if not flags & _F_LAST:
            return trade
        snapshot = self._top(book, event_ns, recv_ns, symbol, seq)
        if trade is None:
            return snapshot
        self._ready.append(snapshot)
        return trade

    def _apply(
        self,
        book: Any,
        action: bytes,
        side: bytes,
        order: int,
        price: int,
        size: int,
        flags: int,
        stamp: tuple[int, int, str, int],
    ) -> None:
        """Change the book; a refused record that ends its packet still lets the packet's book go out after it."""
        in_units = price / _FIXED_PER_BOOK_UNIT if action in _PRICED else 0.0
        try:
            book.apply(action.decode("latin-1"), side.decode("latin-1"), order, in_units, float(size))
        except EventError:
            if flags & _F_LAST:
                self._ready.append(self._top(book, *stamp))
            raise

    def _top(self, book: Any, event_ns: int, recv_ns: int, symbol: str, seq: int) -> BookSnapshot:
        bids, asks = book.top(self._levels)
        bids[:, 0] /= _BOOK_SCALE
        asks[:, 0] /= _BOOK_SCALE
        bid, bid_depth = bids[0].tolist() if len(bids) else (0.0, 0.0)
        ask, ask_depth = asks[0].tolist() if len(asks) else (0.0, 0.0)
        return BookSnapshot(max(event_ns, 0), recv_ns, symbol, seq, bid, ask, bid_depth, ask_depth, bids, asks)


class _DbnChunks:
    """The file's metadata, then its records in lists, decoded chunk by chunk."""

    def __init__(self, path: Path) -> None:
        dbn = _import_dbn()
        self._file = path.open("rb")
        magic = self._file.read(4)
        self._file.seek(0)
        is_zstd = magic == _ZSTD_MAGIC
        if not is_zstd and magic[:3] != _DBN_MAGIC:
            self._file.close()
            raise ConfigError(f"{path}: is not a DBN file: it begins neither as DBN nor as zstd")
        self._walker = ZstdFrameWalker() if is_zstd else None
        self._decoder = dbn.DBNDecoder(compression=dbn.Compression.ZSTD if is_zstd else dbn.Compression.NONE)
        self._is_done = False
        self._first: list[Any] = []
        self.metadata = self._read_metadata(path)

    def next_records(self) -> list[Any]:
        """Return the next records; empty at the end. EventError (truncated, malformed) once where it is damaged."""
        if self._first:
            records, self._first = self._first, []
            return records
        while not self._is_done:
            chunk = self._file.read(_CHUNK_BYTES)
            if not chunk:
                self._finish()
                break
            records = self._decode(chunk)
            if records:
                return records
        return []

    def close(self) -> None:
        self._file.close()
        self._is_done = True
        self._first = []

    def _read_metadata(self, path: Path) -> Any:
        for _ in range(_METADATA_BYTES // _CHUNK_BYTES):
            chunk = self._file.read(_CHUNK_BYTES)
            if not chunk:
                break
            try:
                items = self._decode(chunk)
            except EventError as error:
                raise ConfigError(f"{path}: is not a DBN file: {error.message}") from None
            if items:
                self._first = items[1:]
                return items[0]
        self._file.close()
        raise ConfigError(f"{path}: is not a whole DBN file: it ends within its metadata")

    def _decode(self, chunk: bytes) -> list[Any]:
        try:
            if self._walker is not None:
                self._walker.feed(chunk)
            return self._decoder.write_and_decode(chunk)  # type: ignore[no-any-return]
        except Exception as error:  # the decoder is foreign code and raises several kinds
            self.close()
            raise EventError(f"cannot be decoded from here on: {error}", reason="malformed") from None

    def _finish(self) -> None:
        """Tell a file that ends between two records from one that was cut."""
        self._is_done = True
        self._file.close()
        if self._walker is not None and not self._walker.is_complete:
            raise EventError("zstd stream is cut: the file is not whole", reason="truncated")
        if self._decoder.buffer():
            raise EventError("the file ends within a record: it is not whole", reason="truncated")


class _SymbolTable:
    """Names of instrument ids, by the day where an id had several, from the metadata and from mapping records."""

    def __init__(self, metadata: Any) -> None:
        self._names: dict[int, str] = {}
        self._changing: dict[int, tuple[list[int], list[str]]] = {}
        intervals: dict[int, list[tuple[int, str]]] = {}
        maps_from_id = str(metadata.stype_in) == "instrument_id"
        for key, mapped in metadata.mappings.items():
            for interval in mapped:
                name, number = (interval["symbol"], key) if maps_from_id else (key, interval["symbol"])
                if number.isdigit():
                    intervals.setdefault(int(number), []).append((_day_ns(interval["start_date"]), name))
        for instrument, spans in intervals.items():
            spans.sort()
            if len({name for _, name in spans}) == 1:
                self._names[instrument] = spans[0][1]
            else:
                self._changing[instrument] = ([start for start, _ in spans], [name for _, name in spans])

    def name(self, instrument: int, ts_ns: int) -> str:
        """Return the symbol of an instrument id at a time; the id itself where nothing names it."""
        name = self._names.get(instrument)
        if name is not None:
            return name
        spans = self._changing.get(instrument)
        if spans is not None:
            return spans[1][max(0, bisect_right(spans[0], ts_ns) - 1)]
        return self._names.setdefault(instrument, str(instrument))

    def known(self) -> set[str]:
        """Return every name that the metadata give."""
        return {*self._names.values(), *(name for _, names in self._changing.values() for name in names)}

    def add_live(self, record: Any) -> None:
        """Take a mapping record, which live captures carry in place of metadata."""
        self._names[record.instrument_id] = record.stype_out_symbol


def _import_dbn() -> Any:
    try:
        import databento_dbn
    except ImportError:
        raise BackendError("reading DBN files needs databento_dbn: pip install 'mdm-engine[data]'") from None
    return databento_dbn


def _day_ns(day: Date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * NS_PER_S


def _trade(event_ns: int, recv_ns: int, symbol: str, seq: int, price: int, size: int, side: bytes) -> Trade:
    if price == _UNDEFINED_PRICE:
        raise EventError("`price` of a trade is undefined", reason="missing_field", field="price")
    return Trade(max(event_ns, 0), recv_ns, symbol, seq, price / _PRICE_SCALE, float(size), _AGGRESSORS.get(side, 0))


def _levels(prices: tuple[int, ...], sizes: tuple[int, ...]) -> list[tuple[float, float]]:
    """Return the levels that are there: an undefined price or a size of zero is none."""
    return [
        (price / _PRICE_SCALE, float(size))
        for price, size in zip(prices, sizes, strict=True)
        if size > 0 and price != _UNDEFINED_PRICE
    ]
