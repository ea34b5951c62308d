"""What a run did in its markets, in a file of its own: every fill, and every change of its own quotes.

The trace says what was decided and why; a picture needs what became of it. The file grows with fills and quotes, not
with events; nothing of it stays in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from ami_engine.errors import TraceError
from ami_engine.events import Fill
from ami_engine.security.jsonl import AppendFile
from ami_engine.security.redaction import redact_text

__all__ = ["ACTIVITY_FILE_NAME", "NO_QUOTES", "ActivityLog", "FillMark", "QuoteMark", "read_activity"]

ACTIVITY_FILE_NAME = "activity.jsonl"
NO_QUOTES: tuple[float | None, float | None] = (None, None)
_BLOCK_BYTES = 1 << 16
_QUOTE_FIELDS = 2
_SIDES: tuple[Literal["SELL"], Literal["BUY"]] = ("SELL", "BUY")
_LIQUIDITIES: tuple[Literal["TAKER"], Literal["MAKER"]] = ("TAKER", "MAKER")


class FillMark(msgspec.Struct, frozen=True, tag="fill", tag_field="kind"):
    """One fill, and what the account was after it.

    `step` is the number of the decision before which it was booked, `now_ns` the decision clock. `position` is signed
    (base units or contracts), `equity` in the settlement currency, None when it is no number.
    """

    step: int
    now_ns: int
    symbol: str
    side: Literal["BUY", "SELL"]
    liquidity: Literal["MAKER", "TAKER"]
    price: float
    qty: float
    fee: float
    position: float
    equity: float | None


class QuoteMark(msgspec.Struct, frozen=True, tag="quotes", tag_field="kind"):
    """The run's own best resting prices in one market from `now_ns` on; None on a side without an order."""

    step: int
    now_ns: int
    symbol: str
    bid: float | None
    ask: float | None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(FillMark | QuoteMark).decode


class ActivityLog:
    """Appends to ``activity.jsonl``. It never raises after it was opened: a disk that fails ends the log, not the run.

    Parameters
    ----------
    folder : Path
        The run's folder, which must exist.
    is_resumed : bool
        Go on after what the file holds (a last line that a crash tore is cut off), instead of replacing it.

    Attributes
    ----------
    failure : str
        Why nothing more is written; empty while all is well.

    Raises
    ------
    TraceError
        When the file cannot be opened.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     log = ActivityLog(Path(folder))
    ...     log.quotes(3, 1_000, {"X": (0.49, 0.51)})
    ...     log.quotes(4, 2_000, {"X": (0.49, 0.51)})
    ...     log.quotes(5, 3_000, {})
    ...     log.close()
    ...     [(mark.step, mark.bid) for mark in read_activity(folder)]
    [(3, 0.49), (5, None)]
    """

    def __init__(self, folder: Path, *, is_resumed: bool = False) -> None:
        self.failure = ""
        self._shown: dict[str, tuple[float | None, float | None]] = {}
        self._names: dict[str, str] = {}
        path = folder / ACTIVITY_FILE_NAME
        try:
            self._file = AppendFile(path, "append" if is_resumed else "overwrite")
            self._file.cut_torn_line()
        except OSError as error:
            raise TraceError(f"{path}: cannot be opened: {error.strerror}") from error

    def fill(self, step: int, now_ns: int, symbol: str, fill: Fill, *, position: float, equity: float) -> None:
        """Write one fill and the account after it."""
        self._write(
            FillMark(
                step,
                now_ns,
                self._name(symbol),
                fill.side.value,
                fill.liquidity.value,
                fill.price,
                fill.qty,
                fill.fee,
                position,
                equity,
            )
        )

    def take(self, symbol: str, marks: Iterable[tuple[Any, ...]]) -> None:
        """Write what the compiled step noted in one market, the oldest first: see the core's `take_activity`."""
        name = self._name(symbol)
        for step, now_ns, *what in marks:
            if len(what) == _QUOTE_FIELDS:
                bid, ask = what
                self.quotes(step, now_ns, {} if bid is ask is None else {symbol: (bid, ask)})
            else:
                is_buy, is_maker, *rest = what
                side, liquidity = _SIDES[is_buy], _LIQUIDITIES[is_maker]
                self._write(FillMark(step, now_ns, name, side, liquidity, *rest))

    def quotes(self, step: int, now_ns: int, best: Mapping[str, tuple[float | None, float | None]]) -> None:
        """Write the best own (bid, ask) of every market where they moved; a market that is missing has none."""
        shown = self._shown
        for symbol in [symbol for symbol in shown if symbol not in best]:
            del shown[symbol]
            self._write(QuoteMark(step, now_ns, self._name(symbol), None, None))
        for symbol, pair in best.items():
            if shown.get(symbol, NO_QUOTES) != pair:
                shown[symbol] = pair
                self._write(QuoteMark(step, now_ns, self._name(symbol), *pair))

    def close(self) -> None:
        """Write what is pending and close the file. Closing again does nothing."""
        try:
            self._file.close()
        except TraceError as error:
            self.failure = self.failure or str(error)

    def _name(self, symbol: str) -> str:
        name = self._names.get(symbol)
        if name is None:
            name = self._names[symbol] = redact_text(symbol)
        return name

    def _write(self, mark: FillMark | QuoteMark) -> None:
        if self.failure:
            return
        pending = self._file.pending
        pending += _encode(mark) + b"\n"
        if len(pending) >= _BLOCK_BYTES:
            try:
                self._file.flush()
            except TraceError as error:
                self.failure = str(error)
                pending.clear()


def read_activity(folder: str | Path) -> Iterator[FillMark | QuoteMark]:
    """Yield what ``activity.jsonl`` of a run's folder holds, line by line; nothing when there is no such file.

    A last line without its end (a crash) is left out.

    Raises
    ------
    OSError
        When the file cannot be read.
    TraceError
        At a line that is none of this file's. Those before it have been yielded.
    """
    path = Path(folder) / ACTIVITY_FILE_NAME
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                mark = _decode(line)
            except (ValueError, UnicodeError) as error:
                raise TraceError(f"{path}:{number}: is no line of an activity file: {error}") from None
            yield mark
