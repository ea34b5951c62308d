"""Config to parts: everything that a run needs, made and checked before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from ami_engine import clock as clocks
from ami_engine.adapters.base import REQUIRED_BEFORE_LIVE, Broker, DataSource
from ami_engine.config import ExitConfig, QuotingConfig, RunConfig, run_id_of
from ami_engine.dmc.policy_hook import assemble_modulator
from ami_engine.dmc.risk_policy import RiskPolicy
from ami_engine.dmc.risk_state import RiskState
from ami_engine.errors import ConfigError
from ami_engine.execution.broker_edge import supports
from ami_engine.execution.journal import Journal
from ami_engine.execution.order_manager import OrderManager
from ami_engine.features.feature_config import FeatureConfig, check_reads, check_row_of
from ami_engine.loop.audit_edge import AuditEdge
from ami_engine.loop.durable import Durable
from ami_engine.loop.feed import LiveFeed, RecordedFeed, RetryPolicy, SourceReader, Timers
from ami_engine.loop.latches import Latches
from ami_engine.loop.market import Market
from ami_engine.loop.native_run import NativeSettings, compiled_step
from ami_engine.loop.options import GUARDED, RunOptions, read_options
from ami_engine.loop.run import Run
from ami_engine.loop.run_files import (
    check_latches,
    keep_config,
    latch_store,
    live_dir,
    open_activity,
    open_journal,
    open_logs,
    run_dir,
)
from ami_engine.loop.step import MarketParts, Modulate
from ami_engine.loop.summary import RunCounters
from ami_engine.loop.symbol_state import SymbolState
from ami_engine.loop.trading import OPERATOR_WORD, Trading
from ami_engine.mdm.decision_engine import DecisionEngine, guarded_engine
from ami_engine.mdm.position_manager import PositionManager
from ami_engine.ops.control_socket import ControlServer, has_control_sockets
from ami_engine.ops.controls import Controls
from ami_engine.portfolio.pnl import Account
from ami_engine.state_store import StateStore
from ami_engine.units import Instrument

__all__ = ["PROVIDED_CONTEXT", "assemble"]

_DEFAULT_TICK_SIZE = 0.01
_DEFAULT_TIMER_MS = 100.0
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


def assemble(source: DataSource, broker: Broker, *, should_stop: Callable[[], bool], **options: Any) -> Run:
    """Make a run of its parts.

    Raises
    ------
    ConfigError
        When an option is unknown or wrong, the run's directory is taken, or a live run's broker lacks what it needs.
        Nothing was started.
    """
    for name, part, kind in (("source", source, DataSource), ("broker", broker, Broker)):
        if not isinstance(part, kind):
            raise ConfigError(f"`{name}` must be a subclass of ami_engine.adapters.{kind.__name__}, was {part!r}")
    given = read_options(options)
    engine = given.decision_engine or DecisionEngine()
    _check_model(engine, given.feature_config or FeatureConfig())
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
    place = live_dir(given, given.run_id or run_id_of(config, identity, started_ns=0)) if is_live else None
    folder = run_dir(given, run_id) if place is None else None
    journal = open_journal(given, run_id, place or folder, started_ns)
    try:
        if journal is not None:
            run_id = journal.run_id
        if place is not None:
            folder = run_dir(given, run_id)
        check_latches(given, folder)
        start = _Start(
            engine, config, policy, required, instruments, default, clock, started_ns, folder, place or folder
        )
        return _run_of(given, source, broker, start, run_id, journal, should_stop)
    except BaseException:
        if journal is not None and journal.store is not given.journal:
            journal.store.close()
        raise


def _check_model(engine: Any, config: FeatureConfig) -> None:
    check_row_of(getattr(engine, "model", None), config)
    if isinstance(engine, DecisionEngine):
        check_reads(engine.model_name, engine.reads, config)


def _check_broker(broker: Broker) -> None:
    missing = [name for name in REQUIRED_BEFORE_LIVE if not supports(broker, name)]
    if missing:
        raise ConfigError(
            f"{type(broker).__name__} cannot trade live: write {', '.join(missing)}, or send nothing (`dry_run`)"
        )


class _Start(msgspec.Struct, frozen=True):
    """What was worked out of the options before anything was opened."""

    engine: Any
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
    trace, audit = open_logs(given, run_id, folder, clock, opened)
    activity = open_activity(given, folder)
    if activity is not None:
        opened.callback(activity.close)
    keep_config(given, folder, run_id, config, (required, policy), source, audit)
    latches = Latches(start.place, audit, store=latch_store(start.place, journal))
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
    engine = start.engine
    if getattr(engine, "audit", audit) is None:
        engine.audit = audit  # an engine that was made without a log gets the run's
    engine = guarded_engine(engine, audit)

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
        id_format=given.order_id_format,
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
    if journal is not None or is_live:
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
        native=None if is_live or journal else _native(given, policy, quoting, exits),
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


def _native(given: RunOptions, policy: RiskPolicy, quoting: QuotingConfig, exits: ExitConfig) -> NativeSettings | None:
    """Return what the compiled step needs, None where it cannot stand in; the rest is seen at the first event.

    A run that is resumed goes on in Python, where what it did before is known.
    """
    core = compiled_step()
    if (
        core is None
        or given.resume
        or given.modulator is not GUARDED
        or any(
            part is not None
            for part in (
                given.clock,
                given.executor,
                given.position_manager,
                given.trading_day,
                given.order_id_format,
            )
        )
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
