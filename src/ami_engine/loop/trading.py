"""The operator's word in a run: obeys commands between steps, and keeps what they leave behind over restarts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import msgspec

from ami_engine.dmc.kill_switch import KILL_SWITCH, write_durably
from ami_engine.dmc.risk_policy import RiskPolicy
from ami_engine.dmc.trading_state import STATE_TRANSITIONS, TradingGate, TradingState
from ami_engine.errors import ConfigError, StateError, TraceError
from ami_engine.loop.latches import Latches, Release
from ami_engine.loop.step import MarketParts
from ami_engine.ops.controls import Command, ControlReply
from ami_engine.portfolio.exposure import ExposureLimits, MarketExposure, exposures_of, worst_case_usd
from ami_engine.security.redaction import redact_text

__all__ = ["OPERATOR_FILE_NAME", "OPERATOR_WORD", "Trading"]

OPERATOR_FILE_NAME = "operator.json"
# The name under which a pause or a reducing of an earlier run is released when it is resumed.
OPERATOR_WORD = "operator"

_ACTIVE, _HALTED = TradingState.ACTIVE, TradingState.HALTED


class _Word(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the operator said last that still holds."""

    state: TradingState = _ACTIVE
    budget_usd: float | None = None
    said: str = ""


def _said(command: Command) -> str:
    return redact_text(f"{command.operator}: {command.reason}")


class _Audit(Protocol):
    def record(self, kind: str, /, **fields: Any) -> Any: ...


class _Journal(Protocol):
    def checkpoint(self, name: str, data: bytes, now_ns: int, *, sync: bool = False) -> None: ...

    def checkpoint_of(self, name: str) -> bytes | None: ...

    def commit(self) -> None: ...


class _Orders(Protocol):
    def open_orders(self, market_id: str | None = None) -> Iterable[Any]: ...

    def unbooked_qty(self, market_id: str) -> float: ...

    @property
    def halt_reason(self) -> str: ...

    def clear_halt(self) -> None: ...


class _Account(Protocol):
    @property
    def positions(self) -> Any: ...

    def mark_of(self, market_id: str) -> float: ...


class Trading:
    """State, gate and budget of a run.

    Parameters
    ----------
    orders : OrderManager
        Its `gate` is set to this object's.
    account : Account
        What is held, and at which marks.
    latches : Latches
        Whatever is latched halts.
    policy : RiskPolicy
        Bounds the budget.
    folder : Path or None
        Where the operator's word is kept; None keeps it in memory only.
    audit : object with ``record`` or None
        Gets a line for every command, obeyed or refused.
    is_resumed : bool
        Take over what an earlier run in `folder` was told. Otherwise that is forgotten.
    journal : Journal or None
        Keeps the word too, and always brings back what it has kept.

    Attributes
    ----------
    gate : TradingGate
        Asked about every order before it leaves.
    commands : int
        Commands obeyed.

    Raises
    ------
    TraceError
        When the file of a resumed run is damaged: what the operator said is then not known, and nothing may start.
    """

    def __init__(
        self,
        *,
        orders: _Orders,
        account: _Account,
        latches: Latches,
        policy: RiskPolicy,
        folder: Path | None,
        audit: _Audit | None,
        is_resumed: bool,
        journal: _Journal | None = None,
    ) -> None:
        self.commands = 0
        self.gate = TradingGate(self._exposure_of, self._others_usd)
        self._is_bounded = False
        self.on_budget: Callable[[], None] | None = None
        self._orders = orders
        self._account = account
        self._latches = latches
        self._policy = policy
        self._audit = audit
        self._path = None if folder is None else folder / OPERATOR_FILE_NAME
        self._journal = journal
        if self._path is not None and not is_resumed:
            self._path.unlink(missing_ok=True)
        self._word = self._read()
        latches.on_change = self._refresh
        self._refresh()

    @property
    def state(self) -> TradingState:
        """What may leave for the venue now."""
        return self.gate.state

    @property
    def is_denied(self) -> bool:
        """True while the operator denies all actions."""
        return self._word.state is _HALTED

    @property
    def budget_usd(self) -> float:
        """Gross notional over all markets that is allowed now, USD."""
        given = self._word.budget_usd
        return self._policy.max_total_exposure_usd if given is None else given

    def bound_worst_case(self) -> None:
        """From now on no order leaves that could take exposure or a position over its limit, whatever fills."""
        self._is_bounded = True
        self._bound()

    def _bound(self) -> None:
        if self._is_bounded:
            self.gate.limits = ExposureLimits(total_usd=self.budget_usd, market_qty=self._policy.max_abs_inventory)

    def put_under_budget(self, parts: MarketParts) -> None:
        """Let the budget be the limit of total exposure that a market's guards judge by."""
        parts.policy = parts.base_policy
        if self.budget_usd < parts.base_policy.max_total_exposure_usd:
            parts.policy = msgspec.structs.replace(parts.base_policy, max_total_exposure_usd=self.budget_usd)
        parts.policy_hash = parts.policy.policy_hash

    def obey(self, command: Command, now_ns: int) -> ControlReply:
        """Do what a command says, or refuse it with the reason; either has its line in the audit log.

        The caller takes orders off where the command asks for that.
        """
        try:
            message = self._do(command, now_ns)
        except ConfigError as refused:
            self._record(command, error=str(refused))
            return self._reply(ok=False, message=str(refused))
        if command.verb != "status":
            self.commands += 1
            self._record(command, state=self.state.value, budget_usd=self.budget_usd)
        return self._reply(ok=True, message=message)

    def fail_closed(self, error: Exception, now_ns: int) -> ControlReply:
        """A command that could not be carried out: nobody knows what holds now, so nothing may leave."""
        reason = f"a command failed: {type(error).__name__}"
        self.gate.state = _HALTED
        # The disk may be what failed, under either file; the run ends by the first error in any case.
        with suppress(TraceError, StateError):
            self._latches.latch(KILL_SWITCH, now_ns, reason)
        return self._reply(ok=False, message=reason)

    def begin(self, releases: Iterable[Release]) -> None:
        """Release, before a run begins, what the operator of the run before had ordered."""
        for each in releases:
            self.obey(Command("resume", each.operator, each.reason), 0)

    def _do(self, command: Command, now_ns: int) -> str:
        verb = command.verb
        if verb == "status":
            return self.state.value
        if verb == "budget":
            assert command.usd is not None
            return self._allow(command.usd, command, now_ns)
        if verb == "kill":
            # Latched first: whatever fails after this, nothing leaves. The operator's other words stand beside it.
            self._latches.latch(KILL_SWITCH, now_ns, _said(command))
            return f"kill obeyed: {self.state.value}"
        held = [name for name in self._latches.names if name not in command.release]
        if held and verb != "pause":
            raise ConfigError(f"{verb} is refused while {', '.join(held)} is latched: resume must release it by name")
        if command.release:
            self._release(command)
        state = STATE_TRANSITIONS[self._word.state][verb]
        self._keep(msgspec.structs.replace(self._word, state=state, said=_said(command)), now_ns)
        self._refresh()
        return f"{verb} obeyed: {self.state.value}"

    def _release(self, command: Command) -> None:
        self._latches.release_all(Release(name, command.operator, command.reason) for name in command.release)
        if KILL_SWITCH in command.release and self._orders.halt_reason:
            self._orders.clear_halt()

    def _allow(self, usd: float, command: Command, now_ns: int) -> str:
        most = self._policy.max_total_exposure_usd
        if usd > most:
            raise ConfigError(
                f"`usd` of budget must be at most the policy's max_total_exposure_usd {most:g}, was {usd:g}"
            )
        self._keep(msgspec.structs.replace(self._word, budget_usd=usd, said=_said(command)), now_ns)
        self._bound()
        if self.on_budget is not None:
            self.on_budget()
        return f"budget obeyed: {usd:g} USD of {most:g}"

    def _refresh(self) -> None:
        self.gate.state = _HALTED if self._latches.names else self._word.state

    def _exposure_of(self, market_id: str) -> MarketExposure:
        positions = self._account.positions
        held = positions.position(market_id) + self._orders.unbooked_qty(market_id)
        instrument = positions.instrument(market_id)
        found = exposures_of(
            {market_id: held},
            self._orders.open_orders(market_id),
            {market_id: instrument},
            {market_id: self._account.mark_of(market_id)},
        )
        return found.get(market_id) or MarketExposure(instrument)

    def _others_usd(self, market_id: str) -> float:
        """Return the worst case of all other markets together, USD."""
        positions = self._account.positions
        others = {name for name in positions.markets if positions.position(name) != 0.0}
        others.update(order.market_id for order in self._orders.open_orders())
        return worst_case_usd(self._exposure_of(name) for name in others - {market_id})

    def _reply(self, *, ok: bool, message: str) -> ControlReply:
        return ControlReply(ok, message, self.state.value, self._latches.names, self.budget_usd)

    def _record(self, command: Command, **fields: Any) -> None:
        if self._audit is not None:
            given = {"usd": command.usd} if command.usd is not None else {}
            self._audit.record(
                "operator",
                action=command.verb,
                operator=command.operator,
                reason=command.reason,
                release=list(command.release),
                **given,
                **fields,
            )

    def _read(self) -> _Word:
        kept = self._journal.checkpoint_of(OPERATOR_WORD) if self._journal is not None else None
        place = "the journal" if kept is not None else str(self._path)
        try:
            if kept is None:
                kept = self._path.read_bytes() if self._path is not None else b"{}"
            word = msgspec.json.decode(kept, type=_Word)
        except FileNotFoundError:
            return _Word()
        except (msgspec.DecodeError, OSError) as error:
            raise TraceError(f"{place}: cannot be read, so what the operator said is not known: {error}") from error
        usd = word.budget_usd
        if usd is not None and not usd > 0.0:
            raise TraceError(f"{place}: `budget_usd` must be > 0, was {usd!r}")
        return word

    def _keep(self, word: _Word, now_ns: int) -> None:
        """Keep a word, or do not take it: one that cannot be kept ends the run, as a full disk does."""
        text = msgspec.json.encode(word)
        if self._path is not None:
            write_durably(self._path, text)
        if self._journal is not None:
            # At once, and not after the cancels that follow: a start believes the journal, and they may take long.
            self._journal.checkpoint(OPERATOR_WORD, text, now_ns, sync=True)
            self._journal.commit()
        self._word = word
