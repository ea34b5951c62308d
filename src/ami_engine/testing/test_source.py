"""The source contract as tests of a user's adapter; see `ami_engine.testing`."""

from __future__ import annotations

from typing import Any

import pytest

from ami_engine.private_hook import load_object
from ami_engine.testing import SOURCE_CLAUSES
from ami_engine.testing.clause import try_clauses
from ami_engine.testing.plugin import report_outcome
from ami_engine.testing.source_contract import source_testbeds


@pytest.mark.parametrize("clause", SOURCE_CLAUSES, ids=lambda clause: clause.name)
def test_source(clause: Any, request: pytest.FixtureRequest) -> None:
    """The clause is kept."""
    place = request.config.getoption("--ami-source")
    if not place:
        pytest.skip("no source was named: --ami-source MODULE:FACTORY")
    factory = load_object(place, "--ami-source")
    (outcome,) = try_clauses([clause], source_testbeds(factory, seed=request.config.getoption("--ami-seed")))
    report_outcome(request.node, "source", outcome)
    if outcome.result == "not tried":
        pytest.skip(outcome.why)
    if outcome.result == "broken":
        pytest.fail(f"{outcome.text}\n{outcome.why}", pytrace=False)
