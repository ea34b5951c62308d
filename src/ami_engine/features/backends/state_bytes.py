"""The envelope of the Python backends' saved state: which backend, schema and parameters, and a checksum."""

from __future__ import annotations

import hashlib
import struct
import zlib

import msgspec

from ami_engine.features.feature_config import FeatureConfig
from ami_engine.features.schema import SCHEMA_HASH

__all__ = ["seal", "unseal"]

_VERSION = 4
_HEADER = struct.Struct("<4sH10s16s16sI")  # magic, version, backend, schema, parameters, CRC-32 of the state
_MAGIC = b"AMIF"


def _fingerprint(config: FeatureConfig) -> bytes:
    return hashlib.sha256(msgspec.json.encode(config)).digest()[:16]


def seal(backend: str, config: FeatureConfig, state: bytes) -> bytes:
    """Return the state in its envelope."""
    name = backend.encode().ljust(10, b"\0")
    return _HEADER.pack(_MAGIC, _VERSION, name, SCHEMA_HASH.encode(), _fingerprint(config), zlib.crc32(state)) + state


def unseal(backend: str, config: FeatureConfig, data: bytes) -> bytes:
    """Return the state in the envelope; ValueError when it is damaged or of another backend, version or config."""
    if len(data) < _HEADER.size or data[:4] != _MAGIC:
        raise ValueError("the snapshot is damaged or no feature snapshot")
    _, version, name, schema, fingerprint, checksum = _HEADER.unpack_from(data)
    state = data[_HEADER.size :]
    if version != _VERSION:
        raise ValueError(f"the snapshot must be of version {_VERSION}, was {version}")
    if name.rstrip(b"\0") != backend.encode():
        raise ValueError(
            f"the snapshot must be of the backend {backend}, was {name.rstrip(bytes(1)).decode('latin-1')}"
        )
    if schema != SCHEMA_HASH.encode():
        raise ValueError("the snapshot was taken with another feature schema")
    if fingerprint != _fingerprint(config):
        raise ValueError("the snapshot was taken with another FeatureConfig")
    if zlib.crc32(state) != checksum:
        raise ValueError("the snapshot is damaged: its checksum does not match")
    return state
