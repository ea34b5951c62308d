"""What the engine knows of one symbol: its book, its rolling features, its clock.

`observe` folds one accepted event into the state, or raises `EventError` and leaves everything as it was. The state is
advanced in place, because copying rolling windows per event is not affordable; `decide` in `loop.step` reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from ami_engine.book import BookApply, OrderBook
from ami_engine.errors import EventError
from ami_engine.events import Bar, BookDelta, BookSnapshot, BookTicker, FeedGap, GenericEvent, Trade
from ami_engine.features import FeatureBuilder, FeatureConfig
from ami_engine.features.generic import GenericFeatureBuilder
from ami_engine.features.schema import FEATURE_INDEX
from ami_engine.units import Instrument

if TYPE_CHECKING:
    from ami_engine.events import MarketEvent

__all__ = ["SymbolState"]

# Events that only the features can refuse, beside their sequence number.
_PLAIN_KINDS: dict[type, str] = {BookSnapshot: "book", Trade: "trade", Bar: "bar"}

_BID, _ASK, _MID = FEATURE_INDEX["bid"], FEATURE_INDEX["ask"], FEATURE_INDEX["mid"]
_BID_DEPTH, _ASK_DEPTH = FEATURE_INDEX["bid_depth"], FEATURE_INDEX["ask_depth"]

# What `observe` changes beside book, features and sequence numbers.
_PLAIN_STATE = (
    *("mid", "bid", "ask", "bid_size", "ask_size", "changed", "has_gap"),
    *("last_ts_ns", "last_book_ts_ns", "timer_due_ns", "timer_is_queued"),
)


class SymbolState:
    """Book, features and times of one symbol.

    Parameters
    ----------
    symbol : str
        As the events carry it.
    instrument : Instrument
        Gives the tick of the book.
    config : FeatureConfig
        Its `tick_size` is replaced by the instrument's.
    backend : str
        Feature backend, "auto" for the fastest that is there.
    unique_seq : collection of str
        Kinds of events whose `seq` is checked, see `DataSource.unique_seq`.
    snapshots_only : bool
        True when the source never sends deltas: no book is kept then.
    """

    __slots__ = (
        "bid",
        "bid_size",
        "ask",
        "ask_size",
        "book",
        "builder",
        "changed",
        "config",
        "generic",
        "has_gap",
        "instrument",
        "last_book_ts_ns",
        "last_ts_ns",
        "mid",
        "symbol",
        "timer_due_ns",
        "timer_is_queued",
        "_handlers",
        "keeps_book",
        "last_seq",
        "row",
        "_spare",
        "unique_seq",
    )

    def __init__(
        self,
        symbol: str,
        instrument: Instrument,
        config: FeatureConfig,
        *,
        backend: str = "auto",
        unique_seq: Collection[str] = (),
        snapshots_only: bool = False,
    ) -> None:
        self.symbol = symbol
        self.instrument = instrument
        self.config = config
        self.builder = FeatureBuilder(config, backend=backend)
        self.book: Any = None
        self._spare: Any = None
        self.generic: GenericFeatureBuilder | None = None
        self.has_gap = False
        self.changed = False
        self.last_ts_ns = 0
        self.last_book_ts_ns = 0
        self.timer_due_ns = 0
        self.timer_is_queued = False
        self.mid = self.bid = self.ask = self.bid_size = self.ask_size = 0.0
        self.row = self.builder.view
        self.keeps_book = not snapshots_only
        self.unique_seq = frozenset(unique_seq)
        self.last_seq: dict[str, int] = {}
        self._handlers: dict[type, Callable[[Any, int], None]] = {
            BookSnapshot: self._on_snapshot,
            BookDelta: self._on_delta,
            BookTicker: self._on_ticker,
            Trade: self._on_trade,
            Bar: self._on_bar,
            FeedGap: self._on_gap,
            GenericEvent: self._on_generic,
        }

    def features(self) -> Any:
        """Return the features as they stand, detached: a `FeatureVector`, or a dict for an event without a price."""
        return self.builder.vector()

    def would_accept(self, event: MarketEvent) -> bool:
        """Return whether `observe` would take the event."""
        ts_ns = event.recv_ts_ns or event.exch_ts_ns
        if ts_ns <= 0 or ts_ns < self.last_ts_ns:
            return False
        checked = self._checked(event)
        return self._try(event) if checked is None else checked

    def _checked(self, event: MarketEvent) -> bool | None:
        """Return what a look at the event tells; None when only trying can tell."""
        if type(event) is FeedGap:
            return True
        kind = _PLAIN_KINDS.get(type(event))
        accepts = getattr(self.builder.engine, "accepts", None)
        if kind is None or accepts is None:
            return None
        if type(event) is BookSnapshot and self.keeps_book and (len(event.bids) > 0 or len(event.asks) > 0):
            return None
        try:
            self._check_seq(kind, event.seq)
        except EventError:
            return False
        return bool(accepts(event))

    def _try(self, event: MarketEvent) -> bool:
        """Fold an event and put the state back."""
        plain = {name: getattr(self, name) for name in _PLAIN_STATE}
        rolling = self.builder.snapshot()
        generic = None if self.generic is None else self.generic.snapshot()
        book = None if self.book is None else self.book.to_bytes()
        last_seq = dict(self.last_seq)
        try:
            self.observe(event)
        except EventError:
            is_accepted = False
        else:
            is_accepted = True
        for name, value in plain.items():
            setattr(self, name, value)
        self.builder.restore(rolling)
        if generic is None:
            self.generic = None
        elif self.generic is not None:
            self.generic.restore(generic)
        self.book = None if book is None else OrderBook.from_bytes(book)
        # Two books may have changed places: the spare one holds nothing that matters.
        self._spare, self.last_seq = None, last_seq
        return is_accepted

    def observe(self, event: MarketEvent) -> None:
        """Fold one event; on `EventError` nothing has changed.

        Raises
        ------
        EventError
            The event is malformed, crossed, repeated, or earlier than the symbol's last one.
        """
        handler = self._handlers.get(type(event))
        if handler is None:
            raise EventError(f"`event` must be a market event, was {type(event).__name__}", reason="wrong_type")
        ts_ns = event.recv_ts_ns or event.exch_ts_ns
        if ts_ns <= 0:
            raise EventError(f"`recv_ts_ns` must be > 0, was {ts_ns}", reason="non_positive_time", field="recv_ts_ns")
        if ts_ns < self.last_ts_ns:
            raise EventError(
                f"`recv_ts_ns` must not go backwards: {ts_ns} is {self.last_ts_ns - ts_ns} ns before the last event",
                reason="time_backwards",
                field="recv_ts_ns",
            )
        handler(event, ts_ns)
        self.last_ts_ns = ts_ns

    def _check_seq(self, kind: str, seq: int) -> None:
        if seq and kind in self.unique_seq:
            last = self.last_seq.get(kind, 0)
            if seq <= last:
                raise EventError(
                    f"`seq` of a {kind} must be above the last one, {last}, was {seq}",
                    reason="duplicate_seq",
                    field="seq",
                )

    def _took_seq(self, kind: str, seq: int) -> None:
        if seq and kind in self.unique_seq:
            self.last_seq[kind] = seq

    def _took_book(self, ts_ns: int, bid_size: float, ask_size: float) -> None:
        row = self.row
        self.bid, self.ask, self.mid = float(row[_BID]), float(row[_ASK]), float(row[_MID])
        self.bid_size, self.ask_size = bid_size, ask_size
        self.last_book_ts_ns = ts_ns
        self.changed = True

    def _on_snapshot(self, event: BookSnapshot, ts_ns: int) -> None:
        self._check_seq("book", event.seq)
        has_levels = len(event.bids) > 0 or len(event.asks) > 0
        if has_levels and self.keeps_book:
            self._on_book_image(event, ts_ns)
        else:
            self.builder.push(event)
            if has_levels:
                bid_size = float(event.bids[0][1]) if len(event.bids) else 0.0
                ask_size = float(event.asks[0][1]) if len(event.asks) else 0.0
            else:
                bid_size, ask_size = event.bid_depth, event.ask_depth
            self._took_book(ts_ns, bid_size, ask_size)
        self.has_gap = False
        self._took_seq("book", event.seq)

    def _on_book_image(self, event: BookSnapshot, ts_ns: int) -> None:
        # The image is tried on the spare book: a bad one must not replace a good book.
        book = self._spare if self._spare is not None else OrderBook(self.instrument.tick_size)
        book.apply_snapshot(event.bids, event.asks, event.seq)
        bid, bid_size, ask, ask_size = book.best()
        for name, stated, best in (("bid", event.bid, bid), ("ask", event.ask, ask)):
            if stated and stated != best:
                raise EventError(
                    f"`{name}` must equal the best level, {best!r}, was {stated!r}", reason="price_mismatch", field=name
                )
        self.builder.push_from_book(book, ts_ns)
        self._spare, self.book = self.book, book
        self._took_book(ts_ns, bid_size, ask_size)

    def _on_delta(self, event: BookDelta, ts_ns: int) -> None:
        book = self.book
        if book is None:
            raise EventError(
                "a book delta needs a snapshot before it, and none was seen", reason="no_snapshot", field="seq"
            )
        try:
            applied = book.apply_delta(event.bids, event.asks, event.seq, event.first_seq, event.prev_seq)
        except EventError:
            # Whether the message was lost or refused, the book has missed something: it is not to be quoted on.
            if not book.is_ready:
                self.has_gap = True
            raise
        if applied is BookApply.STALE:
            self.changed = False
            return
        self._push_book(ts_ns)

    def _on_ticker(self, event: BookTicker, ts_ns: int) -> None:
        self._check_seq("ticker", event.seq)
        book = self.book
        if book is None:
            # Top-of-book streams start before the first snapshot: one level is better than none.
            book = OrderBook(self.instrument.tick_size)
        applied = book.apply_ticker(event.bid, event.bid_size, event.ask, event.ask_size, event.seq)
        self.book = book
        self._took_seq("ticker", event.seq)
        if applied is BookApply.STALE:
            self.changed = False
            return
        self._push_book(ts_ns)

    def _push_book(self, ts_ns: int) -> None:
        self.builder.push_from_book(self.book, ts_ns)
        _, bid_size, _, ask_size = self.book.best()
        self._took_book(ts_ns, bid_size, ask_size)

    def _on_trade(self, event: Trade, ts_ns: int) -> None:
        self._check_seq("trade", event.seq)
        self.builder.push(event)
        self._took_seq("trade", event.seq)
        self.changed = True

    def _on_bar(self, event: Bar, ts_ns: int) -> None:
        self._check_seq("bar", event.seq)
        self.builder.push(event)
        self._took_seq("bar", event.seq)
        self._took_book(ts_ns, 0.0, 0.0)

    def _on_gap(self, event: FeedGap, ts_ns: int) -> None:
        if self.book is not None:
            self.book.mark_gap()
        self.has_gap = True
        self.changed = False

    def _on_generic(self, event: GenericEvent, ts_ns: int) -> None:
        if self.generic is None:
            self.generic = GenericFeatureBuilder(self.config)
        self.generic.push(event)
        self.changed = True
