"""Checkpoints of the plain books: the core's layout, so that either reads what the other wrote."""

from __future__ import annotations

import struct
import zlib

__all__ = ["DAMAGED", "seal", "unseal"]

DAMAGED = "checkpoint of the book is damaged"


def seal(body: bytes) -> bytes:
    """Return a checkpoint's bytes with their checksum."""
    return body + struct.pack("<Q", zlib.crc32(body))


def unseal(data: bytes, magic: bytes) -> bytes:
    """Return the checked bytes of a checkpoint, without the checksum; ValueError when they are not whole."""
    if len(data) < 16 or data[:8] != magic:
        raise ValueError("checkpoint is not one of this kind of book, or of another version")
    body = data[:-8]
    if struct.unpack("<Q", data[-8:])[0] != zlib.crc32(body):
        raise ValueError(DAMAGED)
    return body
