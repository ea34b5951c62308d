"""Writes the generated parts of FEATURES.md, FORMULAS.md and GUARDS.md; `--check` says which are stale.

Run `python docs/generate.py` after changing a feature, a guard or a limit.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from ami_engine.dmc import guards, risk_state
from ami_engine.dmc.guards import GUARDS
from ami_engine.dmc.risk_policy import RiskPolicy, policy_ranges
from ami_engine.features.feature_config import FeatureConfig
from ami_engine.features.schema import ALIASES, BASE_FEATURE_COUNT, BOOK_FEATURE_COUNT, FEATURES, FeatureDef

DOCS = Path(__file__).parent

# What each key of a policy means, and its unit. A key without a line here, or a line without a key, is an error.
POLICY_MEANINGS = {
    "ops_window_ms": "Length of the window in which 429 answers and reconnects are counted, ms",
    "max_429_per_window": "Rate-limit answers in the window that hold; 0 is off",
    "max_ws_reconnects_per_window": "Reconnects of the feed in the window that hold; 0 is off",
    "ops_cooldown_ms": "Pause after a rate-limit answer or a reconnect, ms; 0 is off",
    "staleness_ms": "Oldest book event on which anything may be done, ms",
    "min_depth": "Least size in the top levels of both sides",
    "min_depth_p10_market": "Least 10th percentile of depth in the regime window; 0 is off",
    "max_spread_bps": "Widest spread, basis points of mid",
    "sigma_5m_max": "Largest volatility per event over the regime window, log return; 0 is off",
    "spread_med_5m_max_bps": "Widest median spread over the regime window, basis points of mid; 0 is off",
    "depth_p10_5m_min": "Least 10th percentile of depth over the regime window; 0 is off",
    "max_total_exposure_usd": "Gross notional over all markets at which positions are left, USD",
    "exposure_headroom_frac": "Share of the limit above that new orders may use",
    "max_per_market_usd": "Largest size of one order, USD; larger ones are clamped to it",
    "max_abs_inventory": "Size of a market's position at which it is left, base units or contracts",
    "max_inventory_skew_ticks": "For models that shift their quotes with the position, ticks; no guard reads it",
    "cancel_rate_limit": "Cancels in the window that hold",
    "cancel_window_ms": "Length of the window in which cancels are counted, ms",
    "throttle_refresh_ms": "How long quotes are left alone after too many cancels, ms",
    "daily_loss_stop_usd": "Loss since the day began (midnight UTC, or `trading_day`) that stops, USD",
    "error_rate_max": "Largest share of steps with an error, of the last steps",
    "error_window_steps": "How many of the last steps count for the share of errors",
    "circuit_breaker_failures": "Failures of the broker in the window that stop",
    "circuit_breaker_window_ms": "Length of the window in which failures are counted, ms",
    "adv15_max_ticks": "Largest adverse selection 15 s after our fills, ticks",
    "adv60_max_ticks": "Largest adverse selection 60 s after our fills, ticks",
    "adverse_window_ms": "How long a fill counts for adverse selection, ms",
    "adverse_cooldown_ms": "Pause after adverse selection, which then begins with CANCEL, ms; 0 is HOLD while it lasts",
    "sigma_spike_z_max": "Largest jump of volatility, in standard deviations",
    "tp_ticks": "Profit aimed at when the context does not say, ticks",
    "cost_ticks": "Cost of a round trip when the context does not say, ticks",
    "min_profit_ticks": "What the profit aimed at must exceed the cost by, ticks",
    "max_consecutive_losses": "Losing positions in a row that cancel and pause; 0 is off",
    "streak_cooldown_ms": "Pause after a losing streak, ms",
    "max_drawdown_stop_usd": "Fall of equity from its peak that stops, USD; 0 is off",
    "equity_floor_usd": "Equity at or below which the run stops, USD; 0 is off",
    "quote_window_ms": "Length of the window in which ACT decisions are counted, ms",
    "quote_cap_per_window": "ACT decisions in the window that hold; 0 is off",
    "quote_budget_cooldown_ms": "Pause after too many ACT decisions, ms",
    "max_open_orders": "Open orders over all markets that hold; 0 is off",
    "max_active_markets": "Markets with a position or an order that hold; 0 is off",
    "min_order_usd": "Smallest order after clamping, USD; 0 is off",
    "required_context": "Context keys without which nothing may be done",
}


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    names = list(head)
    cells = [names, ["---"] * len(names), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return [f"| {' | '.join(row)} |" for row in cells]


def names_of(values: Iterable[object]) -> str:
    """Return values as a list of code words, a dash for none."""
    return ", ".join(f"`{value}`" for value in values) or "–"


# FEATURES.md ----------------------------------------------------------------------------------------------------------


def tolerance(feature: FeatureDef) -> str:
    """Return how far two backends may differ on a feature, beside the relative tolerance that all share."""
    parts = []
    if feature.abs_tol:
        parts.append(f"{feature.abs_tol:g}")
    if feature.abs_tol_price_per_tick:
        parts.append(f"{feature.abs_tol_price_per_tick:g} · mid / tick")
    return " + ".join(parts) or "–"


def features_part() -> list[str]:
    """Return the tables of the book features, the rolling features and the signals."""
    lines = []
    parts = (
        ("Book features", FEATURES[:BOOK_FEATURE_COUNT]),
        ("Rolling features", FEATURES[BOOK_FEATURE_COUNT:BASE_FEATURE_COUNT]),
        ("Signal features", FEATURES[BASE_FEATURE_COUNT:]),
    )
    number = 0
    for title, features in parts:
        rows = []
        for feature in features:
            source = f" ({feature.source})" if feature.source else ""
            cells = (f"`{feature.name}`", feature.unit, feature.formula, feature.meaning + source, tolerance(feature))
            rows.append((str(number), *cells))
            number += 1
        lines += [f"### {title}", "", *table(("#", "name", "unit", "formula", "meaning", "absolute tolerance"), rows)]
        lines.append("")
    native = {feature.rel_tol_native for feature in FEATURES}
    reference = {feature.rel_tol_reference for feature in FEATURES}
    assert len(native) == len(reference) == 1, "the sentence below says one tolerance for all"
    lines += [
        f"The compiled and the numba backend agree within {native.pop():g} relative, the reference within "
        f"{reference.pop():g}, or within the absolute",
        "tolerance where one is given. "
        + " ".join(f"`{alias}` is another name of `{name}`." for alias, name in ALIASES.items()),
    ]
    return lines


def config_part() -> list[str]:
    """Return the table of the parameters of `FeatureConfig`."""
    text = inspect.getdoc(FeatureConfig) or ""
    body = text.partition("Parameters\n----------\n")[2].partition("\nRaises\n")[0]
    described: dict[str, str] = {}
    for head, lines in re.findall(r"^(\w[^\n]*) : [^\n]*\n((?:    [^\n]*\n?)+)", body, re.MULTILINE):
        for name in head.split(", "):
            described[name] = " ".join(lines.split())
    rows = [(f"`{name}`", f"{default!r}", described[name]) for name, default in defaults(FeatureConfig).items()]
    return table(("parameter", "default", "meaning"), rows)


def defaults(struct: type) -> dict[str, object]:
    """Return the defaults of a struct's fields, in their order."""
    return {name: getattr(struct(), name) for name in struct.__struct_fields__}  # type: ignore[attr-defined]


# GUARDS.md ------------------------------------------------------------------------------------------------------------


def guards_part() -> list[str]:
    """Return two tables of the guards: when they fire, and what they read for it. One would be too wide to read."""
    policy = defaults(RiskPolicy)
    fires, reads = [], []
    for guard in GUARDS:
        name = str(guard.number), f"`{guard.flag}`"
        asked = ", ".join(guard.action)
        fires.append((*name, guard.doc.splitlines()[0], names_of(guard.codes), asked, guard.quotes or "–"))
        limits = ", ".join(f"`{key}` ({policy[key]})" for key in guard.limits) or "–"
        reads.append((*name, names_of(guard.reads), limits))
    return [
        *table(("#", "flag", "fires when", "reason codes", "asks for", "quotes"), fires),
        "",
        "What each reads:",
        "",
        *table(("#", "flag", "context", "limits (default)"), reads),
    ]


def policy_part() -> list[str]:
    """Return the table of the policy's keys."""
    policy, ranges = defaults(RiskPolicy), policy_ranges()
    assert policy.keys() == POLICY_MEANINGS.keys(), f"to describe: {policy.keys() ^ POLICY_MEANINGS.keys()}"
    rows = [
        (f"`{key}`", written(default), str(ranges.get(key, "a list of keys")), used_by(key), POLICY_MEANINGS[key])
        for key, default in policy.items()
    ]
    return table(("key", "default", "allowed", "used by", "meaning"), rows)


def written(value: object) -> str:
    """Return a default as a policy file has it."""
    return "[]" if value == () else f"{value:_}" if isinstance(value, int) else f"{value}"


def used_by(key: str) -> str:
    """Return who reads a key: the guards by number, or the state that counts for them."""
    pattern = re.compile(rf"\bp\.{key}\b")
    numbers = [str(g.number) for g in GUARDS if key in g.limits or pattern.search(inspect.getsource(g.function))]
    if numbers:
        return "guard " + ", ".join(numbers)
    if pattern.search(inspect.getsource(guards)):
        return "guards"
    if re.search(rf"\b(p|policy|_policy)\.{key}\b", inspect.getsource(risk_state)):
        return "risk state"
    return "context check" if key == "required_context" else "–"


# FORMULAS.md ----------------------------------------------------------------------------------------------------------


def formulas_part() -> list[str]:
    """Return every feature's formula, alone."""
    return table(("feature", "formula"), ((f"`{feature.name}`", feature.formula) for feature in FEATURES))


def conditions_part() -> list[str]:
    """Return the condition under which each guard lets a decision pass."""
    rows = ((str(guard.number), f"`{guard.flag}`", f"`{guard.quiet}`") for guard in GUARDS)
    return table(("#", "guard", "passes when"), rows)


# Pages ----------------------------------------------------------------------------------------------------------------

PARTS: dict[str, dict[str, Callable[[], list[str]]]] = {
    "FEATURES.md": {"features": features_part, "config": config_part},
    "GUARDS.md": {"guards": guards_part, "policy": policy_part},
    "FORMULAS.md": {"formulas": formulas_part, "conditions": conditions_part},
}


def render(page: str, text: str) -> str:
    """Return a page's text with its generated parts as they must be."""
    for name, make in PARTS[page].items():
        begin, end = f"<!-- generated: {name} -->", f"<!-- end of generated: {name} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise SystemExit(f"{page}: the markers of `{name}` are missing")
        text = "\n".join((before + begin, "", *make(), "", end)) + after
    return text


def main(arguments: list[str]) -> int:
    """Write the pages, or with `--check` only compare; return the exit code."""
    stale = []
    for page in PARTS:
        path = DOCS / page
        text = path.read_text(encoding="utf-8")
        fresh = render(page, text)
        if fresh != text:
            stale.append(page)
            if "--check" not in arguments:
                path.write_text(fresh, encoding="utf-8")
    if stale and "--check" in arguments:
        print(f"stale: {', '.join(stale)}: run docs/generate.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
