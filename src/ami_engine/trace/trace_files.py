"""The files of a trace: their names, their order, and one store that writes them as one."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Literal

from ami_engine.errors import TraceError
from ami_engine.security.jsonl import AppendFile
from ami_engine.trace.frames import whole_frames

__all__ = ["SUFFIXES", "TraceFormat", "TraceStore", "file_name", "is_binary", "trace_files", "whole_trace_folder"]

TraceFormat = Literal["jsonl", "binary"]
SUFFIXES: dict[TraceFormat, str] = {"jsonl": ".jsonl", "binary": ".bin"}

_NAME_RE = re.compile(r"traces(?:\.([1-9][0-9]*))?\.(?:jsonl|bin)\Z")


def file_name(format: TraceFormat, number: int = 0) -> str:
    """Return the name of a trace's file; the first has no number.

    >>> file_name("jsonl"), file_name("binary", 2)
    ('traces.jsonl', 'traces.2.bin')
    """
    return f"traces.{number}{SUFFIXES[format]}" if number else f"traces{SUFFIXES[format]}"


def is_binary(path: Path) -> bool:
    """Return whether a trace file is binary, by its name."""
    return path.suffix == SUFFIXES["binary"]


def trace_files(path: str | Path) -> list[Path]:
    """Return the files that a path means, in their order: one file, or all files of the trace in a run's folder.

    The first file of a trace stands for all of it. A folder that holds both forms means the JSON lines.
    """
    path = Path(path)
    if not path.is_dir():
        folder = whole_trace_folder(path)
        return (_numbered(folder, path.suffix) if folder is not None and path.is_file() else []) or [path]
    for suffix in SUFFIXES.values():
        found = _numbered(path, suffix)
        if found:
            return found
    return [path / file_name("jsonl")]


def whole_trace_folder(path: str | Path) -> Path | None:
    """Return the folder of a path that stands for all files of a trace; None for a file that is only itself."""
    path = Path(path)
    if path.is_dir():
        return path
    match = _NAME_RE.match(path.name)
    return path.parent if match is not None and match[1] is None else None


def _numbered(folder: Path, suffix: str) -> list[Path]:
    matches = ((_NAME_RE.match(path.name), path) for path in folder.glob(f"traces*{suffix}"))
    return [path for _, path in sorted((int(match[1] or 0), path) for match, path in matches if match is not None)]


class TraceStore:
    """Appends blocks of whole packets to a trace's files, and begins a new file when one is full.

    Parameters
    ----------
    folder : Path
        Where the files are; it is made when absent.
    format : {"jsonl", "binary"}
        Form of the packets.
    mode : {"new", "overwrite", "append"}
        Whether there must be no trace, it is replaced, or continued.
    max_bytes : int
        Size at which the next file is begun; 0 for never. A file holds whole blocks, and at least one.
    max_files : int
        How many files are kept, the oldest are removed; 0 for all.

    Raises
    ------
    FileExistsError
        When mode is "new" and there is a trace, of either form.
    OSError
        When a file cannot be opened or removed.
    """

    def __init__(self, folder: Path, format: TraceFormat, mode: str, *, max_bytes: int = 0, max_files: int = 0) -> None:
        self.folder = folder
        self.path = folder / file_name(format)
        self.preamble: Callable[[], bytes] = bytes
        self._format: TraceFormat = format
        self._max_bytes = max_bytes
        self._max_files = max_files
        folder.mkdir(parents=True, exist_ok=True)
        found = {form: _numbered(folder, suffix) for form, suffix in SUFFIXES.items()}
        if mode == "new" and any(found.values()):
            raise FileExistsError(next(path for paths in found.values() for path in paths))
        if mode == "overwrite":
            _remove([path for paths in found.values() for path in paths if path != self.path])
            found[format] = []
        others = [path for form, paths in found.items() if form != format for path in paths]
        if mode == "append" and others and not found[format]:
            raise TraceError(f"{others[0]}: a trace of another form is there: it cannot be resumed as {format}")
        last = found[format][-1] if found[format] else self.path
        match = _NAME_RE.match(last.name)
        self._number = int(match[1] or 0) if match is not None else 0
        self.file = self._open(last, mode)

    @property
    def removes_files(self) -> bool:
        """Whether the oldest files are removed."""
        return self._max_files > 0

    def files(self) -> list[Path]:
        """Return the files that are there, in their order."""
        return _numbered(self.folder, SUFFIXES[self._format])

    def cut_torn_end(self) -> int:
        """Cut off an end of the last file that a crash left incomplete; return how many bytes were cut."""
        if self._format == "jsonl":
            return self.file.cut_torn_line()
        with self.file.path.open("rb") as file:
            return self.file.cut_to(whole_frames(file, self.file.size))

    def append(self, block: memoryview) -> None:
        """Hand a block of whole packets to the operating system. Nothing is kept of it.

        Raises
        ------
        TraceError
            When the disk takes no more, or the store was closed or belongs to another process.
        """
        file = self.file
        if self._max_bytes and file.size and file.size + len(block) > self._max_bytes and not file.refusal:
            file = self._begin_next()
        file.append(block)

    def sync(self) -> None:
        """Wait until everything is on the disk."""
        self.file.sync()

    def close(self) -> None:
        """Sync and close. Closing again does nothing."""
        self.file.close()

    def _begin_next(self) -> AppendFile:
        full = self.file
        self._number += 1
        path = self.folder / file_name(self._format, self._number)
        try:
            # The next file is there before the full one is closed: at no time does the store look closed.
            self.file = self._open(path, "overwrite")
            full.close()
            if self._max_files and self._number >= self._max_files:
                (self.folder / file_name(self._format, self._number - self._max_files)).unlink(missing_ok=True)
        except OSError as error:
            raise TraceError(f"{path}: cannot be opened: {error.strerror}") from error
        self.file.pending += self.preamble()
        return self.file

    def _open(self, path: Path, mode: str) -> AppendFile:
        if self._format == "jsonl":
            return AppendFile(path, mode)
        return AppendFile(path, mode, whole_bytes=_whole_bytes)


def _remove(paths: list[Path]) -> None:
    """Remove an old trace's files, or none of them when one is in use."""
    held = []
    try:
        for path in paths:
            held.append(AppendFile(path, "append"))
        for path in paths:
            path.unlink()
    finally:
        for file in held:
            file.close()


def _whole_bytes(data: bytes) -> int:
    return whole_frames(BytesIO(data), len(data))
