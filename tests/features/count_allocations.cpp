// Counts what the feature core asks of the allocator once its windows are full; prints one line a stream.
#include <ami/feature_builder.hpp>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

namespace {

std::uint64_t allocations = 0;

}  // namespace

void* operator new(std::size_t size) {
    ++allocations;
    if (void* memory = std::malloc(size)) return memory;
    throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

constexpr int kWarmUp = 40'000;

class Market {
public:
    Market(bool is_trending, bool is_wild) : is_trending_(is_trending), is_wild_(is_wild) {}

    // Depths that come and go in waves leave the quantile's table again and again, and send it to its heaps.
    void push(ami::FeatureBuilder& builder, int event) {
        const double mid = 60'000.0 + 0.1 * static_cast<double>(draw() % 41);
        const double wave = is_trending_ && event >= kWarmUp ? 50.0 + 40.0 * std::sin(event / 400.0) : 1.0;
        const double size = wave + 1e-6 * static_cast<double>(draw() % 1'000'000);
        const std::int64_t ts_ns = 1'000'000'000 + 20'000'000LL * event + static_cast<std::int64_t>(draw() % 1'000'000);
        // Spreads of four widths; where the market turns wild, hardly ever the same again.
        const std::uint64_t width = draw();
        const bool is_wide = is_wild_ && event >= kWarmUp && event / 7'000 % 2 == 0;
        const double ask = mid + (is_wide ? 1e-9 * static_cast<double>(1 + width % 1'000'000'000)
                                          : 0.1 * static_cast<double>(1 + width % 4));
        const std::int64_t now_ns = ts_ns + static_cast<std::int64_t>(draw() % 5'000'000);
        ami::Fault fault;
        if (event % 5 == 4) {
            fault = builder.push_trade(ts_ns, mid, size, event % 2 == 0 ? 1 : -1, now_ns);
        } else if (event % 3 == 0) {
            const double bids[] = {mid, size, mid - 0.1, 2.0, mid - 0.2, 3.0};
            const double asks[] = {ask, 1.0, ask + 0.1, 2.0};
            fault = builder.push_book(ts_ns, bids, 3, asks, 2, now_ns);
        } else {
            fault = builder.push_quote(ts_ns, mid, ask, size, 1.0, now_ns);
        }
        if (fault) std::abort();
    }

private:
    // Marsaglia's xorshift64.
    std::uint64_t draw() {
        state_ ^= state_ << 13;
        state_ ^= state_ >> 7;
        state_ ^= state_ << 17;
        return state_ >> 11;
    }

    bool is_trending_;
    bool is_wild_;
    std::uint64_t state_ = 0x9E3779B97F4A7C15;
};

void count(const char* name, std::uint64_t steps, std::int64_t window_ns, bool is_trending, bool is_wild = false) {
    ami::FeatureBuilder builder({0.1, 0.5, std::vector<double>{1.0, 0.5, 0.25}, 50, steps, window_ns, 20, 100,
                                 ami::SignalParams{10, 20, 5}});
    Market market(is_trending, is_wild);
    const std::uint64_t before = allocations;
    for (int event = 0; event < kWarmUp; ++event) market.push(builder, event);
    const std::uint64_t warm = allocations;
    for (int event = kWarmUp; event < 5 * kWarmUp; ++event) market.push(builder, event);
    std::printf("%s %llu %llu\n", name, static_cast<unsigned long long>(warm - before),
                static_cast<unsigned long long>(allocations - warm));
}

}  // namespace

int main() {
    count("by_count", 300, 0, false);
    count("by_count_trending", 300, 0, true);
    count("long_by_count", 5'000, 0, true);
    count("wild_by_count", 300, 0, true, true);
    count("long_wild_by_count", 5'000, 0, true, true);
    count("by_time", 0, 5'000'000'000, false);
    count("by_time_trending", 0, 5'000'000'000, true);
    count("wild_by_time", 0, 30'000'000'000, true, true);
    count("by_both", 200, 6'000'000'000, true);
}
