// The loop of a backtest in one call: features, model, guards, orders, paper fills and money of one market over a table.
// loop/run.py, loop/step.py and loop/symbol_state.py are what it means; nothing here may differ from them in a bit.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "ami/feature_builder.hpp"
#include "ami/guards.hpp"
#include "ami/ledger.hpp"
#include "ami/order_keeper.hpp"
#include "ami/paper_venue.hpp"
#include "ami/position_manager.hpp"
#include "ami/reference_model.hpp"
#include "ami/risk_state.hpp"

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

struct LoopSettings {
    RiskPolicy policy;
    Instrument instrument;
    Instrument venue_instrument;
    bool is_venue_on_grid;
    Queue queue;
    const double* draws;
    std::size_t draw_count;
    QuotingLimits quoting;
    ExitLimits exits;
    ReferenceParams reference;
    ModelFunction model;  // null: the reference model
    const double* model_params;
    double start_cash;
    std::int64_t timer_ns;
    bool times_bars;        // silence after a bar counts as well
    bool is_table_checked;  // every row that is to be refused is marked so
    bool is_dry;
};

struct LoopCounts {
    std::int64_t steps = 0;
    std::int64_t timers = 0;
    std::int64_t rows_read = 0;
    std::int64_t submitted = 0;
    std::int64_t canceled = 0;
    std::int64_t rejected = 0;
    std::int64_t skipped = 0;
    std::int64_t errors = 0;
    bool is_last_error_the_models = false;
    std::array<std::int64_t, kActionCount> actions{};
    std::array<std::int64_t, kActionCount> proposals{};
    std::array<std::int64_t, 64> codes{};
    std::array<std::int64_t, 64> held_codes{};                // reasons of HOLD that guards gave
    std::array<std::int64_t, kReasonBits> held_reasons{};     // and that the model gave
    std::array<std::int64_t, kReasonCount> refused{};
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
        : s_(settings),
          builder_(std::move(features)),
          guards_(s_.policy),
          risk_(s_.policy, s_.instrument.tick_size, settings.quoting.post_fill_cooldown_ms),
          positions_(settings.exits, settings.instrument.tick_size),
          venue_(settings.venue_instrument, settings.is_venue_on_grid, settings.queue, settings.draws,
                 settings.draw_count),
          keeper_(venue_, s_.instrument, settings.quoting),
          account_(s_.instrument, settings.start_cash) {
        context_.tp_ticks = s_.policy.tp_ticks;
    }
    CompiledLoop(const CompiledLoop&) = delete;
    CompiledLoop& operator=(const CompiledLoop&) = delete;

    // Run over the table, `most_steps` events of it at most; a negative number is all. To be called once.
    void run(const LoopColumns& columns, std::int64_t most_steps, bool records_decisions) {
        records_ = records_decisions;
        if (records_ && most_steps != 0) decisions.reserve(columns.rows + columns.rows / 8);
        for (std::size_t i = 0; i < columns.rows && counts.steps != most_steps; ++i) {
            const std::int64_t ts = columns.ts[i];
            // An event that will be refused says nothing of the time: it must not make timers up to its own.
            if (timer_due_ns_ != 0 && timer_due_ns_ < ts && would_accept(columns, i, ts)) {
                while (timer_due_ns_ != 0 && timer_due_ns_ < ts) step_timer();
            }
            ++counts.rows_read;
            step_row(columns, i, ts);
        }
        count_codes();
        finish();
    }

    LoopCounts counts;
    std::vector<VenueFill> fills;
    std::vector<DecisionRecord> decisions;
    const Account& account() const { return account_; }
    const std::vector<Guard>& latches() const { return risk_.latches(); }
    const QuoteFault& last_fault() const { return keeper_.last_fault(); }

private:
    static constexpr std::size_t index(Feature feature) { return static_cast<std::size_t>(feature); }
    double feature(Feature which) const { return builder_.row()[index(which)]; }

    // Events. --------------------------------------------------------------------------------------------------

    void step_row(const LoopColumns& c, std::size_t i, std::int64_t ts) {
        const RowKind kind = kind_of(c, i);
        if (c.has_gap != nullptr) has_gap_ = c.has_gap[i] != 0;
        if (kind == RowKind::refused) return;
        const Fault fault = observe(c, i, ts, kind);
        if (fault) {
            ++counts.refused[static_cast<std::size_t>(fault.reason)];
            return;
        }
        last_ts_ns_ = ts;
        if (kind != RowKind::bar || s_.times_bars) arm_timer(ts);
        if (kind == RowKind::book) {
            venue_.on_book(ts, view_, levels_of(c, i));
        } else if (kind == RowKind::trade) {
            venue_.on_trade(ts, view_, c.price[i], c.size[i], c.aggressor == nullptr ? 0 : c.aggressor[i]);
        } else if (kind == RowKind::bar) {
            venue_.on_bar(ts, view_, {c.open[i], c.high[i], c.low[i], c.bid[i], c.volume[i]});
        }
        const Actions done = decide(ts, false);
        risk_.on_step(done.has_error);
        ++counts.steps;
    }

    static RowKind kind_of(const LoopColumns& c, std::size_t i) {
        return c.kind == nullptr ? RowKind::book : static_cast<RowKind>(c.kind[i]);
    }

    bool would_accept(const LoopColumns& c, std::size_t i, std::int64_t ts) const {
        if (kind_of(c, i) == RowKind::refused) return false;
        if (s_.is_table_checked) return true;
        FeatureBuilder trial = builder_;
        return !push(trial, c, i, ts);
    }

    Fault observe(const LoopColumns& c, std::size_t i, std::int64_t ts, RowKind kind) {
        if (const Fault fault = push(builder_, c, i, ts)) return fault;
        if (kind == RowKind::bar) take_book(ts, 0.0, 0.0);
        if (kind != RowKind::book) return {};
        const double* bids = bids_of(c, i);
        const double* asks = asks_of(c, i);
        const bool has_bids = has_level(bids, c.bid_levels);
        const bool has_asks = has_level(asks, c.ask_levels);
        if (has_bids || has_asks) {
            take_book(ts, has_bids ? bids[1] : 0.0, has_asks ? asks[1] : 0.0);
        } else {
            take_book(ts, read(c.bid_depth, i), read(c.ask_depth, i));
        }
        return {};
    }

    // Bring a row to the features, or say what is wrong with it.
    Fault push(FeatureBuilder& builder, const LoopColumns& c, std::size_t i, std::int64_t ts) const {
        if (ts <= 0) return {Reason::non_positive_time, "recv_ts_ns", static_cast<double>(ts)};
        if (ts < last_ts_ns_) return {Reason::time_backwards, "recv_ts_ns", static_cast<double>(last_ts_ns_ - ts)};
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

    void take_book(std::int64_t ts, double bid_size, double ask_size) {
        view_ = {feature(Feature::bid), feature(Feature::ask), bid_size, ask_size};
        mid_ = feature(Feature::mid);
        last_book_ts_ns_ = ts;
        last_book_ms_ = ts / kNsPerMs;
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
        if (s_.timer_ns != 0) timer_due_ns_ = ts + s_.timer_ns;
    }

    void step_timer() {
        const std::int64_t now_ns = timer_due_ns_;
        decide(now_ns, true);
        ++counts.timers;
        timer_due_ns_ = 0;
        // The guard's own arithmetic, to the millisecond: a timer that has found the symbol stale is the last.
        if (now_ns / kNsPerMs - last_book_ms_ <= s_.policy.staleness_ms) arm_timer(now_ns);
    }

    // One decision. ------------------------------------------------------------------------------------------------

    Actions decide(std::int64_t now_ns, bool is_timer) {
        const std::int64_t now_ms = now_ns / kNsPerMs;
        now_ns_ = now_ns;
        book_fills(now_ns, now_ms);
        const double position = account_.position.qty();
        const double rate = s_.instrument.is_inverse && mid_ > 0.0 ? mid_ : 1.0;
        const double realized = account_.position.realized() - account_.position.fees();
        const std::int64_t open_orders = keeper_.open_count();
        risk_.on_account(now_ns, realized, account_.unrealized, rate);

        const Proposal proposal = propose(position, now_ms);
        risk_.fill_context(context_, now_ns, now_ms);
        fill_market();
        context_.current_total_exposure_usd = account_.exposure_usd;
        context_.abs_inventory = std::fabs(position);
        context_.open_orders = open_orders;
        context_.active_markets = position != 0.0 || open_orders > 0 ? 1 : 0;
        context_.equity_usd = account_.equity * rate;
        context_.drawdown_usd = account_.drawdown() * rate;
        const Verdict verdict = guards_.judge(proposal.action, proposal.has_size, proposal.size_usd, context_);

        Actions done;
        if (!s_.is_dry) {
            const Quotes quotes = {proposal.bid_quote, proposal.ask_quote, verdict.size_usd, proposal.post_only};
            done = keeper_.apply(verdict.action, quotes, now_ms, view_, position, verdict.pulls, decisions_made_);
        }
        ++decisions_made_;
        if (done.has_error) counts.is_last_error_the_models = false;
        if ((proposal.reasons & kModelInvalid) != 0) done.has_error = counts.is_last_error_the_models = true;
        risk_.on_verdict(now_ns, proposal.action, verdict);
        if (done.canceled != 0) risk_.on_cancels(now_ns, done.canceled);
        count(proposal, verdict, done, is_timer);
        if (records_) {
            decisions.push_back({now_ns, verdict.codes, position, account_.equity,
                                 static_cast<std::int8_t>(proposal.action), static_cast<std::int8_t>(verdict.action),
                                 static_cast<std::int8_t>(is_timer ? 1 : 0)});
        }
        return done;
    }

    void book_fills(std::int64_t now_ns, std::int64_t now_ms) {
        keeper_.poll(now_ms, new_fills_);
        for (const VenueFill& fill : new_fills_) book(fill, now_ns, now_ms);
        if (mid_ > 0.0) {
            account_.mark(mid_);
            risk_.on_book(now_ns, mid_);
        }
    }

    void book(const VenueFill& fill, std::int64_t now_ns, std::int64_t now_ms) {
        fills.push_back(fill);
        const FillResult result = account_.apply(fill.is_buy, fill.price, fill.qty, fill.fee);
        risk_.on_fill(now_ns, fill.is_buy, fill.qty, mid_ != 0.0 ? mid_ : fill.price);
        if (result.is_closed) {
            positions_.on_position_closed();
            risk_.on_position_closed(now_ms, result.trip_pnl);
        }
        const double position = account_.position.qty();
        if (position != 0.0) {
            // After a flip only what is left is a position, opened by this fill.
            const double qty = result.is_closed ? position : fill.is_buy ? fill.qty : -fill.qty;
            positions_.register_fill(fill.price, qty, static_cast<double>(now_ms));
        }
    }

    Proposal propose(double position, std::int64_t now_ms) const {
        Proposal proposal;
        if (last_book_ts_ns_ == 0) {
            proposal.reasons = kNoBookYet;
            return proposal;
        }
        if (position != 0.0 && positions_.should_flatten(mid_, static_cast<double>(now_ms)) != Exit::none) {
            proposal.action = Action::EXIT;
            return proposal;
        }
        if (s_.model != nullptr) return propose_by(s_.model, builder_.row(), s_.model_params);
        return propose_reference(builder_.row(), s_.reference);
    }

    void fill_market() {
        context_.has_market = last_book_ts_ns_ != 0;
        if (!context_.has_market) return;
        // After a gap the book is as old as can be.
        context_.last_event_ts_ms = has_gap_ ? 0 : last_book_ms_;
        context_.mid = mid_;
        context_.depth = feature(Feature::depth);
        context_.spread_bps = feature(Feature::spread_bps);
        context_.cost_ticks = feature(Feature::cost_ticks);
        context_.sigma_5m = feature(Feature::sigma_5m);
        context_.spread_med_5m = feature(Feature::spread_med_5m);
        context_.depth_p10_5m = feature(Feature::depth_p10_5m);
        context_.sigma_spike_z = feature(Feature::sigma_spike_z);
    }

    // Counting. ----------------------------------------------------------------------------------------------------

    void count(const Proposal& proposal, const Verdict& verdict, const Actions& done, bool is_timer) {
        counts.submitted += done.submitted;
        counts.canceled += done.canceled;
        counts.rejected += done.rejected;
        counts.skipped += done.skipped;
        counts.errors += done.has_error ? 1 : 0;
        std::uint64_t held = 0;
        std::uint32_t reasons = 0;
        if (!is_timer) {
            ++counts.proposals[static_cast<std::size_t>(proposal.action)];
            ++counts.actions[static_cast<std::size_t>(verdict.action)];
            if (verdict.action == Action::HOLD) {
                if (proposal.action == Action::HOLD) {
                    reasons = proposal.reasons;
                } else {
                    held = verdict.held_codes;
                }
            }
        }
        // The same findings come many times in a row: they are added up when they change.
        if (verdict.codes != same_codes_ || held != same_held_ || reasons != same_reasons_) {
            count_codes();
            same_codes_ = verdict.codes;
            same_held_ = held;
            same_reasons_ = reasons;
        }
        ++same_count_;
    }

    void count_codes() {
        add_bits(same_codes_, counts.codes.data());
        add_bits(same_held_, counts.held_codes.data());
        add_bits(same_reasons_, counts.held_reasons.data());
        same_count_ = 0;
    }

    void add_bits(std::uint64_t bits, std::int64_t* counters) const {
        for (; bits != 0; bits >>= 8, counters += 8) {
            if ((bits & 0xffu) == 0) continue;
            for (unsigned i = 0; i < 8; ++i) counters[i] += (bits >> i & 1u) != 0 ? same_count_ : 0;
        }
    }

    // Cancel every order and book the last fills.
    void finish() {
        if (s_.is_dry) return;
        counts.canceled += keeper_.cancel_all();
        keeper_.poll(now_ns_ / kNsPerMs, new_fills_);
        for (const VenueFill& fill : new_fills_) book(fill, now_ns_, now_ns_ / kNsPerMs);
    }

    LoopSettings s_;
    FeatureBuilder builder_;
    Guards guards_;
    RiskState risk_;
    PositionManager positions_;
    PaperVenue venue_;
    OrderKeeper keeper_;
    Account account_;
    GuardContext context_;

    bool has_gap_ = false;
    bool records_ = false;
    MarketView view_;
    double mid_ = 0.0;
    std::int64_t last_ts_ns_ = 0;
    std::int64_t last_book_ts_ns_ = 0;
    std::int64_t last_book_ms_ = 0;
    std::int64_t timer_due_ns_ = 0;
    std::int64_t now_ns_ = 0;
    std::int64_t decisions_made_ = 0;
    std::vector<VenueFill> new_fills_;

    std::uint64_t same_codes_ = 0;
    std::uint64_t same_held_ = 0;
    std::uint32_t same_reasons_ = 0;
    std::int64_t same_count_ = 0;

};

}  // namespace ami
