"""A trace's lines: one packet, its place in the hash chain, and its latency, in that order.

A line is ``H`` + ``,"ops.crc32":c,"ops.latency_ns":{…}},"latency_ms":x}``. The hashed part ``H`` holds everything that
two runs of one seed have in common and ends in its sequence number and the SHA-256 of the previous line's ``H``; the
CRC-32 covers ``H``. Both are checked on the bytes as they stand, never on something decoded and encoded again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from operator import attrgetter, itemgetter
from typing import Any, TypeAlias
from zlib import crc32

import msgspec

from ami_engine.errors import TraceError
from ami_engine.security.jsonl import JsonScrubber
from ami_engine.security.redaction import TRIGGERS
from decision_schema.packet_v2 import to_plain

__all__ = ["GENESIS", "LineEncoder", "TRACE_FILE_NAME"]

TRACE_FILE_NAME = "traces.jsonl"
GENESIS = "0" * 64

_Step: TypeAlias = tuple[Callable[[Any], Callable[[Any], Any]], Any]

_OWN_KEYS = ("ops.seq", "ops.prev_sha256", "ops.crc32", "ops.latency_ns")

# What changes from packet to packet of one shape: removing it cannot break up a word that gives a secret away.
_NUMBER_BYTES = b"0123456789-+"
_MAX_SHAPES = 1024
_MAX_SHAPE_BYTES = 1 << 14
_MAX_NONES = 64
# Strings that stand for floats have to be told apart from real ones.
_SHAPE_TRIGGERS = (*TRIGGERS, 'nan"', 'infinity"')


class _Hashed(msgspec.Struct, gc=False):
    """The packet's part of `H`; `external` is last, so that the chain's own keys can follow it."""

    schema_version: str
    run_id: str
    step: int
    input: Any
    mdm: Any
    final_action: Any
    mismatch: Any
    external: Any


class LineEncoder:
    """Turns packets into lines and carries the hash chain on.

    A packet is encoded once. Whether it holds secrets or non-finite floats (which JSON would turn into null) is looked
    up by its shape, that is, by its encoded bytes without their digits; only an unknown shape is walked through. The
    nulls of a known shape are checked to be None, each one.

    Parameters
    ----------
    seq : int
        Number of the next line.
    prev_sha256 : str
        Hash of the last line's `H`.
    """

    def __init__(self, seq: int = 0, prev_sha256: str = GENESIS) -> None:
        self.seq = seq
        self.prev_sha256 = prev_sha256
        self._scrubber = JsonScrubber()
        self._hook_scrubber = JsonScrubber()
        encoder = msgspec.json.Encoder(enc_hook=self._to_plain)
        self._encode = encoder.encode
        self._encode_into = encoder.encode_into
        self._line = bytearray()
        self._shapes: dict[bytes, _Nones] = {}

    def encode(self, packet: Any, latency_ns: Any) -> bytearray:
        """Return the packet's line. The buffer is the encoder's own and is overwritten by the next call.

        Raises
        ------
        TraceError
            When the packet holds what JSON cannot; the chain is where it was before.
        """
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
        try:
            self._encode_into(record, line)
            shape = bytes(line).translate(None, _NUMBER_BYTES)
            nones = self._shapes.get(shape)
            if nones is None or not nones.are_in(record):
                self._look_through(record, line, shape)
            tail = b'},"latency_ms":%b}\n' % self._encode(packet.latency_ms)
            latency = self._encode(latency_ns) if latency_ns else b"{}"
        except (TypeError, ValueError, OverflowError, RecursionError, NotImplementedError) as error:
            raise self._unwritable(packet, error) from None
        if not line.endswith(b"}}") or not latency.startswith(b"{") or b"ops.crc32" in latency:
            raise TraceError(f"packet of step {packet.step}: `external` and `latency_ns` must be mappings of their own")
        # The closing braces of `external` and of the packet go to the end of the line.
        comma = b"" if line.endswith(b"{}}") else b","
        line[-2:] = b'%b"ops.seq":%d,"ops.prev_sha256":"%b"' % (comma, self.seq, self.prev_sha256.encode())
        self.prev_sha256 = sha256(line).hexdigest()
        self.seq += 1
        line += b',"ops.crc32":%d,"ops.latency_ns":%b%b' % (crc32(line), latency, tail)
        return line

    def _look_through(self, record: _Hashed, line: bytearray, shape: bytes) -> None:
        """Walk through a packet and encode it anew when it is not clean, or else remember its shape."""
        scrubbed = self._scrubber.clean(record)
        if _holds_own_keys(scrubbed.external):
            # A packet that was read from another trace: its place in that one is no place in this one.
            external = {key: item for key, item in scrubbed.external.items() if key not in _OWN_KEYS}
            scrubbed = msgspec.structs.replace(scrubbed, external=external)
        if scrubbed is not record:
            self._encode_into(scrubbed, line)
        elif not self._scrubber.saw_bytes:
            self._learn(record, shape)

    def _learn(self, record: _Hashed, shape: bytes) -> None:
        """Remember the shape of a clean packet, when every packet that has this shape must be clean."""
        if len(shape) > _MAX_SHAPE_BYTES:
            return
        text = shape.decode().lower()
        if any(trigger in text for trigger in _SHAPE_TRIGGERS):
            return
        nones: list[tuple[_Step, ...]] = []
        _find_nones(record, (), nones)
        # Invariant: equal shapes hold equally many nulls, so that when all known Nones are there, no null is a float.
        if len(nones) > _MAX_NONES or shape.count(b"null") != len(nones):
            return
        if len(self._shapes) >= _MAX_SHAPES:
            self._shapes.clear()
        self._shapes[shape] = _Nones(nones)

    def _to_plain(self, value: Any) -> Any:
        return self._hook_scrubber.clean(to_plain(value))

    def _unwritable(self, packet: Any, error: Exception) -> TraceError:
        # The error's own text may quote the packet; what msgspec says of types does not.
        reason = str(error) if isinstance(error, (TypeError, NotImplementedError)) else type(error).__name__
        return TraceError(f"packet of step {packet.step!r} cannot be written as JSON: {reason}")


def _holds_own_keys(external: Any) -> bool:
    return isinstance(external, Mapping) and any(key in external for key in _OWN_KEYS)


class _Nones:
    """Where the Nones of one shape of packet are, and whether another packet has them all."""

    __slots__ = ("_attributes", "_expected", "_paths")

    def __init__(self, found: list[tuple[_Step, ...]]) -> None:
        dotted = [".".join(key for _, key in steps) for steps in found if all(kind is attrgetter for kind, _ in steps)]
        # One getter for all of them takes a fifth of the time. It gives a tuple from two names on.
        self._attributes = attrgetter(*dotted, *dotted[:1]) if dotted else None
        self._expected = (None,) * (len(dotted) + 1)
        self._paths = [
            tuple(kind(key) for kind, key in steps) for steps in found if any(kind is itemgetter for kind, _ in steps)
        ]

    def are_in(self, record: _Hashed) -> bool:
        try:
            if self._attributes is not None and self._attributes(record) != self._expected:
                return False
            for path in self._paths:
                value: Any = record
                for get in path:
                    value = get(value)
                if value is not None:
                    return False
        except (AttributeError, LookupError, TypeError, ValueError):
            # Another layout that looks the same without its digits.
            return False
        return True


def _find_nones(value: Any, steps: tuple[_Step, ...], found: list[tuple[_Step, ...]]) -> None:
    """Add the steps that lead to every None that is certain to be encoded."""
    if value is None:
        found.append(steps)
    elif isinstance(value, msgspec.Struct):
        omits = value.__struct_config__.omit_defaults
        for field in msgspec.structs.fields(value):
            item = getattr(value, field.name)
            if not (omits and item is field.default):
                _find_nones(item, (*steps, (attrgetter, field.name)), found)
    elif isinstance(value, dict):
        for key, item in value.items():
            _find_nones(item, (*steps, (itemgetter, key)), found)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _find_nones(item, (*steps, (itemgetter, index)), found)
