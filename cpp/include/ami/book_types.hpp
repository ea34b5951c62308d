// What both books share: sides, quotes, and the checks of a price or a size that comes from outside.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <string>

#include "ami/event_error.hpp"
#include "ami/ladder.hpp"
#include "ami/tick_grid.hpp"

namespace ami {

enum class Side : std::uint8_t { kBid = 0, kAsk = 1 };

inline std::size_t index_of(Side side) { return static_cast<std::size_t>(side); }

// Ticks to ladder key and back: its own inverse.
inline std::int64_t key_of(Side side, std::int64_t ticks) { return side == Side::kBid ? ticks : -ticks; }

// Best prices and sizes; 0 where a side is missing.
struct Quote {
    double bid = 0.0;
    double bid_size = 0.0;
    double ask = 0.0;
    double ask_size = 0.0;

    bool has_bid() const { return bid > 0.0; }
    bool has_ask() const { return ask > 0.0; }
    bool is_crossed() const { return has_bid() && has_ask() && bid > ask; }
    bool is_locked() const { return has_bid() && bid == ask; }
    bool is_one_sided() const { return has_bid() != has_ask(); }
    bool is_empty() const { return !has_bid() && !has_ask(); }
};

// Write the levels whose key is below `limit`, best first, as (price, size) pairs until `n` are written, `count` of them
// already; return how many there are then.
template <class Level>
int write_levels(const Ladder<Level>& ladder, Side side, const TickGrid& grid, std::int64_t limit, int count, int n,
                 double* out) {
    if (count >= n) return count;
    ladder.each_from_best(
        [&](const Level& level) {
            out[2 * count] = grid.price(key_of(side, level.key));
            out[2 * count + 1] = level.size;
            return ++count < n;
        },
        limit);
    return count;
}
inline constexpr std::int64_t kNoLimit = std::numeric_limits<std::int64_t>::max();

namespace book_detail {

inline std::string number(double value) {
    if (std::isnan(value)) return "nan";  // C prints the sign of a NaN, Python does not
    char text[32];
    std::snprintf(text, sizeof text, "%.12g", value);
    return text;
}

inline void check_price(double price, const std::string& what, const char* field) {
    if (!std::isfinite(price)) {
        throw EventError(what + " price must be finite, was " + number(price), "not_finite", field);
    }
    if (!(price > 0.0)) throw EventError(what + " price must be > 0, was " + number(price), "negative_price", field);
}

inline void check_size(double size, const std::string& what, const char* field) {
    if (!std::isfinite(size)) {
        throw EventError(what + " size must be finite, was " + number(size), "not_finite", field);
    }
    if (size < 0.0) throw EventError(what + " size must be >= 0, was " + number(size), "negative_size", field);
}

[[noreturn]] inline void refuse_off_grid(double price, double tick, const std::string& what, const char* field) {
    throw EventError(what + " price " + number(price) + " is not a multiple of `tick_size` " + number(tick), "off_grid",
                     field);
}

}  // namespace book_detail
}  // namespace ami
