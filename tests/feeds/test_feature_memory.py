"""`ami features` over a long file: memory does not grow with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# The kernel's own high-water mark of this process: not inherited, unlike what `resource` says of a child.
_MEASURE = """
import sys
from ami_engine.cli import main
try:
    main()
finally:
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            sys.stderr.write(line.split()[1])
"""


def write_quotes(path: Path, lines: int) -> None:
    """Quotes 10 ms apart that walk up and down by ticks, no two lines alike."""
    with path.open("w", encoding="utf-8") as file:
        for i in range(lines):
            bid = 100.0 + (i % 200 if i // 200 % 2 else 200 - i % 200) * 0.01
            file.write(
                f'{{"ts_ns": {1_700_000_000_000_000_000 + i * 10_000_000}, "symbol": "X", "bid": {bid:.2f}, '
                f'"ask": {bid + 0.01 * (1 + i % 3):.2f}, "bid_depth": {1 + i % 17}, "ask_depth": {1 + i % 13}}}\n'
            )


def peak_kib(folder: Path, lines: int, ending: str) -> int:
    source, out = folder / f"{lines}.jsonl", folder / f"{lines}{ending}"
    if not source.exists():
        write_quotes(source, lines)
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, "features", "--source", str(source), "--tick-size", "0.01", "--out", str(out)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{lines} rows of 34 columns in {out}\n"
    return int(done.stderr)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to tell a process's peak memory")
@pytest.mark.parametrize(("ending", "few", "many"), [(".parquet", 100_000, 300_000), (".csv", 70_000, 140_000)])
def test_memory_does_not_grow_with_the_file(ending: str, few: int, many: int, tmp_path: Path) -> None:
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    growth_kib = peak_kib(tmp_path, many, ending) - peak_kib(tmp_path, few, ending)
    # A row has 30 columns of 8 bytes.
    assert growth_kib < 0.4 * (many - few) * 30 * 8 / 1024
