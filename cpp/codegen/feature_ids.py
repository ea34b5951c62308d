"""Write the C++ header of feature ids from the Python schema: `feature_ids.py SCHEMA.py OUT.hpp`."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

_HEADER = """// Feature ids, names and shared constants. Generated from features/schema.py: do not edit.
#pragma once

namespace ami {{

enum class Feature : int {{
{enumerators}
}};

inline constexpr int kFeatureCount = {count};
inline constexpr int kBookFeatureCount = {book_count};
inline constexpr int kBaseFeatureCount = {base_count};  // of a row without signals
inline constexpr const char* kFeatureNames[kFeatureCount] = {{
{names}
}};
inline constexpr const char* kSchemaHash = "{schema_hash}";

inline constexpr double kEps = {eps};
inline constexpr double kMaxMagnitude = {max_magnitude};
inline constexpr double kLn2 = {ln2};
inline constexpr double kSqrt2 = {sqrt2};
inline constexpr double kSqrtHalf = {sqrt_half};
inline constexpr double kLogSeries[{series_count}] = {{
{series}
}};

}}  // namespace ami
"""


def render(schema_path: str) -> str:
    """Return the header's text for the schema at `schema_path`."""
    schema = runpy.run_path(schema_path)
    names = schema["FEATURE_NAMES"]
    return _HEADER.format(
        enumerators="\n".join(f"    {name} = {index}," for index, name in enumerate(names)),
        count=len(names),
        book_count=schema["BOOK_FEATURE_COUNT"],
        base_count=schema["BASE_FEATURE_COUNT"],
        names="\n".join(f'    "{name}",' for name in names),
        schema_hash=schema["SCHEMA_HASH"],
        eps=float.hex(schema["EPS"]),
        max_magnitude=float.hex(schema["MAX_MAGNITUDE"]),
        ln2=float.hex(schema["LN2"]),
        sqrt2=float.hex(schema["SQRT2"]),
        sqrt_half=float.hex(schema["SQRT_HALF"]),
        series_count=len(schema["LOG_SERIES"]),
        series="\n".join(f"    {float.hex(value)}," for value in schema["LOG_SERIES"]),
    )


def main() -> int:
    """Write the header; leave an unchanged file alone, so that nothing is rebuilt for it."""
    schema_path, out = sys.argv[1], Path(sys.argv[2])
    text = render(schema_path)
    if not out.is_file() or out.read_text() != text:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
