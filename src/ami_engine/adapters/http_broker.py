"""A broker over HTTP and WebSocket: the example to copy when you connect your own venue.

It speaks the API of `ami_engine.sim.exchange_server`. What is worth copying is not the API but how every way to fail is
told apart:

- *refused* (400): the venue said no, nothing is live → `VenueRejected`;
- *not sent*, *not taken* (no connection could be made, 429): → `VenueUnavailable(outcome_known=True)`;
- *nobody knows* (timeout, connection closed, 5xx, an answer that cannot be read): → `VenueUnavailable`. The engine then
  asks by client order id before anything else; the adapter itself never sends anything twice;
- after a lost reply the connection is closed, so that an answer that comes late is never read as the next one's;
- the stream is only a hint: whenever it was broken, what it missed is fetched, and repeats are dropped by trade id.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from ami_engine.adapters.base import Broker
from ami_engine.errors import ConfigError, VenueRejected, VenueUnavailable
from ami_engine.events import Fill, OrderAck, OrderReport, SubmitOrder
from ami_engine.units import NS_PER_S

try:
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect
except ModuleNotFoundError as error:
    raise ConfigError("the HTTP broker needs websockets: pip install 'mdm-engine[exchange]'") from error

__all__ = ["HttpBroker"]

_T = TypeVar("_T")
# A stream that broke may have missed what was executed shortly before: venues stamp fills before they tell them.
_OVERLAP_NS = 10 * NS_PER_S
_TRADES_KEPT = 10_000
_RECONNECT_S = 0.05


class _Event(msgspec.Struct):
    type: str
    data: msgspec.Raw


class HttpBroker(Broker):
    """A venue over HTTP, with its stream of fills over WebSocket.

    Parameters
    ----------
    url : str
        ``http://host:port``.
    timeout_ms : float
        How long an answer is waited for, > 0.
    recv_window_ms : int or None
        As `Broker.recv_window_ms`: the engine stamps `expires_ns`, and the venue refuses what comes later.
    since_ns : int
        Fills from here on are told, ns since the Unix epoch; 0 is all that the venue knows. The engine drops what it
        has booked before.

    Raises
    ------
    ConfigError
        When the address is none, or a number is out of range.

    Examples
    --------
    >>> HttpBroker("ftp://venue")
    Traceback (most recent call last):
    ami_engine.errors.ConfigError: `url` must be http://host:port, was 'ftp://venue'
    """

    def __init__(
        self, url: str, *, timeout_ms: float = 1_000, recv_window_ms: int | None = 1_000, since_ns: int = 0
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ConfigError(f"`url` must be http://host:port, was {url!r}")
        if not timeout_ms > 0:
            raise ConfigError(f"`timeout_ms` must be above 0, was {timeout_ms!r}")
        if recv_window_ms is not None and recv_window_ms < 1:
            raise ConfigError(f"`recv_window_ms` must be at least 1, or None, was {recv_window_ms!r}")
        self.recv_window_ms = recv_window_ms
        self._timeout_s = timeout_ms / 1_000
        self._http = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=self._timeout_s)
        self._stream_url = f"ws://{parts.netloc}/v1/stream"
        self._told: deque[Fill] = deque()  # by the stream's thread, read by the engine's
        self._has_missed = threading.Event()
        self._has_missed.set()  # what was executed before the stream was there
        self._closed = threading.Event()
        self._since_ns = since_ns
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._thread = threading.Thread(target=self._listen, name="http-broker-stream", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the connections. May be called more than once."""
        self._closed.set()
        self._http.close()
        self._thread.join(self._timeout_s + 1.0)

    # Orders. ------------------------------------------------------------------------------------------------------

    def submit_order(self, order: SubmitOrder) -> OrderAck:
        """Place an order, with its expiry.

        Raises
        ------
        VenueRejected
            The venue refused it.
        VenueUnavailable
            Nobody knows, or, with `outcome_known`, nothing was done.
        """
        return self._ask("POST", "/v1/order", OrderAck, msgspec.json.encode(order))

    def cancel_order(self, order_id: str) -> bool:
        """Cancel by client order id; raises as `submit_order`."""
        return self._ask("DELETE", f"/v1/order/{quote(order_id, safe='')}", bool)

    def cancel_all(self, market_id: str | None = None) -> int:
        """Cancel every order, or those of one market; raises as `submit_order`."""
        return self._ask("DELETE", "/v1/orders" + _query("market", market_id), int)

    # Queries. -----------------------------------------------------------------------------------------------------

    def fetch_order(self, client_order_id: str) -> OrderReport | None:
        """Return what the venue says of one order, None when it knows none; raises `VenueUnavailable`."""
        status, body = self._exchange_bytes("GET", f"/v1/order/{quote(client_order_id, safe='')}")
        # Only the venue's own word counts: a proxy's 404 page says nothing of the order.
        if status == 404 and _decode(body, dict[str, str]).get("error") == "unknown order":
            return None
        return _read(status, body, OrderReport)

    def fetch_open_orders(self, market_id: str | None = None) -> Sequence[OrderReport]:
        """Return the open orders; raises `VenueUnavailable`."""
        return self._ask("GET", "/v1/orders" + _query("market", market_id), list[OrderReport])

    def fetch_fills(self, since_ns: int) -> Iterable[Fill]:
        """Return the fills since `since_ns`, oldest first; raises `VenueUnavailable`."""
        return self._ask("GET", f"/v1/fills?since_ns={max(0, since_ns)}", list[Fill])

    def get_state(self) -> dict[str, Any]:
        """Return positions, open orders and cash; raises `VenueUnavailable`."""
        account = self._ask("GET", "/v1/account", _Account)
        return {
            "positions": account.positions,
            "open_orders": account.open_orders,
            "cash": next(iter(account.balances.values()), 0.0),
        }

    def fetch_balances(self) -> Mapping[str, float]:
        """Return the cash of each currency; raises `VenueUnavailable`."""
        return self._ask("GET", "/v1/account", _Account).balances

    # Fills. -------------------------------------------------------------------------------------------------------

    def process_fills(self, now_ms: int) -> list[Fill]:
        """Return the fills since the last call, each once, also those that the stream missed.

        Raises
        ------
        VenueUnavailable
            When what was missed cannot be fetched: the next call tries again.
        """
        found: list[Fill] = []
        if self._has_missed.is_set():
            # Cleared first: a break while we ask must lead to asking again.
            self._has_missed.clear()
            try:
                found.extend(self.fetch_fills(self._since_ns))
            except VenueUnavailable:
                self._has_missed.set()
                raise
        while self._told:
            found.append(self._told.popleft())
        return [fill for fill in found if self._is_new(fill)]

    def _is_new(self, fill: Fill) -> bool:
        key = (fill.client_order_id, fill.trade_id)
        if key in self._known:
            return False
        self._known[key] = None
        if len(self._known) > _TRADES_KEPT:
            self._known.popitem(last=False)
        self._since_ns = max(self._since_ns, fill.ts_ns - _OVERLAP_NS)
        return True

    def _listen(self) -> None:
        """Read the stream until the broker is closed; whenever it was broken, note that something was missed."""
        while not self._closed.is_set():
            # The stream's own errors end it, and so does a line that cannot be read: nobody knows what it said.
            with (
                contextlib.suppress(OSError, WebSocketException, msgspec.MsgspecError),
                connect(self._stream_url, open_timeout=self._timeout_s, close_timeout=0.1) as stream,
            ):
                self._has_missed.set()
                self._read_stream(stream)
            self._has_missed.set()
            self._closed.wait(_RECONNECT_S)

    def _read_stream(self, stream: Any) -> None:
        while not self._closed.is_set():
            try:
                message = stream.recv(timeout=0.1)
            except TimeoutError:
                continue
            event = msgspec.json.decode(message, type=_Event)
            if event.type == "fill":
                self._told.append(msgspec.json.decode(event.data, type=Fill))

    # The wire. ----------------------------------------------------------------------------------------------------

    def _ask(self, method: str, path: str, kind: type[_T], body: bytes | None = None) -> _T:
        return _read(*self._exchange_bytes(method, path, body), kind)

    def _exchange_bytes(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Send one request and return its status and body."""
        connection = self._http
        if connection.sock is None:
            try:
                connection.connect()
            except OSError as error:
                connection.close()
                raise VenueUnavailable(f"no connection: {_text(error)}", outcome_known=True) from error
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            # Invariant: an answer is read on the connection that carried its request, or never.
            connection.close()
            raise VenueUnavailable(f"{method} {path.partition('?')[0]}: {_text(error)}") from error


class _Account(msgspec.Struct):
    positions: dict[str, float]
    balances: dict[str, float]
    open_orders: list[OrderReport]


def _read(status: int, body: bytes, kind: type[_T]) -> _T:
    if status == 200:
        return _decode(body, kind)
    error = body.decode("utf-8", "replace")[:200]
    if status == 400:
        raise VenueRejected(_decode(body, dict[str, str]).get("error", error))
    if status == 429:
        raise VenueUnavailable(f"rate limit: {error}", outcome_known=True, is_rate_limit=True)
    raise VenueUnavailable(f"the venue answered {status}: {error}")


def _decode(body: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise VenueUnavailable(f"the reply cannot be read: {error}") from error


def _query(name: str, value: str | None) -> str:
    return "" if value is None else f"?{name}={quote(value, safe='')}"


def _text(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
