"""Whether a zstd stream is whole, told from its frame headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ami_engine.adapters.zstd_frame import ZstdFrameWalker

MAGIC = bytes.fromhex("28b52ffd")


def block(kind: int, size: int, *, is_last: bool) -> bytes:
    content = b"\x55" * (1 if kind == 1 else size)
    return (size << 3 | kind << 1 | is_last).to_bytes(3, "little") + content


def frame(descriptor: int, header_rest: int, *blocks: bytes, checksum: bytes = b"") -> bytes:
    return MAGIC + bytes([descriptor]) + bytes(header_rest) + b"".join(blocks) + checksum


RAW_LAST = block(0, 700, is_last=True)
# Descriptor bits: content size flag (7-6), single segment (5), checksum (2), dictionary id (1-0).
FRAMES = [
    frame(0x00, 1, RAW_LAST),
    frame(0x20, 1, RAW_LAST),
    frame(0x04, 1, RAW_LAST, checksum=bytes(4)),
    frame(0x43, 1 + 4 + 2, RAW_LAST),
    frame(0x81, 1 + 1 + 4, block(1, 90_000, is_last=False), RAW_LAST),
    frame(0xE2, 2 + 8, block(2, 300, is_last=False), block(1, 5, is_last=True)),
    bytes.fromhex("502a4d18") + (9).to_bytes(4, "little") + bytes(9),
]


def is_complete(chunks: list[bytes]) -> bool:
    walker = ZstdFrameWalker()
    for chunk in chunks:
        walker.feed(chunk)
    return walker.is_complete


@pytest.mark.parametrize("data", FRAMES)
def test_a_whole_frame_is_whole_and_every_cut_of_it_is_not(data: bytes) -> None:
    assert is_complete([data])
    assert not any(is_complete([data[:end]]) for end in range(1, len(data)))


@given(st.lists(st.sampled_from(FRAMES), min_size=1, max_size=4), st.integers(1, 900))
def test_frames_may_follow_each_other_in_chunks_of_any_size(frames: list[bytes], size: int) -> None:
    data = b"".join(frames)
    assert is_complete([data[start : start + size] for start in range(0, len(data), size)])


def test_refuses_what_is_no_frame() -> None:
    with pytest.raises(ValueError, match="no zstd frame"):
        ZstdFrameWalker().feed(b"hello, world")
