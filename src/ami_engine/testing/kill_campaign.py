"""`kill -9` at random moments of a real process that trades over HTTP: nothing doubled, lost or invented.

``python -m ami_engine.testing.kill_campaign --kills 200`` starts an exchange in a process, then a trader, kills
it, starts the next on the same journal, and so on. The last one comes to rest, and its journal must say what the
exchange says.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from ami_engine.clock import perf_ns, sleep
from ami_engine.errors import AmiError
from ami_engine.execution.journal import Journal
from ami_engine.sim.faults import FaultKind, FaultPlan
from ami_engine.sim.splitmix import SplitMix
from ami_engine.state_store import StateStore
from ami_engine.testing.simtest.invariants import unbalanced

__all__ = ["KillResult", "kill_repeatedly"]

# An overfill halts until an operator looks: with it there would be nothing left to kill.
_FAULTS = frozenset(FaultKind) - {FaultKind.OVERFILL}
# Most kills fall so long after the first event, some into the start before it.
_TRADING_MS = (0, 600)
_STARTING_MS = (50, 1_500)
_AT_START_PER_MILLE = 150
_LAST_EVENTS = 1_200
_LAST_TIMEOUT_S = 90.0


class KillResult(msgspec.Struct, frozen=True):
    """What a row of kills found: `problems` is empty when the journal and the exchange say the same."""

    kills: int
    orders: int
    fills: int
    starts: int
    problems: tuple[str, ...]
    wall_s: float


def kill_repeatedly(kills: int, folder: Path, *, seed: int = 0) -> KillResult:
    """Start a trader and kill it `kills` times, then compare.

    Parameters
    ----------
    kills : int
        How often.
    folder : Path
        Where the journal is kept.
    seed : int
        Of the market, of the faults and of the moments.

    Raises
    ------
    AmiError
        When the exchange does not start, or the last trader does not end.
    """
    started_ns = perf_ns()
    plan = FaultPlan.from_seed(seed, most=12, kinds=_FAULTS, horizon=400)
    command = [sys.executable, "-m", "ami_engine.sim.exchange_server", "--seed", str(seed), "--dedupe", "open"]
    with subprocess.Popen([*command, "--faults", str(plan)], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            if not url:
                raise AmiError("the mock exchange did not start")
            journal = folder / "journal.sqlite"
            draw = SplitMix(seed, stream=9)
            for number in range(kills):
                at_start = draw.chance(_AT_START_PER_MILLE)
                life_ms = draw.between(*(_STARTING_MS if at_start else _TRADING_MS))
                _trade_and_die(_trader(url, journal, number), life_ms, at_start=at_start)
            _ask(url, "/quiet", method="POST")
            _come_to_rest(url, journal)
            truth = _ask(url, "/truth")
        finally:
            server.kill()
    starts, problems = _compare(journal, truth)
    return KillResult(
        kills,
        len(truth["placements"]),
        len(truth["fills"]),
        starts,
        problems,
        round((perf_ns() - started_ns) / 1e9, 3),
    )


def _trader(url: str, journal: Path, seed: int) -> list[str]:
    return [sys.executable, "-m", "ami_engine.testing.kill_trader", url, str(journal), str(seed)]


def _trade_and_die(command: list[str], life_ms: int, *, at_start: bool) -> None:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as trader:
        if not at_start:
            assert trader.stdout is not None
            trader.stdout.readline()  # it says when it trades
        sleep(life_ms / 1_000)
        status = trader.poll()
        trader.kill()
        _, errors = trader.communicate()
    if status is not None:
        raise AmiError(f"the trader ended by itself with {status}: {errors.decode(errors='replace')[-500:]}")


def _come_to_rest(url: str, journal: Path) -> None:
    command = [*_trader(url, journal, 0), "--end-after", str(_LAST_EVENTS)]
    done = subprocess.run(command, capture_output=True, timeout=_LAST_TIMEOUT_S, check=False)
    if done.returncode:
        raise AmiError(f"the last trader failed: {done.stderr.decode(errors='replace')[-500:]}")


def _ask(url: str, path: str, *, method: str = "GET") -> dict[str, Any]:
    with urllib.request.urlopen(urllib.request.Request(url + path, method=method), timeout=10) as reply:
        answer: dict[str, Any] = msgspec.json.decode(reply.read())
        return answer


def _compare(path: Path, truth: dict[str, Any]) -> tuple[int, tuple[str, ...]]:
    """Return how often the journal was opened before, and what differs."""
    store = StateStore(path)
    try:
        journal = Journal(store)
        problems = list(_problems(journal, truth))
        return journal.incarnation - 1, tuple(problems)
    finally:
        store.close()


def _problems(journal: Journal, truth: dict[str, Any]) -> list[str]:
    state = journal.state
    found = []
    if twice := [name for name, count in truth["placements"].items() if count > 1]:
        found.append(f"placed more than once: {', '.join(twice)}")
    if truth["most_on_a_side"] > 1:
        found.append(f"{truth['most_on_a_side']} quotes were live on one side at once")
    live = [each["client_order_id"] for each in truth["orders"] if each["status"] in ("NEW", "PARTIALLY_FILLED")]
    if live:
        found.append(f"still live at the exchange: {', '.join(live)}")
    if state.orders:
        found.append(f"still open in the journal: {', '.join(each.order.client_order_id for each in state.orders)}")
    there = Counter((fill["trade_id"], fill["side"], fill["price"], fill["qty"]) for fill in truth["fills"])
    here = Counter((fill.trade_id, fill.side.value, fill.price, fill.qty) for fill in state.fills)
    if there - here:
        found.append(f"fills lost: {', '.join(name for name, *_ in there - here)}")
    if here - there:
        found.append(f"fills invented: {', '.join(name for name, *_ in here - there)}")
    for market_id, held in truth["positions"].items():
        if float(journal.position(market_id)) != held:
            found.append(f"position of {market_id}: {held} there, {journal.position(market_id)} here")
    if latched := journal.latches():
        found.append(f"latched without need: {latched[0][2]}")
    if wrong := unbalanced(journal.postings()):
        found.append(f"ledger transactions that do not balance: {', '.join(wrong)}")
    return found


def main() -> None:
    """Kill, and say what was found; exit code 1 when something was."""
    parser = argparse.ArgumentParser(prog="python -m ami_engine.testing.kill_campaign", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ami-kill-test-") as folder:
        result = kill_repeatedly(given.kills, Path(folder), seed=given.seed)
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(result), indent=2).decode() + "\n")
    raise SystemExit(1 if result.problems else 0)


if __name__ == "__main__":
    main()
