// What the benchmark suite cannot time from Python: single kernels, single pushes, a stream without an interpreter.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <ami/blocked_maximum.hpp>
#include <ami/exact_moments.hpp>
#include <ami/feature_builder.hpp>
#include <ami/lag_ring.hpp>
#include <ami/portable_log.hpp>
#include <ami/rolling_quantile.hpp>
#include <ami/rolling_stats.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "arrays.hpp"

namespace nb = nanobind;

namespace {

using FloatsOut = nb::ndarray<double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using IntsOut = nb::ndarray<std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void require(bool holds, const char* rule) {
    if (!holds) throw std::invalid_argument(rule);
}

void roll_std(const double* values, std::size_t count, std::size_t window, double* out) {
    ami::LagRing<double> ring(window);
    ami::ExactMoments moments;
    for (std::size_t i = 0; i < count; ++i) {
        double& place = ring.advance();
        if (i < window) {
            moments.add(values[i]);
        } else {
            moments.replace(place, values[i]);
        }
        place = values[i];
        out[i] = moments.std_dev();
    }
}

template <class Read>
void roll_quantile(double q, const double* values, std::size_t count, std::size_t window, double* out, Read read) {
    ami::RollingQuantile samples(q, window);
    for (std::size_t i = 0; i < count; ++i) {
        if (samples.size() == window) {
            samples.replace_oldest(values[i]);
        } else {
            samples.push(values[i]);
        }
        out[i] = read(samples);
    }
}

void roll_max(const double* values, std::size_t count, std::size_t window, double* out) {
    ami::BlockedMaximum maximum(window);
    for (std::size_t i = 0; i < count; ++i) {
        maximum.push(values[i]);
        maximum.drop_before(i < window ? 0 : i + 1 - window);
        out[i] = maximum.value();
    }
}

void log_returns(const double* values, std::size_t count, double* out) {
    out[0] = 0.0;
    for (std::size_t i = 1; i < count; ++i) out[i] = ami::log_return(values[i], values[i - 1]);
}

void bench_kernel(const std::string& name, const arrays::Floats& values, std::size_t window, const FloatsOut& out) {
    const std::size_t count = values.shape(0);
    require(out.shape(0) == count && count > 0 && window > 0, "`out` must be as long as `values`, and neither empty");
    const double* in = values.data();
    const nb::gil_scoped_release release;
    if (name == "std") {
        roll_std(in, count, window, out.data());
    } else if (name == "median") {
        roll_quantile(0.5, in, count, window, out.data(), [](const auto& samples) { return samples.median(); });
    } else if (name == "p10") {
        roll_quantile(0.1, in, count, window, out.data(), [](const auto& samples) { return samples.quantile(); });
    } else if (name == "max") {
        roll_max(in, count, window, out.data());
    } else if (name == "log_return") {
        log_returns(in, count, out.data());
    } else {
        throw std::invalid_argument("no such kernel: " + name);
    }
}

std::int64_t nanoseconds() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

ami::FeatureParams params_of(double tick_size, double cost_ticks, std::vector<double> level_weights,
                             std::uint64_t vol_window, std::uint64_t window_steps, std::uint64_t sigma_short_steps,
                             std::uint64_t sigma_long_steps, const std::vector<std::uint64_t>& signal_steps) {
    require(!level_weights.empty() && vol_window > 0 && window_steps > 0 && sigma_short_steps > 0 &&
                sigma_long_steps >= sigma_short_steps,
            "these parameters must come from a FeatureConfig");
    return {tick_size, cost_ticks, std::move(level_weights), vol_window, window_steps, 0, sigma_short_steps,
            sigma_long_steps, ami::read_signal_params(signal_steps)};
}

// Time of each push, the clock's own included, and of as many empty intervals; returns the last row.
nb::list bench_pushes(double tick_size, double cost_ticks, std::vector<double> level_weights, std::uint64_t vol_window,
                      std::uint64_t window_steps, std::uint64_t sigma_short_steps, std::uint64_t sigma_long_steps,
                      const std::vector<std::uint64_t>& signal_steps, const arrays::Ints& ts, const arrays::Floats& bid, const arrays::Floats& ask,
                      const arrays::Floats& bid_depth, const arrays::Floats& ask_depth, const IntsOut& push_ns,
                      const IntsOut& clock_ns) {
    const std::size_t rows = ts.shape(0);
    require(bid.shape(0) == rows && ask.shape(0) == rows && bid_depth.shape(0) == rows && ask_depth.shape(0) == rows &&
                push_ns.shape(0) == rows && clock_ns.shape(0) == rows,
            "all columns must have the same length");
    ami::FeatureBuilder builder(params_of(tick_size, cost_ticks, std::move(level_weights), vol_window, window_steps,
                                          sigma_short_steps, sigma_long_steps, signal_steps));
    {
        const nb::gil_scoped_release release;
        for (std::size_t i = 0; i < rows; ++i) {
            const std::int64_t start = nanoseconds();
            const ami::Fault fault =
                builder.push_quote(ts.data()[i], bid.data()[i], ask.data()[i], bid_depth.data()[i], ask_depth.data()[i], 0);
            push_ns.data()[i] = nanoseconds() - start;
            if (fault) throw fault.error();
        }
        for (std::size_t i = 0; i < rows; ++i) {
            const std::int64_t start = nanoseconds();
            clock_ns.data()[i] = nanoseconds() - start;
        }
    }
    nb::list row;
    for (std::size_t i = 0; i < builder.row_size(); ++i) row.append(builder.row()[i]);
    return row;
}

// A market that repeats every `period` quotes, so that two stretches of one phase cost the same unless state grows.
class QuoteCycle {
public:
    explicit QuoteCycle(std::size_t period) : quotes_(period) {
        std::int64_t mid = 600'000;
        for (Quote& quote : quotes_) {
            // Marsaglia's xorshift64: a fixed stream on every machine.
            state_ ^= state_ << 13;
            state_ ^= state_ >> 7;
            state_ ^= state_ << 17;
            mid += static_cast<std::int64_t>(state_ % 5) - 2;
            mid = std::clamp<std::int64_t>(mid, 599'000, 601'000);
            const std::uint64_t draw = (state_ >> 8) % 100;
            const std::int64_t spread = draw < 70 ? 1 : (draw < 90 ? 2 : (draw < 97 ? 3 : 5));
            quote.bid = static_cast<double>(mid) / 10.0;
            quote.ask = static_cast<double>(mid + spread) / 10.0;
            quote.bid_depth = static_cast<double>((state_ >> 20) % 5'000 + 1) / 1'000.0;
            quote.ask_depth = static_cast<double>((state_ >> 40) % 5'000 + 1) / 1'000.0;
            quote.delay_ns = static_cast<std::int64_t>((state_ >> 30) % 5'000'000);
        }
    }

    void push(ami::FeatureBuilder& builder, std::uint64_t event) const {
        const Quote& quote = quotes_[event % quotes_.size()];
        const std::int64_t ts_ns = 1'000'000 * static_cast<std::int64_t>(event + 1);
        const ami::Fault fault = builder.push_quote(ts_ns, quote.bid, quote.ask, quote.bid_depth, quote.ask_depth,
                                                    ts_ns + quote.delay_ns);
        if (fault) throw fault.error();
    }

private:
    struct Quote {
        double bid = 0.0;
        double ask = 0.0;
        double bid_depth = 0.0;
        double ask_depth = 0.0;
        std::int64_t delay_ns = 0;
    };
    std::uint64_t state_ = 0x9E3779B97F4A7C15;
    std::vector<Quote> quotes_;
};

nb::list bench_stream(double tick_size, double cost_ticks, std::vector<double> level_weights, std::uint64_t vol_window,
                      std::uint64_t window_steps, std::uint64_t sigma_short_steps, std::uint64_t sigma_long_steps,
                      const std::vector<std::uint64_t>& signal_steps, std::uint64_t events, std::uint64_t period) {
    require(period > 0, "`period` must be at least 1");
    ami::FeatureBuilder builder(params_of(tick_size, cost_ticks, std::move(level_weights), vol_window, window_steps,
                                          sigma_short_steps, sigma_long_steps, signal_steps));
    const QuoteCycle market(period);
    for (std::uint64_t event = 0; event < events; ++event) market.push(builder, event);
    nb::list row;
    for (std::size_t i = 0; i < builder.row_size(); ++i) row.append(builder.row()[i]);
    return row;
}

}  // namespace

void bind_bench(nb::module_& m) {
    m.def("bench_kernel", &bench_kernel, nb::arg("name"), nb::arg("values").noconvert(), nb::arg("window"),
          nb::arg("out").noconvert(), "Run one rolling kernel over `values`; for benchmarks.");
    m.def("bench_pushes", &bench_pushes, nb::arg("tick_size"), nb::arg("cost_ticks"), nb::arg("level_weights"),
          nb::arg("vol_window"), nb::arg("window_steps"), nb::arg("sigma_short_steps"), nb::arg("sigma_long_steps"),
          nb::arg("signal_steps"), nb::arg("ts").noconvert(), nb::arg("bid").noconvert(), nb::arg("ask").noconvert(),
          nb::arg("bid_depth").noconvert(), nb::arg("ask_depth").noconvert(), nb::arg("push_ns").noconvert(),
          nb::arg("clock_ns").noconvert(), "Time each push of a stream, and as many empty intervals; for benchmarks.");
    m.def("bench_stream", &bench_stream, nb::arg("tick_size"), nb::arg("cost_ticks"), nb::arg("level_weights"),
          nb::arg("vol_window"), nb::arg("window_steps"), nb::arg("sigma_short_steps"), nb::arg("sigma_long_steps"),
          nb::arg("signal_steps"), nb::arg("events"), nb::arg("period"),
          "Push a fixed stream of quotes and return the last row; for counting instructions.");
}
