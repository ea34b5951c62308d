"""Runs with a journal: what a crash at any point leaves, and how the next start goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ami_engine.config import ExitConfig, QuotingConfig
from ami_engine.dmc.risk_policy import RiskPolicy
from ami_engine.errors import ConfigError, StateError, VenueUnavailable
from ami_engine.events import SubmitOrder
from ami_engine.execution.idempotency import OrderIdFormat
from ami_engine.execution.journal import Journal
from ami_engine.loop.assemble import assemble
from ami_engine.loop.feed import FeedEnd
from ami_engine.loop.latches import Release
from ami_engine.loop.run_loop import run_loop
from ami_engine.portfolio.ledger import Ledger
from ami_engine.sim.microstructure_sim import MicrostructureSim
from ami_engine.sim.paper_broker import PaperBroker
from ami_engine.sim.synthetic_source import SyntheticSource
from ami_engine.state_store import StateStore
from ami_engine.units import Instrument
from decision_schema.types import Action, Proposal
from tests.loop.conftest import MS, START_NS, ListSource, LiveBroker, RecordingBroker, book

POLICY = RiskPolicy(max_total_exposure_usd=1_000.0, max_abs_inventory=1_000.0, daily_loss_stop_usd=1_000.0)
OPTIONS: dict[str, Any] = {"trace": False, "run_id": "r1", "risk_policy": POLICY, "settle_ms": 200}


def market(n: int = 400, seed: int = 7) -> SyntheticSource:
    return SyntheticSource(MicrostructureSim(seed=seed), num_events=n)


class Venue(PaperBroker):
    """A paper venue that outlives the engine, counts what was sent, and can crash the engine at a call."""

    recv_window_ms = 300

    def __init__(self, instrument: Instrument | None = None) -> None:
        super().__init__(instrument)
        self.sent: list[SubmitOrder] = []
        self.calls = 0
        self.crash_at = 0
        self.crash_after = False

    def _crash(self, *, is_after: bool) -> None:
        if not is_after:
            self.calls += 1
        if self.calls == self.crash_at and is_after is self.crash_after:
            self.crash_at = 0
            raise Crash

    def submit_order(self, order: SubmitOrder) -> Any:
        self._crash(is_after=False)
        self.sent.append(order)
        ack = super().submit_order(order)
        self._crash(is_after=True)
        return ack

    def cancel_order(self, order_id: str) -> bool:
        self._crash(is_after=False)
        done = super().cancel_order(order_id)
        self._crash(is_after=True)
        return done

    def process_fills(self, now_ms: int) -> Any:
        fills = super().process_fills(now_ms)
        if fills:
            self._crash(is_after=False)
            self._crash(is_after=True)
        return fills


class Crash(BaseException):
    """The process is gone: nothing after this line runs."""


def crash_at(count: int, point: str) -> Any:
    seen = [0]

    def fault(name: str) -> None:
        if name == point:
            seen[0] += 1
            if seen[0] == count:
                raise Crash

    return fault


def drive(source: Any, venue: Any, path: Path, fault: Any = None, **options: Any) -> bool:
    """Run on the journal at `path` until the source ends (True) or the engine crashes (False)."""
    store = None
    try:
        store = StateStore(path, durability="off", fault=fault)
        run = assemble(source, venue, should_stop=lambda: False, journal=store, **(OPTIONS | options))
        for event, state in _until_end(run):
            if state is not None:
                run.step(event, state)
        run.finish("end")
    except Crash:
        return False
    finally:
        if store is not None:
            store.fault = None
            store.close()
    return True


def check(venue: Venue, path: Path) -> None:
    """Nothing doubled, nothing lost, nothing invented."""
    ids = [order.client_order_id for order in venue.sent]
    assert len(set(ids)) == len(ids)
    store = StateStore(path, durability="off")
    journal = Journal(store)
    kept = {(fill.trade_id, fill.qty) for fill in journal.state.fills}
    assert kept == {(fill.trade_id, fill.qty) for fill in venue.fetch_fills(0)}
    for market_id, qty in venue.get_state()["positions"].items():
        assert float(journal.position(market_id)) == qty
    assert venue.fetch_open_orders() == []
    assert all(not kept.order.is_open or kept.order.in_doubt for kept in journal.state.orders)
    for order_id in ids:
        found = journal.find(order_id)
        assert found is not None
        report = venue.fetch_order(order_id)
        if report is not None and not found.order.is_open:
            assert found.order.filled_qty == report.filled_qty
    store.close()


def test_a_journal_changes_nothing_of_a_run() -> None:
    plain = run_loop(source=market(), broker=PaperBroker(), **(OPTIONS | {"settle_ms": 5_000}))
    kept = run_loop(source=market(), broker=PaperBroker(), journal=StateStore(":memory:"), **OPTIONS)
    differing = {"latency_us", "events_per_s", "journal_path"}
    assert {name: value for name, value in kept.items() if name not in differing} == {
        name: value for name, value in plain.items() if name not in differing
    }
    assert plain["fills_count"] > 5


@pytest.mark.parametrize("point", ["store.commit.before", "store.commit.after"])
def test_a_crash_at_any_commit_doubles_loses_and_invents_nothing(tmp_path: Path, point: str) -> None:
    count, crashes = 1, 0
    while True:
        path, venue, source = tmp_path / f"{count}.sqlite", Venue(), market()
        if drive(source, venue, path, crash_at(count, point)):
            break
        crashes += 1
        assert drive(source, venue, path), count
        check(venue, path)
        count += 1 if count < 12 else 9
    assert crashes > 15
    check(venue, path)


@pytest.mark.parametrize("is_after", [False, True])
def test_a_crash_at_any_call_of_the_venue_doubles_loses_and_invents_nothing(tmp_path: Path, *, is_after: bool) -> None:
    crashes = 0
    for count in (*range(1, 16), *range(16, 150, 9)):
        path, venue, source = tmp_path / f"{count}.sqlite", Venue(), market()
        venue.crash_at, venue.crash_after = count, is_after
        if drive(source, venue, path):
            break
        crashes += 1
        assert drive(source, venue, path), count
        check(venue, path)
    assert crashes > 15


@pytest.mark.parametrize("count", [4, 11, 23])
def test_an_inverse_market_goes_on_after_a_crash_with_its_coins(tmp_path: Path, count: int) -> None:
    contract = Instrument(
        "SYNTH", tick_size=0.01, lot_size=1.0, kind="inverse", currency="BTC", maker_fee_bps=-1.0, taker_fee_bps=5.0
    )
    path, venue, source = tmp_path / "j.sqlite", Venue(contract), market(1_200)
    assert not drive(source, venue, path, crash_at(count, "store.commit.after"), instrument=contract)
    assert drive(source, venue, path, instrument=contract)
    check(venue, path)
    assert len(venue.fetch_fills(0)) > 10
    store = StateStore(path, durability="off")
    ledger = Ledger()
    ledger.restore(Journal(store).postings())
    store.close()
    assert ledger.trial_balance() == {"BTC": 0}
    # The venue rounds each fill to its coin's smallest unit.
    assert float(ledger.balance("cash:BTC", "BTC")) == pytest.approx(venue.fetch_balances()["BTC"], abs=1e-14)


def test_crash_after_crash_converges(tmp_path: Path) -> None:
    path, venue, source = tmp_path / "j.sqlite", Venue(), market(800)
    starts = 0
    while not drive(source, venue, path, crash_at(9, "store.commit.after")):
        starts += 1
    assert starts > 5
    check(venue, path)


def test_a_step_that_changes_nothing_durable_opens_no_transaction() -> None:
    store = StateStore(":memory:")
    quiet = [book(10 * number, bid_depth=1.0, ask_depth=1.0) for number in range(2_000)]
    summary = run_loop(source=ListSource(quiet), broker=RecordingBroker(), journal=store, **OPTIONS)
    # The start, and once what the guards know of the account: the day began.
    assert (summary["steps"], summary["orders_submitted"], store.transactions) == (2_000, 0, 2)


class BuysOnce:
    """Bids at the first book, and holds from then on."""

    def __init__(self) -> None:
        self.is_new = True

    def propose(self, features: Any) -> Proposal:
        is_new, self.is_new = self.is_new, False
        if not is_new:
            return Proposal(Action.HOLD, 1.0, ["held"])
        return Proposal(Action.ACT, 1.0, ["bid"], {"bid_quote": 0.49, "ask_quote": None, "size_usd": 49.0})


def test_a_crash_takes_no_more_than_5_s_of_what_only_the_guards_count(tmp_path: Path) -> None:
    # A bid is filled; then the price climbs, a cent every 10 ms, and nothing is sent: equity has a new peak every time.
    prices = [0.49, 0.47, *(0.49 + 0.01 * number for number in range(1_300))]
    events = [book(10 * number, price, price + 0.02) for number, price in enumerate(prices)]
    store = StateStore(tmp_path / "j.sqlite", durability="off")
    run = assemble(
        ListSource(events),
        Venue(),
        should_stop=lambda: False,
        journal=store,
        decision_engine=BuysOnce(),
        exits=ExitConfig(tp_ticks=1e9, sl_ticks=1e9, T_max_ms=10**9),
        **OPTIONS,
    )
    transactions = []
    for event, state in _until_end(run):
        run.step(event, state)
        transactions.append(store.transactions)
    held, peak = run.account.positions.position("X"), run.account.peak
    assert held == pytest.approx(10.204, rel=1e-4)
    assert peak == pytest.approx(13.0 * held, rel=1e-3)
    store.close()  # and nothing else: the process is gone
    again = StateStore(tmp_path / "j.sqlite", durability="off")
    kept = Journal(again).checkpoint_of("account")
    again.close()
    assert kept is not None
    assert peak - 5.01 * held <= msgspec.msgpack.decode(kept)["peak_equity"] < peak
    assert transactions[-1] - transactions[20] == 2


def test_a_step_that_sends_costs_one_sync() -> None:
    store = StateStore(":memory:", durability="full")
    run = assemble(
        ListSource([book(0)]),
        RecordingBroker(),
        should_stop=lambda: False,
        journal=store,
        **(OPTIONS | {"settle_ms": 0}),
    )
    synced = []
    store.fault = lambda point: synced.append(store._is_synced) if point == "store.commit.before" else None
    for event, state in _until_end(run):
        run.step(event, state)
    run.finish("end")
    # Both quotes' intents; then, unsynced, their answers; then the cancels of the end.
    assert synced == [True, False, False]


def _until_end(run: Any) -> Any:
    try:
        yield from run.feed.items()
    except FeedEnd:
        return


def test_ids_and_steps_go_on_after_a_restart(tmp_path: Path) -> None:
    venue, source = Venue(), market(300)
    path = tmp_path / "j.sqlite"
    store = StateStore(path, durability="off")
    first = run_loop(source=source, broker=venue, steps=150, journal=store, **OPTIONS)
    store.close()
    before = len(venue.sent)
    again = run_loop(source=source, broker=venue, journal=path, durability="off", **OPTIONS)
    assert first["run_id"] == again["run_id"] == "r1"
    assert 0 < before < len(venue.sent)
    assert len({order.client_order_id for order in venue.sent}) == len(venue.sent)
    check(venue, path)


@pytest.mark.parametrize("has_journal", [False, True])
def test_ids_have_the_format_of_the_venue(*, has_journal: bool) -> None:
    digits = OrderIdFormat(prefix="7", length=24, alphabet="0123456789")
    venue = Venue()
    run_loop(
        source=market(400),
        broker=venue,
        order_id_format=digits,
        journal=StateStore(":memory:") if has_journal else None,
        **OPTIONS,
    )
    assert len(venue.sent) > 3
    assert all(digits.is_ours(order.client_order_id) for order in venue.sent)
    assert len({order.client_order_id for order in venue.sent}) == len(venue.sent)


def test_profit_and_positions_go_on_after_a_restart(tmp_path: Path) -> None:
    whole = run_loop(source=market(), broker=(one := Venue()), **OPTIONS)
    venue, source, path = Venue(), market(), tmp_path / "j.sqlite"
    drive(source, venue, path, crash_at(40, "store.commit.after"))
    summary = run_loop(source=source, broker=venue, journal=path, durability="off", **OPTIONS)
    cash = venue.get_state()["cash"]
    held = venue.get_state()["positions"]
    assert summary["positions"] == held
    assert summary["realized_pnl"] - summary["fees"] + _cost(venue) == pytest.approx(cash, abs=1e-9)
    assert whole["realized_pnl"] + _cost(one) == pytest.approx(one.get_state()["cash"], abs=1e-9)


def _cost(venue: Venue) -> float:
    """What the open position cost: cash less that is the realized profit."""
    from ami_engine.portfolio.positions import Positions

    book_ = Positions()
    for fill in venue.fetch_fills(0):
        book_.apply(fill)
    return book_.cash - book_.realized


def test_the_kill_latch_survives_without_any_option_and_a_named_operator_releases_it(tmp_path: Path) -> None:
    class Stops:
        model_name = "stops"
        confidence_threshold = 0.5
        audit = None

        def propose(self, features: Any, **_: Any) -> Proposal:
            return Proposal(Action.STOP, 1.0, ["enough"])

    path = tmp_path / "j.sqlite"
    drive(ListSource([book(0)]), RecordingBroker(), path, decision_engine=Stops())
    again = RecordingBroker()
    assert drive(ListSource([book(n) for n in range(1_000, 1_010)]), again, path)
    assert again.submitted == []
    release = (Release("kill_switch", "ann", "the model is mended"),)
    assert drive(ListSource([book(n) for n in range(2_000, 2_010)]), again, path, release=release)
    assert again.submitted != []
    third = RecordingBroker()
    assert drive(ListSource([book(n) for n in range(3_000, 3_010)]), third, path)
    assert third.submitted != []


def test_a_quote_that_the_venue_ended_unheard_is_found_by_the_timer() -> None:
    class Silent(Venue):
        def end(self) -> None:
            for order_id in list(self._open):
                PaperBroker.cancel_order(self, order_id)

    venue = Silent()
    events = [book(100 * number) for number in range(400)]
    run = assemble(
        ListSource(events), venue, should_stop=lambda: False, journal=StateStore(":memory:"),
        **(OPTIONS | {"reconcile_every_ms": 1_000, "quoting": QuotingConfig(refresh_ms=500)}),
    )  # fmt: skip
    for number, (event, state) in enumerate(_until_end(run)):
        if number == 50:
            assert len(venue.fetch_open_orders()) == 2
            venue.end()
        run.step(event, state)
    assert len(venue.fetch_open_orders()) == 2


@pytest.mark.parametrize(("looks", "halted"), [(1, False), (2, True)])
def test_a_position_that_no_fill_explains_halts_only_when_it_stays(looks: int, *, halted: bool) -> None:
    class Wrong(Venue):
        looks = 0

        def get_state(self) -> Any:
            state = super().get_state()
            self.looks -= 1
            excess = 5.0 if self.looks >= 0 else 0.0
            return state | {"positions": {"X": state["positions"].get("X", 0.0) + excess}}

    venue = Wrong()
    events = [book(100 * number) for number in range(200)]
    run = assemble(
        ListSource(events),
        venue,
        should_stop=lambda: False,
        journal=StateStore(":memory:"),
        **(OPTIONS | {"reconcile_every_ms": 1_000}),
    )
    for number, (event, state) in enumerate(_until_end(run)):
        if number == 50:  # by now it was taken down what the market held at first
            venue.looks = looks
        run.step(event, state)
    summary = run.finish("end")
    assert venue.looks < 0
    assert (summary["trading_state"] == "HALTED") is halted, summary["last_error"]
    assert ("the position of 'X' is 0.0 by its fills, 5.0 at the venue" in summary["last_error"]) is halted


def test_what_was_held_before_is_no_difference() -> None:
    class Held(Venue):
        def get_state(self) -> Any:
            state = super().get_state()
            return state | {"positions": {"X": 3.0 + state["positions"].get("X", 0.0)}}

    summary = run_loop(
        source=ListSource([book(100 * number) for number in range(200)]), broker=Held(),
        journal=StateStore(":memory:"), **(OPTIONS | {"reconcile_every_ms": 1_000}),
    )  # fmt: skip
    assert (summary["trading_state"], summary["error_count"]) == ("ACTIVE", 0)


def test_a_broker_that_comes_back_is_a_reconnect_and_a_429_a_rate_limit(tmp_path: Path) -> None:
    class Flaky(Venue):
        def process_fills(self, now_ms: int) -> Any:
            if now_ms - START_NS // MS in (500, 600):
                raise VenueUnavailable("too many requests", is_rate_limit=True)
            return super().process_fills(now_ms)

    policy = RiskPolicy(max_429_per_window=1, max_ws_reconnects_per_window=1, staleness_ms=100_000)
    summary = run_loop(
        source=ListSource([book(100 * number) for number in range(30)]), broker=Flaky(),
        journal=tmp_path / "j.sqlite", **(OPTIONS | {"risk_policy": policy, "run_dir": tmp_path / "run"}),
    )  # fmt: skip
    text = (tmp_path / "run" / "security_audit.jsonl").read_text()
    assert '"broker_reconnected"' in text
    assert '"reason":"reconnect"' in text.replace(": ", ":")
    assert any("429" in code or "rate" in code for code in summary["mismatch_reason_counts"]), summary


def test_a_source_that_comes_back_is_a_reconnect(tmp_path: Path) -> None:
    events = [book(0), OSError("gone"), book(10), book(20)]
    run_loop(
        source=ListSource(events), broker=Venue(), journal=StateStore(":memory:"),
        **(OPTIONS | {"run_dir": tmp_path / "run", "source_backoff_ms": 0}),
    )  # fmt: skip
    assert '"source_reconnected"' in (tmp_path / "run" / "security_audit.jsonl").read_text()


def test_a_disk_that_fails_stops_the_run_and_cancels_what_rests(tmp_path: Path) -> None:
    venue = Venue()
    store = StateStore(tmp_path / "j.sqlite", durability="off")

    def fill_the_disk(point: str) -> None:
        if store.transactions == 6:
            store.fault = None
            raise StateError("the disk is full")

    store.fault = fill_the_disk
    summary = run_loop(source=market(), broker=venue, journal=store, **OPTIONS)
    store.close()
    assert venue.sent
    assert venue.fetch_open_orders() == []
    assert "the disk is full" in summary["stopped_reason"] + summary["last_error"]
    assert summary["steps"] < 400 or summary["trading_state"] == "HALTED"


# Options. ---------------------------------------------------------------------------------------------------------


class Live(ListSource):
    is_live = True


def test_a_live_run_keeps_a_journal_in_its_folder(tmp_path: Path) -> None:
    summary = run_loop(
        source=Live([book(0)]), broker=LiveBroker(), run_dir=tmp_path / "run", controls=False, risk_policy=POLICY
    )
    assert summary["journal_path"] == str(tmp_path / "run" / "journal.sqlite")
    again = run_loop(
        source=Live([book(0)]), broker=LiveBroker(), run_dir=tmp_path / "run", resume=True, controls=False,
        risk_policy=POLICY,
    )  # fmt: skip
    assert again["run_id"] == summary["run_id"]
    with pytest.raises(ConfigError, match="`overwrite` does not replace a journal"):
        run_loop(source=Live([book(0)]), broker=LiveBroker(), run_dir=tmp_path / "run", overwrite=True)


def test_a_recorded_run_keeps_none_unless_asked(tmp_path: Path) -> None:
    summary = run_loop(source=ListSource([book(0)]), broker=RecordingBroker(), run_dir=tmp_path / "run")
    assert "journal_path" not in summary
    assert not list((tmp_path / "run").glob("*.sqlite*"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"dry_run": True}, "`dry_run` sends none"),
        ({"executor": type("E", (), {"run": lambda *_, **__: {}})()}, "an `executor` sends its own"),
        ({"durability": "normal"}, "`journal` is a StateStore of your own"),
        ({"run_id": "other"}, "is the journal of run 'r1', not of 'other'"),
        ({"settle_ms": -1}, "`settle_ms` must be finite and >= 0"),
        ({"journal": 7}, "`journal` must be"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], text: str) -> None:
    store = StateStore(":memory:")
    Journal(store, run_id="r1")
    given = {"trace": False, "journal": store} | options
    with pytest.raises(ConfigError, match=text):
        run_loop(source=ListSource([book(0)]), broker=RecordingBroker(), **given)
    store.close()


def test_a_start_that_fails_gives_the_journal_back(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    release = (Release("kill_switch", "ann", "nothing is latched"),)
    with pytest.raises(ConfigError, match="must name what is latched"):
        run_loop(source=ListSource([]), broker=RecordingBroker(), trace=False, journal=path, release=release)
    StateStore(path).close()


# A real process. --------------------------------------------------------------------------------------------------

_TRADER = """
import sys, pathlib, pickle
sys.path.insert(0, {root!r})
from tests.loop.test_journaled_runs import OPTIONS, market
from tests.loop.file_venue import FileVenue
from ami_engine.loop.run_loop import run_loop
venue = FileVenue({venue!r})
print("ready", flush=True)
summary = run_loop(source=market(3000, seed=int(sys.argv[1])), broker=venue, journal={journal!r}, **OPTIONS)
print(summary["stopped_reason"], flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")
def test_kill_9_at_any_moment_doubles_loses_and_invents_nothing(tmp_path: Path) -> None:
    from tests.loop.file_venue import FileVenue

    root = str(Path(__file__).parents[2])
    journal, truth = str(tmp_path / "j.sqlite"), str(tmp_path / "venue.sqlite")
    code = _TRADER.format(root=root, venue=truth, journal=journal)
    for number in range(10):
        process = subprocess.Popen([sys.executable, "-c", code, str(number)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.02 + 0.04 * number)
        process.kill()
        process.communicate()
    done = subprocess.run([sys.executable, "-c", code, "99"], capture_output=True, text=True, check=False)
    assert "source_exhausted" in done.stdout, done.stderr
    venue = FileVenue(truth)
    store = StateStore(journal)
    kept = Journal(store)
    assert kept.incarnation > 3
    assert {fill.trade_id for fill in kept.state.fills} == {fill.trade_id for fill in venue.fetch_fills(0)}
    assert float(kept.position("SYNTH")) == pytest.approx(venue.get_state()["positions"].get("SYNTH", 0.0), abs=1e-12)
    assert venue.fetch_open_orders() == []
    assert venue.doubled() == []
    store.close()
