// Writes and reads the state of the rolling structures as bytes; one `archive` function a structure serves both ways.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "ami/ring_buffer.hpp"

namespace ami {

class StateWriter {
public:
    static constexpr bool kIsReading = false;

    const std::string& bytes() const { return bytes_; }

    template <class T>
    void value(const T& item) {
        static_assert(std::is_trivially_copyable_v<T>, "state is saved as bytes: it must be trivially copyable");
        bytes_.append(reinterpret_cast<const char*>(&item), sizeof(T));
    }
    template <class T>
    void ring(const RingBuffer<T>& ring) {
        value(ring.first());
        value(ring.size());
        for (std::uint64_t i = ring.first(); i != ring.end(); ++i) value(ring.at(i));
    }
    template <class T>
    void list(const std::vector<T>& items, std::uint64_t) {
        value(static_cast<std::uint64_t>(items.size()));
        for (const T& item : items) value(item);
    }
    void positions(std::uint64_t, std::uint64_t, std::initializer_list<std::uint64_t*> cuts) {
        for (const std::uint64_t* cut : cuts) value(*cut);
    }
    void require(bool) {}

private:
    std::string bytes_;
};

// Throws std::invalid_argument for bytes that cannot be a state; a structure that was read is safe to use.
class StateReader {
public:
    static constexpr bool kIsReading = true;

    StateReader(const char* data, std::size_t size) : next_(data), left_(size) {}

    void require(bool holds) const {
        if (!holds) throw std::invalid_argument("the snapshot is damaged");
    }
    bool is_at_end() const { return left_ == 0; }

    template <class T>
    void value(T& item) {
        static_assert(std::is_trivially_copyable_v<T>, "state is read as bytes: it must be trivially copyable");
        require(left_ >= sizeof(T));
        std::memcpy(&item, next_, sizeof(T));
        next_ += sizeof(T);
        left_ -= sizeof(T);
    }
    void value(bool& item) {
        std::uint8_t byte = 0;
        value(byte);
        require(byte <= 1);
        item = byte == 1;
    }
    template <class T>
    void ring(RingBuffer<T>& ring) {
        std::uint64_t first = 0;
        std::uint64_t size = 0;
        value(first);
        value(size);
        require(size <= left_ / sizeof(T));
        ring.reset(first);
        for (std::uint64_t i = 0; i < size; ++i) {
            T item;
            value(item);
            ring.push_back(item);
        }
    }
    template <class T>
    void list(std::vector<T>& items, std::uint64_t most) {
        std::uint64_t size = 0;
        value(size);
        require(size <= most && size <= left_ / sizeof(T));
        items.resize(size);
        for (T& item : items) value(item);
    }
    // Reads the cuts of a window and checks first <= cut_1 <= cut_2 … <= end.
    void positions(std::uint64_t first, std::uint64_t end, std::initializer_list<std::uint64_t*> cuts) {
        std::uint64_t low = first;
        for (std::uint64_t* cut : cuts) {
            value(*cut);
            require(low <= *cut && *cut <= end);
            low = *cut;
        }
    }

private:
    const char* next_;
    std::size_t left_;
};

}  // namespace ami
