"""Books rebuilt from recorded feeds stand where an independent count, kept with the data, says they do."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

_Levels = list[tuple[float, float]]


class Delta(NamedTuple):
    bids: _Levels
    asks: _Levels
    seq: int
    first_seq: int
    prev_seq: int


class Ticker(NamedTuple):
    seq: int
    bid: float
    bid_size: float
    ask: float
    ask_size: float


class Snapshot(NamedTuple):
    bids: _Levels
    asks: _Levels
    seq: int


def _levels(raw: list[list[str]]) -> _Levels:
    return [(float(price), float(size)) for price, size in raw]


def _read_binance(path: Path) -> list[Delta | Ticker | Snapshot]:
    events: list[Delta | Ticker | Snapshot] = []
    with gzip.open(path) as lines:
        for line in lines:
            message = msgspec.json.decode(line.split(b" ", 1)[1])
            stream, data = message.get("stream", ""), message.get("data", message)
            if not stream:
                events.append(Snapshot(_levels(data["bids"]), _levels(data["asks"]), data["lastUpdateId"]))
            elif "@depth" in stream:
                events.append(Delta(_levels(data["b"]), _levels(data["a"]), data["u"], data["U"], data.get("pu", 0)))
            elif "@bookTicker" in stream:
                events.append(Ticker(data["u"], *(float(data[name]) for name in "bBaA")))
    return events


def _replay(book: Any, events: list[Delta | Ticker | Snapshot]) -> Counter[str]:
    """Rebuild the book; compare its best prices with the tickers after each delta that comes after the snapshot."""
    counts: Counter[str] = Counter()
    early: list[Delta] = []
    latest: Ticker | None = None
    # The venue's own top at an update id, whenever its ticker arrived.
    tickers = sorted(event for event in events if isinstance(event, Ticker))
    at = 0
    for event in events:
        if isinstance(event, Ticker):
            latest = event
        elif isinstance(event, Snapshot):
            book.apply_snapshot(*event)
            for delta in early:
                book.apply_delta(*delta)
        elif not book.is_ready:
            early.append(event)
        else:
            book.apply_delta(*event)
            bid, _, ask, _ = book.depth_best()
            while at + 1 < len(tickers) and tickers[at + 1].seq <= event.seq:
                at += 1
            assert latest is not None
            counts["compared"] += 1
            counts["same_as_latest"] += (bid, ask) == (latest.bid, latest.ask)
            counts["same_as_at_seq"] += (bid, ask) == (tickers[at].bid, tickers[at].ask)
            counts["not_two_sided"] += book.is_crossed or book.is_locked or book.is_one_sided or book.is_empty
    return counts


class Expected(NamedTuple):
    compared: int
    same_as_latest: int
    applied: int
    unknown_deletes: int
    level_counts: tuple[int, int]


_CAPTURES = {
    "usdm-btcusdt": (0.1, Expected(6545, 6509, 6547, 17747, (5018, 4578))),
    "spot-btcusdt": (0.01, Expected(3448, 3446, 3449, 11239, (1209, 2196))),
    "coinm-btcusd_perp": (0.1, Expected(26822, 26822, 26824, 40176, (1110, 1123))),
}


@pytest.mark.parametrize("name", _CAPTURES)
def test_binance_book_keeps_to_the_venues_own_ticker(data_dir: Path, order_book: Any, name: str) -> None:
    tick_size, expected = _CAPTURES[name]
    book = order_book(tick_size)
    counts = _replay(book, _read_binance(data_dir / f"binance-{name}-20240808.feed.gz"))
    assert counts["compared"] == expected.compared
    assert counts["same_as_latest"] == expected.same_as_latest
    assert counts["same_as_at_seq"] == expected.compared
    assert counts["not_two_sided"] == 0
    assert book.deltas_applied == expected.applied
    assert book.unknown_deletes == expected.unknown_deletes
    assert book.level_counts == expected.level_counts


def test_globex_orders_replay_to_the_recorded_levels(data_dir: Path, mbo_book: Any) -> None:
    dbn = pytest.importorskip("databento_dbn", reason="needs databento_dbn to decode the recorded orders")
    decoder = dbn.DBNDecoder(compression=dbn.Compression.ZSTD)
    decoder.write((data_dir / "nautilus-esh4-20231225.mbo.dbn.zst").read_bytes())
    book = mbo_book(0.25)
    counts: Counter[str] = Counter()
    for record in decoder.decode():
        if not isinstance(record, dbn.MBOMsg):
            continue
        book.apply(str(record.action), str(record.side), record.order_id, record.price / 1e9, record.size)
        if record.flags & dbn.F_LAST:
            counts["events"] += 1
            counts["crossed"] += book.is_crossed
            counts["locked"] += book.is_locked
            counts["not_two_sided"] += book.is_one_sided or book.is_empty
    assert counts == Counter(events=47022, crossed=891, locked=0, not_two_sided=0)
    assert book.order_count == 11217
    assert (book.unknown_cancels, book.unknown_modifies, book.repeated_adds) == (0, 0, 0)
    bids, asks = book.top(10)
    assert bids[:, 0].tolist() == [4810.0 - 0.25 * i for i in range(10)]
    assert bids[:, 1].tolist() == [22, 47, 50, 60, 85, 56, 57, 61, 91, 50]
    assert asks[:, 0].tolist() == [4810.25 + 0.25 * i for i in range(10)]
    assert asks[:, 1].tolist() == [28, 40, 41, 60, 65, 67, 69, 75, 47, 55]
