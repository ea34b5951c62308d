"""Writes a run's trace: one line a packet, each chained to the one before it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

import msgspec

from ami_engine.clock import Clock
from ami_engine.errors import ChainBroken, ConfigError, TraceError
from ami_engine.plain_values import to_plain
from ami_engine.trace.frame_codec import FrameEncoder
from ami_engine.trace.line_codec import LineEncoder
from ami_engine.trace.packet_writer import StepTypes, new_block
from ami_engine.trace.reader import last_packet, verify_files
from ami_engine.trace.trace_files import TraceFormat, TraceStore
from ami_engine.trace.write_queue import QueuePolicy, WriteQueue
from ami_engine.units import NS_PER_S
from decision_schema.packet_v2 import PacketV2

__all__ = ["FlushPolicy", "StepLog", "TraceLogger"]

FlushPolicy = Literal["none", "interval", "every"]
StepLog = Callable[[int, Any, str, int, Any, Any, dict[str, Any], tuple[int, ...]], int]

# Packets that wait in memory under the policy "none"; what a crash can lose. More than fits the processor's second
# cache costs twice as much to write.
_MAX_BLOCK_BYTES = 1 << 17
_ENCODERS: dict[str, type[LineEncoder] | type[FrameEncoder]] = {"jsonl": LineEncoder, "binary": FrameEncoder}

_copy_packet = msgspec.msgpack.Encoder(enc_hook=to_plain).encode
_read_copy = msgspec.msgpack.Decoder().decode


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
        "none": packets are written when 128 KiB have collected, and at the end. "interval": also after `flush_packets`
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
        Replace an existing trace, of either form.
    format : {"jsonl", "binary"}
        One JSON object a line, or the compact form in ``traces.bin``. Both hold the same packets; `trace.convert` turns
        the second into the first.
    max_bytes : int
        Size at which the next file is begun (``traces.1.jsonl``, ``traces.2.jsonl`` …), >= 0; 0 for one file. The chain
        goes on from file to file.
    max_files : int
        How many files are kept, >= 0; the oldest are removed. 0 for all. Needs `max_bytes`.
    queue : {"block", "drop", "stop"} or None
        None: `log_packet` writes by itself, and waits for a slow disk. Else a thread writes, and says what becomes of a
        packet when `queue_packets` are not yet written: "block" waits and counts the time, "drop" leaves it out before
        it is chained and says so in the next packet's ``ops.dropped``, "stop" raises.
    queue_packets : int
        Packets that may wait for the thread, >= 1.

    Attributes
    ----------
    path : Path
        The file, or the first of them.
    packets : int
        Packets in the trace, those before `resume` included; the next one's ``ops.seq``.
    chain_head : str
        SHA-256 of the last packet's hashed part, hex; 64 zeros before the first.
    cut_bytes : int
        Length of the torn end that `resume` cut off, bytes.
    dropped, queued_max, blocked_ns : int
        Packets that "drop" left out; most packets that ever waited; time that "block" waited, ns.

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
    >>> from ami_engine.trace import verify
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
        format: TraceFormat = "jsonl",
        max_bytes: int = 0,
        max_files: int = 0,
        queue: QueuePolicy | None = None,
        queue_packets: int = 8192,
    ) -> None:
        _check(run_id, flush, flush_packets, flush_ns, has_run_dir=run_dir is not None, both=resume and overwrite)
        _check_store(format, max_bytes, max_files, queue, queue_packets)
        self.run_id = run_id
        self.cut_bytes = self.dropped = self.queued_max = 0
        self._flush_policy = flush
        self._flush_packets = flush_packets if flush == "interval" else 0
        self._flush_ns = flush_ns
        self._now_ns = clock.now_ns if clock is not None and flush == "interval" else None
        self._next_flush_ns = self._next_flush_seq = 0
        folder = Path(run_dir if run_dir is not None else Path(output_dir) / run_id)
        self._steps_before = 0
        self._encoder: LineEncoder | FrameEncoder = _ENCODERS[format]()
        self._store = _open(folder, format, "append" if resume else "overwrite" if overwrite else "new",
                            max_bytes, max_files)  # fmt: skip
        self.path = self._store.path
        if resume:
            self._resume(format)
        if isinstance(self._encoder, FrameEncoder):
            self._store.preamble = self._encoder.layouts
        self._encode = self._encoder.encode
        # Packets that are chained and not yet handed on, and the number of the first of them.
        self._block = new_block()
        self._handed_seq = self._encoder.seq
        self._core: Any = None
        self._queue_policy = queue
        self._queue_packets = queue_packets
        self._undeclared = 0
        self._last_dropped: bytes | None = None
        self._queue = WriteQueue(self._store) if queue is not None else None
        self._plan_flush()

    def log_packet(self, packet: Any, latency_ns: Mapping[str, int] | None = None) -> None:
        """Append one packet; `latency_ns` says how long each stage took, ns, and is no part of the chain.

        `packet` is a `PacketV2` or anything with its attributes; dicts and structs inside it are taken as they are and
        never changed.
        """
        if self._store.file.refusal:
            raise TraceError(f"{self.path}: {self._store.file.refusal}")
        if self._queue is not None:
            packet = self._admit(packet, self._queue)
            if packet is None:
                return
        self._block.append(self._encode(packet, latency_ns))
        self.flush_when_due()

    def begin_steps(self, types: StepTypes, run_id: str) -> StepLog | None:
        """Return what logs the packet of a step without its being made, None when every packet must be made.

        That is where there is no compiled core, and where a subclass has a `log_packet` of its own. What is returned
        takes ``step, event, symbol, now_ns, row, decision, external, times``: numbers and texts, the event, its row (an
        array, None for a timer), a decision of the type in `types`, a dict, and the five points in time, ns, between
        which the stages lie. It answers 0 when the packet must be made and given to `log_packet` after all, as one that
        may hold a secret must; 2 when `flush_when_due` is to be called.
        """
        if type(self).log_packet is not TraceLogger.log_packet:
            return None
        core = self._encoder.begin_steps(types, run_id)
        if core is None:
            return None
        self._core = core
        self._plan_flush()
        return core.log_step if self._queue is None else self._log_queued_step

    def expect(self, types: Iterable[type], texts: Iterable[str], keys: Iterable[str]) -> None:
        """Look at struct types, texts and keys that steps will hold, so that the first of them is quick to log too."""
        self._encoder.expect(types, texts, keys)

    @property
    def step_writer(self) -> Any:
        """What `begin_steps` has made ready: the compiled writer, None where there is none or a thread writes.

        The compiled step appends its packets by it, and asks for `flush_when_due` as `StepLog` does.
        """
        is_own = type(self) is TraceLogger and self._queue is None
        return self._core if is_own else None

    def flush_when_due(self) -> None:
        """Hand on the packets that have collected, when the flush policy says so."""
        if self._flush_policy == "every":
            self._hand_on(sync=True)
        elif (
            self._encoder.seq == self._next_flush_seq
            or len(self._block) > _MAX_BLOCK_BYTES
            or (self._now_ns is not None and self._now_ns() >= self._next_flush_ns)
        ):
            self._hand_on()
        elif self._core is not None:
            self._aim()

    def flush(self) -> None:
        """Hand every packet to the operating system, and wait for that when a thread does it."""
        self._hand_on()
        if self._queue is not None:
            self._queue.wait(1)

    def close(self) -> None:
        """Write what is pending, sync to disk and close. Closing again does nothing."""
        if self._core is not None:
            self._core.end_steps()
        try:
            if not self._store.file.refusal:
                if self._undeclared:
                    self._log_last_dropped()
                self._hand_on()
                if self._queue is not None:
                    self._queue.close()
        finally:
            self._store.close()

    @property
    def packets(self) -> int:
        """Packets in the trace; the next one's ``ops.seq``."""
        return self._encoder.seq

    @property
    def next_step(self) -> int:
        """Number that a run which goes on counting gives its next step: dropped packets are counted too."""
        return self._steps_before + self._encoder.seq + self.dropped

    @property
    def blocked_ns(self) -> int:
        """Time that the policy "block" waited for the disk, ns."""
        return self._queue.blocked_ns if self._queue is not None else 0

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

    def _resume(self, format: str) -> None:
        try:
            self.cut_bytes = self._store.cut_torn_end()
            # Where old files are removed, the chain is known from the oldest that is left.
            report = verify_files(self._store.files(), tail=self._store.removes_files)
        except OSError as error:
            self._store.close()
            raise TraceError(f"{self.path}: cannot be resumed: {error.strerror}") from error
        if report.first_damage is not None:
            self._store.close()
            damage = report.first_damage
            place = f"{self.path.parent / damage.file}:{damage.line}"
            raise ChainBroken(f"{place}: cannot be resumed: {damage.reason}: {damage.detail}")
        seq = report.first_seq + report.packets
        self._encoder = _ENCODERS[format](seq, report.chain_head)
        last = last_packet(self._store.files())
        if last is not None and isinstance(last.step, int):
            self._steps_before = last.step + 1 - seq

    def _log_queued_step(self, *parts: Any) -> int:
        assert self._queue is not None
        waiting = self._encoder.seq - self._handed_seq + self._queue.waiting
        if self._undeclared or waiting >= self._queue_packets:
            return 0
        outcome: int = self._core.log_step(*parts)
        if outcome:
            self.queued_max = max(self.queued_max, waiting + 1)
        return outcome

    def _admit(self, packet: Any, queue: WriteQueue) -> Any:
        """Return the packet to write, None when it is to be dropped; wait or raise when the policy says so."""
        waiting = self._encoder.seq - self._handed_seq + queue.waiting
        if waiting >= self._queue_packets:
            self._hand_on()
            if self._queue_policy == "block":
                queue.wait(self._queue_packets)
            elif queue.waiting >= self._queue_packets:
                if self._queue_policy == "stop":
                    raise TraceError(f"{self.path}: the disk is too slow: {queue.waiting} packets wait to be written")
                self.dropped += 1
                self._undeclared += 1
                # The last one is written after all, when no other follows: it says how many are missing.
                self._last_dropped = _copy_packet({name: getattr(packet, name) for name in _PACKET_FIELDS})
                return None
            waiting = queue.waiting
        self.queued_max = max(self.queued_max, waiting + 1)
        if not self._undeclared:
            return packet
        return self._declare(packet, self._undeclared)

    def _declare(self, packet: Any, missing: int) -> PacketV2:
        self._undeclared, self._last_dropped = 0, None
        fields = {name: getattr(packet, name) for name in _PACKET_FIELDS}
        if missing:
            fields["external"] = {**(packet.external or {}), "ops.dropped": missing}
        return PacketV2(**fields)

    def _log_last_dropped(self) -> None:
        assert self._last_dropped is not None
        packet = PacketV2(**_read_copy(self._last_dropped))
        self.dropped -= 1
        self._block.append(self._encode(self._declare(packet, self._undeclared - 1), None))

    def _hand_on(self, *, sync: bool = False) -> None:
        """Pass the packets that have collected to the disk or to the thread."""
        packets = self._encoder.seq - self._handed_seq
        if self._queue is None:
            # Written from where it is: a copy of its size costs as much as making it did.
            try:
                with self._block.view() as block:
                    self._store.append(block)
            finally:
                self._block.clear()
            if sync:
                self._store.sync()
        elif packets:
            self._queue.put(self._block.take(), packets, sync=sync)
        self._handed_seq = self._encoder.seq
        self._plan_flush()

    def _plan_flush(self) -> None:
        self._next_flush_seq = self._encoder.seq + self._flush_packets if self._flush_packets else -1
        if self._now_ns is not None:
            self._next_flush_ns = self._now_ns() + self._flush_ns
        if self._core is not None:
            self._aim()

    def _aim(self) -> None:
        """Tell the core where steps go, and when it is to ask for a flush: always, where more than a count decides."""
        asks_always = self._flush_policy == "every" or self._now_ns is not None
        due_seq = self._encoder.seq + 1 if asks_always else self._next_flush_seq
        self._core.aim(self._block, due_seq, _MAX_BLOCK_BYTES)


_PACKET_FIELDS = PacketV2.__struct_fields__


def _open(folder: Path, format: TraceFormat, mode: str, max_bytes: int, max_files: int) -> TraceStore:
    try:
        return TraceStore(folder, format, mode, max_bytes=max_bytes, max_files=max_files)
    except FileExistsError as error:
        taken = error.args[0] if isinstance(error.args[0], Path) else folder
        raise TraceError(f"{taken}: exists already: resume it, overwrite it, or choose another run") from None
    except OSError as error:
        raise TraceError(f"{folder}: cannot be opened: {error.strerror}") from error


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


def _check_store(format: str, max_bytes: int, max_files: int, queue: str | None, queue_packets: int) -> None:
    if format not in get_args(TraceFormat):
        raise ConfigError(f"`format` must be 'jsonl' or 'binary', was {format!r}")
    if max_bytes < 0:
        raise ConfigError(f"`max_bytes` must be at least 0, was {max_bytes!r}")
    if max_files < 0 or (max_files and not max_bytes):
        raise ConfigError(f"`max_files` must be at least 0, and needs `max_bytes`, was {max_files!r}")
    if queue is not None and queue not in get_args(QueuePolicy):
        raise ConfigError(f"`queue` must be 'block', 'drop', 'stop' or None, was {queue!r}")
    if queue_packets < 1:
        raise ConfigError(f"`queue_packets` must be at least 1, was {queue_packets!r}")
