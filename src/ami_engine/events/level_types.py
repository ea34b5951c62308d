"""The types that hold a side's levels as pairs; arrays are the other way to hold them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["LEVEL_SEQUENCES"]

LEVEL_SEQUENCES: tuple[type[list[Any]] | type[tuple[Any, ...]], ...] = (list, tuple)
try:
    _core: Any = import_module("ami_engine._core")
except ImportError:
    pass
else:
    # What the compiled readers of venues' messages give: an unchanging sequence of pairs.
    LEVEL_SEQUENCES = (*LEVEL_SEQUENCES, _core.LevelList)
