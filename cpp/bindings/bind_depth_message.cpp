// Depth messages of Binance from their bytes, and the level lists that they are read into.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <ami/depth_message.hpp>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "level_list.hpp"

namespace nb = nanobind;

namespace {

nb::tuple pair_at(const LevelList& levels, std::size_t i) {
    return nb::make_tuple(levels.data()[2 * i], levels.data()[2 * i + 1]);
}

nb::list to_list(const LevelList& levels) {
    nb::list pairs;
    for (std::size_t i = 0; i < levels.size(); ++i) pairs.append(pair_at(levels, i));
    return pairs;
}

nb::object get_item(const LevelList& levels, nb::handle key) {
    if (!PyLong_Check(key.ptr())) return nb::steal(PyObject_GetItem(to_list(levels).ptr(), key.ptr()));
    const Py_ssize_t count = static_cast<Py_ssize_t>(levels.size());
    Py_ssize_t i = PyNumber_AsSsize_t(key.ptr(), PyExc_IndexError);
    if (i == -1 && PyErr_Occurred() != nullptr) throw nb::python_error();
    if (i < 0) i += count;
    if (i < 0 || i >= count) throw nb::index_error("level index out of range");
    return pair_at(levels, static_cast<std::size_t>(i));
}

nb::object compare(const LevelList& levels, nb::handle other) {
    if (nb::isinstance<LevelList>(other)) return nb::bool_(levels == nb::cast<const LevelList&>(other));
    if (!PyList_Check(other.ptr())) return nb::borrow(Py_NotImplemented);
    return nb::bool_(to_list(levels).equal(other));
}

LevelList from_pairs(nb::iterable pairs) {
    std::vector<double> numbers;
    for (const nb::handle pair : pairs) {
        if (nb::len(pair) != 2) throw nb::value_error("a level must be a pair (price, size)");
        for (const nb::handle number : nb::borrow<nb::iterable>(pair)) numbers.push_back(nb::cast<double>(number));
    }
    return LevelList(std::move(numbers));
}

nb::object to_array(const nb::object& self, nb::handle dtype, nb::handle copy) {
    const LevelList& levels = nb::cast<const LevelList&>(self);
    using Array = nb::ndarray<nb::numpy, const double, nb::shape<-1, 2>, nb::c_contig>;
    const nb::object view = nb::cast(Array(levels.data(), {levels.size(), std::size_t{2}}, self));
    // The view is read-only: who asks for nothing gets an array of his own, as of a list.
    if (copy.is(nb::bool_(false)) && dtype.is_none()) return view;
    return dtype.is_none() ? view.attr("copy")() : view.attr("astype")(dtype);
}

// Reads messages one after the other; the name of the symbol is the same object as long as it stays the same.
class DepthReader {
public:
    nb::object read(const nb::bytes& payload) {
        if (!reader_.read(payload.c_str(), payload.size(), message_)) return nb::none();
        return nb::make_tuple(symbol(), message_.first_seq, message_.seq, message_.prev_seq, message_.has_pair,
                              message_.match_ms != 0 ? message_.match_ms : message_.event_ms,
                              LevelList(message_.bids), LevelList(message_.asks));
    }

private:
    const nb::str& symbol() {
        if (name_.size() != message_.symbol_length ||
            std::memcmp(name_.data(), message_.symbol, message_.symbol_length) != 0 || !symbol_.is_valid()) {
            name_.assign(message_.symbol, message_.symbol_length);
            symbol_ = nb::str(name_.data(), name_.size());
        }
        return symbol_;
    }

    ami::DepthMessageReader reader_;
    ami::DepthMessage message_;
    std::string name_;
    nb::str symbol_ = nb::steal<nb::str>(nb::handle());
};

}  // namespace

void bind_depth_message(nb::module_& m) {
    nb::class_<LevelList>(m, "LevelList",
                          "Levels of a book message: an unchanging sequence of (price, size) pairs, kept as plain "
                          "numbers. Equal to a list of the same pairs.")
        .def("__init__", [](LevelList* self, nb::iterable pairs) { new (self) LevelList(from_pairs(pairs)); },
             nb::arg("pairs"))
        .def("__len__", &LevelList::size)
        .def("__getitem__", &get_item, nb::arg("key"))
        .def("__iter__", [](const LevelList& self) { return nb::iter(to_list(self)); })
        .def("__eq__", &compare, nb::arg("other").none())
        .def("__repr__", [](const LevelList& self) { return nb::repr(to_list(self)); })
        .def("__array__", &to_array, nb::arg("dtype") = nb::none(), nb::arg("copy") = nb::none())
        .def("__reduce__", [](const LevelList& self) {
            return nb::make_tuple(nb::type<LevelList>(), nb::make_tuple(to_list(self)));
        });
    nb::class_<DepthReader>(m, "DepthReader", "Reads the bytes of Binance depth messages of a combined stream.")
        .def(nb::init<>())
        .def("read", &DepthReader::read, nb::arg("payload"), nb::lock_self(),
             nb::sig("def read(self, payload: bytes) -> tuple[str, int, int, int, bool, int, LevelList, LevelList] | None"),
             "Return symbol, first and last update id, the one before the first (-1: not said), whether a pair is named, "
             "the time in ms, bids and asks; None for a message in another spelling than the venue's usual one.");
}
