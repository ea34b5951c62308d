// Answers of the core without Python: reads cases from standard input, writes what the core makes of them as bytes.
// Built for two processors and given the same cases, it must write the same bytes (test_two_processors.py).
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include "ami/compiled_loop.hpp"
#include "ami/exact_decimal.hpp"
#include "ami/feature_builder.hpp"
#include "ami/instrument.hpp"
#include "ami/json_number.hpp"
#include "ami/ledger.hpp"
#include "ami/order_book.hpp"

namespace {

// Everything is eight bytes wide, in the byte order of the machine: both are little-endian.
static_assert(sizeof(double) == 8 && sizeof(std::int64_t) == 8);

bool read_raw(void* data, std::size_t size) { return std::fread(data, 1, size, stdin) == size; }

std::int64_t read_int() {
    std::int64_t value = 0;
    if (!read_raw(&value, sizeof value)) throw std::runtime_error("the input ends within a case");
    return value;
}

std::size_t read_count() { return static_cast<std::size_t>(read_int()); }

double read_double() {
    double value = 0.0;
    if (!read_raw(&value, sizeof value)) throw std::runtime_error("the input ends within a case");
    return value;
}

template <class T>
std::vector<T> read_many(std::size_t count) {
    std::vector<T> values(count);
    if (!read_raw(values.data(), count * sizeof(T))) throw std::runtime_error("the input ends within a case");
    return values;
}

void write_raw(const void* data, std::size_t size) {
    if (std::fwrite(data, 1, size, stdout) != size) throw std::runtime_error("the output cannot be written");
}

void write_int(std::int64_t value) { write_raw(&value, sizeof value); }
void write_double(double value) { write_raw(&value, sizeof value); }

void write_text(const std::string& text) {
    write_int(static_cast<std::int64_t>(text.size()));
    write_raw(text.data(), text.size());
}

// A column is its number of values, 0 for an absent one, and the values.
template <class T>
struct Column {
    std::vector<T> values = read_many<T>(read_count());
    const T* data() const { return values.empty() ? nullptr : values.data(); }
};

ami::FeatureParams read_features() {
    ami::FeatureParams params;
    params.tick_size = read_double();
    params.cost_ticks = read_double();
    params.level_weights = read_many<double>(read_count());
    params.vol_window = static_cast<std::uint64_t>(read_int());
    params.window_steps = static_cast<std::uint64_t>(read_int());
    params.window_ns = read_int();
    params.sigma_short_steps = static_cast<std::uint64_t>(read_int());
    params.sigma_long_steps = static_cast<std::uint64_t>(read_int());
    params.signals = ami::read_signal_params(read_many<std::uint64_t>(read_count()));
    return params;
}

// Features: the rows, what was refused, and the state that is left.
void features() {
    const ami::FeatureParams params = read_features();
    ami::EventColumns columns;
    columns.rows = read_count();
    columns.ns_per_ts = read_int();
    columns.bid_levels = read_count();
    columns.ask_levels = read_count();
    const Column<std::int64_t> ts, kind, aggressor, now_ns;
    const Column<double> bid, ask, bid_depth, ask_depth, bids, asks, price, size;
    columns.ts = ts.data();
    columns.kind = kind.data();
    columns.aggressor = aggressor.data();
    columns.now_ns = now_ns.data();
    columns.bid = bid.data();
    columns.ask = ask.data();
    columns.bid_depth = bid_depth.data();
    columns.ask_depth = ask_depth.data();
    columns.bids = bids.data();
    columns.asks = asks.data();
    columns.price = price.data();
    columns.size = size.data();
    ami::FeatureBuilder builder(params);
    ami::RunReport report;
    std::vector<double> rows(columns.rows * builder.row_size());
    builder.run(columns, rows.data(), report);
    write_raw(rows.data(), rows.size() * sizeof(double));
    write_int(static_cast<std::int64_t>(report.accepted));
    for (std::size_t i = 1; i < ami::kReasonCount; ++i) {
        if (report.count[i] > 0) write_text(ami::kReasonNames[i]);
        if (report.count[i] > 0) write_int(static_cast<std::int64_t>(report.count[i]));
    }
    write_text(builder.save());
}

ami::BookApply apply(ami::OrderBook& book, std::int64_t kind) {
    const std::int64_t seq = read_int();
    const std::int64_t first_seq = read_int();
    const std::int64_t prev_seq = read_int();
    const std::size_t bid_count = read_count();
    const std::size_t ask_count = read_count();
    const std::vector<double> bids = read_many<double>(2 * bid_count);
    const std::vector<double> asks = read_many<double>(2 * ask_count);
    if (kind == 0) {
        book.apply_snapshot(bids.data(), bid_count, asks.data(), ask_count, seq);
        return ami::BookApply::kApplied;
    }
    if (kind == 1) return book.apply_delta(bids.data(), bid_count, asks.data(), ask_count, seq, first_seq, prev_seq);
    return book.apply_ticker(bids[0], bids[1], asks[0], asks[1], seq);
}

// A book: after each message what became of it and the best ten levels, at the end the checkpoint.
void order_book() {
    constexpr int kLevels = 10;
    ami::OrderBook book(read_double());
    const std::size_t messages = read_count();
    for (std::size_t i = 0; i < messages; ++i) {
        try {
            write_text(apply(book, read_int()) == ami::BookApply::kStale ? "stale" : "applied");
        } catch (const ami::EventError& error) {
            write_text(std::string(error.reason) + " " + error.field + " " + error.what());
        }
        for (const ami::Side side : {ami::Side::kBid, ami::Side::kAsk}) {
            double levels[2 * kLevels];
            const int count = book.top(side, kLevels, levels);
            write_int(count);
            write_raw(levels, 2 * static_cast<std::size_t>(count) * sizeof(double));
        }
    }
    write_text(book.to_bytes());
}

ami::Instrument read_instrument() {
    const std::vector<double> v = read_many<double>(7);
    return {v[0], v[1], v[2], v[3], v[4], read_int() != 0, v[5], v[6]};
}

// Money: after each fill and mark all that the ledger says.
void money() {
    const ami::Instrument instrument = read_instrument();
    ami::Account account(instrument, read_double());
    const std::size_t fills = read_count();
    for (std::size_t i = 0; i < fills; ++i) {
        const bool is_buy = read_int() != 0;
        const std::vector<double> v = read_many<double>(4);
        const ami::FillResult result = account.apply(is_buy, v[0], v[1], v[2]);
        account.mark(v[3]);
        const ami::Position& position = account.position;
        for (const double value : {result.realized, result.trip_pnl, position.qty(), position.avg_price(),
                                   position.realized(), position.fees(), account.equity, account.max_drawdown,
                                   account.exposure_usd}) {
            write_double(value);
        }
    }
}

// Numbers: as JSON text, as a decimal and back, and as a size of an instrument with a grid and of one without.
void numbers() {
    const ami::Instrument gridded = read_instrument();
    const ami::Instrument free = read_instrument();
    for (const double value : read_many<double>(read_count())) {
        char text[ami::kNumberChars];
        write_text(std::string(text, ami::write_double(value, text)));
        const ami::Decimal exact = ami::Decimal::from_double(value);
        write_double(exact.to_double());
        write_double(ami::Decimal::divide(exact, ami::Decimal::from_double(3.0), 50).to_double());
        write_double(gridded.qty_from_usd(value, 3.7));
        write_double(free.qty_from_usd(value, 3.7));
    }
}

ami::LoopSettings read_settings(const std::vector<double>& draws) {
    const std::vector<double> policy = read_many<double>(ami::kPolicyCount);
    ami::LoopSettings s{ami::read_policy([&policy](int i) { return policy[static_cast<std::size_t>(i)]; }),
                        read_instrument(),
                        read_instrument(),
                        read_int() != 0,
                        static_cast<ami::Queue>(read_int()),
                        draws.data(),
                        draws.size(),
                        {},
                        {},
                        {read_double(), read_double(), read_double()},
                        nullptr,
                        nullptr,
                        read_double(),
                        read_int(),
                        read_int() != 0,
                        read_int() != 0,
                        false};
    s.quoting = {read_int(), read_double(), read_int(), read_int(), read_int()};
    s.exits = {read_double(), read_double(), read_double()};
    return s;
}

// A run over a table: every decision and fill, what was counted, and the money that is left.
void decisions() {
    const ami::FeatureParams params = read_features();
    const Column<double> draws;
    const ami::LoopSettings settings = read_settings(draws.values);
    ami::LoopColumns columns;
    columns.rows = read_count();
    columns.bid_levels = read_count();
    columns.ask_levels = read_count();
    const Column<std::int64_t> ts, kind, aggressor, image, has_gap;
    const Column<double> bid, ask, bid_depth, ask_depth, bids, asks, price, size, open, high, low, volume;
    columns.ts = ts.data();
    columns.kind = kind.data();
    columns.aggressor = aggressor.data();
    columns.image = image.data();
    columns.has_gap = has_gap.data();
    columns.bid = bid.data();
    columns.ask = ask.data();
    columns.bid_depth = bid_depth.data();
    columns.ask_depth = ask_depth.data();
    columns.bids = bids.data();
    columns.asks = asks.data();
    columns.price = price.data();
    columns.size = size.data();
    columns.open = open.data();
    columns.high = high.data();
    columns.low = low.data();
    columns.volume = volume.data();
    ami::CompiledLoop loop(params, settings);
    loop.run(columns, -1, true);
    for (const ami::DecisionRecord& d : loop.decisions) {
        write_int(d.ts_ns);
        write_int(static_cast<std::int64_t>(d.codes));
        write_double(d.position);
        write_double(d.equity);
        for (const std::int8_t code : {d.proposed, d.action, d.is_timer}) write_int(code);
    }
    const ami::DecisionCore& core = loop.core();
    for (const ami::VenueFill& fill : core.fills) {
        write_int(fill.is_buy ? 1 : 0);
        write_int(fill.is_maker ? 1 : 0);
        for (const double value : {fill.price, fill.qty, fill.fee}) write_double(value);
        write_int(fill.ts_ns);
        write_int(fill.step);
    }
    const ami::LoopCounts& counts = core.counts;
    for (const std::int64_t count : {counts.steps, counts.timers, counts.rows_read, counts.submitted, counts.canceled,
                                     counts.rejected, counts.skipped, counts.errors}) {
        write_int(count);
    }
    for (const std::int64_t count : counts.codes) write_int(count);
    for (const std::int64_t count : counts.held_codes) write_int(count);
    for (const std::int64_t count : counts.held_reasons) write_int(count);
    const ami::Account& account = core.account();
    for (const double value : {account.position.qty(), account.position.avg_price(), account.position.realized(),
                               account.position.fees(), account.unrealized, account.equity, account.max_drawdown}) {
        write_double(value);
    }
}

}  // namespace

int main() {
    try {
        std::int64_t what = 0;
        while (read_raw(&what, sizeof what)) {
            switch (what) {
                case 1: features(); break;
                case 2: order_book(); break;
                case 3: money(); break;
                case 4: numbers(); break;
                case 5: decisions(); break;
                default: throw std::runtime_error("there is no such case");
            }
        }
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
    return 0;
}
