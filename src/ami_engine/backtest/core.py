"""The compiled loop's own module, checked against the Python tables that it was built from."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ami_engine.errors import BackendError
from ami_engine.loop.native_values import core_difference

__all__ = ["compiled_core"]


def compiled_core() -> Any:
    """Return `ami_engine._core`.

    Raises
    ------
    BackendError
        When it is absent, or was built from other features, policy keys, guards or actions than this package has.

    Examples
    --------
    >>> compiled_core().ACTIONS[:2]
    ('HOLD', 'ACT')
    """
    try:
        core: Any = import_module("ami_engine._core")
    except ImportError as error:
        raise BackendError(f"compiled decisions need the compiled core: {error}") from error
    if not hasattr(core, "run_compiled"):
        raise BackendError("the compiled core was built before compiled decisions were: build it again")
    different = core_difference(core)
    if different:
        raise BackendError(f"the compiled core was built from other {different} than this package has: build it again")
    return core
