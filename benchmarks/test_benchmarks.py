"""The cases of `ami bench` under pytest-benchmark: each checks its answer, then is timed.

    python -m pytest benchmarks --benchmark-only

Ratios are `ami bench`'s business: here every case runs by itself.
"""

from __future__ import annotations

import os

# Read by polars when it is imported: one core is what is compared.
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ami_engine.bench.case import SCALES, Case
from ami_engine.bench.suite import GROUPS, why_skipped

CASES = {f"{group.name}:{case.name}": case for group in GROUPS if not group.is_opt_in for case in group.cases}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_case(case: Case, benchmark: BenchmarkFixture) -> None:
    reason = why_skipped(case, peers=True)
    if reason:
        pytest.skip(reason)
    prepared = case.prepare(SCALES["quick"])
    try:
        prepared.check()
        if prepared.events:
            benchmark.extra_info["events"] = prepared.events
            benchmark.pedantic(prepared.run, setup=prepared.reset, rounds=3)
        else:
            # The case measures by itself; what is timed here is only how long that takes.
            benchmark.extra_info["figure"] = benchmark.pedantic(prepared.run, rounds=1)
            benchmark.extra_info["unit"] = case.unit
    finally:
        prepared.close()
