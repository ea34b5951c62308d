"""The compiled backend: `_core.FeatureEngine` behind the interface that all backends share."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from ami_engine.errors import BackendError
from ami_engine.features.backends.state_bytes import seal, unseal
from ami_engine.features.columns import EventColumns, RunReport
from ami_engine.features.feature_config import FeatureConfig
from ami_engine.features.feature_vector import FeatureVector
from ami_engine.features.schema import SCHEMA_HASH

try:
    _core: Any = import_module("ami_engine._core")
except ModuleNotFoundError as error:
    if error.name != "ami_engine._core":
        raise
    raise BackendError("the compiled core `ami_engine._core` is not in this installation") from error

if _core.SCHEMA_HASH != SCHEMA_HASH:
    raise BackendError(
        f"the compiled core was built from feature schema {_core.SCHEMA_HASH}, this package has {SCHEMA_HASH}: "
        "build it again"
    )

FeatureVector.register(_core.FeatureVector)

__all__ = ["NativeEngine"]


class NativeEngine:
    """Features of one symbol's events in C++.

    `push`, `update` and the other calls are the core's own: no Python frame stands between them and the caller. They
    raise RuntimeError when another thread is using the engine.

    Parameters
    ----------
    config : FeatureConfig
        Every parameter of the features.

    Examples
    --------
    >>> engine = NativeEngine(FeatureConfig(tick_size=0.01))
    >>> engine.update(1_000_000, 0.49, 0.51, 3.0, 1.0).imbalance
    0.5
    """

    __slots__ = (
        "_core",
        "config",
        "push",
        "push_book",
        "push_from_book",
        "push_quote",
        "push_trade",
        "row",
        "update",
        "vector",
    )

    def __init__(self, config: FeatureConfig) -> None:
        core = _core.FeatureEngine(
            tick_size=config.tick_size,
            cost_ticks=config.cost_ticks,
            level_weights=list(config.level_weights()),
            vol_window=config.vol_window,
            window_steps=config.window_steps,
            window_ns=config.window_ns,
            sigma_short_steps=config.sigma_short_steps,
            sigma_long_steps=config.sigma_long_steps,
            signal_steps=list(config.signal_steps),
        )
        self._core = core
        self.config = config
        self.row: npt.NDArray[np.float64] = core.row
        self.push = core.push
        self.update = core.update
        self.vector = core.vector
        self.push_quote = core.push_quote
        self.push_book = core.push_book
        self.push_trade = core.push_trade
        self.push_from_book = core.push_from_book

    @property
    def core(self) -> _core.FeatureEngine:
        """The core's own object."""
        return self._core

    @property
    def last_ts_ns(self) -> int:
        """Time of the last accepted event, ns; 0 before the first."""
        return int(self._core.last_ts_ns)

    def run(self, columns: EventColumns, out: npt.NDArray[np.float64]) -> RunReport:
        """Write one row an event into `out`; the interpreter's lock is released meanwhile."""
        return RunReport(*self._core.run(*columns, out=out))

    def snapshot(self) -> bytes:
        """Return the whole state, versioned and checksummed."""
        return seal("native", self.config, self._core.snapshot())

    def restore(self, data: bytes) -> None:
        """Take the state of a snapshot; ValueError, and nothing changes, when it is damaged or not of this config."""
        self._core.restore(unseal("native", self.config, data))
