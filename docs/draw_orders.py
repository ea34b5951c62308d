"""Draws docs/orders.md from the tables of `ami_engine.execution.order_state`: run it after changing them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from ami_engine.events import OrderStatus
from ami_engine.execution.order_state import OPEN_STATUSES, REQUESTS, TRANSITIONS, VENUE_TRIGGERS, Trigger

PAGE = Path(__file__).with_name("orders.md")

INTRODUCTION = """\
# The life of an order

Drawn from the tables in `ami_engine.execution.order_state` by `docs/draw_orders.py`; do not edit it by hand.

An order has two axes. `status` is the venue's last word about it, in the names of FIX tag 39. `request` is what the
engine asked and has not heard about. When the reply to a request is lost (a timeout, a disconnect, an unreadable
answer), the request stays outstanding and the order is **in doubt**: its whole quantity counts as exposure, nothing is
put in its place, and the venue is asked until it answers.
"""


def render() -> str:
    """Return the page."""
    open_names = ", ".join(status.value for status in OrderStatus if status in OPEN_STATUSES)
    return "\n".join(
        [
            INTRODUCTION,
            "## What the venue reports\n",
            *_table("status", VENUE_TRIGGERS, TRANSITIONS),
            "\n`–` is not allowed: the venue broke the protocol (`VenueProtocolError`) and the run halts. A fill is",
            "booked all the same. A fill of a closed order is late: it is taken, and the order stays closed.\n",
            "```mermaid",
            *_diagram(),
            "```",
            "\n## What the engine asks\n",
            *_table("request", tuple(Trigger), REQUESTS),
            "\n`–` is not allowed: the engine made the mistake (`InvalidTransition`). An order is submitted only while",
            f"INITIALIZED, and cancelled only while open ({open_names}). A cancel does not answer a submit that is in",
            "doubt: the request stays SUBMIT until the venue says a word about the order.",
            "",
        ]
    )


def _table(corner: str, columns: tuple[Trigger, ...], rows: Mapping[Any, Mapping[Trigger, Enum]]) -> list[str]:
    lines = [
        f"| {corner} \\ trigger | " + " | ".join(t.value for t in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for before, cells in rows.items():
        after = [cells.get(trigger) for trigger in columns]
        lines.append(f"| {before.value} | " + " | ".join("–" if to is None else to.value for to in after) + " |")
    return lines


def _diagram() -> list[str]:
    lines = ["stateDiagram-v2", "    [*] --> INITIALIZED"]
    for status, row in TRANSITIONS.items():
        for after in dict.fromkeys(row.values()):
            label = ", ".join(trigger.value for trigger, to in row.items() if to is after)
            lines.append(f"    {status.value} --> {after.value}: {label}")
    return [*lines, *(f"    {s.value} --> [*]" for s in OrderStatus if s not in OPEN_STATUSES)]


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
