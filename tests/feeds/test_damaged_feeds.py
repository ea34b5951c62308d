"""Damaged copies of feeds: a bad record is counted under its reason and leaves nothing behind, or ends the run.

A bad record is put between two good ones, in a copy of each format; the copy without it says what must come out.
"""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ami_engine.adapters.base import DataSource
from ami_engine.adapters.open_source import open_source
from ami_engine.errors import ConfigError
from ami_engine.loop.feature_table import write_feature_table

from .conftest import FEEDS, SHIPPED, Recorded, decide_over, facts_of

Record = Any
Options = dict[str, Any]


class Format(NamedTuple):
    """How a format's records are written and opened, and which record is made bad.

    `write(folder, records)` returns what `open_source` takes; the bad record stands before record `at`.
    """

    records: Callable[[Path], list[Record]]
    write: Callable[[Path, Sequence[Record]], Any]
    options: Options
    policy: str
    max_size_usd: float
    at: int
    # Lines before the first record.
    header: int = 0


class Damage(NamedTuple):
    """A bad record, made of the good one before it; `field` is what the message must name, `file` the one at fault."""

    format: str
    fault: str
    make: Callable[[Record], Record]
    reason: str
    field: str = ""
    file: int = 0


# The formats. ---------------------------------------------------------------------------------------------------------


def instrument(name: str) -> Path:
    return SHIPPED / f"{name}.instrument.toml"


def capture_lines(data_dir: Path) -> list[bytes]:
    """The first seconds of the USD-M capture: tickers, trades, the snapshot and deltas."""
    with gzip.open(data_dir / FEEDS["usdm"].files[0]) as file:
        return [file.readline().rstrip(b"\n") for _ in range(1_200)]


def write_capture(folder: Path, lines: Sequence[bytes]) -> Path:
    path = folder / "capture.feed.gz"
    path.write_bytes(gzip.compress(b"".join(line + b"\n" for line in lines), compresslevel=1))
    return path


def lobster_rows(data_dir: Path) -> list[tuple[bytes, bytes]]:
    book, messages = ((data_dir / name).read_bytes().splitlines() for name in FEEDS["lobster"].files)
    return list(zip(book, messages, strict=True))


def write_lobster(folder: Path, rows: Sequence[tuple[bytes, bytes]]) -> tuple[Path, Path]:
    paths = folder / "book.csv", folder / "messages.csv"
    for path, cells in zip(paths, zip(*rows, strict=True), strict=True):
        path.write_bytes(b"".join(cell + b"\n" for cell in cells))
    return paths


COLUMNS = ("recv_ts_ns", "symbol", "bid", "ask", "bid_depth", "ask_depth", "price", "size", "aggressor")


def quotes_and_trades(data_dir: Path) -> list[dict[str, Any]]:
    """The capture's tickers and trades under the contract's own names."""
    rows = []
    for line in capture_lines(data_dir):
        stamp, _, text = line.partition(b" ")
        message = json.loads(text)
        data = message.get("data", {})
        times = {"recv_ts_ns": int(stamp), "symbol": "BTCUSDT"}
        if data.get("e") == "bookTicker":
            names = zip(COLUMNS[2:6], ("b", "a", "B", "A"), strict=True)
            rows.append({**times, **{name: float(data[key]) for name, key in names}})
        elif data.get("e") == "trade":
            side = -1 if data["m"] else 1
            rows.append({**times, "price": float(data["p"]), "size": float(data["q"]), "aggressor": side})
    return rows


def write_jsonl(folder: Path, rows: Sequence[dict[str, Any] | bytes]) -> Path:
    path = folder / "events.jsonl"
    path.write_bytes(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))
    return path


def write_csv(folder: Path, rows: Sequence[dict[str, Any] | bytes]) -> Path:
    path = folder / "events.csv"
    lines = [",".join(COLUMNS).encode()]
    lines += [
        row if isinstance(row, bytes) else ",".join(str(row.get(name, "")) for name in COLUMNS).encode() for row in rows
    ]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def write_parquet(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    kinds = [pa.int64(), pa.string(), *[pa.float64()] * 6, pa.int64()]
    table = {
        name: pa.array([row.get(name) for row in rows], kind, from_pandas=False)
        for name, kind in zip(COLUMNS, kinds, strict=True)
    }
    path = folder / "events.parquet"
    parquet.write_table(pa.table(table), path, row_group_size=100)
    return path


def dbn_records(data_dir: Path) -> list[bytes]:
    """The metadata, then the records of the mbp-1 file, as bytes of the uncompressed format."""
    dbn = pytest.importorskip("databento_dbn")
    decoder = dbn.DBNDecoder(compression=dbn.Compression.ZSTD)
    return [bytes(item) for item in decoder.write_and_decode((data_dir / FEEDS["es-mbp-1"].files[0]).read_bytes())]


def write_dbn(folder: Path, records: Sequence[bytes]) -> Path:
    path = folder / "records.dbn"
    path.write_bytes(b"".join(records))
    return path


USDM: Options = {"instrument": instrument("binance-usdm")}

FORMATS = {
    "binance": Format(capture_lines, write_capture, {"format": "binance", **USDM}, "binance", 500.0, 500),
    "lobster": Format(
        lobster_rows,
        write_lobster,
        {"instrument": instrument("lobster-aapl"), "date": "2012-06-21"},
        "lobster-aapl",
        60_000.0,
        400,
    ),
    "jsonl": Format(quotes_and_trades, write_jsonl, USDM, "binance", 500.0, 300),
    "csv": Format(quotes_and_trades, write_csv, USDM, "binance", 500.0, 300, header=1),
    "parquet": Format(quotes_and_trades, write_parquet, USDM, "binance", 500.0, 300),
    # The first record is the metadata: record 400 of the list is the 400th of the file.
    "dbn": Format(dbn_records, write_dbn, {"instrument": instrument("es")}, "es", 300_000.0, 400, header=-1),
}


# The damages. ---------------------------------------------------------------------------------------------------------

LAST_TICKER = (
    b'{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":%d,"s":"BTCUSDT","b":"61790.00","B":"2.507",'
    b'"a":"61790.10","A":"2.510","T":1723161256313,"E":1723161256313}}'
)


def ticker(**changes: Any) -> Callable[[bytes], bytes]:
    """A ticker just after the line before it, with other values in its data; None takes a field out."""

    def make(before: bytes) -> bytes:
        stamp = int(before.partition(b" ")[0]) + changes.get("later_ns", 1)
        message = json.loads(LAST_TICKER % 5_123_107_999_999_999)
        for name, value in changes.items():
            if value is None:
                del message["data"][name]
            elif name != "later_ns":
                message["data"][name] = value
        return b"%d %s" % (stamp, json.dumps(message, separators=(",", ":")).encode())

    return make


def trade(**changes: Any) -> Callable[[bytes], bytes]:
    data = {"e": "trade", "s": "BTCUSDT", "t": 9_999_999_999, "p": "61800.30", "q": "0.006", "m": False, **changes}
    text = json.dumps({"stream": "btcusdt@trade", "data": data}, separators=(",", ":"))
    return lambda before: b"%d %s" % (int(before.partition(b" ")[0]) + 1, text.encode())


def quote(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A quote just after the row before it, with other values."""
    good = {"symbol": "BTCUSDT", "bid": 61_790.0, "ask": 61_790.1, "bid_depth": 1.0, "ask_depth": 2.0}

    def make(before: dict[str, Any]) -> dict[str, Any]:
        return {"recv_ts_ns": before["recv_ts_ns"] + changes.get("later_ns", 1), **good, **without(changes)}

    return make


def printed(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    good = {"symbol": "BTCUSDT", "price": 61_790.0, "size": 1.0, "aggressor": 1}
    return lambda before: {"recv_ts_ns": before["recv_ts_ns"] + 1, **good, **changes}


def without(changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if name != "later_ns"}


def book_cell(column: int, value: bytes) -> Callable[[tuple[bytes, bytes]], tuple[bytes, bytes]]:
    """The row before it once more, with one cell of the book changed: ask price, ask size, bid price, bid size."""

    def make(before: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        cells = before[0].split(b",")
        cells[column] = value
        return b",".join(cells), quiet(before[1])

    return make


def message_cell(column: int, value: bytes) -> Callable[[tuple[bytes, bytes]], tuple[bytes, bytes]]:
    def make(before: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        cells = quiet(before[1]).split(b",")
        cells[column] = value
        return before[0], b",".join(cells)

    return make


def quiet(message: bytes) -> bytes:
    """A message of the same time that is no execution: one row of the book and no trade."""
    cells = message.split(b",")
    cells[1] = b"1"
    return b",".join(cells)


# Offsets in an mbp-1 record: price, action, time of reception, best bid's price.
PRICE, ACTION, RECV, BID = 16, 28, 32, 48
NS = 1_000_000_000


def dbn_field(offset: int, value: int | bytes) -> Callable[[bytes], bytes]:
    """The record before it once more, as an added order, with one field changed."""

    def make(before: bytes) -> bytes:
        record = bytearray(before)
        record[ACTION : ACTION + 1] = b"A"
        packed = value if isinstance(value, bytes) else struct.pack("<q", value)
        record[offset : offset + len(packed)] = packed
        return bytes(record)

    return make


def dbn_trade_without_price(before: bytes) -> bytes:
    record = bytearray(dbn_field(PRICE, 2**63 - 1)(before))
    record[ACTION : ACTION + 1] = b"T"
    return bytes(record)


def dbn_earlier(before: bytes) -> bytes:
    (recv_ns,) = struct.unpack_from("<q", before, RECV)
    return dbn_field(RECV, recv_ns - NS)(before)


def half(before: bytes) -> bytes:
    return ticker()(before)[:-70]


DAMAGES = (
    Damage("binance", "nan", ticker(b="NaN"), "not_finite", "b"),
    Damage("binance", "infinity", ticker(A="1e999"), "not_finite", "A"),
    Damage("binance", "negative-size", ticker(B="-2.5"), "negative_size", "bid_size"),
    Damage("binance", "negative-price", ticker(b="-61790.00"), "negative_price", "bid"),
    Damage("binance", "crossed", ticker(b="61790.20"), "crossed_book", "bid"),
    Damage("binance", "off-grid", ticker(b="61789.95"), "off_grid", "bid"),
    Damage("binance", "backwards", ticker(later_ns=-1_000_000_000), "time_backwards", "recv_ts_ns"),
    Damage("binance", "repeated", ticker(u=5_123_107_839_020), "duplicate_seq", "seq"),
    Damage("binance", "no-ask", ticker(a=None), "missing_field", "a"),
    Damage("binance", "text-for-number", ticker(a="dear"), "wrong_type", "data.a"),
    Damage("binance", "cut-json", half, "bad_json"),
    Damage("binance", "no-local-time", lambda before: ticker()(before).partition(b" ")[2], "bad_columns", "local time"),
    Damage("binance", "negative-trade", trade(q="-0.5"), "negative_size", "size"),
    Damage("binance", "free-trade", trade(p="0"), "negative_price", "price"),
    Damage("binance", "nan-trade", trade(p="NaN"), "not_finite", "p"),
    Damage("lobster", "nan", book_cell(2, b"nan"), "not_finite", "bid_price_1"),
    Damage("lobster", "negative-size", book_cell(3, b"-18"), "negative_size", "bids"),
    Damage("lobster", "crossed", book_cell(2, b"9859400"), "crossed_book", "bid"),
    Damage("lobster", "fraction", book_cell(0, b"585.94"), "wrong_type", "ask_price_1"),
    Damage("lobster", "unsorted", book_cell(6, b"1"), "levels_unsorted", "bids"),
    Damage("lobster", "wrong-columns", lambda rows: (rows[0].rpartition(b",")[0], rows[1]), "bad_columns"),
    Damage("lobster", "message-columns", lambda rows: (rows[0], rows[1] + b",7"), "bad_columns", file=1),
    Damage("lobster", "message-nan", message_cell(0, b"nan"), "not_finite", "time", file=1),
    Damage("lobster", "message-type", message_cell(1, b"9"), "unknown_kind", "type", file=1),
    Damage("lobster", "backwards", message_cell(0, b"34200.000000001"), "time_backwards", "recv_ts_ns"),
    Damage("jsonl", "nan", quote(bid=float("nan")), "not_finite", "bid"),
    Damage("jsonl", "infinity", quote(ask_depth=float("inf")), "not_finite", "ask_depth"),
    Damage("jsonl", "negative-size", quote(ask_depth=-2.0), "negative_size", "ask_depth"),
    Damage("jsonl", "crossed", quote(bid=61_790.2), "crossed_book", "bid"),
    Damage("jsonl", "backwards", quote(later_ns=-NS), "time_backwards", "recv_ts_ns"),
    Damage("jsonl", "no-time", quote(recv_ts_ns=-1), "non_positive_time", "recv_ts_ns"),
    Damage("jsonl", "text-for-number", quote(bid="dear"), "wrong_type", "bid"),
    Damage("jsonl", "empty-book", quote(bid=0.0, ask=0.0), "empty_book", "bid"),
    Damage("jsonl", "cut-json", lambda before: json.dumps(before).encode()[:-9], "bad_json"),
    Damage("jsonl", "no-object", lambda before: b"[1, 2]", "wrong_type"),
    Damage("jsonl", "negative-trade", printed(size=-1.0), "negative_size", "size"),
    Damage("csv", "nan", quote(bid="nan"), "not_finite", "bid"),
    Damage("csv", "negative-size", quote(ask_depth=-2.0), "negative_size", "ask_depth"),
    Damage("csv", "crossed", quote(bid=61_790.2), "crossed_book", "bid"),
    Damage("csv", "backwards", quote(later_ns=-NS), "time_backwards", "recv_ts_ns"),
    Damage("csv", "text-for-number", quote(bid="dear"), "wrong_type", "bid"),
    Damage("csv", "wrong-columns", lambda before: b"1723161255,BTCUSDT,1.0", "bad_columns"),
    Damage("csv", "no-time", quote(recv_ts_ns=""), "missing_field", "time"),
    Damage("csv", "not-utf-8", lambda before: b"\xff\xfe,,,,,,,,", "malformed"),
    Damage("csv", "negative-trade", printed(size=-1.0), "negative_size", "size"),
    Damage("parquet", "nan", quote(bid=float("nan")), "not_finite", "bid"),
    Damage("parquet", "negative-size", quote(ask_depth=-2.0), "negative_size", "ask_depth"),
    Damage("parquet", "crossed", quote(bid=61_790.2), "crossed_book", "bid"),
    Damage("parquet", "backwards", quote(later_ns=-NS), "time_backwards", "recv_ts_ns"),
    Damage("parquet", "no-time", quote(recv_ts_ns=None), "missing_field", "time"),
    Damage("dbn", "crossed", dbn_field(BID, 9_999 * NS), "crossed_book", "bid"),
    Damage("dbn", "negative-price", dbn_field(BID, -5 * NS), "negative_price", "bid"),
    Damage("dbn", "no-time", dbn_field(RECV, 0), "time_backwards", "recv_ts_ns"),
    Damage("dbn", "backwards", dbn_earlier, "time_backwards", "recv_ts_ns"),
)


@pytest.fixture(params=DAMAGES, ids=lambda damage: f"{damage.format}-{damage.fault}")
def damage(request: pytest.FixtureRequest) -> Damage:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def good_records(data_dir: Path) -> Callable[[str], list[Record]]:
    """The undamaged records of a format, read once."""
    read: dict[str, list[Record]] = {}

    def records(name: str) -> list[Record]:
        if name not in read:
            read[name] = FORMATS[name].records(data_dir)[:900]
        return read[name]

    return records


class Clean(NamedTuple):
    """What comes of the records without the bad one: all of them, and those before its place."""

    whole: Recorded
    rows: bytes
    head_before: str
    steps_before: int


@pytest.fixture(scope="module")
def clean_runs(
    good_records: Callable[[str], list[Record]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Clean]:
    runs: dict[str, Clean] = {}

    def run(name: str) -> Clean:
        if name not in runs:
            folder, records = tmp_path_factory.mktemp(name), good_records(name)
            whole, rows = run_and_tabulate(FORMATS[name], folder, records)
            before, _ = run_and_tabulate(FORMATS[name], folder, records[: FORMATS[name].at])
            runs[name] = Clean(whole, rows, before.summary["chain_head"], before.summary["steps"])
        return runs[name]

    return run


def open_copy(form: Format, folder: Path, records: Sequence[Record]) -> DataSource:
    return open_source(form.write(folder, records), **form.options)


def run_copy(form: Format, folder: Path, records: Sequence[Record], **options: Any) -> Recorded:
    return run_opened(form, folder, open_copy(form, folder, records), **options)


def run_opened(form: Format, folder: Path, source: DataSource, **options: Any) -> Recorded:
    # A run is named by its data; here the same name shows that nothing else differs.
    options = {"run_id": "copy", "overwrite": True, **options}
    return decide_over(source, folder / "run", policy=form.policy, max_size_usd=form.max_size_usd, **options)


def run_and_tabulate(form: Format, folder: Path, records: Sequence[Record]) -> tuple[Recorded, bytes]:
    recorded = run_copy(form, folder, records)
    out = folder / "features.csv"
    written = write_feature_table(open_copy(form, folder, records), out, overwrite=True)
    assert written["rejected_events"] == recorded.summary["rejected_events"]
    return recorded, out.read_bytes()


def with_bad_record(damage: Damage, records: list[Record]) -> list[Record]:
    at = FORMATS[damage.format].at
    return [*records[:at], damage.make(records[at - 1]), *records[at:]]


def place_of(damage: Damage) -> str:
    form = FORMATS[damage.format]
    names = {"lobster": ("book.csv", "messages.csv"), "binance": ("capture.feed.gz",), "dbn": ("records.dbn",)}
    name = names.get(damage.format, (f"events.{damage.format}",))[damage.file]
    return f"{name}:{form.at + form.header + 1}: "


def test_the_copies_are_runs_with_orders(clean_runs: Callable[[str], Clean]) -> None:
    for name in FORMATS:
        clean = clean_runs(name)
        assert clean.whole.summary["rejected_events"] == {}
        assert clean.whole.summary["orders_submitted"] > 0, name
        assert 0 < clean.steps_before < clean.whole.summary["steps"]
        assert clean.rows.count(b"\n") == clean.whole.summary["steps"] + 1


def test_a_skipped_bad_record_is_counted_and_leaves_nothing_behind(
    damage: Damage,
    good_records: Callable[[str], list[Record]],
    clean_runs: Callable[[str], Clean],
    tmp_path: Path,
) -> None:
    clean = clean_runs(damage.format)
    records = with_bad_record(damage, good_records(damage.format))
    damaged, rows = run_and_tabulate(FORMATS[damage.format], tmp_path, records)
    assert damaged.summary["rejected_events"] == {damage.reason: 1}
    (place,) = damaged.summary["rejected_places"]
    assert place.startswith(place_of(damage))
    assert rows == clean.rows
    assert damaged.summary["chain_head"] == clean.whole.summary["chain_head"]
    assert damaged.summary["final_equity"] == clean.whole.summary["final_equity"]
    assert damaged.summary["stopped_reason"] == "source_exhausted"
    assert damaged.summary["error_count"] == 0


def test_stopping_at_a_bad_record_names_file_line_and_field(
    damage: Damage,
    good_records: Callable[[str], list[Record]],
    clean_runs: Callable[[str], Clean],
    tmp_path: Path,
) -> None:
    clean = clean_runs(damage.format)
    records = with_bad_record(damage, good_records(damage.format))
    stopped = run_copy(FORMATS[damage.format], tmp_path, records, on_bad_event="stop")
    reason = stopped.summary["stopped_reason"]
    assert reason.startswith("bad_event: " + place_of(damage))
    assert damage.field in reason
    assert "\n" not in reason
    assert stopped.summary["rejected_events"] == {damage.reason: 1}
    assert stopped.summary["steps"] == clean.steps_before
    assert stopped.summary["chain_head"] == clean.head_before


def test_a_record_whose_trade_cannot_be_read_still_gives_its_book(
    good_records: Callable[[str], list[Record]], tmp_path: Path
) -> None:
    form, records = FORMATS["dbn"], good_records("dbn")
    book = dbn_field(PRICE, 2**63 - 1)(records[form.at - 1])
    with_book = run_copy(form, tmp_path, [*records[: form.at], book, *records[form.at :]])
    bad = dbn_trade_without_price(records[form.at - 1])
    damaged = run_copy(form, tmp_path, [*records[: form.at], bad, *records[form.at :]])
    assert damaged.summary["rejected_events"] == {"missing_field": 1}
    assert damaged.summary["chain_head"] == with_book.summary["chain_head"]


# Bad times and the timers of a silent symbol. -------------------------------------------------------------------------


def test_a_refused_record_of_the_far_future_makes_no_timers(
    good_records: Callable[[str], list[Record]], clean_runs: Callable[[str], Clean], tmp_path: Path
) -> None:
    form, records = FORMATS["binance"], good_records("binance")
    bad = ticker(b="61790.20", later_ns=3_600 * NS)(records[form.at - 1])
    damaged, rows = run_and_tabulate(form, tmp_path, [*records[: form.at], bad, *records[form.at :]])
    clean = clean_runs("binance")
    assert damaged.summary["rejected_events"] == {"crossed_book": 1}
    assert rows == clean.rows
    assert facts_of(damaged.trace).time_backwards == 0
    assert damaged.summary["timer_count"] == clean.whole.summary["timer_count"]
    assert damaged.summary["chain_head"] == clean.whole.summary["chain_head"]


# What a refused or lost delta means. ----------------------------------------------------------------------------------


def depth(line: bytes) -> dict[str, Any] | None:
    message = json.loads(line.partition(b" ")[2])
    return message["data"] if "depth" in message.get("stream", "") else None


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"b": [["61790.00", "-1.0"]]}, "negative_size"),
        ({"b": [["99999.00", "1.0"]]}, "crossed_book"),
        ({"b": [["61790.05", "1.0"]]}, "off_grid"),
        ({"b": [["NaN", "1.0"]]}, "not_finite"),
        (None, "sequence_gap"),
    ],
    ids=["negative-size", "crossed", "off-grid", "nan", "lost"],
)
def test_after_a_refused_or_lost_delta_nothing_is_quoted_until_the_next_snapshot(
    good_records: Callable[[str], list[Record]], tmp_path: Path, fault: dict[str, Any] | None, reason: str
) -> None:
    form, records = FORMATS["binance"], list(good_records("binance"))
    at = next(number for number, line in enumerate(records) if number > form.at and depth(line))
    later = sum(depth(line) is not None for line in records[at + 1 :])
    if fault is None:
        del records[at]
    else:
        stamp, _, text = records[at].partition(b" ")
        message = json.loads(text)
        message["data"].update(fault)
        records[at] = b"%s %s" % (stamp, json.dumps(message, separators=(",", ":")).encode())
    damaged = run_copy(form, tmp_path, records)
    refused = damaged.summary["rejected_events"]
    if reason == "sequence_gap":
        assert refused == {"sequence_gap": later}
    else:
        assert refused == {reason: 1, "sequence_gap": later}
    before = run_copy(form, tmp_path, records[:at])
    assert before.summary["action_counts"].get("ACT", 0) > 0
    # Trades and tickers go on: they are steps, and all of them hold.
    assert damaged.summary["steps"] == len(records) - sum(refused.values()) - DROPPED_BEFORE_SNAPSHOT
    assert damaged.summary["action_counts"].get("ACT") == before.summary["action_counts"]["ACT"]
    assert damaged.summary["hold_reason_counts"]["staleness_exceeded"] > 0


# Of the 6 depth messages before the snapshot, 4 are older than it.
DROPPED_BEFORE_SNAPSHOT = 4


# Files that were cut. -------------------------------------------------------------------------------------------------


def cut_text(path: Path, keep: float) -> list[bytes]:
    """Cut a gzip file, and return the whole lines that it still holds."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    text = zlib.decompressobj(wbits=31).decompress(path.read_bytes())
    return text.split(b"\n")[:-1]


def compressed(path: Path) -> Path:
    target = path.with_name(f"{path.name}.gz")
    target.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return target


@pytest.mark.parametrize("name", ["binance", "jsonl", "csv"])
@pytest.mark.parametrize("on_bad_event", ["skip", "stop"])
def test_a_cut_gzip_is_read_to_the_cut_and_reported(
    name: str, on_bad_event: str, good_records: Callable[[str], list[Record]], tmp_path: Path
) -> None:
    form = FORMATS[name]
    path = form.write(tmp_path, good_records(name))
    if name != "binance":
        path = compressed(path)
    lines = cut_text(path, 0.6)
    cut = run_opened(form, tmp_path, open_source(path, **form.options), on_bad_event=on_bad_event)
    place = f"{path.name}:{len(lines) + 1}: gzip stream is cut"
    assert cut.summary["rejected_events"] == {"truncated": 1}
    assert cut.summary["rejected_places"][0].startswith(place)
    expected = {"skip": "source_exhausted", "stop": f"bad_event: {place}"}[on_bad_event]
    assert cut.summary["stopped_reason"].startswith(expected)
    whole = run_copy(form, tmp_path, lines[form.header :])
    assert whole.summary["rejected_events"] == {}
    assert cut.summary["chain_head"] == whole.summary["chain_head"]


@pytest.mark.parametrize("short", [0, 1], ids=["book", "messages"])
def test_a_lobster_pair_of_which_one_was_cut_is_read_to_the_cut_and_reported(
    short: int, good_records: Callable[[str], list[Record]], tmp_path: Path
) -> None:
    form, rows = FORMATS["lobster"], good_records("lobster")
    paths = form.write(tmp_path, rows)
    text = paths[short].read_bytes().splitlines(keepends=True)
    paths[short].write_bytes(b"".join(text[:500]))
    cut = run_opened(form, tmp_path, open_source(paths, **form.options), on_bad_event="stop")
    assert cut.summary["stopped_reason"].startswith(f"bad_event: {paths[short].name}:500: the file ends after row 500")
    assert cut.summary["rejected_events"] == {"truncated": 1}
    assert cut.summary["chain_head"] == run_copy(form, tmp_path, rows[:500]).summary["chain_head"]


@pytest.mark.parametrize("on_bad_event", ["skip", "stop"])
def test_a_cut_dbn_file_is_read_to_the_cut_and_reported(on_bad_event: str, data_dir: Path, tmp_path: Path) -> None:
    form, name = FORMATS["dbn"], FEEDS["es-mbp-1"].files[0]
    data = (data_dir / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) * 7 // 10])
    cut = run_opened(form, tmp_path, open_source(tmp_path / name, **form.options), on_bad_event=on_bad_event)
    steps, (place,) = cut.summary["steps"], cut.summary["rejected_places"]
    assert cut.summary["rejected_events"] == {"truncated": 1}
    assert place.startswith(f"{name}:")
    assert "zstd stream is cut" in place
    expected = {"skip": "source_exhausted", "stop": f"bad_event: {place}"}[on_bad_event]
    assert cut.summary["stopped_reason"] == expected
    assert 500 < steps < FEEDS["es-mbp-1"].steps
    whole = run_opened(form, tmp_path, open_source(data_dir / name, **form.options), steps=steps)
    assert whole.summary["chain_head"] == cut.summary["chain_head"]


def test_a_plain_dbn_file_cut_within_a_record_is_read_to_the_cut_and_reported(
    good_records: Callable[[str], list[Record]], tmp_path: Path
) -> None:
    form, records = FORMATS["dbn"], good_records("dbn")
    path = form.write(tmp_path, records[:500])
    path.write_bytes(path.read_bytes()[:-7])
    cut = run_opened(form, tmp_path, open_source(path, **form.options), on_bad_event="stop")
    assert cut.summary["stopped_reason"].startswith("bad_event: records.dbn:499: the file ends within a record")
    assert cut.summary["chain_head"] == run_copy(form, tmp_path, records[:499]).summary["chain_head"]


# Files that are not what they should be, before anything is started. --------------------------------------------------


def test_a_parquet_file_that_was_cut_is_refused_at_once(
    good_records: Callable[[str], list[Record]], tmp_path: Path
) -> None:
    path = FORMATS["parquet"].write(tmp_path, good_records("parquet"))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ConfigError, match=r"events\.parquet: is not a whole Parquet file"):
        open_source(path, **USDM)


@pytest.mark.parametrize("name", ["csv", "parquet"])
def test_a_table_without_a_time_column_is_refused_at_once(
    name: str, good_records: Callable[[str], list[Record]], tmp_path: Path
) -> None:
    path = FORMATS[name].write(tmp_path, good_records(name)[:10])
    if name == "csv":
        path.write_bytes(path.read_bytes().replace(b"recv_ts_ns", b"when", 1))
    else:
        from pyarrow import parquet

        table = parquet.read_table(path)
        parquet.write_table(table.rename_columns(["when", *COLUMNS[1:]]), path)
    with pytest.raises(ConfigError, match=rf"events\.{name}: no column is named"):
        open_source(path, **USDM)


def test_a_lobster_pair_in_the_wrong_order_is_refused_at_once(
    good_records: Callable[[str], list[Record]], tmp_path: Path
) -> None:
    book, messages = FORMATS["lobster"].write(tmp_path, good_records("lobster")[:10])
    with pytest.raises(ConfigError, match="BOOK,MESSAGES"):
        open_source((messages, book), date="2012-06-21")
