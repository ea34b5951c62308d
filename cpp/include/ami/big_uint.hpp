// Whole numbers of up to 2048 bits, on the stack: what exact money is computed with.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace ami {

class BigUint {
public:
    BigUint() = default;
    explicit BigUint(std::uint64_t value) {
        for (; value != 0; value >>= 32) limbs_[size_++] = static_cast<std::uint32_t>(value);
    }
    BigUint(const BigUint& other) : size_(other.size_) { std::copy_n(other.limbs_.data(), size_, limbs_.data()); }
    BigUint& operator=(const BigUint& other) {
        size_ = other.size_;
        std::copy_n(other.limbs_.data(), size_, limbs_.data());
        return *this;
    }

    bool is_zero() const { return size_ == 0; }
    bool is_odd() const { return size_ > 0 && (limbs_[0] & 1u) != 0; }
    std::size_t bit_length() const {
        return size_ == 0 ? 0 : 32 * size_ - static_cast<std::size_t>(leading_zeros(limbs_[size_ - 1]));
    }
    // The value modulo 2^64.
    std::uint64_t low_bits() const {
        return (size_ > 1 ? static_cast<std::uint64_t>(limbs_[1]) << 32 : 0) | (size_ > 0 ? limbs_[0] : 0);
    }

    // -1, 0 or 1.
    static int compare(const BigUint& a, const BigUint& b) {
        if (a.size_ != b.size_) return a.size_ < b.size_ ? -1 : 1;
        for (std::size_t i = a.size_; i-- > 0;) {
            if (a.limbs_[i] != b.limbs_[i]) return a.limbs_[i] < b.limbs_[i] ? -1 : 1;
        }
        return 0;
    }

    BigUint& operator+=(const BigUint& other) {
        const std::size_t n = std::max(size_, other.size_);
        std::uint64_t carry = 0;
        for (std::size_t i = 0; i < n; ++i) {
            carry += static_cast<std::uint64_t>(at(i)) + other.at(i);
            set(i, static_cast<std::uint32_t>(carry));
            carry >>= 32;
        }
        size_ = n;
        if (carry != 0) push(static_cast<std::uint32_t>(carry));
        return *this;
    }

    // `other` is at most this.
    BigUint& operator-=(const BigUint& other) {
        std::int64_t borrow = 0;
        for (std::size_t i = 0; i < size_; ++i) {
            std::int64_t digit = static_cast<std::int64_t>(limbs_[i]) - other.at(i) - borrow;
            borrow = digit < 0 ? 1 : 0;
            limbs_[i] = static_cast<std::uint32_t>(digit);
        }
        trim();
        return *this;
    }

    friend BigUint operator*(const BigUint& a, const BigUint& b) {
        BigUint product;
        if (a.is_zero() || b.is_zero()) return product;
        product.resize(a.size_ + b.size_);
        for (std::size_t i = 0; i < a.size_; ++i) {
            std::uint64_t carry = 0;
            for (std::size_t j = 0; j < b.size_; ++j) {
                carry += static_cast<std::uint64_t>(a.limbs_[i]) * b.limbs_[j] + product.limbs_[i + j];
                product.limbs_[i + j] = static_cast<std::uint32_t>(carry);
                carry >>= 32;
            }
            product.limbs_[i + b.size_] = static_cast<std::uint32_t>(carry);
        }
        product.trim();
        return product;
    }

    BigUint shifted_left(std::size_t bits) const {
        BigUint shifted;
        if (is_zero()) return shifted;
        const std::size_t whole = bits / 32;
        const std::size_t part = bits % 32;
        shifted.resize(size_ + whole + 1);
        for (std::size_t i = 0; i < size_; ++i) {
            const std::uint64_t wide = static_cast<std::uint64_t>(limbs_[i]) << part;
            shifted.limbs_[i + whole] |= static_cast<std::uint32_t>(wide);
            shifted.limbs_[i + whole + 1] = static_cast<std::uint32_t>(wide >> 32);
        }
        shifted.trim();
        return shifted;
    }

    BigUint shifted_right(std::size_t bits) const {
        BigUint shifted;
        const std::size_t whole = bits / 32;
        const std::size_t part = bits % 32;
        if (whole >= size_) return shifted;
        shifted.resize(size_ - whole);
        for (std::size_t i = whole; i < size_; ++i) {
            const std::uint64_t wide = (static_cast<std::uint64_t>(at(i + 1)) << 32) | limbs_[i];
            shifted.limbs_[i - whole] = static_cast<std::uint32_t>(wide >> part);
        }
        shifted.trim();
        return shifted;
    }

    // Divide by a small number in place; return the remainder.
    std::uint32_t divide_small(std::uint32_t divisor) {
        std::uint64_t rest = 0;
        for (std::size_t i = size_; i-- > 0;) {
            rest = (rest << 32) | limbs_[i];
            limbs_[i] = static_cast<std::uint32_t>(rest / divisor);
            rest %= divisor;
        }
        trim();
        return static_cast<std::uint32_t>(rest);
    }

    // Knuth, The Art of Computer Programming 2, 4.3.1, algorithm D. `divisor` is not 0.
    static void divide(const BigUint& dividend, const BigUint& divisor, BigUint& quotient, BigUint& rest) {
        if (compare(dividend, divisor) < 0) {
            rest = dividend;
            quotient = BigUint();
            return;
        }
        if (divisor.size_ == 1) {
            BigUint q = dividend;
            rest = BigUint(q.divide_small(divisor.limbs_[0]));
            quotient = q;
            return;
        }
        const auto shift = static_cast<std::size_t>(leading_zeros(divisor.limbs_[divisor.size_ - 1]));
        BigUint u = dividend.shifted_left(shift);
        const BigUint v = divisor.shifted_left(shift);
        const std::size_t n = v.size_;
        const std::size_t m = dividend.size_ - n;
        u.resize_keeping(dividend.size_ + 1);
        BigUint q;
        q.resize(m + 1);
        for (std::size_t j = m + 1; j-- > 0;) q.limbs_[j] = u.divide_digit(v, j, n);
        q.trim();
        u.trim();
        quotient = q;
        rest = u.shifted_right(shift);
    }

    // numerator / denominator × 2^exponent, rounded once, half to even; the denominator is not 0.
    static double nearest_quotient(const BigUint& numerator, const BigUint& denominator, int exponent) {
        if (numerator.is_zero()) return 0.0;
        const auto wanted = static_cast<long>(denominator.bit_length()) + 62;
        const long shift = std::max(0L, wanted - static_cast<long>(numerator.bit_length()));
        BigUint quotient;
        BigUint rest;
        divide(numerator.shifted_left(static_cast<std::size_t>(shift)), denominator, quotient, rest);
        // Keep 62 bits, the last of which stands for all that is below.
        const std::size_t bits = quotient.bit_length();
        const std::size_t dropped = bits > 62 ? bits - 62 : 0;
        const BigUint kept = quotient.shifted_right(dropped);
        const bool is_inexact = !rest.is_zero() || compare(kept.shifted_left(dropped), quotient) != 0;
        const std::uint64_t digits = kept.low_bits() | (is_inexact ? 1u : 0u);
        const int scale = exponent - static_cast<int>(shift) + static_cast<int>(dropped);
        return std::ldexp(static_cast<double>(static_cast<std::int64_t>(digits)), scale);
    }

    static const BigUint& power_of_ten(std::size_t exponent) {
        static const std::array<BigUint, kPowers> powers = [] {
            std::array<BigUint, kPowers> made;
            made[0] = BigUint(1);
            for (std::size_t i = 1; i < kPowers; ++i) made[i] = made[i - 1] * BigUint(10);
            return made;
        }();
        if (exponent >= kPowers) throw std::overflow_error("a number has too many digits for exact money");
        return powers[exponent];
    }

    // Number of decimal digits; 0 for 0.
    std::size_t digit_count() const {
        if (is_zero()) return 0;
        std::size_t count = (bit_length() - 1) * 30103 / 100000;  // log10 of the highest bit, rounded down
        while (compare(*this, power_of_ten(count)) >= 0) ++count;
        return count;
    }

private:
    static constexpr std::size_t kLimbs = 64;
    static constexpr std::size_t kPowers = 400;

    static int leading_zeros(std::uint32_t limb) {
        int zeros = 0;
        for (int half = 16; half > 0; half /= 2) {
            if ((limb >> (32 - half)) != 0) continue;
            zeros += half;
            limb <<= half;
        }
        return zeros;
    }

    std::uint32_t at(std::size_t i) const { return i < size_ ? limbs_[i] : 0; }
    void set(std::size_t i, std::uint32_t limb) {
        if (i >= kLimbs) throw std::overflow_error("a number is too large for exact money");
        limbs_[i] = limb;
    }
    void push(std::uint32_t limb) {
        set(size_, limb);
        ++size_;
    }
    void resize(std::size_t size) {
        if (size > kLimbs) throw std::overflow_error("a number is too large for exact money");
        size_ = size;
        std::fill_n(limbs_.data(), size_, 0u);
    }
    void resize_keeping(std::size_t size) {
        while (size_ < size) push(0);
    }
    void trim() {
        while (size_ > 0 && limbs_[size_ - 1] == 0) --size_;
    }

    // One digit of the quotient: take the largest multiple of `v` off the digits from `j` on.
    std::uint32_t divide_digit(const BigUint& v, std::size_t j, std::size_t n) {
        const std::uint64_t base = std::uint64_t{1} << 32;
        const std::uint64_t top = (static_cast<std::uint64_t>(limbs_[j + n]) << 32) | limbs_[j + n - 1];
        std::uint64_t digit = top / v.limbs_[n - 1];
        std::uint64_t left = top % v.limbs_[n - 1];
        while (digit >= base || digit * v.limbs_[n - 2] > ((left << 32) | limbs_[j + n - 2])) {
            --digit;
            left += v.limbs_[n - 1];
            if (left >= base) break;
        }
        std::int64_t borrow = 0;
        std::uint64_t carry = 0;
        for (std::size_t i = 0; i < n; ++i) {
            carry += digit * v.limbs_[i];
            const std::int64_t difference =
                static_cast<std::int64_t>(limbs_[i + j]) - borrow - static_cast<std::int64_t>(carry & 0xffffffffu);
            limbs_[i + j] = static_cast<std::uint32_t>(difference);
            borrow = difference < 0 ? 1 : 0;
            carry >>= 32;
        }
        const std::int64_t difference =
            static_cast<std::int64_t>(limbs_[j + n]) - borrow - static_cast<std::int64_t>(carry);
        limbs_[j + n] = static_cast<std::uint32_t>(difference);
        if (difference >= 0) return static_cast<std::uint32_t>(digit);
        // One too many: add the divisor back.
        carry = 0;
        for (std::size_t i = 0; i < n; ++i) {
            carry += static_cast<std::uint64_t>(limbs_[i + j]) + v.limbs_[i];
            limbs_[i + j] = static_cast<std::uint32_t>(carry);
            carry >>= 32;
        }
        limbs_[j + n] += static_cast<std::uint32_t>(carry);
        return static_cast<std::uint32_t>(digit - 1);
    }

    std::size_t size_ = 0;  // Invariant: the limb above which there is none is not 0
    std::array<std::uint32_t, kLimbs> limbs_;
};

}  // namespace ami
