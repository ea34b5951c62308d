"""Cases: a batch of quotes into all features, per backend, and against what others do in a batch."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from ami_engine.bench.case import Case, Group, Prepared, Ratio, Scale, require
from ami_engine.bench.inputs import CONFIG, SIGNALS_CONFIG, Market, market, returns
from ami_engine.bench.rows import BOTTLENECK_ROW, PANDAS_ROW, POLARS_ROW
from ami_engine.features import FeatureBuilder, FeatureConfig

__all__ = ["GROUP", "WINDOWS_GROUP"]

FloatArray = npt.NDArray[np.float64]

_SHORT_WINDOW = 300
_LONG_WINDOW = 30_000


def _check_rows(builder: FeatureBuilder, quotes: Market, out: FloatArray, window: int = _SHORT_WINDOW) -> None:
    """Hold the last row against NumPy over the whole windows; `quotes` is everything that the builder saw."""
    row = dict(zip(builder.names, out[-1].tolist(), strict=True))
    depth = quotes.bid_depth + quotes.ask_depth
    changes = returns(quotes)
    runs = np.lib.stride_tricks.sliding_window_view(changes[-101:], 20).std(axis=1)
    expected = {
        "mid": float(quotes.mid[-1]),
        "sigma": float(changes[-50:].std()),
        "sigma_5m": float(changes[1 - window :].std()),
        "sigma_spike_z": float((runs[-1] - runs.mean()) / runs.std()),
        "spread_med_5m": float(np.median((quotes.ask - quotes.bid)[-window:])),
        "depth_p10_5m": float(np.percentile(depth[-window:], 10)),
        "staleness_max_5m": float((quotes.now_ns - quotes.ts_ns)[-window:].max() / 1e6),
    }
    if builder.config.signals:
        mids, spreads = quotes.mid, (quotes.ask - quotes.bid)[-window:]
        averages = (float(np.mean(mids[-20:] - mids[-1])), float(np.mean(mids[-25:-5] - mids[-1])))
        expected |= {
            "momentum": float((mids[-1] - mids[-11]) / mids[-11]),
            "trend_strength": abs(averages[0] - averages[1]) / 5 / float(mids[-1]),
            "mean_reversion": averages[0] / float(mids[-1]),
        }
        rank = float((spreads < spreads[-1]).sum() + ((spreads == spreads[-1]).sum() + 1) / 2)
        require(row["spread_percentile"] == rank / window, f"spread_percentile was {row['spread_percentile']!r}")
        for name in ("momentum", "trend_strength", "mean_reversion"):
            require(abs(row[name] - expected[name]) <= 1e-15, f"{name} was {row[name]!r}, must be {expected[name]!r}")
    for name, value in expected.items():
        require(abs(row[name] - value) <= 1e-8 * max(1.0, abs(value)), f"{name} was {row[name]!r}, must be {value!r}")
    require(np.isfinite(out).all(), "a row was refused")


def _prepare(backend: str, config: FeatureConfig, warm_up: int, scale: Scale) -> Prepared:
    window = config.window_steps
    quotes = market(scale.rows + warm_up)
    builder = FeatureBuilder(config, backend=backend)
    builder.run(quotes.part(0, warm_up).table)
    state = builder.snapshot()
    table = quotes.part(warm_up).table
    out = np.empty((scale.rows, len(builder.names)))

    def run() -> None:
        builder.run(table, out)

    def check() -> None:
        run()
        _check_rows(builder, quotes, out, window)
        if backend == "numba" and not import_module("ami_engine.features").available_backends()["native"]:
            native = FeatureBuilder(config, backend="native")
            native.run(quotes.part(0, warm_up).table)
            require(np.allclose(native.run(table), out, rtol=1e-12, atol=1e-6), "numba's rows differ from native's")

    return Prepared(run, check, scale.rows, reset=lambda: builder.restore(state))


def _prepare_native(scale: Scale) -> Prepared:
    return _prepare("native", CONFIG, 1_000, scale)


def _prepare_numba(scale: Scale) -> Prepared:
    return _prepare("numba", CONFIG, 1_000, scale)


def _prepare_signals(scale: Scale) -> Prepared:
    return _prepare("native", SIGNALS_CONFIG, 1_000, scale)


def _prepare_windows(window: int, scale: Scale) -> Prepared:
    config = FeatureConfig(tick_size=CONFIG.tick_size, window_5m_steps=window, signals=False)
    return _prepare("native", config, _LONG_WINDOW + 1_000, scale)


def _prepare_trades(scale: Scale) -> Prepared:
    """Every fifth row a trade at the quote before it."""
    quotes = market(scale.rows)
    kind = np.zeros(scale.rows, np.int64)
    kind[4::5] = 1
    draw = np.random.Generator(np.random.PCG64(2))
    aggressor = draw.choice(np.array([-1, 1]), scale.rows)
    price = np.where(aggressor > 0, quotes.ask, quotes.bid)
    size = np.round(draw.lognormal(-2.0, 1.0, scale.rows), 3) + 0.001
    table: dict[str, Any] = quotes.table | {"kind": kind, "price": price, "size": size, "aggressor": aggressor}
    out = np.empty((scale.rows, len(FeatureBuilder(CONFIG).names)))
    builders = [FeatureBuilder(CONFIG, backend="native")]

    def run() -> None:
        builders[0].run(table, out)

    def reset() -> None:
        builders[0] = FeatureBuilder(CONFIG, backend="native")

    def check() -> None:
        run()
        books = np.flatnonzero(kind == 0)
        last = int(books[books <= scale.rows - 1][-_SHORT_WINDOW])  # the oldest mid of the window
        trades = np.flatnonzero((kind == 1) & (np.arange(scale.rows) > last))
        volume = size[trades].sum()
        row = dict(zip(builders[0].names, out[-1].tolist(), strict=True))
        vwap = float((price[trades] * size[trades]).sum() / volume)
        net = float((aggressor[trades] * size[trades]).sum() / volume)
        require(abs(row["vwap_5m"] - vwap) < 1e-6, f"vwap_5m was {row['vwap_5m']!r}, must be {vwap!r}")
        require(abs(row["trade_imbalance_5m"] - net) < 1e-9, "trade_imbalance_5m differs from NumPy's")

    return Prepared(run, check, scale.rows, reset=reset)


GROUP = Group(
    "batch",
    (
        Case("batch.native", "native `run`, the 26 book and rolling features (`signals=False`: the claims were made "
             "before the signals existed), into a reused array", _prepare_native, "ns/row",
             needs=("ami_engine._core",)),
        Case("batch.native_signals", "the same with the four signals: the whole row of 30", _prepare_signals, "ns/row",
             needs=("ami_engine._core",)),
        Case("batch.native_trades", "`batch.native` with every fifth row a trade", _prepare_trades, "ns/row",
             needs=("ami_engine._core",)),
        Case("batch.numba", "numba `run`, the same 26 features, into a reused array", _prepare_numba, "ns/row",
             needs=("numba",)),
        BOTTLENECK_ROW,
        POLARS_ROW,
        PANDAS_ROW,
    ),
    (
        Ratio("batch / bottleneck", "batch row against bottleneck's 8 rolling columns",
              "batch.native", "row.bottleneck", reach=0.90, aim=0.60),
        Ratio("batch / polars", "batch row against polars, one thread, with the true p10",
              "batch.native", "row.polars", reach=0.55, aim=0.35),
        Ratio("batch with signals / bottleneck",
              "whole row with signals, of which the peers have none, against bottleneck's 8 rolling columns",
              "batch.native_signals", "row.bottleneck"),
        Ratio("signals / batch", "whole row with signals against the row without", "batch.native_signals",
              "batch.native"),
        Ratio("batch / pandas", "batch row against pandas with the true p10", "batch.native", "row.pandas"),
        Ratio("numba / native", "numba batch against native batch", "batch.numba", "batch.native", reach=2.0, aim=1.5),
    ),
)  # fmt: skip

WINDOWS_GROUP = Group(
    "windows",
    (
        Case("windows.300", "native batch row, regime window of 300 samples",
             lambda scale: _prepare_windows(_SHORT_WINDOW, scale), "ns/row", needs=("ami_engine._core",)),
        Case("windows.30000", "native batch row, regime window of 30 000 samples",
             lambda scale: _prepare_windows(_LONG_WINDOW, scale), "ns/row", needs=("ami_engine._core",)),
    ),
    (
        Ratio("window 30 000 / 300", "time per event, regime window of 30 000 against 300 samples",
              "windows.30000", "windows.300", reach=2.0, aim=1.5),
    ),
)  # fmt: skip
