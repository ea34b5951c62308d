"""What a run may be told: `run_loop`'s options, checked before anything is made of them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from ami_engine.config import ExitConfig, QuotingConfig
from ami_engine.dmc.risk_policy import RiskPolicy
from ami_engine.errors import ConfigError
from ami_engine.execution.idempotency import OrderIdFormat
from ami_engine.execution.order_table import DEFAULT_SETTLE_MS
from ami_engine.execution.reconciler import DEFAULT_RECONCILE_MS
from ami_engine.features.feature_config import FeatureConfig
from ami_engine.loop.latches import Release
from ami_engine.ops.controls import Controls
from ami_engine.portfolio.trading_day import TradingDay
from ami_engine.state_store import Durability, StateStore
from ami_engine.trace.trace_logger import FlushPolicy, TraceLogger
from ami_engine.trace.write_queue import QueuePolicy
from ami_engine.units import Instrument

__all__ = ["GUARDED", "RunOptions", "read_options"]


def GUARDED(*_: Any) -> Any:
    """Stand for "the engine's own modulator": None already means unguarded."""
    raise TypeError("GUARDED is a mark, not a modulator")


_TYPES: dict[str, tuple[type, ...]] = {
    "dry_run": (bool,),
    "resume": (bool,),
    "overwrite": (bool,),
    "run_id": (str, type(None)),
    "run_dir": (str, Path, type(None)),
    "market_id": (str, type(None)),
    "risk_policy": (RiskPolicy, type(None)),
    "instrument": (Instrument, type(None)),
    "feature_config": (FeatureConfig, type(None)),
    "trace": (bool, str, TraceLogger),
    "trace_queue": (str, type(None)),
    "trace_queue_packets": (int,),
    "trace_max_bytes": (int,),
    "trace_max_files": (int,),
    "activity": (bool,),
    "seed": (int,),
    "timer_ms": (int, float, type(None)),
    "controls": (bool, Controls, type(None)),
    "trading_day": (TradingDay, type(None)),
    "source_attempts": (int,),
    "source_backoff_ms": (int, float),
    "start_cash": (int, float),
    "journal": (str, Path, StateStore, type(None)),
    "durability": (str, type(None)),
    "settle_ms": (int, float),
    "order_id_format": (OrderIdFormat, type(None)),
    "reconcile_every_ms": (int, float),
}


class RunOptions(msgspec.Struct, kw_only=True):
    """Options of `run_loop`, beside source, broker and steps.

    Parameters
    ----------
    dry_run : bool
        Decide and trace everything, send nothing.
    run_id : str or None
        Default: a hash of config, source identity and seed; live runs add the start time.
    run_dir : path or None
        Where trace and audit log go. Default ``./runs/<run_id>``, then ``-2``, ``-3`` … when taken. One that is given
        and not empty is refused unless `resume` or `overwrite`.
    market_id : str or None
        Name of the market for the broker; default: the events' symbol.
    executor : Executor or None
        Carries decisions out in the one-shot form instead of the loop's own order manager.
    decision_engine, modulator, risk_policy, position_manager, instrument, feature_config
        Parts of your own; `modulator=None` runs proposals unguarded and says so.
    trace : bool, {"jsonl", "binary"} or TraceLogger
        Write a trace: True and "jsonl" as JSON lines, "binary" in the compact form.
    trace_queue : {"block", "drop", "stop"} or None
        Write the trace in a thread, and what becomes of a packet when the disk lags behind; None writes it at once.
    trace_queue_packets : int
        How many packets may wait for that thread.
    trace_max_bytes, trace_max_files : int
        Size at which the trace's next file is begun, and how many files are kept; 0 for one file, and for all.
    activity : bool
        Write every fill and every change of the own quotes to ``activity.jsonl``, for `ami plot`. Needs a folder.
    clock : Clock or None
        The decision clock; default: event time for recorded sources, wall time for live ones.
    progress : callable or None
        Called with the number of steps every 1 000.
    seed : int
        Goes into the run id.
    timer_ms : float or None
        Period of the timers of a silent symbol, 0 for none; default 100, and none after a bar.
    on_bad_event : {"skip", "stop"}
        Count a bad event and go on, or end the run.
    quoting : QuotingConfig
        How quotes are kept.
    start_cash : float
        Equity at the start.
    release : tuple of Release
        Latches of an earlier run that an operator releases before this one begins; one named "operator" releases the
        pause or the reducing that an operator ordered in it.
    controls : bool, Controls or None
        Whether an operator can command the run: True listens at ``<run_dir>/control.sock`` for `ami control`; an object
        of your own is obeyed, and with a `run_dir` the socket serves it too. Default: on for live sources that have a
        `run_dir`, off for recorded ones.
    trading_day : TradingDay or None
        When the day of the daily loss limit begins; default midnight UTC.
    labels : dict
        What else decides, and goes into the run id: arguments of a model, the paper venue's assumptions.
    flush : {"none", "interval", "every"}
        When the trace goes to the disk.
    source_attempts : int
        Failures of the source in a row that end the run.
    source_backoff_ms : float
        Wait after its first failure, doubled with each further one.
    journal : path, StateStore or None
        Where orders, fills and latches are kept, so that a crash or a restart loses none: a new start on the same
        journal goes on where the last one ended. Default for a live run: ``journal.sqlite`` in `run_dir`; without one
        in ``./runs/live/<run id without the start time>``, where the next start of the same run finds it and its
        latches, and a second process is refused. None else, and none for a live run with neither `run_dir` nor `trace`.
    durability : {"full", "normal", "off"} or None
        What a commit of the journal survives (`StateStore`); default "full".
    order_id_format : OrderIdFormat or None
        What client order ids look like, where the venue wants other ones than 32 letters and digits.
    settle_ms : float
        How long a request may be on its way: only then does "the venue knows nothing of it" prove anything.
    reconcile_every_ms : float
        With a journal, how often orders, fills and positions are compared with the venue; 0 only at the start and after
        a reconnect.
    """

    dry_run: bool = False
    run_id: str | None = None
    run_dir: str | Path | None = None
    resume: bool = False
    overwrite: bool = False
    market_id: str | None = None
    executor: Any = None
    decision_engine: Any = None
    modulator: Any = GUARDED
    risk_policy: RiskPolicy | None = None
    position_manager: Any = None
    instrument: Instrument | None = None
    feature_config: FeatureConfig | None = None
    trace: Any = True
    trace_queue: QueuePolicy | None = None
    trace_queue_packets: int = 8192
    trace_max_bytes: int = 0
    trace_max_files: int = 0
    activity: bool = False
    clock: Any = None
    progress: Callable[[int], None] | None = None
    seed: int = 0
    timer_ms: float | None = None
    on_bad_event: str = "skip"
    quoting: QuotingConfig | None = None
    exits: ExitConfig | None = None
    backend: str = "auto"
    start_cash: float = 0.0
    release: tuple[Release, ...] = ()
    controls: Any = None
    trading_day: TradingDay | None = None
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    flush: FlushPolicy = "interval"
    source_attempts: int = 5
    source_backoff_ms: float = 50.0
    journal: Any = None
    durability: Durability | None = None
    order_id_format: OrderIdFormat | None = None
    settle_ms: float = DEFAULT_SETTLE_MS
    reconcile_every_ms: float = DEFAULT_RECONCILE_MS


def read_options(options: Mapping[str, Any]) -> RunOptions:
    """Return the options of a run.

    Raises
    ------
    ConfigError
        When one is unknown, or wrong.
    """
    known = RunOptions.__struct_fields__
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean `{close[0]}`?" if close else f"; known: {', '.join(known)}"
            raise ConfigError(f"`{name}` is no option of run_loop{hint}")
    given = RunOptions(**options)
    _check_types(given)
    if given.resume and given.overwrite:
        raise ConfigError("`resume` and `overwrite` exclude each other, both were True")
    if given.market_id == "":
        raise ConfigError("`market_id` must not be empty")
    if isinstance(given.trace, str) and given.trace not in ("jsonl", "binary"):
        raise ConfigError(f"`trace` must be True, False, 'jsonl', 'binary' or a TraceLogger, was {given.trace!r}")
    if isinstance(given.trace, TraceLogger):
        for name in ("trace_queue", "trace_max_bytes", "trace_max_files"):
            if getattr(given, name):
                raise ConfigError(f"`{name}` is for a trace that the run opens; `trace` is a TraceLogger of your own")
    if given.activity and given.trace is False and given.run_dir is None:
        raise ConfigError("`activity` needs a folder to write to: give `run_dir`, or leave `trace` on")
    if given.on_bad_event not in ("skip", "stop"):
        raise ConfigError(f"`on_bad_event` must be 'skip' or 'stop', was {given.on_bad_event!r}")
    return given


def _check_types(given: RunOptions) -> None:
    for name, kind in _TYPES.items():
        value = getattr(given, name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind in ((int,), (int, float))):
            wanted = " or ".join("None" if each is type(None) else each.__name__ for each in kind)
            raise ConfigError(f"`{name}` must be {wanted}, was {value!r}")
    for name, method in (("clock", "now_ns"), ("executor", "run"), ("position_manager", "should_flatten")):
        part = getattr(given, name)
        if part is not None and not callable(getattr(part, method, None)):
            raise ConfigError(f"`{name}` must have a method `{method}`, was {part!r}")
    if given.decision_engine is not None and not callable(getattr(given.decision_engine, "propose", None)):
        raise ConfigError(f"`decision_engine` must have a method `propose`, was {given.decision_engine!r}")
    if not math.isfinite(given.start_cash):
        raise ConfigError(f"`start_cash` must be finite, was {given.start_cash!r}")
    if given.source_attempts < 1:
        raise ConfigError(f"`source_attempts` must be at least 1, was {given.source_attempts!r}")
