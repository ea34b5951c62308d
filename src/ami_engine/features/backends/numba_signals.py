"""The signal features for numba: cpp/include/ami/signals.hpp, with its bits."""

from __future__ import annotations

from typing import Any, Final

from ami_engine.features.backends import numba_layout as at
from ami_engine.features.backends.numba_moments import sum_add
from ami_engine.features.backends.numba_order import quantile_size
from ami_engine.features.backends.numba_rank import rank_doubled, rank_erase, rank_insert, rank_replace
from ami_engine.features.backends.numba_rolling import compiled, compiled_apart

SPLITTER: Final = 134217729.0  # 2^27 + 1: Veltkamp's, which halves a double's digits


@compiled
def mid_place(i: Any, number: int) -> int:
    place: int = i[at.SIGNAL_MIDS] + (number & i[at.SIGNAL_MIDS_MASK])
    return place


@compiled
def sum_place(i: Any, number: int) -> int:
    place: int = i[at.SIGNAL_SUMS] + 3 * (number & i[at.SIGNAL_SUMS_MASK])
    return place


@compiled
def add_to_mids(f: Any, i: Any, value: float) -> None:
    if not sum_add(f, at.MIDS_SUM, value):
        i[at.MIDS_SUM_IS_EXACT] = 0


@compiled_apart
def sum_mids_anew(f: Any, i: Any, number: int) -> None:
    """Where the mids are too far apart for a sum of three doubles: from the window itself."""
    for k in range(3):
        f[at.MIDS_SUM + k] = 0.0
    i[at.MIDS_SUM_IS_EXACT] = 1
    for k in range(number + 1 - min(number + 1, i[at.MA_STEPS]), number + 1):
        add_to_mids(f, i, f[mid_place(i, k)])


@compiled
def settle_sum(f: Any) -> None:
    """Make the first part of the sum the nearest double to all but the last one."""
    high = f[at.MIDS_SUM] + f[at.MIDS_SUM + 1]
    virtual = high - f[at.MIDS_SUM]
    f[at.MIDS_SUM + 1] = (f[at.MIDS_SUM] - (high - virtual)) + (f[at.MIDS_SUM + 1] - virtual)
    f[at.MIDS_SUM] = high


@compiled
def less_mids(f: Any, count: float, mid: float) -> float:
    """Return the sum less `count` times the mid, whose halves give exact products."""
    scaled = SPLITTER * mid
    upper = scaled - (scaled - mid)
    lower = mid - upper
    less: float = (((f[at.MIDS_SUM] - count * upper) - count * lower) + f[at.MIDS_SUM + 1]) + f[at.MIDS_SUM + 2]
    return less


@compiled
def add_signal_mid(f: Any, i: Any, number: int, mid: float) -> None:
    """Add a mid that `number` others came before."""
    ma_steps = i[at.MA_STEPS]
    lag = i[at.TREND_LAG_STEPS]
    f[mid_place(i, number)] = mid
    if number >= ma_steps:
        # Prices are most often so near to each other that their difference is a double.
        oldest = f[mid_place(i, number - ma_steps)]
        change = mid - oldest
        virtual = change - mid
        rest = (mid - (change - virtual)) + (-oldest - virtual)
        add_to_mids(f, i, change)
        if rest != 0.0:
            add_to_mids(f, i, rest)
    else:
        add_to_mids(f, i, mid)
    if not i[at.MIDS_SUM_IS_EXACT]:
        sum_mids_anew(f, i, number)
    settle_sum(f)
    now = sum_place(i, number)
    for k in range(3):
        f[now + k] = f[at.MIDS_SUM + k]
    if number >= i[at.MOMENTUM_STEPS]:
        before = f[mid_place(i, number - i[at.MOMENTUM_STEPS])]
        f[at.SIGNAL_MOMENTUM] = (mid - before) / before
    if number + 1 >= ma_steps:
        f[at.SIGNAL_REVERSION] = less_mids(f, float(ma_steps), mid) / (float(ma_steps) * mid)
    if number + 1 >= ma_steps + lag:
        then = sum_place(i, number - lag)
        change = ((f[now] - f[then]) + (f[now + 1] - f[then + 1])) + (f[now + 2] - f[then + 2])
        f[at.SIGNAL_TREND] = abs(change) / ((float(ma_steps) * float(lag)) * mid)


@compiled
def spread_at(f: Any, i: Any, number: int) -> float:
    """Return the spread that came with a mid of the regime window: the median's heaps hold it."""
    place = i[i[at.SPREADS + at.PLACES] + (number & i[at.MID_MASK])]
    tag = place & 1
    key: float = f[i[at.SPREADS + at.HIGH_VALUES + tag] + (place >> 1)]
    return key if tag else -key


@compiled
def write_share(f: Any, i: Any, spread: float, size: int) -> None:
    f[at.SIGNAL_SPREAD] = float(rank_doubled(f, i, at.RANKS, spread)) / float(2 * size)


@compiled
def add_signals(f: Any, i: Any, number: int, mid: float, spread: float, is_full: bool) -> None:
    """Add a mid and its spread; to be called while the quantiles are those before it."""
    if not i[at.HAS_SIGNALS]:
        return
    add_signal_mid(f, i, number, mid)
    size = quantile_size(i, at.SPREADS)
    if is_full:
        rank_replace(f, i, at.RANKS, spread_at(f, i, i[at.FIRST_MID]), spread)
    else:
        rank_insert(f, i, at.RANKS, spread)
        size += 1
    write_share(f, i, spread, size)


@compiled
def drop_signal_spread(f: Any, i: Any) -> None:
    """Drop the regime window's oldest spread; to be called while the quantiles still hold it."""
    if i[at.HAS_SIGNALS]:
        rank_erase(f, i, at.RANKS, spread_at(f, i, i[at.FIRST_MID]))


@compiled
def rank_again(f: Any, i: Any) -> None:
    """To be called when spreads were dropped."""
    if i[at.HAS_SIGNALS]:
        write_share(f, i, spread_at(f, i, i[at.MIDS_SEEN] - 1), quantile_size(i, at.SPREADS))


@compiled
def write_signals(f: Any, i: Any, row: Any) -> None:
    if i[at.HAS_SIGNALS]:
        for k in range(4):
            row[at.ROW_SIGNALS + k] = f[at.SIGNAL_MOMENTUM + k]
