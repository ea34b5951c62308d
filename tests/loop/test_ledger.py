"""A run with a journal keeps double-entry books: balanced, complete after a crash, and never posted twice."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ami_engine.dmc import RiskPolicy
from ami_engine.execution.journal import Journal
from ami_engine.loop.run_loop import run_loop
from ami_engine.portfolio.ledger import Ledger
from ami_engine.sim.microstructure_sim import MicrostructureSim
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.sim.synthetic_source import SyntheticSource
from ami_engine.state_store import StateStore


def books(journal: Path) -> Ledger:
    store = StateStore(journal)
    try:
        ledger = Ledger()
        ledger.restore(Journal(store).postings())
        return ledger
    finally:
        store.close()


def run(journal: Path, seed: int) -> dict[str, Any]:
    policy = RiskPolicy(sigma_5m_max=0.0, sigma_spike_z_max=1e9, max_total_exposure_usd=1e6, daily_loss_stop_usd=1e6)
    source = SyntheticSource(MicrostructureSim(seed=seed), num_events=1_500)
    return run_loop(
        source=source, broker=PaperBroker(), trace=False, journal=journal, risk_policy=policy, durability="off"
    )


def test_the_books_of_a_run_balance_and_agree_with_its_summary(tmp_path: Path) -> None:
    summary = run(tmp_path / "journal.db", 3)
    assert summary["fills_count"] > 10
    ledger = books(tmp_path / "journal.db")
    assert ledger.trial_balance() == {"USD": Decimal(0)}
    assert float(-ledger.total("pnl", "USD")) == pytest.approx(summary["realized_pnl"], abs=1e-9)
    assert float(ledger.total("fees", "USD")) == pytest.approx(summary["fees"], abs=1e-9)


def test_postings_that_a_crash_kept_from_being_written_are_made_up_for(tmp_path: Path) -> None:
    journal = tmp_path / "journal.db"
    run(journal, 3)
    whole = books(journal)
    store = StateStore(journal)
    with store.transaction():
        ((last,),) = store.query("SELECT tx FROM postings ORDER BY seq DESC LIMIT 1")
        store.execute("DELETE FROM postings WHERE tx = ?", (last,))
    store.close()
    assert books(journal).balances() != whole.balances()
    source = SyntheticSource(MicrostructureSim(seed=3), num_events=0)
    run_loop(source=source, broker=PaperBroker(), trace=False, journal=journal)
    assert books(journal).balances() == whole.balances()
