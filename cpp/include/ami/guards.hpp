// The guards and the precedence law: dmc/guards.py and dmc/modulator.py, spelled for the compiled loop.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "ami/decision_tables.hpp"

namespace ami {

// What the guards are told. Where `has_market` is false, no book was seen yet and its keys are unknown.
struct GuardContext {
    bool has_market = false;
    std::int64_t now_ms = 0;
    std::int64_t last_event_ts_ms = 0;
    double mid = 0.0;
    double spread_bps = 0.0;
    double depth = 0.0;
    double depth_p10_5m = 0.0;
    double sigma_5m = 0.0;
    double spread_med_5m = 0.0;
    double sigma_spike_z = 0.0;
    double cost_ticks = 0.0;
    double tp_ticks = 0.0;
    double current_total_exposure_usd = 0.0;
    double abs_inventory = 0.0;
    double daily_pnl = 0.0;
    double drawdown_usd = 0.0;
    double equity_usd = 0.0;
    double adverse_ticks[2] = {0.0, 0.0};
    std::int64_t open_orders = 0;
    std::int64_t active_markets = 0;
    std::int64_t cancels_in_window = 0;
    std::int64_t quotes_in_window = 0;
    std::int64_t recent_failures = 0;
    std::int64_t rate_limits_in_window = 0;
    std::int64_t ws_reconnects_in_window = 0;
    std::int64_t steps_in_window = 0;
    std::int64_t errors_in_window = 0;
    std::int64_t consecutive_losses = 0;
    std::int64_t throttle_refresh_until_ms = 0;
    std::int64_t cooldown_until_ms = 0;
    std::int64_t ops_cooldown_until_ms = 0;
    std::int64_t adverse_until_ms[2] = {0, 0};
    std::int64_t streak_cooldown_until_ms = 0;
    std::int64_t quote_budget_until_ms = 0;
    std::uint64_t latched = 0;  // codes of the guards that latched
};

constexpr std::uint64_t bit(Code code) { return std::uint64_t{1} << static_cast<int>(code); }
constexpr int severity(Action action) { return kSeverity[static_cast<int>(action)]; }

// Above the codes of the table: keys that a decision needs are not known.
inline constexpr std::uint64_t kContextMissing = std::uint64_t{1} << 63;
static_assert(kCodeCount < 63, "a code needs a bit of its own");

struct Verdict {
    Action action = Action::HOLD;
    std::uint64_t codes = 0;       // what was found
    std::uint64_t held_codes = 0;  // of it, what asks for HOLD
    bool pulls = false;            // a HOLD takes the resting quotes off
    double size_usd = 0.0;         // of an ACT, after clamping
};

class Guards {
public:
    explicit Guards(const RiskPolicy& policy) : p(policy) {
        // A limit of 0 is none: one that no number is beyond, so that nobody has to ask.
        for (double* limit : {&p.min_depth_p10_market, &p.max_drawdown_stop_usd, &p.equity_floor_usd, &p.min_order_usd}) {
            if (*limit == 0.0) *limit = std::numeric_limits<double>::quiet_NaN();
        }
        if (p.sigma_5m_max == 0.0) p.sigma_5m_max = kFar;
        if (p.spread_med_5m_max_bps == 0.0) p.spread_med_5m_max_bps = kFar;
        if (p.depth_p10_5m_min == 0.0) p.depth_p10_5m_min = -kFar;
        for (std::int64_t* limit : {&p.max_open_orders, &p.max_active_markets}) {
            if (*limit == 0) *limit = std::numeric_limits<std::int64_t>::max();
        }
    }

    Verdict judge(Action proposed, bool has_size, double size_usd, const GuardContext& c) const {
        Finder f(proposed);
        check_lasting(c, f);
        check_step(proposed, has_size, size_usd, c, f);
        return f.verdict(size_usd);
    }

    // Whether the guards that look at counts, times and latches alone find something.
    bool finds_lasting(const GuardContext& c) const {
        AnyFinding f;
        check_lasting(c, f);
        return f.is_found;
    }

    // Whether the others do: they look at what moves with every step.
    [[gnu::always_inline]] bool finds_in_step(Action proposed, bool has_size, double size_usd, const GuardContext& c) const {
        AnyFinding f;
        check_step(proposed, has_size, size_usd, c, f);
        return f.is_found;
    }

    // Whether those of money do, whatever is proposed; `room_usd` is what an order may then be worth.
    bool finds_money(const GuardContext& c) const {
        AnyFinding f;
        check_exposure(c, false, false, 0.0, f);
        check_money(c, f);
        return f.is_found;
    }
    double room_usd(double exposure_usd) const { return p.exposure_headroom_frac * p.max_total_exposure_usd - exposure_usd; }

    // Whether the rest of them do, where those of money find nothing in an order of up to `most_usd`.
    [[gnu::always_inline]] bool finds_beside_money(Action proposed, bool has_size, double size_usd, double most_usd,
                                                   const GuardContext& c) const {
        AnyFinding f;
        f.clamp(size_usd > most_usd && proposed == Action::ACT && has_size, Code::size_clamped, most_usd);
        check_terms(proposed, has_size, size_usd, c, f);
        return f.is_found;
    }

private:
    static constexpr double kFar = std::numeric_limits<double>::infinity();

    // What was found so far, and the most severe action that it asks for.
    struct Finder {
        explicit Finder(Action proposal) : proposed(proposal) {}

        void ask(bool is_found, Code code, Action action) {
            if (!is_found) return;
            codes |= bit(code);
            if (severity(action) > rank) {
                rank = severity(action);
                asked = action;
            }
        }
        void hold(bool is_found, Code code) {
            if (is_found) held |= bit(code);
            ask(is_found, code, Action::HOLD);
        }
        // An order can be no larger than `size_usd`; where that is nothing, there is none.
        void clamp(bool is_found, Code code, double size_usd) {
            if (size_usd <= 0.0) return hold(is_found, code);
            if (!is_found) return;
            codes |= bit(code);
            left = std::min(left, size_usd);
        }
        void miss_context(bool is_missing) {
            if (!is_missing) return;
            codes |= kContextMissing;
            held |= kContextMissing;
            rank = std::max(rank, severity(Action::HOLD));
            if (rank == severity(Action::HOLD)) asked = Action::HOLD;
        }
        // There is nothing to exit from: the one finding that makes a proposal less severe.
        void lower_exit(bool is_found) {
            hold(is_found, Code::no_inventory_to_exit);
            is_exit_lowered = is_found;
        }
        Verdict verdict(double size_usd) const {
            const Action start = is_exit_lowered ? Action::HOLD : proposed;
            Verdict verdict;
            verdict.action = rank > severity(start) ? asked : start;
            verdict.codes = codes;
            verdict.held_codes = held;
            verdict.pulls = (codes & (kPullCodes | kContextMissing)) != 0;
            verdict.size_usd = codes != 0 ? left : size_usd;
            return verdict;
        }

        Action proposed;
        Action asked = Action::ACT;
        int rank = -1;
        bool is_exit_lowered = false;
        std::uint64_t codes = 0;
        std::uint64_t held = 0;
        double left = kFar;
    };

    // The same checks, of which most steps need to know only that nothing was found: hence a branch that is never taken.
    struct AnyFinding {
        void ask(bool is, Code, Action) {
            if (is) note();
        }
        void hold(bool is, Code) {
            if (is) note();
        }
        void clamp(bool is, Code, double) {
            if (is) note();
        }
        void miss_context(bool is) {
            if (is) note();
        }
        void lower_exit(bool is) {
            if (is) note();
        }
        [[gnu::noinline, gnu::cold]] void note() { is_found = true; }

        bool is_found = false;
        static constexpr double left = kFar;
    };

    // What is rare stands first in a condition: what the step proposes is not to be guessed from the last one.

    template <class Found>
    void check_lasting(const GuardContext& c, Found& f) const {
        f.hold(c.now_ms < c.ops_cooldown_until_ms, Code::ops_cooldown);
        f.hold(p.max_429_per_window != 0 && (c.rate_limits_in_window >= p.max_429_per_window), Code::rate_limit_429);
        f.hold(p.max_ws_reconnects_per_window != 0 && (c.ws_reconnects_in_window >= p.max_ws_reconnects_per_window),
               Code::ws_reconnect_limit);
        f.ask((c.latched & bit(Code::kill_switch)) != 0, Code::kill_switch, Action::STOP);
        f.hold(c.cancels_in_window >= p.cancel_rate_limit, Code::cancel_rate_exceeded);
        f.hold(has_many_errors(c), Code::error_rate_exceeded);
        f.ask((c.latched & bit(Code::circuit_breaker)) != 0 || (c.recent_failures >= p.circuit_breaker_failures),
              Code::circuit_breaker, Action::STOP);
        check_adverse(Code::adverse_selection_15, c, 0, p.adv15_max_ticks, f);
        check_adverse(Code::adverse_selection_60, c, 1, p.adv60_max_ticks, f);
        check_streak(c, f);
        f.hold(c.now_ms < c.throttle_refresh_until_ms, Code::throttle_active);
        f.hold(c.now_ms < c.cooldown_until_ms, Code::post_fill_cooldown);
        f.hold(c.now_ms < c.quote_budget_until_ms ||
                   (p.quote_cap_per_window != 0 && (c.quotes_in_window >= p.quote_cap_per_window)),
               Code::quote_budget);
    }

    template <class Found>
    [[gnu::always_inline]] void check_step(Action proposed, bool has_size, double size_usd, const GuardContext& c, Found& f) const {
        const bool is_act = proposed == Action::ACT;
        check_exposure(c, is_act, is_act & has_size, size_usd, f);
        check_money(c, f);
        f.hold(c.active_markets >= p.max_active_markets, Code::max_active_markets);
        check_terms(proposed, has_size, size_usd, c, f);
    }

    // The market, and the terms of what is proposed: after the clamps, which leave less of an order.
    template <class Found>
    [[gnu::always_inline]] void check_terms(Action proposed, bool has_size, double size_usd, const GuardContext& c, Found& f) const {
        const bool is_act = proposed == Action::ACT;
        f.miss_context(!c.has_market);
        if (c.has_market) check_market(c, f);
        const double cost = c.has_market ? c.cost_ticks : p.cost_ticks;
        f.hold(!(c.tp_ticks >= cost + p.min_profit_ticks) && is_act, Code::insufficient_profit_potential);
        f.hold(c.open_orders >= p.max_open_orders, Code::max_open_orders);
        f.hold(std::min(size_usd, f.left) < p.min_order_usd && is_act && has_size, Code::below_min_order);
        f.lower_exit(proposed == Action::EXIT && c.abs_inventory == 0.0);
    }

    template <class Found>
    [[gnu::always_inline]] void check_market(const GuardContext& c, Found& f) const {
        f.hold(c.now_ms - c.last_event_ts_ms > p.staleness_ms, Code::staleness_exceeded);
        f.hold(c.depth < p.min_depth || c.depth_p10_5m < p.min_depth_p10_market, Code::insufficient_depth);
        f.hold(!(c.spread_bps <= p.max_spread_bps),
               std::isnan(c.spread_bps) ? Code::one_sided_book : Code::spread_too_wide);
        f.hold(!(c.sigma_5m <= p.sigma_5m_max), Code::regime_volatile);
        // Without a limit a finite spread is never too wide, whatever it is in basis points.
        const auto wide_bps = [&c] { return c.mid > 0.0 ? 1e4 * c.spread_med_5m / c.mid : kFar; };
        f.hold((p.spread_med_5m_max_bps < kFar || !std::isfinite(c.spread_med_5m)) &&
                   (!(wide_bps() <= p.spread_med_5m_max_bps) || std::isnan(c.spread_med_5m)),
               Code::regime_wide);
        f.hold(!(c.depth_p10_5m >= p.depth_p10_5m_min), Code::regime_thin);
        f.hold(c.sigma_spike_z > p.sigma_spike_z_max, Code::sigma_spike);
    }

    template <class Found>
    [[gnu::always_inline]] void check_exposure(const GuardContext& c, bool is_act, bool is_sized, double size_usd, Found& f) const {
        const bool is_exceeded = c.current_total_exposure_usd >= p.max_total_exposure_usd;
        const double room = room_usd(c.current_total_exposure_usd);
        const bool is_short = !(room > 0.0 && (size_usd <= room || !is_sized)) && is_act && !is_exceeded;
        f.ask(is_exceeded, Code::total_exposure_exceeded, Action::EXIT);
        f.clamp(is_short, Code::exposure_limit, room);
        f.clamp(size_usd > p.max_per_market_usd && is_sized, Code::size_clamped, p.max_per_market_usd);
        f.ask(std::fabs(c.abs_inventory) >= p.max_abs_inventory, Code::inventory_limit, Action::EXIT);
    }

    template <class Found>
    [[gnu::always_inline]] void check_money(const GuardContext& c, Found& f) const {
        const auto is_latched = [&c](Code code) { return (c.latched & bit(code)) != 0; };
        f.ask(is_latched(Code::daily_loss_stop) || (c.daily_pnl <= -p.daily_loss_stop_usd), Code::daily_loss_stop,
              Action::STOP);
        const bool is_deep = c.drawdown_usd >= p.max_drawdown_stop_usd;
        const bool is_low = c.equity_usd <= p.equity_floor_usd;
        f.ask(is_low, Code::equity_floor, Action::STOP);
        f.ask(is_deep || (is_latched(Code::drawdown_stop) && !is_low), Code::drawdown_stop, Action::STOP);
    }

    bool has_many_errors(const GuardContext& c) const {
        return c.errors_in_window > 0 && c.steps_in_window >= kMinStepsForErrorRate &&
               static_cast<double>(c.errors_in_window) / static_cast<double>(c.steps_in_window) > p.error_rate_max;
    }

    template <class Found>
    void check_adverse(Code code, const GuardContext& c, int horizon, double limit, Found& f) const {
        const bool waits = c.now_ms < c.adverse_until_ms[horizon];
        const bool is_adverse = !waits && (c.adverse_ticks[horizon] > limit);
        const bool has_cooldown = p.adverse_cooldown_ms != 0;
        f.hold(waits || (is_adverse && !has_cooldown), code);
        f.ask(is_adverse && has_cooldown, code, Action::CANCEL);
    }

    template <class Found>
    void check_streak(const GuardContext& c, Found& f) const {
        const bool waits = c.now_ms < c.streak_cooldown_until_ms;
        f.hold(waits, Code::loss_streak);
        f.ask(!waits && p.max_consecutive_losses != 0 && c.consecutive_losses >= p.max_consecutive_losses,
              Code::loss_streak, Action::CANCEL);
    }

    RiskPolicy p;
};

}  // namespace ami
