// Packets of a trace as JSON, in one pass that only writes what is known to be clean.
//
// What is not known (text that was not seen before, NaN, types that were not announced) makes `write` give up and answer
// None: the plain encoder then takes over, looks at the packet, and teaches the writer what it found to be clean.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>

#include <structmember.h>

#include <ami/json_number.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nb = nanobind;

namespace {

constexpr int kMaxDepth = 32;
// Short pieces are copied whole at this width, which is faster than copying just so many bytes.
constexpr std::size_t kPiece = 32;

// A text that grows, with room beyond its end for one piece more.
class Buffer {
public:
    Buffer() : data_(8192) {}

    void clear() { size_ = 0; }
    std::size_t size() const { return size_; }
    const char* data() const { return data_.data(); }
    char& back() { return data_[size_ - 1]; }
    void pop_back() { --size_; }

    void put(char c) {
        reserve(1);
        data_[size_++] = c;
    }

    void put(std::string_view text) {
        reserve(text.size());
        std::memcpy(data_.data() + size_, text.data(), text.size());
        size_ += text.size();
    }

    // Of `piece`, which has kPiece readable bytes, the first `length`.
    void put_piece(const char* piece, std::size_t length) {
        reserve(kPiece);
        std::memcpy(data_.data() + size_, piece, kPiece);
        size_ += length;
    }

    void put_int(std::int64_t number) {
        reserve(ami::kNumberChars);
        size_ += ami::write_int(number, data_.data() + size_);
    }

    void put_double(double number) {
        reserve(ami::kNumberChars);
        size_ += ami::write_double(number, data_.data() + size_);
    }

private:
    void reserve(std::size_t more) {
        if (size_ + more + kPiece > data_.size()) data_.resize(2 * data_.size() + more);
    }

    std::vector<char> data_;
    std::size_t size_ = 0;
};

// One field of a struct. Its last value is kept as text: most values of a packet are those of the packet before it.
struct Field {
    nb::object name;
    std::string key;         // "mid":
    std::array<char, kPiece> key_piece{};
    nb::object omitted;      // the default that is left out; a null handle for none
    Py_ssize_t offset = -1;  // of the slot in the object, -1 when it must be asked for by name
    enum class Kept { nothing, real, whole } kept = Kept::nothing;
    std::uint64_t last_bits = 0;
    std::array<char, kPiece> last_text{};
    std::size_t last_length = 0;
    nb::object last_string;  // and the JSON of it
    nb::object last_json;
};

static_assert(kPiece >= ami::kNumberChars);

struct Plan {
    nb::object type;
    std::vector<Field> fields;
};

class PacketWriter {
public:
    PacketWriter(nb::dict texts, nb::dict keys) : texts_(std::move(texts)), keys_(std::move(keys)) {}

    void add_struct(nb::type_object type, nb::sequence names, nb::sequence keys, nb::dict omitted) {
        Plan plan;
        plan.type = type;
        const std::size_t count = nb::len(names);
        plan.fields.resize(count);
        for (std::size_t i = 0; i < count; ++i) {
            Field& field = plan.fields[i];
            PyObject* name = nb::object(names[i]).release().ptr();
            PyUnicode_InternInPlace(&name);
            field.name = nb::steal(name);
            field.key = nb::cast<std::string>(nb::object(keys[i]));
            std::copy_n(field.key.data(), std::min(field.key.size(), kPiece), field.key_piece.data());
            if (omitted.contains(field.name)) field.omitted = omitted[field.name];
            field.offset = slot_offset(type, field.name);
        }
        plans_.push_back(std::move(plan));
    }

    void add_constant(nb::object constant, std::string text) { constants_.emplace_back(std::move(constant), std::move(text)); }

    // The hashed part of a packet's line; None when something in it is not known to be clean. The packet's plan names
    // what is hashed, in the order of the line, with `external` last.
    nb::object write(nb::handle packet, std::int64_t seq, std::string_view prev) {
        Plan* const plan = plan_of(Py_TYPE(packet.ptr()));
        if (plan == nullptr) return nb::none();
        out_.clear();
        out_.put('{');
        for (std::size_t i = 0; i + 1 < plan->fields.size(); ++i)
            if (!write_field(packet.ptr(), plan->fields[i], 0)) return nb::none();
        Field& last = plan->fields.back();
        const nb::object external = get(packet.ptr(), last);
        if (!PyDict_CheckExact(external.ptr())) return nb::none();
        out_.put(last.key);
        if (!write_dict(external.ptr(), 0)) return nb::none();
        // The chain's own keys go on in `external`; its bracket and the packet's close the whole line.
        if (PyDict_GET_SIZE(external.ptr()) == 0)
            out_.pop_back();
        else
            out_.back() = ',';
        out_.put("\"ops.seq\":");
        out_.put_int(seq);
        out_.put(",\"ops.prev_sha256\":\"");
        out_.put(prev);
        out_.put('"');
        return nb::bytes(out_.data(), out_.size());
    }

    // What follows the hashed part; None when the latencies are not plain numbers under known keys.
    nb::object tail(std::int64_t crc, nb::handle latency_ns, nb::handle latency_ms) {
        out_.clear();
        out_.put(",\"ops.crc32\":");
        out_.put_int(crc);
        out_.put(",\"ops.latency_ns\":");
        if (!PyDict_CheckExact(latency_ns.ptr()) || !write_dict(latency_ns.ptr(), 0)) return nb::none();
        out_.put("},\"latency_ms\":");
        if (!PyFloat_CheckExact(latency_ms.ptr()) || !write_value(latency_ms.ptr(), 0)) return nb::none();
        out_.put("}\n");
        return nb::bytes(out_.data(), out_.size());
    }

    // Whether `write` would write the packet, for a caller that writes it in another form.
    bool knows(nb::handle packet) {
        Plan* const plan = plan_of(Py_TYPE(packet.ptr()));
        return plan != nullptr && PyDict_CheckExact(get(packet.ptr(), plan->fields.back()).ptr()) &&
               knows_struct(packet.ptr(), *plan, 0);
    }

private:
    bool knows_struct(PyObject* record, const Plan& plan, int depth) {
        for (const Field& field : plan.fields)
            if (!knows_value(get(record, field).ptr(), depth)) return false;
        return true;
    }

    bool knows_value(PyObject* value, int depth) {
        PyTypeObject* const type = Py_TYPE(value);
        if (type == &PyFloat_Type) return std::isfinite(PyFloat_AS_DOUBLE(value));
        if (value == Py_None || type == &PyLong_Type || type == &PyBool_Type) return true;
        if (type == &PyUnicode_Type) return known(texts_.ptr(), value) != nullptr;
        if (depth >= kMaxDepth) return false;
        if (type == &PyDict_Type) {
            Py_ssize_t place = 0;
            PyObject *key, *item;
            while (PyDict_Next(value, &place, &key, &item))
                if (Py_TYPE(key) != &PyUnicode_Type || known(keys_.ptr(), key) == nullptr || !knows_value(item, depth + 1))
                    return false;
            return true;
        }
        if (type == &PyList_Type || type == &PyTuple_Type) {
            const Py_ssize_t count = PySequence_Fast_GET_SIZE(value);
            for (Py_ssize_t i = 0; i < count; ++i)
                if (!knows_value(PySequence_Fast_GET_ITEM(value, i), depth + 1)) return false;
            return true;
        }
        if (const Plan* plan = plan_of(type)) return knows_struct(value, *plan, depth + 1);
        return std::any_of(constants_.begin(), constants_.end(),
                           [value](const auto& constant) { return constant.first.ptr() == value; });
    }

    static Py_ssize_t slot_offset(nb::handle type, nb::handle name) {
#ifdef Py_GIL_DISABLED
        return -1;
#else
        const nb::object descriptor = nb::getattr(type, name, nb::none());
        if (Py_TYPE(descriptor.ptr()) != &PyMemberDescr_Type) return -1;
        const PyMemberDef* member = reinterpret_cast<PyMemberDescrObject*>(descriptor.ptr())->d_member;
        return member->type == T_OBJECT_EX ? member->offset : -1;
#endif
    }

    static nb::object get(PyObject* object, const Field& field) {
        if (field.offset >= 0) {
            PyObject* const value = *reinterpret_cast<PyObject**>(reinterpret_cast<char*>(object) + field.offset);
            if (value != nullptr) return nb::borrow(value);
        }
        return nb::getattr(object, field.name);
    }

    Plan* plan_of(PyTypeObject* type) {
        for (Plan& plan : plans_)
            if (reinterpret_cast<PyTypeObject*>(plan.type.ptr()) == type) return &plan;
        return nullptr;
    }

    // The key, the value and a comma; nothing for a default that is left out.
    bool write_field(PyObject* record, Field& field, int depth) {
        const nb::object held = get(record, field);
        PyObject* const value = held.ptr();
        if (field.omitted.is_valid() && value == field.omitted.ptr()) return true;
        if (field.key.size() <= kPiece)
            out_.put_piece(field.key_piece.data(), field.key.size());
        else
            out_.put(field.key);
        PyTypeObject* const type = Py_TYPE(value);
        if (type == &PyFloat_Type) {
            const double number = PyFloat_AS_DOUBLE(value);
            std::uint64_t bits;
            std::memcpy(&bits, &number, sizeof bits);
            if (field.kept != Field::Kept::real || bits != field.last_bits) {
                if (!std::isfinite(number)) return false;
                keep(field, Field::Kept::real, bits, ami::write_double(number, field.last_text.data()));
            }
            out_.put_piece(field.last_text.data(), field.last_length);
        } else if (type == &PyLong_Type) {
            int overflow = 0;
            const std::int64_t number = PyLong_AsLongLongAndOverflow(value, &overflow);
            if (overflow != 0) return false;
            const auto bits = static_cast<std::uint64_t>(number);
            if (field.kept != Field::Kept::whole || bits != field.last_bits)
                keep(field, Field::Kept::whole, bits, ami::write_int(number, field.last_text.data()));
            out_.put_piece(field.last_text.data(), field.last_length);
        } else if (type == &PyUnicode_Type) {
            if (value != field.last_string.ptr()) {
                PyObject* const json = known(texts_.ptr(), value);
                if (json == nullptr) return false;
                field.last_string = held;
                field.last_json = nb::borrow(json);
            }
            put_bytes(field.last_json.ptr());
        } else if (!write_value(value, depth)) {
            return false;
        }
        out_.put(',');
        return true;
    }

    static void keep(Field& field, Field::Kept kind, std::uint64_t bits, std::size_t length) {
        field.kept = kind;
        field.last_bits = bits;
        field.last_length = length;
    }

    bool write_value(PyObject* value, int depth) {
        PyTypeObject* const type = Py_TYPE(value);
        if (value == Py_None) {
            out_.put("null");
        } else if (type == &PyUnicode_Type) {
            return write_known(texts_.ptr(), value);
        } else if (type == &PyFloat_Type) {
            const double number = PyFloat_AS_DOUBLE(value);
            if (!std::isfinite(number)) return false;
            out_.put_double(number);
        } else if (type == &PyLong_Type) {
            int overflow = 0;
            const std::int64_t number = PyLong_AsLongLongAndOverflow(value, &overflow);
            if (overflow != 0) return false;
            out_.put_int(number);
        } else if (type == &PyBool_Type) {
            out_.put(value == Py_True ? "true" : "false");
        } else if (depth >= kMaxDepth) {
            return false;
        } else if (type == &PyDict_Type) {
            return write_dict(value, depth + 1);
        } else if (type == &PyList_Type || type == &PyTuple_Type) {
            return write_sequence(value, depth + 1);
        } else if (Plan* plan = plan_of(type)) {
            return write_struct(value, *plan, depth + 1);
        } else {
            return write_constant(value);
        }
        return true;
    }

    static PyObject* known(PyObject* texts, PyObject* text) {
        PyObject* const json = PyDict_GetItemWithError(texts, text);
        if (json == nullptr && PyErr_Occurred()) nb::raise_python_error();
        return json;
    }

    void put_bytes(PyObject* bytes) {
        out_.put(std::string_view(PyBytes_AS_STRING(bytes), static_cast<std::size_t>(PyBytes_GET_SIZE(bytes))));
    }

    bool write_known(PyObject* texts, PyObject* text) {
        PyObject* const json = known(texts, text);
        if (json == nullptr) return false;
        put_bytes(json);
        return true;
    }

    bool write_constant(PyObject* value) {
        for (const auto& [constant, text] : constants_) {
            if (constant.ptr() == value) {
                out_.put(text);
                return true;
            }
        }
        return false;
    }

    bool write_dict(PyObject* dict, int depth) {
        out_.put('{');
        Py_ssize_t place = 0;
        PyObject *key, *value;
        while (PyDict_Next(dict, &place, &key, &value)) {
            if (Py_TYPE(key) != &PyUnicode_Type || !write_known(keys_.ptr(), key) || !write_value(value, depth)) return false;
            out_.put(',');
        }
        close('}');
        return true;
    }

    bool write_sequence(PyObject* values, int depth) {
        out_.put('[');
        const Py_ssize_t count = PySequence_Fast_GET_SIZE(values);
        for (Py_ssize_t i = 0; i < count; ++i) {
            if (!write_value(PySequence_Fast_GET_ITEM(values, i), depth)) return false;
            out_.put(',');
        }
        close(']');
        return true;
    }

    bool write_struct(PyObject* record, Plan& plan, int depth) {
        out_.put('{');
        for (Field& field : plan.fields)
            if (!write_field(record, field, depth)) return false;
        close('}');
        return true;
    }

    // The comma after the last item makes room for the bracket.
    void close(char bracket) {
        if (out_.back() == ',')
            out_.back() = bracket;
        else
            out_.put(bracket);
    }

    nb::dict texts_;
    nb::dict keys_;
    std::vector<Plan> plans_;
    std::vector<std::pair<nb::object, std::string>> constants_;
    Buffer out_;
};

}  // namespace

void bind_trace(nb::module_& m) {
    m.attr("HAS_PACKET_WRITER") = ami::kHasShortestDouble;
    nb::class_<PacketWriter>(m, "PacketWriter", "Writes packets as JSON, when everything in them is known to be clean.")
        .def(nb::init<nb::dict, nb::dict>(), nb::arg("texts"), nb::arg("keys"),
             "`texts` and `keys` hold the JSON of every string that is clean as a value and as a key, the key's with its "
             "colon; they are read at every call.")
        .def("add_struct", &PacketWriter::add_struct, nb::arg("type"), nb::arg("names"), nb::arg("keys"), nb::arg("omitted"),
             "Announce a struct type: its fields, their keys in JSON, and the defaults that are left out.")
        .def("add_constant", &PacketWriter::add_constant, nb::arg("constant"), nb::arg("text"),
             "Announce an object, such as an enum's member, and its JSON.")
        .def("write", &PacketWriter::write, nb::arg("packet"), nb::arg("seq"), nb::arg("prev"),
             "Return the hashed part of the packet's line, or None.")
        .def("knows", &PacketWriter::knows, nb::arg("packet"), "Return whether `write` would write the packet.")
        .def("tail", &PacketWriter::tail, nb::arg("crc"), nb::arg("latency_ns").none(), nb::arg("latency_ms").none(),
             "Return what follows the hashed part, or None.");
    m.def(
        "json_of_double",
        [](double number) {
            char text[ami::kNumberChars];
            return std::string(text, std::isfinite(number) ? ami::write_double(number, text) : 0);
        },
        nb::arg("number"), "The shortest JSON text of a finite number; empty for any other.");
}
