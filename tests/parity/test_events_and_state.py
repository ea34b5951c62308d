"""Each backend by itself: a batch is its pushes, a refused event never came, a restored engine goes on as before."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ami_engine.errors import EventError
from ami_engine.features import FEATURE_NAMES, FeatureConfig

FloatArray = npt.NDArray[np.float64]

CONFIG = FeatureConfig(tick_size=0.1, vol_window=8, sigma_short_steps=3, sigma_long_steps=9, window_5m_steps=12)
BY_TIME = FeatureConfig(
    tick_size=0.1, vol_window=8, sigma_short_steps=3, sigma_long_steps=9, window_5m_steps=None, window_5m_ms=40
)
BOTH = FeatureConfig(
    tick_size=0.1, vol_window=8, sigma_short_steps=3, sigma_long_steps=9, window_5m_steps=12, window_5m_ms=15
)
MS = 1_000_000

Step = tuple[str, tuple[Any, ...]]


def steps(count: int, start_ms: int = 1) -> list[Step]:
    """Quotes, books of two levels, trades and one-sided quotes, one a ms."""
    rng = np.random.default_rng(start_ms)
    made: list[Step] = []
    for k in range(count):
        ts_ns = (start_ms + k) * MS
        bid = round(60_000 + float(rng.integers(-20, 20)) * 0.1, 1)
        size, other = (round(float(x), 3) for x in rng.exponential(3.0, 2))
        if k % 5 == 1:
            made.append(("push_trade", (ts_ns, bid, size, int(rng.integers(-1, 2)))))
        elif k % 7 == 2:
            bids, asks = np.array([[bid, size], [bid - 0.1, other]]), np.array([[bid + 0.1, other], [bid + 0.3, size]])
            made.append(("push_book", (ts_ns, bids, asks)))
        elif k % 11 == 3:
            made.append(("push_quote", (ts_ns, bid, 0.0, size, 0.0)))
        else:
            made.append(("push_quote", (ts_ns, bid, bid + 0.2, size, other)))
    return made


def take(engine: Any, events: list[Step]) -> FloatArray:
    """Push the events; return the row after each."""
    rows = np.empty((len(events), len(FEATURE_NAMES)))
    for k, (verb, arguments) in enumerate(events):
        getattr(engine, verb)(*arguments)
        rows[k] = engine.row
    return rows


def pushed(engine: Any, columns: Any) -> tuple[FloatArray, dict[str, int]]:
    """Push the rows of a batch one by one."""
    rows = np.full((columns.rows, len(FEATURE_NAMES)), np.nan)
    refused: dict[str, int] = {}
    c = {k: v.tolist() for k, v in columns._asdict().items() if isinstance(v, np.ndarray) and v.ndim == 1}
    for k in range(columns.rows):
        try:
            if c["kind"][k] == 1:
                engine.push_trade(c["ts"][k], c["price"][k], c["size"][k], c["aggressor"][k])
            elif c["kind"][k] == 0:
                engine.push_quote(c["ts"][k], c["bid"][k], c["ask"][k], c["bid_depth"][k], c["ask_depth"][k])
            else:
                continue
        except EventError as error:
            refused[error.reason] = refused.get(error.reason, 0) + 1
        else:
            rows[k] = engine.row
    return rows, refused


@pytest.mark.parametrize("window", ["count", "time", "both"])
@pytest.mark.parametrize("stream", ["walk", "one_sided", "gaps", "bad_rows"])
def test_a_batch_gives_the_bits_of_its_pushes(lab: Any, backend: str, stream: str, window: str) -> None:
    name = f"{stream}-{window}"
    case, batch = lab.case(name), lab.outcome(name, backend)
    rows, refused = pushed(lab.engine(backend, case.config), case.columns)
    assert np.array_equal(batch.rows, rows, equal_nan=True)
    assert {k: n for k, n in batch.report.rejected.items() if k != "unknown_kind"} == refused


def test_levels_give_the_bits_of_a_batch_with_levels(lab: Any, backend: str) -> None:
    events = [step for step in steps(120) if step[0] == "push_book"]
    rows = take(lab.engine(backend, CONFIG), events)
    bids, asks = (np.stack([arguments[side] for _, arguments in events]) for side in (1, 2))
    columns = lab.case("walk-count").columns._replace(
        **dict.fromkeys(("bid", "ask", "bid_depth", "ask_depth", "kind", "price", "size", "aggressor")),
        rows=len(events),
        ts=np.array([arguments[0] for _, arguments in events]),
        bids=bids,
        asks=asks,
    )
    out = np.empty_like(rows)
    lab.engine(backend, CONFIG).run(columns, out)
    assert np.array_equal(out, rows)


def test_one_level_is_a_quote(lab: Any, backend: str) -> None:
    by_level, by_quote = lab.engine(backend, CONFIG), lab.engine(backend, CONFIG)
    by_level.push_book(MS, np.array([[99.9, 3.0]]), np.array([[100.1, 1.0]]))
    by_quote.push_quote(MS, 99.9, 100.1, 3.0, 1.0)
    assert np.array_equal(by_level.row, by_quote.row, equal_nan=True)


def test_only_the_first_levels_are_read(lab: Any, backend: str) -> None:
    config = FeatureConfig(tick_size=0.1, levels=2)
    few, many = lab.engine(backend, config), lab.engine(backend, config)
    bids, asks = np.array([[99.9, 3.0], [99.8, 1.0]]), np.array([[100.1, 1.0]])
    few.push_book(MS, bids, asks)
    many.push_book(MS, np.concatenate([bids, [[99.7, 50.0], [np.nan, -1.0]]]), asks)
    assert np.array_equal(few.row, many.row, equal_nan=True)


def _side(*pairs: tuple[float, float]) -> FloatArray:
    return np.array(pairs, dtype=np.float64).reshape(len(pairs), 2)


LATER = 1_000 * MS
GOOD = _side((100.0, 1.0))
NAN, INF = float("nan"), float("inf")

BAD_EVENTS: list[tuple[str, tuple[Any, ...], str, str]] = [
    ("push_quote", (LATER, NAN, 101.0, 1.0, 1.0), "not_finite", "bid"),
    ("push_quote", (LATER, 100.0, INF, 1.0, 1.0), "not_finite", "ask"),
    ("push_quote", (LATER, 100.0, 1e151, 1.0, 1.0), "not_finite", "ask"),
    ("push_quote", (LATER, 100.0, 101.0, NAN, 1.0), "not_finite", "bid_depth"),
    ("push_quote", (LATER, 100.0, 101.0, 1.0, -INF), "not_finite", "ask_depth"),
    ("push_quote", (LATER, -100.0, 101.0, 1.0, 1.0), "negative_price", "bid"),
    ("push_quote", (LATER, 100.0, -0.25, 1.0, 1.0), "negative_price", "ask"),
    ("push_quote", (LATER, 100.0, 101.0, -1.0, 1.0), "negative_size", "bid_depth"),
    ("push_quote", (LATER, 100.0, 101.0, 1.0, -1e-9), "negative_size", "ask_depth"),
    ("push_quote", (0, 100.0, 101.0, 1.0, 1.0), "non_positive_time", "ts_ns"),
    ("push_quote", (-7, 100.0, 101.0, 1.0, 1.0), "non_positive_time", "ts_ns"),
    ("push_quote", (LATER, 100.0, 101.0, 1.0, 1.0, -1), "non_positive_time", "now_ns"),
    ("push_quote", (MS, 100.0, 101.0, 1.0, 1.0), "time_backwards", "ts_ns"),
    ("push_quote", (LATER, 0.0, 0.0, 1.0, 1.0), "empty_book", ""),
    ("push_quote", (LATER, 101.0, 100.0, 1.0, 1.0), "crossed_book", "bid"),
    ("push_book", (LATER, _side((100.0, NAN)), GOOD), "not_finite", "bids"),
    ("push_book", (LATER, _side((NAN, NAN)), GOOD), "not_finite", "bids"),
    ("push_book", (LATER, GOOD, _side((101.0, 1.0), (INF, 1.0))), "not_finite", "asks"),
    ("push_book", (LATER, _side((-1.0, 1.0)), GOOD), "negative_price", "bids"),
    ("push_book", (LATER, GOOD, _side((101.0, -1.0))), "negative_size", "asks"),
    ("push_book", (LATER, _side((100.0, 1.0), (100.0, 2.0)), GOOD), "levels_unsorted", "bids"),
    ("push_book", (LATER, GOOD, _side((101.0, 1.0), (100.9, 2.0))), "levels_unsorted", "asks"),
    ("push_book", (LATER, _side(), _side()), "empty_book", ""),
    ("push_book", (LATER, _side((100.0, 0.0)), _side((101.0, 0.0))), "empty_book", ""),
    ("push_book", (LATER, _side((100.5, 1.0)), GOOD), "crossed_book", "bid"),
    ("push_book", (0, GOOD, GOOD), "non_positive_time", "ts_ns"),
    ("push_trade", (LATER, NAN, 1.0, 1), "not_finite", "price"),
    ("push_trade", (LATER, 100.0, INF, 1), "not_finite", "size"),
    ("push_trade", (LATER, 0.0, 1.0, 1), "negative_price", "price"),
    ("push_trade", (LATER, -1.0, 1.0, 1), "negative_price", "price"),
    ("push_trade", (LATER, 100.0, -1.0, 1), "negative_size", "size"),
    ("push_trade", (LATER, 100.0, 1.0, 2), "malformed", "aggressor"),
    ("push_trade", (LATER, 100.0, 1.0, 1, -3), "non_positive_time", "now_ns"),
    ("push_trade", (MS, 100.0, 1.0, 1), "time_backwards", "ts_ns"),
]
BAD_IDS = [f"{verb}-{reason}-{field}-{k}" for k, (verb, _, reason, field) in enumerate(BAD_EVENTS)]


@pytest.mark.parametrize(("verb", "arguments", "reason", "field"), BAD_EVENTS, ids=BAD_IDS)
def test_a_refused_event_never_came(
    lab: Any, backend: str, verb: str, arguments: tuple[Any, ...], reason: str, field: str
) -> None:
    engine, untouched = lab.engine(backend, BOTH), lab.engine(backend, BOTH)
    for one in (engine, untouched):
        take(one, steps(60, start_ms=900))
    before, row = engine.snapshot(), engine.row.copy()
    with pytest.raises(EventError) as caught:
        getattr(engine, verb)(*arguments)
    assert (caught.value.reason, caught.value.field) == (reason, field)
    assert engine.snapshot() == before
    assert np.array_equal(engine.row, row, equal_nan=True)
    following = steps(40, start_ms=1_000)
    assert np.array_equal(take(engine, following), take(untouched, following), equal_nan=True)


@pytest.mark.parametrize(("verb", "arguments", "reason", "field"), BAD_EVENTS, ids=BAD_IDS)
def test_backends_refuse_in_the_same_words(
    lab: Any, verb: str, arguments: tuple[Any, ...], reason: str, field: str
) -> None:
    words = set()
    for backend in ("native", "numba", "reference"):
        engine = lab.engine(backend, BOTH)
        take(engine, steps(60, start_ms=900))
        with pytest.raises(EventError) as caught:
            getattr(engine, verb)(*arguments)
        words.add((caught.value.reason, caught.value.field, str(caught.value)))
    assert len(words) == 1


@pytest.mark.parametrize("config", [CONFIG, BY_TIME, BOTH], ids=["count", "time", "both"])
@pytest.mark.parametrize("at", [0, 1, 2, 37, 200])
def test_a_restored_engine_goes_on_bit_for_bit(lab: Any, backend: str, config: FeatureConfig, at: int) -> None:
    events = steps(320)
    original, restored = lab.engine(backend, config), lab.engine(backend, config)
    take(original, events[:at])
    take(restored, steps(5))  # what it held before is gone
    restored.restore(original.snapshot())
    assert restored.last_ts_ns == original.last_ts_ns
    assert np.array_equal(restored.row, original.row, equal_nan=True)
    assert np.array_equal(take(restored, events[at:]), take(original, events[at:]), equal_nan=True)
    assert restored.snapshot() == original.snapshot()


def test_a_snapshot_that_is_not_this_engines_is_refused(lab: Any, backend: str) -> None:
    engine = lab.engine(backend, CONFIG)
    take(engine, steps(50))
    good, row = engine.snapshot(), engine.row.copy()
    of_other_config = lab.engine(backend, BOTH).snapshot()
    of_other_backend = lab.engine("reference" if backend != "reference" else "numba", CONFIG).snapshot()
    flipped = [good[:k] + bytes([good[k] ^ 1]) + good[k + 1 :] for k in range(0, len(good), max(1, len(good) // 97))]
    for bad in (b"", good[:-1], good + b"\0", good[: len(good) // 2], of_other_config, of_other_backend, *flipped):
        with pytest.raises(ValueError, match="snapshot"):
            engine.restore(bad)
    assert engine.snapshot() == good
    assert np.array_equal(engine.row, row, equal_nan=True)


def test_the_row_is_nan_before_the_first_event(lab: Any, backend: str) -> None:
    engine = lab.engine(backend, CONFIG)
    assert np.isnan(engine.row).all()
    assert engine.row.dtype == np.float64
    assert engine.last_ts_ns == 0


@pytest.mark.parametrize("fast", ["native", "numba"])
def test_nothing_drifts_over_a_long_stream(lab: Any, fast: str) -> None:
    """After 300 000 events the row is what a fresh engine makes of the last windows alone."""
    rng = np.random.default_rng(3)
    n, tail = 300_000, 900
    bid = np.round(100_000 + np.cumsum(rng.integers(-1, 2, n)) * 0.1, 1)
    bid[::9_973] *= 1.5  # bad prints: what a running sum never recovers from
    case = lab.case("walk-default")
    columns = case.columns._replace(
        rows=n,
        ts=MS + np.cumsum(rng.integers(0, 2_000_000, n)),
        bid=bid,
        ask=np.round(bid + 0.1 * rng.integers(1, 4, n), 1),
        bid_depth=np.where(rng.random(n) < 1e-3, 1e12, rng.exponential(5.0, n)),
        ask_depth=rng.exponential(5.0, n),
        kind=(rng.random(n) < 0.3).astype(np.int64),
        price=bid,
        size=np.where(rng.random(n) < 1e-3, 1e12, rng.exponential(1.0, n)),
        aggressor=rng.integers(-1, 2, n),
    )
    whole = lab.run(fast, case._replace(columns=columns))
    last = columns._replace(
        rows=tail, **{k: v[-tail:] for k, v in columns._asdict().items() if isinstance(v, np.ndarray)}
    )
    fresh = lab.run("reference", case._replace(columns=last))
    ends = [type(whole)(outcome.rows[-100:], outcome.report) for outcome in (whole, fresh)]
    wrong = [lab.disagreement(feature, feature.rel_tol_reference, *ends, 0.1) for feature in lab.features]
    assert [text for text in wrong if text] == []
