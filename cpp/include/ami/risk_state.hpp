// What the guards count: dmc/risk_state.py and dmc/markouts.py, spelled for the compiled loop.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "ami/exact_decimal.hpp"
#include "ami/guards.hpp"
#include "ami/reference_model.hpp"

namespace ami {

// The first in of a bounded number of values is the first out, also when another one comes than fits.
template <class T>
class BoundedQueue {
public:
    explicit BoundedQueue(std::size_t most) : most_(most), items_(room_for(1 + std::min<std::size_t>(most, 1023))) {}

    std::size_t size() const { return size_; }
    bool is_full() const { return size_ == most_; }
    T& front() { return items_[head_]; }
    const T& operator[](std::size_t i) const { return items_[wrapped(head_ + i)]; }
    T& operator[](std::size_t i) { return items_[wrapped(head_ + i)]; }

    void push(const T& item) {
        push_if(true, item);
    }
    // Without a branch on whether it is pushed: there is always room for one more than counts.
    void push_if(bool is_pushed, const T& item) {
        items_[wrapped(head_ + size_)] = item;
        size_ += is_pushed ? 1 : 0;
        if (size_ > limit_) make_room();
    }
    void pop() {
        head_ = wrapped(head_ + 1);
        --size_;
    }

private:
    // Powers of two, so that a place is found by a mask.
    static std::size_t room_for(std::size_t count) {
        std::size_t room = 1;
        while (room < count) room *= 2;
        return room;
    }
    std::size_t wrapped(std::size_t i) const { return i & mask_; }
    [[gnu::noinline]] void make_room() {
        if (limit_ == most_) {
            pop();
            return;
        }
        std::vector<T> larger(2 * items_.size());
        for (std::size_t i = 0; i < size_; ++i) larger[i] = (*this)[i];
        items_ = std::move(larger);
        mask_ = items_.size() - 1;
        limit_ = std::min(most_, mask_);
        head_ = 0;
    }

    std::size_t most_;
    std::size_t head_ = 0;
    std::size_t size_ = 0;
    std::vector<T> items_;
    std::size_t mask_ = items_.size() - 1;
    std::size_t limit_ = std::min(most_, mask_);
};

// Times of the last events that are younger than `length_ns`.
class TimeWindow {
public:
    TimeWindow(std::int64_t length_ms, std::int64_t most)
        : length_ns_(length_ms * kNsPerMs), times_(static_cast<std::size_t>(std::max(most, kMinWindowEvents))) {}

    void add_if(bool is_added, std::int64_t now_ns) { times_.push_if(is_added, now_ns); }
    // How many there are at most: those that have grown old are still among them.
    std::int64_t most_count() const { return static_cast<std::int64_t>(times_.size()); }
    std::int64_t count(std::int64_t now_ns) {
        while (times_.size() > 0 && times_.front() <= now_ns - length_ns_) times_.pop();
        return most_count();
    }
    const BoundedQueue<std::int64_t>& times() const { return times_; }

private:
    std::int64_t length_ns_;
    BoundedQueue<std::int64_t> times_;
};

// Which of the last steps failed. Hardly any does, so only their numbers are kept.
class FailureWindow {
public:
    explicit FailureWindow(std::int64_t most) : most_(most), failed_(static_cast<std::size_t>(most)) {}

    void add(bool has_failed) {
        if (has_failed) failed_.push(seen_);
        ++seen_;
        if (failed_.size() > 0 && failed_.front() < seen_ - most_) failed_.pop();
    }
    std::size_t size() const { return static_cast<std::size_t>(std::min(seen_, most_)); }
    std::int64_t failures() const { return static_cast<std::int64_t>(failed_.size()); }
    // Of the steps in the window, the oldest first, whether it failed.
    bool operator[](std::size_t i) const {
        const std::int64_t number = std::max<std::int64_t>(0, seen_ - most_) + static_cast<std::int64_t>(i);
        for (std::size_t at = 0; at < failed_.size(); ++at) {
            if (failed_[at] == number) return true;
        }
        return false;
    }

private:
    std::int64_t most_;
    std::int64_t seen_ = 0;
    BoundedQueue<std::int64_t> failed_;  // numbers of the steps
};

// Adverse selection of our fills: what the mid did against them at each horizon.
class Markouts {
public:
    // Adverse selection is held against `limits`, ticks, one for each horizon.
    Markouts(std::int64_t window_ns, double tick_size, double limit_15, double limit_60)
        : window_ns_(window_ns),
          tick_size_(tick_size),
          limits_{limit_15, limit_60},
          fills_(static_cast<std::size_t>(kMaxMarkoutFills)) {}

    // True when that took adverse selection over a limit, or back.
    bool on_mid(std::int64_t now_ns, double mid) {
        if (now_ns < next_ns_) {
            mid_ = mid;
            return false;
        }
        return settle_at(now_ns, mid);
    }

    void on_fill(std::int64_t now_ns, double sign, double qty, double mid) {
        settle(now_ns - 1);
        mid_ = mid;
        if (fills_.is_full()) drop_oldest();
        fills_.push({now_ns, sign, qty, mid, {0.0, 0.0}});
        plan();
    }

    // When the oldest fill leaves, ms; in the far future without one.
    std::int64_t next_end_ms() const {
        return fills_.size() == 0 ? std::numeric_limits<std::int64_t>::max() : fills_[0].ts_ns / kNsPerMs + window_ns_ / kNsPerMs;
    }

    // From here on `write_adverse_ticks` writes the numbers themselves.
    void be_exact() {
        is_exact_ = true;
        for (int i = 0; i < 2; ++i) exact_[i] = added_up(i);
    }

    // Adverse selection at each horizon, or a number on the same side of its limit: only that is ever looked at.
    void write_adverse_ticks(std::int64_t now_ns, double* ticks) {
        if (fills_.size() > 0) {
            settle(now_ns);
            while (fills_.size() > 0 && fills_.front().ts_ns <= now_ns - window_ns_) drop_oldest();
        }
        judge_anew();
        ticks[0] = adverse_[0];
        ticks[1] = adverse_[1];
    }

    struct MarkedFill {
        std::int64_t ts_ns;
        double sign;
        double qty;
        double mid;
        double markouts[2];
    };
    double mid() const { return mid_; }
    const BoundedQueue<MarkedFill>& fills() const { return fills_; }
    // Of the oldest fills, how many have a markout at a horizon.
    std::size_t settled(int horizon) const { return settled_[horizon]; }

private:
    [[gnu::noinline]] bool settle_at(std::int64_t now_ns, double mid) {
        settle(now_ns - 1);
        mid_ = mid;
        settle(now_ns);
        return judge_anew();
    }

    // True when the answer is another one than before.
    bool judge_anew() {
        bool has_changed = false;
        for (int i = 0; i < 2; ++i) {
            if (!is_dirty_[i]) continue;
            is_dirty_[i] = false;
            const bool was_above = adverse_[i] > limits_[i];
            adverse_[i] = settled_[i] == 0 ? 0.0 : judge(i, limits_[i]);
            has_changed |= was_above != (adverse_[i] > limits_[i]);
        }
        return has_changed;
    }

    void settle(std::int64_t until_ns) {
        if (until_ns < next_ns_) return;
        for (int i = 0; i < 2; ++i) {
            while (settled_[i] < fills_.size() && fills_[settled_[i]].ts_ns + kMarkoutHorizonsNs[i] <= until_ns) {
                MarkedFill& fill = fills_[settled_[i]++];
                fill.markouts[i] = fill.sign * (fill.mid - mid_) / tick_size_;
                count(i, fill.qty, fill.markouts[i], false);
            }
        }
        plan();
    }

    // When the next horizon of a fill passes. A fill that leaves may make it later, never earlier.
    void plan() {
        next_ns_ = std::numeric_limits<std::int64_t>::max();
        for (int i = 0; i < 2; ++i) {
            if (settled_[i] == fills_.size()) continue;
            next_ns_ = std::min(next_ns_, fills_[settled_[i]].ts_ns + kMarkoutHorizonsNs[i]);
        }
    }

    void drop_oldest() {
        const MarkedFill oldest = fills_.front();
        fills_.pop();
        for (int i = 0; i < 2; ++i) {
            if (settled_[i] == 0) continue;
            --settled_[i];
            count(i, oldest.qty, oldest.markouts[i], true);
        }
    }

    void count(int i, double qty, double markout, bool is_taken) {
        Sums& sums = sums_[i];
        const double value = is_taken ? -qty * markout : qty * markout;
        sums.value += value;
        sums.weight += is_taken ? -qty : qty;
        sums.error += kUnit * (std::fabs(value) + std::fabs(sums.value));
        sums.weight_error += kUnit * std::fabs(sums.weight);
        if (settled_[i] == 0) sums = Sums{};
        if (is_exact_) count_exactly(i, qty, markout, is_taken);
        is_dirty_[i] = true;
    }

    void count_exactly(int i, double qty, double markout, bool is_taken) {
        ExactSums& exact = exact_[i];
        exact.add(qty, markout, is_taken);
        // What fills of another size left behind makes the sums wide, not wrong.
        if (exact.value.bit_length() > kWideBits || exact.weight.bit_length() > kWideBits) exact = added_up(i);
    }

    // The sums in doubles tell on which side of its limit the mean is, unless it is as near as their rounding.
    double judge(int i, double limit) {
        const Sums& sums = sums_[i];
        const double scale = std::fabs(sums.value) + limit * sums.weight;
        const double above = sums.value - limit * sums.weight;
        if (!is_exact_ && std::fabs(above) > sums.error + limit * sums.weight_error + 4.0 * kUnit * scale) {
            const double mean = std::max(0.0, sums.value / sums.weight);
            return above > 0.0 ? std::max(mean, std::nextafter(limit, kFar)) : std::min(mean, limit);
        }
        return is_exact_ ? exact_[i].mean() : added_up(i).mean();
    }

    // The same sums without rounding.
    struct ExactSums {
        ExactSum value;
        ExactSum weight;

        void add(double qty, double markout, bool is_taken) {
            value.add_product(qty, markout, is_taken);
            weight.add_product(qty, 1.0, is_taken);
        }
        double mean() const { return std::max(0.0, ExactSum::divide(value, weight)); }
    };
    ExactSums added_up(int i) const {
        ExactSums sums;
        for (std::size_t at = 0; at < settled_[i]; ++at) sums.add(fills_[at].qty, fills_[at].markouts[i], false);
        return sums;
    }

    // Σ qty × markout and Σ qty over the fills with a markout, and how far rounding may have taken them.
    struct Sums {
        double value = 0.0;
        double weight = 0.0;
        double error = 0.0;
        double weight_error = 0.0;
    };
    static constexpr double kUnit = std::numeric_limits<double>::epsilon();
    static constexpr double kFar = std::numeric_limits<double>::infinity();
    static constexpr std::size_t kWideBits = 512;

    std::int64_t window_ns_;
    double tick_size_;
    double limits_[2];
    double mid_ = std::numeric_limits<double>::quiet_NaN();
    BoundedQueue<MarkedFill> fills_;
    std::int64_t next_ns_ = std::numeric_limits<std::int64_t>::max();
    std::size_t settled_[2] = {0, 0};  // of the oldest fills, how many have a markout
    double adverse_[2] = {0.0, 0.0};
    Sums sums_[2];
    ExactSums exact_[2];  // kept where every number is asked for
    bool is_dirty_[2] = {false, false};
    bool is_exact_ = false;
};

class RiskState {
public:
    RiskState(const RiskPolicy& policy, double tick_size, std::int64_t post_fill_cooldown_ms)
        : p(policy),
          post_fill_cooldown_ms_(post_fill_cooldown_ms),
          cancels_(policy.cancel_window_ms, policy.cancel_rate_limit),
          quotes_(policy.quote_window_ms, policy.quote_cap_per_window),
          markouts_(policy.adverse_window_ms * kNsPerMs, tick_size, policy.adv15_max_ticks, policy.adv60_max_ticks),
          steps_(policy.error_window_steps) {}

    // What a run that is handed over takes along.
    struct Money {
        std::int64_t day_end_ns = 0;  // 0: no day began
        double realized = 0.0;
        double total = 0.0;
        double day_start_realized = 0.0;
        double day_start_total = 0.0;
        double equity = 0.0;
        double peak_equity = -std::numeric_limits<double>::infinity();
    };
    struct Timers {
        std::int64_t throttle = 0;
        std::int64_t post_fill = 0;
        std::int64_t adverse[2] = {0, 0};
        std::int64_t streak = 0;
        std::int64_t quote_budget = 0;
    };

    const std::vector<Guard>& latches() const { return latches_; }
    std::uint64_t latched() const { return latched_; }  // their codes
    // Of now: while no guard counts them, old times are left where they are.
    const TimeWindow& cancels() const { return counted(cancels_); }
    const TimeWindow& quotes() const { return counted(quotes_); }
    const Markouts& markouts() const { return markouts_; }
    const FailureWindow& steps() const { return steps_; }
    std::int64_t losses() const { return losses_; }
    double usd_rate() const { return usd_rate_; }
    const Money& money() const { return money_; }
    const Timers& timers() const { return timers_; }

    // From here on every step is told all numbers anew: somebody reads them.
    void be_exact() {
        markouts_.be_exact();
        is_exact_ = true;
        due_ms_ = kNow;
    }

    // Count only what a guard looks at: for a run of which nobody reads the rest.
    void be_lean() { counts_quotes_ = p.quote_cap_per_window != 0; }

    // False as long as a context that was filled earlier still gives every guard that looks at counts, times and latches
    // the answer of now: nothing was told here since, and no time has passed that one of them waits for.
    bool is_due(std::int64_t now_ms) const { return now_ms >= due_ms_; }
    // Such a guard found something: what it waits for is looked at in every step.
    void stay_due() { due_ms_ = kNow; }

    void on_book(std::int64_t now_ns, double mid) {
        if (markouts_.on_mid(now_ns, mid)) due_ms_ = kNow;
    }

    void on_step(bool had_error) {
        steps_.add(had_error);
        if (had_error) due_ms_ = kNow;
    }

    void on_fill(std::int64_t now_ns, bool is_buy, double qty, double mid) {
        markouts_.on_fill(now_ns, is_buy ? 1.0 : -1.0, qty, mid);
        if (post_fill_cooldown_ms_ != 0) timers_.post_fill = now_ns / kNsPerMs + post_fill_cooldown_ms_;
        due_ms_ = kNow;
    }

    void on_position_closed(std::int64_t now_ms, double realized) {
        end_streak(now_ms);
        losses_ = realized < 0.0 ? losses_ + 1 : 0;
        due_ms_ = kNow;
    }

    void on_cancels(std::int64_t now_ns, std::int64_t n) {
        for (std::int64_t i = 0; i < n; ++i) cancels_.add_if(true, now_ns);
        if (cancels_.most_count() >= p.cancel_rate_limit) due_ms_ = kNow;
    }

    // Money of the settlement currency; `usd_rate` is what one unit of it is worth, USD.
    void on_account(std::int64_t now_ns, double realized_after_fees, double unrealized, double equity, double usd_rate) {
        roll_day(now_ns);
        now_ns_ = now_ns;
        usd_rate_ = usd_rate;
        money_.realized = realized_after_fees;
        money_.total = realized_after_fees + unrealized;
        money_.equity = equity;
        money_.peak_equity = equity > money_.peak_equity ? equity : money_.peak_equity;
    }

    void on_verdict(std::int64_t now_ns, Action proposed, const Verdict& verdict) {
        if (counts_quotes_) {
            quotes_.add_if(verdict.action == Action::ACT, now_ns);
            if (p.quote_cap_per_window != 0 && quotes_.most_count() >= p.quote_cap_per_window) due_ms_ = kNow;
        }
        if ((verdict.codes | static_cast<std::uint64_t>(verdict.action == Action::STOP)) != 0) {
            remember(now_ns, proposed, verdict);
        }
    }

    double daily_pnl() const { return (money_.total - money_.day_start_total) * usd_rate_; }

    // What the guards are told of counts, times and latches. The account was told of this time before.
    void fill_context(GuardContext& c, std::int64_t now_ns, std::int64_t now_ms) {
        if (timers_.streak != 0) end_streak(now_ms);
        c.cancels_in_window = cancels_.count(now_ns);
        c.quotes_in_window = quotes_.count(now_ns);
        c.steps_in_window = static_cast<std::int64_t>(steps_.size());
        c.errors_in_window = steps_.failures();
        markouts_.write_adverse_ticks(now_ns, c.adverse_ticks);
        c.consecutive_losses = losses_;
        c.throttle_refresh_until_ms = timers_.throttle;
        c.cooldown_until_ms = timers_.post_fill;
        c.adverse_until_ms[0] = timers_.adverse[0];
        c.adverse_until_ms[1] = timers_.adverse[1];
        c.streak_cooldown_until_ms = timers_.streak;
        c.quote_budget_until_ms = timers_.quote_budget;
        c.latched = latched_;
        plan(now_ms);
    }

private:
    static constexpr std::int64_t kNow = std::numeric_limits<std::int64_t>::min();

    const TimeWindow& counted(TimeWindow& window) const {
        window.count(now_ns_);
        return window;
    }

    // Find the first time at which a guard may answer otherwise though nothing was told here.
    void plan(std::int64_t now_ms) {
        due_ms_ = kNow;
        if (is_exact_ || steps_.failures() > 0) return;
        due_ms_ = markouts_.next_end_ms();
        const Timers& t = timers_;
        if ((t.throttle | t.post_fill | t.adverse[0] | t.adverse[1] | t.streak | t.quote_budget) == 0) return;
        for (const std::int64_t until_ms : {timers_.throttle, timers_.post_fill, timers_.adverse[0], timers_.adverse[1],
                                            timers_.streak, timers_.quote_budget}) {
            if (until_ms > now_ms) due_ms_ = std::min(due_ms_, until_ms);
        }
    }

    [[gnu::noinline]] void remember(std::int64_t now_ns, Action proposed, const Verdict& verdict) {
        begin_holds(now_ns / kNsPerMs, verdict.codes);
        if (verdict.action == Action::STOP) latch_stop(proposed, verdict.codes);
        due_ms_ = kNow;
    }

    // A hold that is under way is not prolonged, or it might never end.
    void begin_holds(std::int64_t now_ms, std::uint64_t codes) {
        if ((codes & bit(Code::cancel_rate_exceeded)) != 0) timers_.throttle = now_ms + p.throttle_refresh_ms;
        const Code adverse[2] = {Code::adverse_selection_15, Code::adverse_selection_60};
        for (int i = 0; i < 2; ++i) {
            if ((codes & bit(adverse[i])) != 0 && now_ms >= timers_.adverse[i]) {
                timers_.adverse[i] = now_ms + p.adverse_cooldown_ms;
            }
        }
        if ((codes & bit(Code::loss_streak)) != 0 && timers_.streak == 0) {
            timers_.streak = now_ms + p.streak_cooldown_ms;
        }
        if ((codes & bit(Code::quote_budget)) != 0 && now_ms >= timers_.quote_budget) {
            timers_.quote_budget = now_ms + p.quote_budget_cooldown_ms;
        }
    }

    void end_streak(std::int64_t now_ms) {
        if (timers_.streak != 0 && now_ms >= timers_.streak) {
            timers_.streak = 0;
            losses_ = 0;
        }
    }

    void latch_stop(Action proposed, std::uint64_t codes) {
        if ((codes & (bit(Code::drawdown_stop) | bit(Code::equity_floor))) != 0) codes |= bit(Code::drawdown_stop);
        for (const Code code : {Code::kill_switch, Code::daily_loss_stop, Code::circuit_breaker, Code::drawdown_stop}) {
            if ((codes & bit(code)) != 0) latch(code);
        }
        if (proposed == Action::STOP) latch(Code::kill_switch);
    }

    void latch(Code code) {
        if ((latched_ & bit(code)) == 0) latches_.push_back(kCodeGuard[static_cast<int>(code)]);
        latched_ |= bit(code);
    }

    void roll_day(std::int64_t now_ns) {
        if (now_ns < money_.day_end_ns) return;
        if (money_.day_end_ns > 0) {
            money_.day_start_realized = money_.realized;
            money_.day_start_total = money_.total;
        }
        money_.day_end_ns = (now_ns / kNsPerDay + 1) * kNsPerDay;
    }

    const RiskPolicy& p;
    std::int64_t post_fill_cooldown_ms_;
    mutable TimeWindow cancels_;
    mutable TimeWindow quotes_;
    Markouts markouts_;
    FailureWindow steps_;
    std::int64_t losses_ = 0;
    Money money_;
    Timers timers_;
    std::uint64_t latched_ = 0;
    std::vector<Guard> latches_;  // oldest first
    double usd_rate_ = 1.0;
    std::int64_t now_ns_ = 0;
    std::int64_t due_ms_ = kNow;
    bool is_exact_ = false;
    bool counts_quotes_ = true;
};

}  // namespace ami
