"""Cases: other people's streaming statistics, one event at a time from Python, the eight columns of `rows`."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from ami_engine.bench.case import Case, Prepared, Scale, require
from ami_engine.bench.inputs import Market, market, returns
from ami_engine.bench.rows import LONG, REGIME, RUNS, SHORT, VOL

__all__ = ["RIVER", "SCREAMER"]


class _Answer(NamedTuple):
    sigma: float
    sigma_5m: float
    run_mean: float
    run_std: float
    spread_median: float
    depth_p10: float
    staleness_max: float


def _inputs(quotes: Market) -> list[tuple[float, float, float, float]]:
    columns = (
        returns(quotes)[1:],
        (quotes.ask - quotes.bid)[1:],
        (quotes.bid_depth + quotes.ask_depth)[1:],
        ((quotes.now_ns - quotes.ts_ns) / 1e6)[1:],
    )
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _expected(quotes: Market) -> _Answer:
    changes = returns(quotes)
    runs = np.lib.stride_tricks.sliding_window_view(changes[-(RUNS + SHORT - 1) :], SHORT).std(axis=1)
    return _Answer(
        float(changes[-VOL:].std()),
        float(changes[-LONG:].std()),
        float(runs.mean()),
        float(runs.std()),
        float(np.median((quotes.ask - quotes.bid)[-REGIME:])),
        float(np.percentile((quotes.bid_depth + quotes.ask_depth)[-REGIME:], 10)),
        float(((quotes.now_ns - quotes.ts_ns) / 1e6)[-REGIME:].max()),
    )


def _check(answer: _Answer, quotes: Market) -> None:
    for name, ours, theirs in zip(_Answer._fields, _expected(quotes), answer, strict=True):
        require(math.isclose(ours, theirs, rel_tol=1e-4), f"{name} was {theirs!r}, must be {ours!r}")


def _prepare_river(scale: Scale) -> Prepared:
    stats: Any = import_module("river.stats")
    rolling: Any = import_module("river.utils").Rolling
    quotes = market(min(scale.calls, 10_000))
    events = _inputs(quotes)

    def run() -> _Answer:
        short, vol, long, run_std = (
            rolling(stats.Var, window_size=window, ddof=0) for window in (SHORT, VOL, LONG, RUNS)
        )
        run_mean = rolling(stats.Mean, window_size=RUNS)
        median, tenth = stats.RollingQuantile(0.5, REGIME), stats.RollingQuantile(0.1, REGIME)
        highest = stats.RollingMax(REGIME)
        answer = None
        for change, spread, depth, staleness in events:
            short.update(change)
            vol.update(change)
            long.update(change)
            deviation = math.sqrt(short.get())
            run_mean.update(deviation)
            run_std.update(deviation)
            median.update(spread)
            tenth.update(depth)
            highest.update(staleness)
            answer = (vol.get(), long.get(), run_mean.get(), run_std.get(), median.get(), tenth.get(), highest.get())
        assert answer is not None
        sigma, sigma_5m, mean, spike, *rest = answer
        return _Answer(math.sqrt(sigma), math.sqrt(sigma_5m), mean, math.sqrt(spike), *rest)

    return Prepared(run, lambda: _check(run(), quotes), len(events))


def _prepare_screamer(scale: Scale) -> Prepared:
    library: Any = import_module("screamer")
    quotes = market(min(scale.calls, 10_000))
    events = _inputs(quotes)

    def run() -> _Answer:
        short, vol, long, run_std = (library.RollingStd(window) for window in (SHORT, VOL, LONG, RUNS))
        run_mean = library.RollingMean(RUNS)
        median, tenth = library.RollingMedian(REGIME), library.RollingQuantile(REGIME, 0.1)
        highest = library.RollingMax(REGIME)
        answer = (0.0,) * 7
        for change, spread, depth, staleness in events:
            deviation = short(change)
            sigma, sigma_5m = vol(change), long(change)
            # It answers NaN until a window is full, and a NaN would stay in the next one.
            mean, spike = (run_mean(deviation), run_std(deviation)) if deviation == deviation else (0.0, 0.0)
            answer = (sigma, sigma_5m, mean, spike, median(spread), tenth(depth), highest(staleness))
        # Its deviations are those of a sample (ddof = 1).
        sigma, sigma_5m, mean, spike, *rest = answer
        short_scale = _population(SHORT)
        return _Answer(
            sigma * _population(VOL),
            sigma_5m * _population(LONG),
            mean * short_scale,
            spike * _population(RUNS) * short_scale,
            *rest,
        )

    return Prepared(run, lambda: _check(run(), quotes), len(events))


def _population(window: int) -> float:
    return math.sqrt((window - 1) / window)


RIVER = Case(
    "updates.river",
    "river: the eight columns, one event at a time",
    _prepare_river,
    needs=("river",),
    is_peer=True,
    rounds=3,
)
SCREAMER = Case(
    "updates.screamer",
    "screamer: the eight columns, one event at a time",
    _prepare_screamer,
    needs=("screamer",),
    is_peer=True,
    rounds=3,
)
