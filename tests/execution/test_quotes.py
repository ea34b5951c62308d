"""What the decoder of quotes takes, and what it refuses."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ami_engine.errors import QuoteError
from ami_engine.execution.quotes import Quotes, decode_quotes
from decision_schema.types import Action

GOOD = {"bid_quote": 0.49, "ask_quote": 0.51, "size_usd": 5.0, "post_only": False}


def test_a_full_set_is_read() -> None:
    assert decode_quotes(GOOD) == Quotes(0.49, 0.51, 5.0, False)


@pytest.mark.parametrize("params", [None, {}, {"value": 3}, {"bid_quote": None, "ask_quote": None, "size_usd": "x"}])
def test_no_prices_are_no_quotes(params: dict[str, Any] | None) -> None:
    quotes = decode_quotes(params)
    assert quotes.bid_quote is None
    assert quotes.ask_quote is None


def test_quotes_are_post_only_unless_they_say_otherwise() -> None:
    assert decode_quotes({"bid_quote": 1, "size_usd": 1}).post_only is True
    assert decode_quotes({"bid_quote": 1, "size_usd": 1, "post_only": None}).post_only is True


@pytest.mark.parametrize("number", [np.float64(0.25), np.float32(0.25), np.int64(3), 2])
def test_numbers_of_other_libraries_become_floats(number: Any) -> None:
    quotes = decode_quotes({"bid_quote": number, "size_usd": number})
    assert type(quotes.bid_quote) is float
    assert quotes.bid_quote == quotes.size_usd == float(number)


BAD_NUMBERS = [
    float("nan"),
    float("inf"),
    -float("inf"),
    -1.0,
    -1,
    True,
    False,
    "0.5",
    b"1",
    [0.5],
    {},
    10**400,
    1j,
    Decimal(1),
]


@pytest.mark.parametrize("name", ["bid_quote", "ask_quote", "size_usd"])
@pytest.mark.parametrize("value", BAD_NUMBERS, ids=repr)
def test_anything_else_is_refused_and_named(name: str, value: Any) -> None:
    with pytest.raises(QuoteError, match=f"`{name}`"):
        decode_quotes(GOOD | {name: value})


@pytest.mark.parametrize(
    "change",
    [{"bid_quote": 0.0}, {"bid_quote": 0.52}, {"size_usd": None}, {"post_only": 1}, {"post_only": "yes"}],
)
def test_what_makes_no_sense_together_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(QuoteError):
        decode_quotes(GOOD | change)


def test_a_refused_quote_is_a_hold() -> None:
    assert QuoteError.response is Action.HOLD


anything = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.binary(max_size=2))


@given(st.dictionaries(st.sampled_from(["bid_quote", "ask_quote", "size_usd", "post_only", "other"]), anything))
def test_what_comes_out_can_always_be_ordered(params: dict[str, Any]) -> None:
    try:
        quotes = decode_quotes(params)
    except QuoteError:
        return
    prices = [p for p in (quotes.bid_quote, quotes.ask_quote) if p is not None]
    assert all(0.0 < p < float("inf") for p in prices)
    assert prices == sorted(prices)
    assert 0.0 <= quotes.size_usd < float("inf")
    assert isinstance(quotes.post_only, bool)
