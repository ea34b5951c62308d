"""Turns a source into the loop's stream of items: events in order, timers between them, errors counted.

Two feeds, one meaning. A recorded feed makes the timers out of recorded time; a live feed reads the source on its own
thread into a bounded queue and makes the timers when the wall clock says so. Both retry a source that fails, with
backoff, and give up with a reason.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, get_args

from msgspec import Struct

from ami_engine.adapters.base import DataSource
from ami_engine.adapters.dict_event import event_from_dict, has_time
from ami_engine.clock import Clock
from ami_engine.errors import BackendError, ConfigError, EventError, TraceError
from ami_engine.events import MarketEvent, TimerEvent
from ami_engine.loop.market import Market
from ami_engine.loop.symbol_state import SymbolState
from ami_engine.units import NS_PER_MS

__all__ = ["FeedEnd", "Item", "LiveFeed", "RecordedFeed", "RetryPolicy", "SourceReader", "Timers"]

_EVENT_TYPES = frozenset(get_args(MarketEvent))

Item = tuple[Any, SymbolState | None]

_QUEUE_SIZE = 10_000
_POLL_S = 0.1


def _nothing() -> None:
    """What is to be done in silence, unless somebody says otherwise."""


class FeedEnd(Exception):
    """The feed is over; `reason` says why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class RetryPolicy:
    """How often a failing source is asked again, and how long to wait before that.

    Parameters
    ----------
    attempts : int
        Consecutive failures after which the run stops.
    backoff_ms : float
        Wait after the first failure; doubles with each further one.
    sleep : callable
        Takes seconds.
    """

    __slots__ = ("attempts", "backoff_ms", "sleep")

    def __init__(self, sleep: Callable[[float], None], *, attempts: int = 5, backoff_ms: float = 50.0) -> None:
        self.attempts = attempts
        self.backoff_ms = backoff_ms
        self.sleep = sleep


class SourceReader:
    """Asks a source for its next event: dicts become structs, failures are retried.

    Attributes
    ----------
    failures : int
        How often the source failed, retries included.
    reconnects : int
        How often it could be read again after it failed.
    has_assumed_time : bool
        True once an event came without any time and was dated by its place.
    """

    __slots__ = ("_clock", "_dict_count", "_next", "_retry", "failures", "has_assumed_time", "reconnects", "source")

    def __init__(self, source: DataSource, retry: RetryPolicy, clock: Clock | None = None) -> None:
        self.source = source
        self._clock = clock  # of a live run
        self.failures = 0
        self.reconnects = 0
        self.has_assumed_time = False
        self._next = source.next_event
        self._retry = retry
        self._dict_count = 0

    def read(self) -> Any:
        """Return the next event struct, or None when the source is exhausted.

        Raises
        ------
        EventError
            A record cannot be read; the next call goes on after it.
        FeedEnd
            The source failed too often in a row.
        """
        failures = 0
        while True:
            try:
                event = self._next()
            except EventError:
                raise
            except (ConfigError, TraceError, BackendError) as error:
                raise FeedEnd(f"source_error: {error}") from error
            except Exception as error:  # the source is foreign code
                failures += 1
                self.failures += 1
                if failures >= self._retry.attempts:
                    raise FeedEnd(f"source_error: {type(error).__name__} {failures} times in a row") from error
                self._retry.sleep(self._retry.backoff_ms * 2 ** (failures - 1) / 1_000)
                continue
            self.reconnects += failures > 0
            if event is None or type(event) in _EVENT_TYPES:
                return event
            return self._convert(event)

    def _convert(self, event: Any) -> Any:
        if isinstance(event, Struct):
            raise EventError(f"`event` must be a market event, was a {type(event).__name__}", reason="wrong_type")
        # A dict without a time is dated now in a live run, else 1 ms after the one before it, which the summary says.
        self._dict_count += 1
        is_dated = has_time(event)
        fallback_ns = self._clock.now_ns() if self._clock is not None else self._dict_count * NS_PER_MS
        converted = event_from_dict(event, fallback_ts_ns=fallback_ns)
        self.has_assumed_time = self.has_assumed_time or not (is_dated or self._clock is not None)
        return converted


class Timers:
    """Timer events of silent symbols, `timer_ms` apart, until one has found its symbol stale.

    The period is the same for all symbols, so that due times come nearly in the order in which they are set: a queue
    serves where a heap would be needed otherwise, and an event only moves its symbol's own due time.
    """

    __slots__ = ("_queue", "period_ns")

    def __init__(self, timer_ms: float) -> None:
        self.period_ns = round(timer_ms * NS_PER_MS)
        self._queue: deque[tuple[int, SymbolState]] = deque()

    def arm(self, state: SymbolState, ts_ns: int) -> None:
        """Start the symbol's silence at `ts_ns`; an earlier start is forgotten."""
        if self.period_ns:
            state.timer_due_ns = ts_ns + self.period_ns
            if not state.timer_is_queued:
                self._insert(state.timer_due_ns, state)

    def disarm(self, state: SymbolState) -> None:
        """No timer for the symbol until its next event."""
        state.timer_due_ns = 0

    def next_due(self, before_ns: int) -> tuple[int, SymbolState] | None:
        """Take the next timer that is due strictly before `before_ns`, or None."""
        queue_ = self._queue
        while queue_ and queue_[0][0] < before_ns:
            due_ns, state = queue_.popleft()
            state.timer_is_queued = False
            wanted_ns = state.timer_due_ns
            if wanted_ns > due_ns:
                # The symbol spoke since: its entry moves to where its silence would end now.
                self._insert(wanted_ns, state)
            elif wanted_ns:
                return due_ns, state
        return None

    def _insert(self, due_ns: int, state: SymbolState) -> None:
        queue_ = self._queue
        position = len(queue_)
        while position and queue_[position - 1][0] > due_ns:
            position -= 1
        queue_.insert(position, (due_ns, state))
        state.timer_is_queued = True

    def earliest_ns(self) -> int:
        """Return when the next entry is to be looked at, 0 when there is none."""
        return self._queue[0][0] if self._queue else 0


class RecordedFeed:
    """Items of a recorded source, with timers made from recorded time.

    An item is (event, state), or (`EventError`, None) for a record that could not be read.
    """

    def __init__(self, reader: SourceReader, market: Market, timers: Timers) -> None:
        self._reader = reader
        self._market = market
        self._timers = timers

    def items(self) -> Iterator[Item]:
        """Yield until the source is exhausted, which raises `FeedEnd`."""
        read, state_of, timers = self._reader.read, self._market.state, self._timers
        while True:
            try:
                event = read()
            except EventError as error:
                yield error, None
                continue
            if event is None:
                raise FeedEnd("source_exhausted")
            ts_ns = event.recv_ts_ns or event.exch_ts_ns
            state = state_of(event.symbol)
            # An event that will be refused says nothing of the time: it must not make timers up to its own.
            if timers.earliest_ns() and timers.earliest_ns() < ts_ns and state.would_accept(event):
                while (timer := timers.next_due(ts_ns)) is not None:
                    due_ns, silent = timer
                    yield TimerEvent(due_ns, silent.symbol), silent
            yield event, state

    def close(self) -> None:
        """Close the source."""
        self._reader.source.close()


class LiveFeed:
    """Items of a live source, read on a thread of its own, with timers from the wall clock.

    The queue is bounded: when the loop falls behind, the reader waits, and the venue's own buffers show it.
    """

    def __init__(
        self, reader: SourceReader, market: Market, timers: Timers, clock: Clock, *, should_stop: Callable[[], bool]
    ) -> None:
        # Called while the source is silent, several times a second: what must not wait for an event.
        self.on_silence: Callable[[], None] = _nothing
        self._reader = reader
        self._market = market
        self._timers = timers
        self._clock = clock
        self._should_stop = should_stop
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=_QUEUE_SIZE)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._pump, name="ami-source", daemon=True)

    def _pump(self) -> None:
        while not self._closed.is_set():
            try:
                event = self._reader.read()
            except EventError as error:
                self._put(error)
                continue
            except FeedEnd as end:
                self._put(end)
                return
            except BaseException as error:  # this thread has nobody else to tell
                self._put(FeedEnd(f"source_error: {type(error).__name__}"))
                return
            self._put(FeedEnd("source_exhausted") if event is None else event)
            if event is None:
                return

    def _put(self, item: Any) -> None:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=_POLL_S)
                return
            except queue.Full:
                continue

    def items(self) -> Iterator[Item]:
        """Yield events as they arrive and timers when they are due, until the source ends or a stop is asked for."""
        self._thread.start()
        while not self._should_stop():
            now_ns = self._clock.now_ns()
            timer = self._timers.next_due(now_ns + 1)
            if timer is not None:
                yield TimerEvent(max(timer[0], now_ns), timer[1].symbol), timer[1]
                continue
            item = self._wait(now_ns)
            if item is None:
                self.on_silence()
                continue
            if isinstance(item, FeedEnd):
                raise item
            if isinstance(item, EventError):
                yield item, None
            else:
                yield item, self._market.state(item.symbol)

    def _wait(self, now_ns: int) -> Any:
        earliest_ns = self._timers.earliest_ns()
        timeout_s = min(_POLL_S, (earliest_ns - now_ns) / 1e9) if earliest_ns else _POLL_S
        try:
            return self._queue.get(timeout=max(timeout_s, 0.0005))
        except queue.Empty:
            return None

    def close(self) -> None:
        """Stop reading and close the source."""
        self._closed.set()
        self._reader.source.close()
        if self._thread.is_alive():
            self._thread.join(timeout=1.0)
