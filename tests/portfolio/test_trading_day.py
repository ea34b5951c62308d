"""Days begin where the zone's clocks say, whatever daylight saving does."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ami_engine.errors import ConfigError
from ami_engine.portfolio.trading_day import TradingDay

HOUR_NS = 3_600 * 10**9
ZONES = ["UTC", "Europe/London", "Europe/Berlin", "America/Chicago", "Asia/Kolkata", "Pacific/Auckland"]


def at(text: str, zone: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * 10**9


@given(
    st.sampled_from(ZONES),
    st.integers(0, 23),
    st.datetimes(datetime(1990, 1, 1), datetime(2035, 1, 1)),  # noqa: DTZ001
)
def test_every_moment_lies_in_one_day_and_days_follow_each_other(zone: str, hour: int, when: datetime) -> None:
    day = TradingDay(zone, f"{hour:02d}:00")
    now_ns = int(when.replace(tzinfo=UTC).timestamp()) * 10**9
    number, begin_ns, end_ns = day.find(now_ns)
    assert begin_ns <= now_ns < end_ns
    assert 23 * HOUR_NS <= end_ns - begin_ns <= 25 * HOUR_NS
    assert day.find(begin_ns) == day.find(end_ns - 1) == (number, begin_ns, end_ns)
    assert day.find(end_ns)[:2] == (number + 1, end_ns)


@pytest.mark.parametrize(("date", "hours"), [("2024-03-31", 23), ("2024-10-27", 25), ("2024-06-01", 24)])
def test_a_day_of_daylight_saving_has_the_hours_it_has(date: str, hours: int) -> None:
    day = TradingDay("Europe/Berlin")
    begin_ns, end_ns = day.bounds(at(f"{date}T12:00:00", "Europe/Berlin"))
    assert (end_ns - begin_ns) / HOUR_NS == hours
    assert day.name(begin_ns) == date


def test_a_day_may_begin_in_the_afternoon() -> None:
    day = TradingDay("America/Chicago", "17:00")
    assert day.name(at("2024-05-06T16:59:59", "America/Chicago")) == "2024-05-05"
    assert day.name(at("2024-05-06T17:00:00", "America/Chicago")) == "2024-05-06"


def test_a_time_that_the_clocks_skip_still_begins_one_day() -> None:
    day = TradingDay("Europe/Berlin", "02:30")
    begin_ns, _ = day.bounds(at("2024-03-31T12:00:00", "Europe/Berlin"))
    assert begin_ns == at("2024-03-31T03:30:00", "Europe/Berlin")


@pytest.mark.parametrize(
    ("zone", "start", "named"),
    [("Mars/Olympus", "00:00", "zone"), ("", "00:00", "zone"), ("UTC", "25:00", "start"), ("UTC", "12:00:01", "start")],
)
def test_what_is_no_day_is_refused(zone: str, start: str, named: str) -> None:
    with pytest.raises(ConfigError, match=f"`{named}` of a trading day"):
        TradingDay(zone, start)
