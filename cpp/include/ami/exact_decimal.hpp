// Decimal numbers as Python's `decimal` computes them: exactly, or rounded half to even at so many digits.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "ami/big_uint.hpp"

namespace ami {

// ± digits × 10^exponent. Only values matter: 1.0 and 1.00 are one number.
class Decimal {
public:
    Decimal() = default;
    Decimal(bool is_negative, const BigUint& digits, int exponent)
        : is_negative_(is_negative), exponent_(exponent), digits_(digits) {}

    // The shortest decimal that reads back as `value`: what Python's repr() shows. `value` is finite.
    static Decimal from_double(double value) {
        const double magnitude = std::fabs(value);
        // Decimals of at most 15 digits are all different doubles, so the first that fits is the shortest.
        double scale = 1.0;
        for (int places = 0; places <= 15; ++places, scale *= 10.0) {
            const double digits = std::nearbyint(magnitude * scale);
            if (digits >= 1e15) break;
            if (digits / scale == magnitude) {
                return {value < 0.0, BigUint(static_cast<std::uint64_t>(digits)), -places};
            }
        }
        return read_shortest(value);
    }

    double to_double() const {
        // Both operands are exact doubles, so that one operation rounds once.
        if (digits_.bit_length() <= 53 && exponent_ >= -22 && exponent_ <= 22) {
            double value = static_cast<double>(digits_.low_bits());
            double scale = 1.0;
            for (int i = 0; i < std::abs(exponent_); ++i) scale *= 10.0;
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
        const Decimal difference = add(a, b.negated());
        return difference.is_zero() ? 0 : (difference.is_negative_ ? -1 : 1);
    }

    static Decimal add(const Decimal& a, const Decimal& b) {
        if (a.is_zero()) return b;
        if (b.is_zero()) return a;
        const int exponent = a.exponent_ < b.exponent_ ? a.exponent_ : b.exponent_;
        BigUint x = a.digits_at(exponent);
        BigUint y = b.digits_at(exponent);
        if (a.is_negative_ == b.is_negative_) return {a.is_negative_, x += y, exponent};
        if (BigUint::compare(x, y) >= 0) return {a.is_negative_, x -= y, exponent};
        return {b.is_negative_, y -= x, exponent};
    }

    static Decimal multiply(const Decimal& a, const Decimal& b) {
        return {a.is_negative_ != b.is_negative_, a.digits_ * b.digits_, a.exponent_ + b.exponent_};
    }

    // a / b, rounded to `precision` digits; b is not 0.
    static Decimal divide(const Decimal& a, const Decimal& b, std::size_t precision) {
        if (a.is_zero()) return {};
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
        return Decimal(a.is_negative_ != b.is_negative_, quotient, exponent).rounded(precision);
    }

    // The whole part of a / b; neither is negative.
    static Decimal divide_whole(const Decimal& a, const Decimal& b) {
        const int exponent = a.exponent_ < b.exponent_ ? a.exponent_ : b.exponent_;
        BigUint quotient;
        BigUint rest;
        BigUint::divide(a.digits_at(exponent), b.digits_at(exponent), quotient, rest);
        return {false, quotient, 0};
    }

    // Half to even, at `precision` digits.
    Decimal rounded(std::size_t precision) const {
        if (digits_.bit_length() <= 3 * precision) return *this;  // a digit has more than three bits
        const std::size_t digits = digits_.digit_count();
        return digits <= precision ? *this : without(digits - precision);
    }

    // Half to even, to a multiple of 10^exponent.
    Decimal quantized(int exponent) const {
        if (exponent <= exponent_) return *this;
        const auto dropped = static_cast<std::size_t>(exponent - exponent_);
        if (dropped > digits_.digit_count() + 1) return {};
        return without(dropped);
    }

private:
    static Decimal read_shortest(double value) {
        char text[40];
        for (int precision = 15; precision <= 17; ++precision) {
            std::snprintf(text, sizeof text, "%.*e", precision - 1, value);
            if (std::strtod(text, nullptr) == value) break;
        }
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
        return {value < 0.0, BigUint(digits), exponent};
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
