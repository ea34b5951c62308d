"""Runs with their logs, by the compiled step and by the Python one, and what must be equal of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ami_engine.loop.assemble import assemble
from ami_engine.loop.feed import FeedEnd
from ami_engine.loop.native_run import STEP_VARIABLE
from ami_engine.loop.shutdown import StopSignal
from ami_engine.ops.activity import ACTIVITY_FILE_NAME
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.trace import read_packets, verify

from .native_pairs import Looking, told_by

FORMS = ("jsonl", "binary")
# What tells of wall time, and where the files are.
NOT_COMPARED = {"latency_us", "events_per_s", "trace_path", "audit_path"}


class Recorded:
    """A run with its logs: what it returned, what its broker tells, and what it wrote."""

    def __init__(self, make: Callable[[PaperBroker], Any], broker: PaperBroker, folder: Path, **options: Any) -> None:
        steps, trace = options.pop("steps", None), options.pop("trace", "jsonl")
        engine = options.pop("engine", None)
        if engine is not None:
            options["decision_engine"] = engine(broker)
        self.folder = folder
        self.run = assemble(
            make(broker), broker, should_stop=lambda: False, trace=trace, run_id="r", run_dir=folder, **options
        )
        self.is_native = self.run._native is not None
        try:
            reason = self.run.drive(steps, StopSignal())
        except FeedEnd as end:
            reason = end.reason
        native = self.run._native
        self.was_native_to_the_end = native is not None and native._stepper is not None and not native._is_over
        self.summary = {k: v for k, v in self.run.finish(reason).items() if k not in NOT_COMPARED}
        self.venue = told_by(broker)

    @property
    def audit(self) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (self.folder / "security_audit.jsonl").read_text().splitlines()]
        return [{name: value for name, value in line.items() if name != "ts_ns"} for line in lines]

    @property
    def activity(self) -> bytes:
        file = self.folder / ACTIVITY_FILE_NAME
        return file.read_bytes() if file.exists() else b""

    @property
    def packets(self) -> list[str]:
        """As text, since NaN is not equal to itself; without the time that everything took."""
        texts = []
        for packet in read_packets(self.folder):
            assert tuple(packet.external.pop("ops.latency_ns")) == ("observe", "fills", "decide", "orders")
            packet.latency_ms = 0.0
            texts.append(repr(packet.to_dict()))
        return texts


def assert_same(native: Recorded, python: Recorded) -> None:
    assert native.audit == python.audit
    assert native.activity == python.activity
    for ours, theirs in zip(native.packets, python.packets, strict=True):
        assert ours == theirs
    assert native.summary == python.summary
    assert native.venue == python.venue
    report = verify(native.folder)
    assert (report.ok, report.chain_head) == (True, python.summary["chain_head"])


def pair(
    folder: Path,
    source: Callable[[], Any],
    broker: Callable[[], PaperBroker],
    at: int | None = None,
    **options: Any,
) -> tuple[Recorded, Recorded]:
    """Run natively up to the `at`-th event (None: throughout), and in Python throughout."""

    def make(venue: PaperBroker) -> Any:
        return source() if at is None else Looking(source(), venue, at)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STEP_VARIABLE, "auto")
        native = Recorded(make, broker(), folder / "native", **options)
        patch.setenv(STEP_VARIABLE, "python")
        python = Recorded(make, broker(), folder / "python", **options)
    assert native.is_native
    assert not python.is_native
    return native, python
