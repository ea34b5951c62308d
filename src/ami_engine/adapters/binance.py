"""Raw Binance captures: spot, USD-M and COIN-M, told apart by what their messages hold.

One line is ``<local receive time, ns> <JSON>``, the JSON being a message of a combined or a single stream, or the
answer of the REST depth call. Depth messages from before the snapshot are held and let go after it, as the venue's
procedure for a local order book says (developers.binance.com: "How to manage a local order book correctly").
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from ami_engine.adapters.byte_stream import LineStream
from ami_engine.adapters.feed_reader import FeedReader
from ami_engine.adapters.json_faults import refusal
from ami_engine.errors import ConfigError, EventError
from ami_engine.events import BookDelta, BookSnapshot, BookTicker, FeedGap, MarketEvent, Trade
from ami_engine.units import NS_PER_MS, Instrument

# Absent where there is no compiler: msgspec reads every message then.
_core: Any
try:
    _core = import_module("ami_engine._core")
except ImportError:
    _core = None

__all__ = ["MAX_HELD_DELTAS", "BinanceReader"]

# The captures hold 2 to 25 depth messages before their snapshot; at 10 a second this is a quarter of an hour of spot.
MAX_HELD_DELTAS = 10_000
_LINES_PEEKED = 200
_STREAM_NAME_BYTES = 96

_Pairs: TypeAlias = list[tuple[float, float]]


class _Depth(msgspec.Struct, gc=False):
    s: str
    U: int
    u: int
    b: _Pairs
    a: _Pairs
    E: int = 0
    T: int = 0
    pu: int = -1
    ps: str = ""


class _Ticker(msgspec.Struct, gc=False):
    s: str
    u: int
    b: float
    B: float
    a: float
    A: float
    E: int = 0
    T: int = 0


class _Print(msgspec.Struct, gc=False):
    s: str
    t: int
    p: float
    q: float
    m: bool
    E: int = 0
    T: int = 0


class _RestDepth(msgspec.Struct, gc=False):
    lastUpdateId: int
    bids: _Pairs
    asks: _Pairs
    E: int = 0
    T: int = 0
    symbol: str = ""


class _DepthMessage(msgspec.Struct, gc=False):
    data: _Depth


class _TickerMessage(msgspec.Struct, gc=False):
    data: _Ticker


class _PrintMessage(msgspec.Struct, gc=False):
    data: _Print


class _Kind(msgspec.Struct):
    e: str = ""
    stream: str = ""
    u: int | None = None
    b: object = None


# Numbers come as strings ("58710.20"): lax decoding turns them into floats without a Python loop.
_decode_depth = msgspec.json.Decoder(_DepthMessage, strict=False).decode
_decode_ticker = msgspec.json.Decoder(_TickerMessage, strict=False).decode
_decode_print = msgspec.json.Decoder(_PrintMessage, strict=False).decode
_decode_bare_depth = msgspec.json.Decoder(_Depth, strict=False).decode
_decode_bare_ticker = msgspec.json.Decoder(_Ticker, strict=False).decode
_decode_bare_print = msgspec.json.Decoder(_Print, strict=False).decode
_decode_rest = msgspec.json.Decoder(_RestDepth, strict=False).decode
_decode_kind = msgspec.json.Decoder(_Kind, strict=False).decode


class _Market:
    """What the reader keeps for one symbol: whether its book was seeded, and the deltas that wait for it."""

    __slots__ = ("gap_was_told", "has_snapshot", "held", "venue")

    def __init__(self, venue: str) -> None:
        self.venue = venue
        self.has_snapshot = False
        self.gap_was_told = False
        self.held: deque[BookDelta] = deque(maxlen=MAX_HELD_DELTAS)


class BinanceReader(FeedReader):
    """Read a raw Binance capture (plain or gzip).

    `exch_ts_ns` is the matching engine's time (``T``), else the event's (``E``), else 0: spot book tickers carry none.
    A delta's `prev_seq` is ``pu`` on futures and ``U`` − 1 on spot. Deltas wait for the snapshot, at most
    `MAX_HELD_DELTAS` of a symbol: beyond, the oldest go, and a `FeedGap` says so once. Tickers and trades do not wait.

    Parameters
    ----------
    path : str or Path
        The capture.
    symbol : str, optional
        Only this symbol is read. It also names a snapshot that carries no symbol, as spot and USD-M snapshots do.
    instruments : Mapping, optional
        What is declared of the instruments.

    Attributes
    ----------
    dropped_deltas : int
        Deltas that were older than their snapshot, as the venue's procedure has them dropped.
    skipped : Counter
        Lines that carry no event: answers to subscriptions.
    venues : dict
        "spot", "usdm" or "coinm" by symbol, for the symbols whose deltas were seen.

    Raises
    ------
    ConfigError
        When the file cannot be read or is no such capture.
    """

    unique_seq = frozenset({"ticker", "trade"})

    def __init__(
        self, path: str | Path, *, symbol: str | None = None, instruments: Mapping[str, Instrument] | None = None
    ) -> None:
        self._stream = LineStream(path)
        super().__init__(self._stream.path, symbol=symbol, instruments=instruments)
        head = self._stream.peek_lines(_LINES_PEEKED)
        if head and not any(_is_capture_line(line) for line in head):
            self._stream.close()
            raise ConfigError(
                f"{self._stream.path}: is not a raw Binance capture: no line has the form '<local ns> <JSON>'"
            )
        self.dropped_deltas = 0
        self.skipped: Counter[str] = Counter()
        self._markets: dict[str, _Market] = {}
        self._ready: deque[MarketEvent] = deque()
        self._known_symbols = {symbol} if symbol else _symbols_of(head)
        self._unseeded_were_told = False
        # The compiled reader takes the venue's usual spelling; msgspec takes, or refuses, every other one.
        self._read_usual = _core.DepthReader().read if _core is not None else None
        self._readers: dict[bytes, Callable[[int, bytes], MarketEvent | None]] = {
            b"@dep": self._read_depth,
            b"@boo": self._read_ticker,
            b"@tra": self._read_trade,
        }

    @property
    def venues(self) -> dict[str, str]:
        """The market each symbol's deltas come from: "spot", "usdm" or "coinm"."""
        return {symbol: market.venue for symbol, market in self._markets.items() if market.venue}

    def next_event(self) -> MarketEvent | None:
        """Return the next event; None at the end. EventError names file, line and field."""
        if self._ready:
            return self._ready.popleft()
        stream = self._stream
        while True:
            line = stream.next_line()
            if line is None:
                self._report_at_end()
                return None
            if not line:
                continue
            try:
                event = self._read_line(line)
            except msgspec.DecodeError as error:
                fault = refusal(line[line.find(b" ") + 1 :], error)
                raise fault.at(self.source_name, stream.position) from None
            except EventError as error:
                raise error.at(self.source_name, stream.position) from None
            if event is not None:
                return event
            if self._ready:
                return self._ready.popleft()

    def place(self) -> tuple[str, int]:
        """Return the file's base name and the line last read."""
        return self.source_name, self._stream.position

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _read_line(self, line: bytes) -> MarketEvent | None:
        """Choose the decoder by the stream's name, which stands within the first bytes, or by what is there instead."""
        blank = line.find(b" ", 0, 21)
        if blank < 1 or not line[:blank].isdigit():
            raise EventError(
                "a line must begin with the local time in ns and a blank", reason="bad_columns", field="recv_ts_ns"
            )
        recv_ts_ns = int(line[:blank])
        payload = line[blank + 1 :]
        if payload.startswith(b'{"stream":'):
            at = payload.find(b"@", 0, _STREAM_NAME_BYTES)
            read = self._readers.get(payload[at : at + 4])
            if read is not None:
                return read(recv_ts_ns, payload)
            return self._read_unusual(recv_ts_ns, payload)
        return self._read_bare(recv_ts_ns, payload)

    def _read_ticker(self, recv_ts_ns: int, payload: bytes) -> BookTicker | None:
        return self._ticker(recv_ts_ns, _decode_ticker(payload).data)

    def _ticker(self, recv_ts_ns: int, tick: _Ticker) -> BookTicker | None:
        symbol, bid, ask, bid_size, ask_size = tick.s, tick.b, tick.a, tick.B, tick.A
        total = bid + ask + bid_size + ask_size
        if total - total != 0.0:
            _refuse_non_finite(tick, ("b", "a", "B", "A"))
        if self.symbol and self._is_other_symbol(symbol):
            return None
        exch_ts_ns = (tick.T or tick.E) * NS_PER_MS
        return BookTicker(exch_ts_ns, recv_ts_ns, symbol, tick.u, bid, ask, bid_size, ask_size)

    def _read_trade(self, recv_ts_ns: int, payload: bytes) -> Trade | None:
        return self._trade(recv_ts_ns, _decode_print(payload).data)

    def _trade(self, recv_ts_ns: int, trade: _Print) -> Trade | None:
        price, size = trade.p, trade.q
        total = price + size
        if total - total != 0.0:
            _refuse_non_finite(trade, ("p", "q"))
        if self.symbol and self._is_other_symbol(trade.s):
            return None
        exch_ts_ns = (trade.T or trade.E) * NS_PER_MS
        # m: the buyer was the maker, so the seller took.
        return Trade(exch_ts_ns, recv_ts_ns, trade.s, trade.t, price, size, -1 if trade.m else 1)

    def _read_depth(self, recv_ts_ns: int, payload: bytes) -> MarketEvent | None:
        if self._read_usual is not None:
            usual = self._read_usual(payload)
            if usual is not None:
                return self._delta(recv_ts_ns, *usual)
        return self._depth(recv_ts_ns, _decode_depth(payload).data)

    def _depth(self, recv_ts_ns: int, depth: _Depth) -> MarketEvent | None:
        exch_ms = depth.T or depth.E
        return self._delta(recv_ts_ns, depth.s, depth.U, depth.u, depth.pu, bool(depth.ps), exch_ms, depth.b, depth.a)

    def _delta(
        self,
        recv_ts_ns: int,
        symbol: str,
        first_seq: int,
        seq: int,
        prev_seq: int,
        has_pair: bool,
        exch_ms: int,
        bids: Any,
        asks: Any,
    ) -> MarketEvent | None:
        if self.symbol and self._is_other_symbol(symbol):
            return None
        market = self._markets.get(symbol)
        if market is None:
            market = self._markets[symbol] = _Market("")
        if not market.venue:
            market.venue = "spot" if prev_seq < 0 else ("coinm" if has_pair else "usdm")
        if prev_seq < 0:
            prev_seq = first_seq - 1
        delta = BookDelta(exch_ms * NS_PER_MS, recv_ts_ns, symbol, seq, first_seq, prev_seq, bids, asks)
        return delta if market.has_snapshot else self._hold(market, delta)

    def _hold(self, market: _Market, delta: BookDelta) -> FeedGap | None:
        """Keep a delta until its snapshot comes; the oldest go first, since a snapshot needs the latest."""
        is_full = len(market.held) == MAX_HELD_DELTAS
        market.held.append(delta)
        if not is_full or market.gap_was_told:
            return None
        market.gap_was_told = True
        return FeedGap(delta.exch_ts_ns, delta.recv_ts_ns, delta.symbol, delta.seq, 0, "no_snapshot")

    def _read_rest(self, recv_ts_ns: int, payload: bytes) -> MarketEvent | None:
        """Seed, or seed anew, a symbol's book, and let go the deltas that waited for it."""
        rest = _decode_rest(payload)
        symbol = rest.symbol or self._symbol_of_snapshot()
        if self.symbol and self._is_other_symbol(symbol):
            return None
        market = self._markets.get(symbol)
        if market is None:
            market = self._markets[symbol] = _Market("")
        market.has_snapshot = True
        self._release(market, rest.lastUpdateId, recv_ts_ns)
        bid, bid_depth = rest.bids[0] if rest.bids else (0.0, 0.0)
        ask, ask_depth = rest.asks[0] if rest.asks else (0.0, 0.0)
        return BookSnapshot(
            (rest.T or rest.E) * NS_PER_MS,
            recv_ts_ns,
            symbol,
            rest.lastUpdateId,
            bid,
            ask,
            bid_depth,
            ask_depth,
            rest.bids,
            rest.asks,
        )

    def _release(self, market: _Market, last_update_id: int, recv_ts_ns: int) -> None:
        """Queue the held deltas that the snapshot does not already hold, at the snapshot's time: time goes not back."""
        # Spot: "drop any event where u <= lastUpdateId"; futures: "... where u < lastUpdateId".
        oldest = last_update_id + 1 if market.venue == "spot" else last_update_id
        for delta in market.held:
            if delta.seq < oldest:
                self.dropped_deltas += 1
            else:
                self._ready.append(msgspec.structs.replace(delta, recv_ts_ns=recv_ts_ns))
        market.held.clear()
        market.gap_was_told = False

    def _symbol_of_snapshot(self) -> str:
        """Name a snapshot that carries no symbol: the one asked for, or the only one in the capture."""
        if self.symbol:
            return self.symbol
        known = self._markets.keys() | self._known_symbols
        if len(known) == 1:
            return next(iter(known))
        held = ", ".join(sorted(known)) or "none"
        raise EventError(
            f"the snapshot names no symbol and the capture holds {held}: pass `symbol`",
            reason="missing_field",
            field="symbol",
        )

    def _read_bare(self, recv_ts_ns: int, payload: bytes) -> MarketEvent | None:
        """Read what stands in no stream envelope: a REST answer, a single stream's message, a subscription's answer."""
        if b'"lastUpdateId"' in payload[:64]:
            return self._read_rest(recv_ts_ns, payload)
        kind = _decode_kind(payload)
        if kind.e == "depthUpdate":
            return self._depth(recv_ts_ns, _decode_bare_depth(payload))
        if kind.e == "trade":
            return self._trade(recv_ts_ns, _decode_bare_print(payload))
        if kind.e == "bookTicker" or (not kind.e and kind.u is not None and kind.b is not None):
            return self._ticker(recv_ts_ns, _decode_bare_ticker(payload))
        if b'"result"' in payload[:16]:
            self.skipped["subscription"] += 1
            return None
        if kind.stream:
            return self._read_unusual(recv_ts_ns, payload)
        raise EventError(f"event {kind.e!r} is neither book nor trade", reason="unknown_kind", field="e")

    def _read_unusual(self, recv_ts_ns: int, payload: bytes) -> MarketEvent | None:
        """Refuse a stream that is neither book nor trade, by its name; broken JSON is reported as such."""
        stream = _decode_kind(payload).stream
        raise EventError(f"stream {stream!r} is neither book nor trade", reason="unknown_kind", field="stream")

    def _report_at_end(self) -> None:
        """Report, once each, a symbol that was never found and deltas that no snapshot ever let go."""
        position = self._stream.position
        self._check_symbol_was_seen(position)
        if self._unseeded_were_told:
            return
        self._unseeded_were_told = True
        held = {symbol: len(market.held) for symbol, market in self._markets.items() if market.held}
        if held:
            counts = ", ".join(f"{count} of {symbol}" for symbol, count in sorted(held.items()))
            raise EventError(
                f"depth messages without a snapshot were not emitted: {counts}",
                reason="no_snapshot",
                field="lastUpdateId",
                source=self.source_name,
                position=position,
            )


def _is_capture_line(line: bytes) -> bool:
    stamp, _, payload = line.partition(b" ")
    return stamp.isdigit() and payload.startswith(b"{")


def _symbols_of(lines: list[bytes]) -> set[str]:
    """Return the symbols that the first lines name, so that a snapshot before any message can be named too."""
    symbols = set()
    for line in lines:
        start = line.find(b'"s":"')
        end = line.find(b'"', start + 5)
        if 0 <= start < end:
            symbols.add(line[start + 5 : end].decode("ascii", "replace"))
    return symbols


def _refuse_non_finite(wire: msgspec.Struct, fields: tuple[str, ...]) -> None:
    for field in fields:
        value = getattr(wire, field)
        if value - value != 0.0:
            raise EventError(f"`{field}` must be finite, was {value!r}", reason="not_finite", field=field)
