"""`ami convert`: a recording into a file of our own, or a binary trace into JSON lines."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from ami_engine.adapters.event_writer import ConvertedEvents, convert_events
from ami_engine.cli.output import print_error, print_json, progress_bar
from ami_engine.cli.sources import (
    BarTimeOption,
    ColumnsOption,
    DateOption,
    FormatOption,
    InstrumentOption,
    IntervalOption,
    LevelsOption,
    SymbolOption,
    TickSizeOption,
    UtcOffsetOption,
    make_source,
)
from ami_engine.errors import ChainBroken, ConfigError, TraceError
from ami_engine.trace.convert import convert as convert_trace
from ami_engine.trace.convert import is_trace

__all__ = ["convert"]


def convert(
    source: Annotated[str, typer.Argument(help="A recording, a run's directory, or its first trace file.")],
    out: Annotated[Path, typer.Argument(help="OUT.jsonl, .csv, .parquet or .npz; of a trace OUT.jsonl.")],
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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT, when it is no trace.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> None:
    """Write a recording, or a run's trace, as one file of our own.

    Of a recording every event is kept, bit for bit, with what was declared of its instruments; the file reads back
    without options. What could not be read, and what OUT cannot hold (.npz: events without a price), is told.

    A trace, of either form and of any number of files, becomes one file of JSON lines, without loss.

    Exit code 0: done. 1: the trace is damaged, and nothing was written. 2: cannot be read or written.

    Example: `ami convert capture.feed.gz capture.parquet --format binance --tick-size 0.1`
    """
    if format is None and is_trace(source):
        _convert_trace(Path(source), out, json=json)
        return
    if source == "synthetic":
        raise ConfigError("`ami convert` takes a recording or a trace, was 'synthetic'")
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
        seed=0,
        steps=None,
    )
    with closing(feed), progress_bar(None, shown=not json) as progress:
        done = convert_events(feed, out, overwrite=overwrite, progress=progress)
    if json:
        print_json(msgspec.to_builtins(done))
    else:
        _print(done)


def _print(done: ConvertedEvents) -> None:
    kinds = ", ".join(f"{count} {kind}" for kind, count in done.kinds.items())
    typer.echo(f"{done.events} events in {done.out}" + (f": {kinds}" if kinds else ""))
    for kind, count in done.dropped.items():
        print_error(f"dropped: {count} {kind}, which {Path(done.out).suffix} cannot hold")
    for reason, count in done.unreadable.items():
        print_error(f"not read: {count} records, {reason}")
    for place in done.places:
        print_error(f"not read: {place}")


def _convert_trace(source: Path, out: Path, *, json: bool) -> None:
    if source.is_dir() and not any(source.glob("traces*")):
        raise TraceError(f"{source}: holds no trace (traces.jsonl or traces.bin): is it the directory of a run?")
    try:
        done = convert_trace(source, out)
    except ChainBroken as error:
        print_error(str(error))
        raise typer.Exit(1) from None
    if json:
        print_json(msgspec.to_builtins(done))
    else:
        typer.echo(f"{done.packets} packets in {out}")
        typer.echo(f"chain head {done.chain_head}; that of the source {done.source_chain_head}")
