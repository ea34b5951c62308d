"""The quotes that a decision carries in its parameters: one typed decoder, and nothing else reads them."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from numbers import Real
from typing import Any

import msgspec

from ami_engine.errors import QuoteError

__all__ = ["Quotes", "decode_quotes"]


class Quotes(msgspec.Struct, frozen=True, gc=False):
    """Prices to quote and the size of each, as the model wants them: not on the grid yet.

    `bid_quote` and `ask_quote` are in quote currency; None withdraws the side. `size_usd` is the value of each quote.
    """

    bid_quote: float | None = None
    ask_quote: float | None = None
    size_usd: float = 0.0
    post_only: bool = True


_NO_QUOTES = Quotes()


def decode_quotes(params: Mapping[str, Any] | None) -> Quotes:
    """Read the quotes out of a decision's parameters.

    Parameters
    ----------
    params : mapping or None
        ``bid_quote`` and ``ask_quote`` (> 0; absent or None withdraws that side), ``size_usd`` (>= 0, needed with a
        quote), ``post_only`` (default True). Other keys are the model's own and are left alone.

    Returns
    -------
    Quotes

    Raises
    ------
    QuoteError
        When a value is not a number, not finite, out of range, or the bid is above the ask. The engine then holds.

    Examples
    --------
    >>> decode_quotes({"bid_quote": 0.49, "ask_quote": None, "size_usd": 5})
    Quotes(bid_quote=0.49, ask_quote=None, size_usd=5.0, post_only=True)
    >>> decode_quotes({"bid_quote": float("nan"), "size_usd": 5})
    Traceback (most recent call last):
    ami_engine.errors.QuoteError: `bid_quote` must be finite and > 0, was nan
    """
    if params is None:
        return _NO_QUOTES
    bid, ask = _price(params, "bid_quote"), _price(params, "ask_quote")
    if bid is None and ask is None:
        return _NO_QUOTES
    if bid is not None and ask is not None and bid > ask:
        raise QuoteError(f"`bid_quote` must not be above `ask_quote`, was {bid!r} above {ask!r}")
    size = _number(params, "size_usd")
    if size is None:
        raise QuoteError("`size_usd` is needed with a quote, was absent")
    if not (isfinite(size) and size >= 0.0):
        raise QuoteError(f"`size_usd` must be finite and >= 0, was {size!r}")
    post_only = params.get("post_only")
    if post_only is None:
        post_only = True
    elif not isinstance(post_only, bool):
        raise QuoteError(f"`post_only` must be True or False, was {post_only!r}")
    return Quotes(bid, ask, size, post_only)


def _price(params: Mapping[str, Any], name: str) -> float | None:
    value = _number(params, name)
    if value is not None and not (isfinite(value) and value > 0.0):
        raise QuoteError(f"`{name}` must be finite and > 0, was {value!r}")
    return value


def _number(params: Mapping[str, Any], name: str) -> float | None:
    value = params.get(name)
    if value is None or type(value) is float:
        return value
    # A bool is an int to Python, and an order at price True is nobody's wish.
    if isinstance(value, bool) or not isinstance(value, Real):
        raise QuoteError(f"`{name}` must be a number, was {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise QuoteError(f"`{name}` must be finite, was an integer beyond 1e308") from None
