"""Bugs to plant."""
from __future__ import annotations
import contextlib
from collections.abc import Iterator
@contextlib.contextmanager
def planted(name: str) -> Iterator[None]:
    yield
