"""A run that comes to its end says how far its trace goes, and `verify` holds the trace against that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ami_engine.errors import TraceError
from ami_engine.loop.run_loop import run_loop
from ami_engine.sim.microstructure_sim import MicrostructureSim
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.sim.synthetic_source import SyntheticSource
from ami_engine.trace import TraceLogger, convert, verify
from ami_engine.trace.trace_files import trace_files

from .conftest import run_packet

FORMATS = pytest.mark.parametrize("format", ["jsonl", "binary"])


def run(folder: Path, format: Any = "jsonl", steps: int = 60, **options: Any) -> dict[str, Any]:
    source = SyntheticSource(MicrostructureSim(seed=options.pop("seed", 1)), num_events=steps)
    return run_loop(source=source, broker=PaperBroker(), run_dir=folder, trace=format, **options)


def damage(folder: Path, **options: Any) -> tuple[str, int, str]:
    report = verify(folder, **options)
    assert report.ok is (report.first_damage is None)
    found = report.first_damage
    return ("", 0, "") if found is None else (found.reason, found.line, found.file)


def cut(path: Path, packets: int) -> None:
    """Cut whole packets off the end, as somebody would who wants no mark to be left."""
    if path.suffix == ".jsonl":
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-packets]))
        return
    data = path.read_bytes()
    wanted = verify(path.rename(path.with_name("whole.bin"))).packets - packets
    for size in range(len(data) - 1, 0, -1):
        path.with_name("part.bin").write_bytes(data[:size])
        report = verify(path.with_name("part.bin"))
        if report.ok and report.packets == wanted:
            break
    path.with_name("part.bin").rename(path)
    path.with_name("whole.bin").unlink()


@FORMATS
def test_an_end_that_was_cut_off_is_found(tmp_path: Path, format: Any) -> None:
    summary = run(tmp_path, format)
    path = Path(summary["trace_path"])
    before = verify(tmp_path)
    assert before.ok
    assert before.chain_head == summary["chain_head"]
    cut(path, 3)
    assert damage(tmp_path) == damage(path) == ("cut_end", before.packets - 2, path.name)
    assert "3 are missing at the end" in str(verify(tmp_path).first_damage)
    path.write_bytes(b"")
    assert damage(tmp_path) == ("cut_end", 1, path.name)


def test_a_last_file_that_was_taken_away_is_found(tmp_path: Path) -> None:
    run(tmp_path, steps=300, trace_max_bytes=20_000)
    assert damage(tmp_path) == ("", 0, "")
    last = trace_files(tmp_path)[-1]
    last.unlink()
    before = trace_files(tmp_path)[-1]
    assert damage(tmp_path) == ("cut_end", len(before.read_bytes().splitlines()) + 1, before.name)


def test_the_end_of_a_rotated_trace_is_found(tmp_path: Path) -> None:
    run(tmp_path, steps=300, trace_max_bytes=20_000, trace_max_files=2)
    assert damage(tmp_path, tail=True) == ("", 0, "")
    cut(trace_files(tmp_path)[-1], 1)
    assert damage(tmp_path, tail=True)[0] == "cut_end"


def test_a_trace_that_was_replaced_whole_is_found(tmp_path: Path) -> None:
    ours, other = run(tmp_path / "ours", timer_ms=0), run(tmp_path / "other", seed=2, timer_ms=0)
    assert verify(ours["trace_path"]).packets == verify(other["trace_path"]).packets
    Path(other["trace_path"]).replace(ours["trace_path"])
    assert damage(tmp_path / "ours")[0] == "other_end"


def test_a_resumed_run_says_where_all_of_it_ends(tmp_path: Path) -> None:
    run(tmp_path, steps=40, timer_ms=0)
    run(tmp_path, steps=30, timer_ms=0, resume=True)
    report = verify(tmp_path)
    assert report.ok
    assert report.packets == 70
    cut(tmp_path / "traces.jsonl", 1)
    assert damage(tmp_path) == ("cut_end", 70, "traces.jsonl")


def test_what_says_nothing_of_the_end_is_no_damage(tmp_path: Path) -> None:
    path = Path(run(tmp_path)["trace_path"])
    audit = tmp_path / "security_audit.jsonl"
    whole = audit.read_bytes()
    cut(path, 3)
    # As after a kill; an audit log of an earlier version; one that was torn, or is something else; none.
    lines = whole.splitlines(keepends=True)
    for log in (b"".join(lines[:-1]), b'{"kind":"run_end"}\n', whole[:-20], b"\xff\n", b"[]\n", b""):
        audit.write_bytes(log)
        assert damage(tmp_path) == ("", 0, ""), log[-60:]
    audit.unlink()
    assert damage(tmp_path) == ("", 0, "")


def test_packets_that_were_added_later_and_copies_elsewhere_are_no_damage(tmp_path: Path) -> None:
    run(tmp_path / "run", steps=40)
    with TraceLogger("later", run_dir=tmp_path / "run", resume=True) as logger:
        logger.log_packet(run_packet(40))
    assert damage(tmp_path / "run") == ("", 0, "")
    convert(tmp_path / "run", tmp_path / "copy.jsonl")
    cut(tmp_path / "copy.jsonl", 5)
    assert damage(tmp_path / "copy.jsonl") == ("", 0, "")


def test_a_trace_that_could_not_be_closed_is_not_vouched_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(logger: TraceLogger) -> None:
        raise TraceError("the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr(TraceLogger, "close", fail)
        summary = run(tmp_path)
    assert "the disk is gone" in summary["last_error"]
    assert '"kind":"run_end"' in (tmp_path / "security_audit.jsonl").read_text()
    assert "chain_head" not in (tmp_path / "security_audit.jsonl").read_text()
