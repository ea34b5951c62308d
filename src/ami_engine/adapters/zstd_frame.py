"""Walks the frames of a zstd stream without decompressing it, to know whether the last one is whole (RFC 8878, §3)."""

from __future__ import annotations

__all__ = ["ZstdFrameWalker"]

_FRAME_MAGIC = 0xFD2FB528
_SKIPPABLE_MAGIC = range(0x184D2A50, 0x184D2A60)
_RLE_BLOCK = 1
_CHECKSUM_BYTES = 4


class ZstdFrameWalker:
    """Follows frame and block headers over the chunks of a stream. A decoder that is fed chunks does not say, at their
    end, whether it waits for more: a file cut between two blocks would pass for a whole one.

    Examples
    --------
    >>> empty_frame = bytes.fromhex("28b52ffd 00 00 010000")
    >>> walker = ZstdFrameWalker()
    >>> walker.feed(empty_frame[:-1]); walker.is_complete
    False
    >>> walker.feed(empty_frame[-1:]); walker.is_complete
    True
    """

    def __init__(self) -> None:
        self._head = b""
        self._to_skip = 0
        self._is_in_frame = False
        self._has_checksum = False

    @property
    def is_complete(self) -> bool:
        """True when every frame that began has ended."""
        return not (self._is_in_frame or self._to_skip or self._head)

    def feed(self, chunk: bytes) -> None:
        """Follow the next bytes of the stream; ValueError when they are no zstd stream."""
        at = 0
        while at < len(chunk):
            if self._to_skip:
                step = min(self._to_skip, len(chunk) - at)
                self._to_skip -= step
                at += step
                continue
            needed = self._header_size() - len(self._head)
            self._head += chunk[at : at + needed]
            at += needed
            if len(self._head) >= self._header_size():
                self._take_header()

    def _header_size(self) -> int:
        """Return how many bytes must be there before the header at hand can be read; it grows as they say more."""
        if self._is_in_frame:
            return 3
        if len(self._head) < 5:
            return 5
        if int.from_bytes(self._head[:4], "little") in _SKIPPABLE_MAGIC:
            return 8
        descriptor = self._head[4]
        is_single_segment = descriptor >> 5 & 1
        content_size = (is_single_segment, 2, 4, 8)[descriptor >> 6]
        return 5 + (1 - is_single_segment) + (0, 1, 2, 4)[descriptor & 3] + content_size

    def _take_header(self) -> None:
        head, self._head = self._head, b""
        if self._is_in_frame:
            self._take_block(int.from_bytes(head, "little"))
            return
        magic = int.from_bytes(head[:4], "little")
        if magic in _SKIPPABLE_MAGIC:
            self._to_skip = int.from_bytes(head[4:8], "little")
        elif magic == _FRAME_MAGIC:
            self._is_in_frame = True
            self._has_checksum = bool(head[4] >> 2 & 1)
        else:
            raise ValueError("no zstd frame begins here")

    def _take_block(self, header: int) -> None:
        is_last, kind, size = header & 1, header >> 1 & 3, header >> 3
        self._to_skip = 1 if kind == _RLE_BLOCK else size
        if is_last:
            self._is_in_frame = False
            self._to_skip += _CHECKSUM_BYTES * self._has_checksum
