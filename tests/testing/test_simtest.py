"""Simulation testing: the engine holds, planted bugs are found, and the same seed says the same."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from ami_engine.clock import ManualClock
from ami_engine.errors import ConfigError
from ami_engine.events import Side, SubmitOrder
from ami_engine.sim.faults import FaultKind, FaultPlan
from ami_engine.sim.mock_exchange import MockExchange
from ami_engine.testing.kill_campaign import kill_repeatedly
from ami_engine.testing.simtest import MUTANTS, Case, run_case, run_seeds, shrink
from ami_engine.testing.simtest.mutants import planted

STEPS = 100


def ami(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ami_engine", *arguments], capture_output=True, text=True, check=False, timeout=300
    )


def test_a_hundred_seeds_hold() -> None:
    result = run_seeds(0, 100, steps=STEPS)
    assert result.first_violation is None
    assert (result.seeds, result.steps, result.violations) == (100, STEPS, 0)


# Some of each kind; `make simtest` looks for all of them.
@pytest.mark.parametrize("name", ["forgets_in_doubt", "fills_invented", "cancel_assumed"])
def test_a_planted_bug_is_found(name: str) -> None:
    result = run_seeds(0, 25, steps=STEPS, mutant=name)
    assert result.violations > 0
    assert result.first_violation is not None


def test_a_failure_is_shrunk_to_a_plan_that_repeats_it(tmp_path: Path) -> None:
    with planted("timeout_is_rejection"):
        case = next(
            case for case in (Case.from_seed(seed, steps=STEPS) for seed in range(50)) if run_case(case, tmp_path)
        )
        small = shrink(case, tmp_path)
        assert run_case(small, tmp_path) is not None
        again = Case.parse(small.plan, seed=small.seed, steps=small.steps)
        assert run_case(again, tmp_path) == run_case(small, tmp_path)
    assert run_case(small, tmp_path) is None
    assert small.steps < case.steps
    assert len(FaultPlan.parse(small.faults).faults) == 1


def test_the_result_does_not_depend_on_the_number_of_workers() -> None:
    alone = run_seeds(0, 30, steps=40, mutant="late_fill_dropped")
    together = run_seeds(0, 30, steps=40, mutant="late_fill_dropped", workers=2)
    assert alone.violations > 0
    for name in ("seeds", "violations", "first_violation"):
        assert getattr(alone, name) == getattr(together, name)


def test_there_are_bugs_enough_and_each_says_what_it_is() -> None:
    assert len(MUTANTS) >= 15
    assert all(each.bug for each in MUTANTS.values())
    assert len({each.bug for each in MUTANTS.values()}) == len(MUTANTS)


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_planted_bug_is_gone_afterwards(name: str) -> None:
    mutant = MUTANTS[name]
    before = mutant.owner.__dict__[mutant.attribute]
    with planted(name):
        assert mutant.owner.__dict__[mutant.attribute] is not before
    assert mutant.owner.__dict__[mutant.attribute] is before


def test_an_unknown_bug_is_refused() -> None:
    with pytest.raises(ConfigError, match="no planted bug"), planted("none_such"):
        pass


# Cases. ---------------------------------------------------------------------------------------------------------------


def test_cases_are_functions_of_their_seeds_and_reach_everything() -> None:
    cases = [Case.from_seed(seed, steps=200) for seed in range(300)]
    assert cases == [Case.from_seed(seed, steps=200) for seed in range(300)]
    assert {fault.kind for case in cases for fault in FaultPlan.parse(case.faults).faults} == set(FaultKind)
    assert {len(case.kills) for case in cases} == {0, 1, 2, 3}
    assert {case.dedupe for case in cases} == {"all", "open"}
    assert {case.recv_window_ms for case in cases} == {None, 1_000}
    assert any(case.switch_step for case in cases)


def test_a_plan_says_all_of_a_case_but_seed_and_steps() -> None:
    for seed in range(50):
        case = Case.from_seed(seed, steps=200)
        assert Case.parse(case.plan, seed=seed, steps=200) == case


@pytest.mark.parametrize("text", ["kill:0", "kill:x", "switch:", "dedupe:none", "window:5", "flood"])
def test_a_plan_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        Case.parse(text, seed=0, steps=10)


def test_killed_engines_are_started_again(tmp_path: Path) -> None:
    # Every point from the first on: the start with its journal, the first orders, the first fills.
    for point in range(1, 60):
        case = Case(seed=5, steps=12, kills=(point, point))
        assert run_case(case, tmp_path) is None, case.plan


# The command. ---------------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_found() -> None:
    done = ami("simtest", "--seeds", "3", "--steps", "30", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result) == {"seeds", "steps", "violations", "first_violation", "wall_s"}
    assert (result["seeds"], result["steps"], result["violations"], result["first_violation"]) == (3, 30, 0, None)


def test_the_command_fails_on_a_violation_and_prints_how_to_repeat_it() -> None:
    done = ami("simtest", "--seeds", "10", "--steps", "60", "--mutant", "fill_not_written", "--json")
    assert done.returncode == 1, done.stderr
    command = json.loads(done.stdout)["first_violation"]["command"]
    again = ami(*shlex.split(command)[1:])
    assert again.returncode == 1
    assert "repeat with: ami simtest" in again.stderr


def test_the_command_lists_the_planted_bugs() -> None:
    done = ami("simtest", "--list-mutants", "--json")
    assert [each["name"] for each in json.loads(done.stdout)["mutants"]] == list(MUTANTS)
    assert "timeout_is_rejection" in ami("simtest", "--list-mutants").stdout


def test_the_command_refuses_a_bug_that_there_is_not() -> None:
    done = ami("simtest", "--mutant", "none_such")
    assert done.returncode == 2
    assert "--mutant" in done.stderr


# A real process. ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_kill_9_doubles_loses_and_invents_nothing(tmp_path: Path) -> None:
    result = kill_repeatedly(10, tmp_path, seed=3)
    assert result.problems == ()
    assert result.starts >= 5
    assert result.orders > 0


def test_an_exchange_is_at_rest_when_nothing_is_open_under_way_or_unread() -> None:
    clock = ManualClock(1_700_000_000_000_000_000)
    exchange = MockExchange(clock, faults=FaultPlan.parse("late_arrival@submit:2=500"))
    session = exchange.connect()
    assert exchange.is_at_rest
    order = SubmitOrder(client_order_id="a", market_id="MOCK", side=Side.BUY, price=90.0, qty=0.5)
    exchange.submit(order)
    assert not exchange.is_at_rest  # it is open
    exchange.cancel("a")
    assert not exchange.is_at_rest  # nobody has read that it is not
    exchange.poll(session)
    assert exchange.is_at_rest
    exchange.submit(msgspec.structs.replace(order, client_order_id="b"))
    assert not exchange.venue.open_orders()
    assert not exchange.is_at_rest  # it is under way
    clock.advance_to(clock.now_ns() + 600 * 1_000_000)
    exchange.advance()
    assert len(exchange.venue.open_orders()) == 1
