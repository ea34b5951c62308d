"""One book event or trade in compiled Python: what is refused, and the features that need no history."""

from __future__ import annotations

import math
from typing import Any, Final

from ami_engine.features.backends import numba_layout as at
from ami_engine.features.backends.event_checks import REASONS
from ami_engine.features.backends.numba_rolling import compiled
from ami_engine.features.schema import EPS, MAX_MAGNITUDE

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
    return TIME_BACKWARDS if ts_ns < i[at.LAST_TS] else 0


@compiled
def one_level(price: float, size: float) -> tuple[float, float, float, float, float]:
    if price == 0.0:
        return 0.0, 0.0, 0.0, 0.0, 0.0
    return price, size, size, size, price * size


@compiled
def check_levels(i: Any, levels: Any, is_bid: bool, is_padded: bool) -> int:
    """Return the reason to refuse a side, 0 for none."""
    previous = 0.0
    for k in range(min(len(levels), i[at.LEVELS])):
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
    for k in range(min(len(levels), i[at.LEVELS])):
        price = levels[k, 0]
        size = levels[k, 1]
        if not price > 0.0:  # 0 or padding
            break
        depth += size
        weighted += f[at.WEIGHTS + k] * size
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
    tick_size = f[at.TICK_SIZE]
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
    row[at.ROW_MID] = mid
    row[at.ROW_BID] = bid
    row[at.ROW_ASK] = ask
    row[at.ROW_SPREAD] = spread
    row[at.ROW_SPREAD_BPS] = 1e4 * spread / mid
    row[at.ROW_DEPTH] = depth
    row[at.ROW_BID_DEPTH] = bid_depth
    row[at.ROW_ASK_DEPTH] = ask_depth
    row[at.ROW_IMBALANCE] = ratio(bid_depth - ask_depth, depth, 0.0)
    row[at.ROW_IMBALANCE_W] = ratio(bid_weighted - ask_weighted, bid_weighted + ask_weighted, 0.0)
    row[at.ROW_MICROPRICE] = microprice
    row[at.ROW_MICROPRICE_ALPHA] = (microprice - mid) / tick_size
    row[at.ROW_VWAP_BID] = vwap_bid
    row[at.ROW_VWAP_ASK] = vwap_ask
    row[at.ROW_PRESSURE] = ((mid - vwap_bid) - (vwap_ask - mid)) / tick_size
    row[at.ROW_COST] = f[at.COST_TICKS]


@compiled
def staleness_ms(i: Any, ts_ns: int, now_ns: int) -> float:
    now = ts_ns if now_ns == 0 else now_ns
    return float(now - i[at.LAST_BOOK_TS]) / 1e6 if now > i[at.LAST_BOOK_TS] else 0.0


@compiled
def order_flow(f: Any, bid: float, bid_size: float, ask: float, ask_size: float) -> float:
    """e_n of Cont, Kukanov & Stoikov (2014): what one event added at the best prices."""
    flow = 0.0
    if bid >= f[at.LAST_BID]:
        flow += bid_size
    if bid <= f[at.LAST_BID]:
        flow -= f[at.LAST_BID_SIZE]
    if ask <= f[at.LAST_ASK]:
        flow -= ask_size
    if ask >= f[at.LAST_ASK]:
        flow += f[at.LAST_ASK_SIZE]
    return flow
