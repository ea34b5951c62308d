// What became of the orders of a run that may be handed over: the last ones that ended, as venue and order table know them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

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

// What a venue remembers of an order that ended: there may be a hundred thousand of them.
struct EndedOrder {
    EndedOrder(const OrderRecord& r)
        : price(r.price),
          qty(r.qty),
          filled_qty(r.filled_qty),
          step(r.step),
          packed(r.venue_number << 4 | static_cast<std::int64_t>(r.end) << 1 | (r.is_buy ? 1 : 0)) {}

    bool is_buy() const { return (packed & 1) != 0; }
    OrderEnd end() const { return static_cast<OrderEnd>(packed >> 1 & 7); }
    std::int64_t venue_number() const { return packed >> 4; }

    double price;
    double qty;
    double filled_qty;
    std::int64_t step;
    std::int64_t packed;
};
static_assert(sizeof(EndedOrder) == 40, "a long run pays for each byte a hundred thousand times");

// Why the venue refused an order, and what it was up against.
struct Refusal {
    enum Why : int { form, nothing_to_reduce, own_order, would_take };

    Why why = form;
    double held = 0.0;  // the position that was to be reduced
    OrderRecord own;    // the order of ours that it would have traded with
    double best = 0.0;  // the price that it would have taken
};

// What an audit log is to say of an order.
struct OrderNote {
    enum What : int { submitted, rejected, canceled, swept };

    What what = submitted;
    OrderRecord order;
    Refusal refusal;
};

// Both ends of the wire, each bounded, the oldest first.
class OrderLog {
public:
    OrderLog(std::size_t most_ended, std::size_t most_closed) : most_ended_(most_ended), most_closed_(most_closed) {}

    void note(OrderNote::What what, const OrderRecord& record) {
        if (keeps_notes) notes.push_back({what, record, what == OrderNote::rejected ? refusal : Refusal{}});
    }
    void end(const OrderRecord& record) { keep(ended, record, most_ended_); }
    void close(const OrderRecord& record) { keep(closed, record, most_closed_); }

    bool keeps_notes = false;
    std::vector<OrderNote> notes;  // since somebody took them
    Refusal refusal;               // the last one
    std::deque<EndedOrder> ended;        // at the venue
    std::deque<OrderRecord> closed;      // in the order table
    std::int64_t last_sent[2] = {-1, -1};  // steps of the last buy and the last sell, -1: none

private:
    template <class Record>
    static void keep(std::deque<Record>& records, const OrderRecord& record, std::size_t most) {
        records.push_back(Record(record));
        if (records.size() > most) records.pop_front();
    }

    std::size_t most_ended_;
    std::size_t most_closed_;
};

}  // namespace ami
