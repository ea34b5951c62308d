// Sums, variance and extrema over a sliding window, right in every regime.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "ami/exact_moments.hpp"
#include "ami/ring_buffer.hpp"

namespace ami {

// Mean and sum of squared deviations of a run of numbers; its length is known from its place in the window.
struct Moments {
    double mean = 0.0;
    double m2 = 0.0;

    static Moments of(double value) { return {value, 0.0}; }
    // Chan, Golub & LeVeque (1979), pairwise update.
    static Moments merge(const Moments& a, std::uint64_t na, const Moments& b, std::uint64_t nb) {
        const double share = as_double(nb) / as_double(na + nb);
        const double delta = b.mean - a.mean;
        return {a.mean + delta * share, (a.m2 + b.m2) + delta * delta * (as_double(na) * share)};
    }
    double std_dev(std::uint64_t n) const { return n < 2 ? 0.0 : std::sqrt(m2 / as_double(n)); }
};

// A sum as an unevaluated pair: Knuth's two-sum keeps what a double drops, so that cancellation leaves the right digits.
struct PairSum {
    double hi = 0.0;
    double lo = 0.0;

    static PairSum of(double value) { return {value, 0.0}; }
    static PairSum add(const PairSum& a, const PairSum& b) {
        const double hi = a.hi + b.hi;
        const double virtual_b = hi - a.hi;
        const double error = (a.hi - (hi - virtual_b)) + (b.hi - virtual_b);
        return {hi, error + (a.lo + b.lo)};
    }
    double value() const { return hi + lo; }
};

// Any associative aggregate over a first-in first-out window in worst-case O(1): DABA Lite (Tangwongsan, Hirzel &
// Schneider 2021, "In-order sliding-window aggregation in worst-case constant time"). Nothing is ever subtracted, so a
// huge value leaves no trace once it has left, and no event pays for rebuilding the whole window.
//
// Positions first <= l <= r <= a <= b <= end cut the window:
//   [first, l)  each holds the aggregate from itself to b      [l, r)  from itself to r
//   [r, a)      raw values                                     [a, b)  from itself to b
//   [b, end)    raw values, aggregated in `back_`;  `middle_` is the aggregate of [r, b).
template <class V>
class SlidingAggregate {
public:
    explicit SlidingAggregate(std::size_t expected_size = 0) : items_(expected_size + 1) {}

    std::uint64_t size() const { return items_.size(); }
    std::uint64_t first() const { return items_.first(); }

    void push(const V& value) {
        back_ = join(back_, items_.end() - b_, value, 1);
        items_.push_back(value);
        fix_up();
    }
    void pop() {
        items_.pop_front();
        fix_up();
    }
    // Invariant: size() > 0.
    V query() const {
        const std::uint64_t front = b_ - items_.first();
        const std::uint64_t back = items_.end() - b_;
        if (front == 0) return back_;
        if (back == 0) return items_.front();
        return V::merge(items_.front(), front, back_, back);
    }

    template <class Archive>
    void archive(Archive& ar) {
        ar.ring(items_);
        ar.positions(items_.first(), items_.end(), {&l_, &r_, &a_, &b_});
        ar.value(middle_);
        ar.value(back_);
    }

private:
    static V join(const V& a, std::uint64_t na, const V& b, std::uint64_t nb) {
        if (na == 0) return b;
        return V::merge(a, na, b, nb);
    }

    void fix_up() {
        if (items_.first() == b_) {
            // The front is used up; at most one value is left, and it is its own aggregate.
            l_ = r_ = a_ = b_ = items_.end();
            back_ = V{};
            return;
        }
        if (l_ == b_) {  // flip: the whole window becomes the front, to be aggregated two places an operation
            l_ = items_.first();
            r_ = b_;
            a_ = b_ = items_.end();
            middle_ = back_;
            back_ = V{};
        }
        if (l_ == r_) {
            ++l_;
            ++r_;
            ++a_;
            return;
        }
        V& left = items_.at(l_);
        left = V::merge(left, r_ - l_, middle_, b_ - r_);
        ++l_;
        if (a_ != b_) {
            V& right = items_.at(a_ - 1);
            right = V::merge(right, 1, items_.at(a_), b_ - a_);
        }
        --a_;
    }

    RingBuffer<V> items_;
    std::uint64_t l_ = 0;
    std::uint64_t r_ = 0;
    std::uint64_t a_ = 0;
    std::uint64_t b_ = 0;
    V middle_{};
    V back_{};
};

// Standard deviation (population) and mean of the last `window` numbers.
class RollingMoments {
public:
    explicit RollingMoments(std::uint64_t window) : window_(window), values_(window < 4096 ? window : 4096) {}

    void push(double value) {
        values_.push(Moments::of(value));
        if (values_.size() > window_) values_.pop();
    }
    std::uint64_t size() const { return values_.size(); }
    bool is_full() const { return values_.size() == window_; }
    double mean() const { return values_.query().mean; }
    double std_dev() const { return values_.query().std_dev(values_.size()); }
    Moments moments() const { return values_.query(); }
    void pop() { values_.pop(); }

    template <class Archive>
    void archive(Archive& ar) {
        values_.archive(ar);
    }

private:
    std::uint64_t window_;
    SlidingAggregate<Moments> values_;
};

// Extremum of a window: the monotonic deque, cut by bisection so that no event pays for a long tail.
template <class Better>
class RollingExtremum {
public:
    explicit RollingExtremum(std::size_t expected_size = 0) : deque_(expected_size + 1) {}

    // `position` is the sample's place in its window, increasing.
    void push(std::uint64_t position, double value) {
        // The first sample that gives way. Halves are chosen without a branch, as which it is cannot be predicted.
        std::uint64_t low = deque_.first();
        for (std::uint64_t left = deque_.size(); left > 0;) {
            const std::uint64_t half = (left + 1) / 2;
            low += Better{}(deque_.at(low + half - 1).value, value) ? half : 0;
            left -= half;
        }
        deque_.truncate(low);
        deque_.push_back({value, position});
    }
    void drop_before(std::uint64_t position) {
        while (!deque_.empty() && deque_.front().position < position) deque_.pop_front();
    }
    bool empty() const { return deque_.empty(); }
    double value() const { return deque_.front().value; }

    template <class Archive>
    void archive(Archive& ar) {
        ar.ring(deque_);
    }

private:
    struct Sample {
        double value = 0.0;
        std::uint64_t position = 0;
    };
    RingBuffer<Sample> deque_;
};

struct Greater {
    bool operator()(double a, double b) const { return a > b; }
};
struct Less {
    bool operator()(double a, double b) const { return a < b; }
};
using RollingMax = RollingExtremum<Greater>;
using RollingMin = RollingExtremum<Less>;

}  // namespace ami
