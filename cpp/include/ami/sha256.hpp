// SHA-256 (FIPS 180-4) of a whole text, with the processor's own rounds where it has them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "ami/processor.hpp"

namespace ami {

using Digest = std::array<unsigned char, 32>;

namespace sha {

using State = std::array<std::uint32_t, 8>;

inline constexpr std::size_t kBlock = 64;
inline constexpr State kStart = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
alignas(16) inline constexpr std::uint32_t kRounds[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

constexpr std::uint32_t rotated(std::uint32_t x, int by) { return x >> by | x << (32 - by); }

inline std::uint32_t read_word(const unsigned char* from) {
    return std::uint32_t{from[0]} << 24 | std::uint32_t{from[1]} << 16 | std::uint32_t{from[2]} << 8 | from[3];
}

inline void by_words(State& state, const unsigned char* data, std::size_t blocks) {
    for (; blocks > 0; --blocks, data += kBlock) {
        std::uint32_t w[64];
        for (int i = 0; i < 16; ++i) w[i] = read_word(data + 4 * i);
        for (int i = 16; i < 64; ++i) {
            const std::uint32_t s0 = rotated(w[i - 15], 7) ^ rotated(w[i - 15], 18) ^ w[i - 15] >> 3;
            const std::uint32_t s1 = rotated(w[i - 2], 17) ^ rotated(w[i - 2], 19) ^ w[i - 2] >> 10;
            w[i] = w[i - 16] + s0 + w[i - 7] + s1;
        }
        auto [a, b, c, d, e, f, g, h] = state;
        for (int i = 0; i < 64; ++i) {
            const std::uint32_t s1 = rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25);
            const std::uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + kRounds[i] + w[i];
            const std::uint32_t s0 = rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22);
            const std::uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
            h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
        }
        const State added = {a, b, c, d, e, f, g, h};
        for (std::size_t i = 0; i < state.size(); ++i) state[i] += added[i];
    }
}

#ifdef AMI_X86_DISPATCH

// The instructions keep a, b, e, f in one register and c, d, g, h in the other.
__attribute__((target("sha,ssse3,sse4.1"))) inline void by_instructions(State& state, const unsigned char* data,
                                                                        std::size_t blocks) {
    const __m128i big_endian = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    auto* const words = reinterpret_cast<__m128i*>(state.data());
    const __m128i dcba = _mm_loadu_si128(words), hgfe = _mm_loadu_si128(words + 1);
    const __m128i cdab = _mm_shuffle_epi32(dcba, 0xb1), efgh = _mm_shuffle_epi32(hgfe, 0x1b);
    __m128i abef = _mm_alignr_epi8(cdab, efgh, 8), cdgh = _mm_blend_epi16(efgh, cdab, 0xf0);
    for (; blocks > 0; --blocks, data += kBlock) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i w[4];
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) {
            __m128i& now = w[i & 3];
            if (i < 4) {
                now = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(data) + i), big_endian);
            } else {
                const __m128i last = w[(i + 3) & 3];
                const __m128i shifted = _mm_alignr_epi8(last, w[(i + 2) & 3], 4);
                now = _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(now, w[(i + 1) & 3]), shifted), last);
            }
            const __m128i added = _mm_add_epi32(now, _mm_load_si128(reinterpret_cast<const __m128i*>(kRounds) + i));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, added);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(added, 0x0e));
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    const __m128i feba = _mm_shuffle_epi32(abef, 0x1b), dchg = _mm_shuffle_epi32(cdgh, 0xb1);
    _mm_storeu_si128(words, _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128(words + 1, _mm_alignr_epi8(dchg, feba, 8));
}

#endif

using Rounds = void (*)(State&, const unsigned char*, std::size_t);

inline Rounds rounds() {
#ifdef AMI_X86_DISPATCH
    if (processor().has_sha) return by_instructions;
#endif
    return by_words;
}

inline Digest digest(Rounds run, const char* text, std::size_t size) {
    const auto* const data = reinterpret_cast<const unsigned char*>(text);
    State state = kStart;
    const std::size_t whole = size / kBlock, rest = size % kBlock;
    run(state, data, whole);
    // The end: a bit, zeros, and the length in bits, in one block or two.
    std::array<unsigned char, 2 * kBlock> last{};
    std::memcpy(last.data(), data + whole * kBlock, rest);
    last[rest] = 0x80;
    const std::size_t blocks = rest + 9 > kBlock ? 2 : 1;
    for (std::size_t i = 0; i < 8; ++i)
        last[blocks * kBlock - 1 - i] = static_cast<unsigned char>(std::uint64_t{size} * 8 >> 8 * i);
    run(state, last.data(), blocks);
    Digest found;
    for (std::size_t i = 0; i < found.size(); ++i)
        found[i] = static_cast<unsigned char>(state[i / 4] >> (24 - 8 * (i % 4)));
    return found;
}

}  // namespace sha

inline Digest sha256(const char* text, std::size_t size) { return sha::digest(sha::rounds(), text, size); }

// The same without the processor's help, to compare with.
inline Digest sha256_portable(const char* text, std::size_t size) { return sha::digest(sha::by_words, text, size); }

}  // namespace ami
