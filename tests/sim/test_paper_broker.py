"""What the simulated venue fills, refuses and tells."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from ami_engine.errors import ConfigError, VenueRejected
from ami_engine.events import BookSnapshot, FeedGap, Side, SubmitOrder, TimerEvent
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.units import Instrument

GRID = Instrument(
    "X", tick_size=0.5, lot_size=0.1, min_qty=0.2, min_notional=50.0, maker_fee_bps=-1.0, taker_fee_bps=5.0
)
MakeVenue = Callable[..., Any]


class TestResting:
    def test_a_print_through_the_price_fills_up_to_its_size(self, make_venue: MakeVenue) -> None:
        venue = make_venue()
        venue.book(99.0, 101.0)
        venue.buy("a", 98.0, 5.0)
        venue.trade(97.5, 2.0, 1)
        assert venue.filled() == [("a", 98.0, 2.0)]
        assert venue.status("a") == "PARTIALLY_FILLED"

    def test_one_print_is_shared_by_our_orders_best_price_and_oldest_first(self, make_venue: MakeVenue) -> None:
        venue = make_venue()
        venue.book(90.0, 110.0)
        venue.sell("late", 101.0, 1.0)
        venue.sell("worse", 102.0, 3.0)
        venue.sell("later", 101.0, 1.0)
        venue.trade(103.0, 3.5, 1)
        assert venue.filled() == [("late", 101.0, 1.0), ("later", 101.0, 1.0), ("worse", 102.0, 1.5)]

    def test_a_print_at_the_price_by_an_aggressor_of_the_same_side_fills_nothing(self, make_venue: MakeVenue) -> None:
        venue = make_venue(queue="front")
        venue.book(90.0, 110.0)
        venue.buy("a", 100.0, 1.0)
        venue.trade(100.0, 5.0, 1)
        assert venue.filled() == []
        venue.trade(100.0, 5.0, 0)
        assert venue.filled() == [("a", 100.0, 1.0)]

    def test_the_opposite_best_moving_through_fills_wholly_at_our_price(self, make_venue: MakeVenue) -> None:
        venue = make_venue()
        venue.book(99.0, 101.0)
        venue.buy("a", 99.0, 500.0)
        venue.book(97.0, 98.0, ask_size=1.0)
        assert venue.filled() == [("a", 99.0, 500.0)]
        assert venue.status("a") == "FILLED"

    def test_the_opposite_best_at_our_price_fills_what_it_displays_once(self, make_venue: MakeVenue) -> None:
        venue = make_venue()
        venue.book(99.0, 101.0)
        venue.sell("a", 101.0, 20.0)
        venue.book(101.0, 102.0, bid_size=6.0)
        venue.book(101.0, 102.5, bid_size=6.0)
        assert venue.filled() == [("a", 101.0, 6.0)]
        venue.book(101.0, 102.0, bid_size=8.0)
        assert venue.filled() == [("a", 101.0, 4.0)], "two of the eight are new, and two of the six may be"

    def test_an_order_that_improves_the_best_has_nothing_ahead(self, make_venue: MakeVenue) -> None:
        venue = make_venue(queue="back")
        venue.book(99.0, 101.0)
        venue.buy("a", 100.0, 1.0)
        venue.trade(100.0, 0.4, -1)
        assert venue.filled() == [("a", 100.0, 0.4)]

    def test_an_order_deeper_in_a_displayed_book_joins_behind_what_is_displayed_there(
        self, make_venue: MakeVenue
    ) -> None:
        venue = make_venue(queue="back")
        bids = ((99.0, 1.0), (98.0, 3.0), (96.0, 5.0))
        venue.best = (99.0, 101.0, 1.0, 1.0)
        venue.show(BookSnapshot(0, venue.tick(0), "X", 0, 99.0, 101.0, 9.0, 1.0, bids, ((101.0, 1.0),)))
        venue.buy("seen", 98.0, 1.0)
        venue.buy("between", 97.0, 1.0)
        venue.buy("below", 95.0, 1.0)
        venue.trade(98.0, 3.5, -1)
        assert venue.filled() == [("seen", 98.0, 0.5)]
        venue.trade(97.0, 1.0, -1)
        assert venue.filled() == [("seen", 98.0, 0.5), ("between", 97.0, 0.5)]
        venue.trade(95.0, 1.0, -1)
        assert venue.filled() == [("between", 97.0, 0.5)], "what rests below the last level is not known"

    def test_partial_fills_add_up_without_a_rest(self, make_venue: MakeVenue) -> None:
        venue = make_venue(queue="front")
        venue.book(90.0, 110.0)
        venue.buy("a", 100.0, 0.3)
        for _ in range(3):
            venue.trade(100.0, 0.1, -1)
        assert [fill.qty for fill in venue.fills()] == [0.1, 0.1, 0.1]
        assert venue.status("a") == "FILLED"
        assert venue.position == 0.3

    def test_executions_are_whole_lots(self, make_venue: MakeVenue) -> None:
        venue = make_venue(instrument=GRID, queue="front")
        venue.book(90.0, 110.0)
        venue.buy("a", 100.0, 1.0)
        venue.trade(100.0, 0.37, -1)
        venue.trade(100.0, 0.05, -1)
        assert venue.filled() == [("a", 100.0, 0.3)]

    def test_a_missing_side_reaches_nobody(self, make_venue: MakeVenue) -> None:
        venue = make_venue()
        venue.book(99.0, 101.0)
        venue.buy("a", 99.0, 1.0)
        venue.sell("b", 101.0, 1.0)
        venue.book(0.0, 0.0, 0.0, 0.0)
        assert venue.filled() == []


class TestMarketable:
    def test_it_takes_the_best_price_up_to_what_is_displayed_and_rests(self, make_venue: MakeVenue) -> None:
        venue = make_venue(instrument=GRID)
        venue.book(99.0, 101.0, ask_size=2.0)
        venue.buy("a", 102.0, 3.0)
        (fill,) = venue.fills()
        assert (fill.price, fill.qty, fill.liquidity.value) == (101.0, 2.0, "TAKER")
        assert fill.fee == pytest.approx(101.0 * 2.0 * 5e-4, rel=1e-15)
        assert venue.status("a") == "PARTIALLY_FILLED"

    def test_what_rests_goes_on_taking_the_best_price_as_size_is_displayed(self, make_venue: MakeVenue) -> None:
        venue = make_venue()
        venue.book(99.0, 101.0, ask_size=2.0)
        venue.buy("a", 1_000.0, 10.0)
        venue.book(99.0, 101.0, ask_size=2.0)
        venue.book(99.0, 100.5, ask_size=1.0)
        assert venue.filled() == [("a", 101.0, 2.0), ("a", 100.5, 1.0)]
        assert venue.broker.fetch_order("a").filled_qty == 3.0

    def test_displayed_size_is_not_taken_twice(self, make_venue: MakeVenue) -> None:
        venue = make_venue()
        venue.book(99.0, 101.0, bid_size=5.0)
        venue.sell("a", 99.0, 4.0, ioc=True)
        venue.sell("b", 99.0, 4.0, ioc=True)
        venue.sell("c", 99.0, 4.0, ioc=True)
        assert venue.filled() == [("a", 99.0, 4.0), ("b", 99.0, 1.0)]
        assert [venue.status(name) for name in "abc"] == ["FILLED", "EXPIRED", "EXPIRED"]

    def test_an_ioc_that_reaches_nothing_expires(self, make_venue: MakeVenue) -> None:
        venue = make_venue()
        venue.book(99.0, 101.0)
        venue.buy("a", 100.0, 1.0, ioc=True)
        assert venue.status("a") == "EXPIRED"
        assert venue.broker.get_state()["open_orders"] == []

    def test_a_price_without_a_size_takes_any_size(self, make_venue: MakeVenue) -> None:
        venue = make_venue()
        venue.book(0.49, 0.51, 0.0, 0.0)
        venue.buy("a", 0.51, 1_000.0, ioc=True)
        assert venue.filled() == [("a", 0.51, 1_000.0)]

    def test_without_any_price_nothing_is_taken(self, make_venue: MakeVenue) -> None:
        venue = make_venue()
        venue.buy("a", 100.0, 1.0, ioc=True)
        venue.buy("b", 100.0, 1.0, post_only=True)
        assert (venue.status("a"), venue.status("b")) == ("EXPIRED", "NEW")


class TestBars:
    def test_a_bar_fills_what_lies_inside_its_range_up_to_its_volume(self, make_venue: MakeVenue) -> None:
        venue = make_venue()
        venue.bar(100.0, 100.0, 100.0, 100.0)
        venue.buy("a", 98.0, 3.0)
        venue.sell("b", 103.0, 3.0)
        venue.bar(100.0, 104.0, 97.0, 101.0, volume=4.0)
        assert venue.filled() == [("a", 98.0, 3.0), ("b", 103.0, 1.0)]

    def test_a_falling_bar_reaches_its_high_first(self, make_venue: MakeVenue) -> None:
        venue = make_venue()
        venue.bar(100.0, 100.0, 100.0, 100.0)
        venue.buy("a", 98.0, 3.0)
        venue.sell("b", 103.0, 3.0)
        venue.bar(101.0, 104.0, 97.0, 100.0)
        assert venue.filled() == [("b", 103.0, 3.0), ("a", 98.0, 3.0)]

    @pytest.mark.parametrize(("queue", "filled"), [("back", []), ("front", [("a", 98.0, 1.0)])])
    def test_at_the_extreme_only_the_front_of_the_queue_fills(
        self, make_venue: MakeVenue, queue: str, filled: list[Any]
    ) -> None:
        venue = make_venue(queue=queue)
        venue.bar(100.0, 100.0, 100.0, 100.0)
        venue.buy("a", 98.0, 1.0)
        venue.bar(100.0, 101.0, 98.0, 100.0, volume=9.0)
        assert venue.filled() == filled

    def test_a_marketable_order_takes_the_close(self, make_venue: MakeVenue) -> None:
        venue = make_venue()
        venue.bar(100.0, 104.0, 97.0, 101.0)
        venue.sell("a", 100.0, 7.0, ioc=True)
        assert venue.filled() == [("a", 101.0, 7.0)]


class TestRefusals:
    @pytest.mark.parametrize(
        ("price", "qty", "rule"),
        [
            (100.2, 1.0, r"`price` must be a multiple of tick_size 0\.5, was 100\.2"),
            (100.0, 1.05, r"`qty` must be a multiple of lot_size 0\.1, was 1\.05"),
            (1_000.0, 0.1, r"`qty` must be at least min_qty 0\.2, was 0\.1"),
            (100.0, 0.4, r"notional must be at least min_notional 50\.0, was 40\.0"),
            (math.nan, 1.0, "`price` must be finite and > 0, was nan"),
            (100.0, math.inf, "`qty` must be finite and > 0, was inf"),
            (-1.0, 1.0, "`price` must be finite and > 0"),
            (100.0, 0.0, "`qty` must be finite and > 0"),
        ],
    )
    def test_the_message_names_rule_and_value(self, make_venue: MakeVenue, price: float, qty: float, rule: str) -> None:
        venue = make_venue(instrument=GRID)
        with pytest.raises(VenueRejected, match=rule):
            venue.buy("a", price, qty)
        assert venue.status("a") == "unknown"

    def test_binary_noise_is_on_the_grid(self, make_venue: MakeVenue) -> None:
        venue = make_venue(instrument=Instrument("X", tick_size=0.1, lot_size=0.1))
        venue.buy("a", 3 * 0.1, 3 * 0.1)
        assert venue.status("a") == "NEW"

    def test_without_an_instrument_there_is_no_grid(self, make_venue: MakeVenue) -> None:
        venue = make_venue()
        venue.buy("a", 0.123456789, 1e-9)
        assert venue.status("a") == "NEW"

    @pytest.mark.parametrize("price", [101.0, 102.0])
    def test_a_post_only_order_that_would_take_is_refused(self, make_venue: MakeVenue, price: float) -> None:
        venue = make_venue()
        venue.book(99.0, 101.0)
        with pytest.raises(VenueRejected, match=f"`post_only` order at {price} would take.*101.0"):
            venue.buy("a", price, 1.0, post_only=True)
        assert venue.status("a") == "REJECTED"
        assert venue.filled() == []

    def test_self_trade_prevention_refuses_the_newest(self, make_venue: MakeVenue) -> None:
        venue = make_venue()
        venue.book(90.0, 110.0)
        venue.sell("old", 100.0, 1.0)
        with pytest.raises(VenueRejected, match=r"self-trade prevention.*'old' at 100\.0"):
            venue.buy("new", 100.0, 1.0)
        assert (venue.status("old"), venue.status("new")) == ("NEW", "REJECTED")

    def test_a_rejected_id_stays_rejected(self, make_venue: MakeVenue) -> None:
        venue = make_venue()
        venue.book(99.0, 101.0)
        with pytest.raises(VenueRejected):
            venue.buy("a", 101.0, 1.0, post_only=True)
        venue.book(99.0, 103.0)
        with pytest.raises(VenueRejected, match="'a' was rejected before"):
            venue.buy("a", 101.0, 1.0, post_only=True)

    def test_an_id_that_was_refused_for_its_form_gets_that_answer_again(self, make_venue: MakeVenue) -> None:
        venue = make_venue(history=2)
        venue.book(99.0, 101.0)
        for qty in (math.nan, 1.0):
            with pytest.raises(VenueRejected, match="`qty` must be finite and > 0, was nan"):
                venue.buy("a", 101.0, qty)
        assert venue.filled() == []
        assert venue.broker.fetch_open_orders() == []
        assert venue.buy("b", 90.0, 1.0).venue_order_id == "P1", "what has no form takes no number"
        for other in ("c", "d"):
            with pytest.raises(VenueRejected):
                venue.buy(other, 101.0, math.nan)
        venue.buy("a", 90.0, 1.0)  # forgotten, as an order that ended so long ago would be

    @pytest.mark.parametrize(
        ("field", "word"), [("side", "buy"), ("side", None), ("tif", "FOK"), ("tif", "xx"), ("tif", None)]
    )
    def test_a_word_that_the_venue_does_not_know_is_refused(self, make_venue: MakeVenue, field: str, word: Any) -> None:
        venue = make_venue()
        venue.book(99.0, 101.0)
        terms = {"client_order_id": "a", "market_id": "X", "price": 99.0, "qty": 1.0, "side": "BUY", "tif": "GTC"}
        bare = SimpleNamespace(**terms | {field: word}, post_only=False, reduce_only=False, expires_ns=0)
        with pytest.raises(VenueRejected, match=f"`{field}` must be .*, was {word!r}"):
            venue.broker.submit_order(bare)
        assert venue.broker.fetch_open_orders() == []

    @pytest.mark.parametrize(
        "settings",
        [
            {"latency_ms": -1.0},
            {"latency_jitter_ms": math.nan},
            {"cash": math.inf},
            {"history": 0},
            {"queue": "middle"},
            {"seed": -1},
        ],
    )
    def test_settings_outside_their_range_are_refused(self, settings: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match=f"`{next(iter(settings))}`"):
            PaperBroker(**settings)


class TestReduceOnly:
    def test_it_is_refused_when_it_would_not_reduce(self, make_venue: MakeVenue) -> None:
        venue = make_venue()
        venue.book(99.0, 101.0)
        with pytest.raises(VenueRejected, match=r"`reduce_only` SELL does not reduce.*which is 0"):
            venue.sell("a", 99.0, 1.0, reduce_only=True)
        venue.buy("b", 101.0, 1.0)
        with pytest.raises(VenueRejected, match=r"`reduce_only` BUY does not reduce.*which is 1.0"):
            venue.buy("c", 101.0, 1.0, reduce_only=True)

    def test_it_never_flips_the_position(self, make_venue: MakeVenue) -> None:
        venue = make_venue()
        venue.book(99.0, 101.0)
        venue.buy("a", 101.0, 2.0)
        venue.sell("b", 99.0, 5.0, reduce_only=True)
        assert venue.filled() == [("a", 101.0, 2.0), ("b", 99.0, 2.0)]
        assert (venue.position, venue.status("b")) == (0.0, "EXPIRED")

    def test_one_that_finds_no_position_left_expires(self, make_venue: MakeVenue) -> None:
        venue = make_venue(queue="front")
        venue.book(99.0, 101.0)
        venue.buy("a", 101.0, 2.0)
        venue.sell("b", 103.0, 2.0, reduce_only=True)
        venue.sell("c", 99.0, 2.0)
        venue.trade(103.0, 5.0, 1)
        assert [name for name, _, _ in venue.filled()] == ["a", "c"]
        assert (venue.position, venue.status("b")) == (0.0, "EXPIRED")

    def test_it_may_close_less_than_the_venues_minimum(self, make_venue: MakeVenue) -> None:
        venue = make_venue(instrument=GRID, queue="front")
        venue.book(99.0, 101.0)
        venue.buy("a", 100.0, 0.6)
        venue.trade(100.0, 0.1, -1)
        venue.broker.cancel_order("a")
        assert venue.position == 0.1
        venue.sell("b", 99.0, 0.1, reduce_only=True, ioc=True)
        assert venue.position == 0.0


class TestIdentity:
    def test_a_second_submit_gets_the_first_ack_and_repeats_nothing(self, make_venue: MakeVenue) -> None:
        venue = make_venue()
        venue.book(99.0, 101.0, ask_size=100.0)
        first = venue.buy("a", 101.0, 1.0)
        assert venue.buy("a", 101.0, 1.0) == first
        resting = venue.buy("b", 99.0, 1.0)
        assert venue.buy("b", 99.0, 1.0) == resting
        assert venue.position == 1.0
        assert len(venue.broker.fetch_open_orders()) == 1

    def test_ended_orders_are_remembered_for_as_many_as_history_says(self, make_venue: MakeVenue) -> None:
        venue = make_venue(history=3)
        venue.book(99.0, 101.0)
        for name in "abcd":
            venue.buy(name, 98.0, 1.0)
            venue.broker.cancel_order(name)
        assert [venue.status(name) for name in "abcd"] == ["unknown", "CANCELED", "CANCELED", "CANCELED"]

    def test_each_fill_is_reported_once_and_has_its_own_id(self, make_venue: MakeVenue) -> None:
        venue = make_venue()
        venue.book(99.0, 101.0)
        for number in range(5):
            venue.buy(f"a{number}", 101.0, 1.0)
        fills = venue.fills()
        assert len({fill.trade_id for fill in fills}) == 5
        assert venue.fills() == []
        assert list(venue.broker.fetch_fills(0)) == fills
        assert list(venue.broker.fetch_fills(fills[-1].ts_ns + 1)) == []


class TestCancel:
    def test_a_cancelled_order_is_not_filled(self, make_venue: MakeVenue) -> None:
        venue = make_venue()
        venue.book(99.0, 101.0)
        venue.buy("a", 99.0, 1.0)
        assert venue.broker.cancel_order("a") is True
        assert venue.broker.cancel_order("a") is False
        assert venue.broker.cancel_order("never") is False
        venue.book(90.0, 91.0)
        assert venue.filled() == []

    def test_cancel_all_spares_other_markets(self, make_venue: MakeVenue) -> None:
        venue = make_venue()
        venue.buy("a", 99.0, 1.0)
        venue.buy("b", 98.0, 1.0)
        other = SubmitOrder(client_order_id="c", market_id="Y", side=Side.BUY, price=1.0, qty=1.0)
        venue.broker.submit_order(other)
        assert venue.broker.cancel_all("X") == 2
        assert [report.client_order_id for report in venue.broker.fetch_open_orders()] == ["c"]
        assert venue.broker.fetch_open_orders("X") == []
        assert venue.broker.cancel_all() == 1


class TestLatency:
    def test_an_order_reaches_the_venue_only_when_time_has_passed(self, make_venue: MakeVenue) -> None:
        venue = make_venue(latency_ms=10.0)
        venue.book(99.0, 101.0, at=1_000)
        venue.buy("a", 101.0, 1.0, ioc=True)
        venue.book(99.0, 101.0, at=1_009)
        assert venue.filled() == []
        assert venue.status("a") == "NEW"
        venue.book(97.0, 98.0, at=1_010)
        (fill,) = venue.fills()
        assert (fill.price, fill.ts_ns) == (101.0, 1_010 * 1_000_000), "it met the book as it was on arrival"

    def test_fills_happen_while_a_cancel_is_on_its_way(self, make_venue: MakeVenue) -> None:
        venue = make_venue(latency_ms=10.0)
        venue.book(99.0, 101.0, at=1_000)
        venue.buy("a", 99.0, 4.0)
        venue.book(99.0, 101.0, at=1_100)
        assert venue.broker.cancel_order("a") is True
        assert venue.broker.cancel_order("a") is True
        venue.trade(98.0, 3.0, -1, at=1_105)
        venue.trade(98.0, 3.0, -1, at=1_110)
        assert venue.filled() == [("a", 99.0, 3.0)]
        assert venue.status("a") == "CANCELED"
        assert venue.broker.fetch_order("a").filled_qty == 3.0
        assert venue.broker.cancel_order("a") is False

    def test_a_late_refusal_is_told_when_asked(self, make_venue: MakeVenue) -> None:
        venue = make_venue(latency_ms=10.0)
        venue.book(99.0, 101.0, at=1_000)
        ack = venue.buy("a", 100.0, 1.0, post_only=True)
        venue.book(98.0, 100.0, at=1_005)
        venue.book(98.0, 100.0, at=1_020)
        assert venue.status("a") == "EXPIRED", "an acknowledged order is not rejected afterwards"
        assert venue.buy("a", 100.0, 1.0, post_only=True) == ack
        assert venue.broker.fetch_open_orders() == []

    def test_no_request_overtakes_another(self, make_venue: MakeVenue) -> None:
        for seed in range(20):
            venue = make_venue(latency_jitter_ms=50.0, seed=seed)
            venue.book(99.0, 101.0, at=1_000)
            venue.buy("a", 99.0, 1.0)
            venue.broker.cancel_order("a")
            venue.book(99.0, 101.0, at=1_100)
            assert venue.status("a") == "CANCELED"

    def test_jitter_is_seeded_and_within_its_bound(self, make_venue: MakeVenue) -> None:
        def arrivals(seed: int) -> list[int]:
            venue = make_venue(latency_ms=5.0, latency_jitter_ms=20.0, seed=seed)
            for number in range(30):
                venue.book(99.0, 101.0, ask_size=1_000.0, at=1_000 + 100 * number)
                venue.buy(f"a{number}", 101.0, 1.0)
            venue.book(99.0, 101.0, at=10_000)
            return [fill.ts_ns - (1_000 + 100 * number) * 1_000_000 for number, fill in enumerate(venue.fills())]

        assert arrivals(1) == arrivals(1) != arrivals(2)
        assert all(5_000_000 <= after < 25_000_000 for after in arrivals(1))
        assert len(set(arrivals(1))) == 30

    def test_time_passes_with_events_that_have_no_price(self, make_venue: MakeVenue) -> None:
        venue = make_venue(latency_ms=10.0)
        venue.book(99.0, 101.0, at=1_000)
        venue.buy("a", 101.0, 1.0, ioc=True)
        venue.show(TimerEvent(1_100_000_000, "X"))
        assert venue.filled() == [("a", 101.0, 1.0)]
        venue.buy("b", 101.0, 1.0, ioc=True)
        venue.broker.on_market_data(FeedGap(0, 1_200_000_000, "X"), 0.0, 0.0, 0.0, 0.0)
        assert venue.filled() == [("b", 101.0, 1.0)]


class TestState:
    def test_it_tells_positions_orders_and_cash(self, make_venue: MakeVenue) -> None:
        venue = make_venue(cash=1_000.0)
        venue.book(99.0, 101.0)
        venue.buy("a", 101.0, 2.0)
        venue.sell("b", 105.0, 1.0)
        assert venue.broker.get_state() == {
            "positions": {"X": 2.0},
            "open_orders": [
                {
                    "client_order_id": "b",
                    "market_id": "X",
                    "side": "SELL",
                    "price": 105.0,
                    "qty": 1.0,
                    "filled_qty": 0.0,
                    "status": "NEW",
                    "venue_order_id": "P2",
                }
            ],
            "cash": 798.0,
        }
        assert venue.broker.fetch_balances() == {"USD": 798.0}

    def test_the_answer_is_a_copy(self, make_venue: MakeVenue) -> None:
        venue = make_venue()
        venue.book(99.0, 101.0)
        venue.buy("a", 101.0, 2.0)
        venue.broker.get_state()["positions"]["X"] = 9.0
        assert venue.position == 2.0

    def test_each_market_has_its_instrument_and_currency(self) -> None:
        broker = PaperBroker(
            instruments={
                "E": Instrument("E", tick_size=0.01, currency="EUR", taker_fee_bps=10.0),
                "U": Instrument("U", tick_size=0.01, currency="USD", multiplier=50.0),
            },
            cash=100.0,
        )
        for symbol, price in (("E", 10.0), ("U", 20.0)):
            broker.on_market_data(BookSnapshot(0, 1_000, symbol), price - 1.0, price, 5.0, 5.0)
            broker.submit_order(
                SubmitOrder(client_order_id=symbol, market_id=symbol, side=Side.BUY, price=price, qty=1.0)
            )
        assert broker.fetch_balances() == {"EUR": 100.0 - 10.0 - 0.01, "USD": -1_000.0}
        assert broker.get_state()["cash"] == 89.99

    def test_the_only_market_is_called_what_the_first_order_calls_it(self) -> None:
        broker = PaperBroker(instruments={"mine": Instrument("mine", tick_size=0.5)})
        event = BookSnapshot(0, 1_000, "")
        broker.on_market_data(event, 99.0, 101.0, 5.0, 5.0)

        def buy(name: str, market_id: str, price: float) -> None:
            broker.submit_order(
                SubmitOrder(client_order_id=name, market_id=market_id, side=Side.BUY, price=price, qty=1.0)
            )

        with pytest.raises(VenueRejected, match="tick_size"):
            buy("a", "mine", 101.2)
        buy("b", "mine", 101.0)
        buy("c", "another", 101.0)
        assert [fill.market_id for fill in broker.process_fills(0)] == ["mine"]
        broker.on_market_data(event, 98.0, 100.0, 5.0, 5.0)
        buy("d", "mine", 100.0)
        assert broker.get_state()["positions"] == {"mine": 2.0}
        assert [report.market_id for report in broker.fetch_open_orders()] == ["another"]

    def test_an_order_may_wait_for_its_markets_first_event(self) -> None:
        broker = PaperBroker()
        for number, symbol in enumerate("XY"):
            broker.submit_order(
                SubmitOrder(client_order_id=f"a{number}", market_id=symbol, side=Side.BUY, price=100.0, qty=1.0)
            )
        for symbol in "XY":
            broker.on_market_data(BookSnapshot(0, 1_000, symbol), 98.0, 99.0, 5.0, 5.0)
        assert broker.get_state()["positions"] == {"X": 1.0, "Y": 1.0}

    def test_a_market_traded_on_another_symbols_prices_is_told(self) -> None:
        broker = PaperBroker()
        broker.on_market_data(BookSnapshot(0, 1_000, "X"), 98.0, 99.0, 5.0, 5.0)
        broker.submit_order(SubmitOrder(client_order_id="a", market_id="Y", side=Side.BUY, price=97.0, qty=1.0))
        with pytest.raises(ConfigError, match="market 'Y' was traded on the prices of 'X'"):
            broker.on_market_data(BookSnapshot(0, 2_000, "Y"), 98.0, 99.0, 5.0, 5.0)

    def test_a_side_may_be_a_plain_string(self, make_venue: MakeVenue) -> None:
        venue = make_venue()
        venue.book(99.0, 101.0)
        venue.order("a", "BUY", 101.0, 1.0)
        assert venue.position == 1.0
