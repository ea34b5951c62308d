"""The stream of uniform numbers."""

from __future__ import annotations

import numpy as np
import pytest

from ami_engine.errors import ConfigError
from ami_engine.sim.uniform_stream import UniformStream


def test_numbers_are_those_of_the_raw_words_in_order() -> None:
    stream = UniformStream(3, stream=5)
    words = np.random.PCG64([3, 5]).random_raw(9_000)
    expected = [(int(word) >> 11) / 2**53 for word in words]
    assert [stream.draw() for _ in range(9_000)] == expected


def test_reserve_keeps_the_order_across_blocks() -> None:
    one, other = UniformStream(1), UniformStream(1)
    first = [one.draw() for _ in range(10_000)]
    second: list[float] = []
    while len(second) < 10_000:
        pop = other.reserve(7).pop
        second.extend(pop() for _ in range(7))
    assert second[:10_000] == first


def test_memory_does_not_grow_with_the_numbers_drawn() -> None:
    stream = UniformStream(1)
    for _ in range(50_000):
        stream.draw()
    assert len(stream.reserve(1)) <= 4_096


@pytest.mark.parametrize("seed", [-1, 1.5, True, None])
def test_a_seed_that_is_no_natural_number_is_refused(seed: object) -> None:
    with pytest.raises(ConfigError, match="`seed` must be an integer"):
        UniformStream(seed)  # type: ignore[arg-type]
