// A simulated venue for one market, without latency: sim/paper_broker.py and its parts, spelled for the compiled loop.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "ami/exact_decimal.hpp"
#include "ami/instrument.hpp"
#include "ami/order_log.hpp"
#include "ami/select.hpp"

namespace ami {

// How much is ahead of an order that joins a displayed level.
enum class Queue : int { back, front, prob };

// What an order asks for, and where it comes from. `step` is the number of the decision, part of the order's id.
struct OrderRequest {
    Place place;
    bool is_buy;
    double price;
    double qty;
    bool post_only;
    std::int64_t step;
};

struct VenueFill {
    Place place;
    bool is_buy;
    bool is_maker;
    double price;
    double qty;
    double fee;
    std::int64_t ts_ns;
    std::int64_t step;
};

// What the market shows: best prices, and the levels of the last book where it was a whole one.
struct MarketView {
    double bid = 0.0;
    double ask = 0.0;
    double bid_size = 0.0;
    double ask_size = 0.0;
};

// How the last book event may be asked for the size at a price other than the best.
enum class BookImage : std::int64_t {
    none = 0,     // a delta, a ticker, a bar: nobody says
    whole = 1,    // every level of the event is in the table
    cut = 2,      // the event had more levels than the table
    unknown = 3,  // the event's levels are not in the table
    on_call = 4,  // every level of the event, read when one is asked for
};

struct BookLevels {
    const double* bids = nullptr;  // (price, size) pairs, padded with NaN
    const double* asks = nullptr;
    std::size_t bid_count = 0;
    std::size_t ask_count = 0;
    BookImage image = BookImage::none;
};

struct BarRange {
    double open;
    double high;
    double low;
    double close;
    double volume;
};

// Who reads the levels of the last book when a `BookImage` is `on_call`.
class LevelSource {
public:
    virtual ~LevelSource() = default;
    virtual BookLevels load() = 0;
};

// One of our orders as the venue keeps it.
struct VenueOrder {
    // What is not filled yet, as a decimal; read when it is first needed.
    Decimal& leaves() {
        if (!has_leaves) left = Decimal::from_double(request.qty, qty_places);
        has_leaves = true;
        return left;
    }

    bool is_open = false;
    bool is_reducing = false;
    bool takes = false;
    bool has_leaves = false;
    OrderRequest request{};
    double low = 0.0;  // bounds of what counts as the order's own price
    double high = 0.0;
    double ahead = std::numeric_limits<double>::infinity();  // size before us at the price; infinite while unknown
    double shown = -1.0;                                     // size last displayed there; negative when not seen
    double traded = 0.0;                                     // what trades took since
    std::int64_t number = 0;                                 // of the orders that came, this one
    int qty_places = -1;                                     // that its sizes most likely have
    Decimal left;
};

class PaperVenue {
public:
    // `draws` are the uniform numbers of the "prob" queue, in their order.
    PaperVenue(const Instrument& instrument, bool on_grid, Queue queue, const double* draws, std::size_t draw_count)
        : instrument_(instrument),
          on_grid_(on_grid),
          queue_(queue),
          draws_(draws),
          draw_count_(draw_count),
          price_places_(Decimal::places_of(instrument.tick_size)),
          qty_places_(Decimal::places_of(on_grid ? instrument.lot_size : 0.0)),
          multiplier_(Decimal::from_double(instrument.multiplier)),
          lot_(Decimal::from_double(on_grid ? instrument.lot_size : 0.0)),
          maker_fee_(fraction_of(instrument.maker_fee_bps)),
          taker_fee_(fraction_of(instrument.taker_fee_bps)) {}

    // Events, in their order. Whatever they fill waits in `fills`.
    void on_book(std::int64_t now_ns, const MarketView& view, const BookLevels& levels) {
        see(now_ns, view);
        levels_ = levels;
        if (has_orders()) match_best();
    }
    // A book of best prices in a run that has neither trades nor bars: our place in the queue matters to nobody then.
    void on_quote(std::int64_t now_ns, const MarketView& view) {
        see(now_ns, view);
        levels_.image = BookImage::whole;
        if (queue_ == Queue::prob) {
            if (has_orders()) match_best();
            return;
        }
        const bool is_buy_reached = buy_.is_open && reaches_buy(buy_);
        const bool is_sell_reached = sell_.is_open && reaches_sell(sell_);
        buy_.takes &= is_buy_reached;
        sell_.takes &= is_sell_reached;
        if (is_buy_reached || is_sell_reached) meet_reached();
    }
    void on_trade(std::int64_t now_ns, const MarketView& view, double price, double size, std::int64_t aggressor) {
        see(now_ns, view);
        if (!has_orders()) return;
        match_trade(price, size, aggressor);
        match_best();
    }
    void on_bar(std::int64_t now_ns, const MarketView& view, const BarRange& bar) {
        see(now_ns, view);
        levels_ = BookLevels{};
        if (has_orders()) match_bar(bar);
    }

    // Place a quote; false when the venue refuses it.
    bool submit(const OrderRequest& request) {
        if (is_open(request.is_buy)) throw std::logic_error("the order keeper and the paper venue disagree");
        if (!is_well_formed(request)) return note_malformed();
        Order& order = request.is_buy ? buy_ : sell_;
        const Order& other = request.is_buy ? sell_ : buy_;
        make(order, request);
        if (meets(other, order)) return refuse(order, Refusal::own_order);
        if (request.post_only && reaches(order)) return refuse(order, Refusal::would_take);
        order.is_open = true;
        if (reaches(order)) {
            order.takes = true;
            take_best(order);
        }
        if (order.is_open) rest(order);
        return true;
    }

    // Close a position at once, as far as the best price goes: immediate or cancel, reduce-only. False when refused.
    bool submit_exit(const OrderRequest& request) {
        if (!is_well_formed(request)) return note_malformed();
        Order order;
        make(order, request);
        const Order& other = request.is_buy ? sell_ : buy_;
        if (reducible(request.is_buy).is_zero()) return refuse(order, Refusal::nothing_to_reduce);
        if (meets(other, order)) return refuse(order, Refusal::own_order);
        order.is_open = true;
        order.is_reducing = true;
        if (reaches(order)) take_best(order);
        if (order.is_open) end(order, OrderEnd::expired);
        return true;
    }

    // True when there was something to cancel.
    bool cancel(bool is_buy) {
        Order& order = is_buy ? buy_ : sell_;
        if (!order.is_open) return false;
        end(order, OrderEnd::canceled);
        return true;
    }
    bool is_open(bool is_buy) const { return (is_buy ? buy_ : sell_).is_open; }

    // For a run that may be handed over: orders that end go into the log, and cash is counted.
    void keep_books(OrderLog& log, LevelSource& levels) {
        log_ = &log;
        level_source_ = &levels;
    }
    void use_draws(const double* draws, std::size_t count) {
        draws_ = draws;
        draw_count_ = count;
        next_draw_ = 0;
    }
    std::size_t draws_left() const { return draw_count_ - next_draw_; }
    std::size_t draws_used() const { return next_draw_; }
    std::int64_t now_ns() const { return now_ns_; }
    std::int64_t orders_seen() const { return orders_seen_; }
    const MarketView& view() const { return view_; }
    const Decimal& taken(bool is_buy) const { return is_buy ? ask_taken_ : bid_taken_; }
    const Decimal& position() const { return position_; }
    const Decimal& cash_flow() const { return cash_flow_; }
    VenueOrder& order(bool is_buy) { return is_buy ? buy_ : sell_; }

    std::vector<VenueFill> fills;  // not yet reported

private:
    static constexpr double kInfinity = std::numeric_limits<double>::infinity();

    using Order = VenueOrder;

    static Decimal least(const Decimal& a, const Decimal& b) { return Decimal::compare(a, b) <= 0 ? a : b; }
    static Decimal minus(const Decimal& a, const Decimal& b) { return Decimal::subtract(a, b); }

    // Over an order that has ended: most of what it held need not be touched.
    void make(Order& order, const OrderRequest& request) {
        const double margin = same_price(request.price);
        order.is_open = order.is_reducing = order.takes = order.has_leaves = false;
        order.request = request;
        order.qty_places = qty_places_;
        order.low = request.price - margin;
        order.high = request.price + margin;
        order.ahead = kInfinity;
        order.shown = -1.0;
        order.traded = 0.0;
        order.number = ++orders_seen_;
    }

    // True when a new order would trade with our own.
    static bool meets(const Order& ours, const Order& fresh) {
        return ours.is_open && (fresh.request.is_buy ? ours.low <= fresh.high : ours.high >= fresh.low);
    }

    bool note_malformed() {
        if (log_ != nullptr) log_->refusal = Refusal{};
        return false;
    }

    bool refuse(Order& order, Refusal::Why why) {
        end(order, OrderEnd::rejected);
        if (log_ == nullptr) return false;
        const Order& other = order.request.is_buy ? sell_ : buy_;
        Refusal& refusal = log_->refusal;
        refusal.why = why;
        refusal.held = position_.to_double();
        refusal.own.is_buy = !order.request.is_buy;
        refusal.own.price = other.request.price;
        refusal.own.step = other.request.step;
        refusal.best = order.request.is_buy ? view_.ask : view_.bid;
        return false;
    }

    void end(Order& order, OrderEnd how) {
        order.is_open = false;
        if (log_ == nullptr) return;
        const OrderRequest& asked = order.request;
        OrderRecord record;
        record.place = asked.place;
        record.is_buy = asked.is_buy;
        record.post_only = asked.post_only;
        record.end = how;
        record.price = asked.price;
        record.qty = asked.qty;
        record.filled_qty = minus(Decimal::from_double(asked.qty), order.leaves()).to_double();
        record.step = asked.step;
        record.venue_number = order.number;
        log_->end(record);
    }

    bool has_orders() const { return buy_.is_open || sell_.is_open; }

    double same_price(double price) const {
        return on_grid_ ? instrument_.tick_size * kSameTicks : std::fabs(price) * kSameFrac;
    }

    bool is_well_formed(const OrderRequest& request) const {
        const double price = request.price;
        const double qty = request.qty;
        if (!(std::isfinite(price) && price > 0.0 && std::isfinite(qty) && qty > 0.0)) return false;
        if (!on_grid_) return true;
        if (std::fabs(price - instrument_.price_from_ticks(instrument_.ticks(price))) > same_price(price)) return false;
        if (instrument_.lot_size != 0.0 && std::fabs(instrument_.round_qty(qty) - qty) > 1e-9 * qty) return false;
        if (request.place == Place::exit) return true;
        return qty >= instrument_.min_qty && instrument_.notional(price, qty) >= instrument_.min_notional;
    }

    void see(std::int64_t now_ns, const MarketView& view) {
        if (now_ns > now_ns_) now_ns_ = now_ns;
        if (!ask_taken_.is_zero()) renew(ask_taken_, view_.ask, view_.ask_size, view.ask, view.ask_size);
        if (!bid_taken_.is_zero()) renew(bid_taken_, view_.bid, view_.bid_size, view.bid, view.bid_size);
        view_ = view;
    }

    // Give back displayed size that we took: a change of either kind gives back as much.
    static void renew(Decimal& taken, double price, double size, double next_price, double next_size) {
        if (next_price != price) {
            taken = Decimal();
        } else if (next_size != size) {
            // Doubles tell, but for the last digits.
            const double change = std::fabs(next_size - size);
            if (change > taken.to_double() * (1.0 + 1e-9) + 1e-14 * (next_size + size)) {
                taken = Decimal();
                return;
            }
            const Decimal left = minus(taken, minus(Decimal::from_double(next_size), Decimal::from_double(size)).abs());
            taken = left.is_positive() ? left : Decimal();
        }
    }

    bool reaches(const Order& order) const { return order.request.is_buy ? reaches_buy(order) : reaches_sell(order); }
    bool reaches_buy(const Order& order) const { return view_.ask <= order.high && 0.0 < view_.ask; }
    bool reaches_sell(const Order& order) const { return view_.bid >= order.low && view_.bid > 0.0; }

    void rest(Order& order) {
        const double displayed = displayed_size(order);
        order.ahead = queue_ == Queue::front ? 0.0 : displayed;
        order.shown = displayed < kInfinity ? displayed : -1.0;
    }

    // The size that others display at the order's price; infinite when nobody says.
    double displayed_size(const Order& order) {
        const bool is_buy = order.request.is_buy;
        const double best = is_buy ? view_.bid : view_.ask;
        if (order.low <= best && best <= order.high) return is_buy ? view_.bid_size : view_.ask_size;
        if (best == 0.0 || (is_buy ? best < order.low : best > order.high)) return 0.0;
        if (levels_.image == BookImage::none) return kInfinity;
        if (levels_.image == BookImage::on_call) levels_ = level_source_->load();
        const double* levels = is_buy ? levels_.bids : levels_.asks;
        const std::size_t most = is_buy ? levels_.bid_count : levels_.ask_count;
        double last = 0.0;
        std::size_t count = 0;
        for (; levels != nullptr && count < most && !is_padding(levels + 2 * count); ++count) {
            last = levels[2 * count];
            if (levels_.image != BookImage::unknown && order.low <= last && last <= order.high) {
                return levels[2 * count + 1];
            }
        }
        // Between two displayed levels nobody rests; below the last one nobody knows.
        if (count > 0 && levels_.image != BookImage::unknown &&
            (is_buy ? order.request.price > last : order.request.price < last)) {
            return 0.0;
        }
        if (levels_.image == BookImage::cut || levels_.image == BookImage::unknown) {
            throw std::out_of_range("an order was placed beyond the levels that the table holds: make it with more");
        }
        return kInfinity;
    }

    static bool is_padding(const double* level) { return std::isnan(level[0]) && std::isnan(level[1]); }

    double advance(double ahead, double before, double displayed, double traded) {
        if (queue_ == Queue::front) return 0.0;
        if (queue_ == Queue::prob) {
            const double canceled = before - traded - displayed;
            if (canceled > 0.0 && 0.0 < ahead && ahead <= before && draw() * (before - traded) < ahead) {
                ahead = ahead - canceled > 0.0 ? ahead - canceled : 0.0;
            }
        }
        return ahead < displayed ? ahead : displayed;
    }

    double draw() {
        if (next_draw_ == draw_count_) throw std::out_of_range("the random numbers of the queue are used up");
        return draws_[next_draw_++];
    }

    void keep_place(Order& order, double displayed) {
        if (displayed == order.shown) return;
        order.ahead = advance(order.ahead, order.shown, displayed, order.traded);
        order.shown = displayed;
        order.traded = 0.0;
    }

    void match_best() {
        bool is_reached = false;
        if (buy_.is_open) {
            if (reaches_buy(buy_)) {
                is_reached = true;
            } else {
                const bool is_better = view_.bid < buy_.low;
                wait(buy_, is_better, !is_better & (view_.bid <= buy_.high), view_.bid_size);
            }
        }
        if (sell_.is_open) {
            if (reaches_sell(sell_)) {
                is_reached = true;
            } else {
                const bool is_better = (view_.ask > sell_.high) | (view_.ask == 0.0);
                wait(sell_, is_better, !is_better & (view_.ask >= sell_.low), view_.ask_size);
            }
        }
        if (is_reached) meet_reached();
    }

    // An order stays where it is: alone where its price is better than the best, else in its place there, or unseen.
    void wait(Order& order, bool is_better, bool is_best, double displayed) {
        order.takes = false;
        if (queue_ != Queue::back) {
            if (is_better) order.ahead = 0.0;
            if (is_best) keep_place(order, displayed);
            return;
        }
        // What is ahead is never more than what was last shown: of an unchanged display, the less of both is the same.
        const double most = value_if(!is_better, choose(is_best, displayed, kInfinity));
        order.ahead = order.ahead < most ? order.ahead : most;
        if (order.traded > 0.0 && is_best && displayed != order.shown) order.traded = 0.0;
        order.shown = choose(is_best, displayed, order.shown);
    }

    [[gnu::noinline]] void meet_reached() {
        if (buy_.is_open && reaches(buy_)) meet(buy_);
        if (sell_.is_open && reaches(sell_)) meet(sell_);
    }

    // Fill an order that the opposite best reached.
    void meet(Order& order) {
        order.ahead = 0.0;
        if (order.takes) {
            take_best(order);
            return;
        }
        const bool is_through = order.request.is_buy ? view_.ask < order.low : view_.bid > order.high;
        if (is_through) {
            execute(order, Decimal(order.leaves()), order.request.price, true);
        } else {
            const Decimal qty = available(order);
            if (!qty.is_zero()) take(order, execute(order, qty, order.request.price, true));
        }
    }

    void take_best(Order& order) {
        const Decimal qty = available(order);
        if (!qty.is_zero()) take(order, execute(order, qty, order.request.is_buy ? view_.ask : view_.bid, false));
    }

    // How much of an order the opposite best can fill: displayed and not yet taken. Any size where none is displayed.
    Decimal available(Order& order) const {
        const double size = order.request.is_buy ? view_.ask_size : view_.bid_size;
        if (size == 0.0) return order.leaves();
        const Decimal& taken = order.request.is_buy ? ask_taken_ : bid_taken_;
        // Doubles stand in the same order as their shortest decimals.
        if (taken.is_zero() && size > order.request.qty) return executable(order, order.leaves());
        const Decimal shown = minus(Decimal::from_double(size), taken);
        const Decimal qty = least(order.leaves(), shown);
        return qty.is_positive() ? executable(order, qty) : Decimal();
    }

    void take(const Order& order, const Decimal& qty) {
        Decimal& taken = order.request.is_buy ? ask_taken_ : bid_taken_;
        taken = Decimal::add(taken, qty);
    }

    // What is executed of an order, rounded down to the lot; where there is none, no crumb of it is left.
    Decimal executable(Order& order, const Decimal& qty) const {
        if (!lot_.is_zero()) return Decimal::multiply(Decimal::divide_whole(qty, lot_), lot_);
        if (Decimal::compare(qty, order.leaves()) >= 0) return order.leaves();
        const Decimal unit(false, BigUint(1), Instrument::fill_exponent(order.request.qty));
        Decimal whole = Decimal::multiply(Decimal::divide_whole(qty, unit), unit);
        if (Decimal::compare(minus(order.leaves(), whole), unit) < 0) whole = minus(whole, unit);
        return whole.is_positive() ? whole : Decimal();
    }

    void match_trade(double price, double size, std::int64_t aggressor) {
        if (buy_.is_open && price <= buy_.high) {
            if (price < buy_.low) {
                fill_from(buy_, Decimal::from_double(size));
            } else if (aggressor <= 0) {
                fill_at_price(buy_, size);
            }
        } else if (sell_.is_open && price >= sell_.low) {
            if (price > sell_.high) {
                fill_from(sell_, Decimal::from_double(size));
            } else if (aggressor >= 0) {
                fill_at_price(sell_, size);
            }
        }
    }

    // A print at the order's price takes what is ahead, then fills us.
    void fill_at_price(Order& order, double size) {
        order.traded += size;
        if (order.ahead >= size) {
            order.ahead -= size;
            return;
        }
        const Decimal behind = minus(Decimal::from_double(size), Decimal::from_double(order.ahead));
        order.ahead = 0.0;
        fill_from(order, behind);
    }

    // Fill an order from a traded size, at its own price; return what is left of the size.
    Decimal fill_from(Order& order, const Decimal& size) {
        const Decimal qty = executable(order, least(size, order.leaves()));
        return minus(size, execute(order, qty, order.request.price, true));
    }

    void match_bar(const BarRange& bar) {
        // A bar without a volume fills any size: more than any order.
        Decimal left = bar.volume > 0.0 ? Decimal::from_double(bar.volume) : Decimal(false, BigUint(1), 100);
        Order* order = bar.close >= bar.open ? &buy_ : &sell_;
        for (int i = 0; i < 2; ++i, order = order == &buy_ ? &sell_ : &buy_) {
            if (!order->is_open) continue;
            const double extreme = order->request.is_buy ? bar.low : bar.high;
            const bool is_through = order->request.is_buy ? extreme < order->low : extreme > order->high;
            const bool is_touched = order->low <= extreme && extreme <= order->high && order->ahead == 0.0;
            if (is_through || is_touched) left = fill_from(*order, left);
        }
    }

    // How much of the position an order of that side can close.
    Decimal reducible(bool is_buy) const { return position_.is_negative() == is_buy ? position_.abs() : Decimal(); }

    // Execute up to `qty` of an order and book it; return what was executed.
    Decimal execute(Order& order, Decimal qty, double price, bool is_maker) {
        const OrderRequest& request = order.request;
        if (order.is_reducing) qty = least(qty, reducible(request.is_buy));
        if (!qty.is_positive()) return {};
        const Decimal paid = Decimal::from_double(price, price_places_);
        const Decimal fee = fee_of(paid, qty, is_maker);
        if (log_ != nullptr) {
            const Decimal value = Decimal::multiply(Decimal::multiply(qty, multiplier_), paid);
            cash_flow_ = minus(Decimal::add(cash_flow_, request.is_buy ? value.negated() : value), fee);
        }
        position_ = Decimal::add(position_, request.is_buy ? qty : qty.negated());
        order.leaves() = minus(order.leaves(), qty);
        fills.push_back(
            {request.place, request.is_buy, is_maker, price, qty.to_double(), fee.to_double(), now_ns_, request.step});
        if (order.leaves().is_zero()) end(order, OrderEnd::filled);
        return qty;
    }

    Decimal fee_of(const Decimal& price, const Decimal& qty, bool is_maker) const {
        const Decimal& fraction = is_maker ? maker_fee_ : taker_fee_;
        if (fraction.is_zero()) return {};
        if (instrument_.multiplier == 1.0 && !instrument_.is_inverse) {
            return Decimal::multiply(Decimal::multiply(qty, price), fraction);
        }
        const Decimal size = Decimal::multiply(qty, multiplier_);
        if (!instrument_.is_inverse) return Decimal::multiply(Decimal::multiply(size, price), fraction);
        // A coin amount is rounded to the smallest unit that any coin has, its fee once more.
        const Decimal coins = Decimal::divide(size, price, 300).quantized(kCoinExponent);
        return Decimal::multiply(coins, fraction).quantized(kCoinExponent);
    }

    static Decimal fraction_of(double bps) {
        return Decimal::multiply(Decimal::from_double(bps), Decimal(false, BigUint(1), -4));
    }

    static constexpr int kCoinExponent = -18;

    Instrument instrument_;
    bool on_grid_;
    Queue queue_;
    const double* draws_;
    std::size_t draw_count_;
    std::size_t next_draw_ = 0;
    int price_places_;
    int qty_places_;
    Decimal multiplier_;
    Decimal lot_;  // 0: sizes are not rounded
    Decimal maker_fee_;
    Decimal taker_fee_;
    std::int64_t now_ns_ = 0;
    MarketView view_;
    BookLevels levels_;
    Decimal bid_taken_;
    Decimal ask_taken_;
    Decimal position_;
    Decimal cash_flow_;  // into the account since the start; of linear markets whose books are kept
    std::int64_t orders_seen_ = 0;
    OrderLog* log_ = nullptr;
    LevelSource* level_source_ = nullptr;
    Order buy_;
    Order sell_;
};

}  // namespace ami
