"""The record of one step: what came in, what was proposed, what was decided, and how long it took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from decision_schema.version import __version__

__all__ = ["PacketV2", "to_plain"]


def to_plain(value: Any) -> Any:
    """Turn a value that msgspec does not know into one that it does: the `enc_hook` of every packet encoder.

    Mappings become dicts, arrays and array scalars what their `tolist` gives, objects what their `as_dict` or `to_dict`
    gives.

    Raises
    ------
    NotImplementedError
        For anything else; only its type is named, because its repr may hold what must not be written.

    Examples
    --------
    >>> from types import MappingProxyType
    >>> to_plain(MappingProxyType({"mid": 0.5}))
    {'mid': 0.5}
    """
    for method in ("as_dict", "to_dict", "tolist"):
        convert = getattr(value, method, None)
        if convert is not None:
            return convert()
    if isinstance(value, Mapping):
        return dict(value)
    raise NotImplementedError(f"a packet cannot hold a {type(value).__module__}.{type(value).__qualname__}")


class PacketV2(msgspec.Struct):
    """One step of a run, complete enough to be replayed.

    Parameters
    ----------
    run_id : str
        The run.
    step : int
        Number of the step in its run, from 0.
    input : mapping or struct
        What the decision was made from: the event and its features.
    external : mapping
        Context and bookkeeping; its keys follow `decision_schema.trace_registry`.
    mdm : mapping or struct
        The proposal.
    final_action : mapping or struct
        The decision.
    latency_ms : float
        Time that the step took, ms.
    mismatch : mapping, struct or None
        Where the decision departed from the proposal.
    schema_version : str
        Version of this contract.

    Examples
    --------
    >>> packet = PacketV2("run_1", 0, {"mid": 0.5}, {}, {"action": "HOLD"}, {"action": "HOLD"}, 0.1)
    >>> packet.to_dict()["schema_version"] == packet.schema_version
    True
    >>> PacketV2.from_dict(packet.to_dict()) == packet
    True
    """

    run_id: str
    step: int
    input: Any
    external: Any
    mdm: Any
    final_action: Any
    latency_ms: float
    mismatch: Any = None
    schema_version: str = __version__

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists, strings and numbers all the way down; nothing is shared with the packet."""
        return msgspec.to_builtins(self, enc_hook=to_plain)  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PacketV2:
        """Return the packet that `data` describes; a missing `schema_version` means the current one.

        Raises
        ------
        ValueError
            When a required key is missing or a key is unknown.
        """
        missing = [key for key in cls.__struct_fields__[:7] if key not in data]
        if missing:
            raise ValueError(f"a packet needs the key `{missing[0]}`, which is missing")
        unknown = [key for key in data if key not in cls.__struct_fields__]
        if unknown:
            raise ValueError(f"a packet has no key `{unknown[0]}`")
        return cls(**data)
