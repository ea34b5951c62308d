// Numbers as JSON text, spelled as msgspec spells them: the shortest digits that read back as the same double.
#pragma once

#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace ami {

// Room for a sign, 17 digits, a point, leading zeros and an exponent.
inline constexpr std::size_t kNumberChars = 32;

// Floating-point to_chars is younger than C++17's other parts: without it the caller keeps to its other encoder.
#if defined(__cpp_lib_to_chars) && __cpp_lib_to_chars >= 201611L
inline constexpr bool kHasShortestDouble = true;

// Writes a finite number; returns how many characters. Decimal form from 1e-5 up to below 1e16, else with an exponent.
inline std::size_t write_double(double number, char* out) {
    char* const start = out;
    if (std::signbit(number)) {
        *out++ = '-';
        number = -number;
    }
    if (number == 0.0) {
        std::memcpy(out, "0.0", 3);
        return static_cast<std::size_t>(out + 3 - start);
    }
    std::array<char, kNumberChars> text;
    // d.dddde±xx: the digits without the point, and the power of ten of the first of them.
    const char* const end = std::to_chars(text.data(), text.data() + text.size(), number, std::chars_format::scientific).ptr;
    const char* mark = end;
    while (*--mark != 'e') {
    }
    int power = 0;
    for (const char* digit = mark + 2; digit != end; ++digit) power = 10 * power + (*digit - '0');
    if (mark[1] == '-') power = -power;
    std::array<char, kNumberChars> digits;
    int count = 0;
    for (const char* c = text.data(); c != mark; ++c)
        if (*c != '.') digits[static_cast<std::size_t>(count++)] = *c;
    const auto copy = [&out, &digits](int from, int to) {
        const auto length = static_cast<std::size_t>(to - from);
        std::memcpy(out, digits.data() + from, length);
        out += length;
    };
    if (power < -5 || power >= 16) {
        copy(0, 1);
        if (count > 1) {
            *out++ = '.';
            copy(1, count);
        }
        *out++ = 'e';
        return static_cast<std::size_t>(std::to_chars(out, out + 6, power).ptr - start);
    }
    if (power < 0) {
        std::memcpy(out, "0.0000", static_cast<std::size_t>(1 - power));
        out += 1 - power;
        copy(0, count);
    } else if (power + 1 >= count) {
        copy(0, count);
        for (int i = count; i <= power; ++i) *out++ = '0';
        std::memcpy(out, ".0", 2);
        out += 2;
    } else {
        copy(0, power + 1);
        *out++ = '.';
        copy(power + 1, count);
    }
    return static_cast<std::size_t>(out - start);
}
#else
inline constexpr bool kHasShortestDouble = false;
inline std::size_t write_double(double, char*) { return 0; }
#endif

inline std::size_t write_int(std::int64_t number, char* out) {
    return static_cast<std::size_t>(std::to_chars(out, out + kNumberChars, number).ptr - out);
}

}  // namespace ami
