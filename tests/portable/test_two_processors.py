"""The compiled core gives the same bytes on x86-64 and on aarch64 (under qemu), and they are what Python is given."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.backtest.conftest import ListedSource, rough_market

from ami_engine.adapters.open_source import open_source
from ami_engine.backtest import CompiledResult, run_compiled, table_from_source
from ami_engine.backtest.core import compiled_core
from ami_engine.bench.inputs import market
from ami_engine.book import BookApply, OrderBook
from ami_engine.dmc import RiskPolicy
from ami_engine.errors import BackendError, EventError
from ami_engine.events import BookDelta, BookSnapshot, BookTicker, Fill, Side, Trade
from ami_engine.features import FeatureConfig, available_backends
from ami_engine.features.backends.state_bytes import unseal
from ami_engine.features.columns import EventColumns
from ami_engine.loop.native_values import feature_values
from ami_engine.portfolio import Account
from ami_engine.units import Instrument

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CROSS = "aarch64-linux-gnu-g++"
EMULATORS = ("qemu-aarch64", "qemu-aarch64-static")
FEEDS = {"usdm": 0.1, "spot": 0.01, "coinm": 0.1}
SYMBOLS = {"usdm": "BTCUSDT", "spot": "BTCUSDT", "coinm": "BTCUSD_PERP"}
# Emulated, each event costs some microseconds.
FEED_EVENTS = 60_000

LINEAR = Instrument("L", tick_size=0.01, lot_size=0.001, multiplier=1.0, maker_fee_bps=-0.5, taker_fee_bps=4.5)
INVERSE = Instrument("I", tick_size=0.1, lot_size=1.0, multiplier=100.0, kind="inverse", currency="BTC")
FREE = Instrument("F", tick_size=0.01)


# The two programs. ------------------------------------------------------------------------------------------------


def _flags() -> list[str]:
    """The options of CMakeLists.txt that decide about bits: a copy here would hide that one was dropped there."""
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    found = re.search(r"target_compile_options\(ami INTERFACE (-f[^)]*)\)", text)
    assert found is not None
    return [flag for flag in found[1].split() if flag.startswith("-f")]


def _build(folder: Path, compiler: str, name: str, *more: str) -> Path:
    generated = folder / "generated"
    codegen, source = ROOT / "cpp" / "codegen", ROOT / "src"
    features = [codegen / "feature_ids.py", source / "ami_engine" / "features" / "schema.py"]
    for command, header in (
        (features, "feature_ids.hpp"),
        ([codegen / "decision_tables.py", source], "decision_tables.hpp"),
        ([codegen / "powers_of_ten.py"], "powers_of_ten.hpp"),
    ):
        subprocess.run([sys.executable, *map(str, command), str(generated / "ami" / header)], check=True)
    command = [compiler, "-std=c++17", "-O3", "-DNDEBUG", *_flags(), *more]
    command += [f"-I{ROOT / 'cpp' / 'include'}", f"-I{generated}", str(HERE / "answers.cpp"), "-o", str(folder / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / name


Answers = Callable[[bytes], bytes]


def _program(*command: str) -> Answers:
    def answers(cases: bytes) -> bytes:
        done = subprocess.run(command, input=cases, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    return answers


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """The program, built for this machine."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler (c++ or g++) is installed")
    return _program(str(_build(tmp_path_factory.mktemp("native"), compiler, "answers")))


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """The program, built for aarch64 and emulated."""
    emulator = next((path for name in EMULATORS if (path := shutil.which(name))), None)
    if shutil.which(CROSS) is None:
        pytest.skip(f"no cross compiler: {CROSS} (Debian: g++-aarch64-linux-gnu) is not installed")
    if emulator is None:
        pytest.skip(f"no emulator: {' or '.join(EMULATORS)} (Debian: qemu-user) is not installed")
    program = _build(tmp_path_factory.mktemp("arm"), CROSS, "answers", "-static")
    header = program.read_bytes()[:20]
    assert header[:4] == b"\x7fELF"
    assert header[18:20] == (183).to_bytes(2, "little")  # EM_AARCH64
    return _program(emulator, str(program))


# Cases, as answers.cpp reads them. --------------------------------------------------------------------------------


def _ints(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}q", *values)


def _doubles(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}d", *values)


def _column(array: Any) -> bytes:
    return _ints(0) if array is None else _ints(array.size) + array.tobytes()


def _features(values: Mapping[str, Any]) -> bytes:
    weights = values["level_weights"]
    parts = _doubles(values["tick_size"], values["cost_ticks"]) + _ints(len(weights)) + _doubles(*weights)
    parts += _ints(*(values[name] for name in ("vol_window", "window_steps", "window_ns")))
    steps = values["signal_steps"]
    return parts + _ints(values["sigma_short_steps"], values["sigma_long_steps"], len(steps), *steps)


def feature_case(config: FeatureConfig, c: EventColumns) -> bytes:
    assert c.ts_fallback is None
    header = _ints(1) + _features(feature_values(config))
    levels = [0 if side is None else side.shape[1] for side in (c.bids, c.asks)]
    columns = (c.ts, c.kind, c.aggressor, c.now_ns)
    columns += (c.bid, c.ask, c.bid_depth, c.ask_depth, c.bids, c.asks, c.price, c.size)
    return header + _ints(c.rows, c.ns_per_ts, *levels) + b"".join(map(_column, columns))


Message = tuple[int, int, int, int, list[Any], list[Any]]  # kind, seq, first_seq, prev_seq, bids, asks


def book_case(tick_size: float, messages: list[Message]) -> bytes:
    parts = [_ints(2), _doubles(tick_size), _ints(len(messages))]
    for kind, seq, first_seq, prev_seq, bids, asks in messages:
        parts.append(_ints(kind, seq, first_seq, prev_seq, len(bids), len(asks)))
        parts.extend(_doubles(*pair) for pair in [*bids, *asks])
    return b"".join(parts)


def _instrument(i: Instrument) -> bytes:
    numbers = (i.tick_size, i.lot_size, i.min_qty, i.min_notional, i.multiplier)
    return _doubles(*numbers, i.maker_fee_bps, i.taker_fee_bps) + _ints(i.is_inverse)


def money_case(instrument: Instrument, cash: float, fills: list[tuple[bool, float, float, float, float]]) -> bytes:
    parts = [_ints(3), _instrument(instrument), _doubles(cash), _ints(len(fills))]
    parts.extend(_ints(is_buy) + _doubles(*rest) for is_buy, *rest in fills)
    return b"".join(parts)


def number_case(values: list[float]) -> bytes:
    return _ints(4) + _instrument(LINEAR) + _instrument(FREE) + _ints(len(values)) + _doubles(*values)


_WHOLE_COLUMNS = ("ts", "kind", "aggressor", "image", "has_gap")
_COLUMNS = ("bid", "ask", "bid_depth", "ask_depth", "bids", "asks")
_COLUMNS += ("price", "size", "open", "high", "low", "volume")


def decision_case(
    columns: Mapping[str, Any], rows: int, features: Mapping[str, Any], s: Mapping[str, Any], draws: Any
) -> bytes:
    """A run over a table, from what Python hands to the compiled core."""
    assert not s["model"]
    assert not s["is_dry"]
    parts = [_ints(5), _features(features), _column(draws), _doubles(*s["policy"])]
    for i in (s["instrument"], s["venue_instrument"]):
        parts.append(_doubles(*i[:5], *i[6:]) + _ints(int(i[5])))
    parts.append(_ints(s["is_venue_on_grid"], s["queue"]))
    parts.append(_doubles(s["confidence_threshold"], s["imbalance_threshold"], s["max_size_usd"], s["start_cash"]))
    parts.append(_ints(s["timer_ns"], s["times_bars"], s["is_table_checked"]))
    parts.append(_ints(s["refresh_ms"]) + _doubles(s["min_requote_ticks"]))
    parts.append(_ints(s["order_ttl_ms"], s["post_fill_cooldown_ms"], s["max_replacements_per_min"]))
    parts.append(_doubles(s["tp_ticks"], s["sl_ticks"], s["T_max_ms"]))
    sides = (columns.get("bids"), columns.get("asks"))
    parts.append(_ints(rows, *(0 if side is None else side.shape[1] for side in sides)))
    parts.extend(_column(columns.get(name)) for name in (*_WHOLE_COLUMNS, *_COLUMNS))
    return b"".join(parts)


# What Python is given for the same cases. -------------------------------------------------------------------------


def _text(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return _ints(len(data)) + data


def features_here(config: FeatureConfig, columns: EventColumns) -> bytes:
    """The rows of the native backend, what it refused, and the state that it is left in."""
    reason = available_backends()["native"]
    if reason:
        pytest.skip(f"backend native: {reason}")
    from ami_engine.features.backends.native import NativeEngine

    engine = NativeEngine(config)
    out = np.empty((columns.rows, len(config.feature_names)))
    report = engine.run(columns, out)
    refused = b"".join(_text(name) + _ints(count) for name, count in report.rejected.items())
    state = unseal("native", config, engine.snapshot())
    return out.tobytes() + _ints(report.accepted) + refused + _text(state)


def book_here(tick_size: float, messages: list[Message]) -> bytes:
    """What the order book answers after each message, and its checkpoint."""
    book, parts = OrderBook(tick_size), []
    for kind, seq, first_seq, prev_seq, bids, asks in messages:
        try:
            if kind == 0:
                book.apply_snapshot(bids, asks, seq)
                applied = BookApply.APPLIED
            elif kind == 1:
                applied = book.apply_delta(bids, asks, seq, first_seq, prev_seq)
            else:
                applied = book.apply_ticker(*bids[0], *asks[0], seq)
            parts.append(_text(applied.name.lower()))
        except EventError as error:
            parts.append(_text(f"{error.reason} {error.field} {error}"))
        for side in book.top(10):
            parts.append(_ints(len(side)) + side.tobytes())
    parts.append(_text(book.to_bytes()))
    return b"".join(parts)


def money_here(instrument: Instrument, cash: float, fills: list[tuple[bool, float, float, float, float]]) -> bytes:
    account, parts, name = Account({"M": instrument}, cash=cash), [], "M"
    for number, (is_buy, price, qty, fee, mark) in enumerate(fills):
        side = Side.BUY if is_buy else Side.SELL
        fill = Fill(trade_id=str(number), client_order_id="o", market_id=name, side=side, price=price, qty=qty, fee=fee)
        result = account.apply(fill)
        account.mark(name, mark)
        held = account.positions
        numbers = (result.realized, result.trip_pnl, held.position(name), held.avg_price(name), held.realized)
        parts.append(_doubles(*numbers, held.fees, account.equity, account.max_drawdown, account.exposure_usd()))
    return b"".join(parts)


class DecidedHere:
    """Makes compiled runs, and notes what the core was given and what it told."""

    def __init__(self, core: Any) -> None:
        self._core = core
        self.cases: list[bytes] = []
        self.answers: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def run_compiled(self, columns: Any, rows: int, features: Any, settings: Any, draws: Any, *rest: Any) -> Any:
        """As the core's: called by `ami_engine.backtest.run_compiled`."""
        self.cases.append(decision_case(columns, rows, features, settings, draws))
        told = self._core.run_compiled(columns, rows, features, settings, draws, *rest)
        counts = ("steps", "timers", "rows_read", "submitted", "canceled", "rejected", "skipped", "errors")
        money = ("position", "avg_price", "realized", "fees", "unrealized", "equity", "max_drawdown")
        self._end = _ints(*(told[name] for name in counts), *told["codes"], *told["held_codes"], *told["held_reasons"])
        self._end += _doubles(*(told[name] for name in money))
        return told

    def note(self, result: CompiledResult) -> None:
        """Write the decisions and fills of the last run as answers.cpp does."""
        assert result.decisions is not None
        parts = []
        for ts_ns, codes, position, equity, proposed, action, is_timer in result.decisions.tolist():
            parts.append(struct.pack("<qQddqqq", ts_ns, codes, position, equity, proposed, action, is_timer))
        for is_buy, is_maker, price, qty, fee, ts_ns, step in result._fills.told.tolist():
            parts.append(struct.pack("<qqdddqq", is_buy, is_maker, price, qty, fee, ts_ns, step))
        self.answers.append(b"".join(parts) + self._end)


@pytest.fixture
def decided_here(monkeypatch: pytest.MonkeyPatch) -> DecidedHere:
    try:
        here = DecidedHere(compiled_core())
    except BackendError as error:
        pytest.skip(str(error))
    monkeypatch.setattr("ami_engine.backtest.compiled.compiled_core", lambda: here)
    return here


# Input. -----------------------------------------------------------------------------------------------------------


def _recorded(data_dir: Path, venue: str) -> Iterator[Any]:
    (path,) = data_dir.glob(f"binance-{venue}-*.feed.gz")
    source = open_source(path, format="binance", symbol=SYMBOLS[venue])
    for _ in range(FEED_EVENTS):
        try:
            event = source.next_event()
        except EventError:
            continue
        if event is None:
            break
        yield event
    source.close()


def _feature_columns(events: Iterable[Any]) -> EventColumns:
    rows = []
    for e in events:
        if type(e) is BookTicker:
            rows.append((e.recv_ts_ns, e.bid, e.ask, e.bid_size, e.ask_size, 0, 0.0, 0.0, 0, e.recv_ts_ns + 250_000))
        elif type(e) is Trade:
            rows.append((e.recv_ts_ns, 0.0, 0.0, 0.0, 0.0, 1, e.price, e.size, e.aggressor, 0))
    names = ("ts", "bid", "ask", "bid_depth", "ask_depth", "kind", "price", "size", "aggressor", "now_ns")
    whole = {"ts", "kind", "aggressor", "now_ns"}
    columns = zip(names, zip(*rows, strict=True), strict=True)
    arrays: dict[str, Any] = {key: np.array(v, np.int64 if key in whole else np.float64) for key, v in columns}
    return EventColumns(len(rows), **arrays)


def _book_messages(events: Iterable[Any]) -> list[Message]:
    messages: list[Message] = []
    for e in events:
        if type(e) is BookSnapshot:
            messages.append((0, e.seq, 0, 0, list(e.bids), list(e.asks)))
        elif type(e) is BookDelta:
            messages.append((1, e.seq, e.first_seq, e.prev_seq, list(e.bids), list(e.asks)))
        elif type(e) is BookTicker:
            messages.append((2, e.seq, 0, 0, [(e.bid, e.bid_size)], [(e.ask, e.ask_size)]))
    return messages


def _random_columns(seed: int, rows: int = 4_000) -> EventColumns:
    """Books with levels and trades; in a share of the rows anything at all, such as prices that no venue has."""
    draw = np.random.Generator(np.random.PCG64(seed))
    bid = np.round(60_000 + np.cumsum(draw.integers(-2, 3, rows)) * 0.1, 1)
    arrays: dict[str, Any] = {
        "ts": 1_723_161_255_000_000_000 + np.cumsum(draw.integers(0, 3_000_000, rows)),
        "bid": bid,
        "ask": np.round(bid + 0.1 * draw.integers(0, 4, rows), 1),
        "bid_depth": draw.lognormal(3.0, 1.0, rows),
        "ask_depth": draw.lognormal(3.0, 1.0, rows),
        "kind": (draw.random(rows) < 0.25).astype(np.int64),
        "price": np.round(bid + 0.1 * draw.integers(-1, 3, rows), 1),
        "size": draw.exponential(1.0, rows),
        "aggressor": draw.integers(-1, 2, rows),
    }
    if seed % 2:
        odd = draw.random(rows) < 0.3
        arrays["bid"][odd] = 10.0 ** draw.uniform(-12, 12, int(odd.sum()))
        arrays["ask"][odd] = arrays["bid"][odd] * (1.0 + draw.exponential(0.1, int(odd.sum())))
        bad = (np.nan, -np.nan, np.inf, -np.inf, -1.0, 1e151, 1e308, 5e-324, 0.0)
        for name in ("bid", "ask", "bid_depth", "ask_depth", "price", "size"):
            at = draw.integers(0, rows, 3 * len(bad))
            arrays[name][at] = np.tile(bad, 3)
        arrays["kind"][draw.integers(0, rows, 4)] = 7
    return EventColumns(rows, **arrays)


def _ladder_columns(rows: int = 2_000) -> EventColumns:
    """Books of up to 12 levels, of which 10 are read; sides that are missing; now and then one that is crossed."""
    draw = np.random.Generator(np.random.PCG64(9))
    bids, asks = np.full((2, rows, 12, 2), np.nan)
    middle = 600_000 + np.cumsum(draw.integers(-2, 3, rows))
    for row in range(rows):
        for side, sign in ((bids, -1), (asks, 1)):
            count = int(draw.integers(0, 13))
            ticks = middle[row] + sign * np.cumsum(draw.integers(0 if row % 50 == 0 else 1, 4, count))
            side[row, :count] = np.column_stack([ticks / 10.0, np.round(draw.exponential(2.0, count), 3)])
    return EventColumns(rows, ts=1_000_000_000 + 1_000_000 * np.arange(rows), bids=bids, asks=asks)


def _random_fills(seed: int, count: int = 400) -> list[tuple[bool, float, float, float, float]]:
    draw = np.random.Generator(np.random.PCG64(seed))
    prices = np.round(60_000.0 + np.cumsum(draw.normal(0.0, 5.0, count)), 2)
    sizes = draw.integers(1, 5_000, count) / 1_000.0
    fees = draw.normal(0.0, 0.01, count)
    marks = prices + draw.normal(0.0, 3.0, count)
    is_buy = draw.random(count) < 0.5
    return list(zip(*(column.tolist() for column in (is_buy, prices, sizes, fees, marks)), strict=True))


def _hard_numbers() -> list[float]:
    """Random bit patterns, and doubles whose shortest or twelve-digit form is a near thing."""
    draw = np.random.Generator(np.random.PCG64(4))
    bits = draw.integers(0, 2**63, 3_000, dtype=np.uint64).view(np.float64)
    patterns = [value for value in bits.tolist() if 1e-150 < value < 1e150]
    decimals = [number / 1_000 for number in range(1, 2_000)]
    neighbors = [float(np.nextafter(value, 0.0)) for value in decimals]
    edges = [1e-5, 9.999999999999999e-6, 1e15, 1e16, 9007199254740993.0, 0.1 + 0.2, 2.0**-40, 123456789012.5]
    return [*patterns, *decimals, *neighbors, *edges]


CONFIGS = {
    "count": FeatureConfig(tick_size=0.1),
    "time": FeatureConfig(tick_size=0.1, window_5m_steps=None, window_5m_ms=1_500),
    "both": FeatureConfig(tick_size=0.1, window_5m_steps=200, window_5m_ms=2_000, vol_window=7),
    "short rows": FeatureConfig(tick_size=0.1, signals=False),
}


def _random_feature_cases() -> list[tuple[FeatureConfig, EventColumns]]:
    cases = [(config, _random_columns(seed)) for seed in range(4) for config in CONFIGS.values()]
    return cases + [(config, _ladder_columns()) for config in CONFIGS.values()]


# The tests. -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("venue", list(FEEDS))
def test_features_of_a_recorded_feed(native: Answers, arm: Answers, data_dir: Path, venue: str) -> None:
    columns = _feature_columns(_recorded(data_dir, venue))
    assert columns.rows > 5_000
    cases = [(msgspec.structs.replace(config, tick_size=FEEDS[venue]), columns) for config in CONFIGS.values()]
    given = b"".join(feature_case(*case) for case in cases)
    answer = native(given)
    assert arm(given) == answer
    assert answer == b"".join(features_here(*case) for case in cases)


def test_features_of_random_and_of_hostile_events(native: Answers, arm: Answers) -> None:
    cases = _random_feature_cases()
    given = b"".join(feature_case(*case) for case in cases)
    answer = native(given)
    assert arm(given) == answer
    assert answer == b"".join(features_here(*case) for case in cases)


@pytest.mark.slow
@pytest.mark.parametrize("venue", list(FEEDS))
def test_the_order_book_of_a_recorded_feed(native: Answers, arm: Answers, data_dir: Path, venue: str) -> None:
    messages = _book_messages(_recorded(data_dir, venue))
    assert sum(kind == 1 for kind, *_ in messages) > 50
    given = book_case(FEEDS[venue], messages)
    answer = native(given)
    assert arm(given) == answer
    assert answer == book_here(FEEDS[venue], messages)


def test_the_order_book_of_bad_messages(native: Answers, arm: Answers) -> None:
    snapshot: Message = (0, 5, 0, 0, [(99.9, 1.0), (99.8, 2.0)], [(100.1, 3.0)])
    bad = [float("nan"), float("inf"), -1.0, 0.0, 1e18, 1e300, 5e-324, 99.95, 100.2]
    messages: list[Message] = []
    for value in bad:
        messages += [snapshot, (1, 6, 6, 0, [(value, 1.0)], []), snapshot, (1, 6, 6, 0, [(99.7, value)], [])]
        messages += [snapshot, (2, 6, 0, 0, [(value, 1.0)], [(100.1, 1.0)]), (1, 9, 8, 0, [], [(100.3, 1.0)])]
    given = book_case(0.1, messages)
    answer = native(given)
    assert arm(given) == answer
    assert answer == book_here(0.1, messages)


@pytest.mark.parametrize("instrument", [LINEAR, INVERSE, FREE], ids=lambda i: str(i.symbol))
def test_the_ledger(native: Answers, arm: Answers, instrument: Instrument) -> None:
    fills = _random_fills(seed=len(instrument.currency))
    given = money_case(instrument, 1_000.0, fills)
    answer = native(given)
    assert arm(given) == answer
    assert answer == money_here(instrument, 1_000.0, fills)


def test_numbers_as_text_and_as_decimals(native: Answers, arm: Answers) -> None:
    values = _hard_numbers()
    given = number_case(values)
    answer = native(given)
    assert arm(given) == answer
    at = 0
    for value in values:
        (size,) = struct.unpack_from("<q", answer, at)
        text = answer[at + 8 : at + 8 + size]
        assert text == msgspec.json.encode(value)
        at += 8 + size
        back, _, gridded, free = struct.unpack_from("<4d", answer, at)
        assert (back, gridded, free) == (value, LINEAR.qty_from_usd(value, 3.7), FREE.qty_from_usd(value, 3.7))
        at += 32
    assert at == len(answer)


def test_decisions_and_money_of_rough_markets(native: Answers, arm: Answers, decided_here: DecidedHere) -> None:
    fills = 0
    for seed, instrument in enumerate([LINEAR, INVERSE, FREE, LINEAR, INVERSE, FREE]):
        source = ListedSource(rough_market(seed, instrument, 1_500), instrument)
        table = table_from_source(source, instrument=instrument)
        queue: Any = ("back", "front", "prob")[seed // 2]
        result = run_compiled(table, instrument=instrument, start_cash=1_000.0, queue=queue, decisions=True)
        decided_here.note(result)
        fills += len(result.fills)
    assert fills > 100
    given = b"".join(decided_here.cases)
    answer = native(given)
    assert arm(given) == answer
    assert answer == b"".join(decided_here.answers)


def test_decisions_and_money_over_a_table_of_quotes(native: Answers, arm: Answers, decided_here: DecidedHere) -> None:
    columns = market(20_000, moving=0.05).table
    del columns["now_ns"]
    instrument = msgspec.structs.replace(LINEAR, tick_size=0.1, lot_size=1e-6)
    policy = RiskPolicy(min_depth=0.0)
    result = run_compiled(columns, instrument=instrument, start_cash=1e6, policy=policy, decisions=True)
    decided_here.note(result)
    assert len(result.fills) > 100
    given = b"".join(decided_here.cases)
    answer = native(given)
    assert arm(given) == answer
    assert answer == b"".join(decided_here.answers)
