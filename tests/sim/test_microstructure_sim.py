"""The simulated market: reproducible, well formed, and lively enough for the guards' defaults."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ami_engine.errors import ConfigError
from ami_engine.events import BookSnapshot, Trade
from ami_engine.sim.microstructure_sim import EPOCH_NS, MicrostructureSim

Event = BookSnapshot | Trade
SEEDS = (0, 1, 42)


def events_of(sim: MicrostructureSim, count: int) -> list[Event]:
    return [sim.next_event("X") for _ in range(count)]


def digest(sim: MicrostructureSim, count: int = 3_000) -> str:
    return hashlib.sha256(b"\n".join(msgspec.json.encode(event) for event in events_of(sim, count))).hexdigest()


class TestReproducible:
    def test_one_seed_gives_the_same_bytes_everywhere(self) -> None:
        # Another machine, NumPy or C library must give the same market: change this only together with the model.
        assert digest(MicrostructureSim(mid=0.5, spread=0.01, seed=42)) == (
            "707b8e113c83d05149f2eb680ba1485cdcbd588f495fa27701622390a1c85bd6"
        )

    def test_another_seed_gives_another_market(self) -> None:
        assert digest(MicrostructureSim(seed=1)) != digest(MicrostructureSim(seed=2))

    def test_every_parameter_is_in_the_identity(self) -> None:
        changed: list[dict[str, Any]] = [
            {},
            {"mid": 0.6},
            {"spread": 0.02},
            {"seed": 1},
            {"tick_size": 0.0025},
            {"levels": 5},
            {"depth": 100.0},
            {"event_ms": 50.0},
            {"trade_frac": 0.1},
            {"volatility_ticks": 0.02},
            {"impact_ticks": 0.1},
            {"maker_fee_bps": 1.0},
            {"taker_fee_bps": 1.0},
            {"start_ns": EPOCH_NS + 1},
        ]
        assert len({MicrostructureSim(**values).identity for values in changed}) == len(changed)


class TestWellFormed:
    def test_it_begins_at_the_prices_it_is_asked_for(self) -> None:
        first = MicrostructureSim(mid=0.5, spread=0.01, seed=9).next_event("X")
        assert isinstance(first, BookSnapshot)
        assert (first.bid, first.ask, first.exch_ts_ns, first.seq) == (0.495, 0.505, EPOCH_NS, 1)

    @settings(max_examples=40, deadline=None)
    @given(
        mid=st.sampled_from([0.5, 0.07, 1.0, 100.0, 61_800.3]),
        spread_ticks=st.integers(1, 6),
        tick=st.sampled_from([0.005, 0.01, 0.1]),
        levels=st.integers(1, 12),
        noise=st.floats(0.0, 1.0),
        impact=st.floats(0.0, 1.0),
        trades=st.floats(0.0, 1.0),
        seed=st.integers(0, 1_000),
    )
    def test_every_event_is_valid_whatever_the_parameters(
        self,
        mid: float,
        spread_ticks: int,
        tick: float,
        levels: int,
        noise: float,
        impact: float,
        trades: float,
        seed: int,
    ) -> None:
        values: dict[str, Any] = {"tick_size": tick, "levels": levels, "trade_frac": trades}
        values |= {"volatility_ticks": noise, "impact_ticks": impact, "seed": seed}
        if mid / tick <= spread_ticks + 3:
            with pytest.raises(ConfigError, match="`mid` must be more than"):
                MicrostructureSim(mid, spread_ticks * tick, **values)
            return
        sim = MicrostructureSim(mid, spread_ticks * tick, **values)
        before: Event | None = None
        best = (0.0, 0.0)
        for event in events_of(sim, 400):
            if before is not None:
                assert event.exch_ts_ns > before.exch_ts_ns
                assert event.recv_ts_ns > before.recv_ts_ns
                assert event.seq == before.seq + 1
            if isinstance(event, Trade):
                assert event.price == (best[1] if event.aggressor > 0 else best[0])
                assert event.size >= 1.0
            else:
                check_book(event, tick, levels)
                best = (event.bid, event.ask)
            before = event

    def test_a_trade_that_empties_the_best_level_moves_the_price(self) -> None:
        events = events_of(MicrostructureSim(seed=5), 5_000)
        sizes: tuple[float, float] = (0.0, 0.0)
        emptied = 0
        for event, after in itertools.pairwise(events):
            if isinstance(event, BookSnapshot):
                sizes, book = (event.bids[0][1], event.asks[0][1]), event
            elif isinstance(after, BookSnapshot) and event.size == sizes[0 if event.aggressor < 0 else 1]:
                emptied += 1
                assert after.bid < book.bid if event.aggressor < 0 else after.ask > book.ask
        assert emptied > 100

    @pytest.mark.parametrize(
        ("values", "rule"),
        [
            ({"mid": 0.0}, "`mid` must be finite and > 0, was 0.0"),
            ({"spread": float("nan")}, "`spread` must be finite and > 0, was nan"),
            ({"spread": 0.001, "tick_size": 0.01}, "`spread` must be at least one tick"),
            ({"mid": 0.5, "spread": 0.4}, "`mid` must be more than"),
            ({"levels": 0}, "`levels` must be at least 1, was 0"),
            ({"depth": 39.0}, r"`depth` must be at least 4 \* levels \(40\), was 39.0"),
            ({"trade_frac": 1.5}, r"`trade_frac` must be in \[0, 1\], was 1.5"),
            ({"impact_ticks": -0.1}, r"`impact_ticks` must be in \[0, 1\]"),
            ({"event_ms": 0.0}, "`event_ms` must be finite and > 0"),
            ({"start_ns": 0}, "`start_ns` must be > 0, was 0"),
            ({"seed": -1}, "`seed` must be an integer of at least 0"),
        ],
    )
    def test_a_parameter_outside_its_range_is_refused(self, values: dict[str, Any], rule: str) -> None:
        with pytest.raises(ConfigError, match=rule):
            MicrostructureSim(**values)


def check_book(book: BookSnapshot, tick: float, levels: int) -> None:
    assert 0.0 < book.bid < book.ask
    assert (book.bid, book.ask) == (book.bids[0][0], book.asks[0][0])
    assert len(book.asks) == levels
    assert len(book.bids) <= levels
    assert book.bid_depth == sum(size for _, size in book.bids)
    assert book.ask_depth == sum(size for _, size in book.asks)
    for side, step in ((book.bids, -1), (book.asks, 1)):
        ticks = [round(price / tick) for price, _ in side]
        assert all(abs(price / tick - at) < 1e-6 for (price, _), at in zip(side, ticks, strict=True))
        assert ticks == list(range(ticks[0], ticks[0] + step * len(ticks), step))
        assert all(size >= 1.0 and size == int(size) for _, size in side)


@pytest.fixture(scope="module", params=SEEDS)
def market(request: pytest.FixtureRequest) -> list[Event]:
    """20 000 events of the default market: 33 minutes."""
    return events_of(MicrostructureSim(mid=0.5, spread=0.01, seed=request.param), 20_000)


def books_of(events: list[Event]) -> list[BookSnapshot]:
    return [event for event in events if isinstance(event, BookSnapshot)]


def mids_of(events: list[Event]) -> npt.NDArray[np.float64]:
    return np.array([(book.bid + book.ask) / 2 for book in books_of(events)])


class TestFitsTheGuards:
    """The defaults of the guards (docs: GUARDS) must let the reference model quote most of the time."""

    def test_depth_and_spread_are_within_their_limits(self, market: list[Event]) -> None:
        mids = mids_of(market)
        bps = np.array([1e4 * (book.ask - book.bid) for book in books_of(market)]) / mids
        depth = np.array([book.bid_depth + book.ask_depth for book in books_of(market)])
        assert np.mean(bps <= 500) > 0.999
        assert np.all(depth >= 50)
        assert 100 < np.median(depth) < 160
        assert np.all((mids > 0.1) & (mids < 0.9))

    def test_volatility_is_within_its_limits_and_not_nothing(self, market: list[Event]) -> None:
        returns = np.diff(np.log(mids_of(market)))
        sigma = np.lib.stride_tricks.sliding_window_view(returns, 299)[::50].std(axis=1)
        assert np.all((sigma > 0.0005) & (sigma < 0.02))
        short = np.lib.stride_tricks.sliding_window_view(returns, 20).std(axis=1)
        runs = np.lib.stride_tricks.sliding_window_view(short, 82)
        z = (runs[:, -1] - runs.mean(axis=1)) / np.maximum(runs.std(axis=1), 1e-9)
        assert np.mean(z > 2.5) < 0.03

    def test_imbalance_is_often_clear_and_predicts_a_part_of_the_move(self, market: list[Event]) -> None:
        imbalance = np.array([(b.bid_depth - b.ask_depth) / (b.bid_depth + b.ask_depth) for b in books_of(market)])
        assert 0.3 < np.mean(np.abs(imbalance) >= 0.1) < 0.9
        assert 0.3 < np.mean(imbalance > 0) < 0.7
        mids = mids_of(market)
        assert 0.02 < np.corrcoef(imbalance[:-100], mids[100:] - mids[:-100])[0, 1] < 0.6

    def test_markouts_are_small_beside_the_limits_of_adverse_selection(self, market: list[Event]) -> None:
        books = books_of(market)
        times = np.array([book.recv_ts_ns for book in books])
        mids = mids_of(market)
        for horizon_s, limit_ticks in ((15, 1.0), (60, 2.0)):
            later = mids[np.searchsorted(times, times + horizon_s * 10**9, side="right") - 1]
            assert np.std((later - mids) / 0.005) < limit_ticks

    def test_time_runs_in_bursts_and_no_gap_is_stale(self, market: list[Event]) -> None:
        gaps_ms = np.diff([event.recv_ts_ns for event in market]) / 1e6
        assert 95 < gaps_ms.mean() < 105
        assert gaps_ms.max() < 201
        assert np.mean(gaps_ms < 25) > 0.2
        assert np.diff([book.recv_ts_ns for book in books_of(market)]).max() < 2e9

    def test_both_sides_trade_at_the_best_prices_and_sometimes_clear_a_level(self, market: list[Event]) -> None:
        trades = [event for event in market if isinstance(event, Trade)]
        assert 0.1 < len(trades) / len(market) < 0.3
        buys = np.mean([trade.aggressor > 0 for trade in trades])
        assert 0.4 < buys < 0.6
