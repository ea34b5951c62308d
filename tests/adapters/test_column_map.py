"""Column maps: what is declared is checked when the map is read, not when the first row fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from ami_engine.adapters.column_map import ColumnMap, LevelColumns
from ami_engine.errors import ConfigError

QUOTES = """
kind = "quote"
time_unit = "ms"
price_scale = 1e-4
[columns]
ts = "t"
bid = "b"
ask = "a"
"""


def read(folder: Path, text: str) -> ColumnMap:
    path = folder / "map.toml"
    path.write_text(text)
    return ColumnMap.from_toml(path)


def test_a_map_is_read_from_toml(tmp_path: Path) -> None:
    columns = read(tmp_path, QUOTES)
    assert (columns.kind, columns.time_unit, columns.price_scale, columns.header) == ("quote", "ms", 1e-4, True)
    assert columns.resolve(["a", "x", "b", "t"]).fields == {"ts": 3, "bid": 2, "ask": 0}


def test_patterns_and_lists_name_levels(tmp_path: Path) -> None:
    text = """
    kind = "levels"
    time_unit = "us"
    price_scale = 1
    [columns]
    ts = "t"
    [levels]
    count = 2
    bid_price = "bids[{i}].price"
    bid_size = "bids[{i}].amount"
    ask_price = ["ap", "ap2"]
    ask_size = ["as", "as2"]
    """
    names = ["t", "ap", "as", "bids[0].price", "bids[0].amount", "bids[1].price", "bids[1].amount", "ap2", "as2"]
    assert read(tmp_path, text).resolve(names).levels == {
        "bid_price": (3, 5),
        "bid_size": (4, 6),
        "ask_price": (1, 7),
        "ask_size": (2, 8),
    }


def test_the_unit_of_time_and_of_price_must_be_declared(tmp_path: Path) -> None:
    for key in ("time_unit", "price_scale", "kind"):
        text = "\n".join(line for line in QUOTES.splitlines() if not line.startswith(key))
        with pytest.raises(ConfigError, match=rf"map\.toml: .*`{key}`"):
            read(tmp_path, text)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kind = "quote"', 'kind = "quote"\ncolour = 1', "there is no key `colour`"),
        ('kind = "quote"', 'kind = "quotes"', "quotes"),
        ('"ms"', '"minutes"', "minutes"),
        ("1e-4", "0", "`price_scale` must be finite and > 0, was 0"),
        ("1e-4", "nan", "`price_scale` must be finite and > 0, was nan"),
        ("1e-4", '"tick"', "price_scale"),
        ('kind = "quote"', 'kind = "quote"\ndelimiter = "::"', "`delimiter` must be one character, was '::'"),
        ('kind = "quote"', 'kind = "trade"', "unknown key `columns.bid` for kind 'trade'"),
        ('bid = "b"', "", r"`columns\.bid` is needed for kind 'quote'"),
        ('ts = "t"', "", "`columns` must name a time"),
        ('kind = "quote"', "kind = ", "is not valid TOML"),
        ('ask = "a"', 'ask = "a"\n[levels]\nbid_price=[1]\nbid_size=[2]\nask_price=[3]\nask_size=[4]', "for no other"),
        ('ask = "a"', 'ask = "a"\n[aggressor]\nbuy = 2', r"`aggressor\.buy` must be 1, -1 or 0, was 2"),
    ],
)
def test_a_wrong_map_names_file_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in QUOTES
    with pytest.raises(ConfigError, match=rf"map\.toml: .*{message}"):
        read(tmp_path, QUOTES.replace(old, new))


def test_bars_must_say_which_end_they_are_stamped_at(tmp_path: Path) -> None:
    text = (
        'kind = "bar"\ntime_unit = "s"\nprice_scale = 1\n{}\n[columns]\nts = 0\nopen = 1\nhigh = 2\nlow = 3\nclose = 4'
    )
    with pytest.raises(ConfigError, match="`bar_time` must be"):
        read(tmp_path, text.format(""))
    with pytest.raises(ConfigError, match="`bar_seconds` must be > 0"):
        read(tmp_path, text.format('bar_time = "open"'))
    assert read(tmp_path, text.format('bar_time = "open"\nbar_seconds = 60')).bar_seconds == 60.0


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ({"bid_price": ["a"], "bid_size": ["b"], "ask_price": ["c"], "ask_size": ["d", "e"]}, "as many columns"),
        ({"bid_price": [], "bid_size": [], "ask_price": [], "ask_size": []}, "at least 1"),
        ({"bid_price": "b{i}", "bid_size": ["b"], "ask_price": ["c"], "ask_size": ["d"]}, "`levels.count` must be"),
        ({"bid_price": "b", "bid_size": ["b"], "ask_price": ["c"], "ask_size": ["d"], "count": 1}, "or hold {i}"),
    ],
)
def test_wrong_levels_are_refused(levels: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LevelColumns(**levels)  # type: ignore[arg-type]


def test_a_column_that_the_file_does_not_have_is_named(tmp_path: Path) -> None:
    columns = read(tmp_path, QUOTES)
    with pytest.raises(ConfigError, match="column 'b' of `bid` is not there; there are t, a"):
        columns.resolve(["t", "a"])
    with pytest.raises(ConfigError, match="column 't' of `ts` must be a position: the file has no header"):
        columns.resolve(None)
    by_place = read(tmp_path, QUOTES.replace('"b"', "7"))
    with pytest.raises(ConfigError, match="column 7 of `bid` is not there: columns are counted from 0"):
        by_place.resolve(["t", "a"])
