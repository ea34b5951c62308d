"""`ami plot`: a run as one page, or as a still."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ami_engine.cli.output import print_json, print_rows
from ami_engine.pictures.draw import draw_run
from ami_engine.pictures.panels import figure_texts

__all__ = ["plot"]


def plot(
    run_dir: Annotated[Path, typer.Argument(help="A run's directory, or its first trace file.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="FILE.html or FILE.png; default: picture.html in the run's directory.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print {out, figures, notes} as JSON.")] = False,
) -> None:
    """Draw a run: price, quotes, fills, position, equity, guards and latencies, on one page that needs no network.

    Exit code 0: drawn. 2: there is no trace, it cannot be read, or the picture cannot be written.

    Example: `ami plot runs/run-1f2e3d --out run.html`
    """
    if out is None:
        out = (run_dir if run_dir.is_dir() else run_dir.parent) / "picture.html"
    picture = draw_run(run_dir, out)
    if json:
        print_json({"out": str(out), "figures": picture.figures, "notes": picture.notes})
        return
    print_rows([("picture", str(out)), ("run", picture.title), *figure_texts(picture)])
    print_rows([("note", note) for note in picture.notes])
