"""Packets as dicts and back."""

from __future__ import annotations

from collections import OrderedDict
from types import MappingProxyType

import numpy as np
import pytest

from decision_schema import __version__
from decision_schema.packet_v2 import PacketV2, to_plain
from decision_schema.types import Action, FinalDecision, Proposal

_DATA = {
    "run_id": "run_1",
    "step": 3,
    "input": {"mid": 0.5},
    "external": {"now_ms": 1},
    "mdm": {"action": "ACT"},
    "final_action": {"action": "HOLD"},
    "latency_ms": 0.25,
}


def test_to_dict_has_every_field_and_plain_values() -> None:
    proposal = Proposal(Action.ACT, 0.5, params={"bid_quote": 0.49})
    packet = PacketV2("run_1", 0, {"row": np.array([1.0, 2.0])}, {}, proposal, FinalDecision(Action.HOLD), 0.1)
    data = packet.to_dict()
    assert list(data) == list(PacketV2.__struct_fields__)
    assert data["input"] == {"row": [1.0, 2.0]}
    assert type(data["mdm"]["action"]) is str
    assert data["final_action"]["allowed"] is True
    assert data["mismatch"] is None
    assert data["schema_version"] == __version__


def test_to_dict_shares_nothing_with_the_packet() -> None:
    packet = PacketV2(**_DATA)  # type: ignore[arg-type]
    packet.to_dict()["input"]["mid"] = 9.0
    assert packet.input == {"mid": 0.5}


def test_from_dict_takes_a_missing_version_for_the_current_one_and_leaves_its_argument_alone() -> None:
    data = dict(_DATA)
    assert PacketV2.from_dict(data).schema_version == __version__
    assert data == _DATA
    assert PacketV2.from_dict({**data, "schema_version": "0.1.0"}).schema_version == "0.1.0"
    assert PacketV2.from_dict(MappingProxyType(data)).mismatch is None


@pytest.mark.parametrize("key", list(_DATA))
def test_from_dict_names_the_key_that_is_missing(key: str) -> None:
    with pytest.raises(ValueError, match=f"`{key}`"):
        PacketV2.from_dict({name: value for name, value in _DATA.items() if name != key})


def test_from_dict_refuses_what_it_would_lose() -> None:
    with pytest.raises(ValueError, match="`surprise`"):
        PacketV2.from_dict({**_DATA, "surprise": 1})


def test_to_plain_names_the_type_and_never_the_value() -> None:
    class Opaque:
        def __repr__(self) -> str:
            return "api_key=canary"

    with pytest.raises(NotImplementedError, match="Opaque") as raised:
        to_plain(Opaque())
    assert "canary" not in str(raised.value)
    assert to_plain(np.float64(1.5)) == 1.5
    assert to_plain(MappingProxyType(OrderedDict(a=1))) == {"a": 1}
