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

namespace number {

inline void put_eight(std::uint64_t digits, char* out) {
    const std::uint64_t text = digits | 0x3030'3030'3030'3030u;
    for (int i = 0; i < 8; ++i) out[i] = static_cast<char>(text >> 8 * i);
}

// How many of eight digits stand before the zeros at their end, one of them at least not being 0.
inline int significant(std::uint64_t digits) {
    int count = 8;
    if (digits >> 32 == 0) digits <<= 32, count -= 4;
    if (digits >> 48 == 0) digits <<= 16, count -= 2;
    return digits >> 56 == 0 ? count - 1 : count;
}

}  // namespace number

// Writes a finite number; returns how many characters. Decimal form from 1e-5 up to below 1e16, else with an exponent.
inline std::size_t write_double(double number, char* out) {
    char* const start = out;
    std::uint64_t bits;
    std::memcpy(&bits, &number, sizeof bits);
    if (bits >> 63 != 0) *out++ = '-';
    bits &= ~(std::uint64_t{1} << 63);
    if (bits == 0) {
        std::memcpy(out, "0.0", 3);
        return static_cast<std::size_t>(out + 3 - start);
    }
    const ShortestDigits found = shortest_digits(bits);
    // Seventeen digits; what is read behind them is never part of a text.
    std::array<char, 40> text{};
    const std::uint64_t upper = found.digits / 100'000'000;
    const auto first = static_cast<std::uint32_t>(upper / 100'000'000);
    const std::uint64_t high = eight_digits(static_cast<std::uint32_t>(upper - std::uint64_t{first} * 100'000'000));
    const std::uint64_t low = eight_digits(static_cast<std::uint32_t>(found.digits - upper * 100'000'000));
    text[0] = static_cast<char>('0' + first);
    number::put_eight(high, text.data() + 1);
    number::put_eight(low, text.data() + 9);
    const int count = low != 0 ? 9 + number::significant(low) : high != 0 ? 1 + number::significant(high) : 1;
    const int power = found.power;
    // Pieces of one length are copied, which is faster than copying just so many bytes.
    if (power < -5 || power >= 16) {
        out[0] = text[0];
        out[1] = '.';
        std::memcpy(out + 2, text.data() + 1, 16);
        out += count > 1 ? 1 + count : 1;
        *out++ = 'e';
        return static_cast<std::size_t>(std::to_chars(out, out + 6, power).ptr - start);
    }
    if (power < 0) {
        std::memcpy(out, "0.000000", 8);
        out += 1 - power;
        std::memcpy(out, text.data(), 17);
        out += count;
    } else if (power + 1 >= count) {
        std::memcpy(out, text.data(), 16);
        out += power + 1;
        std::memcpy(out, ".0", 2);
        out += 2;
    } else {
        std::memcpy(out, text.data(), 16);
        out[power + 1] = '.';
        std::memcpy(out + power + 2, text.data() + power + 1, 16);
        out += count + 1;
    }
    return static_cast<std::size_t>(out - start);
}

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
