// Checkpoints of the books: little-endian fields with a CRC-32 (IEEE 802.3, as zlib's) at the end.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

namespace ami {

inline std::uint32_t crc32(const unsigned char* data, std::size_t size) {
    static const std::array<std::uint32_t, 256> table = [] {
        std::array<std::uint32_t, 256> entries{};
        for (std::uint32_t i = 0; i < 256; ++i) {
            std::uint32_t value = i;
            for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1U) != 0 ? 0xEDB88320U : 0U);
            entries[i] = value;
        }
        return entries;
    }();
    std::uint32_t crc = 0xFFFFFFFFU;
    for (std::size_t i = 0; i < size; ++i) crc = table[(crc ^ data[i]) & 0xFFU] ^ (crc >> 8);
    return ~crc;
}

class BookWriter {
public:
    // `magic` is eight characters that end in the version of the layout.
    explicit BookWriter(const char* magic) : bytes_(magic, 8) {}

    void u64(std::uint64_t value) {
        for (int shift = 0; shift < 64; shift += 8) bytes_.push_back(static_cast<char>((value >> shift) & 0xFFU));
    }
    void i64(std::int64_t value) { u64(static_cast<std::uint64_t>(value)); }
    void f64(double value) {
        std::uint64_t bits = 0;
        std::memcpy(&bits, &value, sizeof bits);
        u64(bits);
    }

    std::string finish() {
        u64(crc32(reinterpret_cast<const unsigned char*>(bytes_.data()), bytes_.size()));
        return std::move(bytes_);
    }

private:
    std::string bytes_;
};

class BookReader {
public:
    BookReader(const char* magic, const char* data, std::size_t size) : data_(data), end_(size) {
        if (size < 16 || std::memcmp(data, magic, 8) != 0) {
            throw std::invalid_argument("checkpoint is not one of this kind of book, or of another version");
        }
        end_ = size - 8;
        at_ = end_;
        const std::uint64_t stored = read();
        if (stored != crc32(reinterpret_cast<const unsigned char*>(data), end_)) damaged();
        at_ = 8;
    }

    std::uint64_t u64() {
        if (end_ - at_ < 8) damaged();
        return read();
    }
    std::int64_t i64() { return static_cast<std::int64_t>(u64()); }
    double f64() {
        const std::uint64_t bits = u64();
        double value = 0.0;
        std::memcpy(&value, &bits, sizeof value);
        return value;
    }
    // A count of records of `words` 8-byte words each, which must be there.
    std::size_t count(std::size_t words) {
        const std::uint64_t n = u64();
        if (n > (end_ - at_) / (8 * words)) damaged();
        return static_cast<std::size_t>(n);
    }
    void finish() const {
        if (at_ != end_) damaged();
    }
    [[noreturn]] static void damaged() { throw std::invalid_argument("checkpoint of the book is damaged"); }

private:
    std::uint64_t read() {
        std::uint64_t value = 0;
        for (int i = 0; i < 8; ++i) {
            value |= static_cast<std::uint64_t>(static_cast<unsigned char>(data_[at_++])) << (8 * i);
        }
        return value;
    }

    const char* data_;
    std::size_t end_;
    std::size_t at_ = 0;
};

}  // namespace ami
