// Appends packets to a trace, from what a step in Python holds or from what the compiled step has decided.
#pragma once

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
#include <utility>
#include <vector>

#include "core_packet.hpp"
#include "object_writer.hpp"

namespace packets {

namespace nb = nanobind;

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

    // Null when the object is no array of a row's `size` numbers.
    const double* of(PyObject* array, std::size_t size) {
        if (array == array_) return static_cast<const double*>(view_.buf);
        release();
        if (PyObject_GetBuffer(array, &view_, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS) != 0) {
            PyErr_Clear();
            return nullptr;
        }
        array_ = array;
        const bool is_row = view_.itemsize == sizeof(double) &&
                            view_.len == static_cast<Py_ssize_t>(size) * view_.itemsize && view_.format != nullptr &&
                            std::strcmp(view_.format, "d") == 0;
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

// What a step's packet is made of besides what each step brings: types of the loop, and the run.
struct StepTypes {
    nb::object decision, input, row, traced, mismatch;
    std::size_t row_size = 0;
    nb::object schema_version, run_id;
    std::array<Field, 5> parts;  // of a decision: proposal, final, mismatch, context, policy_hash
    Field flags;
    KnownText last_version, last_run, last_symbol, last_policy;
};

// How to read the events of one type.
struct EventPlan {
    nb::object type;
    nb::object kind;
    KnownText last_kind;
    Field recv_ts_ns, exch_ts_ns, seq;
};

// What became of a step that was to be logged.
enum Outcome { kNotWritten = 0, kWritten = 1, kFlushIsDue = 2 };

// Packets that are chained and not yet handed on.
struct Block {
    ami::ByteBuffer bytes;
};

// Takes back what was put into a buffer, unless it is to be kept.
class Attempt {
public:
    explicit Attempt(ami::ByteBuffer& out) : out_(out), size_(out.size()) {}
    Attempt(const Attempt&) = delete;
    Attempt& operator=(const Attempt&) = delete;
    ~Attempt() { out_.cut_to(size_); }

    void keep() { size_ = out_.size(); }

private:
    ami::ByteBuffer& out_;
    std::size_t size_;
};

inline Field field_of(nb::handle type, const char* name) {
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

    void begin_lines(ami::LineChain& chain, nb::args types) { begin(&chain, nullptr, types); }
    void begin_frames(ami::FrameChain& chain, nb::args types) { begin(nullptr, &chain, types); }

    // Where steps are appended to, and from which number, and how many bytes, on the block is to be handed on.
    void aim(Block& block, std::int64_t due_seq, std::size_t due_bytes) {
        block_ = &block.bytes;
        due_seq_ = due_seq;
        due_bytes_ = due_bytes;
    }

    // Log what the compiled step decides; every word of it is looked at here, once.
    void begin_core(CoreWords words) { words_ = std::move(words); }
    // What the operator or a latch lets leave from the next step on; empty while it is everything.
    void set_state(nb::str state) { words_.state.string = std::move(state); }

    // Append the packet of the step that `core` has just made, as `log_step` does; `event` is null for a timer, `gave`
    // where no model in Python was asked.
    int log_core(const ami::DecisionCore& core, const AskedModel* gave, std::int64_t timer_ns, nb::handle event,
                 const ami::StepTimes& spent) {
        if (block_ == nullptr) return kNotWritten;
        if (lines_ != nullptr) {
            ami::JsonForm form(*block_, numbers_);
            return log_core_as(form, *lines_, core, gave, timer_ns, event, spent);
        }
        if (frames_ != nullptr) {
            ami::PackForm form(*block_);
            return log_core_as(form, *frames_, core, gave, timer_ns, event, spent);
        }
        return kNotWritten;
    }

    void end_steps() {
        lines_ = nullptr;
        frames_ = nullptr;
    }

    // Append the step's packet to the block and carry the chain on; nothing is done when something in the packet is not
    // known to be clean. `row` is None for a timer, `times` are those between the stages.
    int log_step(nb::handle step, nb::handle event, nb::handle symbol, nb::handle now_ns, nb::handle row,
                 nb::handle decision, nb::handle external, nb::handle times) {
        if (block_ == nullptr) return kNotWritten;
        if (lines_ != nullptr) {
            ami::JsonForm form(*block_, numbers_);
            return log_step_as(form, *lines_, step, event, symbol, now_ns, row, decision, external, times);
        }
        if (frames_ != nullptr) {
            ami::PackForm form(*block_);
            return log_step_as(form, *frames_, step, event, symbol, now_ns, row, decision, external, times);
        }
        return kNotWritten;
    }

private:
    // `external` with its key, up to where the chain's own keys go on; its bracket and the packet's close the whole line.
    bool write_external(objects::ObjectWriter<ami::JsonForm>& writer, PyObject* external) {
        if (!PyDict_CheckExact(external)) return false;
        ami::ByteBuffer& out = writer.out();
        out.put("\"external\":");
        if (!writer.dict(external, 0)) return false;
        if (PyDict_GET_SIZE(external) == 0)
            out.pop_back();
        else
            out.back() = ',';
        return true;
    }
    bool write_external(objects::ObjectWriter<ami::PackForm>& writer, PyObject* external) {
        return PyDict_CheckExact(external) && writer.dict(external, 0);
    }

    void begin(ami::LineChain* lines, ami::FrameChain* frames, const nb::args& types) {
        if (types.size() != 7) throw std::invalid_argument("a step needs five types, a version and a run");
        lines_ = lines;
        frames_ = frames;
        events_.clear();
        types_ = StepTypes{};
        types_.decision = types[0];
        types_.input = types[1];
        types_.row = types[2];
        types_.row_size = nb::len(nb::object(types_.row.attr("__struct_fields__")));
        if (types_.row_size > ami::kFeatureCount) throw std::invalid_argument("a row has no such features");
        types_.traced = types[3];
        types_.mismatch = types[4];
        types_.schema_version = types[5];
        types_.run_id = types[6];
        types_.parts = {field_of(types_.decision, "proposal"), field_of(types_.decision, "final"),
                        field_of(types_.decision, "mismatch"), field_of(types_.decision, "context"),
                        field_of(types_.decision, "policy_hash")};
        types_.flags = field_of(types_.mismatch, "flags");
    }

    template <class Form, class Chain>
    int log_step_as(Form& form, Chain& chain, nb::handle step, nb::handle event, nb::handle symbol, nb::handle now_ns,
                    nb::handle row, nb::handle decision, nb::handle external, nb::handle times) {
        ami::ByteBuffer& out = *block_;
        Attempt attempt(out);
        objects::ObjectWriter<Form> writer(known_, form);
        ami::StepFacts facts;
        facts.row_size = types_.row_size;
        ami::StepTimes spent;
        const std::size_t start = chain.open(out);
        if (!read_times(times.ptr(), spent) || !objects::read_whole(step.ptr(), facts.step) ||
            !objects::read_whole(now_ns.ptr(), facts.now_ns) || !read_event(writer, event.ptr(), row.is_none(), facts) ||
            (!row.is_none() && (facts.row = row_.of(row.ptr(), facts.row_size)) == nullptr) ||
            !write_step(writer, form, facts, symbol.ptr(), decision.ptr(), external.ptr()))
            return kNotWritten;
        chain.close(out, start, spent);
        attempt.keep();
        const bool is_due = chain.seq == due_seq_ || out.size() > due_bytes_;
        return is_due ? kFlushIsDue : kWritten;
    }

    template <class Form, class Chain>
    int log_core_as(Form& form, Chain& chain, const ami::DecisionCore& core, const AskedModel* gave,
                    std::int64_t timer_ns, nb::handle event, const ami::StepTimes& spent) {
        Plan* const input = known_.plan_of(type_of(types_.input));
        Plan* const row = known_.plan_of(type_of(types_.row));
        if (!is_plain(core) || input == nullptr || row == nullptr || core.row_size() != types_.row_size) return kNotWritten;
        ami::ByteBuffer& out = *block_;
        Attempt attempt(out);
        objects::ObjectWriter<Form> writer(known_, form);
        CoreWriter<Form> writes(known_, words_, writer, form);
        ami::StepFacts facts;
        const std::size_t start = chain.open(out);
        facts.step = core.decisions_made() - 1;
        facts.now_ns = core.now_ns();
        facts.has_context = true;
        facts.has_mismatch = core.verdict().codes != 0;
        facts.row_size = types_.row_size;
        if (timer_ns != 0) {
            facts.ts_ns = timer_ns;
            if (!read_text(writer, words_.timer.string.ptr(), words_.timer.last, facts.kind)) return kNotWritten;
        } else {
            facts.row = core.row();
            if (!read_event(writer, event.ptr(), false, facts)) return kNotWritten;
        }
        if (!read_texts(writer, words_.symbol.ptr(), words_.policy_hash.ptr(), facts)) return kNotWritten;
        if (!has_layout(form, *input) || (facts.row != nullptr && !has_layout(form, *row))) return kNotWritten;
        ami::step_packet::open_input(form, facts, {input->layout.data(), row->layout.data()});
        if (!writes.context(core)) return kNotWritten;
        ami::step_packet::close_input(form, facts);
        if (!writes.decision(core, gave) || !writes.external(core.actions())) return kNotWritten;
        chain.close(out, start, spent);
        attempt.keep();
        const bool is_due = chain.seq == due_seq_ || out.size() > due_bytes_;
        return is_due ? kFlushIsDue : kWritten;
    }

    template <class Form>
    bool write_step(objects::ObjectWriter<Form>& writer, Form& form, ami::StepFacts& facts, PyObject* symbol,
                    PyObject* decision, PyObject* external) {
        Plan* const input = known_.plan_of(type_of(types_.input));
        Plan* const row = known_.plan_of(type_of(types_.row));
        if (Py_TYPE(decision) != type_of(types_.decision) || input == nullptr || row == nullptr) return false;
        const auto part = [this, decision](std::size_t which) { return objects::get(decision, types_.parts[which]); };
        const nb::object proposal = part(0), final = part(1), mismatch = part(2), context = part(3), policy = part(4);
        if (Py_TYPE(mismatch.ptr()) != type_of(types_.mismatch)) return false;
        const int fired = PyObject_IsTrue(objects::get(mismatch.ptr(), types_.flags).ptr());
        if (fired < 0) nb::raise_python_error();
        facts.has_context = !context.is_none();
        facts.has_mismatch = fired != 0;
        if (!read_texts(writer, symbol, policy.ptr(), facts)) return false;
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
        return write_external(writer, external);
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
    bool read_texts(objects::ObjectWriter<Form>& writer, PyObject* symbol, PyObject* policy, ami::StepFacts& facts) {
        if (Py_TYPE(policy) != &PyUnicode_Type) return false;
        const bool is_hashed = PyUnicode_GET_LENGTH(policy) > 0;
        return read_text(writer, types_.schema_version.ptr(), types_.last_version, facts.schema_version) &&
               read_text(writer, types_.run_id.ptr(), types_.last_run, facts.run_id) &&
               read_text(writer, symbol, types_.last_symbol, facts.symbol) &&
               (!is_hashed || read_text(writer, policy, types_.last_policy, facts.policy_hash));
    }

    template <class Form>
    static bool read_text(objects::ObjectWriter<Form>& writer, PyObject* text, KnownText& last, std::string_view& to) {
        to = writer.spelled(text, last);
        return to.data() != nullptr;
    }

    template <class Form>
    bool read_event(objects::ObjectWriter<Form>& writer, PyObject* event, bool is_timer, ami::StepFacts& facts) {
        EventPlan& plan = event_plan(Py_TYPE(event));
        const auto read = [event](const Field& field, std::int64_t& to) {
            return objects::read_whole(objects::get(event, field).ptr(), to);
        };
        return read_text(writer, plan.kind.ptr(), plan.last_kind, facts.kind) && read(plan.recv_ts_ns, facts.ts_ns) &&
               (is_timer || (read(plan.exch_ts_ns, facts.exch_ts_ns) && read(plan.seq, facts.seq)));
    }

    EventPlan& event_plan(PyTypeObject* type) {
        for (EventPlan& plan : events_)
            if (type_of(plan.type) == type) return plan;
        EventPlan plan;
        plan.type = nb::borrow(reinterpret_cast<PyObject*>(type));
        plan.kind = nb::getattr(nb::getattr(plan.type, "__struct_config__"), "tag");
        plan.recv_ts_ns = field_of(plan.type, "recv_ts_ns");
        plan.exch_ts_ns = field_of(plan.type, "exch_ts_ns");
        plan.seq = field_of(plan.type, "seq");
        events_.push_back(std::move(plan));
        return events_.back();
    }

    // Five points in time, ns: the beginning of the step, and the end of each of its four stages.
    static bool read_times(PyObject* times, ami::StepTimes& spent) {
        if (!PyTuple_CheckExact(times) || PyTuple_GET_SIZE(times) != 5) return false;
        std::array<std::int64_t, 5> at{};
        for (std::size_t i = 0; i < at.size(); ++i)
            if (!objects::read_whole(PyTuple_GET_ITEM(times, static_cast<Py_ssize_t>(i)), at[i])) return false;
        spent = {at[1] - at[0], at[2] - at[1], at[3] - at[2], at[4] - at[3], at[4] - at[0]};
        return true;
    }

    static PyTypeObject* type_of(const nb::object& type) { return reinterpret_cast<PyTypeObject*>(type.ptr()); }

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
    CoreWords words_;
    RowView row_;
    std::vector<EventPlan> events_;
    ami::NumberTexts numbers_;
    ami::ByteBuffer out_;
    // Python keeps the chain and the block alive for as long as the writer.
    ami::LineChain* lines_ = nullptr;
    ami::FrameChain* frames_ = nullptr;
    ami::ByteBuffer* block_ = nullptr;
    std::int64_t due_seq_ = -1;
    std::size_t due_bytes_ = 0;
};

}  // namespace packets
