"""What a trace holds, and how writing it fails."""

from __future__ import annotations

import base64
import dataclasses
import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from ami_engine.clock import ManualClock
from ami_engine.errors import ChainBroken, ConfigError, TraceError
from ami_engine.trace import TraceLogger, read_packets, verify
from decision_schema.packet_v2 import PacketV2
from decision_schema.trace_registry import validate_external_dict
from decision_schema.types import Action, FinalDecision, MismatchInfo, Proposal

CANARY = "cAnArY9f3b"


def make_packet(step: int = 0, **changes: Any) -> PacketV2:
    fields: dict[str, Any] = {
        "input": {"symbol": "X", "features": {"mid": 0.5 + step, "spread_bps": 400.0}},
        "external": {"now_ms": step},
        "mdm": Proposal(Action.ACT, 0.8, ["tight_spread"], {"bid_quote": 0.49}),
        "final_action": FinalDecision(Action.HOLD, False, ["spread_too_wide"]),
        "latency_ms": 0.25,
        "mismatch": MismatchInfo(["spread"], ["spread_too_wide"]),
    }
    return PacketV2("run_1", step, **{**fields, **changes})


def write(folder: Path, packets: list[Any], **options: Any) -> TraceLogger:
    with TraceLogger("run_1", folder, **options) as logger:
        for packet in packets:
            logger.log_packet(packet, {"step": 1000})
    return logger


def lines_of(logger: TraceLogger) -> list[dict[str, Any]]:
    return [json.loads(line) for line in logger.path.read_text().splitlines()]


def test_a_line_has_the_packets_keys_at_the_top_and_no_header(tmp_path: Path) -> None:
    packet = make_packet()
    logger = write(tmp_path, [packet])
    assert logger.path == tmp_path / "run_1" / "traces.jsonl"
    (line,) = lines_of(logger)
    external = line.pop("external")
    expected = packet.to_dict()
    assert external.pop("now_ms") == expected.pop("external")["now_ms"]
    assert line == expected
    assert sorted(external) == ["ops.crc32", "ops.latency_ns", "ops.prev_sha256", "ops.seq"]
    assert (external["ops.seq"], external["ops.prev_sha256"]) == (0, "0" * 64)
    assert external["ops.latency_ns"] == {"step": 1000}
    assert validate_external_dict(external, require_registry_for_prefixes=["ops"]) == []


def test_the_packet_is_left_as_it_was(tmp_path: Path) -> None:
    packet = make_packet(external={"api_key": CANARY, "x": math.nan})
    write(tmp_path, [packet, packet])
    assert list(packet.external) == ["api_key", "x"]
    assert packet.external["api_key"] == CANARY
    assert math.isnan(packet.external["x"])


def test_a_folder_can_be_given_by_name(tmp_path: Path) -> None:
    with TraceLogger("any/run:id", run_dir=tmp_path / "here") as logger:
        logger.log_packet(make_packet())
    assert verify(tmp_path / "here").packets == 1


def test_one_seed_has_one_chain_whatever_the_latency(tmp_path: Path) -> None:
    heads = []
    for folder, latency in (("a", 0.1), ("b", 99.0)):
        with TraceLogger("run_1", tmp_path / folder) as logger:
            for step in range(5):
                logger.log_packet(make_packet(step, latency_ms=latency), {"step": int(latency * 1e6)})
        heads.append(logger.chain_head)
    assert heads[0] == heads[1] != "0" * 64
    changed = write(tmp_path / "c", [make_packet(0, external={"now_ms": 1})])
    assert changed.chain_head != write(tmp_path / "d", [make_packet(0)]).chain_head


def test_structs_dicts_and_foreign_packets_read_back_alike(tmp_path: Path) -> None:
    packet = make_packet()
    foreign = SimpleNamespace(**packet.to_dict())
    logger = write(tmp_path, [packet, PacketV2.from_dict(packet.to_dict()), foreign])
    lines = lines_of(logger)
    for line in lines:
        line.pop("external")
    assert lines[0] == lines[1] == lines[2]


@dataclasses.dataclass
class _Event:
    bid: float
    note: str | None = None


class _Omitting(msgspec.Struct, omit_defaults=True):
    x: float | None = None
    y: float | None = 1.0


_NOT_A_NUMBER: list[Any] = [
    {"spread_bps": math.nan},
    {"levels": [[1.0, math.inf], [-math.inf, 2.0]]},
    {"row": np.array([1.0, math.nan])},
    {"value": np.float64("nan")},
    {"event": _Event(math.nan)},
    {"omitting": _Omitting(None, math.nan)},
    MappingProxyType({"x": math.nan}),
]


@pytest.mark.parametrize("value", _NOT_A_NUMBER)
def test_non_finite_floats_come_back(tmp_path: Path, value: Any) -> None:
    logger = write(tmp_path, [make_packet(input=value)])
    assert "null" not in logger.path.read_text().split('"mdm"')[0].replace('"note":null', "")
    (packet,) = read_packets(logger.path)
    assert repr(packet.input).count("nan") + repr(packet.input).count("inf") >= 1


@pytest.mark.parametrize("where", ["input", "external", "mdm", "final_action", "mismatch"])
def test_a_nan_where_none_was_before_is_no_null(tmp_path: Path, where: str) -> None:
    # The shape of the second packet is that of the first: only the value in the place of the null differs.
    steps = [None, None, math.nan, None, 1.5, math.inf]
    logger = write(tmp_path, [make_packet(**{where: {"a": [value, {"b": 1}], "c": None}}) for value in steps])
    found = [getattr(packet, where)["a"][0] for packet in read_packets(logger.path)]
    assert repr(found) == repr(steps)


class _Quote(msgspec.Struct):
    bid: float | None = None
    ask: float | None = None


@pytest.mark.parametrize(
    ("place", "read"),
    [
        (lambda x: _Quote(1.0, x), lambda found: found["ask"]),
        (lambda x: [_Quote(None, x)], lambda found: found[0]["ask"]),
        (lambda x: _Event(1.0, x), lambda found: found["note"]),
        (lambda x: _Omitting(1.0, x), lambda found: found["y"]),
        # One None is left out of the line, another is in it: their number alone proves nothing.
        (lambda x: {"a": _Omitting(), "b": _Event(1.0, x)}, lambda found: found["b"]["note"]),
    ],
)
def test_a_nan_in_a_record_where_none_was_before_is_no_null(tmp_path: Path, place: Any, read: Any) -> None:
    values = [None, math.nan, None, 2.0, math.nan, None]
    logger = write(tmp_path, [make_packet(input=place(value)) for value in values])
    assert repr([read(packet.input) for packet in read_packets(logger.path)]) == repr(values)


def test_strings_that_read_like_floats_stay_strings(tmp_path: Path) -> None:
    texts = ["NaN", "-Infinity", "~NaN", "x", "Infinity"]
    logger = write(tmp_path, [make_packet(input={"a": text, "b": texts}) for text in texts])
    assert [packet.input for packet in read_packets(logger.path)] == [{"a": text, "b": texts} for text in texts]


class _Credentials(msgspec.Struct):
    api_key: str
    mid: float = 0.5


class _Opaque:
    def __repr__(self) -> str:
        return CANARY


class _AsDict:
    def as_dict(self) -> dict[str, Any]:
        return {"client_secret": CANARY, "mid": 0.5}


@pytest.mark.parametrize(
    "value",
    [
        {"api_key": CANARY},
        {"a": [{"b": ({"password": CANARY},)}]},
        {"url": f"https://x?signature={CANARY}"},
        {b"api_key": b"x", "raw": f"token={CANARY}".encode()},
        {"struct": _Credentials(CANARY)},
        {"object": _AsDict()},
        {"text": f"-----BEGIN PRIVATE KEY-----\n{CANARY}"},
        {f"token={CANARY}": 1},
    ],
)
@pytest.mark.parametrize("where", ["input", "external", "mdm", "final_action", "mismatch"])
def test_no_canary_reaches_the_file(tmp_path: Path, value: Any, where: str) -> None:
    clean = make_packet(**{where: {"mid": 0.5}})
    logger = write(tmp_path, [clean, make_packet(**{where: value}), clean, make_packet(**{where: value})])
    text = logger.path.read_text()
    assert CANARY not in text
    assert base64.b64encode(f"token={CANARY}".encode()).decode() not in text
    assert verify(logger.path).ok


def test_a_shape_that_was_clean_does_not_let_a_secret_through(tmp_path: Path) -> None:
    # Without digits and hyphens these keys and texts look alike.
    inputs = [{"to-ken": CANARY}, {"token": CANARY}, {"se1cret": CANARY}, {"secret": CANARY}, {"1pass2word": "x"}]
    inputs += [{"password": CANARY}, {"a": "bea-rer " + "x"}, {"a": f"bearer {CANARY}"}]
    logger = write(tmp_path, [make_packet(input=value) for value in inputs])
    values = [next(iter(packet.input.values())) for packet in read_packets(logger.path)]
    assert values[0] == values[2] == CANARY
    assert CANARY not in "".join(values[1:2] + values[3:])


def test_bytes_that_were_clean_do_not_let_a_secret_through(tmp_path: Path) -> None:
    # In base64, and without digits, these two look alike.
    secret, clean = b"token=abc", base64.b64decode(base64.b64encode(b"token=abc").replace(b"9", b"0"))
    logger = write(tmp_path, [make_packet(input={"raw": data}) for data in (clean, secret)])
    found = [base64.b64decode(packet.input["raw"]) for packet in read_packets(logger.path)]
    assert found == [clean, b"token=***REDACTED***"]


def test_a_packet_that_json_cannot_hold_is_refused_without_its_text_and_the_chain_goes_on(tmp_path: Path) -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    with TraceLogger("run_1", tmp_path) as logger:
        logger.log_packet(make_packet(0))
        head = logger.chain_head
        for bad in (_Opaque(), {"x": "\ud800" + CANARY}, {"x": RuntimeError(CANARY)}, {(1, 2): 3}):
            with pytest.raises(TraceError, match="packet of step 7 cannot be written") as raised:
                logger.log_packet(make_packet(7, input=bad))
            assert CANARY not in str(raised.value) + repr(raised.value.__cause__)
        with pytest.raises(TraceError, match="must be mappings"):
            logger.log_packet(make_packet(7, external=[1, 2]))
        with pytest.raises(TraceError, match="must be mappings"):
            logger.log_packet(make_packet(7), {"x,ops.crc32": 1})
        assert logger.chain_head == head
        logger.log_packet(make_packet(1, external=None))
    assert verify(logger.path).packets == 2


def test_a_packet_read_from_a_trace_gets_a_new_place(tmp_path: Path) -> None:
    first = write(tmp_path / "a", [make_packet(step) for step in range(3)])
    again = write(tmp_path / "b", list(read_packets(first.path))[1:])
    assert verify(again.path).ok
    assert [packet.external["ops.seq"] for packet in read_packets(again.path)] == [0, 1]
    assert again.path.read_text().count('"ops.seq"') == 2


def test_an_existing_trace_is_not_touched_unless_asked(tmp_path: Path) -> None:
    before = write(tmp_path, [make_packet()]).path.read_bytes()
    with pytest.raises(TraceError, match="exists already"):
        TraceLogger("run_1", tmp_path)
    with pytest.raises(ConfigError, match="exclude each other"):
        TraceLogger("run_1", tmp_path, resume=True, overwrite=True)
    path = tmp_path / "run_1" / "traces.jsonl"
    assert path.read_bytes() == before
    write(tmp_path, [make_packet(), make_packet(1)], overwrite=True)
    assert verify(path).packets == 2


@pytest.mark.parametrize("torn", [0, 1, 40, -2])
def test_resuming_gives_the_trace_of_an_unbroken_run(tmp_path: Path, torn: int) -> None:
    whole = write(tmp_path / "whole", [make_packet(step) for step in range(6)])
    part = write(tmp_path / "part", [make_packet(step) for step in range(3)])
    with part.path.open("ab") as file:
        left = whole.path.read_bytes().splitlines()[3][:torn]
        file.write(left)
    with TraceLogger("run_1", tmp_path / "part", resume=True) as logger:
        assert (logger.packets, logger.cut_bytes) == (3, len(left))
        for step in range(3, 6):
            logger.log_packet(make_packet(step), {"step": 1000})
    assert logger.path.read_bytes() == whole.path.read_bytes()
    assert logger.chain_head == whole.chain_head


def test_resuming_nothing_starts_a_trace(tmp_path: Path) -> None:
    logger = write(tmp_path, [make_packet()], resume=True)
    assert verify(logger.path).packets == 1


def test_resuming_a_damaged_trace_is_refused_and_drops_nothing(tmp_path: Path) -> None:
    logger = write(tmp_path, [make_packet(step) for step in range(3)])
    damaged = logger.path.read_bytes().replace(b'"mid":1.5', b'"mid":2.5', 1)
    logger.path.write_bytes(damaged)
    with pytest.raises(ChainBroken, match=r"traces\.jsonl:2: cannot be resumed: bad_crc"):
        TraceLogger("run_1", tmp_path, resume=True)
    assert logger.path.read_bytes() == damaged


def test_flush_policies_say_when_a_packet_is_in_the_file(tmp_path: Path) -> None:
    def lines_after_each(name: str, count: int, **options: Any) -> list[int]:
        with TraceLogger(name, tmp_path, **options) as logger:
            seen = []
            for step in range(count):
                logger.log_packet(make_packet(step))
                seen.append(logger.path.read_bytes().count(b"\n"))
        assert logger.path.read_bytes().count(b"\n") == count
        return seen

    assert lines_after_each("every", 3, flush="every") == [1, 2, 3]
    assert lines_after_each("none", 3, flush="none") == [0, 0, 0]
    assert lines_after_each("interval", 5, flush="interval", flush_packets=2) == [0, 2, 2, 4, 4]


def test_the_interval_can_be_a_time_of_the_callers_clock(tmp_path: Path) -> None:
    clock = ManualClock(1_000)
    with TraceLogger("run_1", tmp_path, clock=clock, flush_ns=100) as logger:
        for now_ns, expected in ((1_050, 0), (1_100, 2), (1_150, 2), (1_201, 4)):
            clock.advance_to(now_ns)
            logger.log_packet(make_packet())
            assert logger.path.read_bytes().count(b"\n") == expected


def test_much_waiting_is_written_without_being_asked(tmp_path: Path) -> None:
    with TraceLogger("run_1", tmp_path, flush="none") as logger:
        for step in range(5):
            logger.log_packet(make_packet(step, input={"text": "x" * 100_000}))
        assert logger.path.stat().st_size > 250_000


def test_closing_twice_is_harmless_and_logging_afterwards_is_an_error(tmp_path: Path) -> None:
    logger = write(tmp_path, [make_packet()])
    logger.close()
    with pytest.raises(TraceError, match="is closed"):
        logger.log_packet(make_packet(1))
    assert verify(logger.path).packets == 1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"run_id": ""}, "`run_id`"),
        ({"run_id": "../x"}, "`run_id`"),
        ({"run_id": ".."}, "`run_id`"),
        ({"flush": "always"}, "`flush`"),
        ({"flush_packets": 0}, "`flush_packets`"),
        ({"flush_ns": 0}, "`flush_ns`"),
    ],
)
def test_arguments_outside_their_range_are_refused(tmp_path: Path, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        TraceLogger(**{"run_id": "run_1", "output_dir": tmp_path, **options})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_trace_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TraceError, match="cannot be opened"):
        TraceLogger("run_1", tmp_path / "file")


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
@pytest.mark.parametrize("flush", ["none", "interval", "every"])
def test_a_full_disk_stops_the_trace_and_leaves_it_readable(tmp_path: Path, flush: str) -> None:
    code = """
import resource, signal, sys
from ami_engine.errors import TraceError
from ami_engine.trace import TraceLogger
from decision_schema.packet_v2 import PacketV2
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
logger = TraceLogger("run_1", sys.argv[1], flush=sys.argv[2], flush_packets=7)
failures = 0
for step in range(200):
    try:
        logger.log_packet(PacketV2("run_1", step, {"mid": 0.5}, {}, {}, {}, 0.1))
    except TraceError as error:
        failures += 1
        reason = str(error)
try:
    logger.close()
except TraceError as error:
    failures += 1
    reason = str(error)
print(failures > 0, reason)
"""
    command = [sys.executable, "-c", code, str(tmp_path), flush]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.stderr == ""
    assert run.stdout.startswith("True ")
    assert os.strerror(errno.EFBIG) in run.stdout
    report = verify(tmp_path / "run_1")
    assert report.ok
    assert 0 < report.packets < 200
    assert len(list(read_packets(tmp_path / "run_1"))) == report.packets
