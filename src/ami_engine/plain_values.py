"""Plain values: how what msgspec does not know becomes what it does, for everything that is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["to_plain"]


def to_plain(value: Any) -> Any:
    """Turn a value that msgspec does not know into one that it does: the `enc_hook` of every encoder.

    Mappings become dicts, arrays and array scalars what their `tolist` gives, objects what their `as_dict` or `to_dict`
    gives. `decision_schema` has the same rule of its own for `PacketV2.to_dict`: another distribution of it may stand
    in its place, so that nothing beyond the contract's names is taken from there.

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
