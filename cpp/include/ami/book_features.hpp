// Pure functions of one book: reading and checking its sides, and the features that need no history.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "ami/event_fault.hpp"
#include "ami/feature_ids.hpp"

namespace ami {

// One side of a book, summed up. A missing side is all zeros.
struct BookSide {
    double price = 0.0;     // best
    double size = 0.0;      // at the best price
    double depth = 0.0;     // Σ q
    double weighted = 0.0;  // Σ w q
    double value = 0.0;     // Σ p q

    bool is_missing() const { return !(price > 0.0); }

    static BookSide one_level(double price, double size) {
        if (!(price > 0.0)) return {};
        return {price, size, size, size, price * size};
    }
};

// True for what a price or a size may be; false for NaN, too.
inline bool is_in_range(double value) { return value >= 0.0 && value <= kMaxMagnitude; }
// The same without -0.0, by one comparison: among numbers from 0 on, bits are in the order of values.
inline bool is_plainly_in_range(double value) {
    std::uint64_t bits;
    std::uint64_t most;
    const double magnitude = kMaxMagnitude;
    std::memcpy(&bits, &value, sizeof bits);
    std::memcpy(&most, &magnitude, sizeof most);
    return bits <= most;
}
inline bool is_finite(double value) { return std::fabs(value) <= kMaxMagnitude; }

[[gnu::noinline, gnu::cold]] inline Fault check_odd_quote(double bid, double ask, double bid_depth, double ask_depth) {
    if (is_in_range(bid) && is_in_range(ask) && is_in_range(bid_depth) && is_in_range(ask_depth)) return {};
    if (!is_finite(bid)) return {Reason::not_finite, "bid", bid};
    if (!is_finite(ask)) return {Reason::not_finite, "ask", ask};
    if (!is_finite(bid_depth)) return {Reason::not_finite, "bid_depth", bid_depth};
    if (!is_finite(ask_depth)) return {Reason::not_finite, "ask_depth", ask_depth};
    if (bid < 0.0) return {Reason::negative_price, "bid", bid};
    if (ask < 0.0) return {Reason::negative_price, "ask", ask};
    if (bid_depth < 0.0) return {Reason::negative_size, "bid_depth", bid_depth};
    return {Reason::negative_size, "ask_depth", ask_depth};
}

inline Fault check_quote(double bid, double ask, double bid_depth, double ask_depth) {
    if (is_plainly_in_range(bid) && is_plainly_in_range(ask) && is_plainly_in_range(bid_depth) &&
        is_plainly_in_range(ask_depth)) {
        return {};
    }
    return check_odd_quote(bid, ask, bid_depth, ask_depth);
}

inline Fault check_trade(double price, double size, long long aggressor) {
    if (!is_finite(price)) return {Reason::not_finite, "price", price};
    if (!is_finite(size)) return {Reason::not_finite, "size", size};
    if (!(price > 0.0)) return {Reason::negative_price, "price", price};
    if (size < 0.0) return {Reason::negative_size, "size", size};
    if (aggressor < -1 || aggressor > 1) return {Reason::malformed, "aggressor", static_cast<double>(aggressor)};
    return {};
}

// Sum up the best `count` levels, (price, size) pairs best first, of which at most `weights_count` are read. A price of
// 0 ends the side, and so does a pair of NaN in a padded array.
inline Fault read_side(const double* levels, std::size_t count, const double* weights, std::size_t weights_count,
                       bool is_bid, bool is_padded, BookSide& side) {
    const char* field = is_bid ? "bids" : "asks";
    side = BookSide{};
    const std::size_t n = count < weights_count ? count : weights_count;
    double previous = 0.0;
    for (std::size_t i = 0; i < n; ++i) {
        const double price = levels[2 * i];
        const double size = levels[2 * i + 1];
        if (!(is_in_range(price) && is_in_range(size))) {
            if (is_padded && std::isnan(price) && std::isnan(size)) break;
            if (!is_finite(price)) return {Reason::not_finite, field, price};
            if (price < 0.0) return {Reason::negative_price, field, price};
            if (!is_finite(size)) return {Reason::not_finite, field, size};
            return {Reason::negative_size, field, size};
        }
        if (price == 0.0) break;
        if (i > 0 && (is_bid ? price >= previous : price <= previous)) {
            return {Reason::levels_unsorted, field, price, previous};
        }
        previous = price;
        if (i == 0) {
            side.price = price;
            side.size = size;
        }
        side.depth += size;
        side.weighted += weights[i] * size;
        side.value += price * size;
    }
    return {};
}

inline double ratio(double numerator, double denominator, double otherwise) {
    return denominator < kEps ? otherwise : numerator / denominator;
}

inline double mid_of(const BookSide& bid, const BookSide& ask) {
    if (bid.is_missing()) return ask.price;
    if (ask.is_missing()) return bid.price;
    return (bid.price + ask.price) / 2.0;
}

// Everything of a row's book features but staleness_ms.
inline void write_book_features(const BookSide& bid, const BookSide& ask, double tick_size, double cost_ticks,
                                double* row) {
    const auto at = [row](Feature feature) -> double& { return row[static_cast<int>(feature)]; };
    const bool is_two_sided = !bid.is_missing() && !ask.is_missing();
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const double mid = mid_of(bid, ask);
    const double spread = is_two_sided ? ask.price - bid.price : nan;
    const double depth = bid.depth + ask.depth;
    const double microprice = is_two_sided ? ratio(ask.price * bid.size + bid.price * ask.size, bid.size + ask.size, mid)
                                           : mid;
    const double vwap_bid = ratio(bid.value, bid.depth, mid);
    const double vwap_ask = ratio(ask.value, ask.depth, mid);
    at(Feature::mid) = mid;
    at(Feature::bid) = bid.price;
    at(Feature::ask) = ask.price;
    at(Feature::spread) = spread;
    at(Feature::spread_bps) = 1e4 * spread / mid;
    at(Feature::depth) = depth;
    at(Feature::bid_depth) = bid.depth;
    at(Feature::ask_depth) = ask.depth;
    at(Feature::imbalance) = ratio(bid.depth - ask.depth, depth, 0.0);
    at(Feature::imbalance_w) = ratio(bid.weighted - ask.weighted, bid.weighted + ask.weighted, 0.0);
    at(Feature::microprice) = microprice;
    at(Feature::microprice_alpha_ticks) = (microprice - mid) / tick_size;
    at(Feature::vwap_bid) = vwap_bid;
    at(Feature::vwap_ask) = vwap_ask;
    at(Feature::pressure_ticks) = ((mid - vwap_bid) - (vwap_ask - mid)) / tick_size;
    at(Feature::cost_ticks) = cost_ticks;
}

// The best level of a side.
struct Best {
    double price = 0.0;
    double size = 0.0;
};

// `value` where the condition holds, else 0, without a branch: which way a price moves is what no processor can predict.
inline double where(bool condition, double value) {
    std::uint64_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    bits &= std::uint64_t{0} - static_cast<std::uint64_t>(condition);
    std::memcpy(&value, &bits, sizeof bits);
    return value;
}

// e_n of Cont, Kukanov & Stoikov (2014): what one event added at the best prices.
inline double order_flow(const Best& bid, const Best& ask, const Best& last_bid, const Best& last_ask) {
    double flow = where(bid.price >= last_bid.price, bid.size);
    flow -= where(bid.price <= last_bid.price, last_bid.size);
    flow -= where(ask.price <= last_ask.price, ask.size);
    flow += where(ask.price >= last_ask.price, last_ask.size);
    return flow;
}

}  // namespace ami
