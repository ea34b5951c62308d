"""A trace written by a thread: the same bytes, and no silent wait for a slow device."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from ami_engine.errors import TraceError
from ami_engine.trace import TraceLogger, read_packets, verify
from decision_schema.trace_registry import validate_external_dict

from .conftest import CANARY, run_packet


class SlowDevice:
    """Holds back every write of a logger until it is let go."""

    def __init__(self, logger: TraceLogger) -> None:
        self._gate = threading.Event()
        self._append = logger._store.append
        logger._store.append = self._wait_and_append  # type: ignore[method-assign]

    def _wait_and_append(self, block: bytearray | bytes) -> None:
        self._gate.wait(20)
        self._append(block)

    def let_go(self) -> None:
        self._gate.set()


@pytest.mark.parametrize("policy", ["block", "drop", "stop"])
@pytest.mark.parametrize("format", ["jsonl", "binary"])
@pytest.mark.parametrize("flush", ["none", "interval", "every"])
def test_a_quick_disk_gets_the_same_bytes(tmp_path: Path, policy: Any, format: Any, flush: Any) -> None:
    written = []
    for queue in (None, policy):
        folder = tmp_path / str(queue)
        options = {"format": format, "queue": queue, "max_bytes": 9_000, "flush_packets": 3}
        with TraceLogger("run_1", run_dir=folder, flush=flush, **options) as logger:
            for step in range(30):
                logger.log_packet(run_packet(step))
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
        assert (logger.dropped, logger.packets) == (0, 30)
    assert written[0] == written[1]
    assert 0 < logger.queued_max <= 30


def test_blocking_waits_and_says_how_long(tmp_path: Path) -> None:
    with TraceLogger("run_1", run_dir=tmp_path, queue="block", queue_packets=4) as logger:
        device = SlowDevice(logger)
        timer = threading.Timer(0.05, device.let_go)
        timer.start()
        for step in range(20):
            logger.log_packet(run_packet(step))
        timer.join()
    assert logger.blocked_ns > 10_000_000
    assert logger.queued_max == 4
    assert verify(tmp_path).packets == 20


def test_dropping_leaves_out_whole_packets_and_the_next_one_says_how_many(tmp_path: Path) -> None:
    with TraceLogger("run_1", run_dir=tmp_path, queue="drop", queue_packets=4) as logger:
        device = SlowDevice(logger)
        for step in range(10):
            logger.log_packet(run_packet(step))
        assert logger.dropped == 6
        device.let_go()
        logger.flush()
        for step in range(10, 13):
            logger.log_packet(run_packet(step))
    assert (logger.dropped, logger.blocked_ns > 0, logger.next_step) == (6, True, 13)
    packets = list(read_packets(tmp_path))
    assert [packet.step for packet in packets] == [0, 1, 2, 3, 10, 11, 12]
    assert [packet.external.get("ops.dropped") for packet in packets] == [None] * 4 + [6, None, None]
    assert [packet.external["ops.seq"] for packet in packets] == list(range(7))
    assert validate_external_dict(packets[4].external, require_registry_for_prefixes=["ops"]) == []
    assert verify(tmp_path).ok


@pytest.mark.parametrize("format", ["jsonl", "binary"])
def test_packets_that_are_dropped_last_are_declared_too(tmp_path: Path, format: Any) -> None:
    options: dict[str, Any] = {"format": format, "queue": "drop", "queue_packets": 3}
    with TraceLogger("run_1", run_dir=tmp_path, **options) as logger:
        device = SlowDevice(logger)
        for step in range(8):
            logger.log_packet(run_packet(step, external={"note": f"token={CANARY}"}))
        device.let_go()
    packets = list(read_packets(tmp_path))
    assert [packet.step for packet in packets] == [0, 1, 2, 7]
    assert packets[-1].external["ops.dropped"] == logger.dropped == 4
    assert packets[-1].input["features"] == read_row(7)
    assert CANARY.encode() not in logger.path.read_bytes()
    with TraceLogger("run_1", run_dir=tmp_path, resume=True, format=format) as again:
        assert (again.packets, again.next_step) == (4, 8)


def read_row(step: int) -> dict[str, float]:
    features: dict[str, float] = run_packet(step).to_dict()["input"]["features"]
    return features


def test_stopping_raises_and_what_was_chained_is_written(tmp_path: Path) -> None:
    with TraceLogger("run_1", run_dir=tmp_path, queue="stop", queue_packets=4) as logger:
        device = SlowDevice(logger)
        for step in range(4):
            logger.log_packet(run_packet(step))
        with pytest.raises(TraceError, match="the disk is too slow: 4 packets wait"):
            logger.log_packet(run_packet(4))
        device.let_go()
    assert verify(tmp_path).packets == 4


def test_a_queue_smaller_than_a_block_still_moves(tmp_path: Path) -> None:
    with TraceLogger("run_1", run_dir=tmp_path, flush="none", queue="block", queue_packets=1) as logger:
        for step in range(50):
            logger.log_packet(run_packet(step))
    assert logger.queued_max == 1
    assert verify(tmp_path).packets == 50


def test_flushing_waits_for_the_thread(tmp_path: Path) -> None:
    with TraceLogger("run_1", run_dir=tmp_path, queue="block") as logger:
        logger.log_packet(run_packet())
        logger.flush()
        assert logger.path.read_bytes().count(b"\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
@pytest.mark.parametrize("policy", ["block", "drop", "stop"])
@pytest.mark.parametrize("format", ["jsonl", "binary"])
def test_a_full_disk_surfaces_and_leaves_whole_packets(tmp_path: Path, policy: str, format: str) -> None:
    code = """
import resource, signal, sys
from ami_engine.errors import TraceError
from ami_engine.trace import TraceLogger
from decision_schema.packet_v2 import PacketV2
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
logger = TraceLogger("run_1", run_dir=sys.argv[1], queue=sys.argv[2], format=sys.argv[3], queue_packets=16)
failures = []
for step in range(3000):
    try:
        logger.log_packet(PacketV2("run_1", step, {"mid": 0.5}, {}, {}, {}, 0.1))
        if step % 10 == 0:
            logger.flush()
    except TraceError as error:
        failures.append(str(error))
        if "cannot be written" in failures[-1]:
            break
try:
    logger.close()
except TraceError as error:
    failures.append(str(error))
print("cannot be written" in failures[-1], failures[-1])
"""
    command = [sys.executable, "-c", code, str(tmp_path), policy, format]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.stderr == ""
    assert run.stdout.startswith("True ")
    report = verify(tmp_path)
    assert report.ok
    assert report.packets > 0


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_a_forked_child_does_not_hang_nor_write(tmp_path: Path) -> None:
    code = """
import os, sys
from ami_engine.errors import TraceError
from ami_engine.trace import TraceLogger
from decision_schema.packet_v2 import PacketV2
packet = PacketV2("run_1", 0, {"mid": 0.5}, {}, {}, {}, 0.1)
logger = TraceLogger("run_1", run_dir=sys.argv[1], queue="block")
logger.log_packet(packet)
child = os.fork()
if child == 0:
    try:
        logger.log_packet(packet)
    except TraceError as error:
        logger.close()
        os._exit(0 if "forked child" in str(error) else 2)
    os._exit(1)
_, status = os.waitpid(child, 0)
logger.log_packet(packet)
logger.close()
sys.exit(os.waitstatus_to_exitcode(status))
"""
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")
    assert verify(tmp_path).packets == 2
