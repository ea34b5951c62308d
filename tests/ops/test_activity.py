"""The activity file: written as it happens, read back as it was, and never a reason for a run to end."""

from __future__ import annotations

from pathlib import Path

import pytest

from ami_engine.errors import TraceError
from ami_engine.events import Fill, Liquidity, Side
from ami_engine.ops.activity import ACTIVITY_FILE_NAME, ActivityLog, FillMark, QuoteMark, read_activity

FILL = Fill(
    trade_id="t", client_order_id="c", market_id="X", side=Side.SELL, price=0.5, qty=2.0, liquidity=Liquidity.TAKER
)


def test_fills_and_quotes_read_back_as_they_were(tmp_path: Path) -> None:
    log = ActivityLog(tmp_path)
    log.quotes(1, 10, {"X": (0.49, None)})
    log.fill(2, 20, "X", FILL, position=-2.0, equity=99.5)
    log.close()
    assert list(read_activity(tmp_path)) == [
        QuoteMark(1, 10, "X", 0.49, None),
        FillMark(2, 20, "X", "SELL", "TAKER", 0.5, 2.0, 0.0, -2.0, 99.5),
    ]


def test_quotes_are_written_where_they_moved(tmp_path: Path) -> None:
    log = ActivityLog(tmp_path)
    log.quotes(1, 10, {"X": (0.49, 0.51), "Y": (1.0, 2.0)})
    log.quotes(2, 20, {"X": (0.49, 0.51), "Y": (1.0, 3.0)})
    log.quotes(3, 30, {"Y": (1.0, 3.0)})
    log.close()
    marks = [(mark.step, mark.symbol) for mark in read_activity(tmp_path)]
    assert marks == [(1, "X"), (1, "Y"), (2, "Y"), (3, "X")]


def test_a_resumed_log_goes_on_behind_the_last_whole_line(tmp_path: Path) -> None:
    first = ActivityLog(tmp_path)
    first.fill(1, 10, "X", FILL, position=-2.0, equity=1.0)
    first.close()
    path = tmp_path / ACTIVITY_FILE_NAME
    path.write_bytes(path.read_bytes() + b'{"kind":"fil')
    assert len(list(read_activity(tmp_path))) == 1
    second = ActivityLog(tmp_path, is_resumed=True)
    second.fill(2, 20, "X", FILL, position=-4.0, equity=1.0)
    second.close()
    assert [mark.step for mark in read_activity(tmp_path)] == [1, 2]


def test_a_line_of_another_kind_is_named(tmp_path: Path) -> None:
    path = tmp_path / ACTIVITY_FILE_NAME
    path.write_text('{"kind":"quotes","step":1,"now_ns":2,"symbol":"X","bid":1.0,"ask":null}\n{"kind":"loan"}\n')
    marks = read_activity(tmp_path)
    assert next(marks).step == 1
    with pytest.raises(TraceError, match=r"activity.jsonl:2: is no line of an activity file"):
        next(marks)


def test_a_secret_in_a_market_name_is_not_written(tmp_path: Path) -> None:
    log = ActivityLog(tmp_path)
    log.fill(1, 10, "X?api_key=abc123def", FILL, position=0.0, equity=float("nan"))
    log.close()
    text = (tmp_path / ACTIVITY_FILE_NAME).read_text()
    assert "abc123def" not in text
    (mark,) = read_activity(tmp_path)
    assert isinstance(mark, FillMark)
    assert mark.equity is None


def test_a_folder_without_the_file_has_no_activity(tmp_path: Path) -> None:
    assert list(read_activity(tmp_path)) == []


def test_a_full_disk_ends_the_log_and_raises_nothing(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, a device that takes nothing")
    (tmp_path / ACTIVITY_FILE_NAME).symlink_to("/dev/full")
    log = ActivityLog(tmp_path, is_resumed=True)
    for step in range(2_000):
        log.fill(step, step, "X", FILL, position=0.0, equity=0.0)
    log.close()
    assert "cannot be written" in log.failure
