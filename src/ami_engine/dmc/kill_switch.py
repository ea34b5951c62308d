"""The kill switch: a latch on disk that any doubt trips, and that only a named operator releases."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import Any, Protocol

import msgspec

from ami_engine.dmc.risk_state import Latch
from ami_engine.errors import ConfigError, TraceError

__all__ = ["KILL_SWITCH", "LATCH_FILE_NAME", "KillSwitch", "LatchFile", "LatchStore", "Probe", "write_durably"]

KILL_SWITCH = "kill_switch"
LATCH_FILE_NAME = "latches.json"

# Returns True while all is well.
Probe = Callable[[], object]


class LatchStore(Protocol):
    """Where latches are kept: a file beside the trace, or a table of the journal."""

    def load(self) -> list[Latch]:
        """Return what is latched, oldest first; raise when that cannot be known."""
        ...

    def save(self, latches: list[Latch]) -> None:
        """Keep these latches and no others, durably, before returning."""
        ...


class _Audit(Protocol):
    def record(self, kind: str, /, **fields: Any) -> Any: ...


class LatchFile:
    """Latches in one small JSON file.

    Parameters
    ----------
    path : Path
        The file; its folder is made when absent. No file means that nothing is latched.

    Raises
    ------
    TraceError
        From `load` when the file is damaged or cannot be read, from `save` when it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> list[Latch]:
        """Return what the file holds."""
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=list[Latch])
        except FileNotFoundError:
            return []
        except (msgspec.DecodeError, OSError) as error:
            raise TraceError(f"{self.path}: cannot be read, so what is latched is not known: {error}") from error

    def save(self, latches: list[Latch]) -> None:
        """Keep these latches, durably, before returning."""
        write_durably(self.path, msgspec.json.encode(latches))


def write_durably(path: Path, text: bytes) -> None:
    """Replace a file's content: a crash leaves the old file or the new one, never half of one.

    Raises
    ------
    TraceError
        When it cannot be written.
    """
    beside = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise TraceError(f"{path}: cannot be written: {error.strerror}") from error


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; where folders cannot be opened (Windows) the file system does it."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


class KillSwitch:
    """Trips once, stays tripped over restarts, and fails closed.

    Parameters
    ----------
    store : LatchStore
        Where the latch is kept, `LatchFile` or the journal's. When it cannot be read the switch is tripped.
    probes : mapping of str to callable
        What `check` asks; each returns True while all is well. One that raises, or returns anything else, trips.
    audit : object with ``record`` or None
        Gets a line for every trip and every release.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     store = LatchFile(Path(folder) / "latches.json")
    ...     print(KillSwitch(store).trip("position does not match the venue", now_ns=7))
    ...     restarted = KillSwitch(store)
    ...     print(restarted.is_tripped, restarted.reason)
    ...     restarted.release("ann", "position corrected by hand", now_ns=8)
    ...     print(KillSwitch(store).is_tripped)
    True
    True position does not match the venue
    False
    """

    def __init__(
        self, store: LatchStore, *, probes: Mapping[str, Probe] | None = None, audit: _Audit | None = None
    ) -> None:
        self._store = store
        self._probes = dict(probes or {})
        self._audit = audit
        self._latch: Latch | None = None
        try:
            self._latch = next((latch for latch in store.load() if latch.name == KILL_SWITCH), None)
        except Exception as error:  # a store may be anyone's, and nobody knows now what it held
            self._trip(f"what is latched cannot be read: {type(error).__name__}", 0)

    @property
    def is_tripped(self) -> bool:
        """True while nothing may be sent."""
        return self._latch is not None

    @property
    def reason(self) -> str:
        """Why it tripped first; empty while it has not."""
        return "" if self._latch is None else self._latch.reason

    def trip(self, reason: str, now_ns: int) -> bool:
        """Trip it. Tripping again changes nothing; return True when this call was the one that tripped it."""
        if self._latch is not None:
            return False
        self._trip(reason, now_ns)
        return True

    def check(self, now_ns: int, **numbers: object) -> bool:
        """Return True while trading may go on: nothing tripped, every number finite, every probe content.

        `numbers` are what the caller's limits are judged by (equity, position, price): one that is not a finite number
        trips, because every comparison with it would pass.
        """
        if self._latch is not None:
            return False
        for name, number in numbers.items():
            # bool is a number to Python, and a mix-up here.
            if isinstance(number, bool) or not isinstance(number, Real) or not isfinite(number):
                self._trip(f"`{name}` is not a finite number: {number!r}", now_ns)
                return False
        for name, probe in self._probes.items():
            try:
                answer = probe()
            except Exception as error:  # a probe is foreign code, and one that fails has seen nothing
                self._trip(f"probe {name!r} failed: {type(error).__name__}", now_ns)
                return False
            if answer is not True:
                self._trip(f"probe {name!r} said {answer!r}", now_ns)
                return False
        return True

    def release(self, operator: str, reason: str, now_ns: int) -> None:
        """Release it.

        Raises
        ------
        ConfigError
            When it is not tripped, or nobody says who releases it and why.
        TraceError
            When the release cannot be kept, or what else is latched cannot be read and would be lost by it: the switch
            stays tripped.
        """
        if not operator.strip() or not reason.strip():
            raise ConfigError(f"a kill switch is released by an operator with a reason, were {operator!r}, {reason!r}")
        if self._latch is None:
            raise ConfigError("the kill switch is not tripped")
        others = self._others()
        if others is None:
            raise TraceError("what else is latched cannot be read: repair or remove the store, then release")
        self._store.save(others)
        self._latch = None
        if self._audit is not None:
            self._audit.record(
                "operator", action="release", name=KILL_SWITCH, operator=operator, reason=reason, at_ns=now_ns
            )

    def _trip(self, reason: str, now_ns: int) -> None:
        # Tripped first, kept second: a disk that fails must not leave it open.
        self._latch = Latch(KILL_SWITCH, now_ns, reason)
        others = self._others()
        kept = others is not None
        try:
            if others is not None:
                self._store.save([*others, self._latch])
        except Exception:
            kept = False
        if self._audit is not None:
            self._audit.record("latch", name=KILL_SWITCH, since_ns=now_ns, reason=reason, kept=kept)

    def _others(self) -> list[Latch] | None:
        """Return the other latches of the store; None of one that cannot be read: it trips the next start as it is."""
        try:
            return [latch for latch in self._store.load() if latch.name != KILL_SWITCH]
        except Exception:
            return None
