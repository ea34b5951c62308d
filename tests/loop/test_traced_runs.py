"""Traces of whole runs: both forms, several files, a writing thread, and what a packet leaves out."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ami_engine.dmc import RiskPolicy, modulate
from ami_engine.errors import ConfigError
from ami_engine.loop.packets import OMITTED_KEYS, context_of
from ami_engine.loop.run_loop import run_loop
from ami_engine.mdm.decision_engine import DecisionEngine
from ami_engine.sim.microstructure_sim import MicrostructureSim
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.sim.synthetic_source import SyntheticSource
from ami_engine.trace import TraceLogger, convert, read_packets, verify
from decision_schema.types import Action, Proposal

CANARY = "canary-51c9aa"


def run(folder: Path, n: int = 600, **options: Any) -> dict[str, Any]:
    source = SyntheticSource(MicrostructureSim(seed=42), num_events=n)
    return run_loop(source=source, broker=PaperBroker(), run_dir=folder, **options)


def test_every_way_of_writing_gives_one_chain(tmp_path: Path) -> None:
    heads = {
        form: [
            run(tmp_path / f"{form}{i}", trace=form, **options)["chain_head"]
            for i, options in enumerate(({}, {"trace_queue": "block"}, {"trace_max_bytes": 100_000}))
        ]
        for form in ("jsonl", "binary")
    }
    assert len(set(heads["jsonl"])) == len(set(heads["binary"])) == 1
    assert heads["jsonl"] != heads["binary"]
    assert (tmp_path / "jsonl2" / "traces.3.jsonl").is_file()
    for folder in tmp_path.iterdir():
        assert verify(folder).ok
    done = convert(tmp_path / "binary2", tmp_path / "out.jsonl")
    assert (done.source_chain_head, done.chain_head) == (heads["binary"][0], heads["jsonl"][0])
    assert verify(tmp_path / "out.jsonl").chain_head == heads["jsonl"][0]


def test_the_summary_counts_what_the_queue_did(tmp_path: Path) -> None:
    plain, queued = run(tmp_path / "a"), run(tmp_path / "b", trace_queue="block", trace_queue_packets=5)
    assert (plain["trace_queued_max"], plain["trace_dropped"], plain["trace_blocked_ns"]) == (0, 0, 0)
    assert (queued["trace_queued_max"], queued["trace_dropped"]) == (5, 0)
    assert queued["trace_blocked_ns"] > 0
    source = SyntheticSource(MicrostructureSim(seed=1), num_events=5)
    untraced = run_loop(source=source, broker=PaperBroker(), trace=False)
    assert "trace_dropped" not in untraced


def test_dropped_packets_are_declared_and_their_steps_stay_used(tmp_path: Path) -> None:
    summary = run(tmp_path, trace_queue="drop", trace_queue_packets=1, trace="binary")
    packets = list(read_packets(tmp_path))
    assert summary["trace_dropped"] > 0
    assert sum(packet.external.get("ops.dropped", 0) for packet in packets) == summary["trace_dropped"]
    assert len(packets) + summary["trace_dropped"] == summary["steps"] + summary["timer_count"]
    assert packets[-1].step == summary["steps"] + summary["timer_count"] - 1
    report = verify(tmp_path)
    assert (report.ok, report.chain_head) == (True, summary["chain_head"])
    run(tmp_path, n=20, trace="binary", resume=True)
    steps = [packet.step for packet in read_packets(tmp_path)]
    assert steps == sorted(set(steps))
    assert steps[len(packets)] == packets[-1].step + 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("queue", [None, "block", "stop"])
@pytest.mark.parametrize("form", ["jsonl", "binary"])
def test_a_full_disk_ends_the_run_with_its_reason(tmp_path: Path, queue: Any, form: Any) -> None:
    options: dict[str, Any] = {"format": form, "queue": queue, "queue_packets": 100_000}
    logger = TraceLogger("run_1", run_dir=tmp_path, **options)
    descriptor = os.open("/dev/full", os.O_WRONLY)
    os.dup2(descriptor, logger._store.file._fd)
    os.close(descriptor)
    source = SyntheticSource(MicrostructureSim(seed=42), num_events=20_000)
    summary = run_loop(source=source, broker=PaperBroker(), trace=logger)
    assert summary["stopped_reason"].startswith("trace_error: ")
    assert os.strerror(errno.ENOSPC) in summary["stopped_reason"]
    assert summary["error_count"] == 1
    assert summary["last_error"].startswith("trace_error: ")
    assert summary["steps"] < 20_000


@pytest.mark.parametrize("form", ["jsonl", "binary"])
def test_no_secret_of_a_model_passes_through_a_run(tmp_path: Path, form: str) -> None:
    calls = 0

    def model(features: Any, **_: Any) -> Proposal:
        nonlocal calls
        calls += 1
        hidden = [
            Proposal(Action.HOLD, 0.5, ["quiet", f"token={CANARY}"]),
            Proposal(Action.HOLD, 0.5, ["quiet"], {"api_key": CANARY}),
            Proposal(Action.HOLD, 0.5, ["quiet"], {"note": f"Authorization: Bearer {CANARY}"}),
            Proposal(Action.HOLD, 0.5, ["quiet"], {"a": [{"b": {"password": CANARY}}]}),
            Proposal(Action.HOLD, 0.5, ["quiet"], None, f"token={CANARY}"),
            Proposal(Action.HOLD, 0.5, ["quiet"], None, None, {"client_secret": CANARY, "x": float("nan")}),
            Proposal(Action.HOLD, 0.5, ["quiet"], {"note": "nothing"}),
        ]
        return hidden[calls % len(hidden)]

    run(tmp_path, n=60, trace=form, decision_engine=DecisionEngine(model=model))
    assert calls >= 60
    for path in tmp_path.iterdir():
        assert CANARY.encode() not in path.read_bytes()
    summaries = [packet.mdm["features_summary"] for packet in read_packets(tmp_path)]
    assert any(repr(found.get("x")) == "nan" for found in summaries)
    assert verify(tmp_path).ok


def test_what_is_at_rest_is_left_out_and_can_be_put_back(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    def watching(proposal: Any, policy: Any, context: Any) -> Any:
        seen.append(msgspec.structs.asdict(context))
        return modulate(proposal, policy, context)

    run(tmp_path, modulator=watching)
    left_out = 0
    for told, packet in zip(seen, read_packets(tmp_path), strict=True):
        traced = packet.input["context"]
        assert None not in traced.values()
        left_out += len(OMITTED_KEYS - set(traced))
        whole = context_of(packet)
        expected = {key: value for key, value in told.items() if value is not None}
        expected["latched"] = list(told["latched"])
        whole["latched"] = list(whole["latched"])
        assert repr(sorted(whole.items())) == repr(sorted(expected.items()))
    assert left_out > 5 * len(seen)


def test_a_key_that_the_policy_requires_is_never_left_out(tmp_path: Path) -> None:
    policy = RiskPolicy(required_context=("kill_switch", "cooldown_until_ms"))
    run(tmp_path, risk_policy=policy, n=50)
    for packet in read_packets(tmp_path):
        context = {key: value for key, value in packet.input["context"].items() if value is not None}
        assert context["kill_switch"] is False
        final, _ = modulate(msgspec.convert(packet.mdm, Proposal), policy, context)
        assert final.action == packet.final_action["action"]


def test_a_mismatch_stands_in_a_packet_once(tmp_path: Path) -> None:
    run(tmp_path)
    fired = [packet for packet in read_packets(tmp_path) if packet.mismatch is not None]
    assert fired
    assert all("mismatch" not in packet.final_action for packet in fired)


def test_options_of_a_trace_are_checked(tmp_path: Path) -> None:
    source = SyntheticSource(MicrostructureSim(seed=1), num_events=5)
    with pytest.raises(ConfigError, match="`trace` must be"):
        run_loop(source=source, broker=PaperBroker(), trace="xml", run_dir=tmp_path / "a")
    with pytest.raises(ConfigError, match="`queue` must be"):
        run_loop(source=source, broker=PaperBroker(), trace_queue="never", run_dir=tmp_path / "b")
    with TraceLogger("run_1", tmp_path) as logger, pytest.raises(ConfigError, match="`trace_queue` is for a trace"):
        run_loop(source=source, broker=PaperBroker(), trace=logger, trace_queue="drop")
