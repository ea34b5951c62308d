// What a run did in its market, for a picture of it: every fill, and every change of its own best quotes. ops/activity.py
// writes it down.
#pragma once

#include <cstdint>
#include <vector>

#include "ami/paper_venue.hpp"

namespace ami {

struct ActivityMark {
    bool is_fill = false;
    std::int64_t step = 0;  // of the decision that comes next
    std::int64_t now_ns = 0;
    VenueFill fill{};
    double position = 0.0;  // after the fill, and so is the equity
    double equity = 0.0;
    double bid = 0.0;  // the run's own quotes; 0: none
    double ask = 0.0;
};

class ActivityLog {
public:
    bool is_kept = false;
    std::vector<ActivityMark> marks;  // since somebody took them

    void fill(std::int64_t step, std::int64_t now_ns, const VenueFill& fill, double position, double equity) {
        if (is_kept) marks.push_back({true, step, now_ns, fill, position, equity, 0.0, 0.0});
    }

    void quotes(std::int64_t step, std::int64_t now_ns, double bid, double ask) {
        if (!is_kept || (bid == bid_ && ask == ask_)) return;
        bid_ = bid;
        ask_ = ask;
        marks.push_back({false, step, now_ns, {}, 0.0, 0.0, bid, ask});
    }

private:
    double bid_ = 0.0;
    double ask_ = 0.0;
};

}  // namespace ami
