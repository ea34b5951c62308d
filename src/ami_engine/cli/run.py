"""`ami run`: the engine over a source, against the paper venue."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ami_engine.cli.models import load_model
from ami_engine.cli.output import print_error, print_json, print_summary, progress_bar
from ami_engine.cli.sources import (
    BarTimeOption,
    ColumnsOption,
    DateOption,
    FormatOption,
    InstrumentOption,
    IntervalOption,
    LevelsOption,
    SeedOption,
    SignalsOption,
    SourceOption,
    SymbolOption,
    TickSizeOption,
    UtcOffsetOption,
    is_idle,
    make_source,
    nothing_usable,
)
from ami_engine.cli.wording import changed_settings, kept_settings
from ami_engine.dmc.risk_policy import RiskPolicy
from ami_engine.errors import AmiError, ConfigError
from ami_engine.features.feature_config import FeatureConfig
from ami_engine.loop.latches import Release
from ami_engine.loop.run_loop import run_loop
from ami_engine.mdm.decision_engine import DecisionEngine
from ami_engine.pictures.draw import check_out, draw_run
from ami_engine.sim.paper_broker import PaperBroker

__all__ = ["run"]

# Ends that somebody asked for, or that a source comes to; any other is an error.
QueueName = Literal["back", "front", "prob"]
DurabilityName = Literal["full", "normal", "off"]
TraceName = Literal["jsonl", "binary"]
TraceQueueName = Literal["block", "drop", "stop"]

_GOOD_ENDS = ("source_exhausted", "steps", "signal:")


def run(
    source: SourceOption = "synthetic",
    format: FormatOption = None,
    date: DateOption = None,
    symbol: SymbolOption = None,
    tick_size: TickSizeOption = None,
    instrument: InstrumentOption = None,
    columns: ColumnsOption = None,
    bar_time: BarTimeOption = None,
    interval_ms: IntervalOption = None,
    utc_offset: UtcOffsetOption = None,
    levels: LevelsOption = 10,
    signals: SignalsOption = True,
    policy: Annotated[Path | None, typer.Option("--policy", help="TOML file of risk limits (flat keys).")] = None,
    model: Annotated[
        str, typer.Option("--model", help="A name of `ami models`, or module:attribute of your own.")
    ] = "reference",
    model_arg: Annotated[
        list[str] | None, typer.Option("--model-arg", help="k=v for the model; may be given several times.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Stop after so many events.", min=0)] = None,
    seed: SeedOption = 0,
    run_dir: Annotated[Path | None, typer.Option("--run-dir", help="Where trace and audit log go.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Append to the trace in --run-dir.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what --run-dir holds.")] = False,
    on_bad_event: Annotated[str, typer.Option("--on-bad-event", help="skip or stop.")] = "skip",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide and trace, send nothing.")] = False,
    no_trace: Annotated[bool, typer.Option("--no-trace", help="Write no trace.")] = False,
    trace: Annotated[TraceName, typer.Option("--trace", help="JSON lines, or the compact form.")] = "jsonl",
    trace_queue: Annotated[
        TraceQueueName | None, typer.Option("--trace-queue", help="Write in a thread; what to do when it lags.")
    ] = None,
    trace_max_bytes: Annotated[
        int, typer.Option("--trace-max-bytes", help="Begin a new trace file at this size; 0 for never.", min=0)
    ] = 0,
    trace_max_files: Annotated[
        int, typer.Option("--trace-max-files", help="Keep so many trace files; 0 for all.", min=0)
    ] = 0,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the run into FILE.html or FILE.png when it has ended.")
    ] = None,
    queue: Annotated[QueueName, typer.Option("--queue", help="Paper venue's queue assumption.")] = "back",
    latency_ms: Annotated[float, typer.Option("--latency-ms", help="Paper venue's order latency.", min=0)] = 0.0,
    timer_ms: Annotated[float | None, typer.Option("--timer-ms", help="Timer of a silent symbol; 0 is off.")] = None,
    cash: Annotated[float, typer.Option("--cash", help="Equity at the start, settlement currency.")] = 0.0,
    control: Annotated[
        bool | None,
        typer.Option("--control/--no-control", help="Obey `ami control`; on for live sources, off for recorded ones."),
    ] = None,
    journal: Annotated[
        Path | None, typer.Option("--journal", help="Keep orders, fills and latches in this file, over restarts.")
    ] = None,
    durability: Annotated[
        DurabilityName | None,
        typer.Option("--durability", help="What a commit of the journal survives; full: a power cut.  [default: full]"),
    ] = None,
    release: Annotated[str | None, typer.Option("--release", help="Latch of a resumed run to release.")] = None,
    operator: Annotated[str, typer.Option("--operator", help="Who releases it.")] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why it is released.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON and nothing else.")] = False,
) -> None:
    """Run the engine over a source: events, features, proposals, guards, paper orders, trace.

    Example: `ami run --source capture.feed.gz --format binance --tick-size 0.1 --policy policy.toml`
    """
    _check_plot(plot, has_trace=not no_trace)
    _check_options(run_dir, resume=resume, overwrite=overwrite, release=release, operator=operator, reason=reason)
    risk_policy = RiskPolicy.from_toml(policy) if policy is not None else RiskPolicy()
    chosen = load_model(model, model_arg or [])
    engine = DecisionEngine(model=chosen.model, reads=chosen.reads)
    feed = make_source(
        source,
        format=format,
        date=date,
        symbol=symbol,
        tick_size=tick_size,
        instrument=instrument,
        columns=columns,
        bar_time=bar_time,
        interval_ms=interval_ms,
        utc_offset=utc_offset,
        levels=levels,
        seed=seed,
        steps=steps,
    )
    before = kept_settings(run_dir)
    with closing(feed):
        instruments = dict(feed.instruments())
        broker = PaperBroker(instruments=instruments, cash=cash, queue=queue, latency_ms=latency_ms, seed=seed)
        with progress_bar(steps, shown=not json) as progress:
            summary = run_loop(
                source=feed,
                broker=broker,
                steps=steps,
                dry_run=dry_run,
                run_dir=run_dir,
                resume=resume,
                overwrite=overwrite,
                decision_engine=engine,
                risk_policy=risk_policy,
                feature_config=_feature_config(levels, tick_size, signals=signals),
                trace=trace if not no_trace else False,
                trace_queue=trace_queue,
                trace_max_bytes=trace_max_bytes,
                trace_max_files=trace_max_files,
                activity=not no_trace,
                progress=progress,
                seed=seed,
                timer_ms=timer_ms,
                on_bad_event=on_bad_event,
                start_cash=cash,
                controls=control,
                journal=journal,
                durability=durability,
                release=() if release is None else (Release(release, operator, reason),),
                labels={
                    "model": " ".join([chosen.label, *sorted(model_arg or [])]),
                    "paper": f"queue={queue} latency_ms={latency_ms!r}",
                },
            )
    failure = None if plot is None else _draw(summary, plot)
    if resume and (changed := changed_settings(before, kept_settings(run_dir))):
        summary["notes"].append(changed)
    if json:
        print_json(summary)
    else:
        print_summary(summary)
    if failure is not None:
        raise failure
    if not str(summary["stopped_reason"]).startswith(_GOOD_ENDS):
        print_error(f"the run ended by {summary['stopped_reason']}")
        raise typer.Exit(1)
    if is_idle(summary["steps"], steps, summary["stopped_reason"]):
        print_error(nothing_usable(source, summary["rejected_places"]))
        raise typer.Exit(2)


def _feature_config(levels: int, tick_size: float | None, *, signals: bool) -> FeatureConfig | None:
    """Return the features' settings; None where all are the usual ones, which a run's record then leaves out."""
    if levels == FeatureConfig().levels and signals:
        return None
    return FeatureConfig(levels=levels, tick_size=tick_size or FeatureConfig().tick_size, signals=signals)


def _check_options(
    run_dir: Path | None, *, resume: bool, overwrite: bool, release: str | None, operator: str, reason: str
) -> None:
    """Refuse options that would do nothing without another one."""
    for option, given in (("--resume", resume), ("--overwrite", overwrite)):
        if given and run_dir is None and resume != overwrite:
            raise ConfigError(f"`{option}` needs `--run-dir`: which run's directory?")
    for option, text in (("--operator", operator), ("--reason", reason)):
        if text and release is None:
            raise ConfigError(f"`{option}` says who releases a latch, and why: name the latch with `--release`")


def _check_plot(plot: Path | None, *, has_trace: bool) -> None:
    """Refuse a picture that could not be drawn, before the run."""
    if plot is None:
        return
    if not has_trace:
        raise ConfigError("`--plot` draws the trace, and `--no-trace` writes none: leave one of them out")
    check_out(plot)


def _draw(summary: dict[str, Any], plot: Path) -> AmiError | OSError | None:
    """Draw the run that has ended; what went wrong is returned, because the run's own summary comes first."""
    try:
        draw_run(Path(summary["trace_path"]).parent, plot)
    except (AmiError, OSError) as error:
        return error
    summary["plot_path"] = str(plot)
    return None
