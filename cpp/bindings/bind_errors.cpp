// The core's refusals reach Python as the engine's own errors.
#include <nanobind/nanobind.h>

#include <ami/event_error.hpp>

namespace nb = nanobind;

void bind_errors(nb::module_&) {
    nb::register_exception_translator([](const std::exception_ptr& pointer, void*) {
        try {
            std::rethrow_exception(pointer);
        } catch (const ami::EventError& refusal) {
            const nb::object type = nb::module_::import_("ami_engine.errors").attr("EventError");
            const nb::object error =
                type(nb::str(refusal.what()), nb::arg("reason") = refusal.reason, nb::arg("field") = refusal.field);
            PyErr_SetObject(type.ptr(), error.ptr());
        }
    });
}
