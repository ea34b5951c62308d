"""Timers of silent symbols: when they come, and when they stop coming."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ami_engine.loop.feed import Timers

MS = 1_000_000


def symbol(name: str) -> Any:
    """What the timers need of a symbol's state."""
    return SimpleNamespace(symbol=name, timer_due_ns=0, timer_is_queued=False)


def due_times(timers: Timers, before_ns: int) -> list[tuple[int, str]]:
    found = []
    while (item := timers.next_due(before_ns)) is not None:
        due_ns, state = item
        found.append((due_ns, state.symbol))
        timers.arm(state, due_ns)
    return found


def test_a_silent_symbol_is_due_every_period_strictly_before_the_next_event() -> None:
    timers, x = Timers(100), symbol("X")
    timers.arm(x, 0)
    assert due_times(timers, 300 * MS) == [(100 * MS, "X"), (200 * MS, "X")]


def test_an_event_starts_the_silence_anew() -> None:
    timers, x = Timers(100), symbol("X")
    for ts in range(0, 1_000, 50):
        timers.arm(x, ts * MS)
        assert timers.next_due(ts * MS) is None
    assert due_times(timers, 1_151 * MS) == [(1_050 * MS, "X"), (1_150 * MS, "X")]


def test_several_symbols_come_in_the_order_of_their_times() -> None:
    timers, x, y = Timers(100), symbol("X"), symbol("Y")
    timers.arm(x, 0)
    timers.arm(y, 30 * MS)
    timers.arm(x, 60 * MS)
    assert due_times(timers, 250 * MS) == [(130 * MS, "Y"), (160 * MS, "X"), (230 * MS, "Y")]


def test_a_disarmed_symbol_is_quiet_until_its_next_event() -> None:
    timers, x = Timers(100), symbol("X")
    timers.arm(x, 0)
    timers.disarm(x)
    assert timers.next_due(10_000 * MS) is None
    timers.arm(x, 20_000 * MS)
    assert due_times(timers, 20_150 * MS) == [(20_100 * MS, "X")]


def test_a_period_of_zero_makes_no_timers() -> None:
    timers, x = Timers(0), symbol("X")
    timers.arm(x, 0)
    assert timers.next_due(10**18) is None


def test_the_queue_holds_one_entry_a_symbol_however_often_it_speaks() -> None:
    timers, states = Timers(100), [symbol(str(i)) for i in range(10)]
    for ts in range(5_000):
        timers.arm(states[ts % 10], ts * MS)
        timers.next_due(ts * MS)
    assert len(timers._heap) == 10
