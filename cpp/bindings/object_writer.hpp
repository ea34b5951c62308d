// Writes Python objects in a packet's form, as long as everything in them is known to be clean.
//
// What is not known (text that was not seen before, types that were not announced) makes the writer give up: the plain
// encoder then takes over, looks at the packet, and teaches the writer what it found to be clean.
#pragma once

#include <nanobind/nanobind.h>

#include <structmember.h>

#include <ami/packet_forms.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace objects {

namespace nb = nanobind;

inline constexpr int kMaxDepth = 32;

// Text that is asked for again and again: what the last one was, and its JSON.
struct KnownText {
    nb::object string;
    nb::object json;
};

// One field of a struct.
struct Field {
    nb::object name;
    std::string key;  // "mid":
    std::array<char, ami::kPiece> key_piece{};
    nb::object omitted;      // the default that JSON leaves out; a null handle for none
    Py_ssize_t offset = -1;  // of the slot in the object, -1 when it must be asked for by name
    KnownText last;
};

struct Plan {
    nb::object type;
    std::vector<Field> fields;
    std::string layout;  // of the binary form, empty when it has none
};

inline Py_ssize_t slot_offset(nb::handle type, nb::handle name) {
#ifdef Py_GIL_DISABLED
    (void)type, (void)name;
    return -1;
#else
    const nb::object descriptor = nb::getattr(type, name, nb::none());
    if (Py_TYPE(descriptor.ptr()) != &PyMemberDescr_Type) return -1;
    const PyMemberDef* member = reinterpret_cast<PyMemberDescrObject*>(descriptor.ptr())->d_member;
    return member->type == T_OBJECT_EX ? member->offset : -1;
#endif
}

inline nb::object interned(nb::handle text) {
    PyObject* name = nb::borrow(text).release().ptr();
    PyUnicode_InternInPlace(&name);
    return nb::steal(name);
}

inline nb::object get(PyObject* object, const Field& field) {
    if (field.offset >= 0) {
        PyObject* const value = *reinterpret_cast<PyObject**>(reinterpret_cast<char*>(object) + field.offset);
        if (value != nullptr) return nb::borrow(value);
    }
    return nb::getattr(object, field.name);
}

// False when the object is no whole number of 64 bits.
inline bool read_whole(PyObject* object, std::int64_t& number) {
    if (Py_TYPE(object) != &PyLong_Type) return false;
    int overflow = 0;
    number = PyLong_AsLongLongAndOverflow(object, &overflow);
    return overflow == 0;
}

// What was announced, and the texts that are known to be clean.
class Known {
public:
    Known(nb::dict texts, nb::dict keys) : texts_(std::move(texts)), keys_(std::move(keys)) {}

    void add_struct(nb::type_object type, nb::sequence names, nb::sequence keys, nb::dict omitted) {
        Plan plan;
        plan.type = type;
        plan.fields.resize(nb::len(names));
        for (std::size_t i = 0; i < plan.fields.size(); ++i) {
            Field& field = plan.fields[i];
            field.name = interned(nb::object(names[i]));
            field.key = nb::cast<std::string>(nb::object(keys[i]));
            std::copy_n(field.key.data(), std::min(field.key.size(), ami::kPiece), field.key_piece.data());
            if (omitted.contains(field.name)) field.omitted = omitted[field.name];
            field.offset = slot_offset(type, field.name);
        }
        plans_.push_back(std::move(plan));
    }

    void set_layout(nb::handle type, std::string layout) {
        if (Plan* plan = plan_of(reinterpret_cast<PyTypeObject*>(type.ptr()))) plan->layout = std::move(layout);
    }

    // `json` is the constant's text, with quotes.
    void add_constant(nb::object constant, std::string json) {
        constants_.emplace_back(std::move(constant), std::move(json));
    }

    Plan* plan_of(PyTypeObject* type) {
        for (Plan& plan : plans_)
            if (reinterpret_cast<PyTypeObject*>(plan.type.ptr()) == type) return &plan;
        return nullptr;
    }

    // The JSON of a text, null when it is not known to be clean.
    PyObject* text(PyObject* text) const { return find(texts_.ptr(), text); }
    PyObject* key(PyObject* key) const { return find(keys_.ptr(), key); }

    const std::string* constant(PyObject* value) const {
        for (const auto& [constant, json] : constants_)
            if (constant.ptr() == value) return &json;
        return nullptr;
    }

private:
    static PyObject* find(PyObject* texts, PyObject* text) {
        PyObject* const json = PyDict_GetItemWithError(texts, text);
        if (json == nullptr && PyErr_Occurred()) nb::raise_python_error();
        return json;
    }

    nb::dict texts_;
    nb::dict keys_;
    std::vector<Plan> plans_;
    std::vector<std::pair<nb::object, std::string>> constants_;
};

inline std::string_view view_of(PyObject* bytes) {
    return {PyBytes_AS_STRING(bytes), static_cast<std::size_t>(PyBytes_GET_SIZE(bytes))};
}

// Every method answers False when something is not known to be clean; what was written so far is worth nothing then.
template <class Form>
class ObjectWriter {
public:
    ObjectWriter(Known& known, Form& form) : known_(known), form_(form) {}

    ami::ByteBuffer& out() { return form_.out; }

    // A text in the form's spelling; `data` is null when it is not known to be clean.
    std::string_view spelled(PyObject* text, KnownText& last) {
        if (text != last.string.ptr()) {
            if (Py_TYPE(text) != &PyUnicode_Type) return {};
            PyObject* const json = known_.text(text);
            if (json == nullptr) return {};
            last.string = nb::borrow(text);
            last.json = nb::borrow(json);
        }
        return spelled(text, last.json.ptr());
    }

    // The same of a mapping's key.
    std::string_view spelled_key(PyObject* key, KnownText& last) {
        if (key != last.string.ptr()) {
            PyObject* const json = known_.key(key);
            if (json == nullptr) return {};
            last.string = nb::borrow(key);
            last.json = nb::borrow(json);
        }
        return spelled(key, last.json.ptr());
    }

    bool value(PyObject* value, int depth) {
        PyTypeObject* const type = Py_TYPE(value);
        if (value == Py_None) {
            form_.null();
        } else if (type == &PyUnicode_Type) {
            return known_text(value, known_.text(value));
        } else if (type == &PyFloat_Type) {
            form_.real(PyFloat_AS_DOUBLE(value));
        } else if (type == &PyLong_Type) {
            std::int64_t number = 0;
            if (!read_whole(value, number)) return false;
            form_.whole(number);
        } else if (type == &PyBool_Type) {
            form_.flag(value == Py_True);
        } else if (depth >= kMaxDepth) {
            return false;
        } else if (type == &PyDict_Type) {
            return dict(value, depth + 1);
        } else if (type == &PyList_Type || type == &PyTuple_Type) {
            return sequence(value, depth + 1);
        } else if (Plan* plan = known_.plan_of(type)) {
            // The binary form has structs only where a packet's own parts are.
            return Form::kIsJson && record(value, *plan, depth + 1);
        } else {
            return constant(value);
        }
        return true;
    }

    // A struct of a type that was announced, without the field `left_out`.
    bool record(PyObject* record, Plan& plan, int depth, const char* layout = nullptr, const Field* left_out = nullptr) {
        form_.open_struct(layout, plan.fields.size() - (left_out != nullptr ? 1 : 0));
        for (Field& field : plan.fields)
            if (&field != left_out && !this->field(record, field, depth)) return false;
        form_.close_struct();
        return true;
    }

    // The key, the value and what follows it; nothing for a default that is left out.
    bool field(PyObject* record, Field& field, int depth) {
        const nb::object held = get(record, field);
        PyObject* const item = held.ptr();
        if constexpr (Form::kIsJson) {
            if (field.omitted.is_valid() && item == field.omitted.ptr()) return true;
            if (field.key.size() <= ami::kPiece)
                form_.out.put_piece(field.key_piece.data(), field.key.size());
            else
                form_.out.put(field.key);
        }
        if (Py_TYPE(item) == &PyUnicode_Type) {
            const std::string_view text = spelled(item, field.last);
            if (text.data() == nullptr) return false;
            form_.text(text);
        } else if (!value(item, depth)) {
            return false;
        }
        form_.next();
        return true;
    }

    bool dict(PyObject* dict, int depth) {
        form_.open_map(static_cast<std::size_t>(PyDict_GET_SIZE(dict)));
        Py_ssize_t place = 0;
        PyObject *key, *item;
        while (PyDict_Next(dict, &place, &key, &item)) {
            if (Py_TYPE(key) != &PyUnicode_Type || !known_text(key, known_.key(key)) || !value(item, depth)) return false;
            form_.next();
        }
        form_.close_map();
        return true;
    }

private:
    static std::string_view spelled(PyObject* text, PyObject* json) {
        if constexpr (Form::kIsJson) {
            return view_of(json);
        } else {
            Py_ssize_t size = 0;
            const char* const utf8 = PyUnicode_AsUTF8AndSize(text, &size);
            if (utf8 == nullptr) nb::raise_python_error();
            return {utf8, static_cast<std::size_t>(size)};
        }
    }

    bool known_text(PyObject* text, PyObject* json) {
        if (json == nullptr) return false;
        form_.text(spelled(text, json));
        return true;
    }

    bool sequence(PyObject* values, int depth) {
        const Py_ssize_t count = PySequence_Fast_GET_SIZE(values);
        form_.open_list(static_cast<std::size_t>(count));
        for (Py_ssize_t i = 0; i < count; ++i) {
            if (!value(PySequence_Fast_GET_ITEM(values, i), depth)) return false;
            form_.next();
        }
        form_.close_list();
        return true;
    }

    bool constant(PyObject* value) {
        const std::string* const json = known_.constant(value);
        if (json == nullptr) return false;
        if constexpr (Form::kIsJson)
            form_.text(*json);
        else
            form_.text(std::string_view(*json).substr(1, json->size() - 2));
        return true;
    }

    Known& known_;
    Form& form_;
};

}  // namespace objects
