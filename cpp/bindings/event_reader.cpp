// Reading events: every refusal names the field and what was found there.
#include "event_reader.hpp"

#include <nanobind/nanobind.h>

#include <ami/event_error.hpp>

#include <array>
#include <atomic>
#include <cmath>
#include <limits>
#include <string>

#include "level_list.hpp"

namespace nb = nanobind;

namespace {

// An attribute or key name, interned on first use and never freed.
class Name {
public:
    constexpr explicit Name(const char* text) : text_(text) {}
    const char* text() const { return text_; }
    PyObject* object() const {
        PyObject* known = cache_.load(std::memory_order_acquire);
        if (known == nullptr) {
            known = PyUnicode_InternFromString(text_);
            if (known == nullptr) throw nb::python_error();
            cache_.store(known, std::memory_order_release);
        }
        return known;
    }

private:
    const char* text_;
    mutable std::atomic<PyObject*> cache_{nullptr};
};

const Name kRecv("recv_ts_ns"), kExch("exch_ts_ns"), kTsNs("ts_ns"), kTsMs("ts_ms"), kTimestampMs("timestamp_ms");
const Name kBid("bid"), kAsk("ask"), kBidDepth("bid_depth"), kAskDepth("ask_depth"), kBids("bids"), kAsks("asks");
const Name kMid("mid"), kClose("close"), kPrice("price"), kSize("size"), kAggressor("aggressor");
const Name kBidSize("bid_size"), kAskSize("ask_size"), kKind("kind"), kType("type");

[[noreturn]] void refuse(const char* field, const std::string& rule, const char* reason) {
    throw ami::EventError("`" + std::string(field) + "` " + rule, reason, field);
}

std::string described(nb::handle value) {
    const std::string text = nb::repr(value).c_str();
    return text.size() > 60 ? std::string(Py_TYPE(value.ptr())->tp_name) : text;
}

double to_double(PyObject* value, const char* field) {
    if (PyFloat_CheckExact(value)) return PyFloat_AS_DOUBLE(value);
    if (value == Py_None) refuse(field, "must be a number, was None", "malformed");
    // Foreign code may run in __float__, and may drop what was borrowed.
    const nb::object held = nb::borrow(value);
    const bool is_bool = PyBool_Check(value);
    const double number = is_bool ? -1.0 : PyFloat_AsDouble(value);
    if (is_bool || (number == -1.0 && PyErr_Occurred() != nullptr)) {
        PyErr_Clear();
        refuse(field, "must be a number, was " + described(value), "wrong_type");
    }
    return number;
}

std::int64_t to_int(PyObject* value, const char* field) {
    if (value == Py_None) refuse(field, "must be an integer, was None", "malformed");
    const nb::object held = nb::borrow(value);
    if (PyBool_Check(value) || !PyIndex_Check(value)) {
        refuse(field, "must be an integer, was " + described(value), "wrong_type");
    }
    const nb::object index = nb::steal(PyNumber_Index(value));
    int overflow = 0;
    const long long number = index.is_valid() ? PyLong_AsLongLongAndOverflow(index.ptr(), &overflow) : -1;
    if (overflow != 0 || (number == -1 && PyErr_Occurred() != nullptr)) {
        PyErr_Clear();
        refuse(field, "must fit into 64 signed bits, was " + described(value), "malformed");
    }
    return number;
}

// Milliseconds, whole or not, as ns.
std::int64_t ns_from_ms(PyObject* value, const char* field) {
    constexpr std::int64_t kNsPerMs = 1'000'000;
    if (!PyFloat_Check(value)) {
        const std::int64_t ms = to_int(value, field);
        if (ms > std::numeric_limits<std::int64_t>::max() / kNsPerMs) {
            refuse(field, "must be a time of this epoch, was " + described(value), "malformed");
        }
        return ms > 0 ? ms * kNsPerMs : ms;
    }
    const double ns = PyFloat_AS_DOUBLE(value) * 1e6;
    if (!std::isfinite(ns)) refuse(field, "must be finite, was " + described(value), "not_finite");
    if (!(std::fabs(ns) < 9.2e18)) refuse(field, "must be a time of this epoch, was " + described(value), "malformed");
    return static_cast<std::int64_t>(std::nearbyint(ns));
}

// The value of a key, invalid when it is absent. Owned: reading another key may run foreign code.
nb::object find(PyObject* dict, const Name& name) {
    PyObject* value = PyDict_GetItemWithError(dict, name.object());
    if (value == nullptr && PyErr_Occurred() != nullptr) throw nb::python_error();
    return nb::borrow(value);
}

double find_double(PyObject* dict, const Name& name, double otherwise) {
    const nb::object value = find(dict, name);
    return value.is_valid() ? to_double(value.ptr(), name.text()) : otherwise;
}

nb::object attribute(nb::handle event, const Name& name) {
    PyObject* value = PyObject_GetAttr(event.ptr(), name.object());
    if (value == nullptr) throw nb::python_error();
    return nb::steal(value);
}

double attribute_double(nb::handle event, const Name& name) { return to_double(attribute(event, name).ptr(), name.text()); }

// Index of a market event's type, -1 for any other object, kUnread for an event that no builder reads directly.
enum StructType : int { kNoStruct = -1, kBookSnapshot, kTrade, kBar, kBookTicker, kUnread };

struct EventTypes {
    std::array<PyObject*, 4> read{};
    PyObject* all = nullptr;  // tuple of every struct of ami_engine.events
};

const EventTypes& event_types() {
    static std::atomic<const EventTypes*> cache{nullptr};
    if (const EventTypes* known = cache.load(std::memory_order_acquire)) return *known;
    const nb::module_ events = nb::module_::import_("ami_engine.events");
    auto* made = new EventTypes;
    const char* names[] = {"BookSnapshot", "Trade", "Bar", "BookTicker"};
    for (std::size_t i = 0; i < 4; ++i) made->read[i] = nb::object(events.attr(names[i])).release().ptr();
    made->all = nb::make_tuple(events.attr("BookDelta"), events.attr("FeedGap"), events.attr("GenericEvent"),
                               events.attr("TimerEvent"))
                    .release()
                    .ptr();
    cache.store(made, std::memory_order_release);
    return *made;
}

int struct_type(nb::handle event) {
    const EventTypes& types = event_types();
    auto* type = reinterpret_cast<PyObject*>(Py_TYPE(event.ptr()));
    for (std::size_t i = 0; i < types.read.size(); ++i) {
        if (type == types.read[i]) return static_cast<int>(i);
    }
    for (std::size_t i = 0; i < types.read.size(); ++i) {
        if (PyObject_IsInstance(event.ptr(), types.read[i]) == 1) return static_cast<int>(i);
    }
    return PyObject_IsInstance(event.ptr(), types.all) == 1 ? kUnread : kNoStruct;
}

// A dict that was made from a struct carries its tag; a table's row may carry its kind.
EventKind tagged_kind(PyObject* event, bool& is_tagged) {
    is_tagged = true;
    if (const nb::object tag = find(event, kType); tag.is_valid() && PyUnicode_Check(tag.ptr())) {
        const char* text = PyUnicode_AsUTF8(tag.ptr());
        if (text == nullptr) throw nb::python_error();
        const std::string name = text;
        if (name == "trade") return EventKind::trade;
        if (name == "book_delta" || name == "feed_gap" || name == "timer" || name == "generic") {
            refuse("type", "must be a book event, a bar or a trade, was " + name, "unknown_kind");
        }
    }
    if (const nb::object kind = find(event, kKind); kind.is_valid() && PyLong_CheckExact(kind.ptr())) {
        const std::int64_t value = to_int(kind.ptr(), "kind");
        if (value == 1) return EventKind::trade;
        if (value != 0) refuse("kind", "must be 0 (book) or 1 (trade), was " + std::to_string(value), "unknown_kind");
        return EventKind::quote;
    }
    is_tagged = false;
    return EventKind::quote;
}

}  // namespace

void SideReader::read(nb::handle levels) {
    if (PyList_Check(levels.ptr()) || PyTuple_Check(levels.ptr())) {
        read_sequence(levels);
    } else if (nb::isinstance<LevelList>(levels)) {
        const LevelList& list = *nb::inst_ptr<LevelList>(levels);
        count_ = list.size() < most_ ? list.size() : most_;
        buffer_.assign(list.data(), list.data() + 2 * count_);
        data_ = buffer_.data();
    } else {
        read_array(levels);
    }
}

void SideReader::read_sequence(nb::handle levels) {
    const nb::object held = nb::steal(PySequence_Fast(levels.ptr(), ""));
    if (!held.is_valid()) throw nb::python_error();
    buffer_.clear();
    const auto size = static_cast<std::size_t>(PySequence_Fast_GET_SIZE(held.ptr()));
    count_ = size < most_ ? size : most_;
    for (std::size_t i = 0; i < count_; ++i) {
        const nb::object pair = nb::borrow(PySequence_Fast_GET_ITEM(held.ptr(), static_cast<Py_ssize_t>(i)));
        const bool is_sequence = PyTuple_Check(pair.ptr()) || PyList_Check(pair.ptr());
        const nb::object items = nb::steal(is_sequence ? PySequence_Fast(pair.ptr(), "") : nullptr);
        if (!items.is_valid() || PySequence_Fast_GET_SIZE(items.ptr()) != 2) {
            refuse(field_, "must hold pairs of price and size, was " + described(pair), "wrong_type");
        }
        for (Py_ssize_t k = 0; k < 2; ++k) {
            buffer_.push_back(to_double(PySequence_Fast_GET_ITEM(items.ptr(), k), field_));
        }
    }
    data_ = buffer_.data();
}

void SideReader::read_array(nb::handle levels) {
    if (levels.is_none()) refuse(field_, "must be levels, was None", "malformed");
    count_ = 0;
    if (PyObject_Length(levels.ptr()) == 0) return;
    PyErr_Clear();
    if (!nb::try_cast(levels, array_, false)) {
        // Another layout or another type of number: NumPy makes the copy.
        const nb::object kind = nb::getattr(nb::getattr(levels, "dtype", nb::none()), "kind", nb::none());
        const std::string letter = nb::isinstance<nb::str>(kind) ? nb::str(kind).c_str() : "";
        const bool is_numeric = letter == "f" || letter == "i" || letter == "u";
        if (!is_numeric || !nb::try_cast(levels.attr("astype")("float64", "C"), array_, false)) {
            refuse(field_, "must be pairs of price and size or an n x 2 array, was " + described(levels), "wrong_type");
        }
    }
    data_ = array_.data();
    count_ = array_.shape(0) < most_ ? array_.shape(0) : most_;
}

EventView EventReader::read(nb::handle event) {
    if (PyDict_CheckExact(event.ptr())) return read_dict(event.ptr());
    const int type = struct_type(event);
    if (type >= kBookSnapshot && type < kUnread) return read_struct(event, type);
    const std::string name = Py_TYPE(event.ptr())->tp_name;
    if (type == kUnread) throw ami::EventError("a feature row needs a book event, a bar or a trade, was " + name, "unknown_kind");
    if (PyMapping_Check(event.ptr()) && PyObject_HasAttrString(event.ptr(), "keys")) {
        const nb::object dict = nb::steal(PyDict_New());
        if (PyDict_Update(dict.ptr(), event.ptr()) != 0) throw nb::python_error();
        return read_dict(dict.ptr());
    }
    throw ami::EventError("an event must be a struct of ami_engine.events or a mapping, was " + name, "wrong_type");
}

EventView EventReader::read_levels(std::int64_t ts_ns, nb::handle bids, nb::handle asks) {
    EventView view;
    view.kind = EventKind::levels;
    view.ts_ns = ts_ns;
    bids_.read(bids);
    asks_.read(asks);
    take_levels(view);
    return view;
}

void EventReader::take_levels(EventView& view) {
    view.kind = EventKind::levels;
    view.bids = bids_.data();
    view.asks = asks_.data();
    view.bid_count = bids_.count();
    view.ask_count = asks_.count();
}

EventView EventReader::read_struct(nb::handle event, int type) {
    EventView view;
    view.ts_ns = to_int(attribute(event, kRecv).ptr(), kRecv.text());
    if (view.ts_ns == 0) view.ts_ns = to_int(attribute(event, kExch).ptr(), kExch.text());
    if (type == kTrade) {
        view.kind = EventKind::trade;
        view.price = attribute_double(event, kPrice);
        view.size = attribute_double(event, kSize);
        view.aggressor = to_int(attribute(event, kAggressor).ptr(), kAggressor.text());
        return view;
    }
    if (type == kBar) {
        view.bid = view.ask = attribute_double(event, kClose);
        return view;
    }
    view.bid = attribute_double(event, kBid);
    view.ask = attribute_double(event, kAsk);
    const bool is_ticker = type == kBookTicker;
    if (!is_ticker) {
        bids_.read(attribute(event, kBids));
        asks_.read(attribute(event, kAsks));
        if (bids_.count() + asks_.count() > 0) {
            take_levels(view);
            return view;
        }
    }
    view.bid_depth = attribute_double(event, is_ticker ? kBidSize : kBidDepth);
    view.ask_depth = attribute_double(event, is_ticker ? kAskSize : kAskDepth);
    return view;
}

EventView EventReader::read_dict(PyObject* event) {
    EventView view;
    bool is_tagged = false;
    view.kind = tagged_kind(event, is_tagged);
    read_dict_time(event, view);
    bool has_book = false;
    for (const Name* name : {&kBid, &kAsk, &kBids, &kAsks, &kMid}) has_book = has_book || find(event, *name).is_valid();
    if (!is_tagged && !has_book && find(event, kPrice).is_valid()) view.kind = EventKind::trade;
    if (view.kind == EventKind::trade) {
        for (const Name* name : {&kPrice, &kSize}) {
            if (!find(event, *name).is_valid()) refuse(name->text(), "is missing from a trade", "missing_field");
        }
        view.price = find_double(event, kPrice, 0.0);
        view.size = find_double(event, kSize, 0.0);
        const nb::object aggressor = find(event, kAggressor);
        view.aggressor = aggressor.is_valid() ? to_int(aggressor.ptr(), kAggressor.text()) : 0;
    } else if (has_book) {
        read_dict_book(event, view);
    } else {
        const nb::object close = find(event, kClose);
        if (!close.is_valid()) refuse("bid", "is missing, and so are `ask`, `mid`, `bids` and `asks`", "missing_field");
        view.bid = view.ask = to_double(close.ptr(), kClose.text());
    }
    return view;
}

void EventReader::read_dict_book(PyObject* event, EventView& view) {
    bids_.clear();
    asks_.clear();
    if (const nb::object bids = find(event, kBids); bids.is_valid()) bids_.read(bids);
    if (const nb::object asks = find(event, kAsks); asks.is_valid()) asks_.read(asks);
    const nb::object bid = find(event, kBid);
    const nb::object ask = find(event, kAsk);
    view.bid = bid.is_valid() ? to_double(bid.ptr(), kBid.text()) : 0.0;
    view.ask = ask.is_valid() ? to_double(ask.ptr(), kAsk.text()) : 0.0;
    if (bids_.count() + asks_.count() > 0) {
        take_levels(view);
        return;
    }
    if (!bid.is_valid() && !ask.is_valid()) view.bid = view.ask = find_double(event, kMid, 0.0);
    view.bid_depth = find_double(event, kBidDepth, find_double(event, kBidSize, 0.0));
    view.ask_depth = find_double(event, kAskDepth, find_double(event, kAskSize, 0.0));
}

void EventReader::read_dict_time(PyObject* event, EventView& view) {
    const nb::object recv = find(event, kRecv);
    const nb::object exch = find(event, kExch);
    if (recv.is_valid() || exch.is_valid()) {
        view.ts_ns = recv.is_valid() ? to_int(recv.ptr(), kRecv.text()) : 0;
        if (view.ts_ns == 0 && exch.is_valid()) view.ts_ns = to_int(exch.ptr(), kExch.text());
    } else if (const nb::object ts_ns = find(event, kTsNs); ts_ns.is_valid()) {
        view.ts_ns = to_int(ts_ns.ptr(), kTsNs.text());
    } else if (const nb::object ts_ms = find(event, kTsMs); ts_ms.is_valid()) {
        view.ts_ns = ns_from_ms(ts_ms.ptr(), kTsMs.text());
    } else if (const nb::object timestamp_ms = find(event, kTimestampMs); timestamp_ms.is_valid()) {
        view.ts_ns = ns_from_ms(timestamp_ms.ptr(), kTimestampMs.text());
    } else {
        view.has_time = false;
    }
}
