"""The examples run as a reader would run them, and do what their pages say."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ami_engine.adapters.instruments import instrument_from_toml
from ami_engine.dmc import RiskPolicy
from ami_engine.errors import VenueUnavailable
from ami_engine.events import Side, SubmitOrder
from ami_engine.trace.reader import read_packets, verify
from decision_schema.types import Action, FinalDecision, Proposal

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
PAGES = sorted(page for page in EXAMPLES.glob("*.md") if page.with_suffix(".py").exists())
# The packages of other programs that the engine is shown in; the extra `frameworks` has them.
NEEDS = {"ccxt_bot": "ccxt", "nautilus_strategy": "nautilus_trader", "hftbacktest_strategy": "hftbacktest"}
OUTPUT = re.compile(r"^```text\n(.*?)^```", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


def run(example: str, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / example), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def load(example: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(example).stem, EXAMPLES / example)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def skip_without_its_package(name: str) -> None:
    package = NEEDS.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"{name}.py needs {package}, which is not installed")


def without_numbers(text: str) -> str:
    """Return what is the same wherever the example runs: other versions of numpy may draw other numbers."""
    return NUMBER.sub("#", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_shows_what_its_example_prints(page: Path, tmp_path: Path) -> None:
    skip_without_its_package(page.stem)
    shown = OUTPUT.search(page.read_text(encoding="utf-8"))
    assert shown is not None, f"{page.name} does not show what the example prints"
    assert without_numbers(run(f"{page.stem}.py", tmp_path)) == without_numbers(shown.group(1))


def test_the_list_of_examples_names_every_page_and_file() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for file in [*PAGES, *EXAMPLES.glob("*.py")]:
        assert f"({file.name})" in text, f"{file.name} is not in the list"


def test_trading_over_a_recording_trades_and_explains_itself(tmp_path: Path) -> None:
    output = run("trading_recorded_feed.py", tmp_path)
    assert int(re.search(r"(\d+) fills", output).group(1)) > 20  # type: ignore[union-attr]
    assert "the trace is whole" in output
    assert "ACT because of usual_spread" in output
    assert "EXIT because of" in output
    assert verify(tmp_path / "trading-example" / "run").ok


def test_trading_over_a_captured_feed(tmp_path: Path, data_dir: Path) -> None:
    output = run(
        "trading_recorded_feed.py",
        tmp_path,
        str(data_dir / "binance-spot-btcusdt-20240808.feed.gz"),
        "binance",
        str(EXAMPLES / "feeds" / "binance-spot.instrument.toml"),
    )
    assert "the trace is whole" in output


def test_moderation_removes_with_evidence_and_stops_when_the_classifier_drifts(tmp_path: Path) -> None:
    module = load("content_moderation.py")
    guarded, free = module.main(str(tmp_path / "run")), module.main(guarded=False)
    assert guarded["removed"] > 50
    assert guarded["wrongly_removed"] == 0
    assert guarded["is_stopped"]
    assert guarded["mismatch_reason_counts"]["needs_a_person"] > 0
    assert free["wrongly_removed"] > 100
    assert not free["is_stopped"]
    assert verify(tmp_path / "run").packets == guarded["steps"]


def test_the_robot_arrives_and_touches_nothing_although_its_rangefinder_hangs(tmp_path: Path) -> None:
    module = load("robotics_control.py")
    guarded, free = module.main(str(tmp_path / "run")), module.main(guarded=False)
    assert guarded["is_parked"]
    assert guarded["collisions"] == 0
    assert guarded["least_gap_m"] > 0.3
    assert not guarded["is_stopped"]
    fired = guarded["mismatch_reason_counts"]
    assert set(fired) == {"rangefinder_silent", "speed_clamped:motor_warm", "speed_clamped:stopping_distance"}
    assert free["collisions"] > 0
    assert guarded["hottest_c"] < free["hottest_c"]
    for packet in read_packets(tmp_path / "run"):
        if packet.final_action["action"] == "ACT":
            assert packet.final_action["params"]["speed_mps"] <= packet.mdm["params"]["speed_mps"]


def test_a_robot_that_touched_something_stays_where_it_is() -> None:
    module = load("robotics_control.py")
    robot, guards = module.Corridor(seed=1, seconds=1.0), module.DriveGuards(module.DrivePolicy())
    drive = module.Drive(robot)
    guards.watch({"bumper": 1.0, "range.m": 8.0, "range.age_ms": 0.0, "motor.celsius.mean": 30.0})
    go_on = Proposal(Action.ACT, 0.9, ["way_is_free"], {"speed_mps": 1.0})
    final, mismatch = guards(go_on, RiskPolicy(), {})
    assert (final.action, mismatch.reason_codes) == (Action.STOP, ["touched_something"])
    drive.run(final, "robot")
    drive.run(FinalDecision(Action.ACT, params={"speed_mps": 1.0}), "robot")
    assert robot.commanded_mps == 0.0
    assert drive.is_stopped


@pytest.mark.parametrize("free_m", [0.0, 0.5, 0.6, 1.0, 3.0, 8.0])
def test_from_a_safe_speed_the_robot_stops_before_the_margin(free_m: float) -> None:
    module = load("robotics_control.py")
    policy = module.DrivePolicy()
    speed = module.DriveGuards(policy).safe_speed_mps(free_m)
    way = speed * policy.reaction_s + speed**2 / (2.0 * policy.brakes_mps2)
    assert way == pytest.approx(max(0.0, free_m - policy.margin_m), abs=1e-9)


def test_cores_are_never_promised_twice_and_no_tenant_is_over_its_quota(tmp_path: Path) -> None:
    module = load("resource_allocation.py")
    guarded, free = module.main(str(tmp_path / "run")), module.main(guarded=False)
    assert guarded["seconds_over"] == 0
    assert guarded["most_of_tenant"] <= module.AllocationPolicy().tenant_quota
    assert guarded["mismatch_reason_counts"]["machines_failed"] == 1
    assert guarded["taken_back"] > 0
    assert all(count > 50 for count in guarded["tenants_served"].values())
    assert free["seconds_over"] > 100
    assert free["most_of_tenant"] > module.CORES
    assert guarded["finished"] > free["finished"]
    for packet in read_packets(tmp_path / "run"):
        if packet.final_action["action"] == "ACT":
            assert 0 < packet.final_action["params"]["cores"] <= packet.mdm["params"]["cores"]


def test_a_flood_and_an_outage_are_kept_from_the_service_and_from_the_others() -> None:
    module = load("api_rate_limiting.py")
    guarded, free = module.main(), module.main(guarded=False)
    policy = module.AdmissionPolicy()
    flood_s = module.FLOOD_S[1] - module.FLOOD_S[0]
    assert guarded["greedy_per_s"] <= policy.per_s + policy.burst / flood_s
    assert guarded["polite_served_fraction"] > 0.95
    assert guarded["polite_worst_ms"] < 100.0
    assert free["polite_served_fraction"] < 0.9
    assert free["polite_worst_ms"] > 500.0
    assert free["greedy_per_s"] > 3 * guarded["greedy_per_s"]
    assert guarded["asked_in_outage"] < free["asked_in_outage"] / 4
    assert set(guarded["mismatch_reason_counts"]) == {"client_over_rate", "service_is_down"}


def test_the_asyncio_bot_trades_and_leaves_the_event_loop_free() -> None:
    summary = asyncio.run(load("asyncio_bot.py").main(books=200))
    assert summary["stopped_reason"] == "source_exhausted"
    assert summary["steps"] == 200
    assert summary["fills_count"] > 0
    assert summary["orders_in_doubt"] == summary["error_count"] == 0
    assert summary["positions"].get("ACME", 0.0) == summary["venue_position"]
    assert summary["venue_resting"] == 0
    assert summary["beats"] > 10


def test_an_answer_that_does_not_come_in_time_leaves_a_doubt() -> None:
    module = load("asyncio_bot.py")
    order = SubmitOrder(client_order_id="a", market_id="ACME", side=Side.BUY, price=19.0, qty=1.0)

    class Silent(module.AsyncVenue):  # type: ignore[name-defined]
        async def place(self, order: SubmitOrder) -> None:
            await asyncio.Event().wait()

    async def ask() -> None:
        broker = module.AsyncBroker(Silent(seed=1), asyncio.get_running_loop(), timeout_s=0.05)
        with pytest.raises(VenueUnavailable) as doubt:
            await asyncio.to_thread(broker.submit_order, order)
        assert not doubt.value.outcome_known

    asyncio.run(ask())


def test_the_ccxt_bot_resolves_a_lost_answer_and_agrees_with_the_venue() -> None:
    pytest.importorskip("ccxt", reason="ccxt_bot.py needs ccxt, which is not installed")
    summary = load("ccxt_bot.py").main(books=120)
    assert summary["stopped_reason"] == "source_exhausted"
    assert summary["answers_lost"] == summary["orders_in_doubt"] == 1
    assert summary["orders_submitted"] == summary["venue_orders"] + summary["orders_rejected"]
    assert summary["fills_count"] > 0
    assert summary["positions"].get("ACME/USDT", 0.0) == summary["venue_position"]
    assert summary["venue_resting"] == 0


def test_the_engine_guards_a_nautilus_strategy_in_a_falling_market(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nautilus_trader", reason="nautilus_strategy.py needs nautilus_trader, which is not installed")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    module = load("nautilus_strategy.py")
    guarded, position = module.main()
    free, free_position = module.main(guarded=False)
    assert guarded.position == position == 0.0
    assert free.position == free_position > 100.0
    assert guarded.account.close_count > 3
    assert {"inventory_limit", "daily_loss_stop"} <= set(guarded.reasons)
    assert guarded.largest_position < 40.0
    assert -40.0 < guarded.account.equity < 0.0
    assert free.account.equity < 3 * guarded.account.equity


def test_the_engine_guards_an_hftbacktest_strategy_and_both_accounts_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hftbacktest", reason="hftbacktest_strategy.py needs hftbacktest, which is not installed")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    module = load("hftbacktest_strategy.py")
    guarded, position, equity = module.main()
    free, free_position, free_equity = module.main(guarded=False)
    assert guarded.decisions == free.decisions == 600
    assert guarded.position == position
    assert guarded.account.equity == pytest.approx(equity, abs=1e-6)
    assert free.account.equity == pytest.approx(free_equity, abs=1e-6)
    assert free.position == free_position > 100.0
    assert guarded.account.fees > 0.0
    assert guarded.account.close_count > 3
    assert {"inventory_limit", "daily_loss_stop"} <= set(guarded.reasons)
    assert guarded.largest_position < 40.0
    assert -40.0 < guarded.account.equity < 0.0
    assert free.account.equity < 3 * guarded.account.equity


@pytest.mark.parametrize(("name", "package"), NEEDS.items(), ids=NEEDS.keys())
def test_an_example_without_its_package_says_what_to_install(name: str, package: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")], cwd=tmp_path, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 1
    assert f"pip install {package}" in done.stderr


@pytest.mark.parametrize("path", sorted((EXAMPLES / "feeds").glob("*.toml")), ids=lambda path: path.name)
def test_every_shipped_settings_file_loads(path: Path) -> None:
    if path.name.endswith(".policy.toml"):
        assert RiskPolicy.from_toml(path) != RiskPolicy()
    else:
        assert instrument_from_toml(path)


def test_the_broker_to_test_breaks_no_clause(tmp_path: Path) -> None:
    lines = run("broker_to_test.py", tmp_path).splitlines()
    assert len([line for line in lines if line.startswith("kept")]) >= 35
    assert not [line for line in lines if line.startswith("broken")]
