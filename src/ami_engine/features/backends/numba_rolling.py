"""Rolling structures for numba, on two flat arrays: `f` holds every float of an engine, `i` every integer.

Each array argument of a compiled call costs about 45 ns, so the structures are not objects but blocks of integers in
`i`, which say where their rings lie in `f` and `i`. Rings are addressed by absolute position: element p of a ring of
capacity 2^k lies at offset + (p & mask) · width. Operation by operation these are the structures of
cpp/include/ami/rolling_stats.hpp, so that both backends give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

from ami_engine.features.backends.numba_layout import (
    CUT_A,
    CUT_B,
    CUT_L,
    CUT_R,
    END,
    FIRST,
    HIGH_COUNT,
    HIGH_POSITIONS,
    HIGH_VALUES,
    ITEMS,
    LOW_COUNT,
    LOW_VALUES,
    MASK,
    PLACES,
    QUEUE_END,
    QUEUE_FIRST,
    QUEUE_POSITIONS,
    QUEUE_VALUES,
)
from ami_engine.features.schema import LN2, LOG_SERIES, MAX_MAGNITUDE, SQRT2, SQRT_HALF

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile a function for other compiled functions.

    Division as in IEEE 754: Python's ZeroDivisionError would leave a state half changed, and testing for it costs time.
    No fast-math: rounding is part of the answer.
    """
    return cast(_Function, njit(error_model="numpy")(function))


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
def merge_into(f: Any, to: int, a: int, na: int, b: int, nb: int, moments: int, sums: int) -> None:
    """Merge two aggregates of `na` and `nb` values: first `moments` (mean, m2), then `sums` pairs (hi, lo)."""
    if moments:
        # Chan, Golub & LeVeque (1979), pairwise update.
        n = float(na) + float(nb)
        share = float(nb) / n
        delta = f[b] - f[a]
        mean = f[a] + delta * share
        m2 = (f[a + 1] + f[b + 1]) + delta * delta * (float(na) * share)
        f[to] = mean
        f[to + 1] = m2
    for k in range(2 * moments, 2 * (moments + sums), 2):
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
    return i[io + END] - i[io + FIRST]


@compiled
def aggregate_push(f: Any, i: Any, io: int, fo: int, value: int, moments: int, sums: int) -> None:
    """Append the item at f[value]."""
    width = 2 * (moments + sums)
    back = fo + width
    end = i[io + END]
    count = end - i[io + CUT_B]
    if count == 0:
        copy_item(f, back, value, width)
    else:
        merge_into(f, back, back, count, value, 1, moments, sums)
    copy_item(f, i[io + ITEMS] + (end & i[io + MASK]) * width, value, width)
    i[io + END] = end + 1
    aggregate_fix_up(f, i, io, fo, moments, sums)


@compiled
def aggregate_pop(f: Any, i: Any, io: int, fo: int, moments: int, sums: int) -> None:
    """Drop the oldest item."""
    i[io + FIRST] += 1
    aggregate_fix_up(f, i, io, fo, moments, sums)


@compiled
def aggregate_fix_up(f: Any, i: Any, io: int, fo: int, moments: int, sums: int) -> None:
    width = 2 * (moments + sums)
    back = fo + width
    end = i[io + END]
    if i[io + FIRST] == i[io + CUT_B]:
        i[io + CUT_L] = end
        i[io + CUT_R] = end
        i[io + CUT_A] = end
        i[io + CUT_B] = end
        for k in range(width):
            f[back + k] = 0.0
        return
    if i[io + CUT_L] == i[io + CUT_B]:
        i[io + CUT_L] = i[io + FIRST]
        i[io + CUT_R] = i[io + CUT_B]
        i[io + CUT_A] = end
        i[io + CUT_B] = end
        for k in range(width):
            f[fo + k] = f[back + k]
            f[back + k] = 0.0
    l_cut = i[io + CUT_L]
    r_cut = i[io + CUT_R]
    a_cut = i[io + CUT_A]
    if l_cut == r_cut:
        i[io + CUT_L] = l_cut + 1
        i[io + CUT_R] = r_cut + 1
        i[io + CUT_A] = a_cut + 1
        return
    b_cut = i[io + CUT_B]
    mask = i[io + MASK]
    items = i[io + ITEMS]
    left = items + (l_cut & mask) * width
    merge_into(f, left, left, r_cut - l_cut, fo, b_cut - r_cut, moments, sums)
    i[io + CUT_L] = l_cut + 1
    if a_cut != b_cut:
        right = items + ((a_cut - 1) & mask) * width
        merge_into(f, right, right, 1, items + (a_cut & mask) * width, b_cut - a_cut, moments, sums)
    i[io + CUT_A] = a_cut - 1


@compiled
def aggregate_query(f: Any, i: Any, io: int, fo: int, moments: int, sums: int) -> int:
    """Return where in `f` the aggregate of the whole window stands; the window must not be empty."""
    width = 2 * (moments + sums)
    back = fo + width
    first = i[io + FIRST]
    front_count = i[io + CUT_B] - first
    back_count = i[io + END] - i[io + CUT_B]
    if front_count == 0:
        return back
    front: int = i[io + ITEMS] + (first & i[io + MASK]) * width
    if back_count == 0:
        return front
    merge_into(f, back + width, front, front_count, back, back_count, moments, sums)
    return back + width


@compiled
def std_dev(m2: float, count: int) -> float:
    return 0.0 if count < 2 else math.sqrt(m2 / float(count))


# The quantile: the samples up to it in a heap whose top is the greatest ("low", tag 1), the others in one whose top is
# the least ("high", tag 0), and each sample's place by its position in the window. The high heap keeps negated values,
# so that both are the same heap: the top is the greatest key.


@compiled
def key_of(value: float, tag: int) -> float:
    return value if tag else -value


@compiled
def put_sample(f: Any, i: Any, q: int, mask: int, tag: int, index: int, key: float, position: int) -> None:
    f[i[q + HIGH_VALUES + tag] + index] = key
    i[i[q + HIGH_POSITIONS + tag] + index] = position
    i[i[q + PLACES] + (position & mask)] = 2 * index + tag


@compiled
def sift_up(f: Any, i: Any, q: int, mask: int, tag: int, index: int) -> bool:
    values = i[q + HIGH_VALUES + tag]
    positions = i[q + HIGH_POSITIONS + tag]
    key = f[values + index]
    position = i[positions + index]
    start = index
    while index > 0:
        parent = (index - 1) >> 1
        above = f[values + parent]
        if not key > above:
            break
        put_sample(f, i, q, mask, tag, index, above, i[positions + parent])
        index = parent
    put_sample(f, i, q, mask, tag, index, key, position)
    return index != start


@compiled
def sift_down(f: Any, i: Any, q: int, mask: int, tag: int, index: int) -> None:
    values = i[q + HIGH_VALUES + tag]
    positions = i[q + HIGH_POSITIONS + tag]
    size = i[q + HIGH_COUNT + tag]
    key = f[values + index]
    position = i[positions + index]
    while True:
        child = 2 * index + 1
        if child >= size:
            break
        if child + 1 < size and f[values + child + 1] > f[values + child]:
            child += 1
        below = f[values + child]
        if not below > key:
            break
        put_sample(f, i, q, mask, tag, index, below, i[positions + child])
        index = child
    put_sample(f, i, q, mask, tag, index, key, position)


@compiled
def settle(f: Any, i: Any, q: int, mask: int, tag: int, index: int, key: float, position: int) -> None:
    """Put a sample where another one was."""
    f[i[q + HIGH_VALUES + tag] + index] = key
    i[i[q + HIGH_POSITIONS + tag] + index] = position
    if not sift_up(f, i, q, mask, tag, index):
        sift_down(f, i, q, mask, tag, index)


@compiled
def add_to_heap(f: Any, i: Any, q: int, mask: int, tag: int, key: float, position: int) -> None:
    size = i[q + HIGH_COUNT + tag]
    i[q + HIGH_COUNT + tag] = size + 1
    f[i[q + HIGH_VALUES + tag] + size] = key
    i[i[q + HIGH_POSITIONS + tag] + size] = position
    sift_up(f, i, q, mask, tag, size)


@compiled
def remove_from_heap(f: Any, i: Any, q: int, mask: int, tag: int, index: int) -> None:
    last = i[q + HIGH_COUNT + tag] - 1
    i[q + HIGH_COUNT + tag] = last
    if index != last:
        key = f[i[q + HIGH_VALUES + tag] + last]
        settle(f, i, q, mask, tag, index, key, i[i[q + HIGH_POSITIONS + tag] + last])


@compiled
def quantile_size(i: Any, q: int) -> int:
    return i[q + HIGH_COUNT] + i[q + LOW_COUNT]


@compiled
def rebalance(f: Any, i: Any, q: int, mask: int, share: float) -> None:
    size = quantile_size(i, q)
    target = int(share * float(size - 1)) + 1 if size > 0 else 0
    while i[q + LOW_COUNT] != target:
        tag = 1 if i[q + LOW_COUNT] > target else 0
        key = f[i[q + HIGH_VALUES + tag]]
        position = i[i[q + HIGH_POSITIONS + tag]]
        remove_from_heap(f, i, q, mask, tag, 0)
        add_to_heap(f, i, q, mask, 1 - tag, -key, position)


@compiled
def quantile_push(f: Any, i: Any, q: int, mask: int, share: float, position: int, value: float) -> None:
    tag = 1 if i[q + LOW_COUNT] == 0 or value <= f[i[q + LOW_VALUES]] else 0
    add_to_heap(f, i, q, mask, tag, key_of(value, tag), position)
    rebalance(f, i, q, mask, share)


@compiled
def quantile_pop(f: Any, i: Any, q: int, mask: int, share: float, position: int) -> None:
    place = i[i[q + PLACES] + (position & mask)]
    remove_from_heap(f, i, q, mask, place & 1, place >> 1)
    rebalance(f, i, q, mask, share)


@compiled
def quantile_replace(f: Any, i: Any, q: int, mask: int, oldest: int, position: int, value: float) -> None:
    """Pop and push in one: sizes stay, so at most one sample changes heaps."""
    place = i[i[q + PLACES] + (oldest & mask)]
    tag = place & 1
    index = place >> 1
    other = 1 - tag
    key = key_of(value, tag)
    other_top = i[q + HIGH_VALUES + other]
    if i[q + HIGH_COUNT + other] > 0 and -key < f[other_top]:
        # It belongs to the other heap, whose top takes the place that became free.
        top_key = f[other_top]
        top_position = i[i[q + HIGH_POSITIONS + other]]
        f[i[q + HIGH_VALUES + tag] + index] = -top_key
        i[i[q + HIGH_POSITIONS + tag] + index] = top_position
        sift_up(f, i, q, mask, tag, index)
        f[other_top] = -key
        i[i[q + HIGH_POSITIONS + other]] = position
        sift_down(f, i, q, mask, other, 0)
    else:
        settle(f, i, q, mask, tag, index, key, position)


@compiled
def median(f: Any, i: Any, q: int) -> float:
    low: float = f[i[q + LOW_VALUES]]
    if quantile_size(i, q) & 1:
        return low
    return (low - f[i[q + HIGH_VALUES]]) / 2.0


@compiled
def quantile(f: Any, i: Any, q: int, share: float) -> float:
    """NumPy's default percentile, in the order of operations of its lerp."""
    index = share * float(quantile_size(i, q) - 1)
    weight = index - math.floor(index)
    below: float = f[i[q + LOW_VALUES]]
    if i[q + HIGH_COUNT] == 0:
        return below
    above: float = -f[i[q + HIGH_VALUES]]
    gap = above - below
    return above - gap * (1.0 - weight) if weight >= 0.5 else below + gap * weight


@compiled
def maximum_push(f: Any, i: Any, m: int, mask: int, position: int, value: float) -> None:
    end = i[m + QUEUE_END]
    first = i[m + QUEUE_FIRST]
    values = i[m + QUEUE_VALUES]
    while end > first and f[values + ((end - 1) & mask)] <= value:
        end -= 1
    f[values + (end & mask)] = value
    i[i[m + QUEUE_POSITIONS] + (end & mask)] = position
    i[m + QUEUE_END] = end + 1


@compiled
def maximum_drop(i: Any, m: int, mask: int, position: int) -> None:
    """Drop what lies before `position`."""
    positions = i[m + QUEUE_POSITIONS]
    first = i[m + QUEUE_FIRST]
    while first < i[m + QUEUE_END] and i[positions + (first & mask)] < position:
        first += 1
    i[m + QUEUE_FIRST] = first
