// Sums, variance, extrema and order statistics over a sliding window, right in every regime.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "ami/ring_buffer.hpp"

namespace ami {

// Counts stay far below 2^63; a signed conversion is one instruction, an unsigned one is not.
inline double as_double(std::uint64_t n) { return static_cast<double>(static_cast<std::int64_t>(n)); }

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
        std::uint64_t low = deque_.first();
        std::uint64_t high = deque_.end();
        // The usual cases first: nothing gives way, or everything does.
        if (low != high) {
            if (Better{}(deque_.back().value, value)) {
                low = high;
            } else if (!Better{}(deque_.front().value, value)) {
                high = low;
            }
        }
        while (low != high) {
            const std::uint64_t middle = low + (high - low) / 2;
            if (Better{}(deque_.at(middle).value, value)) {
                low = middle + 1;
            } else {
                high = middle;
            }
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

// The q-quantile of a first-in first-out window in O(log n): the samples up to the quantile in a max-heap, the rest in a
// min-heap, each sample's place kept by its position in the window.
class RollingQuantile {
public:
    RollingQuantile(double q, std::size_t expected_size) : q_(q), places_(expected_size + 1) {
        low_.reserve(expected_size + 1);
        high_.reserve(expected_size + 1);
    }

    std::uint64_t size() const { return places_.size(); }

    void push(double value) {
        const std::uint64_t position = places_.end();
        places_.push_back({});
        const bool goes_low = low_.empty() || value <= low_[0].value;
        std::vector<Sample>& heap = goes_low ? low_ : high_;
        heap.push_back({value, position});
        if (goes_low) {
            sift_up<true>(heap.size() - 1);
        } else {
            sift_up<false>(heap.size() - 1);
        }
        rebalance();
    }

    void pop() {
        const Place place = places_.front();
        if (place.is_low) {
            remove<true>(place.index);
        } else {
            remove<false>(place.index);
        }
        places_.pop_front();
        rebalance();
    }

    // pop() and push() in one: sizes stay, so at most one sample changes heaps.
    void replace_oldest(double value) {
        const Place place = places_.front();
        places_.pop_front();
        const std::uint64_t position = places_.end();
        places_.push_back(place);
        const Sample sample{value, position};
        // Spreads live on few values: most often the newcomer takes the very place of the one that leaves.
        Sample& leaving = (place.is_low ? low_ : high_)[place.index];
        if (leaving.value == value) {
            leaving = sample;
            return;
        }
        if (place.is_low) {
            if (!high_.empty() && value > high_[0].value) {
                put<true>(place.index, high_[0]);
                sift_up<true>(place.index);
                put<false>(0, sample);
                sift_down<false>(0);
            } else {
                put<true>(place.index, sample);
                settle<true>(place.index);
            }
        } else if (value < low_[0].value) {
            put<false>(place.index, low_[0]);
            sift_up<false>(place.index);
            put<true>(0, sample);
            sift_down<true>(0);
        } else {
            put<false>(place.index, sample);
            settle<false>(place.index);
        }
    }

    // NumPy's median: the middle sample, or the mean of the two middle ones. Invariant: q = 0.5 and size() > 0.
    double median() const { return size() % 2 == 1 ? low_[0].value : (low_[0].value + high_[0].value) / 2.0; }

    // NumPy's default percentile, in the order of operations of its lerp. Invariant: size() > 0.
    double quantile() const {
        const double index = q_ * as_double(size() - 1);
        const double weight = index - as_double(static_cast<std::uint64_t>(index));
        const double below = low_[0].value;
        if (high_.empty()) return below;
        const double above = high_[0].value;
        const double gap = above - below;
        return weight >= 0.5 ? above - gap * (1.0 - weight) : below + gap * weight;
    }

    template <class Archive>
    void archive(Archive& ar) {
        ar.ring(places_);
        ar.list(low_, places_.size());
        ar.list(high_, places_.size());
        if (Archive::kIsReading) relink(ar);
    }

private:
    struct Sample {
        double value = 0.0;
        std::uint64_t position = 0;
    };
    struct Place {
        std::uint32_t index = 0;
        std::uint32_t is_low = 0;
    };

    std::uint64_t low_target() const {
        const std::uint64_t n = places_.size();
        return n == 0 ? 0 : static_cast<std::uint64_t>(q_ * as_double(n - 1)) + 1;
    }

    template <bool kLow>
    std::vector<Sample>& heap() {
        return kLow ? low_ : high_;
    }
    template <bool kLow>
    static bool above(double a, double b) {
        return kLow ? a > b : a < b;
    }
    template <bool kLow>
    void put(std::size_t index, const Sample& sample) {
        heap<kLow>()[index] = sample;
        places_.at(sample.position) = {static_cast<std::uint32_t>(index), kLow};
    }

    template <bool kLow>
    bool sift_up(std::size_t index) {
        std::vector<Sample>& samples = heap<kLow>();
        const Sample sample = samples[index];
        const std::size_t start = index;
        while (index > 0) {
            const std::size_t parent = (index - 1) / 2;
            if (!above<kLow>(sample.value, samples[parent].value)) break;
            put<kLow>(index, samples[parent]);
            index = parent;
        }
        put<kLow>(index, sample);
        return index != start;
    }

    template <bool kLow>
    void sift_down(std::size_t index) {
        std::vector<Sample>& samples = heap<kLow>();
        const Sample sample = samples[index];
        const std::size_t size = samples.size();
        for (;;) {
            std::size_t child = 2 * index + 1;
            if (child >= size) break;
            if (child + 1 < size && above<kLow>(samples[child + 1].value, samples[child].value)) ++child;
            if (!above<kLow>(samples[child].value, sample.value)) break;
            put<kLow>(index, samples[child]);
            index = child;
        }
        put<kLow>(index, sample);
    }

    template <bool kLow>
    void settle(std::size_t index) {
        if (!sift_up<kLow>(index)) sift_down<kLow>(index);
    }

    template <bool kLow>
    void remove(std::size_t index) {
        std::vector<Sample>& samples = heap<kLow>();
        const Sample last = samples.back();
        samples.pop_back();
        if (index == samples.size()) return;
        put<kLow>(index, last);
        settle<kLow>(index);
    }

    template <bool kFromLow>
    void move_top() {
        const Sample top = heap<kFromLow>()[0];
        remove<kFromLow>(0);
        heap<!kFromLow>().push_back(top);
        sift_up<!kFromLow>(heap<!kFromLow>().size() - 1);
    }

    // Sizes are off by at most one after a push or a pop.
    void rebalance() {
        const std::uint64_t target = low_target();
        while (low_.size() > target) move_top<true>();
        while (low_.size() < target) move_top<false>();
    }

    // A restored window trusts nothing but the samples: places are derived again, and each position must occur once.
    template <class Archive>
    void relink(Archive& ar) {
        ar.require(low_.size() == low_target() && low_.size() + high_.size() == places_.size());
        std::vector<bool> seen(places_.size());
        const auto link = [&](std::vector<Sample>& samples, bool is_low) {
            for (std::size_t i = 0; i < samples.size(); ++i) {
                const std::uint64_t offset = samples[i].position - places_.first();
                ar.require(offset < places_.size() && !seen[offset]);
                seen[offset] = true;
                places_.at(samples[i].position) = {static_cast<std::uint32_t>(i), is_low};
            }
        };
        link(low_, true);
        link(high_, false);
    }

    double q_;
    RingBuffer<Place> places_;
    std::vector<Sample> low_;
    std::vector<Sample> high_;
};

}  // namespace ami
