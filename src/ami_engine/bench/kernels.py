"""Cases: each rolling kernel alone, compiled core against numba, and bottleneck where it has the like."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from ami_engine.bench.case import Case, Group, Prepared, Ratio, Scale, require
from ami_engine.bench.inputs import market, returns

__all__ = ["GROUP"]

FloatArray = npt.NDArray[np.float64]

# Name of the row: kernel, window, column.
KERNELS = {
    "std_20": ("std", 20, "returns"),
    "std_50": ("std", 50, "returns"),
    "std_299": ("std", 299, "returns"),
    "median_spread": ("median", 300, "spread"),
    "median_depth": ("median", 300, "depth"),
    "p10_depth": ("p10", 300, "depth"),
    "max_staleness": ("max", 300, "staleness"),
    "log_return": ("log_return", 1, "mid"),
}
_BOTTLENECK = {"std": "move_std", "median": "move_median", "max": "move_max"}


def _column(name: str, rows: int) -> FloatArray:
    quotes = market(rows)
    if name == "returns":
        return returns(quotes)
    if name == "spread":
        return quotes.ask - quotes.bid
    if name == "depth":
        return quotes.bid_depth + quotes.ask_depth
    if name == "staleness":
        return (quotes.now_ns - quotes.ts_ns) / 1e6
    return quotes.mid


def _expected(kernel: str, values: FloatArray, window: int) -> FloatArray:
    """Return the answer for the last hundred full windows, each from its own samples."""
    if kernel == "log_return":
        return np.asarray(np.log1p(np.diff(values) / values[:-1])[-100:])
    windows = np.lib.stride_tricks.sliding_window_view(values, window)[-100:]
    if kernel == "std":
        return np.asarray(windows.std(axis=1))
    if kernel == "median":
        return np.asarray(np.median(windows, axis=1))
    if kernel == "p10":
        return np.asarray(np.percentile(windows, 10, axis=1))
    return np.asarray(windows.max(axis=1))


def _prepare(row: str, engine: str, scale: Scale) -> Prepared:
    kernel, window, column = KERNELS[row]
    values = _column(column, scale.rows)
    out = np.empty(len(values))
    if engine == "bottleneck":
        move: Any = getattr(import_module("bottleneck"), _BOTTLENECK[kernel])

        def run() -> None:
            out[:] = move(values, window, 1)
    elif engine == "native":
        native: Any = import_module("ami_engine._core").bench_kernel

        def run() -> None:
            native(kernel, values, window, out)
    else:
        numba: Any = import_module("ami_engine.bench.kernels_numba").run_kernel

        def run() -> None:
            numba(kernel, values, window, out)

    def check() -> None:
        run()
        # Bottleneck's moments drift: it is held to what it can keep.
        rtol = 1e-4 if engine == "bottleneck" else 1e-9
        expected = _expected(kernel, values, window)
        require(np.allclose(out[-100:], expected, rtol=rtol, atol=0.0), f"{engine} {row} differs from NumPy's answer")

    return Prepared(run, check, len(values))


def _cases() -> tuple[Case, ...]:
    cases = []
    for row, (kernel, window, column) in KERNELS.items():
        what = f"{kernel} of {column}" + (f", window {window}" if window > 1 else "")
        engines = {"native": "ami_engine._core", "numba": "numba", "bottleneck": "bottleneck"}
        for engine, package in engines.items():
            if engine == "bottleneck" and kernel not in _BOTTLENECK:
                continue

            def prepare(scale: Scale, row: str = row, engine: str = engine) -> Prepared:
                return _prepare(row, engine, scale)

            cases.append(
                Case(
                    f"kernels.{row}.{engine}",
                    f"{what}, {engine}",
                    prepare,
                    needs=(package,),
                    is_peer=engine == "bottleneck",
                )
            )
    return tuple(cases)


GROUP = Group(
    "kernels",
    _cases(),
    tuple(
        Ratio(
            f"kernel {row}: native / numba",
            "no claim: which is faster differs from kernel to kernel",
            f"kernels.{row}.native",
            f"kernels.{row}.numba",
        )
        for row in KERNELS
    ),
)
