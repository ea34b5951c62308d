"""The trace: every step of a run, chained so that a change shows."""

from ami_engine.trace.convert import Converted, convert
from ami_engine.trace.reader import Damage, VerifyReport, read_packets, verify
from ami_engine.trace.trace_logger import TraceLogger

__all__ = ["Converted", "Damage", "TraceLogger", "VerifyReport", "convert", "read_packets", "verify"]
