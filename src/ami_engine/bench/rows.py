"""What a row of features costs others: bottleneck's and polars' rolling columns of the same windows."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from ami_engine.bench.case import Case, Prepared, Scale, require
from ami_engine.bench.inputs import CONFIG, Market, market, returns
from ami_engine.features import FeatureBuilder

__all__ = ["BOTTLENECK_ROW", "PANDAS_ROW", "POLARS_ROW", "compare"]

FloatArray = npt.NDArray[np.float64]

SHORT, RUNS, VOL, LONG, REGIME = 20, 82, 50, 299, 300


class _Columns:
    """What the rolling columns are made from; making them is not timed."""

    def __init__(self, quotes: Market) -> None:
        self.quotes = quotes
        self.returns = returns(quotes)
        self.spread = quotes.ask - quotes.bid
        self.depth = quotes.bid_depth + quotes.ask_depth
        self.staleness = (quotes.now_ns - quotes.ts_ns) / 1e6


def compare(answer: dict[str, FloatArray], quotes: Market, rtol: float) -> None:
    """Hold a peer's columns against the engine's rows, from where every window is full."""
    builder = FeatureBuilder(CONFIG)
    rows = builder.run(quotes.table)[REGIME + 1 :]
    for name, column in answer.items():
        ours, theirs = rows[:, builder.names.index(name)], column[REGIME + 1 :]
        # The z of a spike is a difference of near-equal numbers over a small one.
        atol = 1e-4 if name == "sigma_spike_z" else 0.0
        require(np.allclose(ours, theirs, rtol=rtol, atol=atol), f"column {name} differs from the engine's")


def _spike(short: FloatArray, mean: FloatArray, std: FloatArray) -> FloatArray:
    spike = np.zeros(len(short))
    np.divide(short - mean, std, out=spike, where=std > 0.0)
    return spike


def _prepare_bottleneck(scale: Scale) -> Prepared:
    bn: Any = import_module("bottleneck")
    quotes = market(scale.rows)
    c = _Columns(quotes)

    def run() -> tuple[FloatArray, ...]:
        short = bn.move_std(c.returns, SHORT, 1)
        return (
            short,
            bn.move_std(c.returns, VOL, 1),
            bn.move_std(c.returns, LONG, 1),
            bn.move_mean(short, RUNS, 1),
            bn.move_std(short, RUNS, 1),
            bn.move_median(c.spread, REGIME, 1),
            bn.move_median(c.depth, REGIME, 1),
            bn.move_max(c.staleness, REGIME, 1),
        )

    def check() -> None:
        short, vol, long, mean, std, spread, depth, staleness = run()
        answer = {
            "sigma": vol,
            "sigma_5m": long,
            "sigma_spike_z": _spike(short, mean, std),
            "spread_med_5m": spread,
            "staleness_max_5m": staleness,
        }
        compare(answer, quotes, rtol=1e-6)
        last = float(np.median(c.depth[-REGIME:]))
        require(float(depth[-1]) == last, "median of depth differs from NumPy's")

    return Prepared(run, check, scale.rows)


def _prepare_polars(scale: Scale) -> Prepared:
    pl: Any = import_module("polars")
    quotes = market(scale.rows)
    c = _Columns(quotes)
    frame = pl.DataFrame({name: getattr(c, name) for name in ("returns", "spread", "depth", "staleness")})
    col = pl.col
    columns = [
        col("returns").rolling_std(SHORT, min_samples=1, ddof=0).alias("short"),
        col("returns").rolling_std(VOL, min_samples=1, ddof=0).alias("sigma"),
        col("returns").rolling_std(LONG, min_samples=1, ddof=0).alias("sigma_5m"),
        col("spread").rolling_median(REGIME, min_samples=1).alias("spread_med_5m"),
        col("depth").rolling_quantile(0.1, "linear", window_size=REGIME, min_samples=1).alias("depth_p10_5m"),
        col("staleness").rolling_max(REGIME, min_samples=1).alias("staleness_max_5m"),
    ]
    runs = [
        col("short").rolling_mean(RUNS, min_samples=1).alias("mean"),
        col("short").rolling_std(RUNS, min_samples=1, ddof=0).alias("std"),
    ]

    def run() -> Any:
        return frame.select(columns).with_columns(runs)

    def check() -> None:
        require(pl.thread_pool_size() == 1, "polars must run on one thread: set POLARS_MAX_THREADS=1")
        table = run()
        names = ("sigma", "sigma_5m", "spread_med_5m", "depth_p10_5m", "staleness_max_5m")
        answer = {name: table[name].to_numpy() for name in names}
        spike = (table["short"] - table["mean"]) / table["std"]
        compare(answer | {"sigma_spike_z": spike.to_numpy()}, quotes, rtol=1e-6)

    return Prepared(run, check, scale.rows)


def _prepare_pandas(scale: Scale) -> Prepared:
    pd: Any = import_module("pandas")
    quotes = market(scale.rows)
    c = _Columns(quotes)
    changes, spread, depth, staleness = (pd.Series(x) for x in (c.returns, c.spread, c.depth, c.staleness))

    def run() -> dict[str, Any]:
        short = changes.rolling(SHORT, 1).std(ddof=0)
        runs = short.rolling(RUNS, 1)
        return {
            "sigma": changes.rolling(VOL, 1).std(ddof=0),
            "sigma_5m": changes.rolling(LONG, 1).std(ddof=0),
            "sigma_spike_z": (short - runs.mean()) / runs.std(ddof=0),
            "spread_med_5m": spread.rolling(REGIME, 1).median(),
            "depth_p10_5m": depth.rolling(REGIME, 1).quantile(0.1),
            "staleness_max_5m": staleness.rolling(REGIME, 1).max(),
        }

    def check() -> None:
        compare({name: column.to_numpy() for name, column in run().items()}, quotes, rtol=1e-6)

    return Prepared(run, check, scale.rows)


BOTTLENECK_ROW = Case(
    "row.bottleneck",
    "bottleneck, batch: 8 rolling columns (std 20, 50, 299; mean and std of 82; median of spread and of depth; max)",
    _prepare_bottleneck,
    "ns/row",
    needs=("bottleneck",),
    is_peer=True,
)
POLARS_ROW = Case(
    "row.polars",
    "polars, batch, one thread: the same with the true 10th percentile of depth",
    _prepare_polars,
    "ns/row",
    needs=("polars",),
    is_peer=True,
)
PANDAS_ROW = Case(
    "row.pandas",
    "pandas, batch: the same with the true 10th percentile of depth",
    _prepare_pandas,
    "ns/row",
    needs=("pandas",),
    is_peer=True,
    rounds=3,
)
