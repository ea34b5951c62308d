// Numbers as JSON text, spelled as msgspec spells them: the shortest digits that read back as the same double.
#pragma once

#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "ami/shortest_digits.hpp"

namespace ami {

// Room for any number's text, and for what is copied too much behind it.
inline constexpr std::size_t kNumberChars = 48;

// What a number's text is made of: 17 digits as characters, the first of them at the lowest byte of each part.
//
// They stay in registers up to where they belong: what was just stored in pieces and is read back as a whole waits for
// the pieces to arrive.
struct DecimalText {
    std::uint64_t high = 0;  // the eight digits after the first
    std::uint64_t low = 0;   // the last eight
    char first = '0';
    signed char count = 0;  // digits before the zeros at their end, >= 1
    std::int16_t power = 0;  // of ten, of the first digit
};

namespace number {

inline void put_eight(std::uint64_t text, char* out) {
#if defined(__BYTE_ORDER__) && defined(__ORDER_BIG_ENDIAN__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    for (int i = 0; i < 8; ++i) out[i] = static_cast<char>(text >> 8 * i);
#else
    std::memcpy(out, &text, sizeof text);
#endif
}

// How many of eight digits stand before the zeros at their end, one of them at least not being 0. Without a branch: where
// the digits end is as good as random.
inline int significant(std::uint64_t digits) {
    const int is_half = digits >> 32 == 0 ? 1 : 0;
    digits <<= 32 * is_half;
    const int is_quarter = digits >> 48 == 0 ? 1 : 0;
    digits <<= 16 * is_quarter;
    return 8 - 4 * is_half - 2 * is_quarter - (digits >> 56 == 0 ? 1 : 0);
}

inline constexpr std::uint64_t kSign = std::uint64_t{1} << 63;
inline constexpr std::uint64_t kZeros = 0x3030'3030'3030'3030u;

// Of the bits of a finite double above 0.
inline DecimalText text_of(std::uint64_t bits) {
    const ShortestDigits found = shortest_digits(bits);
    const std::uint64_t upper = found.digits / 100'000'000;
    const auto first = static_cast<std::uint32_t>(upper / 100'000'000);
    const std::uint64_t high = eight_digits(static_cast<std::uint32_t>(upper - std::uint64_t{first} * 100'000'000));
    const std::uint64_t low = eight_digits(static_cast<std::uint32_t>(found.digits - upper * 100'000'000));
    DecimalText text;
    text.high = high | kZeros;
    text.low = low | kZeros;
    text.first = static_cast<char>('0' + first);
    text.count = static_cast<signed char>(low != 0 ? 9 + significant(low) : high != 0 ? 1 + significant(high) : 1);
    text.power = static_cast<std::int16_t>(found.power);
    return text;
}

// Pieces of one length are written, which is faster than writing just so many bytes: kNumberChars must be there.
inline char* write_text(const DecimalText& text, char* out) {
    const int power = text.power, count = text.count;
    const auto put_all = [&text](char* to) {
        to[0] = text.first;
        put_eight(text.high, to + 1);
        put_eight(text.low, to + 9);
    };
    if (power >= 0 && power < 16) {
        put_all(out);
        if (power + 1 >= count) {
            std::memcpy(out + power + 1, ".0", 2);
            return out + power + 3;
        }
        // What follows the point, one place further on.
        const int shift = 8 * (power & 7);
        const std::uint64_t next = power < 8 ? text.low << 1 << (63 - shift) : 0;
        out[power + 1] = '.';
        put_eight(next | (power < 8 ? text.high : text.low) >> shift, out + power + 2);
        put_eight(text.low >> shift, out + power + 10);
        return out + count + 1;
    }
    if (power < 0 && power >= -5) {
        std::memcpy(out, "0.000000", 8);
        put_all(out + 1 - power);
        return out + 1 - power + count;
    }
    put_all(out + 1);
    out[0] = out[1];
    out[1] = '.';
    out += count > 1 ? 1 + count : 1;
    *out++ = 'e';
    return std::to_chars(out, out + 6, power).ptr;
}

// Writes a finite number, the text of whose bits `text_of` knows when it is not 0; returns how many characters.
template <class TextOf>
std::size_t write(double number, char* out, TextOf&& text_of) {
    char* const start = out;
    std::uint64_t bits;
    std::memcpy(&bits, &number, sizeof bits);
    *out = '-';
    out += bits >> 63;
    bits &= ~kSign;
    if (bits != 0) return static_cast<std::size_t>(write_text(text_of(bits), out) - start);
    std::memcpy(out, "0.0", 3);
    return static_cast<std::size_t>(out + 3 - start);
}

}  // namespace number

// Writes a finite number; returns how many characters. Decimal form from 1e-5 up to below 1e16, else with an exponent.
inline std::size_t write_double(double number, char* out) { return number::write(number, out, number::text_of); }

inline std::size_t write_int(std::int64_t number, char* out) {
    constexpr std::int64_t kEight = 100'000'000;
    char* const start = out;
    if (number < kEight) return static_cast<std::size_t>(std::to_chars(out, out + kNumberChars, number).ptr - start);
    // Times have 13 or 19 digits: eight of them at once.
    const std::int64_t upper = number / kEight;
    const auto last = static_cast<std::uint32_t>(number - upper * kEight);
    out += write_int(upper, out);
    number::put_eight(eight_digits(last) | number::kZeros, out);
    return static_cast<std::size_t>(out + 8 - start);
}

// Texts of numbers that were met before: most of a packet's numbers stand in it twice, or stood in the one before it.
class NumberTexts {
public:
    // Writes a finite number at `out`, where there is room for kNumberChars; returns how many of them are its text.
    std::size_t write(double number, char* out) {
        return number::write(number, out, [this](std::uint64_t bits) -> const DecimalText& {
            Entry& entry = entries_[bits * 0x9e3779b97f4a7c15u >> (64 - kPlaceBits)];
            if (entry.bits != bits) entry = {bits, number::text_of(bits)};
            return entry.text;
        });
    }

private:
    static constexpr int kPlaceBits = 8;
    // Half a cache line. No number that is looked for has the bits of an unused entry.
    struct alignas(32) Entry {
        std::uint64_t bits = 0;
        DecimalText text{};
    };
    std::array<Entry, std::size_t{1} << kPlaceBits> entries_{};
};

}  // namespace ami
