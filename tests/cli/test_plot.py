"""`ami plot` and `ami run --plot`, as typed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Ami

RUN = ("run", "--source", "synthetic", "--steps", 400, "--seed", 42)


def test_a_run_is_drawn_afterwards(ami: Ami, tmp_path: Path) -> None:
    run = ami(*RUN, "--run-dir", "here", "--json").document
    said = ami("plot", "here", "--json").document
    assert list(said) == ["out", "figures", "notes"]
    assert said["out"] == str(Path("here") / "picture.html")
    assert said["figures"]["fills"] == run["fills_count"]
    assert said["notes"] == []
    page = (tmp_path / "here" / "picture.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert run["run_id"] in page


def test_a_run_is_drawn_at_its_end(ami: Ami, tmp_path: Path) -> None:
    said = ami(*RUN, "--run-dir", "here", "--plot", "run.html", "--json").document
    assert said["plot_path"] == "run.html"
    assert said["run_id"] in (tmp_path / "run.html").read_text(encoding="utf-8")
    text = ami(*RUN, "--plot", "run.png", "--trace", "binary")
    assert (text.code, text.err) == (0, "")
    assert "picture" in text.out
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_it_says_what_was_drawn(ami: Ami) -> None:
    ami(*RUN, "--run-dir", "here")
    said = ami("plot", "here/traces.jsonl", "--out", "run.html")
    assert (said.code, said.err) == (0, "")
    labels = [line.split("  ")[0] for line in said.out.splitlines()]
    assert labels[:4] == ["picture", "run", "decisions", "time, UTC"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--plot", "run.html", "--no-trace"), "`--plot` draws the trace, and `--no-trace` writes none: leave one of"),
        (("--plot", "run.svg"), "a picture must be named .html or .png, was 'run.svg'"),
        (("--plot", "nowhere/run.html"), "the picture 'nowhere/run.html' cannot be written: there is no folder"),
    ],
)
def test_a_picture_that_could_not_be_drawn_is_refused_before_the_run(
    ami: Ami, tmp_path: Path, options: tuple[str, ...], error: str
) -> None:
    said = ami(*RUN, "--run-dir", "here", *options)
    assert said.code == 2
    assert said.error.startswith(error)
    assert not (tmp_path / "here").exists()


def test_an_absent_library_is_named_before_the_run(ami: Ami, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    said = ami(*RUN, "--run-dir", "here", "--plot", "run.html")
    assert (said.code, said.error) == (2, "drawing .html needs plotly: pip install 'mdm-engine[viz]'")
    assert not (tmp_path / "here").exists()


def test_a_run_that_cannot_be_drawn_is_summed_up_all_the_same(ami: Ami, tmp_path: Path) -> None:
    said = ami("run", "--steps", 0, "--run-dir", "here", "--plot", "run.html", "--json")
    assert said.code == 2
    assert said.document["steps"] == 0
    assert "plot_path" not in said.document
    assert said.error == "here: the trace holds no decision, there is nothing to draw"
    assert not (tmp_path / "run.html").exists()


def test_what_is_no_run_is_refused(ami: Ami, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "nowhere"):
        said = ami("plot", folder, "--out", "run.html")
        assert said.code == 2
        assert said.error.startswith(f"{folder} holds no trace to draw")
    ami(*RUN, "--run-dir", "untraced", "--no-trace")
    assert "no --no-trace" in ami("plot", "untraced", "--out", "run.html").error
