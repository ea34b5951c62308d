"""A trace's lines: one packet, its place in the hash chain, and its latency, in that order.

A line is ``H`` + ``,"ops.crc32":c,"ops.latency_ns":{…}},"latency_ms":x}``. The hashed part ``H`` holds everything that
two runs of one seed have in common and ends in its sequence number and the SHA-256 of the previous line's ``H``; the
CRC-32 covers ``H``. Both are checked on the bytes as they stand, never on something decoded and encoded again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Any
from zlib import crc32

import msgspec

from ami_engine.errors import TraceError
from ami_engine.plain_values import to_plain
from ami_engine.security.jsonl import JsonScrubber
from ami_engine.trace.clean_check import OWN_KEYS, CleanCheck
from ami_engine.trace.packet_writer import PacketWriter, StepTypes

__all__ = ["GENESIS", "LineEncoder", "unwritable"]

GENESIS = "0" * 64


class _Hashed(msgspec.Struct, gc=False):
    """The packet's part of `H`; `external` is last, so that the chain's own keys can follow it."""

    schema_version: str
    run_id: str
    step: int
    input: Any
    mdm: Any
    final_action: Any
    mismatch: Any
    external: dict[str, Any]


class LineEncoder:
    """Turns packets into lines and carries the hash chain on.

    The compiled core writes a packet in one pass when it knows everything in it to be clean. Else the packet is encoded
    here, and every value in it is looked at (`CleanCheck`), which teaches the core; only when that leaves a doubt is it
    walked through for secrets and non-finite floats (which JSON would turn into null), and encoded anew if need be. All
    ways give the same bytes.

    Parameters
    ----------
    seq : int
        Number of the next line.
    prev_sha256 : str
        Hash of the last line's `H`.
    compiled : bool
        Use the compiled core where it is there.
    """

    def __init__(self, seq: int = 0, prev_sha256: str = GENESIS, *, compiled: bool = True) -> None:
        self._scrubber = JsonScrubber()
        self._hook_scrubber = JsonScrubber()
        self._is_clean = CleanCheck(self._scrubber)
        encoder = msgspec.json.Encoder(enc_hook=self._to_plain)
        self._encode = encoder.encode
        self._encode_into = encoder.encode_into
        self._line = bytearray()
        self._writer = PacketWriter(self._is_clean, compiled=compiled)
        self._chain = self._writer.chain("lines", seq, prev_sha256)
        core = self._writer.core
        self._write: Callable[..., bytes | None] = core.write if core is not None else _give_up
        self._tail: Callable[..., bytes | None] = core.tail if core is not None else _give_up

    @property
    def seq(self) -> int:
        """Number of the next line."""
        return self._chain.seq  # type: ignore[no-any-return]

    @property
    def prev_sha256(self) -> str:
        """Hash of the last line's `H`, hex."""
        return self._chain.prev  # type: ignore[no-any-return]

    def encode(self, packet: Any, latency_ns: Any) -> bytes:
        """Return the packet's line.

        Raises
        ------
        TraceError
            When the packet holds what JSON cannot; the chain is where it was before.
        """
        chain = self._chain
        try:
            hashed = self._write(packet, chain.seq, chain.prev) or self._encode_here(packet)
            crc = crc32(hashed)
            tail = self._tail(crc, latency_ns, packet.latency_ms) or self._encode_tail(crc, latency_ns, packet)
        except (TypeError, ValueError, OverflowError, RecursionError, NotImplementedError) as error:
            raise unwritable(packet, error) from None
        chain.prev = sha256(hashed).hexdigest()
        chain.seq += 1
        return hashed + tail

    def begin_steps(self, types: StepTypes, run_id: str) -> Any:
        """Return the compiled core, ready to log steps; None when every packet must be encoded as such."""
        return self._writer.begin_steps(self._chain, types, run_id)

    def expect(self, types: Iterable[type], texts: Iterable[str], keys: Iterable[str]) -> None:
        """Look at what packets will be made of before the first one comes."""
        self._writer.expect(types, texts, keys)

    def _encode_tail(self, crc: int, latency_ns: Any, packet: Any) -> bytes:
        latency = self._encode(latency_ns) if latency_ns else b"{}"
        if not latency.startswith(b"{") or b"ops.crc32" in latency:
            raise TraceError(f"packet of step {packet.step}: `external` and `latency_ns` must be mappings of their own")
        # What the core has not seen as a key before, it may write from now on.
        self._is_clean(latency_ns)
        total = self._encode(packet.latency_ms)
        return b',"ops.crc32":%d,"ops.latency_ns":%b},"latency_ms":%b}\n' % (crc, latency, total)

    def _encode_here(self, packet: Any) -> bytes:
        """Return the hashed part of the packet's line."""
        external = packet.external
        record = _Hashed(
            packet.schema_version,
            packet.run_id,
            packet.step,
            packet.input,
            packet.mdm,
            packet.final_action,
            packet.mismatch,
            {} if external is None else external,
        )
        line = self._line
        self._encode_into(record, line)
        if self._is_clean(record):
            self._writer.announce()
        else:
            self._look_through(record, line)
        if not line.endswith(b"}}"):
            raise TraceError(f"packet of step {packet.step}: `external` and `latency_ns` must be mappings of their own")
        # The closing braces of `external` and of the packet go to the end of the line.
        comma = b"" if line.endswith(b"{}}") else b","
        line[-2:] = b'%b"ops.seq":%d,"ops.prev_sha256":"%b"' % (comma, self.seq, self.prev_sha256.encode())
        return bytes(line)

    def _look_through(self, record: _Hashed, line: bytearray) -> None:
        """Walk through a packet, and encode it anew when it is not clean."""
        scrubbed = self._scrubber.clean(record)
        if _holds_own_keys(scrubbed.external):
            # A packet that was read from another trace: its place in that one is no place in this one.
            external = {key: item for key, item in scrubbed.external.items() if key not in OWN_KEYS}
            scrubbed = msgspec.structs.replace(scrubbed, external=external)
        if scrubbed is not record:
            self._encode_into(scrubbed, line)

    def _to_plain(self, value: Any) -> Any:
        return self._hook_scrubber.clean(to_plain(value))


def unwritable(packet: Any, error: Exception) -> TraceError:
    """Return the error to raise for a packet that cannot be encoded, without its contents."""
    # The error's own text may quote the packet; what msgspec says of types does not.
    reason = str(error) if isinstance(error, (TypeError, NotImplementedError)) else type(error).__name__
    return TraceError(f"packet of step {packet.step!r} cannot be written as JSON: {reason}")


def _give_up(*_: Any) -> None:
    """Stand for a compiled core that is not there."""


def _holds_own_keys(external: Any) -> bool:
    return isinstance(external, Mapping) and any(key in external for key in OWN_KEYS)
