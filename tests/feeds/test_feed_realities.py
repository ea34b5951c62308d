"""What real feeds are like, as PROVENANCE.md lists it, and what the loop makes of it."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import pytest

from ami_engine.adapters.open_source import open_source
from ami_engine.events import BookSnapshot, BookTicker, Trade
from ami_engine.features.schema import FEATURE_INDEX
from ami_engine.loop.market import Market
from ami_engine.trace.reader import verify
from ami_engine.units import Instrument

from .conftest import FEEDS, SHIPPED, Feed, Recorded, TraceFacts, decide_over, open_feed, read_packet

BINANCE = ("usdm", "spot", "coinm")


@pytest.mark.parametrize("name", BINANCE)
def test_reality_1_local_time_before_exchange_time_is_neither_refused_nor_stale(
    name: str, recorded_run: Callable[[Feed], Recorded], recorded_facts: Callable[[Feed], TraceFacts]
) -> None:
    kinds, facts, summary = FEEDS[name].kinds, recorded_facts(FEEDS[name]), recorded_run(FEEDS[name]).summary
    # Spot tickers and the spot snapshot carry no exchange time at all.
    timeless = kinds["book_ticker"] + kinds["book_snapshot"] if name == "spot" else 0
    assert facts.recv_before_exch == FEEDS[name].steps - timeless
    assert summary["rejected_events"] == {}
    assert facts.least_staleness_ms == 0.0
    assert "staleness_exceeded" not in summary["mismatch_reason_counts"]


def test_reality_2_rows_of_one_timestamp_are_steps_each(
    recorded_facts: Callable[[Feed], TraceFacts], recorded_run: Callable[[Feed], Recorded]
) -> None:
    facts = recorded_facts(FEEDS["lobster"])
    # 109 rows share the stamp of the row before them, and every trade that of its book.
    assert facts.same_ts_as_before == 109 + FEEDS["lobster"].kinds["trade"]
    assert facts.not_finite == {}
    assert recorded_run(FEEDS["lobster"]).summary["steps"] == FEEDS["lobster"].steps


@pytest.mark.parametrize(("name", "inside"), [("usdm", 11_719), ("spot", 4_938)])
def test_reality_3_trades_outside_the_quote_are_taken_as_they_are(name: str, inside: int, data_dir: Path) -> None:
    feed = FEEDS[name]
    quote: BookTicker | None = None
    low, high, counts = np.inf, 0.0, {True: 0, False: 0}
    with closing(open_feed(data_dir, feed)) as source:
        instruments = dict(source.instruments())
        market = Market(instruments, default_instrument=Instrument("", tick_size=0.1), unique_seq=source.unique_seq)
        while (event := source.next_event()) is not None:
            state = market.state(event.symbol)
            state.observe(event)
            if type(event) is BookTicker:
                quote = event
            elif type(event) is Trade:
                counts[quote is not None and quote.bid <= event.price <= quote.ask] += 1
                low, high = min(low, event.price), max(high, event.price)
                assert low - 1e-6 <= state.row[FEATURE_INDEX["vwap_5m"]] <= high + 1e-6
                # A print moves no price of the book.
                assert state.bid <= state.mid <= state.ask
    assert counts == {True: inside, False: feed.kinds["trade"] - inside}


# A capture without its snapshot. --------------------------------------------------------------------------------------

_LINES = 8_000


@pytest.fixture(scope="module")
def unseeded(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recorded, int, int]:
    """A run over the capture's start without its snapshot, and how many depth messages and other lines it holds."""
    with gzip.open(data_dir / FEEDS["usdm"].files[0]) as file:
        lines = [line for line in islice(file, _LINES) if b'"lastUpdateId"' not in line]
    folder = tmp_path_factory.mktemp("unseeded")
    path = folder / "capture.feed.gz"
    path.write_bytes(gzip.compress(b"".join(lines), compresslevel=1))
    source = open_source(path, format="binance", instrument=SHIPPED / "binance-usdm.instrument.toml")
    depths = sum(b"@depth" in line for line in lines)
    return decide_over(source, folder / "run", policy="binance", max_size_usd=500.0), depths, len(lines) - depths


def test_reality_5_without_a_snapshot_tickers_still_decide(unseeded: tuple[Recorded, int, int]) -> None:
    run, _, others = unseeded
    assert run.summary["stopped_reason"] == "source_exhausted"
    assert run.summary["steps"] == others
    assert run.summary["action_counts"]["ACT"] > 0
    assert run.summary["orders_submitted"] > 0
    assert run.summary["error_count"] == 0
    assert verify(run.trace).ok


def test_reality_5_without_a_snapshot_the_book_is_the_tickers_one_level(unseeded: tuple[Recorded, int, int]) -> None:
    run, _, _ = unseeded
    books = 0
    with run.trace.open("rb") as lines:
        for line in lines:
            packet = read_packet(line)
            if packet.input.kind == "book_ticker":
                row = packet.input.features
                # With one level the averages are that level's price.
                assert row["vwap_bid"] == pytest.approx(row["bid"], rel=1e-12)
                assert row["vwap_ask"] == pytest.approx(row["ask"], rel=1e-12)
                assert row["bid"] < row["ask"]
                books += 1
    assert books > 1_000


def test_reality_5_the_held_deltas_are_reported_once_at_the_end(unseeded: tuple[Recorded, int, int]) -> None:
    run, depths, others = unseeded
    assert run.summary["rejected_events"] == {"no_snapshot": 1}
    (place,) = run.summary["rejected_places"]
    assert place == (
        f"capture.feed.gz:{depths + others}: depth messages without a snapshot were not emitted: {depths} of BTCUSDT"
    )


# Crossed books. -------------------------------------------------------------------------------------------------------


def test_reality_6_no_order_is_sent_while_the_book_is_crossed(
    recorded_run: Callable[[Feed], Recorded], data_dir: Path
) -> None:
    feed = FEEDS["es-mbo"]
    crossed = []
    with closing(open_feed(data_dir, feed)) as source:
        while (event := source.next_event()) is not None:
            if type(event) is BookSnapshot and event.bid > event.ask > 0.0:
                crossed.append(event.recv_ts_ns)
    assert len(crossed) == feed.refused["crossed_book"]
    sent = decisions = 0
    with recorded_run(feed).trace.open("rb") as lines:
        for line in lines:
            packet = read_packet(line)
            if crossed[0] <= packet.input.ts_ns <= crossed[-1]:
                decisions += 1
                sent += packet.external.get("exec.attempt_count", 0)
            elif packet.input.ts_ns > crossed[-1]:
                break
    assert sent == 0
    # The feed was found stale before the auction began: nothing is left to decide on.
    assert decisions == 0


# Where the numbers stand. ---------------------------------------------------------------------------------------------


def test_reality_8_rows_whose_book_does_not_change_are_decided_on_all_the_same(
    recorded_run: Callable[[Feed], Recorded],
) -> None:
    """61 rows of the LOBSTER pair are hidden executions: the book before and after is one."""
    unchanged, before = 0, np.empty(0)
    with recorded_run(FEEDS["lobster"]).trace.open("rb") as lines:
        for line in lines:
            packet = read_packet(line)
            if packet.input.kind != "book_snapshot":
                continue
            row = packet.input.features
            book = np.array([row[name] for name in ("bid", "ask", "bid_depth", "ask_depth", "vwap_bid", "vwap_ask")])
            unchanged += np.array_equal(book, before)
            before = book
            assert packet.final_action["action"] in ("ACT", "HOLD", "EXIT")
    assert unchanged >= 61


def test_summaries_are_plain_data(feed: Feed, run: Recorded) -> None:
    assert msgspec.json.decode(msgspec.json.encode(run.summary))["steps"] == feed.steps
