"""Queue models, alone and in a venue."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ami_engine.errors import ConfigError
from ami_engine.sim.fill_models import BackQueue, FrontQueue, ProbQueue, queue_model
from ami_engine.sim.uniform_stream import UniformStream

SIZES = st.floats(0.0, 1e6)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="'back', 'front' or 'prob', was 'middle'"):
        queue_model("middle", seed=0)


@given(ahead=SIZES, before=SIZES, displayed=SIZES, traded=SIZES)
def test_nobody_gets_further_back_and_the_front_is_first(
    ahead: float, before: float, displayed: float, traded: float
) -> None:
    back = BackQueue().advance(ahead, before, displayed, traded)
    prob = ProbQueue(UniformStream(0)).advance(ahead, before, displayed, traded)
    front = FrontQueue().advance(ahead, before, displayed, traded)
    assert front == 0.0
    assert 0.0 <= prob <= back <= min(ahead, displayed)


def test_the_unknown_place_becomes_the_displayed_size() -> None:
    for model in (BackQueue(), ProbQueue(UniformStream(0))):
        assert model.advance(math.inf, -1.0, 12.0, 0.0) == 12.0


def test_a_cancellation_is_ahead_as_often_as_the_place_says() -> None:
    model = ProbQueue(UniformStream(11))
    places = [model.advance(75.0, 100.0, 99.0, 0.0) for _ in range(4_000)]
    assert set(places) == {74.0, 75.0}
    # Four standard deviations of a binomial share of 0.75.
    assert abs(places.count(74.0) / 4_000 - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 4_000)


def test_what_trades_took_is_no_cancellation() -> None:
    model = ProbQueue(UniformStream(0))
    assert all(model.advance(20.0, 100.0, 70.0, 30.0) == 20.0 for _ in range(100))


@pytest.mark.parametrize(("queue", "needed"), [("front", 0.0), ("back", 10.0), ("prob", 10.0)])
def test_a_print_at_the_price_fills_what_it_has_left_behind_the_queue(
    make_venue: Callable[..., Any], queue: str, needed: float
) -> None:
    venue = make_venue(queue=queue)
    venue.book(99.0, 101.0, bid_size=10.0)
    venue.buy("a", 99.0, 2.0)
    if needed:
        venue.trade(99.0, needed, -1)
        assert venue.filled() == []
    venue.trade(99.0, 0.5, -1)
    assert venue.filled() == [("a", 99.0, 0.5)]


def test_at_the_back_cancellations_count_only_when_the_level_gets_shorter_than_the_queue(
    make_venue: Callable[..., Any],
) -> None:
    venue = make_venue(queue="back")
    venue.book(99.0, 101.0, bid_size=10.0)
    venue.buy("a", 99.0, 2.0)
    venue.book(99.0, 101.0, bid_size=25.0)
    venue.book(99.0, 101.0, bid_size=12.0)
    venue.trade(99.0, 10.0, -1)
    assert venue.filled() == []
    venue.book(99.0, 101.0, bid_size=10.0)
    venue.buy("b", 99.0, 2.0)
    venue.book(99.0, 101.0, bid_size=3.0)
    venue.trade(99.0, 6.0, -1)
    # "a" is first by now; three units are still ahead of "b", and the two of "a" do not fill it too.
    assert venue.filled() == [("a", 99.0, 2.0), ("b", 99.0, 1.0)]


def test_an_order_behind_the_best_joins_the_queue_when_its_price_becomes_the_best(
    make_venue: Callable[..., Any],
) -> None:
    venue = make_venue(queue="back")
    venue.book(100.0, 101.0)
    venue.buy("a", 99.0, 2.0)
    venue.trade(99.0, 50.0, -1)
    assert venue.filled() == []
    venue.book(99.0, 101.0, bid_size=4.0)
    venue.trade(99.0, 5.0, -1)
    assert venue.filled() == [("a", 99.0, 1.0)]
