"""Secrets kept out of everything that is written, and a record of everything that was done."""

from ami_engine.security.audit import AuditLogger
from ami_engine.security.redaction import redact_secrets

__all__ = ["AuditLogger", "redact_secrets"]
