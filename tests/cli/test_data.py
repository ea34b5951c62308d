"""`ami data check`: the report, its exit codes and its picture."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import Ami, quote_line


def test_a_clean_file_is_0(ami: Ami, quotes: Path) -> None:
    said = ami("data", "check", quotes, "--tick-size", "0.01")
    assert (said.code, said.err) == (0, "")
    assert re.search(r"^events +200: 200 book_snapshot$", said.out, re.MULTILINE)
    assert re.search(r"^found +nothing$", said.out, re.MULTILINE)


def test_a_faulty_file_is_1_and_says_where(ami: Ami, bad_quotes: Path) -> None:
    said = ami("data", "check", bad_quotes)
    assert (said.code, said.err) == (1, "")
    assert re.search(r"^crossed +1 books .* at worst by 0.01; first at bad.jsonl:101$", said.out, re.MULTILINE)
    assert re.search(r"^unreadable +1 records .*first at bad.jsonl:151$", said.out, re.MULTILINE)
    assert re.search(r"^grid +not judged: no tick size was given", said.out, re.MULTILINE)


def test_json_is_the_report(ami: Ami, bad_quotes: Path) -> None:
    said = ami("data", "check", bad_quotes, "--json")
    assert said.code == 1
    document = said.document
    assert (document["ok"], document["events"]) == (False, 201)
    assert {found["kind"]: found["count"] for found in document["findings"]} == {"unreadable": 1, "crossed": 1}


@pytest.mark.parametrize("arguments", [("absent.jsonl",), ("quotes.txt",), ("quotes.jsonl", "--plot", "x.svg")])
def test_what_cannot_be_read_is_2(ami: Ami, quotes: Path, arguments: tuple[str, ...]) -> None:
    said = ami("data", "check", *arguments)
    assert said.code == 2
    assert said.error
    assert said.out == ""


def test_a_file_of_which_nothing_can_be_read_is_2(ami: Ami, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"bid": 1, "ask": \n{"bid"\n')
    said = ami("data", "check", path)
    assert (said.code, "x.jsonl: cannot be read" in said.error) == (2, True)


def test_silence_is_what_the_option_says(ami: Ami, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(quote_line(0) + "\n" + quote_line(50) + "\n")
    assert ami("data", "check", path).code == 0
    assert ami("data", "check", path, "--silence-ms", 400).code == 1
    assert ami("data", "check", path, "--silence-ms", 0).code == 0


def test_a_picture_needs_nothing_beside_it(ami: Ami, bad_quotes: Path, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    said = ami("data", "check", bad_quotes, "--plot", tmp_path / "picture.html")
    assert said.code == 1
    page = (tmp_path / "picture.html").read_text()
    assert "bad.jsonl: 201 events" in page
    assert "crossed 1" in page
    assert "first at bad.jsonl:101" in page
    assert not re.search(r"<script[^>]+src=", page)


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("plotly", ("data", "check", "quotes.jsonl", "--plot", "x.html"), "viz"),
        ("pyarrow", ("convert", "quotes.jsonl", "x.parquet"), "data"),
        ("pyarrow", ("data", "check", "y.parquet"), "data"),
        ("databento_dbn", ("data", "check", "y.dbn"), "data"),
    ],
)
def test_an_absent_extra_is_named_in_one_line(
    ami: Ami, quotes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, arguments: Any, extra: str
) -> None:
    (tmp_path / "y.parquet").write_bytes(b"PAR1")
    (tmp_path / "y.dbn").write_bytes(b"DBN")
    for name in [module, *(known for known in sys.modules if known.startswith(f"{module}."))]:
        monkeypatch.setitem(sys.modules, name, None)  # what Python takes for a module that is not there
    said = ami(*arguments)
    assert (said.code, f"pip install 'mdm-engine[{extra}]'" in said.error) == (2, True)
    assert not (tmp_path / "x.html").exists()
    assert not (tmp_path / "x.parquet").exists()
