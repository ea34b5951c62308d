"""`vector()`: the live row as a vector of its own, from every backend."""

from __future__ import annotations

import numpy as np
import pytest

from ami_engine.features import FeatureBuilder, FeatureVector, available_backends


@pytest.mark.parametrize("backend", [name for name, reason in available_backends().items() if not reason])
def test_the_vector_is_the_row_as_it_stood(backend: str) -> None:
    builder = FeatureBuilder(backend=backend)
    builder.push(1_000_000, 0.49, 0.51, 3.0, 1.0)
    vector = builder.vector()
    assert isinstance(vector, FeatureVector)
    assert np.array_equal(np.asarray(vector), builder.view)
    builder.push(2_000_000, 0.59, 0.61, 3.0, 1.0)
    assert vector.mid == 0.5
    assert builder.vector().mid == 0.6
