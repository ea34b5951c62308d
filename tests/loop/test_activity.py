"""What a run writes of its fills and quotes, beside the trace."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ami_engine.errors import ConfigError
from ami_engine.loop.run_loop import run_loop
from ami_engine.ops.activity import ACTIVITY_FILE_NAME, FillMark, QuoteMark, read_activity
from ami_engine.sim.microstructure_sim import MicrostructureSim
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.sim.synthetic_source import SyntheticSource
from ami_engine.trace.reader import read_packets


def run(folder: Path, steps: int = 1_000, **options: Any) -> dict[str, Any]:
    source = SyntheticSource(MicrostructureSim(seed=42), num_events=steps)
    return run_loop(source=source, broker=PaperBroker(), run_dir=folder, **options)


def test_every_fill_is_written_with_the_account_after_it(tmp_path: Path) -> None:
    summary = run(tmp_path, activity=True)
    fills = [mark for mark in read_activity(tmp_path) if isinstance(mark, FillMark)]
    assert len(fills) == summary["fills_count"] > 20
    signed = [fill.qty if fill.side == "BUY" else -fill.qty for fill in fills]
    held = 0.0
    for fill, qty in zip(fills, signed, strict=True):
        held += qty
        assert fill.position == pytest.approx(held, abs=1e-9)
    assert fills[-1].position == summary["positions"]["SYNTH"]
    # Each carries the number and the clock of the decision that it was booked before.
    clocks = {packet.step: packet.input["now_ns"] for packet in read_packets(tmp_path)}
    assert all(clocks.get(fill.step, fill.now_ns) == fill.now_ns for fill in fills)


def test_own_quotes_are_told_as_they_change_and_withdrawn_at_the_end(tmp_path: Path) -> None:
    run(tmp_path, activity=True)
    quotes = [mark for mark in read_activity(tmp_path) if isinstance(mark, QuoteMark)]
    both = [mark for mark in quotes if mark.bid is not None and mark.ask is not None]
    assert len(both) > 20
    assert all(mark.bid < mark.ask for mark in both if mark.bid is not None and mark.ask is not None)
    assert (quotes[-1].bid, quotes[-1].ask) == (None, None)
    assert all(one != next_ for one, next_ in pairwise(quotes))


def test_the_trace_does_not_know_of_it(tmp_path: Path) -> None:
    assert run(tmp_path / "a", activity=True)["chain_head"] == run(tmp_path / "b")["chain_head"]
    assert not (tmp_path / "b" / ACTIVITY_FILE_NAME).exists()


def test_replacing_a_run_replaces_its_activity(tmp_path: Path) -> None:
    run(tmp_path, activity=True)
    run(tmp_path, steps=10, overwrite=True)
    assert not (tmp_path / ACTIVITY_FILE_NAME).exists()


def test_a_dry_run_writes_an_empty_one(tmp_path: Path) -> None:
    run(tmp_path, activity=True, dry_run=True)
    assert list(read_activity(tmp_path)) == []


def test_it_needs_a_folder() -> None:
    source = SyntheticSource(MicrostructureSim(seed=42), num_events=10)
    with pytest.raises(ConfigError, match="`activity` needs a folder"):
        run_loop(source=source, broker=PaperBroker(), trace=False, activity=True)


def test_a_disk_that_fills_up_is_a_note_in_the_summary(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, a device that takes nothing")
    whole = run(tmp_path / "whole")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / ACTIVITY_FILE_NAME).symlink_to("/dev/full")
    summary = run(tmp_path / "full", activity=True, resume=True)
    assert summary["steps"] == whole["steps"]
    assert any(note.startswith("the activity log is not whole") for note in summary["notes"])
