"""The meaning of every feature: slow, plain, recomputed from its definition at each event.

This backend is the definition that `native` and `numba` are tested against. It keeps the windows as lists of samples
and nothing else: no running sum, no cached statistic. Formulas, sources and the fine print are in `features.schema`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from ami_engine.errors import EventError
from ami_engine.features.backends.event_checks import (
    BookSide,
    check_kind,
    check_levels_match,
    check_quote,
    check_sides,
    check_time,
    check_trade,
    one_level,
    read_side,
    scaled_time,
    unless_taken,
)
from ami_engine.features.backends.state_bytes import seal, unseal
from ami_engine.features.columns import EventColumns, RunReport
from ami_engine.features.feature_config import FeatureConfig
from ami_engine.features.schema import BOOK_FEATURE_COUNT, EPS, FEATURE_NAMES, MAX_MAGNITUDE

__all__ = ["ReferenceEngine"]

FloatArray = npt.NDArray[np.float64]

IMPLICIT_STEP_NS: Final = 1_000_000  # from the last event to a row of a table that carries no time

_NO_LEVELS: Final = np.empty((0, 2))
_NO_BOOK: Final = dict.fromkeys(FEATURE_NAMES[:BOOK_FEATURE_COUNT], math.nan)


class Sample(msgspec.Struct, array_like=True, frozen=True):
    """A two-sided book event of a window: one mid, and what came with it."""

    number: int  # counted from 1 over the life of the engine
    ts_ns: int
    mid: float
    spread: float
    depth: float
    staleness_ms: float
    log_return: float  # from the mid before; NaN for the first of all
    order_flow: float  # likewise


class TradePrint(msgspec.Struct, array_like=True, frozen=True):
    """One trade of the regime window."""

    mid_number: int  # of the mid that it followed; 0 before the first
    ts_ns: int
    price: float
    size: float
    aggressor: int


class State(msgspec.Struct):
    """All that an engine remembers: the last book event, and the windows."""

    last_ts_ns: int = 0
    book_ts_ns: int = 0
    bid: BookSide | None = None  # of the last book event; None before the first
    ask: BookSide | None = None
    mid_count: int = 0
    mid_bid: BookSide | None = None  # of the last two-sided book event; None before the first
    mid_ask: BookSide | None = None
    recent: list[Sample] = []  # for sigma and sigma_spike_z
    regime: list[Sample] = []
    trades: list[TradePrint] = []
    row: list[float] = []


def ratio(numerator: float, denominator: float, otherwise: float) -> float:
    """Return numerator / denominator, or `otherwise` where the denominator counts as zero."""
    return otherwise if denominator < EPS else numerator / denominator


def log_return(previous: float, mid: float) -> float:
    """Return log(mid / previous), right to the last digits for small moves."""
    x = (mid - previous) / previous
    # So far apart that x is no number between -1 and infinity any more.
    return math.log1p(x) if -1.0 < x <= MAX_MAGNITUDE else math.log(mid) - math.log(previous)


def order_flow(last_bid: BookSide, last_ask: BookSide, bid: BookSide, ask: BookSide) -> float:
    """e_n of Cont, Kukanov & Stoikov (2014), The price impact of order book events: what was added at the best."""
    flow = 0.0
    if bid.price >= last_bid.price:
        flow += bid.size
    if bid.price <= last_bid.price:
        flow -= last_bid.size
    if ask.price <= last_ask.price:
        flow -= ask.size
    if ask.price >= last_ask.price:
        flow += last_ask.size
    return flow


def std(values: Sequence[float]) -> float:
    """Population standard deviation in two passes over the values; 0 for none."""
    return float(np.std(values)) if values else 0.0


def spike_z(returns: Sequence[float], short: int) -> float:
    """How far the volatility of the newest run of returns stands from that of each run."""
    s = np.std(np.lib.stride_tricks.sliding_window_view(np.array(returns), short), axis=1)
    scale = float(np.std(s))
    return 0.0 if scale < EPS else float(s[-1] - np.mean(s)) / scale


def book_features(bid: BookSide, ask: BookSide, config: FeatureConfig, staleness_ms: float) -> dict[str, float]:
    """Return the features of one book event, which need no history."""
    is_two_sided = bid.price > 0.0 and ask.price > 0.0
    mid = (bid.price + ask.price) / 2.0 if is_two_sided else max(bid.price, ask.price)
    spread = ask.price - bid.price if is_two_sided else math.nan
    depth = bid.depth + ask.depth
    cross_weighted = ask.price * bid.size + bid.price * ask.size
    microprice = ratio(cross_weighted, bid.size + ask.size, mid) if is_two_sided else mid
    vwap_bid = ratio(bid.value, bid.depth, mid)
    vwap_ask = ratio(ask.value, ask.depth, mid)
    return {
        "mid": mid,
        "bid": bid.price,
        "ask": ask.price,
        "spread": spread,
        "spread_bps": 1e4 * spread / mid,
        "depth": depth,
        "bid_depth": bid.depth,
        "ask_depth": ask.depth,
        "imbalance": ratio(bid.depth - ask.depth, depth, 0.0),
        "imbalance_w": ratio(bid.weighted - ask.weighted, bid.weighted + ask.weighted, 0.0),
        "microprice": microprice,
        "microprice_alpha_ticks": (microprice - mid) / config.tick_size,
        "vwap_bid": vwap_bid,
        "vwap_ask": vwap_ask,
        "pressure_ticks": ((mid - vwap_bid) - (vwap_ask - mid)) / config.tick_size,
        "cost_ticks": config.fee_ticks + config.slippage_ticks + config.buffer_ticks,
        "staleness_ms": staleness_ms,
    }


def volatility_features(recent: Sequence[Sample], config: FeatureConfig) -> dict[str, float]:
    """Return sigma and its spike from the latest mids, whatever their age."""
    returns = [sample.log_return for sample in recent[1:]]
    is_warm = len(returns) >= max(config.sigma_short_steps, config.sigma_long_steps) + 1
    return {
        "sigma": std(returns[-config.vol_window :]),
        "sigma_spike_z": spike_z(returns[-config.sigma_long_steps - 1 :], config.sigma_short_steps) if is_warm else 0.0,
    }


def regime_features(regime: Sequence[Sample], trades: Sequence[TradePrint], mid: float) -> dict[str, float]:
    """Return the features of the regime window: its book samples and its trades."""
    pairs = regime[1:]  # those whose two mids both are in the window
    volume = math.fsum(trade.size for trade in trades)
    value = math.fsum(trade.price * trade.size for trade in trades)
    net = math.fsum(trade.aggressor * trade.size for trade in trades)
    return {
        "sigma_5m": std([sample.log_return for sample in pairs]),
        "spread_med_5m": float(np.median([sample.spread for sample in regime])) if regime else math.nan,
        "depth_p10_5m": float(np.percentile([sample.depth for sample in regime], 10)) if regime else math.nan,
        "staleness_max_5m": max((sample.staleness_ms for sample in regime), default=math.nan),
        "vwap_5m": ratio(value, volume, mid),
        "ofi_5m": math.fsum(sample.order_flow for sample in pairs),
        "trade_imbalance_5m": ratio(net, volume, 0.0),
    }


def mid_signals(mids: Sequence[float], config: FeatureConfig) -> dict[str, float]:
    """Return the signals of the latest mids, oldest first: each 0 until there are enough of them."""
    seen, k, m, lag = len(mids), config.momentum_steps, config.ma_steps, config.trend_lag_steps
    mid = mids[-1] if mids else math.nan
    momentum = trend = reversion = 0.0
    if seen > k:
        momentum = (mid - mids[-1 - k]) / mids[-1 - k]
    if seen >= m:
        # The sum of the differences, rounded once: what a mean of large prices would not leave of it.
        reversion = math.fsum([*mids[-m:], *[-mid] * m]) / m / mid
    if seen >= m + lag:
        before = mids[-m - lag : -lag]
        trend = abs(math.fsum([*mids[-m:], *(-earlier for earlier in before)])) / m / lag / mid
    return {"momentum": momentum, "trend_strength": trend, "mean_reversion": reversion}


def spread_percentile(spreads: Sequence[float]) -> float:
    """Return the average rank of the last spread among all, as a share of their number; 0 for none."""
    if not spreads:
        return 0.0
    less = sum(spread < spreads[-1] for spread in spreads)
    equal = sum(spread == spreads[-1] for spread in spreads)
    return (2 * less + equal + 1) / (2 * len(spreads))


class ReferenceEngine:
    """Features of one symbol's events, each recomputed from its definition.

    Parameters
    ----------
    config : FeatureConfig
        Every parameter of the features.

    Attributes
    ----------
    row : numpy.ndarray
        float64[F] in the order of the schema, rewritten in place by each accepted event; NaN before the first.

    Examples
    --------
    >>> engine = ReferenceEngine(FeatureConfig(tick_size=0.01))
    >>> engine.push_quote(1_000_000, 0.49, 0.51, 3.0, 1.0)
    >>> [float(x) for x in engine.row[:4].round(4)]
    [0.5, 0.49, 0.51, 0.02]
    """

    def __init__(self, config: FeatureConfig) -> None:
        self.config = config
        self.row: FloatArray = np.full(len(config.feature_names), np.nan)
        self._weights = config.level_weights()
        self._recent_size = max(config.vol_window, config.sigma_long_steps + 1) + 1
        if config.signals:
            longest = max(config.momentum_steps + 1, config.ma_steps + config.trend_lag_steps)
            self._recent_size = max(self._recent_size, longest)
        self._state = State()

    @property
    def last_ts_ns(self) -> int:
        """Time of the last accepted event, ns; 0 before the first."""
        return self._state.last_ts_ns

    def push_quote(
        self, ts_ns: int, bid: float, ask: float, bid_depth: float, ask_depth: float, now_ns: int = 0
    ) -> None:
        """Fold a book event without levels; EventError, and nothing changes, when it is refused."""
        bid, ask, bid_depth, ask_depth = float(bid), float(ask), float(bid_depth), float(ask_depth)
        check_quote(bid, ask, bid_depth, ask_depth)
        self._accept_book(ts_ns, one_level(bid, bid_depth), one_level(ask, ask_depth), now_ns)

    def push_book(
        self,
        ts_ns: int,
        bids: FloatArray,
        asks: FloatArray,
        now_ns: int = 0,
        *,
        bid: float = 0.0,
        ask: float = 0.0,
        is_padded: bool = False,
    ) -> None:
        """Fold a book event with levels, (n, 2) prices and sizes, best first.

        A stated `bid` or `ask` other than 0 must be the best level's. `is_padded` lets a pair of NaN end a side.
        """
        check_quote(bid, ask, 0.0, 0.0)
        bid_side = read_side(bids, self._weights, "bids", is_padded=is_padded)
        ask_side = read_side(asks, self._weights, "asks", is_padded=is_padded)
        check_levels_match(bid, ask, bid_side, ask_side)
        self._accept_book(ts_ns, unless_taken(bid_side), unless_taken(ask_side), now_ns)

    def push_trade(self, ts_ns: int, price: float, size: float, aggressor: int, now_ns: int = 0) -> None:
        """Fold a trade; EventError, and nothing changes, when it is refused."""
        price, size = float(price), float(size)
        check_trade(price, size, aggressor)
        state = self._state
        check_time(ts_ns, now_ns, state.last_ts_ns)
        state.last_ts_ns = ts_ns
        state.trades.append(TradePrint(state.mid_count, ts_ns, price, size, aggressor))
        self._drop_old()
        self._write_row(self._staleness_ms(now_ns))

    def run(self, columns: EventColumns, out: FloatArray) -> RunReport:
        """Push every row of a batch and write its features to `out`, NaN where the row was refused."""
        first: dict[str, int] = {}
        rejected: dict[str, int] = {}
        for i in range(columns.rows):
            try:
                self._push_row(columns, i)
            except EventError as error:
                out[i] = np.nan
                first.setdefault(error.reason, i)
                rejected[error.reason] = rejected.get(error.reason, 0) + 1
            else:
                out[i] = self.row
        return RunReport(columns.rows, columns.rows - sum(rejected.values()), rejected, first)

    def snapshot(self) -> bytes:
        """Return the whole state, versioned and checksummed."""
        self._state.row = self.row.tolist()
        return seal("reference", self.config, msgspec.msgpack.encode(self._state))

    def restore(self, data: bytes) -> None:
        """Take the state of a snapshot; ValueError, and nothing changes, when it is damaged or not of this config."""
        try:
            state = msgspec.msgpack.decode(unseal("reference", self.config, data), type=State)
        except msgspec.MsgspecError as error:
            raise ValueError(f"the snapshot is damaged: {error}") from error
        if len(state.row) != len(self.row):
            raise ValueError("the snapshot is damaged: its row has another length")
        self._state = state
        self.row[:] = state.row

    def _push_row(self, columns: EventColumns, i: int) -> None:
        def read(column: npt.NDArray[Any] | None, absent: Any = 0.0) -> Any:
            return absent if column is None else column[i].item()

        def levels(column: FloatArray | None) -> FloatArray:
            return _NO_LEVELS if column is None or np.isnan(column[i, :1]).all() else column[i]

        ts_ns = self._state.last_ts_ns + IMPLICIT_STEP_NS
        if columns.ts is not None:
            ts_ns = scaled_time(read(columns.ts) or read(columns.ts_fallback, 0), columns.ns_per_ts)
        now_ns = read(columns.now_ns, 0)
        kind = read(columns.kind, 0)
        check_kind(kind)
        if kind == 1:
            self.push_trade(ts_ns, read(columns.price), read(columns.size), read(columns.aggressor, 0), now_ns)
            return
        bid, ask = read(columns.bid), read(columns.ask)
        bids, asks = levels(columns.bids), levels(columns.asks)
        if len(bids) or len(asks):
            self.push_book(ts_ns, bids, asks, now_ns, bid=bid, ask=ask, is_padded=True)
        else:
            self.push_quote(ts_ns, bid, ask, read(columns.bid_depth), read(columns.ask_depth), now_ns)

    def _accept_book(self, ts_ns: int, bid: BookSide, ask: BookSide, now_ns: int) -> None:
        state = self._state
        check_time(ts_ns, now_ns, state.last_ts_ns)
        check_sides(bid, ask)
        state.last_ts_ns = state.book_ts_ns = ts_ns
        state.bid, state.ask = bid, ask
        staleness_ms = self._staleness_ms(now_ns)
        if bid.price > 0.0 and ask.price > 0.0:
            self._add_mid(bid, ask, staleness_ms)
        self._drop_old()
        self._write_row(staleness_ms)

    def _add_mid(self, bid: BookSide, ask: BookSide, staleness_ms: float) -> None:
        state = self._state
        mid = (bid.price + ask.price) / 2.0
        last_return = flow = math.nan
        if state.mid_bid is not None and state.mid_ask is not None:
            last_return = log_return((state.mid_bid.price + state.mid_ask.price) / 2.0, mid)
            flow = order_flow(state.mid_bid, state.mid_ask, bid, ask)
        state.mid_count += 1
        state.mid_bid, state.mid_ask = bid, ask
        spread, depth = ask.price - bid.price, bid.depth + ask.depth
        sample = Sample(state.mid_count, state.last_ts_ns, mid, spread, depth, staleness_ms, last_return, flow)
        state.recent.append(sample)
        state.regime.append(sample)

    def _staleness_ms(self, now_ns: int) -> float:
        now = now_ns or self._state.last_ts_ns
        return max(0, now - self._state.book_ts_ns) / 1e6

    def _drop_old(self) -> None:
        """Bring each window to the present. The regime window keeps its last book sample, however old."""
        state, steps, window_ns = self._state, self.config.window_steps, self.config.window_ns
        horizon = state.last_ts_ns - window_ns if window_ns else -1
        oldest_mid = max(1, state.mid_count - steps + 1) if steps else 0
        while len(state.recent) > self._recent_size:
            state.recent.pop(0)
        regime, trades = state.regime, state.trades
        while len(regime) > 1 and (regime[0].number < oldest_mid or regime[0].ts_ns <= horizon):
            regime.pop(0)
        while trades and (trades[0].mid_number < oldest_mid or trades[0].ts_ns <= horizon):
            trades.pop(0)

    def _write_row(self, staleness_ms: float) -> None:
        state, config = self._state, self.config
        if state.bid is None or state.ask is None:
            features = _NO_BOOK
        else:
            features = book_features(state.bid, state.ask, config, staleness_ms)
        features = (
            features
            | volatility_features(state.recent, config)
            | regime_features(state.regime, state.trades, features["mid"])
        )
        if config.signals:
            features |= mid_signals([sample.mid for sample in state.recent], config)
            features["spread_percentile"] = spread_percentile([sample.spread for sample in state.regime])
        self.row[:] = [features[name] for name in config.feature_names]
