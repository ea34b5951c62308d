"""Write the C++ header of what decisions are made of: `decision_tables.py SOURCE_DIR OUT.hpp`.

The tables are read out of the Python sources' syntax trees: nothing of the package is imported, so that a build needs
no more than Python itself.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

_HEADER = """// Policy keys, guards, codes, actions and constants. Generated from the Python sources: do not edit.
#pragma once

#include <cstdint>

namespace ami {{

enum class Action : int {{
{actions}
}};
inline constexpr int kActionCount = {action_count};
inline constexpr const char* kActionNames[kActionCount] = {{
{action_names}
}};
// How severe each action is, by action, and a smaller size.
inline constexpr int kSeverity[kActionCount] = {{{severities}}};
inline constexpr int kClampSeverity = {clamp};

// The limits of the guards; `required_context` is checked in Python.
struct RiskPolicy {{
{policy_fields}
}};
inline constexpr int kPolicyCount = {policy_count};
inline constexpr const char* kPolicyNames[kPolicyCount] = {{
{policy_names}
}};
template <class Read>
RiskPolicy read_policy(Read&& read) {{
    RiskPolicy p{{}};
{policy_reads}
    return p;
}}

enum class Guard : int {{
{guards}
}};
inline constexpr int kGuardCount = {guard_count};
inline constexpr const char* kGuardFlags[kGuardCount] = {{
{guard_flags}
}};

enum class Code : int {{
{codes}
}};
inline constexpr int kCodeCount = {code_count};
inline constexpr const char* kCodeNames[kCodeCount] = {{
{code_names}
}};
inline constexpr Guard kCodeGuard[kCodeCount] = {{
{code_guards}
}};
// The codes whose guard takes resting quotes off when the result is HOLD.
inline constexpr std::uint64_t kPullCodes = {pull_codes:#x}u;

{constants}

}}  // namespace ami
"""

# Module → constants of it that the compiled loop needs.
_CONSTANTS = {
    "units": ("NS_PER_DAY", "NS_PER_MS", "_ON_GRID_TICKS"),
    "dmc/risk_policy": ("MIN_STEPS_FOR_ERROR_RATE",),
    "dmc/markouts": ("MARKOUT_HORIZONS_NS", "MAX_MARKOUT_FILLS"),
    "dmc/risk_state": ("MIN_WINDOW_EVENTS",),
    "mdm/position_manager": ("_TOLERANCE_TICKS", "_FLAT_FRACTION"),
    "execution/order_manager": ("_MINUTE_MS", "_EDGE_TICKS"),
    "execution/order_table": ("_MIN_LOOKUP_MS",),
    "execution/order_state": ("_QTY_REL_TOL",),
    "sim/paper_market": ("_SAME_TICKS", "_SAME_FRAC"),
}


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _assigned(tree: ast.Module) -> dict[str, ast.expr]:
    """Return the value of each name that the module assigns."""
    found: dict[str, ast.expr] = {}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            found[node.target.id] = node.value
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    found[target.id] = node.value
                elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    found.update((t.id, v) for t, v in zip(target.elts, node.value.elts, strict=True))  # type: ignore[attr-defined]
    return found


def _text(node: ast.expr, names: dict[str, ast.expr]) -> str:
    """Return a string constant, through the names that stand for it."""
    while isinstance(node, ast.Name):
        node = names[node.id]
    value = ast.literal_eval(node)
    assert isinstance(value, str), ast.dump(node)
    return value


def _actions(root: Path) -> list[str]:
    tree = _tree(root / "decision_schema" / "types.py")
    action = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Action")
    pairs = [
        (node.targets[0].id, ast.literal_eval(node.value))  # type: ignore[attr-defined]
        for node in action.body
        if isinstance(node, ast.Assign)
    ]
    return [name for name, value in pairs if name == value]  # the others are aliases


def _policy(root: Path) -> list[tuple[str, bool]]:
    """Return each numeric key of the policy, and whether it is whole."""
    tree = _tree(root / "ami_engine" / "dmc" / "risk_policy.py")
    whole = {
        name
        for name, value in _assigned(tree).items()
        if isinstance(value, ast.Subscript) and ast.unparse(value).startswith("Annotated[int,")
    }
    policy = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "RiskPolicy")
    return [
        (node.target.id, node.annotation.id in whole)  # type: ignore[union-attr]
        for node in policy.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.annotation, ast.Name)
    ]


def _guards(names: dict[str, ast.expr]) -> list[tuple[str, list[str], bool]]:
    """Return each guard's flag, its codes, and whether it takes quotes off."""
    found = []
    for node in ast.walk(names["GUARDS"]):
        if isinstance(node, ast.Tuple) and len(node.elts) == 6 and isinstance(node.elts[1], ast.Name):
            codes = [_text(code, names) for code in node.elts[2].elts]  # type: ignore[attr-defined]
            found.append((_text(node.elts[0], names), codes, _text(node.elts[4], names) == "pull"))
    return found


def _constant(name: str, value: Any) -> str:
    words = [word.capitalize() for word in name.strip("_").lower().split("_")]
    title = "k" + "".join(words)
    if isinstance(value, tuple):
        return f"inline constexpr std::int64_t {title}[] = {{{', '.join(map(str, value))}}};"
    if isinstance(value, int):
        return f"inline constexpr std::int64_t {title} = {value};"
    return f"inline constexpr double {title} = {float.hex(value)};"


def _c_type(is_whole: bool) -> str:
    return "std::int64_t" if is_whole else "double"


def _lines(items: list[str]) -> str:
    return "\n".join(f"    {item}" for item in items)


def render(root: Path) -> str:
    """Return the header's text for the sources under `root`."""
    actions, policy = _actions(root), _policy(root)
    names = _assigned(_tree(root / "ami_engine" / "dmc" / "guards.py"))
    guards = _guards(names)
    severity_of = names["SEVERITY"]
    assert isinstance(severity_of, ast.Dict)
    severity = {
        key.id: ast.literal_eval(value)  # type: ignore[union-attr]
        for key, value in zip(severity_of.keys, severity_of.values, strict=True)
    }
    codes = [(code, flag, pulls) for flag, known, pulls in guards for code in known]
    constants = []
    for module, wanted in _CONSTANTS.items():
        values = _assigned(_tree(root / "ami_engine" / f"{module}.py"))
        constants += [_constant(name, ast.literal_eval(values[name])) for name in wanted]
    policy_at = list(enumerate(policy))
    return _HEADER.format(
        actions=_lines([f"{name} = {place}," for place, name in enumerate(actions)]),
        action_count=len(actions),
        action_names=_lines([f'"{name}",' for name in actions]),
        severities=", ".join(str(severity[name]) for name in actions),
        clamp=severity["CLAMP"],
        policy_fields=_lines([f"{_c_type(whole)} {name};" for name, whole in policy]),
        policy_count=len(policy),
        policy_names=_lines([f'"{name}",' for name, _ in policy]),
        policy_reads=_lines(
            [f"p.{name} = static_cast<{_c_type(whole)}>(read({i}));" for i, (name, whole) in policy_at]
        ),
        guards=_lines([f"{flag} = {place}," for place, (flag, _, _) in enumerate(guards, start=1)]),
        guard_count=len(guards),
        guard_flags=_lines([f'"{flag}",' for flag, _, _ in guards]),
        codes=_lines([f"{code} = {place}," for place, (code, _, _) in enumerate(codes)]),
        code_count=len(codes),
        code_names=_lines([f'"{code}",' for code, _, _ in codes]),
        code_guards=_lines([f"Guard::{flag}," for _, flag, _ in codes]),
        pull_codes=sum(1 << place for place, (_, _, pulls) in enumerate(codes) if pulls),
        constants="\n".join(constants),
    )


def main() -> int:
    """Write the header; leave an unchanged file alone, so that nothing is rebuilt for it."""
    root, out = Path(sys.argv[1]), Path(sys.argv[2])
    text = render(root)
    if not out.is_file() or out.read_text(encoding="utf-8") != text:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
