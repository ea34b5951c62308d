"""An executor of the user's own: carries a decision out in one call, and says what became of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ami_engine.dmc.trading_state import TradingState
from ami_engine.errors import AmiError
from ami_engine.events import Fill
from ami_engine.execution.executor import Executor
from ami_engine.execution.order_manager import NOTHING_DONE, Actions
from ami_engine.loop.symbol_state import SymbolState
from ami_engine.loop.trading import Trading
from decision_schema.types import Action, FinalDecision

__all__ = ["OneShot", "actions_of"]


class OneShot:
    """Asks an executor.

    Parameters
    ----------
    executor : Executor
        Who carries decisions out. Its orders pass no gate.
    trading : Trading
        Knows what the operator allows.
    fail : callable
        Told what an executor raised where its answer is not waited for.
    """

    def __init__(self, executor: Executor, trading: Trading, fail: Callable[[str], None]) -> None:
        self._executor = executor
        self._trading = trading
        self._last_told: list[tuple[str, str]] = []
        self._fail = fail

    def run(self, final: FinalDecision, state: SymbolState, market_id: str) -> Actions:
        """Have a decision carried out, where the trading state allows it."""
        if not self._may_execute(final.action):
            return NOTHING_DONE
        try:
            return actions_of(self._executor.run(final, market_id, mid=state.mid or None))
        except AmiError:
            raise
        except Exception as error:  # an executor of the user's own is foreign code
            return Actions(failures=1, errors=(f"executor: {type(error).__name__}",))

    def open_orders(self) -> list[tuple[str, str]]:
        """Return id and market of the orders that the executor says may be live; one of the user's own may not say."""
        told = getattr(self._executor, "open_orders", None)
        if callable(told):
            try:
                self._last_told = [(str(order_id), str(market_id)) for order_id, market_id in told()]
            except Exception as error:  # foreign code: what it said last may still be so
                self._fail(f"executor.open_orders: {type(error).__name__}")
        return self._last_told

    def on_fill(self, fill: Fill) -> None:
        """Tell the executor of a fill, where it wants to hear of them."""
        hear = getattr(self._executor, "on_fill", None)
        if callable(hear):
            try:
                hear(fill)
            except Exception as error:  # foreign code
                self._fail(f"executor.on_fill: {type(error).__name__}")

    def _may_execute(self, action: Action) -> bool:
        """Return whether an executor, whose orders pass no gate, may carry out such a decision in this state."""
        state = self._trading.state
        if state is TradingState.ACTIVE or action is Action.CANCEL or action is Action.STOP:
            return True
        return state is TradingState.REDUCING and action is Action.EXIT


def actions_of(result: Any) -> Actions:
    """Return what a one-shot executor's result says, as `Actions`."""
    if not isinstance(result, dict):
        return NOTHING_DONE
    errors = tuple(str(error) for error in result.get("errors") or ())
    count = {name: int(result.get(name) or 0) for name in ("submitted", "canceled", "rejected", "in_doubt")}
    if min(count.values()) < 0:
        raise ValueError(f"an executor's counts must be at least 0, were {count}")
    return Actions(
        **count,
        failures=count["in_doubt"],
        errors=errors,
        halt=(errors[-1] if errors else "the executor asked to halt") if result.get("halt") else "",
    )
