"""Writes a run's trace: one line a packet, each chained to the one before it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

from ami_engine.clock import Clock
from ami_engine.errors import ChainBroken, ConfigError, TraceError
from ami_engine.security.jsonl import AppendFile
from ami_engine.trace.line_codec import TRACE_FILE_NAME, LineEncoder
from ami_engine.trace.reader import verify
from ami_engine.units import NS_PER_S

__all__ = ["FlushPolicy", "TraceLogger"]

FlushPolicy = Literal["none", "interval", "every"]

# Lines that wait in memory under the policy "none"; what a crash can lose.
_MAX_PENDING_BYTES = 1 << 18


class TraceLogger:
    """Appends packets to ``<output_dir>/<run_id>/traces.jsonl``.

    Secrets are removed before a packet is hashed. Non-finite floats are written as strings that the reader turns back.
    Every line carries ``ops.seq``, ``ops.prev_sha256``, ``ops.crc32`` and ``ops.latency_ns`` in its `external`.

    Parameters
    ----------
    run_id : str
        The run; one path component, unless `run_dir` is given.
    output_dir : str or Path
        Folder of all runs.
    flush : {"none", "interval", "every"}
        "none": lines are written when 256 KiB have collected, and at the end. "interval": after `flush_packets`
        packets, or `flush_ns` of `clock` when it is given. "every": each packet is written and synced to disk. Closing
        syncs.
    flush_packets : int
        Packets between two flushes, >= 1.
    flush_ns : int
        Time between two flushes, ns of `clock`, > 0.
    clock : Clock or None
        What `flush_ns` is measured with; None leaves it to `flush_packets`.
    run_dir : str, Path or None
        The very folder to write in, instead of ``output_dir/run_id``.
    resume : bool
        Continue an existing trace after checking all of it. A last line that a crash tore is cut off; see `cut_bytes`.
    overwrite : bool
        Replace an existing trace.

    Attributes
    ----------
    path : Path
        The file.
    packets : int
        Packets in the trace, those before `resume` included; the next one's ``ops.seq``.
    chain_head : str
        SHA-256 of the last packet's hashed part, hex; 64 zeros before the first.
    cut_bytes : int
        Length of the torn line that `resume` cut off, bytes.

    Raises
    ------
    TraceError
        When the file exists and neither `resume` nor `overwrite` is set, cannot be opened or written, is closed, or
        belongs to another process (after a fork), and when a packet cannot be written as JSON.
    ChainBroken
        When the trace to resume is damaged anywhere but in a torn last line.
    ConfigError
        When an argument is outside its range.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from decision_schema.packet_v2 import PacketV2
    >>> packet = PacketV2("run_123", 0, {"mid": 0.5}, {}, {"action": "HOLD"}, {"action": "HOLD"}, 0.1)
    >>> with TemporaryDirectory() as folder:
    ...     with TraceLogger(run_id="run_123", output_dir=folder) as logger:
    ...         logger.log_packet(packet, {"features": 1500})
    ...     report = verify(logger.path)
    >>> report.ok, report.packets, report.chain_head == logger.chain_head
    (True, 1, True)
    """

    def __init__(
        self,
        run_id: str,
        output_dir: str | Path = "./traces",
        flush: FlushPolicy = "interval",
        *,
        flush_packets: int = 256,
        flush_ns: int = NS_PER_S,
        clock: Clock | None = None,
        run_dir: str | Path | None = None,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        _check(run_id, flush, flush_packets, flush_ns, has_run_dir=run_dir is not None, both=resume and overwrite)
        self.run_id = run_id
        self.path = Path(run_dir if run_dir is not None else Path(output_dir) / run_id) / TRACE_FILE_NAME
        self.cut_bytes = 0
        self._flush_policy = flush
        self._flush_packets = flush_packets if flush == "interval" else 0
        self._flush_ns = flush_ns
        self._now_ns = clock.now_ns if clock is not None and flush == "interval" else None
        self._next_flush_ns = 0
        self._next_flush_seq = 0
        self._file = self._open("append" if resume else "overwrite" if overwrite else "new")
        self._encoder = self._resume() if resume else LineEncoder()
        self._encode = self._encoder.encode
        self._plan_flush()

    def log_packet(self, packet: Any, latency_ns: Mapping[str, int] | None = None) -> None:
        """Append one packet; `latency_ns` says how long each stage took, ns, and is no part of the chain.

        `packet` is a `PacketV2` or anything with its attributes; dicts and structs inside it are taken as they are and
        never changed.
        """
        file = self._file
        if file.refusal:
            raise TraceError(f"{self.path}: {file.refusal}")
        line = self._encode(packet, latency_ns)
        file.pending += line
        if self._flush_policy == "every":
            file.sync()
        elif (
            self._encoder.seq == self._next_flush_seq
            or len(file.pending) > _MAX_PENDING_BYTES
            or (self._now_ns is not None and self._now_ns() >= self._next_flush_ns)
        ):
            self.flush()

    def flush(self) -> None:
        """Hand every packet to the operating system."""
        self._file.flush()
        self._plan_flush()

    def close(self) -> None:
        """Write what is pending, sync to disk and close. Closing again does nothing."""
        self._file.close()

    @property
    def packets(self) -> int:
        """Packets in the trace; the next one's ``ops.seq``."""
        return self._encoder.seq

    @property
    def chain_head(self) -> str:
        """SHA-256 of the last packet's hashed part, hex; 64 zeros before the first."""
        return self._encoder.prev_sha256

    def __enter__(self) -> TraceLogger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, mode: str) -> AppendFile:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return AppendFile(self.path, mode)
        except FileExistsError:
            raise TraceError(f"{self.path}: exists already: resume it, overwrite it, or choose another run") from None
        except OSError as error:
            raise TraceError(f"{self.path}: cannot be opened: {error.strerror}") from error

    def _resume(self) -> LineEncoder:
        try:
            self.cut_bytes = self._file.cut_torn_line()
            report = verify(self.path)
        except OSError as error:
            self.close()
            raise TraceError(f"{self.path}: cannot be resumed: {error.strerror}") from error
        if report.first_damage is not None:
            self.close()
            damage = report.first_damage
            raise ChainBroken(f"{self.path}:{damage.line}: cannot be resumed: {damage.reason}: {damage.detail}")
        return LineEncoder(report.packets, report.chain_head)

    def _plan_flush(self) -> None:
        self._next_flush_seq = self._encoder.seq + self._flush_packets if self._flush_packets else -1
        if self._now_ns is not None:
            self._next_flush_ns = self._now_ns() + self._flush_ns


def _check(run_id: str, flush: str, flush_packets: int, flush_ns: int, *, has_run_dir: bool, both: bool) -> None:
    if not has_run_dir and (not run_id or run_id in {".", ".."} or any(sep in run_id for sep in "/\\\0")):
        raise ConfigError(f"`run_id` must be one path component, was {run_id!r}")
    if flush not in get_args(FlushPolicy):
        raise ConfigError(f"`flush` must be 'none', 'interval' or 'every', was {flush!r}")
    if flush_packets < 1:
        raise ConfigError(f"`flush_packets` must be at least 1, was {flush_packets!r}")
    if flush_ns <= 0:
        raise ConfigError(f"`flush_ns` must be > 0, was {flush_ns!r}")
    if both:
        raise ConfigError("`resume` and `overwrite` exclude each other, both were True")
