"""Client order ids: stable, distinct, and such as venues take."""

from __future__ import annotations

import base64
import hashlib
import re
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from ami_engine.events import Side
from ami_engine.execution.idempotency import client_order_id


def test_an_id_is_the_same_forever() -> None:
    # A change of this literal makes a restarted engine repeat orders that the venue already has.
    assert client_order_id("run-1", "BTCUSDT", 17, Side.BUY) == "amicwgp75rsczkr3xtn6bpjcrw65tqnq"


def test_every_part_matters() -> None:
    parts = product(("r1", "r2"), ("A", "B"), range(20), Side, range(3))
    ids = [client_order_id(run, market, step, side, attempt) for run, market, step, side, attempt in parts]
    assert len(set(ids)) == len(ids) == 2 * 2 * 20 * 2 * 3


def test_where_one_part_ends_matters() -> None:
    assert client_order_id("a", "b1", 1, Side.BUY) != client_order_id("ab", "1", 1, Side.BUY)
    assert client_order_id("a", "b", 11, Side.BUY, 1) != client_order_id("a", "b", 1, Side.BUY, 11)


@given(st.text(), st.text(), st.integers(), st.sampled_from(Side), st.integers(min_value=0))
def test_any_venue_takes_it(run_id: str, market_id: str, step: int, side: Side, attempt: int) -> None:
    assert re.fullmatch("[a-z0-9]{32}", client_order_id(run_id, market_id, step, side, attempt))
    # An independent spelling; asked twice, since what was said before is remembered.
    parts = (run_id, market_id, str(step), side.value, str(attempt))
    digest = hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).digest()
    named = "ami" + base64.b32encode(digest).decode().lower()[:29]
    assert [client_order_id(run_id, market_id, step, side, attempt) for _ in range(2)] == [named, named]
