"""Rolling structures for numba, on two flat arrays: `f` holds every float of an engine, `i` every integer.

Each array argument of a compiled call costs about 45 ns, so the structures are not objects but blocks of integers in
`i`, which say where their rings lie in `f` and `i`. Rings are addressed by absolute position: element p of a ring of
capacity 2^k lies at offset + (p & mask) · width. Operation by operation these are the structures of
cpp/include/ami/rolling_stats.hpp, so that both backends give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

from numba import njit

from ami_engine.features.backends import numba_layout as at
from ami_engine.features.schema import LN2, LOG_SERIES, MAX_MAGNITUDE, SQRT2, SQRT_HALF

# Only compiled code calls these functions: the wrappers by which Python would are not made.
_INNER: Final[dict[str, Any]] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}

_Function = TypeVar("_Function", bound=Callable[..., Any])


# What every function is compiled with. Division as in IEEE 754: Python's ZeroDivisionError would leave a state half
# changed, and testing for it costs time. No fast-math: rounding is part of the answer. No reference counts: the caller
# holds the arrays for the length of a call, and counting them at each step took four fifths of the time.
COMPILE_OPTIONS: Final[dict[str, Any]] = {"error_model": "numpy", "_nrt": False}


def compiled(function: _Function) -> _Function:
    """Compile a function for other compiled functions, as a part of them."""
    return cast(_Function, njit(forceinline=True, **_INNER, **COMPILE_OPTIONS)(function))


def compiled_apart(function: _Function) -> _Function:
    """Compile a function that others call: a large one, that would be compiled again within each of them."""
    return cast(_Function, njit(**_INNER, **COMPILE_OPTIONS)(function))


@compiled
def log1p_reduced(x: float) -> float:
    c = LOG_SERIES
    s = x / (2.0 + x)
    z = s * s
    z2 = z * z
    z4 = z2 * z2
    b0 = (c[0] + c[1] * z) + z2 * (c[2] + c[3] * z)
    b1 = (c[4] + c[5] * z) + z2 * (c[6] + c[7] * z)
    b2 = (c[8] + c[9] * z) + z2 * c[10]
    return (2.0 * s) * ((b0 + z4 * b1) + (z4 * z4) * b2)


@compiled
def portable_log(u: float) -> float:
    k = 0.0
    while u > SQRT2:
        u = u * 0.5
        k = k + 1.0
    while u < SQRT_HALF:
        u = u * 2.0
        k = k - 1.0
    return k * LN2 + log1p_reduced(u - 1.0)


@compiled
def log_return(mid: float, previous: float) -> float:
    """Return log(mid / previous): `features.schema.log_return`, with its bits."""
    x = (mid - previous) / previous
    u = 1.0 + x
    if SQRT_HALF <= u <= SQRT2:
        return log1p_reduced(x)
    if not 0.0 < u <= MAX_MAGNITUDE:
        return portable_log(mid) - portable_log(previous)
    return portable_log(u)


@compiled
def merge_into(f: Any, to: int, a: int, b: int, sums: int) -> None:
    """Add up two items of `sums` pairs (hi, lo) each."""
    for k in range(0, 2 * sums, 2):
        add_pair(f, to + k, a + k, b + k)


@compiled
def add_pair(f: Any, to: int, a: int, b: int) -> None:
    """Add two sums kept as unevaluated pairs (Knuth's two-sum): cancellation leaves the right digits."""
    a_hi = f[a]
    b_hi = f[b]
    hi = a_hi + b_hi
    virtual_b = hi - a_hi
    error = (a_hi - (hi - virtual_b)) + (b_hi - virtual_b)
    lo = error + (f[a + 1] + f[b + 1])
    f[to] = hi
    f[to + 1] = lo


@compiled
def copy_item(f: Any, to: int, source: int, width: int) -> None:
    for k in range(width):
        f[to + k] = f[source + k]


# The sliding aggregates: DABA Lite (Tangwongsan, Hirzel & Schneider 2021, In-order sliding-window aggregation in
# worst-case constant time). `fo` is where an aggregate keeps its middle and its back, and where a query is answered:
# three items. Nothing is ever subtracted, so a huge value leaves no trace once it has left.


@compiled
def aggregate_size(i: Any, io: int) -> int:
    size: int = i[io + at.END] - i[io + at.FIRST]
    return size


@compiled
def aggregate_push(f: Any, i: Any, io: int, fo: int, value: int, sums: int) -> None:
    """Append the item at f[value]."""
    width = 2 * sums
    back = fo + width
    end = i[io + at.END]
    count = end - i[io + at.CUT_B]
    if count == 0:
        copy_item(f, back, value, width)
    else:
        merge_into(f, back, back, value, sums)
    copy_item(f, i[io + at.ITEMS] + (end & i[io + at.MASK]) * width, value, width)
    i[io + at.END] = end + 1
    aggregate_fix_up(f, i, io, fo, sums)


@compiled
def aggregate_pop(f: Any, i: Any, io: int, fo: int, sums: int) -> None:
    """Drop the oldest item."""
    i[io + at.FIRST] += 1
    aggregate_fix_up(f, i, io, fo, sums)


@compiled
def aggregate_fix_up(f: Any, i: Any, io: int, fo: int, sums: int) -> None:
    width = 2 * sums
    back = fo + width
    end = i[io + at.END]
    if i[io + at.FIRST] == i[io + at.CUT_B]:
        i[io + at.CUT_L] = end
        i[io + at.CUT_R] = end
        i[io + at.CUT_A] = end
        i[io + at.CUT_B] = end
        for k in range(width):
            f[back + k] = 0.0
        return
    if i[io + at.CUT_L] == i[io + at.CUT_B]:
        i[io + at.CUT_L] = i[io + at.FIRST]
        i[io + at.CUT_R] = i[io + at.CUT_B]
        i[io + at.CUT_A] = end
        i[io + at.CUT_B] = end
        for k in range(width):
            f[fo + k] = f[back + k]
            f[back + k] = 0.0
    l_cut = i[io + at.CUT_L]
    r_cut = i[io + at.CUT_R]
    a_cut = i[io + at.CUT_A]
    if l_cut == r_cut:
        i[io + at.CUT_L] = l_cut + 1
        i[io + at.CUT_R] = r_cut + 1
        i[io + at.CUT_A] = a_cut + 1
        return
    b_cut = i[io + at.CUT_B]
    mask = i[io + at.MASK]
    items = i[io + at.ITEMS]
    left = items + (l_cut & mask) * width
    merge_into(f, left, left, fo, sums)
    i[io + at.CUT_L] = l_cut + 1
    if a_cut != b_cut:
        right = items + ((a_cut - 1) & mask) * width
        merge_into(f, right, right, items + (a_cut & mask) * width, sums)
    i[io + at.CUT_A] = a_cut - 1


@compiled
def aggregate_query(f: Any, i: Any, io: int, fo: int, sums: int) -> int:
    """Return where in `f` the aggregate of the whole window stands; the window must not be empty."""
    width = 2 * sums
    back = fo + width
    first = i[io + at.FIRST]
    front_count = i[io + at.CUT_B] - first
    back_count = i[io + at.END] - i[io + at.CUT_B]
    if front_count == 0:
        return back
    front: int = i[io + at.ITEMS] + (first & i[io + at.MASK]) * width
    if back_count == 0:
        return front
    merge_into(f, back + width, front, back, sums)
    return back + width
