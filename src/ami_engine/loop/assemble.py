"""Config to parts: everything that a run needs, made and checked before anything starts."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from ami_engine import clock as clocks
from ami_engine.adapters.base import REQUIRED_BEFORE_LIVE, Broker, DataSource
from ami_engine.config import ExitConfig, QuotingConfig, RunConfig, run_id_of
from ami_engine.dmc.kill_switch import LatchFile, LatchStore, write_durably
from ami_engine.dmc.policy_hook import assemble_modulator
from ami_engine.dmc.risk_policy import RiskPolicy
from ami_engine.dmc.risk_state import RiskState
from ami_engine.errors import ConfigError, TraceError
from ami_engine.execution.broker_edge import supports
from ami_engine.execution.journal import Journal
from ami_engine.execution.order_manager import OrderManager
from ami_engine.execution.order_table import DEFAULT_SETTLE_MS
from ami_engine.features.feature_config import FeatureConfig
from ami_engine.loop.audit_edge import AuditEdge
from ami_engine.loop.durable import Durable, JournaledLatches
from ami_engine.loop.feed import LiveFeed, RecordedFeed, RetryPolicy, SourceReader, Timers
from ami_engine.loop.latches import LATCH_FILE_NAME, Latches, Release
from ami_engine.loop.market import Market
from ami_engine.loop.native_run import NativeSettings, compiled_step
from ami_engine.loop.run import Run
from ami_engine.loop.step import MarketParts, Modulate
from ami_engine.loop.summary import RunCounters
from ami_engine.loop.symbol_state import SymbolState
from ami_engine.loop.trading import OPERATOR_WORD, Trading
from ami_engine.mdm.decision_engine import DecisionEngine
from ami_engine.mdm.position_manager import PositionManager
from ami_engine.ops.activity import ACTIVITY_FILE_NAME, ActivityLog
from ami_engine.ops.control_socket import ControlServer, has_control_sockets
from ami_engine.ops.controls import Controls
from ami_engine.portfolio.pnl import Account
from ami_engine.portfolio.trading_day import TradingDay
from ami_engine.security.audit import AUDIT_FILE_NAME, AuditLogger
from ami_engine.security.redaction import redact_secrets
from ami_engine.state_store import Durability, StateStore
from ami_engine.trace.trace_logger import FlushPolicy, TraceLogger
from ami_engine.trace.write_queue import QueuePolicy
from ami_engine.units import Instrument

__all__ = ["GUARDED", "PROVIDED_CONTEXT", "RunOptions", "assemble"]

_RUNS = Path("runs")
_LIVE = _RUNS / "live"
CONFIG_FILE_NAME = "run.json"
JOURNAL_FILE_NAME = "journal.sqlite"
_DEFAULT_TICK_SIZE = 0.01
_DEFAULT_TIMER_MS = 100.0
_DEFAULT_RECONCILE_MS = 30_000.0
# What the loop provides of a market's context: a key that should be there and is not must hold, not pass.
PROVIDED_CONTEXT = (
    "now_ms",
    "last_event_ts_ms",
    "mid",
    "spread_bps",
    "depth",
    "depth_p10_5m",
    "sigma_5m",
    "spread_med_5m",
    "sigma_spike_z",
    "cost_ticks",
    "current_total_exposure_usd",
    "abs_inventory",
    "open_orders",
    "active_markets",
    "equity_usd",
    "drawdown_usd",
)


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
    settle_ms: float = DEFAULT_SETTLE_MS
    reconcile_every_ms: float = _DEFAULT_RECONCILE_MS


def assemble(source: DataSource, broker: Broker, *, should_stop: Callable[[], bool], **options: Any) -> Run:
    """Make a run of its parts.

    Raises
    ------
    ConfigError
        When an option is unknown or wrong, the run's directory is taken, or a live run's broker lacks what it needs.
        Nothing was started.
    """
    given = _options(options)
    if source.is_live and not given.dry_run:
        _check_broker(broker)
    instruments = dict(source.instruments())
    default = _default_instrument(given, instruments)
    if given.market_id is not None and len(instruments) > 1:
        raise ConfigError(f"`market_id` names one market; the source has {len(instruments)}: {', '.join(instruments)}")
    policy = given.risk_policy or RiskPolicy()
    quoting = given.quoting or QuotingConfig()
    exits = given.exits or ExitConfig()
    config = _config(given, source, policy, quoting, exits, instruments, default)
    required = msgspec.structs.replace(policy, required_context=(*policy.required_context, *PROVIDED_CONTEXT))
    is_live = bool(source.is_live)
    clock = given.clock if given.clock is not None else (clocks.WallClock() if is_live else None)
    started_ns = clocks.WallClock().now_ns() if is_live else 0
    identity = source.identity or type(source).__name__
    run_id = given.run_id or run_id_of(config, identity, started_ns=started_ns)
    # What must outlive a start is found by the next one, whose run id has another start time.
    place = _live_dir(given, given.run_id or run_id_of(config, identity, started_ns=0)) if is_live else None
    folder = _run_dir(given, run_id) if place is None else None
    journal = _open_journal(given, run_id, place or folder, started_ns)
    try:
        if journal is not None:
            run_id = journal.run_id
        if place is not None:
            folder = _run_dir(given, run_id)
        _check_latches(given, folder)
        start = _Start(config, policy, required, instruments, default, clock, started_ns, folder, place or folder)
        return _run_of(given, source, broker, start, run_id, journal, should_stop)
    except BaseException:
        if journal is not None and journal.store is not given.journal:
            journal.store.close()
        raise


def _check_broker(broker: Broker) -> None:
    missing = [name for name in REQUIRED_BEFORE_LIVE if not supports(broker, name)]
    if missing:
        raise ConfigError(
            f"{type(broker).__name__} cannot trade live: write {', '.join(missing)}, or send nothing (`dry_run`)"
        )


class _Start(msgspec.Struct, frozen=True):
    """What was worked out of the options before anything was opened."""

    config: RunConfig
    policy: RiskPolicy
    required: RiskPolicy
    instruments: dict[str, Instrument]
    default: Instrument
    clock: clocks.Clock | None
    started_ns: int
    folder: Path | None
    place: Path | None  # of latches and the operator's word


def _run_of(
    given: RunOptions,
    source: DataSource,
    broker: Broker,
    start: _Start,
    run_id: str,
    journal: Journal | None,
    should_stop: Callable[[], bool],
) -> Run:
    with ExitStack() as opened:
        run = _make_run(given, source, broker, start, run_id, journal, should_stop, opened)
        opened.pop_all()  # the run closes what it holds
    return run


def _make_run(
    given: RunOptions,
    source: DataSource,
    broker: Broker,
    start: _Start,
    run_id: str,
    journal: Journal | None,
    should_stop: Callable[[], bool],
    opened: ExitStack,
) -> Run:
    config, policy, required, default = start.config, start.policy, start.required, start.default
    instruments, clock, folder, is_live = start.instruments, start.clock, start.folder, bool(source.is_live)
    quoting, exits = config.quoting, config.exits
    trace, audit = _open_logs(given, run_id, folder, clock, opened)
    activity = _open_activity(given, folder)
    if activity is not None:
        opened.callback(activity.close)
    _keep_config(given, folder, run_id, config, (required, policy), source, audit)
    latches = Latches(start.place, audit, store=_latch_store(start.place, journal))
    latches.release(each for each in given.release if each.name != OPERATOR_WORD)
    market = Market(
        instruments,
        default_instrument=default,
        config=given.feature_config,
        backend=given.backend,
        unique_seq=source.unique_seq,
        snapshots_only=source.snapshots_only,
    )
    reader = SourceReader(
        source,
        RetryPolicy(clocks.sleep, attempts=given.source_attempts, backoff_ms=given.source_backoff_ms),
        clock if is_live else None,
    )
    timers = Timers(config.timer_ms)
    feed: RecordedFeed | LiveFeed
    if is_live:
        feed = LiveFeed(reader, market, timers, clock or clocks.WallClock(), should_stop=should_stop)
    else:
        feed = RecordedFeed(reader, market, timers)
    modulate = _modulator(given, audit)
    engine = given.decision_engine or DecisionEngine(confidence_threshold=config.confidence_threshold, audit=audit)
    if getattr(engine, "audit", audit) is None:
        engine.audit = audit  # an engine that was made without a log gets the run's

    accounts: list[RiskState] = []  # the first market's, whose money all share

    def parts_for(state: SymbolState) -> MarketParts:
        # One name fits one market: a second symbol keeps its own.
        is_named = given.market_id is not None and (not market.states or next(iter(market.states)) == state.symbol)
        market_id = given.market_id if is_named and given.market_id else state.symbol or "default"
        tick_size = state.instrument.tick_size
        positions = given.position_manager or PositionManager(
            tp_ticks=exits.tp_ticks, sl_ticks=exits.sl_ticks, tick_size=tick_size, T_max_ms=exits.T_max_ms
        )
        risk = RiskState(
            policy,
            tick_size,
            post_fill_cooldown_ms=quoting.post_fill_cooldown_ms,
            trading_day=given.trading_day,
            account=accounts[0] if accounts else None,
        )
        accounts.append(risk)
        return MarketParts(
            state,
            market_id,
            engine=engine,
            modulate=modulate,
            policy=policy if state.generic is not None else required,
            risk=risk,
            positions=positions,
        )

    order_instruments = {given.market_id or symbol: instrument for symbol, instrument in instruments.items()}
    orders = OrderManager(
        broker,
        refresh_ms=quoting.refresh_ms,
        min_requote_ticks=quoting.min_requote_ticks,
        order_ttl_ms=quoting.order_ttl_ms,
        post_fill_cooldown_ms=quoting.post_fill_cooldown_ms,
        max_replacements_per_min=quoting.max_replacements_per_min,
        instrument=default,
        instruments=order_instruments,
        run_id=_order_run_id(run_id, start.started_ns, audit if given.resume else None),
        audit=audit,
        halts_on_strangers=given.executor is None,
        journal=journal,
        settle_ms=given.settle_ms,
        reconcile_every_ms=given.reconcile_every_ms,
    )
    account = Account(order_instruments, instrument=default, cash=given.start_cash)
    trading = Trading(
        orders=orders,
        account=account,
        latches=latches,
        policy=policy,
        folder=start.place,
        audit=audit,
        is_resumed=given.resume or start.place is not folder,
        journal=journal,
    )
    if journal is not None:
        trading.bound_worst_case()
    trading.begin(each for each in given.release if each.name == OPERATOR_WORD)
    controls, server = _open_controls(given, folder, is_live=is_live)
    if server is not None:
        opened.callback(server.close)
    run = Run(
        run_id=run_id,
        feed=feed,
        market=market,
        parts_for=parts_for,
        broker=broker,
        orders=orders,
        executor=given.executor,
        account=account,
        timers=timers,
        clock=clock,
        latches=latches,
        trading=trading,
        controls=controls,
        control_server=server,
        durable=None if journal is None else Durable(journal, closes_store=not isinstance(given.journal, StateStore)),
        trace=trace,
        audit=audit,
        activity=activity,
        counters=RunCounters(),
        stop_on_bad_event=given.on_bad_event == "stop",
        is_dry=given.dry_run,
        staleness_ms=policy.staleness_ms,
        progress=given.progress,
        native=None if is_live or journal or activity else _native(given, policy, quoting, exits),
        facts={
            "source": source,
            "reader": reader,
            "times_bars": given.timer_ms is not None,
            "notes": _notes(given, has_journal=journal is not None, is_live=is_live),
            "policy_hash": required.policy_hash if given.modulator is not None else None,
        },
    )
    if isinstance(feed, LiveFeed):
        feed.on_silence = run.obey
    return run


def _notes(given: RunOptions, *, has_journal: bool, is_live: bool) -> list[str]:
    """Return what a reader of the summary has to know of how the run was set up."""
    notes = ["no modulator: proposals ran unguarded"] if given.modulator is None else []
    if is_live and not has_journal and not given.dry_run:
        notes.append("no journal: after a crash the next start knows none of this run's orders")
    return notes


def _open_controls(given: RunOptions, folder: Path | None, *, is_live: bool) -> tuple[Controls, ControlServer | None]:
    """Return what the operator commands, and the socket that hears him, where there is one."""
    controls = given.controls if isinstance(given.controls, Controls) else Controls()
    is_wanted = is_live if given.controls is None else given.controls is not False
    if given.controls is True and folder is None:
        raise ConfigError("`controls` True listens in the run's directory: give `run_dir`, or a Controls of your own")
    if not is_wanted or folder is None or (given.controls is not True and not has_control_sockets()):
        return controls, None
    return controls, ControlServer(folder, controls)


def _check_latches(given: RunOptions, folder: Path | None) -> None:
    """Refuse a run that begins anew where something is latched: only an operator's word ends that, not a flag."""
    if folder is None or given.resume:
        return
    named = {release.name for release in given.release}
    held = [latch for latch in LatchFile(folder / LATCH_FILE_NAME).load() if latch.name not in named]
    if held:
        texts = ", ".join(f"{latch.name}: {latch.reason}" for latch in held)
        raise ConfigError(
            f"a run that begins anew in {str(folder)!r} would forget what is latched ({texts}): `release` it"
        )


def _latch_store(place: Path | None, journal: Journal | None) -> LatchStore | None:
    """Return where latches are kept beside the folder's own file; None where that is all."""
    if journal is None:
        return None
    return JournaledLatches(journal, None if place is None else LatchFile(place / LATCH_FILE_NAME))


def _open_journal(given: RunOptions, run_id: str, place: Path | None, started_ns: int) -> Journal | None:
    """Open the run's journal: the one that is given, a live run's own, or none."""
    where = given.journal
    if given.executor is not None or given.dry_run:
        if where is not None:
            what = "`dry_run` sends none" if given.dry_run else "an `executor` sends its own"
            raise ConfigError(f"`journal` keeps the orders that the engine sends: {what}")
        return None
    if where is None:
        if not started_ns or place is None:
            if given.durability is not None:
                raise ConfigError("`durability` is for a journal: give `journal`, or a live run a `run_dir`")
            return None
        where = place / JOURNAL_FILE_NAME
    if isinstance(where, StateStore):
        if given.durability is not None:
            raise ConfigError("`durability` is for a journal that the run opens; `journal` is a StateStore of your own")
        store = where
    else:
        if given.overwrite and Path(where).exists():
            raise ConfigError(f"`overwrite` does not replace a journal: resume {str(where)!r}, or choose another place")
        Path(where).parent.mkdir(parents=True, exist_ok=True)
        store = StateStore(where, durability=given.durability or "full")
    try:
        salt = f"@{started_ns}" if started_ns else ""
        return Journal(store, run_id=given.run_id or "", new_run_id=run_id, salt=salt, begun_ns=started_ns)
    except BaseException:
        if store is not where:
            store.close()
        raise


def _native(given: RunOptions, policy: RiskPolicy, quoting: QuotingConfig, exits: ExitConfig) -> NativeSettings | None:
    """Return what the compiled step needs, None where it cannot stand in; the rest is seen at the first event.

    A run that is resumed goes on in Python, where what it did before is known.
    """
    core = compiled_step()
    if (
        core is None
        or given.resume
        or given.modulator is not GUARDED
        or any(part is not None for part in (given.clock, given.executor, given.position_manager, given.trading_day))
    ):
        return None
    times_bars = given.timer_ms is not None
    return NativeSettings(core, policy, quoting, exits, float(given.start_cash), times_bars, given.dry_run)


def _order_run_id(run_id: str, started_ns: int, resumed: AuditEdge | None) -> str:
    """Return what client order ids are made of: never what an earlier run of the same name made its own of.

    A live run adds when it started. A resumed one adds how many audit records there are: every order has one, on disk
    before it is sent, so that the number has grown even where the trace's last packets were lost.
    """
    return run_id + (f"@{started_ns}" if started_ns else "") + (f"+{resumed.records}" if resumed is not None else "")


def _options(options: Mapping[str, Any]) -> RunOptions:
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


def _default_instrument(given: RunOptions, instruments: dict[str, Instrument]) -> Instrument:
    """The instrument of symbols that the source does not describe; one that the user gave comes first for all."""
    if given.instrument is not None:
        for symbol in instruments:
            instruments[symbol] = msgspec.structs.replace(given.instrument, symbol=symbol)
        return given.instrument
    unnamed = instruments.pop("", None)  # what a source says of any symbol that it does not name
    if unnamed is not None:
        return unnamed
    # Money of one account is counted in one currency: an unknown market is taken to settle in that of the known ones.
    currency = next((known.currency for known in instruments.values()), "USD")
    tick_size = given.feature_config.tick_size if given.feature_config is not None else _DEFAULT_TICK_SIZE
    return Instrument("", tick_size=tick_size, currency=currency)


def _config(
    given: RunOptions,
    source: DataSource,
    policy: RiskPolicy,
    quoting: QuotingConfig,
    exits: ExitConfig,
    instruments: dict[str, Instrument],
    default: Instrument,
) -> RunConfig:
    parts = {
        name: _name_of(getattr(given, name))
        for name in ("decision_engine", "executor", "position_manager")
        if getattr(given, name) is not None
    }
    if given.modulator is not GUARDED:
        parts["modulator"] = _name_of(given.modulator)
    if given.trading_day is not None:
        parts["trading_day"] = f"{given.trading_day.zone} {given.trading_day.start}"
    parts.update(given.labels)
    engine = given.decision_engine
    timer_ms = given.timer_ms
    if timer_ms is None:
        timer_ms = _DEFAULT_TIMER_MS
    return RunConfig(
        model=str(getattr(engine, "model_name", "default")),
        confidence_threshold=float(getattr(engine, "confidence_threshold", 0.5)),
        policy=policy,
        features=given.feature_config,
        quoting=quoting,
        exits=exits,
        instruments=instruments,
        instrument=default,
        market_id=given.market_id,
        timer_ms=timer_ms,
        on_bad_event=given.on_bad_event,  # type: ignore[arg-type]
        dry_run=given.dry_run,
        seed=given.seed,
        parts=parts,
    )


def _name_of(part: Any) -> str:
    kind = part if hasattr(part, "__qualname__") else type(part)
    return f"{kind.__module__}.{kind.__qualname__}"


def _modulator(given: RunOptions, audit: AuditEdge | None) -> Modulate | None:
    if given.modulator is GUARDED:
        return assemble_modulator(audit)
    if given.modulator is None or callable(given.modulator):
        return given.modulator  # type: ignore[no-any-return]
    raise ConfigError(f"`modulator` must be callable or None, was {type(given.modulator).__name__}")


def _open_logs(
    given: RunOptions, run_id: str, folder: Path | None, clock: clocks.Clock | None, opened: ExitStack
) -> tuple[TraceLogger | None, AuditEdge | None]:
    """Open trace and audit log; `opened` closes what was opened here when the start goes no further."""
    if folder is None:
        return None, None
    if isinstance(given.trace, TraceLogger):
        return given.trace, _open_audit(folder, clock, opened)
    folder.mkdir(parents=True, exist_ok=True)
    if given.overwrite:
        (folder / AUDIT_FILE_NAME).unlink(missing_ok=True)
    trace = None
    if given.trace:
        trace = TraceLogger(
            run_id,
            run_dir=folder,
            flush=given.flush,
            resume=given.resume,
            overwrite=given.overwrite,
            format="jsonl" if given.trace is True else given.trace,
            max_bytes=given.trace_max_bytes,
            max_files=given.trace_max_files,
            queue=given.trace_queue,
            queue_packets=given.trace_queue_packets,
        )
        opened.callback(trace.close)
    return trace, _open_audit(folder, clock, opened)


def _open_audit(folder: Path, clock: clocks.Clock | None, opened: ExitStack) -> AuditEdge:
    audit = AuditEdge(AuditLogger(folder, clock or clocks.WallClock()))
    opened.callback(audit.close)
    return audit


def _open_activity(given: RunOptions, folder: Path | None) -> ActivityLog | None:
    if folder is not None and given.activity:
        return ActivityLog(folder, is_resumed=given.resume)
    if folder is not None and given.overwrite:
        (folder / ACTIVITY_FILE_NAME).unlink(missing_ok=True)  # of the run that is replaced
    return None


def _keep_config(
    given: RunOptions,
    folder: Path | None,
    run_id: str,
    config: RunConfig,
    policies: tuple[RiskPolicy, ...],
    source: DataSource,
    audit: AuditEdge | None,
) -> None:
    """Write what the run was made of beside its trace: an explanation needs the policy that a packet's hash names.

    A resumed run adds its policies to those of the packets that are there already.
    """
    if folder is None:
        return
    path = folder / CONFIG_FILE_NAME
    earlier = _policies_of(path) if given.resume else {}
    record = redact_secrets(
        {
            "run_id": run_id,
            "source": source.identity,
            "config": msgspec.to_builtins(config),
            "policies": earlier | {policy.policy_hash: msgspec.to_builtins(policy) for policy in policies},
        }
    )
    write_durably(path, msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
    if audit is not None:
        audit.record("run_start", run_id=run_id, source=source.identity)


def _policies_of(path: Path) -> dict[str, Any]:
    """Return the policies of a run's earlier starts, by hash."""
    try:
        kept = msgspec.json.decode(path.read_bytes()).get("policies", {})
    except FileNotFoundError:
        return {}
    except (msgspec.DecodeError, AttributeError, OSError) as error:
        raise TraceError(
            f"{path}: cannot be read, so the policies of earlier packets would be lost: {error}"
        ) from error
    return dict(kept)


def _run_dir(given: RunOptions, run_id: str) -> Path | None:
    """Return the folder of the run's files, None for a run that is to leave none."""
    if isinstance(given.trace, TraceLogger):
        return given.trace.path.parent
    if given.trace is False and given.run_dir is None:
        return None
    if given.run_dir is None:
        return _free_dir(_RUNS / _file_name(run_id))
    folder = Path(given.run_dir)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"`run_dir` must be a directory, was the file {str(folder)!r}")
    if folder.is_dir() and any(folder.iterdir()) and not (given.resume or given.overwrite):
        raise ConfigError(
            f"`run_dir` {str(folder)!r} is not empty: "
            "choose another, or `resume` (append to) or `overwrite` (replace) it"
        )
    return folder


def _live_dir(given: RunOptions, key: str) -> Path | None:
    """Return where a live run without a folder of its own keeps what must outlive it, None where that is elsewhere."""
    if given.run_dir is not None or given.journal is not None or given.trace is False or given.dry_run:
        return None
    return None if isinstance(given.trace, TraceLogger) else _LIVE / _file_name(key)


def _file_name(run_id: str) -> str:
    return re.sub(r"[^\w.-]", "_", run_id)


def _free_dir(folder: Path) -> Path:
    if not folder.exists():
        return folder
    number = 2
    while (folder.parent / f"{folder.name}-{number}").exists():
        number += 1
    return folder.parent / f"{folder.name}-{number}"
