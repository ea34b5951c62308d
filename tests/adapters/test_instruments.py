"""Instrument files."""

from __future__ import annotations

from pathlib import Path

import pytest

from ami_engine.adapters.instruments import instrument_from_toml
from ami_engine.errors import ConfigError
from ami_engine.units import Instrument

PERP = Instrument("BTCUSD_PERP", tick_size=0.1, lot_size=1.0, multiplier=100.0, kind="inverse", currency="BTC")
KEYS = 'symbol = "BTCUSD_PERP"\ntick_size = 0.1\nlot_size = 1\nmultiplier = 100\nkind = "inverse"\ncurrency = "BTC"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "instruments.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("head", ["", "[instrument]\n", "[[instrument]]\n"])
def test_one_instrument_may_stand_flat_or_in_a_table(tmp_path: Path, head: str) -> None:
    assert instrument_from_toml(write(tmp_path, head + KEYS)) == {"BTCUSD_PERP": PERP}


def test_several_instruments(tmp_path: Path) -> None:
    text = f'[[instrument]]\n{KEYS}\n[[instrument]]\nsymbol = "ESH4"\ntick_size = 0.25\n'
    assert instrument_from_toml(write(tmp_path, text)) == {
        "BTCUSD_PERP": PERP,
        "ESH4": Instrument("ESH4", tick_size=0.25),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (KEYS + "color = 1", "instrument 1: .*there is no key `color`"),
        ("[instrument]\n" + KEYS + "[other]\nx = 1", "unknown key `other` beside `instrument`"),
        ("tick_size = 0.1", "instrument 1: .*`symbol`"),
        ('symbol = "X"\ntick_size = 0', "instrument 1: `tick_size` .* must be finite and > 0, was 0"),
        ('symbol = "X"\ntick_size = "small"', "instrument 1: .*tick_size"),
        ('symbol = "X"\nkind = "perpetual"', "instrument 1: .*perpetual"),
        (f"[[instrument]]\n{KEYS}[[instrument]]\n{KEYS}", "`symbol` 'BTCUSD_PERP' is given twice"),
        ("", "not empty"),
        ("instrument = 3", "must be a table"),
        ("symbol = ", "is not valid TOML"),
    ],
)
def test_a_wrong_file_names_itself_and_the_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"instruments\.toml: {message}|instruments\.toml: .*{message}"):
        instrument_from_toml(write(tmp_path, text))


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read"):
        instrument_from_toml(tmp_path / "none.toml")
