"""The market-by-order book: Databento's actions, and the levels that orders add up to."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest

from ami_engine.errors import ConfigError, EventError


def _book(mbo_book: Any) -> Any:
    book = mbo_book(0.25)
    book.apply("A", "B", 1, 4810.0, 5)
    book.apply("A", "B", 2, 4810.0, 7)
    book.apply("A", "B", 3, 4809.5, 1)
    book.apply("A", "A", 4, 4810.25, 2)
    return book


def test_orders_of_one_price_add_up(mbo_book: Any) -> None:
    bids, asks = _book(mbo_book).top(5)
    assert bids.tolist() == [[4810.0, 12.0], [4809.5, 1.0]]
    assert asks.tolist() == [[4810.25, 2.0]]


def test_cancel_takes_a_size_and_removes_the_order_at_zero(mbo_book: Any) -> None:
    book = _book(mbo_book)
    assert book.apply("C", "B", 2, 4810.0, 3)
    assert book.order(2) == ("B", 4810.0, 4.0)
    assert book.best()[:2] == (4810.0, 9.0)
    assert book.apply("C", "B", 2, 4810.0, 4)
    assert book.order(2) is None
    assert book.apply("C", "B", 1, 4810.0, 99)
    assert book.best()[:2] == (4809.5, 1.0)
    assert (book.order_count, book.level_counts) == (2, (1, 1))


def test_unknown_cancel_is_counted_and_changes_nothing(mbo_book: Any) -> None:
    book = _book(mbo_book)
    before = book.top()
    assert not book.apply("C", "B", 77, 4810.0, 1)
    assert book.unknown_cancels == 1
    assert [np.array_equal(a, b) for a, b in zip(before, book.top(), strict=True)] == [True, True]


def test_modify_moves_an_order_and_adds_one_that_is_not_known(mbo_book: Any) -> None:
    book = _book(mbo_book)
    assert book.apply("M", "B", 1, 4809.75, 6)
    assert book.top()[0].tolist() == [[4810.0, 7.0], [4809.75, 6.0], [4809.5, 1.0]]
    assert book.apply("M", "A", 50, 4811.0, 9)
    assert book.order(50) == ("A", 4811.0, 9.0)
    assert book.unknown_modifies == 1
    assert book.apply("M", "B", 2, 4810.0, 0)
    assert book.order(2) is None


def test_repeated_add_replaces_the_order(mbo_book: Any) -> None:
    book = _book(mbo_book)
    assert book.apply("A", "A", 1, 4811.0, 4)
    assert book.order(1) == ("A", 4811.0, 4.0)
    assert (book.order_count, book.repeated_adds) == (4, 1)


@pytest.mark.parametrize("action", ["T", "F", "N"])
def test_trades_fills_and_nothing_leave_the_book(mbo_book: Any, action: str) -> None:
    book = _book(mbo_book)
    before = book.to_bytes()
    assert not book.apply(action, "B", 1, 4810.0, 5)
    assert book.to_bytes() == before


def test_clear_empties_the_book(mbo_book: Any) -> None:
    book = _book(mbo_book)
    assert book.apply("R")
    assert book.is_empty
    assert (book.order_count, book.level_counts) == (0, (0, 0))


def test_crossed_locked_and_one_sided_states_are_seen_not_refused(mbo_book: Any) -> None:
    book = mbo_book(0.25)
    book.apply("A", "B", 1, 4811.0, 1)
    assert book.is_one_sided
    book.apply("A", "A", 2, 4811.0, 1)
    assert book.is_locked
    book.apply("A", "A", 3, 4810.0, 1)
    assert book.is_crossed
    assert not book.is_locked


@pytest.mark.parametrize(
    ("message", "reason", "field"),
    [
        (("X", "B", 9, 4810.0, 1), "unknown_kind", "action"),
        (("", "B", 9, 4810.0, 1), "unknown_kind", "action"),
        (("A", "N", 9, 4810.0, 1), "malformed", "side"),
        (("A", "B", 9, math.nan, 1), "not_finite", "price"),
        (("M", "B", 1, -4810.0, 1), "negative_price", "price"),
        (("M", "B", 1, 4810.1, 1), "off_grid", "price"),
        (("A", "B", 9, 4810.0, -1), "negative_size", "size"),
        (("C", "B", 1, 4810.0, math.nan), "not_finite", "size"),
    ],
)
def test_refused_message_changes_nothing(mbo_book: Any, message: tuple[Any, ...], reason: str, field: str) -> None:
    book = _book(mbo_book)
    before = book.to_bytes()
    with pytest.raises(EventError) as caught:
        book.apply(*message)
    assert (caught.value.reason, caught.value.field) == (reason, field)
    assert book.to_bytes() == before


def test_checkpoint_goes_on_bit_for_bit(mbo_book: Any) -> None:
    book = _book(mbo_book)
    book.apply("C", "B", 404, 1.0, 1)
    for twin in (mbo_book.from_bytes(book.to_bytes()), pickle.loads(pickle.dumps(book)), copy.deepcopy(book)):
        assert twin.to_bytes() == book.to_bytes()
        assert twin.unknown_cancels == 1
        assert twin.apply("C", "B", 1, 4810.0, 5)
        assert twin.best()[:2] == (4810.0, 7.0)


def test_damaged_checkpoint_is_refused(mbo_book: Any) -> None:
    data = bytearray(_book(mbo_book).to_bytes())
    data[40] ^= 1
    with pytest.raises(ValueError, match="damaged"):
        mbo_book.from_bytes(bytes(data))
    with pytest.raises(ValueError, match="not one of this kind"):
        mbo_book.from_bytes(b"AMIBOOK\x01" + bytes(data[8:]))


def test_bad_settings_are_refused(mbo_book: Any) -> None:
    with pytest.raises(ConfigError):
        mbo_book(0.0)
    with pytest.raises(ConfigError):
        mbo_book(0.25, 0)
