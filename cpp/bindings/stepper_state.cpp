// What a stepper remembers, as the Python parts take it over.
#include "stepper.hpp"

namespace stepping {

namespace {

template <class List>
nb::list listed(const List& values) {
    nb::list list;
    for (const auto value : values) list.append(value);
    return list;
}

template <class Queue>
nb::list queued(const Queue& queue) {
    nb::list list;
    for (std::size_t i = 0; i < queue.size(); ++i) list.append(queue[i]);
    return list;
}

nb::tuple fill_tuple(const ami::VenueFill& f, std::size_t place) {
    return nb::make_tuple(place, static_cast<int>(f.place), f.is_buy, f.is_maker, f.price, f.qty, f.fee, f.ts_ns, f.step);
}

}  // namespace

nb::dict Stepper::counts() {
    core_.count_codes();
    const ami::LoopCounts& counts = core_.counts;
    nb::dict d;
    d["steps"] = counts.steps;
    d["timers"] = counts.timers;
    d["fill_count"] = fills_dropped_ + core_.fills.size();
    d["submitted"] = counts.submitted;
    d["canceled"] = counts.canceled;
    d["rejected"] = counts.rejected;
    d["skipped"] = counts.skipped;
    d["errors"] = counts.errors;
    d["actions"] = listed(counts.actions);
    d["proposals"] = listed(counts.proposals);
    d["codes"] = listed(counts.codes);
    d["held_codes"] = listed(counts.held_codes);
    d["held_reasons"] = listed(counts.held_reasons);
    d["held_by_name"] = asked_.held_reasons();
    return d;
}

nb::dict Stepper::account() const {
    const ami::Account& account = core_.account();
    const ami::Position& position = account.position;
    nb::dict d;
    d["has_fills"] = fills_dropped_ + core_.fills.size() > 0;
    d["qty"] = position.exact_qty().text();
    d["cost"] = position.exact_cost().text();
    d["realized"] = position.exact_realized().text();
    d["fees"] = position.exact_fees().text();
    d["trip_pnl"] = position.exact_trip_pnl().text();
    d["mark"] = account.last_mark();
    d["equity"] = account.equity;
    d["peak"] = account.peak;
    d["unrealized"] = account.unrealized;
    d["exposure_usd"] = account.exposure_usd;
    d["max_drawdown"] = account.max_drawdown;
    d["open_count"] = account.open_count;
    d["close_count"] = account.close_count;
    return d;
}

nb::dict Stepper::risk() const {
    const ami::RiskState& risk = core_.risk();
    const ami::RiskState::Money& money = risk.money();
    const ami::RiskState::Timers& timers = risk.timers();
    nb::dict d;
    d["cancels"] = queued(risk.cancels().times());
    d["quotes"] = queued(risk.quotes().times());
    nb::list steps;
    for (std::size_t i = 0; i < risk.steps().size(); ++i) steps.append(risk.steps()[i] != 0);
    d["steps"] = steps;
    d["losses"] = risk.losses();
    d["usd_rate"] = risk.usd_rate();
    d["day"] = money.day_end_ns == 0 ? -1 : money.day_end_ns / ami::kNsPerDay - 1;
    d["realized"] = money.realized;
    d["total"] = money.total;
    d["day_start_realized"] = money.day_start_realized;
    d["day_start_total"] = money.day_start_total;
    d["equity"] = money.equity;
    d["peak_equity"] = money.peak_equity;
    d["timers"] = nb::make_tuple(timers.throttle, timers.post_fill, std::int64_t{0}, timers.adverse[0], timers.adverse[1],
                                 timers.streak, timers.quote_budget);
    const ami::Markouts& markouts = risk.markouts();
    nb::list fills;
    for (std::size_t i = 0; i < markouts.fills().size(); ++i) {
        const ami::Markouts::MarkedFill& fill = markouts.fills()[i];
        nb::list marks;
        for (int horizon = 0; horizon < 2; ++horizon) {
            if (i < markouts.settled(horizon)) {
                marks.append(fill.markouts[horizon]);
            } else {
                marks.append(nb::none());
            }
        }
        nb::list row;
        row.append(fill.ts_ns);
        row.append(fill.sign > 0.0 ? 1 : -1);
        row.append(fill.qty);
        row.append(fill.mid);
        row.append(marks);
        fills.append(row);
    }
    nb::dict marked;
    marked["mid"] = std::isnan(markouts.mid()) ? nb::object(nb::none()) : nb::object(nb::float_(markouts.mid()));
    marked["fills"] = fills;
    d["markouts"] = marked;
    nb::list latches;
    for (const ami::Guard guard : risk.latches()) latches.append(ami::kGuardFlags[static_cast<int>(guard) - 1]);
    d["latches"] = latches;
    return d;
}

nb::object Stepper::held() const {
    const ami::PositionManager& p = core_.positions();
    if (!p.is_open()) return nb::none();
    return nb::make_tuple(p.qty(), p.avg_price(), static_cast<std::int64_t>(p.opened_ms()), p.largest_qty());
}

nb::dict Stepper::orders() const {
    const ami::OrderKeeper& keeper = core_.keeper();
    const ami::OrderKeeper::Calm& calm = keeper.calm();
    const auto time = [](std::int64_t ms) {
        if (ms == std::numeric_limits<std::int64_t>::min()) return nb::object(nb::float_(-std::numeric_limits<double>::infinity()));
        if (ms == std::numeric_limits<std::int64_t>::max()) return nb::object(nb::float_(std::numeric_limits<double>::infinity()));
        return nb::object(nb::int_(ms));
    };
    nb::dict d;
    nb::list places;
    for (const ami::Place place : {ami::Place::bid, ami::Place::ask, ami::Place::exit}) {
        const ami::OrderKeeper::Working& working = keeper.working(place);
        places.append(nb::make_tuple(working.is_live, order_tuple(working.order), working.lookup_ms,
                                     time(working.blocked_until_ms)));
    }
    d["places"] = places;
    d["calm"] = nb::make_tuple(time(calm.until_ms), calm.is_bid_off, calm.is_ask_off, calm.post_only, calm.bid_low,
                               calm.bid_high, calm.ask_low, calm.ask_high);
    d["is_stopped"] = keeper.is_stopped();
    d["replaced_ms"] = queued(keeper.replaced_ms());
    d["last_sent"] = nb::make_tuple(log_.last_sent[0], log_.last_sent[1]);
    nb::list closed;
    for (const ami::OrderRecord& record : log_.closed) closed.append(order_tuple(record));
    d["closed"] = closed;
    return d;
}

// The orders that ended at the venue, the oldest first and so many at most. They are forgotten here.
nb::list Stepper::take_ended(std::size_t most) {
    nb::list told;
    for (; most > 0 && !log_.ended.empty(); --most) {
        const ami::EndedOrder& order = log_.ended.front();
        told.append(nb::make_tuple(order.is_buy(), static_cast<int>(order.end()), order.price, order.qty,
                                   order.filled_qty, order.step, order.venue_number()));
        log_.ended.pop_front();
    }
    return told;
}

nb::dict Stepper::venue() {
    ami::PaperVenue& venue = core_.venue();
    nb::dict d;
    d["now_ns"] = venue.now_ns();
    d["orders_seen"] = venue.orders_seen();
    d["has_orders"] = log_.last_sent[0] >= 0 || log_.last_sent[1] >= 0;
    d["fills_made"] = fills_dropped_ + core_.fills.size() + venue.fills.size();
    d["cash_flow"] = venue.cash_flow().text();
    d["position"] = venue.position().text();
    const ami::MarketView& view = venue.view();
    d["view"] = nb::make_tuple(view.bid, view.ask, view.bid_size, view.ask_size);
    d["bid_taken"] = venue.taken(false).text();
    d["ask_taken"] = venue.taken(true).text();
    d["book"] = last_book_;
    nb::list open;
    for (const bool is_buy : {true, false}) {
        ami::VenueOrder& o = venue.order(is_buy);
        if (!o.is_open) continue;
        ami::OrderRecord record;
        record.place = o.request.place;
        record.is_buy = o.request.is_buy;
        record.post_only = o.request.post_only;
        record.price = o.request.price;
        record.qty = o.request.qty;
        record.step = o.request.step;
        record.venue_number = o.number;
        open.append(nb::make_tuple(o.number, order_tuple(record), o.leaves().text(), o.ahead, o.shown, o.traded, o.takes));
    }
    d["open"] = open;
    nb::list fills;
    const std::size_t first = core_.fills.size() > kFillsKept ? core_.fills.size() - kFillsKept : 0;
    for (std::size_t i = first; i < core_.fills.size(); ++i) fills.append(fill_tuple(core_.fills[i], fills_dropped_ + i + 1));
    d["fills"] = fills;
    nb::list unreported;
    for (std::size_t i = 0; i < venue.fills.size(); ++i) {
        unreported.append(fill_tuple(venue.fills[i], fills_dropped_ + core_.fills.size() + i + 1));
    }
    d["unreported"] = unreported;
    d["draws_used"] = draws_taken_ + venue.draws_used();
    return d;
}

}  // namespace stepping
