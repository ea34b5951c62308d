"""Models in Python for the compiled step to ask: well behaved ones, and others."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any

from ami_engine.events import Side, SubmitOrder
from ami_engine.sim.paper_broker import PaperBroker
from decision_schema.types import Action, Proposal

__all__ = ["ODD", "PLAIN", "Moody"]


class Moody:
    """Proposes something else at each call, drawn from `kinds`; what it draws depends on the seed alone.

    It keeps every row that it was given, with what was in it: see `check_rows`.
    """

    def __init__(
        self, seed: int, tick: float, kinds: list[str], *, broker: PaperBroker | None = None, at: int | None = None
    ) -> None:
        self._draw = random.Random(seed)
        self._tick = tick
        self._kinds = kinds
        self._broker = broker
        self._at = at
        self.calls = 0
        self._rows: list[tuple[Any, list[float]]] = []

    def __call__(self, features: Any) -> Any:
        self.calls += 1
        self._rows.append((features, list(features.values())))
        if self._broker is not None and self.calls == self._at:
            self._broker.get_state()
        return getattr(self, f"_{self._draw.choice(self._kinds)}")(features, self._draw)

    def check_rows(self) -> None:
        """A row that was kept says what it said."""
        assert self._rows
        for row, values in self._rows:
            assert repr(row.values()) == repr(values)

    # Plain: the core decides on it.

    def _quotes(self, features: Any, draw: random.Random) -> Proposal:
        half = draw.choice([-1.0, 0.5, 1.0, 1.0, 3.0]) * self._tick
        params: dict[str, Any] = {"size_usd": draw.choice([0.5, 3.0, 30.0, 5_000.0, 7, 0])}
        if draw.random() < 0.9:
            params["bid_quote"] = features.mid - half if features.mid > 2.0 * abs(half) else self._tick
        if draw.random() < 0.9:
            params["ask_quote"] = features["mid"] + half
        if draw.random() < 0.5:
            params["post_only"] = draw.choice([True, True, False, None])
        return Proposal(Action.ACT, draw.choice([0.0, 0.7, 1.0, 1]), ["fair", f"rung_{draw.randrange(3)}"], params)

    def _more_params(self, features: Any, draw: random.Random) -> Proposal:
        proposal = self._quotes(features, draw)
        assert proposal.params is not None
        more: dict[str, Any] = {"edge": math.nan, "note": 'naïve \u2028 "quoted"', "deep": {"a": [1, (2.5, None)]}}
        reasons = ["a reason, with blanks", "password=hunter2", "\ud800"[:0], "token: sk-canary-3b90aa"]
        summary = {"mid": features.mid, "depth": 10**12}
        return Proposal(Action.ACT, 0.5, reasons, proposal.params | more, "mine", summary)

    def _holds(self, features: Any, draw: random.Random) -> Proposal:
        reasons = draw.choice([[], ["waiting"], ["waiting", "thin", "thin"], ["spread_too_wide"], ["low_confidence"]])
        return Proposal(Action.HOLD, 0.25, reasons, draw.choice([None, {}, {"bid_quote": "none", "size_usd": 3.0}]))

    def _nothing_to_quote(self, features: Any, draw: random.Random) -> Proposal:
        return Proposal(Action.ACT, 0.5, ["empty"], draw.choice([None, {}, {"size_usd": 4.0}, {"bid_quote": None}]))

    def _exits(self, features: Any, draw: random.Random) -> Proposal:
        return Proposal(Action.EXIT, 0.9, ["enough"])

    def _cancels(self, features: Any, draw: random.Random) -> Proposal:
        return Proposal(Action.CANCEL, 0.9, ("away", "for now"))  # type: ignore[arg-type]

    def _raises(self, features: Any, draw: random.Random) -> Proposal:
        raise ValueError("canary-3b90aa")

    def _is_unsure(self, features: Any, draw: random.Random) -> Any:
        return SimpleNamespace(action="ACT", confidence=math.nan, reasons=["nan"], params={"size_usd": 1.0})

    def _is_too_sure(self, features: Any, draw: random.Random) -> Any:
        return Proposal(Action.ACT, 1.5)

    def _speaks_the_old_contract(self, features: Any, draw: random.Random) -> Any:
        mid = features.mid
        return SimpleNamespace(
            action="QUOTE",
            confidence=1,
            reasons=(1, "two"),
            bid_quote=mid - 2 * self._tick,
            ask_quote=None,
            size_usd=2.0,
        )

    def _says_nothing(self, features: Any, draw: random.Random) -> None:
        return None

    # Odd: only Python can decide on it.

    def _stops(self, features: Any, draw: random.Random) -> Proposal:
        return Proposal(Action.STOP, 0.9, ["enough", "of this"])

    def _quotes_text(self, features: Any, draw: random.Random) -> Proposal:
        return Proposal(Action.ACT, 0.5, ["odd"], {"bid_quote": draw.choice(["0.5", True]), "size_usd": 3.0})

    def _quotes_nan(self, features: Any, draw: random.Random) -> Proposal:
        what = draw.choice([math.nan, math.inf, -1.0, 0.0, 10**18])
        return Proposal(Action.ACT, 0.5, ["odd"], {draw.choice(["bid_quote", "size_usd"]): what, "ask_quote": 0.5})

    def _quotes_without_a_size(self, features: Any, draw: random.Random) -> Proposal:
        return Proposal(Action.ACT, 0.5, ["odd"], {"bid_quote": features.mid - self._tick})

    def _is_odd_about_posting(self, features: Any, draw: random.Random) -> Proposal:
        return Proposal(
            Action.ACT, 0.5, ["odd"], {"bid_quote": features.mid - self._tick, "size_usd": 1.0, "post_only": "yes"}
        )

    def _blames_the_hook(self, features: Any, draw: random.Random) -> Proposal:
        params = {"bid_quote": 2.0, "ask_quote": 1.0, "size_usd": 1.0}
        return Proposal(Action.ACT, 0.5, ["private_hook_error"], params)

    def _is_of_a_kind_of_its_own(self, features: Any, draw: random.Random) -> Any:
        class Mine(Proposal, frozen=True):
            pass

        return Mine(Action.HOLD, 0.5, ["mine"])

    def _trades_by_itself(self, features: Any, draw: random.Random) -> Proposal:
        """Take what is there, and look at what became of it."""
        assert self._broker is not None
        price = round(features.mid * 2.0 / self._tick) * self._tick
        order = SubmitOrder(client_order_id=f"own-{self.calls}", market_id="X", side=Side.BUY, price=price, qty=1.0)
        try:
            self._broker.submit_order(order)
        except Exception as refused:
            return Proposal(Action.HOLD, 0.5, [type(refused).__name__])
        state = self._broker.get_state()
        return Proposal(Action.HOLD, 0.5, ["traded", str(state["positions"])])


_FAILS = ["raises", "is_unsure", "is_too_sure", "says_nothing"]
PLAIN = [*["quotes"] * 12, "more_params", "more_params", "holds", "nothing_to_quote", "exits", "cancels", *_FAILS,
         "speaks_the_old_contract"]  # fmt: skip
ODD = [
    "stops", "quotes_text", "quotes_nan", "quotes_without_a_size", "is_odd_about_posting", "blames_the_hook",
    "is_of_a_kind_of_its_own", "trades_by_itself",
]  # fmt: skip
