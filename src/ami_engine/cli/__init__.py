"""The command `ami`: each subcommand in a module of its own, errors as one line, exit codes 0, 1 and 2.

0: it went well. 1: the run ended by an error, or a trace is damaged. 2: usage, or input that cannot be read.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer import Abort

import ami_engine
from ami_engine.cli.bench import bench
from ami_engine.cli.control import control
from ami_engine.cli.convert import convert
from ami_engine.cli.data import data
from ami_engine.cli.doctor import doctor
from ami_engine.cli.features import features
from ami_engine.cli.models import models
from ami_engine.cli.output import print_error
from ami_engine.cli.plot import plot
from ami_engine.cli.run import run
from ami_engine.cli.simtest import simtest
from ami_engine.cli.verify import verify
from ami_engine.cli.wording import usage_text, with_option_names
from ami_engine.errors import AmiError

__all__ = ["app", "main"]

app = typer.Typer(
    name="ami",
    help="MDM Engine: market (or any) events in, guarded and traced decisions out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"ami {ami_engine.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del version


app.command()(run)
app.command()(features)
app.command()(verify)
app.command()(convert)
app.add_typer(data)
app.command()(models)
app.command()(plot)
app.command()(doctor)
app.command()(bench)
app.command()(simtest)
app.command()(control)


def _called() -> tuple[str, Any]:
    """Return what was called, as far as it is known: `ami run`, `ami data check` or `ami`, and its command."""
    name, called = "ami", typer.main.get_command(app)
    for word in sys.argv[1:]:
        inner = getattr(called, "commands", {}).get(word)
        if inner is None:
            break
        name, called = f"{name} {word}", inner
    return name, called


def _option_names() -> dict[str, str]:
    """Return the options of the command that was called, by parameter."""
    return {each.name: each.opts[0] for each in _called()[1].params if each.opts[0].startswith("--")}


def main() -> None:
    """Run the command line; what is wrong with the input becomes one line on standard error and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except AmiError as error:
        print_error(with_option_names(str(error), _option_names()))
        sys.exit(2)
    except OSError as error:
        print_error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        sys.exit(2)
    except (KeyboardInterrupt, Abort):
        print_error("interrupted")
        sys.exit(1)
    except Exception as error:
        # Usage errors of the command line's own: one line, as every other error.
        if not hasattr(error, "format_message"):
            raise
        name, called = _called()
        text = usage_text(error, takes_source=any(each.name == "source" for each in called.params))
        if text:  # none when no command was given: the help that was printed says it all
            print_error(f"{text}; see `{name} --help`")
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)
