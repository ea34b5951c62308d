"""`ami verify`: clean, damaged and unreadable traces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Ami


@pytest.fixture
def trace(ami: Ami, quotes: Path, tmp_path: Path) -> Path:
    """The trace of a short run."""
    assert ami("run", "--source", quotes, "--steps", "30", "--run-dir", "mine").code == 0
    return tmp_path / "mine" / "traces.jsonl"


def test_a_clean_trace_is_named_by_its_chain_head(ami: Ami, trace: Path) -> None:
    lines = trace.read_bytes().count(b"\n")
    document = ami("verify", trace.parent, "--json").document
    assert list(document) == ["ok", "packets", "chain_head", "first_damage"]
    assert (document["ok"], document["packets"], document["first_damage"]) == (True, lines, None)
    said = ami("verify", trace.parent)
    assert said == (0, f"clean: {lines} packets, chain head {document['chain_head']}\n", "")
    assert ami("verify", trace) == said


def drop(lines: list[bytes]) -> None:
    del lines[10]


def swap(lines: list[bytes]) -> None:
    lines[10], lines[11] = lines[11], lines[10]


def repeat(lines: list[bytes]) -> None:
    lines.insert(10, lines[9])


def change(lines: list[bytes]) -> None:
    lines[10] = lines[10].replace(b'"symbol":"X"', b'"symbol":"Y"')


def cut(lines: list[bytes]) -> None:
    lines[10] = lines[10][:50] + b"\n"


def tear(lines: list[bytes]) -> None:
    lines[10:] = [lines[10][:-40]]


DAMAGES = {
    "dropped": (drop, "missing_seq"),
    "swapped": (swap, "missing_seq"),
    "repeated": (repeat, "duplicate_seq"),
    "changed": (change, "bad_crc"),
    "cut": (cut, "not_json"),
    "torn": (tear, "torn_line"),
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_trace_exits_with_1_and_names_the_line(
    ami: Ami, trace: Path, damage: Callable[[list[bytes]], None], reason: str
) -> None:
    lines = trace.read_bytes().splitlines(keepends=True)
    damage(lines)
    trace.write_bytes(b"".join(lines))
    said = ami("verify", trace.parent, "--json")
    assert (said.code, said.err) == (1, "")
    assert (said.document["ok"], said.document["packets"]) == (False, 10)
    found = said.document["first_damage"]
    assert (found["line"], found["reason"]) == (11, reason)
    plain = ami("verify", trace.parent)
    assert (plain.code, plain.out) == (1, "")
    assert plain.error == f"{trace.parent}: damaged at line 11: {reason}: {found['detail']}"


def test_a_trace_without_its_end_is_found_by_the_audit_log_and_without_it_by_its_head(ami: Ami, trace: Path) -> None:
    whole = ami("verify", trace.parent, "--json").document
    trace.write_bytes(b"".join(trace.read_bytes().splitlines(keepends=True)[:-3]))
    result = ami("verify", trace.parent)
    assert result.code == 1
    assert "cut_end: the run wrote" in result.err
    # Whoever takes the log away too leaves no mark: the head that the run reported tells.
    (trace.parent / "security_audit.jsonl").unlink()
    short = ami("verify", trace.parent, "--json").document
    assert short["ok"]
    assert short["packets"] == whole["packets"] - 3
    assert short["chain_head"] != whole["chain_head"]


def test_times_are_no_part_of_the_chain(ami: Ami, quotes: Path, tmp_path: Path) -> None:
    """Two runs differ in what they took, and not in what they decided."""
    for name in ("one", "two"):
        ami("run", "--source", quotes, "--steps", "30", "--run-dir", name)
    one, two = ((tmp_path / name / "traces.jsonl").read_bytes() for name in ("one", "two"))
    assert one != two
    assert ami("verify", "one") == ami("verify", "two")
