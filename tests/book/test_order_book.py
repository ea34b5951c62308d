"""The L2 book: sequence rules, refusals, undo, the ticker over the depth, views and checkpoints."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest

from ami_engine.book import BookApply
from ami_engine.errors import ConfigError, EventError
from ami_engine.units import Instrument

# Bytes of a checkpoint before its levels, and of the checksum after them.
_HEADER, _CHECKSUM = 96, 8


def _book(order_book: Any, **kwargs: Any) -> Any:
    book = order_book(0.1, **kwargs)
    book.apply_snapshot([(100.0, 1.0), (99.9, 2.0), (99.7, 4.0)], [(100.2, 3.0), (100.4, 5.0)], seq=10)
    return book


def _reason(call: Any, *args: Any) -> tuple[str, str]:
    with pytest.raises(EventError) as caught:
        call(*args)
    return caught.value.reason, caught.value.field


def _levels(book: Any) -> bytes:
    return book.to_bytes()[_HEADER:-_CHECKSUM]


def test_snapshot_in_any_order_gives_levels_best_first(order_book: Any) -> None:
    book = order_book(0.1)
    book.apply_snapshot([(99.7, 4.0), (100.0, 1.0), (99.9, 2.0)], np.array([[100.4, 5.0], [100.2, 3.0]]), 10)
    bids, asks = book.top(5)
    assert bids.tolist() == [[100.0, 1.0], [99.9, 2.0], [99.7, 4.0]]
    assert asks.tolist() == [[100.2, 3.0], [100.4, 5.0]]
    assert bids.dtype == np.float64
    assert book.level_counts == (3, 2)
    assert (book.seq, book.is_ready) == (10, True)


def test_snapshot_takes_the_last_of_a_repeated_price_and_skips_size_zero(order_book: Any) -> None:
    book = order_book(0.1)
    book.apply_snapshot([(100.0, 1.0), (99.9, 5.0), (100.0, 7.0), (99.8, 0.0)], [(100.1, 1.0), (100.1, 0.0)])
    assert book.top()[0].tolist() == [[100.0, 7.0], [99.9, 5.0]]
    assert book.is_one_sided


def test_delta_changes_adds_and_deletes(order_book: Any) -> None:
    book = _book(order_book)
    result = book.apply_delta([(100.0, 0.0), (99.9, 9.0), (99.8, 3.0), (50.0, 0.0)], [(100.1, 1.0)], 13, 10, 0)
    assert result is BookApply.APPLIED
    assert book.top()[0].tolist() == [[99.9, 9.0], [99.8, 3.0], [99.7, 4.0]]
    assert book.best() == (99.9, 9.0, 100.1, 1.0)
    assert (book.seq, book.deltas_applied, book.unknown_deletes) == (13, 1, 1)


def test_last_change_of_a_price_in_one_message_counts(order_book: Any) -> None:
    book = _book(order_book)
    book.apply_delta([(99.9, 0.0), (99.9, 8.0), (100.1, 3.0), (100.1, 0.0)], [], 11, 11, 0)
    assert book.top()[0].tolist() == [[100.0, 1.0], [99.9, 8.0], [99.7, 4.0]]


def test_old_delta_is_stale_whatever_it_carries(order_book: Any) -> None:
    book = _book(order_book)
    before = book.to_bytes()
    assert book.apply_delta([(math.nan, -1.0)], "nonsense", 10, 5, 4) is BookApply.STALE
    assert book.to_bytes() == before


def test_delta_before_any_snapshot_is_refused(order_book: Any) -> None:
    book = order_book(0.1)
    assert _reason(book.apply_delta, [], [], 5, 5, 0) == ("no_snapshot", "")
    assert not book.is_ready


@pytest.mark.parametrize(
    ("seq", "first_seq", "prev_seq"),
    [
        pytest.param(12, 9, 0, id="spot, straddles"),
        pytest.param(12, 11, 0, id="spot, next to it"),
        pytest.param(15, 9, 8, id="futures, straddles"),
        pytest.param(15, 14, 10, id="futures, ids are not dense"),
        pytest.param(15, 14, 8, id="futures, snapshot between two messages"),
        pytest.param(15, 0, 0, id="no word on where it began"),
        pytest.param(0, 0, 0, id="no sequence at all"),
    ],
)
def test_first_delta_after_a_snapshot_may_be(order_book: Any, seq: int, first_seq: int, prev_seq: int) -> None:
    assert _book(order_book).apply_delta([(100.1, 1.0)], [], seq, first_seq, prev_seq) is BookApply.APPLIED


@pytest.mark.parametrize(("seq", "first_seq", "prev_seq"), [(15, 12, 0), (15, 12, 11)])
def test_first_delta_that_leaves_a_hole_is_a_gap(order_book: Any, seq: int, first_seq: int, prev_seq: int) -> None:
    book = _book(order_book)
    assert _reason(book.apply_delta, [], [], seq, first_seq, prev_seq) == ("sequence_gap", "seq")
    assert not book.is_ready


@pytest.mark.parametrize(("first_seq", "prev_seq"), [(14, 12), (13, 11), (15, 0)])
def test_later_deltas_must_join(order_book: Any, first_seq: int, prev_seq: int) -> None:
    book = _book(order_book)
    book.apply_delta([], [], 13, 9, 8)
    assert _reason(book.apply_delta, [], [], 16, first_seq, prev_seq) == ("sequence_gap", "seq")


def test_chain_of_deltas_by_previous_sequence(order_book: Any) -> None:
    book = _book(order_book)
    for seq, first_seq, prev_seq in ((13, 9, 8), (20, 17, 13), (21, 21, 20)):
        assert book.apply_delta([], [], seq, first_seq, prev_seq) is BookApply.APPLIED
    assert book.seq == 21


def test_gap_lasts_until_the_next_snapshot_and_hides_the_depth(order_book: Any) -> None:
    book = _book(order_book)
    book.mark_gap()
    assert _reason(book.apply_delta, [], [], 11, 11, 10) == ("sequence_gap", "seq")
    assert book.best() == (0.0, 0.0, 0.0, 0.0)
    assert book.is_empty
    assert book.depth_best() == (100.0, 1.0, 100.2, 3.0)
    assert [len(side) for side in book.top()] == [0, 0]
    book.apply_snapshot([(100.0, 1.0)], [(100.1, 1.0)], 30)
    assert book.is_ready
    assert book.best() == (100.0, 1.0, 100.1, 1.0)


_BAD_LEVELS = [
    pytest.param([(99.9, 1.0), (math.nan, 1.0)], "not_finite", id="NaN price"),
    pytest.param([(99.9, 1.0), (math.inf, 1.0)], "not_finite", id="infinite price"),
    pytest.param([(99.9, 1.0), (99.8, math.nan)], "not_finite", id="NaN size"),
    pytest.param([(99.9, 1.0), (99.8, math.inf)], "not_finite", id="infinite size"),
    pytest.param([(99.9, 1.0), (99.8, -1.0)], "negative_size", id="negative size"),
    pytest.param([(99.9, 1.0), (-99.8, 1.0)], "negative_price", id="negative price"),
    pytest.param([(99.9, 1.0), (0.0, 1.0)], "negative_price", id="zero price"),
    pytest.param([(99.9, 1.0), (99.85, 1.0)], "off_grid", id="between two ticks"),
    pytest.param([(99.9, 1.0), (9.223372036854775807e18, 1.0)], "off_grid", id="undefined price as a number"),
    pytest.param([(99.9, 1.0), (99.8,)], "wrong_type", id="no pair"),
    pytest.param([(99.9, 1.0), ("99.8", 1.0)], "wrong_type", id="text"),
    pytest.param([(99.9, 1.0), (99.8, None)], "wrong_type", id="None"),
    pytest.param([(99.9, 1.0), 99.8], "wrong_type", id="a number"),
    pytest.param("99.9", "wrong_type", id="not levels"),
    pytest.param(np.array([99.9, 1.0]), "wrong_type", id="flat array"),
    pytest.param(np.array([["99.9", "1.0"]]), "wrong_type", id="array of text"),
    pytest.param([(100.0, 1.0), (100.3, 1.0)], "crossed_book", id="crossed"),
]


@pytest.mark.parametrize(("bids", "reason"), _BAD_LEVELS)
def test_refused_delta_changes_no_level_and_breaks_the_sequence(order_book: Any, bids: Any, reason: str) -> None:
    book = _book(order_book)
    before = _levels(book)
    expected = "" if reason == "crossed_book" else "bids"
    assert _reason(book.apply_delta, bids, [(100.4, 0.0), (100.5, 1.0)], 11, 11, 10) == (reason, expected)
    assert _levels(book) == before
    assert (book.seq, book.deltas_applied, book.is_ready) == (10, 0, False)
    assert _reason(book.apply_delta, [], [], 12, 12, 11) == ("sequence_gap", "seq")


@pytest.mark.parametrize(("bids", "reason"), _BAD_LEVELS)
def test_refused_snapshot_changes_nothing(order_book: Any, bids: Any, reason: str) -> None:
    book = _book(order_book)
    before = book.to_bytes()
    assert _reason(book.apply_snapshot, bids, [(100.2, 1.0)], 99)[0] == reason
    assert book.to_bytes() == before


@pytest.mark.parametrize(
    ("sequence", "field"), [((-1, 0, 0), "seq"), ((11, 12, 0), "first_seq"), ((11, 0, 11), "prev_seq")]
)
def test_impossible_sequence_numbers_are_malformed(order_book: Any, sequence: tuple[int, ...], field: str) -> None:
    assert _reason(_book(order_book).apply_delta, [], [], *sequence) == ("malformed", field)


def test_undo_restores_levels_that_the_message_deleted_changed_and_added(order_book: Any) -> None:
    book = _book(order_book)
    before = _levels(book)
    bids = [(100.0, 0.0), (99.9, 7.0), (99.8, 1.0), (99.8, 0.0), (99.8, 2.0), (101.0, 1.0)]
    assert _reason(book.apply_delta, bids, [(100.2, 0.0), (100.1, 6.0)], 11, 11, 0)[0] == "crossed_book"
    assert _levels(book) == before
    assert book.unknown_deletes == 0


def test_locked_book_is_accepted(order_book: Any) -> None:
    book = _book(order_book)
    book.apply_delta([(100.2, 1.0)], [], 11, 11, 0)
    assert book.is_locked
    assert not book.is_crossed


def test_ticker_overrides_the_best_level_and_drops_better_ones_from_view(order_book: Any) -> None:
    book = _book(order_book)
    assert book.apply_ticker(99.9, 8.0, 100.3, 6.0, 11) is BookApply.APPLIED
    bids, asks = book.top()
    assert bids.tolist() == [[99.9, 8.0], [99.7, 4.0]]
    assert asks.tolist() == [[100.3, 6.0], [100.4, 5.0]]
    assert book.best() == (99.9, 8.0, 100.3, 6.0)
    assert book.depth_best() == (100.0, 1.0, 100.2, 3.0)
    assert book.level_counts == (3, 2)


def test_delta_older_than_the_ticker_keeps_it_and_a_later_one_drops_it(order_book: Any) -> None:
    book = _book(order_book)
    book.apply_ticker(99.9, 8.0, 100.3, 6.0, 15)
    book.apply_delta([], [], 14, 9, 0)
    assert book.has_ticker
    book.apply_delta([], [], 15, 15, 0)
    assert not book.has_ticker
    assert book.best() == (100.0, 1.0, 100.2, 3.0)


def test_ticker_older_than_the_book_or_than_the_last_ticker_is_stale(order_book: Any) -> None:
    book = _book(order_book)
    assert book.apply_ticker(99.9, 8.0, 100.3, 6.0, 9) is BookApply.STALE
    assert book.apply_ticker(99.9, 8.0, 100.3, 6.0, 10) is BookApply.APPLIED
    assert book.apply_ticker(99.8, 8.0, 100.3, 6.0, 12) is BookApply.APPLIED
    assert book.apply_ticker(99.7, 8.0, 100.3, 6.0, 11) is BookApply.STALE
    assert book.best() == (99.8, 8.0, 100.3, 6.0)


def test_ticker_works_before_any_snapshot_and_in_a_gap_as_one_level(order_book: Any) -> None:
    book = order_book(0.1)
    book.apply_ticker(99.9, 8.0, 100.3, 6.0, 9)
    assert [side.tolist() for side in book.top()] == [[[99.9, 8.0]], [[100.3, 6.0]]]
    assert not book.is_ready
    book = _book(order_book)
    book.mark_gap()
    book.apply_ticker(99.9, 8.0, 100.3, 6.0, 12)
    assert [side.tolist() for side in book.top()] == [[[99.9, 8.0]], [[100.3, 6.0]]]


def test_ticker_with_a_missing_side_empties_that_side_of_the_view(order_book: Any) -> None:
    book = _book(order_book)
    book.apply_ticker(0.0, 0.0, 100.3, 6.0, 12)
    assert book.best() == (0.0, 0.0, 100.3, 6.0)
    assert book.is_one_sided


@pytest.mark.parametrize(
    ("ticker", "expected"),
    [
        ((100.3, 1.0, 100.2, 1.0), ("crossed_book", "bid")),
        ((0.0, 0.0, 0.0, 0.0), ("empty_book", "")),
        ((math.nan, 1.0, 100.2, 1.0), ("not_finite", "bid")),
        ((100.0, 1.0, -100.2, 1.0), ("negative_price", "ask")),
        ((100.0, 1.0, 100.2, -1.0), ("negative_size", "ask_size")),
        ((100.0, math.inf, 100.2, 1.0), ("not_finite", "bid_size")),
        ((100.05, 1.0, 100.2, 1.0), ("off_grid", "bid")),
    ],
)
def test_refused_ticker_changes_nothing(order_book: Any, ticker: tuple[float, ...], expected: tuple[str, str]) -> None:
    book = _book(order_book)
    before = book.to_bytes()
    assert _reason(book.apply_ticker, *ticker, 12) == expected
    assert book.to_bytes() == before
    assert book.is_ready


@pytest.mark.parametrize("tick_size", [0.01, 0.1, 0.25, 0.0005, 1e-6, 5.0, 2.5])
def test_prices_come_back_as_the_instrument_says_also_near_100_000(order_book: Any, tick_size: float) -> None:
    instrument = Instrument("X", tick_size=tick_size)
    book = order_book(tick_size)
    start = instrument.ticks(100_000.0)
    prices = [instrument.price_from_ticks(start + i) for i in range(500)]
    book.apply_snapshot([], [(price, 1.0) for price in prices])
    assert book.top(500)[1][:, 0].tolist() == prices
    between = prices[7] + tick_size * 1e-3
    assert _reason(book.apply_delta, [(between, 1.0)], []) == ("off_grid", "bids")


def test_decimals_of_a_cent_grid_are_the_shortest(order_book: Any) -> None:
    book = order_book(0.01)
    book.apply_snapshot([(61837.63, 1.0)], [(61837.64, 1.0)])
    assert repr(book.best()) == "(61837.63, 1.0, 61837.64, 1.0)"


def test_top_takes_the_default_depth_and_refuses_less_than_none(order_book: Any) -> None:
    book = _book(order_book, levels=2)
    assert [len(side) for side in book.top()] == [2, 2]
    assert [side.shape for side in book.top(0)] == [(0, 2), (0, 2)]
    with pytest.raises(ValueError, match="`n` must be at least 0, was -1"):
        book.top(-1)


def test_arrays_of_top_are_the_callers_own(order_book: Any) -> None:
    book = _book(order_book)
    bids, _ = book.top()
    bids[0, 0] = -1.0
    book.apply_delta([(100.1, 1.0)], [], 11, 11, 0)
    assert book.best()[0] == 100.1
    assert bids[0, 0] == -1.0


def test_top_into_fills_rows_and_leaves_the_rest(order_book: Any) -> None:
    book = _book(order_book)
    bids, asks = np.full((2, 2), 7.0), np.full((3, 2), 7.0)
    assert book.top_into(bids, asks) == (2, 2)
    assert bids.tolist() == [[100.0, 1.0], [99.9, 2.0]]
    assert asks.tolist() == [[100.2, 3.0], [100.4, 5.0], [7.0, 7.0]]
    with pytest.raises(TypeError):
        book.top_into(np.zeros((2, 2), dtype=np.float32), asks)


@pytest.mark.parametrize(
    "levels",
    [
        pytest.param([(100.0, 1), (99, 2.0)], id="whole numbers"),
        pytest.param(([100.0, 1.0], [99.0, 2.0]), id="tuple of lists"),
        pytest.param([(np.float64(100.0), np.float32(1.0)), (np.int64(99), 2.0)], id="NumPy numbers"),
        pytest.param(np.array([[100.0, 1.0], [99.0, 2.0]], order="F"), id="column order"),
        pytest.param(np.array([[100, 1], [99, 2]]), id="integers"),
        pytest.param(np.array([[99.0, 2.0], [100.0, 1.0]])[::-1], id="strided"),
    ],
)
def test_levels_come_in_many_shapes(order_book: Any, levels: Any) -> None:
    book = order_book(0.1)
    book.apply_snapshot(levels, np.empty((0, 2)))
    assert book.top()[0].tolist() == [[100.0, 1.0], [99.0, 2.0]]


def test_a_number_that_calls_back_into_a_book_disturbs_neither_message(order_book: Any) -> None:
    book, other = order_book(0.1), order_book(0.1)

    class Meddler:
        def __float__(self) -> float:
            other.apply_snapshot([(50.0, 5.0)] * 100, [(51.0, 5.0)])
            return 2.0

    book.apply_snapshot([(100.0, 1.0), (99.0, Meddler()), (98.0, 3.0)], [(101.0, Meddler())])
    assert book.top()[0].tolist() == [[100.0, 1.0], [99.0, 2.0], [98.0, 3.0]]
    assert other.best() == (50.0, 5.0, 51.0, 5.0)


def test_checkpoint_goes_on_bit_for_bit(order_book: Any) -> None:
    book = _book(order_book)
    book.apply_delta([(99.8, 0.1)], [], 13, 9, 8)
    book.apply_ticker(99.9, 8.0, 100.3, 6.0, 15)
    for twin in (order_book.from_bytes(book.to_bytes()), pickle.loads(pickle.dumps(book)), copy.deepcopy(book)):
        assert twin.to_bytes() == book.to_bytes()
        assert twin.apply_delta([(99.8, 0.0)], [], 14, 14, 13) is BookApply.APPLIED
        assert twin.level_counts == (3, 2)
    assert book.level_counts == (4, 2)


def test_damaged_checkpoint_is_refused(order_book: Any) -> None:
    data = _book(order_book).to_bytes()
    for at in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        with pytest.raises(ValueError, match="checkpoint"):
            order_book.from_bytes(bytes(damaged))
    for end in (0, 8, len(data) - 1):
        with pytest.raises(ValueError, match="checkpoint"):
            order_book.from_bytes(data[:end])


@pytest.mark.parametrize("arguments", [(0.0,), (-0.1,), (math.nan,), (math.inf,), (0.1, 0)])
def test_bad_settings_are_refused(order_book: Any, arguments: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError):
        order_book(*arguments)
