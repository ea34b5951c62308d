"""What a step of a journaled run keeps of its markets' guards, and when."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

from ami_engine.bench.safety import _Quiet
from ami_engine.dmc.risk_policy import RiskPolicy
from ami_engine.dmc.risk_state import RiskState
from ami_engine.events import Fill, Side
from ami_engine.execution.journal import Journal
from ami_engine.loop.durable import Durable
from ami_engine.portfolio.positions import Positions
from ami_engine.state_store import StateStore
from ami_engine.units import Instrument


def _market(name: str) -> Any:
    instrument = Instrument(name, tick_size=0.01)
    return SimpleNamespace(
        market_id=name, risk=RiskState(RiskPolicy(), 0.01), state=SimpleNamespace(instrument=instrument)
    )


def test_a_fill_is_kept_with_its_own_markets_counts_whosever_turn_it_is() -> None:
    journal = Journal(StateStore(":memory:"), run_id="r", begun_ns=1)
    durable = Durable(journal, closes_store=False)
    markets = [_market(f"M{i:02}") for i in range(40)]
    for market in markets:
        durable.join(market, lambda *_, **__: None, ())
    durable.keep(markets[0], 10)
    positions = Positions(instrument=Instrument("M30", tick_size=0.01))
    fill = Fill(trade_id="1", client_order_id="o", market_id="M30", side=Side.BUY, price=1.0, qty=1.0, ts_ns=11)
    positions.apply(fill)
    durable.post(fill, positions)
    markets[30].risk.on_position_closed(11, -1.0)
    # In the very step in which other markets' turn comes, and the event is another market's.
    durable.keep(markets[5], durable.due_ns)
    assert journal.checkpoint_of("risk:M30") is not None


def _bytecodes(quiet: _Quiet, steps: int) -> Counter[tuple[str, int]]:
    """Return how often which line's bytecodes ran in so many steps."""
    quiet.go(20)
    counted: Counter[tuple[str, int]] = Counter()

    def count(frame: FrameType, event: str, _: Any) -> Any:
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_lineno is not None:
            counted[frame.f_code.co_qualname, frame.f_lineno] += 1
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        quiet.go(steps)
    finally:
        sys.settrace(before)
    return counted


def test_a_quiet_step_runs_the_same_code_with_a_journal_as_without(tmp_path: Path) -> None:
    plain, kept = _Quiet(), _Quiet(tmp_path / "journal.sqlite", "full")
    without, with_journal = _bytecodes(plain, 50), _bytecodes(kept, 50)
    assert with_journal == without
    assert sum(n for (name, _), n in without.items() if name == "OrderManager.poll") > 50
    # But when the guards' counts are due, they are kept.
    written = kept.transactions
    kept.go(600)
    assert kept.transactions > written
    plain.close()
    kept.close()


def test_what_begins_to_wait_between_two_quiet_steps_is_written_at_the_next(tmp_path: Path) -> None:
    kept = _Quiet(tmp_path / "journal.sqlite", "full")
    kept.go(20)
    journal = kept.run._durable.journal  # type: ignore[union-attr]
    written = kept.transactions
    journal.checkpoint("mine", b"1", 1)
    kept.go(1)
    assert (kept.transactions, journal.is_dirty) == (written + 1, False)
    kept.close()


def test_what_only_a_mark_moved_is_kept_when_it_is_due_and_with_what_a_fill_changed() -> None:
    journal = Journal(StateStore(":memory:"), run_id="r", begun_ns=1)
    durable = Durable(journal, closes_store=False)
    market = _market("M")
    durable.join(market, lambda *_, **__: None, ())

    def account_after(now_ns: int, realized: float, unrealized: float) -> bytes | None:
        market.risk.on_account(now_ns, realized, unrealized, realized + unrealized)
        journal.checkpoint("other", str(now_ns).encode(), now_ns)  # so that the step has something to write
        durable.keep(market, now_ns)
        return journal.checkpoint_of("account")

    first = account_after(1, 0.0, 5.0)
    assert first is not None
    assert account_after(2, 0.0, 4.0) == first  # a mark, below the peak
    higher = account_after(3, 0.0, 6.0)  # a new peak of equity
    assert higher not in (None, first)
    filled = account_after(4, 1.0, 4.0)
    assert filled not in (None, higher)
    assert account_after(5, 1.0, 3.5) == filled
    due = account_after(durable.due_ns, 1.0, 3.5)
    assert due not in (None, filled)
    # What is put back goes on from there: what was lost from the peak is known.
    risk = RiskState(RiskPolicy(), 0.01)
    assert due is not None
    risk.restore_account(due)
    assert risk.account_snapshot() == due
