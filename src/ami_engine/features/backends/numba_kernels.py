"""The events of the numba backend as compiled functions, one push each.

State is two flat arrays (see `numba_layout`). A push returns 0 when the event was accepted, the number of its reason
(`event_checks.REASONS`) when it was refused, or `GROW_MIDS` or `GROW_TRADES` when the arrays have no room for another
mid or trade: then, as after a refusal, nothing has changed.
"""

from __future__ import annotations

from typing import Any, Final

from ami_engine.features.backends import numba_layout as at
from ami_engine.features.backends.numba_book import (
    CROSSED_BOOK,
    EMPTY_BOOK,
    PRICE_MISMATCH,
    check_levels,
    check_quote,
    check_time,
    check_trade,
    one_level,
    order_flow,
    ratio,
    staleness_ms,
    sum_levels,
    write_book_features,
)
from ami_engine.features.backends.numba_moments import (
    moments_replace,
    moments_std,
    moments_z,
    ring_push,
    ring_slot,
    sum_add,
    sum_value,
)
from ami_engine.features.backends.numba_order import (
    maximum_drop,
    maximum_push,
    median,
    quantile,
    quantile_pop,
    quantile_push,
    quantile_replace,
    quantile_size,
)
from ami_engine.features.backends.numba_rolling import (
    add_pair,
    aggregate_pop,
    aggregate_push,
    aggregate_query,
    aggregate_size,
    compiled,
    compiled_apart,
    copy_item,
    log_return,
)
from ami_engine.features.backends.numba_signals import add_signals, drop_signal_spread, rank_again, write_signals
from ami_engine.features.schema import EPS

GROW_MIDS: Final = -1
GROW_TRADES: Final = -2


@compiled
def pair_count(i: Any) -> int:
    """Pairs of successive mids in the regime window."""
    count: int = max(0, i[at.MIDS_SEEN] - i[at.FIRST_MID] - 1)
    return count


@compiled
def flow_place(i: Any, position: int) -> int:
    place: int = i[at.PAIR_FLOWS] + (position & i[at.RETURNS + at.MASK])
    return place


@compiled
def add_flow(f: Any, i: Any, value: float) -> None:
    if not sum_add(f, at.FLOW, value):
        i[at.FLOW_IS_EXACT] = 0


@compiled
def sum_flow(f: Any, i: Any, count: int) -> None:
    """Where the flow's numbers are too far apart for its sum: from the window itself, its last `count` pairs."""
    if i[at.FLOW_IS_EXACT]:
        return
    i[at.FLOW_IS_EXACT] = 1
    for k in range(3):
        f[at.FLOW + k] = 0.0
    end = i[at.RETURNS + at.END]
    for position in range(end - count, end):
        add_flow(f, i, f[flow_place(i, position)])


@compiled
def add_returns(f: Any, i: Any, change: float, flow: float, is_full: bool) -> None:
    """Add a pair of mids; with `is_full` the regime window's oldest pair leaves for it."""
    count = pair_count(i)
    end = i[at.RETURNS + at.END]
    if not is_full:
        add_flow(f, i, flow)
        moments_replace(i, at.REGIME_MOMENTS, 0.0, change)
        count += 1
    elif count > 0:
        add_flow(f, i, flow)
        add_flow(f, i, -f[flow_place(i, end - count)])
        moments_replace(i, at.REGIME_MOMENTS, f[ring_slot(i, at.RETURNS, end - count)], change)
    # Before the first return stands 0, which leaves a window as nothing would.
    moments_replace(i, at.VOL_MOMENTS, f[ring_slot(i, at.RETURNS, end - i[at.VOL_WINDOW])], change)
    moments_replace(i, at.RUN_MOMENTS, f[ring_slot(i, at.RETURNS, end - i[at.RUN_LENGTH])], change)
    f[flow_place(i, end)] = flow
    ring_push(f, i, at.RETURNS, change)
    if end + 1 >= i[at.RUN_LENGTH]:
        add_run(f, i, moments_std(i, at.RUN_MOMENTS, i[at.RUN_LENGTH]))
    sum_flow(f, i, count)


@compiled
def add_run(f: Any, i: Any, deviation: float) -> None:
    oldest = f[ring_slot(i, at.RUNS, i[at.RUNS + at.END] - i[at.RUN_COUNT])]
    moments_replace(i, at.RUNS_MOMENTS, oldest, deviation)
    ring_push(f, i, at.RUNS, deviation)


@compiled
def push_trade_sums(f: Any, i: Any, item: int, mids_seen: int, ts_ns: int) -> None:
    place = i[at.TRADE_PLACES] + 2 * (i[at.TRADES + at.END] & i[at.TRADE_MASK])
    i[place] = mids_seen
    i[place + 1] = ts_ns
    aggregate_push(f, i, at.TRADES, at.TRADES_F, item, at.TRADE_SUMS)


@compiled
def close_mid(f: Any, i: Any) -> None:
    """A new mid arrives: what followed the one before it is complete."""
    if i[at.OPEN_TRADES]:
        push_trade_sums(f, i, at.OPEN_SUMS, i[at.MIDS_SEEN], 0)
        i[at.OPEN_TRADES] = 0


@compiled
def drop_oldest_mid(i: Any) -> None:
    """What the quantiles do not see: staleness of the window's oldest mid."""
    i[at.FIRST_MID] += 1
    maximum_drop(i, at.STALENESS, i[at.MID_MASK], i[at.FIRST_MID])


@compiled
def add_mid(f: Any, i: Any, row: Any, ts_ns: int, bid: float, bid_size: float, ask: float, ask_size: float) -> None:
    mid = row[at.ROW_MID]
    number = i[at.MIDS_SEEN]
    mask = i[at.MID_MASK]
    is_full = i[at.WINDOW_STEPS] > 0 and quantile_size(i, at.SPREADS) == i[at.WINDOW_STEPS]
    if number > 0:
        flow = order_flow(f, bid, bid_size, ask, ask_size)
        add_returns(f, i, log_return(mid, f[at.LAST_MID]), flow, is_full)
    f[at.LAST_MID] = mid
    f[at.LAST_BID] = bid
    f[at.LAST_BID_SIZE] = bid_size
    f[at.LAST_ASK] = ask
    f[at.LAST_ASK_SIZE] = ask_size
    add_signals(f, i, number, mid, row[at.ROW_SPREAD], is_full)
    close_mid(f, i)
    maximum_push(f, i, at.STALENESS, mask, number, row[at.ROW_STALENESS])
    i[i[at.MID_TIMES] + (number & mask)] = ts_ns
    i[at.MIDS_SEEN] = number + 1
    if is_full:
        quantile_replace(f, i, at.SPREADS, mask, i[at.FIRST_MID], number, row[at.ROW_SPREAD])
        quantile_replace(f, i, at.DEPTHS, mask, i[at.FIRST_MID], number, row[at.ROW_DEPTH])
        drop_oldest_mid(i)
    else:
        quantile_push(f, i, at.SPREADS, mask, at.MEDIAN, number, row[at.ROW_SPREAD])
        quantile_push(f, i, at.DEPTHS, mask, at.TENTH, number, row[at.ROW_DEPTH])


@compiled
def drop_old_trades(f: Any, i: Any, ts_ns: int) -> None:
    steps = i[at.WINDOW_STEPS]
    window_ns = i[at.WINDOW_NS]
    # Mids are counted from 1 here: trades after the oldest mid of the window have seen at least this many.
    oldest = i[at.MIDS_SEEN] - steps + 1 if steps > 0 else 0
    horizon = ts_ns - window_ns
    while aggregate_size(i, at.TRADES) > 0:
        place = i[at.TRADE_PLACES] + 2 * (i[at.TRADES + at.FIRST] & i[at.TRADE_MASK])
        if not (i[place] < oldest or (window_ns > 0 and i[place + 1] <= horizon)):
            break
        aggregate_pop(f, i, at.TRADES, at.TRADES_F, at.TRADE_SUMS)


@compiled
def move_time(f: Any, i: Any, ts_ns: int) -> bool:
    """Drop what time has taken out of the regime window; true when a mid left. The last mid stays."""
    drop_old_trades(f, i, ts_ns)
    if i[at.WINDOW_NS] == 0:
        return False
    horizon = ts_ns - i[at.WINDOW_NS]
    mask = i[at.MID_MASK]
    has_moved = False
    while quantile_size(i, at.SPREADS) > 1 and i[i[at.MID_TIMES] + (i[at.FIRST_MID] & mask)] <= horizon:
        drop_signal_spread(f, i)
        quantile_pop(f, i, at.SPREADS, mask, at.MEDIAN, i[at.FIRST_MID])
        quantile_pop(f, i, at.DEPTHS, mask, at.TENTH, i[at.FIRST_MID])
        count = pair_count(i)
        oldest = i[at.RETURNS + at.END] - count
        add_flow(f, i, -f[flow_place(i, oldest)])
        moments_replace(i, at.REGIME_MOMENTS, f[ring_slot(i, at.RETURNS, oldest)], 0.0)
        sum_flow(f, i, count - 1)
        drop_oldest_mid(i)
        has_moved = True
    if has_moved:
        rank_again(f, i)
    return has_moved


@compiled
def write_returns_features(f: Any, i: Any, row: Any) -> None:
    row[at.ROW_SIGMA] = moments_std(i, at.VOL_MOMENTS, min(i[at.RETURNS + at.END], i[at.VOL_WINDOW]))
    row[at.ROW_SPIKE] = 0.0
    runs = i[at.RUNS + at.END]
    if runs >= i[at.RUN_COUNT]:
        last = f[ring_slot(i, at.RUNS, runs - 1)]
        row[at.ROW_SPIKE] = moments_z(i, at.RUNS_MOMENTS, last, i[at.RUN_COUNT], EPS)
    if i[at.MIDS_SEEN] == 0:
        row[at.ROW_SIGMA_5M] = 0.0
        row[at.ROW_OFI] = 0.0


@compiled
def write_regime_features(f: Any, i: Any, row: Any) -> None:
    if i[at.MIDS_SEEN] == 0:
        return
    count = pair_count(i)
    row[at.ROW_SIGMA_5M] = moments_std(i, at.REGIME_MOMENTS, count)
    row[at.ROW_OFI] = sum_value(f, at.FLOW) if count > 0 else 0.0
    row[at.ROW_SPREAD_MED] = median(f, i, at.SPREADS)
    row[at.ROW_DEPTH_P10] = quantile(f, i, at.DEPTHS, at.TENTH)
    row[at.ROW_STALENESS_MAX] = f[
        i[at.STALENESS + at.QUEUE_VALUES] + (i[at.STALENESS + at.QUEUE_FIRST] & i[at.MID_MASK])
    ]


@compiled
def write_trade_features(f: Any, i: Any, row: Any) -> None:
    row[at.ROW_VWAP] = row[at.ROW_MID]
    row[at.ROW_TRADE_IMBALANCE] = 0.0
    item = at.OPEN_SUMS
    if aggregate_size(i, at.TRADES) > 0:
        item = aggregate_query(f, i, at.TRADES, at.TRADES_F, at.TRADE_SUMS)
        if i[at.OPEN_TRADES]:
            for k in range(0, 2 * at.TRADE_SUMS, 2):
                add_pair(f, at.NEW_ITEM + k, item + k, at.OPEN_SUMS + k)
            item = at.NEW_ITEM
    elif not i[at.OPEN_TRADES]:
        return
    volume = f[item + 2] + f[item + 3]
    row[at.ROW_VWAP] = ratio(f[item] + f[item + 1], volume, row[at.ROW_MID])
    row[at.ROW_TRADE_IMBALANCE] = ratio(f[item + 4] + f[item + 5], volume, 0.0)


@compiled_apart
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
    if is_two_sided and quantile_size(i, at.SPREADS) == i[at.MID_MASK]:
        return GROW_MIDS
    if i[at.OPEN_TRADES] and aggregate_size(i, at.TRADES) > i[at.TRADE_MASK]:
        return GROW_TRADES
    i[at.LAST_TS] = ts_ns
    i[at.LAST_BOOK_TS] = ts_ns
    i[at.HAS_BOOK] = 1
    write_book_features(f, row, bid_side, ask_side)
    row[at.ROW_STALENESS] = staleness_ms(i, ts_ns, now_ns)
    if is_two_sided:
        add_mid(f, i, row, ts_ns, bid, bid_side[1], ask, ask_side[1])
    move_time(f, i, ts_ns)
    write_returns_features(f, i, row)
    write_regime_features(f, i, row)
    write_signals(f, i, row)
    write_trade_features(f, i, row)
    return 0


@compiled_apart
def push_quote(
    f: Any, i: Any, row: Any, ts_ns: int, bid: float, ask: float, bid_depth: float, ask_depth: float, now_ns: int
) -> int:
    fault = check_quote(bid, ask, bid_depth, ask_depth)
    if fault:
        return fault
    return accept_book(f, i, row, ts_ns, now_ns, one_level(bid, bid_depth), one_level(ask, ask_depth))


@compiled_apart
def push_book(
    f: Any, i: Any, row: Any, ts_ns: int, bids: Any, asks: Any, now_ns: int, bid: float, ask: float, is_padded: bool
) -> int:
    fault = check_quote(bid, ask, 0.0, 0.0)
    if not fault:
        fault = check_levels(i, bids, True, is_padded)
    if not fault:
        fault = check_levels(i, asks, False, is_padded)
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


@compiled_apart
def push_trade(f: Any, i: Any, row: Any, ts_ns: int, price: float, size: float, aggressor: int, now_ns: int) -> int:
    fault = check_trade(price, size, aggressor)
    if not fault:
        fault = check_time(i, ts_ns, now_ns)
    if fault:
        return fault
    if aggregate_size(i, at.TRADES) > i[at.TRADE_MASK]:
        return GROW_TRADES
    i[at.LAST_TS] = ts_ns
    if i[at.WINDOW_STEPS] == 0 or i[at.MIDS_SEEN] > 0:
        add_trade(f, i, ts_ns, price, size, aggressor)
    if i[at.HAS_BOOK]:
        row[at.ROW_STALENESS] = staleness_ms(i, ts_ns, now_ns)
    if move_time(f, i, ts_ns):
        write_regime_features(f, i, row)
        write_signals(f, i, row)
    write_trade_features(f, i, row)
    if i[at.MIDS_SEEN] == 0:
        write_returns_features(f, i, row)
        write_signals(f, i, row)
    return 0


@compiled
def add_trade(f: Any, i: Any, ts_ns: int, price: float, size: float, aggressor: int) -> None:
    f[at.NEW_ITEM] = price * size
    f[at.NEW_ITEM + 1] = 0.0
    f[at.NEW_ITEM + 2] = size
    f[at.NEW_ITEM + 3] = 0.0
    f[at.NEW_ITEM + 4] = float(aggressor) * size
    f[at.NEW_ITEM + 5] = 0.0
    if i[at.WINDOW_NS] > 0:
        push_trade_sums(f, i, at.NEW_ITEM, i[at.MIDS_SEEN], ts_ns)
    elif i[at.OPEN_TRADES]:
        for k in range(0, 2 * at.TRADE_SUMS, 2):
            add_pair(f, at.OPEN_SUMS + k, at.OPEN_SUMS + k, at.NEW_ITEM + k)
    else:
        copy_item(f, at.OPEN_SUMS, at.NEW_ITEM, 2 * at.TRADE_SUMS)
        i[at.OPEN_TRADES] = 1
