"""`ami bench`: measure the engine on this machine, beside other people's software where it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ami_engine.bench.page import render_page
from ami_engine.bench.results import CaseResult, RatioResult, Results, write_results
from ami_engine.bench.run import run_suite
from ami_engine.cli.output import print_error, print_json
from ami_engine.errors import ConfigError

__all__ = ["bench"]

_COLORS = {"past the aim": "green", "reached": "green", "missed": "yellow"}
_RESULTS = Path("benchmarks", "results.json")
_PAGE = Path("docs", "PERFORMANCE.md")


def bench(
    peers: Annotated[
        bool,
        typer.Option(
            "--peers",
            help="Add bottleneck, polars, pandas, river and screamer, where they are installed (the extra `peers`).",
        ),
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Less input and fewer rounds: about a minute.")] = False,
    long: Annotated[bool, typer.Option("--long", help="Ten million events in the memory run.")] = False,
    instructions: Annotated[
        bool, typer.Option("--instructions", help="Count instructions too, where valgrind is installed.")
    ] = False,
    only: Annotated[
        str | None, typer.Option("--only", help="Pattern for names of groups, cases or ratios, such as 'updates.*'.")
    ] = None,
    write_docs: Annotated[
        Path | None,
        typer.Option("--write-docs", help="A checkout: write its benchmarks/results.json and docs/PERFORMANCE.md."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the results as JSON and nothing else.")] = False,
) -> None:
    """Measure, after checking every answer, and print what each case costs and how the ratios stand.

    Exit code 1 when an answer was wrong. A ratio that misses its bound is reported and is no error.

    Example: `ami bench --peers --quick`
    """
    if write_docs is not None:
        _check_checkout(write_docs, only)
    with _progress(shown=not json) as progress:
        results = run_suite(
            scale="quick" if quick else "full",
            peers=peers,
            only=only,
            is_long=long,
            with_instructions=instructions,
            progress=progress,
        )
    if write_docs is not None:
        write_results(results, write_docs / _RESULTS)
        (write_docs / _PAGE).write_text(render_page(results), encoding="utf-8")
    if json:
        print_json(msgspec.to_builtins(results))
    else:
        _print(results)
    for name in results.wrong_answers:
        print_error(f"{name}: {results.cases[name].wrong or results.cases[name].failed}")
    if results.wrong_answers:
        raise typer.Exit(1)


def _check_checkout(folder: Path, only: str | None) -> None:
    if only is not None:
        raise ConfigError("`--write-docs` takes a whole run: leave `--only` out")
    for file in (_RESULTS, _PAGE):
        if not (folder / file).parent.is_dir():
            raise ConfigError(f"`--write-docs` must be a checkout, but {folder / file.parent} is no folder")


@contextmanager
def _progress(*, shown: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    if not shown or not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("measuring")
        yield lambda name, number, total: bar.update(task, description=name, completed=number, total=total)


def _print(results: Results) -> None:
    console = Console(width=None if sys.stdout.isatty() else 160)
    facts = ", ".join(f"{name} {value}" for name, value in results.machine.items())
    console.print(f"{results.command}: {facts}", highlight=False)
    console.print(_case_table(results))
    if results.ratios:
        console.print(_ratio_table(results))


def _case_table(results: Results) -> Table:
    table = Table(title="Cases: median of the rounds", title_justify="left")
    table.add_column("case", no_wrap=True)
    table.add_column("measures", overflow="fold")
    table.add_column("median", justify="right")
    table.add_column("quartiles", justify="right")
    table.add_column("unit", no_wrap=True)
    for name, case in results.cases.items():
        reason = case.wrong or case.failed or case.skipped
        figure = _figure(case.median) if case.median is not None else reason
        table.add_row(name, case.measures, figure, _quartiles(case), case.unit)
    return table


def _ratio_table(results: Results) -> Table:
    table = Table(title="Ratios: median of the rounds", title_justify="left")
    table.add_column("ratio", overflow="fold")
    for heading in ("measured", "quartiles", "reach", "aim"):
        table.add_column(heading, justify="right")
    table.add_column("verdict", no_wrap=True)
    for name, ratio in results.ratios.items():
        color = _COLORS.get(ratio.verdict, "")
        verdict = f"[{color}]{ratio.verdict}[/{color}]" if color else ratio.verdict
        bounds = [f"{bound:g}" if bound else "–" for bound in (ratio.reach, ratio.aim)]
        table.add_row(name, _figure(ratio.value), _quartiles(ratio), *bounds, verdict)
    return table


def _quartiles(result: CaseResult | RatioResult) -> str:
    if result.low is None or result.high is None:
        return ""
    return f"{_figure(result.low)} … {_figure(result.high)}"


def _figure(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"
