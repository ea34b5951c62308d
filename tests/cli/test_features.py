"""`ami features`: rows as the builder gives them, in Parquet and in CSV."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from ami_engine.features import FeatureBuilder, FeatureConfig
from ami_engine.features.schema import FEATURE_NAMES

from .conftest import Ami

pytest.importorskip("pyarrow")

KEYS = ("recv_ts_ns", "exch_ts_ns", "symbol", "kind")


def built(path: Path, tick_size: float = 0.01, levels: int = 10) -> np.ndarray:
    """The rows that a builder of one's own makes of the same events."""
    builder = FeatureBuilder(FeatureConfig(tick_size=tick_size, levels=levels))
    rows = [np.array(builder.update(json.loads(line))) for line in path.read_text().splitlines()]
    return np.array(rows)


def read_csv(path: Path) -> tuple[list[str], np.ndarray, list[list[str]]]:
    with path.open(newline="") as file:
        names, *cells = list(csv.reader(file))
    return names, np.array([[float(cell) for cell in row[4:]] for row in cells]), [row[:4] for row in cells]


def test_csv_holds_the_builders_rows_to_the_bit(ami: Ami, quotes: Path, tmp_path: Path) -> None:
    said = ami("features", "--source", quotes, "--tick-size", "0.01", "--out", "x.csv")
    assert said == (0, "200 rows of 34 columns in x.csv\n", "")
    names, rows, keys = read_csv(tmp_path / "x.csv")
    assert names == [*KEYS, *FEATURE_NAMES]
    np.testing.assert_array_equal(rows, built(quotes))
    assert keys[1] == ["1700000000010000000", "1700000000010000000", "X", "book_snapshot"]


def test_parquet_holds_the_same_and_others_can_read_it(ami: Ami, quotes: Path, tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    from pyarrow import parquet

    ami("features", "--source", quotes, "--tick-size", "0.01", "--out", "x.csv")
    said = ami("features", "--source", quotes, "--tick-size", "0.01", "--out", "x.parquet", "--json")
    assert (said.code, said.err, said.document["rows"]) == (0, "", 200)
    table = parquet.read_table(tmp_path / "x.parquet")
    _, rows, keys = read_csv(tmp_path / "x.csv")
    assert table.column_names == said.document["columns"] == [*KEYS, *FEATURE_NAMES]
    assert [str(kind) for kind in table.schema.types] == ["int64", "int64", "string", "string", *["double"] * 30]
    np.testing.assert_array_equal(np.column_stack([table[name].to_numpy() for name in FEATURE_NAMES]), rows)
    assert [[str(cell) for cell in row] for row in zip(*(table[key].to_pylist() for key in KEYS), strict=True)] == keys
    frame = polars.read_parquet(tmp_path / "x.parquet")
    np.testing.assert_array_equal(frame.select(FEATURE_NAMES).to_numpy(), rows)


def test_more_rows_than_a_block_come_out_whole_and_in_order(ami: Ami, tmp_path: Path) -> None:
    from pyarrow import parquet

    count = 65_536 + 1_000
    with (tmp_path / "long.jsonl").open("w") as file:
        for i in range(count):
            file.write(f'{{"ts_ns": {1_000_000 * (i + 1)}, "bid": 1.0, "ask": 1.01, "bid_depth": {1 + i % 5}}}\n')
    assert ami("features", "--source", "long.jsonl", "--out", "x.parquet", "--json").document["rows"] == count
    table = parquet.read_table(tmp_path / "x.parquet")
    np.testing.assert_array_equal(table["recv_ts_ns"].to_numpy(), 1_000_000 * np.arange(1, count + 1))
    np.testing.assert_array_equal(table["bid_depth"].to_numpy(), 1.0 + np.arange(count) % 5)


def test_levels_are_those_asked_for(ami: Ami, tmp_path: Path) -> None:
    lines = [
        {"ts_ns": 10**6 * (1 + i), "bids": [[1.0, 2.0], [0.99, 3.0]], "asks": [[1.01, 4.0], [1.02, 5.0 + i]]}
        for i in range(5)
    ]
    path = tmp_path / "books.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for levels, depth in (("1", 6.0), ("2", 14.0)):
        ami("features", "--source", path, "--tick-size", "0.01", "--levels", levels, "--out", "x.csv", "--overwrite")
        _, rows, _ = read_csv(tmp_path / "x.csv")
        assert rows[0, FEATURE_NAMES.index("depth")] == depth
        np.testing.assert_array_equal(rows, built(path, levels=int(levels)))


def test_every_symbol_keeps_its_tick_whatever_the_levels(ami: Ami, tmp_path: Path) -> None:
    (tmp_path / "two.toml").write_text(
        '[[instrument]]\nsymbol = "A"\ntick_size = 0.01\n[[instrument]]\nsymbol = "B"\ntick_size = 0.5\n'
    )
    book = {"bids": [[100.0, 2.0], [99.5, 3.0]], "asks": [[100.5, 1.0], [101.0, 7.0]]}
    lines = [json.dumps({"ts_ms": 1 + i, "symbol": symbol, **book}) for i, symbol in enumerate("AB")]
    (tmp_path / "two.jsonl").write_text("\n".join(lines))
    alpha = FEATURE_NAMES.index("microprice_alpha_ticks")
    ticks = []
    for levels in ("10", "2"):
        arguments = (
            "--source",
            "two.jsonl",
            "--instrument",
            "two.toml",
            "--levels",
            levels,
            "--out",
            "x.csv",
            "--overwrite",
        )
        assert ami("features", *arguments).code == 0
        ticks.append(read_csv(tmp_path / "x.csv")[1][:, alpha].tolist())
    assert ticks[0] == ticks[1]
    assert ticks[0][0] == pytest.approx(50 * ticks[0][1])


def test_refused_events_have_no_row_and_are_named(ami: Ami, quotes: Path, bad_quotes: Path, tmp_path: Path) -> None:
    ami("features", "--source", quotes, "--tick-size", "0.01", "--out", "good.csv")
    said = ami("features", "--source", bad_quotes, "--tick-size", "0.01", "--out", "bad.csv")
    assert said.code == 0
    assert said.err.splitlines()[0].startswith("ami: refused: bad.jsonl:101: `bid` must not be above `ask`")
    assert said.err.splitlines()[1].startswith("ami: refused: bad.jsonl:151: not valid JSON")
    assert (tmp_path / "bad.csv").read_bytes() == (tmp_path / "good.csv").read_bytes()
    document = ami("features", "--source", bad_quotes, "--out", "bad.csv", "--overwrite", "--json").document
    assert document["rejected_events"] == {"crossed_book": 1, "bad_json": 1}


def test_stopping_at_a_bad_event_keeps_the_rows_before_it_and_exits_with_1(
    ami: Ami, bad_quotes: Path, tmp_path: Path
) -> None:
    said = ami("features", "--source", bad_quotes, "--out", "x.csv", "--on-bad-event", "stop")
    assert said.code == 1
    assert said.out == "100 rows of 34 columns in x.csv\n"
    assert "bad_event: bad.jsonl:101: " in said.err
    assert len(read_csv(tmp_path / "x.csv")[1]) == 100


def test_an_unknown_bad_event_policy_is_refused(ami: Ami, bad_quotes: Path) -> None:
    said = ami("features", "--source", bad_quotes, "--out", "x.csv", "--on-bad-event", "ignore")
    assert said.code == 2
    assert "'ignore'" in said.error


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_no_steps_is_a_table_without_rows(ami: Ami, quotes: Path, tmp_path: Path, ending: str) -> None:
    said = ami("features", "--source", quotes, "--steps", "0", "--out", f"x{ending}", "--json")
    assert (said.code, said.document["rows"]) == (0, 0)
    if ending == ".parquet":
        from pyarrow import parquet

        assert parquet.read_table(tmp_path / "x.parquet").num_rows == 0


def test_steps_bound_the_table(ami: Ami, quotes: Path) -> None:
    document = ami("features", "--source", quotes, "--steps", "30", "--out", "x.csv", "--json").document
    assert (document["rows"], document["stopped_reason"]) == (30, "steps")


def test_events_without_a_price_are_refused_by_reason(ami: Ami, tmp_path: Path) -> None:
    quote = '{"ts_ms": %d, "bid": 1.0, "ask": 1.1}'
    lines = [quote % 1, '{"ts_ms": 2, "temperature": 20.5}', quote % 3]
    (tmp_path / "mixed.jsonl").write_text("\n".join(lines))
    document = ami("features", "--source", "mixed.jsonl", "--out", "x.csv", "--json").document
    assert (document["rows"], document["rejected_events"]) == (2, {"wrong_type": 1})
    assert document["rejected_places"] == ["mixed.jsonl:2: an event without a price has no market features"]


def test_a_file_that_exists_is_left_alone_and_a_new_one_appears_whole(ami: Ami, tmp_path: Path, quotes: Path) -> None:
    (tmp_path / "mine.csv").write_text("mine")
    said = ami("features", "--source", quotes, "--tick-size", "0.01", "--out", "mine.csv")
    assert (said.code, (tmp_path / "mine.csv").read_text()) == (2, "mine")
    said = ami("features", "--source", quotes, "--tick-size", "0.01", "--out", "mine.csv", "--overwrite")
    assert (said.code, len(read_csv(tmp_path / "mine.csv")[1])) == (0, 200)
    assert [path.name for path in tmp_path.glob("*.part")] == []
