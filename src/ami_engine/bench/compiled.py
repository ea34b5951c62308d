"""Cases: decisions over a whole table in one compiled call, against the features alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from ami_engine.backtest import run_compiled
from ami_engine.bench.case import Case, Group, Prepared, Ratio, Scale, require
from ami_engine.bench.deciding import INSTRUMENT, SYMBOL, WIDE_POLICY, replay
from ami_engine.bench.inputs import CONFIG, MOVING, market, quote_events
from ami_engine.features import FeatureBuilder

__all__ = ["GROUP"]

_CHECKED_ROWS = 4_000


def _table(rows: int) -> dict[str, Any]:
    columns = market(rows, moving=MOVING).table
    del columns["now_ns"]  # compiled decisions are taken at the events' own times
    return columns


def _decide(table: dict[str, Any]) -> Any:
    return run_compiled(
        table,
        config=CONFIG,
        policy=WIDE_POLICY,
        instrument=INSTRUMENT,
        start_cash=1e6,
        timer_ms=0.0,
        market_id=SYMBOL,
    )


def _compiled(scale: Scale) -> Prepared:
    table = _table(scale.rows)

    def run() -> None:
        _decide(table)

    def check() -> None:
        rows = min(scale.rows, _CHECKED_ROWS)
        ours = _decide(_table(rows)).summary
        theirs = replay(quote_events(market(rows, moving=MOVING), SYMBOL), trace=False)
        for key in ("steps", "action_counts", "orders_submitted", "fills_count", "final_equity"):
            require(ours[key] == theirs[key], f"`{key}` was {ours[key]!r} compiled, {theirs[key]!r} in the loop")
        require(ours["orders_submitted"] > 0, "nothing was ordered")

    return Prepared(run, check, scale.rows)


def _features(scale: Scale) -> Prepared:
    table = _table(scale.rows)
    builder = FeatureBuilder(CONFIG)
    fresh = builder.snapshot()
    out = np.empty((scale.rows, len(builder.names)))

    def run() -> None:
        builder.run(table, out)

    def check() -> None:
        run()
        require(bool(np.isfinite(out).all()), "a row was refused")

    return Prepared(run, check, scale.rows, reset=lambda: builder.restore(fresh))


GROUP = Group(
    "compiled",
    (
        Case("compiled.run", "`run_compiled`: features, reference model, guards, paper fills; orders in a tenth of the "
             "steps", _compiled, "ns/row"),
        Case("compiled.features", "features of the same table alone", _features, "ns/row"),
    ),
    (
        Ratio("compiled / batch row", "features, model, guards and fills in one call, against the features alone",
              "compiled.run", "compiled.features", reach=1.6, aim=1.3),
    ),
)  # fmt: skip
