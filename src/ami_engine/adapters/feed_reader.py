"""What every file reader shares: identity, declared instruments, the choice of one symbol."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import structs

from ami_engine.adapters.base import MarketDataSource
from ami_engine.adapters.byte_stream import file_identity
from ami_engine.adapters.event_file import EventFile
from ami_engine.errors import EventError
from ami_engine.units import Instrument

__all__ = ["FeedReader", "declared_instruments"]


def declared_instruments(
    symbol: str | None, tick_size: float | None, instrument: Instrument | Mapping[str, Instrument] | None
) -> dict[str, Instrument]:
    """Return the declared instruments by symbol; a bare tick size without a symbol stands under ``""``, for any symbol.

    >>> declared_instruments("ESH4", 0.25, None)["ESH4"].tick_size
    0.25
    """
    if isinstance(instrument, Instrument):
        return {instrument.symbol: instrument}
    if instrument is not None:
        return dict(instrument)
    if tick_size is not None:
        return {symbol or "": Instrument(symbol or "", tick_size=tick_size)}
    return {}


class FeedReader(MarketDataSource):
    """A recorded file, or a table in memory, as a source.

    Parameters
    ----------
    paths : sequence of Path
        The files; the first one's base name stands in errors.
    symbol : str, optional
        Where the feed names its symbols, read only this one; where it names none, the name of what it holds.
    instruments : Mapping, optional
        What was declared of the instruments, by symbol; the key ``""`` stands for any other symbol.
    name, identity : str
        Of what is no file: what stands in errors, and what names the data in a run id.
    """

    def __init__(
        self,
        *paths: Path,
        symbol: str | None = None,
        instruments: Mapping[str, Instrument] | None = None,
        name: str = "",
        identity: str = "",
    ) -> None:
        self.source_name = name or paths[0].name
        self.identity = identity or "+".join(file_identity(path) for path in paths)
        self.symbol = symbol or ""
        self._instruments = dict(instruments or {})
        self._known_symbols: set[str] = set()
        self._other_symbols: set[str] = set()
        self._symbol_was_seen = False

    def instruments(self) -> Mapping[str, Instrument]:
        """Return the declared instruments by symbol.

        A tick size that was declared without a symbol stands under each symbol that the file is known to hold, else
        under ``""``, for any.
        """
        if not self._known_symbols or "" not in self._instruments:
            return self._instruments
        of_any = self._instruments[""]
        named = {symbol: structs.replace(of_any, symbol=symbol) for symbol in sorted(self._known_symbols)}
        return named | {symbol: declared for symbol, declared in self._instruments.items() if symbol}

    def _take(self, about: EventFile) -> None:
        """Take what a file that we wrote says of itself; what was declared beside it goes first."""
        self.unique_seq = frozenset(about.unique_seq)
        self.snapshots_only = about.snapshots_only
        if not self._instruments:
            self._instruments = {instrument.symbol: instrument for instrument in about.instruments}

    def _is_other_symbol(self, symbol: str) -> bool:
        """Say whether an event is of a symbol that was not asked for, and remember it."""
        if not self.symbol or symbol == self.symbol:
            self._symbol_was_seen = True
            return False
        if len(self._other_symbols) < 10:
            self._other_symbols.add(symbol)
        return True

    def _check_symbol_was_seen(self, position: int) -> None:
        """Report at the end, once, a symbol that was asked for and never found: the feed was not just empty."""
        if self._other_symbols and not self._symbol_was_seen:
            held = ", ".join(sorted(self._other_symbols))
            self._other_symbols.clear()
            raise EventError(
                f"no event of symbol {self.symbol!r} was found; the file holds {held}",
                reason="unknown_symbol",
                field="symbol",
                source=self.source_name,
                position=position,
            )
