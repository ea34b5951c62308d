"""A live run started again by the same call finds its orders and latches, or withdraws what it does not know."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ami_engine.errors import ConfigError
from ami_engine.events import OrderReport, Side, SubmitOrder
from ami_engine.execution.idempotency import client_order_id
from ami_engine.loop.latches import Release
from ami_engine.loop.run_loop import run_loop
from ami_engine.mdm.decision_engine import DecisionEngine
from ami_engine.state_store import StateStore
from decision_schema.types import Action, Proposal
from tests.loop.conftest import ListSource, RecordingBroker, book
from tests.loop.file_venue import FileVenue

_TRADER = """
import os, sys, time
sys.path.insert(0, {root!r})
os.chdir({folder!r})
from ami_engine.events import BookSnapshot
from ami_engine.loop.run_loop import run_loop
from tests.loop.conftest import ListSource
from tests.loop.file_venue import FileVenue

class Feed(ListSource):
    is_live = True
    identity = "feed"
    def next_event(self):
        time.sleep(0.01)
        return BookSnapshot(0, time.time_ns(), "X", 0, 0.49, 0.51, 90.0, 30.0)

run_loop(source=Feed([]), broker=FileVenue({venue!r}))
"""


def _wait(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60.0
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def _compared(folder: Path) -> int:
    """Return how many starts have compared themselves with the venue."""
    audits = folder.glob("runs/*/security_audit.jsonl")
    return sum('"reconciled"' in path.read_text(encoding="utf-8") for path in audits)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")
def test_the_same_default_call_after_kill_9_doubles_no_quote(tmp_path: Path) -> None:
    truth = str(tmp_path / "venue.sqlite")
    code = _TRADER.format(root=str(Path(__file__).parents[2]), folder=str(tmp_path), venue=truth)
    venue = FileVenue(truth)
    first: set[str] = set()
    for start in range(2):
        process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
        try:
            _wait(lambda: len(venue.fetch_open_orders()) == 2, process)
            if start == 0:
                first = {order.client_order_id for order in venue.fetch_open_orders()}
                second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
                assert "ConfigError" in second.stderr, "another process has no business in the same place"
            while _compared(tmp_path) == start:
                _wait(lambda: True, process)
                time.sleep(0.02)
            time.sleep(0.5)
        finally:
            process.kill()
            process.communicate()
        assert len(venue.fetch_open_orders()) == 2
    assert {order.client_order_id for order in venue.fetch_open_orders()} == first, "they were known, and stood well"
    assert venue.doubled() == []


class Live(ListSource):
    is_live = True
    identity = "feed"


def stop(features: Any, **_: Any) -> Proposal:
    return Proposal(Action.STOP, 0.9, ["test"])


def test_a_latch_holds_over_the_same_default_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    venue = FileVenue(str(tmp_path / "venue.sqlite"))
    engine = DecisionEngine(model=stop)
    first = run_loop(source=Live([book(0)]), broker=venue, decision_engine=engine)
    assert first["action_counts"] == {"STOP": 1}
    second = run_loop(source=Live([book(10)]), broker=venue, decision_engine=engine)
    assert second["trading_state"] == "HALTED"
    assert second["run_id"] == first["run_id"]
    assert second["trace_path"] != first["trace_path"]
    assert Path(first["trace_path"]).parent.resolve() == (tmp_path / "runs" / first["run_id"]).resolve()
    with pytest.raises(ConfigError, match="must name what is latched"):
        run_loop(source=Live([]), broker=venue, decision_engine=engine, release=(Release("drawdown", "ann", "x"),))
    freed = run_loop(
        source=Live([]), broker=venue, decision_engine=engine, release=(Release("kill_switch", "ann", "looked"),)
    )
    assert freed["trading_state"] == "ACTIVE"


def test_a_broker_that_cannot_be_asked_trades_no_live_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    class Half(RecordingBroker):
        def fetch_order(self, client_order_id: str) -> None:
            return None

    text = "Half cannot trade live: write fetch_open_orders, fetch_fills, fetch_balances, or"
    with pytest.raises(ConfigError, match=text):
        run_loop(source=Live([book(0)]), broker=Half())
    assert list(tmp_path.iterdir()) == []
    assert run_loop(source=Live([book(0)]), broker=Half(), dry_run=True)["steps"] == 1
    assert run_loop(source=ListSource([book(0)]), broker=Half())["steps"] == 1


# Orders of an earlier run whose journal is gone. ------------------------------------------------------------------


class Strict(FileVenue):
    """Remembers what was asked in which order, and may keep orders that are to be cancelled."""

    keeps = False

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.asked: list[str] = []

    def submit_order(self, order: SubmitOrder) -> None:
        self.asked.append("submit")
        super().submit_order(order)

    def cancel_order(self, order_id: str) -> bool:
        self.asked.append(order_id)
        return False if self.keeps else super().cancel_order(order_id)


def leave(venue: FileVenue, market_id: str, order_id: str) -> str:
    FileVenue.submit_order(
        venue, SubmitOrder(client_order_id=order_id, market_id=market_id, side=Side.BUY, price=0.4, qty=1.0)
    )
    return order_id


def live_ids(venue: FileVenue) -> set[str]:
    return {report.client_order_id for report in FileVenue.fetch_open_orders(venue)}


def test_orders_of_ours_that_a_new_journal_does_not_know_are_cancelled_before_the_first_quote(tmp_path: Path) -> None:
    venue = Strict(str(tmp_path / "venue.sqlite"))
    ours = leave(venue, "X", client_order_id("gone", "X", 3, Side.BUY))
    elsewhere = leave(venue, "Y", client_order_id("gone", "Y", 3, Side.BUY))
    by_hand = leave(venue, "X", "by-hand")
    venue.cancel_all = lambda market_id=None: 0  # type: ignore[method-assign]
    summary = run_loop(
        source=ListSource([book(10 * i) for i in range(5)]), broker=venue, trace=False, journal=StateStore(":memory:")
    )
    assert venue.asked[:2] == [ours, "submit"]
    assert summary["orders_submitted"] == 2
    assert any(ours in note and "earlier run" in note for note in summary["notes"])
    assert live_ids(venue) == {elsewhere, by_hand}


def test_an_order_of_an_earlier_run_that_stays_halts_and_nothing_is_sent(tmp_path: Path) -> None:
    venue = Strict(str(tmp_path / "venue.sqlite"))
    venue.keeps = True
    ours = leave(venue, "X", client_order_id("gone", "X", 3, Side.BUY))
    summary = run_loop(
        source=ListSource([book(100 * i) for i in range(20)]),
        broker=venue,
        trace=False,
        journal=StateStore(":memory:"),
        settle_ms=500,
    )
    assert "submit" not in venue.asked
    assert summary["trading_state"] == "HALTED"
    assert any(ours in note for note in summary["notes"])
    assert "kill_switch" in " ".join(summary["notes"])


def test_nothing_is_quoted_before_the_venue_was_compared_with(tmp_path: Path) -> None:
    class Away(FileVenue):
        looks = 0

        def fetch_open_orders(self, market_id: str | None = None) -> list[OrderReport]:
            self.looks += 1
            if self.looks < 3:
                raise ConnectionError("not yet")
            return super().fetch_open_orders(market_id)

    venue = Away(str(tmp_path / "venue.sqlite"))
    counts = []
    source = ListSource([book(300 * i) for i in range(10)])
    run_loop(
        source=source,
        broker=venue,
        trace=False,
        journal=StateStore(":memory:"),
        settle_ms=500,
        decision_engine=DecisionEngine(
            model=lambda features, **_: (
                counts.append((venue.looks, len(live_ids(venue))))
                or Proposal(Action.ACT, 0.9, ["test"], {"bid_quote": 0.49, "ask_quote": 0.51, "size_usd": 1.0})
            )
        ),
    )
    assert all(not live for looks, live in counts if looks < 3)
    assert any(live == 2 for looks, live in counts if looks >= 3)
