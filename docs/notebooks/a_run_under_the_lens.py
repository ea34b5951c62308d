# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A run under the lens
#
# One run over a simulated market, and then only its trace: what was proposed, what was decided, which guard said no,
# and whether the fills were good. Everything below can be asked of any trace, also a week later.

# %%
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from ami_engine.dmc import RiskPolicy
from ami_engine.loop.run_loop import run_loop
from ami_engine.mdm.decision_engine import DecisionEngine
from ami_engine.sim.microstructure_sim import MicrostructureSim
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.sim.synthetic_source import SyntheticSource
from ami_engine.trace.reader import read_packets, verify
from decision_schema.types import Action, Proposal

# %% [markdown]
# ## The run
#
# A maker around the microprice, under limits that fit its size.


# %%
def maker(features, size_usd=500.0, **_):
    spread = features["spread"]
    if not spread > 0.0:
        return Proposal(Action.HOLD, 0.0, ["no_spread"])
    fair = features["microprice"]
    quotes = {"bid_quote": fair - spread / 2, "ask_quote": fair + spread / 2, "size_usd": size_usd, "post_only": True}
    return Proposal(Action.ACT, 0.7, ["maker"], quotes)


folder = Path(tempfile.mkdtemp())
source = SyntheticSource(MicrostructureSim(mid=50.0, spread=0.02, seed=5), num_events=3_000, symbol="DEMO")
policy = RiskPolicy(
    max_per_market_usd=200.0,
    max_total_exposure_usd=1_000.0,
    max_abs_inventory=500.0,
    daily_loss_stop_usd=5.0,
    adv15_max_ticks=400.0,
    adv60_max_ticks=800.0,
    cancel_rate_limit=200,
)
summary = run_loop(
    source=source,
    broker=PaperBroker(instruments=source.instruments()),
    decision_engine=DecisionEngine(model=maker),
    risk_policy=policy,
    run_dir=folder / "run",
)
report = verify(folder / "run")
print(f"{report.packets} packets, clean: {report.ok}")
print("the run itself said the same chain head:", report.chain_head == summary["chain_head"])
assert report.ok

# %% [markdown]
# ## Proposed against decided

# %%
packets = list(read_packets(folder / "run"))
pairs = Counter((packet.mdm["action"], packet.final_action["action"]) for packet in packets)
for (proposed, decided), count in pairs.most_common():
    print(f"{proposed:>5} → {decided:<5} {count:6}")

# %% [markdown]
# ## Which guards spoke, and how near the others were
#
# A guard that never fires is either not needed or set too far away. The context in each packet says which: here the
# largest exposure that was reached, as a share of its limit.

# %%
fired = Counter(code for packet in packets if packet.mismatch for code in packet.mismatch["reason_codes"])
print(dict(fired))
exposures = np.array([packet.input["context"].get("current_total_exposure_usd", 0.0) for packet in packets])
print(
    f"largest exposure: {exposures.max():.1f} USD, {exposures.max() / policy.max_total_exposure_usd:.0%} of the limit"
)

# %% [markdown]
# ## Does the imbalance say anything?
#
# The features of every decision are in its packet. The simulated market lets order-flow pressure move the sizes and
# the trades, so the imbalance should know a little of the next move, and no more.

# %%
rows = [packet.input["features"] for packet in packets if packet.input["kind"] == "book_snapshot"]
imbalance = np.array([row["imbalance"] for row in rows])
mid = np.array([row["mid"] for row in rows])
ahead = 50
change = mid[ahead:] - mid[:-ahead]
correlation = np.corrcoef(imbalance[:-ahead], change)[0, 1]
print(f"correlation of imbalance with the move {ahead} books later: {correlation:.2f}")

# %% [markdown]
# A correlation is no profit: the summary says what was made of it, before fees, by a maker who stands last in the
# queue.

# %%
for key in ("fills_count", "realized_pnl", "fees", "final_equity", "max_drawdown"):
    print(key, summary[key])
