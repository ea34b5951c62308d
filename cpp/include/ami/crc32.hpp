// CRC-32 as zlib counts it: eight bytes at a time by tables, or 64 by carry-less products where the processor has them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "ami/processor.hpp"

namespace ami {

namespace crc {

inline constexpr std::uint32_t kPolynomial = 0xedb88320u;  // its lowest power in the highest bit

using Tables = std::array<std::array<std::uint32_t, 256>, 8>;

constexpr Tables make_tables() {
    Tables tables{};
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
        std::uint32_t value = byte;
        for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1u) != 0 ? kPolynomial : 0u);
        tables[0][byte] = value;
    }
    for (std::size_t i = 1; i < tables.size(); ++i)
        for (std::size_t byte = 0; byte < 256; ++byte)
            tables[i][byte] = (tables[i - 1][byte] >> 8) ^ tables[0][tables[i - 1][byte] & 0xffu];
    return tables;
}

inline constexpr Tables kTables = make_tables();

// The register after `size` bytes more; it is not inverted here.
inline std::uint32_t by_tables(std::uint32_t state, const unsigned char* data, std::size_t size) {
    for (; size >= 8; size -= 8, data += 8) {
        const std::uint32_t low = state ^ (data[0] | data[1] << 8 | data[2] << 16 | std::uint32_t{data[3]} << 24);
        state = kTables[7][low & 0xffu] ^ kTables[6][low >> 8 & 0xffu] ^ kTables[5][low >> 16 & 0xffu] ^
                kTables[4][low >> 24] ^ kTables[3][data[4]] ^ kTables[2][data[5]] ^ kTables[1][data[6]] ^
                kTables[0][data[7]];
    }
    for (; size > 0; --size) state = (state >> 8) ^ kTables[0][(state ^ *data++) & 0xffu];
    return state;
}

#ifdef AMI_X86_DISPATCH

// What 64 bits of a message become that stand `bits` further on: x^bits modulo the polynomial, lowest power first, and
// shifted by the one bit that a product of two such numbers lacks.
constexpr long long shifted_by(int bits) {
    std::uint32_t rest = 0x80000000u;
    for (int i = 0; i < bits; ++i) rest = (rest >> 1) ^ ((rest & 1u) != 0 ? kPolynomial : 0u);
    return static_cast<long long>(std::uint64_t{rest} << 1);
}

// At least 64 bytes. Four lanes of 16 bytes are folded forward; what is left of them goes through the tables.
__attribute__((target("pclmul,sse4.1"))) inline std::uint32_t by_products(std::uint32_t state, const unsigned char* data,
                                                                          std::size_t size) {
    const auto load = [](const unsigned char* from) __attribute__((target("pclmul,sse4.1"))) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    };
    const auto fold = [](__m128i lane, __m128i by, __m128i next) __attribute__((target("pclmul,sse4.1"))) {
        const __m128i low = _mm_clmulepi64_si128(lane, by, 0x00);
        const __m128i high = _mm_clmulepi64_si128(lane, by, 0x11);
        return _mm_xor_si128(_mm_xor_si128(low, high), next);
    };
    const __m128i by_four = _mm_set_epi64x(shifted_by(4 * 128 - 32), shifted_by(4 * 128 + 32));
    const __m128i by_one = _mm_set_epi64x(shifted_by(128 - 32), shifted_by(128 + 32));
    __m128i a = _mm_xor_si128(load(data), _mm_cvtsi32_si128(static_cast<int>(state)));
    __m128i b = load(data + 16), c = load(data + 32), d = load(data + 48);
    for (data += 64, size -= 64; size >= 64; data += 64, size -= 64) {
        a = fold(a, by_four, load(data));
        b = fold(b, by_four, load(data + 16));
        c = fold(c, by_four, load(data + 32));
        d = fold(d, by_four, load(data + 48));
    }
    a = fold(fold(fold(a, by_one, b), by_one, c), by_one, d);
    for (; size >= 16; data += 16, size -= 16) a = fold(a, by_one, load(data));
    unsigned char rest[16];
    _mm_storeu_si128(reinterpret_cast<__m128i*>(rest), a);
    return by_tables(by_tables(0, rest, sizeof rest), data, size);
}

#endif

}  // namespace crc

inline std::uint32_t crc32(const char* text, std::size_t size) {
    const auto* data = reinterpret_cast<const unsigned char*>(text);
#ifdef AMI_X86_DISPATCH
    if (size >= 64 && processor().has_products) return ~crc::by_products(~std::uint32_t{0}, data, size);
#endif
    return ~crc::by_tables(~std::uint32_t{0}, data, size);
}

// The same without the processor's help, to compare with.
inline std::uint32_t crc32_portable(const char* text, std::size_t size) {
    return ~crc::by_tables(~std::uint32_t{0}, reinterpret_cast<const unsigned char*>(text), size);
}

}  // namespace ami
