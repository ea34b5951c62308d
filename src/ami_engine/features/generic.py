"""Features of events without a price, of any domain: their numbers by dotted path, and rolling statistics of each."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import msgspec
import numpy as np

from ami_engine.errors import EventError
from ami_engine.events import Bar, BookDelta, BookSnapshot, BookTicker, FeedGap, GenericEvent, TimerEvent, Trade
from ami_engine.features.backends.state_bytes import seal, unseal
from ami_engine.features.event_reader import TIME_KEYS, read_time
from ami_engine.features.feature_config import FeatureConfig
from ami_engine.features.schema import EPS, MAX_MAGNITUDE
from ami_engine.units import NS_PER_MS, NS_PER_S

__all__ = ["MAX_NAMES", "GenericFeatureBuilder", "is_generic"]

MAX_NAMES = 256

_MARKET_EVENTS = (Bar, BookDelta, BookSnapshot, BookTicker, FeedGap, TimerEvent, Trade)
_PRICE_KEYS = ("bid", "ask", "bids", "asks", "mid", "close")
_MAX_DEPTH = 32
_ENVELOPE = frozenset((*TIME_KEYS, "seq"))


def _primitives() -> tuple[str, Any, Any]:
    try:
        core: Any = import_module("ami_engine._core")
        return "native", core.RollingMoments, core.RollingExtrema
    except ImportError:
        from ami_engine.features.backends.rolling_python import RollingExtrema, RollingMoments

        return "python", RollingMoments, RollingExtrema


def is_generic(event: Any) -> bool:
    """Return True for an event without a price.

    >>> is_generic({"mid": 0.5}), is_generic({"price": 1.0, "size": 2.0}), is_generic({"value": 0.5})
    (False, False, True)
    """
    if isinstance(event, Mapping):
        return not any(key in event for key in _PRICE_KEYS) and not ("price" in event and "size" in event)
    return not isinstance(event, _MARKET_EVENTS)


class _FieldState(msgspec.Struct, array_like=True):
    times: list[int]
    values: list[float]
    moments: bytes
    extrema: bytes


class _State(msgspec.Struct, array_like=True):
    last_ts_ns: int
    event_count: int
    features: dict[str, float]
    fields: dict[str, _FieldState]


class _FieldWindow:
    """The samples of one numeric field in the window, and their statistics."""

    __slots__ = ("extrema", "moments", "samples")

    def __init__(self, moments: Any, extrema: Any) -> None:
        self.moments = moments
        self.extrema = extrema
        self.samples: deque[tuple[int, float]] = deque()

    def push(self, ts_ns: int, value: float) -> None:
        self.samples.append((ts_ns, value))
        self.moments.push(value)
        self.extrema.push(value)

    def drop_old(self, steps: int, horizon_ns: int) -> None:
        # Time alone never takes the last sample.
        samples = self.samples
        while len(samples) > 1 and (samples[0][0] <= horizon_ns or 0 < steps < len(samples)):
            samples.popleft()
            self.moments.drop_oldest()
            self.extrema.drop_oldest()

    def write(self, name: str, features: dict[str, float]) -> None:
        mean, std = self.moments.mean, self.moments.std
        (first_ns, first), (last_ns, last) = self.samples[0], self.samples[-1]
        features[f"{name}.mean"] = mean
        features[f"{name}.std"] = std
        features[f"{name}.min"] = self.extrema.min
        features[f"{name}.max"] = self.extrema.max
        features[f"{name}.z"] = (last - mean) / std if std >= EPS else 0.0
        features[f"{name}.rate_per_s"] = (
            (last - first) / ((last_ns - first_ns) / NS_PER_S) if last_ns > first_ns else 0.0
        )


class GenericFeatureBuilder:
    """Rolling features of events without a price.

    Every finite number or bool of an event is a feature named by its dotted path. Of each such field that was ever seen
    there are, over the regime window of its own samples, ``<name>.mean``, ``.std``, ``.min``, ``.max``, ``.z`` (of its
    newest sample; 0 where std < 1e-9) and ``.rate_per_s`` (its change from the window's oldest sample to the newest,
    per second; 0 where no time passed). Besides there are ``ts_ms``, the event's time, and ``event_count``, the events
    so far. Strings, lists, None and numbers that are not finite are carried in the event and are no features. Time keys
    and `seq` of a mapping, and numbers above 1e150, are features without statistics.

    Parameters
    ----------
    config : FeatureConfig, optional
        `window_5m_steps` and `window_5m_ms` bound the window, as for market features.

    Raises
    ------
    EventError
        From `push` and `update`: `malformed` (no mapping, or nested too deep), `non_positive_time`, `time_backwards`,
        `too_many_names` (the 257th field, by name). The state is as if the event had never come.

    Examples
    --------
    >>> builder = GenericFeatureBuilder()
    >>> builder.push({"ts_ms": 1_000, "scores": {"toxicity": 0.2}, "lang": "en"})
    >>> f = builder.update({"ts_ms": 3_000, "scores": {"toxicity": 0.6}, "flagged": True})
    >>> f["scores.toxicity"], f["scores.toxicity.mean"], round(f["scores.toxicity.rate_per_s"], 9), f["flagged"]
    (0.6, 0.4, 0.2, 1.0)
    """

    def __init__(self, config: FeatureConfig | None = None) -> None:
        self.config = FeatureConfig() if config is None else config
        self._kind, self._moments, self._extrema = _primitives()
        self._last_ts_ns = 0
        self._event_count = 0
        self._fields: dict[str, _FieldWindow] = {}
        self._statistics: dict[str, float] = {}
        self._features: dict[str, float] = {}

    @property
    def view(self) -> Mapping[str, float]:
        """Features after the last event; a later event makes a new mapping and leaves this one alone."""
        return self._features

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features after the last event."""
        return tuple(self._features)

    def update(self, event: Any) -> dict[str, float]:
        """Take an event and return its features."""
        self.push(event)
        return dict(self._features)

    def push(self, event: Any) -> None:
        """Take an event."""
        fields, ts_ns = self._read(event)
        if ts_ns <= 0:
            raise EventError(f"`ts_ns` must be > 0, was {ts_ns}", reason="non_positive_time", field="ts_ns")
        if ts_ns < self._last_ts_ns:
            raise EventError(
                f"`ts_ns` must not be before the last accepted event, was {self._last_ts_ns - ts_ns} ns before it",
                reason="time_backwards",
                field="ts_ns",
            )
        numbers = dict(_numbers(fields, "", 0))
        envelope = _ENVELOPE if fields is event else frozenset[str]()
        sampled = {
            name: value for name, value in numbers.items() if name not in envelope and abs(value) <= MAX_MAGNITUDE
        }
        self._refuse_too_many(sampled)

        self._last_ts_ns = ts_ns
        self._event_count += 1
        for name, value in sampled.items():
            if name not in self._fields:
                self._fields[name] = _FieldWindow(self._moments(0), self._extrema(0))
            self._fields[name].push(ts_ns, value)
        # Time moves every window; a count moves only those that got a sample.
        window_ns = self.config.window_ns
        for name in self._fields if window_ns else sampled:
            window = self._fields[name]
            window.drop_old(self.config.window_steps, ts_ns - window_ns if window_ns else -1)
            window.write(name, self._statistics)
        own = {"ts_ms": ts_ns / NS_PER_MS, "event_count": float(self._event_count)}
        self._features = {**own, **numbers, **self._statistics}

    def snapshot(self) -> bytes:
        """Return the whole state: versioned, checksummed, bound to the config."""
        fields = {
            name: _FieldState(
                [ts_ns for ts_ns, _ in window.samples],
                [value for _, value in window.samples],
                window.moments.snapshot(),
                window.extrema.snapshot(),
            )
            for name, window in self._fields.items()
        }
        state = _State(self._last_ts_ns, self._event_count, self._features, fields)
        return seal(self._backend, self.config, msgspec.msgpack.encode(state))

    def restore(self, state: bytes) -> None:
        """Take a state back and go on from it bit for bit.

        Raises
        ------
        ValueError
            The snapshot is damaged, or of another version, backend or config; nothing has changed then.
        """
        try:
            read = msgspec.msgpack.decode(unseal(self._backend, self.config, state), type=_State)
        except msgspec.MsgspecError as error:
            raise ValueError(f"the snapshot is damaged: {error}") from error
        fields = {}
        statistics: dict[str, float] = {}
        for name, saved in read.fields.items():
            window = _FieldWindow(self._moments(0), self._extrema(0))
            window.moments.restore(saved.moments)
            window.extrema.restore(saved.extrema)
            window.samples.extend(zip(saved.times, saved.values, strict=True))
            window.write(name, statistics)
            fields[name] = window
        self._fields, self._statistics = fields, statistics
        self._last_ts_ns, self._event_count, self._features = read.last_ts_ns, read.event_count, read.features

    def __reduce__(self) -> tuple[Any, tuple[FeatureConfig, bytes]]:
        return _restored, (self.config, self.snapshot())

    @property
    def _backend(self) -> str:
        return f"gen-{self._kind}"

    def _read(self, event: Any) -> tuple[Mapping[str, Any], int]:
        if isinstance(event, GenericEvent):
            return event.fields, event.recv_ts_ns or event.exch_ts_ns
        if not isinstance(event, Mapping):
            raise EventError(
                f"a generic event must be a GenericEvent or a mapping, was {type(event).__name__}", reason="wrong_type"
            )
        ts_ns = read_time(event)
        fields = (
            event["fields"] if event.get("type") == "generic" and isinstance(event.get("fields"), Mapping) else event
        )
        return fields, self._last_ts_ns + NS_PER_MS if ts_ns is None else ts_ns

    def _refuse_too_many(self, sampled: Mapping[str, float]) -> None:
        count = len(self._fields)
        for name in sampled:
            if name not in self._fields:
                count += 1
                if count > MAX_NAMES:
                    raise EventError(
                        f"a source of generic events has at most {MAX_NAMES} numeric fields, `{name}` is one more",
                        reason="too_many_names",
                        field=name,
                    )


def _restored(config: FeatureConfig, state: bytes) -> GenericFeatureBuilder:
    builder = GenericFeatureBuilder(config)
    builder.restore(state)
    return builder


def _numbers(fields: Mapping[Any, Any], prefix: str, depth: int) -> Iterator[tuple[str, float]]:
    """Yield every finite number with its dotted path."""
    if depth > _MAX_DEPTH:
        raise EventError(
            f"a generic event must be nested at most {_MAX_DEPTH} deep, `{prefix[:60]}` is deeper", reason="malformed"
        )
    for key, value in fields.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{path}.", depth + 1)
        elif isinstance(value, (int, float, np.number, np.bool_)) and not isinstance(value, np.complexfloating):
            try:
                number = float(value)
            except OverflowError:
                continue
            if math.isfinite(number):
                yield path, number
