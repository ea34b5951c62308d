"""`ami convert`: a binary trace as JSON lines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from ami_engine.cli.output import print_error, print_json
from ami_engine.errors import ChainBroken, TraceError
from ami_engine.trace.convert import convert as convert_trace

__all__ = ["convert"]


def convert(
    run_dir: Annotated[Path, typer.Argument(help="A run's directory, or its first trace file.")],
    out: Annotated[Path, typer.Argument(help="OUT.jsonl, which must not exist.")],
    json: Annotated[
        bool, typer.Option("--json", help="Print {packets, source_chain_head, chain_head} as JSON.")
    ] = False,
) -> None:
    """Write a trace, of either form and of any number of files, as one file of JSON lines, without loss.

    Exit code 0: done. 1: the trace is damaged, and nothing was written. 2: cannot be read or written.

    Example: `ami convert runs/run-1f2e3d trace.jsonl`
    """
    if run_dir.is_dir() and not any(run_dir.glob("traces*")):
        raise TraceError(f"{run_dir}: holds no trace (traces.jsonl or traces.bin): is it the directory of a run?")
    try:
        done = convert_trace(run_dir, out)
    except ChainBroken as error:
        print_error(str(error))
        raise typer.Exit(1) from None
    if json:
        print_json(msgspec.to_builtins(done))
    else:
        typer.echo(f"{done.packets} packets in {out}")
        typer.echo(f"chain head {done.chain_head}; that of the source {done.source_chain_head}")
