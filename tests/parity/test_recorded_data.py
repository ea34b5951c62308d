"""The backends on recorded market data, read here by a few plain lines that share nothing with the engine's readers."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ami_engine.features import FeatureConfig
from ami_engine.features.columns import EventColumns
from ami_engine.features.schema import FEATURES

BINANCE = {
    "usdm": ("binance-usdm-btcusdt-20240808.feed.gz", 0.1),
    "spot": ("binance-spot-btcusdt-20240808.feed.gz", 0.01),
    "coinm": ("binance-coinm-btcusd_perp-20240808.feed.gz", 0.1),
}
# The definition is slow: it is asked about the first events only.
REFERENCE_EVENTS = 6_000

BY_COUNT = {"window_5m_steps": 300}
BY_TIME = {"window_5m_steps": None, "window_5m_ms": 1_500}
BOTH = {"window_5m_steps": 200, "window_5m_ms": 2_000}
FIVE_MINUTES = {"window_5m_steps": None, "window_5m_ms": 300_000}


@cache
def binance(folder: Path, name: str) -> EventColumns:
    """Best quotes and trades in the order of their arrival."""
    rows = []
    with gzip.open(folder / BINANCE[name][0], "rt") as lines:
        for line in lines:
            stamp, _, text = line.partition(" ")
            message = json.loads(text)
            data = message.get("data", {})
            stream = message.get("stream", "")
            if stream.endswith("@bookTicker"):
                numbers = [float(data[key]) for key in ("b", "a", "B", "A")]
                rows.append((int(stamp), 0, *numbers, 0.0, 0.0, 0))
            elif stream.endswith("@trade"):
                side = -1 if data["m"] else 1
                rows.append((int(stamp), 1, 0.0, 0.0, 0.0, 0.0, float(data["p"]), float(data["q"]), side))
    names = ("ts", "kind", "bid", "ask", "bid_depth", "ask_depth", "price", "size", "aggressor")
    integers = ("ts", "kind", "aggressor")
    arrays = {
        key: np.array(values, np.int64 if key in integers else np.float64)
        for key, values in zip(names, zip(*rows, strict=True), strict=True)
    }
    return EventColumns(len(rows), **arrays)


@cache
def lobster(folder: Path) -> EventColumns:
    """Ten levels after each message: ask price, ask size, bid price, bid size a level; USD × 10 000."""
    book = np.loadtxt(folder / "lobster-aapl-20120621-book10.csv", delimiter=",").reshape(-1, 10, 2, 2)
    seconds = np.loadtxt(folder / "lobster-aapl-20120621-msg10.csv", delimiter=",", usecols=0)
    book[..., 0] /= 1e4
    midnight_ns = 1_340_251_200 * 10**9  # 2012-06-21, New York
    ts = midnight_ns + np.rint(seconds * 1e9).astype(np.int64)
    asks, bids = (np.ascontiguousarray(book[:, :, side]) for side in (0, 1))
    return EventColumns(len(ts), ts=ts, bids=bids, asks=asks)


@cache
def ibm_quotes(folder: Path) -> EventColumns:
    """Latest bid and latest ask of any venue: one-sided at first, locked and crossed at times."""
    rows = []
    bid = ask = (0.0, 0.0)
    with zipfile.ZipFile(folder / "lean-ibm-20131010-quote-tick.zip") as archive:
        text = archive.read(archive.namelist()[0]).decode()
    for fields in csv.reader(io.StringIO(text)):
        ms, bid_price, bid_size, ask_price, ask_size = map(float, fields[:5])
        if bid_price:
            bid = (bid_price / 1e4, bid_size)
        if ask_price:
            ask = (ask_price / 1e4, ask_size)
        rows.append((1_381_377_600_000 + ms, bid[0], ask[0], bid[1], ask[1]))
    ms_column, *rest = (np.array(column) for column in zip(*rows, strict=True))
    names = ("bid", "ask", "bid_depth", "ask_depth")
    return EventColumns(
        len(rows), ts=ms_column.astype(np.int64), ns_per_ts=10**6, **dict(zip(names, rest, strict=True))
    )


def disagreements(lab: Any, ours: Any, theirs: Any, tick_size: float) -> list[str]:
    found = [lab.disagreement(feature, feature.rel_tol_reference, ours, theirs, tick_size) for feature in FEATURES]
    return [text for text in found if text]


def hold(lab: Any, config: FeatureConfig, columns: EventColumns) -> Any:
    """Hold the fast backends against each other on all of it, and against the definition on its beginning."""
    case = lab.case("walk-default")._replace(config=config, columns=columns)
    native, numba = lab.run("native", case), lab.run("numba", case)
    assert native.report == numba.report
    assert np.array_equal(native.rows, numba.rows, equal_nan=True)
    meaning = lab.run("reference", case._replace(columns=lab.head(columns, REFERENCE_EVENTS)))
    beginning = type(numba)(numba.rows[: len(meaning.rows)], meaning.report)
    assert disagreements(lab, beginning, meaning, config.tick_size) == []
    return native


@pytest.mark.parametrize("window", [BY_COUNT, BY_TIME, BOTH], ids=["count", "time", "both"])
@pytest.mark.parametrize("name", list(BINANCE))
def test_backends_agree_on_binance_captures(lab: Any, data_dir: Path, name: str, window: dict[str, Any]) -> None:
    columns = binance(data_dir, name)
    outcome = hold(lab, FeatureConfig(tick_size=BINANCE[name][1], **window), columns)
    assert outcome.report.accepted == columns.rows > 20_000
    assert np.isfinite(outcome.rows[-1]).all()


@pytest.mark.parametrize("window", [BY_COUNT, BY_TIME], ids=["count", "time"])
def test_backends_agree_on_the_lobster_book(lab: Any, data_dir: Path, window: dict[str, Any]) -> None:
    outcome = hold(lab, FeatureConfig(tick_size=0.01, **window), lobster(data_dir))
    assert outcome.report.accepted == 999
    # The first line of the file: 585.94 × 200, 585.33 × 18.
    assert (outcome.of("ask")[0], outcome.of("bid")[0]) == (585.94, 585.33)
    assert outcome.of("bid_depth")[0] == 18 + 150 + 5 + 89 + 5 + 300 + 300 + 300 + 200 + 300


@pytest.mark.parametrize("window", [BY_COUNT, FIVE_MINUTES], ids=["count", "time"])
def test_backends_agree_on_quotes_of_many_venues(lab: Any, data_dir: Path, window: dict[str, Any]) -> None:
    outcome = hold(lab, FeatureConfig(tick_size=0.01, **window), ibm_quotes(data_dir))
    assert set(outcome.report.rejected) == {"crossed_book"}
    assert np.isnan(outcome.of("spread")[0])
    assert (outcome.of("spread") == 0.0).sum() > 100
