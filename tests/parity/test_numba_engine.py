"""What only the numba backend has to get right: arrays that grow or come from outside, a cache without a place."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from ami_engine.features import FeatureConfig
from ami_engine.features.columns import EventColumns

numba_jit = pytest.importorskip("ami_engine.features.backends.numba_jit", reason="the package `numba` is not installed")
layout = pytest.importorskip("ami_engine.features.backends.numba_layout")
state = pytest.importorskip("ami_engine.features.backends.numba_state")
state_bytes = pytest.importorskip("ami_engine.features.backends.state_bytes")

ONE_HOUR = FeatureConfig(tick_size=0.1, window_5m_steps=None, window_5m_ms=3_600_000)
BOTH = FeatureConfig(tick_size=0.1, window_5m_steps=3_000, window_5m_ms=1_000)
MANY_STEPS = FeatureConfig(tick_size=0.1, window_5m_steps=5_000)


def busy_columns(n: int = 12_000) -> EventColumns:
    rng = np.random.default_rng(9)
    bid = np.round(60_000 + np.cumsum(rng.integers(-2, 3, n)) * 0.1, 1)
    return EventColumns(
        n,
        ts=1 + np.cumsum(rng.integers(0, 400_000, n)),
        bid=bid,
        ask=np.round(bid + 0.1, 1),
        bid_depth=rng.exponential(5.0, n),
        ask_depth=rng.exponential(5.0, n),
        kind=(rng.random(n) < 0.5).astype(np.int64),
        price=bid,
        size=rng.exponential(1.0, n),
        aggressor=rng.integers(-1, 2, n),
    )


@pytest.mark.parametrize("config", [ONE_HOUR, BOTH, MANY_STEPS], ids=["time", "both", "count"])
def test_windows_that_outgrow_the_arrays_give_the_native_bits(lab: Any, config: FeatureConfig) -> None:
    case = lab.case("walk-default")._replace(config=config, columns=busy_columns())
    native, numba = lab.run("native", case), lab.run("numba", case)
    assert native.report == numba.report
    assert np.array_equal(native.rows, numba.rows, equal_nan=True)


def test_pushes_grow_the_arrays_as_a_batch_does(lab: Any) -> None:
    columns = busy_columns(4_000)
    batch = lab.run("numba", lab.case("walk-default")._replace(config=ONE_HOUR, columns=columns))
    engine = lab.engine("numba", ONE_HOUR)
    c = {k: v.tolist() for k, v in columns._asdict().items() if isinstance(v, np.ndarray)}
    for k in range(columns.rows):
        if c["kind"][k]:
            engine.push_trade(c["ts"][k], c["price"][k], c["size"][k], c["aggressor"][k])
        else:
            engine.push_quote(c["ts"][k], c["bid"][k], c["ask"][k], c["bid_depth"][k], c["ask_depth"][k])
        assert np.array_equal(engine.row, batch.rows[k], equal_nan=True)
    restored = lab.engine("numba", ONE_HOUR)
    restored.restore(engine.snapshot())
    assert restored.snapshot() == engine.snapshot()


HOSTILE = {
    "an offset outside of the arrays": (layout.RETURNS + layout.ITEMS, 10**9),
    "a mask of another size": (layout.RETURNS + layout.MASK, 2**40 - 1),
    "more mids than there is room for": (layout.MIDS_SEEN, 10**6),
    "a negative position": (layout.RETURNS + layout.FIRST, -5),
    "cuts out of order": (layout.TRADES + layout.CUT_A, 10**9),
    "a heap larger than its window": (layout.SPREADS + layout.LOW_COUNT, 4_000),
    "a negative heap": (layout.DEPTHS + layout.HIGH_COUNT, -1),
    "a queue longer than its window": (layout.STALENESS + layout.QUEUE_END, 10**7),
    "another window": (layout.WINDOW_STEPS, 10**9),
    "more levels than weights": (layout.LEVELS, 1_000),
}


@pytest.mark.parametrize(("slot", "value"), HOSTILE.values(), ids=HOSTILE.keys())
def test_integers_that_would_lead_out_of_the_arrays_are_refused(lab: Any, slot: int, value: int) -> None:
    config = lab.case("walk-both").config
    engine = lab.engine("numba", config)
    engine.run(lab.case("walk-both").columns, np.empty((500, 30)))
    arrays, row = state.unpack(config, state_bytes.unseal("numba", config, engine.snapshot()))
    engine.restore(state_bytes.seal("numba", config, state.pack(config, arrays, row)))
    arrays.i[slot] = value
    with pytest.raises(ValueError, match="damaged"):
        engine.restore(state_bytes.seal("numba", config, state.pack(config, arrays, row)))


def test_places_of_a_heap_that_name_a_sample_twice_are_refused(lab: Any) -> None:
    config = lab.case("walk-count").config
    engine = lab.engine("numba", config)
    engine.run(lab.case("walk-count").columns, np.empty((500, 30)))
    arrays, row = state.unpack(config, state_bytes.unseal("numba", config, engine.snapshot()))
    positions = arrays.i[layout.DEPTHS + layout.HIGH_POSITIONS]
    arrays.i[positions] = arrays.i[positions + 1]
    with pytest.raises(ValueError, match="damaged"):
        engine.restore(state_bytes.seal("numba", config, state.pack(config, arrays, row)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bid": np.ones(3)}, "rows"),
        ({"ts": np.ones(11, np.int64)}, "rows"),
        ({"kind": np.ones(10, np.int64)}, "price"),
        ({"ns_per_ts": 0}, "ns_per_ts"),
    ],
)
def test_columns_that_would_be_read_past_their_end_are_refused(lab: Any, change: dict[str, Any], words: str) -> None:
    columns = EventColumns(10, ts=np.arange(1, 11), bid=np.ones(10), ask=np.ones(10))._replace(**change)
    with pytest.raises(ValueError, match=words):
        lab.engine("numba", ONE_HOUR).run(columns, np.empty((10, 30)))


def test_columns_may_be_read_only_and_unaligned(lab: Any) -> None:
    columns = busy_columns(500)
    raw = bytearray(8 * 500 + 1)
    bid = np.frombuffer(raw, np.float64, 500, offset=1)
    bid[:] = columns.bid
    bid.flags.writeable = columns.ts.flags.writeable = False
    assert not bid.flags.aligned
    case = lab.case("walk-default")
    plain = lab.run("numba", case._replace(columns=busy_columns(500)))
    odd = lab.run("numba", case._replace(columns=columns._replace(bid=bid)))
    assert np.array_equal(plain.rows, odd.rows, equal_nan=True)


def test_times_that_are_no_integers_are_refused(lab: Any) -> None:
    engine = lab.engine("numba", ONE_HOUR)
    with pytest.raises(TypeError):
        engine.push_quote(1.5, 1.0, 2.0, 1.0, 1.0)
    with pytest.raises(TypeError):
        engine.push_quote(1, None, 2.0, 1.0, 1.0)
    assert engine.last_ts_ns == 0


def test_code_without_a_place_for_its_cache_is_compiled_all_the_same() -> None:
    scope: dict[str, Any] = {}
    exec(compile("def double(x):\n    return x + x\n", "<nowhere>", "exec"), scope)
    assert numba_jit._compile("float64(float64)", scope["double"])(2.0) == 4.0


def test_another_backend_does_not_import_numba() -> None:
    code = (
        "import sys; from ami_engine.features import FeatureBuilder, available_backends; available_backends();"
        "FeatureBuilder(backend='reference').push(1, 1.0, 2.0, 1.0, 1.0); sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
