"""Reads traces back, and proves that nobody changed them."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec

from ami_engine.errors import TraceError
from ami_engine.security.audit import AUDIT_FILE_NAME
from ami_engine.security.jsonl import restore_floats
from ami_engine.trace.frame_codec import FrameDecoder
from ami_engine.trace.frames import FrameError, read_frames
from ami_engine.trace.line_codec import GENESIS
from ami_engine.trace.trace_files import is_binary, trace_files, whole_trace_folder
from decision_schema.packet_v2 import PacketV2

__all__ = ["Damage", "VerifyReport", "last_packet", "read_packets", "verify", "verify_files"]

_CRC_KEY = b',"ops.crc32":'
_HASHED_END_RE = re.compile(rb'[{,]"ops\.seq":(0|[1-9][0-9]*),"ops\.prev_sha256":"([0-9a-f]{64})"\Z')
# Room for the two keys above and a sequence number of 20 digits.
_HASHED_END_BYTES = 160
_TAIL_RE = re.compile(rb',"ops\.crc32":(0|[1-9][0-9]*),"ops\.latency_ns":(\{.*\})\},"latency_ms":([^{}"]+)\}\Z')

_decode = msgspec.json.Decoder().decode
_decode_packet = msgspec.json.Decoder(PacketV2).decode
_decode_latency = msgspec.json.Decoder(dict[str, float]).decode
_decode_number = msgspec.json.Decoder(float | None).decode


class Damage(msgspec.Struct, frozen=True):
    """The first packet of a trace that does not hold.

    Attributes
    ----------
    line : int
        Counted from 1 in its file; in a binary file, the packet's number.
    reason : str
        ``torn_line`` (the last packet has no end: a crash), ``not_utf8``, ``not_json``, ``not_a_packet`` (what stands
        there is none, or lacks the chain's keys in their places), ``bad_crc`` (changed), ``missing_seq`` (packets were
        taken out before it), ``duplicate_seq`` (repeated or moved), ``broken_chain`` (an earlier one was replaced),
        ``cut_end`` (packets were taken off the end) or ``other_end`` (all of it was replaced). The last two are told by
        the run's audit log beside it, when the run came to its end.
    detail : str
        What was found, in one sentence.
    file : str
        Name of the file.
    """

    line: int
    reason: str
    detail: str
    file: str = ""


class VerifyReport(msgspec.Struct, frozen=True):
    """What a trace is worth: how many packets are good before `first_damage`, and the hash of the last of them.

    Packets that were taken off the end leave no mark in the file: where the run's audit log is not beside it, or goes
    with it, compare `chain_head` with the one the run reported. `first_seq` is the first packet's number: 0, unless
    the oldest files were allowed to be missing.
    """

    ok: bool
    packets: int
    chain_head: str
    first_damage: Damage | None = None
    first_seq: int = 0


class _DamagedLine(Exception):
    """A line failed a check; carries the reason and the detail."""


class _Chain:
    """Where the chain stands: the number and the previous hash that the next packet must say."""

    __slots__ = ("first_seq", "head", "is_open", "seq")

    def __init__(self, *, is_open: bool) -> None:
        self.seq = self.first_seq = 0
        self.head = GENESIS
        # The first packet may be any: those before it were rotated away.
        self.is_open = is_open

    def go_on(self, seq: int, prev: str, digest: str) -> None:
        if self.is_open:
            self.seq = self.first_seq = seq
            self.head, self.is_open = prev, False
        if seq != self.seq:
            kind = "missing_seq" if seq > self.seq else "duplicate_seq"
            raise _DamagedLine(kind, f"`ops.seq` must be {self.seq}, was {seq}")
        if prev != self.head:
            raise _DamagedLine("broken_chain", f"`ops.prev_sha256` must be {self.head[:16]}…, was {prev[:16]}…")
        self.seq, self.head = seq + 1, digest

    def reach(self, seq: int, head: str) -> None:
        """Check that the chain ends where a run said it does; packets may have been added since."""
        if self.seq < seq:
            raise _DamagedLine("cut_end", f"the run wrote {seq} packets, {seq - self.seq} are missing at the end")
        if self.seq == seq and self.head != head:
            raise _DamagedLine("other_end", f"the run ended with {head[:16]}…, this trace with {self.head[:16]}…")


def verify(path: str | Path, *, tail: bool = False) -> VerifyReport:
    """Check every packet of a trace: its CRC, its place and its hash chain, on the bytes as they stand.

    Parameters
    ----------
    path : str or Path
        A trace file, or a run's folder. All files of a trace are read one after the other, packet by packet.
    tail : bool
        Allow the oldest files to be missing: the first packet may have any number. Nothing is said of those before it.

    Raises
    ------
    OSError
        When a file cannot be read.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "traces.jsonl"
    ...     _ = path.write_bytes(b'{"mid": 0.5')
    ...     verify(folder).first_damage.reason
    'torn_line'
    """
    folder = whole_trace_folder(path)
    end = None if folder is None else _told_end(folder / AUDIT_FILE_NAME)
    return verify_files(trace_files(path), tail=tail, end=end)


def _told_end(audit: Path) -> tuple[int, str] | None:
    """Return how many packets the last run wrote, and the last one's hash, when it came to its end and says so."""
    try:
        with audit.open("rb") as file:
            file.seek(max(0, audit.stat().st_size - _AUDIT_END_BYTES))
            last = file.read().rstrip(b"\n").rpartition(b"\n")[2]
        end = _decode_end(last)
    except (OSError, ValueError):
        return None  # the log is another file, with faults of its own
    return None if end.kind != "run_end" or end.chain_head is None else (end.trace_packets, end.chain_head)


class _RunEnd(msgspec.Struct):
    """What is read of the last line of an audit log."""

    kind: str
    trace_packets: int = 0
    chain_head: str | None = None


_decode_end = msgspec.json.Decoder(_RunEnd).decode
# More than any line of the end of a run has.
_AUDIT_END_BYTES = 1 << 16


def verify_files(files: Sequence[Path], *, tail: bool, end: tuple[int, str] | None = None) -> VerifyReport:
    """Check files that are one trace, in their order, and that they reach the `end` that is known; see `verify`."""
    chain = _Chain(is_open=tail)
    decoder = FrameDecoder()
    for file in files:
        before = chain.seq
        try:
            if is_binary(file):
                _check_frames(file, chain, decoder)
            else:
                _check_lines(file, chain)
            if end is not None and file is files[-1]:
                chain.reach(*end)
        except (_DamagedLine, FrameError) as damage:
            reason, detail = damage.args
            in_file = chain.seq - max(before, chain.first_seq)
            first_damage = Damage(in_file + 1, reason, detail, file.name)
            return VerifyReport(False, chain.seq - chain.first_seq, chain.head, first_damage, chain.first_seq)
    return VerifyReport(True, chain.seq - chain.first_seq, chain.head, None, chain.first_seq)


def _check_lines(path: Path, chain: _Chain) -> None:
    with path.open("rb") as file:
        for line in file:
            chain.go_on(*_check_line(line))


def _check_frames(path: Path, chain: _Chain, decoder: FrameDecoder) -> None:
    with path.open("rb") as file:
        for frame in read_frames(file):
            place = decoder.check(frame)
            if place is not None:
                chain.go_on(place[0], place[1].hex(), sha256(frame.hashed).hexdigest())


def read_packets(path: str | Path) -> Iterator[PacketV2]:
    """Yield the packets of a trace one by one, with their non-finite floats; memory does not grow with the files.

    Either form of trace reads back as the same packets, but for what each chain says in `external`. The chain is not
    checked; `verify` does that.

    Raises
    ------
    OSError
        When a file cannot be read.
    TraceError
        At what is no packet. The packets before it have been yielded.
    """
    decoder = FrameDecoder()
    for file in trace_files(path):
        yield from _read_file(file, decoder)


def last_packet(files: Sequence[Path]) -> PacketV2 | None:
    """Return the last packet of a trace's files; None when it has none. Only the files at its end are read."""
    for file in reversed(files):
        kept = deque(_read_file(file, FrameDecoder()), maxlen=1)
        if kept:
            return kept[0]
    return None


def _read_file(path: Path, decoder: FrameDecoder) -> Iterator[PacketV2]:
    return _read_frames(path, decoder) if is_binary(path) else _read_lines(path)


def _read_frames(path: Path, decoder: FrameDecoder) -> Iterator[PacketV2]:
    number = 1
    with path.open("rb") as file:
        try:
            for frame in read_frames(file):
                packet = decoder.packet(frame)
                if packet is not None:
                    yield packet
                    number += 1
        except FrameError as error:
            reason, detail = error.args
            raise TraceError(f"{path}:{number}: {reason}: {detail}") from None


def _read_lines(path: Path) -> Iterator[PacketV2]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                raise TraceError(f"{path}:{number}: torn_line: {_TORN}")
            try:
                if b'NaN"' in line or b'Infinity"' in line:
                    yield PacketV2.from_dict(restore_floats(_decode(line)))
                else:
                    yield _decode_packet(line)
            except (ValueError, AttributeError, TypeError) as error:
                reason, detail = _why_unreadable(line) or ("not_a_packet", str(error))
                raise TraceError(f"{path}:{number}: {reason}: {detail}") from None


_TORN = "the last line has no end: writing stopped in the middle of it"


def _check_line(line: bytes) -> tuple[int, str, str]:
    """Return a sound line's number, the previous hash that it says, and the hash of its own hashed part."""
    if not line.endswith(b"\n"):
        raise _DamagedLine("torn_line", _TORN)
    cut = line.rfind(_CRC_KEY)
    hashed = line[:cut] if cut >= 0 else b""
    tail = _TAIL_RE.match(line[:-1], cut) if cut >= 0 else None
    if tail is None or not _is_latency(tail):
        raise _DamagedLine(*(_why_unreadable(line) or ("not_a_packet", "the chain's keys are not in their places")))
    if crc32(hashed) != int(tail[1]):
        raise _DamagedLine(*(_why_unreadable(line) or ("bad_crc", f"says {int(tail[1])}, is {crc32(hashed)}")))
    end = _HASHED_END_RE.search(hashed, max(0, len(hashed) - _HASHED_END_BYTES))
    if end is None:
        raise _DamagedLine("not_a_packet", "the chain's keys are not in their places")
    return int(end[1]), end[2].decode(), sha256(hashed).hexdigest()


def _is_latency(tail: re.Match[bytes]) -> bool:
    try:
        _decode_latency(tail[2])
        _decode_number(tail[3])
    except ValueError:
        return False
    return True


def _why_unreadable(line: bytes) -> tuple[str, str] | None:
    """Return why a line cannot be read at all; None when it is JSON."""
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return "not_utf8", f"byte {error.start} is not UTF-8"
    try:
        value: Any = _decode(line)
    except ValueError as error:
        return "not_json", str(error)
    return None if isinstance(value, dict) else ("not_a_packet", "the line is no JSON object")
