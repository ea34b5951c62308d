// One side of a book: levels sorted by a key, the best last, in blocks of bounded size.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace ami {

// `Level` has an int64 member `key` that grows with how good the price is (ticks of a bid, minus the ticks of an ask), so
// that both sides are one code. A change moves the levels of one block at most, however deep the book is: in one run a
// change of a recorded book moves 500 levels on average.
template <class Level>
class Ladder {
public:
    // Where a level stands, or would stand; good until the next change.
    struct Place {
        std::size_t block;
        std::size_t slot;
    };

    std::size_t size() const { return size_; }
    bool empty() const { return size_ == 0; }
    const Level& best() const {
        const Block& block = directory_.back();
        return pool_[block.at + block.count - 1];
    }
    void clear() {
        for (const Block& block : directory_) spare_.push_back(block.at);
        directory_.clear();
        size_ = 0;
    }

    // Place of the first level whose key is not below `key`; behind the best when there is none. `hint` is the place of
    // the change before: messages go through a side in order.
    Place find(std::int64_t key, Place hint) const {
        if (directory_.empty()) return {0, 0};
        std::size_t b = std::min(hint.block, directory_.size() - 1);
        while (b > 0 && directory_[b - 1].top >= key) --b;
        while (b + 1 < directory_.size() && directory_[b].top < key) ++b;
        const Block& block = directory_[b];
        const Level* levels = pool_.data() + block.at;
        const Level* base = levels;
        for (std::size_t count = block.count; count > 1;) {
            const std::size_t half = count / 2;
            base = base[half - 1].key < key ? base + half : base;
            count -= half;
        }
        return {b, static_cast<std::size_t>(base - levels) + (base->key < key ? 1 : 0)};
    }
    Place find(std::int64_t key) const { return find(key, best_end()); }
    // A hint for changes that begin near the best.
    Place best_end() const { return {directory_.size(), 0}; }

    bool holds(Place place, std::int64_t key) const {
        return place.block < directory_.size() && place.slot < directory_[place.block].count &&
               pool_[directory_[place.block].at + place.slot].key == key;
    }
    Level& operator[](Place place) { return pool_[directory_[place.block].at + place.slot]; }
    const Level& operator[](Place place) const { return pool_[directory_[place.block].at + place.slot]; }

    // `place` is what find() gave for the level's key.
    void insert(Place place, const Level& level) {
        if (directory_.empty()) directory_.push_back({level.key, 0, new_block()});
        if (directory_[place.block].count == kRoom) place = split(place);
        Block& block = directory_[place.block];
        Level* levels = pool_.data() + block.at;
        std::copy_backward(levels + place.slot, levels + block.count, levels + block.count + 1);
        levels[place.slot] = level;
        block.top = levels[block.count++].key;
        ++size_;
    }

    void erase(Place place) {
        Block& block = directory_[place.block];
        Level* levels = pool_.data() + block.at;
        std::copy(levels + place.slot + 1, levels + block.count, levels + place.slot);
        --size_;
        if (--block.count == 0) {
            drop(place.block);
        } else {
            block.top = levels[block.count - 1].key;
            if (block.count < kRoom / 4) merge_down(place.block);
        }
    }

    // Replace everything by levels that are sorted by key, ascending and without repeats.
    void assign(const std::vector<Level>& sorted) {
        clear();
        for (std::size_t from = 0; from < sorted.size(); from += kFilled) {
            const std::size_t count = std::min(kFilled, sorted.size() - from);
            const std::size_t at = new_block();
            std::copy_n(sorted.begin() + static_cast<std::ptrdiff_t>(from), count,
                        pool_.begin() + static_cast<std::ptrdiff_t>(at));
            directory_.push_back({sorted[from + count - 1].key, count, at});
        }
        size_ = sorted.size();
    }

    // Call `visit(level)` from the worst level to the best.
    template <class Visit>
    void each(Visit visit) const {
        for (const Block& block : directory_) {
            for (std::size_t i = 0; i < block.count; ++i) visit(pool_[block.at + i]);
        }
    }

    // Call `visit(level)` from the best level whose key is below `limit` to worse ones, until it returns false.
    template <class Visit>
    void each_from_best(Visit visit, std::int64_t limit = std::numeric_limits<std::int64_t>::max()) const {
        for (std::size_t b = directory_.size(); b-- > 0;) {
            const Level* levels = pool_.data() + directory_[b].at;
            for (std::size_t i = directory_[b].count; i-- > 0;) {
                if (levels[i].key < limit && !visit(levels[i])) return;
            }
        }
    }

private:
    static constexpr std::size_t kRoom = 64;
    static constexpr std::size_t kFilled = 48;  // of a block of a snapshot: room for what comes

    // Levels pool_[at], …, pool_[at + count - 1]; a block is never empty. `top` is the key of the last of them.
    struct Block {
        std::int64_t top;
        std::size_t count;
        std::size_t at;
    };

    std::size_t new_block() {
        if (spare_.empty()) {
            pool_.resize(pool_.size() + kRoom);
            return pool_.size() - kRoom;
        }
        const std::size_t at = spare_.back();
        spare_.pop_back();
        return at;
    }

    void drop(std::size_t b) {
        spare_.push_back(directory_[b].at);
        directory_.erase(directory_.begin() + static_cast<std::ptrdiff_t>(b));
    }

    // Make two blocks of a full one; return where `place` is then.
    Place split(Place place) {
        const std::size_t at = new_block();
        Block& lower = directory_[place.block];
        const Level* levels = pool_.data() + lower.at;
        std::copy_n(levels + kRoom / 2, kRoom / 2, pool_.data() + at);
        const Block upper = {lower.top, kRoom / 2, at};
        lower.count = kRoom / 2;
        lower.top = levels[kRoom / 2 - 1].key;
        directory_.insert(directory_.begin() + static_cast<std::ptrdiff_t>(place.block) + 1, upper);
        return place.slot > kRoom / 2 ? Place{place.block + 1, place.slot - kRoom / 2} : place;
    }

    // Put what is left of a block to the next worse one, where that has room.
    void merge_down(std::size_t b) {
        if (b == 0 || directory_[b - 1].count + directory_[b].count > kFilled) return;
        Block& lower = directory_[b - 1];
        const Block& upper = directory_[b];
        std::copy_n(pool_.data() + upper.at, upper.count, pool_.data() + lower.at + lower.count);
        lower.count += upper.count;
        lower.top = upper.top;
        drop(b);
    }

    std::vector<Block> directory_;
    std::vector<Level> pool_;
    std::vector<std::size_t> spare_;  // blocks of the pool that hold nothing
    std::size_t size_ = 0;
};

}  // namespace ami
