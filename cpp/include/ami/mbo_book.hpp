// Market-by-order book: orders by id, and the price levels they add up to.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "ami/book_bytes.hpp"
#include "ami/book_types.hpp"
#include "ami/ladder.hpp"
#include "ami/tick_grid.hpp"

namespace ami {

struct RestingOrder {
    std::uint64_t id = 0;
    std::int64_t ticks = 0;  // 0: the slot is free
    double size = 0.0;
    Side side = Side::kBid;
};

// Orders by id: open addressing with linear probing, at most half full, so that a look-up is one or two cache lines and
// nothing is allocated once it has grown.
class OrderTable {
public:
    OrderTable() : slots_(kFirstCapacity) {}

    std::size_t size() const { return size_; }

    RestingOrder* find(std::uint64_t id) {
        const std::size_t at = slot_of(id);
        return slots_[at].ticks != 0 ? &slots_[at] : nullptr;
    }
    const RestingOrder* find(std::uint64_t id) const { return const_cast<OrderTable*>(this)->find(id); }

    // Invariant: the id is not there yet.
    void insert(const RestingOrder& order) {
        if (2 * (size_ + 1) > slots_.size()) grow();
        slots_[slot_of(order.id)] = order;
        ++size_;
    }

    void erase(RestingOrder* order) {
        const std::size_t mask = slots_.size() - 1;
        auto hole = static_cast<std::size_t>(order - slots_.data());
        // Pull back whatever the hole would cut off from its home slot, so that no tombstones pile up.
        for (std::size_t at = (hole + 1) & mask; slots_[at].ticks != 0; at = (at + 1) & mask) {
            const std::size_t home = home_of(slots_[at].id);
            if (((at - home) & mask) >= ((at - hole) & mask)) {
                slots_[hole] = slots_[at];
                hole = at;
            }
        }
        slots_[hole] = RestingOrder{};
        --size_;
    }

    void clear() {
        std::fill(slots_.begin(), slots_.end(), RestingOrder{});
        size_ = 0;
    }

    std::vector<RestingOrder> sorted_by_id() const {
        std::vector<RestingOrder> orders;
        orders.reserve(size_);
        for (const RestingOrder& order : slots_) {
            if (order.ticks != 0) orders.push_back(order);
        }
        std::sort(orders.begin(), orders.end(), [](const RestingOrder& a, const RestingOrder& b) { return a.id < b.id; });
        return orders;
    }

private:
    static constexpr std::size_t kFirstCapacity = 1024;

    // Fibonacci hashing (Knuth, TAOCP 3, 6.4): venues number orders in runs, which this spreads.
    std::size_t home_of(std::uint64_t id) const {
        return static_cast<std::size_t>((id * 0x9E3779B97F4A7C15ULL) >> 20) & (slots_.size() - 1);
    }

    std::size_t slot_of(std::uint64_t id) const {
        const std::size_t mask = slots_.size() - 1;
        std::size_t at = home_of(id);
        while (slots_[at].ticks != 0 && slots_[at].id != id) at = (at + 1) & mask;
        return at;
    }

    void grow() {
        std::vector<RestingOrder> old(2 * slots_.size());
        old.swap(slots_);
        for (const RestingOrder& order : old) {
            if (order.ticks != 0) slots_[slot_of(order.id)] = order;
        }
    }

    std::vector<RestingOrder> slots_;
    std::size_t size_ = 0;
};

// The book of one symbol by Databento's MBO actions: A add, C cancel (by a size), M modify, R clear; T trade, F fill and
// N none change nothing (the cancel that follows a fill does). It may be crossed: auctions are. Sizes of a level are sums,
// exact for whole sizes.
class MboBook {
public:
    explicit MboBook(double tick_size, int levels = 10) : grid_(tick_size), levels_(levels) {
        if (levels < 1) throw std::invalid_argument("`levels` must be at least 1, was " + std::to_string(levels));
    }

    // Apply one message; return whether the book changed. `side` is 'B' or 'A', and is read by add and modify only.
    bool apply(char action, char side, std::uint64_t order_id, double price, double size) {
        switch (action) {
            case 'A':
                return add(read_order(side, order_id, price, size));
            case 'C':
                book_detail::check_size(size, "`size`", "size");
                return cancel(order_id, size);
            case 'M':
                return modify(read_order(side, order_id, price, size));
            case 'R':
                clear();
                return true;
            case 'T':
            case 'F':
            case 'N':
                return false;
            default:
                throw EventError("`action` must be one of A, C, M, R, T, F, N, was " + std::string(1, action),
                                 "unknown_kind", "action");
        }
    }

    void clear() {
        orders_.clear();
        sides_[0].clear();
        sides_[1].clear();
    }

    int top(Side side, int n, double* out) const {
        return write_levels(sides_[index_of(side)], side, grid_, kNoLimit, 0, n, out);
    }
    std::size_t view_bound(Side side) const { return level_count(side); }

    Quote best() const {
        double bid[2] = {0.0, 0.0};
        double ask[2] = {0.0, 0.0};
        top(Side::kBid, 1, bid);
        top(Side::kAsk, 1, ask);
        return {bid[0], bid[1], ask[0], ask[1]};
    }

    bool is_crossed() const { return best().is_crossed(); }
    bool is_locked() const { return best().is_locked(); }
    bool is_one_sided() const { return best().is_one_sided(); }
    bool is_empty() const { return best().is_empty(); }

    // nullptr when no such order rests.
    const RestingOrder* order(std::uint64_t id) const { return orders_.find(id); }
    double price_of(const RestingOrder& order) const { return grid_.price(order.ticks); }

    double tick_size() const { return grid_.tick_size(); }
    int levels() const { return levels_; }
    std::size_t order_count() const { return orders_.size(); }
    std::size_t level_count(Side side) const { return sides_[index_of(side)].size(); }
    std::uint64_t unknown_cancels() const { return unknown_cancels_; }
    std::uint64_t unknown_modifies() const { return unknown_modifies_; }
    std::uint64_t repeated_adds() const { return repeated_adds_; }

    std::string to_bytes() const {
        BookWriter out(kMagic);
        out.f64(grid_.tick_size());
        out.i64(levels_);
        out.u64(unknown_cancels_);
        out.u64(unknown_modifies_);
        out.u64(repeated_adds_);
        // Sums are kept as they are: adding the orders up again could round otherwise.
        for (const Ladder<MboLevel>& side : sides_) {
            out.u64(side.size());
            side.each([&out](const MboLevel& level) {
                out.i64(level.key);
                out.f64(level.size);
                out.i64(level.count);
            });
        }
        const std::vector<RestingOrder> orders = orders_.sorted_by_id();
        out.u64(orders.size());
        for (const RestingOrder& order : orders) {
            out.u64(order.id);
            out.i64(key_of(order.side, order.ticks));
            out.f64(order.size);
        }
        return out.finish();
    }

    // Raises std::invalid_argument when the bytes are damaged or of another version.
    static MboBook from_bytes(const char* data, std::size_t size) {
        BookReader in(kMagic, data, size);
        const double tick_size = in.f64();
        MboBook book(tick_size, static_cast<int>(in.i64()));
        book.unknown_cancels_ = in.u64();
        book.unknown_modifies_ = in.u64();
        book.repeated_adds_ = in.u64();
        for (Ladder<MboLevel>& side : book.sides_) {
            std::vector<MboLevel> levels(in.count(3));
            for (MboLevel& level : levels) level = {in.i64(), in.f64(), in.i64()};
            side.assign(levels);
        }
        for (std::size_t left = in.count(3); left > 0; --left) {
            RestingOrder order;
            order.id = in.u64();
            const std::int64_t key = in.i64();
            order.side = key > 0 ? Side::kBid : Side::kAsk;
            order.ticks = key_of(order.side, key);
            order.size = in.f64();
            if (order.ticks == 0 || book.orders_.find(order.id) != nullptr) BookReader::damaged();
            book.orders_.insert(order);
        }
        in.finish();
        return book;
    }

private:
    static constexpr const char* kMagic = "AMIMBOB\x01";

    struct MboLevel {
        std::int64_t key;
        double size;
        std::int64_t count;
    };

    RestingOrder read_order(char side, std::uint64_t id, double price, double size) const {
        if (side != 'A' && side != 'B') {
            throw EventError("`side` must be A or B, was " + std::string(1, side), "malformed", "side");
        }
        book_detail::check_price(price, "`price`", "price");
        book_detail::check_size(size, "`size`", "size");
        RestingOrder order;
        order.id = id;
        order.size = size;
        order.side = side == 'B' ? Side::kBid : Side::kAsk;
        if (!grid_.to_ticks(price, order.ticks)) {
            book_detail::refuse_off_grid(price, grid_.tick_size(), "`price`", "price");
        }
        return order;
    }

    bool add(const RestingOrder& order) {
        if (RestingOrder* held = orders_.find(order.id)) {
            ++repeated_adds_;
            remove(held);
            rest(order);
            return true;
        }
        return rest(order);
    }

    // An order that is not known is one that rested before the feed began: it joins, as in Databento's own book.
    bool modify(const RestingOrder& order) {
        if (RestingOrder* held = orders_.find(order.id)) {
            remove(held);
            rest(order);
            return true;
        }
        ++unknown_modifies_;
        return rest(order);
    }

    bool cancel(std::uint64_t id, double size) {
        RestingOrder* held = orders_.find(id);
        if (held == nullptr) {
            ++unknown_cancels_;
            return false;
        }
        if (size >= held->size) {
            remove(held);
        } else {
            Ladder<MboLevel>& side = sides_[index_of(held->side)];
            held->size -= size;
            side[side.find(key_of(held->side, held->ticks))].size -= size;
        }
        return true;
    }

    bool rest(const RestingOrder& order) {
        if (order.size == 0.0) return false;
        Ladder<MboLevel>& side = sides_[index_of(order.side)];
        const std::int64_t key = key_of(order.side, order.ticks);
        const Ladder<MboLevel>::Place place = side.find(key);
        if (side.holds(place, key)) {
            side[place].size += order.size;
            ++side[place].count;
        } else {
            side.insert(place, {key, order.size, 1});
        }
        orders_.insert(order);
        return true;
    }

    // Invariant: every order in the table is counted in the level of its price.
    void remove(RestingOrder* order) {
        Ladder<MboLevel>& side = sides_[index_of(order->side)];
        const Ladder<MboLevel>::Place place = side.find(key_of(order->side, order->ticks));
        if (--side[place].count == 0) {
            side.erase(place);
        } else {
            side[place].size -= order->size;
        }
        orders_.erase(order);
    }

    TickGrid grid_;
    int levels_;
    Ladder<MboLevel> sides_[2];
    OrderTable orders_;
    std::uint64_t unknown_cancels_ = 0;
    std::uint64_t unknown_modifies_ = 0;
    std::uint64_t repeated_adds_ = 0;
};

}  // namespace ami
