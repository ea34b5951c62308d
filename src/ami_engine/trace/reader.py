"""Reads traces back, and proves that nobody changed them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec

from ami_engine.errors import TraceError
from ami_engine.security.jsonl import restore_floats
from ami_engine.trace.line_codec import GENESIS, TRACE_FILE_NAME
from decision_schema.packet_v2 import PacketV2

__all__ = ["Damage", "VerifyReport", "read_packets", "trace_path", "verify"]

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
    """The first line of a trace that does not hold.

    Attributes
    ----------
    line : int
        Counted from 1.
    reason : str
        ``torn_line`` (the last line has no end: a crash), ``not_utf8``, ``not_json``, ``not_a_packet`` (JSON without
        the chain's keys in their places), ``bad_crc`` (changed), ``missing_seq`` (lines were taken out before it),
        ``duplicate_seq`` (repeated or moved) or ``broken_chain`` (an earlier line was replaced).
    detail : str
        What was found, in one sentence.
    """

    line: int
    reason: str
    detail: str


class VerifyReport(msgspec.Struct, frozen=True):
    """What a trace is worth: how many packets are good before `first_damage`, and the hash of the last of them.

    Lines that were taken off the end leave no mark in the file: compare `chain_head` with the one the run reported.
    """

    ok: bool
    packets: int
    chain_head: str
    first_damage: Damage | None = None


class _DamagedLine(Exception):
    """A line failed a check; carries the reason and the detail."""


def trace_path(path: str | Path) -> Path:
    """Return the trace file that a path means: itself, or the one in a run's folder."""
    path = Path(path)
    return path / TRACE_FILE_NAME if path.is_dir() else path


def verify(path: str | Path) -> VerifyReport:
    """Check every line of a trace: its CRC, its place and its hash chain, on the bytes as they stand.

    Parameters
    ----------
    path : str or Path
        A trace file, or a run's folder. It is read line by line.

    Raises
    ------
    OSError
        When the file cannot be read.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "traces.jsonl"
    ...     _ = path.write_bytes(b'{"mid": 0.5')
    ...     verify(folder).first_damage.reason
    'torn_line'
    """
    head, packets = GENESIS.encode(), 0
    with trace_path(path).open("rb") as file:
        for line in file:
            try:
                head = _check_line(line, packets, head)
            except _DamagedLine as damage:
                reason, detail = damage.args
                return VerifyReport(False, packets, head.decode(), Damage(packets + 1, reason, detail))
            packets += 1
    return VerifyReport(True, packets, head.decode())


def read_packets(path: str | Path) -> Iterator[PacketV2]:
    """Yield the packets of a trace one by one, with their non-finite floats; memory does not grow with the file.

    The chain is not checked; `verify` does that.

    Raises
    ------
    OSError
        When the file cannot be read.
    TraceError
        At a line that is no packet. The packets before it have been yielded.
    """
    path = trace_path(path)
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


def _check_line(line: bytes, seq: int, head: bytes) -> bytes:
    """Return the hash of a good line's hashed part; `seq` and `head` are what the line must say."""
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
    found = int(end[1])
    if found != seq:
        raise _DamagedLine("missing_seq" if found > seq else "duplicate_seq", f"`ops.seq` must be {seq}, was {found}")
    if end[2] != head:
        raise _DamagedLine(
            "broken_chain", f"`ops.prev_sha256` must be {head.decode()[:16]}…, was {end[2].decode()[:16]}…"
        )
    return sha256(hashed).hexdigest().encode()


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
