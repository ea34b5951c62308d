"""Compiled and plain books give the same answers, refusals and bytes over random messages, good and bad."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ami_engine.book import PlainMboBook, PlainOrderBook
from ami_engine.errors import EventError

# Few prices, so that levels are hit again and again and messages cross the book often enough.
_PRICES = st.integers(980, 1020).map(lambda ticks: ticks / 10)
_SIZES = st.sampled_from([0.0, 0.0, 0.1, 1.0, 2.5, 7.0])
_BAD_NUMBERS = st.sampled_from(
    [math.nan, -math.nan, math.inf, -math.inf, -1.0, 0.0, -0.0, 100.05, 1e300, 1e-300, "1", None]
)
_BAD_LEVELS = st.sampled_from([(1.0,), (1.0, 2.0, 3.0), 5.0, None, "12"])


def _side(low: int, high: int) -> Any:
    good = st.tuples(st.integers(low, high).map(lambda ticks: ticks / 10), _SIZES)
    return st.lists(good, max_size=8)


_GOOD = st.tuples(_side(980, 1001), _side(1000, 1020))
_CROSSING = st.tuples(_side(980, 1020), _side(980, 1020))
_BROKEN = st.tuples(
    st.lists(st.tuples(_PRICES | _BAD_NUMBERS, _SIZES | _BAD_NUMBERS) | _BAD_LEVELS, max_size=4) | st.none(),
    _side(1000, 1020),
)
_LEVELS = st.one_of(_GOOD, _GOOD, _GOOD, _GOOD, _CROSSING, _BROKEN)
_NUMBER = st.one_of(_PRICES, _SIZES, st.sampled_from([math.nan, math.inf, -1.0, 0.0, 100.05]))
# Of a message: its seq, first_seq and prev_seq, counted from where the book stands; None is 0, "not known".
_STEP = st.one_of(
    st.just((1, 1, 0)),
    st.just((3, 1, 0)),
    st.just((2, 1, None)),
    st.tuples(*[st.one_of(st.none(), st.integers(-3, 4))] * 3),
)
_MESSAGE = st.one_of(
    st.tuples(st.just("delta"), _LEVELS, _STEP),
    st.tuples(st.just("delta"), _GOOD, st.just((1, 1, 0))),
    st.tuples(st.just("snapshot"), st.one_of(_GOOD, _LEVELS), st.integers(-3, 3)),
    st.tuples(st.just("ticker"), st.tuples(_NUMBER, _SIZES, _NUMBER, _SIZES | _NUMBER), st.integers(-2, 4)),
    st.tuples(st.just("ticker"), st.tuples(st.just(99.9), _SIZES, st.just(100.1), _SIZES), st.integers(-2, 4)),
    st.tuples(st.just("gap")),
    st.tuples(st.just("swap")),
)


def _send(book: Any, message: tuple[Any, ...]) -> Any:
    """Apply a message; return the result, or what the refusal says."""
    kind = message[0]
    try:
        if kind == "delta":
            (bids, asks), steps = message[1:]
            return book.apply_delta(bids, asks, *(0 if step is None else book.seq + step for step in steps))
        if kind == "snapshot":
            (bids, asks), step = message[1:]
            return book.apply_snapshot(bids, asks, book.seq + step)
        if kind == "ticker":
            return book.apply_ticker(*message[1], book.seq + message[2])
        return book.mark_gap()
    except EventError as error:
        return str(error), error.reason, error.field


def _seen(book: Any) -> tuple[Any, ...]:
    names = ("is_ready", "has_ticker", "is_crossed", "is_locked", "is_one_sided", "is_empty", "seq", "level_counts")
    views = [side.tolist() for n in (None, 0, 1, 3, 100) for side in book.top(n)]
    return *(getattr(book, name) for name in names), book.best(), book.depth_best(), views, book.to_bytes()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=st.lists(_MESSAGE, min_size=1, max_size=25))
def test_order_books_agree(native_books: tuple[Any, Any], messages: list[tuple[Any, ...]]) -> None:
    native, plain = native_books[0](0.1), PlainOrderBook(0.1)
    start = ("snapshot", ([(99.9, 1.0), (99.5, 2.0)], [(100.1, 3.0), (100.5, 4.0)]), 10)
    for message in (start, *messages):
        if message[0] == "swap":
            # Either reads what the other wrote.
            native, plain = native_books[0].from_bytes(plain.to_bytes()), PlainOrderBook.from_bytes(native.to_bytes())
        else:
            assert _send(native, message) == _send(plain, message)
        assert _seen(native) == _seen(plain)


@settings(max_examples=200, deadline=None)
@given(
    start=st.tuples(_side(980, 1000), _side(1001, 1020)),
    messages=st.lists(st.tuples(_side(980, 1000), _side(1001, 1020)), max_size=12),
    crossing=st.tuples(_side(980, 1020), _side(980, 1020)),
)
def test_plain_book_holds_what_a_dict_holds_and_undoes_what_crosses(start: Any, messages: Any, crossing: Any) -> None:
    book, held = PlainOrderBook(0.1), ({}, {})
    book.apply_snapshot(*start)
    for message in (start, *messages):
        if message is not start:
            book.apply_delta(*message)
        for side, levels in zip(held, message, strict=True):
            side.update(levels)
    bids, asks = (sorted(list(level) for level in side.items() if level[1] > 0.0) for side in held)
    assert [side.tolist() for side in book.top(100)] == [bids[::-1], asks]

    before = book.to_bytes()[96:-8]
    after = [{**dict(map(tuple, side)), **dict(new)} for side, new in zip((bids, asks), crossing, strict=True)]
    best = [[price for price, size in side.items() if size > 0.0] for side in after]
    is_crossed = bool(best[0] and best[1]) and max(best[0]) > min(best[1])
    if is_crossed:
        with pytest.raises(EventError, match="best bid above the best ask"):
            book.apply_delta(*crossing)
        assert book.to_bytes()[96:-8] == before
    else:
        book.apply_delta(*crossing)
        assert book.is_ready


_ORDER = st.tuples(
    st.sampled_from("AAAACCCMMTFNRX"),
    st.sampled_from("BBBBAAAAN"),
    st.integers(0, 30) | st.just(2**64 - 1),
    _PRICES | st.sampled_from([math.nan, 0.0, -1.0, 100.05]),
    st.sampled_from([0.0, 0.1, 0.3, 1.0, 2.0, 5.0, -1.0, math.inf]),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=st.lists(_ORDER, max_size=80))
def test_mbo_books_agree(native_books: tuple[Any, Any], messages: list[tuple[Any, ...]]) -> None:
    native, plain = native_books[1](0.1), PlainMboBook(0.1)
    for i, message in enumerate(messages):
        outcomes = []
        for book in (native, plain):
            try:
                outcomes.append(book.apply(*message))
            except EventError as error:
                outcomes.append((str(error), error.reason, error.field))
        assert outcomes[0] == outcomes[1]
        assert native.to_bytes() == plain.to_bytes()
        assert native.best() == plain.best()
        assert native.order(message[2]) == plain.order(message[2])
        if i == 40:
            native, plain = native_books[1].from_bytes(plain.to_bytes()), PlainMboBook.from_bytes(native.to_bytes())
    assert [side.tolist() for side in native.top(50)] == [side.tolist() for side in plain.top(50)]


def test_mbo_books_agree_over_many_orders(native_books: tuple[Any, Any]) -> None:
    # Enough orders to grow the table several times, with ids in runs as venues give them.
    native, plain = native_books[1](0.1), PlainMboBook(0.1)
    for book in (native, plain):
        for i in range(6000):
            book.apply("A", "BA"[i % 2], 6_412_777_162_812 + 7 * i, (900 + i % 97) / 10 + 10 * (i % 2), 1 + i % 5)
        for i in range(0, 6000, 3):
            book.apply("C", "B", 6_412_777_162_812 + 7 * i, 0.0, 1 + i % 2)
    assert native.order_count == plain.order_count
    assert native.to_bytes() == plain.to_bytes()


def test_order_books_agree_over_deep_sides(native_books: tuple[Any, Any]) -> None:
    # Blocks of the compiled book fill, split, empty and join: sides grow to thousands of levels and shrink to none.
    native, _ = native_books
    compiled, plain = native(0.1), PlainOrderBook(0.1)
    draw = random.Random(8)
    for book in (compiled, plain):
        book.apply_snapshot([(10_000.0, 1.0)], [(10_000.1, 1.0)], 0)
    for round_ in range(400):
        deletes = 0.8 if round_ // 100 % 2 else 0.1
        sides = [
            [
                (
                    (100_000 - depth if sign < 0 else 100_001 + depth) / 10,
                    0.0 if draw.random() < deletes else draw.random(),
                )
                for depth in sorted(int(draw.expovariate(0.001)) for _ in range(60))
            ]
            for sign in (-1, 1)
        ]
        for book in (compiled, plain):
            book.apply_delta(*sides)
        if round_ % 20 == 0:
            assert compiled.to_bytes() == plain.to_bytes()
            assert all(
                np.array_equal(ours, theirs) for ours, theirs in zip(compiled.top(90), plain.top(90), strict=True)
            )
    assert compiled.level_counts == plain.level_counts
    every = [[(level[0], 0.0) for level in side.tolist()] for side in compiled.top(100_000)]
    for book in (compiled, plain):
        book.apply_delta(*every)
    assert compiled.level_counts == (0, 0)
    assert compiled.to_bytes() == plain.to_bytes()
