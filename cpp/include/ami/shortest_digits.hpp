// The shortest decimal that reads back as a double, and of those the nearest to it.
//
// A double's neighbours are half a step away on either side. Those three ends, as multiples of the power of ten of which
// a step holds one to ten, are each one product with a rounded power of ten, of which two bits behind the point and
// whether anything is left of the rest are kept: so much of 128 bits decides every double rightly (Giulietti, "The
// Schubfach way to render doubles", 2020).
#pragma once

#include <cstdint>
#include <cstring>

#include "ami/exact_moments.hpp"
#include "ami/powers_of_ten.hpp"

namespace ami {

// 17 digits, the first of which is not 0, and the power of ten of the first. Zeros at the end are not part of the text.
struct ShortestDigits {
    std::uint64_t digits;
    int power;
};

namespace shortest {

inline constexpr std::uint64_t kLeast17 = 10'000'000'000'000'000u;

// floor(log10(2^q)), of 3/4 of it, and floor(log2(10^k)), for every exponent of a double.
constexpr int floor_log10_pow2(int q) { return (q * 1'262'611) >> 22; }
constexpr int floor_log10_three_quarters_pow2(int q) { return (q * 1'262'611 - 524'031) >> 22; }
constexpr int floor_log2_pow10(int k) { return (k * 1'741'647) >> 19; }

// The whole part of `number` times the power, with its last bit set when anything is left behind it.
inline std::uint64_t scaled(const PowerOfTen& power, std::uint64_t number) {
    const exact::Pair low = exact::multiply(power.low, number);
    const exact::Pair high = exact::multiply(power.high, number);
    const std::uint64_t rest = high.low + static_cast<std::uint64_t>(low.high);
    const std::uint64_t whole = static_cast<std::uint64_t>(high.high) + (rest < high.low ? 1u : 0u);
    return whole | (rest > 1 ? 1u : 0u);
}

}  // namespace shortest

// Of the bits of a finite double above 0.
inline ShortestDigits shortest_digits(std::uint64_t bits) {
    namespace s = shortest;
    constexpr std::uint64_t kHidden = std::uint64_t{1} << 52;
    const std::uint64_t fraction = bits & (kHidden - 1);
    const int exponent = static_cast<int>(bits >> 52);
    const std::uint64_t significand = exponent != 0 ? fraction | kHidden : fraction;
    const int q = (exponent != 0 ? exponent : 1) - 1075;
    const std::uint64_t is_odd = significand & 1;
    // Below a power of two the neighbour is only half as far away.
    const bool is_near_below = fraction == 0 && exponent > 1;
    const std::uint64_t quarters = 4 * significand;
    const int k = is_near_below ? s::floor_log10_three_quarters_pow2(q) : s::floor_log10_pow2(q);
    const int shift = q + s::floor_log2_pow10(-k) + 1;
    const PowerOfTen& power = kPowersOfTen[-k - kFirstPower];
    // An end belongs to an even double: a number half way between two is read as that one.
    const std::uint64_t lower = s::scaled(power, (quarters - (is_near_below ? 1 : 2)) << shift) + is_odd;
    const std::uint64_t upper = s::scaled(power, (quarters + 2) << shift) - is_odd;
    const std::uint64_t at = s::scaled(power, quarters << shift);

    // Which of them is taken is as good as random: selected without a branch, that would be guessed wrong every other time.
    const std::uint64_t whole = at / 4;
    const std::uint64_t tens = whole / 10;
    const std::uint64_t is_ten_below_inside = lower <= 40 * tens ? 1 : 0;
    const std::uint64_t is_ten_above_inside = 40 * tens + 40 <= upper ? 1 : 0;
    const std::uint64_t is_below_inside = lower <= 4 * whole ? 1 : 0;
    const std::uint64_t is_above_inside = 4 * whole + 4 <= upper ? 1 : 0;
    const std::uint64_t is_nearer_above = (at & 3) + (whole & 1) > 2 ? 1 : 0;
    const std::uint64_t steps_up = is_below_inside != is_above_inside ? is_above_inside : is_nearer_above;
    std::uint64_t digits = is_ten_below_inside != is_ten_above_inside ? 10 * (tens + is_ten_above_inside) : whole + steps_up;
    const bool is_short = digits < s::kLeast17;
    digits = is_short ? 10 * digits : digits;
    int last = is_short ? k - 1 : k;
    while (digits < s::kLeast17) digits *= 10, --last;  // of the smallest doubles only
    return {digits, last + 16};
}

// Eight digits as eight bytes, the first digit in the lowest.
inline std::uint64_t eight_digits(std::uint32_t number) {
    const std::uint32_t high = number / 10'000;
    const std::uint64_t fours = high | static_cast<std::uint64_t>(number - 10'000 * high) << 32;
    const std::uint64_t hundreds = ((fours * 10'486) >> 20) & 0x7f'0000'007fu;
    const std::uint64_t twos = hundreds | (fours - 100 * hundreds) << 16;
    const std::uint64_t tens = ((twos * 103) >> 10) & 0x000f'000f'000f'000fu;
    return tens | (twos - 10 * tens) << 8;
}

}  // namespace ami
