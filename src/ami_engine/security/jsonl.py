"""Lines of JSON that survive crashes: what may stand in one, and a file that only grows by whole lines.

JSON has no NaN or infinity. They are written as the strings "NaN", "Infinity" and "-Infinity"; a real string that reads
like one of these, after any number of leading tildes, gets one tilde more, so that nothing is lost.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ami_engine.errors import TraceError
from ami_engine.security.redaction import Handler, Redactor

if sys.platform != "win32":
    import fcntl

__all__ = ["AppendFile", "JsonScrubber", "restore_floats"]

_FLOAT_FROM_TEXT = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_ENDINGS = ("NaN", "Infinity")
_LOOKS_LIKE_FLOAT_RE = re.compile(r"~*(?:NaN|-?Infinity)")
_READ_BYTES = 1 << 20


class JsonScrubber(Redactor):
    """A redactor that also makes a value fit for JSON: non-finite floats become strings that `restore_floats` reads.

    Attributes
    ----------
    saw_bytes : bool
        True when the last pass met bytes, whose text the encoded line does not show.

    Examples
    --------
    >>> JsonScrubber().clean({"spread_bps": float("nan"), "note": "NaN"})
    {'spread_bps': 'NaN', 'note': '~NaN'}
    """

    def __init__(self) -> None:
        super().__init__()
        self.saw_bytes = False
        self._handlers[float] = self._clean_float

    def clean(self, value: Any) -> Any:
        """Return `value` without secrets and non-finite floats; the same object when it has none."""
        self.saw_bytes = False
        return super().clean(value)

    def _handler_for(self, kind: type) -> Handler | None:
        return self._clean_float if issubclass(kind, float) else super()._handler_for(kind)

    def _clean_float(self, number: float, depth: int) -> float | str:
        if number - number == 0.0:
            return number
        if number != number:
            return "NaN"
        return "Infinity" if number > 0 else "-Infinity"

    def _clean_str(self, text: str, depth: int) -> str:
        if text.endswith(_ENDINGS) and _LOOKS_LIKE_FLOAT_RE.fullmatch(text):
            return "~" + text
        return super()._clean_str(text, depth)

    def _clean_bytes(self, data: bytes | bytearray, depth: int) -> bytes | bytearray:
        self.saw_bytes = True
        return super()._clean_bytes(data, depth)


def restore_floats(value: Any) -> Any:
    """Return a decoded JSON value with the floats and strings that `JsonScrubber` replaced.

    >>> restore_floats({"spread_bps": ["NaN", 1.5], "note": "~NaN"})
    {'spread_bps': [nan, 1.5], 'note': 'NaN'}
    """
    if isinstance(value, str):
        if value.endswith(_ENDINGS):
            if value in _FLOAT_FROM_TEXT:
                return _FLOAT_FROM_TEXT[value]
            if value.startswith("~") and _LOOKS_LIKE_FLOAT_RE.fullmatch(value):
                return value[1:]
        return value
    if isinstance(value, dict):
        return {key: restore_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [restore_floats(item) for item in value]
    return value


def _whole_lines(data: bytes) -> int:
    return data.rfind(b"\n") + 1


class AppendFile:
    """A file that only grows, by whole lines, and belongs to the process that opened it.

    Lines are collected in memory and written by `flush`. When writing fails, what was written of an incomplete line is
    cut off again, so that every reader finds whole lines, and the file takes no more.

    Parameters
    ----------
    path : Path
        The file. Its folder must exist.
    mode : {"new", "overwrite", "append"}
        Whether the file must not exist, is emptied, or is added to.
    whole_bytes : callable
        Takes bytes that begin with a whole record and says how many of them are whole records. Lines by default.

    Raises
    ------
    FileExistsError
        When mode is "new" and the file exists.
    OSError
        When the file cannot be opened.
    """

    def __init__(self, path: Path, mode: str, whole_bytes: Callable[[bytes], int] = _whole_lines) -> None:
        how = {"new": os.O_EXCL, "overwrite": 0, "append": 0}[mode]
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | how | getattr(os, "O_BINARY", 0)
        self.path = path
        self.pending = bytearray()
        self.refusal = ""
        self._whole_bytes = whole_bytes
        self._fd = os.open(path, flags, 0o644)
        _lock(self._fd, path)
        if mode == "overwrite":
            # Not by a flag of `open`: another process's file must not be emptied before it is found to be in use.
            os.ftruncate(self._fd, 0)
        self._size = os.fstat(self._fd).st_size
        _open_files.add(self)

    def cut_torn_line(self) -> int:
        """Cut off a last line that a crash left without its end; return how many bytes were cut."""
        end = self._size
        with self.path.open("rb") as file:
            while end > 0:
                start = max(0, end - _READ_BYTES)
                file.seek(start)
                newline = file.read(end - start).rfind(b"\n")
                if newline >= 0:
                    end = start + newline + 1
                    break
                end = start
        return self.cut_to(end)

    def cut_to(self, size: int) -> int:
        """Cut off what stands after the first `size` bytes; return how many bytes were cut."""
        cut = self._size - size
        if cut:
            os.ftruncate(self._fd, size)
            self._size = size
        return cut

    @property
    def size(self) -> int:
        """Bytes that were handed to the operating system."""
        return self._size

    def flush(self) -> None:
        """Hand every pending line to the operating system.

        Raises
        ------
        TraceError
            When the file takes no more: the disk is full, a limit is reached, the file was closed, or this is a forked
            child of the process that opened it.
        """
        with memoryview(self.pending) as pending:
            self._hand_over(pending)
        self.pending.clear()

    def append(self, lines: memoryview) -> None:
        """Hand whole lines to the operating system, those that are pending first. Nothing is kept of `lines`.

        Raises
        ------
        TraceError
            As `flush` does.
        """
        if self.pending:
            self.flush()
        self._hand_over(lines)

    def _hand_over(self, lines: memoryview) -> None:
        if self.refusal:
            raise TraceError(f"{self.path}: {self.refusal}")
        written = 0
        try:
            while written < len(lines):
                with lines[written:] as rest:
                    written += os.write(self._fd, rest)
        except OSError as error:
            self._give_up(error, bytes(lines[:written]))
            raise TraceError(f"{self.path}: {self.refusal}") from error
        self._size += written

    def sync(self) -> None:
        """Flush, and wait until the lines are on the disk."""
        self.flush()
        try:
            os.fsync(self._fd)
        except OSError as error:
            # Devices and pipes cannot be synced, and need not be.
            if error.errno not in _CANNOT_SYNC:
                self.refusal = f"cannot be synced to disk: {error.strerror}"
                raise TraceError(f"{self.path}: {self.refusal}") from error

    def close(self) -> None:
        """Write what is pending, sync and close. Closing again does nothing."""
        if self._fd < 0:
            return
        try:
            if not self.refusal:
                self.sync()
        finally:
            os.close(self._fd)
            self._fd = -1
            self.refusal = self.refusal or "is closed"
            self.pending.clear()

    def _give_up(self, error: OSError, written: bytes) -> None:
        whole = self._whole_bytes(written)
        self.refusal = f"cannot be written: {error.strerror}"
        try:
            os.ftruncate(self._fd, self._size + whole)
        except OSError:
            # Not a regular file: there is nothing to cut.
            return
        self._size += whole

    def _disown(self) -> None:
        self.refusal = "belongs to the process that opened it, not to its forked child"
        self.pending.clear()


_CANNOT_SYNC = frozenset({errno.EINVAL, errno.EOPNOTSUPP, getattr(errno, "ENOTSUP", errno.EINVAL)})
_open_files: weakref.WeakSet[AppendFile] = weakref.WeakSet()


def _lock(fd: int, path: Path) -> None:
    """Make the file this process's own, for as long as it is open; where the system has no such locks, it is not."""
    if sys.platform != "win32":
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise OSError(errno.EBUSY, "in use by another run", str(path)) from None


def _disown_in_child() -> None:
    for file in list(_open_files):
        file._disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_in_child)
