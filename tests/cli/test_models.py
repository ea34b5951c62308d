"""`ami models`, and a run of a model that another distribution offers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ami_engine.mdm.registry import GROUP

from .conftest import Ami

MAKER = """
from ami_engine.mdm import ModelParam, ModelSpec
from decision_schema.types import Action, Proposal


class Maker:
    def __init__(self, half_ticks, size_usd, quiet):
        self.half, self.size_usd, self.quiet = half_ticks * 0.01, size_usd, quiet

    def __call__(self, features, **_):
        if self.quiet or not features["spread"] > 0:
            return Proposal(Action.HOLD, 0.0, ["quiet"])
        quotes = {"bid_quote": features["mid"] - self.half, "ask_quote": features["mid"] + self.half}
        return Proposal(Action.ACT, 0.7, ["maker"], {**quotes, "size_usd": self.size_usd})


SPEC = ModelSpec(
    factory=Maker,
    description="quotes at a fixed distance",
    params=(
        ModelParam("half_ticks", 1, "distance from the mid", "ticks", low=1, high=50),
        ModelParam("size_usd", 1.0, "size of a quote", "USD", low=0.0),
        ModelParam("quiet", False, "never quotes"),
    ),
    features=("mid", "spread"),
)
TREND = ModelSpec(
    factory=lambda: lambda features, **_: Proposal(Action.HOLD, 0.0, [f"{features['momentum']:.0f}"]),
    description="looks at the trend",
    features=("mid", "momentum", "trend_strength"),
)
"""


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path with a distribution of two models, one of which cannot be imported."""
    folder = tmp_path / "installed"
    info = folder / "acme_models-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-models\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        f"[{GROUP}]\nacme-maker = acme_maker:SPEC\nacme-worn = acme_worn:SPEC\nacme-trend = acme_maker:TREND\n"
    )
    (folder / "acme_maker.py").write_text(MAKER)
    (folder / "acme_worn.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.mark.usefixtures("acme")
def test_models_are_listed_with_whose_they_are(ami: Ami) -> None:
    said = ami("models")
    assert said.code == 0
    rows = dict(line.split(None, 1) for line in said.out.splitlines())
    assert rows["reference"].startswith("built in: a plain market maker")
    assert rows["acme-maker"] == "acme-models 1.2: acme_maker:SPEC"
    assert rows["acme-worn"] == "acme-models 1.2: acme_worn:SPEC"


@pytest.mark.usefixtures("acme")
def test_loading_them_all_shows_which_one_does_not_work(ami: Ami) -> None:
    said = ami("models", "--load", "--json")
    assert said.code == 1
    rows = {row["name"]: row for row in said.document["models"]}
    assert rows["acme-worn"]["fault"] == "ModuleNotFoundError: No module named 'no_such_library'"
    assert rows["acme-maker"]["description"] == "quotes at a fixed distance"
    assert rows["acme-maker"]["features"] == ["mid", "spread"]
    assert [param["range"] for param in rows["acme-maker"]["parameters"]] == ["in [1, 50]", ">= 0", ""]
    assert rows["reference"]["step"] == "compiled"


@pytest.mark.usefixtures("acme")
def test_one_model_is_shown_with_what_it_takes_and_reads(ami: Ami) -> None:
    said = ami("models", "acme-maker")
    assert "half_ticks=1  distance from the mid (int, in [1, 50], ticks)" in said.out
    assert "mid, spread" in said.out
    assert ami("models", "acme-maker", "--json").document["name"] == "acme-maker"
    worn = ami("models", "acme-worn")
    assert worn.code == 2
    assert worn.error.startswith("the model 'acme-worn' of acme-models cannot be used: ModuleNotFoundError")


@pytest.mark.usefixtures("acme")
def test_an_installed_model_runs_by_its_name(ami: Ami, quotes: Path) -> None:
    arguments = ("--model-arg", "half_ticks=2", "--model-arg", "size_usd=5", "--run-dir", "acme")
    summary = ami("run", "--source", quotes, "--model", "acme-maker", *arguments, "--json").document
    assert summary["proposal_counts"] == {"ACT": 200}
    packet = json.loads(Path("acme/traces.jsonl").read_text().splitlines()[50])
    assert packet["mdm"]["params"]["bid_quote"] == pytest.approx(0.48)
    assert packet["mdm"]["params"]["size_usd"] == 5.0
    kept = json.loads(Path("acme/run.json").read_text())
    assert kept["config"]["parts"]["model"] == "acme-maker (acme-models 1.2) half_ticks=2 size_usd=5"
    quiet = ami("run", "--source", quotes, "--model", "acme-maker", "--model-arg", "quiet=true", "--no-trace", "--json")
    assert quiet.document["proposal_counts"] == {"HOLD": 200}


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("acme-make",), "there is no model 'acme-make' (did you mean 'acme-maker'?)"),
        (("acme-worn",), "the model 'acme-worn' of acme-models cannot be used: ModuleNotFoundError"),
        (("acme-maker", "--model-arg", "half_ticks=1.5"), "half_ticks must be a whole number in [1, 50] (ticks)"),
        (("acme-maker", "--model-arg", "half=1"), "'half' is no argument of the model"),
    ],
)
def test_what_is_wrong_with_a_name_or_an_argument_is_one_line(ami: Ami, arguments: tuple[str, ...], line: str) -> None:
    said = ami("run", "--steps", "5", "--model", *arguments)
    assert said.code == 2
    assert line in said.error


@pytest.mark.usefixtures("acme")
def test_a_run_without_signals_takes_a_model_that_reads_none_and_refuses_one_that_does(ami: Ami, quotes: Path) -> None:
    for options, length in (((), 30), (("--no-signals",), 26)):
        arguments = ("--model", "acme-maker", *options, "--run-dir", f"of-{length}", "--json")
        assert ami("run", "--source", quotes, *arguments).document["proposal_counts"] == {"ACT": 200}
        packet = json.loads(Path(f"of-{length}/traces.jsonl").read_text().splitlines()[50])
        assert len(packet["input"]["features"]) == length
    assert ami("run", "--source", quotes, "--model", "acme-trend", "--no-trace").code == 0
    said = ami("run", "--source", quotes, "--model", "acme-trend", "--no-signals", "--run-dir", "refused")
    assert said.code == 2
    assert "acme_maker" in said.error
    assert "reads momentum, trend_strength, which rows without `--signals` lack" in said.error
    assert not Path("refused").exists()


def test_the_reference_model_with_arguments_runs_in_the_compiled_step_as_in_python(
    ami: Ami, quotes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--model-arg", "max_size_usd=7", "--model-arg", "imbalance_threshold=0.45", "--json")
    heads = set()
    for step in ("auto", "python"):
        monkeypatch.setenv("AMI_STEP", step)
        run = ami("run", "--source", quotes, *arguments, "--run-dir", step).document
        assert 0 < run["proposal_counts"]["ACT"] < 200
        heads.add(run["chain_head"])
    assert len(heads) == 1
