"""The events of the numba backend as compiled functions: one push each, and a batch of them.

State is two flat arrays (see `numba_layout`). A push returns 0 when the
event was accepted, the number of its reason (`event_checks.REASONS`) when it was refused, or `GROW_MIDS` or
`GROW_TRADES` when the arrays have no room for another mid or trade: then, as after a refusal, nothing has changed.
"""

from __future__ import annotations

import math
from typing import Any, Final

from ami_engine.features.backends.event_checks import REASONS
from ami_engine.features.backends.numba_layout import (
    COST_TICKS,
    DEPTHS,
    END,
    FIRST,
    FIRST_MID,
    HAS_BOOK,
    LAST_ASK,
    LAST_ASK_SIZE,
    LAST_BID,
    LAST_BID_SIZE,
    LAST_BOOK_TS,
    LAST_MID,
    LAST_RUN_STD,
    LAST_TS,
    LEVELS,
    MEDIAN,
    MID_MASK,
    MID_TIMES,
    MIDS_SEEN,
    NEW_ITEM,
    OPEN_SUMS,
    OPEN_TRADES,
    PAIR_SUMS,
    PAIRS,
    PAIRS_F,
    QUEUE_FIRST,
    QUEUE_VALUES,
    RETURNS,
    RETURNS_F,
    ROW_ASK,
    ROW_ASK_DEPTH,
    ROW_BID,
    ROW_BID_DEPTH,
    ROW_COST,
    ROW_DEPTH,
    ROW_DEPTH_P10,
    ROW_IMBALANCE,
    ROW_IMBALANCE_W,
    ROW_MICROPRICE,
    ROW_MICROPRICE_ALPHA,
    ROW_MID,
    ROW_OFI,
    ROW_PRESSURE,
    ROW_SIGMA,
    ROW_SIGMA_5M,
    ROW_SPIKE,
    ROW_SPREAD,
    ROW_SPREAD_BPS,
    ROW_SPREAD_MED,
    ROW_STALENESS,
    ROW_STALENESS_MAX,
    ROW_TRADE_IMBALANCE,
    ROW_VWAP,
    ROW_VWAP_ASK,
    ROW_VWAP_BID,
    RUN,
    RUN_COUNT,
    RUN_F,
    RUN_LENGTH,
    RUNS,
    RUNS_F,
    SPREADS,
    STALENESS,
    TENTH,
    TICK_SIZE,
    TRADE_MASK,
    TRADE_PLACES,
    TRADE_SUMS,
    TRADES,
    TRADES_F,
    VOL_WINDOW,
    WEIGHTS,
    WINDOW_NS,
    WINDOW_STEPS,
)
from ami_engine.features.backends.numba_rolling import (
    add_pair,
    aggregate_pop,
    aggregate_push,
    aggregate_query,
    aggregate_size,
    compiled,
    copy_item,
    log_return,
    maximum_drop,
    maximum_push,
    median,
    quantile,
    quantile_pop,
    quantile_push,
    quantile_replace,
    quantile_size,
    std_dev,
)
from ami_engine.features.schema import EPS, MAX_MAGNITUDE

INT64_MAX: Final = 2**63 - 1
IMPLICIT_STEP_NS: Final = 1_000_000  # from the last event to a row of a table that carries no time

GROW_MIDS: Final = -1
GROW_TRADES: Final = -2

MALFORMED: Final = REASONS.index("malformed")
NOT_FINITE: Final = REASONS.index("not_finite")
NEGATIVE_PRICE: Final = REASONS.index("negative_price")
NEGATIVE_SIZE: Final = REASONS.index("negative_size")
NON_POSITIVE_TIME: Final = REASONS.index("non_positive_time")
TIME_BACKWARDS: Final = REASONS.index("time_backwards")
LEVELS_UNSORTED: Final = REASONS.index("levels_unsorted")
PRICE_MISMATCH: Final = REASONS.index("price_mismatch")
EMPTY_BOOK: Final = REASONS.index("empty_book")
CROSSED_BOOK: Final = REASONS.index("crossed_book")
UNKNOWN_KIND: Final = REASONS.index("unknown_kind")


@compiled
def is_in_range(value: float) -> bool:
    """True for what a price or a size may be; false for NaN, too."""
    return 0.0 <= value <= MAX_MAGNITUDE


@compiled
def is_finite(value: float) -> bool:
    return abs(value) <= MAX_MAGNITUDE


@compiled
def check_quote(bid: float, ask: float, bid_depth: float, ask_depth: float) -> int:
    if is_in_range(bid) and is_in_range(ask) and is_in_range(bid_depth) and is_in_range(ask_depth):
        return 0
    if not (is_finite(bid) and is_finite(ask) and is_finite(bid_depth) and is_finite(ask_depth)):
        return NOT_FINITE
    return NEGATIVE_PRICE if bid < 0.0 or ask < 0.0 else NEGATIVE_SIZE


@compiled
def check_trade(price: float, size: float, aggressor: int) -> int:
    if not (is_finite(price) and is_finite(size)):
        return NOT_FINITE
    if not price > 0.0:
        return NEGATIVE_PRICE
    if size < 0.0:
        return NEGATIVE_SIZE
    return MALFORMED if aggressor < -1 or aggressor > 1 else 0


@compiled
def check_time(i: Any, ts_ns: int, now_ns: int) -> int:
    if ts_ns <= 0 or now_ns < 0:
        return NON_POSITIVE_TIME
    return TIME_BACKWARDS if ts_ns < i[LAST_TS] else 0


@compiled
def one_level(price: float, size: float) -> tuple[float, float, float, float, float]:
    if price == 0.0:
        return 0.0, 0.0, 0.0, 0.0, 0.0
    return price, size, size, size, price * size


@compiled
def check_levels(f: Any, i: Any, levels: Any, is_bid: bool, is_padded: bool) -> int:
    """Return the reason to refuse a side (0: none) and its sums are then those of `sum_levels`."""
    previous = 0.0
    for k in range(min(len(levels), i[LEVELS])):
        price = levels[k, 0]
        size = levels[k, 1]
        if not (is_in_range(price) and is_in_range(size)):
            if is_padded and math.isnan(price) and math.isnan(size):
                break
            if not is_finite(price):
                return NOT_FINITE
            if price < 0.0:
                return NEGATIVE_PRICE
            return NEGATIVE_SIZE if is_finite(size) else NOT_FINITE
        if price == 0.0:
            break
        if k > 0 and (price >= previous if is_bid else price <= previous):
            return LEVELS_UNSORTED
        previous = price
    return 0


@compiled
def sum_levels(f: Any, i: Any, levels: Any) -> tuple[float, float, float, float, float]:
    """Return best price, its size, depth, weighted depth and value of a side that was checked."""
    depth = weighted = value = 0.0
    for k in range(min(len(levels), i[LEVELS])):
        price = levels[k, 0]
        size = levels[k, 1]
        if not price > 0.0:  # 0 or padding
            break
        depth += size
        weighted += f[WEIGHTS + k] * size
        value += price * size
    if len(levels) == 0 or not levels[0, 0] > 0.0:
        return 0.0, 0.0, 0.0, 0.0, 0.0
    return levels[0, 0], levels[0, 1], depth, weighted, value


@compiled
def ratio(numerator: float, denominator: float, otherwise: float) -> float:
    return otherwise if denominator < EPS else numerator / denominator


@compiled
def write_book_features(f: Any, row: Any, bid_side: Any, ask_side: Any) -> None:
    bid, bid_size, bid_depth, bid_weighted, bid_value = bid_side
    ask, ask_size, ask_depth, ask_weighted, ask_value = ask_side
    tick_size = f[TICK_SIZE]
    mid = ask if bid == 0.0 else bid
    microprice = mid
    spread = math.nan
    if bid != 0.0 and ask != 0.0:
        mid = (bid + ask) / 2.0
        spread = ask - bid
        microprice = ratio(ask * bid_size + bid * ask_size, bid_size + ask_size, mid)
    depth = bid_depth + ask_depth
    vwap_bid = ratio(bid_value, bid_depth, mid)
    vwap_ask = ratio(ask_value, ask_depth, mid)
    row[ROW_MID] = mid
    row[ROW_BID] = bid
    row[ROW_ASK] = ask
    row[ROW_SPREAD] = spread
    row[ROW_SPREAD_BPS] = 1e4 * spread / mid
    row[ROW_DEPTH] = depth
    row[ROW_BID_DEPTH] = bid_depth
    row[ROW_ASK_DEPTH] = ask_depth
    row[ROW_IMBALANCE] = ratio(bid_depth - ask_depth, depth, 0.0)
    row[ROW_IMBALANCE_W] = ratio(bid_weighted - ask_weighted, bid_weighted + ask_weighted, 0.0)
    row[ROW_MICROPRICE] = microprice
    row[ROW_MICROPRICE_ALPHA] = (microprice - mid) / tick_size
    row[ROW_VWAP_BID] = vwap_bid
    row[ROW_VWAP_ASK] = vwap_ask
    row[ROW_PRESSURE] = ((mid - vwap_bid) - (vwap_ask - mid)) / tick_size
    row[ROW_COST] = f[COST_TICKS]


@compiled
def staleness_ms(i: Any, ts_ns: int, now_ns: int) -> float:
    now = ts_ns if now_ns == 0 else now_ns
    return float(now - i[LAST_BOOK_TS]) / 1e6 if now > i[LAST_BOOK_TS] else 0.0


@compiled
def roll(f: Any, i: Any, io: int, fo: int, value: float, window: int) -> None:
    """Push into moments of the last `window` values."""
    f[NEW_ITEM] = value
    f[NEW_ITEM + 1] = 0.0
    aggregate_push(f, i, io, fo, NEW_ITEM, 1, 0)
    if aggregate_size(i, io) > window:
        aggregate_pop(f, i, io, fo, 1, 0)


@compiled
def order_flow(f: Any, bid: float, bid_size: float, ask: float, ask_size: float) -> float:
    """e_n of Cont, Kukanov & Stoikov (2014): what one event added at the best prices."""
    flow = 0.0
    if bid >= f[LAST_BID]:
        flow += bid_size
    if bid <= f[LAST_BID]:
        flow -= f[LAST_BID_SIZE]
    if ask <= f[LAST_ASK]:
        flow -= ask_size
    if ask >= f[LAST_ASK]:
        flow += f[LAST_ASK_SIZE]
    return flow


@compiled
def add_returns(f: Any, i: Any, change: float, flow: float) -> None:
    roll(f, i, RETURNS, RETURNS_F, change, i[VOL_WINDOW])
    roll(f, i, RUN, RUN_F, change, i[RUN_LENGTH])
    if aggregate_size(i, RUN) == i[RUN_LENGTH]:
        at = aggregate_query(f, i, RUN, RUN_F, 1, 0)
        f[LAST_RUN_STD] = std_dev(f[at + 1], i[RUN_LENGTH])
        roll(f, i, RUNS, RUNS_F, f[LAST_RUN_STD], i[RUN_COUNT])
    f[NEW_ITEM] = change
    f[NEW_ITEM + 1] = 0.0
    f[NEW_ITEM + 2] = flow
    f[NEW_ITEM + 3] = 0.0
    aggregate_push(f, i, PAIRS, PAIRS_F, NEW_ITEM, 1, PAIR_SUMS)


@compiled
def push_trade_sums(f: Any, i: Any, item: int, mids_seen: int, ts_ns: int) -> None:
    place = i[TRADE_PLACES] + 2 * (i[TRADES + END] & i[TRADE_MASK])
    i[place] = mids_seen
    i[place + 1] = ts_ns
    aggregate_push(f, i, TRADES, TRADES_F, item, 0, TRADE_SUMS)


@compiled
def close_mid(f: Any, i: Any) -> None:
    """A new mid arrives: what followed the one before it is complete."""
    if i[OPEN_TRADES]:
        push_trade_sums(f, i, OPEN_SUMS, i[MIDS_SEEN], 0)
        i[OPEN_TRADES] = 0


@compiled
def drop_oldest_mid(f: Any, i: Any) -> None:
    """What the quantiles do not see: pairs and staleness of the window's oldest mid."""
    if aggregate_size(i, PAIRS) > 0:
        aggregate_pop(f, i, PAIRS, PAIRS_F, 1, PAIR_SUMS)
    i[FIRST_MID] += 1
    maximum_drop(i, STALENESS, i[MID_MASK], i[FIRST_MID])


@compiled
def add_mid(f: Any, i: Any, row: Any, ts_ns: int, bid: float, bid_size: float, ask: float, ask_size: float) -> None:
    mid = row[ROW_MID]
    number = i[MIDS_SEEN]
    mask = i[MID_MASK]
    if number > 0:
        add_returns(f, i, log_return(mid, f[LAST_MID]), order_flow(f, bid, bid_size, ask, ask_size))
    f[LAST_MID] = mid
    f[LAST_BID] = bid
    f[LAST_BID_SIZE] = bid_size
    f[LAST_ASK] = ask
    f[LAST_ASK_SIZE] = ask_size
    close_mid(f, i)
    maximum_push(f, i, STALENESS, mask, number, row[ROW_STALENESS])
    i[i[MID_TIMES] + (number & mask)] = ts_ns
    i[MIDS_SEEN] = number + 1
    if i[WINDOW_STEPS] > 0 and quantile_size(i, SPREADS) == i[WINDOW_STEPS]:
        quantile_replace(f, i, SPREADS, mask, i[FIRST_MID], number, row[ROW_SPREAD])
        quantile_replace(f, i, DEPTHS, mask, i[FIRST_MID], number, row[ROW_DEPTH])
        drop_oldest_mid(f, i)
    else:
        quantile_push(f, i, SPREADS, mask, MEDIAN, number, row[ROW_SPREAD])
        quantile_push(f, i, DEPTHS, mask, TENTH, number, row[ROW_DEPTH])


@compiled
def drop_old_trades(f: Any, i: Any, ts_ns: int) -> None:
    steps = i[WINDOW_STEPS]
    window_ns = i[WINDOW_NS]
    # Mids are counted from 1 here: trades after the oldest mid of the window have seen at least this many.
    oldest = i[MIDS_SEEN] - steps + 1 if steps > 0 else 0
    horizon = ts_ns - window_ns
    while aggregate_size(i, TRADES) > 0:
        place = i[TRADE_PLACES] + 2 * (i[TRADES + FIRST] & i[TRADE_MASK])
        if not (i[place] < oldest or (window_ns > 0 and i[place + 1] <= horizon)):
            break
        aggregate_pop(f, i, TRADES, TRADES_F, 0, TRADE_SUMS)


@compiled
def move_time(f: Any, i: Any, ts_ns: int) -> bool:
    """Drop what time has taken out of the regime window; true when a mid left. The last mid stays."""
    drop_old_trades(f, i, ts_ns)
    if i[WINDOW_NS] == 0:
        return False
    horizon = ts_ns - i[WINDOW_NS]
    mask = i[MID_MASK]
    has_moved = False
    while quantile_size(i, SPREADS) > 1 and i[i[MID_TIMES] + (i[FIRST_MID] & mask)] <= horizon:
        quantile_pop(f, i, SPREADS, mask, MEDIAN, i[FIRST_MID])
        quantile_pop(f, i, DEPTHS, mask, TENTH, i[FIRST_MID])
        drop_oldest_mid(f, i)
        has_moved = True
    return has_moved


@compiled
def write_returns_features(f: Any, i: Any, row: Any) -> None:
    count = aggregate_size(i, RETURNS)
    row[ROW_SIGMA] = 0.0
    if count > 1:
        row[ROW_SIGMA] = std_dev(f[aggregate_query(f, i, RETURNS, RETURNS_F, 1, 0) + 1], count)
    row[ROW_SPIKE] = 0.0
    if aggregate_size(i, RUNS) == i[RUN_COUNT]:
        at = aggregate_query(f, i, RUNS, RUNS_F, 1, 0)
        scale = std_dev(f[at + 1], i[RUN_COUNT])
        if not scale < EPS:
            row[ROW_SPIKE] = (f[LAST_RUN_STD] - f[at]) / scale
    if i[MIDS_SEEN] == 0:
        row[ROW_SIGMA_5M] = 0.0
        row[ROW_OFI] = 0.0


@compiled
def write_regime_features(f: Any, i: Any, row: Any) -> None:
    if i[MIDS_SEEN] == 0:
        return
    count = aggregate_size(i, PAIRS)
    row[ROW_SIGMA_5M] = 0.0
    row[ROW_OFI] = 0.0
    if count > 0:
        at = aggregate_query(f, i, PAIRS, PAIRS_F, 1, PAIR_SUMS)
        row[ROW_SIGMA_5M] = std_dev(f[at + 1], count)
        row[ROW_OFI] = f[at + 2] + f[at + 3]
    row[ROW_SPREAD_MED] = median(f, i, SPREADS)
    row[ROW_DEPTH_P10] = quantile(f, i, DEPTHS, TENTH)
    row[ROW_STALENESS_MAX] = f[i[STALENESS + QUEUE_VALUES] + (i[STALENESS + QUEUE_FIRST] & i[MID_MASK])]


@compiled
def write_trade_features(f: Any, i: Any, row: Any) -> None:
    row[ROW_VWAP] = row[ROW_MID]
    row[ROW_TRADE_IMBALANCE] = 0.0
    at = OPEN_SUMS
    if aggregate_size(i, TRADES) > 0:
        at = aggregate_query(f, i, TRADES, TRADES_F, 0, TRADE_SUMS)
        if i[OPEN_TRADES]:
            for k in range(0, 2 * TRADE_SUMS, 2):
                add_pair(f, NEW_ITEM + k, at + k, OPEN_SUMS + k)
            at = NEW_ITEM
    elif not i[OPEN_TRADES]:
        return
    volume = f[at + 2] + f[at + 3]
    row[ROW_VWAP] = ratio(f[at] + f[at + 1], volume, row[ROW_MID])
    row[ROW_TRADE_IMBALANCE] = ratio(f[at + 4] + f[at + 5], volume, 0.0)


@compiled
def accept_book(f: Any, i: Any, row: Any, ts_ns: int, now_ns: int, bid_side: Any, ask_side: Any) -> int:
    fault = check_time(i, ts_ns, now_ns)
    if fault:
        return fault
    bid = bid_side[0]
    ask = ask_side[0]
    if bid == 0.0 and ask == 0.0:
        return EMPTY_BOOK
    is_two_sided = bid != 0.0 and ask != 0.0
    if is_two_sided and bid > ask:
        return CROSSED_BOOK
    if is_two_sided and quantile_size(i, SPREADS) == i[MID_MASK]:
        return GROW_MIDS
    if i[OPEN_TRADES] and aggregate_size(i, TRADES) > i[TRADE_MASK]:
        return GROW_TRADES
    i[LAST_TS] = ts_ns
    i[LAST_BOOK_TS] = ts_ns
    i[HAS_BOOK] = 1
    write_book_features(f, row, bid_side, ask_side)
    row[ROW_STALENESS] = staleness_ms(i, ts_ns, now_ns)
    if is_two_sided:
        add_mid(f, i, row, ts_ns, bid, bid_side[1], ask, ask_side[1])
    move_time(f, i, ts_ns)
    write_returns_features(f, i, row)
    write_regime_features(f, i, row)
    write_trade_features(f, i, row)
    return 0


@compiled
def push_quote(
    f: Any, i: Any, row: Any, ts_ns: int, bid: float, ask: float, bid_depth: float, ask_depth: float, now_ns: int
) -> int:
    fault = check_quote(bid, ask, bid_depth, ask_depth)
    if fault:
        return fault
    return accept_book(f, i, row, ts_ns, now_ns, one_level(bid, bid_depth), one_level(ask, ask_depth))


@compiled
def push_book(
    f: Any, i: Any, row: Any, ts_ns: int, bids: Any, asks: Any, now_ns: int, bid: float, ask: float, is_padded: bool
) -> int:
    fault = check_quote(bid, ask, 0.0, 0.0)
    if not fault:
        fault = check_levels(f, i, bids, True, is_padded)
    if not fault:
        fault = check_levels(f, i, asks, False, is_padded)
    if fault:
        return fault
    bid_side = sum_levels(f, i, bids)
    ask_side = sum_levels(f, i, asks)
    if (bid != 0.0 and bid != bid_side[0]) or (ask != 0.0 and ask != ask_side[0]):
        return PRICE_MISMATCH
    # Venues send a level of size 0 for a best price that was just taken: that side is not there.
    if bid_side[1] == 0.0:
        bid_side = one_level(0.0, 0.0)
    if ask_side[1] == 0.0:
        ask_side = one_level(0.0, 0.0)
    return accept_book(f, i, row, ts_ns, now_ns, bid_side, ask_side)


@compiled
def push_trade(f: Any, i: Any, row: Any, ts_ns: int, price: float, size: float, aggressor: int, now_ns: int) -> int:
    fault = check_trade(price, size, aggressor)
    if not fault:
        fault = check_time(i, ts_ns, now_ns)
    if fault:
        return fault
    if aggregate_size(i, TRADES) > i[TRADE_MASK]:
        return GROW_TRADES
    i[LAST_TS] = ts_ns
    if i[WINDOW_STEPS] == 0 or i[MIDS_SEEN] > 0:
        add_trade(f, i, ts_ns, price, size, aggressor)
    if i[HAS_BOOK]:
        row[ROW_STALENESS] = staleness_ms(i, ts_ns, now_ns)
    if move_time(f, i, ts_ns):
        write_regime_features(f, i, row)
    write_trade_features(f, i, row)
    if i[MIDS_SEEN] == 0:
        write_returns_features(f, i, row)
    return 0


@compiled
def add_trade(f: Any, i: Any, ts_ns: int, price: float, size: float, aggressor: int) -> None:
    f[NEW_ITEM] = price * size
    f[NEW_ITEM + 1] = 0.0
    f[NEW_ITEM + 2] = size
    f[NEW_ITEM + 3] = 0.0
    f[NEW_ITEM + 4] = float(aggressor) * size
    f[NEW_ITEM + 5] = 0.0
    if i[WINDOW_NS] > 0:
        push_trade_sums(f, i, NEW_ITEM, i[MIDS_SEEN], ts_ns)
    elif i[OPEN_TRADES]:
        for k in range(0, 2 * TRADE_SUMS, 2):
            add_pair(f, OPEN_SUMS + k, OPEN_SUMS + k, NEW_ITEM + k)
    else:
        copy_item(f, OPEN_SUMS, NEW_ITEM, 2 * TRADE_SUMS)
        i[OPEN_TRADES] = 1


@compiled
def has_level(levels: Any, row: int) -> bool:
    """A first pair of NaN is padding: the row carries no levels on that side."""
    if levels.shape[0] == 0 or levels.shape[1] == 0:
        return False
    return not (math.isnan(levels[row, 0, 0]) and math.isnan(levels[row, 0, 1]))


@compiled
def float_at(column: Any, row: int) -> float:
    """A column that is absent has no rows, and its values are 0."""
    return float(column[row]) if len(column) > 0 else 0.0


@compiled
def int_at(column: Any, row: int) -> int:
    return int(column[row]) if len(column) > 0 else 0


@compiled
def push_row(f: Any, i: Any, row: Any, columns: Any, ns_per_ts: int, k: int) -> int:
    """Push row `k` of a batch: the columns in the order of `EventColumns`."""
    ts, ts_fallback, bid, ask, bid_depth, ask_depth, bids, asks, kind, price, size, aggressor, now = columns
    ts_ns = i[LAST_TS] + IMPLICIT_STEP_NS
    if len(ts) > 0:
        ts_ns = ts[k]
        if ts_ns == 0:
            ts_ns = int_at(ts_fallback, k)
        if ts_ns > INT64_MAX // ns_per_ts:
            return MALFORMED
        if ts_ns > 0:
            ts_ns *= ns_per_ts
    now_ns = int_at(now, k)
    kind_k = int_at(kind, k)
    if kind_k == 1:
        return push_trade(f, i, row, ts_ns, price[k], size[k], int_at(aggressor, k), now_ns)
    if kind_k != 0:
        return UNKNOWN_KIND
    bid_k = float_at(bid, k)
    ask_k = float_at(ask, k)
    has_bids = has_level(bids, k)
    has_asks = has_level(asks, k)
    if has_bids or has_asks:
        # A side without levels in a row that has some is missing.
        bids_k = bids[k] if has_bids else bids[:0].reshape(0, 2)
        asks_k = asks[k] if has_asks else asks[:0].reshape(0, 2)
        return push_book(f, i, row, ts_ns, bids_k, asks_k, now_ns, bid_k, ask_k, True)
    return push_quote(f, i, row, ts_ns, bid_k, ask_k, float_at(bid_depth, k), float_at(ask_depth, k), now_ns)


@compiled
def push_rows(
    f: Any, i: Any, row: Any, columns: Any, ns_per_ts: int, start: int, out: Any, counts: Any, firsts: Any
) -> tuple[int, int]:
    """Push rows from `start` on; return where it stopped, and why (0: at the end)."""
    for k in range(start, len(out)):
        code = push_row(f, i, row, columns, ns_per_ts, k)
        if code < 0:
            return k, code
        if code == 0:
            for j in range(len(row)):
                out[k, j] = row[j]
        else:
            for j in range(len(row)):
                out[k, j] = math.nan
            if counts[code] == 0:
                firsts[code] = k
            counts[code] += 1
    return len(out), 0
