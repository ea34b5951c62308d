"""`ami verify`: does a trace hold, byte for byte?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from ami_engine.cli.output import print_error, print_json
from ami_engine.errors import TraceError
from ami_engine.trace.reader import verify as verify_trace

__all__ = ["verify"]

# What the first line of a file that is something else altogether is called.
_NO_TRACE = ("not_a_packet", "not_json", "not_utf8")


def verify(
    run_dir: Annotated[Path, typer.Argument(help="A run's directory, or its trace file.")],
    tail: Annotated[bool, typer.Option("--tail", help="Allow the oldest files to have been rotated away.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print {ok, packets, chain_head, first_damage}.")] = False,
) -> None:
    """Check every packet's checksum and the hash chain of a trace, over all of its files.

    Exit code 0: clean. 1: damaged, and where. 2: cannot be read.

    Example: `ami verify runs/run-1f2e3d`
    """
    if run_dir.is_dir() and not any(run_dir.glob("traces*")):
        print_error(f"{run_dir}: holds no trace (traces.jsonl or traces.bin): is it the directory of a run?")
        raise typer.Exit(2)
    try:
        report = verify_trace(run_dir, tail=tail)
    except OSError as error:
        print_error(f"{error.filename or run_dir}: {error.strerror or error}")
        raise typer.Exit(2) from None
    except TraceError as error:
        print_error(str(error))
        raise typer.Exit(2) from None
    result = {
        "ok": report.ok,
        "packets": report.packets,
        "chain_head": report.chain_head,
        "first_damage": None if report.first_damage is None else msgspec.to_builtins(report.first_damage),
    }
    if tail:
        result["first_seq"] = report.first_seq
    if json:
        print_json(result)
    elif report.ok:
        since = f" from number {report.first_seq} on" if report.first_seq else ""
        typer.echo(f"clean: {report.packets} packets{since}, chain head {report.chain_head}")
    else:
        damage = report.first_damage
        if damage is not None:
            where = f" of {damage.file}" if damage.file not in (run_dir.name, "traces.jsonl", "traces.bin") else ""
            doubt = "; is it a trace?" if damage.line == 1 and damage.reason in _NO_TRACE else ""
            print_error(f"{run_dir}: damaged at line {damage.line}{where}: {damage.reason}: {damage.detail}{doubt}")
    raise typer.Exit(0 if report.ok else 1)
