"""A bounded queue between the decision and the disk: a thread writes, and no wait for a slow device goes unsaid."""

from __future__ import annotations

import threading
from collections import deque
from typing import Literal

from ami_engine.clock import perf_ns
from ami_engine.errors import TraceError
from ami_engine.trace.trace_files import TraceStore

__all__ = ["QueuePolicy", "WriteQueue"]

QueuePolicy = Literal["block", "drop", "stop"]


class WriteQueue:
    """Hands blocks of packets to a thread that writes them into a store.

    What waits is bounded by the caller, which asks `waiting` before it makes a packet. Content and order are those that
    the store would have been given without a queue.

    Parameters
    ----------
    store : TraceStore
        What the thread writes to. From here on only `close` may touch it.
    """

    def __init__(self, store: TraceStore) -> None:
        self.put_packets = 0
        self.blocked_ns = 0
        self._store = store
        self._written = 0
        self._error: TraceError | None = None
        self._is_closing = False
        self._blocks: deque[tuple[bytearray, int, bool]] = deque()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="trace-writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Packets that were put and are not yet with the operating system."""
        return self.put_packets - self._written

    def put(self, block: bytearray, packets: int, *, sync: bool = False) -> None:
        """Take over a block of so many packets; `sync` asks the thread to wait for the disk after it.

        Raises
        ------
        TraceError
            What stopped the thread: the disk takes no more.
        """
        with self._changed:
            self._raise_error()
            self.put_packets += packets
            self._blocks.append((block, packets, sync))
            self._changed.notify_all()

    def wait(self, limit: int) -> None:
        """Wait until fewer than `limit` packets wait; the time is added to `blocked_ns`."""
        started = perf_ns()
        with self._changed:
            while self.waiting >= limit and self._error is None:
                self._changed.wait()
            self.blocked_ns += perf_ns() - started
            self._raise_error()

    def close(self) -> None:
        """Let the thread write what waits, and end it. Closing again does nothing.

        Raises
        ------
        TraceError
            What stopped the thread before everything was written.
        """
        with self._changed:
            if self._is_closing:
                return
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise TraceError(str(self._error)) from self._error

    def _run(self) -> None:
        error: TraceError | None = TraceError("the writing thread ended unasked")
        try:
            self._write_all()
            error = None
        except TraceError as found:
            error = found
        finally:
            # Whatever ended the thread, nobody may go on waiting for it.
            with self._changed:
                self._error = error
                self._blocks.clear()
                self._changed.notify_all()

    def _write_all(self) -> None:
        while (taken := self._next()) is not None:
            block, packets, sync = taken
            with memoryview(block) as view:
                self._store.append(view)
            if sync:
                self._store.sync()
            with self._changed:
                self._written += packets
                self._changed.notify_all()

    def _next(self) -> tuple[bytearray, int, bool] | None:
        with self._changed:
            while not self._blocks and not self._is_closing:
                self._changed.wait()
            return self._blocks.popleft() if self._blocks else None
