// Maximum of a sliding window in a few instructions an event, without a slow one among them.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "ami/ring_buffer.hpp"
#include "ami/rolling_stats.hpp"

namespace ami {

// Samples are numbered from 0 on. Blocks of sixteen cut the window, as van Herk (1992) and Gil & Werman (1993) cut theirs:
// of the block that the oldest sample is in, each place holds the maximum from itself to the block's end; of the block that
// grows, the maximum so far is kept; the whole blocks between go through the deque, one in sixteen events. What a deque of
// all samples costs is jumps that nobody can predict, or a search for each sample.
class BlockedMaximum {
public:
    explicit BlockedMaximum(std::size_t expected_size = 0)
        : samples_(expected_size + kBlock), blocks_(expected_size / kBlock + 1) {}

    std::uint64_t end() const { return samples_.end(); }
    bool empty() const { return samples_.empty(); }

    [[gnu::always_inline]] void push(double value) {
        samples_.push_back(value);
        newest_ = larger(newest_, value);
        if (samples_.end() % kBlock == 0) close_block();
    }
    // Takes out all samples before the one numbered `position`, which is no more than end().
    [[gnu::always_inline]] void drop_before(std::uint64_t position) {
        const std::uint64_t first = samples_.first();
        if (position <= first) return;
        samples_.drop_before(position);
        if (position / kBlock != first / kBlock) enter_block();
        if (is_front_whole()) {
            oldest_ = samples_.front();
        } else {
            read_short_window();
        }
    }
    // Invariant: not empty().
    double value() const { return larger(larger(oldest_, middle_), newest_); }

    // The samples that are above all later ones are the state: the others never come out again. `most`: no sample is
    // farther from the end than this.
    template <class Archive>
    void archive(Archive& ar, std::uint64_t most) {
        std::vector<Sample> chain;
        if (!Archive::kIsReading) chain = read_chain();
        std::uint64_t start = 0;
        std::uint64_t size = chain.size();
        ar.value(start);
        ar.value(size);
        ar.require(size <= most);
        chain.resize(size);
        for (std::size_t i = 0; i < size; ++i) {
            ar.value(chain[i]);
            ar.require(std::isfinite(chain[i].value));
            ar.require(i == 0 || (chain[i - 1].position < chain[i].position && chain[i - 1].value > chain[i].value));
            ar.require(chain[i].position - chain[0].position < most);
        }
        if (Archive::kIsReading) take_chain(chain);
    }

private:
    static constexpr std::uint64_t kBlock = 16;
    static constexpr double kNothing = -std::numeric_limits<double>::infinity();

    struct Sample {
        double value = 0.0;
        std::uint64_t position = 0;
    };

    static double larger(double a, double b) { return a > b ? a : b; }

    // Whether the block of the oldest sample has all its samples; else the whole window is in the one that grows.
    bool is_front_whole() const { return samples_.first() / kBlock < samples_.end() / kBlock; }

    [[gnu::noinline]] void close_block() {
        const std::uint64_t block = samples_.end() / kBlock - 1;
        if (samples_.first() / kBlock == block) {
            read_front_block();
            oldest_ = samples_.front();
        } else {
            blocks_.push(block, newest_);
            middle_ = blocks_.value();
        }
        newest_ = kNothing;
    }

    [[gnu::noinline]] void enter_block() {
        blocks_.drop_before(samples_.first() / kBlock + 1);
        middle_ = blocks_.empty() ? kNothing : blocks_.value();
        if (is_front_whole()) read_front_block();
    }

    void read_front_block() {
        const std::uint64_t end = (samples_.first() / kBlock + 1) * kBlock;
        double above = kNothing;
        for (std::uint64_t i = end; i-- > samples_.first();) {
            above = larger(above, samples_.at(i));
            samples_.at(i) = above;
        }
    }

    [[gnu::noinline]] void read_short_window() {
        oldest_ = newest_ = kNothing;
        for (std::uint64_t i = samples_.first(); i != samples_.end(); ++i) newest_ = larger(newest_, samples_.at(i));
    }

    // Oldest first. A place of the front block that holds a later sample's value is not above that one.
    std::vector<Sample> read_chain() const {
        std::vector<Sample> chain;
        double above = kNothing;
        for (std::uint64_t i = samples_.end(); i-- > samples_.first();) {
            if (samples_.at(i) > above) chain.push_back({above = samples_.at(i), i});
        }
        return {chain.rbegin(), chain.rend()};
    }

    void take_chain(const std::vector<Sample>& chain) {
        *this = BlockedMaximum(samples_.capacity() - kBlock);
        if (chain.empty()) return;
        samples_.reset(chain.front().position);
        for (const Sample& sample : chain) {
            while (samples_.end() < sample.position) push(kNothing);
            push(sample.value);
        }
    }

    RingBuffer<double> samples_;
    RollingMax blocks_;  // by number: the whole ones after that of the oldest sample
    double oldest_ = kNothing;
    double middle_ = kNothing;
    double newest_ = kNothing;
};

}  // namespace ami
