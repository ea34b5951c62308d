// Turns decisions into orders: execution/order_manager.py and order_table.py, spelled for the compiled loop, whose venue
// answers at once and never fails.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include "ami/instrument.hpp"
#include "ami/paper_venue.hpp"
#include "ami/risk_state.hpp"

namespace ami {

struct QuotingLimits {
    std::int64_t refresh_ms;
    double min_requote_ticks;
    std::int64_t order_ttl_ms;
    std::int64_t post_fill_cooldown_ms;
    std::int64_t max_replacements_per_min;
};

struct Quotes {
    double bid_quote = 0.0;  // 0: the side is withdrawn
    double ask_quote = 0.0;
    double size_usd = 0.0;
    bool post_only = true;
};

// Quotes that no order can be made of, and the best prices at that moment.
struct QuoteFault {
    std::int64_t count = 0;
    Quotes quotes;
    double bid = 0.0;
    double ask = 0.0;
};

struct Actions {
    std::int64_t submitted = 0;
    std::int64_t canceled = 0;
    std::int64_t rejected = 0;
    std::int64_t skipped = 0;
    bool has_error = false;
};

class OrderKeeper {
public:
    OrderKeeper(PaperVenue& venue, const Instrument& instrument, const QuotingLimits& limits)
        : venue_(venue),
          instrument_(instrument),
          limits_(limits),
          min_requote_ticks_(std::max(1.0, limits.min_requote_ticks)),
          replaced_ms_(static_cast<std::size_t>(std::max<std::int64_t>(1, limits.max_replacements_per_min))) {}

    // The order at one place, and what is remembered of the place.
    struct Working {
        bool is_live = false;
        OrderRecord order;
        std::int64_t lookup_ms = 0;
        std::int64_t blocked_until_ms = std::numeric_limits<std::int64_t>::min();  // nothing is put here before
    };
    // Bounds within which an ACT changes nothing, and until when.
    struct Calm {
        std::int64_t until_ms = std::numeric_limits<std::int64_t>::min();
        bool is_bid_off = true;
        bool is_ask_off = true;
        bool post_only = true;
        double bid_low = 0.0;
        double bid_high = 0.0;
        double ask_low = 0.0;
        double ask_high = 0.0;
    };

    void keep_books(OrderLog& log) { log_ = &log; }
    const Working& working(Place place) const {
        return place == Place::bid ? bid_ : place == Place::ask ? ask_ : exit_;
    }
    const Calm& calm() const { return calm_; }
    bool is_stopped() const { return is_stopped_; }
    const BoundedQueue<std::int64_t>& replaced_ms() const { return replaced_ms_; }

    std::int64_t open_count() const { return open_count_; }
    const QuoteFault& last_fault() const { return fault_; }

    // False when an order was filled but for a crumb that is lost in rounding here and rests on at the venue.
    bool can_fold() const {
        if (venue_.fills.empty()) return true;
        for (const bool is_buy : {true, false}) {
            const Working& resting = is_buy ? bid_ : ask_;
            const Place place = is_buy ? Place::bid : Place::ask;
            const double qty = resting.order.qty;
            double filled = resting.order.filled_qty;
            bool is_live = resting.is_live;
            for (const VenueFill& fill : venue_.fills) {
                if (fill.place != place) continue;
                is_live = filled + fill.qty - qty < -(kQtyRelTol * qty);
                filled += fill.qty;
            }
            if (is_live != venue_.is_open(is_buy)) return false;
        }
        return true;
    }

    // Whether there is anything for `poll` to do.
    bool has_news(std::int64_t now_ms) const {
        return !venue_.fills.empty() || (exit_.is_live && now_ms >= exit_.lookup_ms);
    }

    // Bring the venue's fills to their orders; they are in `fills` then, oldest first.
    void poll(std::int64_t now_ms, std::vector<VenueFill>& fills) {
        now_ms_ = now_ms;
        fills.clear();
        if (!venue_.fills.empty()) {
            fills.swap(venue_.fills);
            for (const VenueFill& fill : fills) fold(fill);
            if (bid_.is_live != venue_.is_open(true) || ask_.is_live != venue_.is_open(false)) {
                throw std::logic_error("an order was filled but for a crumb that is lost in rounding");
            }
        }
        // An IOC that ended without a whole fill is looked up after a while: nobody tells.
        if (exit_.is_live && now_ms >= exit_.lookup_ms) {
            close(exit_, OrderEnd::expired);
            if (exit_.order.filled_qty == 0.0) exit_.blocked_until_ms = now_ms + limits_.refresh_ms;
        }
    }

    // True for an ACT that leaves everything as it is, and for a HOLD that leaves the quotes: most decisions.
    // Prices and post-only are those of the quotes.
    bool leaves_all(Action action, double bid, double ask, bool post_only, std::int64_t now_ms, const MarketView& view,
                    bool pulls) const {
        // Which of the two it is nobody can guess: a HOLD, whose quotes say nothing, takes the way of most ACTs.
        const bool is_act = action == Action::ACT;
        return ((action == Action::HOLD) & !pulls) | (is_calm(!is_act, bid, ask, post_only, now_ms, view) & is_act);
    }

    // Do what was decided, unless it leaves everything as it is.
    Actions apply(Action action, const Quotes& quotes, std::int64_t now_ms, const MarketView& view, double position,
                  bool pulls, std::int64_t step) {
        Actions done;
        now_ms_ = now_ms;
        if (action != Action::STOP && action != Action::HOLD) is_stopped_ = false;
        if (action == Action::ACT) {
            act(quotes, view, step, done);
        } else if (action == Action::EXIT) {
            cancel_quotes(done);
            close_position(view, position, step, done);
        } else if (action == Action::STOP) {
            cancel_oldest_first(done);
            if (!is_stopped_ && log_ != nullptr) log_->note(OrderNote::swept, {});
            is_stopped_ = true;
        } else if (action != Action::HOLD || pulls) {
            cancel_quotes(done);
        }
        return done;
    }

    // At the end of a run, when a fill may be on its way.
    std::int64_t cancel_all() {
        Actions done;
        cancel_oldest_first(done);
        return done.canceled;
    }

private:
    static constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::min();
    static constexpr std::int64_t kAlways = std::numeric_limits<std::int64_t>::max();
    static constexpr double kFar = std::numeric_limits<double>::infinity();

    void fold(const VenueFill& fill) {
        Working& working = fill.place == Place::bid ? bid_ : fill.place == Place::ask ? ask_ : exit_;
        OrderRecord& order = working.order;
        const double excess = order.filled_qty + fill.qty - order.qty;
        const double tolerance = kQtyRelTol * order.qty;
        disturb();
        order.avg_price += (fill.price - order.avg_price) * (fill.qty / (order.filled_qty + fill.qty));
        if (excess >= -tolerance) {
            order.filled_qty = order.qty;
            close(working, OrderEnd::filled);
        } else {
            order.filled_qty += fill.qty;
        }
        if (excess > tolerance) throw std::logic_error("the paper venue filled more than was ordered");
        if (limits_.post_fill_cooldown_ms != 0 && fill.place != Place::exit) {
            working.blocked_until_ms = now_ms_ + limits_.post_fill_cooldown_ms;
        }
    }

    void close(Working& working, OrderEnd how) {
        working.is_live = false;
        --open_count_;
        working.order.end = how;
        disturb();
        if (log_ != nullptr) log_->close(working.order);
    }

    // What `calm_` and the orders say, as bounds alone: those of a side that is off let nothing but 0 through.
    struct Bounds {
        std::int64_t until_ms = kNever;
        std::int64_t bid_young_until_ms = kNever;  // until then it is not replaced, wherever the quote is
        std::int64_t ask_young_until_ms = kNever;
        double bid_low, bid_high, bid_price;  // the quotes stay where the orders are
        double ask_low, ask_high, ask_price;
        double least_bid, most_bid, least_ask;  // they are sound, and of the same sides
        double least_gap, most_ask;
    };

    bool is_calm(bool is_sound, double bid, double ask, bool post_only, std::int64_t now_ms, const MarketView& view) const {
        const Bounds& b = bounds_;
        if (now_ms >= b.until_ms || post_only != calm_.post_only) return false;
        is_sound |= (b.least_bid <= bid) & (bid <= b.most_bid) & (ask - bid >= b.least_gap) & (ask <= b.most_ask);
        if (view.ask >= b.least_ask && is_sound) {
            return (now_ms < b.bid_young_until_ms || is_bid_within(bid, view)) &&
                   (now_ms < b.ask_young_until_ms || is_ask_within(ask, view));
        }
        return is_bid_within(bid, view) && is_ask_within(ask, view);
    }
    bool is_bid_within(double bid, const MarketView& view) const {
        return (bounds_.bid_low <= bid) & (bid < bounds_.bid_high) & (bounds_.bid_price < view.ask);
    }
    bool is_ask_within(double ask, const MarketView& view) const {
        return (bounds_.ask_low < ask) & (ask <= bounds_.ask_high) & (bounds_.ask_price > view.bid);
    }

    void act(Quotes q, const MarketView& view, std::int64_t step, Actions& done) {
        const bool has_bid = q.bid_quote != 0.0;
        const bool has_ask = q.ask_quote != 0.0;
        if (!has_bid && !has_ask) q = Quotes{};
        std::int64_t bid_ticks = 0;
        std::int64_t ask_ticks = 0;
        if (!put_on_grid(q, view, bid_ticks, ask_ticks)) {
            done.has_error = true;
            fault_ = {fault_.count + 1, q, view.bid, view.ask};
            return;
        }
        const bool may_send = !exit_.is_live;
        // Cancels go first, on both sides: a new bid must not meet our own old ask.
        const bool sends_bid = clear_way(bid_, true, has_bid, bid_ticks, may_send, done);
        const bool sends_ask = clear_way(ask_, false, has_ask, ask_ticks, may_send, done);
        if (sends_bid && !(ask_.is_live && bid_ticks >= ask_.order.ticks)) quote(bid_, true, bid_ticks, q, step, done);
        if (sends_ask && !(bid_.is_live && ask_ticks <= bid_.order.ticks)) quote(ask_, false, ask_ticks, q, step, done);
        note_calm(q);
    }

    // Put quotes on the grid, outward; post-only ones stay a tick off the best price of the other side.
    bool put_on_grid(const Quotes& q, const MarketView& view, std::int64_t& bid_ticks, std::int64_t& ask_ticks) const {
        const bool has_bid = q.bid_quote != 0.0;
        const bool has_ask = q.ask_quote != 0.0;
        if (has_bid && has_ask && q.bid_quote > q.ask_quote) return false;
        if (has_bid) {
            bid_ticks = instrument_.quote_ticks(q.bid_quote, true);
            if (q.post_only && view.ask > 0.0) bid_ticks = std::min(bid_ticks, instrument_.ceil_ticks(view.ask) - 1);
            if (bid_ticks < 1) return false;
        }
        if (has_ask) {
            ask_ticks = instrument_.quote_ticks(q.ask_quote, false);
            if (q.post_only && view.bid > 0.0) ask_ticks = std::max(ask_ticks, instrument_.floor_ticks(view.bid) + 1);
        }
        return !(has_bid && has_ask && bid_ticks >= ask_ticks);
    }

    // Take off the side's quote if it has to go; true when a new one is to be placed now.
    bool clear_way(Working& working, bool is_buy, bool is_wanted, std::int64_t ticks, bool may_send, Actions& done) {
        if (!is_wanted) {
            if (working.is_live) cancel(working, is_buy, done);
            return false;
        }
        if (!may_send || now_ms_ < working.blocked_until_ms) return false;
        if (!working.is_live) return true;
        const std::int64_t age_ms = now_ms_ - working.order.placed_ms;
        const auto moved = static_cast<double>(std::abs(ticks - working.order.ticks));
        const bool has_moved = moved >= min_requote_ticks_ && age_ms >= limits_.refresh_ms;
        const bool is_old = 0 < limits_.order_ttl_ms && limits_.order_ttl_ms < age_ms;
        if (!(has_moved || is_old) || !may_replace()) return false;
        cancel(working, is_buy, done);
        if (limits_.max_replacements_per_min != 0) replaced_ms_.push(now_ms_);
        return true;
    }

    bool may_replace() {
        return limits_.max_replacements_per_min == 0 || !replaced_ms_.is_full() ||
               now_ms_ - replaced_ms_.front() >= kMinuteMs;
    }

    void cancel(Working& working, bool is_buy, Actions& done) {
        if (!venue_.cancel(is_buy)) throw std::logic_error("the order keeper and the paper venue disagree");
        close(working, OrderEnd::canceled);
        if (log_ != nullptr) log_->note(OrderNote::canceled, working.order);
        ++done.canceled;
    }

    void cancel_quotes(Actions& done) {
        if (bid_.is_live) cancel(bid_, true, done);
        if (ask_.is_live) cancel(ask_, false, done);
    }

    void cancel_oldest_first(Actions& done) {
        const bool is_ask_older =
            ask_.is_live && bid_.is_live && ask_.order.venue_number < bid_.order.venue_number;
        if (is_ask_older) cancel(ask_, false, done);
        cancel_quotes(done);
    }

    void quote(Working& working, bool is_buy, std::int64_t ticks, const Quotes& q, std::int64_t step, Actions& done) {
        const double price = instrument_.price_from_ticks(ticks);
        const double qty = instrument_.qty_from_usd(q.size_usd, price);
        if (instrument_.is_below_minimum(price, qty)) {
            ++done.skipped;
            return;
        }
        const OrderRequest request = {is_buy ? Place::bid : Place::ask, is_buy, price, qty, q.post_only, step};
        note_sent(working, request, ticks, done);
        if (venue_.submit(request)) {
            working.order.venue_number = venue_.orders_seen();
        } else {
            refuse(working, done);
        }
    }

    void note_sent(Working& working, const OrderRequest& request, std::int64_t ticks, Actions& done) {
        working.is_live = true;
        ++open_count_;
        OrderRecord& order = working.order;
        order = OrderRecord{};
        order.place = request.place;
        order.is_buy = request.is_buy;
        order.post_only = request.post_only;
        order.price = request.price;
        order.qty = request.qty;
        order.ticks = ticks;
        order.placed_ms = now_ms_;
        order.step = request.step;
        disturb();
        if (log_ != nullptr) {
            log_->last_sent[request.is_buy ? 0 : 1] = request.step;
            log_->note(OrderNote::submitted, order);
        }
        ++done.submitted;
    }

    void refuse(Working& working, Actions& done) {
        close(working, OrderEnd::rejected);
        if (log_ != nullptr) log_->note(OrderNote::rejected, working.order);
        working.blocked_until_ms = now_ms_ + limits_.refresh_ms;
        ++done.rejected;
    }

    void close_position(const MarketView& view, double position, std::int64_t step, Actions& done) {
        if (exit_.is_live) return;  // closing already
        const double qty = instrument_.round_qty(std::fabs(position));
        const bool is_buy = !(position > 0.0);
        const double best = is_buy ? view.ask : view.bid;
        if (qty <= 0.0 || now_ms_ < exit_.blocked_until_ms || !(best > 0.0)) return;
        // A quote rounds outward; what has to trade rounds the other way.
        const std::int64_t ticks = std::max<std::int64_t>(1, instrument_.quote_ticks(best, !is_buy));
        const double price = instrument_.price_from_ticks(ticks);
        const OrderRequest request = {Place::exit, is_buy, price, qty, false, step};
        note_sent(exit_, request, ticks, done);
        exit_.lookup_ms = now_ms_ + std::max(limits_.refresh_ms, kMinLookupMs);
        if (venue_.submit_exit(request)) {
            exit_.order.venue_number = venue_.orders_seen();
        } else {
            refuse(exit_, done);
        }
    }

    // Work out within which bounds, and until when, an ACT changes nothing.
    void note_calm(const Quotes& q) {
        // Bounds of an earlier ACT say nothing of these sides.
        disturb();
        calm_.is_bid_off = q.bid_quote == 0.0;
        calm_.is_ask_off = q.ask_quote == 0.0;
        // A side that waits for a cooldown may have to be acted on at the next step.
        if (calm_.is_bid_off == bid_.is_live || calm_.is_ask_off == ask_.is_live) return;
        const double reach = min_requote_ticks_;
        const double edge = kEdgeTicks * instrument_.tick_size;
        std::int64_t oldest_ms = kAlways;
        if (bid_.is_live) {
            const auto ticks = static_cast<double>(bid_.order.ticks);
            calm_.bid_low = price_of(std::floor(ticks - reach) + 1.0);
            calm_.bid_high = price_of(std::ceil(ticks + reach)) - edge;
            oldest_ms = bid_.order.placed_ms;
        }
        if (ask_.is_live) {
            const auto ticks = static_cast<double>(ask_.order.ticks);
            calm_.ask_low = price_of(std::floor(ticks - reach)) + edge;
            calm_.ask_high = price_of(std::ceil(ticks + reach) - 1.0);
            oldest_ms = std::min(oldest_ms, ask_.order.placed_ms);
        }
        calm_.post_only = q.post_only;
        const bool ages = limits_.order_ttl_ms != 0 && oldest_ms != kAlways;
        calm_.until_ms = ages ? oldest_ms + limits_.order_ttl_ms : kAlways;
        note_bounds();
    }

    void note_bounds() {
        const double tick = instrument_.tick_size;
        const Calm& c = calm_;
        Bounds& b = bounds_;
        b.until_ms = c.until_ms;
        b.bid_young_until_ms = c.is_bid_off ? kAlways : bid_.order.placed_ms + limits_.refresh_ms;
        b.ask_young_until_ms = c.is_ask_off ? kAlways : ask_.order.placed_ms + limits_.refresh_ms;
        b.bid_low = c.is_bid_off ? 0.0 : c.bid_low;
        b.bid_high = c.is_bid_off ? std::numeric_limits<double>::denorm_min() : c.bid_high;
        b.bid_price = c.is_bid_off ? -kFar : bid_.order.price;
        b.ask_low = c.is_ask_off ? -std::numeric_limits<double>::denorm_min() : c.ask_low;
        b.ask_high = c.is_ask_off ? 0.0 : c.ask_high;
        b.ask_price = c.is_ask_off ? kFar : ask_.order.price;
        b.least_bid = c.is_bid_off ? 0.0 : 2.0 * tick;
        b.most_bid = c.is_bid_off ? 0.0 : kFar;
        b.least_ask = c.is_bid_off ? -kFar : 3.0 * tick;
        // A quarter of a tick between the quotes is a whole one when they are on the grid: it takes them apart.
        b.least_gap = c.is_ask_off ? -kFar : tick / 4.0;
        b.most_ask = c.is_ask_off ? 0.0 : kFar;
    }

    void disturb() { calm_.until_ms = bounds_.until_ms = kNever; }

    double price_of(double ticks) const { return instrument_.price_from_ticks(static_cast<std::int64_t>(ticks)); }

    PaperVenue& venue_;
    const Instrument& instrument_;
    QuotingLimits limits_;
    double min_requote_ticks_;
    BoundedQueue<std::int64_t> replaced_ms_;
    std::int64_t now_ms_ = 0;
    QuoteFault fault_;
    Working bid_;
    Working ask_;
    Working exit_;
    std::int64_t open_count_ = 0;

    bool is_stopped_ = false;
    OrderLog* log_ = nullptr;
    Calm calm_;
    Bounds bounds_{};
};

}  // namespace ami
