"""A disk that fails at the first, second … last write or sync of the journal, once or for ever, then a new start."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from ami_engine.execution.journal import Journal
from ami_engine.state_store import StateStore

# For each number forks a child (so that importing is paid once) which sends orders through the service, each answered,
# and says in a file beside its journal what was sent and what was booked before what may fail next.
_TRADER = """
import os, pathlib, sys
from ami_engine.adapters.base import Broker
from ami_engine.clock import ManualClock
from ami_engine.errors import AmiError
from ami_engine.events import Fill, Side
from ami_engine.execution.journal import Journal
from ami_engine.execution.order_service import OrderIntent, OrderService
from ami_engine.state_store import StateStore

class Venue(Broker):
    def __init__(self, say):
        self.told, self.say = [], say
    def submit_order(self, order):
        self.say("sent", order.client_order_id)
        self.told.append(Fill(trade_id="t-" + order.client_order_id, client_order_id=order.client_order_id,
                              market_id="X", side=order.side, price=order.price, qty=order.qty))
    def process_fills(self, now_ms):
        told, self.told = self.told, []
        return told

def trade(folder):
    out = open(folder / "out", "w")
    def say(*words):
        print(*words, file=out, flush=True)
    try:
        service = OrderService(Venue(say), Journal(StateStore(folder / "j.sqlite"), run_id="r1"), ManualClock(1))
        for step in range(4):
            service.submit(OrderIntent(market_id="X", side=Side.BUY, price=9.5, qty=1.0, step=step), "k")
            for fill in service.poll():
                say("booked", fill.client_order_id)
        service.journal.close()
    except AmiError as error:
        say("refused", type(error).__name__, error)
    say("end")

for at in sys.argv[2:]:
    folder = pathlib.Path(sys.argv[1]) / at
    folder.mkdir()
    child = os.fork()
    if not child:
        os.environ["FAIL_AT"] = at
        os.environ["FAIL_COUNT"] = str(folder / "calls")
        try:
            trade(folder)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
"""


def trade(shim: Path, folder: Path, numbers: Iterable[int], how: str, code: int) -> None:
    """Trade once for each number of a write or sync that fails, 0 for none, in folders of those names."""
    env = os.environ | {"LD_PRELOAD": str(shim), "FAIL_FOR": how, "FAIL_WITH": str(code), "FAIL_NAME": "j.sqlite"}
    command = [sys.executable, "-c", _TRADER, str(folder), *map(str, numbers)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def told(folder: Path, word: str) -> list[str]:
    lines = [line.split(" ", 1) for line in (folder / "out").read_text().splitlines()]
    assert lines[-1] == ["end"], lines
    return [line[1] for line in lines if line[0] == word]


@pytest.mark.parametrize(("how", "code"), [("once", errno.EIO), ("ever", errno.EIO), ("ever", errno.ENOSPC)])
def test_no_failing_write_sends_what_is_not_in_the_journal(shim: Path, folder: Path, how: str, code: int) -> None:
    trade(shim, folder, [0], how, code)
    whole = folder / "0"
    assert (len(told(whole, "sent")), len(told(whole, "booked")), told(whole, "refused")) == (4, 4, [])
    writes = int((whole / "calls").read_text())
    assert writes > 30
    numbers = [*range(1, 40), *range(40, writes + 1, 4)]
    trade(shim, folder, numbers, how, code)
    refusals = 0
    for at in numbers:
        case = folder / str(at)
        sent, booked, refused = told(case, "sent"), told(case, "booked"), told(case, "refused")
        refusals += bool(refused)
        # The next start, on a disk that works again.
        store = StateStore(case / "j.sqlite", durability="off")
        journal = Journal(store, run_id="r1")
        for order_id in sent:
            assert journal.find(order_id) is not None, (at, refused)
        kept = {fill.client_order_id for fill in journal.state.fills}
        assert set(booked) <= kept, (at, refused)
        assert kept <= set(sent)
        # What was written but not said to be is an intent that was not sent: in doubt until the venue is asked.
        unsent = {found.order.client_order_id for found in journal.state.orders} - set(sent)
        assert len(unsent) <= 1
        store.close()
    assert refusals > len(numbers) / 2
