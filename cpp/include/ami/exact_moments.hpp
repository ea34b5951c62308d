// Variance of a window whose samples come and go, without rounding: sums of integers.
#pragma once

#include <cmath>
#include <cstdint>

namespace ami {

// Counts stay far below 2^63; a signed conversion is one instruction, an unsigned one is not.
inline double as_double(std::uint64_t n) { return static_cast<double>(static_cast<std::int64_t>(n)); }

namespace exact {

// A signed number of two limbs.
struct Pair {
    std::uint64_t low = 0;
    std::int64_t high = 0;

    bool is_narrow() const { return high == static_cast<std::int64_t>(low) >> 63; }
};

// A number from 0 on, of three limbs, least first; sums and products wrap at 2^192.
struct Wide {
    std::uint64_t low = 0;
    std::uint64_t mid = 0;
    std::uint64_t high = 0;

    Pair lowest() const { return {low, static_cast<std::int64_t>(mid)}; }
    bool is_narrow() const { return high == 0 && lowest().high >= 0; }
};

#ifdef __SIZEOF_INT128__
__extension__ using Int128 = __int128;
__extension__ using Uint128 = unsigned __int128;

inline Pair pair_of(Int128 value) {
    return {static_cast<std::uint64_t>(value), static_cast<std::int64_t>(value >> 64)};
}
inline Int128 value_of(const Pair& pair) {
    return static_cast<Int128>((static_cast<Uint128>(static_cast<std::uint64_t>(pair.high)) << 64) | pair.low);
}
inline Pair multiply_signed(std::int64_t a, std::int64_t b) { return pair_of(static_cast<Int128>(a) * b); }
inline Pair multiply(std::uint64_t a, std::uint64_t b) {
    return pair_of(static_cast<Int128>(static_cast<Uint128>(a) * b));
}
inline Pair add(const Pair& a, const Pair& b) {
    return pair_of(static_cast<Int128>(static_cast<Uint128>(value_of(a)) + static_cast<Uint128>(value_of(b))));
}
inline Pair subtract(const Pair& a, const Pair& b) {
    return pair_of(static_cast<Int128>(static_cast<Uint128>(value_of(a)) - static_cast<Uint128>(value_of(b))));
}
// These add to `sum`, and say true, where the answer fits; else they change nothing.
inline bool add_if_it_fits(std::int64_t& sum, std::int64_t value) {
    std::int64_t total;
    const bool fits = !__builtin_add_overflow(sum, value, &total);
    if (fits) sum = total;
    return fits;
}
inline bool add_if_it_fits(Pair& sum, const Pair& value) {
    Int128 total;
    const bool fits = !__builtin_add_overflow(value_of(sum), value_of(value), &total);
    if (fits) sum = pair_of(total);
    return fits;
}
inline Wide subtract(const Wide& a, const Wide& b) {
    const Uint128 from = (static_cast<Uint128>(a.mid) << 64) | a.low;
    const Uint128 less = (static_cast<Uint128>(b.mid) << 64) | b.low;
    const Uint128 left = from - less;
    const std::uint64_t borrow = from < less;
    return {static_cast<std::uint64_t>(left), static_cast<std::uint64_t>(left >> 64), a.high - b.high - borrow};
}
#else
inline Pair multiply(std::uint64_t a, std::uint64_t b) {
    const std::uint64_t mask = 0xFFFFFFFF;
    const std::uint64_t low = (a & mask) * (b & mask);
    const std::uint64_t cross = (a >> 32) * (b & mask) + (low >> 32);
    const std::uint64_t other = (a & mask) * (b >> 32) + (cross & mask);
    return {(other << 32) | (low & mask),
            static_cast<std::int64_t>((a >> 32) * (b >> 32) + (cross >> 32) + (other >> 32))};
}
inline Pair multiply_signed(std::int64_t a, std::int64_t b) {
    const auto ua = static_cast<std::uint64_t>(a);
    const auto ub = static_cast<std::uint64_t>(b);
    const Pair product = multiply(ua, ub);
    const std::uint64_t high = static_cast<std::uint64_t>(product.high) - (a < 0 ? ub : 0) - (b < 0 ? ua : 0);
    return {product.low, static_cast<std::int64_t>(high)};
}
inline Pair add(const Pair& a, const Pair& b) {
    const std::uint64_t low = a.low + b.low;
    const std::uint64_t carry = low < a.low;
    return {low, static_cast<std::int64_t>(static_cast<std::uint64_t>(a.high) + static_cast<std::uint64_t>(b.high) + carry)};
}
inline Pair subtract(const Pair& a, const Pair& b) {
    const std::uint64_t borrow = a.low < b.low;
    return {a.low - b.low,
            static_cast<std::int64_t>(static_cast<std::uint64_t>(a.high) - static_cast<std::uint64_t>(b.high) - borrow)};
}
// A sum overflowed where its sign is neither addend's.
inline bool add_if_it_fits(std::int64_t& sum, std::int64_t value) {
    const auto total = static_cast<std::int64_t>(static_cast<std::uint64_t>(sum) + static_cast<std::uint64_t>(value));
    const bool fits = ((sum ^ total) & (value ^ total)) >= 0;
    if (fits) sum = total;
    return fits;
}
inline bool add_if_it_fits(Pair& sum, const Pair& value) {
    const Pair total = add(sum, value);
    const bool fits = ((sum.high ^ total.high) & (value.high ^ total.high)) >= 0;
    if (fits) sum = total;
    return fits;
}
inline Wide subtract(const Wide& a, const Wide& b) {
    const std::uint64_t borrow = a.low < b.low;
    const std::uint64_t mid = a.mid - b.mid;
    const std::uint64_t borrows = static_cast<std::uint64_t>(a.mid < b.mid) + (mid < borrow);
    return {a.low - b.low, mid - borrow, a.high - b.high - borrows};
}
#endif

inline Wide add(const Wide& a, const Wide& b) { return subtract(a, subtract(Wide{}, b)); }

inline Pair widened(std::int64_t value) { return {static_cast<std::uint64_t>(value), value >> 63}; }

inline Wide widened(const Pair& a) {
    return {a.low, static_cast<std::uint64_t>(a.high), static_cast<std::uint64_t>(a.high >> 63)};
}

inline Pair multiply(const Pair& a, std::uint64_t b) {
    const Pair low = multiply(a.low, b);
    const std::uint64_t high = static_cast<std::uint64_t>(low.high) + static_cast<std::uint64_t>(a.high) * b;
    return {low.low, static_cast<std::int64_t>(high)};
}

inline Wide multiply(const Wide& a, std::uint64_t b) {
    const Pair low = multiply(a.low, b);
    const Pair mid = add(multiply(a.mid, b), {static_cast<std::uint64_t>(low.high), 0});
    return {low.low, mid.low, a.high * b + static_cast<std::uint64_t>(mid.high)};
}

[[gnu::noinline, gnu::cold]] inline Wide square_far(const Pair& a) {
    const Pair magnitude = a.high < 0 ? subtract(Pair{}, a) : a;
    const auto high = static_cast<std::uint64_t>(magnitude.high);
    const Pair lows = multiply(magnitude.low, magnitude.low);
    const Pair cross = multiply(magnitude.low, high);
    const Wide ends{lows.low, static_cast<std::uint64_t>(lows.high), high * high};
    const Wide middle{0, cross.low, static_cast<std::uint64_t>(cross.high)};
    return add(add(ends, middle), middle);
}

inline Wide square(const Pair& a) {
    if (!a.is_narrow()) return square_far(a);
    const auto value = static_cast<std::int64_t>(a.low);
    const Pair product = multiply_signed(value, value);
    return {product.low, static_cast<std::uint64_t>(product.high), 0};
}

// A limb as a double, rounded once in each half.
inline double limb_as_double(std::uint64_t limb) {
    return as_double(limb >> 32) * 0x1p32 + as_double(limb & 0xFFFFFFFF);
}

// Half of a number with a high limb above 0, where most are by far. Within two units of the last place.
inline double half_as_double(const Pair& a) {
    return static_cast<double>(a.high) * 0x1p63 + as_double(a.low >> 1);
}

// Within two units of the last place; 0 for 0 alone.
inline double to_double(const Wide& a) {
    return (limb_as_double(a.high) * 0x1p64 + limb_as_double(a.mid)) * 0x1p64 + limb_as_double(a.low);
}

inline double to_double(const Pair& a) {
    if (a.is_narrow()) return static_cast<double>(static_cast<std::int64_t>(a.low));
    return static_cast<double>(a.high) * 0x1p64 + limb_as_double(a.low);
}

}  // namespace exact

// Sums of a window's samples and of their squares. On a grid of 2^-66 = 1.4e-20, three digits below what the rounding of a
// price leaves of a return, nothing is rounded: what joins and leaves again leaves no trace, equal samples have a
// deviation of 0. Of one window, n Σ|x| must stay below 2^29: half a million moves between the least and the greatest
// price there is.
class ExactMoments {
public:
    // What a sample stays below, as the log return of any two prices does.
    static constexpr double kMostSample = 1200.0;

    void add(double value) {
        twice_count_ += 2.0;
        count_units_ += kPerUnit;
        replace(0.0, value);
    }
    void remove(double value) {
        twice_count_ -= 2.0;
        count_units_ -= kPerUnit;
        replace(value, 0.0);
    }
    // `value` joins and `oldest` leaves. a² - b² = (a - b)(a + b): one product for both.
    [[gnu::always_inline]] void replace(double oldest, double value) {
        if (!is_near(value) || !is_near(oldest) || is_wide()) return replace_far(oldest, value);
        const std::int64_t joins = near_units_of(value);
        const std::int64_t leaves = near_units_of(oldest);
        std::int64_t sum = sum_;
        if (!exact::add_if_it_fits(sum, joins - leaves) ||
            !exact::add_if_it_fits(squares_, exact::multiply_signed(joins - leaves, joins + leaves))) {
            return replace_far(oldest, value);
        }
        sum_ = sum;
    }

    // Standard deviation (population) of the samples; 0 of none.
    [[gnu::always_inline]] double std_dev() const {
        const double variance = scaled_variance(0.5);
        if (variance < 0.0) return exact_std_dev();
        return std::sqrt(variance) / count_units_;
    }

    // Standard deviations from the mean at which `value` is, of more than one sample; 0 where one is below `least`.
    [[gnu::always_inline]] double z_score(double value, double least) const {
        // Deviations differ little from each other: three digits may be lost to their mean, of the sixteen.
        const double variance = scaled_variance(0x1p0 - 0x1p-10);
        const double root = variance < 0.0 ? exact_root() : std::sqrt(variance);
        if (root < least * count_units_) return 0.0;
        return gap_to_mean(value) / root;
    }

private:
    static constexpr double kPerUnit = 0x1p66;

    // Sums and differences of two such samples fit a limb.
    static bool is_near(double value) { return std::fabs(value) < 0.0625; }
    static std::int64_t near_units_of(double value) { return static_cast<std::int64_t>(value * kPerUnit); }

    bool is_wide() const { return squares_.high < 0; }
    std::int64_t count() const { return static_cast<std::int64_t>(twice_count_ * 0.5); }

    // Square of `count` times the standard deviation, in units of the grid. Doubles will do for it while the square of the
    // mean is no more than `most_mean` of the mean square: negative where they will not.
    [[gnu::always_inline]] double scaled_variance(double most_mean) const {
        if (squares_.high <= 0) return -1.0;
        const double sum = static_cast<double>(sum_);
        const double from_squares = exact::half_as_double(squares_) * twice_count_;
        const double from_mean = sum * sum;
        return from_mean > most_mean * from_squares ? -1.0 : from_squares - from_mean;
    }
    // `count` times the standard deviation, in units of the grid.
    [[gnu::noinline, gnu::cold]] double exact_root() const {
        const exact::Wide squares = exact::multiply(all_squares(), static_cast<std::uint64_t>(count()));
        return std::sqrt(exact::to_double(exact::subtract(squares, exact::square(whole_sum()))));
    }
    [[gnu::noinline, gnu::cold]] double exact_std_dev() const {
        return twice_count_ == 0.0 ? 0.0 : exact_root() / count_units_;
    }
    // `count` times what `value` is above the mean, in units of the grid.
    [[gnu::always_inline]] double gap_to_mean(double value) const {
        if (!is_near(value) || is_wide()) return far_gap_to_mean(value);
        const exact::Pair product = exact::multiply_signed(near_units_of(value), count());
        return exact::to_double(exact::subtract(product, exact::widened(sum_)));
    }
    [[gnu::noinline, gnu::cold]] double far_gap_to_mean(double value) const {
        const exact::Pair product = exact::multiply(units_of(value), static_cast<std::uint64_t>(count()));
        return exact::to_double(exact::subtract(product, whole_sum()));
    }

    // Cut off, not rounded, as a conversion to an integer does everywhere.
    static exact::Pair units_of(double value) {
        if (is_near(value)) return exact::widened(near_units_of(value));
        return far_units_of(value);
    }
    [[gnu::noinline, gnu::cold]] static exact::Pair far_units_of(double value) {
        const double magnitude = std::fabs(value) * 4.0;  // in units of 2^64 grid points
        const auto high = static_cast<std::int64_t>(magnitude);
        const double rest = (magnitude - static_cast<double>(high)) * 0x1p32;
        const auto mid = static_cast<std::int64_t>(rest);
        const auto low = static_cast<std::int64_t>((rest - static_cast<double>(mid)) * 0x1p32);
        const exact::Pair units{(static_cast<std::uint64_t>(mid) << 32) | static_cast<std::uint64_t>(low), high};
        return value < 0.0 ? exact::subtract(exact::Pair{}, units) : units;
    }
    [[gnu::noinline, gnu::cold]] void replace_far(double oldest, double value) {
        const exact::Pair joins = units_of(value);
        const exact::Pair leaves = units_of(oldest);
        wide_sum_ = exact::subtract(exact::add(whole_sum(), joins), leaves);
        wide_squares_ = exact::subtract(exact::add(all_squares(), exact::square(joins)), exact::square(leaves));
        sum_ = static_cast<std::int64_t>(wide_sum_.low);
        squares_ = wide_squares_.lowest();
        if (!wide_sum_.is_narrow() || !wide_squares_.is_narrow()) squares_.high = -1;
    }

    exact::Pair whole_sum() const { return is_wide() ? wide_sum_ : exact::widened(sum_); }
    exact::Wide all_squares() const { return is_wide() ? wide_squares_ : exact::widened(squares_); }

    // Times powers of two, as the formulas have them: that rounds nothing.
    double twice_count_ = 0.0;
    double count_units_ = 0.0;
    std::int64_t sum_ = 0;
    exact::Pair squares_;  // never negative: where it is, the sums have more limbs, and stand below
    exact::Pair wide_sum_;
    exact::Wide wide_squares_;
};

// A sum that numbers join and leave, kept as three doubles that together are the sum itself: what an addition drops goes
// to the next (Knuth's two-sum), and what the last one drops is told. That takes numbers 48 digits apart.
class TripleSum {
public:
    [[gnu::always_inline]] void add(double value) {
        const double rest = two_sum(high_, value);
        const double last = two_sum(mid_, rest);
        // Sizes are mostly of one order of magnitude: two doubles hold their sum.
        if (last != 0.0) is_exact_ &= two_sum(low_, last) == 0.0;
    }
    // False once digits were lost: then the sum must be made anew from its numbers.
    bool is_exact() const { return is_exact_; }
    double value() const { return (high_ + mid_) + low_; }

    // Makes the first part the nearest double to all but the last one.
    void settle() { mid_ = two_sum(high_, mid_); }
    double high() const { return high_; }
    double mid() const { return mid_; }
    double low() const { return low_; }

    // Adds to `sum`; returns what rounding dropped.
    static double two_sum(double& sum, double value) {
        const double total = sum + value;
        const double virtual_value = total - sum;
        const double error = (sum - (total - virtual_value)) + (value - virtual_value);
        sum = total;
        return error;
    }

    template <class Archive>
    void archive(Archive& ar) {
        ar.value(high_);
        ar.value(mid_);
        ar.value(low_);
        ar.value(is_exact_);
    }

private:
    double high_ = 0.0;
    double mid_ = 0.0;
    double low_ = 0.0;
    bool is_exact_ = true;
};

}  // namespace ami
