"""When a day of trading begins: at a time of day in a time zone, daylight saving and all."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ami_engine.errors import ConfigError
from ami_engine.units import NS_PER_S

__all__ = ["TradingDay"]

_NS_PER_DAY = 86_400 * NS_PER_S
_EPOCH = date(1970, 1, 1)


class TradingDay:
    """Days that begin at `start` in `zone`.

    Parameters
    ----------
    zone : str
        IANA name, such as "America/Chicago".
    start : str
        Time of day "HH:MM" at which a new day begins. One that the clocks skip in spring is taken as if they had not
        been put forward yet; of one that comes twice in autumn the first counts.

    Raises
    ------
    ConfigError
        When the zone is not known here, or the time cannot be read.

    Examples
    --------
    >>> day = TradingDay("Europe/Berlin")
    >>> begin, end = day.bounds(1_711_843_200_000_000_000)  # 31 March 2024: clocks go forward
    >>> (end - begin) / 3_600e9, day.name(begin), day.name(end)
    (23.0, '2024-03-31', '2024-04-01')
    """

    __slots__ = ("_minutes", "_zone", "start", "zone")

    def __init__(self, zone: str = "UTC", start: str = "00:00") -> None:
        self.zone = zone
        self.start = start
        try:
            begins = time.fromisoformat(start)
        except (TypeError, ValueError):
            raise ConfigError(f"`start` of a trading day must be a time such as '17:00', was {start!r}") from None
        if begins.second or begins.microsecond or begins.tzinfo is not None:
            raise ConfigError(f"`start` of a trading day must be hours and minutes, was {start!r}")
        self._minutes = begins.hour * 60 + begins.minute
        try:
            # UTC needs no data base of zones, which some systems lack.
            self._zone = None if zone == "UTC" else ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
            raise ConfigError(f"`zone` of a trading day must be an IANA time zone known here, was {zone!r}") from None

    def __repr__(self) -> str:
        return f"TradingDay({self.zone!r}, {self.start!r})"

    def bounds(self, now_ns: int) -> tuple[int, int]:
        """Return when the day of `now_ns` began and when the next one begins, ns since the Unix epoch."""
        _, begin_ns, end_ns = self.find(now_ns)
        return begin_ns, end_ns

    def name(self, now_ns: int) -> str:
        """Return the date, ISO, on which the day of `now_ns` began in the zone."""
        return (_EPOCH + timedelta(days=self.find(now_ns)[0])).isoformat()

    def find(self, now_ns: int) -> tuple[int, int, int]:
        """Return the day of `now_ns`: its date as days since 1 January 1970, when it began, when the next one does."""
        if self._zone is None:
            shift_ns = self._minutes * 60 * NS_PER_S
            number = (now_ns - shift_ns) // _NS_PER_DAY
            begin_ns = number * _NS_PER_DAY + shift_ns
            return number, begin_ns, begin_ns + _NS_PER_DAY
        day = datetime.fromtimestamp(now_ns // NS_PER_S, UTC).astimezone(self._zone).date()
        if self._begin_ns(day) > now_ns:
            day -= timedelta(days=1)
        return (day - _EPOCH).days, self._begin_ns(day), self._begin_ns(day + timedelta(days=1))

    def _begin_ns(self, day: date) -> int:
        begin = datetime.combine(day, time(self._minutes // 60, self._minutes % 60), self._zone)
        return int(begin.timestamp()) * NS_PER_S
