"""The one definition of every feature: name, position, unit, formula, tolerance, and the log-return algorithm.

The C++ core (through cpp/codegen/feature_ids.py), the numba and the reference backends, the docs and the FeatureVector
read names and order from here. Standard library only, so that the build can run this file by its path.

Fine print that every backend shares, beyond the formulas:

- Order of checks of an event; the first that fails names the reason. `not_finite` (bid, ask, bid_depth, ask_depth; or
  price, size): NaN, infinite or above `MAX_MAGNITUDE`. `negative_price` (a trade's price must be > 0). `negative_size`.
  `malformed`: an aggressor outside -1, 0, 1. `non_positive_time`: the event's time <= 0, or now < 0. `time_backwards`.
  `empty_book`. `crossed_book`.
- With levels the first two lines become: bids before asks, best level first, and of each level price finite, price not
  negative, size finite, size not negative, price strictly worse than the one before (`levels_unsorted`). Then a stated
  `bid` or `ask` that is not 0 must be the best level's price (`price_mismatch`).
- At most `levels` of a side are read. A level whose price is 0 ends its side, and so does a pair of NaN in the padded
  arrays of `run`. An event that carries levels has no depths of its own. A missing side (also one whose best level has
  size 0) has price 0 and depth 0 everywhere.
- An event without levels is one level: its best size is its depth.
- A one-sided book event enters no window, but moves time; the book features of its row are its own.
- The clock of the windows is the event's own time; `now_ns` enters staleness and nothing else.
- Before the first book event the book features of a trade's row are NaN, cost_ticks too. spread_med_5m, depth_p10_5m
  and staleness_max_5m are NaN until their window has held a sample; std, z and sums are then 0.
- By count a trade belongs to the mid that it followed: one before the first mid is in no such window. With both limits
  a trade must satisfy both.
- A denominator (depth, a sum of sizes, a volume) below `EPS` counts as zero.
- Sums that may cancel (ofi_5m, the trade sums) are carried as unevaluated pairs of doubles, so that what is left after
  cancellation is right to the last digits.
- The signals come last, and are left out of the row with `signals=False`. Their mids and spreads are those of two-sided
  books; a trade and a one-sided book repeat them. Momentum, trend and reversion count mids and know no time.
- The sum of `ma_steps` mids is carried exactly, as three doubles, and made anew from the window where three cannot hold
  it. Differences are taken of sums, before the division: MA_t - MA_t-lag is the difference of two sums, MA - mid that
  of the sum and ma_steps * mid, momentum's that of two mids. So a move of one tick at 60 000 keeps all its digits.
- spread_percentile is the rank of the newest spread of the regime window: (2 less + equal + 1) / (2 n) of its n
  spreads, `equal` counting itself. Where time takes spreads out of the window it changes without a new one.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

__all__ = [
    "ALIASES",
    "BASE_FEATURE_COUNT",
    "BASE_SCHEMA_HASH",
    "BOOK_FEATURE_COUNT",
    "EPS",
    "FEATURES",
    "FEATURE_COUNT",
    "FEATURE_INDEX",
    "FEATURE_NAMES",
    "LN2",
    "LOG_SERIES",
    "MAX_MAGNITUDE",
    "SCHEMA_HASH",
    "SQRT2",
    "SQRT_HALF",
    "FeatureDef",
    "log_return",
]

EPS: Final = 1e-9
# Prices and sizes above this would overflow in price × size: refused as not finite.
MAX_MAGNITUDE: Final = 1e150


class FeatureDef(NamedTuple):
    """One feature.

    Two backends agree on a value when they differ by at most `rel_tol_*` of it, or by at most `abs_tol` +
    `abs_tol_price_per_tick` × mid / tick_size.
    """

    name: str
    unit: str
    formula: str
    meaning: str
    source: str = ""
    rel_tol_native: float = 1e-12
    rel_tol_reference: float = 1e-9
    abs_tol: float = 0.0
    abs_tol_price_per_tick: float = 0.0


_CKS = "Cont, Kukanov & Stoikov (2014), The price impact of order book events"

FEATURES: Final[tuple[FeatureDef, ...]] = (
    FeatureDef(
        "mid", "price", "(bid + ask) / 2", "Middle of the best prices; the side that is there in a one-sided book"
    ),
    FeatureDef("bid", "price", "best bid of the event", "Best bid; 0 when that side is missing"),
    FeatureDef("ask", "price", "best ask of the event", "Best ask; 0 when that side is missing"),
    FeatureDef("spread", "price", "ask - bid", "Width between the best prices; NaN in a one-sided book"),
    FeatureDef("spread_bps", "bps", "1e4 * spread / mid", "Spread in basis points of mid; NaN in a one-sided book"),
    FeatureDef("depth", "size", "bid_depth + ask_depth", "Size resting in the top levels of both sides"),
    FeatureDef("bid_depth", "size", "sum of q over the top N bids", "Size resting in the top bid levels"),
    FeatureDef("ask_depth", "size", "sum of q over the top N asks", "Size resting in the top ask levels"),
    FeatureDef(
        "imbalance",
        "[-1, 1]",
        "(bid_depth - ask_depth) / depth; 0 when depth < eps",
        "How much heavier the bid side is",
        abs_tol=1e-15,
    ),
    FeatureDef(
        "imbalance_w",
        "[-1, 1]",
        "imbalance with level weights exp(-lambda (i - 1)), i = 1..N",
        "Imbalance that trusts near levels more",
        abs_tol=1e-15,
    ),
    FeatureDef(
        "microprice",
        "price",
        "(ask * q_bid1 + bid * q_ask1) / (q_bid1 + q_ask1); mid when that sum < eps",
        "Mid weighted by the best sizes, toward the thinner side",
    ),
    FeatureDef(
        "microprice_alpha_ticks",
        "ticks",
        "(microprice - mid) / tick",
        "Where the best sizes lean, in ticks from mid",
        abs_tol_price_per_tick=1e-13,
    ),
    FeatureDef(
        "vwap_bid", "price", "sum(p q) / sum(q) over the top N bids; mid when sum(q) < eps", "Average bid by size"
    ),
    FeatureDef(
        "vwap_ask", "price", "sum(p q) / sum(q) over the top N asks; mid when sum(q) < eps", "Average ask by size"
    ),
    FeatureDef(
        "pressure_ticks",
        "ticks",
        "((mid - vwap_bid) - (vwap_ask - mid)) / tick",
        "How much farther from mid the bids rest than the asks, in ticks",
        abs_tol_price_per_tick=1e-13,
    ),
    FeatureDef("cost_ticks", "ticks", "fee_ticks + slippage_ticks + buffer_ticks", "What crossing is assumed to cost"),
    FeatureDef(
        "staleness_ms",
        "ms",
        "max(0, now - recv time of the last accepted book event)",
        "Age of the book at the event, or at now where the caller gives it",
    ),
    FeatureDef(
        "sigma",
        "log return",
        "std of the last vol_window log returns; 0 with fewer than 2 mids",
        "Volatility per event over the short window",
        abs_tol=1e-15,
    ),
    FeatureDef(
        "sigma_spike_z",
        "z",
        "(s_last - mean(s)) / std(s), s the stds of each run of sigma_short_steps of the last sigma_long_steps + 1 log "
        "returns; 0 until max(short, long) + 2 mids, and when std(s) < eps",
        "How unusual the newest short volatility is among its recent values",
        abs_tol=1e-6,
    ),
    FeatureDef(
        "sigma_5m",
        "log return",
        "std of the log returns whose two mids are both in the regime window",
        "Volatility per event over the regime window",
        abs_tol=1e-15,
    ),
    FeatureDef("spread_med_5m", "price", "median of spread in the regime window", "Usual spread"),
    FeatureDef(
        "depth_p10_5m",
        "size",
        "10th percentile of depth in the regime window, linear interpolation",
        "Depth that nine events of ten exceed",
    ),
    FeatureDef(
        "staleness_max_5m",
        "ms",
        "maximum of staleness_ms in the regime window",
        "Worst age of the book in the regime window",
    ),
    FeatureDef(
        "vwap_5m",
        "price",
        "sum(p q) / sum(q) of the trades in the regime window; mid while it holds none",
        "Average traded price by size",
    ),
    FeatureDef(
        "ofi_5m",
        "size",
        "sum of e_n over the pairs of successive mids in the regime window; 0 for the first. e_n = 1[Pb_n >= Pb_n-1] "
        "qb_n - 1[Pb_n <= Pb_n-1] qb_n-1 - 1[Pa_n <= Pa_n-1] qa_n + 1[Pa_n >= Pa_n-1] qa_n-1",
        "Order-flow imbalance: net size added at the best prices",
        _CKS,
    ),
    FeatureDef(
        "trade_imbalance_5m",
        "[-1, 1]",
        "(buy volume - sell volume) / volume of the trades in the regime window, by aggressor; 0 without a trade",
        "Who took liquidity lately",
        abs_tol=1e-15,
    ),
    FeatureDef(
        "momentum",
        "ratio",
        "(mid - mid_k) / mid_k, mid_k the mid momentum_steps mids ago; 0 until momentum_steps + 1 mids",
        "How far the price has come lately",
    ),
    FeatureDef(
        "trend_strength",
        "ratio",
        "abs(MA_t - MA_t-lag) / lag / mid, MA the mean of ma_steps mids, lag = trend_lag_steps mids; 0 until ma_steps "
        "+ lag mids",
        "How fast the average moves a mid, whatever its direction",
    ),
    FeatureDef(
        "mean_reversion",
        "ratio",
        "(MA - mid) / mid; 0 until ma_steps mids",
        "How far the price stands below its average",
    ),
    FeatureDef(
        "spread_percentile",
        "[0, 1]",
        "rank of the last spread in the regime window / its size, average rank for ties; 0 before the first mid",
        "How wide the spread is among its usual values",
    ),
)

FEATURE_NAMES: Final[tuple[str, ...]] = tuple(feature.name for feature in FEATURES)
FEATURE_INDEX: Final[dict[str, int]] = {name: index for index, name in enumerate(FEATURE_NAMES)}
FEATURE_COUNT: Final = len(FEATURES)
BOOK_FEATURE_COUNT: Final = 17
BASE_FEATURE_COUNT: Final = 26  # the length of a row without signals
ALIASES: Final[dict[str, str]] = {"pressure": "pressure_ticks"}


def _schema_hash(features: tuple[FeatureDef, ...]) -> str:
    text = "\n".join(f"{f.name}|{f.unit}|{f.formula}" for f in features)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# Formulas are part of it: a core built from another definition of the same name must not load.
SCHEMA_HASH: Final = _schema_hash(FEATURES)
# What a model is registered with that reads rows without signals.
BASE_SCHEMA_HASH: Final = _schema_hash(FEATURES[:BASE_FEATURE_COUNT])

# The log return, one algorithm with + - * / and comparisons alone, so that every machine and every backend gives the
# same bits. Each backend spells it exactly as `log_return`, `_log` and `_log1p_reduced` below, operation by operation;
# the constants come from here.
LN2: Final = 0.6931471805599453
SQRT2: Final = 1.4142135623730951
SQRT_HALF: Final = 0.7071067811865476
# 1 / (2 i + 1): |s| <= 0.1716 after the reduction, so that the 12th term of the atanh series is below 1e-18 of the sum.
LOG_SERIES: Final[tuple[float, ...]] = tuple(1.0 / (2 * i + 1) for i in range(11))


def _log1p_reduced(f: float) -> float:
    # log(1 + f) for 1 + f in [SQRT_HALF, SQRT2] = 2 atanh(s), s = f / (2 + f). The polynomial in s² is evaluated by
    # pairs (Estrin), which a processor does in half the time of Horner's chain.
    c = LOG_SERIES
    s = f / (2.0 + f)
    z = s * s
    z2 = z * z
    z4 = z2 * z2
    b0 = (c[0] + c[1] * z) + z2 * (c[2] + c[3] * z)
    b1 = (c[4] + c[5] * z) + z2 * (c[6] + c[7] * z)
    b2 = (c[8] + c[9] * z) + z2 * c[10]
    return (2.0 * s) * ((b0 + z4 * b1) + (z4 * z4) * b2)


def _log(u: float) -> float:
    # log(u), u > 0 and finite: reduction to a power of two (each step is exact), then the series.
    k = 0.0
    while u > SQRT2:
        u = u * 0.5
        k = k + 1.0
    while u < SQRT_HALF:
        u = u * 2.0
        k = k - 1.0
    return k * LN2 + _log1p_reduced(u - 1.0)


def log_return(mid: float, previous: float) -> float:
    """Return log(mid / previous) as log1p((mid − previous) / previous), right to the last digits for small moves.

    Parameters
    ----------
    mid, previous : float
        Prices, finite and > 0.

    Returns
    -------
    float
        The log return; finite for every pair of finite positive prices.

    Examples
    --------
    >>> log_return(2.0, 1.0)
    0.6931471805599453
    >>> log_return(100_000.01, 100_000.0)
    9.999999494761345e-08
    """
    x = (mid - previous) / previous
    u = 1.0 + x
    if SQRT_HALF <= u <= SQRT2:
        return _log1p_reduced(x)
    # Prices so far apart that the ratio leaves the range of doubles (x infinite, or -1 after rounding).
    if not 0.0 < u <= MAX_MAGNITUDE:
        return _log(mid) - _log(previous)
    return _log(u)
