"""Trading over a recorded feed: an own model, own limits, the paper venue, and what every decision was made from.

The model quotes on both sides of the microprice and leans against what it holds. Without a recording of your own the
example first makes one: two minutes of a simulated market, written as JSON lines.

Run it:

    python docs/examples/trading_recorded_feed.py
    python docs/examples/trading_recorded_feed.py capture.feed.gz binance instrument.toml
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from ami_engine.adapters.base import DataSource
from ami_engine.adapters.open_source import open_source
from ami_engine.dmc import RiskPolicy
from ami_engine.loop.run_loop import run_loop
from ami_engine.mdm.decision_engine import DecisionEngine
from ami_engine.sim.microstructure_sim import MicrostructureSim
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.sim.synthetic_source import SyntheticSource
from ami_engine.trace.reader import read_packets, verify
from ami_engine.units import Instrument
from decision_schema.types import Action, Proposal

POLICY = RiskPolicy(
    max_per_market_usd=600.0,
    max_total_exposure_usd=3_000.0,
    max_abs_inventory=2_000.0,
    max_spread_bps=300.0,
    daily_loss_stop_usd=25.0,
    adv15_max_ticks=400.0,
    adv60_max_ticks=800.0,
    cancel_rate_limit=200,
)


def microprice_maker(features: Any, size_usd: float = 500.0, **_: Any) -> Proposal:
    """Quote half a spread around the microprice; stay out of a book that is wide for its own last minutes."""
    spread, usual = features["spread"], features["spread_med_5m"]
    if not spread > 0.0 or spread > 3.0 * usual:
        return Proposal(Action.HOLD, 0.0, ["unusual_spread"])
    fair = features["microprice"]
    confidence = min(1.0, 0.5 + 0.5 * abs(features["imbalance_w"]))
    quotes = {"bid_quote": fair - spread / 2, "ask_quote": fair + spread / 2, "size_usd": size_usd, "post_only": True}
    return Proposal(Action.ACT, confidence, ["usual_spread"], quotes)


def make_recording(path: Path, events: int = 2_000) -> None:
    """Write a simulated market as JSON lines, one event struct a line."""
    source = SyntheticSource(MicrostructureSim(mid=50.0, spread=0.02, seed=5), num_events=events, symbol="DEMO")
    with path.open("wb") as file:
        while (event := source.next_event()) is not None:
            file.write(msgspec.json.encode(event) + b"\n")


def main(source: DataSource, run_dir: str | Path) -> dict[str, Any]:
    """Run the model over a source and return the summary."""
    return run_loop(
        source=source,
        broker=PaperBroker(instruments=source.instruments(), queue="back"),
        decision_engine=DecisionEngine(model=microprice_maker),
        risk_policy=POLICY,
        run_dir=run_dir,
        overwrite=True,
    )


def report(result: dict[str, Any], run_dir: str | Path) -> None:
    """Say in plain words what became of the account, and from what the first decision of each kind was made."""
    print(
        f"{result['steps']} events: {result['orders_submitted']} orders sent, {result['fills_count']} fills,", end=" "
    )
    print(f"{result['final_equity']:+.2f} USD in the end, of which fees {-result['fees']:+.2f}")
    print("decisions:", ", ".join(f"{action} {count}" for action, count in sorted(result["action_counts"].items())))
    is_clean = verify(run_dir).ok
    print("the trace is whole" if is_clean else "the trace is damaged", "and says why, first of each kind:")
    seen = set()
    for packet in read_packets(run_dir):
        action = packet.final_action["action"]
        if action not in seen and packet.input.get("features"):
            seen.add(action)
            features = packet.input["features"]
            print(
                f"  step {packet.step}: {action} because of {', '.join(packet.final_action['reasons'])};"
                f" bid {features['bid']}, ask {features['ask']}, position {packet.input['context']['abs_inventory']}"
            )


if __name__ == "__main__":
    folder = Path("trading-example")
    folder.mkdir(exist_ok=True)
    if len(sys.argv) > 1:
        capture, format, instrument = sys.argv[1:4]
        feed = open_source(capture, format=format, instrument=instrument)
    else:
        recording = folder / "recording.jsonl"
        make_recording(recording)
        feed = open_source(
            recording, symbol="DEMO", instrument=Instrument("DEMO", tick_size=0.01, lot_size=0.1, maker_fee_bps=-0.2)
        )
    report(main(feed, folder / "run"), folder / "run")
