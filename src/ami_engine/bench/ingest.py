"""Cases: raw Binance depth messages to features, against only decoding the same bytes to floats."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ami_engine.adapters.binance import BinanceReader
from ami_engine.adapters.byte_stream import LineStream
from ami_engine.bench.case import Case, Group, Prepared, Ratio, Scale, require
from ami_engine.bench.inputs import CONFIG, START_NS
from ami_engine.book import PlainOrderBook
from ami_engine.events import BookSnapshot
from ami_engine.features import FeatureBuilder
from ami_engine.loop.symbol_state import SymbolState
from ami_engine.units import Instrument

__all__ = ["GROUP", "capture"]

_SYMBOL = "BTCUSDT"
_BOOK_LEVELS = 1_000


class _Depth(msgspec.Struct, gc=False):
    U: int
    u: int
    pu: int
    b: list[tuple[float, float]]
    a: list[tuple[float, float]]


class _Message(msgspec.Struct, gc=False):
    data: _Depth


def _side(prices: Any, sizes: Any) -> list[list[str]]:
    """Return levels as the venue writes them: strings, prices of one decimal and sizes of three."""
    return [[f"{price / 10:.2f}", f"{size / 1000:.3f}"] for price, size in zip(prices, sizes, strict=True)]


def capture(messages: int, seed: int = 4) -> tuple[list[bytes], list[bytes]]:
    """Return the lines of a USD-M capture, a snapshot and its depth messages, and the messages' JSON alone.

    As in a recorded BTCUSDT stream, a message changes 34 levels in the median and twice that on average, a fifth of
    them to nothing, most of them near the best price.
    """
    draw = np.random.Generator(np.random.PCG64(seed))
    mid = 600_000 + np.cumsum(draw.integers(-2, 3, messages))
    steps = np.arange(1, _BOOK_LEVELS + 1)
    book = {
        "lastUpdateId": 1,
        "E": START_NS // 1_000_000,
        "T": START_NS // 1_000_000,
        "bids": _side(600_000 - steps, draw.integers(1, 5_000, _BOOK_LEVELS)),
        "asks": _side(600_000 + steps, draw.integers(1, 5_000, _BOOK_LEVELS)),
    }
    payloads = [_message(draw, int(mid[i]), i) for i in range(messages)]
    lines = [b"%d %b" % (START_NS, msgspec.json.encode(book))]
    lines += [b"%d %b" % (START_NS + (i + 1) * 50_000_000, payload) for i, payload in enumerate(payloads)]
    return lines, payloads


def _message(draw: np.random.Generator, mid: int, number: int) -> bytes:
    changed = np.clip(draw.lognormal(2.6, 1.25, 2), 1, 500).astype(int)
    sides = []
    for sign, count in zip((-1, 1), changed, strict=True):
        # Levels on the far side of the mid are swept by it; the best one of the own side always has size.
        distance = np.unique(np.concatenate(([1], np.minimum(1 + draw.exponential(60.0, count), 900)))).astype(int)
        sizes = draw.integers(1, 5_000, len(distance)) * (draw.random(len(distance)) > 0.2)
        sizes[0] = max(1, sizes[0])
        swept = np.arange(-2, 1)
        prices = np.concatenate((mid + sign * swept, mid + sign * distance))
        sides.append(_side(prices, np.concatenate((np.zeros(len(swept), int), sizes))))
    at = (START_NS + (number + 1) * 50_000_000) // 1_000_000
    data = {"e": "depthUpdate", "E": at, "T": at, "s": _SYMBOL, "U": 2 + number, "u": 2 + number, "pu": 1 + number}
    return msgspec.json.encode({"stream": "btcusdt@depth@0ms", "data": {**data, "b": sides[0], "a": sides[1]}})


class _File:
    """A capture on disk for as long as the case runs."""

    def __init__(self, lines: list[bytes]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ami-bench-")
        self.path = Path(self._folder.name, "capture.feed")
        self.path.write_bytes(b"\n".join(lines) + b"\n")
        self.close = self._folder.cleanup


def _new_state() -> SymbolState:
    return SymbolState(_SYMBOL, Instrument(_SYMBOL, tick_size=CONFIG.tick_size), CONFIG)


def _to_features(scale: Scale) -> Prepared:
    lines, _ = capture(_messages(scale))
    file = _File(lines)
    parts: list[Any] = []

    def reset() -> None:
        parts[:] = [BinanceReader(file.path, symbol=_SYMBOL), _new_state()]

    def run() -> None:
        reader, state = parts
        read, observe = reader.next_event, state.observe
        while (event := read()) is not None:
            observe(event)

    def check() -> None:
        reset()
        run()
        row = parts[1].builder.view
        require(
            np.allclose(row, _plain_row(file.path), rtol=1e-9, atol=1e-6), "the features differ from a plain book's"
        )

    return Prepared(run, check, len(lines) - 1, reset=reset, close=file.close)


def _plain_row(path: Path) -> Any:
    """Return the last row by the plain-Python book and the reference backend."""
    reader = BinanceReader(path, symbol=_SYMBOL)
    book, builder = PlainOrderBook(CONFIG.tick_size), FeatureBuilder(CONFIG, backend="reference")
    events = 0
    while (event := reader.next_event()) is not None:
        if isinstance(event, BookSnapshot):
            book.apply_snapshot(event.bids, event.asks, event.seq)
        else:
            book.apply_delta(event.bids, event.asks, event.seq, event.first_seq, event.prev_seq)  # type: ignore[union-attr]
        builder.push_from_book(book, event.recv_ts_ns)
        events += 1
    require(events > 1, "the capture gave no depth message")
    return builder.view


def _reading(scale: Scale) -> Prepared:
    lines, _ = capture(_messages(scale))
    file = _File(lines)

    def run() -> int:
        stream = LineStream(file.path)
        count = 0
        while stream.next_line() is not None:
            count += 1
        return count

    def check() -> None:
        require(run() == len(lines), "not every line was read")

    return Prepared(run, check, len(lines) - 1, close=file.close)


def _decoding(scale: Scale) -> Prepared:
    _, payloads = capture(_messages(scale))
    decode = msgspec.json.Decoder(_Message, strict=False).decode

    def run() -> None:
        for payload in payloads:
            decode(payload)

    def check() -> None:
        data = decode(payloads[-1]).data
        plain = msgspec.json.decode(payloads[-1])["data"]
        require(data.b == [(float(p), float(q)) for p, q in plain["b"]], "decoded levels differ from the text")

    return Prepared(run, check, len(payloads))


def _messages(scale: Scale) -> int:
    return scale.steps // 2


GROUP = Group(
    "ingest",
    (
        Case("ingest.features", "capture file → line → decoded → book → top 10 → features", _to_features, "ns/message"),
        Case("ingest.lines", "reading the capture's lines", _reading, "ns/message"),
        Case("ingest.decode", "msgspec decoding the same messages' levels to floats", _decoding, "ns/message"),
    ),
    (
        Ratio("ingest / decode", "raw Binance depth message → features, less reading lines, against decoding to floats",
              "ingest.features", "ingest.decode", "ingest.lines", reach=1.6, aim=1.3),
    ),
)  # fmt: skip
