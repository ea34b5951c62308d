// Prices on a venue's grid: int64 ticks inside, the shortest decimal at the edge.
#pragma once

#include <cmath>
#include <cstdint>
#include <stdexcept>

namespace ami {

// The same arithmetic as units.Instrument: 61800.3 / 0.1 is 618002.9999999999 in binary, and is on the grid.
class TickGrid {
public:
    explicit TickGrid(double tick_size) : tick_size_(tick_size) {
        if (!(std::isfinite(tick_size) && tick_size > 0.0)) {
            throw std::invalid_argument("`tick_size` must be finite and > 0");
        }
        const double inverse = std::nearbyint(1.0 / tick_size);
        if (inverse >= 1.0 && std::fabs(inverse * tick_size - 1.0) < 1e-12) inverse_ = inverse;
    }

    double tick_size() const { return tick_size_; }

    // Write the grid point of a positive, finite price; false when the price is between two of them.
    bool to_ticks(double price, std::int64_t& ticks) const {
        const double raw = inverse_ > 0.0 ? price * inverse_ : price / tick_size_;
        if (!(raw < kMaxTicks)) return false;
        const auto nearest = static_cast<std::int64_t>(raw + 0.5);
        // Two roundings can be off by 2^-52 of the number, which passes 1e-6 ticks from 1e9 ticks on.
        const double tolerance = raw < 1e9 ? 1e-6 : raw * 1e-15;
        ticks = nearest;
        return nearest > 0 && std::fabs(raw - static_cast<double>(nearest)) < tolerance;
    }

    // Division by a whole number gives the correctly rounded decimal; multiplication by 0.1 does not.
    double price(std::int64_t ticks) const {
        const auto value = static_cast<double>(ticks);
        return inverse_ > 0.0 ? value / inverse_ : value * tick_size_;
    }

private:
    // Above this a double no longer tells a grid point from the middle between two.
    static constexpr double kMaxTicks = 1e14;

    double tick_size_;
    double inverse_ = 0.0;  // 1 / tick_size where that is whole, else 0
};

}  // namespace ami
