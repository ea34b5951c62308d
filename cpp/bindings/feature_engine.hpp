// The native backend's state of one symbol, as Python drives it.
#pragma once

#include <nanobind/nanobind.h>

#include <ami/event_error.hpp>
#include <ami/feature_builder.hpp>
#include <ami/order_book.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "event_reader.hpp"
#include "feature_vector.hpp"

// One owner at a time: a second thread is told so, never made to wait.
class Owner {
public:
    explicit Owner(std::atomic<bool>& is_busy) : is_busy_(is_busy) {
#ifdef Py_GIL_DISABLED
        const bool was_busy = is_busy_.exchange(true, std::memory_order_acquire);
#else
        // The interpreter's lock is held here and in the destructor: no exchange, which costs as much as a feature.
        const bool was_busy = is_busy_.load(std::memory_order_relaxed);
        is_busy_.store(true, std::memory_order_relaxed);
#endif
        if (was_busy) {
            throw std::runtime_error("this feature builder is in use by another thread: a builder has one owner");
        }
    }
    ~Owner() { is_busy_.store(false, std::memory_order_release); }
    Owner(const Owner&) = delete;
    Owner& operator=(const Owner&) = delete;

private:
    std::atomic<bool>& is_busy_;
};

inline void throw_if(const ami::Fault& fault) {
    if (fault) throw fault.error();
}

class FeatureEngine {
public:
    explicit FeatureEngine(const ami::FeatureParams& params)
        : builder_(params), reader_(params.level_weights.size()), book_levels_(4 * params.level_weights.size()) {}

    void push_quote(std::int64_t ts_ns, double bid, double ask, double bid_depth, double ask_depth, std::int64_t now_ns) {
        const Owner owner(is_busy_);
        throw_if(builder_.push_quote(ts_ns, bid, ask, bid_depth, ask_depth, now_ns));
    }

    FeatureVector update_quote(std::int64_t ts_ns, double bid, double ask, double bid_depth, double ask_depth,
                               std::int64_t now_ns) {
        const Owner owner(is_busy_);
        throw_if(builder_.push_quote(ts_ns, bid, ask, bid_depth, ask_depth, now_ns));
        return vector();
    }

    void push_trade(std::int64_t ts_ns, double price, double size, std::int64_t aggressor, std::int64_t now_ns) {
        const Owner owner(is_busy_);
        throw_if(builder_.push_trade(ts_ns, price, size, aggressor, now_ns));
    }

    void push_book(std::int64_t ts_ns, nanobind::handle bids, nanobind::handle asks, std::int64_t now_ns) {
        const Owner owner(is_busy_);
        push_view(reader_.read_levels(ts_ns, bids, asks), now_ns);
    }

    void push_event(nanobind::handle event, std::int64_t now_ns) {
        const Owner owner(is_busy_);
        push_view(reader_.read(event), now_ns);
    }

    // Whether `push_event` would take the event; nothing changes.
    bool accepts(nanobind::handle event) {
        const Owner owner(is_busy_);
        try {
            const EventView view = reader_.read(event);
            const std::int64_t ts = view.has_time ? view.ts_ns : builder_.implicit_ts_ns();
            const bool is_accepted = !check(view, ts);
            reader_.release();
            return is_accepted;
        } catch (const ami::EventError&) {
            return false;
        }
    }
    ami::Fault check(const EventView& view, std::int64_t ts) const {
        switch (view.kind) {
            case EventKind::trade:
                return builder_.check_trade_event(ts, view.price, view.size, view.aggressor);
            case EventKind::levels:
                return builder_.check_book_event(ts, view.bids, view.bid_count, view.asks, view.ask_count, view.bid,
                                                 view.ask);
            case EventKind::quote:
                break;
        }
        return builder_.check_quote_event(ts, view.bid, view.ask, view.bid_depth, view.ask_depth);
    }

    FeatureVector update_event(nanobind::handle event, std::int64_t now_ns) {
        const Owner owner(is_busy_);
        push_view(reader_.read(event), now_ns);
        return vector();
    }

    void push_from_book(const ami::OrderBook& book, std::int64_t ts_ns, std::int64_t now_ns) {
        const Owner owner(is_busy_);
        const int levels = static_cast<int>(builder_.levels());
        double* bids = book_levels_.data();
        double* asks = bids + 2 * builder_.levels();
        const auto bid_count = static_cast<std::size_t>(book.top(ami::Side::kBid, levels, bids));
        const auto ask_count = static_cast<std::size_t>(book.top(ami::Side::kAsk, levels, asks));
        throw_if(builder_.push_book(ts_ns, bids, bid_count, asks, ask_count, now_ns));
    }

    // Any other book that has a top(n), such as the plain one.
    void push_from_any_book(nanobind::handle book, std::int64_t ts_ns, std::int64_t now_ns) {
        const Owner owner(is_busy_);
        const nanobind::object sides = book.attr("top")(builder_.levels());
        if (!nanobind::isinstance<nanobind::tuple>(sides) || nanobind::len(sides) != 2) {
            throw nanobind::type_error("`book` must have a top(n) that returns bids and asks");
        }
        push_view(reader_.read_levels(ts_ns, sides[0], sides[1]), now_ns);
    }

    ami::RunReport run(const ami::EventColumns& columns, double* out) {
        const Owner owner(is_busy_);
        const nanobind::gil_scoped_release release;
        ami::RunReport report;
        builder_.run(columns, out, report);
        return report;
    }

    nanobind::bytes save() {
        const Owner owner(is_busy_);
        const std::string state = builder_.save();
        return nanobind::bytes(state.data(), state.size());
    }

    void load(const nanobind::bytes& state) {
        const Owner owner(is_busy_);
        builder_.load(state.c_str(), state.size());
    }

    FeatureVector current_vector() {
        const Owner owner(is_busy_);
        return vector();
    }

    // For whoever steps a whole decision: the builder is his while the call lasts.
    ami::FeatureBuilder& builder() { return builder_; }
    EventReader& reader() { return reader_; }
    std::atomic<bool>& is_busy() { return is_busy_; }

    double* row() { return builder_.row(); }
    std::size_t row_size() const { return builder_.row_size(); }
    std::int64_t last_ts_ns() const { return builder_.last_ts_ns(); }

private:
    FeatureVector vector() const {
        FeatureVector vector;
        vector.count = builder_.row_size();
        // All of them: of a shorter row nobody reads the rest, and a length that is known is copied faster.
        std::copy_n(builder_.row(), ami::kFeatureCount, vector.values.begin());
        return vector;
    }

    void push_view(const EventView& view, std::int64_t now_ns) {
        const std::int64_t ts = view.has_time ? view.ts_ns : builder_.implicit_ts_ns();
        ami::Fault fault;
        switch (view.kind) {
            case EventKind::quote:
                fault = builder_.push_quote(ts, view.bid, view.ask, view.bid_depth, view.ask_depth, now_ns);
                break;
            case EventKind::levels:
                fault = builder_.push_book(ts, view.bids, view.bid_count, view.asks, view.ask_count, now_ns, view.bid,
                                           view.ask);
                break;
            case EventKind::trade:
                fault = builder_.push_trade(ts, view.price, view.size, view.aggressor, now_ns);
                break;
        }
        reader_.release();
        throw_if(fault);
    }

    ami::FeatureBuilder builder_;
    EventReader reader_;
    std::vector<double> book_levels_;
    std::atomic<bool> is_busy_{false};
};
