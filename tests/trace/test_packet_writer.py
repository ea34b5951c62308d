"""The compiled writer gives the bytes of the plain encoder, or nothing at all."""

from __future__ import annotations

import math
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ami_engine.errors import TraceError
from ami_engine.trace.line_codec import LineEncoder
from ami_engine.trace.packet_writer import PacketWriter
from decision_schema.packet_v2 import PacketV2
from decision_schema.types import Action, FinalDecision, MismatchInfo, Proposal

from .conftest import CANARY, run_packet

_core = pytest.importorskip("ami_engine._core")

_TEXTS = st.text(max_size=6) | st.sampled_from([f"token={CANARY}", "NaN", 'quo"te', "né\n\u2028", "tight_spread"])
_NUMBERS = st.floats() | st.integers(-(2**70), 2**70)
_VALUES = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXTS | st.sampled_from(Action),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3) | st.tuples(inner),
    max_leaves=10,
)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_spelled_as_the_plain_encoder_spells_them(number: float) -> None:
    assert _core.json_of_double(number) == msgspec.json.encode(number).decode()


def test_numbers_of_every_size_are_spelled_alike() -> None:
    for exponent in range(2047):
        for mantissa in (0, 1, 2**51, 2**52 - 1):
            number: float = struct.unpack("<d", struct.pack("<Q", exponent << 52 | mantissa))[0]
            assert _core.json_of_double(number) == msgspec.json.encode(number).decode()
    for power in range(-10, 25):
        for digits in ("1", "1.5", "9.999999999999999", "1.2345678901234567"):
            number = float(f"{digits}e{power}")
            assert _core.json_of_double(-number) == msgspec.json.encode(-number).decode()
    assert [_core.json_of_double(number) for number in (math.nan, math.inf)] == ["", ""]


def outcome(encoder: LineEncoder, packet: Any) -> bytes | str:
    """The line, or why there is none."""
    try:
        return encoder.encode(packet, {"observe": 1500, "orders": 7})
    except TraceError as error:
        return str(error)


def both(packets: list[Any]) -> tuple[list[bytes | str], list[bytes | str]]:
    """The lines of the packets, each twice in a row: the first teaches, the second may be written by the core."""
    fast, plain = LineEncoder(), LineEncoder(compiled=False)
    order = [packet for packet in packets for _ in range(2)]
    return [outcome(fast, packet) for packet in order], [outcome(plain, packet) for packet in order]


@given(st.lists(_VALUES, min_size=1, max_size=3), st.lists(_TEXTS, max_size=3))
def test_lines_are_the_plain_encoders(values: list[Any], reasons: list[str]) -> None:
    packets = []
    for step, value in enumerate(values):
        params = value if isinstance(value, dict) else {"x": value}
        packets += [
            run_packet(step, mdm=Proposal(Action.ACT, 0.5, reasons, params)),
            run_packet(step, input=value, external=params),
            run_packet(
                step, final_action=FinalDecision(Action.HOLD, False, reasons, MismatchInfo(reasons), params=params)
            ),
        ]
    fast, plain = both(packets)
    assert fast == plain


def test_lines_of_a_run_are_the_plain_encoders() -> None:
    packets = [run_packet(step) for step in range(12)]
    fast, plain = both(packets)
    assert fast == plain


class _Omitting(msgspec.Struct, omit_defaults=True):
    a: float | None = None
    b: int = 0
    c: tuple[str, ...] = ()


class _Renamed(msgspec.Struct, rename={"b": "né me"}):
    a: float
    b: str = "x"


class _Tagged(msgspec.Struct, tag="tagged"):
    a: float


class _Row(msgspec.Struct, array_like=True):
    a: float


class _Listing(msgspec.Struct, omit_defaults=True):
    a: list[float] = []


@pytest.mark.parametrize(
    "value",
    [_Omitting(), _Omitting(1.5, 0, ("x",)), _Renamed(1.0), _Tagged(1.0), _Row(1.0), _Listing(), _Listing([1.0])],
    ids=lambda value: type(value).__name__,
)
def test_structs_of_every_make_give_the_same_lines(value: Any) -> None:
    fast, plain = both([run_packet(4, input={"x": value}), run_packet(5, input=value)])
    assert fast == plain


def test_what_the_core_wrote_once_it_does_not_write_when_it_is_no_longer_clean() -> None:
    dirty: list[dict[str, Any]] = [
        {"mdm": {"note": f"token={CANARY}"}},
        {"mdm": {"api_key": CANARY}},
        {"external": {"note": math.nan}},
        {"mdm": Proposal(Action.ACT, 0.5, [f"Bearer {CANARY}"])},
        {"mismatch": MismatchInfo(["x"], ["y"], None, {"guards": {"x": {"value": math.inf}}})},
    ]
    packets = [packet for changes in dirty for packet in (run_packet(4), run_packet(4, **changes))]
    fast, plain = both(packets)
    assert fast == plain
    text = b"".join(line for line in fast if isinstance(line, bytes))
    assert CANARY.encode() not in text
    assert (text.count(b'"NaN"'), text.count(b'"Infinity"')) == (2, 2)


def test_the_core_takes_over_once_it_was_taught(make_run_packet: Any) -> None:
    encoder = LineEncoder()
    core = encoder._writer.core
    assert core.write(make_run_packet(4), 0, "0" * 64) is None
    assert core.knows(make_run_packet(4)) is False
    for step in (4, 5, 6):
        encoder.encode(make_run_packet(step), {"observe": 1})
    for step in (6, 7):
        assert core.knows(make_run_packet(step)) is True
        assert core.write(make_run_packet(step), 0, "0" * 64).startswith(b'{"schema_version":')
    assert core.knows(make_run_packet(1)) is True
    assert b'"NaN"' in core.write(make_run_packet(1), 0, "0" * 64)
    assert core.knows(make_run_packet(4, external={"note": f"token={CANARY}"})) is False
    assert core.tail(1, {"observe": 1}, 0.25) == b',"ops.crc32":1,"ops.latency_ns":{"observe":1}},"latency_ms":0.25}\n'
    assert core.tail(1, {"unheard": 1}, 0.25) is None
    assert core.tail(1, None, 0.25) is None


def test_what_fills_the_caches_does_not_stop_the_core() -> None:
    encoder = LineEncoder()
    for number in range(10_000):
        encoder.encode(PacketV2("r", number, {"id": f"id-{number}"}, {}, {}, {}, 0.1), None)
    assert len(encoder._is_clean.texts) <= 4096
    encoder.encode(run_packet(4), None)
    assert encoder._writer.core.knows(run_packet(4)) is True


def test_without_the_core_there_is_no_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    import ami_engine.trace.packet_writer as module

    monkeypatch.setattr(module, "_core", None)
    assert PacketWriter(LineEncoder()._is_clean).core is None
    encoder = LineEncoder()
    lines = [encoder.encode(run_packet(step), None) for step in range(4)]
    monkeypatch.undo()
    again = LineEncoder()
    assert [again.encode(run_packet(step), None) for step in range(4)] == lines
