// When to leave a position: mdm/position_manager.py, spelled for the compiled loop.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "ami/decision_tables.hpp"

namespace ami {

enum class Exit : int { none, take_profit, stop_loss, time_stop };

struct ExitLimits {
    double tp_ticks;
    double sl_ticks;
    double longest_ms;
};

struct MidRange {
    double least;
    double most;
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
        const double ticks = ticks_at(mid);
        if (std::isfinite(ticks)) {
            const double tolerance = tolerance_at(mid);
            if (ticks >= limits_.tp_ticks - tolerance) return Exit::take_profit;
            if (ticks <= tolerance - limits_.sl_ticks) return Exit::stop_loss;
        }
        return now_ms - opened_ms_ >= limits_.longest_ms ? Exit::time_stop : Exit::none;
    }

    // Whether a price may lead to an exit: true also a little before it does.
    bool may_exit(double mid) const {
        if (!is_open_) return false;
        const double ticks = ticks_at(mid);
        const double margin = 2.0 * tolerance_at(mid) + kNearFraction * std::fabs(ticks);
        return !(ticks + margin < limits_.tp_ticks && ticks - margin > -limits_.sl_ticks);
    }
    // About the prices around `mid` of which none may.
    MidRange range_without_exit(double mid) const {
        if (!is_open_) return {-kFar, kFar};
        const double margin = 3.0 * tolerance_at(mid);
        const double gain = (limits_.tp_ticks * (1.0 - 2.0 * kNearFraction) - margin) * tick_size_;
        const double loss = (limits_.sl_ticks * (1.0 - 2.0 * kNearFraction) - margin) * tick_size_;
        return qty_ < 0.0 ? MidRange{avg_price_ - gain, avg_price_ + loss} : MidRange{avg_price_ - loss, avg_price_ + gain};
    }
    // A time, ms, until which the age alone leads to no exit.
    std::int64_t last_ms() const {
        const double last = opened_ms_ + limits_.longest_ms - 1.0;
        return is_open_ && last < kLatestMs ? static_cast<std::int64_t>(std::floor(last)) : static_cast<std::int64_t>(kLatestMs);
    }

    void on_position_closed() { is_open_ = false; }

    bool is_open() const { return is_open_; }
    double qty() const { return qty_; }
    double avg_price() const { return avg_price_; }
    double opened_ms() const { return opened_ms_; }
    double largest_qty() const { return largest_qty_; }

private:
    static constexpr double kFar = std::numeric_limits<double>::infinity();
    static constexpr double kNearFraction = 1e-9;
    static constexpr double kLatestMs = 0x1p53;

    double ticks_at(double mid) const {
        const double ticks = (mid - avg_price_) / tick_size_;
        return qty_ < 0.0 ? -ticks : ticks;
    }
    double tolerance_at(double mid) const {
        const double rounding = 4.0 * std::numeric_limits<double>::epsilon() * std::fabs(mid) / tick_size_;
        return std::max(kToleranceTicks, rounding);
    }

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
