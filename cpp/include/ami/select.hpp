// Choices between numbers without a branch, for where nothing tells beforehand which of them it will be.
#pragma once

#include <cstdint>
#include <cstring>

namespace ami {

inline double choose(bool is_first, double first, double second) {
    std::uint64_t a = 0;
    std::uint64_t b = 0;
    std::memcpy(&a, &first, sizeof a);
    std::memcpy(&b, &second, sizeof b);
    b ^= (a ^ b) & (std::uint64_t{0} - static_cast<std::uint64_t>(is_first));
    std::memcpy(&second, &b, sizeof b);
    return second;
}

// `value`, or 0 where it does not count.
inline double value_if(bool counts, double value) {
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    bits &= std::uint64_t{0} - static_cast<std::uint64_t>(counts);
    std::memcpy(&value, &bits, sizeof bits);
    return value;
}

}  // namespace ami
