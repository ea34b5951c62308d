// Bytes that grow, with room beyond their end for one short piece more.
#pragma once

#include <cstddef>
#include <cstring>
#include <string_view>
#include <vector>

namespace ami {

// Short pieces are copied whole at this width, which is faster than copying just so many bytes.
inline constexpr std::size_t kPiece = 32;

class ByteBuffer {
public:
    ByteBuffer() : data_(8192) {}

    void clear() { size_ = 0; }
    void cut_to(std::size_t size) { size_ = size; }
    std::size_t size() const { return size_; }
    const char* data() const { return data_.data(); }
    char* data() { return data_.data(); }
    char& back() { return data_[size_ - 1]; }
    void pop_back() { --size_; }

    void put(char c) {
        reserve(1);
        data_[size_++] = c;
    }

    void put(std::string_view text) {
        reserve(text.size());
        std::memcpy(data_.data() + size_, text.data(), text.size());
        size_ += text.size();
    }

    // A text of the program's own, whose length the compiler knows.
    template <std::size_t N>
    void put(const char (&text)[N]) {
        put(std::string_view(text, N - 1));
    }

    // Of `piece`, which has kPiece readable bytes, the first `length`.
    void put_piece(const char* piece, std::size_t length) {
        reserve(kPiece);
        std::memcpy(data_.data() + size_, piece, kPiece);
        size_ += length;
    }

    // Room for kRoom bytes, of which `used` says afterwards how many were written.
    static constexpr std::size_t kRoom = 2 * kPiece;
    char* room() {
        reserve(kRoom);
        return data_.data() + size_;
    }
    void used(std::size_t bytes) { size_ += bytes; }

private:
    void reserve(std::size_t more) {
        if (size_ + more + kPiece > data_.size()) data_.resize(2 * data_.size() + more);
    }

    std::vector<char> data_;
    std::size_t size_ = 0;
};

}  // namespace ami
