// Packets of a trace, in one pass that only writes what is known to be clean.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>

#include <ami/step_packet.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "object_writer.hpp"

namespace nb = nanobind;

namespace {

using objects::Field;
using objects::KnownText;
using objects::Plan;

// The memory of the last row that was asked for: a market's row is one array for as long as the market lives.
class RowView {
public:
    RowView() = default;
    RowView(const RowView&) = delete;
    RowView& operator=(const RowView&) = delete;
    ~RowView() { release(); }

    // Null when the object is no array of a row's numbers.
    const double* of(PyObject* array) {
        if (array == array_) return static_cast<const double*>(view_.buf);
        release();
        if (PyObject_GetBuffer(array, &view_, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS) != 0) {
            PyErr_Clear();
            return nullptr;
        }
        array_ = array;
        const bool is_row = view_.itemsize == sizeof(double) && view_.len == ami::kFeatureCount * view_.itemsize &&
                            view_.format != nullptr && std::strcmp(view_.format, "d") == 0;
        if (!is_row) release();
        return is_row ? static_cast<const double*>(view_.buf) : nullptr;
    }

private:
    // The view holds a reference to its array.
    void release() {
        if (array_ != nullptr) PyBuffer_Release(&view_);
        array_ = nullptr;
    }

    PyObject* array_ = nullptr;
    Py_buffer view_{};
};

// Where each part of a step stands in the tuple that Python hands over: trace/trace_logger.py.
enum Part { kStep, kKind, kSymbol, kTs, kNow, kExch, kSeq, kRow, kDecision, kExternal, kObserve, kFills, kDecide, kOrders, kTotal };
constexpr Py_ssize_t kParts = kTotal + 1;

// What a step's packet is made of besides the tuple: types of the loop, and the run.
struct StepTypes {
    nb::object decision, input, row, traced, mismatch;
    nb::object schema_version, run_id;
    std::array<Field, 5> parts;  // of a decision: proposal, final, mismatch, context, policy_hash
    Field flags;
    KnownText last_version, last_run, last_kind, last_symbol, last_policy;
};

Field field_of(nb::handle type, const char* name) {
    Field field;
    field.name = objects::interned(nb::str(name));
    field.offset = objects::slot_offset(type, field.name);
    return field;
}

class PacketWriter {
public:
    PacketWriter(nb::dict texts, nb::dict keys) : known_(std::move(texts), std::move(keys)) {}

    void add_struct(nb::type_object type, nb::sequence names, nb::sequence keys, nb::dict omitted) {
        known_.add_struct(type, names, keys, omitted);
    }
    void set_layout(nb::type_object type, nb::bytes layout) {
        if (layout.size() != ami::kLayoutBytes) throw std::invalid_argument("`layout` must have 8 bytes");
        known_.set_layout(type, std::string(layout.c_str(), layout.size()));
    }
    void add_constant(nb::object constant, std::string json) { known_.add_constant(std::move(constant), std::move(json)); }

    // The hashed part of a packet's line; None when something in it is not known to be clean. The packet's plan names
    // what is hashed, in the order of the line, with `external` last.
    nb::object write(nb::handle packet, std::int64_t seq, std::string_view prev) {
        Plan* const plan = known_.plan_of(Py_TYPE(packet.ptr()));
        if (plan == nullptr) return nb::none();
        out_.clear();
        ami::JsonForm form(out_, numbers_);
        objects::ObjectWriter<ami::JsonForm> writer(known_, form);
        out_.put('{');
        for (std::size_t i = 0; i + 1 < plan->fields.size(); ++i)
            if (!writer.field(packet.ptr(), plan->fields[i], 0)) return nb::none();
        const nb::object external = objects::get(packet.ptr(), plan->fields.back());
        if (!write_external(writer, external.ptr())) return nb::none();
        out_.put("\"ops.seq\":");
        form.whole(seq);
        out_.put(",\"ops.prev_sha256\":\"");
        out_.put(prev);
        out_.put('"');
        return nb::bytes(out_.data(), out_.size());
    }

    // What follows the hashed part; None when the latencies are not plain numbers under known keys.
    nb::object tail(std::int64_t crc, nb::handle latency_ns, nb::handle latency_ms) {
        out_.clear();
        ami::JsonForm form(out_, numbers_);
        objects::ObjectWriter<ami::JsonForm> writer(known_, form);
        out_.put(",\"ops.crc32\":");
        form.whole(crc);
        out_.put(",\"ops.latency_ns\":");
        if (!PyDict_CheckExact(latency_ns.ptr()) || !writer.dict(latency_ns.ptr(), 0)) return nb::none();
        out_.put("},\"latency_ms\":");
        if (!PyFloat_CheckExact(latency_ms.ptr())) return nb::none();
        form.real(PyFloat_AS_DOUBLE(latency_ms.ptr()));
        out_.put("}\n");
        return nb::bytes(out_.data(), out_.size());
    }

    // Whether `write` would write the packet, for a caller that writes it in another form.
    bool knows(nb::handle packet) {
        Plan* const plan = known_.plan_of(Py_TYPE(packet.ptr()));
        return plan != nullptr && PyDict_CheckExact(objects::get(packet.ptr(), plan->fields.back()).ptr()) &&
               knows_struct(packet.ptr(), *plan, 0);
    }

    void set_step(nb::type_object decision, nb::type_object input, nb::type_object row, nb::type_object traced,
                  nb::type_object mismatch, nb::str schema_version, nb::str run_id) {
        types_ = StepTypes{};
        types_.decision = decision;
        types_.input = input;
        types_.row = row;
        types_.traced = traced;
        types_.mismatch = mismatch;
        types_.schema_version = schema_version;
        types_.run_id = run_id;
        types_.parts = {field_of(decision, "proposal"), field_of(decision, "final"), field_of(decision, "mismatch"),
                        field_of(decision, "context"), field_of(decision, "policy_hash")};
        types_.flags = field_of(mismatch, "flags");
    }

    // Append the step's line to `block`, and return the SHA-256 of its hashed part; None, and nothing is appended, when
    // something in it is not known to be clean.
    nb::object step_line(nb::bytearray block, std::int64_t seq, std::string_view prev, nb::tuple parts) {
        if (prev.size() != lines_.prev.size()) throw std::invalid_argument("`prev` must have 64 digits");
        lines_.seq = seq;
        std::copy(prev.begin(), prev.end(), lines_.prev.begin());
        out_.clear();
        ami::JsonForm form(out_, numbers_);
        ami::StepTimes times;
        const std::size_t start = lines_.open(out_);
        if (!write_step(form, parts.ptr(), times)) return nb::none();
        lines_.close(out_, start, times);
        append(block.ptr());
        return nb::str(lines_.prev.data(), lines_.prev.size());
    }

    nb::object step_frame(nb::bytearray block, std::int64_t seq, nb::bytes prev, nb::tuple parts) {
        if (prev.size() != frames_.prev.size()) throw std::invalid_argument("`prev` must have 32 bytes");
        frames_.seq = seq;
        std::memcpy(frames_.prev.data(), prev.c_str(), frames_.prev.size());
        out_.clear();
        ami::PackForm form(out_);
        ami::StepTimes times;
        const std::size_t start = frames_.open(out_);
        if (!write_step(form, parts.ptr(), times)) return nb::none();
        frames_.close(out_, start, times);
        append(block.ptr());
        return nb::bytes(frames_.prev.data(), frames_.prev.size());
    }

private:
    // `external` with its key, up to where the chain's own keys go on; its bracket and the packet's close the whole line.
    bool write_external(objects::ObjectWriter<ami::JsonForm>& writer, PyObject* external) {
        if (!PyDict_CheckExact(external)) return false;
        out_.put("\"external\":");
        if (!writer.dict(external, 0)) return false;
        if (PyDict_GET_SIZE(external) == 0)
            out_.pop_back();
        else
            out_.back() = ',';
        return true;
    }
    bool write_external(objects::ObjectWriter<ami::PackForm>& writer, PyObject* external) {
        return PyDict_CheckExact(external) && writer.dict(external, 0);
    }

    template <class Form>
    bool write_step(Form& form, PyObject* parts, ami::StepTimes& times) {
        objects::ObjectWriter<Form> writer(known_, form);
        if (PyTuple_GET_SIZE(parts) != kParts || !types_.decision.is_valid()) return false;
        const auto part = [parts](Part place) { return PyTuple_GET_ITEM(parts, place); };
        PyObject* const decision = part(kDecision);
        Plan* const input = known_.plan_of(type_of(types_.input));
        Plan* const row = known_.plan_of(type_of(types_.row));
        if (Py_TYPE(decision) != type_of(types_.decision) || input == nullptr || row == nullptr) return false;
        const nb::object proposal = objects::get(decision, types_.parts[0]), final = objects::get(decision, types_.parts[1]),
                         mismatch = objects::get(decision, types_.parts[2]), context = objects::get(decision, types_.parts[3]),
                         policy = objects::get(decision, types_.parts[4]);
        if (Py_TYPE(mismatch.ptr()) != type_of(types_.mismatch)) return false;
        const int fired = PyObject_IsTrue(objects::get(mismatch.ptr(), types_.flags).ptr());
        if (fired < 0) nb::raise_python_error();

        ami::StepFacts facts;
        facts.has_context = !context.is_none();
        facts.has_mismatch = fired != 0;
        if (!read_texts(writer, part(kKind), part(kSymbol), policy.ptr(), facts) || !read_numbers(part, facts, times))
            return false;
        if (part(kRow) != Py_None && (facts.row = row_.of(part(kRow))) == nullptr) return false;
        if (!has_layout(form, *input) || (facts.row != nullptr && !has_layout(form, *row))) return false;

        ami::step_packet::open_input(form, facts, {input->layout.data(), row->layout.data()});
        if (facts.has_context && !write_struct(writer, form, context.ptr(), nullptr)) return false;
        ami::step_packet::close_input(form, facts);
        form.field("\"mdm\":");
        if (!write_struct(writer, form, proposal.ptr(), nullptr)) return false;
        form.next();
        form.field("\"final_action\":");
        if (!write_struct(writer, form, final.ptr(), facts.has_mismatch ? mismatch.ptr() : nullptr)) return false;
        form.next();
        form.field("\"mismatch\":");
        if (!facts.has_mismatch)
            form.null();
        else if (!write_struct(writer, form, mismatch.ptr(), nullptr))
            return false;
        form.next();
        return write_external(writer, part(kExternal));
    }

    // A part of the packet. A decision does not repeat the mismatch that stands beside it: it is written as a decision
    // without one.
    template <class Form>
    bool write_struct(objects::ObjectWriter<Form>& writer, Form& form, PyObject* record, PyObject* told_beside) {
        Plan* const plan = known_.plan_of(Py_TYPE(record));
        if (plan == nullptr) return false;
        const Plan* shape = plan;
        const Field* left_out = nullptr;
        if (told_beside != nullptr) {
            for (const Field& field : plan->fields)
                if (field.key == "\"mismatch\":" && objects::get(record, field).ptr() == told_beside) left_out = &field;
            if (left_out != nullptr) shape = known_.plan_of(type_of(types_.traced));
        }
        if (shape == nullptr || !has_layout(form, *shape)) return false;
        return writer.record(record, *plan, 0, shape->layout.data(), left_out);
    }

    static bool has_layout(const ami::JsonForm&, const Plan&) { return true; }
    static bool has_layout(const ami::PackForm&, const Plan& plan) { return !plan.layout.empty(); }

    template <class Form>
    bool read_texts(objects::ObjectWriter<Form>& writer, PyObject* kind, PyObject* symbol, PyObject* policy,
                    ami::StepFacts& facts) {
        const auto read = [&writer](PyObject* text, KnownText& last, std::string_view& to) {
            to = writer.spelled(text, last);
            return to.data() != nullptr;
        };
        if (Py_TYPE(policy) != &PyUnicode_Type) return false;
        const bool is_hashed = PyUnicode_GET_LENGTH(policy) > 0;
        return read(types_.schema_version.ptr(), types_.last_version, facts.schema_version) &&
               read(types_.run_id.ptr(), types_.last_run, facts.run_id) && read(kind, types_.last_kind, facts.kind) &&
               read(symbol, types_.last_symbol, facts.symbol) &&
               (!is_hashed || read(policy, types_.last_policy, facts.policy_hash));
    }

    template <class GetPart>
    static bool read_numbers(const GetPart& part, ami::StepFacts& facts, ami::StepTimes& times) {
        const std::pair<Part, std::int64_t*> numbers[] = {
            {kStep, &facts.step},    {kTs, &facts.ts_ns},   {kNow, &facts.now_ns},      {kExch, &facts.exch_ts_ns},
            {kSeq, &facts.seq},      {kObserve, &times.observe}, {kFills, &times.fills}, {kDecide, &times.decide},
            {kOrders, &times.orders}, {kTotal, &times.total}};
        return std::all_of(std::begin(numbers), std::end(numbers),
                           [&part](const auto& each) { return objects::read_whole(part(each.first), *each.second); });
    }

    static PyTypeObject* type_of(const nb::object& type) { return reinterpret_cast<PyTypeObject*>(type.ptr()); }

    void append(PyObject* block) const {
        const Py_ssize_t before = PyByteArray_GET_SIZE(block);
        if (PyByteArray_Resize(block, before + static_cast<Py_ssize_t>(out_.size())) != 0) nb::raise_python_error();
        std::memcpy(PyByteArray_AS_STRING(block) + before, out_.data(), out_.size());
    }

    bool knows_struct(PyObject* record, const Plan& plan, int depth) {
        for (const Field& field : plan.fields)
            if (!knows_value(objects::get(record, field).ptr(), depth)) return false;
        return true;
    }

    bool knows_value(PyObject* value, int depth) {
        PyTypeObject* const type = Py_TYPE(value);
        if (value == Py_None || type == &PyFloat_Type || type == &PyLong_Type || type == &PyBool_Type) return true;
        if (type == &PyUnicode_Type) return known_.text(value) != nullptr;
        if (depth >= objects::kMaxDepth) return false;
        if (type == &PyDict_Type) {
            Py_ssize_t place = 0;
            PyObject *key, *item;
            while (PyDict_Next(value, &place, &key, &item))
                if (Py_TYPE(key) != &PyUnicode_Type || known_.key(key) == nullptr || !knows_value(item, depth + 1))
                    return false;
            return true;
        }
        if (type == &PyList_Type || type == &PyTuple_Type) {
            const Py_ssize_t count = PySequence_Fast_GET_SIZE(value);
            for (Py_ssize_t i = 0; i < count; ++i)
                if (!knows_value(PySequence_Fast_GET_ITEM(value, i), depth + 1)) return false;
            return true;
        }
        if (const Plan* plan = known_.plan_of(type)) return knows_struct(value, *plan, depth + 1);
        return known_.constant(value) != nullptr;
    }

    objects::Known known_;
    StepTypes types_;
    RowView row_;
    ami::NumberTexts numbers_;
    ami::LineChain lines_;
    ami::FrameChain frames_;
    ami::ByteBuffer out_;
};

nb::bytes as_bytes(const ami::Digest& digest) { return nb::bytes(digest.data(), digest.size()); }

}  // namespace

void bind_trace(nb::module_& m) {
    m.attr("HAS_PACKET_WRITER") = ami::kHasShortestDouble;
    nb::class_<PacketWriter>(m, "PacketWriter", "Writes packets, when everything in them is known to be clean.")
        .def(nb::init<nb::dict, nb::dict>(), nb::arg("texts"), nb::arg("keys"),
             "`texts` and `keys` hold the JSON of every string that is clean as a value and as a key, the key's with its "
             "colon; they are read at every call.")
        .def("add_struct", &PacketWriter::add_struct, nb::arg("type"), nb::arg("names"), nb::arg("keys"), nb::arg("omitted"),
             "Announce a struct type: its fields, their keys in JSON, and the defaults that are left out.")
        .def("set_layout", &PacketWriter::set_layout, nb::arg("type"), nb::arg("layout"),
             "Say the layout that stands for an announced type's field names in the binary form.")
        .def("add_constant", &PacketWriter::add_constant, nb::arg("constant"), nb::arg("text"),
             "Announce an object, such as an enum's member, and its JSON, a text.")
        .def("write", &PacketWriter::write, nb::arg("packet"), nb::arg("seq"), nb::arg("prev"),
             "Return the hashed part of the packet's line, or None.")
        .def("knows", &PacketWriter::knows, nb::arg("packet"), "Return whether `write` would write the packet.")
        .def("tail", &PacketWriter::tail, nb::arg("crc"), nb::arg("latency_ns").none(), nb::arg("latency_ms").none(),
             "Return what follows the hashed part, or None.")
        .def("set_step", &PacketWriter::set_step, nb::arg("decision"), nb::arg("input"), nb::arg("row"), nb::arg("traced"),
             nb::arg("mismatch"), nb::arg("schema_version"), nb::arg("run_id"),
             "Say which types a step's packet is made of, and what all packets of the run have in common.")
        .def("step_line", &PacketWriter::step_line, nb::arg("block"), nb::arg("seq"), nb::arg("prev"), nb::arg("parts"),
             "Append a step's line to `block`; return the hash of its hashed part, or None and append nothing.")
        .def("step_frame", &PacketWriter::step_frame, nb::arg("block"), nb::arg("seq"), nb::arg("prev"), nb::arg("parts"),
             "Append a step's frame to `block`; return the hash of its hashed part, or None and append nothing.");
    m.def(
        "json_of_double",
        [](double number) {
            char text[ami::kNumberChars];
            return std::string(text, std::isfinite(number) ? ami::write_double(number, text) : 0);
        },
        nb::arg("number"), "The shortest JSON text of a finite number; empty for any other.");
    m.def(
        "sha256", [](nb::bytes data, bool portable) {
            return as_bytes(portable ? ami::sha256_portable(data.c_str(), data.size()) : ami::sha256(data.c_str(), data.size()));
        },
        nb::arg("data"), nb::arg("portable") = false, "The digest of `data`; `portable` asks for no help of the processor.");
    m.def(
        "crc32", [](nb::bytes data, bool portable) {
            return portable ? ami::crc32_portable(data.c_str(), data.size()) : ami::crc32(data.c_str(), data.size());
        },
        nb::arg("data"), nb::arg("portable") = false, "The CRC-32 of `data`, as zlib counts it.");
}
