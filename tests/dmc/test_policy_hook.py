"""The private policy hook, from real files put where the package looks for them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ami_engine.dmc._private
from ami_engine.dmc import RiskPolicy, modulate
from ami_engine.dmc.policy_hook import HOOK_MODULE, OverridingModulator, assemble_modulator
from decision_schema.types import Action, Proposal

ACT = Proposal(Action.ACT, 0.9, ["model"])
WriteHook = Callable[[str], None]


class Lines:
    """An audit that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def record(self, kind: str, **fields: Any) -> None:
        self.lines.append({"kind": kind, **fields})


@pytest.fixture
def write_hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WriteHook]:
    """Make the hook's package look into an empty folder, and return what writes policy.py there."""
    monkeypatch.setattr(ami_engine.dmc._private, "__path__", [str(tmp_path)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, HOOK_MODULE, raising=False)
    yield lambda text: (tmp_path / "policy.py").write_text(text, encoding="utf-8") and None
    sys.modules.pop(HOOK_MODULE, None)
    vars(ami_engine.dmc._private).pop("policy", None)


def test_without_a_hook_it_is_modulate_itself(write_hook: WriteHook) -> None:
    audit = Lines()
    assert assemble_modulator(audit) is modulate
    assert audit.lines == []


def test_the_hook_makes_the_policy_that_counts(write_hook: WriteHook, calm: Any) -> None:
    write_hook(
        "from msgspec.structs import replace\n"
        "def override_policy(policy, context):\n"
        "    return replace(policy, max_spread_bps=1.0) if context['depth'] < 60 else policy\n"
    )
    modulator = assemble_modulator()
    assert isinstance(modulator, OverridingModulator)
    base = RiskPolicy()
    final, mismatch = modulator(ACT, base, calm(depth=50.0))
    assert (final.action, mismatch.reason_codes) == (Action.HOLD, ["spread_too_wide"])
    assert modulator.effective.policy_hash == RiskPolicy(max_spread_bps=1).policy_hash
    assert modulator(ACT, base, calm(depth=70.0))[0].action is Action.ACT
    assert modulator.effective is base


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise ValueError('the secret')", "ValueError"),
        ("return None", "not a RiskPolicy"),
        ("return {'min_depth': 1}", "not a RiskPolicy"),
        ("from msgspec.structs import replace; return replace(policy, min_depth=-1.0)", "ConfigError"),
    ],
)
def test_a_hook_that_fails_holds_and_is_audited(body: str, told: str, write_hook: WriteHook, calm: Any) -> None:
    write_hook(f"def override_policy(policy, context):\n    {body}\n")
    audit = Lines()
    base = RiskPolicy()
    modulator = assemble_modulator(audit)
    final, mismatch = modulator(ACT, base, calm())
    assert (final.action, final.reasons) == (Action.HOLD, ["policy_override_error"])
    assert (mismatch.flags, mismatch.metadata["quotes"]) == (["policy_override"], "pull")
    assert modulator.effective is base
    assert audit.lines == [{"kind": "policy_override_error", "hook": HOOK_MODULE, "stage": "call", "error": told}]


def test_a_failing_hook_does_not_soften_what_the_guards_say(write_hook: WriteHook, calm: Any) -> None:
    write_hook("def override_policy(policy, context):\n    return 1 / 0\n")
    final, mismatch = assemble_modulator()(ACT, RiskPolicy(), calm(kill_switch=True))
    assert (final.action, mismatch.flags) == (Action.STOP, ["policy_override", "kill_switch"])
    assert assemble_modulator()(Proposal(Action.EXIT, 0.9), RiskPolicy(), calm())[0].action is Action.EXIT


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import a_module_that_nobody_has\n", "ModuleNotFoundError"),
        ("import ami_engine.dmc._private.other\n", "ModuleNotFoundError"),
        ("raise RuntimeError('the secret')\n", "RuntimeError"),
        ("def override_policy(:\n", "SyntaxError"),
        ("def something_else(policy, context): return policy\n", "AttributeError"),
    ],
)
def test_a_hook_file_that_cannot_be_imported_is_not_absence(
    text: str, told: str, write_hook: WriteHook, calm: Any
) -> None:
    write_hook(text)
    audit = Lines()
    modulator = assemble_modulator(audit)
    for _ in range(2):
        final, _ = modulator(ACT, RiskPolicy(), calm())
        assert (final.action, final.reasons) == (Action.HOLD, ["policy_override_error"])
    assert audit.lines == [{"kind": "policy_override_error", "hook": HOOK_MODULE, "stage": "import", "error": told}]
