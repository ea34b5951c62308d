"""The books under test: the compiled ones where the core is there, and always the plain ones."""

from __future__ import annotations

from typing import Any

import pytest

from ami_engine.book import MboBook, OrderBook, PlainMboBook, PlainOrderBook


def _both(native: Any, plain: Any) -> list[Any]:
    params = [pytest.param(plain, id="plain")]
    if native is not plain:
        params.insert(0, pytest.param(native, id="native"))
    return params


@pytest.fixture(params=_both(OrderBook, PlainOrderBook))
def order_book(request: pytest.FixtureRequest) -> Any:
    """The class of an L2 book."""
    return request.param


@pytest.fixture(params=_both(MboBook, PlainMboBook))
def mbo_book(request: pytest.FixtureRequest) -> Any:
    """The class of a market-by-order book."""
    return request.param


@pytest.fixture
def native_books() -> tuple[Any, Any]:
    """The compiled classes; skips where there is no core to compare with."""
    if OrderBook is PlainOrderBook:
        pytest.skip("needs the compiled core: ami_engine._core is absent")
    return OrderBook, MboBook
