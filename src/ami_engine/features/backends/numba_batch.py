"""A batch of events in compiled Python: each row of the columns is one push."""

from __future__ import annotations

import math
from typing import Any, Final

from ami_engine.features.backends import numba_layout as at
from ami_engine.features.backends.numba_book import MALFORMED, UNKNOWN_KIND
from ami_engine.features.backends.numba_kernels import push_book, push_quote, push_trade
from ami_engine.features.backends.numba_rolling import compiled

INT64_MAX: Final = 2**63 - 1
IMPLICIT_STEP_NS: Final = 1_000_000  # from the last event to a row of a table that carries no time


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
    ts_ns = i[at.LAST_TS] + IMPLICIT_STEP_NS
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
