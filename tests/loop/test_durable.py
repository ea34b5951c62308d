"""What a step of a journaled run keeps of its markets' guards, and when."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

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
