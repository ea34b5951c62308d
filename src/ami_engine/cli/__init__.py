"""The command `ami`: each subcommand in a module of its own, errors as one line, exit codes 0, 1 and 2.

0: it went well. 1: the run ended by an error, or a trace is damaged. 2: usage, or input that cannot be read.
"""

from __future__ import annotations

import sys

import typer

from ami_engine.cli.convert import convert
from ami_engine.cli.doctor import doctor
from ami_engine.cli.features import features
from ami_engine.cli.output import print_error
from ami_engine.cli.run import run
from ami_engine.cli.verify import verify
from ami_engine.errors import AmiError

__all__ = ["app", "main"]

app = typer.Typer(
    name="ami",
    help="MDM Engine: market (or any) events in, guarded and traced decisions out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command()(run)
app.command()(features)
app.command()(verify)
app.command()(convert)
app.command()(doctor)


def main() -> None:
    """Run the command line; what is wrong with the input becomes one line on standard error and exit code 2."""
    try:
        app()
    except (AmiError, OSError) as error:
        print_error(str(error))
        sys.exit(2)
    except KeyboardInterrupt:
        print_error("interrupted")
        sys.exit(1)
