"""A mock exchange: a venue with its own truth, and a connection to it on which everything goes wrong by plan."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Literal

import msgspec

from ami_engine.clock import Clock, ManualClock
from ami_engine.errors import ConfigError, VenueRejected
from ami_engine.events import Fill, OrderReport, OrderStatus, SubmitOrder
from ami_engine.sim.faults import Fault, FaultKind, FaultPlan, Occasion
from ami_engine.sim.mock_venue import DEFAULT_INSTRUMENT, MockVenue
from ami_engine.units import NS_PER_MS, NS_PER_S, Instrument

__all__ = ["MockExchange", "Reply", "Session", "Wire"]

_START_NS = 1_700_000_000 * NS_PER_S
_CLOSED = frozenset({OrderStatus.CANCELED, OrderStatus.EXPIRED, OrderStatus.FILLED})


class Wire(Enum):
    """What reaches the caller."""

    OK = "ok"
    REFUSED = "refused"  # the venue's answer: no
    LIMITED = "limited"  # too many requests: nothing was done
    DOWN = "down"  # no connection: nothing was sent
    LOST = "lost"  # no answer
    CUT = "cut"  # the connection went before the answer
    GARBAGE = "garbage"  # an answer that cannot be read


class Reply(msgspec.Struct, frozen=True, gc=False):
    """What becomes of one request: how it reaches the caller, what it says, and how long that takes, ms."""

    wire: Wire
    value: Any = None
    error: str = ""
    delay_ms: int = 0


class Session:
    """One listener to the stream: what it was told and has not read. Nothing is told while it is cut off."""

    __slots__ = ("events", "is_cut", "listener")

    def __init__(self, listener: Callable[[Any], None] | None = None) -> None:
        self.events: deque[Any] = deque()
        self.is_cut = False
        self.listener = listener

    def tell(self, event: Any) -> None:
        """Hand over one `Fill` or `OrderReport`."""
        if self.is_cut:
            return
        if self.listener is not None:
            self.listener(event)
        else:
            self.events.append(event)


class MockExchange:
    """A venue and the way to it. The faults act on the way, the truth stays whole (but for an overfill).

    Requests come through `request`, which says what reaches the caller; `MockExchangeBroker` turns that into exceptions
    and `sim.exchange_server` into what happens on a socket. Everything is a function of the seed, the plan and the
    order of the calls.

    Parameters
    ----------
    clock : Clock or None
        The venue's time, up to a clock step; None makes a `ManualClock`.
    instrument : Instrument or sequence of Instrument or None
        The markets; each needs a lot size. None is one market, MOCK.
    seed : int
        Of the market.
    faults : FaultPlan or None
        What goes wrong; None is nothing.
    recv_window_ms : int or None
        As `Broker.recv_window_ms`: how long after it was made a request is taken; None where it cannot expire.
    dedupe : {"all", "open"}
        Which client order ids are known again.
    max_requests_per_s : int
        More in one second of the venue's clock are refused; 0 is off.
    cash : float
        Balance at the start.

    Raises
    ------
    ConfigError
        When an instrument has no lot size, or a number is negative.

    Examples
    --------
    >>> from ami_engine.events import Side
    >>> exchange = MockExchange(faults=FaultPlan.parse("timeout_after@submit:1"))
    >>> order = SubmitOrder(client_order_id="a1", market_id="MOCK", side=Side.BUY, price=99.0, qty=0.5)
    >>> exchange.submit(order).wire.value
    'lost'
    >>> exchange.fetch_order("a1").value.status.value
    'NEW'
    """

    def __init__(
        self,
        clock: Clock | None = None,
        instrument: Instrument | Sequence[Instrument] | None = None,
        seed: int = 0,
        faults: FaultPlan | None = None,
        *,
        recv_window_ms: int | None = 1_000,
        dedupe: Literal["all", "open"] = "all",
        max_requests_per_s: int = 0,
        cash: float = 0.0,
    ) -> None:
        if recv_window_ms is not None and recv_window_ms < 1:
            raise ConfigError(f"`recv_window_ms` must be at least 1, or None, was {recv_window_ms!r}")
        if max_requests_per_s < 0:
            raise ConfigError(f"`max_requests_per_s` must be at least 0, was {max_requests_per_s!r}")
        self.clock: Clock = ManualClock(_START_NS) if clock is None else clock
        self.faults = faults or FaultPlan()
        self.recv_window_ms = recv_window_ms
        if instrument is None:
            instrument = DEFAULT_INSTRUMENT
        self.venue = MockVenue(
            [instrument] if isinstance(instrument, Instrument) else list(instrument),
            seed=seed,
            now_ns=self.now_ns,
            emit=self._emit,
            excess=self._excess,
            recv_window_ms=recv_window_ms,
            dedupe=dedupe,
            cash=cash,
        )
        self._sessions: list[Session] = []
        self._offset_ns = 0
        self._down_until_ns = 0
        self._out_until_ns: dict[Occasion, int] = {}
        self._storm = 0
        self._limit = max_requests_per_s
        self._second = self._in_second = 0
        self._later: list[tuple[int, int, Callable[[], None]]] = []  # what still has to happen, by time
        self._numbered = 0
        self._live = _Live(self.venue)
        self._frozen: _Frozen | None = None
        self._withheld: dict[str, list[Fill]] = {}  # by order: told when it is cancelled
        self._repeats_word = False
        self._fill_fault: Fault | None = None
        self._held_back: list[Fill] = []

    # Time. --------------------------------------------------------------------------------------------------------

    def now_ns(self) -> int:
        """Return the time by the venue's clock, ns."""
        return self.clock.now_ns() + self._offset_ns

    def advance(self) -> None:
        """Let happen what is due: late arrivals, delayed words, a connection that comes back."""
        now_ns = self.clock.now_ns()
        while self._later and self._later[0][0] <= now_ns:
            heapq.heappop(self._later)[2]()
        if self._down_until_ns and self._down_until_ns <= now_ns:
            self._down_until_ns = 0
            for session in self._sessions:
                session.is_cut = False
        if self._frozen is not None and self._frozen.until_ns <= now_ns:
            self._frozen = None

    def move(self, market_id: str | None = None) -> None:
        """Let what is due happen, and the market (every market when none is named) move once."""
        self.advance()
        for name, market in self.venue.markets.items():
            if market_id is None or name == market_id:
                self.venue.move(market)

    def begin(self, faults: FaultPlan) -> None:
        """Let these faults strike from now on, instead of those before."""
        self.faults = faults

    def quiet(self) -> None:
        """End all trouble: no further fault, connection up, clock right. What is under way still happens."""
        self.faults.clear()
        self._storm = self._offset_ns = 0
        self._out_until_ns.clear()
        self._frozen = None
        self._down_until_ns = 0
        for session in self._sessions:
            session.is_cut = False

    @property
    def is_at_rest(self) -> bool:
        """True when no order is open, nothing is under way to the venue or from it, and every listener has read all."""
        is_told = not (self._later or self._held_back or any(self._withheld.values()))
        return is_told and not any(each.events for each in self._sessions) and not self.venue.open_orders()

    def _after(self, delay_ms: int, act: Callable[[], None]) -> None:
        self._numbered += 1
        heapq.heappush(self._later, (self.clock.now_ns() + delay_ms * NS_PER_MS, self._numbered, act))

    # The stream. --------------------------------------------------------------------------------------------------

    def connect(self, listener: Callable[[Any], None] | None = None) -> Session:
        """Open a stream: from now on it is told every fill and every change of an order."""
        session = Session(listener)
        session.is_cut = self._down_until_ns > 0
        self._sessions.append(session)
        return session

    def disconnect(self, session: Session) -> None:
        """End a stream."""
        if session in self._sessions:
            self._sessions.remove(session)

    def _tell(self, event: Any) -> None:
        for session in self._sessions:
            session.tell(event)

    def _emit(self, event: Any) -> None:
        if isinstance(event, Fill):
            self._emit_fill(event)
            return
        self._tell(event)
        if self._repeats_word:
            self._tell(event)
        if event.status in _CLOSED:
            for late in self._withheld.pop(event.client_order_id, ()):
                self._after(0, lambda fill=late: self._tell(fill))  # type: ignore[misc]

    def _excess(self) -> int:
        """Count an execution; return how many lots too many it is to have."""
        fault = self._fill_fault = self.faults.take(Occasion.FILL)
        return fault.value if fault is not None and fault.kind is FaultKind.OVERFILL else 0

    def _emit_fill(self, fill: Fill) -> None:
        fault, self._fill_fault = self._fill_fault, None
        kind = None if fault is None else fault.kind
        if fault is None or kind is FaultKind.OVERFILL:
            self._tell(fill)
            self._release()
        elif kind is FaultKind.DUPLICATE_FILL:
            self._tell(fill)
            self._after(fault.value, lambda: self._tell(fill))
        elif kind is FaultKind.OUT_OF_ORDER_FILLS:
            self._held_back.append(fill)
            self._after(fault.value, self._release)
        elif kind is FaultKind.LATE_FILL:
            late = self._withheld.setdefault(fill.client_order_id, [])
            late.append(fill)
            self._after(fault.value, lambda: self._tell_withheld(fill))

    def _tell_withheld(self, fill: Fill) -> None:
        late = self._withheld.get(fill.client_order_id, [])
        if fill in late:
            late.remove(fill)
            self._tell(fill)

    def _release(self) -> None:
        held, self._held_back = self._held_back, []
        for fill in held:
            self._tell(fill)

    # Requests. ----------------------------------------------------------------------------------------------------

    def submit(self, order: SubmitOrder) -> Reply:
        """Place an order; the value of a good reply is its `OrderAck`."""
        return self._request(Occasion.SUBMIT, lambda: self.venue.submit(order), order.client_order_id)

    def cancel(self, client_order_id: str) -> Reply:
        """Cancel one order; the value is True, or False when there was nothing to cancel."""
        return self._request(Occasion.CANCEL, lambda: self.venue.cancel(client_order_id), client_order_id)

    def cancel_all(self, market_id: str | None = None) -> Reply:
        """Cancel every order, or those of one market; the value is how many."""
        return self._request(Occasion.CANCEL, lambda: self.venue.cancel_all(market_id))

    def fetch_order(self, client_order_id: str) -> Reply:
        """Ask about one order; the value is its `OrderReport`, or None."""
        return self._request(Occasion.QUERY, lambda: self._seen().order(client_order_id))

    def fetch_open_orders(self, market_id: str | None = None) -> Reply:
        """Ask for the open orders; the value is a list of `OrderReport`."""
        return self._request(Occasion.QUERY, lambda: self._seen().open_orders(market_id))

    def fetch_fills(self, since_ns: int) -> Reply:
        """Ask for the fills since `since_ns`; the value is a list of `Fill`."""
        return self._request(Occasion.QUERY, lambda: [f for f in self._seen().fills() if f.ts_ns >= since_ns])

    def fetch_state(self) -> Reply:
        """Ask for the account: {"positions": {market: qty}, "balances": {currency: cash}, "open_orders": [...]}."""
        return self._request(Occasion.QUERY, lambda: _state(self._seen()))

    def poll(self, session: Session) -> Reply:
        """Read the stream; the value is what it told since, oldest first."""
        return self._request(Occasion.POLL, lambda: _drain(session))

    def _request(self, occasion: Occasion, act: Callable[[], Any], client_order_id: str = "") -> Reply:
        self.advance()
        fault = self.faults.take(occasion)
        if fault is not None:
            self._begin_trouble(fault)
        trouble = self._trouble(occasion)
        if trouble is not None:
            if fault is not None and fault.kind in (FaultKind.DISCONNECT, FaultKind.STALE_SNAPSHOT):
                # The connection goes while the request is under way: it may have been done, and the caller cannot know.
                if self.venue.draw.chance(700):
                    _try(act)
                return Reply(Wire.CUT, error="the connection was closed before the answer")
            return trouble
        if fault is None:
            return _answer(act)
        return self._strike(fault, act, client_order_id)

    def _begin_trouble(self, fault: Fault) -> None:
        now_ns, kind = self.clock.now_ns(), fault.kind
        if kind is FaultKind.RATE_LIMIT_STORM:
            self._storm = max(self._storm, fault.value)
        elif kind is FaultKind.OUTAGE:
            self._out_until_ns[fault.occasion] = now_ns + fault.value * NS_PER_MS
        elif kind is FaultKind.CLOCK_STEP:
            self._offset_ns = fault.value * NS_PER_MS
        elif kind in (FaultKind.DISCONNECT, FaultKind.STALE_SNAPSHOT):
            self._down_until_ns = now_ns + fault.value * NS_PER_MS
            if kind is FaultKind.STALE_SNAPSHOT:
                self._frozen = _Frozen(self.venue, now_ns + 2 * fault.value * NS_PER_MS)
            for session in self._sessions:
                session.is_cut = True

    def _trouble(self, occasion: Occasion) -> Reply | None:
        now_ns = self.clock.now_ns()
        if self._down_until_ns > now_ns:
            return Reply(Wire.DOWN, error="there is no connection")
        if occasion is Occasion.POLL:
            # The stream is a connection of its own: requests are limited, what is pushed is not.
            out = self._out_until_ns.get(occasion, 0) > now_ns
            return Reply(Wire.LOST, error="the stream is silent") if out else None
        if self._storm > 0:
            self._storm -= 1
            return Reply(Wire.LIMITED, error="rate limit: too many requests")
        if self._limit:
            second = now_ns // NS_PER_S
            self._in_second = self._in_second + 1 if second == self._second else 1
            self._second = second
            if self._in_second > self._limit:
                return Reply(Wire.LIMITED, error=f"rate limit: {self._limit} requests a second")
        if self._out_until_ns.get(occasion, 0) > now_ns:
            return Reply(Wire.LOST, error=f"{occasion.value} is out of service")
        return None

    def _strike(self, fault: Fault, act: Callable[[], Any], client_order_id: str) -> Reply:
        kind = fault.kind
        if kind is FaultKind.TIMEOUT_BEFORE:
            return Reply(Wire.LOST, error="timed out")
        if kind is FaultKind.LATE_ARRIVAL:
            self._after(fault.value, lambda: _try(act))
            return Reply(Wire.LOST, error="timed out")
        if kind is FaultKind.FILL_RACES_CANCEL:
            self._trade_part(client_order_id)
        self._repeats_word = kind is FaultKind.DUPLICATE_ACK
        reply = _answer(act)
        if self._repeats_word:
            if fault.occasion is Occasion.SUBMIT and self._is_open(client_order_id):
                # A venue that forgets ended orders knows a request that comes twice in a moment all the same.
                reply = _answer(act)
            self._repeats_word = False
        if kind is FaultKind.TIMEOUT_AFTER:
            return Reply(Wire.LOST, error="timed out")
        if kind is FaultKind.FILL_BEFORE_ACK:
            self._trade_part(client_order_id)
            return Reply(Wire.LOST, error="timed out")
        if kind is FaultKind.GARBAGE:
            return Reply(Wire.GARBAGE, error="the reply cannot be read")
        if kind is FaultKind.SLOW_REPLY:
            return msgspec.structs.replace(reply, delay_ms=fault.value)
        return reply

    def _is_open(self, client_order_id: str) -> bool:
        order = self.venue.orders.get(client_order_id)
        return order is not None and order.leaves > 0

    def _trade_part(self, client_order_id: str) -> None:
        order = self.venue.orders.get(client_order_id)
        if order is not None and order.leaves:
            self.venue.fill(order, 1 + self.venue.draw.below(order.leaves))

    def _seen(self) -> _Live | _Frozen:
        """Return what queries see: the truth, or for a while an older one."""
        return self._live if self._frozen is None else self._frozen


class _Live:
    """What queries see: the venue as it is."""

    __slots__ = ("_venue",)

    def __init__(self, venue: MockVenue) -> None:
        self._venue = venue

    def order(self, client_order_id: str) -> OrderReport | None:
        order = self._venue.orders.get(client_order_id)
        return None if order is None else order.report()

    def open_orders(self, market_id: str | None) -> list[OrderReport]:
        return [order.report() for order in self._venue.open_orders(market_id)]

    def fills(self) -> list[Fill]:
        return self._venue.fills

    def balances(self) -> dict[str, float]:
        return {currency: float(amount) for currency, amount in self._venue.ledger.cash.items()}

    def positions(self) -> dict[str, float]:
        return {name: market.qty(market.position) for name, market in self._venue.markets.items()}


class _Frozen:
    """What queries see of the venue as it was."""

    __slots__ = ("_balances", "_fills", "_open", "_orders", "_positions", "until_ns")

    def __init__(self, venue: MockVenue, until_ns: int) -> None:
        live = _Live(venue)
        self.until_ns = until_ns
        self._orders = {name: order.report() for name, order in venue.orders.items()}
        self._open = live.open_orders(None)
        self._fills = list(venue.fills)
        self._balances = live.balances()
        self._positions = live.positions()

    def order(self, client_order_id: str) -> OrderReport | None:
        return self._orders.get(client_order_id)

    def open_orders(self, market_id: str | None) -> list[OrderReport]:
        return [each for each in self._open if market_id in (None, each.market_id)]

    def fills(self) -> list[Fill]:
        return self._fills

    def balances(self) -> dict[str, float]:
        return self._balances

    def positions(self) -> dict[str, float]:
        return self._positions


def _answer(act: Callable[[], Any]) -> Reply:
    try:
        return Reply(Wire.OK, act())
    except VenueRejected as refusal:
        return Reply(Wire.REFUSED, error=str(refusal))


def _try(act: Callable[[], Any]) -> None:
    """Do what nobody waits for any more."""
    _answer(act)


def _state(seen: _Live | _Frozen) -> dict[str, Any]:
    return {"positions": seen.positions(), "balances": seen.balances(), "open_orders": seen.open_orders(None)}


def _drain(session: Session) -> list[Any]:
    told = list(session.events)
    session.events.clear()
    return told
