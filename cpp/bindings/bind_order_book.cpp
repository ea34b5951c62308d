// Python's view of the books: reading levels from pairs or arrays, and the calls of ami_engine.book.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <ami/mbo_book.hpp>
#include <ami/order_book.hpp>

#include <algorithm>
#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "level_list.hpp"

namespace nb = nanobind;

namespace {

using ami::MboBook;
using ami::OrderBook;
using ami::Side;
using LevelArray = nb::ndarray<const double, nb::shape<-1, 2>, nb::c_contig, nb::device::cpu>;
using LevelSink = nb::ndarray<double, nb::shape<-1, 2>, nb::c_contig, nb::device::cpu>;
using QuoteTuple = std::tuple<double, double, double, double>;

[[noreturn]] void refuse_levels(const char* field) {
    throw ami::EventError("`" + std::string(field) + "` must be a list of (price, size) pairs or an n\xc3\x97" "2 array",
                          "wrong_type", field);
}

[[noreturn]] void refuse_pair(const char* field, Py_ssize_t i, const char* rule) {
    throw ami::EventError("`" + std::string(field) + "[" + std::to_string(i) + "]` must " + rule, "wrong_type", field);
}

double read_number(PyObject* value, const char* field, Py_ssize_t i) {
    if (PyFloat_CheckExact(value)) return PyFloat_AS_DOUBLE(value);
    // Foreign code may run in __float__, and may drop the caller's list and with it the borrowed reference.
    const nb::object held = nb::borrow(value);
    const double number = PyFloat_AsDouble(value);
    if (number == -1.0 && PyErr_Occurred() != nullptr) {
        PyErr_Clear();
        refuse_pair(field, i, "hold two numbers");
    }
    return number;
}

// The levels of one message: a view of the caller's array, or pairs copied into a buffer that the next message reuses.
class LevelReader {
public:
    // A call that is made while another reads (from a number's own __float__) finds no buffer to spare and makes one.
    explicit LevelReader(Side side) : spare_(spare_of(side)), buffer_(std::move(spare_)) { buffer_.clear(); }
    ~LevelReader() { spare_ = std::move(buffer_); }
    LevelReader(const LevelReader&) = delete;
    LevelReader& operator=(const LevelReader&) = delete;

    void read(nb::handle levels, const char* field) {
        PyObject* p = levels.ptr();
        if (nb::isinstance<LevelList>(levels)) {
            // The caller holds it while the book reads, and it never changes.
            const LevelList& list = *nb::inst_ptr<LevelList>(levels);
            data_ = list.data();
            count_ = list.size();
            return;
        }
        if (PyList_Check(p)) {
            for (Py_ssize_t i = 0; i < NB_LIST_GET_SIZE(p); ++i) read_pair(NB_LIST_GET_ITEM(p, i), field, i);
        } else if (PyTuple_Check(p)) {
            for (Py_ssize_t i = 0; i < NB_TUPLE_GET_SIZE(p); ++i) read_pair(NB_TUPLE_GET_ITEM(p, i), field, i);
        } else {
            read_array(levels, field);
            return;
        }
        data_ = buffer_.data();
        count_ = buffer_.size() / 2;
    }

    const double* data() const { return data_; }
    std::size_t count() const { return count_; }

private:
    static std::vector<double>& spare_of(Side side) {
        static thread_local std::vector<double> spare[2];
        return spare[static_cast<std::size_t>(side)];
    }

    void read_pair(PyObject* pair, const char* field, Py_ssize_t i) {
        const nb::object held = nb::borrow(pair);
        if (PyTuple_Check(pair) && NB_TUPLE_GET_SIZE(pair) == 2) {
            buffer_.push_back(read_number(NB_TUPLE_GET_ITEM(pair, 0), field, i));
            buffer_.push_back(read_number(NB_TUPLE_GET_ITEM(pair, 1), field, i));
        } else if (PyList_Check(pair) && NB_LIST_GET_SIZE(pair) == 2) {
            PyObject* size = NB_LIST_GET_ITEM(pair, 1);
            const nb::object held_size = nb::borrow(size);
            buffer_.push_back(read_number(NB_LIST_GET_ITEM(pair, 0), field, i));
            buffer_.push_back(read_number(size, field, i));
        } else {
            refuse_pair(field, i, "be a pair (price, size)");
        }
    }

    void read_array(nb::handle levels, const char* field) {
        if (!nb::try_cast(levels, array_, false)) {
            // Another layout or another numeric type: NumPy makes the copy.
            const nb::object kind = nb::getattr(nb::getattr(levels, "dtype", nb::none()), "kind", nb::none());
            const std::string letter = nb::isinstance<nb::str>(kind) ? nb::cast<std::string>(kind) : std::string();
            if ((letter != "f" && letter != "i" && letter != "u") ||
                !nb::try_cast(levels.attr("astype")("float64", "C"), array_, false)) {
                refuse_levels(field);
            }
        }
        data_ = array_.data();
        count_ = array_.shape(0);
    }

    std::vector<double>& spare_;
    std::vector<double> buffer_;
    LevelArray array_;
    const double* data_ = nullptr;
    std::size_t count_ = 0;
};

[[noreturn]] void raise_config_error(const char* message) {
    const nb::object error = nb::module_::import_("ami_engine.errors").attr("ConfigError");
    PyErr_SetString(error.ptr(), message);
    throw nb::python_error();
}

// The one BookApply is Python's; its members are looked up once and never freed. Two threads may look at the same time.
nb::object to_python(ami::BookApply result) {
    static std::atomic<PyObject*> members[2] = {nullptr, nullptr};
    std::atomic<PyObject*>& member = members[static_cast<std::size_t>(result)];
    PyObject* found = member.load(std::memory_order_acquire);
    if (found == nullptr) {
        const nb::object type = nb::module_::import_("ami_engine.book").attr("BookApply");
        found = type(static_cast<int>(result)).release().ptr();
        member.store(found, std::memory_order_release);
    }
    return nb::borrow(found);
}

void apply_snapshot(OrderBook& book, nb::handle bids, nb::handle asks, std::int64_t seq) {
    LevelReader bid_levels(Side::kBid);
    LevelReader ask_levels(Side::kAsk);
    bid_levels.read(bids, "bids");
    ask_levels.read(asks, "asks");
    book.apply_snapshot(bid_levels.data(), bid_levels.count(), ask_levels.data(), ask_levels.count(), seq);
}

nb::object apply_delta(OrderBook& book, nb::handle bids, nb::handle asks, std::int64_t seq, std::int64_t first_seq,
                       std::int64_t prev_seq) {
    if (book.admit_delta(seq, first_seq, prev_seq) == ami::BookApply::kStale) return to_python(ami::BookApply::kStale);
    try {
        LevelReader bid_levels(Side::kBid);
        LevelReader ask_levels(Side::kAsk);
        bid_levels.read(bids, "bids");
        ask_levels.read(asks, "asks");
        book.apply_admitted(bid_levels.data(), bid_levels.count(), ask_levels.data(), ask_levels.count(), seq);
    } catch (...) {
        book.mark_gap();
        throw;
    }
    return to_python(ami::BookApply::kApplied);
}

template <class Book>
nb::object top_array(const Book& book, Side side, int n) {
    const std::size_t rows = std::min(static_cast<std::size_t>(n), book.view_bound(side));
    std::unique_ptr<double[]> data(new double[2 * rows + 1]);
    const int count = book.top(side, static_cast<int>(rows), data.get());
    double* values = data.release();
    const nb::capsule owner(values, [](void* p) noexcept { delete[] static_cast<double*>(p); });
    return nb::cast(nb::ndarray<nb::numpy, double, nb::ndim<2>>(values, {static_cast<std::size_t>(count), 2}, owner));
}

template <class Book>
nb::tuple top(const Book& book, std::optional<int> n) {
    const int count = n.value_or(book.levels());
    if (count < 0) throw nb::value_error(("`n` must be at least 0, was " + std::to_string(count)).c_str());
    return nb::make_tuple(top_array(book, Side::kBid, count), top_array(book, Side::kAsk, count));
}

template <class Book>
std::pair<int, int> top_into(const Book& book, const LevelSink& bids, const LevelSink& asks) {
    return {book.top(Side::kBid, static_cast<int>(bids.shape(0)), bids.data()),
            book.top(Side::kAsk, static_cast<int>(asks.shape(0)), asks.data())};
}

QuoteTuple as_tuple(const ami::Quote& q) { return {q.bid, q.bid_size, q.ask, q.ask_size}; }

template <class Book>
nb::bytes to_bytes(const Book& book) {
    const std::string data = book.to_bytes();
    return nb::bytes(data.data(), data.size());
}

template <class Book>
void construct(Book* self, double tick_size, int levels) {
    try {
        new (self) Book(tick_size, levels);
    } catch (const std::invalid_argument& error) {
        raise_config_error(error.what());
    }
}

// What both books answer alike.
template <class Book>
void bind_views(nb::class_<Book>& type) {
    type.def("__init__", &construct<Book>, nb::arg("tick_size"), nb::arg("levels") = 10)
        .def("top", &top<Book>, nb::arg("n") = nb::none(), nb::lock_self(),
             nb::sig("def top(self, n: int | None = None) -> tuple[numpy.typing.NDArray[numpy.float64], "
                     "numpy.typing.NDArray[numpy.float64]]"),
             "Return the best `n` bids and asks as new (k, 2) arrays of price and size, best first.")
        .def("top_into", &top_into<Book>, nb::arg("bids").noconvert(), nb::arg("asks").noconvert(), nb::lock_self(),
             "Write the best levels into two (n, 2) arrays; return how many rows of each were written.")
        .def("best", [](const Book& book) { return as_tuple(book.best()); }, nb::lock_self(),
             "Return (bid, bid_size, ask, ask_size); 0.0 where missing.")
        .def_prop_ro("is_crossed", &Book::is_crossed, nb::lock_self(), "True when the best bid is above the best ask.")
        .def_prop_ro("is_locked", &Book::is_locked, nb::lock_self(), "True when the best bid is the best ask.")
        .def_prop_ro("is_one_sided", &Book::is_one_sided, nb::lock_self(), "True when exactly one side has a level.")
        .def_prop_ro("is_empty", &Book::is_empty, nb::lock_self(), "True when no side has a level to show.")
        .def_prop_ro("tick_size", &Book::tick_size, "Price step, quote currency.")
        .def_prop_ro("levels", &Book::levels, "How many levels `top()` returns unless told otherwise.")
        .def_prop_ro("level_counts",
                     [](const Book& book) {
                         return std::make_pair(book.level_count(Side::kBid), book.level_count(Side::kAsk));
                     },
                     nb::lock_self(), "How many levels the book holds: bids, asks.")
        .def("to_bytes", &to_bytes<Book>, nb::lock_self(), "Return a checkpoint, versioned and checksummed.")
        .def_static("from_bytes",
                    [](const nb::bytes& data) { return Book::from_bytes(data.c_str(), data.size()); },
                    nb::arg("data"), "Return the book of a checkpoint; ValueError when it is damaged.")
        .def("__getstate__", &to_bytes<Book>, nb::lock_self())
        .def("__setstate__", [](Book& self, const nb::bytes& data) {
            new (&self) Book(Book::from_bytes(data.c_str(), data.size()));
        });
}

// One letter; anything else is a character that no action and no side has.
char letter(const nb::str& text) {
    const char* value = text.c_str();
    return value[0] != '\0' && value[1] == '\0' ? value[0] : '?';
}

nb::object find_order(const MboBook& book, std::uint64_t id) {
    const ami::RestingOrder* order = book.order(id);
    if (order == nullptr) return nb::none();
    return nb::make_tuple(order->side == Side::kBid ? "B" : "A", book.price_of(*order), order->size);
}

void bind_mbo_book(nb::module_& m) {
    nb::class_<MboBook> book(m, "MboBook",
                             "Orders of one symbol by id, and their levels. ami_engine.book.PlainMboBook documents every "
                             "call; this one is the same, compiled.");
    bind_views(book);
    book.def("apply",
             [](MboBook& self, const nb::str& action, const nb::str& side, std::uint64_t order_id, double price,
                double size) { return self.apply(letter(action), letter(side), order_id, price, size); },
             nb::arg("action"), nb::arg("side") = "N", nb::arg("order_id") = 0, nb::arg("price") = 0.0,
             nb::arg("size") = 0.0, nb::lock_self(), "Apply one message; return whether the book changed.")
        .def("clear", &MboBook::clear, nb::lock_self(), "Remove every order.")
        .def("order", &find_order, nb::arg("order_id"), nb::lock_self(),
             nb::sig("def order(self, order_id: int) -> tuple[str, float, float] | None"),
             "Return (side, price, size) of a resting order, None when it does not rest.")
        .def_prop_ro("order_count", &MboBook::order_count, "How many orders rest.")
        .def_prop_ro("unknown_cancels", &MboBook::unknown_cancels, "How many cancels met no order.")
        .def_prop_ro("unknown_modifies", &MboBook::unknown_modifies, "How many modifies met no order and added it.")
        .def_prop_ro("repeated_adds", &MboBook::repeated_adds, "How many adds replaced an order of the same id.");
}

}  // namespace

void bind_order_book(nb::module_& m) {
    nb::class_<OrderBook> book(m, "OrderBook",
                               "The L2 book of one symbol. ami_engine.book.PlainOrderBook documents every call; this one "
                               "is the same, compiled.");
    bind_views(book);
    book.def("apply_snapshot", &apply_snapshot, nb::arg("bids").none(), nb::arg("asks").none(), nb::arg("seq") = 0, nb::lock_self(),
             "Replace everything; of a repeated price the last counts. A refused snapshot changes nothing.")
        .def("apply_delta", &apply_delta, nb::arg("bids").none(), nb::arg("asks").none(), nb::arg("seq") = 0, nb::arg("first_seq") = 0,
             nb::arg("prev_seq") = 0, nb::lock_self(),
             nb::sig("def apply_delta(self, bids: object, asks: object, seq: int = 0, first_seq: int = 0, "
                     "prev_seq: int = 0) -> ami_engine.book.BookApply"),
             "Change levels, size 0 deletes; a `seq` of 0 is not checked. A refused delta leaves a gap behind.")
        .def("apply_ticker",
             [](OrderBook& self, double bid, double bid_size, double ask, double ask_size, std::int64_t seq) {
                 return to_python(self.apply_ticker(bid, bid_size, ask, ask_size, seq));
             },
             nb::arg("bid"), nb::arg("bid_size"), nb::arg("ask"), nb::arg("ask_size"), nb::arg("seq") = 0,
             nb::lock_self(),
             nb::sig("def apply_ticker(self, bid: float, bid_size: float, ask: float, ask_size: float, seq: int = 0) "
                     "-> ami_engine.book.BookApply"),
             "Override the best level until a delta of the same or a later `seq`; a price of 0 says the side is empty.")
        .def("mark_gap", &OrderBook::mark_gap, nb::lock_self(),
             "Say that the feed lost something: nothing is shown until a snapshot, or one level from the next ticker.")
        .def("depth_best", [](const OrderBook& self) { return as_tuple(self.depth_best()); }, nb::lock_self(),
             "Return (bid, bid_size, ask, ask_size) of the rebuilt depth alone.")
        .def_prop_ro("is_ready", &OrderBook::is_ready, "True when there was a snapshot, and no gap since.")
        .def_prop_ro("has_ticker", &OrderBook::has_ticker, "True while a ticker overrides the best level.")
        .def_prop_ro("seq", &OrderBook::seq, "Update id of the last message applied to the depth; 0 when unknown.")
        .def_prop_ro("deltas_applied", &OrderBook::deltas_applied, "How many deltas have changed the book.")
        .def_prop_ro("unknown_deletes", &OrderBook::unknown_deletes, "How many deletes met no level.");
    bind_mbo_book(m);
}
