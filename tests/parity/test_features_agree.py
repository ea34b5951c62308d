"""Every feature of the schema, on every stream: the backends agree within the tolerances that the schema states."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ami_engine.features.schema import FEATURES, SCHEMA_HASH, FeatureDef


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
@pytest.mark.parametrize("fast", ["native", "numba"])
def test_the_fast_backends_agree_with_the_definition(lab: Any, case_name: str, fast: str, feature: FeatureDef) -> None:
    ours, meaning = lab.outcome(case_name, fast), lab.outcome(case_name, "reference")
    tick_size = lab.case(case_name).config.tick_size
    assert lab.disagreement(feature, feature.rel_tol_reference, ours, meaning, tick_size) == ""


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_native_and_numba_give_the_same_bits(lab: Any, case_name: str, feature: FeatureDef) -> None:
    native, numba = lab.outcome(case_name, "native"), lab.outcome(case_name, "numba")
    assert np.array_equal(native.of(feature.name), numba.of(feature.name), equal_nan=True)


def test_every_backend_refuses_the_same_rows(lab: Any, case_name: str) -> None:
    reports = [lab.outcome(case_name, backend).report for backend in ("native", "numba", "reference")]
    assert reports[0].accepted + sum(reports[0].rejected.values()) == reports[0].rows
    assert reports[0] == reports[1] == reports[2]


@pytest.mark.parametrize(
    ("case_name", "reasons"),
    [
        (
            "bad_rows-count",
            {
                "crossed_book",
                "malformed",
                "negative_price",
                "negative_size",
                "non_positive_time",
                "not_finite",
                "time_backwards",
                "unknown_kind",
            },
        ),
        ("one_sided-both", {"empty_book"}),
        ("levels-time", {"crossed_book", "empty_book", "levels_unsorted", "not_finite", "price_mismatch"}),
    ],
)
def test_the_streams_hold_what_they_are_named_for(lab: Any, case_name: str, reasons: set[str]) -> None:
    report = lab.outcome(case_name, "reference").report
    assert set(report.rejected) >= reasons
    assert report.accepted > report.rows / 2


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_no_feature_is_constant_over_the_streams(lab: Any, feature: FeatureDef) -> None:
    """A feature that never moves would be compared with itself only."""
    names = ("walk-count", "late_looks-count", "levels-time", "locked-both")
    values = np.concatenate([lab.outcome(name, "reference").of(feature.name) for name in names])
    distinct = np.unique(values[np.isfinite(values)]).size
    assert distinct > 5 or feature.name == "cost_ticks"


def test_the_core_was_built_from_this_schema() -> None:
    core = pytest.importorskip("ami_engine._core", reason="the compiled core is not in this installation")
    assert core.SCHEMA_HASH == SCHEMA_HASH
