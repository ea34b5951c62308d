"""Instructions per event do not creep up: a guard that the load of the machine cannot fool."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ami_engine.bench.instructions import compiler_key, instructions_per_event, why_not

RECORDED = Path(__file__).with_name("instructions.json")
TOLERANCE = 0.03


def test_an_event_takes_as_many_instructions_as_was_recorded() -> None:
    reason = why_not()
    if reason:
        pytest.skip(f"instructions are counted by callgrind: {reason}")
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    key = compiler_key()
    if key not in recorded:
        pytest.skip(f"no count was recorded for {key}, only for {', '.join(recorded)}")
    counted = instructions_per_event(20_000, 40_000)
    assert counted == pytest.approx(recorded[key], rel=TOLERANCE), (
        f"an event takes {counted:.0f} instructions, {recorded[key]:.0f} were recorded: when that is meant to be so, "
        "run benchmarks/record_instructions.py"
    )


def test_a_later_stretch_of_the_same_events_takes_as_many_as_an_early_one() -> None:
    reason = why_not()
    if reason:
        pytest.skip(f"instructions are counted by callgrind: {reason}")
    # One period apart: the same 10 000 quotes. `ami bench --only instructions` does it a million events on.
    early, late = instructions_per_event(10_000, 20_000), instructions_per_event(80_000, 90_000)
    assert late <= 1.02 * early
