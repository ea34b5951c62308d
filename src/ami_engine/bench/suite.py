"""The suite: every group of cases, in the order in which they run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from fnmatch import fnmatchcase
from importlib.util import find_spec

from ami_engine.bench import (
    batch,
    compiled,
    deciding,
    footprint,
    ingest,
    instructions,
    kernels,
    safety,
    start_up,
    symbols,
    updates,
)
from ami_engine.bench.case import Case, Group
from ami_engine.errors import ConfigError

__all__ = ["GROUPS", "chosen", "why_skipped"]

GROUPS: tuple[Group, ...] = (
    kernels.GROUP,
    batch.GROUP,
    batch.WINDOWS_GROUP,
    updates.UPDATES_GROUP,
    updates.TAIL_GROUP,
    ingest.GROUP,
    deciding.DECIDE_GROUP,
    deciding.LOOP_GROUP,
    deciding.WAYS_GROUP,
    deciding.TRACE_GROUP,
    compiled.GROUP,
    safety.SAFETY_GROUP,
    symbols.GROUP,
    symbols.MEMORY_GROUP,
    start_up.GROUP,
    footprint.MEMORY_GROUP,
    footprint.GROWTH_GROUP,
    instructions.GROUP,
)


def chosen(only: str | None = None, *, with_opt_in: bool = False) -> list[tuple[Group, Sequence[Case]]]:
    """Return the groups and their cases that `only` asks for.

    `only` is a pattern for names of groups, cases and ratios: a ratio brings its cases. None asks for everything, but
    for the groups that have to be asked for, by name or `with_opt_in`.

    Raises
    ------
    ConfigError
        When nothing has such a name.

    Examples
    --------
    >>> [(group.name, len(cases)) for group, cases in chosen("ingest / decode")]
    [('ingest', 3)]
    """
    if only is None:
        return [(group, group.cases) for group in GROUPS if with_opt_in or not group.is_opt_in]
    found: list[tuple[Group, Sequence[Case]]] = []
    for group in GROUPS:
        if fnmatchcase(group.name, only):
            found.append((group, group.cases))
            continue
        names = {name for ratio in group.ratios if fnmatchcase(ratio.name, only) for name in ratio.cases}
        names.update(case.name for case in group.cases if fnmatchcase(case.name, only))
        if names:
            found.append((group, tuple(case for case in group.cases if case.name in names)))
    if not found:
        raise ConfigError(f"`--only` must match a group, a case or a ratio, was {only!r}; groups: {_names()}")
    return found


def _names() -> str:
    return ", ".join(group.name for group in GROUPS)


def why_skipped(case: Case, *, peers: bool) -> str:
    """Return why a case does not run here; "" when it does."""
    if case.is_peer and not peers:
        return "other people's software: asked for with --peers"
    for name in case.needs:
        if name == "valgrind":
            reason = instructions.why_not()
            if reason:
                return reason
        elif find_spec(name) is None and shutil.which(name) is None:
            return f"{name} is not installed"
    return ""
