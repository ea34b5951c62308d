"""One life of the whole engine in a simulated run: from opening the journal to the end, or to being killed."""

from __future__ import annotations

import msgspec

from ami_engine.config import QuotingConfig
from ami_engine.dmc.risk_policy import RiskPolicy
from ami_engine.execution.journal import Journal
from ami_engine.execution.order_state import Order
from ami_engine.loop.assemble import assemble
from ami_engine.sim.mock_broker import MockExchangeSource
from ami_engine.state_store import StateStore
from ami_engine.testing.simtest.world import EVERY_MS, KillableBroker, Quoter, Stayer, World
from ami_engine.units import NS_PER_MS

__all__ = ["SETTLE_MS", "Life"]

# How long the engine waits before it believes "unknown": beyond what the faults make of a clock or a snapshot.
SETTLE_MS = 1_500
_POLICY = RiskPolicy(
    max_per_market_usd=1e6,
    max_abs_inventory=1e6,
    cancel_rate_limit=1_000_000,
    circuit_breaker_failures=1_000_000,
    error_rate_max=1.0,
    daily_loss_stop_usd=1e6,
    sigma_5m_max=1e3,
    sigma_spike_z_max=1e6,
    adv15_max_ticks=1e6,
    adv60_max_ticks=1e6,
    staleness_ms=60_000,
)
# No market is silent for so long.
_SELDOM_MS = 20 * EVERY_MS
_QUOTING = QuotingConfig(refresh_ms=200)


class Life:
    """An engine made of its real parts, on the world's journal file and exchange.

    Parameters
    ----------
    world : World
        Where it lives.
    events : int
        How many events it sees if nothing ends it before.

    Raises
    ------
    Killed
        Already in here when a point of death lies in the start.
    """

    def __init__(self, world: World, events: int) -> None:
        self._world = world
        self._broker = KillableBroker(world)
        self._store: StateStore | None = None
        try:
            # A process that is killed loses nothing that it wrote, synced or not: what a power cut takes is tested
            # elsewhere.
            self._store = StateStore(world.journal_path, durability="off", fault=world.point)
            self.run = assemble(
                MockExchangeSource(world.exchange, events, EVERY_MS),
                self._broker,
                should_stop=lambda: False,
                run_id="simtest",
                trace=False,
                journal=self._store,
                timer_ms=EVERY_MS if world.has_timers else _SELDOM_MS,
                settle_ms=SETTLE_MS,
                reconcile_every_ms=1_000,
                decision_engine=Quoter(world),
                risk_policy=msgspec.structs.replace(_POLICY, max_total_exposure_usd=world.limit_usd),
                quoting=_QUOTING,
                position_manager=Stayer(world),
                clock=world.clock,
            )
        except BaseException:
            self.drop()
            raise

    def drop(self) -> None:
        """Forget the engine as it stands, as a killed process is forgotten: nothing is finished."""
        self._broker.close()
        if self._store is not None:
            self._store.close()

    def pull_switch(self) -> None:
        """Do what the kill switch does: latch, so that it holds for every life, and cancel everything."""
        now_ns = self._world.clock.now_ns()
        self.run.latches.latch("kill_switch", now_ns, "pulled by the simulated operator")
        self._world.is_switched = True
        self.run.orders.cancel_all("kill switch", now_ns // NS_PER_MS)

    # What the engine says. ----------------------------------------------------------------------------------------

    def order(self, client_order_id: str) -> Order | None:
        """Return what the engine knows of an order, None when nothing."""
        working = self.run.orders._table.find(client_order_id)
        return None if working is None else working.order

    def open_orders(self) -> list[Order]:
        """Return the orders that may be live, as the engine sees it."""
        return self.run.orders.open_orders()

    @property
    def stopped_by(self) -> str:
        """What keeps the engine from trading until an operator releases it, in this life or an earlier one."""
        return self.run.orders.halt_reason or ", ".join(self.run.latches.names)

    def position(self, market_id: str) -> float:
        """Return the position that the loop decides on."""
        return self.run.account.positions.position(market_id)

    @property
    def cash(self) -> float:
        """The cash that the engine counts."""
        return self.run.account.cash

    @property
    def journal(self) -> Journal:
        """The engine's own journal."""
        journal = self.run._durable.journal if self.run._durable is not None else None
        assert journal is not None
        return journal

    def read_journal(self) -> Journal:
        """Read the journal anew: what the next life would find."""
        return Journal(self.journal.store)
