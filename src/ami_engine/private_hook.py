"""Finds a user's own code: a private hook, told absent from broken, and what an option names."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from ami_engine.errors import ConfigError

__all__ = ["load_hook", "load_object"]


def load_hook(module_name: str, attribute: str) -> Any:
    """Return the hook, None when there is no such file.

    A hook file that exists and cannot be imported raises whatever it raises: that is not absence, and must not make a
    run go on without the hook.

    Parameters
    ----------
    module_name : str
        The hook's own module, dotted.
    attribute : str
        The hook's name in it.

    Examples
    --------
    >>> load_hook("ami_engine.no_such_room.model", "propose") is None
    True
    """
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # Absent only when the hook's own module, or a package on the way to it, is what was not found.
        if error.name is not None and (module_name + ".").startswith(error.name + "."):
            return None
        raise
    return getattr(module, attribute)


def load_object(place: str, option: str) -> Any:
    """Return what an option names as ``module:attribute``.

    Parameters
    ----------
    place : str
        Dotted module, a colon, the attribute's name. The working folder is searched as well, as `python -m` does.
    option : str
        The option that named it, for the message.

    Raises
    ------
    ConfigError
        When it is not of that form, or cannot be imported.

    Examples
    --------
    >>> load_object("math:sqrt", "--model")(4.0)
    2.0
    """
    module_name, colon, attribute = place.partition(":")
    if not colon or not module_name or not attribute:
        raise ConfigError(f"`{option}` must be `module:attribute`, was {place!r}")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # importing runs somebody's code
        kind = "" if isinstance(error, (ImportError, AttributeError)) else f"{type(error).__name__}: "
        meant = f"; a module has no ending: {module_name[:-3]}:{attribute}" if module_name.endswith(".py") else ""
        raise ConfigError(f"`{option}` {place!r} cannot be loaded: {kind}{error}{meant}") from error
