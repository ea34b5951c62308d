"""Limits hold in the worst case, under any interleaving of acks, fills, lost replies, late arrivals and cancels."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ami_engine.adapters.base import Broker
from ami_engine.dmc.trading_state import TradingGate
from ami_engine.events import Fill, OrderReport, OrderStatus, Side, SubmitOrder
from ami_engine.execution.journal import Journal
from ami_engine.execution.order_manager import OrderManager
from ami_engine.portfolio.exposure import ExposureLimits, MarketExposure, exposures_of, worst_case_usd
from ami_engine.state_store import StateStore
from ami_engine.units import Instrument
from decision_schema.types import Action, FinalDecision

MARKETS = ("X", "Y")
INSTRUMENTS = {name: Instrument(name, tick_size=0.01, lot_size=0.01) for name in MARKETS}
LIMITS = ExposureLimits(total_usd=10.0, market_qty=7.0)
MARK = 1.0


class Truth(Broker):
    """What really is at the venue; what the engine hears of it is another matter."""

    recv_window_ms = 200

    def __init__(self) -> None:
        self.now_ms = 0
        self.orders: dict[str, SubmitOrder] = {}
        self.left: dict[str, float] = {}
        self.status: dict[str, OrderStatus] = {}
        self.position = dict.fromkeys(MARKETS, 0.0)
        self.untold: list[Fill] = []
        self.all_fills: list[Fill] = []
        self.late: list[SubmitOrder] = []
        self.next_submit = self.next_cancel = ""

    def take(self, order: SubmitOrder) -> None:
        if self.now_ms * 1_000_000 <= order.expires_ns and order.client_order_id not in self.orders:
            self.orders[order.client_order_id] = order
            self.left[order.client_order_id] = order.qty
            self.status[order.client_order_id] = OrderStatus.NEW

    def submit_order(self, order: SubmitOrder) -> None:
        plan, self.next_submit = self.next_submit, ""
        if plan == "late":
            self.late.append(order)
        elif plan != "lost":
            self.take(order)
        if plan:
            raise TimeoutError

    def cancel_order(self, order_id: str) -> bool:
        plan, self.next_cancel = self.next_cancel, ""
        if plan == "lost":
            raise TimeoutError
        done = self.left.pop(order_id, None) is not None
        if done:
            self.status[order_id] = OrderStatus.CANCELED
        if plan:
            raise TimeoutError
        return done

    def fill(self, share: float) -> None:
        for order_id in list(self.left):
            order = self.orders[order_id]
            qty = round(self.left[order_id] * share, 2)
            if qty <= 0.0:
                continue
            self.left[order_id] = round(self.left[order_id] - qty, 2)
            if self.left[order_id] <= 0.0:
                del self.left[order_id]
                self.status[order_id] = OrderStatus.FILLED
            self.position[order.market_id] += qty * order.side.sign
            fill = Fill(
                trade_id=str(len(self.all_fills)),
                client_order_id=order_id,
                market_id=order.market_id,
                side=order.side,
                price=order.price,
                qty=qty,
                ts_ns=self.now_ms * 1_000_000,
            )
            self.untold.append(fill)
            self.all_fills.append(fill)

    def process_fills(self, now_ms: int) -> list[Fill]:
        told, self.untold = self.untold, []
        return told

    def fetch_order(self, client_order_id: str) -> OrderReport | None:
        order = self.orders.get(client_order_id)
        if order is None:
            return None
        filled = sum(fill.qty for fill in self.all_fills if fill.client_order_id == client_order_id)
        return OrderReport(
            client_order_id=client_order_id,
            market_id=order.market_id,
            side=order.side,
            price=order.price,
            qty=order.qty,
            filled_qty=filled,
            status=self.status[client_order_id],
        )

    def worst(self) -> list[MarketExposure]:
        """The exposure that the orders live here can lead to, those still on their way counted."""
        found = {name: MarketExposure(INSTRUMENTS[name], held, MARK) for name, held in self.position.items()}
        for order_id, left in self.left.items():
            order = self.orders[order_id]
            found[order.market_id] = found[order.market_id].plus(order.side, order.price, left)
        for order in self.late:
            if order.client_order_id not in self.orders:
                found[order.market_id] = found[order.market_id].plus(order.side, order.price, order.qty)
        return list(found.values())


_ACTS = st.one_of(
    st.tuples(st.just("quote"), st.sampled_from(MARKETS), st.floats(0.5, 9.0), st.booleans(), st.booleans()),
    st.tuples(st.just("cancel"), st.sampled_from(MARKETS)),
    st.tuples(st.just("exit"), st.sampled_from(MARKETS)),
    st.tuples(st.just("fill"), st.sampled_from([0.3, 1.0])),
    st.tuples(st.just("submit goes wrong"), st.sampled_from(["lost", "late", "unanswered"])),
    st.tuples(st.just("cancel goes wrong"), st.sampled_from(["lost", "unanswered"])),
    st.tuples(st.just("arrive")),
    st.tuples(st.just("wait"), st.sampled_from([100, 900])),
    st.tuples(st.just("restart")),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_ACTS, max_size=30))
def test_limits_hold_under_any_interleaving(acts: list[Any]) -> None:
    venue, store = Truth(), StateStore(":memory:")
    held = dict.fromkeys(MARKETS, 0.0)

    def begin() -> OrderManager:
        manager = OrderManager(
            venue,
            refresh_ms=100,
            instruments=INSTRUMENTS,
            journal=Journal(store, run_id="r1"),
            settle_ms=300,
        )

        def exposures() -> dict[str, MarketExposure]:
            known = {name: held[name] + manager.unbooked_qty(name) for name in MARKETS}
            return exposures_of(known, manager.open_orders(), INSTRUMENTS, dict.fromkeys(MARKETS, MARK))

        manager.gate = TradingGate(
            lambda name: exposures().get(name) or MarketExposure(INSTRUMENTS[name], 0.0, MARK),
            lambda name: worst_case_usd(found for other, found in exposures().items() if other != name),
            limits=LIMITS,
        )
        return manager

    manager, step = begin(), 0

    def apply(action: Action, market_id: str, params: Any = None) -> None:
        manager.apply(
            FinalDecision(action, True, [], params=params),
            market_id,
            venue.now_ms,
            bid=0.99,
            ask=1.01,
            position=held[market_id],
            step=step,
        )

    for act, *details in acts:
        step += 1
        venue.now_ms += 10
        for fill in manager.poll(venue.now_ms):
            held[fill.market_id] += fill.signed_qty
        if act == "quote":
            market_id, size, has_bid, has_ask = details
            quotes = {"bid_quote": 0.98 if has_bid else None, "ask_quote": 1.02 if has_ask else None, "size_usd": size}
            apply(Action.ACT, market_id, quotes)
        elif act == "cancel":
            apply(Action.CANCEL, details[0])
        elif act == "exit":
            apply(Action.EXIT, details[0])
        elif act == "fill":
            venue.fill(details[0])
        elif act == "submit goes wrong":
            venue.next_submit = details[0]
        elif act == "cancel goes wrong":
            venue.next_cancel = details[0]
        elif act == "arrive":
            late, venue.late = venue.late, []
            for order in late:
                venue.take(order)
        elif act == "wait":
            venue.now_ms += details[0]
            # What is too late for the venue's receive window arrives no more.
            venue.late = [order for order in venue.late if venue.now_ms * 1_000_000 <= order.expires_ns]
        else:
            manager._table._journal.commit()  # type: ignore[union-attr]
            manager = begin()
            held = {name: float(manager._table._journal.position(name)) for name in MARKETS}  # type: ignore[union-attr]
        worst = venue.worst()
        assert worst_case_usd(worst) <= LIMITS.total_usd * (1 + 1e-9)
        assert all(market.worst_qty <= LIMITS.market_qty * (1 + 1e-9) for market in worst)
        assert manager.halt_reason == ""


def test_an_order_in_doubt_and_one_whose_cancel_is_not_confirmed_count_whole() -> None:
    venue = Truth()
    manager = OrderManager(
        venue, refresh_ms=100, instruments=INSTRUMENTS, journal=Journal(StateStore(":memory:"), run_id="r")
    )
    manager.poll(0)  # with a journal nothing is placed before the venue was compared with
    venue.next_submit = "unanswered"
    quotes = {"bid_quote": 0.98, "size_usd": 4.9}
    manager.apply(FinalDecision(Action.ACT, True, [], params=quotes), "X", 0, bid=0.99, ask=1.01, position=0.0)
    venue.fill(0.3)
    manager.poll(1)
    assert manager.worst_case_exposure_usd("X") == 0.98 * 3.5
    venue.next_cancel = "lost"
    manager.apply(FinalDecision(Action.CANCEL, True, []), "X", 500, bid=0.99, ask=1.01, position=1.5)
    assert manager.open_orders("X")[0].in_doubt
    assert manager.worst_case_exposure_usd("X") == 0.98 * 5.0
    assert manager.open_orders("X")[0].side is Side.BUY
