// The log return with + - * / alone: the same bits on every machine and in every backend (see features/schema.py).
#pragma once

#include "ami/feature_ids.hpp"

namespace ami {

// log(1 + f) for 1 + f in [kSqrtHalf, kSqrt2]. Operation by operation the `_log1p_reduced` of features/schema.py.
inline double log1p_reduced(double f) {
    const double* c = kLogSeries;
    const double s = f / (2.0 + f);
    const double z = s * s;
    const double z2 = z * z;
    const double z4 = z2 * z2;
    const double b0 = (c[0] + c[1] * z) + z2 * (c[2] + c[3] * z);
    const double b1 = (c[4] + c[5] * z) + z2 * (c[6] + c[7] * z);
    const double b2 = (c[8] + c[9] * z) + z2 * c[10];
    return (2.0 * s) * ((b0 + z4 * b1) + (z4 * z4) * b2);
}

// log(u) for u > 0 and finite.
inline double portable_log(double u) {
    double k = 0.0;
    while (u > kSqrt2) {
        u = u * 0.5;
        k = k + 1.0;
    }
    while (u < kSqrtHalf) {
        u = u * 2.0;
        k = k - 1.0;
    }
    return k * kLn2 + log1p_reduced(u - 1.0);
}

// log(mid / previous) for finite positive prices; always finite.
inline double log_return(double mid, double previous) {
    const double x = (mid - previous) / previous;
    const double u = 1.0 + x;
    if (u >= kSqrtHalf && u <= kSqrt2) return log1p_reduced(x);
    // Prices so far apart that their ratio leaves the range of doubles (x infinite, or -1 after rounding).
    if (!(u > 0.0 && u <= kMaxMagnitude)) return portable_log(mid) - portable_log(previous);
    return portable_log(u);
}

}  // namespace ami
