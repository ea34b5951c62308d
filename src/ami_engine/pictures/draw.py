"""From a run's folder to a file: a page or a still, by the file's name."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ami_engine.errors import ConfigError
from ami_engine.pictures.collect import Picture, collect_picture
from ami_engine.pictures.page import page_of
from ami_engine.pictures.still import draw_still

__all__ = ["check_out", "draw_run"]

_LIBRARIES = {".html": "plotly", ".png": "matplotlib"}


def check_out(out: Path) -> None:
    """Say what would keep a picture from being written to `out`, before the work of a run is done.

    Raises
    ------
    ConfigError
        When the name says neither page nor still, its folder is absent, or the library that draws it is.

    Examples
    --------
    >>> check_out(Path("run.gif"))
    Traceback (most recent call last):
    ami_engine.errors.ConfigError: a picture must be named .html or .png, was 'run.gif'
    """
    library = _LIBRARIES.get(out.suffix.lower())
    if library is None:
        raise ConfigError(f"a picture must be named .html or .png, was {str(out)!r}")
    if find_spec(library) is None:
        raise ConfigError(f"drawing {out.suffix.lower()} needs {library}: pip install 'mdm-engine[viz]'")
    if out.is_dir() or not out.parent.is_dir():
        what = "is a folder" if out.is_dir() else f"cannot be written: there is no folder {str(out.parent)!r}"
        raise ConfigError(f"the picture {str(out)!r} {what}")


def draw_run(run_dir: str | Path, out: str | Path) -> Picture:
    """Draw a run that has ended into `out`, ``.html`` or ``.png``, and return what was drawn.

    The page holds everything that it needs. A file that is there is replaced.

    Parameters
    ----------
    run_dir : str or Path
        The run's folder, or its first trace file.
    out : str or Path
        The picture.

    Raises
    ------
    ConfigError
        See `check_out` and `collect_picture`.
    TraceError
        When the trace cannot be read at all.
    OSError
        When the picture cannot be written.
    """
    out = Path(out)
    check_out(out)
    picture = collect_picture(run_dir)
    if out.suffix.lower() == ".html":
        out.write_text(page_of(picture), encoding="utf-8")
    else:
        draw_still(picture, out)
    return picture
