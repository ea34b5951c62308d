"""Resource allocation on the engine: its own events, features, model, policy and executor, no price anywhere.

An event is the job at the head of a cluster's queue, with what the cluster's monitoring said a minute ago. The model
proposes how many cores the job gets (ACT), more of them when the cluster looks quiet. The policy knows what was really
granted: it cuts a grant down to what is free, holds a tenant to its quota (HOLD), and takes the spot jobs back (CANCEL)
when machines fail. The executor starts jobs and takes them back.

Run it: `python docs/examples/resource_allocation.py`
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
from ami_engine.loop.run_loop import run_loop
from ami_engine.mdm.decision_engine import DecisionEngine
from decision_schema.types import Action, FinalDecision, MismatchInfo, Proposal

CORES = 256
CORES_AFTER_FAILURE = 96
TENANTS = 4
MONITORING_LAG_S = 60


class Job(msgspec.Struct):
    """Work that wants cores for a while; a spot job may be taken back at any time."""

    tenant: int
    cores: int
    core_s: float
    is_spot: bool
    granted: int = 0


class Cluster(DataSource):
    """A queue of jobs and the machines they run on. Each second the job at the head of the queue asks for cores.

    Parameters
    ----------
    seconds : int
        How long; after a third of it most of the machines fail.
    seed : int
        Of everything drawn.
    """

    identity = "cluster"

    def __init__(self, seconds: int, seed: int) -> None:
        self.capacity = CORES
        self.running: list[Job] = []
        self.queue: deque[Job] = deque()
        self.head: Job | None = None
        self.finished = 0
        self.taken_back = 0
        self.peak_over = 0
        self.seconds_over = 0
        self.seconds_used = 0.0
        self.most_of_tenant = 0
        self._second = 0
        self._seconds = seconds
        self._reported: deque[int] = deque([0] * MONITORING_LAG_S, maxlen=MONITORING_LAG_S)
        self._random = np.random.Generator(np.random.PCG64(seed))

    @property
    def used(self) -> int:
        """Cores that are granted now."""
        return sum(job.granted for job in self.running)

    def used_by(self, tenant: int) -> int:
        """Cores that one tenant has now."""
        return sum(job.granted for job in self.running if job.tenant == tenant)

    def next_event(self) -> Mapping[str, Any] | None:
        if self._second == self._seconds:
            return None
        self._second += 1
        self._account()
        if self._second == self._seconds // 3:
            self.capacity = CORES_AFTER_FAILURE
        self._work()
        self._arrive()
        head = self.head = self.queue.popleft()
        reported = self._reported[0]
        self._reported.append(self.used)
        return {
            "timestamp_ms": 1_000 + self._second * 1_000,
            "job": {"tenant": head.tenant, "cores": head.cores, "is_spot": head.is_spot},
            "monitoring": {"used": reported, "queued": len(self.queue)},
        }

    def start(self, cores: int) -> None:
        """Start the job at the head of the queue."""
        assert self.head is not None
        self.head.granted = cores
        self.running.append(self.head)
        self.head = None

    def wait(self) -> None:
        """Put the job at the head back to the end of the queue."""
        if self.head is not None:
            self.queue.append(self.head)
            self.head = None

    def take_back_spot(self) -> int:
        """Take the cores of every spot job back; the jobs queue again with what is left of their work."""
        spot = [job for job in self.running if job.is_spot]
        self.running = [job for job in self.running if not job.is_spot]
        for job in spot:
            job.granted = 0
        self.queue.extend(spot)
        self.taken_back += len(spot)
        return len(spot)

    def _account(self) -> None:
        """Note what the last second's decision came to."""
        over = self.used - self.capacity
        self.peak_over = max(self.peak_over, over)
        self.seconds_over += over > 0
        self.seconds_used += min(self.used, self.capacity) / self.capacity
        self.most_of_tenant = max(self.most_of_tenant, *(self.used_by(tenant) for tenant in range(TENANTS)))

    def _work(self) -> None:
        # Cores that were promised twice do half the work each.
        speed = min(1.0, self.capacity / max(1, self.used))
        for job in self.running:
            job.core_s -= job.granted * speed
        still = [job for job in self.running if job.core_s > 0.0]
        self.finished += len(self.running) - len(still)
        self.running = still

    def _arrive(self) -> None:
        draw = self._random
        tenant = 0 if draw.random() < 0.55 else int(draw.integers(1, TENANTS))  # one of them asks for more than all
        cores = int(draw.choice([4, 8, 16]))
        if self._second % 3 != 2 or not self.queue:
            self.queue.append(Job(tenant, cores, cores * float(draw.uniform(8, 26)), bool(draw.random() < 0.4)))


def allocation_model(features: Mapping[str, float], **_: Any) -> Proposal:
    """Propose what the job asks for, and twice that when the cluster has looked quiet for a while."""
    cores = int(features["job.cores"])
    is_quiet = features["monitoring.used.mean"] < 0.8 * CORES and features["monitoring.used"] < 0.7 * CORES
    reason = "cluster_looks_quiet" if is_quiet else "as_asked"
    params = {"cores": 2 * cores if is_quiet else cores, "least": cores // 2}
    return Proposal(Action.ACT, 0.8, [reason], params)


class AllocationPolicy(msgspec.Struct, frozen=True):
    """Limits on what may be granted."""

    max_used_fraction: float = 0.95
    tenant_quota: int = 96


class AllocationGuards:
    """The engine's guards, and those of a cluster after them. They read the ledger of grants, not the monitoring."""

    def __init__(self, policy: AllocationPolicy, cluster: Cluster) -> None:
        self._policy = policy
        self._cluster = cluster

    def __call__(
        self, proposal: Proposal, engine_policy: RiskPolicy, context: Any
    ) -> tuple[FinalDecision, MismatchInfo]:
        final, mismatch = modulate(proposal, engine_policy, context)
        cluster, policy = self._cluster, self._policy
        if cluster.used > cluster.capacity:
            return _refuse(Action.CANCEL, "capacity", "machines_failed")
        if final.action is not Action.ACT or cluster.head is None:
            return final, mismatch
        params = final.to_params()
        limits = {
            "capacity": int(policy.max_used_fraction * cluster.capacity) - cluster.used,
            "quota": policy.tenant_quota - cluster.used_by(cluster.head.tenant),
        }
        tightest = min(limits, key=limits.__getitem__)
        if limits[tightest] >= params["cores"]:
            return final, mismatch
        if limits[tightest] < params["least"]:
            return _refuse(Action.HOLD, tightest, {"capacity": "nothing_free", "quota": "tenant_at_quota"}[tightest])
        mismatch = MismatchInfo([tightest], [f"cores_clamped:{tightest}"])
        fewer = {**params, "cores": limits[tightest]}
        return FinalDecision(Action.ACT, True, mismatch.reason_codes, mismatch, params=fewer), mismatch


def _refuse(action: Action, flag: str, code: str) -> tuple[FinalDecision, MismatchInfo]:
    mismatch = MismatchInfo([flag], [code])
    return FinalDecision(action, False, [code], mismatch), mismatch


class Allocator:
    """Executor: starts the job at the head, lets it wait, or takes the spot jobs back first."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.granted: Counter[int] = Counter()

    def run(self, final_decision: FinalDecision, market_id: str, mid: float | None = None) -> dict[str, Any]:
        cluster = self._cluster
        if final_decision.action is Action.ACT and cluster.head is not None:
            self.granted[cluster.head.tenant] += 1
            cluster.start(final_decision.to_params()["cores"])
            return {"submitted": 1}
        cluster.wait()
        # The loop sends a CANCEL at the end of a run too: jobs go on then.
        is_taking_back = "machines_failed" in final_decision.reasons
        return {"canceled": cluster.take_back_spot()} if is_taking_back else {}


class NoVenue(Broker):
    """Nothing is traded here."""

    def submit_order(self, order: SubmitOrder) -> None:
        raise NotImplementedError("cores are granted by the executor, not through orders")


def main(run_dir: str | None = None, *, guarded: bool = True, seconds: int = 1_200) -> dict[str, Any]:
    """Share a cluster for a while and return the run's summary, with what became of the jobs."""
    cluster = Cluster(seconds, seed=11)
    allocator = Allocator(cluster)
    summary = run_loop(
        source=cluster,
        broker=NoVenue(),
        decision_engine=DecisionEngine(model=allocation_model),
        modulator=AllocationGuards(AllocationPolicy(), cluster) if guarded else None,
        executor=allocator,
        run_dir=run_dir,
        trace=run_dir is not None,
        timer_ms=0,
    )
    summary["finished"] = cluster.finished
    summary["taken_back"] = cluster.taken_back
    summary["peak_over"] = cluster.peak_over
    summary["seconds_over"] = cluster.seconds_over
    summary["used_fraction"] = cluster.seconds_used / seconds
    summary["most_of_tenant"] = cluster.most_of_tenant
    summary["tenants_served"] = dict(sorted(allocator.granted.items()))
    return summary


def report(title: str, summary: Mapping[str, Any]) -> None:
    """Say in plain words what became of the cluster."""
    print(f"{title}: {summary['finished']} jobs finished, {summary['used_fraction']:.0%} of the cores in use;", end=" ")
    print(f"more promised than there was in {summary['seconds_over']} seconds, {summary['peak_over']} cores at most;")
    print(f"  the largest tenant had {summary['most_of_tenant']} cores;", end=" ")
    print(f"{summary['taken_back']} spot jobs were taken back; jobs started by tenant:", end=" ")
    print(", ".join(f"{tenant}: {count}" for tenant, count in summary["tenants_served"].items()))
    for code, count in sorted(summary["mismatch_reason_counts"].items()):
        print(f"  {code}: {count} of {summary['steps']} decisions")


if __name__ == "__main__":
    report("with guards", main(sys.argv[1] if len(sys.argv) > 1 else None))
    report("the same model without guards", main(guarded=False))
