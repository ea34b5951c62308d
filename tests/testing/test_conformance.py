"""The conformance kit keeps what it promises: sound adapters pass, and each broken one is caught by its clause."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from msgspec.structs import replace

import ami_engine
from ami_engine.adapters.base import Broker, DataSource
from ami_engine.errors import ConfigError, VenueRejected
from ami_engine.events import BookDelta, BookSnapshot, OrderAck, OrderReport, OrderStatus, Side, TimeInForce, Trade
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.sim.synthetic_source import SyntheticSource
from ami_engine.testing import BROKER_CLAUSES, BROKER_FAULT_CLAUSES, SOURCE_CLAUSES, check_broker, check_source
from ami_engine.units import Instrument
from tests.testing.line import LineBroker, factory_of, make_line


def results(outcomes: list[Any]) -> dict[str, str]:
    return {outcome.name: outcome.result for outcome in outcomes}


class TestSoundBrokers:
    def test_an_adapter_that_keeps_the_contract_is_found_to(self) -> None:
        outcomes = check_broker(make_line)
        assert {o.name: o.why for o in outcomes if o.result != "kept"} == {}

    @pytest.mark.parametrize("queue", ["back", "front", "prob"])
    @pytest.mark.parametrize("seed", range(3))
    def test_the_paper_broker_keeps_it(self, queue: Any, seed: int) -> None:
        def make(clock: Any = None, instrument: Any = None, seed: int = 0) -> PaperBroker:
            return PaperBroker(instrument=instrument, cash=1e6, queue=queue, seed=seed)

        outcomes = check_broker(make, seed=seed)
        assert {o.name: o.why for o in outcomes if o.result == "broken"} == {}
        assert sum(o.result == "kept" for o in outcomes) >= 30

    def test_what_an_adapter_has_not_is_not_tried_and_said(self) -> None:
        class Least(LineBroker):
            """Writes `submit_order` and no more."""

        for name in ("cancel_order", "cancel_all", "fetch_order", "fetch_open_orders", "fetch_fills", "fetch_balances"):
            setattr(Least, name, getattr(LineBroker.__mro__[1], name))
        outcomes = {o.name: o for o in check_broker(factory_of(Least))}
        assert outcomes["cancel"].result == "not tried"
        assert outcomes["cancel"].why == "`cancel_order` is not written; it is required before live"


# Broken brokers: one wrong method each, and the clause that has to see it. --------------------------------------------


class Broken:
    """Each function makes a class that breaks one clause, the clause's name is the function's."""

    def accepts(self) -> type[LineBroker]:
        class Loses(LineBroker):
            def submit_order(self, order: Any) -> Any:
                return OrderAck(client_order_id=order.client_order_id)

        return Loses

    def repeats_nothing(self) -> type[LineBroker]:
        class Repeats(LineBroker):
            sent = 0

            def submit_order(self, order: Any) -> Any:
                self.sent += 1
                super().submit_order(replace(order, client_order_id=f"{order.client_order_id[:-3]}{self.sent:03d}"))

        return Repeats

    def repeats_nothing_ended(self) -> type[LineBroker]:
        class Forgets(LineBroker):
            def cancel_order(self, order_id: str) -> bool:
                done = super().cancel_order(order_id)
                self.venue._ended = type(self.venue._ended)(10)
                return done

        return Forgets

    def repeats_nothing_restarted(self) -> type[LineBroker]:
        class RemembersInProcess(LineBroker):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args)
                self.known: dict[str, Any] = {}

            def submit_order(self, order: Any) -> Any:
                if order.client_order_id not in self.known:
                    sent = replace(order, client_order_id=f"{order.client_order_id[:-2]}{id(self) % 97:02d}")
                    self.known[order.client_order_id] = super().submit_order(sent).venue_order_id
                return self.known[order.client_order_id]

        return RemembersInProcess

    def rejects_no_number(self) -> type[LineBroker]:
        class Raises(LineBroker):
            def submit_order(self, order: Any) -> Any:
                if not (math.isfinite(order.price) and order.qty > 0.0):
                    raise ValueError("bad number")
                return super().submit_order(order)

        return Raises

    def rejects_off_grid(self) -> type[LineBroker]:
        class Rounds(LineBroker):
            def submit_order(self, order: Any) -> Any:
                if math.isfinite(order.price) and math.isfinite(order.qty):
                    order = replace(order, price=round(order.price, 2), qty=round(order.qty, 3))
                return super().submit_order(order)

        return Rounds

    def rejects_too_small(self) -> type[LineBroker]:
        class Takes(LineBroker):
            def submit_order(self, order: Any) -> Any:
                if order.qty == 0.001:
                    return None
                return super().submit_order(order)

        return Takes

    def rejected_stays_rejected(self) -> type[LineBroker]:
        class Reports(LineBroker):
            refused: ClassVar[dict[str, Any]] = {}

            def fetch_order(self, client_order_id: str) -> Any:
                order = self.refused.get(client_order_id)
                if order is None:
                    return super().fetch_order(client_order_id)
                names = ("client_order_id", "market_id", "side", "price", "qty")
                return OrderReport(**{name: getattr(order, name) for name in names})

            def submit_order(self, order: Any) -> Any:
                try:
                    return super().submit_order(order)
                except VenueRejected:
                    self.refused[order.client_order_id] = order
                    raise

        return Reports

    def post_only(self) -> type[LineBroker]:
        class IgnoresPostOnly(LineBroker):
            def submit_order(self, order: Any) -> Any:
                return super().submit_order(replace(order, post_only=False))

        return IgnoresPostOnly

    def ioc(self) -> type[LineBroker]:
        class IgnoresTif(LineBroker):
            def submit_order(self, order: Any) -> Any:
                return super().submit_order(replace(order, tif=TimeInForce.GTC))

        return IgnoresTif

    def reduce_only_opens_nothing(self) -> type[LineBroker]:
        class IgnoresReduceOnly(LineBroker):
            def submit_order(self, order: Any) -> Any:
                return super().submit_order(replace(order, reduce_only=False))

        return IgnoresReduceOnly

    def reduce_only_flips_nothing(self) -> type[LineBroker]:
        class ChecksTheSideOnly(LineBroker):
            def submit_order(self, order: Any) -> Any:
                held = self.venue.get_state()["positions"].get(order.market_id, 0.0)
                if order.reduce_only and (held > 0.0) == (order.side is Side.SELL) and held:
                    order = replace(order, reduce_only=False)
                return super().submit_order(order)

        return ChecksTheSideOnly

    def cancel(self) -> type[LineBroker]:
        class Lies(LineBroker):
            def cancel_order(self, order_id: str) -> bool:
                return super().cancel_order(order_id) or order_id.startswith("amikit")

        return Lies

    def cancel_unknown(self) -> type[LineBroker]:
        class Raises(LineBroker):
            def cancel_order(self, order_id: str) -> bool:
                if self.venue.fetch_order(order_id) is None:
                    raise KeyError(order_id)
                return super().cancel_order(order_id)

        return Raises

    def cancel_is_final(self) -> type[LineBroker]:
        class SaysSo(LineBroker):
            canceled: frozenset[str] = frozenset()

            def cancel_order(self, order_id: str) -> bool:
                is_open = any(r.client_order_id == order_id for r in self.venue.fetch_open_orders())
                is_new = is_open and order_id not in self.canceled
                self.canceled |= {order_id}
                return is_new

            def fetch_open_orders(self, market_id: str | None = None) -> Any:
                listed = super().fetch_open_orders(market_id)
                return [report for report in listed if report.client_order_id not in self.canceled]

        return SaysSo

    def cancel_filled(self) -> type[LineBroker]:
        class SaysTrue(LineBroker):
            def cancel_order(self, order_id: str) -> bool:
                report = self.venue.fetch_order(order_id)
                if report is not None and report.status is OrderStatus.FILLED:
                    return True
                return super().cancel_order(order_id)

        return SaysTrue

    def cancel_all(self) -> type[LineBroker]:
        class LeavesOne(LineBroker):
            def cancel_all(self, market_id: str | None = None) -> int:
                listed = self.venue.fetch_open_orders(market_id)
                for report in listed[1:]:
                    self.venue.cancel_order(report.client_order_id)
                return len(listed)

        return LeavesOne

    def cancel_all_market(self) -> type[LineBroker]:
        class IgnoresTheMarket(LineBroker):
            def cancel_all(self, market_id: str | None = None) -> int:
                return super().cancel_all(None)

        return IgnoresTheMarket

    def fetch_order(self) -> type[LineBroker]:
        class SwapsSides(LineBroker):
            def fetch_order(self, client_order_id: str) -> Any:
                report = super().fetch_order(client_order_id)
                return None if report is None else replace(report, side=Side.BUY)

        return SwapsSides

    def fetch_unknown(self) -> type[LineBroker]:
        class Raises(LineBroker):
            def fetch_order(self, client_order_id: str) -> Any:
                report = super().fetch_order(client_order_id)
                if report is None:
                    raise LookupError(client_order_id)
                return report

        return Raises

    def fetch_canceled(self) -> type[LineBroker]:
        class SaysExpired(LineBroker):
            def fetch_order(self, client_order_id: str) -> Any:
                report = super().fetch_order(client_order_id)
                is_canceled = report is not None and report.status is OrderStatus.CANCELED
                return replace(report, status=OrderStatus.EXPIRED) if is_canceled else report

        return SaysExpired

    def fetch_filled(self) -> type[LineBroker]:
        class CountsNothing(LineBroker):
            def fetch_order(self, client_order_id: str) -> Any:
                report = super().fetch_order(client_order_id)
                return None if report is None else replace(report, filled_qty=0.0)

        return CountsNothing

    def fetch_open(self) -> type[LineBroker]:
        class ListsAll(LineBroker):
            def fetch_open_orders(self, market_id: str | None = None) -> Any:
                return super().fetch_open_orders(None)

        return ListsAll

    def fills_once(self) -> type[LineBroker]:
        class TellsAgain(LineBroker):
            def process_fills(self, now_ms: int) -> Any:
                self.venue.process_fills(now_ms)
                return list(self.venue.fetch_fills(0))

        return TellsAgain

    def limit(self) -> type[LineBroker]:
        class Slips(LineBroker):
            def process_fills(self, now_ms: int) -> Any:
                fills = super().process_fills(now_ms)
                return [replace(f, price=f.price + (0.01 if f.side is Side.BUY else -0.01)) for f in fills]

        return Slips

    def fills_in_order(self) -> type[LineBroker]:
        class Reverses(LineBroker):
            def process_fills(self, now_ms: int) -> Any:
                return super().process_fills(now_ms)[::-1]

        return Reverses

    def fees(self) -> type[LineBroker]:
        class SignsWrong(LineBroker):
            def process_fills(self, now_ms: int) -> Any:
                return [replace(fill, fee=-fill.fee) for fill in super().process_fills(now_ms)]

        return SignsWrong

    def fetch_fills(self) -> type[LineBroker]:
        class NamesAnew(LineBroker):
            def fetch_fills(self, since_ns: int) -> Any:
                return [replace(fill, trade_id=f"again-{fill.trade_id}") for fill in super().fetch_fills(since_ns)]

        return NamesAnew

    def position(self) -> type[LineBroker]:
        class StatesGross(LineBroker):
            bought = 0.0

            def process_fills(self, now_ms: int) -> Any:
                fills = super().process_fills(now_ms)
                self.bought += sum(fill.qty for fill in fills)
                return fills

            def get_state(self) -> dict[str, Any]:
                return super().get_state() | {"positions": {"KITUSD": self.bought}}

        return StatesGross

    def cash(self) -> type[LineBroker]:
        class ForgetsFees(LineBroker):
            paid = 0.0

            def process_fills(self, now_ms: int) -> Any:
                fills = super().process_fills(now_ms)
                self.paid += sum(fill.fee for fill in fills)
                return fills

            def get_state(self) -> dict[str, Any]:
                state = super().get_state()
                return state | {"cash": state["cash"] + self.paid}

        return ForgetsFees

    def state(self) -> type[LineBroker]:
        class StatesNan(LineBroker):
            def get_state(self) -> dict[str, Any]:
                return {"positions": {"KITUSD": math.nan}, "cash": 1.0}

        return StatesNan

    def two_lists(self) -> type[LineBroker]:
        class Lags(LineBroker):
            def get_state(self) -> dict[str, Any]:
                state = super().get_state()
                return state | {"open_orders": state["open_orders"][:1]}

        return Lags

    def balances(self) -> type[LineBroker]:
        class ReturnsText(LineBroker):
            def fetch_balances(self) -> Any:
                return {"USD": "1000000.0"}

        return ReturnsText

    def receive_window(self) -> type[LineBroker]:
        class SaysSeconds(LineBroker):
            recv_window_ms = 0.5  # type: ignore[assignment]

        return SaysSeconds

    def secrets(self) -> type[LineBroker]:
        class Shows(LineBroker):
            def __repr__(self) -> str:
                return f"Shows(api_key={self.api_key!r})"

        return Shows

    def sides(self) -> type[LineBroker]:
        class TellsTheAggressors(LineBroker):
            def process_fills(self, now_ms: int) -> Any:
                fills = super().process_fills(now_ms)
                return [replace(f, side=Side.SELL if f.side is Side.BUY else Side.BUY) for f in fills]

        return TellsTheAggressors

    def lost_answer(self) -> type[LineBroker]:
        class CallsItRejected(LineBroker):
            def submit_order(self, order: Any) -> Any:
                try:
                    return super().submit_order(order)
                except TimeoutError:
                    raise
                except Exception as error:
                    if "no answer" in str(error):
                        raise VenueRejected(str(error)) from error
                    raise

        return CallsItRejected

    def lost_request(self) -> type[LineBroker]:
        class CallsItAccepted(LineBroker):
            def submit_order(self, order: Any) -> Any:
                return None if "timeout_before_accept" in self.pending else super().submit_order(order)

        return CallsItAccepted

    def garbage(self) -> type[LineBroker]:
        class CallsItRejected(LineBroker):
            def submit_order(self, order: Any) -> Any:
                try:
                    return super().submit_order(order)
                except ValueError as error:
                    raise VenueRejected("unreadable") from error

        return CallsItRejected

    def rate_limit(self) -> type[LineBroker]:
        class CallsItRejected(LineBroker):
            def submit_order(self, order: Any) -> Any:
                if self._takes("rate_limit"):
                    raise VenueRejected("too many requests")
                return super().submit_order(order)

        return CallsItRejected

    def disconnect(self) -> type[LineBroker]:
        class NeverRecovers(LineBroker):
            is_gone = False

            def submit_order(self, order: Any) -> Any:
                self.is_gone = self.is_gone or "disconnect" in self.pending
                if self.is_gone:
                    self.pending.append("disconnect")
                return super().submit_order(order)

        return NeverRecovers

    def lost_cancel(self) -> type[LineBroker]:
        class Guesses(LineBroker):
            def cancel_order(self, order_id: str) -> bool:
                return False if self._takes("cancel_timeout") else super().cancel_order(order_id)

        return Guesses

    def lost_report(self) -> type[LineBroker]:
        class SaysNone(LineBroker):
            def fetch_order(self, client_order_id: str) -> Any:
                return None if self._takes("query_timeout") else super().fetch_order(client_order_id)

        return SaysNone

    def repeated_fill(self) -> type[LineBroker]:
        class NumbersReports(LineBroker):
            told = 0

            def process_fills(self, now_ms: int) -> Any:
                fills = super().process_fills(now_ms)
                self.told += len(fills)
                return [replace(fill, trade_id=f"{self.told}-{n}") for n, fill in enumerate(fills)]

        return NumbersReports

    def before_live(self) -> type[LineBroker]:
        class Half(LineBroker):
            fetch_fills = Broker.fetch_fills
            fetch_balances = Broker.fetch_balances

        return Half

    def engine(self) -> type[LineBroker]:
        class LosesFills(LineBroker):
            polls = 0

            def process_fills(self, now_ms: int) -> Any:
                self.polls += 1
                fills = super().process_fills(now_ms)
                return fills if self.polls < 20 else []

        return LosesFills


CLAUSE_NAMES = [clause.name for clause in (*BROKER_CLAUSES, *BROKER_FAULT_CLAUSES)]


class TestBrokenBrokers:
    @pytest.mark.parametrize("name", CLAUSE_NAMES)
    def test_each_clause_catches_a_broker_that_breaks_it(self, name: str) -> None:
        kind = getattr(Broken(), name.replace("-", "_"))()
        outcomes = {o.name: o for o in check_broker(factory_of(kind))}
        assert outcomes[name].result == "broken", outcomes[name]
        assert outcomes[name].why


class TestBeforeLive:
    def test_a_broker_that_lacks_what_live_needs_is_broken_unless_it_is_for_paper_only(self) -> None:
        make = factory_of(Broken().before_live())

        def make_paper(clock: Any = None, instrument: Any = None, seed: int = 0) -> Any:
            bed = make(clock, instrument, seed)
            bed.paper_only = True
            return bed

        def outcome(factory: Any) -> Any:
            return next(each for each in check_broker(factory) if each.name == "before-live")

        broken = outcome(make)
        assert broken.result == "broken"
        assert broken.why.startswith("fetch_fills, fetch_balances must be written")
        paper = outcome(make_paper)
        assert (paper.result, "paper_only" in paper.why) == ("not tried", True)


class TestFactories:
    def test_a_factory_whose_parameters_have_no_defaults_is_refused(self) -> None:
        def make(clock: Any, instrument: Any = None, seed: int = 0) -> PaperBroker:
            return PaperBroker()

        with pytest.raises(ConfigError, match="parameter `clock` of the broker factory must have a default"):
            check_broker(make)

    def test_a_factory_that_returns_something_else_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="must return a Broker or a BrokerTestbed, was NoneType"):
            check_broker(lambda **given: None)


class FaultySource(DataSource):
    """Events that a test gives."""

    def __init__(self, *events: Any, identity: str = "x", **declared: Any) -> None:
        self.events = list(events)
        self.identity = identity
        for name, value in declared.items():
            setattr(self, name, value)

    def next_event(self) -> Any:
        return self.events.pop(0) if self.events else None


def book(ts_ns: int, seq: int = 0) -> BookSnapshot:
    return BookSnapshot(0, ts_ns, "X", seq, 99.0, 101.0, 1.0, 1.0)


class Again(FaultySource):
    """Begins anew after its end."""

    def next_event(self) -> Any:
        self.turn = getattr(self, "turn", 0) + 1
        return None if self.turn == 3 else book(self.turn)


def growing() -> Callable[[], DataSource]:
    made: list[int] = []

    def make() -> DataSource:
        made.append(1)
        return FaultySource(*(book(n + 1) for n in range(len(made))))

    return make


def renamed() -> Callable[[], DataSource]:
    made: list[int] = []

    def make() -> DataSource:
        made.append(1)
        return FaultySource(book(1), identity=f"file-{len(made)}")

    return make


class WrongPlace(FaultySource):
    def place(self) -> Any:
        return "here"


class WrongInstruments(FaultySource):
    def instruments(self) -> Any:
        return [Instrument("X")]


class ClosesOnce(FaultySource):
    closed = 0

    def close(self) -> None:
        self.closed += 1
        if self.closed == 2:
            raise RuntimeError("closed before")


BROKEN_SOURCES: dict[str, Callable[[], DataSource]] = {
    "events": lambda: FaultySource("not an event"),
    "exhausted": lambda: Again(),
    "time": lambda: FaultySource(book(2), book(1)),
    "sequence": lambda: FaultySource(book(1, 5), book(2, 5), unique_seq=frozenset({"book"})),
    "snapshots": lambda: FaultySource(book(1), BookDelta(0, 2, "X", 1), snapshots_only=True),
    "same-again": growing(),
    "identity": renamed(),
    "place": lambda: WrongPlace(book(1)),
    "instruments": lambda: WrongInstruments(book(1)),
    "close": lambda: ClosesOnce(book(1)),
    "engine": lambda: FaultySource(*(Trade(0, n + 1, "X", 0, -1.0, 1.0, 1) for n in range(20))),
}


class TestSources:
    def test_the_synthetic_source_keeps_the_contract(self) -> None:
        outcomes = check_source(lambda: SyntheticSource(num_events=500))
        assert set(results(outcomes).values()) == {"kept"}

    @pytest.mark.parametrize("name", [clause.name for clause in SOURCE_CLAUSES])
    def test_each_clause_catches_a_source_that_breaks_it(self, name: str) -> None:
        outcomes = {o.name: o for o in check_source(BROKEN_SOURCES[name])}
        assert outcomes[name].result == "broken", outcomes[name]


def run_kit(*arguments: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parents[2]
    from importlib.metadata import entry_points

    is_installed = any(e.value == "ami_engine.testing.plugin" for e in entry_points(group="pytest11"))
    plugin = [] if is_installed else ["-p", "ami_engine.testing.plugin"]
    package = str(Path(ami_engine.__file__).resolve().parents[1])  # PYTHONPATH may be relative to another folder
    path = os.pathsep.join(filter(None, [str(root), package, os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            *plugin,
            "-q",
            "-p",
            "no:cacheprovider",
            "--pyargs",
            "ami_engine.testing",
            *arguments,
        ],
        capture_output=True,
        text=True,
        cwd=root / "docs",
        env=os.environ | {"PYTHONPATH": path},
        timeout=300,
        check=False,
    )


class TestCommandLine:
    def test_a_sound_broker_passes_and_the_report_says_so(self) -> None:
        done = run_kit("--ami-broker", "tests.testing.line:make_line")
        assert done.returncode == 0, done.stdout
        assert "broker contract" in done.stdout
        assert "0 broken, 0 not tried" in done.stdout

    def test_a_broken_broker_fails_and_the_report_names_clause_and_cause(self) -> None:
        done = run_kit("--ami-broker", "tests.testing.line:make_doubling")
        assert done.returncode == 1
        assert "BROKEN  repeats-nothing: The second submit of an id returns the first's ack" in done.stdout

    def test_the_report_is_whole_when_the_clauses_are_tried_in_several_processes(self) -> None:
        pytest.importorskip("xdist")
        done = run_kit("--ami-broker", "tests.testing.line:make_doubling", "-n", "2")
        assert done.returncode == 1
        kept = len(BROKER_CLAUSES) + len(BROKER_FAULT_CLAUSES) - done.stdout.count("\nBROKEN  ")
        assert f"{kept} kept" in done.stdout
        assert "BROKEN  repeats-nothing: The second submit of an id returns the first's ack" in done.stdout

    def test_a_name_that_cannot_be_loaded_is_told(self) -> None:
        done = run_kit("--ami-broker", "tests.testing.line:nothing_here")
        assert done.returncode == 4  # pytest's own code of a usage error: nothing was tried
        assert "`--ami-broker` 'tests.testing.line:nothing_here' cannot be loaded" in done.stderr
        assert done.stdout == ""

    def test_without_an_adapter_everything_is_skipped_with_the_reason(self) -> None:
        done = run_kit("-rs")
        assert done.returncode == 0
        assert "no broker was named: --ami-broker MODULE:FACTORY" in done.stdout
