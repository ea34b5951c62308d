"""Files as lines of bytes: plain or gzip, streamed in bounded memory, with damage reported instead of hidden."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path

from ami_engine.errors import ConfigError, EventError

__all__ = ["LineStream", "file_identity", "open_for_reading"]

_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 1 << 16
_MAX_CHUNK_BYTES = 1 << 18
# The longest line of the recorded captures is 60 kB (a REST snapshot of 1000 levels); a "line" beyond this is no line.
_MAX_LINE_BYTES = 1 << 24
_IDENTITY_BYTES = 1 << 20


def open_for_reading(path: str | Path) -> Path:
    """Return `path` as a readable regular file; ConfigError names it when it is not."""
    path = Path(path)
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None


def file_identity(path: Path) -> str:
    """Name a file's content for a run id: base name, size and a hash of its first MiB; never its folder.

    >>> import tempfile, pathlib
    >>> folder = tempfile.TemporaryDirectory()
    >>> file = pathlib.Path(folder.name, "a.csv")
    >>> _ = file.write_bytes(b"x")
    >>> file_identity(file)[:19]
    'a.csv:1:2d711642b72'
    >>> folder.cleanup()
    """
    with path.open("rb") as file:
        head = hashlib.sha256(file.read(_IDENTITY_BYTES)).hexdigest()
    return f"{path.name}:{path.stat().st_size}:{head}"


class LineStream:
    """The lines of a plain or gzip file, without their line ends; gzip is told by its magic bytes, not by the name.

    `next_line` returns None at the end, for ever. A gzip stream that is cut gives every whole line before the cut, then
    raises `EventError` once, then is at its end. One that is damaged inside may give wrong lines before its error: gzip
    tells only at the end of a member.

    Parameters
    ----------
    path : Path
        The file.

    Attributes
    ----------
    name : str
        The file's base name, which errors carry.
    position : int
        Number of the line last returned, from 1.

    Raises
    ------
    ConfigError
        When the file cannot be read, or is named ``.gz`` and is not gzip.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = open_for_reading(path)
        self.name = self.path.name
        self.position = 0
        self._file = self.path.open("rb")
        magic = self._file.read(2)
        self._file.seek(0)
        self._is_gzip = magic == _GZIP_MAGIC
        if self.name.endswith(".gz") and not self._is_gzip and magic:
            self._file.close()
            raise ConfigError(f"{self.path}: is named .gz but is not a gzip file")
        self._lines: Iterator[bytes] = iter(())
        self._rest = b""
        self._raw = b""
        self._pushed_back: list[bytes] = []
        self._pending: EventError | None = None
        self._inflater = zlib.decompressobj(wbits=31) if self._is_gzip else None
        self._is_done = False

    def next_line(self) -> bytes | None:
        """Return the next line, None at the end; EventError (truncated, malformed) when the stream is damaged."""
        if self._pushed_back:
            self.position += 1
            return self._pushed_back.pop()
        while True:
            line = next(self._lines, None)
            if line is not None:
                self.position += 1
                return line
            if not self._refill():
                return None

    def peek_lines(self, count: int) -> list[bytes]:
        """Return up to `count` lines from here without using them up; damage among them is reported later."""
        start = self.position
        lines: list[bytes] = []
        while len(lines) < count:
            try:
                line = self.next_line()
            except EventError as error:
                self._pending = error
                break
            if line is None:
                break
            lines.append(line)
        self._pushed_back = lines[::-1]
        self.position = start
        return lines

    def close(self) -> None:
        """Close the file; may be called again."""
        self._file.close()
        self._is_done = True
        self._lines = iter(())
        self._pushed_back = []
        self._pending = None

    def _refill(self) -> bool:
        """Split the next chunk into lines; False at the end."""
        if self._pending is not None:
            error, self._pending = self._pending, None
            raise error.at(self.name, self.position + 1)
        if self._is_done:
            return False
        data = self._read_chunk()
        if data is None:
            self._is_done = True
            self._file.close()
            last, self._rest = self._rest, b""
            # What stands before a cut is not a line: only an undamaged file may end without a newline.
            self._lines = iter((last.removesuffix(b"\r"),) if last and self._pending is None else ())
            return bool(last) or self._pending is not None
        text = self._rest + data
        lines = text.split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > _MAX_LINE_BYTES:
            self._give_up_on_endless_line()
        if b"\r" in text:
            lines = [line.removesuffix(b"\r") for line in lines]
        self._lines = iter(lines)
        return True

    def _give_up_on_endless_line(self) -> None:
        self._rest = b""
        self._is_done = True
        self._file.close()
        self._pending = EventError(
            f"a line is longer than {_MAX_LINE_BYTES} bytes: this is not a file of lines; reading stops here",
            reason="malformed",
        )

    def _read_chunk(self) -> bytes | None:
        """Return the next bytes of the text, at most a quarter MiB of gzip; None at the end."""
        if self._inflater is None:
            return self._file.read(_CHUNK_BYTES) or None
        try:
            return self._inflate()
        except zlib.error as error:
            self._damage(f"gzip stream is damaged: {error}", "malformed")
            return None

    def _inflate(self) -> bytes | None:
        """Decompress on, from member to member: rotated captures are concatenated gzip files."""
        assert self._inflater is not None
        while True:
            raw = self._raw or self._file.read(_CHUNK_BYTES)
            if self._inflater.eof:
                if not raw:
                    return None
                raw = raw.lstrip(b"\0")  # block devices pad a member with zeros
                self._raw = b""
                if not raw:
                    continue
                self._inflater = zlib.decompressobj(wbits=31)
            # With no input left the inflater may still hold output that the last call had no room for.
            data = self._inflater.decompress(raw, _MAX_CHUNK_BYTES)
            self._raw = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail
            if data:
                return data
            if not raw and not self._inflater.eof:
                self._damage("gzip stream is cut: the file is not whole", "truncated")
                return None

    def _damage(self, message: str, reason: str) -> None:
        self._pending = EventError(message, reason=reason)
