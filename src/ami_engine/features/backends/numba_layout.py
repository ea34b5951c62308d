"""Where everything lies in the two flat arrays of a numba engine.

`i` (int64) starts with a header, and after it come the rings of positions and times; `f` (float64) likewise. The blocks
of the structures in the header say where their rings lie.
"""

from __future__ import annotations

from typing import Final

from ami_engine.features.schema import FEATURE_INDEX

# An aggregate's block in `i`: cuts of its window, its ring's mask, and the ring's offset in `f`.
FIRST: Final = 0
END: Final = 1
CUT_L: Final = 2
CUT_R: Final = 3
CUT_A: Final = 4
CUT_B: Final = 5
MASK: Final = 6
ITEMS: Final = 7
AGGREGATE_INTS: Final = 8

# A ring of samples has the same block, of which it uses FIRST, END, MASK and ITEMS. Moments are limbs: two and three.
MOMENTS_INTS: Final = 5

# A quantile's block: how many samples each heap holds, where their values (in `f`), positions and places (in `i`) lie.
HIGH_COUNT: Final = 0
LOW_COUNT: Final = 1
HIGH_VALUES: Final = 2
LOW_VALUES: Final = 3
HIGH_POSITIONS: Final = 4
LOW_POSITIONS: Final = 5
PLACES: Final = 6
QUANTILE_INTS: Final = 7

# A maximum's block: the queue's ends, its values (in `f`) and its positions (in `i`).
QUEUE_FIRST: Final = 0
QUEUE_END: Final = 1
QUEUE_VALUES: Final = 2
QUEUE_POSITIONS: Final = 3
QUEUE_INTS: Final = 4

# A rank structure's block: values a block, blocks in use, free ones, and where its arrays lie: values and lows in `f`,
# the others in `i`.
RANK_WIDTH: Final = 0
RANK_BLOCKS: Final = 1
RANK_FREE_COUNT: Final = 2
RANK_VALUES: Final = 3
RANK_LOWS: Final = 4
RANK_UPTO: Final = 5
RANK_COUNTS: Final = 6
RANK_ORDER: Final = 7
RANK_TREE: Final = 8
RANK_FREE: Final = 9
RANK_INTS: Final = 10
# Two neighbouring blocks hold more values than this.
RANK_JOINED: Final = 96

# Integers of the state: the clock, the parameters, then the blocks of the structures.
LAST_TS: Final = 0
LAST_BOOK_TS: Final = 1
HAS_BOOK: Final = 2
MIDS_SEEN: Final = 3
OPEN_TRADES: Final = 4  # 1 while trades that followed the last mid are being summed (windows by count alone)
WINDOW_NS: Final = 5
WINDOW_STEPS: Final = 6
VOL_WINDOW: Final = 7
RUN_LENGTH: Final = 8
RUN_COUNT: Final = 9
LEVELS: Final = 10
MID_MASK: Final = 11  # of every ring with one element a mid of the regime window
MID_TIMES: Final = 12  # offset in the integers
TRADE_MASK: Final = 13
TRADE_PLACES: Final = 14  # offset in the integers: two a trade, mids seen and time
FIRST_MID: Final = 15  # number, from 0, of the oldest mid in the regime window
ZERO: Final = 16  # always 0: where a heap begins
PAIR_FLOWS: Final = 17  # offset in the floats: the order flow of each pair of mids
FLOW_IS_EXACT: Final = 18
RETURNS: Final = 19
RUNS: Final = RETURNS + AGGREGATE_INTS
TRADES: Final = RUNS + AGGREGATE_INTS
SPREADS: Final = TRADES + AGGREGATE_INTS
DEPTHS: Final = SPREADS + QUANTILE_INTS
STALENESS: Final = DEPTHS + QUANTILE_INTS
VOL_MOMENTS: Final = STALENESS + QUEUE_INTS  # of the last VOL_WINDOW returns
REGIME_MOMENTS: Final = VOL_MOMENTS + MOMENTS_INTS  # of the regime window's returns
RUN_MOMENTS: Final = REGIME_MOMENTS + MOMENTS_INTS  # of the last RUN_LENGTH returns
RUNS_MOMENTS: Final = RUN_MOMENTS + MOMENTS_INTS  # of the deviations of the last RUN_COUNT runs
HAS_SIGNALS: Final = RUNS_MOMENTS + MOMENTS_INTS
MOMENTUM_STEPS: Final = HAS_SIGNALS + 1
MA_STEPS: Final = HAS_SIGNALS + 2
TREND_LAG_STEPS: Final = HAS_SIGNALS + 3
MIDS_SUM_IS_EXACT: Final = HAS_SIGNALS + 4
SIGNAL_MIDS: Final = HAS_SIGNALS + 5  # offset in the floats: the last mids, by their numbers
SIGNAL_MIDS_MASK: Final = HAS_SIGNALS + 6
SIGNAL_SUMS: Final = HAS_SIGNALS + 7  # offset in the floats: the last sums of mids, three floats each
SIGNAL_SUMS_MASK: Final = HAS_SIGNALS + 8
RANKS: Final = HAS_SIGNALS + 9
HEADER_INTS: Final = RANKS + RANK_INTS

# Floats of the state: parameters, the last two-sided book, sums, and three items (middle, back, answer) of the trades.
TICK_SIZE: Final = 0
COST_TICKS: Final = 1
LAST_MID: Final = 2
LAST_BID: Final = 3
LAST_BID_SIZE: Final = 4
LAST_ASK: Final = 5
LAST_ASK_SIZE: Final = 6
FLOW: Final = 7  # three
NEW_ITEM: Final = FLOW + 3  # six: what is about to be pushed
OPEN_SUMS: Final = NEW_ITEM + 6
TRADES_F: Final = OPEN_SUMS + 6
MIDS_SUM: Final = TRADES_F + 18  # three
SIGNAL_MOMENTUM: Final = MIDS_SUM + 3  # the four signals, in the order of the row
SIGNAL_TREND: Final = SIGNAL_MOMENTUM + 1
SIGNAL_REVERSION: Final = SIGNAL_MOMENTUM + 2
SIGNAL_SPREAD: Final = SIGNAL_MOMENTUM + 3
WEIGHTS: Final = SIGNAL_MOMENTUM + 4

# What an aggregate of trades is made of: sums kept as pairs.
TRADE_SUMS: Final = 3

MEDIAN: Final = 0.5
TENTH: Final = 0.1

ROW_MID: Final = FEATURE_INDEX["mid"]
ROW_BID: Final = FEATURE_INDEX["bid"]
ROW_ASK: Final = FEATURE_INDEX["ask"]
ROW_SPREAD: Final = FEATURE_INDEX["spread"]
ROW_SPREAD_BPS: Final = FEATURE_INDEX["spread_bps"]
ROW_DEPTH: Final = FEATURE_INDEX["depth"]
ROW_BID_DEPTH: Final = FEATURE_INDEX["bid_depth"]
ROW_ASK_DEPTH: Final = FEATURE_INDEX["ask_depth"]
ROW_IMBALANCE: Final = FEATURE_INDEX["imbalance"]
ROW_IMBALANCE_W: Final = FEATURE_INDEX["imbalance_w"]
ROW_MICROPRICE: Final = FEATURE_INDEX["microprice"]
ROW_MICROPRICE_ALPHA: Final = FEATURE_INDEX["microprice_alpha_ticks"]
ROW_VWAP_BID: Final = FEATURE_INDEX["vwap_bid"]
ROW_VWAP_ASK: Final = FEATURE_INDEX["vwap_ask"]
ROW_PRESSURE: Final = FEATURE_INDEX["pressure_ticks"]
ROW_COST: Final = FEATURE_INDEX["cost_ticks"]
ROW_STALENESS: Final = FEATURE_INDEX["staleness_ms"]
ROW_SIGMA: Final = FEATURE_INDEX["sigma"]
ROW_SPIKE: Final = FEATURE_INDEX["sigma_spike_z"]
ROW_SIGMA_5M: Final = FEATURE_INDEX["sigma_5m"]
ROW_SPREAD_MED: Final = FEATURE_INDEX["spread_med_5m"]
ROW_DEPTH_P10: Final = FEATURE_INDEX["depth_p10_5m"]
ROW_STALENESS_MAX: Final = FEATURE_INDEX["staleness_max_5m"]
ROW_VWAP: Final = FEATURE_INDEX["vwap_5m"]
ROW_OFI: Final = FEATURE_INDEX["ofi_5m"]
ROW_TRADE_IMBALANCE: Final = FEATURE_INDEX["trade_imbalance_5m"]
ROW_SIGNALS: Final = FEATURE_INDEX["momentum"]
