"""Recorded sources as tables: every event a row, the book already rebuilt, ready for compiled decisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ami_engine import clock
from ami_engine.adapters.base import DataSource
from ami_engine.errors import ConfigError, EventError
from ami_engine.events import Bar, BookSnapshot, GenericEvent, Trade
from ami_engine.features.feature_config import FeatureConfig
from ami_engine.loop.feed import FeedEnd, RetryPolicy, SourceReader
from ami_engine.loop.market import Market
from ami_engine.loop.symbol_state import SymbolState
from ami_engine.units import Instrument

__all__ = ["BAR", "BOOK", "QUIET", "REFUSED", "TRADE", "EventTable", "table_from_source"]

# What a row is. The first two are those of `FeatureBuilder.run`.
BOOK, TRADE, BAR, QUIET, REFUSED = range(5)
# What is known of the levels of a book row, beside the best: nothing, all, all down to a cut, or not this event's.
NO_IMAGE, WHOLE, CUT, UNKNOWN = range(4)

_MAX_PLACES = 20
_NO_NUMBERS: Mapping[str, float] = {}


class EventTable(NamedTuple):
    """A recorded source as columns.

    `columns` are `recv_ts_ns`, `kind` (0 book, 1 trade, 2 bar, 3 an event that changes nothing, 4 one that was
    refused), `bid`, `ask`, `bid_depth`, `ask_depth` (what a book of one level carries), `bids` and `asks` (rows, N, 2;
    padded with NaN), `price`, `size`, `aggressor`, `open`, `high`, `low`, `volume` (of bars; their close is the bid),
    `image` (which levels a book row shows) and `has_gap` (the book missed something). `refusals` are the reasons of the
    refused rows, by row, and `places` where the first of them were read. `end` is why the source ended.
    """

    columns: Mapping[str, npt.NDArray[Any]]
    symbol: str
    instrument: Instrument
    identity: str
    refusals: tuple[tuple[int, str], ...]
    places: tuple[str, ...]
    failures: int
    has_assumed_time: bool
    end: str

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.columns["kind"])


class _Rows:
    """Columns while they grow."""

    def __init__(self, levels: int) -> None:
        self.levels = levels
        self.whole: dict[str, list[int]] = {"recv_ts_ns": [], "kind": [], "aggressor": [], "image": [], "has_gap": []}
        self.numbers: dict[str, list[float]] = {
            name: []
            for name in (
                *("bid", "ask", "bid_depth", "ask_depth", "price", "size"),
                *("open", "high", "low", "volume"),
            )
        }
        self.sides: dict[str, list[npt.NDArray[np.float64]]] = {"bids": [], "asks": []}
        self._empty = np.full((levels, 2), np.nan)

    def add(
        self,
        ts_ns: int,
        kind: int,
        numbers: Mapping[str, float] = _NO_NUMBERS,
        *,
        image: int = NO_IMAGE,
        aggressor: int = 0,
    ) -> None:
        """Add a row without levels; a number that is not given is 0."""
        for name, value in zip(self.whole, (ts_ns, kind, aggressor, image, 0), strict=True):
            self.whole[name].append(value)
        for name, column in self.numbers.items():
            column.append(numbers.get(name, 0.0))
        self.sides["bids"].append(self._empty)
        self.sides["asks"].append(self._empty)

    def show(self, side: str, levels: Any) -> None:
        """Give the last row the levels of a side, best first."""
        count = min(len(levels), self.levels)
        if count:
            padded = self._empty.copy()
            padded[:count] = np.asarray(levels[:count], dtype=np.float64)
            self.sides[side][-1] = padded

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        found: dict[str, npt.NDArray[Any]] = {
            name: np.array(column, dtype=np.int64) for name, column in self.whole.items()
        }
        found |= {name: np.array(column, dtype=np.float64) for name, column in self.numbers.items()}
        shape = (len(self.whole["kind"]), self.levels, 2)
        found |= {name: np.array(rows, dtype=np.float64).reshape(shape) for name, rows in self.sides.items()}
        return found


def table_from_source(
    source: DataSource, levels: int = 10, *, steps: int | None = None, instrument: Instrument | None = None
) -> EventTable:
    """Read a recorded source of one symbol into a table: what `run_loop` would see of it, event by event.

    Deltas and tickers are applied to a book here, and their rows carry the book's best levels after them. Events that
    the loop would refuse stay as refused rows, because time passes with them.

    Parameters
    ----------
    source : DataSource
        Read to its end, and closed.
    levels : int
        How many levels a row keeps, at least as many as the features look at.
    steps : int, optional
        Read no more than so many accepted events.
    instrument : Instrument, optional
        What is traded; default: what the source says, else a tick of 0.01.

    Raises
    ------
    ConfigError
        When the source is live, has several symbols, or events without a price.

    Examples
    --------
    >>> from ami_engine.sim.synthetic_source import SyntheticSource
    >>> table = table_from_source(SyntheticSource(num_events=3))
    >>> table.rows, table.symbol, table.columns["bids"].shape
    (3, 'SYNTH', (3, 10, 2))
    """
    if levels < 1:
        raise ConfigError(f"`levels` must be at least 1, was {levels!r}")
    if source.is_live:
        raise ConfigError("`source` must be recorded, was live: a table cannot be made of what has not happened yet")
    instruments = dict(source.instruments())
    unnamed = instruments.pop("", None)
    if instrument is not None:
        instruments = {}
    market = Market(
        instruments,
        default_instrument=instrument or unnamed or Instrument(""),
        config=FeatureConfig(levels=levels),
        unique_seq=source.unique_seq,
        snapshots_only=source.snapshots_only,
    )
    reader = SourceReader(source, RetryPolicy(clock.sleep))
    rows = _Rows(levels)
    refusals: list[tuple[int, str]] = []
    places: list[str] = []
    end = "source_exhausted"
    accepted = 0
    has_gap = False
    try:
        while steps is None or accepted < steps:
            ts_ns = 0
            try:
                event = reader.read()
                if event is None:
                    break
                ts_ns = event.recv_ts_ns or event.exch_ts_ns
                state = market.state(event.symbol)
                try:
                    state.observe(event)
                finally:
                    if not state.last_ts_ns:
                        market.forget(state.symbol)  # nothing good was heard of it
                _check_symbol(market, event)
                _add_row(rows, event, ts_ns, state)
                accepted += 1
            except EventError as error:
                placed = error.at(*source.place())
                refusals.append((len(rows.whole["kind"]), placed.reason))
                if len(places) < _MAX_PLACES:
                    places.append(str(placed))
                rows.add(ts_ns, REFUSED)
            for state in market.states.values():
                has_gap = state.has_gap
            rows.whole["has_gap"][-1] = has_gap
    except FeedEnd as stop:
        end = stop.reason
    finally:
        source.close()
    symbol = next(iter(market.states), "")
    return EventTable(
        rows.columns(),
        symbol,
        market.instrument(symbol),
        source.identity or type(source).__name__,
        tuple(refusals),
        tuple(places),
        reader.failures,
        reader.has_assumed_time,
        end,
    )


def _check_symbol(market: Market, event: Any) -> None:
    if len(market.states) > 1:
        raise ConfigError(f"a table is of one symbol, the source has {', '.join(map(repr, market.states))}")
    if isinstance(event, GenericEvent):
        raise ConfigError("a table is of market events, the source has events without a price")


def _add_row(rows: _Rows, event: Any, ts_ns: int, state: SymbolState) -> None:
    """Add the row of an event that `state` has just accepted."""
    if not state.changed:
        rows.add(ts_ns, QUIET)
    elif isinstance(event, Trade):
        rows.add(ts_ns, TRADE, {"price": event.price, "size": event.size}, aggressor=event.aggressor)
    elif isinstance(event, Bar):
        prices = {"open": event.open, "high": event.high, "low": event.low, "volume": event.volume}
        rows.add(ts_ns, BAR, {"bid": event.close, "ask": event.close, **prices})
    elif isinstance(event, BookSnapshot):
        _add_snapshot(rows, event, ts_ns, state)
    else:
        rows.add(ts_ns, BOOK)
        bids, asks = state.book.top(rows.levels)
        rows.show("bids", bids)
        rows.show("asks", asks)


def _add_snapshot(rows: _Rows, event: BookSnapshot, ts_ns: int, state: SymbolState) -> None:
    if len(event.bids) == 0 and len(event.asks) == 0:
        best = {name: getattr(event, name) for name in ("bid", "ask", "bid_depth", "ask_depth")}
        rows.add(ts_ns, BOOK, best, image=WHOLE)
        return
    bids, asks, image = event.bids, event.asks, WHOLE
    if len(bids) > rows.levels or len(asks) > rows.levels:
        image = CUT
    if state.book is not None:
        # The features are of the book that was made of the event, the venue looks into the event itself.
        bids, asks = state.book.top(rows.levels)
        for kept, sent in ((bids, event.bids), (asks, event.asks)):
            if not np.array_equal(kept, np.asarray(sent[: rows.levels], dtype=np.float64).reshape(-1, 2)):
                image = UNKNOWN
    rows.add(ts_ns, BOOK, {"bid": event.bid, "ask": event.ask}, image=image)
    rows.show("bids", bids)
    rows.show("asks", asks)
