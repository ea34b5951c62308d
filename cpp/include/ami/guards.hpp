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
    explicit Guards(const RiskPolicy& policy) : p(policy) {}

    Verdict judge(Action proposed, bool has_size, double size_usd, const GuardContext& c) const {
        Finder f(proposed);
        const bool is_act = proposed == Action::ACT;
        if (!c.has_market) f.miss_context();
        check_operations(c, f);
        if (c.has_market) check_market(c, f);
        check_exposure(c, is_act, has_size, size_usd, f);
        check_counts(c, f);
        check_adverse(Code::adverse_selection_15, c, 0, p.adv15_max_ticks, f);
        check_adverse(Code::adverse_selection_60, c, 1, p.adv60_max_ticks, f);
        if (c.has_market && c.sigma_spike_z > p.sigma_spike_z_max) f.hold(Code::sigma_spike);
        const double cost = c.has_market ? c.cost_ticks : p.cost_ticks;
        if (is_act && !(c.tp_ticks >= cost + p.min_profit_ticks)) f.hold(Code::insufficient_profit_potential);
        check_streak(c, f);
        check_drawdown(c, f);
        check_pauses(c, f);
        check_orders(c, is_act, has_size, size_usd, f);
        if (proposed == Action::EXIT && c.abs_inventory == 0.0) f.lower_exit();

        Verdict verdict;
        verdict.action = f.action();
        verdict.codes = f.codes;
        verdict.held_codes = f.held;
        verdict.pulls = (f.codes & (kPullCodes | kContextMissing)) != 0;
        verdict.size_usd = f.codes != 0 ? f.left : size_usd;
        return verdict;
    }

private:
    // What was found so far, and the most severe action that it asks for.
    struct Finder {
        explicit Finder(Action proposal) : proposed(proposal) {}

        void ask(Code code, Action action) {
            codes |= bit(code);
            if (severity(action) > rank) {
                rank = severity(action);
                asked = action;
            }
        }
        void hold(Code code) {
            held |= bit(code);
            ask(code, Action::HOLD);
        }
        void clamp(Code code, double size_usd) {
            codes |= bit(code);
            left = std::min(left, size_usd);
        }
        void miss_context() {
            codes |= kContextMissing;
            held |= kContextMissing;
            rank = severity(Action::HOLD);
            asked = Action::HOLD;
        }
        // There is nothing to exit from: the one finding that makes a proposal less severe.
        void lower_exit() {
            hold(Code::no_inventory_to_exit);
            is_exit_lowered = true;
        }
        Action action() const {
            const Action start = is_exit_lowered ? Action::HOLD : proposed;
            return rank > severity(start) ? asked : start;
        }

        Action proposed;
        Action asked = Action::ACT;
        int rank = -1;
        bool is_exit_lowered = false;
        std::uint64_t codes = 0;
        std::uint64_t held = 0;
        double left = std::numeric_limits<double>::infinity();
    };

    void check_operations(const GuardContext& c, Finder& f) const {
        if (c.now_ms < c.ops_cooldown_until_ms) f.hold(Code::ops_cooldown);
        if (p.max_429_per_window != 0 && c.rate_limits_in_window >= p.max_429_per_window) f.hold(Code::rate_limit_429);
        if (p.max_ws_reconnects_per_window != 0 && c.ws_reconnects_in_window >= p.max_ws_reconnects_per_window) {
            f.hold(Code::ws_reconnect_limit);
        }
        if ((c.latched & bit(Code::kill_switch)) != 0) f.ask(Code::kill_switch, Action::STOP);
    }

    void check_market(const GuardContext& c, Finder& f) const {
        if (c.now_ms - c.last_event_ts_ms > p.staleness_ms) f.hold(Code::staleness_exceeded);
        if (c.depth < p.min_depth || (p.min_depth_p10_market != 0.0 && c.depth_p10_5m < p.min_depth_p10_market)) {
            f.hold(Code::insufficient_depth);
        }
        if (!(c.spread_bps <= p.max_spread_bps)) {
            f.hold(std::isnan(c.spread_bps) ? Code::one_sided_book : Code::spread_too_wide);
        }
        if (std::isnan(c.sigma_5m) || (p.sigma_5m_max != 0.0 && c.sigma_5m > p.sigma_5m_max)) {
            f.hold(Code::regime_volatile);
        }
        // Without a limit a finite spread is never too wide, whatever it is in basis points.
        if (p.spread_med_5m_max_bps != 0.0 || !std::isfinite(c.spread_med_5m)) {
            const double wide_bps =
                c.mid > 0.0 ? 1e4 * c.spread_med_5m / c.mid : std::numeric_limits<double>::infinity();
            if (std::isnan(wide_bps) || std::isnan(c.spread_med_5m) ||
                (p.spread_med_5m_max_bps != 0.0 && wide_bps > p.spread_med_5m_max_bps)) {
                f.hold(Code::regime_wide);
            }
        }
        if (std::isnan(c.depth_p10_5m) || (p.depth_p10_5m_min != 0.0 && c.depth_p10_5m < p.depth_p10_5m_min)) {
            f.hold(Code::regime_thin);
        }
    }

    double room(const GuardContext& c) const {
        return p.exposure_headroom_frac * p.max_total_exposure_usd - c.current_total_exposure_usd;
    }

    void check_exposure(const GuardContext& c, bool is_act, bool has_size, double size_usd, Finder& f) const {
        if (c.current_total_exposure_usd >= p.max_total_exposure_usd) {
            f.ask(Code::total_exposure_exceeded, Action::EXIT);
        } else if (is_act && !(room(c) > 0.0 && (!has_size || size_usd <= room(c)))) {
            if (room(c) <= 0.0) {
                f.hold(Code::exposure_limit);
            } else {
                f.clamp(Code::exposure_limit, room(c));
            }
        }
        if (is_act && has_size && size_usd > p.max_per_market_usd) {
            if (p.max_per_market_usd == 0.0) {
                f.hold(Code::size_clamped);
            } else {
                f.clamp(Code::size_clamped, p.max_per_market_usd);
            }
        }
        if (std::fabs(c.abs_inventory) >= p.max_abs_inventory) f.ask(Code::inventory_limit, Action::EXIT);
    }

    void check_counts(const GuardContext& c, Finder& f) const {
        if (c.cancels_in_window >= p.cancel_rate_limit) f.hold(Code::cancel_rate_exceeded);
        if ((c.latched & bit(Code::daily_loss_stop)) != 0 || c.daily_pnl <= -p.daily_loss_stop_usd) {
            f.ask(Code::daily_loss_stop, Action::STOP);
        }
        if (c.errors_in_window > 0 && c.steps_in_window >= kMinStepsForErrorRate &&
            static_cast<double>(c.errors_in_window) / static_cast<double>(c.steps_in_window) > p.error_rate_max) {
            f.hold(Code::error_rate_exceeded);
        }
        if ((c.latched & bit(Code::circuit_breaker)) != 0 || c.recent_failures >= p.circuit_breaker_failures) {
            f.ask(Code::circuit_breaker, Action::STOP);
        }
    }

    void check_adverse(Code code, const GuardContext& c, int horizon, double limit, Finder& f) const {
        if (c.now_ms < c.adverse_until_ms[horizon]) {
            f.hold(code);
        } else if (c.adverse_ticks[horizon] > limit) {
            if (p.adverse_cooldown_ms != 0) {
                f.ask(code, Action::CANCEL);
            } else {
                f.hold(code);
            }
        }
    }

    void check_streak(const GuardContext& c, Finder& f) const {
        if (c.now_ms < c.streak_cooldown_until_ms) {
            f.hold(Code::loss_streak);
        } else if (p.max_consecutive_losses != 0 && c.consecutive_losses >= p.max_consecutive_losses) {
            f.ask(Code::loss_streak, Action::CANCEL);
        }
    }

    void check_drawdown(const GuardContext& c, Finder& f) const {
        const bool is_deep = p.max_drawdown_stop_usd != 0.0 && c.drawdown_usd >= p.max_drawdown_stop_usd;
        const bool is_low = p.equity_floor_usd != 0.0 && c.equity_usd <= p.equity_floor_usd;
        if (is_low) f.ask(Code::equity_floor, Action::STOP);
        if (is_deep || (!is_low && (c.latched & bit(Code::drawdown_stop)) != 0)) f.ask(Code::drawdown_stop, Action::STOP);
    }

    void check_pauses(const GuardContext& c, Finder& f) const {
        if (c.now_ms < c.throttle_refresh_until_ms) f.hold(Code::throttle_active);
        if (c.now_ms < c.cooldown_until_ms) f.hold(Code::post_fill_cooldown);
        if (c.now_ms < c.quote_budget_until_ms ||
            (p.quote_cap_per_window != 0 && c.quotes_in_window >= p.quote_cap_per_window)) {
            f.hold(Code::quote_budget);
        }
    }

    void check_orders(const GuardContext& c, bool is_act, bool has_size, double size_usd, Finder& f) const {
        if (p.max_open_orders != 0 && c.open_orders >= p.max_open_orders) f.hold(Code::max_open_orders);
        if (p.max_active_markets != 0 && c.active_markets >= p.max_active_markets) f.hold(Code::max_active_markets);
        if (p.min_order_usd != 0.0 && is_act && has_size && std::min(size_usd, f.left) < p.min_order_usd) {
            f.hold(Code::below_min_order);
        }
    }

    const RiskPolicy& p;
};

}  // namespace ami
