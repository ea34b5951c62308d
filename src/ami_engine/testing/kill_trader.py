"""A process that trades against the HTTP exchange until it is killed: what `testing.kill_campaign` kills.

``python -m ami_engine.testing.kill_trader URL JOURNAL SEED`` trades without end; with ``--end-after EVENTS`` it only
cancels, comes to rest and ends.
"""

from __future__ import annotations

import argparse
import http.client
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from ami_engine.adapters.base import MarketDataSource
from ami_engine.adapters.http_broker import HttpBroker
from ami_engine.clock import WallClock, sleep
from ami_engine.config import QuotingConfig
from ami_engine.dmc.risk_policy import RiskPolicy
from ami_engine.events import BookSnapshot
from ami_engine.loop.run_loop import run_loop
from ami_engine.sim.mock_venue import DEFAULT_INSTRUMENT
from ami_engine.sim.splitmix import SplitMix
from ami_engine.units import Instrument
from decision_schema.types import Action, Proposal

__all__ = ["RECV_WINDOW_MS", "SETTLE_MS", "TickerSource", "main"]

RECV_WINDOW_MS = 300
SETTLE_MS = 500
_TIMEOUT_MS = 150
_EVERY_S = 0.003
_POLICY = RiskPolicy(
    max_total_exposure_usd=500.0,
    max_per_market_usd=500.0,
    max_abs_inventory=1e6,
    cancel_rate_limit=1_000_000,
    circuit_breaker_failures=1_000_000,
    error_rate_max=1.0,
    daily_loss_stop_usd=1e6,
    sigma_5m_max=1e3,
    sigma_spike_z_max=1e6,
    adv15_max_ticks=1e6,
    adv60_max_ticks=1e6,
    staleness_ms=60_000,
)


class TickerSource(MarketDataSource):
    """Best prices of the exchange, asked for every few milliseconds; says "trading" with the first.

    Parameters
    ----------
    url : str
        ``http://host:port``.
    num_events : int or None
        How many there are; None is without end.
    """

    is_live = True
    snapshots_only = True

    def __init__(self, url: str, num_events: int | None = None) -> None:
        parts = urlsplit(url)
        self._http = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=1.0)
        self._clock = WallClock()
        self._has_begun = False
        self._left = -1 if num_events is None else num_events
        self.identity = f"ticker:{parts.netloc}"

    def next_event(self) -> BookSnapshot | None:
        """Return the next best prices, None when `num_events` were given out; a broken connection is the loop's."""
        if not self._left:
            return None
        self._left -= 1
        sleep(_EVERY_S)
        try:
            self._http.request("GET", "/v1/ticker")
            best = msgspec.json.decode(self._http.getresponse().read(), type=dict[str, float])
        except (OSError, http.client.HTTPException):
            self._http.close()
            raise
        if not self._has_begun:
            self._has_begun = True
            print("trading", flush=True)
        now_ns = self._clock.now_ns()
        symbol = DEFAULT_INSTRUMENT.symbol
        return BookSnapshot(
            now_ns, now_ns, symbol, 0, best["bid"], best["ask"], bid_depth=best["bid_size"], ask_depth=best["ask_size"]
        )

    def instruments(self) -> Mapping[str, Instrument]:
        """Return the exchange's instrument."""
        return {DEFAULT_INSTRUMENT.symbol: DEFAULT_INSTRUMENT}

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


class _Quoter:
    """Quotes near the best prices and leaves now and then; only cancels when it is to come to rest."""

    model_name = "kill-test"
    confidence_threshold = 0.0
    audit = None

    def __init__(self, seed: int, *, is_ending: bool) -> None:
        self._draw = SplitMix(seed)
        self._is_ending = is_ending
        self._off = (1, 1)

    def propose(self, features: Any, **_: Any) -> Proposal:
        """Return what the next step should do."""
        if self._is_ending:
            return Proposal(Action.CANCEL, 1.0, ["kill_test_ends"])
        kind = self._draw.below(100)
        if kind < 5:
            return Proposal(Action.EXIT, 1.0, ["kill_test_exit"])
        if kind < 40:
            self._off = (self._draw.below(4), self._draw.below(4))
        bid, ask = features["bid"] - 0.01 * self._off[0], features["ask"] + 0.01 * self._off[1]
        return Proposal(Action.ACT, 1.0, ["kill_test"], {"bid_quote": bid, "ask_quote": ask, "size_usd": 20.0})


def main() -> None:
    """Trade."""
    parser = argparse.ArgumentParser(prog="python -m ami_engine.testing.kill_trader", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("journal")
    parser.add_argument("seed", type=int)
    parser.add_argument("--end-after", type=int, default=0)
    given = parser.parse_args()
    events = given.end_after or None
    broker = HttpBroker(given.url, timeout_ms=_TIMEOUT_MS, recv_window_ms=RECV_WINDOW_MS)
    try:
        summary = run_loop(
            source=TickerSource(given.url, events),
            broker=broker,
            run_id="kill-test",
            trace=False,
            journal=given.journal,
            settle_ms=SETTLE_MS,
            reconcile_every_ms=500,
            decision_engine=_Quoter(given.seed, is_ending=events is not None),
            quoting=QuotingConfig(refresh_ms=20),
            risk_policy=_POLICY,
        )
    finally:
        broker.close()
    sys.stdout.write(msgspec.json.encode({"latched": summary["notes"], "reason": summary["stopped_reason"]}).decode())


if __name__ == "__main__":
    main()
