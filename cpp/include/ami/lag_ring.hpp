// The last values of a stream, addressed by how many came after them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ami {

// A ring that is always full: a new value takes the place of the oldest. It starts filled with T{}.
template <class T>
class LagRing {
public:
    // Invariant: `size` > 0.
    explicit LagRing(std::size_t size) : data_(size), size_(size) {}

    std::size_t size() const { return size_; }

    // The value that `lag` others followed. Invariant: lag < size().
    const T& back(std::size_t lag) const {
        // Sizes are no powers of two, so that no memory lies idle.
        return data_[newest_ >= lag ? newest_ - lag : newest_ + size_ - lag];
    }

    // The next value's place, which still holds the oldest: for the caller to fill.
    T& advance() {
        newest_ = newest_ + 1 == size_ ? 0 : newest_ + 1;
        return data_[newest_];
    }

    // Doubles the room.
    [[gnu::noinline, gnu::cold]] void grow() {
        std::vector<T> bigger(2 * size_);
        for (std::size_t lag = 0; lag < size_; ++lag) bigger[size_ - 1 - lag] = back(lag);
        newest_ = size_ - 1;
        size_ *= 2;
        data_.swap(bigger);
    }

    // The newest `count` values, oldest first. Invariant: count <= size().
    template <class Archive>
    void archive(Archive& ar, std::size_t count) {
        for (std::size_t lag = count; lag-- > 0;) {
            T value = back(lag);
            ar.value(value);
            if (Archive::kIsReading) advance() = value;
        }
    }

private:
    std::vector<T> data_;
    std::size_t size_;
    std::size_t newest_ = 0;
};

}  // namespace ami
