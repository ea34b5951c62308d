"""The source that a simulated market feeds."""

from __future__ import annotations

import pytest

from ami_engine.errors import ConfigError
from ami_engine.sim import MicrostructureSim, SyntheticSource


def test_it_ends_after_its_events_and_stays_ended() -> None:
    source = SyntheticSource(MicrostructureSim(seed=42), num_events=100)
    events = [source.next_event() for _ in range(103)]
    assert all(event is not None for event in events[:100])
    assert events[100:] == [None, None, None]


def test_none_is_without_end() -> None:
    source = SyntheticSource(num_events=None)
    assert all(source.next_event() is not None for _ in range(1_000))


def test_events_and_instrument_carry_the_symbol_and_the_tick() -> None:
    source = SyntheticSource(MicrostructureSim(mid=100.0, spread=0.1, tick_size=0.05), symbol="DEMO")
    event = source.next_event()
    assert event is not None
    assert event.symbol == "DEMO"
    (instrument,) = source.instruments().values()
    assert (instrument.symbol, instrument.tick_size) == ("DEMO", 0.05)


@pytest.mark.parametrize(("mid", "lot"), [(0.5, 0.01), (100.0, 1e-4), (61_800.0, 1e-7), (0.02, 1.0)])
def test_the_lot_is_fine_enough_for_an_order_worth_one(mid: float, lot: float) -> None:
    source = SyntheticSource(MicrostructureSim(mid=mid, spread=mid / 50))
    assert source.instruments()["SYNTH"].lot_size == lot


def test_the_identity_names_what_makes_the_data() -> None:
    names = {
        SyntheticSource(MicrostructureSim(seed=1)).identity,
        SyntheticSource(MicrostructureSim(seed=2)).identity,
        SyntheticSource(MicrostructureSim(seed=1), num_events=7).identity,
        SyntheticSource(MicrostructureSim(seed=1), symbol="Y").identity,
    }
    assert len(names) == 4
    assert SyntheticSource(MicrostructureSim(seed=1)).identity == SyntheticSource(MicrostructureSim(seed=1)).identity


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="`num_events` must be at least 0"):
        SyntheticSource(num_events=-1)
    with pytest.raises(ConfigError, match="`symbol` must not be empty"):
        SyntheticSource(symbol="")
