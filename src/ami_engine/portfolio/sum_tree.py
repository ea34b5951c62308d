"""A sum over many numbers of which one changes at a time."""

from __future__ import annotations

__all__ = ["SumTree"]

# Children of a node. Summing so many in one go costs about as much as the bookkeeping of a level.
_FAN_BITS = 5
_FAN = 1 << _FAN_BITS


class SumTree:
    """The sum of numbers in places, for a step that costs the same with one place and with ten thousand.

    A running sum would drift over millions of changes, and summing all anew takes as long as there are places. Here the
    numbers are summed in groups, the groups' sums again in groups, and so on: a change sums its own groups anew, three
    of them for ten thousand places. The total depends on the numbers alone, not on how they came about; up to 32 places
    it is the plain sum in their order.

    Attributes
    ----------
    total : float
        The sum; 0 without places.

    Examples
    --------
    >>> tree = SumTree()
    >>> first, second = tree.add_place(), tree.add_place()
    >>> tree.put(first, 1.5)
    >>> tree.put(second, 2.0)
    >>> tree.put(first, 0.25)
    >>> tree.total, tree[first]
    (2.25, 0.25)
    """

    __slots__ = ("_leaves", "_levels", "total")

    def __init__(self) -> None:
        self._leaves: list[float] = []
        # Sums of groups, of groups of groups …; the last has at most one group.
        self._levels: list[list[float]] = []
        self.total = 0.0

    def __len__(self) -> int:
        return len(self._leaves)

    def __getitem__(self, place: int) -> float:
        return self._leaves[place]

    def add_place(self) -> int:
        """Return a new place, holding 0."""
        place = len(self._leaves)
        self._leaves.append(0.0)
        row = self._leaves
        for number in range(len(self._levels) + 1):
            if len(row) <= _FAN:
                break
            if number == len(self._levels):
                self._levels.append([sum(row[:_FAN])])
            upper = self._levels[number]
            if len(upper) * _FAN < len(row):
                upper.append(0.0)
            row = upper
        return place

    def put(self, place: int, value: float) -> None:
        """Let a place hold `value`."""
        row = self._leaves
        row[place] = value
        for upper in self._levels:
            place >>= _FAN_BITS
            start = place << _FAN_BITS
            upper[place] = sum(row[start : start + _FAN])
            row = upper
        self.total = sum(row)
