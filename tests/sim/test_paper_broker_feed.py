"""The simulated venue on feeds: a recorded one, and the synthetic market with a maker in it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from ami_engine.errors import VenueRejected
from ami_engine.events import BookSnapshot, BookTicker, Fill, Side, SubmitOrder, Trade
from ami_engine.sim import MicrostructureSim, PaperBroker, SyntheticSource
from ami_engine.units import Instrument

PERP = Instrument("BTCUSDT", tick_size=0.1, lot_size=0.001, maker_fee_bps=2.0, taker_fee_bps=5.0)
Queue = Literal["back", "front", "prob"]


def capture(path: Path, lines: int) -> Iterator[BookTicker | Trade]:
    """Read best prices and trades of a recorded websocket feed."""
    with gzip.open(path, "rt") as file:
        for _, line in zip(range(lines), file, strict=False):
            stamp, _, text = line.partition(" ")
            data = json.loads(text).get("data", {})
            if data.get("e") == "bookTicker":
                prices = (float(data[key]) for key in ("b", "a", "B", "A"))
                yield BookTicker(data["E"] * 10**6, int(stamp), "BTCUSDT", data["u"], *prices)
            elif data.get("e") == "trade":
                size, aggressor = float(data["q"]), -1 if data["m"] else 1
                yield Trade(data["E"] * 10**6, int(stamp), "BTCUSDT", 0, float(data["p"]), size, aggressor)


def join_the_best(path: Path, queue: Queue, latency_ms: float = 0.0) -> tuple[PaperBroker, list[Fill], int]:
    """Keep a post-only quote of 0.01 at each best price, renewed when it is done; return what came of it."""
    broker = PaperBroker(PERP, cash=10_000.0, queue=queue, latency_ms=latency_ms, seed=1)
    bid = ask = bid_size = ask_size = 0.0
    fills: list[Fill] = []
    sent = 0
    refusals: list[str] = []
    for event in capture(path, 25_000):
        if isinstance(event, BookTicker):
            bid, ask, bid_size, ask_size = event.bid, event.ask, event.bid_size, event.ask_size
        if bid == 0.0:
            continue
        broker.on_market_data(event, bid, ask, bid_size, ask_size)
        fills += broker.process_fills(event.recv_ts_ns // 10**6)
        resting = {report.side: report for report in broker.fetch_open_orders()}
        for side, price in ((Side.BUY, bid), (Side.SELL, ask)):
            if side in resting and abs(resting[side].price - price) > 0.55:
                broker.cancel_order(resting[side].client_order_id)
            elif side not in resting:
                sent += 1
                order = SubmitOrder(
                    client_order_id=f"q{sent}", market_id="BTCUSDT", side=side, price=price, qty=0.01, post_only=True
                )
                try:
                    broker.submit_order(order)
                except VenueRejected as refusal:
                    refusals.append(str(refusal))
    # The old quote may still rest where the market came back to: the only reason for which a new one is refused.
    assert all("self-trade" in refusal for refusal in refusals)
    return broker, fills, sent


@pytest.mark.parametrize("latency_ms", [0.0, 25.0])
def test_quotes_on_a_recorded_feed_fill_and_balance(data_dir: Path, latency_ms: float) -> None:
    path = data_dir / "binance-usdm-btcusdt-20240808.feed.gz"
    broker, fills, sent = join_the_best(path, "back", latency_ms)
    assert len(fills) > 20
    assert sent >= len({fill.client_order_id for fill in fills})
    assert {fill.liquidity.value for fill in fills} == {"MAKER"}
    assert all(61_000 < fill.price < 63_000 and 0 < fill.qty <= 0.01 for fill in fills)
    cash = 10_000.0 - sum(fill.signed_qty * fill.price + fill.fee for fill in fills)
    assert broker.get_state()["cash"] == pytest.approx(cash, abs=1e-6)
    assert broker.get_state()["positions"]["BTCUSDT"] == pytest.approx(sum(fill.signed_qty for fill in fills), abs=1e-9)


def test_the_front_of_the_queue_is_filled_most_and_the_back_least(data_dir: Path) -> None:
    path = data_dir / "binance-usdm-btcusdt-20240808.feed.gz"
    volume = {queue: sum(fill.qty for fill in join_the_best(path, queue)[1]) for queue in ("front", "prob", "back")}
    assert volume["front"] > volume["prob"] >= volume["back"] > 0.0


def test_a_maker_in_the_synthetic_market_fills_closes_and_balances() -> None:
    source = SyntheticSource(MicrostructureSim(seed=42), num_events=2_000)
    broker = PaperBroker(instruments=source.instruments())
    best = (0.0, 0.0, 0.0, 0.0)
    sides: list[Side] = []
    number = 0
    while (event := source.next_event()) is not None:
        if isinstance(event, BookSnapshot):
            best = (event.bid, event.ask, event.bids[0][1], event.asks[0][1])
        broker.on_market_data(event, *best)
        sides += [fill.side for fill in broker.process_fills(0)]
        position = broker.get_state()["positions"].get("SYNTH", 0.0)
        resting = {report.side: report for report in broker.fetch_open_orders()}
        for side, price, may in ((Side.BUY, best[0], position < 6), (Side.SELL, best[1], position > -6)):
            if side in resting and (resting[side].price != price or not may):
                broker.cancel_order(resting[side].client_order_id)
            elif side not in resting and may:
                number += 1
                broker.submit_order(
                    SubmitOrder(
                        client_order_id=f"q{number}", market_id="SYNTH", side=side, price=price, qty=2.0, post_only=True
                    )
                )
    assert sides.count(Side.BUY) > 20
    assert sides.count(Side.SELL) > 20
