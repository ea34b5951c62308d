"""Cases: memory. The state of one symbol, and what a long run leaves behind."""

from __future__ import annotations

import gc
import mmap
import sys
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ami_engine.adapters.base import MarketDataSource
from ami_engine.bench.case import Case, Group, Prepared, Ratio, Scale, require
from ami_engine.bench.deciding import INSTRUMENT, drive
from ami_engine.bench.inputs import CONFIG, MOVING, START_NS, market, quote_rows
from ami_engine.events import BookSnapshot
from ami_engine.features import FeatureBuilder
from ami_engine.units import Instrument

__all__ = ["GROWTH_GROUP", "MEMORY_GROUP", "resident_bytes"]

_STATM = Path("/proc/self/statm")
_PERIOD = 4_096
# The state is weighed with everything that it can hold.
_WHOLE_ROW = msgspec.structs.replace(CONFIG, signals=True)
_TRACE_FILE_BYTES = 16 << 20


def resident_bytes() -> int:
    """Return the resident memory of this process, bytes.

    >>> resident_bytes() > 1_000_000
    True
    """
    if _STATM.is_file():
        return int(_STATM.read_text(encoding="ascii").split()[1]) * mmap.PAGESIZE
    resource: Any = import_module("resource")  # absent on Windows: the case is skipped there
    peak = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peak if sys.platform == "darwin" else peak * 1024


def _state(scale: Scale) -> Prepared:
    quotes = market(1_000)
    table = quotes.table

    def run() -> float:
        out = np.empty((1_000, len(FeatureBuilder(_WHOLE_ROW).names)))
        FeatureBuilder(_WHOLE_ROW, backend="native").run(table, out)
        gc.collect()
        before = resident_bytes()
        builders = [FeatureBuilder(_WHOLE_ROW, backend="native") for _ in range(scale.symbols)]
        for builder in builders:
            builder.run(table, out)
        return (resident_bytes() - before) / scale.symbols / 1024

    def check() -> None:
        builder = FeatureBuilder(_WHOLE_ROW, backend="native")
        builder.run(table)
        depth = float(np.median((quotes.ask - quotes.bid)[-_WHOLE_ROW.window_steps :]))
        require(builder.view[builder.names.index("spread_med_5m")] == depth, "the state is not the one to be weighed")

    return Prepared(run, check, 0)


class _EndlessQuotes(MarketDataSource):
    """A few thousand quotes over and over; each event is made when it is asked for."""

    snapshots_only = True
    identity = "bench"

    def __init__(self, events: int) -> None:
        self._rows = quote_rows(market(_PERIOD, moving=MOVING))
        self._events = events
        self._given = 0

    def next_event(self) -> BookSnapshot | None:
        """Return the next event, None at the end."""
        given = self._given
        if given == self._events:
            return None
        self._given = given + 1
        # Forth and back again, so that the price makes no jump where the quotes begin anew.
        place = given % (2 * _PERIOD - 2)
        _, bid, ask, bid_depth, ask_depth = self._rows[place if place < _PERIOD else 2 * _PERIOD - 2 - place]
        ts_ns = START_NS + given * 20_000_000
        return BookSnapshot(ts_ns, ts_ns, INSTRUMENT.symbol, 0, bid, ask, bid_depth, ask_depth)

    def instruments(self) -> Mapping[str, Instrument]:
        """Return the one instrument."""
        return {INSTRUMENT.symbol: INSTRUMENT}


def _growth(scale: Scale) -> Prepared:
    """Resident memory at the end of a run less that after its first tenth, MiB."""
    steps = scale.long_steps

    def run() -> float:
        marks: list[tuple[int, int]] = []

        def progress(done: int) -> None:
            if not marks and done >= steps // 10:
                marks.append((done, resident_bytes()))

        # Two files of the trace are kept: a run that writes for days keeps no more on the disk than it does in memory.
        with tempfile.TemporaryDirectory() as folder:
            options = {"trace": "binary", "trace_max_bytes": _TRACE_FILE_BYTES, "trace_max_files": 2}
            summary = drive(_EndlessQuotes(steps), run_dir=Path(folder, "run"), progress=progress, **options)
        require(summary["steps"] == steps and marks, f"the run made {summary['steps']} steps of {steps}")
        return (resident_bytes() - marks[0][1]) / 2**20

    def check() -> None:
        events = [_EndlessQuotes(3).next_event() for _ in range(2)]
        require(events[0] == events[1] is not None, "the source is not deterministic")

    return Prepared(run, check, 0)


MEMORY_GROUP = Group(
    "memory",
    (
        Case("memory.symbol",
             "feature state of a symbol, signals included, windows by count, its Python object included", _state, "KiB",
             needs=("ami_engine._core", "resource"), rounds=1),
    ),
    (
        Ratio("state per symbol, KiB", "feature state per symbol (count windows), KiB", "memory.symbol",
              reach=48.0, aim=32.0),
    ),
)  # fmt: skip

GROWTH_GROUP = Group(
    "growth",
    (
        Case("growth.run", "resident memory after a long run with a binary trace less that after its first tenth",
             _growth, "MiB", needs=("resource",), rounds=1),
    ),
    (
        Ratio("growth over a run, MiB",
              "RSS growth over a run, binary trace, rotated away (events: 500 000; 40 000 with --quick, 10 million "
              "with --long), MiB",
              "growth.run", reach=16.0, aim=4.0),
    ),
)  # fmt: skip
