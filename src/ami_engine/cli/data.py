"""`ami data`: what is wrong with a recording, before it is trusted."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from ami_engine.cli.data_picture import write_picture
from ami_engine.cli.output import print_error, print_json, print_rows, progress_bar
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
from ami_engine.errors import ConfigError
from ami_engine.loop.data_check import DataReport, check_data
from ami_engine.units import NS_PER_S

__all__ = ["data"]

data = typer.Typer(
    name="data", help="Look at recordings before they are trusted.", no_args_is_help=True, rich_markup_mode="markdown"
)


@data.callback()
def _data() -> None:
    """Look at recordings before they are trusted."""


@data.command()
def check(
    file: Annotated[str, typer.Argument(help="A FILE, or BOOK,MESSAGES (LOBSTER).")],
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
    steps: Annotated[int | None, typer.Option("--steps", help="Stop after so many events.", min=0)] = None,
    silence_ms: Annotated[float, typer.Option("--silence-ms", help="Longest good silence; 0: any.", min=0)] = 10_000.0,
    plot: Annotated[Path | None, typer.Option("--plot", help="FILE.html: a picture of what was found.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Report gaps, crossed and locked books, repeats, clock skew, silence, prices off the grid and times that go back.

    Exit code 0: nothing was found. 1: something was. 2: the file cannot be read.

    Example: `ami data check capture.feed.gz --format binance --tick-size 0.1 --plot capture.html`
    """
    if plot is not None and plot.suffix != ".html":
        raise ConfigError(f"`--plot` must end in .html, was {str(plot)!r}")
    if file == "synthetic":
        raise ConfigError("`ami data check` takes a file; the synthetic source has nothing to be found in it")
    feed = make_source(
        file,
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
        steps=steps,
    )
    with closing(feed), progress_bar(steps, shown=not json) as progress:
        has_grid = bool(feed.instruments())
        report, timeline = check_data(feed, silence_ms=silence_ms, steps=steps, progress=progress)
    if plot is not None:
        write_picture(plot, report, timeline, _rows(report, has_grid))
    if json:
        print_json({**msgspec.to_builtins(report), "ok": report.is_clean})
    else:
        print_rows(_rows(report, has_grid))
    if report.ended.startswith("source_error") or (not report.events and report.findings):
        print_error(f"{file}: cannot be read: {report.ended}")
        raise typer.Exit(2)
    if not report.is_clean:
        raise typer.Exit(1)


def _rows(report: DataReport, has_grid: bool) -> list[tuple[str, str]]:
    rows = [
        ("source", report.source),
        ("events", f"{report.events}: " + ", ".join(f"{count} {kind}" for kind, count in report.kinds.items())),
        ("symbols", ", ".join(f"{name or '(none)'} {count}" for name, count in list(report.symbols.items())[:8])),
    ]
    if report.events:
        lasted_s = (report.last_ts_ns - report.first_ts_ns) / NS_PER_S
        rows.append(("received", f"{_stamp(report.first_ts_ns)} to {_stamp(report.last_ts_ns)}, {lasted_s:,.3f} s"))
    if report.latency_ms:
        shown = ", ".join(f"{name} {value:,.3f}" for name, value in report.latency_ms.items())
        rows.append(("received after the venue's stamp, ms", shown))
    if report.trades_off_grid:
        rows.append(("trades off the grid", f"{report.trades_off_grid} (trades may be)"))
    if report.trades_alike:
        rows.append(("trades alike", f"{report.trades_alike} follow their like without a `seq` to tell them apart"))
    if not has_grid:
        rows.append(("grid", "not judged: no tick size was given (`--tick-size` or `--instrument`)"))
    for finding in report.findings:
        unit = "" if finding.unit == "price" else f" {finding.unit}"
        worst = f", at worst by {finding.worst:,.6g}{unit}" if finding.unit else ""
        reasons = ", ".join(f"{reason} {count}" for reason, count in finding.reasons.items())
        first = f"; first at {finding.places[0]}" if finding.places else ""
        why = f" ({reasons})" if reasons else ""
        rows.append((finding.kind, f"{finding.count} {finding.meaning}{why}{worst}{first}"))
    if report.is_clean:
        rows.append(("found", "nothing"))
    return rows


def _stamp(ts_ns: int) -> str:
    seconds, fraction = divmod(ts_ns, NS_PER_S)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{fraction:09d}"
