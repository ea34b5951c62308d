// What a venue trades, and the grid its prices and sizes live on: units.py, spelled for the compiled loop.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "ami/decision_tables.hpp"

namespace ami {

class Instrument {
public:
    Instrument(double tick, double lot, double least_qty, double least_notional, double point_value, bool inverse,
               double maker_bps, double taker_bps)
        : tick_size(tick),
          lot_size(lot),
          min_qty(least_qty),
          min_notional(least_notional),
          multiplier(point_value),
          is_inverse(inverse),
          maker_fee_bps(maker_bps),
          taker_fee_bps(taker_bps),
          ticks_per_unit_(whole_inverse(tick)),
          lots_per_unit_(lot == 0.0 ? 0.0 : whole_inverse(lot)) {}

    double tick_size;
    double lot_size;
    double min_qty;
    double min_notional;
    double multiplier;
    bool is_inverse;
    double maker_fee_bps;
    double taker_fee_bps;

    std::int64_t ticks(double price) const { return static_cast<std::int64_t>(rounded(price / tick_size)); }

    double price_from_ticks(std::int64_t count) const {
        const auto whole = static_cast<double>(count);
        return ticks_per_unit_ > 0.0 ? whole / ticks_per_unit_ : whole * tick_size;
    }

    std::int64_t floor_ticks(double price) const {
        const double raw = price / tick_size;
        const double nearest = rounded(raw);
        return std::fabs(raw - nearest) < kOnGridTicks ? static_cast<std::int64_t>(nearest) : floored(raw);
    }

    std::int64_t ceil_ticks(double price) const {
        const double raw = price / tick_size;
        const double nearest = rounded(raw);
        return std::fabs(raw - nearest) < kOnGridTicks ? static_cast<std::int64_t>(nearest) : -floored(-raw);
    }

    std::int64_t quote_ticks(double price, bool is_buy) const { return is_buy ? floor_ticks(price) : ceil_ticks(price); }

    // The power of ten of which executed sizes of an order of `qty` are multiples, where there is no lot.
    static int fill_exponent(double qty) {
        char text[32];
        std::snprintf(text, sizeof text, "%.11e", qty);
        const int exponent = static_cast<int>(std::strtol(std::strchr(text, 'e') + 1, nullptr, 10)) - 8;
        return exponent < -12 ? -12 : exponent;
    }

    double round_qty(double qty) const {
        if (lot_size == 0.0) return qty;
        const double raw = qty / lot_size;
        const double nearest = rounded(raw);
        const double magnitude = std::fabs(raw) > 1.0 ? std::fabs(raw) : 1.0;
        const double lots = std::fabs(raw - nearest) < 1e-9 * magnitude ? nearest : std::floor(raw);
        return lots_per_unit_ > 0.0 ? lots / lots_per_unit_ : lots * lot_size;
    }

    double qty_from_usd(double size_usd, double price) const {
        const double qty = size_usd / (is_inverse ? multiplier : price * multiplier);
        if (lot_size != 0.0) return round_qty(qty);
        const double rounded = twelve_digits(qty);
        if (rounded <= qty) return rounded;
        return twelve_digits(qty < 1.0 ? qty - 1e-12 : qty * (1.0 - 1e-11));
    }

    bool is_below_minimum(double price, double qty) const {
        return qty <= 0.0 || qty < min_qty || notional(price, qty) < min_notional * (1.0 - 1e-9);
    }

    double notional(double price, double qty) const {
        return std::fabs(qty) * multiplier * (is_inverse ? 1.0 : price);
    }

private:
    // Half to even, as std::nearbyint, which is a call; beyond 2^51 every double but some halves is whole.
    static double rounded(double value) {
        constexpr double kShift = 0x1.8p52;
        return std::fabs(value) < 0x1p51 ? (value + kShift) - kShift : std::nearbyint(value);
    }

    static std::int64_t floored(double value) {
        const auto whole = static_cast<std::int64_t>(value);
        return whole - (static_cast<double>(whole) > value ? 1 : 0);
    }

    // 1 / step where that is a whole number, else 0: division by it gives the correctly rounded decimal.
    static double whole_inverse(double step) {
        const double inverse = rounded(1.0 / step);
        return inverse >= 1.0 && std::fabs(inverse * step - 1.0) < 1e-12 ? inverse : 0.0;
    }

    // Twelve digits, and no more behind the point. A size below 1 stays below it: `value` is one, or one less 1e-12.
    static double twelve_digits(double value) {
        char text[32];
        std::snprintf(text, sizeof text, value < 1.0 ? "%.12f" : "%.12g", value);
        return std::strtod(text, nullptr);
    }

    double ticks_per_unit_;
    double lots_per_unit_;
};

}  // namespace ami
