"""The trace: every step of a run, chained so that a change shows."""

from ami_engine.trace.reader import Damage, VerifyReport, read_packets, verify
from ami_engine.trace.trace_logger import TraceLogger

__all__ = ["Damage", "TraceLogger", "VerifyReport", "read_packets", "verify"]
