"""Latches of a run: what latched in one market latches in all, and in the next run of the same directory.

A STOP is the account's, not one market's. A latch is written beside the trace before the run goes on, survives
restarts, and is released by a named operator with a reason only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from ami_engine.dmc.risk_state import Latch, RiskState
from ami_engine.errors import ConfigError, TraceError

__all__ = ["LATCH_FILE_NAME", "Latches", "Release"]

LATCH_FILE_NAME = "latches.json"


class Release(msgspec.Struct, frozen=True):
    """An operator's word that a latch may go."""

    name: str
    operator: str
    reason: str

    def __post_init__(self) -> None:
        for field in ("name", "operator", "reason"):
            if not getattr(self, field).strip():
                raise ConfigError(f"`{field}` of a release must not be empty: who releases what, and why")


class _Audit(Protocol):
    def record(self, kind: str, /, **fields: Any) -> Any: ...


class _Keeper(Protocol):
    """A journal, as latches use it."""

    def latches(self) -> list[tuple[str, int, str]]: ...
    def latch(self, name: str, since_ns: int, reason: str) -> None: ...
    def release(self, name: str) -> None: ...


class Latches:
    """The latches of a run.

    Parameters
    ----------
    folder : Path or None
        Where they are kept; None keeps them in memory only.
    audit : object with ``record`` or None
        Gets a line for every latch and every release.
    is_resumed : bool
        Read what an earlier run in `folder` left latched. Otherwise the file is begun anew.
    journal : Journal or None
        Keeps them too, and always brings back what it has kept.

    Raises
    ------
    TraceError
        When the file of a resumed run is damaged: what was latched is then not known, and nothing may start.
    """

    def __init__(
        self, folder: Path | None, audit: _Audit | None, *, is_resumed: bool = False, journal: _Keeper | None = None
    ) -> None:
        self._path = None if folder is None else folder / LATCH_FILE_NAME
        self._audit = audit
        self._risks: list[RiskState] = []
        self._held: dict[str, Latch] = {}
        self._journal = journal
        if self._path is not None and is_resumed and self._path.exists():
            try:
                self._held = {
                    latch.name: latch for latch in msgspec.json.decode(self._path.read_bytes(), type=list[Latch])
                }
            except (msgspec.DecodeError, OSError) as error:
                raise TraceError(f"{self._path}: cannot be read, so what is latched is not known: {error}") from error
        elif self._path is not None:
            self._path.unlink(missing_ok=True)
        if journal is not None:
            for name, since_ns, reason in journal.latches():
                self._held.setdefault(name, Latch(name, since_ns, reason))

    @property
    def names(self) -> tuple[str, ...]:
        """What is latched, oldest first."""
        return tuple(self._held)

    def release(self, releases: Iterable[Release]) -> None:
        """Release latches before a run begins.

        Raises
        ------
        ConfigError
            When nothing of that name is latched.
        """
        for each in releases:
            if each.name not in self._held:
                held = ", ".join(self._held) or "nothing"
                raise ConfigError(f"`release` must name what is latched ({held}), was {each.name!r}")
            del self._held[each.name]
            self._save()
            if self._journal is not None:
                self._journal.release(each.name)
            if self._audit is not None:
                self._audit.record("operator", action="release", **msgspec.structs.asdict(each))

    def join(self, risk: RiskState) -> None:
        """Take in a market: what is latched holds for it too."""
        self._risks.append(risk)
        for latch in self._held.values():
            risk.latch(latch.name, latch.since_ns, latch.reason)

    def learn(self, risk: RiskState, now_ns: int, reason: str) -> None:
        """Spread what `risk` has latched since to every market, and keep it."""
        for name in risk.latches():
            if name not in self._held:
                self.latch(name, now_ns, reason)

    def latch(self, name: str, now_ns: int, reason: str) -> None:
        """Latch in every market, and keep it."""
        self._held[name] = Latch(name, now_ns, reason)
        for risk in self._risks:
            risk.latch(name, now_ns, reason)
        self._save()
        if self._journal is not None:
            self._journal.latch(name, now_ns, reason)
        if self._audit is not None:
            self._audit.record("latch", name=name, since_ns=now_ns, reason=reason)

    def _save(self) -> None:
        if self._path is None:
            return
        # Written beside and renamed: a crash leaves the old file or the new one, never half of one.
        beside = self._path.with_suffix(".new")
        try:
            with beside.open("wb") as file:
                file.write(msgspec.json.encode(list(self._held.values())))
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
        except OSError as error:
            raise TraceError(f"{self._path}: cannot be written: {error.strerror}") from error
