"""An operator's commands on a running loop: obeyed between steps, also in silence; kept over restarts; never half."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from ami_engine.adapters import DataSource
from ami_engine.config import ExitConfig
from ami_engine.dmc import RiskPolicy, modulate
from ami_engine.dmc.trading_state import TradingGate, TradingState
from ami_engine.errors import ConfigError, StateError, TraceError
from ami_engine.events import BookSnapshot, Side, SubmitOrder
from ami_engine.loop.latches import Release
from ami_engine.loop.run_loop import run_loop
from ami_engine.ops.controls import Controls, Ticket
from ami_engine.state_store import StateStore
from ami_engine.trace.reader import read_packets
from decision_schema.types import Action, Proposal

from .conftest import ListSource, LiveBroker, RecordingBroker, book

OPEN_POLICY = RiskPolicy(
    max_total_exposure_usd=100.0,
    max_per_market_usd=50.0,
    max_abs_inventory=1_000.0,
    cancel_rate_limit=10_000,
    sigma_5m_max=0.0,
    sigma_spike_z_max=1e9,
    adv15_max_ticks=1e9,
    adv60_max_ticks=1e9,
)

NO_EXITS = ExitConfig(tp_ticks=1e6, sl_ticks=1e6, T_max_ms=10**9)


class Moving(ListSource):
    """Books whose price moves at each event; `at[i]` is called just before event i is handed out."""

    def __init__(self, count: int, at: dict[int, Callable[[], Any]] | None = None) -> None:
        super().__init__([book(1_000 * i, 0.49 + 0.02 * (i % 2), 0.51 + 0.02 * (i % 2)) for i in range(count)])
        self.at = at or {}
        self.answers: dict[int, Any] = {}
        self.count = -1

    def next_event(self) -> Any:
        self.count += 1
        if self.count in self.at:
            self.answers[self.count] = self.at[self.count]()
        return super().next_event()


class Filling(RecordingBroker):
    """Fills the first `fills` orders at once."""

    def __init__(self, fills: int = 1) -> None:
        super().__init__()
        self.left = fills

    def process_fills(self, now_ms: int) -> list[dict[str, Any]]:
        done = []
        for order in self.submitted[: self.left]:
            done.append(
                {
                    "trade_id": order.client_order_id,
                    "client_order_id": order.client_order_id,
                    "market_id": order.market_id,
                    "side": order.side.value,
                    "price": order.price,
                    "qty": order.qty,
                }
            )
        self.left -= len(done)
        return done


def audit_of(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "security_audit.jsonl").read_bytes().splitlines()
    return [line for line in map(msgspec.json.decode, lines) if line["kind"] == kind]


def answer_of(ticket: Any) -> Any:
    assert isinstance(ticket, Ticket)
    return ticket.wait(0.0)


def go(**options: Any) -> dict[str, Any]:
    return run_loop(**{"timer_ms": 0, "risk_policy": OPEN_POLICY, "exits": NO_EXITS, **options})


# States. ------------------------------------------------------------------------------------------------------------


def test_a_pause_takes_everything_off_and_nothing_leaves_until_resume(tmp_path: Path) -> None:
    controls, broker = Controls(), RecordingBroker()
    sent: list[int] = []
    source = Moving(
        12,
        {
            4: lambda: (controls.pause("ann", "maintenance"), sent.append(len(broker.submitted))),
            8: lambda: (controls.resume("ann", "it is back"), sent.append(len(broker.submitted))),
        },
    )
    summary = go(source=source, broker=broker, run_dir=tmp_path, controls=controls)
    assert summary["action_counts"] == {"ACT": 8, "STOP": 4}
    assert sent[0] == sent[1] > 0
    assert len(broker.submitted) > sent[1]
    assert summary["trading_state"] == "ACTIVE"
    assert summary["controls_obeyed"] == 2
    assert summary["notes"] == []
    told = [(line["action"], line["operator"], line["reason"]) for line in audit_of(tmp_path, "operator")]
    assert told == [("pause", "ann", "maintenance"), ("resume", "ann", "it is back")]
    states = [packet.external.get("ops.trading_state") for packet in read_packets(tmp_path)]
    assert states == [None] * 4 + ["HALTED"] * 4 + [None] * 4


def test_a_kill_latches_and_survives_a_restart_until_it_is_released(tmp_path: Path) -> None:
    controls, broker = Controls(), RecordingBroker()
    source = Moving(6, {3: lambda: controls.kill("ann", "wrong prices")})
    summary = go(source=source, broker=broker, run_dir=tmp_path, controls=controls)
    assert summary["trading_state"] == "HALTED"
    assert set(broker.cancelled) == {order.client_order_id for order in broker.submitted}
    for release in ((), (Release("kill_switch", "bob", "prices checked"),)):
        restarted = RecordingBroker()
        again = go(source=Moving(5), broker=restarted, run_dir=tmp_path, resume=True, release=release)
        assert bool(restarted.submitted) is bool(release)
        assert again["trading_state"] == ("ACTIVE" if release else "HALTED")
    (latch,) = audit_of(tmp_path, "latch")
    assert latch["reason"] == "ann: wrong prices"


def test_a_killed_run_is_resumed_only_by_naming_the_latch() -> None:
    controls, broker = Controls(), RecordingBroker()
    source = Moving(
        12,
        {
            2: lambda: controls.kill("ann", "x"),
            4: lambda: controls.resume("bob", "x"),
            5: lambda: controls.reduce("bob", "x"),
            6: lambda: controls.resume("bob", "x", release=("daily_loss",)),
            8: lambda: controls.resume("bob", "checked", release=("kill_switch",)),
        },
    )
    summary = go(source=source, broker=broker, trace=False, controls=controls)
    assert summary["action_counts"] == {"ACT": 6, "STOP": 6}
    assert [answer_of(source.answers[at]).ok for at in (2, 4, 5, 6, 8)] == [True, False, False, False, True]
    assert "kill_switch is latched" in answer_of(source.answers[4]).message


def test_killing_again_changes_nothing_and_harms_nothing() -> None:
    controls, broker = Controls(), RecordingBroker()
    source = Moving(8, {i: lambda: controls.kill("ann", "x") for i in range(3, 8)})
    summary = go(source=source, broker=broker, trace=False, controls=controls)
    assert len(broker.cancelled) == len(set(broker.cancelled)) == len(broker.submitted)
    assert summary["trading_state"] == "HALTED"


def test_while_reducing_only_what_shrinks_the_position_leaves(tmp_path: Path) -> None:
    # The first order, a buy, is filled; from event 4 on the position of some 10 units may only shrink.
    controls, broker = Controls(), Filling(1)
    marks: list[int] = []
    source = Moving(10, {4: lambda: (controls.reduce("ann", "end of day"), marks.append(len(broker.submitted)))})
    summary = go(source=source, broker=broker, run_dir=tmp_path, controls=controls)
    bought = broker.submitted[0]
    assert bought.side is Side.BUY
    later = broker.submitted[marks[0] :]
    assert later
    assert all(order.side is Side.SELL and order.qty <= bought.qty for order in later)
    assert summary["orders_withheld"] > 0
    assert audit_of(tmp_path, "order_withheld")[0]["reason"].startswith("trading_reducing")
    assert summary["trading_state"] == "REDUCING"


def test_what_an_operator_ordered_holds_after_a_restart(tmp_path: Path) -> None:
    controls = Controls()
    source = Moving(4, {2: lambda: (controls.pause("ann", "x"), controls.budget("ann", "x", 7.0))})
    go(source=source, broker=RecordingBroker(), run_dir=tmp_path, controls=controls)
    for release, state in (((), "HALTED"), ((Release("operator", "bob", "back"),), "ACTIVE")):
        again, asked = Controls(), []
        source = Moving(4, {2: lambda again=again, asked=asked: asked.append(again.status())})
        broker = RecordingBroker()
        go(
            source=source, broker=broker, run_dir=tmp_path, resume=True, controls=again,
            release=release,
        )  # fmt: skip
        reply = asked[0].wait(0.0)
        assert (reply.state, reply.budget_usd) == (state, 7.0)
        assert bool(broker.submitted) is (state == "ACTIVE")


@pytest.mark.parametrize("damaged", [b"{", b'{"state":"ON"}', b'{"budget_usd":-1}'])
def test_a_damaged_word_of_the_operator_lets_nothing_start(tmp_path: Path, damaged: bytes) -> None:
    go(source=Moving(2), broker=RecordingBroker(), run_dir=tmp_path)
    (tmp_path / "operator.json").write_bytes(damaged)
    with pytest.raises(TraceError, match="operator"):
        go(source=Moving(2), broker=RecordingBroker(), run_dir=tmp_path, resume=True)


def test_a_run_without_guards_obeys_too() -> None:
    controls, broker = Controls(), RecordingBroker()
    sent: list[int] = []
    source = Moving(10, {3: lambda: (controls.kill("ann", "x"), sent.append(len(broker.submitted)))})
    summary = go(source=source, broker=broker, trace=False, controls=controls, modulator=None)
    assert len(broker.submitted) == sent[0]
    assert summary["orders_withheld"] > 0


def test_an_executor_of_ones_own_is_not_asked_while_halted() -> None:
    controls, asked = Controls(), []
    executor = SimpleNamespace(run=lambda final, market_id, mid=None: asked.append(final.action) or {})
    source = Moving(8, {4: lambda: controls.pause("ann", "x")})
    go(source=source, broker=RecordingBroker(), trace=False, controls=controls, executor=executor, modulator=None)
    assert asked == [Action.ACT] * 4 + [Action.CANCEL, Action.CANCEL]  # withdrawn at the pause, and at the end


# Budget. ------------------------------------------------------------------------------------------------------------


def test_a_budget_below_what_is_held_leaves_the_positions_and_above_the_policy_is_refused(tmp_path: Path) -> None:
    controls, broker = Controls(), Filling(1)
    source = Moving(
        9,
        {
            3: lambda: controls.budget("ann", "too much risk", 0.5),
            6: lambda: controls.budget("ann", "more", 101.0),
            7: lambda: controls.budget("ann", "back", 100.0),
        },
    )
    summary = go(source=source, broker=broker, run_dir=tmp_path, controls=controls)
    assert summary["mismatch_reason_counts"]["total_exposure_exceeded"] == 4
    refused = answer_of(source.answers[6])
    assert not refused.ok
    assert refused.budget_usd == 0.5
    assert "max_total_exposure_usd 100" in refused.message
    hashes = [packet.input["policy_hash"] for packet in read_packets(tmp_path)]
    assert len(set(hashes)) == 2
    assert hashes[0] == hashes[2] == hashes[8] != hashes[3] == hashes[6]
    named = {line["policy_hash"]: line["max_total_exposure_usd"] for line in audit_of(tmp_path, "policy")}
    assert named == {hashes[3]: 0.5, hashes[0]: 100.0}
    lines = audit_of(tmp_path, "operator")
    assert [line["usd"] for line in lines] == [0.5, 101.0, 100.0]
    assert "error" in lines[1]


# Silence, and threads. ----------------------------------------------------------------------------------------------


class Silent(DataSource):
    """Live: one book, then nothing until `over` is set."""

    is_live = True

    def __init__(self) -> None:
        self.over = threading.Event()
        self.started = threading.Event()
        self._is_first = True

    def next_event(self) -> Any:
        if self._is_first:
            self._is_first = False
            return BookSnapshot(0, time.time_ns(), "X", 0, 0.49, 0.51, 90.0, 30.0)
        self.started.set()
        self.over.wait(20.0)
        return None


def test_a_silent_live_feed_obeys_as_well() -> None:
    controls, broker, source = Controls(), LiveBroker(), Silent()
    replies: list[Any] = []

    def operator() -> None:
        source.started.wait(10.0)
        while not broker.submitted:
            time.sleep(0.001)
        replies.append(controls.kill("ann", "x").wait(10.0))
        replies.append(list(broker.cancelled))
        source.over.set()

    thread = threading.Thread(target=operator)
    thread.start()
    policy = RiskPolicy(staleness_ms=10_000_000)
    go(source=source, broker=broker, trace=False, controls=controls, risk_policy=policy)
    thread.join()
    assert replies[0].ok
    assert len(replies[1]) == len(broker.submitted) == 2


def test_a_live_run_listens_by_default_and_a_recorded_one_does_not(tmp_path: Path) -> None:
    seen: list[bool] = []
    for name, is_live in (("live", True), ("recorded", False)):
        source = Moving(2, {1: lambda name=name: seen.append((tmp_path / name / "control.sock").exists())})
        source.is_live = is_live
        go(source=source, broker=LiveBroker(), run_dir=tmp_path / name)
        assert not (tmp_path / name / "control.sock").exists()
    assert seen == [True, False]


def test_a_socket_needs_a_directory() -> None:
    with pytest.raises(ConfigError, match="give `run_dir`"):
        go(source=Moving(1), broker=RecordingBroker(), trace=False, controls=True)


def test_a_model_may_pull_the_kill_switch_from_inside_a_step() -> None:
    controls, broker = Controls(), RecordingBroker()

    class Nervous:
        count = 0

        def propose(self, features: Any) -> Proposal:
            self.count += 1
            if self.count == 3:
                controls.kill("model", "does not trust itself")
            quotes = {"bid_quote": 0.4, "ask_quote": 0.6, "size_usd": 1.0}
            return Proposal(Action.ACT, 1.0, ["quotes"], quotes)

    summary = go(
        source=Moving(6), broker=broker, trace=False, controls=controls, decision_engine=Nervous(),
    )  # fmt: skip
    assert summary["action_counts"] == {"ACT": 3, "STOP": 3}
    assert summary["trading_state"] == "HALTED"


def test_a_command_that_cannot_be_kept_ends_the_run_with_everything_taken_off(tmp_path: Path) -> None:
    controls, broker = Controls(), RecordingBroker()
    tickets: list[Ticket] = []

    def break_the_disk() -> None:
        (tmp_path / "operator.new").mkdir()
        tickets.append(controls.pause("ann", "x"))

    source = Moving(6, {3: break_the_disk})
    summary = go(source=source, broker=broker, run_dir=tmp_path, controls=controls)
    reply = tickets[0].wait(0.0)
    assert reply is not None
    assert (reply.ok, reply.state) == (False, "HALTED")
    assert summary["stopped_reason"].startswith("trace_error")
    assert set(broker.cancelled) == {order.client_order_id for order in broker.submitted}


def test_orders_whose_exposure_cannot_be_told_do_not_leave() -> None:
    def unknown(market_id: str) -> Any:
        raise KeyError(market_id)

    gate = TradingGate(unknown)
    order = SubmitOrder(client_order_id="a", market_id="X", side=Side.SELL, price=1.0, qty=1.0)
    assert gate(order) == ""
    gate.state = TradingState.REDUCING
    assert gate(order) == "gate_error: KeyError"
    gate.state = TradingState.HALTED
    assert gate(order) == "trading_halted: nothing leaves"


# Several markets. ---------------------------------------------------------------------------------------------------


def test_a_market_first_seen_on_the_second_day_does_not_count_the_first_days_profit() -> None:
    # A market of day one loses; on day two another market appears, whose guards must not see that loss as today's.
    day_ms, seen = 86_400_000, []

    def watching(proposal: Any, policy: Any, context: Any) -> Any:
        seen.append(context.daily_pnl)
        return modulate(proposal, policy, context)

    class Losing(RecordingBroker):
        def __init__(self) -> None:
            super().__init__()
            self.fills = [("BUY", 0.51), ("SELL", 0.41)]

        def process_fills(self, now_ms: int) -> list[dict[str, Any]]:
            if not self.fills:
                return []
            side, price = self.fills.pop(0)
            return [
                {"trade_id": side, "client_order_id": "c", "market_id": "X", "side": side, "price": price, "qty": 10.0}
            ]

    events = [book(0), book(1_000), book(2_000)]
    events += [msgspec.structs.replace(book(day_ms + 1_000 * i), symbol=name) for i, name in enumerate("YXY")]
    executor = SimpleNamespace(run=lambda final, market_id, mid=None: {})
    go(source=ListSource(events), broker=Losing(), executor=executor, modulator=watching, trace=False, timer_ms=0)
    assert seen[2] == pytest.approx(-1.0)
    assert seen[3:] == [0.0, 0.0, 0.0]


def test_a_journal_brings_the_operators_word_and_latches_back_without_a_directory(tmp_path: Path) -> None:
    journal = tmp_path / "journal.db"
    for verb, state in (("pause", "HALTED"), ("kill", "HALTED")):
        controls = Controls()
        source = Moving(4, {2: lambda verb=verb, controls=controls: getattr(controls, verb)("ann", "x")})
        go(source=source, broker=RecordingBroker(), trace=False, controls=controls, journal=journal)
        broker, again, asked = RecordingBroker(), Controls(), []
        source = Moving(4, {2: lambda again=again, asked=asked: asked.append(again.status())})
        go(source=source, broker=broker, trace=False, controls=again, journal=journal)
        reply = asked[0].wait(0.0)
        assert (reply.state, reply.latched) == (state, ("kill_switch",) if verb == "kill" else ())
        assert broker.submitted == []


def test_an_executor_that_halts_is_told_to_withdraw_also_without_guards() -> None:
    asked: list[Action] = []

    def run(final: Any, market_id: str, mid: float | None = None) -> dict[str, Any]:
        asked.append(final.action)
        return {"halt": True, "errors": ["no"]} if len(asked) == 2 else {}

    go(source=Moving(5), broker=RecordingBroker(), trace=False, executor=SimpleNamespace(run=run), modulator=None)
    assert asked == [Action.ACT, Action.ACT, Action.CANCEL, Action.CANCEL]


class Failing(StateStore):
    """A store whose disk is gone once `is_gone`."""

    is_gone = False

    def execute(self, statement: str, parameters: Any = ()) -> int:
        if self.is_gone:
            raise StateError("the disk is gone")
        return super().execute(statement, parameters)

    def execute_many(self, statement: str, rows: Any) -> None:
        if self.is_gone:
            raise StateError("the disk is gone")
        super().execute_many(statement, rows)


def test_a_caller_is_answered_when_the_journal_fails_under_his_command() -> None:
    store, controls, broker = Failing(":memory:"), Controls(), RecordingBroker()
    tickets: list[Ticket] = []

    def break_the_disk() -> None:
        store.is_gone = True
        tickets.append(controls.pause("ann", "x"))

    summary = go(source=Moving(6, {3: break_the_disk}), broker=broker, trace=False, controls=controls, journal=store)
    reply = tickets[0].wait(0.0)
    assert reply is not None
    assert (reply.ok, reply.state, reply.latched) == (False, "HALTED", ("kill_switch",))
    assert summary["stopped_reason"].startswith("state_error")
    assert set(broker.cancelled) == {order.client_order_id for order in broker.submitted}


class Dying(BaseException):
    """The process ends while a pause cancels."""


def test_a_pause_holds_from_its_first_cancel_on(tmp_path: Path) -> None:
    class Slow(RecordingBroker):
        def cancel_order(self, order_id: str) -> bool:
            if controls.asked:
                raise Dying
            return super().cancel_order(order_id)

    class Asked(Controls):
        asked = False

    controls, store = Asked(), StateStore(tmp_path / "j.sqlite")

    def pause() -> None:
        controls.pause("ann", "x")
        controls.asked = True

    with pytest.raises(Dying):
        go(source=Moving(6, {3: pause}), broker=Slow(), trace=False, controls=controls, journal=store)
    store.close()
    broker = RecordingBroker()
    summary = go(source=Moving(6), broker=broker, trace=False, journal=tmp_path / "j.sqlite")
    assert (summary["trading_state"], broker.submitted) == ("HALTED", [])
