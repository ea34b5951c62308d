// What became of the orders of a run that may be handed over: the last ones that ended, as venue and order table know them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>

namespace ami {

enum class Place : int { bid, ask, exit };

enum class OrderEnd : int { open, filled, canceled, expired, rejected };

struct OrderRecord {
    Place place = Place::bid;
    bool is_buy = false;
    bool post_only = false;
    OrderEnd end = OrderEnd::open;
    double price = 0.0;
    double qty = 0.0;
    double filled_qty = 0.0;
    double avg_price = 0.0;
    std::int64_t ticks = 0;
    std::int64_t placed_ms = 0;
    std::int64_t step = 0;
    std::int64_t venue_number = 0;  // 0: the venue gave none
};

// Both ends of the wire, each bounded, the oldest first.
class OrderLog {
public:
    OrderLog(std::size_t most_ended, std::size_t most_closed) : most_ended_(most_ended), most_closed_(most_closed) {}

    void end(const OrderRecord& record) { keep(ended, record, most_ended_); }
    void close(const OrderRecord& record) { keep(closed, record, most_closed_); }

    std::deque<OrderRecord> ended;       // at the venue
    std::deque<OrderRecord> closed;      // in the order table
    std::int64_t last_sent[2] = {-1, -1};  // steps of the last buy and the last sell, -1: none

private:
    static void keep(std::deque<OrderRecord>& records, const OrderRecord& record, std::size_t most) {
        records.push_back(record);
        if (records.size() > most) records.pop_front();
    }

    std::size_t most_ended_;
    std::size_t most_closed_;
};

}  // namespace ami
