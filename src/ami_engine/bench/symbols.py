"""Cases: many symbols in one process, streaming, in a batch and in the loop, beside one symbol."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from ami_engine.adapters.base import MarketDataSource
from ami_engine.bench.case import Case, Group, Prepared, Ratio, Scale, require
from ami_engine.bench.deciding import INSTRUMENT, drive
from ami_engine.bench.footprint import resident_bytes
from ami_engine.bench.inputs import CONFIG, MOVING, START_NS, market, quote_rows
from ami_engine.clock import perf_ns
from ami_engine.events import BookSnapshot
from ami_engine.features import FeatureBuilder, run_many
from ami_engine.units import Instrument

__all__ = ["GROUP", "MEMORY_GROUP"]

# Rounds over all symbols in a run of the loop; its time is taken over the second half, when every symbol is known.
_TURNS = 6


def _many(scale: Scale) -> int:
    """How many symbols are many: 10 000 in a full run."""
    return scale.symbols * 10


def _streaming(symbols: int, scale: Scale) -> Prepared:
    """Push quotes into `symbols` builders in turn."""
    turns = max(1, scale.calls // symbols)
    quotes = market(turns + 1)
    rows = quote_rows(quotes)
    builders = [FeatureBuilder(CONFIG, backend="native") for _ in range(symbols)]
    pushes = [builder.push for builder in builders]
    for push in pushes:
        push(*rows[0])
    fresh = [builder.snapshot() for builder in builders[:1]] * symbols

    def reset() -> None:
        for builder, state in zip(builders, fresh, strict=True):
            builder.restore(state)

    def run() -> None:
        for row in rows[1:]:
            for push in pushes:
                push(*row)

    def check() -> None:
        reset()
        run()
        expected = FeatureBuilder(CONFIG, backend="native").run(
            {k: v for k, v in quotes.table.items() if k != "now_ns"}
        )
        for builder in (builders[0], builders[-1]):
            require(builder.view.tobytes() == expected[-1].tobytes(), "a builder took over something from another one")

    return Prepared(run, check, turns * symbols, reset)


def _batch(symbols: int, scale: Scale) -> Prepared:
    """The rows of `symbols` symbols in turn, as one table."""
    turns = max(1, scale.rows // symbols)
    quotes = market(turns)
    table: dict[str, Any] = {name: np.repeat(column, symbols) for name, column in quotes.table.items()}
    table["symbol"] = np.tile(np.arange(symbols), turns)
    out = np.empty((turns * symbols, len(FeatureBuilder(CONFIG).names)))

    def check() -> None:
        run_many(table, config=CONFIG, backend="native", out=out)
        expected = FeatureBuilder(CONFIG, backend="native").run(quotes.table)
        for symbol in (0, symbols - 1):
            require(out[symbol::symbols].tobytes() == expected.tobytes(), "a symbol's rows are not those of it alone")

    return Prepared(lambda: run_many(table, config=CONFIG, backend="native", out=out), check, turns * symbols)


class _InTurn(MarketDataSource):
    """One quote after another of many symbols, whose prices mostly stand still; each is made when it is asked for."""

    snapshots_only = True
    identity = "bench"

    def __init__(self, symbols: int, events: int) -> None:
        self._names = [f"S{number}" for number in range(symbols)]
        self._rows = quote_rows(market(max(64, events // symbols + 8), moving=MOVING))
        self._given, self._half, self._events = 0, events // 2, events
        self.half_ns = self.end_ns = 0  # when the first event of the second half, and None, were asked for

    def next_event(self) -> BookSnapshot | None:
        """Return the next event, None at the end."""
        given = self._given
        if given == self._half:
            self.half_ns = perf_ns()
        if given == self._events:
            self.end_ns = perf_ns()
            return None
        self._given = given + 1
        turn, symbol = divmod(given, len(self._names))
        # Symbols are at different places of the walk, so that they do not all trade at once.
        _, bid, ask, bid_depth, ask_depth = self._rows[turn + symbol % 8]
        ts_ns = START_NS + given * 1_000_000
        return BookSnapshot(ts_ns, ts_ns, self._names[symbol], 0, bid, ask, bid_depth, ask_depth)

    def instruments(self) -> Mapping[str, Instrument]:
        """Return an instrument a symbol."""
        return dict.fromkeys(self._names, INSTRUMENT)


def _steps(symbols: int, scale: Scale) -> int:
    """As many for one symbol as for many: the same work, spread otherwise."""
    return max(scale.steps, _TURNS * _many(scale)) // symbols * symbols


def _half_run(symbols: int, scale: Scale) -> float:
    """Time a step of the second half of a run takes, ns."""
    steps = _steps(symbols, scale)
    source = _InTurn(symbols, steps)
    summary = drive(source, trace=False)
    is_whole = summary["steps"] == steps and summary["error_count"] == 0
    require(is_whole, f"the run made {summary['steps']} steps of {steps}")
    return (source.end_ns - source.half_ns) / (steps - steps // 2)


def _looping(symbols: int, scale: Scale) -> Prepared:
    def check() -> None:
        summary = drive(_InTurn(symbols, 2 * symbols), trace=False)
        require(summary["steps"] == 2 * symbols and not summary["rejected_events"], "the run lost events")

    return Prepared(partial(_half_run, symbols, scale), check, 0)


def _loop_memory(scale: Scale) -> Prepared:
    """What each symbol of a run holds: features, book, guards, orders, the paper venue's side of it."""
    symbols = _many(scale)

    def run() -> float:
        drive(_InTurn(10, 1_000), trace=False)
        gc.collect()
        before = resident_bytes()
        marks: list[int] = []
        events = _TURNS * symbols

        def progress(done: int) -> None:
            if done > events - 1_000:
                marks.append(resident_bytes())

        summary = drive(_InTurn(symbols, events), trace=False, progress=progress)
        require(summary["steps"] == events and marks, f"the run made {summary['steps']} steps of {events}")
        return (marks[-1] - before) / symbols / 1024

    def check() -> None:
        names = [event.symbol for event in iter(_InTurn(3, 6).next_event, None)]
        require(names == ["S0", "S1", "S2"] * 2, "the source does not take the symbols in turn")

    return Prepared(run, check, 0)


def _one(prepare: Any) -> Any:
    return partial(prepare, 1)


def _of_many(prepare: Any) -> Any:
    return lambda scale: prepare(_many(scale), scale)


_NEEDS = ("ami_engine._core",)
_COUNT = "10 000 symbols (4 000 with --quick)"

GROUP = Group(
    "symbols",
    (
        Case("symbols.push_one", "`push` from five floats, one symbol", _one(_streaming), needs=_NEEDS, rounds=5),
        Case("symbols.push_many", f"`push` from five floats, {_COUNT} in turn", _of_many(_streaming), needs=_NEEDS,
             rounds=5),
        Case("symbols.batch_one", "`run_many`, one symbol", _one(_batch), "ns/row", needs=_NEEDS, rounds=5),
        Case("symbols.batch_many", f"`run_many`, {_COUNT} interleaved, builders made anew", _of_many(_batch), "ns/row",
             needs=_NEEDS, rounds=5),
        Case("symbols.loop_one", "a step of `run_loop` untraced, one symbol", _one(_looping), needs=_NEEDS, rounds=3),
        Case("symbols.loop_many", f"a step of `run_loop` untraced, {_COUNT} in turn, all of them known",
             _of_many(_looping), needs=_NEEDS, rounds=3),
    ),
    (
        Ratio("symbols / push", f"`push`, {_COUNT} in turn, against one symbol", "symbols.push_many",
              "symbols.push_one"),
        Ratio("symbols / loop", f"a step of `run_loop`, {_COUNT} in turn, against one symbol", "symbols.loop_many",
              "symbols.loop_one"),
    ),
)  # fmt: skip

# In a process of its own: memory that other cases gave back would be taken for none.
MEMORY_GROUP = Group(
    "symbols memory",
    (
        Case("symbols.loop_memory", f"resident memory of a run a symbol, {_COUNT}, six quotes each", _loop_memory,
             "KiB", needs=(*_NEEDS, "resource"), rounds=1),
    ),
)  # fmt: skip
