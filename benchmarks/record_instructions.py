"""Records what an event costs in instructions, for tests/bench/test_instructions.py, under this compiler's name."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ami_engine.bench.instructions import compiler_key, instructions_per_event, why_not

PATH = Path(__file__).resolve().parents[1] / "tests" / "bench" / "instructions.json"

if __name__ == "__main__":
    reason = why_not()
    if reason:
        sys.exit(reason)
    recorded = json.loads(PATH.read_text(encoding="utf-8")) if PATH.exists() else {}
    recorded[compiler_key()] = round(instructions_per_event(20_000, 40_000), 1)
    PATH.write_text(json.dumps(recorded, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    sys.stdout.write(f"{compiler_key()}: {recorded[compiler_key()]} instructions per event\n")
