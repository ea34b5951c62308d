// One side of a book: levels sorted by a key, the best last, in one contiguous run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace ami {

// `Level` has an int64 member `key` that grows with how good the price is (ticks of a bid, minus the ticks of an ask), so
// that both sides are one code and the busy end of the side is the cheap end of the vector.
template <class Level>
class Ladder {
public:
    std::size_t size() const { return levels_.size(); }
    bool empty() const { return levels_.empty(); }
    // i = 0 is the best level.
    const Level& from_best(std::size_t i) const { return levels_[levels_.size() - 1 - i]; }
    const Level& best() const { return levels_.back(); }
    void clear() { levels_.clear(); }

    // Index of the first level whose key is not below `key`; size() when there is none. Doubling steps from the best end,
    // or from `hint`, the place of the change before: most changes are near the best, and messages go outward from it.
    std::size_t find(std::int64_t key, std::size_t hint = kNoHint) const {
        const bool is_below_hint = hint < levels_.size() && levels_[hint].key >= key;
        const std::size_t n = is_below_hint ? hint + 1 : levels_.size();
        std::size_t step = 1;
        while (step <= n && levels_[n - step].key >= key) step *= 2;
        std::size_t low = step <= n ? n - step + 1 : 0;
        std::size_t count = n - step / 2 - low;
        while (count > 0) {
            const std::size_t half = count / 2;
            const bool below = levels_[low + half].key < key;
            low = below ? low + half + 1 : low;
            count = below ? count - half - 1 : half;
        }
        return low;
    }

    bool holds(std::size_t index, std::int64_t key) const { return index < levels_.size() && levels_[index].key == key; }
    Level& operator[](std::size_t index) { return levels_[index]; }
    const Level& operator[](std::size_t index) const { return levels_[index]; }
    void insert(std::size_t index, const Level& level) {
        levels_.insert(levels_.begin() + static_cast<std::ptrdiff_t>(index), level);
    }
    void erase(std::size_t index) { levels_.erase(levels_.begin() + static_cast<std::ptrdiff_t>(index)); }

    // Replace everything by levels that are sorted by key, ascending and without repeats.
    void assign(const std::vector<Level>& sorted) { levels_.assign(sorted.begin(), sorted.end()); }

private:
    static constexpr std::size_t kNoHint = static_cast<std::size_t>(-1);

    std::vector<Level> levels_;
};

}  // namespace ami
