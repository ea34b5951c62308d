"""The audit log as the loop sees it: a disk that fails must not keep an order from being cancelled.

A record that cannot be written does not raise in the middle of what is being recorded. It is remembered, and the loop,
which looks after every step, stops the run with the reason.
"""

from __future__ import annotations

from typing import Any

from ami_engine.errors import TraceError
from ami_engine.security.audit import AuditLogger

__all__ = ["AuditEdge"]


class AuditEdge:
    """An `AuditLogger` that never raises.

    Attributes
    ----------
    failure : str
        Why a record could not be written, empty while all is well.
    """

    def __init__(self, audit: AuditLogger) -> None:
        self.failure = ""
        self._audit = audit
        self.path = audit.path

    @property
    def records(self) -> int:
        """How many records the file holds."""
        return self._audit.records

    def record(self, kind: str, /, **fields: Any) -> None:
        """Append one record, or remember why it could not be written."""
        try:
            self._audit.record(kind, **fields)
        except TraceError as error:
            self.failure = self.failure or str(error)

    def close(self) -> None:
        """Close the log, or remember why it could not be."""
        try:
            self._audit.close()
        except TraceError as error:
            self.failure = self.failure or str(error)
