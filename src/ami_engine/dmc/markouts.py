"""Adverse selection: what the market did after our fills."""

from __future__ import annotations

import math
from collections import deque
from fractions import Fraction
from typing import Any

__all__ = ["MARKOUT_HORIZONS_NS", "MAX_MARKOUT_FILLS", "Markouts"]

MARKOUT_HORIZONS_NS = (15_000_000_000, 60_000_000_000)
MAX_MARKOUT_FILLS = 256
_ZERO = Fraction(0)
_NEVER = 1 << 63


class _MarkedFill:
    """A fill and, for each horizon, its signed markout in ticks; None while the horizon has not passed."""

    __slots__ = ("markouts", "mid", "qty", "sign", "ts_ns")

    def __init__(self, ts_ns: int, sign: int, qty: float, mid: float, markouts: list[float | None]) -> None:
        self.ts_ns = ts_ns
        self.sign = sign
        self.qty = qty
        self.mid = mid
        self.markouts = markouts


class Markouts:
    """Adverse selection of our fills: what the mid did against them at each horizon.

    Fills wait in one queue for each horizon, oldest first, and the sums under the mean are exact fractions, to which a
    fill is added when its horizon passes and from which it is taken when it leaves: nothing is rescanned, nothing
    drifts, and a restored state goes on bit for bit. `version` moves with everything that it goes on from.
    """

    __slots__ = (
        *("_adverse", "_dirty", "_fills", "_mid", "_next_ns"),
        *("_pending", "_tick", "_values", "_weights", "_window_ns", "version"),
    )

    def __init__(self, window_ns: int, tick_size: float) -> None:
        self._window_ns = window_ns
        self._tick = tick_size
        self._mid = math.nan
        self._fills: deque[_MarkedFill] = deque()
        self._pending: tuple[deque[_MarkedFill], ...] = tuple(deque() for _ in MARKOUT_HORIZONS_NS)
        self._adverse = [0.0 for _ in MARKOUT_HORIZONS_NS]
        self._weights = [_ZERO for _ in MARKOUT_HORIZONS_NS]  # Σ qty, and Σ qty × markout, over the marked fills
        self._values = [_ZERO for _ in MARKOUT_HORIZONS_NS]
        self._dirty = False
        self._next_ns = _NEVER  # when the next horizon of a fill passes
        self.version = 0

    def on_mid(self, now_ns: int, mid: float) -> None:
        """Take a new mid: horizons that passed before it are judged by the one before it."""
        if not 0.0 < mid < math.inf:
            return
        if self._fills:
            self._settle(now_ns - 1)
            self._mid = mid
            self._settle(now_ns)
            self.version += 1
        else:
            self._mid = mid  # which nothing is judged by

    def on_fill(self, now_ns: int, sign: int, qty: float, mid: float) -> None:
        """Take a fill of ours, `sign` +1 for a buy and -1 for a sell, and the mid; without a mid it is passed over."""
        if not (0.0 < mid < math.inf and 0.0 < qty < math.inf):
            return
        self._settle(now_ns - 1)
        self._mid = mid
        if len(self._fills) == MAX_MARKOUT_FILLS:
            self._drop_oldest()
        fill = _MarkedFill(now_ns, sign, qty, mid, [None for _ in MARKOUT_HORIZONS_NS])
        self._fills.append(fill)
        for queue in self._pending:
            queue.append(fill)
        self._plan()
        self.version += 1

    def adverse_ticks(self, now_ns: int) -> list[float]:
        """Return adverse selection at each horizon, ticks >= 0."""
        if self._fills:
            self._settle(now_ns)
            start_ns = now_ns - self._window_ns
            while self._fills and self._fills[0].ts_ns <= start_ns:
                self._drop_oldest()
        if self._dirty:
            self._adverse = [self._mean_adverse(i) for i in range(len(MARKOUT_HORIZONS_NS))]
            self._dirty = False
        return self._adverse

    def _settle(self, until_ns: int) -> None:
        if until_ns < self._next_ns:
            return
        for i, queue in enumerate(self._pending):
            while queue and queue[0].ts_ns + MARKOUT_HORIZONS_NS[i] <= until_ns:
                fill = queue.popleft()
                # Invariant: there is a mid once there is a fill.
                markout = fill.markouts[i] = fill.sign * (fill.mid - self._mid) / self._tick
                self._count(i, Fraction(fill.qty), markout)
        self._plan()
        self.version += 1

    def _plan(self) -> None:
        heads = [queue[0].ts_ns + MARKOUT_HORIZONS_NS[i] for i, queue in enumerate(self._pending) if queue]
        self._next_ns = min(heads, default=_NEVER)

    def _drop_oldest(self) -> None:
        oldest = self._fills.popleft()
        self.version += 1
        for queue in self._pending:
            if queue and queue[0] is oldest:
                queue.popleft()
        for i, markout in enumerate(oldest.markouts):
            if markout is not None:
                self._count(i, -Fraction(oldest.qty), markout)

    def _count(self, i: int, qty: Fraction, markout: float) -> None:
        self._weights[i] += qty
        self._values[i] += qty * Fraction(markout)
        self._dirty = True

    def _mean_adverse(self, i: int) -> float:
        weight = self._weights[i]
        return max(0.0, float(self._values[i] / weight)) if weight else 0.0

    def to_builtins(self) -> dict[str, Any]:
        """Return the state as plain values, for `load`."""
        fills = [[fill.ts_ns, fill.sign, fill.qty, fill.mid, fill.markouts] for fill in self._fills]
        return {"mid": None if math.isnan(self._mid) else self._mid, "fills": fills}

    def load(self, state: dict[str, Any]) -> None:
        """Take over the state that `to_builtins` returned."""
        self._mid = math.nan if state["mid"] is None else state["mid"]
        self._fills = deque(_MarkedFill(*fill) for fill in state["fills"])
        self._pending = tuple(
            deque(fill for fill in self._fills if fill.markouts[i] is None) for i in range(len(MARKOUT_HORIZONS_NS))
        )
        self._weights = [_ZERO for _ in MARKOUT_HORIZONS_NS]
        self._values = [_ZERO for _ in MARKOUT_HORIZONS_NS]
        for fill in self._fills:
            for i, markout in enumerate(fill.markouts):
                if markout is not None:
                    self._count(i, Fraction(fill.qty), markout)
        self._dirty = True
        self._plan()
        self.version += 1
