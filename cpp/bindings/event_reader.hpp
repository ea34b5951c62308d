// An event as Python brings it (a struct of ami_engine.events, or a mapping), read into plain numbers.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "arrays.hpp"

enum class EventKind { quote, levels, trade };

struct EventView {
    EventKind kind = EventKind::quote;
    bool has_time = true;
    std::int64_t ts_ns = 0;
    double bid = 0.0;  // of an event with levels: what it states, 0 when it states nothing
    double ask = 0.0;
    double bid_depth = 0.0;
    double ask_depth = 0.0;
    const double* bids = nullptr;  // valid until the reader reads again
    const double* asks = nullptr;
    std::size_t bid_count = 0;
    std::size_t ask_count = 0;
    double price = 0.0;
    double size = 0.0;
    std::int64_t aggressor = 0;
};

// One side's levels: a view of the caller's array, or the first pairs of a list copied into a buffer that stays.
class SideReader {
public:
    SideReader(const char* field, std::size_t most) : field_(field), most_(most) { buffer_.reserve(2 * most); }

    void read(nanobind::handle levels);
    void clear() { count_ = 0; }
    // Let go of the caller's array.
    void release() { array_ = {}; }
    const double* data() const { return data_; }
    std::size_t count() const { return count_; }

private:
    void read_sequence(nanobind::handle levels);
    void read_array(nanobind::handle levels);

    const char* field_;
    std::size_t most_;
    std::vector<double> buffer_;
    arrays::Levels array_;
    const double* data_ = nullptr;
    std::size_t count_ = 0;
};

// The rules of what an event may be; features/event_reader.py spells the same ones for the other backends.
class EventReader {
public:
    explicit EventReader(std::size_t levels) : bids_("bids", levels), asks_("asks", levels) {}

    // Throws ami::EventError for what is no event. The numbers themselves are checked by the core.
    EventView read(nanobind::handle event);
    EventView read_levels(std::int64_t ts_ns, nanobind::handle bids, nanobind::handle asks);
    void release() {
        bids_.release();
        asks_.release();
    }

private:
    EventView read_dict(PyObject* event);
    void read_dict_book(PyObject* event, EventView& view);
    void read_dict_time(PyObject* event, EventView& view);
    EventView read_struct(nanobind::handle event, int type);
    void take_levels(EventView& view);

    SideReader bids_;
    SideReader asks_;
};
