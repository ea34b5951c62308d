"""The mock exchange keeps the broker contract, in process and through sockets, with every fault of the kit."""

from __future__ import annotations

from typing import Any

import pytest

from ami_engine.testing import FAULTS, check_broker
from ami_engine.testing.exchange_testbeds import in_process, over_http


@pytest.mark.parametrize("factory", [in_process, over_http])
def test_the_mock_exchange_keeps_the_contract(factory: Any) -> None:
    outcomes = check_broker(factory)
    assert {o.name: o.why for o in outcomes if o.result == "broken"} == {}
    # A recorded run cannot move this exchange's market; everything else is tried.
    assert [o.name for o in outcomes if o.result == "not tried"] == ["engine"]


def test_every_fault_of_the_kit_can_be_caused() -> None:
    bed = in_process()
    try:
        assert bed.faults == set(FAULTS)
    finally:
        bed.close()
