// A model in Python, asked by the compiled step: what it proposes is read here, and kept as it was given.
#pragma once

#include <nanobind/nanobind.h>

#include <ami/reference_model.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "object_writer.hpp"

namespace nb = nanobind;

class AskedModel {
public:
    AskedModel() = default;

    // `ask()` gives the proposal, of type `type`; `actions` are the members of `Action` in the core's order, and
    // `failure` is the one reason of a proposal in the place of a model that failed.
    AskedModel(nb::object ask, nb::object type, const nb::sequence& actions, nb::object failure)
        : ask_(std::move(ask)), type_(std::move(type)), failure_(std::move(failure)) {
        for (std::size_t i = 0; i < actions_.size(); ++i) actions_[i] = actions[i];
        const char* names[] = {"action", "reasons", "params"};
        for (std::size_t i = 0; i < fields_.size(); ++i) {
            fields_[i].name = objects::interned(nb::str(names[i]));
            fields_[i].offset = objects::slot_offset(type_, fields_[i].name);
        }
        const char* keys[] = {"bid_quote", "ask_quote", "size_usd", "post_only"};
        for (std::size_t i = 0; i < keys_.size(); ++i) keys_[i] = objects::interned(nb::str(keys[i]));
    }

    bool exists() const { return ask_.is_valid(); }

    // Foreign code: it may do anything. Its exceptions are the caller's.
    void ask() {
        const nb::object ask = ask_;  // it may be detached meanwhile
        given_ = ask();
    }
    void forget() { given_ = nb::object(); }
    // Let go of who is asked.
    void detach() { ask_ = nb::object(); }
    // What the last decision was made from; invalid when no model was asked.
    const nb::object& given() const { return given_; }
    nb::object reasons() const { return objects::get(given_.ptr(), fields_[kReasons]); }
    nb::object params() const { return objects::get(given_.ptr(), fields_[kParams]); }

    // False when there is more to it than the core can decide on: another type, numbers that are none.
    bool read(ami::Proposal& to) const {
        if (reinterpret_cast<PyObject*>(Py_TYPE(given_.ptr())) != type_.ptr()) return false;
        return read_action(to) && read_reasons(to) && read_params(to);
    }

    // Whether a size that was given is a float, as the core has it.
    bool has_float_size() const {
        const nb::object params = this->params();
        if (params.is_none()) return true;
        const nb::handle size = find(params, kSize);
        return !size.is_valid() || size.is_none() || PyFloat_CheckExact(size.ptr());
    }

    // Add a HOLD's reasons to the counts by name.
    void count_reasons() {
        const nb::object reasons = this->reasons();
        const Py_ssize_t count = PySequence_Fast_GET_SIZE(reasons.ptr());
        for (Py_ssize_t i = 0; i < count; ++i) {
            const nb::handle reason = PySequence_Fast_GET_ITEM(reasons.ptr(), i);
            const nb::object known = held_.get(reason, nb::int_(0));
            held_[reason] = known + nb::int_(1);
        }
    }
    const nb::dict& held_reasons() const { return held_; }

private:
    enum FieldPlace { kAction, kReasons, kParams };
    enum KeyPlace { kBid, kAsk, kSize, kPostOnly };

    bool read_action(ami::Proposal& to) const {
        const nb::object given = objects::get(given_.ptr(), fields_[kAction]);
        for (std::size_t i = 0; i < actions_.size(); ++i) {
            if (given.ptr() != actions_[i].ptr()) continue;
            to.action = static_cast<ami::Action>(i);
            return true;
        }
        return false;
    }

    bool read_reasons(ami::Proposal& to) const {
        const nb::object given = reasons();
        if (!PyList_CheckExact(given.ptr()) && !PyTuple_CheckExact(given.ptr())) return false;
        const Py_ssize_t count = PySequence_Fast_GET_SIZE(given.ptr());
        for (Py_ssize_t i = 0; i < count; ++i) {
            if (!PyUnicode_CheckExact(PySequence_Fast_GET_ITEM(given.ptr(), i))) return false;
        }
        if (count != 1 || !PyList_CheckExact(given.ptr())) return true;
        if (PyUnicode_Compare(PyList_GET_ITEM(given.ptr(), 0), failure_.ptr()) != 0) return true;
        // Who failed holds; anything else under its name is for Python to count.
        to.reasons = ami::kModelInvalid;
        return to.action == ami::Action::HOLD;
    }

    bool read_params(ami::Proposal& to) const {
        const nb::object params = this->params();
        if (params.is_none()) return true;
        if (!PyDict_CheckExact(params.ptr()) || !has_plain_keys(params)) return false;
        bool has_bid = false, has_ask = false;
        if (!read_amount(params, kSize, to.size_usd, to.has_size)) return false;
        if (to.action != ami::Action::ACT) return true;
        if (!read_amount(params, kBid, to.bid_quote, has_bid) || !read_amount(params, kAsk, to.ask_quote, has_ask)) {
            return false;
        }
        if ((has_bid && to.bid_quote == 0.0) || (has_ask && to.ask_quote == 0.0)) return false;
        if ((has_bid || has_ask) && !to.has_size) return false;
        const nb::handle post_only = find(params, kPostOnly);
        if (!post_only.is_valid() || post_only.is_none()) return true;
        to.post_only = post_only.ptr() == Py_True;
        return PyBool_Check(post_only.ptr());
    }

    // A key of another type compares by code of its own, which may do anything.
    static bool has_plain_keys(const nb::object& params) {
        PyObject* key = nullptr;
        Py_ssize_t place = 0;
        while (PyDict_Next(params.ptr(), &place, &key, nullptr)) {
            if (!PyUnicode_CheckExact(key)) return false;
        }
        return true;
    }

    nb::handle find(const nb::object& params, KeyPlace key) const {
        PyObject* const found = PyDict_GetItemWithError(params.ptr(), keys_[key].ptr());
        if (found == nullptr && PyErr_Occurred() != nullptr) nb::raise_python_error();
        return found;
    }

    // An amount is absent, or a plain number of at least 0 that 64 bits hold without rounding.
    bool read_amount(const nb::object& params, KeyPlace key, double& to, bool& is_there) const {
        const nb::handle found = find(params, key);
        is_there = found.is_valid() && !found.is_none();
        if (!is_there) return true;
        std::int64_t whole = 0;
        if (PyFloat_CheckExact(found.ptr())) {
            to = PyFloat_AS_DOUBLE(found.ptr());
        } else if (objects::read_whole(found.ptr(), whole) && whole <= std::int64_t{1} << 53) {
            to = static_cast<double>(whole);
        } else {
            return false;
        }
        return to >= 0.0 && std::isfinite(to);
    }

    nb::object ask_, type_, failure_, given_;
    std::array<nb::object, ami::kActionCount> actions_;
    std::array<objects::Field, 3> fields_;
    std::array<nb::object, 4> keys_;
    nb::dict held_;
};
