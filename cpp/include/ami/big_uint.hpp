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
    // The widest limb of which the compiler knows a product: amounts of money are of one to three such limbs.
#if defined(__SIZEOF_INT128__)
    using Limb = std::uint64_t;
    __extension__ typedef unsigned __int128 Wide;
#else
    using Limb = std::uint32_t;
    using Wide = std::uint64_t;
#endif

    BigUint() = default;
    explicit BigUint(std::uint64_t value) {
        if constexpr (sizeof(Limb) == sizeof value) {
            limbs_[0] = static_cast<Limb>(value);
            size_ = value != 0 ? 1 : 0;
            return;
        }
        for (; value != 0; value = static_cast<std::uint64_t>(static_cast<Wide>(value) >> kBits)) {
            limbs_[size_++] = static_cast<Limb>(value);
        }
    }
    BigUint(const BigUint& other) { *this = other; }
    BigUint& operator=(const BigUint& other) {
        size_ = other.size_;
        limbs_[0] = other.limbs_[0];
        limbs_[1] = other.limbs_[1];
        if (size_ > 2) copy_rest(other);
        return *this;
    }

    bool is_zero() const { return size_ == 0; }
    bool is_odd() const { return size_ > 0 && (limbs_[0] & 1u) != 0; }
    std::size_t bit_length() const {
        return size_ == 0 ? 0 : kBits * size_ - static_cast<std::size_t>(leading_zeros(limbs_[size_ - 1]));
    }
    // The value modulo 2^64.
    std::uint64_t low_bits() const {
        return word_at(0);
    }

    // Of 128 bits at most: no more than 39 digits.
    bool is_short() const { return size_ <= 128 / kBits; }

    // Whether low_bits() is the value: what a number of an order or a fill is.
    bool is_word() const { return size_ <= 64 / kBits; }

    // -1, 0 or 1.
    static int compare(const BigUint& a, const BigUint& b) {
        if (a.size_ != b.size_) return a.size_ < b.size_ ? -1 : 1;
        if (a.is_wide()) return static_cast<int>(a.wide() > b.wide()) - static_cast<int>(a.wide() < b.wide());
        for (std::size_t i = a.size_; i-- > 0;) {
            if (a.limbs_[i] != b.limbs_[i]) return a.limbs_[i] < b.limbs_[i] ? -1 : 1;
        }
        return 0;
    }

    BigUint& operator+=(const BigUint& other) {
        if (is_wide() && other.is_wide()) {
            const Wide sum = wide() + other.wide();
            if (sum >= other.wide()) return set_wide(sum);
        }
        const std::size_t n = std::max(size_, other.size_);
        Wide carry = 0;
        for (std::size_t i = 0; i < n; ++i) {
            carry += static_cast<Wide>(at(i)) + other.at(i);
            set(i, static_cast<Limb>(carry));
            carry >>= kBits;
        }
        size_ = n;
        if (carry != 0) push(static_cast<Limb>(carry));
        return *this;
    }

    // `other` is at most this.
    BigUint& operator-=(const BigUint& other) {
        if (is_wide()) return set_wide(wide() - other.wide());
        Limb borrow = 0;
        for (std::size_t i = 0; i < size_; ++i) borrow = subtract(limbs_[i], other.at(i), borrow);
        trim();
        return *this;
    }

    friend BigUint operator*(const BigUint& a, const BigUint& b) {
        BigUint product;
        if (a.size_ <= 1 && b.size_ <= 1) {
            product.set_wide(static_cast<Wide>(a.limbs_[0]) * b.limbs_[0]);
        } else if (!a.is_zero() && !b.is_zero()) {
            product.multiply(a, b);
        }
        return product;
    }

    BigUint shifted_left(std::size_t bits) const {
        BigUint shifted;
        if (is_zero()) return shifted;
        const std::size_t whole = bits / kBits;
        const std::size_t part = bits % kBits;
        shifted.resize(size_ + whole + 1);
        for (std::size_t i = 0; i < size_; ++i) {
            const Wide wide = static_cast<Wide>(limbs_[i]) << part;
            shifted.limbs_[i + whole] |= static_cast<Limb>(wide);
            shifted.limbs_[i + whole + 1] = static_cast<Limb>(wide >> kBits);
        }
        shifted.trim();
        return shifted;
    }

    BigUint shifted_right(std::size_t bits) const {
        BigUint shifted;
        const std::size_t whole = bits / kBits;
        const std::size_t part = bits % kBits;
        if (whole >= size_) return shifted;
        shifted.resize(size_ - whole);
        for (std::size_t i = whole; i < size_; ++i) {
            const Wide wide = (static_cast<Wide>(at(i + 1)) << kBits) | limbs_[i];
            shifted.limbs_[i - whole] = static_cast<Limb>(wide >> part);
        }
        shifted.trim();
        return shifted;
    }

    // Divide by a small number in place; return the remainder.
    Limb divide_small(Limb divisor) {
        Limb rest = 0;
        for (std::size_t i = size_; i-- > 0;) {
            const Wide wide = (static_cast<Wide>(rest) << kBits) | limbs_[i];
            const Limb quotient = rest == 0 ? limbs_[i] / divisor : static_cast<Limb>(wide / divisor);
            rest = static_cast<Limb>(limbs_[i] - quotient * divisor);
            limbs_[i] = quotient;
        }
        trim();
        return rest;
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
        double near = 0.0;
        if (is_plain_quotient(numerator, denominator, exponent, near)) return near;
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

    // True when `numerator` is a multiple of `denominator` and both are small: the usual case of money, told fast.
    static bool is_whole_quotient(const BigUint& numerator, const BigUint& denominator, std::uint64_t& out) {
        if (!numerator.is_word() || !denominator.is_word()) return false;
        const std::uint64_t x = numerator.low_bits();
        const std::uint64_t y = denominator.low_bits();
        out = x / y;
        return out * y == x;
    }

#if defined(__SIZEOF_INT128__)
    // The quotient of nearest_quotient() by the highest 64 bits of both, unless it is so near the middle between two
    // doubles that what was cut off could decide.
    static bool is_plain_quotient(const BigUint& numerator, const BigUint& denominator, int exponent, double& out) {
        int up = 0;
        int down = 0;
        const std::uint64_t x = numerator.head(up);
        const std::uint64_t y = denominator.head(down);
        const int shift = x >= y ? 63 : 64;
        const auto quotient = static_cast<std::uint64_t>((static_cast<Wide>(x) << shift) / y);
        const int scale = exponent + up - down - shift;
        // Each cut takes less than one part in 2^63: the quotient, of 64 bits, is off by less than four.
        constexpr std::uint64_t kMiddle = std::uint64_t{1} << 10;
        constexpr std::uint64_t kDoubt = 8;
        const std::uint64_t dropped = quotient & (2 * kMiddle - 1);
        if (dropped - (kMiddle - kDoubt) <= 2 * kDoubt || scale < -1000 || scale > 900) return false;
        const std::uint64_t kept = (quotient >> 11) + (dropped > kMiddle ? 1 : 0);
        out = std::ldexp(static_cast<double>(kept), scale + 11);
        return true;
    }
#else
    static bool is_plain_quotient(const BigUint&, const BigUint&, int, double&) { return false; }
#endif

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
    static constexpr std::size_t kBits = 8 * sizeof(Limb);
    static constexpr std::size_t kLimbs = 2048 / kBits;
    static constexpr std::size_t kPowers = 400;

    static int leading_zeros(std::uint64_t limb, int width = static_cast<int>(kBits)) {
#if defined(__GNUC__)
        return __builtin_clzll(limb) - (64 - width);
#else
        int zeros = 0;
        while ((limb >> (width - 1 - zeros)) == 0) ++zeros;
        return zeros;
#endif
    }

    // Most amounts are of two limbs at most: they are computed with as one number.
    bool is_wide() const { return size_ <= 2; }
    Wide wide() const { return (static_cast<Wide>(limbs_[1]) << kBits) | limbs_[0]; }
    BigUint& set_wide(Wide value) {
        limbs_[0] = static_cast<Limb>(value);
        limbs_[1] = static_cast<Limb>(value >> kBits);
        size_ = limbs_[1] != 0 ? 2 : limbs_[0] != 0 ? 1 : 0;
        return *this;
    }

    [[gnu::noinline]] void copy_rest(const BigUint& other) { std::copy_n(other.limbs_.data(), size_, limbs_.data()); }

    // Become a × b; neither is 0.
    [[gnu::noinline]] void multiply(const BigUint& a, const BigUint& b) {
        resize(a.size_ + b.size_);
        for (std::size_t i = 0; i < a.size_; ++i) {
            Wide carry = 0;
            for (std::size_t j = 0; j < b.size_; ++j) {
                carry += static_cast<Wide>(a.limbs_[i]) * b.limbs_[j] + limbs_[i + j];
                limbs_[i + j] = static_cast<Limb>(carry);
                carry >>= kBits;
            }
            limbs_[i + b.size_] = static_cast<Limb>(carry);
        }
        trim();
    }

    // a −= b + borrow; return what is borrowed of the next limb.
    static Limb subtract(Limb& a, Limb b, Limb borrow) {
        const Wide difference = static_cast<Wide>(a) - b - borrow;
        a = static_cast<Limb>(difference);
        return (difference >> kBits) != 0 ? 1 : 0;
    }

    // 64 bits from limb `i` on.
    std::uint64_t word_at(std::size_t i) const {
        if constexpr (kBits == 64) return at(i);
        return (static_cast<std::uint64_t>(at(i + 1)) << 32) | at(i);
    }

#if defined(__SIZEOF_INT128__)
    // The highest 64 bits, cut off below, and how many bits stand below them. The value is not 0.
    std::uint64_t head(int& below) const {
        below = static_cast<int>(bit_length()) - 64;
        if (below <= 0) return limbs_[0] << -below;
        const auto whole = static_cast<std::size_t>(below) / 64;
        const auto part = static_cast<std::size_t>(below) % 64;
        return part == 0 ? limbs_[whole] : (at(whole + 1) << (64 - part)) | (limbs_[whole] >> part);
    }
#endif

    Limb at(std::size_t i) const { return i < size_ ? limbs_[i] : 0; }
    void set(std::size_t i, Limb limb) {
        if (i >= kLimbs) throw std::overflow_error("a number is too large for exact money");
        limbs_[i] = limb;
    }
    void push(Limb limb) {
        set(size_, limb);
        ++size_;
    }
    void resize(std::size_t size) {
        if (size > kLimbs) throw std::overflow_error("a number is too large for exact money");
        size_ = size;
        std::fill_n(limbs_.data(), size_, Limb{0});
    }
    void resize_keeping(std::size_t size) {
        while (size_ < size) push(0);
    }
    void trim() {
        while (size_ > 0 && limbs_[size_ - 1] == 0) --size_;
    }

    // One digit of the quotient: take the largest multiple of `v` off the digits from `j` on.
    Limb divide_digit(const BigUint& v, std::size_t j, std::size_t n) {
        const Wide base = static_cast<Wide>(1) << kBits;
        const Wide top = (static_cast<Wide>(limbs_[j + n]) << kBits) | limbs_[j + n - 1];
        Wide digit = top / v.limbs_[n - 1];
        Wide left = top % v.limbs_[n - 1];
        while (digit >= base || digit * v.limbs_[n - 2] > ((left << kBits) | limbs_[j + n - 2])) {
            --digit;
            left += v.limbs_[n - 1];
            if (left >= base) break;
        }
        Limb borrow = 0;
        Wide carry = 0;
        for (std::size_t i = 0; i < n; ++i) {
            carry += digit * v.limbs_[i];
            borrow = subtract(limbs_[i + j], static_cast<Limb>(carry), borrow);
            carry >>= kBits;
        }
        borrow = subtract(limbs_[j + n], static_cast<Limb>(carry), borrow);
        if (borrow == 0) return static_cast<Limb>(digit);
        // One too many: add the divisor back.
        carry = 0;
        for (std::size_t i = 0; i < n; ++i) {
            carry += static_cast<Wide>(limbs_[i + j]) + v.limbs_[i];
            limbs_[i + j] = static_cast<Limb>(carry);
            carry >>= kBits;
        }
        limbs_[j + n] += static_cast<Limb>(carry);
        return static_cast<Limb>(digit - 1);
    }

    // Invariants: the highest limb is not 0, and the first two are 0 where there are fewer. The others are not looked at.
    struct Limbs : std::array<Limb, kLimbs> {
        Limbs() { (*this)[0] = (*this)[1] = 0; }  // not the whole array
    };

    std::size_t size_ = 0;
    Limbs limbs_;
};

}  // namespace ami
