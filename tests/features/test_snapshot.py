"""A saved builder goes on bit for bit, and nothing else is taken for a snapshot."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ami_engine.features import FeatureBuilder, FeatureConfig, available_backends
from ami_engine.features.backends.state_bytes import seal

Make = Callable[..., FeatureBuilder]
Table = dict[str, npt.NDArray[Any]]

WINDOWS = [
    {"window_5m_steps": 37},
    {"window_5m_steps": None, "window_5m_ms": 400},
    {"window_5m_steps": 37, "window_5m_ms": 40},
]


def cut(table: Table, start: int, stop: int) -> Table:
    return {name: column[start:stop] for name, column in table.items()}


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("at", [0, 1, 2, 36, 38, 150, 311])
def test_a_restored_builder_goes_on_bit_for_bit(
    make: Make, mixed_stream: Table, window: dict[str, Any], at: int
) -> None:
    parameters = dict(vol_window=20, sigma_short_steps=5, sigma_long_steps=30, **window)
    builder, twin = make(**parameters), make(**parameters)
    builder.run(cut(mixed_stream, 0, at))
    twin.run(cut(mixed_stream, 400, 500))  # whatever it held is replaced
    view = twin.view
    twin.restore(builder.snapshot())
    assert np.array_equal(view, builder.view, equal_nan=True)
    assert twin.snapshot() == builder.snapshot()
    rest = cut(mixed_stream, at, 600)
    assert np.array_equal(twin.run(rest), builder.run(rest), equal_nan=True)
    assert np.array_equal(view, builder.view, equal_nan=True)


def test_pickling_is_a_snapshot(make: Make, mixed_stream: Table) -> None:
    builder = make(window_5m_steps=37)
    builder.run(cut(mixed_stream, 0, 300))
    twin = pickle.loads(pickle.dumps(builder))
    assert (twin.config, twin.backend) == (builder.config, builder.backend)
    rest = cut(mixed_stream, 300, 600)
    assert np.array_equal(twin.run(rest), builder.run(rest), equal_nan=True)


def test_a_damaged_snapshot_is_refused_and_changes_nothing(make: Make, mixed_stream: Table) -> None:
    builder = make(window_5m_steps=7, vol_window=5, sigma_short_steps=2, sigma_long_steps=4)
    builder.run(cut(mixed_stream, 0, 60))
    state = builder.snapshot()
    damaged = [b"", b"AMIF", state[:-1], state + b"\0", b"X" + state[1:]]
    for i in range(0, len(state), 13):
        damaged.append(state[:i] + bytes([state[i] ^ 0x10]) + state[i + 1 :])
    for data in damaged:
        with pytest.raises(ValueError, match="snapshot"):
            builder.restore(data)
        assert builder.snapshot() == state


def test_a_state_that_cannot_be_is_refused_though_its_checksum_holds(mixed_stream: Table) -> None:
    core = pytest.importorskip("ami_engine._core", reason="needs the compiled core")
    assert core.SCHEMA_HASH
    config = FeatureConfig(window_5m_steps=7, window_5m_ms=30, vol_window=5, sigma_short_steps=2, sigma_long_steps=4)
    builder = FeatureBuilder(config, "native")
    builder.run(cut(mixed_stream, 0, 60))
    whole = builder.snapshot()
    state = whole[len(seal("native", config, b"")) :]
    rng = np.random.default_rng(1)
    survivors = 0
    # Whatever bytes come, the core refuses them or is safe to go on with: it never reads outside of its windows.
    for _ in range(3_000):
        data = bytearray(state)
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(len(data))] = rng.integers(256)
        try:
            builder.restore(seal("native", config, bytes(data[: len(data) - rng.integers(0, 2)])))
        except ValueError:
            continue
        survivors += 1
        builder.run(cut(mixed_stream, 60, 120))
    assert 0 < survivors < 3_000
    builder.restore(whole)
    assert builder.snapshot() == whole


def test_a_snapshot_is_bound_to_config_backend_and_version(make: Make) -> None:
    builder = make(levels=3)
    state = builder.snapshot()
    with pytest.raises(ValueError, match="another FeatureConfig"):
        make(levels=4).restore(state)
    with pytest.raises(ValueError, match="must be of version 4, was 3"):
        builder.restore(state[:4] + b"\x03" + state[5:])
    for name, absent in available_backends().items():
        if not absent and name != builder.backend:
            with pytest.raises(ValueError, match=f"must be of the backend {name}, was {builder.backend}"):
                FeatureBuilder(builder.config, name).restore(state)
