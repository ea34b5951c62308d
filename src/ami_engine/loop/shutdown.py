"""Ctrl-C and SIGTERM end a run cleanly: the first one asks it to stop, a second interrupts it."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ["StopSignal"]


class StopSignal:
    """While entered, SIGINT and SIGTERM set `reason` instead of killing the process.

    Off the main thread nothing is installed, because Python delivers signals to the main thread only.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.reason:
            raise KeyboardInterrupt
        self.reason = f"signal:{signal.Signals(number).name}"

    def is_set(self) -> bool:
        """Return True once a stop was asked for."""
        return bool(self.reason)
