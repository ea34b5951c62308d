"""What a file of events that we wrote says of itself, so that it is read back as it was without being told."""

from __future__ import annotations

import msgspec

from ami_engine.adapters.base import DataSource
from ami_engine.errors import ConfigError
from ami_engine.units import Instrument

__all__ = ["CSV_PREFIX", "PARQUET_KEY", "EventFile", "decode_event_file", "encode_event_file"]

CSV_PREFIX = b"# ami_events "
PARQUET_KEY = b"ami_events"
_VERSION = 1


class EventFile(msgspec.Struct, frozen=True, tag="ami_events"):
    """What a source says beside its events. The columns need no map: they have the names of the events' fields.

    Parameters
    ----------
    unique_seq, snapshots_only
        As of `DataSource`.
    instruments : list of Instrument
        What was known of the instruments; ``""`` as symbol stands for any.
    version : int
        Of this description.

    Examples
    --------
    >>> decode_event_file(encode_event_file(EventFile(["trade"], True))).unique_seq
    ['trade']
    """

    unique_seq: list[str] = []
    snapshots_only: bool = False
    instruments: list[Instrument] = []
    version: int = _VERSION

    @classmethod
    def of(cls, source: DataSource) -> EventFile:
        """Describe `source`."""
        instruments = [
            msgspec.structs.replace(instrument, symbol=symbol) for symbol, instrument in source.instruments().items()
        ]
        return cls(sorted(source.unique_seq), source.snapshots_only, instruments)


def encode_event_file(about: EventFile) -> bytes:
    """Return the description as one line of JSON."""
    return msgspec.json.encode(about)


def decode_event_file(text: bytes) -> EventFile:
    """Read what `encode_event_file` wrote; ConfigError when it is damaged or of a later version."""
    try:
        about = msgspec.json.decode(text, type=EventFile)
    except (msgspec.DecodeError, ConfigError) as error:
        raise ConfigError(f"what the file says of itself (`ami_events`) cannot be read: {error}") from None
    if about.version != _VERSION:
        raise ConfigError(f"the file is of version {about.version} of `ami_events`; version {_VERSION} is read here")
    return about
