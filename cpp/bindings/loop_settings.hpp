// Policy, instruments and settings of a loop as Python writes them down.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <ami/decision_core.hpp>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>


inline ami::RiskPolicy read_policy(const std::vector<double>& values) {
    if (values.size() != ami::kPolicyCount) throw std::invalid_argument("a policy needs one value a key");
    return ami::read_policy([&values](int i) { return values[static_cast<std::size_t>(i)]; });
}

inline ami::Instrument read_instrument(const std::vector<double>& v) {
    if (v.size() != 8) throw std::invalid_argument("an instrument needs eight values");
    return {v[0], v[1], v[2], v[3], v[4], v[5] != 0.0, v[6], v[7]};
}

inline ami::LoopSettings read_settings(const nanobind::dict& s, const double* draws, std::size_t draw_count,
                                       const std::vector<double>& model_params) {
    const auto number = [&s](const char* name) { return nanobind::cast<double>(s[name]); };
    const auto whole = [&s](const char* name) { return nanobind::cast<std::int64_t>(s[name]); };
    return {read_policy(nanobind::cast<std::vector<double>>(s["policy"])),
            read_instrument(nanobind::cast<std::vector<double>>(s["instrument"])),
            read_instrument(nanobind::cast<std::vector<double>>(s["venue_instrument"])),
            nanobind::cast<bool>(s["is_venue_on_grid"]),
            static_cast<ami::Queue>(whole("queue")),
            draws,
            draw_count,
            {whole("refresh_ms"), number("min_requote_ticks"), whole("order_ttl_ms"), whole("post_fill_cooldown_ms"),
             whole("max_replacements_per_min")},
            {number("tp_ticks"), number("sl_ticks"), number("T_max_ms")},
            {number("confidence_threshold"), number("imbalance_threshold"), number("max_size_usd")},
            reinterpret_cast<ami::ModelFunction>(nanobind::cast<std::uintptr_t>(s["model"])),
            model_params.data(),
            number("start_cash"),
            whole("timer_ns"),
            nanobind::cast<bool>(s["times_bars"]),
            nanobind::cast<bool>(s["is_table_checked"]),
            nanobind::cast<bool>(s["is_dry"])};
}
