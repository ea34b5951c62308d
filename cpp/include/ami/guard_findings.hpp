// What the guards found, told in full: for each code its value, its limit and what it asks for, as dmc/guards.py tells it.
//
// `Guards` has decided which codes a verdict has. This is only worked out where a decision is written down.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "ami/guards.hpp"

namespace ami {

// A number as Python holds it: whole, real, or a truth.
struct Quantity {
    enum Kind { whole, real, flag };

    Kind kind = real;
    std::int64_t number = 0;  // of a whole number or a truth
    double size = 0.0;        // of a real one

    Quantity() = default;
    Quantity(std::int64_t n) : kind(whole), number(n) {}
    Quantity(double n) : size(n) {}
    Quantity(bool is_true) : kind(flag), number(is_true ? 1 : 0) {}
};

struct Finding {
    Code code = Code{};
    Quantity value;
    Quantity limit;
    Action action = Action::HOLD;
    bool is_clamp = false;  // it asks for a smaller size, and for no action

    int rank() const { return is_clamp ? kClampSeverity : severity(action); }
};

// All findings of a verdict, in the order of the guards, and what begins with them.
struct Findings {
    // One code has two conditions; every other has one.
    std::array<Finding, kCodeCount + 1> list;
    std::size_t count = 0;
    std::int64_t throttle_ms = 0;
    std::int64_t cooldown_ms = 0;

    static Guard guard_of(const Finding& finding) { return kCodeGuard[static_cast<std::size_t>(finding.code)]; }
};

class FindingTeller {
public:
    FindingTeller(const RiskPolicy& policy, const GuardContext& context, bool has_size, double size_usd)
        : p_(policy), c_(context), has_size_(has_size), size_usd_(size_usd) {}

    // Of a verdict of the same guards on the same context, in which the market was known.
    void tell(const Verdict& verdict, Findings& found) const {
        found = Findings{};
        left_ = has_size_ ? size_usd_ : std::numeric_limits<double>::infinity();
        for (int place = 0; place < kCodeCount; ++place) {
            const Code code = static_cast<Code>(place);
            if ((verdict.codes & bit(code)) == 0) continue;
            const bool holds = (verdict.held_codes & bit(code)) != 0;
            Finding finding;
            finding.code = code;
            finding.is_clamp = !holds && (code == Code::exposure_limit || code == Code::size_clamped);
            finding.action = holds ? Action::HOLD : severest(code);
            if (code == Code::insufficient_depth) {
                tell_depth(finding, found);
                continue;
            }
            measure(finding);
            if (finding.is_clamp) left_ = std::min(left_, code == Code::exposure_limit ? room() : p_.max_per_market_usd);
            begin(code, holds, found);
            found.list[found.count++] = finding;
        }
    }

private:
    // What a code asks for that neither holds nor clamps.
    static Action severest(Code code) {
        switch (code) {
            case Code::total_exposure_exceeded:
            case Code::inventory_limit: return Action::EXIT;
            case Code::adverse_selection_15:
            case Code::adverse_selection_60:
            case Code::loss_streak: return Action::CANCEL;
            default: return Action::STOP;
        }
    }

    double room() const { return p_.exposure_headroom_frac * p_.max_total_exposure_usd - c_.current_total_exposure_usd; }

    double median_spread_bps() const {
        return c_.mid > 0.0 ? 1e4 * c_.spread_med_5m / c_.mid : std::numeric_limits<double>::infinity();
    }

    void tell_depth(Finding finding, Findings& found) const {
        if (c_.depth < p_.min_depth) {
            finding.value = c_.depth;
            finding.limit = p_.min_depth;
            found.list[found.count++] = finding;
        }
        if (p_.min_depth_p10_market != 0.0 && c_.depth_p10_5m < p_.min_depth_p10_market) {
            finding.value = c_.depth_p10_5m;
            finding.limit = p_.min_depth_p10_market;
            found.list[found.count++] = finding;
        }
    }

    // Throttle and cooldowns that begin.
    void begin(Code code, bool holds, Findings& found) const {
        const auto pause = [&found](std::int64_t ms) { found.cooldown_ms = std::max(found.cooldown_ms, ms); };
        if (code == Code::cancel_rate_exceeded) found.throttle_ms = p_.throttle_refresh_ms;
        if (code == Code::quote_budget && c_.now_ms >= c_.quote_budget_until_ms) pause(p_.quote_budget_cooldown_ms);
        if (holds) return;
        if (code == Code::loss_streak) pause(p_.streak_cooldown_ms);
        if (code == Code::adverse_selection_15 || code == Code::adverse_selection_60) pause(p_.adverse_cooldown_ms);
    }

    void measure(Finding& f) const {
        const auto is = [&f](Quantity value, Quantity limit) { f.value = value, f.limit = limit; };
        switch (f.code) {
            case Code::ops_denied:
            case Code::kill_switch: return is(true, false);
            case Code::ops_cooldown: return is(c_.now_ms, c_.ops_cooldown_until_ms);
            case Code::rate_limit_429: return is(c_.rate_limits_in_window, p_.max_429_per_window);
            case Code::ws_reconnect_limit: return is(c_.ws_reconnects_in_window, p_.max_ws_reconnects_per_window);
            case Code::staleness_exceeded: return is(c_.now_ms - c_.last_event_ts_ms, p_.staleness_ms);
            case Code::insufficient_depth: return;
            case Code::spread_too_wide:
            case Code::one_sided_book: return is(c_.spread_bps, p_.max_spread_bps);
            case Code::regime_volatile: return is(c_.sigma_5m, p_.sigma_5m_max);
            case Code::regime_wide: return is(median_spread_bps(), p_.spread_med_5m_max_bps);
            case Code::regime_thin: return is(c_.depth_p10_5m, p_.depth_p10_5m_min);
            case Code::total_exposure_exceeded: return is(c_.current_total_exposure_usd, p_.max_total_exposure_usd);
            case Code::exposure_limit:
                return is(has_size_ ? c_.current_total_exposure_usd + size_usd_ : c_.current_total_exposure_usd,
                          p_.exposure_headroom_frac * p_.max_total_exposure_usd);
            case Code::size_clamped: return is(size_usd_, p_.max_per_market_usd);
            case Code::inventory_limit: return is(c_.abs_inventory, p_.max_abs_inventory);
            case Code::cancel_rate_exceeded: return is(c_.cancels_in_window, p_.cancel_rate_limit);
            case Code::daily_loss_stop: return is(c_.daily_pnl, -p_.daily_loss_stop_usd);
            case Code::error_rate_exceeded:
                return is(static_cast<double>(c_.errors_in_window) / static_cast<double>(c_.steps_in_window),
                          p_.error_rate_max);
            case Code::circuit_breaker: return is(c_.recent_failures, p_.circuit_breaker_failures);
            case Code::adverse_selection_15: return is(c_.adverse_ticks[0], p_.adv15_max_ticks);
            case Code::adverse_selection_60: return is(c_.adverse_ticks[1], p_.adv60_max_ticks);
            case Code::sigma_spike: return is(c_.sigma_spike_z, p_.sigma_spike_z_max);
            case Code::insufficient_profit_potential: return is(c_.tp_ticks, c_.cost_ticks + p_.min_profit_ticks);
            case Code::loss_streak: return is(c_.consecutive_losses, p_.max_consecutive_losses);
            case Code::drawdown_stop: return is(c_.drawdown_usd, p_.max_drawdown_stop_usd);
            case Code::equity_floor: return is(c_.equity_usd, p_.equity_floor_usd);
            case Code::throttle_active: return is(c_.now_ms, c_.throttle_refresh_until_ms);
            case Code::post_fill_cooldown: return is(c_.now_ms, c_.cooldown_until_ms);
            case Code::quote_budget: return is(c_.quotes_in_window, p_.quote_cap_per_window);
            case Code::max_open_orders: return is(c_.open_orders, p_.max_open_orders);
            case Code::max_active_markets: return is(c_.active_markets, p_.max_active_markets);
            case Code::below_min_order: return is(left_, p_.min_order_usd);
            case Code::no_inventory_to_exit: return is(c_.abs_inventory, 0.0);
        }
    }

    const RiskPolicy& p_;
    const GuardContext& c_;
    bool has_size_;
    double size_usd_;
    mutable double left_ = 0.0;  // of the order, after the clamps so far
};

}  // namespace ami
