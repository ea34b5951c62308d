"""API rate limiting on the engine: its own events, features, model, policy and executor, no price anywhere.

An event is a request at a gateway, with what the service behind it answered last. The model proposes to serve the
request (ACT), or to let a batch request wait while the service is slow (HOLD). The policy gives every client a bucket
of tokens, and opens a circuit breaker while most answers are errors: a service that is down is asked once in a while,
not by everybody. The executor passes requests on.

Run it: `python docs/examples/api_rate_limiting.py`
"""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from ami_engine.adapters import Broker, DataSource
from ami_engine.dmc import RiskPolicy, modulate
from ami_engine.events import SubmitOrder
from ami_engine.features import FeatureConfig
from ami_engine.loop.run_loop import run_loop
from ami_engine.mdm.decision_engine import DecisionEngine
from decision_schema.types import Action, FinalDecision, MismatchInfo, Proposal

CLIENTS = 5
GREEDY = 4
FLOOD_S = (15.0, 35.0)
OUTAGE_S = (45.0, 55.0)
SERVICE_PER_S = 60


class Traffic(DataSource):
    """Requests of five clients, and the service that answers what the gateway lets through.

    One client floods the gateway for a while. Later the service is down for a while: every answer is an error then.

    Parameters
    ----------
    seconds : float
        How long.
    seed : int
        Of everything drawn.
    """

    identity = "traffic"

    def __init__(self, seconds: float, seed: int) -> None:
        self.now_s = 0.0
        self.client = 0
        self.asked: Counter[int] = Counter()
        self.served: Counter[int] = Counter()
        self.greedy_in_flood = 0
        self.asked_in_outage = 0
        self.polite_latency_ms: list[float] = []
        self._seconds = seconds
        self._recent: deque[float] = deque()
        self._answer: dict[str, float] | None = {"latency_ms": 20.0, "failed": 0.0}
        self._random = np.random.Generator(np.random.PCG64(seed))

    def next_event(self) -> Mapping[str, Any] | None:
        draw = self._random
        is_flood = FLOOD_S[0] <= self.now_s < FLOOD_S[1]
        rates = np.array([6.0] * (CLIENTS - 1) + [120.0 if is_flood else 6.0])
        self.now_s += draw.exponential(1.0 / rates.sum())
        if self.now_s >= self._seconds:
            return None
        self.client = int(draw.choice(CLIENTS, p=rates / rates.sum()))
        self.asked[self.client] += not self._is_down
        answer, self._answer = self._answer, None
        event: dict[str, Any] = {
            "timestamp_ms": 1_000 + self.now_s * 1_000,
            "client": self.client,
            "is_batch": bool(draw.random() < 0.3),
        }
        # An answer is told once: a sample in the rolling statistics for each.
        return {**event, "service": answer} if answer is not None else event

    @property
    def _is_down(self) -> bool:
        return OUTAGE_S[0] <= self.now_s < OUTAGE_S[1]

    def ask_service(self) -> None:
        """Pass the request at hand on."""
        while self._recent and self._recent[0] <= self.now_s - 1.0:
            self._recent.popleft()
        self._recent.append(self.now_s)
        is_down = self._is_down
        load = len(self._recent) / SERVICE_PER_S
        latency_ms = 20.0 * (1.0 + 4.0 * max(0.0, load - 0.8) ** 2 * SERVICE_PER_S / 4) if not is_down else 1_000.0
        has_failed = is_down or (load > 1.0 and self._random.random() < 1.0 - 1.0 / load)
        self._answer = {"latency_ms": latency_ms, "failed": float(has_failed)}
        self.asked_in_outage += is_down
        self.served[self.client] += not has_failed
        self.greedy_in_flood += self.client == GREEDY and FLOOD_S[0] <= self.now_s < FLOOD_S[1]
        if self.client != GREEDY and not is_down:
            self.polite_latency_ms.append(latency_ms)


def admission_model(features: Mapping[str, float], **_: Any) -> Proposal:
    """Propose to serve, and to let what is not urgent wait while the service is slower than it should be."""
    if features["is_batch"] and features["service.latency_ms.mean"] > 60.0:
        return Proposal(Action.HOLD, 0.7, ["batch_waits"])
    return Proposal(Action.ACT, 0.9, ["serve"], {"client": int(features["client"])})


class AdmissionPolicy(msgspec.Struct, frozen=True):
    """Limits on what is passed on."""

    per_s: float = 10.0
    burst: float = 20.0
    max_failed_mean: float = 0.5
    breaker_open_ms: float = 2_000.0


class AdmissionGuards:
    """The engine's guards, and after them a bucket of tokens for each client and a circuit breaker for the service."""

    def __init__(self, policy: AdmissionPolicy) -> None:
        self._policy = policy
        self._buckets: dict[int, tuple[float, float]] = {}
        self._open_until_ms = 0.0
        self._is_probing = False
        self._failed_mean = 0.0
        self._last_failed: float | None = None

    def watch(self, features: Mapping[str, float]) -> None:
        """Remember how the service answers."""
        self._failed_mean = features["service.failed.mean"]
        self._last_failed = features.get("service.failed")

    def __call__(
        self, proposal: Proposal, engine_policy: RiskPolicy, context: Any
    ) -> tuple[FinalDecision, MismatchInfo]:
        final, mismatch = modulate(proposal, engine_policy, context)
        self._hear_answer(context.now_ms)
        if final.action is not Action.ACT:
            return final, mismatch
        if context.now_ms < self._open_until_ms or (self._is_probing and self._last_failed is None):
            return _refuse("breaker", "service_is_down")
        if not self._take_token(final.to_params()["client"], context.now_ms):
            return _refuse("client_rate", "client_over_rate")
        # The first request after the pause is the question whether the service is back.
        self._is_probing = self._open_until_ms > 0.0
        return final, mismatch

    def _hear_answer(self, now_ms: float) -> None:
        if self._last_failed is None:
            return
        if self._is_probing:
            self._is_probing = False
            self._open_until_ms = now_ms + self._policy.breaker_open_ms if self._last_failed else 0.0
        elif not self._open_until_ms and self._failed_mean > self._policy.max_failed_mean:
            self._open_until_ms = now_ms + self._policy.breaker_open_ms

    def _take_token(self, client: int, now_ms: float) -> bool:
        policy = self._policy
        tokens, filled_ms = self._buckets.get(client, (policy.burst, now_ms))
        tokens = min(policy.burst, tokens + (now_ms - filled_ms) / 1_000 * policy.per_s)
        is_enough = tokens >= 1.0
        self._buckets[client] = (tokens - is_enough, now_ms)
        return is_enough


def _refuse(flag: str, code: str) -> tuple[FinalDecision, MismatchInfo]:
    mismatch = MismatchInfo([flag], [code])
    return FinalDecision(Action.HOLD, False, [code], mismatch), mismatch


class Gateway:
    """Executor: passes the request on; whatever is no ACT is answered with "later"."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic

    def run(self, final_decision: FinalDecision, market_id: str, mid: float | None = None) -> dict[str, Any]:
        if final_decision.action is not Action.ACT:
            return {}
        self._traffic.ask_service()
        return {"submitted": 1}


class NoVenue(Broker):
    """Nothing is traded here."""

    def submit_order(self, order: SubmitOrder) -> None:
        raise NotImplementedError("requests are passed on by the executor, not through orders")


def main(run_dir: str | None = None, *, guarded: bool = True, seconds: float = 70.0) -> dict[str, Any]:
    """Stand at the gateway for a while and return the run's summary, with what became of the requests."""
    traffic = Traffic(seconds, seed=5)
    guards = AdmissionGuards(AdmissionPolicy())

    def model(features: Mapping[str, float], **extra: Any) -> Proposal:
        guards.watch(features)
        return admission_model(features, **extra)

    summary = run_loop(
        source=traffic,
        broker=NoVenue(),
        decision_engine=DecisionEngine(model=model),
        modulator=guards if guarded else None,
        executor=Gateway(traffic),
        feature_config=FeatureConfig(window_5m_steps=50, window_5m_ms=2_000.0),
        run_dir=run_dir,
        trace=run_dir is not None,
        timer_ms=0,
    )
    polite = range(CLIENTS - 1)
    summary["polite_served_fraction"] = sum(traffic.served[c] for c in polite) / sum(traffic.asked[c] for c in polite)
    summary["polite_worst_ms"] = max(traffic.polite_latency_ms)
    summary["greedy_per_s"] = traffic.greedy_in_flood / (FLOOD_S[1] - FLOOD_S[0])
    summary["asked_in_outage"] = traffic.asked_in_outage
    return summary


def report(title: str, summary: Mapping[str, Any]) -> None:
    """Say in plain words what became of the requests."""
    served = f"{summary['polite_served_fraction']:.0%} of the polite clients' requests served"
    print(f"{title}: {served} while the service was up,", end=" ")
    print(f"the slowest in {summary['polite_worst_ms']:.0f} ms;")
    print(f"  the client that floods got {summary['greedy_per_s']:.0f} requests a second through;", end=" ")
    print(f"the service was asked {summary['asked_in_outage']} times while it was down")
    for code, count in sorted(summary["mismatch_reason_counts"].items()):
        print(f"  {code}: {count} of {summary['steps']} decisions")


if __name__ == "__main__":
    report("with guards", main(sys.argv[1] if len(sys.argv) > 1 else None))
    report("the same model without guards", main(guarded=False))
