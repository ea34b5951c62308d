// A growable ring addressed by absolute position: the only place that wraps an index.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ami {

// Positions count every element ever pushed and never repeat, so that two structures over one window agree on who is
// who without sharing memory. Capacity is a power of two; it grows only when the window outgrows it.
template <class T>
class RingBuffer {
public:
    explicit RingBuffer(std::size_t expected_size = 0) : data_(round_up(expected_size)), mask_(data_.size() - 1) {}

    std::uint64_t first() const { return first_; }
    std::uint64_t end() const { return end_; }
    std::uint64_t size() const { return end_ - first_; }
    bool empty() const { return first_ == end_; }
    std::uint64_t capacity() const { return mask_ + 1; }
    void reserve(std::uint64_t size) {
        while (capacity() < size) grow();
    }

    // Invariant: first() <= position < end().
    T& at(std::uint64_t position) { return data_[position & mask_]; }
    const T& at(std::uint64_t position) const { return data_[position & mask_]; }
    T& front() { return at(first_); }
    const T& front() const { return at(first_); }
    T& back() { return at(end_ - 1); }
    const T& back() const { return at(end_ - 1); }

    void push_back(const T& value) {
        if (size() > mask_) grow();
        data_[end_++ & mask_] = value;
    }
    void pop_front() { ++first_; }
    // Drops every element before `position`. Invariant: first() <= position <= end().
    void drop_before(std::uint64_t position) { first_ = position; }
    // Drops every element from `position` on.
    void truncate(std::uint64_t position) { end_ = position; }

    // Empties the ring; the next element gets `position`.
    void reset(std::uint64_t position) { first_ = end_ = position; }

private:
    static std::size_t round_up(std::size_t size) {
        std::size_t capacity = 8;
        while (capacity < size) capacity *= 2;
        return capacity;
    }

    // Out of the way: where windows are full it is never called.
    [[gnu::noinline, gnu::cold]] void grow() {
        std::vector<T> bigger(data_.size() * 2);
        for (std::uint64_t i = first_; i != end_; ++i) bigger[i & (bigger.size() - 1)] = at(i);
        data_.swap(bigger);
        mask_ = data_.size() - 1;
    }

    std::vector<T> data_;
    std::uint64_t mask_;
    std::uint64_t first_ = 0;
    std::uint64_t end_ = 0;
};

}  // namespace ami
