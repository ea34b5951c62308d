"""Many symbols in one table give what each symbol's builder gives by itself, row by row, on any number of threads."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ami_engine.errors import ConfigError, EventError
from ami_engine.features import FeatureBuilder, FeatureConfig, available_backends, run_many

CONFIG = FeatureConfig(tick_size=0.1, vol_window=5, window_5m_steps=20, sigma_short_steps=3, sigma_long_steps=9)


def table_of(symbols: list[Any], seed: int = 1) -> dict[str, Any]:
    """A quote a symbol named, times ascending; one in twenty is crossed."""
    draw = np.random.Generator(np.random.PCG64(seed))
    rows = len(symbols)
    bid = np.round(100.0 + draw.integers(-20, 20, rows) * 0.1, 1)
    crossed = draw.random(rows) < 0.05
    return {
        "symbol": np.array(symbols),
        "ts_ns": 1_000_000 + np.cumsum(draw.integers(0, 5_000_000, rows)),
        "bid": bid,
        "ask": np.where(crossed, bid - 1.0, np.round(bid + 0.1 * draw.integers(1, 4, rows), 1)),
        "bid_depth": draw.exponential(5.0, rows),
        "ask_depth": draw.exponential(5.0, rows),
    }


def one_by_one(table: dict[str, Any], config: Any, backend: str = "auto") -> tuple[Any, dict[str, FeatureBuilder]]:
    """The plain way: a builder a symbol, its rows cut out of the table and put back."""
    rows, builders = np.empty((len(table["symbol"]), 30)), {}
    for symbol in dict.fromkeys(table["symbol"].tolist()):
        at = table["symbol"] == symbol
        own = config[symbol] if isinstance(config, dict) else config
        builders[symbol] = FeatureBuilder(own, backend)
        rows[at] = builders[symbol].run({name: column[at] for name, column in table.items() if name != "symbol"})
    return rows, builders


@pytest.mark.parametrize("backend", ["native", "numba", "reference"])
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("is_grouped", [False, True])
def test_the_rows_are_those_of_each_symbol_alone(backend: str, workers: int, is_grouped: bool) -> None:
    if available_backends()[backend]:
        pytest.skip(f"backend {backend}: {available_backends()[backend]}")
    symbols = np.random.Generator(np.random.PCG64(5)).choice(["BTC", "ETH", "A", "ZZZZ", "X"], 600).tolist()
    table = table_of(sorted(symbols, key=symbols.index) if is_grouped else symbols)
    expected, _ = one_by_one(table, CONFIG, backend)
    rows, report = run_many(table, config=CONFIG, backend=backend, workers=workers)
    assert rows.tobytes() == expected.tobytes()
    refused = np.flatnonzero(np.isnan(rows[:, 0]))
    assert report.rejected == {"crossed_book": len(refused)}
    assert report.first == {"crossed_book": refused[0]}
    assert (report.rows, report.accepted) == (600, 600 - len(refused))


@given(st.lists(st.integers(-3, 3), max_size=80), st.integers(1, 4))
def test_any_order_of_any_symbols(symbols: list[int], workers: int) -> None:
    table = table_of(symbols)
    table["symbol"] = table["symbol"].astype(np.int64)
    rows, report = run_many(table, config=CONFIG, workers=workers)
    assert rows.tobytes() == one_by_one(table, CONFIG)[0].tobytes()
    assert report.rows == len(symbols)


def test_builders_go_on_from_table_to_table_and_then_live() -> None:
    symbols = np.random.Generator(np.random.PCG64(7)).choice(["A", "B", "C"], 300).tolist()
    table = table_of(symbols)
    expected, lone = one_by_one(table, CONFIG)
    builders: dict[str, FeatureBuilder] = {}
    parts = [{name: column[cut] for name, column in table.items()} for cut in (slice(0, 120), slice(120, None))]
    rows = np.concatenate([run_many(part, config=CONFIG, builders=builders).rows for part in parts])
    assert rows.tobytes() == expected.tobytes()
    quote = (10**12, 100.0, 100.1, 1.0, 1.0)
    for symbol in "ABC":
        assert builders[symbol].update(*quote).as_dict() == lone[symbol].update(*quote).as_dict()


def test_each_symbol_may_have_its_own_config() -> None:
    table = table_of(["A", "B"] * 40)
    configs = {"A": CONFIG, "B": FeatureConfig(tick_size=0.5)}
    rows, _ = run_many(table, config=configs)
    assert rows.tobytes() == one_by_one(table, configs)[0].tobytes()
    with pytest.raises(ConfigError, match=r"`config` must have every symbol of the table, has none for 'B'"):
        run_many(table, config={"A": CONFIG})


def test_rows_go_into_the_array_that_is_given() -> None:
    table = table_of(["A", "B"] * 10)
    out = np.empty((20, 30))
    rows, _ = run_many(table, config=CONFIG, out=out)
    assert rows is out
    with pytest.raises(ValueError, match=r"`out` must be a writable, C-contiguous float64 array of shape \(20, 30\)"):
        run_many(table, config=CONFIG, out=np.empty((19, 30)))


def test_tables_of_others() -> None:
    pa, pl, pd = (pytest.importorskip(name) for name in ("pyarrow", "polars", "pandas"))
    table = table_of(["A", "B", "B", "A", "C"] * 20)
    expected = run_many(table, config=CONFIG).rows.tobytes()
    dtype = [(name, column.dtype) for name, column in table.items()]
    structured = np.empty(100, dtype)
    for name, column in table.items():
        structured[name] = column
    arrow = pa.table({**table, "symbol": pa.array(table["symbol"].tolist()).dictionary_encode()})
    for other in (structured, pa.table(table), arrow, pl.DataFrame(table), pd.DataFrame(table)):
        assert run_many(other, config=CONFIG).rows.tobytes() == expected


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (None, "the table has no column `symbol`"),
        (np.array(["A", None, "B"], object), "row 1 has None"),
        (np.array([1.0, 2.0, 3.0]), "must hold text or whole numbers, was of type float64"),
        (np.array(["A", "B"]), "must have 3 rows like the others, had 2"),
        (np.array([["A"], ["B"], ["C"]]), "must have one dimension, had 2"),
    ],
)
def test_what_names_no_symbols_is_refused(column: Any, message: str) -> None:
    table = {**table_of(["A"] * 3), "symbol": column}
    if column is None:
        del table["symbol"]
    with pytest.raises(EventError, match=message) as caught:
        run_many(table)
    assert caught.value.reason == "bad_columns"


@pytest.mark.parametrize("workers", [0, -1, 1.5, True])
def test_workers_is_a_whole_number_of_at_least_1(workers: Any) -> None:
    with pytest.raises(ConfigError, match="`workers` must be a whole number of at least 1"):
        run_many(table_of(["A"]), workers=workers)


@pytest.mark.slow
def test_ten_thousand_symbols_streaming_and_as_a_table() -> None:
    """Interleaved, three events each: 10 000 builders pushed one by one end where the table's builders end."""
    if available_backends()["native"]:
        pytest.skip("10 000 symbols take minutes without the compiled core")
    count, rounds = 10_000, 3
    table = table_of(np.tile(np.arange(count), rounds).tolist())
    streaming = [FeatureBuilder(CONFIG) for _ in range(count)]
    columns = [table[name].tolist() for name in ("ts_ns", "bid", "ask", "bid_depth", "ask_depth")]
    expected = np.full((count * rounds, 30), np.nan)
    for row, quote in enumerate(zip(*columns, strict=True)):
        try:
            streaming[row % count].push(*quote)
        except EventError:
            continue
        expected[row] = streaming[row % count].view
    rows, report = run_many(table, config=CONFIG, workers=2)
    assert rows.tobytes() == expected.tobytes()
    assert report.rows == count * rounds > report.accepted > 0


def test_a_builder_that_is_in_use_refuses_a_second_thread() -> None:
    """Two threads on one builder: each call either has it to itself or says that it has not; no state is torn."""
    builder, alone = FeatureBuilder(CONFIG), FeatureBuilder(CONFIG)
    table = table_of(["A"] * 20_000)
    del table["symbol"]
    alone.run(table)
    state = builder.snapshot()
    outcomes: list[str] = []
    start = threading.Barrier(2)

    def use() -> None:
        start.wait()
        for _ in range(20):
            try:
                builder.restore(state)
                builder.run(table)
                outcomes.append("alone")
            except RuntimeError as error:
                outcomes.append(str(error))

    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 40
    refusal = "this feature builder is in use by another thread: a builder has one owner"
    assert "alone" in outcomes
    assert set(outcomes) <= {"alone", refusal}
    builder.restore(state)
    builder.run(table)
    assert builder.snapshot() == alone.snapshot()
