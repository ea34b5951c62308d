"""How often a step forces its journal to the disk, counted under SQLite by a preloaded library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Every step of a run that quotes both sides, and what it did: orders sent, fills booked, syncs, transactions.
_RUN = """
import ctypes, json, sys
from ami_engine.adapters.base import MarketDataSource
from ami_engine.config import QuotingConfig
from ami_engine.dmc.risk_policy import RiskPolicy
from ami_engine.events import BookSnapshot
from ami_engine.loop.assemble import assemble
from ami_engine.loop.feed import FeedEnd
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.units import Instrument
from decision_schema.types import Action, Proposal

syncs_so_far = ctypes.CDLL(None).syncs_so_far
syncs_so_far.restype = ctypes.c_long
path, durability, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])


class Source(MarketDataSource):
    snapshots_only = True

    def instruments(self):
        return {"X": Instrument("X", tick_size=0.01)}

    def next_event(self):
        return None


class Model:
    def propose(self, features):
        mid = features["mid"]
        return Proposal(Action.ACT, 1.0, ["both"], {"bid_quote": mid - 0.02, "ask_quote": mid + 0.02, "size_usd": 5.0})


run = assemble(
    Source(), PaperBroker(instrument=Instrument("X", tick_size=0.01), cash=1e6), should_stop=lambda: False, trace=False,
    journal=path, durability=durability, run_id="r1", decision_engine=Model(), settle_ms=200,
    quoting=QuotingConfig(refresh_ms=0), risk_policy=RiskPolicy(
        max_total_exposure_usd=1e6, max_per_market_usd=1e6, cancel_rate_limit=10**6, daily_loss_stop_usd=1e9,
        max_abs_inventory=1e6,
    ),
)
store = run._durable.journal.store
state, told = run.market.state("X"), []
before = (0, 0, syncs_so_far(), store.transactions)
for step in range(steps):
    # The price stands for four steps of five, and then moves by three ticks: both quotes are replaced.
    bid = 10.0 + 0.03 * (step // 5 % 7)
    now_ns = 1_700_000_000_000_000_000 + step * 10_000_000
    run.step(BookSnapshot(now_ns, now_ns, "X", step, round(bid, 2), round(bid + 0.02, 2), 50.0, 50.0), state)
    counts = run.counters.to_dict()
    after = (counts["orders_submitted"], counts["fills_count"], syncs_so_far(), store.transactions)
    told.append([now - then for then, now in zip(before, after)])
    before = after
run.finish("end")
print(json.dumps(told))
"""


def run_steps(shim: Path, folder: Path, durability: str, steps: int) -> list[list[int]]:
    env = os.environ | {"LD_PRELOAD": str(shim), "FAIL_AT": "0", "FAIL_NAME": "j.sqlite"}
    command = [sys.executable, "-c", _RUN, str(folder / "j.sqlite"), durability, str(steps)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told: Any = json.loads(done.stdout)
    return list(told)


def test_a_step_that_sends_pays_one_sync_and_a_quiet_one_none(shim: Path, folder: Path) -> None:
    told = run_steps(shim, folder, "full", 2_000)
    sending = [step for step in told if step[0]]
    assert len(sending) > 300
    assert {step[0] for step in sending} >= {2}  # both sides in one step
    assert {step[2] for step in sending} == {1}
    # Without a fill nothing is written, but what the guards count, now and then, and the log that has grown long.
    quiet = [step for step in told if not step[0] and not step[1]]
    assert len(quiet) > 1_000
    written = [step for step in quiet if step[3]]
    assert sum(step[2] == 0 for step in quiet if not step[3]) == len(quiet) - len(written)
    assert len(written) < len(told) / 100
    assert max(step[2] for step in quiet) <= 4


@pytest.mark.parametrize("durability", ["normal", "off"])
def test_below_full_no_step_that_sends_waits_for_the_disk(shim: Path, folder: Path, durability: str) -> None:
    told = run_steps(shim, folder, durability, 1_000)
    sending = [step for step in told if step[0]]
    assert len(sending) > 100
    assert {step[2] for step in sending} == {0}
    if durability == "off":
        assert sum(step[2] for step in told) == 0
