"""The numba backend's kernels one by one, as the compiled core's are run by `_core.bench_kernel`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from ami_engine.features.backends import numba_layout as at
from ami_engine.features.backends.numba_moments import moments_replace, moments_std, ring_push, ring_slot
from ami_engine.features.backends.numba_order import (
    maximum_drop,
    maximum_push,
    median,
    quantile,
    quantile_push,
    quantile_replace,
)
from ami_engine.features.backends.numba_rolling import COMPILE_OPTIONS
from ami_engine.features.backends.numba_rolling import log_return as log_return_of
from ami_engine.features.backends.numba_state import first_state
from ami_engine.features.feature_config import FeatureConfig

__all__ = ["run_kernel"]

FloatArray = npt.NDArray[np.float64]


def _std(f: Any, i: Any, values: Any, window: int, out: Any) -> None:
    for k in range(len(values)):
        moments_replace(i, at.REGIME_MOMENTS, f[ring_slot(i, at.RETURNS, k - window)], values[k])
        ring_push(f, i, at.RETURNS, values[k])
        out[k] = moments_std(i, at.REGIME_MOMENTS, min(k + 1, window))


def _median(f: Any, i: Any, values: Any, window: int, out: Any) -> None:
    mask = i[at.MID_MASK]
    for k in range(len(values)):
        if k < window:
            quantile_push(f, i, at.SPREADS, mask, at.MEDIAN, k, values[k])
        else:
            quantile_replace(f, i, at.SPREADS, mask, k - window, k, values[k])
        out[k] = median(f, i, at.SPREADS)


def _p10(f: Any, i: Any, values: Any, window: int, out: Any) -> None:
    mask = i[at.MID_MASK]
    for k in range(len(values)):
        if k < window:
            quantile_push(f, i, at.DEPTHS, mask, at.TENTH, k, values[k])
        else:
            quantile_replace(f, i, at.DEPTHS, mask, k - window, k, values[k])
        out[k] = quantile(f, i, at.DEPTHS, at.TENTH)


def _max(f: Any, i: Any, values: Any, window: int, out: Any) -> None:
    mask = i[at.MID_MASK]
    for k in range(len(values)):
        maximum_push(f, i, at.STALENESS, mask, k, values[k])
        maximum_drop(i, at.STALENESS, mask, k + 1 - window)
        out[k] = f[i[at.STALENESS + at.QUEUE_VALUES] + (i[at.STALENESS + at.QUEUE_FIRST] & mask)]


def _log_return(f: Any, i: Any, values: Any, window: int, out: Any) -> None:
    out[0] = 0.0
    for k in range(1, len(values)):
        out[k] = log_return_of(values[k], values[k - 1])


_SIGNATURE = "void(float64[::1], int64[::1], float64[::1], int64, float64[::1])"
_KERNELS = {"std": _std, "median": _median, "p10": _p10, "max": _max, "log_return": _log_return}
_compiled: dict[str, Any] = {}


def run_kernel(name: str, values: FloatArray, window: int, out: FloatArray) -> None:
    """Run one rolling kernel over `values`; compiled when it is first asked for. `window` is at most 500."""
    if name not in _compiled:
        _compiled[name] = njit(_SIGNATURE, **COMPILE_OPTIONS)(_KERNELS[name])
    state = first_state(FeatureConfig(vol_window=max(window, 2), window_5m_steps=window))
    _compiled[name](state.f, state.i, values, window, out)
