"""The contract of a source of events, clause by clause."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args

from ami_engine.adapters.base import DataSource
from ami_engine.adapters.dict_event import event_from_dict
from ami_engine.clock import ManualClock
from ami_engine.errors import ConfigError, EventError
from ami_engine.events import Bar, BookDelta, BookSnapshot, BookTicker, MarketEvent, Trade
from ami_engine.loop.run_loop import run_loop
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.testing.clause import Clause, NotTried, require
from ami_engine.testing.testbed import DEFAULT_INSTRUMENT
from ami_engine.units import NS_PER_MS, Instrument

__all__ = ["SOURCE_CLAUSES", "SourceTestbed", "source_testbeds"]

_EVENT_TYPES = get_args(MarketEvent)
_STREAMS: dict[type, str] = {BookSnapshot: "book", BookDelta: "delta", BookTicker: "ticker", Trade: "trade", Bar: "bar"}
# A contract is about how a source speaks: so many events show it.
_MOST_EVENTS = 5_000
_MOST_FAULTS = 100


class SourceTestbed:
    """A source under test, and the means to make the same one again."""

    def __init__(self, make: Callable[[], DataSource]) -> None:
        self.make = make
        self.source = make()

    def close(self) -> None:
        """Close the source, however it is left."""
        self.source.close()


def source_testbeds(factory: Callable[..., Any], *, seed: int = 0) -> Callable[[], SourceTestbed]:
    """Return a function that makes a fresh testbed of the source that a factory returns.

    The factory is called with those of ``clock=…, instrument=…, seed=…`` that it takes; each must have a default.

    Raises
    ------
    ConfigError
        When what comes back has no `next_event`.
    """
    given = {"clock": ManualClock(1_700_000_000_000_000_000), "instrument": DEFAULT_INSTRUMENT, "seed": seed}
    try:
        parameters = inspect.signature(factory).parameters
        takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        known = {name: value for name, value in given.items() if takes_all or name in parameters}
    except (TypeError, ValueError):
        known = given

    def make() -> DataSource:
        source = factory(**known)
        if not callable(getattr(source, "next_event", None)):
            raise ConfigError(f"the source factory must return a DataSource, was {type(source).__name__}")
        return source  # type: ignore[no-any-return]

    return lambda: SourceTestbed(make)


def _events(source: DataSource) -> Iterator[Any]:
    """Read up to `_MOST_EVENTS` events as structs; records that cannot be read are passed over."""
    faults = 0
    for number in range(_MOST_EVENTS):
        try:
            event = source.next_event()
        except EventError as error:
            faults += 1
            require(faults < _MOST_FAULTS, f"{faults} records in a row could not be read, the last: {error}")
            continue
        if event is None:
            return
        faults = 0
        yield event_from_dict(event, fallback_ts_ns=(number + 1) * NS_PER_MS) if isinstance(event, Mapping) else event


def _recorded(bed: SourceTestbed) -> DataSource:
    if bed.source.is_live:
        raise NotTried("the source is live: what it says cannot be asked for twice")
    return bed.source


def _gives_events(bed: SourceTestbed) -> None:
    count = 0
    for event in _events(bed.source):
        require(
            isinstance(event, _EVENT_TYPES), f"`next_event` must return an event struct, a dict or None, was {event!r}"
        )
        count += 1
        if bed.source.is_live and count == 10:
            return
    require(count > 0, "the source gave no event at all")


def _stays_exhausted(bed: SourceTestbed) -> None:
    source = _recorded(bed)
    if sum(1 for _ in _events(source)) == _MOST_EVENTS:
        raise NotTried(f"the source has more than {_MOST_EVENTS} events")
    for _ in range(3):
        event = source.next_event()
        require(event is None, f"an exhausted source must go on returning None, was {event!r}")


def _time_goes_forward(bed: SourceTestbed) -> None:
    last: dict[str, int] = {}
    for event in _events(_recorded(bed)):
        ts_ns = event.recv_ts_ns or event.exch_ts_ns
        require(ts_ns > 0, f"an event needs `recv_ts_ns` or `exch_ts_ns`, ns since 1970: {event!r}")
        before = last.get(event.symbol, 0)
        require(
            ts_ns >= before, f"time goes back by {before - ts_ns} ns within {event.symbol!r}: order by receive time"
        )
        last[event.symbol] = ts_ns


def _sequence_as_declared(bed: SourceTestbed) -> None:
    unknown = set(bed.source.unique_seq) - set(_STREAMS.values())
    require(not unknown, f"`unique_seq` names {sorted(unknown)}; kinds are {sorted(_STREAMS.values())}")
    if not bed.source.unique_seq:
        raise NotTried("`unique_seq` is empty: the source promises nothing of its sequence numbers")
    last: dict[tuple[str, str], int] = {}
    for event in _events(_recorded(bed)):
        kind = _STREAMS.get(type(event), "")
        if kind not in bed.source.unique_seq or not event.seq:
            continue
        before = last.get((event.symbol, kind), 0)
        require(event.seq > before, f"`unique_seq` promises rising {kind} numbers; {event.seq} came after {before}")
        last[event.symbol, kind] = event.seq


def _snapshots_as_declared(bed: SourceTestbed) -> None:
    if not bed.source.snapshots_only:
        raise NotTried("`snapshots_only` is False: the engine keeps a book")
    for event in _events(_recorded(bed)):
        require(
            not isinstance(event, BookDelta | BookTicker),
            f"`snapshots_only` is True, and a {type(event).__name__} came: no book is kept for it",
        )


def _same_again(bed: SourceTestbed) -> None:
    first = [_plain(event) for event in _events(_recorded(bed))]
    again = bed.make()
    try:
        second = [_plain(event) for event in _events(again)]
    finally:
        again.close()
    require(len(first) == len(second), f"the same source gave {len(first)} events first and {len(second)} then")
    for number, (one, other) in enumerate(zip(first, second, strict=True), start=1):
        require(one == other, f"event {number} of the same source differs: {one} and {other}")


def _plain(event: Any) -> str:
    return repr(event)


def _identity_is_stable(bed: SourceTestbed) -> None:
    source, again = _recorded(bed), bed.make()
    try:
        require(isinstance(source.identity, str), f"`identity` must be a string, was {source.identity!r}")
        require(
            source.identity == again.identity,
            f"`identity` names the data in the run id and must not change: {source.identity!r} and {again.identity!r}",
        )
    finally:
        again.close()


def _place_is_readable(bed: SourceTestbed) -> None:
    next(_events(bed.source), None)
    place = bed.source.place()
    require(
        isinstance(place, tuple) and len(place) == 2 and isinstance(place[0], str) and isinstance(place[1], int),
        f"`place` must return (name, number), was {place!r}",
    )


def _instruments_are_readable(bed: SourceTestbed) -> None:
    instruments = bed.source.instruments()
    require(isinstance(instruments, Mapping), f"`instruments` must return a mapping, was {type(instruments).__name__}")
    for symbol, instrument in instruments.items():
        require(
            isinstance(symbol, str) and isinstance(instrument, Instrument),
            f"`instruments` must map symbols to Instrument, has {symbol!r}: {instrument!r}",
        )


def _closes_twice(bed: SourceTestbed) -> None:
    bed.source.close()
    bed.source.close()


def _runs_under_the_engine(bed: SourceTestbed) -> None:
    source = _recorded(bed)
    known = source.instruments()
    instrument = next(iter(known.values()), None)
    broker = PaperBroker(instrument=instrument, instruments=known)
    summary = run_loop(source=source, broker=broker, steps=_MOST_EVENTS, trace=False)
    refused = sum(summary["rejected_events"].values())
    require(summary["steps"] > 0, f"the engine accepted no event, it refused {summary['rejected_events']}")
    require(
        refused <= summary["steps"] // 10,
        f"the engine refused {refused} events beside {summary['steps']} steps: {summary['rejected_events']}",
    )
    require(
        summary["stopped_reason"] in ("source_exhausted", "steps"),
        f"the run must end by itself, ended {summary['stopped_reason']!r}",
    )


SOURCE_CLAUSES: tuple[Clause[SourceTestbed], ...] = tuple(
    Clause(name, text, check)
    for name, text, check in (
        (
            "events",
            "`next_event` returns event structs or dicts, and raises EventError for a bad record.",
            _gives_events,
        ),
        ("exhausted", "After the end `next_event` goes on returning None.", _stays_exhausted),
        ("time", "Every event has a time, and receive time never goes back within a symbol.", _time_goes_forward),
        ("sequence", "Sequence numbers rise where `unique_seq` says so.", _sequence_as_declared),
        ("snapshots", "`snapshots_only` is kept.", _snapshots_as_declared),
        ("same-again", "The same source made twice gives the same events.", _same_again),
        ("identity", "`identity` is the same for the same data.", _identity_is_stable),
        ("place", "`place` names where the last event was read.", _place_is_readable),
        ("instruments", "`instruments` maps symbols to Instrument.", _instruments_are_readable),
        ("close", "`close` may be called twice.", _closes_twice),
        ("engine", "The engine runs over it, and refuses few of its events.", _runs_under_the_engine),
    )
)
