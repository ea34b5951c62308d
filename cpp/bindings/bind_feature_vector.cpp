// Python's view of one row: attributes, mapping access and a buffer that NumPy reads without a copy.
#include "feature_vector.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <string>

namespace nb = nanobind;

namespace {

constexpr const char* kAliases[][2] = {{"pressure", "pressure_ticks"}};

FeatureVector& values_of(PyObject* self) { return *nb::inst_ptr<FeatureVector>(nb::handle(self)); }

PyObject* get_feature(PyObject* self, void* index) {
    const FeatureVector& vector = values_of(self);
    const auto place = reinterpret_cast<std::uintptr_t>(index);
    if (place >= vector.count) {
        PyErr_Format(PyExc_AttributeError, "'FeatureVector' object has no attribute '%s': its row is without signals",
                     ami::kFeatureNames[place]);
        return nullptr;
    }
    return PyFloat_FromDouble(vector.values[place]);
}

// Attributes go through slots of the type, not through bound functions: models read them at every event.
PyGetSetDef* attribute_table() {
    constexpr std::size_t kAliasCount = sizeof(kAliases) / sizeof(kAliases[0]);
    static PyGetSetDef table[ami::kFeatureCount + kAliasCount + 1] = {};
    const auto entry = [](const char* name, std::size_t index) {
        return PyGetSetDef{name, get_feature, nullptr, nullptr, reinterpret_cast<void*>(index)};
    };
    for (std::size_t i = 0; i < ami::kFeatureCount; ++i) table[i] = entry(ami::kFeatureNames[i], i);
    for (std::size_t a = 0; a < kAliasCount; ++a) {
        const auto* const* found = std::find_if(std::begin(ami::kFeatureNames), std::end(ami::kFeatureNames),
                                                [a](const char* name) { return std::strcmp(name, kAliases[a][1]) == 0; });
        table[ami::kFeatureCount + a] =
            entry(kAliases[a][0], static_cast<std::size_t>(found - std::begin(ami::kFeatureNames)));
    }
    return table;
}

// Name (or alias) → index, made once and never freed.
PyObject* index_by_name() {
    static std::atomic<PyObject*> cache{nullptr};
    if (PyObject* known = cache.load(std::memory_order_acquire)) return known;
    nb::dict indices;
    for (PyGetSetDef* entry = attribute_table(); entry->name != nullptr; ++entry) {
        indices[entry->name] = reinterpret_cast<std::uintptr_t>(entry->closure);
    }
    PyObject* made = indices.release().ptr();
    cache.store(made, std::memory_order_release);
    return made;
}

nb::tuple names(const FeatureVector& vector) {
    nb::list list;
    for (std::size_t i = 0; i < vector.count; ++i) list.append(nb::str(ami::kFeatureNames[i]));
    return nb::tuple(list);
}

// The value of `name`, null without an error set when there is no such feature.
PyObject* find(PyObject* self, PyObject* name) {
    PyObject* index = PyDict_GetItemWithError(index_by_name(), name);
    const std::size_t place = index == nullptr ? ami::kFeatureCount : PyLong_AsSize_t(index);
    return place < values_of(self).count ? get_feature(self, reinterpret_cast<void*>(place)) : nullptr;
}

PyObject* subscript(PyObject* self, PyObject* name) {
    PyObject* value = find(self, name);
    if (value == nullptr && PyErr_Occurred() == nullptr) PyErr_SetObject(PyExc_KeyError, name);
    return value;
}

Py_ssize_t length(PyObject* self) { return static_cast<Py_ssize_t>(values_of(self).count); }

int contains(PyObject* self, PyObject* name) {
    PyObject* index = PyDict_GetItemWithError(index_by_name(), name);
    if (index == nullptr) return PyErr_Occurred() == nullptr ? 0 : -1;
    return PyLong_AsSize_t(index) < values_of(self).count ? 1 : 0;
}

PyObject* iterate(PyObject* self) {
    const nb::tuple all = names(values_of(self));
    return PyObject_GetIter(all.ptr());
}

int get_buffer(PyObject* self, Py_buffer* view, int flags) {
    if ((flags & PyBUF_WRITABLE) == PyBUF_WRITABLE) {
        PyErr_SetString(PyExc_BufferError, "a FeatureVector is read-only");
        view->obj = nullptr;
        return -1;
    }
    static Py_ssize_t shapes[2] = {ami::kFeatureCount, ami::kBaseFeatureCount};
    FeatureVector& vector = values_of(self);
    Py_ssize_t* shape = shapes + (vector.count == ami::kBaseFeatureCount);
    static Py_ssize_t strides[1] = {sizeof(double)};
    static char format[] = "d";
    view->buf = vector.values.data();
    view->obj = Py_NewRef(self);
    view->len = static_cast<Py_ssize_t>(sizeof(double)) * *shape;
    view->itemsize = sizeof(double);
    view->readonly = 1;
    view->ndim = 1;
    view->format = (flags & PyBUF_FORMAT) != 0 ? format : nullptr;
    view->shape = (flags & PyBUF_ND) != 0 ? shape : nullptr;
    view->strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES ? strides : nullptr;
    view->suboffsets = nullptr;
    view->internal = nullptr;
    return 0;
}

nb::object get(nb::handle self, nb::handle name, nb::object otherwise) {
    PyObject* value = find(self.ptr(), name.ptr());
    if (value != nullptr) return nb::steal(value);
    if (PyErr_Occurred() != nullptr) throw nb::python_error();
    return otherwise;
}

nb::dict as_dict(const FeatureVector& self) {
    nb::dict result;
    for (std::size_t i = 0; i < self.count; ++i) result[ami::kFeatureNames[i]] = self.values[i];
    return result;
}

nb::list values_list(const FeatureVector& self) {
    nb::list list;
    for (std::size_t i = 0; i < self.count; ++i) list.append(self.values[i]);
    return list;
}

std::string representation(const FeatureVector& self) {
    std::string text = "FeatureVector(";
    for (std::size_t i = 0; i < self.count; ++i) {
        text += std::string(i == 0 ? "" : ", ") + ami::kFeatureNames[i] + "=" +
                nb::cast<std::string>(nb::repr(nb::float_(self.values[i])));
    }
    return text + ")";
}

nb::bytes get_state(const FeatureVector& self) {
    return nb::bytes(reinterpret_cast<const char*>(self.values.data()), self.count * sizeof(double));
}

void set_state(FeatureVector& self, const nb::bytes& state) {
    const std::size_t count = state.size() / sizeof(double);
    const bool is_row = count == ami::kFeatureCount || count == ami::kBaseFeatureCount;
    if (!is_row || state.size() % sizeof(double) != 0) {
        throw nb::value_error("the pickled FeatureVector has another number of features");
    }
    new (&self) FeatureVector;
    self.count = count;
    std::memcpy(self.values.data(), state.c_str(), state.size());
}

}  // namespace

void bind_feature_vector(nb::module_& m) {
    static PyType_Slot slots[] = {
        {Py_tp_getset, attribute_table()},
        {Py_mp_subscript, reinterpret_cast<void*>(subscript)},
        {Py_mp_length, reinterpret_cast<void*>(length)},
        {Py_sq_contains, reinterpret_cast<void*>(contains)},
        {Py_tp_iter, reinterpret_cast<void*>(iterate)},
        {Py_bf_getbuffer, reinterpret_cast<void*>(get_buffer)},
        {0, nullptr},
    };
    nb::class_<FeatureVector>(m, "FeatureVector", nb::type_slots(slots),
                              "One row of features, read-only and detached from its builder. "
                              "ami_engine.features.FeatureVector documents it.")
        .def("get", &get, nb::arg("name"), nb::arg("default") = nb::none(),
             nb::sig("def get(self, name: str, default: object = None) -> typing.Any"), "Return a feature, or `default`.")
        .def("as_dict", &as_dict, nb::sig("def as_dict(self) -> dict[str, float]"),
             "Return a new dict of all features in their order.")
        .def("keys", &names, nb::sig("def keys(self) -> tuple[str, ...]"),
             "Return the names in their order.")
        .def("values", &values_list, nb::sig("def values(self) -> list[float]"), "Return the values in their order.")
        .def("items", [](const FeatureVector& self) { return as_dict(self).attr("items")(); },
             nb::sig("def items(self) -> collections.abc.ItemsView[str, float]"),
             "Return the pairs of name and value in their order.")
        .def("__repr__", &representation)
        .def("__getstate__", &get_state)
        .def("__setstate__", &set_state);
}
