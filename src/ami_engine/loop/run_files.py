"""A run's folder, and what is opened in it: trace, audit log, activity, journal, what the run was made of."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from ami_engine import clock as clocks
from ami_engine.adapters.base import DataSource
from ami_engine.config import RunConfig
from ami_engine.dmc.kill_switch import LatchFile, LatchStore, write_durably
from ami_engine.dmc.risk_policy import RiskPolicy
from ami_engine.errors import ConfigError, TraceError
from ami_engine.execution.journal import Journal
from ami_engine.loop.audit_edge import AuditEdge
from ami_engine.loop.durable import JournaledLatches
from ami_engine.loop.latches import LATCH_FILE_NAME
from ami_engine.loop.options import RunOptions
from ami_engine.ops.activity import ACTIVITY_FILE_NAME, ActivityLog
from ami_engine.security.audit import AUDIT_FILE_NAME, AuditLogger
from ami_engine.security.redaction import redact_secrets
from ami_engine.state_store import StateStore
from ami_engine.trace.trace_logger import TraceLogger

__all__ = [
    "check_latches",
    "keep_config",
    "latch_store",
    "live_dir",
    "open_activity",
    "open_journal",
    "open_logs",
    "run_dir",
]

_RUNS = Path("runs")
_LIVE = _RUNS / "live"
CONFIG_FILE_NAME = "run.json"
JOURNAL_FILE_NAME = "journal.sqlite"


def run_dir(given: RunOptions, run_id: str) -> Path | None:
    """Return the folder of the run's files, None for a run that is to leave none."""
    if isinstance(given.trace, TraceLogger):
        return given.trace.path.parent
    if given.trace is False and given.run_dir is None:
        return None
    if given.run_dir is None:
        return _free_dir(_RUNS / _file_name(run_id))
    folder = Path(given.run_dir)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"`run_dir` must be a directory, was the file {str(folder)!r}")
    if folder.is_dir() and any(folder.iterdir()) and not (given.resume or given.overwrite):
        raise ConfigError(
            f"`run_dir` {str(folder)!r} is not empty: "
            "choose another, or `resume` (append to) or `overwrite` (replace) it"
        )
    return folder


def live_dir(given: RunOptions, key: str) -> Path | None:
    """Return where a live run without a folder of its own keeps what must outlive it, None where that is elsewhere."""
    if given.run_dir is not None or given.journal is not None or given.trace is False or given.dry_run:
        return None
    return None if isinstance(given.trace, TraceLogger) else _LIVE / _file_name(key)


def _file_name(run_id: str) -> str:
    return re.sub(r"[^\w.-]", "_", run_id)


def _free_dir(folder: Path) -> Path:
    if not folder.exists():
        return folder
    number = 2
    while (folder.parent / f"{folder.name}-{number}").exists():
        number += 1
    return folder.parent / f"{folder.name}-{number}"


def open_logs(
    given: RunOptions, run_id: str, folder: Path | None, clock: clocks.Clock | None, opened: ExitStack
) -> tuple[TraceLogger | None, AuditEdge | None]:
    """Open the trace and the audit log, None where the run leaves none; `opened` closes them when a start fails."""
    if folder is None:
        return None, None
    if isinstance(given.trace, TraceLogger):
        return given.trace, _open_audit(folder, clock, opened)
    folder.mkdir(parents=True, exist_ok=True)
    if given.overwrite:
        (folder / AUDIT_FILE_NAME).unlink(missing_ok=True)
    trace = None
    if given.trace:
        trace = TraceLogger(
            run_id,
            run_dir=folder,
            flush=given.flush,
            resume=given.resume,
            overwrite=given.overwrite,
            format="jsonl" if given.trace is True else given.trace,
            max_bytes=given.trace_max_bytes,
            max_files=given.trace_max_files,
            queue=given.trace_queue,
            queue_packets=given.trace_queue_packets,
        )
        opened.callback(trace.close)
    return trace, _open_audit(folder, clock, opened)


def _open_audit(folder: Path, clock: clocks.Clock | None, opened: ExitStack) -> AuditEdge:
    audit = AuditEdge(AuditLogger(folder, clock or clocks.WallClock()))
    opened.callback(audit.close)
    return audit


def open_activity(given: RunOptions, folder: Path | None) -> ActivityLog | None:
    """Open the activity file, where one is asked for."""
    if folder is not None and given.activity:
        return ActivityLog(folder, is_resumed=given.resume)
    if folder is not None and given.overwrite:
        (folder / ACTIVITY_FILE_NAME).unlink(missing_ok=True)  # of the run that is replaced
    return None


def keep_config(
    given: RunOptions,
    folder: Path | None,
    run_id: str,
    config: RunConfig,
    policies: tuple[RiskPolicy, ...],
    source: DataSource,
    audit: AuditEdge | None,
) -> None:
    """Write what the run was made of beside its trace: an explanation needs the policy that a packet's hash names.

    A resumed run adds its policies to those of the packets that are there already.
    """
    if folder is None:
        return
    path = folder / CONFIG_FILE_NAME
    earlier = _policies_of(path) if given.resume else {}
    record = redact_secrets(
        {
            "run_id": run_id,
            "source": source.identity,
            "config": msgspec.to_builtins(config),
            "policies": earlier | {policy.policy_hash: msgspec.to_builtins(policy) for policy in policies},
        }
    )
    write_durably(path, msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
    if audit is not None:
        audit.record("run_start", run_id=run_id, source=source.identity)


def _policies_of(path: Path) -> dict[str, Any]:
    """Return the policies of a run's earlier starts, by hash."""
    try:
        kept = msgspec.json.decode(path.read_bytes()).get("policies", {})
    except FileNotFoundError:
        return {}
    except (msgspec.DecodeError, AttributeError, OSError) as error:
        raise TraceError(
            f"{path}: cannot be read, so the policies of earlier packets would be lost: {error}"
        ) from error
    return dict(kept)


def open_journal(given: RunOptions, run_id: str, place: Path | None, started_ns: int) -> Journal | None:
    """Open the run's journal: the one that is given, a live run's own, or none."""
    where = given.journal
    if given.executor is not None or given.dry_run:
        if where is not None:
            what = "`dry_run` sends none" if given.dry_run else "an `executor` sends its own"
            raise ConfigError(f"`journal` keeps the orders that the engine sends: {what}")
        return None
    if where is None:
        if not started_ns or place is None:
            if given.durability is not None:
                raise ConfigError("`durability` is for a journal: give `journal`, or a live run a `run_dir`")
            return None
        where = place / JOURNAL_FILE_NAME
    if isinstance(where, StateStore):
        if given.durability is not None:
            raise ConfigError("`durability` is for a journal that the run opens; `journal` is a StateStore of your own")
        store = where
    else:
        if given.overwrite and Path(where).exists():
            raise ConfigError(f"`overwrite` does not replace a journal: resume {str(where)!r}, or choose another place")
        Path(where).parent.mkdir(parents=True, exist_ok=True)
        store = StateStore(where, durability=given.durability or "full")
    try:
        salt = f"@{started_ns}" if started_ns else ""
        return Journal(store, run_id=given.run_id or "", new_run_id=run_id, salt=salt, begun_ns=started_ns)
    except BaseException:
        if store is not where:
            store.close()
        raise


def check_latches(given: RunOptions, folder: Path | None) -> None:
    """Refuse a run that begins anew where something is latched: only an operator's word ends that, not a flag."""
    if folder is None or given.resume or not folder.is_dir():
        return
    named = {release.name for release in given.release}
    held = [latch for latch in LatchFile(folder / LATCH_FILE_NAME).load() if latch.name not in named]
    if held:
        texts = ", ".join(f"{latch.name}: {latch.reason}" for latch in held)
        raise ConfigError(
            f"a run that begins anew in {str(folder)!r} would forget what is latched ({texts}): `release` it"
        )


def latch_store(place: Path | None, journal: Journal | None) -> LatchStore | None:
    """Return where latches are kept beside the folder's own file; None where that is all."""
    if journal is None:
        return None
    return JournaledLatches(journal, None if place is None else LatchFile(place / LATCH_FILE_NAME))
