"""A feature vector reads like an object, a mapping and an array, and cannot be changed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from ami_engine.features import FEATURE_NAMES, FeatureBuilder, FeatureVector
from ami_engine.mdm.reference_model import compute_proposal_reference


@pytest.fixture(params=["compiled", "plain"])
def vector(request: pytest.FixtureRequest) -> Any:
    event = (1_000_000, 99.0, 101.5, 3.0, 1.0)
    if request.param == "plain":
        return FeatureBuilder(backend="reference").update(*event)
    pytest.importorskip("ami_engine._core", reason="needs the compiled core")
    return FeatureBuilder(backend="native").update(*event)


def test_features_are_attributes_and_items(vector: Any) -> None:
    for name in FEATURE_NAMES:
        assert getattr(vector, name) == vector[name] == vector.get(name)
        assert type(vector[name]) is float
    assert (vector.mid, vector["bid"], vector.imbalance) == (100.25, 99.0, 0.5)


def test_pressure_is_an_alias_and_is_not_listed(vector: Any) -> None:
    assert vector.pressure == vector["pressure"] == vector.get("pressure") == vector.pressure_ticks
    assert "pressure" in vector
    assert "pressure" not in list(vector)
    assert "pressure" not in vector.as_dict()


def test_unknown_names_are_told_apart(vector: Any) -> None:
    assert vector.get("nothing") is None
    assert vector.get("nothing", 0.0) == 0.0
    assert vector.get("nothing", default=2.0) == 2.0
    assert "nothing" not in vector
    with pytest.raises(KeyError, match="nothing"):
        vector["nothing"]
    with pytest.raises(AttributeError, match="nothing"):
        _ = vector.nothing


def test_it_is_a_mapping_in_the_order_of_the_schema(vector: Any) -> None:
    assert isinstance(vector, FeatureVector)
    assert isinstance(vector, Mapping)
    assert list(vector) == list(vector.keys()) == list(FEATURE_NAMES)
    assert len(vector) == 30
    assert dict(vector) == vector.as_dict() == dict(vector.items())
    assert list(vector.as_dict().values()) == list(vector.values())
    copied = vector.as_dict()
    copied["mid"] = 0.0
    assert vector.mid == 100.25


def test_numpy_reads_it_without_a_copy(vector: Any) -> None:
    first, second = np.asarray(vector), np.asarray(vector)
    assert first.dtype == np.float64
    assert np.shares_memory(first, second)
    assert first.tolist() == list(vector.values())
    assert not first.flags.writeable
    del vector  # the array keeps what it reads alive
    assert second[0] == 100.25


def test_a_copy_is_made_when_asked_for(vector: Any) -> None:
    changed = np.array(vector)
    changed[0] = 1.0
    assert vector.mid == 100.25
    assert np.asarray(vector, dtype=np.float32).dtype == np.float32


def test_it_cannot_be_changed(vector: Any) -> None:
    with pytest.raises(AttributeError):
        vector.mid = 1.0
    with pytest.raises(TypeError):
        vector["mid"] = 1.0


def test_it_is_pickled_and_copied(vector: Any) -> None:
    for twin in (pickle.loads(pickle.dumps(vector)), copy.copy(vector), copy.deepcopy(vector)):
        assert type(twin) is type(vector)
        assert twin.as_dict() == vector.as_dict()


def test_its_text_names_every_feature(vector: Any) -> None:
    text = repr(vector)
    assert text.startswith("FeatureVector(mid=100.25, bid=99.0, ")
    assert all(f"{name}=" in text for name in FEATURE_NAMES)


def test_a_model_reads_it_like_a_mapping(vector: Any) -> None:
    assert compute_proposal_reference(vector) == compute_proposal_reference(vector.as_dict())


def test_a_vector_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="must hold 30 features, or 26 without signals"):
        FeatureVector([1.0])
