"""Finds a user's private hook, and tells a hook that is absent from one that is broken."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["load_hook"]


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
