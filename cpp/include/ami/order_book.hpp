// L2 book from snapshots, deltas and a best-price ticker: sequence rules, best levels, predicates, checkpoints.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "ami/book_bytes.hpp"
#include "ami/book_types.hpp"
#include "ami/event_error.hpp"
#include "ami/ladder.hpp"
#include "ami/tick_grid.hpp"

namespace ami {

enum class BookApply : std::uint8_t { kApplied = 0, kStale = 1 };

// The book of one symbol. It grows with the number of grid prices at which the venue holds orders (about 5000 a side on
// Binance); a message is applied wholly or not at all, and nothing is allocated once the buffers have grown.
class OrderBook {
public:
    explicit OrderBook(double tick_size, int levels = 10) : grid_(tick_size), levels_(levels) {
        if (levels < 1) throw std::invalid_argument("`levels` must be at least 1, was " + std::to_string(levels));
    }

    // Replace everything by `bids` and `asks` ((price, size) pairs in any order; size 0 is no level; of a repeated price
    // the last counts). A refused snapshot changes nothing.
    void apply_snapshot(const double* bids, std::size_t bid_count, const double* asks, std::size_t ask_count,
                        std::int64_t seq) {
        check_not_negative(seq, "seq");
        read_changes(Side::kBid, bids, bid_count);
        read_changes(Side::kAsk, asks, ask_count);
        for (auto& changes : changes_) sort_unique(changes);
        refuse_crossed_snapshot();
        sides_[0].assign(changes_[0]);
        sides_[1].assign(changes_[1]);
        seq_ = seq;
        has_snapshot_ = true;
        is_fresh_ = true;
        has_gap_ = false;
        has_ticker_ = false;
    }

    // Change levels: size 0 deletes. `first_seq` and `prev_seq` as in BookDelta; a `seq` of 0 is not checked.
    BookApply apply_delta(const double* bids, std::size_t bid_count, const double* asks, std::size_t ask_count,
                          std::int64_t seq, std::int64_t first_seq, std::int64_t prev_seq) {
        if (admit_delta(seq, first_seq, prev_seq) == BookApply::kStale) return BookApply::kStale;
        try {
            apply_admitted(bids, bid_count, asks, ask_count, seq);
        } catch (...) {
            mark_gap();
            throw;
        }
        return BookApply::kApplied;
    }

    // First half of apply_delta, for callers that have yet to read the levels: whether the message is the next one.
    BookApply admit_delta(std::int64_t seq, std::int64_t first_seq, std::int64_t prev_seq) {
        if (!has_snapshot_) throw EventError("a delta came before any snapshot", "no_snapshot");
        if (has_gap_) throw EventError("the book has missed a message and waits for a snapshot", "sequence_gap", "seq");
        try {
            check_order(seq, first_seq, prev_seq);
            if (seq == 0) return BookApply::kApplied;
            if (seq <= seq_) return BookApply::kStale;
            if (seq_ != 0 && !follows(first_seq, prev_seq)) refuse_gap(first_seq, prev_seq);
        } catch (...) {
            mark_gap();
            throw;
        }
        return BookApply::kApplied;
    }

    // Second half: the caller calls mark_gap() when this throws. Levels are as before then.
    void apply_admitted(const double* bids, std::size_t bid_count, const double* asks, std::size_t ask_count,
                        std::int64_t seq) {
        read_changes(Side::kBid, bids, bid_count);
        read_changes(Side::kAsk, asks, ask_count);
        undo_[0].clear();
        undo_[1].clear();
        std::uint64_t unknown = apply_changes(0);
        unknown += apply_changes(1);
        if (is_depth_crossed()) {
            undo_changes(1);
            undo_changes(0);
            throw EventError("the message would leave the best bid above the best ask", "crossed_book");
        }
        unknown_deletes_ += unknown;
        ++deltas_applied_;
        is_fresh_ = false;
        if (seq == 0 || seq >= ticker_.seq) has_ticker_ = false;
        if (seq != 0) seq_ = seq;
    }

    // Override the best level until a delta of the same or a later `seq` comes. A price of 0 says that the side is empty.
    BookApply apply_ticker(double bid, double bid_size, double ask, double ask_size, std::int64_t seq) {
        check_not_negative(seq, "seq");
        Ticker ticker;
        ticker.seq = seq;
        ticker.best[0] = read_best(bid, bid_size, "bid", "bid_size");
        ticker.best[1] = read_best(ask, ask_size, "ask", "ask_size");
        if (ticker.best[0].ticks == 0 && ticker.best[1].ticks == 0) {
            throw EventError("a ticker must have a bid or an ask", "empty_book");
        }
        if (ticker.best[0].ticks > ticker.best[1].ticks && ticker.best[1].ticks != 0) {
            throw EventError("`bid` " + book_detail::number(bid) + " is above `ask` " + book_detail::number(ask),
                             "crossed_book", "bid");
        }
        const bool is_older = seq < seq_ || (has_ticker_ && seq < ticker_.seq);
        if (seq != 0 && is_older) return BookApply::kStale;
        ticker_ = ticker;
        has_ticker_ = true;
        return BookApply::kApplied;
    }

    // The book has missed something: nothing is shown until the next snapshot, or one level from the next ticker.
    void mark_gap() {
        has_gap_ = true;
        has_ticker_ = false;
    }

    // Write the best `n` levels as (price, size) pairs, best first; return how many there are.
    int top(Side side, int n, double* out) const {
        const auto s = index_of(side);
        std::int64_t limit = kNoLimit;
        int count = 0;
        if (has_ticker_ && n > 0) {
            const Best& best = ticker_.best[s];
            if (best.ticks == 0) return 0;
            limit = key_of(side, best.ticks);
            out[0] = grid_.price(best.ticks);
            out[1] = best.size;
            count = 1;
        }
        return is_ready() ? write_levels(sides_[s], side, grid_, limit, count, n, out) : count;
    }

    // Upper bound of what top() returns.
    std::size_t view_bound(Side side) const { return sides_[index_of(side)].size() + 1; }

    Quote best() const {
        double bid[2] = {0.0, 0.0};
        double ask[2] = {0.0, 0.0};
        top(Side::kBid, 1, bid);
        top(Side::kAsk, 1, ask);
        return {bid[0], bid[1], ask[0], ask[1]};
    }

    // The same from the rebuilt depth alone: without a ticker, and also after a gap.
    Quote depth_best() const {
        double bid[2] = {0.0, 0.0};
        double ask[2] = {0.0, 0.0};
        write_levels(sides_[0], Side::kBid, grid_, kNoLimit, 0, 1, bid);
        write_levels(sides_[1], Side::kAsk, grid_, kNoLimit, 0, 1, ask);
        return {bid[0], bid[1], ask[0], ask[1]};
    }

    bool is_ready() const { return has_snapshot_ && !has_gap_; }
    bool has_ticker() const { return has_ticker_; }
    // Predicates of best().
    bool is_crossed() const { return best().is_crossed(); }
    bool is_locked() const { return best().is_locked(); }
    bool is_one_sided() const { return best().is_one_sided(); }
    bool is_empty() const { return best().is_empty(); }

    std::int64_t seq() const { return seq_; }
    double tick_size() const { return grid_.tick_size(); }
    int levels() const { return levels_; }
    std::size_t level_count(Side side) const { return sides_[index_of(side)].size(); }
    std::uint64_t deltas_applied() const { return deltas_applied_; }
    // Deletes of levels that were not held: usual where the snapshot is shallower than the venue's book.
    std::uint64_t unknown_deletes() const { return unknown_deletes_; }

    std::string to_bytes() const {
        BookWriter out(kMagic);
        out.f64(grid_.tick_size());
        out.i64(levels_);
        out.i64(seq_);
        out.u64((has_snapshot_ ? 1U : 0U) | (is_fresh_ ? 2U : 0U) | (has_gap_ ? 4U : 0U) | (has_ticker_ ? 8U : 0U));
        out.u64(deltas_applied_);
        out.u64(unknown_deletes_);
        out.i64(ticker_.seq);
        for (const Best& best : ticker_.best) {
            out.i64(best.ticks);
            out.f64(best.size);
        }
        for (const Depth& depth : sides_) {
            out.u64(depth.size());
            depth.each([&out](const DepthLevel& level) {
                out.i64(level.key);
                out.f64(level.size);
            });
        }
        return out.finish();
    }

    // Raises std::invalid_argument when the bytes are damaged or of another version.
    static OrderBook from_bytes(const char* data, std::size_t size) {
        BookReader in(kMagic, data, size);
        const double tick_size = in.f64();
        OrderBook book(tick_size, static_cast<int>(in.i64()));
        book.seq_ = in.i64();
        const std::uint64_t flags = in.u64();
        book.has_snapshot_ = (flags & 1U) != 0;
        book.is_fresh_ = (flags & 2U) != 0;
        book.has_gap_ = (flags & 4U) != 0;
        book.has_ticker_ = (flags & 8U) != 0;
        book.deltas_applied_ = in.u64();
        book.unknown_deletes_ = in.u64();
        book.ticker_.seq = in.i64();
        for (Best& best : book.ticker_.best) {
            best.ticks = in.i64();
            best.size = in.f64();
        }
        for (int s = 0; s < 2; ++s) {
            std::vector<DepthLevel>& levels = book.changes_[s];
            levels.resize(in.count(2));
            for (DepthLevel& level : levels) level = {in.i64(), in.f64()};
            if (!is_ascending(levels)) BookReader::damaged();
            book.sides_[s].assign(levels);
        }
        in.finish();
        return book;
    }

private:
    static constexpr const char* kMagic = "AMIBOOK\x01";

    struct DepthLevel {
        std::int64_t key;
        double size;
    };
    using Depth = Ladder<DepthLevel>;

    struct Best {
        std::int64_t ticks = 0;  // 0: the side is missing
        double size = 0.0;
    };
    struct Ticker {
        std::int64_t seq = 0;
        Best best[2];
    };

    static void check_not_negative(std::int64_t value, const char* field) {
        if (value < 0) {
            throw EventError("`" + std::string(field) + "` must be >= 0, was " + std::to_string(value), "malformed", field);
        }
    }

    static void check_order(std::int64_t seq, std::int64_t first_seq, std::int64_t prev_seq) {
        check_not_negative(seq, "seq");
        check_not_negative(first_seq, "first_seq");
        check_not_negative(prev_seq, "prev_seq");
        if (seq == 0) return;
        if (first_seq > seq) {
            throw EventError("`first_seq` must be <= `seq` " + std::to_string(seq) + ", was " + std::to_string(first_seq),
                             "malformed", "first_seq");
        }
        if (prev_seq >= seq) {
            throw EventError("`prev_seq` must be < `seq` " + std::to_string(seq) + ", was " + std::to_string(prev_seq),
                             "malformed", "prev_seq");
        }
    }

    // The first message after a snapshot straddles it: it began before the snapshot ended, or next to it (Binance: spot
    // U <= lastUpdateId + 1, futures U <= lastUpdateId; pu <= lastUpdateId says the same where ids are not dense).
    bool follows(std::int64_t first_seq, std::int64_t prev_seq) const {
        const bool starts_in_time = first_seq <= seq_ + 1;
        if (prev_seq == 0) return starts_in_time;
        return is_fresh_ ? (starts_in_time || prev_seq <= seq_) : prev_seq == seq_;
    }

    [[noreturn]] void refuse_gap(std::int64_t first_seq, std::int64_t prev_seq) const {
        throw EventError("the book stands at " + std::to_string(seq_) + ", the message begins at " +
                             std::to_string(first_seq) + " after " + std::to_string(prev_seq),
                         "sequence_gap", "seq");
    }

    // Fill changes_ of one side, refusing what no book can hold.
    void read_changes(Side side, const double* pairs, std::size_t count) {
        std::vector<DepthLevel>& changes = changes_[index_of(side)];
        changes.resize(count);
        for (std::size_t i = 0; i < count; ++i) {
            const double price = pairs[2 * i];
            const double size = pairs[2 * i + 1];
            std::int64_t ticks = 0;
            // Written so that NaN fails; which rule it was is found out of line.
            const bool is_sound = price > 0.0 && size >= 0.0 && size <= kLargest && grid_.to_ticks(price, ticks);
            if (!is_sound) refuse_level(side, i, price, size);
            changes[i] = {key_of(side, ticks), size};
        }
    }

    [[noreturn]] void refuse_level(Side side, std::size_t i, double price, double size) const {
        const char* field = side == Side::kBid ? "bids" : "asks";
        const std::string what = "`" + std::string(field) + "[" + std::to_string(i) + "]`";
        book_detail::check_price(price, what, field);
        book_detail::check_size(size, what, field);
        book_detail::refuse_off_grid(price, grid_.tick_size(), what, field);
    }

    Best read_best(double price, double size, const char* field, const char* size_field) const {
        book_detail::check_size(size, "`" + std::string(size_field) + "`", size_field);
        if (price == 0.0) return {};
        const std::string what = "`" + std::string(field) + "`";
        book_detail::check_price(price, what, field);
        Best best;
        if (!grid_.to_ticks(price, best.ticks)) book_detail::refuse_off_grid(price, grid_.tick_size(), what, field);
        best.size = size;
        return best;
    }

    static bool is_ascending(const std::vector<DepthLevel>& levels) {
        return std::adjacent_find(levels.begin(), levels.end(), [](const DepthLevel& a, const DepthLevel& b) {
                   return a.key >= b.key;
               }) == levels.end();
    }

    static void sort_unique(std::vector<DepthLevel>& levels) {
        // Best first is what venues send: reversing it is cheaper than sorting.
        std::reverse(levels.begin(), levels.end());
        if (!is_ascending(levels)) {
            std::reverse(levels.begin(), levels.end());
            std::stable_sort(levels.begin(), levels.end(),
                             [](const DepthLevel& a, const DepthLevel& b) { return a.key < b.key; });
        }
        std::size_t kept = 0;
        for (std::size_t i = 0; i < levels.size(); ++i) {
            const bool is_last = i + 1 == levels.size() || levels[i + 1].key != levels[i].key;
            if (is_last && levels[i].size > 0.0) levels[kept++] = levels[i];
        }
        levels.resize(kept);
    }

    void refuse_crossed_snapshot() const {
        if (!changes_[0].empty() && !changes_[1].empty() && changes_[0].back().key > -changes_[1].back().key) {
            throw EventError("the snapshot has its best bid above its best ask", "crossed_book");
        }
    }

    bool is_depth_crossed() const {
        return !sides_[0].empty() && !sides_[1].empty() && sides_[0].best().key > -sides_[1].best().key;
    }

    // Apply changes_[s] and log what was there; return how many deletes met no level.
    std::uint64_t apply_changes(std::size_t s) {
        Depth& depth = sides_[s];
        std::uint64_t unknown = 0;
        Depth::Place place = depth.best_end();
        for (const DepthLevel& change : changes_[s]) {
            place = depth.find(change.key, place);
            const bool is_held = depth.holds(place, change.key);
            if (!is_held && change.size == 0.0) {
                ++unknown;
                continue;
            }
            undo_[s].push_back({change.key, is_held ? depth[place].size : 0.0});
            put(depth, place, is_held, change);
        }
        return unknown;
    }

    void undo_changes(std::size_t s) {
        Depth& depth = sides_[s];
        for (auto old = undo_[s].rbegin(); old != undo_[s].rend(); ++old) {
            const Depth::Place place = depth.find(old->key);
            put(depth, place, depth.holds(place, old->key), *old);
        }
    }

    static void put(Depth& depth, Depth::Place place, bool is_held, const DepthLevel& level) {
        if (level.size == 0.0) {
            if (is_held) depth.erase(place);
        } else if (is_held) {
            depth[place].size = level.size;
        } else {
            depth.insert(place, level);
        }
    }

    static constexpr double kLargest = 1.7976931348623157e308;

    TickGrid grid_;
    int levels_;
    Depth sides_[2];
    std::int64_t seq_ = 0;
    bool has_snapshot_ = false;
    bool is_fresh_ = false;  // no delta was applied since the snapshot
    bool has_gap_ = false;
    bool has_ticker_ = false;
    Ticker ticker_;
    std::uint64_t deltas_applied_ = 0;
    std::uint64_t unknown_deletes_ = 0;
    std::vector<DepthLevel> changes_[2];
    std::vector<DepthLevel> undo_[2];
};

}  // namespace ami
