"""NumPy arrays in .npy files and .npz members, read a part at a time: a compressed day fits no memory."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ami_engine.errors import ConfigError

__all__ = ["NpyStream", "first_line", "members"]

_DAMAGE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError)


class NpyStream:
    """One array, from its first entry to its last.

    Parameters
    ----------
    file : binary file
        Stands at the beginning of the .npy data.
    name : str
        What errors call it.

    Attributes
    ----------
    dtype : numpy.dtype
        Of the array; never one of Python objects, which could run code.
    shape : tuple of int
        Of the array.

    Raises
    ------
    ConfigError
        When it is no .npy data, is cut, or holds Python objects.

    Examples
    --------
    >>> import io
    >>> file = io.BytesIO()
    >>> np.save(file, np.arange(5))
    >>> _ = file.seek(0)
    >>> stream = NpyStream(file, "a.npy")
    >>> stream.read(3).tolist(), stream.read(3).tolist(), stream.read(3).tolist()
    ([0, 1, 2], [3, 4], [])
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file = file
        self._name = name
        try:
            version = np.lib.format.read_magic(file)
            if version == (1, 0):
                self.shape, is_fortran, self.dtype = np.lib.format.read_array_header_1_0(file)
            else:
                self.shape, is_fortran, self.dtype = np.lib.format.read_array_header_2_0(file)
        except _DAMAGE as error:
            raise ConfigError(f"`{name}` is no array that can be read: {first_line(error)}") from None
        if self.dtype.hasobject:
            raise ConfigError(f"`{name}` holds Python objects, which are not read: they could run code")
        if is_fortran and len(self.shape) > 1:
            raise ConfigError(f"`{name}` is stored column by column; save it in C order")
        self._archive: zipfile.ZipFile | None = None
        self._left = self.shape[0] if self.shape else 0
        self._row_shape: tuple[int, ...] = tuple(self.shape[1:])

    @classmethod
    def of_member(cls, archive: zipfile.ZipFile, name: str, *, closes: bool = False) -> NpyStream:
        """Open a member of an .npz file, which is closed with it where `closes`; ConfigError when it is not there."""
        try:
            stream = cls(archive.open(f"{name}.npy"), name)
        except KeyError:
            raise ConfigError(f"array `{name}` is not there; there are {', '.join(members(archive))}") from None
        except _DAMAGE as error:
            raise ConfigError(f"array `{name}` cannot be read: {first_line(error)}") from None
        stream._archive = archive if closes else None
        return stream

    def read(self, count: int) -> npt.NDArray[Any]:
        """Return the next entries, at most `count`; an empty array at the end."""
        count = min(count, self._left)
        entry_bytes = self.dtype.itemsize * int(np.prod(self._row_shape, dtype=np.int64))
        wanted = count * entry_bytes
        try:
            data = self._file.read(wanted)
        except _DAMAGE as error:
            raise ConfigError(f"`{self._name}` is damaged: {first_line(error)}") from None
        if len(data) != wanted:
            raise ConfigError(f"`{self._name}` is cut: {wanted - len(data)} bytes are missing")
        self._left -= count
        return np.frombuffer(data, dtype=self.dtype).reshape((count, *self._row_shape))

    def read_all(self) -> npt.NDArray[Any]:
        """Return all that is left, and close the file."""
        try:
            return self.read(self._left)
        finally:
            self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        if self._archive is not None:
            self._archive.close()


def members(archive: zipfile.ZipFile) -> list[str]:
    """Return the names of the arrays in an .npz file."""
    return [Path(name).stem for name in archive.namelist() if name.endswith(".npy")]


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says."""
    return str(error).partition("\n")[0]
