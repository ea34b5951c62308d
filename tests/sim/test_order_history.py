"""Ended orders: what is remembered is told as it was, and what is forgotten is gone wholly."""

from __future__ import annotations

import tracemalloc
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ami_engine.events import OrderReport, OrderStatus, Side
from ami_engine.sim.order_history import OrderHistory


def report(number: int, order_id: str = "", market_id: str = "X", price: float = 0.5) -> OrderReport:
    return OrderReport(
        client_order_id=order_id or f"order-{number}",
        market_id=market_id,
        side=Side.BUY if number % 2 else Side.SELL,
        price=price,
        qty=2.0,
        filled_qty=0.1 * (number % 20),
        status=list(OrderStatus)[number % len(OrderStatus)],
        venue_order_id=f"P{number}",
    )


@pytest.mark.parametrize("limit", [1, 3, 16, 17, 1_000])
def test_the_last_so_many_are_told_as_they_were(limit: int) -> None:
    history = OrderHistory(limit)
    reports = [report(n, market_id=f"M{n % 7}", price=1.0 / (n + 1)) for n in range(3 * limit + 5)]
    for each in reports:
        history.add(each)
    assert len(history) == limit
    assert [history.get(each.client_order_id) for each in reports[-limit:]] == reports[-limit:]
    assert {history.get(each.client_order_id) for each in reports[:-limit]} == {None}


@given(st.lists(st.tuples(st.text(max_size=3), st.floats(0.001, 1e9)), max_size=60), st.integers(1, 20))
def test_it_answers_as_an_ordered_dict_would(orders: list[tuple[str, float]], limit: int) -> None:
    history = OrderHistory(limit)
    model: OrderedDict[str, OrderReport] = OrderedDict()
    for number, (order_id, price) in enumerate(orders):
        if not order_id or order_id in model:  # a venue lets no id end twice while it remembers it
            continue
        each = report(number, order_id, price=price)
        history.add(each)
        model[order_id] = each
        if len(model) > limit:
            model.popitem(last=False)
    for order_id, _ in orders:
        assert history.get(order_id) == model.get(order_id)


def test_an_order_takes_few_bytes() -> None:
    count = 50_000
    tracemalloc.start()
    history = OrderHistory(count)
    for number in range(2 * count):
        history.add(report(number))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used / count < 80
