"""Databento files: the vendor's own reference records, and made-up ones for what those do not hold."""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ami_engine.adapters.databento_dbn import DbnReader
from ami_engine.errors import BackendError, ConfigError
from ami_engine.events import Bar, BookSnapshot, Trade

dbn = pytest.importorskip("databento_dbn")

UNDEFINED = 2**63 - 1
NS = 1_000_000_000
DAY_NS = 1609113600 * NS  # 2020-12-28
REFERENCE = [
    f"test_data.{schema}{version}"
    for schema in ("mbo", "mbp-1", "mbp-10", "tbbo", "trades")
    for version in (".dbn", ".v1.dbn.zst", ".v2.dbn.zst", ".v3.dbn.zst")
]
AGGRESSOR = {"B": 1, "A": -1, "N": 0}


def interval_of(first: str, end: str, number: int) -> Any:
    days = {"start_date": dt.date.fromisoformat(first), "end_date": dt.date.fromisoformat(end)}
    return SimpleNamespace(**days, symbol=str(number))


def mapping_of(name: str, intervals: list[Any]) -> Any:
    return SimpleNamespace(raw_symbol=name, intervals=intervals)


def metadata(schema: str | None, *ids: int, names: dict[str, list[tuple[str, str, int]]] | None = None) -> bytes:
    spans = names or {f"S{number}": [("2020-12-28", "2020-12-29", number)] for number in ids}
    mappings = [
        mapping_of(
            name,
            [interval_of(first, end, number) for first, end, number in found],
        )
        for name, found in spans.items()
    ]
    return bytes(
        dbn.Metadata(
            "GLBX.MDP3",
            DAY_NS,
            dbn.SType.RAW_SYMBOL,
            dbn.SType.INSTRUMENT_ID,
            dbn.Schema.from_str(schema) if schema else None,
            symbols=list(spans),
            mappings=mappings,
            end=DAY_NS + NS,
            version=3,
        )
    )


def mbo(
    action: str, side: str, price: int, size: int, *, order: int = 1, number: int = 1, last: bool = True, ts: int = 0
) -> bytes:
    return bytes(
        dbn.MBOMsg(
            1, number, DAY_NS + ts, order, price, size, dbn.Action.from_str(action), dbn.Side.from_str(side),
            DAY_NS + ts + 5, flags=128 if last else 0, sequence=order,
        )
    )  # fmt: skip


def mbp(
    action: str, side: str, price: int, *, number: int = 1, level: Any = None, ts_event: int = DAY_NS, ten: bool = False
) -> bytes:
    best = level or dbn.BidAskPair()
    kind, levels = (dbn.MBP10Msg, [best] + [dbn.BidAskPair()] * 9) if ten else (dbn.MBP1Msg, best)
    return bytes(
        kind(
            1, number, ts_event, price, 4, dbn.Action.from_str(action), dbn.Side.from_str(side), 0, DAY_NS + 5,
            flags=128, sequence=9, levels=levels,
        )
    )  # fmt: skip


def write(folder: Path, *parts: bytes) -> Path:
    path = folder / "made.dbn"
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize("name", REFERENCE)
def test_decodes_the_reference_files_to_the_expected_integers(
    data_dir: Path, drain: Callable[..., Any], name: str
) -> None:
    expected = json.loads((data_dir / "dbn" / "expected.json").read_text())[name]
    events, errors = drain(DbnReader(data_dir / "dbn" / name))
    assert errors == []
    assert {event.symbol for event in events} == set(expected["metadata"]["symbols"])
    wanted: list[tuple[Any, ...]] = []
    book: dict[str, list[int]] = {}
    for record in expected["records"]:
        stamp = record["ts_event"], record["ts_recv"], record["sequence"]
        if record["action"] == "T" or name.startswith("test_data.trades"):
            wanted.append((*stamp, record["price"], record["size"], AGGRESSOR[record["side"]]))
        if name.startswith("test_data.tbbo"):  # the best prices are those before the trade
            wanted.insert(-1, (*stamp, [[level[key] for key in LEVEL_KEYS] for level in record["levels"]]))
        elif "levels" in record:
            wanted.append((*stamp, [[level[key] for key in LEVEL_KEYS] for level in record["levels"]]))
        elif "order_id" in record:
            assert record["action"] == "C"  # of orders from before the file: the book stays empty
            wanted.append((*stamp, book.setdefault("levels", [])))
    assert [in_integers(event) for event in events] == wanted


@pytest.mark.parametrize(
    "name", [f"test_data.ohlcv-1{unit}.v{version}.dbn.zst" for unit in "ms" for version in (1, 2, 3)]
)
def test_a_bar_is_known_when_it_is_over(data_dir: Path, drain: Callable[..., Any], name: str) -> None:
    records = json.loads((data_dir / "dbn" / "expected.json").read_text())[name]["records"]
    events, errors = drain(DbnReader(data_dir / "dbn" / name))
    length_ns = (60 if "-1m" in name else 1) * NS
    prices = [[record[key] / NS for key in ("open", "high", "low", "close")] for record in records]
    assert errors == []
    assert events == [
        Bar(*(record["ts_event"] + length_ns,) * 2, "ESH1", 0, *cells, float(record["volume"]))
        for record, cells in zip(records, prices, strict=True)
    ]


LEVEL_KEYS = ("bid_px", "bid_sz", "ask_px", "ask_sz")


def in_integers(event: Any) -> tuple[Any, ...]:
    """An event as the integers of its record: prices × 1e9."""
    stamp = event.exch_ts_ns, event.recv_ts_ns, event.seq
    if isinstance(event, Trade):
        return (*stamp, round(event.price * NS), event.size, event.aggressor)
    bids = list(event.bids) or ([(event.bid, event.bid_depth)] if event.bid else [])
    asks = list(event.asks) or ([(event.ask, event.ask_depth)] if event.ask else [])
    levels = [
        [round(bid * NS), bid_size, round(ask * NS), ask_size]
        for (bid, bid_size), (ask, ask_size) in zip(bids, asks, strict=True)
    ]
    return (*stamp, levels)


def test_a_market_by_order_day_gives_the_known_book(data_dir: Path, drain: Callable[..., Any]) -> None:
    events, errors = drain(DbnReader(data_dir / "nautilus-esh4-20231225.mbo.dbn.zst"))
    books = [event for event in events if isinstance(event, BookSnapshot)]
    trades = [event for event in events if isinstance(event, Trade)]
    assert errors == []
    assert (len(books), len(trades)) == (47_022, 2_973)
    assert {event.symbol for event in events} == {"ESH4"}
    assert [event.recv_ts_ns for event in events] == sorted(event.recv_ts_ns for event in events)
    last = books[-1]
    assert (np.asarray(last.bids) * (NS, 1)).tolist()[:3] == [[4810e9, 22], [4809.75e9, 47], [4809.5e9, 50]]
    assert (np.asarray(last.asks) * (NS, 1)).tolist()[:3] == [[4810.25e9, 28], [4810.5e9, 40], [4810.75e9, 41]]
    assert len(last.bids) == len(last.asks) == 10
    assert (last.bid, last.bid_depth, last.ask, last.ask_depth) == (4810.0, 22.0, 4810.25, 28.0)


def test_reality_6_crossed_books_of_the_pre_open_auction_are_passed_on(
    data_dir: Path, drain: Callable[..., Any]
) -> None:
    events, _ = drain(DbnReader(data_dir / "nautilus-esh4-20231225.mbo.dbn.zst", levels=1))
    crossed = [event.exch_ts_ns for event in events if isinstance(event, BookSnapshot) and event.bid > event.ask > 0]
    assert len(crossed) == 891
    day = 1703462400 * NS
    assert day + (22 * 60 + 39) * 60 * NS < min(crossed) <= max(crossed) <= day + 23 * 3600 * NS


def test_mbp_1_gives_a_book_for_each_record_and_a_trade_before_those_of_trades(
    data_dir: Path, drain: Callable[..., Any]
) -> None:
    events, errors = drain(DbnReader(data_dir / "nautilus-esu4-20240701.mbp-1.dbn.zst"))
    trades = [place for place, event in enumerate(events) if isinstance(event, Trade)]
    assert errors == []
    assert (len(events) - len(trades), len(trades)) == (2_288, 120)
    assert all(isinstance(events[place + 1], BookSnapshot) for place in trades)
    assert all(events[place + 1].seq == events[place].seq for place in trades)
    assert {event.aggressor for event in events if isinstance(event, Trade)} <= {1, 0, -1}


def test_trades_files_hold_the_trades_of_the_book_file(data_dir: Path, drain: Callable[..., Any]) -> None:
    trades, _ = drain(DbnReader(data_dir / "nautilus-esu4-20240701.trades.dbn.zst"))
    events, _ = drain(DbnReader(data_dir / "nautilus-esu4-20240701.mbp-1.dbn.zst"))
    assert len(trades) == 120
    assert trades == [event for event in events if isinstance(event, Trade)]


def test_reality_1_times_of_snapshot_records_lie_days_apart(data_dir: Path) -> None:
    reader = DbnReader(data_dir / "nautilus-esh4-20231225.mbo.dbn.zst")
    event = reader.next_event()
    assert isinstance(event, BookSnapshot)
    assert event.recv_ts_ns == 1703462400 * NS or event.recv_ts_ns > event.exch_ts_ns
    reader.close()


@pytest.mark.parametrize("ten", [False, True])
@pytest.mark.parametrize(
    ("level", "best"),
    [
        ((UNDEFINED, 101 * NS, 0, 7), (0.0, 101.0, 0.0, 7.0)),
        ((99 * NS, UNDEFINED, 5, 0), (99.0, 0.0, 5.0, 0.0)),
        ((99 * NS, 101 * NS, 0, 7), (0.0, 101.0, 0.0, 7.0)),
        ((UNDEFINED, UNDEFINED, 0, 0), (0.0, 0.0, 0.0, 0.0)),
        ((99 * NS, 101 * NS, 5, 7), (99.0, 101.0, 5.0, 7.0)),
    ],
)
def test_reality_7_undefined_prices_and_zero_sizes_are_missing_sides(
    tmp_path: Path, drain: Callable[..., Any], ten: bool, level: tuple[int, ...], best: tuple[float, ...]
) -> None:
    pair = dbn.BidAskPair(bid_px=level[0], ask_px=level[1], bid_sz=level[2], ask_sz=level[3])
    path = write(tmp_path, metadata("mbp-10" if ten else "mbp-1", 1), mbp("A", "B", 99 * NS, level=pair, ten=ten))
    (event,), errors = drain(DbnReader(path))
    assert errors == []
    assert (event.bid, event.ask, event.bid_depth, event.ask_depth) == best
    assert len(event.bids) == (ten and best[0] > 0)


def test_several_instruments_have_a_book_each(tmp_path: Path, drain: Callable[..., Any]) -> None:
    path = write(
        tmp_path,
        metadata("mbo", 1, 2),
        mbo("A", "B", 99 * NS, 5, number=1),
        mbo("A", "A", 101 * NS, 7, number=2),
        mbo("A", "A", 102 * NS, 3, number=1, order=2),
    )
    events, _ = drain(DbnReader(path))
    assert [(event.symbol, event.bid, event.ask) for event in events] == [
        ("S1", 99.0, 0.0),
        ("S2", 0.0, 101.0),
        ("S1", 99.0, 102.0),
    ]
    assert [event.symbol for event in drain(DbnReader(path, symbol="S2"))[0]] == ["S2"]


def test_a_packet_is_one_book_at_its_last_record_and_its_trades(tmp_path: Path, drain: Callable[..., Any]) -> None:
    path = write(
        tmp_path,
        metadata("mbo", 1),
        mbo("A", "A", 101 * NS, 7),
        mbo("T", "B", 101 * NS, 2, order=0, last=False, ts=10),
        mbo("F", "A", 101 * NS, 2, last=False, ts=10),
        mbo("C", "A", 101 * NS, 2, ts=10),
        mbo("T", "N", 101 * NS, 1, order=0, ts=20),
    )
    events, errors = drain(DbnReader(path))
    assert errors == []
    assert [type(event).__name__ for event in events] == [
        "BookSnapshot",
        "Trade",
        "BookSnapshot",
        "Trade",
        "BookSnapshot",
    ]
    assert [event.ask_depth for event in events if isinstance(event, BookSnapshot)] == [7.0, 5.0, 5.0]
    assert [event.aggressor for event in events if isinstance(event, Trade)] == [1, 0]


def test_the_number_of_levels_can_be_chosen(tmp_path: Path, drain: Callable[..., Any]) -> None:
    orders = [mbo("A", "B", (99 - number) * NS, 1, order=number + 1) for number in range(5)]
    events, _ = drain(DbnReader(write(tmp_path, metadata("mbo", 1), *orders), levels=2))
    assert [len(event.bids) for event in events] == [1, 2, 2, 2, 2]
    with pytest.raises(ConfigError, match="`levels` must be at least 1, was 0"):
        DbnReader(tmp_path / "made.dbn", levels=0)


@pytest.mark.parametrize("price", [0.00000001, 4810.25, 61_800.3, 712_345.67])
def test_prices_of_an_order_book_are_exact_decimals(tmp_path: Path, drain: Callable[..., Any], price: float) -> None:
    path = write(tmp_path, metadata("mbo", 1), mbo("A", "B", round(price * NS), 1))
    assert drain(DbnReader(path))[0][0].bid == price


def test_an_id_is_named_by_the_day(tmp_path: Path, drain: Callable[..., Any]) -> None:
    names = {"OLD": [("2020-12-27", "2020-12-28", 1)], "NEW": [("2020-12-28", "2020-12-29", 1)]}
    path = write(tmp_path, metadata("mbp-1", names=names), mbp("A", "B", NS))
    assert drain(DbnReader(path))[0][0].symbol == "NEW"


def test_an_id_that_nothing_names_is_its_own_name(tmp_path: Path, drain: Callable[..., Any]) -> None:
    assert drain(DbnReader(write(tmp_path, metadata("mbp-1", 1), mbp("A", "B", NS, number=42))))[0][0].symbol == "42"


def test_a_live_capture_names_its_ids_in_the_stream(tmp_path: Path, drain: Callable[..., Any]) -> None:
    mapping = bytes(
        dbn.SymbolMappingMsg(
            1, 42, DAY_NS, dbn.SType.PARENT, "ES.FUT", dbn.SType.RAW_SYMBOL, "ESH1", DAY_NS, DAY_NS + NS
        )
    )
    events, errors = drain(DbnReader(write(tmp_path, metadata(None, 1), mapping, mbp("A", "B", NS, number=42))))
    assert [event.symbol for event in events] == ["ESH1"]
    assert errors == []


def test_an_undefined_event_time_is_unknown(tmp_path: Path, drain: Callable[..., Any]) -> None:
    event = drain(DbnReader(write(tmp_path, metadata("mbp-1", 1), mbp("A", "B", NS, ts_event=2**64 - 1))))[0][0]
    assert (event.exch_ts_ns, event.recv_ts_ns) == (0, DAY_NS + 5)


def test_a_bad_record_is_an_error_with_its_number_and_the_next_is_read(
    tmp_path: Path, drain: Callable[..., Any]
) -> None:
    path = write(
        tmp_path,
        metadata("mbo", 1),
        mbo("A", "B", 99 * NS, 5),
        mbo("A", "B", -99 * NS, 5, order=2),
        mbo("T", "B", UNDEFINED, 5, order=0, last=False),
        mbo("A", "B", 98 * NS, 5, order=3),
    )
    events, errors = drain(DbnReader(path))
    assert [(error.reason, error.field, error.source, error.position) for error in errors] == [
        ("negative_price", "price", "made.dbn", 2),
        ("missing_field", "price", "made.dbn", 3),
    ]
    # The refused record ended its packet: the packet's book still goes out.
    assert [len(event.bids) for event in events] == [1, 1, 2]


def test_a_record_of_another_kind_is_an_error(tmp_path: Path, drain: Callable[..., Any]) -> None:
    bar = bytes(dbn.OHLCVMsg(dbn.RType.from_int(36), 1, 1, DAY_NS, NS, NS, NS, NS, 5))  # of a session's end
    events, errors = drain(DbnReader(write(tmp_path, metadata("mbp-1", 1), bar, mbp("A", "B", NS))))
    assert [error.reason for error in errors] == ["unknown_kind"]
    assert len(events) == 1


@pytest.mark.parametrize("kept", [0.3, 0.5, 0.9, 0.999])
def test_a_cut_zstd_file_is_truncated_after_what_it_still_holds(
    data_dir: Path, tmp_path: Path, drain: Callable[..., Any], kept: float
) -> None:
    whole = (data_dir / "nautilus-esh4-20231225.mbo.dbn.zst").read_bytes()
    path = tmp_path / "cut.dbn.zst"
    path.write_bytes(whole[: int(len(whole) * kept)])
    events, errors = drain(DbnReader(path))
    assert 1_000 < len(events) < 49_995
    assert [(error.reason, error.source) for error in errors] == [("truncated", "cut.dbn.zst")]


def test_a_plain_file_cut_within_a_record_is_truncated(tmp_path: Path, drain: Callable[..., Any]) -> None:
    path = write(tmp_path, metadata("mbp-1", 1), mbp("A", "B", NS), mbp("A", "B", NS)[:-10])
    events, errors = drain(DbnReader(path))
    assert len(events) == 1
    assert [(error.reason, error.position) for error in errors] == [("truncated", 2)]


def test_a_damaged_zstd_file_ends_with_an_error(data_dir: Path, tmp_path: Path, drain: Callable[..., Any]) -> None:
    data = bytearray((data_dir / "nautilus-esh4-20231225.mbo.dbn.zst").read_bytes())
    data[500_000:500_040] = bytes(40)
    path = tmp_path / "damaged.dbn.zst"
    path.write_bytes(data)
    events, errors = drain(DbnReader(path))
    assert len(events) > 1_000
    assert len(errors) == 1


@pytest.mark.parametrize("data", [b"", b"hello, world", b"\x28\xb5\x2f\xfdnonsense", b"DBN\x03\xff\x00\x00\x00cut"])
def test_refuses_what_is_no_dbn_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.dbn"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"x\.dbn: is not a"):
        DbnReader(path)


def test_refuses_a_schema_it_cannot_read(tmp_path: Path) -> None:
    path = write(tmp_path, metadata("definition", 1))
    with pytest.raises(ConfigError, match="holds schema 'definition'; what can be read is mbo, mbp-1, mbp-10, tbbo"):
        DbnReader(path)


def test_a_bar_without_a_price_is_an_error(tmp_path: Path, drain: Callable[..., Any]) -> None:
    bars = [
        bytes(dbn.OHLCVMsg(dbn.RType.from_int(rtype), 1, 1, DAY_NS, NS, NS, NS, close, 5))
        for rtype, close in ((34, NS), (35, UNDEFINED))
    ]
    events, errors = drain(DbnReader(write(tmp_path, metadata("ohlcv-1h", 1), *bars)))
    assert [event.recv_ts_ns - DAY_NS for event in events] == [3_600 * NS]
    assert [(error.reason, error.position) for error in errors] == [("missing_field", 2)]


def test_says_what_to_install_when_the_decoder_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "databento_dbn", None)
    with pytest.raises(BackendError, match=r"pip install 'mdm-engine\[data\]'"):
        DbnReader(write(tmp_path, b"DBN"))


def test_of_tbbo_the_book_goes_out_even_where_its_trade_cannot_be_read(
    tmp_path: Path, drain: Callable[..., Any]
) -> None:
    path = write(tmp_path, metadata("tbbo", 1), mbp("T", "B", UNDEFINED), mbp("T", "A", NS))
    events, errors = drain(DbnReader(path))
    assert [type(event) for event in events] == [BookSnapshot, BookSnapshot, Trade]
    assert [error.reason for error in errors] == ["missing_field"]
