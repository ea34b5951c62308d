"""What outlives an engine in a simulated run: exchange, clock, journal file, and who counts the points of death."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ami_engine.clock import ManualClock
from ami_engine.events import Fill, OrderAck, SubmitOrder
from ami_engine.mdm.position_manager import PositionManager
from ami_engine.sim.faults import FaultPlan
from ami_engine.sim.mock_broker import MockExchangeBroker
from ami_engine.sim.mock_exchange import MockExchange
from ami_engine.sim.splitmix import SplitMix
from ami_engine.testing.simtest.case import Case
from ami_engine.units import NS_PER_S, Instrument
from decision_schema.types import Action, Proposal

__all__ = ["EVERY_MS", "Killed", "KillableBroker", "Quoter", "Stayer", "World"]

EVERY_MS = 100
_START_NS = 1_700_000_000 * NS_PER_S
_INSTRUMENTS = [
    Instrument(name, tick_size=0.01, lot_size=0.001, maker_fee_bps=-0.5, taker_fee_bps=4.0) for name in ("SIM", "TWO")
]


class Killed(BaseException):
    """The process ends here, as with ``kill -9``: nothing below may catch it."""


class World:
    """One case under way.

    Attributes
    ----------
    step : int
        Steps done, over all lives of the engine.
    limit_usd : float
        What the worst case of all markets together may be.
    submits_after_switch : list of str
        Orders that were sent after the kill switch was pulled: there must be none.
    cancels : int
        Cancels that were asked for.
    placed : int
        Orders at the venue whose exposure was checked.
    excused_usd : float
        Worst case that is over the limit because of fills that nobody could know of; 0 when there is none.
    has_timers : bool
        True where a market that is silent while the other moves is looked at in between: in half of the cases with two.
    is_quiet : bool
        True once the trouble is over, and the model wants nothing any more.
    """

    def __init__(self, case: Case, journal_path: Path) -> None:
        self.case = case
        self.journal_path = journal_path
        self.clock = ManualClock(_START_NS)
        self.exchange = MockExchange(
            self.clock,
            _INSTRUMENTS[: 1 + case.seed % 2],
            case.seed,
            FaultPlan.parse(case.faults),
            recv_window_ms=case.recv_window_ms,
            dedupe=case.dedupe,
        )
        # In two markets the limit is tight: there an order in doubt decides what the other market may do.
        self.limit_usd = 60.0 if len(self.exchange.venue.markets) == 1 else 30.0
        self.has_timers = case.seed % 4 == 1
        self.choices = SplitMix(case.seed, stream=3)
        self.step = 0
        self.is_switched = False
        self.is_quiet = False
        self.submits_after_switch: list[str] = []
        self.cancels = 0
        self.placed = 0
        self.excused_usd = 0.0
        self._rest_began = 0
        self._kills = list(case.kills)
        self._left = 0

    def begin_life(self) -> None:
        """A process starts: its points are counted anew."""
        self._left = self._kills.pop(0) if self._kills else 0

    def point(self, name: str) -> None:
        """Pass a point at which a process may die.

        Raises
        ------
        Killed
            When this is the one.
        """
        if self._left and not self.is_quiet:
            self._left -= 1
            if not self._left:
                raise Killed(name)

    def end_trouble(self) -> None:
        """From here on nothing goes wrong, and the model only cancels."""
        self.is_quiet = True
        self._rest_began = self.step
        self.exchange.quiet()

    def rested(self, *, is_engine_done: bool) -> int:
        """Return for how many steps nothing was left to do, at the exchange or for the engine."""
        if not (is_engine_done and self.exchange.is_at_rest):
            self._rest_began = self.step
        return self.step - self._rest_began


class KillableBroker(MockExchangeBroker):
    """The way to the exchange, with a point of death before and after every call."""

    def __init__(self, world: World) -> None:
        super().__init__(world.exchange)
        self._world = world

    def submit_order(self, order: SubmitOrder) -> OrderAck:
        world = self._world
        world.point("broker.submit.before")
        if world.is_switched:
            world.submits_after_switch.append(order.client_order_id)
        ack = super().submit_order(order)
        world.point("broker.submit.after")
        return ack

    def cancel_order(self, order_id: str) -> bool:
        self._world.point("broker.cancel.before")
        self._world.cancels += 1
        done = super().cancel_order(order_id)
        self._world.point("broker.cancel.after")
        return done

    def cancel_all(self, market_id: str | None = None) -> int:
        self._world.point("broker.cancel_all.before")
        self._world.cancels += 1
        count = super().cancel_all(market_id)
        self._world.point("broker.cancel_all.after")
        return count

    def process_fills(self, now_ms: int) -> list[Fill]:
        fills = super().process_fills(now_ms)
        if fills:
            # They are told once: whoever dies here has lost them from the stream.
            self._world.point("broker.fills.after")
        return fills

    def fetch_order(self, client_order_id: str) -> Any:
        report = super().fetch_order(client_order_id)
        self._world.point("broker.fetch_order.after")
        return report


class Stayer(PositionManager):
    """A position manager that leaves a position alone once the trouble is over, so that everything comes to rest."""

    def __init__(self, world: World) -> None:
        super().__init__(tp_ticks=6, sl_ticks=12, tick_size=_INSTRUMENTS[0].tick_size, T_max_ms=120_000)
        self._world = world

    def should_flatten(self, market_id: str, current_mid: float, now_ms: float) -> tuple[bool, str]:
        """Return whether to leave the position, and why."""
        if self._world.is_quiet:
            return False, ""
        return super().should_flatten(market_id, current_mid, now_ms)


class Quoter:
    """A model that wants something else every few steps: the seed's choice of quotes, exits, pauses and cancels."""

    model_name = "simtest"
    confidence_threshold = 0.0
    audit = None

    def __init__(self, world: World) -> None:
        self._world = world
        self._bid_off = self._ask_off = 0
        self._size_usd = 10.0
        self._sides = 0

    def propose(self, features: Any, **_: Any) -> Proposal:
        """Return what the next step should do."""
        world, draw = self._world, self._world.choices
        if world.is_quiet:
            return Proposal(Action.CANCEL, 1.0, ["simtest_quiet"])
        kind = draw.below(1_000)
        if kind < 40:
            return Proposal(Action.CANCEL, 1.0, ["simtest_cancel"])
        if kind < 80:
            return Proposal(Action.EXIT, 1.0, ["simtest_exit"])
        if kind < 140:
            return Proposal(Action.HOLD, 1.0, ["simtest_hold"])
        if kind < 500:
            self._bid_off, self._ask_off = draw.below(4), draw.below(4)
            self._size_usd = 1.0 + draw.below(20)
            self._sides = draw.below(8)
        bid, ask = features["bid"], features["ask"]
        return Proposal(
            Action.ACT,
            1.0,
            ["simtest_quote"],
            {
                "bid_quote": None if self._sides == 6 else bid - 0.01 * self._bid_off,
                "ask_quote": None if self._sides == 7 else ask + 0.01 * self._ask_off,
                "size_usd": self._size_usd,
            },
        )
