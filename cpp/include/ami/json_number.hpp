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

namespace number {

inline constexpr int kMaxScale = 20;
inline constexpr std::array<double, kMaxScale + 1> kPowers = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,
                                                              1e7,  1e8,  1e9,  1e10, 1e11, 1e12, 1e13,
                                                              1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20};

// Decimal digits without a point, and the power of ten of the first of them.
struct Digits {
    std::array<char, kNumberChars> text;
    int count = 0;
    int power = 0;
};

// A number from 1e-5 up to below 1e15 that is a decimal of at most 15 digits, as most prices and sizes are. No other
// decimal of so few digits reads back as the same double, so that these are the shortest. False for any other number.
inline bool find_few(double number, Digits& digits) {
    if (!(number >= 1e-5 && number < 1e15)) return false;
    std::uint64_t bits;
    std::memcpy(&bits, &number, sizeof bits);
    const int exponent = static_cast<int>(bits >> 52) - 1022;  // number < 2^exponent
    // No more digits stand before the point than 2^exponent has: log10(2) is a little less than 1233 / 4096.
    const int scale = 14 - ((exponent * 1233) >> 12);
    const double power = kPowers[static_cast<std::size_t>(scale)];
    const auto whole = static_cast<std::int64_t>(number * power + 0.5);
    // Both are whole numbers below 2^53 or powers of ten below 1e23: this division is what reading the decimal does.
    if (static_cast<double>(whole) / power != number) return false;
    const char* end = std::to_chars(digits.text.data(), digits.text.data() + digits.text.size(), whole).ptr;
    digits.power = static_cast<int>(end - digits.text.data()) - 1 - scale;
    while (end[-1] == '0') --end;
    digits.count = static_cast<int>(end - digits.text.data());
    return true;
}

inline void find_shortest(double number, Digits& digits) {
    std::array<char, kNumberChars> text;
    // d.dddde±xx
    const char* const end = std::to_chars(text.data(), text.data() + text.size(), number, std::chars_format::scientific).ptr;
    const char* mark = end;
    while (*--mark != 'e') {
    }
    for (const char* digit = mark + 2; digit != end; ++digit) digits.power = 10 * digits.power + (*digit - '0');
    if (mark[1] == '-') digits.power = -digits.power;
    digits.text[0] = text[0];
    digits.count = static_cast<int>(mark - text.data());
    if (digits.count > 1) std::memcpy(digits.text.data() + 1, text.data() + 2, static_cast<std::size_t>(--digits.count));
}

}  // namespace number

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
    number::Digits found;
    if (!number::find_few(number, found)) number::find_shortest(number, found);
    const int power = found.power, count = found.count;
    const auto copy = [&out, &found](int from, int to) {
        const auto length = static_cast<std::size_t>(to - from);
        std::memcpy(out, found.text.data() + from, length);
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

// Texts of numbers that were met before: most of a packet's numbers stand in it twice, or stood in the one before it.
class NumberTexts {
public:
    // Writes a finite number at `out`, where there is room for kNumberChars; returns how many of them are its text.
    std::size_t write(double number, char* out) {
        std::uint64_t bits;
        std::memcpy(&bits, &number, sizeof bits);
        Entry& entry = entries_[bits * 0x9e3779b97f4a7c15u >> (64 - kPlaceBits)];
        if (entry.bits != bits) {
            const std::size_t length = write_double(number, out);
            if (length < entry.text.size()) {
                entry.bits = bits;
                std::memcpy(entry.text.data(), out, entry.text.size() - 1);
                entry.text.back() = static_cast<char>(length);
            }
            return length;
        }
        std::memcpy(out, entry.text.data(), entry.text.size());
        return static_cast<std::size_t>(entry.text.back());
    }

private:
    static constexpr int kPlaceBits = 8;
    // Half a cache line: the text, and in its last byte its length. Longer ones, which are rare, are not kept. Only a
    // number whose bits are all 0 looks for the bits of an unused entry, and always in the first.
    struct alignas(32) Entry {
        std::uint64_t bits = 0;
        std::array<char, 24> text{'0', '.', '0'};
        constexpr Entry() { text.back() = 3; }
    };
    std::array<Entry, std::size_t{1} << kPlaceBits> entries_{};
};

}  // namespace ami
