"""Cases: what a journal adds to a step that sends nothing."""

from __future__ import annotations

import gc
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import fmean, median
from typing import Any

from ami_engine.adapters.base import MarketDataSource
from ami_engine.bench.case import Case, Group, Prepared, Ratio, Scale, require
from ami_engine.bench.deciding import INSTRUMENT, SYMBOL, WIDE_POLICY, ReplaySource
from ami_engine.bench.inputs import CONFIG
from ami_engine.clock import cpu_ns
from ami_engine.events import BookSnapshot
from ami_engine.loop.assemble import assemble
from ami_engine.loop.run import Run
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.state_store import Durability
from ami_engine.units import NS_PER_MS
from decision_schema.types import Action, Proposal

__all__ = ["SAFETY_GROUP"]

_BID, _ASK = 60_000.0, 60_000.1
_QUOTES = {"bid_quote": _BID - 1.0, "ask_quote": _ASK + 1.0, "size_usd": 1_000.0}
_STEP_MS = 10
_START_NS = 1_700_000_000_000_000_000
_TURN = 20
_WARM_UP = 500


class _Resting:
    """Wants the same quotes at every step."""

    def propose(self, features: Any) -> Proposal:
        """Return them."""
        return Proposal(Action.ACT, 1.0, ["rest"], _QUOTES)


class _Quiet:
    """A run whose quotes rest while the sizes beside them change; `decisions` says what it decided."""

    def __init__(self, journal: Path | None = None, durability: Durability | None = None) -> None:
        source: MarketDataSource = ReplaySource([])
        self.run: Run = assemble(
            source,
            PaperBroker(instruments={SYMBOL: INSTRUMENT}, cash=1e6),
            should_stop=lambda: False,
            trace=False,
            run_id="quiet",
            feature_config=CONFIG,
            risk_policy=WIDE_POLICY,
            decision_engine=_Resting(),
            start_cash=1e6,
            timer_ms=0.0,
            journal=journal,
            durability=durability,
        )
        self.steps = 0

    def go(self, steps: int) -> int:
        """Make so many steps; return the processor's time that they took, ns: a quiet step waits for nothing."""
        run, state = self.run, self.run.market.state(SYMBOL)
        events = [_event(number) for number in range(self.steps, self.steps + steps)]
        self.steps += steps
        start = cpu_ns()
        for event in events:
            run.step(event, state)
        return cpu_ns() - start

    def told(self) -> dict[str, Any]:
        """Return what the run has counted, times apart."""
        counts = self.run.counters.to_dict()
        return {name: value for name, value in counts.items() if name not in ("latency_us", "events_per_s")}

    @property
    def transactions(self) -> int:
        """How many transactions its journal has committed."""
        durable = self.run._durable
        return 0 if durable is None else durable.journal.store.transactions

    def close(self) -> None:
        """End it."""
        self.run.finish("measured")


def _event(number: int) -> BookSnapshot:
    ts_ns = _START_NS + number * _STEP_MS * NS_PER_MS
    return BookSnapshot(ts_ns, ts_ns, SYMBOL, number, _BID, _ASK, 50.0 + number % 7, 50.0 + number % 5)


class _Pair:
    """Two quiet runs, with and without a journal, that make their steps in turns; opening and closing are not timed."""

    def __init__(self, durability: Durability, steps: int, *, is_kept_first: bool = False) -> None:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ami-bench-")))
            made = {}
            for is_kept in (is_kept_first, not is_kept_first):
                quiet = _Quiet(folder / "journal.sqlite", durability) if is_kept else _Quiet()
                made[is_kept] = stack.enter_context(closing(quiet))
            self._open = stack.pop_all()
        self.kept, self.plain = made[True], made[False]
        self._turns = steps // (2 * _TURN)
        for _ in range(_WARM_UP // _TURN):  # in turns too: the interpreter fits shared code to whom it serves
            for each in (self.plain, self.kept):
                each.go(_TURN)

    def extras_us(self) -> list[float]:
        """Return what the journal adds to a step, µs, of each two turns: in one the first, in the other the second."""
        gc.collect()
        return [(self._turn(is_first=True) + self._turn(is_first=False)) / 2.0 for _ in range(self._turns)]

    def _turn(self, *, is_first: bool) -> float:
        if is_first:
            kept_ns = self.kept.go(_TURN)
            return (kept_ns - self.plain.go(_TURN)) / _TURN / 1e3
        plain_ns = self.plain.go(_TURN)
        return (self.kept.go(_TURN) - plain_ns) / _TURN / 1e3

    def check(self) -> None:
        """Equal decisions, two orders that rest, and next to nothing written."""
        before = self.kept.transactions
        self.extras_us()
        plain, kept = self.plain.told(), self.kept.told()
        require(plain == kept, f"a journal changed the run: {plain} became {kept}")
        require(kept["orders_submitted"] == 2 and not kept["fills_count"], f"the steps were not quiet: {kept}")
        require(kept["action_counts"] == {"ACT": kept["steps"]}, f"it did not quote: {kept['action_counts']}")
        seconds = self._turns * 2 * _TURN * _STEP_MS / 1e3
        written = self.kept.transactions - before
        require(written <= seconds / 5.0 + 1.0, f"{written} transactions in {seconds:g} quiet seconds")

    def close(self) -> None:
        """End both, and leave nothing behind."""
        self._open.close()


def _check_pair(durability: Durability, steps: int) -> None:
    with closing(_Pair(durability, steps)) as pair:
        pair.check()


def _extra(scale: Scale, durability: Durability) -> Prepared:
    """Measure new pairs in every round, made in both orders: how two runs lie in memory makes more than the journal."""

    def measure() -> float:
        extras = []
        for is_kept_first in (False, True):
            with closing(_Pair(durability, scale.steps // 2, is_kept_first=is_kept_first)) as pair:
                extras.append(median(pair.extras_us()))
        return fmean(extras)

    return Prepared(measure, lambda: _check_pair(durability, scale.steps), 0)


def _spread(scale: Scale) -> Prepared:
    """Measure one pair that goes on from round to round, so that what comes seldom comes."""
    pair = _Pair("full", scale.steps)
    return Prepared(lambda: fmean(pair.extras_us()), pair.check, 0, close=pair.close)


def _plain(scale: Scale) -> Prepared:
    quiet = _Quiet()
    quiet.go(_WARM_UP)

    def run() -> float:
        return quiet.go(scale.steps) / scale.steps / 1e3

    def check() -> None:
        run()
        told = quiet.told()
        require(told["orders_submitted"] == 2 and told["action_counts"] == {"ACT": told["steps"]}, "not quiet")

    return Prepared(run, check, 0, close=quiet.close)


def _case(durability: Durability) -> Case:
    return Case(
        f"safety.{durability}",
        f"what a journal adds to a step that changes nothing durable, in Python, durability `{durability}`",
        lambda scale: _extra(scale, durability),
        "µs/step",
        rounds=11,
    )


def _claim(durability: Durability) -> Ratio:
    return Ratio(
        f"journal {durability}, quiet step, µs",
        f"µs that a journal adds to a step that changes nothing durable, durability `{durability}`",
        f"safety.{durability}",
        reach=0.3,
    )


SAFETY_GROUP = Group(
    "safety",
    (
        Case("safety.plain", "a quiet step without a journal: both quotes rest, a book in 10 ms", _plain, "µs/step",
             rounds=5),
        _case("full"),
        _case("normal"),
        _case("off"),
        Case("safety.spread",
             "`safety.full`, and its share of what comes every 5 s (the guards' counts) and 30 s (a look at the venue)",
             _spread, "µs/step", rounds=5),
    ),
    (_claim("full"), _claim("normal"), _claim("off")),
)  # fmt: skip
