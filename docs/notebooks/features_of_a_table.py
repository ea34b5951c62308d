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
# # Features of a table
#
# For research you have a table and want a table. For trading you have one event and want one row. Both are the same
# code, so that what was fitted is what is traded. This notebook computes a table, compares it with the stream, and
# looks at how the windows behave.

# %%
import numpy as np

from ami_engine.features import FeatureBuilder, FeatureConfig, available_backends

print({name: reason or "available" for name, reason in available_backends().items()})

# %% [markdown]
# ## A table of quotes
#
# A random walk on a grid of one cent, a quote every 100 ms; in the middle a minute of four times the volatility.

# %%
generator = np.random.Generator(np.random.PCG64(11))
count = 6_000
steps = generator.choice([-1, 0, 1], size=count, p=[0.1, 0.8, 0.1])
steps[3_000:3_600] *= 4
bid = 100.0 + 0.01 * np.cumsum(steps)
table = {
    "ts_ns": 1_700_000_000_000_000_000 + 100_000_000 * np.arange(count),
    "bid": bid,
    "ask": bid + 0.02,
    "bid_depth": generator.uniform(5.0, 50.0, count),
    "ask_depth": generator.uniform(5.0, 50.0, count),
}

builder = FeatureBuilder(FeatureConfig(tick_size=0.01))
rows = builder.run(table)
print(rows.shape, "refused:", builder.last_report.rejected)

# %% [markdown]
# ## The stream gives the same bits

# %%
stream = FeatureBuilder(FeatureConfig(tick_size=0.01), backend=builder.backend)
for number in range(count):
    stream.push(*(table[name][number].item() for name in ("ts_ns", "bid", "ask", "bid_depth", "ask_depth")))
is_same = np.array_equal(stream.view, rows[-1])
print("last row of the table and of the stream, bit for bit:", is_same)
assert is_same

# %% [markdown]
# ## A burst, seen by two windows
#
# `sigma` looks at 50 returns, `sigma_5m` at the regime window (300 mids here), `sigma_spike_z` compares the newest
# volatility with its own recent values. The first reacts, the second judges, the third warns: it is highest where the
# burst begins, not where it is.

# %%
column = {name: rows[:, place] for place, name in enumerate(builder.names)}
for start, stop, what in (
    (2_500, 3_000, "before"),
    (3_000, 3_040, "first 4 s"),
    (3_200, 3_600, "in it"),
    (4_500, 5_000, "after"),
):
    part = slice(start, stop)
    print(
        f"{what:>10}: sigma {column['sigma'][part].mean():.2e}  sigma_5m {column['sigma_5m'][part].mean():.2e}  "
        f"largest sigma_spike_z {column['sigma_spike_z'][part].max():5.1f}"
    )
calm, burst = column["sigma"][2_500:3_000].mean(), column["sigma"][3_200:3_600].mean()
assert 3.0 < burst / calm < 5.0

# %% [markdown]
# ## A bad row stays bad alone
#
# A refused event is a row of NaN and changes nothing: the rows after it are those of a table without it.

# %%
damaged = {name: values.copy() for name, values in table.items()}
damaged["ask"][1_000] = damaged["bid"][1_000] - 0.05  # crossed
again = FeatureBuilder(FeatureConfig(tick_size=0.01))
with_damage = again.run(damaged)
print("refused:", again.last_report.rejected, "first at:", again.last_report.first)

kept = {name: np.delete(values, 1_000) for name, values in table.items()}
without = FeatureBuilder(FeatureConfig(tick_size=0.01)).run(kept)
assert np.isnan(with_damage[1_000]).all()
assert np.array_equal(np.delete(with_damage, 1_000, axis=0)[2_000:], without[2_000:])
