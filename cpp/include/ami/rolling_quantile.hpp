// A quantile of a sliding window: the samples near it in a small sorted table, the others only counted.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "ami/exact_moments.hpp"
#include "ami/heap_quantile.hpp"
#include "ami/sample_ring.hpp"

namespace ami {

// The q-quantile of a first-in first-out window. A table holds each distinct value between two bounds with its count;
// of a sample outside the bounds only the side matters. A cursor stands on the quantile's entry and moves by a step now
// and then. Values on a grid (spreads) fit into the table altogether; of continuous ones (depths) it holds the few dozen
// about the quantile, and is read anew from the window when the quantile reaches a bound. That costs a scan: where it
// would happen often (a trend), or the window is large, the samples are kept in heaps for a term, O(log n) whatever comes.
class RollingQuantile {
public:
    RollingQuantile(double q, std::size_t expected_size) : q_(q), samples_(expected_size), heaps_(q) {
        heaps_.reserve(samples_.capacity());
        clear_table();
    }

    std::uint64_t size() const { return samples_.size(); }
    const SampleRing& samples() const { return samples_; }

    void push(double value) {
        if (samples_.is_full()) grow();
        const std::size_t slot = samples_.push(value);
        ++end_;
        aim();
        if (is_in_heaps_) {
            heaps_.push(slot, value);
            return read_heaps();
        }
        insert(value);
        if (samples_.size() > kMostScanned && is_bounded()) return start();
        settle();
    }

    void pop() {
        const std::size_t slot = samples_.oldest_slot();
        const double oldest = samples_.at(slot);
        samples_.pop();
        if (samples_.size() == 0) {
            is_in_heaps_ = false;
            return clear_table();
        }
        aim();
        if (is_in_heaps_) {
            heaps_.pop(slot);
            return read_heaps();
        }
        erase(oldest);
        settle();
    }

    // pop() and push() in one: the rank stays.
    [[gnu::always_inline]] void replace_oldest(double value) {
        const std::size_t leaving = samples_.oldest_slot();
        const double oldest = samples_.at(leaving);
        const std::size_t slot = samples_.replace_oldest(value);
        ++end_;
        if (is_in_heaps_) return replace_in_heaps(leaving, slot, value);
        // Above the table nothing is kept: most often one such sample takes the place of another.
        if (value >= high_bound_ && oldest >= high_bound_) return;
        // Where few values come again and again, both have their entries.
        const std::size_t joins = last_place(value);
        const std::size_t leaves = last_place(oldest);
        if (values_[joins] == value && values_[leaves] == oldest && counts_[leaves] > 1) {
            ++counts_[joins];
            --counts_[leaves];
            before_ += joins < cursor_;
            before_ -= leaves < cursor_;
            return settle();
        }
        replace_in_table(oldest, value);
    }

    // NumPy's median: the middle sample, or the mean of the two middle ones. Invariant: q = 0.5 and size() > 0.
    double median() const { return weight_ == 0.0 ? lower_ : (lower_ + upper_) / 2.0; }

    // NumPy's default percentile, in the order of operations of its lerp. Invariant: size() > 0.
    double quantile() const {
        const double gap = upper_ - lower_;
        return weight_ >= 0.5 ? upper_ - gap * (1.0 - weight_) : lower_ + gap * weight_;
    }

    // The samples are the state: everything else follows from them.
    template <class Archive>
    void archive(Archive& ar) {
        samples_.archive(ar);
        if (!Archive::kIsReading) return;
        for (std::size_t age = 0; age < samples_.size(); ++age) ar.require(std::isfinite(samples_.at(samples_.slot_of(age))));
        heaps_.reserve(samples_.capacity());
        clear_table();
        is_in_heaps_ = false;
        end_ = samples_.size();
        last_scan_ = debt_ = 0;
        if (end_ == 0) return;
        aim();
        start();
    }

private:
    static constexpr std::size_t kTableSize = 64;
    static constexpr std::size_t kBlock = 8;
    static constexpr std::uint64_t kMostScanned = 1024;
    // A scan is paid for by the events after it, so that no more than one event in a thousand stays slow.
    static constexpr std::uint64_t kScanPrice = 1024;
    static constexpr std::uint64_t kMostDebt = 8 * kScanPrice;
    static constexpr std::uint64_t kHeapTerm = 1 << 16;
    static constexpr int kHashShift = 64 - 6;
    static constexpr double kInfinity = std::numeric_limits<double>::infinity();

    // The quantile lies `weight_` of the way from the sample of rank `rank_` (from 0) to the next.
    void aim() {
        const double index = q_ * as_double(samples_.size() - 1);
        rank_ = static_cast<std::uint64_t>(index);
        weight_ = index - as_double(rank_);
    }

    void clear_table() {
        count_ = cursor_ = 0;
        before_ = 0;
        low_bound_ = -kInfinity;
        high_bound_ = kInfinity;
        std::fill(values_, values_ + kTableSize + kBlock, kInfinity);
    }

    bool is_bounded() const { return low_bound_ != -kInfinity || high_bound_ != kInfinity; }

    void read_heaps() {
        if (end_ - heaps_since_ >= kHeapTerm && samples_.size() <= kMostScanned / 2) {
            debt_ = 0;
            return start();
        }
        lower_ = heaps_.lower();
        upper_ = heaps_.upper();
    }

    [[gnu::noinline, gnu::cold]] void grow() {
        samples_.grow();
        heaps_.reserve(samples_.capacity());
        if (is_in_heaps_) heaps_.assign(samples_);
    }

    // Sets the structures up from the samples.
    [[gnu::noinline, gnu::cold]] void start() {
        debt_ -= std::min(debt_, end_ - last_scan_);
        last_scan_ = end_;
        debt_ += kScanPrice;
        is_in_heaps_ = samples_.size() > kMostScanned || debt_ > kMostDebt;
        if (!is_in_heaps_) return read_window();
        heaps_since_ = end_;
        heaps_.assign(samples_);
        read_heaps();
    }

    [[gnu::noinline]] void replace_in_heaps(std::size_t leaving, std::size_t slot, double value) {
        heaps_.replace(leaving, slot, value);
        read_heaps();
    }
    [[gnu::noinline]] void replace_in_table(double oldest, double value) {
        insert(value);
        erase(oldest);
        settle();
    }

    // Where `value`, or another one of its hash, stood when it was last looked for.
    std::uint8_t& last_place(double value) {
        std::uint64_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        return last_places_[(bits * 0x9E3779B97F4A7C15) >> kHashShift];
    }

    // place_of() where few values come again and again: what the last look found, if that still holds.
    std::size_t known_place_of(double value) {
        std::uint8_t& last = last_place(value);
        if (values_[last] == value) return last;
        const std::size_t place = place_of(value);
        last = static_cast<std::uint8_t>(place);
        return place;
    }

    // The first entry not below `value`: counted block by block without a branch, since where a sample falls is what no
    // processor can predict.
    std::size_t place_of(double value) const {
        std::int64_t block = 0;
        for (std::size_t i = 0; i < kTableSize / kBlock; ++i) block += values_[i * kBlock + kBlock - 1] < value;
        const double* entries = values_ + block * kBlock;
        std::int64_t place = block * kBlock;
        for (std::size_t i = 0; i < kBlock; ++i) place += entries[i] < value;
        return static_cast<std::size_t>(place);
    }

    void insert(double value) {
        if (value >= high_bound_) return;
        if (value <= low_bound_) {
            ++before_;
            return;
        }
        std::size_t place = known_place_of(value);
        if (values_[place] == value) {
            ++counts_[place];
            before_ += place < cursor_;
            return;
        }
        if (count_ == kTableSize) {
            // The entry farthest from the cursor makes room.
            if (cursor_ < kTableSize / 2) {
                high_bound_ = values_[--count_];
                values_[count_] = kInfinity;
                // Beyond the last entry, the newcomer itself would be the farthest: it is only counted.
                if (place > count_) return;
            } else {
                low_bound_ = values_[0];
                close(0);
                if (place == 0) {
                    ++before_;
                    return;
                }
                --place;
            }
        }
        open(place);
        values_[place] = value;
        counts_[place] = 1;
        if (place <= cursor_) {
            ++cursor_;
            ++before_;
        }
    }

    // Invariant: `value` is in the window as the table sees it.
    void erase(double value) {
        if (value >= high_bound_) return;
        if (value <= low_bound_) {
            --before_;
            return;
        }
        const std::size_t place = known_place_of(value);
        before_ -= place < cursor_;
        if (--counts_[place] == 0) close(place);
    }

    void open(std::size_t place) {
        for (std::size_t i = count_; i > place; --i) {
            values_[i] = values_[i - 1];
            counts_[i] = counts_[i - 1];
        }
        ++count_;
    }

    void close(std::size_t place) {
        --count_;
        for (std::size_t i = place; i < count_; ++i) {
            values_[i] = values_[i + 1];
            counts_[i] = counts_[i + 1];
        }
        values_[count_] = kInfinity;
        cursor_ -= place < cursor_;
    }

    // Brings the cursor to the entry of the quantile's rank.
    [[gnu::always_inline]] void settle() {
        while (before_ > rank_) {
            if (cursor_ == 0) return start();
            before_ -= counts_[--cursor_];
        }
        while (cursor_ < count_ && before_ + counts_[cursor_] <= rank_) before_ += counts_[cursor_++];
        if (cursor_ == count_) return start();
        lower_ = upper_ = values_[cursor_];
        if (before_ + counts_[cursor_] > rank_ + 1 || rank_ + 1 == samples_.size()) return;
        if (cursor_ + 1 == count_) return start();
        upper_ = values_[cursor_ + 1];
    }

    // Fills the table anew, about the quantile. Invariant: 0 < size() <= kMostScanned.
    void read_window() {
        double all[kMostScanned];
        const std::size_t n = samples_.size();
        for (std::size_t age = 0; age < n; ++age) all[age] = samples_.at(samples_.slot_of(age));
        // Enough for a full table where values are distinct; where few are, the whole window says which.
        const auto rank = static_cast<std::size_t>(rank_);
        std::size_t first = rank > kTableSize / 2 ? rank - kTableSize / 2 : 0;
        std::size_t end = std::min(n, first + kTableSize + 2);
        if (first > 0) std::nth_element(all, all + first, all + n);
        if (end < n) std::nth_element(all + first, all + end - 1, all + n);
        std::sort(all + first, all + end);
        if (count_distinct(all, first, end) < kTableSize / 2) {
            first = 0;
            end = n;
            std::sort(all, all + n);
        }
        clear_table();
        // What is outside of the part that is in order shares a bound's side with the part's last value.
        std::size_t least = rank;
        std::size_t distinct = 0;
        while (least > first && (all[least - 1] == all[least] || distinct++ < kTableSize / 2)) --least;
        if (least > 0) {
            low_bound_ = least == first ? all[first] : all[least - 1];
            while (all[least] == low_bound_) ++least;
        }
        if (end < n) high_bound_ = all[end - 1];
        before_ = least;
        for (std::size_t i = least; i < end && all[i] < high_bound_; ++i) {
            if (count_ > 0 && all[i] == values_[count_ - 1]) {
                ++counts_[count_ - 1];
            } else if (count_ == kTableSize) {
                high_bound_ = all[i];
            } else {
                values_[count_] = all[i];
                counts_[count_++] = 1;
            }
        }
        settle();
    }

    // How many values a sorted part holds about the rank, 0 when the rank's own reaches an end beyond which there is more.
    std::size_t count_distinct(const double* all, std::size_t first, std::size_t end) const {
        const auto rank = static_cast<std::size_t>(rank_);
        const bool ends_below = first == 0 || all[first] < all[rank];
        const bool ends_above = end == samples_.size() || all[end - 1] > all[rank + 1];
        if (!ends_below || !ends_above) return 0;
        std::size_t count = 1;
        for (std::size_t i = first + 1; i < end; ++i) count += all[i] != all[i - 1];
        return end - first == samples_.size() ? kTableSize : count;
    }

    double q_;
    std::uint64_t rank_ = 0;
    double weight_ = 0.0;
    double lower_ = 0.0;
    double upper_ = 0.0;

    // The table: `count_` entries between the bounds, both of which are outside. Above them stands infinity.
    double low_bound_;
    double high_bound_;
    std::size_t count_;
    std::size_t cursor_;
    std::uint64_t before_;  // samples before the cursor's entry, those not above the low bound included
    double values_[kTableSize + kBlock];
    std::uint32_t counts_[kTableSize];
    std::uint8_t last_places_[std::size_t{1} << (64 - kHashShift)] = {};

    SampleRing samples_;
    HeapQuantile heaps_;  // not looked at while the table serves
    bool is_in_heaps_ = false;
    // Samples so far, and how many there were when the heaps took over and when the window was last read.
    std::uint64_t end_ = 0;
    std::uint64_t heaps_since_ = 0;
    std::uint64_t last_scan_ = 0;
    std::uint64_t debt_ = 0;  // events until the scans so far are paid for
};

}  // namespace ami
