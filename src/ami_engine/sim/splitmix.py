"""Small whole random numbers from one integer: a generator that costs nothing to make."""

from __future__ import annotations

from ami_engine.errors import ConfigError

__all__ = ["SplitMix"]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


class SplitMix:
    """The splitmix64 generator: the same numbers on every machine, its whole state one integer.

    `UniformStream` draws by blocks, which pays where millions are drawn; this pays where thousands of short streams
    are made, as in simulation testing. Steele, Lea, Flood: "Fast splittable pseudorandom number generators" (OOPSLA
    2014).

    Parameters
    ----------
    seed : int
        At least 0.
    stream : int
        Independent streams of one seed.

    Raises
    ------
    ConfigError
        When `seed` is no integer or is negative.

    Examples
    --------
    >>> numbers = SplitMix(0)
    >>> hex(numbers.word()), numbers.below(6) < 6
    ('0xe220a8397b1dcdaf', True)
    """

    __slots__ = ("_state",)

    def __init__(self, seed: int, stream: int = 0) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ConfigError(f"`seed` must be an integer of at least 0, was {seed!r}")
        self._state = seed & _MASK
        if stream:
            # Far apart on the same orbit, and mixed: neighbouring seeds and streams have nothing in common.
            self._state = self.word() ^ _mixed((stream * _GOLDEN) & _MASK)

    def word(self) -> int:
        """Return the next 64 bits."""
        self._state = (self._state + _GOLDEN) & _MASK
        return _mixed(self._state)

    def below(self, count: int) -> int:
        """Return a whole number in [0, count); `count` must be far below 2⁶⁴, or the share of each is uneven."""
        return self.word() % count

    def between(self, low: int, high: int) -> int:
        """Return a whole number in [low, high]."""
        return low + self.word() % (high - low + 1)

    def chance(self, per_mille: int) -> bool:
        """Return True `per_mille` times in a thousand."""
        return self.word() % 1000 < per_mille


def _mixed(word: int) -> int:
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK
    return word ^ (word >> 31)
