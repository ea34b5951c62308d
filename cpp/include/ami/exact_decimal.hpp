// Decimal numbers as Python's `decimal` computes them: exactly, or rounded half to even at so many digits.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>

#include "ami/big_uint.hpp"

namespace ami {

// ± digits × 10^exponent. Only values matter: 1.0 and 1.00 are one number.
class Decimal {
public:
    Decimal() = default;
    Decimal(bool is_negative, const BigUint& digits, int exponent)
        : is_negative_(is_negative), exponent_(exponent), digits_(digits) {}
    Decimal(bool is_negative, std::uint64_t digits, int exponent)
        : is_negative_(is_negative), exponent_(exponent), digits_(digits) {}

    // The shortest decimal that reads back as `value`: what Python's repr() shows. `value` is finite.
    static Decimal from_double(double value) {
        const double magnitude = std::fabs(value);
        if (magnitude == 0.0) return {};
        // Decimals of at most 15 digits are all different doubles: when one of them reads back, it is the shortest's value.
        int places = kDigits - 1 - decimal_exponent(magnitude);
        // Most prices and sizes have few digits.
        if (const int few = places - (kDigits - kFewDigits); few >= 0 && few < static_cast<int>(kScales.size())) {
            const double scale = kScales[static_cast<std::size_t>(few)];
            const auto digits = static_cast<std::int64_t>(magnitude * scale + 0.5);
            if (static_cast<double>(digits) / scale == magnitude) {
                return without_zeros(value < 0.0, static_cast<std::uint32_t>(digits), few);
            }
        }
        if (places >= 0 && places < static_cast<int>(kScales.size())) {
            double scaled = magnitude * kScales[static_cast<std::size_t>(places)];
            if (scaled >= 1e15) {
                if (places == 0) return read_shortest(value);
                scaled = magnitude * kScales[static_cast<std::size_t>(--places)];
            }
            const auto digits = static_cast<std::int64_t>(scaled + 0.5);
            if (static_cast<double>(digits) / kScales[static_cast<std::size_t>(places)] == magnitude) {
                return without_zeros(value < 0.0, static_cast<std::uint64_t>(digits), places);
            }
        }
        return read_shortest(value);
    }

    // The same, where the value most likely has so many places, as prices have that lie on a grid; negative: nobody knows.
    static Decimal from_double(double value, int places) {
        if (places >= 0 && places < static_cast<int>(kScales.size())) {
            const double scale = kScales[static_cast<std::size_t>(places)];
            const double magnitude = std::fabs(value);
            const double scaled = magnitude * scale;
            if (scaled < 1e15) {
                const auto digits = static_cast<std::int64_t>(scaled + 0.5);
                if (static_cast<double>(digits) / scale == magnitude) {
                    return {value < 0.0, static_cast<std::uint64_t>(digits), -places};
                }
            }
        }
        return from_double(value);
    }
    // How many places multiples of `step` have; negative when nobody knows: there is no step.
    static int places_of(double step) { return step > 0.0 ? std::max(0, -from_double(step).exponent_) : -1; }

    double to_double() const {
        // Both operands are exact doubles, so that one operation rounds once.
        if (is_exact_double() && exponent_ >= -22 && exponent_ <= 22) {
            double value = static_cast<double>(static_cast<std::int64_t>(digits_.low_bits()));
            const double scale = kScales[static_cast<std::size_t>(std::abs(exponent_))];
            value = exponent_ < 0 ? value / scale : value * scale;
            return is_negative_ ? -value : value;
        }
        const BigUint& power = BigUint::power_of_ten(static_cast<std::size_t>(std::abs(exponent_)));
        const double value = exponent_ < 0 ? BigUint::nearest_quotient(digits_, power, 0)
                                           : BigUint::nearest_quotient(digits_ * power, BigUint(1), 0);
        return is_negative_ ? -value : value;
    }

    // As Python's Decimal reads it: the value, not how it came about.
    std::string text() const {
        std::string digits;
        for (BigUint rest = digits_; !rest.is_zero();) digits.insert(digits.begin(), static_cast<char>('0' + rest.divide_small(10)));
        if (digits.empty()) return "0";
        return (is_negative_ ? "-" : "") + digits + "E" + std::to_string(exponent_);
    }

    bool is_zero() const { return digits_.is_zero(); }
    bool is_negative() const { return is_negative_ && !is_zero(); }
    bool is_positive() const { return !is_negative_ && !is_zero(); }
    Decimal negated() const { return {!is_negative_, digits_, exponent_}; }
    Decimal abs() const { return {false, digits_, exponent_}; }

    static int compare(const Decimal& a, const Decimal& b) {
        const int exponent = a.exponent_ < b.exponent_ ? a.exponent_ : b.exponent_;
        std::uint64_t m = 0;
        std::uint64_t n = 0;
        if (a.is_word_at(exponent, m) && b.is_word_at(exponent, n) && !a.is_negative_ && !b.is_negative_) {
            return m == n ? 0 : (m < n ? -1 : 1);
        }
        const Decimal difference = subtract(a, b);
        return difference.is_zero() ? 0 : (difference.is_negative_ ? -1 : 1);
    }

    static Decimal add(const Decimal& a, const Decimal& b) { return sum(a, b, b.is_negative_); }
    static Decimal subtract(const Decimal& a, const Decimal& b) { return sum(a, b, !b.is_negative_); }

    static Decimal multiply(const Decimal& a, const Decimal& b) {
        return {a.is_negative_ != b.is_negative_, a.digits_ * b.digits_, a.exponent_ + b.exponent_};
    }
    // a / b, rounded to `precision` digits; b is not 0.
    static Decimal divide(const Decimal& a, const Decimal& b, std::size_t precision) {
        if (a.is_zero()) return {};
        const bool is_negative = a.is_negative_ != b.is_negative_;
        std::uint64_t whole = 0;
        if (BigUint::is_whole_quotient(a.digits_, b.digits_, whole)) {
            return Decimal(is_negative, whole, a.exponent_ - b.exponent_).rounded(precision);
        }
        // So many digits more than are kept that the last of them can stand for the rest.
        const auto wanted = static_cast<long>(precision + 2 + b.digits_.digit_count());
        const long shift = std::max(0L, wanted - static_cast<long>(a.digits_.digit_count()));
        BigUint quotient;
        BigUint rest;
        BigUint::divide(a.digits_ * BigUint::power_of_ten(static_cast<std::size_t>(shift)), b.digits_, quotient, rest);
        int exponent = a.exponent_ - b.exponent_ - static_cast<int>(shift);
        if (!rest.is_zero()) {
            quotient = quotient * BigUint(10);
            quotient += BigUint(1);
            --exponent;
        }
        return Decimal(is_negative, quotient, exponent).rounded(precision);
    }

    // The double nearest to divide(a, b, precision); b is not 0, and `precision` is at least 30.
    static double divide_to_double(const Decimal& a, const Decimal& b, std::size_t precision) {
        if (a.is_zero()) return 0.0;
        const int exponent = a.exponent_ < b.exponent_ ? a.exponent_ : b.exponent_;
        double value = 0.0;
        std::uint64_t m = 0;
        std::uint64_t n = 0;
        if (a.is_word_at(exponent, m) && b.is_word_at(exponent, n) && m <= kExactDoubles && n <= kExactDoubles) {
            // Two whole numbers of 53 bits: their quotient is never in the middle, nor so near to it.
            value = static_cast<double>(static_cast<std::int64_t>(m)) / static_cast<double>(static_cast<std::int64_t>(n));
            return a.is_negative_ != b.is_negative_ ? -value : value;
        }
        // What is clear of the middle between two doubles stays on its side when it is rounded at so many digits.
        if (BigUint::is_plain_quotient(a.digits_at(exponent), b.digits_at(exponent), 0, value)) {
            return a.is_negative_ != b.is_negative_ ? -value : value;
        }
        return divide(a, b, precision).to_double();
    }

    // The whole part of a / b; neither is negative.
    static Decimal divide_whole(const Decimal& a, const Decimal& b) {
        const int exponent = a.exponent_ < b.exponent_ ? a.exponent_ : b.exponent_;
        std::uint64_t m = 0;
        std::uint64_t n = 0;
        if (a.is_word_at(exponent, m) && b.is_word_at(exponent, n)) return {false, m / n, 0};
        BigUint quotient;
        BigUint rest;
        BigUint::divide(a.digits_at(exponent), b.digits_at(exponent), quotient, rest);
        return {false, quotient, 0};
    }

    // Half to even, at `precision` digits.
    Decimal rounded(std::size_t precision) const {
        Decimal number = *this;
        number.round(precision);
        return number;
    }
    void round(std::size_t precision) {
        if (digits_.is_short() && precision >= 39) return;
        if (digits_.bit_length() <= 3 * precision) return;  // a digit has more than three bits
        const std::size_t digits = digits_.digit_count();
        if (digits > precision) *this = without(digits - precision);
    }

    // Half to even, to a multiple of 10^exponent.
    Decimal quantized(int exponent) const {
        if (exponent <= exponent_) return *this;
        const auto dropped = static_cast<std::size_t>(exponent - exponent_);
        if (dropped > digits_.digit_count() + 1) return {};
        return without(dropped);
    }

private:
    static constexpr int kDigits = 15;
    static constexpr int kFewDigits = 8;  // or one more: they fit into 32 bits
    static constexpr std::uint64_t kExactDoubles = std::uint64_t{1} << 53;

    bool is_exact_double() const { return digits_.is_word() && digits_.low_bits() <= kExactDoubles; }

    // a ± |b|, minus where `is_taken`.
    static Decimal sum(const Decimal& a, const Decimal& b, bool is_taken) {
        if (a.is_zero()) return {is_taken, b.digits_, b.exponent_};
        if (b.is_zero()) return a;
        const int exponent = a.exponent_ < b.exponent_ ? a.exponent_ : b.exponent_;
        std::uint64_t m = 0;
        std::uint64_t n = 0;
        if (a.is_word_at(exponent, m) && b.is_word_at(exponent, n)) {
            if (a.is_negative_ != is_taken) {
                return {m >= n ? a.is_negative_ : is_taken, m >= n ? m - n : n - m, exponent};
            }
            if (m + n >= m) return {a.is_negative_, m + n, exponent};
        }
        BigUint x = a.digits_at(exponent);
        BigUint y = b.digits_at(exponent);
        if (a.is_negative_ == is_taken) return {a.is_negative_, x += y, exponent};
        if (BigUint::compare(x, y) >= 0) return {a.is_negative_, x -= y, exponent};
        return {is_taken, y -= x, exponent};
    }

    // ⌊log10(magnitude)⌋, or one less.
    static int decimal_exponent(double magnitude) {
        std::uint64_t bits = 0;
        std::memcpy(&bits, &magnitude, sizeof bits);
        const int exponent = static_cast<int>(bits >> 52) - 1023;
        return (exponent * 1233) >> 12;  // log10(2), rounded down
    }

    template <class Word>
    static Decimal without_zeros(bool is_negative, Word digits, int places) {
        for (const int count : {8, 4, 2, 1}) {
            if (count == 8 && sizeof(Word) < 8) continue;
            const auto unit = static_cast<Word>(kWords[static_cast<std::size_t>(count)]);
            if (digits % unit != 0) continue;
            digits /= unit;
            places -= count;
        }
        return {is_negative, std::uint64_t{digits}, -places};
    }

    static constexpr std::uint64_t kHalfWord = std::uint64_t{1} << 32;
    static constexpr std::array<std::uint64_t, 16> kWords = [] {
        std::array<std::uint64_t, 16> powers{};
        powers[0] = 1;
        for (std::size_t i = 1; i < powers.size(); ++i) powers[i] = 10 * powers[i - 1];
        return powers;
    }();
    static constexpr std::array<double, 23> kScales = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                                       1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                                       1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

    static Decimal read_shortest(double value) {
        char text[40];
#if defined(__cpp_lib_to_chars) && __cpp_lib_to_chars >= 201611L
        *std::to_chars(text, text + sizeof text - 1, value, std::chars_format::scientific).ptr = '\0';
#else
        for (int precision = 15; precision <= 17; ++precision) {
            std::snprintf(text, sizeof text, "%.*e", precision - 1, value);
            if (std::strtod(text, nullptr) == value) break;
        }
#endif
        std::uint64_t digits = 0;
        int places = -1;  // digits after the point so far; -1 before it
        const char* at = text;
        for (; *at != 'e'; ++at) {
            if (*at >= '0' && *at <= '9') {
                digits = digits * 10 + static_cast<std::uint64_t>(*at - '0');
                if (places >= 0) ++places;
            } else if (*at != '-') {
                places = 0;
            }
        }
        const int exponent = std::atoi(at + 1) - (places < 0 ? 0 : places);
        return {value < 0.0, digits, exponent};
    }

    // The digits at an exponent that is not above their own, where they are a word: most amounts are.
    [[gnu::always_inline]] bool is_word_at(int exponent, std::uint64_t& out) const {
        const int places = exponent_ - exponent;
        if (!digits_.is_word() || places >= static_cast<int>(kWords.size())) return false;
        const std::uint64_t word = digits_.low_bits();
        const std::uint64_t scale = kWords[static_cast<std::size_t>(places)];
        out = word * scale;
        return scale == 1 || (word < kHalfWord && scale < kHalfWord) || out / scale == word;
    }

    BigUint digits_at(int exponent) const {
        return exponent == exponent_ ? digits_
                                     : digits_ * BigUint::power_of_ten(static_cast<std::size_t>(exponent_ - exponent));
    }

    Decimal without(std::size_t dropped) const {
        const BigUint& unit = BigUint::power_of_ten(dropped);
        BigUint quotient;
        BigUint rest;
        BigUint::divide(digits_, unit, quotient, rest);
        const int half = BigUint::compare(rest.shifted_left(1), unit);
        if (half > 0 || (half == 0 && quotient.is_odd())) quotient += BigUint(1);
        return {is_negative_, quotient, exponent_ + static_cast<int>(dropped)};
    }

    bool is_negative_ = false;
    int exponent_ = 0;
    BigUint digits_;
};

// An exact sum of doubles and of products of two doubles.
class ExactSum {
public:
    // Add ± a · b.
    void add_product(double a, double b, bool is_taken) {
        if (a == 0.0 || b == 0.0) return;
        int exponent_a = 0;
        int exponent_b = 0;
        const BigUint x(whole(a, exponent_a));
        const BigUint y(whole(b, exponent_b));
        add((a < 0.0) != (b < 0.0) ? !is_taken : is_taken, x * y, exponent_a + exponent_b);
    }
    bool is_zero() const { return digits_.is_zero(); }
    // How wide the whole number under it is. It keeps the finest place that was ever added.
    std::size_t bit_length() const { return digits_.bit_length(); }

    // a / b, rounded once, half to even; b is not 0.
    static double divide(const ExactSum& a, const ExactSum& b) {
        const double value = BigUint::nearest_quotient(a.digits_, b.digits_, a.exponent_ - b.exponent_);
        return a.is_negative_ != b.is_negative_ ? -value : value;
    }

private:
    // |value| as a whole number and a power of two.
    static std::uint64_t whole(double value, int& exponent) {
        const double fraction = std::frexp(std::fabs(value), &exponent);
        exponent -= 53;
        return static_cast<std::uint64_t>(std::ldexp(fraction, 53));
    }

    void add(bool is_negative, BigUint digits, int exponent) {
        if (is_zero()) {
            is_negative_ = is_negative;
            exponent_ = exponent;
            digits_ = digits;
            return;
        }
        if (exponent > exponent_) {
            digits = digits.shifted_left(static_cast<std::size_t>(exponent - exponent_));
        } else if (exponent < exponent_) {
            digits_ = digits_.shifted_left(static_cast<std::size_t>(exponent_ - exponent));
            exponent_ = exponent;
        }
        if (is_negative == is_negative_) {
            digits_ += digits;
        } else if (BigUint::compare(digits_, digits) >= 0) {
            digits_ -= digits;
        } else {
            digits -= digits_;
            digits_ = digits;
            is_negative_ = is_negative;
        }
    }

    bool is_negative_ = false;
    int exponent_ = 0;
    BigUint digits_;
};

}  // namespace ami
