// Levels of one message as Python sees them: an unchanging sequence of (price, size) pairs, kept as plain numbers.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

class LevelList {
public:
    explicit LevelList(std::vector<double> pairs) : pairs_(std::move(pairs)) {}

    const double* data() const { return pairs_.data(); }
    std::size_t size() const { return pairs_.size() / 2; }
    bool operator==(const LevelList& other) const { return pairs_ == other.pairs_; }

private:
    std::vector<double> pairs_;
};
