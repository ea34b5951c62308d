"""Runs cases: one, shrunk when it fails, and many on several processes."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from ami_engine.clock import perf_ns
from ami_engine.events import TimerEvent
from ami_engine.loop.feed import FeedEnd
from ami_engine.testing.simtest.case import Case
from ami_engine.testing.simtest.invariants import (
    Violation,
    ViolationFound,
    check_end,
    check_kill,
    check_placed,
    check_step,
    unfinished,
)
from ami_engine.testing.simtest.life import Life
from ami_engine.testing.simtest.mutants import planted
from ami_engine.testing.simtest.world import Killed, World

__all__ = ["Result", "run_case", "run_seeds", "shrink"]

# Events after the trouble, at most: a request may come late, its window and the settling must pass, and two queries.
_QUIET_STEPS = 80
# Events for which both sides must have had nothing left to do before the end is looked at. They last longer than
# settling and a look at the venue together: whoever only seems to be at rest is found out.
_RESTING_STEPS = 30
# What a case leaves is small, and most of it goes without the collector.
_GC_ALLOCATIONS = 50_000
_MEMORY_DISK = Path("/dev/shm")
# A planted bug is looked for in so many seeds at a time, whatever the number of workers: the result must not depend on
# it.
_CHUNK = 25
# Otherwise the workers wait for each other seldom.
_LARGE_CHUNK = 400


class Result(msgspec.Struct, frozen=True):
    """What a campaign found.

    `first_violation` is of the smallest seed that failed: its invariant, where it showed, the smallest plan that still
    fails, and the command that repeats it.
    """

    seeds: int
    steps: int
    violations: int
    first_violation: dict[str, object] | None
    wall_s: float


def run_case(case: Case, folder: Path) -> Violation | None:
    """Run one case to its end; return what did not hold, None when all did."""
    journal = folder / "journal.sqlite"
    for old in folder.glob("journal.sqlite*"):
        old.unlink()
    world = World(case, journal)
    while True:
        world.begin_life()
        life: Life | None = None
        try:
            try:
                life = Life(world, case.steps + _QUIET_STEPS - world.step)
                _live(world, life)
                return None
            except Killed:
                if life is not None:
                    check_placed(world, life)
        except ViolationFound as found:
            return found.violation
        except Exception as error:  # the engine is what is tested: whatever it raises is a finding
            return Violation("the engine does not fail", world.step, f"{type(error).__name__}: {error}")
        finally:
            if life is not None:
                life.drop()


def _live(world: World, life: Life) -> None:
    case, run = world.case, life.run
    with contextlib.suppress(FeedEnd):
        for event, state in run.feed.items():
            if world.step >= case.steps and not world.is_quiet:
                world.end_trouble()
            assert state is not None
            run.step(event, state)
            if type(event) is not TimerEvent:
                world.step += 1
            if case.switch_step and not world.is_switched and case.switch_step <= world.step <= case.steps:
                asked, working = world.cancels, world.exchange.venue.open_orders()
                life.pull_switch()
                if working:
                    check_kill(world, asked)
            check_step(world, life)
            if world.is_quiet and world.rested(is_engine_done=not any(unfinished(world, life))) >= _RESTING_STEPS:
                break
    run.finish("end of the simulated run")
    check_end(world, life)


# Shrinking. -------------------------------------------------------------------------------------------------------


def shrink(case: Case, folder: Path) -> Case:
    """Return the smallest case that still fails: fewer faults and kills, fewer steps."""
    smaller = True
    while smaller:
        smaller = False
        for candidate in _smaller(case):
            if run_case(candidate, folder) is not None:
                case, smaller = candidate, True
                break
    return case


def _smaller(case: Case) -> Iterator[Case]:
    """Yield what is simpler by one thing, the largest cuts first."""
    change: Callable[..., Case] = msgspec.structs.replace
    if case.faults:
        yield change(case, faults="")
    if case.kills:
        yield change(case, kills=())
    for steps in (case.steps // 2, case.steps * 9 // 10, case.steps - 1):
        if 0 < steps < case.steps:
            yield change(case, steps=steps)
    faults = case.faults.split(",")
    if len(faults) > 1:
        for number in range(len(faults)):
            yield change(case, faults=",".join(faults[:number] + faults[number + 1 :]))
    # Only the last kill: the counts of the lives before it would mean other moments without it.
    if len(case.kills) > 1:
        yield change(case, kills=case.kills[:-1])
    if case.switch_step:
        yield change(case, switch_step=0)


# Many. ------------------------------------------------------------------------------------------------------------


def run_seeds(
    first: int,
    count: int,
    *,
    steps: int,
    workers: int = 1,
    mutant: str = "",
    plan: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Result:
    """Run the cases of `count` seeds from `first` on.

    Parameters
    ----------
    first, count : int
        Which seeds.
    steps : int
        Events of each.
    workers : int
        Processes. The result is the same for any number.
    mutant : str
        The planted bug to run with; the search ends with the first chunk of seeds that finds it.
    plan : str or None
        Runs this plan instead of the seeds' own.
    progress : callable or None
        Called with the number of seeds done.
    """
    started = perf_ns()
    found: list[tuple[int, Violation]] = []
    jobs = [(seed, steps, mutant, plan) for seed in range(first, first + count)]
    done = 0
    with _pool(workers) as pool_map:
        size = _CHUNK if mutant else _LARGE_CHUNK
        for start in range(0, count, size):
            chunk = jobs[start : start + size]
            for seed, violation in pool_map(_run_one, chunk):
                if violation is not None:
                    found.append((seed, violation))
            done += len(chunk)
            if progress is not None:
                progress(done)
            if mutant and found:
                break
    first_violation = None
    if found:
        seed, violation = min(found, key=lambda each: each[0])
        first_violation = _explain(seed, violation, steps, mutant, plan)
    return Result(done, steps, len(found), first_violation, round((perf_ns() - started) / 1e9, 3))


_Job = tuple[int, int, str, str | None]


def _case_of(seed: int, steps: int, plan: str | None) -> Case:
    return Case.from_seed(seed, steps=steps) if plan is None else Case.parse(plan, seed=seed, steps=steps)


def _run_one(job: _Job) -> tuple[int, Violation | None]:
    seed, steps, mutant, plan = job
    with _folder() as folder, planted(mutant):
        return seed, run_case(_case_of(seed, steps, plan), folder)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder in memory where there is such a disk."""
    where = _MEMORY_DISK if _MEMORY_DISK.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="ami-simtest-", dir=where) as name:
        yield Path(name)


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[Callable[..., Iterator[tuple[int, Violation | None]]]]:
    if workers <= 1:
        yield map
        return
    with multiprocessing.get_context("spawn").Pool(workers, initializer=_begin_worker) as pool:
        yield lambda act, jobs: pool.imap_unordered(act, jobs)


def _begin_worker() -> None:
    """What is loaded stays: it need not be looked through at every collection of what the cases leave."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_ALLOCATIONS)


def _explain(seed: int, violation: Violation, steps: int, mutant: str, plan: str | None) -> dict[str, object]:
    with _folder() as folder, planted(mutant):
        small = shrink(_case_of(seed, steps, plan), folder)
        violation = run_case(small, folder) or violation
    command = f"ami simtest --first-seed {seed} --seeds 1 --steps {small.steps} --plan '{small.plan}'"
    if mutant:
        command += f" --mutant {mutant}"
    return {
        "seed": seed,
        "invariant": violation.invariant,
        "step": violation.step,
        "detail": violation.detail,
        "plan": small.plan,
        "steps": small.steps,
        "command": command,
    }
