"""The engine over whole recorded feeds, with the instrument and policy files that are shipped for them."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from ami_engine.events import Side
from ami_engine.trace.reader import verify
from ami_engine.units import Instrument

from .conftest import FEEDS, Feed, Recorded, TraceFacts, facts_of, open_feed, run_feed


def test_runs_to_the_end_of_the_feed_without_an_error(feed: Feed, run: Recorded) -> None:
    summary = run.summary
    assert summary["stopped_reason"] == "source_exhausted"
    assert (summary["error_count"], summary["last_error"]) == (0, "")
    assert summary["orders_rejected"] == summary["orders_in_doubt"] == 0
    # What the notes of these runs may say: quotes too small for the lot, and a loss limit that did its work.
    assert all(note.startswith("latched") or "smallest order" in note for note in summary["notes"])


def test_orders_are_sent_and_filled(feed: Feed, run: Recorded) -> None:
    assert run.summary["orders_submitted"] > 0
    assert run.summary["fills_count"] > 0
    assert run.summary["position_open_count"] > 0
    assert run.summary["orders_canceled"] > 0


def test_every_event_is_a_step_and_a_packet(feed: Feed, run: Recorded, trace_facts: TraceFacts) -> None:
    summary, kinds = run.summary, dict(trace_facts.kinds)
    assert kinds.pop("timer", 0) == summary["timer_count"]
    assert kinds == feed.kinds
    assert summary["steps"] == feed.steps
    assert sum(summary["action_counts"].values()) == sum(summary["proposal_counts"].values()) == feed.steps


def test_only_what_the_feed_is_known_to_have_wrong_is_refused(feed: Feed, run: Recorded) -> None:
    assert run.summary["rejected_events"] == feed.refused
    assert len(run.summary["rejected_places"]) == min(20, sum(feed.refused.values()))
    assert all(place.startswith(f"{feed.files[0]}:") for place in run.summary["rejected_places"])


def test_the_trace_verifies_and_ends_where_the_summary_says(feed: Feed, run: Recorded) -> None:
    report = verify(run.trace)
    assert report.first_damage is None
    assert report.packets == run.summary["steps"] + run.summary["timer_count"]
    assert report.chain_head == run.summary["chain_head"]


def test_time_never_goes_backwards_in_the_trace(feed: Feed, trace_facts: TraceFacts) -> None:
    assert trace_facts.time_backwards == 0


def test_a_second_run_has_the_same_chain(feed: Feed, run: Recorded, data_dir: Path, tmp_path: Path) -> None:
    again = run_feed(data_dir, feed, tmp_path / "again", steps=feed.second_steps)
    assert again.summary["run_id"] == run.summary["run_id"]
    if feed.second_steps is None:
        assert again.summary["chain_head"] == run.summary["chain_head"]
        for key in ("final_equity", "fills_count", "orders_submitted", "action_counts", "mismatch_reason_counts"):
            assert again.summary[key] == run.summary[key]
    else:
        packets = again.summary["steps"] + again.summary["timer_count"]
        assert again.summary["steps"] == feed.second_steps
        assert again.summary["chain_head"] == facts_of(run.trace, head_at=packets).prev_sha256
    again.trace.unlink()


# Money. ---------------------------------------------------------------------------------------------------------------


def test_equity_is_realized_and_unrealized_less_fees(feed: Feed, run: Recorded) -> None:
    summary = run.summary
    made = summary["realized_pnl"] + summary["unrealized_pnl"] - summary["fees"]
    assert summary["final_equity"] == pytest.approx(made, abs=1e-9, rel=0.0)
    assert summary["max_drawdown"] >= max(0.0, -summary["final_equity"])


def test_broker_and_engine_hold_the_same(feed: Feed, run: Recorded) -> None:
    state = run.broker.get_state()
    held = {name: qty for name, qty in state["positions"].items() if qty}
    assert held == {name: qty for name, qty in run.summary["positions"].items() if qty}
    assert state["open_orders"] == []


def test_cash_and_position_at_the_mark_are_the_equity(
    feed: Feed, run: Recorded, trace_facts: TraceFacts, data_dir: Path
) -> None:
    instrument = the_instrument(data_dir, feed)
    cash, position = run.broker.get_state()["cash"], run.summary["positions"][instrument.symbol]
    if instrument.is_inverse:
        # Coin: the paper venue settles profits, so that what is held has no value but the unrealized part.
        worth = cash + run.summary["unrealized_pnl"]
    else:
        worth = cash + position * instrument.multiplier * trace_facts.last_mid
    assert run.summary["final_equity"] == pytest.approx(worth, rel=0.0, abs=1e-7)


def test_a_plain_ledger_over_the_brokers_fills_gives_the_engines_books(
    feed: Feed, run: Recorded, data_dir: Path
) -> None:
    fills = list(run.broker.fetch_fills(0))
    assert len(fills) == run.summary["fills_count"]
    position, realized, fees, trips = average_cost(fills, the_instrument(data_dir, feed))
    summary = run.summary
    assert summary["positions"] == {fills[0].market_id: pytest.approx(float(position), abs=1e-12)}
    assert summary["realized_pnl"] == pytest.approx(float(realized), rel=1e-9, abs=1e-12)
    assert summary["fees"] == pytest.approx(float(fees), rel=1e-9, abs=1e-12)
    assert summary["position_close_count"] == trips


def the_instrument(data_dir: Path, feed: Feed) -> Instrument:
    """The instrument of the feed's one symbol; the file of the ES contracts describes two."""
    source = open_feed(data_dir, feed)
    try:
        event: Any = source.next_event()
        return source.instruments()[event.symbol]
    finally:
        source.close()


def average_cost(fills: list[Any], instrument: Instrument) -> tuple[Fraction, Fraction, Fraction, int]:
    """Position, realized profit, fees and round trips by the average cost method, in exact fractions."""
    position = average = realized = fees = Fraction(0)
    trips = 0
    multiplier = exact(instrument.multiplier)
    for fill in fills:
        price, qty = exact(fill.price), exact(fill.qty) * (1 if fill.side is Side.BUY else -1)
        fees += exact(fill.fee)
        if position * qty < 0:
            closed = min(abs(qty), abs(position)) * (1 if position > 0 else -1)
            move = (1 / average - 1 / price) if instrument.is_inverse else price - average
            realized += closed * multiplier * move
            trips += abs(qty) >= abs(position)
            if abs(qty) > abs(position):
                average = price
        elif instrument.is_inverse and position:
            average = (position + qty) / (position / average + qty / price)
        else:
            average = (position * average + qty * price) / (position + qty)
        position += qty
    return position, realized, fees, trips


def exact(number: float) -> Fraction:
    """The decimal that a float was written as."""
    return Fraction(repr(number))


# Guards and modes. ----------------------------------------------------------------------------------------------------


def test_a_dry_run_decides_on_every_event_and_sends_nothing(data_dir: Path, tmp_path: Path) -> None:
    feed = FEEDS["lobster"]
    dry = run_feed(data_dir, feed, tmp_path / "dry", dry_run=True)
    assert dry.summary["steps"] == feed.steps
    assert dry.summary["action_counts"]["ACT"] > 0
    assert dry.summary["orders_submitted"] == dry.summary["fills_count"] == 0
    assert list(dry.broker.fetch_fills(0)) == []


def test_the_daily_loss_stop_ends_trading_and_not_the_run(
    recorded_run: Callable[[Feed], Recorded], data_dir: Path
) -> None:
    # The reference model loses its fees: the shipped limit of 50 USD is met in the middle of the capture.
    summary = recorded_run(FEEDS["usdm"]).summary
    assert summary["mismatch_reason_counts"]["daily_loss_stop"] > 0
    assert summary["action_counts"]["STOP"] > 0
    assert -55.0 < summary["final_equity"] <= -45.0
    assert summary["steps"] == FEEDS["usdm"].steps
