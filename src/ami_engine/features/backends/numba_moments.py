"""Deviations of windows for numba, by sums of integers: cpp/include/ami/exact_moments.hpp, with its bits.

A window's sum of its samples and that of their squares are five limbs, from i[m] on. The samples that join and leave
stand in a ring of floats, whose element p lies at its offset + (p & mask).
"""

from __future__ import annotations

import math
from typing import Any, Final

from ami_engine.features.backends import numba_layout as at
from ami_engine.features.backends.numba_rolling import compiled, compiled_apart
from ami_engine.features.backends.numba_wide import product_less, replace_far, replace_near, spread, subtract_pair

LIMBS: Final = 5
UNIT: Final = 2.0**-66
PER_UNIT: Final = 2.0**66
NEAR: Final = 0.0625
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
def ring_slot(i: Any, r: int, position: int) -> int:
    """Return where in `f` an element of a ring of samples lies."""
    slot: int = i[r + at.ITEMS] + (position & i[r + at.MASK])
    return slot


@compiled
def ring_push(f: Any, i: Any, r: int, value: float) -> None:
    end = i[r + at.END]
    f[ring_slot(i, r, end)] = value
    i[r + at.END] = end + 1
    i[r + at.FIRST] = max(i[r + at.FIRST], end - i[r + at.MASK])


@compiled
def moments_replace(i: Any, m: int, oldest: float, value: float) -> None:
    """Let `value` join and `oldest` leave; 0 stands for none."""
    if abs(value) < NEAR and abs(oldest) < NEAR:
        joins = int(value * PER_UNIT)
        leaves = int(oldest * PER_UNIT)
        sums = replace_near(i[m], i[m + 1], i[m + 2], i[m + 3], i[m + 4], joins, leaves)
    else:
        new = units_of(value)
        old = units_of(oldest)
        sums = replace_far(i[m], i[m + 1], i[m + 2], i[m + 3], i[m + 4], new[0], new[1], old[0], old[1])
    i[m] = sums[0]
    i[m + 1] = sums[1]
    i[m + 2] = sums[2]
    i[m + 3] = sums[3]
    i[m + 4] = sums[4]


@compiled_apart
def exact_root(i: Any, m: int, count: int) -> float:
    v = spread(i[m], i[m + 1], i[m + 2], i[m + 3], i[m + 4], count)
    return math.sqrt(wide_as_double(v[0], v[1], v[2]))


@compiled
def root_of_spread(i: Any, m: int, count: int, most_mean: float) -> float:
    """Return `count` times the standard deviation of the `count` samples, in units of the grid.

    Doubles will do for it while the square of the mean is no more than `most_mean` of the mean square.
    """
    if i[m + 1] != i[m] >> 63 or i[m + 3] <= 0 or i[m + 4] != 0:
        return exact_root(i, m, count)
    root = float(i[m])
    from_squares = (float(i[m + 3]) * TWO_64 + float((i[m + 2] >> 1) & NO_SIGN) * 2.0) * float(count)
    from_mean = root * root
    if from_mean > most_mean * from_squares:
        return exact_root(i, m, count)
    return math.sqrt(from_squares - from_mean)


@compiled
def moments_std(i: Any, m: int, count: int) -> float:
    """Return the standard deviation of the `count` samples."""
    return root_of_spread(i, m, count, 0.5) * UNIT / float(max(1, count))


@compiled
def moments_z(i: Any, m: int, value: float, count: int, least: float) -> float:
    """Return at how many standard deviations from the mean `value` is; 0 where one is below `least`."""
    # Deviations differ little from each other: three digits may be lost to their mean, of the sixteen.
    root = root_of_spread(i, m, count, 1.0 - 2.0**-10)
    if root < least * PER_UNIT * float(count):
        return 0.0
    units = units_of(value)
    gap = product_less(units[0], units[1], count, i[m], i[m + 1])
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
