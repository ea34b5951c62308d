"""What the guards count: windows, markouts, streaks, cooldowns and latches of one market, folded forward in O(1).

Nothing here reads a clock: every call is told the decision time. Invariant: every container has a bound, and drops the
oldest first, so that a limit is never reached later than it should be.
"""

from __future__ import annotations

import math
import zlib
from collections import deque
from typing import Any

import msgspec

from ami_engine.dmc.context import GuardContext
from ami_engine.dmc.guards import LATCHING_FLAGS
from ami_engine.dmc.markouts import Markouts
from ami_engine.dmc.risk_policy import RiskPolicy
from ami_engine.errors import ConfigError
from ami_engine.events import Fill, Side
from ami_engine.portfolio.trading_day import TradingDay
from ami_engine.units import NS_PER_MS
from decision_schema.types import Action, FinalDecision, MismatchInfo, Proposal

__all__ = ["Latch", "RiskState"]

# What a window remembers at least. A private policy override may raise a limit while the run goes on, so the window
# holds more than today's limit; a count beyond this is not told apart from this.
MIN_WINDOW_EVENTS = 1_024

SNAPSHOT_MAGIC = b"AMIRISK"
SNAPSHOT_VERSION = 1


class Latch(msgspec.Struct, frozen=True):
    """A STOP that goes on until an operator releases it."""

    name: str
    since_ns: int
    reason: str


class _Window:
    """Times of the last events, no more than `most`, that are younger than `length_ns`."""

    __slots__ = ("length_ns", "times")

    def __init__(self, length_ns: int, most: int) -> None:
        self.length_ns = length_ns
        self.times: deque[int] = deque(maxlen=max(most, MIN_WINDOW_EVENTS))

    def add(self, now_ns: int, n: int = 1) -> None:
        if n == 1:
            self.times.append(now_ns)
        elif n > 1:
            self.times.extend((now_ns,) * min(n, self.times.maxlen or n))

    def count(self, now_ns: int) -> int:
        times = self.times
        if not times:
            return 0
        start_ns = now_ns - self.length_ns
        while times and times[0] <= start_ns:
            times.popleft()
        return len(times)


class _Money(msgspec.Struct):
    """Profit of the day and drawdown of the run: the account's, one for all its markets."""

    day: int = -1
    realized: float = 0.0
    total: float = 0.0
    day_start_realized: float = 0.0
    day_start_total: float = 0.0
    equity: float | None = None
    peak_equity: float = -math.inf
    day_end_ns: int = 0  # found anew where it is not known


class _Timers(msgspec.Struct):
    """Until when, ms, what holds us back."""

    throttle: int = 0
    post_fill: int = 0
    ops: int = 0
    adverse_15: int = 0
    adverse_60: int = 0
    streak: int = 0
    quote_budget: int = 0


_WINDOWS = ("cancels", "failures", "rate_limits", "reconnects", "quotes")


class RiskState:
    """Everything that the guards remember of one market.

    Parameters
    ----------
    policy : RiskPolicy
        Windows and cooldowns are this policy's; limits are those of the policy that `modulate` is given.
    tick_size : float
        Price step, > 0; adverse selection is counted in it.
    post_fill_cooldown_ms : int
        How long to pause after a fill, ms; 0 is off.
    trading_day : TradingDay or None
        When the day of the daily loss begins; midnight UTC when None.
    account : RiskState or None
        The state of another market of the same account: the day's profit and the drawdown are then one for both, also
        where this market is first seen on a later day.

    Notes
    -----
    Every method takes `now_ns`, the decision clock, ns since the Unix epoch, and costs O(1). Latches are released by an
    operator only: no day change and no restart clears them (`snapshot` carries them).

    Examples
    --------
    >>> state = RiskState(RiskPolicy(), tick_size=0.01)
    >>> for _ in range(5):
    ...     state.on_failure(1_000_000_000)
    >>> context = GuardContext()
    >>> state.fill_context(context, 2_000_000_000)
    >>> context.recent_failures, context.latched
    (5, ())
    """

    def __init__(
        self,
        policy: RiskPolicy,
        tick_size: float,
        *,
        post_fill_cooldown_ms: int = 0,
        trading_day: TradingDay | None = None,
        account: RiskState | None = None,
    ) -> None:
        if not 0.0 < tick_size < math.inf:
            raise ConfigError(f"`tick_size` must be finite and > 0, was {tick_size!r}")
        if post_fill_cooldown_ms < 0:
            raise ConfigError(f"`post_fill_cooldown_ms` must be at least 0, was {post_fill_cooldown_ms!r}")
        self._policy = policy
        self._tick_size = tick_size
        self._post_fill_cooldown_ms = post_fill_cooldown_ms
        p = policy
        self._cancels = _Window(p.cancel_window_ms * NS_PER_MS, p.cancel_rate_limit)
        self._failures = _Window(p.circuit_breaker_window_ms * NS_PER_MS, p.circuit_breaker_failures)
        self._rate_limits = _Window(p.ops_window_ms * NS_PER_MS, p.max_429_per_window)
        self._reconnects = _Window(p.ops_window_ms * NS_PER_MS, p.max_ws_reconnects_per_window)
        self._quotes = _Window(p.quote_window_ms * NS_PER_MS, p.quote_cap_per_window)
        self._markouts = Markouts(p.adverse_window_ms * NS_PER_MS, tick_size)
        self._steps: deque[bool] = deque(maxlen=p.error_window_steps)
        self._errors = 0
        self._last_event_ns: int | None = None
        self._losses = 0
        self._owns_account = account is None
        self._money: _Money = _Money() if account is None else account._money
        self._day = trading_day or TradingDay()
        self._usd_rate = 1.0
        self._timers = _Timers()
        self._latches: dict[str, Latch] = {}
        self._latched: tuple[str, ...] = ()

    def on_event(self, ts_ns: int) -> None:
        """Take the receive time of a book event of this market, ns."""
        self._last_event_ns = ts_ns

    def on_book(self, now_ns: int, mid: float) -> None:
        """Take the market's mid. One that is no positive number is passed over."""
        self._markouts.on_mid(now_ns, mid)

    def on_step(self, now_ns: int, had_error: bool) -> None:
        """Count one step of the loop, and whether it failed."""
        steps = self._steps
        if len(steps) == steps.maxlen:
            self._errors -= steps[0]
        steps.append(had_error)
        self._errors += had_error

    def on_fill(self, now_ns: int, fill: Fill, mid: float, realized_delta: float = 0.0) -> None:
        """Take one of our fills, and the mid when we learned of it.

        `realized_delta`, what the fill realized after fees, counts at once in the day's realized profit; the day's
        whole profit waits for the next `on_account`, which also knows what is no longer unrealized.
        """
        self._markouts.on_fill(now_ns, 1 if fill.side is Side.BUY else -1, fill.qty, mid)
        if self._post_fill_cooldown_ms:
            self._timers.post_fill = now_ns // NS_PER_MS + self._post_fill_cooldown_ms
        if realized_delta:
            self._roll_day(now_ns)
            self._money.realized += realized_delta

    def on_position_closed(self, now_ns: int, realized: float) -> None:
        """Take what a position made, after fees: a loss lengthens the streak, anything else ends it."""
        self._end_streak(now_ns // NS_PER_MS)
        self._losses = self._losses + 1 if realized < 0.0 else 0

    def on_cancels(self, now_ns: int, n: int) -> None:
        """Count `n` cancels."""
        self._cancels.add(now_ns, n)

    def on_failure(self, now_ns: int) -> None:
        """Count one failure of a broker or a source."""
        self._failures.add(now_ns)

    def on_rate_limit(self, now_ns: int) -> None:
        """Count one 429 answer; the policy's `ops_cooldown_ms` begins."""
        self._rate_limits.add(now_ns)
        self._begin_ops_cooldown(now_ns)

    def on_reconnect(self, now_ns: int) -> None:
        """Count one reconnect of the feed; the policy's `ops_cooldown_ms` begins."""
        self._reconnects.add(now_ns)
        self._begin_ops_cooldown(now_ns)

    def on_account(
        self, now_ns: int, realized_after_fees: float, unrealized: float, equity: float, usd_rate: float = 1.0
    ) -> None:
        """Take the account: profit since the run began, and equity.

        The day's profit counts from the last figures before the day began (`trading_day`, on the decision clock), and
        from 0 on the first day. Figures are in the settlement currency; `usd_rate` is what one unit of it is worth now,
        USD.
        """
        self._roll_day(now_ns)
        money = self._money
        money.realized = realized_after_fees
        money.total = realized_after_fees + unrealized
        money.equity = equity
        self._usd_rate = usd_rate
        if equity > money.peak_equity:
            money.peak_equity = equity

    def on_verdict(self, now_ns: int, proposal: Proposal, final: FinalDecision, mismatch: MismatchInfo) -> None:
        """Take a decision: count an ACT, begin the throttles, cooldowns and latches that its guards ask for."""
        if final.action == Action.ACT:
            self._quotes.add(now_ns)
        codes = mismatch.reason_codes
        if codes:
            self._begin_holds(now_ns // NS_PER_MS, codes, mismatch.throttle_refresh_ms)
        if final.action == Action.STOP:
            self._latch_stop(now_ns, proposal, mismatch)

    def latch(self, name: str, now_ns: int, reason: str) -> None:
        """Latch a STOP, such as "kill_switch" for the operator's or a halt. A second one changes nothing."""
        if name not in LATCHING_FLAGS:
            raise ConfigError(f"`name` of a latch must be one of {', '.join(LATCHING_FLAGS)}, was {name!r}")
        if name not in self._latches:
            self._latches[name] = Latch(name, now_ns, reason)
            self._latched = tuple(self._latches)

    def latches(self) -> tuple[str, ...]:
        """Return the names of what is latched, oldest first."""
        return self._latched

    def release(self, name: str, operator: str, reason: str) -> Latch:
        """Release a latch, and count anew from here what had tripped it. Return the latch, for the audit.

        Raises
        ------
        ConfigError
            When nothing of that name is latched, or nobody says who releases it and why.
        """
        if not operator.strip() or not reason.strip():
            raise ConfigError(f"releasing {name!r} needs an operator and a reason, were {operator!r} and {reason!r}")
        if name not in self._latches:
            raise ConfigError(f"{name!r} is not latched; latched: {', '.join(self._latched) or 'nothing'}")
        latch = self._latches.pop(name)
        self._latched = tuple(self._latches)
        money = self._money
        # Without this the guard would fire again at the next step, and no operator could ever resume.
        if name == "circuit_breaker":
            self._failures.times.clear()
        elif name == "daily_loss":
            money.day_start_realized, money.day_start_total = money.realized, money.total
        elif name == "drawdown" and money.equity is not None:
            money.peak_equity = money.equity
        return latch

    def fill_context(self, context: GuardContext, now_ns: int) -> None:
        """Write every key that this state knows into `context`."""
        now_ms = now_ns // NS_PER_MS
        if now_ns >= self._money.day_end_ns:
            self._roll_day(now_ns)
        timers, money = self._timers, self._money
        if timers.streak:
            self._end_streak(now_ms)
        context.now_ms = now_ms
        context.last_event_ts_ms = None if self._last_event_ns is None else self._last_event_ns // NS_PER_MS
        context.cancels_in_window = self._cancels.count(now_ns)
        context.recent_failures = self._failures.count(now_ns)
        context.rate_limits_in_window = self._rate_limits.count(now_ns)
        context.ws_reconnects_in_window = self._reconnects.count(now_ns)
        context.quotes_in_window = self._quotes.count(now_ns)
        context.steps_in_window = len(self._steps)
        context.errors_in_window = self._errors
        context.adverse_15_ticks, context.adverse_60_ticks = self._markouts.adverse_ticks(now_ns)
        # What was made is counted in the settlement currency and converted whole: a coin that gets dearer is no profit.
        rate = self._usd_rate
        context.daily_pnl = (money.total - money.day_start_total) * rate
        context.daily_realized_pnl_usd = (money.realized - money.day_start_realized) * rate
        context.equity_usd = None if money.equity is None else money.equity * rate
        context.drawdown_usd = 0.0 if money.equity is None else (money.peak_equity - money.equity) * rate
        context.consecutive_losses = self._losses
        context.throttle_refresh_until_ms = timers.throttle
        context.cooldown_until_ms = timers.post_fill
        context.ops_cooldown_until_ms = timers.ops
        context.adverse_15_cooldown_until_ms = timers.adverse_15
        context.adverse_60_cooldown_until_ms = timers.adverse_60
        context.streak_cooldown_until_ms = timers.streak
        context.quote_budget_until_ms = timers.quote_budget
        context.kill_switch = "kill_switch" in self._latches
        context.latched = self._latched

    def counts(self) -> tuple[object, ...]:
        """Return what tells whether `snapshot` holds anything new: equal values, nothing to keep.

        That is what a step that does nothing leaves as it is. The account's money is another matter
        (`account_snapshot`), and that a step failed shows in its failures.
        """
        windows = (self._cancels, self._failures, self._rate_limits, self._reconnects, self._quotes)
        return (
            *((len(times), times[-1]) if (times := each.times) else None for each in windows),
            *(self._errors, self._losses, self._markouts.version, self._latched),
            *msgspec.structs.astuple(self._timers),
        )

    def snapshot(self) -> bytes:
        """Return the whole state as bytes with a version and a checksum, for `restore`."""
        state = {
            "tick_size": self._tick_size,
            "windows": {name: list(self._window(name).times) for name in _WINDOWS},
            "markouts": self._markouts.to_builtins(),
            "steps": list(self._steps),
            "last_event_ns": self._last_event_ns,
            "losses": self._losses,
            "money": msgspec.structs.replace(self._money, day_end_ns=0),
            "timers": self._timers,
            "latches": list(self._latches.values()),
        }
        body = msgspec.msgpack.encode(state)
        return SNAPSHOT_MAGIC + bytes([SNAPSHOT_VERSION]) + zlib.crc32(body).to_bytes(4, "big") + body

    def restore(self, data: bytes) -> None:
        """Take over the state of a snapshot, made under the same tick size. Windows keep this policy's lengths.

        The account's part is taken over by the market that owns it: see `restore_account` for it alone.

        Raises
        ------
        ConfigError
            (a ValueError) when the bytes are damaged, of another version, or of another tick size; nothing is changed.
        """
        state = _decode(data)
        self._check_tick(state)
        self._take(state)

    def load(self, state: dict[str, Any]) -> None:
        """Take over a state in plain values: what `snapshot` encodes, without the tick size.

        Raises
        ------
        ConfigError
            When a value is missing or of another type; nothing is changed.
        """
        try:
            given = msgspec.convert({**state, "tick_size": self._tick_size}, type=_State, strict=False)
        except msgspec.ValidationError as error:
            raise ConfigError(f"the risk state cannot be read: {error}") from error
        self._take(given)
        self._take_money(given.money)  # of the only market there is, whichever state was made first

    def _check_tick(self, state: _State) -> None:
        if state.tick_size != self._tick_size:
            raise ConfigError(f"the risk state is of tick size {state.tick_size}, this market's is {self._tick_size}")

    def _take(self, state: _State) -> None:
        for name in _WINDOWS:
            window = self._window(name)
            window.times = deque(state.windows[name], maxlen=window.times.maxlen)
        self._markouts.load(state.markouts)
        self._steps = deque(state.steps, maxlen=self._steps.maxlen)
        self._errors = sum(self._steps)
        self._last_event_ns = state.last_event_ns
        self._losses = state.losses
        if self._owns_account:  # else another market's state has brought it, and what is here may be older
            self._take_money(state.money)
        self._timers = state.timers
        self._latches = {latch.name: latch for latch in state.latches}
        self._latched = tuple(self._latches)

    def account_counts(self) -> tuple[object, ...]:
        """Return what tells whether `account_snapshot` holds anything that the next mark would not bring back."""
        money = self._money
        return (money.day, money.realized, money.day_start_realized, money.day_start_total, money.peak_equity)

    def account_snapshot(self) -> bytes:
        """Return the account's part alone, the day's profit and the peak of equity, for `restore_account`."""
        return msgspec.msgpack.encode(msgspec.structs.replace(self._money, day_end_ns=0))

    def restore_account(self, data: bytes) -> None:
        """Take over the account's part, for every market that shares it.

        Raises
        ------
        ConfigError
            (a ValueError) when the bytes are damaged; nothing is changed.
        """
        try:
            self._take_money(msgspec.msgpack.decode(data, type=_Money))
        except msgspec.DecodeError as error:
            raise ConfigError(f"the account's part of a risk state cannot be read: {error}") from error

    def _take_money(self, money: _Money) -> None:
        for name in _Money.__struct_fields__:
            # Written into what the account's other markets hold too.
            setattr(self._money, name, getattr(money, name))
        self._money.day_end_ns = 0  # the zone may be another one than it was

    def _window(self, name: str) -> _Window:
        window: _Window = getattr(self, "_" + name)
        return window

    def _begin_ops_cooldown(self, now_ns: int) -> None:
        if self._policy.ops_cooldown_ms:
            self._timers.ops = now_ns // NS_PER_MS + self._policy.ops_cooldown_ms

    def _begin_holds(self, now_ms: int, codes: list[str], throttle_ms: int | None) -> None:
        """Begin what the codes stand for. A hold that is under way is not prolonged, or it might never end."""
        policy, timers = self._policy, self._timers
        if "cancel_rate_exceeded" in codes:
            timers.throttle = now_ms + (throttle_ms if throttle_ms is not None else policy.throttle_refresh_ms)
        if "adverse_selection_15" in codes and now_ms >= timers.adverse_15:
            timers.adverse_15 = now_ms + policy.adverse_cooldown_ms
        if "adverse_selection_60" in codes and now_ms >= timers.adverse_60:
            timers.adverse_60 = now_ms + policy.adverse_cooldown_ms
        if "loss_streak" in codes and not timers.streak:
            timers.streak = now_ms + policy.streak_cooldown_ms
        if "quote_budget" in codes and now_ms >= timers.quote_budget:
            timers.quote_budget = now_ms + policy.quote_budget_cooldown_ms

    def _end_streak(self, now_ms: int) -> None:
        if self._timers.streak and now_ms >= self._timers.streak:
            self._timers.streak = 0
            self._losses = 0

    def _latch_stop(self, now_ns: int, proposal: Proposal, mismatch: MismatchInfo) -> None:
        """Latch what stopped: the guards that latch, and the kill switch for all else. Denied actions do not latch."""
        codes = mismatch.reason_codes
        errors = [code for code in codes if code.startswith("guard_error:") or code == "modulator_error"]
        flags = [flag for flag in mismatch.flags if flag in LATCHING_FLAGS and f"guard_error:{flag}" not in codes]
        for flag in flags:
            self.latch(flag, now_ns, flag)
        if errors:
            self.latch("kill_switch", now_ns, errors[0])
        elif proposal.action == Action.STOP:
            self.latch("kill_switch", now_ns, "proposed by the model")
        elif not flags and "ops_denied" not in codes:
            self.latch("kill_switch", now_ns, "stopped by the modulator")

    def _roll_day(self, now_ns: int) -> None:
        money = self._money
        if now_ns < money.day_end_ns:
            return
        day, _, money.day_end_ns = self._day.find(now_ns)
        # A wall clock that steps back over midnight does not begin the day before anew.
        if day > money.day:
            if money.day >= 0:
                money.day_start_realized, money.day_start_total = money.realized, money.total
            money.day = day


class _State(msgspec.Struct):
    """A snapshot's body, as it must be."""

    tick_size: float
    windows: dict[str, list[int]]
    markouts: dict[str, Any]
    steps: list[bool]
    last_event_ns: int | None
    losses: int
    money: _Money
    timers: _Timers
    latches: list[Latch]


def _decode(data: bytes) -> _State:
    start = len(SNAPSHOT_MAGIC)
    if data[:start] != SNAPSHOT_MAGIC:
        raise ConfigError("the bytes are no risk state")
    if data[start : start + 1] != bytes([SNAPSHOT_VERSION]):
        raise ConfigError(f"the risk state is not of version {SNAPSHOT_VERSION}")
    body = data[start + 5 :]
    if zlib.crc32(body).to_bytes(4, "big") != data[start + 1 : start + 5]:
        raise ConfigError("the risk state is damaged: its checksum does not match")
    try:
        return msgspec.msgpack.decode(body, type=_State)
    except msgspec.DecodeError as error:
        raise ConfigError(f"the risk state cannot be read: {error}") from error
