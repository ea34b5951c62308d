"""The broker contract as tests of a user's adapter; see `ami_engine.testing`."""

from __future__ import annotations

from typing import Any

import pytest

from ami_engine.private_hook import load_object
from ami_engine.testing import BROKER_CLAUSES, BROKER_FAULT_CLAUSES
from ami_engine.testing.clause import try_clauses
from ami_engine.testing.plugin import report_outcome
from ami_engine.testing.testbed import broker_testbeds


@pytest.mark.parametrize("clause", [*BROKER_CLAUSES, *BROKER_FAULT_CLAUSES], ids=lambda clause: clause.name)
def test_broker(clause: Any, request: pytest.FixtureRequest) -> None:
    """The clause is kept."""
    place = request.config.getoption("--ami-broker")
    if not place:
        pytest.skip("no broker was named: --ami-broker MODULE:FACTORY")
    factory = load_object(place, "--ami-broker")
    (outcome,) = try_clauses([clause], broker_testbeds(factory, seed=request.config.getoption("--ami-seed")))
    report_outcome(request.node, "broker", outcome)
    if outcome.result == "not tried":
        pytest.skip(outcome.why)
    if outcome.result == "broken":
        pytest.fail(f"{outcome.text}\n{outcome.why}", pytrace=False)
