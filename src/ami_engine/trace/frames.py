"""How a binary trace is cut into frames.

A frame is a head of 20 bytes, the hashed part, and a tail that is outside the hash. The head holds a mark, the kind,
the version, both lengths, the CRC-32 of the hashed part, and the CRC-32 of itself, so that an end that a crash tore off
can be told from a length that somebody changed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO
from zlib import crc32

import msgspec

__all__ = ["LAYOUT", "PACKET", "Frame", "FrameError", "frame", "read_frames", "whole_frames"]

PACKET, LAYOUT = 1, 2
_MARK = b"\xaeT"
_VERSION = 1
_HEAD = struct.Struct("<2sBBIII")
_CHECK = struct.Struct("<I")
_HEAD_BYTES = _HEAD.size + _CHECK.size

_pack_head = _HEAD.pack
_pack_check = _CHECK.pack


class FrameError(Exception):
    """A frame that cannot be read; carries the reason and the detail, as `Damage` names them."""


class Frame(msgspec.Struct, gc=False):
    """One frame as it stands in the file."""

    kind: int
    hashed: bytes
    tail: bytes
    crc: int


def frame(kind: int, hashed: bytes | bytearray, tail: bytes = b"") -> bytes:
    """Return the bytes of a frame.

    >>> from io import BytesIO
    >>> data = frame(PACKET, b"hashed", b"tail")
    >>> [(found.hashed, found.tail) for found in read_frames(BytesIO(data))]
    [(b'hashed', b'tail')]
    >>> whole_frames(BytesIO(data + data[:25]), len(data) + 25)
    30
    """
    head = _pack_head(_MARK, kind, _VERSION, len(hashed), len(tail), crc32(hashed))
    return b"".join((head, _pack_check(crc32(head)), hashed, tail))


def read_frames(file: BinaryIO) -> Iterator[Frame]:
    """Yield the frames of a file; their CRC is not compared here.

    Raises
    ------
    FrameError
        At a frame that is none, or is not whole.
    """
    while head := file.read(_HEAD_BYTES):
        kind, hashed_bytes, tail_bytes, crc = _parse_head(head)
        body = file.read(hashed_bytes + tail_bytes)
        if len(body) < hashed_bytes + tail_bytes:
            raise FrameError("torn_line", TORN)
        yield Frame(kind, body[:hashed_bytes], body[hashed_bytes:], crc)


TORN = "the last packet has no end: writing stopped in the middle of it"


def _parse_head(head: bytes) -> tuple[int, int, int, int]:
    if len(head) < _HEAD_BYTES:
        raise FrameError("torn_line", TORN)
    mark, kind, version, hashed_bytes, tail_bytes, crc = _HEAD.unpack_from(head)
    if mark != _MARK or _CHECK.unpack_from(head, _HEAD.size)[0] != crc32(head[: _HEAD.size]):
        raise FrameError("not_a_packet", "no frame begins here")
    if version != _VERSION or kind not in (PACKET, LAYOUT):
        raise FrameError("not_a_packet", f"a frame of kind {kind} and version {version} is not known")
    return kind, hashed_bytes, tail_bytes, crc


def whole_frames(file: BinaryIO, size: int) -> int:
    """Return where the last whole frame of the first `size` bytes ends; what is damaged in its middle counts as whole.

    Only an end that is certain to be torn is left out: fewer bytes than a head, or a sound head whose frame is longer
    than what is left.
    """
    end = 0
    while end < size:
        file.seek(end)
        head = file.read(min(_HEAD_BYTES, size - end))
        try:
            _, hashed_bytes, tail_bytes, _ = _parse_head(head)
        except FrameError as error:
            return end if error.args[0] == "torn_line" else size
        after = end + _HEAD_BYTES + hashed_bytes + tail_bytes
        if after > size:
            return end
        end = after
    return end
