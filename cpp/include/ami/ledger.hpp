// The money of one market: portfolio/positions.py and portfolio/pnl.py, spelled for the compiled loop.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "ami/exact_decimal.hpp"
#include "ami/instrument.hpp"

namespace ami {

struct FillResult {
    double realized = 0.0;
    bool is_opened = false;
    bool is_closed = false;
    double trip_pnl = 0.0;
};

// Position, cost and profit in decimals of 50 digits.
class Position {
public:
    explicit Position(const Instrument& instrument)
        : is_inverse_(instrument.is_inverse),
          is_unit_(instrument.multiplier == 1.0),
          price_places_(Decimal::places_of(instrument.tick_size)),
          qty_places_(Decimal::places_of(instrument.lot_size)),
          fee_places_(fee_places(instrument)),
          multiplier_(Decimal::from_double(instrument.multiplier)) {}

    FillResult fold(bool is_buy, double price_value, double qty_value, double fee_value) {
        const Decimal size = Decimal::from_double(qty_value, qty_places_);
        const Decimal signed_qty = is_buy ? size : size.negated();
        const Decimal price = Decimal::from_double(price_value, price_places_);
        const Decimal fee = Decimal::from_double(fee_value, fee_places_);
        FillResult result;
        result.is_opened = qty_.is_zero();
        if (qty_.is_zero() || qty_.is_positive() == signed_qty.is_positive()) {
            trip_pnl_ = minus(trip_pnl_, fee);
            open(signed_qty, price);
        } else {
            result.is_opened = close(signed_qty, price, fee, result);
            // A sum that began at nothing is never a negative zero.
            realized_view_ = realized_.to_double() + 0.0;
        }
        fees_ = plus(fees_, fee);
        qty_view_ = qty_.to_double();
        average_view_ = average_price();
        fees_view_ = fees_.to_double() + 0.0;
        return result;
    }

    double qty() const { return qty_view_; }
    double avg_price() const { return average_view_; }
    double realized() const { return realized_view_; }
    double fees() const { return fees_view_; }
    const Decimal& exact_qty() const { return qty_; }
    const Decimal& exact_cost() const { return cost_; }
    const Decimal& exact_realized() const { return realized_; }
    const Decimal& exact_fees() const { return fees_; }
    const Decimal& exact_trip_pnl() const { return trip_pnl_; }

private:
    static constexpr std::size_t kDigits = 50;

    // One copy of each: code that runs at a fill puts code that runs at every event out of the processor's cache.
    [[gnu::noinline]] static Decimal plus(const Decimal& a, const Decimal& b) {
        Decimal sum = Decimal::add(a, b);
        sum.round(kDigits);
        return sum;
    }
    [[gnu::noinline]] static Decimal minus(const Decimal& a, const Decimal& b) {
        Decimal difference = Decimal::subtract(a, b);
        difference.round(kDigits);
        return difference;
    }
    [[gnu::noinline]] static Decimal times(const Decimal& a, const Decimal& b) {
        Decimal product = Decimal::multiply(a, b);
        product.round(kDigits);
        return product;
    }
    static Decimal over(const Decimal& a, const Decimal& b) { return Decimal::divide(a, b, kDigits); }

    int fee_places(const Instrument& instrument) const {
        const int bps = std::max(Decimal::places_of(std::fabs(instrument.maker_fee_bps)),
                                 Decimal::places_of(std::fabs(instrument.taker_fee_bps)));
        return qty_places_ < 0 || bps < 0 ? -1 : price_places_ + qty_places_ + bps + 4;
    }

    Decimal value(const Decimal& qty, const Decimal& price) const {
        if (is_unit_ && !is_inverse_) return times(qty, price);
        const Decimal size = times(qty, multiplier_);
        return is_inverse_ ? over(size.negated(), price) : times(size, price);
    }

    void open(const Decimal& signed_qty, const Decimal& price) {
        cost_ = plus(cost_, value(signed_qty, price));
        qty_ = plus(qty_, signed_qty);
    }

    // Close of the position what the fill is enough for, and open another with what is left of it: true when there is.
    bool close(const Decimal& signed_qty, const Decimal& price, const Decimal& fee, FillResult& result) {
        const int order = Decimal::compare(signed_qty.abs(), qty_.abs());
        const Decimal closing = order < 0 ? signed_qty : qty_.negated();
        const Decimal kept = order < 0 ? plus(qty_, closing) : Decimal();
        const Decimal left = order < 0 ? over(times(cost_, kept), qty_) : Decimal();
        const Decimal realized = minus(value(closing, price).negated(), minus(cost_, left));
        // Of a fill that only closes, the whole fee: its share of it is exact.
        const Decimal closing_fee = order <= 0 ? fee : over(times(fee, closing), signed_qty);
        cost_ = left;
        qty_ = kept;
        result.is_closed = order >= 0;
        trip_pnl_ = minus(plus(trip_pnl_, realized), closing_fee);
        realized_ = plus(realized_, realized);
        result.realized = realized.to_double();
        if (!result.is_closed) return false;
        result.trip_pnl = trip_pnl_.to_double();
        trip_pnl_ = order == 0 ? Decimal() : minus(Decimal(), minus(fee, closing_fee));
        if (order == 0) return false;
        open(minus(signed_qty, closing), price);
        return true;
    }

    double average_price() const {
        if (qty_.is_zero()) return 0.0;
        if (is_unit_ && !is_inverse_) return Decimal::divide_to_double(cost_, qty_, kDigits);
        const Decimal size = times(qty_, multiplier_);
        return is_inverse_ ? Decimal::divide_to_double(size.negated(), cost_, kDigits)
                           : Decimal::divide_to_double(cost_, size, kDigits);
    }

    bool is_inverse_;
    bool is_unit_;  // a multiplier of 1 changes nothing
    int price_places_;  // that fills most likely have
    int qty_places_;
    int fee_places_;
    Decimal multiplier_;
    Decimal qty_;
    Decimal cost_;
    Decimal realized_;
    Decimal fees_;
    Decimal trip_pnl_;
    double qty_view_ = 0.0;
    double average_view_ = 0.0;
    double realized_view_ = 0.0;
    double fees_view_ = 0.0;
};

// Equity, drawdown and exposure at the last mark, in doubles.
class Account {
public:
    Account(const Instrument& instrument, double cash)
        : equity(cash), peak(cash), position(instrument), instrument_(instrument), start_(cash), settled_(cash) {}

    double equity;
    double peak;
    double unrealized = 0.0;
    double max_drawdown = 0.0;
    double exposure_usd = 0.0;
    std::int64_t open_count = 0;
    std::int64_t close_count = 0;
    Position position;

    double drawdown() const { return peak - equity; }
    double last_mark() const { return mark_; }

    FillResult apply(bool is_buy, double price, double qty, double fee) {
        const FillResult result = position.fold(is_buy, price, qty, fee);
        open_count += result.is_opened ? 1 : 0;
        close_count += result.is_closed ? 1 : 0;
        settled_ = start_ + position.realized() - position.fees();
        if (position.qty() == 0.0) unrealized = exposure_usd = 0.0;
        size_ = position.qty() * instrument_.multiplier;
        mark(mark_ > 0.0 ? mark_ : price);
        return result;
    }

    // `price` is above 0.
    void mark(double price) {
        mark_ = price;
        if (position.qty() != 0.0) {
            unrealized = unrealized_at(price);
            exposure_usd = exposure_at(price);
        }
        equity = equity_with(unrealized);
        peak = equity > peak ? equity : peak;
        const double fall = peak - equity;
        max_drawdown = fall > max_drawdown ? fall : max_drawdown;
    }

    // What a mark at `price` makes of a position that is open.
    double unrealized_at(double price) const {
        const double average = position.avg_price();
        return instrument_.is_inverse ? size_ * (price - average) / (average * price) : size_ * (price - average);
    }
    double exposure_at(double price) const { return std::fabs(size_) * (instrument_.is_inverse ? 1.0 : price); }
    double equity_with(double unrealized_profit) const { return settled_ + unrealized_profit; }
    // About the price at which a position in a linear market is worth so much.
    double mid_of(double equity_there) const { return position.avg_price() + (equity_there - settled_) / size_; }

private:
    const Instrument& instrument_;
    double start_;
    double settled_;  // start + realized − fees: moves only with fills
    double mark_ = 0.0;
    double size_ = 0.0;  // position × multiplier
};

}  // namespace ami
