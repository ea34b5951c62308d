"""A picture's figures are those of the run, whatever form the trace has and whatever is left out of the lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ami_engine.adapters.base import DataSource
from ami_engine.errors import ConfigError, TraceError
from ami_engine.events import GenericEvent
from ami_engine.loop.run_loop import run_loop
from ami_engine.ops.activity import ACTIVITY_FILE_NAME
from ami_engine.pictures import collect
from ami_engine.pictures.collect import collect_picture
from ami_engine.pictures.panels import panels_of
from ami_engine.sim.paper_broker import PaperBroker
from tests.pictures.conftest import NASTY, synthetic_run

PlainRun = tuple[Path, dict[str, Any]]


def test_the_figures_are_those_of_the_run(plain_run: PlainRun) -> None:
    folder, summary = plain_run
    picture = collect_picture(folder)
    figures = picture.figures
    assert picture.title == summary["run_id"]
    assert (figures["events"], figures["timers"]) == (summary["steps"], summary["timer_count"])
    assert figures["packets"] == sum(figures["actions"].values())
    assert (figures["fills"], figures["equity_last"]) == (summary["fills_count"], summary["final_equity"])
    assert figures["max_drawdown"] == pytest.approx(summary["max_drawdown"])
    fired = {code: spells.count for code, spells in picture.guards.items()}
    assert fired == summary["mismatch_reason_counts"]
    assert dict(picture.about)["policy"] == summary["policy_hash"]
    assert picture.latency["step"].count == figures["packets"]
    assert set(picture.latency) == {"step", "observe", "fills", "decide", "orders"}
    (market,) = picture.markets
    assert (market.name, market.fills.count) == ("SYNTH", summary["fills_count"])
    assert market.position.points()[-1][1] == summary["positions"]["SYNTH"]


def test_a_binary_trace_in_many_files_gives_the_same_picture(tmp_path: Path, plain_run: PlainRun) -> None:
    synthetic_run(tmp_path, trace="binary", trace_max_bytes=200_000)
    binary, lines = collect_picture(tmp_path), collect_picture(plain_run[0])
    binary.figures.pop("latency_us")
    lines.figures.pop("latency_us")
    assert binary.figures == lines.figures
    assert binary.markets[0].mid.points() == lines.markets[0].mid.points()
    assert binary.equity.points() == lines.equity.points()


def test_long_runs_keep_their_extremes_and_say_what_is_left_out(
    plain_run: PlainRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = collect_picture(plain_run[0])
    for name, value in (("_BUCKETS", 20), ("_SPELLS", 10), ("ROW_BARS", 5), ("MAX_FILLS", 30)):
        monkeypatch.setattr(collect, name, value)
    short = collect_picture(plain_run[0])
    assert short.figures == whole.figures
    for one, other in ((short.equity, whole.equity), (short.markets[0].mid, whole.markets[0].mid)):
        few, all_ = one.points(), other.points()
        assert len(few) <= 80 < len(all_)
        assert (min(y for _, y in few), max(y for _, y in few)) == (min(y for _, y in all_), max(y for _, y in all_))
    assert len(short.markets[0].fills) <= 30 < short.markets[0].fills.count
    said = " ".join(short.notes)
    assert "first, lowest, highest and last point" in said
    assert f"of {short.markets[0].fills.count:,} fills are drawn, evenly chosen (at most 30)" in said
    assert "Rows with more than 5 spells are drawn as stretches" in said
    assert whole.notes == []


def test_without_its_activity_a_run_is_drawn_and_the_page_says_what_is_missing(tmp_path: Path) -> None:
    synthetic_run(tmp_path, activity=False)
    picture = collect_picture(tmp_path)
    assert picture.figures["fills"] is None
    assert "kept no activity file" in picture.notes[0]
    assert max(y for _, y in picture.markets[0].position.points()) > 0


def test_what_stands_before_damage_is_shown_and_the_page_says_so(tmp_path: Path) -> None:
    synthetic_run(tmp_path, steps=200)
    path = tmp_path / "traces.jsonl"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    picture = collect_picture(tmp_path)
    assert 50 < picture.figures["packets"] < 350
    assert any("damaged" in note and "torn_line" in note for note in picture.notes)
    path.write_bytes(b'{"mid": ')
    with pytest.raises(TraceError, match="torn_line"):
        collect_picture(tmp_path)


def test_a_trace_without_its_beginning_says_where_it_begins(tmp_path: Path) -> None:
    synthetic_run(tmp_path, trace_max_bytes=300_000, trace_max_files=2)
    picture = collect_picture(tmp_path)
    assert picture.figures["first_step"] > 0
    assert any("older files were rotated away" in note for note in picture.notes)
    first = picture.figures["first_ns"] / 1e6
    assert all(x >= first for x, _ in picture.markets[0].position.points())


def test_a_damaged_activity_file_is_named(tmp_path: Path) -> None:
    synthetic_run(tmp_path, steps=50)
    (tmp_path / ACTIVITY_FILE_NAME).write_text('{"kind":"fill"}\n')
    with pytest.raises(TraceError, match=r"activity.jsonl:1"):
        collect_picture(tmp_path)


def test_markets_beyond_the_first_ones_are_counted_and_not_drawn(
    nasty_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [market.name for market in collect_picture(nasty_run).markets] == list(NASTY)
    monkeypatch.setattr(collect, "MAX_MARKETS", 1)
    picture = collect_picture(nasty_run)
    assert [market.name for market in picture.markets] == [NASTY[0]]
    assert "The first 1 markets are drawn, 1 are not" in " ".join(picture.notes)
    assert picture.figures["fills"] > picture.markets[0].fills.count


def test_an_unguarded_run_has_prices_and_no_equity(tmp_path: Path) -> None:
    synthetic_run(tmp_path, modulator=None)
    picture = collect_picture(tmp_path)
    assert picture.equity.count == 0
    assert picture.figures["equity_last"] is None
    assert len(picture.markets[0].mid.points()) > 10
    assert dict(picture.about)["policy"] == "unguarded"


def test_a_run_of_another_domain_has_decisions_and_no_prices(tmp_path: Path) -> None:
    events = (
        GenericEvent(recv_ts_ns=10**18 + n * 10**6, symbol="queue", seq=n, fields={"reports": float(n)})
        for n in range(50)
    )

    class Reports(DataSource):
        identity = "reports"

        def next_event(self) -> Any:
            return next(events, None)

    run_loop(source=Reports(), broker=PaperBroker(), run_dir=tmp_path, activity=True)
    picture = collect_picture(tmp_path)
    assert picture.markets == []
    assert sum(picture.figures["actions"].values()) == picture.figures["packets"] >= 50
    titles = [panel.title for panel in panels_of(picture)]
    assert "decided" in titles
    assert not any(title.startswith(("price", "position")) for title in titles)


def test_a_folder_without_a_trace_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no trace to draw"):
        collect_picture(tmp_path)
    with pytest.raises(ConfigError, match="holds no trace to draw"):
        collect_picture(tmp_path / "nowhere")
    synthetic_run(tmp_path, steps=0)
    with pytest.raises(ConfigError, match="holds no decision"):
        collect_picture(tmp_path)
