"""The engine in a ccxt loop: books by REST, orders through ccxt, and every error of ccxt said in the engine's words.

The exchange is `ccxt.binance`, pointed at a stand-in server that this file starts on the local machine: no network, no
keys. The server loses one answer on purpose, after it took the order, so that you see what becomes of a doubt.

Needs ccxt (`pip install ccxt`). Run it: `python docs/examples/ccxt_bot.py`
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np

from ami_engine.adapters import Broker, MarketDataSource
from ami_engine.clock import WallClock, sleep
from ami_engine.config import QuotingConfig
from ami_engine.dmc import RiskPolicy
from ami_engine.errors import VenueRejected, VenueUnavailable
from ami_engine.events import BookSnapshot, Fill, Liquidity, OrderAck, OrderReport, OrderStatus, Side, SubmitOrder
from ami_engine.events import TimeInForce as Tif
from ami_engine.loop.run_loop import run_loop
from ami_engine.mdm.decision_engine import DecisionEngine
from ami_engine.units import Instrument
from decision_schema.types import Action, Proposal

try:
    import ccxt
except ImportError:
    ccxt = None

SYMBOL = "ACME/USDT"
MARKET = Instrument(SYMBOL, tick_size=0.01, lot_size=1.0, currency="USDT")
POLICY = RiskPolicy(
    max_per_market_usd=100.0,
    max_total_exposure_usd=1_000.0,
    max_abs_inventory=40.0,
    daily_loss_stop_usd=50.0,
    cancel_rate_limit=500,
    adv15_max_ticks=50.0,
    adv60_max_ticks=50.0,
    sigma_spike_z_max=20.0,
    staleness_ms=5_000,
)
STATUS = {
    "open": OrderStatus.NEW,
    "closed": OrderStatus.FILLED,
    "canceled": OrderStatus.CANCELED,
    "expired": OrderStatus.CANCELED,
    "rejected": OrderStatus.REJECTED,
}


class CcxtSource(MarketDataSource):
    """Asks for the book again and again; each answer is an event.

    Parameters
    ----------
    exchange : ccxt.Exchange
        Used by the reading thread alone.
    count : int
        After so many books the run ends.
    pause_s : float
        Between two questions. Without it books pile up, and decisions are made on old ones.
    """

    is_live = True
    snapshots_only = True

    def __init__(self, exchange: Any, count: int, pause_s: float = 0.015) -> None:
        self._exchange = exchange
        self._pause_s = pause_s
        self._left = count

    def next_event(self) -> BookSnapshot | None:
        if self._left == 0:
            return None
        self._left -= 1
        sleep(self._pause_s)
        # What this raises is a failure of the source: the engine asks again, with a growing wait.
        book = self._exchange.fetch_order_book(SYMBOL, limit=5)
        return BookSnapshot(
            exch_ts_ns=(book["timestamp"] or 0) * 1_000_000,
            recv_ts_ns=WallClock().now_ns(),
            symbol=SYMBOL,
            bids=[level[:2] for level in book["bids"]],
            asks=[level[:2] for level in book["asks"]],
        )

    def instruments(self) -> Mapping[str, Instrument]:
        return {SYMBOL: MARKET}


class CcxtBroker(Broker):
    """Orders through ccxt, by client order id, with ccxt's errors as the engine's.

    Parameters
    ----------
    exchange : ccxt.Exchange
        Used by the loop's thread alone.
    """

    def __init__(self, exchange: Any) -> None:
        self._exchange = exchange
        self._acks: dict[str, OrderAck] = {}
        self._client_ids: dict[str, str] = {}
        self._next_trade = 1

    def submit_order(self, order: SubmitOrder) -> OrderAck:
        known = self._acks.get(order.client_order_id)
        if known is not None:
            return known
        params: dict[str, Any] = {"clientOrderId": order.client_order_id}
        if order.post_only:
            params["postOnly"] = True
        if order.tif is Tif.IOC:
            params["timeInForce"] = "IOC"
        with said_in_our_words():
            sent = self._exchange.create_order(SYMBOL, "limit", order.side.lower(), order.qty, order.price, params)
        self._client_ids[sent["id"]] = order.client_order_id
        ack = OrderAck(client_order_id=order.client_order_id, venue_order_id=sent["id"])
        return self._acks.setdefault(order.client_order_id, ack)

    def cancel_order(self, order_id: str) -> bool:
        with said_in_our_words():
            try:
                self._exchange.cancel_order("", SYMBOL, {"clientOrderId": order_id})
            except ccxt.OrderNotFound:
                return False
        return True

    def cancel_all(self, market_id: str | None = None) -> int:
        with said_in_our_words():
            try:
                return len(self._exchange.cancel_all_orders(SYMBOL))
            except ccxt.OrderNotFound:  # Binance's way to say that none is open
                return 0

    def process_fills(self, now_ms: int) -> Sequence[Fill]:
        with said_in_our_words():
            trades = self._exchange.fetch_my_trades(SYMBOL, None, 1_000, {"fromId": self._next_trade})
        for trade in trades:
            self._next_trade = max(self._next_trade, int(trade["id"]) + 1)
        return [self._fill(trade) for trade in trades]

    def fetch_order(self, client_order_id: str) -> OrderReport | None:
        with said_in_our_words():
            try:
                told = self._exchange.fetch_order("", SYMBOL, {"clientOrderId": client_order_id})
            except ccxt.OrderNotFound:
                return None
        return self._report(told)

    def fetch_open_orders(self, market_id: str | None = None) -> Sequence[OrderReport]:
        with said_in_our_words():
            return [self._report(told) for told in self._exchange.fetch_open_orders(SYMBOL)]

    def fetch_fills(self, since_ns: int) -> Sequence[Fill]:
        with said_in_our_words():
            trades = self._exchange.fetch_my_trades(SYMBOL, since_ns // 1_000_000, 1_000)
        return [self._fill(trade) for trade in trades]

    def fetch_balances(self) -> Mapping[str, float]:
        with said_in_our_words():
            return dict(self._exchange.fetch_balance()["total"])

    def _report(self, told: Mapping[str, Any]) -> OrderReport:
        self._client_ids[told["id"]] = told["clientOrderId"]
        return OrderReport(
            client_order_id=told["clientOrderId"],
            market_id=SYMBOL,
            side=Side(told["side"].upper()),
            price=told["price"],
            qty=told["amount"],
            filled_qty=told["filled"],
            status=STATUS[told["status"]],
            venue_order_id=told["id"],
        )

    def _fill(self, trade: Mapping[str, Any]) -> Fill:
        client_id = self._client_ids.get(trade["order"])
        if client_id is None:  # the order's answer was lost, and its fill is here before it was looked up
            with said_in_our_words():
                client_id = self._exchange.fetch_order(trade["order"], SYMBOL)["clientOrderId"]
            self._client_ids[trade["order"]] = client_id
        return Fill(
            trade_id=trade["id"],
            client_order_id=client_id,
            market_id=SYMBOL,
            side=Side(trade["side"].upper()),
            price=trade["price"],
            qty=trade["amount"],
            fee=trade["fee"]["cost"],
            fee_currency=trade["fee"]["currency"],
            liquidity=Liquidity.MAKER if trade["takerOrMaker"] == "maker" else Liquidity.TAKER,
            ts_ns=trade["timestamp"] * 1_000_000,
        )


@contextmanager
def said_in_our_words() -> Iterator[None]:
    """Turn what ccxt raises into certainly not done, certainly not arrived, or nobody knows."""
    try:
        yield
    except ccxt.RateLimitExceeded as error:
        raise VenueUnavailable(str(error), outcome_known=True) from error
    except ccxt.NetworkError as error:  # a timeout or a broken connection: the order may rest all the same
        raise VenueUnavailable(str(error)) from error
    except ccxt.ExchangeError as error:
        raise VenueRejected(str(error)) from error


def join_the_touch(features: Any, **_: Any) -> Proposal:
    """Quote at the best prices of both sides."""
    quotes = {"bid_quote": features["bid"], "ask_quote": features["ask"], "size_usd": 60.0}
    return Proposal(Action.ACT, 0.6, ["join_the_touch"], quotes)


class StandIn:
    """A venue behind HTTP that speaks as much of Binance's spot API as the bot uses. Each book moves the market.

    Parameters
    ----------
    seed : int
        Of the market's walk.
    loses_answer : int
        The number of the order whose answer is lost.
    """

    def __init__(self, seed: int, loses_answer: int) -> None:
        self.orders: list[dict[str, Any]] = []
        self.trades: list[dict[str, Any]] = []
        self.lost = 0
        self.lock = threading.Lock()
        self._loses_answer = loses_answer
        self._bid_ticks = 2_000
        self._random = np.random.Generator(np.random.PCG64(seed))

    @property
    def position(self) -> float:
        """What was bought less what was sold."""
        return sum(float(trade["qty"]) * (1 if trade["isBuyer"] else -1) for trade in self.trades)

    @property
    def resting(self) -> list[dict[str, Any]]:
        """Orders that are live."""
        return [order for order in self.orders if order["status"] == "NEW"]

    def answer(self, method: str, path: str, query: Mapping[str, str]) -> tuple[int, Any] | None:
        """Return status and answer of a request; None loses the answer."""
        if path == "/api/v3/exchangeInfo":
            return 200, {"symbols": [SYMBOL_INFO]}
        if path == "/api/v3/depth":
            self._move()
            bids = [[f"{(self._bid_ticks - i) / 100:.2f}", "60"] for i in range(5)]
            asks = [[f"{(self._bid_ticks + 2 + i) / 100:.2f}", "60"] for i in range(5)]
            return 200, {"lastUpdateId": 1, "bids": bids, "asks": asks}
        if path == "/api/v3/myTrades":
            first, since_ms = int(query.get("fromId", 1)), int(query.get("startTime", 0))
            return 200, [trade for trade in self.trades if trade["id"] >= first and trade["time"] >= since_ms]
        if path == "/api/v3/account":
            return 200, {"balances": [{"asset": "ACME", "free": str(self.position), "locked": "0"}]}
        if path == "/api/v3/openOrders" and method == "GET":
            return 200, self.resting
        if path == "/api/v3/openOrders" and method == "DELETE":
            return self._cancel(self.resting, {"code": -2011, "msg": "Unknown order sent."})
        if path == "/api/v3/order" and method == "POST":
            return self._place(query)
        wanted = query.get("origClientOrderId", ""), query.get("orderId", "")
        found = [o for o in self.orders if o["clientOrderId"] == wanted[0] or str(o["orderId"]) == wanted[1]]
        if path == "/api/v3/order" and method == "DELETE":
            done = self._cancel(
                [o for o in found if o["status"] == "NEW"], {"code": -2011, "msg": "Unknown order sent."}
            )
            return (done[0], done[1][0]) if done[0] == 200 else done
        if path == "/api/v3/order":
            return (200, found[0]) if found else (400, {"code": -2013, "msg": "Order does not exist."})
        return 404, {"code": -1000, "msg": f"{method} {path} is not here"}

    def _place(self, query: Mapping[str, str]) -> tuple[int, Any] | None:
        ticks, is_buy = round(float(query["price"]) * 100), query["side"] == "BUY"
        touch = self._bid_ticks + 2 if is_buy else self._bid_ticks
        crosses = ticks >= touch if is_buy else ticks <= touch
        if query["type"] == "LIMIT_MAKER" and crosses:
            return 400, {"code": -2010, "msg": "Order would immediately match and take."}
        order = {
            "symbol": "ACMEUSDT",
            "orderId": len(self.orders) + 1,
            "clientOrderId": query["newClientOrderId"],
            "price": query["price"],
            "origQty": query["quantity"],
            "executedQty": "0",
            "cummulativeQuoteQty": "0",
            "status": "NEW",
            "timeInForce": query.get("timeInForce", "GTC"),
            "type": query["type"],
            "side": query["side"],
            "time": WallClock().now_ns() // 1_000_000,
        }
        self.orders.append(order)
        if crosses:
            self._trade(order, touch, is_maker=False)
        elif order["timeInForce"] == "IOC":
            order["status"] = "EXPIRED"
        if order["orderId"] == self._loses_answer:
            self.lost += 1
            return None
        return 200, order

    def _cancel(self, orders: list[dict[str, Any]], nothing: dict[str, Any]) -> tuple[int, Any]:
        for order in orders:
            order["status"] = "CANCELED"
        return (200, orders) if orders else (400, nothing)

    def _move(self) -> None:
        self._bid_ticks += int(self._random.integers(-1, 2))
        for order in self.resting:
            ticks = round(float(order["price"]) * 100)
            is_buy = order["side"] == "BUY"
            if ticks >= self._bid_ticks + 2 if is_buy else ticks <= self._bid_ticks:
                self._trade(order, ticks, is_maker=True)

    def _trade(self, order: dict[str, Any], ticks: int, *, is_maker: bool) -> None:
        order["status"], order["executedQty"] = "FILLED", order["origQty"]
        self.trades.append(
            {
                "symbol": "ACMEUSDT",
                "id": len(self.trades) + 1,
                "orderId": order["orderId"],
                "price": f"{ticks / 100:.2f}",
                "qty": order["origQty"],
                "commission": "0",
                "commissionAsset": "USDT",
                "time": WallClock().now_ns() // 1_000_000,
                "isBuyer": order["side"] == "BUY",
                "isMaker": is_maker,
            }
        )


SYMBOL_INFO = {
    "symbol": "ACMEUSDT",
    "status": "TRADING",
    "baseAsset": "ACME",
    "quoteAsset": "USDT",
    "baseAssetPrecision": 8,
    "quotePrecision": 8,
    "isSpotTradingAllowed": True,
    "permissionSets": [["SPOT"]],
    "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"],
    "filters": [
        {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "100000", "tickSize": "0.01"},
        {"filterType": "LOT_SIZE", "minQty": "1", "maxQty": "100000", "stepSize": "1"},
    ],
}


@contextmanager
def serving(venue: StandIn) -> Iterator[str]:
    """Serve the stand-in on a free local port and yield its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_request(self) -> None:
            url = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            with venue.lock:
                answer = venue.answer(self.command, url.path, dict(parse_qsl(url.query) + parse_qsl(body)))
                text = b"" if answer is None else json.dumps(answer[1]).encode()
            if answer is None:
                self.close_connection = True
                return
            self.send_response(answer[0])
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_DELETE = handle_request

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing for each request."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def make_exchange(address: str) -> Any:
    """Return ccxt's Binance, pointed at the stand-in; for the real one leave the address out and give your own keys."""
    exchange = ccxt.binance(
        {
            "apiKey": "stand-in",
            "secret": "stand-in",
            "enableRateLimit": False,  # the stand-in has no limits; leave it on elsewhere
            "options": {
                "defaultType": "spot",
                "fetchMarkets": {"types": ["spot"]},
                "fetchMargins": False,
                "fetchCurrencies": False,
            },
        }
    )
    exchange.urls["api"] = dict.fromkeys(exchange.urls["api"], f"{address}/elsewhere")
    exchange.urls["api"]["public"] = exchange.urls["api"]["private"] = f"{address}/api/v3"
    exchange.load_markets()
    return exchange


def main(books: int = 160) -> dict[str, Any]:
    """Run the bot over some books and return the run's summary, with what the venue says."""
    venue = StandIn(seed=4, loses_answer=20)
    with serving(venue) as address:
        summary = run_loop(
            source=CcxtSource(make_exchange(address), books),
            broker=CcxtBroker(make_exchange(address)),
            decision_engine=DecisionEngine(model=join_the_touch),
            risk_policy=POLICY,
            quoting=QuotingConfig(refresh_ms=30),
            trace=False,
        )
    summary["venue_orders"] = len(venue.orders)
    summary["venue_position"] = venue.position
    summary["venue_resting"] = len(venue.resting)
    summary["answers_lost"] = venue.lost
    return summary


def report(summary: Mapping[str, Any]) -> None:
    """Say in plain words what the bot did."""
    print(f"{summary['steps']} books decided on; {summary['orders_submitted']} orders sent,", end=" ")
    print(f"{summary['orders_rejected']} refused, {summary['fills_count']} fills")
    print(f"answers lost: {summary['answers_lost']}; orders that were in doubt: {summary['orders_in_doubt']}")
    print(f"position: {summary['positions'].get(SYMBOL, 0.0):g} here,", end=" ")
    print(f"{summary['venue_position']:g} at the venue; {summary['venue_resting']} orders left there")


if __name__ == "__main__":
    if ccxt is None:
        sys.exit("this example needs ccxt: pip install ccxt")
    report(main())
