"""Damage of every kind is found, and told apart."""

from __future__ import annotations

import json
import tracemalloc
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ami_engine.errors import TraceError
from ami_engine.trace import TraceLogger, read_packets, verify
from decision_schema.packet_v2 import PacketV2

_GENESIS = "0" * 64


@cache
def good_lines() -> tuple[bytes, ...]:
    with TemporaryDirectory() as folder:
        with TraceLogger("run_1", folder) as logger:
            for step in range(6):
                packet = PacketV2(
                    "run_1", step, {"mid": 0.5 + step, "né": '"ops.crc32":1,'}, {"now_ms": step}, {}, {}, 0.1
                )
                logger.log_packet(packet, {"features": 1500 + step, "step": 9000})
        return tuple(logger.path.read_bytes().splitlines(keepends=True))


def check(tmp_path: Path, lines: list[bytes] | tuple[bytes, ...]) -> tuple[int, int, str]:
    path = tmp_path / "traces.jsonl"
    path.write_bytes(b"".join(lines))
    report = verify(tmp_path)
    assert report.ok is (report.first_damage is None)
    if report.first_damage is None:
        return report.packets, 0, ""
    return report.packets, report.first_damage.line, report.first_damage.reason


def test_a_good_trace_is_good_by_file_and_by_folder(tmp_path: Path) -> None:
    assert check(tmp_path, good_lines()) == (6, 0, "")
    assert verify(tmp_path) == verify(str(tmp_path / "traces.jsonl"))


def test_an_empty_trace_is_good(tmp_path: Path) -> None:
    assert check(tmp_path, []) == (0, 0, "")
    assert verify(tmp_path).chain_head == _GENESIS


def test_the_head_is_that_of_the_last_good_packet(tmp_path: Path) -> None:
    check(tmp_path, good_lines()[:3])
    head = verify(tmp_path).chain_head
    check(tmp_path, [*good_lines()[:3], b"{}\n"])
    assert verify(tmp_path).chain_head == head != _GENESIS


def test_each_kind_of_damage_has_its_reason(tmp_path: Path) -> None:
    lines = good_lines()
    assert check(tmp_path, [*lines[:2], lines[2][:-1]]) == (2, 3, "torn_line")
    assert check(tmp_path, [*lines[:2], lines[2][:50]]) == (2, 3, "torn_line")
    assert check(tmp_path, [lines[0], lines[1].replace(b"1.5", b"2.5", 1), lines[2]]) == (1, 2, "bad_crc")
    assert check(tmp_path, [lines[0], lines[1].replace(b"mid", b"m\xffd", 1)]) == (1, 2, "not_utf8")
    assert check(tmp_path, [lines[0], lines[1][:50] + b"\n"]) == (1, 2, "not_json")
    assert check(tmp_path, [lines[0], b"\n", lines[1]]) == (1, 2, "not_json")
    assert check(tmp_path, [lines[0], b"[1]\n"]) == (1, 2, "not_a_packet")
    assert check(tmp_path, [lines[0], b'{"run_id":"x"}\n']) == (1, 2, "not_a_packet")
    assert check(tmp_path, [lines[0], lines[1].replace(b":9000", b":oops")]) == (1, 2, "not_json")
    assert check(tmp_path, [lines[0], lines[1].replace(b":9000", b":true")]) == (1, 2, "not_a_packet")
    assert check(tmp_path, [lines[0], lines[2]]) == (1, 2, "missing_seq")
    assert check(tmp_path, lines[1:]) == (0, 1, "missing_seq")
    assert check(tmp_path, [lines[0], lines[1], lines[1]]) == (2, 3, "duplicate_seq")
    assert check(tmp_path, [lines[0], lines[2], lines[1]]) == (1, 2, "missing_seq")


def test_a_line_replaced_by_a_well_made_one_breaks_the_chain_after_it(tmp_path: Path) -> None:
    lines = list(good_lines())
    (tmp_path / "run_1").mkdir()
    (tmp_path / "run_1" / "traces.jsonl").write_bytes(b"".join(lines[:2]))
    with TraceLogger("run_1", tmp_path, resume=True) as forger:
        forger.log_packet(PacketV2("run_1", 2, {"mid": 99.0}, {}, {}, {}, 0.1))
    lines[2] = forger.path.read_bytes().splitlines(keepends=True)[2]
    assert check(tmp_path, lines) == (3, 4, "broken_chain")


@given(st.data())
def test_any_changed_byte_outside_the_latency_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    lines = list(good_lines())
    number = data.draw(st.integers(0, len(lines) - 1))
    line = lines[number]
    latency = range(line.rindex(b'"ops.latency_ns":{') + 18, line.rindex(b"},"))
    total = range(line.rindex(b'"latency_ms":') + 13, len(line) - 2)
    place = data.draw(st.integers(0, len(line) - 1).filter(lambda i: i not in latency and i not in total))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != line[place]))
    lines[number] = line[:place] + bytes([byte]) + line[place + 1 :]
    packets, damaged, reason = check(tmp_path_factory.getbasetemp(), lines)
    assert reason
    assert packets == damaged - 1 <= number


@pytest.mark.parametrize("number", range(6))
def test_every_single_byte_of_a_line_is_covered(tmp_path: Path, number: int) -> None:
    lines = list(good_lines())
    line = lines[number]
    start, end = line.rindex(b'"ops.latency_ns":{') + 18, line.rindex(b"},")
    undetected = []
    for place in range(len(line)):
        lines[number] = line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]
        if not check(tmp_path, lines)[2]:
            undetected.append(place)
    latency_ms = range(line.rindex(b'"latency_ms":') + 13, len(line) - 2)
    assert all(start <= place < end or place in latency_ms for place in undetected)


@given(st.permutations(range(6)), st.integers(1, 6))
def test_lines_left_out_repeated_or_moved_are_found(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], count: int
) -> None:
    kept = order[:count]
    reason = check(tmp_path_factory.getbasetemp(), [good_lines()[index] for index in kept])[2]
    # What was taken off the end leaves no mark: that is what the run's own chain head is for.
    assert (reason == "") is (kept == list(range(count)))
    again = check(tmp_path_factory.getbasetemp(), [*good_lines(), good_lines()[order[0]]])
    assert again == (6, 7, "duplicate_seq")


@given(st.binary(min_size=1, max_size=200))
def test_anything_appended_is_found(tmp_path_factory: pytest.TempPathFactory, garbage: bytes) -> None:
    packets, line, _ = check(tmp_path_factory.getbasetemp(), [*good_lines(), garbage])
    assert (packets, line) == (6, 7)


def test_a_file_that_cannot_be_read_is_an_os_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.jsonl"):
        with pytest.raises(OSError):
            verify(path)
        with pytest.raises(OSError):
            next(read_packets(path))


def test_packets_come_back_with_their_place(tmp_path: Path) -> None:
    check(tmp_path, good_lines())
    packets = list(read_packets(tmp_path))
    assert [packet.step for packet in packets] == list(range(6))
    assert packets[5].input == {"mid": 5.5, "né": '"ops.crc32":1,'}
    assert packets[5].external["ops.latency_ns"] == {"features": 1505, "step": 9000}
    assert packets[5].to_dict() == json.loads(good_lines()[5])


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"torn', "torn_line"),
        (b"nonsense\n", "not_json"),
        (b"\xff\n", "not_utf8"),
        (b"[]\n", "not_a_packet"),
        (b'{"run_id":"x"}\n', "not_a_packet"),
        (b'{"run_id":"NaN"}\n', "not_a_packet"),
        (b'"NaN"\n', "not_a_packet"),
    ],
)
def test_reading_yields_what_is_good_and_then_names_the_line(tmp_path: Path, bad: bytes, reason: str) -> None:
    check(tmp_path, [*good_lines(), bad])
    packets = read_packets(tmp_path)
    assert len([next(packets) for _ in range(6)]) == 6
    with pytest.raises(TraceError, match=rf"traces\.jsonl:7: {reason}"):
        next(packets)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_bytes(b"".join(good_lines()) * 2000)
    assert path.stat().st_size > 4_000_000
    tracemalloc.start()
    count = sum(1 for _ in read_packets(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 12_000
    assert peak < 1_000_000
