"""A trace of several files is one trace."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from ami_engine.errors import ConfigError, TraceError
from ami_engine.trace import TraceLogger, read_packets, verify

from .conftest import run_packet

FORMATS = pytest.mark.parametrize("format", ["jsonl", "binary"])


def write(folder: Path, steps: range, format: Any, **options: Any) -> TraceLogger:
    with TraceLogger("run_1", run_dir=folder, format=format, flush_packets=2, **options) as logger:
        for step in steps:
            logger.log_packet(run_packet(step))
    return logger


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@FORMATS
def test_files_are_as_large_as_allowed_and_the_chain_goes_through_them(tmp_path: Path, format: Any) -> None:
    one = write(tmp_path / "one", range(40), format)
    many = write(tmp_path / "many", range(40), format, max_bytes=6_000)
    suffix = "jsonl" if format == "jsonl" else "bin"
    assert len(names(tmp_path / "many")) > 3
    assert {f"traces.{suffix}", f"traces.1.{suffix}"} <= set(names(tmp_path / "many"))
    assert all(path.stat().st_size <= 6_000 for path in (tmp_path / "many").iterdir())
    assert many.chain_head == one.chain_head
    for path in (tmp_path / "many", many.path):
        report = verify(path)
        assert (report.ok, report.packets, report.chain_head) == (True, 40, one.chain_head)
    assert [packet.step for packet in read_packets(tmp_path / "many")] == list(range(40))


def test_files_of_lines_are_the_one_file_cut_up(tmp_path: Path) -> None:
    one = write(tmp_path / "one", range(60), "jsonl")
    write(tmp_path / "many", range(60), "jsonl", max_bytes=3_000)
    order = sorted((tmp_path / "many").iterdir(), key=lambda path: int("0" + path.name.strip("tracesjonl.")))
    assert len(order) > 11  # so that the order of numbers is not that of text
    assert b"".join(path.read_bytes() for path in order) == one.path.read_bytes()


@FORMATS
def test_a_missing_file_is_found(tmp_path: Path, format: Any) -> None:
    write(tmp_path, range(40), format, max_bytes=6_000)
    suffix = "jsonl" if format == "jsonl" else "bin"
    (tmp_path / f"traces.1.{suffix}").unlink()
    damage = verify(tmp_path).first_damage
    assert damage is not None
    assert (damage.reason, damage.file, damage.line) == ("missing_seq", f"traces.2.{suffix}", 1)
    (tmp_path / f"traces.{suffix}").unlink()
    assert verify(tmp_path).first_damage is not None
    rest = verify(tmp_path, tail=True)
    assert rest.ok
    assert rest.first_seq > 0
    assert rest.first_seq + rest.packets == 40
    (tmp_path / f"traces.3.{suffix}").unlink()
    assert not verify(tmp_path, tail=True).ok


@FORMATS
def test_the_oldest_files_are_removed_when_that_is_asked_for(tmp_path: Path, format: Any) -> None:
    logger = write(tmp_path, range(200), format, max_bytes=6_000, max_files=3)
    assert len(names(tmp_path)) == 3
    report = verify(tmp_path, tail=True)
    assert report.ok
    assert report.chain_head == logger.chain_head
    assert not verify(tmp_path).ok
    steps = [packet.step for packet in read_packets(tmp_path)]
    assert steps == list(range(report.first_seq, 200))


@FORMATS
@pytest.mark.parametrize("keep", [0, 3])
def test_resuming_goes_on_in_the_last_file(tmp_path: Path, format: Any, keep: int) -> None:
    options = {"max_bytes": 6_000, "max_files": keep}
    whole = write(tmp_path / "whole", range(60), format, **options)
    write(tmp_path / "part", range(31), format, **options)
    last = max((tmp_path / "part").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    with last.open("ab") as file:
        file.write(b'{"torn' if format == "jsonl" else b"\xaeT")
    resumed = write(tmp_path / "part", range(31, 60), format, resume=True, **options)
    assert resumed.cut_bytes > 0
    assert resumed.chain_head == whole.chain_head
    report = verify(tmp_path / "part", tail=bool(keep))
    assert (report.ok, report.first_seq + report.packets) == (True, 60)


@FORMATS
def test_an_end_that_stops_at_a_file_boundary_is_resumed(tmp_path: Path, format: Any) -> None:
    write(tmp_path, range(10), format)
    suffix = "jsonl" if format == "jsonl" else "bin"
    (tmp_path / f"traces.1.{suffix}").write_bytes(b"")
    resumed = write(tmp_path, range(10, 12), format, resume=True)
    assert resumed.next_step == 12
    assert [packet.step for packet in read_packets(tmp_path)] == list(range(12))
    assert (tmp_path / f"traces.1.{suffix}").stat().st_size > 0


def test_overwriting_leaves_nothing_of_the_old_trace(tmp_path: Path) -> None:
    write(tmp_path, range(40), "jsonl", max_bytes=6_000)
    (tmp_path / "traces.txt").write_text("not ours")
    with pytest.raises(TraceError, match="exists already"):
        write(tmp_path, range(4), "binary")
    with pytest.raises(TraceError, match="cannot be resumed as binary"):
        write(tmp_path, range(4), "binary", resume=True)
    write(tmp_path, range(4), "binary", overwrite=True)
    assert names(tmp_path) == ["traces.bin", "traces.txt"]
    assert verify(tmp_path).packets == 4


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"format": "text"}, "`format`"),
        ({"max_bytes": -1}, "`max_bytes`"),
        ({"max_files": -1, "max_bytes": 10}, "`max_files`"),
        ({"max_files": 2}, "needs `max_bytes`"),
        ({"queue": "wait"}, "`queue`"),
        ({"queue_packets": 0}, "`queue_packets`"),
    ],
)
def test_arguments_outside_their_range_are_refused(tmp_path: Path, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        TraceLogger("run_1", tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs file locks")
def test_a_trace_in_use_is_not_overwritten_and_nothing_of_it_is_removed(tmp_path: Path) -> None:
    with TraceLogger("run_1", run_dir=tmp_path, flush_packets=2, max_bytes=6_000) as logger:
        for step in range(20):
            logger.log_packet(run_packet(step))
        before = names(tmp_path)
        for format in ("jsonl", "binary"):
            with pytest.raises(TraceError, match="in use by another run"):
                write(tmp_path, range(4), format, overwrite=True)
        assert len(before) > 1
        assert set(before) <= set(names(tmp_path))
    assert verify(tmp_path / "traces.jsonl").packets == 20
