"""Latches of a run: what latched in one market latches in all, and in the next run of the same directory.

A STOP is the account's, not one market's. A latch is written beside the trace before the run goes on, survives
restarts, and is released by a named operator with a reason only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from ami_engine.dmc.kill_switch import LATCH_FILE_NAME, LatchFile, LatchStore
from ami_engine.dmc.risk_state import Latch, RiskState
from ami_engine.errors import ConfigError

__all__ = ["LATCH_FILE_NAME", "Latches", "Release"]


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


class Latches:
    """The latches of a run.

    Parameters
    ----------
    folder : Path or None
        Where they are kept, and what an earlier run there left latched holds; None keeps them in memory only.
    audit : object with ``record`` or None
        Gets a line for every latch and every release.
    store : LatchStore or None
        Where latches are kept instead of in `folder`, such as a table of the journal; what it holds is latched.

    Raises
    ------
    TraceError
        When the file of an earlier run is damaged: what was latched is then not known, and nothing may start.
    """

    def __init__(
        self,
        folder: Path | None,
        audit: _Audit | None,
        *,
        store: LatchStore | None = None,
    ) -> None:
        self.on_change: Callable[[], None] | None = None
        self._audit = audit
        self._risks: list[RiskState] = []
        self._held: dict[str, Latch] = {}
        self._store = store
        if store is None and folder is not None:
            self._store = LatchFile(folder / LATCH_FILE_NAME)
        if self._store is not None:
            self._held = {latch.name: latch for latch in self._store.load()}

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
            self._check(each)
            self._let_go(each)

    def release_all(self, releases: Iterable[Release]) -> None:
        """Release latches of a run that goes on, in every market: all of them, or none when one is not latched.

        Raises
        ------
        ConfigError
            When nothing of that name is latched.
        """
        wanted = list(releases)
        for each in wanted:
            self._check(each)
        for each in wanted:
            self._let_go(each)
            for risk in self._risks:
                if each.name in risk.latches():
                    risk.release(each.name, each.operator, each.reason)
        self._tell()

    def _check(self, release: Release) -> None:
        if release.name not in self._held:
            held = ", ".join(self._held) or "nothing"
            raise ConfigError(f"`release` must name what is latched ({held}), was {release.name!r}")

    def _let_go(self, release: Release) -> None:
        kept = {name: latch for name, latch in self._held.items() if name != release.name}
        self._save(kept)
        self._held = kept
        if self._audit is not None:
            self._audit.record("operator", action="release", **msgspec.structs.asdict(release))

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
        """Latch in every market, and keep it. Latching again changes nothing but is recorded."""
        if name not in self._held:
            self._held[name] = Latch(name, now_ns, reason)
            for risk in self._risks:
                risk.latch(name, now_ns, reason)
            self._tell()
            self._save(self._held)
        if self._audit is not None:
            self._audit.record("latch", name=name, since_ns=now_ns, reason=reason)

    def _save(self, held: dict[str, Latch]) -> None:
        if self._store is not None:
            self._store.save(list(held.values()))

    def _tell(self) -> None:
        if self.on_change is not None:
            self.on_change()
