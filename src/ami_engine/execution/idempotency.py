"""Client order ids that are a function of what the order is for, so that sending again cannot place it twice."""

from __future__ import annotations

import base64
import hashlib

from ami_engine.events import Side

__all__ = ["client_order_id"]

# Venues differ in what they take (Binance 36 of [.A-Z:/a-z0-9_-], OKX 32 letters and digits): 32 letters and digits
# pass at both. The 29 that are hashed carry 145 bits.
_PREFIX = "ami"
_LENGTH = 32


def client_order_id(run_id: str, market_id: str, step: int, side: Side, attempt: int = 0) -> str:
    """Return the client order id of the `attempt`-th order of a side of a market in one step of a run.

    Parameters
    ----------
    run_id : str
        The run; two runs that may meet at one venue must differ in it.
    market_id : str
        The market.
    step : int
        The step that decided on the order.
    side : Side
        BUY or SELL.
    attempt : int
        0 for the first order of this step and side, then 1, 2, …

    Returns
    -------
    str
        32 lower-case letters and digits, the same whenever and wherever it is asked for.

    Examples
    --------
    >>> client_order_id("run-1", "BTCUSDT", 17, Side.BUY)
    'amicwgp75rsczkr3xtn6bpjcrw65tqnq'
    >>> client_order_id("run-1", "BTCUSDT", 17, Side.BUY, 1) == client_order_id("run-1", "BTCUSDT", 17, Side.BUY)
    False
    """
    # Each part is preceded by its length: ("a", "b1") and ("ab", "1") must not collide.
    text = "".join(f"{len(part)}:{part}" for part in (run_id, market_id, str(step), side.value, str(attempt)))
    digest = base64.b32encode(hashlib.sha256(text.encode()).digest()).decode().lower()
    return (_PREFIX + digest)[:_LENGTH]
