"""Write the C++ header of the powers of ten that shortest digits are found with: `powers_of_ten.py OUT.hpp`."""

from __future__ import annotations

import sys
from pathlib import Path

_HEADER = """// The leading 128 bits of the powers of ten, rounded up. Generated: do not edit.
#pragma once

#include <cstdint>

namespace ami {{

struct PowerOfTen {{
    std::uint64_t high;
    std::uint64_t low;
}};
inline constexpr int kFirstPower = {first};
inline constexpr int kLastPower = {last};
inline constexpr PowerOfTen kPowersOfTen[kLastPower - kFirstPower + 1] = {{
{rows}
}};

}}  // namespace ami
"""

# 10^-k for every k that a double's last digit can stand at: from the smallest double to the largest.
_FIRST, _LAST = -292, 324
_BITS = 128


def _leading_bits(power: int) -> int:
    """Return the smallest integer g of 128 bits with ``10**power <= g * 2**r``, for the r that leaves it so many."""
    if power >= 0:
        number = 10**power
        shift = number.bit_length() - _BITS
        return number << -shift if shift < 0 else -(-number >> shift)
    divisor = 10**-power
    # The quotient has 128 bits: a power of ten is no power of two, so that rounding up never makes it longer.
    return -(-(1 << (_BITS - 1 + divisor.bit_length())) // divisor)


def render() -> str:
    """Return the header's text."""
    rows = []
    for power in range(_FIRST, _LAST + 1):
        bits = _leading_bits(power)
        assert bits.bit_length() == _BITS
        rows.append(f"    {{{bits >> 64:#x}u, {bits & (1 << 64) - 1:#x}u}},")
    return _HEADER.format(first=_FIRST, last=_LAST, rows="\n".join(rows))


def main() -> int:
    """Write the header; leave an unchanged file alone, so that nothing is rebuilt for it."""
    out = Path(sys.argv[1])
    text = render()
    if not out.is_file() or out.read_text(encoding="utf-8") != text:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
