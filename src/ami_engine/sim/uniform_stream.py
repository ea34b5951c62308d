"""Uniform random numbers that are the same on every machine and with every version of NumPy."""

from __future__ import annotations

import numpy as np

from ami_engine.errors import ConfigError

__all__ = ["UniformStream"]

_BLOCK = 4096


class UniformStream:
    """Uniform numbers in [0, 1), seeded.

    NumPy guarantees the raw words of a `PCG64` for ever, but lets the methods of `Generator` change (NEP 19, "Random
    number generator policy"). So only the raw words are used: the upper 53 bits times 2⁻⁵³, which is exact, without any
    function of the C library. Numbers are drawn in blocks of 4096, so the memory is constant.

    Parameters
    ----------
    seed : int
        At least 0.
    stream : int
        Independent streams of one seed: 0 for the market, others for who else draws.

    Raises
    ------
    ConfigError
        When `seed` is no integer or is negative.

    Examples
    --------
    >>> UniformStream(7).draw() == UniformStream(7).draw()
    True
    >>> UniformStream(7).draw() == UniformStream(7, stream=1).draw()
    False
    """

    __slots__ = ("_bits", "_buffer")

    def __init__(self, seed: int, stream: int = 0) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ConfigError(f"`seed` must be an integer of at least 0, was {seed!r}")
        self._bits = np.random.PCG64([seed, stream])
        self._buffer: list[float] = []

    def draw(self) -> float:
        """Return the next number."""
        return self.reserve(1).pop()

    def skip(self, count: int) -> None:
        """Draw `count` numbers for nobody."""
        for _ in range(count):
            self.draw()

    def reserve(self, count: int) -> list[float]:
        """Return the buffer, with at least `count` numbers in it: its end is the next to draw (``pop()``)."""
        buffer = self._buffer
        if len(buffer) < count:
            words = np.asarray(self._bits.random_raw(_BLOCK), dtype=np.uint64)
            block = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
            buffer[:0] = block[::-1].tolist()
        return buffer
