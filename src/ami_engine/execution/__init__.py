"""Orders: their states, the quotes that become them, and the ways to a broker."""

from ami_engine.execution.executor import Executor, execute
from ami_engine.execution.order_manager import NOTHING_DONE, Actions, OrderManager
from ami_engine.execution.order_state import Order, Trigger
from ami_engine.execution.quotes import Quotes, decode_quotes

__all__ = [
    "NOTHING_DONE",
    "Actions",
    "Executor",
    "Order",
    "OrderManager",
    "Quotes",
    "Trigger",
    "decode_quotes",
    "execute",
]
