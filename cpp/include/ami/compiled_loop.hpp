// The loop of a backtest in one call: features, model, guards, orders, paper fills and money of one market over a table.
// loop/run.py, loop/step.py and loop/symbol_state.py are what it means; nothing here may differ from them in a bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "ami/decision_core.hpp"
#include "ami/feature_builder.hpp"

namespace ami {

enum class RowKind : std::int64_t {
    book = 0,
    trade = 1,
    bar = 2,
    quiet = 3,    // an event that changes nothing: a gap, or a delta older than the book
    refused = 4,  // an event that was refused when the table was made: only its time counts
};

// Columns of a table; a null pointer is a column that is absent. Times are ns.
struct LoopColumns {
    std::size_t rows = 0;
    const std::int64_t* ts = nullptr;
    const double* bid = nullptr;
    const double* ask = nullptr;
    const double* bid_depth = nullptr;
    const double* ask_depth = nullptr;
    const double* bids = nullptr;  // rows × level_count × 2, padded with NaN
    const double* asks = nullptr;
    std::size_t bid_levels = 0;
    std::size_t ask_levels = 0;
    const std::int64_t* kind = nullptr;
    const double* price = nullptr;
    const double* size = nullptr;
    const std::int64_t* aggressor = nullptr;
    const double* open = nullptr;  // of bars; their close is the bid
    const double* high = nullptr;
    const double* low = nullptr;
    const double* volume = nullptr;
    const std::int64_t* image = nullptr;    // BookImage of a book row; absent: whole
    const std::int64_t* has_gap = nullptr;  // after the row
};

// One decision, as it is recorded on request.
struct DecisionRecord {
    std::int64_t ts_ns;
    std::uint64_t codes;
    double position;
    double equity;
    std::int8_t proposed;
    std::int8_t action;
    std::int8_t is_timer;
};

class CompiledLoop {
public:
    CompiledLoop(FeatureParams features, const LoopSettings& settings)
        : builder_(std::move(features)), core_(settings, builder_.row(), builder_.row_size()) {}
    CompiledLoop(const CompiledLoop&) = delete;
    CompiledLoop& operator=(const CompiledLoop&) = delete;

    // Run over the table, `most_steps` events of it at most; a negative number is all. To be called once. Throws
    // std::overflow_error where an order would be made of a price that is more ticks than a 64-bit number holds.
    void run(const LoopColumns& columns, std::int64_t most_steps, bool records_decisions) {
        records_ = records_decisions;
        if (!records_) core_.be_lean();
        if (records_ && most_steps != 0) decisions.reserve(columns.rows + columns.rows / 8);
        try {
            if (is_of_quotes(columns)) {
                run_rows<true>(columns, most_steps);
            } else {
                run_rows<false>(columns, most_steps);
            }
        } catch (const TooManyTicks& error) {
            throw std::overflow_error(told(error));
        }
        core_.count_codes();
        core_.finish();
    }

    std::vector<DecisionRecord> decisions;
    const DecisionCore& core() const { return core_; }

private:
    // Events. --------------------------------------------------------------------------------------------------

    std::string told(const TooManyTicks& error) const {
        char text[160];
        std::snprintf(text, sizeof text, "row %lld: `%s` must be at most 2^62 ticks of %.15g to make an order of it, was %.17g",
                      static_cast<long long>(core_.counts.rows_read - 1), error.field,
                      core_.settings().instrument.tick_size, error.price);
        return text;
    }

    // Whether every row is a quote: then nothing else has to be asked of any.
    static bool is_of_quotes(const LoopColumns& c) {
        const bool has_quotes = c.bid != nullptr && c.ask != nullptr && c.bid_depth != nullptr && c.ask_depth != nullptr;
        return has_quotes && c.kind == nullptr && c.bids == nullptr && c.asks == nullptr && c.image == nullptr &&
               c.has_gap == nullptr;
    }

    template <bool kOfQuotes>
    void run_rows(const LoopColumns& columns, std::int64_t most_steps) {
        for (std::size_t i = 0; i < columns.rows && core_.counts.steps != most_steps; ++i) {
            const std::int64_t ts = columns.ts[i];
            // An event that will be refused says nothing of the time: it must not make timers up to its own.
            if (timer_due_ns_ != 0 && timer_due_ns_ < ts && would_accept(columns, i, ts)) {
                while (timer_due_ns_ != 0 && timer_due_ns_ < ts) step_timer();
            }
            ++core_.counts.rows_read;
            if constexpr (kOfQuotes) {
                step_quote(columns, i, ts);
            } else {
                step_row(columns, i, ts);
            }
        }
    }

    [[gnu::always_inline]] void step_quote(const LoopColumns& c, std::size_t i, std::int64_t ts) {
        // Before the values, as in the loop: of what is wrong with a row only the first counts.
        Fault fault = check_time(ts);
        if (!fault) fault = builder_.push_quote(ts, c.bid[i], c.ask[i], c.bid_depth[i], c.ask_depth[i], 0);
        if (fault) {
            refuse(fault);
            return;
        }
        core_.take_book(ts, c.bid_depth[i], c.ask_depth[i]);
        last_ts_ns_ = ts;
        arm_timer(ts);
        core_.venue().on_quote(ts, core_.view);
        decide(ts, false);
    }

    [[gnu::noinline, gnu::cold]] void refuse(const Fault& fault) {
        ++core_.counts.refused[static_cast<std::size_t>(fault.reason)];
    }

    void step_row(const LoopColumns& c, std::size_t i, std::int64_t ts) {
        const RowKind kind = kind_of(c, i);
        if (c.has_gap != nullptr) core_.has_gap = c.has_gap[i] != 0;
        if (kind == RowKind::refused) return;
        const Fault fault = observe(c, i, ts, kind);
        if (fault) {
            refuse(fault);
            return;
        }
        last_ts_ns_ = ts;
        if (kind != RowKind::bar || core_.settings().times_bars) arm_timer(ts);
        if (kind == RowKind::book) {
            core_.venue().on_book(ts, core_.view, levels_of(c, i));
        } else if (kind == RowKind::trade) {
            core_.venue().on_trade(ts, core_.view, c.price[i], c.size[i], c.aggressor == nullptr ? 0 : c.aggressor[i]);
        } else if (kind == RowKind::bar) {
            core_.venue().on_bar(ts, core_.view, {c.open[i], c.high[i], c.low[i], c.bid[i], c.volume[i]});
        }
        decide(ts, false);
    }

    static RowKind kind_of(const LoopColumns& c, std::size_t i) {
        return c.kind == nullptr ? RowKind::book : static_cast<RowKind>(c.kind[i]);
    }

    bool would_accept(const LoopColumns& c, std::size_t i, std::int64_t ts) const {
        if (kind_of(c, i) == RowKind::refused) return false;
        if (core_.settings().is_table_checked) return true;
        FeatureBuilder trial = builder_;
        return !push(trial, c, i, ts);
    }

    Fault observe(const LoopColumns& c, std::size_t i, std::int64_t ts, RowKind kind) {
        if (const Fault fault = push(builder_, c, i, ts)) return fault;
        if (kind == RowKind::bar) core_.take_book(ts, 0.0, 0.0);
        if (kind != RowKind::book) return {};
        const double* bids = bids_of(c, i);
        const double* asks = asks_of(c, i);
        const bool has_bids = has_level(bids, c.bid_levels);
        const bool has_asks = has_level(asks, c.ask_levels);
        if (has_bids || has_asks) {
            core_.take_book(ts, has_bids ? bids[1] : 0.0, has_asks ? asks[1] : 0.0);
        } else {
            core_.take_book(ts, read(c.bid_depth, i), read(c.ask_depth, i));
        }
        return {};
    }

    Fault check_time(std::int64_t ts) const {
        if (ts <= 0) return {Reason::non_positive_time, "recv_ts_ns", static_cast<double>(ts)};
        if (ts < last_ts_ns_) return {Reason::time_backwards, "recv_ts_ns", static_cast<double>(last_ts_ns_ - ts)};
        return {};
    }

    // Bring a row to the features, or say what is wrong with it.
    Fault push(FeatureBuilder& builder, const LoopColumns& c, std::size_t i, std::int64_t ts) const {
        if (const Fault fault = check_time(ts)) return fault;
        switch (kind_of(c, i)) {
            case RowKind::book:
                if (has_level(bids_of(c, i), c.bid_levels) || has_level(asks_of(c, i), c.ask_levels)) {
                    return builder.push_book(ts, bids_of(c, i), c.bid_levels, asks_of(c, i), c.ask_levels, 0,
                                             read(c.bid, i), read(c.ask, i), true);
                }
                return builder.push_quote(ts, read(c.bid, i), read(c.ask, i), read(c.bid_depth, i),
                                          read(c.ask_depth, i), 0);
            case RowKind::trade:
                return builder.push_trade(ts, c.price[i], c.size[i], c.aggressor == nullptr ? 0 : c.aggressor[i], 0);
            case RowKind::bar:
                return builder.push_quote(ts, c.bid[i], c.bid[i], 0.0, 0.0, 0);
            case RowKind::quiet:
            case RowKind::refused:
                return {};
        }
        return {Reason::unknown_kind, "kind", static_cast<double>(c.kind[i])};
    }

    static double read(const double* column, std::size_t i) { return column == nullptr ? 0.0 : column[i]; }
    static const double* bids_of(const LoopColumns& c, std::size_t i) {
        return c.bids == nullptr ? nullptr : c.bids + i * c.bid_levels * 2;
    }
    static const double* asks_of(const LoopColumns& c, std::size_t i) {
        return c.asks == nullptr ? nullptr : c.asks + i * c.ask_levels * 2;
    }

    static bool has_level(const double* levels, std::size_t count) {
        return levels != nullptr && count > 0 && !(std::isnan(levels[0]) && std::isnan(levels[1]));
    }

    static BookLevels levels_of(const LoopColumns& c, std::size_t i) {
        BookLevels levels;
        levels.bids = bids_of(c, i);
        levels.asks = asks_of(c, i);
        levels.bid_count = c.bid_levels;
        levels.ask_count = c.ask_levels;
        levels.image = c.image == nullptr ? BookImage::whole : static_cast<BookImage>(c.image[i]);
        return levels;
    }

    // Silence: a timer each period until one has found the symbol stale. ------------------------------------------

    void arm_timer(std::int64_t ts) {
        if (core_.settings().timer_ns != 0) timer_due_ns_ = ts + core_.settings().timer_ns;
    }

    [[gnu::noinline]] void step_timer() {
        const std::int64_t now_ns = timer_due_ns_;
        decide(now_ns, true);
        timer_due_ns_ = 0;
        // The guard's own arithmetic, to the millisecond: a timer that has found the symbol stale is the last.
        if (now_ns / kNsPerMs - core_.last_book_ms <= core_.settings().policy.staleness_ms) arm_timer(now_ns);
    }

    // Part of each caller: most of what it is for is known there.
    [[gnu::always_inline]] void decide(std::int64_t now_ns, bool is_timer) {
        core_.settle(now_ns);
        core_.judge<false>();
        if (records_) {
            decide_on_record(now_ns, is_timer);
            return;
        }
        core_.act<false>(is_timer);
        core_.count(is_timer);
    }

    [[gnu::noinline]] void decide_on_record(std::int64_t now_ns, bool is_timer) {
        const double equity = core_.account().equity;
        core_.act<false>(is_timer);
        core_.count(is_timer);
        record(now_ns, equity, is_timer);
    }

    // `equity` is that of before the decision.
    void record(std::int64_t now_ns, double equity, bool is_timer) {
        decisions.push_back({now_ns, core_.verdict().codes, core_.position(), equity,
                             static_cast<std::int8_t>(core_.proposal().action),
                             static_cast<std::int8_t>(core_.verdict().action),
                             static_cast<std::int8_t>(is_timer ? 1 : 0)});
    }

    FeatureBuilder builder_;
    DecisionCore core_;

    bool records_ = false;
    std::int64_t last_ts_ns_ = 0;
    std::int64_t timer_due_ns_ = 0;
};

}  // namespace ami
