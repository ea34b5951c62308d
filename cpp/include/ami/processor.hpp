// What this processor can do beyond what the core was compiled for, found out once.
#pragma once

// Functions of their own instruction sets need the attributes of GCC and Clang; elsewhere the portable ones serve.
#if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
#define AMI_X86_DISPATCH 1
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace ami {

struct Processor {
    bool has_sha = false;       // SHA-256 rounds, with the shuffles that they need
    bool has_products = false;  // products without carry
};

inline Processor find_processor() {
    Processor found;
#ifdef AMI_X86_DISPATCH
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid(1, &a, &b, &c, &d) == 0) return found;
    const bool has_shuffles = (c & bit_SSSE3) != 0 && (c & bit_SSE4_1) != 0;
    found.has_products = has_shuffles && (c & bit_PCLMUL) != 0;
    if (has_shuffles && __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0) found.has_sha = (b & 1u << 29) != 0;
#endif
    return found;
}

inline const Processor& processor() {
    static const Processor found = find_processor();
    return found;
}

}  // namespace ami
