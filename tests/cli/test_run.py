"""`ami run`: what it prints, what it leaves on the disk, and how it ends."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ami_engine.cli.models import load_model
from ami_engine.errors import ConfigError
from ami_engine.trace.reader import read_packets, verify

from .conftest import Ami


def test_json_is_the_summary_and_nothing_else(ami: Ami, quotes: Path) -> None:
    said = ami("run", "--source", quotes, "--tick-size", "0.01", "--json")
    summary = said.document
    assert (said.code, said.err) == (0, "")
    assert (summary["steps"], summary["stopped_reason"]) == (200, "source_exhausted")
    assert summary["orders_submitted"] > 0
    assert Path(summary["trace_path"]).is_file()
    assert Path(summary["audit_path"]).is_file()
    assert verify(summary["trace_path"]).chain_head == summary["chain_head"]


def test_the_table_says_what_json_says(ami: Ami, quotes: Path) -> None:
    arguments = ("run", "--source", quotes, "--tick-size", "0.01", "--no-trace")
    summary, table = ami(*arguments, "--json").document, ami(*arguments).out
    rows = {line.split("  ")[0]: line.split("  ", 1)[1].strip() for line in table.splitlines() if "  " in line}
    assert rows["run"] == summary["run_id"]
    assert rows["steps"] == "200"
    assert rows["ended by"] == "source_exhausted"
    assert rows["orders sent"] == str(summary["orders_submitted"])


def test_the_synthetic_source_is_the_default_and_its_seed_decides(ami: Ami) -> None:
    heads = [
        ami("run", "--steps", "300", "--seed", seed, "--run-dir", folder, "--json").document["chain_head"]
        for seed, folder in ((7, "a"), (7, "b"), (8, "c"))
    ]
    assert heads[0] == heads[1] != heads[2]


def test_processes_with_other_hash_seeds_have_the_same_chain(ami_process: Ami, quotes: Path) -> None:
    heads = {
        ami_process(
            "run", "--source", quotes, "--tick-size", "0.01", "--run-dir", f"run-{seed}", "--json", PYTHONHASHSEED=seed
        ).document["chain_head"]
        for seed in ("1", "2")
    }
    assert len(heads) == 1


def test_steps_bound_the_run(ami: Ami, quotes: Path) -> None:
    summary = ami("run", "--source", quotes, "--steps", "50", "--no-trace", "--json").document
    assert (summary["steps"], summary["stopped_reason"]) == (50, "steps")


def test_no_steps_is_a_whole_run_of_nothing(ami: Ami, quotes: Path) -> None:
    said = ami("run", "--source", quotes, "--steps", "0", "--run-dir", "none", "--json")
    assert said.code == 0
    assert (said.document["steps"], said.document["stopped_reason"]) == (0, "steps")
    assert said.document["chain_head"] == "0" * 64
    assert ami("verify", "none", "--json").document == {
        "ok": True,
        "packets": 0,
        "chain_head": "0" * 64,
        "first_damage": None,
    }


def test_a_dry_run_traces_and_sends_nothing(ami: Ami, quotes: Path) -> None:
    summary = ami("run", "--source", quotes, "--dry-run", "--run-dir", "dry", "--json").document
    assert summary["action_counts"]["ACT"] > 0
    assert summary["orders_submitted"] == summary["fills_count"] == 0
    assert sum(1 for _ in read_packets("dry")) == summary["steps"] + summary["timer_count"]


def test_no_trace_leaves_nothing_behind(ami: Ami, quotes: Path, tmp_path: Path) -> None:
    summary = ami("run", "--source", quotes, "--no-trace", "--json").document
    assert (summary["trace_path"], summary["chain_head"], summary["audit_path"]) == (None, None, None)
    assert [path.name for path in tmp_path.iterdir()] == [quotes.name]


def test_run_directories_are_numbered_when_they_are_not_named(ami: Ami, quotes: Path) -> None:
    paths = [Path(ami("run", "--source", quotes, "--json").document["trace_path"]).parent for _ in range(3)]
    assert paths[0].parent == Path("runs")
    assert [path.name for path in paths[1:]] == [f"{paths[0].name}-2", f"{paths[0].name}-3"]


def test_overwrite_replaces_and_resume_appends(ami: Ami, quotes: Path) -> None:
    arguments = ("run", "--source", quotes, "--steps", "40", "--run-dir", "mine", "--json")
    first = ami(*arguments).document
    assert ami(*arguments, "--overwrite").document["chain_head"] == first["chain_head"]
    ami(*arguments, "--resume")
    report = verify("mine")
    assert report.ok
    assert report.packets == 2 * (first["steps"] + first["timer_count"])


# Bad events. ----------------------------------------------------------------------------------------------------------


def test_bad_events_are_skipped_and_named(ami: Ami, bad_quotes: Path) -> None:
    said = ami("run", "--source", bad_quotes, "--no-trace")
    assert said.code == 0
    assert "bad.jsonl:101: `bid` must not be above `ask`, was 0.52 above 0.51" in said.out
    assert "bad.jsonl:151: not valid JSON" in said.out
    assert "crossed_book 1" in said.out
    summary = ami("run", "--source", bad_quotes, "--no-trace", "--json").document
    assert summary["rejected_events"] == {"crossed_book": 1, "bad_json": 1}
    assert summary["steps"] == 200


def test_a_run_that_a_bad_event_stops_exits_with_1(ami: Ami, bad_quotes: Path) -> None:
    said = ami("run", "--source", bad_quotes, "--no-trace", "--on-bad-event", "stop", "--json")
    assert said.code == 1
    assert said.document["stopped_reason"] == (
        "bad_event: bad.jsonl:101: `bid` must not be above `ask`, was 0.52 above 0.51"
    )
    assert said.document["steps"] == 100
    plain = ami("run", "--source", bad_quotes, "--no-trace", "--on-bad-event", "stop")
    assert plain.code == 1
    assert "bad.jsonl:101" in plain.out + plain.err


# Policies and models. -------------------------------------------------------------------------------------------------


def test_a_policy_file_limits_the_run(ami: Ami, quotes: Path, tmp_path: Path) -> None:
    (tmp_path / "deep.toml").write_text("min_depth = 1000.0\n")
    summary = ami("run", "--source", quotes, "--policy", "deep.toml", "--no-trace", "--json").document
    assert summary["mismatch_reason_counts"]["insufficient_depth"] == 200
    assert "ACT" not in summary["action_counts"]


_MODELS = """
from decision_schema.types import Action, Proposal

def hold(features, confidence=0.25, label="held"):
    return Proposal(Action.HOLD, confidence, [label])

def anything(features, **arguments):
    return Proposal(Action.HOLD, 0.5, sorted(arguments))

no_model = 3
"""


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of models, importable, under a name that no other test has."""
    name = f"models_{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}"
    (tmp_path / f"{name}.py").write_text(_MODELS)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_model_of_your_own_with_arguments(ami: Ami, quotes: Path, models: str) -> None:
    arguments = ("run", "--source", quotes, "--model", f"{models}:hold", "--run-dir", "mine", "--overwrite", "--json")
    assert ami(*arguments).document["hold_reason_counts"]["held"] == 200
    said = ami(*arguments, "--model-arg", "label=waited", "--model-arg", "confidence=0.75")
    assert said.document["hold_reason_counts"]["waited"] == 200
    packet = next(iter(read_packets("mine")))
    assert (packet.mdm["confidence"], packet.mdm["reasons"]) == (0.75, ["waited"])


def test_a_model_in_the_working_folder_is_found_by_a_process_of_its_own(
    ami_process: Ami, quotes: Path, models: str
) -> None:
    said = ami_process("run", "--source", quotes, "--model", f"{models}:hold", "--no-trace", "--json")
    assert said.document["hold_reason_counts"]["held"] == 200


def test_arguments_change_the_run_id_and_the_order_they_are_given_in_does_not(
    ami: Ami, quotes: Path, models: str
) -> None:
    def run_id(*given: str) -> str:
        pairs = [text for pair in given for text in ("--model-arg", pair)]
        arguments = ("run", "--source", quotes, "--model", f"{models}:hold", *pairs, "--no-trace", "--json")
        return str(ami(*arguments).document["run_id"])

    one, other = run_id("label=a", "confidence=0.1"), run_id("confidence=0.1", "label=a")
    assert one == other
    assert len({one, run_id(), run_id("label=b", "confidence=0.1")}) == 3


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("1.5", 1.5), ("1e-3", 1e-3), ("true", True), ("False", False), ("x", "x"), ("a=b", "a=b"), ("", "")],
)
def test_model_arguments_are_numbers_truths_or_text(models: str, text: str, value: object) -> None:
    model = load_model(f"{models}:anything", [f"key={text}"]).model
    assert model is not None
    assert model({}).reasons == ["key"]
    taken: dict[str, object] = {}
    function = load_model("builtins:dict", [f"key={text}"]).model
    assert function is not None
    taken.update(function({}))
    assert taken == {"key": value}
    assert type(taken["key"]) is type(value)


def test_an_argument_that_the_model_does_not_take_is_refused(models: str) -> None:
    with pytest.raises(ConfigError, match=r"'lable' is no argument of .*:hold; known: confidence, label"):
        load_model(f"{models}:hold", ["lable=x"])


def test_the_reference_model_takes_its_arguments(ami: Ami, quotes: Path) -> None:
    def act_sizes(size: str) -> set[float]:
        folder = f"size-{size}"
        ami("run", "--source", quotes, "--model-arg", f"max_size_usd={size}", "--run-dir", folder)
        return {p.mdm["params"]["size_usd"] for p in read_packets(folder) if p.mdm["action"] == "ACT"}

    assert act_sizes("2") == {2.0}
    assert act_sizes("3.5") == {3.5}


def test_levels_reach_the_features_without_a_declared_instrument(ami: Ami, tmp_path: Path) -> None:
    book = {"ts_ms": 1, "symbol": "X", "bids": [[0.49, 2.0], [0.48, 3.0]], "asks": [[0.51, 4.0], [0.52, 5.0]]}
    (tmp_path / "books.jsonl").write_text(json.dumps(book))
    ami("run", "--source", "books.jsonl", "--levels", "1", "--run-dir", "one")
    (packet,) = read_packets("one")
    assert packet.input["features"]["depth"] == 6.0


# Recorded feeds through the command line. -----------------------------------------------------------------------------


def test_the_readmes_kind_of_call_on_a_recorded_feed(ami: Ami, data_dir: Path) -> None:
    shipped = Path(__file__).resolve().parents[2] / "docs" / "examples" / "feeds"
    book, messages = (data_dir / f"lobster-aapl-20120621-{name}10.csv" for name in ("book", "msg"))
    said = ami(
        "run", "--source", f"{book},{messages}", "--date", "2012-06-21",
        "--instrument", shipped / "lobster-aapl.instrument.toml", "--policy", shipped / "lobster-aapl.policy.toml",
        "--model-arg", "max_size_usd=60000", "--run-dir", "aapl", "--json",
    )  # fmt: skip
    assert said.code == 0
    assert said.document["steps"] == 1_158
    assert said.document["fills_count"] > 0
    assert json.loads(ami("verify", "aapl", "--json").out)["chain_head"] == said.document["chain_head"]


def test_a_journal_is_kept_where_it_is_asked_for(ami: Ami, quotes: Path, tmp_path: Path) -> None:
    path = tmp_path / "kept" / "journal.sqlite"
    arguments = ("run", "--source", quotes, "--tick-size", "0.01", "--steps", "50", "--no-trace", "--json")
    said = ami(*arguments, "--journal", path, "--durability", "normal").document
    assert said["journal_path"] == str(path)
    with closing(sqlite3.connect(path)) as kept:
        assert kept.execute("SELECT count(*) FROM orders").fetchone() == (said["orders_submitted"],)
    assert "journal_path" not in ami(*arguments).document


def test_durability_is_a_journals(ami: Ami, quotes: Path) -> None:
    said = ami("run", "--source", quotes, "--no-trace", "--durability", "full")
    assert said.code == 2
    assert "`--durability` is for a journal" in said.err
