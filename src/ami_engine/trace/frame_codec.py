"""A binary trace's packets: msgpack, with the names of a struct's fields said once.

The hashed part of a packet's frame is its number (8 bytes), the SHA-256 of the packet before it (32 bytes), and an
array of the packet's parts. A struct is written as the array of its values behind the id of its layout: the first 8
bytes of the SHA-256 of the layout's own frame. So the chain covers the names too, wherever the layout stands.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Any
from zlib import crc32

import msgspec

from ami_engine.errors import TraceError
from ami_engine.plain_values import to_plain
from ami_engine.security.jsonl import JsonScrubber
from ami_engine.security.redaction import Redactor
from ami_engine.trace.clean_check import OWN_KEYS, CleanCheck, fields_of
from ami_engine.trace.frames import LAYOUT, PACKET, Frame, FrameError, frame
from ami_engine.trace.line_codec import GENESIS, unwritable
from ami_engine.trace.packet_writer import PacketWriter, StepTypes
from decision_schema.packet_v2 import PacketV2

__all__ = ["FrameDecoder", "FrameEncoder"]

_PLACE = struct.Struct("<Q32s")
_ID_BYTES = 8
# Parts of a packet, in their order in the array; the bit of a part says that it is packed.
_INPUT, _MDM, _FINAL, _MISMATCH, _FIRST_FIELD = 1, 2, 4, 8, 16
# A default that every holder of it shares: only of these can a reader know that they were left out.
_SHARED_DEFAULTS = (None, False, True, 0, "", ())


class _Layout(msgspec.Struct, array_like=True):
    """The field names of a struct; `omitted` are the defaults of those that JSON leaves out, by their place."""

    names: list[str]
    omitted: dict[int, Any]


class _Record(msgspec.Struct, gc=False):
    schema_version: str
    run_id: str
    step: int
    input: Any
    mdm: Any
    final_action: Any
    mismatch: Any
    external: dict[str, Any]


class FrameEncoder:
    """Turns packets into frames and carries the hash chain on. A frame of a new layout goes before its first packet.

    Parameters
    ----------
    seq : int
        Number of the next packet.
    prev_sha256 : str
        Hash of the last packet's hashed part, hex.
    """

    def __init__(self, seq: int = 0, prev_sha256: str = GENESIS) -> None:
        # NaN needs no other spelling here, so that the walk only redacts.
        self._redactor = Redactor()
        self._hook_redactor = Redactor()
        self._is_clean = CleanCheck(JsonScrubber())
        self._writer = PacketWriter(self._is_clean)
        self._chain = self._writer.chain("frames", seq, bytes.fromhex(prev_sha256))
        core = self._writer.core
        self._knows: Callable[[Any], bool] = core.knows if core is not None else _knows_nothing
        encoder = msgspec.msgpack.Encoder(enc_hook=self._to_plain)
        self._encode = encoder.encode
        self._encode_into = encoder.encode_into
        self._buffer = bytearray(_PLACE.size)
        self._ids: dict[type, bytes] = {}
        self._nested: dict[type, tuple[int, ...]] = {}
        self._layouts = b""
        self._new_layouts = b""

    @property
    def seq(self) -> int:
        """Number of the next packet."""
        return self._chain.seq  # type: ignore[no-any-return]

    @property
    def prev_sha256(self) -> str:
        """Hash of the last packet's hashed part, hex."""
        return self._chain.prev.hex()  # type: ignore[no-any-return]

    def layouts(self) -> bytes:
        """Return the frames of every layout so far: what a further file begins with, to be readable by itself."""
        return self._layouts

    def encode(self, packet: Any, latency_ns: Any) -> bytes:
        """Return the packet's frame, after those of layouts that it is the first to use.

        Raises
        ------
        TraceError
            When the packet holds what msgpack cannot; the chain is where it was before.
        """
        external = packet.external
        record = _Record(
            packet.schema_version,
            packet.run_id,
            packet.step,
            packet.input,
            packet.mdm,
            packet.final_action,
            packet.mismatch,
            {} if external is None else external,
        )
        hashed = self._buffer
        try:
            if not isinstance(record.external, Mapping) or not isinstance(latency_ns or {}, Mapping):
                raise TraceError(f"packet of step {packet.step}: `external` and `latency_ns` must be mappings")
            # Encoded first: what contains itself is refused before anything walks through it.
            self._encode_into(self._pack(record), hashed, _PLACE.size)
            if self._knows(packet):
                pass
            elif not self._is_clean(record):
                record = self._redactor.clean(record)
                own = {key: item for key, item in record.external.items() if key not in OWN_KEYS}
                self._encode_into(self._pack(msgspec.structs.replace(record, external=own)), hashed, _PLACE.size)
            # A type's layout is known from its first packet on, whatever else was in that.
            self._writer.announce(self._ids)
            tail = self._encode((latency_ns or {}, packet.latency_ms))
        except (TypeError, ValueError, OverflowError, RecursionError, NotImplementedError) as error:
            raise unwritable(packet, error) from None
        chain = self._chain
        _PLACE.pack_into(hashed, 0, chain.seq, chain.prev)
        chain.prev = sha256(hashed).digest()
        chain.seq += 1
        framed = frame(PACKET, hashed, tail)
        if self._new_layouts:
            framed, self._new_layouts = self._new_layouts + framed, b""
        return framed

    def begin_steps(self, types: StepTypes, run_id: str) -> Any:
        """Return the compiled core, ready to log steps; None when every packet must be encoded as such."""
        return self._writer.begin_steps(self._chain, types, run_id)

    def expect(self, types: Iterable[type], texts: Iterable[str], keys: Iterable[str]) -> None:
        """Look at what packets will be made of before the first one comes. A layout waits for its first packet."""
        self._writer.expect(types, texts, keys)

    def _pack(self, record: _Record) -> tuple[Any, ...]:
        ids = self._ids
        bits = 0
        source, mdm, final, mismatch = record.input, record.mdm, record.final_action, record.mismatch
        if (layout := ids.get(type(source)) or self._learn(type(source))) != b"":
            values: list[Any] = [layout, *msgspec.structs.astuple(source)]
            bits = _INPUT
            for place in self._nested[type(source)]:
                value = values[place]
                if (layout := ids.get(type(value)) or self._learn(type(value))) != b"":
                    values[place] = (layout, *msgspec.structs.astuple(value))
                    bits |= _FIRST_FIELD << (place - 1)
            source = values
        if (layout := ids.get(type(mdm)) or self._learn(type(mdm))) != b"":
            mdm, bits = (layout, *msgspec.structs.astuple(mdm)), bits | _MDM
        if (layout := ids.get(type(final)) or self._learn(type(final))) != b"":
            final, bits = (layout, *msgspec.structs.astuple(final)), bits | _FINAL
        if mismatch is not None and (layout := ids.get(type(mismatch)) or self._learn(type(mismatch))) != b"":
            mismatch, bits = (layout, *msgspec.structs.astuple(mismatch)), bits | _MISMATCH
        return (
            bits,
            record.schema_version,
            record.run_id,
            record.step,
            source,
            mdm,
            final,
            mismatch,
            record.external,
        )

    def _learn(self, kind: type) -> bytes:
        """Return the id of a type's layout; empty for one that is written as msgpack has it."""
        if kind not in self._ids:
            layout = _layout_of(kind)
            self._ids[kind] = b""
            if layout is not None:
                hashed = msgspec.msgpack.encode(layout)
                self._ids[kind] = sha256(hashed).digest()[:_ID_BYTES]
                framed = frame(LAYOUT, hashed)
                self._layouts += framed
                self._new_layouts += framed
                self._nested[kind] = _nested_places(kind)
        return self._ids[kind]

    def _to_plain(self, value: Any) -> Any:
        return self._hook_redactor.clean(to_plain(value))


def _knows_nothing(packet: Any) -> bool:
    """Stand for a compiled core that is not there."""
    return False


def _layout_of(kind: type) -> _Layout | None:
    """Return the layout of a struct type; None for one whose JSON form is not told by its fields alone."""
    if not issubclass(kind, msgspec.Struct):
        return None
    config, fields = kind.__struct_config__, fields_of(kind)
    if config.tag is not None or config.array_like or any(field.name != field.encode_name for field in fields):
        return None
    omitted: dict[int, Any] = {}
    if config.omit_defaults:
        for place, field in enumerate(fields):
            if field.default_factory is not msgspec.NODEFAULT:
                return None
            if field.default is not msgspec.NODEFAULT:
                if not any(field.default is shared for shared in _SHARED_DEFAULTS):
                    return None
                omitted[place] = field.default
    return _Layout([field.name for field in fields], omitted)


def _nested_places(kind: type) -> tuple[int, ...]:
    """Places in the packed array, from 1 on, of fields that may hold a struct."""
    simple = (int, float, str, bool, float | None, int | None, str | None)
    fields = fields_of(kind)
    return tuple(place for place, field in enumerate(fields, 1) if field.type not in simple)


_decode: Callable[[bytes], Any] = msgspec.msgpack.Decoder().decode
_decode_layout = msgspec.msgpack.Decoder(_Layout).decode
_decode_tail = msgspec.msgpack.Decoder(tuple[dict[str, int | float], Any]).decode


class FrameDecoder:
    """Reads packets and their places out of frames; remembers the layouts that it meets."""

    def __init__(self) -> None:
        self._layouts: dict[bytes, _Layout] = {}

    def check(self, found: Frame) -> tuple[int, bytes] | None:
        """Return the number and the previous hash that a frame says; None for a layout, which it learns.

        Raises
        ------
        FrameError
            When the frame was changed, or its parts are not what they must be.
        """
        if crc32(found.hashed) != found.crc:
            raise FrameError("bad_crc", f"says {found.crc}, is {crc32(found.hashed)}")
        try:
            if found.kind == LAYOUT:
                self._layouts[sha256(found.hashed).digest()[:_ID_BYTES]] = _decode_layout(found.hashed)
                return None
            self._parts(found)
            if not isinstance(_decode_tail(found.tail)[1], int | float | None):
                raise TypeError("the latency must be a number")
            seq, prev = _PLACE.unpack_from(found.hashed)
        except (ValueError, TypeError, LookupError, struct.error) as error:
            raise FrameError("not_a_packet", f"the frame holds no packet: {type(error).__name__}") from None
        return seq, prev

    def packet(self, found: Frame) -> PacketV2 | None:
        """Return the packet of a frame, with its place in `external`; None for a layout, which it learns.

        Raises
        ------
        FrameError
            When the frame was changed or holds no packet.
        """
        place = self.check(found)
        if place is None:
            return None
        latency_ns, latency_ms = _decode_tail(found.tail)
        parts = self._parts(found)
        parts["external"] = {
            **parts["external"],
            "ops.seq": place[0],
            "ops.prev_sha256": place[1].hex(),
            "ops.crc32": found.crc,
            "ops.latency_ns": latency_ns,
        }
        return PacketV2(latency_ms=latency_ms, **parts)

    def _parts(self, found: Frame) -> dict[str, Any]:
        bits, version, run_id, step, source, mdm, final, mismatch, external = _decode(found.hashed[_PLACE.size :])
        if not isinstance(bits, int) or not isinstance(external, dict):
            raise TypeError("the parts of a packet are not in their places")
        if bits & _INPUT:
            for place in range(1, len(source)):
                if bits & (_FIRST_FIELD << (place - 1)):
                    source[place] = self._unpack(source[place])
            source = self._unpack(source)
        return {
            "schema_version": version,
            "run_id": run_id,
            "step": step,
            "input": source,
            "mdm": self._unpack(mdm) if bits & _MDM else mdm,
            "final_action": self._unpack(final) if bits & _FINAL else final,
            "mismatch": self._unpack(mismatch) if bits & _MISMATCH else mismatch,
            "external": external,
        }

    def _unpack(self, packed: list[Any]) -> dict[str, Any]:
        layout = self._layouts[packed[0]]
        named = dict(zip(layout.names, packed[1:], strict=True))
        for place, default in layout.omitted.items():
            value = packed[place + 1]
            if type(value) is type(default) and value == default:
                del named[layout.names[place]]
        return named
