"""The engine without its loop, for a framework that has a loop of its own: quotes and fills in, what should rest out.

The framework keeps time, orders and data. The engine keeps features, the account, what risk has to remember, and
guards what the model proposes. `nautilus_strategy.py` and `hftbacktest_strategy.py` use it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from ami_engine.dmc import GuardContext, RiskPolicy, RiskState, modulate
from ami_engine.events import Fill, Side
from ami_engine.features import FeatureBuilder, FeatureConfig
from ami_engine.mdm.decision_engine import DecisionEngine
from ami_engine.portfolio.pnl import Account
from ami_engine.units import NS_PER_MS, Instrument
from decision_schema.types import Action, FinalDecision, MismatchInfo, Proposal

MARKET = Instrument("ACME", tick_size=0.01, lot_size=1.0)
POLICY = RiskPolicy(
    max_per_market_usd=100.0,
    max_total_exposure_usd=5_000.0,
    max_abs_inventory=30.0,
    daily_loss_stop_usd=25.0,
    cancel_rate_limit=1_000,
    adv15_max_ticks=1_000.0,
    adv60_max_ticks=1_000.0,
    sigma_spike_z_max=20.0,
)


class Wanted(msgspec.Struct, frozen=True):
    """What should rest: price and size of each side's quote.

    With `keeps` everything is left as it is. With `closes` the position is to be closed, once nothing rests any more.
    """

    quotes: dict[Side, tuple[float, float]] = {}
    keeps: bool = False
    closes: bool = False


class Decider:
    """Features, model, account and guards of one market.

    Parameters
    ----------
    is_guarded : bool
        False asks the model only, to see what the guards are good for.
    """

    def __init__(self, *, is_guarded: bool = True) -> None:
        self.account = Account({MARKET.symbol: MARKET})
        self.reasons: Counter[str] = Counter()
        self.decisions = 0
        self.largest_position = 0.0
        self._is_guarded = is_guarded
        self._builder = FeatureBuilder(FeatureConfig(tick_size=MARKET.tick_size))
        self._engine = DecisionEngine(model=join_the_touch)
        self._risk = RiskState(POLICY, MARKET.tick_size)
        self._context = GuardContext()
        self._mid = 0.0

    @property
    def position(self) -> float:
        """What is held, as the fills say."""
        return self.account.positions.position(MARKET.symbol)

    def on_quote(
        self, ts_ns: int, bid: float, ask: float, bid_size: float, ask_size: float, *, open_orders: int = 0
    ) -> Wanted:
        """Take the best prices and return what should rest now. Times are ns, and never go backwards."""
        features = self._builder.update(ts_ns, bid, ask, bid_size, ask_size)
        self._mid = features.mid
        account, risk = self.account, self._risk
        account.mark(MARKET.symbol, features.mid)
        risk.on_event(ts_ns)
        risk.on_book(ts_ns, features.mid)
        risk.on_account(ts_ns, account.realized - account.fees, account.unrealized, account.equity, 1.0)
        proposal = self._engine.propose(features)
        final, mismatch = self._judge(proposal, ts_ns, features, open_orders)
        risk.on_verdict(ts_ns, proposal, final, mismatch)
        risk.on_step(ts_ns, False)
        self.decisions += 1
        self.reasons.update(mismatch.reason_codes)
        return _wanted(final, mismatch)

    def on_fill(self, fill: Fill) -> None:
        """Book a fill; `ts_ns` is its time."""
        result = self.account.apply(fill)
        self._risk.on_fill(fill.ts_ns, fill, self._mid or fill.price, result.realized - fill.fee)
        if result.closed:
            self._risk.on_position_closed(fill.ts_ns, result.trip_pnl)
        self.largest_position = max(self.largest_position, abs(self.position))

    def on_cancels(self, ts_ns: int, count: int) -> None:
        """Count cancels that were sent."""
        self._risk.on_cancels(ts_ns, count)

    def _judge(
        self, proposal: Proposal, ts_ns: int, features: Any, open_orders: int
    ) -> tuple[FinalDecision, MismatchInfo]:
        if not self._is_guarded:
            return FinalDecision(proposal.action, params=proposal.params), MismatchInfo()
        context, account = self._context, self.account
        self._risk.fill_context(context, ts_ns)
        context.last_event_ts_ms = ts_ns // NS_PER_MS
        context.mid, context.spread_bps, context.depth = features.mid, features.spread_bps, features.depth
        context.sigma_5m, context.sigma_spike_z = features.sigma_5m, features.sigma_spike_z
        context.spread_med_5m, context.depth_p10_5m = features.spread_med_5m, features.depth_p10_5m
        context.current_total_exposure_usd = account.exposure_usd()
        context.abs_inventory = abs(self.position)
        context.open_orders, context.active_markets = open_orders, int(open_orders > 0 or self.position != 0.0)
        context.equity_usd, context.drawdown_usd = account.equity, account.drawdown
        return modulate(proposal, POLICY, context)


def _wanted(final: FinalDecision, mismatch: MismatchInfo) -> Wanted:
    """Say a decision as what should rest."""
    if final.action is Action.ACT:
        params, quotes = final.to_params(), {}
        for side, name in ((Side.BUY, "bid_quote"), (Side.SELL, "ask_quote")):
            ticks = MARKET.quote_ticks(params[name], is_buy=side is Side.BUY)
            price = MARKET.price_from_ticks(ticks)
            quotes[side] = (price, MARKET.qty_from_usd(params["size_usd"], price))
        return Wanted(quotes)
    is_pulled = bool(mismatch.metadata) and mismatch.metadata.get("quotes") == "pull"
    return Wanted(keeps=final.action is Action.HOLD and not is_pulled, closes=final.action is Action.EXIT)


def join_the_touch(features: Any, **_: Any) -> Proposal:
    """Quote at the best prices of both sides."""
    quotes = {"bid_quote": features["bid"], "ask_quote": features["ask"], "size_usd": 60.0}
    return Proposal(Action.ACT, 0.6, ["join_the_touch"], quotes)


def made_market(count: int = 600, seed: int = 9) -> Iterator[tuple[int, int, float]]:
    """Yield time (ns), best bid (ticks; the ask is two above) and its size: calm first, then falling for a while."""
    draw = np.random.Generator(np.random.PCG64(seed))
    bid_ticks = 2_000
    for i in range(count):
        is_falling = count // 3 <= i < count * 2 // 3
        bid_ticks += int(draw.choice([-2, 0, 2], p=[0.5, 0.4, 0.1] if is_falling else [0.25, 0.5, 0.25]))
        yield 1_700_000_000_000_000_000 + i * 100_000_000, bid_ticks, float(draw.integers(50, 100))


def report(title: str, framework: str, decider: Decider, position: float) -> None:
    """Say in plain words what became of the strategy."""
    account = decider.account
    print(f"{title}: {decider.decisions} decisions, {account.close_count} positions closed,", end=" ")
    print(f"{decider.largest_position:g} held at most, {account.equity:+.2f} USD in the end;")
    print(f"  position: {decider.position:g} here, {position:g} in {framework}")
    for code, count in sorted(decider.reasons.items()):
        print(f"  {code}: {count} decisions")
