// Order statistics of a large window by two indexed heaps.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "ami/ring_buffer.hpp"
#include "ami/rolling_stats.hpp"

namespace ami {

// The q-quantile of a first-in first-out window in O(log n): the samples up to the quantile in a max-heap, the rest in a
// min-heap, each sample's place kept by its position in the window.
class HeapQuantile {
public:
    explicit HeapQuantile(double q) : q_(q) {}

    // Makes room for `size` samples, so that taking over a window asks for no memory.
    void reserve(std::uint64_t size) {
        places_.reserve(size);
        low_.reserve(size);
        high_.reserve(size);
    }

    // Takes the samples of a window over; later calls must follow it push by push and pop by pop. Memory is kept.
    void assign(const RingBuffer<double>& window) {
        places_.reset(0);
        low_.clear();
        for (std::uint64_t i = window.first(); i != window.end(); ++i) {
            low_.push_back({window.at(i), places_.end()});
            places_.push_back({});
        }
        const auto cut = low_.begin() + static_cast<std::ptrdiff_t>(low_target());
        const auto by_value = [](const Sample& a, const Sample& b) { return a.value < b.value; };
        if (cut != low_.end()) std::nth_element(low_.begin(), cut, low_.end(), by_value);
        high_.assign(cut, low_.end());
        low_.erase(cut, low_.end());
        std::make_heap(low_.begin(), low_.end(), by_value);
        std::make_heap(high_.begin(), high_.end(), [](const Sample& a, const Sample& b) { return a.value > b.value; });
        for (std::size_t i = 0; i < low_.size(); ++i) put<true>(i, low_[i]);
        for (std::size_t i = 0; i < high_.size(); ++i) put<false>(i, high_[i]);
    }

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

    // The sample of the quantile's rank and the next one up, itself when there is none. Invariant: size() > 0.
    double lower() const { return low_[0].value; }
    double upper() const { return high_.empty() ? low_[0].value : high_[0].value; }

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

    double q_;
    RingBuffer<Place> places_;
    std::vector<Sample> low_;
    std::vector<Sample> high_;
};

}  // namespace ami
