"""`ami simtest`: does the engine keep its books right whatever fails?"""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from ami_engine.cli.output import print_error, print_json, print_rows, progress_bar
from ami_engine.errors import ConfigError

__all__ = ["simtest"]


def simtest(
    seeds: Annotated[int, typer.Option(help="How many seeds.", min=1)] = 100,
    first_seed: Annotated[int, typer.Option(help="The first of them.", min=0)] = 0,
    steps: Annotated[int, typer.Option(help="Events of each run.", min=1)] = 200,
    workers: Annotated[int, typer.Option(help="Processes; the result is the same for any number.", min=1)] = 1,
    mutant: Annotated[str, typer.Option(help="Run with this planted bug: it must be found.")] = "",
    plan: Annotated[str | None, typer.Option(help="Run this plan of faults and kills instead of the seeds'.")] = None,
    list_mutants: Annotated[bool, typer.Option("--list-mutants", help="List the planted bugs and end.")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print {seeds, steps, violations, first_violation, wall_s}.")
    ] = False,
) -> None:
    """Run the whole engine against an exchange that fails by plan, killing and restarting it, on a virtual clock.

    Exit code 0: every invariant held. 1: one did not; the smallest plan that shows it is printed with its command.

    Example: `ami simtest --seeds 1000 --steps 200 --workers 2`
    """
    from ami_engine.testing.simtest import MUTANTS, run_seeds  # the test kit: no other command needs it

    if list_mutants:
        named = {name: each.bug for name, each in MUTANTS.items()}
        if json:
            print_json({"mutants": [{"name": name, "bug": bug} for name, bug in named.items()]})
        else:
            print_rows(list(named.items()))
        return
    if mutant and mutant not in MUTANTS:
        raise ConfigError(f"`--mutant` must be one of {', '.join(MUTANTS)}, was {mutant!r}")
    with progress_bar(seeds, shown=not json) as progress:
        result = run_seeds(first_seed, seeds, steps=steps, workers=workers, mutant=mutant, plan=plan, progress=progress)
    if json:
        print_json(msgspec.to_builtins(result))
    else:
        rows = [("seeds", str(result.seeds)), ("steps each", str(result.steps))]
        print_rows([*rows, ("violations", str(result.violations)), ("wall time, s", str(result.wall_s))])
        if result.first_violation is not None:
            found = result.first_violation
            print_error(f"seed {found['seed']}, step {found['step']}: {found['invariant']}: {found['detail']}")
            print_error(f"repeat with: {found['command']}")
    raise typer.Exit(1 if result.violations else 0)
