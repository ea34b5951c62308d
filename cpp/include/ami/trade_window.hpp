// Trades of the regime window: one by one where time bounds it, as sums per mid where only a count does.
#pragma once

#include <cstdint>

#include "ami/ring_buffer.hpp"
#include "ami/rolling_stats.hpp"

namespace ami {

struct TradeSums {
    PairSum value;   // Σ p q
    PairSum volume;  // Σ q
    PairSum net;     // buys - sells

    static TradeSums of(double price, double size, std::int64_t aggressor) {
        return {PairSum::of(price * size), PairSum::of(size), PairSum::of(static_cast<double>(aggressor) * size)};
    }
    static TradeSums add(const TradeSums& a, const TradeSums& b) {
        return {PairSum::add(a.value, b.value), PairSum::add(a.volume, b.volume), PairSum::add(a.net, b.net)};
    }
    static TradeSums merge(const TradeSums& a, std::uint64_t, const TradeSums& b, std::uint64_t) { return add(a, b); }
};

class TradeWindow {
public:
    // 0 is off, for either limit.
    TradeWindow(std::uint64_t window_steps, std::int64_t window_ns) : window_steps_(window_steps), window_ns_(window_ns) {}

    // `mids_seen` counts the mids before this trade. By count, a trade belongs to the mid it followed: none, no place.
    void add_trade(std::uint64_t mids_seen, std::int64_t ts_ns, double price, double size, std::int64_t aggressor) {
        if (window_steps_ > 0 && mids_seen == 0) return;
        const TradeSums sums = TradeSums::of(price, size, aggressor);
        if (window_ns_ > 0) {
            push(mids_seen, ts_ns, sums);
        } else {
            open_ = is_open_ ? TradeSums::add(open_, sums) : sums;
            is_open_ = true;
        }
    }

    // A new mid arrives: what followed the one before it is complete. `mids_seen` does not count the new one.
    void close_mid(std::uint64_t mids_seen) {
        if (!is_open_) return;
        push(mids_seen, 0, open_);
        is_open_ = false;
        open_ = TradeSums{};
    }

    void drop_old(std::uint64_t mids_seen, std::int64_t now_ns) {
        // Mids are counted from 1 here: trades after the oldest mid of the window have seen at least this many.
        const std::uint64_t oldest = window_steps_ > 0 && mids_seen > window_steps_ ? mids_seen - window_steps_ + 1 : 0;
        const std::int64_t horizon = now_ns - window_ns_;
        while (!places_.empty() &&
               (places_.front().mids_seen < oldest || (window_ns_ > 0 && places_.front().ts_ns <= horizon))) {
            places_.pop_front();
            sums_.pop();
        }
    }

    // Whether there is a trade that can grow old: the open ones followed the last mid.
    bool holds_closed() const { return !places_.empty(); }
    bool is_empty() const { return places_.empty() && !is_open_; }

    // Invariant: not empty.
    TradeSums sums() const {
        if (places_.empty()) return open_;
        return is_open_ ? TradeSums::add(sums_.query(), open_) : sums_.query();
    }

    template <class Archive>
    void archive(Archive& ar) {
        ar.value(is_open_);
        ar.value(open_);
        ar.ring(places_);
        sums_.archive(ar);
        ar.require(places_.size() == sums_.size());
    }

private:
    struct Place {
        std::uint64_t mids_seen = 0;
        std::int64_t ts_ns = 0;
    };

    void push(std::uint64_t mids_seen, std::int64_t ts_ns, const TradeSums& sums) {
        places_.push_back({mids_seen, ts_ns});
        sums_.push(sums);
    }

    std::uint64_t window_steps_;
    std::int64_t window_ns_;
    bool is_open_ = false;
    TradeSums open_;
    RingBuffer<Place> places_;
    SlidingAggregate<TradeSums> sums_;
};

}  // namespace ami
