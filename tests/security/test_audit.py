"""The audit keeps every record, in order, without secrets."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from ami_engine.clock import ManualClock
from ami_engine.errors import TraceError
from ami_engine.events import Side, SubmitOrder
from ami_engine.security import AuditLogger

CANARY = "cAnArY9f3b"


def _records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_records_carry_the_clocks_time_and_their_number_and_are_written_at_once(tmp_path: Path) -> None:
    clock = ManualClock(5)
    audit = AuditLogger(tmp_path / "run", clock)
    audit.record("submission", market_id="X", price=0.5)
    clock.advance_to(9)
    audit.record("my_own_kind")
    assert _records(tmp_path / "run" / "security_audit.jsonl") == [
        {"seq": 0, "ts_ns": 5, "kind": "submission", "market_id": "X", "price": 0.5},
        {"seq": 1, "ts_ns": 9, "kind": "my_own_kind"},
    ]
    assert audit.records == 2
    audit.close()


def test_own_names_of_fields_do_not_hide_the_records(tmp_path: Path) -> None:
    with AuditLogger(tmp_path, ManualClock(5)) as audit:
        audit.record("error", kind="book", seq=7, ts_ns=8)
    assert _records(audit.path) == [{"seq": 0, "ts_ns": 5, "kind": "error", "kind_": "book", "seq_": 7, "ts_ns_": 8}]


def test_no_canary_reaches_the_file(tmp_path: Path) -> None:
    class Leaky:
        def __repr__(self) -> str:
            return CANARY

    class LeakyDict:
        def as_dict(self) -> dict[str, str]:
            return {"api_key": CANARY, "url": f"https://x?signature={CANARY}"}

    class Failing:
        def as_dict(self) -> dict[str, str]:
            raise RuntimeError(CANARY)

    order = SubmitOrder(client_order_id=f"token={CANARY}", market_id="X", side=Side.BUY, price=0.5, qty=1.0)
    with AuditLogger(tmp_path, ManualClock()) as audit:
        audit.record("submission", order=order, api_key=CANARY, nested=[{"headers": {"a": CANARY}}])
        audit.record("error", error=ConnectionError(f"password {CANARY}"), text=f"Bearer {CANARY}")
        audit.record("error", value=Leaky(), other=LeakyDict(), failing=Failing(), raw=f"secret={CANARY}".encode())
    text = audit.path.read_text()
    assert CANARY not in text
    first, second, third = _records(audit.path)
    assert first["order"]["market_id"] == "X"
    assert second["error"] == "ConnectionError"
    assert third["value"].endswith("Leaky>")
    assert third["failing"].endswith("Failing>")


def test_what_json_cannot_hold_does_not_lose_the_record(tmp_path: Path) -> None:
    loop: dict[str, Any] = {}
    loop["self"] = loop
    with AuditLogger(tmp_path, ManualClock()) as audit:
        audit.record("error", text="\ud800", loop=loop)
        audit.record("\ud800", x=1)
        audit.record("error", price=math.nan, loop=loop)
    first, second, third = _records(audit.path)
    assert (first["kind"], first["lost"]) == ("error", ["'text'", "'loop'"])
    assert (second["seq"], second["lost"]) == (1, ["'x'"])
    assert third["price"] == "NaN"


def test_an_existing_audit_is_continued_and_a_torn_line_reported(tmp_path: Path) -> None:
    with AuditLogger(tmp_path, ManualClock()) as audit:
        audit.record("start")
        audit.record("stop")
    with audit.path.open("ab") as file:
        file.write(b'{"seq":2,"ts')
    with AuditLogger(tmp_path, ManualClock(3)) as audit:
        audit.record("start")
    assert [(r["seq"], r["kind"]) for r in _records(audit.path)] == [
        (0, "start"),
        (1, "stop"),
        (2, "repair"),
        (3, "start"),
    ]
    assert _records(audit.path)[2]["cut_bytes"] == 12


def test_a_failing_or_closed_file_is_a_trace_error(tmp_path: Path) -> None:
    audit = AuditLogger(tmp_path, ManualClock())
    audit.close()
    audit.close()
    with pytest.raises(TraceError, match="is closed"):
        audit.record("start")
    (tmp_path / "file").write_text("")
    with pytest.raises(TraceError, match="cannot be opened"):
        AuditLogger(tmp_path / "file", ManualClock())
