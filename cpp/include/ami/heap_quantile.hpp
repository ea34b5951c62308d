// Order statistics of a large window by two indexed heaps.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "ami/exact_moments.hpp"
#include "ami/sample_ring.hpp"

namespace ami {

// The q-quantile of a window in O(log n): the samples up to the quantile in a heap with the greatest on top ("low"), the
// rest in one with the least on top ("high"). Both share one array: the low heap grows from its front, the high one from
// its end, so that room for the window is room for any split of it. Samples are known by their slot in the window.
// Each parent has four children: they lie in one cache line, and the way down is half as long as with two.
class HeapQuantile {
public:
    explicit HeapQuantile(double q) : q_(q) {}

    // Makes room for `size` samples, so that taking over a window asks for no memory. The samples are lost.
    void reserve(std::size_t size) {
        values_.resize(size);
        slots_.resize(size);
        places_.resize(size);
        low_count_ = high_count_ = 0;
    }

    // Takes the samples of a window over; later calls must follow it push by push and pop by pop.
    // Invariant: reserve() made room for the window's capacity.
    void assign(const SampleRing& window) {
        const std::size_t count = window.size();
        for (std::size_t age = 0; age < count; ++age) {
            const std::size_t slot = window.slot_of(age);
            slots_[age] = static_cast<std::uint32_t>(slot);
        }
        low_count_ = low_target(count);
        high_count_ = count - low_count_;
        const auto begin = slots_.begin();
        const auto cut = begin + static_cast<std::ptrdiff_t>(low_count_);
        const auto end = begin + static_cast<std::ptrdiff_t>(count);
        const auto by_value = [&window](std::uint32_t a, std::uint32_t b) { return window.at(a) < window.at(b); };
        if (cut != end) std::nth_element(begin, cut, end, by_value);
        std::copy_backward(cut, end, slots_.end());
        for (std::size_t i = 0; i < values_.size(); ++i) values_[i] = window.at(slots_[i]);
        make_heap<true>(low_count_);
        make_heap<false>(high_count_);
    }

    void push(std::size_t slot, double value) {
        const Sample sample{value, static_cast<std::uint32_t>(slot)};
        if (low_count_ == 0 || value <= lower()) {
            sift_up<true>(low_count_++, sample);
        } else {
            sift_up<false>(high_count_++, sample);
        }
        rebalance();
    }

    void pop(std::size_t slot) {
        const std::size_t place = places_[slot];
        if (place < low_count_) {
            remove<true>(place);
        } else {
            remove<false>(places_.size() - 1 - place);
        }
        rebalance();
    }

    // pop() and push() in one: sizes stay, so at most one sample changes heaps.
    void replace(std::size_t oldest, std::size_t slot, double value) {
        const std::size_t place = places_[oldest];
        const Sample sample{value, static_cast<std::uint32_t>(slot)};
        if (place < low_count_) {
            if (high_count_ > 0 && value > value_at<false>(0)) {
                sift_up<true>(place, at<false>(0));
                sift_down<false>(0, sample);
            } else {
                settle<true>(place, sample);
            }
        } else {
            const std::size_t index = places_.size() - 1 - place;
            if (value < value_at<true>(0)) {
                sift_up<false>(index, at<true>(0));
                sift_down<true>(0, sample);
            } else {
                settle<false>(index, sample);
            }
        }
    }

    // The sample of the quantile's rank and the next one up, itself when there is none. Invariant: there is a sample.
    double lower() const { return values_[0]; }
    double upper() const { return high_count_ == 0 ? lower() : values_.back(); }

private:
    struct Sample {
        double value = 0.0;
        std::uint32_t slot = 0;
    };

    static constexpr std::size_t kChildren = 4;

    std::size_t low_target(std::size_t count) const {
        return count == 0 ? 0 : static_cast<std::size_t>(q_ * as_double(count - 1)) + 1;
    }

    template <bool kLow>
    std::size_t place_of(std::size_t index) const {
        return kLow ? index : places_.size() - 1 - index;
    }
    template <bool kLow>
    Sample at(std::size_t index) const {
        const std::size_t place = place_of<kLow>(index);
        return {values_[place], slots_[place]};
    }
    template <bool kLow>
    double value_at(std::size_t index) const {
        return values_[place_of<kLow>(index)];
    }
    template <bool kLow>
    std::size_t& count() {
        return kLow ? low_count_ : high_count_;
    }
    template <bool kLow>
    static bool above(double a, double b) {
        return kLow ? a > b : a < b;
    }
    template <bool kLow>
    void put(std::size_t index, const Sample& sample) {
        const std::size_t place = place_of<kLow>(index);
        values_[place] = sample.value;
        slots_[place] = sample.slot;
        places_[sample.slot] = static_cast<std::uint32_t>(place);
    }

    template <bool kLow>
    void make_heap(std::size_t size) {
        for (std::size_t index = size; index-- > 0;) sift_down<kLow>(index, at<kLow>(index));
    }

    // Puts the sample where there is room, or as far above as it belongs. Returns whether it moved.
    template <bool kLow>
    bool sift_up(std::size_t index, const Sample sample) {
        const std::size_t start = index;
        while (index > 0) {
            const std::size_t parent = (index - 1) / kChildren;
            if (!above<kLow>(sample.value, value_at<kLow>(parent))) break;
            put<kLow>(index, at<kLow>(parent));
            index = parent;
        }
        put<kLow>(index, sample);
        return index != start;
    }

    template <bool kLow>
    void sift_down(std::size_t index, const Sample sample) {
        const std::size_t size = count<kLow>();
        for (;;) {
            const std::size_t first = kChildren * index + 1;
            if (first >= size) break;
            std::size_t best = first;
            const std::size_t end = std::min(size, first + kChildren);
            for (std::size_t child = first + 1; child < end; ++child) {
                if (above<kLow>(value_at<kLow>(child), value_at<kLow>(best))) best = child;
            }
            if (!above<kLow>(value_at<kLow>(best), sample.value)) break;
            put<kLow>(index, at<kLow>(best));
            index = best;
        }
        put<kLow>(index, sample);
    }

    template <bool kLow>
    void settle(std::size_t index, const Sample sample) {
        if (!sift_up<kLow>(index, sample)) sift_down<kLow>(index, sample);
    }

    template <bool kLow>
    void remove(std::size_t index) {
        const std::size_t last = --count<kLow>();
        if (index != last) settle<kLow>(index, at<kLow>(last));
    }

    template <bool kFromLow>
    void move_top() {
        const Sample top = at<kFromLow>(0);
        remove<kFromLow>(0);
        sift_up<!kFromLow>(count<!kFromLow>()++, top);
    }

    // Sizes are off by at most one after a push or a pop.
    void rebalance() {
        const std::size_t target = low_target(low_count_ + high_count_);
        while (low_count_ > target) move_top<true>();
        while (low_count_ < target) move_top<false>();
    }

    double q_;
    std::size_t low_count_ = 0;
    std::size_t high_count_ = 0;
    // Value and slot of the sample at each place.
    std::vector<double> values_;
    std::vector<std::uint32_t> slots_;
    std::vector<std::uint32_t> places_;  // by slot
};

}  // namespace ami
