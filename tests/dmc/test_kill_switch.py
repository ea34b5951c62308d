"""A kill switch trips on any doubt, stays tripped over restarts, and opens for a named operator only."""

from __future__ import annotations

from math import inf, nan
from pathlib import Path
from typing import Any

import pytest

from ami_engine.dmc.kill_switch import KillSwitch, LatchFile
from ami_engine.dmc.risk_state import Latch
from ami_engine.errors import ConfigError, TraceError


class Lines:
    """An audit log in memory."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def record(self, kind: str, /, **fields: Any) -> None:
        self.lines.append((kind, fields))


@pytest.fixture
def store(tmp_path: Path) -> LatchFile:
    return LatchFile(tmp_path / "run" / "latches.json")


def test_tripping_is_idempotent_and_the_first_reason_stands(store: LatchFile) -> None:
    audit = Lines()
    switch = KillSwitch(store, audit=audit)
    assert [switch.trip("first", 1), switch.trip("second", 2), switch.trip("first", 3)] == [True, False, False]
    assert (switch.reason, KillSwitch(store).reason) == ("first", "first")
    assert [kind for kind, _ in audit.lines] == ["latch"]
    assert store.load() == [Latch("kill_switch", 1, "first")]


@pytest.mark.parametrize("bad", [nan, inf, -inf, None, "1.0", True, [1.0]])
def test_a_number_that_is_none_trips(store: LatchFile, bad: object) -> None:
    switch = KillSwitch(store)
    assert switch.check(1, equity=100.0, position=0)
    assert not switch.check(2, equity=bad)
    assert "`equity` is not a finite number" in switch.reason
    assert not KillSwitch(store).check(3, equity=100.0)


@pytest.mark.parametrize("answer", [False, None, 1, "yes"])
def test_a_probe_that_does_not_say_true_trips(store: LatchFile, answer: object) -> None:
    switch = KillSwitch(store, probes={"venue": lambda: answer})
    assert not switch.check(1)
    assert KillSwitch(store).reason == f"probe 'venue' said {answer!r}"


def test_a_probe_that_raises_trips(store: LatchFile) -> None:
    def broken() -> bool:
        raise OSError("no route")

    switch = KillSwitch(store, probes={"good": lambda: True, "venue": broken})
    assert not switch.check(1)
    assert switch.reason == "probe 'venue' failed: OSError"


@pytest.mark.parametrize("damage", [b"", b"{", b"[{}]", b'[{"name":1}]', b"\xff\xfe"])
def test_a_damaged_file_is_tripped_and_is_left_for_whoever_looks(store: LatchFile, damage: bytes) -> None:
    store.path.parent.mkdir()
    store.path.write_bytes(damage)
    switch = KillSwitch(store)
    assert switch.is_tripped
    assert not switch.check(1)
    assert store.path.read_bytes() == damage
    with pytest.raises(TraceError, match="repair or remove"):
        switch.release("ann", "looked at it", 2)
    assert store.path.read_bytes() == damage
    store.path.unlink()
    switch.release("ann", "looked at it, and kept a copy", 3)
    assert not KillSwitch(store).is_tripped


def test_a_store_that_cannot_be_written_is_tripped_all_the_same(tmp_path: Path) -> None:
    class Full(LatchFile):
        def save(self, latches: list[Latch]) -> None:
            raise TraceError("no space left")

    audit = Lines()
    switch = KillSwitch(Full(tmp_path / "latches.json"), audit=audit)
    assert switch.trip("x", 1)
    assert switch.is_tripped
    assert audit.lines[0][1]["kept"] is False
    with pytest.raises(TraceError):
        switch.release("ann", "x", 2)
    assert switch.is_tripped


@pytest.mark.parametrize(("operator", "reason"), [("", "x"), ("ann", ""), (" ", "\t")])
def test_nobody_in_particular_releases_nothing(store: LatchFile, operator: str, reason: str) -> None:
    switch = KillSwitch(store)
    switch.trip("x", 1)
    with pytest.raises(ConfigError, match="operator with a reason"):
        switch.release(operator, reason, 2)
    assert KillSwitch(store).is_tripped


def test_releasing_leaves_other_latches_and_needs_a_tripped_switch(store: LatchFile) -> None:
    other = Latch("daily_loss", 1, "lost")
    store.save([other])
    switch = KillSwitch(store)
    assert not switch.is_tripped
    with pytest.raises(ConfigError, match="not tripped"):
        switch.release("ann", "x", 2)
    switch.trip("x", 3)
    switch.release("ann", "x", 4)
    assert store.load() == [other]


def test_a_store_that_cannot_be_read_is_not_replaced_by_a_release(store: LatchFile) -> None:
    store.save([Latch("daily_loss", 1, "lost")])
    kept = store.path.read_bytes()
    store.path.write_bytes(b"damaged")
    switch = KillSwitch(store)
    assert switch.is_tripped
    with pytest.raises(TraceError, match="cannot be read"):
        switch.release("ann", "x", 2)
    assert switch.is_tripped
    assert store.path.read_bytes() == b"damaged"
    store.path.write_bytes(kept)
    switch.release("ann", "x", 3)
    assert [latch.name for latch in store.load()] == ["daily_loss"]
