"""The mock exchange over HTTP and WebSocket on loopback: the same faults, as sockets have them.

Run one with ``python -m ami_engine.sim.exchange_server --port 8399 --seed 7 --faults random``.

REST (JSON): ``POST /v1/order``, ``DELETE /v1/order/{id}``, ``DELETE /v1/orders``, ``GET /v1/order/{id}``,
``GET /v1/orders``, ``/v1/fills?since_ns=``, ``/v1/account``, ``/v1/ticker``. WebSocket: ``/v1/stream`` tells every fill
and every change of an order. ``/truth`` and ``/quiet`` are for the test that looks on: no fault touches them.
"""

from __future__ import annotations

import argparse
import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from ami_engine.clock import WallClock
from ami_engine.errors import ConfigError
from ami_engine.events import Fill, SubmitOrder
from ami_engine.sim.faults import FaultPlan
from ami_engine.sim.mock_exchange import MockExchange, Reply, Session, Wire

try:
    from aiohttp import WSMsgType, web
except ModuleNotFoundError as error:
    raise ConfigError("the exchange server needs aiohttp: pip install 'mdm-engine[exchange]'") from error

__all__ = ["ExchangeServer"]

_T = TypeVar("_T")

_HOST = "127.0.0.1"
_START_TIMEOUT_S = 10.0
# A request that is to time out is held for so long: beyond any client's patience here.
_HANG_S = 30.0
# How often what is due is looked for, where the market stands still.
_LOOK_S = 0.005
_GARBAGE = b'{"client_order_id": "\xff\xfe'
_STATUS = {Wire.OK: 200, Wire.REFUSED: 400, Wire.LIMITED: 429}


class ExchangeServer:
    """Serves a `MockExchange` from a thread of its own, until it is closed.

    Parameters
    ----------
    exchange : MockExchange
        On a `WallClock`. From now on only the server's thread may touch it.
    port : int
        0 takes a free one.
    every_ms : int
        How often the market moves; 0 is never.

    Raises
    ------
    ConfigError
        When the port is taken, or aiohttp is not installed.

    Examples
    --------
    >>> with ExchangeServer(MockExchange(WallClock())) as server:
    ...     server.url.startswith("http://127.0.0.1:")
    True
    """

    def __init__(self, exchange: MockExchange, port: int = 0, *, every_ms: int = 10) -> None:
        self._exchange = exchange
        self._every_s = every_ms / 1_000 or _LOOK_S
        self._moves = every_ms > 0
        self._port = port
        self._sockets: set[web.WebSocketResponse] = set()
        self._ready = threading.Event()
        self._stopping: asyncio.Event | None = None
        self._failure = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._serve, name="mock-exchange", daemon=True)
        self._thread.start()
        self._ready.wait(_START_TIMEOUT_S)
        if self._failure or not self._ready.is_set():
            raise ConfigError(f"the mock exchange cannot listen on port {port}: {self._failure or 'it did not start'}")

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{_HOST}:{self._port}"

    def __enter__(self) -> ExchangeServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving. May be called more than once."""
        if self._thread.is_alive() and self._loop is not None and self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(_START_TIMEOUT_S)

    def call(self, act: Callable[[MockExchange], _T]) -> _T:
        """Return what `act` makes of the exchange, on the server's thread: a test looks at the truth so."""

        async def run() -> _T:
            return act(self._exchange)

        if self._loop is None:
            raise ConfigError("the mock exchange is not running")
        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(_START_TIMEOUT_S)

    def wait(self) -> None:
        """Return when the server has stopped."""
        self._thread.join()

    # The thread. --------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            asyncio.run(self._run())
        except OSError as error:
            self._failure = error.strerror or str(error)
        finally:
            self._ready.set()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        app = web.Application()
        app.add_routes(self._routes())
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2)
        await runner.setup()
        try:
            site = web.TCPSite(runner, _HOST, self._port)
            await site.start()
            self._port = runner.addresses[0][1]
            self._ready.set()
            await self._live()
        finally:
            await self._cut_streams()
            await runner.cleanup()

    async def _live(self) -> None:
        """Let the market live until the server is stopped."""
        assert self._stopping is not None
        unread = Session()
        while not self._stopping.is_set():
            if self._moves:
                self._exchange.move()
            else:
                self._exchange.advance()
            if self._exchange.poll(unread).wire is not Wire.OK:
                await self._cut_streams()
            try:
                await asyncio.wait_for(self._stopping.wait(), self._every_s)
            except TimeoutError:
                continue

    async def _cut_streams(self) -> None:
        for socket in list(self._sockets):
            await socket.close(code=1012)

    # Requests. ----------------------------------------------------------------------------------------------------

    def _routes(self) -> list[web.AbstractRouteDef]:
        return [
            web.post("/v1/order", self._submit),
            web.delete("/v1/order/{id}", self._cancel),
            web.delete("/v1/orders", self._cancel_all),
            web.get("/v1/order/{id}", self._order),
            web.get("/v1/orders", self._orders),
            web.get("/v1/fills", self._fills),
            web.get("/v1/account", self._account),
            web.get("/v1/ticker", self._ticker),
            web.get("/v1/stream", self._stream),
            web.get("/truth", self._truth),
            web.post("/quiet", self._quiet),
        ]

    async def _submit(self, request: web.Request) -> web.StreamResponse:
        try:
            order = msgspec.json.decode(await request.read(), type=SubmitOrder)
        except msgspec.DecodeError as error:
            return _json({"error": str(error)}, 400)
        return await self._send(request, self._exchange.submit(order))

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        return await self._send(request, self._exchange.cancel(request.match_info["id"]))

    async def _cancel_all(self, request: web.Request) -> web.StreamResponse:
        return await self._send(request, self._exchange.cancel_all(request.query.get("market")))

    async def _order(self, request: web.Request) -> web.StreamResponse:
        reply = self._exchange.fetch_order(request.match_info["id"])
        if reply.wire is Wire.OK and reply.value is None:
            return _json({"error": "unknown order"}, 404)
        return await self._send(request, reply)

    async def _orders(self, request: web.Request) -> web.StreamResponse:
        return await self._send(request, self._exchange.fetch_open_orders(request.query.get("market")))

    async def _fills(self, request: web.Request) -> web.StreamResponse:
        since = request.query.get("since_ns", "0")
        if not since.isdecimal():
            return _json({"error": f"`since_ns` must be a whole number, was {since!r}"}, 400)
        return await self._send(request, self._exchange.fetch_fills(int(since)))

    async def _account(self, request: web.Request) -> web.StreamResponse:
        return await self._send(request, self._exchange.fetch_state())

    async def _ticker(self, request: web.Request) -> web.StreamResponse:
        markets = self._exchange.venue.markets
        market = markets.get(request.query.get("market", next(iter(markets))))
        if market is None:
            return _json({"error": "unknown market"}, 404)
        bid, bid_size, ask, ask_size = market.best
        return _json({"bid": bid, "bid_size": bid_size, "ask": ask, "ask_size": ask_size}, 200)

    async def _send(self, request: web.Request, reply: Reply) -> web.StreamResponse:
        """Do to the socket what the reply says."""
        if reply.delay_ms:
            await asyncio.sleep(reply.delay_ms / 1_000)
        status = _STATUS.get(reply.wire)
        if status is not None:
            return _json(reply.value if status == 200 else {"error": reply.error}, status)
        if reply.wire is Wire.GARBAGE:
            return web.Response(body=_GARBAGE, content_type="application/json")
        if reply.wire is Wire.LOST:
            await asyncio.sleep(_HANG_S)
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=503)

    # The stream. --------------------------------------------------------------------------------------------------

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(heartbeat=5.0)
        await socket.prepare(request)
        told: asyncio.Queue[Any] = asyncio.Queue()
        session = self._exchange.connect(told.put_nowait)
        self._sockets.add(socket)
        writer = asyncio.create_task(_write_events(socket, told.get))
        try:
            async for message in socket:
                if message.type is WSMsgType.ERROR:
                    break
        finally:
            writer.cancel()
            self._sockets.discard(socket)
            self._exchange.disconnect(session)
        return socket

    # For the test that looks on. ----------------------------------------------------------------------------------

    async def _truth(self, request: web.Request) -> web.StreamResponse:
        del request
        venue = self._exchange.venue
        return _json(
            {
                "orders": [order.report() for order in venue.orders.values()],
                "placements": venue.placements,
                "most_on_a_side": venue.most_on_a_side,
                "fills": venue.fills,
                "positions": {name: market.qty(market.position) for name, market in venue.markets.items()},
                "balances": {name: str(amount) for name, amount in venue.ledger.cash.items()},
            },
            200,
        )

    async def _quiet(self, request: web.Request) -> web.StreamResponse:
        del request
        self._exchange.quiet()
        return _json({}, 200)


async def _write_events(socket: web.WebSocketResponse, next_event: Callable[[], Awaitable[Any]]) -> None:
    while True:
        event = await next_event()
        kind = "fill" if isinstance(event, Fill) else "order"
        try:
            await socket.send_bytes(msgspec.json.encode({"type": kind, "data": event}))
        except ConnectionError:
            return


def _json(value: Any, status: int) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def main() -> None:
    """Serve one exchange until the process is ended; print its address first."""
    parser = argparse.ArgumentParser(prog="python -m ami_engine.sim.exchange_server", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every-ms", type=int, default=10)
    parser.add_argument("--faults", default="", help="a plan, or `random` for the seed's own")
    parser.add_argument("--dedupe", choices=("all", "open"), default="all")
    given = parser.parse_args()
    plan = FaultPlan.from_seed(given.seed) if given.faults == "random" else FaultPlan.parse(given.faults)
    exchange = MockExchange(WallClock(), None, given.seed, plan, dedupe=given.dedupe)
    server = ExchangeServer(exchange, given.port, every_ms=given.every_ms)
    print(server.url, flush=True)
    server.wait()


if __name__ == "__main__":
    main()
