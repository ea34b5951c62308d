"""The core's own CRC-32 and SHA-256 are those of zlib and hashlib, with the processor's help and without."""

from __future__ import annotations

import zlib
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

_core = pytest.importorskip("ami_engine._core")


@given(st.binary(max_size=700), st.integers(0, 12))
def test_checksums_are_those_of_the_standard_library(data: bytes, times: int) -> None:
    data *= times
    for portable in (False, True):
        assert _core.crc32(data, portable) == zlib.crc32(data)
        assert _core.sha256(data, portable) == sha256(data).digest()


def test_texts_of_every_length_around_a_block_have_the_right_end() -> None:
    data = bytes(range(256)) * 2
    for size in range(len(data)):
        for portable in (False, True):
            assert _core.crc32(data[:size], portable) == zlib.crc32(data[:size])
            assert _core.sha256(data[:size], portable) == sha256(data[:size]).digest()
