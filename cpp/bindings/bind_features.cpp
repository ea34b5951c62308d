// Python's view of the feature builder: the engine that features/backends/native.py wraps.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "feature_engine.hpp"

namespace nb = nanobind;

namespace {

using MaybeFloats = std::optional<arrays::Floats>;
using MaybeInts = std::optional<arrays::Ints>;
using MaybeLevels = std::optional<arrays::LevelTable>;

// A column of another length than the table would be read past its end.
template <class Array>
auto column(const std::optional<Array>& array, std::size_t rows, const char* name) -> decltype(array->data()) {
    if (!array) return nullptr;
    if (array->shape(0) != rows) throw std::invalid_argument(std::string("column `") + name + "` must have one value a row");
    return array->data();
}

nb::tuple run(FeatureEngine& engine, std::size_t rows, const MaybeInts& ts, const MaybeInts& ts_fallback,
              std::int64_t ns_per_ts, const MaybeFloats& bid, const MaybeFloats& ask, const MaybeFloats& bid_depth,
              const MaybeFloats& ask_depth, const MaybeLevels& bids, const MaybeLevels& asks, const MaybeInts& kind,
              const MaybeFloats& price, const MaybeFloats& size, const MaybeInts& aggressor, const MaybeInts& now_ns,
              const arrays::Rows& out) {
    ami::EventColumns columns;
    columns.rows = rows;
    columns.ts = column(ts, rows, "ts");
    columns.ts_fallback = column(ts_fallback, rows, "ts_fallback");
    columns.ns_per_ts = ns_per_ts;
    columns.bid = column(bid, rows, "bid");
    columns.ask = column(ask, rows, "ask");
    columns.bid_depth = column(bid_depth, rows, "bid_depth");
    columns.ask_depth = column(ask_depth, rows, "ask_depth");
    columns.bids = column(bids, rows, "bids");
    columns.asks = column(asks, rows, "asks");
    columns.bid_levels = bids ? bids->shape(1) : 0;
    columns.ask_levels = asks ? asks->shape(1) : 0;
    columns.kind = column(kind, rows, "kind");
    columns.price = column(price, rows, "price");
    columns.size = column(size, rows, "size");
    columns.aggressor = column(aggressor, rows, "aggressor");
    columns.now_ns = column(now_ns, rows, "now_ns");
    if (kind && (!price || !size)) {
        const std::int64_t* end = columns.kind + rows;
        if (std::find(columns.kind, end, 1) != end) throw std::invalid_argument("trades need `price` and `size`");
    }
    if (ns_per_ts < 1) throw std::invalid_argument("`ns_per_ts` must be at least 1");
    if (out.shape(0) != rows || out.shape(1) != engine.row_size()) {
        throw std::invalid_argument("`out` must have one row an event, and one column a feature");
    }

    const ami::RunReport report = engine.run(columns, out.data());
    nb::dict rejected;
    nb::dict first;
    for (std::size_t i = 1; i < ami::kReasonCount; ++i) {
        if (report.count[i] == 0) continue;
        rejected[ami::kReasonNames[i]] = report.count[i];
        first[ami::kReasonNames[i]] = report.first[i];
    }
    return nb::make_tuple(report.rows, report.accepted, rejected, first);
}

arrays::RowView row_view(nb::handle self) {
    auto& engine = nb::cast<FeatureEngine&>(self);
    return arrays::RowView(engine.row(), {engine.row_size()}, self);
}

}  // namespace

void bind_features(nb::module_& m) {
    const auto now = nb::arg("now_ns") = 0;
    nb::class_<FeatureEngine>(m, "FeatureEngine",
                              "The native backend's state of one symbol. It has one owner: a call while another runs "
                              "raises RuntimeError.")
        .def("__init__",
             [](FeatureEngine* self, double tick_size, double cost_ticks, std::vector<double> level_weights,
                std::uint64_t vol_window, std::uint64_t window_steps, std::int64_t window_ns,
                std::uint64_t sigma_short_steps, std::uint64_t sigma_long_steps,
                const std::vector<std::uint64_t>& signal_steps) {
                 if (level_weights.empty() || vol_window < 1 || sigma_short_steps < 1 ||
                     sigma_long_steps < sigma_short_steps || window_ns < 0 || (window_steps == 0 && window_ns == 0)) {
                     throw std::invalid_argument("these parameters must come from a FeatureConfig");
                 }
                 new (self) FeatureEngine({tick_size, cost_ticks, std::move(level_weights), vol_window, window_steps,
                                           window_ns, sigma_short_steps, sigma_long_steps,
                                           ami::read_signal_params(signal_steps)});
             },
             nb::kw_only(), nb::arg("tick_size"), nb::arg("cost_ticks"), nb::arg("level_weights"), nb::arg("vol_window"),
             nb::arg("window_steps"), nb::arg("window_ns"), nb::arg("sigma_short_steps"), nb::arg("sigma_long_steps"),
             nb::arg("signal_steps"))
        .def("push_quote", &FeatureEngine::push_quote, nb::arg("ts_ns"), nb::arg("bid"), nb::arg("ask"),
             nb::arg("bid_depth"), nb::arg("ask_depth"), now, "Take a book event of one level; a price of 0 is a missing side.")
        .def("push_book", &FeatureEngine::push_book, nb::arg("ts_ns"), nb::arg("bids"), nb::arg("asks"), now,
             "Take a book event with levels, best first: pairs or (n, 2) arrays.")
        .def("push_trade", &FeatureEngine::push_trade, nb::arg("ts_ns"), nb::arg("price"), nb::arg("size"),
             nb::arg("aggressor"), now, "Take a trade.")
        .def("push_from_book", &FeatureEngine::push_from_book, nb::arg("book").lock(), nb::arg("ts_ns"), now)
        .def("push_from_book", &FeatureEngine::push_from_any_book, nb::arg("book"), nb::arg("ts_ns"), now,
             "Take the best levels of an order book as a book event.")
        .def("push", &FeatureEngine::push_quote, nb::arg("ts_ns"), nb::arg("bid"), nb::arg("ask"), nb::arg("bid_depth"),
             nb::arg("ask_depth"), now)
        .def("push", &FeatureEngine::push_event, nb::arg("event"), now,
             "Take an event: a struct or a mapping, or five numbers.")
        .def("accepts", &FeatureEngine::accepts, nb::arg("event"), "Return whether push(event) would take it.")
        .def("update", &FeatureEngine::update_quote, nb::arg("ts_ns"), nb::arg("bid"), nb::arg("ask"),
             nb::arg("bid_depth"), nb::arg("ask_depth"), now)
        .def("update", &FeatureEngine::update_event, nb::arg("event"), now, "push(), and return the row as a vector of its own.")
        .def("vector", &FeatureEngine::current_vector, "The row as it stands, as a vector of its own.")
        .def("run", &run, nb::arg("rows"), nb::arg("ts") = nb::none(), nb::arg("ts_fallback") = nb::none(),
             nb::arg("ns_per_ts") = 1, nb::arg("bid") = nb::none(), nb::arg("ask") = nb::none(),
             nb::arg("bid_depth") = nb::none(), nb::arg("ask_depth") = nb::none(), nb::arg("bids") = nb::none(),
             nb::arg("asks") = nb::none(), nb::arg("kind") = nb::none(), nb::arg("price") = nb::none(),
             nb::arg("size") = nb::none(), nb::arg("aggressor") = nb::none(), nb::arg("now_ns") = nb::none(),
             nb::kw_only(), nb::arg("out").noconvert(),
             "Take a batch and write one row an event; return (rows, accepted, rejected, first).")
        .def("snapshot", &FeatureEngine::save, "Return the whole state.")
        .def("restore", &FeatureEngine::load, nb::arg("state"), "Take a state back; ValueError, and no change, for another's.")
        .def_prop_ro("last_ts_ns", &FeatureEngine::last_ts_ns, "Time of the last accepted event, ns; 0 before the first.")
        .def_prop_ro("row", &row_view, "The live row: read-only for NumPy, overwritten by the next event.");
}
