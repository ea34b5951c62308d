"""`ami control`: tell a running engine to pause, resume, kill, reduce, or keep to a budget."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from ami_engine.cli.output import print_json, print_rows
from ami_engine.ops.control_socket import send_command
from ami_engine.ops.controls import Command

__all__ = ["control"]


class Verb(StrEnum):
    """What an engine can be told."""

    pause = "pause"
    resume = "resume"
    kill = "kill"
    reduce = "reduce"
    budget = "budget"
    status = "status"


def control(
    verb: Annotated[Verb, typer.Argument(help="What the engine is to do; `status` only asks.")],
    run_dir: Annotated[Path, typer.Argument(help="The run's directory.")],
    operator: Annotated[str, typer.Option("--operator", help="Who says so.")] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why.")] = "",
    usd: Annotated[float | None, typer.Option("--usd", help="For budget: gross notional that is allowed, USD.")] = None,
    release: Annotated[
        list[str] | None, typer.Option("--release", help="For resume: a latch that it releases.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON and nothing else.")] = False,
) -> None:
    """Command the engine that runs in RUN_DIR; exit 0 when it obeyed, 1 when it refused, 2 when none runs there.

    Example: `ami control kill runs/maker --operator ann --reason "position does not match the venue"`
    """
    command = Command(verb.value, operator, reason, usd, tuple(release or ()))
    reply = send_command(run_dir, command)
    if json:
        print_json(msgspec.to_builtins(reply))
    else:
        latched, budget = ", ".join(reply.latched) or "nothing", reply.budget_usd
        rows = [("obeyed" if reply.ok else "refused", reply.message), ("state", reply.state), ("latched", latched)]
        print_rows(rows if budget is None else [*rows, ("budget, USD", f"{budget:g}")])
    if not reply.ok:
        raise typer.Exit(1)
