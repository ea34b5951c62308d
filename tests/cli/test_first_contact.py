"""What somebody sees who has never used `ami` and gets it wrong: one line that names the thing and says what to do.

A row: the command, its exit code, and a pattern of the whole line. `{...}` are files that `folder` makes.
"""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Ami, anywhere, quote_line

WRONG_SOURCES = {
    "no such file": ("run --source nowhere.jsonl", 2, r"nowhere\.jsonl: cannot be read: No such file or directory"),
    "no such folder": ("run --source no/x.csv", 2, r"no/x\.csv: cannot be read: No such file or directory"),
    "no name": ("run --source ''", 2, r"`--source` must name a file, or be `synthetic`, was empty"),
    "a folder": ("run --source folder", 2, r"folder: is a directory: name a recorded file in it"),
    "a folder for a table": ("features --source folder --out x.csv", 2, r"folder: is a directory: name a .*"),
    "empty jsonl": (
        "run --source empty.jsonl --no-trace",
        2,
        r"empty\.jsonl: holds no event: is it the right file, .*",
    ),
    "empty table": (
        "features --source empty.jsonl --out x.csv",
        2,
        r"empty\.jsonl: holds no event: is it the right .*",
    ),
    "empty csv": ("run --source empty.csv", 2, r"empty\.csv: is empty, a header was expected"),
    "empty parquet": ("run --source empty.parquet", 2, r"empty\.parquet: is not a whole Parquet file: .*0 bytes"),
    "some text": (
        "run --source text.jsonl",
        2,
        r"text\.jsonl: is not JSON lines: none of its first lines is an object",
    ),
    "no parquet": ("run --source text.parquet", 2, r"text\.parquet: is not a whole Parquet file: .*"),
    "no dbn": ("run --source text.dbn", 2, r"text\.dbn: is not a DBN file: .*"),
    "no gzip": ("run --source text.jsonl.gz", 2, r"text\.jsonl\.gz: is named \.gz but is not a gzip file"),
    "format unclear": ("run --source capture", 2, r"capture: the name .* pass `--format`, one of jsonl, csv, .*"),
    "format unknown": ("run --source quotes.jsonl --format json", 2, r"`--format` must be one of jsonl, .* was 'json'"),
    "jsonl as csv": ("run --source quotes.jsonl --format csv", 2, r"quotes\.jsonl: no column .* \(`--columns`\) .*"),
    "csv as jsonl": ("run --source other.csv --format jsonl", 2, r"other\.csv: is not JSON lines: .*"),
    "jsonl as capture": ("run --source quotes.jsonl --format binance", 2, r"quotes\.jsonl: is not a raw Binance .*"),
    "half of a pair": ("run --source quotes.jsonl --format lobster", 2, r"format 'lobster' takes BOOK,MESSAGES"),
    "columns unknown": (
        "run --source other.csv",
        2,
        r"other\.csv: no column .* a column map \(`--columns`\).*there are a, b",
    ),
    "symbol not there": (
        "run --source quotes.jsonl --symbol Y --no-trace",
        2,
        r"quotes.*'Y' was found; the file holds X",
    ),
    "all crossed": (
        "run --source crossed.jsonl --no-trace",
        2,
        r"crossed\.jsonl: no event could be used; the first reason: crossed\.jsonl:1: `bid` must not be above `ask`.*",
    ),
    "all of a wrong type": (
        "features --source words.jsonl --out x.csv",
        2,
        r"words\.jsonl: no event could be used; the first reason: words\.jsonl:1: `bid` must be a number, was 'cheap'",
    ),
    "stop at the first": (
        "run --source crossed.jsonl --no-trace --on-bad-event stop",
        1,
        r"the run ended by bad_event: crossed\.jsonl:1: `bid` must not be above `ask`, was 0\.59 above 0\.51",
    ),
    "a list": ("run --source list.jsonl", 2, r"list\.jsonl: is not JSON lines: .*; it is a list: write each .*"),
    "an address": ("run --source https://x.org/q.jsonl", 2, r"https://x\.org/q\.jsonl: is an address, .*: name a file"),
    "nothing without an ending": ("run --source nowhere", 2, r"nowhere: cannot be read: No such file or directory"),
    "in UTF-16": ("run --source utf16.jsonl", 2, r"utf16\.jsonl: is not JSON lines: .*"),
    "semicolons": (
        "run --source semicolons.csv",
        2,
        r"semicolons\.csv: no column is named .*: there are ts_ms;bid;ask",
    ),
    "times in words": (
        "run --source iso.jsonl --no-trace",
        2,
        r"iso\.jsonl: no event could be used; .*1: `ts_ms` must be a number, was '2024-01-01T00:00:00Z'",
    ),
    "a day that is none": ("run --source a.csv,b.csv --date 2020-13-45", 2, r"`--date` must be YYYY-MM-DD, was .*"),
    "a day of no use": ("run --source quotes.jsonl --date 2020-01-01", 2, r"`--date` is for LOBSTER recordings .*"),
    "a file and synthetic": ("run --symbol X", 2, r"`--symbol` describes a file; the synthetic source has its own, .*"),
}

WRONG_SETTINGS = {
    "policy not there": ("run --policy no.toml", 2, r"no\.toml: cannot be read: No such file or directory"),
    "policy a folder": ("run --policy folder", 2, r"folder: cannot be read: Is a directory"),
    "policy in JSON": ("run --policy policy.json", 2, r"policy\.json: is no TOML: .* line 1, column 1\)"),
    "policy of bytes": ("run --policy bytes.toml", 2, r"bytes\.toml: cannot be read: it is no UTF-8 text"),
    "policy misspelt": (
        "run --policy typo.toml",
        2,
        r"typo\.toml: `max_spread_bp` .*; did you mean `max_spread_bps`\?",
    ),
    "policy out of range": (
        "run --policy range.toml",
        2,
        r"range\.toml: `max_spread_bps` must be a number >= 0, was -5",
    ),
    "policy not a number": ("run --policy nan.toml", 2, r"nan\.toml: `max_spread_bps` must be a number >= 0, was nan"),
    "policy with a unit": (
        "run --policy unit.toml",
        2,
        r"unit\.toml: `daily_loss_stop_usd` must be a number .*'1 EUR'",
    ),
    "policy in tables": ("run --policy tables.toml", 2, r"tables\.toml: `limits` .* the keys are flat, without tables"),
    "instrument misspelt": (
        "run --source quotes.jsonl --instrument typo.toml",
        2,
        r"typo\.toml: instrument 1: .*`max_spread_bp`; its keys are symbol, tick_size, lot_size, .*",
    ),
    "instrument with a unit": (
        "run --source quotes.jsonl --instrument tick.toml",
        2,
        r"tick\.toml: instrument 1: `tick_size` must be a number, was '.*'",
    ),
    "column map misspelt": (
        "run --source other.csv --columns typo.toml",
        2,
        r"typo\.toml: .*`max_spread_bp`; its keys are .*",
    ),
    "column map of jsonl": (
        "run --source quotes.jsonl --columns typo.toml",
        2,
        r"`--columns` says what the columns .*",
    ),
    "tick size no number": (
        "run --source quotes.jsonl --tick-size nan",
        2,
        r"`--tick-size` must be finite and > 0, .*",
    ),
    "cash no number": ("run --steps 5 --cash nan --no-trace", 2, r"`--cash` must be finite, was nan"),
    "timer no number": ("run --steps 5 --timer-ms nan", 2, r"`--timer-ms` must be finite and >= 0, was nan"),
    "levels too many": (
        "run --steps 5 --levels 5000 --no-trace",
        2,
        r"`--levels` must be an integer from 1 to 1000, .*",
    ),
    "steps negative": ("run --steps -5", 2, r"Invalid value for '--steps': .*; see `ami run --help`"),
    "steps in words": (
        "run --steps many",
        2,
        r"Invalid value for '--steps': .* integer, was 'many'; see `ami run --help`",
    ),
    "decimal comma": (
        "run --source quotes.jsonl --tick-size 0,01",
        2,
        r"Invalid value for '--tick-size': .* number, was '0,01'; see `ami run --help`",
    ),
    "unit unknown": (
        "run --source other.csv --columns minutes.toml",
        2,
        r"minutes\.toml: `time_unit` must be one of s, ms, us, ns, iso, was 'minutes'",
    ),
    "scale not said": (
        "run --source other.csv --columns scale.toml",
        2,
        r"scale\.toml: `price_scale` is missing: what is it\?",
    ),
    "instruments in the plural": (
        "run --source quotes.jsonl --instrument plural.toml",
        2,
        r"plural\.toml: `instruments` must be called `instrument`: .*",
    ),
    "seed negative": ("run --steps 5 --seed -1 --no-trace", 2, r"`--seed` must be an integer of at least 0, was -1"),
    "choice misspelt": ("run --queue middle", 2, r"Invalid value for '--queue': 'middle' is not one of 'back', .*"),
    "lot negative": (
        "run --source quotes.jsonl --instrument lot.toml",
        2,
        r"lot\.toml: instrument 1: `lot_size` of instrument 'X' must be finite and >= 0, was -1\.0",
    ),
    "policy says it twice": ("run --policy twice.toml", 2, r"twice\.toml: is no TOML: Cannot overwrite .*line 2.*"),
    "policy of truths": (
        "run --policy truth.toml",
        2,
        r"truth\.toml: `max_spread_bps` must be a number >= 0, was True",
    ),
    "bad event what": (
        "run --steps 5 --no-trace --on-bad-event x",
        2,
        r"`--on-bad-event` must be 'skip' or 'stop', .*",
    ),
    "durability of what": ("run --steps 5 --no-trace --durability off", 2, r"`--durability` is for a journal: give .*"),
    "option misspelt": ("run --sources x", 2, r"No such option: --sources \(.*--source.*\); see `ami run --help`"),
    "command misspelt": ("rum", 2, r"No such command 'rum'\. Did you mean 'run'\?; see `ami --help`"),
    "argument too many": (
        "run quotes.jsonl",
        2,
        r"Got .* \(quotes\.jsonl\): a file is named with `--source`; .*",
    ),
    "argument missing": ("verify", 2, r"Missing argument 'run_dir'; see `ami verify --help`"),
}

WRONG_MODELS = {
    "no colon": ("run --model lean", 2, r"`--model`: there is no model 'lean'; there are .*; `module:attribute` .*own"),
    "name misspelt": ("run --model refrence", 2, r"`--model`: there is no model .* \(did you mean 'reference'\?\).*"),
    "list of what": ("models lean", 2, r"there is no model 'lean'; there are reference.*"),
    "no such module": ("run --model nomodule:f", 2, r"`--model` 'nomodule:f' cannot be loaded: No module named .*"),
    "a file for a module": (
        "run --model lean.py:f",
        2,
        r"`--model` 'lean\.py:f' cannot be loaded: .*; a module has no ending: lean:f",
    ),
    "no such name": ("run --model math:lean", 2, r"`--model` 'math:lean' cannot be loaded: module 'math' has no .*"),
    "no function": (
        "run --model math:pi",
        2,
        r"`--model` 'math:pi' must be callable, as model\(features\), was 3\.14.*",
    ),
    "does not compile": ("run --model fc_syntax:f", 2, r"`--model` 'fc_syntax:f' cannot be loaded: SyntaxError: .*"),
    "fails at import": ("run --model fc_fails:f", 2, r"`--model` 'fc_fails:f' .*: ZeroDivisionError: division by zero"),
    "argument misspelt": ("run --model-arg max_size=1", 2, r"`--model-arg` 'max_size' is no argument .*max_size_usd.*"),
    "argument no number": (
        "run --model-arg max_size_usd=nan",
        2,
        r"`--model-arg` max_size_usd must be a number >= 0 \(USD\), was nan; see `ami models reference`",
    ),
    "argument in words": ("run --model-arg max_size_usd=two", 2, r"`--model-arg` max_size_usd must be .*'two'; see .*"),
    "argument out of range": (
        "run --model-arg imbalance_threshold=2",
        2,
        r"`--model-arg` imbalance_threshold must be a number in \[0, 1\], was 2\.0; see `ami models reference`",
    ),
    "argument twice": (
        "run --model-arg max_size_usd=1 --model-arg max_size_usd=2",
        2,
        r"`--model-arg` max_size_usd is given twice",
    ),
    "argument without value": ("run --model-arg size", 2, r"`--model-arg` must be k=v, was 'size'"),
}

WRONG_RUN_DIRS = {
    "used before": (
        "run --steps 20 --run-dir done",
        2,
        r"`--run-dir` 'done' is not empty: choose another, or `--resume` \(append to\) or `--overwrite` \(replace\) it",
    ),
    "a file": ("run --steps 20 --run-dir quotes.jsonl", 2, r"`--run-dir` must be a directory, was the file .*"),
    "below a file": ("run --steps 20 --run-dir quotes.jsonl/x", 2, r"quotes\.jsonl/x: Not a directory"),
    "resume of what": ("run --steps 20 --resume", 2, r"`--resume` needs `--run-dir`: which run's directory\?"),
    "overwrite what": ("run --steps 20 --overwrite", 2, r"`--overwrite` needs `--run-dir`: which run's directory\?"),
    "both": ("run --resume --overwrite --run-dir done", 2, r"`--resume` and `--overwrite` exclude each other.*"),
    "release by nobody": (
        "run --steps 5 --no-trace --release daily_loss",
        2,
        r"`--operator` of a release must not be .*",
    ),
    "operator of nothing": (
        "run --steps 5 --operator me",
        2,
        r"`--operator` says who .* name the latch with `--release`",
    ),
    "verify nothing": ("verify nowhere", 2, r"nowhere: No such file or directory"),
    "verify no run": ("verify folder", 2, r"folder: holds no trace \(traces\.jsonl or traces\.bin\): is it the .*"),
    "verify no trace": (
        "verify quotes.jsonl",
        1,
        r"quotes\.jsonl: damaged at line 1: not_a_packet: .*; is it a trace\?",
    ),
    "verify a cut trace": ("verify cut.jsonl", 1, r"cut\.jsonl: damaged at line \d+: torn_line: .*"),
    "verify a changed trace": ("verify changed.jsonl", 1, r"changed\.jsonl: damaged at line 3: bad_crc: .*"),
    "verify one line less": ("verify shorter.jsonl", 1, r"shorter\.jsonl: damaged at line 3: missing_seq: .*"),
    "picture of what kind": ("run --plot out.pdf", 2, r"a picture must be named \.html or \.png, was 'out\.pdf'"),
    "picture in no folder": ("run --plot no/x.html", 2, r"the picture 'no/x\.html' .*: there is no folder 'no'"),
    "picture of nothing": ("plot nowhere", 2, r"nowhere holds no trace to draw: name the folder of a run .*"),
    "control of nothing": ("control pause", 2, r"Missing argument 'run_dir'; see `ami control --help`"),
    "control how": ("control stop .", 2, r"Invalid value for 'verb': 'stop' is not one of 'pause', .*; see .*"),
    "latch of what": (
        "run --steps 5 --no-trace --release odd --operator me --reason x",
        2,
        r"`--release` must name what is latched \(nothing\), was 'odd'",
    ),
    "convert to what": ("convert quotes.jsonl out.xyz", 2, r"`out` must end in \.jsonl, .*, was 'out\.xyz'"),
    "convert no run": ("convert folder out.jsonl", 2, r"folder: holds no trace .*"),
    "convert onto a file": ("convert done quotes.jsonl", 2, r"quotes\.jsonl: exists already"),
    "convert a cut trace": ("convert cut.jsonl out.jsonl", 1, r"cut\.jsonl: .*torn_line: .*"),
    "table of what kind": (
        "features --source quotes.jsonl --out x",
        2,
        r"`--out` must end in \.parquet or \.csv, was 'x'",
    ),
    "table in no folder": ("features --source quotes.jsonl --out no/x.csv", 2, r"no/x\.csv: No such file or directory"),
}

TABLES = {
    f"{about}: {name}": row
    for about, rows in (
        ("source", WRONG_SOURCES),
        ("settings", WRONG_SETTINGS),
        ("model", WRONG_MODELS),
        ("files", WRONG_RUN_DIRS),
    )
    for name, row in rows.items()
}


@pytest.fixture
def folder(ami: Ami, tmp_path: Path, quotes: Path) -> Path:
    """A folder with everything that somebody might name by mistake."""
    (tmp_path / "folder").mkdir()
    for name in ("empty.jsonl", "empty.csv", "empty.parquet"):
        (tmp_path / name).touch()
    for name in ("text.jsonl", "text.parquet", "text.dbn", "text.jsonl.gz", "capture"):
        (tmp_path / name).write_text("hello\n")
    lines = [quote_line(number) for number in range(5)]
    (tmp_path / "crossed.jsonl").write_text("\n".join(lines).replace("0.49", "0.59") + "\n")
    (tmp_path / "words.jsonl").write_text("\n".join(lines).replace("0.49", '"cheap"') + "\n")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "a.csv").write_text("5859400,200,5853300,18\n")
    (tmp_path / "b.csv").write_text("34200.1,1,16113575,18,5853300,1\n")
    (tmp_path / "list.jsonl").write_text(f"[{','.join(lines)}]\n")
    (tmp_path / "utf16.jsonl").write_text("\n".join(lines), encoding="utf-16")
    (tmp_path / "iso.jsonl").write_text(re.sub(r'"ts_ms": \d+', '"ts_ms": "2024-01-01T00:00:00Z"', "\n".join(lines)))
    (tmp_path / "semicolons.csv").write_text("ts_ms;bid;ask\n1700000000000;0.49;0.51\n")
    (tmp_path / "policy.json").write_text('{"max_spread_bps": 5}\n')
    (tmp_path / "bytes.toml").write_bytes(gzip.compress(b"max_spread_bps = 5\n"))
    for name, text in {
        "typo": "max_spread_bp = 5",
        "range": "max_spread_bps = -5",
        "nan": "max_spread_bps = nan",
        "unit": 'daily_loss_stop_usd = "1 EUR"',
        "tables": "[limits]\nmax_spread_bps = 5",
        "tick": 'symbol = "X"\ntick_size = "0.01 USD"',
        "other_policy": "max_spread_bps = 60",
        "lot": 'symbol = "X"\ntick_size = 0.01\nlot_size = -1',
        "twice": "max_spread_bps = 5\nmax_spread_bps = 6",
        "truth": "max_spread_bps = true",
        "other_symbol": 'symbol = "Y"\ntick_size = 0.01',
        "plural": '[[instruments]]\nsymbol = "X"\ntick_size = 0.01',
        "minutes": 'kind = "quote"\ntime_unit = "minutes"',
        "scale": 'kind = "quote"\ntime_unit = "ms"\n[columns]\nts = "a"',
    }.items():
        (tmp_path / f"{name}.toml").write_text(text + "\n")
    (tmp_path / "fc_syntax.py").write_text("def f(features:\n")
    (tmp_path / "fc_fails.py").write_text("f = 1 / 0\n")
    assert ami("run", "--source", quotes, "--steps", 20, "--run-dir", "done").code == 0
    trace = (tmp_path / "done" / "traces.jsonl").read_text()
    packets = trace.splitlines(keepends=True)
    (tmp_path / "cut.jsonl").write_text(trace[:-20])
    (tmp_path / "changed.jsonl").write_text("".join([*packets[:2], packets[2].replace("0.49", "0.48"), *packets[3:]]))
    (tmp_path / "shorter.jsonl").write_text("".join(packets[:2] + packets[3:]))
    return tmp_path


def split(command: str) -> list[str]:
    return [word.strip("'") for word in command.split()]


@pytest.mark.parametrize(("command", "code", "line"), TABLES.values(), ids=TABLES.keys())
def test_a_wrong_input_is_one_line_that_says_what_to_do(
    ami: Ami, folder: Path, command: str, code: int, line: str
) -> None:
    if ".parquet" in command:
        pytest.importorskip("pyarrow")
    if ".dbn" in command:
        pytest.importorskip("databento_dbn")
    before = sorted(folder.rglob("*"))
    said = ami(*split(command))
    assert said.code == code
    assert re.fullmatch(line, said.error), said.error
    left = [path for path in sorted(folder.rglob("*")) if "__pycache__" not in path.parts]
    assert left == before or command.startswith("features --source")


def test_the_table_is_long_enough_to_mean_something() -> None:
    assert len(TABLES) >= 30
    assert len({command for command, _, _ in TABLES.values()}) == len(TABLES)


WITHOUT = """
import sys
for name in ("pyarrow", "databento_dbn", "zstandard"):
    sys.modules[name] = None
from ami_engine.cli import main
main()
"""


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("run --source text.parquet", r"ami: reading Parquet .* pip install 'mdm-engine\[data\]'\n"),
        ("run --source text.dbn", r"ami: reading DBN .* pip install 'mdm-engine\[data\]'\n"),
        ("features --source synthetic --out x.parquet", r"ami: writing Parquet .*\[data\]', or name a \.csv file\n"),
    ],
)
def test_a_missing_extra_is_named_with_how_to_install_it(folder: Path, command: str, line: str) -> None:
    """In a process in which the extra's packages cannot be imported."""
    arguments = [sys.executable, "-c", WITHOUT, *split(command)]
    done = subprocess.run(arguments, cwd=folder, env=anywhere(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(line, done.stderr), done.stderr


def test_an_unknown_backend_is_refused_by_name(folder: Path) -> None:
    arguments = [sys.executable, "-m", "ami_engine", "run", "--steps", "5", "--no-trace"]
    environment = anywhere(AMI_BACKEND="fast")
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"ami: AMI_BACKEND must be one of auto, native, numba, reference, was 'fast'\n", done.stderr)


def test_a_run_resumed_under_other_settings_says_which_and_goes_on(ami: Ami, folder: Path) -> None:
    again = ("run", "--source", "quotes.jsonl", "--steps", 20, "--run-dir", "done", "--resume", "--json")
    same = ami(*again, "--source", folder / "quotes.jsonl").document
    assert not [note for note in same["notes"] if "resumed" in note]
    other = ami(*again, "--policy", "other_policy.toml", "--source", folder / "quotes.jsonl").document
    [note] = [note for note in other["notes"] if "resumed" in note]
    assert re.fullmatch(
        r"resumed under other settings than before \(policy\.max_spread_bps: [\d.]+, now 60\.0\): choose another .*",
        note,
    )


def test_a_model_that_fails_at_every_step_is_shown_in_the_summary(ami: Ami, folder: Path) -> None:
    (folder / "fc_broken.py").write_text("def f(features):\n    raise ValueError('no idea')\n")
    said = ami("run", "--model", "fc_broken:f", "--source", "quotes.jsonl", "--steps", "20", "--run-dir", "broken")
    assert said.code == 0
    assert re.search(r"^last error +the model failed: see private_hook_error in the audit log$", said.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "new"), [("170000000", "170"), ('"ts_ms": 1', '"other": 1')], ids=["in seconds", "without a time"]
)
def test_times_that_cannot_be_of_today_are_told_in_a_note(ami: Ami, folder: Path, text: str, new: str) -> None:
    lines = (folder / "quotes.jsonl").read_text()
    (folder / "old.jsonl").write_text(lines.replace(text, new))
    for trace in ("--no-trace", "--run-dir=old"):
        notes = ami("run", "--source", "old.jsonl", trace, "--json").document["notes"]
        assert [note for note in notes if note.startswith("the events are of the 1970s: they have no time, or one in")]
    assert ami("run", "--source", "quotes.jsonl", "--no-trace", "--json").document["notes"] == []


@pytest.mark.parametrize("step", ["auto", "python"])
def test_prices_that_do_not_fit_the_tick_size_are_told_in_a_note(
    ami: Ami, folder: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setenv("AMI_STEP", step)
    for tick_size, found in (("1", 1), ("0.01", 0)):
        run = ("run", "--source", "quotes.jsonl", "--tick-size", tick_size, "--no-trace", "--json")
        notes = ami(*run).document["notes"]
        assert len([note for note in notes if "are no multiples of its tick size 1.0" in note]) == found


def test_an_instrument_of_another_symbol_is_told_in_a_note(ami: Ami, folder: Path) -> None:
    described = ("run", "--source", "quotes.jsonl", "--instrument", "other_symbol.toml", "--no-trace", "--json")
    assert "no instrument is given for X, which has the default one; given: Y" in ami(*described).document["notes"]


def test_the_short_name_of_help_is_known(ami: Ami) -> None:
    for arguments in (("-h",), ("run", "-h"), ("data", "check", "-h")):
        said = ami(*arguments)
        assert said.code == 0
        assert "Usage" in said.out
