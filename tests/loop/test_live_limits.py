"""A live run without journal and directory: its orders, in any interleaving, cannot take it over its limits."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from ami_engine.adapters import Broker
from ami_engine.clock import ManualClock
from ami_engine.config import QuotingConfig
from ami_engine.dmc.risk_policy import RiskPolicy
from ami_engine.events import Fill, OrderReport, OrderStatus, SubmitOrder
from ami_engine.loop.run_loop import run_loop
from ami_engine.loop.trading import Trading
from ami_engine.portfolio.exposure import MarketExposure
from ami_engine.units import Instrument
from decision_schema.types import Action, Proposal
from tests.loop.conftest import MS, START_NS, ListSource, book

INSTRUMENT = Instrument("X", tick_size=0.01, lot_size=0.01)
POLICY = RiskPolicy(max_total_exposure_usd=20.0, max_abs_inventory=30.0)


class Live(ListSource):
    is_live = True

    def instruments(self) -> dict[str, Instrument]:
        return {"X": INSTRUMENT}


class Venue(Broker):
    """Loses replies, takes orders late, fills parts and tells of them later; knows what is really live."""

    recv_window_ms = 200

    def __init__(self, seed: int, clock: ManualClock) -> None:
        self.draw, self.clock = Random(seed), clock
        self.orders: dict[str, SubmitOrder] = {}
        self.left: dict[str, float] = {}
        self.filled: dict[str, float] = {}
        self.ended: dict[str, OrderStatus] = {}
        self.late: list[SubmitOrder] = []
        self.untold: list[Fill] = []
        self.position, self.trades = 0.0, 0
        self.worst: list[tuple[float, float]] = []

    def on_market_data(self, event: Any, bid: float, ask: float, bid_size: float, ask_size: float) -> None:
        self.clock.advance_to(event.recv_ts_ns)
        for order in self.late:
            self._take(order)
        self.late.clear()
        for order_id in [each for each in self.left if self.draw.random() < 0.1]:
            self._fill(order_id, self.draw.choice([0.3, 1.0]))
        self._look()

    def _take(self, order: SubmitOrder) -> None:
        if self.clock.now_ns() <= order.expires_ns:
            self.orders[order.client_order_id] = order
            self.left[order.client_order_id] = order.qty

    def _fill(self, order_id: str, share: float) -> None:
        order = self.orders[order_id]
        qty = max(0.01, round(self.left[order_id] * share, 2))
        self.left[order_id] = round(self.left[order_id] - qty, 2)
        self.filled[order_id] = round(self.filled.get(order_id, 0.0) + qty, 2)
        if self.left[order_id] <= 0.0:
            del self.left[order_id]
            self.ended[order_id] = OrderStatus.FILLED
        self.position += qty * order.side.sign
        self.trades += 1
        self.untold.append(
            Fill(
                trade_id=str(self.trades),
                client_order_id=order_id,
                market_id="X",
                side=order.side,
                price=order.price,
                qty=qty,
                ts_ns=self.clock.now_ns(),
            )
        )

    def _look(self) -> None:
        market = MarketExposure(INSTRUMENT, self.position, 0.5)
        for order_id, left in self.left.items():
            market = market.plus(self.orders[order_id].side, self.orders[order_id].price, left)
        for order in self.late:
            market = market.plus(order.side, order.price, order.qty)
        self.worst.append((market.worst_qty, market.worst_usd))

    def submit_order(self, order: SubmitOrder) -> None:
        how = self.draw.choice(["", "", "", "unanswered", "late", "lost"])
        if how == "late":
            self.late.append(order)
        elif how != "lost":
            self._take(order)
        self._look()
        if how:
            raise TimeoutError

    def cancel_order(self, order_id: str) -> bool:
        how = self.draw.choice(["", "", "unanswered", "lost"])
        if how == "lost":
            raise TimeoutError
        done = self.left.pop(order_id, None) is not None
        if done:
            self.ended[order_id] = OrderStatus.CANCELED
        if how:
            raise TimeoutError
        return done

    def process_fills(self, now_ms: int) -> list[Fill]:
        if self.draw.random() < 0.5:
            return []
        told, self.untold = self.untold, []
        return told

    def fetch_open_orders(self, market_id: str | None = None) -> list[OrderReport]:
        del market_id
        return [report for order_id in list(self.left) if (report := self.fetch_order(order_id)) is not None]

    def fetch_fills(self, since_ns: int) -> list[Fill]:
        del since_ns
        told, self.untold = self.untold, []
        return told

    def fetch_balances(self) -> dict[str, float]:
        return {}

    def fetch_order(self, client_order_id: str) -> OrderReport | None:
        order = self.orders.get(client_order_id)
        if order is None:
            return None
        filled = self.filled.get(client_order_id, 0.0)
        return OrderReport(
            client_order_id=client_order_id,
            market_id="X",
            side=order.side,
            price=order.price,
            qty=order.qty,
            filled_qty=filled,
            status=self.ended.get(client_order_id, OrderStatus.NEW),
        )


class Greedy:
    """Quotes more than is allowed, leaves now and then."""

    def __init__(self, seed: int) -> None:
        self.draw = Random(seed)

    def propose(self, features: Any) -> Proposal:
        what = self.draw.random()
        if what < 0.1:
            return Proposal(Action.CANCEL if what < 0.05 else Action.EXIT, 1.0, ["drawn"])
        bid, ask = self.draw.choice([(0.48, 0.52), (0.47, 0.53), (0.48, None), (None, 0.52)])
        size_usd = self.draw.choice([3.0, 7.0, 12.0, 25.0])
        return Proposal(Action.ACT, 1.0, ["drawn"], {"bid_quote": bid, "ask_quote": ask, "size_usd": size_usd})


def trade(seed: int) -> tuple[Venue, dict[str, Any]]:
    clock = ManualClock(START_NS)
    venue = Venue(seed, clock)
    summary = run_loop(
        source=Live([book(50 * number) for number in range(600)]),
        broker=venue,
        clock=clock,
        trace=False,
        decision_engine=Greedy(seed),
        modulator=None,  # no guard stands before the gate
        risk_policy=POLICY,
        quoting=QuotingConfig(refresh_ms=100),
        settle_ms=300,
        timer_ms=0,
    )
    assert "journal_path" not in summary
    return venue, summary


def is_over(venue: Venue) -> bool:
    return any(qty > 30.0 * (1 + 1e-9) or usd > 20.0 * (1 + 1e-9) for qty, usd in venue.worst)


def test_a_live_run_without_a_journal_stays_within_its_worst_case() -> None:
    withheld = fills = 0
    for seed in range(8):
        venue, summary = trade(seed)
        assert not is_over(venue), seed
        assert venue.clock.now_ns() > START_NS + 29_000 * MS
        withheld += summary["orders_withheld"]
        fills += summary["fills_count"]
    assert withheld > 100
    assert fills > 200


def test_without_the_gate_the_same_runs_would_be_over_their_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trading, "bound_worst_case", lambda self: None)
    assert is_over(trade(0)[0])
