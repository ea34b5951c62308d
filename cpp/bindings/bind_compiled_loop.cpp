// Python's view of the compiled loop: what backtest/compiled.py calls.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <ami/compiled_loop.hpp>
#include <ami/guard_findings.hpp>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "loop_settings.hpp"

namespace nb = nanobind;

namespace {

// Python reads these records by offset.
static_assert(sizeof(ami::DecisionRecord) == 40 && offsetof(ami::DecisionRecord, is_timer) == 34);
static_assert(sizeof(ami::VenueFill) == 48 && offsetof(ami::VenueFill, is_buy) == 4 && offsetof(ami::VenueFill, step) == 40);

// The arrays of a table, kept alive while their memory is read.
class Table {
public:
    Table(const nb::dict& columns, std::size_t rows) : columns_(columns) { c.rows = rows; }

    void read(const char* name, const double*& to) { to = get<arrays::Floats>(name); }
    void read(const char* name, const std::int64_t*& to) { to = get<arrays::Ints>(name); }
    void read_levels(const char* name, const double*& to, std::size_t& count) {
        if (!has(name)) return;
        const auto levels = nb::cast<arrays::LevelTable>(columns_[name]);
        require(levels.shape(0) == c.rows, name);
        to = levels.data();
        count = levels.shape(1);
    }

    ami::LoopColumns c;

private:
    bool has(const char* name) const { return columns_.contains(name) && !columns_[name].is_none(); }
    static void require(bool fits, const char* name) {
        if (!fits) throw std::invalid_argument(std::string("column `") + name + "` must have one value a row");
    }
    template <class Array>
    auto get(const char* name) -> decltype(std::declval<Array>().data()) {
        if (!has(name)) return nullptr;
        const auto array = nb::cast<Array>(columns_[name]);
        require(array.shape(0) == c.rows, name);
        return array.data();
    }

    const nb::dict& columns_;
};

void read_columns(Table& table) {
    ami::LoopColumns& c = table.c;
    table.read("ts", c.ts);
    table.read("bid", c.bid);
    table.read("ask", c.ask);
    table.read("bid_depth", c.bid_depth);
    table.read("ask_depth", c.ask_depth);
    table.read_levels("bids", c.bids, c.bid_levels);
    table.read_levels("asks", c.asks, c.ask_levels);
    table.read("kind", c.kind);
    table.read("price", c.price);
    table.read("size", c.size);
    table.read("aggressor", c.aggressor);
    table.read("open", c.open);
    table.read("high", c.high);
    table.read("low", c.low);
    table.read("volume", c.volume);
    table.read("image", c.image);
    table.read("has_gap", c.has_gap);
    if (c.ts == nullptr) throw std::invalid_argument("a table needs `ts`");
    for (std::size_t i = 0; c.kind != nullptr && i < c.rows; ++i) {
        const bool is_trade = c.kind[i] == static_cast<std::int64_t>(ami::RowKind::trade);
        const bool is_bar = c.kind[i] == static_cast<std::int64_t>(ami::RowKind::bar);
        if (is_trade && (c.price == nullptr || c.size == nullptr)) throw std::invalid_argument("trades need `price` and `size`");
        if (is_bar && (c.open == nullptr || c.high == nullptr || c.low == nullptr || c.bid == nullptr || c.volume == nullptr)) {
            throw std::invalid_argument("bars need `open`, `high`, `low`, `close` and `volume`");
        }
    }
}

ami::FeatureParams read_features(const nb::dict& f) {
    return {nb::cast<double>(f["tick_size"]),
            nb::cast<double>(f["cost_ticks"]),
            nb::cast<std::vector<double>>(f["level_weights"]),
            nb::cast<std::uint64_t>(f["vol_window"]),
            nb::cast<std::uint64_t>(f["window_steps"]),
            nb::cast<std::int64_t>(f["window_ns"]),
            nb::cast<std::uint64_t>(f["sigma_short_steps"]),
            nb::cast<std::uint64_t>(f["sigma_long_steps"]),
            ami::read_signal_params(nb::cast<std::vector<std::uint64_t>>(f["signal_steps"]))};
}

template <class Counts>
nb::list listed(const Counts& counts) {
    nb::list list;
    for (const std::int64_t count : counts) list.append(count);
    return list;
}

nb::dict told(const ami::CompiledLoop& loop) {
    const ami::DecisionCore& core = loop.core();
    const ami::LoopCounts& counts = core.counts;
    const ami::Account& account = core.account();
    const ami::QuoteFault& fault = core.keeper().last_fault();
    nb::dict d;
    d["steps"] = counts.steps;
    d["timers"] = counts.timers;
    d["rows_read"] = counts.rows_read;
    d["submitted"] = counts.submitted;
    d["canceled"] = counts.canceled;
    d["rejected"] = counts.rejected;
    d["skipped"] = counts.skipped;
    d["errors"] = counts.errors;
    d["is_last_error_the_models"] = counts.is_last_error_the_models;
    nb::list latches;
    for (const ami::Guard guard : core.risk().latches()) latches.append(ami::kGuardFlags[static_cast<int>(guard) - 1]);
    d["latches"] = latches;
    d["actions"] = listed(counts.actions);
    d["proposals"] = listed(counts.proposals);
    d["codes"] = listed(counts.codes);
    d["held_codes"] = listed(counts.held_codes);
    d["held_reasons"] = listed(counts.held_reasons);
    nb::dict refused;
    for (std::size_t i = 1; i < ami::kReasonCount; ++i) {
        if (counts.refused[i] != 0) refused[ami::kReasonNames[i]] = counts.refused[i];
    }
    d["refused"] = refused;
    d["position"] = account.position.qty();
    d["avg_price"] = account.position.avg_price();
    d["realized"] = account.position.realized();
    d["fees"] = account.position.fees();
    d["unrealized"] = account.unrealized;
    d["equity"] = account.equity;
    d["now_ns"] = core.now_ns();
    d["best"] = nb::make_tuple(core.view.bid, core.view.ask);
    d["max_drawdown"] = account.max_drawdown;
    d["open_count"] = account.open_count;
    d["close_count"] = account.close_count;
    const ami::Quotes& q = fault.quotes;
    d["quote_fault"] = nb::make_tuple(q.bid_quote, q.ask_quote, q.size_usd, q.post_only, fault.bid, fault.ask);
    d["fill_count"] = core.fills.size();
    d["fills"] = nb::bytes(reinterpret_cast<const char*>(core.fills.data()), core.fills.size() * sizeof(ami::VenueFill));
    d["decisions"] =
        nb::bytes(reinterpret_cast<const char*>(loop.decisions.data()), loop.decisions.size() * sizeof(ami::DecisionRecord));
    return d;
}

nb::dict run(const nb::dict& columns, std::size_t rows, const nb::dict& features, const nb::dict& settings,
             const arrays::Floats& draws, const std::vector<double>& model_params, std::int64_t steps, bool records) {
    Table table(columns, rows);
    read_columns(table);
    ami::CompiledLoop loop(read_features(features), read_settings(settings, draws.data(), draws.shape(0), model_params));
    {
        const nb::gil_scoped_release release;
        loop.run(table.c, steps, records);
    }
    return told(loop);
}

nb::object told(const ami::Quantity& quantity) {
    switch (quantity.kind) {
        case ami::Quantity::whole: return nb::int_(quantity.number);
        case ami::Quantity::flag: return nb::bool_(quantity.number != 0);
        case ami::Quantity::real: break;
    }
    return nb::float_(quantity.size);
}

// What was found: flag, code, value, limit and what is asked for; then the throttle and the cooldown that begin, ms.
nb::tuple told(const ami::FindingTeller& teller, const ami::Verdict& verdict) {
    ami::Findings found;
    teller.tell(verdict, found);
    nb::list list;
    for (std::size_t i = 0; i < found.count; ++i) {
        const ami::Finding& f = found.list[i];
        list.append(nb::make_tuple(ami::kGuardFlags[static_cast<std::size_t>(ami::Findings::guard_of(f)) - 1],
                                   ami::kCodeNames[static_cast<std::size_t>(f.code)], told(f.value), told(f.limit),
                                   f.is_clamp ? "clamp" : ami::kActionNames[static_cast<std::size_t>(f.action)]));
    }
    return nb::make_tuple(list, found.throttle_ms, found.cooldown_ms);
}

// One judgement of the guards alone, for a test that holds each of them against its Python definition.
nb::tuple judge(const std::vector<double>& policy, int proposed, bool has_size, double size_usd, const nb::dict& context) {
    const ami::RiskPolicy limits = read_policy(policy);
    const auto number = [&context](const char* name) { return nb::cast<double>(context[name]); };
    const auto whole = [&context](const char* name) { return nb::cast<std::int64_t>(context[name]); };
    ami::GuardContext c;
    c.has_market = nb::cast<bool>(context["has_market"]);
    c.now_ms = whole("now_ms");
    c.last_event_ts_ms = whole("last_event_ts_ms");
    c.mid = number("mid");
    c.spread_bps = number("spread_bps");
    c.depth = number("depth");
    c.depth_p10_5m = number("depth_p10_5m");
    c.sigma_5m = number("sigma_5m");
    c.spread_med_5m = number("spread_med_5m");
    c.sigma_spike_z = number("sigma_spike_z");
    c.cost_ticks = number("cost_ticks");
    c.tp_ticks = number("tp_ticks");
    c.current_total_exposure_usd = number("current_total_exposure_usd");
    c.abs_inventory = number("abs_inventory");
    c.daily_pnl = number("daily_pnl");
    c.drawdown_usd = number("drawdown_usd");
    c.equity_usd = number("equity_usd");
    c.adverse_ticks[0] = number("adverse_15_ticks");
    c.adverse_ticks[1] = number("adverse_60_ticks");
    c.open_orders = whole("open_orders");
    c.active_markets = whole("active_markets");
    c.cancels_in_window = whole("cancels_in_window");
    c.quotes_in_window = whole("quotes_in_window");
    c.recent_failures = whole("recent_failures");
    c.rate_limits_in_window = whole("rate_limits_in_window");
    c.ws_reconnects_in_window = whole("ws_reconnects_in_window");
    c.steps_in_window = whole("steps_in_window");
    c.errors_in_window = whole("errors_in_window");
    c.consecutive_losses = whole("consecutive_losses");
    c.throttle_refresh_until_ms = whole("throttle_refresh_until_ms");
    c.cooldown_until_ms = whole("cooldown_until_ms");
    c.ops_cooldown_until_ms = whole("ops_cooldown_until_ms");
    c.adverse_until_ms[0] = whole("adverse_15_cooldown_until_ms");
    c.adverse_until_ms[1] = whole("adverse_60_cooldown_until_ms");
    c.streak_cooldown_until_ms = whole("streak_cooldown_until_ms");
    c.quote_budget_until_ms = whole("quote_budget_until_ms");
    const ami::Code latching[] = {ami::Code::kill_switch, ami::Code::daily_loss_stop, ami::Code::circuit_breaker,
                                  ami::Code::drawdown_stop};
    for (const nb::handle flag : context["latched"]) {
        for (const ami::Code code : latching) {
            const ami::Guard guard = ami::kCodeGuard[static_cast<std::size_t>(code)];
            const char* name = ami::kGuardFlags[static_cast<std::size_t>(guard) - 1];
            if (nb::cast<std::string>(flag) == name) c.latched |= ami::bit(code);
        }
    }
    const ami::Verdict v = ami::Guards(limits).judge(static_cast<ami::Action>(proposed), has_size, size_usd, c);
    return nb::make_tuple(static_cast<int>(v.action), v.codes, v.held_codes, v.pulls, v.size_usd,
                          told(ami::FindingTeller(limits, c, has_size, size_usd), v));
}

// What the exact money of a run is computed with, for a test that holds it against Python's `decimal`.
nb::tuple exact_arithmetic(double a, double b, int precision, int places) {
    using ami::Decimal;
    const Decimal x = Decimal::from_double(a, places);
    const Decimal y = Decimal::from_double(b);
    const auto digits = static_cast<std::size_t>(precision);
    const Decimal quotient = Decimal::divide(x, y, digits);
    const Decimal error = Decimal::add(Decimal::multiply(quotient, y).rounded(digits), x.negated());
    return nb::make_tuple(Decimal::add(x, y).to_double(), Decimal::multiply(x, y).to_double(), Decimal::compare(x, y),
                          quotient.to_double(), Decimal::divide_to_double(x, y, digits), error.to_double(),
                          Decimal::divide_whole(x.abs(), y.abs()).to_double());
}

template <std::size_t N>
nb::tuple names(const char* const (&list)[N]) {
    nb::list made;
    for (const char* name : list) made.append(name);
    return nb::tuple(made);
}

}  // namespace

void bind_compiled_loop(nb::module_& m) {
    m.attr("ACTIONS") = names(ami::kActionNames);
    m.attr("POLICY_KEYS") = names(ami::kPolicyNames);
    m.attr("GUARD_FLAGS") = names(ami::kGuardFlags);
    m.attr("REASON_CODES") = names(ami::kCodeNames);
    m.attr("MODEL_REASONS") = names(ami::kReasonBitNames);
    m.def("run_compiled", &run, nb::arg("columns"), nb::arg("rows"), nb::arg("features"), nb::arg("settings"),
          nb::arg("draws"), nb::arg("model_params"), nb::arg("steps"), nb::arg("records"),
          "Run the loop over a table; return what it counted, its fills, and its decisions as records.");
    m.def("exact_arithmetic", &exact_arithmetic, nb::arg("a"), nb::arg("b"), nb::arg("precision"),
          nb::arg("places"),
          "Read `a` at so many places where it has no more; return a + b, a × b, their order, a / b twice, (a / b) × b − a and the whole part of |a| / |b|, in decimals.");
    m.def("judge", &judge, nb::arg("policy"), nb::arg("proposed"), nb::arg("has_size"), nb::arg("size_usd"),
          nb::arg("context"), "Let the guards judge one proposal; return action, codes, codes that hold, pull, size, and all that was found.");
}
