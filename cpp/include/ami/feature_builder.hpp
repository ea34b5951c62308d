// Streaming state of one symbol's features: each accepted event updates the windows and writes the whole row.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ami/blocked_maximum.hpp"
#include "ami/book_features.hpp"
#include "ami/event_fault.hpp"
#include "ami/exact_moments.hpp"
#include "ami/feature_ids.hpp"
#include "ami/lag_ring.hpp"
#include "ami/portable_log.hpp"
#include "ami/ring_buffer.hpp"
#include "ami/rolling_quantile.hpp"
#include "ami/rolling_stats.hpp"
#include "ami/signals.hpp"
#include "ami/state_archive.hpp"
#include "ami/trade_window.hpp"

namespace ami {

// All of it comes from features/feature_config.py: there are no defaults here.
struct FeatureParams {
    double tick_size;
    double cost_ticks;
    std::vector<double> level_weights;  // one a level
    std::uint64_t vol_window;
    std::uint64_t window_steps;  // regime window by count; 0: off
    std::int64_t window_ns;      // regime window by time; 0: off
    std::uint64_t sigma_short_steps;
    std::uint64_t sigma_long_steps;
    std::optional<SignalParams> signals;  // nothing: the row ends before them
};

// Columns of a batch; a null pointer is a column that is absent.
struct EventColumns {
    std::size_t rows = 0;
    const std::int64_t* ts = nullptr;
    const std::int64_t* ts_fallback = nullptr;  // used where `ts` is 0
    std::int64_t ns_per_ts = 1;
    const double* bid = nullptr;
    const double* ask = nullptr;
    const double* bid_depth = nullptr;
    const double* ask_depth = nullptr;
    const double* bids = nullptr;  // rows × level_count × 2, padded with NaN
    const double* asks = nullptr;
    std::size_t bid_levels = 0;
    std::size_t ask_levels = 0;
    const std::int64_t* kind = nullptr;  // 0 book, 1 trade
    const double* price = nullptr;
    const double* size = nullptr;
    const std::int64_t* aggressor = nullptr;
    const std::int64_t* now_ns = nullptr;
};

struct RunReport {
    std::size_t rows = 0;
    std::size_t accepted = 0;
    std::array<std::size_t, kReasonCount> count{};
    std::array<std::size_t, kReasonCount> first{};
};

class FeatureBuilder {
public:
    explicit FeatureBuilder(FeatureParams params)
        : params_(std::move(params)),
          run_count_(params_.sigma_long_steps + 2 - params_.sigma_short_steps),
          longest_count_(std::max(params_.vol_window, params_.sigma_short_steps)),
          runs_(run_count_),
          pairs_(std::max<std::uint64_t>(longest_count_, expected_mids())),
          spreads_(0.5, expected_mids()),
          depths_(0.1, expected_mids()),
          trades_(params_.window_steps, params_.window_ns) {
        if (params_.signals) signals_.emplace(*params_.signals, params_.window_steps, expected_mids());
        row_.fill(std::numeric_limits<double>::quiet_NaN());
    }

    double* row() { return row_.data(); }
    const double* row() const { return row_.data(); }
    std::size_t row_size() const { return signals_ ? kFeatureCount : kBaseFeatureCount; }
    std::int64_t last_ts_ns() const { return last_ts_; }
    // The time of an event that brings none: 1 ms after the one before it, 1 ms for the first.
    std::int64_t implicit_ts_ns() const { return last_ts_ + 1'000'000; }
    std::size_t levels() const { return params_.level_weights.size(); }

    // Each of these checks the event wholly before it touches any state. `now_ns` 0 is the event's own time.
    Fault push_quote(std::int64_t ts_ns, double bid, double ask, double bid_depth, double ask_depth,
                     std::int64_t now_ns) {
        return take_quote(ts_ns, bid, ask, bid_depth, ask_depth, now_ns, own_row());
    }

    // (price, size) pairs, best first. A stated best price of 0 is not stated; another one must be the best level's.
    Fault push_book(std::int64_t ts_ns, const double* bids, std::size_t bid_count, const double* asks,
                    std::size_t ask_count, std::int64_t now_ns, double stated_bid = 0.0, double stated_ask = 0.0,
                    bool is_padded = false) {
        const Levels levels{bids, bid_count, asks, ask_count, is_padded};
        return take_levels(ts_ns, levels, now_ns, stated_bid, stated_ask, own_row());
    }

    Fault push_trade(std::int64_t ts_ns, double price, double size, std::int64_t aggressor, std::int64_t now_ns) {
        return take_trade(ts_ns, price, size, aggressor, now_ns, own_row());
    }

    // What the calls above would say, and nothing else.
    Fault check_quote_event(std::int64_t ts_ns, double bid, double ask, double bid_depth, double ask_depth) const {
        if (const Fault fault = check_quote(bid, ask, bid_depth, ask_depth)) return fault;
        return check_book(ts_ns, 0, BookSide::one_level(bid, bid_depth), BookSide::one_level(ask, ask_depth));
    }
    Fault check_book_event(std::int64_t ts_ns, const double* bids, std::size_t bid_count, const double* asks,
                           std::size_t ask_count, double stated_bid, double stated_ask) const {
        BookSide bid;
        BookSide ask;
        const Levels levels{bids, bid_count, asks, ask_count, false};
        if (const Fault fault = read_levels(levels, stated_bid, stated_ask, bid, ask)) return fault;
        return check_book(ts_ns, 0, bid, ask);
    }
    Fault check_trade_event(std::int64_t ts_ns, double price, double size, std::int64_t aggressor) const {
        if (const Fault fault = check_trade(price, size, aggressor)) return fault;
        return check_time(ts_ns, 0);
    }

    // One row an event into `out` (rows × row_size()); a refused one gives NaN and leaves no other trace.
    void run(const EventColumns& columns, double* out, RunReport& report) {
        if (is_of_quotes(columns)) {
            run_rows<true>(columns, out, report);
        } else {
            run_rows<false>(columns, out, report);
        }
    }

    std::string save() const {
        StateWriter writer;
        const_cast<FeatureBuilder*>(this)->archive(writer);  // writing only reads
        return writer.bytes();
    }
    // Throws std::invalid_argument, and changes nothing, for bytes that are no state of these parameters.
    void load(const char* data, std::size_t size) {
        FeatureBuilder fresh(params_);
        StateReader reader(data, size);
        fresh.archive(reader);
        reader.require(reader.is_at_end());
        *this = std::move(fresh);
    }

private:
    // What one pair of successive mids gives.
    struct Pair {
        double log_return = 0.0;
        double flow = 0.0;
    };

    // Room to start with; a larger window grows to its size once.
    std::size_t expected_mids() const { return std::min<std::uint64_t>(params_.window_steps, 4096); }

    struct Levels {
        const double* bids;
        std::size_t bid_count;
        const double* asks;
        std::size_t ask_count;
        bool is_padded;
    };

    // Where an accepted event writes, and the row before it. A batch writes straight into its table: going through one
    // row that is then copied costs as much as all book features.
    struct Rows {
        const double* last;
        double* row;
        std::size_t width;

        double& at(Feature feature) const { return row[static_cast<int>(feature)]; }
        void repeat_last() const {
            if (row != last) std::copy_n(last, width, row);
        }
    };

    Rows own_row() { return {row_.data(), row_.data(), row_size()}; }

    Fault check_time(std::int64_t ts_ns, std::int64_t now_ns) const {
        if (ts_ns <= 0) return {Reason::non_positive_time, "ts_ns", static_cast<double>(ts_ns)};
        if (now_ns < 0) return {Reason::non_positive_time, "now_ns", static_cast<double>(now_ns)};
        if (ts_ns < last_ts_) return {Reason::time_backwards, "ts_ns", static_cast<double>(last_ts_ - ts_ns)};
        return {};
    }

    double staleness_ms(std::int64_t ts_ns, std::int64_t now_ns) const {
        const std::int64_t now = now_ns == 0 ? ts_ns : now_ns;
        return now > last_book_ts_ ? static_cast<double>(now - last_book_ts_) / 1e6 : 0.0;
    }

    Fault take_quote(std::int64_t ts_ns, double bid, double ask, double bid_depth, double ask_depth,
                     std::int64_t now_ns, const Rows& rows) {
        if (const Fault fault = check_quote(bid, ask, bid_depth, ask_depth)) return fault;
        return accept_book(ts_ns, now_ns, BookSide::one_level(bid, bid_depth), BookSide::one_level(ask, ask_depth), rows);
    }

    Fault take_levels(std::int64_t ts_ns, const Levels& given, std::int64_t now_ns, double stated_bid,
                      double stated_ask, const Rows& rows) {
        BookSide bid;
        BookSide ask;
        if (const Fault fault = read_levels(given, stated_bid, stated_ask, bid, ask)) return fault;
        return accept_book(ts_ns, now_ns, bid, ask, rows);
    }

    Fault read_levels(const Levels& given, double stated_bid, double stated_ask, BookSide& bid, BookSide& ask) const {
        const std::vector<double>& weights = params_.level_weights;
        if (const Fault fault = check_quote(stated_bid, stated_ask, 0.0, 0.0)) return fault;
        if (const Fault fault = read_side(given.bids, given.bid_count, weights.data(), weights.size(), true,
                                          given.is_padded, bid)) {
            return fault;
        }
        if (const Fault fault = read_side(given.asks, given.ask_count, weights.data(), weights.size(), false,
                                          given.is_padded, ask)) {
            return fault;
        }
        if (stated_bid != 0.0 && stated_bid != bid.price) return {Reason::price_mismatch, "bid", stated_bid, bid.price};
        if (stated_ask != 0.0 && stated_ask != ask.price) return {Reason::price_mismatch, "ask", stated_ask, ask.price};
        // Venues send a level of size 0 for a best price that was just taken: that side is not there.
        if (bid.size == 0.0) bid = BookSide{};
        if (ask.size == 0.0) ask = BookSide{};
        return {};
    }

    Fault take_trade(std::int64_t ts_ns, double price, double size, std::int64_t aggressor, std::int64_t now_ns,
                     const Rows& rows) {
        if (const Fault fault = check_trade(price, size, aggressor)) return fault;
        if (const Fault fault = check_time(ts_ns, now_ns)) return fault;
        rows.repeat_last();
        last_ts_ = ts_ns;
        trades_.add_trade(mids_seen_, ts_ns, price, size, aggressor);
        if (has_book_) rows.at(Feature::staleness_ms) = staleness_ms(ts_ns, now_ns);
        if (move_time(ts_ns) || mids_seen_ == 0) write_mid_features_apart(rows);
        write_trade_features(rows);
        return {};
    }

    Fault check_book(std::int64_t ts_ns, std::int64_t now_ns, const BookSide& bid, const BookSide& ask) const {
        if (const Fault fault = check_time(ts_ns, now_ns)) return fault;
        if (bid.is_missing() && ask.is_missing()) return {Reason::empty_book, "", 0.0};
        const bool is_two_sided = !bid.is_missing() && !ask.is_missing();
        if (is_two_sided && bid.price > ask.price) return {Reason::crossed_book, "bid", bid.price, ask.price};
        return {};
    }

    // Part of each caller: of a book of one level much of it is known there.
    [[gnu::always_inline]] Fault accept_book(std::int64_t ts_ns, std::int64_t now_ns, const BookSide& bid,
                                             const BookSide& ask, const Rows& rows) {
        if (const Fault fault = check_book(ts_ns, now_ns, bid, ask)) return fault;
        const bool is_two_sided = !bid.is_missing() && !ask.is_missing();

        // Once there was a mid, a book event writes every feature anew.
        if (mids_seen_ == 0) rows.repeat_last();
        last_ts_ = last_book_ts_ = ts_ns;
        has_book_ = true;
        write_book_features(bid, ask, params_.tick_size, params_.cost_ticks, rows.row);
        rows.at(Feature::staleness_ms) = staleness_ms(ts_ns, now_ns);
        fold_book(ts_ns, {bid.price, bid.size}, {ask.price, ask.size}, is_two_sided, rows);
        return {};
    }

    // One function for all that follows from a book, and once in the program: calls within it would cost a tenth of it.
    [[gnu::noinline]] void fold_book(std::int64_t ts_ns, Best best_bid, Best best_ask, bool is_two_sided, const Rows rows) {
        if (is_two_sided) add_mid(ts_ns, best_bid, best_ask, rows);
        move_time(ts_ns);
        write_mid_features(rows);
        write_trade_features(rows);
    }

    [[gnu::always_inline]] void add_mid(std::int64_t ts_ns, Best best_bid, Best best_ask, const Rows& rows) {
        const double mid = rows.at(Feature::mid);
        const double spread = rows.at(Feature::spread);
        const double depth = rows.at(Feature::depth);
        const bool is_full = params_.window_steps > 0 && spreads_.size() == params_.window_steps;
        if (mids_seen_ > 0) {
            add_pair(log_return(mid, last_mid_), order_flow(best_bid, best_ask, last_bid_, last_ask_), is_full);
        }
        last_mid_ = mid;
        last_bid_ = best_bid;
        last_ask_ = best_ask;
        if (signals_) add_signals(mid, spread, is_full);
        trades_.close_mid(mids_seen_);
        staleness_.push(rows.at(Feature::staleness_ms));
        if (params_.window_ns > 0) mid_times_.push_back(ts_ns);
        ++mids_seen_;
        if (is_full) {
            spreads_.replace_oldest(spread);
            depths_.replace_oldest(depth);
            drop_oldest_mid();
        } else {
            spreads_.push(spread);
            depths_.push(depth);
        }
    }

    // To be called while the spreads are those before the new one. Apart, so that rows without signals pay nothing.
    [[gnu::noinline]] void add_signals(double mid, double spread, bool is_full) {
        signals_->add_mid(mids_seen_, mid);
        if (is_full) {
            signals_->replace_spread(spreads_.samples().front(), spread);
        } else {
            signals_->add_spread(spread);
        }
    }

    // `is_full`: the regime window's oldest pair leaves for it.
    [[gnu::always_inline]] void add_pair(double log_return_value, double flow, bool is_full) {
        if (!is_full) {
            if (pair_count_ == pairs_.size()) pairs_.grow();
            ++pair_count_;
            flow_.add(flow);
            regime_.add(log_return_value);
        } else if (pair_count_ > 0) {
            const Pair& oldest = pairs_.back(pair_count_ - 1);
            flow_.add(flow);
            flow_.add(-oldest.flow);
            regime_.replace(oldest.log_return, log_return_value);
        }
        add_return(returns_, params_.vol_window, log_return_value);
        add_return(run_, params_.sigma_short_steps, log_return_value);
        pairs_.advance() = {log_return_value, flow};
        ++pairs_seen_;
        if (pairs_seen_ >= params_.sigma_short_steps) add_run(run_.std_dev());
        if (!flow_.is_exact()) sum_flow();
    }

    [[gnu::always_inline]] void add_return(ExactMoments& moments, std::uint64_t window, double log_return_value) {
        if (pairs_seen_ < window) return moments.add(log_return_value);
        moments.replace(pairs_.back(window - 1).log_return, log_return_value);
    }

    [[gnu::always_inline]] void add_run(double deviation) {
        double& place = runs_.advance();
        if (runs_seen_++ < run_count_) {
            run_moments_.add(deviation);
        } else {
            run_moments_.replace(place, deviation);
        }
        place = deviation;
    }

    // Where the flow's numbers are too far apart for its sum: from the window itself.
    [[gnu::noinline, gnu::cold]] void sum_flow() {
        flow_ = TripleSum{};
        for (std::size_t lag = pair_count_; lag-- > 0;) flow_.add(pairs_.back(lag).flow);
    }

    // What the quantiles do not see: times and staleness of the window's oldest mid.
    void drop_oldest_mid() {
        if (params_.window_ns > 0) mid_times_.pop_front();
        staleness_.drop_before(mids_seen_ - spreads_.size());
    }

    // The pair that the window's oldest mid began. Invariant: there is one.
    void drop_oldest_pair() {
        const Pair& oldest = pairs_.back(--pair_count_);
        flow_.add(-oldest.flow);
        regime_.remove(oldest.log_return);
        if (!flow_.is_exact()) sum_flow();
    }

    // Drop what time has taken out of the regime window; true when a mid left. The last mid stays.
    [[gnu::always_inline]] bool move_time(std::int64_t ts_ns) {
        if (trades_.holds_closed()) trades_.drop_old(mids_seen_, ts_ns);
        return params_.window_ns != 0 && move_window(ts_ns);
    }
    [[gnu::noinline]] bool move_window(std::int64_t ts_ns) {
        const std::int64_t horizon = ts_ns - params_.window_ns;
        bool has_moved = false;
        while (spreads_.size() > 1 && mid_times_.front() <= horizon) {
            if (signals_) signals_->drop_spread(spreads_.samples().front());
            spreads_.pop();
            depths_.pop();
            drop_oldest_pair();
            drop_oldest_mid();
            has_moved = true;
        }
        if (has_moved && signals_) signals_->rank_again(spreads_.samples().back());
        return has_moved;
    }

    [[gnu::noinline]] void write_mid_features_apart(const Rows& rows) const { write_mid_features(rows); }

    // Everything that changes when a mid enters or leaves a window.
    [[gnu::always_inline]] void write_mid_features(const Rows& rows) const {
        rows.at(Feature::sigma) = returns_.std_dev();
        rows.at(Feature::sigma_spike_z) =
            runs_seen_ < run_count_ ? 0.0 : run_moments_.z_score(runs_.back(0), kEps);
        rows.at(Feature::sigma_5m) = regime_.std_dev();
        rows.at(Feature::ofi_5m) = pair_count_ == 0 ? 0.0 : flow_.value();
        if (signals_) signals_->write(rows.row);
        if (mids_seen_ == 0) return;
        rows.at(Feature::spread_med_5m) = spreads_.median();
        rows.at(Feature::depth_p10_5m) = depths_.quantile();
        rows.at(Feature::staleness_max_5m) = staleness_.value();
    }

    void write_trade_features(const Rows& rows) const {
        double vwap = rows.at(Feature::mid);
        double imbalance = 0.0;
        if (!trades_.is_empty()) {
            const TradeSums sums = trades_.sums();
            const double volume = sums.volume.value();
            vwap = ratio(sums.value.value(), volume, vwap);
            imbalance = ratio(sums.net.value(), volume, 0.0);
        }
        rows.at(Feature::vwap_5m) = vwap;
        rows.at(Feature::trade_imbalance_5m) = imbalance;
    }

    // Whether a table has nothing but quotes at given times: then nothing has to be asked of a row.
    static bool is_of_quotes(const EventColumns& c) {
        const bool has_quotes = c.bid != nullptr && c.ask != nullptr && c.bid_depth != nullptr && c.ask_depth != nullptr;
        return has_quotes && c.ts != nullptr && c.kind == nullptr && c.bids == nullptr && c.asks == nullptr;
    }

    template <bool kOfQuotes>
    void run_rows(const EventColumns& columns, double* out, RunReport& report) {
        report.rows = columns.rows;
        const std::int64_t last_whole_ts = std::numeric_limits<std::int64_t>::max() / columns.ns_per_ts;
        const double* last = row_.data();
        const std::size_t width = row_size();
        for (std::size_t i = 0; i < columns.rows; ++i, out += width) {
            const Fault fault = take_row<kOfQuotes>(columns, i, last_whole_ts, {last, out, width});
            if (!fault) {
                last = out;
                ++report.accepted;
                continue;
            }
            std::fill(out, out + width, std::numeric_limits<double>::quiet_NaN());
            const auto reason = static_cast<std::size_t>(fault.reason);
            if (report.count[reason]++ == 0) report.first[reason] = i;
        }
        std::copy_n(last, last == row_.data() ? 0 : width, row_.data());
    }

    // `last_whole_ts`: the last time whose nanoseconds fit.
    template <bool kOfQuotes>
    [[gnu::always_inline]] Fault take_row(const EventColumns& c, std::size_t i, std::int64_t last_whole_ts, const Rows& rows) {
        std::int64_t ts = implicit_ts_ns();
        if (c.ts != nullptr) {
            ts = c.ts[i] == 0 && c.ts_fallback != nullptr ? c.ts_fallback[i] : c.ts[i];
            if (ts > last_whole_ts) {
                return {Reason::malformed, "ts_ms", static_cast<double>(ts)};
            }
            if (ts > 0) ts *= c.ns_per_ts;
        }
        const std::int64_t now = c.now_ns == nullptr ? 0 : c.now_ns[i];
        if constexpr (kOfQuotes) return take_quote(ts, c.bid[i], c.ask[i], c.bid_depth[i], c.ask_depth[i], now, rows);
        const std::int64_t kind = c.kind == nullptr ? 0 : c.kind[i];
        if (kind == 1) {
            return take_trade(ts, c.price[i], c.size[i], c.aggressor == nullptr ? 0 : c.aggressor[i], now, rows);
        }
        if (kind != 0) return {Reason::unknown_kind, "kind", static_cast<double>(kind)};
        const auto read = [i](const double* column) { return column == nullptr ? 0.0 : column[i]; };
        const double* bids = c.bids == nullptr ? nullptr : c.bids + i * c.bid_levels * 2;
        const double* asks = c.asks == nullptr ? nullptr : c.asks + i * c.ask_levels * 2;
        if (has_level(bids, c.bid_levels) || has_level(asks, c.ask_levels)) {
            const Levels levels{bids, c.bid_levels, asks, c.ask_levels, true};
            return take_levels(ts, levels, now, read(c.bid), read(c.ask), rows);
        }
        return take_quote(ts, read(c.bid), read(c.ask), read(c.bid_depth), read(c.ask_depth), now, rows);
    }

    // A first pair of NaN is padding: the row carries no levels on that side.
    static bool has_level(const double* levels, std::size_t count) {
        return levels != nullptr && count > 0 && !(std::isnan(levels[0]) && std::isnan(levels[1]));
    }

    template <class Archive>
    void archive(Archive& ar) {
        ar.value(row_);
        ar.value(last_ts_);
        ar.value(last_book_ts_);
        ar.value(has_book_);
        ar.value(mids_seen_);
        ar.value(last_mid_);
        ar.value(last_bid_);
        ar.value(last_ask_);
        ar.value(pair_count_);
        ar.ring(mid_times_);
        flow_.archive(ar);
        spreads_.archive(ar);
        depths_.archive(ar);
        staleness_.archive(ar, spreads_.size());
        trades_.archive(ar);
        const std::uint64_t mids = spreads_.size();
        ar.require(depths_.size() == mids && mids <= mids_seen_);
        ar.require(params_.window_steps == 0 || mids <= params_.window_steps);
        ar.require(mid_times_.size() == (params_.window_ns > 0 ? mids : 0));
        ar.require((mids_seen_ == 0) == (mids == 0) && staleness_.empty() == (mids == 0));
        ar.require(mids == 0 || staleness_.end() == mids_seen_);
        ar.require(mids == 0 || has_book_);
        ar.require(last_ts_ >= 0 && last_book_ts_ >= 0 && last_book_ts_ <= last_ts_);
        // The logarithm takes nothing else.
        ar.require(mids_seen_ == 0 || (last_mid_ > 0.0 && last_mid_ <= kMaxMagnitude));
        archive_moments(ar);
        if (signals_) signals_->archive(ar, spreads_.samples());
    }

    // Sums are not saved: they follow from the returns and the deviations.
    template <class Archive>
    void archive_moments(Archive& ar) {
        pairs_seen_ = mids_seen_ == 0 ? 0 : mids_seen_ - 1;
        runs_seen_ = pairs_seen_ < params_.sigma_short_steps ? 0 : pairs_seen_ - params_.sigma_short_steps + 1;
        ar.require(pair_count_ == (spreads_.size() == 0 ? 0 : spreads_.size() - 1));
        while (pairs_.size() < pair_count_) pairs_.grow();
        pairs_.archive(ar, std::min(pairs_seen_, std::max(longest_count_, pair_count_)));
        runs_.archive(ar, std::min(runs_seen_, run_count_));
        if (!Archive::kIsReading) return;
        for (std::size_t lag = 0; lag < std::min<std::uint64_t>(pairs_seen_, pairs_.size()); ++lag) {
            const double value = pairs_.back(lag).log_return;
            ar.require(std::fabs(value) < ExactMoments::kMostSample);
            if (lag < params_.vol_window) returns_.add(value);
            if (lag < params_.sigma_short_steps) run_.add(value);
            if (lag < pair_count_) regime_.add(value);
        }
        for (std::size_t lag = 0; lag < std::min(runs_seen_, run_count_); ++lag) {
            ar.require(std::fabs(runs_.back(lag)) < ExactMoments::kMostSample);
            run_moments_.add(runs_.back(lag));
        }
    }

    FeatureParams params_;
    std::array<double, kFeatureCount> row_;

    std::int64_t last_ts_ = 0;
    std::int64_t last_book_ts_ = 0;
    bool has_book_ = false;

    // The last two-sided book: what the next return and order flow start from.
    std::uint64_t mids_seen_ = 0;
    double last_mid_ = 0.0;
    Best last_bid_;
    Best last_ask_;

    std::uint64_t run_count_;      // runs of sigma_spike_z
    std::uint64_t longest_count_;  // returns that the windows by count alone look back on
    LagRing<double> runs_;         // their standard deviations
    std::uint64_t runs_seen_ = 0;
    ExactMoments run_moments_;  // of those

    // The regime window's pairs, and as many as the windows by count alone look back on.
    LagRing<Pair> pairs_;
    std::uint64_t pairs_seen_ = 0;
    ExactMoments returns_;  // of the last `vol_window`
    ExactMoments run_;      // of the last `sigma_short_steps`

    // The regime window. Invariant: spreads_ and depths_ hold one sample a mid in it, and it has one pair less.
    std::uint64_t pair_count_ = 0;
    ExactMoments regime_;  // of the returns of its pairs
    TripleSum flow_;
    RingBuffer<std::int64_t> mid_times_;
    RollingQuantile spreads_;
    RollingQuantile depths_;
    BlockedMaximum staleness_;  // numbered as the mids
    TradeWindow trades_;
    std::optional<Signals> signals_;  // its spreads are those of `spreads_`
};

}  // namespace ami
