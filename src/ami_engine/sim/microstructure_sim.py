"""A small, honest order-driven market: depth, a spread, aggressive trades and imbalance that says a little."""

from __future__ import annotations

import math

from ami_engine.errors import ConfigError
from ami_engine.events import BookSnapshot, Trade
from ami_engine.sim.uniform_stream import UniformStream
from ami_engine.units import NS_PER_MS, Instrument

__all__ = ["EPOCH_NS", "MicrostructureSim"]

# 2024-01-02 00:00:00 UTC: a whole day of events passes before the next midnight, where daily limits begin anew.
EPOCH_NS = 1_704_153_600_000_000_000

# Order-flow pressure x follows x' = a·x + b·(uniform in ±1): half-life about 100 events, standard deviation 0.41.
_PRESSURE_DECAY = 0.993
_PRESSURE_STEP = 0.084
# Pull of the fair value towards where it began, per event.
_REVERSION = 2e-5
# Quotes follow the fair value when they are this far from it, ticks: less would make them flicker around it.
_LAG_TICKS = 0.75
# How often an event draws a new spread, and how often the spread is one tick wider or one narrower than usual.
_SPREAD_CHANGE = 0.06
_SPREAD_OFF = 0.25
# Share of events that come in a burst, and the gaps of both kinds in mean gaps: 0.3 · 0.11 + 0.7 · 1.381 = 1.
_BURST_FRAC = 0.3
# A level's size moves towards depth·(1 ± _TILT·x): this is what makes imbalance follow pressure.
_TILT = 0.75
# Longest walk of the fair value, as a share of where it began: a price between 0 and 1 stays there.
_RANGE = 0.8
_DRAWS_PER_EVENT = 12


class MicrostructureSim:
    """A market that is generated event by event, the same for one seed on every machine, in constant memory.

    A latent fair value walks, pulled back towards `mid` and moved by every trade. The book is on an integer grid:
    quotes follow the fair value, and a level is lifted by a trade before the price moves through it. An order-flow
    pressure that lasts for some hundred events makes the sizes of the levels lean, and the aggressors of the trades
    with them: so imbalance predicts a part of the next move, and no more. Our own orders leave no mark on the market,
    nobody competes with them and by default they are free: what a strategy earns here shows that it runs, not that it
    is any good.

    Only additions, products and comparisons of IEEE doubles are used, no function of the C library.

    Parameters
    ----------
    mid : float
        Price at the start, > 0; the price stays within ±80 % of it.
    spread : float
        Usual spread, in price; at least one tick.
    seed : int
        Seed of everything random.
    tick_size : float, optional
        Price step; half of `spread` by default, so that 0.5 with a spread of 0.01 begins at 0.495 / 0.505.
    levels : int
        Visible levels on each side.
    depth : float
        Usual total size of both sides, at least 4 · levels; sizes are whole numbers.
    event_ms : float
        Mean time between two events, ms. No gap is longer than twice that.
    trade_frac : float
        Share of events that are trades while nothing else is to be done, in [0, 1].
    volatility_ticks : float
        Standard deviation of the fair value's own step, ticks per event.
    impact_ticks : float
        How far a trade of the size of a usual level moves the fair value its way, for good, ticks.
    maker_fee_bps, taker_fee_bps : float
        Fees of the instrument.
    start_ns : int
        Exchange time of the first event, ns since the Unix epoch.

    Raises
    ------
    ConfigError
        When a parameter is outside its range.

    Examples
    --------
    >>> sim = MicrostructureSim(mid=0.5, spread=0.01, seed=42)
    >>> first = sim.next_event("DEMO")
    >>> first.bid, first.ask, len(first.bids)
    (0.495, 0.505, 10)
    """

    def __init__(
        self,
        mid: float = 0.5,
        spread: float = 0.01,
        seed: int = 0,
        *,
        tick_size: float | None = None,
        levels: int = 10,
        depth: float = 130.0,
        event_ms: float = 100.0,
        trade_frac: float = 0.25,
        volatility_ticks: float = 0.01,
        impact_ticks: float = 0.18,
        maker_fee_bps: float = 0.0,
        taker_fee_bps: float = 0.0,
        start_ns: int = EPOCH_NS,
    ) -> None:
        for name, value in (("mid", mid), ("spread", spread), ("event_ms", event_ms), ("depth", depth)):
            if not (math.isfinite(value) and value > 0.0):
                raise ConfigError(f"`{name}` must be finite and > 0, was {value!r}")
        tick = spread / 2.0 if tick_size is None else tick_size
        self._instrument = Instrument(
            "", tick, lot_size=_lot_for(mid), maker_fee_bps=maker_fee_bps, taker_fee_bps=taker_fee_bps
        )
        self._usual_spread = round(spread / tick)
        if self._usual_spread < 1:
            raise ConfigError(f"`spread` must be at least one tick ({tick}), was {spread!r}")
        for name, value in (("volatility_ticks", volatility_ticks), ("impact_ticks", impact_ticks)):
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f"`{name}` must be in [0, 1], was {value!r}")
        if not 0.0 <= trade_frac <= 1.0:
            raise ConfigError(f"`trade_frac` must be in [0, 1], was {trade_frac!r}")
        if levels < 1:
            raise ConfigError(f"`levels` must be at least 1, was {levels!r}")
        if depth < 4 * levels:
            raise ConfigError(f"`depth` must be at least 4 * levels ({4 * levels}), was {depth!r}")
        if start_ns <= 0:
            raise ConfigError(f"`start_ns` must be > 0, was {start_ns!r}")
        self._identity = (
            f"mid={mid!r},spread={spread!r},seed={seed!r},tick_size={tick!r},levels={levels!r},depth={depth!r},"
            f"event_ms={event_ms!r},trade_frac={trade_frac!r},volatility_ticks={volatility_ticks!r},"
            f"impact_ticks={impact_ticks!r},maker_fee_bps={maker_fee_bps!r},taker_fee_bps={taker_fee_bps!r},"
            f"start_ns={start_ns!r}"
        )
        self._stream = UniformStream(seed)
        self._levels = levels
        self._level_size = depth / (2 * levels)
        self._trade_frac = trade_frac
        self._volatility = volatility_ticks
        self._impact = impact_ticks / self._level_size
        self._event_ns = event_ms * NS_PER_MS
        self._exch_ns = start_ns
        self._recv_ns = start_ns
        self._seq = 0
        self._start_at(mid / tick)

    def _start_at(self, fair: float) -> None:
        """Set the book around the fair value, in ticks."""
        self._home = self._fair = fair
        # Invariant: the bid stays above zero. It is at most 1.25 ticks and half of a spread that is two too wide below.
        self._low = max(fair * (1.0 - _RANGE), self._usual_spread + 3.0)
        self._high = fair * (1.0 + _RANGE)
        if self._low >= fair:
            raise ConfigError(f"`mid` must be more than {self._low} ticks for that spread, was {fair}")
        self._pressure = 0.0
        self._spread = self._usual_spread
        self._bid = round(fair - self._spread / 2.0)
        self._ask = self._bid + self._spread
        size = float(round(self._level_size))
        self._bid_sizes = [size] * self._levels
        self._ask_sizes = [size] * self._levels
        self._price_bids()
        self._price_asks()

    @property
    def identity(self) -> str:
        """Every parameter, in one line."""
        return self._identity

    def instrument(self, symbol: str) -> Instrument:
        """Return the instrument, under the name `symbol`."""
        known = self._instrument
        return Instrument(
            symbol,
            known.tick_size,
            lot_size=known.lot_size,
            maker_fee_bps=known.maker_fee_bps,
            taker_fee_bps=known.taker_fee_bps,
        )

    def next_event(self, symbol: str = "SIM") -> BookSnapshot | Trade:
        """Return the next event, a book or a trade. There is always one. Both its times increase."""
        self._seq += 1
        if self._seq == 1:
            self._recv_ns = self._exch_ns + NS_PER_MS
            return self._book(symbol)
        draw = self._stream.reserve(_DRAWS_PER_EVENT).pop
        self._pass_time(draw(), draw(), draw())
        self._drift(draw(), draw() + draw() + draw())
        return self._act(symbol, draw(), draw(), draw(), draw())

    def _pass_time(self, kind: float, gap: float, feed: float) -> None:
        """Move both clocks on: bursts and pauses at the venue, 1 to 2 ms from there to us."""
        gaps = 0.01 + 0.2 * gap if kind < _BURST_FRAC else 0.781 + 1.2 * gap
        self._exch_ns += 1 + int(gaps * self._event_ns)
        received = self._exch_ns + NS_PER_MS + int(feed * NS_PER_MS)
        self._recv_ns = received if received > self._recv_ns else self._recv_ns + 1

    def _drift(self, push: float, three: float) -> None:
        """Move the pressure and the fair value; `three` is a sum of three uniforms, nearly a normal number."""
        pressure = _PRESSURE_DECAY * self._pressure + _PRESSURE_STEP * (2.0 * push - 1.0)
        self._pressure = pressure = -1.0 if pressure < -1.0 else (1.0 if pressure > 1.0 else pressure)
        fair = self._fair
        # The sum of three uniforms has variance 1/4, so twice its distance from 3/2 has variance 1.
        fair += self._volatility * (2.0 * three - 3.0) + _REVERSION * (self._home - fair)
        self._fair = self._low if fair < self._low else (self._high if fair > self._high else fair)

    def _act(self, symbol: str, what: float, which: float, where: float, much: float) -> BookSnapshot | Trade:
        """Let one thing happen in the book."""
        off = self._fair - 0.5 * (self._bid + self._ask)
        spread = self._ask - self._bid
        if not self._bid_sizes[0]:
            self._drop_bid(much)
        elif not self._ask_sizes[0]:
            self._drop_ask(much)
        elif spread > self._spread:
            self._improve_bid(much) if off > 0.0 else self._improve_ask(much)
        elif off > _LAG_TICKS:
            return self._trade(symbol, 1, self._ask_sizes[0])
        elif off < -_LAG_TICKS:
            return self._trade(symbol, -1, self._bid_sizes[0])
        elif spread < self._spread:
            self._drop_ask(much) if off > 0.0 else self._drop_bid(much)
        elif what < self._trade_frac:
            buys = which < 0.5 + 0.35 * self._pressure
            best = self._ask_sizes[0] if buys else self._bid_sizes[0]
            size = float(1 + int(1.2 * self._level_size * much * much))
            return self._trade(symbol, 1 if buys else -1, min(size, best))
        else:
            self._resize(which, where, much)
            if what > 1.0 - _SPREAD_CHANGE:
                self._choose_spread((1.0 - what) / _SPREAD_CHANGE)
        return self._book(symbol)

    def _choose_spread(self, u: float) -> None:
        """Draw the spread that quotes will keep from now on."""
        usual = self._usual_spread
        if u < _SPREAD_OFF:
            self._spread = max(1, usual - 1)
        else:
            self._spread = usual + 1 if u > 1.0 - _SPREAD_OFF else usual

    def _resize(self, which: float, where: float, much: float) -> None:
        """Move one level's size towards where the pressure wants it; levels near the best change more often."""
        is_bid = which < 0.5
        sizes = self._bid_sizes if is_bid else self._ask_sizes
        level = int(self._levels * where * where)
        sizes[level] = self._fresh_size(is_bid, much)
        if is_bid:
            self._bids = tuple(zip(self._bid_prices, sizes, strict=False))
        else:
            self._asks = tuple(zip(self._ask_prices, sizes, strict=False))

    def _fresh_size(self, is_bid: bool, much: float) -> float:
        """Return a level's size: whole, at least 1, ±60 % around the mean that the pressure gives the side."""
        lean = _TILT * self._pressure
        mean = self._level_size * (1.0 + lean if is_bid else 1.0 - lean)
        return float(max(1, int(mean * (0.4 + 1.2 * much) + 0.5)))

    def _improve_bid(self, much: float) -> None:
        self._bid += 1
        self._bid_sizes.insert(0, self._fresh_size(True, much))
        self._bid_sizes.pop()
        self._price_bids()

    def _improve_ask(self, much: float) -> None:
        self._ask -= 1
        self._ask_sizes.insert(0, self._fresh_size(False, much))
        self._ask_sizes.pop()
        self._price_asks()

    def _drop_bid(self, much: float) -> None:
        self._bid -= 1
        self._bid_sizes.pop(0)
        self._bid_sizes.append(self._fresh_size(True, much))
        self._price_bids()

    def _drop_ask(self, much: float) -> None:
        self._ask += 1
        self._ask_sizes.pop(0)
        self._ask_sizes.append(self._fresh_size(False, much))
        self._price_asks()

    def _price_bids(self) -> None:
        """Price the bid levels; those at or below zero do not exist."""
        price, best = self._instrument.price_from_ticks, self._bid
        self._bid_prices = [price(tick) for tick in range(best, max(best - self._levels, 0), -1)]
        self._bids = tuple(zip(self._bid_prices, self._bid_sizes, strict=False))

    def _price_asks(self) -> None:
        price, best = self._instrument.price_from_ticks, self._ask
        self._ask_prices = [price(tick) for tick in range(best, best + self._levels)]
        self._asks = tuple(zip(self._ask_prices, self._ask_sizes, strict=False))

    def _trade(self, symbol: str, aggressor: int, size: float) -> Trade:
        """Take `size` from the best level; an emptied level goes with the next event, which is a book."""
        self._fair += aggressor * self._impact * size
        if aggressor > 0:
            price = self._ask_prices[0]
            self._ask_sizes[0] -= size
            self._asks = tuple(zip(self._ask_prices, self._ask_sizes, strict=False))
        else:
            price = self._bid_prices[0]
            self._bid_sizes[0] -= size
            self._bids = tuple(zip(self._bid_prices, self._bid_sizes, strict=False))
        return Trade(self._exch_ns, self._recv_ns, symbol, self._seq, price, size, aggressor)

    def _book(self, symbol: str) -> BookSnapshot:
        bids, asks = self._bids, self._asks
        return BookSnapshot(
            self._exch_ns,
            self._recv_ns,
            symbol,
            self._seq,
            self._bid_prices[0],
            self._ask_prices[0],
            sum(self._bid_sizes[: len(bids)]),
            sum(self._ask_sizes),
            bids,
            asks,
        )


def _lot_for(mid: float) -> float:
    """Return the largest power of ten that is at most 0.02 / mid: an order worth 1 has some fifty lots or more."""
    # Decimal literals, not powers: the C library's pow need not be exact.
    return next((lot for lot in (float(f"1e{power}") for power in range(12, -12, -1)) if lot * mid <= 0.02), 1e-12)
