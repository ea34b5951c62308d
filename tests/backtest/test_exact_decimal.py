"""The compiled loop's money is computed as Python's `decimal` computes it."""

from __future__ import annotations

from decimal import Context, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

core = pytest.importorskip("ami_engine._core")

EXACT = Context(prec=2_000)
FIFTY = Context(prec=50)

_places = st.tuples(st.integers(-(10**15), 10**15), st.integers(0, 12)).map(lambda pair: pair[0] / 10 ** pair[1])
_numbers = st.one_of(_places, st.sampled_from([0.0, 0.1, 1e15, 2.0**53, 1e-9]), st.floats(-1e20, 1e20).filter(
    lambda value: value == 0.0 or abs(value) > 1e-20
))  # fmt: skip


@given(_numbers, _numbers.filter(bool), st.integers(-1, 23))
def test_arithmetic_is_that_of_python(a: float, b: float, places: int) -> None:
    x, y = Decimal(repr(a)), Decimal(repr(b))
    quotient = FIFTY.divide(x, y)
    assert core.exact_arithmetic(a, b, 50, places) == (
        float(EXACT.add(x, y)),
        float(EXACT.multiply(x, y)),
        (x > y) - (x < y),
        float(quotient),
        float(quotient),
        float(EXACT.subtract(FIFTY.multiply(quotient, y), x)),
        float(EXACT.divide_int(abs(x), abs(y))),
    )
