"""The options that describe a source, shared by the commands that read one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ami_engine.adapters.base import DataSource
from ami_engine.adapters.open_source import FORMATS, open_source
from ami_engine.errors import ConfigError
from ami_engine.sim.microstructure_sim import MicrostructureSim
from ami_engine.sim.synthetic_source import SyntheticSource
from ami_engine.trace.convert import is_trace

__all__ = [
    "BarTimeOption",
    "ColumnsOption",
    "DateOption",
    "FormatOption",
    "InstrumentOption",
    "IntervalOption",
    "LevelsOption",
    "SeedOption",
    "SignalsOption",
    "SourceOption",
    "SymbolOption",
    "TickSizeOption",
    "UtcOffsetOption",
    "is_idle",
    "make_source",
    "nothing_usable",
]

SYNTHETIC_EVENTS = 5_000

SourceOption = Annotated[
    str, typer.Option("--source", help="`synthetic`, a FILE, or BOOK,MESSAGES (LOBSTER).", show_default=True)
]
FormatOption = Annotated[str | None, typer.Option("--format", help=f"{', '.join(FORMATS)}; needed where unclear.")]
DateOption = Annotated[str | None, typer.Option("--date", help="YYYY-MM-DD of a LOBSTER recording.")]
SymbolOption = Annotated[str | None, typer.Option("--symbol", help="The market, where the file does not name it.")]
TickSizeOption = Annotated[float | None, typer.Option("--tick-size", help="Price step.")]
InstrumentOption = Annotated[Path | None, typer.Option("--instrument", help="TOML file that describes instruments.")]
ColumnsOption = Annotated[Path | None, typer.Option("--columns", help="TOML column map of a CSV or Parquet file.")]
LevelsOption = Annotated[int, typer.Option("--levels", help="Book levels that the features read.", min=1)]
SignalsOption = Annotated[
    bool,
    typer.Option("--signals/--no-signals", help="Whether feature rows end with momentum, trend, reversion and rank."),
]
BarTimeOption = Annotated[
    str | None, typer.Option("--bar-time", help="close or open: which end of a bar its stamp is.")
]
IntervalOption = Annotated[
    float | None, typer.Option("--interval-ms", help="Length of a bar, where its stamp is its open.")
]
UtcOffsetOption = Annotated[
    str | None, typer.Option("--utc-offset", help="Zone of bars' stamps that carry none, such as +01:00.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of everything that draws random numbers.")]


def make_source(
    source: str,
    *,
    format: str | None,
    date: str | None,
    symbol: str | None,
    tick_size: float | None,
    instrument: Path | None,
    columns: Path | None,
    levels: int,
    seed: int,
    steps: int | None,
    bar_time: str | None = None,
    interval_ms: float | None = None,
    utc_offset: str | None = None,
) -> DataSource:
    """Open what `--source` names.

    Raises
    ------
    ConfigError, OSError
        When it cannot be opened, or more must be said about it.
    """
    if source == "synthetic":
        told = {
            "--format": format,
            "--date": date,
            "--symbol": symbol,
            "--tick-size": tick_size,
            "--instrument": instrument,
            "--columns": columns,
            "--bar-time": bar_time,
            "--interval-ms": interval_ms,
            "--utc-offset": utc_offset,
        }
        for option, value in told.items():
            if value is not None:
                raise ConfigError(f"`{option}` describes a file; the synthetic source has its own, was {str(value)!r}")
        sim = MicrostructureSim(seed=seed)
        return SyntheticSource(sim, num_events=steps if steps is not None else SYNTHETIC_EVENTS)
    _check_file(source, format, date)
    return open_source(
        source,
        format=format,
        symbol=symbol,
        tick_size=tick_size,
        instrument=instrument,
        date=date,
        columns=columns,
        levels=levels,
        bar_time=bar_time,
        interval_ms=interval_ms,
        utc_offset=utc_offset,
    )


def _check_file(source: str, format: str | None, date: str | None) -> None:
    """Refuse what a reader would misunderstand."""
    if not source.strip():
        raise ConfigError("`--source` must name a file, or be `synthetic`, was empty")
    if "://" in source:
        raise ConfigError(f"{source}: is an address, and nothing is fetched from a network here: name a file")
    if Path(source).is_dir():
        raise ConfigError(f"{source}: is a directory: name a recorded file in it")
    if format in (None, "jsonl") and is_trace(source):
        raise ConfigError(f"{source}: is a run's trace, not a recording of events: see `ami verify`, `ami convert`")
    if date is not None and "," not in source and format != "lobster":
        raise ConfigError(f"`--date` is for LOBSTER recordings (BOOK,MESSAGES); {source} has its own, was {date!r}")


def is_idle(done: int, steps: int | None, stopped_reason: str) -> bool:
    """Return True when a source came to its end without one event that could be used, though some were asked for."""
    return done == 0 and steps != 0 and stopped_reason == "source_exhausted"


def nothing_usable(source: str, refused: Sequence[object]) -> str:
    """Say why a source gave nothing, and what to look at.

    >>> nothing_usable("quotes.jsonl", [])
    'quotes.jsonl: holds no event: is it the right file, and whole?'
    """
    if not refused:
        return f"{source}: holds no event: is it the right file, and whole?"
    return f"{source}: no event could be used; the first reason: {refused[0]}"
