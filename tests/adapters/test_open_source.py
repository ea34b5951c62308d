"""One door to every format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ami_engine.adapters.column_map import ColumnMap
from ami_engine.adapters.open_source import guess_format, open_source
from ami_engine.errors import ConfigError
from ami_engine.units import Instrument

QUOTE = '{"bid":0.49,"ask":0.51,"ts_ms":5}\n'
BOOK = "5859400,200,5853300,18\n"
MESSAGE = "34200.5,1,7,18,5853300,1\n"


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.jsonl", "jsonl"),
        ("a.ndjson.gz", "jsonl"),
        ("A.CSV", "csv"),
        ("a.csv.gz", "csv"),
        ("a.parquet", "parquet"),
        ("a.dbn", "dbn"),
        ("a.mbo.dbn.zst", "dbn"),
    ],
)
def test_a_format_is_guessed_from_names_that_leave_no_doubt(name: str, format: str) -> None:
    assert guess_format(name) == format


@pytest.mark.parametrize("name", ["a.gz", "a.feed.gz", "a.zst", "a.txt", "csv", "a.json"])
def test_other_names_must_be_told(name: str) -> None:
    with pytest.raises(ConfigError, match="pass `format`, one of jsonl, csv, parquet, lobster, binance, tardis"):
        guess_format(name)


def test_every_recorded_format_opens(data_dir: Path) -> None:
    opened = {
        "binance": open_source(data_dir / "binance-spot-btcusdt-20240808.feed.gz", format="binance"),
        "dbn": open_source(data_dir / "nautilus-esh4-20231225.mbo.dbn.zst"),
        "lobster": open_source(
            f"{data_dir}/lobster-aapl-20120621-book10.csv,{data_dir}/lobster-aapl-20120621-msg10.csv", date="2012-06-21"
        ),
    }
    for source in opened.values():
        event: Any = source.next_event()
        assert event is not None
        assert event.recv_ts_ns > 0
        assert not source.is_live
        assert source.place()[1] >= 1
        source.close()
    assert {name: source.snapshots_only for name, source in opened.items()} == {
        "binance": False,
        "dbn": True,
        "lobster": True,
    }
    assert {name: bool(source.unique_seq) for name, source in opened.items()} == {
        "binance": True,
        "dbn": False,
        "lobster": False,
    }


def test_a_pair_is_lobster_however_it_is_written(tmp_path: Path, drain: Callable[..., Any]) -> None:
    book, messages = write(tmp_path, "b.csv", BOOK), write(tmp_path, "m.csv", MESSAGE)
    for pair in ((book, messages), f"{book},{messages}"):
        events, errors = drain(open_source(pair, date="2012-06-21", symbol="AAPL"))
        assert ([event.symbol for event in events], errors) == (["AAPL"], [])


def test_a_declared_tick_size_is_the_instruments(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", QUOTE)
    source = open_source(path, symbol="X", tick_size=0.25)
    assert source.instruments() == {"X": Instrument("X", tick_size=0.25)}
    source.close()
    source = open_source(path, tick_size=0.25)
    assert source.instruments()[""].tick_size == 0.25
    source.close()
    source = open_source(path)
    assert source.instruments() == {}
    source.close()


def test_a_tick_size_without_a_symbol_is_of_the_symbols_that_the_file_names(data_dir: Path) -> None:
    for name, symbol in (
        ("binance-coinm-btcusd_perp-20240808.feed.gz", "BTCUSD_PERP"),
        ("nautilus-esh4-20231225.mbo.dbn.zst", "ESH4"),
    ):
        source = open_source(data_dir / name, format="binance" if "binance" in name else None, tick_size=0.5)
        assert source.instruments() == {symbol: Instrument(symbol, tick_size=0.5)}
        source.close()


def test_one_declared_instrument_names_a_feed_that_names_nothing(tmp_path: Path, drain: Callable[..., Any]) -> None:
    book, messages = write(tmp_path, "b.csv", BOOK), write(tmp_path, "m.csv", MESSAGE)
    declared = write(tmp_path, "aapl.toml", 'symbol = "AAPL"\ntick_size = 0.01\n')
    source = open_source((book, messages), date="2012-06-21", instrument=declared)
    assert source.instruments() == {"AAPL": Instrument("AAPL", tick_size=0.01)}
    assert drain(source)[0][0].symbol == "AAPL"
    columns = write(
        tmp_path, "map.toml", 'kind="quote"\ntime_unit="ms"\nprice_scale=1\n[columns]\nts="t"\nbid="b"\nask="a"\n'
    )
    source = open_source(write(tmp_path, "q.csv", "t,b,a\n1,2,3\n"), columns=columns, instrument=Instrument("X"))
    assert drain(source)[0][0].symbol == "X"


def test_identity_names_content_and_no_folder(tmp_path: Path) -> None:
    identities = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        source = open_source(write(tmp_path / folder, "x.jsonl", QUOTE))
        identities.append(source.identity)
        source.close()
    assert identities[0] == identities[1]
    assert identities[0].startswith("x.jsonl:34:")
    assert str(tmp_path) not in identities[0]


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        (
            "a.jsonl",
            {"format": "kdb"},
            "`format` must be one of jsonl, csv, parquet, .*, numpy, was 'kdb'",
        ),
        ("a.jsonl", {"format": "lobster"}, "format 'lobster' takes BOOK,MESSAGES"),
        (("a.jsonl", "b.jsonl"), {"format": "jsonl"}, "format 'jsonl' takes one file"),
        (("a", "b", "c"), {}, "a source is one file or the pair BOOK,MESSAGES, was 3 paths"),
        ("a.jsonl", {"columns": "map.toml"}, "`columns` says what the columns of csv and parquet files are"),
        ("absent.jsonl", {}, r"absent\.jsonl: cannot be read"),
        ("absent.dbn", {}, r"absent\.dbn: cannot be read"),
        ("absent.parquet", {}, r"absent\.parquet: cannot be read"),
        (("absent.csv", "b.csv"), {"date": "2012-06-21"}, r"absent\.csv: cannot be read"),
        ("a.jsonl", {"instrument": "none.toml"}, r"none\.toml: cannot be read"),
        ("a.csv", {"columns": "none.toml", "format": "csv"}, r"none\.toml: cannot be read"),
    ],
)
def test_what_cannot_be_opened_is_a_config_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Any, options: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "a.jsonl", QUOTE)
    with pytest.raises(ConfigError, match=message):
        open_source(path, **options)


def test_a_column_map_may_be_given_as_a_struct(tmp_path: Path, drain: Callable[..., Any]) -> None:
    columns = ColumnMap(kind="quote", time_unit="ms", price_scale=1, columns={"ts": "t", "bid": "b", "ask": "a"})
    events, _ = drain(open_source(write(tmp_path, "q.csv", "t,b,a\n1,2,3\n"), columns=columns))
    assert (events[0].bid, events[0].ask) == (2.0, 3.0)


@pytest.mark.parametrize("said_in_map", ["", 'bar_time = "close"\n', 'bar_time = "open"\nbar_seconds = 900\n'])
def test_what_a_map_leaves_open_of_bars_may_be_said_beside_it(tmp_path: Path, said_in_map: str) -> None:
    (tmp_path / "bars.csv").write_text("when,o,h,l,c\n2024-01-01 00:00:00+00:00,1.0,2.0,0.5,1.5\n")
    (tmp_path / "bars.toml").write_text(
        f'kind = "bar"\ntime_unit = "iso"\nprice_scale = 1\nsymbol = "X"\n{said_in_map}'
        '[columns]\nts = "when"\nopen = "o"\nhigh = "h"\nlow = "l"\nclose = "c"\n'
    )
    midnight = 1_704_067_200_000_000_000
    for bar_time, closed_ns in (("open", midnight + 60_000_000_000), ("close", midnight)):
        source = open_source(
            tmp_path / "bars.csv",
            columns=tmp_path / "bars.toml",
            tick_size=0.5,
            bar_time=bar_time,
            interval_ms=60_000,
        )
        assert source.next_event().recv_ts_ns == closed_ns
        source.close()
    if not said_in_map:
        with pytest.raises(ConfigError, match=r'`bar_time` must be "close" or "open" for bars'):
            open_source(tmp_path / "bars.csv", columns=tmp_path / "bars.toml", tick_size=0.5)


@pytest.mark.parametrize("length", ["bar_seconds = -60", "bar_seconds = nan", 'bar_seconds = "60"', "interval_ms = 0"])
def test_a_length_that_is_none_is_named_with_its_file(tmp_path: Path, length: str) -> None:
    (tmp_path / "bars.csv").write_text("when,o,h,l,c\n")
    path = write(tmp_path, "bars.toml", f'kind = "bar"\n{length}\n')
    with pytest.raises(ConfigError, match=rf"bars.toml: `{length.split()[0]}` must be finite and > 0"):
        open_source(tmp_path / "bars.csv", columns=path, bar_time="open")


@pytest.mark.parametrize("length", ["bar_seconds = 900", "interval_ms = 900000"])
@pytest.mark.parametrize("bar_time", ["", 'bar_time = "close"\n'])
def test_the_length_that_a_map_says_is_not_said_again(tmp_path: Path, length: str, bar_time: str) -> None:
    (tmp_path / "bars.csv").write_text("when,o,h,l,c\n2024-01-01 00:00:00+00:00,1.0,2.0,0.5,1.5\n")
    path = write(
        tmp_path,
        "bars.toml",
        f'kind = "bar"\ntime_unit = "iso"\nprice_scale = 1\nsymbol = "X"\n{bar_time}{length}\n'
        '[columns]\nts = "when"\nopen = "o"\nhigh = "h"\nlow = "l"\nclose = "c"\n',
    )
    source = open_source(tmp_path / "bars.csv", columns=path, tick_size=0.5, bar_time="open")
    assert source.next_event().recv_ts_ns == 1_704_067_200_000_000_000 + 900_000_000_000
    source.close()
