"""Parameters of the features: the one place of their defaults. Every backend is handed all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from ami_engine.errors import BackendError, ConfigError
from ami_engine.features.schema import ALIASES, BASE_FEATURE_COUNT, BASE_SCHEMA_HASH, FEATURE_NAMES, SCHEMA_HASH
from ami_engine.units import ns_from_ms

__all__ = ["FeatureConfig", "check_reads", "check_row_of"]

_MAX_WINDOW_MS = (2**63 - 1) // 1_000_000
_MAX_STEPS = 10_000_000
_MAX_LEVELS = 1_000


class FeatureConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of the features.

    Parameters
    ----------
    tick_size : float
        Price step, quote currency, > 0.
    levels : int
        N, how many levels of each side the depth features read, 1 … 1000.
    vol_window : int
        Log returns in `sigma`, at least 2.
    window_5m_steps : int or None
        Regime window by count: so many mids, at least 1. None: not limited by count.
    window_5m_ms : float or None
        Regime window by time, ms: events strictly later than now − window. None: not limited by time. With both the
        tighter one counts; one of them must be given.
    sigma_short_steps, sigma_long_steps : int
        Run length and number of log returns of `sigma_spike_z`; 2 <= short <= long.
    imbalance_lambda : float
        λ of the level weights exp(−λ(i−1)), >= 0.
    fee_ticks, slippage_ticks, buffer_ticks : float
        Summands of `cost_ticks`, ticks.
    signals : bool
        Whether the row ends with the signal features. Without them it is shorter, and they cost nothing.
    momentum_steps : int
        Mids that `momentum` looks back, at least 1.
    ma_steps, trend_lag_steps : int
        Mids of the average in `trend_strength` and `mean_reversion`, and how many mids the trend's two averages lie
        apart; each at least 1.

    Raises
    ------
    ConfigError
        When a value is outside its range.

    Examples
    --------
    >>> FeatureConfig(tick_size=0.25, levels=2).level_weights()
    (1.0, 0.4965853037914095)
    >>> FeatureConfig(vol_window=1)
    Traceback (most recent call last):
    ...
    ami_engine.errors.ConfigError: `vol_window` must be an integer from 2 to 10000000, was 1
    """

    tick_size: float = 0.01
    levels: int = 10
    vol_window: int = 50
    window_5m_steps: int | None = 300
    window_5m_ms: float | None = None
    sigma_short_steps: int = 20
    sigma_long_steps: int = 100
    imbalance_lambda: float = 0.7
    fee_ticks: float = 0.0
    slippage_ticks: float = 0.5
    buffer_ticks: float = 0.5
    signals: bool = True
    momentum_steps: int = 10
    ma_steps: int = 20
    trend_lag_steps: int = 5

    def __post_init__(self) -> None:
        _check_number("tick_size", self.tick_size)
        if self.tick_size <= 0:
            raise ConfigError(f"`tick_size` must be > 0, was {self.tick_size!r}")
        _check_integer("levels", self.levels, 1, _MAX_LEVELS)
        _check_integer("vol_window", self.vol_window, 2, _MAX_STEPS)
        _check_integer("sigma_short_steps", self.sigma_short_steps, 2, _MAX_STEPS)
        _check_integer("sigma_long_steps", self.sigma_long_steps, 2, _MAX_STEPS)
        if self.sigma_short_steps > self.sigma_long_steps:
            raise ConfigError(
                f"`sigma_short_steps` must be at most `sigma_long_steps` ({self.sigma_long_steps}), "
                f"was {self.sigma_short_steps}"
            )
        if self.window_5m_steps is None and self.window_5m_ms is None:
            raise ConfigError("one of `window_5m_steps` and `window_5m_ms` must be given, both were None")
        if self.window_5m_steps is not None:
            _check_integer("window_5m_steps", self.window_5m_steps, 1, _MAX_STEPS)
        if self.window_5m_ms is not None:
            _check_number("window_5m_ms", self.window_5m_ms)
            if not 0 < self.window_5m_ms <= _MAX_WINDOW_MS or self.window_ns == 0:
                raise ConfigError(f"`window_5m_ms` must be > 0 and at most {_MAX_WINDOW_MS}, was {self.window_5m_ms!r}")
        _check_number("imbalance_lambda", self.imbalance_lambda)
        if self.imbalance_lambda < 0:
            raise ConfigError(f"`imbalance_lambda` must be at least 0, was {self.imbalance_lambda!r}")
        for name in ("fee_ticks", "slippage_ticks", "buffer_ticks"):
            _check_number(name, getattr(self, name))
        if not isinstance(self.signals, bool):
            raise ConfigError(f"`signals` must be True or False, was {self.signals!r}")
        for name in ("momentum_steps", "ma_steps", "trend_lag_steps"):
            _check_integer(name, getattr(self, name), 1, _MAX_STEPS)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features in the order of a row."""
        return FEATURE_NAMES if self.signals else FEATURE_NAMES[:BASE_FEATURE_COUNT]

    @property
    def schema_hash(self) -> str:
        """What the order and the meaning of a row's features are known by."""
        return SCHEMA_HASH if self.signals else BASE_SCHEMA_HASH

    @property
    def signal_steps(self) -> tuple[int, ...]:
        """`momentum_steps`, `ma_steps` and `trend_lag_steps`; nothing where signals are off."""
        return (self.momentum_steps, self.ma_steps, self.trend_lag_steps) if self.signals else ()

    @property
    def window_ns(self) -> int:
        """Regime window by time, ns; 0 when it is off."""
        return 0 if self.window_5m_ms is None else ns_from_ms(self.window_5m_ms)

    @property
    def window_steps(self) -> int:
        """Regime window by count, mids; 0 when it is off."""
        return 0 if self.window_5m_steps is None else self.window_5m_steps

    @property
    def cost_ticks(self) -> float:
        """The feature `cost_ticks`, ticks."""
        return self.fee_ticks + self.slippage_ticks + self.buffer_ticks

    def level_weights(self) -> tuple[float, ...]:
        """Return exp(−λ(i−1)) for i = 1 … levels: computed here once, so that every backend has the same bits."""
        return tuple(math.exp(-self.imbalance_lambda * i) for i in range(self.levels))


def check_row_of(model: object, config: FeatureConfig) -> None:
    """Refuse a model that reads rows by position, when its positions are those of other rows.

    Parameters
    ----------
    model : object
        Its attribute `schema_hash`, where it has one, says what rows it was written for.
    config : FeatureConfig
        Of the rows that it would be given.

    Raises
    ------
    BackendError
        When they differ.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> model = SimpleNamespace(schema_hash=FeatureConfig(signals=False).schema_hash)
    >>> check_row_of(model, FeatureConfig(signals=False))
    >>> check_row_of(model, FeatureConfig())  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ami_engine.errors.BackendError: the model was written for rows without signals (feature schema ...
    """
    known = getattr(model, "schema_hash", config.schema_hash)
    if known != config.schema_hash:
        layouts = {SCHEMA_HASH: "rows with signals", BASE_SCHEMA_HASH: "rows without signals"}
        raise BackendError(
            f"the model was written for {layouts.get(known, 'other rows')} (feature schema {known}), this run has "
            f"{layouts[config.schema_hash]} ({config.schema_hash}): set `signals` of the FeatureConfig to match"
        )


def check_reads(model: str, reads: Iterable[str], config: FeatureConfig) -> None:
    """Refuse a model that reads features by name which the rows do not have.

    Parameters
    ----------
    model : str
        What the model is called.
    reads : iterable of str
        Names of features, aliases among them, that it reads.
    config : FeatureConfig
        Of the rows that it would be given.

    Raises
    ------
    ConfigError
        Naming the model and what it would miss.

    Examples
    --------
    >>> check_reads("acme-maker", ("mid", "momentum"), FeatureConfig())
    >>> check_reads("acme-maker", ("mid", "momentum"), FeatureConfig(signals=False))
    Traceback (most recent call last):
    ...
    ami_engine.errors.ConfigError: the model acme-maker reads momentum, which rows without `signals` lack: leave them on
    """
    missing = [name for name in reads if ALIASES.get(name, name) not in config.feature_names]
    unknown = [name for name in missing if name not in FEATURE_NAMES]
    if unknown:
        raise ConfigError(f"the model {model} reads {', '.join(unknown)}: this version has no such feature")
    if missing:
        raise ConfigError(
            f"the model {model} reads {', '.join(missing)}, which rows without `signals` lack: leave them on"
        )


def _check_integer(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"`{name}` must be an integer from {low} to {high}, was {value!r}")


def _check_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f"`{name}` must be a finite number, was {value!r}")
