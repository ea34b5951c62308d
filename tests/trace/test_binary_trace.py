"""The binary trace holds the same packets, is chained as well, and its damage is found."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ami_engine.errors import ChainBroken, TraceError
from ami_engine.trace import TraceLogger, convert, read_packets, verify
from ami_engine.trace.frames import LAYOUT, frame, read_frames
from decision_schema.packet_v2 import PacketV2

from .conftest import CANARY, run_packet

Maker = Callable[..., PacketV2]
_ROLES = ("input", "external", "mdm", "final_action", "mismatch")


def write(folder: Path, packets: list[Any], format: Any = "binary", **options: Any) -> TraceLogger:
    with TraceLogger("run_1", run_dir=folder, format=format, **options) as logger:
        for packet in packets:
            logger.log_packet(packet, {"observe": 1000, "orders": 7})
    return logger


def plain(path: Path) -> list[str]:
    """Packets without what is each chain's own; as text, in which NaN equals NaN."""
    found = []
    for packet in read_packets(path):
        whole = packet.to_dict()
        external = {k: v for k, v in packet.external.items() if k not in ("ops.seq", "ops.prev_sha256", "ops.crc32")}
        found.append(repr({**whole, "external": external, "input": packet.input}))
    return found


def test_both_forms_read_back_as_the_same_packets(tmp_path: Path) -> None:
    packets = [run_packet(step) for step in range(8)]
    lines, binary = (write(tmp_path / form, packets, form) for form in ("jsonl", "binary"))
    assert binary.path == tmp_path / "binary" / "traces.bin"
    assert plain(tmp_path / "binary") == plain(tmp_path / "jsonl")
    assert "nan" in plain(tmp_path / "binary")[0]
    assert verify(tmp_path / "binary").packets == verify(lines.path).packets == 8
    assert verify(binary.path).chain_head == binary.chain_head != lines.chain_head
    assert binary.path.stat().st_size < 0.6 * lines.path.stat().st_size


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(st.text("abc", max_size=2), _JSON, max_size=3), min_size=1, max_size=4))
def test_converting_gives_the_lines_that_the_run_would_have_written(values: list[Any]) -> None:
    packets = [run_packet(step, external=value, input=value) for step, value in enumerate(values)]
    with TemporaryDirectory() as name:
        folder = Path(name)
        lines, binary = (write(folder / form, packets, form) for form in ("jsonl", "binary"))
        done = convert(folder / "binary", folder / "out.jsonl")
        assert (folder / "out.jsonl").read_bytes() == lines.path.read_bytes()
    assert (done.packets, done.source_chain_head, done.chain_head) == (
        len(values),
        binary.chain_head,
        lines.chain_head,
    )


def test_structs_of_the_loop_convert_to_the_same_lines(tmp_path: Path) -> None:
    packets = [run_packet(step) for step in range(8)] + [run_packet(8, input={"a": run_packet(1).mdm, "b": b"\xff"})]
    lines = write(tmp_path / "lines", packets, "jsonl")
    write(tmp_path / "binary", packets)
    convert(tmp_path / "binary", tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == lines.path.read_bytes()
    assert verify(tmp_path / "out.jsonl").ok


def test_lines_of_several_files_become_one(tmp_path: Path) -> None:
    packets = [run_packet(step) for step in range(20)]
    whole = write(tmp_path / "whole", packets, "jsonl")
    write(tmp_path / "parts", packets, "jsonl", flush_packets=1, max_bytes=5_000)
    assert convert(tmp_path / "parts", tmp_path / "out.jsonl").chain_head == whole.chain_head
    assert (tmp_path / "out.jsonl").read_bytes() == whole.path.read_bytes()


def test_conversion_refuses_damage_and_what_is_there(tmp_path: Path) -> None:
    logger = write(tmp_path / "run", [run_packet(step) for step in range(4)])
    out = tmp_path / "out.jsonl"
    convert(logger.path, out)
    with pytest.raises(TraceError, match="exists already"):
        convert(logger.path, out)
    with pytest.raises(TraceError, match="binary"):
        convert(logger.path, tmp_path / "out.bin")
    out.unlink()
    data = bytearray(logger.path.read_bytes())
    data[len(data) // 2] ^= 1
    logger.path.write_bytes(data)
    with pytest.raises(ChainBroken, match=r"traces\.bin:\d: "):
        convert(logger.path, out)
    assert not out.exists()


@pytest.mark.parametrize(
    "value",
    [
        {"api_key": CANARY},
        {"a": [{"b": ({"password": CANARY},)}]},
        {"raw": f"token={CANARY}".encode(), b"api_key": CANARY},
        {"row": np.array([1.0, math.nan]), "url": f"https://x?signature={CANARY}"},
        {f"token={CANARY}": 1},
    ],
)
@pytest.mark.parametrize("where", _ROLES)
def test_no_canary_reaches_the_file(tmp_path: Path, value: Any, where: str) -> None:
    logger = write(tmp_path, [run_packet(4), run_packet(5, **{where: value}), run_packet(6)])
    assert CANARY.encode() not in logger.path.read_bytes()
    assert verify(logger.path).packets == 3


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("format", ["jsonl", "binary"])
def test_non_finite_numbers_of_a_model_come_back(tmp_path: Path, format: Any, number: float) -> None:
    proposal = run_packet().mdm
    packets = [run_packet(step, mdm={"params": {"x": x}}) for step, x in enumerate((1.0, number, 2.0))]
    write(tmp_path, [*packets, run_packet(3, mdm=proposal)], format)
    found = [packet.mdm["params"].get("x") for packet in read_packets(tmp_path)]
    assert repr(found) == repr([1.0, number, 2.0, None])


def test_what_cannot_be_written_is_refused_and_the_chain_goes_on(tmp_path: Path) -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    with TraceLogger("run_1", run_dir=tmp_path, format="binary") as logger:
        logger.log_packet(run_packet(0))
        head = logger.chain_head
        for bad in ({"x": object()}, loop, {"x": 2**70}, {"x": "\ud800" + CANARY}):
            with pytest.raises(TraceError, match="packet of step 7") as raised:
                logger.log_packet(run_packet(7, input=bad))
            assert CANARY not in str(raised.value)
        with pytest.raises(TraceError, match="must be mappings"):
            logger.log_packet(run_packet(7, external=[1]))
        assert logger.chain_head == head
        logger.log_packet(run_packet(1))
    assert [packet.step for packet in read_packets(tmp_path)] == [0, 1]
    assert verify(tmp_path).ok


# Damage. ------------------------------------------------------------------------------------------------------------


@cache
def frames() -> tuple[bytes, ...]:
    """The frames of a good trace; those of its layouts go with the packet that is the first to use them."""
    with TemporaryDirectory() as name:
        logger = write(Path(name), [run_packet(step) for step in range(6)])
        found, waiting = [], b""
        with logger.path.open("rb") as file:
            for each in read_frames(file):
                waiting += frame(each.kind, each.hashed, each.tail)
                if each.kind != LAYOUT:
                    found.append(waiting)
                    waiting = b""
        assert b"".join(found) == logger.path.read_bytes()
    return tuple(found)


def check(folder: Path, data: bytes) -> tuple[int, str]:
    (folder / "traces.bin").write_bytes(data)
    report = verify(folder)
    assert report.ok is (report.first_damage is None)
    return report.packets, report.first_damage.reason if report.first_damage is not None else ""


def test_each_kind_of_damage_has_its_reason(tmp_path: Path) -> None:
    good = frames()
    assert check(tmp_path, b"".join(good)) == (6, "")
    assert check(tmp_path, b"") == (0, "")
    assert check(tmp_path, b"".join(good)[:-1]) == (5, "torn_line")
    assert check(tmp_path, b"".join(good[:5]) + good[5][:7]) == (5, "torn_line")
    assert check(tmp_path, good[0] + good[1] + good[3]) == (2, "missing_seq")
    assert check(tmp_path, good[0] + good[1] + good[1]) == (2, "duplicate_seq")
    assert check(tmp_path, good[0] + good[1] + b"x" * 100) == (2, "not_a_packet")
    assert check(tmp_path, good[0] + good[1] + frame(9, b"x")) == (2, "not_a_packet")
    assert check(tmp_path, good[0] + good[1] + frame(1, b"short")) == (2, "not_a_packet")


@given(st.data())
def test_any_changed_byte_outside_the_latency_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    good = list(frames())
    number = data.draw(st.integers(0, 5))
    place = data.draw(st.integers(0, len(good[number]) - 1))
    bit = data.draw(st.integers(0, 7))
    tail_bytes = struct.unpack_from("<I", good[number], good[number].rindex(b"\xaeT") + 8)[0]
    changed = bytearray(good[number])
    changed[place] ^= 1 << bit
    good[number] = bytes(changed)
    packets, reason = check(tmp_path_factory.getbasetemp(), b"".join(good))
    if place < len(changed) - tail_bytes:
        assert reason
        assert packets <= number


def test_names_cannot_be_swapped_behind_the_chain(tmp_path: Path) -> None:
    whole = b"".join(frames())
    forged = b""
    (tmp_path / "traces.bin").write_bytes(whole)
    with (tmp_path / "traces.bin").open("rb") as file:
        for each in read_frames(file):
            hashed = each.hashed.replace(b"\xa3bid\xa3ask", b"\xa3ask\xa3bid") if each.kind == LAYOUT else each.hashed
            forged += frame(each.kind, hashed, each.tail)
    assert len(forged) == len(whole)
    assert forged != whole
    assert check(tmp_path, forged) == (0, "not_a_packet")


def test_a_packet_replaced_by_a_well_made_one_breaks_the_chain_after_it(tmp_path: Path) -> None:
    good = list(frames())
    (tmp_path / "traces.bin").write_bytes(b"".join(good[:2]))
    with TraceLogger("run_1", run_dir=tmp_path, format="binary", resume=True) as forger:
        forger.log_packet(run_packet(99))
    forged = forger.path.read_bytes()[len(b"".join(good[:2])) :]
    assert check(tmp_path, b"".join([*good[:2], forged, *good[3:]])) == (3, "broken_chain")


def test_reading_yields_what_is_good_and_then_names_the_packet(tmp_path: Path) -> None:
    check(tmp_path, b"".join(frames()) + b"garbage")
    packets = read_packets(tmp_path)
    assert [next(packets).step for _ in range(6)] == list(range(6))
    with pytest.raises(TraceError, match=r"traces\.bin:7: torn_line"):
        next(packets)


# Crashes. -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("torn", [0, 1, 19, 20, 21, 200, -1])
def test_resuming_gives_the_trace_of_an_unbroken_run(tmp_path: Path, torn: int) -> None:
    packets = [run_packet(step) for step in range(6)]
    whole = write(tmp_path / "whole", packets)
    part = write(tmp_path / "part", packets[:3])
    left = whole.path.read_bytes()[part.path.stat().st_size :][:torn]
    with part.path.open("ab") as file:
        file.write(left)
    kept = left[: len(frames()[3])] if len(left) >= len(frames()[3]) else b""
    with TraceLogger("run_1", run_dir=tmp_path / "part", format="binary", resume=True) as logger:
        assert logger.packets >= 3
        assert logger.cut_bytes <= len(left)
        assert logger.next_step == logger.packets
        for packet in packets[logger.packets :]:
            logger.log_packet(packet, {"observe": 1000, "orders": 7})
    assert logger.chain_head == whole.chain_head
    assert plain(tmp_path / "part") == plain(tmp_path / "whole")
    assert bool(kept) is (torn in (-1,))


def test_a_changed_length_is_damage_and_not_a_torn_end(tmp_path: Path) -> None:
    data = bytearray(b"".join(frames()))
    place = len(b"".join(frames()[:2]))
    struct.pack_into("<I", data, place + 4, 1 << 30)
    (tmp_path / "traces.bin").write_bytes(data)
    with pytest.raises(ChainBroken, match="cannot be resumed: not_a_packet"):
        TraceLogger("run_1", run_dir=tmp_path, format="binary", resume=True)
    assert (tmp_path / "traces.bin").read_bytes() == data


def test_a_frame_says_its_own_checksums() -> None:
    head = struct.unpack_from("<2sBBIIII", frame(1, b"hashed", b"tail"))
    assert head[:6] == (b"\xaeT", 1, 1, 6, 4, crc32(b"hashed"))
    assert head[6] == crc32(frame(1, b"hashed", b"tail")[:16])
