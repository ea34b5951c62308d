// When to leave a position: mdm/position_manager.py, spelled for the compiled loop.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "ami/decision_tables.hpp"

namespace ami {

enum class Exit : int { none, take_profit, stop_loss, time_stop };

struct ExitLimits {
    double tp_ticks;
    double sl_ticks;
    double longest_ms;
};

class PositionManager {
public:
    PositionManager(const ExitLimits& limits, double tick_size) : limits_(limits), tick_size_(tick_size) {}

    void register_fill(double price, double signed_qty, double ts_ms) {
        if (signed_qty == 0.0) return;
        if (!is_open_) {
            open(signed_qty, price, ts_ms);
            return;
        }
        const double after = qty_ + signed_qty;
        const double largest = std::max(largest_qty_, std::fabs(signed_qty));
        if (std::fabs(after) <= kFlatFraction * largest) {
            is_open_ = false;
        } else if (qty_ * signed_qty > 0.0) {
            avg_price_ += (price - avg_price_) * (signed_qty / after);
            qty_ = after;
            largest_qty_ = std::max(largest, std::fabs(after));
        } else if (after * qty_ > 0.0) {
            qty_ = after;
        } else {
            open(after, price, ts_ms);
        }
    }

    Exit should_flatten(double mid, double now_ms) const {
        if (!is_open_) return Exit::none;
        double ticks = (mid - avg_price_) / tick_size_;
        if (qty_ < 0.0) ticks = -ticks;
        if (std::isfinite(ticks)) {
            const double rounding = 4.0 * std::numeric_limits<double>::epsilon() * std::fabs(mid) / tick_size_;
            const double tolerance = std::max(kToleranceTicks, rounding);
            if (ticks >= limits_.tp_ticks - tolerance) return Exit::take_profit;
            if (ticks <= tolerance - limits_.sl_ticks) return Exit::stop_loss;
        }
        return now_ms - opened_ms_ >= limits_.longest_ms ? Exit::time_stop : Exit::none;
    }

    void on_position_closed() { is_open_ = false; }

    bool is_open() const { return is_open_; }
    double qty() const { return qty_; }
    double avg_price() const { return avg_price_; }
    double opened_ms() const { return opened_ms_; }
    double largest_qty() const { return largest_qty_; }

private:
    void open(double qty, double price, double ts_ms) {
        is_open_ = true;
        qty_ = qty;
        avg_price_ = price;
        opened_ms_ = ts_ms;
        largest_qty_ = std::fabs(qty);
    }

    ExitLimits limits_;
    double tick_size_;
    bool is_open_ = false;
    double qty_ = 0.0;
    double avg_price_ = 0.0;
    double opened_ms_ = 0.0;
    double largest_qty_ = 0.0;
};

}  // namespace ami
