"""The two flat arrays of a numba engine: made, grown, and checked when they come from a snapshot."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ami_engine.features.backends import numba_layout as at
from ami_engine.features.feature_config import FeatureConfig

__all__ = ["State", "first_state", "grown", "pack", "unpack"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_FIRST_CAPACITY: Final = 512
_MAX_CAPACITY: Final = 2**40
# With room for more mids than these, ranks are kept in several blocks.
_MOST_FLAT: Final = 512
_RANK_WIDTH: Final = 128
_CAPACITIES: Final = struct.Struct("<qq")

_SAMPLES: Final = (at.RETURNS, at.RUNS)
_MOMENTS: Final = (at.VOL_MOMENTS, at.REGIME_MOMENTS, at.RUN_MOMENTS, at.RUNS_MOMENTS)
_CUTS: Final = (at.FIRST, at.CUT_L, at.CUT_R, at.CUT_A, at.CUT_B, at.END)
_QUANTILES: Final = ((at.SPREADS, at.MEDIAN), (at.DEPTHS, at.TENTH))

# What of the integers the events move; the rest is parameters and places.
_MOVING: Final = [
    *(at.LAST_TS, at.LAST_BOOK_TS, at.HAS_BOOK, at.FIRST_MID, at.MIDS_SEEN, at.OPEN_TRADES, at.FLOW_IS_EXACT),
    at.MIDS_SUM_IS_EXACT,
    *(block + cut for block in _SAMPLES for cut in (at.FIRST, at.END)),
    *(block + limb for block in _MOMENTS for limb in range(at.MOMENTS_INTS)),
    *(at.TRADES + cut for cut in _CUTS),
    *(block + count for block, _ in _QUANTILES for count in (at.HIGH_COUNT, at.LOW_COUNT)),
    *(at.STALENESS + at.QUEUE_FIRST, at.STALENESS + at.QUEUE_END),
]


class State(NamedTuple):
    """The arrays, and how many mids and trades of the regime window they have room for (powers of two)."""

    f: FloatArray
    i: IntArray
    mid_capacity: int
    trade_capacity: int


class _Ring(NamedTuple):
    """A ring in `f` (or `i`): where the integers keep its offset, and between which positions it holds something."""

    in_floats: bool
    offset: int
    first: int
    end: int
    width: int
    capacity: int


def _power_of_two(size: int) -> int:
    return 1 << max(3, (size - 1).bit_length())


def _longest(config: FeatureConfig) -> int:
    """Returns that the windows by count alone look back on."""
    return max(config.vol_window, config.sigma_short_steps)


def _rings(config: FeatureConfig, mids: int, trades: int) -> list[_Ring]:
    run_count = config.sigma_long_steps + 2 - config.sigma_short_steps
    pairs = max(mids, _power_of_two(_longest(config)))
    rings = [
        _Ring(True, at.RETURNS + at.ITEMS, at.RETURNS + at.FIRST, at.RETURNS + at.END, 1, pairs),
        _Ring(True, at.RUNS + at.ITEMS, at.RUNS + at.FIRST, at.RUNS + at.END, 1, _power_of_two(run_count)),
        _Ring(True, at.TRADES + at.ITEMS, at.TRADES + at.FIRST, at.TRADES + at.END, 2 * at.TRADE_SUMS, trades),
        _Ring(True, at.PAIR_FLOWS, at.RETURNS + at.FIRST, at.RETURNS + at.END, 1, pairs),
    ]
    for block, _ in _QUANTILES:
        rings += [
            _Ring(True, block + at.HIGH_VALUES, at.ZERO, block + at.HIGH_COUNT, 1, mids),
            _Ring(True, block + at.LOW_VALUES, at.ZERO, block + at.LOW_COUNT, 1, mids),
            _Ring(False, block + at.HIGH_POSITIONS, at.ZERO, block + at.HIGH_COUNT, 1, mids),
            _Ring(False, block + at.LOW_POSITIONS, at.ZERO, block + at.LOW_COUNT, 1, mids),
            _Ring(False, block + at.PLACES, at.FIRST_MID, at.MIDS_SEEN, 1, mids),
        ]
    queue = at.STALENESS
    return [
        *rings,
        _Ring(True, queue + at.QUEUE_VALUES, queue + at.QUEUE_FIRST, queue + at.QUEUE_END, 1, mids),
        _Ring(False, queue + at.QUEUE_POSITIONS, queue + at.QUEUE_FIRST, queue + at.QUEUE_END, 1, mids),
        _Ring(False, at.MID_TIMES, at.FIRST_MID, at.MIDS_SEEN, 1, mids),
        _Ring(False, at.TRADE_PLACES, at.TRADES + at.FIRST, at.TRADES + at.END, 2, trades),
    ]


class _Area(NamedTuple):
    """An array of the signals: where the integers keep its offset, and how long it is."""

    in_floats: bool
    offset: int
    size: int
    is_kept: bool = False  # goes on as it is in a larger state


def _power_above(lag: int) -> int:
    return 1 << lag.bit_length()


def _rank_shape(mids: int) -> tuple[int, int]:
    """Return how many blocks there are for the ranks of so many mids, and how many values a block holds."""
    return (1, mids) if mids <= _MOST_FLAT else (2 * mids // at.RANK_JOINED + 2, _RANK_WIDTH)


def _signal_areas(config: FeatureConfig, mids: int) -> list[_Area]:
    if not config.signals:
        return []
    blocks, width = _rank_shape(mids)
    ranks = at.RANKS
    return [
        _Area(True, at.SIGNAL_MIDS, _power_above(max(config.momentum_steps, config.ma_steps)), is_kept=True),
        _Area(True, at.SIGNAL_SUMS, 3 * _power_above(config.trend_lag_steps), is_kept=True),
        _Area(True, ranks + at.RANK_VALUES, blocks * width),
        _Area(True, ranks + at.RANK_LOWS, blocks),
        _Area(False, ranks + at.RANK_UPTO, blocks * width),
        _Area(False, ranks + at.RANK_COUNTS, blocks),
        _Area(False, ranks + at.RANK_ORDER, blocks),
        _Area(False, ranks + at.RANK_TREE, blocks + 1),
        _Area(False, ranks + at.RANK_FREE, blocks),
    ]


def _sizes(config: FeatureConfig, rings: list[_Ring], areas: list[_Area]) -> tuple[int, int]:
    """Return how many floats and how many integers the state takes."""
    parts = [(ring.in_floats, ring.width * ring.capacity) for ring in rings]
    parts += [(area.in_floats, area.size) for area in areas]
    floats = sum(size for in_floats, size in parts if in_floats)
    ints = sum(size for in_floats, size in parts if not in_floats)
    return at.WEIGHTS + config.levels + floats, at.HEADER_INTS + ints


def _empty(config: FeatureConfig, mids: int, trades: int) -> State:
    rings, areas = _rings(config, mids, trades), _signal_areas(config, mids)
    float_count, int_count = _sizes(config, rings, areas)
    f = np.zeros(float_count, np.float64)
    i = np.zeros(int_count, np.int64)
    f[at.TICK_SIZE] = config.tick_size
    f[at.COST_TICKS] = config.cost_ticks
    f[at.WEIGHTS : at.WEIGHTS + config.levels] = config.level_weights()
    i[at.WINDOW_NS] = config.window_ns
    i[at.WINDOW_STEPS] = config.window_steps
    i[at.VOL_WINDOW] = config.vol_window
    i[at.RUN_LENGTH] = config.sigma_short_steps
    i[at.RUN_COUNT] = config.sigma_long_steps + 2 - config.sigma_short_steps
    i[at.LEVELS] = config.levels
    i[at.MID_MASK] = mids - 1
    i[at.TRADE_MASK] = trades - 1
    next_float, next_int = at.WEIGHTS + config.levels, at.HEADER_INTS
    for ring in rings:
        i[ring.offset] = next_float if ring.in_floats else next_int
        if ring.in_floats:
            next_float += ring.width * ring.capacity
        else:
            next_int += ring.width * ring.capacity
    for area in areas:
        i[area.offset] = next_float if area.in_floats else next_int
        if area.in_floats:
            next_float += area.size
        else:
            next_int += area.size
    if config.signals:
        _set_signals(i, config, mids)
    for block, ring in zip((*_SAMPLES, at.TRADES), rings, strict=False):
        i[block + at.MASK] = ring.capacity - 1
    i[at.FLOW_IS_EXACT] = 1
    return State(f, i, mids, trades)


def _set_signals(i: IntArray, config: FeatureConfig, mids: int) -> None:
    i[at.HAS_SIGNALS] = i[at.MIDS_SUM_IS_EXACT] = 1
    i[at.MOMENTUM_STEPS], i[at.MA_STEPS], i[at.TREND_LAG_STEPS] = config.signal_steps
    i[at.SIGNAL_MIDS_MASK] = _power_above(max(config.momentum_steps, config.ma_steps)) - 1
    i[at.SIGNAL_SUMS_MASK] = _power_above(config.trend_lag_steps) - 1
    i[at.RANKS + at.RANK_WIDTH] = _rank_shape(mids)[1]


def _rank_spreads(state: State) -> None:
    """Make the ranks anew from the spreads of the regime window, which the median's heaps hold."""
    f, i, r = state.f, state.i, at.RANKS
    if not i[at.HAS_SIGNALS]:
        return
    parts = [
        sign * f[i[at.SPREADS + values] :][: i[at.SPREADS + count]]
        for sign, values, count in ((-1.0, at.HIGH_VALUES, at.HIGH_COUNT), (1.0, at.LOW_VALUES, at.LOW_COUNT))
    ]
    distinct, times = np.unique(np.concatenate(parts), return_counts=True)
    _require(np.isfinite(distinct).all())
    blocks, width = _rank_shape(state.mid_capacity)
    share = width if blocks == 1 else at.RANK_JOINED
    used = max(1, -(-len(distinct) // share))
    sizes = np.zeros(used, np.int64)
    for block in range(used):
        part = slice(block * share, (block + 1) * share)
        count = len(distinct[part])
        i[i[r + at.RANK_COUNTS] + block] = count
        f[i[r + at.RANK_VALUES] + block * width :][:count] = distinct[part]
        i[i[r + at.RANK_UPTO] + block * width :][:count] = times[part].cumsum()
        f[i[r + at.RANK_LOWS] + block] = distinct[part][0] if count else 0.0
        sizes[block] = times[part].sum()
    i[i[r + at.RANK_ORDER] :][:used] = np.arange(used)
    i[r + at.RANK_BLOCKS] = used
    i[r + at.RANK_FREE_COUNT] = blocks - used
    i[i[r + at.RANK_FREE] :][: blocks - used] = np.arange(blocks - 1, used - 1, -1)
    tree = i[i[r + at.RANK_TREE] :][: used + 1]
    for number in range(1, used + 1):  # a node of Fenwick's tree: the sum of the blocks that its lowest bit counts
        tree[number] = sizes[number - (number & -number) : number].sum()


def first_state(config: FeatureConfig) -> State:
    """Return the state before the first event."""
    state = _empty(config, _FIRST_CAPACITY, _FIRST_CAPACITY)
    _rank_spreads(state)
    return state


def grown(config: FeatureConfig, old: State, *, mids: bool = False, trades: bool = False) -> State:
    """Return the same state with room for twice as many mids, or trades."""
    new = _empty(config, old.mid_capacity << mids, old.trade_capacity << trades)
    new.i[_MOVING] = old.i[_MOVING]
    new.f[: at.WEIGHTS] = old.f[: at.WEIGHTS]
    old_rings = _rings(config, old.mid_capacity, old.trade_capacity)
    for before, after in zip(old_rings, _rings(config, new.mid_capacity, new.trade_capacity), strict=True):
        source, target = (old.f, new.f) if before.in_floats else (old.i, new.i)
        positions = np.arange(old.i[before.first], old.i[before.end])
        target[_slots(new.i, after, positions)] = source[_slots(old.i, before, positions)]
    for area in _signal_areas(config, old.mid_capacity):
        if area.is_kept:
            new.f[new.i[area.offset] :][: area.size] = old.f[old.i[area.offset] :][: area.size]
    _rank_spreads(new)
    return new


def _slots(i: IntArray, ring: _Ring, positions: IntArray) -> IntArray:
    starts: IntArray = i[ring.offset] + (positions & (ring.capacity - 1)) * ring.width
    slots: IntArray = starts[:, None] + np.arange(ring.width)
    return slots


def pack(config: FeatureConfig, state: State, row: FloatArray) -> bytes:
    """Return the state and the row as bytes, without the ranks: they follow from the spreads."""
    capacities = _CAPACITIES.pack(state.mid_capacity, state.trade_capacity)
    f, i = state.f.copy(), state.i.copy()
    for area in _signal_areas(config, state.mid_capacity):
        if not area.is_kept:
            (f if area.in_floats else i)[i[area.offset] :][: area.size] = 0
    i[[at.RANKS + at.RANK_BLOCKS, at.RANKS + at.RANK_FREE_COUNT]] = 0
    return b"".join((capacities, row.tobytes(), f.tobytes(), i.tobytes()))


def unpack(config: FeatureConfig, data: bytes) -> tuple[State, FloatArray]:
    """Return the state and the row of `pack`; ValueError unless compiled code may safely work on them."""
    _require(len(data) >= _CAPACITIES.size)
    mids, trades = _CAPACITIES.unpack_from(data)
    for capacity in (mids, trades):
        _require(_FIRST_CAPACITY <= capacity <= _MAX_CAPACITY and capacity & (capacity - 1) == 0)
    width = len(config.feature_names)
    float_count, int_count = _sizes(config, _rings(config, mids, trades), _signal_areas(config, mids))
    _require(len(data) == _CAPACITIES.size + 8 * (width + float_count + int_count))
    floats = np.frombuffer(data, np.float64, width + float_count, _CAPACITIES.size)
    ints = np.frombuffer(data, np.int64, int_count, len(data) - 8 * int_count)
    state = State(floats[width:].copy(), ints.copy(), mids, trades)
    _check(config, state)
    _rank_spreads(state)
    return state, floats[:width].copy()


def _require(holds: bool | np.bool_) -> None:
    if not holds:
        raise ValueError("the snapshot is damaged")


def _check(config: FeatureConfig, state: State) -> None:
    """Refuse integers that would lead compiled code, which checks no bounds, out of its arrays."""
    i = state.i
    fixed = _empty(config, state.mid_capacity, state.trade_capacity).i
    moving = np.zeros(len(i), bool)
    moving[_MOVING] = True
    moving[at.HEADER_INTS :] = True
    _require((i[~moving] == fixed[~moving]).all())
    cuts = i[[at.TRADES + cut for cut in _CUTS]]
    _require(cuts[0] >= 0 and (np.diff(cuts) >= 0).all() and cuts[-1] - cuts[0] <= i[at.TRADES + at.MASK] + 1)
    first, end = int(i[at.FIRST_MID]), int(i[at.MIDS_SEEN])
    _require(0 <= first <= end and (first == end) == (end == 0) and end - first < state.mid_capacity)
    _require(not config.window_steps or end - first <= config.window_steps)
    returns = max(0, end - 1)
    runs = max(0, returns - config.sigma_short_steps + 1)
    _check_samples(i, at.RETURNS, returns, max(_longest(config), end - first - 1))
    _check_samples(i, at.RUNS, runs, int(i[at.RUN_COUNT]))
    for block, share in _QUANTILES:
        _check_quantile(state, block, share, first, end)
    _check_queue(state, first, end)


def _check_samples(i: IntArray, block: int, seen: int, longest: int) -> None:
    first, end = int(i[block + at.FIRST]), int(i[block + at.END])
    _require(end == seen and 0 <= first <= end - min(end, longest) and end - first <= i[block + at.MASK] + 1)


def _check_quantile(state: State, block: int, share: float, first: int, end: int) -> None:
    i, mask, size = state.i, state.mid_capacity - 1, end - first
    counts = (int(i[block + at.HIGH_COUNT]), int(i[block + at.LOW_COUNT]))
    _require(min(counts) >= 0 and sum(counts) == size)
    _require(counts[1] == (int(share * (size - 1)) + 1 if size else 0))
    seen = []
    for tag, count in enumerate(counts):
        offset = i[block + at.HIGH_POSITIONS + tag]
        positions = i[offset : offset + count]
        places = i[i[block + at.PLACES] + (positions & mask)]
        _require((places == 2 * np.arange(count) + tag).all())
        seen.append(positions)
    _require(np.array_equal(np.sort(np.concatenate(seen)), np.arange(first, end)))


def _check_queue(state: State, first: int, end: int) -> None:
    i, mask = state.i, state.mid_capacity - 1
    head, tail = int(i[at.STALENESS + at.QUEUE_FIRST]), int(i[at.STALENESS + at.QUEUE_END])
    _require(0 <= head <= tail and tail - head <= end - first and (head == tail) == (first == end))
    positions = i[i[at.STALENESS + at.QUEUE_POSITIONS] + (np.arange(head, tail) & mask)]
    _require((np.diff(positions) > 0).all() and (positions >= first).all() and (positions < end).all())
