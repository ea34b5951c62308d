// How many samples of a sliding window lie below a value, and how many are equal to it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace ami {

// The distinct values of a window in order, in blocks; beside each how many samples of its block are not above it. A
// Fenwick tree over the blocks' sizes tells what lies before a block. A window of at most kMostFlat samples is one
// block: its samples are moved no farther than from the old one's place to the new one's.
//
// A block that is full is cut in two, and one that has become small is joined to its neighbour: two neighbours hold
// more than kJoined values, so that blocks stay few, and the tree is made anew once in dozens of events.
class RollingRank {
public:
    struct Rank {
        std::uint64_t less = 0;
        std::uint64_t equal = 0;
    };

    // `most` is how many samples there will ever be, 0 when nobody knows; `expected` how many there is room for at once.
    RollingRank(std::uint64_t most, std::size_t expected) : width_(most != 0 && most <= kMostFlat ? most : kWidth) {
        reserve(expected);
        clear();
    }

    std::uint64_t size() const { return size_; }

    void clear() {
        size_ = 0;
        free_.clear();
        for (std::size_t block = counts_.size(); block-- > 1;) free_.push_back(static_cast<std::uint32_t>(block));
        blocks_.assign(1, 0);
        lows_.assign(1, 0.0);  // of the first block nobody asks
        counts_[0] = 0;
    }

    void push(double value) {
        if (size_ == room_) reserve(2 * room_);
        ++size_;
        insert(value);
    }

    // Invariant: `value` is in the window.
    void pop(double value) {
        --size_;
        erase(value);
    }

    // pop(oldest) and push(value) in one; returns where the new value stands.
    Rank replace(double oldest, double value) {
        if (blocks_.size() == 1) return replace_in_block(oldest, value);
        if (value != oldest) {
            erase(oldest);
            insert(value);
        }
        return rank(value);
    }

    // Invariant: `value` is in the window.
    Rank rank(double value) {
        const std::size_t at = find_block(value);
        const std::size_t block = blocks_[at];
        Rank rank = rank_in(upto_of(block), place_in(block, value));
        rank.less += before(at);
        return rank;
    }

private:
    static constexpr std::uint64_t kMostFlat = 512;
    static constexpr std::size_t kWidth = 128;
    static constexpr std::size_t kJoined = 96;
    static constexpr int kHashShift = 64 - 5;

    double* values_of(std::size_t block) { return values_.data() + block * width_; }
    std::uint32_t* upto_of(std::size_t block) { return upto_.data() + block * width_; }

    // Room for a window of so many samples, whatever they are.
    void reserve(std::size_t samples) {
        room_ = std::max<std::size_t>(samples, 16);
        const std::size_t old = counts_.size();
        const std::size_t blocks = width_ == kWidth ? 2 * room_ / kJoined + 2 : 1;
        if (blocks <= old) return;
        values_.resize(blocks * width_);
        upto_.resize(blocks * width_);
        counts_.resize(blocks);
        blocks_.reserve(blocks);
        lows_.reserve(blocks);
        tree_.resize(blocks + 1);
        free_.reserve(blocks);
        for (std::size_t block = blocks; block-- > old;) free_.push_back(static_cast<std::uint32_t>(block));
    }

    static Rank rank_in(const std::uint32_t* upto, std::size_t place) {
        const std::uint32_t less = place == 0 ? 0 : upto[place - 1];
        return {less, upto[place] - less};
    }

    // For choices without a branch: where a value falls is what no processor can predict.
    static std::size_t all_bits_if(bool holds) { return ~std::size_t{holds} + 1; }

    // Where a value stands or belongs. -----------------------------------------------------------------------------

    // The last block that begins at `value` or below it.
    std::size_t find_block(double value) const {
        std::size_t at = 0;
        for (std::size_t left = blocks_.size(); left > 1;) {
            const std::size_t half = left / 2;
            at += half & all_bits_if(lows_[at + half] <= value);
            left -= half;
        }
        return at;
    }

    // The first entry of a block that is not below `value`; where few values come again and again, it stands where it
    // stood when it was last looked for.
    std::size_t place_in(std::size_t block, double value) {
        std::uint64_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        std::uint16_t& last = last_places_[(bits * 0x9E3779B97F4A7C15) >> kHashShift];
        const double* values = values_of(block);
        const std::size_t count = counts_[block];
        if (last < count && values[last] == value) return last;
        const double* low = values;
        for (std::size_t left = count; left > 0;) {
            const std::size_t half = left / 2;
            low += (left - half) & all_bits_if(low[half] < value);
            left = half;
        }
        const auto place = static_cast<std::size_t>(low - values);
        last = static_cast<std::uint16_t>(place);
        return place;
    }

    // Blocks. --------------------------------------------------------------------------------------------------------

    std::uint64_t before(std::size_t at) const {
        if (blocks_.size() == 1) return 0;
        std::uint64_t sum = 0;
        for (std::size_t i = at; i > 0; i &= i - 1) sum += tree_[i];
        return sum;
    }

    void count_in_tree(std::size_t at, std::int32_t change) {
        if (blocks_.size() == 1) return;
        for (std::size_t i = at + 1; i <= blocks_.size(); i += i & (~i + 1)) {
            tree_[i] += static_cast<std::uint32_t>(change);
        }
    }

    void make_tree() {
        const std::size_t n = blocks_.size();
        for (std::size_t i = 1; i <= n; ++i) {
            const std::size_t block = blocks_[i - 1];
            tree_[i] = counts_[block] == 0 ? 0 : upto_of(block)[counts_[block] - 1];
        }
        for (std::size_t i = 1; i <= n; ++i) {
            const std::size_t parent = i + (i & (~i + 1));
            if (parent <= n) tree_[parent] += tree_[i];
        }
    }

    // Cuts the full block at `at` in two.
    [[gnu::noinline]] void cut(std::size_t at) {
        const std::size_t block = blocks_[at];
        const std::size_t other = free_.back();
        free_.pop_back();
        const std::size_t kept = counts_[block] / 2;
        const std::size_t moved = counts_[block] - kept;
        const std::uint32_t below = upto_of(block)[kept - 1];
        std::copy_n(values_of(block) + kept, moved, values_of(other));
        for (std::size_t i = 0; i < moved; ++i) upto_of(other)[i] = upto_of(block)[kept + i] - below;
        counts_[block] = static_cast<std::uint32_t>(kept);
        counts_[other] = static_cast<std::uint32_t>(moved);
        const auto next = static_cast<std::ptrdiff_t>(at + 1);
        blocks_.insert(blocks_.begin() + next, static_cast<std::uint32_t>(other));
        lows_.insert(lows_.begin() + next, values_of(other)[0]);
        make_tree();
        // A small neighbour and one of the halves may fit into one block now.
        join(at + 1);
        if (at > 0) join(at - 1);
    }

    // Joins the block at `at` to the next one, if there is one and both fit well.
    void join(std::size_t at) {
        if (at + 1 >= blocks_.size()) return;
        const std::size_t block = blocks_[at];
        const std::size_t other = blocks_[at + 1];
        const std::size_t count = counts_[block];
        if (count + counts_[other] > kJoined) return;
        const std::uint32_t below = count == 0 ? 0 : upto_of(block)[count - 1];
        std::copy_n(values_of(other), counts_[other], values_of(block) + count);
        for (std::size_t i = 0; i < counts_[other]; ++i) upto_of(block)[count + i] = upto_of(other)[i] + below;
        counts_[block] += counts_[other];
        free_.push_back(static_cast<std::uint32_t>(other));
        const auto next = static_cast<std::ptrdiff_t>(at + 1);
        blocks_.erase(blocks_.begin() + next);
        lows_.erase(lows_.begin() + next);
        make_tree();
    }

    // Samples. -------------------------------------------------------------------------------------------------------

    void insert(double value) {
        std::size_t at = find_block(value);
        std::size_t block = blocks_[at];
        std::size_t place = place_in(block, value);
        const bool is_known = place < counts_[block] && values_of(block)[place] == value;
        if (!is_known && counts_[block] == width_) {
            cut(at);
            at = find_block(value);
            block = blocks_[at];
            place = place_in(block, value);
        }
        count_in_tree(at, 1);
        std::uint32_t* upto = upto_of(block);
        if (!is_known) {
            const std::size_t behind = counts_[block]++ - place;
            double* values = values_of(block);
            std::memmove(values + place + 1, values + place, behind * sizeof *values);
            std::memmove(upto + place + 1, upto + place, behind * sizeof *upto);
            values[place] = value;
            upto[place] = place == 0 ? 0 : upto[place - 1];
        }
        for (std::size_t i = place; i < counts_[block]; ++i) ++upto[i];
    }

    void erase(double value) {
        const std::size_t at = find_block(value);
        const std::size_t block = blocks_[at];
        const std::size_t place = place_in(block, value);
        count_in_tree(at, -1);
        std::uint32_t* upto = upto_of(block);
        for (std::size_t i = place; i < counts_[block]; ++i) --upto[i];
        if (upto[place] != (place == 0 ? 0 : upto[place - 1])) return;
        const std::size_t behind = --counts_[block] - place;
        double* values = values_of(block);
        std::memmove(values + place, values + place + 1, behind * sizeof *values);
        std::memmove(upto + place, upto + place + 1, behind * sizeof *upto);
        join(at);
        if (at > 0) join(at - 1);
    }

    // replace() where all values are in one block.
    Rank replace_in_block(double oldest, double value) {
        const std::size_t block = blocks_[0];
        double* values = values_of(block);
        std::uint32_t* upto = upto_of(block);
        const std::size_t to = place_in(block, value);
        if (value == oldest) return rank_in(upto, to);
        const std::size_t from = place_in(block, oldest);
        const bool is_known = to < counts_[block] && values[to] == value;
        const bool stays = rank_in(upto, from).equal > 1;
        if (is_known && stays) {
            for (std::size_t i = to; i < from; ++i) ++upto[i];
            for (std::size_t i = from; i < to; ++i) --upto[i];
            return rank_in(upto, to);
        }
        if (is_known || stays) {
            erase(oldest);
            insert(value);
            return rank(value);
        }
        move_in_block(values, upto, from, to, value);
        return rank_in(upto, to <= from ? to : to - 1);
    }

    // One value comes and one goes: only what lies between them moves.
    static void move_in_block(double* values, std::uint32_t* upto, std::size_t from, std::size_t to, double value) {
        if (to <= from) {
            std::memmove(values + to + 1, values + to, (from - to) * sizeof *values);
            std::memmove(upto + to + 1, upto + to, (from - to) * sizeof *upto);
            for (std::size_t i = to + 1; i <= from; ++i) ++upto[i];
            values[to] = value;
            upto[to] = (to == 0 ? 0 : upto[to - 1]) + 1;
        } else {
            std::memmove(values + from, values + from + 1, (to - from - 1) * sizeof *values);
            std::memmove(upto + from, upto + from + 1, (to - from - 1) * sizeof *upto);
            for (std::size_t i = from; i + 1 < to; ++i) --upto[i];
            values[to - 1] = value;
            upto[to - 1] = (to == 1 ? 0 : upto[to - 2]) + 1;
        }
    }

    std::size_t width_;  // values a block
    std::size_t room_ = 0;
    std::uint64_t size_ = 0;

    // By block.
    std::vector<double> values_;
    std::vector<std::uint32_t> upto_;
    std::vector<std::uint32_t> counts_;

    // In the order of the values: the blocks, and below what value none of theirs lies.
    std::vector<std::uint32_t> blocks_;
    std::vector<double> lows_;
    std::vector<std::uint32_t> tree_;  // counted from 1; only kept while there are several blocks
    std::vector<std::uint32_t> free_;

    std::uint16_t last_places_[std::size_t{1} << (64 - kHashShift)] = {};
};

}  // namespace ami
