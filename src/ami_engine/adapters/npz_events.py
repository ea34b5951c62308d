"""Events as columns in a NumPy .npz file: written and read in bounded memory, lossless for market events."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ami_engine.adapters.byte_stream import open_for_reading
from ami_engine.adapters.event_file import EventFile, decode_event_file, encode_event_file
from ami_engine.adapters.feed_reader import FeedReader
from ami_engine.adapters.npy_stream import NpyStream, first_line
from ami_engine.errors import ConfigError, EventError
from ami_engine.events import Bar, BookDelta, BookSnapshot, BookTicker, FeedGap, MarketEvent, Trade
from ami_engine.units import Instrument

__all__ = ["ABOUT", "NpzEventReader", "NpzWriter"]

ABOUT = "ami_events"

_BLOCK_EVENTS = 8_192
# The place of a kind is its code in the file: never change the order, only add.
_KINDS: tuple[type[Any], ...] = (BookSnapshot, BookDelta, BookTicker, Trade, Bar, FeedGap)
_CODES = {kind: code for code, kind in enumerate(_KINDS)}
_NAMES = ("symbol", "reason")  # texts, as numbers into a list of them
_LEVELS = ("bids", "asks")
_WHOLE = ("exch_ts_ns", "recv_ts_ns", "seq", "first_seq", "prev_seq", "expected_seq", "aggressor")
_NUMBERS = (
    *("bid", "ask", "bid_depth", "ask_depth", "bid_size", "ask_size", "price", "size"),
    *("open", "high", "low", "close", "volume"),
)
_DTYPES: Mapping[str, str] = {
    "kind": "<i1",
    **dict.fromkeys(_NAMES, "<i4"),
    **dict.fromkeys(_WHOLE, "<i8"),
    **dict.fromkeys(_NUMBERS, "<f8"),
    **{f"{side}_end": "<i8" for side in _LEVELS},
}


class NpzWriter:
    """One event an entry of every column, 0 where it has no such field.

    ``bids`` and ``asks`` hold the levels of all books one after the other, and ``bids_end`` and ``asks_end`` where
    those of an event end. Columns grow in files beside `path` until their length is known.
    """

    def __init__(self, path: Path, about: EventFile) -> None:
        self._path = path
        self._about = about
        self._columns: dict[str, IO[bytes]] = {}
        path.open("wb").close()  # a path that cannot be written is told before the work, not after it
        for name in (*_DTYPES, *_LEVELS):
            self._columns[name] = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 - closed by `close`
        self._block: dict[str, list[Any]] = {name: [] for name in (*_DTYPES, *_LEVELS)}
        self._names: dict[str, dict[str, int]] = {name: {} for name in _NAMES}
        self._ends = dict.fromkeys(_LEVELS, 0)
        self._events = 0

    def write(self, event: MarketEvent) -> bool:
        code = _CODES.get(type(event))
        if code is None:
            return False
        block = self._block
        block["kind"].append(code)
        for name in _NAMES:
            known = self._names[name]
            block[name].append(known.setdefault(getattr(event, name, ""), len(known)))
        for name in (*_WHOLE, *_NUMBERS):
            block[name].append(getattr(event, name, 0))
        for side in _LEVELS:
            levels = getattr(event, side, ())
            block[side].extend((float(price), float(size)) for price, size in levels)
            self._ends[side] += len(levels)
            block[f"{side}_end"].append(self._ends[side])
        self._events += 1
        if self._events % _BLOCK_EVENTS == 0:
            self._flush()
        return True

    def close(self) -> None:
        try:
            self._flush()
            self._pack()
        finally:
            for column in self._columns.values():
                column.close()

    def _flush(self) -> None:
        for name, values in self._block.items():
            self._columns[name].write(np.array(values, dtype=_DTYPES.get(name, "<f8")).tobytes())
            self._block[name] = []

    def _pack(self) -> None:
        """Put the columns into the archive, each with the header that its length makes possible."""
        with zipfile.ZipFile(self._path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            about = np.frombuffer(encode_event_file(self._about), dtype=np.uint8)
            extra = {ABOUT: about, **{f"{name}s": _texts(self._names[name]) for name in _NAMES}}
            for name, array in extra.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
            for name, column in self._columns.items():
                is_levels = name in _LEVELS
                shape = (self._ends[name], 2) if is_levels else (self._events,)
                header = {"descr": _DTYPES.get(name, "<f8"), "fortran_order": False, "shape": shape}
                column.seek(0)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array_header_1_0(member, header)
                    shutil.copyfileobj(column, member)


class NpzEventReader(FeedReader):
    """Read what `NpzWriter` wrote, block by block.

    Parameters
    ----------
    path : str or Path
        The file.
    symbol : str, optional
        Only this symbol is read.
    instruments : Mapping, optional
        What is declared of the instruments, in place of what the file says.

    Raises
    ------
    ConfigError
        When the file cannot be read or was not written by us.
    """

    def __init__(
        self, path: str | Path, *, symbol: str | None = None, instruments: Mapping[str, Instrument] | None = None
    ) -> None:
        path = open_for_reading(path)
        super().__init__(path, symbol=symbol, instruments=instruments)
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise ConfigError(f"{path}: is not a whole .npz file: {first_line(error)}") from None
        self._columns: dict[str, NpyStream] = {}
        try:
            self._take(decode_event_file(NpyStream.of_member(self._archive, ABOUT).read_all().tobytes()))
            self._texts = {name: NpyStream.of_member(self._archive, f"{name}s").read_all().tolist() for name in _NAMES}
            for name in (*_DTYPES, *_LEVELS):
                self._columns[name] = NpyStream.of_member(self._archive, name)
        except ConfigError as error:
            self._close_file()
            raise ConfigError(f"{path}: {error}") from None
        self._ends = dict.fromkeys(_LEVELS, 0)
        self._position = 0
        self._is_done = False
        self._block: Iterator[MarketEvent] = iter(())

    def next_event(self) -> MarketEvent | None:
        """Return the next event; None at the end. EventError where the file is damaged, which ends it."""
        while True:
            event = next(self._block, None)
            if event is None:
                if self._is_done or not self._read_block():
                    self._check_symbol_was_seen(self._position)
                    return None
                continue
            self._position += 1
            if not self._is_other_symbol(event.symbol):
                return event

    def place(self) -> tuple[str, int]:
        """Return the file's base name and the event last read, from 1."""
        return self.source_name, self._position

    def close(self) -> None:
        """Close the file."""
        self._is_done = True
        self._block = iter(())
        self._close_file()

    def _close_file(self) -> None:
        """Close the columns first: the archive keeps its file open for as long as one of them is."""
        for column in self._columns.values():
            column.close()
        self._archive.close()

    def _read_block(self) -> bool:
        try:
            columns = {name: self._columns[name].read(_BLOCK_EVENTS) for name in _DTYPES}
            levels = {}
            for side in _LEVELS:
                ends = columns[f"{side}_end"]
                count = int(ends[-1]) - self._ends[side] if len(ends) else 0
                levels[side] = self._columns[side].read(count)
            self._check(columns, levels)
        except ConfigError as error:
            self._is_done = True
            raise EventError(
                f"cannot be decoded from here on: {error}", source=self.source_name, position=self._position + 1
            ) from None
        self._is_done = not len(columns["kind"])
        self._block = self._events(columns, levels)
        return not self._is_done

    def _check(self, columns: Mapping[str, npt.NDArray[Any]], levels: Mapping[str, npt.NDArray[Any]]) -> None:
        """Refuse numbers that point nowhere: the file was changed after it was written."""
        limits = {"kind": len(_KINDS), **{name: len(self._texts[name]) for name in _NAMES}}
        limits |= {f"{side}_end": self._ends[side] + len(levels[side]) + 1 for side in _LEVELS}
        for name, limit in limits.items():
            column = columns[name]
            least = self._ends[name.removesuffix("_end")] if name.endswith("_end") else 0
            is_sorted = not name.endswith("_end") or bool((np.diff(column) >= 0).all())
            if len(column) and (column.min() < least or column.max() >= limit or not is_sorted):
                raise ConfigError(f"`{name}` points at what is not there")

    def _events(
        self, columns: Mapping[str, npt.NDArray[Any]], levels: Mapping[str, npt.NDArray[Any]]
    ) -> Iterator[MarketEvent]:
        """Make the events of a block."""
        plain = {name: column.tolist() for name, column in columns.items()}
        for name in _NAMES:
            plain[name] = [self._texts[name][number] for number in plain[name]]
        starts = dict(self._ends)
        for side in _LEVELS:
            if plain[f"{side}_end"]:
                self._ends[side] = plain[f"{side}_end"][-1]
        at = dict.fromkeys(_LEVELS, 0)
        for row, code in enumerate(plain["kind"]):
            kind = _KINDS[code]
            sides = {}
            for side in _LEVELS:
                end = plain[f"{side}_end"][row] - starts[side]
                part = levels[side][at[side] : end]
                at[side] = end
                sides[side] = part if len(part) else ()
            yield kind(**{name: sides[name] if name in sides else plain[name][row] for name in kind.__struct_fields__})


def _texts(known: Mapping[str, int]) -> npt.NDArray[np.str_]:
    return np.array(list(known) or [""], dtype=np.str_)
