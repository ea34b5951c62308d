"""How many samples of a window lie below a value: cpp/include/ami/rolling_rank.hpp for numba.

The distinct values of the window in order, in blocks, beside each how many samples of its block are not above it, and a
Fenwick tree over the blocks. A state with room for at most `MOST_FLAT` mids has one block.
"""

from __future__ import annotations

from typing import Any

from ami_engine.features.backends import numba_layout as at
from ami_engine.features.backends.numba_rolling import compiled, compiled_apart


@compiled
def find_block(f: Any, i: Any, r: int, value: float) -> int:
    """Return the number, in order, of the last block that begins at `value` or below it."""
    lows = i[r + at.RANK_LOWS]
    place = 0
    left = i[r + at.RANK_BLOCKS]
    while left > 1:
        half = left >> 1
        if f[lows + place + half] <= value:
            place += half
        left -= half
    return place


@compiled
def place_in(f: Any, i: Any, r: int, block: int, value: float) -> int:
    """Return the first entry of a block that is not below `value`."""
    values = i[r + at.RANK_VALUES] + block * i[r + at.RANK_WIDTH]
    low = values
    left = i[i[r + at.RANK_COUNTS] + block]
    while left > 0:
        half = left >> 1
        if f[low + half] < value:
            low += left - half
        left = half
    place: int = low - values
    return place


@compiled
def below(i: Any, upto: int, place: int) -> int:
    """Return how many samples of a block stand before the entry at `place`."""
    count: int = i[upto + place - 1] if place > 0 else 0
    return count


@compiled
def before_block(i: Any, r: int, number: int) -> int:
    total = 0
    if i[r + at.RANK_BLOCKS] > 1:
        while number > 0:
            total += i[i[r + at.RANK_TREE] + number]
            number &= number - 1
    return total


@compiled
def count_in_tree(i: Any, r: int, number: int, change: int) -> None:
    blocks = i[r + at.RANK_BLOCKS]
    if blocks == 1:
        return
    number += 1
    while number <= blocks:
        i[i[r + at.RANK_TREE] + number] += change
        number += number & -number


@compiled_apart
def make_tree(i: Any, r: int) -> None:
    blocks = i[r + at.RANK_BLOCKS]
    tree = i[r + at.RANK_TREE]
    for number in range(1, blocks + 1):
        block = i[i[r + at.RANK_ORDER] + number - 1]
        upto = i[r + at.RANK_UPTO] + block * i[r + at.RANK_WIDTH]
        i[tree + number] = below(i, upto, i[i[r + at.RANK_COUNTS] + block])
    for number in range(1, blocks + 1):
        parent = number + (number & -number)
        if parent <= blocks:
            i[tree + parent] += i[tree + number]


@compiled_apart
def join(f: Any, i: Any, r: int, number: int) -> None:
    """Join a block to the next one, if there is one and both fit well."""
    blocks = i[r + at.RANK_BLOCKS]
    if number + 1 >= blocks:
        return
    order = i[r + at.RANK_ORDER]
    counts = i[r + at.RANK_COUNTS]
    width = i[r + at.RANK_WIDTH]
    block = i[order + number]
    other = i[order + number + 1]
    count = i[counts + block]
    moved = i[counts + other]
    if count + moved > at.RANK_JOINED:
        return
    values = i[r + at.RANK_VALUES]
    upto = i[r + at.RANK_UPTO]
    first = below(i, upto + block * width, count)
    for k in range(moved):
        f[values + block * width + count + k] = f[values + other * width + k]
        i[upto + block * width + count + k] = i[upto + other * width + k] + first
    i[counts + block] = count + moved
    i[i[r + at.RANK_FREE] + i[r + at.RANK_FREE_COUNT]] = other
    i[r + at.RANK_FREE_COUNT] += 1
    for k in range(number + 1, blocks - 1):
        i[order + k] = i[order + k + 1]
        f[i[r + at.RANK_LOWS] + k] = f[i[r + at.RANK_LOWS] + k + 1]
    i[r + at.RANK_BLOCKS] = blocks - 1
    make_tree(i, r)


@compiled_apart
def cut(f: Any, i: Any, r: int, number: int) -> None:
    """Cut a full block in two."""
    order = i[r + at.RANK_ORDER]
    counts = i[r + at.RANK_COUNTS]
    width = i[r + at.RANK_WIDTH]
    values = i[r + at.RANK_VALUES]
    upto = i[r + at.RANK_UPTO]
    i[r + at.RANK_FREE_COUNT] -= 1
    other = i[i[r + at.RANK_FREE] + i[r + at.RANK_FREE_COUNT]]
    block = i[order + number]
    kept = i[counts + block] >> 1
    moved = i[counts + block] - kept
    first = below(i, upto + block * width, kept)
    for k in range(moved):
        f[values + other * width + k] = f[values + block * width + kept + k]
        i[upto + other * width + k] = i[upto + block * width + kept + k] - first
    i[counts + block] = kept
    i[counts + other] = moved
    for k in range(i[r + at.RANK_BLOCKS], number + 1, -1):
        i[order + k] = i[order + k - 1]
        f[i[r + at.RANK_LOWS] + k] = f[i[r + at.RANK_LOWS] + k - 1]
    i[order + number + 1] = other
    f[i[r + at.RANK_LOWS] + number + 1] = f[values + other * width]
    i[r + at.RANK_BLOCKS] += 1
    make_tree(i, r)
    # A small neighbour and one of the halves may fit into one block now.
    join(f, i, r, number + 1)
    if number > 0:
        join(f, i, r, number - 1)


@compiled
def rank_insert(f: Any, i: Any, r: int, value: float) -> None:
    width = i[r + at.RANK_WIDTH]
    counts = i[r + at.RANK_COUNTS]
    number = find_block(f, i, r, value)
    block = i[i[r + at.RANK_ORDER] + number]
    place = place_in(f, i, r, block, value)
    is_known = place < i[counts + block] and f[i[r + at.RANK_VALUES] + block * width + place] == value
    if not is_known and i[counts + block] == width:
        cut(f, i, r, number)
        number = find_block(f, i, r, value)
        block = i[i[r + at.RANK_ORDER] + number]
        place = place_in(f, i, r, block, value)
    count_in_tree(i, r, number, 1)
    values = i[r + at.RANK_VALUES] + block * width
    upto = i[r + at.RANK_UPTO] + block * width
    if not is_known:
        count = i[counts + block]
        i[counts + block] = count + 1
        for k in range(count, place, -1):
            f[values + k] = f[values + k - 1]
            i[upto + k] = i[upto + k - 1]
        f[values + place] = value
        i[upto + place] = below(i, upto, place)
    for k in range(place, i[counts + block]):
        i[upto + k] += 1


@compiled
def rank_erase(f: Any, i: Any, r: int, value: float) -> None:
    """Take out a value, which must be in the window."""
    width = i[r + at.RANK_WIDTH]
    counts = i[r + at.RANK_COUNTS]
    number = find_block(f, i, r, value)
    block = i[i[r + at.RANK_ORDER] + number]
    place = place_in(f, i, r, block, value)
    count_in_tree(i, r, number, -1)
    values = i[r + at.RANK_VALUES] + block * width
    upto = i[r + at.RANK_UPTO] + block * width
    for k in range(place, i[counts + block]):
        i[upto + k] -= 1
    if i[upto + place] != below(i, upto, place):
        return
    i[counts + block] -= 1
    for k in range(place, i[counts + block]):
        f[values + k] = f[values + k + 1]
        i[upto + k] = i[upto + k + 1]
    if i[r + at.RANK_BLOCKS] > 1:
        join(f, i, r, number)
        if number > 0:
            join(f, i, r, number - 1)


@compiled
def rank_replace(f: Any, i: Any, r: int, oldest: float, value: float) -> None:
    """Take out a value and put in another one: in one block only what lies between them moves."""
    if value == oldest:
        return
    if i[r + at.RANK_BLOCKS] > 1:
        rank_erase(f, i, r, oldest)
        rank_insert(f, i, r, value)
        return
    block = i[i[r + at.RANK_ORDER]]
    values = i[r + at.RANK_VALUES] + block * i[r + at.RANK_WIDTH]
    upto = i[r + at.RANK_UPTO] + block * i[r + at.RANK_WIDTH]
    source = place_in(f, i, r, block, oldest)
    target = place_in(f, i, r, block, value)
    is_known = target < i[i[r + at.RANK_COUNTS] + block] and f[values + target] == value
    stays = i[upto + source] - below(i, upto, source) > 1
    if is_known and stays:
        for k in range(target, source):
            i[upto + k] += 1
        for k in range(source, target):
            i[upto + k] -= 1
    elif is_known or stays:
        rank_erase(f, i, r, oldest)
        rank_insert(f, i, r, value)
    elif target <= source:
        for k in range(source, target, -1):
            f[values + k] = f[values + k - 1]
            i[upto + k] = i[upto + k - 1] + 1
        f[values + target] = value
        i[upto + target] = below(i, upto, target) + 1
    else:
        for k in range(source, target - 1):
            f[values + k] = f[values + k + 1]
            i[upto + k] = i[upto + k + 1] - 1
        f[values + target - 1] = value
        i[upto + target - 1] = below(i, upto, target - 1) + 1


@compiled
def rank_doubled(f: Any, i: Any, r: int, value: float) -> int:
    """Return twice the average rank, counted from 1, of a value in the window."""
    number = find_block(f, i, r, value)
    block = i[i[r + at.RANK_ORDER] + number]
    place = place_in(f, i, r, block, value)
    upto = i[r + at.RANK_UPTO] + block * i[r + at.RANK_WIDTH]
    less = below(i, upto, place)
    doubled: int = 2 * (before_block(i, r, number) + less) + (i[upto + place] - less) + 1
    return doubled
