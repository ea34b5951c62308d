"""Compiled decisions: features, model, guards, orders, paper fills and money over a whole table in one call.

The Python loop is the definition. For a recorded source of one symbol and a `PaperBroker` without latency, the compiled
loop gives the same decisions, fills and money to the last bit; what it does not cover it refuses by name.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from ami_engine.backtest.compiled_model import CompiledModel
from ami_engine.backtest.core import compiled_core
from ami_engine.backtest.event_table import BAR, EventTable
from ami_engine.config import ExitConfig, QuotingConfig
from ami_engine.dmc.context import GuardContext
from ami_engine.dmc.policy_hook import load_policy_override
from ami_engine.dmc.risk_policy import RiskPolicy, policy_ranges
from ami_engine.dmc.trading_state import TradingState
from ami_engine.errors import ConfigError
from ami_engine.events import Fill, Liquidity, Side
from ami_engine.execution.idempotency import client_order_id
from ami_engine.execution.order_manager import OrderManager
from ami_engine.features.columns import EventColumns, read_table
from ami_engine.features.feature_config import FeatureConfig, check_row_of
from ami_engine.loop.assemble import PROVIDED_CONTEXT
from ami_engine.loop.native_values import (
    MAX_WHOLE,
    QUEUES,
    code_names,
    count_into,
    feature_values,
    loop_values,
    quote_error,
)
from ami_engine.loop.summary import RunCounters, grid_note, time_notes
from ami_engine.mdm.decision_engine import load_private_model
from ami_engine.security.redaction import redact_text
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.sim.uniform_stream import UniformStream
from ami_engine.units import NS_PER_MS, Instrument, ns_from_ms

__all__ = ["CompiledResult", "run_compiled"]

_DEFAULT_TIMER_MS = 100.0
_MODEL_PARAMS = {"confidence_threshold": 0.5, "imbalance_threshold": 0.1, "max_size_usd": 1.0}

# Options of `run_loop` and `PaperBroker` that are no options here, and why.
_NOT_COVERED = {
    "latency_ms": "requests that travel",
    "latency_jitter_ms": "requests that travel",
    "broker": "other venues than the paper one",
    "source": "sources: make a table of one with table_from_source",
    "modulator": "a modulator of your own",
    "decision_engine": "a model in Python: pass a CompiledModel as `model`",
    "position_manager": "a position manager of your own",
    "executor": "an executor of your own",
    "clock": "another clock than the events'",
    "trace": "a trace",
    "run_dir": "a trace",
    "instruments": "several symbols",
}

_DECISION = np.dtype(
    {
        "names": ["ts_ns", "codes", "position", "equity", "proposed", "action", "is_timer"],
        "formats": [np.int64, np.uint64, np.float64, np.float64, np.int8, np.int8, np.bool_],
        "offsets": [0, 8, 16, 24, 32, 33, 34],
        "itemsize": 40,
    }
)


class _Fills(NamedTuple):
    """Fills as the core told them, and what turns them into `Fill` structs."""

    told: npt.NDArray[Any]
    run_id: str
    market_id: str
    currency: str

    def made(self) -> tuple[Fill, ...]:
        return tuple(self._fill(number, *told) for number, told in enumerate(self.told.tolist(), start=1))

    def _fill(
        self, number: int, is_buy: bool, is_maker: bool, price: float, qty: float, fee: float, ts_ns: int, step: int
    ) -> Fill:
        side = Side.BUY if is_buy else Side.SELL
        return Fill(
            trade_id=f"{ts_ns}-{number}",
            client_order_id=client_order_id(self.run_id, self.market_id, step, side),
            market_id=self.market_id,
            side=side,
            price=price,
            qty=qty,
            fee=fee,
            fee_currency=self.currency,
            liquidity=Liquidity.MAKER if is_maker else Liquidity.TAKER,
            ts_ns=ts_ns,
        )


# `VenueFill` as it lies in memory.
_FILL = np.dtype(
    {
        "names": ["is_buy", "is_maker", "price", "qty", "fee", "ts_ns", "step"],
        "formats": [np.bool_, np.bool_, np.float64, np.float64, np.float64, np.int64, np.int64],
        "offsets": [4, 5, 8, 16, 24, 32, 40],
        "itemsize": 48,
    }
)


class CompiledResult:
    """What came of a compiled run.

    Attributes
    ----------
    summary : dict
        As `run_loop` returns it: the same keys, and the same numbers but for latencies.
    decisions : numpy.ndarray or None
        Where it was asked for, one record a decision, timers included: `ts_ns`; `codes`, a bit for each reason code
        (see `reason_codes`); `position` and `equity` before it; `proposed` and `action`, places in HOLD, ACT, EXIT,
        CANCEL, STOP; `is_timer`.
    """

    def __init__(
        self,
        summary: dict[str, Any],
        fills: _Fills,
        decisions: npt.NDArray[Any] | None,
        codes: tuple[tuple[str, ...], ...],
    ) -> None:
        self.summary = summary
        self.decisions = decisions
        self._fills = fills
        self._codes = codes

    @cached_property
    def fills(self) -> tuple[Fill, ...]:
        """The fills as `run_loop` would have booked them; made when they are first asked for."""
        return self._fills.made()

    def reason_codes(self, codes: int) -> tuple[str, ...]:
        """Return the reason codes whose bits are set in a decision's `codes`."""
        return tuple(name for place, names in enumerate(self._codes) if int(codes) >> place & 1 for name in names)

    def __repr__(self) -> str:
        return f"CompiledResult(steps={self.summary['steps']}, fills={self.summary['fills_count']})"


class _Input(NamedTuple):
    """A table as the core reads it, and what is known of where it comes from."""

    columns: dict[str, Any]
    rows: int
    source: EventTable | None
    has_assumed_time: bool


def run_compiled(
    table: Any,
    *,
    config: FeatureConfig | None = None,
    policy: RiskPolicy | None = None,
    instrument: Instrument | None = None,
    quoting: QuotingConfig | None = None,
    exits: ExitConfig | None = None,
    model: Literal["reference"] | CompiledModel = "reference",
    model_params: Mapping[str, float] | None = None,
    start_cash: float = 0.0,
    steps: int | None = None,
    timer_ms: float | None = None,
    dry_run: bool = False,
    venue_grid: bool = True,
    queue: Literal["back", "front", "prob"] = "back",
    seed: int = 0,
    market_id: str | None = None,
    run_id: str = "compiled",
    decisions: bool = False,
    **options: Any,
) -> CompiledResult:
    """Decide on every row of a table and fill what is ordered on paper, in one call without the interpreter's lock.

    Parameters
    ----------
    table : EventTable or table
        From `table_from_source`; or what `FeatureBuilder.run` reads, with rows of `kind` 2 for bars (`open`, `high`,
        `low`, `close`, `volume`). A row without a time column is dated a millisecond after the one before it. Rows that
        a feature builder refuses are refused here and counted.
    config : FeatureConfig, optional
        Its tick is the instrument's in any case.
    policy, quoting, exits
        As in `run_loop`.
    instrument : Instrument, optional
        What is traded; default: the table's, else no more than the tick of `config` (0.01).
    model : "reference" or CompiledModel
        The reference model, or a function of your own.
    model_params : mapping, optional
        Of the reference model: `confidence_threshold`, `imbalance_threshold`, `max_size_usd`.
    start_cash : float
        Equity at the start.
    steps : int, optional
        Bound on the number of events.
    timer_ms : float, optional
        Period of the timers of silence, ms; 0 is off. Default: 100, and none after bars.
    dry_run : bool
        Decide, send nothing.
    venue_grid : bool
        True: the venue is ``PaperBroker(instrument=instrument)``. False: ``PaperBroker()``, which knows neither grid
        nor fees.
    queue : {"back", "front", "prob"}
        The venue's queue model.
    seed : int
        Of the "prob" queue.
    market_id, run_id : str
        Name the market and the run in the fills.
    decisions : bool
        Record every decision.

    Raises
    ------
    ConfigError
        When an option is wrong, or asks for what compiled decisions do not cover: latency, several symbols, a model,
        modulator, policy hook, position manager or executor in Python, a trace, an order beyond the levels that the
        table keeps, or one at a price of more than 2**62 ticks.
    BackendError
        When there is no compiled core, or `model` was written for rows of other features than `config` gives.

    Examples
    --------
    >>> from ami_engine.backtest.event_table import table_from_source
    >>> from ami_engine.sim.microstructure_sim import MicrostructureSim
    >>> from ami_engine.sim.synthetic_source import SyntheticSource
    >>> table = table_from_source(SyntheticSource(MicrostructureSim(seed=42), num_events=100))
    >>> result = run_compiled(table)
    >>> result.summary["steps"], result.summary["stopped_reason"]
    (100, 'source_exhausted')
    """
    _refuse_options(options)
    core = compiled_core()
    policy = policy or RiskPolicy()
    _refuse_hooks(policy, model)
    given = _read_input(table)
    if instrument is None:
        tick_size = config.tick_size if config is not None else Instrument("").tick_size
        instrument = given.source.instrument if given.source is not None else Instrument("", tick_size=tick_size)
    config = msgspec.structs.replace(config or FeatureConfig(), tick_size=instrument.tick_size)
    check_row_of(model, config)
    if queue not in QUEUES:
        raise ConfigError(f"`queue` must be 'back', 'front' or 'prob', was {queue!r}")
    if not math.isfinite(start_cash):
        raise ConfigError(f"`start_cash` must be finite, was {start_cash!r}")
    if steps is not None and steps < 0:
        raise ConfigError(f"`steps` must be at least 0, was {steps!r}")
    if given.source is not None and given.columns["bids"].shape[1] < config.levels:
        kept = given.columns["bids"].shape[1]
        raise ConfigError(f"the table keeps {kept} levels, the features look at {config.levels}: make it with more")
    settings = _settings(
        policy, instrument, quoting or QuotingConfig(), exits or ExitConfig(), model_params, venue_grid
    )
    settings |= {
        "queue": QUEUES[queue],
        "model": model.address if isinstance(model, CompiledModel) else 0,
        "start_cash": float(start_cash),
        "timer_ns": ns_from_ms(_DEFAULT_TIMER_MS if timer_ms is None else timer_ms),
        "times_bars": timer_ms is not None,
        "is_table_checked": given.source is not None,
        "is_dry": dry_run,
    }
    draws = _draws(seed, 2 * given.rows if queue == "prob" else 0)
    counters = RunCounters()
    try:
        told = core.run_compiled(
            given.columns,
            given.rows,
            feature_values(config),
            settings,
            draws,
            list(model.params) if isinstance(model, CompiledModel) else [],
            -1 if steps is None else steps,
            decisions,
        )
    except (RuntimeError, IndexError, OverflowError) as error:
        raise ConfigError(f"compiled decisions do not cover this run: {error}") from error
    market_id = market_id or (given.source.symbol if given.source is not None else "") or "default"
    codes = code_names(core)
    _count(counters, told, core, given, instrument)
    names = {"run_id": run_id, "market_id": market_id}
    summary = _summary(counters, told, given, **names, tick_size=instrument.tick_size, steps=steps, policy=policy)
    records = np.frombuffer(told["decisions"], dtype=_DECISION) if decisions else None
    currency = instrument.currency if venue_grid else "USD"
    return CompiledResult(
        summary, _Fills(np.frombuffer(told["fills"], dtype=_FILL), run_id, market_id, currency), records, codes
    )


# What goes in. --------------------------------------------------------------------------------------------------------


def _refuse_options(options: Mapping[str, Any]) -> None:
    for name in options:
        if name in _NOT_COVERED:
            raise ConfigError(f"`{name}`: compiled decisions do not cover {_NOT_COVERED[name]}; use run_loop")
        known = [key for key in run_compiled.__kwdefaults__ or () if key != name]
        close = difflib.get_close_matches(name, known, n=1)
        raise ConfigError(f"`{name}` is no option of run_compiled" + (f"; did you mean `{close[0]}`?" if close else ""))


def _refuse_hooks(policy: RiskPolicy, model: object) -> None:
    if model != "reference" and not isinstance(model, CompiledModel):
        raise ConfigError(f"`model` must be 'reference' or a CompiledModel, was {model!r}")
    for what, load in (("model", load_private_model), ("policy override", load_policy_override)):
        if what == "model" and isinstance(model, CompiledModel):
            continue
        try:
            hook = load()
        except Exception as error:  # the hook's file is foreign code
            raise ConfigError(f"the private {what} cannot be imported: {type(error).__name__}") from error
        if hook is not None:
            raise ConfigError(f"compiled decisions do not cover the private {what}; use run_loop")
    for key in policy.required_context:
        if key not in GuardContext.__struct_fields__ or key == "extra":
            raise ConfigError(f"`required_context` asks for {key!r}, which only a caller of `modulate` can provide")
    for key, allowed in policy_ranges().items():
        if allowed.is_whole and getattr(policy, key) > MAX_WHOLE:
            raise ConfigError(f"`{key}` must be at most {MAX_WHOLE} for compiled decisions, was {getattr(policy, key)}")


def _read_input(table: Any) -> _Input:
    if isinstance(table, EventTable):
        columns = dict(table.columns)
        columns["ts"] = columns.pop("recv_ts_ns")
        return _Input(columns, table.rows, table, table.has_assumed_time)
    events = read_table(table)
    if events.now_ns is not None:
        raise ConfigError("`now_ns`: compiled decisions are taken at the events' own times; use run_loop with a clock")
    columns = {name: getattr(events, name) for name in _PLAIN_COLUMNS if getattr(events, name) is not None}
    columns["ts"] = _times(events)
    if events.kind is not None and bool((events.kind == BAR).any()):
        columns |= _bar_columns(table, events)
    if _column(table, "symbol") is not None and len(set(np.asarray(_column(table, "symbol")).tolist())) > 1:
        raise ConfigError("compiled decisions do not cover several symbols: a table is of one")
    return _Input(columns, events.rows, None, events.ts is None)


_PLAIN_COLUMNS = ("bid", "ask", "bid_depth", "ask_depth", "bids", "asks", "kind", "price", "size", "aggressor")


def _times(events: EventColumns) -> npt.NDArray[np.int64]:
    if events.ts is None:
        return np.arange(1, events.rows + 1, dtype=np.int64) * NS_PER_MS
    ts = events.ts if events.ts_fallback is None else np.where(events.ts == 0, events.ts_fallback, events.ts)
    if events.ns_per_ts != 1:
        # A time that does not fit stays as it is: too large to be ns, it is refused or comes last.
        fits = np.abs(ts) <= np.iinfo(np.int64).max // events.ns_per_ts
        ts = np.where(fits, ts * np.where(fits, events.ns_per_ts, 1), -1)
    return np.ascontiguousarray(ts, dtype=np.int64)


def _bar_columns(table: Any, events: EventColumns) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("open", "high", "low", "close", "volume"):
        column = _column(table, name)
        if column is None:
            raise ConfigError(f"a table with bars (`kind` 2) needs `{name}`")
        found[name] = np.ascontiguousarray(column, dtype=np.float64)
    close = found.pop("close")
    is_bar = np.asarray(events.kind) == BAR
    found["bid"] = np.where(is_bar, close, 0.0 if events.bid is None else events.bid)
    return found


def _column(table: Any, name: str) -> Any:
    if isinstance(table, Mapping):
        return table.get(name)
    if isinstance(table, np.ndarray):
        return table[name] if name in (table.dtype.names or ()) else None
    known = table.column_names if hasattr(table, "column_names") else list(table.columns)
    return np.asarray(table[name]) if name in known else None


def _settings(
    policy: RiskPolicy,
    instrument: Instrument,
    quoting: QuotingConfig,
    exits: ExitConfig,
    model_params: Mapping[str, float] | None,
    venue_grid: bool,
) -> dict[str, Any]:
    for name in model_params or ():
        if name not in _MODEL_PARAMS:
            raise ConfigError(f"`model_params` of the reference model are {', '.join(_MODEL_PARAMS)}, got {name!r}")
    # These parts check their own ranges; the compiled ones do not.
    OrderManager(PaperBroker(), **msgspec.structs.asdict(quoting))
    for name, value in msgspec.structs.asdict(exits).items():
        if not value > 0:
            raise ConfigError(f"`{name}` must be > 0, was {value!r}")
    params = {name: float(value) for name, value in {**_MODEL_PARAMS, **(model_params or {})}.items()}
    return loop_values(
        policy,
        instrument,
        instrument if venue_grid else Instrument(""),
        quoting,
        exits,
        params,
        venue_grid=venue_grid,
    )


def _draws(seed: int, count: int) -> npt.NDArray[np.float64]:
    """Return the numbers that a "prob" queue of that seed would draw, in their order."""
    stream = UniformStream(seed, stream=2)
    return np.array([stream.draw() for _ in range(count)], dtype=np.float64)


# What comes out. ------------------------------------------------------------------------------------------------------


def _count(
    counters: RunCounters,
    told: Mapping[str, Any],
    core: Any,
    given: _Input,
    instrument: Instrument,
) -> None:
    count_into(counters, told, core)
    counters.rejected_events = dict(told["refused"])
    if given.source is not None:
        refused = [reason for row, reason in given.source.refusals if row < told["rows_read"]]
        for reason in refused:
            counters.rejected_events[reason] = counters.rejected_events.get(reason, 0) + 1
        counters.bad_places = list(given.source.places[: len(refused)])
    if told["is_last_error_the_models"]:
        counters.last_error = "the model failed: see private_hook_error in the audit log"
    elif told["errors"]:
        counters.last_error = redact_text(quote_error(told["quote_fault"], instrument))


def _summary(
    counters: RunCounters,
    told: Mapping[str, Any],
    given: _Input,
    *,
    run_id: str,
    market_id: str,
    tick_size: float,
    steps: int | None,
    policy: RiskPolicy,
) -> dict[str, Any]:
    end = given.source.end if given.source is not None else "source_exhausted"
    required = msgspec.structs.replace(policy, required_context=(*policy.required_context, *PROVIDED_CONTEXT))
    end = "steps" if told["steps"] == steps else end
    counters.ended(end)
    summary = {"run_id": run_id, "stopped_reason": end, **counters.to_dict()}
    summary |= {
        "position_open_count": told["open_count"],
        "position_close_count": told["close_count"],
        "realized_pnl": told["realized"],
        "unrealized_pnl": told["unrealized"],
        "fees": told["fees"],
        "final_equity": told["equity"],
        "max_drawdown": told["max_drawdown"],
        "positions": {market_id: told["position"]} if told["fill_count"] else {},
        # Nobody commands a run over a table; a latch halts it as it does any other.
        "trading_state": (TradingState.HALTED if told["latches"] else TradingState.ACTIVE).value,
        "controls_obeyed": 0,
        "controls_refused": 0,
        "trace_path": None,
        "chain_head": None,
        "audit_path": None,
    }
    summary["error_count"] += given.source.failures if given.source is not None else 0
    summary["notes"] = _notes(told, given, market_id, tick_size)
    summary["backend"] = "compiled" if told["rows_read"] else None
    summary["policy_hash"] = required.policy_hash
    return summary


def _notes(told: Mapping[str, Any], given: _Input, market_id: str, tick_size: float) -> list[str]:
    notes = time_notes(told["now_ns"], has_assumed_time=given.has_assumed_time)
    bid, ask = told["best"]
    notes += grid_note(market_id, bid, ask, tick_size)
    if told["skipped"]:
        notes.append(f"{told['skipped']} quotes were below the instrument's smallest order: raise size_usd")
    if told["latches"]:
        notes.append(f"latched until an operator releases it: {', '.join(told['latches'])}")
    return notes
