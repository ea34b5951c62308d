"""Events that the engine makes itself."""

from __future__ import annotations

import msgspec

__all__ = ["TimerEvent"]


class TimerEvent(msgspec.Struct, frozen=True, tag="timer", gc=False):
    """Time went by without an event of `symbol`. It decides and is traced, but is no step and enters no window."""

    recv_ts_ns: int = 0
    symbol: str = ""
