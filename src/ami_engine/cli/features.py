"""`ami features`: a source's feature rows as a table."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from ami_engine.cli.output import print_error, print_json, progress_bar
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
from ami_engine.loop.feature_table import write_feature_table

__all__ = ["features"]


def features(
    source: SourceOption,
    out: Annotated[Path, typer.Option("--out", help="FILE.parquet or FILE.csv.")],
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
    steps: Annotated[int | None, typer.Option("--steps", help="Stop after so many events.", min=0)] = None,
    seed: SeedOption = 0,
    on_bad_event: Annotated[str, typer.Option("--on-bad-event", help="skip or stop.")] = "skip",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE when it exists.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print {rows, rejected_events, out} as JSON.")] = False,
) -> None:
    """Write one row of features for every accepted event of a source.

    Example: `ami features --source capture.feed.gz --format binance --tick-size 0.1 --out features.parquet`
    """
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
    with closing(feed), progress_bar(steps, shown=not json) as progress:
        result: dict[str, Any] = write_feature_table(
            feed,
            out,
            steps=steps,
            levels=levels,
            signals=signals,
            on_bad_event=on_bad_event,
            overwrite=overwrite,
            progress=progress,
        )
    if json:
        print_json(result)
    else:
        typer.echo(f"{result['rows']} rows of {len(result['columns'])} columns in {out}")
        for place in result["rejected_places"][:3] if result["rows"] else ():
            print_error(f"refused: {place}")
    if result["stopped_reason"] not in ("source_exhausted", "steps"):
        if not json:
            print_error(result["stopped_reason"])
        raise typer.Exit(1)
    if is_idle(result["rows"], steps, result["stopped_reason"]):
        print_error(nothing_usable(source, result["rejected_places"]))
        raise typer.Exit(2)
