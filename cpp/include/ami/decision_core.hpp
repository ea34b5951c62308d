// One decision of one market, in the order of loop/run.py and loop/step.py: fills, proposal, guards, orders, counts. Nothing
// here may differ from them in a bit. The compiled loop runs it over a table, the stepper one event at a time.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include "ami/activity_log.hpp"
#include "ami/event_fault.hpp"
#include "ami/feature_ids.hpp"
#include "ami/guards.hpp"
#include "ami/ledger.hpp"
#include "ami/order_keeper.hpp"
#include "ami/paper_venue.hpp"
#include "ami/position_manager.hpp"
#include "ami/reference_model.hpp"
#include "ami/risk_state.hpp"

namespace ami {

// Time of a book of which something was missed: older than any policy allows, whatever the clock shows.
constexpr std::int64_t kBeforeAllMs = -(std::int64_t{1} << 53);

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

// An order was to be made of a price that is so many ticks that they are no 64-bit number.
struct TooManyTicks : std::overflow_error {
    TooManyTicks(const char* name, double value)
        : std::overflow_error("a price is too many ticks"), field(name), price(value) {}

    const char* field;  // a literal
    double price;
};

class DecisionCore {
public:
    // `row` is the market's live feature row, of `row_size` features.
    DecisionCore(const LoopSettings& settings, const double* row, std::size_t row_size)
        : s_(settings),
          row_(row),
          row_size_(row_size),
          guards_(s_.policy),
          risk_(s_.policy, s_.instrument.tick_size, settings.quoting.post_fill_cooldown_ms),
          positions_(settings.exits, settings.instrument.tick_size),
          venue_(settings.venue_instrument, settings.is_venue_on_grid, settings.queue, settings.draws,
                 settings.draw_count),
          keeper_(venue_, s_.instrument, settings.quoting),
          account_(s_.instrument, settings.start_cash) {
        context_.tp_ticks = s_.policy.tp_ticks;
    }
    DecisionCore(const DecisionCore&) = delete;
    DecisionCore& operator=(const DecisionCore&) = delete;

    // Work out every number of the context to the last bit, also where it only matters on which side of a limit it is.
    void be_exact() { risk_.be_exact(); }
    // Leave out what changes no decision, and let the account lag behind where it does not: only the end will be read.
    void be_lean() {
        risk_.be_lean();
        // A limit on active markets is never reached by one of them, unless it is 1.
        may_lag_ = !s_.instrument.is_inverse && s_.policy.max_active_markets != 1;
    }

    // What is known of the market. -----------------------------------------------------------------------------------

    bool has_gap = false;
    MarketView view;
    double mid = 0.0;
    std::int64_t last_book_ts_ns = 0;
    std::int64_t last_book_ms = 0;

    // Take over the best prices of the row, and the sizes that the venue sees there.
    void take_book(std::int64_t ts, double bid_size, double ask_size) {
        view = {feature(Feature::bid), feature(Feature::ask), bid_size, ask_size};
        mid = feature(Feature::mid);
        last_book_ts_ns = ts;
        last_book_ms = ts / kNsPerMs;
    }

    // The stages of a decision, to be called in this order. ------------------------------------------------------------

    // Book the venue's fills and mark the position.
    [[gnu::always_inline]] void settle(std::int64_t now_ns) {
        now_ns_ = now_ns;
        now_ms_ = now_ns / kNsPerMs;
        if (keeper_.has_news(now_ms_)) book_fills();
        if (mid > 0.0) {
            risk_.on_book(now_ns, mid);
        } else {
            risk_.stay_due();  // fills come of age all the same
        }
        lags_ = now_ms_ < still_.until_ms && still_.least_mid <= mid && mid <= still_.most_mid;
        if (lags_) {
            lagging_ns_ = now_ns;
            lagging_mid_ = mid;
        } else {
            settle_money();
        }
    }

    // Ask the model, fill the context, let the guards judge. `kIsShown`: somebody looks at the proposal, whatever it is.
    template <bool kIsShown>
    [[gnu::always_inline]] void judge() {
        if (!propose_unasked()) ask<kIsShown>();
        weigh();
    }

    // `judge` in its parts, for a model that is asked elsewhere: `propose_unasked`, where that is false `take`, `weigh`.
    // True when there is no book yet, or the position is to be closed.
    bool propose_unasked() {
        exit_ = Exit::none;
        if (last_book_ts_ns == 0) {
            proposal_ = Proposal{};
            proposal_.reasons = kNoBookYet;
            return true;
        }
        if (position_ != 0.0 && !lags_) exit_ = positions_.should_flatten(mid, static_cast<double>(now_ms_));
        if (exit_ == Exit::none) return false;
        proposal_ = Proposal{};
        proposal_.action = Action::EXIT;
        return true;
    }
    void take(const Proposal& proposal) { proposal_ = proposal; }
    [[gnu::always_inline]] void weigh() {
        if (!lags_) fill_context();
        if (risk_.is_due(now_ms_)) look_at_lasting();
        const Proposal& asked = proposal_;
        if (has_lasting_ || finds_in_step(asked)) {
            judge_findings();
        } else {
            verdict_ = Verdict{};
            verdict_.action = asked.action;
            verdict_.size_usd = asked.size_usd;
        }
    }

    // False when a price is so many ticks that they are no 64-bit number: nothing can be decided on it here. Whoever
    // goes on elsewhere then may settle the same time again.
    bool can_act() const { return price_beyond_ticks().name == nullptr; }

    // Do what was decided, and let the risk state remember it. Throws TooManyTicks, before any order is touched, where it
    // cannot be done. `kIsShown`: the quotes are kept for a picture.
    template <bool kIsShown>
    [[gnu::always_inline]] void act(bool is_timer) {
        if (has_acted_) actions_ = Actions{};
        has_acted_ = false;
        const bool leaves_all = keeper_.leaves_all(verdict_.action, proposal_.bid_quote, proposal_.ask_quote,
                                                   proposal_.post_only, now_ms_, view, verdict_.pulls);
        if (!leaves_all && !s_.is_dry) change_orders();
        if (kIsShown && activity.is_kept) activity.quotes(decisions_made_, now_ns_, quote_at(Place::bid), quote_at(Place::ask));
        ++decisions_made_;
        if ((proposal_.reasons & kModelInvalid) != 0) note_invalid_model();
        risk_.on_verdict(now_ns_, proposal_.action, verdict_);
        if (!is_timer) risk_.on_step(actions_.has_error);
    }

    void count(bool is_timer) {
        if (actions_.has_error) ++counts.errors;
        const bool is_held = !is_timer & (verdict_.action == Action::HOLD);
        const bool is_held_by_model = is_held & (proposal_.action == Action::HOLD);
        if (!is_timer) {
            ++counts.proposals[static_cast<std::size_t>(proposal_.action)];
            ++counts.actions[static_cast<std::size_t>(verdict_.action)];
        }
        // Held for no reason at all: that is added to nothing later.
        ++holds_[proposal_.reasons * static_cast<std::uint32_t>(is_held_by_model)];
        if (verdict_.codes != 0) count_findings(is_held & !is_held_by_model ? verdict_.held_codes : 0);
        ++(is_timer ? counts.timers : counts.steps);
    }

    // Bring the counts of codes and reasons up to date: they lag behind.
    void count_codes() {
        add_bits(same_codes_, same_count_, counts.codes.data());
        add_bits(same_held_, same_count_, counts.held_codes.data());
        same_count_ = 0;
        for (std::size_t reasons = 0; reasons < holds_.size(); ++reasons) {
            add_bits(reasons, holds_[reasons], counts.held_reasons.data());
        }
        holds_.fill(0);
    }

    // Cancel every order and book the last fills.
    void finish() {
        catch_up();
        if (s_.is_dry) return;
        counts.canceled += keeper_.cancel_all();
        book_fills();
    }

    // What there is to read after a decision. ---------------------------------------------------------------------------

    LoopCounts counts;
    std::vector<VenueFill> fills;  // booked; whoever drives this may take the oldest away
    ActivityLog activity;
    const double* row() const { return row_; }
    std::size_t row_size() const { return row_size_; }
    const GuardContext& context() const { return context_; }
    const Proposal& proposal() const { return proposal_; }
    const Verdict& verdict() const { return verdict_; }
    const Actions& actions() const { return actions_; }
    std::int64_t now_ns() const { return now_ns_; }
    std::int64_t decisions_made() const { return decisions_made_; }
    // How sure the last proposal is; to be asked before the row changes.
    double confidence() const {
        if (exit_ != Exit::none) return 1.0;
        const bool is_reference = s_.model == nullptr && last_book_ts_ns != 0;
        return is_reference ? reference_confidence(row_) : proposal_.confidence;
    }
    double position() const { return position_; }  // before the decision
    const LoopSettings& settings() const { return s_; }
    const Account& account() const { return account_; }
    const RiskState& risk() const { return risk_; }
    const PositionManager& positions() const { return positions_; }
    OrderKeeper& keeper() { return keeper_; }
    const OrderKeeper& keeper() const { return keeper_; }
    PaperVenue& venue() { return venue_; }
    Exit exit() const { return exit_; }  // why the last proposal asked for EXIT; none when the model did

private:
    double feature(Feature which) const { return row_[static_cast<std::size_t>(which)]; }

    double quote_at(Place place) const {
        const OrderKeeper::Working& working = keeper_.working(place);
        return working.is_live ? working.order.price : 0.0;
    }

    [[gnu::noinline]] void book_fills() {
        catch_up();
        still_.until_ms = kBeforeAllMs;
        keeper_.poll(now_ms_, new_fills_);
        for (const VenueFill& fill : new_fills_) book(fill);
    }

    void book(const VenueFill& fill) {
        fills.push_back(fill);
        const FillResult result = account_.apply(fill.is_buy, fill.price, fill.qty, fill.fee);
        risk_.on_fill(now_ns_, fill.is_buy, fill.qty, mid != 0.0 ? mid : fill.price);
        if (result.is_closed) {
            positions_.on_position_closed();
            risk_.on_position_closed(now_ms_, result.trip_pnl);
        }
        const double position = account_.position.qty();
        // Nothing held is 0, never −0.
        if (activity.is_kept) activity.fill(decisions_made_, now_ns_, fill, position + 0.0, account_.equity);
        if (position != 0.0) {
            // After a flip only what is left is a position, opened by this fill.
            const double qty = result.is_closed ? position : fill.is_buy ? fill.qty : -fill.qty;
            positions_.register_fill(fill.price, qty, static_cast<double>(now_ms_));
        }
    }

    template <bool kIsShown>
    void ask() {
        if (s_.model != nullptr) {
            propose_by(s_.model, row_, row_size_, s_.model_params, proposal_);
        } else {
            propose_reference<kIsShown>(row_, s_.reference, proposal_);
        }
    }

    // Money. ----------------------------------------------------------------------------------------------------------

    // Between two fills money moves with the mid alone. While the mid is within these bounds there is no new peak and no
    // deeper fall, no exit, and no guard of money that finds anything in an order of up to `most_usd`.
    struct Stillness {
        std::int64_t until_ms = kBeforeAllMs;
        double least_mid = std::numeric_limits<double>::min();
        double most_mid = std::numeric_limits<double>::max();
        double most_usd = 0.0;
    };

    [[gnu::noinline]] void settle_money() {
        catch_up();
        if (mid > 0.0) account_.mark(mid);
        position_ = account_.position.qty();
        rate_ = s_.instrument.is_inverse && mid > 0.0 ? mid : 1.0;
        tell_account(now_ns_);
        if (may_lag_) find_stillness();
    }

    void tell_account(std::int64_t now_ns) {
        const double realized = account_.position.realized() - account_.position.fees();
        risk_.on_account(now_ns, realized, account_.unrealized, account_.equity, rate_);
    }

    // Bring the account to the last time at which it was not told of the mid.
    void catch_up() {
        if (lagging_ns_ == 0) return;
        account_.mark(lagging_mid_);
        tell_account(lagging_ns_);
        lagging_ns_ = 0;
    }

    void find_stillness() {
        still_ = Stillness{};
        if (!(mid > 0.0) || !(position_ != 0.0 ? bound_mid() : is_still_at(mid))) return;
        const double exposure_usd = position_ != 0.0 ? account_.exposure_at(still_.most_mid) : 0.0;
        still_.most_usd = std::min(guards_.room_usd(exposure_usd), s_.policy.max_per_market_usd);
        if (!(still_.most_usd > 0.0)) return;
        const std::int64_t day_end_ms = risk_.money().day_end_ns / kNsPerMs;
        still_.until_ms = position_ != 0.0 ? std::min(day_end_ms, positions_.last_ms()) : day_end_ms;
    }

    // All that is looked at rises or falls with the mid, however it is rounded: what holds at both ends holds in between.
    // False where there is no stillness even at the mid.
    bool bound_mid() {
        const double margin = 1e-11 * mid;
        const RiskState::Money& money = risk_.money();
        const double deep = account_.mid_of(account_.peak - account_.max_drawdown);
        const double high = account_.mid_of(std::min(account_.peak, money.peak_equity));
        const MidRange stays = positions_.range_without_exit(mid);
        const double least = std::max({still_.least_mid, std::min(deep, high), stays.least}) + margin;
        const double most = std::min({std::max(deep, high), stays.most}) - margin;
        still_.least_mid = least < mid && is_still_at(least) ? least : mid;
        still_.most_mid = most > mid && is_still_at(most) ? most : mid;
        return (still_.least_mid < mid && still_.most_mid > mid) || is_still_at(mid);
    }

    bool is_still_at(double price) const {
        const RiskState::Money& money = risk_.money();
        const bool is_held = position_ != 0.0;
        const double unrealized = is_held ? account_.unrealized_at(price) : account_.unrealized;
        GuardContext c;
        c.latched = risk_.latched();
        c.current_total_exposure_usd = is_held ? account_.exposure_at(price) : account_.exposure_usd;
        c.abs_inventory = std::fabs(position_);
        c.equity_usd = account_.equity_with(unrealized);
        c.drawdown_usd = account_.peak - c.equity_usd;
        c.daily_pnl = money.realized + unrealized - money.day_start_total;
        const bool is_within = c.equity_usd <= account_.peak && c.equity_usd <= money.peak_equity &&
                               c.drawdown_usd <= account_.max_drawdown;
        return is_within && !guards_.finds_money(c) && !(is_held && positions_.may_exit(price));
    }

    // What moves with every step. -------------------------------------------------------------------------------------

    [[gnu::always_inline]] bool finds_in_step(const Proposal& asked) {
        if (!lags_) return guards_.finds_in_step(asked.action, asked.has_size, asked.size_usd, context_);
        GuardContext c;
        fill_market(c);
        c.now_ms = now_ms_;
        c.tp_ticks = s_.policy.tp_ticks;
        c.open_orders = keeper_.open_count();
        c.abs_inventory = std::fabs(position_);
        return guards_.finds_beside_money(asked.action, asked.has_size, asked.size_usd, still_.most_usd, c);
    }

    void fill_context() {
        fill_market(context_);
        const std::int64_t open_orders = keeper_.open_count();
        context_.now_ms = now_ms_;
        context_.current_total_exposure_usd = account_.exposure_usd;
        context_.abs_inventory = std::fabs(position_);
        context_.open_orders = open_orders;
        context_.active_markets = (position_ != 0.0) | (open_orders > 0) ? 1 : 0;
        context_.equity_usd = account_.equity * rate_;
        context_.drawdown_usd = account_.drawdown() * rate_;
        context_.daily_pnl = risk_.daily_pnl();
    }

    [[gnu::noinline]] void look_at_lasting() {
        context_.now_ms = now_ms_;
        risk_.fill_context(context_, now_ns_, now_ms_);
        has_lasting_ = guards_.finds_lasting(context_);
        if (has_lasting_) risk_.stay_due();
    }

    [[gnu::noinline]] void judge_findings() {
        if (lags_) {
            catch_up();
            fill_context();
        }
        verdict_ = guards_.judge(proposal_.action, proposal_.has_size, proposal_.size_usd, context_);
        // What latches now is looked at beside the money from the next step on.
        if (verdict_.action == Action::STOP) still_.until_ms = kBeforeAllMs;
    }

    struct NamedPrice {
        const char* name = nullptr;  // a literal; null: there is none
        double price = 0.0;
    };

    NamedPrice price_beyond_ticks() const {
        const bool has_quotes = proposal_.action == Action::ACT;
        const double highest = view.bid + view.ask + (has_quotes ? proposal_.bid_quote + proposal_.ask_quote : 0.0);
        if (highest <= highest_price_) return {};
        for (const NamedPrice& known : {NamedPrice{"bid", view.bid}, NamedPrice{"ask", view.ask},
                                        NamedPrice{"bid_quote", has_quotes ? proposal_.bid_quote : 0.0},
                                        NamedPrice{"ask_quote", has_quotes ? proposal_.ask_quote : 0.0}}) {
            if (!(known.price <= highest_price_)) return known;
        }
        return {};
    }

    [[gnu::noinline]] void change_orders() {
        if (verdict_.action == Action::ACT || verdict_.action == Action::EXIT) {
            if (const NamedPrice beyond = price_beyond_ticks(); beyond.name != nullptr) {
                throw TooManyTicks(beyond.name, beyond.price);
            }
        }
        const Quotes quotes = {proposal_.bid_quote, proposal_.ask_quote, verdict_.size_usd, proposal_.post_only};
        actions_ = keeper_.apply(verdict_.action, quotes, now_ms_, view, position_, verdict_.pulls, decisions_made_);
        has_acted_ = true;
        counts.submitted += actions_.submitted;
        counts.canceled += actions_.canceled;
        counts.rejected += actions_.rejected;
        counts.skipped += actions_.skipped;
        if (actions_.has_error) counts.is_last_error_the_models = false;
        if (actions_.canceled != 0) risk_.on_cancels(now_ns_, actions_.canceled);
    }

    [[gnu::noinline, gnu::cold]] void note_invalid_model() {
        has_acted_ = actions_.has_error = counts.is_last_error_the_models = true;
    }

    // The same findings come many times in a row: they are added up when they change.
    [[gnu::noinline]] void count_findings(std::uint64_t held) {
        if (verdict_.codes != same_codes_ || held != same_held_) {
            add_bits(same_codes_, same_count_, counts.codes.data());
            add_bits(same_held_, same_count_, counts.held_codes.data());
            same_count_ = 0;
            same_codes_ = verdict_.codes;
            same_held_ = held;
        }
        ++same_count_;
    }

    [[gnu::always_inline]] void fill_market(GuardContext& c) const {
        c.has_market = last_book_ts_ns != 0;
        if (!c.has_market) return;
        // After a gap the book is as old as can be.
        c.last_event_ts_ms = has_gap ? kBeforeAllMs : last_book_ms;
        c.mid = mid;
        c.depth = feature(Feature::depth);
        c.spread_bps = feature(Feature::spread_bps);
        c.cost_ticks = feature(Feature::cost_ticks);
        c.sigma_5m = feature(Feature::sigma_5m);
        c.spread_med_5m = feature(Feature::spread_med_5m);
        c.depth_p10_5m = feature(Feature::depth_p10_5m);
        c.sigma_spike_z = feature(Feature::sigma_spike_z);
    }

    static void add_bits(std::uint64_t bits, std::int64_t count, std::int64_t* counters) {
        for (; bits != 0; bits >>= 8, counters += 8) {
            if ((bits & 0xffu) == 0) continue;
            for (unsigned i = 0; i < 8; ++i) counters[i] += (bits >> i & 1u) != 0 ? count : 0;
        }
    }

    LoopSettings s_;
    const double* row_;
    std::size_t row_size_;
    double highest_price_ = s_.instrument.tick_size * 0x1p62;
    Guards guards_;
    RiskState risk_;
    PositionManager positions_;
    PaperVenue venue_;
    OrderKeeper keeper_;
    Account account_;

    GuardContext context_;
    Proposal proposal_;
    Verdict verdict_;
    Actions actions_;
    bool has_acted_ = false;  // `actions_` says more than nothing
    Exit exit_ = Exit::none;
    std::int64_t now_ns_ = 0;
    std::int64_t now_ms_ = 0;
    double position_ = 0.0;
    double rate_ = 1.0;
    bool may_lag_ = false;
    bool lags_ = false;              // the account was not told of this step's mid
    std::int64_t lagging_ns_ = 0;    // the last time that it was not told of; 0: there is none
    double lagging_mid_ = 0.0;
    Stillness still_;
    std::int64_t decisions_made_ = 0;
    std::vector<VenueFill> new_fills_;

    bool has_lasting_ = false;  // what guards found that look at counts, times and latches
    std::array<std::int64_t, 1u << kReasonBits> holds_{};  // by reasons of the model
    std::uint64_t same_codes_ = 0;
    std::uint64_t same_held_ = 0;
    std::int64_t same_count_ = 0;
};

}  // namespace ami
