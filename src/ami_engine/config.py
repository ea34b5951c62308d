"""Settings of a run, composed of the settings of its parts, and what a run is named by.

Everything that can change a decision is in `RunConfig`, so that its hash, with the source's identity, names the run:
two runs with one id made the same decisions.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, Literal

import msgspec

from ami_engine.dmc.risk_policy import RiskPolicy
from ami_engine.errors import ConfigError
from ami_engine.features.feature_config import FeatureConfig
from ami_engine.units import Instrument

__all__ = ["ExitConfig", "QuotingConfig", "RunConfig", "run_id_of"]


def _require(condition: bool, name: str, rule: str, value: object) -> None:
    if not condition:
        raise ConfigError(f"`{name}` must be {rule}, was {value!r}")


class QuotingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How resting quotes are kept: see `execution.order_manager.OrderManager`. Times in ms."""

    refresh_ms: int = 500
    min_requote_ticks: float = 1.0
    order_ttl_ms: int = 0
    post_fill_cooldown_ms: int = 0
    max_replacements_per_min: int = 0


class ExitConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a position is closed: see `mdm.position_manager.PositionManager`."""

    tp_ticks: float = 1
    sl_ticks: float = 3
    T_max_ms: int = 120_000


class RunConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that can change a decision.

    Parameters
    ----------
    timer_ms : float
        Period of the timers of a silent symbol, ms; 0 is off.
    on_bad_event : {"skip", "stop"}
        Count a bad event and go on, or end the run with the reason.
    seed : int
        Handed to whatever draws random numbers.
    model : str
        Name of the model, for the record.

    Examples
    --------
    >>> RunConfig(timer_ms=-1)
    Traceback (most recent call last):
    ...
    ami_engine.errors.ConfigError: `timer_ms` must be finite and >= 0, was -1
    """

    model: str = "reference"
    model_args: dict[str, Any] = msgspec.field(default_factory=dict)
    confidence_threshold: float = 0.5
    policy: RiskPolicy | None = msgspec.field(default_factory=RiskPolicy)
    features: FeatureConfig | None = None
    quoting: QuotingConfig = msgspec.field(default_factory=QuotingConfig)
    exits: ExitConfig = msgspec.field(default_factory=ExitConfig)
    instruments: dict[str, Instrument] = msgspec.field(default_factory=dict)
    instrument: Instrument | None = None
    market_id: str | None = None
    timer_ms: float = 100.0
    on_bad_event: Literal["skip", "stop"] = "skip"
    dry_run: bool = False
    seed: int = 0
    parts: dict[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(math.isfinite(self.timer_ms) and self.timer_ms >= 0, "timer_ms", "finite and >= 0", self.timer_ms)
        _require(self.on_bad_event in ("skip", "stop"), "on_bad_event", "'skip' or 'stop'", self.on_bad_event)
        _require(0 <= self.confidence_threshold <= 1, "confidence_threshold", "in [0, 1]", self.confidence_threshold)


def run_id_of(config: RunConfig, source_identity: str, *, started_ns: int = 0) -> str:
    """Return the run's name: a hash of config (the seed is in it) and source; live runs add when they started.

    >>> run_id_of(RunConfig(seed=1), "x") == run_id_of(RunConfig(seed=1), "x") != run_id_of(RunConfig(seed=2), "x")
    True
    """
    text = msgspec.json.encode({"config": config, "source": source_identity, "started_ns": started_ns}, order="sorted")
    return "run-" + hashlib.sha256(text).hexdigest()[:16]
