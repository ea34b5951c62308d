"""Cases: one event at a time from Python, in every form that `push` and `update` take; the tail of a push in C++."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from ami_engine.bench.case import Case, Group, Prepared, Ratio, Scale, require
from ami_engine.bench.inputs import CONFIG, Market, levels_of, market, quote_events, quote_rows
from ami_engine.bench.rows import BOTTLENECK_ROW
from ami_engine.bench.streaming_peers import RIVER, SCREAMER
from ami_engine.events import BookSnapshot
from ami_engine.features import FeatureBuilder
from ami_engine.features.feature_config import FeatureConfig

__all__ = ["TAIL_GROUP", "UPDATES_GROUP", "core_parameters"]

_WARM_UP = 1_000
_TAIL_ROUNDS = 9


def core_parameters(config: FeatureConfig) -> tuple[Any, ...]:
    """Return the parameters that `_core.bench_pushes` and `_core.bench_stream` begin with."""
    return (
        config.tick_size,
        config.cost_ticks,
        list(config.level_weights()),
        config.vol_window,
        config.window_steps,
        config.sigma_short_steps,
        config.sigma_long_steps,
        list(config.signal_steps),
    )


def _prepared(
    scale: Scale, call: Callable[[FeatureBuilder], Callable[[], Any]], final: Callable[[FeatureBuilder, Market], Any]
) -> Prepared:
    """Time `call` on a warm builder; `final` feeds another one the same events as a batch, and gives its row."""
    quotes = market(scale.calls + _WARM_UP)
    builder = FeatureBuilder(CONFIG, backend="native")
    warm_up = quotes.part(0, _WARM_UP)
    builder.run({name: column for name, column in warm_up.table.items() if name != "now_ns"})
    state = builder.snapshot()
    run = call(builder)

    def check() -> None:
        builder.restore(state)
        run()
        other = FeatureBuilder(CONFIG, backend="native")
        other.restore(state)
        expected = final(other, quotes.part(_WARM_UP))
        require(np.array_equal(builder.view, expected), "the stream's last row differs from the batch's")

    return Prepared(run, check, scale.calls, reset=lambda: builder.restore(state))


def _batch_of_quotes(builder: FeatureBuilder, quotes: Market) -> Any:
    return builder.run({name: column for name, column in quotes.table.items() if name != "now_ns"})[-1]


def _batch_of_levels(builder: FeatureBuilder, quotes: Market) -> Any:
    bids, asks = levels_of(quotes)
    return builder.run({"ts_ns": quotes.ts_ns, "bids": bids, "asks": asks})[-1]


def _numbers(method: str, scale: Scale) -> Prepared:
    rows = quote_rows(market(scale.calls + _WARM_UP))[_WARM_UP:]

    def call(builder: FeatureBuilder) -> Callable[[], None]:
        take = getattr(builder, method)

        def run() -> None:
            for ts_ns, bid, ask, bid_depth, ask_depth in rows:
                take(ts_ns, bid, ask, bid_depth, ask_depth)

        return run

    return _prepared(scale, call, _batch_of_quotes)


def _loop_alone(scale: Scale) -> Prepared:
    rows = quote_rows(market(scale.calls + _WARM_UP))[_WARM_UP:]

    def run() -> Any:
        ts_ns = 0
        for ts_ns, _bid, _ask, _bid_depth, _ask_depth in rows:  # noqa: B007 - the unpacking is what is timed
            pass
        return ts_ns

    def check() -> None:
        require(run() == rows[-1][0], "the loop did not reach its end")

    return Prepared(run, check, scale.calls)


def _events(method: str, make: Callable[[Market], list[Any]], final: Any, scale: Scale) -> Prepared:
    events = make(market(scale.calls + _WARM_UP).part(_WARM_UP))

    def call(builder: FeatureBuilder) -> Callable[[], None]:
        take = getattr(builder, method)

        def run() -> None:
            for event in events:
                take(event)

        return run

    return _prepared(scale, call, final)


def _dicts(quotes: Market) -> list[dict[str, float]]:
    names = ("ts_ns", "bid", "ask", "bid_depth", "ask_depth")
    return [dict(zip(names, row, strict=True)) for row in quote_rows(quotes)]


def _structs_with_levels(quotes: Market) -> list[BookSnapshot]:
    bids, asks = levels_of(quotes)
    ts_ns = quotes.ts_ns.tolist()
    return [
        BookSnapshot(at, at, "X", 0, 0.0, 0.0, 0.0, 0.0, tuple(map(tuple, b)), tuple(map(tuple, a)))
        for at, b, a in zip(ts_ns, bids.tolist(), asks.tolist(), strict=True)
    ]


def _arrays(scale: Scale) -> Prepared:
    quotes = market(scale.calls + _WARM_UP).part(_WARM_UP)
    bids, asks = levels_of(quotes)
    books = list(zip(quotes.ts_ns.tolist(), list(bids), list(asks), strict=True))

    def call(builder: FeatureBuilder) -> Callable[[], None]:
        take = builder.push_book

        def run() -> None:
            for ts_ns, bid_levels, ask_levels in books:
                take(ts_ns, bid_levels, ask_levels)

        return run

    return _prepared(scale, call, _batch_of_levels)


def _update_as_dict(scale: Scale) -> Prepared:
    rows = quote_rows(market(scale.calls + _WARM_UP))[_WARM_UP:]

    def call(builder: FeatureBuilder) -> Callable[[], None]:
        take = builder.update

        def run() -> None:
            for ts_ns, bid, ask, bid_depth, ask_depth in rows:
                take(ts_ns, bid, ask, bid_depth, ask_depth).as_dict()

        return run

    return _prepared(scale, call, _batch_of_quotes)


def _tail(scale: Scale) -> Prepared:
    """Time every push by itself, in C++: the figure is p99.9 over median, the clock's own cost taken off both."""
    bench_pushes: Any = import_module("ami_engine._core").bench_pushes
    quotes = market(max(scale.rows, 2_000))
    push_ns, clock_ns = (np.zeros(len(quotes.bid), np.int64) for _ in range(2))
    columns = (quotes.ts_ns, quotes.bid, quotes.ask, quotes.bid_depth, quotes.ask_depth)

    def time_pushes() -> list[float]:
        row: list[float] = bench_pushes(*core_parameters(CONFIG), *columns, push_ns, clock_ns)
        return row

    def run() -> float:
        best = float("inf")
        for _ in range(_TAIL_ROUNDS):
            time_pushes()
            clock = float(np.median(clock_ns))
            median, tail = np.percentile(push_ns[_WARM_UP:], [50.0, 99.9]) - clock
            best = min(best, float(tail) / max(float(median), 1.0))
        return best

    def check() -> None:
        row = time_pushes()
        builder = FeatureBuilder(CONFIG, backend="native")
        require(np.array_equal(_batch_of_quotes(builder, quotes), row), "the timed pushes gave another row")
        require((push_ns > 0).all(), "a push took no time")

    return Prepared(run, check, 0)


_CORE = ("ami_engine._core",)

UPDATES_GROUP = Group(
    "updates",
    (
        Case("updates.loop", "the Python loop over five numbers, nothing called", _loop_alone),
        Case("updates.push", "`push(ts_ns, bid, ask, bid_depth, ask_depth)`", lambda s: _numbers("push", s),
             needs=_CORE),
        Case("updates.update", "`update(…)` of five numbers, a FeatureVector each", lambda s: _numbers("update", s),
             needs=_CORE),
        Case("updates.as_dict", "`update(…).as_dict()`", _update_as_dict, needs=_CORE),
        Case("updates.push_struct", "`push(BookSnapshot)`, one level",
             lambda s: _events("push", quote_events, _batch_of_quotes, s), needs=_CORE),
        Case("updates.update_struct", "`update(BookSnapshot)`, one level",
             lambda s: _events("update", quote_events, _batch_of_quotes, s), needs=_CORE),
        Case("updates.push_dict", "`push(dict)` of five keys", lambda s: _events("push", _dicts, _batch_of_quotes, s),
             needs=_CORE),
        Case("updates.push_levels", "`push(BookSnapshot)`, ten levels a side as tuples",
             lambda s: _events("push", _structs_with_levels, _batch_of_levels, s), needs=_CORE),
        Case("updates.push_arrays", "`push_book`, ten levels a side as arrays", _arrays, needs=_CORE),
        BOTTLENECK_ROW,
        RIVER,
        SCREAMER,
    ),
    (
        Ratio("push / bottleneck row", "`push` from five floats, less the Python loop, against one bottleneck row",
              "updates.push", "row.bottleneck", "updates.loop", reach=1.35, aim=1.1),
        Ratio("update / bottleneck row", "`update` returning a FeatureVector, less the Python loop, against the same",
              "updates.update", "row.bottleneck", "updates.loop", reach=1.65, aim=1.35),
    ),
)  # fmt: skip

TAIL_GROUP = Group(
    "tail",
    (
        Case("tail.push", f"p99.9 of one push in C++ over its median, less the clock's cost, best of {_TAIL_ROUNDS}",
             _tail, "×", needs=_CORE, rounds=1),
    ),
    (
        Ratio("push p99.9 / median", "p99.9 of `push`, less the clock's own cost, over its median, in C++",
              "tail.push", reach=4.0, aim=3.0),
    ),
)  # fmt: skip
