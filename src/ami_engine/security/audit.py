"""The security audit: what was sent, cancelled, throttled, refused and done by hand, one line each, on disk at once."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from ami_engine.clock import Clock
from ami_engine.errors import TraceError
from ami_engine.plain_values import to_plain
from ami_engine.security.jsonl import AppendFile, JsonScrubber

__all__ = ["AUDIT_FILE_NAME", "AUDIT_KINDS", "AuditLogger"]

AUDIT_FILE_NAME = "security_audit.jsonl"

# What the engine itself records. Other kinds are taken as they come: a misspelt kind must not stop an order's record.
AUDIT_KINDS = frozenset(
    {
        *("order_submitted", "order_rejected", "order_in_doubt", "order_canceled", "cancel_refused", "cancel_all"),
        *("order_withheld", "policy"),
        *("fill_refused", "fill_unreadable", "fill_of_unknown_order", "fills_unavailable", "lookup_failed"),
        *("quotes_refused", "report_refused", "orders_swept", "halt_cleared"),
        *("private_hook_error", "policy_override_error", "throttle", "latch", "halt", "operator"),
        *("run_start", "run_end", "repair"),
    }
)

_OWN_KEYS = frozenset({"seq", "ts_ns", "kind"})


class AuditLogger:
    """Appends to ``security_audit.jsonl``: ``{"seq": …, "ts_ns": …, "kind": …, <fields>}``, without secrets.

    Every record is handed to the operating system before `record` returns, and synced to disk at `close`. A record is
    never dropped and never stops a decision: a value that JSON cannot hold is written as its type's name, an exception
    as its class (its text may quote what the venue was sent). Only a failing disk raises.

    Parameters
    ----------
    output_dir : str or Path
        Folder of the file; it is made when absent. An existing file is continued, after a last line that a crash tore
        is cut off, which the next line reports as a ``repair``.
    clock : Clock
        What stamps the records, ns since the Unix epoch.

    Raises
    ------
    TraceError
        When the file cannot be opened or written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from ami_engine.clock import ManualClock
    >>> with TemporaryDirectory() as folder:
    ...     with AuditLogger(folder, ManualClock(7)) as audit:
    ...         audit.record("submission", market_id="X", api_key="k1")
    ...     print(audit.path.read_text().strip())
    {"seq":0,"ts_ns":7,"kind":"submission","market_id":"X","api_key":"***REDACTED***"}
    """

    def __init__(self, output_dir: str | Path, clock: Clock) -> None:
        self.path = Path(output_dir) / AUDIT_FILE_NAME
        self._clock = clock
        self._scrubber = JsonScrubber()
        self._encode = msgspec.json.Encoder(enc_hook=self._describe).encode
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = AppendFile(self.path, "append")
            cut_bytes = self._file.cut_torn_line()
            self._seq = _count_lines(self.path)
        except OSError as error:
            raise TraceError(f"{self.path}: cannot be opened: {error.strerror}") from error
        if cut_bytes:
            self.record("repair", cut_bytes=cut_bytes)

    @property
    def records(self) -> int:
        """How many records the file holds."""
        return self._seq

    def record(self, kind: str, /, **fields: Any) -> None:
        """Append one record of `kind` (one of `AUDIT_KINDS`, or your own) and flush it.

        A field named seq, ts_ns or kind is written with an underscore after it.
        """
        line = {"seq": self._seq, "ts_ns": self._clock.now_ns(), "kind": str(kind)}
        line.update((name + "_" if name in _OWN_KEYS else name, value) for name, value in fields.items())
        self._file.pending += self._encode_line(line)
        self._file.flush()
        self._seq += 1

    def _encode_line(self, line: dict[str, Any]) -> bytes:
        try:
            return self._encode(self._scrubber.clean(line)) + b"\n"
        except Exception:
            # Foreign values run foreign code, and may hold text that is no Unicode: the record stands, without them.
            lost = {"lost": [ascii(name) for name in line if name not in _OWN_KEYS]}
            head = {name: line[name] for name in ("seq", "ts_ns")}
            return self._encode(self._scrubber.clean({**head, "kind": ascii(line["kind"])[1:-1], **lost})) + b"\n"

    def _describe(self, value: Any) -> Any:
        if isinstance(value, BaseException):
            return type(value).__qualname__
        try:
            return self._scrubber.clean(to_plain(value))
        except Exception:
            # The value's own conversion failed, or it has none.
            return f"<{type(value).__module__}.{type(value).__qualname__}>"

    def close(self) -> None:
        """Sync the file to disk and close it. Closing again does nothing."""
        self._file.close()

    def __enter__(self) -> AuditLogger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
