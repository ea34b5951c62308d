"""What the engine asks of a source of events and of a broker.

Subclass these to connect your own feed or venue. `DataSource.next_event` and
`Broker.submit_order` are the only methods that must be written.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ami_engine.events import Fill, MarketEvent, OrderAck, OrderReport, SubmitOrder
from ami_engine.units import Instrument

__all__ = ["REQUIRED_BEFORE_LIVE", "Broker", "DataSource", "MarketDataSource"]

REQUIRED_BEFORE_LIVE = ("fetch_order", "fetch_open_orders", "fetch_fills", "fetch_balances")
"""Methods of a `Broker` that a live run needs: without them nobody can say after a crash what is live at the venue."""


class DataSource(ABC):
    """A stream of events, in the order in which they were received.

    Attributes
    ----------
    is_live : bool
        True only when events arrive in real time: the loop then reads the source on its own thread and decides on wall
        time. Every other source is recorded and decides on event time.
    unique_seq : frozenset of str
        Kinds of events ("book", "delta", "ticker", "trade", "bar") whose `seq` is unique and increasing per symbol, so
        that a repeat is a duplicate to refuse. Empty: `seq` is not checked.
    snapshots_only : bool
        True when the source never sends a `BookDelta` or a `BookTicker`: no book is kept then.
    identity : str
        What names the data in a run id: a file's name and size, a generator's parameters.
    """

    is_live: bool = False
    unique_seq: frozenset[str] = frozenset()
    snapshots_only: bool = False
    identity: str = ""

    @abstractmethod
    def next_event(self) -> MarketEvent | Mapping[str, Any] | None:
        """Return the next event, as a struct or a dict; None when the source is exhausted.

        A record that cannot be read raises `EventError`; the next call goes on with the record after it.
        """

    def instruments(self) -> Mapping[str, Instrument]:
        """Return what is known of the instruments in the feed, by symbol; empty when nothing is."""
        return {}

    def place(self) -> tuple[str, int]:
        """Return where the last event was read: file name and line or record number; ("", 0) when unknown."""
        return "", 0

    def close(self) -> None:  # noqa: B027 - most sources hold nothing
        """Release files and connections. May be called more than once."""


class MarketDataSource(DataSource):
    """`DataSource` under its market name."""


class Broker(ABC):
    """A venue, as the engine sees it.

    `submit_order` returning None, an id or an `OrderAck` means accepted; raising `VenueRejected` means rejected; any
    other exception leaves the order in doubt. A broker repeats nothing for a client order id that it already has: the
    second submit returns the first one's ack.

    Attributes
    ----------
    recv_window_ms : int or None
        How long after it was sent the venue may still take a submit, ms: every `SubmitOrder` then carries `expires_ns`,
        and the broker must hand it to the venue. None where the venue cannot expire requests: an order whose submit got
        no answer, and of which the venue knows nothing, then stays in doubt.
    """

    recv_window_ms: int | None = None

    @abstractmethod
    def submit_order(self, order: SubmitOrder) -> OrderAck | str | None:
        """Place one order."""

    def get_state(self) -> dict[str, Any]:
        """Return {"positions": {market: qty}, "open_orders": [...], "cash": x}; {} when unknown."""
        return {}

    def cancel_order(self, order_id: str) -> bool:
        """Cancel by client order id: True when cancelled, False when there was nothing to cancel."""
        raise NotImplementedError(f"{type(self).__name__} cannot cancel an order: write cancel_order(order_id) -> bool")

    def cancel_all(self, market_id: str | None = None) -> int:
        """Cancel every order, or those of one market; return how many."""
        raise NotImplementedError(f"{type(self).__name__} cannot cancel all orders: write cancel_all(market_id) -> int")

    def process_fills(self, now_ms: int) -> Sequence[Fill | Mapping[str, Any]]:
        """Return the fills since the last call, oldest first, as `Fill` structs or dicts with their fields."""
        return ()

    def on_market_data(self, event: MarketEvent, bid: float, ask: float, bid_size: float, ask_size: float) -> None:
        """See an accepted event and the best prices after it. Simulated venues fill from it; live ones ignore it."""
        del event, bid, ask, bid_size, ask_size

    def fetch_order(self, client_order_id: str) -> OrderReport | None:
        """Return what the venue knows of one order, None when it knows nothing. Required before live."""
        raise NotImplementedError(f"{type(self).__name__} cannot look up an order: write fetch_order(client_order_id)")

    def fetch_open_orders(self, market_id: str | None = None) -> Sequence[OrderReport]:
        """Return the orders that are live at the venue. Required before live."""
        raise NotImplementedError(f"{type(self).__name__} cannot list orders: write fetch_open_orders(market_id)")

    def fetch_fills(self, since_ns: int) -> Iterable[Fill]:
        """Return the fills since `since_ns`. Required before live."""
        raise NotImplementedError(f"{type(self).__name__} cannot list fills: write fetch_fills(since_ns)")

    def fetch_balances(self) -> Mapping[str, float]:
        """Return the balance of each currency. Required before live."""
        raise NotImplementedError(f"{type(self).__name__} cannot read balances: write fetch_balances()")
