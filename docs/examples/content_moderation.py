"""Content moderation on the engine: its own events, features, model, policy and executor, no price anywhere.

An event is a post with a classifier's scores and the reports of readers. The model proposes to remove a post (ACT) or
to leave it (HOLD). The policy lets a removal through only when there is more than the classifier's word for it and
when removals do not come too fast; a classifier that no longer looks like itself stops the automation (STOP). The
executor removes posts. Every decision, with its reasons, is in the trace.

Run it: `python docs/examples/content_moderation.py`
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from ami_engine.adapters import Broker, DataSource
from ami_engine.events import SubmitOrder
from ami_engine.loop.run_loop import run_loop
from ami_engine.mdm.decision_engine import DecisionEngine
from decision_schema.types import Action, FinalDecision, MismatchInfo, Proposal

POST_EVERY_MS = 250


class PostSource(DataSource):
    """Posts with scores: mostly harmless, some toxic, and late in the day a classifier that goes wrong.

    Parameters
    ----------
    posts : int
        How many.
    seed : int
        Of everything drawn.
    drift_from : int
        Post number from which on the classifier scores everything high.
    """

    def __init__(self, posts: int, seed: int, drift_from: int) -> None:
        self.identity = f"posts:{posts}:{seed}:{drift_from}"
        self.is_toxic = False  # the truth about the newest post, which no decision sees
        self._left = posts
        self._number = 0
        self._drift_from = drift_from
        self._random = np.random.Generator(np.random.PCG64(seed))

    def next_event(self) -> Mapping[str, Any] | None:
        if self._number == self._left:
            return None
        self._number += 1
        draw = self._random
        is_toxic = self.is_toxic = draw.random() < 0.08
        toxicity = 0.75 + 0.25 * draw.random() if is_toxic else 0.35 * draw.random()
        if self._number >= self._drift_from:
            toxicity = 0.9 + 0.1 * draw.random()
        return {
            "timestamp_ms": self._number * POST_EVERY_MS,
            "post_id": f"post-{self._number}",
            "ml_scores": {"toxicity": toxicity, "spam": draw.random() * 0.5},
            "reports": int(draw.integers(0, 9)) if is_toxic else int(draw.integers(0, 2)),
            "author": {"age_days": int(draw.integers(1, 2_000)), "name": "not a feature"},
        }


def moderation_model(features: Mapping[str, float], **_: Any) -> Proposal:
    """Propose to remove what scores high; the more so, the more readers reported it."""
    toxicity = features["ml_scores.toxicity"]
    confidence = min(1.0, 0.8 * toxicity + 0.02 * features["reports"])
    if confidence < 0.6:
        return Proposal(Action.HOLD, 1.0 - confidence, ["looks_harmless"])
    return Proposal(Action.ACT, confidence, ["toxic"], {"toxicity": toxicity, "reports": features["reports"]})


class ModerationPolicy(msgspec.Struct, frozen=True):
    """Limits on what may be removed without a person."""

    min_reports: int = 2
    max_removals_per_min: int = 30
    max_mean_toxicity: float = 0.5


class ModerationGuards:
    """`modulate` for posts: nothing makes a decision bolder, and a drift of the classifier stops the automation."""

    def __init__(self, policy: ModerationPolicy) -> None:
        self._policy = policy
        self._removed_ms: deque[float] = deque()
        self._mean_toxicity = 0.0

    def watch(self, features: Mapping[str, float]) -> None:
        """Remember the classifier's rolling mean, which the engine keeps for every numeric field."""
        self._mean_toxicity = features["ml_scores.toxicity.mean"]

    def __call__(self, proposal: Proposal, _: Any, context: Any) -> tuple[FinalDecision, MismatchInfo]:
        policy, now_ms = self._policy, context.now_ms
        while self._removed_ms and self._removed_ms[0] <= now_ms - 60_000:
            self._removed_ms.popleft()
        if self._mean_toxicity > policy.max_mean_toxicity:
            return _refuse(Action.STOP, "classifier_drift", "toxicity_mean_too_high")
        if proposal.action is Action.ACT:
            if proposal.params["reports"] < policy.min_reports:
                return _refuse(Action.HOLD, "evidence", "needs_a_person")
            if len(self._removed_ms) >= policy.max_removals_per_min:
                return _refuse(Action.HOLD, "removal_rate", "too_many_removals")
            self._removed_ms.append(now_ms)
        return FinalDecision(proposal.action, True, proposal.reasons, params=proposal.params), MismatchInfo()


def _refuse(action: Action, flag: str, code: str) -> tuple[FinalDecision, MismatchInfo]:
    mismatch = MismatchInfo([flag], [code])
    return FinalDecision(action, False, [code], mismatch), mismatch


class Moderator:
    """Executor: removes the post at hand, once, and stops for good when told to."""

    def __init__(self, source: PostSource) -> None:
        self._source = source
        self.removed = 0
        self.wrongly_removed = 0
        self.is_stopped = False

    def run(self, final_decision: FinalDecision, market_id: str, mid: float | None = None) -> dict[str, Any]:
        if final_decision.action is Action.STOP:
            self.is_stopped = True
        if final_decision.action is not Action.ACT or self.is_stopped:
            return {}
        self.removed += 1
        self.wrongly_removed += not self._source.is_toxic
        return {"submitted": 1}


class NoVenue(Broker):
    """Nothing is traded here."""

    def submit_order(self, order: SubmitOrder) -> None:
        raise NotImplementedError("posts are removed by the executor, not through orders")


def main(run_dir: str | None = None, *, guarded: bool = True, posts: int = 2_000) -> dict[str, Any]:
    """Moderate a day of posts and return the run's summary, with what became of them."""
    source = PostSource(posts, seed=7, drift_from=posts * 9 // 10)
    guards = ModerationGuards(ModerationPolicy())
    moderator = Moderator(source)

    def model(features: Mapping[str, float], **extra: Any) -> Proposal:
        guards.watch(features)
        return moderation_model(features, **extra)

    summary = run_loop(
        source=source,
        broker=NoVenue(),
        decision_engine=DecisionEngine(model=model),
        modulator=guards if guarded else None,
        executor=moderator,
        run_dir=run_dir,
        trace=run_dir is not None,
        timer_ms=0,
    )
    summary["removed"] = moderator.removed
    summary["wrongly_removed"] = moderator.wrongly_removed
    summary["is_stopped"] = moderator.is_stopped
    return summary


def report(title: str, summary: Mapping[str, Any]) -> None:
    """Say in plain words what became of the posts."""
    print(f"{title}: {summary['removed']} of {summary['steps']} posts removed,", end=" ")
    print(f"{summary['wrongly_removed']} of them harmless;", end=" ")
    print("the automation stopped itself" if summary["is_stopped"] else "the automation ran to the end")
    for code, count in sorted(summary["mismatch_reason_counts"].items()):
        print(f"  {code}: {count} of {summary['steps']} decisions")


if __name__ == "__main__":
    report("with guards", main(sys.argv[1] if len(sys.argv) > 1 else None))
    report("the same model without guards", main(guarded=False))
