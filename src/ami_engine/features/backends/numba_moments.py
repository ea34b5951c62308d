"""Deviations of windows for numba, by sums of integers: cpp/include/ami/exact_moments.hpp, with its bits.

A ring holds the sum of all samples and that of their squares after each sample: five limbs. What a window holds is the
difference of two of them. Element p of a ring lies at its offset + (p & mask) · 5; element 0 stands before all samples.
"""

from __future__ import annotations

import math
from typing import Any, Final

from ami_engine.features.backends import numba_layout as at
from ami_engine.features.backends.numba_rolling import compiled, compiled_apart
from ami_engine.features.backends.numba_wide import (
    add_far_moments,
    add_near_moments,
    product_less,
    spread,
    subtract_pair,
    subtract_wide,
)

LIMBS: Final = 5
UNIT: Final = 2.0**-66
PER_UNIT: Final = 2.0**66
NEAR: Final = 0.125
TWO_32: Final = 2.0**32
TWO_64: Final = 2.0**64
LOW_HALF: Final = 0xFFFFFFFF
NO_SIGN: Final = 2**63 - 1


@compiled
def limb_as_double(limb: int) -> float:
    return float((limb >> 32) & LOW_HALF) * TWO_32 + float(limb & LOW_HALF)


@compiled
def wide_as_double(low: int, mid: int, high: int) -> float:
    return (limb_as_double(high) * TWO_64 + limb_as_double(mid)) * TWO_64 + limb_as_double(low)


@compiled_apart
def far_units_of(value: float) -> Any:
    magnitude = abs(value) * 4.0  # in units of 2^64 grid points
    high = int(magnitude)
    rest = (magnitude - float(high)) * TWO_32
    mid = int(rest)
    low = int((rest - float(mid)) * TWO_32)
    if value < 0.0:
        return subtract_pair(0, 0, (mid << 32) | low, high)
    return (mid << 32) | low, high


@compiled
def units_of(value: float) -> Any:
    if abs(value) < NEAR:
        units = int(value * PER_UNIT)
        return units, units >> 63
    return far_units_of(value)


@compiled
def moments_push(i: Any, m: int, value: float) -> None:
    end = i[m + at.END]
    mask = i[m + at.MASK]
    old = i[m + at.ITEMS] + ((end - 1) & mask) * LIMBS
    new = i[m + at.ITEMS] + (end & mask) * LIMBS
    if abs(value) < NEAR:
        sums = add_near_moments(i[old], i[old + 1], i[old + 2], i[old + 3], i[old + 4], int(value * PER_UNIT))
    else:
        units = far_units_of(value)
        sums = add_far_moments(i[old], i[old + 1], i[old + 2], i[old + 3], i[old + 4], units[0], units[1])
    i[new] = sums[0]
    i[new + 1] = sums[1]
    i[new + 2] = sums[2]
    i[new + 3] = sums[3]
    i[new + 4] = sums[4]
    i[m + at.END] = end + 1
    i[m + at.FIRST] = max(i[m + at.FIRST], end - mask)


@compiled
def moments_size(i: Any, m: int) -> int:
    """How many samples there were."""
    size: int = i[m + at.END] - 1
    return size


@compiled
def newest_place(i: Any, m: int) -> int:
    place: int = i[m + at.ITEMS] + ((i[m + at.END] - 1) & i[m + at.MASK]) * LIMBS
    return place


@compiled
def place_before(i: Any, m: int, count: int) -> int:
    """Return where the sums before the last `count` samples stand."""
    place: int = i[m + at.ITEMS] + ((i[m + at.END] - 1 - count) & i[m + at.MASK]) * LIMBS
    return place


@compiled_apart
def exact_root(i: Any, m: int, count: int) -> float:
    a = newest_place(i, m)
    b = place_before(i, m, count)
    total = subtract_pair(i[a], i[a + 1], i[b], i[b + 1])
    squares = subtract_wide(i[a + 2], i[a + 3], i[a + 4], i[b + 2], i[b + 3], i[b + 4])
    v = spread(total[0], total[1], squares[0], squares[1], squares[2], count)
    return math.sqrt(wide_as_double(v[0], v[1], v[2]))


@compiled
def root_of_spread(i: Any, m: int, count: int, most_mean: float) -> float:
    """Return `count` times the standard deviation of the last `count` samples, in units of the grid.

    Doubles will do for it while the square of the mean is no more than `most_mean` of the mean square.
    """
    a = newest_place(i, m)
    b = place_before(i, m, count)
    total = subtract_pair(i[a], i[a + 1], i[b], i[b + 1])
    squares = subtract_pair(i[a + 2], i[a + 3], i[b + 2], i[b + 3])
    if total[1] != total[0] >> 63 or squares[1] <= 0 or i[a + 4] != i[b + 4]:
        return exact_root(i, m, count)
    root = float(total[0])
    from_squares = (float(squares[1]) * TWO_64 + float((squares[0] >> 1) & NO_SIGN) * 2.0) * float(count)
    from_mean = root * root
    if from_mean > most_mean * from_squares:
        return exact_root(i, m, count)
    return math.sqrt(from_squares - from_mean)


@compiled
def moments_std(i: Any, m: int, count: int) -> float:
    """Return the standard deviation of the last `count` samples."""
    return root_of_spread(i, m, count, 0.5) * UNIT / float(max(1, count))


@compiled
def moments_z(i: Any, m: int, value: float, count: int, least: float) -> float:
    """Return at how many standard deviations from the mean `value` is; 0 where one is below `least`."""
    # Deviations differ little from each other: three digits may be lost to their mean, of the sixteen.
    root = root_of_spread(i, m, count, 1.0 - 2.0**-10)
    if root < least * PER_UNIT * float(count):
        return 0.0
    a = newest_place(i, m)
    b = place_before(i, m, count)
    total = subtract_pair(i[a], i[a + 1], i[b], i[b + 1])
    units = units_of(value)
    gap = product_less(units[0], units[1], count, total[0], total[1])
    if gap[1] == gap[0] >> 63:
        return float(gap[0]) / root
    return (float(gap[1]) * TWO_64 + limb_as_double(gap[0])) / root


# A sum that numbers join and leave, kept as three doubles that together are the sum itself.


@compiled
def sum_add(f: Any, s: int, value: float) -> bool:
    """Add to the sum at f[s]; return False once digits were lost, which takes numbers 48 digits apart."""
    hi = f[s] + value
    virtual = hi - f[s]
    rest = (f[s] - (hi - virtual)) + (value - virtual)
    f[s] = hi
    mid = f[s + 1] + rest
    virtual = mid - f[s + 1]
    last = (f[s + 1] - (mid - virtual)) + (rest - virtual)
    f[s + 1] = mid
    if last == 0.0:
        return True
    low = f[s + 2] + last
    virtual = low - f[s + 2]
    lost = (f[s + 2] - (low - virtual)) + (last - virtual)
    f[s + 2] = low
    return bool(lost == 0.0)


@compiled
def sum_value(f: Any, s: int) -> float:
    return float((f[s] + f[s + 1]) + f[s + 2])
