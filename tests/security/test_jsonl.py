"""Non-finite numbers in lines, and files that only hold whole lines."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ami_engine.errors import TraceError
from ami_engine.security.jsonl import AppendFile, JsonScrubber, restore_floats

_TEXTS = st.sampled_from(
    ["NaN", "Infinity", "-Infinity", "~NaN", "~~Infinity", "x", "", "BananNaN", "~-NaN"]
) | st.text("NaInfity~- ", max_size=12)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | _TEXTS,
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=10),
    max_leaves=25,
)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and bool(one == other)


@given(_VALUES)
def test_numbers_and_lookalike_strings_survive_json(value: Any) -> None:
    line = json.dumps(JsonScrubber().clean(value), allow_nan=False)
    assert _same(restore_floats(json.loads(line)), value)


def test_numpy_numbers_become_text_too() -> None:
    assert JsonScrubber().clean([np.float64("nan"), np.float32(1.0)])[0] == "NaN"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_one_bad_number_among_many_is_found(number: float) -> None:
    row = {f"feature {index}": float(index) for index in range(26)}
    assert JsonScrubber().clean(row) is row
    scrubbed = JsonScrubber().clean({**row, "feature 7": number})
    assert repr(restore_floats(scrubbed["feature 7"])) == repr(number)
    assert isinstance(scrubbed["feature 7"], str)
    assert isinstance(JsonScrubber().clean([*row.values(), number])[-1], str)
    # Finite numbers whose sum is not are left alone.
    huge = [1e308] * 10
    assert JsonScrubber().clean(huge) is huge


class _Row(msgspec.Struct, frozen=True):
    mid: float
    spread_bps: float


def test_structs_take_the_text_in_a_floats_place() -> None:
    assert msgspec.json.encode(JsonScrubber().clean(_Row(0.5, math.inf))) == b'{"mid":0.5,"spread_bps":"Infinity"}'


def test_lines_wait_until_they_are_flushed(tmp_path: Path) -> None:
    file = AppendFile(tmp_path / "x.jsonl", "new")
    file.pending += b"1\n"
    assert file.path.read_bytes() == b""
    file.flush()
    file.pending += b"2\n"
    file.close()
    file.close()
    assert file.path.read_bytes() == b"1\n2\n"
    with pytest.raises(TraceError, match="is closed"):
        file.flush()


def test_modes(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"1\n")
    with pytest.raises(FileExistsError):
        AppendFile(path, "new")
    file = AppendFile(path, "append")
    file.pending += b"2\n"
    file.close()
    assert path.read_bytes() == b"1\n2\n"
    AppendFile(path, "overwrite").close()
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"", b""), (b"1\n", b"1\n"), (b"1\n2", b"1\n"), (b"torn", b""), (b"1\n" + b"\0" * (3 << 20), b"1\n")],
)
def test_a_torn_last_line_is_cut_off(tmp_path: Path, before: bytes, after: bytes) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(before)
    file = AppendFile(path, "append")
    assert file.cut_torn_line() == len(before) - len(after)
    file.pending += b"next\n"
    file.close()
    assert path.read_bytes() == after + b"next\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_device_is_an_error_with_its_reason() -> None:
    file = AppendFile(Path("/dev/full"), "append")
    file.pending += b"1\n"
    with pytest.raises(TraceError, match=f"/dev/full: cannot be written: {os.strerror(errno.ENOSPC)}"):
        file.flush()
    with pytest.raises(TraceError, match="cannot be written"):
        file.flush()
    file.close()


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_when_space_runs_out_the_file_keeps_whole_lines(tmp_path: Path) -> None:
    code = """
import resource, signal, sys
from pathlib import Path
from ami_engine.errors import TraceError
from ami_engine.security.jsonl import AppendFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
file = AppendFile(Path(sys.argv[1]), "new")
file.pending += b"first 31 bytes are in this line\\n"
file.flush()
for n in range(100):
    file.pending += b"line %d of thirty-odd bytes or so\\n" % n
try:
    file.flush()
except TraceError as error:
    print(error)
file.close()
"""
    path = tmp_path / "x.jsonl"
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert run.stderr == ""
    assert os.strerror(errno.EFBIG) in run.stdout
    lines = path.read_bytes().splitlines(keepends=True)
    assert 20 < len(lines) < 100
    assert all(line.endswith(b"\n") for line in lines)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_cannot_write_and_does_not_write_what_its_parent_left(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from ami_engine.errors import TraceError
from ami_engine.security.jsonl import AppendFile
file = AppendFile(Path(sys.argv[1]), "new")
file.pending += b"parent\\n"
child = os.fork()
if child == 0:
    file.pending += b"child\\n"
    try:
        file.flush()
    except TraceError as error:
        file.close()
        os._exit(0 if "forked child" in str(error) else 2)
    os._exit(1)
_, status = os.waitpid(child, 0)
file.close()
sys.exit(os.waitstatus_to_exitcode(status))
"""
    path = tmp_path / "x.jsonl"
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert path.read_bytes() == b"parent\n"
