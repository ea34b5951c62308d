"""`ami control` against an engine in another process."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Ami

ENGINE = textwrap.dedent(
    """
    import sys, time
    from ami_engine.cli.output import print_json
    from ami_engine.dmc import RiskPolicy
    from ami_engine.events import BookSnapshot
    from ami_engine.adapters import DataSource
    from ami_engine.loop.run_loop import run_loop
    from ami_engine.sim.paper_broker import PaperBroker

    class Live(DataSource):
        is_live = True
        count = 0
        def next_event(self):
            self.count += 1
            if self.count > 4000:
                return None
            time.sleep(0.005)
            mid = 5.0 + 0.02 * (self.count // 150 % 3)
            return BookSnapshot(0, time.time_ns(), "X", 0, mid - 0.01, mid + 0.01, 90.0, 30.0)

    policy = RiskPolicy(sigma_5m_max=0.0, sigma_spike_z_max=1e9, cancel_rate_limit=10**6)
    print_json(run_loop(source=Live(), broker=PaperBroker(), run_dir=sys.argv[1], risk_policy=policy))
    """
)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A paper loop on a live feed, in a process of its own, that has sent an order."""
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", ENGINE, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline and not orders_of(folder):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    yield process, folder
    process.kill()
    process.communicate()


def audit_of(folder: Path) -> list[dict[str, object]]:
    path = folder / "security_audit.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def orders_of(folder: Path) -> list[dict[str, object]]:
    return [line for line in audit_of(folder) if line["kind"] == "order_submitted"]


def test_a_kill_from_another_process_stops_a_running_engine(
    engine: tuple[subprocess.Popen[str], Path], ami: Ami
) -> None:
    process, folder = engine
    said = ami("control", "kill", folder, "--operator", "ann", "--reason", "position does not match", "--json")
    assert said.code == 0, said.err
    assert (said.document["ok"], said.document["state"], said.document["latched"]) == (True, "HALTED", ["kill_switch"])
    resumed = ami("control", "resume", folder, "--operator", "bob", "--reason", "hurry")
    assert (resumed.code, "kill_switch is latched" in resumed.out) == (1, True)
    time.sleep(1.0)  # the feed goes on, and its price moves
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    summary = json.loads(out)
    assert summary["trading_state"] == "HALTED"
    assert summary["action_counts"]["STOP"] > 10
    lines = audit_of(folder)
    killed = next(i for i, line in enumerate(lines) if line.get("action") == "kill")
    assert (lines[killed]["operator"], lines[killed]["reason"]) == ("ann", "position does not match")
    assert not [line for line in lines[killed:] if line["kind"] == "order_submitted"]
    sent = {line["order"]["client_order_id"] for line in lines if line["kind"] == "order_submitted"}  # type: ignore[index]
    gone = {line["client_order_id"] for line in lines if line["kind"] == "order_canceled"}
    assert len(sent - gone) <= summary["fills_count"]
    assert summary["orders_canceled"] > 0


def test_pausing_and_resuming_a_running_engine(engine: tuple[subprocess.Popen[str], Path], ami: Ami) -> None:
    process, folder = engine
    assert ami("control", "pause", folder, "--operator", "ann", "--reason", "x").code == 0
    before = len(orders_of(folder))
    time.sleep(0.5)
    assert len(orders_of(folder)) == before
    assert ami("control", "status", folder, "--json").document["state"] == "HALTED"
    budget = ami("control", "budget", folder, "--operator", "ann", "--reason", "x", "--usd", "5", "--json")
    assert budget.document["budget_usd"] == 5.0
    assert ami("control", "budget", folder, "--operator", "ann", "--reason", "x", "--usd", "11").code == 1
    assert (
        ami("control", "reduce", folder, "--operator", "ann", "--reason", "x", "--json").document["state"] == "REDUCING"
    )
    assert ami("control", "resume", folder, "--operator", "ann", "--reason", "x").code == 0
    deadline = time.monotonic() + 30.0
    while len(orders_of(folder)) == before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(orders_of(folder)) > before
    assert process.poll() is None


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("kill", "nowhere", "--operator", "a", "--reason", "b"), "no engine listens"),
        (("kill", ".", "--reason", "b"), "`--operator`"),
        (("budget", ".", "--operator", "a", "--reason", "b"), "`--usd`"),
        (("pause", ".", "--operator", "a", "--reason", "b", "--release", "kill_switch"), "`--release`"),
        (("explode", "."), "explode"),
    ],
)
def test_what_cannot_be_commanded_is_one_line_and_code_2(ami: Ami, arguments: tuple[str, ...], named: str) -> None:
    said = ami("control", *arguments)
    assert said.code == 2
    assert named in said.error
