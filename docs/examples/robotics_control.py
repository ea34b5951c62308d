"""Robotics control on the engine: its own events, features, model, policy and executor, no price anywhere.

An event is what a robot's sensors say, every 50 ms: the distance ahead and how old that reading is, its own place and
speed, the heat of its motor, its bumper. The model proposes a speed (ACT), or to park (EXIT). The policy never lets the
robot drive faster than it can stop, makes it brake (HOLD) when its rangefinder is silent, and ends everything (STOP)
when it has touched something. The executor sets the speed of the drive.

Run it: `python docs/examples/robotics_control.py`
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from ami_engine.adapters import Broker, DataSource
from ami_engine.dmc import RiskPolicy, modulate
from ami_engine.events import SubmitOrder
from ami_engine.features import FeatureConfig
from ami_engine.loop.run_loop import run_loop
from ami_engine.mdm.decision_engine import DecisionEngine
from decision_schema.types import Action, FinalDecision, MismatchInfo, Proposal

TICK_S = 0.05
CORRIDOR_M = 30.0
RANGE_M = 8.0
SLOPE_M = (9.0, 15.0)
PERSON_M = 6.0
TROLLEY_M = 22.0


class Corridor(DataSource):
    """A robot in a corridor: what its drive is told moves it, and what its sensors say are the events.

    On the way are a slope that heats the motor, a person who steps out, and, while the rangefinder hangs at its last
    reading, a trolley that is pushed away a few seconds later.

    Parameters
    ----------
    seed : int
        Of the noise of the rangefinder.
    seconds : float
        When the run ends, whether the robot has arrived or not.
    """

    identity = "corridor"

    def __init__(self, seed: int, seconds: float) -> None:
        self.commanded_mps = 0.0
        self.speed_mps = 0.0
        self.place_m = 0.0
        self.motor_c = 35.0
        self.hottest_c = 35.0
        self.collisions = 0
        self.least_gap_m = math.inf
        self._touches = False
        self._tick = 0
        self._last_tick = round(seconds / TICK_S)
        self._hangs_until_s: float | None = None
        self._reading_m, self._age_ms = RANGE_M, 0.0
        self._random = np.random.Generator(np.random.PCG64(seed))

    def next_event(self) -> Mapping[str, Any] | None:
        if self._tick == self._last_tick:
            return None
        self._tick += 1
        self._move()
        self._look()
        return {
            "timestamp_ms": 1_000 + round(self._tick * TICK_S * 1_000),
            "range": {"m": self._reading_m, "age_ms": self._age_ms},
            "odometry": {"place_m": self.place_m, "speed_mps": self.speed_mps},
            "motor": {"celsius": self.motor_c},
            "bumper": self._touches,
        }

    def _move(self) -> None:
        change = self.commanded_mps - self.speed_mps
        self.speed_mps += max(-2.0 * TICK_S, min(1.0 * TICK_S, change))  # m/s²: it brakes harder than it starts
        self.place_m += self.speed_mps * TICK_S
        uphill = 3.0 if SLOPE_M[0] < self.place_m < SLOPE_M[1] else 1.0
        self.motor_c += (1.2 * uphill * self.speed_mps**2 - 0.08 * (self.motor_c - 25.0)) * TICK_S
        self.hottest_c = max(self.hottest_c, self.motor_c)
        gap_m = self._gap_m()
        self.least_gap_m = min(self.least_gap_m, max(0.0, gap_m))
        if gap_m <= 0.0:
            self.collisions += not self._touches
            self.place_m, self.speed_mps = self.place_m + gap_m, 0.0
        self._touches = gap_m <= 0.0

    def _gap_m(self) -> float:
        """Return the free way ahead, m."""
        now_s = self._tick * TICK_S
        ahead = [CORRIDOR_M + 2.0]
        # Half a metre past its front an obstacle is behind the robot, no more in its way.
        if 3.0 <= now_s < 7.0 and self.place_m < PERSON_M + 0.5:
            ahead.append(PERSON_M)
        if self.place_m < TROLLEY_M + 0.5 and (self._hangs_until_s is None or now_s < self._hangs_until_s + 3.0):
            ahead.append(TROLLEY_M)
        return min(ahead) - self.place_m

    def _look(self) -> None:
        now_s = self._tick * TICK_S
        if self._hangs_until_s is None and self.place_m > TROLLEY_M - RANGE_M - 0.5:
            self._hangs_until_s = now_s + 6.0  # just before the trolley comes into sight
        if self._hangs_until_s is not None and now_s < self._hangs_until_s:
            self._age_ms += TICK_S * 1_000
            return
        noise = 0.02 * self._random.standard_normal()
        self._reading_m, self._age_ms = max(0.0, min(RANGE_M, self._gap_m() + noise)), 0.0


def drive_model(features: Mapping[str, float], **_: Any) -> Proposal:
    """Propose the speed at which to drive on; slower near an obstacle and near the end, and park there."""
    left_m = CORRIDOR_M - features["odometry.place_m"]
    if left_m < 0.05:
        return Proposal(Action.EXIT, 1.0, ["arrived"])
    speed = min(2.0, 0.8 * features["range.m"], max(0.1, 0.7 * left_m))
    return Proposal(Action.ACT, 0.9, ["way_is_free" if speed == 2.0 else "slowing"], {"speed_mps": speed})


class DrivePolicy(msgspec.Struct, frozen=True):
    """Limits on how the robot may move, whatever the model thinks."""

    brakes_mps2: float = 1.8
    reaction_s: float = 0.2
    margin_m: float = 0.5
    max_range_age_ms: float = 150.0
    warm_c: float = 55.0
    warm_speed_mps: float = 0.8


class DriveGuards:
    """The engine's guards, and those of a robot after them: each makes the decision safer, none bolder."""

    def __init__(self, policy: DrivePolicy) -> None:
        self._policy = policy
        self._seen: Mapping[str, float] = {}

    def watch(self, features: Mapping[str, float]) -> None:
        """Remember what the sensors say: the guards do not take the model's word for it."""
        self._seen = features

    def __call__(
        self, proposal: Proposal, engine_policy: RiskPolicy, context: Any
    ) -> tuple[FinalDecision, MismatchInfo]:
        policy, seen = self._policy, self._seen
        if seen["bumper"]:
            return _refuse(Action.STOP, "bumper", "touched_something")
        if proposal.action is Action.EXIT:  # parking is safe, and the engine knows of positions to exit from only
            return FinalDecision(Action.EXIT, True, proposal.reasons), MismatchInfo()
        final, mismatch = modulate(proposal, engine_policy, context)
        if final.action is not Action.ACT:
            return final, mismatch
        if seen["range.age_ms"] > policy.max_range_age_ms:
            return _refuse(Action.HOLD, "range", "rangefinder_silent")
        limits = {"stopping_distance": self.safe_speed_mps(seen["range.m"])}
        # The mean of the last two seconds: one hot reading is noise.
        if seen["motor.celsius.mean"] > policy.warm_c:
            limits["motor_warm"] = policy.warm_speed_mps
        speed = final.to_params()["speed_mps"]
        fired = [flag for flag, limit in limits.items() if limit < speed]
        if not fired:
            return final, mismatch
        mismatch = MismatchInfo(fired, [f"speed_clamped:{flag}" for flag in fired])
        slower = {"speed_mps": min(limits.values())}
        return FinalDecision(Action.ACT, True, mismatch.reason_codes, mismatch, params=slower), mismatch

    def safe_speed_mps(self, free_m: float) -> float:
        """Return the speed from which the robot still stops `margin_m` before what is `free_m` ahead, m/s.

        It drives on for the reaction time, then brakes: v·t + v²/2a = way, solved for v.
        """
        policy = self._policy
        way_m, lost_mps = max(0.0, free_m - policy.margin_m), policy.brakes_mps2 * policy.reaction_s
        return math.sqrt(lost_mps**2 + 2.0 * policy.brakes_mps2 * way_m) - lost_mps


def _refuse(action: Action, flag: str, code: str) -> tuple[FinalDecision, MismatchInfo]:
    mismatch = MismatchInfo([flag], [code])
    return FinalDecision(action, False, [code], mismatch), mismatch


class Drive:
    """Executor: sets the speed. Whatever is no ACT brakes, because a robot that is told nothing must not go on."""

    def __init__(self, robot: Corridor) -> None:
        self._robot = robot
        self.is_parked = False
        self.is_stopped = False

    def run(self, final_decision: FinalDecision, market_id: str, mid: float | None = None) -> dict[str, Any]:
        action = final_decision.action
        self.is_parked = self.is_parked or action is Action.EXIT
        self.is_stopped = self.is_stopped or action is Action.STOP
        if action is not Action.ACT or self.is_stopped or self.is_parked:
            self._robot.commanded_mps = 0.0
            return {}
        self._robot.commanded_mps = final_decision.to_params()["speed_mps"]
        return {"submitted": 1}


class NoVenue(Broker):
    """Nothing is traded here."""

    def submit_order(self, order: SubmitOrder) -> None:
        raise NotImplementedError("the robot is moved by the executor, not through orders")


def main(run_dir: str | None = None, *, guarded: bool = True, seconds: float = 60.0) -> dict[str, Any]:
    """Drive down the corridor and return the run's summary, with what became of the robot."""
    robot = Corridor(seed=3, seconds=seconds)
    guards = DriveGuards(DrivePolicy())
    drive = Drive(robot)

    def model(features: Mapping[str, float], **extra: Any) -> Proposal:
        guards.watch(features)
        return drive_model(features, **extra)

    summary = run_loop(
        source=robot,
        broker=NoVenue(),
        decision_engine=DecisionEngine(model=model),
        modulator=guards if guarded else None,
        executor=drive,
        feature_config=FeatureConfig(window_5m_steps=None, window_5m_ms=2_000.0),
        run_dir=run_dir,
        trace=run_dir is not None,
        timer_ms=0,
    )
    summary["collisions"] = robot.collisions
    summary["least_gap_m"] = robot.least_gap_m
    summary["hottest_c"] = robot.hottest_c
    summary["is_parked"] = drive.is_parked
    summary["is_stopped"] = drive.is_stopped
    return summary


def report(title: str, summary: Mapping[str, Any]) -> None:
    """Say in plain words what became of the robot."""
    end = "parked at the end" if summary["is_parked"] else "not arrived"
    print(f"{title}: {end}, collisions: {summary['collisions']},", end=" ")
    print(f"never closer than {summary['least_gap_m']:.2f} m to anything, motor at most {summary['hottest_c']:.0f} °C")
    for code, count in sorted(summary["mismatch_reason_counts"].items()):
        print(f"  {code}: {count} of {summary['steps']} decisions")


if __name__ == "__main__":
    report("with guards", main(sys.argv[1] if len(sys.argv) > 1 else None))
    report("the same model without guards", main(guarded=False))
