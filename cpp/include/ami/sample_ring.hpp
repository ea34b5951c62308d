// The samples of a sliding window by slot: a sample stays where it is until it leaves.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ami {

// A first-in first-out window in a ring of exactly the size asked for: windows by count are no powers of two, and memory
// that lies idle in every symbol is cache that others lack. Invariant of what names the
// oldest sample or lets it go: size() > 0.
class SampleRing {
public:
    explicit SampleRing(std::size_t size) : data_(size == 0 ? 8 : size) {}

    std::size_t size() const { return size_; }
    std::size_t capacity() const { return data_.size(); }
    bool is_full() const { return size_ == data_.size(); }

    std::size_t oldest_slot() const { return first_; }
    // The slot of the sample that `age` others are older than. Invariant: age < size().
    std::size_t slot_of(std::size_t age) const {
        const std::size_t slot = first_ + age;
        return slot < data_.size() ? slot : slot - data_.size();
    }
    double at(std::size_t slot) const { return data_[slot]; }
    double front() const { return data_[first_]; }
    double back() const { return data_[slot_of(size_ - 1)]; }

    // Adds a sample; returns its slot. Invariant: !is_full().
    std::size_t push(double value) {
        const std::size_t slot = slot_of(size_++);
        data_[slot] = value;
        return slot;
    }
    void pop() {
        first_ = next(first_);
        --size_;
    }
    // pop() and push() in one; returns the newcomer's slot, which is the oldest one's in a full ring.
    std::size_t replace_oldest(double value) {
        const std::size_t slot = is_full() ? first_ : slot_of(size_);
        data_[slot] = value;
        first_ = next(first_);
        return slot;
    }
    void clear() { first_ = size_ = 0; }

    // Doubles the room. Slots change: the oldest sample gets slot 0.
    [[gnu::noinline, gnu::cold]] void grow() {
        std::vector<double> bigger(2 * data_.size());
        for (std::size_t age = 0; age < size_; ++age) bigger[age] = data_[slot_of(age)];
        first_ = 0;
        data_.swap(bigger);
    }

    // Oldest first.
    template <class Archive>
    void archive(Archive& ar) {
        std::uint64_t count = size_;
        ar.value(count);
        if (Archive::kIsReading) clear();
        for (std::uint64_t age = 0; age < count; ++age) {
            double value = Archive::kIsReading ? 0.0 : data_[slot_of(age)];
            ar.value(value);
            if (!Archive::kIsReading) continue;
            if (is_full()) grow();
            push(value);
        }
    }

private:
    std::size_t next(std::size_t slot) const { return slot + 1 == data_.size() ? 0 : slot + 1; }

    std::vector<double> data_;
    std::size_t first_ = 0;
    std::size_t size_ = 0;
};

}  // namespace ami
