"""The engine: hook, passed model or reference, and what it answers when a model fails."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ami_engine
import ami_engine.mdm._private
from ami_engine.errors import ConfigError
from ami_engine.mdm import DecisionEngine, compute_proposal_reference
from ami_engine.mdm.decision_engine import HOOK_MODULE, guarded_engine
from decision_schema.types import Action, Proposal

BOOK = {"mid": 100.0, "spread": 0.04, "spread_bps": 4.0, "depth": 80.0, "imbalance": 0.5}
WriteHook = Callable[[str], None]


class Lines:
    """An audit that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def record(self, kind: str, **fields: Any) -> None:
        self.lines.append({"kind": kind, **fields})


@pytest.fixture
def write_hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WriteHook]:
    """Make the hook's package look into an empty folder, and return what writes model.py there."""
    monkeypatch.setattr(ami_engine.mdm._private, "__path__", [str(tmp_path)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, HOOK_MODULE, raising=False)
    yield lambda text: (tmp_path / "model.py").write_text(text, encoding="utf-8") and None
    sys.modules.pop(HOOK_MODULE, None)
    vars(ami_engine.mdm._private).pop("model", None)


def held(proposal: Proposal) -> bool:
    return (proposal.action, proposal.confidence, proposal.reasons, proposal.params) == (
        Action.HOLD,
        0.0,
        ["private_hook_error"],
        None,
    )


# -- the reference model ---------------------------------------------------------------------------------------------


def test_without_a_hook_the_reference_model_answers(write_hook: WriteHook) -> None:
    audit = Lines()
    engine = DecisionEngine(confidence_threshold=0.6, audit=audit)
    assert engine.propose(BOOK) == compute_proposal_reference(BOOK, 0.6)
    assert DecisionEngine(confidence_threshold=0.8).propose(BOOK).action is Action.HOLD
    assert audit.lines == []


def test_the_reference_model_takes_its_own_keywords_and_lets_others_be(write_hook: WriteHook) -> None:
    proposal = DecisionEngine().propose(BOOK, max_size_usd=3.0, imbalance_threshold=0.2, position=5, context=None)
    assert proposal == compute_proposal_reference(BOOK, imbalance_threshold=0.2, max_size_usd=3.0)
    assert proposal.size_usd == 3.0


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_the_threshold_is_a_confidence(threshold: float) -> None:
    with pytest.raises(ConfigError, match=r"`confidence_threshold` must be in \[0, 1\]"):
        DecisionEngine(confidence_threshold=threshold)


# -- the private hook, from real files -------------------------------------------------------------------------------

EXAMPLE = """
from decision_schema.types import Proposal, Action

def compute_proposal_private(features, **kwargs):
    params = {"value": features.get("mid"), **kwargs}
    return Proposal(action=Action.ACT, confidence=0.8, reasons=["custom_model"], params=params)
"""


def test_the_hook_is_asked_when_its_file_is_there(write_hook: WriteHook) -> None:
    write_hook(EXAMPLE)
    proposal = DecisionEngine().propose({"mid": 0.5}, position=2)
    assert proposal == Proposal(Action.ACT, 0.8, ["custom_model"], {"value": 0.5, "position": 2})


def test_the_hook_is_looked_up_once(write_hook: WriteHook) -> None:
    absent = DecisionEngine()
    write_hook(EXAMPLE)
    assert absent.propose(BOOK) == compute_proposal_reference(BOOK)


def test_a_passed_model_goes_before_the_hook(write_hook: WriteHook) -> None:
    write_hook("raise RuntimeError('never imported')\n")
    audit = Lines()
    engine = DecisionEngine(model=lambda features: Proposal(Action.CANCEL, 0.4), audit=audit)
    assert engine.propose(BOOK).action is Action.CANCEL
    assert audit.lines == []


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("import a_module_that_nobody_has\n", "ModuleNotFoundError"),
        ("import ami_engine.mdm._private.weights\n", "ModuleNotFoundError"),
        ("from decision_schema.types import Nonsense\n", "ImportError"),
        ("raise RuntimeError('the secret')\n", "RuntimeError"),
        ("def compute_proposal_private(:\n", "SyntaxError"),
        ("def another_name(features): ...\n", "AttributeError"),
    ],
)
def test_a_hook_file_that_cannot_be_imported_holds_every_proposal(text: str, error: str, write_hook: WriteHook) -> None:
    write_hook(text)
    audit = Lines()
    engine = DecisionEngine(audit=audit)
    assert held(engine.propose(BOOK))
    assert held(engine.propose(BOOK))
    assert audit.lines == [{"kind": "private_hook_error", "stage": "import", "error": error}]


def test_a_hook_that_raises_holds_and_the_audit_has_no_text_of_it(write_hook: WriteHook) -> None:
    write_hook("def compute_proposal_private(features, **kwargs):\n    raise ValueError('api_key=the secret')\n")
    audit = Lines()
    engine = DecisionEngine(audit=audit)
    assert held(engine.propose(BOOK))
    assert held(engine.propose(BOOK))
    assert audit.lines == [{"kind": "private_hook_error", "stage": "call", "error": "ValueError"}] * 2
    assert held(DecisionEngine().propose(BOOK))


def test_the_hook_works_where_users_put_it(tmp_path: Path) -> None:
    """A copy of the package, with model.py in it, in a process of its own."""
    root = Path(ami_engine.__file__).parents[1]
    ignored = shutil.ignore_patterns("*.so", "__pycache__", "model.py", "policy.py")
    for package in ("ami_engine", "decision_schema"):
        shutil.copytree(root / package, tmp_path / package, ignore=ignored)
    script = (
        "from ami_engine.mdm.decision_engine import DecisionEngine\n"
        "p = DecisionEngine().propose({'mid': 0.5})\n"
        "print(p.action.value, p.reasons)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def run() -> str:
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=120, check=True
        )
        return done.stdout.strip()

    assert run() == "HOLD ['tight_spread']"
    hook = tmp_path / "ami_engine" / "mdm" / "_private" / "model.py"
    hook.write_text(EXAMPLE, encoding="utf-8")
    assert run() == "ACT ['custom_model']"
    hook.write_text("import a_module_that_nobody_has\n", encoding="utf-8")
    assert run() == "HOLD ['private_hook_error']"
    shutil.rmtree(hook.parent)
    assert run() == "HOLD ['tight_spread']"


# -- what a model may return -----------------------------------------------------------------------------------------


@dataclasses.dataclass
class ForeignProposal:
    """A proposal of another decision_schema."""

    action: Any
    confidence: Any
    reasons: list[str] = dataclasses.field(default_factory=list)
    params: Any = None
    run_id: str | None = None
    features_summary: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class OldProposal:
    """A proposal of contract 0.1: quotes are fields."""

    action: str
    confidence: float
    reasons: list[str]
    bid_quote: float | None = None
    ask_quote: float | None = None
    size_usd: float | None = None
    post_only: bool = True


def proposed(result: Any) -> Proposal:
    return DecisionEngine(model=lambda features: result).propose(BOOK)


def test_our_own_proposal_is_handed_on_as_it_is() -> None:
    ours = Proposal(Action.ACT, 0.5)
    assert proposed(ours) is ours


def test_a_foreign_proposal_is_read_by_its_public_attributes() -> None:
    foreign = ForeignProposal(SimpleNamespace(value="ACT"), 1, ["why"], {"size_usd": 2.0}, "run", {"mid": 1.0})
    assert proposed(foreign) == Proposal(Action.ACT, 1.0, ["why"], {"size_usd": 2.0}, "run", {"mid": 1.0})
    assert proposed(ForeignProposal("FLATTEN", np.float64(0.5))) == Proposal(Action.EXIT, 0.5)
    old = OldProposal("QUOTE", 0.7, ["why"], 99.0, None, 2.0)
    assert proposed(old) == Proposal(Action.ACT, 0.7, ["why"], {"bid_quote": 99.0, "size_usd": 2.0, "post_only": True})
    assert proposed(OldProposal("HOLD", 0.7, [])).params is None


@pytest.mark.parametrize(
    "result",
    [
        None,
        "ACT",
        42,
        {"action": "ACT", "confidence": 0.5},
        ("ACT", 0.5),
        ForeignProposal("BUY", 0.5),
        ForeignProposal(None, 0.5),
        ForeignProposal("ACT", 1.01),
        ForeignProposal("ACT", -0.01),
        ForeignProposal("ACT", float("nan")),
        ForeignProposal("ACT", "0.5"),
        ForeignProposal("ACT", None),
        ForeignProposal("ACT", 0.5, params=[1]),
        ForeignProposal("ACT", 0.5, reasons=5),
    ],
)
def test_rubbish_holds(result: Any) -> None:
    audit = Lines()
    assert held(DecisionEngine(model=lambda features: result, audit=audit).propose(BOOK))
    assert [line["stage"] for line in audit.lines] == ["call"]


def test_a_model_that_does_not_take_what_it_is_given_holds() -> None:
    assert held(DecisionEngine(model=lambda: Proposal(Action.ACT, 0.5)).propose(BOOK))
    assert held(DecisionEngine(model=5).propose(BOOK))
    assert held(DecisionEngine(model=lambda features: Proposal(Action.ACT, 1.5)).propose(BOOK))


def test_a_broken_hook_is_told_as_soon_as_there_is_a_log(write_hook: WriteHook) -> None:
    write_hook("import nonexistent_zz\n")
    engine, audit = DecisionEngine(), Lines()
    engine.audit = audit
    assert audit.lines == [{"kind": "private_hook_error", "stage": "import", "error": "ModuleNotFoundError"}]


class Foreign:
    """An engine of a user's own."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def propose(self, features: object) -> object:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {"action": "ACT"},
        KeyError("api_key=the secret"),
        SimpleNamespace(action="ACT", confidence=float("nan"), params={"bid_quote": 1.0}),
        SimpleNamespace(action="NO_ACTION", confidence=0.5),
    ],
)
def test_a_foreign_engine_is_read_as_a_model_is(answer: object) -> None:
    audit = Lines()
    assert held(guarded_engine(Foreign(answer), audit).propose(BOOK))
    assert [line["stage"] for line in audit.lines] == ["call"]
    assert "secret" not in str(audit.lines)


def test_an_engine_that_answers_for_its_model_is_asked_itself() -> None:
    engine = DecisionEngine()
    assert guarded_engine(engine, None) is engine
    good = SimpleNamespace(action="ACT", confidence=0.7, reasons=("x",), params={"bid_quote": 1.0})
    assert guarded_engine(Foreign(good), None).propose(BOOK) == Proposal(Action.ACT, 0.7, ["x"], {"bid_quote": 1.0})
