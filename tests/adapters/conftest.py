"""What the tests of readers share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ami_engine.adapters.base import DataSource
from ami_engine.errors import EventError

Drained = tuple[list[Any], list[EventError]]


@pytest.fixture(scope="session")
def drain() -> Callable[[DataSource], Drained]:
    """Read a source to its end: (events, errors); at the end it must stay at its end."""

    def read_all(source: DataSource) -> Drained:
        events: list[Any] = []
        errors: list[EventError] = []
        while True:
            try:
                event = source.next_event()
            except EventError as error:
                errors.append(error)
                continue
            if event is None:
                break
            events.append(event)
        assert source.next_event() is None
        source.close()
        source.close()
        return events, errors

    return read_all
