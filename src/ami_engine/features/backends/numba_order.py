"""Order statistics of a window for numba: a quantile by two indexed heaps, and the maximum by a monotonic queue."""

from __future__ import annotations

import math
from typing import Any

from ami_engine.features.backends import numba_layout as at
from ami_engine.features.backends.numba_rolling import compiled

# The quantile: the samples up to it in a heap whose top is the greatest ("low", tag 1), the others in one whose top is
# the least ("high", tag 0), and each sample's place by its position in the window. The high heap keeps negated values,
# so that both are the same heap: the top is the greatest key.


@compiled
def key_of(value: float, tag: int) -> float:
    return value if tag else -value


@compiled
def put_sample(f: Any, i: Any, q: int, mask: int, tag: int, index: int, key: float, position: int) -> None:
    f[i[q + at.HIGH_VALUES + tag] + index] = key
    i[i[q + at.HIGH_POSITIONS + tag] + index] = position
    i[i[q + at.PLACES] + (position & mask)] = 2 * index + tag


@compiled
def sift_up(f: Any, i: Any, q: int, mask: int, tag: int, index: int) -> bool:
    values = i[q + at.HIGH_VALUES + tag]
    positions = i[q + at.HIGH_POSITIONS + tag]
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
    values = i[q + at.HIGH_VALUES + tag]
    positions = i[q + at.HIGH_POSITIONS + tag]
    size = i[q + at.HIGH_COUNT + tag]
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
    f[i[q + at.HIGH_VALUES + tag] + index] = key
    i[i[q + at.HIGH_POSITIONS + tag] + index] = position
    if not sift_up(f, i, q, mask, tag, index):
        sift_down(f, i, q, mask, tag, index)


@compiled
def add_to_heap(f: Any, i: Any, q: int, mask: int, tag: int, key: float, position: int) -> None:
    size = i[q + at.HIGH_COUNT + tag]
    i[q + at.HIGH_COUNT + tag] = size + 1
    f[i[q + at.HIGH_VALUES + tag] + size] = key
    i[i[q + at.HIGH_POSITIONS + tag] + size] = position
    sift_up(f, i, q, mask, tag, size)


@compiled
def remove_from_heap(f: Any, i: Any, q: int, mask: int, tag: int, index: int) -> None:
    last = i[q + at.HIGH_COUNT + tag] - 1
    i[q + at.HIGH_COUNT + tag] = last
    if index != last:
        key = f[i[q + at.HIGH_VALUES + tag] + last]
        settle(f, i, q, mask, tag, index, key, i[i[q + at.HIGH_POSITIONS + tag] + last])


@compiled
def quantile_size(i: Any, q: int) -> int:
    size: int = i[q + at.HIGH_COUNT] + i[q + at.LOW_COUNT]
    return size


@compiled
def rebalance(f: Any, i: Any, q: int, mask: int, share: float) -> None:
    size = quantile_size(i, q)
    target = int(share * float(size - 1)) + 1 if size > 0 else 0
    while i[q + at.LOW_COUNT] != target:
        tag = 1 if i[q + at.LOW_COUNT] > target else 0
        key = f[i[q + at.HIGH_VALUES + tag]]
        position = i[i[q + at.HIGH_POSITIONS + tag]]
        remove_from_heap(f, i, q, mask, tag, 0)
        add_to_heap(f, i, q, mask, 1 - tag, -key, position)


@compiled
def quantile_push(f: Any, i: Any, q: int, mask: int, share: float, position: int, value: float) -> None:
    tag = 1 if i[q + at.LOW_COUNT] == 0 or value <= f[i[q + at.LOW_VALUES]] else 0
    add_to_heap(f, i, q, mask, tag, key_of(value, tag), position)
    rebalance(f, i, q, mask, share)


@compiled
def quantile_pop(f: Any, i: Any, q: int, mask: int, share: float, position: int) -> None:
    place = i[i[q + at.PLACES] + (position & mask)]
    remove_from_heap(f, i, q, mask, place & 1, place >> 1)
    rebalance(f, i, q, mask, share)


@compiled
def quantile_replace(f: Any, i: Any, q: int, mask: int, oldest: int, position: int, value: float) -> None:
    """Pop and push in one: sizes stay, so at most one sample changes heaps."""
    place = i[i[q + at.PLACES] + (oldest & mask)]
    tag = place & 1
    index = place >> 1
    other = 1 - tag
    key = key_of(value, tag)
    other_top = i[q + at.HIGH_VALUES + other]
    if i[q + at.HIGH_COUNT + other] > 0 and -key < f[other_top]:
        # It belongs to the other heap, whose top takes the place that became free.
        top_key = f[other_top]
        top_position = i[i[q + at.HIGH_POSITIONS + other]]
        f[i[q + at.HIGH_VALUES + tag] + index] = -top_key
        i[i[q + at.HIGH_POSITIONS + tag] + index] = top_position
        sift_up(f, i, q, mask, tag, index)
        f[other_top] = -key
        i[i[q + at.HIGH_POSITIONS + other]] = position
        sift_down(f, i, q, mask, other, 0)
    else:
        settle(f, i, q, mask, tag, index, key, position)


@compiled
def median(f: Any, i: Any, q: int) -> float:
    low: float = f[i[q + at.LOW_VALUES]]
    if quantile_size(i, q) & 1:
        return low
    high: float = -f[i[q + at.HIGH_VALUES]]
    return (low + high) / 2.0


@compiled
def quantile(f: Any, i: Any, q: int, share: float) -> float:
    """NumPy's default percentile, in the order of operations of its lerp."""
    index = share * float(quantile_size(i, q) - 1)
    weight = index - math.floor(index)
    below: float = f[i[q + at.LOW_VALUES]]
    if i[q + at.HIGH_COUNT] == 0:
        return below
    above: float = -f[i[q + at.HIGH_VALUES]]
    gap = above - below
    return above - gap * (1.0 - weight) if weight >= 0.5 else below + gap * weight


@compiled
def maximum_push(f: Any, i: Any, m: int, mask: int, position: int, value: float) -> None:
    end = i[m + at.QUEUE_END]
    first = i[m + at.QUEUE_FIRST]
    values = i[m + at.QUEUE_VALUES]
    while end > first and f[values + ((end - 1) & mask)] <= value:
        end -= 1
    f[values + (end & mask)] = value
    i[i[m + at.QUEUE_POSITIONS] + (end & mask)] = position
    i[m + at.QUEUE_END] = end + 1


@compiled
def maximum_drop(i: Any, m: int, mask: int, position: int) -> None:
    """Drop what lies before `position`."""
    positions = i[m + at.QUEUE_POSITIONS]
    first = i[m + at.QUEUE_FIRST]
    while first < i[m + at.QUEUE_END] and i[positions + (first & mask)] < position:
        first += 1
    i[m + at.QUEUE_FIRST] = first
