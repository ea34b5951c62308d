"""The recorded feeds, how each is run, and one cached run of each for all tests that only look at it."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from ami_engine.adapters.base import DataSource
from ami_engine.adapters.open_source import open_source
from ami_engine.dmc import RiskPolicy
from ami_engine.loop.run_loop import run_loop
from ami_engine.mdm.decision_engine import DecisionEngine
from ami_engine.mdm.reference_model import compute_proposal_reference
from ami_engine.sim.paper_broker import PaperBroker

SHIPPED = Path(__file__).resolve().parents[2] / "docs" / "examples" / "feeds"


class Feed(NamedTuple):
    """A recorded feed, the shipped files it is run with, and what PROVENANCE.md says is in it.

    `kinds` are the events that the loop accepts, by kind; `refused` those that it refuses, by reason. `second_steps` is
    how much of it the second run takes, None for all.
    """

    name: str
    files: tuple[str, ...]
    format: str
    instrument: str
    policy: str
    max_size_usd: float
    kinds: dict[str, int]
    refused: dict[str, int]
    date: str | None = None
    second_steps: int | None = None

    @property
    def steps(self) -> int:
        return sum(self.kinds.values())


FEEDS = {
    feed.name: feed
    for feed in (
        # 6 depth messages come before the snapshot; 6547 of 6551 are applied to it, the others are older than it.
        Feed(
            "usdm",
            ("binance-usdm-btcusdt-20240808.feed.gz",),
            "binance",
            "binance-usdm",
            "binance",
            500.0,
            {"book_delta": 6_547, "book_ticker": 66_089, "trade": 21_313, "book_snapshot": 1},
            {},
            second_steps=20_000,
        ),
        Feed(
            "spot",
            ("binance-spot-btcusdt-20240808.feed.gz",),
            "binance",
            "binance-spot",
            "binance",
            500.0,
            {"book_delta": 3_449, "book_ticker": 28_040, "trade": 9_757, "book_snapshot": 1},
            {},
        ),
        Feed(
            "coinm",
            ("binance-coinm-btcusd_perp-20240808.feed.gz",),
            "binance",
            "binance-coinm",
            "binance-coinm",
            500.0,
            {"book_delta": 26_824, "book_ticker": 19_136, "trade": 2_286, "book_snapshot": 1},
            {},
            second_steps=15_000,
        ),
        # A book a row, and a trade before those of the 98 visible and the 61 hidden executions.
        Feed(
            "lobster",
            ("lobster-aapl-20120621-book10.csv", "lobster-aapl-20120621-msg10.csv"),
            "lobster",
            "lobster-aapl",
            "lobster-aapl",
            60_000.0,
            {"book_snapshot": 999, "trade": 98 + 61},
            {},
            date="2012-06-21",
        ),
        # A book at the end of each packet, 47022 of them; those of the pre-open auction are crossed.
        Feed(
            "es-mbo",
            ("nautilus-esh4-20231225.mbo.dbn.zst",),
            "dbn",
            "es",
            "es",
            300_000.0,
            {"book_snapshot": 47_022 - 891, "trade": 2_973},
            {"crossed_book": 891},
        ),
        Feed(
            "es-mbp-1",
            ("nautilus-esu4-20240701.mbp-1.dbn.zst",),
            "dbn",
            "es",
            "es",
            300_000.0,
            {"book_snapshot": 2_288, "trade": 120},
            {},
        ),
    )
}


class PacketOrigin(msgspec.Struct):
    """Of a packet's input, what these tests read."""

    kind: str
    ts_ns: int
    exch_ts_ns: int = 0
    features: Any = None


class PacketView(msgspec.Struct):
    """Of a packet, what these tests read."""

    input: PacketOrigin
    external: dict[str, Any]
    final_action: dict[str, Any]


read_packet = msgspec.json.Decoder(PacketView).decode


class Recorded(NamedTuple):
    """A finished run: its summary, the broker after it, and its trace."""

    summary: dict[str, Any]
    broker: PaperBroker
    trace: Path


def open_feed(data_dir: Path, feed: Feed) -> DataSource:
    """Open a recorded feed with its shipped instrument file."""
    files = tuple(str(data_dir / name) for name in feed.files)
    instrument = SHIPPED / f"{feed.instrument}.instrument.toml"
    path = files if len(files) == 2 else files[0]
    return open_source(path, format=feed.format, instrument=instrument, date=feed.date)  # type: ignore[arg-type]


def decide_over(source: DataSource, run_dir: Path, *, policy: str, max_size_usd: float, **options: Any) -> Recorded:
    """Run the loop over a source as `ami run` does, and return what came of it."""

    def model(features: Any, **extra: Any) -> Any:
        return compute_proposal_reference(features, max_size_usd=max_size_usd, **extra)

    broker = PaperBroker(instruments=source.instruments())
    summary = run_loop(
        source=source,
        broker=broker,
        decision_engine=DecisionEngine(model=model),
        risk_policy=RiskPolicy.from_toml(SHIPPED / f"{policy}.policy.toml"),
        run_dir=run_dir,
        **options,
    )
    return Recorded(summary, broker, Path(summary["trace_path"]))


def run_feed(data_dir: Path, feed: Feed, run_dir: Path, **options: Any) -> Recorded:
    """Run the loop over a recorded feed."""
    source = open_feed(data_dir, feed)
    return decide_over(source, run_dir, policy=feed.policy, max_size_usd=feed.max_size_usd, **options)


@pytest.fixture(params=FEEDS.values(), ids=FEEDS.keys(), scope="session")
def feed(request: pytest.FixtureRequest) -> Feed:
    """Each recorded feed in turn."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def recorded_run(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Feed], Recorded]]:
    """The whole run of a feed, made at its first use; traces are hundreds of MB and go when the session ends."""
    folder = tmp_path_factory.mktemp("recorded")
    runs: dict[str, Recorded] = {}

    def run(feed: Feed) -> Recorded:
        if feed.name not in runs:
            runs[feed.name] = run_feed(data_dir, feed, folder / feed.name)
        return runs[feed.name]

    yield run
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def run(feed: Feed, recorded_run: Callable[[Feed], Recorded]) -> Recorded:
    """The whole run of the feed at hand."""
    return recorded_run(feed)


class TraceFacts(NamedTuple):
    """What one pass over a trace tells."""

    kinds: Counter[str]
    same_ts_as_before: int
    recv_before_exch: int
    time_backwards: int
    least_staleness_ms: float
    not_finite: Counter[str]
    last_mid: float
    prev_sha256: str


def facts_of(trace: Path, *, head_at: int | None = None) -> TraceFacts:
    """Read a trace once; `prev_sha256` is that of packet `head_at`, which is the chain's head of those before it."""
    kinds: Counter[str] = Counter()
    not_finite: Counter[str] = Counter()
    same = ahead = backwards = 0
    least_staleness_ms, last_mid, prev_sha256, last_ts_ns = 0.0, 0.0, "", 0
    with trace.open("rb") as lines:
        for number, line in enumerate(lines):
            packet = read_packet(line)
            origin = packet.input
            kinds[origin.kind] += 1
            if number == head_at:
                prev_sha256 = packet.external["ops.prev_sha256"]
            backwards += origin.ts_ns < last_ts_ns
            same += origin.ts_ns == last_ts_ns
            last_ts_ns = origin.ts_ns
            if origin.kind == "timer":
                continue
            ahead += origin.exch_ts_ns > origin.ts_ns
            row = origin.features
            not_finite.update(name for name, value in row.items() if type(value) is str)
            if type(row["mid"]) is float:
                last_mid = row["mid"]
                least_staleness_ms = min(least_staleness_ms, row["staleness_ms"])
    return TraceFacts(kinds, same, ahead, backwards, least_staleness_ms, not_finite, last_mid, prev_sha256)


@pytest.fixture(scope="session")
def recorded_facts(recorded_run: Callable[[Feed], Recorded]) -> Callable[[Feed], TraceFacts]:
    """What the trace of a feed's whole run tells, read once."""
    facts: dict[str, TraceFacts] = {}

    def read(feed: Feed) -> TraceFacts:
        if feed.name not in facts:
            facts[feed.name] = facts_of(recorded_run(feed).trace)
        return facts[feed.name]

    return read


@pytest.fixture(scope="session")
def trace_facts(feed: Feed, recorded_facts: Callable[[Feed], TraceFacts]) -> TraceFacts:
    """What the trace of the feed at hand tells."""
    return recorded_facts(feed)
