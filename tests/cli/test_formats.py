"""A file of every format through check, features, run and convert; features are the same before and after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from .conftest import Ami, quote_line

T0 = 1_723_161_255_000


class Feed(NamedTuple):
    """A file, and what must be said to read it."""

    source: str
    options: tuple[str, ...]


def _lines(path: Path, *lines: str) -> str:
    path.write_text("".join(line + "\n" for line in lines))
    return str(path)


def _jsonl(folder: Path) -> Feed:
    return Feed(_lines(folder / "in.jsonl", *(quote_line(number) for number in range(120))), ("--tick-size", "0.01"))


def _csv(folder: Path) -> Feed:
    rows = [f"{T0 + 10 * n};0.{49 - n % 3};0.51;{20 + n};{30 + n % 7}" for n in range(120)]
    columns = _lines(
        folder / "map.toml",
        'kind = "quote"\ntime_unit = "ms"\nprice_scale = 1\ndelimiter = ";"\nsymbol = "X"\n[columns]',
        'ts = "t"\nbid = "b"\nask = "a"\nbid_depth = "bs"\nask_depth = "as"',
    )
    return Feed(_lines(folder / "in.csv", "t;b;a;bs;as", *rows), ("--columns", columns, "--tick-size", "0.01"))


def _bars(folder: Path) -> Feed:
    rows = [f"{T0 + 60_000 * n},1,{2 + n % 5},0.5,{1 + n % 3 / 4},7" for n in range(120)]
    options = ("--bar-time", "open", "--interval-ms", "60000", "--tick-size", "0.25")
    return Feed(_lines(folder / "in.csv", "ts_ms,open,high,low,close,volume", *rows), options)


def _klines(folder: Path) -> Feed:
    rows = [
        f"{T0 + 60_000 * n},1.0,{2 + n % 5},0.5,{1 + n % 3 / 4},7,{T0 + 60_000 * n + 59_999},0,1,0,0,0"
        for n in range(120)
    ]
    return Feed(_lines(folder / "in.csv", *rows), ("--format", "klines", "--symbol", "X", "--tick-size", "0.25"))


def _tardis(folder: Path) -> Feed:
    head = "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount"
    start = [f"v,X,{T0}000,{T0}000,true,{side},{price},{n}" for n in range(1, 6) for side, price in
             (("bid", 100 - n), ("ask", 100 + n))]  # fmt: skip
    rows = [f"v,X,{T0 + n}000,{T0 + n}050,false,{'bid' if n % 2 else 'ask'},{99 if n % 2 else 101},{n}" for n in
            range(1, 120)]  # fmt: skip
    return Feed(_lines(folder / "in.csv", head, *start, *rows), ("--format", "tardis", "--tick-size", "0.5"))


def _hft(folder: Path) -> Feed:
    fields = [("ev", "<u8"), ("exch_ts", "<i8"), ("local_ts", "<i8"), ("px", "<f8"), ("qty", "<f8")]
    fields += [("order_id", "<u8"), ("ival", "<i8"), ("fval", "<f8")]
    both, buy, sell = (1 << 31) | (1 << 30), 1 << 29, 1 << 28
    rows = [(both | 3, 0, 0.0, 0.0), (both | 4 | buy, 0, 99.0, 1.0), (both | 4 | sell, 0, 101.0, 2.0)]
    rows += [(both | 1 | buy, n, 98.0 + n % 2 / 2, 1.0 + n) for n in range(1, 80)]
    rows += [(both | 2 | sell, 80 + n, 99.0, 0.5) for n in range(40)]
    table = np.zeros(len(rows), fields)
    for place, (flags, ms, price, size) in enumerate(rows):
        stamp = (T0 + ms) * 1_000_000
        table[place] = (flags, stamp, stamp, price, size, 0, 0, 0.0)
    np.savez_compressed(folder / "in.npz", data=table)
    return Feed(str(folder / "in.npz"), ("--symbol", "X", "--tick-size", "0.5"))


MADE: dict[str, Callable[[Path], Feed]] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "bars": _bars,
    "klines": _klines,
    "tardis": _tardis,
    "hftbacktest": _hft,
}

RECORDED: dict[str, tuple[str, tuple[str, ...]]] = {
    "lobster": (
        "lobster-aapl-20120621-book10.csv,lobster-aapl-20120621-msg10.csv",
        ("--date", "2012-06-21", "--symbol", "AAPL", "--tick-size", "0.01"),
    ),
    "binance": ("binance-spot-btcusdt-20240808.feed.gz", ("--format", "binance", "--tick-size", "0.01")),
    "tardis snapshots": (
        "tardis-binance-futures-btcusdt-20200901-snapshot25.csv",
        ("--format", "tardis", "--tick-size", "0.01"),
    ),
    "tardis level 2": (
        "tardis-deribit-btc-perpetual-20200401-l2.csv",
        ("--format", "tardis", "--tick-size", "0.5"),
    ),
    "tardis quotes": ("tardis-huobi-btc-usd-20200501-quotes.csv", ("--format", "tardis", "--tick-size", "0.1")),
    "tardis trades": ("tardis-bitmex-xbtusd-20200301-trades.csv", ("--format", "tardis", "--tick-size", "0.5")),
    "dbn mbp-1": ("nautilus-esu4-20240701.mbp-1.dbn.zst", ("--tick-size", "0.25")),
    "dbn trades": ("nautilus-esu4-20240701.trades.dbn.zst", ("--tick-size", "0.25")),
    "dbn tbbo": ("dbn/test_data.tbbo.v3.dbn.zst", ("--tick-size", "0.25")),
    "dbn ohlcv": ("dbn/test_data.ohlcv-1m.v3.dbn.zst", ("--tick-size", "0.25")),
}


def features(ami: Ami, source: object, out: Path, *options: str) -> str:
    said = ami("features", "--source", source, "--out", out, "--overwrite", "--json", *options)
    assert (said.code, said.err) == (0, "")
    assert said.document["rows"] > 0 or said.document["rejected_events"]
    return out.read_text()


def through_everything(ami: Ami, feed: Feed, folder: Path) -> None:
    checked = ami("data", "check", feed.source, "--json", *feed.options)
    assert checked.code in (0, 1)
    assert checked.document["events"] > 0
    before = features(ami, feed.source, folder / "before.csv", *feed.options)
    assert before.count("\n") >= 2 or checked.document["events"] == 1
    ran = ami("run", "--source", feed.source, "--steps", 200, "--no-trace", "--json", *feed.options)
    assert ran.code == 0
    assert ran.document["steps"] > 0 or ran.document["rejected_events"]
    last = feed.source
    options: tuple[str, ...] = feed.options
    for ending in (".parquet", ".jsonl", ".npz", ".csv"):
        out = folder / f"converted{ending}"
        done = ami("convert", last, out, "--json", *options)
        assert (done.code, done.err) == (0, "")
        assert (done.document["dropped"], done.document["unreadable"]) == ({}, {})
        # What we write says itself what it is: no options from here on.
        last, options = str(out), ()
        assert features(ami, out, folder / "after.csv") == before


@pytest.mark.parametrize("name", MADE)
def test_a_made_file_of_every_format(ami: Ami, tmp_path: Path, name: str) -> None:
    pytest.importorskip("pyarrow")
    through_everything(ami, MADE[name](tmp_path), tmp_path)


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_file_of_every_format(ami: Ami, tmp_path: Path, data_dir: Path, name: str) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("databento_dbn")
    files, options = RECORDED[name]
    source = ",".join(str(data_dir / part) for part in files.split(","))
    through_everything(ami, Feed(source, options), tmp_path)


def test_convert_says_what_it_did(ami: Ami, quotes: Path, tmp_path: Path) -> None:
    said = ami("convert", quotes, tmp_path / "out.csv")
    assert (said.code, said.out, said.err) == (0, f"200 events in {tmp_path}/out.csv: 200 book_snapshot\n", "")
    again = ami("convert", quotes, tmp_path / "out.csv")
    assert (again.code, "exists already; pass `--overwrite`" in again.error) == (2, True)
    assert ami("convert", quotes, tmp_path / "out.csv", "--overwrite").code == 0


def test_convert_tells_what_it_could_not_keep(ami: Ami, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(quote_line(0) + '\n{"value": 3, "ts_ms": 5}\n{"bid": "many", "ask": 2, "ts_ms": 6}\n')
    said = ami("convert", path, tmp_path / "out.npz")
    assert said.code == 0
    assert said.err.splitlines() == [
        "ami: dropped: 1 generic, which .npz cannot hold",
        "ami: not read: 1 records, wrong_type",
        "ami: not read: in.jsonl:3: `bid` must be a number, was 'many'",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("absent.jsonl", "out.csv"), "absent.jsonl: cannot be read"),
        (("quotes.jsonl", "out.xlsx"), "`out` must end in .jsonl, .csv, .parquet, .npz"),
        (("synthetic", "out.csv"), "takes a recording or a trace"),
        (("quotes.jsonl", "nowhere/out.csv"), "nowhere/out.csv.part: No such file or directory"),
        (("quotes.jsonl", "out.csv", "--bar-time", "close"), "`--bar-time` is for csv, parquet, numpy"),
    ],
)
def test_what_cannot_be_converted_is_one_line(ami: Ami, quotes: Path, arguments: tuple[Any, ...], message: str) -> None:
    said = ami("convert", *arguments)
    assert (said.code, message in said.error, said.out) == (2, True, "")
