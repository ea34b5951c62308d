"""How the command line speaks: one-line errors, JSON for machines, tables and progress on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

__all__ = ["print_error", "print_json", "print_rows", "print_summary", "progress_bar"]

# What of a summary a person reads first; the rest is in --json.
_ROWS = (
    ("run", "run_id"),
    ("backend", "backend"),
    ("ended by", "stopped_reason"),
    ("steps", "steps"),
    ("timers", "timer_count"),
    ("proposed", "proposal_counts"),
    ("decided", "action_counts"),
    ("reasons at HOLD", "hold_reason_counts"),
    ("guards fired", "mismatch_reason_counts"),
    ("orders sent", "orders_submitted"),
    ("orders cancelled", "orders_canceled"),
    ("orders rejected", "orders_rejected"),
    ("quotes too small", "orders_skipped"),
    ("trading state", "trading_state"),
    ("fills", "fills_count"),
    ("positions opened / closed", ("position_open_count", "position_close_count")),
    ("realized profit", "realized_pnl"),
    ("final equity", "final_equity"),
    ("largest drawdown", "max_drawdown"),
    ("events refused", "rejected_events"),
    ("errors", "error_count"),
    ("last error", "last_error"),
    ("step latency, µs", "latency_us"),
    ("events / s", "events_per_s"),
    ("trace", "trace_path"),
    ("audit log", "audit_path"),
    ("picture", "plot_path"),
)


def print_error(message: str) -> None:
    """Print one line on standard error."""
    line = " ".join(str(message).split())
    sys.stderr.write(f"ami: {line}\n")


def print_json(value: Mapping[str, Any]) -> None:
    """Print `value` as one JSON document on standard output, and nothing else."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def print_summary(summary: Mapping[str, Any]) -> None:
    """Print a run's summary as a table on a terminal, as aligned lines elsewhere."""
    rows: list[tuple[str, str]] = []
    for label, key in _ROWS:
        keys = key if isinstance(key, tuple) else (key,)
        values = [summary.get(name) for name in keys]
        if any(value not in (None, "", {}) for value in values):
            rows.append((label, " / ".join(_text(value) for value in values)))
    rows += [("note", str(note)) for note in summary.get("notes", ())]
    rows += [("refused", str(place)) for place in summary.get("rejected_places", ())[:3]]
    print_rows(rows)


def print_rows(rows: list[tuple[str, str]]) -> None:
    """Print pairs of label and text: a table on a terminal, plain lines for files and grep."""
    if not sys.stdout.isatty():
        width = max((len(label) for label, _ in rows), default=0)
        sys.stdout.writelines(f"{label:<{width}}  {text}\n" for label, text in rows)
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in rows:
        table.add_row(label, escape(text))
    Console().print(table)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        flat = {k: v for k, v in value.items() if not isinstance(v, Mapping)}
        ranked = sorted(flat.items(), key=lambda kv: -kv[1]) if "p50" not in flat else list(flat.items())
        shown = [f"{name} {number:g}" if isinstance(number, float) else f"{name} {number}" for name, number in ranked]
        return ", ".join(shown[:8]) + (f", and {len(shown) - 8} more" if len(shown) > 8 else "")
    if isinstance(value, float):
        return f"{value:,.6g}" if abs(value) < 1e6 else f"{value:,.2f}"
    return str(value)


@contextmanager
def progress_bar(total: int | None, *, shown: bool) -> Iterator[Callable[[int], None] | None]:
    """Yield a callable that takes the number of steps done, or None when no bar is shown."""
    if not shown or not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("deciding", total=total)
        yield lambda done: progress.update(task, completed=done)
