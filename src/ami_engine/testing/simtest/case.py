"""One case of simulation testing: everything that decides what happens, in a line of text."""

from __future__ import annotations

from typing import Literal

import msgspec

from ami_engine.errors import ConfigError
from ami_engine.sim.faults import Fault, FaultKind, FaultPlan, Occasion
from ami_engine.sim.splitmix import SplitMix

__all__ = ["Case"]

# A start-up passes some twenty points, a step up to ten.
_KILL_REACH = 400


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """What one simulated run goes through.

    Parameters
    ----------
    seed : int
        Of the markets (one, or two where it is odd) and of what the model proposes. Where it is 1 more than a multiple
        of 4, timers look at each market while the other moves.
    steps : int
        Events before the trouble ends; some more follow, in which everything must come to rest.
    faults : str
        The plan, as `FaultPlan` writes it.
    kills : tuple of int
        At which point, counted from the start of the process, it is killed; then the next one starts, and so on.
    switch_step : int
        The step at which an operator pulls the kill switch; 0 is never.
    dedupe : {"all", "open"}
        As in `MockExchange`.
    recv_window_ms : int or None
        As in `MockExchange`.

    Examples
    --------
    >>> case = Case.from_seed(3, steps=200)
    >>> Case.parse(case.plan, seed=3, steps=200) == case
    True
    """

    seed: int
    steps: int
    faults: str = ""
    kills: tuple[int, ...] = ()
    switch_step: int = 0
    dedupe: Literal["all", "open"] = "all"
    recv_window_ms: int | None = 1_000

    @classmethod
    def from_seed(cls, seed: int, *, steps: int) -> Case:
        """Return the case of a seed."""
        draw = SplitMix(seed, stream=4)
        kills = tuple(draw.between(1, _KILL_REACH) for _ in range(draw.below(4)))
        # A switch in every eighth: after it there is nothing left to go wrong with.
        switch_step = draw.between(1, max(1, steps)) if draw.chance(125) else 0
        horizon = max(4, steps // 5)
        dedupe: Literal["all", "open"] = "open" if draw.chance(500) else "all"
        can_expire = not draw.chance(300)
        faults = FaultPlan.from_seed(seed, horizon=horizon).faults
        if not can_expire:
            # What such a venue is there to show: a request that lands when nobody would expect it any more.
            late = Fault(FaultKind.LATE_ARRIVAL, Occasion.SUBMIT, draw.between(1, horizon), draw.between(1_000, 5_000))
            faults = (*faults, late)
        return cls(
            seed=seed,
            steps=steps,
            faults=str(FaultPlan(faults)),
            kills=kills,
            switch_step=switch_step,
            dedupe=dedupe,
            recv_window_ms=1_000 if can_expire else None,
        )

    @property
    def plan(self) -> str:
        """All of the case but seed and steps, as `parse` reads it."""
        parts = [self.faults] if self.faults else []
        parts += [f"kill:{point}" for point in self.kills]
        if self.switch_step:
            parts.append(f"switch:{self.switch_step}")
        if self.dedupe == "open":
            parts.append("dedupe:open")
        if self.recv_window_ms is None:
            parts.append("window:none")
        return ",".join(parts)

    @classmethod
    def parse(cls, text: str, *, seed: int, steps: int) -> Case:
        """Read what `plan` wrote.

        Raises
        ------
        ConfigError
            When a part of it is none.
        """
        faults: list[str] = []
        kills: list[int] = []
        case = cls(seed=seed, steps=steps)
        for part in filter(None, (each.strip() for each in text.split(","))):
            name, _, value = part.partition(":")
            if "@" in part:
                faults.append(part)
            elif name == "kill":
                kills.append(_whole(part, value))
            elif name == "switch":
                case = msgspec.structs.replace(case, switch_step=_whole(part, value))
            elif part == "dedupe:open":
                case = msgspec.structs.replace(case, dedupe="open")
            elif part == "window:none":
                case = msgspec.structs.replace(case, recv_window_ms=None)
            else:
                raise ConfigError(f"a plan has faults, kill:N, switch:N, dedupe:open and window:none, not {part!r}")
        return msgspec.structs.replace(case, faults=str(FaultPlan.parse(",".join(faults))), kills=tuple(kills))


def _whole(part: str, value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise ConfigError(f"{part!r} of a plan must have a whole number of at least 1")
    return int(value)
